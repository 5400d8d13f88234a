"""What a commit does to others, and what it shows: in its own transaction, and once (R42)."""

from dataclasses import replace

import pytest

from perdure._model.records import INTERRUPTED, Acts, MailKind, Receipt, Verdict, payload_name
from perdure._model.status import FINAL, Held, Status
from perdure.errors import StoreRefusedError
from perdure.testing.conformance.scene import SECOND, Scene, born, life_of, new_start, scenario


class TestActs:
    """`acts.starts`, `mail`, `resumes`, `attributes` and `published`."""

    @scenario
    async def test_a_start_in_a_body_stirs_and_is_waited_for_by_nobody(self, scene: Scene) -> None:
        """`acts.starts` are detached: their end is told to nobody."""
        life = await scene.running(await scene.worker())
        start = new_start()
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(starts=[start])))
        assert answer.stirs
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(starts=[replace(start, incarnation=b"\x09" * 16)])))
        assert not answer.stirs
        started = await scene.run(life_of(start))
        await scene.commit("w1", started.commit(Status.SUCCEEDED, exit=b"{}"))
        assert await scene.letters(life) == []

    @scenario
    async def test_a_start_in_a_body_may_restart(self, scene: Scene) -> None:
        """One that exists already is left alone, unless it `restarts` and did not succeed."""
        await scene.worker()
        life = await scene.running("w1")
        for status in FINAL:
            over = await scene.finished("w1", status)
            start = replace(new_start(), execution_id=over.execution_id, restarts=True)
            commit = life.commit(acts=Acts(starts=[start]))
            (answer,) = await scene.commit("w1", commit)
            assert answer.stirs == (status is not Status.SUCCEEDED)
            if answer.stirs:
                again = await scene.run(life_of(start))
                await scene.commit("w1", again.commit(Status.FAILED, exit=b"{}"))
                await scene.commit("w1", commit)  # word for word: the answer was lost
            assert (await scene.record(over)).number == (1 if status is Status.SUCCEEDED else 2)

    @scenario
    async def test_mail_is_sent_with_the_commit_and_has_its_receipts(self, scene: Scene) -> None:
        """`acts.mail` is delivered as by `deliver`; each gets a receipt in the answer, in this order."""
        await scene.worker()
        sender, parked, over = await scene.running("w1"), await scene.suspended("w1"), await scene.finished("w1")
        mail = [
            parked.mail("a"),
            over.mail(),
            life_of(new_start()).mail(),
            parked.mail("a"),
            parked.mail("b", incarnation=b"\x09" * 16),
        ]
        (answer,) = await scene.commit("w1", sender.commit(entries=1, acts=Acts(mail=mail)))
        assert answer.receipts == (
            Receipt.STORED, Receipt.FINISHED, Receipt.UNKNOWN, Receipt.IGNORED, Receipt.OUTDATED,
        )  # fmt: skip
        assert answer.stirs
        assert (await scene.record(parked)).status is Status.PENDING
        (letter,) = await scene.letters(parked)
        assert (letter.name, letter.at) == ("a", scene.clock.now())

    @scenario
    async def test_mail_that_nobody_has_to_read_now_stirs_nobody(self, scene: Scene) -> None:
        """`stirs`: mail to PENDING or held executions only waits there."""
        await scene.worker()
        sender, pending, held = await scene.running("w1"), await scene.pending(), await scene.held("w1")
        (answer,) = await scene.commit("w1", sender.commit(acts=Acts(mail=[pending.mail(), held.mail()])))
        assert (answer.receipts, answer.stirs) == ((Receipt.STORED, Receipt.STORED), False)

    @scenario
    async def test_an_execution_may_send_mail_to_itself(self, scene: Scene) -> None:
        """Mail to others, or to itself: the answer says how far the mail goes with it."""
        await scene.worker()
        life, parked = await scene.running("w1"), await scene.running("w1")
        answers = await scene.commit(
            "w1",
            life.commit(acts=Acts(mail=[life.mail()])),
            parked.commit(Status.SUSPENDED, acts=Acts(mail=[parked.mail()])),
        )
        assert [(one.wakes, one.stirs) for one in answers] == [(1, True), (1, True)]
        assert (await scene.record(parked)).status is Status.PENDING
        (answer,) = await scene.commit("w1", life.commit(Status.SUSPENDED))
        assert answer.verdict is Verdict.STAYS

    @scenario
    async def test_a_repeated_commit_gives_the_same_receipts(self, scene: Scene) -> None:
        """Repeated, mail with a sender has the same receipts, and nothing is stored twice; an APPLIED commit has none."""
        await scene.worker()
        sender, other, taken = await scene.running("w1"), await scene.running("w1"), await scene.running("w1")
        await scene.deliver(taken.mail())
        mail = [other.mail(sender=b"step"), taken.mail(sender=b"step")]
        commit = sender.commit(entries=1, acts=Acts(mail=mail))
        first = await scene.commit("w1", commit)
        again = await scene.commit("w1", commit)
        assert first[0].receipts == again[0].receipts == (Receipt.STORED, Receipt.IGNORED)
        assert (await scene.record(other)).wakes == 1
        parking = sender.commit(Status.SUSPENDED, acts=Acts(mail=mail))
        await scene.commit("w1", parking)
        (answer,) = await scene.commit("w1", parking)
        assert (answer.verdict, answer.receipts) == (Verdict.APPLIED, ())

    @scenario
    async def test_a_repeated_birth_gives_the_same_receipts(self, scene: Scene) -> None:
        """STARTED, as long as it is its worker's: with the receipts, and with how far its mail goes."""
        await scene.worker()
        other, start = await scene.running("w1"), new_start()
        birth = born(start, Status.RUNNING, acts=Acts(mail=[other.mail(sender=b"step")]))
        first = await scene.commit("w1", birth)
        await scene.deliver(life_of(start).mail())
        again = await scene.commit("w1", birth)
        assert [(one.verdict, one.receipts) for one in (*first, *again)] == [(Verdict.STARTED, (Receipt.STORED,))] * 2
        assert [one.wakes for one in (*first, *again)] == [0, 1]

    @scenario
    async def test_mail_may_interrupt(self, scene: Scene) -> None:
        """Delivered as by `deliver`: an interrupt ends what never began."""
        await scene.worker()
        life, pending = await scene.running("w1"), await scene.pending()
        interrupt = pending.mail("", MailKind.INTERRUPT, INTERRUPTED)
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(mail=[interrupt])))
        assert (answer.receipts, answer.stirs) == ((Receipt.STORED,), True)
        assert (await scene.record(pending)).status is Status.INTERRUPTED

    @scenario
    async def test_a_held_execution_is_resumed_by_a_commit(self, scene: Scene) -> None:
        """`acts.resumes` are resumed as by `resume`: every other is left as it is."""
        await scene.worker()
        life, held, over = await scene.running("w1"), await scene.held("w1"), await scene.finished("w1")
        before = await scene.record(over)
        for stirs in (True, False):
            acts = Acts(resumes=[over.execution_id, held.execution_id, "0" * 32])
            (answer,) = await scene.commit("w1", life.commit(acts=acts))
            assert answer.stirs is stirs
            assert (await scene.record(held)).status is Status.PENDING
        assert await scene.record(over) == before

    @scenario
    async def test_attributes_are_set_and_removed(self, scene: Scene) -> None:
        """Attributes to set, and, as None, to remove; the others stay."""
        life = await scene.running(await scene.worker(), attributes={"a": 1, "b": "x", "c": True})
        acts = Acts(attributes={"a": None, "b": 2.5, "d": "ä", "e": None})
        (answer,) = await scene.commit("w1", life.commit(acts=acts))
        assert not answer.stirs
        assert (await scene.record(life)).attributes == {"b": 2.5, "c": True, "d": "ä"}
        await scene.commit("w1", life.commit(Status.SUCCEEDED, exit=b"{}", acts=Acts(attributes={"c": False})))
        assert (await scene.record(life)).attributes == {"b": 2.5, "c": False, "d": "ä"}

    @scenario
    async def test_attributes_that_json_does_not_have_are_refused(self, scene: Scene) -> None:
        """StoreRefusedError: the database refused the data of some commit; nothing was written."""
        life = await scene.running(await scene.worker())
        with pytest.raises(StoreRefusedError):
            await scene.commit("w1", life.commit(entries=1, acts=Acts(attributes={"a": float("nan")})))
        assert await scene.entries(life) == []

    @scenario
    async def test_what_a_body_shows_is_published(self, scene: Scene) -> None:
        """What it shows to those who look, by name; the last word wins."""
        life, other = await scene.running(await scene.worker()), await scene.running("w1")
        assert await scene.store.published(life.execution_id) == {}
        await scene.commit("w1", life.commit(acts=Acts(published={"progress": b"1", "Größe": b"\x00"})))
        await scene.commit("w1", life.commit(Status.SUSPENDED, acts=Acts(published={"progress": b"2"})))
        assert await scene.store.published(life.execution_id) == {"progress": b"2", "Größe": b"\x00"}
        assert await scene.store.published(other.execution_id) == {}
        assert await scene.store.published("no id") == {}

    @scenario
    async def test_what_is_shown_by_whoever_does_not_own_it_is_not_written(self, scene: Scene) -> None:
        """LOST or APPLIED: nothing of the acts is done, of a commit that does nothing else either."""
        await scene.worker()
        await scene.worker("w2")
        acts = Acts(published={"progress": b"1"}, attributes={"a": 1})
        stale, over, renewed = [await scene.running("w1") for _ in range(3)]
        await scene.store.give_back("w1", {stale.execution_id: stale.fence})
        await scene.claim("w2")
        await scene.commit("w1", over.commit(Status.SUCCEEDED, exit=b"{}"))
        await scene.commit("w1", renewed.commit(Status.FAILED, exit=b"{}"))
        restart = replace(new_start(), execution_id=renewed.execution_id, restarts=True)
        await scene.commit("w1", born(restart, Status.PENDING))
        answers = await scene.commit("w1", *[life.commit(acts=acts) for life in (stale, over, renewed)])
        assert [answer.verdict for answer in answers] == [Verdict.LOST, Verdict.APPLIED, Verdict.LOST]
        for life in (stale, over, renewed):
            assert await scene.store.published(life.execution_id) == {}
            assert (await scene.record(life)).attributes == {}

    @scenario
    async def test_acts_are_done_in_the_order_of_the_batch(self, scene: Scene) -> None:
        """In the order of the batch: whoever acts first is the first sender."""
        await scene.worker()
        one, other, receiver = [await scene.running("w1") for _ in range(3)]
        answers = await scene.commit(
            "w1",
            one.commit(acts=Acts(mail=[receiver.mail(exit=b"1")])),
            other.commit(acts=Acts(mail=[receiver.mail(exit=b"2")])),
        )
        assert [answer.receipts for answer in answers] == [(Receipt.STORED,), (Receipt.IGNORED,)]
        assert [letter.exit for letter in await scene.letters(receiver)] == [b"1"]

    @scenario
    async def test_acts_reach_whoever_ends_in_the_batch_as_it_stands_then(self, scene: Scene) -> None:
        """Status first, then what the commits do to others: mail to one that ends in this batch finds it ended."""
        await scene.worker()
        sender, ending, holding = [await scene.running("w1") for _ in range(3)]
        answers = await scene.commit(
            "w1",
            sender.commit(acts=Acts(mail=[ending.mail()], resumes=[holding.execution_id])),
            ending.commit(Status.SUCCEEDED, exit=b"{}"),
            holding.commit(Status.SUSPENDED, held=Held.DEFECT, exit=b"{}"),
        )
        assert answers[0].receipts == (Receipt.FINISHED,)
        assert [answer.verdict for answer in answers] == [Verdict.GRANTED] * 3
        assert (await scene.record(holding)).status is Status.PENDING


