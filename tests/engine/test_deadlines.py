"""Executions that have to end by a certain time (R44)."""

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from perdure import (
    Cause,
    Complete,
    DeadlineExceeded,
    Defect,
    Fail,
    Failure,
    Interrupted,
    Status,
    Suspended,
    UsageError,
    activity,
    add_finalizer,
    sleep,
    with_compensation,
    workflow,
)
from perdure._model.records import Mail, MailKind
from perdure._values.instant import to_datetime

from tests.engine.lab import Gate, Lab
from tests.engine.mortal import died_at_each_commit
from tests.engine.noted import Declined, Never, done, note


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


@workflow(idempotency_key=lambda key: key)
async def waits(key: str) -> str:
    await note("begun")
    return await Never


async def is_late(lab, handle) -> None:
    """It has failed with its deadline."""
    with pytest.raises(DeadlineExceeded):
        await lab.result(handle)
    assert await handle.status() is Status.FAILED
    polled = await handle.poll()
    assert isinstance(polled, Complete)
    assert isinstance(polled.exit, Failure)
    (reason,) = polled.exit.cause.reasons
    assert isinstance(reason, Fail)
    assert isinstance(reason.error, DeadlineExceeded)


def test_a_deadline_is_a_duration_from_the_start(lab):
    """R44: never early."""

    async def main():
        async with lab.engine([waits]) as engine:
            began = lab.clock.now()
            handle = await waits.options(deadline="1 hour").start("k")
            info = await engine.describe(handle.execution_id)
            assert info.deadline == to_datetime(began) + timedelta(hours=1)
            await lab.skip(timedelta(minutes=59, seconds=59, milliseconds=999))
            assert await handle.poll() == Suspended(None)
            await lab.skip("1 milli")
            await is_late(lab, handle)

    lab.run(main)


def test_a_deadline_is_an_instant(lab):
    """R44: in whatever zone it is told."""

    async def main():
        async with lab.engine([waits]) as engine:
            instant = to_datetime(lab.clock.now()) + timedelta(hours=2)
            there = instant.astimezone(timezone(timedelta(hours=5, minutes=30)))
            handle = await waits.options(deadline=there).start("k")
            assert (await engine.describe(handle.execution_id)).deadline == instant
            await lab.skip("119 minutes")
            assert await handle.poll() == Suspended(None)
            await lab.skip("1 minute")
            await is_late(lab, handle)

    lab.run(main)


def test_a_duration_is_counted_from_a_delayed_start(lab):
    """R44: it has as much time as any other."""

    async def main():
        async with lab.engine([waits]):
            handle = await waits.options(delay="2 hours", deadline="1 hour").start("k")
            await lab.skip("170 minutes")
            assert done == ["begun"]
            assert await handle.poll() == Suspended(None)
            await lab.skip("10 minutes")
            await is_late(lab, handle)

    lab.run(main)


def test_an_instant_without_a_zone_is_refused(lab):
    """R44: nobody knows when that is."""

    async def main():
        async with lab.engine([waits]):
            with pytest.raises(UsageError):
                await waits.options(deadline=datetime(2030, 1, 1)).start("k")  # noqa: DTZ001 - refused for just that

    lab.run(main)


def test_a_body_that_finishes_first_has_its_result(lab):
    """R44."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await sleep("59 minutes")
        return key

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            assert await lab.result(handle) == "k"
            await lab.skip("1 day")
            assert await handle.status() is Status.SUCCEEDED

    lab.run(main)


def test_a_body_sees_its_deadline_as_an_interrupt(lab):
    """R44, R29: it may tidy up, and compensations run with `DeadlineExceeded` as the cause."""
    causes: list[Cause] = []

    async def undone(value: str, cause: Cause) -> None:
        causes.append(cause)
        await note("undone")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), undone)
        try:
            await Never
        except asyncio.CancelledError:
            await note("tidied")
            raise

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            await is_late(lab, handle)
            assert done == ["seat", "tidied", "undone"]
            assert causes
            for cause in causes:
                (reason,) = cause.reasons
                assert isinstance(reason, Fail)
                assert isinstance(reason.error, DeadlineExceeded)

    lab.run(main)


def test_a_body_that_finishes_otherwise_has_that_result(lab):
    """R44: "unless the body finished first"; what it does about an interrupt is ordinary (R29)."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            return await Never
        except asyncio.CancelledError:
            return "as far as it went"

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            assert await lab.result(handle) == "as far as it went"

    lab.run(main)


