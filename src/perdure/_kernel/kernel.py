"""A kernel: one body on its loop, fed one event at a time, each to quiescence.

Live and on replay the path is the same: an entry is fed, the call that asked for it gets its
result, the loop runs until nothing is ready, and only then comes the next entry. Replay never skips
user code; while it lasts nothing is given out, and when the last entry has come to rest, what is
still asked for is.

The kernel does no I/O and has no clock. What it wants to be written (`entries`, `starts`) and what
it asks for (`asked`, `withdrawn`, the timers) lies there for the engine, which acts on it only when
the commit is durable. The kernel may run ahead of durability by one commit; its effects never.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from random import Random
from typing import Any, NamedTuple

from perdure._definitions import ambient
from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._kernel.divergence import divergence_error
from perdure._kernel.loop import SERIAL_SHIFT, KernelLoop, KernelTask, KernelTimer, Spinning
from perdure._kernel.matching import Steps
from perdure._model.journal import MARKERS, Entry, Kind
from perdure._model.records import ExecutionId, Start
from perdure._model.status import Held
from perdure._values.exit import Success
from perdure._values.exit_codec import is_success, retry_at
from perdure._values.instant import Instant
from perdure.errors import Defect, PayloadError

# Callbacks in one turn. A body that needs more is not working, it is spinning; a `gather` of
# 100,000 branches stays far below.
TURN_BUDGET = 1_000_000

# Waits up to this long keep their worker; longer ones are recorded and suspend (R16).
IN_MEMORY_MS = 60_000

logger = logging.getLogger("perdure")

MakeBody = Callable[[], Coroutine[Any, Any, Any]]

# Kernels of this process, counted round: past 2**63 Python folds the upper bits of a hash into the lower ones, and the
# sets of a worker that has run eight million executions would have another order.
_serials = itertools.cycle(range(1, 1 << 20))


class Event(NamedTuple):
    """Something that has just happened to a live execution, before it has a place in the journal."""

    kind: Kind
    name: str
    occurrence: int
    attempt: int
    input: bytes
    exit: bytes
    at: Instant
    # The value that `exit` encodes, already passed through its schema, so that it is parsed once.
    value: Any = None
    has_value: bool = False


class LoopTimer(TimerCall):
    """A timer that the body's own loop has set: it runs a callback instead of resolving a future."""

    __slots__ = ("handle",)

    handle: KernelTimer


class Trouble(NamedTuple):
    """Why a kernel cannot go on; its execution is held with this."""

    held: Held
    error: BaseException


class Origin(NamedTuple):
    """Whose body a kernel runs, and what its determinism hangs on."""

    execution_id: ExecutionId
    life: int
    workflow: str
    seed: bytes
    began_at: Instant
    # Whether this is the first turn that anybody has ever run of it (R8a).
    unborn: bool


