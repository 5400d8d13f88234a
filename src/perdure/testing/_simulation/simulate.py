"""`simulate`: many runs of a workflow on the real engine, each with other faults, each repeatable by one line."""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow, WorkflowImplementation
from perdure._model.records import Record
from perdure._stores.sqlite.rows import COLUMNS, record
from perdure.errors import UsageError
from perdure.testing._signer import TokenSecret
from perdure.testing._simulation.account import Account, account_of, told_of
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Director, MakeWorld, Plan
from perdure.testing._simulation.invariants import violations
from perdure.testing._simulation.told import SimulatedRun
from perdure.testing._simulation.world import World

logger = logging.getLogger("perdure.testing")

# Making a failing case smaller takes as many runs at most: what is gained by more nobody waits for.
MOST_TRIES: Final = 60

Judge = Callable[[Account], Iterable[str]]
MakePlan = Callable[[Case], Plan]


class SimulationFailed(AssertionError):
    """A simulated run went wrong. The message ends with the line that repeats it.

    Attributes:
        case: The line that repeats the smallest run that was found: `simulate(…, seeds=case)`.
        found: What is wrong with that run, a sentence each.
    """

    def __init__(self, message: str, *, case: str, found: list[str]) -> None:
        """Say what is wrong."""
        super().__init__(message)
        self.case = case
        self.found = found


@dataclass
class Simulation:
    """What was simulated, when all of it went well.

    Attributes:
        runs: How many runs there were.
        executions: How many executions ended in them.
        attempts: How many attempts were begun.
        faults: What has gone wrong on purpose, by sort.
        reached: How often each failpoint of the engine was come to.
        ended_at: How often a process ended there.
        virtual_hours: How much time has passed in all runs together.
        digest: The same for the same runs of the same code.
    """

    runs: int = 0
    executions: int = 0
    attempts: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    reached: Counter[str] = field(default_factory=Counter[str])
    ended_at: Counter[str] = field(default_factory=Counter[str])
    virtual_hours: float = 0.0
    digest: int = 0

    def __str__(self) -> str:
        faults = ", ".join(f"{count:,} {fault}" for fault, count in self.faults.most_common()) or "no faults"
        return (
            f"{self.runs:,} runs, {self.executions:,} executions, {self.attempts:,} attempts, {self.virtual_hours:,.1f}"
            f" virtual hours; {faults}"
        )


def simulate(
    workflow: Workflow[..., Any],
    /,
    *payload: Any,
    seeds: int | Iterable[int] | str = 1_000,
    check: Callable[[SimulatedRun], object] | None = None,
    setup: Callable[[], object] | None = None,
    also: Sequence[Registration] = (),
    executions: int = 2,
    token_secret: TokenSecret | None = None,
) -> Simulation:
    """Run a workflow on the real engine many times, each time with other faults, and check every run.

    Everything is the product's own but time and chance: kernel, engine and SQLite store (in memory), several worker
    processes, clients that start and wait. A seed decides the order of everything that goes on at once, and what goes
    wrong: processes end at any line that matters, stand still, are taken for dead while they live; answers of the store
    are lost or come late; kernels are put away at any await. Then the faults stop, and everything has to come to its
    end. Time is virtual: a month of sleep takes a millisecond.

    After each run the promises of the engine are checked (nothing lost, nothing recorded twice or begun again, no
    timer early, every replay the same), and then `check`.

    Activities are called as they are, so give them a fake of their far side; there is no network in a simulation, and a
    plain function is called on the one thread there is, where asking its engine (`asyncio.run`) fails the run.
    The same seed gives the same run as long as workflow, fakes and `check` are deterministic themselves. One
    simulation at a time goes on in a process, and no other engine beside it: chance and failpoints are the process's.

    Args:
        workflow: The workflow, with its body.
        *payload: What it is started with. With an idempotency key all starts are one execution, as they must be.
        seeds: How many runs, or which seeds; or the line of a failed run, to repeat that one.
        check: Called after each run with what has happened; raises, or gives False, if it is wrong.
        setup: Called before each run: to empty the fakes.
        also: More workflows, which this one starts.
        executions: How many executions each run starts, where the workflow has no idempotency key.
        token_secret: What tokens are signed with, as in the options of an engine; None: they are not signed.

    Raises:
        SimulationFailed: A run went wrong; the message says what, and has the line that repeats it.
        UsageError: The workflow has no body, the line or the secret is none, or there would be no run.

    Example:
        >>> from perdure import activity, workflow
        >>> charged: list[str] = []
        >>> @activity
        ... async def charge(order: str) -> str:
        ...     charged.append(order)
        ...     return f"charged {order}"
        >>> @workflow(idempotency_key=lambda order: order)
        ... async def checkout(order: str) -> str:
        ...     return await charge(order)
        >>> def check(run: SimulatedRun) -> None:
        ...     assert run.result == "charged 17"
        ...     assert len(charged) >= 1
        >>> simulate(checkout, "17", seeds=5, check=check, setup=charged.clear).runs
        5
    """
    if not isinstance(workflow, WorkflowImplementation):
        raise UsageError(f"{workflow!r} has no body. Simulate its implementation (`@Contract.implement`).")
    if executions < 1 or (isinstance(seeds, int) and seeds < 1):
        raise UsageError(f"seeds={seeds!r}, executions={executions!r}: nothing would be simulated. Both begin at 1.")
    plan = Plan(
        registrations=[workflow, *also],
        commissions=[Commission(workflow=workflow, args=payload, clients=2) for _ in range(executions)],
        token_secret=token_secret,
    )

    def judge(account: Account) -> Iterable[str]:
        return asked(check, told_of(account))

    return simulate_plans(lambda _: plan, cases_of(seeds), judge, setup=setup, repeat=f"simulate({workflow.name}, …")