def test_one_that_never_began_ends_at_once(lab):
    """R44: delayed beyond its deadline."""

    async def main():
        async with lab.engine([waits]):
            instant = to_datetime(lab.clock.now()) + timedelta(hours=1)
            handle = await waits.options(delay="2 hours", deadline=instant).start("k")
            await lab.skip("59 minutes")
            assert await handle.status() is Status.SUSPENDED
            await lab.skip("1 minute")
            assert await handle.status() is Status.FAILED
            await is_late(lab, handle)
            await lab.skip("3 hours")
            assert done == []

    lab.run(main)


def test_one_that_nobody_has_registered_ends_at_once(file_lab):
    """R3, R44: by the rounds of whoever has the store open."""
    lab = file_lab

    async def main():
        async with lab.engine([]):
            handle = await waits.options(deadline="1 hour").start("k")
            await lab.skip("1 hour")
            await is_late(lab, handle)
            assert done == []

    lab.run(main)


def test_a_deadline_that_passed_while_nobody_looked_is_seen_to_by_the_next_engine(file_lab):
    """R44, R47: and what came before it is fed before it."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            value = await Never
        except asyncio.CancelledError:
            return "too late"
        try:
            await sleep("1 day")
        except asyncio.CancelledError:
            return value
        return "?"

    async def main():
        async with lab.engine([work]):
            in_time = await work.options(deadline="1 hour").start("in time")
            late = await work.options(deadline="1 hour").start("late")
            await lab.settle()
        lab.clock.advance(30 * 60_000)
        async with lab.engine([]):
            await Never.succeed(Never.token_from_payload(workflow=work, payload="in time"), "value")
        lab.clock.advance(60 * 60_000)
        async with lab.engine([work]):
            assert await lab.result(work.handle(in_time.execution_id)) == "value"
            assert await lab.result(work.handle(late.execution_id)) == "too late"

    lab.run(main)


def test_what_came_after_the_deadline_is_fed_after_it(file_lab):
    """R44, R47: although nobody had seen to the deadline by then."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            return await Never
        except asyncio.CancelledError:
            return "too late"

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
        lab.clock.advance(90 * 60_000)
        store = lab.store().inner
        await store.open()
        await store.deliver([Mail(handle.execution_id, MailKind.DEFERRED, Never.name, b'{"success":"value"}')])
        await store.close()
        lab.clock.advance(30 * 60_000)
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "too late"

    lab.run(main)


def test_a_running_one_has_its_activities_cancelled(lab):
    """R44."""
    gate = Gate()
    heard: list[str] = []

    @activity
    async def slow() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await slow()

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            await lab.skip("1 hour")
            await is_late(lab, handle)
            assert heard == ["cancelled"]

    lab.run(main)


def test_a_held_one_ends_with_its_original_failure(lab):
    """R36, R44: as by interrupt, after compensations."""

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        raise Declined(code=4)

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "FAILURE"
            await lab.skip("1 hour")
            with pytest.raises(Declined):
                await lab.result(handle)
            assert await handle.status() is Status.FAILED
            assert done == ["seat", "undone"]

    lab.run(main)


