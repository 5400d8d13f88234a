"""Every statement of the store finds its rows by an index, however many executions have finished.

The list below is the whole of it: a statement that is not in it fails a test, so that whoever writes one says how it
finds its rows.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure._model.records import Commit, Query, Start
from perdure._model.status import Held, Status, is_final
from perdure._stores.sqlite import (
    SqliteStore,
    acts,
    adopt,
    birth,
    claim,
    commit,
    interrupt,
    journal,
    life,
    listing,
    mail,
    purge,
    tail,
    timer,
    waiter,
)
from perdure._stores.sqlite import worker as worker_
from perdure._stores.sqlite.driver import Connection, select

from tests.conftest import Run
from tests.unit.stores.actor import worker

FINISHED = 3_000

# What has statements, and is looked through for them.
MODULES = (
    acts, adopt, birth, claim, commit, interrupt, journal, life, listing, mail, purge, tail, timer, waiter, worker_,
)  # fmt: skip

ROW = "INTEGER PRIMARY KEY (rowid=?)"

# Each statement, and what its plan consists of; an insert of values has none.
PLANS = {
    "worker.register": (worker_._REGISTER, []),
    "worker.alive": (worker_._ALIVE, ["perdure_workers_1 (id=?)"]),
    "worker.others": (worker_._OTHERS, ["SCAN perdure_workers USING INDEX perdure_workers_alive"]),
    "worker.retire": (worker_._RETIRE, ["(id=?)"]),
    # All that have ever been, for whoever wants to see them.
    "worker.workers": (worker_._WORKERS, ["SCAN perdure_workers"]),
    "claim.worker": (claim._WORKER, ["perdure_workers_1 (id=?)"]),
    "commit.worker": (commit._WORKER, ["perdure_workers_1 (id=?)"]),
    "commit.calm": (commit._CALM, [ROW]),
    "mail.store": (mail._STORE, []),
    "mail.keep": (mail._KEEP, [ROW]),
    "mail.wake": (mail._WAKE, [ROW]),
    "mail.tell_owner": (mail._TELL_OWNER, [ROW]),
    "mail.told": (mail._TOLD, [ROW]),
    "listing.first_workflow": (listing._FIRST_WORKFLOW, ["SEARCH perdure_executions USING COVERING INDEX"]),
    "listing.save_heartbeat": (listing._SAVE_HEARTBEAT, []),
    "listing.heartbeat": (listing._HEARTBEAT, ["PRIMARY KEY (incarnation=? AND name=? AND occurrence=?)"]),
    "claim.any": (claim._ANY, ["perdure_executions_ready (workflow>?)"]),
    "claim.ready": (claim._READY, ["perdure_executions_ready (workflow=? AND begun=?)"]),
    "claim.claim": (claim._CLAIM, [ROW]),
    "claim.owned": (claim._OWNED, ["(id=?)", "perdure_executions_wake (owner=?"]),
    "claim.give_back": (claim._GIVE_BACK, ["(id=?)", "(id=?)", "SCALAR SUBQUERY"]),
    "commit.stand": (commit._STAND, ["(id=?)", "CONSTANT ROW", "asked"]),
    "commit.disturbed": (commit._disturbed(2), ["2-ROW VALUES", ROW]),
    "commit.leave": (commit._leaving(2), ["2-ROW VALUES", ROW]),
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
    "mail.letters": (mail._LETTERS, ["perdure_mailbox_wake (incarnation=? AND wake>?)"]),
    "worker.free": (worker_._FREE, ["perdure_executions_wake (owner=?"]),
    "listing.read": (listing._READ, ["(id=?)", "SCALAR SUBQUERY", "rowid=?"]),
    "listing.read_at": (listing._READ_AT, [ROW, "SCALAR SUBQUERY", "rowid=?"]),
    "birth.start": (birth.starting(2), ["2-ROW VALUES"]),
    "commit.end": (commit._ending(2), ["2-ROW VALUES", ROW]),
    "journal.write": (journal._writing(2), ["2-ROW VALUES"]),
    "journal.written": (journal._WRITTEN, ["PRIMARY KEY (incarnation=? AND seq=?)"]),
    "journal.read": (journal._READ, ["PRIMARY KEY (incarnation=? AND seq>?)"]),
    "acts.exit": (acts._EXIT, [ROW]),
    "life.payload": (life._PAYLOAD, [ROW]),
    "acts.attributes": (acts._ATTRIBUTES, [ROW]),
    "acts.set_attributes": (acts._SET_ATTRIBUTES, [ROW]),
    "adopt.set_back": (adopt._SET_BACK, ["(id=?)"]),
    "adopt.letter": (adopt._LETTER, []),
    "interrupt.end": (interrupt._END, [ROW]),
    "interrupt.move": (interrupt._MOVE, [ROW]),
    "interrupt.cause": (interrupt._CAUSE, [ROW]),
    "interrupt.expired": (interrupt._EXPIRED, ["perdure_executions_expires (expires_at>? AND expires_at<?)"]),
    "interrupt.seen_to": (interrupt._SEEN_TO, ["(id=?)"]),
    # The whole journal of a life, when a held one is interrupted that has been interrupted before.
    "interrupt.has_untold": (
        interrupt._HAS_UNTOLD,
        [
            "CONSTANT ROW",
            "SUBQUERY",
            "PRIMARY KEY (incarnation=? AND kind=?)",
            "SUBQUERY",
            "PRIMARY KEY (incarnation=?)",
        ],
    ),
    "interrupt.asked": (
        interrupt._ASKED,
        ["COMPOUND QUERY", "LEFT-MOST SUBQUERY", "PRIMARY KEY (incarnation=? AND kind=?)", "UNION ALL", ROW],
    ),
    "life.put_aside": (life._PUT_ASIDE, [ROW, "SCALAR SUBQUERY", "PRIMARY KEY (execution_id=?)"]),
    "life.begin": (life._BEGIN, [ROW]),
    "life.ask_anew": (life._ASK_ANEW, [ROW]),
    # The whole mailbox of a life, once in its time.
    "life.hand_over": (life._HAND_OVER, ["PRIMARY KEY (incarnation=?)"]),
    "life.keep": (life._KEEP, ["PRIMARY KEY (incarnation=? AND kind=? AND name=?)"]),
    "life.hand_over_waiters": (life._HAND_OVER_WAITERS, ["PRIMARY KEY (incarnation=? AND kind=?)"]),
    "life.fill": (life._FILL, []),
    # All lives of one execution; that it was begun with is the first of them.
    "life.begun_with": (life._BEGUN_WITH, ["PRIMARY KEY (execution_id=?)"]),
    "life.count_filled": (life._COUNT_FILLED, ["(id=?)"]),
    "life.lived": (life._LIVED, ["PRIMARY KEY (execution_id=?)"]),
    "life.lives": (life._LIVES, ["PRIMARY KEY (execution_id=?)"]),
    "listing.publish": (listing._PUBLISH, []),
    "listing.published": (listing._PUBLISHED, ["(id=?)", "PRIMARY KEY (incarnation=?)"]),
    "mail.sent": (mail._SENT, ["PRIMARY KEY (incarnation=? AND kind=? AND name>? AND name<?)"]),
    # The whole journal of a life, when a completion for an earlier one comes to it.
    "mail.given_out": (mail._GIVEN_OUT, [ROW, "PRIMARY KEY (incarnation=?)"]),
    "mail.came_before": (
        mail._CAME_BEFORE,
        ["PRIMARY KEY (execution_id=? AND number>?)", "PRIMARY KEY (incarnation=? AND kind=? AND name=?)"],
    ),
    "mail.sent_before": (
        mail._SENT_BEFORE,
        [
            "PRIMARY KEY (execution_id=? AND number>?)",
            "PRIMARY KEY (incarnation=? AND kind=? AND name>? AND name<?)",
        ],
    ),
    "purge.old": (purge._OLD, ["perdure_executions_finished (workflow=? AND finished_at>? AND finished_at<?)"]),
    "purge.next_workflow": (purge._NEXT_WORKFLOW, ["perdure_executions_finished (workflow>?)"]),
    "purge.old_lives": (purge._OLD_LIVES, ["perdure_lives_aside (aside_at<?)", "(id=?)"]),
    "purge.forget_life": (purge._FORGET_LIFE, ["PRIMARY KEY (execution_id=? AND number=?)"]),
    "purge.lives": (purge._LIVES, ["PRIMARY KEY (execution_id=?)"]),
    "purge.forget_journal": (purge._FORGET_JOURNAL, ["PRIMARY KEY (incarnation=?)"]),
    "purge.forget_mailbox": (purge._FORGET_MAILBOX, ["PRIMARY KEY (incarnation=?)"]),
    "purge.forget_heartbeats": (purge._FORGET_HEARTBEATS, ["PRIMARY KEY (incarnation=?)"]),
    "purge.forget_published": (purge._FORGET_PUBLISHED, ["PRIMARY KEY (incarnation=?)"]),
    "purge.forget_lives": (purge._FORGET_LIVES, ["PRIMARY KEY (execution_id=?)"]),
    "purge.forget": (purge._FORGET, [ROW]),
    # All that have ever been, once in a while.
    "purge.forget_workers": (purge._FORGET_WORKERS, ["SCAN perdure_workers"]),
    "tail.entries": (tail._ENTRIES, ["PRIMARY KEY (incarnation=?)"]),
    "tail.letters": (tail._LETTERS, ["perdure_mailbox_wake (incarnation=? AND wake>?)"]),
    "timer.next_deadline": (timer._NEXT_DEADLINE, ["perdure_executions_expires"]),
    "waiter.join": (waiter._JOIN, []),
    "waiter.leave": (waiter._LEAVE, ["PRIMARY KEY (incarnation=? AND kind=? AND name=?)"]),
    "waiter.rename": (waiter._RENAME, ["PRIMARY KEY (incarnation=? AND kind=? AND name=?)"]),
    "waiter.erase_left": (waiter._ERASE_LEFT, ["PRIMARY KEY (incarnation=? AND kind=? AND name=?)"]),
    "waiter.count": (waiter._COUNT, [ROW]),
    "waiter.named": (waiter._NAMED, ["PRIMARY KEY (incarnation=? AND kind=?)"]),
    "waiter.told": (waiter._TOLD, ["PRIMARY KEY (incarnation=? AND kind=? AND name=?)"]),
    "waiter.wanted": (
        waiter._WANTED,
        ["PRIMARY KEY (incarnation=? AND kind=?)", "(id=?)", "SCALAR SUBQUERY", "incarnation=? AND kind=? AND name=?"],
    ),
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
    numbered = [number for number in range(1, 12) if f"?{number}" in sql]
    return max(numbered) if numbered else sql.count("?")


@pytest.mark.parametrize("name", PLANS)
def test_no_statement_scans_or_sorts(store: SqliteStore, name: str) -> None:
    sql, parts = PLANS[name]
    steps = plan(store, sql)
    assert [step for step in steps if not any(part in step for part in parts)] == []
    for part in parts:
        assert any(part in step for step in steps), (part, steps)
    assert not any(f"SCAN perdure_{large}" in step for step in steps for large in ("executions", "journal", "mailbox"))


def test_every_statement_is_in_the_list() -> None:
    """A statement that nobody has looked at is the one that is slow a year later."""
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name.lstrip('_').lower()}"
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, str) and value.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE"))
    }
    assert found == PLANS.keys()


def test_no_other_module_of_the_store_has_statements_on_the_tables() -> None:
    package = Path(claim.__file__).parent
    known = {Path(module.__file__ or "").name for module in MODULES}
    others = [path for path in package.glob("*.py") if path.name not in known]
    assert [path.name for path in others if re.search(r"(FROM|INTO|UPDATE) perdure_(?!meta)", path.read_text())] == []


QUERIES = [
    {},
    {"after": (5, "ab" * 16)},
    {"since": 3},
    {"attributes": {"city": "Bern"}},
    {"status": Status.FAILED},
    {"status": Status.INTERRUPTED, "after": (5, "ab" * 16)},
    {"status": Status.SUCCEEDED, "since": 3},
    {"status": Status.PENDING},
    {"status": Status.SUSPENDED},
    {"status": Status.SUSPENDED, "after": (5, "ab" * 16), "since": 3},
    {"status": Status.SUSPENDED, "held": Held.CRASHES},
    {"held": Held.DEFECT},
]


@pytest.mark.parametrize("conditions", QUERIES, ids=repr)
def test_a_page_of_a_listing_is_read_in_the_order_of_its_index(store: SqliteStore, conditions: dict[str, Any]) -> None:
    query = Query(**conditions)
    for status in listing._statuses(query):
        sql, bindings = listing._page_sql(query, "W1", status)
        assert len(bindings) == count(sql)
        steps = plan(store, sql)
        whole = status in {None, "SUCCEEDED"}
        index = "list (workflow=?" if whole else "status (workflow=? AND status=?"
        assert f"SEARCH perdure_executions USING INDEX perdure_executions_{index}" in steps[0]
        assert not any("TEMP B-TREE" in step or "SCAN perdure" in step for step in steps)


def test_what_runs_is_listed_from_what_workers_own(store: SqliteStore) -> None:
    """Sorted, but only as much as there is in hand."""
    sql, _ = listing._page_sql(Query(status=Status.RUNNING), "W1", "RUNNING")
    steps = plan(store, sql)
    assert "SEARCH perdure_executions USING INDEX perdure_executions_wake (owner>?)" in steps[0]


# As in the table's own CHECK: a status that comes later has to be thought of here.
@pytest.mark.parametrize("status", list(Status))
def test_a_listing_by_status_shows_what_a_listing_without_it_does(tmp_path: Path, run: Run, status: Status) -> None:
    """R33: the indexes are partial, and none of the statuses may have been forgotten."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        await store.open()
        await store.register(worker("w1"))
        await store.commit("w1", [born(one) for one in Status for _ in range(3)])
        listed = await store.executions(Query(status=status))
        everything = await store.executions(Query())
        assert [one for one in everything if one.status is status] == listed
        assert len(listed) == 3
        await store.close()

    run(main)


def born(status: Status) -> Commit:
    """A birth in any status."""
    start = Start(execution_id=os.urandom(16).hex(), incarnation=os.urandom(16), workflow="W1", payload=b"{}")
    exit_ = b"{}" if is_final(status) else None
    return Commit(start.execution_id, start.incarnation, 1, 0, status, start=start, exit=exit_)
