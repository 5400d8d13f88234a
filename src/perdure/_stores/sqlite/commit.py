"""The hot path: what becomes of a batch of commits.

Whom the batch starts is born first, unless it is there already. Everything else is decided from the
rows as they stand when the transaction has the write lock; then the tables are written one after the
other: entries, mail-free changes of status. A commit that only appends reads its execution's row and
leaves it alone, so a step costs one row of the journal and nothing else.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, cast

from perdure._failpoints import reach
from perdure._model.records import Answer, Commit, ExecutionId, Start, Verdict, WorkerId
from perdure._model.status import FINAL, Status
from perdure._stores.sqlite import journal, life
from perdure._stores.sqlite.acts import Performance
from perdure._stores.sqlite.birth import Row, birth, detached, starting
from perdure._stores.sqlite.driver import Connection, flat, in_parts, select, values
from perdure._stores.sqlite.mail import Standing, find
from perdure._stores.sqlite.place import Places
from perdure._stores.sqlite.rows import HELD, NEVER
from perdure._values.instant import Instant

# n, incarnation, fence, owner, wakes, waiters; all None where there is no row.
Stand = tuple[int | None, bytes, int, int | None, int, int]

_WORKER: Final = "SELECT n FROM perdure_workers WHERE id = ? AND retired_at IS NULL"
# One row for each binding, found or not, so that the answers stand beside their commits.
_STAND: Final = (
    "SELECT e.n, e.incarnation, e.fence, e.owner, e.wakes, e.waiters"
    " FROM (SELECT ? AS id) asked LEFT JOIN perdure_executions e ON e.id = asked.id"
)
# Those alone that do not stand as their worker believes, which is hardly one. A row costs the way back to Python.
_DISTURBED: Final = (
    "SELECT asked.column1, e.n, e.incarnation, e.fence, e.owner, e.wakes, e.waiters FROM ({}) asked"
    " LEFT JOIN perdure_executions e ON e.n = asked.column2 AND e.id = asked.column3"
    " WHERE (e.incarnation = asked.column4 AND e.fence = asked.column5 AND e.owner = ? AND e.wakes = 0"
    " AND e.waiters = 0) IS NOT TRUE"
)
_ASKED: Final = "(?, ?, ?, ?, ?)"
# Two, because a column that an update names has its indexes looked at: nothing but an end concerns those of an end.
# FAIL for the reason that `journal` has.
_LEAVE: Final = (
    "UPDATE OR FAIL perdure_executions SET owner = NULL, status = new.column1, held = new.column2,"
    " wake_at = new.column3, ready_at = new.column4, changed_at = new.column5, crashes = iif(new.column6, 0, crashes),"
    " waits = new.column7, exit = new.column8 FROM ({}) new WHERE n = new.column9"
)
_LEAVING: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_END: Final = (
    "UPDATE OR FAIL perdure_executions SET owner = NULL, status = new.column1, wake_at = NULL,"
    " finished_at = new.column2, expires_at = NULL, changed_at = new.column2, crashes = iif(new.column3, 0, crashes),"
    " waits = NULL, exit = new.column4 FROM ({}) new WHERE n = new.column5"
)
_ENDING: Final = "(?, ?, ?, ?, ?)"
_CALM: Final = "UPDATE perdure_executions SET crashes = 0 WHERE n = ? AND crashes > 0"

# How an execution stands that there is not.
_NOWHERE: Final[Stand] = (None, b"", 0, None, 0, 0)

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


def commit(
    connection: Connection, worker_id: WorkerId, batch: Sequence[Commit], *, places: Places, now: Instant
) -> list[Answer]:
    """Write a batch, and answer each commit in its place."""
    alive = select(connection, _WORKER, (worker_id,))
    pending = Batch(connection, alive[0][0] if alive else None, now)
    stands = pending.take_in(batch, places)
    answers = [pending.judge(one, stand) for one, stand in zip(batch, stands, strict=True)]
    pending.write()
    if pending.acting:
        _act(connection, pending.acting, batch, answers, now)
    reach("commit.written")
    return answers


@cache
def _disturbed(count: int) -> str:
    return _DISTURBED.format(values(_ASKED, count))


@cache
def _leaving(count: int) -> str:
    return _LEAVE.format(values(_LEAVING, count))


@cache
def _ending(count: int) -> str:
    return _END.format(values(_ENDING, count))


def _act(
    connection: Connection,
    acting: Mapping[ExecutionId, bool],
    batch: Sequence[Commit],
    answers: list[Answer],
    now: Instant,
) -> None:
    """Do what the commits do to others, in the order of the batch, and say so in their answers."""
    for place, one in enumerate(batch):
        has_left = acting.get(one.execution_id)
        if has_left is None:
            continue
        performance = Performance(connection, one, now)
        answers[place] = performance.answer(answers[place], has_left=has_left)


class Batch:
    """Judges commits one by one, and gathers what they want written, table by table.

    Attributes:
        acting: Whose commits do something to others, each with whether it has left its owner.
    """

    __slots__ = (
        "_calm", "_connection", "_ending", "_entries", "_filled", "_leaving", "_me", "_now", "_restarts", "acting",
    )  # fmt: skip

    def __init__(self, connection: Connection, me: int | None, now: Instant) -> None:
        self._connection = connection
        self._me = me  # the worker's number; None when it has been retired
        self._now = now
        self._filled: list[Start] = []  # born with a mailbox
        self._restarts: list[tuple[Standing, Start]] = []
        self._entries: list[journal.EntryRow] = []
        self._leaving: list[Row] = []
        self._ending: list[Row] = []
        self._calm: list[Row] = []
        self.acting: dict[ExecutionId, bool] = {}

    def take_in(self, batch: Sequence[Commit], places: Places) -> list[Stand]:
        """Bear whom the batch starts; how the executions stood before that, in the batch's order."""
        stands: list[Stand] = [_NOWHERE] * len(batch)
        starts = [place for place, one in enumerate(batch) if one.start is not None]
        if starts:
            self._bear(batch, starts, stands, places)
        if len(starts) != len(batch):
            self._find(batch, stands, places)
        return stands

    def _bear(self, batch: Sequence[Commit], starts: list[int], stands: list[Stand], places: Places) -> None:
        """Bear whom nobody has born yet. Not looked for before: in a large index that would be a second way to its place."""
        rows = [self._birth(batch[place]) for place in starts if self._may_bear(batch[place])]
        before = self._connection.total_changes()
        for part in in_parts(rows):
            self._connection.execute(starting(len(part)), flat(part))
        born = self._connection.total_changes() - before
        # Rows of one transaction are numbered without gaps.
        first = self._connection.last_insert_rowid() - born + 1
        if born == len(starts):
            places.note(cast("list[bytes]", [row[0] for row in rows]), first)
            return
        ids = [bytes.fromhex(batch[place].execution_id) for place in starts]
        for place, stand in zip(starts, self._by_id(ids, places), strict=True):
            is_new = born and stand[0] is not None and stand[0] >= first
            if not is_new or stand[1] != batch[place].incarnation:
                stands[place] = stand

    def _find(self, batch: Sequence[Commit], stands: list[Stand], places: Places) -> None:
        """Look how those stand that are not being born: most of them as their worker believes."""
        asked: list[tuple[int, int, bytes, bytes, int]] = []
        others: list[int] = []
        me, guess, fromhex = self._me, places.guess, bytes.fromhex
        for place, one in enumerate(batch):
            if one.start is None:
                id_, incarnation, fence = fromhex(one.execution_id), one.incarnation, one.fence
                n = guess(id_)
                if n:
                    asked.append((place, n, id_, incarnation, fence))
                    stands[place] = (n, incarnation, fence, me, 0, 0)
                else:
                    others.append(place)
        for part in in_parts(asked):
            for place, *stand in self._connection.execute(_disturbed(len(part)), [*flat(part), me]).fetchall():
                if stand[0] is None:
                    others.append(place)
                else:
                    stands[place] = cast("Stand", tuple(stand))
        if others:
            ids = [bytes.fromhex(batch[place].execution_id) for place in others]
            for place, stand in zip(others, self._by_id(ids, places), strict=True):
                stands[place] = stand

    def _by_id(self, ids: Sequence[bytes], places: Places) -> list[Stand]:
        stands: list[Stand] = list(self._connection.executemany(_STAND, [(id_,) for id_ in ids]))
        for id_, (n, *_) in zip(ids, stands, strict=True):
            if n is not None:
                places.note([id_], n)
        return stands

    def judge(self, one: Commit, stand: Stand) -> Answer:
        """Decide what becomes of a commit, given how its execution stands."""
        n, incarnation, fence, owner, wakes, waiters = stand
        if one.start is not None:
            return self._judge_start(one, one.start, stand)
        # The fence alone would do, as a next life raises it; the incarnation costs nothing
        # and keeps entries out of another life's journal whatever is done to a row.
        if n is None or fence != one.fence or incarnation != one.incarnation:
            return _APPLIED if _has_gone_on(one, incarnation) else _LOST
        if owner is None:
            # My fence, and nobody's: only my own earlier try can have done that, because everyone
            # else who takes ownership away raises the fence.
            return _APPLIED
        if owner != self._me:
            return _LOST
        if one.held is not None and wakes > one.seen:
            # Its entries say that it is held, and from then on that somebody has resumed it.
            return Answer(Verdict.STAYS, wakes)
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
        if waiters or one.acts is not None:
            self.acting[one.execution_id] = True
        return Answer(_GRANTED, wakes)

    def write(self) -> None:
        """Write what has been gathered."""
        connection = self._connection
        for start in self._filled:
            life.fill(connection, start)
        for row, start in self._restarts:
            life.restart(connection, row, start, self._now)
        if self._entries:
            journal.write(connection, self._entries)
        for part in in_parts(self._leaving):
            connection.execute(_leaving(len(part)), flat(part))
        for part in in_parts(self._ending):
            connection.execute(_ending(len(part)), flat(part))
        if self._calm:
            connection.executemany(_CALM, self._calm)

    def _judge_start(self, one: Commit, start: Start, stand: Stand) -> Answer:
        n, incarnation, fence, owner, wakes, _ = stand
        if n is None:
            if not self._may_bear(one):
                return _LOST
            if start.letters:
                self._filled.append(start)
            self._append(one)
            return _STARTED
        if incarnation != start.incarnation:
            return self._judge_meeting(one, start)
        mine = owner is not None and owner == self._me and fence == 1
        if mine and one.acts is not None:
            self.acting[one.execution_id] = False  # for the receipts: of what was done it does nothing twice
        return Answer(Verdict.STARTED, wakes) if one.status in _UNOWNED or mine else _APPLIED

    def _judge_meeting(self, one: Commit, start: Start) -> Answer:
        """A start that meets another life than its own."""
        connection = self._connection
        row = find(connection, bytes.fromhex(one.execution_id))
        assert row is not None
        if life.has_begun_earlier(connection, row, start):
            return _APPLIED
        if not _is_detached(one, start) or not life.may_restart(connection, row, start):
            met = life.met(connection, row, start)
            return _JOINED if met is None else Answer(Verdict.JOINED, met=(met,))
        self._restarts.append((row, start))
        self._append(one)
        return Answer(Verdict.STARTED, row.wakes)

    def _append(self, one: Commit) -> None:
        if one.entries:
            incarnation = one.incarnation
            self._entries += [(incarnation, *entry) for entry in one.entries]
        if one.acts is not None:
            self.acting[one.execution_id] = one.start is not None and one.status is not _RUNNING

    def _leave(self, one: Commit, n: int) -> None:
        if one.status in FINAL:
            self._ending.append((one.status, self._now, one.calm, one.exit, n))
            return
        status, held, wake_at, ready_at, _, waits, exit_ = self._target(one)
        self._leaving.append((status, held, wake_at, ready_at, self._now, one.calm, waits, exit_, n))

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

    def _may_bear(self, one: Commit) -> bool:
        """Whether the execution may begin as it is asked to: in its worker's hands only if that one lives."""
        return self._me is not None or one.status in _UNOWNED

    def _birth(self, one: Commit) -> Row:
        start = one.start
        assert start is not None
        if _is_detached(one, start):
            # Nobody has begun it, whatever its start says, unless it brings a journal: its first claim will.
            return detached(start, self._now, start.began_at if one.entries else None)
        began_at = self._now if start.began_at is None else start.began_at
        if one.status is Status.RUNNING:
            owner, target = self._me, (Status.RUNNING, None, NEVER, None, None, None, None)
        else:
            owner, target = None, self._target(one)
        # Its body has had its first turn before this commit was made, and it was asked for before that.
        return birth(start, (1, owner, began_at), target, self._now, created_at=min(began_at, self._now))


def _is_detached(one: Commit, start: Start) -> bool:
    """Whether nobody has run the execution that is to be born."""
    return one.status is Status.PENDING or (one.status is Status.SUSPENDED and start.due_at is not None)


def _has_gone_on(one: Commit, incarnation: bytes | None) -> bool:
    """Whether a commit that asks for a next life finds it there: from an earlier try."""
    return one.acts is not None and one.acts.next is not None and one.acts.next.incarnation == incarnation
