"""Failpoints for tests: what this process does when its engine comes to one of the named points.

The points are those of `perdure._failpoints.POINTS`. One is armed for one of its reaches, counted from 1
in the order in which the process comes to it: the first one is the start, the later ones are work.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from perdure._failpoints import POINTS, arm
from perdure.errors import UsageError


class Pause:
    """A thread that has come to a point and waits there until it may go on."""

    def __init__(self) -> None:
        """Made by `Failpoints.pause`."""
        self._reached = threading.Event()
        self._may_go = threading.Event()

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait, in another thread, until the point is reached; whether it was in time."""
        return self._reached.wait(timeout)

    def go(self) -> None:
        """Let the thread go on."""
        self._may_go.set()

    def hold(self) -> None:
        """Say that the point is reached, and wait; called by the thread that has come to it."""
        self._reached.set()
        self._may_go.wait()


class Failpoints:
    """The points that are armed while this is open. One at a time is open in a process.

    Some points are reached on the event loop's thread and some on the store's, where an error becomes the
    error of the call that was made; what is armed runs on the thread that has come there.

    Attributes:
        reached: How often each point was reached since this was opened.

    Example:
        >>> import asyncio
        >>> from perdure import StoreUnavailableError, WorkflowEngine, workflow
        >>> @workflow
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> str:
        ...     async with WorkflowEngine.memory([greet]):
        ...         return await greet.execute("ada")
        >>> with Failpoints() as failpoints:
        ...     failpoints.fail("commit.after", StoreUnavailableError("the answer was lost"))
        ...     asyncio.run(main())
        'hello ada'
    """

    def __init__(self) -> None:
        """Begin with nothing armed."""
        self.reached: Counter[str] = Counter()
        self._armed: dict[tuple[str, int], Callable[[], None]] = {}
        # Points of different threads are counted in one place.
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        arm(self._reach)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        arm(None)

    def on(self, point: str, action: Callable[[], None], *, reach: int = 1) -> None:
        """Have `action` called when the point is reached for the `reach`-th time.

        Raises:
            UsageError: There is no such point, or no such reach.
        """
        if point not in POINTS:
            raise UsageError(f"There is no failpoint {point!r}. There are: {', '.join(POINTS)}.")
        if reach < 1:
            raise UsageError(f"reach= is counted from 1, and is not {reach!r}.")
        self._armed[point, reach] = action

    def crash(self, point: str, *, reach: int = 1) -> None:
        """End this process there with SIGKILL: nothing is flushed, closed or said.

        Raises:
            UsageError: There is no such point, or no such reach.
        """
        self.on(point, lambda: os.kill(os.getpid(), signal.SIGKILL), reach=reach)

    def fail(self, point: str, error: BaseException, *, reach: int = 1) -> None:
        """Raise `error` there.

        Raises:
            UsageError: There is no such point, or no such reach.
        """

        def fail() -> None:
            raise error

        self.on(point, fail, reach=reach)

    def pause(self, point: str, *, reach: int = 1) -> Pause:
        """Have the thread wait there until it is told to go on.

        Raises:
            UsageError: There is no such point, or no such reach.
        """
        pause = Pause()
        self.on(point, pause.hold, reach=reach)
        return pause

    def _reach(self, point: str) -> None:
        with self._counting:
            self.reached[point] += 1
            action = self._armed.get((point, self.reached[point]))
        if action is not None:
            action()