class TestOtherPayloads:
    """`met`, `strict` and `acts.compares`: an execution that was begun with another payload (R2)."""

    @scenario
    async def test_a_start_that_meets_another_payload_is_in_the_answer(self, scene: Scene) -> None:
        """`met`: each that finds an execution whose payload is another one, with that payload; it is joined all the same."""
        await scene.worker()
        life, other, over = await scene.running("w1"), await scene.running("w1"), await scene.finished("w1")
        wanted = [
            replace(new_start(), execution_id=one.execution_id, payload=payload)
            for one in (other, over)
            for payload in (b'{"to":"x"}', b'{"to":"y"}')
        ]
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(starts=wanted, children=[wanted[1]])))
        assert [(met.start, met.payload) for met in answer.met] == [
            (wanted[1], b'{"to":"x"}'), (wanted[3], b'{"to":"x"}'), (wanted[1], b'{"to":"x"}'),
        ]  # fmt: skip
        assert (await scene.record(other)).payload == b'{"to":"x"}'
        await scene.commit("w1", other.commit(Status.SUCCEEDED, exit=b"1"))
        assert [letter.kind for letter in await scene.letters(life)] == [MailKind.CHILD]
        # Its end is known by now; that it is another payload is said all the same.
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(rejoins=[wanted[1]])))
        assert [met.payload for met in answer.met] == [b'{"to":"x"}']

    @scenario
    async def test_a_repeated_start_only_hears_of_another_payload(self, scene: Scene) -> None:
        """`acts.repeats`: nothing begins, and nothing restarts, whatever has become of what was started."""
        await scene.worker()
        life, failed = await scene.running("w1"), await scene.finished("w1", Status.FAILED)
        before = await scene.record(failed)
        same, differs = [
            replace(new_start(), execution_id=failed.execution_id, payload=one, restarts=True)
            for one in (before.payload, b"2")
        ]
        removed = new_start(restarts=True)
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(repeats=[same, differs, removed])))
        assert (answer.met, answer.stirs) == (((differs, before.payload),), False)
        assert await scene.record(failed) == before
        assert await scene.store.read([removed.execution_id]) == []
        begun = new_start()
        other = replace(begun, payload=b"2")
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(starts=[begun], repeats=[other])))
        assert [met.start for met in answer.met] == [other]

    @scenario
    async def test_what_an_earlier_life_was_begun_with_is_no_other_payload(self, scene: Scene) -> None:
        """Other bytes, also than those of every life that has gone before."""
        life, other = await scene.running(await scene.worker()), await scene.running("w1")
        going_on = replace(new_start(), execution_id=other.execution_id, payload=b"2")
        await scene.commit("w1", other.commit(Status.PENDING, acts=Acts(next=going_on)))
        wanted = [
            replace(new_start(), execution_id=other.execution_id, payload=one) for one in (b'{"to":"x"}', b"2", b"3")
        ]
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(children=wanted)))
        assert [(met.start.payload, met.payload) for met in answer.met] == [(b"3", b"2")]

    @scenario
    async def test_a_strict_child_does_not_join_another_payload(self, scene: Scene) -> None:
        """Mail PAYLOAD comes to this one instead, with that payload; the child is left as it is."""
        await scene.worker()
        life, other, over = await scene.running("w1"), await scene.running("w1"), await scene.finished("w1")
        before = await scene.record(other), await scene.record(over)
        wanted = [
            replace(new_start(), execution_id=one.execution_id, payload=b"2", strict=True) for one in (other, over)
        ]
        (answer,) = await scene.commit("w1", life.commit(Status.SUSPENDED, entries=1, acts=Acts(children=wanted)))
        assert answer.stirs
        assert (await scene.record(other), await scene.record(over)) == before
        assert (await scene.record(life)).status is Status.PENDING
        assert [letter[1:4] for letter in await scene.letters(life)] == [
            (MailKind.PAYLOAD, payload_name(start), b'{"to":"x"}') for start in wanted
        ]
        await scene.commit("w1", other.commit(Status.SUCCEEDED, exit=b"1"))
        assert len(await scene.letters(life)) == 2

    @scenario
    async def test_a_strict_child_with_the_same_payload_is_joined(self, scene: Scene) -> None:
        """Byte for byte: no mail but that of its end."""
        life, other = await scene.running(await scene.worker()), await scene.running("w1")
        wanted = replace(new_start(), execution_id=other.execution_id, strict=True)
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(children=[wanted])))
        assert answer.met == ()
        await scene.commit("w1", other.commit(Status.SUCCEEDED, exit=b"1"))
        assert [letter.kind for letter in await scene.letters(life)] == [MailKind.CHILD]

    @scenario
    async def test_a_comparison_is_answered_in_any_case(self, scene: Scene) -> None:
        """`acts.compares`: the payload that is there, or the one that was asked with; nobody joins or begins anything."""
        life, other = await scene.running(await scene.worker()), await scene.running("w1")
        same, differs = [
            replace(new_start(), execution_id=other.execution_id, payload=one, strict=True)
            for one in (b'{"to":"x"}', b"2")
        ]
        unknown = replace(new_start(), payload=b"3", strict=True)
        (answer,) = await scene.commit("w1", life.commit(acts=Acts(compares=[same, differs, unknown])))
        assert (answer.met, answer.stirs) == ((), True)
        assert [(letter.name, letter.exit) for letter in await scene.letters(life)] == [
            (payload_name(same), b'{"to":"x"}'), (payload_name(differs), b'{"to":"x"}'), (payload_name(unknown), b"3"),
        ]  # fmt: skip
        assert await scene.store.read([unknown.execution_id]) == []
        await scene.commit("w1", other.commit(Status.SUCCEEDED, exit=b"1"))
        assert len(await scene.letters(life)) == 3


