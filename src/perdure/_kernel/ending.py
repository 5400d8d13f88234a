"""How an execution ends: what its body came to, and what stands on the stack to be done then (R27)."""

from asyncio import CancelledError
from bisect import insort
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from perdure._definitions.host import Finalizer
from perdure._model.records import interrupted_status
from perdure._model.status import Held, Status
from perdure._values.cause import Cause
from perdure._values.exit import Exit, Failure, Success


class Ending(NamedTuple):
    """What the body of an execution has come to."""

    status: Status
    # Encoded, as it is recorded; and as finalizers and compensations see it.
    exit: bytes
    told: Exit[Any]
    # The failure holds the execution instead of ending it (R35, R36).
    held: Held | None = None

    @property
    def failed(self) -> bool:
        """Whether compensations run."""
        return not isinstance(self.told, Success)


# Told what the body returned, or what it raised, and with which exit it was interrupted, if it was.
Judge = Callable[[Any, BaseException | None, bytes | None], Ending]


def plain_ending(value: Any, failure: BaseException | None, interrupted: bytes | None) -> Ending:
    """What a body has come to, for those who encode nothing."""
    if failure is None:
        return Ending(Status.SUCCEEDED, b"", Success(value))
    if isinstance(failure, CancelledError) and interrupted is not None:
        return Ending(interrupted_status(interrupted), interrupted, Failure(Cause.interrupt()))
    return Ending(Status.FAILED, b"", Failure(Cause.from_exception(failure)))


class Stack:
    """Finalizers and compensations, each at its place; the highest is run first."""

    __slots__ = ("_places", "_stack")

    def __init__(self) -> None:
        self._stack: list[tuple[int, Finalizer]] = []
        self._places = 0

    def __bool__(self) -> bool:
        return bool(self._stack)

    def place(self) -> int:
        """Take the next place, whether or not something comes to stand there."""
        self._places += 1
        return self._places

    def push(self, finalizer: Finalizer, place: int | None = None) -> None:
        """Put one at a place; without one, on top."""
        insort(self._stack, (self.place() if place is None else place, finalizer), key=_place)

    def pop(self) -> Finalizer:
        """Take the highest."""
        return self._stack.pop()[1]

    def clear(self) -> None:
        """Nothing of it will be run here."""
        self._stack.clear()

    def forget_compensations(self) -> None:
        """What stands here is somebody else's to undo (R49)."""
        self._stack = [one for one in self._stack if not one[1].only_after_failure]

    def compensations(self) -> Iterator[str]:
        """What they are called, the next one first."""
        return (finalizer.label for _, finalizer in reversed(self._stack) if finalizer.only_after_failure)


def _place(standing: tuple[int, Finalizer]) -> int:
    return standing[0]
