"""Retries: counted across crashes, their delays durable, and decided once (R11, R13)."""

import asyncio
from itertools import pairwise

import pytest

from perdure import (
    ActivityTimeout,
    Defect,
    PerdureError,
    RetryAfter,
    Schedule,
    Status,
    TypedError,
    activity,
    current_attempt,
    retry,
    workflow,
)

from tests.engine.lab import Gate


class Flaky(TypedError):
    attempt: int = 0
    transient: bool = True


@pytest.fixture
def log_of_attempts():
    """(attempt, milliseconds since the first) of each attempt, as `note` was called."""
    return []


def noter(lab, attempts):
    def note() -> int:
        attempts.append((current_attempt(), lab.clock.now() - noted_from[0]))
        return current_attempt()

    noted_from = [lab.clock.now()]
    return note


def test_attempts_follow_their_schedule(lab):
    """R11: 1, 2, 3 …, each with its delay, and the last error surfaces."""
    attempts = []
    note = noter(lab, attempts)

    @activity(error=Flaky, retry=Schedule.exponential("1 second", factor=3, max="20 seconds").times(4))
    async def act() -> None:
        raise Flaky(attempt=note())

    @workflow(idempotency_key=lambda key: key, error=Flaky)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(Flaky) as last:
                await lab.finish(work.execute("k"))
            assert last.value.attempt == 5
            assert attempts == [(1, 0), (2, 1_000), (3, 4_000), (4, 13_000), (5, 33_000)]
            journal = await engine.journal(work.execution_id("k"))
            assert [(entry.attempt, entry.retry_at is None) for entry in journal] == [
                (1, False), (2, False), (3, False), (4, False), (5, True),
            ]  # fmt: skip

    lab.run(main)


def test_without_a_schedule_there_is_one_attempt(lab):
    """API 3; `.times(0)` is the same, and `options(retry=None)` takes a schedule away."""
    attempts = []

    @activity
    async def once() -> None:
        attempts.append("once")
        raise RuntimeError

    @activity(retry=Schedule.spaced("1 second").times(0))
    async def zero() -> None:
        attempts.append("zero")
        raise RuntimeError

    @activity(retry=Schedule.spaced("1 second").times(5))
    async def five() -> None:
        attempts.append("five")
        raise RuntimeError

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        for step in (once, zero, five.options(retry=None)):
            with pytest.raises(Defect):
                await step()

    async def main():
        async with lab.engine([work]):
            await lab.finish(work.execute("k"))
        assert attempts == ["once", "zero", "five"]

    lab.run(main)


def test_a_crash_between_attempts_goes_on_counting(lab):
    """R11: also a second crash, and one in the middle of an attempt, which counts for nothing."""
    attempts = []
    note = noter(lab, attempts)
    gate = Gate()

    @activity(error=Flaky, retry=Schedule.spaced("10 seconds").times(3))
    async def act() -> None:
        attempt = note()
        if attempt == 2 and not gate._open.is_set():
            await gate.wait()
        raise Flaky(attempt=attempt)

    @workflow(idempotency_key=lambda key: key, error=Flaky)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
            await lab.skip("4 seconds")
        async with lab.doomed([work]):
            await lab.skip("6 seconds")
            assert gate.entered == 1
        gate.open()
        async with lab.doomed([work]):
            await lab.skip("3 seconds")
        async with lab.engine([work]) as engine:
            with pytest.raises(Flaky) as last:
                await lab.result(work.handle(handle.execution_id))
            assert last.value.attempt == 4
            assert [entry.attempt for entry in await engine.journal(handle.execution_id)] == [1, 2, 3, 4]
        assert attempts == [(1, 0), (2, 10_000), (2, 10_000), (3, 20_000), (4, 30_000)]

    lab.run(main)


