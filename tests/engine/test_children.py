"""Children: who waits for them, whose they are, how their end comes home (R31, R32)."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Defect,
    DurableDeferred,
    Interrupted,
    Status,
    Success,
    Suspended,
    UsageError,
    activity,
    add_finalizer,
    race_all,
    sleep,
    with_compensation,
    workflow,
)
from perdure._values.instant import to_datetime

from tests.engine.lab import Gate, Lab
from tests.engine.mortal import at_rest, died_at_each_commit
from tests.engine.noted import Declined, Never, done, note

Signal = DurableDeferred.make("signal", success=str)


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


@workflow(idempotency_key=lambda key: key)
async def child(key: str) -> str:
    return f"{key}:{await Signal}"


@workflow(idempotency_key=lambda key: key)
async def parent(key: str) -> str:
    return await child.execute(key)


@workflow(idempotency_key=lambda key: key)
async def other_parent(key: str) -> str:
    return "other:" + await child.execute(key)


async def signal(key: str, value: str = "now") -> None:
    await Signal.succeed(Signal.token_from_payload(workflow=child, payload=key), value)


# Waiting for one -----------------------------------------------------------------------------------------


def test_awaiting_a_child_suspends_the_parent_until_it_ends(lab):
    """R31."""

    async def main():
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            (wait,) = (await engine.describe(handle.execution_id)).waits
            assert (wait.kind, wait.name, wait.execution_id) == ("child", "child", child.execution_id("k"))
            await signal("k")
            assert await lab.result(handle) == "k:now"

    lab.run(main)


def test_the_end_of_a_child_is_in_its_parents_hands_when_it_is_written(lab):
    """R31: delivered in the transaction that completes it, whoever dies behind that."""

    async def main():
        async with lab.engine([child]) as engine:
            await child.start("before")
        async with lab.engine([parent]):
            handle = await parent.start("k")
            await lab.settle()
        async with lab.doomed([child]) as engine:
            lab.probe(engine).hold("commit")
            await signal("k")
            await lab.settle()
        async with lab.engine([]) as engine:
            # Nobody has been here since who could have told it.
            assert (await lab.record(engine, child.execution_id("k"))).status is Status.SUCCEEDED
            assert (await lab.record(engine, handle.execution_id)).status is Status.PENDING
        async with lab.engine([parent]):
            assert await lab.result(parent.handle(handle.execution_id)) == "k:now"

    lab.run(main)


def test_a_child_that_has_ended_before_it_is_asked_for_answers_at_once(lab):
    """R31: in the turn's own commit, with no one left to tell."""

    async def main():
        async with lab.engine([parent, child]):
            await child.start("k")
            await signal("k")
            await lab.settle()
            assert await lab.result(await parent.start("k")) == "k:now"

    lab.run(main)


def test_two_parents_join_one_child(lab):
    """R31: who waits stands on the child's row; both are told."""

    async def main():
        async with lab.engine([parent, other_parent, child]) as engine:
            first, second = await parent.start("k"), await other_parent.start("k")
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).parent == first.execution_id
            await signal("k")
            assert await lab.result(first) == "k:now"
            assert await lab.result(second) == "other:k:now"

    lab.run(main)


def test_one_body_that_asks_twice_for_one_child_has_one(lab):
    """R31: two calls, one child, one answer; and once more when it has ended."""

    @workflow(idempotency_key=lambda key: key)
    async def twice(key: str) -> list[str]:
        both = await asyncio.gather(child.execute(key), child.execute(key))
        return [*both, await child.execute(key)]

    async def main():
        async with lab.engine([twice, child]) as engine:
            handle = await twice.start("k")
            await lab.settle()
            await signal("k")
            assert await lab.result(handle) == ["k:now"] * 3
            assert len([record async for record in engine.executions(workflow="child")]) == 1

    lab.run(main)


