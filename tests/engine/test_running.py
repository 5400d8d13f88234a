"""How an execution runs, rests and is held (R5, R6, R9)."""

import asyncio
import contextlib

import pytest

from perdure import Defect, Interrupted, Status, Suspended, activity, execution_id, sleep, workflow

from tests.engine.lab import Gate, ThreadGate, until


def test_it_is_running_while_an_activity_of_it_runs(lab):
    """R5: also beside a long sleep."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        await asyncio.gather(act(), sleep("1 hour"))
        return key

    async def main():
        async with lab.engine([both]) as engine:
            handle = await both.start("k")
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            assert await handle.poll() is None
            assert (await lab.record(engine, handle.execution_id)).owner == lab.service(engine).worker_id
            gate.open()
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert (await lab.record(engine, handle.execution_id)).owner is None
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_it_is_running_during_an_in_memory_wait_and_suspended_above_the_threshold(lab):
    """R5, R16: the nearest wait decides, not the order in which branches were started."""

    @workflow(idempotency_key=lambda key, first, second: key)
    async def naps(key: str, first: str, second: str) -> str:
        await asyncio.gather(sleep(first), sleep(second))
        return key

    async def main():
        async with lab.engine([naps]):
            for number, (first, second, status) in enumerate(
                [
                    ("60 seconds", "60 seconds", Status.RUNNING),
                    ("61 seconds", "62 seconds", Status.SUSPENDED),
                    ("30 seconds", "1 hour", Status.RUNNING),
                    ("1 hour", "30 seconds", Status.RUNNING),
                ]
            ):
                handle = await naps.start(f"{number}", first, second)
                await lab.settle()
                assert await handle.status() is status, (first, second)
                assert await lab.result(handle) == f"{number}"

    lab.run(main)


def test_quiescence_decides_about_a_suspension(lab):
    """R5: as soon as only the long wait is left it is suspended, whatever was started first."""

    @workflow(idempotency_key=lambda key: key)
    async def naps(key: str) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(7_200))
            group.create_task(sleep("10 seconds"))
        return key

    async def main():
        async with lab.engine([naps]):
            handle = await naps.start("k")
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            await lab.skip("10 seconds")
            assert await handle.status() is Status.SUSPENDED
            await lab.skip("7189 seconds")
            assert await handle.status() is Status.SUSPENDED
            await lab.skip("1 second")
            assert await handle.status() is Status.SUCCEEDED

    lab.run(main)


def test_a_body_that_waits_for_nothing_is_held(lab):
    """R5, DEADLOCK; also after a step, and it can be resumed once the code is right."""
    broken = True

    @activity
    async def act() -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def forgotten(key: str) -> str:
        await act()
        if broken:
            await asyncio.Event().wait()
        return key

    async def main():
        nonlocal broken
        async with lab.engine([forgotten]) as engine:
            handle = await forgotten.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "DEADLOCK")
            polled = await handle.poll()
            assert isinstance(polled, Suspended)
            assert polled.cause is not None
            assert "waits for nothing" in str(polled.cause.to_exception())
            await lab.skip("1 day")
            assert (await engine.describe(handle.execution_id)).held == "DEADLOCK"
            broken = False
            await handle.resume()
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_a_body_that_never_comes_to_rest_is_held(lab, monkeypatch):
    """SPINNING; with a budget that a test can use up."""
    monkeypatch.setattr("perdure._kernel.kernel.TURN_BUDGET", 1_000)
    spinning = True

    @workflow(idempotency_key=lambda key: key)
    async def dizzy(key: str) -> str:
        while spinning:  # noqa: ASYNC110 - the wrong that is tested
            await asyncio.sleep(0)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        await sleep("10 seconds")
        return key

    async def main():
        nonlocal spinning
        async with lab.engine([dizzy, other]) as engine:
            handle = await dizzy.start("k")
            assert await lab.finish(other.execute("o")) == "o"
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "SPINNING")
            spinning = False
            await handle.resume()
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_resume_is_harmless_on_what_is_not_held(lab):
    """API 2: nothing on a completed one."""
    ran = []

    @activity
    async def act() -> None:
        ran.append(1)

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await act()
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.settle()
            before = await lab.record(engine, handle.execution_id)
            await handle.resume()
            await lab.settle()
            assert await lab.record(engine, handle.execution_id) == before
            assert await lab.result(handle) == "k"
            ended = await lab.record(engine, handle.execution_id)
            await nap.resume(handle.execution_id)
            await engine.resume(handle.execution_id)
            await lab.settle()
            assert await lab.record(engine, handle.execution_id) == ended
        assert ran == [1]

    lab.run(main)


def test_a_suspension_is_invisible_to_the_body(lab):
    """R6: no exception, and no `finally`; with `cache=0` local clean-up runs at each eviction, and nothing of it acts."""
    seen = []
    ran = []

    @activity
    async def act(what: str) -> None:
        ran.append(what)

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        try:
            await sleep("1 hour")
            await sleep("2 hours")
        except BaseException as error:
            seen.append(repr(error))
            raise
        finally:
            seen.append("finally")
            await act("clean-up")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.skip("90 minutes")
            assert ran == []
            if lab.cache is None:
                assert seen == []
            assert await lab.steps(engine, handle.execution_id) == [
                ("set", "sleep:3600", 0),
                ("timer", "sleep:3600", 0),
                ("set", "sleep:7200", 0),
            ]
            assert await lab.result(handle) == "k"
        assert ran == ["clean-up"]

    lab.run(main)


def test_stopping_a_worker_is_no_end(lab):
    """R6: no finalizer runs, nothing is recorded, and the next engine goes on."""
    ran = []
    gate = Gate()

    @activity
    async def act(what: str) -> str:
        ran.append(what)
        if what == "long" and not gate._open.is_set():
            await gate.wait()
        return what

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await act("short")
            await act("long")
        finally:
            await act("clean-up")
        return key

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert await lab.steps(engine, handle.execution_id) == [("activity", "act", 1)]
        gate.open()
        async with lab.engine([work]) as engine:
            before = await lab.record(engine, handle.execution_id)
            assert before.crashes == 0
            assert await lab.result(work.handle(handle.execution_id)) == "k"
        assert ran == ["short", "long", "long", "clean-up"]

    lab.run(main)


@pytest.mark.parametrize("wrong", [asyncio.CancelledError, RuntimeError, SystemExit])
def test_an_attempt_that_the_host_cuts_off_is_recorded_nowhere(lab, wrong):
    """R9: whatever it raises."""
    attempts = []
    gate = Gate()

    @activity
    async def stubborn() -> int:
        attempts.append(1)
        if len(attempts) > 1:
            return len(attempts)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            raise wrong from None
        return 0

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await stubborn()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == 2
            assert await lab.steps(engine, handle.execution_id) == [("activity", "stubborn", 1)]

    lab.run(main)


def test_a_result_that_a_cut_off_attempt_still_returns_is_recorded(lab):
    """R9: in time."""
    attempts = []
    gate = Gate()

    @activity
    async def dutiful() -> str:
        attempts.append(1)
        with contextlib.suppress(asyncio.CancelledError):
            await gate.wait()
        return "done all the same"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await dutiful()

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "done all the same"
        assert attempts == [1]

    lab.run(main)


@pytest.mark.parametrize("wrong", [SystemExit, KeyboardInterrupt])
def test_an_end_of_the_process_raised_in_a_body_is_its_defect(lab, wrong):
    """R9: the engine lives."""

    @workflow(idempotency_key=lambda key: key)
    async def rude(key: str) -> None:
        if key == "later":
            await sleep("10 seconds")
        raise wrong("bye")

    @workflow(idempotency_key=lambda key: key)
    async def polite(key: str) -> str:
        return key

    async def main():
        async with lab.engine([rude, polite]):
            for key in ("now", "later"):
                with pytest.raises(Defect, match="bye") as defect:
                    await lab.finish(rude.execute(key))
                assert defect.value.type_name == wrong.__name__
            assert await lab.finish(polite.execute("k")) == "k"

    lab.run(main)


@pytest.mark.parametrize("wrong", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("on_thread", [False, True], ids=["async", "thread"])
def test_an_end_of_the_process_raised_in_an_attempt_is_its_defect(lab, wrong, on_thread):
    """R9."""

    @activity(name="act")
    async def rude() -> None:
        await asyncio.sleep(0)
        raise wrong("bye")

    @activity(name="act")
    def rude_on_thread() -> None:
        raise wrong("bye")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await (rude_on_thread() if on_thread else rude())
        except Defect as defect:
            return defect.type_name
        return "?"

    # Neither a future nor a generator can carry a GeneratorExit through; the function on a thread is said to have failed.
    seen = "RuntimeError" if on_thread and wrong is GeneratorExit else wrong.__name__

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("a")) == seen
            assert await lab.finish(work.execute("b")) == seen

    lab.run(main)


def test_a_cancellation_that_leaves_a_body_by_itself_is_a_defect(lab):
    """R32: nobody has interrupted it."""

    @workflow(idempotency_key=lambda key: key)
    async def odd(key: str) -> None:
        if key == "task":
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await sleep("10 seconds")
        raise asyncio.CancelledError

    async def main():
        async with lab.engine([odd]):
            for key in ("task", "raised"):
                with pytest.raises(Defect, match="nobody had interrupted"):
                    await lab.finish(odd.execute(key))
                assert await odd.handle(odd.execution_id(key)).status() is Status.FAILED

    lab.run(main)


def test_a_body_that_swallows_cancellation_or_catches_everything_works(lab):
    """Bad input of issue 2: neither disturbs an eviction or a stop."""

    @workflow(idempotency_key=lambda key: key)
    async def careless(key: str) -> str:
        slept = 0
        while slept < 2:
            try:
                await sleep("1 hour", name="nap")
            except BaseException:  # noqa: BLE001 - the wrong that is tested
                continue
            slept += 1
        return key

    async def main():
        async with lab.engine([careless]):
            handle = await careless.start("k")
            await lab.settle()
        async with lab.engine([careless]):
            assert await lab.result(careless.handle(handle.execution_id)) == "k"

    lab.run(main)


def test_a_body_that_never_awaits_is_one_turn(lab):
    """Bad input of issue 2."""

    @workflow(idempotency_key=str)
    async def pure(n: int) -> int:
        return sum(range(n))

    async def main():
        async with lab.engine([pure]) as engine:
            assert await lab.finish(pure.execute(10)) == 45
            assert await engine.journal(pure.execution_id(10)) == []

    lab.run(main)


def test_what_a_body_left_behind_ends_with_it(lab):
    """R46: it is cancelled, runs to quiescence, and nothing that it asks for has an effect."""
    ran = []
    seen = []
    gate = Gate()

    @activity
    async def act(what: str) -> None:
        ran.append(what)
        await gate.wait()

    async def left_behind() -> None:
        try:
            await act("side")
        finally:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("one pass later")
            await act("after the end")
            seen.append("never")

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        task = asyncio.create_task(left_behind())
        await sleep("10 seconds")
        assert not task.done()
        return key

    async def main():
        async with lab.engine([parent]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            assert await lab.result(handle) == "k"
            await lab.settle()
            assert seen[-2:] == ["cancelled", "one pass later"]
            assert await lab.steps(engine, handle.execution_id) == [("timer", "sleep:10", 0)]
            assert not lab.service(engine).runners
        assert ran == ["side"]

    lab.run(main)


def test_an_attempt_of_an_ended_execution_is_cut_off(lab):
    """R46, R15: on a thread it hears so from its heartbeat."""
    from perdure import AttemptCancelled, heartbeat

    gate = ThreadGate()
    told = []

    @activity
    def act() -> None:
        gate.wait()
        try:
            heartbeat("still here")
        except AttemptCancelled as over:
            told.append(str(over))

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        task = asyncio.create_task(_wait(act()))
        await sleep("10 seconds")
        task.cancel()
        return key

    async def main():
        async with lab.engine([parent]) as engine:
            assert await lab.finish(parent.execute("k")) == "k"
            gate.open()
            await until(lambda: told)
            assert "is over" in told[0]
            assert lab.service(engine).threads.abandoned == 1

    lab.run(main)


async def _wait(step):
    await step


def test_the_host_does_not_interrupt_anybody(lab):
    """R9: nobody who waits for a result hears of an interruption when the engine closes."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("30 seconds")
        return key

    async def main():
        async with lab.engine([nap]):
            handle = await nap.start("k")
            await lab.settle()
        async with lab.engine([nap]):
            try:
                assert await lab.result(nap.handle(handle.execution_id)) == "k"
            except Interrupted:
                pytest.fail("stopping a worker interrupts nothing")

    lab.run(main)


def test_the_starter_s_context_does_not_leak_into_a_body(lab):
    """R14: a body starts in an empty context, an activity gets a copy of the body's at the call."""
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")

    @activity
    async def ask() -> str:
        seen = who.get()
        who.set("the activity")
        return seen

    @activity
    def ask_on_thread() -> str:
        seen = who.get()
        who.set("the activity")
        return seen

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = [who.get()]
        who.set("the body")
        call = ask()
        who.set("the body, later")
        seen += [await call, await ask_on_thread(), who.get(), execution_id()]
        return seen

    async def main():
        who.set("the starter")
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == [
                "nobody", "the body", "the body, later", "the body, later", work.execution_id("k"),
            ]  # fmt: skip

    lab.run(main)
