"""The stage of the suite: a database, stores on it, workers, and executions to act with."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, Self

from perdure._ids import random_bytes
from perdure._model.clock import Clock
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, Answer, Commit, Letter, Mail, Receipt, Record, Start, Worker, WorkerId
from perdure._model.status import Held, Status
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure.testing.clock import ManualClock

WORKFLOW: Final = "Order"
SECOND: Final = 1_000
# No test waits for time to pass; one that has not ended by now waits for something that never comes.
DEADLINE_S: Final = 15.0


class Place(Protocol):
    """What the author of a store gives to the suite: a fixture `place`, fresh for each test.

    Example:
        >>> class MyPlace:
        ...     def __init__(self, dsn: str) -> None:
        ...         self.dsn = dsn
        ...
        ...     def store(self, clock: Clock) -> Store:
        ...         return MyStore(self.dsn, clock=clock)
        ...
        ...     async def kill(self, store: Store, worker_id: str) -> None:
        ...         await end_lease(self.dsn, worker_id)
    """

    def store(self, clock: Clock) -> Store:
        """Make a store on the one database of this place, not opened; several may be open at once."""
        ...

    async def kill(self, store: Store, worker_id: WorkerId) -> None:
        """Let a worker of that store be dead, as after kill -9: to be taken over, not retired."""
        ...


@dataclass
class Life:
    """One execution as its owner knows it, and the commits that follow from that."""

    execution_id: str
    incarnation: bytes
    fence: int = 1
    seen: int = 0
    seq: int = 0
    starts: list[Start] = field(default_factory=list[Start])

    def entry(self, at: Instant = 0) -> Entry:
        """Make the next entry of its journal."""
        self.seq += 1
        return Entry(self.seq, Kind.ACTIVITY, "charge", self.seq, 1, b'{"n":%d}' % self.seq, b'{"success":1}', at)

    def commit(
        self,
        status: Status = Status.RUNNING,
        *,
        entries: int = 0,
        exit: bytes | None = None,
        held: Held | None = None,
        wake_at: Instant | None = None,
        waits: bytes | None = None,
        starts: list[Start] | None = None,
        acts: Acts | None = None,
        calm: bool = False,
    ) -> Commit:
        """Make a commit of one of its turns, with so many new entries."""
        return Commit(
            self.execution_id,
            self.incarnation,
            self.fence,
            self.seen,
            status,
            entries=[self.entry() for _ in range(entries)],
            exit=exit,
            held=held,
            wake_at=wake_at,
            waits=waits,
            acts=acts if starts is None else Acts(starts=starts),
            calm=calm,
        )

    def mail(
        self, name: str = "approved", kind: str = "deferred", exit: bytes = b'{"success":true}', **more: Any
    ) -> Mail:
        """Make a piece of mail to it."""
        return Mail(self.execution_id, kind, name, exit, **more)

    def claimed(self, record: Record) -> Self:
        """Take over the fence that a claim has given."""
        assert record.execution_id == self.execution_id
        self.fence = record.fence
        return self


def new_start(workflow: str = WORKFLOW, *, priority: int = 0, due_at: Instant | None = None, **more: Any) -> Start:
    """Make a start of an execution that does not exist."""
    return Start(
        execution_id=random_bytes().hex(),
        incarnation=os.urandom(16),
        workflow=workflow,
        payload=b'{"to":"x"}',
        priority=priority,
        due_at=due_at,
        **more,
    )


def born(start: Start, status: Status, **more: Any) -> Commit:
    """Make the commit that an execution is born with."""
    return Commit(start.execution_id, start.incarnation, 1, 0, status, start=start, **more)


def life_of(start: Start) -> Life:
    """The execution of a start, under its first fence."""
    return Life(start.execution_id, start.incarnation)


class Scene:
    """What one test sees. `store` is open; whatever else was opened is closed behind the test."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock: ManualClock = ManualClock()
        self.store: Store = place.store(self.clock)
        self._stores = [self.store]
        self._homes: dict[WorkerId, Store] = {}

    async def another(self) -> Store:
        """Open the same database once more, as another process would."""
        store = self.place.store(self.clock)
        self._stores.append(store)
        await store.open()
        return store

    async def close(self) -> None:
        """Close every store of the scene."""
        for store in reversed(self._stores):
            await store.close()

    # Workers -----------------------------------------------------------------------------------

    async def worker(self, worker_id: WorkerId = "w1", *, store: Store | None = None) -> WorkerId:
        """Register a worker."""
        home = store or self.store
        self._homes[worker_id] = home
        await home.register(self.make_worker(worker_id))
        return worker_id

    def make_worker(self, worker_id: WorkerId = "w1") -> Worker:
        """Make a worker that is not registered."""
        return Worker(
            worker_id=worker_id, host="host", pid=42, workflows=(WORKFLOW, "Größe"), started_at=self.clock.now()
        )

    async def kill(self, worker_id: WorkerId) -> None:
        """Let a worker be dead."""
        await self.place.kill(self._homes[worker_id], worker_id)

    # Executions --------------------------------------------------------------------------------

    async def commit(self, worker_id: WorkerId, *batch: Commit) -> list[Answer]:
        """Commit a batch on the first store."""
        return await self.store.commit(worker_id, batch)

    async def running(self, worker_id: WorkerId, **more: Any) -> Life:
        """Start an execution that the worker owns."""
        start = new_start(**more)
        await self.commit(worker_id, born(start, Status.RUNNING))
        return life_of(start)

    async def pending(self, **more: Any) -> Life:
        """Start an execution that waits for a claim."""
        start = new_start(**more)
        await self.commit("nobody", born(start, Status.PENDING))
        return replace(life_of(start), fence=0)

    async def suspended(self, worker_id: WorkerId, *, wake_at: Instant | None = None) -> Life:
        """Start an execution and suspend it."""
        life = await self.running(worker_id)
        await self.commit(worker_id, life.commit(Status.SUSPENDED, entries=1, wake_at=wake_at, waits=b"[]"))
        return life

    async def held(self, worker_id: WorkerId, *, code: Held = Held.DEFECT, wake_at: Instant | None = None) -> Life:
        """Start an execution and hold it."""
        life = await self.running(worker_id)
        cause = b'{"failure":[]}'
        await self.commit(worker_id, life.commit(Status.SUSPENDED, held=code, exit=cause, wake_at=wake_at))
        return life

    async def child(self, parent: Life, *, of: WorkerId = "w1", **more: Any) -> Life:
        """Let an execution that the worker owns ask for a child of its own; it is born PENDING."""
        start = new_start(parent=parent.execution_id, **more)
        await self.commit(of, parent.commit(entries=1, acts=Acts(children=[start])))
        return replace(life_of(start), fence=0)

    async def run(self, life: Life, worker_id: WorkerId = "w1") -> Life:
        """Let a worker claim an execution that is the only one to be claimed."""
        (record,) = await self.claim(worker_id)
        return life.claimed(record)

    async def finished(self, worker_id: WorkerId, status: Status = Status.SUCCEEDED) -> Life:
        """Start an execution and let it end."""
        life = await self.running(worker_id)
        await self.commit(worker_id, life.commit(status, entries=1, exit=b'{"success":7}'))
        return life

    async def claim(self, worker_id: WorkerId, limit: int = 10) -> list[Record]:
        """Claim executions of the usual workflow."""
        return await self.store.claim(worker_id, [WORKFLOW], limit)

    async def deliver(self, mail: Mail) -> Receipt:
        """Deliver one piece of mail."""
        return (await self.store.deliver([mail]))[0]

    async def record(self, life: Life) -> Record:
        """How an execution stands."""
        (record,) = await self.store.read([life.execution_id])
        return record

    async def renew(self, life: Life, start: Start, entries: Sequence[Entry], letters: Sequence[Letter]) -> bool:
        """Let another life follow this one, as somebody does who has seen all its mail."""
        found = await self.store.read([life.execution_id])
        return await self.store.renew(life.incarnation, found[0].wakes if found else 0, start, entries, letters)

    async def letters(self, life: Life, after: int = 0) -> list[Letter]:
        """The mail of an execution's life behind a number."""
        return (await self.store.load([(life.incarnation, 0, after)]))[0].letters

    async def entries(self, life: Life) -> list[Entry]:
        """The whole journal of an execution."""
        return (await self.store.load([(life.incarnation, 0, 0)]))[0].entries


def scenario(test: Callable[[Any, Scene], Awaitable[None]]) -> Callable[[Any, Place], None]:
    """Make a test of pytest from a coroutine method that takes a scene; it needs no plugin."""

    # Named as the test, but with its own signature: pytest must see the fixture `place`.
    @functools.wraps(test, updated=())
    def runs(self: object, place: Place) -> None:
        async def play() -> None:
            scene = Scene(place)
            async with asyncio.timeout(DEADLINE_S):
                await scene.store.open()
                try:
                    await test(self, scene)
                finally:
                    await scene.close()

        asyncio.run(play())

    del runs.__wrapped__
    return runs
