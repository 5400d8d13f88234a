"""What a body may ask, answered in its turn: names and numbers, time and chance, steps and timers.

The host is one of two that live on the same draft and the same steps. The kernel feeds them from
outside; the host is what the body sees of that, and it is the clock of the body's loop.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal

from perdure._definitions import ambient
from perdure._definitions.clock import IN_MEMORY_THRESHOLD_MS, TimerCall
from perdure._definitions.host import Call, Finalizer
from perdure._kernel.customs import Customs
from perdure._kernel.draft import Draft, Perform
from perdure._kernel.ending import Stack
from perdure._kernel.event import Origin
from perdure._kernel.loop import SERIAL_SHIFT, KernelFuture, KernelLoop, KernelTask, KernelTimer
from perdure._kernel.matching import Steps
from perdure._kernel.parent import Parent
from perdure._model.journal import Entry, Kind
from perdure._model.records import ExecutionId, Start
from perdure._values.instant import Instant
from perdure.errors import PayloadError, UsageError

if TYPE_CHECKING:
    from perdure._kernel.children import Inherited

# Kernels of this process, counted round: past 2**63 Python folds the upper bits of a hash into the lower ones, and the
# sets of a worker that has run eight million executions would have another order.
# Not by `itertools.cycle`, which keeps every number that it has given: 40 bytes for every kernel of this process.
_serials = itertools.count()
_SERIALS = (1 << 20) - 1

# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY
_TIMER: Final = Kind.TIMER


class LoopTimer(TimerCall):
    """A timer that the body's own loop has set: it runs a callback instead of resolving a future."""

    __slots__ = ("handle",)

    handle: KernelTimer


