"""What is done when an execution ends: compensations, finalizers, scopes; durable like the body (R27, R28)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import (
    ActivityTimeout,
    Cause,
    Complete,
    Defect,
    Exit,
    Fail,
    Failure,
    Interrupt,
    Interrupted,
    OutcomeUnknown,
    OutsideExecutionError,
    Schedule,
    Status,
    Success,
    Suspended,
    activity,
    add_finalizer,
    race_all,
    retry,
    scope,
    sleep,
    with_compensation,
    workflow,
)

from tests.engine.lab import Gate, Lab, ThreadGate
from tests.engine.mortal import died_at_each_commit
from tests.engine.noted import Declined, Never, done, note


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


def undo(what: str, cause: object = None) -> Awaitable[object]:
    """As a compensation."""
    return note(f"undo {what}")


async def fails(lab, handle) -> Failure:
    """How it failed."""
    with pytest.raises(BaseException) as _:  # noqa: PT011 - how exactly is looked at by the caller
        await lab.result(handle)
    polled = await handle.poll()
    assert isinstance(polled, Complete)
    assert isinstance(polled.exit, Failure)
    return polled.exit


# Which, when, in which order ---------------------------------------------------------------------------------


def test_compensations_run_last_first_when_the_execution_fails(lab):
    """R27."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        for what in ("hotel", "flight", "car"):
            await with_compensation(note(what), undo)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip]):
            with pytest.raises(Defect, match="no visa"):
                await lab.result(await trip.start("k"))
            assert done == ["hotel", "flight", "car", "undo car", "undo flight", "undo hotel"]

    lab.run(main)


def test_compensations_run_one_at_a_time(lab):
    """R27: also those of steps that ran side by side; the next begins when the one before has ended."""
    gate = Gate()
    begun: list[str] = []

    @activity
    async def undo_slowly(what: str) -> None:
        begun.append(what)
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        steps = [with_compensation(note(what), lambda value, cause: undo_slowly(value)) for what in "abc"]
        await asyncio.gather(*steps)
        raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            assert len(begun) == gate.entered == 1
            gate.open()
            with pytest.raises(Defect):
                await lab.result(handle)
            assert sorted(begun) == ["a", "b", "c"]

    lab.run(main)


def test_a_compensation_gets_the_value_and_the_cause(lab):
    """R27."""
    seen: list[Any] = []

    async def undone(value: str, cause: Cause) -> None:
        seen.append((value, cause))
        await note("undone")

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), undone)
        raise Declined(code=3)

    async def main():
        async with lab.engine([trip]):
            with pytest.raises(Declined):
                await lab.result(await trip.start("k"))
            assert seen
            # Once more on every replay, and always the same.
            assert all(one == ("seat", Cause.fail(Declined(code=3))) for one in seen)

    lab.run(main)


def test_an_execution_that_succeeds_has_nothing_undone(lab):
    """R27."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        return await with_compensation(note("seat"), undo)

    async def main():
        async with lab.engine([trip]):
            assert await lab.result(await trip.start("k")) == "seat"
            assert done == ["seat"]

    lab.run(main)


def test_an_error_that_the_body_catches_has_nothing_undone(lab):
    """R27."""

    @activity(error=Declined)
    async def decline() -> None:
        raise Declined(code=1)

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        await with_compensation(note("seat"), undo)
        try:
            await decline()
        except Declined:
            return "without a car"
        return "?"

    async def main():
        async with lab.engine([trip]):
            assert await lab.result(await trip.start("k")) == "without a car"
            assert done == ["seat"]

    lab.run(main)


def test_a_step_that_failed_is_not_undone(lab):
    """R27: it registers when it has succeeded."""

    @activity(error=Declined)
    async def decline() -> None:
        raise Declined(code=1)

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), undo)
        await with_compensation(decline(), lambda value, cause: note("undo what never was"))

    async def main():
        async with lab.engine([trip]):
            with pytest.raises(Declined):
                await lab.result(await trip.start("k"))
            assert done == ["seat", "undo seat"]

    lab.run(main)


def test_nothing_is_undone_when_it_is_suspended_evicted_stopped_or_crashed(lab):
    """R6, R27: none of them is an end."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        async def on_exit(exit: Exit[Any]) -> None:
            await note("finalized")

        await add_finalizer(on_exit)
        await with_compensation(note("seat"), undo)
        await sleep("2 hours")
        await sleep("10 seconds")
        await sleep("2 hours")
        return "arrived"

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.skip("1 hour")
        async with lab.doomed([trip]) as engine:
            await lab.skip("1 hour")
            assert (await engine.describe(handle.execution_id)).status is Status.RUNNING
        async with lab.engine([trip]):
            assert done == ["seat"]
            assert await lab.result(trip.handle(handle.execution_id)) == "arrived"
            assert done == ["seat", "finalized"]

    lab.run(main)


