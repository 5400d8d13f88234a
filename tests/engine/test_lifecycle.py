"""Callers that go, engines beside each other, and what is left when all have gone (R4, R9, R12, promise 8)."""

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Status,
    UsageError,
    WorkflowEngine,
    activity,
    current_engine,
    sleep,
    workflow,
)
from perdure._definitions import ambient
from perdure._engine.committer import Committer
from perdure._stores.sqlite import guard

from tests.conftest import Run
from tests.engine.lab import Gate, Lab, Probe, ThreadGate, until

# Cancelled callers -----------------------------------------------------------------------------------


class Interrupting(Probe):
    """A store that has a caller cancelled at its n-th call: before that is done, or when it is and nobody knows."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe.inner)
        self._asked = 0
        self._left = 0
        self._late = False
        self._interrupt: Callable[[], object] = lambda: None

    def interrupt(self, at: int, interrupt: Callable[[], object], *, late: bool) -> None:
        """Call `interrupt` at the call with that number from now on."""
        self._left, self._late, self._interrupt = at, late, interrupt

    @property
    def interrupted(self) -> bool:
        """Whether there have been so many calls."""
        return self._left <= 0

    async def _ask(self, name: str, method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        self._left -= 1
        now = self._left == 0
        if now and not self._late:
            self._interrupt()
        answer = await super()._ask(name, method, args)
        if now and self._late:
            self._interrupt()
        return answer


@contextlib.contextmanager
def nothing_said_by_the_loop() -> Iterator[None]:
    """Of futures and tasks whose exception nobody has heard, or that were thrown away while they waited."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(str(context)))
    yield
    gc.collect()
    assert said == []


def nobody_is_waited_for(lab: Lab, engine: WorkflowEngine) -> None:
    service = lab.service(engine)
    assert service.starts._unwritten == {}
    assert service.results._waiters._futures == {}
    assert service.results._looking == set()
    assert service.reading.idle
    assert service.committer.idle
    assert len(service._background) == 2


# The keys with which `act` was called.
acted: list[str] = []


@activity
async def act(key: str) -> str:
    acted.append(key)
    return key


@workflow(idempotency_key=lambda key: key)
async def acts(key: str) -> str:
    first = await act(key)
    await sleep("10 seconds")
    return first


WAYS: dict[str, Callable[[str], Awaitable[object]]] = {
    "start": acts.start,
    "execute": acts.execute,
    "start later": acts.options(delay="1 second").start,
}


@pytest.mark.parametrize("place", ["alone", "first", "joining"])
@pytest.mark.parametrize("way", WAYS)
def test_a_caller_is_cancelled_at_every_call_of_the_store(corner_lab, way, place):
    """R4, promise 1: the commit is never cancelled, whoever joined is not disturbed, and nothing is left waiting."""
    lab = corner_lab
    acted.clear()

    async def cancelled(engine: WorkflowEngine, store: Interrupting, at: int, *, late: bool) -> bool:
        """Whether the caller was still there to be cancelled."""
        key = f"{at} {late}"
        others = [asyncio.ensure_future(WAYS[way](key))] if place == "joining" else []
        caller = asyncio.ensure_future(WAYS[way](key))
        others += [asyncio.ensure_future(WAYS[way](key))] if place != "alone" else []
        store.interrupt(at, caller.cancel, late=late)
        await lab.skip("1 minute")
        await asyncio.gather(*others)
        assert caller.done()
        await ended_once_or_never(lab, engine, key, never=place == "alone")
        nobody_is_waited_for(lab, engine)
        return caller.cancelled()

    async def main():
        store = Interrupting(lab.store())
        lab._probes.append(store)
        before = asyncio.all_tasks()
        with nothing_said_by_the_loop():
            async with lab.engine([acts], store=store) as engine:
                for late in (False, True):
                    # Otherwise the calls would have been those of others.
                    assert any([await cancelled(engine, store, at, late=late) for at in range(1, 4)])
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before

    lab.run(main)


async def ended_once_or_never(lab: Lab, engine: WorkflowEngine, key: str, *, never: bool) -> None:
    record = await engine._service.requests.record(acts.execution_id(key))
    if record is None:
        assert never
        assert key not in acted
    else:
        assert record.status is Status.SUCCEEDED
        assert await lab.steps(engine, record.execution_id) == [("activity", "act", 1), ("timer", "sleep:10", 0)]
        assert acted.count(key) == 1


