"""The engine of a simulated process: the product's, with the world's chance, and without threads."""

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from contextvars import Context
from random import Random
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from perdure._definitions import ambient
from perdure._definitions.host import AttemptScope
from perdure._definitions.registration import Registration
from perdure._engine.slots import Slots
from perdure._engine.threads import Threads, Work
from perdure._engine.watchdog import Watchdog
from perdure._facade import EngineOptions, WorkflowEngine
from perdure._model.records import Acts
from perdure._model.store import Store
from perdure.errors import UsageError
from perdure.testing._simulation.loop import Microseconds, SimulatedLoop

T = TypeVar("T")
P = ParamSpec("P")

# Who asks with `asyncio.run` blocks the thread on which the answer would be found.
_ONE_THREAD: Final = (
    "An activity that is a plain function has asked its engine ({what}) with a loop of its own (asyncio.run). A simulation"
    " has one thread, which cannot wait for itself: make that activity an async one, which awaits the call."
)


class Pace(Protocol):
    """How quickly a process gets to what it does, and who hears of what it cannot do."""

    @property
    def loop(self) -> SimulatedLoop:
        """Its loop."""
        ...

    def dawdle(self) -> Microseconds:
        """How long an activity waits before it begins."""
        ...

    def complain(self, what: str) -> None:
        """Something was asked for that cannot be had in a simulation."""
        ...


class SimulatedEngine(WorkflowEngine):
    """The engine of the product, without threads and with the world's chance."""

    def __init__(
        self,
        store: Store,
        pace: Pace,
        registrations: Iterable[Registration],
        options: EngineOptions,
        random: Random,
    ) -> None:
        """Be the engine of a simulated process."""
        super().__init__(store, registrations, **options)
        self._pace = pace
        service = self._service
        service.random = random
        service.watchdog = _NoWatchdog(lambda: None)
        service.threads = InlineThreads(pace)
        service.slots = SlowSlots(service.settings.concurrency, pace)

    async def _ask(self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have something done on the process's loop; from any other one nothing would ever come back."""
        if asyncio.get_running_loop() is not self._pace.loop:
            told = _ONE_THREAD.format(what=getattr(method, "__name__", "something"))
            # The attempt records what is raised as it does any defect, and nobody may look at that.
            self._pace.complain(told)
            raise UsageError(told)
        return await super()._ask(method, *args, **kwargs)

    def evict(self) -> None:
        """Put away every kernel that waits."""
        self._service.cache.clear()

    @property
    def worker_id(self) -> str:
        """The worker that it is now."""
        return self._service.worker_id

    def bury(self) -> None:
        """Close the bodies' frames, and be forgotten."""
        if self in ambient.open_engines:
            ambient.open_engines.remove(self)
        for runner in list(self._service.runners.values()):
            runner.let_go()
        self._service.cache.clear()


class _NoWatchdog(Watchdog):
    """Nobody watches a loop whose time does not pass by itself."""

    def start(self) -> None:
        """Watch nothing."""


class InlineThreads(Threads):
    """Plain functions, called a little later on the only thread there is."""

    def __init__(self, pace: Pace) -> None:
        """Serve one process."""
        super().__init__(0)
        self._pace = pace
        self._withdrawn: set[Work] = set()
        self._shut = False

    def submit(self, call: Callable[[], Any], context: Context) -> Work:
        """Have `call` run a little later."""
        loop = self._pace.loop
        work = Work(loop, call, context)
        context.run(_show_at_once, loop)
        loop.call_at_us(loop.now_us() + self._pace.dawdle(), self._run, work)
        return work

    def abandon(self, work: Work) -> bool:
        """Wait no more for a call; it has been made, or never will be."""
        if not work.begun:
            self._withdrawn.add(work)
        return False

    def close(self) -> None:
        """Begin no call any more."""
        self._shut = True

    def _run(self, work: Work) -> None:
        if self._shut or work in self._withdrawn:
            self._withdrawn.discard(work)
            return
        work.begun = True
        with _running(None):  # as on a thread, where no loop runs
            self._perform(work)
        work.freed = True


class _OnOneThread:
    """The attempt of a plain function, which cannot wait on its thread until what it shows is written: there is no other.

    It shows as an async activity does, whose attempt waits for that at its end.
    """

    def __init__(self, attempt: AttemptScope, loop: SimulatedLoop) -> None:
        self._attempt = attempt
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attempt, name)

    def show(self, acts: Acts, /) -> None:
        """Set attributes of its execution and publish for it."""
        with _running(self._loop):
            self._attempt.show(acts)


def _show_at_once(loop: SimulatedLoop) -> None:
    attempt = ambient.attempt.get()
    if attempt is not None:
        ambient.attempt.set(cast("AttemptScope", _OnOneThread(attempt, loop)))


@contextmanager
def _running(loop: SimulatedLoop | None) -> Generator[None, None, None]:
    """Let this loop be the one that runs, or none."""
    before = events._get_running_loop()  # noqa: SLF001
    events._set_running_loop(loop)  # noqa: SLF001
    try:
        yield
    finally:
        events._set_running_loop(before)  # noqa: SLF001


class SlowSlots(Slots):
    """Places that are had a little later than they are asked for."""

    __slots__ = ("_pace",)

    def __init__(self, limit: int, pace: Pace) -> None:
        """Serve one process."""
        super().__init__(limit)
        self._pace = pace

    def try_take(self) -> bool:
        """Take none at once: then activities would all begin in the order in which they were called."""
        return False

    async def queue_up(self) -> None:
        """Wait for a while, and then for a place."""
        loop = self._pace.loop
        over: asyncio.Future[None] = loop.create_future()
        alarm = loop.call_at_us(loop.now_us() + self._pace.dawdle(), _wake, over)
        try:
            await over
        finally:
            alarm.cancel()
        if not super().try_take():
            await super().queue_up()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
