"""Fifty times under load an engine is drained, left, cut off or interrupted, and opened again (R9, R12, R41).

The same workflows, ledger and checker as where workers are killed. What a kill may do a drain must not: no crash is
counted, nothing stays owned, and what had its grace is recorded, all of it. The moments are so many lines of the
ledger into a life, drawn from a seed that is printed.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from perdure import StoreUnavailableError, TypedError, UsageError, WorkflowEngine
from perdure._model.journal import Kind

from tests.conftest import Run
from tests.crash.checker import Account, Kill, in_flight, violations
from tests.crash.ledger import Ledger, Phase, read_ledger
from tests.crash.model import children, execution_id_of
from tests.crash.snapshot import Snapshot
from tests.crash.stage import Stage, some_of_each
from tests.crash.worker import Work
from tests.crash.workflows import BY_NAME, WORKFLOWS, scene
from tests.soak import scaled

# Fifty lives with a hundred executions and more in hand, some of them processes.
pytestmark = pytest.mark.timeout(240)

LIVES = 42
INTERRUPTED_PROCESSES = 8
# How many executions are in hand at least when an engine begins to close.
AT_ONCE = 140
# Long enough for every activity of these workflows, on any machine.
GRACE = "30 seconds"
WAYS = ["drain", "leave", "cancel", "cut off"]
# What a caller may hear whose engine closes.
TURNED_AWAY = (UsageError, StoreUnavailableError)


class CountingLedger(Ledger):
    """A ledger that says when it has been given so many lines, of one sort or of any; from any thread."""

    def __init__(self, path: Path, lines: int, only: Phase | None) -> None:
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        super().__init__(path, echo=self._null)
        self._left = lines
        self._only = only
        self._loop = asyncio.get_running_loop()
        self.full = asyncio.Event()

    def write(self, phase: Phase, *args: Any, **options: Any) -> None:
        super().write(phase, *args, **options)
        self._left -= self._only in {None, phase}
        if self._left == 0:
            self._loop.call_soon_threadsafe(self.full.set)

    def close(self) -> None:
        os.close(self._null)
        os.close(self._file)


@contextlib.contextmanager
def ledger_of(stage: Stage, lines: int, only: Phase | None) -> Iterator[CountingLedger]:
    ledger = scene.ledger = CountingLedger(stage.ledger, lines, only)
    try:
        yield ledger
    finally:
        ledger.close()


class Life:
    """An engine from its opening to its closing, with callers that start executions and wait for them."""

    def __init__(self, stage: Stage, work: list[Work], way: str, draw: random.Random) -> None:
        self._stage = stage
        self._work = work
        self._way = way
        self._draw = draw
        self._callers: list[asyncio.Task[None]] = []
        # Whether everything that ran had its grace, and has ended in it.
        self.drained = True

    async def live(self) -> None:
        """Until it is full, and everybody who called has had an answer."""
        # To be cut off something must have begun.
        lines, only = (80, Phase.BEGIN) if self._way == "cut off" else (250, None)
        with ledger_of(self._stage, self._draw.randrange(20, lines), only) as ledger:
            session = asyncio.ensure_future(self._session(ledger))
            if self._way == "cancel":
                await self._moment(ledger)
                session.cancel()
            try:
                await session
            except asyncio.CancelledError:
                assert self._way == "cancel"
            await asyncio.gather(*self._callers)
            # Nothing is left: no attempt, no round, no commit on its way.
            assert asyncio.all_tasks() == {asyncio.current_task()}

    async def _session(self, ledger: CountingLedger) -> None:
        cut = self._way == "cut off"
        # A function on a thread that is cut off stays with its process, and this process has other lives to lead.
        registered = [one for one in WORKFLOWS if not cut or one.name != "Stamps"]
        async with WorkflowEngine.sqlite(
            self._stage.databases[0], registered, grace=0 if cut else GRACE, cache=self._draw.choice([0, 10_000])
        ) as engine:
            self._callers = [asyncio.ensure_future(self._see(engine, *one)) for one in self._work]
            await self._moment(ledger)
            if self._way == "cancel":
                await asyncio.get_running_loop().create_future()
            if self._way == "drain":
                self.drained = await engine.drain(GRACE)
        if cut:
            self.drained = False

    async def _moment(self, ledger: CountingLedger) -> None:
        await ledger.full.wait()
        # Not to wait for something: this is the choice of the moment, between two turns of the loop.
        for _ in range(self._draw.randrange(5 if self._way == "cut off" else 30)):
            await asyncio.sleep(0)

    async def _see(self, engine: WorkflowEngine, name: str, label: str) -> None:
        workflow = BY_NAME[name].options(engine=engine)
        id_ = workflow.execution_id(label)
        with contextlib.suppress(*TURNED_AWAY):
            await workflow.start(label)
            scene.ledger.write(Phase.ACCEPTED, id_, name, label)
            scene.ledger.write(Phase.TOLD, id_, name, label, value=await _told(workflow.handle(id_).result()))


async def _told(result: Awaitable[Any]) -> Any:
    try:
        return await result
    except TypedError as refusal:
        return f"declined {refusal.label}"  # type: ignore[attr-defined]


class Chronicle:
    """All lives on a stage, as the checker wants to hear of them: each like a process that was killed."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._ends: list[Snapshot] = []
        self._drained: list[bool] = []

    def note(self, *, drained: bool) -> None:
        """A life is over."""
        self._ends.append(self.stage.look())
        self._drained.append(drained)

    def account(self) -> Account:
        # The checker tells lives apart by their process.
        lines = [line._replace(pid=self._life_of(place)) for place, line in enumerate(read_ledger(self.stage.ledger))]
        # Nobody has taken anything over before we looked: so much is known of each life as if its row stood there yet.
        kills = [Kill(life, replace(end, living={life})) for life, end in enumerate(self._ends)]
        return Account(lines, kills, self.stage.look())

    def _life_of(self, place: int) -> int:
        return sum(end.ledger_lines <= place for end in self._ends)

    def in_hand(self) -> list[int]:
        return [sum(not one.is_final for one in end.executions.values()) for end in self._ends]

    def trouble(self, account: Account) -> Iterator[str]:
        """What a life must not leave behind that has ended by closing its engine."""
        for life, end in enumerate(self._ends):
            for execution in end.executions.values():
                if execution.owner is not None or execution.crashes:
                    yield f"life {life} left {execution.label} owned by {execution.owner}, {execution.crashes} crashes"
            if end.living or end.locks:
                yield f"life {life} left workers {end.living} and locks {end.locks}"
            open_before = _begun_and_open(self._ends[life - 1]) if life else set()
            if self._drained[life] and (noted := _begun_and_open(end) - open_before):
                yield f"life {life} was drained, and what may happen once is noted as begun only: {noted}"
            if self._drained[life] and (lost := in_flight(account, account.kills[life])):
                yield f"life {life} was drained, and what had begun is not recorded: {lost}"


