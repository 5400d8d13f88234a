"""A trial: a recorded execution on changed code, which is given what is new to it, to see what it asks for behind that.

A step that was put in and one that was renamed look alike at first. Behind the one the record is asked for as before,
behind the other never; so new timers fire, and new activities answer: what the caller says, else nothing, else what is
made up. What is made up proves less: that a record is asked for, but not that a value which leads past it means anything.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple

from perdure._definitions.activity import ActivityCall
from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._engine.standing import MOST_WAITS_SHOWN
from perdure._kernel.event import Event
from perdure._model.journal import MARKERS, Entry, Kind
from perdure._model.status import Status, is_final
from perdure._values.exit import Success
from perdure._values.exit_codec import is_success
from perdure.errors import NonDeterminismError, PayloadError
from perdure.testing._noting_host import Done, Notes, be_noted
from perdure.testing._rerun import (
    Disagreement,
    Implementation,
    Recording,
    ReplayKernel,
    deed,
    definition_of,
    is_done_to_others,
)
from perdure.testing._signer import with_keys

# Steps that are given in one trial: a body that asks for new ones without end has to come to one here.
MOST_GIVEN: Final = 1_000

# Trials of one journal, each with other values made up where several are possible.
WORLDS: Final = 4

_MADE_UP: Final[tuple[Any, ...]] = (True, False, 1, 0, "", [], {})

# What an act is called by which a child is begun, in front of its id; and one by which it is left.
CHILD_BEGUN: Final = "child:"
_LEFT: Final = "leave:"

_Place = tuple[str, str, int]  # kind, name, occurrence


class StandIn(NamedTuple):
    """A new step that a record may be meant for."""

    told: Disagreement
    # Whether what it is asked with proves nothing: something was made up before.
    is_guessed: bool


class TrialKernel(ReplayKernel):
    """A kernel that gives its body what is not recorded.

    Attributes:
        fresh: The new steps, in the order in which they were seen.
        notes: Where it has made its calls, and done what is not waited for.
        made_up: Whether a value was made up.
        stuck: Whether a new step is left that nobody can answer.
        still_to_come: Those of the new steps that are asked for behind what it waits for now.
        guessed: Those that were asked for when something had been made up already, which may be in their input.
    """

    __slots__ = (
        "_ahead", "_begun", "_done_before", "_history", "_implementation", "_known", "_last_seq", "_new", "_passed_at",
        "_recording", "_rests", "_world", "_written", "fresh", "guessed", "made_up", "notes", "still_to_come", "stuck",
    )  # fmt: skip

    def __init__(
        self,
        recording: Recording,
        history: list[Entry],
        implementation: Implementation,
        new: Mapping[str, Any],
        world: int = 0,
    ) -> None:
        self.fresh: dict[_Place, Disagreement] = {}
        self.still_to_come: set[_Place] = set()
        self.guessed: set[_Place] = set()
        # Behind which entry it has come past what it waits for now, with nothing new beside it; None: it has not.
        self._passed_at: int | None = None
        self.notes = Notes()
        self.made_up = self.stuck = False
        self._recording = recording
        self._implementation = implementation
        self._last_seq = history[-1].seq if history else 0
        self._new = new
        self._world = world
        waited_for = recording.waited_for
        self._known = frozenset(waited_for or ())
        # Whether all is known that it waited for: it had come to rest, and no list was cut off.
        self._rests = waited_for is not None and len(waited_for) < MOST_WAITS_SHOWN
        self._ahead = [entry for entry in recording.entries if entry.kind not in MARKERS]
        # What it has done to others: it does that again here, so that it can be compared. Of a beginning, what is in it.
        self._done_before = [entry for entry in history if is_done_to_others(entry)]
        self._begun = {entry.name for entry in recording.entries if entry.kind == Kind.ACT}
        self._written: list[Entry] = []
        self._history = [entry for entry in history if not is_done_to_others(entry)]
        super().__init__(recording, self._history, implementation)
        # What is drafted stands behind all that is recorded.
        self._draft.seq = self._last_seq

    @property
    def proves(self) -> bool:
        """Whether a record that it has not asked for by now is asked for no more."""
        if self.stuck or self.trouble is not None:
            return False
        return not (self.made_up and self.ended and self._has_failed())

    def run(self) -> None:
        """Feed it the journal, and then what is new."""
        recording, implementation = self._recording, self._implementation

        def make_body() -> Coroutine[Any, Any, Any]:
            be_noted(self._host, self._draft, self.notes)
            return implementation.make_body(recording.payload, recording.execution_id)

        self.begin(with_keys(make_body), self._history)
        self._go_on()

    def unasked(self) -> list[Entry]:
        """Records that nobody has asked for, and what was done to others and is not done here, in the journal's order."""
        return sorted([*self.left_over(self._recording), *self._undone()], key=_seq)

    def _undone(self) -> list[Entry]:
        written = Counter(deed(entry) for entry in self._deeds())
        found: list[Entry] = []
        for entry in self._done_before:
            written[deed(entry)] -= 1
            if written[deed(entry)] < 0 and not self._follows(entry):
                found.append(entry)
        return found

    def _follows(self, entry: Entry) -> bool:
        """Whether an act goes with something else: a child has an end, of which more can be said."""
        child_id = entry.name.removeprefix(CHILD_BEGUN).encode()
        return entry.name.startswith(_LEFT) or any(
            other.kind == Kind.CHILD and other.input == child_id for other in self._ahead
        )

    def _deeds(self) -> list[Entry]:
        """What it has done to others so far, or given out."""
        self._written += self.take_written()[0]
        return [entry for entry in self._written if is_done_to_others(entry) or entry.kind == Kind.TOKEN]

    def stand_ins(self) -> list[StandIn]:
        """The new steps that may be recorded ones under another name, and what it does to others."""
        return [*self.early(), *(StandIn(told, is_guessed=True) for told in self.new_deeds(self._passed_at))]

    def early(self) -> list[StandIn]:
        """The new steps without those that are still to come.

        What is asked for only behind the very wait in which the execution stands is no recorded step under another name:
        that wait is asked for as before, so whatever stood in front of it has been passed, and yesterday's code had not
        come further.
        """
        return [
            StandIn(told, is_guessed=place in self.guessed)
            for place, told in self.fresh.items()
            if place not in self.still_to_come
        ]

    def new_deeds(self, until: int | None = None) -> list[Disagreement]:
        """What it does to others and has not done: it is done with a turn, so what is not recorded was not done.

        Args:
            until: Only what is done up to this entry.
        """
        before = Counter(deed(entry) for entry in self._recording.entries)
        rests = self._rests or is_final(Status(self._recording.status))
        found: list[Disagreement] = []
        for entry in self._deeds():
            before[deed(entry)] -= 1
            where, after = self.notes.done.get(entry.seq, Done("", self._last_seq))
            if until is not None and after > until:
                continue
            # What follows the last entry may be on its way, where nothing says that it has come to rest.
            if before[deed(entry)] < 0 and (rests or after < self._last_seq):
                found += self._told(entry, where or definition_of(self._implementation))
        return found

    def _told(self, entry: Entry, where: str) -> Iterator[Disagreement]:
        kind, name, occurrence = str(entry.kind), entry.name, entry.occurrence
        if name.startswith(_LEFT):
            return
        if name.startswith(CHILD_BEGUN):
            kind = str(Kind.CHILD)
            name, occurrence = self.steps.children[name.removeprefix(CHILD_BEGUN).encode()]
        if (kind, name, occurrence) not in self.fresh:
            yield _told_new(kind, name, occurrence, entry.input, where)

    def asked_for(self, entries: Sequence[Entry]) -> set[int]:
        """Which of the entries the code asks for, by their seq, though it be with another input."""
        left = {entry.seq for entry in self.unasked()}
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

    def _feed_again(self, entry: Entry) -> None:
        if entry.kind == Kind.TIMER_SET and self._host.replaying:
            self._look_at_rest()
        super()._feed_again(entry)

    def _look_at_rest(self) -> None:
        """A due time is recorded when it goes to sleep (R5, R16). What ran then would have kept it awake, and is new."""
        for call in self.steps.waiting.values():
            if self._keeps_awake(call) and not self._is_known(call):
                self._note(call)

    def _keeps_awake(self, call: Call) -> bool:
        """Whether an execution is not put to sleep while this is waited for, or its due time would have been recorded."""
        if isinstance(call, TimerCall):
            return call.durable and self._draft.marked(Kind.TIMER_SET, call.name, call.occurrence) is None
        # Not what waits for its next attempt.
        return call.kind in (Kind.ACTIVITY, Kind.SENT) and call.due_at is None

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

    def _go_on(self) -> None:
        """Give what is new, as long as records are left that may be asked for behind it."""
        tells = self._rests or is_final(Status(self._recording.status))
        if self._rests and self._last_seq == (self._recording.entries[-1].seq if self._recording.entries else 0):
            self._note_compensations()
        for _ in range(MOST_GIVEN):
            left = bool(self.steps.kept or self._undone())
            for call in self.steps.waiting.values():
                # Of one that was under way some are not new. Only beside an untaken record it matters.
                if (tells or left) and not self._is_known(call):
                    self._note(call)
            if not left or self.ended or self.trouble is not None:
                return
            event = self._next()
            if event is not None and self._passed_at is None and self._is_alone(event):
                self._passed_at = self._draft.fed_seq
            if event is None or not self.deliver(event):
                break
        self.stuck = any(not self._is_known(call) for call in self.steps.waiting.values())

    def _is_alone(self, event: Event) -> bool:
        """Whether an event is what it waits for now, and nothing new is asked for beside that: then what comes is later."""
        waiting = self.steps.waiting
        call = waiting[event.kind, event.name, event.occurrence]
        is_waited_for = self._rests and (call.kind, call.name) in self._known and not self._recorded(call)
        return is_waited_for and all(self._is_known(other) for other in waiting.values())

    def _note_compensations(self) -> None:
        for name in self.compensations():
            if ("compensation", name) not in self._known:
                where = definition_of(self._implementation)
                self.fresh.setdefault(("compensation", name, 1), _told_new("compensation", name, 1, b"", where))

    def _is_known(self, call: Call) -> bool:
        if call.kind is Kind.ACTIVITY and self._rests and call.due_at is None:
            return self._recorded(call)  # it rested, so this was not asked for, though another one of its name waits
        begun = call.kind is Kind.CHILD and f"{CHILD_BEGUN}{call.input.decode()}" in self._begun
        return begun or (call.kind, call.name) in self._known or self._recorded(call)

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
            where = self.notes.made.get(place) or self.place(call)
            if self._passed_at is not None:
                self.still_to_come.add(place)
            if self.made_up:
                self.guessed.add(place)
            self.fresh[place] = _told_new(call.kind, call.name, call.occurrence, call.input, where)

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
    kernel.run()
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


def _told_new(kind: str, name: str, occurrence: int, input: bytes, where: str) -> Disagreement:
    at = f"\n  at {where}" if where else ""
    return Disagreement(
        message=f"{kind} {name!r} is new.{at}",
        step=f"{kind}/{name}#{occurrence}",
        asked_input=input.decode("utf-8", "replace"),
        where=where,
    )


def _unanswered(told: Disagreement, name: str) -> Disagreement:
    advice = f"\nWhat it answers nobody knows here: say new={{{name!r}: <an answer>}} to see what follows with it."
    return told if advice in told.message else replace(told, message=told.message + advice)
