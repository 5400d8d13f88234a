"""One life of an execution after the other: restarts, births with a journal, and lives that begin with a prefix (R37)."""

from dataclasses import replace

from perdure._model.journal import Entry, Kind
from perdure._model.records import INTERRUPTED, Acts, Answer, Letter, MailKind, Receipt, Start, Verdict, hold_name
from perdure._model.status import FINAL, Held, Status
from perdure.testing.conformance.scene import SECOND, Life, Scene, born, life_of, new_start, scenario


def next_of(life: Life, **more: object) -> Start:
    """A start of the same execution."""
    return replace(new_start(), execution_id=life.execution_id, **more)


def given_out(seq: int, name: str) -> Entry:
    """The entry with which a body has given out a token."""
    return Entry(seq, Kind.TOKEN, name, 1, 0, b"", b'{"success":"the token of %s"}' % name.encode(), 0)


class TestRestart:
    """A start that `restarts`."""

    @scenario
    async def test_a_start_may_follow_a_life_that_did_not_succeed(self, scene: Scene) -> None:
        """It begins the next life under the same id, PENDING, number and fence one higher: STARTED."""
        await scene.worker()
        for status in (Status.FAILED, Status.INTERRUPTED):
            life = await scene.running("w1", key="old", attributes={"a": 1}, parent="ab" * 16)
            await scene.deliver(life.mail())
            life.seen = 1
            await scene.commit("w1", life.commit(status, entries=1, exit=b'{"failure":[]}'))
            before = await scene.record(life)
            scene.clock.advance(SECOND)
            start = next_of(
                life, restarts=True, key="k", priority=5, attributes={"b": 2}, version="v2", payload=b"{}", seed=b"s",
                deadline=scene.clock.now() + SECOND,
            )  # fmt: skip
            (answer,) = await scene.commit("nobody", born(start, Status.PENDING))
            assert (answer.verdict, answer.wakes) == (Verdict.STARTED, before.wakes)
            now = scene.clock.now()
            assert await scene.record(life) == before._replace(
                incarnation=start.incarnation, number=2, fence=2, status=Status.PENDING, key="k", priority=5,
                attributes={"b": 2}, version="v2", parent=None, payload=b"{}", exit=None, began_at=None,
                finished_at=None, changed_at=now, deadline=now + SECOND, seed=b"s",
            )  # fmt: skip
            assert await scene.store.next_wake() == now + SECOND
            again = await scene.run(life_of(start))
            assert again.fence == 3
            assert (await scene.entries(again), await scene.letters(again)) == ([], [])
            again.seen = before.wakes
            (answer,) = await scene.commit("w1", again.commit(Status.SUCCEEDED, entries=1, exit=b"{}"))
            assert answer.verdict is Verdict.GRANTED

    @scenario
    async def test_the_crashes_of_the_life_before_do_not_count(self, scene: Scene) -> None:
        """Its crashes 0: they belong to a life (R41)."""
        await scene.worker()
        await scene.worker("dead")
        life = await scene.running("dead")
        await scene.kill("dead")
        await scene.store.take_over("w1")
        await scene.run(life)
        await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
        assert (await scene.record(life)).crashes == 1
        await scene.commit("nobody", born(next_of(life, restarts=True), Status.PENDING))
        assert (await scene.record(life)).crashes == 0

    @scenario
    async def test_the_life_before_is_put_aside(self, scene: Scene) -> None:
        """A finished incarnation never changes: its journal, mailbox and exit are kept."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.deliver(life.mail())
        life.seen = 1
        created_at = scene.clock.now()
        scene.clock.advance(SECOND)
        await scene.commit("w1", life.commit(Status.FAILED, entries=2, exit=b"exit"))
        scene.clock.advance(SECOND)
        start = next_of(life, restarts=True)
        await scene.commit("nobody", born(start, Status.PENDING))
        assert await scene.store.lives(life.execution_id) == [
            (life.incarnation, 1, Status.FAILED, b'{"to":"x"}', b"exit", created_at, created_at + SECOND)
        ]
        assert len(await scene.entries(life)) == 2
        assert len(await scene.letters(life)) == 1
        scene.clock.advance(SECOND)
        await scene.deliver(life_of(start).mail("", MailKind.INTERRUPT, INTERRUPTED))
        await scene.commit("nobody", born(next_of(life, restarts=True), Status.PENDING))
        _, second = await scene.store.lives(life.execution_id)
        # It was born when the one before was put aside, not when that one had ended.
        assert (second.status, second.created_at) == (Status.INTERRUPTED, created_at + 2 * SECOND)
        assert await scene.store.lives("0" * 32) == []

    @scenario
    async def test_whatever_has_not_failed_is_joined(self, scene: Scene) -> None:
        """A start that meets a FAILED or INTERRUPTED execution; every other one it joins."""
        await scene.worker()
        for life in (
            await scene.running("w1"),
            await scene.suspended("w1"),
            await scene.held("w1"),
            await scene.finished("w1"),
            await scene.pending(),
        ):
            before = await scene.record(life)
            (answer,) = await scene.commit("w1", born(next_of(life, restarts=True), Status.PENDING))
            assert answer.verdict is Verdict.JOINED
            assert await scene.record(life) == before

    @scenario
    async def test_a_start_that_does_not_restart_joins(self, scene: Scene) -> None:
        """R2: a second start joins, also when it failed; so does one that would own it at once."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        for start, status in (
            (next_of(life), Status.PENDING),
            (next_of(life, restarts=True), Status.RUNNING),
            (next_of(life, restarts=True), Status.SUSPENDED),
        ):
            (answer,) = await scene.commit("w1", born(start, status))
            assert answer.verdict is Verdict.JOINED
        assert (await scene.record(life)).number == 1

    @scenario
    async def test_a_repeated_restart_begins_no_other_life(self, scene: Scene) -> None:
        """A start whose own incarnation is there already: STARTED, and nothing happens, also if it has failed since."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        start = next_of(life, restarts=True)
        for _ in range(2):
            assert (await scene.commit("nobody", born(start, Status.PENDING)))[0].verdict is Verdict.STARTED
        again = await scene.run(life_of(start))
        await scene.commit("w1", again.commit(Status.FAILED, exit=b"{}"))
        assert (await scene.commit("nobody", born(start, Status.PENDING)))[0].verdict is Verdict.STARTED
        assert (await scene.record(life)).number == 2
        third = next_of(life, restarts=True)
        await scene.commit("nobody", born(third, Status.PENDING))
        await scene.commit("w1", (await scene.run(life_of(third))).commit(Status.FAILED, exit=b"{}"))
        assert (await scene.commit("nobody", born(start, Status.PENDING)))[0].verdict is Verdict.APPLIED
        assert (await scene.record(life)).incarnation == third.incarnation

    @scenario
    async def test_a_repeated_start_is_known_in_every_later_life(self, scene: Scene) -> None:
        """One whose life has been put aside since: APPLIED, however it is sent; nothing of it is written again."""
        await scene.worker()
        start = new_start()
        births = [born(start, status, entries=[life_of(start).entry()]) for status in (Status.PENDING, Status.RUNNING)]
        await scene.commit("w1", births[0])
        life = await scene.run(life_of(start))
        for _ in range(2):
            await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
            later = next_of(life, payload=b"2")
            assert await scene.renew(life, later, [], [])
            record = await scene.record(life)
            for birth in births:
                assert (await scene.commit("w1", birth))[0] == Answer(Verdict.APPLIED)
            assert await scene.record(life) == record
            assert await scene.entries(life_of(later)) == []
            life = await scene.run(life_of(later))

    @scenario
    async def test_a_delayed_restart_waits_until_it_is_due(self, scene: Scene) -> None:
        """PENDING, or SUSPENDED until it is due."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        start = next_of(life, restarts=True, due_at=scene.clock.now() + SECOND)
        assert (await scene.commit("nobody", born(start, Status.SUSPENDED)))[0].verdict is Verdict.STARTED
        assert (await scene.record(life)).wake_at == start.due_at
        scene.clock.advance(SECOND)
        assert await scene.store.promote(1) == 1
        await scene.run(life_of(start))

    @scenario
    async def test_who_waited_for_the_life_before_is_not_told_of_the_next_one(self, scene: Scene) -> None:
        """Who waited has been told; the next life has waiters of its own."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.FAILED, exit=b"1"))
        start = next_of(child, restarts=True)
        await scene.commit("nobody", born(start, Status.PENDING))
        again = await scene.run(life_of(start))
        (answer,) = await scene.commit("w1", again.commit(Status.FAILED, exit=b"2"))
        assert not answer.stirs
        assert [letter.exit for letter in await scene.letters(parent)] == [b"1"]

    @scenario
    async def test_the_life_before_takes_no_more_writes(self, scene: Scene) -> None:
        """Its fence and its incarnation are history: LOST, and mail for it is OUTDATED."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        await scene.commit("nobody", born(next_of(life, restarts=True), Status.PENDING))
        (answer,) = await scene.commit("w1", life.commit(entries=1))
        assert answer.verdict is Verdict.LOST
        assert await scene.deliver(life.mail(incarnation=life.incarnation)) is Receipt.OUTDATED
        assert await scene.deliver(life.mail()) is Receipt.STORED


