"""What reaches executions from outside, and what their kernels are rebuilt from."""

from collections.abc import Sequence
from typing import Final

from perdure._model.journal import Entry
from perdure._model.records import ExecutionId, History, Letter, Mail, Receipt, WorkerId
from perdure._model.status import FINAL
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.rows import NEVER, key
from perdure._values.instant import Instant

_STAND: Final = "SELECT n, incarnation, wakes, status FROM perdure_executions WHERE id = ?"
_STORE: Final = "INSERT INTO perdure_mailbox VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
# PENDING and HELD only count the mail; a claim or a resume will find it.
_KEEP: Final = "UPDATE perdure_executions SET wakes = ? WHERE n = ?"
_WAKE: Final = (
    "UPDATE perdure_executions SET wakes = ?1, status = 'PENDING', wake_at = NULL, ready_at = ?2, changed_at = ?2,"
    " waits = NULL WHERE n = ?3"
)
_TELL_OWNER: Final = "UPDATE perdure_executions SET wakes = ?, wake_at = ? WHERE n = ?"
_MAIL_FOR: Final = (
    "SELECT e.n, e.id, e.wakes FROM perdure_workers w CROSS JOIN perdure_executions e"
    f" WHERE w.id = ? AND e.owner = w.n AND e.wake_at < {NEVER}"
)
_ALL_MAIL_FOR: Final = (
    "SELECT e.n, e.id, e.wakes FROM perdure_workers w CROSS JOIN perdure_executions e"
    " WHERE w.id = ? AND e.owner = w.n AND e.wake_at IS NOT NULL AND e.wakes > 0"
)
_TOLD: Final = f"UPDATE perdure_executions SET wake_at = {NEVER} WHERE n = ?"
_ENTRIES: Final = (
    "SELECT seq, kind, name, occurrence, attempt, input, exit, at FROM perdure_journal"
    " WHERE incarnation = ? AND seq > ? ORDER BY seq"
)
_LETTERS: Final = "SELECT wake, kind, name, exit, at FROM perdure_mailbox WHERE incarnation = ? ORDER BY wake"


def deliver(connection: Connection, mail: Sequence[Mail], now: Instant) -> list[Receipt]:
    """Store mail, and wake whom it reaches."""
    return [_deliver_one(connection, one, now) for one in mail]


def _deliver_one(connection: Connection, mail: Mail, now: Instant) -> Receipt:
    found = select(connection, _STAND, (key(mail.execution_id),))
    if not found:
        return Receipt.UNKNOWN
    n, incarnation, wakes, status = found[0]
    if status in FINAL:
        return Receipt.FINISHED
    wake = wakes + 1
    connection.execute(_STORE, (incarnation, mail.kind, mail.name, wake, mail.exit, now))
    if connection.changes() == 0:
        return Receipt.IGNORED
    if status == "SUSPENDED":
        connection.execute(_WAKE, (wake, now, n))
    elif status == "RUNNING":
        connection.execute(_TELL_OWNER, (wake, now, n))
    else:
        connection.execute(_KEEP, (wake, n))
    return Receipt.STORED


def mail_for(connection: Connection, worker_id: WorkerId, *, everything: bool) -> dict[ExecutionId, int]:
    """Which executions of a worker have had mail since last asked; with `everything`, at any time."""
    rows = select(connection, _ALL_MAIL_FOR if everything else _MAIL_FOR, (worker_id,))
    if rows:
        connection.executemany(_TOLD, [(n,) for n, _, _ in rows])
    return {id_.hex(): wakes for _, id_, wakes in rows}


def load(connection: Connection, wanted: Sequence[tuple[bytes, int]]) -> list[History]:
    """Read journals from behind a seq, and mailboxes."""
    return [
        History(
            list(map(Entry._make, select(connection, _ENTRIES, (incarnation, seq)))),
            list(map(Letter._make, select(connection, _LETTERS, (incarnation,)))),
        )
        for incarnation, seq in wanted
    ]