def test_one_that_is_deadlocked_ends_with_its_deadline(lab):
    """R5, R44: held, but not with a failure of its own."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.Event().wait()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "DEADLOCK"
            await is_late(lab, handle)

    lab.run(main)


def test_a_deadline_does_not_cut_finalizers_short(lab):
    """R29, R44: the body had ended before."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        async def on_exit(exit: Any) -> None:
            await sleep("3 hours")
            await note("finalized")

        await add_finalizer(on_exit)
        return "in time"

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            assert await lab.result(handle) == "in time"
            assert done == ["finalized"]

    lab.run(main)


@workflow(idempotency_key=lambda key: key)
async def tidies_up(key: str) -> None:
    try:
        await Never
    finally:
        await sleep("2 hours")
        await note(f"{key} is tidy")


def test_a_deadline_and_an_interrupt_are_each_delivered_once(lab):
    """R29, R44: also to a body that is busy with the other; it ends with the one that it lets end it."""

    async def main():
        async with lab.engine([tidies_up]) as engine:
            tidy = await tidies_up.options(deadline="3 hours").start("tidy")
            interrupted = await tidies_up.options(deadline="1 hour").start("interrupted")
            late = await tidies_up.options(deadline="1 hour").start("late")
            await lab.settle()
            await tidy.interrupt()
            await interrupted.interrupt()
            await lab.skip("90 minutes")
            await is_late(lab, interrupted)
            for _ in range(2):
                await late.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(late)
            with pytest.raises(Interrupted):
                await lab.result(tidy)
            assert done == ["tidy is tidy"]
            told = {handle: await engine.journal(handle.execution_id) for handle in (tidy, interrupted, late)}
            assert {handle: [entry.name for entry in told[handle] if entry.kind == "interrupt"] for handle in told} == {
                tidy: ["interrupt"],
                interrupted: ["interrupt", "deadline"],
                late: ["deadline", "interrupt"],
            }

    lab.run(main)


def test_of_an_interrupt_and_a_deadline_that_came_while_nobody_ran_it_a_body_is_told_in_one_turn(file_lab):
    """R44, R47: its tidying up is taken back before it begins; what stands on the stack is done."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        try:
            await Never
        finally:
            await note("tidied")

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
        async with lab.engine([]) as client:
            await client.interrupt(handle.execution_id)
            await lab.skip("2 hours")
        async with lab.engine([work]) as engine:
            await is_late(lab, work.handle(handle.execution_id))
            assert done == ["seat", "undone"]
            told = [entry.name for entry in await engine.journal(handle.execution_id) if entry.kind == "interrupt"]
            assert told == ["interrupt", "deadline"]

    lab.run(main)


def test_an_execution_that_swallows_an_interrupt_has_its_deadline_all_the_same(lab):
    """R29, R44: it passes once, and a body may swallow that as well."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        for what in ("interrupt", "deadline"):
            try:
                await Never
            except asyncio.CancelledError:
                await note(what)
        await sleep("1 day")
        return "stubborn"

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.skip("50 minutes")
            assert done == ["interrupt"]
            await lab.skip("20 minutes")
            assert done == ["interrupt", "deadline"]
            await handle.interrupt()
            assert await lab.result(handle) == "stubborn"

    lab.run(main)