class TestBirthWithJournal:
    """A start with entries that nobody runs yet: a fork, an import."""

    @scenario
    async def test_an_execution_is_born_with_a_journal(self, scene: Scene) -> None:
        """`began_at` is kept, and its first claim makes its fence 1 all the same; its seed is kept too."""
        await scene.worker()
        began_at = scene.clock.now() - SECOND
        start = new_start(began_at=began_at, seed=b"seed")
        entry = life_of(start).entry()
        (answer,) = await scene.commit("nobody", born(start, Status.PENDING, entries=[entry]))
        assert answer.verdict is Verdict.STARTED
        record = await scene.record(life_of(start))
        assert (record.status, record.fence, record.began_at, record.seed) == (Status.PENDING, 0, began_at, b"seed")
        scene.clock.advance(SECOND)
        (claimed,) = await scene.claim("w1")
        assert (claimed.fence, claimed.began_at) == (1, began_at)
        assert await scene.entries(life_of(start)) == [entry]

    @scenario
    async def test_an_execution_is_born_with_a_mailbox(self, scene: Scene) -> None:
        """`letters`: what stands in its journal was somebody's mail, and the first of each name has won (R18)."""
        await scene.worker()
        letters = [
            Letter(2, "deferred", "a", b'{"success":1}', 5),
            Letter(4, "message", '["c","m"]', b'{"success":2}', 6),
        ]
        start = new_start(began_at=scene.clock.now(), letters=letters)
        birth = born(start, Status.PENDING, entries=[life_of(start).entry()])
        for _ in range(2):
            (answer,) = await scene.commit("nobody", birth)
            assert answer.verdict is Verdict.STARTED
        assert await scene.letters(life_of(start)) == letters
        assert (await scene.record(life_of(start))).wakes == 4
        assert await scene.deliver(life_of(start).mail("a")) is Receipt.IGNORED
        assert await scene.deliver(life_of(start).mail("b")) is Receipt.STORED
        assert [letter.wake for letter in await scene.letters(life_of(start))] == [2, 4, 5]

    @scenario
    async def test_an_execution_born_with_a_journal_has_begun(self, scene: Scene) -> None:
        """Its body has run: an interrupt does not end it unseen."""
        start = new_start(began_at=scene.clock.now())
        await scene.commit("nobody", born(start, Status.PENDING, entries=[life_of(start).entry()]))
        await scene.deliver(life_of(start).mail("", MailKind.INTERRUPT, INTERRUPTED))
        assert (await scene.record(life_of(start))).status is Status.PENDING


