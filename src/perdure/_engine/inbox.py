"""The inbox of one execution: what has happened to it, and what its mail says, until the next turn feeds it.

Two sorts come in. *Events* are told by the engine itself: attempts that ended, receipts. *Mail* lies in
the store, numbered; it is known to have come before it is read. Both are fed in the order of their
instants, with the timers that are due (R47).
"""

from collections.abc import Iterator

from perdure._kernel.event import Event
from perdure._kernel.kernel import Kernel
from perdure._model.clock import Clock
from perdure._model.journal import Kind
from perdure._model.records import Letter, MailKind
from perdure._values.instant import Instant


class Inbox:
    """What one execution is to be fed."""

    __slots__ = ("_events", "_heard", "_letters", "seen", "unread")

    def __init__(self, seen: int = 0) -> None:
        self._events: list[Event] = []
        # Mail that is read, in its order.
        self._letters: list[Letter] = []
        # The highest number of mail that the kernel has been fed, and of mail that anybody has told of.
        self.seen = seen
        self._heard = 0
        # Whether mail is known to have come that is not read yet. It may be an interrupt, between which and its delivery
        # no activity begins (R29): what the last commit allows is kept back until it is read.
        self.unread = False

    def __bool__(self) -> bool:
        """Whether there is something to feed."""
        return bool(self._events or self._letters)

    def __repr__(self) -> str:
        return f"<inbox {self._events} {self._letters}>"

    def add(self, event: Event) -> None:
        """Something has happened."""
        self._events.append(event)

    def hear(self, wakes: int) -> bool:
        """Mail has come, up to this number; whether some of it is unseen."""
        self._heard = max(self._heard, wakes)
        return wakes > self.seen

    @property
    def has_unseen(self) -> bool:
        """Whether mail has come that nobody has read."""
        return self._heard > self.seen

    def fill(self, letters: list[Letter]) -> None:
        """All mail has been read once more; the kernel knows which of it stands in its journal."""
        self.unread = False
        self._letters = letters

    def put(self, letters: list[Letter]) -> None:
        """Mail has been read that came behind what was seen."""
        self.unread = False
        known = max([self.seen, *(letter.wake for letter in self._letters)])
        self._letters += [letter for letter in letters if letter.wake > known]

    def feed(self, kernel: Kernel, clock: Clock) -> None:
        """Feed all of it, and the timers that are due, in the order of their instants (R47)."""
        events, self._events = self._events, []
        if not self._letters and not kernel.steps.timers:
            for event in events:
                kernel.deliver(event)
            return
        dated: list[tuple[Instant, Event | Letter]] = [(event.at, event) for event in events]
        if self._letters:
            letters, self._letters = self._letters, []
            self.seen = max(self.seen, letters[-1].wake)
            dated += _in_order(letters)
        dated += _due_timers(kernel, clock.now())
        dated.sort(key=lambda pair: pair[0])
        for _, one in dated:
            if isinstance(one, Letter):
                self._read(kernel, one)
            else:
                kernel.deliver(one)

    def _read(self, kernel: Kernel, letter: Letter) -> None:
        if not kernel.read(letter) and kernel.continues and not kernel.has_read(letter):
            # The next life reads it: the store hands over what this one has not seen (R37).
            self.seen = min(self.seen, letter.wake - 1)


def _in_order(letters: list[Letter]) -> Iterator[tuple[Instant, Letter]]:
    """Letters with their instants; those of messages do not go back where a clock has been set back (R48)."""
    latest = 0
    for letter in letters:
        if letter.kind == MailKind.MESSAGE:
            latest = max(latest, letter.at)
            yield latest, letter
        else:
            yield letter.at, letter


def _due_timers(kernel: Kernel, now: Instant) -> Iterator[tuple[Instant, Event]]:
    for timer in kernel.timers():
        if timer.due_at is not None and timer.due_at <= now:
            yield timer.due_at, Event(Kind.TIMER, timer.name, timer.occurrence, 0, timer.input, b"", now)
