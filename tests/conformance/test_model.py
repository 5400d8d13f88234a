"""Hypothesis plays calls in any order, right and wrong ones, and holds the store to the model."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from perdure._model.journal import Entry
from perdure._model.records import INTERRUPTED, Acts, Commit, Letter, Life, Mail, MailKind, Start, Worker
from perdure._model.status import FINAL, Held, Status
from perdure._stores.sqlite import SqliteStore, life, listing
from perdure._stores.sqlite.driver import Connection, select
from perdure.testing.clock import ManualClock

from tests.conformance.model import Model

A = TypeVar("A")

WORKERS = ["w0", "w1"]
IDS = [f"{number:032x}" for number in range(4)]
ids = st.sampled_from(IDS)
workers = st.sampled_from(WORKERS)
delays = st.none() | st.integers(-2, 5)
# Mostly who is there now; now and then the one before it, who does not know that it is dead.
backs = st.sampled_from([0, 0, 0, 1])
# Mostly what the owner would send; now and then a step behind, or ahead.
slips = st.sampled_from([0] * 18 + [-1, 1])
# An execution that has ended is soon of no interest.
statuses = st.sampled_from(
    [*Status, Status.RUNNING, Status.RUNNING, Status.SUSPENDED, Status.SUSPENDED, Status.PENDING]
)
LATE = b"late"
kinds = st.sampled_from(["deferred", "message", "interrupt"])
senders = st.sampled_from([b"", b"", b"s1", b"s2"])


@dataclass
class Deed:
    """What a commit does to another execution, or for itself."""

    what: str
    target: str
    restarts: bool
    own: bool
    kind: str
    name: str
    sender: bytes
    delay: int | None
    deadline: int | None


deeds = st.builds(
    Deed,
    what=st.sampled_from(
        ["nothing", "nothing", "child", "child", "leave", "leave", "mail", "start", "repeat", "resume", "next", "show"]
    ),
    target=ids,
    restarts=st.booleans(),
    own=st.booleans(),
    kind=kinds,
    name=st.sampled_from("abc"),
    sender=senders,
    delay=delays,
    deadline=delays,
)


class StoreMachine(RuleBasedStateMachine):
    """One store in memory, two workers, four executions."""

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
        self.count = 0

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
        assert answers == self.model.commit(worker_id, batch)
        if twice:
            # Word for word, because the answer was lost: nothing may move twice.
            before = self.do(self.store.read(IDS))
            answers = self.do(self.store.commit(worker_id, batch))
            assert answers == self.model.commit(worker_id, batch)
            # Unless the first try has let something be to which the second one can do more than it could.
            if sum(one.acts is not None for one in batch) <= 1:
                assert self.do(self.store.read(IDS)) == before

    def fresh(self) -> bytes:
        """An incarnation that has not been there."""
        self.count += 1
        return self.count.to_bytes(16, "big")

    def at(self, delay: int | None) -> int | None:
        return None if delay is None else self.clock.now() + delay

    def acts(self, deed: Deed, id_: str) -> Acts | None:
        """What an execution does to another one."""
        start = Start(
            execution_id=deed.target,
            incarnation=self.fresh(),
            workflow="Order",
            payload=b"{}",
            due_at=self.at(deed.delay),
            deadline=self.at(deed.deadline),
            parent=id_ if deed.own else None,
            restarts=deed.restarts,
        )
        if deed.what in {"start", "child"} and deed.target == id_:
            return None  # no body begins or awaits itself
        match deed.what:
            case "start":
                return Acts(starts=[start])
            case "repeat":
                return Acts(repeats=[start])
            case "child":
                return Acts(children=[start])
            case "leave":
                waited_for = [one for one, row in self.model.rows.items() if id_ in self.model.waiters[row.incarnation]]
                return Acts(leaves=[deed.target, *waited_for])
            case "mail":
                return Acts(mail=[Mail(deed.target, deed.kind, deed.name, b"sent", sender=deed.sender)])
            case "resume":
                return Acts(resumes=[deed.target])
            case "show":
                return Acts(attributes={deed.name: None if deed.own else 1}, published={deed.name: deed.sender})
            case "next":
                start.execution_id = id_
                return Acts(next=start, mail=[Mail(id_, "deferred", deed.name, b"own", sender=deed.sender)])
        return None

    @initialize(
        births=st.lists(st.sampled_from([Status.RUNNING, Status.RUNNING, Status.PENDING]), min_size=3, max_size=3)
    )
    def begin(self, births: list[Status]) -> None:
        for id_, status in zip(IDS, births, strict=False):
            start = Start(execution_id=id_, incarnation=self.fresh(), workflow="Order", payload=b"{}")
            self.send(self.worker("w0"), [Commit(id_, start.incarnation, 1, 0, status, start=start)], twice=False)

    @rule(
        slot=workers,
        id_=ids,
        status=st.sampled_from(Status),
        delay=delays,
        delayed=st.booleans(),
        deadline=delays,
        rival=st.booleans(),
        restarts=st.booleans(),
        twice=st.booleans(),
    )
    def start(
        self,
        *,
        slot: str,
        id_: str,
        status: Status,
        delay: int | None,
        delayed: bool,
        deadline: int | None,
        rival: bool,
        restarts: bool,
        twice: bool,
    ) -> None:
        wake_at = self.at(delay)
        incarnation = self.fresh() if restarts else bytes([255, rival, int(id_, 16), 0]) * 4
        due_at = wake_at if delayed and status is Status.SUSPENDED else None
        start = Start(
            execution_id=id_,
            incarnation=incarnation,
            workflow="Order",
            payload=b"{}",
            due_at=due_at,
            deadline=self.at(deadline),
            restarts=restarts,
        )
        commit = Commit(id_, incarnation, 1, 0, status, start=start, exit=b"exit", wake_at=wake_at)
        self.send(self.worker(slot), [commit], twice=twice)

    @rule(
        slot=workers,
        # Several, so that what one begins another one ends.
        turns=st.lists(
            st.dictionaries(ids, st.tuples(statuses, deeds), min_size=1, max_size=3), min_size=1, max_size=5
        ),
        held=st.none() | st.sampled_from(Held),
        delay=delays,
        slip=slips,
        unseen=st.sampled_from([0] * 7 + [1]),
        calm=st.booleans(),
        by_owner=st.sampled_from([True, True, True, False]),
        back=backs,
        twice=st.booleans(),
        told=st.booleans(),
    )
    def commit(
        self,
        *,
        slot: str,
        turns: list[dict[str, tuple[Status, Deed]]],
        held: Held | None,
        delay: int | None,
        slip: int,
        unseen: int,
        calm: bool,
        by_owner: bool,
        back: int,
        twice: bool,
        told: bool,
    ) -> None:
        kind = "interrupt" if told else "activity"
        for chosen in turns:
            if by_owner:
                for id_ in chosen:
                    self.rouse(id_)
                self.take(self.worker(slot), len(IDS))
            owners = [self.model.rows[id_].owner for id_ in chosen if id_ in self.model.rows]
            owner = next((one for one in owners if one is not None), None) if by_owner else None
            worker_id = self.worker(slot, back) if owner is None else owner
            batch: list[Commit] = []
            for id_, (wanted, deed) in chosen.items():
                row = self.model.rows.get(id_)
                if row is None:
                    continue
                seq = len(row.entries) + 1
                acts = self.acts(deed, id_)
                status = Status.PENDING if acts is not None and acts.next is not None else wanted
                batch.append(
                    Commit(
                        id_,
                        row.incarnation,
                        row.fence + slip,
                        row.wakes - unseen,
                        status,
                        entries=[Entry(seq, kind, "a", seq, 1, b"", b"%d" % self.clock.now(), 0)],
                        exit=b"exit",
                        held=held if status is Status.SUSPENDED else None,
                        wake_at=self.at(delay),
                        acts=acts,
                        calm=calm,
                    )
                )
            self.send(worker_id, batch, twice=twice)

    def rouse(self, id_: str) -> None:
        """Let an execution be claimed, whatever it does: without this nearly every commit would find nobody at home."""
        row = self.model.rows.get(id_)
        if row is None:
            return
        if row.held is not None:
            self.resume(id_=id_, skip=False)
        elif row.status is Status.SUSPENDED:
            self.deliver(id_, "message", f"m{self.fresh().hex()}", b"", -1)
        elif row.status in FINAL:
            self.renew(id_=id_, stale=False, unseen=0, count=1, began=True, deadline=None, twice=False)

    # Rules are chosen alike; what executions do to each other is what is to be seen.
    commit_more = commit_again = commit_still = commit_yet = commit

    @rule(id_=ids, kind=kinds, name=st.sampled_from("abc"), sender=senders, which=st.integers(-1, 2))
    def deliver(self, id_: str, kind: str, name: str, sender: bytes, which: int) -> None:
        row = self.model.rows.get(id_)
        incarnation = None
        if row is not None and which >= 0:
            known = [row.incarnation, *(incarnation for incarnation, _, _ in row.lives)]
            incarnation = known[which % len(known)]
        exit_ = INTERRUPTED if sender else LATE
        token = b"kept" if incarnation is not None and kind == MailKind.DEFERRED else b""
        mail = Mail(id_, kind, "" if kind == MailKind.INTERRUPT else name, exit_, sender, incarnation, token)
        assert self.do(self.store.deliver([mail])) == [self.model.deliver(mail)]

    @rule(id_=ids)
    def interrupt_unsafe(self, id_: str) -> None:
        assert self.do(self.store.interrupt_unsafe(id_, b"end")) == self.model.interrupt_unsafe(id_, b"end")

    @rule(limit=st.integers(1, 4))
    def expire(self, limit: int) -> None:
        late = self.model.expired()
        assert self.do(self.store.expire(LATE, limit)) == min(limit, len(late))
        # Which of several that are late since the same instant is left to the store.
        left = {one.execution_id for one in self.do(self.store.read(IDS)) if not self.is_seen_to(one.execution_id)}
        chosen = [one for one in late if one[1] not in left]
        assert [at for at, _ in chosen] == [at for at, _ in late[:limit]]
        for _, id_ in chosen:
            self.model.expire(id_, LATE)

    def is_seen_to(self, id_: str) -> bool:
        """Whether the store has done with the deadline of an execution."""

        def look(connection: Connection) -> bool:
            sql = "SELECT expires_at IS NULL FROM perdure_executions WHERE id = ?"
            return bool(select(connection, sql, (bytes.fromhex(id_),))[0][0])

        return self.do(self.store._read(look))

    @rule(
        id_=ids,
        stale=st.booleans(),
        unseen=st.sampled_from([0, 0, 0, 1]),
        count=st.integers(0, 2),
        began=st.booleans(),
        deadline=delays,
        twice=st.booleans(),
    )
    def renew(
        self, *, id_: str, stale: bool, unseen: int, count: int, began: bool, deadline: int | None, twice: bool
    ) -> None:
        row = self.model.rows.get(id_)
        wakes = 0 if row is None else max(row.wakes - unseen, 0)
        before = b"\x01" if row is None or stale else row.incarnation
        start = Start(
            execution_id=id_,
            incarnation=self.fresh(),
            workflow="Order",
            payload=b"{}",
            began_at=1 if began else None,
            deadline=self.at(deadline),
            seed=b"seed" if began else None,
        )
        entries = [Entry(seq, "token", "abc"[seq], 1, 0, b"", b"kept", 0) for seq in range(1, count + 1)]
        letters = [Letter(wake, "deferred", "abc"[wake], b"kept", 0) for wake in range(1, count + 1)]
        for _ in range(2 if twice else 1):
            renewed = self.do(self.store.renew(before, wakes, start, entries, letters))
            assert renewed == self.model.renew(before, wakes, start, entries, letters)

    @rule(slot=workers)
    def ask_for_mail(self, slot: str) -> None:
        worker_id = self.worker(slot)
        assert self.do(self.store.mail_for(worker_id)) == self.model.mail_for(worker_id)

    @rule(slot=workers, limit=st.integers(1, 3), back=backs)
    def claim(self, slot: str, limit: int, back: int) -> None:
        self.take(self.worker(slot, back), limit)

    def take(self, worker_id: str, limit: int) -> None:
        """Let a worker claim."""
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

    @rule(id_=ids, skip=st.booleans())
    def resume(self, *, id_: str, skip: bool) -> None:
        record = self.do(self.store.resume(id_, skip=skip))
        assert (record is None) == (id_ not in self.model.rows)
        self.model.resume(id_, skip=skip)

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
            assert (record.incarnation, record.number, record.parent) == (row.incarnation, row.number, row.parent)
            assert record.attributes == row.attributes

    @invariant()
    def journals_and_mail_are_those_of_the_model(self) -> None:
        rows = list(self.model.rows.values())
        histories = self.do(self.store.load([(row.incarnation, 0, 0) for row in rows]))
        for row, history in zip(rows, histories, strict=True):
            assert {entry.seq: entry.exit for entry in history.entries} == row.entries
            assert [entry.seq for entry in history.entries] == list(range(1, len(row.entries) + 1))
            assert [(one.wake, one.kind, one.name, one.exit, one.at) for one in history.letters] == sorted(
                (one.wake, kind, name, one.exit, one.at) for (kind, name), one in row.mail.items()
            )

    @invariant()
    def what_is_shown_and_put_aside_is_that_of_the_model(self) -> None:
        def look(connection: Connection) -> dict[str, tuple[list[Life], dict[str, bytes]]]:
            return {id_: (life.lives(connection, id_), listing.published(connection, id_)) for id_ in self.model.rows}

        for id_, (lives, shown) in self.do(self.store._read(look)).items():
            row = self.model.rows[id_]
            assert shown == row.shown
            assert [(one.incarnation, one.status) for one in lives] == [one[:2] for one in row.lives]

    @invariant()
    def the_next_wake_is_the_earliest(self) -> None:
        waiting = [row.wake_at for row in self.model.rows.values() if row.status is Status.SUSPENDED]
        waiting += [row.expires_at for row in self.model.rows.values()]
        expected = min((wake_at for wake_at in waiting if wake_at is not None), default=None)
        assert self.do(self.store.next_wake()) == expected

    @invariant()
    def workers_own_what_the_model_says(self) -> None:
        for worker_id in self.registered:
            owned = {id_: row.fence for id_, row in self.model.rows.items() if row.owner == worker_id}
            assert self.do(self.store.owned(worker_id)) == owned


TestStoreAgainstModel = StoreMachine.TestCase
TestStoreAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
