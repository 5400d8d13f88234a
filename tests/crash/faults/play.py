"""A play in one process: real engines on a real file, the crash tests' workflows, a clock that the play moves, and a ledger.

Whatever the disk does meanwhile, the play goes on until everybody has been told a result, as a user would: what cannot
be opened is opened again. At each acknowledgement a witness looks at the file itself.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from perdure import StoreFileError, StoreUnavailableError, WorkflowEngine
from perdure._engine import committer, patience, wakes
from perdure._stores.sqlite import connection, writer
from perdure.errors import StoreError

from tests.conftest import Run
from tests.crash import workflows
from tests.crash.checker import Account, violations
from tests.crash.faults.disk import DISK
from tests.crash.ledger import Line, Phase
from tests.crash.model import children
from tests.crash.snapshot import FINAL, read_snapshot
from tests.crash.workflows import BY_NAME, WORKFLOWS, Declined, scene
from tests.engine.lab import Lab

A = TypeVar("A")

Work = tuple[str, str]  # the workflow's name, the label

# Enough for every way in which the store is asked: births, claims, timers, retries, notes, threads, detached starts.
SMALL: list[Work] = [("Rests", "one"), ("Flaky", "one"), ("Once", "one"), ("Stamps", "one"), ("Detaching", "one")]

# Openings in a row that may fail, and seconds of the clock in which nothing but rounds happens.
MOST_TRIES = 2_000
MOST_IDLE_SECONDS = 400


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait: neither the far side, nor an engine whose store does not answer."""
    monkeypatch.setattr(workflows, "far_side_s", lambda _key: 0.0)
    monkeypatch.setattr(committer, "FIRST_PAUSE_S", 0.000_5)
    monkeypatch.setattr(committer, "LONGEST_PAUSE_S", 0.001)
    for module in (patience, wakes):
        monkeypatch.setattr(module, "PAUSE_S", 0.000_5)
    monkeypatch.setattr(writer, "PATIENCE_S", 0.02)
    # A checkpoint every few transactions: it reads, writes and syncs as well.
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 12)
    monkeypatch.setattr(connection, "_tune", partial(_tune_without_syncs, connection._tune))
    monkeypatch.setattr(connection, "connect", lambda path, flags: _Connection(path, flags=flags))


def _tune_without_syncs(tune: Callable[[Any], None], opened: Any) -> None:
    tune(opened)
    # What a power loss does is played elsewhere, and syncing would be most of these plays. A `Disk` only counts it.
    if DISK not in apsw.vfs_names():
        opened.execute("PRAGMA synchronous = off")


class _Connection(apsw.Connection):
    """A connection that closes as SQLite does, whatever the disk says."""

    def close(self, force: bool = False) -> None:
        # The binding raises here what a file system in Python has raised, and SQLite has ignored.
        with contextlib.suppress(apsw.Error):
            super().close(force)


class Witness:
    """The ledger of a play, kept in memory, and a look at the file for each line that promises something."""

    def __init__(self, play: "Play") -> None:
        self._play = play
        self.lines: list[Line] = []
        # What was said and is not so.
        self.lies: list[str] = []

    def write(
        self, phase: Phase, execution_id: str, name: str, key: str = "", *, attempt: int = 0, value: Any = None
    ) -> None:
        at = self._play.lab.clock.now()
        self.lines.append(Line(phase, 0, at, execution_id, name, key, attempt, value))
        if threading.current_thread() is threading.main_thread() and phase is not Phase.EFFECT:
            self._look(phase, execution_id, name, key)

    def _look(self, phase: Phase, execution_id: str, name: str, key: str) -> None:
        status = stored_status(self._play.path, execution_id)
        # An attempt begins only when its execution is known to be there and somebody's; nobody may take one away here.
        wanted = {
            Phase.ACCEPTED: status is not None,
            Phase.BEGIN: status == "RUNNING",
            Phase.TOLD: status in FINAL,
        }
        if not wanted[phase]:
            self.lies.append(f"{phase} {name} {key}, and the file says {status}")


