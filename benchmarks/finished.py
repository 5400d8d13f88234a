"""What each verb of the store costs beside finished executions: a meter, and a file that is filled with them.

The file is filled by SQL, through the store's own tables, from executions that the store itself has written: so the
rows are what they would be, and a million take seconds. Who compares two stores has both open at once and lets them
take turns (`beside.py`), so that a neighbour slows both down. What is compared is CPU time, over all threads, the
kernel's included: it has the pages that a large index reads and dirties, and leaves out how long the disk takes for one
fsync, which is the same for both and would hide everything else.
"""

import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from perdure._ids import new_execution_id, new_incarnation, new_worker_id, random_bytes
from perdure._model.journal import Entry
from perdure._model.records import Commit, Mail, Query, Start, Verdict, Worker
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure._values.instant import Instant

AT_ONCE: Final = 100
AGAIN: Final = 10
ENTRIES: Final = 3  # of a finished execution
WORKFLOW: Final = "ten_steps"

PAYLOAD: Final = (
    b'{"order_id":"order-00042","customer":"customer-00042@example.com","amount_cents":1042,'
    b'"placed_at":"2026-01-15T09:30:42Z"}'
)
EXIT: Final = (
    b'{"success":{"charge_id":"charge-order-00042-1","amount_cents":1042,"currency":"EUR",'
    b'"captured_at":"2026-01-15T09:30:42Z"}}'
)

QUERIES: Final = {
    "list": Query(limit=10),
    "list suspended": Query(status=Status.SUSPENDED, limit=10),
    "list failed": Query(status=Status.FAILED, limit=10),
}

# In microseconds of CPU, verb by verb: for each execution, or each call where that is about none in particular.
Costs = dict[str, list[float]]