def test_children_without_a_key_are_told_apart_by_their_order(lab):
    """R1: the id derives from parent, name, input and occurrence; the same on every replay."""

    @workflow
    async def leaf(number: int) -> int:
        await note(str(number))
        return number

    @workflow(idempotency_key=lambda key: key)
    async def twins(key: str) -> list[int]:
        return [await leaf.execute(1), await leaf.execute(1), await leaf.execute(2)]

    async def main():
        async with lab.engine([twins, leaf]) as engine:
            assert await lab.result(await twins.start("k")) == [1, 1, 2]
            assert done == ["1", "1", "2"]
            assert len([record async for record in engine.executions(workflow="leaf")]) == 3

    lab.run(main)


def test_a_parent_of_two_hundred_children_has_all_their_ends(lab):

    @workflow
    async def leaf(number: int) -> int:
        return number

    @workflow(idempotency_key=lambda key: key)
    async def many(key: str) -> int:
        return sum(await asyncio.gather(*(leaf.execute(number) for number in range(200))))

    async def main():
        async with lab.engine([many, leaf]) as engine:
            handle = await many.start("k")
            assert await lab.result(handle) == sum(range(200))
            ended = [entry for entry in await engine.journal(handle.execution_id) if entry.kind == "child"]
            assert len(ended) == 200

    lab.run(main)


def test_children_of_children_end_from_the_inside(lab):
    @workflow(idempotency_key=str)
    async def nested(depth: int) -> int:
        return 0 if depth == 0 else 1 + await nested.execute(depth - 1)

    async def main():
        async with lab.engine([nested]):
            assert await lab.result(await nested.start(6)) == 6

    lab.run(main)


def test_a_body_cannot_be_its_own_child(lab):

    @workflow(idempotency_key=lambda key: key)
    async def selfish(key: str) -> str:
        try:
            return await selfish.execute(key)
        except UsageError:
            return "refused"

    async def main():
        async with lab.engine([selfish]):
            assert await lab.result(await selfish.start("k")) == "refused"

    lab.run(main)


def test_a_started_execution_is_detached(lab):
    """R31: the parent neither waits for it nor takes it along when it is interrupted."""

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> None:
        await child.start(key)
        await sleep("1 day")

    async def main():
        async with lab.engine([starter, child]) as engine:
            handle = await starter.start("k")
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).parent is None
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            await signal("k")
            assert await lab.result(child.handle(child.execution_id("k"))) == "k:now"

    lab.run(main)


def test_a_child_has_its_parents_priority_and_the_earlier_of_both_deadlines(lab):
    """R31."""

    @workflow(idempotency_key=lambda key: key)
    async def family(key: str) -> None:
        sooner = child.options(deadline="10 minutes", priority=2)
        later = child.options(deadline="10 hours")
        await asyncio.gather(child.execute("plain"), sooner.execute("sooner"), later.execute("later"))

    async def main():
        async with lab.engine([family, child]) as engine:
            began = lab.clock.now()
            await family.options(priority=7, deadline="1 hour").start("k")
            await lab.settle()
            told = {}
            for key in ("plain", "sooner", "later"):
                info = await engine.describe(child.execution_id(key))
                assert info.deadline is not None
                told[key] = info.priority, info.deadline - to_datetime(began)
            hour = timedelta(hours=1)
            assert told == {"plain": (7, hour), "sooner": (2, hour / 6), "later": (7, hour)}

    lab.run(main)


def test_a_parent_without_a_deadline_gives_its_child_none(lab):

    async def main():
        async with lab.engine([parent, child]) as engine:
            await parent.start("k")
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).deadline is None

    lab.run(main)


# How their end comes home ---------------------------------------------------------------------------------


@workflow(idempotency_key=lambda way: way, error=Declined)
async def ends(way: str) -> str:
    if way == "declared":
        raise Declined(code=7)
    if way == "defect":
        raise ValueError("a bug")
    if way == "cancelled":
        raise asyncio.CancelledError
    await sleep("1 day")
    return way


def test_the_declared_error_of_a_child_is_caught_as_its_class(lab):
    """R32."""

    @workflow(idempotency_key=lambda key: key)
    async def catches(key: str) -> list[Any]:
        try:
            await ends.execute("declared")
        except Declined as error:
            return [error.code]
        return []

    async def main():
        async with lab.engine([catches, ends]):
            assert await lab.result(await catches.start("k")) == [7]

    lab.run(main)


