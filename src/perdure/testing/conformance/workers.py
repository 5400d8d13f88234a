"""Workers: known, alive, retired, taken over; and the store's own coming and going."""

import asyncio
from dataclasses import replace

from perdure._model.records import Verdict
from perdure._model.status import Status
from perdure.testing.conformance.scene import SECOND, WORKFLOW, Scene, scenario


class TestWorkers:
    """`register`, `alive`, `retire`, `take_over`, `owned`, `give_back`, `workers`."""

    @scenario
    async def test_workers_are_read_back_as_they_registered(self, scene: Scene) -> None:
        """Every worker that has not been forgotten, retired ones too."""
        one, other = scene.make_worker("w1"), replace(scene.make_worker("w2"), workflows=())
        await scene.store.register(one)
        await scene.store.register(other)
        scene.clock.advance(SECOND)
        await scene.store.retire("w1")
        retired = replace(one, retired_at=scene.clock.now())
        assert sorted(await scene.store.workers(), key=lambda worker: worker.worker_id) == [retired, other]

    @scenario
    async def test_registering_again_changes_nothing(self, scene: Scene) -> None:
        """Every write may be repeated word for word."""
        await scene.worker()
        await scene.store.register((await scene.store.workers())[0])
        assert len(await scene.store.workers()) == 1
        assert await scene.store.alive("w1")

    @scenario
    async def test_a_registered_worker_may_own_executions(self, scene: Scene) -> None:
        """It may own executions from now on."""
        life = await scene.pending()
        assert await scene.claim("w1") == []
        await scene.worker()
        assert [record.execution_id for record in await scene.claim("w1")] == [life.execution_id]

    @scenario
    async def test_a_worker_is_alive_until_it_is_retired(self, scene: Scene) -> None:
        """False: it has been retired and must drop what it has. So must one that nobody knows."""
        assert not await scene.store.alive("w1")
        await scene.worker()
        assert await scene.store.alive("w1")
        await scene.store.retire("w1")
        assert not await scene.store.alive("w1")

    @scenario
    async def test_what_a_leaving_worker_owns_becomes_pending(self, scene: Scene) -> None:
        """`retire`: what it still owns becomes PENDING; nothing else is touched."""
        await scene.worker()
        await scene.worker("w2")
        life, others = await scene.running("w1"), await scene.running("w2")
        untouched = [await scene.record(one) for one in (others, await scene.suspended("w1"), await scene.held("w1"))]
        await scene.store.retire("w1")
        record = await scene.record(life)
        assert (record.status, record.owner, record.crashes) == (Status.PENDING, None, 0)
        assert await scene.store.read([one.execution_id for one in untouched]) == untouched
        assert [one.execution_id for one in await scene.claim("w2")] == [life.execution_id]

    @scenario
    async def test_a_retired_workers_late_commit_is_not_taken_for_an_early_one(self, scene: Scene) -> None:
        """The fence of what a retired worker owned has grown: its late commit is LOST, not APPLIED."""
        life = await scene.running(await scene.worker())
        await scene.store.retire("w1")
        (answer,) = await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=1, exit=b"{}"))
        assert answer.verdict is Verdict.LOST
        assert (await scene.record(life)).fence > life.fence

    @scenario
    async def test_retiring_twice_is_harmless(self, scene: Scene) -> None:
        """The first retirement stands; one of an unknown worker does nothing."""
        await scene.worker()
        await scene.store.retire("w1")
        first = await scene.store.workers()
        scene.clock.advance(SECOND)
        await scene.store.retire("w1")
        await scene.store.retire("unheard-of")
        assert await scene.store.workers() == first

    @scenario
    async def test_a_dead_workers_executions_become_pending(self, scene: Scene) -> None:
        """`take_over`: what a dead worker owned becomes PENDING, one crash counted each; gives how many."""
        other = await scene.another()
        await scene.worker("dead", store=other)
        lives = [await scene.running("dead") for _ in range(3)]
        suspended = await scene.record(await scene.suspended("dead"))
        await scene.worker()
        await scene.kill("dead")
        scene.clock.advance(SECOND)
        assert await scene.store.take_over("w1") == 3
        for life in lives:
            record = await scene.record(life)
            assert (record.status, record.owner, record.crashes) == (Status.PENDING, None, 1)
            assert record.changed_at == scene.clock.now()
        assert await scene.store.read([suspended.execution_id]) == [suspended]
        assert not await scene.store.alive("dead")
        assert len(await scene.claim("w1")) == 3

    @scenario
    async def test_the_fence_of_a_freed_execution_grows(self, scene: Scene) -> None:
        """What a former owner still sends is LOST before anybody has claimed it."""
        await scene.worker("dead")
        await scene.worker()
        life = await scene.running("dead")
        await scene.kill("dead")
        await scene.store.take_over("w1")
        assert (await scene.record(life)).fence == life.fence + 1
        for status in (Status.RUNNING, Status.SUCCEEDED):
            (answer,) = await scene.commit("dead", life.commit(status, entries=1, exit=b"{}"))
            assert answer.verdict is Verdict.LOST
        assert await scene.entries(life) == []

    @scenario
    async def test_a_living_worker_is_never_taken_over(self, scene: Scene) -> None:
        """A worker that lives is never retired, wherever it lives; nor does one take over itself."""
        other = await scene.another()
        await scene.worker("near")
        await scene.worker("far", store=other)
        await scene.worker()
        lives = [await scene.running(worker_id) for worker_id in ("near", "far", "w1")]
        assert await scene.store.take_over("w1") == 0
        assert await other.take_over("far") == 0
        assert [(await scene.record(life)).owner for life in lives] == ["near", "far", "w1"]
        assert [await scene.store.alive(worker_id) for worker_id in ("near", "far", "w1")] == [True, True, True]

    @scenario
    async def test_nobody_takes_over_oneself(self, scene: Scene) -> None:
        """Every *other* worker that is dead: who can ask does not end its own work, dead as it may look."""
        life = await scene.running(await scene.worker())
        await scene.kill("w1")
        assert await scene.store.take_over("w1") == 0
        assert (await scene.record(life)).owner == "w1"

    @scenario
    async def test_the_dead_are_taken_over_once(self, scene: Scene) -> None:
        """Of two that take over at once one counts the crash, not both."""
        await scene.worker("dead")
        other = await scene.another()
        await scene.worker("w2", store=other)
        await scene.worker()
        lives = [await scene.running("dead") for _ in range(5)]
        await scene.kill("dead")
        freed = await asyncio.gather(scene.store.take_over("w1"), other.take_over("w2"))
        assert sorted(freed) == [0, 5]
        assert {(await scene.record(life)).crashes for life in lives} == {1}
        assert await scene.store.take_over("w1") == 0

    @scenario
    async def test_crashes_add_up_until_they_are_forgiven(self, scene: Scene) -> None:
        """A take-over adds 1 to `crashes`; a commit with `calm` sets it to 0 (R41)."""
        await scene.worker()
        life = await scene.pending()
        for crash in (1, 2):
            await scene.worker(f"dead{crash}")
            life.claimed((await scene.claim(f"dead{crash}"))[0])
            await scene.kill(f"dead{crash}")
            await scene.store.take_over("w1")
            assert (await scene.record(life)).crashes == crash
        life.claimed((await scene.claim("w1"))[0])
        await scene.commit("w1", life.commit(entries=1))
        assert (await scene.record(life)).crashes == 2
        await scene.commit("w1", life.commit(entries=1, calm=True))
        assert (await scene.record(life)).crashes == 0

    @scenario
    async def test_a_worker_that_leaves_by_itself_forgives_the_crashes(self, scene: Scene) -> None:
        """End a worker that leaves by itself: what it still owns becomes PENDING, its crashes forgiven (R41)."""
        await scene.worker()
        await scene.worker("dead")
        life = await scene.running("dead")
        await scene.kill("dead")
        await scene.store.take_over("w1")
        await scene.claim("w1")
        assert (await scene.record(life)).crashes == 1
        await scene.store.retire("w1")
        assert (await scene.record(life)).crashes == 0

    @scenario
    async def test_crashes_are_forgiven_with_every_kind_of_commit(self, scene: Scene) -> None:
        """A commit with `calm` sets `crashes` to 0, also one that leaves, or that has to stay."""
        await scene.worker()
        await scene.worker("dead")
        lives = {life.execution_id: life for life in [await scene.running("dead") for _ in range(4)]}
        await scene.kill("dead")
        await scene.store.take_over("w1")
        claimed = [lives[record.execution_id].claimed(record) for record in await scene.claim("w1")]
        await scene.deliver(claimed[3].mail())
        moves = (Status.PENDING, Status.SUSPENDED, Status.SUCCEEDED, Status.SUCCEEDED)
        answers = await scene.commit(
            "w1",
            *(
                life.commit(status, entries=1, exit=b"{}", calm=True)
                for life, status in zip(claimed, moves, strict=True)
            ),
        )
        assert [answer.verdict for answer in answers] == [Verdict.GRANTED] * 3 + [Verdict.STAYS]
        assert [(await scene.record(life)).crashes for life in claimed] == [0] * 4

    @scenario
    async def test_the_store_says_what_a_worker_owns(self, scene: Scene) -> None:
        """`owned`: what the store says that a worker owns, each with its fence."""
        await scene.worker()
        await scene.worker("w2")
        born, other = await scene.running("w1"), await scene.running("w2")
        claimed = await scene.pending()
        await scene.claim("w1")
        await scene.suspended("w1")
        await scene.finished("w1")
        assert await scene.store.owned("w1") == {born.execution_id: 1, claimed.execution_id: 1}
        assert await scene.store.owned("w2") == {other.execution_id: 1}
        assert await scene.store.owned("unheard-of") == {}

    @scenario
    async def test_what_a_worker_does_not_know_is_given_back(self, scene: Scene) -> None:
        """`give_back`: PENDING, no crash is counted, the fence grows."""
        await scene.worker()
        life = await scene.running("w1")
        assert await scene.store.give_back("w1", {life.execution_id: 1}) == 1
        record = await scene.record(life)
        assert (record.status, record.owner, record.crashes, record.fence) == (Status.PENDING, None, 0, 2)
        (answer,) = await scene.commit("w1", life.commit(Status.SUCCEEDED, exit=b"{}"))
        assert answer.verdict is Verdict.LOST
        assert await scene.store.give_back("w1", {life.execution_id: 1}) == 0

    @scenario
    async def test_only_what_still_has_that_fence_and_owner_is_given_back(self, scene: Scene) -> None:
        """Only those that still have the given fence and owner are touched."""
        await scene.worker()
        await scene.worker("w2")
        mine, others, parked = await scene.running("w1"), await scene.running("w2"), await scene.suspended("w1")
        lives = (mine, others, parked)
        before = [await scene.record(life) for life in lives]
        fences = {mine.execution_id: 2, others.execution_id: 1, parked.execution_id: 1, "0" * 32: 1}
        assert await scene.store.give_back("w1", fences) == 0
        assert [await scene.record(life) for life in lives] == before
        assert await scene.store.give_back("w1", {}) == 0


