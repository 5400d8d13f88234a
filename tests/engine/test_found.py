"""What a review and a first use of the library found: every one of these failed once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import (
    Cause,
    Complete,
    Defect,
    DurableChannel,
    DurableDeferred,
    Interrupted,
    Status,
    Success,
    TokenParsed,
    activity,
    add_finalizer,
    continue_as_new,
    race_all,
    sleep,
    with_compensation,
    workflow,
)
from perdure._engine.ownership import Ownership
from perdure._model.status import Held

from tests.engine.lab import Gate, Lab

Signal = DurableDeferred.make("signal", success=str)
Never = DurableDeferred.make("never", success=str)
Inbox = DurableChannel.make("inbox", int)

# What activities have done, in order; and what is broken.
done: list[str] = []
broken: set[str] = set()


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()
    broken.clear()


@activity
async def note(what: str) -> str:
    done.append(what)
    return what


@activity
async def step(what: str) -> str:
    """Fails while it is broken."""
    done.append(what)
    if what in broken:
        raise RuntimeError(f"{what} is broken")
    return what


async def held(engine, handle) -> tuple[Status, str | None]:
    info = await engine.describe(handle.execution_id)
    return info.status, info.held


# Compensations -----------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def refund(key: str) -> None:
    await step(key)


@workflow(idempotency_key=lambda key: key)
async def undone_by_a_child(key: str) -> None:
    await with_compensation(note("paid"), lambda paid, cause: refund.execute(key))
    raise RuntimeError("no visa")


@workflow(idempotency_key=lambda key: key)
async def undone_by_somebody(key: str) -> None:
    await with_compensation(note("paid"), lambda paid, cause: Signal.wait())
    raise RuntimeError("no visa")


@pytest.mark.parametrize("trip", [undone_by_a_child, undone_by_somebody], ids=["child", "deferred"])
def test_a_compensation_that_failed_of_what_came_from_outside_is_held_again_and_can_be_skipped(lab, trip):
    """R28: what came stays as it is; a resume that waited for it to come once more would wait for ever."""

    async def main():
        broken.add("k")
        async with lab.engine([trip, refund]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            if trip is undone_by_somebody:
                await Signal.fail_cause(handle.token(Signal), Cause.die(RuntimeError("nobody knows")))
            await lab.skip("1 day")
            assert await held(engine, handle) == (Status.SUSPENDED, "COMPENSATION")
            broken.clear()
            await handle.resume()
            await lab.skip("1 day")
            assert await held(engine, handle) == (Status.SUSPENDED, "COMPENSATION")
            await engine.resume(handle.execution_id, skip=True)
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)

    lab.run(main)


def test_a_step_with_compensation_that_is_withdrawn_in_the_turn_that_asked_for_it_is_not_begun(lab):
    """R27: nothing of it has been given out, so nothing has to be waited for, or undone."""

    async def at_once() -> str:
        return "at once"

    @workflow
    async def hasty() -> str:
        booked = with_compensation(note("booked"), lambda value, cause: note("undone"))
        return await race_all("first", [booked, at_once()])

    async def main():
        async with lab.engine([hasty]):
            assert await lab.result(await hasty.start()) == "at once"
            await lab.settle()
            assert done == []

    lab.run(main)


@pytest.mark.parametrize(
    "misuse",
    [lambda: with_compensation(note("a"), note("b")), lambda: add_finalizer(3)],  # type: ignore[arg-type]
    ids=["compensation", "finalizer"],
)
def test_a_compensation_that_is_no_function_is_refused_before_anything_is_done(lab, misuse: Callable[[], Any]):
    """R27: found out when it is needed, it would hold an execution that has failed already."""

    @workflow
    async def mistaken() -> None:
        await misuse()

    async def main():
        async with lab.engine([mistaken]):
            with pytest.raises(Defect, match=r"UsageError: .* takes a function"):
                await lab.result(await mistaken.start())
            assert done == []

    lab.run(main)


def test_a_compensation_that_returns_nothing_names_the_step_that_it_belongs_to(lab):
    """R27: whoever reads why it is held finds the line."""

    @workflow
    async def mistaken() -> None:
        await with_compensation(note("a"), lambda value, cause: done.append("by hand"))  # type: ignore[arg-type]
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([mistaken]) as engine:
            handle = await mistaken.start()
            await lab.settle()
            assert await held(engine, handle) == (Status.SUSPENDED, "COMPENSATION")
            cause = str((await engine.describe(handle.execution_id)).cause)
            assert "UsageError" in cause
            assert "What undoes 'note' has returned None" in cause

    lab.run(main)


# Held --------------------------------------------------------------------------------------------------------


def test_a_message_of_the_turn_that_fails_is_sent_though_mail_comes_before_it_is_held(lab):
    """R28, R36: the send waits for its commit, which meets mail that it has not seen; it is held all the same."""
    gate = Gate()

    @activity
    async def fails() -> None:
        await gate.wait()
        if "it" in broken:
            raise RuntimeError("it is broken")

    @activity
    async def works() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def receives(key: str) -> list[int]:
        first = await Inbox.receive()
        await sleep("30 days")
        try:
            async with asyncio.timeout(1):
                return [first, await Inbox.receive()]
        except TimeoutError:
            return [first]

    async def sends() -> None:
        await works()
        await Inbox.send(receives.execution_id("k"), 5)

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        await asyncio.gather(fails(), sends())
        return "sent"

    async def main():
        broken.add("it")
        async with lab.engine([work, receives]) as engine:
            other = await receives.start("k")
            handle = await work.start("k")
            await lab.settle()
            kept = lab.probe(engine).hold("commit", before=True)
            gate.open()
            await lab.settle()
            assert kept.kept == 1
            await Never.succeed(handle.token(Never), "in between")
            kept.release()
            await lab.settle()
            assert await held(engine, handle) == (Status.SUSPENDED, "FAILURE")
            assert (await engine.describe(other.execution_id)).waits[0].kind == "timer"
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "sent"
            assert await lab.result(other) == [5]

    lab.run(main)


class Stays:
    """An execution whose hold has met mail, and whose worker dies before it has read that."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

        @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
        async def work(key: str) -> list[str]:
            return list(await asyncio.gather(step("a"), Signal))

        self.work = work

    async def dies(self) -> str:
        lab = self._lab
        broken.add("a")
        async with lab.doomed([self.work]) as engine:
            handle = await self.work.start("k")
            probe = lab.probe(engine)
            commits = probe.hold("commit", before=True)
            await lab.settle()
            await Signal.succeed(handle.token(Signal), "in between")
            reads = probe.hold("load", before=True)
            commits.release()
            await lab.settle()
            assert (done, reads.kept > 0) == (["a"], True)
        return handle.execution_id


