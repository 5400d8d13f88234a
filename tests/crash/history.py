"""The history: every change of every execution, written down by triggers that only a test installs, and by whom.

A snapshot shows what stands; what was wrong for a moment between two of them it cannot show. The triggers know
nothing of the engine: they lie in the file, and write within the very transaction that they tell of, so a history
survives a kill exactly as far as what it tells does. Who writes they ask the connection, by a function that each
worker of these tests gives to its connections (`sign`).
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import apsw

from perdure._stores.sqlite import SqliteStore

FINAL = frozenset({"SUCCEEDED", "FAILED", "INTERRUPTED"})
NEVER = 2**62
# So many crashes in a row convict an execution (R41).
CONVICTED_AFTER = 5


class What(StrEnum):
    """What a change is."""

    BORN = "born"
    MOVED = "moved"
    ERASED = "erased"
    # An entry written by a process that did not own the execution at that moment. Entries of owners leave no trace
    # here: the engine counts the rows that it writes, and a trigger's would lead it off its usual path.
    STRANGE_ENTRY = "strange entry"
    ENTRY_MOVED = "entry moved"
    ENTRY_ERASED = "entry erased"
    RETIRED = "retired"


class Row(NamedTuple):
    """An execution's row at one moment."""

    status: str
    owner: int | None  # a pid
    fence: int
    crashes: int
    held: str | None
    wake_at: int | None
    changed_at: int
    exit: str | None


class Change(NamedTuple):
    """One change, in the order of the transactions."""

    writer: int  # a pid
    what: What
    execution_id: str = ""
    before: Row | None = None
    after: Row | None = None
    worker: int | None = None  # who was retired, a pid
    at: int = 0  # when it was retired


# Filling it -----------------------------------------------------------------------------------------------------------

_ROW = (
    "json_array({0}.status, (SELECT pid FROM perdure_workers WHERE n = {0}.owner), {0}.fence, {0}.crashes, {0}.held,"
    " {0}.wake_at, {0}.changed_at, CAST({0}.exit AS TEXT))"
)
_OLD, _NEW, _ITS = (_ROW.format(name) for name in ("OLD", "NEW", "e"))
_INSTALL = f"""
CREATE TABLE test_history(
  n INTEGER PRIMARY KEY, writer INTEGER NOT NULL, what TEXT NOT NULL, id BLOB, before TEXT, after TEXT, worker INTEGER,
  at INTEGER
);
CREATE INDEX test_executions_incarnation ON perdure_executions(incarnation);
CREATE TRIGGER test_born AFTER INSERT ON perdure_executions BEGIN
  INSERT INTO test_history(writer, what, id, after) VALUES (writer(), 'born', NEW.id, {_NEW});
END;
CREATE TRIGGER test_moved AFTER UPDATE ON perdure_executions BEGIN
  INSERT INTO test_history(writer, what, id, before, after) VALUES (writer(), 'moved', NEW.id, {_OLD}, {_NEW});
END;
CREATE TRIGGER test_erased AFTER DELETE ON perdure_executions BEGIN
  INSERT INTO test_history(writer, what, id, before) VALUES (writer(), 'erased', OLD.id, {_OLD});
END;
CREATE TRIGGER test_strange_entry AFTER INSERT ON perdure_journal
WHEN writer() IS NOT (
  SELECT w.pid FROM perdure_executions e JOIN perdure_workers w ON w.n = e.owner WHERE e.incarnation = NEW.incarnation
) BEGIN
  INSERT INTO test_history(writer, what, id, after)
  SELECT writer(), 'strange entry', e.id, {_ITS} FROM (SELECT 1) LEFT JOIN perdure_executions e
  ON e.incarnation = NEW.incarnation;
END;
CREATE TRIGGER test_entry_moved AFTER UPDATE ON perdure_journal BEGIN
  INSERT INTO test_history(writer, what, id)
  VALUES (writer(), 'entry moved', (SELECT id FROM perdure_executions WHERE incarnation = OLD.incarnation));
END;
CREATE TRIGGER test_entry_erased AFTER DELETE ON perdure_journal BEGIN
  INSERT INTO test_history(writer, what, id)
  VALUES (writer(), 'entry erased', (SELECT id FROM perdure_executions WHERE incarnation = OLD.incarnation));
END;
CREATE TRIGGER test_retired AFTER UPDATE OF retired_at ON perdure_workers BEGIN
  INSERT INTO test_history(writer, what, worker, at) VALUES (writer(), 'retired', NEW.pid, NEW.retired_at);
END;
"""


def sign(connection: apsw.Connection) -> None:
    """Let a connection say whose it is. A hook of apsw, which calls it for each new connection of a process."""
    connection.create_scalar_function("writer", os.getpid, 0, flags=apsw.SQLITE_INNOCUOUS)


def keep_history(database: Path) -> None:
    """Make a database whose history is written down."""

    async def make() -> None:
        store = SqliteStore(database)
        await store.open()
        await store.close()

    asyncio.run(make())
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.execute(_INSTALL)
    connection.close()


