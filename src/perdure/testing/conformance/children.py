"""Parents and children: who waits is told of the end, whichever of the two was written first (R31)."""

import os
from dataclasses import replace

from perdure._model.records import INTERRUPTED, Acts, MailKind, Start, Verdict
from perdure._model.status import FINAL, Held, Status
from perdure.testing.conformance.scene import SECOND, Life, Scene, born, life_of, new_start, scenario

END = b'{"success":7}'


def asked_again(life: Life, **more: object) -> Start:
    """A start of an execution that exists, as another one asks for it."""
    return replace(new_start(), execution_id=life.execution_id, incarnation=os.urandom(16), **more)


async def joined(scene: Scene, child: Life) -> Life:
    """An execution that waits for another one's child."""
    joiner = await scene.running("w1")
    await scene.commit("w1", joiner.commit(acts=Acts(children=[asked_again(child)])))
    return joiner


async def told(scene: Scene, life: Life) -> list[tuple[str, str, bytes]]:
    """What an execution has been told: kind, name and exit of its letters."""
    return [(letter.kind, letter.name, letter.exit) for letter in await scene.letters(life)]


class TestChildren:
    """`acts.children`, and what the end of an execution tells to whom."""

    @scenario
    async def test_a_child_is_born_pending_with_its_parents_commit(self, scene: Scene) -> None:
        """Each is born PENDING, with everything that its start says; the commit stirs whoever may run it."""
        parent = await scene.running(await scene.worker())
        start = new_start(parent=parent.execution_id, priority=3, deadline=scene.clock.now() + SECOND)
        (answer,) = await scene.commit("w1", parent.commit(entries=1, acts=Acts(children=[start])))
        assert (answer.verdict, answer.stirs) == (Verdict.GRANTED, True)
        child = await scene.record(life_of(start))
        assert (child.status, child.owner, child.fence, child.parent) == (Status.PENDING, None, 0, parent.execution_id)
        assert (child.priority, child.deadline, child.wakes) == (3, start.deadline, 0)

    @scenario
    async def test_a_delayed_child_is_born_suspended(self, scene: Scene) -> None:
        """Each is born PENDING, or SUSPENDED until it is due."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent, due_at=scene.clock.now() + SECOND)
        assert (await scene.record(child)).wake_at == scene.clock.now() + SECOND

    @scenario
    async def test_a_parent_that_waits_is_woken_by_its_childs_end(self, scene: Scene) -> None:
        """CHILD: the name is its id, the exit its exit; mail, wake and end are one transaction."""
        await scene.worker()
        for status in FINAL:
            parent = await scene.running("w1")
            child = await scene.child(parent)
            await scene.commit("w1", parent.commit(Status.SUSPENDED, waits=b"[]"))
            await scene.run(child)
            scene.clock.advance(SECOND)
            (answer,) = await scene.commit("w1", child.commit(status, exit=END))
            assert (answer.verdict, answer.stirs) == (Verdict.GRANTED, True)
            (letter,) = await scene.letters(parent)
            assert letter == (1, "child", child.execution_id, END, scene.clock.now())
            record = await scene.record(parent)
            assert (record.status, record.wakes, record.waits) == (Status.PENDING, 1, None)
            await scene.run(parent)

    @scenario
    async def test_a_parent_that_runs_is_told_of_its_childs_end(self, scene: Scene) -> None:
        """A RUNNING one shows in `mail_for` of its owner."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        assert await scene.store.mail_for("w1") == {}
        await scene.run(child)
        (answer,) = await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        assert answer.stirs
        assert await scene.store.mail_for("w1") == {parent.execution_id: 1}
        (answer,) = await scene.commit("w1", parent.commit(Status.SUCCEEDED, exit=END))
        assert answer.verdict is Verdict.STAYS

    @scenario
    async def test_who_waits_is_written_down_and_wakes_nobody(self, scene: Scene) -> None:
        """WAITER wakes nobody: the child has no mail, in no number, and its owner is not told."""
        await scene.worker()
        parent, child = await scene.running("w1"), await scene.running("w1")
        parked = await scene.suspended("w1")
        acts = Acts(children=[asked_again(child), asked_again(parked)])
        (answer,) = await scene.commit("w1", parent.commit(acts=acts))
        assert not answer.stirs
        assert await scene.store.mail_for("w1") == {}
        for life, status in ((child, Status.RUNNING), (parked, Status.SUSPENDED)):
            assert ((await scene.record(life)).status, (await scene.record(life)).wakes) == (status, 0)
            assert await scene.letters(life) == []
            assert (await scene.store.load([(life.incarnation, 0, -1)]))[0].letters == []

    @scenario
    async def test_a_child_that_exists_is_joined(self, scene: Scene) -> None:
        """Born, or found: one that is found is left as it is, and tells its end to everyone who waits."""
        await scene.worker()
        first = await scene.running("w1")
        child = await scene.child(first)
        before = await scene.record(child)
        second = await joined(scene, child)
        assert await scene.record(child) == before
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.FAILED, exit=b'{"failure":[]}'))
        for life in (first, second):
            assert await told(scene, life) == [("child", child.execution_id, b'{"failure":[]}')]

    @scenario
    async def test_a_child_that_has_ended_sends_its_exit_at_once(self, scene: Scene) -> None:
        """One that has ended already sends its exit at once, also to a parent that suspends with that commit."""
        await scene.worker()
        child = await scene.finished("w1")
        running, parked = await scene.running("w1"), await scene.running("w1")
        answers = await scene.commit(
            "w1",
            running.commit(acts=Acts(children=[asked_again(child)])),
            parked.commit(Status.SUSPENDED, acts=Acts(children=[asked_again(child)])),
        )
        assert [(one.verdict, one.wakes, one.stirs) for one in answers] == [(Verdict.GRANTED, 1, True)] * 2
        for life in (running, parked):
            assert await told(scene, life) == [("child", child.execution_id, END)]
        assert (await scene.record(parked)).status is Status.PENDING
        assert await scene.store.mail_for("w1") == {running.execution_id: 1}

    @scenario
    async def test_a_parent_may_suspend_in_the_batch_in_which_its_child_ends(self, scene: Scene) -> None:
        """Whoever ends in this batch is told of as it stands then: the place in the batch makes no difference."""
        await scene.worker()
        for first in (True, False):
            parent = await scene.running("w1")
            child = await scene.child(parent)
            await scene.run(child)
            batch = [parent.commit(Status.SUSPENDED), child.commit(Status.SUCCEEDED, exit=END)]
            await scene.commit("w1", *(batch if first else batch[::-1]))
            assert await told(scene, parent) == [("child", child.execution_id, END)]
            assert (await scene.record(parent)).status is Status.PENDING
            await scene.run(parent)

    @scenario
    async def test_a_child_may_be_asked_for_in_the_batch_in_which_it_ends(self, scene: Scene) -> None:
        """Whoever ends in this batch tells, as it stands then: nobody is forgotten, nobody is told twice."""
        await scene.worker()
        for first in (True, False):
            child, parent = await scene.running("w1"), await scene.running("w1")
            asking = parent.commit(Status.SUSPENDED, acts=Acts(children=[asked_again(child)]))
            ending = child.commit(Status.SUCCEEDED, exit=END)
            await scene.commit("w1", *((asking, ending) if first else (ending, asking)))
            assert await told(scene, parent) == [("child", child.execution_id, END)]
            assert (await scene.record(parent)).status is Status.PENDING
            await scene.run(parent)

    @scenario
    async def test_a_parent_may_be_born_waiting(self, scene: Scene) -> None:
        """Of a commit that is STARTED the acts are done; a parent may be born with the wait for its child."""
        await scene.worker()
        start, wanted = new_start(), new_start()
        (answer,) = await scene.commit("w1", born(start, Status.SUSPENDED, acts=Acts(children=[wanted])))
        assert (answer.verdict, answer.stirs) == (Verdict.STARTED, True)
        child = await scene.run(life_of(wanted))
        await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        assert (await scene.record(life_of(start))).status is Status.PENDING

    @scenario
    async def test_a_parent_that_has_ended_is_told_nothing(self, scene: Scene) -> None:
        """Nobody waits whose life is over."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.commit("w1", parent.commit(Status.FAILED, exit=END))
        before = await scene.record(parent)
        await scene.run(child)
        (answer,) = await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        assert not answer.stirs
        assert await scene.record(parent) == before
        assert await scene.letters(parent) == []

    @scenario
    async def test_a_lost_commit_asks_for_nothing(self, scene: Scene) -> None:
        """Nothing of the acts if the commit is LOST, or has joined."""
        await scene.worker()
        life, over = await scene.running("w1"), await scene.finished("w1")
        life.fence = 9
        acts = Acts(children=[new_start()], starts=[new_start()], leaves=[over.execution_id], mail=[life.mail()])
        answers = await scene.commit("w1", life.commit(acts=acts), born(asked_again(over), Status.RUNNING, acts=acts))
        assert [(one.verdict, one.receipts) for one in answers] == [(Verdict.LOST, ()), (Verdict.JOINED, ())]
        assert await scene.store.read([acts.children[0].execution_id, acts.starts[0].execution_id]) == []
        assert await scene.letters(life) == []

    @scenario
    async def test_a_commit_that_stays_has_asked_for_its_children(self, scene: Scene) -> None:
        """Of a commit that STAYS the acts are done."""
        parent = await scene.running(await scene.worker())
        await scene.deliver(parent.mail())
        wanted = new_start()
        (answer,) = await scene.commit("w1", parent.commit(Status.SUSPENDED, acts=Acts(children=[wanted])))
        assert answer.verdict is Verdict.STAYS
        await scene.run(life_of(wanted))

    @scenario
    async def test_a_child_asked_for_twice_tells_once(self, scene: Scene) -> None:
        """Repeated, acts do nothing twice."""
        parent = await scene.running(await scene.worker())
        start = new_start()
        commit = parent.commit(entries=1, acts=Acts(children=[start]))
        await scene.commit("w1", commit)
        await scene.commit("w1", commit)
        child = await scene.run(life_of(start))
        await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        (answer,) = await scene.commit("w1", commit)
        assert (answer.verdict, answer.wakes) == (Verdict.GRANTED, 1)
        assert await told(scene, parent) == [("child", child.execution_id, END)]

    @scenario
    async def test_an_execution_that_waits_for_nobody_stirs_nobody_when_it_ends(self, scene: Scene) -> None:
        """`stirs`: whether anybody has been given something to do by it."""
        await scene.worker()
        for status in (*FINAL, Status.SUSPENDED, Status.PENDING, Status.RUNNING):
            life = await scene.running("w1")
            (answer,) = await scene.commit("w1", life.commit(status, exit=END))
            assert not answer.stirs

    @scenario
    async def test_a_failed_child_is_restarted_by_a_parent_that_asks_for_it(self, scene: Scene) -> None:
        """A child that `restarts` is restarted if it did not succeed (R37)."""
        await scene.worker()
        for status in FINAL:
            child, parent = await scene.finished("w1", status), await scene.running("w1")
            start = asked_again(child, restarts=True, parent=parent.execution_id)
            (answer,) = await scene.commit("w1", parent.commit(acts=Acts(children=[start])))
            assert answer.stirs
            record = await scene.record(child)
            if status is Status.SUCCEEDED:
                assert (record.incarnation, record.number) == (child.incarnation, 1)
                assert await told(scene, parent) == [("child", child.execution_id, END)]
                continue
            assert (record.incarnation, record.number, record.fence) == (start.incarnation, 2, 2)
            assert (record.status, record.parent) == (Status.PENDING, parent.execution_id)
            again = await scene.run(life_of(start))
            await scene.commit("w1", again.commit(Status.SUCCEEDED, exit=b"2"))
            assert await told(scene, parent) == [("child", child.execution_id, b"2")]

    @scenario
    async def test_a_restart_of_a_child_is_repeated_without_another_life(self, scene: Scene) -> None:
        """Repeated, acts do nothing twice, also where the child has failed again since."""
        await scene.worker()
        child, parent = await scene.finished("w1", Status.FAILED), await scene.running("w1")
        start = asked_again(child, restarts=True)
        commit = parent.commit(acts=Acts(children=[start]))
        await scene.commit("w1", commit)
        again = await scene.run(life_of(start))
        await scene.commit("w1", again.commit(Status.FAILED, exit=END))
        await scene.commit("w1", commit)
        assert (await scene.record(child)).number == 2

    @scenario
    async def test_a_child_is_not_restarted_for_one_that_was_told_of_its_end(self, scene: Scene) -> None:
        """Unless this life has been told of its end already: it would never hear of another one."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.FAILED, exit=END))
        await scene.commit("w1", parent.commit(acts=Acts(children=[asked_again(child, restarts=True)])))
        assert (await scene.record(child)).number == 1
        assert await told(scene, parent) == [("child", child.execution_id, END)]

    @scenario
    async def test_an_earlier_life_of_the_parent_waits_no_more(self, scene: Scene) -> None:
        """Nobody waits who has another incarnation than when it asked; who asks again is told."""
        await scene.worker()
        for asks_again in (False, True):
            parent = await scene.running("w1")
            child = await scene.child(parent)
            again = new_start()
            again = replace(again, execution_id=parent.execution_id, restarts=True)
            await scene.commit("w1", parent.commit(Status.FAILED, exit=END))
            await scene.commit("w1", born(again, Status.PENDING))
            next_life = life_of(again)
            for record in await scene.claim("w1"):
                (child if record.execution_id == child.execution_id else next_life).claimed(record)
            if asks_again:
                await scene.commit("w1", next_life.commit(acts=Acts(children=[asked_again(child)])))
            await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
            expected = [("child", child.execution_id, END)] if asks_again else []
            assert await told(scene, next_life) == expected
            assert await scene.letters(parent) == []