def test_finalizers_and_compensations_form_one_stack(lab):
    """R27: the last registered runs first, whichever it is."""

    def finalizer(name: str) -> Callable[[Exit[Any]], Awaitable[object]]:
        return lambda _: note(f"final {name}")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await add_finalizer(finalizer("1"))
        await with_compensation(note("2"), undo)
        await add_finalizer(finalizer("3"))
        await with_compensation(note("4"), undo)
        if key == "fails":
            raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            with pytest.raises(Defect):
                await lab.result(await trip.start("fails"))
            assert done == ["2", "4", "undo 4", "final 3", "undo 2", "final 1"]
            done.clear()
            await lab.result(await trip.start("succeeds"))
            assert done == ["2", "4", "final 3", "final 1"]

    lab.run(main)


@pytest.mark.parametrize("way", ["value", "declared", "defect", "interrupt"])
def test_a_finalizer_sees_the_exit(lab, way):
    """R27: as it will be recorded."""
    seen: list[Exit[Any]] = []

    async def on_exit(exit: Exit[Any]) -> None:
        seen.append(exit)
        await note("finalized")

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> str:
        await add_finalizer(on_exit)
        match key:
            case "declared":
                raise Declined(code=2)
            case "defect":
                raise RuntimeError("a bug")
            case "interrupt":
                await Never
        return key

    async def main():
        async with lab.engine([work]):
            handle = await work.start(way)
            await lab.settle()
            if way == "interrupt":
                await handle.interrupt()
                await lab.settle()
            polled = await handle.poll()
            assert isinstance(polled, Complete)
            assert seen
            assert {repr(told) for told in seen} == {repr(polled.exit)}
            assert done == ["finalized"]

    lab.run(main)


def test_the_result_is_not_there_before_the_finalizers_have_ended(lab):
    """R27: the end comes after them."""
    gate = Gate()

    @activity
    async def tidy_up() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        async def on_exit(exit: Exit[Any]) -> None:
            await sleep("1 hour")
            await tidy_up()

        await add_finalizer(on_exit)
        return "result"

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            await lab.skip("1 hour")
            assert await handle.status() is Status.RUNNING
            gate.open()
            assert await lab.result(handle) == "result"

    lab.run(main)