@pytest.mark.parametrize("swallowed", ["interrupt", "nothing"])
@pytest.mark.parametrize("way", ["FAILURE", "DEADLOCK"])
def test_a_held_one_ends_by_its_deadline_whatever_came_before(lab, way, swallowed):
    """R36, R44: as by interrupt, and as if it were the first."""

    @activity(error=Declined)
    async def fails() -> None:
        raise Declined(code=4)

    @workflow(idempotency_key=lambda key: key, error=Declined, suspend_on_failure=True)
    async def work(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        if swallowed != "nothing":
            try:
                await Never
            except asyncio.CancelledError:
                await note("swallowed")
        if way == "FAILURE":
            await fails()
        await asyncio.Event().wait()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(deadline="1 hour").start("k")
            await lab.settle()
            if swallowed == "interrupt":
                await handle.interrupt()
                await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == way
            await lab.skip("50 minutes")
            assert done[-1] != "undone"
            if way == "FAILURE":
                with pytest.raises(Declined):
                    await lab.result(handle)
                assert await handle.status() is Status.FAILED
            else:
                await is_late(lab, handle)
            assert done[-1] == "undone"

    lab.run(main)


def test_what_a_child_does_about_its_deadline_is_not_cut_off_by_its_parent(lab):
    """R31, R44: both have the same deadline, and the parent leaves a child that was asked to end already."""

    @workflow(idempotency_key=lambda key: key)
    async def family(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        await tidies_up.execute(key)

    async def main():
        async with lab.engine([family, tidies_up]) as engine:
            handle = await family.options(deadline="1 hour").start("k")
            await is_late(lab, handle)
            assert done == ["seat", "k is tidy", "undone"]
            child = await engine.describe(tidies_up.execution_id("k"))
            assert child.status is Status.FAILED

    lab.run(main)


def test_a_child_is_interrupted_by_the_deadline_of_its_parent(lab):
    """R31, R44: it has the earlier of both."""

    @workflow(idempotency_key=lambda key: key)
    async def family(key: str) -> str:
        await waits.options(deadline="5 hours").execute(key)
        return "?"

    async def main():
        async with lab.engine([family, waits]) as engine:
            handle = await family.options(deadline="1 hour").start("k")
            await is_late(lab, handle)
            await lab.settle()
            child = await engine.describe(waits.execution_id("k"))
            assert child.status in {Status.FAILED, Status.INTERRUPTED}
            assert child.finished_at is not None

    lab.run(main)


def test_a_parent_may_go_on_when_its_child_was_late(lab):
    """R32, R44."""

    @workflow(idempotency_key=lambda key: key)
    async def family(key: str) -> str:
        try:
            return await waits.options(deadline="1 hour").execute(key)
        except DeadlineExceeded:
            return "without it"

    async def main():
        async with lab.engine([family, waits]):
            assert await lab.result(await family.start("k")) == "without it"

    lab.run(main)


def test_a_deadline_in_the_past_ends_it_at_once(lab):
    """R44: nothing of it is run."""

    async def main():
        async with lab.engine([waits]):
            yesterday = to_datetime(lab.clock.now()) - timedelta(days=1)
            handle = await waits.options(deadline=yesterday, delay="1 hour").start("k")
            await lab.settle()
            await is_late(lab, handle)
            assert done == []

    lab.run(main)


def test_many_deadlines_of_one_moment_are_all_seen_to(lab):
    """R44: in batches, the longest passed first."""

    async def main():
        async with lab.engine([waits]) as engine:
            late = waits.options(deadline="1 hour")
            handles = [await late.start(f"k{number}") for number in range(150)]
            await lab.skip("61 minutes")
            ended = [info async for info in engine.executions(workflow="waits", status=Status.FAILED, limit=1000)]
            assert len(ended) == len(handles)

    lab.run(main)


def test_a_defect_of_the_tidying_up_is_the_result(lab):
    """R34, R44: a real failure of the body, which it finished with."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await Never
        finally:
            raise ValueError("a bug")

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="1 hour").start("k")
            with pytest.raises(Defect, match="a bug"):
                await lab.result(handle)

    lab.run(main)


def test_a_worker_that_dies_at_any_commit_of_a_late_execution_leaves_it_to_the_next_one(memory_lab):
    """R44: it ends once, and with its deadline."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(note(f"{key}: seat"), lambda value, cause: note(f"{key}: undone"))
        await Never

    async def check(engine, key, came_to):
        assert isinstance(came_to, DeadlineExceeded)
        journal = await engine.journal(work.execution_id(key))
        assert [entry.kind for entry in journal] == ["activity", "interrupt", "activity"]
        assert list(dict.fromkeys(what for what in done if key in what)) == [f"{key}: seat", f"{key}: undone"]

    async def main():
        assert await died_at_each_commit(lab, [work], work.options(deadline="1 hour").execute, check) >= 4

    lab.run(main)
