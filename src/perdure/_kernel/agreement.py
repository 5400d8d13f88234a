"""Whether the children that a body asks for are the ones that it means: begun with the same payload (R2).

A child that is found is joined in the commit that asks for it. With a *strict* start it is not, if its payload is
another one: a letter PAYLOAD comes instead, with that payload. Read, it is judged, and the verdict is what is
recorded; today's types might judge otherwise on a replay. Then the call fails, or the child is joined after all.

The store is asked once for each child and payload. A child that this body has asked for before, with another payload, may
be joined already, and its end known; so there it is *compared* first, which always has such a letter for an answer.
"""

from dataclasses import replace

from perdure._definitions.host import Call
from perdure._definitions.start import mismatch_of
from perdure._kernel.children import act_of, fingerprint_of
from perdure._kernel.draft import Draft, Perform
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, ExecutionId, Start, payload_name
from perdure._values.exit_codec import encode_outcome, is_success

_AGREED = b'{"success":null}'


def verdict_on(call: Call, payload: bytes) -> bytes:
    """The exit that is recorded of a comparison: of what a call asks for, and of the payload that is there."""
    start = call.start
    assert start is not None
    mismatch = mismatch_of(start, payload) if start.strict else None
    return _AGREED if mismatch is None else encode_outcome(mismatch)


class Agreements:
    """What one body has been told of the payloads of its children."""

    __slots__ = ("_compared", "_draft", "_steps", "_verdicts")

    def __init__(self, draft: Draft, steps: Steps) -> None:
        self._draft = draft
        self._steps = steps
        # The verdicts that have been fed, by child and payload.
        self._verdicts: dict[str, Entry] = {}
        # Children and payloads that are compared before anything else.
        self._compared: set[str] = set()

    def answer(self, call: Call, end: Entry | None) -> Entry | None:
        """What answers a call that is made now; None: it waits. `end` is that of its child, where it is known.

        The child has been asked for, by this call or by another one of this body.
        """
        start = call.start
        assert start is not None
        name = payload_name(start)
        verdict = self._verdicts.get(name)
        if verdict is not None and not is_success(verdict.exit):
            return verdict
        asked = self._draft.answers.get((Kind.ACT, act_of(start.execution_id)), ())
        # One that says nothing of its payload was recorded by an earlier release.
        agreed = any(fingerprint_of(entry) in {"", name.partition("/")[2]} for entry in asked)
        if asked and not agreed and not self._is_copied(start):
            self._look(start, name)
        return None if self.awaits(call) else end

    def awaits(self, call: Call) -> bool:
        """Whether a call waits to hear of its child's payload before it is told of its end."""
        if not self._compared or call.start is None:
            return False
        name = payload_name(call.start)
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
        settled = payload_name(start) in self._verdicts or self._is_copied(start)
        return replace(start, strict=start.strict and not settled, differing=None)

    def _is_copied(self, start: Start) -> bool:
        """Whether it is the original that has asked for a child: a fork is not compared with that (R49)."""
        asked = self._draft.answers.get((Kind.ACT, act_of(start.execution_id)), ())
        return any(entry.seq <= self._draft.copied for entry in asked)

    def _is_joined(self, child_id: ExecutionId) -> bool:
        """Whether this execution is among those who wait for a child, as far as it knows."""
        recorded = self._draft.answers
        asked = {f"{child_id}/{fingerprint_of(entry)}" for entry in recorded.get((Kind.ACT, act_of(child_id)), ())}
        if asked - self._verdicts.keys():
            return True
        names = (name for name in self._verdicts if name.startswith(child_id))
        return any((Kind.ACT, _join_of(name)) in recorded for name in names)

    def _look(self, start: Start, name: str) -> None:
        """Have its payload looked at, where this body has asked for it with another one."""
        if not start.strict:
            self._join(start, name)
            return
        self._compared.add(name)
        self._draft.act(f"compare:{name}", 1, lambda acts: acts.compares.append(start))

    def _join(self, start: Start, name: str) -> None:
        def perform(acts: Acts) -> None:
            acts.rejoins.append(replace(start, strict=False))

        self._draft.act(_join_of(name), 1, perform)

    @staticmethod
    def _means(call: Call, name: str) -> bool:
        return call.start is not None and payload_name(call.start) == name


def _join_of(name: str) -> str:
    return f"join:{name}"
