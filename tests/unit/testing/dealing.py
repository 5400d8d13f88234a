"""Workflows for the tests of replays that deal with others; other processes import this module."""

import asyncio
from typing import Any

from perdure import (
    DurableChannel,
    DurableDeferred,
    activity,
    add_finalizer,
    publish,
    race_all,
    set_attributes,
    sleep,
    with_compensation,
    workflow,
)

Approval = DurableDeferred.make("approval", success=str)
Inbox = DurableChannel.make("inbox", str)


@activity
async def reserve(n: int) -> int:
    return n


@activity
async def release(n: int) -> None: ...


@activity
async def never(n: int) -> int:
    await asyncio.Event().wait()
    return n


@activity
async def refuse(n: int) -> int:
    raise ValueError(n)


async def undo(n: int, cause: Any) -> None:
    await release(n)


@workflow
async def child(n: int) -> int:
    await sleep("2 hours")
    return await reserve(n)


@workflow
async def dealing(n: int) -> list[str]:
    async def last(exit: Any) -> None:
        await release(99)

    await with_compensation(reserve(n), undo)
    await add_finalizer(last)
    Approval.token()
    publish("progress", 1)
    set_attributes({"n": n})
    await child.start(n)
    children = await asyncio.gather(child.execute(1), child.execute(2))
    fastest = await race_all("fastest", [never(1), reserve(5)])
    return [str(children), str(fastest), await Approval, await Inbox.receive()]


@workflow
async def leaving(n: int) -> int:
    """To be interrupted: it leaves a child, and undoes what it has done."""
    await with_compensation(reserve(n), undo)
    started = asyncio.ensure_future(child.execute(n))
    await Approval
    return await started


@workflow(suspend_on_failure=True)
async def holding(n: int) -> int:
    await reserve(n)
    return await refuse(n)
