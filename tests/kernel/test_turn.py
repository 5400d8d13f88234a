"""A turn: from one event to rest, in a fixed order, within its budget, and only then (R5, R9)."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Defect, WorkflowIOError, logger, sleep
from perdure._kernel.kernel import TURN_BUDGET
from perdure._model.status import Held

from tests.kernel.driver import EXECUTION_ID, Play
from tests.kernel.steps import begin, fetch, spin, store


def test_one_event_comes_to_rest_before_the_next_is_fed() -> None:
    """R5: what follows from it is done, however many callbacks that takes."""
    trace: list[str] = []

    async def branch(x: int) -> None:
        await fetch(x)
        for step in range(50):
            await asyncio.sleep(0)
            trace.append(f"{x}.{step}")

    async def body() -> None:
        await asyncio.gather(branch(1), branch(2))

    play = Play(body)
    play.answer("fetch#2", 0)
    assert trace == [f"2.{step}" for step in range(50)]
    play.answer("fetch#1", 0)
    assert trace[50:] == [f"1.{step}" for step in range(50)]


def test_what_is_ready_runs_in_the_order_in_which_it_became_so() -> None:
    """First in, first out: as in asyncio's own loop."""
    trace: list[int] = []

    async def branch(x: int) -> None:
        trace.append(x)
        await asyncio.sleep(0)
        trace.append(-x)

    async def body() -> None:
        await asyncio.gather(*(branch(x) for x in range(1, 6)))
        asyncio.get_running_loop().call_soon(trace.append, 100)
        await asyncio.sleep(0)

    Play(body)
    assert trace == [1, 2, 3, 4, 5, -1, -2, -3, -4, -5, 100]


def test_a_turn_that_does_not_come_to_rest_holds_the_execution() -> None:
    """R5: SPINNING, with a sentence that says what to do; what had happened stays recorded."""

    async def body() -> None:
        await fetch(1)
        await spin()

    play = Play(body, budget=10_000)
    play.answer("fetch", 0)
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held is Held.SPINNING
    assert isinstance(play.kernel.trouble.error, Defect)
    assert "did not come to rest within 10,000 callbacks" in str(play.kernel.trouble.error)
    assert play.recorded == ["activity fetch#1"]
    assert not play.kernel.ended


def test_the_budget_is_for_one_turn() -> None:
    """R5: a body that runs for years may need any number of callbacks."""

    async def body() -> str:
        for x in range(20):
            await fetch(x)
            for _ in range(400):
                await asyncio.sleep(0)
        return "done"

    play = Play(body, budget=500)
    for _ in range(20):
        play.answer("fetch", 0)
    assert play.result() == "done"
    assert TURN_BUDGET == 1_000_000


def test_the_budget_counts_what_is_run_and_not_what_it_was_meant_for() -> None:
    """A turn that needs exactly its budget has come to rest."""

    async def body() -> str:
        for _ in range(8):
            await asyncio.sleep(0)
        return "done"

    assert Play(body, budget=9).result() == "done"
    assert Play(body, budget=8).kernel.trouble is not None


def test_the_outer_loop_is_the_running_one_between_turns() -> None:
    """The kernel is driven from a callback of it."""
    loops: list[Any] = []

    async def body() -> None:
        loops.append(asyncio.get_running_loop())
        await fetch(1)
        loops.append(asyncio.get_running_loop())

    async def main() -> None:
        outer, over = asyncio.get_running_loop(), asyncio.Event()

        def turns() -> None:
            play = Play(body)
            assert asyncio.get_running_loop() is outer
            play.answer("fetch", 0)
            assert asyncio.get_running_loop() is outer
            over.set()

        outer.call_soon(turns)
        await over.wait()
        assert outer not in loops

    asyncio.run(main())
    assert len(loops) == 2
    assert loops[0] is loops[1]


@pytest.mark.parametrize("make", [asyncio.Event, asyncio.Lock, asyncio.Queue, asyncio.Semaphore, asyncio.Condition])
def test_asyncios_objects_cannot_be_shared_between_executions(make: Callable[[], Any]) -> None:
    """Who waits for one would hang; whoever touches it from another execution is told."""
    shared = make()

    async def take() -> None:
        if isinstance(shared, asyncio.Event):
            await shared.wait()
        elif isinstance(shared, asyncio.Queue):
            await shared.get()
        elif isinstance(shared, asyncio.Condition):
            async with shared:
                await shared.wait()
        else:
            await shared.acquire()
            await shared.acquire()

    async def touch() -> None:
        if isinstance(shared, asyncio.Event):
            shared.set()
        elif isinstance(shared, asyncio.Queue):
            shared.put_nowait(1)
        elif isinstance(shared, asyncio.Condition):
            shared._waiters[0].set_result(None)
        else:
            shared.release()

    Play(take)
    play = Play(touch)
    with pytest.raises(WorkflowIOError, match="cannot be shared between executions"):
        play.result()


