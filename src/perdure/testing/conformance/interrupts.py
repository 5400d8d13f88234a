"""Interrupts: by mail, by deadline, and without mercy (R29, R36, R44)."""

from dataclasses import replace

from perdure._model.journal import Entry, Kind
from perdure._model.records import DEADLINE_NAME, INTERRUPTED, Acts, MailKind, Receipt, Verdict, hold_name
from perdure._model.status import FINAL, Held, Status
from perdure.testing.conformance.scene import SECOND, Life, Scene, born, life_of, new_start, scenario

LATE = b'{"failure":[{"perdure":{"code":"deadline-exceeded"}}]}'
CAUSE = b'{"failure":[]}'


async def interrupt(scene: Scene, life: Life, exit: bytes = INTERRUPTED, sender: bytes = b"") -> Receipt:
    """Interrupt an execution."""
    return await scene.deliver(life.mail("", MailKind.INTERRUPT, exit, sender=sender))


async def is_told(scene: Scene, life: Life, *, held: Held | None = None) -> None:
    """Let the body of an execution be told of its latest interrupt; it goes on, or is held once more."""
    life.seq += 1
    told = Entry(life.seq, Kind.INTERRUPT, f"interrupt {life.seq}", 1, 0, b"", INTERRUPTED, scene.clock.now())
    life.seen = (await scene.record(life)).wakes
    commit = life.commit() if held is None else life.commit(Status.SUSPENDED, held=held, exit=CAUSE)
    commit.entries = [told]
    await scene.commit("w1", commit)


async def names(scene: Scene, life: Life) -> list[tuple[str, bytes]]:
    """The names and exits of an execution's letters."""
    return [(one.name, one.exit) for one in await scene.letters(life)]


async def with_waiter(scene: Scene, child: Life) -> Life:
    """An execution that waits for another one, suspended."""
    waiter = await scene.running("w1")
    start = replace(new_start(), execution_id=child.execution_id)
    await scene.commit("w1", waiter.commit(Status.SUSPENDED, acts=Acts(children=[start])))
    return waiter


