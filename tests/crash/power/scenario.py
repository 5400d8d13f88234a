"""What engines do while the disk is watched: every workflow of the crash tests, in one process, on one file."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from perdure import WorkflowEngine

from tests.crash.ledger import Line, Phase
from tests.crash.model import children
from tests.crash.power.disk import Log, Told
from tests.crash.power.fact import Telling
from tests.crash.workflows import APART, BY_NAME, WORKFLOWS, Declined, scene

Work = tuple[str, str]  # the workflow's name, the label
Scenario = Callable[[Path, Log], Awaitable[None]]


class Witness:
    """The ledger of one life, in memory: hands each line to whoever keeps them."""

    def __init__(self, keep: Callable[[Line], None], pid: int) -> None:
        self._keep = keep
        self._pid = pid

    def write(
        self, phase: Phase, execution_id: str, name: str, key: str = "", *, attempt: int = 0, value: Any = None
    ) -> None:
        self._keep(Line(phase, self._pid, time.time_ns() // 1_000_000, execution_id, name, key, attempt, value))


def some_of_each(prefix: str, count: int) -> list[Work]:
    """Executions of every workflow that ends by itself, under labels of their own."""
    names = [workflow.name for workflow in WORKFLOWS if workflow.name not in APART]
    return [(name, f"{prefix}/{name}-{number}") for number in range(count) for name in names]


def set_the_scene(witness: Witness) -> None:
    scene.ledger = witness
    scene.gate = asyncio.Event()
    scene.something_ended = asyncio.Event()
    scene.resumptions = set()


async def see_through(engine: WorkflowEngine, work: list[Work], accepted: frozenset[str] = frozenset()) -> None:
    """Start what nobody has accepted yet, and wait until everything has ended."""
    await asyncio.gather(*(_see_through(engine, place, *one, accepted) for place, one in enumerate(work)))


async def _see_through(engine: WorkflowEngine, place: int, name: str, label: str, accepted: frozenset[str]) -> None:
    workflow = BY_NAME[name].options(engine=engine)
    id_ = workflow.execution_id(label)
    if id_ not in accepted:
        if place % 2:
            # What is started before an engine has looked around is stored and claimed, what is started later is
            # born owned: two ways into the journal.
            await scene.something_ended.wait()
        await workflow.start(label)
        scene.ledger.write(Phase.ACCEPTED, id_, name, label)
    await _hear(engine, name, id_, label)
    for number, child in enumerate(children(name, label)):
        await _hear(engine, "Steps", child, f"{label}/child-{number}")


async def _hear(engine: WorkflowEngine, name: str, id_: str, label: str) -> None:
    value: Any
    try:
        value = await BY_NAME[name].options(engine=engine).handle(id_).result()
    except Declined as refusal:
        value = f"declined {refusal.label}"
    scene.ledger.write(Phase.TOLD, id_, name, label, value=value)
    scene.something_ended.set()


# Scenarios ------------------------------------------------------------------------------------------------------------


async def one_engine_after_the_other(path: Path, log: Log) -> None:
    """The second one forgets at every await, and has a WAL of its own: the first one's close has removed it."""
    set_the_scene(Witness(lambda line: log.append(Told(line)), os.getpid()))
    for life, cache in enumerate([10_000, 0]):
        async with WorkflowEngine(Telling(path, log), WORKFLOWS, cache=cache) as engine:
            await see_through(engine, some_of_each(f"life-{life}", 2))


async def two_engines_at_once(path: Path, log: Log) -> None:
    """Each with connections of its own, as two processes have them: commits, claims and checkpoints in turn."""
    set_the_scene(Witness(lambda line: log.append(Told(line)), os.getpid()))
    async with (
        WorkflowEngine(Telling(path, log), WORKFLOWS) as one,
        WorkflowEngine(Telling(path, log), WORKFLOWS) as other,
    ):
        await asyncio.gather(see_through(one, some_of_each("one", 2)), see_through(other, some_of_each("other", 2)))


async def one_of_each(path: Path, log: Log) -> None:
    """As little as shows every kind of commit."""
    set_the_scene(Witness(lambda line: log.append(Told(line)), os.getpid()))
    async with WorkflowEngine(Telling(path, log), WORKFLOWS) as engine:
        await see_through(engine, some_of_each("one", 1))


SCENARIOS: dict[str, Scenario] = {
    "one engine after the other": one_engine_after_the_other,
    "two engines at once": two_engines_at_once,
}
WORK: dict[str, list[Work]] = {
    "one engine after the other": some_of_each("life-0", 2) + some_of_each("life-1", 2),
    "two engines at once": some_of_each("one", 2) + some_of_each("other", 2),
}