class Meter:
    """Goes through the life of a hundred executions, and notes what each verb has cost for one of them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.worker_id = new_worker_id()
        self.costs: Costs = defaultdict(list)

    async def open(self) -> None:
        await self.store.open()
        await self.store.register(
            Worker(worker_id=self.worker_id, host="host", pid=os.getpid(), workflows=(WORKFLOW,), started_at=0)
        )

    async def take_round(self) -> None:
        """One life: every verb once, about a hundred executions or about nobody in particular."""
        began = time.process_time()
        await self._live()
        await self._settle()
        # Checkpoints too, which belong to no verb.
        self.costs["a whole life"].append((time.process_time() - began) / AT_ONCE * 1_000_000)

    async def _live(self) -> None:
        now = self.store.clock.now()
        births = [make_birth(now, random_bytes().hex()) for _ in range(AT_ONCE)]
        without_key = [make_birth(now, new_execution_id(now)) for _ in range(AT_ONCE)]
        ids = [birth.execution_id for birth in births]
        await self._measure("start", AT_ONCE, lambda: self.commit(births))
        await self._measure("start without a key", AT_ONCE, lambda: self.commit(without_key))
        await self.commit([follow(birth, 1, Status.SUCCEEDED) for birth in without_key])
        for seq in range(1, ENTRIES):
            steps = [follow(birth, 1, Status.RUNNING, seq) for birth in births]
            await self._measure("step", AT_ONCE, lambda steps=steps: self.commit(steps))
        asleep = [follow(birth, 1, Status.SUSPENDED, wake_at=now) for birth in births]
        await self._measure("suspend", AT_ONCE, lambda: self.commit(asleep))
        await self._measure("next_wake", 1, self.store.next_wake)
        for name, query in QUERIES.items():
            await self._measure(name, 1, lambda query=query: self.store.executions(query))
        await self._measure("promote", AT_ONCE, lambda: self.store.promote(AT_ONCE))
        await self._measure("claim", AT_ONCE, lambda: self.store.claim(self.worker_id, [WORKFLOW], AT_ONCE))
        await self._measure("deliver", AT_ONCE, lambda: self.store.deliver([Mail(id_, "d", "d", EXIT) for id_ in ids]))
        await self._measure("mail_for", AT_ONCE, lambda: self.store.mail_for(self.worker_id))
        await self._measure("keep house", 1, self._keep_house)
        await self._measure("read", AT_ONCE, lambda: self.store.read(ids))
        wanted = [(birth.incarnation, 0, 0) for birth in births]
        await self._measure("load", AT_ONCE, lambda: self.store.load(wanted))
        ends = [follow(birth, 2, Status.SUCCEEDED, ENTRIES) for birth in births]
        await self._measure("end", AT_ONCE, lambda: self.commit(ends))

    async def commit(self, batch: Sequence[Commit]) -> None:
        answers = await self.store.commit(self.worker_id, batch)
        # What is refused costs little, and would be a figure of nothing.
        assert all(answer.verdict in {Verdict.STARTED, Verdict.GRANTED} for answer in answers)

    async def _keep_house(self) -> None:
        assert await self.store.alive(self.worker_id)
        await self.store.take_over(self.worker_id)
        await self.store.owned(self.worker_id)

    async def _settle(self) -> None:
        # Between two jobs the writer's thread does its own work, a checkpoint perhaps. Whoever has an answer to a job
        # that was asked for later knows that it is over.
        await self.store.take_over(self.worker_id)

    async def _measure(self, verb: str, count: int, call: Callable[[], Awaitable[Any]]) -> None:
        await self._settle()
        # What is about nobody in particular is short: asked once, it would be lost in the noise.
        times = 1 if count > 1 else AGAIN
        began = time.process_time()
        for _ in range(times):
            await call()
        self.costs[verb].append((time.process_time() - began) / (count * times) * 1_000_000)


def make_birth(now: Instant, execution_id: str) -> Commit:
    start = Start(
        execution_id=execution_id,
        incarnation=new_incarnation(now),
        workflow=WORKFLOW,
        key="order-00042",
        payload=PAYLOAD,
        began_at=now,
    )
    return Commit(start.execution_id, start.incarnation, 1, 0, Status.RUNNING, start)


def follow(birth: Commit, fence: int, status: Status, seq: int = 0, wake_at: Instant | None = None) -> Commit:
    """The next commit of an execution, with an entry at that place of its journal."""
    entries = [Entry(seq, "activity", "charge", seq, 1, PAYLOAD, EXIT, 0)] if seq else []
    exit_ = EXIT if status is Status.SUCCEEDED else None
    commit = Commit(birth.execution_id, birth.incarnation, fence, 1, status, None, entries, exit_, wake_at=wake_at)
    # As if it had seen all mail, however much there is.
    commit.seen = 1_000
    return commit


# A million finished executions ---------------------------------------------------------------------------------------


async def finish_one(path: Path) -> None:
    """Let the store write one execution from its start to its end."""
    meter = Meter(SqliteStore(path))
    await meter.open()
    birth = make_birth(meter.store.clock.now(), random_bytes().hex())
    await meter.commit([birth])
    for seq in range(1, ENTRIES):
        await meter.commit([follow(birth, 1, Status.RUNNING, seq)])
    await meter.commit([follow(birth, 1, Status.SUCCEEDED, ENTRIES)])
    await meter.store.retire(meter.worker_id)
    await meter.store.close()


def multiply(path: Path, count: int) -> None:
    """Fill a file with copies of its one execution: new ids, and incarnations in the order of their birth."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("synchronous", "off")
        connection.pragma("cache_size", -1_000_000)  # or the random ids of a million read and write pages all the time
        connection.pragma("wal_autocheckpoint", 20_000)
        template = next(connection.execute("SELECT n FROM perdure_executions"))[0]
        columns = table_columns(connection, "perdure_executions", but=("n", "id", "incarnation"))
        entry = table_columns(connection, "perdure_journal", but=("incarnation",))
        for first in range(0, count, 100_000):
            last = min(first + 100_000, count)
            connection.execute(
                "WITH RECURSIVE numbers(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < ?2)"  # noqa: S608 - columns of our own tables
                f" INSERT INTO perdure_executions(id, incarnation, {columns})"
                " SELECT randomblob(16), unhex(printf('%012x7000%016x', 1700000000000 + i, i)),"
                f" {columns} FROM numbers, perdure_executions WHERE n = ?3",
                (first, last, template),
            )
        # In the order of the key, and each page is written once.
        connection.execute(
            f"INSERT INTO perdure_journal(incarnation, {entry})"  # noqa: S608 - columns of our own tables
            " SELECT e.incarnation, j.* FROM (SELECT n, incarnation FROM perdure_executions) e CROSS JOIN"
            f" (SELECT {entry} FROM perdure_journal"
            "  WHERE incarnation = (SELECT incarnation FROM perdure_executions WHERE n = ?1)) j"
            " WHERE e.n > ?1 ORDER BY e.n",
            (template,),
        )
    finally:
        connection.close()


def table_columns(connection: apsw.Connection, table: str, but: Sequence[str]) -> str:
    """The columns of a table that are stored, as a list for SQL."""
    # `table_info` leaves out generated columns, which cannot be inserted.
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return ", ".join(name for name in names if name not in but)