def test_a_long_delay_suspends_and_a_short_one_does_not(lab):
    """R11, R5: a delay between attempts is a durable timer, never early."""
    attempts = []
    note = noter(lab, attempts)

    @activity(retry=Schedule.exponential("1 minute", factor=60).times(2))
    async def act() -> int:
        if note() < 3:
            raise RuntimeError("again")
        return current_attempt()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            await lab.skip("1 minute")
            info = await engine.describe(handle.execution_id)
            assert info.status is Status.SUSPENDED
            assert info.wake_at is not None
            assert [(wait.kind, wait.name, wait.due_at) for wait in info.waits] == [("activity", "act", info.wake_at)]
        async with lab.engine([work]):
            await lab.skip("3599999 millis")
            assert len(attempts) == 2
            await lab.skip("1 millis")
            assert await lab.result(work.handle(handle.execution_id)) == 3
        assert attempts == [(1, 0), (2, 60_000), (3, 3_660_000)]

    lab.run(main)


def test_the_recorded_decision_counts_and_not_today_s_policy(lab):
    """R11: a failure that was final stays final, and a next attempt that was due stays due."""
    attempts = []

    def definitions(schedule: Schedule | None):
        @activity(name="Act", error=Flaky, retry=schedule)
        async def act(how: str) -> str:
            attempts.append(how)
            if how == "final" or attempts.count(how) == 1:
                raise Flaky(attempt=current_attempt())
            return how

        @workflow(name="Work", idempotency_key=lambda key: key)
        async def work(key: str) -> str:
            try:
                seen = await act(key)
            except Flaky:
                seen = "failed"
            from perdure import sleep

            await sleep("1 hour")
            return seen

        return work

    async def main():
        with_retries = definitions(Schedule.spaced("1 hour").times(5))
        without = definitions(None)
        async with lab.engine([without]):
            final = await without.start("final")
            await lab.settle()
        async with lab.engine([with_retries]):
            again = await with_retries.start("again")
            await lab.settle()
            assert await lab.result(with_retries.handle(final.execution_id)) == "failed"
        async with lab.engine([without]):
            assert await lab.result(without.handle(again.execution_id)) == "again"
        assert attempts == ["final", "again", "again"]

    lab.run(main)


def test_retry_after_sets_the_next_delay(lab):
    """R11: of the next attempt only, and it needs a schedule that has an attempt left."""
    attempts = []
    note = noter(lab, attempts)

    @activity(retry=Schedule.spaced("1 second").times(3))
    async def act() -> int:
        attempt = note()
        if attempt == 2:
            raise RetryAfter("30 seconds")
        if attempt == 3:
            raise RetryAfter(0)
        if attempt < 4:
            raise RuntimeError("again")
        return attempt

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == 4
        assert attempts == [(1, 0), (2, 1_000), (3, 31_000), (4, 31_000)]

    lab.run(main)


def test_retry_after_without_an_attempt_left_is_a_defect_that_says_so(lab):
    """R11."""

    @activity
    async def never() -> None:
        raise RetryAfter("30 seconds")

    @activity(retry=Schedule.spaced("1 second").times(1))
    async def always() -> None:
        raise RetryAfter("30 seconds")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await (never() if key == "never" else always())

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(Defect, match=r"'never'.*no retry=") as defect:
                await lab.finish(work.execute("never"))
            assert defect.value.type_name == "RetryAfter"
            with pytest.raises(Defect, match="try again in 30 seconds"):
                await lab.finish(work.execute("always"))
            assert [attempt for _, _, attempt in await lab.steps(engine, work.execution_id("always"))] == [1, 2]

    lab.run(main)


def test_while_sees_declared_errors_and_timeouts_only(lab):
    """R11: defects are tried again without it."""
    seen = []
    attempts = []

    @activity(error=Flaky, timeout="5 seconds")
    async def act(how: str) -> str:
        attempts.append(how)
        if attempts.count(how) == 1:
            if how == "declared":
                raise Flaky
            if how == "final":
                raise Flaky(transient=False)
            if how == "slow":
                await Gate().wait()
            if how == "defect":
                raise RuntimeError("wires crossed")
        return how

    def still(error: Flaky | ActivityTimeout) -> bool:
        seen.append(type(error).__name__)
        return getattr(error, "transient", True)

    @workflow(idempotency_key=lambda key: key, error=Flaky)
    async def work(key: str) -> str:
        return await retry(act(key), Schedule.spaced("1 second").times(2), while_=still)

    async def main():
        async with lab.engine([work]):
            for how in ("declared", "slow", "defect"):
                assert await lab.finish(work.execute(how)) == how
            with pytest.raises(Flaky):
                await lab.finish(work.execute("final"))
        assert attempts == ["declared", "declared", "slow", "slow", "defect", "defect", "final"]
        assert seen == ["Flaky", "ActivityTimeout", "Flaky"]

    lab.run(main)


