"""Waiting: what a body's timers are called, when they are due, and what is recorded of them (R8, R16, R17)."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import sleep, sleep_until
from perdure._values.instant import to_datetime

from tests.kernel.driver import BEGAN_AT, Play
from tests.kernel.steps import begin, fetch, store

# asyncio's own `wait_for` has been built on `timeout` since 3.12, and on `call_later` before.


async def _asyncio_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _sleep(duration: Any) -> None:
    await sleep(duration)


async def _call_at(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_at(loop.time() + seconds, over.set_result, None)
    await over


async def _call_later(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(seconds, over.set_result, None)
    await over


async def _timeout(seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await asyncio.Event().wait()


async def _wait(seconds: float) -> None:
    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=seconds)


async def _wait_for(seconds: float) -> None:
    await asyncio.wait_for(asyncio.Event().wait(), timeout=seconds)


async def _rescheduled(seconds: float) -> None:
    async with asyncio.timeout(30) as timeout:
        timeout.reschedule(asyncio.get_running_loop().time() + seconds)
        await asyncio.Event().wait()


# Names (R8) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "seconds", "name"),
    [
        (_asyncio_sleep, 0.05, "sleep:0.05"),
        (_asyncio_sleep, 5, "sleep:5"),
        (_asyncio_sleep, 1.5, "sleep:1.5"),
        (_sleep, 0.05, "sleep:0.05"),
        (_sleep, 5, "sleep:5"),
        (_sleep, "90 minutes", "sleep:5400"),
        (_call_later, 7, "sleep:7"),
        (_call_at, 7, "timeout:7"),
        (_timeout, 3600, "timeout:3600"),
        (_timeout, 0.1, "timeout:0.1"),
        (_wait, 2, "timeout:2"),
        (_wait_for, 2, "timeout:2"),
        (_rescheduled, 4.5, "timeout:4.5"),
    ],
)
@pytest.mark.parametrize("after_ms", [0, 1, 333, 86_400_123])
def test_an_unnamed_timers_name_is_its_duration(
    way: Callable[[Any], Awaitable[None]], seconds: Any, name: str, after_ms: int
) -> None:
    """R8: for `call_at` when - loop.time(), whatever o'clock it is, and however floats round."""

    async def body() -> None:
        await fetch(1)
        await way(seconds)

    play = Play(body)
    play.now += after_ms
    play.answer("fetch", 0)
    assert play.timer_names == [name]
    assert play.again().standing() == play.standing()
    play.fire(name)
    assert play.ended
    assert play.timers == []
    # A minute and less is waited for in memory; above, the due time stands in the journal as well (R16).
    marker = [f"set {name}#1"] if play.now - BEGAN_AT - after_ms > 60_000 else []
    assert play.recorded == ["activity fetch#1", *marker, f"timer {name}#1"]


def test_a_sleep_may_have_a_name() -> None:
    """R8: so that it is found when its length has changed."""

    async def body() -> None:
        await asyncio.gather(
            sleep(5, name="settle"), sleep_until(to_datetime(BEGAN_AT + 9_000)), sleep("3 days", name="settle")
        )

    play = Play(body)
    assert play.timer_names == ["settle", f"until:{to_datetime(BEGAN_AT + 9_000).isoformat()}", "settle"]
    assert [timer.occurrence for timer in play.timers] == [1, 1, 2]
    assert [timer.due_at for timer in play.timers] == [BEGAN_AT + 5_000, BEGAN_AT + 9_000, BEGAN_AT + 259_200_000]


def test_occurrences_are_counted_per_duration() -> None:
    """R8."""

    async def body() -> None:
        await asyncio.gather(*(asyncio.sleep(seconds) for seconds in (1, 2, 1, 2, 1)))

    assert [(timer.name, timer.occurrence) for timer in Play(body).timers] == [
        ("sleep:1", 1), ("sleep:2", 1), ("sleep:1", 2), ("sleep:2", 2), ("sleep:1", 3),
    ]  # fmt: skip


