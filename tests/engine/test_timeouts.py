"""Timeouts of attempts, on the loop and on threads (R12), and heartbeats (R15)."""

import asyncio
import contextlib
import threading

import pytest

from perdure import (
    ActivityTimeout,
    AttemptCancelled,
    PayloadError,
    Schedule,
    Status,
    activity,
    current_attempt,
    heartbeat,
    last_heartbeat,
    sleep,
    workflow,
)

from tests.engine.lab import Gate, ThreadGate, until


def test_a_timeout_ends_an_attempt(lab):
    """R12: at its instant, with an error that knows its activity, attempt and timeout."""
    seen = []

    @activity(name="Slow", timeout="30 seconds")
    async def slow() -> None:
        try:
            await Gate().wait()
        except asyncio.CancelledError:
            seen.append(lab.clock.now())
            raise

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[object]:
        try:
            await slow()
        except ActivityTimeout as late:
            first = [str(late), late.activity, late.attempt, late.timeout_ms]
        await sleep("1 hour")
        return first

    async def main():
        async with lab.engine([work]):
            began = lab.clock.now()
            message = "Activity 'Slow' did not end within 30 seconds (attempt 1)."
            assert await lab.finish(work.execute("k")) == [message, "Slow", 1, 30_000]
            assert seen == [began + 30_000]

    lab.run(main)


def test_a_timeout_is_a_retryable_failure(lab):
    """R12."""
    attempts = []

    @activity(timeout="30 seconds", retry=Schedule.spaced("10 seconds").times(2))
    async def slow() -> int:
        attempts.append(lab.clock.now())
        if current_attempt() < 3:
            await Gate().wait()
        return current_attempt()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await slow()

    async def main():
        async with lab.engine([work]):
            began = lab.clock.now()
            assert await lab.finish(work.execute("k")) == 3
            assert [each - began for each in attempts] == [0, 40_000, 80_000]

    lab.run(main)


def test_what_a_timed_out_attempt_returns_or_raises_does_not_count(lab):
    """R12: the timeout is what is recorded."""

    @activity(timeout="30 seconds")
    async def stubborn(how: str) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await Gate().wait()
        if how == "raises":
            raise RuntimeError("too late")
        return "too late"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await stubborn(key)

    async def main():
        async with lab.engine([work]):
            for how in ("returns", "raises"):
                with pytest.raises(ActivityTimeout):
                    await lab.finish(work.execute(how))

    lab.run(main)


def test_a_timed_out_attempt_that_does_not_end_is_left_to_itself(lab, log):
    """R12: after ten seconds for its clean-up."""
    gate = Gate()
    ended = []

    @activity(timeout="30 seconds")
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
                ended.append(1)
                return

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await stubborn()

    async def main():
        async with lab.engine([work], concurrency=1) as engine:
            began = lab.clock.now()
            with pytest.raises(ActivityTimeout):
                await lab.finish(work.execute("k"))
            assert lab.clock.now() == began + 40_000
            assert any("left to itself" in record.getMessage() for record in log.records)
            gate.open()
            await lab.settle()
            assert ended == [1]
            assert len(await engine.journal(work.execution_id("k"))) == 1

    lab.run(main)


def test_a_thread_that_outlives_its_timeout_is_abandoned(lab, log):
    """R12: its place is given back, its late result ignored, said in the log and counted."""
    gate = ThreadGate()
    late = []

    @activity(timeout="30 seconds", retry=Schedule.recurs(1))
    def slow() -> str:
        if current_attempt() == 1:
            gate.wait()
            late.append(1)
            return "late"
        return f"attempt {current_attempt()}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await slow()

    async def main():
        async with lab.engine([work], threads=1, concurrency=1) as engine:
            handle = await work.start("k")
            await gate.reached()
            began = lab.clock.now()
            assert await lab.result(handle) == "attempt 2"
            assert lab.clock.now() == began + 30_000
            assert lab.service(engine).threads.abandoned == 1
            assert [
                r for r in log.records if "still runs on its thread" in r.getMessage() and "'slow'" in r.getMessage()
            ]
            gate.open()
            await until(lambda: late)
            assert [entry.attempt for entry in await engine.journal(handle.execution_id)] == [1, 2]
            other = await work.start("other")
            gate_now_open = await lab.result(other)
            assert gate_now_open == "late"

    lab.run(main)


