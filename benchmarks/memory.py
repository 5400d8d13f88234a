"""A process that executes many workflows, or suspends many, and says how large it has become.

Measured as the size of the process, which is what an operator sees: the allocator's holes, pydantic's cache of strings
and SQLite's pages are in it. What has a bound of its own is filled before the measurement begins; what is left grows
with the executions, or does not.
"""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from workload import Order, make_orders, one_step, wait_for_delivery

from perdure import Status, WorkflowEngine

AT_ONCE: Final = 200
# Fills SQLite's page caches (16 MiB and 4) and pydantic's cache of strings (16,384 of them).
WARM: Final = 20_000
# More than any bound here: no kernel is put away.
EVERYTHING: Final = (10**9, 10**12)


def resident() -> int:
    """Bytes of this process that lie in memory, once the garbage is gone."""
    gc.collect()
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def draw_orders(name: str, count: int) -> Iterator[Order]:
    # Made as they are wanted: a hundred thousand of them would be most of what is measured.
    return (make_orders(f"{name}-{number:06}", 1)[0] for number in range(count))


async def execute_all(orders: Iterator[Order]) -> None:
    async def call() -> None:
        for order in orders:
            await one_step.execute(order)

    await asyncio.gather(*[call() for _ in range(AT_ONCE)])


async def suspend_all(engine: WorkflowEngine, orders: Iterator[Order]) -> None:
    async def call() -> None:
        for order in orders:
            await wait_for_delivery.start(order)

    await asyncio.gather(*[call() for _ in range(AT_ONCE)])
    for status in (Status.PENDING, Status.RUNNING):
        while await is_any(engine, status):  # noqa: ASYNC110 - an engine announces no suspensions
            await asyncio.sleep(0.02)


async def is_any(engine: WorkflowEngine, status: Status) -> bool:
    """Whether an execution stands so. Not by a list of all of them: that would be what is weighed."""
    async for _ in engine.executions(status=status):
        return True
    return False


async def grow_by_executing(path: Path, count: int) -> dict[str, float]:
    """How much larger the process is after all than after a quarter of them, as a quotient and in bytes each."""
    async with WorkflowEngine.sqlite(path, [one_step]):
        await execute_all(draw_orders("first", count // 4))
        before = resident()
        await execute_all(draw_orders("then", count - count // 4))
        after = resident()
    return {"growth": after / before, "bytes_each": (after - before) / (count - count // 4), "mib": after / 2**20}


async def grow_by_suspending(path: Path, count: int, cache: int | tuple[int, int]) -> float:
    """Bytes that each suspended execution has added to the process."""
    async with WorkflowEngine.sqlite(path, [wait_for_delivery], cache=cache) as engine:
        await suspend_all(engine, draw_orders("warm", WARM))
        before = resident()
        await suspend_all(engine, draw_orders("order", count))
        return (resident() - before) / count


async def main(what: str, directory: Path, count: int) -> None:
    path = directory / f"{what}.perdure"
    match what:
        case "executed":
            print(json.dumps(await grow_by_executing(path, count)))
        case "parked":
            print(json.dumps(await grow_by_suspending(path, count, EVERYTHING)))
        case _:
            print(json.dumps(await grow_by_suspending(path, count, 0)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