def test_a_finalizer_may_register_what_comes_after_it(lab):
    """R27: it is a part of the execution like any other."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        async def on_exit(exit: Exit[Any]) -> None:
            await note("opened")
            await add_finalizer(lambda _: note("closed"))
            await note("closing")

        await add_finalizer(lambda _: note("last"))
        await add_finalizer(on_exit)
        raise RuntimeError

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Defect):
                await lab.result(await work.start("k"))
            assert done == ["opened", "closing", "closed", "last"]

    lab.run(main)


@pytest.mark.parametrize("where", ["compensation", "finalizer"])
def test_nothing_is_registered_to_be_undone_while_an_execution_is_being_undone(lab, where):
    """R27: it would be undone next, with nothing gone wrong; the step is not made, and mended code goes on."""
    broken = [True]

    async def again(*_: object) -> None:
        if broken:
            await with_compensation(note("again"), undo)
        else:
            await note("again")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        if where == "finalizer":
            await add_finalizer(again)
        else:
            await with_compensation(note("seat"), again)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert info.held == "COMPENSATION"
            assert "UsageError: with_compensation() in a compensation" in str(info.cause)
            assert "again" not in done
            broken.clear()
            await handle.resume()
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == (["again"] if where == "finalizer" else ["seat", "again"])

    lab.run(main)


def test_a_compensation_may_do_all_that_a_body_may(lab):
    """R27, R28: sleep, wait, have children, catch errors, work side by side, retry."""
    tries: list[int] = []

    @activity(error=Declined, retry=Schedule.spaced("2 hours").times(3))
    async def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Declined(code=len(tries))
        return "at last"

    @workflow(idempotency_key=lambda key: key)
    async def refund(key: str) -> str:
        return await note(f"refund {key}")

    async def undone(value: str, cause: Cause) -> None:
        await sleep("1 day")
        try:
            async with asyncio.timeout(3600):
                await Never
        except TimeoutError:
            await asyncio.gather(note("a"), note("b"))
        await note(await flaky())
        await refund.execute("k")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), undone)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip, refund]):
            with pytest.raises(Defect, match="no visa"):
                await lab.result(await trip.start("k"))
            assert done[0] == "seat"
            assert sorted(done[1:3]) == ["a", "b"]
            assert done[3:] == ["at last", "refund k"]
            assert len(tries) == 3

    lab.run(main)


def test_any_awaitable_can_be_compensated(lab):
    """R27: a coroutine of steps, a child; undone when the whole of it has succeeded."""

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> str:
        return await note(f"child {key}")

    async def several(key: str) -> str:
        return await note(f"first {key}") + await note("second")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(several(key), lambda value, cause: note(f"undo {value}"))
        await with_compensation(child.execute(key), undo)
        raise RuntimeError

    async def main():
        async with lab.engine([trip, child]):
            with pytest.raises(Defect):
                await lab.result(await trip.start("k"))
            assert done == ["first k", "second", "child k", "undo child k", "undo first ksecond"]

    lab.run(main)


def test_a_retried_step_can_be_compensated(lab):
    """R27: undone once, with the value of the attempt that succeeded."""
    tries: list[int] = []

    @activity(error=Declined)
    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise Declined(code=0)
        return len(tries)

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        again = retry(flaky(), Schedule.spaced("1 hour").times(5))
        await with_compensation(again, lambda value, cause: note(f"undo {value}"))
        raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            with pytest.raises(Defect):
                await lab.result(await trip.start("k"))
            assert done == ["undo 3"]

    lab.run(main)


def test_an_activity_has_nothing_to_register_with(lab):
    """R15: nothing would remember it."""

    @activity
    async def registers() -> str:
        try:
            await with_compensation(note("seat"), undo)
        except OutsideExecutionError:
            return "refused"
        return "?"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await registers()

    async def main():
        async with lab.engine([work]):
            assert await lab.result(await work.start("k")) == "refused"

    lab.run(main)


def test_what_is_to_be_undone_is_listed(lab):
    """R33: the next one first, while it waits, while it undoes, not when it has ended."""
    gate = Gate()

    @activity
    async def give_back(what: str) -> None:
        await gate.wait()

    @activity(name="Hotel")
    async def hotel() -> str:
        return "hotel"

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(hotel(), lambda value, cause: give_back(value))
        await with_compensation(note("car"), lambda value, cause: give_back(value))
        await sleep("1 day")
        raise RuntimeError

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).compensations == ("note", "Hotel")
            await lab.skip("1 day")
            gate.open()
            with pytest.raises(Defect):
                await lab.result(handle)
            assert (await engine.describe(handle.execution_id)).compensations == ()

    lab.run(main)


# Steps that are not cut in half ----------------------------------------------------------------------------------


class Slow:
    """An activity that stands at a gate, and says how it was let out."""

    def __init__(self, end: Callable[[], Any] = lambda: "seat", **options: Any) -> None:
        self.gate = Gate()
        self.ends: list[str] = []

        @activity(name="slow", error=Declined, **options)
        async def slow() -> str:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.ends.append("cut")
                raise
            self.ends.append("by itself")
            return end()

        self.step = slow


def test_an_interrupt_does_not_cut_a_step_with_compensation(lab):
    """R27: it ends by itself, is recorded, is undone; the end comes after it."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("first"), undo)
        await with_compensation(slow.step(), undo)

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            assert (slow.ends, done) == ([], ["first"])
            slow.gate.open()
            assert (await fails(lab, handle)).cause == Cause.interrupt()
            assert slow.ends == ["by itself"]
            assert done == ["first", "undo seat", "undo first"]
            recorded = [entry for entry in await engine.journal(handle.execution_id) if entry.name == "slow"]
            assert [entry.exit for entry in recorded] == [Success("seat")]

    lab.run(main)


def test_an_interrupt_cuts_a_step_without_compensation(lab):
    """R29: what runs beside it is."""
    guarded, plain = Slow(), Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        other = plain.step.options(name="plain")
        await asyncio.gather(with_compensation(guarded.step(), undo), other())

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert (guarded.ends, plain.ends) == ([], ["cut"])
            guarded.gate.open()
            await fails(lab, handle)
            assert done == ["undo seat"]

    lab.run(main)