def test_a_hold_that_has_met_mail_leaves_nothing_of_a_resume_when_its_worker_dies(file_lab):
    """R28, R36: the journal says that it is held when it is, once; and it moves when somebody resumes it."""
    lab, stays = file_lab, Stays(file_lab)

    async def main():
        execution_id = await stays.dies()
        async with lab.engine([stays.work]) as engine:
            await lab.skip("1 day")
            handle = stays.work.handle(execution_id)
            assert await held(engine, handle) == (Status.SUSPENDED, "FAILURE")
            kinds = [entry.kind for entry in await engine.journal(execution_id)]
            assert sorted(kinds) == ["activity", "deferred", "held"]
            assert kinds[-1] == "held"
            broken.clear()
            before = list(done)
            await handle.resume()
            assert await lab.result(handle) == ["a", "in between"]
            assert done == [*before, "a"]

    lab.run(main)


def test_a_step_that_failed_is_not_done_again_when_its_worker_dies_while_it_is_being_held(file_lab):
    """R28, R36: its failure is durable with the answer that mail has come first."""
    lab, stays = file_lab, Stays(file_lab)

    async def main():
        execution_id = await stays.dies()
        async with lab.engine([stays.work]) as engine:
            await lab.skip("1 day")
            assert await held(engine, stays.work.handle(execution_id)) == (Status.SUSPENDED, "FAILURE")
            assert done == ["a"]

    lab.run(main)


