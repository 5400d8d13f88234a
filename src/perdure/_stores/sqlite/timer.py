"""When suspended executions are due, and what an operator's resume does to held ones."""

from typing import Final

from perdure._failpoints import reach
from perdure._model.records import ExecutionId, Mail, MailKind, Record, hold_name
from perdure._model.status import Held
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.listing import read
from perdure._stores.sqlite.mail import find, put
from perdure._stores.sqlite.rows import NEVER, key
from perdure._values.instant import Instant

# HELD rows stand in the same index, at NEVER: a timer that fell due meanwhile does not find them.
_PROMOTE: Final = (
    "UPDATE perdure_executions SET status = 'PENDING', ready_at = wake_at, wake_at = NULL, waits = NULL,"
    " changed_at = ?1 WHERE n IN (SELECT n FROM perdure_executions WHERE owner IS NULL AND wake_at <= ?1"
    " ORDER BY wake_at LIMIT ?2)"
)
_IS_DUE: Final = "SELECT 1 FROM perdure_executions WHERE owner IS NULL AND wake_at <= ? LIMIT 1"
_NEXT_WAKE: Final = (
    "SELECT wake_at FROM perdure_executions WHERE owner IS NULL AND wake_at IS NOT NULL ORDER BY wake_at LIMIT 1"
)
_NEXT_DEADLINE: Final = (
    "SELECT expires_at FROM perdure_executions WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1"
)
# Whoever resumes has looked into it: the crashes of the past do not count against the next try.
_RESUME: Final = (
    "UPDATE perdure_executions SET status = 'PENDING', held = NULL, wake_at = NULL, ready_at = ?1, changed_at = ?1,"
    " crashes = 0, waits = NULL, exit = NULL WHERE id = ?2 AND status = 'HELD'"
)


def promote(connection: Connection, limit: int, now: Instant) -> int:
    """Make suspended executions PENDING whose wake is due, the longest due first."""
    if not select(connection, _IS_DUE, (now,)):
        return 0
    reach("promote.before")
    connection.execute(_PROMOTE, (now, limit))
    return connection.changes()


def next_wake(connection: Connection) -> Instant | None:
    """The earliest wake of all, or the earliest deadline."""
    found = [at for sql in (_NEXT_WAKE, _NEXT_DEADLINE) for (at,) in select(connection, sql) if at != NEVER]
    return min(found, default=None)


def resume(connection: Connection, execution_id: ExecutionId, now: Instant, *, skip: bool) -> Record | None:
    """Make a held execution PENDING; give it as it stood before."""
    found = read(connection, [execution_id])
    free(connection, execution_id, now)
    if not found:
        return None
    if skip and found[0].held is Held.COMPENSATION:
        row = find(connection, key(execution_id))
        assert row is not None
        put(connection, row, Mail(execution_id, MailKind.SKIP, hold_name(row.wakes + 1), b""), now, now)
    return found[0]


def free(connection: Connection, execution_id: ExecutionId, now: Instant) -> bool:
    """Make a held execution PENDING; give whether it was one."""
    connection.execute(_RESUME, (now, key(execution_id)))
    return bool(connection.changes())