def test_a_timeout_does_not_cut_a_step_with_compensation(lab):
    """R27: the body goes on at once; if it succeeds nothing is undone, but the step has ended before."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        try:
            async with asyncio.timeout(10):
                await with_compensation(slow.step(), undo)
        except TimeoutError:
            await note("gave up")
        if key == "fails":
            raise RuntimeError
        return "walked"

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("succeeds")
            await lab.skip("1 minute")
            assert done == ["gave up"]
            assert await handle.status() is Status.RUNNING
            failing = await trip.start("fails")
            await lab.skip("1 minute")
            slow.gate.open()
            assert await lab.result(handle) == "walked"
            await fails(lab, failing)
            assert done == ["gave up", "gave up", "undo seat"]
            assert slow.ends == ["by itself", "by itself"]
            names = [entry.name for entry in await engine.journal(handle.execution_id) if entry.kind == "activity"]
            assert names == ["note", "slow"]

    lab.run(main)


def test_a_lost_race_does_not_cut_a_step_with_compensation(lab):
    """R21, R27."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        won = await race_all("first", [with_compensation(slow.step(), undo), note("quick")])
        await note(f"won {won}")
        raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            assert done == ["quick", "won quick"]
            slow.gate.open()
            await fails(lab, handle)
            assert (slow.ends, done[2:]) == (["by itself"], ["undo seat"])

    lab.run(main)


def test_a_deadline_does_not_cut_a_step_with_compensation(lab):
    """R27, R44."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo)

    async def main():
        async with lab.engine([trip]):
            handle = await trip.options(deadline="1 hour").start("k")
            await lab.skip("2 hours")
            assert (slow.ends, await handle.status()) == ([], Status.RUNNING)
            slow.gate.open()
            await fails(lab, handle)
            assert (slow.ends, done) == (["by itself"], ["undo seat"])

    lab.run(main)


def test_a_function_on_a_thread_is_waited_for_as_well(lab):
    """R12, R27."""
    gate = ThreadGate()

    @activity
    def slow() -> str:
        gate.wait()
        return "seat"

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow(), undo)

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await gate.reached()
            await handle.interrupt()
            await lab.settle()
            assert done == []
            gate.open()
            await fails(lab, handle)
            assert done == ["undo seat"]

    lab.run(main)


def test_a_late_step_is_undone_where_its_call_stood(lab):
    """R27: before what was registered ahead of it, behind what was registered after."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("before"), undo)
        late = asyncio.create_task(with_compensation(slow.step(), undo))
        await asyncio.sleep(0)
        await with_compensation(note("after"), undo)
        late.cancel()
        await with_compensation(note("last"), undo)
        raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            assert done == ["before", "after", "last"]
            slow.gate.open()
            await fails(lab, handle)
            assert done[3:] == ["undo last", "undo after", "undo seat", "undo before"]

    lab.run(main)


def test_a_late_step_that_fails_is_not_undone(lab):
    """R27: and its retries are not made any more."""

    def decline() -> None:
        raise Declined(code=1)

    slow = Slow(decline, retry=Schedule.spaced("1 second").times(5))

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo, unknown=lambda cause: note("looked"))

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            slow.gate.open()
            assert (await fails(lab, handle)).cause == Cause.interrupt()
            assert (slow.ends, done) == (["by itself"], [])

    lab.run(main)


def test_a_step_that_waits_for_its_next_attempt_is_given_up_at_once(lab):
    """R27: there is no attempt that could be cut in half."""
    tries: list[int] = []

    @activity(error=Declined, retry=Schedule.spaced("1 hour").times(5))
    async def flaky() -> None:
        tries.append(1)
        raise Declined(code=1)

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(flaky(), lambda value, cause: note("undone"))

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await handle.status() is Status.INTERRUPTED
            await lab.skip("3 hours")
            assert (tries, done) == ([1], [])

    lab.run(main)


def test_a_step_with_compensation_is_ended_by_its_own_timeout(lab):
    """R27: at most so long is it waited for."""
    slow = Slow(timeout="5 minutes")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo)

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.skip("4 minutes")
            assert await handle.status() is Status.RUNNING
            await lab.skip("1 minute")
            assert await handle.status() is Status.INTERRUPTED
            assert (slow.ends, done) == (["cut"], [])

    lab.run(main)


