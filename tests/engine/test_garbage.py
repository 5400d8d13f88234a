"""Executions and their steps leave nothing behind that only the garbage collector could find.

The collector walks everything that lives, so what it has to do for each step grows with the number of executions in
flight: at a thousand it was a fifth of all time. References count for nothing, as long as nothing holds itself.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import CoroutineType, FrameType
from typing import Any

import pytest

from perdure import Schedule, TypedError, WorkflowEngine, activity, sleep, workflow
from perdure._definitions.workflow import WorkflowImplementation

from tests.conftest import Run
from tests.engine.lab import Lab

# Whatever an engine, a test or Python does once is not counted: only what more executions leave more of.
FEW, MANY = 10, 30


class Refused(TypedError):
    number: int


@activity
async def step(number: int) -> int:
    return number


@activity
def plain_step(number: int) -> int:
    return number


@activity(timeout="1 hour")
async def patient_step(number: int) -> int:
    return number


@activity(error=Refused, retry=Schedule.spaced("1 millis").times(1))
async def refusing_step(number: int) -> int:
    raise Refused(number=number)


@activity
async def long_step(number: int) -> int:
    await asyncio.Event().wait()
    return number


@workflow(idempotency_key=str)
async def sequence(number: int) -> int:
    return sum([await step(number + each) for each in range(5)])


@workflow(idempotency_key=str)
async def threads(number: int) -> int:
    return await plain_step(number)


@workflow(idempotency_key=str)
async def with_timeout(number: int) -> int:
    return await patient_step(number)


@workflow(idempotency_key=str)
async def gathered(number: int) -> int:
    return sum(await asyncio.gather(*(step(number + each) for each in range(5))))


@workflow(idempotency_key=str)
async def caught(number: int) -> int:
    try:
        return await refusing_step(number)
    except Refused as error:
        return error.number


@workflow(idempotency_key=str)
async def sleeping(number: int) -> int:
    await sleep("1 second")
    await asyncio.sleep(1)
    return number


@workflow(idempotency_key=str)
async def suspended(number: int) -> int:
    await sleep("1 day")
    return await step(number)


@workflow(idempotency_key=str, error=Refused)
async def refused(number: int) -> int:
    raise Refused(number=await step(number))


@workflow(idempotency_key=str)
async def raced(number: int) -> int:
    async with asyncio.timeout(5):
        await step(number)
    try:
        async with asyncio.timeout(5):
            await long_step(number)
    except TimeoutError:
        return number
    return -1


def _is_ours(thing: object) -> bool:
    """Whether it is the library's, or asyncio's at its bidding; a test's own clock may hold itself."""
    room = type(thing).__module__
    is_library = room.startswith("perdure.") and not room.startswith("perdure.testing.")
    return is_library or isinstance(thing, (asyncio.Future, BaseException, FrameType, CoroutineType))


async def garbage(
    finish: Callable[[Awaitable[Any]], Awaitable[Any]], executions: Iterable[Coroutine[Any, Any, Any]]
) -> Counter[str]:
    """What some executions have left that only the collector finds, by type."""
    gc.collect()
    gc.disable()
    try:
        await finish(asyncio.gather(*executions, return_exceptions=True))
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(each).__qualname__ for each in gc.garbage if _is_ours(each))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


ON_LAB_TIME = [sequence, threads, gathered, caught, sleeping, suspended, refused, raced]


@pytest.mark.parametrize("work", ON_LAB_TIME, ids=lambda work: work.name)
def test_executions_leave_nothing_for_the_collector(corner_lab: Lab, work: WorkflowImplementation[[int], int]) -> None:
    lab = corner_lab

    async def finish(executions: Awaitable[Any]) -> None:
        await lab.finish(executions)
        await lab.settle()

    async def main() -> None:
        async with lab.engine([work]):
            await garbage(finish, map(work.execute, range(FEW)))
            few = await garbage(finish, map(work.execute, range(100, 100 + FEW)))
            many = await garbage(finish, map(work.execute, range(200, 200 + MANY)))
            if lab.cache == 0 and work is gathered:
                # asyncio's own ring: a gather holds itself until its tasks are done, and those of a body that is put
                # away never are. One for each body, and what hangs on it; it is the collector's.
                assert (many - few)["_GatheringFuture"] == MANY - FEW
            else:
                # Not none at all: in one full run a single runner was left, and why is not known. One an execution is.
                assert max((many - few).values(), default=0) < (MANY - FEW) // 2

    lab.run(main)


def test_a_timeout_that_did_not_come_leaves_nothing_either(run: Run) -> None:
    """On the engine's own clock: a cancelled alarm keeps what it was set with, and the lab's keeps itself."""

    async def finish(executions: Awaitable[Any]) -> None:
        await executions

    async def main() -> None:
        async with WorkflowEngine.memory([with_timeout]):
            await garbage(finish, map(with_timeout.execute, range(FEW)))
            few = await garbage(finish, map(with_timeout.execute, range(100, 100 + FEW)))
            # asyncio keeps up to a hundred cancelled alarms until their time.
            many = await garbage(finish, map(with_timeout.execute, range(200, 200 + 10 * MANY)))
            assert many - few == Counter()

    run(main)
