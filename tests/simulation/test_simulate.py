"""`simulate`, as its users have it: what it finds, what it says, and that a line repeats it."""

import asyncio
from typing import Any

import pytest

from perdure import (
    DurableDeferred,
    Status,
    TypedError,
    UsageError,
    Workflow,
    activity,
    continue_as_new,
    idempotency_key,
    publish,
    set_attributes,
    sleep,
    workflow,
)
from perdure.testing import SimulatedRun, SimulationFailed, simulate
from perdure.testing._simulation.case import Case, Fault


class Gateway:
    """A far side that remembers what it was asked."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.keys: set[str] = set()

    def forget(self) -> None:
        self.charges.clear()
        self.keys.clear()


gateway = Gateway()


@activity
async def charge(order: str) -> str:
    gateway.charges.append(order)
    await asyncio.sleep(0.05)
    return "charged"


@activity
async def charge_once(order: str) -> str:
    if idempotency_key() not in gateway.keys:
        gateway.keys.add(idempotency_key())
        gateway.charges.append(order)
    return "charged"


@workflow(idempotency_key=lambda order: order)
async def careless(order: str) -> str:
    return await charge(order)


@workflow(idempotency_key=lambda order: order)
async def careful(order: str) -> str:
    first = await charge_once(order)
    await sleep("30 days")
    return first


def charged_once(run: SimulatedRun) -> None:
    assert run.result == "charged"
    assert gateway.charges == ["17"]


def test_an_effect_without_a_key_is_found_to_happen_twice():
    with pytest.raises(SimulationFailed) as failed:
        simulate(careless, "17", seeds=200, check=charged_once, setup=gateway.forget)
    assert "your check:" in failed.value.found[0]
    assert f"seeds='{failed.value.case}'" in str(failed.value)


def test_an_effect_with_a_key_happens_once():
    done = simulate(careful, "17", seeds=60, check=charged_once, setup=gateway.forget)
    assert done.runs == done.executions == 60
    # Each run sleeps for a month.
    assert done.virtual_hours >= 60 * 30 * 24
    assert "60 runs, 60 executions" in str(done)


def test_the_line_of_a_failed_run_repeats_it():
    with pytest.raises(SimulationFailed) as failed:
        simulate(careless, "17", seeds=200, check=charged_once, setup=gateway.forget)
    with pytest.raises(SimulationFailed) as again:
        simulate(careless, "17", seeds=failed.value.case, check=charged_once, setup=gateway.forget)
    assert (again.value.case, again.value.found) == (failed.value.case, failed.value.found)


def test_one_that_goes_on_as_new_is_one_execution_with_its_last_result():
    """R14, R37: a charge in each life, under a key of its own."""

    @workflow(idempotency_key=lambda left: "the only one")
    async def pays_off(left: int) -> str:
        await charge_once("17")
        if left > 1:
            continue_as_new(left - 1)
        return "paid off"

    def check(run: SimulatedRun) -> None:
        assert run.result == "paid off"
        assert len(gateway.charges) == 3
        assert len(run.execution.journal) == 1

    done = simulate(pays_off, 3, seeds=60, check=check, setup=gateway.forget)
    assert done.executions == 60
    assert done.faults["crash"] > 0


def test_what_is_shown_before_it_goes_on_is_no_trouble():
    """R37, R42: attributes are written with the change that lets it go on, behind it."""

    @workflow(idempotency_key=lambda count: "the only one")
    async def counts(count: int) -> int:
        set_attributes(count=count)
        if count < 3:
            continue_as_new(count + 1)
        return count

    simulate(counts, 0, seeds=30, check=lambda run: run.result == 3)


def test_a_failed_run_is_made_smaller():
    """Of all sorts of fault only those stay that it takes, and no more of them than it takes."""
    with pytest.raises(SimulationFailed) as failed:
        simulate(careless, "17", seeds=200, check=charged_once, setup=gateway.forget)
    case = Case.parsed(failed.value.case)
    assert len(case.faults) == 1
    assert case.faults <= {Fault.CRASH, Fault.USURP, Fault.CLOSE}
    for smaller in case.smaller():
        simulate(careless, "17", seeds=str(smaller), check=charged_once, setup=gateway.forget)


def test_a_run_without_faults_has_no_repeats():
    """I9: calm runs; the careless workflow is right there."""
    calm = [f"seed={seed} faults=none at_most=0 processes=3" for seed in range(10)]
    for line in calm:
        done = simulate(careless, "17", seeds=line, check=charged_once, setup=gateway.forget)
        assert done.attempts == 1


def test_a_check_may_raise_what_it_likes():
    """The seed is not lost: a result that is asked for raises what the workflow failed with."""

    @workflow
    async def broken() -> None:
        raise RuntimeError("a bug")

    def check(run: SimulatedRun) -> None:
        assert run.result is None

    with pytest.raises(SimulationFailed, match=r"your check: Defect: .*a bug.*\(") as failed:
        simulate(broken, seeds=3, check=check)
    assert "To repeat it" in str(failed.value)


def test_a_bare_assert_is_told_with_its_line():
    def check(run: SimulatedRun) -> None:
        assert run.result == "stolen"

    with pytest.raises(
        SimulationFailed,
        match=r'your check: assert run\.result == "stolen" \(test_simulate\.py:\d+\)|your check: .*stolen',
    ):
        simulate(careful, "17", seeds=1, check=check)


def test_a_check_sees_no_more_than_the_run_has_done():
    """The engine's own checks replay bodies; what is local in them comes after the user's check."""
    seen: list[str] = []
    at_the_check: list[int] = []

    @workflow
    async def local() -> None:
        seen.append("here")

    calm = "seed=3 faults=none at_most=0 processes=1"
    simulate(local, seeds=calm, executions=1, check=lambda run: at_the_check.append(len(seen)))
    # The second client's start has taken a first turn as well, before it knew that it joins.
    assert at_the_check == [2]
    assert len(seen) > 2


def test_a_long_workflow_is_not_taken_for_an_endless_one():
    @workflow
    async def long() -> None:
        for _ in range(300):
            await sleep("40 seconds")

    simulate(long, seeds="seed=3 faults=none at_most=0 processes=1", executions=1)


def test_nothing_to_simulate_is_refused():
    with pytest.raises(UsageError, match="Both begin at 1"):
        simulate(careful, "17", seeds=0)
    with pytest.raises(UsageError, match="Both begin at 1"):
        simulate(careful, "17", executions=0)


def test_a_check_that_gives_false_has_failed():
    with pytest.raises(SimulationFailed, match="your check gave False"):
        simulate(careful, "17", seeds=1, check=lambda run: False)


def test_without_a_key_each_start_is_an_execution():
    @workflow
    async def greet(name: str) -> str:
        return f"hello {name}"

    def check(run: SimulatedRun) -> None:
        assert [one.result for one in run.executions] == ["hello ada"] * 3

    assert simulate(greet, "ada", seeds=10, executions=3, check=check).executions == 30


def test_what_it_starts_is_part_of_the_run():
    @workflow(name="Child", idempotency_key=lambda name: name)
    async def child(name: str) -> str:
        return await charge_once(name)

    @workflow(name="Parent", idempotency_key=lambda name: name)
    async def parent(name: str) -> str:
        return (await child.start(name)).execution_id

    def check(run: SimulatedRun) -> None:
        assert sorted(one.workflow for one in run.executions) == ["Child", "Parent"]
        assert run.result == child.execution_id("ada")

    simulate(parent, "ada", seeds=30, check=check, also=[child])


def test_a_plain_function_is_called_without_a_loop_around_it():
    @activity
    def stamp() -> str:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return "stamped"

    @workflow
    async def letter() -> str:
        return await stamp()

    simulate(letter, seeds=10, check=lambda run: run.result == "stamped")


def test_a_plain_function_shows_what_it_likes():
    """R42: it cannot wait until that is written, on the one thread there is, but its attempt can."""

    @activity
    def shows(name: str) -> str:
        publish("name", name)
        return name

    @workflow(idempotency_key=lambda name: name)
    async def showing(name: str) -> str:
        return await shows(name)

    simulate(showing, "ada", seeds=30, check=lambda run: run.result == "ada")


def test_a_plain_function_that_asks_its_engine_is_refused_with_what_to_do():
    """It would wait for its own thread, for ever."""

    @workflow(idempotency_key=lambda name: name)
    async def greets(name: str) -> str:
        return name

    @activity
    def starts(name: str) -> str:
        return asyncio.run(greets.start(name)).execution_id

    @workflow
    async def starting(name: str) -> str:
        return await starts(name)

    with pytest.raises(SimulationFailed, match="make that activity an async one") as failed:
        simulate(starting, "ada", seeds=1, also=[greets])
    assert len(failed.value.found) == 1


APPROVAL = DurableDeferred.make("approval", success=str)


@activity
async def tell(token: str) -> None: ...


@workflow(idempotency_key=lambda order: order)
async def asks_in_time(order: str) -> str:
    await tell(APPROVAL.token(expires_in="3 days"))
    await charge_once(order)
    token = APPROVAL.token(expires_in="5 days")
    await tell(token)
    await APPROVAL.succeed(token, "yes")
    return await APPROVAL


@pytest.mark.parametrize("secret", ["a secret of the tests", {"k1": "a secret of the tests"}], ids=["one", "by id"])
def test_tokens_that_expire_are_signed_with_a_secret(secret: Any):
    """R19: by every process; what was given out is recorded, so the replays of a check need none."""
    simulate(asks_in_time, "17", seeds=20, check=lambda run: run.result == "yes", token_secret=secret)
    with pytest.raises(SimulationFailed):
        simulate(asks_in_time, "17", seeds=1, check=lambda run: run.result == "yes")
    with pytest.raises(UsageError, match="has at least 16 bytes"):
        simulate(asks_in_time, "17", seeds=1, token_secret="short")


def test_a_secret_is_not_told():
    @workflow
    async def waits_in_vain() -> str:
        return await APPROVAL

    with pytest.raises(SimulationFailed, match=r"no end: .*process 1") as failed:
        simulate(waits_in_vain, seeds=1, token_secret="a secret of the tests")
    assert "a secret" not in str(failed.value)


class Declined(TypedError):
    reason: str


def test_a_check_sees_how_it_ended_and_what_was_recorded():
    @activity(error=Declined)
    async def decline() -> None:
        raise Declined(reason="no money")

    @workflow(error=Declined)
    async def pay() -> None:
        await decline()

    def check(run: SimulatedRun) -> None:
        assert run.execution.status is Status.FAILED
        with pytest.raises(Declined, match="no money"):
            _ = run.result
        assert [entry.name for entry in run.execution.journal] == ["decline"]
        assert run.execution.attempts("decline") >= 1
        assert run.execution.key is None

    simulate(pay, seeds=20, check=check)


def test_an_execution_that_is_held_is_an_outcome():
    @workflow(capture_defects=False)
    async def broken() -> None:
        raise RuntimeError("a bug")

    def check(run: SimulatedRun) -> None:
        assert run.execution.held is not None
        assert run.execution.held.value == "DEFECT"
        assert "a bug" in str(run.execution.exit)

    simulate(broken, seeds=10, check=check)


def test_a_body_that_is_not_deterministic_is_found():
    asked = iter(range(100_000))

    @workflow
    async def different() -> None:
        await charge(str(next(asked)))
        await charge("more")

    with pytest.raises(SimulationFailed, match=r"(?i)diverge"):
        simulate(different, seeds=20)


def test_a_body_that_never_ends_is_found():
    @workflow
    async def waits_for_nothing() -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationFailed, match="DEADLOCK"):
        simulate(waits_for_nothing, seeds=1)


def test_a_socket_is_refused_with_what_to_do():
    @activity
    async def call() -> str:
        try:
            await asyncio.open_connection("localhost", 80)
        except UsageError as error:
            return str(error)
        return "connected"

    @workflow
    async def calling() -> str:
        return await call()

    simulate(calling, seeds=3, check=lambda run: "Give the activity something in its place" in run.result)


def test_a_workflow_without_a_body_is_refused():
    contract: Any = Workflow.make("Contract", payload={"to": str}, success=str)
    with pytest.raises(UsageError, match="has no body"):
        simulate(contract, seeds=1)


@pytest.mark.parametrize(
    "line", ["", "seed=1", "seed=1 faults=fire at_most=3 processes=1", "seed=x faults=none at_most=1 processes=1"]
)
def test_a_line_that_is_none_is_refused(line: str):
    with pytest.raises(UsageError, match="is no case of a simulation"):
        simulate(careful, "17", seeds=line)


def test_it_can_be_used_inside_a_running_loop():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        simulate(careful, "17", seeds=2, setup=gateway.forget)
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)

    asyncio.run(main())