def test_a_step_that_ends_in_the_turn_of_the_interrupt_is_undone(lab):
    """R27: its value was on its way to a body that has been cancelled."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo)
        await Never

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            # Both have come when the next turn is taken.
            kept = lab.probe(engine).hold("load")
            await handle.interrupt()
            slow.gate.open()
            await lab.settle()
            kept.release()
            await fails(lab, handle)
            assert (slow.ends, done) == (["by itself"], ["undo seat"])

    lab.run(main)


def test_a_worker_that_crashes_while_such_a_step_runs_runs_it_again_and_undoes_it(lab):
    """R27, R28: the interrupt is recorded, and still the attempt has to be known to have ended."""
    slow = Slow()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo)

    async def main():
        async with lab.doomed([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
        slow.gate.open()
        async with lab.engine([trip]):
            await fails(lab, trip.handle(handle.execution_id))
            assert (slow.ends, done) == (["cut", "by itself"], ["undo seat"])

    lab.run(main)


# Steps of which nobody knows ---------------------------------------------------------------------------------------


def test_unknown_is_called_where_the_last_attempt_ended_without_an_answer(lab):
    """R27: a timeout; with the cause, and instead of the compensation."""
    slow = Slow(timeout="1 minute")
    causes: list[Cause] = []

    async def look(cause: Cause) -> None:
        causes.append(cause)
        await note("looked")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo, unknown=look)

    async def main():
        async with lab.engine([trip]):
            exit_ = await fails(lab, await trip.start("k"))
            assert isinstance(exit_.cause.reasons[0], Fail)
            assert isinstance(exit_.cause.reasons[0].error, ActivityTimeout)
            assert done == ["looked"]
            assert causes
            assert all(repr(cause) == repr(exit_.cause) for cause in causes)

    lab.run(main)


def test_unknown_is_called_for_an_at_most_once_step_that_a_crash_cut_off(lab):
    """R27, R50."""
    gate = Gate()

    @activity(delivery="at_most_once")
    async def pay() -> str:
        await gate.wait()
        return "paid"

    @workflow(idempotency_key=lambda key: key)
    async def order(key: str) -> None:
        await with_compensation(pay(), undo, unknown=lambda cause: note("looked"))

    async def main():
        async with lab.doomed([order]):
            handle = await order.start("k")
            await lab.settle()
        async with lab.engine([order]):
            exit_ = await fails(lab, order.handle(handle.execution_id))
            assert isinstance(exit_.cause.reasons[0], Fail)
            assert isinstance(exit_.cause.reasons[0].error, OutcomeUnknown)
            assert (gate.entered, done) == (1, ["looked"])

    lab.run(main)


def test_unknown_is_called_for_a_step_that_times_out_after_an_interrupt(lab):
    """R27: nobody awaits it any more, and still it has to be looked after."""
    slow = Slow(timeout="1 minute")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(slow.step(), undo, unknown=lambda cause: note("looked"))

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            assert (await fails(lab, handle)).cause == Cause.interrupt()
            assert done == ["looked"]

    lab.run(main)


@pytest.mark.parametrize("way", ["success", "declared"])
def test_unknown_is_not_called_where_there_was_an_answer(lab, way):
    """R27."""

    @activity(error=Declined)
    async def answers() -> str:
        if way == "declared":
            raise Declined(code=1)
        return "seat"

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def trip(key: str) -> None:
        await with_compensation(answers(), undo, unknown=lambda cause: note("looked"))
        raise RuntimeError

    async def main():
        async with lab.engine([trip]):
            await fails(lab, await trip.start("k"))
            assert done == (["undo seat"] if way == "success" else [])

    lab.run(main)


def test_unknown_is_not_called_where_the_body_goes_on_and_succeeds(lab):
    """R27: like a compensation, only when the execution as a whole fails."""
    slow = Slow(timeout="1 minute")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        try:
            await with_compensation(slow.step(), undo, unknown=lambda cause: note("looked"))
        except ActivityTimeout:
            return "walked"
        return "?"

    async def main():
        async with lab.engine([trip]):
            assert await lab.result(await trip.start("k")) == "walked"
            assert done == []

    lab.run(main)


# Durable, and held when they fail -----------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def saga(key: str) -> None:
    await add_finalizer(lambda _: note(f"{key}: final"))
    for what in "ab":
        await with_compensation(note(f"{key}: {what}"), undo_thoroughly)
    await sleep("2 hours")
    raise RuntimeError("at last")


async def undo_thoroughly(what: str, cause: Cause) -> None:
    await undo(what)
    await sleep("2 hours")
    await note(f"sure {what}")


def test_a_worker_that_dies_at_any_commit_of_a_saga_leaves_it_to_the_next_one(memory_lab):
    """R28: durable, replayed, each activity recorded once."""
    lab = memory_lab

    async def check(engine, key, came_to):
        assert isinstance(came_to, Defect)
        journal = [entry for entry in await engine.journal(saga.execution_id(key)) if entry.kind == "activity"]
        undone = [f"{step} {key}: {what}" for what in "ba" for step in ("undo", "sure")]
        wanted = [f"{key}: a", f"{key}: b", *undone, f"{key}: final"]
        assert [entry.exit for entry in journal] == [Success(what) for what in wanted]
        mine = [what for what in done if key in what]
        assert list(dict.fromkeys(mine)) == wanted

    async def main():
        assert await died_at_each_commit(lab, [saga], saga.execute, check) >= 8

    lab.run(main)


class Stubborn:
    """A compensation of two steps, of which the second fails until it is mended."""

    def __init__(self) -> None:
        self.broken = True
        self.tries = 0

        @activity(error=Declined, retry=Schedule.spaced("1 second").times(2))
        async def give_back(what: str) -> str:
            self.tries += 1
            if self.broken:
                raise Declined(code=self.tries)
            return await _noted(f"gave back {what}")

        async def undone(value: str, cause: Cause) -> None:
            await note(f"begin {value}")
            await give_back(value)
            await note(f"end {value}")

        @workflow(idempotency_key=lambda key: key)
        async def trip(key: str) -> None:
            await add_finalizer(lambda _: note("final"))
            await with_compensation(note("a"), undo)
            await with_compensation(note("b"), undone)
            raise RuntimeError("no visa")

        self.trip = trip


async def _noted(what: str) -> str:
    done.append(what)
    return what


def test_a_compensation_that_keeps_failing_holds_the_execution(lab):
    """R28: after its own retries, with its own error as the cause; nothing more is undone."""
    stubborn = Stubborn()

    async def main():
        async with lab.engine([stubborn.trip]) as engine:
            handle = await stubborn.trip.start("k")
            await lab.skip("1 minute")
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held, stubborn.tries) == (Status.SUSPENDED, "COMPENSATION", 3)
            assert "Declined" in str(info.cause)
            assert done == ["a", "b", "begin b"]
            await lab.skip("30 days")
            assert (await handle.status(), stubborn.tries) == (Status.SUSPENDED, 3)

    lab.run(main)


def test_a_held_compensation_goes_on_where_it_failed_when_it_is_resumed(lab):
    """R28: what succeeded in it does not run again, what failed does, once; and the result is the body's failure."""
    stubborn = Stubborn()

    async def main():
        async with lab.engine([stubborn.trip]) as engine:
            handle = await stubborn.trip.start("k")
            await lab.skip("1 minute")
            await handle.resume()
            await lab.skip("1 minute")
            assert (await engine.describe(handle.execution_id)).held == "COMPENSATION"
            # Its retries were used up before: a resume is one more attempt.
            assert (stubborn.tries, done) == (4, ["a", "b", "begin b"])
            stubborn.broken = False
            await handle.resume()
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["a", "b", "begin b", "gave back b", "end b", "undo a", "final"]

    lab.run(main)


