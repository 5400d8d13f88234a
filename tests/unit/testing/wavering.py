"""Workflows for the tests of replays, most of them not deterministic on purpose.

They stand in a module of their own, which other processes import: it needs nothing that they need not.
"""

import asyncio
import random as chance
import time
from typing import Any

from perdure import Workflow, activity, now, patched, publish, random, sleep, uuid4, workflow

NAMES = ["ada", "grace", "edsger", "barbara", "tony", "niklaus", "donald", "frances"]


@activity
async def greet(name: str) -> str:
    return f"hello {name}"


@activity
async def note(value: float) -> None: ...


@activity(retry=None)
async def refuse(name: str) -> str:
    raise ValueError(name)


@workflow
async def steady(names: list[str]) -> list[str]:
    """Everything that a body may use, in the order that it has."""
    greeted = await asyncio.gather(*(greet(name) for name in sorted(set(names))))
    await note(random().random())
    await sleep("30 days")
    if patched("louder"):
        greeted = [text.upper() for text in greeted]
    return [*greeted, str(uuid4()), now().isoformat()]


@workflow
async def sets_one_by_one(names: list[str]) -> int:
    """The result is the same in any order; what each call is given is not."""
    for name in set(names):
        await greet(name)
    return len(names)


@workflow
async def sets_side_by_side(names: list[str]) -> int:
    await asyncio.gather(*(greet(name) for name in set(names)))
    return len(names)


@workflow
async def sets_in_the_result(names: list[str]) -> str:
    return " ".join(set(names))


@workflow
async def clock_in_the_input(names: list[str]) -> int:
    await note(time.time())
    return 0


@workflow
async def chance_in_the_branch(names: list[str]) -> int:
    """Of two names that are drawn from chance the other one is asked for."""
    await greet(f"number {chance.random()}")
    return 0


@workflow
async def chance_in_the_result(names: list[str]) -> float:
    await greet("ada")
    return chance.random()


@workflow
async def clock_in_the_wait(names: list[str]) -> int:
    await sleep(1 + time.time() % 1, name=f"until {time.time()}")
    return 0


@workflow
async def failing(names: list[str]) -> str:
    return await refuse("ada")


here = {"process": 0}


@workflow
async def one_step_less(names: list[str]) -> int:
    """In the process of the test there is a step more than in any other."""
    await greet("ada")
    if here["process"]:
        await greet("grace")
    return 0


@workflow
async def one_step_more(names: list[str]) -> int:
    await greet("ada")
    if not here["process"]:
        await greet("grace")
    return 0


class Contracts:
    @Workflow.make("InAClass", payload={"to": str}, success=str).implement
    async def in_a_class(payload: Any) -> str:  # noqa: N805 - a namespace
        return await greet(payload.to)


@activity
async def hang(name: str) -> None:
    await asyncio.Event().wait()


@workflow
async def hanging(names: list[str]) -> int:
    await sleep("30 days")
    await asyncio.gather(*(hang(name) for name in set(names)))
    return 0


@workflow
async def started_now_and_then(names: list[str]) -> int:
    """In the process of the test it starts what it starts in no other."""
    await greet("ada")
    if here["process"]:
        await steady.options(execution_id="5" * 32).start(names)
    return 0


@workflow
async def published_now_and_then(names: list[str]) -> int:
    await greet("ada")
    if not here["process"]:
        publish("progress", 1)
    return 0
