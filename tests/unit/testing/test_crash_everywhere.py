"""`crash_everywhere`: every place is crashed at, what is careless is found, and a line repeats it."""

import asyncio

import pytest

from perdure import OutcomeUnknown, UsageError, Workflow, activity, idempotency_key, sleep, workflow
from perdure._failpoints import POINTS
from perdure.testing import SimulatedRun, SimulationFailed
from perdure.testing.crash import crash_everywhere


class Gateway:
    """A far side that remembers what it was asked, and charges once for each key."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: set[str] = set()

    def forget(self) -> None:
        self.calls.clear()
        self.keys.clear()


gateway = Gateway()


@activity
async def charge(order: str) -> str:
    gateway.calls.append(order)
    gateway.keys.add(idempotency_key())
    await asyncio.sleep(0.05)
    return "charged"


@activity(delivery="at_most_once")
async def charge_at_most_once(order: str) -> str:
    gateway.calls.append(order)
    return "charged"


@workflow(idempotency_key=lambda order: order)
async def one_step(order: str) -> str:
    return await charge(order)


@workflow(idempotency_key=lambda order: order)
async def three_steps_and_a_month(order: str) -> str:
    first = await charge(order)
    await sleep("30 days")
    await asyncio.gather(charge("shipping"), charge("tax"))
    return first


@workflow(idempotency_key=lambda order: order)
async def at_most_once(order: str) -> str:
    try:
        return await charge_at_most_once(order)
    except OutcomeUnknown:
        return "nobody knows"


@workflow(idempotency_key=lambda order: order)
async def parent(order: str) -> str:
    await one_step.start(order)
    return "started"


def charged_three_times(run: SimulatedRun) -> None:
    assert run.result == "charged"
    assert len(gateway.keys) == 3
    # The crash cuts off what is under way: one charge, or the two side by side.
    assert len(gateway.calls) <= 5


def test_every_commit_and_what_is_around_it_is_crashed_at_once() -> None:
    done = crash_everywhere(three_steps_and_a_month, "17", check=charged_three_times, setup=gateway.forget)
    # Its birth, the first result, its sleep, the wake, and two results; each with everything around it.
    assert done.ended_at["commit.before"] == done.ended_at["commit.written"] == done.ended_at["commit.after"] >= 5
    assert done.ended_at["effect.before"] == done.ended_at["effect.after"] == 3
    assert done.ended_at["promote.after"] == 1
    # One run without a crash, and then one for each place.
    assert done.faults == {"crash": done.runs - 1}
    assert done.ended_at.total() == done.runs - 1 > 50
    assert done.virtual_hours >= done.runs * 30 * 24


def test_an_effect_that_happens_twice_is_found_and_its_line_repeats_it() -> None:
    """What `effect.after` is for: the function has returned, and nobody knows."""

    def called_once(run: SimulatedRun) -> None:
        assert gateway.calls == ["17"], f"it was called {len(gateway.calls)} times in {run.case}"

    with pytest.raises(SimulationFailed) as failed:
        crash_everywhere(one_step, "17", check=called_once, setup=gateway.forget)
    assert failed.value.case == "effect.after#1"
    assert "it was called 2 times in effect.after#1" in failed.value.found[0]
    assert str(failed.value).endswith("To repeat it: crash_everywhere(one_step, …, at='effect.after#1')")
    with pytest.raises(SimulationFailed) as again:
        crash_everywhere(one_step, "17", check=called_once, setup=gateway.forget, at=failed.value.case)
    assert again.value.found == failed.value.found


def test_delivered_at_most_once_it_never_happens_twice() -> None:
    """R50: killed between its note and its record, the body is told that nobody knows."""
    results: set[str] = set()

    def check(run: SimulatedRun) -> None:
        results.add(run.result)
        assert len(gateway.calls) <= 1

    crash_everywhere(at_most_once, "17", check=check, setup=gateway.forget)
    assert results == {"charged", "nobody knows"}


def test_a_run_without_a_crash_that_is_wrong_is_said_first() -> None:
    with pytest.raises(SimulationFailed, match="The run without a crash went wrong") as failed:
        crash_everywhere(one_step, "17", check=lambda _: False, setup=gateway.forget)
    assert failed.value.case == "never"
    with pytest.raises(SimulationFailed):
        crash_everywhere(one_step, "17", check=lambda _: False, setup=gateway.forget, at="never")


def test_chosen_points_are_the_only_ones() -> None:
    done = crash_everywhere(one_step, "17", setup=gateway.forget, points={"commit.after", "effect.after"})
    assert set(done.ended_at) == {"commit.after", "effect.after"}


def test_what_it_starts_comes_to_its_end_as_well() -> None:
    def check(run: SimulatedRun) -> None:
        assert sorted(each.workflow for each in run.executions) == ["one_step", "parent"]
        assert {each.exit.unwrap() for each in run.executions} == {"started", "charged"}

    assert crash_everywhere(parent, "17", check=check, setup=gateway.forget, also=[one_step]).runs > 10


def test_the_same_runs_are_the_same() -> None:
    first, second = (crash_everywhere(one_step, "17", setup=gateway.forget) for _ in range(2))
    assert first.digest == second.digest


@pytest.mark.parametrize("at", ["commit.after", "commit.after#0", "nowhere#1", "commit.after#1#2"])
def test_a_line_that_is_no_place_is_refused(at: str) -> None:
    with pytest.raises(UsageError, match="is no place"):
        crash_everywhere(one_step, "17", at=at)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="is not passed so often"):
        crash_everywhere(one_step, "17", at="commit.after#99")
    with pytest.raises(UsageError, match="There is no failpoint 'nowhere'"):
        crash_everywhere(one_step, "17", points=[*POINTS, "nowhere"])
    with pytest.raises(UsageError, match="has no body"):
        crash_everywhere(Workflow.make("Bodiless", payload={"to": str}), {"to": "ada"})
