"""Timers and those who are held: who wakes when, and who does not."""

from perdure._model.status import Held, Status
from perdure.testing.conformance.scene import SECOND, WORKFLOW, Scene, born, life_of, new_start, scenario


class TestTimers:
    """`promote` and `next_wake`."""

    @scenario
    async def test_a_due_execution_becomes_pending(self, scene: Scene) -> None:
        """Make SUSPENDED executions PENDING whose wake is due; gives how many."""
        await scene.worker()
        life = await scene.suspended("w1", wake_at=scene.clock.now() + SECOND)
        scene.clock.advance(SECOND)
        assert await scene.store.promote(10) == 1
        record = await scene.record(life)
        assert (record.status, record.wake_at, record.waits, record.fence) == (Status.PENDING, None, None, 1)
        assert record.changed_at == scene.clock.now()
        (claimed,) = await scene.claim("w1")
        assert (claimed.execution_id, claimed.fence) == (life.execution_id, 2)
        assert await scene.store.promote(10) == 0

    @scenario
    async def test_no_execution_is_promoted_early(self, scene: Scene) -> None:
        """An execution is never promoted before its `wake_at`: not by a millisecond."""
        await scene.worker()
        life = await scene.suspended("w1", wake_at=scene.clock.now() + SECOND)
        before = await scene.record(life)
        scene.clock.advance(SECOND - 1)
        assert await scene.store.promote(10) == 0
        assert await scene.record(life) == before
        scene.clock.advance(1)
        assert await scene.store.promote(10) == 1

    @scenario
    async def test_nobody_is_promoted_early_beside_one_that_is_due(self, scene: Scene) -> None:
        """An execution is never promoted before its `wake_at`, though others are."""
        await scene.worker()
        now = scene.clock.now()
        due, early = await scene.suspended("w1", wake_at=now), await scene.suspended("w1", wake_at=now + 1)
        assert await scene.store.promote(10) == 1
        statuses = [(await scene.record(life)).status for life in (due, early)]
        assert statuses == [Status.PENDING, Status.SUSPENDED]

    @scenario
    async def test_who_waits_only_for_mail_is_not_promoted(self, scene: Scene) -> None:
        """`wake_at` None: only by mail, however late it is."""
        await scene.worker()
        life = await scene.suspended("w1")
        scene.clock.advance(10**15)
        assert await scene.store.promote(10) == 0
        assert (await scene.record(life)).status is Status.SUSPENDED

    @scenario
    async def test_a_held_execution_is_never_promoted(self, scene: Scene) -> None:
        """A held one never: timers that fall due are kept and wait (R36)."""
        await scene.worker()
        life = await scene.held("w1", wake_at=scene.clock.now() + SECOND)
        before = await scene.record(life)
        scene.clock.advance(10**15)
        assert await scene.store.promote(10) == 0
        assert await scene.record(life) == before

    @scenario
    async def test_a_running_execution_is_not_promoted(self, scene: Scene) -> None:
        """Only SUSPENDED ones: mail that its owner has not read yet makes no timer."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.deliver(life.mail())
        scene.clock.advance(10**15)
        assert await scene.store.promote(10) == 0
        assert (await scene.record(life)).status is Status.RUNNING
        assert await scene.store.next_wake() is None

    @scenario
    async def test_the_longest_due_come_first_and_no_more_than_asked_for(self, scene: Scene) -> None:
        """Up to `limit`; the longest due first."""
        await scene.worker()
        now = scene.clock.now()
        lives = {delay: await scene.suspended("w1", wake_at=now + delay) for delay in (5, 1, 4, 2, 3)}
        scene.clock.advance(SECOND)
        assert await scene.store.promote(2) == 2
        pending = {delay for delay, life in lives.items() if (await scene.record(life)).status is Status.PENDING}
        assert pending == {1, 2}
        assert await scene.store.promote(9) == 3

    @scenario
    async def test_the_longest_due_is_claimed_first(self, scene: Scene) -> None:
        """It has been ready since it was due, however late it was promoted: oldest first."""
        await scene.worker()
        now = scene.clock.now()
        late, early = await scene.suspended("w1", wake_at=now + 9), await scene.suspended("w1", wake_at=now + 1)
        scene.clock.advance(5)
        between = await scene.running("w1")
        await scene.commit("w1", between.commit(Status.PENDING))
        scene.clock.advance(SECOND)
        await scene.store.promote(9)
        claimed = [record.execution_id for record in await scene.claim("w1")]
        assert claimed == [early.execution_id, between.execution_id, late.execution_id]

    @scenario
    async def test_timers_of_workflows_that_nobody_runs_fall_due_as_well(self, scene: Scene) -> None:
        """A due timer of any workflow becomes PENDING; it stands under its own workflow and blocks nobody."""
        start = new_start("Unregistered", due_at=scene.clock.now() + SECOND)
        await scene.commit("nobody", born(start, Status.SUSPENDED))
        scene.clock.advance(SECOND)
        assert await scene.store.promote(10) == 1
        assert (await scene.record(life_of(start))).status is Status.PENDING

    @scenario
    async def test_a_delayed_start_becomes_pending_when_it_is_due(self, scene: Scene) -> None:
        """Born SUSPENDED, promoted, claimed; it begins with its first claim."""
        await scene.worker()
        start = new_start(due_at=scene.clock.now() + SECOND)
        await scene.commit("nobody", born(start, Status.SUSPENDED))
        assert await scene.claim("w1") == []
        scene.clock.advance(SECOND)
        await scene.store.promote(10)
        (claimed,) = await scene.claim("w1")
        assert claimed.began_at == scene.clock.now()

    @scenario
    async def test_the_next_wake_is_the_earliest(self, scene: Scene) -> None:
        """`next_wake`: the earliest `wake_at` of any SUSPENDED execution that is not held."""
        await scene.worker()
        now = scene.clock.now()
        assert await scene.store.next_wake() is None
        await scene.suspended("w1")
        await scene.running("w1")
        await scene.held("w1", wake_at=now + 1)
        assert await scene.store.next_wake() is None
        await scene.suspended("w1", wake_at=now + 20)
        await scene.suspended("w1", wake_at=now + 10)
        assert await scene.store.next_wake() == now + 10
        scene.clock.advance(10)
        await scene.store.promote(10)
        assert await scene.store.next_wake() == now + 20

    @scenario
    async def test_a_wake_in_the_past_is_due_at_once(self, scene: Scene) -> None:
        """A timer that fell due while its commit was on the way is not lost."""
        await scene.worker()
        await scene.suspended("w1", wake_at=scene.clock.now() - SECOND)
        assert await scene.store.next_wake() == scene.clock.now() - SECOND
        assert await scene.store.promote(1) == 1


class TestHeld:
    """`resume`."""

    @scenario
    async def test_a_held_execution_is_resumed(self, scene: Scene) -> None:
        """Make a held execution PENDING; gives it as it stood before. Its cause is history."""
        await scene.worker()
        life = await scene.held("w1", wake_at=scene.clock.now() + SECOND)
        before = await scene.record(life)
        assert before.held is Held.DEFECT
        scene.clock.advance(1)
        assert await scene.store.resume(life.execution_id) == before
        record = await scene.record(life)
        assert (record.status, record.held, record.exit, record.waits) == (Status.PENDING, None, None, None)
        assert record.changed_at == scene.clock.now()
        (claimed,) = await scene.claim("w1")
        assert (claimed.execution_id, claimed.fence) == (life.execution_id, life.fence + 1)

    @scenario
    async def test_whoever_resumes_forgives_the_crashes(self, scene: Scene) -> None:
        """Held for its crashes, and resumed, it has as many tries as at first (R41)."""
        await scene.worker()
        await scene.worker("dead")
        life = await scene.running("dead")
        await scene.kill("dead")
        await scene.store.take_over("w1")
        life.claimed((await scene.claim("w1"))[0])
        held = life.commit(Status.SUSPENDED, held=Held.CRASHES, exit=b"{}")
        await scene.commit("w1", held)
        before = await scene.store.resume(life.execution_id)
        assert before is not None
        assert before.crashes == 1
        assert (await scene.record(life)).crashes == 0

    @scenario
    async def test_whoever_is_not_held_is_left_as_it_is(self, scene: Scene) -> None:
        """Every other is left as it is, and shown."""
        await scene.worker()
        for life in (
            await scene.pending(),
            await scene.running("w1"),
            await scene.suspended("w1", wake_at=scene.clock.now() + SECOND),
            await scene.finished("w1"),
        ):
            before = await scene.record(life)
            scene.clock.advance(1)
            assert await scene.store.resume(life.execution_id) == before
            assert await scene.record(life) == before

    @scenario
    async def test_resuming_what_is_not_there_gives_none(self, scene: Scene) -> None:
        """None: there is no such execution."""
        assert await scene.store.resume("0" * 32) is None
        assert await scene.store.resume("no id at all") is None


class TestHeartbeats:
    """`save_heartbeat` and `heartbeat`."""

    @scenario
    async def test_the_last_word_wins(self, scene: Scene) -> None:
        """Keep what an attempt says of its progress; the last word wins. Nothing else is written."""
        await scene.worker()
        life = await scene.running("w1")
        before = await scene.record(life)
        assert await scene.store.heartbeat(life.incarnation, "import", 1) is None
        await scene.store.save_heartbeat(life.incarnation, "import", 1, b"10")
        await scene.store.save_heartbeat(life.incarnation, "import", 1, b"20")
        assert await scene.store.heartbeat(life.incarnation, "import", 1) == b"20"
        assert await scene.record(life) == before
        assert await scene.entries(life) == []

    @scenario
    async def test_every_step_of_every_life_has_its_own(self, scene: Scene) -> None:
        """A heartbeat is kept by incarnation, name and occurrence (R37)."""
        await scene.worker()
        one, other = await scene.running("w1"), await scene.running("w1")
        await scene.store.save_heartbeat(one.incarnation, "import", 1, b"1")
        await scene.store.save_heartbeat(one.incarnation, "import", 2, b"2")
        await scene.store.save_heartbeat(one.incarnation, "export", 1, b"3")
        assert await scene.store.heartbeat(other.incarnation, "import", 1) is None
        assert await scene.store.heartbeat(one.incarnation, "import", 1) == b"1"
        assert await scene.store.heartbeat(one.incarnation, "import", 2) == b"2"
        assert await scene.store.heartbeat(one.incarnation, "export", 1) == b"3"
        assert await scene.store.claim("w1", [WORKFLOW], 1) == []