class Kernel:
    """One execution in memory. It is the `Host` of its body and the `Timers` of its loop."""

    __slots__ = (
        "_answers",
        "_asked",
        "_budget",
        "_closed",
        "_counts",
        "_draws",
        "_due",
        "_equals",
        "_fed_seq",
        "_loop",
        "_main",
        "_now",
        "_number",
        "_origin",
        "_patches",
        "_recorded_at",
        "_replaying",
        "_withdrawn",
        "entries",
        "seq",
        "starts",
        "steps",
        "trouble",
    )  # fmt: skip

    def __init__(self, origin: Origin, history: Sequence[Entry] = (), budget: int = TURN_BUDGET) -> None:
        self._origin = origin
        self._budget = budget
        self._loop = KernelLoop(self, budget)
        self._main: KernelTask | None = None
        self._number = next(_serials) << SERIAL_SHIFT
        self._now = origin.began_at
        # When the last entry of the journal was fed, also while the replay has not come that far.
        self._recorded_at = origin.began_at
        self._fed_seq = 0
        self._draws = 0
        self._replaying = True
        self._closed = False
        self._counts: dict[tuple[str, str], int] = {}
        self._equals: dict[int, int] = {}
        self._patches: dict[str, bool] = {}
        # Recorded markers by kind and name, each in the journal's order.
        self._answers: dict[tuple[str, str], list[Entry]] = {}
        # Calls that took a kept entry: each is fed at the end of the turn, as an event of its own.
        self._due: list[tuple[Call, Entry]] = []
        self._asked: list[Call] = []
        self._withdrawn: list[Call] = []
        self.steps = Steps()
        # The last seq of the journal, written or about to be.
        self.seq = 0
        # What this kernel's turns want to have written since the engine last took it.
        self.entries: list[Entry] = []
        self.starts: list[Start] = []
        # Not None: it will not go on; the engine holds the execution and closes the kernel.
        self.trouble: Trouble | None = None
        for entry in history:
            if entry.kind in MARKERS:
                self._answers.setdefault((entry.kind, entry.name), []).append(entry)

    # Turns -------------------------------------------------------------------------------------

    def begin(self, make_body: MakeBody, history: Sequence[Entry] = ()) -> None:
        """Run the first turn, then feed the journal again. Nothing is given out before the end."""
        self._replaying = not self._origin.unborn
        context = Context()
        self.adopt(context)
        try:
            coroutine = context.run(make_body)
        except PayloadError as error:
            self.trouble = Trouble(Held.UNREADABLE, error)
            return
        self._loop.turning = True
        self._main = self._loop.create_task(coroutine, context=context)
        self._loop.turning = False
        if history:
            # Before the first turn: changed code may have new markers written while it is replayed, and they stand
            # behind all that is recorded.
            self.seq, self._recorded_at = history[-1].seq, history[-1].at
        self._settle()
        for entry in history:
            if entry.kind not in MARKERS and self.trouble is None and not self._closed:
                self._feed(entry, self.steps.taker(entry))
        self._replaying = False
        self._check()
        self._retract_if_in_trouble()
        if self.steps.kept and self.trouble is None:
            names = ", ".join(f"{entry.kind} {entry.name!r}" for entry in self.steps.kept)
            logger.info("%s %s: recorded, but no longer asked for: %s", self.workflow, self.execution_id, names)

    def deliver(self, event: Event) -> bool:
        """Feed what has just happened. False: nobody waits for it (any more), and it is not recorded."""
        kind, name, occurrence, attempt, encoded_input, encoded_exit, at, value, has_value = event
        entry = Entry(
            self.seq + 1,
            kind,
            name,
            occurrence,
            attempt,
            encoded_input,
            encoded_exit,
            max(self._now, at),
        )
        if self._closed or self.trouble is not None:
            return False
        call = self.steps.asker(entry)
        if call is None:
            return False
        self.seq += 1
        self.entries.append(entry)
        self._feed(entry, call, value, has_value=has_value)
        self._check()
        self._retract_if_in_trouble()
        return True

    def note(self, kind: Kind, name: str, occurrence: int, attempt: int, encoded_input: bytes) -> None:
        """Have the journal remember something of the engine's own: an at-most-once attempt is about to begin (R50)."""
        self._mark(kind, name, occurrence, asked=encoded_input, attempt=attempt)

    def _feed(self, entry: Entry, call: Call | None, value: Any = None, *, has_value: bool = False) -> None:
        self._now = max(self._now, entry.at)
        self._fed_seq = entry.seq
        self._draws = 0
        if call is None:
            self.steps.keep(entry)
            return
        self._answer(call, entry, value, has_value=has_value)
        self._settle()

    def _answer(self, call: Call, entry: Entry, value: Any = None, *, has_value: bool = False) -> None:
        if call.kind is Kind.TIMER:
            self._fire(call)
        elif has_value:
            self._resolve(call, value)
        elif not is_success(entry.exit) and (again_at := retry_at(entry.exit)) is not None:
            call.attempt = entry.attempt + 1
            call.due_at = again_at
            if _was_interrupted(entry.exit):
                call.interruptions += 1
            elif call.failed_at is None:
                call.failed_at = entry.at
            self._asked.append(call)
        else:
            self._read(call, entry.exit)

    def _fire(self, call: Call) -> None:
        self.steps.drop(call)
        if isinstance(call, LoopTimer):
            self._loop.fire(call.handle)
        else:
            self._resolve(call, None)

    def _read(self, call: Call, exit: bytes) -> None:
        try:
            result = call.decode(exit)
        except PayloadError as error:
            error.add_note(f"It is the recorded result of {call.kind} {call.name!r}, occurrence {call.occurrence}.")
            self.trouble = Trouble(Held.UNREADABLE, error)
            return
        if isinstance(result, Success):
            self._resolve(call, result.value)
            return
        self.steps.drop(call)
        assert call.future is not None
        self._loop.turning = True
        call.future.set_exception(result.cause.to_exception())
        self._loop.turning = False

    def _resolve(self, call: Call, value: Any) -> None:
        self.steps.drop(call)
        assert call.future is not None
        # The future's callbacks are scheduled by this, in the coming turn.
        self._loop.turning = True
        call.future.set_result(value)
        self._loop.turning = False

    def _settle(self) -> None:
        """Run until nothing is ready, then give kept results to the calls that took them, one by one."""
        try:
            self._loop.run()
            while self._due and self.trouble is None:
                self._feed_kept(*self._due.pop(0))
                self._loop.run()
            if self._main is not None and self._main.done():
                self._finish()
        except Spinning:
            self.trouble = Trouble(Held.SPINNING, Defect("Spinning", _spinning(self._origin.workflow, self._budget)))

    def _feed_kept(self, call: Call, entry: Entry) -> None:
        """Give a call the kept entry that it has taken."""
        if not self.steps.waits(call):
            # Withdrawn in the same turn. The record is there for whoever asks the same, now or later.
            other = self.steps.taker(entry)
            if other is None:
                self.steps.keep(entry)
                return
            call = other
        # Neither time nor seq goes back, so the draws go on counting in this turn (R38, R39).
        self._answer(call, entry)
        if self.trouble is None and self.steps.waits(call):
            # A failure that another attempt follows, which may be kept as well. The call was put among the asked
            # when it was made and again just now; one attempt of it is given out.
            self._asked.remove(call)
            self._take_kept(call)

    def _finish(self) -> None:
        """The body has ended: what it left behind is cancelled and has no effect any more (R46)."""
        self._closed = True
        try:
            if self._loop.cancel_tasks():
                self._loop.run()
        finally:
            self._put_away()  # also when what was left behind spins: no frame stays open

    def _check(self) -> None:
        if self.steps.kept and self.trouble is None and not self._closed:
            found = self.steps.divergence()
            if found is not None:
                call, entry = found
                place = self._loop.place_of(call.future) if call.future is not None else ""
                error = divergence_error(self._origin.workflow, call, entry, place)
                self.trouble = Trouble(Held.DIVERGENCE, error)

    def _retract_if_in_trouble(self) -> None:
        """Held before anything is given out (R8): a turn that did not come to rest starts nothing, decides nothing.

        What was fed stays recorded. The turn is run again when the execution is resumed.
        """
        if self.trouble is None:
            return
        while self.entries and self.entries[-1].kind in MARKERS:
            if self.entries.pop().kind == Kind.START:
                self.starts.pop()
            self.seq -= 1

    def close(self) -> None:
        """Put the body away without an end: eviction, a lost fence, a stop (R6). Nothing of it acts."""
        if not self._closed:
            self._closed = True
            self._put_away()

    def _put_away(self) -> None:
        self._loop.close_frames(f"{self._origin.workflow} {self._origin.execution_id}")
        self.steps.clear()
        self._due.clear()
        self._asked.clear()

    # What the engine reads -----------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the body has returned or raised."""
        return self._main is not None and self._main.done()

    def result(self) -> Any:
        """What the body returned; raises what it raised."""
        assert self._main is not None
        return self._main.result()

    def take_asked(self) -> list[Call]:
        """Calls whose (next) attempt is to be given out: new since this was last asked, and still wanted."""
        asked, self._asked = self._asked, []
        waiting = self.steps.waiting
        return [call for call in asked if waiting.get((call.kind, call.name, call.occurrence)) is call]

    def take_withdrawn(self) -> list[Call]:
        """Calls that the body does not want any more; their running attempts are cancelled."""
        withdrawn, self._withdrawn = self._withdrawn, []
        return withdrawn

    def take_written(self) -> tuple[list[Entry], list[Start]]:
        """What the turns since the last call want to have written."""
        written = self.entries, self.starts
        self.entries, self.starts = [], []
        return written

    def timers(self) -> list[TimerCall]:
        """The timers that are set, in the order in which they were asked for."""
        return [call for call in self.steps.timers.values() if isinstance(call, TimerCall)]

    def activities(self) -> list[Call]:
        """The activity calls that wait for a result."""
        return [call for call in self.steps.waiting.values() if call.kind is Kind.ACTIVITY]

    def begun(self, call: Call) -> bool:
        """Whether the attempt that is due now was begun by a worker that is gone (R50)."""
        # The occurrence counts: the same order may be placed twice, and the first one's note says nothing of the second.
        asked = (call.occurrence, call.attempt, call.input)
        return any(
            (entry.occurrence, entry.attempt, entry.input) == asked
            for name in (call.name, *call.formerly)
            for entry in self._answers.get((Kind.ATTEMPT_BEGUN, name), ())
        )

    def times_called(self, name: str) -> int:
        """How often the body has called an activity of this name so far."""
        return self._counts.get((Kind.ACTIVITY, name), 0)

    # Host: what the body asks ----------------------------------------------------------------------

    @property
    def execution_id(self) -> ExecutionId:
        """The execution's id."""
        return self._origin.execution_id

    @property
    def life(self) -> int:
        """The number of the incarnation."""
        return self._origin.life

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._origin.workflow

    @property
    def replaying(self) -> bool:
        """Whether the journal is being fed again."""
        return self._replaying

    @property
    def closed(self) -> bool:
        """Whether the body has ended or is being put away."""
        # Tasks that are ready when the body ends still run in that turn, and what they ask for has no effect (R46).
        return self._closed or (self._main is not None and self._main.done())

    def number(self) -> int:
        """The next creation number."""
        self._number += 1
        return self._number

    def occurrence(self, kind: Kind, name: str, /) -> int:
        """Take the next occurrence of this name."""
        place = (kind, name)
        count = self._counts[place] = self._counts.get(place, 0) + 1
        return count

    def equals(self, name: str, input: bytes, /) -> int:
        """Count one more call with this name and input (R14)."""
        # By hash, so that a parked kernel does not keep every input it has ever sent.
        place = hash((name, input))
        count = self._equals[place] = self._equals.get(place, 0) + 1
        return count

    def unanswered(self, kind: Kind, name: str, /) -> bool:
        """Whether a call of this kind and name waits (R8)."""
        return any(call.kind is kind and call.name == name for call in self.steps.waiting.values())

    def ask(self, call: Call, /) -> asyncio.Future[Any]:
        """Ask for a step."""
        future = self._loop.create_future()
        if self.closed:
            return future
        call.future = future
        call.asked_at = self._now
        future.call = call
        if call.kind is Kind.TIMER:
            self._set_due(call)
        else:
            self._asked.append(call)
        self.steps.add(call)
        if self.steps.kept:
            self._take_kept(call)
        return future

    def _take_kept(self, call: Call) -> None:
        entry = self.steps.kept_for(call)
        if entry is not None:
            self._due.append((call, entry))

    def now(self) -> Instant:
        """The time of the last fed entry (R38)."""
        return self._now

    def random(self, name: str | None = None, /) -> Random:
        """A generator seeded from (seed, seq of the last fed entry, n-th draw), or (seed, name, n) (R39)."""
        seed = self._origin.seed.hex()
        if name is not None:
            return Random(f"{seed}/{name}/{self.occurrence_of_draw(name)}")
        self._draws += 1
        return Random(f"{seed}/{self._fed_seq}/{self._draws}")

    def occurrence_of_draw(self, name: str) -> int:
        """Named draws are counted apart from steps."""
        place = ("draw", name)
        count = self._counts[place] = self._counts.get(place, 0) + 1
        return count

    def patched(self, change_id: str, /) -> bool:
        """True if its marker is recorded or the body is live; decided once (R8a)."""
        known = self._patches.get(change_id)
        if known is not None:
            return known
        recorded = (Kind.PATCH, change_id) in self._answers
        if not recorded and not self._replaying and not self.closed:
            self._mark(Kind.PATCH, change_id, 1)
            recorded = True
        self._patches[change_id] = recorded
        return recorded

    def start(self, start: Start, /) -> None:
        """Start an execution, detached, with this turn's commit (R42)."""
        if self.closed:
            return
        recorded = self._answers.get((Kind.START, start.workflow), ())
        wanted = start.execution_id.encode()
        if not any(entry.input == wanted for entry in recorded):
            self._mark(Kind.START, start.workflow, self._counts.get((Kind.START, start.workflow), 1), asked=wanted)
            self.starts.append(start)

    def _mark(
        self,
        kind: Kind,
        name: str,
        occurrence: int,
        *,
        asked: bytes = b"",
        answer: bytes = b"",
        attempt: int = 0,
    ) -> None:
        """Have the journal remember something that no event tells."""
        self.seq += 1
        at = max(self._now, self._recorded_at)
        entry = Entry(self.seq, kind, name, occurrence, attempt, asked, answer, at)
        self.entries.append(entry)
        self._answers.setdefault((kind, name), []).append(entry)

    # Timers: what the loop asks --------------------------------------------------------------------

    def adopt(self, context: Context, /) -> None:
        """Let what runs in a context be this body's, also where the user has made the context anew.

        Without a host in it an activity that is called there would really run, unrecorded.
        """
        if ambient.host not in context:
            context.run(ambient.host.set, self)

    def now_s(self) -> float:
        """Seconds from the beginning to the last event."""
        return (self._now - self._origin.began_at) / 1_000

    def set_timer(self, timer: KernelTimer, name: str, delay_s: float, /) -> None:
        """Make `call_later` a durable timer."""
        if self.closed:
            return
        # Whole microseconds first, or the float 2.007 would be 2,008 ms; then up: never early (R16).
        duration_ms = -(-round(delay_s * 1_000_000) // 1_000)
        call = LoopTimer(
            name=name,
            occurrence=self.occurrence(Kind.TIMER, name),
            duration_ms=duration_ms,
            due_at=self._now + duration_ms,
            durable=duration_ms > IN_MEMORY_MS,
            number=self.number(),
        )
        call.handle = timer
        timer.step = call
        self._set_due(call)
        self.steps.add(call)
        if self.steps.kept:
            self._take_kept(call)

    def drop_timer(self, timer: KernelTimer, /) -> None:
        """A timer that nobody waits for any more."""
        assert timer.step is not None
        self.steps.drop(timer.step)
        timer.step = None

    def withdraw(self, call: Call, /) -> None:
        """The body does not wait for this call any more."""
        self.steps.drop(call)
        if call.kind is Kind.ACTIVITY and not self._closed:
            self._withdrawn.append(call)

    def _set_due(self, call: Call) -> None:
        """Above the threshold the due time is recorded once and never changes (R16)."""
        assert isinstance(call, TimerCall)
        for entry in self._answers.get((Kind.TIMER_SET, call.name), ()):
            if entry.occurrence == call.occurrence:
                # Also where today's code waits shortly under that name: it has been suspended until then.
                call.due_at, call.durable = int(entry.exit), True
                return
        if call.durable:
            due = str(call.due_at).encode()
            self._mark(Kind.TIMER_SET, call.name, call.occurrence, asked=call.input, answer=due)


def _was_interrupted(exit: bytes) -> bool:
    """Whether a failed attempt was cut off from inside (R13)."""
    reasons = json.loads(exit)["failure"]
    return len(reasons) == 1 and "interrupt" in reasons[0]


def _spinning(workflow: str, budget: int) -> str:
    return (
        f"The body of {workflow!r} did not come to rest within {budget:,} callbacks after one event. "
        "A loop that awaits only what is ready at once (`asyncio.sleep(0)`, a full queue) never ends; "
        "let it wait for a step. Correct the code, then resume the execution."
    )
