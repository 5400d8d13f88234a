"""Random programs: trees of steps, waits and branches, drawn from a seed, run by one workflow, understood by a model.

A program is JSON and the payload of its execution. Its result is a tree of the same shape, so the model needs no
engine: it says whether a result is one that the program may have.
"""

import asyncio
from random import Random
from typing import Any

from perdure import (
    ActivityTimeout,
    OutcomeUnknown,
    Schedule,
    TypedError,
    activity,
    current_attempt,
    now,
    random,
    sleep,
    uuid4,
    workflow,
)
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Plan

Node = list[Any]  # its kind, then what it needs

# How long the far side of a step takes, in ms: less than a call to the store, and more than any pause of a worker.
FAR_SIDE_MS = (0, 0, 1, 20, 300, 5_000, 120_000)
PATIENCE_MS = 1_000
# The first are waited for in memory, the last for days.
SLEEPS_MS = (0, 1, 50, 2_000, 9_000, 61_000, 3 * 24 * 3_600_000)


class Refused(TypedError):
    """The far side does not want to."""

    label: str


def far_side_ms(label: str) -> int:
    """For each step another time, the same on every attempt."""
    return Random(label).choice(FAR_SIDE_MS)


async def _far_side(label: str) -> str:
    await asyncio.sleep(far_side_ms(label) / 1_000)
    return f"{label}!"


@activity
async def step(label: str) -> str:
    return await _far_side(label)


@activity
def stamp(label: str) -> str:
    return f"{label}!"


@activity(retry=Schedule.spaced("30 millis").times(5), error=Refused)
async def flaky(label: str, failures: int) -> str:
    if current_attempt() <= failures:
        raise Refused(label=label)
    return await _far_side(label)


@activity(retry=Schedule.spaced("20 minutes").times(2))
async def stubborn(label: str) -> str:
    if current_attempt() == 1:
        raise RuntimeError("not today")
    return await _far_side(label)


@activity(error=Refused)
async def refuse(label: str) -> str:
    await _far_side(label)
    raise Refused(label=label)


@activity(timeout="1 second")
async def hurried(label: str) -> str:
    return await _far_side(label)


@activity(delivery="at_most_once")
async def once(label: str) -> str:
    return await _far_side(label)


# The body -----------------------------------------------------------------------------------------------------------


@workflow(name="Program")
async def program(node: Node) -> Any:
    return await _run(node)


async def _run(node: Node) -> Any:
    kind, *rest = node
    return await _RUNS[kind](*rest)


async def _refused(label: str) -> str:
    try:
        return await refuse(label)
    except Refused as error:
        return f"{error.label} refused"


async def _hurried(label: str) -> str:
    try:
        return await hurried(label)
    except ActivityTimeout:
        return f"{label} late"


async def _once(label: str) -> str:
    try:
        return await once(label)
    except OutcomeUnknown:
        return f"{label} unknown"


async def _equal(label: str, times: int) -> list[str]:
    return list(await asyncio.gather(*(step(label) for _ in range(times))))


async def _slept(ms: int) -> str:
    began = now()
    await sleep(f"{ms} millis", name=f"rest {ms}")
    return "in time" if (now() - began).total_seconds() * 1_000 >= ms else "too early"


async def _drawn(label: str) -> list[str]:
    drawn = f"{label} {uuid4()} {uuid4()} {random().random()} {random().random()} {now().isoformat()}"
    return [drawn, await stamp(drawn)]


async def _sequence(*nodes: Node) -> list[Any]:
    return [await _run(node) for node in nodes]


async def _all(*nodes: Node) -> list[Any]:
    return list(await asyncio.gather(*(_run(node) for node in nodes)))


async def _group(*nodes: Node) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(node)) for node in nodes]
    return [task.result() for task in tasks]