def test_the_defect_of_a_child_is_a_defect_of_its_parent(lab):
    """R32."""

    @workflow(idempotency_key=lambda key: key)
    async def catches(key: str) -> list[str]:
        try:
            await ends.execute("defect")
        except Defect as error:
            return [error.type_name, str(error)]
        return []

    async def main():
        async with lab.engine([catches, ends]):
            type_name, said = await lab.result(await catches.start("k"))
            assert type_name == "ValueError"
            assert "a bug" in said

    lab.run(main)


def test_an_uncaught_error_of_a_child_is_the_parents_own(lab):
    """R32: also two lives up."""

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def passes(key: str) -> str:
        return await ends.execute("declared")

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def passes_again(key: str) -> str:
        return await passes.execute(key)

    async def main():
        async with lab.engine([passes_again, passes, ends]):
            handle = await passes_again.start("k")
            with pytest.raises(Declined) as caught:
                await lab.result(handle)
            assert caught.value.code == 7
            assert await handle.status() is Status.FAILED

    lab.run(main)


def test_the_interruption_of_a_child_alone_is_an_error_that_its_parent_may_catch(lab):
    """R32: `Interrupted`, an ordinary exception."""

    @workflow(idempotency_key=lambda key: key)
    async def catches(key: str) -> str:
        try:
            return await child.execute(key)
        except Interrupted:
            return "without it"

    async def main():
        async with lab.engine([catches, child]):
            handle = await catches.start("k")
            await lab.settle()
            await child.interrupt(child.execution_id("k"))
            assert await lab.result(handle) == "without it"

    lab.run(main)


def test_a_parent_that_does_not_catch_the_interruption_of_its_child_fails_with_it(lab):
    """R32: nobody has interrupted the parent."""

    async def main():
        async with lab.engine([parent, child]):
            handle = await parent.start("k")
            await lab.settle()
            await child.interrupt(child.execution_id("k"))
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED

    lab.run(main)


def test_a_cancellation_that_leaves_a_body_without_an_interrupt_is_a_defect(lab):
    """R32."""

    async def main():
        async with lab.engine([ends]):
            handle = await ends.start("cancelled")
            with pytest.raises(Defect, match="nobody had interrupted"):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED

    lab.run(main)


def test_a_child_that_is_held_keeps_its_parent_waiting_until_somebody_resumes_it(lab):
    """R31, R36: being held is no end."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def fragile(key: str) -> str:
        if broken:
            raise RuntimeError("a bug")
        return "mended"

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        return await fragile.execute(key)

    async def main():
        async with lab.engine([waits, fragile]) as engine:
            handle = await waits.start("k")
            await lab.skip("1 day")
            assert (await engine.describe(fragile.execution_id("k"))).held == "DEFECT"
            assert await handle.poll() == Suspended(None)
            broken.clear()
            await engine.resume(fragile.execution_id("k"))
            assert await lab.result(handle) == "mended"

    lab.run(main)


def test_a_child_that_is_ended_by_force_is_told_to_its_parent(lab):
    """R29, R31: with no body of it run any more."""

    async def main():
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            await engine.interrupt_unsafe(child.execution_id("k"))
            with pytest.raises(Interrupted):
                await lab.result(handle)

    lab.run(main)


def test_a_child_that_nobody_runs_waits_and_is_ended_with_its_parent(lab):
    """R3, R29, R31: it never began."""

    async def main():
        async with lab.engine([parent, *([child] if lab.kind == "memory" else [])]) as engine:
            handle = await parent.options(delay=0).start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.INTERRUPTED

    lab.run(main)


# Whose they are ----------------------------------------------------------------------------------------------


def test_interrupting_a_parent_interrupts_its_child(lab):
    """R31."""

    async def main():
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.INTERRUPTED

    lab.run(main)


def test_interrupting_a_parent_leaves_a_child_that_somebody_else_waits_for(lab):
    """R31: the other one has its end."""

    async def main():
        async with lab.engine([parent, other_parent, child]):
            mine, others = await parent.start("k"), await other_parent.start("k")
            await lab.settle()
            await mine.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(mine)
            await signal("k")
            assert await lab.result(others) == "other:k:now"

    lab.run(main)


def test_who_merely_joined_interrupts_nothing(lab):
    """R31: it was there before, and nobody waits for it; still it is not this one's to end."""

    async def main():
        async with lab.engine([parent, child]):
            started = await child.start("k")
            await lab.settle()
            joined = await parent.start("k")
            await lab.settle()
            await joined.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(joined)
            await signal("k")
            assert await lab.result(started) == "k:now"

    lab.run(main)


