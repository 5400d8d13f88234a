"""The engine of tests: the one of production, on a store of its own and a clock that skips idle time by itself."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakKeyDictionary

from typing_extensions import Unpack

from perdure._definitions import ambient
from perdure._definitions.registration import Registration
from perdure._engine.service import Service
from perdure._facade import EngineOptions, WorkflowEngine
from perdure._model.info import ExecutionInfo
from perdure._model.records import ExecutionId, History, Record
from perdure._model.status import Held, Status
from perdure._values.duration import Duration, to_ms
from perdure._values.instant import Instant
from perdure.errors import StoreError, UsageError
from perdure.testing._pacer import Pacer
from perdure.testing._watched_store import WatchedStore
from perdure.testing.clock import VirtualClock

if TYPE_CHECKING:
    from perdure._definitions.host import AttemptScope

# Who moves a clock while engines are open on it.
_PACERS: WeakKeyDictionary[VirtualClock, Pacer] = WeakKeyDictionary()


class TestEngine(WorkflowEngine):
    """An engine whose clock skips idle time: a workflow that sleeps for a month ends in a millisecond.

    It is the engine of production, on a store in memory or, with `path`, on a file. Its clock stands still until it is
    moved. It moves by itself **while somebody waits for a result** (`execute`, `handle.result()`) and nothing happens
    in the engine: then it jumps to the next timer, timeout or retry that is due, however far that is. `advance` moves
    it at any time, by so much and no more. No timer is ever early.

    An activity that is at work is not skipped over: real I/O takes real time. The clock stands still for the first
    second of it, and goes as the real one does after that, so that a timeout is tested without waiting for it by
    `advance`, or by an activity which sleeps on the engine's clock (`perdure.sleep`).

    Args:
        registrations: The workflows.
        path: A file for its store; None: in memory, and gone with the engine.
        clock: A clock of one's own, to set its first instant or to share it: two engines on one file and one clock are
            two workers, or a restart. They have to be on one event loop as long as both are open.
        skips: Whether time is skipped by itself; False: only `advance` moves it. May be set at any time.
        allow_held: Whether executions may be held when the engine closes; False: then leaving it raises
            `AssertionError`, which names them with their causes.
        options: Those of `WorkflowEngine`; only `grace` (none) and `retention` (for ever) have other defaults here.

    Example:
        >>> import asyncio
        >>> from perdure import sleep, workflow
        >>> from perdure.testing import TestEngine
        >>> @workflow
        ... async def trial(email: str) -> str:
        ...     await sleep("30 days")
        ...     return f"{email}: your trial has ended"
        >>> async def test() -> None:
        ...     async with TestEngine([trial]) as engine:
        ...         handle = await trial.start("ada@example.com")
        ...         await engine.advance("29 days")
        ...         print((await handle.status()).value)
        ...         print(await handle.result())
        >>> asyncio.run(test())
        SUSPENDED
        ada@example.com: your trial has ended
    """

    __test__: ClassVar[bool] = False  # or pytest collects it

    def __init__(
        self,
        registrations: Iterable[Registration] = (),
        /,
        *,
        path: str | PathLike[str] | None = None,
        clock: VirtualClock | None = None,
        skips: bool = True,
        allow_held: bool = True,
        **options: Unpack[EngineOptions],
    ) -> None:
        """Make an engine for a test."""
        self.clock: VirtualClock = VirtualClock() if clock is None else clock
        self._skips = skips
        self.allow_held: bool = allow_held
        self._store = WatchedStore.make(path, self.clock)
        self._store.answered = self._stir
        self._pacer: Pacer | None = None  # None: it is not open
        options.setdefault("grace", 0)
        # A test that skips two months looks at what has ended in the first one.
        options.setdefault("retention", None)
        super().__init__(self._store, registrations, **options)
        self._pulse = _Pulse(self, self._service, self._store)

    @classmethod
    def memory(cls, registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]) -> Self:
        """The same as `TestEngine(registrations)`."""
        return cls(registrations, **options)

    @classmethod
    def sqlite(
        cls, path: str | PathLike[str], registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]
    ) -> Self:
        """The same as `TestEngine(registrations, path=path)`."""
        return cls(registrations, path=path, **options)

    # Time ------------------------------------------------------------------------------------------

    @property
    def time(self) -> datetime:
        """What o'clock it is on the engine's clock: an aware datetime in UTC."""
        return self.clock.time

    @property
    def skips(self) -> bool:
        """Whether time is skipped by itself while somebody waits for a result."""
        return self._skips

    @skips.setter
    def skips(self, skips: bool) -> None:
        self._skips = skips
        if self._pacer is not None:
            # Somebody may have waited for that, with everything at rest.
            self._pacer.loop.call_soon_threadsafe(self._pacer.stir)

    async def advance(self, duration: Duration = timedelta(0), /) -> None:
        """Let time pass, and everything happen that comes due by then, each thing at its instant.

        Before the clock moves and after it has, whatever can go on goes on to its next wait; so `advance(0)` only lets
        everything come to rest. Activities get a second of real time to end by themselves.

        Raises:
            UsageError: The duration is negative, or the engine is not open, or an activity asks, which would wait for
                itself.
        """
        milliseconds = to_ms(duration)
        if milliseconds < 0:
            raise UsageError(f"Time does not go back: advance() takes a duration from 0, not {duration!r}.")
        if ambient.attempt.get() is not None:
            raise UsageError(
                "An activity cannot move the clock that it is measured by. To make it take time, let it "
                "`await perdure.sleep(...)`, which is skipped as well."
            )
        await self._ask(self._advance, milliseconds)

    async def _advance(self, milliseconds: int) -> None:
        assert self._pacer is not None
        await self._pacer.advance(milliseconds)

    # Trouble ---------------------------------------------------------------------------------------

    async def held(self) -> list[ExecutionInfo]:
        """The executions that will not move until somebody acts, newest first: what a test usually has none of."""
        return [
            execution
            async for execution in self.executions(status=Status.SUSPENDED)
            if isinstance(execution.held, Held)
        ]

    async def adopt(self, record: Record, history: History, published: Mapping[str, bytes], /) -> bool:
        """Go on with an execution as another store has had it; for `import_execution`.

        Returns:
            False: one of that id exists, and nothing was written.
        """
        adopted = await self._ask(self._store.adopt, record, history, published)
        self._service.loop.call_soon_threadsafe(self._service.wakes.poke_all)
        return adopted

    # Lifecycle -------------------------------------------------------------------------------------

    def close_if_left_open(self) -> None:
        """Close it from outside of its loop, where a test has ended without doing so; nothing if it is closed."""
        if self._pacer is None:
            return
        self.allow_held = True
        loop = self._pacer.loop
        if loop.is_closed():
            # Its tasks have gone with it; the store and its threads have not.
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(self.__aexit__(None, None, None))
            finally:
                loop.close()
        elif loop.is_running():
            asyncio.run_coroutine_threadsafe(self.__aexit__(None, None, None), loop).result()
        else:
            loop.run_until_complete(self.__aexit__(None, None, None))

    async def __aenter__(self) -> Self:
        _check_loop(self.clock)
        await super().__aenter__()
        pacer = _PACERS.get(self.clock)
        if pacer is None:
            pacer = _PACERS[self.clock] = Pacer(self.clock)
        self._pacer = pacer
        pacer.add(self._pulse)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held = [] if self.allow_held or error is not None else await self.held()
        pacer, self._pacer = self._pacer, None
        if pacer is not None and pacer.remove(self._pulse) and _PACERS.get(self.clock) is pacer:
            del _PACERS[self.clock]
        await super().__aexit__(kind, error, trace)
        if held:
            raise AssertionError(_told(held))

    # Engine: what definitions ask ------------------------------------------------------------------

    async def wait_for_exit(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit, once there is one; for definitions."""
        attempt, who = ambient.attempt.get(), object()
        if attempt is None:
            self._pulse.waiting.add(who)
        else:
            # On the loop it gives its place back while it waits. A thread cannot, but does as little.
            self._pulse.standing.add(attempt)
        self._stir()
        try:
            return await super().wait_for_exit(execution_id, workflow=workflow, timeout=timeout)
        finally:
            self._pulse.waiting.discard(who)
            if attempt is not None:
                self._pulse.standing.discard(attempt)

    def _stir(self) -> None:
        pacer = self._pacer
        if pacer is None:
            return
        if asyncio.get_running_loop() is pacer.loop:
            pacer.stir()
        else:  # an activity on a thread that waits for another execution has a loop of its own
            pacer.loop.call_soon_threadsafe(pacer.stir)


