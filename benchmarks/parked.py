"""A process that suspends executions, and says how much Python memory each of them holds.

Counted by tracemalloc, not by the size of the process: SQLite's page cache and the allocator's holes are not a
kernel's, and would be most of the difference.
"""

import asyncio
import gc
import json
import sys
import tracemalloc
from pathlib import Path

from workload import Order, make_orders, wait_for_delivery

from perdure import Status, WorkflowEngine

AT_ONCE = 100


async def suspend(engine: WorkflowEngine, orders: list[Order], suspended: int) -> None:
    """Start these orders, and wait until so many executions are suspended in all."""
    for first in range(0, len(orders), AT_ONCE):
        await asyncio.gather(*[wait_for_delivery.start(order) for order in orders[first : first + AT_ONCE]])
    while await count_suspended(engine) < suspended:  # noqa: ASYNC110 - an engine announces no suspensions
        await asyncio.sleep(0.02)


async def count_suspended(engine: WorkflowEngine) -> int:
    return sum([1 async for _ in engine.executions(status=Status.SUSPENDED)])


async def bytes_each(path: Path, cache: int, count: int) -> float:
    async with WorkflowEngine.sqlite(path, [wait_for_delivery], cache=cache) as engine:
        # What is made once (statements, caches of pydantic, of the interpreter) is no execution's.
        await suspend(engine, make_orders("warm", AT_ONCE), AT_ONCE)
        orders = make_orders("order", count)
        gc.collect()
        tracemalloc.start()
        await suspend(engine, orders, AT_ONCE + count)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held / count


async def main(directory: Path, count: int) -> None:
    kept = await bytes_each(directory / "kept.perdure", 10 * count, count)
    evicted = await bytes_each(directory / "evicted.perdure", 0, count)
    print(json.dumps({"kept": kept, "evicted": evicted}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
