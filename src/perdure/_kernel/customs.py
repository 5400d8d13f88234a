"""Customs: what a body says to others or starts is looked at for its size before anything of it is recorded.

A refusal is recorded, with a digest of what was refused: the limit is an option of the engine, and the body has gone
another way because of it. So that call is answered alike on every replay, and in every life that goes on with the journal.
It is known by its place among the calls of its name, and not by the id of a child, which another life may make
otherwise; a fork may have other words in that place (R49).
"""

from collections.abc import Sequence
from hashlib import sha256

from perdure._kernel.draft import Draft
from perdure._model.journal import Entry, Kind
from perdure._model.records import Start
from perdure._values.exit_codec import decode_loosely, encode_outcome
from perdure._values.limit import too_large


class Customs:
    """Lets pass what is no larger than the engine takes."""

    __slots__ = ("_draft", "_limit")

    def __init__(self, draft: Draft, limit: int) -> None:
        self._draft = draft
        self._limit = limit

    def admit_start(self, step: str, occurrence: int, start: Start, *, done: bool = False) -> None:
        """Refuse a start whose payload is too large; `done`: one of its id has been asked for before.

        Raises:
            PayloadError: As for `admit`.
        """
        what = f"The payload of {start.workflow!r}"
        self.admit(f"{step}:{start.workflow}", occurrence, start.payload, what, done=done)

    def admit(self, step: str, occurrence: int, said: bytes, what: str, *, done: bool = False) -> None:
        """Refuse what is too large.

        With `done` only if it was refused before: what was taken once is taken on every replay.

        Raises:
            PayloadError: It is larger than the engine takes, or was when it was said first.
        """
        name = f"refused:{step}"
        refusals = self._draft.answers.get((Kind.ACT, name), ())
        is_too_large = len(said) > self._limit and not done
        if not is_too_large and not refusals:
            return
        asked = sha256(said).hexdigest().encode()
        refused = self._refused(refusals, occurrence, asked)
        if refused is None and is_too_large:
            answer = encode_outcome(too_large(said, self._limit, what, step))
            refused = self._draft.mark(Kind.ACT, name, occurrence, asked=asked, answer=answer)
        if refused is not None:
            decode_loosely(refused.exit).unwrap()

    def _refused(self, refusals: Sequence[Entry], occurrence: int, asked: bytes) -> Entry | None:
        for entry in refusals:
            if entry.occurrence == occurrence and (entry.input == asked or entry.seq <= self._draft.copied):
                return entry
        return None
