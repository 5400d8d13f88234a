"""A laboratory: engines on a clock that moves when it is told to, over stores that can be watched, held back and failed.

Nothing here waits for real time. `settle` goes on until nothing can happen any more unless the test does something:
no callback is ready, no call to a store is on its way, and every function on a thread stands at a gate. A pause of the
engine (its store does not answer) is skipped on the loop's clock. And nothing spins: a loop that asks again and again
whether a store has answered takes the processor from the thread that is about to.
"""

import asyncio
import contextlib
import functools
import inspect
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from perdure import Handle, JournalEntry, StoreUnavailableError, WorkflowEngine
from perdure._definitions import ambient
from perdure._definitions.registration import Registration
from perdure._engine.runner import Runner
from perdure._engine.service import Service
from perdure._engine.threads import Threads, Work
from perdure._engine.wakes import Wakes
from perdure._model.clock import Alarm
from perdure._model.records import Commit, Record
from perdure._stores.sqlite import SqliteStore
from perdure._stores.sqlite.courtesy import Courtesy
from perdure._values.duration import Duration, to_ms
from perdure._values.instant import Instant
from perdure.testing.clock import ManualClock

from tests.conftest import Run

A = TypeVar("A")

# Passes of the loop in a row in which nothing was ready. A wake that crosses a future, a task and a callback takes
# one pass for each.
CALM_PASSES = 4
# Real timers up to here are a pause of the engine (a store that does not answer); what is later is a test's deadline.
PAUSE_S = 3.0
# How often it is looked whether a function on a thread has come on: nobody calls when one reaches a gate.
LOOK_S = 0.001
# Nothing in these tests takes as many; a loop that does is one that feeds itself.
MOST_PASSES = 200_000
MOST_JUMPS = 500


