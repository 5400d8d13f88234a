"""Children, deadlines, restarts, and going on as new: what a body's starts begin with (R31, R32, R37, R44)."""

import asyncio
import warnings
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure import (
    Cause,
    Fail,
    Interrupted,
    OutsideExecutionError,
    PayloadError,
    PayloadMismatchError,
    TypedError,
    UsageError,
    Workflow,
    WorkflowIOError,
    continue_as_new,
    workflow,
)
from perdure._definitions.host import ContinueAsNew
from perdure._model.journal import Kind
from perdure._values.exit_codec import encode_outcome

from tests.unit.definitions.fakes import (
    EXECUTION_ID,
    NOW,
    FakeAttempt,
    FakeEngine,
    FakeHost,
    in_activity,
    in_body,
    opened,
)

HOUR = 3_600_000
KEYED_ID = "fc0cd826dc208968186d2747adc6831f"


class Declined(TypedError):
    code: str


@workflow(idempotency_key=lambda order_id: order_id, error=Declined)
async def ship(order_id: str) -> int:
    return len(order_id)


@workflow
async def nightly(day: str) -> int:
    return len(day)


def child_of(host: FakeHost, child: Workflow[[str], Any], payload: str = "order-5") -> Any:
    in_body(host, lambda: child.execute(payload))
    return host.asked[-1]


def answered(**facts: Any) -> FakeHost:
    host = FakeHost({"ship": [7, 7, 7], "nightly": [3, 3, 3]})
    for name, fact in facts.items():
        setattr(host, name, fact)
    return host


# Children ------------------------------------------------------------------------------------------


def test_a_body_asks_for_a_child_by_its_id():
    host = answered()
    assert in_body(host, lambda: ship.execute("order-5")) == 7
    (call,) = host.asked
    assert (call.kind, call.name, call.occurrence) == (Kind.CHILD, "ship", 1)
    assert call.input.decode() == ship.execution_id("order-5") == call.start.execution_id
    assert call.input_decides
    assert call.same_input(call.input)
    assert not call.same_input(b"0" * 32)
    assert (call.start.parent, call.start.key, call.start.payload) == (
        EXECUTION_ID,
        "order-5",
        b'{"order_id":"order-5"}',
    )
    assert host.started == []


def test_a_childs_end_is_read_with_its_own_types():
    call = child_of(answered(), ship)
    assert call.decode_success(b'{"success":7}') == 7
    assert call.decode_failure(b'{"failure":[{"fail":{"tag":"Declined","error":{"code":"x"}}}]}') == Cause.fail(
        Declined(code="x")
    )
    assert isinstance(call.decode_failure(b'{"failure":[{"interrupt":{}}]}').to_exception(), Interrupted)
    with pytest.raises(PayloadError):
        call.decode_success(b'{"success":"seven"}')


def test_without_a_key_the_id_derives_from_parent_name_input_and_occurrence():
    """R1: or a replay would wait for another one."""

    def ids(days: list[str], life: int = 1) -> list[str]:
        host = answered(life=life)

        async def body() -> None:
            for day in days:
                await nightly.execute(day)

        in_body(host, body)
        return [call.input.decode() for call in host.asked]

    first = ids(["mon", "mon", "tue"])
    assert len(set(first)) == 3
    assert ids(["mon", "mon", "tue"]) == first
    assert set(ids(["mon"], life=2)).isdisjoint(first)


def test_a_detached_start_of_the_same_payload_is_another_execution():
    host = answered()

    async def body() -> None:
        await nightly.start("mon")
        await nightly.execute("mon")

    in_body(host, body)
    assert host.started[0].execution_id != host.asked[0].start.execution_id


@pytest.mark.parametrize(("options", "expected"), [({}, 4), ({"priority": 0}, 0), ({"priority": 9}, 9)])
def test_a_child_has_its_parents_priority_unless_it_is_given_one(options: Any, expected: int):
    """R31; zero is a priority and not the lack of one."""
    assert child_of(answered(priority=4), ship.options(**options)).start.priority == expected