def test_a_timeout_around_its_await_interrupts_the_child(lab):
    """R31: and the parent goes on when it likes."""

    @workflow(idempotency_key=lambda key: key)
    async def impatient(key: str) -> str:
        try:
            async with asyncio.timeout(3600):
                return await child.execute(key)
        except TimeoutError:
            return await note("gave up")

    async def main():
        async with lab.engine([impatient, child]) as engine:
            handle = await impatient.start("k")
            assert await lab.result(handle) == "gave up"
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.INTERRUPTED

    lab.run(main)


def test_a_lost_race_interrupts_the_child(lab):
    """R21, R31."""

    async def quick() -> str:
        await sleep("2 hours")
        return "quick"

    @workflow(idempotency_key=lambda key: key)
    async def racing(key: str) -> str:
        return await race_all("first", [child.execute(key), quick()])

    async def main():
        async with lab.engine([racing, child]) as engine:
            assert await lab.result(await racing.start("k")) == "quick"
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.INTERRUPTED

    lab.run(main)


def test_a_cancelled_await_leaves_a_child_that_the_same_body_waits_for_elsewhere(lab):
    """R31: it is still wanted."""

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        patient = asyncio.create_task(child.execute(key))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(3600):
                await child.execute(key)
        except TimeoutError:
            await note("gave up one")
        return await patient

    async def main():
        async with lab.engine([both, child]) as engine:
            handle = await both.start("k")
            await lab.skip("2 hours")
            assert done == ["gave up one"]
            assert (await engine.describe(child.execution_id("k"))).status is Status.SUSPENDED
            await signal("k")
            assert await lab.result(handle) == "k:now"

    lab.run(main)


def test_a_child_that_was_left_can_be_asked_for_again(lab):
    """R31: it has been interrupted, and that is its end for whoever asks."""

    @workflow(idempotency_key=lambda key: key)
    async def regrets(key: str) -> str:
        try:
            async with asyncio.timeout(3600):
                return await child.execute(key)
        except TimeoutError:
            try:
                return await child.execute(key)
            except Interrupted:
                return "too late"

    async def main():
        async with lab.engine([regrets, child]):
            assert await lab.result(await regrets.start("k")) == "too late"

    lab.run(main)


def test_a_child_that_swallows_its_interrupt_gives_its_result_to_nobody_who_left(lab):
    """R29, R31: what it does then is its own."""

    @workflow(idempotency_key=lambda key: key)
    async def stubborn(key: str) -> str:
        try:
            return await Never
        except asyncio.CancelledError:
            await note("stayed")
            return "all the same"

    @workflow(idempotency_key=lambda key: key)
    async def impatient(key: str) -> str:
        try:
            async with asyncio.timeout(3600):
                return await stubborn.execute(key)
        except TimeoutError:
            return "gave up"

    async def main():
        async with lab.engine([impatient, stubborn]):
            assert await lab.result(await impatient.start("k")) == "gave up"
            await lab.settle()
            assert await lab.result(stubborn.handle(stubborn.execution_id("k"))) == "all the same"
            assert done == ["stayed"]

    lab.run(main)


@workflow(idempotency_key=lambda key: key)
async def slow_to_leave(key: str) -> None:
    async def leave(exit: Any) -> None:
        await sleep("1 hour")
        await note("child has left")

    await add_finalizer(leave)
    await Never


