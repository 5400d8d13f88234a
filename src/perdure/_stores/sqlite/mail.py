"""Mailboxes: what lies in them, who is told of it, and how a letter is put into one."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from perdure._model.records import ExecutionId, History, Letter, Mail, MailKind, Receipt, WorkerId
from perdure._model.status import FINAL
from perdure._stores.sqlite import journal
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.rows import NEVER
from perdure._values.instant import Instant

_STAND: Final = (
    "SELECT n, id, incarnation, fence, wakes, waiters, status, held, number, parent, begun"
    " FROM perdure_executions WHERE id = ?"
)
_STORE: Final = "INSERT INTO perdure_mailbox VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SENT: Final = (
    "SELECT 1 FROM perdure_mailbox WHERE incarnation = ? AND kind = ? AND name BETWEEN ? AND ? AND sender = ?"
)
_SENT_BEFORE: Final = (
    "SELECT 1 FROM perdure_lives l CROSS JOIN perdure_mailbox m ON m.incarnation = l.incarnation"
    " WHERE l.execution_id = ? AND l.number > ? AND m.kind = ? AND m.name BETWEEN ? AND ? AND m.sender = ? LIMIT 1"
)
# Of what another life has given out only a journal that this one began with can have anything: without one, nothing is
# read. The entries are found by their order and not by an index, which every step of every execution would pay for.
_GIVEN_OUT: Final = (
    "SELECT 1 FROM perdure_executions e CROSS JOIN perdure_journal j ON j.incarnation = e.incarnation"
    " WHERE e.n = ? AND e.seed IS NOT NULL AND j.kind = 'token' AND j.name = ? AND j.exit = ? LIMIT 1"
)
_CAME_BEFORE: Final = (
    "SELECT 1 FROM perdure_lives l CROSS JOIN perdure_mailbox m ON m.incarnation = l.incarnation"
    " WHERE l.execution_id = ? AND l.number > ? AND l.status = 'SUCCEEDED' AND l.exit IS NULL AND m.kind = ? AND m.name = ?"
    " LIMIT 1"
)
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
# The store's own letters have number 0, and are behind nothing.
_LETTERS: Final = (
    "SELECT wake, kind, name, exit, at FROM perdure_mailbox WHERE incarnation = ? AND wake > 0 AND wake > ?"
    " ORDER BY wake"
)

# A sender that has had no answer asks again soon. To look through all the lives of an endless loop
# would make each letter to it dearer than the one before.
_LIVES_LOOKED_THROUGH: Final = 8

# Behind every name.
_LAST_NAME: Final = "\U0010ffff"


class Standing(NamedTuple):
    """How an execution stands, as far as its mail is concerned."""

    n: int
    id: bytes
    incarnation: bytes
    fence: int
    wakes: int
    waiters: int
    status: str  # as rows have it
    held: str | None
    number: int
    parent: bytes | None
    begun: int


class Delivered(NamedTuple):
    """What became of a letter."""

    receipt: Receipt
    # Whether it lies there since now, and not since an earlier try.
    new: bool = False
    # Whether somebody has something to do because of it.
    stirs: bool = False


STIRRED: Final = Delivered(Receipt.STORED, new=True, stirs=True)
_KEPT: Final = Delivered(Receipt.STORED, new=True)


def find(connection: Connection, id_: bytes) -> Standing | None:
    """How an execution stands; None: there is none."""
    found = select(connection, _STAND, (id_,))
    return Standing._make(found[0]) if found else None


def put(connection: Connection, row: Standing, mail: Mail, now: Instant, at: Instant) -> Delivered:
    """Put a letter into a mailbox, as of the instant `at`, and wake whom it reaches."""
    stored = store(connection, row, mail, at)
    if not stored.new:
        return stored
    wake = row.wakes + 1
    # One that has never begun and is suspended is a delayed start: nothing begins it early, and its claim finds the mail.
    if row.status == "SUSPENDED" and row.begun:
        connection.execute(_WAKE, (wake, now, row.n))
    elif row.status == "RUNNING":
        connection.execute(_TELL_OWNER, (wake, now, row.n))
    else:
        connection.execute(_KEEP, (wake, row.n))
        return stored
    return STIRRED


def store(connection: Connection, row: Standing, mail: Mail, at: Instant) -> Delivered:
    """Put a letter into a mailbox, or say why not. Whoever calls has `wakes` raised if it is new."""
    incarnation = mail.incarnation
    if incarnation is not None and incarnation != row.incarnation:
        if not _gave_out(connection, row, mail):
            return _again(connection, row, mail, Receipt.OUTDATED)
        mail = mail._replace(incarnation=None)
    if row.status in FINAL:
        return _again(connection, row, mail, Receipt.FINISHED)
    if row.number > 1 and mail.sender and _was_sent(connection, row, mail):
        return Delivered(Receipt.STORED)
    if row.number > 1 and mail.kind == MailKind.MESSAGE and _came_before(connection, row, mail):
        return Delivered(Receipt.IGNORED)
    connection.execute(_STORE, (row.incarnation, mail.kind, mail.name, row.wakes + 1, mail.exit, at, mail.sender))
    if connection.changes():
        return _KEPT
    return _again(connection, row, mail, Receipt.IGNORED)


def _gave_out(connection: Connection, row: Standing, mail: Mail) -> bool:
    """Whether the present life has given out, in the part of its journal that a rewind has kept, what mail comes by."""
    return bool(mail.token) and bool(select(connection, _GIVEN_OUT, (row.n, mail.name, mail.token)))


def _again(connection: Connection, row: Standing, mail: Mail, otherwise: Receipt) -> Delivered:
    own = mail.sender and _was_sent(connection, row, mail)
    return Delivered(Receipt.STORED if own else otherwise)


def _was_sent(connection: Connection, row: Standing, mail: Mail) -> bool:
    # An interrupt may have got its name from the hold that it found. Looked for under the one that it was sent with, it
    # would be taken for another when it is sent again, and would end what somebody has resumed since.
    names = ("", _LAST_NAME) if mail.kind == MailKind.INTERRUPT else (mail.name, mail.name)
    asked = mail.kind, *names, mail.sender
    if select(connection, _SENT, (row.incarnation if mail.incarnation is None else mail.incarnation, *asked)):
        return True
    if mail.incarnation is not None or row.number == 1:
        return False
    return bool(select(connection, _SENT_BEFORE, (row.id, row.number - _LIVES_LOOKED_THROUGH, *asked)))


def _came_before(connection: Connection, row: Standing, mail: Mail) -> bool:
    """Whether a life that this one goes on has had this message; of one that failed it has to be sent anew."""
    earlier = row.number - _LIVES_LOOKED_THROUGH
    return bool(select(connection, _CAME_BEFORE, (row.id, earlier, mail.kind, mail.name)))


def mail_for(connection: Connection, worker_id: WorkerId, *, everything: bool) -> dict[ExecutionId, int]:
    """Which executions of a worker have had mail since last asked; with `everything`, at any time."""
    rows = select(connection, _ALL_MAIL_FOR if everything else _MAIL_FOR, (worker_id,))
    if rows:
        connection.executemany(_TOLD, [(n,) for n, _, _ in rows])
    return {id_.hex(): wakes for _, id_, wakes in rows}


def load(connection: Connection, wanted: Sequence[tuple[bytes, int, int]]) -> list[History]:
    """Read journals from behind a seq, and mailboxes from behind a number."""
    return [
        History(
            journal.read(connection, incarnation, seq),
            list(map(Letter._make, select(connection, _LETTERS, (incarnation, wake)))),
        )
        for incarnation, seq, wake in wanted
    ]
