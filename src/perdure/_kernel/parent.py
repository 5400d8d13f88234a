"""A body as the parent of children: it has them started, or joins them, and leaves them (R31).

A child is asked for once, by whichever call comes first, until all calls that wait for it have been withdrawn: then it
is left, and whoever asks for it afterwards joins it anew. Both are acts, so what has been asked for is in the journal.
"""

from dataclasses import replace

from perdure._definitions.host import Call
from perdure._kernel.agreement import Agreements
from perdure._kernel.children import act_of, asked_of
from perdure._kernel.customs import Customs
from perdure._kernel.draft import Draft
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, ExecutionId


class Parent:
    """What one body does about its children."""

    __slots__ = ("_customs", "_draft", "_left", "_steps", "agreements")

    def __init__(self, draft: Draft, steps: Steps, customs: Customs) -> None:
        self._draft = draft
        self._steps = steps
        self._customs = customs
        # What it knows of the payloads of its children.
        self.agreements = Agreements(draft, steps)
        # How often each of them was left.
        self._left: dict[ExecutionId, int] = {}

    def ask(self, call: Call, end: Entry | None) -> Entry | None:
        """Ask for a child; what answers the call already. `end` is the child's, where it is known."""
        if end is None:
            self._join(call)
        return self.agreements.answer(call, end)

    def _join(self, call: Call) -> None:
        """Have a child started, or joined; once, whoever else in this body waits for it, until all of them have left it."""
        start = call.start
        assert start is not None
        times_left = self._left.get(start.execution_id, 0)
        name = act_of(start.execution_id)
        self._customs.admit_start("child", call.occurrence, start, done=(Kind.ACT, name) in self._draft.answers)
        self._steps.leaving.pop(call.input, None)
        if self.agreements.is_copied(start):
            start = replace(start, strict=False, differing=None)

        def perform(acts: Acts) -> None:
            (acts.rejoins if times_left else acts.children).append(start)

        self._draft.act(name, times_left + 1, perform, asked_of(call))

    def leave(self, call: Call) -> None:
        """Give up a child that nobody here waits for any more: if it is this execution's own, it is interrupted (R31)."""
        child_id = call.input.decode()
        times_left = self._left.get(child_id, 0)
        if self._draft.marked(Kind.ACT, act_of(child_id), times_left + 1) is None:
            return
        self._steps.leaving[call.input] = call
        self._left[child_id] = times_left + 1

        def perform(acts: Acts) -> None:
            acts.rejoins[:] = [start for start in acts.rejoins if start.execution_id != child_id]
            acts.leaves.append(child_id)

        self._draft.act(f"leave:{child_id}", times_left + 1, perform)

    def ask_again(self) -> None:
        """Say once more whom it waits for: its journal is another life's, and who waits was written down for that."""
        for call in self._steps.waiting.values():
            if call.kind is Kind.CHILD:
                self._draft.do(self.agreements.asking_again(call))
        for call in self._steps.leaving.values():
            start = replace(self.agreements.known(call), restarts=False)
            self._draft.do(lambda acts, start=start: acts.children.append(start))
            self._draft.do(lambda acts, start=start: acts.leaves.append(start.execution_id))
