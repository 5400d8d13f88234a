"""What the engine does in a second, and how long one caller waits: measured in this process, on a file of its own."""

import asyncio
import gc
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workload import STEPS, Order, fan_out, make_orders, one_step, ten_steps

from perdure import WorkflowEngine
from perdure._model.records import Answer, Commit, WorkerId
from perdure._stores.sqlite import SqliteStore


class Throughput(NamedTuple):
    """What one round of `ten_steps` has come to."""

    steps: int
    seconds: float
    cpu_seconds: float
    commits: int
    transactions: int


class Latency(NamedTuple):
    """How long callers have waited in one round, in milliseconds."""

    one_step: list[float]
    gather: list[float]

    def percentile(self, percent: int) -> float:
        return statistics.quantiles(self.one_step, n=100, method="inclusive")[percent - 1]


class CountingStore(SqliteStore):
    """The store, counting what it is asked to write. It costs one more frame a transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.commits = 0
        self.transactions = 0

    async def commit(self, worker_id: WorkerId, batch: Sequence[Commit], /) -> list[Answer]:
        answers = await super().commit(worker_id, batch)
        self.transactions += 1
        self.commits += len(batch)
        return answers


@dataclass(slots=True)
class Stopwatch:
    """Wall and CPU time of a span, the latter over all threads."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def stopwatch() -> Generator[Stopwatch]:
    # The garbage of the last round is not this one's to collect.
    gc.collect()
    watch = Stopwatch()
    began, cpu_began = time.perf_counter(), time.process_time()
    yield watch
    watch.seconds, watch.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began


async def measure_throughput(path: Path, *, workflows: int, in_flight: int) -> Throughput:
    """Let `in_flight` callers execute that many workflows of ten steps, and one more before the clock starts."""
    store = CountingStore(path)
    async with WorkflowEngine(store, [ten_steps]):
        await ten_steps.execute(make_orders("warm", 1)[0])
        commits, transactions = store.commits, store.transactions
        orders = iter(make_orders("order", workflows))
        with stopwatch() as watch:
            await asyncio.gather(*[_call(orders) for _ in range(in_flight)])
        # Taken before the engine closes: what its closing writes is no step's.
        commits, transactions = store.commits - commits, store.transactions - transactions
    return Throughput(workflows * STEPS, watch.seconds, watch.cpu_seconds, commits, transactions)


async def _call(orders: Iterator[Order]) -> None:
    # All callers draw from one iterator: as many are in flight as there are callers, until the last has begun.
    for order in orders:
        await ten_steps.execute(order)


async def measure_latency(path: Path, *, workflows: int, gathers: int) -> Latency:
    """Execute one after the other, nothing else in flight."""
    one_step_ms: list[float] = []
    gather_ms: list[float] = []
    async with WorkflowEngine.sqlite(path, [one_step, fan_out]):
        for order in make_orders("warm", 10):
            await one_step.execute(order)
        for order in make_orders("order", workflows):
            began = time.perf_counter()
            await one_step.execute(order)
            one_step_ms.append((time.perf_counter() - began) * 1_000)
        for order in make_orders("gather", gathers):
            with stopwatch() as watch:
                await fan_out.execute(order)
            gather_ms.append(watch.seconds * 1_000)
    return Latency(one_step_ms, gather_ms)
