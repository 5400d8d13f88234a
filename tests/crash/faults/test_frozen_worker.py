"""A worker process that is frozen (SIGSTOP) and thawed (SIGCONT): what it owns stays its own as long as it holds its lock.

The other worker is the test's own process. A frozen process stands exactly where it was told to stop: outside of a
transaction, or inside of one with the write lock in its hands.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from perdure import WorkflowEngine
from perdure._engine import wakes

from tests.conftest import Run
from tests.crash.checker import violations
from tests.crash.faults.frozen import BEGINS_AGAIN, Freezer, until_frozen
from tests.crash.faults.trouble import listening
from tests.crash.ledger import Ledger, Phase, read_ledger
from tests.crash.snapshot import Execution
from tests.crash.stage import Stage, Worker
from tests.crash.worker import Work, see_through
from tests.crash.workflows import WORKFLOWS, scene

pytestmark = [
    pytest.mark.usefixtures("hurried"),
    pytest.mark.timeout(60),  # two workers, one of which begins with the start of an interpreter
]

THEIRS: list[Work] = [("Steps", f"one/theirs-{number}") for number in range(6)]
OURS: list[Work] = [("Steps", f"one/ours-{number}") for number in range(6)] + [("Rests", "one/ours")]


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own worker looks for the dead more often than once a second."""
    monkeypatch.setattr(wakes, "LOOK_MS", 30)


def frozen(stage: Stage, point: str, reach: int, **options: Any) -> Worker:
    """A worker that has stopped there."""
    worker = stage.worker(THEIRS, crash=(point, reach), nursery=cast("Any", Freezer()), **options)
    until_frozen(worker.pid)
    return worker


def thaw(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGCONT)


@asynccontextmanager
async def our_engine(stage: Stage) -> AsyncIterator[WorkflowEngine]:
    """A worker in this process, which writes into the same ledger."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    scene.ledger = Ledger(stage.ledger, echo=nowhere)
    scene.gate, scene.something_ended, scene.resumptions = asyncio.Event(), asyncio.Event(), set()
    try:
        async with WorkflowEngine.sqlite(stage.databases[0], WORKFLOWS) as engine:
            yield engine
    finally:
        os.close(nowhere)
        os.close(scene.ledger._file)


async def see_all_through(engine: WorkflowEngine, stage: Stage, work: list[Work]) -> None:
    accepted = {line.execution_id for line in read_ledger(stage.ledger) if line.phase is Phase.ACCEPTED}
    await asyncio.gather(*(see_through(engine, 0, *one, accepted) for one in work))


def owned(stage: Stage, pid: int) -> dict[str, tuple[int, int]]:
    """What a process owns on paper: fences and crashes."""
    found = stage.look().executions.values()
    return {one.execution_id: (one.fence, one.crashes) for one in found if one.owner == pid}


@pytest.mark.parametrize("reach", [2, 5])
def test_a_frozen_worker_is_not_dead(tmp_path: Path, run: Run, reach: int) -> None:
    """Promise 3, R41: it holds its lock; nobody takes away what it will go on with."""
    stage = Stage(tmp_path)
    with frozen(stage, "commit.before", reach) as worker:
        before = owned(stage, worker.pid)
        assert before

        async def main() -> None:
            async with our_engine(stage) as engine:
                await see_all_through(engine, stage, OURS)
                for _ in range(3):
                    await engine._service.keep_house()

        run(main)
        assert owned(stage, worker.pid) == before
        thaw(worker)
        assert worker.end() == 0, stage.complaints.read_text()
    assert violations(stage.account()) == []


def test_a_worker_frozen_in_its_transaction_is_waited_for(tmp_path: Path, run: Run) -> None:
    """Promises 1 and 8: it has the write lock, for as long as it likes; who starts something waits, who looks is answered."""
    stage = Stage(tmp_path)

    async def main() -> None:
        async with our_engine(stage) as engine:
            with listening() as trouble:
                worker = await asyncio.to_thread(frozen, stage, "commit.written", 4)
                with worker:
                    waiting = asyncio.create_task(see_all_through(engine, stage, OURS))
                    await trouble.heard()
                    listed = {info.key async for info in engine.executions()}
                    assert listed <= {label for _, label in THEIRS}
                    assert not waiting.done()
                    assert all("cannot be used just now" in said for said in trouble.said)
                    thaw(worker)
                    await waiting
                    assert await asyncio.to_thread(worker.end) == 0, stage.complaints.read_text()

    run(main)
    assert violations(stage.account()) == []


@pytest.mark.parametrize("reach", [3, 7])
def test_a_worker_that_lost_its_lock_while_it_was_frozen_writes_nothing_and_begins_anew(
    tmp_path: Path, run: Run, reach: int
) -> None:
    """Promises 2 and 3: a commit on its way when its worker was taken for dead changes nothing (R41)."""
    stage = Stage(tmp_path)
    with frozen(stage, "commit.before", reach, stays=True) as worker:
        stage.note_kill(worker)
        theirs = owned(stage, worker.pid)
        assert theirs
        for lock in tmp_path.glob("*-worker-*"):
            lock.unlink()

        async def main() -> None:
            async with our_engine(stage) as engine:
                await see_all_through(engine, stage, [*THEIRS, *OURS])

        run(main)
        before = settled(stage)
        assert all(before[id_].is_final and before[id_].fence > fence for id_, (fence, _) in theirs.items())
        thaw(worker)
        worker.hear(lambda line: line.name == BEGINS_AGAIN)
        worker.open_gate()
        assert worker.end() == 0, stage.complaints.read_text()
    after = settled(stage)
    assert {id_: after[id_] for id_ in before} == before
    assert lives_of(stage, worker.pid) == 2
    assert violations(stage.account()) == []


def settled(stage: Stage) -> dict[str, Execution]:
    return stage.look().executions


def lives_of(stage: Stage, pid: int) -> int:
    connection = apsw.Connection(str(stage.databases[0]))
    try:
        ((count,),) = connection.execute("SELECT count(*) FROM perdure_workers WHERE pid = ?", (pid,))
    finally:
        connection.close()
    return count