class TestRenew:
    """`renew`: the next life begins with a journal and a mailbox (rewind)."""

    @scenario
    async def test_a_finished_execution_begins_again_with_a_prefix(self, scene: Scene) -> None:
        """The number and the fence grow by one, `began_at` is the start's; what is its own stays."""
        await scene.worker()
        for status in FINAL:
            life = await scene.running("w1", key="k", priority=2, attributes={"a": 1}, parent="ab" * 16)
            await scene.deliver(life.mail())
            life.seen = 1
            commit = life.commit(status, entries=3, exit=b"exit")
            await scene.commit("w1", commit)
            before = await scene.record(life)
            scene.clock.advance(SECOND)
            start = next_of(
                life, began_at=before.began_at, payload=b"{}", version="v2", seed=b"s", deadline=scene.clock.now() + 5
            )
            letters = [Letter(1, "deferred", "approved", b"1", 7), Letter(2, "child", "c", b"2", 8)]
            assert await scene.renew(life, start, commit.entries[:2], letters)
            record = await scene.record(life)
            assert record == before._replace(
                incarnation=start.incarnation, number=2, fence=before.fence + 1, status=Status.PENDING, exit=None,
                finished_at=None, changed_at=scene.clock.now(), payload=b"{}", version="v2", seed=b"s",
                deadline=scene.clock.now() + 5, wakes=2,
            )  # fmt: skip
            again = life_of(start)
            assert await scene.entries(again) == commit.entries[:2]
            assert await scene.letters(again) == letters
            (put_aside,) = await scene.store.lives(life.execution_id)
            assert (put_aside.incarnation, put_aside.status, put_aside.exit) == (life.incarnation, status, b"exit")
            assert len(await scene.entries(life)) == 3
            await scene.run(again)
            assert await scene.deliver(again.mail("next")) is Receipt.STORED
            assert (await scene.letters(again))[-1].wake == 3

    @scenario
    async def test_the_numbers_of_mail_never_go_back(self, scene: Scene) -> None:
        """The letters keep their numbers, and `wakes` never goes back."""
        await scene.worker()
        life = await scene.running("w1")
        for name in "abc":
            await scene.deliver(life.mail(name))
        life.seen = 3
        await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
        start = next_of(life)
        assert await scene.renew(life, start, [], [Letter(1, "deferred", "a", b"", 0)])
        assert (await scene.record(life)).wakes == 3
        assert [letter.wake for letter in await scene.letters(life_of(start))] == [1]

    @scenario
    async def test_a_held_execution_begins_again_and_is_waited_for_still(self, scene: Scene) -> None:
        """Who waits for a held one goes over to the next life; it shows as SUSPENDED among the lives."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.SUSPENDED, held=Held.DEFECT, exit=b"cause"))
        start = next_of(child)
        assert await scene.renew(child, start, [], [])
        record = await scene.record(child)
        assert (record.status, record.held, record.exit, record.began_at) == (Status.PENDING, None, None, None)
        (put_aside,) = await scene.store.lives(child.execution_id)
        assert (put_aside.status, put_aside.exit, put_aside.finished_at) == (Status.SUSPENDED, b"cause", None)
        again = await scene.run(life_of(start))
        await scene.commit("w1", again.commit(Status.SUCCEEDED, exit=b"{}"))
        assert [letter.kind for letter in await scene.letters(parent)] == ["child"]

    @scenario
    async def test_who_waited_for_a_finished_one_has_been_told(self, scene: Scene) -> None:
        """Who waited for a finished one waits no more: it keeps the next life from nothing, and is told nothing."""
        parent = await scene.running(await scene.worker())
        child, waiter = await scene.child(parent), await scene.running("w1")
        await scene.commit("w1", waiter.commit(acts=Acts(children=[next_of(child)])))
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.FAILED, exit=b"1"))
        start = next_of(child)
        await scene.renew(child, start, [], [])
        await scene.commit("w1", parent.commit(acts=Acts(children=[next_of(child)])))
        (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert answer.stirs
        assert (await scene.record(child)).status is Status.INTERRUPTED
        assert [letter.exit for letter in await scene.letters(waiter)] == [b"1"]

    @scenario
    async def test_what_goes_on_is_not_renewed(self, scene: Scene) -> None:
        """False: it is neither finished nor held, or is not there; nothing was done."""
        await scene.worker()
        for life in (
            await scene.running("w1"),
            await scene.suspended("w1"),
            await scene.pending(),
            await scene.running("w1"),
        ):
            before = await scene.record(life)
            assert not await scene.renew(life, next_of(life), [life.entry()], [])
            assert await scene.record(life) == before
        stranger = new_start()
        assert not await scene.renew(life_of(stranger), stranger, [], [])
        assert await scene.store.read([stranger.execution_id]) == []

    @scenario
    async def test_one_that_has_had_mail_since_is_not_renewed(self, scene: Scene) -> None:
        """False: `wakes` is how far its mail must still go. What came was acknowledged, and would be in neither life."""
        await scene.worker()
        life = await scene.running("w1")
        await scene.commit("w1", life.commit(Status.SUSPENDED, held=Held.FAILURE, exit=b"cause"))
        before = await scene.record(life)
        assert await scene.deliver(life.mail()) is Receipt.STORED
        start = next_of(life)
        assert not await scene.store.renew(life.incarnation, before.wakes, start, [], [])
        assert (await scene.record(life)).incarnation == life.incarnation
        letters = await scene.letters(life)
        assert await scene.store.renew(life.incarnation, before.wakes + 1, start, [], letters)
        assert await scene.letters(life_of(start)) == letters

    @scenario
    async def test_an_execution_that_is_another_one_by_now_is_not_renewed(self, scene: Scene) -> None:
        """False: `before` is the incarnation that it must still have. A repeat that meets its own start gives True."""
        life = await scene.finished(await scene.worker(), Status.FAILED)
        start = next_of(life)
        for _ in range(2):
            assert await scene.renew(life, start, [], [])
        assert not await scene.renew(life, next_of(life), [], [])
        assert (await scene.record(life)).number == 2

    @scenario
    async def test_what_an_earlier_life_gave_out_reaches_the_life_that_has_kept_it(self, scene: Scene) -> None:
        """Unless the present life has the TOKEN entry of the mail's name whose exit is its `token`; else OUTDATED."""
        await scene.worker()
        first = await scene.finished("w1", Status.FAILED)
        kept, dropped = given_out(1, "kept"), given_out(2, "dropped")
        life = first
        for entries in ([kept, dropped], [kept]):
            start = next_of(life, seed=first.incarnation, began_at=1)
            assert await scene.renew(life, start, entries, [])
            life = await scene.run(life_of(start))
            await scene.commit("w1", life.commit(Status.FAILED, exit=b"{}"))
        start = next_of(life, seed=first.incarnation, began_at=1)
        assert await scene.renew(life, start, [kept], [])
        last = life_of(start)

        async def comes(name: str, token: bytes) -> Receipt:
            return await scene.deliver(first.mail(name, incarnation=first.incarnation, token=token))

        assert await comes("dropped", dropped.exit) is Receipt.OUTDATED
        assert await comes("dropped", kept.exit) is Receipt.OUTDATED
        assert await comes("kept", dropped.exit) is Receipt.OUTDATED
        assert await comes("kept", b"") is Receipt.OUTDATED
        assert await scene.letters(last) == []
        assert await comes("kept", kept.exit) is Receipt.STORED
        assert await comes("kept", kept.exit) is Receipt.IGNORED
        assert [letter.name for letter in await scene.letters(last)] == ["kept"]
        await scene.run(last)
        last.seen = 1
        await scene.commit("w1", last.commit(Status.FAILED, exit=b"{}"))
        assert await comes("kept", kept.exit) is Receipt.FINISHED

    @scenario
    async def test_what_a_life_gave_out_is_nothing_to_one_that_begins_anew(self, scene: Scene) -> None:
        """A restart and a life that goes on as new have no journal of an earlier one: what that gave out is OUTDATED."""
        await scene.worker()
        before = await scene.running("w1")
        token = given_out(1, "approved")
        go_on = before.commit(Status.PENDING, acts=Acts(next=next_of(before)))
        go_on.entries = [token]
        await scene.commit("w1", go_on)
        assert go_on.acts is not None
        assert go_on.acts.next is not None
        mail = before.mail(incarnation=before.incarnation, token=token.exit)
        assert await scene.deliver(mail) is Receipt.OUTDATED
        second = await scene.run(life_of(go_on.acts.next))
        await scene.commit("w1", second.commit(Status.FAILED, exit=b"{}"))
        await scene.commit("nobody", born(next_of(second, restarts=True), Status.PENDING))
        assert await scene.deliver(mail) is Receipt.OUTDATED

    @scenario
    async def test_mail_by_a_token_is_known_for_its_own_over_the_lives(self, scene: Scene) -> None:
        """Mail with a sender that meets its own is STORED, also where the life that took it has been rewound since."""
        await scene.worker()
        first = life = await scene.running("w1")
        token = given_out(1, "approved")
        mail = first.mail(incarnation=first.incarnation, token=token.exit, sender=b"me")
        for is_last in (False, True):
            end = life.commit(Status.FAILED, exit=b"{}")
            end.entries = [token] if life is first else []
            await scene.commit("w1", end)
            letters = await scene.letters(life)
            start = next_of(life, seed=first.incarnation, began_at=1)
            assert await scene.renew(life, start, [token], letters)
            assert await scene.deliver(mail) is Receipt.STORED
            if not is_last:
                life = await scene.run(life_of(start))
                life.seen = 1
        assert await scene.deliver(mail._replace(sender=b"another")) is Receipt.IGNORED
        assert await scene.letters(life_of(start)) == letters


