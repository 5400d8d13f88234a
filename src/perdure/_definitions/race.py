"""Races: several things at once, of which the first success counts and is recorded."""

import asyncio
import inspect
from asyncio import CancelledError, Future
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast, overload

from pydantic_core import from_json, to_json

from perdure._definitions import ambient
from perdure._definitions.activity import ActivityCall
from perdure._definitions.name import check_name
from perdure._model.journal import Kind
from perdure._values.cause import Cause, Die, cause_of
from perdure._values.exit_codec import ExitCodec, is_success
from perdure._values.schema import Schema
from perdure.errors import Defect, PayloadError, UsageError

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")

_ANYTHING: Final[Schema[Any]] = Schema(Any, "A race", "the first value")


@overload
async def race_all(name: str, branches: tuple[Awaitable[T1], Awaitable[T2]], /) -> T1 | T2: ...
@overload
async def race_all(name: str, branches: tuple[Awaitable[T1], Awaitable[T2], Awaitable[T3]], /) -> T1 | T2 | T3: ...
@overload
async def race_all(
    name: str, branches: tuple[Awaitable[T1], Awaitable[T2], Awaitable[T3], Awaitable[T4]], /
) -> T1 | T2 | T3 | T4: ...
@overload
async def race_all(
    name: str, branches: tuple[Awaitable[T1], Awaitable[T2], Awaitable[T3], Awaitable[T4], Awaitable[T5]], /
) -> T1 | T2 | T3 | T4 | T5: ...
@overload
async def race_all(name: str, branches: Iterable[Awaitable[T]], /) -> T: ...
async def race_all(name: str, branches: Iterable[Awaitable[Any]], /) -> Any:
    """Await several things, and give the first success; the others are cancelled, and have ended when this goes on.

    In a body its end is recorded (R21). A branch that fails is ignored while another one can still succeed. A value
    of something that is no activity or deferred is recorded as plain JSON; `DurableDeferred.race_all` gives it a type.
    Outside of a body it just races.

    Args:
        name: What its end is recorded under.
        branches: What races: calls of activities and children, deferreds, coroutines.

    Raises:
        Exception: What they failed with, if all did: one error as itself, several as an ExceptionGroup.
        PayloadError: The first value does not go into JSON.
        UsageError: There are no branches, or one cannot be awaited.

    Example:
        ```python
        from perdure import WorkflowEngine, activity, race_all, sleep, workflow


        @activity
        async def fetch(mirror: str, seconds: float) -> str:
            await sleep(seconds)
            return mirror


        @workflow
        async def fastest() -> str:
            return await race_all("fastest-mirror", [fetch("slow", 60), fetch("quick", 0)])


        async with WorkflowEngine.memory([fastest]):
            assert await fastest.execute() == "quick"
        ```
    """
    owner = f'Race "{check_name(name, "a race")}"'
    return await run(f"raceAll/Activity/{name}", owner, branches, None)


async def run(label: str, owner: str, branches: Iterable[Awaitable[Any]], codec: ExitCodec[Any] | None) -> Any:
    """Run a race to its end.

    Args:
        label: What its end is recorded under.
        owner: Whose race it is, as errors say it.
        branches: What races.
        codec: Reads and writes its exits; None: each branch's own.

    Raises:
        Exception: What they failed with, if all did.
        PayloadError: The first value cannot be recorded.
        UsageError: There are no branches, or one cannot be awaited.
    """
    entrants = _entrants(list(branches), owner)
    exits = _Exits(owner, entrants, codec)
    host = ambient.host.get()
    number = 0 if host is None else host.occurrence(Kind.RACE, label)
    recorded = None if host is None else host.race(label, number)
    tasks: list[Future[Any]] = [asyncio.ensure_future(entrant) for entrant in entrants]
    try:
        finish = _Finish(tasks, recorded)
        await finish.line
        if host is not None and finish.over:
            host.decide(label, number, exits.encode(tasks, finish.winner))
        # What is recorded counts, also where changed code has come to another end by now, or to none.
        told = recorded.result() if recorded is not None and recorded.done() else None
        if told is not None and finish.came_to(exits.branch(told)):
            told = None
        # Looked at before the losers end: what they come to then is no part of the race.
        winner = finish.winner
    except (Exception, CancelledError):
        # Not for GeneratorExit: a frame that is put away has nothing to wait for.
        await _end(tasks)
        raise
    await _end(tasks)
    if told is not None:
        try:
            return exits.decode(told)
        except PayloadError as error:
            # Raised here it would be the body's failure, and undo an execution that only wants its code mended (R40).
            assert host is not None
            return await host.unreadable(error)
    if winner is None:
        raise _failure(tasks)
    return exits.value(tasks.index(winner), winner.result())