def test_a_new_timeout_does_not_take_the_record_of_an_old_sleep() -> None:
    """R8: that is why a duration is a name."""

    async def old() -> None:
        await asyncio.sleep(5)
        await fetch(1)

    async def new() -> None:
        async with asyncio.timeout(30):
            await asyncio.sleep(5)
            await fetch(1)

    play = Play(old)
    play.fire("sleep:5")
    again = play.again(new)
    assert again.timer_names == ["timeout:30"]
    assert again.waiting == ['fetch{"x":1}#1']
    assert again.kernel.trouble is None


def test_a_named_timer_finds_its_record_when_its_duration_has_changed() -> None:
    """R8: the duration never diverges."""

    async def body(duration: str) -> int:
        await sleep(duration, name="settle")
        return await fetch(1)

    play = Play(lambda: body("5 seconds"))
    play.fire("settle")
    again = play.again(lambda: body("9 seconds"))
    assert again.timers == []
    assert again.waiting == ['fetch{"x":1}#1']


def test_the_duration_helps_to_choose_among_named_timers() -> None:
    """R8: the record of the long one is not taken by a new short one before it."""

    async def old() -> None:
        await asyncio.gather(sleep("50 seconds", name="pause"), fetch(1))

    async def new() -> None:
        await asyncio.gather(sleep("10 seconds", name="pause"), sleep("50 seconds", name="pause"), fetch(1))

    play = Play(old)
    play.fire("pause")
    again = play.again(new)
    assert [timer.input for timer in again.timers] == [b"10000"]


def test_an_unnamed_timer_of_another_duration_is_new() -> None:
    """R8: the old record is only logged."""

    async def body(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await fetch(1)

    play = Play(lambda: body(5))
    play.fire("sleep:5")
    again = play.again(lambda: body(6))
    assert again.timer_names == ["sleep:6"]
    assert again.kernel.trouble is None


# Due times (R16) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [_asyncio_sleep, _sleep, _call_later])
@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_zero_and_less_return_at_once_and_record_nothing(way: Callable[[Any], Awaitable[None]], seconds: float) -> None:
    """R16."""

    async def body() -> str:
        await way(seconds)
        return "over"

    play = Play(body)
    assert play.result() == "over"
    assert play.journal == []


def test_an_instant_that_has_passed_returns_at_once_and_records_nothing() -> None:
    """R16."""

    async def body() -> str:
        await sleep_until(to_datetime(BEGAN_AT))
        await sleep_until(to_datetime(BEGAN_AT - 1))
        return "over"

    play = Play(body)
    assert play.result() == "over"
    assert play.journal == []


def test_a_timeout_that_has_passed_ends_the_body_at_the_next_await() -> None:
    """R16."""

    async def body() -> None:
        async with asyncio.timeout(0):
            await fetch(1)

    play = Play(body)
    with pytest.raises(TimeoutError):
        play.result()
    assert play.journal == []


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [
        (0.0001, 1),
        (0.001, 1),
        (0.0011, 2),
        (0.05, 50),
        (0.07, 70),
        (1.1, 1_100),
        (2.007, 2_007),
        (1.001, 1_001),
        (59.9999, 60_000),
    ],
)
@pytest.mark.parametrize("way", [_asyncio_sleep, _sleep, _call_at])
def test_fractions_of_a_millisecond_round_up(way: Callable[[Any], Awaitable[None]], seconds: float, ms: int) -> None:
    """R16: never early, and not a millisecond later for the sake of a float."""

    async def body() -> None:
        await way(seconds)

    assert Play(body).nearest() == BEGAN_AT + ms


