"""Waiting, the time in a body, and chance (R16, R17, R38, R39, R47)."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from perdure import (
    Defect,
    DurableClock,
    Status,
    UsageError,
    activity,
    now,
    random,
    sleep,
    sleep_until,
    uuid4,
    workflow,
)
from perdure._model.status import is_final
from perdure._values.instant import to_datetime

from tests.engine.lab import Gate


@pytest.mark.parametrize("threshold", ["60 seconds", 0], ids=["in-memory", "durable"])
def test_a_restart_waits_only_for_the_rest(lab, threshold):
    """R16: in memory and suspended, twice over, and never early."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("50 seconds", in_memory_threshold=threshold)
        return key

    async def main():
        async with lab.doomed([nap]):
            handle = await nap.start("k")
            await lab.skip("20 seconds")
        lab.clock.advance(5_000)
        async with lab.engine([nap]):
            await lab.skip("10 seconds")
        async with lab.engine([nap]):
            await lab.skip("14999 millis")
            assert not is_final(await nap.handle(handle.execution_id).status())
            await lab.skip("1 millis")
            assert await nap.handle(handle.execution_id).status() is Status.SUCCEEDED

    lab.run(main)


@pytest.mark.parametrize("how", ["sleep", "asyncio.sleep", "asyncio.timeout", "DurableClock", "sleep_until"])
def test_no_wait_is_early(lab, how):
    """R16: whatever it is called, to the millisecond, and fractions round up."""

    async def wait(seconds: float) -> None:
        if how == "sleep":
            await sleep(seconds)
        elif how == "asyncio.sleep":
            await asyncio.sleep(seconds)
        elif how == "DurableClock":
            await DurableClock.sleep(name="nap", duration=seconds)
        elif how == "sleep_until":
            # Datetimes of a clock that knows milliseconds.
            await sleep_until(now() + timedelta(milliseconds=-(-seconds * 1_000 // 1)))
        else:
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                pass

    @workflow(idempotency_key=str)
    async def nap(seconds: float) -> float:
        began = now()
        await wait(seconds)
        return (now() - began).total_seconds()

    async def main():
        async with lab.engine([nap]):
            for seconds, waited in ((0.0011, 0.002), (1.5, 1.5), (59.9999, 60), (60, 60), (3600.25, 3600.25)):
                began = lab.clock.now()
                assert await lab.finish(nap.execute(seconds)) == waited
                assert lab.clock.now() - began == waited * 1_000

    lab.run(main)


def test_zero_and_negative_waits_return_at_once_and_record_nothing(lab):
    """R16."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        for duration in (0, -1, "0 seconds", timedelta(seconds=-5)):
            await sleep(duration)
            await DurableClock.sleep(name="nothing", duration=duration)
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        await sleep_until(now())
        await sleep_until(now() - timedelta(days=1))
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            began = lab.clock.now()
            assert await lab.finish(nap.execute("k")) == "k"
            assert lab.clock.now() == began
            assert await engine.journal(nap.execution_id("k")) == []

    lab.run(main)


def test_the_due_time_of_a_long_wait_is_recorded_and_never_changes(lab):
    """R16: also when the code has another duration when it comes back."""
    duration = "2 hours"

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep(duration, name="nap")
        return key

    async def main():
        nonlocal duration
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.settle()
            (wait,) = (await engine.describe(handle.execution_id)).waits
            due = to_datetime(lab.clock.now()) + timedelta(hours=2)
            assert (wait.kind, wait.name, wait.due_at) == ("timer", "nap", due)
            assert (await engine.describe(handle.execution_id)).wake_at == due
        duration = "5 hours"
        async with lab.engine([nap]):
            await lab.skip("7199 seconds")
            assert await nap.handle(handle.execution_id).status() is Status.SUSPENDED
            await lab.skip("1 second")
            assert await nap.handle(handle.execution_id).status() is Status.SUCCEEDED

    lab.run(main)


def test_sleep_until_waits_for_the_instant(lab):
    """R16: across a restart; naive datetimes are refused."""

    @workflow(idempotency_key=lambda until: until.isoformat())
    async def nap(until: datetime) -> datetime:
        await sleep_until(until)
        return now()

    @workflow(idempotency_key=lambda key: key)
    async def naive(key: str) -> None:
        await sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001 - the wrong that is tested

    async def main():
        async with lab.engine([nap, naive]):
            for seconds in (30, 3_600):
                until = to_datetime(lab.clock.now() + seconds * 1_000)
                assert await lab.finish(nap.execute(until)) == until
            with pytest.raises(Defect, match="time zone"):
                await lab.finish(naive.execute("k"))
            until = to_datetime(lab.clock.now() + 5_000_000)
            handle = await nap.start(until)
            await lab.skip("1 hour")
        async with lab.engine([nap, naive]):
            assert await lab.result(nap.handle(handle.execution_id)) == until

    lab.run(main)


def test_each_sleep_is_its_own_timer_whatever_its_name(lab):
    """R17."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> float:
        began = now()
        await sleep("10 seconds", name="nap")
        await sleep("10 seconds", name="nap")
        await asyncio.gather(sleep("1 hour", name="nap"), sleep("2 hours", name="nap"))
        return (now() - began).total_seconds()

    async def main():
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.skip("90 minutes")
        async with lab.engine([nap]) as engine:
            assert await lab.result(nap.handle(handle.execution_id)) == 7_220
            fired = [(e.name, e.occurrence) for e in await engine.journal(handle.execution_id) if e.kind == "timer"]
            assert fired == [("nap", 1), ("nap", 2), ("nap", 3), ("nap", 4)]

    lab.run(main)


def test_the_end_of_an_execution_clears_its_timers(lab):
    """R17: nothing wakes it, and nobody is told."""

    @workflow(idempotency_key=lambda key: key)
    async def short(key: str) -> str:
        task = asyncio.create_task(asyncio.sleep(7_200))
        other = asyncio.create_task(asyncio.sleep(30))
        await sleep("10 seconds")
        assert not task.done()
        assert not other.done()
        return key

    async def main():
        async with lab.engine([short]) as engine:
            handle = await short.start("k")
            await lab.skip("10 seconds")
            record = await lab.record(engine, handle.execution_id)
            assert (record.status, record.wake_at) == (Status.SUCCEEDED, None)
            assert await lab.probe(engine).inner.next_wake() is None
            assert lab.clock.next_event() is None
            before = await engine.journal(handle.execution_id)
            await lab.skip("1 day")
            assert await engine.journal(handle.execution_id) == before

    lab.run(main)


def test_a_cancelled_wait_records_nothing(lab):
    """R17, R16: a timeout that was not needed, a lost race."""

    @activity
    async def act() -> str:
        return "acted"

    @workflow(idempotency_key=lambda key: key)
    async def race(key: str) -> str:
        async with asyncio.timeout(30):
            first = await act()
        task = asyncio.create_task(asyncio.sleep(50))
        await asyncio.sleep(0)
        task.cancel()
        return first

    async def main():
        async with lab.engine([race]) as engine:
            assert await lab.finish(race.execute("k")) == "acted"
            assert await lab.steps(engine, race.execution_id("k")) == [("activity", "act", 1)]
            assert lab.clock.next_event() is None

    lab.run(main)


def test_the_threshold_can_be_chosen(lab):
    """R16, API 4."""

    @workflow(idempotency_key=lambda seconds, threshold: f"{seconds}/{threshold}")
    async def nap(seconds: float, threshold: float) -> None:
        await DurableClock.sleep(name="nap", duration=seconds, in_memory_threshold=threshold)

    async def main():
        async with lab.engine([nap]):
            for seconds, threshold, status in (
                (5, 0, Status.SUSPENDED), (5, 4.999, Status.SUSPENDED), (5, 5, Status.RUNNING), (7_200, 86_400, Status.RUNNING),
            ):  # fmt: skip
                handle = await nap.start(seconds, threshold)
                await lab.settle()
                assert await handle.status() is status
                await lab.result(handle)

    lab.run(main)


def test_a_body_s_time_is_the_time_of_the_last_thing_that_reached_it(lab):
    """R38: the first turn's is when it began, for good; it stands still between two awaits and never goes back."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[datetime]:
        seen = [now()]
        await act()
        seen += [now(), now()]
        await sleep("1 hour")
        return [*seen, now()]

    async def main():
        async with lab.engine([work]):
            began = lab.clock.now()
            handle = await work.start("k")
            await lab.skip("7 seconds")
            gate.open()
            await lab.skip("20 minutes")
            lab.clock.advance(-60_000)
        async with lab.engine([work]):
            first, second, third, last = await lab.result(work.handle(handle.execution_id))
            assert first == to_datetime(began)
            assert second == third == to_datetime(began + 7_000)
            assert last == to_datetime(began + 7_000 + 3_600_000)

    lab.run(main)


def test_a_waiting_start_begins_with_its_first_claim(lab):
    """R38: `began_at` is set by the first claim, and for good."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> datetime:
        began = now()
        await sleep("1 hour")
        return began

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(delay="5 minutes").start("k")
            started = lab.clock.now()
            await lab.skip("10 minutes")
            info = await engine.describe(handle.execution_id)
            assert info.created_at == to_datetime(started)
            assert info.began_at == to_datetime(started + 300_000)
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == to_datetime(started + 300_000)

    lab.run(main)


def test_a_clock_that_is_set_back_never_turns_a_body_s_time_back(lab):
    """R38: entries are in the order of their times."""
    gate = Gate()

    @activity
    async def act(n: int) -> None:
        if n == 2:
            await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[datetime]:
        await act(1)
        seen = [now()]
        await act(2)
        return [*seen, now()]

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            lab.clock.advance(-3_600_000)
            gate.open()
            first, second = await lab.result(handle)
            assert second >= first
            times = [entry.at for entry in await engine.journal(handle.execution_id)]
            assert times == sorted(times)

    lab.run(main)


def test_chance_is_the_same_on_every_replay(lab):
    """R39: named and unnamed, in the first turn and later, and never twice the same."""
    ran = []

    @activity
    async def note(what: str) -> str:
        ran.append(what)
        return what

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = [str(uuid4()), str(uuid4()), str(random().random()), str(uuid4("invoice")), str(uuid4("invoice"))]
        seen.append(await note(str(uuid4())))
        seen += [str(uuid4()), str(random("dice").randint(1, 10**9)), str(random("dice").randint(1, 10**9))]
        await sleep("1 hour")
        return [*seen, str(uuid4()), await note(str(random().random()))]

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("10 minutes")
        async with lab.engine([work]):
            seen = await lab.result(work.handle(handle.execution_id))
            other = await lab.finish(work.execute("other"))
        assert len(set(seen)) == len(seen)
        assert not set(seen) & set(other)
        assert ran[:2] == [seen[5], seen[-1]]

    lab.run(main)


def test_what_came_in_while_nobody_ran_it_is_fed_in_the_order_of_its_instants(lab):
    """R47: two timers that fell due long ago, and the shorter wins, whichever was asked for first."""

    @workflow(idempotency_key=lambda key: key)
    async def race(key: str) -> list[str]:
        order = []

        async def runner(name: str, seconds: int) -> None:
            await sleep(seconds, name=name)
            order.append(name)

        await asyncio.gather(runner("c", 10_800), runner("a", 3_600), runner("d", 14_400), runner("b", 7_200))
        return order

    async def main():
        async with lab.engine([race]):
            handle = await race.start("k")
            await lab.settle()
        lab.clock.advance(86_400_000)
        async with lab.engine([race]) as engine:
            assert await lab.result(race.handle(handle.execution_id)) == ["a", "b", "c", "d"]
            names = [entry.name for entry in await engine.journal(handle.execution_id) if entry.kind == "timer"]
            assert names == ["a", "b", "c", "d"]

    lab.run(main)


def test_a_result_that_comes_before_a_deadline_beats_it(lab):
    """R47: and one that comes after it does not."""

    @activity
    async def act(seconds: int) -> str:
        await sleep(seconds)
        return "in time"

    @workflow(idempotency_key=str)
    async def work(seconds: int) -> str:
        try:
            async with asyncio.timeout(30):
                return await act(seconds)
        except TimeoutError:
            return "too late"

    async def main():
        async with lab.engine([work]):
            early = asyncio.ensure_future(work.execute(29))
            late = asyncio.ensure_future(work.execute(31))
            await lab.skip("29 seconds")
            assert await lab.finish(early) == "in time"
            assert await lab.finish(late) == "too late"

    lab.run(main)


def test_inbox_and_timers_are_fed_in_the_order_of_their_instants(lab):
    """R47: what arrived at 29 s and what was due at 30 s are both in the inbox at 31 s; the first one decides."""
    gate = Gate()
    first_gate = Gate()

    @activity
    async def act(which: str) -> str:
        await (gate if which == "race" else first_gate).wait()
        return "in time"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        side = asyncio.ensure_future(_wait(act("side")))
        try:
            async with asyncio.timeout(30):
                seen = await act("race")
        except TimeoutError:
            seen = "too late"
        await side
        return seen

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.skip("28 seconds")
            hold = lab.probe(engine).hold("commit")
            first_gate.open()
            await lab.settle()
            assert hold.kept == 1
            lab.clock.advance(1_000)
            gate.open()
            await lab.settle()
            lab.clock.advance(2_000)
            await lab.settle()
            hold.release()
            assert await lab.result(handle) == "in time"

    lab.run(main)


async def _wait(step):
    await step


def test_asyncio_s_time_is_the_body_s(lab):
    """R38: `loop.time()` moves with `now()`."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[float]:
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        await asyncio.sleep(1.5)
        seen.append(loop.time())
        await asyncio.sleep(7_200)
        return [*seen, loop.time()]

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == [0, 1.5, 7_201.5]

    lab.run(main)


def test_a_wait_outside_of_bodies_is_an_ordinary_one(lab):
    """API 4: in an activity on the engine's clock, elsewhere on asyncio's."""

    @activity
    async def act() -> float:
        began = now()
        await sleep("2 hours")
        return (now() - began).total_seconds()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> float:
        return await act()

    async def main():
        await sleep("1 millis")
        assert now().tzinfo is UTC
        async with lab.engine([work]) as engine:
            assert await lab.finish(work.execute("k")) == 7_200
            assert await lab.steps(engine, work.execution_id("k")) == [("activity", "act", 1)]
        with pytest.raises(UsageError):
            await sleep("a while")

    lab.run(main)


def test_a_delayed_start_is_never_early(lab):
    """API 2: `options(delay=…)`; it is SUSPENDED until then, survives a restart, and joins like any other."""
    ran = []

    @activity
    async def act() -> None:
        ran.append(lab.clock.now())

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act()
        return key

    async def main():
        async with lab.engine([work]) as engine:
            began = lab.clock.now()
            handle = await work.options(delay="1 hour").start("k")
            assert await handle.status() is Status.SUSPENDED
            assert (await engine.describe(handle.execution_id)).wake_at == to_datetime(began + 3_600_000)
            await work.start("k")
            await lab.skip("30 minutes")
            assert ran == []
        async with lab.engine([work]):
            await lab.skip("1799999 millis")
            assert ran == []
            await lab.skip("1 millis")
            assert await work.handle(handle.execution_id).status() is Status.SUCCEEDED
            assert ran == [began + 3_600_000]
            now_at_once = await work.options(delay=0).start("none")
            assert await lab.result(now_at_once) == "none"
            assert ran == [began + 3_600_000] * 2

    lab.run(main)


def test_a_wake_of_which_no_hint_came_is_found_at_the_next_poll(file_lab):
    """Promise 7, R18: whoever has put it to sleep is gone, and nobody has told the others."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("2 hours")
        return key

    async def main():
        deaf = file_lab.store()
        deaf.listen = lambda hint: None
        async with file_lab.engine([nap], store=deaf) as other:
            async with file_lab.engine([nap]) as engine:
                handle = await engine.start(nap, "k")
                await file_lab.settle()
            file_lab.clock.advance(5_000)
            await file_lab.settle()
            assert await other.poll(handle.execution_id) is not None
            await file_lab.skip("2 hours")
            assert (await other.describe(handle.execution_id)).status is Status.SUCCEEDED

    file_lab.run(main)
