"""An execution that is asked to end, and what its body makes of it (R29)."""

import asyncio
from typing import Any

import pytest

from perdure import (
    Cause,
    Complete,
    Defect,
    ExecutionNotFoundError,
    Failure,
    Interrupted,
    Schedule,
    Status,
    Success,
    Suspended,
    activity,
    add_finalizer,
    sleep,
    with_compensation,
    workflow,
)

from tests.engine.lab import Gate, Lab, ThreadGate
from tests.engine.mortal import at_rest, died_at_each_commit
from tests.engine.noted import Declined, Never, done, note


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


async def is_interrupted(lab, handle) -> None:
    with pytest.raises(Interrupted):
        await lab.result(handle)
    assert await handle.status() is Status.INTERRUPTED
    assert await handle.poll() == Complete(Failure(Cause.interrupt()))


# Where it finds the execution ------------------------------------------------------------------------------------


async def _on_a_deferred() -> None:
    await Never


async def _in_a_long_sleep() -> None:
    await sleep("1 day")


async def _in_a_short_sleep() -> None:
    await asyncio.sleep(30)


async def _in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_in_a_long_sleep())
        group.create_task(_on_a_deferred())


async def _in_a_timeout() -> None:
    async with asyncio.timeout(90_000):
        await Never


async def _in_a_gather() -> None:
    await asyncio.gather(_in_a_long_sleep(), _on_a_deferred())


@pytest.mark.parametrize(
    "wait", [_on_a_deferred, _in_a_long_sleep, _in_a_short_sleep, _in_a_group, _in_a_timeout, _in_a_gather]
)
def test_an_interrupt_ends_a_body_wherever_it_waits(lab, wait):
    """R29: at its current await."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("begun")
        await wait()
        await note("never")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            await is_interrupted(lab, handle)
            assert done == ["begun"]
            await lab.skip("3 days")
            assert done == ["begun"]

    lab.run(main)


def test_an_interrupt_cancels_the_activities_that_run(lab):
    """R29: on the loop they hear it; one on a thread is left alone, and its result is nobody's."""
    gate, thread_gate = Gate(), ThreadGate()
    heard: list[str] = []

    @activity
    async def on_the_loop() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    @activity
    def on_a_thread() -> None:
        thread_gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(on_the_loop(), on_a_thread())

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await thread_gate.reached()
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            await is_interrupted(lab, handle)
            assert heard == ["cancelled"]
            thread_gate.open()
            await lab.settle()
            assert [entry.kind for entry in await engine.journal(handle.execution_id)] == ["interrupt"]

    lab.run(main)


def test_an_interrupt_ends_the_wait_for_another_attempt(lab):
    """R11, R29."""
    tries: list[int] = []

    @activity(error=Declined, retry=Schedule.spaced("1 hour").times(9))
    async def flaky() -> None:
        tries.append(1)
        raise Declined(code=1)

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> None:
        await flaky()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await is_interrupted(lab, handle)
            await lab.skip("1 day")
            assert tries == [1]

    lab.run(main)


def test_no_activity_begins_between_an_interrupt_and_its_delivery(lab):
    """R29: the commit that would let it begin finds the interrupt in the store."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("first")
        try:
            await note("second")
        except asyncio.CancelledError:
            await note("tidied")
            raise

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            kept = probe.hold("commit", before=True)
            starting = asyncio.ensure_future(work.start("k"))
            await lab.settle()
            kept.release()
            handle = await starting
            kept = probe.hold("commit", before=True)
            await lab.settle()
            assert done == ["first"]
            # The result of the first step is on its way to the store, and the interrupt is there before it.
            await handle.interrupt()
            kept.release()
            await lab.settle()
            await is_interrupted(lab, handle)
            assert done == ["first", "tidied"]

    lab.run(main)


def test_an_interrupt_while_the_suspension_is_being_written_is_not_lost(lab):
    """R29: whoever suspends hears that mail has come."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("begun")
        await Never

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            kept = lab.probe(engine).hold("commit", before=True)
            await lab.settle()
            await handle.interrupt()
            kept.release()
            await is_interrupted(lab, handle)

    lab.run(main)


def test_an_execution_that_never_began_ends_at_once(lab):
    """R29: delayed; nothing of it is run."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await add_finalizer(lambda _: note("finalized"))
        await note("begun")

    async def main():
        async with lab.engine([work]):
            handle = await work.options(delay="1 hour").start("k")
            await handle.interrupt()
            assert await handle.status() is Status.INTERRUPTED
            await is_interrupted(lab, handle)
            await lab.skip("2 hours")
            assert done == []

    lab.run(main)


def test_an_execution_that_nobody_has_registered_ends_at_once(file_lab):
    """R3, R29."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("begun")

    async def main():
        async with lab.engine([]):
            handle = await work.start("k")
            await handle.interrupt()
            await is_interrupted(lab, handle)
        async with lab.engine([work]):
            await lab.skip("1 hour")
            assert done == []

    lab.run(main)