def test_a_caller_that_is_cancelled_before_anything_was_asked_has_started_nothing(lab):
    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        with nothing_said_by_the_loop():
            async with lab.engine([work]) as engine:
                caller = asyncio.ensure_future(work.execute("k"))
                caller.cancel()
                await lab.settle()
                assert caller.cancelled()
                assert await engine._service.requests.record(work.execution_id("k")) is None
                nobody_is_waited_for(lab, engine)

    lab.run(main)


def test_who_waits_for_a_result_may_go_at_any_time(lab):
    """R4: before it looks, while it looks, while it waits; the others hear the result."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if key == "here":
            await act()
        else:
            await sleep("1 hour")
        return key

    async def main():
        store = Interrupting(lab.store())
        lab._probes.append(store)
        with nothing_said_by_the_loop():
            async with lab.engine([work], store=store) as engine:
                handles = [await work.start(key) for key in ("here", "asleep")]
                await lab.settle()
                staying = [asyncio.ensure_future(handle.result("1 day")) for handle in handles]
                for handle in handles:
                    for late in (False, True):
                        caller = asyncio.ensure_future(handle.result("1 day"))
                        store.interrupt(1, caller.cancel, late=late)
                        await lab.settle()
                        caller.cancel()  # one that asked nothing of the store waits by now
                        await lab.settle()
                        assert caller.cancelled()
                waiting = lab.service(engine).results._waiters._futures.values()
                assert [len(futures) for futures in waiting] == [1, 1]
                gate.open()
                assert await lab.finish(asyncio.gather(*staying)) == ["here", "asleep"]
                nobody_is_waited_for(lab, engine)
                # Its timeouts have gone with it.
                assert lab.clock.next_event() is None

    lab.run(main)


@pytest.mark.parametrize("before", [True, False], ids=["before it is done", "when it is done"])
def test_who_resumes_may_be_cancelled(lab, before):
    """R4, R36: what was resumed moves, though nobody has waited for the answer."""
    broken = True

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def work(key: str) -> str:
        if broken:
            raise RuntimeError("ouch")
        return key

    async def main():
        nonlocal broken
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "DEFECT"
            broken = False
            hold = lab.probe(engine).hold("resume", before=before)
            resuming = asyncio.ensure_future(engine.resume(handle.execution_id))
            await lab.settle()
            assert hold.kept == 1
            resuming.cancel()
            await lab.settle()
            assert resuming.cancelled()
            hold.release()
            if before:
                # It was cancelled before the store had it: nothing has happened, and it can be done again.
                await lab.skip("10 seconds")
                assert (await engine.describe(handle.execution_id)).held == "DEFECT"
                again = lab.probe(engine).hold("resume")
                resuming = asyncio.ensure_future(engine.resume(handle.execution_id))
                await lab.settle()
                resuming.cancel()
                again.release()
            await lab.settle()
            await round_by_itself(lab)
            assert (await engine.describe(handle.execution_id)).status is Status.SUCCEEDED

    lab.run(main)


async def round_by_itself(lab: Lab) -> None:
    """Let the time pass in which an engine looks for work though nobody calls."""
    lab.clock.advance(1_000)
    await lab.settle()


# Several engines in one process ----------------------------------------------------------------------


def test_an_engine_closes_in_the_middle_of_the_others_work(lab):
    """API 7: on the same database, on another one, and in memory: none is disturbed, whichever goes first."""
    gate = Gate()
    ran: list[tuple[str, object]] = []

    @activity
    async def act(key: str) -> str:
        ran.append((key, current_engine()))
        await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        first = await act(key)
        await sleep("10 seconds")
        return first + await act(key + "!")

    async def main():
        elsewhere = Lab("file", lab.cache, lab.folder / "elsewhere", lab._run)
        elsewhere.folder.mkdir()
        elsewhere.path = elsewhere.folder / "other.perdure"
        elsewhere.clock = lab.clock
        async with contextlib.AsyncExitStack() as stack:
            going = [contextlib.AsyncExitStack() for _ in range(3)]
            gone = [
                await going[0].enter_async_context(lab.engine([work])),
                await going[1].enter_async_context(elsewhere.engine([work])),
                await going[2].enter_async_context(WorkflowEngine.memory([work], grace=0)),
            ]
            staying = await stack.enter_async_context(lab.engine([work]))
            handles = [await engine.start(work, f"{n}") for n, engine in enumerate([*gone, staying])]
            await lab.settle()
            assert gate.entered == 4
            for each in going:
                await each.aclose()
            await lab.settle()
            gate.open()
            await lab.skip("1 minute")
            await lab.notice()
            assert await lab.finish(handles[3].result()) == "33!"
            # What the first one gave back is the other's now, who shares its database.
            assert await lab.finish(staying.execute(work, "0")) == "00!"
            assert [key for key, engine in ran if engine is staying and key.startswith("0")] == ["0", "0!"]
            assert current_engine() is staying
            for engine in gone:
                with pytest.raises(UsageError, match="not open"):
                    await engine.start(work, "late")
        assert await _left_alone(elsewhere, work.execution_id("1")) == (Status.PENDING, 0)

    lab.run(main)


async def _left_alone(lab: Lab, execution_id: str) -> tuple[Status, int]:
    store = lab.store().inner
    await store.open()
    (record,) = await store.read([execution_id])
    await store.close()
    return record.status, record.crashes


def test_an_activity_may_open_an_engine_of_its_own(lab):
    """API 7: the nearest engine is the inner one there, and the outer one again behind it."""

    @workflow(idempotency_key=lambda key: key)
    async def inner(key: str) -> str:
        return f"inner {key}"

    @activity
    async def nested(key: str) -> list[object]:
        around = current_engine()
        async with WorkflowEngine.memory([inner]) as engine:
            said = await engine.execute(inner, key)
        return [said, current_engine() is around]

    @activity
    def nested_on_thread(key: str) -> str:
        with WorkflowEngine.memory([inner]).blocking() as engine:
            return engine.execute(inner, key)

    @workflow(idempotency_key=lambda key: key)
    async def outer(key: str) -> list[object]:
        return [*await nested(key), await nested_on_thread(key)]

    async def main():
        async with lab.engine([outer]) as engine:
            waiting = asyncio.ensure_future(engine.execute(outer, "k"))
            await until(waiting.done)
            assert await waiting == ["inner k", True, "inner k"]
            assert ambient.open_engines == [engine]

    lab.run(main)


@pytest.mark.parametrize("shared", [True, False], ids=["one file", "two files"])
def test_engines_of_two_loops_in_two_threads_share_a_process(tmp_path, run: Run, shared):
    """API 7: each on a loop of its own; one goes on when the other has closed its loop."""
    ran: list[str] = []
    open_before = dict(guard._open)  # by other tests, whose threads never end
    both_open = threading.Barrier(2)
    first_has_gone = threading.Event()
    failures: list[BaseException] = []

    @activity
    async def act(key: str) -> str:
        ran.append(key)
        return key

    @activity
    def act_on_thread(key: str) -> str:
        ran.append(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(f"{key}a") + await act_on_thread(f"{key}b")

    async def session(name: str) -> None:
        async with WorkflowEngine.sqlite(tmp_path / f"{'one' if shared else name}.perdure", [work]) as engine:
            both_open.wait(10)
            keys = [f"{name}{n}" for n in range(5)] + ([f"both{n}" for n in range(5)] if shared else [])
            assert await asyncio.gather(*(engine.execute(work, key) for key in keys)) == [f"{k}a{k}b" for k in keys]
            assert current_engine() is engine
            if name == "second":
                # Not on the loop: what the first one has started may be in this one's hands.
                assert await asyncio.to_thread(first_has_gone.wait, 10)
                assert await engine.execute(work, "late") == "latealateb"

    def live(name: str) -> None:
        try:
            run(lambda: session(name))
        except BaseException as error:  # noqa: BLE001 - raised where the test is
            failures.append(error)
        finally:
            if name == "first":
                first_has_gone.set()

    threads = [threading.Thread(target=live, args=(name,), daemon=True) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    if failures:
        raise failures[0]
    assert len(ran) == len(set(ran)) == 2 * (16 if shared else 11)
    assert ambient.open_engines == []
    assert guard._open == open_before


# A loop that ends beneath an engine ------------------------------------------------------------------


def test_whoever_cancels_every_task_of_the_loop_does_not_make_closing_wait(lab, log, monkeypatch):
    """R9: a shutdown that cancels all tasks cancels the committer too. The store is well, and nothing is said of it."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await cancel_all()
            await lab.settle()
            store = lab.probe(engine).inner
        assert store._lanes is None
        assert await _left_alone(lab, handle.execution_id) == (Status.PENDING, 0)
        assert not [record for record in log.records if "does not answer" in record.getMessage()]

    lab.run(main)