@pytest.mark.parametrize(
    ("parents", "options", "expected"),
    [
        (None, {}, None),
        (NOW + 5, {}, NOW + 5),
        (None, {"deadline": "1 hour"}, NOW + HOUR),
        (NOW + 5, {"deadline": "1 hour"}, NOW + 5),
        (NOW + 2 * HOUR, {"deadline": "1 hour"}, NOW + HOUR),
        (None, {"deadline": "1 hour", "delay": "1 hour"}, NOW + 2 * HOUR),
    ],
)
def test_a_child_has_the_earlier_of_both_deadlines(parents: int | None, options: Any, expected: int | None):
    """R31."""
    assert child_of(answered(deadline=parents), ship.options(**options)).start.deadline == expected


def test_a_child_that_did_not_succeed_is_restarted_with_its_parent():
    """R37."""
    assert not child_of(answered(), ship).start.restarts
    assert child_of(answered(restarted=True), ship).start.restarts
    assert child_of(answered(), ship.options(on_duplicate="restart_if_failed")).start.restarts


def test_an_execution_is_not_its_own_child():
    host = FakeHost()
    host.workflow = "ProcessOrder"
    process_order = Workflow.make("ProcessOrder", payload={"id": str}, idempotency_key=lambda p: p.id)
    with pytest.raises(UsageError, match=r"wait for itself.*continue_as_new"):
        in_body(host, lambda: process_order.execute({"id": "order-123"}))
    assert host.asked == []


def test_a_child_runs_in_its_parents_engine_and_is_joined():
    with pytest.raises(WorkflowIOError, match=r"execute\(\) in a body"):
        in_body(FakeHost(), lambda: ship.options(engine=FakeEngine()).execute("order-5"))
    with pytest.raises(UsageError, match="on_duplicate='reject'"):
        in_body(FakeHost(), lambda: ship.options(on_duplicate="reject").execute("order-5"))


def test_a_payload_that_is_none_starts_no_child():
    host = FakeHost()
    with pytest.raises(PayloadError):
        in_body(host, lambda: ship.execute(5))  # pyright: ignore[reportArgumentType]
    assert host.asked == []


def test_in_an_activity_execute_is_a_start_from_outside():
    """R14."""
    engine = FakeEngine()
    engine.exits[ship.execution_id("order-5")] = b'{"success":7}'
    assert in_activity(FakeAttempt(engine), lambda: ship.execute("order-5")) == 7
    ((start, _),) = engine.started
    assert start.parent is None


# Deadlines and restarts from outside ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"deadline": "1 hour"}, NOW + HOUR),
        ({"deadline": 1.5}, NOW + 1_500),
        ({"deadline": datetime.fromtimestamp(NOW / 1_000, UTC)}, NOW),
        ({"deadline": datetime(1970, 1, 1, tzinfo=UTC)}, 0),
    ],
)
def test_a_deadline_is_an_instant_or_a_time_after_the_start(options: Any, expected: int | None):
    """R44."""
    engine = FakeEngine()
    with opened(engine):
        asyncio.run(ship.options(**options).start("order-5"))
    assert engine.started[0][0].deadline == expected


def test_a_start_restarts_what_failed_if_it_is_told_to():
    """R37."""
    engine = FakeEngine()
    with opened(engine):
        asyncio.run(ship.options(on_duplicate="restart_if_failed").start("order-5"))
        asyncio.run(ship.start("order-5"))
    assert [(start.restarts, choice) for start, choice in engine.started] == [
        (True, "restart_if_failed"),
        (False, "join"),
    ]


def test_a_detached_start_that_must_not_mismatch_is_answered():
    """R2, R42: a call with a receipt; every other start is done with its turn."""

    @workflow(idempotency_key=lambda text, number: text, on_mismatch="raise")
    async def strict(text: str, number: int) -> None: ...

    mismatch = PayloadMismatchError("number differs", fields=("number",), execution_id="1" * 32)
    host = FakeHost({"start:strict": [None, mismatch]})

    async def body() -> str:
        handle = await strict.start("x", 1)
        with pytest.raises(PayloadMismatchError):
            await strict.start("x", 2)
        return handle.execution_id

    assert in_body(host, body) == strict.execution_id("x", 1)
    assert host.started == []
    first, second = host.asked
    assert (first.kind, first.occurrence, second.occurrence) == (Kind.SENT, 1, 2)
    assert first.start is not None
    assert first.start.strict
    assert first.same_input(first.input)
    assert first.same_input(second.input), "of one that the code has changed the record counts (R8)"
    assert not first.same_input(second.input.replace(strict.execution_id("x", 2).encode(), b"0" * 32))
    assert first.decode_success(b'{"success":null}') is None
    (reason,) = second.decode_failure(encode_outcome(mismatch)).reasons
    assert isinstance(reason, Fail)
    assert isinstance(reason.error, PayloadMismatchError)
    assert reason.error.fields == ("number",)