def test_a_hold_that_has_met_mail_which_sends_a_message_is_no_resume_when_its_worker_dies(file_lab):
    """R28, R36: what it goes on with is written, and not yet that it is held."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def receives(key: str) -> int:
        return await Inbox.receive()

    async def sends() -> str:
        said = await Signal
        await Inbox.send(receives.execution_id("k"), 5)
        return said

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        return list(await asyncio.gather(step("a"), sends()))

    async def main():
        broken.add("a")
        async with lab.doomed([work, receives]) as engine:
            await receives.start("k")
            await lab.settle()
            handle = await work.start("k")
            probe = lab.probe(engine)
            commits = probe.hold("commit", before=True)
            await lab.settle()
            await Signal.succeed(handle.token(Signal), "in between")
            reads = probe.hold("load", before=True)
            commits.release()
            await lab.settle()
            written = probe.hold("commit")
            reads.release()
            await lab.settle()
            assert (reads.kept > 0, written.kept) == (True, 1)
        async with lab.engine([work, receives]) as engine:
            await lab.skip("1 day")
            assert await held(engine, work.handle(handle.execution_id)) == (Status.SUSPENDED, "FAILURE")
            assert done == ["a"]

    lab.run(main)


# Lives -------------------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def slow_to_leave(key: str) -> None:
    try:
        await Never
    except asyncio.CancelledError:
        await sleep("1 hour")
        raise


@workflow(idempotency_key=lambda key: key)
async def leaves(key: str) -> None:
    await with_compensation(note("made"), lambda made, cause: note("undone"))
    try:
        async with asyncio.timeout(5):
            await slow_to_leave.execute(key)
    except TimeoutError:
        await note("left")
    await sleep("2 hours")
    raise RuntimeError("no visa")


@pytest.mark.parametrize("way", ["rewind", "fork"])
def test_a_life_that_begins_after_its_child_was_left_and_before_that_ended_waits_for_the_end(lab, way):
    """R31, R37: the new life has not been told of the end, and its compensations wait for it."""

    async def main():
        async with lab.engine([leaves, slow_to_leave]) as engine:
            handle = await leaves.start("k")
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["made", "left", "undone"]
            before = next(entry.seq for entry in await engine.journal(handle.execution_id) if entry.kind == "child") - 1
            if way == "rewind":
                await engine.rewind(handle.execution_id, to=before)
            else:
                forked = await engine.fork(handle.execution_id, at=before, compensations=True)
                handle = leaves.handle(getattr(forked, "execution_id", forked))
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["made", "left", "undone", "undone"]

    lab.run(main)


@workflow(idempotency_key=lambda key, n: key)
async def counts(key: str, n: int) -> int:
    if n == 3:
        return n
    async with asyncio.TaskGroup() as group:

        async def go_on() -> None:
            await note(f"{n}")
            continue_as_new(key, n + 1)

        group.create_task(go_on())
    return -1


def test_a_task_group_lets_the_body_go_on_as_new(lab):
    """R34, R37: the group wraps what leaves it, and it is no failure all the same."""

    async def main():
        async with lab.engine([counts]) as engine:
            handle = await counts.start("k", 0)
            assert await lab.result(handle) == 3
            assert (await engine.describe(handle.execution_id)).incarnation == 4
            assert done == ["0", "1", "2"]

    lab.run(main)


@workflow(idempotency_key=lambda key, got: key)
async def receives_in_lives(key: str, got: list[int]) -> list[int]:
    got = [*got, await Inbox.receive()]
    if len(got) == 3:
        return got
    return continue_as_new(key, got)


def test_starting_with_the_first_arguments_again_is_no_mismatch_though_it_has_gone_on_as_new(lab, log):
    """R2, R37: whoever started it knows no others."""

    async def main():
        async with lab.engine([receives_in_lives]) as engine:
            handle = await receives_in_lives.start("k", [])
            await Inbox.send(handle.execution_id, 1)
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).incarnation == 2
            await receives_in_lives.start("k", [])
            await lab.settle()
            assert [record.message for record in log.records if record.levelname != "INFO"] == []

    lab.run(main)


def test_a_message_id_is_one_message_in_all_lives_that_go_on(lab):
    """R37, R48: a sender that repeats itself does not know that the receiver has gone on as new meanwhile."""

    async def main():
        async with lab.engine([receives_in_lives]):
            handle = await receives_in_lives.start("k", [])
            for number in (1, 1, 2, 1, 2, 3):
                await Inbox.send(handle.execution_id, number, f"m{number}")
                await lab.settle()
            assert await lab.result(handle) == [1, 2, 3]

    lab.run(main)


# Messages and tokens -----------------------------------------------------------------------------------------


def test_messages_of_one_sender_keep_their_order_though_the_clock_is_set_back(lab):
    """R48."""

    @workflow(idempotency_key=lambda key: key)
    async def receives(key: str) -> list[int]:
        await sleep("2 hours")
        return [await Inbox.receive() for _ in range(3)]

    async def main():
        async with lab.engine([receives]):
            handle = await receives.start("k")
            await lab.skip("1 hour")
            await Inbox.send(handle.execution_id, 1)
            lab.clock.advance(-60_000)
            await Inbox.send(handle.execution_id, 2)
            await Inbox.send(handle.execution_id, 3)
            assert await lab.result(handle) == [1, 2, 3]

    lab.run(main)


def test_new_code_that_asks_for_a_token_of_somebody_else_first_has_its_own_as_before(lab):
    """R19: the recorded one is this execution's, and is not taken for the other's."""
    deployed = [1]
    named: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return await Signal

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        theirs = Signal.token_for(other, "o") if deployed[0] == 2 else None
        own = Signal.token()
        await note("began")
        await Signal
        named.extend(TokenParsed.from_string(token).execution_id for token in (own, theirs) if token is not None)
        return "done"

    async def main():
        async with lab.engine([work, other]):
            handle = await work.start("k")
            await lab.settle()
        deployed[0] = 2
        async with lab.engine([work, other]):
            handle = work.handle(handle.execution_id)
            await Signal.succeed(handle.token(Signal), "go on")
            assert await lab.result(handle) == "done"
            assert named[-2:] == [handle.execution_id, other.execution_id("o")]

    lab.run(main)


# By force ----------------------------------------------------------------------------------------------------


class Stubborn:
    """An attempt that goes on until it is cut."""

    def __init__(self) -> None:
        self.cut = 0

        @activity
        async def work_on() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cut += 1

        @workflow(idempotency_key=lambda key: key)
        async def work(key: str) -> None:
            await work_on()

        self.work = work


def test_one_that_is_ended_by_force_is_dropped_though_the_answer_was_lost(lab):
    """R29: the next try hears that it has ended, and that was this one."""
    stubborn = Stubborn()

    async def main():
        async with lab.engine([stubborn.work]) as engine:
            handle = await stubborn.work.start("k")
            await lab.settle()
            lab.probe(engine).fail("interrupt_unsafe", written=True)
            await engine.interrupt_unsafe(handle.execution_id)
            await lab.settle()
            assert await handle.status() is Status.INTERRUPTED
            assert (stubborn.cut, list(lab.service(engine).runners)) == (1, [])

    lab.run(main)


def test_one_that_is_ended_by_force_elsewhere_is_dropped_by_the_worker_that_has_it(file_lab):
    """R29: nobody tells that worker; it looks twice."""
    lab, stubborn = file_lab, Stubborn()

    async def main():
        async with lab.engine([stubborn.work]) as owner, lab.engine([]) as other:
            handle = await stubborn.work.options(engine=owner).start("k")
            await lab.settle()
            await other.interrupt_unsafe(handle.execution_id)
            for _ in range(20):
                await lab.skip("1 second")
                await lab.notice()
            assert (stubborn.cut, list(lab.service(owner).runners)) == (1, [])

    lab.run(main)


def test_what_a_worker_has_and_does_not_own_is_given_up_at_the_second_look(corner_lab):
    """R29: at the first it may have been claimed since the store was asked; under another fence it is another claim."""
    lab, one, other = corner_lab, "a" * 32, "b" * 32

    async def main():
        async with lab.engine([]) as engine:
            service = lab.service(engine)
            ownership = Ownership(service.store)
            await ownership.reconcile(service.worker_id, ())
            assert ownership.lost({one: 1, other: 1}) == []
            assert ownership.lost({one: 1, other: 2}) == [one]
            assert ownership.lost({}) == []
            assert ownership.lost({one: 1}) == []

    lab.run(main)


# What is said ------------------------------------------------------------------------------------------------


def test_a_child_that_nobody_has_registered_is_reported_once(lab, log):
    """R3: its parent waits for it, and nobody waits for that."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[None]:
        return list(await asyncio.gather(refund.execute(key), refund.execute(f"{key} again")))

    def warnings() -> list[str]:
        return [record.getMessage() for record in log.records if record.levelname == "WARNING"]

    async def main():
        async with lab.engine([parent]):
            await parent.start("k")
            await lab.skip("4 seconds")
            assert warnings() == []
            await lab.skip("1 hour")
            (said,) = warnings()
            assert "refund" in said

    lab.run(main)