def test_whoever_cancels_every_task_of_the_loop_loses_nothing(lab, monkeypatch):
    """R9: attempts that the loop's end has cancelled are recorded nowhere, and no crash is counted (R41)."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    gate = Gate()
    ran: list[int] = []

    @activity
    async def act() -> int:
        ran.append(1)
        if len(ran) == 1:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                raise RuntimeError("cut off") from None
        return len(ran)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            await cancel_all()
            await asyncio.sleep(0)
            store = lab.probe(engine).inner
        assert store._lanes is None
        async with lab.engine([work]) as engine:
            assert (await engine.describe(handle.execution_id)).crashes == 0
            assert await lab.result(work.handle(handle.execution_id)) == 2
            assert await lab.steps(engine, handle.execution_id) == [("activity", "act", 1)]

    lab.run(main)


def test_whoever_cancels_every_task_of_the_loop_does_not_end_a_thread(file_lab, monkeypatch):
    """R12: the function goes on, so nobody else may begin it as long as this process lives."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    lab = file_lab
    gate = ThreadGate()

    @activity
    def stuck() -> None:
        gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await stuck()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await gate.reached()
            await lab.settle()
            worker = lab.service(engine).worker_id
            await cancel_all()
            await lab.settle()
            store = lab.probe(engine).inner
        try:
            async with lab.engine() as client:
                record = await lab.record(client, handle.execution_id)
                assert (record.status, record.owner) == (Status.RUNNING, worker)
        finally:
            gate.open()
            await store.close()

    lab.run(main)


