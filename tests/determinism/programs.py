"""Bodies in which the order of a set, or of equal instants, could be seen: each writes down what it sees.

They are played in one process and replayed in others, with other hash seeds and other addresses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from perdure import activity, now, random, sleep, uuid4

Trace = list[Any]
Program = Callable[[Trace], Coroutine[Any, Any, Any]]

WIDTH = 12


@activity
async def fetch(x: int) -> int:
    raise AssertionError("an activity ran in a kernel")


@activity
async def clean(x: int) -> int:
    raise AssertionError("an activity ran in a kernel")


async def _branch(x: int, trace: Trace) -> int:
    """A step, and a clean-up by another one when it is cancelled: who is cancelled first asks first."""
    try:
        return await fetch(x)
    except asyncio.CancelledError:
        trace.append(f"cancelled {x}")
        trace.append(await clean(x))
        raise
    finally:
        trace.append((x, str(uuid4())))


async def branches_of_one_name(trace: Trace) -> list[int]:
    """Concurrent branches that ask for the same activity, with equal inputs among them, and go on."""

    async def branch(x: int) -> int:
        first = await fetch(x % 3)
        trace.append((x, first, str(uuid4()), random().random()))
        return first + await fetch(x % 3)

    return await asyncio.gather(*(branch(x) for x in range(WIDTH)))


async def first_completed(trace: Trace) -> list[int]:
    """`wait` gives sets: of those that an event has let through at once, and of those that are cancelled."""
    gate = asyncio.Event()

    async def waiter(x: int) -> int:
        await gate.wait()
        return x if x % 2 else await _branch(x, trace)

    tasks = {asyncio.create_task(waiter(x)) for x in range(WIDTH)}
    await fetch(100)
    gate.set()
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    results = [task.result() for task in done]
    for task in pending:
        task.cancel()
        trace.append(task.get_name())
    await asyncio.wait(pending)
    return results


async def aborted_group(trace: Trace) -> str:
    """A TaskGroup keeps its tasks in a set, and walks it when one fails."""
    try:
        async with asyncio.TaskGroup() as group:
            for x in range(WIDTH):
                group.create_task(_branch(x, trace))
            _refuse(await fetch(100))
    except* ValueError:
        trace.append(now().isoformat())
    return str(await fetch(101))


def _refuse(x: int) -> None:
    raise ValueError(f"{x} is enough")


async def sets_of_calls(trace: Trace) -> list[int]:
    """Calls in sets: gathered, and taken as they complete."""
    gathered = await asyncio.gather(*{fetch(x) for x in range(WIDTH)})
    completed = [await done for done in asyncio.as_completed({clean(x) for x in range(WIDTH)})]
    trace.append(gathered)
    return completed


async def sets_of_tasks(trace: Trace) -> list[int]:
    """Tasks and futures in sets, walked by the body itself."""
    tasks = {asyncio.create_task(_branch(x, trace)) for x in range(WIDTH)}
    futures = [asyncio.get_running_loop().create_future() for _ in range(WIDTH)]
    for number, future in enumerate(futures):
        future.set_result(number)
    trace.append([future.result() for future in set(futures)])
    for task in list(tasks)[:4]:
        task.cancel()
    return [await task for task in tasks if not task.cancelling()]


async def same_instant(trace: Trace) -> list[int]:
    """Timers that are due together, and a queue that shows who was first."""
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def sleeper(x: int) -> None:
        await (asyncio.sleep(5) if x % 2 else sleep(5, name=f"nap {x % 3}"))
        await queue.put(x)
        trace.append((x, await fetch(x)))

    async with asyncio.TaskGroup() as group:
        for x in range(WIDTH):
            group.create_task(sleeper(x))
    return [queue.get_nowait() for _ in range(WIDTH)]


async def limited_steps(trace: Trace) -> str:
    """A timeout that ends many steps at once, of which some are shielded, and each cleans up."""
    late = 0
    for seconds in (5, 5, 7):
        tasks = {asyncio.ensure_future(_branch(x, trace)) for x in range(WIDTH)}
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait(tasks)
        except TimeoutError:
            late += 1
        for task in {task for task in tasks if not task.done()}:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return f"late {late} times"


async def completed_tasks(trace: Trace) -> list[int]:
    """`as_completed` over tasks that an event completes at once."""
    gate = asyncio.Event()

    async def waiter(x: int) -> int:
        await gate.wait()
        return x

    tasks = [asyncio.create_task(waiter(x)) for x in range(WIDTH)]
    await fetch(100)
    gate.set()
    results = [await done for done in asyncio.as_completed(tasks)]
    for x in results:
        trace.append((x, await fetch(x)))
    return results


async def left_generators(trace: Trace) -> list[int]:
    """Asynchronous generators left with `break`: their clean-up asks for steps."""

    async def pages(x: int) -> AsyncIterator[int]:
        try:
            for page in range(3):
                yield await fetch(x * 10 + page)
        finally:
            trace.append(await clean(x))

    async def reader(x: int) -> int:
        async for page in pages(x):
            return page
        return -1

    return [await task for task in {asyncio.create_task(reader(x)) for x in range(WIDTH)}]


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        branches_of_one_name, first_completed, aborted_group, sets_of_calls, sets_of_tasks, same_instant,
        limited_steps, completed_tasks, left_generators,
    )
}  # fmt: skip
