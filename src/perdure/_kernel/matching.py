"""Which record answers which call.

A step is known by what is asked: kind, name, input; the occurrence counts only among equals (R8).
The order in which the tasks of a turn happened to run must not matter: sets, a cancelled TaskGroup
and the next Python change it, and code gains, loses and moves steps while executions are in flight.

So an entry goes to the waiting call that asked the same. If none waits it is kept, and the next
such call takes it. A call without a result beside a kept result of its kind and name, when nothing
is ready and nothing is left to feed, is a divergence: code and journal no longer tell one story.

What a fork has copied is not compared (R49): it is asked with other tokens and another id than were
recorded. Such an entry goes to whoever waits for the same, as ever; else to a call of its name for
which nothing else is recorded. If none waits it is kept for who asks the same, and contradicts nobody.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final

from perdure._definitions.host import Call
from perdure._model.journal import Entry, Kind

Place = tuple[str, str, int]  # kind, name, occurrence

# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY
_TIMER: Final = Kind.TIMER

# What everybody gets who asks for it.
SHARED: Final = frozenset({Kind.DEFERRED, Kind.CHILD})


class Steps:
    """The calls of one body that wait for their result, and the results that wait for their call."""

    __slots__ = (
        "_messages", "_recorded", "_sharers", "_untaken", "_values", "children", "copied", "kept", "leaving", "timers",
        "waiting",
    )  # fmt: skip

    def __init__(self, history: Sequence[Entry] = (), copied: int = 0) -> None:
        # The seq of the last entry that a fork has copied; 0: there is none.
        self.copied = copied
        # What those entries say was asked.
        self._recorded = {(one.kind, one.name, one.input) for one in history if one.seq <= copied} if copied else None
        # In the order in which they were asked for.
        self.waiting: dict[Place, Call] = {}
        # Those of them that are timers, once more: every turn looks for the ones that are due.
        self.timers: dict[Place, Call] = {}
        # Entries that were fed and that nobody has asked for yet, in the journal's order.
        self.kept: list[Entry] = []
        # What every call of its kind gets that asks for it, now or later: deferreds by name, children by id (R18).
        self._values: dict[tuple[str, str | bytes], Entry] = {}
        # Those of them that nobody has asked for so far.
        self._untaken: dict[tuple[str, str | bytes], Entry] = {}
        # Calls that wait for such a value.
        self._sharers: dict[tuple[str, str | bytes], list[Call]] = {}
        # Messages that nobody has received yet, by channel (R48).
        self._messages: dict[str, deque[Entry]] = {}
        # Children whose await was cancelled, by id: they have been interrupted, and have not ended yet (R31).
        self.leaving: dict[bytes, Call] = {}
        # Children that were ever asked for, by id: workflow and occurrence of the call. The end of one that was left is
        # kept for whoever asks for it again: its letter comes once.
        self.children: dict[bytes, tuple[str, int]] = {}

    def add(self, call: Call) -> None:
        """A call waits from now on."""
        place, kind = call.place, call.kind
        self.waiting[place] = call
        if kind is _ACTIVITY:  # first of all, because most of them are
            return
        if kind is _TIMER:
            self.timers[place] = call
        elif kind in SHARED:
            self._sharers.setdefault(_value_key(call), []).append(call)
            if call.kind is Kind.CHILD:
                self.children.setdefault(call.input, (call.name, call.occurrence))

    def drop(self, call: Call) -> None:
        """A call has its result, or is not wanted any more."""
        place, kind = call.place, call.kind
        if self.waiting.get(place) is call:
            del self.waiting[place]
            if kind is _ACTIVITY:
                return
            if kind is _TIMER:
                del self.timers[place]
            elif kind in SHARED:
                self._unshare(call)

    def waits(self, call: Call) -> bool:
        """Whether a call has no result yet and is still wanted."""
        return self.waiting.get(call.place) is call

    def keep(self, entry: Entry) -> None:
        """Nobody has asked for this entry so far; the next call that does takes it."""
        insort(self.kept, entry, key=_seq)

    def give_back(self, entry: Entry) -> Call | None:
        """The call that took this entry was withdrawn in the same turn: who has it instead; None: whoever asks next."""
        if entry.kind in SHARED or entry.kind == Kind.PAYLOAD:
            # It has never left its place. Kept for itself as well, one child's end would contradict the wait for another.
            return None
        if entry.kind == Kind.MESSAGE:
            # To its place among the others, not behind them (R48).
            other = self.receiver(entry)
            if other is None:
                self.store_message(entry)
            return other
        other = self.taker(entry)
        if other is None:
            self.keep(entry)
        return other

    def clear(self) -> None:
        """Nobody waits any more."""
        self.waiting.clear()
        self.timers.clear()
        self.leaving.clear()
        self._sharers.clear()

    def share(self, entry: Entry) -> list[Call]:
        """Let everybody have a value who asks for it; the calls that wait for it now, in the order of their asking."""
        key = _value_key(entry)
        self._values[key] = entry
        sharers = list(self._sharers.get(key, ()))
        if not sharers:
            self._untaken[key] = entry
        return sharers

    def shared(self, call: Call) -> Entry | None:
        """The value that is there for a call already."""
        if call.kind not in SHARED:
            return None
        self._untaken.pop(_value_key(call), None)
        return self._values.get(_value_key(call))

    def sharers(self, child_id: bytes) -> list[Call]:
        """The calls that wait for this child."""
        return list(self._sharers.get((Kind.CHILD, child_id), ()))

    def child(self, child_id: bytes) -> Call | None:
        """A call that waits for this child, or has left it."""
        waiting = self._sharers.get((Kind.CHILD, child_id))
        return waiting[0] if waiting else self.leaving.get(child_id)

    def _unshare(self, call: Call) -> None:
        sharers = self._sharers[_value_key(call)]
        sharers.remove(call)
        if not sharers:
            del self._sharers[_value_key(call)]

    def receiver(self, entry: Entry) -> Call | None:
        """The call that has waited longest for a message of this channel."""
        for call in self.waiting.values():
            if call.kind is Kind.MESSAGE and call.name == entry.name:
                return call
        return None

    def store_message(self, entry: Entry) -> None:
        """Nobody waits for this message; the next who does takes it, in the journal's order."""
        insort(self._messages.setdefault(entry.name, deque()), entry, key=_seq)

    def take_message(self, channel: str) -> Entry | None:
        """The oldest message of a channel that nobody has received."""
        waiting = self._messages.get(channel)
        return waiting.popleft() if waiting else None

    def untaken(self) -> list[Entry]:
        """The messages and completions that came and that nobody has taken, in the journal's order."""
        messages = (entry for waiting in self._messages.values() for entry in waiting)
        completions = (entry for entry in self._untaken.values() if entry.kind == Kind.DEFERRED)
        return sorted([*messages, *completions], key=_seq)

    def taker(self, entry: Entry) -> Call | None:
        """The waiting call that a recorded entry answers."""
        call = self.waiting.get((entry.kind, entry.name, entry.occurrence))
        return call if call is not None and call.input == entry.input else self._search(entry)

    def asker(self, entry: Entry) -> Call | None:
        """The waiting call that has asked for just this; nobody, if it has been withdrawn since.

        What happens live belongs to the call that it was begun for. An equal one has its own attempt, or its own
        due time: of two timers of one length that are due together the first may cancel the second and set a third,
        which must not fire with the second's event (R16).
        """
        call = self.waiting.get((entry.kind, entry.name, entry.occurrence))
        return call if call is not None and call.input == entry.input else None

    def _search(self, entry: Entry) -> Call | None:
        """The slow way, for code that has changed since the entry was written."""
        named = [call for call in self.waiting.values() if _same_name(call, entry)]
        equal = [call for call in named if _same_input(call, entry)]
        if not equal and named and not named[0].input_decides:
            equal = named
        if not equal and self._recorded is not None and entry.seq <= self.copied:
            equal = [call for call in named if (call.kind, call.name, call.input) not in self._recorded]
        for call in equal:
            if call.occurrence == entry.occurrence:
                return call
        return equal[0] if equal else None

    def kept_for(self, call: Call) -> Entry | None:
        """Take out the first kept entry that answers a call which has just been made."""
        found = None
        for place, entry in enumerate(self.kept):
            if not _same_name(call, entry) or (call.input_decides and not _same_input(call, entry)):
                continue
            if entry.occurrence == call.occurrence:
                return self.kept.pop(place)
            found = place if found is None else found
        return None if found is None else self.kept.pop(found)

    def divergence(self) -> tuple[Call, Entry] | None:
        """A call without result beside a kept result of its kind and name."""
        for entry in self.kept:
            for call in self.waiting.values():
                if call.input_decides and entry.seq > self.copied and _same_name(call, entry):
                    return call, entry
        return None


def _value_key(step: Call | Entry) -> tuple[str, str | bytes]:
    return step.kind, step.input if step.kind == Kind.CHILD else step.name


def _seq(entry: Entry) -> int:
    return entry.seq


def _same_name(call: Call, entry: Entry) -> bool:
    return call.kind == entry.kind and (call.name == entry.name or entry.name in call.formerly)


def _same_input(call: Call, entry: Entry) -> bool:
    return call.input == entry.input or (call.input_decides and call.same_input(entry.input))