def test_a_loop_that_ends_while_an_engine_closes_leaves_no_open_store(lab):
    """The second Ctrl-C: asyncio.run then cancels every task of the loop, the closing one too, and waits for them."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        store = lab.store()

        async def session() -> None:
            async with WorkflowEngine(store, [work], grace="10 seconds"):
                await work.start("k")
                await until(lambda: gate.entered)

        leaving = asyncio.ensure_future(session())
        await until(lambda: gate.entered)
        await lab.settle()
        assert not leaving.done()
        await cancel_all()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        try:
            assert store.inner._lanes is None
        finally:
            await store.inner.close()

    lab.run(main)


def test_a_loop_that_ends_while_an_engine_closes_does_not_end_a_thread(file_lab):
    """R12: both at once. What still runs on a thread stays this process's, also when nobody can wait for anything."""
    lab = file_lab
    gate = ThreadGate()

    @activity
    def stuck() -> None:
        gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await stuck()

    async def main():
        store = lab.store()
        engine = WorkflowEngine(store, [work], grace="10 seconds")

        async def session() -> None:
            async with engine:
                await engine.start(work, "k")
                await gate.reached()

        leaving = asyncio.ensure_future(session())
        await gate.reached()
        await lab.settle()
        worker = lab.service(engine).worker_id
        await cancel_all()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        try:
            async with lab.engine() as client:
                (record,) = [one async for one in client.executions()]
                assert (record.status, record.worker) == (Status.RUNNING, worker)
        finally:
            gate.open()
            await store.inner.close()

    lab.run(main)


def test_an_engine_whose_tasks_were_cancelled_says_so(lab):
    """It would never answer: nobody writes, and nobody looks for work. Closed and opened anew it goes on."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            await cancel_all()
            await lab.settle()
            with pytest.raises(UsageError, match="cancelled every task"):
                await engine.execute(work, "k")
        async with lab.engine([work]) as engine:
            assert await engine.execute(work, "k") == "k"

    lab.run(main)


def test_an_engine_that_has_failed_by_itself_blames_nobody(lab, log, monkeypatch):
    """It says that it has failed, and where to read why; closed and opened anew it goes on."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    def broken(_: Committer) -> None:
        raise RuntimeError("a bug of ours")

    async def main():
        async with lab.engine([work]) as engine:
            with monkeypatch.context() as patched:
                patched.setattr(Committer, "_take", broken)
                starting = asyncio.ensure_future(engine.start(work, "k"))
                await lab.settle()
            with pytest.raises(UsageError, match="has failed: it cannot write any more, and the log"):
                await engine.start(work, "k")
            starting.cancel()
            await asyncio.wait([starting])
        assert "the engine's committer has failed, which is a bug of perdure" in log.text
        async with lab.engine([work]) as engine:
            assert await engine.execute(work, "k") == "k"

    lab.run(main)


