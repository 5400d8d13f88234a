"""`crash_everywhere`: every place is crashed at, what is careless is found, and a line repeats it."""

import asyncio

import pytest

from perdure import (
    DurableChannel,
    DurableDeferred,
    OutcomeUnknown,
    TypedError,
    UsageError,
    Workflow,
    activity,
    continue_as_new,
    idempotency_key,
    sleep,
    workflow,
)
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


@workflow(idempotency_key=lambda left, total=0: "the only one")
async def add_up(left: list[int], total: int = 0) -> int:
    if left:
        await charge("the same in every life")
        continue_as_new(left[1:], total + left[0])
    return total


Numbers = DurableChannel.make("numbers", int)


@workflow(idempotency_key=lambda total=0, count=0: "the reader")
async def reads_one_a_life(total: int = 0, count: int = 0) -> int:
    if count < 3:
        number = await Numbers.receive()
        await sleep("1 hour")
        continue_as_new(total + number, count + 1)
    return total


@workflow(idempotency_key=lambda: "the writer")
async def writes_three_at_once() -> int:
    reader = await reads_one_a_life.start()
    for number in (1, 10, 100):
        await Numbers.send(reader.execution_id, number, id=str(number))
    return await reads_one_a_life.execute()


class Declined(TypedError):
    pass


@activity(error=Declined)
async def charge_when_asked_again(order: str) -> str:
    if not gateway.calls:
        gateway.calls.append(order)
        raise Declined
    return await charge(order)


@workflow(error=Declined, idempotency_key=lambda order: order)
async def declined_once(order: str) -> str:
    return await charge_when_asked_again(order)


@workflow(idempotency_key=lambda order: order)
async def asks_again(order: str) -> str:
    try:
        return await declined_once.execute(order)
    except Declined:
        await declined_once.options(on_duplicate="restart_if_failed").start(order)
        return "asked again"


Approval = DurableDeferred.make("approval", success=str)


@workflow(idempotency_key=lambda order: order)
async def waits_for_approval(order: str) -> str:
    return f"{await Approval}: {await charge(order)}"


@workflow(idempotency_key=lambda order: f"{order} is approved")
async def approved(order: str) -> str:
    handle = await waits_for_approval.start(order)
    token = Approval.token_from_execution_id(workflow=waits_for_approval, execution_id=handle.execution_id)
    await Approval.succeed(token, "by ada")
    return await waits_for_approval.execute(order)


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


def test_tokens_that_expire_are_signed_with_a_secret() -> None:
    """R19: by the process that dies and by the next one."""
    approval = DurableDeferred.make("approval", success=str)

    @workflow(idempotency_key=lambda order: order)
    async def asks(order: str) -> str:
        await approval.succeed(approval.token(expires_in="3 days"), order)
        return await approval

    done = crash_everywhere(asks, "17", check=lambda run: run.result == "17", token_secret="a secret of the tests")
    assert done.faults["crash"] == done.runs - 1


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


def test_one_that_goes_on_as_new_is_crashed_in_each_of_its_lives() -> None:
    """R14, R37: no life is lost or lived twice, and an equal step of another life is another charge."""

    def check(run: SimulatedRun) -> None:
        assert run.result == 6
        assert len(gateway.keys) == 3
        # Told is of all lives.
        assert 3 <= run.execution.attempts("charge") <= 4

    done = crash_everywhere(add_up, [1, 2, 3], check=check, setup=gateway.forget)
    assert done.ended_at["effect.after"] == 3


def test_messages_that_came_too_early_are_read_by_the_next_life() -> None:
    """R37, R48: all three lie there when the first life goes on; each is read once."""

    def check(run: SimulatedRun) -> None:
        assert run.result == 111

    # Both bodies, four lives: everywhere would be 130 runs.
    points = {"commit.written", "commit.after"}
    done = crash_everywhere(writes_three_at_once, check=check, also=[reads_one_a_life], points=points)
    assert done.ended_at["commit.after"] >= 12


def test_one_that_is_restarted_comes_to_its_second_end() -> None:
    """R37: its failed life stays as it was."""

    def check(run: SimulatedRun) -> None:
        if run.result == "asked again":
            assert run.executions[1].result == "charged"

    done = crash_everywhere(asks_again, "17", check=check, setup=gateway.forget, also=[declined_once])
    assert done.ended_at["effect.after"] >= 1


def test_what_waits_for_somebody_is_driven_by_another_body() -> None:
    """R18: one completion counts, wherever its sender or its reader dies."""

    def check(run: SimulatedRun) -> None:
        assert run.result == "by ada: charged"
        assert len(gateway.keys) == 1

    crash_everywhere(approved, "17", check=check, setup=gateway.forget, also=[waits_for_approval])


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
