"""Mail: stored once, in order, and never without the wake that belongs to it."""

from dataclasses import replace

from perdure._model.records import Answer, Letter, Mail, Receipt, Verdict
from perdure._model.status import FINAL, Held, Status
from perdure.testing.conformance.scene import SECOND, Scene, born, life_of, new_start, scenario


class TestMailbox:
    """`deliver`, `mail_for`, and what mail does to a commit."""

    @scenario
    async def test_mail_is_read_back_as_it_was_delivered(self, scene: Scene) -> None:
        """`load`: all mail, in order, each with its number and the instant of its delivery."""
        life = await scene.pending()
        await scene.deliver(Mail(life.execution_id, "deferred", "Größe", b"\x00\xff"))
        scene.clock.advance(SECOND)
        await scene.deliver(Mail(life.execution_id, "interrupt", "", b""))
        (history,) = await scene.store.load([(life.incarnation, 99, 0)])
        assert history.entries == []
        first, second = history.letters
        assert first == Letter(first.wake, "deferred", "Größe", b"\x00\xff", scene.clock.now() - SECOND)
        assert second == Letter(second.wake, "interrupt", "", b"", scene.clock.now())
        assert first.wake < second.wake == (await scene.record(life)).wakes

    @scenario
    async def test_the_first_of_a_kind_and_name_wins(self, scene: Scene) -> None:
        """IGNORED: the first of that kind and name has won; nothing is changed (R18)."""
        life = await scene.pending()
        assert await scene.deliver(life.mail(exit=b"1")) is Receipt.STORED
        before = await scene.record(life)
        assert await scene.deliver(life.mail(exit=b"2")) is Receipt.IGNORED
        assert await scene.deliver(life.mail(kind="other", exit=b"3")) is Receipt.STORED
        assert await scene.deliver(life.mail(name="other", exit=b"4")) is Receipt.STORED
        assert before.wakes < (await scene.record(life)).wakes
        (history,) = await scene.store.load([(life.incarnation, 0, 0)])
        assert [letter.exit for letter in history.letters] == [b"1", b"3", b"4"]

    @scenario
    async def test_ignored_mail_wakes_nobody(self, scene: Scene) -> None:
        """IGNORED leaves the execution as it is: it does not wake, and its owner is not told."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.deliver(life.mail())
        life.seen = (await scene.store.mail_for("w1"))[life.execution_id]
        await scene.deliver(life.mail(exit=b"2"))
        assert await scene.store.mail_for("w1") == {}
        await scene.commit("w1", life.commit(Status.SUSPENDED))
        await scene.deliver(life.mail(exit=b"3"))
        assert (await scene.record(life)).status is Status.SUSPENDED

    @scenario
    async def test_mail_begins_no_delayed_start_before_it_is_due(self, scene: Scene) -> None:
        """Delayed and not due yet: the mail is kept and waits, and is there for the first claim (R18)."""
        await scene.worker()
        start = new_start(due_at=scene.clock.now() + SECOND)
        await scene.commit("nobody", born(start, Status.SUSPENDED))
        life = life_of(start)
        assert await scene.deliver(life.mail()) is Receipt.STORED
        record = await scene.record(life)
        assert (record.status, record.wake_at, record.wakes) == (Status.SUSPENDED, start.due_at, 1)
        assert await scene.store.claim("w1", [start.workflow], 1) == []
        scene.clock.advance(SECOND)
        assert await scene.store.promote(1) == 1
        (claimed,) = await scene.store.claim("w1", [start.workflow], 1)
        assert (claimed.execution_id, claimed.wakes) == (life.execution_id, 1)

    @scenario
    async def test_every_piece_of_mail_has_its_own_receipt(self, scene: Scene) -> None:
        """Receipts stand in the place of their mail; what cannot be stored does not disturb the rest."""
        await scene.worker()
        life, over = await scene.pending(), await scene.finished("w1")
        stranger = life_of(new_start())
        receipts = await scene.store.deliver(
            [life.mail(), stranger.mail(), over.mail(), life.mail(exit=b"2"), life.mail(name="b"), over.mail()]
        )
        assert receipts == [
            Receipt.STORED, Receipt.UNKNOWN, Receipt.FINISHED, Receipt.IGNORED, Receipt.STORED, Receipt.FINISHED,
        ]  # fmt: skip
        histories = await scene.store.load(
            [(life.incarnation, 0, 0), (over.incarnation, 0, 0), (stranger.incarnation, 0, 0)]
        )
        assert [len(history.letters) for history in histories] == [2, 0, 0]
        assert await scene.store.deliver([]) == []

    @scenario
    async def test_mail_to_no_id_at_all_is_unknown(self, scene: Scene) -> None:
        """UNKNOWN: there is no such execution, whatever was taken for its id."""
        assert await scene.deliver(Mail("no id", "deferred", "x", b"1")) is Receipt.UNKNOWN

    @scenario
    async def test_nothing_is_stored_for_a_finished_execution(self, scene: Scene) -> None:
        """FINISHED: the execution has ended; nothing was stored."""
        await scene.worker()
        for status in FINAL:
            life = await scene.finished("w1", status)
            before = await scene.record(life)
            assert await scene.deliver(life.mail()) is Receipt.FINISHED
            assert await scene.record(life) == before
            assert (await scene.store.load([(life.incarnation, 0, 0)]))[0].letters == []

    @scenario
    async def test_mail_wakes_a_suspended_execution(self, scene: Scene) -> None:
        """A SUSPENDED execution becomes PENDING; mail and move are one transaction. Its fence stays."""
        await scene.worker()
        life = await scene.suspended("w1", wake_at=scene.clock.now() + SECOND)
        assert await scene.deliver(life.mail()) is Receipt.STORED
        record = await scene.record(life)
        assert (record.status, record.wake_at, record.waits, record.fence) == (Status.PENDING, None, None, 1)
        assert await scene.store.next_wake() is None
        (claimed,) = await scene.claim("w1")
        assert (claimed.execution_id, claimed.fence, claimed.wakes) == (life.execution_id, 2, record.wakes)

    @scenario
    async def test_mail_to_a_held_execution_is_kept_and_waits(self, scene: Scene) -> None:
        """Unless it is held: then the mail is kept and waits for a resume (R36)."""
        await scene.worker()
        life = await scene.held("w1")
        before = await scene.record(life)
        assert await scene.deliver(life.mail()) is Receipt.STORED
        record = await scene.record(life)
        assert record == before._replace(wakes=record.wakes)
        assert record.wakes > before.wakes
        assert await scene.claim("w1") == []
        await scene.store.resume(life.execution_id)
        (claimed,) = await scene.claim("w1")
        assert claimed.wakes == record.wakes

    @scenario
    async def test_mail_may_come_before_an_execution_has_begun(self, scene: Scene) -> None:
        """A completion may come before a stored execution first runs (R18): it stays PENDING."""
        await scene.worker()
        life = await scene.pending()
        await scene.deliver(life.mail())
        assert (await scene.record(life)).status is Status.PENDING
        (claimed,) = await scene.claim("w1")
        assert claimed.wakes == 1
        assert await scene.store.mail_for("w1") == {}

    @scenario
    async def test_the_owner_of_a_running_execution_is_told(self, scene: Scene) -> None:
        """A RUNNING one shows in `mail_for` of its owner, with how far the mail goes, and of nobody else."""
        await scene.worker()
        await scene.worker("w2")
        life, other = await scene.running("w1"), await scene.running("w1")
        await scene.deliver(life.mail("a"))
        await scene.deliver(life.mail("b"))
        record = await scene.record(life)
        assert record.status is Status.RUNNING
        assert await scene.store.mail_for("w2") == {}
        assert await scene.store.mail_for("w1") == {life.execution_id: record.wakes}
        assert (await scene.record(other)).wakes == 0

    @scenario
    async def test_mail_is_told_once_since_last_asked(self, scene: Scene) -> None:
        """`mail_for`: which executions have had mail since last asked."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail("a"))
        told = await scene.store.mail_for("w1")
        assert await scene.store.mail_for("w1") == {}
        await scene.deliver(life.mail("b"))
        assert (await scene.store.mail_for("w1"))[life.execution_id] > told[life.execution_id]
        assert await scene.store.mail_for("w1") == {}

    @scenario
    async def test_whoever_has_not_seen_the_newest_mail_stays(self, scene: Scene) -> None:
        """STAYS to whoever wants to suspend, hold or end: still RUNNING and yours; read it, try again (R18)."""
        await scene.worker()
        for status in FINAL | {Status.SUSPENDED}:
            life = await scene.running("w1")
            await scene.deliver(life.mail("a"))
            await scene.deliver(life.mail("b"))
            wakes = (await scene.record(life)).wakes
            life.seen = wakes - 1
            commit = life.commit(status, exit=b"{}", wake_at=scene.clock.now() + 1)
            (answer,) = await scene.commit("w1", commit)
            assert answer == Answer(Verdict.STAYS, wakes)
            record = await scene.record(life)
            assert (record.status, record.owner, record.fence) == (Status.RUNNING, "w1", 1)
            assert (record.exit, record.finished_at) == (None, None)
            commit.seen = wakes
            (answer,) = await scene.commit("w1", commit)
            assert answer.verdict is Verdict.GRANTED
            assert (await scene.record(life)).status is status

    @scenario
    async def test_whoever_has_not_seen_the_newest_mail_is_not_held(self, scene: Scene) -> None:
        """A commit that wants to hold has not seen, say, an interrupt: STAYS, and nothing of it is written."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail())
        start = new_start()
        held = life.commit(Status.SUSPENDED, held=Held.DEFECT, exit=b"{}", entries=1, starts=[start])
        (answer,) = await scene.commit("w1", held)
        assert answer == Answer(Verdict.STAYS, 1)
        assert (await scene.record(life)).held is None
        assert await scene.entries(life) == []
        assert await scene.store.read([start.execution_id]) == []
        held.seen = 1
        (answer,) = await scene.commit("w1", held)
        assert answer.verdict is Verdict.GRANTED
        assert (await scene.record(life)).held is Held.DEFECT
        assert len(await scene.entries(life)) == 1

    @scenario
    async def test_who_stays_has_started_what_its_body_started(self, scene: Scene) -> None:
        """STAYS: entries written, and with them the executions that they speak of (R42)."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail())
        start = new_start()
        await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=1, exit=b"{}", starts=[start]))
        assert (await scene.record(life_of(start))).status is Status.PENDING

    @scenario
    async def test_an_append_is_told_how_far_the_mail_goes(self, scene: Scene) -> None:
        """`wakes`: how far the mail of the execution goes, where the verdict is GRANTED or STAYS."""
        life = await scene.running(await scene.worker())
        assert (await scene.commit("w1", life.commit(entries=1)))[0] == Answer(Verdict.GRANTED, 0)
        await scene.deliver(life.mail())
        wakes = (await scene.record(life)).wakes
        assert (await scene.commit("w1", life.commit(entries=1)))[0] == Answer(Verdict.GRANTED, wakes)

    @scenario
    async def test_a_repeated_start_is_told_how_far_the_mail_goes(self, scene: Scene) -> None:
        """`wakes`: how far the mail of the execution goes, where the verdict is STARTED."""
        await scene.worker()
        start = new_start()
        birth = born(start, Status.RUNNING)
        assert await scene.commit("w1", birth) == [Answer(Verdict.STARTED, 0)]
        await scene.deliver(life_of(start).mail())
        assert await scene.commit("w1", birth) == [Answer(Verdict.STARTED, 1)]

    @scenario
    async def test_only_the_mail_behind_a_wake_is_loaded(self, scene: Scene) -> None:
        """`load`: the mail behind that wake, in order."""
        life = await scene.running(await scene.worker())
        for name in "abc":
            await scene.deliver(life.mail(name))
        assert [letter.name for letter in await scene.letters(life, 1)] == ["b", "c"]
        assert await scene.letters(life, 3) == []

    @scenario
    async def test_mail_that_meets_its_own_was_stored(self, scene: Scene) -> None:
        """Mail with a sender that meets its own is STORED, and nothing is stored twice; without one it is IGNORED."""
        await scene.worker()
        life = await scene.suspended("w1")
        for _ in range(2):
            assert await scene.deliver(life.mail(exit=b"1", sender=b"me")) is Receipt.STORED
        assert await scene.deliver(life.mail(exit=b"2", sender=b"another")) is Receipt.IGNORED
        assert await scene.deliver(life.mail(exit=b"2")) is Receipt.IGNORED
        await scene.deliver(life.mail("unsigned"))
        assert await scene.deliver(life.mail("unsigned")) is Receipt.IGNORED
        assert (await scene.record(life)).wakes == 2

    @scenario
    async def test_mail_that_meets_its_own_was_stored_also_after_the_end(self, scene: Scene) -> None:
        """STORED, also where the execution has ended since, or begun its next life."""
        life = await scene.running(await scene.worker())
        mail = [life.mail("a", sender=b"me"), life.mail("b", sender=b"me", incarnation=life.incarnation)]
        await scene.store.deliver(mail)
        life.seen = 2
        await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
        assert await scene.store.deliver([*mail, life.mail("c", sender=b"me")]) == [
            Receipt.STORED, Receipt.STORED, Receipt.FINISHED,
        ]  # fmt: skip
        again = replace(new_start(), execution_id=life.execution_id, restarts=True)
        await scene.commit("nobody", born(again, Status.PENDING))
        assert await scene.store.deliver(mail) == [Receipt.STORED, Receipt.STORED]
        assert await scene.letters(life_of(again)) == []

    @scenario
    async def test_mail_for_a_life_that_is_not_there_is_outdated(self, scene: Scene) -> None:
        """Mail for another incarnation is OUTDATED, whatever has become of the execution; nothing is stored."""
        await scene.worker()
        for life in (await scene.running("w1"), await scene.finished("w1"), await scene.held("w1")):
            before = await scene.record(life)
            assert await scene.deliver(life.mail(incarnation=b"\x09" * 16, sender=b"me")) is Receipt.OUTDATED
            assert await scene.record(life) == before

    @scenario
    async def test_the_mail_of_a_released_execution_is_not_lost(self, scene: Scene) -> None:
        """What one owner has not read the next one finds."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.deliver(life.mail())
        await scene.commit("w1", life.commit(Status.PENDING))
        (claimed,) = await scene.claim("w1")
        assert claimed.wakes == 1
        (history,) = await scene.store.load([(life.incarnation, 0, 0)])
        assert [letter.wake for letter in history.letters] == [1]
        (answer,) = await scene.commit("w1", life.claimed(claimed).commit(Status.SUCCEEDED, exit=b"{}"))
        assert answer.verdict is Verdict.STAYS

    @scenario
    async def test_mail_numbers_go_on_over_every_owner(self, scene: Scene) -> None:
        """Numbers of an execution's mail rise, and `wakes` is the highest of them."""
        await scene.worker()
        life = await scene.suspended("w1")
        numbers: list[int] = []
        for name in "abcd":
            await scene.deliver(life.mail(name))
            (claimed,) = await scene.claim("w1")
            (history,) = await scene.store.load([(life.incarnation, 0, 0)])
            numbers = [letter.wake for letter in history.letters]
            assert numbers[-1] == claimed.wakes
            life.claimed(claimed).seen = claimed.wakes
            await scene.commit("w1", life.commit(Status.SUSPENDED))
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 4

    @scenario
    async def test_mail_from_another_process_reaches_the_owner(self, scene: Scene) -> None:
        """A wake is state: who delivers need not know who owns."""
        life = await scene.running(await scene.worker())
        other = await scene.another()
        assert await other.deliver([life.mail()]) == [Receipt.STORED]
        assert await scene.store.mail_for("w1") == {life.execution_id: 1}

    @scenario
    async def test_an_execution_born_with_its_end_takes_no_mail(self, scene: Scene) -> None:
        """FINISHED from its first instant on."""
        await scene.worker()
        start = new_start()
        await scene.commit("w1", born(start, Status.SUCCEEDED, exit=b"{}"))
        assert await scene.deliver(life_of(start).mail()) is Receipt.FINISHED
