"""The blocking face: the same engine, for code that is not async (API 7)."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from perdure import (
    Complete,
    Defect,
    ExecutionTimeoutError,
    PayloadError,
    Status,
    StoreFileError,
    Success,
    Suspended,
    TypedError,
    UsageError,
    WorkflowEngine,
    activity,
    current_engine,
    sleep,
    workflow,
)
from perdure._facade import BlockingEngine

from tests.engine.lab import Lab


class Declined(TypedError):
    code: str


@activity
async def act(key: str) -> str:
    return f"acted {key}"


@activity
def act_on_thread(key: str) -> str:
    return f"{key} on {threading.current_thread().name}"


@workflow(idempotency_key=lambda key: key, error=Declined)
async def work(key: str) -> str:
    if key == "declined":
        raise Declined(code="no-funds")
    if key == "broken":
        raise RuntimeError("wires crossed")
    if key == "thread":
        return await act_on_thread(key)
    return await act(key)


@workflow(idempotency_key=lambda key: key)
async def nap(key: str) -> str:
    await sleep("1 hour")
    return key


@workflow(idempotency_key=lambda key: key, capture_defects=False)
async def held(key: str) -> None:
    raise RuntimeError("ouch")


@pytest.fixture
def open_blocking(lab: Lab) -> Callable[..., BlockingEngine]:
    """Engines on the host's clock: nobody is there to move another one."""

    def open_(*registrations, **options) -> BlockingEngine:
        if lab.cache is not None:
            options["cache"] = lab.cache
        if lab.kind == "file":
            return WorkflowEngine.sqlite(lab.path, registrations, **options).blocking()
        return WorkflowEngine.memory(registrations, **options).blocking()

    return open_


def until_suspended(engine: BlockingEngine, execution_id: str) -> None:
    async def look() -> None:
        while (await engine.engine.describe(execution_id)).status is not Status.SUSPENDED:  # noqa: ASYNC110 - on a real clock
            await asyncio.sleep(0)

    engine.call(look)


def test_its_methods_block_until_they_have_their_answer(open_blocking):
    with open_blocking(work, nap, held) as engine:
        assert engine.execute(work, "k") == "acted k"
        assert engine.execute(work, key="thread") == "thread on perdure-activity"
        handle = engine.start(nap, "n")
        assert handle.execution_id == nap.execution_id("n")
        until_suspended(engine, handle.execution_id)
        assert handle.status() is Status.SUSPENDED
        assert handle.poll() == Suspended(None) == engine.poll(handle.execution_id)
        with pytest.raises(ExecutionTimeoutError):
            handle.result(timeout="1 millis")
        assert engine.poll(work.execution_id("k")) == Complete(Success("acted k"))
        assert engine.describe(work.execution_id("k")).status is Status.SUCCEEDED
        assert [entry.name for entry in engine.journal(work.execution_id("k"))] == ["act"]
        assert sorted(info.key or "" for info in engine.executions()) == ["k", "n", "thread"]
        assert [info.key for info in engine.executions(workflow=nap, limit=1)] == ["n"]
        trouble = engine.start(held, "h")
        until_suspended(engine, trouble.execution_id)
        trouble.resume()
        engine.resume(trouble.execution_id)
        until_suspended(engine, trouble.execution_id)
        assert [info.key for info in engine.executions(held="DEFECT")] == ["h"]
        assert engine.drain(0) is True


def test_errors_are_the_same_ones(open_blocking):
    with open_blocking(work) as engine:
        with pytest.raises(Declined) as declined:
            engine.execute(work, "declined")
        assert declined.value == Declined(code="no-funds")
        with pytest.raises(Defect, match="wires crossed"):
            engine.start(work, "broken").result()
        with pytest.raises(PayloadError, match="key"):
            engine.execute(work, 5)  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match="1 argument"):
            engine.call(work.execute, "a", "b", "c")  # type: ignore[call-arg]


