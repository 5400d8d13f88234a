"""What is removed: finished executions with everything that is theirs, and workers that are long gone."""

import os
from dataclasses import replace

from perdure._model.records import Receipt, Verdict
from perdure._model.status import FINAL, Status
from perdure.testing.conformance.scene import SECOND, WORKFLOW, Life, Scene, born, life_of, new_start, scenario


async def known(scene: Scene, *lives: Life) -> list[Life]:
    """Those of the executions that the store still knows."""
    found = {record.execution_id for record in await scene.store.read([life.execution_id for life in lives])}
    return [life for life in lives if life.execution_id in found]


async def restarted(scene: Scene, life: Life) -> Life:
    """The next life of an execution that has failed, in the hands of the worker."""
    again = replace(new_start(), execution_id=life.execution_id, restarts=True)
    await scene.commit("nobody", born(again, Status.PENDING))
    (record,) = await scene.claim("w1")
    return life_of(again).claimed(record)


class TestPurge:
    """`purge`."""

    @scenario
    async def test_an_execution_goes_with_everything_that_is_its_own(self, scene: Scene) -> None:
        """Its row, journal, mailbox and heartbeats; how many executions were removed."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.store.save_heartbeat(life.incarnation, "charge", 1, b"1")
        assert await scene.deliver(life.mail()) is Receipt.STORED
        life.seen = 1
        await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=3, exit=b'{"success":7}'))
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 10) == 1
        assert await known(scene, life) == []
        assert await scene.store.load([(life.incarnation, 0, 0)]) == [([], [])]
        assert await scene.store.tail(life.incarnation, 10) == ([], [])
        assert await scene.store.heartbeat(life.incarnation, "charge", 1) is None
        assert await scene.store.published(life.execution_id) == {}
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 10) == 0

    @scenario
    async def test_its_earlier_lives_go_with_it(self, scene: Scene) -> None:
        """R37: and their journals."""
        await scene.worker()
        first = await scene.finished("w1", Status.FAILED)
        second = await restarted(scene, first)
        await scene.commit("w1", second.commit(Status.SUCCEEDED, entries=1, exit=b'{"success":7}'))
        assert [life.number for life in await scene.store.lives(first.execution_id)] == [1]
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 10) == 1
        assert await scene.store.lives(first.execution_id) == []
        incarnations = [(first.incarnation, 0, 0), (second.incarnation, 0, 0)]
        assert await scene.store.load(incarnations) == [([], []), ([], [])]

    @scenario
    async def test_every_way_of_ending_counts(self, scene: Scene) -> None:
        """One that has ended, however that was."""
        await scene.worker()
        for status in FINAL:
            await scene.finished("w1", status)
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 10) == len(FINAL)

    @scenario
    async def test_one_that_has_not_ended_is_never_touched(self, scene: Scene) -> None:
        """However old it is."""
        await scene.worker()
        lives = [
            await scene.pending(),
            await scene.running("w1"),
            await scene.suspended("w1"),
            await scene.suspended("w1", wake_at=scene.clock.now() + 1),
            await scene.held("w1"),
        ]
        before = [await scene.record(life) for life in lives]
        scene.clock.advance(10**12)
        assert await scene.store.purge(None, scene.clock.now(), 10) == 0
        assert [await scene.record(life) for life in lives] == before

    @scenario
    async def test_one_that_is_restarted_has_not_ended(self, scene: Scene) -> None:
        """R37: its first life has, long ago."""
        await scene.worker()
        first = await scene.finished("w1", Status.FAILED)
        again = replace(new_start(), execution_id=first.execution_id, restarts=True)
        await scene.commit("nobody", born(again, Status.PENDING))
        scene.clock.advance(10**12)
        assert await scene.store.purge(None, scene.clock.now(), 10) == 0
        assert await known(scene, first) == [first]

    @scenario
    async def test_it_ended_at_that_instant_or_earlier(self, scene: Scene) -> None:
        """Not a millisecond later."""
        await scene.worker()
        old, now = await scene.finished("w1"), scene.clock.now()
        scene.clock.advance(1)
        young = await scene.finished("w1")
        assert await scene.store.purge(WORKFLOW, now - 1, 10) == 0
        assert await scene.store.purge(WORKFLOW, now, 10) == 1
        assert await known(scene, old, young) == [young]

    @scenario
    async def test_the_oldest_go_first_and_no_more_than_asked_for(self, scene: Scene) -> None:
        """Up to `limit`; oldest first."""
        await scene.worker()
        lives: list[Life] = []
        for _ in range(5):
            lives.append(await scene.finished("w1"))
            scene.clock.advance(SECOND)
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 2) == 2
        assert await known(scene, *lives) == lives[2:]
        assert await scene.store.purge(WORKFLOW, scene.clock.now(), 9) == 3

    @scenario
    async def test_only_those_of_the_workflow_unless_none_is_named(self, scene: Scene) -> None:
        """None: of any."""
        await scene.worker()
        lives: dict[str, Life] = {}
        for workflow in ("A", "B", "C"):
            lives[workflow] = await scene.running("w1", workflow=workflow)
            await scene.commit("w1", lives[workflow].commit(Status.SUCCEEDED, exit=b"{}"))
        assert await scene.store.purge("B", scene.clock.now(), 10) == 1
        assert await known(scene, *lives.values()) == [lives["A"], lives["C"]]
        assert await scene.store.purge("unknown", scene.clock.now(), 10) == 0
        assert await scene.store.purge(None, scene.clock.now(), 1) == 1
        assert await scene.store.purge(None, scene.clock.now(), 10) == 1

    @scenario
    async def test_zero_means_that_none_is_left(self, scene: Scene) -> None:
        """Whoever repeats until then has removed all, also where one of them is large."""
        await scene.worker()
        for entries in (1, 3_000, 1):
            life = await scene.running("w1")
            await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=entries, exit=b"{}"))
            scene.clock.advance(1)
        removed = 0
        while batch := await scene.store.purge(WORKFLOW, scene.clock.now(), 10):
            removed += batch
        assert removed == 3

    @scenario
    async def test_mail_that_comes_later_is_for_nobody(self, scene: Scene) -> None:
        """R18: UNKNOWN, and nothing is stored: the next execution of that id does not find it."""
        await scene.worker()
        life = await scene.finished("w1")
        await scene.store.purge(WORKFLOW, scene.clock.now(), 10)
        assert await scene.deliver(life.mail()) is Receipt.UNKNOWN
        again = replace(new_start(), execution_id=life.execution_id)
        await scene.commit("w1", born(again, Status.RUNNING))
        assert await scene.store.load([(life.incarnation, 0, 0), (again.incarnation, 0, 0)]) == [([], []), ([], [])]

    @scenario
    async def test_a_start_of_its_id_begins_anew(self, scene: Scene) -> None:
        """R2: the key is free again."""
        await scene.worker()
        life = await scene.finished("w1")
        await scene.store.purge(WORKFLOW, scene.clock.now(), 10)
        again = replace(new_start(), execution_id=life.execution_id)
        answers = await scene.commit("w1", born(again, Status.RUNNING))
        assert [answer.verdict for answer in answers] == [Verdict.STARTED]
        record = await scene.record(life)
        assert (record.incarnation, record.number, record.status) == (again.incarnation, 1, Status.RUNNING)

    @scenario
    async def test_what_its_former_owner_still_writes_is_lost(self, scene: Scene) -> None:
        """A worker that has slept through its end and its removal."""
        await scene.worker()
        life = await scene.finished("w1")
        await scene.store.purge(WORKFLOW, scene.clock.now(), 10)
        answers = await scene.commit("w1", life.commit(entries=1))
        assert [answer.verdict for answer in answers] == [Verdict.LOST]
        assert await scene.entries(life) == []


class TestPurgeLives:
    """`purge_lives`."""

    @scenario
    async def test_lives_that_were_put_aside_go_and_the_present_one_stays(self, scene: Scene) -> None:
        """Also of an execution that has not ended, and never will."""
        await scene.worker()
        first = await scene.finished("w1", Status.FAILED)
        scene.clock.advance(SECOND)
        second = await restarted(scene, first)
        await scene.commit("w1", second.commit(entries=2))
        before = await scene.record(second)
        put_aside_at = scene.clock.now()
        scene.clock.advance(SECOND)
        assert await scene.store.purge_lives(WORKFLOW, put_aside_at - 1, 10) == 0
        assert await scene.store.purge_lives(WORKFLOW, put_aside_at, 10) == 1
        assert await scene.store.lives(first.execution_id) == []
        assert await scene.entries(first) == []
        assert await scene.record(second) == before
        assert len(await scene.entries(second)) == 2

    @scenario
    async def test_no_more_lives_than_asked_for_and_the_oldest_first(self, scene: Scene) -> None:
        """Up to `limit`."""
        await scene.worker()
        life = await scene.finished("w1", Status.FAILED)
        for _ in range(3):
            scene.clock.advance(SECOND)
            life = await restarted(scene, life)
            await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
        assert await scene.store.purge_lives(WORKFLOW, scene.clock.now(), 2) == 2
        assert [one.number for one in await scene.store.lives(life.execution_id)] == [3]

    @scenario
    async def test_only_lives_of_the_workflow_unless_none_is_named(self, scene: Scene) -> None:
        """None: of any."""
        await scene.worker()
        await restarted(scene, await scene.finished("w1", Status.FAILED))
        assert await scene.store.purge_lives("Another", scene.clock.now(), 10) == 0
        assert await scene.store.purge_lives(None, scene.clock.now(), 10) == 1


class TestTail:
    """`tail`."""

    @scenario
    async def test_it_is_the_end_of_the_journal_in_order(self, scene: Scene) -> None:
        """The newest `limit` entries."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.commit("w1", life.commit(entries=5))
        entries, letters = await scene.store.tail(life.incarnation, 3)
        assert entries == (await scene.entries(life))[-3:]
        assert letters == []

    @scenario
    async def test_it_is_the_end_of_the_mailbox_in_order(self, scene: Scene) -> None:
        """The newest `limit` letters."""
        await scene.worker()
        life = await scene.running("w1")
        for name in ("a", "b", "c"):
            await scene.deliver(life.mail(name))
        entries, letters = await scene.store.tail(life.incarnation, 2)
        assert entries == []
        assert [letter.name for letter in letters] == ["b", "c"]

    @scenario
    async def test_of_an_unknown_life_there_is_none(self, scene: Scene) -> None:
        """Nor of one that has been purged."""
        assert await scene.store.tail(os.urandom(16), 3) == ([], [])