class TestSkip:
    """`resume` with `skip`."""

    @scenario
    async def test_a_compensation_that_holds_an_execution_is_passed_over(self, scene: Scene) -> None:
        """One that is held by a compensation gets mail SKIP in the same transaction, under its `hold_name`."""
        await scene.worker()
        life = await scene.running("w1")
        for count in (1, 2):
            await scene.commit("w1", life.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=b"{}"))
            before = await scene.record(life)
            assert await scene.store.resume(life.execution_id, skip=True) == before
            record = await scene.record(life)
            assert (record.status, record.wakes) == (Status.PENDING, count)
            await scene.run(life)
            life.seen = count
        letters = await scene.letters(life)
        assert [(letter.kind, letter.name) for letter in letters] == [("skip", hold_name(1)), ("skip", hold_name(2))]
        # A fork has copies of them, and is held under the same fences.
        start = new_start(began_at=1, letters=letters[1:])
        fork = life_of(start)
        await scene.commit("nobody", born(start, Status.PENDING))
        for count in (3, 4, 5):
            await scene.run(fork)
            fork.seen = count - 1
            await scene.commit("w1", fork.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=b"{}"))
            await scene.store.resume(fork.execution_id, skip=True)
            assert [letter.wake for letter in await scene.letters(fork)] == list(range(2, count + 1))

    @scenario
    async def test_nothing_else_is_passed_over(self, scene: Scene) -> None:
        """Whoever is held with another code is resumed, and whoever is not held is left as it is."""
        await scene.worker()
        for life, status in (
            (await scene.held("w1"), Status.PENDING),
            (await scene.running("w1"), Status.RUNNING),
        ):
            await scene.store.resume(life.execution_id, skip=True)
            assert (await scene.record(life)).status is status
            assert await scene.letters(life) == []
        assert await scene.store.resume("0" * 32, skip=True) is None
