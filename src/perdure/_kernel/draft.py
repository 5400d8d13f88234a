"""The draft: how far the journal has been fed, and what the turns since want to have written.

Time and seq have one home, so that an event and a marker of one turn cannot disagree about their
order. What is drafted becomes the journal with the engine's next commit, or is never heard of. An
act goes with its marker: a marker that is recorded, or taken back, has nothing done to others.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from perdure import _ids
from perdure._definitions.host import Call
from perdure._kernel.event import Event
from perdure._model.journal import ANSWERS, FORKS, MARKERS, Entry, Kind
from perdure._model.records import Acts, Start
from perdure._values.instant import Instant

# Puts what a turn does to others among its acts.
Perform = Callable[[Acts], object]


class Draft:
    """The end of a journal, as one kernel sees it."""

    __slots__ = ("_acts", "_entries", "_recorded_at", "answers", "copied", "fed_seq", "letters", "now", "seq")

    def __init__(self, began_at: Instant, history: Sequence[Entry]) -> None:
        # The time of the last fed entry (R38); never goes back.
        self.now = began_at
        # The seq of the last fed entry, which draws hang on (R39).
        self.fed_seq = 0
        # The last seq, recorded or drafted; and when the last recorded entry was fed. Both are the
        # journal's own from the beginning: changed code may draft markers while it is replayed, and
        # they stand behind all that is recorded.
        self.seq = history[-1].seq if history else 0
        self._recorded_at = history[-1].at if history else began_at
        # Markers by kind and name, recorded or drafted, each in the journal's order.
        self.answers: dict[tuple[str, str], list[Entry]] = {}
        self._entries: list[Entry] = []
        # What the drafted entries do to others, each with the seq of the one that it goes with.
        self._acts: list[tuple[int, Perform]] = []
        # Mail that was read, as recorded when this kernel was made.
        self.letters: list[Entry] = []
        for entry in history:
            if entry.kind in ANSWERS:
                continue
            if entry.kind in MARKERS:
                self.answers.setdefault((entry.kind, entry.name), []).append(entry)
            else:
                self.letters.append(entry)
        # The seq of the last entry that is a fork's from its original; 0: there is none.
        self.copied = 0
        for name in FORKS if self.answers else ():
            for entry in self.answers.get((Kind.ACT, name), ()):
                self.copied = max(self.copied, entry.seq)

    def next_entry(self, event: Event) -> Entry:
        """The entry that an event would be; it is not drafted yet."""
        kind, name, occurrence, attempt, asked, answer, at = event[:7]
        return Entry(self.seq + 1, kind, name, occurrence, attempt, asked, answer, max(self.now, at))

    def write(self, entry: Entry) -> None:
        """Draft the next entry."""
        self.seq = entry.seq
        self._entries.append(entry)

    def fed(self, entry: Entry) -> None:
        """An entry is being fed: this is the time, and the seq, of the turn that follows."""
        if entry.at > self.now:  # noqa: PLR1730 - `max` would be a call for every entry of every replay
            self.now = entry.at
        self.fed_seq = entry.seq

    def mark(
        self, kind: Kind, name: str, occurrence: int, *, asked: bytes = b"", answer: bytes = b"", attempt: int = 0
    ) -> Entry:
        """Have the journal remember something that no event tells."""
        at = max(self.now, self._recorded_at)
        entry = Entry(self.seq + 1, kind, name, occurrence, attempt, asked, answer, at)
        self.write(entry)
        self.answers.setdefault((kind, name), []).append(entry)
        return entry

    def unmark(self, kind: Kind, name: str) -> None:
        """Take back the marker drafted last, which has been written nowhere."""
        entry = self.answers[kind, name].pop()
        assert entry.seq == self.seq
        self.seq -= 1

    def do(self, perform: Perform) -> None:
        """Do something to others with the entry drafted last; nothing, if that is taken back."""
        self._acts.append((self.seq, perform))

    def act(self, name: str, occurrence: int, perform: Perform, asked: bytes = b"") -> None:
        """Do something to others, once, whatever is replayed (R42); what was `asked` is no part of what it is known by."""
        if self.marked(Kind.ACT, name, occurrence) is None:
            self.mark(Kind.ACT, name, occurrence, asked=asked)
            self.do(perform)

    def has_started(self, start: Start) -> bool:
        """Whether an execution of that id has been started before."""
        wanted = start.execution_id.encode()
        return any(entry.input == wanted for entry in self.answers.get((Kind.START, start.workflow), ()))

    def has_copied(self, start: Start, occurrence: int) -> bool:
        """Whether the original of this fork has started an execution of that id, with the same call of its workflow."""
        entry = self.marked(Kind.START, start.workflow, occurrence)
        return entry is not None and entry.seq <= self.copied and entry.input == start.execution_id.encode()

    def as_started(self, start: Start, occurrence: int) -> Start:
        """What a start means whose call the journal has: with another payload it was other code's, and that one counts (R8)."""
        entry, differing = self.marked(Kind.START, start.workflow, occurrence), start.differing
        if entry is None or not entry.exit or entry.input != start.execution_id.encode() or differing is None:
            return start
        recorded = entry.exit.decode()

        def differing_today(there: bytes) -> tuple[str, ...]:
            return () if _ids.fingerprint(there) == recorded else differing(there)

        return start if recorded == _ids.fingerprint(start.payload) else replace(start, differing=differing_today)

    def start(self, start: Start, occurrence: int) -> None:
        """Have an execution started, once, whatever is replayed (R42)."""
        if not self.has_started(start):
            payload = _ids.fingerprint(start.payload).encode() if start.strict else b""
            self.mark(Kind.START, start.workflow, occurrence, asked=start.execution_id.encode(), answer=payload)
            self.do(lambda acts: acts.starts.append(start))

    def marked(self, kind: Kind, name: str, occurrence: int) -> Entry | None:
        """The marker of this kind, name and occurrence."""
        for entry in self.answers.get((kind, name), ()):
            if entry.occurrence == occurrence:
                return entry
        return None

    def has_begun(self, call: Call) -> bool:
        """Whether the attempt that is due now was begun by a worker that is gone (R50)."""
        # The occurrence counts: the same order may be placed twice, and the first one's note says nothing of the second.
        asked = (call.occurrence, call.attempt)
        return any(
            (entry.occurrence, entry.attempt) == asked and (entry.input == call.input or entry.seq <= self.copied)
            for name in (call.name, *call.formerly)
            for entry in self.answers.get((Kind.ATTEMPT_BEGUN, name), ())
        )

    def retract_markers(self) -> None:
        """A turn that did not come to rest starts nothing and decides nothing; what was fed stays."""
        while self._entries and self._entries[-1].kind in MARKERS:
            entry = self._entries.pop()
            self.answers[entry.kind, entry.name].remove(entry)
            self.seq -= 1
        while self._acts and self._acts[-1][0] > self.seq:
            self._acts.pop()

    def take(self) -> tuple[Sequence[Entry], Acts | None]:
        """What is drafted; it is on its way from now on."""
        entries: Sequence[Entry] = ()
        if self._entries:
            entries, self._entries = self._entries, []
        if not self._acts:
            return entries, None
        performs, self._acts = self._acts, []
        acts = Acts()
        for _, perform in performs:
            perform(acts)
        return entries, acts