class TestNext:
    """`acts.next`: an execution goes on as a new life of its own (R37)."""

    @scenario
    async def test_the_next_life_stands_in_the_place_of_the_one_that_asks_for_it(self, scene: Scene) -> None:
        """PENDING, its number and its fence one higher, its crashes 0; what is its own stays."""
        await scene.worker()
        life = await scene.running("w1", key="k", priority=3, attributes={"a": 1}, parent="ab" * 16)
        before = await scene.record(life)
        scene.clock.advance(SECOND)
        start = replace(
            new_start(deadline=scene.clock.now() + SECOND, version="v2", seed=b"seed"),
            execution_id=life.execution_id,
            payload=b'{"page":2}',
        )
        (answer,) = await scene.commit("w1", life.commit(Status.PENDING, entries=1, acts=Acts(next=start)))
        assert (answer.verdict, answer.stirs) == (Verdict.GRANTED, True)
        assert await scene.record(life) == before._replace(
            incarnation=start.incarnation, number=2, fence=2, status=Status.PENDING, owner=None, began_at=None,
            changed_at=scene.clock.now(), payload=b'{"page":2}', version="v2", seed=b"seed", deadline=start.deadline,
        )  # fmt: skip
        scene.clock.advance(1)
        (claimed,) = await scene.claim("w1")
        assert (claimed.fence, claimed.began_at) == (3, scene.clock.now())
        assert await scene.entries(life_of(start)) == []
        assert len(await scene.entries(life)) == 1

    @scenario
    async def test_the_life_that_went_on_is_put_aside(self, scene: Scene) -> None:
        """This life is put aside, as one that has SUCCEEDED without an exit; one after the other."""
        await scene.worker()
        life = await scene.running("w1")
        born_at, incarnations = scene.clock.now(), [life.incarnation]
        assert await scene.store.lives(life.execution_id) == []
        for number in (2, 3, 4):
            scene.clock.advance(SECOND)
            start = replace(new_start(), execution_id=life.execution_id, payload=b"%d" % number)
            await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=start)))
            life = await scene.run(life_of(start))
            incarnations.append(life.incarnation)
        instants = [born_at + count * SECOND for count in range(4)]
        assert await scene.store.lives(life.execution_id) == [
            (incarnations[0], 1, Status.SUCCEEDED, b'{"to":"x"}', None, *instants[0:2]),
            (incarnations[1], 2, Status.SUCCEEDED, b"2", None, *instants[1:3]),
            (incarnations[2], 3, Status.SUCCEEDED, b"3", None, *instants[2:4]),
        ]
        assert (await scene.record(life)).created_at == born_at

    @scenario
    async def test_a_life_behind_one_that_was_purged_was_born_when_it_was_claimed(self, scene: Scene) -> None:
        """`created_at` of a life: as far as anybody can know."""
        await scene.worker()
        life = await scene.running("w1")
        for _ in range(2):
            start = replace(new_start(), execution_id=life.execution_id)
            await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=start)))
            await scene.store.purge_lives(None, scene.clock.now(), 10)
            scene.clock.advance(SECOND)
            life = await scene.run(life_of(start))
        claimed_at = scene.clock.now()
        start = replace(new_start(), execution_id=life.execution_id)
        scene.clock.advance(SECOND)
        await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=start)))
        assert [one.created_at for one in await scene.store.lives(life.execution_id)] == [claimed_at]

    @scenario
    async def test_a_repeated_step_into_the_next_life_is_applied(self, scene: Scene) -> None:
        """APPLIED: it was there already, also where the next life has been claimed since."""
        life = await scene.running(await scene.worker())
        commit = life.commit(Status.PENDING, acts=Acts(next=replace(new_start(), execution_id=life.execution_id)))
        await scene.commit("w1", commit)
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED
        await scene.claim("w1")
        before = await scene.record(life)
        assert (await scene.commit("w1", commit))[0].verdict is Verdict.APPLIED
        assert await scene.record(life) == before
        (answer,) = await scene.commit("w1", life.commit(entries=1))
        assert answer.verdict is Verdict.LOST

    @scenario
    async def test_what_the_life_had_not_seen_goes_over(self, scene: Scene) -> None:
        """All letters above `seen` of the kinds MESSAGE, DEFERRED and INTERRUPT, and mail to itself; with their numbers."""
        life = await scene.running(await scene.worker())
        await scene.deliver(life.mail("seen", MailKind.MESSAGE))
        life.seen = 1
        for kind in (MailKind.MESSAGE, MailKind.DEFERRED, MailKind.INTERRUPT, MailKind.CHILD, MailKind.FREED):
            await scene.deliver(life.mail("new", kind, sender=b"s"))
        before = await scene.letters(life)
        start = replace(new_start(), execution_id=life.execution_id)
        acts = Acts(next=start, mail=[life.mail("own")], published={"progress": b"1"})
        (answer,) = await scene.commit("w1", life.commit(Status.PENDING, acts=acts))
        assert answer.receipts == (Receipt.STORED,)
        assert (await scene.record(life)).wakes == 7
        letters = await scene.letters(life_of(start))
        assert [letter.kind for letter in letters] == ["message", "deferred", "interrupt", "deferred"]
        assert letters[:3] == before[1:4]
        assert letters[3].name == "own"
        assert await scene.store.published(life.execution_id) == {}
        # From an earlier try, it is not sent again; also where only the life before has it.
        for name, kind in (("new", MailKind.MESSAGE), ("new", MailKind.CHILD)):
            assert await scene.deliver(life.mail(name, kind, sender=b"s")) is Receipt.STORED
        assert await scene.letters(life_of(start)) == letters

    @scenario
    async def test_what_the_life_had_seen_and_not_taken_goes_over_in_its_place(self, scene: Scene) -> None:
        """Mail to itself: where a letter of that kind and name lies there already, that letter, with its number (R48)."""
        life = await scene.running(await scene.worker())
        for name in ("taken", "kept", "unseen"):
            await scene.deliver(life.mail(name, MailKind.MESSAGE, exit=name.encode(), sender=b"s"))
        before = await scene.letters(life)
        life.seen = 2
        start = replace(new_start(), execution_id=life.execution_id)
        acts = Acts(
            next=start, mail=[life.mail("kept", MailKind.MESSAGE, exit=b"again"), life.mail("new", exit=b"new")]
        )
        await scene.commit("w1", life.commit(Status.PENDING, acts=acts))
        letters = await scene.letters(life_of(start))
        assert letters[:2] == before[1:]
        assert [letter.exit for letter in letters] == [b"kept", b"unseen", b"new"]

    @scenario
    async def test_a_message_is_one_message_over_lives_that_go_on(self, scene: Scene) -> None:
        """R48: sent again under its id it is ignored, also where the life that has received it has gone on as another."""
        life = await scene.running(await scene.worker())
        message = life.mail('["c","m1"]', MailKind.MESSAGE)
        await scene.deliver(message)
        life.seen = 1
        start = replace(new_start(), execution_id=life.execution_id)
        await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=start)))
        assert await scene.deliver(message) is Receipt.IGNORED
        assert await scene.deliver(life.mail('["c","m2"]', MailKind.MESSAGE)) is Receipt.STORED
        again = await scene.run(life_of(start))
        again.seen = (await scene.record(life)).wakes
        await scene.commit("w1", again.commit(Status.FAILED, exit=b'{"failure":[]}'))
        restart = replace(new_start(), execution_id=life.execution_id, restarts=True)
        await scene.commit("w1", born(restart, Status.PENDING))
        assert await scene.deliver(life.mail('["c","m2"]', MailKind.MESSAGE)) is Receipt.STORED, (
            "the failed life's is not"
        )

    @scenario
    async def test_who_waits_for_the_execution_goes_over(self, scene: Scene) -> None:
        """Who waits for the execution goes over to it, and who has left it as well."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        other = await scene.running("w1")
        joining = replace(new_start(), execution_id=child.execution_id)
        await scene.commit("w1", other.commit(acts=Acts(children=[joining])))
        await scene.commit("w1", other.commit(acts=Acts(leaves=[child.execution_id])))
        await scene.run(child)
        start = replace(new_start(), execution_id=child.execution_id)
        await scene.commit("w1", child.commit(Status.PENDING, acts=Acts(next=start)))
        assert await scene.letters(parent) == []
        again = await scene.run(life_of(start))
        await scene.commit("w1", again.commit(Status.SUSPENDED, held=Held.DEFECT, exit=b"{}"))
        freed = [letter.name for letter in await scene.letters(other) if letter.kind == MailKind.FREED]
        assert freed == [f"{child.execution_id}/{number}" for number in (1, 2)]
        await scene.store.resume(child.execution_id)
        await scene.run(again)
        await scene.commit("w1", again.commit(Status.SUCCEEDED, exit=b"2"))
        assert [(letter.kind, letter.exit) for letter in await scene.letters(parent)] == [("child", b"2")]

    @scenario
    async def test_mail_for_the_life_before_is_outdated(self, scene: Scene) -> None:
        """OUTDATED: it was meant for another life of the execution; nothing was stored."""
        life = await scene.running(await scene.worker())
        sent = life.mail("early", incarnation=life.incarnation, sender=b"s")
        assert await scene.deliver(sent) is Receipt.STORED
        life.seen = 1
        start = replace(new_start(), execution_id=life.execution_id)
        await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=start)))
        assert await scene.deliver(life.mail(incarnation=life.incarnation)) is Receipt.OUTDATED
        assert await scene.deliver(life.mail("", MailKind.INTERRUPT, incarnation=life.incarnation)) is Receipt.OUTDATED
        assert await scene.deliver(life.mail(incarnation=start.incarnation)) is Receipt.STORED
        assert await scene.deliver(sent) is Receipt.STORED  # its own
        assert [letter.name for letter in await scene.letters(life_of(start))] == ["approved"]
