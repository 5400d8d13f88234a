"""Rows as the database has them, and the port's records."""

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from perdure._model.records import UNREADABLE, Attributes, ExecutionId, Record, Worker, WorkerId
from perdure._model.status import Held, Status
from perdure.errors import StoreRefusedError

# A far-future instant in the place of infinity: it compares and sorts as an integer does.
NEVER: Final = 2**62

HELD: Final = "HELD"  # the status that shows itself as SUSPENDED with a code

# In the order of `Record`; the owner by its number.
COLUMNS: Final = (
    "id, incarnation, number, workflow, key, status, held, waits, owner, fence, wakes, wake_at, crashes, priority,"
    " version, parent, attributes, created_at, began_at, finished_at, changed_at, payload, exit,"
    " deadline, seed"
)

_STATUS: Final = {str(status): status for status in Status} | {HELD: Status.SUSPENDED}
_HELD: Final = {None: None} | {str(held): held for held in Held}


class DamagedRowError(ValueError):
    """A row holds what nobody has written. It names the row; the lane adds the file."""


def record(row: Sequence[Any], owner: WorkerId | None) -> Record:
    """The record of a row of `COLUMNS`."""
    (id_, incarnation, number, workflow, readable_key, status, held, waits, _, fence, wakes, wake_at, crashes, priority, version,
     parent, attributes, *rest) = row  # fmt: skip
    return Record(
        id_.hex(),
        incarnation,
        number,
        workflow,
        readable_key,
        _status(status, id_),
        # A code that is not known, of a newer release or of a damaged disk, holds it all the same.
        _HELD.get(held, Held.UNREADABLE),
        waits,
        owner,
        fence,
        wakes,
        # On a RUNNING row it is the sign of new mail, and NEVER is nothing that a user set.
        wake_at if status == "SUSPENDED" and wake_at != NEVER else None,
        crashes,
        priority,
        version,
        parent and parent.hex(),
        read_attributes(attributes),
        *rest,
    )


def _status(text: str, id_: bytes) -> Status:
    status = _STATUS.get(text)
    if status is None:
        raise DamagedRowError(f"the status of execution {id_.hex()} is {text!r}")
    return status


def worker(row: Sequence[Any]) -> Worker:
    """The worker of a row (id, host, pid, workflows, started_at, retired_at)."""
    worker_id, host, pid, workflows, started_at, retired_at = row
    return Worker(
        worker_id=worker_id,
        host=host,
        pid=pid,
        workflows=tuple(json.loads(workflows)),
        started_at=started_at,
        retired_at=retired_at,
    )


def key(execution_id: ExecutionId) -> bytes:
    """The key of a row for an id from outside; for what cannot be an id, one that no row has."""
    try:
        raw = bytes.fromhex(execution_id)
    except ValueError:
        return b""
    # Another spelling of the same bytes (upper case, blanks) is no id either: nobody but the store would take it for one.
    return raw if raw.hex() == execution_id else b""


def write_attributes(attributes: Attributes) -> str:
    """The attributes as JSON.

    Raises:
        StoreRefusedError: One of them is not a number that JSON has.
    """
    if not attributes:
        return "{}"
    try:
        # NaN in one row would make every query by attributes fail: SQLite cannot read it as JSON.
        return json.dumps(dict(attributes), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise StoreRefusedError(f"The attributes {dict(attributes)!r} have no JSON form ({error}).") from error


def read_attributes(text: str) -> Attributes:
    """The attributes of a row.

    What cannot be read must not keep a worker from claiming the rows beside it, nor a listing from showing them.
    """
    if text == "{}":
        return {}
    try:
        read = json.loads(text)
    except ValueError:
        return UNREADABLE
    return cast("Attributes", read) if isinstance(read, dict) else UNREADABLE
