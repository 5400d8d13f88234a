"""Workers: how they become known, leave, and are taken over."""

import json
from collections.abc import Iterable
from typing import Final

from perdure._model.records import Worker, WorkerId
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.rows import worker
from perdure._values.instant import Instant

# Again: with more workflows, which an engine may learn while it is open.
_REGISTER: Final = (
    "INSERT INTO perdure_workers(id, host, pid, workflows, started_at) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET workflows = excluded.workflows WHERE retired_at IS NULL"
)
_ALIVE: Final = "SELECT 1 FROM perdure_workers WHERE id = ? AND retired_at IS NULL"
_OTHERS: Final = "SELECT id FROM perdure_workers INDEXED BY perdure_workers_alive WHERE retired_at IS NULL AND id <> ?"
_RETIRE: Final = "UPDATE perdure_workers SET retired_at = ? WHERE id = ? AND retired_at IS NULL RETURNING n"
# By owner through the wake index, which has every RUNNING row.
_FREE: Final = (
    "UPDATE perdure_executions SET status = 'PENDING', owner = NULL, fence = fence + 1, crashes = iif(?1, crashes + ?1, 0),"
    " wake_at = NULL, ready_at = ?2, changed_at = ?2 WHERE owner = ?3 AND wake_at IS NOT NULL"
)
_WORKERS: Final = "SELECT id, host, pid, workflows, started_at, retired_at FROM perdure_workers ORDER BY n"


def register(connection: Connection, one: Worker) -> None:
    """Make a worker known."""
    connection.execute(
        _REGISTER, (one.worker_id, one.host, one.pid, json.dumps(one.workflows, ensure_ascii=False), one.started_at)
    )


def alive(connection: Connection, worker_id: WorkerId) -> bool:
    """Whether a worker is known and has not been retired."""
    return bool(select(connection, _ALIVE, (worker_id,)))


def others(connection: Connection, worker_id: WorkerId) -> list[WorkerId]:
    """Every worker but this one that has not been retired."""
    return [id_ for (id_,) in select(connection, _OTHERS, (worker_id,))]


def retire(connection: Connection, worker_ids: Iterable[WorkerId], crashes: int, now: Instant) -> int:
    """Retire workers and free what they own, with so many crashes counted; give how many were freed.

    A worker that leaves by itself (no crash counted) was ended by none of them: what was counted
    before is forgiven (R41). The fence grows even then: a commit that the worker sends again later
    must not find its old fence without an owner, and be taken for APPLIED.
    """
    freed = 0
    for worker_id in worker_ids:
        for (n,) in select(connection, _RETIRE, (now, worker_id)):
            connection.execute(_FREE, (crashes, now, n))
            freed += connection.changes()
    return freed


def workers(connection: Connection) -> list[Worker]:
    """Every worker, in the order of their coming."""
    return [worker(row) for row in select(connection, _WORKERS)]