def test_an_execution_whose_worker_has_just_died_is_not_said_to_be_in_its_hands(file_lab):
    """R33: who asks does so because nothing moves."""
    lab, stubborn = file_lab, Stubborn()

    async def main():
        async with lab.engine([]) as other:
            async with lab.doomed([stubborn.work]) as worker:
                handle = await stubborn.work.options(engine=worker).start("k")
                await lab.settle()
                assert "is RUNNING" in await other.explain(handle.execution_id)
            told = await other.explain(handle.execution_id)
            assert "is PENDING" in told
            assert "hands" not in told

    lab.run(main)


def test_one_that_is_held_after_its_interrupt_is_ended_by_another_one(lab):
    """R29, R33, R36: what is said to end it does; it needs no force."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> None:
        try:
            await Never
        finally:
            await step("tidy")

    async def main():
        broken.add("tidy")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await held(engine, handle) == (Status.SUSPENDED, "FAILURE")
            told = await engine.explain(handle.execution_id)
            assert f"await engine.interrupt('{handle.execution_id}')" in told
            assert "engine.interrupt_unsafe(" not in told
            await engine.interrupt(handle.execution_id)
            await lab.settle()
            assert await handle.status() is Status.FAILED

    lab.run(main)


def test_the_compensation_that_holds_an_execution_is_the_first_to_be_undone(lab):
    """R28, R33: it has left the stack, and is not undone."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), lambda value, cause: note("undone a"))
        await with_compensation(step("b"), lambda value, cause: step("undo b"))
        raise RuntimeError("no visa")

    async def main():
        broken.add("undo b")
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.held, info.compensations) == (Held.COMPENSATION, ("step", "note"))
            assert "To be undone, in this order: step, note." in await engine.explain(handle.execution_id)

    lab.run(main)


