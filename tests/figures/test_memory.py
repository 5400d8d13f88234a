"""What executions leave behind in memory: nothing when they have ended, nearly nothing when they sleep without a kernel.

Counted in blocks of Python's allocator, integers and strings included, which the garbage collector does not know. The
sizes of real processes with a hundred thousand executions are figures of the benchmarks.
"""

import asyncio
import gc
import sys
import tracemalloc

from perdure import Status, WorkflowEngine, activity, sleep, workflow

from tests.conftest import Run

AT_ONCE = 50
# The first thousand fill what is kept for use again, and has its bounds.
FEW, MANY, SOME = 1_000, 1_200, 300
# Blocks for each execution. One that leaves a single integer behind leaves 1.
NOTHING = 0.5
# R6: of a parked kernel, with a journal of one entry.
PARKED_BYTES = 12_000


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def short(number: int) -> int:
    return await double(number)


@workflow
async def long(number: int) -> int:
    doubled = await double(number)
    await sleep("1 day", name="night")
    return doubled


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def execute(count: int) -> None:
    for _ in range(0, count, AT_ONCE):
        await asyncio.gather(*[short.execute(number) for number in range(AT_ONCE)])


async def suspend(engine: WorkflowEngine, count: int) -> None:
    for _ in range(0, count, AT_ONCE):
        await asyncio.gather(*[long.start(number) for number in range(AT_ONCE)])
    for status in (Status.PENDING, Status.RUNNING):
        while [one async for one in engine.executions(status=status)]:  # noqa: ASYNC110 - an engine announces no suspensions
            await asyncio.sleep(0)


def test_an_execution_that_has_ended_leaves_nothing_in_memory(run: Run) -> None:
    """R6: an engine that has executed a million is as large as one that has executed a thousand."""

    async def main() -> None:
        async with WorkflowEngine.memory([short]):
            await execute(FEW)
            before = blocks()
            await execute(MANY)
            assert (blocks() - before) / MANY < NOTHING

    run(main)


def test_an_execution_that_sleeps_without_a_kernel_leaves_nothing_in_memory(run: Run) -> None:
    """R6: what can be put away is put away; the store has everything."""

    async def main() -> None:
        async with WorkflowEngine.memory([long], cache=0) as engine:
            await suspend(engine, FEW)
            before = blocks()
            await suspend(engine, MANY)
            assert (blocks() - before) / MANY < NOTHING

    run(main)


def test_a_parked_kernel_takes_less_than_twelve_kilobytes(run: Run) -> None:
    """R6: a hundred thousand of them fit a small machine."""

    async def main() -> None:
        async with WorkflowEngine.memory([long], cache=(10**9, 10**12)) as engine:
            await suspend(engine, AT_ONCE)
            gc.collect()
            tracemalloc.start()
            try:
                await suspend(engine, SOME)
                gc.collect()
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held / SOME < PARKED_BYTES

    run(main)
