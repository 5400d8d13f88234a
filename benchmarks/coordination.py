"""What waiting for others takes: a deferred's round trip, thousands of them, children, sleepers; on a file of its own."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from perdure import DurableDeferred, Status, WorkflowEngine, sleep, workflow

X = TypeVar("X")
Y = TypeVar("Y")

# Callers at once: a server has as many requests in hand.
AT_ONCE = 100

Signal = DurableDeferred.make("signal", success=int)


@workflow(idempotency_key=str)
async def wait_for_signal(number: int) -> int:
    return await Signal + number


@workflow(idempotency_key=str)
async def leaf(number: int) -> int:
    return number


@workflow(idempotency_key=lambda name, count: f"{name}-{count}")
async def tree(name: str, count: int) -> str:
    return f"{name}: {sum(await asyncio.gather(*[leaf.execute(number) for number in range(count)]))}"


@workflow(idempotency_key=str)
async def sleeper(number: int) -> int:
    await sleep("1 day", name="a day")
    return number


class Waited(NamedTuple):
    """One round."""

    round_trip_ms: float  # the median
    completions_per_s: float
    ended_per_s: float
    children_s: float
    sleepers_per_s: float


async def measure_coordination(directory: Path, *, trips: int, waiting: int, children: int, sleepers: int) -> Waited:
    """All of it once, each part with an engine and a file of its own."""
    round_trip = await _measure_round_trip(directory / "trips.perdure", trips)
    completions, ended = await _measure_completions(directory / "waiting.perdure", waiting)
    return Waited(
        round_trip,
        completions,
        ended,
        await _measure_children(directory / "children.perdure", children),
        await _measure_sleepers(directory / "sleepers.perdure", sleepers),
    )


async def _measure_round_trip(path: Path, count: int) -> float:
    """From `succeed` to the result of the execution that waits for it, one after the other; the median in milliseconds."""
    taken: list[float] = []
    async with WorkflowEngine.sqlite(path, [wait_for_signal]) as engine:
        for number in range(count):
            handle = await wait_for_signal.start(number)
            await _all_suspended(engine)
            token = Signal.token_for(wait_for_signal, number)
            began = time.perf_counter()
            await Signal.succeed(token, number)
            assert await handle.result() == 2 * number
            taken.append((time.perf_counter() - began) * 1_000)
    return statistics.median(taken)


async def _measure_completions(path: Path, count: int) -> tuple[float, float]:
    """So many executions wait; how many completions from outside a second, and how many executions end."""
    async with WorkflowEngine.sqlite(path, [wait_for_signal]) as engine:
        handles = await _each(range(count), wait_for_signal.start)
        await _all_suspended(engine)
        tokens = iter([(Signal.token_for(wait_for_signal, number), number) for number in range(count)])
        began = time.perf_counter()
        told = await _each(tokens, lambda one: Signal.succeed(*one))
        completed = time.perf_counter() - began
        assert all(told)
        await asyncio.gather(*[handle.result() for handle in handles])
        return count / completed, count / (time.perf_counter() - began)


async def _measure_children(path: Path, count: int) -> float:
    """Seconds of one execution that waits for so many children at once."""
    async with WorkflowEngine.sqlite(path, [tree, leaf]):
        await tree.execute("warm", 1)
        began = time.perf_counter()
        assert await tree.execute("tree", count) == f"tree: {count * (count - 1) // 2}"
        return time.perf_counter() - began


async def _measure_sleepers(path: Path, count: int) -> float:
    """Executions a second that are started and fall asleep for a day."""
    async with WorkflowEngine.sqlite(path, [sleeper]) as engine:
        began = time.perf_counter()
        await _each(range(count), sleeper.start)
        await _all_suspended(engine)
        return count / (time.perf_counter() - began)


async def _each(items: Iterable[X], call: Callable[[X], Awaitable[Y]]) -> list[Y]:
    """Call for each, as many at once as there are callers."""
    left = iter(items)
    answers: list[Y] = []

    async def caller() -> None:
        for item in left:
            answers.append(await call(item))  # noqa: PERF401 - one list for all callers

    await asyncio.gather(*[caller() for _ in range(AT_ONCE)])
    return answers


async def _all_suspended(engine: WorkflowEngine) -> None:
    """Wait until nothing is awake; asked rarely enough not to be what is measured."""
    while [1 async for _ in engine.executions(status=Status.RUNNING, limit=1)] or [  # noqa: ASYNC110 - nobody announces it
        1 async for _ in engine.executions(status=Status.PENDING, limit=1)
    ]:
        await asyncio.sleep(0.001)