# Children ----------------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def child(key: str) -> str:
    return f"{key}:{await Signal}"


@workflow(idempotency_key=lambda key: key)
async def owner(key: str) -> str:
    try:
        async with asyncio.timeout(2 * 3600):
            return await child.execute(key)
    except TimeoutError:
        return "gave up"


@pytest.mark.parametrize("turn", ["the same turn", "a later turn"])
def test_a_child_that_was_left_and_asked_for_again_goes_on_for_who_asks(lab, turn):
    """R31: who had merely joined waits again, and its owner does not interrupt it by leaving."""

    @workflow(idempotency_key=lambda key: key)
    async def hesitant(key: str) -> str:
        try:
            async with asyncio.timeout(3600):
                return await child.execute(key)
        except TimeoutError:
            if turn == "a later turn":
                await note("thinks")
        return await child.execute(key)

    async def main():
        async with lab.engine([owner, hesitant, child]) as engine:
            owning = await owner.start("k")
            await lab.settle()
            joined = await hesitant.start("k")
            await lab.skip("90 minutes")
            assert [wait.kind for wait in (await engine.describe(joined.execution_id)).waits] == ["child"]
            assert await lab.result(owning) == "gave up"
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.SUSPENDED
            await Signal.succeed(Signal.token_from_payload(workflow=child, payload="k"), "now")
            assert await lab.result(joined) == "k:now"

    lab.run(main)


def test_a_child_that_its_owner_leaves_when_nobody_waits_any_more_is_interrupted(lab):
    """R31: who joined, left, and did not ask again does not keep it."""

    @workflow(idempotency_key=lambda key: key)
    async def impatient(key: str) -> str:
        try:
            async with asyncio.timeout(3600):
                return await child.execute(key)
        except TimeoutError:
            await sleep("1 day")
            return "gave up first"

    async def main():
        async with lab.engine([owner, impatient, child]):
            owning = await owner.start("k")
            await lab.settle()
            joined = await impatient.start("k")
            assert await lab.result(owning) == "gave up"
            with pytest.raises(Interrupted):
                await lab.result(child.handle(child.execution_id("k")))
            assert await lab.result(joined) == "gave up first"
            assert await joined.poll() == Complete(Success("gave up first"))

    lab.run(main)
