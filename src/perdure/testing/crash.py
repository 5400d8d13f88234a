"""`crash_everywhere`: a workflow on the real engine, once for every place at which its process may die, killed there.

First a run in which nothing goes wrong, which says how often each failpoint of the engine is passed on the way from
the start to the end. Then one run for each of these passes: the process ends there, another one comes in its place, and
everything has to come to its end. The world is the simulator's, so a run is the same every time.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow, WorkflowImplementation
from perdure._failpoints import POINTS
from perdure.errors import UsageError
from perdure.testing._signer import TokenSecret
from perdure.testing._simulation import SimulatedRun, Simulation
from perdure.testing._simulation.account import Account, told_of
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.director import Commission, Plan
from perdure.testing._simulation.simulate import asked, failed, run_case
from perdure.testing._simulation.world import World

# One process, one client, and nothing that goes wrong by chance. Crashes are among the faults, so that an attempt that
# one of them has cut off may be made again.
_CASE: Final = Case(seed=0, faults=frozenset({Fault.CRASH}), at_most=0, processes=1)

_PLACE: Final = re.compile(r"(?P<point>[a-z_.]+)#(?P<passing>[1-9]\d*)")

Check = Callable[[SimulatedRun], object]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a process ends: at a failpoint, when it is passed for the n-th time."""

    point: str
    passing: int

    @classmethod
    def parsed(cls, line: str) -> Self:
        found = _PLACE.fullmatch(line.strip())
        if found is None or found["point"] not in POINTS:
            raise UsageError(
                f"at={line!r} is no place. One looks like 'commit.after#3': a failpoint, and which passing of it; a"
                f" failing run prints it. The failpoints are {', '.join(POINTS)}."
            )
        return cls(found["point"], int(found["passing"]))

    def __str__(self) -> str:
        return f"{self.point}#{self.passing}"


class _CrashingWorld(World):
    """A world in which one process ends, at one place. Without a place it only counts.

    Attributes:
        passed: The places that were passed, in their order.
    """

    def __init__(self, case: Case, registrations: Iterable[Registration], place: _Place | None) -> None:
        super().__init__(case, registrations)
        self.passed: list[_Place] = []
        self._passings: Counter[str] = Counter()
        self._place = place

    def ends_process_at(self, point: str) -> bool:
        """Whether this is the place."""
        # What comes when everything has ended belongs to closing the engine: nothing is left that a crash could touch.
        if self._healed:
            return False
        self._passings[point] += 1
        here = _Place(point, self._passings[point])
        self.passed.append(here)
        if here != self._place:
            return False
        self.happens(Fault.CRASH)
        return True


def crash_everywhere(
    workflow: Workflow[..., Any],
    /,
    *payload: Any,
    check: Check | None = None,
    setup: Callable[[], object] | None = None,
    also: Sequence[Registration] = (),
    points: Iterable[str] | None = None,
    at: str | None = None,
    token_secret: TokenSecret | None = None,
) -> Simulation:
    """Run a workflow once for every commit and every line around it that matters, killed there, and check every run.

    The places are the engine's failpoints (`perdure.testing.failpoints`): before, in and after each commit, before and
    after each call of an activity, around each claim and each wake. After a crash another process comes, takes over
    what the dead one owned, and the execution has to come to its end. Then the promises of the engine are checked,
    as by `simulate`, and then `check`; the run in which nothing goes wrong is checked first.

    A workflow of n steps has about ten places a step, and each run goes through all of its steps: choose `points`
    if that is too long. Everything else is as for `simulate`: time is virtual, activities are called as they are.

    Args:
        workflow: The workflow, with its body.
        *payload: What it is started with.
        check: Called after each run with what has happened; raises, or gives False, if it is wrong.
        setup: Called before each run: to empty the fakes.
        also: More workflows, which this one starts.
        points: Crash at these failpoints only, as in `{"commit.after", "effect.after"}`.
        at: The place of a failed run, to repeat that one.
        token_secret: What tokens are signed with, as in the options of an engine; None: they are not signed.

    Returns:
        What was simulated; `ended_at` has how often a process ended at each failpoint.

    Raises:
        SimulationFailed: A run went wrong; the message says what, and has the line that repeats it.
        UsageError: The workflow has no body, there is no such failpoint or place, or the secret is none.

    Example:
        >>> from perdure import activity, idempotency_key, workflow
        >>> charged: set[str] = set()
        >>> @activity
        ... async def charge(order: str) -> str:
        ...     charged.add(idempotency_key())  # the gateway charges once for each key
        ...     return f"charged {order}"
        >>> @workflow(idempotency_key=lambda order: order)
        ... async def checkout(order: str) -> str:
        ...     return await charge(order)
        >>> def check(run: SimulatedRun) -> None:
        ...     assert run.result == "charged 17"
        ...     assert len(charged) == 1
        >>> done = crash_everywhere(checkout, "17", check=check, setup=charged.clear)
        >>> done.ended_at["effect.after"], done.faults["crash"] == done.runs - 1
        (1, True)
    """
    if not isinstance(workflow, WorkflowImplementation):
        raise UsageError(f"{workflow!r} has no body. Crash its implementation (`@Contract.implement`).")
    wanted = _checked(points)
    simulation = Simulation()
    plan = Plan(
        registrations=[workflow, *also],
        commissions=[Commission(workflow=workflow, args=payload)],
        token_secret=token_secret,
    )

    def run(place: _Place | None) -> list[_Place]:
        """Run it once; the places that were passed."""
        worlds: list[_CrashingWorld] = []

        def make_world(case: Case, registrations: Iterable[Registration]) -> World:
            worlds.append(_CrashingWorld(case, registrations, place))
            return worlds[0]

        line = str(place or "never")

        def judge(account: Account) -> list[str]:
            return asked(check, replace(told_of(account), case=line))

        found = run_case(_CASE, plan, judge, simulation, setup, make_world=make_world)
        if found:
            raise _failed(workflow, place, found)
        if place is not None and not worlds[0].ended_at:
            raise UsageError(f"at={line!r}: {place.point} is not passed so often in this run.")
        return worlds[0].passed

    if at is not None:
        run(None if at == "never" else _Place.parsed(at))
        return simulation
    for place in run(None):
        if place.point in wanted:
            run(place)
    return simulation


def _checked(points: Iterable[str] | None) -> frozenset[str]:
    wanted = frozenset(POINTS if points is None else points)
    if unknown := sorted(wanted - POINTS.keys()):
        raise UsageError(f"There is no failpoint {unknown[0]!r}. There are: {', '.join(POINTS)}.")
    return wanted


def _failed(workflow: WorkflowImplementation[..., Any], place: _Place | None, found: list[str]) -> Exception:
    what = "The run without a crash went wrong" if place is None else f"The run that was killed at {place} went wrong"
    line = str(place or "never")
    return failed(what, found, case=line, repeat=f"crash_everywhere({workflow.name}, …, at={line!r})")