@pytest.mark.parametrize("way", [_asyncio_sleep, _sleep, _call_at])
def test_up_to_a_minute_is_waited_for_in_memory(way: Callable[[Any], Awaitable[None]]) -> None:
    """R16: nothing is recorded; the due time follows from when it began, so a restart waits only for the rest."""

    async def body(seconds: float) -> None:
        await fetch(1)
        await way(seconds)

    play = Play(lambda: body(60))
    play.now += 5_000
    play.answer("fetch", 0)
    assert [(timer.durable, timer.due_at) for timer in play.timers] == [(False, BEGAN_AT + 65_000)]
    assert play.recorded == ["activity fetch#1"]
    assert play.again().nearest() == BEGAN_AT + 65_000
    longer = Play(lambda: body(60.001))
    longer.answer("fetch", 0)
    assert [timer.durable for timer in longer.timers] == [True]


def test_a_longer_wait_records_its_due_time() -> None:
    """R16: with the suspension; a timeout around a step that is never waited out costs no entry."""

    async def body() -> None:
        async with asyncio.timeout(3_600):
            await fetch(1)
        await asyncio.gather(sleep("3 days", name="settle"), asyncio.sleep(61))

    play = Play(body)
    assert play.recorded == [], "an activity runs: it is not suspended"
    play.answer("fetch", 0)
    assert play.recorded == ["activity fetch#1", "set settle#1", "set sleep:61#1"]
    assert [entry.exit for entry in play.journal[1:]] == [
        str(BEGAN_AT + 3 * 86_400_000).encode(), str(BEGAN_AT + 61_000).encode(),
    ]  # fmt: skip
    assert play.again().recorded == play.recorded, "once, and not again on replay"


@pytest.mark.parametrize("duration", ["5 days", "2 hours", "10 seconds"])
def test_a_recorded_due_time_never_changes(duration: str) -> None:
    """R16: neither when today's code waits longer under that name, nor shorter, nor short enough for memory."""

    async def body(duration: str) -> None:
        await fetch(1)
        await sleep(duration, name="settle")

    play = Play(lambda: body("3 days"))
    play.now += 1_000
    play.answer("fetch", 0)
    due_at = play.nearest()
    again = play.again(lambda: body(duration))
    assert again.nearest() == due_at == BEGAN_AT + 1_000 + 3 * 86_400_000
    assert [timer.durable for timer in again.timers] == [True]
    assert again.recorded == play.recorded


def test_the_threshold_can_be_moved() -> None:
    """R16: `in_memory_threshold` of one sleep."""

    async def body() -> None:
        await asyncio.gather(
            sleep(1, name="a", in_memory_threshold=0), sleep("1 hour", name="b", in_memory_threshold="1 hour")
        )

    play = Play(body)
    assert [(timer.name, timer.durable) for timer in play.timers] == [("a", True), ("b", False)]
    assert play.recorded == ["set a#1"]


def test_who_waits_for_ever_records_nothing() -> None:
    """R16: nobody can fire that."""

    async def body() -> None:
        await asyncio.gather(asyncio.sleep(math.inf), fetch(1))

    play = Play(body)
    assert play.timers == []
    assert play.journal == []


# Turns and records (R17) -------------------------------------------------------------------------------


def test_a_cancelled_timer_records_nothing() -> None:
    """R16: a timeout around a step that answers in time leaves no trace."""

    async def body() -> int:
        async with asyncio.timeout(5):
            first = await fetch(1)
        return first + await asyncio.wait_for(fetch(2), timeout=5)

    play = Play(body)
    play.answer("fetch", 10)
    assert play.timer_names == ["timeout:5"]
    play.answer("fetch", 20)
    assert play.result() == 30
    assert play.timers == []
    assert play.recorded == ["activity fetch#1", "activity fetch#2"]


def test_a_cancelled_sleep_is_not_waited_for_any_more() -> None:
    """R17."""

    async def body() -> None:
        tasks = [asyncio.create_task(asyncio.sleep(5)), asyncio.create_task(sleep(6)), asyncio.create_task(_call_at(7))]
        await fetch(1)
        for task in tasks:
            task.cancel()
        await fetch(2)

    play = Play(body)
    assert play.timer_names == ["sleep:5", "sleep:6", "timeout:7"]
    play.answer("fetch", 0)
    assert play.timer_names == ["timeout:7"], "call_at's handle was not cancelled by anybody"
    assert play.again().standing() == play.standing()


