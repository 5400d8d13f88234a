"""Executions that failures hold instead of ending them, and who moves them (R34, R35, R36)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import (
    ActivityTimeout,
    Cause,
    Complete,
    Defect,
    Die,
    DurableChannel,
    DurableDeferred,
    Fail,
    Failure,
    Interrupted,
    NonDeterminismError,
    Schedule,
    Status,
    Success,
    Suspended,
    TypedError,
    activity,
    add_finalizer,
    sleep,
    with_compensation,
    workflow,
)

from tests.engine.lab import Gate, Lab
from tests.engine.mortal import died_at_each_commit

Never = DurableDeferred.make("never", success=str)
Signal = DurableDeferred.make("signal", success=str)


class Declined(TypedError):
    code: int


class Busy(TypedError):
    line: int


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


@activity(error=(Declined, Busy))
async def step(what: str) -> str:
    """Fails while it is broken."""
    done.append(what)
    if what in broken:
        raise Declined(code=len(what))
    return what


async def held(engine, handle) -> tuple[str | None, Cause | None]:
    """The code and the cause."""
    info = await engine.describe(handle.execution_id)
    assert (info.held is None) == (info.cause is None)
    if info.held is not None:
        assert info.status is Status.SUSPENDED
        polled = await handle.poll()
        assert isinstance(polled, Suspended)
        assert polled.cause is not None
    return info.held, info.cause


# A failing body ------------------------------------------------------------------------------------------------------


def test_a_failing_body_holds_its_execution(lab):
    """R36: with its cause; nothing moves it but somebody."""

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await note("once")
        raise Declined(code=1)

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("30 days")
            code, cause = await held(engine, handle)
            assert code == "FAILURE"
            assert isinstance(cause, Cause)
            (reason,) = cause.reasons
            assert isinstance(reason, Fail)
            assert "Declined" in str(reason.error)
            assert done == ["once"]

    lab.run(main)


def test_a_resumed_body_is_run_again(lab):
    """R36: its steps are replayed, its code is run; it may fail again, and succeed in the end."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        await note("once")
        if broken:
            raise RuntimeError("a bug")
        return "mended"

    async def main():
        broken.add("body")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            for _ in range(3):
                await lab.settle()
                assert (await held(engine, handle))[0] == "FAILURE"
                await handle.resume()
            await lab.settle()
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "mended"
            assert done == ["once"]

    lab.run(main)


def test_finalizers_and_compensations_do_not_run_while_it_is_held(lab):
    """R27, R36: being held is no end."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        await add_finalizer(lambda _: note("finalized"))
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        if broken:
            raise RuntimeError("a bug")
        return "mended"

    async def main():
        broken.add("body")
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("1 day")
            assert done == ["seat"]
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "mended"
            assert done == ["seat", "finalized"]

    lab.run(main)


def test_it_is_still_held_after_a_restart(lab):
    """R36: nobody claims it, nothing of it runs."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        return await step("a")

    async def main():
        broken.add("a")
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        broken.clear()
        async with lab.engine([work]) as engine:
            await lab.skip("1 day")
            handle = work.handle(handle.execution_id)
            assert (await held(engine, handle))[0] == "FAILURE"
            assert done == ["a"]
            await handle.resume()
            assert await lab.result(handle) == "a"
            assert done == ["a", "a"]

    lab.run(main)


# A failing activity ---------------------------------------------------------------------------------------------------


