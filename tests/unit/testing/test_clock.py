"""The clock of tests: it rings what is set, when it is told that the time has come."""

import asyncio

from perdure.testing.clock import ManualClock


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