@workflow(idempotency_key=lambda key: key)
async def undoes(key: str) -> None:
    await with_compensation(note("made"), lambda made, cause: note("undone"))
    await slow_to_leave.execute(key)


def test_compensations_start_when_the_children_that_were_interrupted_have_ended(lab):
    """R31."""

    async def main():
        async with lab.engine([undoes, slow_to_leave]) as engine:
            handle = await undoes.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert done == ["made"]
            assert [wait.kind for wait in (await engine.describe(handle.execution_id)).waits] == ["child"]
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["made", "child has left", "undone"]

    lab.run(main)


def test_compensations_start_when_the_children_that_were_interrupted_are_held(lab):
    """R31: they cannot wait for somebody who may never act."""

    @workflow(idempotency_key=lambda key: key)
    async def breaks(key: str) -> None:
        async def leave(exit: Any) -> None:
            raise RuntimeError("a bug")

        await add_finalizer(leave)
        await Never

    @workflow(idempotency_key=lambda key: key)
    async def undoes_too(key: str) -> None:
        await with_compensation(note("made"), lambda made, cause: note("undone"))
        await breaks.execute(key)

    async def main():
        async with lab.engine([undoes_too, breaks]) as engine:
            handle = await undoes_too.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert (await engine.describe(breaks.execution_id("k"))).held == "COMPENSATION"
            assert done == ["made", "undone"]

    lab.run(main)


def test_compensations_do_not_wait_for_a_child_that_goes_on_for_somebody_else(lab):
    """R31: it was not interrupted, so it does not end."""

    @workflow(idempotency_key=lambda key: key)
    async def undoes_too(key: str) -> None:
        await with_compensation(note("made"), lambda made, cause: note("undone"))
        await child.execute(key)

    async def main():
        async with lab.engine([undoes_too, other_parent, child]):
            handle = await undoes_too.start("k")
            await lab.settle()
            other = await other_parent.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["made", "undone"]
            await signal("k")
            assert await lab.result(other) == "other:k:now"

    lab.run(main)


def test_a_parent_without_compensations_does_not_wait_for_the_children_it_interrupted(lab):
    """R31: nothing of it depends on their end."""

    @workflow(idempotency_key=lambda key: key)
    async def plain(key: str) -> None:
        await slow_to_leave.execute(key)

    async def main():
        async with lab.engine([plain, slow_to_leave]):
            handle = await plain.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await handle.status() is Status.INTERRUPTED
            assert done == []
            await lab.skip("2 hours")
            assert done == ["child has left"]

    lab.run(main)


def test_children_left_when_the_body_ends_are_interrupted(lab):
    """R31, R46: tasks that a body leaves are cancelled, and with them what they wait for."""
    kept: list[asyncio.Task[Any]] = []

    @workflow(idempotency_key=lambda key: key)
    async def careless(key: str) -> str:
        kept.append(asyncio.create_task(child.execute(key)))  # type: ignore[arg-type]
        await note("seen")
        return "done"

    async def main():
        async with lab.engine([careless, child]) as engine:
            assert await lab.result(await careless.start("k")) == "done"
            await lab.settle()
            assert (await engine.describe(child.execution_id("k"))).status is Status.INTERRUPTED
            kept.clear()

    lab.run(main)


# Whatever dies ------------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def leaf(key: str) -> str:
    await note(f"leaf {key}")
    await sleep("2 hours")
    return key.upper()


@workflow(idempotency_key=lambda key: key)
async def tree(key: str) -> list[str]:
    first = await leaf.execute(f"{key} a")
    return [first, *await asyncio.gather(leaf.execute(f"{key} b"), leaf.execute(f"{key} c"))]


