"""Which executions a journal has started for which calls, where it was another life's, or another execution's, before.

The id of a child without a key is made from its parent's id and life (R1). Replayed under another one, the body asks for
other ids than its journal has; so there the journal says which execution a call means, by workflow and occurrence.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic_core import from_json, to_json

from perdure import _ids
from perdure._definitions.host import Call
from perdure._model.journal import Entry, Kind
from perdure._model.records import ExecutionId

_JOINED = "child:"


class Begun(NamedTuple):
    """An execution that was started for a call."""

    execution_id: ExecutionId
    seq: int
    # Of its payload; empty: it is not recorded.
    fingerprint: str


def act_of(execution_id: ExecutionId) -> str:
    """The name of the act by which a child is started, or joined."""
    return f"{_JOINED}{execution_id}"


def asked_of(call: Call) -> bytes:
    """What the entry of that act says of the call that it was for."""
    assert call.start is not None
    return to_json([call.name, call.occurrence, _ids.fingerprint(call.start.payload)])


def fingerprint_of(entry: Entry) -> str:
    """What that entry says of the payload; empty: nothing."""
    return from_json(entry.input)[2] if entry.input else ""


def is_of(entry: Entry, call: Call) -> bool:
    """Whether what that entry says is of this call."""
    return bool(entry.input) and from_json(entry.input)[:2] == [call.name, call.occurrence]


class Inherited:
    """The executions that a journal has started, by the calls that asked for them."""

    __slots__ = ("_begun", "_copied", "_known")

    def __init__(self, entries: Iterable[Entry], copied: int) -> None:
        # The seq up to which it is another execution's: there nothing is compared (R49).
        self._copied = copied
        # By kind, workflow and occurrence of the call. The first one is what was handed on.
        self._begun: dict[tuple[Kind, str, int], Begun] = {}
        for kind, workflow, occurrence, begun in _begun_in(entries):
            self._begun.setdefault((kind, workflow, occurrence), begun)
        self._known = {begun.execution_id for begun in self._begun.values()}

    def find(
        self, kind: Kind, workflow: str, occurrence: int, asked: ExecutionId, payload: bytes | None
    ) -> ExecutionId:
        """Which execution a call means that asks for `asked`.

        Args:
            kind: CHILD of one that is waited for, START of a detached one.
            workflow: The workflow.
            occurrence: Which call of that kind and workflow it is.
            asked: The id that is made for it today.
            payload: Of one without a key; None: it has one, which says who it is in every life.
        """
        begun = self._begun.get((kind, workflow, occurrence))
        if begun is None or asked in self._known:
            return asked
        if begun.seq <= self._copied:
            return begun.execution_id
        if payload is None or (begun.fingerprint and begun.fingerprint != _ids.fingerprint(payload)):
            return asked
        return begun.execution_id


def _begun_in(entries: Iterable[Entry]) -> Iterator[tuple[Kind, str, int, Begun]]:
    for entry in entries:
        if entry.kind == Kind.START:
            yield Kind.START, entry.name, entry.occurrence, Begun(entry.input.decode(), entry.seq, "")
        elif entry.kind == Kind.ACT and entry.name.startswith(_JOINED) and entry.input:
            workflow, occurrence, fingerprint = from_json(entry.input)
            yield Kind.CHILD, workflow, occurrence, Begun(entry.name[len(_JOINED) :], entry.seq, fingerprint)