async def _first(*nodes: Node) -> list[Any]:
    """The branches that are done when the first one is; the others are cancelled."""
    tasks = [asyncio.create_task(_run(node)) for node in nodes]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    results = [[task.result()] if task.done() else [] for task in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return results


async def _within(ms: int, node: Node) -> list[Any]:
    try:
        async with asyncio.timeout(ms / 1_000):
            return [await _run(node)]
    except TimeoutError:
        return []


async def _beside(node: Node) -> str:
    """Start another program, and do not wait for it."""
    return (await program.start(node)).execution_id


_RUNS: dict[str, Any] = {
    "step": step,
    "stamp": stamp,
    "flaky": flaky,
    "stubborn": stubborn,
    "refuse": _refused,
    "hurried": _hurried,
    "once": _once,
    "equal": _equal,
    "sleep": _slept,
    "draw": _drawn,
    "sequence": _sequence,
    "all": _all,
    "group": _group,
    "first": _first,
    "within": _within,
    "beside": _beside,
}


# The model ----------------------------------------------------------------------------------------------------------


def may_be(node: Node, result: Any) -> bool:
    """Whether a program may have this result."""
    kind, *rest = node
    match kind:
        case "step" | "stamp" | "flaky" | "stubborn":
            return result == f"{rest[0]}!"
        case "refuse":
            return result == f"{rest[0]} refused"
        case "hurried":
            late = result == f"{rest[0]} late"
            # A worker that stood still may be late with what was done in time, but not the other way round.
            return late or (result == f"{rest[0]}!" and far_side_ms(rest[0]) <= PATIENCE_MS)
        case "once":
            return result in (f"{rest[0]}!", f"{rest[0]} unknown")
        case "equal":
            return result == [f"{rest[0]}!"] * rest[1]
        case "sleep":
            return result == "in time"
        case "draw":
            return _are(result, 2) and result[1] == f"{result[0]}!" and _are_drawn(rest[0], str(result[0]).split())
        case "first":
            if not _are(result, len(rest)) or not any(result):
                return False
            return all(
                told == [] or (_are(told, 1) and may_be(branch, told[0]))
                for branch, told in zip(rest, result, strict=True)
            )
        case "within":
            return result == [] or (_are(result, 1) and may_be(rest[1], result[0]))
        case "beside":
            return isinstance(result, str) and len(result) == 32
        case _:
            return _are(result, len(rest)) and all(map(may_be, rest, result))


def _are_drawn(label: str, drawn: list[str]) -> bool:
    """R39: of two draws in one turn each is its own."""
    return drawn[:1] == [label] and len(drawn) == len(set(drawn)) == 6


def _are(result: Any, count: int) -> bool:
    return isinstance(result, list) and len(result) == count


# Drawing ------------------------------------------------------------------------------------------------------------


def draw(chance: Random, label: str, depth: int = 0) -> Node:
    """A program, with the label in the name of each of its steps."""
    kinds = ["step", "stamp", "flaky", "refuse", "hurried", "once", "equal", "sleep", "draw", "stubborn"]
    weights = [6, 2, 3, 1, 2, 2, 2, 4, 1, 1]
    if depth < 3:
        kinds += ["sequence", "all", "group", "first", "within", "beside"]
        weights += [8, 6, 3, 4, 4, 1]
    kind = "sequence" if depth == 0 else chance.choices(kinds, weights)[0]
    match kind:
        case "sleep":
            return [kind, chance.choice(SLEEPS_MS)]
        case "flaky":
            return [kind, label, chance.randint(0, 3)]
        case "equal":
            return [kind, label, chance.randint(2, 4)]
        case "within":
            return [kind, chance.choice((0, 5, 400, 70_000)), draw(chance, f"{label}.0", depth + 1)]
        case "beside":
            return [kind, draw(chance, f"{label}.0", 2)]
        case "sequence" | "all" | "group" | "first":
            return [kind, *(draw(chance, f"{label}.{n}", depth + 1) for n in range(chance.randint(1, 4)))]
        case _:
            return [kind, label]


def plan(case: Case) -> Plan:
    """Some programs at once."""
    chance = Random(f"{case.seed}/programs")
    return Plan(
        registrations=[program],
        commissions=[
            Commission(
                workflow=program, args=(draw(chance, f"{case.seed}.{number}"),), clients=chance.choice((1, 1, 2, 3))
            )
            for number in range(chance.randint(1, 4))
        ],
    )
