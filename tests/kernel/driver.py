"""A kernel driven by hand: it begins a body, answers its calls in any order, and replays what that wrote.

It does with a kernel what an engine does, without loop, clock, threads or store: an event is fed, what the turn wants
written is appended to a list, and what is asked for lies there to be looked at.
"""

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self

from perdure._definitions.activity import ActivityCall
from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._kernel.event import Event, Origin
from perdure._kernel.kernel import TURN_BUDGET, Kernel
from perdure._model.journal import MARKERS, Entry, Kind
from perdure._model.records import Acts, Start
from perdure._values.cause import Cause
from perdure._values.instant import Instant

BEGAN_AT: Instant = 1_700_000_000_000
EXECUTION_ID = "0123456789abcdef" * 2

Body = Callable[[], Coroutine[Any, Any, Any]]

_open: list["Play"] = []


@dataclasses.dataclass(frozen=True)
class Standing:
    """What a kernel stands at between two turns: what it waits for, and whether and how it has ended."""

    waiting: tuple[tuple[Any, ...], ...]
    seq: int
    ended: str
    trouble: str


class Play:
    """One execution: the kernel that runs it, and the journal that it has written so far."""

    def __init__(
        self,
        body: Body,
        journal: Sequence[Entry] = (),
        *,
        unborn: bool | None = None,
        budget: int = TURN_BUDGET,
        seed: bytes = b"seed",
    ) -> None:
        """Begin a body; with a journal, replay it. Without one it is the first turn of the first claim."""
        self.body = body
        self.journal = list(journal)
        self.starts: list[Start] = []
        # What its turns do to others, a commit each.
        self.acts: list[Acts] = []
        # How long the journal was behind each commit: a turn's event and markers are written together, or not at all.
        self.commits: list[int] = []
        # All that was ever given out or taken back, in order: what an engine would have acted on.
        self.given: list[Call] = []
        self.withdrawn: list[Call] = []
        # The clock of the imagined store. Only ever goes on.
        self.now = max([BEGAN_AT, *(entry.at for entry in journal)])
        self._settings: dict[str, Any] = {"budget": budget, "seed": seed}
        origin = Origin(EXECUTION_ID, 1, "Body", seed, BEGAN_AT, not journal if unborn is None else unborn)
        self.kernel = Kernel(origin, self.journal, budget)
        _open.append(self)
        self.kernel.begin(body, self.journal)
        if journal:
            # Nothing is given out during a replay; when it has come to rest, what is still asked for is.
            self.kernel.take_asked()
            self.given += self.calls if self.kernel.trouble is None else []
        self._take()

    def again(self, body: Body | None = None, *, upto: int | None = None) -> Self:
        """Replay the journal, or its first entries, on a new kernel; with another body, as after a deployment."""
        journal = self.journal if upto is None else self.journal[:upto]
        return type(self)(body or self.body, journal, unborn=not journal, **self._settings)

    # What happens to it ----------------------------------------------------------------------------

    def answer(self, call: Call | str, value: Any = None) -> bool:
        """An attempt succeeds. False: nobody waits for it any more."""
        call = self.call(call) if isinstance(call, str) else call
        assert isinstance(call, ActivityCall)
        encoded, decoded = call.activity.codec.success(value)
        return self._deliver(call, encoded, decoded, True)

    def fail(self, call: Call | str, error: BaseException, *, retry_in_ms: int | None = None) -> bool:
        """An attempt fails; with `retry_in_ms` another one follows. A CancelledError is an attempt cut off from inside."""
        call = self.call(call) if isinstance(call, str) else call
        assert isinstance(call, ActivityCall)
        codec = call.activity.codec
        self.now = max(self.now, call.due_at or 0)
        again_at = None if retry_in_ms is None else self.now + retry_in_ms
        return self._deliver(call, codec.encode_failure(codec.cause_of(error), again_at))

    def deliver(self, call: Call, exit: bytes) -> bool:
        """An attempt ends with these very bytes."""
        return self._deliver(call, exit)

    def fire(self, timer: TimerCall | str) -> bool:
        """A timer is due: the clock goes on to its instant, and it alone is fired."""
        timer = self.timer(timer) if isinstance(timer, str) else timer
        assert timer.due_at is not None
        self.now = max(self.now, timer.due_at)
        return self._fire(timer)

    def pass_time(self, ms: int) -> None:
        """The clock goes on, and what is due is fired in the order of the instants, like an engine's turns."""
        until = self.now + ms
        while (nearest := self.nearest()) is not None and nearest <= until:
            self.now = max(self.now, nearest)
            # An engine looks once for all that is due, and only then feeds them one by one.
            due = sorted((t for t in self.timers if t.due_at is not None and t.due_at <= self.now), key=_due_at)
            for timer in due:
                self._fire(timer)
        self.now = until

    def _fire(self, timer: TimerCall) -> bool:
        return self._feed(Event(Kind.TIMER, timer.name, timer.occurrence, 0, timer.input, b"", self.now))

    def _deliver(self, call: ActivityCall, exit: bytes, value: Any = None, has_value: bool = False) -> bool:
        self.now = max(self.now, call.due_at or 0)
        event = Event(
            Kind.ACTIVITY, call.name, call.occurrence, call.attempt, call.input, exit, self.now, value, has_value,
            # An engine has cut off the attempt of a call that was withdrawn, once that turn was durable.
            call in self.withdrawn,
        )  # fmt: skip
        return self._feed(event)

    def _feed(self, event: Event) -> bool:
        taken = self.kernel.deliver(event)
        self._take()
        return taken

    def _take(self) -> None:
        """What an engine does behind every turn."""
        asked = [*self.kernel.take_asked(), *self.kernel.take_outbox()]
        assert len(set(asked)) == len(asked), "an attempt is given out twice"
        self.given += asked
        self.withdrawn += self.kernel.take_withdrawn()
        if self.suspends:
            self.kernel.suspend()
        entries, acts = self.kernel.take_written()
        self.journal += entries
        if acts is not None:
            self.starts += acts.starts
            self.acts.append(acts)
        self.commits.append(len(self.journal))
        assert [entry.seq for entry in self.journal] == list(range(1, len(self.journal) + 1)), "seq has gaps"
        instants = [entry.at for entry in self.journal]
        assert instants == sorted(instants), "a journal's times go back"

    @property
    def suspends(self) -> bool:
        """Whether an engine would suspend it now: its nearest wait is a long timer, and nothing else goes on (R5)."""
        nearest = min(self.timers, key=_due_at, default=None)
        return not self.calls and nearest is not None and nearest.durable and not self.ended

    # What it stands at -----------------------------------------------------------------------------

    @property
    def waiting(self) -> list[str]:
        """The activity calls that wait, as `name(input)#occurrence`, in the order in which they were asked for."""
        return [f"{call.name}{call.input.decode()}#{call.occurrence}" for call in self.calls]

    @property
    def calls(self) -> list[ActivityCall]:
        """The activity calls that wait."""
        return [call for call in self.kernel.activities() if isinstance(call, ActivityCall)]

    @property
    def timers(self) -> list[TimerCall]:
        """The timers that are set."""
        return self.kernel.timers()

    @property
    def timer_names(self) -> list[str]:
        """Their names."""
        return [timer.name for timer in self.timers]

    def call(self, name: str, place: int = 0) -> ActivityCall:
        """A waiting activity call by its name, or as `name#occurrence`."""
        name, _, occurrence = name.partition("#")
        found = [call for call in self.calls if call.name == name and occurrence in ("", str(call.occurrence))]
        return found[place]

    def timer(self, name: str, place: int = 0) -> TimerCall:
        """A timer that is set, by its name."""
        return [timer for timer in self.timers if timer.name == name][place]

    def nearest(self) -> Instant | None:
        """When the next timer is due."""
        return min((timer.due_at for timer in self.timers if timer.due_at is not None), default=None)

    @property
    def recorded(self) -> list[str]:
        """The journal in short: `kind name#occurrence`."""
        return [f"{entry.kind} {entry.name}#{entry.occurrence}" for entry in self.journal]

    @property
    def events(self) -> list[Entry]:
        """The entries that were fed."""
        return [entry for entry in self.journal if entry.kind not in MARKERS]

    @property
    def ended(self) -> bool:
        """Whether the body has ended."""
        return self.kernel.ended

    def result(self) -> Any:
        """What the body returned; raises what it raised."""
        assert self.kernel.trouble is None, self.kernel.trouble
        assert self.ended, f"it still waits for {self.waiting} {self.timer_names}"
        return self.kernel.result()

    def standing(self) -> Standing:
        """All that an engine could see of the kernel, to be compared with that of another one."""
        return Standing(
            tuple(_description(call) for call in self.kernel.steps.waiting.values()),
            self.kernel.seq,
            _end(self.kernel),
            repr(self.kernel.trouble),
        )

    def close(self) -> None:
        """Evict it, and keep no reference to it."""
        self.kernel.close()
        if self in _open:
            _open.remove(self)


def close_all() -> None:
    """Evict every kernel that is still there: dropped unclosed, its frames would be closed wherever memory is freed."""
    while _open:
        _open[-1].close()


def _due_at(timer: TimerCall) -> Instant:
    assert timer.due_at is not None
    return timer.due_at


def _description(call: Call) -> tuple[Any, ...]:
    durable = call.durable if isinstance(call, TimerCall) else None
    equal = call.number_of_equals if isinstance(call, ActivityCall) else None
    return (
        str(call.kind), call.name, call.occurrence, call.input, call.attempt, call.interruptions, call.due_at,
        call.asked_at, durable, equal,
    )  # fmt: skip


def _end(kernel: Kernel) -> str:
    if not kernel.ended:
        return ""
    try:
        return repr(kernel.result())
    except BaseException as error:  # noqa: BLE001 - how the body ended is what is compared
        return str(Cause.from_exception(error))
