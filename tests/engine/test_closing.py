"""Leaving: grace for what runs, then everything back, and nothing lost (R6, R9, R12)."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from contextvars import copy_context

import pytest

from perdure import (
    OutcomeUnknown,
    Status,
    UsageError,
    WorkflowEngine,
    activity,
    current_engine,
    heartbeat,
    sleep,
    workflow,
)
from perdure._engine.threads import Threads
from perdure.errors import StoreFileError

from tests.engine.lab import Gate, Lab, ThreadGate, until


def test_running_activities_get_their_grace(lab):
    """API 7: what ends within it is recorded, and nothing new begins."""
    gate = Gate()
    ran = []

    @activity
    async def act(n: int) -> int:
        ran.append(n)
        if n == 1:
            await gate.wait()
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act(1) + await act(2)

    async def main():
        async with lab.engine([work], grace="10 seconds") as engine:
            handle = await work.start("k")
            await lab.settle()
            closing = asyncio.ensure_future(engine.drain("10 seconds"))
            await lab.settle()
            assert not closing.done()
            gate.open()
            assert await closing is True
            await lab.settle()
            assert await lab.steps(engine, handle.execution_id) == [("activity", "act", 1)]
            assert ran == [1]
        async with lab.engine([work]) as engine:
            assert (await engine.describe(handle.execution_id)).crashes == 0
            assert await lab.result(work.handle(handle.execution_id)) == 3
        assert ran == [1, 2]

    lab.run(main)


def test_what_outlives_its_grace_is_cut_off_and_runs_again_elsewhere(lab, log):
    """R9: recorded nowhere."""
    gate = Gate()
    ran = []

    @activity
    async def act() -> int:
        ran.append(1)
        if len(ran) == 1:
            await gate.wait()
        return len(ran)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work], grace=0):
            handle = await work.start("k")
            await lab.settle()
        assert any("did not end within their grace" in record.getMessage() for record in log.records)
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == 2
            assert len(await engine.journal(handle.execution_id)) == 1

    lab.run(main)


def test_a_drained_engine_takes_nothing_new(lab):
    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([work, nap]) as engine:
            handle = await nap.start("k")
            await lab.settle()
            assert await engine.drain(0) is True
            with pytest.raises(UsageError, match="closing"):
                await work.start("new")
            await lab.skip("2 hours")
            assert await handle.status() in {Status.SUSPENDED, Status.PENDING}
        async with lab.engine([work, nap]):
            assert await lab.result(nap.handle(handle.execution_id)) == "k"

    lab.run(main)


def test_the_last_result_is_recorded_even_if_it_came_with_the_cut(lab):
    """R9: in time, and what it allows is not begun any more; the execution may even end with it."""
    gate = Gate()

    @activity
    async def act() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await gate.wait()
        return "saved"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act()

    async def main():
        async with lab.engine([work]):
            waiting = asyncio.ensure_future(work.execute("k"))
            await lab.settle()
        assert await waiting == "saved"
        async with lab.engine([work]) as engine:
            assert (await engine.describe(work.execution_id("k"))).status is Status.SUCCEEDED

    lab.run(main)


def test_who_waits_when_the_engine_closes_hears_so(lab):
    """And may go on waiting with the next engine."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("30 seconds" if key == "short" else "1 hour")
        return key

    async def main():
        async with lab.engine([nap]):
            waiting = [asyncio.ensure_future(nap.execute(key)) for key in ("short", "long")]
            waiting.append(asyncio.ensure_future(nap.handle(nap.execution_id("long")).result(timeout="1 day")))
            await lab.settle()
        for each in waiting:
            with pytest.raises(UsageError, match="closed while somebody waited"):
                await each
        async with lab.engine([nap]):
            for key in ("short", "long"):
                assert await lab.finish(nap.execute(key)) == key

    lab.run(main)