class TestStore:
    """`open`, `close`, `listen`, `clock`."""

    @scenario
    async def test_several_may_open_at_once(self, scene: Scene) -> None:
        """Bring the schema to this version; several may do so at once."""
        await asyncio.gather(*(scene.another() for _ in range(4)))

    @scenario
    async def test_closing_twice_is_harmless(self, scene: Scene) -> None:
        """Closing twice is harmless."""
        await scene.store.close()
        await scene.store.close()

    @scenario
    async def test_one_store_outlives_the_closing_of_another(self, scene: Scene) -> None:
        """Let go of its own connections, and of nobody else's."""
        other = await scene.another()
        life = await scene.running(await scene.worker())
        await scene.commit("w1", life.commit(entries=1))
        await other.close()
        await scene.commit("w1", life.commit(entries=1))
        assert len(await scene.entries(life)) == 2

    @scenario
    async def test_instants_are_those_of_the_stores_clock(self, scene: Scene) -> None:
        """The clock whose instants this store writes and compares with."""
        assert scene.store.clock is scene.clock
        life = await scene.pending()
        assert (await scene.record(life)).created_at == scene.clock.now()

    @scenario
    async def test_a_listener_is_told_that_another_has_written(self, scene: Scene) -> None:
        """Call `hint` on the event loop when somebody else may have written."""
        other = await scene.another()
        hinted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hint() -> None:
            assert asyncio.get_running_loop() is loop
            hinted.set()

        scene.store.listen(hint)
        for _ in range(3):
            hinted.clear()
            await other.register(scene.make_worker())
            await other.deliver([])
            life = await scene.pending()
            await other.deliver([life.mail()])
            await hinted.wait()

    @scenario
    async def test_a_cancelled_caller_does_not_take_its_commit_back(self, scene: Scene) -> None:
        """Cancelling a caller leaves a commit whole: all of it is written, or nothing."""
        life = await scene.running(await scene.worker())
        commit = life.commit(Status.SUCCEEDED, entries=1, exit=b"{}")
        caller = asyncio.ensure_future(scene.commit("w1", commit))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        (answer,) = await scene.commit("w1", commit)
        assert answer.verdict in {Verdict.GRANTED, Verdict.APPLIED}
        assert (await scene.record(life)).status is Status.SUCCEEDED
        assert len(await scene.entries(life)) == 1

    @scenario
    async def test_calls_may_overlap(self, scene: Scene) -> None:
        """Calls that run at once do not disturb each other, whatever they are."""
        await scene.worker()
        lives = [await scene.running("w1") for _ in range(20)]
        await asyncio.gather(
            *(scene.commit("w1", life.commit(entries=1)) for life in lives[:10]),
            *(scene.commit("w1", life.commit(Status.PENDING, entries=1)) for life in lives[10:]),
            *(scene.deliver(life.mail()) for life in lives[:10]),
            *(scene.store.read([life.execution_id]) for life in lives),
            scene.store.promote(5),
            scene.store.alive("w1"),
        )
        assert len(await scene.store.claim("w1", [WORKFLOW], 100)) == 10
        assert len(await scene.store.mail_for("w1")) == 10
        assert [len(await scene.entries(life)) for life in lives] == [1] * 20