def read_history(connection: apsw.Connection) -> list[Change]:
    """The changes so far; none where nobody keeps a history."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'test_history'").fetchall():
        return []
    rows = connection.execute("SELECT writer, what, id, before, after, worker, at FROM test_history ORDER BY n")
    return [
        Change(writer, What(what), (id_ or b"").hex(), _row(before), _row(after), worker, at or 0)
        for writer, what, id_, before, after, worker, at in rows
    ]


def _row(text: str | None) -> Row | None:
    return None if text is None else Row(*json.loads(text))


# What it must show ------------------------------------------------------------------------------------------------------

Killed = Mapping[int, int]  # pids, and when each was killed


def wrong_owners(changes: Sequence[Change], killed: Killed) -> Iterator[str]:
    """I10, I11: claimed from nobody, with a fence of its own; left by its owner, or taken from the dead; nothing else."""
    for change in changes:
        right = True
        if change.what is What.BORN:
            right = _is_right_birth(change)
        elif change.what is What.MOVED:
            right = _is_right_move(change, killed)
        elif change.what is What.RETIRED:
            right = change.worker == change.writer or _was_dead(change.worker, change.at, killed)
        if not right:
            yield f"{change} is no way to come by an execution, or to lose it"
    for worker, times in Counter(change.worker for change in changes if change.what is What.RETIRED).items():
        if times > 1:
            yield f"worker {worker} was retired {times} times"


def _is_right_birth(change: Change) -> bool:
    assert change.after is not None
    if change.after.owner is None:
        return change.after.fence in {0, 1}
    return change.after.owner == change.writer and change.after.fence == 1


def _is_right_move(change: Change, killed: Killed) -> bool:
    before, after, writer = change.before, change.after, change.writer
    assert before is not None
    assert after is not None
    grown = after.fence - before.fence
    if before.owner == after.owner:
        return grown == 0 and before.owner in {None, writer}
    if before.owner is None:
        return grown == 1 and after.owner == writer and before.status == "PENDING"
    if after.owner is not None:
        return False
    if before.owner == writer:
        return grown == 0 or (grown == 1 and after.status == "PENDING")
    return grown == 1 and after.status == "PENDING" and _was_dead(before.owner, after.changed_at, killed)


def _was_dead(pid: int | None, at: int, killed: Killed) -> bool:
    return pid in killed and at >= killed[pid]


def strange_entries(changes: Sequence[Change]) -> Iterator[str]:
    """I10: only its owner writes into a journal; or who lets it be born without one, in the same breath."""
    last: dict[str, Change] = {}
    for change in changes:
        if change.what is What.STRANGE_ENTRY:
            birth = last.get(change.execution_id)
            if birth is None or birth.what is not What.BORN or birth.writer != change.writer or _owner(birth):
                yield f"{change.writer} has written into the journal of {change.execution_id}, which it did not own"
        else:
            last[change.execution_id] = change


def _owner(change: Change) -> int | None:
    return change.after.owner if change.after is not None else None


def touched_for_ever(changes: Sequence[Change]) -> Iterator[str]:
    """I2, I3, I5: born once; nothing written is changed or taken back; what has ended stays as it is."""
    born: set[str] = set()
    for change in changes:
        if change.what is What.BORN:
            if change.execution_id in born:
                yield f"{change.execution_id} was born twice"
            born.add(change.execution_id)
        elif change.what in {What.ERASED, What.ENTRY_MOVED, What.ENTRY_ERASED}:
            yield f"{change.execution_id}: {change.what} by {change.writer}"
        elif change.before is not None and change.before.status in FINAL:
            yield f"{change.execution_id} had ended, and has changed: {change}"


def miscounted_crashes(changes: Sequence[Change]) -> Iterator[str]:
    """I18, R41: one crash for each take-over and for nothing else; held after five in a row, and not before."""
    in_a_row: Counter[str] = Counter()
    for change in changes:
        before, after = change.before, change.after
        if before is None or after is None:
            continue
        taken_over = before.owner not in {None, change.writer} and after.owner is None
        if taken_over:
            in_a_row[change.execution_id] += 1
        if after.crashes not in ({before.crashes + 1} if taken_over else {0, before.crashes}):
            yield f"{change.execution_id} had {before.crashes} crashes, and has {after.crashes}: {change}"
        if after.held == "CRASHES":
            if in_a_row[change.execution_id] < CONVICTED_AFTER:
                yield f"{change.execution_id} is held after {in_a_row[change.execution_id]} crashes"
            in_a_row[change.execution_id] = 0


def early_wakes(changes: Sequence[Change]) -> Iterator[str]:
    """I16: nobody is woken before the time for which it was suspended. There is no mail in these tests."""
    for change in changes:
        before, after = change.before, change.after
        if before is None or after is None or (before.status, after.status) != ("SUSPENDED", "PENDING"):
            continue
        if before.wake_at is None or after.changed_at < before.wake_at:
            yield f"{change.execution_id} was woken at {after.changed_at}, and is due at {before.wake_at}"
