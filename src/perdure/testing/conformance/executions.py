"""How executions are born, claimed, parked, ended, and shown."""

import asyncio
import os
from dataclasses import replace

from perdure._model.records import Attributes, Query, Record, Verdict
from perdure._model.status import FINAL, MOVES, Held, Status
from perdure.testing.conformance.scene import SECOND, WORKFLOW, Life, Scene, born, life_of, new_start, scenario


async def _standing(scene: Scene, status: Status) -> Life:
    """An execution in a status."""
    if status is Status.RUNNING:
        return await scene.running("w1")
    if status is Status.PENDING:
        return await scene.pending()
    if status is Status.SUSPENDED:
        return await scene.suspended("w1")
    return await scene.finished("w1", status)


class TestStart:
    """`commit` with a start."""

    @scenario
    async def test_a_start_is_read_back_as_it_was_written(self, scene: Scene) -> None:
        """Every field of a start is in the record; instants are those of the store's clock."""
        await scene.worker()
        parent = await scene.running("w1")
        attributes: Attributes = {"text": "ä", "count": 3, "share": 0.5, "urgent": True}
        start = new_start(
            "Größe",
            priority=-2,
            key="order-1",
            attributes=attributes,
            version="v7",
            parent=parent.execution_id,
            number=2,
        )
        (answer,) = await scene.commit("w1", born(start, Status.RUNNING))
        assert answer.verdict is Verdict.STARTED
        now = scene.clock.now()
        assert await scene.record(life_of(start)) == Record(
            start.execution_id, start.incarnation, 2, "Größe", "order-1", Status.RUNNING, None, None, "w1", 1, 0, None,
            0, -2, "v7", parent.execution_id, attributes, now, now, None, now, start.payload, None,
        )  # fmt: skip

    @scenario
    async def test_an_execution_is_born_owned_under_fence_one(self, scene: Scene) -> None:
        """With `start` the execution is born in this commit: owned by the worker under fence 1."""
        life = await scene.running(await scene.worker(), began_at=scene.clock.now() - 1)
        record = await scene.record(life)
        assert (record.status, record.owner, record.fence) == (Status.RUNNING, "w1", 1)
        assert record.began_at == scene.clock.now() - 1

    @scenario
    async def test_an_execution_born_pending_has_no_owner(self, scene: Scene) -> None:
        """With `status` PENDING nobody has run it: its fence is 0, and the first claim makes it 1."""
        await scene.worker()
        life = await scene.pending(began_at=scene.clock.now())
        record = await scene.record(life)
        assert (record.status, record.owner, record.began_at, record.fence) == (Status.PENDING, None, None, 0)
        (claimed,) = await scene.claim("w1")
        assert (claimed.execution_id, claimed.fence) == (life.execution_id, 1)

    @scenario
    async def test_a_delayed_start_is_born_suspended(self, scene: Scene) -> None:
        """`due_at`: it is born SUSPENDED with this as its wake."""
        due_at = scene.clock.now() + SECOND
        start = new_start(due_at=due_at)
        (answer,) = await scene.commit("nobody", born(start, Status.SUSPENDED))
        assert answer.verdict is Verdict.STARTED
        record = await scene.record(life_of(start))
        assert (record.status, record.wake_at, record.owner, record.began_at) == (Status.SUSPENDED, due_at, None, None)
        assert record.fence == 0
        assert await scene.store.next_wake() == due_at

    @scenario
    async def test_an_execution_may_be_over_when_it_is_born(self, scene: Scene) -> None:
        """A body that never waits ends in the commit that it is born with."""
        await scene.worker()
        start = new_start()
        await scene.commit("w1", born(start, Status.FAILED, exit=b'{"failure":[]}'))
        record = await scene.record(life_of(start))
        assert (record.status, record.owner, record.exit) == (Status.FAILED, None, b'{"failure":[]}')
        assert record.fence == 1
        assert record.began_at == record.finished_at == scene.clock.now()

    @scenario
    async def test_an_execution_may_be_suspended_when_it_is_born(self, scene: Scene) -> None:
        """A body whose first turn comes to rest is born SUSPENDED, begun, with what it waits for."""
        await scene.worker()
        start = new_start()
        wake_at = scene.clock.now() + SECOND
        await scene.commit("w1", born(start, Status.SUSPENDED, wake_at=wake_at, waits=b'["approved"]'))
        record = await scene.record(life_of(start))
        assert (record.status, record.wake_at, record.waits) == (Status.SUSPENDED, wake_at, b'["approved"]')
        assert (record.began_at, record.fence) == (scene.clock.now(), 1)

    @scenario
    async def test_a_second_start_of_an_id_joins(self, scene: Scene) -> None:
        """JOINED: an execution of that id exists; nothing was written (R2)."""
        await scene.worker()
        for status in Status:
            life = await _standing(scene, status)
            before = await scene.record(life)
            scene.clock.advance(SECOND)
            other = replace(
                new_start("Refund", priority=9), execution_id=life.execution_id, incarnation=b"\x05" * 16, payload=b"{}"
            )
            entry = life_of(other).entry()
            (answer,) = await scene.commit("w1", born(other, Status.RUNNING, entries=[entry]))
            assert answer.verdict is Verdict.JOINED
            assert answer.met == ((other, before.payload),)
            assert await scene.record(life) == before
            assert (await scene.store.load([(b"\x05" * 16, 0, 0)]))[0].entries == []

    @scenario
    async def test_a_start_that_joins_is_told_of_another_payload(self, scene: Scene) -> None:
        """A start that JOINED an execution with another payload has it in `met`; other than those of all its lives (R2)."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        first = await scene.record(life)
        again = replace(new_start(), execution_id=life.execution_id, payload=b"2", restarts=True)
        await scene.commit("w1", born(again, Status.PENDING))
        for payload, met in ((first.payload, None), (b"2", None), (b"3", b"2")):
            for status in (Status.RUNNING, Status.PENDING):
                start = replace(again, incarnation=os.urandom(16), payload=payload, restarts=False)
                (answer,) = await scene.commit("w1", born(start, status))
                assert answer.verdict is Verdict.JOINED
                assert answer.met == (() if met is None else ((start, met),))

    @scenario
    async def test_one_of_two_starts_of_an_id_wins(self, scene: Scene) -> None:
        """Of starts that race, one is STARTED and every other has JOINED."""
        await scene.worker()
        other = await scene.another()
        start = new_start()
        rival = replace(start, incarnation=b"\x06" * 16)
        first, second = await asyncio.gather(
            scene.store.commit("w1", [born(start, Status.RUNNING)]),
            other.commit("w1", [born(rival, Status.RUNNING)]),
        )
        assert {first[0].verdict, second[0].verdict} == {Verdict.STARTED, Verdict.JOINED}
        winner = start if first[0].verdict is Verdict.STARTED else rival
        assert (await scene.record(life_of(start))).incarnation == winner.incarnation

    @scenario
    async def test_a_repeated_start_is_started_as_long_as_it_is_owned(self, scene: Scene) -> None:
        """A start whose own incarnation is there: STARTED if its worker still owns it under fence 1."""
        await scene.worker()
        start = new_start()
        life = life_of(start)
        commit = born(start, Status.RUNNING, entries=[life.entry()])
        await scene.commit("w1", commit)
        await scene.commit("w1", life.commit(entries=1))
        before = await scene.record(life)
        (answer,) = await scene.commit("w1", commit)
        assert answer.verdict is Verdict.STARTED
        assert await scene.record(life) == before
        assert len(await scene.entries(life)) == 2

    @scenario
    async def test_a_repeated_start_is_started_if_it_needed_no_worker(self, scene: Scene) -> None:
        """A start whose own incarnation is there: STARTED if it needed no worker, whoever has it now."""
        await scene.worker()
        for start, status in (
            (new_start(), Status.PENDING),
            (new_start(due_at=scene.clock.now() + SECOND), Status.SUSPENDED),
        ):
            commit = born(start, status)
            await scene.commit("nobody", commit)
            assert (await scene.commit("nobody", commit))[0].verdict is Verdict.STARTED
            scene.clock.advance(SECOND)
            await scene.store.promote(10)
            (claimed,) = await scene.claim("w1")
            assert (await scene.commit("nobody", commit))[0].verdict is Verdict.STARTED
            assert await scene.store.read([start.execution_id]) == [claimed]

    @scenario
    async def test_a_repeated_start_is_applied_when_it_is_owned_no_more(self, scene: Scene) -> None:
        """A start whose own incarnation is there: else APPLIED."""
        await scene.worker()
        start = new_start()
        life = life_of(start)
        commit = born(start, Status.RUNNING)
        await scene.commit("w1", commit)
        await scene.commit("w1", life.commit(Status.PENDING))
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED
        (claimed,) = await scene.claim("w1")  # by the same worker, under another fence
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED
        await scene.commit("w1", life.claimed(claimed).commit(Status.SUCCEEDED, exit=b"{}"))
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED

    @scenario
    async def test_a_start_repeated_under_another_workers_name_is_applied(self, scene: Scene) -> None:
        """STARTED if *its* worker still owns it: an engine that has registered anew does not own it."""
        await scene.worker("w1")
        await scene.worker("w2")
        commit = born(new_start(), Status.RUNNING)
        await scene.commit("w1", commit)
        assert (await scene.commit("w2", commit))[0].verdict is Verdict.APPLIED

    @scenario
    async def test_a_repeated_birth_of_a_finished_execution_is_applied(self, scene: Scene) -> None:
        """It needed a worker, and that worker does not own it: APPLIED."""
        await scene.worker()
        commit = born(new_start(), Status.SUCCEEDED, exit=b"{}")
        await scene.commit("w1", commit)
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED

    @scenario
    async def test_a_retired_worker_starts_nothing_that_it_would_own(self, scene: Scene) -> None:
        """A retired worker gets LOST for every commit that would be owned; nothing is written."""
        await scene.worker()
        await scene.store.retire("w1")
        running, over = new_start(), new_start()
        answers = await scene.commit("w1", born(running, Status.RUNNING), born(over, Status.SUCCEEDED, exit=b"{}"))
        assert [answer.verdict for answer in answers] == [Verdict.LOST, Verdict.LOST]
        assert await scene.store.read([running.execution_id, over.execution_id]) == []

    @scenario
    async def test_starts_that_nobody_owns_need_no_worker(self, scene: Scene) -> None:
        """Starts that are born PENDING or SUSPENDED need no worker."""
        await scene.worker()
        await scene.store.retire("w1")
        for worker_id in ("w1", "unheard-of"):
            answers = await scene.commit(
                worker_id, born(new_start(), Status.PENDING), born(new_start(due_at=1), Status.SUSPENDED)
            )
            assert [answer.verdict for answer in answers] == [Verdict.STARTED, Verdict.STARTED]

    @scenario
    async def test_a_body_starts_others_in_its_own_commit(self, scene: Scene) -> None:
        """`starts`: executions that its body started are born PENDING, or SUSPENDED until they are due (R42)."""
        life = await scene.running(await scene.worker())
        at_once, later = new_start(), new_start(due_at=scene.clock.now() + SECOND)
        await scene.commit("w1", life.commit(entries=2, starts=[at_once, later]))
        pending, delayed = await scene.record(life_of(at_once)), await scene.record(life_of(later))
        assert (pending.status, pending.owner, pending.began_at) == (Status.PENDING, None, None)
        assert (delayed.status, delayed.wake_at) == (Status.SUSPENDED, later.due_at)

    @scenario
    async def test_an_execution_that_exists_is_left_alone_by_a_body_that_starts_it(self, scene: Scene) -> None:
        """An execution that a body starts and that exists already is left alone."""
        await scene.worker()
        life, other = await scene.running("w1"), await scene.finished("w1")
        before = await scene.record(other)
        again = replace(new_start("Refund"), execution_id=other.execution_id)
        (answer,) = await scene.commit("w1", life.commit(entries=1, starts=[again]))
        assert answer.verdict is Verdict.GRANTED
        assert await scene.record(other) == before

    @scenario
    async def test_two_bodies_may_start_the_same_execution_in_one_batch(self, scene: Scene) -> None:
        """The first one's start is written, the second one's is left alone; both commits are granted."""
        await scene.worker()
        lives = [await scene.running("w1"), await scene.running("w1")]
        shared = new_start()
        twins = [shared, replace(shared, incarnation=b"\x09" * 16)]
        answers = await scene.commit(
            "w1", *(life.commit(entries=1, starts=[twin]) for life, twin in zip(lives, twins, strict=True))
        )
        assert {answer.verdict for answer in answers} == {Verdict.GRANTED}
        assert (await scene.record(life_of(shared))).incarnation == shared.incarnation

    @scenario
    async def test_a_lost_commit_starts_nothing(self, scene: Scene) -> None:
        """LOST: nothing written, the executions that its body started neither."""
        life = await scene.running(await scene.worker())
        life.fence = 9
        start = new_start()
        await scene.commit("w1", life.commit(starts=[start]))
        assert await scene.store.read([start.execution_id]) == []


class TestCommit:
    """`commit` of an execution that exists: its status, and who may change it."""

    @scenario
    async def test_a_running_execution_moves_where_the_table_of_moves_lets_it(self, scene: Scene) -> None:
        """RUNNING keeps it; PENDING gives it back; SUSPENDED parks it; else it ends. GRANTED each time."""
        await scene.worker()
        for status in MOVES[Status.RUNNING] | {Status.RUNNING}:
            life = await scene.running("w1")
            exit_ = b"{}" if status in FINAL else None
            (answer,) = await scene.commit("w1", life.commit(status, entries=1, exit=exit_))
            assert answer.verdict is Verdict.GRANTED
            record = await scene.record(life)
            assert (record.status, record.exit) == (status, exit_)
            assert record.owner == ("w1" if status is Status.RUNNING else None)

    @scenario
    async def test_the_owners_own_moves_leave_the_fence_alone(self, scene: Scene) -> None:
        """The owner's own suspend, release and completion leave the fence alone."""
        await scene.worker()
        for status in MOVES[Status.RUNNING] | {Status.RUNNING}:
            life = await scene.running("w1")
            await scene.commit("w1", life.commit(status, exit=b"{}"))
            assert (await scene.record(life)).fence == 1

    @scenario
    async def test_an_append_leaves_the_record_as_it_was(self, scene: Scene) -> None:
        """A commit that only appends writes its entries, and nothing else."""
        life = await scene.running(await scene.worker())
        before = await scene.record(life)
        scene.clock.advance(SECOND)
        await scene.commit("w1", life.commit(entries=3))
        assert await scene.record(life) == before

    @scenario
    async def test_a_finished_execution_has_its_exit_and_no_owner(self, scene: Scene) -> None:
        """A finished commit clears `wake_at`, sets `finished_at`, and no owner is left."""
        life = await scene.running(await scene.worker())
        scene.clock.advance(SECOND)
        await scene.commit("w1", life.commit(Status.SUCCEEDED, exit=b'{"success":1}', wake_at=7, waits=b"[]"))
        record = await scene.record(life)
        assert (record.status, record.exit, record.owner) == (Status.SUCCEEDED, b'{"success":1}', None)
        assert (record.wake_at, record.waits, record.held) == (None, None, None)
        assert record.finished_at == record.changed_at == scene.clock.now()
        assert record.created_at == scene.clock.now() - SECOND

    @scenario
    async def test_a_suspended_execution_says_when_and_for_what_it_waits(self, scene: Scene) -> None:
        """`wake_at`, and `waits` written with a suspension (R33)."""
        life = await scene.running(await scene.worker())
        wake_at = scene.clock.now() + SECOND
        await scene.commit("w1", life.commit(Status.SUSPENDED, wake_at=wake_at, waits=b'["timer"]'))
        record = await scene.record(life)
        assert (record.wake_at, record.waits, record.held, record.exit) == (wake_at, b'["timer"]', None, None)

    @scenario
    async def test_a_held_execution_shows_itself_suspended_with_code_and_cause(self, scene: Scene) -> None:
        """SUSPENDED with `held` holds it; `exit` is the cause."""
        await scene.worker()
        for code in Held:
            life = await scene.running("w1")
            await scene.commit("w1", life.commit(Status.SUSPENDED, held=code, exit=b'{"failure":[]}', waits=b"[1]"))
            record = await scene.record(life)
            assert (record.status, record.held, record.exit) == (Status.SUSPENDED, code, b'{"failure":[]}')
            assert (record.waits, record.owner, record.finished_at) == (b"[1]", None, None)

    @scenario
    async def test_releasing_makes_an_execution_ready_at_once(self, scene: Scene) -> None:
        """Releasing to PENDING makes it ready at once; the next claim's fence is one higher."""
        life = await scene.running(await scene.worker())
        await scene.commit("w1", life.commit(Status.PENDING, entries=1))
        (record,) = await scene.claim("w1")
        assert (record.execution_id, record.fence) == (life.execution_id, 2)

    @scenario
    async def test_a_release_needs_no_look_at_the_mail(self, scene: Scene) -> None:
        """Only who suspends or ends must have seen the newest mail; a released execution is claimed anyway."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail())
        (answer,) = await scene.commit("w1", life.commit(Status.PENDING))
        assert answer.verdict is Verdict.GRANTED
        assert (await scene.record(life)).status is Status.PENDING

    @scenario
    async def test_a_repeated_commit_of_an_execution_that_has_left_is_applied(self, scene: Scene) -> None:
        """APPLIED: it was there already, an earlier try whose answer was lost."""
        await scene.worker()
        for status in MOVES[Status.RUNNING]:
            life = await scene.running("w1")
            commit = life.commit(status, entries=1, exit=b"{}")
            await scene.commit("w1", commit)
            before = await scene.record(life)
            scene.clock.advance(SECOND)
            assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED
            assert await scene.record(life) == before
            assert await scene.entries(life) == commit.entries

    @scenario
    async def test_a_repeated_commit_is_lost_once_somebody_has_claimed(self, scene: Scene) -> None:
        """LOST: the fence has grown, whoever claimed it."""
        await scene.worker()
        life = await scene.running("w1")
        commit = life.commit(Status.PENDING, entries=1)
        await scene.commit("w1", commit)
        await scene.claim("w1")
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.LOST

    @scenario
    async def test_an_unknown_execution_is_lost(self, scene: Scene) -> None:
        """LOST: nothing is written for an execution that is not there."""
        await scene.worker()
        life = life_of(new_start())
        assert (await scene.commit("w1", life.commit(entries=1)))[0].verdict is Verdict.LOST
        assert await scene.entries(life) == []

    @scenario
    async def test_a_finished_execution_is_never_changed(self, scene: Scene) -> None:
        """A final execution is never changed: not by commits, mail, timers, claims, resume, nor by taking over."""
        await scene.worker()
        await scene.worker("w2")
        for status in FINAL:
            life = await scene.finished("w1", status)
            before = await scene.record(life)
            scene.clock.advance(SECOND)
            for fence in (0, 1, 2):
                life.fence = fence
                for next_ in Status:
                    await scene.commit("w1", life.commit(next_, entries=1, exit=b"other", wake_at=1, calm=True))
            await scene.deliver(life.mail())
            await scene.store.promote(10)
            await scene.store.resume(life.execution_id)
            await scene.store.give_back("w1", {life.execution_id: 1})
            assert await scene.claim("w1") == []
            assert await scene.record(life) == before
            assert len(await scene.entries(life)) == 1

    @scenario
    async def test_commits_of_a_batch_do_not_disturb_each_other(self, scene: Scene) -> None:
        """One that is LOST or JOINED leaves the rest as it is."""
        await scene.worker()
        lost, good, over = await scene.running("w1"), await scene.running("w1"), await scene.finished("w1")
        lost.fence = 9
        joined = replace(new_start(), execution_id=good.execution_id)
        fresh = new_start()
        repeat = over.commit(Status.SUCCEEDED, exit=b"{}")
        answers = await scene.commit(
            "w1",
            lost.commit(Status.FAILED, entries=1, exit=b"{}"),
            born(joined, Status.RUNNING),
            repeat,
            born(fresh, Status.RUNNING),
        )
        verdicts = [answer.verdict for answer in answers]
        assert verdicts == [Verdict.LOST, Verdict.JOINED, Verdict.APPLIED, Verdict.STARTED]
        assert (await scene.record(life_of(fresh))).status is Status.RUNNING

    @scenario
    async def test_an_empty_batch_is_answered_with_nothing(self, scene: Scene) -> None:
        """Each commit is answered in its place: of none there is no answer."""
        assert await scene.commit(await scene.worker()) == []

    @scenario
    async def test_a_retired_workers_commits_are_lost(self, scene: Scene) -> None:
        """A retired worker gets LOST for every commit that is owned, and nothing of it is written."""
        life = await scene.running(await scene.worker())
        await scene.store.retire("w1")
        before = await scene.record(life)
        start = new_start()
        for status in (Status.RUNNING, Status.SUSPENDED, Status.PENDING, Status.SUCCEEDED):
            (answer,) = await scene.commit("w1", life.commit(status, entries=1, exit=b"{}", starts=[start]))
            assert answer.verdict is Verdict.LOST
        assert await scene.record(life) == before
        assert await scene.entries(life) == []
        assert await scene.store.read([start.execution_id]) == []

    @scenario
    async def test_a_worker_that_was_never_registered_owns_nothing(self, scene: Scene) -> None:
        """Only a registered worker may own executions."""
        start = new_start()
        assert (await scene.commit("unheard-of", born(start, Status.RUNNING)))[0].verdict is Verdict.LOST
        await scene.pending()
        assert await scene.claim("unheard-of") == []


class TestClaim:
    """`claim`: who gets what."""

    @scenario
    async def test_a_claim_gives_the_record_as_it_stands_then(self, scene: Scene) -> None:
        """Each becomes RUNNING, owned, its fence one higher."""
        await scene.worker()
        life = await scene.pending()
        before = await scene.record(life)
        scene.clock.advance(SECOND)
        (claimed,) = await scene.claim("w1")
        assert claimed == await scene.record(life)
        assert (claimed.status, claimed.owner, claimed.fence) == (Status.RUNNING, "w1", before.fence + 1)

    @scenario
    async def test_the_first_claim_of_all_says_when_it_began(self, scene: Scene) -> None:
        """The first claim of all sets `began_at`."""
        await scene.worker()
        life = await scene.pending()
        scene.clock.advance(SECOND)
        (record,) = await scene.claim("w1")
        began_at = scene.clock.now()
        assert record.began_at == began_at
        await scene.commit("w1", life.claimed(record).commit(Status.PENDING))
        scene.clock.advance(SECOND)
        (record,) = await scene.claim("w1")
        assert record.began_at == began_at

    @scenario
    async def test_only_the_asked_workflows_are_claimed(self, scene: Scene) -> None:
        """PENDING executions of these workflows; a workflow nobody asks for blocks nobody (R3)."""
        await scene.worker()
        for _ in range(5):
            await scene.pending(workflow="Unregistered", priority=9)
        life = await scene.pending()
        assert [record.execution_id for record in await scene.claim("w1", 3)] == [life.execution_id]
        assert await scene.store.claim("w1", [], 3) == []
        assert len(await scene.store.claim("w1", ["Other", "Unregistered"], 3)) == 3

    @scenario
    async def test_no_more_are_claimed_than_asked_for(self, scene: Scene) -> None:
        """Take up to `limit`, over all workflows together."""
        await scene.worker()
        for workflow in (WORKFLOW, "Refund") * 3:
            await scene.pending(workflow=workflow)
        counts = [len(await scene.store.claim("w1", [WORKFLOW, "Refund", WORKFLOW], 4)) for _ in range(3)]
        assert counts == [4, 2, 0]

    @scenario
    async def test_the_highest_priority_comes_first_then_the_oldest(self, scene: Scene) -> None:
        """Highest priority first, oldest first, whatever the workflow."""
        await scene.worker()
        expected: list[tuple[int, int, Life]] = []
        for place, (priority, workflow) in enumerate(
            [(0, WORKFLOW), (5, "Refund"), (-1, WORKFLOW), (0, "Refund"), (5, WORKFLOW), (0, WORKFLOW)]
        ):
            expected.append((-priority, place, await scene.pending(workflow=workflow, priority=priority)))
            scene.clock.advance(1)
        records = [(await scene.store.claim("w1", ["Refund", WORKFLOW], 2)) for _ in range(3)]
        claimed = [record.execution_id for batch in records for record in batch]
        assert claimed == [life.execution_id for _, _, life in sorted(expected, key=lambda one: one[:2])]

    @scenario
    async def test_among_equals_three_that_have_begun_come_before_one_that_is_new(self, scene: Scene) -> None:
        """Those that have begun before come first, three to one, so that neither starves."""
        await scene.worker()
        fresh = {(await scene.pending()).execution_id for _ in range(8)}
        for _ in range(8):
            life = await scene.running("w1")
            await scene.commit("w1", life.commit(Status.PENDING))
        claimed = [record.execution_id for record in await scene.claim("w1", 8)]
        assert sum(execution_id in fresh for execution_id in claimed) == 2
        assert sum(execution_id in fresh for execution_id in claimed[:4]) == 1

    @scenario
    async def test_who_claims_one_at_a_time_comes_to_new_work_as_well(self, scene: Scene) -> None:
        """Three to one over several claims: neither new work nor old starves."""
        await scene.worker()
        fresh = {(await scene.pending()).execution_id for _ in range(4)}
        for _ in range(12):
            life = await scene.running("w1")
            await scene.commit("w1", life.commit(Status.PENDING))
        claimed = [(await scene.claim("w1", 1))[0].execution_id for _ in range(8)]
        assert sum(execution_id in fresh for execution_id in claimed) == 2

    @scenario
    async def test_a_better_priority_comes_before_one_that_has_begun(self, scene: Scene) -> None:
        """Three to one holds among equals only."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.commit("w1", life.commit(Status.PENDING))
        better = [await scene.pending(priority=1) for _ in range(3)]
        claimed = [record.execution_id for record in await scene.claim("w1", 4)]
        assert claimed == [*(one.execution_id for one in better), life.execution_id]

    @scenario
    async def test_no_execution_is_given_to_two_claims(self, scene: Scene) -> None:
        """Two workers that claim at once get different executions, and all of them."""
        await scene.worker()
        other = await scene.another()
        await scene.worker("w2", store=other)
        ids = {(await scene.pending()).execution_id for _ in range(60)}
        batches = await asyncio.gather(
            *(store.claim(worker_id, [WORKFLOW], 7) for store, worker_id in [(scene.store, "w1"), (other, "w2")] * 6)
        )
        claimed = [record.execution_id for batch in batches for record in batch]
        assert sorted(claimed) == sorted(ids)

    @scenario
    async def test_a_retired_worker_claims_nothing(self, scene: Scene) -> None:
        """A retired worker gets nothing."""
        await scene.worker()
        life = await scene.pending()
        await scene.store.retire("w1")
        assert await scene.claim("w1") == []
        assert (await scene.record(life)).status is Status.PENDING

    @scenario
    async def test_only_pending_executions_are_claimed(self, scene: Scene) -> None:
        """Take PENDING executions, and no other."""
        await scene.worker()
        for status in set(Status) - {Status.PENDING}:
            await _standing(scene, status)
        await scene.held("w1")
        assert await scene.claim("w1") == []