def test_a_failing_activity_holds_the_execution_and_is_executed_again(lab):
    """R36: its failure is recorded as not final; what worked is not done again."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        return await step("a") + await step("b") + await step("c")

    async def main():
        broken.add("b")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            code, cause = await held(engine, handle)
            assert code == "FAILURE"
            assert "Declined" in str(cause)
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "abc"
            assert done == ["a", "b", "b", "c"]

    lab.run(main)


def test_the_body_does_not_see_the_failure_that_holds_it(lab):
    """R36: `except` around the step is not entered, and the retries of the activity come first."""
    tries: list[int] = []

    @activity(error=Declined, retry=Schedule.spaced("1 hour").times(2))
    async def flaky() -> str:
        tries.append(len(tries))
        if broken:
            raise Declined(code=1)
        return "at last"

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        try:
            return await flaky()
        except Declined:
            return "caught"

    async def main():
        broken.add("all")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("90 minutes")
            assert (len(tries), (await held(engine, handle))[0]) == (2, None)
            await lab.skip("1 hour")
            assert (len(tries), (await held(engine, handle))[0]) == (3, "FAILURE")
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "at last"
            assert len(tries) == 4

    lab.run(main)


def test_it_is_held_at_quiescence(lab):
    """R36: what runs beside the failure ends and is recorded, nothing new is given out."""
    gate = Gate()

    @activity
    async def slow() -> str:
        await gate.wait()
        done.append("slow")
        return "slow"

    async def then() -> str:
        await slow()
        return await note("after")

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        return list(await asyncio.gather(step("a"), then()))

    async def main():
        broken.add("a")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            gate.open()
            await lab.settle()
            assert (await held(engine, handle))[0] == "FAILURE"
            recorded = [(entry.name, entry.attempt) for entry in await engine.journal(handle.execution_id)]
            assert [name for name, _ in recorded if name in {"step", "slow", "note"}] == ["step", "slow"]
            assert done == ["a", "slow"]
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == ["a", "after"]
            assert done[2:] in (["a", "after"], ["after", "a"])

    lab.run(main)


def test_several_that_fail_are_one_cause_and_are_all_executed_again(lab):
    """R34, R36."""
    gates = {what: Gate() for what in "ab"}

    @activity(error=Declined)
    async def gated(what: str) -> str:
        await gates[what].wait()
        return await _stepped(what)

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        return list(await asyncio.gather(gated("a"), gated("b"), step("c")))

    async def main():
        broken.update("ab")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            for gate in gates.values():
                gate.open()
                await lab.settle()
            code, cause = await held(engine, handle)
            assert code == "FAILURE"
            assert cause is not None
            assert len(cause.reasons) == 2
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == ["a", "b", "c"]
            assert sorted(done) == ["a", "a", "b", "b", "c"]

    lab.run(main)


async def _stepped(what: str) -> str:
    done.append(what)
    if what in broken:
        raise Declined(code=1)
    return what


def test_a_timer_in_memory_does_not_keep_a_failed_execution_running(lab):
    """R36: nothing of it runs; the timer waits, and is due when somebody resumes it."""

    async def paused() -> str:
        await asyncio.sleep(10)
        return await note("after the pause")

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        return list(await asyncio.gather(step("a"), paused()))

    async def main():
        broken.add("a")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("1 minute")
            assert (await held(engine, handle))[0] == "FAILURE"
            assert done == ["a"]
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == ["a", "after the pause"]

    lab.run(main)


# What arrives meanwhile -------------------------------------------------------------------------------------------------


Inbox = DurableChannel.make("inbox", str)


@workflow(idempotency_key=lambda key: key)
async def child(key: str) -> str:
    return await Signal


def test_what_arrives_while_it_is_held_is_kept_and_waits(lab):
    """R36: timers, children, completions and messages; none of them moves it."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        async def timer() -> str:
            await sleep("2 hours")
            return "timer"

        return list(await asyncio.gather(step("a"), timer(), child.execute(key), Signal, Inbox.receive()))

    async def main():
        broken.add("a")
        async with lab.engine([work, child]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await Signal.succeed(Signal.token_from_payload(workflow=work, payload="k"), "completed")
            await Signal.succeed(Signal.token_from_payload(workflow=child, payload="k"), "child")
            await Inbox.send(handle.execution_id, "message")
            await lab.skip("1 day")
            assert (await held(engine, handle))[0] == "FAILURE"
            assert done == ["a"]
            broken.clear()
            await handle.resume()
            await lab.settle()
            assert await lab.result(handle) == ["a", "timer", "child", "completed", "message"]

    lab.run(main)


def test_a_completion_that_lands_while_it_is_being_held_is_not_lost(lab):
    """R36: the commit that holds it meets mail that it has not seen."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        return list(await asyncio.gather(step("a"), Signal))

    async def main():
        broken.add("a")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            kept = lab.probe(engine).hold("commit", before=True)
            await lab.settle()
            await Signal.succeed(Signal.token_from_payload(workflow=work, payload="k"), "in between")
            kept.release()
            await lab.settle()
            assert (await held(engine, handle))[0] == "FAILURE"
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == ["a", "in between"]

    lab.run(main)


def test_resume_is_harmless_on_one_that_is_not_held(lab):
    """R36."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await note("once")
        return await Signal

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await handle.resume()
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            await Signal.succeed(Signal.token_from_payload(workflow=work, payload="k"), "v")
            assert await lab.result(handle) == "v"
            await handle.resume()
            assert await handle.poll() == Complete(Success("v"))
            assert done == ["once"]
            assert [entry.kind for entry in await engine.journal(handle.execution_id)] == ["activity", "deferred"]

    lab.run(main)


# Interrupting what is held ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["declared", "defect"])
def test_interrupting_it_ends_it_with_the_original_failure_after_compensations(lab, way):
    """R36: FAILED, not INTERRUPTED."""
    causes: list[Cause] = []

    async def undone(value: str, cause: Cause) -> None:
        causes.append(cause)
        await note("undone")

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), undone)
        if way == "declared":
            raise Declined(code=3)
        raise RuntimeError("a bug")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Declined if way == "declared" else Defect):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED
            assert done == ["seat", "undone"]
            polled = await handle.poll()
            assert isinstance(polled, Complete)
            assert isinstance(polled.exit, Failure)
            assert {repr(cause) for cause in causes} == {repr(polled.exit.cause)}

    lab.run(main)


