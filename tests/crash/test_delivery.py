"""Mail whose sender is killed while it delivers: both there, mail and wake, or neither.

The store alone, in a process of its own: what an engine does with it has its own tests.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perdure._ids import new_incarnation
from perdure._model.records import Commit, Mail, Receipt, Start
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.testing.failpoints import Failpoints

ROOT = Path(__file__).parents[2]
POINTS_OF_DELIVERY = ["deliver.after", "deliver.before"]
# An execution that waits, without a timer, for each reach; the sender dies with the last one's mail.
IDS = [f"{number:032x}" for number in range(1, 6)]


def letter(execution_id: str) -> Mail:
    return Mail(execution_id, "deferred", "approval", b'{"success":true}')


def suspended(execution_id: str, now: int) -> Commit:
    start = Start(execution_id=execution_id, incarnation=new_incarnation(now), workflow="Waits", payload=b"{}")
    start.began_at = now
    return Commit(execution_id, start.incarnation, 0, 0, Status.SUSPENDED, start)


async def send(database: Path, point: str, reach: int) -> None:
    """What the killed process does."""
    store = SqliteStore(database)
    await store.open()
    now = store.clock.now()
    await store.commit("nobody", [suspended(execution_id, now) for execution_id in IDS])
    with Failpoints() as failpoints:
        failpoints.crash(point, reach=reach)
        for execution_id in IDS:
            assert await store.deliver([letter(execution_id)]) == [Receipt.STORED]


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS_OF_DELIVERY)
def test_mail_and_wake_are_one_when_the_sender_is_killed(tmp_path, run, point, reach):
    """R18, R22: no wake is lost, and the sender's repeat changes nothing."""
    database = tmp_path / "mail.perdure"
    sender = subprocess.run(
        [sys.executable, "-m", "tests.crash.test_delivery", str(database), point, str(reach)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sender.returncode == -signal.SIGKILL, sender.stderr
    arrived = reach if point == "deliver.after" else reach - 1

    async def main() -> None:
        store = SqliteStore(database)
        await store.open()
        try:
            statuses = {one.execution_id: one.status for one in await store.read(IDS)}
            records = {one.execution_id: one for one in await store.read(IDS)}
            histories = await store.load([(records[execution_id].incarnation, 0, 0) for execution_id in IDS])
            repeated = await store.deliver([letter(execution_id) for execution_id in IDS])
        finally:
            await store.close()
        assert [len(history.letters) for history in histories] == [1] * arrived + [0] * (5 - arrived)
        assert [statuses[execution_id] for execution_id in IDS] == (
            [Status.PENDING] * arrived + [Status.SUSPENDED] * (5 - arrived)
        )
        assert repeated == [Receipt.IGNORED] * arrived + [Receipt.STORED] * (5 - arrived)

    run(main)


if __name__ == "__main__":
    asyncio.run(send(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    os._exit(1)  # it was to be killed
