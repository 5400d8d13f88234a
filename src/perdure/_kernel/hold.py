"""What holds an execution by its steps' failures, and what becomes of these when somebody acts (R28, R36).

That it is held is a marker in its journal. Where the body is fed again and comes by that marker, somebody has acted
since: either it was resumed, and what had failed is done again; or it was interrupted, and ends with what held it.
"""

from collections.abc import Sequence
from typing import Final

from pydantic_core import from_json, to_json

from perdure._definitions.host import Call
from perdure._kernel.draft import Draft
from perdure._model.journal import Entry, Kind
from perdure._values.exit import Failure
from perdure.errors import PayloadError

_NONE: Final = frozenset[int]()
_NAME: Final = "held"


class Hold:
    """The failures that hold one execution, or have held it."""

    __slots__ = ("_draft", "_held_with", "failing", "void")

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        held = draft.answers.get((Kind.HELD, _NAME))
        # Recorded failures that count no more, by seq.
        self.void = _NONE if held is None else frozenset(seq for entry in held for seq in from_json(entry.input))
        # Failed calls that hold the execution until somebody acts, each with its failure (R36); always the same dictionary.
        self.failing: dict[Call, bytes] = {}
        # What such calls held it with last, and which they were.
        self._held_with: tuple[bytes, dict[Call, bytes]] = b"", {}

    def end(self, entry: Entry) -> None:
        """Somebody has acted since this marker was written: what failed is due, unless it was an interrupt."""
        for call in self.failing:
            call.due_at = entry.at
        self._held_with = entry.exit, self.failing.copy()
        self.failing.clear()

    def give_up(self, exit: bytes) -> list[tuple[Call, PayloadError]]:
        """Interrupted with what held it, so nobody has resumed it: steps that failed are not done again (R29, R36).

        A guard would have the kernel wait for an attempt that does not run, and so have it made.

        Returns:
            The calls of which the failure cannot be read.
        """
        held_with, failed = self._held_with
        unread: list[tuple[Call, PayloadError]] = []
        if exit != held_with:
            return unread
        for call, failure in failed.items():
            guard, call.guard = call.guard, None
            if guard is None:
                continue
            try:
                guard(Failure(call.decode_failure(failure)))
            except PayloadError as error:
                unread.append((call, error))
        return unread

    def note(self, voids: Sequence[int], exit: bytes) -> None:
        """Have the journal remember that it is held: what failed counts no more when somebody resumes it."""
        self._draft.mark(Kind.HELD, _NAME, 1, asked=to_json(voids), answer=exit)

    def forget(self) -> None:
        """It is not held yet: mail has come first. Written without the hold, the note would read as a resume."""
        self._draft.unmark(Kind.HELD, _NAME)
