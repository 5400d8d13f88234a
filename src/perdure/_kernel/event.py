"""What goes into a kernel and what may come out of it instead of an end: values, no behaviour."""

from typing import Any, NamedTuple

from perdure._model.journal import Kind
from perdure._model.records import ExecutionId
from perdure._model.status import Held
from perdure._values.instant import Instant


class Origin(NamedTuple):
    """Whose body a kernel runs, and what its determinism hangs on."""

    execution_id: ExecutionId
    life: int
    workflow: str
    seed: bytes
    began_at: Instant
    # Whether this is the first turn that anybody has ever run of it (R8a).
    unborn: bool


class Event(NamedTuple):
    """Something that has just happened to a live execution, before it has a place in the journal."""

    kind: Kind
    name: str
    occurrence: int
    attempt: int
    input: bytes
    exit: bytes
    at: Instant
    # The value that `exit` encodes, already passed through its schema, so that it is parsed once.
    value: Any = None
    has_value: bool = False
    # Its attempt had been cut off; then nobody need wait for it any more.
    cut_off: bool = False


class Trouble(NamedTuple):
    """Why a kernel cannot go on; its execution is held with this."""

    held: Held
    error: BaseException
