"""What becomes of a letter: whether it says anything to the body, which step it is for, and which calls it answers.

A letter is fed once. Its mailbox keeps it, and whoever claims the execution next reads it again. One that says nothing
to the body, or nothing any more, is not recorded, so no replay meets it; what is recorded is fed again like all else.
"""

from collections.abc import Iterable

from perdure._definitions.host import Call
from perdure._definitions.start import verdict_on
from perdure._kernel.event import Event, Trouble, event_of, told_apart
from perdure._kernel.finish import Finish
from perdure._kernel.host import BodyHost
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import Letter
from perdure._model.status import Held

# A call that waits, and the entry that is its answer.
Answered = tuple[Call, Entry]


class Letters:
    """The letters of one body."""

    __slots__ = ("_finish", "_host", "_read", "_steps")

    def __init__(self, host: BodyHost, steps: Steps, finish: Finish, recorded: Iterable[Entry]) -> None:
        self._host = host
        self._steps = steps
        self._finish = finish
        # Those that have been looked at, by kind and what tells them apart.
        self._read = {(entry.kind, told_apart(entry)) for entry in recorded} if recorded else set[tuple[str, str]]()

    def has_read(self, letter: Letter) -> bool:
        """Whether this letter has been looked at, now or before."""
        event = event_of(letter)
        return (event.kind, told_apart(event)) in self._read

    def open(self, letter: Letter, trouble: Trouble | None) -> Event | None:
        """The event that a letter is; None: it was read before, or is not what lifts the trouble that there is."""
        event = event_of(letter)
        told = (event.kind, told_apart(event))
        # First of all: what was decided about an earlier hold would lift the one of now when it is read once more.
        if told in self._read:
            return None
        if trouble is not None and not self._lifts(event, trouble):
            return None
        self._read.add(told)
        return event

    def _lifts(self, event: Event, trouble: Trouble) -> bool:
        """Whether a letter is what somebody has decided about an execution that is held (R28, R36)."""
        if trouble.is_unfinished:
            return False
        passes_over = trouble.held is Held.COMPENSATION and event.kind is Kind.SKIP
        return passes_over or (event.kind is Kind.INTERRUPT and self._finish.may_be_interrupted)

    def addressed(self, event: Event) -> Event | None:
        """A letter with the step that it is for; None: for none."""
        match event.kind:
            case Kind.CHILD:
                asked = self._steps.children.get(event.input)
                return None if asked is None else event._replace(name=asked[0], occurrence=asked[1])
            case Kind.FREED:
                call = self._steps.leaving.get(event.input)
                return None if call is None else event._replace(name=call.name)
            case Kind.PAYLOAD:
                parent = self._host.parent
                call = None if parent is None else parent.agreements.asked_by(event.name)
                start = None if call is None else call.start
                return None if start is None else event._replace(exit=verdict_on(start, event.exit))
            case Kind.MESSAGE:
                return event._replace(occurrence=self._host.occurrence(Kind.MESSAGE, event.name))
            case Kind.INTERRUPT:
                return event if self._finish.may_be_interrupted else None
            case Kind.SKIP:
                return event if self._finish.unwinds else None
            case _:
                return event

    def feed(self, entry: Entry) -> list[Answered]:
        """Do what a letter says; whom it answers."""
        match entry.kind:
            case Kind.DEFERRED:
                return self.share(entry)
            case Kind.CHILD if entry.input in self._steps.children:
                self._steps.leaving.pop(entry.input, None)
                return self.share(entry)
            case Kind.FREED:
                self._steps.leaving.pop(entry.input, None)
            case Kind.PAYLOAD:
                # Without: today's code asks for no child any more.
                if self._host.parent is not None:
                    return self._host.parent.agreements.judge(entry)
            case Kind.MESSAGE:
                call = self._steps.receiver(entry)
                if call is not None:
                    return [(call, entry)]
                self._steps.store_message(entry)
            case Kind.INTERRUPT:
                self._finish.interrupt(entry.exit)
            case Kind.SKIP:
                self._finish.skip()
            case _:
                self._steps.keep(entry)
        return []

    def share(self, entry: Entry) -> list[Answered]:
        """Let everybody have a value who asks for it; whom it answers now."""
        calls, parent = self._steps.share(entry), self._host.parent
        return [(call, entry) for call in calls if parent is None or not parent.agreements.awaits(call)]