def _begun_and_open(snapshot: Snapshot) -> set[tuple[str, str, int]]:
    """R50: at-most-once attempts that are noted as begun, and have no exit."""
    return {
        (id_, entry.name, entry.occurrence)
        for id_, execution in snapshot.executions.items()
        for entry in execution.events(Kind.ATTEMPT_BEGUN)
        if not any(
            (other.name, other.occurrence) == (entry.name, entry.occurrence)
            for other in execution.events(Kind.ACTIVITY)
        )
    }


def unfinished(stage: Stage, work: list[Work]) -> list[Work]:
    """Those whose result, or that of an execution they have started, nobody has been told yet."""
    told = {line.execution_id for line in read_ledger(stage.ledger) if line.phase is Phase.TOLD}
    return [one for one in work if not told.issuperset({execution_id_of(*one), *children(*one)})]


def top_up(life: int, work: list[Work]) -> list[Work]:
    """New executions for those that have ended, so that the load stays."""
    more: list[Work] = []
    while len(work) + len(more) < AT_ONCE:
        more += some_of_each(f"one/{life}-{len(more)}", 1)
    return more


def test_fifty_engines_are_drained_under_load_and_nothing_is_lost(tmp_path, run: Run, record_property):
    """R9, R41: also by Ctrl-C, in processes of their own."""
    seed = random.randrange(2**32)  # drawn anew for every run, and again with the same --randomly-seed
    print(f"seed {seed}")
    draw = random.Random(seed)
    stage = Stage(tmp_path)
    chronicle = Chronicle(stage)
    lives = ["process"] * scaled(INTERRUPTED_PROCESSES) + [WAYS[n % len(WAYS)] for n in range(scaled(LIVES))]
    draw.shuffle(lives)
    work: list[Work] = []
    for number, way in enumerate(lives):
        work = unfinished(stage, work)
        work += top_up(number, work)
        if way == "process":
            interrupt_a_process(stage, work, draw.randrange(20, 120))
            chronicle.note(drained=True)
        else:
            life = Life(stage, work, way, draw)
            run(life.live)
            chronicle.note(drained=life.drained)
    stage.run_until_it_ends(unfinished(stage, work))
    account = chronicle.account()
    figures = figures_of(chronicle, account, lives)
    record_property("figures", figures)
    print(figures)
    assert violations(account) == []
    assert list(chronicle.trouble(account)) == []
    assert account.of(Phase.HELD) == []
    # Otherwise all this would mean little.
    assert median(chronicle.in_hand()) >= AT_ONCE / 2
    assert any(in_flight(account, kill) for kill in account.kills)


def interrupt_a_process(stage: Stage, work: list[Work], lines: int) -> None:
    """Ctrl-C, and the traceback of a KeyboardInterrupt as the last word."""
    before = stage.complaints.stat().st_size if stage.complaints.exists() else 0
    with stage.worker(work) as worker:
        for count, _ in enumerate(worker.lines(), start=1):
            if count == lines:
                break
        os.kill(worker.pid, signal.SIGINT)
        code = worker.end()
    complained = stage.complaints.read_bytes()[before:].decode()
    assert code in {130, -signal.SIGINT}, complained
    assert complained.rstrip().endswith("KeyboardInterrupt"), complained
    assert not re.search("never retrieved|never awaited|destroyed but|Exception ignored|Fatal", complained), complained


def figures_of(chronicle: Chronicle, account: Account, lives: list[str]) -> str:
    hands = chronicle.in_hand()
    cut = [len(in_flight(account, kill)) for kill in account.kills]
    entries = [entry for one in account.rest.executions.values() for entry in one.events(Kind.ACTIVITY)]
    unknown = sum(b'"outcome-unknown"' in entry.exit for entry in entries)
    return (
        f"{dict(Counter(lives))}; executions in hand {min(hands)} to {max(hands)}, median {median(hands)};"
        f" {sum(cut)} attempts cut off by {sum(map(bool, cut))} lives; {unknown} outcomes unknown;"
        f" {len(account.of(Phase.EFFECT))} effects, {len(account.of(Phase.TOLD))} results told"
    )
