"""Statements that are asked all the time find their rows by an index, however many have finished."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure._model.records import Commit, Query, Start
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore, claim, commit, listing, mail, timer
from perdure._stores.sqlite import worker as worker_
from perdure._stores.sqlite.driver import Connection, select

from tests.unit.stores.actor import worker

FINISHED = 3_000

# Each statement, and what its plan may consist of.
PLANS = {
    "claim.ready": (claim._READY, ["perdure_executions_ready (workflow=? AND begun=?)"]),
    "claim.claim": (claim._CLAIM, ["INTEGER PRIMARY KEY (rowid=?)"]),
    "claim.owned": (claim._OWNED, ["(id=?)", "perdure_executions_wake (owner=?"]),
    "claim.give_back": (claim._GIVE_BACK, ["(id=?)", "(id=?)", "SCALAR SUBQUERY"]),
    "commit.stand": (commit._STAND, ["(id=?)", "CONSTANT ROW", "asked"]),
    "commit.leave": (commit._LEAVE, ["INTEGER PRIMARY KEY (rowid=?)"]),
    "timer.promote": (
        timer._PROMOTE,
        ["perdure_executions_wake (owner=? AND wake_at<?)", "rowid=?", "LIST SUBQUERY"],
    ),
    "timer.is_due": (timer._IS_DUE, ["perdure_executions_wake (owner=? AND wake_at<?)"]),
    "timer.next_wake": (timer._NEXT_WAKE, ["perdure_executions_wake (owner=?"]),
    "timer.resume": (timer._RESUME, ["(id=?)"]),
    "mail.mail_for": (mail._MAIL_FOR, ["(id=?)", "perdure_executions_wake (owner=? AND wake_at<?)"]),
    "mail.all_mail_for": (mail._ALL_MAIL_FOR, ["(id=?)", "perdure_executions_wake (owner=?"]),
    "mail.stand": (mail._STAND, ["(id=?)"]),
    "mail.entries": (mail._ENTRIES, ["PRIMARY KEY (incarnation=? AND seq>?)"]),
    # Sorted by number: a mailbox holds a handful.
    "mail.letters": (mail._LETTERS, ["PRIMARY KEY (incarnation=?)", "TEMP B-TREE FOR ORDER BY"]),
    "worker.free": (worker_._FREE, ["perdure_executions_wake (owner=?"]),
    "listing.read": (listing._READ, ["(id=?)", "SCALAR SUBQUERY", "rowid=?"]),
    "listing.next_workflow": (listing._NEXT_WORKFLOW, ["perdure_executions_list (workflow>?)"]),
}


@pytest.fixture(scope="module", params=["without statistics", "with statistics"])
def store(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[SqliteStore]:
    runner = asyncio.Runner()
    path: Path = tmp_path_factory.mktemp("plan") / "orders.perdure"
    store = SqliteStore(path)
    runner.run(store.open())
    runner.run(store.register(worker("w1")))
    batch = [
        Commit(start.execution_id, start.incarnation, 1, 0, Status.SUCCEEDED, start=start, exit=b"{}")
        for start in (
            Start(
                execution_id=os.urandom(16).hex(), incarnation=os.urandom(16), workflow=f"W{n % 5}", payload=b"{}" * 50
            )
            for n in range(FINISHED)
        )
    ]
    runner.run(store.commit("w1", batch))
    if request.param == "with statistics":
        # An operator may run ANALYZE; it sees a table with hardly anything pending, which is normal.
        runner.run(store._write(lambda connection: connection.execute("ANALYZE")))
        runner.run(store.close())
        runner.run(store.open())
    yield store
    runner.run(store.close())
    runner.close()


def plan(store: SqliteStore, sql: str) -> list[str]:
    """The plan of a statement, as the store's own connection makes it."""

    def explain(connection: Connection) -> list[str]:
        return [row[3] for row in select(connection, f"EXPLAIN QUERY PLAN {sql}", [None] * count(sql))]

    # The lane has a thread of its own: any loop may wait for it.
    return asyncio.run(store._write(explain))


def count(sql: str) -> int:
    """How many parameters a statement has."""
    numbered = [number for number in range(1, 10) if f"?{number}" in sql]
    return max(numbered) if numbered else sql.count("?")


@pytest.mark.parametrize("name", PLANS)
def test_no_statement_scans_or_sorts(store: SqliteStore, name: str) -> None:
    sql, parts = PLANS[name]
    steps = plan(store, sql)
    assert [step for step in steps if not any(part in step for part in parts)] == []
    for part in parts:
        assert any(part in step for step in steps), (part, steps)
    assert not any("SCAN perdure" in step for step in steps)


@pytest.mark.parametrize("query", [Query(), Query(after=(5, "ab" * 16)), Query(since=3), Query(status=Status.FAILED)])
def test_a_page_of_a_listing_is_read_in_the_order_of_its_index(store: SqliteStore, query: Query) -> None:
    sql, _ = listing._page_sql(query, "W1")
    steps = plan(store, sql)
    assert "SEARCH perdure_executions USING INDEX perdure_executions_list (workflow=?" in steps[0]
    assert not any("TEMP B-TREE" in step or "SCAN" in step for step in steps)
