"""What is written into journals: everything or nothing, in order, and never changed."""

import pytest

from perdure._model.journal import Entry, Kind
from perdure._model.records import Verdict
from perdure._model.status import Status
from perdure.errors import StoreRefusedError
from perdure.testing.conformance.scene import Scene, born, life_of, new_start, scenario


class TestJournal:
    """`commit` as far as entries go, and `load`."""

    @scenario
    async def test_entries_are_read_back_as_they_were_written(self, scene: Scene) -> None:
        """An entry is kept with all its fields, in the order of `seq`."""
        life = await scene.running(await scene.worker())
        entries = [
            Entry(1, Kind.ACTIVITY, "charge", 1, 1, b'{"amount":1}', b'{"success":{"id":"x"}}', scene.clock.now()),
            Entry(2, "a kind of a newer library", "Größe ✓", 2, 0, b"", b"\x00\xff", scene.clock.now() + 1),
            Entry(3, Kind.TIMER_SET, "", 1, 0, b"", b"", scene.clock.now() + 2),
        ]
        commit = life.commit()
        commit.entries = entries
        await scene.commit("w1", commit)
        assert await scene.entries(life) == entries

    @scenario
    async def test_only_the_entries_behind_a_seq_are_loaded(self, scene: Scene) -> None:
        """`load`: the entries behind that seq, in order."""
        life = await scene.running(await scene.worker())
        await scene.commit("w1", life.commit(entries=2))
        await scene.commit("w1", life.commit(entries=3))
        (history,) = await scene.store.load([(life.incarnation, 2, 0)])
        assert [entry.seq for entry in history.entries] == [3, 4, 5]

    @scenario
    async def test_many_journals_are_loaded_each_in_its_place(self, scene: Scene) -> None:
        """`load` answers in the order in which it was asked; nothing is known of a strange incarnation."""
        await scene.worker()
        one, other = await scene.running("w1"), await scene.running("w1")
        await scene.commit("w1", one.commit(entries=1), other.commit(entries=2))
        wanted = [(other.incarnation, 0, 0), (b"\x01" * 16, 0, 0), (one.incarnation, 0, 0), (other.incarnation, 9, 0)]
        histories = await scene.store.load(wanted)
        assert [len(history.entries) for history in histories] == [2, 0, 1, 0]
        assert histories[1].letters == []

    @scenario
    async def test_an_execution_is_born_with_its_entries(self, scene: Scene) -> None:
        """With `start` the execution is born in this commit, with everything in it."""
        await scene.worker()
        start = new_start()
        life = life_of(start)
        entry = life.entry()
        answers = await scene.commit("w1", born(start, Status.SUCCEEDED, entries=[entry], exit=b"{}"))
        assert answers[0].verdict is Verdict.STARTED
        assert await scene.entries(life) == [entry]

    @scenario
    async def test_entries_are_written_though_mail_makes_the_execution_stay(self, scene: Scene) -> None:
        """STAYS: entries written, but mail has come."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail())
        (answer,) = await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=2, exit=b"{}"))
        assert answer.verdict is Verdict.STAYS
        assert len(await scene.entries(life)) == 2

    @scenario
    async def test_a_repeated_append_is_granted_and_written_once(self, scene: Scene) -> None:
        """A lost answer is harmless: every write may be repeated word for word."""
        life = await scene.running(await scene.worker())
        commit = life.commit(entries=2)
        first = await scene.commit("w1", commit)
        assert await scene.commit("w1", commit) == first
        assert await scene.entries(life) == commit.entries

    @scenario
    async def test_an_entry_that_is_there_is_never_changed(self, scene: Scene) -> None:
        """Insert-only: another entry in the same place is refused, with its whole batch."""
        await scene.worker()
        life, neighbour = await scene.running("w1"), await scene.running("w1")
        commit = life.commit(entries=1)
        await scene.commit("w1", commit)
        forged = life.commit()
        forged.entries = [commit.entries[0]._replace(exit=b'{"success":2}')]
        with pytest.raises(StoreRefusedError):
            await scene.commit("w1", neighbour.commit(entries=1), forged)
        assert await scene.entries(life) == commit.entries
        assert await scene.entries(neighbour) == []

    @scenario
    async def test_data_that_the_database_refuses_leaves_nothing_of_the_batch(self, scene: Scene) -> None:
        """StoreRefusedError: the database refused the data of some commit; nothing was written."""
        await scene.worker()
        good, bad = await scene.running("w1"), await scene.running("w1")
        commit = bad.commit(entries=2)
        commit.entries = [commit.entries[0], commit.entries[1]._replace(name="\ud800")]
        start = new_start()
        with pytest.raises(StoreRefusedError):
            await scene.commit(
                "w1", good.commit(Status.SUCCEEDED, entries=1, exit=b"{}"), commit, born(start, Status.RUNNING)
            )
        assert (await scene.record(good)).status is Status.RUNNING
        assert await scene.entries(good) == []
        assert await scene.entries(bad) == []
        assert await scene.store.read([start.execution_id]) == []

    @scenario
    async def test_work_goes_on_after_refused_data(self, scene: Scene) -> None:
        """What was refused does not stand in the way of what is good."""
        life = await scene.running(await scene.worker())
        commit = life.commit(entries=1)
        entry = commit.entries[0]
        commit.entries = [entry._replace(name="\ud800")]
        with pytest.raises(StoreRefusedError):
            await scene.commit("w1", commit)
        commit.entries = [entry]
        (answer,) = await scene.commit("w1", commit)
        assert answer.verdict is Verdict.GRANTED
        assert await scene.entries(life) == [entry]

    @scenario
    async def test_nothing_is_written_under_another_fence(self, scene: Scene) -> None:
        """A store writes nothing under another fence than the one that the worker's claim gave it."""
        life = await scene.running(await scene.worker())
        for fence in (0, 2):
            life.fence = fence
            (answer,) = await scene.commit("w1", life.commit(entries=1))
            assert answer.verdict is Verdict.LOST
        assert await scene.entries(life) == []

    @scenario
    async def test_nothing_is_written_for_another_worker(self, scene: Scene) -> None:
        """LOST: no longer this worker's; nothing written, though the fence is right."""
        life = await scene.running(await scene.worker())
        await scene.worker("w2")
        (answer,) = await scene.commit("w2", life.commit(entries=1))
        assert answer.verdict is Verdict.LOST
        assert await scene.entries(life) == []

    @scenario
    async def test_nothing_is_written_into_another_life(self, scene: Scene) -> None:
        """`(execution, incarnation)` keys the journal (R37): a commit of another life is LOST."""
        life = await scene.running(await scene.worker())
        strange = life.commit(entries=1)
        strange.incarnation = b"\x07" * 16
        (answer,) = await scene.commit("w1", strange)
        assert answer.verdict is Verdict.LOST
        histories = await scene.store.load([(life.incarnation, 0, 0), (b"\x07" * 16, 0, 0)])
        assert [history.entries for history in histories] == [[], []]

    @scenario
    async def test_what_was_answered_is_there_for_another_process(self, scene: Scene) -> None:
        """Durable, then answered."""
        life = await scene.running(await scene.worker())
        other = await scene.another()
        await scene.commit("w1", life.commit(entries=1))
        (history,) = await other.load([(life.incarnation, 0, 0)])
        assert [entry.seq for entry in history.entries] == [1]

    @scenario
    async def test_a_thousand_commits_are_one_batch(self, scene: Scene) -> None:
        """Every commit of a batch is answered in its place, whatever the size of the batch."""
        await scene.worker()
        starts = [new_start() for _ in range(1_000)]
        lives = [life_of(start) for start in starts]
        answers = await scene.commit("w1", *(born(start, Status.RUNNING) for start in starts))
        assert {answer.verdict for answer in answers} == {Verdict.STARTED}
        lives[500].fence = 7
        answers = await scene.commit("w1", *(life.commit(entries=1) for life in lives))
        assert [place for place, answer in enumerate(answers) if answer.verdict is Verdict.LOST] == [500]
        assert await scene.entries(lives[500]) == []
        assert len(await scene.entries(lives[999])) == 1