def test_a_detached_start_inherits_nothing():
    host = answered(priority=4, deadline=NOW + 5, restarted=True)
    in_body(host, lambda: ship.start("order-5"))
    (start,) = host.started
    assert (start.priority, start.deadline, start.restarts, start.parent) == (0, None, False, None)


# continue_as_new -----------------------------------------------------------------------------------


@workflow(idempotency_key=lambda left: "the only one", version="3")
async def count_down(left: int) -> int:
    try:
        continue_as_new(left - 1)
    except Exception:  # noqa: BLE001 - it must not be stopped by it
        return -1


@workflow
async def typed(left: int) -> None:
    typed.options(deadline="1 hour").continue_as_new(left=left - 1)


def body_of(implementation: Any, host: FakeHost, payload: bytes) -> None:
    host.workflow = implementation.name
    in_body(host, lambda: implementation.make_body(payload, EXECUTION_ID))


def test_a_body_goes_on_as_new_with_another_payload():
    host = answered(priority=4, deadline=NOW + 5)
    with pytest.raises(ContinueAsNew):
        body_of(count_down, host, b'{"left":3}')
    assert host.next is not None
    start = host.next
    assert (start.execution_id, start.workflow, start.payload, start.version) == (
        EXECUTION_ID,
        "count_down",
        b'{"left":2}',
        "3",
    )
    assert (start.priority, start.deadline) == (4, NOW + 5)


def test_its_options_say_what_changes():
    host = answered(deadline=NOW + 5)
    with pytest.raises(ContinueAsNew):
        body_of(typed, host, b'{"left":3}')
    assert host.next is not None
    assert host.next.deadline == NOW + HOUR
    assert host.next.payload == b'{"left":2}'


def test_a_payload_that_is_none_goes_on_as_nothing():
    @workflow
    async def wrong(left: int) -> None:
        continue_as_new("two", 3)

    host = FakeHost()
    with pytest.raises(PayloadError):
        body_of(wrong, host, b'{"left":3}')
    assert host.next is None


def test_a_body_goes_on_as_itself_only():
    host = FakeHost()

    async def body() -> None:
        typed.continue_as_new(5)

    with pytest.raises(UsageError, match="in the body of 'ProcessOrder'"):
        in_body(host, body)
    assert host.next is None


def test_outside_a_body_nothing_goes_on():
    async def outside() -> None:
        continue_as_new(5)

    def check() -> None:
        with pytest.raises(OutsideExecutionError):
            asyncio.run(outside())
        with pytest.raises(OutsideExecutionError):
            in_activity(FakeAttempt(), outside)
        with pytest.raises(OutsideExecutionError, match=r"wf\.continue_as_new"):
            in_body(FakeHost(), outside)

    # A test that has made a body in this thread has left its workflow in the thread's context.
    Context().run(check)


# Settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "default"),
        ({"retention": None}, None),
        ({"retention": "90 days"}, 90 * 24 * HOUR),
        ({"retention": 0}, 0),
    ],
)
def test_a_workflow_says_how_long_its_executions_stay(settings: Any, expected: Any):
    """R2; for ever, and as the engine says, are not the same."""
    assert workflow(**settings)(nightly.__wrapped__).retention_ms == expected


def test_a_workflow_says_whether_a_failure_holds_it():
    """R36."""
    assert not nightly.suspends_on_failure
    assert workflow(suspend_on_failure=True)(nightly.__wrapped__).suspends_on_failure


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"suspend_on_failure": "no"}, "suspend_on_failure is True"),
        ({"retention": "-1 days"}, "retention is how long"),
        ({"retention": "long"}, "'long' is not a duration"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: Any, said: str):
    with pytest.raises(UsageError, match=said):
        Workflow.make("It", **settings)


def test_a_child_that_is_never_awaited_warns_like_a_coroutine():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        async def body() -> None:
            ship.execute("order-5")  # pyright: ignore[reportUnusedCoroutine]

        in_body(FakeHost(), body)
    assert "never awaited" in str(seen[0].message)