class TestInterrupt:
    """`deliver` of INTERRUPT, and `interrupt_unsafe`."""

    @scenario
    async def test_what_never_began_ends_at_once(self, scene: Scene) -> None:
        """A life that never began ends at once with the mail's exit: INTERRUPTED, or with any other exit FAILED."""
        await scene.worker()
        for exit_, status in ((INTERRUPTED, Status.INTERRUPTED), (LATE, Status.FAILED)):
            later = new_start(due_at=scene.clock.now() + SECOND)
            await scene.commit("nobody", born(later, Status.SUSPENDED))
            for life in (await scene.pending(), life_of(later)):
                before = await scene.record(life)
                waiter = await with_waiter(scene, life)
                assert await interrupt(scene, life, exit_) is Receipt.STORED
                record = await scene.record(life)
                assert record == before._replace(
                    status=status, exit=exit_, finished_at=scene.clock.now(), wakes=record.wakes, wake_at=None
                )
                assert [(one.kind, one.exit) for one in await scene.letters(waiter)] == [("child", exit_)]
                await scene.run(waiter)
        assert await scene.store.next_wake() is None

    @scenario
    async def test_a_start_whose_execution_was_interrupted_may_be_repeated(self, scene: Scene) -> None:
        """A start that needed no worker: STARTED, though it has ended."""
        start = new_start()
        await scene.commit("nobody", born(start, Status.PENDING))
        await interrupt(scene, life_of(start))
        (answer,) = await scene.commit("nobody", born(start, Status.PENDING))
        assert answer.verdict is Verdict.STARTED

    @scenario
    async def test_what_has_begun_is_told(self, scene: Scene) -> None:
        """A SUSPENDED execution becomes PENDING; a RUNNING one shows in `mail_for`; nothing ends."""
        await scene.worker()
        running, parked, given_back = await scene.running("w1"), await scene.suspended("w1"), await scene.running("w1")
        await scene.commit("w1", given_back.commit(Status.PENDING))
        for life, status in (
            (running, Status.RUNNING),
            (parked, Status.PENDING),
            (given_back, Status.PENDING),
        ):
            assert await interrupt(scene, life) is Receipt.STORED
            assert (await scene.record(life)).status is status
            assert [(one.kind, one.name, one.exit) for one in await scene.letters(life)] == [
                ("interrupt", "", INTERRUPTED)
            ]
        assert await scene.store.mail_for("w1") == {running.execution_id: 1}

    @scenario
    async def test_a_held_execution_is_moved_by_an_interrupt(self, scene: Scene) -> None:
        """A held one becomes PENDING with it; if it is held with FAILURE or DEFECT, the letter's exit is that cause."""
        await scene.worker()
        for code in set(Held) - {Held.COMPENSATION}:
            life = await scene.held("w1", code=code)
            assert await interrupt(scene, life) is Receipt.STORED
            record = await scene.record(life)
            assert (record.status, record.held, record.exit, record.wakes) == (Status.PENDING, None, None, 1)
            (letter,) = await scene.letters(life)
            assert letter.exit == (CAUSE if code in {Held.FAILURE, Held.DEFECT} else INTERRUPTED)
            await scene.run(life)

    @scenario
    async def test_what_a_compensation_holds_is_not_moved(self, scene: Scene) -> None:
        """Held with COMPENSATION it stays: the letter only waits; that of a deadline too (R28)."""
        await scene.worker()
        life = await scene.running("w1", deadline=scene.clock.now())
        await scene.commit("w1", life.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=CAUSE))
        before = await scene.record(life)
        assert await interrupt(scene, life) is Receipt.STORED
        assert await interrupt(scene, life) is Receipt.IGNORED
        assert await scene.store.expire(LATE, 10) == 1
        assert await scene.record(life) == before._replace(wakes=2)
        assert await names(scene, life) == [("", INTERRUPTED), (DEADLINE_NAME, LATE)]

    @scenario
    async def test_a_held_execution_is_moved_whatever_came_before(self, scene: Scene) -> None:
        """But of a held execution whose body was told of all: that one is stored under its `hold_name`, and moves it."""
        await scene.worker()
        life = await scene.running("w1")
        await interrupt(scene, life)
        for code, exit_ in ((Held.DEADLOCK, INTERRUPTED), (Held.FAILURE, CAUSE), (Held.DEFECT, CAUSE)):
            await is_told(scene, life, held=code)
            assert await interrupt(scene, life) is Receipt.STORED
            record = await scene.record(life)
            assert (record.status, record.held, record.exit) == (Status.PENDING, None, None)
            assert (await names(scene, life))[-1] == (hold_name(record.wakes), exit_)
            # It is moved already, or runs.
            assert await interrupt(scene, life) is Receipt.IGNORED
            await scene.run(life)
            assert await interrupt(scene, life) is Receipt.IGNORED
        assert len(await scene.letters(life)) == 4

    @scenario
    async def test_one_that_is_born_with_a_mailbox_is_moved_as_often_as_it_is_held(self, scene: Scene) -> None:
        """Its `hold_name` is no copy's: a fork has letters of its original, and is held under the same fences."""
        await scene.worker()
        original = await scene.running("w1")
        await interrupt(scene, original)
        for _ in range(3):
            await is_told(scene, original, held=Held.DEADLOCK)
            await interrupt(scene, original)
            await scene.run(original)
        letters = await scene.letters(original)
        for count in range(1, 5):
            start = new_start(began_at=1, letters=letters[:count])
            fork = life_of(start)
            told = [fork.entry()._replace(kind=Kind.INTERRUPT) for _ in letters[1:count]]
            await scene.commit("nobody", born(start, Status.PENDING, entries=told))
            await scene.run(fork)
            for _ in range(4):
                await is_told(scene, fork, held=Held.DEADLOCK)
                assert await interrupt(scene, fork) is Receipt.STORED
                assert (await scene.record(fork)).status is Status.PENDING
                await scene.run(fork)

    @scenario
    async def test_what_a_held_body_has_not_been_told_of_is_enough(self, scene: Scene) -> None:
        """Else what lies there is enough: a second one is IGNORED, and moves it, so that its body is told of the first."""
        await scene.worker()
        life = await scene.running("w1")
        await interrupt(scene, life)
        life.seen = 1
        await scene.commit("w1", life.commit(Status.SUSPENDED, held=Held.DIVERGENCE, exit=CAUSE))
        assert await interrupt(scene, life) is Receipt.IGNORED
        assert (await scene.record(life)).status is Status.PENDING
        assert await names(scene, life) == [("", INTERRUPTED)]

    @scenario
    async def test_an_interrupt_of_a_held_execution_that_is_sent_again_does_not_meet_the_next_hold(
        self, scene: Scene
    ) -> None:
        """Mail with a sender that meets its own is STORED; nothing is stored twice."""
        await scene.worker()
        life = await scene.running("w1")
        await interrupt(scene, life)
        await is_told(scene, life, held=Held.DEADLOCK)
        assert await interrupt(scene, life, sender=b"me") is Receipt.STORED
        await scene.run(life)
        assert await interrupt(scene, life, sender=b"me") is Receipt.STORED
        await is_told(scene, life, held=Held.DEADLOCK)
        before = await scene.record(life)
        assert await interrupt(scene, life, sender=b"me") is Receipt.STORED
        assert await scene.record(life) == before
        assert len(await scene.letters(life)) == 2
        await interrupt(scene, life)
        await scene.run(life)
        next_ = new_start(began_at=1)
        next_ = replace(next_, execution_id=life.execution_id)
        life.seen = 3
        await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=next_)))
        assert await interrupt(scene, life, sender=b"me") is Receipt.STORED
        assert await scene.letters(life_of(next_)) == []

    @scenario
    async def test_the_crashes_of_a_held_execution_are_forgiven(self, scene: Scene) -> None:
        """Its crashes forgiven: whoever interrupts it wants it to run to its end."""
        await scene.worker()
        await scene.worker("dead")
        life = await scene.running("dead")
        await scene.kill("dead")
        await scene.store.take_over("w1")
        await scene.run(life)
        await scene.commit("w1", life.commit(Status.SUSPENDED, held=Held.CRASHES, exit=b"{}"))
        assert (await scene.record(life)).crashes == 1
        await interrupt(scene, life)
        assert (await scene.record(life)).crashes == 0

    @scenario
    async def test_a_second_interrupt_does_nothing(self, scene: Scene) -> None:
        """A second one is IGNORED, and moves nobody (R29)."""
        await scene.worker()
        for status in (Status.RUNNING, Status.SUSPENDED, Status.PENDING):
            life = await scene.running("w1")
            await interrupt(scene, life)
            await is_told(scene, life)
            await scene.commit("w1", life.commit(status))
            before = await scene.record(life)
            assert await interrupt(scene, life, LATE) is Receipt.IGNORED
            assert await scene.record(life) == before

    @scenario
    async def test_what_has_ended_is_not_interrupted(self, scene: Scene) -> None:
        """Unknown or finished: nothing (R29)."""
        await scene.worker()
        for status in FINAL:
            life = await scene.finished("w1", status)
            before = await scene.record(life)
            assert await interrupt(scene, life) is Receipt.FINISHED
            assert await scene.store.interrupt_unsafe(life.execution_id, INTERRUPTED) is Receipt.FINISHED
            assert await scene.record(life) == before
        for execution_id in ("0" * 32, "no id"):
            assert await scene.store.interrupt_unsafe(execution_id, INTERRUPTED) is Receipt.UNKNOWN

    @scenario
    async def test_an_interrupt_that_is_sent_again_was_stored(self, scene: Scene) -> None:
        """Mail with a sender that meets its own is STORED, also where the execution has ended by it."""
        await scene.worker()
        for life in (await scene.pending(), await scene.running("w1"), await scene.held("w1")):
            for _ in range(2):
                assert await interrupt(scene, life, sender=b"me") is Receipt.STORED
            assert await interrupt(scene, life, sender=b"another") is not Receipt.STORED
            assert (await scene.record(life)).wakes == 1

    @scenario
    async def test_an_execution_is_ended_whatever_it_does(self, scene: Scene) -> None:
        """INTERRUPTED with this exit; the fence grows, its owner's writes are LOST; who waits for it is told."""
        await scene.worker()
        for life in (
            await scene.running("w1"),
            await scene.suspended("w1", wake_at=scene.clock.now() + SECOND),
            await scene.held("w1"),
            await scene.pending(),
        ):
            waiter = await with_waiter(scene, life)
            before = await scene.record(life)
            assert await scene.store.interrupt_unsafe(life.execution_id, b"end") is Receipt.STORED
            assert await scene.record(life) == before._replace(
                status=Status.INTERRUPTED, exit=b"end", fence=before.fence + 1, owner=None, held=None, wake_at=None,
                waits=None, finished_at=scene.clock.now(), changed_at=scene.clock.now(),
            )  # fmt: skip
            (answer,) = await scene.commit("w1", life.commit(Status.SUCCEEDED, entries=1, exit=b"{}"))
            assert answer.verdict is Verdict.LOST
            assert [one.exit for one in await scene.letters(waiter)] == [b"end"]
            assert (await scene.record(waiter)).status is Status.PENDING
        assert await scene.store.next_wake() is None
        assert await scene.store.owned("w1") == {}