def test_interrupting_one_that_an_activity_holds_ends_it_with_that_failure(lab):
    """R36: the body has not seen it, and is told of the interrupt; the failure is the result all the same."""

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        try:
            await step("broken")
        finally:
            await note("tidied")

    async def main():
        broken.add("broken")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await held(engine, handle))[0] == "FAILURE"
            await handle.interrupt()
            with pytest.raises(Declined):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED
            assert done == ["seat", "broken", "tidied", "undone"]

    lab.run(main)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_step_with_compensation_that_holds_it_is_not_executed_again_when_it_is_interrupted(lab, resumed):
    """R27, R29, R36: no attempt of it runs that could be cut in half, unless somebody has resumed it before."""
    gate = Gate()

    @activity(error=Declined)
    async def fragile() -> str:
        done.append("tried")
        if broken:
            raise Declined(code=1)
        await gate.wait()
        return "seat"

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("first"), lambda value, cause: note("undo first"))
        await with_compensation(fragile(), lambda value, cause: note("undo seat"))

    async def main():
        broken.add("fragile")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await held(engine, handle))[0] == "FAILURE"
            broken.clear()
            if resumed:
                await handle.resume()
                await lab.settle()
                assert gate.entered == 1
            await handle.interrupt()
            await lab.settle()
            gate.open()
            with pytest.raises(Interrupted if resumed else Declined):
                await lab.result(handle)
            assert done == (
                ["first", "tried", "tried", "undo seat", "undo first"] if resumed else ["first", "tried", "undo first"]
            )

    lab.run(main)


def test_unknown_is_called_for_the_step_that_holds_it_when_it_is_interrupted(lab):
    """R27, R36: nobody knows what its last attempt did, and nobody will try again."""

    @activity(timeout="1 minute")
    async def slow() -> None:
        done.append("tried")
        await Gate().wait()

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(slow(), lambda value, cause: note("undone"), unknown=lambda cause: note("looked"))

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("2 minutes")
            assert (await held(engine, handle))[0] == "FAILURE"
            await handle.interrupt()
            with pytest.raises(ActivityTimeout):
                await lab.result(handle)
            assert done == ["tried", "looked"]

    lab.run(main)


def test_an_interrupt_of_one_that_is_not_held_yet_is_an_ordinary_one(lab):
    """R29, R36."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> None:
        await Never

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert await handle.status() is Status.INTERRUPTED

    lab.run(main)


def test_interrupting_one_that_is_deadlocked_ends_it(lab):
    """R5, R29: held with trouble that is no failure of its own."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await note("tidied")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await held(engine, handle))[0] == "DEADLOCK"
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["tidied"]

    lab.run(main)