def test_an_unknown_or_finished_execution_is_left_alone(lab):
    """R29: nothing happens, and nobody complains."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            assert await lab.result(handle) == "k"
            await handle.interrupt()
            await engine.interrupt("f" * 32)
            await lab.settle()
            assert await handle.poll() == Complete(Success("k"))
            assert await engine.poll("f" * 32) is None

    lab.run(main)


def test_an_execution_without_a_worker_is_interrupted_when_it_has_one(file_lab):
    """R29: recorded by a client, delivered at the next turn, wherever that is."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await Never
        finally:
            await note("tidied")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([]) as client:
            await client.interrupt(handle.execution_id)
            assert await work.handle(handle.execution_id).status() is Status.PENDING
            assert done == []
        async with lab.engine([work]):
            await is_interrupted(lab, work.handle(handle.execution_id))
            assert done == ["tidied"]

    lab.run(main)


# What the body makes of it -----------------------------------------------------------------------------------------


def test_activities_in_finally_run(lab):
    """R29: what the body does then is ordinary."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await Never
        finally:
            await note("one")
            await sleep("2 hours")
            await asyncio.gather(note("two"), note("three"))

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.skip("1 hour")
            assert (done, await handle.status()) == (["one"], Status.SUSPENDED)
            await is_interrupted(lab, handle)
            assert done == ["one", "two", "three"]

    lab.run(main)


def test_a_body_may_finish_otherwise(lab):
    """R29: then that is its result; compensations do not run."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        try:
            await Never
        except asyncio.CancelledError:
            return "otherwise"
        return "?"

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            assert await lab.result(handle) == "otherwise"
            assert await handle.status() is Status.SUCCEEDED
            assert done == ["seat"]

    lab.run(main)


def test_a_body_may_fail_of_it(lab):
    """R29: with an error of its own, and compensations run with that."""
    causes: list[Cause] = []

    async def undone(value: str, cause: Cause) -> None:
        causes.append(cause)
        await note("undone")

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> str:
        await with_compensation(note("seat"), undone)
        try:
            return await Never
        finally:
            raise Declined(code=9)

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Declined):
                await lab.result(handle)
            assert done == ["seat", "undone"]
            assert set(map(repr, causes)) == {repr(Cause.fail(Declined(code=9)))}

    lab.run(main)


def test_an_interrupt_is_delivered_once(lab):
    """R29: the second await of a body that has swallowed it is left alone, also after a restart."""
    caught: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await Never
        except asyncio.CancelledError:
            await note("caught")
        await sleep("2 hours")
        await asyncio.sleep(10)
        return "done"

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.skip("1 hour")
        async with lab.engine([work]) as engine:
            handle = work.handle(handle.execution_id)
            assert await handle.poll() == Suspended(None)
            assert await lab.result(handle) == "done"
            kinds = [entry.kind for entry in await engine.journal(handle.execution_id)]
            assert kinds.count("interrupt") == 1
            assert done == ["caught"]
            caught.clear()

    lab.run(main)


def test_a_second_interrupt_does_nothing(lab):
    """R29: neither before the first is delivered nor behind it, nor while the body tidies up."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await Never
        except asyncio.CancelledError:
            await sleep("2 hours")
            await note("tidied")
        return "done"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await asyncio.gather(handle.interrupt(), handle.interrupt())
            await lab.skip("1 hour")
            await handle.interrupt()
            assert await lab.result(handle) == "done"
            assert done == ["tidied"]
            kinds = [entry.kind for entry in await engine.journal(handle.execution_id)]
            assert kinds.count("interrupt") == 1

    lab.run(main)


def test_an_interrupt_that_comes_when_the_body_has_ended_does_nothing(lab):
    """R29: its finalizers are not cut short, and its result is its own."""
    gate = Gate()

    @activity
    async def tidy_up() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        async def on_exit(exit: Any) -> None:
            await tidy_up()
            await note("tidied")

        await add_finalizer(on_exit)
        return "result"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            gate.open()
            assert await lab.result(handle) == "result"
            assert done == ["tidied"]
            assert "interrupt" not in [entry.kind for entry in await engine.journal(handle.execution_id)]

    lab.run(main)


def test_a_body_that_swallows_it_may_use_groups_and_timeouts_as_before(lab):
    """R29: `cancelling()` is 0, or these would take themselves for cancelled."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[Any]:
        seen: list[Any] = []
        try:
            await Never
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            seen.append(task.cancelling())
        try:
            async with asyncio.timeout(10):
                await Never
        except TimeoutError:
            seen.append("timed out")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                group.create_task(_on_a_deferred())
        except* ValueError:
            seen.append("group failed")
        async with asyncio.timeout(10):
            seen.append(await note("in time"))
        return seen

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            assert await lab.result(handle) == [0, "timed out", "group failed", "in time"]

    lab.run(main)


async def _fail() -> None:
    await note("failing")
    raise ValueError