class TestDeadlines:
    """`expire`, and the deadlines in `next_wake`."""

    @scenario
    async def test_a_deadline_is_kept_and_is_a_wake(self, scene: Scene) -> None:
        """`next_wake`: the earliest wake, or deadline of one that has not ended, whatever it does."""
        await scene.worker()
        now = scene.clock.now()
        held = await scene.running("w1", deadline=now + 50)
        assert (await scene.record(held)).deadline == now + 50
        await scene.commit("w1", held.commit(Status.SUSPENDED, held=Held.DEFECT, exit=CAUSE))
        assert await scene.store.next_wake() == now + 50
        await scene.suspended("w1", wake_at=now + 40)
        assert await scene.store.next_wake() == now + 40
        running = await scene.running("w1", deadline=now + 30)
        await scene.pending(deadline=now + 35)
        assert await scene.store.next_wake() == now + 30
        await scene.commit("w1", running.commit(Status.SUCCEEDED, exit=b"{}"))
        assert await scene.store.next_wake() == now + 35
        over = new_start(deadline=now + 1)
        await scene.commit("w1", born(over, Status.SUCCEEDED, exit=b"{}"))
        assert await scene.store.next_wake() == now + 35
        assert (await scene.record(life_of(over))).deadline == now + 1

    @scenario
    async def test_nobody_is_interrupted_before_its_deadline(self, scene: Scene) -> None:
        """Never before the deadline."""
        await scene.worker()
        life = await scene.running("w1", deadline=scene.clock.now() + SECOND)
        scene.clock.advance(SECOND - 1)
        assert await scene.store.expire(LATE, 10) == 0
        assert await scene.letters(life) == []
        scene.clock.advance(1)
        assert await scene.store.expire(LATE, 10) == 1

    @scenario
    async def test_whose_deadline_has_passed_is_interrupted_as_of_then(self, scene: Scene) -> None:
        """The letter's instant is the deadline, so that what came before it is fed first (R47)."""
        await scene.worker()
        deadline = scene.clock.now() + SECOND
        running = await scene.running("w1", deadline=deadline)
        parked = await scene.running("w1", deadline=deadline)
        await scene.commit("w1", parked.commit(Status.SUSPENDED))
        scene.clock.advance(3 * SECOND)
        assert await scene.store.expire(LATE, 10) == 2
        for life in (running, parked):
            assert await scene.letters(life) == [(1, "interrupt", DEADLINE_NAME, LATE, deadline)]
        assert (await scene.record(parked)).status is Status.PENDING
        assert (await scene.record(parked)).changed_at == scene.clock.now()
        assert await scene.store.mail_for("w1") == {running.execution_id: 1}

    @scenario
    async def test_a_deadline_passes_once(self, scene: Scene) -> None:
        """Once each: then it is no wake any more, though the execution goes on."""
        await scene.worker()
        life = await scene.running("w1", deadline=scene.clock.now())
        assert await scene.store.expire(LATE, 10) == 1
        assert await scene.store.expire(LATE, 10) == 0
        assert await scene.store.next_wake() is None
        assert (await scene.record(life)).deadline == scene.clock.now()

    @scenario
    async def test_a_deadline_and_an_interrupt_are_not_the_same(self, scene: Scene) -> None:
        """It acts as an INTERRUPT does, and is not the same: whoever has had the one has the other too, and once each."""
        await scene.worker()
        now = scene.clock.now()
        interrupted, late = await scene.running("w1", deadline=now), await scene.running("w1", deadline=now + 1)
        await interrupt(scene, interrupted)
        assert await scene.store.expire(LATE, 10) == 1
        assert await names(scene, interrupted) == [("", INTERRUPTED), (DEADLINE_NAME, LATE)]
        scene.clock.advance(1)
        assert await scene.store.expire(LATE, 10) == 1
        assert await interrupt(scene, late) is Receipt.STORED
        assert await names(scene, late) == [(DEADLINE_NAME, LATE), ("", INTERRUPTED)]
        for life in (interrupted, late):
            assert await interrupt(scene, life) is Receipt.IGNORED
            assert await scene.store.mail_for("w1") in ({interrupted.execution_id: 2, late.execution_id: 2}, {})
        assert await scene.store.next_wake() is None

    @scenario
    async def test_a_deadline_does_not_go_over_to_the_next_life(self, scene: Scene) -> None:
        """But not of a deadline, which the next life has for itself."""
        await scene.worker()
        now = scene.clock.now()
        life = await scene.running("w1", deadline=now)
        assert await scene.store.expire(LATE, 10) == 1
        await interrupt(scene, life)
        next_ = replace(new_start(deadline=now + SECOND), execution_id=life.execution_id)
        await scene.commit("w1", life.commit(Status.PENDING, acts=Acts(next=next_)))
        assert await names(scene, life_of(next_)) == [("", INTERRUPTED)]
        assert await scene.store.next_wake() == now + SECOND

    @scenario
    async def test_a_deadline_moves_a_held_execution_that_was_interrupted_before(self, scene: Scene) -> None:
        """Also where its body has swallowed an interrupt, and has been held since (R36, R44)."""
        await scene.worker()
        for code, exit_ in ((Held.FAILURE, CAUSE), (Held.DEADLOCK, LATE)):
            life = await scene.running("w1", deadline=scene.clock.now() + SECOND)
            await interrupt(scene, life)
            await is_told(scene, life, held=code)
            scene.clock.advance(SECOND)
            assert await scene.store.expire(LATE, 10) == 1
            assert (await scene.record(life)).status is Status.PENDING
            assert await names(scene, life) == [("", INTERRUPTED), (DEADLINE_NAME, exit_)]
            await scene.run(life)

    @scenario
    async def test_what_never_began_fails_at_its_deadline(self, scene: Scene) -> None:
        """One that never began ends at once, FAILED with this exit; who waits for it is told (R44)."""
        await scene.worker()
        life = await scene.pending(deadline=scene.clock.now())
        waiter = await with_waiter(scene, life)
        assert await scene.store.expire(LATE, 10) == 1
        record = await scene.record(life)
        assert (record.status, record.exit, record.finished_at) == (Status.FAILED, LATE, scene.clock.now())
        assert [one.exit for one in await scene.letters(waiter)] == [LATE]
        assert await scene.store.next_wake() is None

    @scenario
    async def test_a_held_execution_ends_by_its_deadline_as_by_an_interrupt(self, scene: Scene) -> None:
        """It acts as an INTERRUPT does: with the cause of a failure, else with its own exit (R44)."""
        await scene.worker()
        for code, exit_ in ((Held.FAILURE, CAUSE), (Held.CRASHES, LATE)):
            life = await scene.running("w1", deadline=scene.clock.now())
            await scene.commit("w1", life.commit(Status.SUSPENDED, held=code, exit=CAUSE))
            assert await scene.store.expire(LATE, 10) == 1
            assert (await scene.record(life)).status is Status.PENDING
            assert [one.exit for one in await scene.letters(life)] == [exit_]
            await scene.run(life)

    @scenario
    async def test_so_many_deadlines_are_seen_to_at_once(self, scene: Scene) -> None:
        """Up to `limit`; the longest passed first."""
        await scene.worker()
        now = scene.clock.now()
        late, later, latest = [await scene.running("w1", deadline=now + n) for n in (3, 2, 1)]
        scene.clock.advance(5)
        assert await scene.store.expire(LATE, 2) == 2
        assert [len(await scene.letters(life)) for life in (late, later, latest)] == [0, 1, 1]
        assert await scene.store.next_wake() == now + 3
        assert await scene.store.expire(LATE, 2) == 1