def test_a_timeout_counts_from_when_a_function_has_its_thread(lab):
    """R12: who waits behind others has done nothing wrong, and is neither failed nor abandoned for it."""
    gates = [ThreadGate(), ThreadGate()]
    ran = []

    @activity(timeout="1 day")
    def first() -> None:
        gates[0].wait()

    @activity(timeout="30 seconds", retry=Schedule.spaced("1 second").times(1))
    def second() -> str:
        ran.append(current_attempt())
        if current_attempt() == 1:
            gates[1].wait()
        return f"attempt {current_attempt()}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        task = asyncio.ensure_future(_wait(first()))
        await sleep("1 second")
        seen = await second()
        await task
        return seen

    async def main():
        async with lab.engine([work], threads=1) as engine:
            handle = await work.start("k")
            await gates[0].reached()
            await lab.skip("1 hour")
            assert ran == []
            gates[0].open()
            await gates[1].reached()
            await lab.skip("29 seconds")
            assert lab.service(engine).threads.abandoned == 0
            await lab.skip("1 second")
            assert lab.service(engine).threads.abandoned == 1
            assert await lab.result(handle) == "attempt 2"
            assert ran == [1, 2]
            gates[1].open()

    lab.run(main)


async def _wait(step):
    await step


def test_a_timeout_counts_from_when_the_attempt_has_its_place(lab):
    """R12, API 7: waiting for one of the engine's places is not the attempt's fault."""
    gate = Gate()

    @activity
    async def busy() -> None:
        await gate.wait()

    @activity(timeout="10 seconds")
    async def quick() -> str:
        return "done"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await (busy() if key == "busy" else quick())
        return key

    async def main():
        async with lab.engine([work], concurrency=1):
            blocking = await work.start("busy")
            await lab.settle()
            waiting = await work.start("quick")
            await lab.skip("1 hour")
            gate.open()
            assert await lab.result(waiting) == "quick"
            await lab.result(blocking)

    lab.run(main)


def test_the_time_of_all_attempts_passes_in_the_queue_and_what_is_late_is_not_called(lab):
    """R11: the body hears of it at its time, and not when a place is free."""
    gate = Gate()
    called = []

    @activity
    async def busy() -> None:
        await gate.wait()

    @activity(total_timeout="10 seconds")
    async def charge() -> None:
        called.append("charge")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if key == "busy":
            await busy()
            return "done"
        try:
            await charge()
        except ActivityTimeout as error:
            return f"after {error.timeout_ms} ms"
        return "charged"

    async def main():
        async with lab.engine([work], concurrency=1) as engine:
            blocking = await work.start("busy")
            await lab.settle()
            waiting = await work.start("late")
            await lab.skip("9 seconds")
            assert await waiting.status() is Status.RUNNING
            await lab.skip("1 second")
            assert await lab.result(waiting) == "after 10000 ms"
            gate.open()
            assert await lab.result(blocking) == "done"
            assert called == []
            assert lab.service(engine).slots.try_take()

    lab.run(main)


# Heartbeats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_thread", [False, True], ids=["async", "thread"])
def test_the_next_attempt_reads_the_last_heartbeat(lab, on_thread):
    """R15: for both kinds, and nothing of it is in the journal."""
    seen = []

    def step() -> int:
        seen.append(last_heartbeat(int))
        for n in range((last_heartbeat(int) or 0) + 1, 10):
            heartbeat(n)
            if n == 4 and current_attempt() == 1:
                raise RuntimeError("again")
        return last_heartbeat(int) or 0

    @activity(name="import", retry=Schedule.spaced("10 seconds").times(2))
    async def on_loop() -> int:
        return step()

    @activity(name="import", retry=Schedule.spaced("10 seconds").times(2))
    def in_thread() -> int:
        return step()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await (in_thread() if on_thread else on_loop())

    async def main():
        async with lab.engine([work]) as engine:
            assert await lab.finish(work.execute("k")) == 9
            assert await lab.steps(engine, work.execution_id("k")) == [
                ("activity", "import", 1),
                ("activity", "import", 2),
            ]
        assert seen == [None, 4]

    lab.run(main)


def test_a_heartbeat_survives_a_crash(lab):
    """R15: the attempt that is made again reads what the one before noted."""
    seen = []
    gate = Gate()

    @activity
    async def load() -> str:
        seen.append((current_attempt(), last_heartbeat(dict)))
        if not gate._open.is_set():
            heartbeat({"row": 17})
            await gate.wait()
        return "loaded"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await load()

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
            await lab.settle()
        gate.open()
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "loaded"
        assert seen == [(1, None), (1, {"row": 17})]

    lab.run(main)


def test_heartbeats_are_written_once_a_second_at_most(lab):
    """R15: and what came too soon is written when the attempt ends."""
    gates = [Gate() for _ in range(4)]

    @activity(retry=Schedule.recurs(1))
    async def act() -> int | None:
        if current_attempt() == 2:
            return last_heartbeat(int)
        for n, gate in enumerate(gates):
            for m in range(5):
                heartbeat(10 * n + m)
            await gate.wait()
        raise RuntimeError("again")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int | None:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            calls = lab.probe(engine).calls
            assert calls["save_heartbeat"] == 1
            gates[0].open()
            await lab.settle()
            assert calls["save_heartbeat"] == 1
            await lab.skip("1 second")
            gates[1].open()
            await lab.settle()
            assert calls["save_heartbeat"] == 2
            gates[2].open()
            gates[3].open()
            assert await lab.result(handle) == 34
            assert calls["save_heartbeat"] == 3

    lab.run(main)


