"""What ten steps take in a process whose event loop is never idle, as a web server's at its limit."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from workload import make_orders, ten_steps

from perdure import WorkflowEngine

# How long the other work of the loop takes, each time.
OTHERS_S = 0.000_2


async def measure_busy(path: Path, *, workflows: int) -> list[float]:
    """Execute one after the other beside a loop that always has something ready; milliseconds of each."""
    took: list[float] = []
    async with WorkflowEngine.sqlite(path, [ten_steps]):
        await ten_steps.execute(make_orders("warm", 1)[0])
        async with _never_idle():
            for order in make_orders("order", workflows):
                began = time.perf_counter()
                await ten_steps.execute(order)
                took.append((time.perf_counter() - began) * 1_000)
    return took


async def measure_idle(path: Path, *, workflows: int) -> float:
    """The same in a loop that has nothing else to do; the median."""
    took: list[float] = []
    async with WorkflowEngine.sqlite(path, [ten_steps]):
        for order in make_orders("order", workflows):
            began = time.perf_counter()
            await ten_steps.execute(order)
            took.append((time.perf_counter() - began) * 1_000)
    return statistics.median(took)


@asynccontextmanager
async def _never_idle() -> AsyncIterator[None]:
    over = False

    async def work() -> None:
        while not over:
            began = time.perf_counter()
            while time.perf_counter() - began < OTHERS_S:
                pass
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        over = True
        await working
