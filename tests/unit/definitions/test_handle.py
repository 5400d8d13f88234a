"""A handle says where an execution stands, and gives or raises how it ended."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Cause,
    Complete,
    Failure,
    Interrupted,
    NonDeterminismError,
    PayloadError,
    Status,
    Success,
    Suspended,
    TypedError,
    UsageError,
    Workflow,
)
from perdure._model.status import Held

from tests.unit.definitions.fakes import EXECUTION_ID, FakeAttempt, FakeEngine, in_activity, record


class CardDeclined(TypedError):
    code: str


Pay = Workflow.make("Pay", payload={"key": str}, success=int, error=CardDeclined)
DECLINED = Failure(Cause.fail(CardDeclined(code="x")))


def asked(engine: FakeEngine, question: str, *args: Any, **kwargs: Any) -> Any:
    return in_activity(FakeAttempt(engine), lambda: getattr(Pay.handle(EXECUTION_ID), question)(*args, **kwargs))


def engine_with(status: Status, **facts: Any) -> FakeEngine:
    engine = FakeEngine()
    engine.records[EXECUTION_ID] = record("Pay", status, **facts)
    return engine


def test_poll_gives_nothing_for_what_is_unknown():
    """R33."""
    assert asked(FakeEngine(), "poll") is None


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
def test_poll_gives_nothing_for_what_runs(status: Status):
    """R33."""
    assert asked(engine_with(status), "poll") is None


def test_poll_gives_the_exit_of_what_has_finished():
    """R33."""
    assert asked(engine_with(Status.SUCCEEDED, exit=Pay.codec.encode(Success(3))), "poll") == Complete(Success(3))
    assert asked(engine_with(Status.FAILED, exit=Pay.codec.encode(DECLINED)), "poll") == Complete(DECLINED)
    interrupted = Failure(Cause.interrupt())
    found = asked(engine_with(Status.INTERRUPTED, exit=Pay.codec.encode(interrupted)), "poll")
    assert found == Complete(interrupted)


def test_poll_of_what_waits_has_no_cause_and_of_what_is_held_has_one():
    """R33."""
    assert asked(engine_with(Status.SUSPENDED), "poll") == Suspended(None)
    diverged = Pay.codec.encode_failure(Cause.fail(NonDeterminismError("the code has changed")))
    found = asked(engine_with(Status.SUSPENDED, held=Held.DIVERGENCE, exit=diverged), "poll")
    assert isinstance(found, Suspended)
    assert "the code has changed" in str(found.cause)


def test_what_todays_types_cannot_read_is_said_and_not_guessed():
    """R40."""
    with pytest.raises(PayloadError):
        asked(engine_with(Status.SUCCEEDED, exit=b'{"success":"many"}'), "poll")


def test_status_says_where_it_stands():
    assert asked(engine_with(Status.SUSPENDED), "status") is Status.SUSPENDED
    assert asked(FakeEngine(), "status") is None


def test_an_execution_of_another_workflow_is_not_read_with_this_ones_types():
    engine = FakeEngine()
    engine.records[EXECUTION_ID] = record("Ship", Status.SUCCEEDED, exit=b'{"success":3}')
    for question in ("poll", "status"):
        with pytest.raises(UsageError, match="belongs to workflow 'Ship'"):
            asked(engine, question)


def test_result_gives_the_value_or_raises_how_it_ended():
    engine = FakeEngine()
    engine.exits[EXECUTION_ID] = Pay.codec.encode(Success(3))
    assert asked(engine, "result") == 3
    engine.exits[EXECUTION_ID] = Pay.codec.encode(DECLINED)
    with pytest.raises(CardDeclined):
        asked(engine, "result")
    engine.exits[EXECUTION_ID] = Pay.codec.encode(Failure(Cause.interrupt()))
    with pytest.raises(Interrupted):
        asked(engine, "result")


def test_result_waits_as_long_as_it_is_told():
    engine = FakeEngine()
    engine.exits[EXECUTION_ID] = b'{"success":3}'
    asked(engine, "result")
    asked(engine, "result", timeout="1 minute")
    asked(engine, "result", 0)
    assert [waited for _, _, waited in engine.waited] == [None, timedelta(minutes=1), timedelta(0)]


def test_resume_is_the_engines():
    engine = FakeEngine()
    asked(engine, "resume")
    in_activity(FakeAttempt(engine), lambda: Pay.resume(EXECUTION_ID))
    assert engine.resumed == [EXECUTION_ID] * 2