def test_a_thread_whose_attempt_is_over_hears_so(lab):
    """R15: `AttemptCancelled` from its next heartbeat, after a timeout and after a stop."""
    gates = {"timeout": ThreadGate(), "stop": ThreadGate()}
    told = []

    @activity(timeout="30 seconds")
    def slow(how: str) -> None:
        heartbeat(1)
        gates[how].wait()
        try:
            heartbeat(2)
        except AttemptCancelled as over:
            told.append((how, str(over)))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await slow(key)

    async def main():
        async with lab.engine([work]):
            handle = await work.start("timeout")
            await gates["timeout"].reached()
            with pytest.raises(ActivityTimeout):
                await lab.result(handle)
            gates["timeout"].open()
            await work.start("stop")
            await gates["stop"].reached()
        gates["stop"].open()
        await until(lambda: len(told) == 2)
        assert {how for how, _ in told} == {"timeout", "stop"}
        assert all("Attempt 1 of activity 'slow' is over" in said for _, said in told)

    lab.run(main)


def test_a_heartbeat_never_blocks_and_never_fails_for_the_store(lab):
    """R15: a store that does not answer costs the next attempt a little work, and nothing else."""

    @activity(retry=Schedule.recurs(1))
    async def act() -> str:
        heartbeat("alive")
        if current_attempt() == 1:
            raise RuntimeError("again")
        return "done"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            lab.probe(engine).fail("save_heartbeat", 10)
            lab.probe(engine).fail("heartbeat", 1)
            assert await lab.finish(work.execute("k")) == "done"

    lab.run(main)


def test_an_attempt_waits_for_a_store_that_cannot_say_what_the_last_one_noted(lab, monkeypatch):
    """R15: it neither hangs nor begins without knowing."""

    @activity(retry=Schedule.spaced("10 seconds").times(1))
    async def act() -> object:
        if current_attempt() == 1:
            heartbeat("half way")
            raise RuntimeError("again")
        return last_heartbeat(str)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> object:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            lab.probe(engine).fail("heartbeat", 2)
            assert await lab.result(handle) == "half way"

    lab.run(main)


def test_the_next_attempt_need_not_wait_until_a_heartbeat_is_written(lab):
    """R15: what has been noted in this process is known in it."""

    @activity(retry=Schedule.recurs(1))
    async def act() -> object:
        if current_attempt() == 1:
            heartbeat("half way")
            raise RuntimeError("again")
        return last_heartbeat(str)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> object:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            hold = lab.probe(engine).hold("save_heartbeat", before=True)
            assert await lab.finish(work.execute("k")) == "half way"
            assert hold.kept == 1
            hold.release()

    lab.run(main)


def test_details_that_json_cannot_say_are_refused(lab):
    """R15."""

    @activity
    async def act() -> str:
        try:
            heartbeat(object())
        except PayloadError as refused:
            return str(refused)
        return "?"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act()

    async def main():
        async with lab.engine([work]):
            assert 'Heartbeat of activity "act"' in await lab.finish(work.execute("k"))

    lab.run(main)


def test_heartbeats_of_calls_side_by_side_are_kept_apart(lab):
    """R15, R8."""

    @activity(retry=Schedule.recurs(1))
    def act(n: int) -> int | None:
        if current_attempt() == 1:
            heartbeat(n)
            raise RuntimeError("again")
        return last_heartbeat(int)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int | None]:
        return await asyncio.gather(*(act(n) for n in range(5)))

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == [0, 1, 2, 3, 4]

    lab.run(main)


# At most once -----------------------------------------------------------------------------------------


def test_the_start_of_an_at_most_once_attempt_is_durable_before_it_begins(lab):
    """R50."""
    from perdure._model.journal import Kind

    ran = []

    @activity(delivery="at_most_once")
    async def launch() -> str:
        ran.append(1)
        return "launched"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await launch()

    async def main():
        async with lab.engine([work]) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(work.start("k"))
            await lab.settle()
            assert [entry.kind for entry in lab.probe(engine).commits[0].entries] == [Kind.ATTEMPT_BEGUN]
            assert hold.kept == 1
            assert ran == []
            hold.release()
            assert await lab.result(await starting) == "launched"
            assert await lab.steps(engine, work.execution_id("k")) == [
                ("begun", "launch", 1),
                ("activity", "launch", 1),
            ]
        assert ran == [1]

    lab.run(main)