def test_a_group_that_is_interrupted_lets_its_tasks_tidy_up(lab):
    """R29: structured concurrency as anywhere else."""

    async def branch(name: str) -> None:
        try:
            await Never
        finally:
            await note(name)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch("a"))
                group.create_task(branch("b"))
        except asyncio.CancelledError:
            await note("body")
            raise
        return "?"

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await is_interrupted(lab, handle)
            assert sorted(done[:2]) == ["a", "b"]
            assert done[2:] == ["body"]

    lab.run(main)


def test_an_interrupt_beside_a_result_of_the_same_moment_comes_second(lab):
    """R29, R47: in the order of their instants."""
    gate = Gate()

    @activity
    async def slow() -> str:
        await gate.wait()
        return "result"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            result = await slow()
        except asyncio.CancelledError:
            return "too late"
        try:
            await Never
        except asyncio.CancelledError:
            return result
        return "?"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            kept = lab.probe(engine).hold("load")
            gate.open()
            await lab.settle()
            await lab.skip("1 second")
            await handle.interrupt()
            await lab.settle()
            kept.release()
            assert await lab.result(handle) == "result"

    lab.run(main)


# Whatever dies ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_at_any_commit_of_an_interrupted_body_leaves_it_to_the_next_one(memory_lab):
    """R29: delivered once, whoever delivers it; what followed follows again."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(note(f"{key}: seat"), lambda value, cause: note(f"{key}: undone"))
        try:
            await Never
        finally:
            await note(f"{key}: tidied")
            await sleep("2 hours")

    async def scenario(key: str) -> None:
        handle = await work.start(key)
        await at_rest(handle)
        await handle.interrupt()
        await handle.result()

    async def check(engine, key, came_to):
        assert isinstance(came_to, Interrupted)
        journal = await engine.journal(work.execution_id(key))
        steps = [entry.exit.value if entry.kind == "activity" else entry.kind for entry in journal]
        wanted = [f"{key}: seat", "interrupt", f"{key}: tidied", "set", "timer", f"{key}: undone"]
        assert steps == wanted

    async def main():
        assert await died_at_each_commit(lab, [work], scenario, check) >= 5

    lab.run(main)


def test_an_interrupt_whose_answer_was_lost_is_asked_for_again_and_delivered_once(lab):
    """R29: it is durable when the call returns."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await Never

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            lab.probe(engine).fail("deliver", times=2, written=True)
            await handle.interrupt()
            assert lab.probe(engine).calls["deliver"] == 3
            await is_interrupted(lab, handle)
            assert [entry.kind for entry in await engine.journal(handle.execution_id)] == ["interrupt"]

    lab.run(main)


# By force ------------------------------------------------------------------------------------------------------------


def test_interrupt_unsafe_runs_nothing_more(lab):
    """R29: no `finally` of the body that has an effect, no finalizer, no compensation."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await add_finalizer(lambda _: note("finalized"))
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        try:
            await Never
        finally:
            await note("tidied")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await engine.interrupt_unsafe(handle.execution_id)
            await is_interrupted(lab, handle)
            await lab.skip("1 hour")
            assert done == ["seat"]

    lab.run(main)


def test_interrupt_unsafe_takes_it_out_of_its_workers_hands(lab):
    """R29: the fence is raised in the same transaction; what the worker still wants to write is refused."""
    gate = Gate()

    @activity
    async def slow() -> str:
        await gate.wait()
        return "late"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await slow()
        await note("after")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            before = await lab.record(engine, handle.execution_id)
            # As somebody else would who knows nothing of the worker.
            await lab.probe(engine).inner.interrupt_unsafe(handle.execution_id, b'{"failure":[{"interrupt":null}]}')
            assert (await lab.record(engine, handle.execution_id)).fence > before.fence
            gate.open()
            await lab.settle()
            assert await handle.status() is Status.INTERRUPTED
            assert done == []
            assert await engine.journal(handle.execution_id) == []

    lab.run(main)


def test_interrupt_unsafe_ends_what_cannot_be_ended_otherwise(lab):
    """R29: held with a divergence, so no body of it can be asked."""
    changed = [False]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("other" if changed else "first")
        await sleep("1 day")
        await note("second")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        changed[0] = True
        async with lab.engine([work]) as engine:
            await engine.interrupt_unsafe(handle.execution_id)
            await is_interrupted(lab, work.handle(handle.execution_id))

    lab.run(main)


def test_interrupt_unsafe_of_a_finished_one_does_nothing_and_of_an_unknown_one_says_so(lab):
    """R29."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.result(handle)
            await engine.interrupt_unsafe(handle.execution_id)
            assert await handle.poll() == Complete(Success("k"))
            with pytest.raises(ExecutionNotFoundError):
                await engine.interrupt_unsafe("f" * 32)

    lab.run(main)


def test_a_defect_beside_the_interrupt_is_the_result(lab):
    """R29, R34: a real failure beats interrupts beside it."""

    async def branch() -> None:
        try:
            await Never
        finally:
            raise ValueError("a bug in the cleaning")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(_on_a_deferred())

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Defect, match="a bug in the cleaning"):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED

    lab.run(main)
