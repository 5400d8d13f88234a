"""Removing what is old: finished executions with everything that is theirs, and workers that are long gone.

A batch is one transaction, so an execution is there as a whole or not at all. A batch is bounded in executions
and, since one execution may have a hundred thousand entries, in rows as well: whoever commits meanwhile waits for it.
"""

from collections.abc import Iterator
from typing import Final

from perdure._failpoints import reach
from perdure._stores.sqlite.driver import Connection, select
from perdure._values.instant import Instant

# A batch ends with the execution that brings it past this many rows: about 10 ms, 50 on a busy machine.
MOST_ROWS: Final = 500

_OLD: Final = (
    "SELECT n, id, incarnation FROM perdure_executions INDEXED BY perdure_executions_finished"
    " WHERE workflow = ? AND finished_at IS NOT NULL AND finished_at <= ? ORDER BY finished_at LIMIT ?"
)
# From one name to the next through the index: a query over all of them would read every finished execution.
_NEXT_WORKFLOW: Final = (
    "SELECT min(workflow) FROM perdure_executions INDEXED BY perdure_executions_finished"
    " WHERE workflow > ? AND finished_at IS NOT NULL"
)
_LIVES: Final = "SELECT incarnation FROM perdure_lives WHERE execution_id = ?"
# Of executions that go on, or will be purged later.
_OLD_LIVES: Final = (
    "SELECT l.execution_id, l.number, l.incarnation FROM perdure_lives l CROSS JOIN perdure_executions e"
    " ON e.id = l.execution_id WHERE l.aside_at <= ?1 AND (?2 IS NULL OR e.workflow = ?2) ORDER BY l.aside_at LIMIT ?3"
)
_FORGET_JOURNAL: Final = "DELETE FROM perdure_journal WHERE incarnation = ?"
_FORGET_MAILBOX: Final = "DELETE FROM perdure_mailbox WHERE incarnation = ?"
_FORGET_HEARTBEATS: Final = "DELETE FROM perdure_heartbeats WHERE incarnation = ?"
_FORGET_PUBLISHED: Final = "DELETE FROM perdure_published WHERE incarnation = ?"
_FORGET_LIFE: Final = "DELETE FROM perdure_lives WHERE execution_id = ? AND number = ?"
_FORGET_LIVES: Final = "DELETE FROM perdure_lives WHERE execution_id = ?"
_FORGET: Final = "DELETE FROM perdure_executions WHERE n = ?"
_FORGET_WORKERS: Final = "DELETE FROM perdure_workers WHERE retired_at IS NOT NULL AND retired_at <= ?"

# What an incarnation has. Its execution's own row goes last, with the index that led to it.
_BELONGINGS: Final = (_FORGET_JOURNAL, _FORGET_MAILBOX, _FORGET_HEARTBEATS, _FORGET_PUBLISHED)


def purge(connection: Connection, workflow: str | None, before: Instant, limit: int) -> int:
    """Remove a batch of executions that ended at `before` or earlier; of every workflow, if none is named."""
    removed = rows = 0
    for n, id_, incarnation in _old(connection, workflow, before, limit):
        if removed == 0:
            reach("purge.before")
        rows += _remove(connection, n, id_, incarnation)
        removed += 1
        if rows >= MOST_ROWS:
            break
    return removed


def purge_lives(connection: Connection, workflow: str | None, before: Instant, limit: int) -> int:
    """Remove a batch of lives that were put aside at `before` or earlier."""
    removed = rows = 0
    for id_, number, incarnation in select(connection, _OLD_LIVES, (before, workflow, limit)):
        rows += 1 + _forget_incarnation(connection, incarnation)
        connection.execute(_FORGET_LIFE, (id_, number))
        removed += 1
        if rows >= MOST_ROWS:
            break
    return removed


def forget_workers(connection: Connection, before: Instant) -> int:
    """Forget workers that were retired at `before` or earlier. They own nothing since."""
    connection.execute(_FORGET_WORKERS, (before,))
    return connection.changes()


def _old(
    connection: Connection, workflow: str | None, before: Instant, limit: int
) -> Iterator[tuple[int, bytes, bytes]]:
    names = _workflows(connection) if workflow is None else iter([workflow])
    left = limit
    for name in names:
        if left <= 0:
            return
        found = select(connection, _OLD, (name, before, left))
        left -= len(found)
        yield from found


def _workflows(connection: Connection) -> Iterator[str]:
    # Every name is greater than this one, which none can have.
    name = select(connection, _NEXT_WORKFLOW, ("",))[0][0]
    while name is not None:
        yield name
        name = select(connection, _NEXT_WORKFLOW, (name,))[0][0]


def _remove(connection: Connection, n: int, id_: bytes, incarnation: bytes) -> int:
    """Remove one execution; how many rows that were."""
    lives = [incarnation, *(before for (before,) in select(connection, _LIVES, (id_,)))]
    rows = sum(_forget_incarnation(connection, life) for life in lives)
    connection.execute(_FORGET_LIVES, (id_,))
    connection.execute(_FORGET, (n,))
    return rows + len(lives)


def _forget_incarnation(connection: Connection, incarnation: bytes) -> int:
    """Remove what one life has; how many rows that were."""
    rows = 0
    for statement in _BELONGINGS:
        connection.execute(statement, (incarnation,))
        rows += connection.changes()
    return rows
