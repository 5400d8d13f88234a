"""A purge that is killed: an execution is there as a whole, or it is gone as a whole.

The engine purges what is thirty days old, so this is the store alone, in a process of its own.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from perdure._ids import new_incarnation
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, Commit, Mail, Start, Worker
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.testing.failpoints import Failpoints

ROOT = Path(__file__).parents[2]
POINTS_OF_PURGE = ["purge.after", "purge.before"]
IDS = [f"{number:032x}" for number in range(1, 11)]
BATCH = 2
# The last one has not ended: it stays, whatever happens.
UNFINISHED = IDS[-1]
BATCHES = (len(IDS) - 1 + BATCH - 1) // BATCH
# What an execution has beside its row.
BELONGINGS = ("perdure_journal", "perdure_mailbox", "perdure_heartbeats", "perdure_published")


async def fill(store: SqliteStore) -> None:
    """Executions with a journal, a mailbox, a heartbeat and something to show each."""
    now = store.clock.now()
    await store.register(Worker(worker_id="w", host="h", pid=1, workflows=("W",), started_at=now))
    starts = [
        Start(execution_id=id_, incarnation=new_incarnation(now), workflow="W", payload=b"{}", began_at=now)
        for id_ in IDS
    ]
    await store.commit("w", [Commit(one.execution_id, one.incarnation, 1, 0, Status.RUNNING, one) for one in starts])
    await store.deliver([Mail(id_, "deferred", "approval", b'{"success":true}') for id_ in IDS])
    for one in starts:
        await store.save_heartbeat(one.incarnation, "act", 1, b"1")
    entries = [Entry(seq, Kind.ACTIVITY, "act", seq, 1, b"{}", b'{"success":1}', now) for seq in range(1, 4)]
    await store.commit(
        "w",
        [
            Commit(
                one.execution_id, one.incarnation, 1, 1,
                Status.RUNNING if one.execution_id == UNFINISHED else Status.SUCCEEDED,
                entries=entries, acts=Acts(published={"progress": b"1"}), exit=None if one.execution_id == UNFINISHED else b'{"success":1}',
            )
            for one in starts
        ],
    )  # fmt: skip


async def purge(database: Path, point: str, reach: int) -> None:
    """What the killed process does."""
    store = SqliteStore(database)
    await store.open()
    await fill(store)
    with Failpoints() as failpoints:
        failpoints.crash(point, reach=reach)
        while await store.purge("W", store.clock.now(), BATCH):
            pass


def belongings(database: Path) -> list[set[bytes]]:
    """The incarnations that have something in each table, the executions' own first."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tables = ("perdure_executions", *BELONGINGS)
        return [{row[0] for row in connection.execute(f"SELECT incarnation FROM {table}")} for table in tables]
    finally:
        connection.close()


@pytest.mark.parametrize("reach", [1, 2, BATCHES])
@pytest.mark.parametrize("point", POINTS_OF_PURGE)
def test_an_execution_is_purged_as_a_whole_or_not_at_all(tmp_path, run, point, reach):
    """R2: and the next purge removes the rest."""
    database = tmp_path / "old.perdure"
    purger = subprocess.run(
        [sys.executable, "-m", "tests.crash.test_purge", str(database), point, str(reach)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert purger.returncode == -signal.SIGKILL, purger.stderr
    gone = min(BATCH * (reach if point == "purge.after" else reach - 1), len(IDS) - 1)
    executions, *owners = belongings(database)
    assert len(executions) == len(IDS) - gone
    assert owners == [executions] * len(BELONGINGS)

    async def main() -> None:
        store = SqliteStore(database)
        await store.open()
        try:
            left = sum([batch async for batch in batches(store)])
            assert left == len(IDS) - 1 - gone
            assert [one.execution_id for one in await store.read(IDS)] == [UNFINISHED]
        finally:
            await store.close()

    run(main)
    executions, *owners = belongings(database)
    assert owners == [executions] * len(BELONGINGS)


async def batches(store: SqliteStore):
    while batch := await store.purge("W", store.clock.now(), BATCH):
        yield batch


if __name__ == "__main__":
    asyncio.run(purge(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    os._exit(1)  # it was to be killed