def stored_status(path: Path, execution_id: str) -> str | None:
    """What the file says of an execution, past every disk of a test."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs="unix")
    try:
        connection.set_busy_timeout(5_000)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        rows = list(connection.execute("SELECT status FROM perdure_executions WHERE id = unhex(?)", (execution_id,)))
    finally:
        connection.close()
    return str(rows[0][0]) if rows else None


class Play:
    """One file, and what happens on it."""

    def __init__(self, folder: Path, run: Run, *, cache: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.lab = Lab("file", cache, folder, run)
        self.path = self.lab.path
        self.witness = Witness(self)
        # What users were told of the trouble.
        self.complaints: list[StoreError] = []
        # Whether its disk may look like a damaged file: one that cannot read does, to SQLite.
        self.may_look_damaged = False

    def perform(self, work: list[Work]) -> None:
        """See all of the work through, then have the file put in order by an engine that finds no fault."""
        self.take_the_stage()
        self.lab.run(lambda: self._perform(work))

    def tidy(self) -> None:
        """An engine that finds nothing to do but what a predecessor has left."""

        async def main() -> None:
            async with self.lab.engine(WORKFLOWS):
                await self.lab.skip("2 seconds")

        self.take_the_stage()
        self.lab.run(main)

    def verdict(self) -> list[str]:
        """What must not be: by the ledger, the journal, the model, and the witness."""
        account = Account(self.witness.lines, [], read_snapshot(self.path))
        return [*violations(account), *self.witness.lies, *self._unclear()]

    def _unclear(self) -> Iterator[str]:
        """Promise 8: a clear error to whoever can act, and nobody is sent for a backup without need."""
        remedies = ["again", "permissions"] + ["backup"] * self.may_look_damaged
        for complaint in self.complaints:
            said = str(complaint)
            if str(self.path) not in said or not any(remedy in said for remedy in remedies):
                yield f"{type(complaint).__name__} does not say where or what to do: {said}"

    def take_the_stage(self) -> None:
        """Have the activities of this process write into this play's ledger."""
        scene.ledger = self.witness  # type: ignore[assignment]  # a ledger to whoever writes into it

    async def _perform(self, work: list[Work]) -> None:
        async with AsyncExitStack() as stack:
            engine = await self._opened(stack)
            waiting = asyncio.gather(*(self._see_through(engine, *one) for one in work), self._look_around(engine))
            await self.wait_for(waiting)

    def see_all_through(self, engine: WorkflowEngine, work: list[Work]) -> "asyncio.Task[None]":
        """Start the work, and wait for all of its results; a task."""
        self.take_the_stage()
        waiting = asyncio.gather(*(self._see_through(engine, *one) for one in work))
        return asyncio.create_task(self.wait_for(waiting))

    async def wait_for(self, waiting: "asyncio.Future[Any]") -> None:
        """Wait, and let the clock go on when nothing else does: rounds are taken, whatever was lost is found."""
        for _ in range(MOST_IDLE_SECONDS):
            await self.lab.settle()
            if waiting.done():
                return await waiting
            if not await self.lab.skip_to_next():
                self.lab.clock.advance(1_000)
        waiting.cancel()
        raise AssertionError(f"it does not end: {self.lab._unrest()}")

    async def _opened(self, stack: AsyncExitStack) -> WorkflowEngine:
        for _ in range(MOST_TRIES):
            try:
                return await stack.enter_async_context(self.lab.engine(WORKFLOWS))
            except (StoreUnavailableError, StoreFileError) as error:
                self.complaints.append(error)
        raise AssertionError("it cannot be opened") from self.complaints[-1]

    async def _see_through(self, engine: WorkflowEngine, name: str, label: str) -> None:
        workflow = BY_NAME[name].options(engine=engine)
        handle = await self._insist(lambda: workflow.start(label))
        self.witness.write(Phase.ACCEPTED, handle.execution_id, name, label)
        await self._hear(engine, name, handle.execution_id, label)
        for child in children(name, label):
            await self._hear(engine, "Steps", child, f"child of {label}")

    async def _hear(self, engine: WorkflowEngine, name: str, id_: str, label: str) -> None:
        value: Any
        try:
            value = await self._insist(lambda: BY_NAME[name].options(engine=engine).handle(id_).result())
        except Declined as refusal:
            value = f"declined {refusal.label}"
        self.witness.write(Phase.TOLD, id_, name, label, value=value)

    async def _insist(self, ask: Callable[[], Awaitable[A]]) -> A:
        """Ask again whoever says that the file is damaged: to SQLite it looks so when a disk cannot read."""
        for _ in range(MOST_TRIES):
            try:
                return await ask()
            except StoreFileError as error:
                self.complaints.append(error)
                await asyncio.sleep(0)
        raise AssertionError("it does not get better") from self.complaints[-1]

    async def _look_around(self, engine: WorkflowEngine) -> None:
        """Somebody who only asks, and is told of an outage instead of waiting for its end."""
        for _ in range(8):
            try:
                found = [info async for info in engine.executions()]
                if found:
                    await engine.describe(found[0].execution_id)
            except (StoreUnavailableError, StoreFileError) as error:
                self.complaints.append(error)
            await asyncio.sleep(0)