class LabClock(ManualClock):
    """A clock that knows which of its alarms mean something."""

    def __init__(self) -> None:
        super().__init__()
        self._meant: dict[int, _LabAlarm] = {}
        self._count = 0

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` once the time has come; an engine's rounds do not count as something that is due."""
        if isinstance(getattr(callback, "__self__", None), Wakes):
            return super().call_at(when, callback)
        self._count += 1
        alarm = _LabAlarm(self._meant, self._count, when)
        self._meant[self._count] = alarm

        def called() -> None:
            self._meant.pop(alarm.number, None)
            callback()

        alarm.alarm = super().call_at(when, called)
        return alarm

    def next_event(self) -> Instant | None:
        """When the next alarm is due that is not a round of an engine."""
        return min((alarm.when for alarm in self._meant.values()), default=None)

    def jump(self, when: Instant) -> None:
        """Let it be that time."""
        self.advance(when - self.now())


class _LabAlarm:
    """An alarm of a lab's clock."""

    def __init__(self, meant: "dict[int, _LabAlarm]", number: int, when: Instant) -> None:
        self._meant = meant
        self.number = number
        self.when = when
        self.alarm: Alarm | None = None

    def cancel(self) -> None:
        """Do not call."""
        self._meant.pop(self.number, None)
        assert self.alarm is not None
        self.alarm.cancel()


class Gate:
    """Where attempts wait until the test lets them on."""

    def __init__(self) -> None:
        self.entered = 0
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Stand here until it opens."""
        self.entered += 1
        await self._open.wait()

    def open(self) -> None:
        """Let everybody through, from now on."""
        self._open.set()


class ThreadGate:
    """The same for functions on threads."""

    def __init__(self) -> None:
        self.entered = 0
        self._lock = threading.Lock()
        self._open = threading.Event()
        GATES.append(self)

    @property
    def standing(self) -> int:
        """How many stand here now."""
        return 0 if self._open.is_set() else self.entered

    def wait(self) -> None:
        """Stand here until it opens."""
        with self._lock:
            self.entered += 1
        # The limit ends the threads of a test that has failed.
        self._open.wait(15)

    def open(self) -> None:
        """Let everybody through, from now on."""
        self._open.set()

    async def reached(self, times: int = 1) -> None:
        """Until so many have come."""
        while self.entered < times:  # noqa: ASYNC110 - a thread cannot set an asyncio.Event
            await asyncio.sleep(LOOK_S)


async def until(condition: Callable[[], object]) -> None:
    """Until something is so for the first time: it is looked in every pass, for some conditions hold for one."""
    while not condition():  # noqa: ASYNC110 - a thread cannot set an asyncio.Event
        await asyncio.sleep(0)


# The gates of the test that runs, and its functions on threads that have not come back yet.
GATES: list[ThreadGate] = []
CALLS: dict[Threads, set[Work]] = {}


def watch_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know which functions are on threads, also abandoned ones."""
    GATES.clear()
    CALLS.clear()
    submit, settle = Threads.submit, Work.settle

    def submitted(self: Threads, call: Callable[[], Any], context: Any) -> Work:
        work = submit(self, call, context)
        CALLS.setdefault(self, set()).add(work)
        return work

    def settled(self: Work, value: Any, error: BaseException | None) -> None:
        for calls in CALLS.values():
            calls.discard(self)
        settle(self, value, error)

    monkeypatch.setattr(Threads, "submit", submitted)
    monkeypatch.setattr(Work, "settle", settled)


class Fault:
    """What shall go wrong with the next calls of one method."""

    def __init__(self, times: int, error: Callable[[], BaseException] | None, *, written: bool) -> None:
        self.times = times
        # None: nothing goes wrong so many times.
        self.error = error
        # The call is done, and its answer is lost.
        self.written = written


class Hold:
    """Answers of one method that are kept back: what was asked is done, and nobody is told."""

    def __init__(self, *, before: bool) -> None:
        # Kept back before it is done, and not its answer.
        self.before = before
        self.kept = 0
        self._released = asyncio.Event()

    async def keep(self) -> None:
        """Be kept until the release."""
        self.kept += 1
        await self._released.wait()

    def release(self) -> None:
        """Let the answers go, from now on."""
        self._released.set()


class Probe:
    """A store that says what it was asked, and answers late, wrongly or never, if the test wants it so."""

    def __init__(self, inner: SqliteStore) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        # Every commit that was sent, in the order of sending; repeats count again.
        self.commits: list[Commit] = []
        self.batches: list[int] = []
        # How many calls wait for the store at this moment, and are not kept back.
        self.in_flight = 0
        # Whoever waits for the next answer.
        self._listeners: list[asyncio.Future[None]] = []
        # Like a process that is gone: nothing is asked any more, and nobody hears anything.
        self.dead = False
        self._faults: dict[str, list[Fault]] = {}
        self._holds: dict[str, Hold] = {}
        # Judges each batch before it is written; may raise.
        self.judge: Callable[[list[Commit]], None] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def asked(*args: Any, **options: Any) -> Any:
            return await self._ask(name, functools.partial(found, **options), args)

        return asked

    def fail(
        self,
        name: str,
        times: int = 1,
        error: Callable[[], BaseException] | None = lambda: StoreUnavailableError("the cable is out"),
        *,
        written: bool = False,
    ) -> None:
        """Let the next calls of a method fail; with `written` after they have done what was asked."""
        self._faults.setdefault(name, []).append(Fault(times, error, written=written))

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()
        self.judge = None

    def hold(self, name: str, *, before: bool = False) -> Hold:
        """Keep back the answers of a method until they are released; with `before` the calls themselves."""
        hold = self._holds[name] = Hold(before=before)
        return hold

    async def answered(self) -> None:
        """Until the next of the calls in flight is answered."""
        listener = asyncio.get_running_loop().create_future()
        self._listeners.append(listener)
        await listener

    async def _ask(self, name: str, method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        if self.dead:
            await asyncio.get_running_loop().create_future()
        self.calls[name] += 1
        if name == "commit":
            batch: list[Commit] = args[1]
            self.commits += batch
            self.batches.append(len(batch))
            if self.judge is not None:
                self.judge(batch)
        fault = self._next_fault(name)
        if fault is not None and fault.error is not None and not fault.written:
            raise fault.error()
        hold = self._holds.get(name)
        if hold is not None and hold.before:
            await hold.keep()
        self.in_flight += 1
        try:
            answer = await method(*args)
        finally:
            self.in_flight -= 1
            while self._listeners:
                listener = self._listeners.pop()
                if not listener.done():
                    listener.set_result(None)
        hold = self._holds.get(name)
        if hold is not None and not hold.before:
            await hold.keep()
        if self.dead:
            await asyncio.get_running_loop().create_future()
        if fault is not None and fault.error is not None:
            raise fault.error()
        return answer

    def _next_fault(self, name: str) -> Fault | None:
        faults = self._faults.get(name, [])
        while faults and faults[0].times == 0:
            faults.pop(0)
        if not faults:
            return None
        faults[0].times -= 1
        return faults[0]


class Lab:
    """One store, one clock, and the engines that a test opens on them."""

    def __init__(self, kind: str, cache: int | None, folder: Path, run: Run) -> None:
        # "memory" or "file".
        self.kind = kind
        # 0, or None for the default.
        self.cache = cache
        self.clock = LabClock()
        self.path = folder / "lab.perdure"
        self.folder = folder
        self._run = run
        self._name = folder.name
        # A database in memory lives as long as somebody has it open: this is what survives a restart.
        self._keeper: SqliteStore | None = None
        self.engines: list[WorkflowEngine] = []
        self._probes: list[Probe] = []
        # How far the loop's clock is ahead of the real one.
        self._ahead_s = 0.0

    def run(self, main: Callable[[], Awaitable[A]], *, timeout: float = 15) -> A:
        """Run a test to its end."""

        async def whole() -> A:
            self._skip_pauses()
            try:
                return await main()
            finally:
                if self._keeper is not None:
                    await self._keeper.close()
                    self._keeper = None

        return self._run(whole, timeout=timeout)

    def _skip_pauses(self) -> None:
        """Let the loop's clock go to the next timer at once, wherever only that could happen and it is a pause."""
        loop: Any = asyncio.get_running_loop()
        loop.time = lambda: time.monotonic() + self._ahead_s
        select = loop._selector.select

        def select_or_skip(timeout: float | None) -> Any:
            if not timeout or timeout > PAUSE_S or self._in_flight() or self._on_threads() > 0 or self._has_strangers():
                return select(timeout)
            if any(map(_waits_for_a_store, loop._scheduled)):
                return select(timeout)
            events = select(0)
            if not events:
                self._ahead_s += timeout
            return events

        loop._selector.select = select_or_skip

    # Engines ---------------------------------------------------------------------------------------

    def store(self) -> Probe:
        """One more store on the lab's database."""
        if self.kind == "file":
            inner = SqliteStore(self.path, clock=self.clock)
        else:
            inner = SqliteStore.in_memory(name=self._name, clock=self.clock)
        self._probes.append(Probe(inner))
        return self._probes[-1]

    @asynccontextmanager
    async def engine(
        self, registrations: Iterable[Registration] = (), *, store: Probe | None = None, **options: Any
    ) -> AsyncIterator[WorkflowEngine]:
        """Open an engine; the next one on the same lab is a restart, or a second worker."""
        await self._keep()
        if self.cache is not None:
            options.setdefault("cache", self.cache)
        options.setdefault("grace", 0)
        engine = WorkflowEngine(store or self.store(), list(registrations), **options)
        try:
            async with engine:
                self.engines.append(engine)
                # The first round: until it has been taken, a start waits behind what a former worker may have left.
                await self.settle()
                yield engine
        finally:
            if engine in self.engines:
                self.engines.remove(engine)

    async def crash(self, engine: WorkflowEngine) -> None:
        """Let an engine end as kill -9 would: nothing more is written, nobody is told, its lock is gone."""
        service, probe = self.service(engine), self.probe(engine)
        probe.dead = True
        self.engines.remove(engine)
        engine._state = "closed"
        ambient.open_engines.remove(engine)
        service.wakes.close()
        service.watchdog.stop()
        tasks = [*service._background, *service._heartbeats._writing.values()]
        for runner in list(service.runners.values()):
            tasks += [attempt._task for attempt in runner.running.values() if attempt._task is not None]
            runner.gone = True
            if runner._alarm is not None:
                runner._alarm.cancel()
            for attempt in list(runner.running.values()):
                attempt.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in list(service.runners.values()):
            runner.evict()
        service.cache.clear()
        service.threads.close()
        probe.inner.abandon(service.worker_id)
        await probe.inner.close()
        if self._keeper is not None:
            # Nobody looks for the dead in memory: processes do not share it.
            await self._keeper.take_over("nobody")

    @asynccontextmanager
    async def doomed(self, registrations: Iterable[Registration], **options: Any) -> AsyncIterator[WorkflowEngine]:
        """An engine that crashes at the end of the block."""
        await self._keep()
        if self.cache is not None:
            options.setdefault("cache", self.cache)
        engine = WorkflowEngine(options.pop("store", None) or self.store(), list(registrations), **options)
        await engine.__aenter__()
        self.engines.append(engine)
        try:
            await self.settle()
            yield engine
            await self.settle()
        finally:
            await self.crash(engine)
            with contextlib.suppress(ValueError):
                assert engine._token is not None
                ambient.engine.reset(engine._token)

    async def _keep(self) -> None:
        if self.kind == "memory" and self._keeper is None:
            self._keeper = SqliteStore.in_memory(name=self._name, clock=self.clock)
            await self._keeper.open()

    @staticmethod
    def service(engine: WorkflowEngine) -> Service:
        """The inside of an engine."""
        return engine._service

    @staticmethod
    def probe(engine: WorkflowEngine) -> Probe:
        """An engine's store."""
        store = engine._service.store
        assert isinstance(store, Probe)
        return store

    def runner(self, engine: WorkflowEngine, execution_id: str) -> Runner:
        """An execution in an engine's hands."""
        return self.service(engine).runners[execution_id]

    # Time ------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Go on until nothing happens any more by itself."""
        calm = 0
        for _ in range(MOST_PASSES):
            await asyncio.sleep(0)
            if self._is_ready():
                calm = 0
            elif asked := self._in_flight():
                calm = 0
                await asked[0].answered()
            elif self._on_threads() > 0:
                calm = 0
                await asyncio.sleep(LOOK_S)
            elif (pause := self._pause()) > 0:
                calm = 0
                await asyncio.sleep(pause)
            else:
                calm += 1
            if calm == CALM_PASSES:
                return
        raise AssertionError(f"It does not come to rest: {self._unrest()}")

    async def skip(self, duration: Duration) -> None:
        """Let time pass; whatever comes due meanwhile happens at its instant."""
        await self.settle()
        until = self.clock.now() + to_ms(duration)
        while (due := self.next_event()) is not None and due <= until:
            self.clock.jump(due)
            await self.settle()
        self.clock.jump(until)
        await self.settle()

    async def skip_to_next(self) -> bool:
        """Let time pass until something is due; False: nothing is."""
        await self.settle()
        due = self.next_event()
        if due is None:
            return False
        self.clock.jump(due)
        await self.settle()
        return True

    def next_event(self) -> int | None:
        """When something is due, beside the rounds that an engine takes every second in case nobody calls."""
        wakes = [self.service(engine).wakes._next_wake for engine in self.engines]
        dues = [self.clock.next_event(), *wakes]
        return min((max(due, self.clock.now()) for due in dues if due is not None), default=None)

    async def finish(self, waiting: Awaitable[A]) -> A:
        """Wait for something, skipping the time in which nothing happens."""
        task = asyncio.ensure_future(waiting)
        try:
            for _ in range(MOST_JUMPS):
                await self.settle()
                if task.done():
                    return await task
                if not await self.skip_to_next():
                    break
            raise AssertionError(f"Nothing is due, and still it waits: {self._unrest()}")
        finally:
            task.cancel()

    async def result(self, handle: Handle[A]) -> A:
        """The result of an execution, skipping the time in which nothing happens."""
        return await self.finish(handle.result())

    async def notice(self) -> None:
        """Let every engine look at what the others wrote, as its store's hint would."""
        await self.settle()
        for engine in self.engines:
            self.service(engine).wakes.poke_all()
        await self.settle()

    @staticmethod
    def _is_ready() -> bool:
        """Whether something is to be called in the next pass."""
        loop: Any = asyncio.get_running_loop()
        return bool(loop._ready)

    @staticmethod
    def _pause() -> float:
        """Seconds up to the next real timer, if that one is a pause; 0: there is none."""
        loop: Any = asyncio.get_running_loop()
        now = loop.time()
        whens = [timer._when for timer in loop._scheduled if not timer._cancelled and timer._when < now + PAUSE_S]
        return max(min(whens) - now, loop._clock_resolution) if whens else 0

    def _has_strangers(self) -> bool:
        """Whether an engine is open of whose store nobody here knows what it is asked."""
        return any(engine not in self.engines for engine in ambient.open_engines)

    def _in_flight(self) -> list[Probe]:
        """The stores that have been asked, and have not answered yet."""
        return [probe for probe in self._probes if probe.in_flight]

    def _on_threads(self) -> int:
        """How many functions are on a thread, or about to be, and do not stand at a gate."""
        busy = 0
        for threads, calls in CALLS.items():
            busy += sum(work.abandoned for work in calls)
            # One whose future is done was given up before it had a thread: nobody will ever hear of it.
            busy += min(threads._limit, sum(not work.abandoned and not work.future.done() for work in calls))
        return busy - sum(gate.standing for gate in GATES)

    def _unrest(self) -> str:
        loop: Any = asyncio.get_running_loop()
        lines = [f"ready {list(loop._ready)[:5]}", f"on threads {self._on_threads()}"]
        for engine in self.engines:
            service = self.service(engine)
            lines.append(
                f"in flight {self.probe(engine).in_flight}, committer idle {service.committer.idle}, "
                f"rounds idle {service.wakes.idle}, {[task.get_name() for task in service._background]}"
            )
            lines += [
                f"{r.workflow} {r.execution_id}: {r.running} {r.inbox} {r._commit}" for r in service.runners.values()
            ]
        return "\n".join(lines)

    # Looking ---------------------------------------------------------------------------------------

    async def record(self, engine: WorkflowEngine, execution_id: str) -> Record:
        """An execution as it stands in the store."""
        (found,) = await self.probe(engine).inner.read([execution_id])
        return found

    async def steps(self, engine: WorkflowEngine, execution_id: str) -> list[tuple[str, str, int]]:
        """Kind, name and attempt of every entry."""
        return [(entry.kind, entry.name, entry.attempt) for entry in await engine.journal(execution_id)]


def successes(journal: Iterable[JournalEntry]) -> list[Any]:
    """The recorded successes of activities, in the journal's order."""
    from perdure import Success

    return [entry.exit.value for entry in journal if entry.kind == "activity" and isinstance(entry.exit, Success)]


def _waits_for_a_store(timer: asyncio.TimerHandle) -> bool:
    """Whether it looks after a job of a store that is none of the lab's: of an engine that a test has made by itself."""
    owner = getattr(timer._callback, "__self__", None)
    return isinstance(owner, Courtesy) and bool(owner._waiting)
