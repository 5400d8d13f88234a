"""A trial: a recorded execution on changed code, which is given what is new to it, to see what it asks for behind that.

A step that was put in and one that was renamed look alike at first. Behind the one the record is asked for as before,
behind the other never; so new timers fire, and new activities answer: what the caller says, else nothing, else what is
made up. What is made up proves less: that a record is asked for, but not that a value which leads past it means anything.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from perdure._definitions.activity import ActivityCall
from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._kernel.event import Event
from perdure._model.journal import MARKERS, Entry, Kind
from perdure._model.status import Status, is_final
from perdure._values.exit import Success
from perdure._values.exit_codec import is_success
from perdure.errors import NonDeterminismError, PayloadError
from perdure.testing._rerun import Disagreement, Implementation, Recording, ReplayKernel

# Steps that are given in one trial: a body that asks for new ones without end has to come to one here.
MOST_GIVEN: Final = 1_000

# Trials of one journal, each with other values made up where several are possible.
WORLDS: Final = 4

_MADE_UP: Final[tuple[Any, ...]] = (True, False, 1, 0, "", [], {})

_Place = tuple[str, str, int]  # kind, name, occurrence


class TrialKernel(ReplayKernel):
    """A kernel that gives its body what is not recorded.

    Attributes:
        fresh: The new steps, in the order in which they were seen.
        made_up: Whether a value was made up.
        stuck: Whether a new step is left that nobody can answer.
    """

    __slots__ = ("_ahead", "_known", "_last_seq", "_new", "_recording", "_world", "fresh", "made_up", "stuck")

    def __init__(
        self,
        recording: Recording,
        history: list[Entry],
        implementation: Implementation,
        new: Mapping[str, Any],
        world: int = 0,
    ) -> None:
        self.fresh: dict[_Place, Disagreement] = {}
        self.made_up = self.stuck = False
        self._recording = recording
        self._last_seq = history[-1].seq if history else 0
        self._new = new
        self._world = world
        self._known = frozenset(recording.waited_for or ())
        self._ahead = [entry for entry in recording.entries if entry.kind not in MARKERS]
        super().__init__(recording, history, implementation)

    @property
    def proves(self) -> bool:
        """Whether a record that it has not asked for by now is asked for no more."""
        if self.stuck or self.trouble is not None:
            return False
        return not (self.made_up and self.ended and self._has_failed())

    def asked_for(self, entries: Sequence[Entry]) -> set[int]:
        """Which of the entries the code asks for, by their seq, though it be with another input."""
        left = {entry.seq for entry in self.left_over(self._recording)}
        found = {entry.seq for entry in entries} - left
        if self.trouble is not None and isinstance(self.trouble.error, NonDeterminismError):
            found |= {entry.seq for entry in entries if entry.seq == self.trouble.error.entry}
        return found

    def _has_failed(self) -> bool:
        return not self.continues and self.failure() is not None

    def _feed(self, entry: Entry, call: Call | None, value: Any = None, *, has_value: bool = False) -> None:
        if self._host.replaying and entry.kind == Kind.TIMER and self.steps.timers:
            due = call.due_at if call is not None and call.due_at is not None else entry.at
            if self._give_overdue(due):
                if self.ended or self.trouble is not None:
                    return
                call = self.steps.taker(entry)
        super()._feed(entry, call, value, has_value=has_value)

    def _give_overdue(self, due: int) -> bool:
        """Fire timers that are due before a recorded one that was the next to fire, and give what is asked for then.

        The code that was recorded has not set them: its timers fire in the order of their due times.
        """
        before = set(self.steps.waiting)
        given = False
        for _ in range(MOST_GIVEN):
            event = self._overdue(due) or (self._answer_since(before) if given else None)
            if event is None or self.ended or self.trouble is not None:
                break
            call = self.steps.waiting[event.kind, event.name, event.occurrence]
            self._note(call)
            # Under the last seq: what is drawn behind it goes on as if nothing had come between (R39).
            made = Entry(self._draft.fed_seq, *event[:6], event.at)
            super()._feed(made, call, event.value, has_value=event.has_value)
            given = True
        return given

    def _overdue(self, due: int) -> Event | None:
        late = [
            call for call in self.timers() if call.due_at is not None and call.due_at < due and not self._recorded(call)
        ]
        return self._done(min(late, key=_due)) if late else None

    def _answer_since(self, before: set[_Place]) -> Event | None:
        for place, call in list(self.steps.waiting.items()):
            if place in before or call.kind is not Kind.ACTIVITY or self._recorded(call):
                continue
            self._note(call)
            if (event := self._done(call)) is not None:
                return event
        return None

    def _recorded(self, call: Call) -> bool:
        return self._record(call) is not None

    def _record(self, call: Call) -> Entry | None:
        """What is recorded for a call and not fed yet."""
        names = (call.name, *call.formerly)
        # What is given behind the journal has a seq of its own.
        fed = min(self._draft.fed_seq, self._last_seq)
        for entry in self._ahead[bisect_right(self._ahead, fed, key=_seq) :]:
            if entry.kind == call.kind and entry.name in names and self.steps.taker(entry) is call:
                return entry
        return None

    def go_on(self) -> None:
        """Give what is new, as long as records are left that may be asked for behind it."""
        for _ in range(MOST_GIVEN):
            for call in self.steps.waiting.values():
                # Of one that has not ended some are not new, they are under way. Only beside an untaken record it matters.
                if (is_final(Status(self._recording.status)) or self.steps.kept) and not self._is_known(call):
                    self._note(call)
            if not self.steps.kept or self.ended or self.trouble is not None:
                return
            event = self._next()
            if event is None or not self.deliver(event):
                break
        self.stuck = any(not self._is_known(call) for call in self.steps.waiting.values())

    def _is_known(self, call: Call) -> bool:
        return (call.kind, call.name) in self._known or self._recorded(call)

    def _next(self) -> Event | None:
        """Activities first, in the order in which they were asked for: they take no time here. Then the next timer."""
        for call in list(self.steps.waiting.values()):
            if isinstance(call, ActivityCall) and (event := self._done(call)) is not None:
                return event
        timers = self.timers()
        return self._done(min(timers, key=_due)) if timers else None

    def _note(self, call: Call) -> None:
        place = (call.kind, call.name, call.occurrence)
        if place not in self.fresh:
            self.fresh[place] = _new(self, call)

    def _done(self, call: Call) -> Event | None:
        """The event with which a step is over; None: nobody knows what it would answer."""
        if isinstance(call, TimerCall):
            at = max(self.now(), _due(call))
            return Event(Kind.TIMER, call.name, call.occurrence, 0, call.input, b"", at)
        if not isinstance(call, ActivityCall) or (answer := self._answer_of(call)) is None:
            return None
        step = (Kind.ACTIVITY, call.name, call.occurrence, call.attempt, call.input)
        return Event(*step, answer[0], self.now(), answer[1], has_value=True)

    def _answer_of(self, call: ActivityCall) -> tuple[bytes, Any] | None:
        """What is said; nothing, where that is the type; else something made up, which the note then says."""
        said = _encoded(call, self._new.get(call.name))
        if said is not None or (call.kind, call.name) in self._known:
            return said
        made_up = list(islice(self._made_up(call), self._world + 1))
        place = (call.kind, call.name, call.occurrence)
        if place in self.fresh:
            self.fresh[place] = _unanswered(self.fresh[place], call.name)
        if not made_up:
            return None
        self.made_up = True
        return made_up[-1]

    def _made_up(self, call: ActivityCall) -> Iterator[tuple[bytes, Any]]:
        """Values of its type: its own record, what is recorded for those that it may stand for, and plain ones."""
        own = self._record(call)
        for entry in ([] if own is None else [own]) + self.steps.kept:
            if entry.kind == Kind.ACTIVITY and is_success(entry.exit):
                try:
                    recorded = call.activity.codec.decode(entry.exit)
                except PayloadError:
                    continue
                if isinstance(recorded, Success):
                    yield entry.exit, recorded.value
        for value in _MADE_UP:
            if (encoded := _encoded(call, value)) is not None:
                yield encoded


def trial(
    recording: Recording, history: list[Entry], implementation: Implementation, new: Mapping[str, Any], world: int = 0
) -> TrialKernel:
    """A kernel that has been fed a journal, and what is new; to be closed."""
    kernel = TrialKernel(recording, history, implementation, new, world)
    kernel.begin(lambda: implementation.make_body(recording.payload, recording.execution_id), history)
    kernel.go_on()
    return kernel


def _seq(entry: Entry) -> int:
    return entry.seq


def _due(call: TimerCall) -> int:
    return call.due_at or 0


def _encoded(call: ActivityCall, value: Any) -> tuple[bytes, Any] | None:
    try:
        return call.activity.codec.success(value)
    except PayloadError:
        return None


def _new(kernel: ReplayKernel, call: Call) -> Disagreement:
    place = kernel.place(call)
    at = f"\n  at {place}" if place else ""
    return Disagreement(
        message=f"{call.kind} {call.name!r} is new.{at}",
        step=f"{call.kind}/{call.name}#{call.occurrence}",
        asked_input=call.input.decode("utf-8", "replace"),
        where=place,
    )


def _unanswered(told: Disagreement, name: str) -> Disagreement:
    advice = f"\nWhat it answers nobody knows here: say new={{{name!r}: <an answer>}} to see what follows with it."
    return told if advice in told.message else replace(told, message=told.message + advice)