def test_a_held_compensation_is_resumed_after_a_crash(lab):
    """R28."""
    stubborn = Stubborn()

    async def main():
        async with lab.doomed([stubborn.trip]):
            handle = await stubborn.trip.start("k")
            await lab.skip("1 minute")
        stubborn.broken = False
        async with lab.engine([stubborn.trip]) as engine:
            await lab.skip("1 minute")
            assert (await engine.describe(handle.execution_id)).held == "COMPENSATION"
            await engine.resume(handle.execution_id)
            with pytest.raises(Defect, match="no visa"):
                await lab.result(stubborn.trip.handle(handle.execution_id))
            assert done == ["a", "b", "begin b", "gave back b", "end b", "undo a", "final"]

    lab.run(main)


def test_an_operator_skips_the_compensation_that_holds_it(lab):
    """R28: only that one; the others and the finalizers run."""
    stubborn = Stubborn()

    async def main():
        async with lab.engine([stubborn.trip]) as engine:
            handle = await stubborn.trip.start("k")
            await lab.skip("1 minute")
            await engine.resume(handle.execution_id, skip=True)
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["a", "b", "begin b", "undo a", "final"]
            assert stubborn.tries == 3

    lab.run(main)


def test_a_skipped_compensation_stays_skipped_after_a_restart(lab):
    """R28: the decision is in the journal."""
    stubborn = Stubborn()
    gate = Gate()

    @activity
    async def linger() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), lambda value, cause: linger())

        async def fail(value: str, cause: Cause) -> None:
            await note("begin")
            raise RuntimeError("a bug")

        await with_compensation(note("b"), fail)
        raise RuntimeError("no visa")

    async def main():
        async with lab.doomed([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "COMPENSATION"
            await engine.resume(handle.execution_id, skip=True)
            await lab.settle()
            assert gate.entered == 1
        gate.open()
        async with lab.engine([trip]):
            with pytest.raises(Defect, match="no visa"):
                await lab.result(trip.handle(handle.execution_id))
            assert (done, stubborn.tries) == (["a", "b", "begin"], 0)

    lab.run(main)


def test_the_code_of_a_compensation_may_be_mended_while_it_is_held(lab):
    """R28: a defect of the compensation itself, which no retry would mend."""
    broken = [True]

    async def fragile(value: str, cause: Cause) -> None:
        await note("begin")
        if broken:
            raise RuntimeError("a bug")
        await note("end")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), fragile)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert info.held == "COMPENSATION"
            assert "a bug" in str(info.cause)
            broken.clear()
            await handle.resume()
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["a", "begin", "end"]

    lab.run(main)


