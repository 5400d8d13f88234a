"""Customs: what a body says to others or starts is looked at for its size before anything of it is recorded.

A refusal is recorded, by a digest of what was refused: the limit is an option of the engine, and the body has gone
another way because of it. So the same words are refused for the rest of this life.
"""

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

    def admit_start(self, step: str, start: Start, *, done: bool = False) -> None:
        """Refuse a start whose payload is too large; `done`: one of its id has been asked for before.

        Raises:
            PayloadError: As for `admit`.
        """
        self.admit(f"{step}:{start.execution_id}", start.payload, f"The payload of {start.workflow!r}", done=done)

    def admit(self, step: str, said: bytes, what: str, *, done: bool = False) -> None:
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
        refused = next((entry for entry in refusals if entry.input == asked), None)
        if refused is None and is_too_large:
            refused = self._refuse(
                name, len(refusals) + 1, asked, encode_outcome(too_large(said, self._limit, what, step))
            )
        if refused is not None:
            decode_loosely(refused.exit).unwrap()

    def _refuse(self, name: str, number: int, asked: bytes, answer: bytes) -> Entry:
        return self._draft.mark(Kind.ACT, name, number, asked=asked, answer=answer)
