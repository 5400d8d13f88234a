"""The pacer: moves a virtual clock while nothing happens in the engines on it.

Time is skipped only while somebody outside waits for a result. What else a test does, nobody can see from here: a
request to its own application, a breakpoint, a sleep of its own; to skip time beside that would let a deadline pass
which the test was about to meet. Whoever waits for a result has nothing else to do.

Before it skips, everything has to be at rest: no call to a store on its way, no turn, no commit, no round, and nothing
ready on the loop. An activity that is at work is never skipped over: what it does takes real time. If that is long,
the clock goes as the real one does meanwhile, so that a timeout comes in the end; otherwise it stands still, so that
what a test sees of it does not depend on the machine.

It never polls a loop that is at rest: every answer of a store and every alarm that is set stirs it, and nothing comes
to rest without one of them before.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from perdure._values.instant import Instant
from perdure.testing.clock import VirtualClock

logger = logging.getLogger("perdure")

# Passes of the loop in a row in which nothing was ready. A wake that crosses a future, a task and a callback takes one
# pass for each.
CALM_PASSES: Final = 4
# A loop on which something is always ready has somebody on it who asks again and again, and is not waited for.
MOST_PASSES: Final = 5_000
# How often it is looked whether time goes on while an activity is at work.
LOOK_S: Final = 0.02
# Real time that an activity has to end by itself, before `advance` moves the time over it, and before time goes on
# while somebody waits. One that does no more than a test's usually does has ended long before.
PATIENCE_S: Final = 1.0


class Paced(Protocol):
    """What the pacer needs of an engine."""

    @property
    def skips(self) -> bool:
        """Whether its time may be moved without being told to."""
        ...

    @property
    def awaited(self) -> bool:
        """Whether somebody outside of its activities waits for a result."""
        ...

    @property
    def in_flight(self) -> int:
        """How many calls to its store are on their way."""
        ...

    @property
    def news(self) -> int:
        """Counts what it has written that others on the same file may have to know."""
        ...

    @property
    def still(self) -> bool:
        """Whether nothing happens in it but what activities do."""
        ...

    def at_work(self) -> set[Any]:
        """The attempts that do something at this moment."""
        ...

    def notice(self) -> None:
        """Let it look at what others have written."""
        ...

    async def next_wake(self) -> Instant | None:
        """The earliest wake in its store; asking does not stir the pacer."""
        ...


class Pacer:
    """Moves one clock, on the one loop that all its engines are on."""

    def __init__(self, clock: VirtualClock) -> None:
        self.loop = asyncio.get_running_loop()
        self.engines: list[Paced] = []
        self._clock = clock
        self._stirred = asyncio.Event()
        # How often anything has stirred it.
        self._stirs = 0
        # Held by whoever moves the clock.
        self._moving = asyncio.Lock()
        # How much of what the engines have written all of them have noticed.
        self._noticed = -1
        # A wake that the time has reached, and that no engine has taken: nobody can.
        self._out_of_reach: Instant | None = None
        # Attempts that are at work for so long that nobody waits for them, and since when the others are watched.
        self._slow: set[Any] = set()
        self._watched: set[Any] = set()
        self._watched_since = 0.0
        # Up to when the real time has passed on the clock, while an activity was at work for long.
        self._went_on_at: float | None = None
        clock.listener = self.stir
        self._task = self.loop.create_task(self._run(), name="perdure pacer")

    @property
    def over(self) -> bool:
        """Whether nobody moves the clock any more: its loop has been closed, or all tasks on it cancelled."""
        return self.loop.is_closed() or self._task.done()

    def stir(self) -> None:
        """Something has happened, and may be at rest soon."""
        self._stirs += 1
        self._stirred.set()

    def add(self, engine: Paced) -> None:
        """Take one more engine."""
        self.engines.append(engine)
        self._noticed = -1
        self.stir()

    def remove(self, engine: Paced) -> bool:
        """Leave an engine out, which closes; whether it was the last one, and the pacer is over."""
        self.engines.remove(engine)
        # What it gives back is there for the others.
        self._noticed = -1
        self.stir()
        if self.engines:
            return False
        if self._clock.listener == self.stir:
            self._clock.listener = None
        if not self.over:
            self._task.cancel()
        return True

    async def advance(self, milliseconds: int) -> None:
        """Let time pass; whatever comes due meanwhile happens at its instant, and has happened when this returns."""
        clock = self._clock
        async with self._moving:
            until = clock.now() + milliseconds
            while (due := await self._settled_due()) is not None and due <= until:
                self._jump(due)
            self._jump(until)
            await self._settle()
        # Somebody who waits may have stirred it meanwhile, when it could not move.
        self.stir()

    # Moving ----------------------------------------------------------------------------------------

    async def _skip(self) -> None:
        """Move the clock to whatever is due next, again and again, as long as everything is at rest."""
        while await self._may_skip():
            stirs = self._stirs
            due = await self._next_due()
            if due is None:
                # It may be for ever: a workflow that nobody has registered is said now, not after a time that never passes.
                self._clock.look_now()
                return
            # While the store was asked, somebody may have asked for something, or set an earlier alarm.
            if await self._may_skip() and stirs == self._stirs:
                self._jump(due)

    async def _may_skip(self) -> bool:
        if not (self._is_awaited() and await self._is_calm()):
            return False
        if working := self._at_work():
            self._let_pass(working)
            return False
        self._went_on_at = None
        return not self._let_notice()

    async def _settled_due(self) -> Instant | None:
        """When something is due next, once nothing happens any more."""
        while True:
            await self._settle()
            stirs = self._stirs
            due = await self._next_due()
            if stirs == self._stirs:
                return due

    async def _settle(self) -> None:
        """Wait until nothing happens any more, but for activities that take long."""
        while True:
            if not await self._is_calm():
                await self._stir(LOOK_S)
            elif working := self._at_work():
                if self._are_slow(working):
                    return
                await self._stir(LOOK_S)
            elif not self._let_notice():
                return

    def _jump(self, due: Instant) -> None:
        now = self._clock.now()
        self._clock.advance(max(due - now, 0))
        for engine in self.engines:
            # It may not know of a wake that another one has written.
            engine.notice()

    def _let_pass(self, working: set[Any]) -> None:
        """Let the real time pass on the clock, if activities have been at work for long."""
        if not self._are_slow(working):
            self._went_on_at = None
            return
        now = self.loop.time()
        if self._went_on_at is not None:
            milliseconds = int((now - self._went_on_at) * 1_000)
            self._clock.advance(milliseconds)
            self._went_on_at += milliseconds / 1_000
        else:
            self._went_on_at = now

    def _are_slow(self, working: set[Any]) -> bool:
        """Whether none of these attempts is one that will end in a moment."""
        self._slow &= working
        waited_for = working - self._slow
        if waited_for != self._watched:
            self._watched, self._watched_since = waited_for, self.loop.time()
        if waited_for and self.loop.time() - self._watched_since < PATIENCE_S:
            return False
        self._slow |= waited_for
        return True

    async def _next_due(self) -> Instant | None:
        """When something is due next; None: nothing is."""
        # One may close meanwhile, and its store with it.
        wakes = [await engine.next_wake() for engine in list(self.engines) if engine in self.engines]
        wake = min((wake for wake in wakes if wake is not None), default=None)
        now = self._clock.now()
        if wake is not None and wake <= now:
            # Its time had come when everything was at rest: every engine is told once more, and then no more.
            wake, self._out_of_reach = (None, wake) if wake == self._out_of_reach else (now, wake)
        dues = [due for due in (wake, self._clock.next_event()) if due is not None]
        return min(dues, default=None)

    async def _run(self) -> None:
        """Skip idle time until cancelled."""
        try:
            while True:
                await self._stir(LOOK_S if self._is_awaited() and not self._is_at_rest() else None)
                async with self._moving:
                    await self._skip()
        except Exception:
            # Died unseen, it would look like a workflow that hangs.
            logger.exception("the pacer of a test's clock has failed, which is a bug of perdure")
            raise

    # Looking ---------------------------------------------------------------------------------------

    async def _stir(self, at_most_s: float | None) -> None:
        """Wait until something stirs, or for that long."""
        try:
            async with asyncio.timeout(at_most_s):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()

    async def _is_calm(self) -> bool:
        """Whether nothing happens any more; False: something is on its way, and stirs when it has come."""
        calm = 0
        for _ in range(MOST_PASSES):
            await asyncio.sleep(0)
            if any(engine.in_flight for engine in self.engines):
                return False
            if _is_ready(self.loop):
                calm = 0
            elif not self._are_still():
                # A pause of the engine's own: its store does not answer.
                return False
            else:
                calm += 1
            if calm == CALM_PASSES:
                return True
        return self._are_still()

    def _let_notice(self) -> bool:
        """Whether engines on one file have something to tell each other; they are told to look."""
        news = sum(engine.news for engine in self.engines)
        if len(self.engines) == 1 or news == self._noticed:
            self._noticed = news
            return False
        self._noticed = news
        for engine in self.engines:
            engine.notice()
        # With nothing registered and nobody waiting a round asks no store, and stirs nobody.
        self.stir()
        return True

    def _is_awaited(self) -> bool:
        return any(engine.awaited for engine in self.engines) and all(engine.skips for engine in self.engines)

    def _is_at_rest(self) -> bool:
        return self._are_still() and not any(engine.in_flight for engine in self.engines) and not self._at_work()

    def _are_still(self) -> bool:
        return all(engine.still for engine in self.engines)

    def _at_work(self) -> set[Any]:
        return _union(engine.at_work for engine in self.engines)


def _union(sets: Iterable[Callable[[], set[Any]]]) -> set[Any]:
    return {one for attempts in sets for one in attempts()}


def _is_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether callbacks wait for their turn on a loop; another loop than asyncio's own does not say."""
    return bool(getattr(loop, "_ready", ()))