@pytest.mark.parametrize("where", ["behind", "inside"])
def test_what_a_compensation_failed_with_is_done_again_when_it_is_resumed(lab, where):
    """R28: also the error out of which it arose; but not one that had been dealt with."""
    tries: list[str] = []
    broken = [True]

    @activity(error=Declined)
    async def refuse(what: str) -> None:
        tries.append(what)
        if what == "caught" or broken:
            raise Declined(code=1)

    async def undone(value: str, cause: Cause) -> None:
        try:
            await refuse("caught")
        except Declined:
            if where == "inside":
                await refuse("let out")
        if where == "behind":
            await refuse("let out")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), undone)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            assert tries == ["caught", "let out"]
            broken.clear()
            await handle.resume()
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            again = ["let out"] if where == "behind" else ["caught", "let out"]
            assert tries[2:] == again

    lab.run(main)


def test_a_finalizer_that_fails_holds_a_success_too(lab):
    """R28: the result is not lost; it is there when the finalizer has been mended or skipped."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        async def on_exit(exit: Exit[Any]) -> None:
            if broken:
                raise RuntimeError("a bug")
            await note("finalized")

        await add_finalizer(on_exit)
        return key

    async def main():
        async with lab.engine([work]) as engine:
            mended, skipped = await work.start("mended"), await work.start("skipped")
            await lab.settle()
            assert (await engine.describe(mended.execution_id)).held == "COMPENSATION"
            await engine.resume(skipped.execution_id, skip=True)
            assert await lab.result(skipped) == "skipped"
            broken.clear()
            await mended.resume()
            assert await lab.result(mended) == "mended"
            assert done == ["finalized"]

    lab.run(main)


def test_an_interrupt_does_nothing_to_an_execution_that_a_compensation_holds(lab):
    """R28, R29, R44: its body has ended; nor does a deadline. Neither is a resume, which would make the step again."""
    stubborn = Stubborn()

    async def main():
        async with lab.engine([stubborn.trip]) as engine:
            handle = await stubborn.trip.options(deadline="1 hour").start("k")
            await lab.skip("1 minute")
            for _ in range(2):
                await handle.interrupt()
                await lab.skip("1 hour")
                assert (await engine.describe(handle.execution_id)).held == "COMPENSATION"
                assert stubborn.tries == 3
            stubborn.broken = False
            await handle.resume()
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done[-2:] == ["undo a", "final"]

    lab.run(main)


@activity(error=Declined)
async def refuse(what: str) -> None:
    done.append(f"refuse {what}")
    raise Declined(code=1)


async def waits_for_nothing(value: str, cause: Cause) -> None:
    await note(f"begin {value}")
    await asyncio.Event().wait()


async def fails_for_good(value: str, cause: Cause) -> None:
    await note(f"begin {value}")
    await refuse(value)


@pytest.mark.parametrize("undone", [waits_for_nothing, fails_for_good])
def test_whatever_keeps_a_compensation_from_its_end_may_be_passed_over(lab, undone):
    """R28: it waits for nothing that could come, or an activity of it holds what is held by every failure (R5, R36)."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True, error=Declined)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), undo)
        await with_compensation(note("b"), undone)
        await with_compensation(note("c"), undone)
        await Never

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            for what, left in (("c", 3), ("b", 2)):
                await lab.settle()
                for way in ("nothing", "interrupt", "resume"):
                    info = await engine.describe(handle.execution_id)
                    assert (info.held, len(info.compensations)) == ("COMPENSATION", left)
                    assert ("waits for nothing" if undone is waits_for_nothing else "Declined") in str(info.cause)
                    tried = done.count(f"refuse {what}")
                    if way == "interrupt":
                        await handle.interrupt()
                    elif way == "resume":
                        await handle.resume()
                    await lab.settle()
                    again = way == "resume" and undone is fails_for_good
                    assert done.count(f"refuse {what}") == tried + again
                    assert done.count(f"begin {what}") == 1
                await engine.resume(handle.execution_id, skip=True)
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done[:3] == ["a", "b", "c"]
            assert done[-1] == "undo a"

    lab.run(main)