def test_a_thread_that_never_ends_does_not_keep_the_engine_open(file_lab, log):
    """R12: its execution stays with the process until that ends; nobody else begins it a second time."""
    gate = ThreadGate()
    ran = []

    @activity
    def stuck() -> None:
        ran.append(1)
        gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if key == "stuck":
            await stuck()
        else:
            await sleep("30 seconds")
        return key

    async def main():
        async with file_lab.engine([work]) as engine:
            handle = await work.start("stuck")
            other = await work.start("other")
            await gate.reached()
            await file_lab.settle()
            former = file_lab.service(engine).worker_id
            store = file_lab.probe(engine).inner
        assert any("their threads still run" in record.getMessage() for record in log.records)
        async with file_lab.engine([work]) as engine:
            await file_lab.skip("10 seconds")
            record = await file_lab.record(engine, handle.execution_id)
            assert (record.status, record.owner) == (Status.RUNNING, former)
            assert await file_lab.result(work.handle(other.execution_id)) == "other"
            assert ran == [1]
            # The process ends: its lock is gone.
            gate.open()
            await store.close()
            await file_lab.skip("2 seconds")
            assert await file_lab.result(work.handle(handle.execution_id)) == "stuck"
            assert (await engine.describe(handle.execution_id)).crashes <= 1
        assert ran == [1, 1]

    file_lab.run(main)


def test_an_async_attempt_that_never_ends_does_not_keep_the_engine_open(lab, monkeypatch):
    """It is left to itself after its time to end."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    gate = Gate()
    ran = []

    @activity
    async def stubborn() -> int:
        ran.append(1)
        while len(ran) == 1 and not gate._open.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return len(ran)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await stubborn()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == 2
            gate.open()
            await lab.settle()

    lab.run(main)


def test_nothing_is_left_of_a_closed_engine(lab):
    """Tasks, alarms, owned rows and its worker's life."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        if key == "act":
            await act()
        await sleep("30 seconds" if key == "short" else "1 hour")

    async def main():
        before = asyncio.all_tasks()
        async with lab.engine([work]) as engine:
            for key in ("act", "short", "long"):
                await work.start(key)
            await lab.settle()
            worker = lab.service(engine).worker_id
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert lab.clock.next_event() is None
        assert lab.clock.next_alarm() is None
        store = lab.store()
        await store.open()
        assert await store.owned(worker) == {}
        (row,) = [one for one in await store.workers() if one.worker_id == worker]
        assert row.retired_at is not None
        from perdure._model.records import Query

        statuses = {record.key: record.status for record in await store.executions(Query())}
        assert statuses == {"act": Status.PENDING, "short": Status.PENDING, "long": Status.SUSPENDED}
        await store.close()

    lab.run(main)