def test_code_outside_of_any_turn_cannot_touch_them_either() -> None:
    """A thread, a callback of the outer loop, an activity."""
    events: list[asyncio.Event] = []

    async def body() -> None:
        events.append(asyncio.Event())
        await events[0].wait()

    play = Play(body)
    with pytest.raises(WorkflowIOError, match="outside this execution's turn"):
        events[0].set()
    assert not play.ended


def test_a_task_cannot_be_made_on_a_bodys_loop_from_outside() -> None:
    """Its loop runs in its turns only."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def body() -> None:
        loops.append(asyncio.get_running_loop())
        await fetch(1)

    Play(body)
    coroutine = asyncio.sleep(0)
    with pytest.raises(WorkflowIOError):
        loops[0].create_task(coroutine)
    coroutine.close()


def test_errors_that_nobody_retrieved_are_no_noise(log: pytest.LogCaptureFixture, is_quiet: Callable[[], bool]) -> None:
    """A branch that failed after its race was lost is nobody's business; it is in the log for who looks for it."""

    async def failing() -> None:
        await fetch(1)
        raise ValueError("after the race")

    async def body() -> str:
        begin(failing())
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await store(0)
        await asyncio.sleep(5)
        return "done"

    play = Play(body)
    play.answer("fetch", 0)
    play.answer("store", 0)
    play.pass_time(5_000)
    assert play.result() == "done"
    del play
    assert [record for record in log.records if record.levelno >= logging.WARNING] == []


def test_a_callback_that_raises_does_not_end_the_turn() -> None:
    """R9: nor does one that would end the process."""
    trace: list[int] = []

    async def body() -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(sys.exit, 3)
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(trace.append, 1)
        loop.call_later(5, sys.exit, 4)
        await asyncio.sleep(6)
        return "done"

    play = Play(body)
    play.pass_time(6_000)
    assert play.result() == "done"
    assert trace == [1]


def test_a_body_that_waits_for_nothing_that_could_come_says_so() -> None:
    """R5: nothing waits, and it has not ended: DEADLOCK, says the engine."""

    async def body() -> None:
        await asyncio.Event().wait()

    play = Play(body)
    assert not play.ended
    assert list(play.kernel.steps.waiting) == []


def test_the_logger_is_silent_while_the_body_replays(caplog: pytest.LogCaptureFixture) -> None:
    """API 7: each line once, when it was live; the first turn after the journal too."""

    async def body() -> None:
        logger.info("began")
        await fetch(1)
        logger.info("fetched")
        await store(1)
        logger.info("stored")

    with caplog.at_level(logging.INFO, logger="perdure.workflow"):
        play = Play(body)
        play.answer("fetch", 0)
        again = play.again()
        assert [record.getMessage() for record in caplog.records] == ["began", "fetched"]
        again.answer("store", 0)
        assert [record.getMessage() for record in caplog.records] == ["began", "fetched", "stored"]
    assert {record.execution_id for record in caplog.records} == {EXECUTION_ID}  # type: ignore[attr-defined]


def test_a_wide_fan_out_is_one_turn() -> None:
    """DESIGN 2: thousands of branches, asked for in one turn and answered in any order."""

    async def body() -> int:
        return sum(await asyncio.gather(*(fetch(x) for x in range(2_000))))

    play = Play(body)
    assert len(play.given) == 2_000
    for call in reversed(play.calls):
        play.answer(call, 1)
    assert play.result() == 2_000
    assert play.again().result() == 2_000


def test_a_long_loop_keeps_nothing_of_its_finished_tasks() -> None:
    """A body that makes many short tasks does not grow with them."""

    async def body() -> None:
        for x in range(300):
            await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0)) for _ in range(5)))
            if x == 150:
                await sleep(1)

    play = Play(body)
    assert len(play.kernel._loop._tasks) < 40
