"""Two processes hammer one file: nothing is lost, nothing is done twice, nobody starves."""

import asyncio
import json
from pathlib import Path

from perdure._model.records import Query
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.testing.conformance.scene import born, life_of, new_start

from tests.conftest import Run
from tests.unit.stores.actor import output, program

# Claims until there is nothing left, gives some of it back, ends the rest with the entry it added.
HAMMER = """
import asyncio, json, sys
from perdure._model.journal import Entry
from perdure._model.records import Commit, Verdict
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from tests.unit.stores.actor import worker
name = sys.argv[2]

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.register(worker(name))
    ended, released = [], 0
    print("ready", flush=True)
    sys.stdin.readline()
    while claimed := await store.claim(name, ["Order"], 7):
        histories = await store.load([(one.incarnation, 0, 0) for one in claimed])
        batch = []
        for one, history in zip(claimed, histories):
            seq = len(history.entries) + 1
            entry = Entry(seq, "activity", name, seq, 1, b"", b"", 0)
            # Five owners in a row, then the end: both processes come to touch most of them.
            status = Status.SUCCEEDED if seq == 5 else Status.PENDING
            seen = max((letter.wake for letter in history.letters), default=0)
            batch.append(Commit(one.execution_id, one.incarnation, one.fence, seen, status, entries=[entry], exit=b"{}"))
        answers = await store.commit(name, batch)
        for one, answer in zip(batch, answers):
            if answer.verdict is Verdict.STAYS:
                one.seen = answer.wakes
                (answer,) = await store.commit(name, [one])
            assert answer.verdict is Verdict.GRANTED, answer
            if one.status is Status.SUCCEEDED:
                ended.append(one.execution_id)
            else:
                released += 1
    await store.retire(name)
    await store.close()
    print(json.dumps([ended, released]))

asyncio.run(main())
"""
EXECUTIONS = 150


def test_two_processes_on_one_file_end_every_execution_once(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    starts = [new_start() for _ in range(EXECUTIONS)]

    async def prepare() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.commit("nobody", [born(start, Status.PENDING) for start in starts])
        await store.close()

    run(prepare)
    programs = [program(HAMMER, path, name) for name in ("a", "b")]
    for one in programs:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"

    async def play() -> list[str]:
        """Deliver mail from a third process meanwhile."""
        store = SqliteStore(path)
        await store.open()
        for one in programs:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        receipts = [receipt for start in starts[::3] for receipt in await store.deliver([life_of(start).mail()])]
        await store.close()
        return [str(receipt) for receipt in receipts]

    receipts = run(play)
    (ended_a, released_a), (ended_b, released_b) = (json.loads(output(one)) for one in programs)
    assert sorted(ended_a + ended_b) == sorted(start.execution_id for start in starts)
    assert released_a + released_b == EXECUTIONS * 4
    assert min(len(ended_a) + released_a, len(ended_b) + released_b) > 0

    async def check() -> None:
        store = SqliteStore(path)
        await store.open()
        records = await store.executions(Query(limit=EXECUTIONS + 1))
        assert {record.status for record in records} == {Status.SUCCEEDED}
        assert {record.fence for record in records} == {5}
        histories = await store.load([(record.incarnation, 0, 0) for record in records])
        assert {tuple(entry.seq for entry in history.entries) for history in histories} == {(1, 2, 3, 4, 5)}
        assert sum(len(history.letters) for history in histories) == receipts.count("stored")
        assert await store._write(lambda connection: connection.pragma("integrity_check")) == "ok"
        await store.close()

    run(check)
    assert set(receipts) <= {"stored", "finished"}


def test_two_stores_of_one_process_wait_for_each_other_in_memory(run: Run) -> None:
    """In memory a look and a transaction lock each other out; both must wait, and neither may fail."""

    async def main() -> None:
        stores = [SqliteStore.in_memory(name="test_contention") for _ in range(3)]
        await asyncio.gather(*(store.open() for store in stores))
        starts = [new_start() for _ in range(30)]
        await asyncio.gather(
            *(stores[n % 3].commit("nobody", [born(start, Status.PENDING)]) for n, start in enumerate(starts)),
            *(store.executions(Query()) for store in stores * 10),
            *(store.next_wake() for store in stores * 10),
        )
        counts = [len(await store.executions(Query())) for store in stores]
        assert counts == [30, 30, 30]
        for store in stores:
            await store.close()

    run(main)