class TestForgetWorkers:
    """`forget_workers`."""

    @scenario
    async def test_those_that_were_retired_by_then_are_forgotten(self, scene: Scene) -> None:
        """At that instant or earlier; how many."""
        await scene.worker("w1")
        await scene.worker("w2")
        await scene.store.retire("w1")
        now = scene.clock.now()
        scene.clock.advance(1)
        await scene.store.retire("w2")
        assert await scene.store.forget_workers(now - 1) == 0
        assert await scene.store.forget_workers(now) == 1
        assert [worker.worker_id for worker in await scene.store.workers()] == ["w2"]

    @scenario
    async def test_one_that_lives_is_never_forgotten(self, scene: Scene) -> None:
        """However long it has been open."""
        await scene.worker("w1")
        life = await scene.running("w1")
        scene.clock.advance(10**12)
        assert await scene.store.forget_workers(scene.clock.now()) == 0
        assert await scene.store.alive("w1")
        assert (await scene.record(life)).owner == "w1"

    @scenario
    async def test_what_one_that_was_forgotten_still_writes_is_lost(self, scene: Scene) -> None:
        """As if it were only retired: it is not alive, and owns nothing."""
        await scene.worker("w1")
        life = await scene.running("w1")
        await scene.store.retire("w1")
        assert await scene.store.forget_workers(scene.clock.now()) == 1
        assert not await scene.store.alive("w1")
        assert [answer.verdict for answer in await scene.commit("w1", life.commit(entries=1))] == [Verdict.LOST]
        assert await scene.claim("w1") == []
        record = await scene.record(life)
        assert (record.status, record.owner) == (Status.PENDING, None)
