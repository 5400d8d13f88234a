"""Delivery of mail, and of the one kind that does more than wake: an interrupt, also one by deadline.

An execution that has never begun has no body that could object: it ends in the transaction of the interrupt. One
that is held is moved by it, as by a resume, and ends with what holds it if that is a failure of its own (R36).

Interrupts are told apart by their names, of which the first wins. One that runs or waits has one interrupt and one
deadline (R29, R44). A held one is moved whatever came before: where its body has been told of all that, the letter
gets a name of its own, that no other has; else what the body has still to be told of is enough.
"""

from collections.abc import Sequence
from typing import Final

from perdure._failpoints import reach
from perdure._model.records import (
    DEADLINE_NAME,
    ExecutionId,
    Mail,
    MailKind,
    Receipt,
    hold_name,
    interrupted_status,
)
from perdure._model.status import FINAL, Held, Status
from perdure._stores.sqlite import waiter
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.mail import STIRRED, Delivered, Standing, find, put, store
from perdure._stores.sqlite.rows import HELD, key
from perdure._values.instant import Instant

_END: Final = (
    "UPDATE perdure_executions SET status = ?1, exit = ?2, wakes = ?3, fence = ?4, owner = NULL, held = NULL,"
    " wake_at = NULL, ready_at = NULL, finished_at = ?5, changed_at = ?5, waits = NULL, expires_at = NULL WHERE n = ?6"
)
_MOVE: Final = (
    "UPDATE perdure_executions SET status = 'PENDING', wakes = ?1, held = NULL, wake_at = NULL, ready_at = ?2,"
    " changed_at = ?2, crashes = 0, waits = NULL, exit = NULL WHERE n = ?3"
)
_CAUSE: Final = "SELECT exit FROM perdure_executions WHERE n = ?"
_EXPIRED: Final = (
    "SELECT id, expires_at FROM perdure_executions WHERE expires_at IS NOT NULL AND expires_at <= ?"
    " ORDER BY expires_at LIMIT ?"
)
_SEEN_TO: Final = "UPDATE perdure_executions SET expires_at = NULL WHERE id = ?"
_HAS_UNTOLD: Final = (
    "SELECT (SELECT count(*) FROM perdure_mailbox WHERE incarnation = ?1 AND kind = 'interrupt')"
    " > (SELECT count(*) FROM perdure_journal WHERE incarnation = ?1 AND kind = 'interrupt')"
)
_ASKED: Final = (
    "SELECT 1 FROM perdure_mailbox WHERE incarnation = ?1 AND kind = 'interrupt'"
    " UNION ALL SELECT 1 FROM perdure_executions WHERE n = ?2 AND ?3 >= expires_at LIMIT 1"
)

# Who is held with one of these has failed, and ends with that; with any other it is in trouble.
_FAILURES: Final = frozenset({Held.FAILURE, Held.DEFECT})


def deliver(connection: Connection, mail: Sequence[Mail], now: Instant) -> list[Receipt]:
    """Store mail, and wake whom it reaches."""
    return [deliver_one(connection, one, now, now).receipt for one in mail]


def deliver_one(connection: Connection, mail: Mail, now: Instant, at: Instant) -> Delivered:
    """Store one letter, as of the instant `at`."""
    row = find(connection, key(mail.execution_id))
    if row is None:
        return Delivered(Receipt.UNKNOWN)
    if mail.kind == MailKind.INTERRUPT:
        return interrupt(connection, row, mail, now, at)
    return put(connection, row, mail, now, at)


def interrupt(connection: Connection, row: Standing, mail: Mail, now: Instant, at: Instant) -> Delivered:
    """Deliver a letter of the kind INTERRUPT."""
    if row.status == HELD:
        return _interrupt_held(connection, row, mail, now, at)
    if row.begun:
        return put(connection, row, mail, now, at)
    stored = store(connection, row, mail, at)
    if stored.new:
        _end(connection, row._replace(wakes=row.wakes + 1), interrupted_status(mail.exit), mail.exit, now)
        return STIRRED
    return stored


def interrupt_unsafe(connection: Connection, execution_id: ExecutionId, exit_: bytes, now: Instant) -> Receipt:
    """End an execution, whatever it does."""
    row = find(connection, key(execution_id))
    if row is None:
        return Receipt.UNKNOWN
    if row.status in FINAL:
        return Receipt.FINISHED
    _end(connection, row._replace(fence=row.fence + 1), Status.INTERRUPTED, exit_, now)
    return Receipt.STORED


def was_asked(connection: Connection, row: Standing, now: Instant) -> bool:
    """Whether an execution has been asked to end, or is about to be, since its deadline has passed."""
    return bool(select(connection, _ASKED, (row.incarnation, row.n, now)))


def expire(connection: Connection, exit_: bytes, limit: int, now: Instant) -> int:
    """Interrupt whose deadline has passed, the longest passed first."""
    expired = select(connection, _EXPIRED, (now, limit))
    if expired:
        reach("expire.before")
    for id_, deadline in expired:
        deliver_one(connection, Mail(id_.hex(), MailKind.INTERRUPT, DEADLINE_NAME, exit_), now, deadline)
        connection.execute(_SEEN_TO, (id_,))
    return len(expired)


def _interrupt_held(connection: Connection, row: Standing, mail: Mail, now: Instant, at: Instant) -> Delivered:
    if row.held == Held.COMPENSATION:
        # Its body has ended. Moved, it would make the failed step once more, as if somebody had resumed it (R28).
        return put(connection, row, mail, now, at)
    if row.held in _FAILURES:
        ((cause,),) = select(connection, _CAUSE, (row.n,))
        mail = mail if cause is None else mail._replace(exit=cause)
    stored = store(connection, row, mail, at)
    if stored.receipt is Receipt.IGNORED:
        if _has_untold(connection, row):
            connection.execute(_MOVE, (row.wakes, now, row.n))
            return Delivered(Receipt.IGNORED, stirs=True)
        stored = store(connection, row, mail._replace(name=hold_name(row.wakes + 1)), at)
    if stored.new:
        connection.execute(_MOVE, (row.wakes + 1, now, row.n))
        return STIRRED
    return stored


def _has_untold(connection: Connection, row: Standing) -> bool:
    """Whether its body has still to be told of an interrupt: a body that could not be run since then.

    That one is enough. Of all that have come meanwhile it would be told in one turn, and the second would cut off what it
    does about the first.
    """
    return bool(select(connection, _HAS_UNTOLD, (row.incarnation,))[0][0])


def _end(connection: Connection, row: Standing, status: Status, exit_: bytes, now: Instant) -> None:
    connection.execute(_END, (status, exit_, row.wakes, row.fence, now, row.n))
    if row.waiters:
        waiter.tell_end(connection, row.id, row.incarnation, exit_, now)