def test_interrupting_one_with_a_divergence_ends_it_when_the_code_is_mended(lab):
    """R8, R29: nobody can say where its body is; the interrupt waits for somebody who can."""
    changed: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("other" if changed else "first")
        await sleep("2 hours")
        await note("second")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        changed.append("code")
        async with lab.engine([work]) as engine:
            handle = work.handle(handle.execution_id)
            await lab.skip("3 hours")
            assert (await held(engine, handle))[0] == "DIVERGENCE"
            await handle.interrupt()
            await lab.skip("1 hour")
            assert (await held(engine, handle))[0] == "DIVERGENCE"
            changed.clear()
            await handle.resume()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["first"]

    lab.run(main)


@pytest.mark.parametrize("way", ["FAILURE", "DEADLOCK"])
def test_a_held_one_ends_by_an_interrupt_although_its_body_has_swallowed_one(lab, way):
    """R29, R36: and as often as it is held."""

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        for what in ("first", "second"):
            try:
                if what == "first":
                    await Never
                elif way == "FAILURE":
                    await step("broken")
                else:
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                await note(what)
        await step("broken too")

    async def main():
        broken.update({"broken", "broken too"})
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            for code, noted in ((way, "first"), ("FAILURE", "second")):
                await handle.interrupt()
                await lab.settle()
                assert (await held(engine, handle))[0] == code
                assert noted in done
                assert "undone" not in done
                await handle.resume()  # it is held once more, for the same reason
                await lab.settle()
                assert (await held(engine, handle))[0] == code
            await handle.interrupt()
            with pytest.raises(Declined):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED
            assert done[-1] == "undone"
            told = [entry.name for entry in await engine.journal(handle.execution_id) if entry.kind == "interrupt"]
            assert told[0] == "interrupt"
            assert len(set(told)) == 3

    lab.run(main)


def test_an_interrupt_of_one_that_is_not_held_any_more_does_nothing_after_another(lab):
    """R29, R36: whoever was held and is resumed has had its interrupt before that."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        try:
            await Never
        except asyncio.CancelledError:
            await step("a")
        await sleep("2 hours")
        return "done"

    async def main():
        broken.add("a")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert (await held(engine, handle))[0] == "FAILURE"
            broken.clear()
            await handle.resume()
            await lab.settle()
            await handle.interrupt()
            assert await lab.result(handle) == "done"

    lab.run(main)


def test_several_interrupts_of_one_that_cannot_be_run_are_one(lab):
    """R29, R36: of all of them its body would be told in one turn, and they would cut off what it does about the first."""
    changed: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await Never
        except asyncio.CancelledError:
            await note("other" if changed else "swallowed")
        try:
            await asyncio.gather(sleep("2 hours"), Never)
        finally:
            await note("tidied")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
        changed.append("code")
        async with lab.engine([work]) as engine:
            handle = work.handle(handle.execution_id)
            await lab.skip("3 hours")
            for _ in range(3):
                assert (await held(engine, handle))[0] == "DIVERGENCE"
                await handle.interrupt()
                await lab.settle()
            changed.clear()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["swallowed", "tidied"]

    lab.run(main)


def test_a_held_fork_is_moved_by_an_interrupt_whatever_its_original_was_told(lab):
    """R36, R49: its letters are copies, and a hold of its own may come under the fence of one of the original's."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        for what in "abcd":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await note(what)
        return "ended"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            for _ in range(3):
                await lab.settle()
                await handle.interrupt()
            await lab.settle()
            length = len(await engine.journal(handle.execution_id))
            for at in range(length + 1):
                forked = work.handle(await engine.fork(handle.execution_id, at=at))
                await lab.settle()
                while (await held(engine, forked))[0] is not None:
                    told = len(await engine.journal(forked.execution_id))
                    await forked.interrupt()
                    await lab.settle()
                    assert len(await engine.journal(forked.execution_id)) > told
                assert await lab.result(forked) == "ended"

    lab.run(main)