def test_a_cancelled_close_is_finished_all_the_same(lab):
    """A second Ctrl-C must not leave the store half closed."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        store = lab.store()
        leave = Gate()

        async def session() -> None:
            async with WorkflowEngine(store, [work], grace="10 seconds"):
                await work.start("k")
                await leave.wait()

        task = asyncio.ensure_future(session())
        await lab.settle()
        assert gate.entered == 1
        leave.open()
        await lab.settle()
        task.cancel()
        await lab.settle()
        task.cancel()
        await lab.settle()
        assert not task.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.inner._lanes is None
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) is None

    lab.run(main)


def test_an_engine_that_cannot_open_can_be_tried_again(lab):
    """The store was away; nothing of the first try is left."""
    from perdure import StoreUnavailableError

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        for method in ("open", "register"):
            store = lab.store()
            store.fail(method, 1)
            with pytest.raises(StoreUnavailableError):
                async with lab.engine([work], store=store):
                    pass
            assert store.inner._lanes is None
            async with lab.engine([work], store=lab.store()):
                assert await lab.finish(work.execute("k")) == "k"

    lab.run(main)


def test_two_engines_of_one_process_close_apart(lab):
    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await sleep("10 seconds")
        return key

    async def main():
        from contextlib import AsyncExitStack

        async with AsyncExitStack() as first, AsyncExitStack() as second:
            one = await first.enter_async_context(lab.engine([work]))
            other = await second.enter_async_context(lab.engine([work]))
            handle = await other.start(work, "k")
            await lab.settle()
            await first.aclose()
            with pytest.raises(UsageError, match="not open"):
                await one.start(work, "late")
            assert await lab.finish(handle.result()) == "k"

    lab.run(main)


# What closing is told of and what it leaves ----------------------------------------------------------


async def closing(lab: Lab, engine: WorkflowEngine) -> None:
    """Until an engine is being left, and nothing happens any more until its grace is over."""
    await until(lambda: engine._state != "open")
    await lab.settle()


def test_closing_begins_no_function_that_waits_for_a_thread(file_lab):
    """R9, R12: only what is on a thread stays with the process; what has not begun is given back."""
    gate = ThreadGate()
    ran = []

    @activity
    def stuck(key: str) -> str:
        ran.append(key)
        gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await stuck(key)

    async def main():
        async with file_lab.engine([work], threads=1) as engine:
            for key in "abc":
                await work.start(key)
                await file_lab.settle()
            await gate.reached()
            former = file_lab.service(engine).worker_id
            before = threading.active_count()
            store = file_lab.probe(engine).inner
        assert threading.active_count() <= before
        assert ran == ["a"]
        assert list(await store.owned(former)) == [work.execution_id("a")]
        async with file_lab.engine([work], threads=2):
            gate.open()
            for key in "bc":
                assert await file_lab.result(work.handle(work.execution_id(key))) == key
            await store.close()
            await file_lab.skip("2 seconds")
            assert await file_lab.result(work.handle(work.execution_id("a"))) == "a"
        assert sorted(ran) == ["a", "a", "b", "c"]

    file_lab.run(main)


def test_closed_threads_begin_nothing(run):
    """R12: neither the idle thread nor the one whose place an abandoned call gives away."""
    gate = ThreadGate()
    ran = []

    async def main():
        threads = Threads(1)
        first = threads.submit(gate.wait, copy_context())
        await gate.reached()
        second = threads.submit(lambda: ran.append(2), copy_context())
        assert (first.begun, second.begun) == (True, False)
        before = threading.active_count()
        threads.close()
        assert threads.abandon(first) is True
        third = threads.submit(lambda: ran.append(3), copy_context())
        assert threading.active_count() == before
        gate.open()
        await until(lambda: threading.active_count() < before)
        assert ran == []
        assert threads.abandon(second) is False
        assert threads.abandon(third) is False

    run(main)


def test_the_thread_that_comes_back_after_closing_takes_nothing_more(run):
    """R12: its function returns in its grace, and the next one has not begun."""
    gate = ThreadGate()
    ran = []

    async def main():
        threads = Threads(1)
        first = threads.submit(gate.wait, copy_context())
        await gate.reached()
        threads.submit(lambda: ran.append(2), copy_context())
        before = threading.active_count()
        threads.close()
        gate.open()
        await first.future
        await until(lambda: threading.active_count() < before)
        assert ran == []

    run(main)


def test_an_activity_in_its_grace_may_still_ask_its_engine(lab):
    """R9: that the engine closes would become its recorded result. What it starts is stored, and runs later."""
    gate = Gate()

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return key

    @activity
    async def act() -> list[object]:
        await gate.wait()
        fresh = await other.start("fresh")
        delayed = await other.options(delay="1 hour").start("delayed")
        return [
            await other.execute("ended"),
            (await current_engine().describe(delayed.execution_id)).status.value,
            await fresh.poll() is None,
        ]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[object]:
        return await act()

    async def main():
        async with lab.engine([work, other], grace="10 seconds") as engine:
            await lab.finish(other.execute("ended"))
            handle = await work.start("k")
            await lab.settle()

            async def later() -> None:
                await closing(lab, engine)
                with pytest.raises(UsageError, match="not open"):
                    await engine.start(other, "from outside")
                gate.open()

            asked = asyncio.ensure_future(later())
        await asked
        async with lab.engine([work, other]):
            assert await lab.result(work.handle(handle.execution_id)) == ["ended", "SUSPENDED", True]
            for key in ("fresh", "delayed"):
                assert await lab.result(other.handle(other.execution_id(key))) == key
        assert gate.entered == 1

    lab.run(main)


def test_everything_else_is_given_back_beside_a_stuck_thread(file_lab):
    """R6, R12: also the suspects that wait, and what is owned on paper only."""
    gate = ThreadGate()
    ran = []

    @activity
    def act(key: str) -> str:
        ran.append(key)
        if len(ran) == 1:
            gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with file_lab.engine() as client:
            for key in "ab":
                await client.start(work, key)
            await file_lab.probe(client).inner._write(lambda db: db.execute("update perdure_executions set crashes=2"))
            async with file_lab.engine([work]) as engine:
                await gate.reached()
                await client.start(work, "c")
                service, probe = file_lab.service(engine), file_lab.probe(engine)
                (waiting,) = service._suspects.waiting
                # A claim whose answer was lost.
                (lost,) = await probe.inner.claim(service.worker_id, ["work"], 1)
                assert lost.key == "c"
            owned = await probe.inner.owned(service.worker_id)
            (stuck,) = {work.execution_id(key) for key in "ab"} - {waiting}
            assert list(owned) == [stuck]
            async with file_lab.engine([work]):
                for key in "abc":
                    if work.execution_id(key) != stuck:
                        assert await file_lab.finish(client.execute(work, key)) == key
                gate.open()
                await probe.inner.close()
                await file_lab.skip("2 seconds")

    file_lab.run(main)


def test_an_at_most_once_attempt_that_is_noted_while_the_engine_closes_does_begin(lab):
    """R50: nobody could tell later that it has not, and it gets its grace."""
    gate = Gate()
    ran = []

    @activity(delivery="at_most_once")
    async def launch(key: str) -> str:
        ran.append(key)
        await gate.wait()
        return "launched"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await launch(key)

    async def main():
        async with lab.engine([work], grace="10 seconds") as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(work.start("k"))
            await lab.settle()
            assert hold.kept == 1

            async def later() -> None:
                await closing(lab, engine)
                hold.release()
                await lab.settle()
                assert ran == ["k"]
                gate.open()

            asked = asyncio.ensure_future(later())
        await asked
        handle = await starting
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "launched"
        assert ran == ["k"]

    lab.run(main)


def test_nothing_begins_when_the_grace_is_over(lab):
    """R9, R50: its beginning is noted too late. It would go on without an engine; that nobody knows is the truth."""
    ran = []

    @activity(delivery="at_most_once")
    async def launch(key: str) -> str:
        ran.append(key)
        return "launched"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await launch(key)

    async def main():
        before = asyncio.all_tasks()
        async with lab.engine([work], grace=0) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(work.start("k"))
            await lab.settle()

            async def later() -> None:
                await closing(lab, engine)
                hold.release()

            asked = asyncio.ensure_future(later())
        await asked
        handle = await starting
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert ran == []
        async with lab.engine([work]):
            with pytest.raises(OutcomeUnknown):
                await lab.result(work.handle(handle.execution_id))
        assert ran == []

    lab.run(main)


def test_what_waits_for_a_place_does_not_begin_while_the_engine_closes(lab):
    """API 7: the place that becomes free in the grace stays free."""
    gate = Gate()
    ran = []

    @activity
    async def act(n: int) -> int:
        ran.append(n)
        await gate.wait()
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return sum(await asyncio.gather(*(act(n) for n in range(5))))

    async def main():
        async with lab.engine([work], concurrency=1) as engine:
            handle = await work.start("k")
            await lab.settle()
            draining = asyncio.ensure_future(engine.drain("10 seconds"))
            await lab.settle()
            gate.open()
            assert await draining is True
            assert len(ran) == 1
            await lab.settle()
            assert len(await lab.steps(engine, handle.execution_id)) == 1
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == 10
        assert sorted(ran) == [0, 1, 2, 3, 4]

    lab.run(main)


@pytest.mark.parametrize("method", ["save_heartbeat", "retire"])
def test_the_store_is_closed_whatever_it_says_at_the_end(lab, method, log):
    """Promise 8: a store that is damaged is not left open as well."""
    gate = Gate()

    @activity
    async def act() -> None:
        heartbeat("begun")
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        before = asyncio.all_tasks()
        released = asyncio.Event()

        async def damaged(*args: object) -> None:
            await released.wait()
            raise StoreFileError("it is damaged", path="x")

        async with lab.engine([work], grace=0) as engine:
            probe = lab.probe(engine)
            setattr(probe, method, damaged)
            await work.start("k")
            await lab.settle()

            async def later() -> None:
                await closing(lab, engine)
                released.set()

            asked = asyncio.ensure_future(later())
        await asked
        assert probe.inner._lanes is None
        assert asyncio.all_tasks() == before

    lab.run(main)
    assert any("it is damaged" in record.getMessage() for record in log.records)


CATCHES_EVERYTHING = """
import asyncio
from perdure import Status, WorkflowEngine, sleep, workflow

@workflow
async def stubborn() -> None:
    while True:
        try:
            await sleep("1 hour", name="nap")
        except BaseException:
            continue

async def main():
    async with WorkflowEngine.memory([stubborn], grace=0):
        handle = await stubborn.start()
        while await handle.status() is not Status.SUSPENDED:
            await asyncio.sleep(0)

asyncio.run(main())
print("the engine has closed", flush=True)
"""


def test_a_process_ends_whatever_its_bodies_catch():
    """R6: an interpreter that closed such a frame once more at its own end would be in its loop for ever."""
    command = [sys.executable, "-c", CATCHES_EVERYTHING]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=15)
    assert (ran.stdout, ran.returncode) == ("the engine has closed\n", 0)
    assert "stubborn refused to close" in ran.stderr
