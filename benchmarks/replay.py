"""A process that has a new engine replay long journals, and says how many entries it gets through in a second.

A thousand steps each, with the models of the other figures; behind the last one the body sleeps, so that all that an
engine does when it claims these executions is to read, decode and replay them. A body says when it has come to the end,
which it does again in each of its lives: user code is never skipped.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from throughput import Stopwatch, stopwatch
from workload import Order, Receipt, charge, make_orders

from perdure import WorkflowEngine, activity, sleep, workflow
from perdure._definitions.workflow import WorkflowImplementation
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.records import History, Query, Record
from perdure._stores.sqlite import SqliteStore

ENTRIES: Final = 1_000  # in each journal

_at_the_end: set[str] = set()


@workflow(payload=Order, idempotency_key=lambda order: order.order_id)
async def thousand_steps(order: Order) -> Receipt:
    for position in range(ENTRIES - 1):
        await charge(order, position)
    receipt = await charge(order, ENTRIES)
    _at_the_end.add(order.order_id)
    # Kept in memory, so nothing more is written: what comes back is given back by the engine that closes.
    await sleep("50 seconds")
    return receipt


@activity
async def label(name: str, position: int) -> str:
    return f"{name}-{position}"


@workflow(payload=Order, idempotency_key=lambda order: order.order_id)
async def thousand_labels(order: Order) -> str:
    """The same with a text and a number as arguments, and a text as result."""
    last = ""
    for position in range(ENTRIES):
        last = await label(order.order_id, position)
    _at_the_end.add(order.order_id)
    await sleep("50 seconds")
    return last


class Replay(NamedTuple):
    """Entries in a second."""

    plain_per_s: float  # as the next one, with plain arguments and results
    per_s: float  # claimed, read, decoded and replayed by an engine that has just been opened
    per_cpu_s: float  # the same, in a second of CPU time over all threads
    kernel_per_cpu_s: float  # decoded and replayed alone, what was read lying there
    load_per_cpu_s: float  # read alone


async def everybody_at_the_end(count: int) -> None:
    while len(_at_the_end) < count:  # noqa: ASYNC110 - a body may wake nobody outside
        await asyncio.sleep(0.002)


async def measure(path: Path, count: int) -> Replay:
    plain = await measure_engine(path.with_name("plain.perdure"), count, thousand_labels)
    claimed = await measure_engine(path, count, thousand_steps)
    loaded, replayed = await measure_parts(path)
    entries = count * ENTRIES
    return Replay(
        entries / plain.seconds,
        entries / claimed.seconds,
        entries / claimed.cpu_seconds,
        entries / replayed.cpu_seconds,
        entries / loaded.cpu_seconds,
    )


async def measure_engine(path: Path, count: int, body: WorkflowImplementation[[Order], Any]) -> Stopwatch:
    """From before a new engine opens the file until every body has come to its end again."""
    _at_the_end.clear()
    async with WorkflowEngine.sqlite(path, [body]):
        await asyncio.gather(*[body.start(order) for order in make_orders("order", count)])
        await everybody_at_the_end(count)
    _at_the_end.clear()
    async with AsyncExitStack() as stack:
        with stopwatch() as claimed:
            await stack.enter_async_context(WorkflowEngine.sqlite(path, [body]))
            await everybody_at_the_end(count)
    return claimed


async def measure_parts(path: Path) -> tuple[Stopwatch, Stopwatch]:
    """What it takes to read the journals, and what to replay what was read."""
    store = SqliteStore(path)
    await store.open()
    records = await store.executions(Query(limit=1_000))
    with stopwatch() as loaded:
        histories = await store.load([(record.incarnation, 0, 0) for record in records])
    await store.close()
    with stopwatch() as replayed:
        for record, history in zip(records, histories, strict=True):
            replay(record, history)
    return loaded, replayed


def replay(record: Record, history: History) -> None:
    """As a runner does it, without a runner."""
    assert record.began_at is not None
    life = record.incarnation
    origin = Origin(
        record.execution_id, record.number, record.workflow, life, record.began_at, unborn=False, incarnation=life
    )
    kernel = Kernel(origin, history.entries)
    kernel.begin(lambda: thousand_steps.make_body(record.payload, record.execution_id), history.entries)
    # It has come as far as the sleep, and not a step further or less.
    assert kernel.trouble is None
    assert len(kernel.timers()) == 1
    kernel.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]) / "replay.perdure", int(sys.argv[2])))._asdict()))
