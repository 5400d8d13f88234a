"""A family in which payloads do not agree, and activities that show something, under faults (R2, R42)."""

import asyncio

import pytest

from perdure import PayloadMismatchError, activity, publish, set_attributes, sleep, workflow
from perdure.testing import SimulatedRun, simulate

from tests.soak import scaled

SEEDS = scaled(60)

# Sixty runs take four seconds of one core.
pytestmark = pytest.mark.timeout(max(120, SEEDS))


@activity
async def shows(number: int) -> None:
    publish("progress", number)
    set_attributes(number=number)


@workflow(idempotency_key=lambda key, number: key, on_mismatch="raise")
async def child(key: str, number: int) -> int:
    await sleep("2 minutes")
    return number


@workflow(idempotency_key=lambda key, number: key)
async def lenient(key: str, number: int) -> int:
    return number


async def executed(number: int) -> str:
    try:
        return str(await child.execute("one", number))
    except PayloadMismatchError as refused:
        return ", ".join(refused.fields)


async def started(number: int) -> str:
    try:
        await child.start("one", number)
    except PayloadMismatchError:
        return "refused"
    return "started"


@workflow(idempotency_key=lambda key: key)
async def parent(key: str) -> list[str]:
    await child.start("one", 1)
    said = await asyncio.gather(executed(1), executed(2), started(2), started(1), executed(3))
    await shows(1)
    said += [await executed(4), await executed(1)]
    said += [str(await lenient.execute("other", number)) for number in (1, 2)]
    await shows(2)
    try:
        async with asyncio.timeout(1):
            await child.execute("left", 1)
    except TimeoutError:
        said.append("left")
    return [*said, await executed(5)]


def check(run: SimulatedRun) -> None:
    assert run.result == [
        "1", "number", "refused", "started", "number", "number", "1", "1", "1", "left", "number",
    ]  # fmt: skip


def test_who_means_another_payload_is_told_so_in_every_run():
    """R2: whatever goes wrong; and the promises of the engine hold, of which no letter and no receipt is an exception."""
    # Beginning where no other simulation of this room does.
    done = simulate(parent, "k", seeds=range(10_000, 10_000 + SEEDS), also=[child, lenient], check=check)
    assert done.runs == SEEDS
