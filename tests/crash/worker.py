"""A worker process: engines on the files of its plan, started to be killed, and started again to finish.

`python -m tests.crash.worker PLAN`, the plan as JSON. On stdout it says each line that it writes into the ledger,
and what its failpoints tell; a line on stdin opens the gate of the activities that wait there.
"""

import asyncio
import faulthandler
import json
import logging
import mmap
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import apsw

from perdure import WorkflowEngine, current_engine
from perdure._engine import wakes
from perdure._failpoints import arm
from perdure.testing.failpoints import Failpoints

from tests.crash.history import sign
from tests.crash.ledger import Ledger, Phase, read_ledger
from tests.crash.workflows import APART, BY_NAME, WORKFLOWS, Declined, detaching, scene, steps

# Whoever hangs says where, and ends before the limit of the test does.
PATIENCE_S = 60.0
# What it ends with when an execution is held that nobody expects to be.
HELD = 3

Work = tuple[str, str]  # the workflow's name, the label


@dataclass(kw_only=True)
class Plan:
    """What a worker process is to do."""

    ledger: str
    # By database: what to start, or to go on with, and to wait for.
    work: dict[str, list[Work]]
    # Where to die: the point, and at which of its reaches.
    crash: tuple[str, int] | None = None
    # Points whose reaches are to be said.
    tell: list[str] = field(default_factory=list)
    cache: int | None = None
    admission: int | None = None
    # Whether to go on until the gate is opened, when there is nothing left to wait for.
    stays: bool = False
    # Whether to resume what is held: an operator who has looked into it, and found nothing.
    resumes: bool = False
    # How often to look whether another worker has died, if not as often as an engine does.
    look_ms: int | None = None
    # A file in which to keep the points that were passed last.
    trace: str | None = None

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Plan":
        return cls(**json.loads(text))


# Where it was ------------------------------------------------------------------------------------------------------

SLOT = 32
LOOP_THREAD, STORE_THREAD = 0, 1


class Trace:
    """The last failpoint that the loop's thread and the store's thread have passed; it outlives the process."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(2 * SLOT))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 2 * SLOT)

    def note(self, point: str) -> None:
        thread = LOOP_THREAD if threading.current_thread() is threading.main_thread() else STORE_THREAD
        self._map[thread * SLOT : (thread + 1) * SLOT] = point.encode().ljust(SLOT, b"\0")


def read_trace(path: Path) -> tuple[str, str]:
    raw = path.read_bytes()
    return raw[:SLOT].rstrip(b"\0").decode(), raw[SLOT:].rstrip(b"\0").decode()


# What it does ------------------------------------------------------------------------------------------------------


class HeldLog(logging.Handler):
    """Has the ledger know when an engine says that it holds an execution; it says so on its own loop."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(logging.ERROR)
        self.plan = plan

    def emit(self, record: logging.LogRecord) -> None:
        if "is held" in record.msg:
            workflow, held, code = record.args[:3]
            scene.ledger.write(Phase.HELD, str(held), str(workflow), value=str(code))
            if self.plan.resumes:
                resumption = asyncio.ensure_future(current_engine().resume(str(held)))
                scene.resumptions.add(resumption)
            elif not self.plan.stays:
                os._exit(HELD)  # it would be waited for in vain


def say_reaches(failpoints: Failpoints, ledger: Ledger, point: str) -> None:
    """Say each of the first reaches of a point, as soon as there is one."""
    for reach in range(1, 10):
        failpoints.on(point, lambda reach=reach: ledger.say(Phase.REACHED, point, attempt=reach), reach=reach)


async def see_through(engine: WorkflowEngine, place: int, name: str, label: str, accepted: set[str]) -> None:
    """Start an execution that nobody has accepted yet, wait for its result, and for that of whom it started."""
    workflow = BY_NAME[name].options(engine=engine)
    id_ = workflow.execution_id(label)
    if id_ not in accepted:
        if place % 2 and name not in APART:
            # What is started before an engine has looked around is stored and claimed, what is started later is
            # born owned: two ways into the journal. When something has ended, the engine has looked around.
            await scene.something_ended.wait()
        await workflow.start(label)
        scene.ledger.write(Phase.ACCEPTED, id_, name, label)
    await hear(engine, name, id_, label)
    if name == detaching.name:
        for number in range(2):
            child = f"{label}/child-{number}"
            await hear(engine, steps.name, steps.execution_id(child), child)


async def hear(engine: WorkflowEngine, name: str, id_: str, label: str) -> None:
    value: Any
    try:
        value = await BY_NAME[name].options(engine=engine).handle(id_).result()
    except Declined as refusal:
        value = f"declined {refusal.label}"
    scene.ledger.write(Phase.TOLD, id_, name, label, value=value)
    scene.something_ended.set()


def listen() -> None:
    """Open the gate at the first word; whoever started us closes stdin only by ending, and nobody needs us then."""
    if not os.read(sys.stdin.fileno(), 100):
        os._exit(1)
    scene.gate.set()


async def work(plan: Plan) -> None:
    scene.gate = asyncio.Event()
    scene.something_ended = asyncio.Event()
    scene.resumptions = set()
    asyncio.get_running_loop().add_reader(sys.stdin, listen)
    accepted = {line.execution_id for line in read_ledger(Path(plan.ledger), Phase.ACCEPTED)}
    wanted = {"cache": plan.cache, "admission": plan.admission}
    options = {name: value for name, value in wanted.items() if value is not None}
    async with AsyncExitStack() as engines:
        waits = []
        for database, its_work in plan.work.items():
            engine = await engines.enter_async_context(WorkflowEngine.sqlite(database, WORKFLOWS, **options))
            if plan.resumes:
                # The operator before may have been killed before he came to it.
                waits += [engine.resume(info.execution_id) async for info in engine.executions(held="CRASHES")]
            waits += [see_through(engine, place, *one, accepted) for place, one in enumerate(its_work)]
        await asyncio.gather(*waits)
        if plan.stays:
            await scene.gate.wait()


def main(plan: Plan) -> None:
    # Where a shell has begun the tests in the background, all that they start ignores a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    apsw.connection_hooks.append(sign)
    if plan.look_ms is not None:
        assert plan.look_ms < wakes.LOOK_MS
        wakes.LOOK_MS = plan.look_ms
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    scene.ledger = Ledger(Path(plan.ledger), echo=sys.stdout.fileno())
    logging.getLogger("perdure").addHandler(HeldLog(plan))
    with Failpoints() as failpoints:
        for point in plan.tell:
            say_reaches(failpoints, scene.ledger, point)
        if plan.crash is not None:
            point, reach = plan.crash
            failpoints.crash(point, reach=reach)
        if plan.trace is not None:
            arm(Trace(Path(plan.trace)).note)
        asyncio.run(work(plan))


if __name__ == "__main__":
    main(Plan.decode(sys.argv[1]))