def test_a_worker_that_dies_at_any_commit_of_a_second_interrupt_leaves_it_to_the_next_one(memory_lab):
    """R29, R36: it ends with what held it, and is told once of each."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note(f"{key} seat"), lambda value, cause: note(f"{key} undone"))
        try:
            await Never
        except asyncio.CancelledError:
            await note(f"{key} swallowed")
        await step(f"{key} broken")

    async def scenario(key: str) -> None:
        broken.add(f"{key} broken")
        handle = await work.start(key)
        while not isinstance(await handle.poll(), Complete):
            await _half_an_hour(lab)
            if f"{key} swallowed" not in done or f"{key} broken" in done:
                await handle.interrupt()
        await handle.result()

    async def check(engine, key, came_to):
        assert isinstance(came_to, Declined)
        entries = await engine.journal(work.execution_id(key))
        told = [entry.name for entry in entries if entry.kind == "interrupt"]
        assert told[0] == "interrupt"
        assert len(told) == len(set(told)) == 2
        recorded = [entry.name for entry in entries if entry.kind == "activity"]
        assert recorded == ["note", "note", "step", "note"]

    async def main():
        assert await died_at_each_commit(lab, [work], scenario, check) >= 5

    lab.run(main)


# Defects ------------------------------------------------------------------------------------------------------------------


def test_a_defect_is_not_a_result_where_defects_are_not_captured(lab):
    """R35: the execution is held with it."""

    @workflow(idempotency_key=lambda key: key, error=Declined, capture_defects=False)
    async def work(key: str) -> str:
        await note("once")
        if broken:
            raise ValueError("a bug")
        return "mended"

    async def main():
        broken.add("body")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("1 day")
            code, cause = await held(engine, handle)
            assert code == "DEFECT"
            assert cause is not None
            (reason,) = cause.reasons
            assert isinstance(reason, Die)
            assert "a bug" in str(reason)
            broken.clear()
            await handle.resume()
            assert await lab.result(handle) == "mended"
            assert done == ["once"]

    lab.run(main)


def test_a_declared_error_is_a_result_where_defects_are_not_captured(lab):
    """R35."""

    @workflow(idempotency_key=lambda key: key, error=Declined, capture_defects=False)
    async def work(key: str) -> str:
        raise Declined(code=1)

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            with pytest.raises(Declined):
                await lab.result(handle)

    lab.run(main)


def test_a_defect_that_holds_it_is_its_end_when_it_is_interrupted(lab):
    """R35, R36: after compensations."""

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        raise ValueError("a bug")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            assert done == ["seat"]
            await handle.interrupt()
            with pytest.raises(Defect, match="a bug"):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED
            assert done == ["seat", "undone"]

    lab.run(main)


def test_a_defect_that_an_interrupted_body_raises_is_its_end(lab):
    """R29, R35: whoever interrupts an execution wants it to end."""

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def work(key: str) -> None:
        try:
            await Never
        finally:
            raise ValueError("a bug")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Defect, match="a bug"):
                await lab.result(handle)

    lab.run(main)


# Several failures ----------------------------------------------------------------------------------------------------------


async def _raise(error: Callable[[], BaseException]) -> None:
    await note("failing")
    raise error()


async def _stay() -> None:
    await Never


def _in_a_group(*errors: Callable[[], BaseException]) -> Callable[[], Any]:
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(_raise(error))
            group.create_task(_stay())

    return body


def _declined() -> BaseException:
    return Declined(code=1)


def _busy() -> BaseException:
    return Busy(line=2)


def test_what_fails_alone_in_a_group_surfaces_as_itself(lab):
    """R34: the cancellations beside it are left out."""

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> None:
        await _in_a_group(_declined)()

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Declined):
                await lab.result(await work.start("k"))

    lab.run(main)


def test_several_failures_surface_as_a_group_in_order(lab):
    """R34: flattened, one cause with several reasons."""

    async def nested() -> None:
        raise ExceptionGroup("outer", [_declined(), ExceptionGroup("inner", [_busy(), ValueError("a bug")])])  # type: ignore[list-item]

    @workflow(idempotency_key=lambda key: key, error=(Declined, Busy))
    async def work(key: str) -> None:
        await note("begun")
        await nested()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            with pytest.raises(ExceptionGroup) as caught:
                await lab.result(handle)
            assert [type(error) for error in caught.value.exceptions] == [Declined, Busy, Defect]
            polled = await handle.poll()
            assert isinstance(polled, Complete)
            assert isinstance(polled.exit, Failure)
            assert len(polled.exit.cause.reasons) == 3

    lab.run(main)


def test_a_group_of_failures_of_one_turn_keeps_them_all(lab):
    """R34: both failed before either was cancelled."""
    gate = Gate()

    @activity(error=(Declined, Busy))
    async def fails(which: str) -> None:
        await gate.wait()
        raise _declined() if which == "declined" else _busy()

    @workflow(idempotency_key=lambda key: key, error=(Declined, Busy))
    async def work(key: str) -> list[str]:
        ends = await asyncio.gather(fails("declined"), fails("busy"), return_exceptions=True)
        raise BaseExceptionGroup("both", [end for end in ends if isinstance(end, BaseException)])

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            gate.open()
            with pytest.raises(ExceptionGroup) as caught:
                await lab.result(handle)
            assert [type(error) for error in caught.value.exceptions] == [Declined, Busy]

    lab.run(main)


def test_cancellations_alone_in_a_group_are_a_defect_like_one(lab):
    """R32, R34: nobody has interrupted it."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        raise BaseExceptionGroup("cancelled", [asyncio.CancelledError(), asyncio.CancelledError()])

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED

    lab.run(main)


