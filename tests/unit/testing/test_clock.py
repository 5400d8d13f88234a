"""The clock of tests: it rings what is set, when it is told that the time has come."""

import asyncio
from datetime import UTC, datetime

from perdure._engine.wakes import Wakes
from perdure.testing.clock import SOME_DAY, SWEPT, ManualClock, VirtualClock


def test_alarms_ring_in_the_order_of_their_instants(run):
    async def main():
        clock = ManualClock(1_000)
        rung = []
        for when in (1_300, 1_100, 1_200):
            clock.call_at(when, lambda when=when: rung.append(when))
        clock.advance(250)
        await asyncio.sleep(0)
        assert rung == [1_100, 1_200]
        assert clock.next_alarm() == 1_300

    run(main)


def test_a_cancelled_alarm_does_not_touch_the_loop_it_was_set_on():
    """That loop may be closed by now: its engine has gone, and the clock is shared with the next one."""
    clock = ManualClock(1_000)
    rung = []

    async def first():
        clock.call_at(1_500, lambda: rung.append("cancelled")).cancel()

    async def second():
        clock.advance(1_000)
        await asyncio.sleep(0)

    asyncio.run(first())
    asyncio.run(second())
    assert rung == []
    assert clock.next_alarm() is None


def test_an_alarm_that_is_cancelled_after_it_was_due_does_not_ring(run):
    async def main():
        clock = ManualClock(1_000)
        rung = []
        alarm = clock.call_at(1_100, lambda: rung.append("rung"))
        clock.advance(100)
        alarm.cancel()
        await asyncio.sleep(0)
        assert rung == []

    run(main)


def test_what_is_due_when_it_is_set_is_called_on_the_next_turn_of_the_loop(run):
    async def main():
        clock = ManualClock(1_000)
        rung = []
        clock.call_at(1_000, lambda: rung.append("rung"))
        assert rung == []
        await asyncio.sleep(0)
        assert rung == ["rung"]

    run(main)


def test_an_alarm_of_a_loop_that_has_been_closed_is_forgotten():
    clock = ManualClock(1_000)
    rung = []

    async def first():
        clock.call_at(1_500, lambda: rung.append("first"))

    async def second():
        clock.call_at(1_600, lambda: rung.append("second"))
        clock.advance(1_000)
        await asyncio.sleep(0)

    asyncio.run(first())
    asyncio.run(second())
    assert rung == ["second"]


def test_cancelled_alarms_do_not_pile_up_while_time_stands_still(run):
    async def main():
        clock = ManualClock()
        last = clock.call_at(clock.now() + 20_000, lambda: None)
        for n in range(10_000):
            clock.call_at(clock.now() + 10_000 + n, lambda: None).cancel()
        assert len(clock._alarms._alarms) <= 2 * SWEPT
        last.cancel()
        assert clock.next_alarm() is None

    run(main)


def test_a_virtual_clock_knows_which_alarms_mean_something(run):
    """What an engine looks for at intervals is no event; all else is."""

    async def main():
        clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
        assert clock.now() == SOME_DAY
        assert clock.time == datetime(2026, 1, 1, tzinfo=UTC)
        set_ = []
        clock.listener = lambda: set_.append(clock.next_event())
        wakes = object.__new__(Wakes)
        wakes._poked = asyncio.Event()
        clock.call_at(SOME_DAY + 1_000, wakes.poke)
        assert (clock.next_event(), clock.next_alarm()) == (None, SOME_DAY + 1_000)
        clock.call_at(SOME_DAY + 2_000, lambda: None)
        assert (clock.next_event(), clock.next_alarm()) == (SOME_DAY + 2_000, SOME_DAY + 1_000)
        clock.advance(1_500)
        await asyncio.sleep(0)
        assert wakes._poked.is_set()
        assert clock.next_alarm() == SOME_DAY + 2_000
        assert set_ == [SOME_DAY + 2_000]

    run(main)
