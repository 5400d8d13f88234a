"""Writing down an execution as another store has had it: its row, its journal, its mailbox, and what it shows.

Nobody runs it at first: one that had a worker is PENDING here, and the next claim goes on with it.
"""

from collections.abc import Mapping
from typing import Final

from perdure._model.records import History, Record, Start
from perdure._model.status import Status, is_final
from perdure._stores.sqlite import journal
from perdure._stores.sqlite.birth import Row, birth, starting
from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.listing import publish, read
from perdure._stores.sqlite.rows import HELD, NEVER
from perdure._values.instant import Instant

_SET_BACK: Final = "UPDATE perdure_executions SET created_at = ?, changed_at = ?, wakes = ?, crashes = ? WHERE id = ?"
_LETTER: Final = (
    "INSERT INTO perdure_mailbox(incarnation, kind, name, wake, exit, at, sender) VALUES (?, ?, ?, ?, ?, ?, x'')"
)


def adopt(
    connection: Connection, record: Record, history: History, published: Mapping[str, bytes], now: Instant
) -> bool:
    """Write an execution with all that is known of it; False: one of that id exists, and nothing was written."""
    if read(connection, [record.execution_id]):
        return False
    incarnation = record.incarnation
    born = record.fence, None, record.began_at
    connection.execute(starting(1), birth(_start(record), born, _target(record, now), now))
    # A birth takes place now; this one took place elsewhere.
    set_back = record.created_at, record.changed_at, record.wakes, record.crashes
    connection.execute(_SET_BACK, (*set_back, bytes.fromhex(record.execution_id)))
    journal.write(connection, [(incarnation, *entry) for entry in history.entries])
    for letter in history.letters:
        connection.execute(_LETTER, (incarnation, letter.kind, letter.name, letter.wake, letter.exit, letter.at))
    for name, value in published.items():
        publish(connection, (incarnation, name), value, now)
    return True


def _start(record: Record) -> Start:
    return Start(
        execution_id=record.execution_id,
        incarnation=record.incarnation,
        number=record.number,
        workflow=record.workflow,
        key=record.key,
        payload=record.payload,
        priority=record.priority,
        attributes=record.attributes,
        version=record.version,
        parent=record.parent,
        deadline=record.deadline,
        seed=record.seed,
    )


def _target(record: Record, now: Instant) -> Row:
    """What the columns from `status` to `exit` are."""
    status = record.status
    if is_final(status):
        return status, None, None, None, record.finished_at, None, record.exit
    if record.held is not None:
        return HELD, record.held, NEVER, None, None, record.waits, record.exit
    if status is Status.SUSPENDED:
        return status, None, NEVER if record.wake_at is None else record.wake_at, None, None, record.waits, None
    return Status.PENDING, None, None, now, None, None, None