async def cancel_all() -> None:
    """As asyncio.run does when its coroutine has ended or a second Ctrl-C has come."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)


# The blocking face -----------------------------------------------------------------------------------


def test_an_activity_that_swallows_every_cancellation_does_not_keep_a_blocking_engine_open(monkeypatch):
    """R9: its loop is closed above it. Under asyncio.run that is asyncio's to decide, here it is ours."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    monkeypatch.setattr("perdure._blocking.LEFT_S", 0.05)
    there = threading.Event()
    waiting: list[BaseException] = []

    async def stay() -> None:
        there.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    stubborn = activity(name="stubborn")(stay)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await stubborn()

    def wait() -> None:
        try:
            engine.call(stay)
        except BaseException as error:  # noqa: BLE001 - whatever it is that it hears
            waiting.append(error)

    asking = threading.Thread(target=wait, daemon=True)
    with WorkflowEngine.memory([work], grace=0).blocking() as engine:
        engine.start(work, "k")
        assert there.wait(10)
        there.clear()
        asking.start()
        assert there.wait(10)
    asking.join(10)
    (heard,) = waiting
    assert isinstance(heard, UsageError)
    assert "closed" in str(heard)
    with ignored_by_asyncio():
        gc.collect()


@contextlib.contextmanager
def ignored_by_asyncio() -> Iterator[None]:
    """Let asyncio say of thrown away tasks what it must; they are what the test is about."""
    import logging

    logger = logging.getLogger("asyncio")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def test_calls_that_come_while_a_blocking_engine_closes_are_answered(monkeypatch):
    """Each reaches the loop before its end, or is refused; none waits for a loop that is gone."""

    async def one() -> int:
        return 1

    def use(engine: Any, answers: list[object]) -> None:
        while True:
            try:
                answers.append(engine.call(one))
            except BaseException as error:  # noqa: BLE001 - whatever it is that it hears
                answers.append(error)
                return

    for _ in range(20):
        answers: list[object] = []
        blocking = WorkflowEngine.memory().blocking()
        with blocking as engine:
            threads = [threading.Thread(target=use, args=(engine, answers), daemon=True) for _ in range(3)]
            for thread in threads:
                thread.start()
            engine.call(one)
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert {answer for answer in answers if not isinstance(answer, BaseException)} <= {1}


# What is left ----------------------------------------------------------------------------------------


def test_nothing_grows_with_the_engines_that_were_opened_and_closed(tmp_path, run: Run):
    """Threads, open files, lock files, tasks, engines, memory: after eighteen lives as after six."""

    @activity
    async def act(key: str) -> str:
        return key

    @activity
    def act_on_thread(key: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        first = await act(key) + await act_on_thread(key)
        if key == "long":
            await sleep("1 hour")
        return first

    others, open_before = set(threading.enumerate()), dict(guard._open)
    # A program has its definitions once; engines that are gone must not stay in them.
    engines: list[weakref.ref[WorkflowEngine]] = []

    def live() -> None:
        async def main() -> None:
            engine = WorkflowEngine.sqlite(tmp_path / "one.perdure", [work])
            engines.append(weakref.ref(engine))
            async with engine, WorkflowEngine.memory([work]) as other:
                engines.append(weakref.ref(other))
                await engine.start(work, "long")
                assert await other.execute(work, "k") == "kk"
                assert await engine.execute(work, "k") == "kk"
                waiting = asyncio.ensure_future(engine.execute(work, "long"))
                await until(lambda: engine._service.results._waiters._futures)
            with pytest.raises(UsageError, match="was closed"):
                await waiting
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(main)
        with WorkflowEngine.sqlite(tmp_path / "one.perdure", [work], cache=0).blocking() as engine:
            engines.append(weakref.ref(engine.engine))
            assert engine.execute(work, "k") == "kk"

    def after(lives: int) -> tuple[int, int, int]:
        for _ in range(lives):
            live()
        alive = still_alive(others)
        gc.collect()
        return alive, open_files(), sys.getallocatedblocks()

    threads, files, blocks = after(6)
    more_threads, more_files, more_blocks = after(12)
    assert (more_threads, more_files) == (threads, files)
    assert [engine for engine in engines if engine() is not None] == []
    assert more_blocks < 1.01 * blocks
    assert ambient.open_engines == []
    assert guard._open == open_before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.perdure"]


def still_alive(others: set[threading.Thread]) -> int:
    """How many threads there are beside those of other tests, which may stand at a gate for good."""
    ours = [thread for thread in threading.enumerate() if thread not in others]
    for thread in ours:
        if thread.name.startswith("perdure"):
            thread.join(10)  # an idle thread ends a moment after its engine
    return sum(thread.is_alive() for thread in ours)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