def test_any_thread_may_use_it_and_several_at_once(open_blocking):
    seen: dict[int, str] = {}

    def use(n: int) -> None:
        seen[n] = engine.execute(work, f"{n % 5}")

    with open_blocking(work) as engine:
        threads = [threading.Thread(target=use, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert seen == {n: f"acted {n % 5}" for n in range(20)}
        assert len(list(engine.executions())) == 5


def test_call_runs_any_async_function_on_its_thread(open_blocking):
    async def where(*, suffix: str) -> str:
        assert current_engine() is engine.engine
        return f"{threading.current_thread().name}{suffix}"

    async def fails() -> None:
        raise KeyError("mine")

    with open_blocking(work) as engine:
        assert engine.call(where, suffix="!") == "perdure-engine!"
        with pytest.raises(KeyError, match="mine"):
            engine.call(fails)
        assert engine.call(work.execute, "k") == "acted k"


def test_more_workflows_can_be_registered(open_blocking):
    with open_blocking() as engine:
        engine.register(work)
        assert engine.execute(work, "k") == "acted k"


def test_its_own_thread_cannot_wait_for_itself(open_blocking):
    async def inside() -> str:
        with pytest.raises(UsageError, match="wait for itself"):
            engine.execute(work, "k")
        return "said"

    with open_blocking(work) as engine:
        assert engine.call(inside) == "said"
        assert engine.execute(work, "k") == "acted k"


def test_it_is_used_while_it_is_open(open_blocking, tmp_path):
    engine = open_blocking(work)
    with pytest.raises(UsageError, match="not open"):
        engine.execute(work, "k")
    with engine, pytest.raises(UsageError, match="open already"), engine:
        pass
    for late in (lambda: engine.execute(work, "k"), lambda: list(engine.executions()), lambda: engine.drain(0)):
        with pytest.raises(UsageError, match="not open"):
            late()
    (tmp_path / "text.perdure").write_text("this is no database, and long enough to be looked at as one")
    wrong = WorkflowEngine.sqlite(tmp_path / "text.perdure", [work]).blocking()
    with pytest.raises(StoreFileError), wrong:
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "perdure-engine"]


def test_whoever_still_waits_when_it_closes_hears_so(open_blocking):
    """Also who waits for something that the engine knows nothing of: nobody hangs in a closed loop."""
    waiting: dict[str, BaseException] = {}
    there = threading.Semaphore(0)

    def wait(what: str) -> None:
        try:
            if what == "result":
                handle = engine.start(nap, "n")
                there.release()
                handle.result()
            else:
                engine.call(forever)
        except BaseException as error:  # noqa: BLE001 - whatever it is that it hears
            waiting[what] = error

    async def forever() -> None:
        there.release()
        await asyncio.get_running_loop().create_future()

    with open_blocking(nap) as engine:
        threads = [threading.Thread(target=wait, args=(what,), daemon=True) for what in ("result", "forever")]
        for thread in threads:
            thread.start()
        assert there.acquire(timeout=5)
        assert there.acquire(timeout=5)
        until_suspended(engine, nap.execution_id("n"))
    for thread in threads:
        thread.join(5)
    assert set(waiting) == {"result", "forever"}
    assert isinstance(waiting["result"], UsageError)


def test_an_error_inside_the_block_closes_it(open_blocking):
    def session() -> None:
        nonlocal engine
        with open_blocking(work) as engine:
            engine.execute(work, "k")
            raise ZeroDivisionError

    engine: BlockingEngine | None = None
    with pytest.raises(ZeroDivisionError):
        session()
    assert engine is not None
    with pytest.raises(UsageError, match="not open"):
        engine.execute(work, "k")


def test_a_generator_that_is_left_early_does_no_harm(open_blocking):
    with open_blocking(work) as engine:
        for n in range(5):
            engine.execute(work, f"{n}")
        for info in engine.executions():
            assert info.workflow == "work"
            break
        assert engine.execute(work, "k") == "acted k"


def test_async_code_beside_it_may_use_the_engine_on_its_own_loop(open_blocking):
    """API 7: a script whose async part comes later; the engine's own loop does the work."""

    async def script(engine: WorkflowEngine) -> list[object]:
        handle = await work.start("a")
        seen: list[object] = [await handle.result(), await work.execute("b")]
        seen.append((await engine.describe(handle.execution_id)).status)
        seen.append([entry.kind for entry in await engine.journal(handle.execution_id)])
        with pytest.raises(ExecutionTimeoutError):
            await (await nap.start("n")).result(timeout=0.01)
        with pytest.raises(Declined):
            await work.execute("declined")
        return seen

    with open_blocking(work, nap) as engine:
        assert asyncio.run(script(engine.engine)) == ["acted a", "acted b", Status.SUCCEEDED, ["activity"]]
        assert engine.execute(work, "c") == "acted c"
    with pytest.raises(UsageError, match="not open"):
        asyncio.run(engine.engine.describe(work.execution_id("a")))
