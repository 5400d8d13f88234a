"""Who waits for whose end: the letters 'waiter' and 'left' in a child's mailbox.

A waiter's letter holds its incarnation. One whose row has another incarnation by now, or has ended, waits no more
and is told nothing; its letter stays, because a mailbox is only read when there is somebody to tell. 'Left' beside
it says that this waiter no longer makes the child wanted; of the end it is told all the same.
"""

from typing import Final

from perdure._model.records import Mail, MailKind
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.mail import Standing, find, put
from perdure._values.instant import Instant

# Number 0: these letters wake nobody, and no kernel reads them.
_JOIN: Final = "INSERT INTO perdure_mailbox VALUES (?, 'waiter', ?, 0, ?, ?, x'') ON CONFLICT DO NOTHING"
_LEAVE: Final = (
    "INSERT INTO perdure_mailbox SELECT incarnation, 'left', name, 0, exit, ?, x'' FROM perdure_mailbox"
    " WHERE incarnation = ? AND kind = 'waiter' AND name = ? AND exit = ? ON CONFLICT DO NOTHING"
)
_RENAME: Final = "UPDATE perdure_mailbox SET exit = ? WHERE incarnation = ? AND kind = 'waiter' AND name = ?"
_ERASE_LEFT: Final = "DELETE FROM perdure_mailbox WHERE incarnation = ? AND kind = 'left' AND name = ?"
_COUNT: Final = "UPDATE perdure_executions SET waiters = waiters + 1 WHERE n = ?"
_NAMED: Final = "SELECT name, exit FROM perdure_mailbox WHERE incarnation = ? AND kind = ?"
_TOLD: Final = "SELECT 1 FROM perdure_mailbox WHERE incarnation = ? AND kind = 'child' AND name = ?"
_WANTED: Final = (
    "SELECT 1 FROM perdure_mailbox w CROSS JOIN perdure_executions e ON e.id = unhex(w.name) AND e.incarnation = w.exit"
    " WHERE w.incarnation = ?1 AND w.kind = 'waiter' AND w.name <> ?2"
    " AND e.status NOT IN ('SUCCEEDED', 'FAILED', 'INTERRUPTED') AND NOT EXISTS"
    " (SELECT 1 FROM perdure_mailbox l WHERE l.incarnation = ?1 AND l.kind = 'left' AND l.name = w.name) LIMIT 1"
)


def join(connection: Connection, child: Standing, waiter: Standing, now: Instant) -> None:
    """Write down that somebody waits for an execution that has not ended."""
    name = waiter.id.hex()
    connection.execute(_JOIN, (child.incarnation, name, waiter.incarnation, now))
    if connection.changes():
        connection.execute(_COUNT, (child.n,))
        return
    # It waits already, or an earlier life of it did; and it may have left meanwhile.
    connection.execute(_RENAME, (waiter.incarnation, child.incarnation, name))
    connection.execute(_ERASE_LEFT, (child.incarnation, name))


def leave(connection: Connection, child: Standing, waiter: Standing, now: Instant) -> bool:
    """Write down that a waiter does not want an execution any more; False: it does not wait, or has left before."""
    connection.execute(_LEAVE, (now, child.incarnation, waiter.id.hex(), waiter.incarnation))
    return bool(connection.changes())


def is_wanted(connection: Connection, child: Standing, but_by: Standing) -> bool:
    """Whether anybody else waits for it still."""
    return bool(select(connection, _WANTED, (child.incarnation, but_by.id.hex())))


def was_told(connection: Connection, waiter: Standing, child_id: bytes) -> bool:
    """Whether this life of the waiter has been told of that execution's end."""
    return bool(select(connection, _TOLD, (waiter.incarnation, child_id.hex())))


def tell_end(connection: Connection, id_: bytes, incarnation: bytes, exit_: bytes, now: Instant) -> bool:
    """Tell everybody who waits for an execution how it has ended; give whether that stirs anybody."""
    return _tell(connection, incarnation, MailKind.WAITER, Mail("", MailKind.CHILD, id_.hex(), exit_), now)


def tell_held(connection: Connection, id_: bytes, incarnation: bytes, now: Instant) -> bool:
    """Tell those who have left an execution that it is held; give whether that stirs anybody."""
    row = find(connection, id_)
    if row is None or row.incarnation != incarnation or row.status != "HELD":
        return False  # somebody has moved it in the same transaction
    return _tell(connection, incarnation, MailKind.LEFT, Mail("", MailKind.FREED, row.id.hex(), b""), now)


def tell_freed(connection: Connection, waiter: Standing, child: Standing, now: Instant) -> bool:
    """Tell one who has left an execution that it need not wait for its end; give whether that stirs it."""
    return tell(connection, waiter, Mail("", MailKind.FREED, child.id.hex(), b""), now)


def tell(connection: Connection, waiter: Standing, mail: Mail, now: Instant) -> bool:
    """Send a letter to one waiter; give whether that stirs it."""
    if mail.kind == MailKind.FREED:
        # A child may be left, or held, more than once, and each time the letter has to be the first of its name.
        mail = mail._replace(name=f"{mail.name}/{waiter.wakes + 1}")
    return put(connection, waiter, mail._replace(execution_id=waiter.id.hex()), now, now).stirs


def _tell(connection: Connection, incarnation: bytes, kind: MailKind, mail: Mail, now: Instant) -> bool:
    stirs = False
    for name, life in select(connection, _NAMED, (incarnation, kind)):
        waiter = find(connection, bytes.fromhex(name))
        if waiter is not None and waiter.incarnation == life:
            stirs |= tell(connection, waiter, mail, now)
    return stirs
