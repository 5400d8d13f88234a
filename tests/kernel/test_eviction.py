"""Putting a body away without an end: its frames are closed, and nothing that they ask for has an effect (R6)."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from perdure import patched, sleep, workflow
from perdure._kernel import frames

from tests.kernel.driver import Play
from tests.kernel.steps import begin, fetch, spin, store


@workflow
async def other(x: int) -> None: ...


def errors(log: pytest.LogCaptureFixture) -> list[str]:
    """What was reported."""
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def test_local_code_in_finally_runs_and_what_it_asks_for_has_no_effect(is_quiet: Callable[[], bool]) -> None:
    """R6: neither steps, nor timers, starts, decisions, nor tasks."""
    trace: list[str] = []

    async def never() -> None:
        trace.append("never")

    async def body() -> None:
        try:
            await fetch(1)
        except BaseException as error:
            trace.append(type(error).__name__)
            raise
        finally:
            trace.append("finally")
            begin(never())
            asyncio.get_running_loop().call_later(5, trace.append, "never")
            asyncio.get_running_loop().call_soon(trace.append, "never")
            await other.start(1)
            trace.append(f"patched: {patched('new-way')}")
            await store(1)
            trace.append("never")

    play = Play(body)
    given = list(play.given)
    play.close()
    play._take()
    assert trace == ["GeneratorExit", "finally", "patched: False"]
    assert play.given == given
    assert play.starts == play.journal == play.timers == play.calls == []
    assert is_quiet()


def test_an_activity_in_finally_does_not_really_run() -> None:
    """R6: outside a body it just runs; the host is therefore found until the last frame is closed."""

    async def cleaned() -> None:
        await store(1)  # raises if it runs

    async def body() -> None:
        try:
            await fetch(1)
        finally:
            await cleaned()

    for way in (body, lambda: _within_context(body)):
        Play(way).close()


async def _within_context(body: Callable[[], Any]) -> None:
    await asyncio.gather(*(asyncio.create_task(body()) for _ in range(3)))


def test_every_task_is_closed_in_its_own_context() -> None:
    """R6."""
    name: ContextVar[str] = ContextVar("name")
    seen: list[str] = []

    async def branch(own: str) -> None:
        name.set(own)
        try:
            await fetch(1)
        finally:
            seen.append(name.get())

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for own in "abc":
                group.create_task(branch(own))

    Play(body).close()
    assert sorted(seen) == ["a", "b", "c"]


def test_the_running_loop_is_the_bodys_while_it_is_closed() -> None:
    """R6: a `finally` that asks for the loop gets its own, and the outer one is there again behind it."""
    loops: list[Any] = []

    async def body() -> None:
        loops.append(asyncio.get_running_loop())
        try:
            await fetch(1)
        finally:
            loops.append(asyncio.get_running_loop())

    async def main() -> None:
        outer = asyncio.get_running_loop()
        play = Play(body)
        assert asyncio.get_running_loop() is outer
        play.close()
        assert asyncio.get_running_loop() is outer
        assert outer not in loops

    asyncio.run(main())
    assert len(loops) == 2
    assert loops[0] is loops[1]


def test_the_outer_loops_hooks_are_there_again() -> None:
    """A generator of the outer loop is not taken for one of a body."""

    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def body() -> None:
        async for _ in numbers():
            await fetch(1)

    async def main() -> None:
        import sys

        before = sys.get_asyncgen_hooks()
        play = Play(body)
        assert sys.get_asyncgen_hooks() == before
        play.close()
        assert sys.get_asyncgen_hooks() == before

    asyncio.run(main())


async def _in_a_group(trace: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_step(trace))
        group.create_task(_step(trace))


async def _in_a_gather(trace: list[str]) -> None:
    await asyncio.gather(_step(trace), _step(trace), sleep(5))


async def _in_a_timeout(trace: list[str]) -> None:
    async with asyncio.timeout(5):
        await asyncio.wait_for(_step(trace), 7)


async def _in_a_wait(trace: list[str]) -> None:
    await asyncio.wait([asyncio.create_task(_step(trace))], timeout=9)


async def _in_a_shield(trace: list[str]) -> None:
    await asyncio.shield(_step(trace))


async def _in_as_completed(trace: list[str]) -> None:
    for done in asyncio.as_completed([asyncio.create_task(_step(trace))], timeout=5):
        await done


async def _in_a_lock(trace: list[str]) -> None:
    lock = asyncio.Lock()
    async with lock:
        begin(_step(trace))
        await lock.acquire()


async def _in_a_condition(trace: list[str]) -> None:
    condition = asyncio.Condition()
    begin(_step(trace))
    async with condition:
        await condition.wait()


async def _in_a_queue(trace: list[str]) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    begin(_step(trace))
    await queue.get()


async def _in_an_exit_stack(trace: list[str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_opened(trace))
        stack.push_async_callback(store, 3)
        await _step(trace)


async def _before_it_began(trace: list[str]) -> None:
    async def begun() -> None:
        await _step(trace)

    tasks = [asyncio.create_task(begun()) for _ in range(40)]
    tasks[7].cancel()
    await _step(trace)


@contextlib.asynccontextmanager
async def _opened(trace: list[str]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        trace.append("closed")
        await store(2)


async def _step(trace: list[str]) -> None:
    try:
        await fetch(1)
    finally:
        trace.append("closed")
        await store(1)
        trace.append("never")


@pytest.mark.parametrize(
    "way",
    [
        _in_a_group, _in_a_gather, _in_a_timeout, _in_a_wait, _in_a_shield, _in_as_completed, _in_a_lock,
        _in_a_condition, _in_a_queue, _in_an_exit_stack, _before_it_began,
    ],
)  # fmt: skip
def test_whatever_it_waits_in_is_closed_in_silence(
    way: Callable[[list[str]], Any], is_quiet: Callable[[], bool], log: pytest.LogCaptureFixture
) -> None:
    """R6: no "Task was destroyed", no "never awaited", nothing refused."""
    trace: list[str] = []
    play = Play(lambda: way(trace))
    play.close()
    del play
    assert is_quiet()
    assert set(trace) == {"closed"}
    assert errors(log) == []


def test_one_that_refuses_to_close_is_asked_three_times_kept_and_reported(
    log: pytest.LogCaptureFixture, is_quiet: Callable[[], bool]
) -> None:
    """R6: collected, it would run its `finally` under whichever loop is current then."""
    asked: list[str] = []

    async def stubborn() -> None:
        while True:
            try:
                await fetch(1)
            except BaseException as error:  # noqa: BLE001 - the wrong that is tested
                asked.append(type(error).__name__)

    play = Play(stubborn)
    play.close()
    assert asked == ["GeneratorExit"] * 3
    (said,) = errors(log)
    assert "stubborn refused to close, was asked 3 times" in said
    assert f"It stands at {__file__}:" in said
    del play
    assert is_quiet()
    frames._unclosable.clear()
    assert is_quiet()
    assert asked == ["GeneratorExit"] * 3, "it is kept"


def test_one_that_gets_on_each_time_is_closed(log: pytest.LogCaptureFixture, is_quiet: Callable[[], bool]) -> None:
    """R6: however many clean-ups are nested and ask for something."""
    trace: list[int] = []

    async def nested(depth: int) -> None:
        try:
            await (nested(depth - 1) if depth else fetch(1))
        finally:
            trace.append(depth)
            await store(depth)

    Play(lambda: nested(9)).close()
    assert trace == list(range(10))
    assert errors(log) == []
    assert is_quiet()


def test_a_clean_up_that_fails_is_no_trouble(log: pytest.LogCaptureFixture, is_quiet: Callable[[], bool]) -> None:
    """R6: nobody waits for how it ends."""
    trace: list[str] = []

    async def failing(error: BaseException) -> None:
        try:
            await fetch(1)
        finally:
            raise error

    async def pages() -> AsyncIterator[int]:
        try:
            yield 1
            await fetch(1)
        finally:
            raise RuntimeError("in a generator")

    async def reading() -> None:
        try:
            async for _ in pages():
                pass
        finally:
            trace.append("reading")
            await fetch(2)

    async def body() -> None:
        errors = (ValueError(), RuntimeError(), KeyboardInterrupt(), SystemExit(), asyncio.CancelledError())
        await asyncio.gather(reading(), *(failing(error) for error in errors))

    Play(body).close()
    assert trace == ["reading"]
    assert errors(log) == []
    assert is_quiet()


# Asynchronous generators -------------------------------------------------------------------------------


async def _pages(trace: list[str], *, waits: bool) -> AsyncIterator[int]:
    try:
        yield 1
        if waits:
            await fetch(2)
        yield 2
    finally:
        trace.append("closed")
        await store(1)
        trace.append("never")


async def _open_at_a_yield(trace: list[str]) -> None:
    async for _ in _pages(trace, waits=False):
        await fetch(1)


async def _open_in_an_await(trace: list[str]) -> None:
    async for _ in _pages(trace, waits=True):
        pass


async def _open_and_held(trace: list[str]) -> None:
    pages = _pages(trace, waits=False)
    await anext(pages)
    _held.append(pages)
    await fetch(1)


async def _open_in_a_generator(trace: list[str]) -> None:
    async def outer() -> AsyncIterator[int]:
        async for page in _pages(trace, waits=True):
            yield page

    async for _ in outer():
        pass


async def _open_in_a_nested_coroutine(trace: list[str]) -> None:
    async def inner() -> int:
        pages = _pages(trace, waits=True)
        await anext(pages)
        return await anext(pages)

    await asyncio.gather(inner())


async def _left_behind(trace: list[str]) -> None:
    async for _ in _pages(trace, waits=False):
        break
    trace.append("left")
    await fetch(1)


_held: list[Any] = []


@pytest.mark.parametrize(
    "way",
    [
        _open_at_a_yield, _open_in_an_await, _open_and_held, _open_in_a_generator, _open_in_a_nested_coroutine,
        _left_behind,
    ],
)  # fmt: skip
def test_an_asynchronous_generator_is_closed_with_the_body(
    way: Callable[[list[str]], Any], is_quiet: Callable[[], bool], log: pytest.LogCaptureFixture
) -> None:
    """R6: wherever it stands; local code runs, what it asks for does not (an activity outside a body would)."""
    trace: list[str] = []
    play = Play(lambda: way(trace))
    play.close()
    _held.clear()
    del play
    assert is_quiet()
    assert trace.count("closed") == 1
    assert "never" not in trace
    assert errors(log) == []


def test_a_generator_that_is_begun_while_the_body_is_closed_is_closed_too(
    is_quiet: Callable[[], bool], log: pytest.LogCaptureFixture
) -> None:
    """R6."""
    trace: list[str] = []

    async def body() -> None:
        try:
            await fetch(1)
        finally:
            async for _ in _pages(trace, waits=False):
                break
            trace.append("on")

    Play(body).close()
    assert is_quiet()
    assert trace == ["closed", "on"]
    assert errors(log) == []


@pytest.mark.parametrize("waits", [False, True], ids=["at a yield", "in an await"])
def test_a_generator_that_refuses_to_close_is_kept_and_reported(
    waits: bool, log: pytest.LogCaptureFixture, is_quiet: Callable[[], bool]
) -> None:
    """R6."""
    asked: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        while True:
            try:
                yield 1
                if waits:
                    await fetch(1)
            except BaseException as error:  # noqa: BLE001 - the wrong that is tested
                asked.append(type(error).__name__)

    async def body() -> None:
        async for _ in stubborn():
            if not waits:
                await store(1)

    Play(body).close()
    assert is_quiet()
    (said,) = errors(log)
    assert "stubborn refused to close" in said
    assert f"It stands at {__file__}:" in said
    assert set(asked) == {"GeneratorExit"}


def test_a_generator_that_memorys_end_finds_between_turns_acts_on_nothing(is_quiet: Callable[[], bool]) -> None:
    """R6: nor in the turn of another body, whose host it would find; its clean-up is local, and runs at the end."""
    trace: list[str] = []

    async def owner() -> None:
        pages = _pages(trace, waits=False)
        await anext(pages)
        ring: list[Any] = [pages]
        ring.append(ring)
        del pages, ring
        await fetch(1)

    async def innocent() -> None:
        await fetch(1)
        gc.collect()
        await fetch(2)

    gc.collect()
    gc.disable()
    try:
        play, another = Play(owner), Play(innocent)
        another.answer("fetch", 0)
    finally:
        gc.enable()
    assert another.waiting == ['fetch{"x":2}#2']
    assert trace == []
    play.close()
    assert trace == ["closed"]
    assert is_quiet()


def test_a_generator_that_outlives_its_body_acts_on_nothing(is_quiet: Callable[[], bool]) -> None:
    """R6: found by the garbage collector, or let go by whoever held it, when the body has long been put away."""
    trace: list[str] = []

    async def pages() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            trace.append("closed")
            await store(1)

    async def body() -> None:
        opened = pages()
        await anext(opened)
        await fetch(1)
        _held.append(opened)

    play = Play(body)
    play.answer("fetch", 0)
    assert play.ended
    _held.clear()
    assert is_quiet()
    assert trace == ["closed"]


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_call_that_outlives_its_body_cannot_be_awaited_elsewhere(is_ended: bool) -> None:
    """R6: nobody is left who could answer it, so to wait for it would be to wait for ever."""

    async def body() -> None:
        _held.append(fetch(2))
        await fetch(1)

    play = Play(body)
    if is_ended:
        play.answer("fetch", 0)
        assert play.ended
    play.close()

    async def elsewhere() -> None:
        await _held.pop()

    with pytest.raises(RuntimeError, match=r"'fetch'.*outside the body"):
        asyncio.run(elsewhere())


# Which kernels ------------------------------------------------------------------------------------------


def test_an_evicted_body_goes_on_from_its_journal() -> None:
    """R6: eviction is no end."""

    async def body() -> list[int]:
        results: list[int] = []
        for x in range(3):
            try:
                results.append(await fetch(x))
            finally:
                results.append(-x)
        return results

    play = Play(body)
    for x in range(3):
        play.answer("fetch", x * 10)
        play.close() if not play.ended else None
        play = play.again()
    assert play.result() == [0, 0, 10, -1, 20, -2]


def test_closing_twice_is_closing_once() -> None:
    """R6."""
    trace: list[str] = []
    play = Play(lambda: _step(trace))
    play.close()
    play.close()
    assert trace == ["closed"]


def test_a_held_kernel_is_closed_like_any_other(is_quiet: Callable[[], bool]) -> None:
    """R5, R6: also one that spins, with callbacks still ready."""
    trace: list[str] = []

    async def spinning() -> None:
        try:
            await spin()
        finally:
            trace.append("closed")

    play = Play(lambda: asyncio.wait_for(spinning(), 5), budget=1_000)
    assert play.kernel.trouble is not None
    play.close()
    del play
    assert trace == ["closed"]
    assert is_quiet()


def test_a_closed_kernel_takes_nothing_more() -> None:
    """R6."""
    play = Play(lambda: fetch(1))
    call = play.call("fetch")
    play.close()
    assert not play.answer(call, 1)
    assert play.journal == []
