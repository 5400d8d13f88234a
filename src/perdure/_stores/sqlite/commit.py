"""The hot path: what becomes of a batch of commits.

Everything is decided from the rows as they stand when the transaction has the write lock; then
the tables are written one after the other: births, detached births, entries, mail-free changes
of status. A commit that only appends reads its execution's row and leaves it alone, so a step
costs one row of the journal and nothing else.
"""

from collections.abc import Sequence
from typing import Final

from perdure._failpoints import reach
from perdure._model.records import Answer, Commit, Start, Verdict, WorkerId
from perdure._model.status import FINAL, Status
from perdure._stores.sqlite.driver import Connection, Value, select
from perdure._stores.sqlite.rows import HELD, NEVER, write_attributes
from perdure._values.instant import Instant
from perdure.errors import StoreRefusedError

Row = tuple[Value, ...]
EntryRow = tuple[bytes, *tuple[int | str | bytes, ...]]  # the incarnation, and an `Entry`

_WORKER: Final = "SELECT n FROM perdure_workers WHERE id = ? AND retired_at IS NULL"
# One row for each binding, found or not, so that the answers stand beside their commits.
_STAND: Final = (
    "SELECT e.n, e.incarnation, e.fence, e.owner, e.wakes"
    " FROM (SELECT ? AS id) asked LEFT JOIN perdure_executions e ON e.id = asked.id"
)
_START: Final = (
    "INSERT INTO perdure_executions(id, incarnation, fence, owner, status, held, wake_at, ready_at, number, workflow,"
    " key, priority, version, parent, created_at, began_at, finished_at, changed_at, attributes, waits, payload, exit)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_START_DETACHED: Final = _START + " ON CONFLICT (id) DO NOTHING"
_ENTRY: Final = "INSERT INTO perdure_journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WRITTEN: Final = "SELECT * FROM perdure_journal WHERE incarnation = ? AND seq = ?"
_LEAVE: Final = (
    "UPDATE perdure_executions SET owner = NULL, status = ?, held = ?, wake_at = ?, ready_at = ?, finished_at = ?,"
    " changed_at = ?, crashes = iif(?, 0, crashes), waits = ?, exit = ? WHERE n = ?"
)
_CALM: Final = "UPDATE perdure_executions SET crashes = 0 WHERE n = ? AND crashes > 0"

_LOST: Final = Answer(Verdict.LOST)
_JOINED: Final = Answer(Verdict.JOINED)
_APPLIED: Final = Answer(Verdict.APPLIED)
_STARTED: Final = Answer(Verdict.STARTED)
_UNDISTURBED: Final = Answer(Verdict.GRANTED)

# Looked up in the class, a member of an enumeration costs as much as a call.
_RUNNING: Final = Status.RUNNING
_GRANTED: Final = Verdict.GRANTED

# Born like this, an execution has no owner, and whoever starts it need not be a worker.
_UNOWNED: Final = frozenset({Status.PENDING, Status.SUSPENDED})


def commit(connection: Connection, worker_id: WorkerId, batch: Sequence[Commit], now: Instant) -> list[Answer]:
    """Write a batch, and answer each commit in its place."""
    alive = select(connection, _WORKER, (worker_id,))
    pending = Batch(alive[0][0] if alive else None, now)
    stands = connection.executemany(_STAND, [(bytes.fromhex(one.execution_id),) for one in batch])
    answers = [pending.judge(one, stand) for one, stand in zip(batch, stands, strict=True)]
    pending.write(connection)
    reach("commit.written")
    return answers


class Batch:
    """Judges commits one by one, and gathers what they want written, table by table."""

    __slots__ = ("_births", "_calm", "_detached", "_entries", "_leaving", "_me", "_now")

    def __init__(self, me: int | None, now: Instant) -> None:
        self._me = me  # the worker's number; None when it has been retired
        self._now = now
        self._births: list[Row] = []
        self._detached: list[Row] = []
        self._entries: list[EntryRow] = []
        self._leaving: list[Row] = []
        self._calm: list[Row] = []

    def judge(self, one: Commit, stand: tuple[int | None, bytes, int, int | None, int]) -> Answer:
        """Decide what becomes of a commit, given how its execution stands."""
        n, incarnation, fence, owner, wakes = stand
        if one.start is not None:
            return self._judge_start(one, one.start, None if n is None else incarnation, fence, owner)
        # The fence alone would do, as long as a restart raises it; the incarnation costs nothing
        # and keeps entries out of another life's journal whatever a restart does.
        if n is None or fence != one.fence or incarnation != one.incarnation:
            return _LOST
        if owner is None:
            # My fence, and nobody's: only my own earlier try can have done that, because everyone
            # else who takes ownership away raises the fence.
            return _APPLIED
        if owner != self._me:
            return _LOST
        self._append(one)
        status = one.status
        if status is _RUNNING:
            if one.calm:
                self._calm.append((n,))
            return Answer(_GRANTED, wakes) if wakes else _UNDISTURBED
        if wakes > one.seen and status is not Status.PENDING:
            # Mail has come that the kernel has not been fed. To leave now would lose the wake.
            if one.calm:
                self._calm.append((n,))
            return Answer(Verdict.STAYS, wakes)
        self._leave(one, n)
        return Answer(_GRANTED, wakes)

    def write(self, connection: Connection) -> None:
        """Write what has been gathered."""
        if self._births:
            connection.executemany(_START, self._births)
        if self._detached:
            connection.executemany(_START_DETACHED, self._detached)
        if self._entries:
            self._write_entries(connection)
        if self._leaving:
            connection.executemany(_LEAVE, self._leaving)
        if self._calm:
            connection.executemany(_CALM, self._calm)

    def _judge_start(
        self, one: Commit, start: Start, incarnation: bytes | None, fence: int, owner: int | None
    ) -> Answer:
        unowned = one.status in _UNOWNED
        if incarnation is None:
            if not unowned and self._me is None:
                return _LOST
            self._births.append(self._birth(one, start))
            self._append(one)
            return _STARTED
        if incarnation != start.incarnation:
            return _JOINED
        mine = owner is not None and owner == self._me and fence == 1
        return _STARTED if unowned or mine else _APPLIED

    def _append(self, one: Commit) -> None:
        if one.entries:
            incarnation = one.incarnation
            self._entries += [(incarnation, *entry) for entry in one.entries]
        if one.starts:
            self._detached += [self._birth_detached(start) for start in one.starts]

    def _leave(self, one: Commit, n: int) -> None:
        status, held, wake_at, ready_at, finished_at, waits, exit_ = self._target(one)
        self._leaving.append((status, held, wake_at, ready_at, finished_at, self._now, one.calm, waits, exit_, n))

    def _target(self, one: Commit) -> Row:
        """What the columns of an execution are that leaves its owner: from `status` to `exit`."""
        status = one.status
        if status in FINAL:
            return status, None, None, None, self._now, None, one.exit
        if status is Status.PENDING:
            return status, None, None, self._now, None, None, None
        if one.held is not None:
            # Nothing but `resume` moves it, so no timer may: it is never due.
            return HELD, one.held, NEVER, None, None, one.waits, one.exit
        return status, None, NEVER if one.wake_at is None else one.wake_at, None, None, one.waits, None

    def _birth(self, one: Commit, start: Start) -> Row:
        if one.status is Status.PENDING or (one.status is Status.SUSPENDED and start.due_at is not None):
            return self._birth_detached(start)
        began_at = self._now if start.began_at is None else start.began_at
        if one.status is Status.RUNNING:
            return self._row(start, self._me, (Status.RUNNING, None, NEVER, None, None, None, None), began_at)
        return self._row(start, None, self._target(one), began_at)

    def _birth_detached(self, start: Start) -> Row:
        # Nobody has begun it, whatever its start says: its first claim will.
        if start.due_at is None:
            return self._row(start, None, (Status.PENDING, None, None, self._now, None, None, None), None)
        return self._row(start, None, (Status.SUSPENDED, None, start.due_at, None, None, None, None), None)

    def _row(self, start: Start, owner: int | None, target: Row, began_at: Instant | None) -> Row:
        status, held, wake_at, ready_at, finished_at, waits, exit_ = target
        return (
            bytes.fromhex(start.execution_id),
            start.incarnation,
            # 0: the first claim makes it 1, which is what a birth in a worker's hands has.
            0 if began_at is None else 1,
            owner,
            status,
            held,
            wake_at,
            ready_at,
            start.number,
            start.workflow,
            start.key,
            start.priority,
            start.version,
            None if start.parent is None else bytes.fromhex(start.parent),
            self._now,
            began_at,
            finished_at,
            self._now,
            write_attributes(start.attributes),
            waits,
            start.payload,
            exit_,
        )

    def _write_entries(self, connection: Connection) -> None:
        before = connection.total_changes()
        connection.executemany(_ENTRY, self._entries)
        if connection.total_changes() - before == len(self._entries):
            return
        # Some were there. A repeat says the same words; anything else is two turns that claim one
        # place in the journal, which must never be settled by who came first.
        for entry in self._entries:
            if select(connection, _WRITTEN, entry[:2]) != [entry]:
                raise StoreRefusedError(
                    f"Entry {entry[1]} of the journal {entry[0].hex()} is there already, with other content."
                    " Two turns have been committed under one fence: this is a defect of perdure. Nothing was written."
                )
