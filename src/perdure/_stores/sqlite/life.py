"""How one life of an execution follows another under the same id.

The earlier life is put aside: what the row says of it goes to `perdure_lives`; its journal and its mailbox stay where
they are, under its incarnation. The row then stands as that of the next life, under a higher fence: whoever still
holds the old one is LOST.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from perdure._model.journal import Entry
from perdure._model.records import ExecutionId, Letter, Life, Met, Start
from perdure._model.status import FINAL, Status
from perdure._stores.sqlite import journal
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.mail import Standing, find
from perdure._stores.sqlite.rows import HELD, key, write_attributes
from perdure._values.instant import Instant

# A life that goes on as a new one has ended well, and has no result. A life was born when the one before was put aside,
# if that has not been purged.
_PUT_ASIDE: Final = (
    "INSERT INTO perdure_lives(execution_id, number, incarnation, status, payload, exit, created_at, finished_at,"
    " aside_at) SELECT id, number, incarnation, iif(status = 'PENDING', 'SUCCEEDED', status), payload, exit,"
    " coalesce((SELECT l.aside_at FROM perdure_lives l WHERE l.execution_id = e.id ORDER BY l.number DESC LIMIT 1),"
    " iif(number = 1, created_at, coalesce(began_at, created_at))), iif(status = 'PENDING', ?1, finished_at), ?1 FROM perdure_executions e WHERE n = ?2"
)
_BEGIN: Final = (
    "UPDATE perdure_executions SET incarnation = ?1, number = number + 1, fence = fence + 1, owner = NULL, wakes = ?2,"
    " waiters = ?3, status = iif(?4 IS NULL, 'PENDING', 'SUSPENDED'), held = NULL, wake_at = ?4,"
    " ready_at = iif(?4 IS NULL, ?5, NULL), crashes = 0, version = ?6, began_at = ?7, finished_at = NULL,"
    " changed_at = ?5, deadline = ?8, expires_at = ?8, seed = ?9, waits = NULL, payload = ?10, exit = NULL WHERE n = ?11"
)
_ASK_ANEW: Final = "UPDATE perdure_executions SET key = ?, priority = ?, parent = ?, attributes = ? WHERE n = ?"
_HAND_OVER: Final = (
    "INSERT INTO perdure_mailbox SELECT ?1, kind, name, wake, exit, at, sender FROM perdure_mailbox"
    " WHERE incarnation = ?2 AND NOT (kind = 'interrupt' AND name = 'deadline')"  # it has its own
    " AND (kind IN ('waiter', 'left') OR wake > ?3 AND kind IN ('message', 'deferred', 'interrupt'))"
)
_KEEP: Final = (
    "INSERT INTO perdure_mailbox SELECT ?1, kind, name, wake, exit, at, sender FROM perdure_mailbox"
    " WHERE incarnation = ?2 AND kind = ?3 AND name = ?4 ON CONFLICT DO NOTHING"
)
_HAND_OVER_WAITERS: Final = (
    "INSERT INTO perdure_mailbox SELECT ?1, kind, name, wake, exit, at, sender FROM perdure_mailbox"
    " WHERE incarnation = ?2 AND kind IN ('waiter', 'left')"
)
_FILL: Final = "INSERT INTO perdure_mailbox VALUES (?, ?, ?, ?, ?, ?, x'')"
_LIVED: Final = "SELECT 1 FROM perdure_lives WHERE execution_id = ? AND incarnation = ?"
_PAYLOAD: Final = "SELECT payload FROM perdure_executions WHERE n = ?"
_BEGUN_WITH: Final = "SELECT 1 FROM perdure_lives WHERE execution_id = ? AND payload = ? LIMIT 1"
_COUNT_FILLED: Final = "UPDATE perdure_executions SET wakes = ? WHERE id = ?"
_LIVES: Final = (
    "SELECT incarnation, number, status, payload, exit, created_at, finished_at FROM perdure_lives"
    " WHERE execution_id = ? ORDER BY number"
)

_RESTARTABLE: Final = frozenset({Status.FAILED, Status.INTERRUPTED})


def may_restart(connection: Connection, row: Standing, start: Start) -> bool:
    """Whether a start that meets an execution begins its next life; False: it joins."""
    if not start.restarts or row.status not in _RESTARTABLE:
        return False
    # A start that has begun a life is repeated. That life has failed since, and others after it perhaps: it must not
    # be begun again, with the journal that it has.
    return row.incarnation != start.incarnation and not has_begun_earlier(connection, row, start)


def has_begun_earlier(connection: Connection, row: Standing, start: Start) -> bool:
    """Whether a life that has been put aside is this very start's, by an earlier try of which nobody was told."""
    return row.number > 1 and bool(select(connection, _LIVED, (row.id, start.incarnation)))