def test_a_worker_that_dies_at_any_commit_leaves_a_family_that_the_next_one_finishes(memory_lab):
    """R5, R31: parent and children are crashed and restarted at each moment."""
    lab = memory_lab

    async def check(engine, key, came_to):
        assert came_to == [f"{key} {name}".upper() for name in "abc"]
        assert {f"leaf {key} {name}" for name in "abc"} <= set(done)
        ended = [entry for entry in await engine.journal(tree.execution_id(key)) if entry.kind == "child"]
        assert len(ended) == 3

    async def main():
        assert await died_at_each_commit(lab, [tree, leaf], tree.execute, check) >= 5

    lab.run(main)


def test_a_worker_that_dies_at_any_commit_of_an_interrupted_family_leaves_nobody_behind(memory_lab):
    """R29, R31: child first, then the compensation of the parent, then its end."""
    lab = memory_lab

    async def interrupted(key: str) -> None:
        handle = await undoes.start(key)
        await at_rest(handle)
        await handle.interrupt()
        await handle.result()

    async def check(engine, key, came_to):
        assert isinstance(came_to, Interrupted)
        told = await engine.journal(undoes.execution_id(key))
        steps = [entry.input["what"] if entry.kind == "activity" else entry.kind for entry in told]
        assert [step for step in steps if step != "act"] == ["made", "interrupt", "child", "undone"]
        left = await engine.describe(slow_to_leave.execution_id(key))
        assert left.status is Status.INTERRUPTED
        # An attempt that its worker's death has cut off is made again; still nothing is undone before the child has left.
        once = list(dict.fromkeys(done))
        assert once == ["made", "child has left", "undone"]
        assert "child has left" not in done[done.index("undone") :]
        done.clear()

    async def main():
        assert await died_at_each_commit(lab, [undoes, slow_to_leave], interrupted, check) >= 5

    lab.run(main)


def test_an_evicted_parent_has_the_end_of_its_child(lab):
    """R6, R31: only its journal is there."""

    async def main():
        async with lab.engine([parent, child], cache=0):
            handle = await parent.start("k")
            await lab.skip("1 hour")
            await signal("k")
            assert await lab.result(handle) == "k:now"

    lab.run(main)


def test_parent_and_child_may_live_on_two_workers(file_lab):
    """R31: the store is all that they share."""
    lab = file_lab

    async def main():
        async with lab.engine([parent]), lab.engine([child]) as second:
            handle = await parent.options(engine=lab.engines[0]).start("k")
            await lab.notice()
            await Signal.succeed(Signal.token_from_payload(workflow=child, payload="k"), "there", engine=second)
            await lab.notice()
            await lab.notice()
            assert await lab.result(handle) == "k:there"

    lab.run(main)


def test_a_child_that_runs_when_its_parent_is_interrupted_has_its_activity_cancelled(lab):
    """R29, R31."""
    gate = Gate()
    cancelled: list[str] = []

    @activity
    async def work_hard() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise

    @workflow(idempotency_key=lambda key: key)
    async def busy(key: str) -> None:
        await work_hard()

    @workflow(idempotency_key=lambda key: key)
    async def boss(key: str) -> None:
        await busy.execute(key)

    async def main():
        async with lab.engine([boss, busy]):
            handle = await boss.start("k")
            await lab.settle()
            assert gate.entered == 1
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            await lab.settle()
            assert cancelled == ["cancelled"]
            assert await busy.handle(busy.execution_id("k")).status() is Status.INTERRUPTED

    lab.run(main)


def test_a_childs_value_is_read_with_todays_type_of_it(lab):
    """R7, R32: live and on replay the parent sees the same."""

    @workflow(idempotency_key=lambda key: key)
    async def pair(key: str) -> tuple[int, str]:
        return 1, key

    @workflow(idempotency_key=lambda key: key)
    async def takes(key: str) -> str:
        seen = [await pair.execute(key)]
        await sleep("1 hour")
        return repr([*seen, await pair.execute(key)])

    async def main():
        async with lab.engine([takes, pair]) as engine:
            handle = await takes.start("k")
            assert await lab.result(handle) == "[(1, 'k'), (1, 'k')]"
            (ended,) = [entry for entry in await engine.journal(handle.execution_id) if entry.kind == "child"]
            assert ended.exit == Success([1, "k"])

    lab.run(main)