# Tasks that a body leaves --------------------------------------------------------------------------------------------------


def test_tasks_that_a_body_leaves_are_cancelled_and_ask_for_nothing(lab):
    """R46: the exit commits with that turn; what they ask for in their cleaning has no effect."""
    local: list[str] = []
    kept: list[asyncio.Task[Any]] = []

    async def branch() -> None:
        try:
            await Never
        except asyncio.CancelledError:
            local.append("cancelled")
            await note("no effect")
            raise

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        kept.append(asyncio.create_task(branch()))
        await note("seen")
        return "done"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            assert await lab.result(handle) == "done"
            await lab.skip("1 hour")
            assert set(local) == {"cancelled"}
            assert done == ["seen"]
            assert [entry.kind for entry in await engine.journal(handle.execution_id)] == ["activity"]
            kept.clear()

    lab.run(main)


def test_activities_that_a_body_leaves_are_cancelled(lab):
    """R46."""
    gate = Gate()
    heard: list[str] = []

    @activity
    async def slow() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    kept: list[asyncio.Future[Any]] = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        kept.append(asyncio.ensure_future(slow()))
        await note("seen")
        return "done"

    async def main():
        async with lab.engine([work]):
            assert await lab.result(await work.start("k")) == "done"
            await lab.settle()
            assert heard == ["cancelled"]
            kept.clear()

    lab.run(main)


# Whatever dies -------------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_at_any_commit_leaves_it_held_with_the_same_failure(memory_lab):
    """R36: and the next one goes on from there when it is resumed."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> list[str]:
        both = list(await asyncio.gather(step(f"{key} a"), step(f"{key} b")))
        await sleep("2 hours")
        return [*both, await step(f"{key} c")]

    async def scenario(key: str) -> list[str]:
        broken.update({f"{key} b", f"{key} c"})
        handle = await work.start(key)
        while not isinstance(polled := await handle.poll(), Complete):
            if isinstance(polled, Suspended) and polled.cause is not None:
                broken.clear()
                await handle.resume()
            await _half_an_hour(lab)
        return await handle.result()

    async def check(engine, key, came_to):
        assert came_to == [f"{key} {what}" for what in "abc"]

    async def main():
        assert await died_at_each_commit(lab, [work], scenario, check) >= 5

    lab.run(main)


async def _half_an_hour(lab) -> None:
    passed = asyncio.get_running_loop().create_future()
    lab.clock.call_at(lab.clock.now() + 30 * 60_000, lambda: passed.done() or passed.set_result(None))
    await passed


def test_a_divergence_names_both_sides(lab):
    """R8: the cause of being held says what to look at."""
    changed: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note("other" if changed else "first")
        await sleep("2 hours")

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        changed.append("code")
        async with lab.engine([work]) as engine:
            await lab.skip("3 hours")
            code, cause = await held(engine, work.handle(handle.execution_id))
            assert code == "DIVERGENCE"
            assert NonDeterminismError.__name__ in repr(cause) or "first" in str(cause)

    lab.run(main)
