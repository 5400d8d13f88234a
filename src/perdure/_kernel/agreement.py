"""Whether the children that a body asks for are the ones that it means: begun with the same payload (R2).

A child that is found is joined in the commit that asks for it. With a *strict* start it is not, if its payload is
another one: a letter PAYLOAD comes instead, with that payload. Read, it is judged, and the verdict is what is
recorded; today's types might judge otherwise on a replay. Then the call fails, or the child is joined after all.

The store is asked once for each child and payload. A child that this body has asked for before, with another payload, may
be joined already, and its end known; so there it is *compared* first, which always has such a letter for an answer.

What is compared is what one body asks. A call that its journal has with another payload was asked by other code, and
what is recorded of it counts (R8): it is *known as* the one that is recorded.
"""

from collections.abc import Sequence
from dataclasses import replace

from perdure._definitions.host import Call
from perdure._kernel.children import act_of, asked_of, fingerprint_of, is_of
from perdure._kernel.draft import Draft, Perform
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, ExecutionId, Start, payload_name
from perdure._values.exit_codec import is_success


class Agreements:
    """What one body has been told of the payloads of its children."""

    __slots__ = ("_compared", "_draft", "_known_as", "_steps", "_verbatim", "_verdicts")

    def __init__(self, draft: Draft, steps: Steps) -> None:
        self._draft = draft
        self._steps = steps
        # The verdicts that have been fed, by child and payload.
        self._verdicts: dict[str, Entry] = {}
        # Children and payloads that are compared before anything else.
        self._compared: set[str] = set()
        # Children and payloads that only today's code asks for, and as which ones the journal has the same calls.
        self._known_as: dict[str, str] = {}
        # Children that the original has asked for and that a fork asks for with that very payload: there is nothing of its
        # own in it, so whatever else it asks of them is compared as ever.
        self._verbatim: set[ExecutionId] = set()

    def answer(self, call: Call, end: Entry | None) -> Entry | None:
        """What answers a call that is made now; None: it waits. `end` is that of its child, where it is known.

        The child has been asked for, by this call or by another one of this body.
        """
        start = call.start
        assert start is not None
        name = self._recall(call)
        verdict = self._verdicts.get(name)
        if verdict is not None and not is_success(verdict.exit):
            return verdict
        asked, fingerprint = self._asked(start.execution_id), name.partition("/")[2]
        if any(fingerprint_of(entry) == fingerprint for entry in asked if self._is_original_s(entry)):
            self._verbatim.add(start.execution_id)
        # One that says nothing of its payload was recorded by an earlier release.
        agreed = any(fingerprint_of(entry) in {"", fingerprint} for entry in asked) or self._was_joined(name)
        if asked and not agreed and not self.is_copied(start):
            self._look(call, name)
        return None if self.awaits(call) else end

    def awaits(self, call: Call) -> bool:
        """Whether a call waits to hear of its child's payload before it is told of its end."""
        if not self._compared or call.start is None:
            return False
        name = self._name(call.start)
        return name in self._compared and name not in self._verdicts

    def judge(self, entry: Entry) -> list[tuple[Call, Entry]]:
        """Take a verdict; which calls have their answer now."""
        self._verdicts[entry.name] = entry
        child_id = entry.name.partition("/")[0]
        calls = [call for call in self._steps.sharers(child_id.encode()) if self._means(call, entry.name)]
        answers = [(call, entry) for call in calls]
        if calls and is_success(entry.exit):
            start = calls[0].start
            assert start is not None
            self._join(start, entry.name)
            end = self._steps.shared(calls[0])
            answers = [] if end is None else [(call, end) for call in calls]
        if not self._is_joined(child_id):
            # It was given up before it was known that there is nothing to give up.
            self._steps.leaving.pop(child_id.encode(), None)
        return answers

    def asked_by(self, name: str) -> Call | None:
        """A call that waits for a verdict, or has waited for it; None: nobody does."""
        child_id = name.partition("/")[0].encode()
        left = self._steps.leaving.get(child_id)
        calls = [*self._steps.sharers(child_id), *([] if left is None else [left])]
        return next((call for call in calls if self._means(call, name)), None)

    def asking_again(self, call: Call) -> Perform:
        """How a child is asked for in another life of this execution, which goes on with the journal of an earlier one."""
        start, awaits = self.known(call), self.awaits(call)
        return lambda acts: (acts.compares if awaits else acts.children).append(start)

    def known(self, call: Call) -> Start:
        """The start of a call, without what has been settled: it is nobody's news any more."""
        start = call.start
        assert start is not None
        name = self._name(start)
        settled = name in self._verdicts or name != payload_name(start) or self.is_copied(start)
        return replace(start, strict=start.strict and not settled, differing=None)

    def is_copied(self, start: Start) -> bool:
        """Whether the original has asked for a child, with another payload: a fork is not compared with that (R49)."""
        if not self._draft.copied or start.execution_id in self._verbatim:
            return False
        if self._has_act(_comparison_of(payload_name(start))):
            return False
        return any(self._is_original_s(entry) for entry in self._asked(start.execution_id))

    def _name(self, start: Start) -> str:
        """The child and payload that a start means: as the journal has them, where its code has changed since."""
        name = payload_name(start)
        return self._known_as.get(name, name)

    def _recall(self, call: Call) -> str:
        """The child and payload that a call means that is made now: the journal may have it with another payload."""
        start = call.start
        assert start is not None
        name, asked = payload_name(start), self._asked(start.execution_id)
        fingerprints = {fingerprint_of(entry) for entry in asked}
        is_recorded = not fingerprints.isdisjoint({"", name.partition("/")[2]}) or self._has_act(_comparison_of(name))
        if not is_recorded and not self._was_joined(name) and name not in self._known_as:
            known_as = self._find(call, asked)
            if known_as is not None:
                self._known_as[name] = known_as
        return self._known_as.get(name, name)

    def _find(self, call: Call, asked: Sequence[Entry]) -> str | None:
        """As what the journal has a call; None: it has not, or as one of the original's (R49)."""
        own = [entry for entry in asked if is_of(entry, call)]
        if not own and call.input not in self._steps.children:
            # Whoever asks first for a child has it started; other calls of the workflow may have been put in front.
            own = list(asked[:1])
        if own:
            return None if self._is_original_s(own[0]) else f"{call.input.decode()}/{fingerprint_of(own[0])}"
        # One that was compared, and has its verdict; without it is compared now, as what it asks today.
        letters = (letter for letter in self._draft.letters if letter.kind == Kind.PAYLOAD)
        for letter in letters:
            compared = self._draft.answers.get((Kind.ACT, _comparison_of(letter.name)), ())
            mine = any(is_of(entry, call) for entry in compared if not self._is_original_s(entry))
            if mine and letter.name.encode().startswith(call.input):
                return letter.name
        return None

    def _was_joined(self, name: str) -> bool:
        """Whether a child was joined with this payload as it is, when its workflow only warned of another one."""
        return self._has_act(_join_of(name)) and not self._has_act(_comparison_of(name))

    def _has_act(self, name: str) -> bool:
        return (Kind.ACT, name) in self._draft.answers

    def _is_original_s(self, entry: Entry) -> bool:
        return entry.seq <= self._draft.copied

    def _asked(self, child_id: ExecutionId) -> Sequence[Entry]:
        """The entries of this journal that ask for a child."""
        return self._draft.answers.get((Kind.ACT, act_of(child_id)), ())

    def _is_joined(self, child_id: ExecutionId) -> bool:
        """Whether this execution is among those who wait for a child, as far as it knows."""
        recorded = self._draft.answers
        asked = {f"{child_id}/{fingerprint_of(entry)}" for entry in self._asked(child_id)}
        if asked - self._verdicts.keys():
            return True
        names = (name for name in self._verdicts if name.startswith(child_id))
        return any((Kind.ACT, _join_of(name)) in recorded for name in names)

    def _look(self, call: Call, name: str) -> None:
        """Have its payload looked at, where this body has asked for it with another one."""
        start = call.start
        assert start is not None
        # What was compared is told its verdict, also where its workflow only warns by now.
        if not start.strict and not self._has_act(_comparison_of(name)):
            self._join(start, name)
            return
        self._compared.add(name)
        self._draft.act(_comparison_of(name), 1, lambda acts: acts.compares.append(start), asked_of(call))

    def _join(self, start: Start, name: str) -> None:
        def perform(acts: Acts) -> None:
            acts.rejoins.append(replace(start, strict=False))

        self._draft.act(_join_of(name), 1, perform)

    def _means(self, call: Call, name: str) -> bool:
        return call.start is not None and self._name(call.start) == name


def _comparison_of(name: str) -> str:
    return f"compare:{name}"


def _join_of(name: str) -> str:
    return f"join:{name}"