def test_a_predicate_that_raises_means_no_retry(lab):
    """R11: the original error surfaces."""
    attempts = []

    @activity(error=Flaky)
    async def act() -> None:
        attempts.append(1)
        raise Flaky(attempt=7)

    def broken(error: Flaky) -> bool:
        raise KeyError("oops")

    @workflow(idempotency_key=lambda key: key, error=Flaky)
    async def work(key: str) -> None:
        await retry(act(), Schedule.spaced("1 second").times(2), while_=broken)

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Flaky) as original:
                await lab.finish(work.execute("k"))
            assert original.value.attempt == 7
        assert attempts == [1]

    lab.run(main)


def test_error_narrows_what_is_tried_again(lab):
    """R11: `retry(…, error=…)` excludes the rest, defects too."""
    attempts = []

    class Other(TypedError):
        pass

    @activity(error=(Flaky, Other))
    async def act(how: str) -> str:
        attempts.append(how)
        if attempts.count(how) == 1:
            raise {"flaky": Flaky, "other": Other, "defect": RuntimeError}[how]()
        return how

    @workflow(idempotency_key=lambda key: key, error=Other)
    async def work(key: str) -> str:
        return await retry(act(key), Schedule.spaced("1 second").times(2), error=Flaky)

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("flaky")) == "flaky"
            with pytest.raises(Other):
                await lab.finish(work.execute("other"))
            with pytest.raises(Defect):
                await lab.finish(work.execute("defect"))
        assert attempts == ["flaky", "flaky", "other", "defect"]

    lab.run(main)


def test_defects_are_tried_again(lab):
    """R11: unless excluded."""
    attempts = []

    @activity(retry=Schedule.recurs(2))
    def act() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        return len(attempts)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == 3

    lab.run(main)


def test_total_timeout_bounds_all_attempts_together(lab):
    """R11: no attempt begins after it, and a running one ends with it; counted on across a restart."""
    attempts = []
    note = noter(lab, attempts)
    gate = Gate()

    @activity(error=Flaky, retry=Schedule.spaced("10 seconds"), total_timeout="25 seconds")
    async def fails() -> None:
        raise Flaky(attempt=note())

    @activity(retry=Schedule.spaced("10 seconds"), total_timeout="25 seconds")
    async def hangs() -> None:
        if note() == 3:
            await gate.wait()
        raise RuntimeError("again")

    @workflow(idempotency_key=lambda key: key, error=Flaky)
    async def work(key: str) -> None:
        await (fails() if key == "fails" else hangs())

    async def main():
        async with lab.engine([work]):
            handle = await work.start("fails")
            await lab.skip("15 seconds")
        async with lab.engine([work]):
            with pytest.raises(Flaky) as last:
                await lab.result(work.handle(handle.execution_id))
            assert last.value.attempt == 3
        assert attempts == [(1, 0), (2, 10_000), (3, 20_000)]
        attempts.clear()
        async with lab.engine([work]):
            began = lab.clock.now()
            with pytest.raises(ActivityTimeout, match="25 seconds"):
                await lab.finish(work.execute("hangs"))
            assert [attempt for attempt, _ in attempts] == [1, 2, 3]
            assert lab.clock.now() == began + 25_000

    lab.run(main)


def test_the_shorter_of_timeout_and_total_timeout_counts(lab):
    """R11, R12: and the error says which."""

    @activity(timeout="10 seconds", total_timeout="15 seconds", retry=Schedule.spaced("1 second"))
    async def act() -> None:
        await Gate().wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]) as engine:
            began = lab.clock.now()
            with pytest.raises(ActivityTimeout, match="15 seconds"):
                await lab.finish(work.execute("k"))
            assert lab.clock.now() == began + 15_000
            assert [attempt for _, _, attempt in await lab.steps(engine, work.execution_id("k"))] == [1, 2]

    lab.run(main)


