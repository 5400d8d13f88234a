"""A process that measures what is asked costs beside a million finished executions, and beside none.

The verbs of the store are asked as in `finished.py`. Then the same is asked as a program asks it: engines on the two
files start executions with a key, and execute them.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from finished import AT_ONCE, Costs, Meter, finish_one, multiply
from workload import Order, make_orders, one_step

from perdure import WorkflowEngine, sleep, workflow
from perdure._stores.sqlite import SqliteStore

ROUNDS: Final = 30
ENGINE_ROUNDS: Final = 15
# What programs ask.
START: Final = "start of an execution with a key, by a program"
EXECUTE: Final = "execution of one step with a key, by a program"


@workflow(payload=Order, idempotency_key=lambda order: order.order_id)
async def wait_a_day(order: Order) -> str:
    await sleep("1 day")
    return order.order_id


class Program:
    """Starts a hundred executions at once, and executes a hundred, and notes what one of them has cost."""

    def __init__(self, path: Path) -> None:
        self.engine = WorkflowEngine.sqlite(path, [wait_a_day, one_step])
        self.costs: Costs = defaultdict(list)

    async def take_round(self, name: str) -> None:
        """Both, once."""
        orders = make_orders(name, AT_ONCE)
        await self._measure(START, lambda: asyncio.gather(*[self.engine.start(wait_a_day, order) for order in orders]))
        await self._measure(
            EXECUTE, lambda: asyncio.gather(*[self.engine.execute(one_step, order) for order in orders])
        )

    async def _measure(self, what: str, call: Callable[[], Awaitable[Any]]) -> None:
        began = time.process_time()
        await call()
        self.costs[what].append((time.process_time() - began) / AT_ONCE * 1_000_000)


async def compare_programs(paths: Sequence[Path], rounds: int) -> list[Costs]:
    """What each has cost; they take turns."""
    programs = [Program(path) for path in paths]
    async with programs[0].engine, programs[1].engine:
        for number in range(-1, rounds):
            for program in programs:
                await program.take_round(f"round-{number}")
                if number < 0:
                    program.costs.clear()
    return [program.costs for program in programs]


async def compare(directory: Path, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """By verb: the median cost in microseconds beside that many finished executions, and beside one."""
    full, empty = directory / "finished.perdure", directory / "empty.perdure"
    for path in (full, empty):
        await finish_one(path)
    began = time.perf_counter()
    multiply(full, count)
    print(f"{count:,} finished executions in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    meters = Meter(SqliteStore(full)), Meter(SqliteStore(empty))
    for meter in meters:
        await meter.open()
        await meter.take_round()
        meter.costs.clear()
    for _ in range(rounds):
        for meter in meters:
            await meter.take_round()
    for meter in meters:
        await meter.store.retire(meter.worker_id)
        await meter.store.close()
    asked = await compare_programs((full, empty), ENGINE_ROUNDS)
    costs, others = (meter.costs | of_program for meter, of_program in zip(meters, asked, strict=True))
    return {verb: (statistics.median(costs[verb]), statistics.median(others[verb])) for verb in costs}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(compare(Path(sys.argv[1]), int(sys.argv[2]), ROUNDS))))
