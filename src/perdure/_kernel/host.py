"""What a body may ask, answered in its turn: names and numbers, time and chance, steps and timers.

The host is one of two that live on the same draft and the same steps. The kernel feeds them from
outside; the host is what the body sees of that, and it is the clock of the body's loop.
"""

import asyncio
import itertools
from contextvars import Context
from random import Random
from typing import Any, Final, Literal

from perdure._definitions import ambient
from perdure._definitions.clock import IN_MEMORY_THRESHOLD_MS, TimerCall
from perdure._definitions.host import Call
from perdure._kernel.draft import Draft
from perdure._kernel.event import Origin
from perdure._kernel.loop import SERIAL_SHIFT, KernelFuture, KernelLoop, KernelTask, KernelTimer
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import ExecutionId, Start
from perdure._values.instant import Instant

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
        "_counts", "_draft", "_draws", "_draws_at", "_equals", "_number", "_origin", "_patches", "_steps",
        "asked", "due", "loop", "main", "put_away", "replaying", "withdrawn",
    )  # fmt: skip

    # None: the body has been put away.
    loop: KernelLoop | None

    def __init__(self, origin: Origin, draft: Draft, steps: Steps) -> None:
        self._origin = origin
        self._draft = draft
        self._steps = steps
        self._number = (next(_serials) % _SERIALS + 1) << SERIAL_SHIFT
        self._counts: dict[tuple[str, str], int] = {}
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
        self.withdrawn: list[Call] = []
        self.due: list[tuple[Call, Entry]] = []

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

    def count_call(self, name: str, input: bytes, /) -> tuple[int, int, int]:
        """Count one more activity call: its occurrence, which one of its equals it is (R14), its creation number."""
        counts, place = self._counts, (_ACTIVITY, name)
        occurrence = counts[place] = counts.get(place, 0) + 1
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

    def start(self, start: Start, /) -> None:
        """Start an execution, detached, with this turn's commit (R42)."""
        if not self.closed:
            self._draft.start(start, max(1, self.occurrences(Kind.START, start.workflow)))

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
        future.call = call
        if call.kind is _TIMER:
            self._recall_due(call)
        elif not self.replaying:
            self.asked.append(call)
        self._steps.add(call)
        if self._steps.kept:
            self.take_kept(call)
        return future

    def unanswered(self, kind: Kind, name: str, /) -> bool:
        """Whether a call of this kind and name waits (R8)."""
        return any(call.kind is kind and call.name == name for call in self._steps.waiting.values())

    def withdraw(self, call: Call, /) -> None:
        """The body does not wait for this call any more."""
        self._steps.drop(call)
        if call.kind is Kind.ACTIVITY and not self.put_away:
            self.withdrawn.append(call)

    def let_go(self) -> None:
        """The body has been put away: nobody is told anything any more.

        Kept, the loop and the task would hold this host in a ring, and all that an execution leaves in memory would wait
        for the collector.
        """
        self.loop = self.main = None
        self.asked.clear()
        self.due.clear()

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