class BodyHost:
    """The `Host` of one body, and the `Timers` of its loop."""

    __slots__ = (
        "_calls", "_counts", "_customs", "_draft", "_draws", "_draws_at", "_equals", "_guarded_since", "_number", "_origin", "_patches",
        "_races", "_steps", "asked", "due", "guarded", "inherited", "loop", "main", "next", "outbox", "parent", "put_away", "replaying", "stack",
        "unread", "unwinds", "withdrawn",
    )  # fmt: skip

    # None: the body has been put away.
    loop: KernelLoop | None

    def __init__(self, origin: Origin, draft: Draft, steps: Steps, payload_limit: int) -> None:
        self._origin = origin
        self._customs = Customs(draft, payload_limit)
        self._draft = draft
        self._steps = steps
        self._number = (next(_serials) % _SERIALS + 1) << SERIAL_SHIFT
        self._counts: dict[tuple[str, str], int] = {}
        # The same for calls of activities, by name alone.
        self._calls: dict[str, int] = {}
        self._equals: dict[int, int] = {}
        self._patches: dict[str, bool] = {}
        # How many draws there were in the turn that followed the entry with this seq.
        self._draws, self._draws_at = 0, 0
        # The kernel's to change: whether the journal is being fed again, the body's task until it is put away, and
        # whether its frames are being closed or have been.
        self.replaying = True
        self.main: KernelTask | None = None
        self.put_away = False
        # Calls whose (next) attempt is wanted, and calls that are not wanted any more, since the kernel last looked; and
        # kept entries that a call has taken, each an event of its own. A replay answers what it asks for: nothing of
        # it is wanted until it has come to rest.
        self.asked: list[Call] = []
        # Calls whose mail is to go out; always the same list, which the kernel's engine looks at as well.
        self.outbox: list[Call] = []
        self.withdrawn: list[Call] = []
        self.due: list[tuple[Call, Entry]] = []
        # Races that are not over, by name and number.
        self._races: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        # What is to be done when the execution ends; made when something is.
        self.stack: Stack | None = None
        # The kernel's to change: whether the body has ended and the stack is being run.
        self.unwinds = False
        # Cancelled calls whose attempt is not cut in half (R27): they wait for its end all the same.
        self.guarded: set[Call] = set()
        # After which entry a call with a guard was asked for.
        self._guarded_since: dict[Call, int] = {}
        # Why the body cannot read what is recorded; None: it could, so far.
        self.unread: PayloadError | None = None
        # The next life, where the body has asked to go on as new.
        self.next: Start | None = None
        # Whom its journal has started, where that was handed on by another life, or copied; None: it is its own.
        self.inherited: Inherited | None = None
        # What it does about its children; made when it asks for one.
        self.parent: Parent | None = None

    # Who and when --------------------------------------------------------------------------------

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
    def closed(self) -> bool:
        """Whether the body has ended or is being put away."""
        # Tasks that are ready when the body ends still run in that turn, and what they ask for has no effect (R46).
        return self.put_away or (self.main is not None and self.main.done())

    @property
    def incarnation(self) -> bytes:
        """What keys this life in the store."""
        return self._origin.incarnation

    @property
    def priority(self) -> int:
        """The execution's priority."""
        return self._origin.priority

    @property
    def deadline(self) -> Instant | None:
        """When the execution is interrupted."""
        return self._origin.deadline

    @property
    def restarted(self) -> bool:
        """Whether this is another life than the first."""
        return self._origin.life > 1

    def now(self) -> Instant:
        """The time of the last fed entry (R38)."""
        return self._draft.now

    def now_s(self) -> float:
        """Seconds from the beginning to the last event."""
        return (self._draft.now - self._origin.began_at) / 1_000

    def adopt(self, context: Context, /) -> None:
        """Let what runs in a context be this body's, also where the user has made the context anew.

        Without a host in it an activity that is called there would really run, unrecorded.
        """
        if ambient.host not in context:
            context.run(ambient.host.set, self)

    # Counting ------------------------------------------------------------------------------------

    def number(self) -> int:
        """The next creation number."""
        self._number += 1
        return self._number

    def occurrence(self, kind: Kind | Literal["draw"], name: str, /) -> int:
        """Take the next occurrence of this name."""
        counts, place = self._counts, (kind, name)
        count = counts[place] = counts.get(place, 0) + 1
        return count

    def occurrences(self, kind: Kind, name: str, /) -> int:
        """How many have been taken so far."""
        return self._counts.get((kind, name), 0)

    def times_called(self, name: str) -> int:
        """How many calls of an activity of this name have been counted."""
        return self._calls.get(name, 0)

    def count_call(self, name: str, input: bytes, /) -> tuple[int, int, int]:
        """Count one more activity call: its occurrence, which one of its equals it is (R14), its creation number."""
        calls = self._calls
        occurrence = calls[name] = calls.get(name, 0) + 1
        # By hash, so that a parked kernel does not keep every input it has ever sent.
        equals, equal = self._equals, hash((name, input))
        number_of_equals = equals[equal] = equals.get(equal, 0) + 1
        self._number = number = self._number + 1
        return occurrence, number_of_equals, number

    # Chance, versions, starts --------------------------------------------------------------------

    def random(self, name: str | None = None, /) -> Random:
        """A generator seeded from (seed, seq of the last fed entry, n-th draw), or (seed, name, n) (R39)."""
        seed = self._origin.seed.hex()
        if name is not None:
            return Random(f"{seed}/{name}/{self.occurrence('draw', name)}")
        if self._draws_at != self._draft.fed_seq:
            self._draws, self._draws_at = 0, self._draft.fed_seq
        self._draws += 1
        return Random(f"{seed}/{self._draws_at}/{self._draws}")

    def patched(self, change_id: str, /) -> bool:
        """True if its marker is recorded or the body is live; decided once (R8a)."""
        known = self._patches.get(change_id)
        if known is None:
            known = (Kind.PATCH, change_id) in self._draft.answers
            if not known and not self.replaying and not self.closed:
                self._draft.mark(Kind.PATCH, change_id, 1)
                known = True
            self._patches[change_id] = known
        return known

    def child_id(
        self, kind: Kind, workflow: str, occurrence: int, asked: ExecutionId, payload: bytes | None, /
    ) -> ExecutionId:
        """Which execution a call means."""
        if self.inherited is None:
            return asked
        return self.inherited.find(kind, workflow, occurrence, asked, payload)

    def start(self, start: Start, /) -> None:
        """Start an execution, detached, with this turn's commit (R42)."""
        if not self.closed:
            occurrence = max(1, self.occurrences(Kind.START, start.workflow))
            self._customs.admit_start("start", occurrence, start, done=self._draft.has_started(start))
            self._draft.start(start, occurrence)

    def continue_as(self, start: Start, /) -> None:
        """End this life with what the body raises now, and begin the next one (R37).

        Raises:
            PayloadError: Its payload is larger than the engine takes.
            UsageError: Something stands on the stack, which the next life would know nothing of.
        """
        if self.has_to_undo:
            raise UsageError(
                "This body has registered finalizers or compensations, or a step that has one still runs; they end with "
                "this life, and the next one would know nothing of them. Finish what they are for first, in a child execution for example."
            )
        if not self.closed:
            self._customs.admit_start("continue_as_new", self.occurrence(Kind.ACT, "continue_as_new"), start)
        self.next = start

    # What it does to others, and shows -------------------------------------------------------------

    def recorded(self, kind: Kind, name: str, make: Callable[[], bytes], /) -> bytes:
        """What the journal remembers of the next occurrence of this name; if nothing, it is made and recorded."""
        occurrence = self.occurrence(kind, name)
        entry = self._draft.marked(kind, name, occurrence)
        if entry is not None:
            return entry.exit
        made = make()
        if not self.closed:
            self._draft.mark(kind, name, occurrence, answer=made)
        return made

    def act(self, name: str, perform: Perform, said: bytes = b"", /) -> None:
        """Do something to others with this turn's commit, once (R42)."""
        if self.closed:
            return
        occurrence = self.occurrence(Kind.ACT, name)
        if said and self._draft.marked(Kind.ACT, name, occurrence) is None:
            self._customs.admit(name, occurrence, said, f"What {name!r} says")
        self._draft.act(name, occurrence, perform)

    # Races and the stack ---------------------------------------------------------------------------

    def race(self, name: str, number: int, /) -> asyncio.Future[bytes]:
        """Have the exit of a race, as soon as it is decided or the journal says so (R21)."""
        loop = self.loop
        assert loop is not None
        future = self._races[name, number] = loop.create_future()
        return future

    def decide(self, name: str, number: int, exit: bytes, /) -> None:
        """A race is over: its exit is recorded with this turn (R21)."""
        future = self._races.pop((name, number), None)
        if future is None or future.done() or self.closed:
            return
        entry = self._draft.marked(Kind.RACE, name, number)
        if entry is None:
            entry = self._draft.mark(Kind.RACE, name, number, answer=exit)
        future.set_result(entry.exit)

    def unreadable(self, error: PayloadError, /) -> "asyncio.Future[Any]":
        """What is recorded cannot be read: it is held before anything more is given out (R40); gives what never ends."""
        loop = self.loop
        assert loop is not None
        if self.unread is None:
            self.unread = error
        return loop.create_future()

    def defer(self, finalizer: Finalizer, place: int | None = None, /) -> None:
        """Put a finalizer or a compensation on the stack (R27)."""
        if not self.put_away:
            self._stack().push(finalizer, place)

    def place(self) -> int:
        """Take a place on the stack."""
        return self._stack().place()

    @property
    def has_to_undo(self) -> bool:
        """Whether something stands on the stack, or may come to: a step runs that is not cut in half (R27)."""
        return bool(self.stack) or any(call.guard is not None for call in self._steps.waiting.values())

    def _stack(self) -> Stack:
        if self.stack is None:
            self.stack = Stack()
        return self.stack

    # Steps ---------------------------------------------------------------------------------------

    def ask(self, call: Call, /) -> asyncio.Future[Any]:
        """Ask for a step."""
        loop = self.loop
        if loop is None:
            return self._never(call)
        future = KernelFuture(loop=loop)
        future.number = call.hash
        future.call = None
        main = self.main
        if self.put_away or (main is not None and main.done()):  # `closed`, without its frame
            return future
        call.future = future
        call.asked_at = self._draft.now
        if call.guard is not None:
            self._guarded_since[call] = self._draft.fed_seq
        future.call = call
        kind = call.kind
        if kind is _ACTIVITY:
            if not self.replaying:
                self.asked.append(call)
        elif kind is _TIMER:
            self._recall_due(call)
        elif kind is Kind.SENT:
            if call.start is not None:
                self.start(call.start)
                occurrence = self.occurrences(Kind.START, call.start.workflow)
                call.start = self._draft.as_started(call.start, occurrence)
                if self._draft.has_copied(call.start, occurrence):
                    # With another payload, maybe: a fork is not compared with that (R49).
                    call.start = replace(call.start, strict=False, differing=None)
            if not self.replaying:
                self.outbox.append(call)
        elif self._find(call):
            return future
        self._steps.add(call)
        if self._steps.kept:
            self.take_kept(call)
        return future

    def _find(self, call: Call) -> bool:
        """Look whether what a call waits for has come already; if so it is given to it as an event of its own."""
        entry = self._steps.take_message(call.name) if call.kind is Kind.MESSAGE else self._steps.shared(call)
        if call.kind is Kind.CHILD:
            if self.parent is None:
                self.parent = Parent(self._draft, self._steps, self._customs)
            entry = self.parent.ask(call, entry)
        if entry is not None:
            self._steps.add(call)
            self.due.append((call, entry))
            return True
        return False

    def unanswered(self, kind: Kind, name: str, /) -> bool:
        """Whether a call of this kind and name waits (R8)."""
        return any(call.kind is kind and call.name == name for call in self._steps.waiting.values())

    def withdraw(self, call: Call, /) -> None:
        """The body does not wait for this call any more."""
        if self.put_away:
            self._steps.drop(call)
        elif call.kind is Kind.ACTIVITY:
            if call.guard is not None and self._has_begun(call) and self._steps.waits(call):
                # Its attempt is not cut in half; what the body is told of its end is that it was cancelled (R27).
                self.guarded.add(call)
                return
            self._steps.drop(call)
            self.withdrawn.append(call)
        else:
            waited = self._steps.waits(call)
            self._steps.drop(call)
            # Not one whose end is known, and was on its way to this call: of it nothing more is heard.
            ends_unknown = call.kind is Kind.CHILD and waited and self._steps.shared(call) is None
            if ends_unknown and self._steps.child(call.input) is None:
                assert self.parent is not None
                self.parent.leave(call)

    def _has_begun(self, call: Call) -> bool:
        """Whether an attempt of it may be running; told from the journal alone, so that a replay says the same.

        Not between two attempts, and not in the turn in which it was asked for: nothing of that is given out yet.
        """
        if call.attempt > 1 and call.due_at is not None:
            return call.due_at <= self._draft.now
        return call.attempt > 1 or self._guarded_since.get(call) != self._draft.fed_seq

    def let_go(self) -> None:
        """The body has been put away: nobody is told anything any more.

        Kept, the loop and the task would hold this host in a ring, and all that an execution leaves in memory would wait
        for the collector.
        """
        self.loop = self.main = None
        self.asked.clear()
        self.outbox.clear()
        self.due.clear()
        self._races.clear()
        self.guarded.clear()
        self._guarded_since.clear()
        if self.stack is not None:
            self.stack.clear()

    def _never(self, call: Call) -> asyncio.Future[Any]:
        """What a call of a body that was put away waits for: what the collector closes later gets no answer either."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, KernelLoop) and loop.timers is self:
            return loop.create_future()
        raise RuntimeError(f"{call!r} is awaited outside the body that made it, which is in memory no more.")

    def take_kept(self, call: Call) -> None:
        """Let a call have the first kept entry that answers it, as an event of its own."""
        entry = self._steps.kept_for(call)
        if entry is not None:
            self.due.append((call, entry))

    # Timers of the loop --------------------------------------------------------------------------

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
            due_at=self._draft.now + duration_ms,
            durable=duration_ms > IN_MEMORY_THRESHOLD_MS,
            number=self.number(),
        )
        call.handle = timer
        timer.step = call
        self._recall_due(call)
        self._steps.add(call)
        if self._steps.kept:
            self.take_kept(call)

    def drop_timer(self, timer: KernelTimer, /) -> None:
        """A timer that nobody waits for any more."""
        assert timer.step is not None
        self._steps.drop(timer.step)
        timer.step = None

    def record_due_times(self) -> None:
        """Have the due time of every long timer recorded: the execution is being suspended (R16)."""
        for call in self._steps.timers.values():
            assert isinstance(call, TimerCall)
            if call.durable and self._draft.marked(Kind.TIMER_SET, call.name, call.occurrence) is None:
                due = str(call.due_at).encode()
                self._draft.mark(Kind.TIMER_SET, call.name, call.occurrence, asked=call.input, answer=due)

    def _recall_due(self, call: Call) -> None:
        """A due time that was recorded never changes, whatever today's code says (R16)."""
        assert isinstance(call, TimerCall)
        entry = self._draft.marked(Kind.TIMER_SET, call.name, call.occurrence)
        if entry is not None:
            # Also where today's code waits shortly under that name: it has been suspended until then.
            call.due_at, call.durable = int(entry.exit), True
