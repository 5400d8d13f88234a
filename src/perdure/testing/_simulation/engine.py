"""The engine of a simulated process: the product's, with the world's chance, and without threads."""

import asyncio
from asyncio import events
from collections.abc import Callable, Iterable
from contextvars import Context
from random import Random
from typing import Any, Protocol

from perdure._definitions import ambient
from perdure._definitions.registration import Registration
from perdure._engine.slots import Slots
from perdure._engine.threads import Threads, Work
from perdure._engine.watchdog import Watchdog
from perdure._facade import EngineOptions, WorkflowEngine
from perdure._model.store import Store
from perdure.testing._simulation.loop import Microseconds, SimulatedLoop


class Pace(Protocol):
    """How quickly a process gets to what it does."""

    @property
    def loop(self) -> SimulatedLoop:
        """Its loop."""
        ...

    def dawdle(self) -> Microseconds:
        """How long an activity waits before it begins."""
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
        service = self._service
        service.random = random
        service.watchdog = _NoWatchdog(lambda: None)
        service.threads = InlineThreads(pace)
        service.slots = SlowSlots(service.settings.concurrency, pace)

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
        before = events._get_running_loop()  # noqa: SLF001
        # As on a thread, where no loop runs.
        events._set_running_loop(None)  # noqa: SLF001
        try:
            self._perform(work)
        finally:
            events._set_running_loop(before)  # noqa: SLF001
        work.freed = True


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