class TestLooking:
    """`read` and `executions`."""

    @scenario
    async def test_reading_gives_the_executions_that_exist(self, scene: Scene) -> None:
        """The executions of these ids that exist, each once."""
        lives = [await scene.pending() for _ in range(3)]
        ids = [life.execution_id for life in lives]
        records = await scene.store.read([*ids, "0" * 32, "no id at all", ids[0]])
        assert sorted(record.execution_id for record in records) == sorted(ids)
        assert await scene.store.read([]) == []

    @scenario
    async def test_a_listing_is_newest_first(self, scene: Scene) -> None:
        """One page of a listing: newest first, of all workflows or of one."""
        lives: list[Life] = []
        for workflow in (WORKFLOW, "Refund") * 3:
            lives.append(await scene.pending(workflow=workflow))
            scene.clock.advance(1)
        newest_first = [life.execution_id for life in reversed(lives)]
        assert await _ids(scene, Query()) == newest_first
        assert await _ids(scene, Query(limit=4)) == newest_first[:4]
        assert await _ids(scene, Query(workflow="Refund")) == newest_first[::2]
        assert await _ids(scene, Query(workflow="Unheard")) == []

    @scenario
    async def test_a_listing_goes_on_behind_the_last_one_read(self, scene: Scene) -> None:
        """`after`: no execution is missed or shown twice, those of one millisecond neither."""
        for place in range(10):
            await scene.pending(workflow=f"W{place % 3}")
            scene.clock.advance(place % 2)
        for workflow in (None, "W0"):
            everything = await scene.store.executions(Query(workflow=workflow))
            pages: list[Record] = []
            page = await scene.store.executions(Query(workflow=workflow, limit=3))
            while page:
                pages += page
                last = page[-1]
                after = last.created_at, last.execution_id
                page = await scene.store.executions(Query(workflow=workflow, limit=3, after=after))
            assert pages == everything
            assert len({record.execution_id for record in pages}) == (10 if workflow is None else 4)

    @scenario
    async def test_a_listing_is_narrowed_by_status_and_code(self, scene: Scene) -> None:
        """All conditions at once; a held execution is a SUSPENDED one with a code."""
        await scene.worker()
        by_status = {status: {(await _standing(scene, status)).execution_id} for status in Status}
        held = (await scene.held("w1", code=Held.DEFECT)).execution_id
        other = (await scene.held("w1", code=Held.CRASHES)).execution_id
        by_status[Status.SUSPENDED] |= {held, other}
        for status, ids in by_status.items():
            assert set(await _ids(scene, Query(status=status))) == ids
        assert await _ids(scene, Query(held=Held.DEFECT)) == [held]
        assert await _ids(scene, Query(held=Held.CRASHES, status=Status.SUSPENDED)) == [other]
        assert await _ids(scene, Query(held=Held.CRASHES, status=Status.RUNNING)) == []

    @scenario
    async def test_a_listing_is_narrowed_by_time(self, scene: Scene) -> None:
        """`since`: created then or later."""
        await scene.pending()
        scene.clock.advance(SECOND)
        life = await scene.pending()
        assert await _ids(scene, Query(since=scene.clock.now())) == [life.execution_id]
        assert await _ids(scene, Query(since=scene.clock.now() + 1)) == []

    @scenario
    async def test_a_listing_is_narrowed_by_attributes(self, scene: Scene) -> None:
        """Attributes are compared by value and by kind: True is not 1, and "1" is neither."""
        values: list[str | float | bool] = ["1", 1, 2.5, True, False, 'quo"te']
        lives = [await scene.pending(attributes={'a "key".[0]': value, "all": "x"}) for value in values]
        for life, value in zip(lives, values, strict=True):
            assert await _ids(scene, Query(attributes={'a "key".[0]': value})) == [life.execution_id]
            assert await _ids(scene, Query(attributes={'a "key".[0]': value, "all": "y"})) == []
        assert len(await _ids(scene, Query(attributes={"all": "x"}))) == len(values)
        assert await _ids(scene, Query(attributes={"none": 1})) == []


async def _ids(scene: Scene, query: Query) -> list[str]:
    return [record.execution_id for record in await scene.store.executions(query)]
