"""Hypothesis plays calls in any order, right and wrong ones, and holds the store to the model."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from perdure._model.journal import Entry
from perdure._model.records import Commit, Mail, Start, Worker
from perdure._model.status import Held, Status
from perdure._stores.sqlite import SqliteStore
from perdure.testing.clock import ManualClock

from tests.conformance.model import Model

A = TypeVar("A")

WORKERS = ["w0", "w1", "w2"]
IDS = [f"{number:032x}" for number in range(6)]
ids = st.sampled_from(IDS)
workers = st.sampled_from(WORKERS)
delays = st.none() | st.integers(-2, 5)
# Mostly who is there now; now and then the one before it, who does not know that it is dead.
backs = st.sampled_from([0, 0, 0, 1])
# Mostly what the owner would send; now and then a step behind, or ahead.
slips = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])


class StoreMachine(RuleBasedStateMachine):
    """One store in memory, three workers, six executions."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.model = Model()
        self.model.now = self.clock.now()
        self.store = SqliteStore.in_memory(clock=self.clock)
        self.do(self.store.open())
        self.registered: set[str] = set()
        self.names = dict.fromkeys(WORKERS, 0)

    def teardown(self) -> None:
        self.do(self.store.close())
        self.runner.close()

    def do(self, call: Awaitable[A]) -> A:
        async def awaited() -> A:
            return await call

        return self.runner.run(awaited())

    def worker(self, slot: str, back: int = 0) -> str:
        """The worker that has a slot now; `back`: the one before it, dead or retired, if there was one."""
        worker_id = f"{slot}.{max(self.names[slot] - back, 0)}"
        if worker_id not in self.registered:
            self.registered.add(worker_id)
            self.model.workers.add(worker_id)
            one = Worker(worker_id=worker_id, host="h", pid=1, workflows=("Order",), started_at=0)
            self.do(self.store.register(one))
        return worker_id

    def send(self, worker_id: str, batch: list[Commit], *, twice: bool) -> None:
        answers = self.do(self.store.commit(worker_id, batch))
        assert answers == [self.model.commit(worker_id, one) for one in batch]
        if twice:
            # Word for word, because the answer was lost: nothing may move twice.
            before = self.do(self.store.read(IDS))
            answers = self.do(self.store.commit(worker_id, batch))
            assert answers == [self.model.commit(worker_id, one) for one in batch]
            assert self.do(self.store.read(IDS)) == before

    @rule(
        slot=workers,
        id_=ids,
        status=st.sampled_from(Status),
        delay=delays,
        delayed=st.booleans(),
        rival=st.booleans(),
        twice=st.booleans(),
    )
    def start(
        self, *, slot: str, id_: str, status: Status, delay: int | None, delayed: bool, rival: bool, twice: bool
    ) -> None:
        wake_at = None if delay is None else self.clock.now() + delay
        incarnation = bytes([rival, int(id_, 16)]) * 8
        due_at = wake_at if delayed and status is Status.SUSPENDED else None
        start = Start(execution_id=id_, incarnation=incarnation, workflow="Order", payload=b"{}", due_at=due_at)
        commit = Commit(id_, incarnation, 1, 0, status, start=start, exit=b"exit", wake_at=wake_at)
        self.send(self.worker(slot), [commit], twice=twice)

    @rule(
        slot=workers,
        chosen=st.lists(ids, min_size=1, max_size=3, unique=True),
        status=st.sampled_from(Status),
        held=st.none() | st.none() | st.sampled_from(Held),
        delay=delays,
        slip=slips,
        unseen=st.sampled_from([0, 0, 0, 1]),
        calm=st.booleans(),
        back=backs,
        twice=st.booleans(),
    )
    def commit(
        self,
        *,
        slot: str,
        chosen: list[str],
        status: Status,
        held: Held | None,
        delay: int | None,
        slip: int,
        unseen: int,
        calm: bool,
        back: int,
        twice: bool,
    ) -> None:
        worker_id = self.worker(slot, back)
        batch: list[Commit] = []
        for id_ in chosen:
            row = self.model.rows.get(id_)
            if row is None:
                continue
            seq = len(row.entries) + 1
            batch.append(
                Commit(
                    id_,
                    row.incarnation,
                    row.fence + slip,
                    row.wakes - unseen,
                    status,
                    entries=[Entry(seq, "activity", "a", seq, 1, b"", b"%d" % self.clock.now(), 0)],
                    exit=b"exit",
                    held=held if status is Status.SUSPENDED else None,
                    wake_at=None if delay is None else self.clock.now() + delay,
                    calm=calm,
                )
            )
        self.send(worker_id, batch, twice=twice)

    @rule(id_=ids, name=st.sampled_from("abc"))
    def deliver(self, id_: str, name: str) -> None:
        mail = Mail(id_, "deferred", name, b"value")
        assert self.do(self.store.deliver([mail])) == [self.model.deliver(mail)]

    @rule(slot=workers)
    def ask_for_mail(self, slot: str) -> None:
        worker_id = self.worker(slot)
        assert self.do(self.store.mail_for(worker_id)) == self.model.mail_for(worker_id)

    @rule(slot=workers, limit=st.integers(1, 3), back=backs)
    def claim(self, slot: str, limit: int, back: int) -> None:
        worker_id = self.worker(slot, back)
        ready = sum(row.status is Status.PENDING for row in self.model.rows.values())
        claimed = self.do(self.store.claim(worker_id, ["Order"], limit))
        assert len(claimed) == (min(limit, ready) if worker_id in self.model.workers else 0)
        for record in claimed:
            self.model.claimed(worker_id, record.execution_id)

    @rule(milliseconds=st.integers(0, 4))
    def pass_time(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)
        self.model.now = self.clock.now()

    @rule(limit=st.integers(1, 4))
    def promote(self, limit: int) -> None:
        due = self.model.due()
        promoted = self.do(self.store.promote(limit))
        assert promoted == min(limit, len(due))
        # Which of several that are due since the same instant is left to the store.
        records = {record.incarnation: record for record in self.do(self.store.read(IDS))}
        chosen = [row for row in due if records[row.incarnation].status is Status.PENDING]
        assert [row.wake_at for row in chosen] == [row.wake_at for row in due[:promoted]]
        for row in chosen:
            row.status, row.wake_at = Status.PENDING, None

    @rule(slot=workers)
    def crash(self, slot: str) -> None:
        worker_id = self.worker(slot)
        self.store.abandon(worker_id)
        self.model.dead.add(worker_id)
        self.names[slot] += 1

    @rule(slot=workers)
    def take_over(self, slot: str) -> None:
        worker_id = self.worker(slot)
        assert self.do(self.store.take_over(worker_id)) == self.model.take_over(worker_id)

    @rule(slot=workers)
    def retire(self, slot: str) -> None:
        worker_id = self.worker(slot)
        self.do(self.store.retire(worker_id))
        self.model.end_worker(worker_id, crash=False)
        self.names[slot] += 1

    @rule(slot=workers, id_=ids, slip=slips)
    def give_back(self, slot: str, id_: str, slip: int) -> None:
        worker_id = self.worker(slot)
        if id_ in self.model.rows:
            fences = {id_: self.model.rows[id_].fence + slip}
            given = self.do(self.store.give_back(worker_id, fences))
            assert given == self.model.give_back(worker_id, fences)

    @rule(id_=ids)
    def resume(self, id_: str) -> None:
        record = self.do(self.store.resume(id_))
        assert (record is None) == (id_ not in self.model.rows)
        if record is not None:
            self.model.resume(id_)

    @invariant()
    def the_store_stands_as_the_model_does(self) -> None:
        records = self.do(self.store.read(IDS))
        assert {record.execution_id for record in records} == set(self.model.rows)
        for record in records:
            row = self.model.rows[record.execution_id]
            assert (record.status, record.owner, record.fence, record.wakes, record.held, record.wake_at) == (
                row.status,
                row.owner,
                row.fence,
                row.wakes,
                row.held,
                row.wake_at if row.status is Status.SUSPENDED else None,
            )
            assert (record.crashes, record.exit) == (row.crashes, row.exit)

    @invariant()
    def journals_and_mail_are_those_of_the_model(self) -> None:
        rows = list(self.model.rows.values())
        histories = self.do(self.store.load([(row.incarnation, 0) for row in rows]))
        for row, history in zip(rows, histories, strict=True):
            assert {entry.seq: entry.exit for entry in history.entries} == row.entries
            assert [entry.seq for entry in history.entries] == list(range(1, len(row.entries) + 1))
            assert [letter.name for letter in history.letters] == list(row.mail)
            assert [letter.wake for letter in history.letters] == list(range(1, row.wakes + 1))

    @invariant()
    def the_next_wake_is_the_earliest(self) -> None:
        waiting = [row.wake_at for row in self.model.rows.values() if row.status is Status.SUSPENDED]
        expected = min((wake_at for wake_at in waiting if wake_at is not None), default=None)
        assert self.do(self.store.next_wake()) == expected

    @invariant()
    def workers_own_what_the_model_says(self) -> None:
        for worker_id in self.registered:
            owned = {id_: row.fence for id_, row in self.model.rows.items() if row.owner == worker_id}
            assert self.do(self.store.owned(worker_id)) == owned


TestStoreAgainstModel = StoreMachine.TestCase
TestStoreAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
