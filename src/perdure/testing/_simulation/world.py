"""A world: processes on one database, a clock that jumps, and a fate drawn from a seed.

One thing happens at a time. Of the processes that have something to do one is drawn and runs what
is ready; when none has, time jumps to the next timer. A process does not see where another one is
interrupted, except through the database, and there each call is one instant; so the seed's choices
are when calls arrive, when answers come, and what goes wrong.

While nothing happens but rounds that find no work, time jumps further: to the next timer that means
something, or the next wake in the database.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from perdure import _failpoints, _ids
from perdure._definitions import ambient
from perdure._definitions.registration import Registration
from perdure._engine.attempts import Attempt
from perdure._facade import EngineOptions
from perdure._values.instant import Instant
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.history import AttemptSeen, History
from perdure.testing._simulation.loop import Microseconds, Round, SimulatedLoop, alone
from perdure.testing._simulation.process import Process, ProcessEnded, State
from perdure.testing._simulation.store import Keeper, SimulatedClock
from perdure.testing.clock import SOME_DAY

if TYPE_CHECKING:
    from perdure.testing._signer import TokenSecret

MS: Final[Microseconds] = 1_000
SECOND: Final[Microseconds] = 1_000_000

# Rounds are taken every second. When as many have found nothing, the next ones will not either.
QUIET: Final = 3 * SECOND
# So long after somebody has written it is worth while to make trouble.
BUSY: Final = 2 * SECOND
# So long after the last fault its consequences may last: others look for the dead every second, and twice for what is
# owned and unknown; a call that failed is made again after two.
AFTERMATH: Final = 15 * SECOND
# No run needs as many in which nothing gets on: a step that succeeds or a timer that fires allows for some more.
MOST_PASSES: Final = 100_000
PASSES_FOR_A_STEP: Final = 2_000

_worlds = count(1)

logger = logging.getLogger("perdure")


class Stuck(Exception):
    """Nothing will happen any more, or nothing but circles."""


class World:
    """What is around the processes of one run. It is their `Surroundings`."""

    def __init__(self, case: Case, registrations: Iterable[Registration]) -> None:
        self.case = case
        self.history = History()
        # Not the seed's: a run must never find what another one has left.
        self.database = f"simulation-{next(_worlds)}"
        self.outside = SimulatedLoop(self.now_us, self._outside_failed)
        self.clock = SimulatedClock(self.now_us, SOME_DAY)
        self.processes: list[Process] = []
        # Those that have not ended, in the order in which they began.
        self.living: list[Process] = []
        # What must not happen, and has.
        self.complaints: list[str] = []
        # What has gone wrong on purpose, by sort.
        self.faults: Counter[Fault] = Counter()
        # Looked at with every call to the store and at every failpoint; a set would hash an enumeration each time.
        self._sorts = tuple(case.faults)
        # How often each failpoint was come to, and how often a process ended there.
        self.reached: Counter[str] = Counter()
        self.ended_at: Counter[str] = Counter()
        self.passes = 0
        # Told of every change, and whenever a process has ended.
        self.on_change: Callable[[], object] = _nothing
        self.on_gone: Callable[[], object] = _nothing
        self._registrations = list(registrations)
        # What every process signs its tokens with; None: nothing.
        self.token_secret: TokenSecret | None = None
        # A database in memory lives as long as somebody has it open.
        self.keeper = Keeper(self.database, SOME_DAY)
        self._now: Microseconds = 0
        self._changed_at: Microseconds = 0
        self._written_at: Microseconds = 0
        self._calm_from: Microseconds = 0
        self._running: Process | None = None
        # Whether nothing goes wrong any more; and whether somebody has said so.
        self.healed = case.at_most == 0
        self._over = self._healed = False
        self._fates: dict[str, Random] = {}
        fate = self.fate("rates")
        # How often a fault happens where it can happen, and how long calls take: another run, another weather.
        self._crash_rate = fate.choice((0.002, 0.01, 0.05))
        self._loss_rate = fate.choice((0.01, 0.05, 0.2))
        self._slowness = fate.choice((1, 10, 100)) if Fault.SLOW in case.faults else 1

    # Chance ------------------------------------------------------------------------------------------

    def fate(self, name: str) -> Random:
        """The chance of one sort of choice. Each has its own, so that one more of these moves none of those."""
        if name not in self._fates:
            self._fates[name] = Random(f"{self.case.seed}/{name}")
        return self._fates[name]

    def strikes(self, fault: Fault, rate: float = 1.0) -> bool:
        """Whether a fault happens now; if so, it is counted."""
        if self.healed or fault not in self._sorts or self.fate(fault).random() >= rate:
            return False
        self.happens(fault)
        return True

    def happens(self, fault: Fault) -> None:
        """A fault happens now."""
        self.faults[fault] += 1
        self.healed = self.healed or self.faults.total() >= self.case.at_most
        self.changed(None)
        self.trouble_until(self._now)

    def trouble_until(self, when: Microseconds) -> None:
        """Something is wrong until then, and for a while it shows."""
        self._calm_from = max(self._calm_from, when + AFTERMATH)

    @property
    def calm_from(self) -> Instant:
        """Since when nothing has been wrong any more."""
        return self.clock.at(self._calm_from)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self.healed = self._healed = True

    def delay(self) -> Microseconds:
        """How long a call is on its way."""
        return round(self.fate("delays").expovariate(1 / (0.3 * MS * self._slowness)))

    def dawdle(self) -> Microseconds:
        """How long an activity waits before it begins."""
        return round(self.fate("dawdling").expovariate(1 / (0.5 * MS * self._slowness)))

    def is_lost(self) -> bool:
        """Whether a call to the store never arrives."""
        return self.strikes(Fault.LOSE, self._loss_rate)

    # Time ----------------------------------------------------------------------------------------------

    def now_us(self) -> Microseconds:
        """The time since the world began."""
        return self._now

    def changed(self, process: Process | None) -> None:
        """Something has happened, so rounds may find something again; with a process: it has written."""
        self._changed_at = self._now
        self.on_change()
        if process is not None:
            self._written_at = self._now
            self._tell_others(process)

    @property
    def is_busy(self) -> bool:
        """Whether somebody has written a moment ago."""
        return self._now - self._written_at < BUSY

    def _tell_others(self, writer: Process) -> None:
        fate = self.fate("hints")
        for process in self.living:
            if process is writer or process.store.hint is None:
                continue
            # Never healed: with every hint lost the fleet is slower, and that is all.
            if Fault.DEAF not in self.case.faults:
                process.loop.call_at_us(self._now + fate.randrange(40 * MS), process.store.hint)

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run what happens outside of the processes to its end, and the processes with it.

        Raises:
            Stuck: It never ends.
        """
        task = self.outside.create_task(_whole(main))
        before = logger.handlers[:], logger.propagate
        logger.handlers, logger.propagate = [_Listener(self)], False
        _failpoints.arm(self._reach)
        _ids.draw_from(self.fate("ids").randbytes)
        try:
            with alone():
                while not task.done():
                    self._step()
            task.result()
        finally:
            self.heal()
            self._over = True
            _failpoints.arm(None)
            _ids.draw_from(None)
            logger.handlers, logger.propagate = before

    def _step(self) -> None:
        self.passes += 1
        if self.passes > MOST_PASSES + PASSES_FOR_A_STEP * self.history.progress:
            raise Stuck(
                f"it goes round in circles; {self.history.progress} steps have got somewhere,"
                f" and {self.history.most_attempted()}"
            )
        now = self._now
        if self.outside.is_ready_at(now):
            self.outside.go_round()
            return
        ready = [process for process in self.living if process.paused_until <= now and process.loop.is_ready_at(now)]
        if ready:
            self._run(ready[0] if len(ready) == 1 else self.fate("order").choice(ready))
        else:
            self._jump()

    def _run(self, process: Process) -> None:
        self._running = process
        try:
            process.loop.go_round()
        except ProcessEnded:
            assert process.state is State.ENDED
        finally:
            self._running = None

    def _jump(self) -> None:
        """Let time pass until something can happen."""
        # Of two at one time the one that means something counts.
        moments = [
            (max(found[0], earliest), isinstance(found[1], Round))
            for loop, earliest in self._loops()
            if (found := loop.next_timer()) is not None
        ]
        # Who stands still with something to do has no timer for that.
        moments += [(p.paused_until, False) for p in self.living if p.paused_until > self._now and p.loop.is_ready]
        if not moments:
            raise Stuck("nothing is left that could happen")
        when, is_round = min(moments)
        if is_round and (quiet := self._now - self._changed_at) > QUIET:
            event = self._next_event()
            if event is not None:
                when = self._changed_at = event
            elif quiet > AFTERMATH:
                raise Stuck("executions have not ended, and nothing will ever wake them")
        self._now = max(self._now, when)

    def _loops(self) -> list[tuple[SimulatedLoop, Microseconds]]:
        """What may go on, each with the earliest time at which it does."""
        return [(self.outside, 0), *((process.loop, process.paused_until) for process in self.living)]

    def _next_event(self) -> Microseconds | None:
        """The next timer that means something, or the next wake in the database; None: there is nothing but rounds."""
        events = [
            max(when, earliest)
            for loop, earliest in self._loops()
            for when, handle in loop.timers()
            if not isinstance(handle, Round)
        ]
        if (wake_at := self._next_wake()) is not None:
            events.append((wake_at - SOME_DAY) * MS)
        return max(min(events), self._now + 1) if events else None

    def _next_wake(self) -> int | None:
        # By what the triggers have told: asking the database would be one more connection.
        rows = self.history.latest.values()
        wakes = [row.wake_at for row in rows if row.status == "SUSPENDED" and row.wake_at is not None]
        wakes += [row.expires_at for row in rows if row.expires_at is not None]
        now = self.clock.now()
        return min((wake for wake in wakes if now < wake < 2**62), default=None)

    # Processes -------------------------------------------------------------------------------------------

    def open_process(self) -> Process:
        """Begin one more process."""
        number = len(self.processes) + 1
        fate = self.fate("options")
        options = EngineOptions(
            cache=fate.choice((0, 1, 2, 100)), admission=fate.choice((1, 2, 5, 100)), grace=fate.choice((0, 0.01, 1))
        )
        if self.token_secret is not None:
            options["token_secret"] = self.token_secret
        process = Process(self, number, self._registrations, options, Random(f"{self.case.seed}/process {number}"))
        self.processes.append(process)
        self.living.append(process)
        return process

    def states(self) -> str:
        """How the processes are."""
        ended = [process for process in self.processes if process.state is State.ENDED]
        return ", ".join([*(process.told for process in self.living), f"{len(ended)} have ended"])

    @property
    def running(self) -> Process | None:
        """The process that runs at this moment."""
        return self._running

    def gone(self) -> None:
        """A process has ended."""
        self.living = [process for process in self.processes if process.state is not State.ENDED]
        self.changed(None)
        self.on_gone()

    def bury(self) -> None:
        """Close the frames of every process, and of what was outside when it came to no end."""
        for process in self.processes:
            process.bury()
        for task in asyncio.all_tasks(self.outside):
            task.cancel()
        while self.outside.is_ready:
            self.outside.run_pass()
        self.outside.close()
        self.keeper.close()

    def _reach(self, point: str) -> None:
        process = self._running
        if process is None or self._over:
            return
        if process.state is State.ENDED:
            raise ProcessEnded  # it unwinds, and goes nowhere
        self.reached[point] += 1
        if point.startswith("effect."):
            self._note_attempt(process, ended=point == "effect.after")
        if process.is_at_work and self.ends_process_at(point):
            self.ended_at[point] += 1
            process.kill()
            raise ProcessEnded

    def ends_process_at(self, point: str) -> bool:
        """Whether the process that has come to a failpoint ends there."""
        # More often where an effect has just happened, or is about to: that is where a repetition costs something.
        return self.strikes(Fault.CRASH, self._crash_rate * (4 if point.startswith("effect.") else 1))

    def _note_attempt(self, process: Process, *, ended: bool) -> None:
        attempt = ambient.attempt.get()
        assert isinstance(attempt, Attempt)
        incarnation, name, occurrence = attempt.step
        self.history.attempts.append(
            AttemptSeen(
                self.history.tick(), self.clock.now(), process.number, ended, attempt.execution_id, incarnation,
                name, occurrence, attempt.attempt, attempt.idempotency_key, attempt.call.activity.at_most_once,
                attempt.call.activity.timeout_ms,
            )
        )  # fmt: skip
        self.changed(None)

    # Complaints -----------------------------------------------------------------------------------------

    def complain(self, what: str) -> None:
        """Note what must not happen, once."""
        if what not in self.complaints:
            self.complaints.append(what)

    def _outside_failed(self, context: dict[str, Any]) -> None:
        self.complain(f"{context.get('message')}: {context.get('exception')!r}")


def _nothing() -> None:
    """Nobody wants to know."""


async def _whole(main: Callable[[], Awaitable[None]]) -> None:
    await main()


class _Listener(logging.Handler):
    """Hears what the engine logs: a traceback in the log is a bug of the engine."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record of the log."""
        process = self._world.running
        if record.exc_info is None or record.exc_info[1] is None or process is None or process.state is State.ENDED:
            return
        error = record.exc_info[1]
        if not isinstance(error, (ProcessEnded, asyncio.CancelledError)):
            self._world.complain(f"{process} has logged: {record.getMessage()} ({error!r})")