def restart(connection: Connection, row: Standing, start: Start, now: Instant) -> None:
    """Let a start follow a life that did not succeed."""
    _follow(connection, row, start, now, due_at=start.due_at)
    parent = None if start.parent is None else bytes.fromhex(start.parent)
    attributes = write_attributes(start.attributes)
    connection.execute(_ASK_ANEW, (start.key, start.priority, parent, attributes, row.n))


def go_on(
    connection: Connection,
    row: Standing,
    seen: int,
    start: Start,
    now: Instant,
    *,
    kept: Iterable[tuple[str, str]] = (),
) -> None:
    """Let the next life stand in the place of one that has asked for it, with what it had not seen.

    `kept`: kind and name of what it had seen, and lets the next life have all the same; with its number, so that it
    stays in front of what came later.
    """
    _follow(connection, row, start, now, waiters=row.waiters)
    connection.execute(_HAND_OVER, (start.incarnation, row.incarnation, seen))
    for kind, name in kept:
        connection.execute(_KEEP, (start.incarnation, row.incarnation, kind, name))


def renew(
    connection: Connection,
    start: Start,
    journal_: Sequence[Entry],
    mailbox: Sequence[Letter],
    *,
    before: bytes,
    wakes: int,
    now: Instant,
) -> bool:
    """Let a life with a journal and a mailbox follow one that is finished or held."""
    row = find(connection, key(start.execution_id))
    if row is None:
        return False
    if row.incarnation == start.incarnation:
        return True  # by an earlier try
    if (row.incarnation, row.wakes) != (before, wakes) or not (row.status in FINAL or row.status == HELD):
        return False
    # Who waited for one that has ended was told of it, and waits no more.
    waiters = row.waiters if row.status == HELD else 0
    most = max([wakes, *(letter.wake for letter in mailbox)])
    _follow(connection, row._replace(wakes=most), start, now, waiters=waiters, began_at=start.began_at)
    if waiters:
        connection.execute(_HAND_OVER_WAITERS, (start.incarnation, before))
    journal.write(connection, [(start.incarnation, *entry) for entry in journal_])
    _fill(connection, start.incarnation, mailbox)
    return True


def fill(connection: Connection, start: Start) -> None:
    """Give an execution that was just born the mailbox that it is born with."""
    _fill(connection, start.incarnation, start.letters)
    wakes = max(letter.wake for letter in start.letters)
    connection.execute(_COUNT_FILLED, (wakes, bytes.fromhex(start.execution_id)))


def _fill(connection: Connection, incarnation: bytes, mailbox: Sequence[Letter]) -> None:
    connection.executemany(_FILL, [(incarnation, one.kind, one.name, one.wake, one.exit, one.at) for one in mailbox])


def met(connection: Connection, row: Standing, start: Start) -> Met | None:
    """What a start has met that begins nothing; None: an execution with its payload.

    Or one of which an earlier life had it: one that goes on as new has another payload each time (R2).
    """
    ((payload,),) = select(connection, _PAYLOAD, (row.n,))
    if payload == start.payload or (row.number > 1 and select(connection, _BEGUN_WITH, (row.id, start.payload))):
        return None
    return Met(start, payload)


def lives(connection: Connection, execution_id: ExecutionId) -> list[Life]:
    """The lives that have been put aside, in order."""
    return [
        Life(incarnation, number, Status.SUSPENDED if status == HELD else Status(status), *rest)
        for incarnation, number, status, *rest in select(connection, _LIVES, (key(execution_id),))
    ]


def _follow(
    connection: Connection,
    row: Standing,
    start: Start,
    now: Instant,
    *,
    waiters: int = 0,
    began_at: Instant | None = None,
    due_at: Instant | None = None,
) -> None:
    connection.execute(_PUT_ASIDE, (now, row.n))
    life = start.incarnation, row.wakes, waiters, due_at, now, start.version, began_at, start.deadline, start.seed
    connection.execute(_BEGIN, (*life, start.payload, row.n))