def test_each_compensation_of_a_fork_can_be_passed_over_whatever_was_in_its_original(lab):
    """R28, R49: the letters of its original are there already, and it is held as often under the same fences."""

    async def refuses(value: str, cause: Cause) -> None:
        await note(f"refuse {value}")
        raise Declined(code=1)

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def trip(key: str) -> None:
        for what in "abc":
            await with_compensation(note(what), refuses)
        raise Declined(code=2)

    async def pass_over(engine, handle) -> list[int]:
        lengths = []
        await lab.settle()
        while (info := await engine.describe(handle.execution_id)).held == "COMPENSATION":
            assert "Declined" in str(info.cause)
            lengths.append(len(await engine.journal(handle.execution_id)))
            await handle.resume(skip=True)
            await lab.settle()
        with pytest.raises(Declined):
            await lab.result(handle)
        return lengths

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            lengths = await pass_over(engine, handle)
            assert len(lengths) == 3
            for at in lengths:
                forked = trip.handle(await engine.fork(handle.execution_id, at=at, compensations=True))
                held = await pass_over(engine, forked)
                kinds = [entry.kind for entry in await engine.journal(forked.execution_id)]
                assert kinds.count("skip") == 3
                assert len(held) == len([one for one in lengths if one >= at])

    lab.run(main)


def test_a_child_that_failed_in_a_compensation_is_asked_again_by_a_rewind(lab):
    """R28, R37: a resume does not, since its end is known; the life that goes on in front of that end restarts it."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key)
    async def refund(key: str) -> None:
        await note("refund")
        if broken:
            raise RuntimeError("closed")

    async def undone(value: str, cause: Cause) -> None:
        await note("begin")
        await refund.execute(value)
        await note("end")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), undo)
        await with_compensation(note("b"), undone)
        raise RuntimeError("no visa")

    async def main():
        async with lab.engine([trip, refund]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            await handle.resume()
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.held, done) == ("COMPENSATION", ["a", "b", "begin", "refund"])
            assert "rewind" in await handle.explain()
            broken.clear()
            [end] = [entry for entry in await engine.journal(handle.execution_id) if entry.kind == "child"]
            await engine.rewind(handle.execution_id, to=end.seq - 1)
            with pytest.raises(Defect, match="no visa"):
                await lab.result(handle)
            assert done == ["a", "b", "begin", "refund", "refund", "end", "undo a"]

    lab.run(main)


def test_skip_passes_over_nothing_where_no_compensation_holds_it(lab):
    """R28: it is a resume like any other."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def work(key: str) -> str:
        await with_compensation(note("a"), undo)
        if broken:
            raise RuntimeError("a bug")
        return "mended"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            broken.clear()
            await engine.resume(handle.execution_id, skip=True)
            assert await lab.result(handle) == "mended"
            assert done == ["a"]

    lab.run(main)


# Scopes ----------------------------------------------------------------------------------------------------------------


def test_a_scope_is_closed_when_the_execution_ends(lab):
    """R27: from the inside, not where a block is left, and not on suspension."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        stack = scope()
        stack.push_async_callback(note, "outer")
        stack.push_async_callback(note, "inner")
        await note("in")
        await sleep("2 hours")
        return "done"

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("1 hour")
            assert done == ["in"]
            assert await lab.result(handle) == "done"
            assert done == ["in", "inner", "outer"]

    lab.run(main)


def test_a_scope_stands_on_the_stack_where_it_was_made(lab):
    """R27."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(note("a"), undo)
        stack = scope()
        await with_compensation(note("b"), undo)
        stack.push_async_callback(note, "scope")
        raise RuntimeError

    async def main():
        async with lab.engine([work]):
            await fails(lab, await work.start("k"))
            assert done == ["a", "b", "undo b", "scope", "undo a"]

    lab.run(main)


def test_the_resources_of_a_scope_see_what_the_execution_failed_with(lab):
    """R27: as a block would; what they suppress stays the result."""
    seen: list[Any] = []

    class Resource:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, _: object, error: BaseException | None, __: object) -> bool:
            seen.append(error)
            await note("closed")
            return True

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> None:
        await scope().enter_async_context(Resource())
        if key == "fails":
            raise Declined(code=5)

    async def main():
        async with lab.engine([work]):
            await lab.result(await work.start("succeeds"))
            assert set(seen) == {None}
            seen.clear()
            with pytest.raises(Declined):
                await lab.result(await work.start("fails"))
            assert all(error == Declined(code=5) for error in seen)
            assert done == ["closed", "closed"]

    lab.run(main)


def test_the_cause_of_an_interrupted_execution_is_the_interrupt(lab):
    """R27, R29."""
    causes: list[Cause] = []

    async def undone(value: str, cause: Cause) -> None:
        causes.append(cause)
        await note("undone")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("a"), undone)
        await Never

    async def main():
        async with lab.engine([trip]):
            handle = await trip.start("k")
            await lab.settle()
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(handle)
            assert done == ["a", "undone"]
            assert all(cause.reasons == (Interrupt(),) for cause in causes)

    lab.run(main)