def test_a_fixed_schedule_is_a_grid_that_begins_at_the_first_failure(lab):
    """API 8, R11: slow attempts do not push later ones back."""
    attempts = []
    note = noter(lab, attempts)

    @activity(retry=Schedule.fixed("10 seconds").times(3))
    async def act() -> int:
        from perdure import sleep

        if note() == 4:
            return 4
        await sleep("4 seconds")
        raise RuntimeError("again")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == 4
        assert attempts == [(1, 0), (2, 14_000), (3, 24_000), (4, 34_000)]

    lab.run(main)


def test_retries_of_calls_side_by_side_are_counted_apart(lab):
    """R11, R8."""
    attempts = []

    @activity(retry=Schedule.spaced("1 second").times(3))
    async def act(n: int) -> int:
        attempts.append((n, current_attempt()))
        if current_attempt() <= n:
            raise RuntimeError("again")
        return current_attempt()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int]:
        return await asyncio.gather(act(0), act(1), act(2), act(3), act(1))

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == [1, 2, 3, 4, 2]
        assert len(attempts) == 1 + 2 + 3 + 4 + 2
        assert sorted(attempts) == sorted(
            [(0, 1), (1, 1), (1, 2), (1, 1), (1, 2), *((2, n) for n in (1, 2, 3)), *((3, n) for n in (1, 2, 3, 4))]
        )

    lab.run(main)


# Attempts that cancel themselves ---------------------------------------------------------------------


def test_an_attempt_that_cancels_itself_is_tried_again(lab):
    """R13: 400 ms × 1.5, at most 10 s apart, 10 times, then a defect."""
    attempts = []
    note = noter(lab, attempts)

    @activity
    async def act() -> None:
        note()
        raise asyncio.CancelledError

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]):
            with pytest.raises(
                Defect, match=r'^CancelledError: Activity "act" interrupted and retry attempts exhausted$'
            ):
                await lab.finish(work.execute("k"))
        assert [attempt for attempt, _ in attempts] == list(range(1, 12))
        delays = [later - earlier for (_, earlier), (_, later) in pairwise(attempts)]
        assert delays == [400, 600, 900, 1_350, 2_025, 3_038, 4_557, 6_835, 10_000, 10_000]

    lab.run(main)


def test_interruptions_do_not_count_as_failures(lab):
    """R13: each has its own policy, and its own count, also across a restart."""
    attempts = []
    note = noter(lab, attempts)

    @activity(
        error=Flaky, retry=Schedule.spaced("10 seconds").times(1), interrupt_retry=Schedule.spaced("1 second").times(2)
    )
    def act() -> int:
        attempt = note()
        if attempt in (1, 3):
            raise asyncio.CancelledError
        if attempt == 2:
            raise Flaky(attempt=attempt)
        return attempt

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("5 seconds")
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == 4
        assert attempts == [(1, 0), (2, 1_000), (3, 11_000), (4, 12_000)]

    lab.run(main)


def test_without_interrupt_retry_the_first_interruption_is_the_last(lab):
    """R13."""

    @activity(interrupt_retry=None)
    async def act() -> None:
        raise asyncio.CancelledError

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(Defect, match="retry attempts exhausted"):
                await lab.finish(work.execute("k"))
            assert len(await engine.journal(work.execution_id("k"))) == 1

    lab.run(main)


def test_the_library_s_own_errors_are_no_defects_that_lose_their_class(lab):
    """R10: an outcome that an attempt raises on crosses the journal as itself."""

    @activity
    async def act() -> None:
        raise ActivityTimeout("somewhere else", activity="elsewhere", attempt=3, timeout_ms=5)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await act()
        except PerdureError as error:
            return f"{type(error).__name__} {error} {dict(error.facts)}"
        return "?"

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == (
                "ActivityTimeout somewhere else {'activity': 'elsewhere', 'attempt': 3, 'timeout_ms': 5}"
            )

    lab.run(main)
