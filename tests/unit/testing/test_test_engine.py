"""The engine of tests: its clock skips what nobody waits for, and nothing else."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    ActivityTimeout,
    DeadlineExceeded,
    ExecutionTimeoutError,
    Handle,
    Schedule,
    Status,
    TypedError,
    UsageError,
    WorkflowEngine,
    activity,
    current_attempt,
    current_engine,
    sleep,
    workflow,
)
from perdure import now as now_
from perdure._definitions.deferred import DurableDeferred
from perdure._stores.sqlite import SqliteStore
from perdure.testing import TestEngine, VirtualClock
from perdure.testing._pacer import MOST_PASSES, Pacer

from tests.conftest import Run

HOUR = 60 * 60 * 1_000
DAY = 24 * HOUR


class Busy(TypedError):
    pass


@activity
async def look_at_the_clock() -> int:
    return current_engine().now()


@activity
def look_from_a_thread() -> int:
    return current_engine().now()


@workflow
async def month() -> list[int]:
    before = await look_at_the_clock()
    await sleep("30 days")
    return [before, await look_from_a_thread()]


@workflow(idempotency_key=lambda name, duration: name)
async def nap(name: str, duration: str) -> str:
    await sleep(duration)
    return f"{name} has slept"


@activity(error=Busy, retry=Schedule.spaced("1 day").times(3))
async def stubborn() -> int:
    if current_attempt() < 3:
        raise Busy
    return current_attempt()


@workflow(error=Busy)
async def patient() -> int:
    return await stubborn()


Open = Callable[..., TestEngine]


@pytest.fixture(params=["memory", "memory-cache0", "file", "file-cache0"])
def open_engine(request: pytest.FixtureRequest, tmp_path) -> Open:
    """Gives engines on either store, with the default cache and with none."""
    kind, _, cache = request.param.partition("-")

    def open_(*registrations: Any, **options: Any) -> TestEngine:
        if cache:
            options.setdefault("cache", 0)
        if kind == "file":
            options.setdefault("path", tmp_path / "test.perdure")
        return TestEngine(list(registrations), **options)

    return open_


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread cannot set an asyncio.Event
        await asyncio.sleep(0)


async def passes(number: int) -> None:
    """Let the loop go round with something on it that is always ready."""
    for _ in range(number):
        await asyncio.sleep(0)


async def idle() -> None:
    """Let the loop have nothing to do but to wait for something real, again and again."""
    for _ in range(100):
        await asyncio.to_thread(threading.get_ident)


async def outcome(waiting: Awaitable[Any]) -> Any:
    try:
        return await waiting
    except Exception as error:  # noqa: BLE001 - what the test judges
        return error


def test_a_month_is_skipped_while_somebody_waits(run: Run, open_engine: Open):
    async def main():
        async with open_engine(month) as engine:
            began = engine.now()
            assert await month.execute() == [began, began + 30 * DAY]
            assert engine.now() == began + 30 * DAY
            assert engine.time == datetime(2026, 1, 31, tzinfo=UTC)

    run(main)


def test_many_waits_are_skipped_in_their_order_and_none_is_early(run: Run, open_engine: Open):
    """R16 and R47: each jump goes to what is due next, of all executions."""
    woke: list[tuple[str, int]] = []

    @activity
    async def note(name: str) -> None:
        woke.append((name, current_engine().now()))

    @workflow
    async def steps(name: str, durations: list[str]) -> None:
        for duration in durations:
            await sleep(duration)
            await note(name)

    async def main():
        async with open_engine(steps) as engine:
            began = engine.now()
            await asyncio.gather(steps.execute("a", ["90 minutes", "30 seconds"]), steps.execute("b", ["1 hour"] * 2))
            assert [(name, at - began) for name, at in woke] == [
                ("b", HOUR), ("a", 90 * 60_000), ("a", 90 * 60_000 + 30_000), ("b", 2 * HOUR),
            ]  # fmt: skip

    run(main)


def test_delays_of_retries_and_of_starts_are_skipped(run: Run, open_engine: Open):
    async def main():
        async with open_engine(patient) as engine:
            began = engine.now()
            assert await patient.options(delay="1 week").execute() == 3
            assert engine.now() == began + 9 * DAY

    run(main)


def test_time_stands_still_while_nobody_waits_for_a_result(run: Run, open_engine: Open):
    """A test that polls, or talks to its own application, must not find its deadlines passed."""

    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            handle = await nap.start("ada", "3 days")
            while await handle.status() is not Status.SUSPENDED:  # noqa: ASYNC110 - as tests do
                await asyncio.sleep(0)
            await idle()
            assert engine.now() == began
            assert await handle.result() == "ada has slept"

    run(main)


def test_advance_goes_so_far_and_no_further(run: Run, open_engine: Open):
    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            handle = await nap.start("ada", "1 day")
            await engine.advance("23 hours 59 minutes")
            assert await handle.status() is Status.SUSPENDED
            await engine.advance(timedelta(milliseconds=59_999))
            assert await handle.status() is Status.SUSPENDED
            await engine.advance(0.001)
            assert await handle.status() is Status.SUCCEEDED
            assert engine.now() == began + DAY

    run(main)


def test_what_comes_due_meanwhile_happens_at_its_instant(run: Run, open_engine: Open):
    @workflow
    async def hourly(times: int) -> list[datetime]:
        seen = []
        for _ in range(times):
            await sleep("1 hour")
            seen.append(now_())
        return seen

    async def main():
        async with open_engine(hourly) as engine:
            began = engine.time
            handle = await hourly.start(5)
            await engine.advance("1 day")
            assert await handle.status() is Status.SUCCEEDED
            assert await handle.result() == [began + timedelta(hours=n) for n in range(1, 6)]
            assert engine.time == began + timedelta(days=1)

    run(main)


def test_a_short_sleep_is_advanced_over_as_a_long_one(run: Run, open_engine: Open):
    """R16: it is in memory, and its execution stays RUNNING."""

    async def main():
        async with open_engine(nap) as engine:
            handle = await nap.start("ada", "10 seconds")
            await engine.advance("9 seconds")
            assert await handle.status() is Status.RUNNING
            await engine.advance("1 second")
            assert await handle.status() is Status.SUCCEEDED

    run(main)


def test_advance_by_nothing_lets_everything_come_to_rest(run: Run, open_engine: Open):
    async def main():
        async with open_engine(month) as engine:
            handle = await month.start()
            await engine.advance()
            assert await handle.status() is Status.SUSPENDED
            assert engine.time == datetime(2026, 1, 1, tzinfo=UTC)

    run(main)


def test_with_skips_off_only_advance_moves_the_clock(run: Run, open_engine: Open):
    async def main():
        async with open_engine(nap, skips=False) as engine:
            began = engine.now()
            waiting = asyncio.create_task(nap.execute("ada", "1 hour"))
            await engine.advance()
            await idle()
            assert (engine.now(), waiting.done()) == (began, False)
            await engine.advance("1 hour")
            assert await waiting == "ada has slept"
            waiting = asyncio.create_task(nap.execute("bob", "1 hour"))
            await engine.advance()
            await idle()
            engine.skips = True
            assert await waiting == "bob has slept"

    run(main)


def test_an_activity_that_is_at_work_is_not_skipped_over(run: Run, open_engine: Open):
    """It waits for something real; the deadline beside it must not pass meanwhile."""
    entered, answered = asyncio.Event(), asyncio.Event()

    @activity
    async def ask() -> str:
        entered.set()
        await answered.wait()
        return "the answer"

    @workflow
    async def asks() -> str:
        async with asyncio.timeout(3_600):
            return await ask()

    async def main():
        async with open_engine(asks) as engine:
            began = engine.now()
            waiting = asyncio.create_task(asks.execute())
            await entered.wait()
            await idle()
            assert engine.now() == began
            answered.set()
            assert await waiting == "the answer"
            assert engine.now() == began

    run(main)


def test_a_function_on_a_thread_is_not_skipped_over(run: Run, open_engine: Open):
    entered, answered = threading.Event(), threading.Event()

    @activity
    def ask() -> str:
        entered.set()
        answered.wait(15)
        return "the answer"

    @workflow
    async def asks() -> list[str]:
        return list(await asyncio.gather(ask(), nap_beside()))

    async def nap_beside() -> str:
        await sleep("1 day")
        return "slept"

    async def main():
        async with open_engine(asks) as engine:
            began = engine.now()
            waiting = asyncio.create_task(asks.execute())
            await until(entered.is_set)
            await idle()
            assert engine.now() == began
            answered.set()
            assert await waiting == ["the answer", "slept"]
            assert engine.now() == began + DAY

    run(main)


def test_what_a_test_is_about_to_do_is_not_skipped_over(run: Run, open_engine: Open):
    """Callbacks of its own that are ready, however many, come before the clock moves: an in-process HTTP call, say."""

    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            waiting = asyncio.create_task(nap.execute("ada", "1 hour"))
            await passes(MOST_PASSES // 2)
            assert engine.now() == began
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            # Nobody waits any more.
            await idle()
            assert engine.now() == began

    run(main)


def test_a_look_that_is_on_its_way_is_not_skipped_over(run: Run, open_engine: Open):
    """The answer of the store belongs to somebody who will do something with it."""
    asked, answered = threading.Event(), threading.Event()

    def look(connection: Any) -> None:
        asked.set()
        answered.wait(15)

    async def main():
        async with open_engine(nap, skips=False) as engine:
            began = engine.now()
            waiting = asyncio.create_task(nap.execute("ada", "1 hour"))
            await engine.advance()
            looking = asyncio.create_task(engine._store._write(look))
            await until(asked.is_set)
            engine.skips = True
            await idle()
            assert engine.now() == began
            answered.set()
            await looking
            assert await waiting == "ada has slept"

    run(main)


def test_somebody_who_asks_again_and_again_does_not_keep_time_from_being_skipped(run: Run, open_engine: Open):
    async def main():
        async with open_engine(nap):
            waiting = asyncio.create_task(nap.execute("ada", "1 hour"))
            await until(waiting.done)
            assert waiting.result() == "ada has slept"

    run(main)


def test_a_timeout_is_tested_by_advance(run: Run, open_engine: Open, monkeypatch):
    """R12. An activity that hangs has its moment of real time in the first call, and nobody waits for it after that."""
    monkeypatch.setattr("perdure.testing._pacer.PATIENCE_S", 0.01)

    @activity(timeout="30 seconds")
    async def hang() -> None:
        await asyncio.Event().wait()

    @workflow
    async def hangs() -> None:
        await hang()

    async def main():
        async with open_engine(hangs) as engine:
            handle = await hangs.start()
            await engine.advance("29 seconds")
            assert await handle.status() is Status.RUNNING
            monkeypatch.setattr("perdure.testing._pacer.PATIENCE_S", 60)
            await engine.advance("1 second")
            assert isinstance(await outcome(handle.result()), ActivityTimeout)

    run(main)


def test_an_activity_that_takes_long_takes_as_long_on_the_clock(run: Run, open_engine: Open, monkeypatch):
    """Else the timeout of one that hangs would never come, and the test would hang with it."""
    monkeypatch.setattr("perdure.testing._pacer.PATIENCE_S", 0.01)

    @activity(timeout="100 millis")
    async def hang() -> None:
        await asyncio.Event().wait()

    @workflow
    async def hangs() -> None:
        await hang()

    async def main():
        async with open_engine(hangs) as engine:
            began = engine.now()
            assert isinstance(await outcome(hangs.execute()), ActivityTimeout)
            assert engine.now() >= began + 100

    run(main)


def test_an_activity_sleeps_on_the_engines_clock(run: Run, open_engine: Open):
    """R14: a fake that takes forty seconds takes none."""

    @activity(timeout="1 minute", retry=Schedule.spaced("1 second").times(1))
    async def slow() -> int:
        await sleep("40 seconds" if current_attempt() == 2 else "2 minutes")
        return current_attempt()

    @workflow
    async def waits() -> int:
        return await slow()

    async def main():
        async with open_engine(waits) as engine:
            began = engine.now()
            assert await waits.execute() == 2
            assert engine.now() == began + 60_000 + 1_000 + 40_000

    run(main)


@pytest.mark.parametrize("on_thread", [False, True])
def test_an_activity_that_waits_for_another_execution_is_not_at_work(run: Run, open_engine: Open, on_thread: bool):
    @activity
    async def call() -> str:
        return await nap.execute("ada", "2 days")

    @activity
    def call_from_thread() -> str:
        return asyncio.run(nap.execute("ada", "2 days"))

    @workflow
    async def caller() -> str:
        return await (call_from_thread() if on_thread else call())

    async def main():
        async with open_engine(caller, nap) as engine:
            began = engine.now()
            assert await caller.execute() == "ada has slept"
            assert engine.now() == began + 2 * DAY

    run(main)


def test_an_activity_that_waits_for_another_execution_is_nobody_outside(run: Run, open_engine: Open):
    @activity
    async def call() -> str:
        return await nap.execute("ada", "2 days")

    @workflow
    async def caller() -> str:
        return await call()

    async def main():
        async with open_engine(caller, nap) as engine:
            began = engine.now()
            handle = await caller.start()
            await idle()
            assert engine.now() == began
            await engine.advance("2 days")
            assert await handle.status() is Status.SUCCEEDED

    run(main)


def test_an_activity_at_work_at_the_end_has_no_grace_unless_it_is_given_one():
    assert TestEngine()._service.settings.grace == timedelta(0)
    assert TestEngine(grace="1 minute")._service.settings.grace == timedelta(minutes=1)


def test_what_another_process_has_written_is_found_by_advance(run: Run, tmp_path):
    async def main():
        path, clock = tmp_path / "test.perdure", VirtualClock()
        async with TestEngine([nap], path=path, clock=clock) as engine:
            await engine.advance()
            # A client with an engine of its own, of which the clock knows nothing.
            async with WorkflowEngine(SqliteStore(path, clock=clock)) as stranger:
                handle = await stranger.start(nap, "ada", "1 hour")
            await engine.advance("1 second")
            assert (await engine.describe(handle.execution_id)).status is Status.SUSPENDED

    run(main)


def test_a_limit_on_waiting_is_a_time_on_the_engines_clock(run: Run, open_engine: Open):
    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            handle = await nap.start("ada", "3 days")
            assert isinstance(await outcome(handle.result(timeout="1 day")), ExecutionTimeoutError)
            assert engine.now() == began + DAY
            assert await handle.result(timeout="3 days") == "ada has slept"

    run(main)


def test_waiting_for_what_nobody_can_move_costs_nothing_and_skips_nothing(run: Run, tmp_path, monkeypatch, caplog):
    """Neither the rounds of an engine nor the message to whoever waits for an unknown workflow moves the clock.

    R3: that message comes once.
    """
    looks = 0
    is_calm = Pacer._is_calm

    async def counted(self: Pacer) -> bool:
        nonlocal looks
        looks += 1
        return await is_calm(self)

    monkeypatch.setattr(Pacer, "_is_calm", counted)

    async def main():
        # On a file it is stored for whoever has registered it: nobody.
        async with TestEngine(path=tmp_path / "test.perdure") as engine:
            began = engine.now()
            waiting = asyncio.create_task(nap.execute("ada", "1 hour"))
            await engine.advance()
            # What the engine still has to do on its own account, as a round after a late hint, comes to an end.
            for _ in range(20):
                seen = looks
                await idle()
                if looks == seen:
                    break
            assert (engine.now(), looks, waiting.done()) == (began, seen, False)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    with caplog.at_level(logging.WARNING, logger="perdure"):
        run(main)
    [told] = caplog.messages
    assert "no worker has registered workflow 'nap'" in told


Approval = DurableDeferred.make("approval", success=str)


@workflow(idempotency_key=lambda name: name)
async def approved(name: str) -> str:
    try:
        async with asyncio.timeout(3 * 24 * 60 * 60):
            return f"approved by {await Approval}"
    except TimeoutError:
        return "nobody has approved it"


def token(name: str) -> str:
    return Approval.token_from_execution_id(workflow=approved, execution_id=approved.execution_id(name))


def test_a_deferred_is_completed_before_or_after_its_limit(run: Run, open_engine: Open):
    """R18 and R47: what the test does between `start` and `result` is not overtaken by the limit."""

    async def main():
        async with open_engine(approved) as engine:
            began = engine.now()
            in_time, late = await approved.start("a"), await approved.start("b")
            await engine.advance("2 days 23 hours")
            await idle()
            await Approval.succeed(token("a"), "ada")
            assert await in_time.result() == "approved by ada"
            assert engine.now() == began + 2 * DAY + 23 * HOUR
            assert await late.result() == "nobody has approved it"
            assert engine.now() == began + 3 * DAY

    run(main)


def test_a_deferred_that_nobody_completes_is_waited_for_without_moving_the_clock(run: Run, open_engine: Open):
    @workflow(idempotency_key=lambda: "one")
    async def waits() -> str:
        return await Approval

    async def main():
        async with open_engine(waits) as engine:
            began = engine.now()
            waiting = asyncio.create_task(waits.execute())
            await engine.advance()
            await idle()
            assert (engine.now(), waiting.done()) == (began, False)
            of = Approval.token_from_execution_id(workflow=waits, execution_id=waits.execution_id())
            await Approval.succeed(of, "ada")
            assert await waiting == "ada"
            assert engine.now() == began

    run(main)


def test_children_are_skipped_to_as_well(run: Run, open_engine: Open):
    """R31: the parent hears of each end at its instant."""

    @workflow
    async def family() -> list[str]:
        return await asyncio.gather(*(nap.execute(f"child {n}", f"{n} days") for n in (3, 1, 2)))

    async def main():
        async with open_engine(nap, family) as engine:
            began = engine.now()
            assert await family.execute() == [f"child {n} has slept" for n in (3, 1, 2)]
            assert engine.now() == began + 3 * DAY

    run(main)


def test_a_child_that_nobody_has_registered_is_said_at_once(run: Run, open_engine: Open, caplog):
    """R3: it waits as in production, where that is logged after a while; here no while would ever pass."""

    @workflow
    async def forgotten() -> int:
        return 1

    @workflow
    async def parent() -> int:
        return await forgotten.execute()

    async def main() -> int:
        said = asyncio.Event()
        caplog.handler.addFilter(lambda record: said.set() is None)
        async with open_engine(parent) as engine:
            began = engine.time
            waiting = asyncio.ensure_future(parent.execute())
            await said.wait()
            assert (engine.time, waiting.done()) == (began, False)
            engine.register(forgotten)
            return await waiting

    with caplog.at_level(logging.WARNING, logger="perdure"):
        assert run(main) == 1
    [told] = [record.getMessage() for record in caplog.records if "has registered" in record.getMessage()]
    assert told.endswith("waits: no worker has registered workflow 'forgotten'. Registered are: parent")


def test_a_deadline_is_skipped_to(run: Run, open_engine: Open):
    """R44."""

    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            ended = await outcome(nap.options(deadline="5 days").execute("ada", "30 days"))
            assert isinstance(ended, DeadlineExceeded)
            assert engine.now() == began + 5 * DAY

    run(main)


def test_two_engines_on_one_file_share_a_clock(run: Run, tmp_path):
    """One only starts, the other only works: what one writes the other hears of before time is skipped."""

    async def main():
        path, clock = tmp_path / "test.perdure", VirtualClock()
        async with TestEngine([month, patient], path=path, clock=clock), TestEngine(path=path, clock=clock) as client:
            began = clock.now()
            assert await client.execute(month) == [began, began + 30 * DAY]
            handle = await client.start(patient)
            await client.advance("1 day")
            assert await handle.status() is Status.RUNNING or await handle.status() is Status.SUSPENDED
            assert isinstance(await outcome(handle.result(timeout="1 minute")), ExecutionTimeoutError)
            await client.advance("1 day")
            assert await handle.status() is Status.SUCCEEDED

    run(main)


def test_an_engine_on_the_same_file_and_clock_is_a_restart(run: Run, tmp_path):
    path, clock = tmp_path / "test.perdure", VirtualClock()
    began = clock.now()

    async def today():
        async with TestEngine([month], path=path, clock=clock) as engine:
            handle = await month.options(execution_id="0" * 32).start()
            await engine.advance("10 days")
            assert await handle.status() is Status.SUSPENDED

    async def later():
        async with TestEngine([month], path=path, clock=clock):
            return await month.handle("0" * 32).result()

    run(today)
    clock.advance(5 * DAY)
    assert run(later) == [began, began + 30 * DAY]


def test_a_clock_may_be_set(run: Run):
    async def main():
        async with TestEngine([month], clock=VirtualClock(datetime(2028, 2, 28, tzinfo=UTC))) as engine:
            await month.execute()
            assert engine.time == datetime(2028, 3, 29, tzinfo=UTC)

    run(main)


def test_a_clock_is_on_one_loop_at_a_time(run: Run):
    clock = VirtualClock()

    async def main():
        async with TestEngine(clock=clock):
            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, other())

    async def other():
        async with TestEngine(clock=clock):
            pass

    run(main)


def test_a_clock_outlives_an_engine_that_was_left_open(run: Run):
    clock = VirtualClock()
    left = TestEngine([nap], clock=clock)

    async def leave():
        await left.__aenter__()
        await nap.start("ada", "10 seconds")

    async def main():
        async with TestEngine([nap], clock=clock) as engine:
            await engine.advance("1 minute")
            return await engine.execute(nap, "bob", "1 day")

    try:
        asyncio.run(leave())
        assert run(main) == "bob has slept"
    finally:
        asyncio.run(left.__aexit__(None, None, None))


def test_the_blocking_face_has_the_same_clock():
    engine = TestEngine([month])
    with engine.blocking() as blocking:
        began = engine.now()
        handle = blocking.start(month)
        blocking.call(engine.advance, "29 days")
        assert handle.status() is Status.SUSPENDED
        assert handle.result() == [began, began + 30 * DAY]


def test_advance_refuses_what_makes_no_sense(run: Run):
    @activity
    async def mover() -> str:
        return str(await outcome(engine.advance("1 hour")))

    @workflow
    async def moves() -> str:
        return await mover()

    engine = TestEngine([moves])

    async def main():
        with pytest.raises(UsageError, match="not open"):
            await engine.advance("1 hour")
        async with engine:
            with pytest.raises(UsageError, match="does not go back"):
                await engine.advance(timedelta(hours=-1))
            assert "perdure.sleep" in await moves.execute()

    run(main)


def test_whoever_waits_while_the_clock_is_advanced_goes_no_further(run: Run, open_engine: Open):
    """`advance` moves alone: what skips by itself waits until it is done."""

    async def main():
        async with open_engine(nap) as engine:
            began = engine.now()
            handle: Handle[str] = await nap.start("ada", "10 days")
            waiting = asyncio.create_task(handle.result())
            await engine.advance("1 day")
            assert engine.now() == began + DAY
            assert await waiting == "ada has slept"
            assert engine.now() == began + 10 * DAY

    run(main)


def test_it_is_an_engine_like_any_other(run: Run, tmp_path):
    async def main():
        async with TestEngine.open(f"sqlite:///{tmp_path}/test.perdure", [nap]) as engine:
            assert isinstance(engine, WorkflowEngine)
            assert isinstance(engine, TestEngine)
            assert current_engine() is engine
            assert await nap.execute("ada", "1 hour") == "ada has slept"
        assert (tmp_path / "test.perdure").exists()
        async with TestEngine.memory([nap], cache=0):
            assert await nap.execute("ada", "1 hour") == "ada has slept"

    run(main)


def test_a_test_finds_out_what_is_held(run: Run, open_engine: Open):
    @workflow
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main():
        async with open_engine(stuck) as engine:
            assert await engine.held() == []
            handle = await stuck.start()
            await engine.advance()
            assert [(one.execution_id, one.held) for one in await engine.held()] == [(handle.execution_id, "DEADLOCK")]

    run(main)


def test_an_engine_that_closes_leaves_no_task_behind(run: Run):
    async def main():
        before = asyncio.all_tasks()
        async with TestEngine([month]):
            await month.execute()
        await passes(3)
        assert asyncio.all_tasks() == before

    run(main)


class Still:
    """An engine in which nothing happens, and which has a wake."""

    skips = True
    awaited = False
    in_flight = 0
    news = 0
    still = True

    def __init__(self, wake: int | None) -> None:
        self.wake = wake
        self.asking = 0
        self.most_asking = 0
        self.notices = 0

    def at_work(self) -> set[Any]:
        return set()

    def notice(self) -> None:
        self.notices += 1

    async def next_wake(self) -> int | None:
        self.asking += 1
        self.most_asking = max(self.asking, self.most_asking)
        await idle()
        self.asking -= 1
        return self.wake


def test_a_wake_that_no_engine_takes_keeps_the_clock_from_nothing(run: Run):
    async def main():
        clock = VirtualClock(1_000)
        pacer, engine = Pacer(clock), Still(wake=1_500)
        pacer.add(engine)
        await pacer.advance(2_000)
        assert clock.now() == 3_000
        # At its instant, once more, and at the end.
        assert engine.notices == 3
        pacer.remove(engine)

    run(main)


def test_one_at_a_time_moves_the_clock(run: Run):
    async def main():
        clock = VirtualClock(1_000)
        pacer, engine = Pacer(clock), Still(wake=None)
        engine.awaited = True
        pacer.add(engine)
        await asyncio.gather(*(pacer.advance(500) for _ in range(3)))
        assert clock.now() == 2_500
        assert engine.most_asking == 1
        pacer.remove(engine)

    run(main)