class _Pulse:
    """What happens in an engine at this moment, for the pacer; it is `Paced`."""

    def __init__(self, engine: TestEngine, service: Service, store: WatchedStore) -> None:
        self._engine = engine
        self._service = service
        self._store = store
        # Whoever waits for a result from outside, and activities on threads that do.
        self.waiting: set[object] = set()
        self.standing: set[AttemptScope] = set()

    @property
    def skips(self) -> bool:
        """Whether its time may be moved without being told to."""
        return self._engine.skips

    @property
    def awaited(self) -> bool:
        """Whether somebody outside of its activities waits for a result."""
        return bool(self.waiting)

    @property
    def in_flight(self) -> int:
        """How many calls to its store are on their way."""
        return self._store.in_flight

    @property
    def news(self) -> int:
        """Counts what it has written that others on the same file may have to know."""
        return self._store.news

    @property
    def still(self) -> bool:
        """Whether nothing happens in it but what activities do."""
        return self._service.still

    def at_work(self) -> set[Any]:
        """The attempts that do something at this moment."""
        return {*self._service.at_work} - self.standing

    def notice(self) -> None:
        """Let it look at what others have written; in memory there are none, and a look would cost every jump as much."""
        if self._store.shared:
            self._service.wakes.poke_all()

    async def next_wake(self) -> Instant | None:
        """The earliest wake in its store; asking does not stir the pacer."""
        try:
            return await self._store.look_for_wake()
        except StoreError:
            return None


def _told(held: Sequence[ExecutionInfo]) -> str:
    lines = [f"  {one.workflow} {one.execution_id} ({one.held}): {one.cause}" for one in held]
    are = "execution is" if len(held) == 1 else "executions are"
    return "\n".join([f"{len(held)} {are} held at the end:", *lines, "Where that is wanted, say allow_held=True."])


def _check_loop(clock: VirtualClock) -> None:
    pacer = _PACERS.get(clock)
    if pacer is None:
        return
    if pacer.over:
        # Whoever opened an engine there has left it open, and the loop has gone with all of its tasks.
        del _PACERS[clock]
    elif pacer.loop is not asyncio.get_running_loop():
        raise UsageError(
            "Another engine is open on this clock, on another event loop. Engines that share a clock have to be open on"
            " one loop, or one after the other."
        )