class TestLeaving:
    """`acts.leaves`: a child that is not wanted any more."""

    @scenario
    async def test_a_child_that_only_its_parent_wanted_is_interrupted(self, scene: Scene) -> None:
        """If it is the child's parent and nobody else waits, the child is interrupted."""
        await scene.worker()
        parent = await scene.running("w1")
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.SUSPENDED))
        (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert answer.stirs
        assert await told(scene, child) == [("interrupt", "", INTERRUPTED)]
        assert await scene.letters(parent) == []
        await scene.run(child)
        child.seen = 1
        await scene.commit("w1", child.commit(Status.INTERRUPTED, exit=INTERRUPTED))
        # It is told of the child's end all the same.
        assert await told(scene, parent) == [("child", child.execution_id, INTERRUPTED)]

    @scenario
    async def test_a_child_that_never_began_ends_at_once(self, scene: Scene) -> None:
        """An interrupt ends what never began, and its end is told in the same transaction."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        (answer,) = await scene.commit("w1", parent.commit(Status.SUSPENDED, acts=Acts(leaves=[child.execution_id])))
        assert (answer.wakes, answer.stirs) == (1, True)
        assert (await scene.record(child)).status is Status.INTERRUPTED
        assert await told(scene, parent) == [("child", child.execution_id, INTERRUPTED)]
        assert (await scene.record(parent)).status is Status.PENDING

    @scenario
    async def test_a_child_that_somebody_else_waits_for_goes_on(self, scene: Scene) -> None:
        """Else mail FREED comes to this execution; its name is the child's id and the letter's own number."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        other = await joined(scene, child)
        await scene.run(child)
        (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (answer.wakes, answer.stirs) == (1, True)
        assert await scene.letters(child) == []
        assert await told(scene, parent) == [("freed", f"{child.execution_id}/1", b"")]
        await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        assert (await told(scene, parent))[1:] == await told(scene, other) == [("child", child.execution_id, END)]

    @scenario
    async def test_a_child_may_be_left_and_asked_for_again(self, scene: Scene) -> None:
        """`rejoins` are children once more, behind the leaves: who has come back counts among those who wait."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        other = await joined(scene, child)
        again = replace(new_start(), execution_id=child.execution_id)
        await scene.commit("w1", other.commit(acts=Acts(leaves=[child.execution_id], rejoins=[again])))
        assert await told(scene, other) == [("freed", f"{child.execution_id}/1", b"")]
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (await scene.record(child)).status is Status.PENDING, "somebody waits for it"
        await scene.commit("w1", other.commit(acts=Acts(leaves=[child.execution_id])))
        assert (await told(scene, other))[1:] == [("freed", f"{child.execution_id}/2", b"")]

    @scenario
    async def test_who_merely_joined_interrupts_nothing(self, scene: Scene) -> None:
        """If it is the child's parent: anybody else who leaves is freed, though nobody waits any more."""
        await scene.worker()
        child = await scene.running("w1")
        joiner = await joined(scene, child)
        await scene.commit("w1", joiner.commit(acts=Acts(leaves=[child.execution_id])))
        assert await scene.letters(child) == []
        assert await told(scene, joiner) == [("freed", f"{child.execution_id}/1", b"")]

    @scenario
    async def test_whoever_has_left_or_ended_or_begun_anew_keeps_no_child(self, scene: Scene) -> None:
        """Nobody else waits: who has left does not count, nor whose life is over."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        left, over, anew = [await joined(scene, child) for _ in range(3)]
        await scene.commit("w1", left.commit(acts=Acts(leaves=[child.execution_id])))
        await scene.commit("w1", over.commit(Status.SUCCEEDED, exit=END))
        again = replace(new_start(), execution_id=anew.execution_id)
        await scene.commit("w1", anew.commit(Status.PENDING, acts=Acts(next=again)))
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (await scene.record(child)).status is Status.INTERRUPTED

    @scenario
    async def test_who_comes_back_counts_again(self, scene: Scene) -> None:
        """It counts again if it had LEFT."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        other = await joined(scene, child)
        await scene.commit("w1", other.commit(acts=Acts(leaves=[child.execution_id])))
        await scene.commit("w1", other.commit(acts=Acts(children=[asked_again(child)])))
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (await scene.record(child)).status is Status.PENDING

    @scenario
    async def test_a_child_that_was_interrupted_before_is_waited_for(self, scene: Scene) -> None:
        """It is interrupted already, and nothing holds it: its end will come."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.deliver(child.mail("", MailKind.INTERRUPT, INTERRUPTED))
        (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (answer.wakes, answer.stirs) == (0, False)
        assert len(await scene.letters(child)) == 1

    @scenario
    async def test_a_child_is_not_interrupted_beside_its_deadline(self, scene: Scene) -> None:
        """Unless it has had an INTERRUPT or its deadline has passed: what it does about that is not cut off (R31, R44)."""
        await scene.worker()
        now = scene.clock.now()
        for seen_to in (True, False):
            parent = await scene.running("w1")
            child = await scene.child(parent, deadline=now)
            await scene.run(child)
            if seen_to:
                await scene.store.expire(END, 10)
            (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
            assert (answer.wakes, answer.stirs) == (0, False)
            await scene.store.expire(END, 10)
            assert await told(scene, child) == [("interrupt", "deadline", END)]

    @scenario
    async def test_a_child_that_has_ended_is_left_alone(self, scene: Scene) -> None:
        """One that has ended is left alone: the mail of its end is on its way."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.SUCCEEDED, exit=END))
        before = await scene.record(child)
        leaves = Acts(leaves=[child.execution_id, "0" * 32])
        for life in (parent, await joined(scene, child)):
            (answer,) = await scene.commit("w1", life.commit(acts=leaves))
            assert not answer.stirs
            assert await told(scene, life) == [("child", child.execution_id, END)]
        assert await scene.record(child) == before

    @scenario
    async def test_a_child_for_which_it_does_not_wait_is_left_alone(self, scene: Scene) -> None:
        """One for which it does not wait is left alone, though it is its own."""
        await scene.worker()
        parent = await scene.running("w1")
        child = await scene.pending(parent=parent.execution_id)
        (answer,) = await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (answer.wakes, answer.stirs) == (0, False)
        assert (await scene.record(child)).status is Status.PENDING

    @scenario
    async def test_a_child_is_left_once(self, scene: Scene) -> None:
        """Repeated, acts do nothing twice, though the child has another fence by now."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await joined(scene, child)
        commit = parent.commit(acts=Acts(leaves=[child.execution_id]))
        await scene.commit("w1", commit)
        await scene.run(child)
        await scene.commit("w1", commit)
        assert await told(scene, parent) == [("freed", f"{child.execution_id}/1", b"")]

    @scenario
    async def test_a_held_child_is_moved_by_the_parent_that_leaves_it(self, scene: Scene) -> None:
        """Interrupted, a held one becomes PENDING; with FAILURE it is to end with what holds it (R36)."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", child.commit(Status.SUSPENDED, held=Held.FAILURE, exit=b'{"failure":[]}'))
        assert await scene.letters(parent) == []
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        assert (await scene.record(child)).status is Status.PENDING
        assert await told(scene, child) == [("interrupt", "", b'{"failure":[]}')]
        assert await scene.letters(parent) == []

    @scenario
    async def test_a_child_that_is_held_frees_those_who_have_left_it(self, scene: Scene) -> None:
        """One that is held sends FREED to those who have left, and to nobody else; again when it is held again."""
        await scene.worker()
        parent = await scene.running("w1")
        child = await scene.child(parent)
        stays = await joined(scene, child)
        await scene.run(child)
        await scene.commit("w1", stays.commit(Status.SUSPENDED))
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        for _ in range(2):
            child.seen = (await scene.record(child)).wakes
            (answer,) = await scene.commit("w1", child.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=b"{}"))
            assert answer.stirs
            await scene.store.resume(child.execution_id)
            await scene.run(child)
        assert await told(scene, parent) == [("freed", f"{child.execution_id}/{number}", b"") for number in (1, 2, 3)]
        assert await scene.letters(stays) == []
        assert (await scene.record(stays)).status is Status.SUSPENDED

    @scenario
    async def test_a_child_that_is_held_though_it_was_interrupted_frees_its_parent(self, scene: Scene) -> None:
        """The parent that interrupted it must not wait for one that nothing moves (R31)."""
        parent = await scene.running(await scene.worker())
        child = await scene.child(parent)
        await scene.run(child)
        await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
        child.seen = 1
        (answer,) = await scene.commit("w1", child.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=b"{}"))
        assert answer.stirs
        assert await told(scene, parent) == [("freed", f"{child.execution_id}/1", b"")]

    @scenario
    async def test_a_parent_that_leaves_a_child_which_is_held_after_an_interrupt_is_freed(self, scene: Scene) -> None:
        """Else, or if that child is held and not moved by this: by a compensation."""
        await scene.worker()
        for asked in (True, False):
            parent = await scene.running("w1")
            child = await scene.child(parent)
            await scene.run(child)
            if asked:
                await scene.deliver(child.mail("", MailKind.INTERRUPT, INTERRUPTED))
                child.seen = 1
            await scene.commit("w1", child.commit(Status.SUSPENDED, held=Held.COMPENSATION, exit=b"{}"))
            await scene.commit("w1", parent.commit(acts=Acts(leaves=[child.execution_id])))
            assert (await scene.record(child)).held is Held.COMPENSATION
            assert await told(scene, parent) == [("freed", f"{child.execution_id}/1", b"")]

    @scenario
    async def test_a_child_held_and_left_in_one_batch_is_interrupted(self, scene: Scene) -> None:
        """As it stands then: whoever leaves it moves it, so that nobody need be freed."""
        await scene.worker()
        for first in (True, False):
            parent = await scene.running("w1")
            child = await scene.child(parent)
            await scene.run(child)
            leaving = parent.commit(acts=Acts(leaves=[child.execution_id]))
            held = child.commit(Status.SUSPENDED, held=Held.DEADLOCK, exit=b"{}")
            await scene.commit("w1", *((leaving, held) if first else (held, leaving)))
            assert (await scene.record(child)).status is Status.PENDING
            assert await scene.letters(parent) == []
            await scene.run(child)
