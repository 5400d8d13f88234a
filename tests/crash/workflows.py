"""The workflows of the crash tests: each way in which an execution calls, waits, fails and starts another one.

Each activity leaves two lines in the ledger: one when it begins, one when it has done to the world what it is for.
What it returns names its step, so that the right result of an execution can be computed without running it.
"""

import asyncio
import os
import signal
import time

from perdure import (
    OutcomeUnknown,
    Schedule,
    TypedError,
    activity,
    current_attempt,
    execution_id,
    idempotency_key,
    now,
    random,
    sleep,
    uuid4,
    workflow,
)

from tests.crash.ledger import Ledger, Phase


class Busy(TypedError):
    """The far side wants to be asked again."""


class Declined(TypedError):
    """The far side has said no."""

    label: str


class Scene:
    """What the activities of this process have around them."""

    ledger: Ledger
    gate: asyncio.Event
    something_ended: asyncio.Event
    # Kept until the process ends: a task that nobody keeps may vanish.
    resumptions: set[asyncio.Future[None]]


scene = Scene()


def note(phase: Phase, name: str) -> str:
    key = idempotency_key()
    scene.ledger.write(phase, execution_id(), name, key, attempt=current_attempt())
    return key


def far_side_s(key: str) -> float:
    """How long the far side takes: for each step another time, so that calls overtake each other. At most 6 ms."""
    return int(key[:2], 16) / 40_000


async def perform(name: str) -> str:
    key = note(Phase.BEGIN, name)
    await asyncio.sleep(far_side_s(key))
    note(Phase.EFFECT, name)
    return f"{name} {key}"


# Activities -------------------------------------------------------------------------------------------------------


@activity
async def step(label: str, number: int) -> str:
    return await perform("step")


@activity
def stamp(label: str, number: int) -> str:
    key = note(Phase.BEGIN, "stamp")
    time.sleep(far_side_s(key))
    note(Phase.EFFECT, "stamp")
    return f"stamp {key}"


@activity(retry=Schedule.spaced("15 millis").times(2), error=Busy)
async def flaky(label: str, number: int) -> str:
    result = await perform("flaky")
    if current_attempt() < 3:
        raise Busy
    return result


@activity(error=Declined)
async def decline(label: str) -> str:
    await perform("decline")
    raise Declined(label=label)


@activity(delivery="at_most_once")
async def once(label: str, number: int) -> str:
    return await perform("once")


@activity
async def mark(value: str) -> str:
    return await perform("mark")


@activity
async def gate(label: str) -> str:
    key = note(Phase.BEGIN, "gate")
    await scene.gate.wait()
    note(Phase.EFFECT, "gate")
    return f"gate {key}"


@activity
async def die(label: str) -> str:
    note(Phase.BEGIN, "die")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived its SIGKILL")


# Workflows --------------------------------------------------------------------------------------------------------


def labelled(label: str) -> str:
    return label


@workflow(name="Steps", idempotency_key=labelled)
async def steps(label: str) -> list[str]:
    return [await step(label, number) for number in range(4)]


@workflow(name="Gathered", idempotency_key=labelled)
async def gathered(label: str) -> list[str]:
    return list(await asyncio.gather(*(step(label, number) for number in (0, 1, 1, 2))))


@workflow(name="Tasks", idempotency_key=labelled)
async def tasks(label: str) -> list[str]:
    waiting = {asyncio.create_task(step(label, number)) for number in range(4)}
    results: list[str] = []
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        results += [task.result() for task in done]
    return sorted(results)


@workflow(name="Naps", idempotency_key=labelled)
async def naps(label: str) -> list[str]:
    first = await step(label, 0)
    await sleep("20 millis")
    second = await step(label, 1)
    await asyncio.sleep(0.01)
    return [first, second, await step(label, 2)]


@workflow(name="Beside", idempotency_key=labelled)
async def beside(label: str) -> list[str]:
    """Results come in just before a sleep is over, and just after."""

    async def late() -> str:
        await sleep("5 millis")
        return await step(label, 3)

    return list(await asyncio.gather(late(), *(step(label, number) for number in range(3))))


@workflow(name="LongNap", idempotency_key=labelled)
async def long_nap(label: str) -> list[str]:
    await sleep("50 seconds")
    return []


@workflow(name="Rests", idempotency_key=labelled)
async def rests(label: str) -> list[str]:
    results: list[str] = []
    for number in range(6):
        results.append(await step(label, number))
        await sleep("12 millis", name="rest", in_memory_threshold=0)
    return results


@workflow(name="Stamps", idempotency_key=labelled)
async def stamps(label: str) -> list[str]:
    return [await stamp(label, 0), *await asyncio.gather(stamp(label, 1), stamp(label, 2))]


@workflow(name="Flaky", idempotency_key=labelled)
async def retried(label: str) -> list[str]:
    return [await step(label, 0), await flaky(label, 1), await flaky(label, 2)]


@workflow(name="Declined", idempotency_key=labelled, error=Declined)
async def declined(label: str) -> list[str]:
    await step(label, 0)
    try:
        await decline(f"{label}/caught")
    except Declined:
        await step(label, 1)
    return [await decline(label)]


@workflow(name="Once", idempotency_key=labelled)
async def onces(label: str) -> list[str]:
    results: list[str] = []
    for number in range(3):
        try:
            results.append(await once(label, number))
        except OutcomeUnknown:
            results.append("unknown")
    return results


@workflow(name="Drawn", idempotency_key=labelled)
async def drawn(label: str) -> list[str]:
    return [
        await mark(str(uuid4())),
        await mark(repr(random().random())),
        await mark(now().isoformat()),
        await mark(str(uuid4("named"))),
    ]


@workflow(name="Detaching", idempotency_key=labelled)
async def detaching(label: str) -> list[str]:
    results: list[str] = []
    for number in range(2):
        child = await steps.start(f"{label}/child-{number}")
        results += [child.execution_id, await step(label, number)]
    return results


@workflow(name="Gated", idempotency_key=labelled)
async def gated(label: str) -> list[str]:
    return [await step(label, 0), await gate(label)]


@workflow(name="Poison", idempotency_key=labelled)
async def poison(label: str) -> list[str]:
    return [await die(label)]


WORKFLOWS = [
    steps, gathered, tasks, naps, beside, long_nap, rests, stamps, retried, declined, onces, drawn, detaching, gated, poison,
]  # fmt: skip
# Not for every test: these end late, or when they are told to, or never.
APART = {"Gated", "LongNap", "Poison"}
BY_NAME = {one.name: one for one in WORKFLOWS}