def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set() -> None:
    """R47: each in a turn of its own."""
    trace: list[Any] = []

    async def branch(name: str, wait: Awaitable[Any]) -> None:
        await wait
        for step in range(2):
            trace.append((name, step))
            await asyncio.sleep(0)

    async def body() -> None:
        trace.clear()
        await asyncio.gather(
            branch("a", asyncio.sleep(5)), branch("b", sleep(5, name="b")), branch("c", _call_at(5)),
            branch("d", asyncio.sleep(5)),
        )  # fmt: skip

    play = Play(body)
    play.pass_time(5_000)
    assert play.ended
    live = list(trace)
    assert live == [(name, step) for name in "abcd" for step in range(2)]
    assert play.again().ended
    assert trace == live


def test_a_timer_set_by_one_that_fires_does_not_fire_with_its_cancelled_twin() -> None:
    """R16, R17: two of one length are due; the first cancels the second and sets a third of that length. Never early."""

    async def body() -> float:
        for _ in range(2):
            twins = [asyncio.create_task(asyncio.sleep(5)), asyncio.create_task(asyncio.sleep(5))]
            _, others = await asyncio.wait(twins, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
        return asyncio.get_running_loop().time()

    play = Play(body)
    play.pass_time(5_000)
    assert [timer.due_at for timer in play.timers] == [BEGAN_AT + 10_000] * 2
    play.pass_time(5_000)
    assert play.result() == 10
    assert play.recorded == ["timer sleep:5#1", "timer sleep:5#3"]


def test_a_second_sleep_of_a_name_waits_as_long_as_the_first() -> None:
    """R17: each sleep is its own timer, whatever its name."""

    async def body() -> float:
        await sleep(5, name="pause")
        await sleep(5, name="pause")
        return asyncio.get_running_loop().time()

    play = Play(body)
    play.pass_time(5_000)
    assert play.nearest() == BEGAN_AT + 10_000
    play.pass_time(5_000)
    assert play.result() == 10


def test_the_end_of_the_body_clears_its_timers() -> None:
    """R17."""

    async def body() -> int:
        begin(asyncio.sleep(5))
        asyncio.get_running_loop().call_later(6, print)
        return await fetch(1)

    play = Play(body)
    assert len(play.timers) == 2
    play.answer("fetch", 10)
    assert play.result() == 10
    assert play.timers == []


def test_the_time_of_the_loop_is_the_time_of_the_last_event() -> None:
    """R38: and stands still in between."""

    async def body() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        await fetch(1)
        times += [loop.time(), loop.time()]
        await asyncio.sleep(2)
        return [*times, loop.time()]

    play = Play(body)
    play.now += 1_500
    play.answer("fetch", 0)
    play.now += 700
    play.fire("sleep:2")
    assert play.result() == [0, 1.5, 1.5, 3.5]
    assert play.again().result() == [0, 1.5, 1.5, 3.5]


def test_a_timer_that_comes_late_is_recorded_when_it_came() -> None:
    """R38, R47: its entry has the time at which it was fed."""

    async def body() -> float:
        await asyncio.sleep(2)
        return asyncio.get_running_loop().time()

    play = Play(body)
    play.now += 10_000
    play.fire("sleep:2")
    assert play.result() == 10
    assert play.again().result() == 10


def test_a_race_between_a_step_and_its_timeout_is_decided_by_the_journal() -> None:
    """R7: replayed as it was, whoever had won."""

    async def body() -> str:
        try:
            async with asyncio.timeout(timedelta(seconds=5).total_seconds()):
                await fetch(1)
        except TimeoutError:
            await store(0)
            return "late"
        return "in time"

    late = Play(body)
    late.fire("timeout:5")
    assert not late.answer(late.withdrawn[0], 10)
    late.answer("store", 0)
    in_time = Play(body)
    in_time.answer("fetch", 10)
    assert (late.result(), in_time.result()) == ("late", "in time")
    assert (late.again().result(), in_time.again().result()) == ("late", "in time")
