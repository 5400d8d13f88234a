"""The triggers of the history see what is done behind the engine's back, each thing in the check that is for it."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import apsw
import pytest

from perdure._ids import new_incarnation
from perdure._model.journal import Entry, Kind
from perdure._model.records import Commit, Start, Worker
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore

from tests.crash.history import (
    Change,
    What,
    early_wakes,
    keep_history,
    miscounted_crashes,
    read_history,
    sign,
    strange_entries,
    touched_for_ever,
    wrong_owners,
)

SLEEPER, RUNNER = "0" * 32, "1" * 32
Check = Callable[[Sequence[Change]], Iterable[str]]


def owners(changes: Sequence[Change]) -> Iterable[str]:
    return wrong_owners(changes, {})


CHECKS: list[Check] = [owners, strange_entries, touched_for_ever, miscounted_crashes, early_wakes]


@pytest.fixture
def database(tmp_path, monkeypatch):
    """One execution that sleeps, one that its owner has in hand; both with an entry, written by whom it behoves."""
    path = tmp_path / "history.perdure"
    keep_history(path)
    monkeypatch.setattr(apsw, "connection_hooks", [sign])
    asyncio.run(_fill(SqliteStore(path)))
    return path


async def _fill(store: SqliteStore) -> None:
    await store.open()
    now = store.clock.now()
    await store.register(Worker(worker_id="w", host="h", pid=_own_pid(), workflows=("W",), started_at=now))
    await store.commit("w", [_commit(SLEEPER, Status.SUSPENDED, now), _commit(RUNNER, Status.RUNNING, now)])
    await store.close()


def _own_pid() -> int:
    connection = apsw.Connection(":memory:")
    sign(connection)
    return int(connection.execute("SELECT writer()").fetchall()[0][0])


def _commit(execution_id: str, status: Status, now: int) -> Commit:
    start = Start(execution_id=execution_id, incarnation=new_incarnation(now), workflow="W", payload=b"{}")
    start.began_at = now
    entry = Entry(1, Kind.TIMER_SET, "nap", 1, 0, b"", b"", now)
    wake_at = now + 60_000 if status is Status.SUSPENDED else None
    return Commit(execution_id, start.incarnation, 0, 0, status, start, [entry], wake_at=wake_at)


def history(database, statement: str = "", writer: int = 1) -> list[Change]:
    """What is written down after a statement of another process."""
    connection = apsw.Connection(str(database))
    connection.create_scalar_function("writer", lambda: writer, 0, flags=apsw.SQLITE_INNOCUOUS)
    connection.execute(statement)
    changes = read_history(connection)
    connection.close()
    return changes


def test_what_is_done_rightly_is_written_down_and_nobody_complains(database):
    """I10: an owner's entry leaves no trace, and one that comes with an ownerless birth is told from a stranger's."""
    changes = history(database)
    assert [(change.what, change.execution_id) for change in changes] == [
        (What.BORN, SLEEPER),
        (What.BORN, RUNNER),
        (What.STRANGE_ENTRY, SLEEPER),
    ]
    assert [complaint for check in CHECKS for complaint in check(changes)] == []


_SLEEPER_WAKES = (
    "UPDATE perdure_executions SET status = 'PENDING', wake_at = NULL, ready_at = 0, changed_at = wake_at - 1"
    " WHERE status = 'SUSPENDED'"
)


@pytest.mark.parametrize(
    ("statement", "checks"),
    [
        ("UPDATE perdure_executions SET fence = fence + 1", {owners}),
        ("UPDATE perdure_executions SET changed_at = 0 WHERE owner IS NOT NULL", {owners}),
        ("UPDATE perdure_executions SET crashes = 1 WHERE owner IS NULL", {miscounted_crashes}),
        ("DELETE FROM perdure_executions WHERE owner IS NULL", {touched_for_ever}),
        (_SLEEPER_WAKES, {early_wakes}),
        ("UPDATE perdure_workers SET retired_at = 1", {owners}),
        ("UPDATE perdure_journal SET at = at + 1", {touched_for_ever}),
        ("DELETE FROM perdure_journal", {touched_for_ever}),
        (
            "INSERT INTO perdure_journal SELECT incarnation, 2, 'timer', 'nap', 1, 0, x'', x'', 0"
            " FROM perdure_executions WHERE owner IS NOT NULL",
            {strange_entries},
        ),
        ("INSERT INTO perdure_journal VALUES (x'00', 1, 'timer', 'nap', 1, 0, x'', x'', 0)", {strange_entries}),
    ],
)
def test_what_is_done_wrongly_is_seen_by_the_check_that_is_for_it(database, statement, checks):
    """I2, I5, I10, I11, I16, I18."""
    changes = history(database, statement)
    assert {check for check in CHECKS if any(check(changes))} == checks


def test_a_connection_that_does_not_say_whose_it_is_cannot_write(database):
    """Or a worker of these tests could go unseen."""
    connection = apsw.Connection(str(database))
    # The fixture has every connection sign; this one takes it back.
    connection.create_scalar_function("writer", None, 0)
    with pytest.raises(apsw.SQLError, match="no such function: writer"):
        connection.execute("UPDATE perdure_executions SET fence = fence + 1")
    connection.close()