def test_an_at_most_once_attempt_that_a_crash_cut_off_is_not_made_again(lab):
    """R50: the body hears `OutcomeUnknown`, which it can catch, and hears it again on every replay."""
    from perdure import OutcomeUnknown

    ran = []
    gate = Gate()

    @activity(delivery="at_most_once")
    async def launch(n: int) -> str:
        ran.append(n)
        if n == 1:
            await gate.wait()
        return f"launched {n}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[object]:
        try:
            seen: list[object] = [await launch(1)]
        except OutcomeUnknown as unknown:
            seen = [unknown.activity, unknown.attempt, "had begun" in str(unknown)]
        await sleep("1 hour")
        return [*seen, await launch(2)]

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]):
            await lab.skip("10 minutes")
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == ["launch", 1, True, "launched 2"]
            assert (await lab.steps(engine, handle.execution_id))[:2] == [
                ("begun", "launch", 1),
                ("activity", "launch", 1),
            ]
        assert ran == [1, 2]

    lab.run(main)


def test_an_at_most_once_failure_is_tried_again_where_it_is_known(lab):
    """R50: only a cut-off attempt is of unknown outcome; each attempt is noted."""
    attempts = []

    @activity(delivery="at_most_once", retry=Schedule.spaced("10 seconds").times(2))
    async def launch() -> int:
        attempts.append(current_attempt())
        if current_attempt() < 3:
            raise RuntimeError("again")
        return current_attempt()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await launch()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("5 seconds")
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == 3
            assert [(kind, attempt) for kind, _, attempt in await lab.steps(engine, handle.execution_id)] == [
                ("begun", 1), ("activity", 1), ("begun", 2), ("activity", 2), ("begun", 3), ("activity", 3),
            ]  # fmt: skip
        assert attempts == [1, 2, 3]

    lab.run(main)


def test_a_stop_before_an_at_most_once_attempt_is_noted_does_not_make_it_unknown(lab):
    """R50: an engine that is closing notes no attempt that it will not begin."""
    ran = []

    @activity(delivery="at_most_once")
    async def launch() -> str:
        ran.append(1)
        return "launched"

    @activity
    async def before() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await before()
        return await launch()

    gate = Gate()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            closing = asyncio.ensure_future(engine.drain("10 seconds"))
            await lab.settle()
            gate.open()
            assert await closing is True
            await lab.settle()
            assert await lab.steps(engine, handle.execution_id) == [("activity", "before", 1)]
            assert ran == []
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "launched"
        assert ran == [1]

    lab.run(main)


def test_concurrent_at_most_once_calls_of_one_name_are_told_apart(lab):
    """R50, R8: with equal inputs too."""
    from perdure import OutcomeUnknown

    ran = []
    gate = Gate()

    @activity(delivery="at_most_once")
    async def launch(n: int) -> int:
        ran.append(n)
        if len(ran) <= 3 and n == 1:
            await gate.wait()
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        ends = await asyncio.gather(launch(1), launch(1), launch(2), return_exceptions=True)
        ends.append(await launch(1))
        return ["unknown" if isinstance(end, OutcomeUnknown) else str(end) for end in ends]

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
            await lab.settle()
        gate.open()
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == ["unknown", "unknown", "2", "1"]
        assert sorted(ran) == [1, 1, 1, 2]

    lab.run(main)


def test_no_thread_of_an_activity_keeps_the_process(lab):
    """R12: they are daemon threads of the engine's own."""
    seen = []

    @activity
    def act() -> None:
        seen.append((threading.current_thread().daemon, threading.current_thread().name))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]):
            await lab.finish(work.execute("k"))
        assert seen == [(True, "perdure-activity")]

    lab.run(main)


def test_what_the_body_withdraws_when_it_hears_of_an_unknown_outcome_does_not_begin(lab):
    """R50, R9: both were due in the same turn, and one of them is not wanted any more."""
    from perdure import OutcomeUnknown

    ran = []
    gate = Gate()

    @activity(delivery="at_most_once")
    async def launch() -> None:
        ran.append("launch")
        await gate.wait()

    @activity
    async def other() -> None:
        ran.append("other")
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                for call in (other, launch):
                    group.create_task(_wait(call()))
        except* OutcomeUnknown:
            pass
        await sleep("10 seconds")
        return "aborted"

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
        assert sorted(ran) == ["launch", "other"]
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == "aborted"
            steps = await lab.steps(engine, handle.execution_id)
            assert [(kind, name) for kind, name, _ in steps[:2]] == [("begun", "launch"), ("activity", "launch")]
            assert len(steps) == 3
        assert sorted(ran) == ["launch", "other"]

    lab.run(main)