class _Finish:
    """How a race stands: whether one has come in, and what is still under way."""

    __slots__ = ("_left", "_tasks", "line", "winner")

    def __init__(self, tasks: Sequence["Future[Any]"], recorded: "Future[bytes] | None") -> None:
        # Done when there is something to see.
        self.line: Future[None] = asyncio.get_running_loop().create_future()
        # The first that has succeeded. Told by callbacks, which run in the order in which the tasks end: two may
        # have ended before whoever waits here runs again.
        self.winner: Future[Any] | None = None
        self._tasks = tasks
        self._left = len(tasks)
        for task in tasks:
            task.add_done_callback(self._ended)
        if recorded is not None:
            recorded.add_done_callback(self._cross)

    @property
    def over(self) -> bool:
        """Whether the branches themselves have come to an end of the race."""
        return self.winner is not None or not self._left

    def came_to(self, branch: int | None) -> bool:
        """Whether they have come to this end: the success of a branch, or, None, the failure of all."""
        if self.winner is None:
            return branch is None and self.over
        return branch == self._tasks.index(self.winner)

    def _ended(self, task: "Future[Any]") -> None:
        self._left -= 1
        if self.winner is None and not task.cancelled() and task.exception() is None:
            self.winner = task
        if self.over:
            self._cross(task)

    def _cross(self, _: object) -> None:
        if not self.line.done():
            self.line.set_result(None)


class _Exits:
    """How the exit of a race is written: which branch has won, and its value; or why all have failed."""

    __slots__ = ("_codecs", "_failures", "_owner", "_typed")

    def __init__(self, owner: str, entrants: Sequence[Awaitable[Any]], codec: ExitCodec[Any] | None) -> None:
        self._owner = owner
        self._typed = codec is not None
        anything = ExitCodec(_ANYTHING, (), owner)
        self._codecs = [codec or _codec_of(entrant) or anything for entrant in entrants]
        errors = {error.__name__: error for known in self._codecs for error in known.errors}
        self._failures = ExitCodec(_ANYTHING, tuple(errors.values()), owner)

    def value(self, branch: int, value: Any) -> Any:
        """The value that the race gives: where its type is known, as a replay reads it."""
        return self._codecs[branch].success(value)[1] if self._typed else value

    def encode(self, tasks: Sequence["Future[Any]"], winner: "Future[Any] | None") -> bytes:
        """The exit of a race that is over.

        Raises:
            PayloadError: The first value cannot be recorded.
        """
        if winner is None:
            return self._encode_failure(_failure(tasks))
        branch = tasks.index(winner)
        try:
            said = self._codecs[branch].encode_success(winner.result())
        except PayloadError as refused:
            raise PayloadError(
                f"{self._owner}: the value of branch {branch} cannot be recorded: {refused}. "
                "`DurableDeferred.race_all(..., success=...)` says what type it is.",
                fields=refused.fields,
                owner=self._owner,
            ) from refused
        return b'{"success":{"branch":%d,"value":%s}}' % (branch, said[len(b'{"success":') : -1])

    def branch(self, exit: bytes) -> int | None:
        """Which branch has won; None: all have failed."""
        return cast("int", from_json(exit)["success"]["branch"]) if is_success(exit) else None

    def decode(self, exit: bytes) -> Any:
        """Give what a recorded race gave.

        Raises:
            BaseException: What it failed with.
            PayloadError: Today's branches have no such type.
        """
        if not is_success(exit):
            return self._failures.decode(exit).unwrap()
        said = from_json(exit)["success"]
        branch: int = said["branch"]
        if branch >= len(self._codecs):
            raise PayloadError(f"{self._owner}: branch {branch} won, and there is none today.", owner=self._owner)
        return self._codecs[branch].decode_success(b'{"success":' + to_json(said["value"]) + b"}")

    def _encode_failure(self, failure: BaseException) -> bytes:
        # Without an owner: the branches have declared what they have, a race has nothing to add.
        cause = cause_of(failure, self._failures.errors)
        try:
            return self._failures.encode_failure(cause)
        except PayloadError:
            return self._failures.encode_failure(Cause((Die(Defect.from_exception(failure)),)))


def _entrants(branches: list[Awaitable[Any]], owner: str) -> list[Awaitable[Any]]:
    """Give the branches, or refuse them.

    Raises:
        UsageError: There are none, or one cannot be awaited.
    """
    if not branches:
        raise UsageError(f"{owner} has no branches, so nothing could ever end it.")
    for branch in branches:
        if not inspect.isawaitable(branch):
            raise UsageError(
                f"{owner}: {branch!r} cannot be awaited. A branch is the call of an activity or of a child, a deferred, "
                "or a coroutine."
            )
    return branches


def _codec_of(branch: Awaitable[Any]) -> ExitCodec[Any] | None:
    """The codec of what a branch awaits: of an activity or of a deferred."""
    codec = getattr(branch.activity if isinstance(branch, ActivityCall) else branch, "codec", None)
    return cast("ExitCodec[Any]", codec) if isinstance(codec, ExitCodec) else None


def _failure(tasks: Sequence["Future[Any]"]) -> BaseException:
    """What a race fails with when all branches have: cancellations are left out, if there is anything else (R34)."""
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if not errors:
        return CancelledError()
    return errors[0] if len(errors) == 1 else BaseExceptionGroup("all branches of a race failed", errors)


async def _end(tasks: Sequence["Future[Any]"]) -> None:
    """Cancel what still runs, and wait until its clean-up has ended, also when cancelled meanwhile."""
    cancelled: CancelledError | None = None
    for task in tasks:
        task.cancel()
    while running := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(running)
        except CancelledError as once_more:
            cancelled = once_more
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would say that nobody has
    if cancelled is not None:
        raise cancelled