def cases_of(seeds: int | Iterable[int] | str) -> Iterable[Case]:
    """The cases that somebody wants."""
    if isinstance(seeds, str):
        return [Case.parsed(seeds)]
    return map(Case.drawn, range(seeds) if isinstance(seeds, int) else seeds)


def simulate_plans(
    make_plan: MakePlan,
    cases: Iterable[Case],
    judge: Judge,
    *,
    setup: Callable[[], object] | None = None,
    repeat: str,
    tries: int = MOST_TRIES,
) -> Simulation:
    """Run each case on a plan of its own, and judge it. The first that is wrong is made smaller and told."""
    simulation = Simulation()
    said_at = time.monotonic()
    for case in cases:
        found = run_case(case, make_plan(case), judge, simulation, setup)
        if found:
            smallest, still = shrunk(
                case, found, lambda smaller: run_case(smaller, make_plan(smaller), judge, Simulation(), setup), tries
            )
            raise _failed(case, smallest, still, repeat)
        if time.monotonic() - said_at > 10:
            said_at = time.monotonic()
            logger.info("simulating: %s", simulation)
    return simulation


def run_case(
    case: Case,
    plan: Plan,
    judge: Judge,
    simulation: Simulation,
    setup: Callable[[], object] | None = None,
    *,
    make_world: MakeWorld = World,
) -> list[str]:
    """Run one case; everything that is wrong with it."""
    if setup is not None:
        setup()
    director = Director(case, plan, make_world)
    world = director.world
    try:
        director.run()
        found = list(world.complaints)
        if not found:
            found += [
                f"the database is damaged: {row}"
                for (row,) in world.keeper.select("PRAGMA integrity_check")
                if row != "ok"
            ]
            account = account_of(
                case=case,
                registrations=list(plan.registrations),
                history=world.history,
                saw=director.saw,
                records=_records(director),
                calm_from=world.calm_from,
            )
            # First: the checks of the engine run bodies again, and whatever is local in them.
            judged = list(judge(account))
            found += [*violations(account), *judged]
        _count(simulation, director)
        return found
    finally:
        world.bury()


def _records(director: Director) -> list[Record]:
    rows = director.world.keeper.select(f"SELECT {COLUMNS} FROM perdure_executions ORDER BY n")  # noqa: S608 - our own columns
    found: list[Record] = []
    for row in rows:
        last = record(row, None if row[8] is None else f"worker {row[8]}")
        found += [*_earlier_lives(director, last), last]
    return found


def _earlier_lives(director: Director, last: Record) -> Iterator[Record]:
    """What is remembered of the lives before the last one; the rest is as the row was when it was put aside."""
    world = director.world
    left = {
        change.before.incarnation: change.before
        for change in world.history.executions
        if change.before is not None and change.after is not None
        if change.before.incarnation != change.after.incarnation
    }
    for life in world.keeper.lives(last.execution_id):
        row = left.get(life.incarnation)
        if row is None:
            world.complain(f"life {life.number} of {last.execution_id} was put aside, and was never there")
            continue
        yield last._replace(
            incarnation=life.incarnation, number=life.number, status=life.status, held=None, owner=None,
            fence=row.fence, wakes=row.wakes, wake_at=None, crashes=row.crashes, priority=row.priority,
            parent=None if row.parent is None else row.parent.hex(), created_at=life.created_at,
            began_at=row.began_at, finished_at=life.finished_at, changed_at=life.finished_at or last.changed_at,
            payload=life.payload, exit=life.exit, deadline=row.deadline, seed=row.seed,
        )  # fmt: skip


def _count(simulation: Simulation, director: Director) -> None:
    world = director.world
    simulation.runs += 1
    simulation.executions += len(world.history.latest)
    simulation.attempts += sum(not attempt.ended for attempt in world.history.attempts)
    simulation.faults += Counter({str(fault): count for fault, count in world.faults.items()})
    simulation.reached += world.reached
    simulation.ended_at += world.ended_at
    simulation.virtual_hours += world.now_us() / 3.6e9
    simulation.digest = world.history.digest(simulation.digest)


def asked(check: Callable[[SimulatedRun], object] | None, run: SimulatedRun) -> list[str]:
    """What a user's check finds wrong with a run."""
    if check is None:
        return []
    try:
        verdict = check(run)
    except Exception as error:  # noqa: BLE001 - the user's code; a result that is asked for raises what it failed with
        return [f"your check: {_said(error)}"]
    return ["your check gave False"] if verdict is False else []


def _said(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return f"{what or place.line} ({Path(place.filename).name}:{place.lineno})"


def shrunk(
    case: Case, found: list[str], run: Callable[[Case], list[str]], tries: int = MOST_TRIES
) -> tuple[Case, list[str]]:
    """The smallest case that still goes wrong, as far as a few tries find it, and what is wrong with it."""
    smallest, left = case, tries
    while left > 0:
        for smaller in smallest.smaller():
            left -= 1
            if still := run(smaller):
                smallest, found = smaller, still
                break
        else:
            break
    return smallest, found


def _failed(case: Case, smallest: Case, found: list[str], repeat: str) -> SimulationFailed:
    return failed(
        f"Seed {case.seed} went wrong", found, case=str(smallest), repeat=f"{repeat}, seeds={str(smallest)!r})"
    )


def failed(what: str, found: list[str], *, case: str, repeat: str) -> SimulationFailed:
    """The error of a run that went wrong: what is wrong with it, and the line that repeats it."""
    told = "\n".join(f"  - {sentence}" for sentence in found[:10])
    more = f"\n  - and {len(found) - 10} more" if len(found) > 10 else ""
    return SimulationFailed(f"{what}:\n{told}{more}\nTo repeat it: {repeat}", case=case, found=found)
