"""What code may ask inside of a body or an activity, and what it is told when it is in neither."""

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    OutsideExecutionError,
    PayloadError,
    current_attempt,
    execution_id,
    heartbeat,
    idempotency_key,
    last_heartbeat,
    logger,
    now,
    patched,
    random,
    uuid4,
)
from perdure._values.instant import to_datetime

from tests.unit.definitions.fakes import EXECUTION_ID, NOW, FakeAttempt, FakeHost, in_activity, in_body


def said_in_body(question: Any, host: FakeHost | None = None) -> Any:
    async def body() -> Any:
        return question()

    return in_body(host or FakeHost(), body)


def said_in_activity(question: Any, attempt: FakeAttempt | None = None) -> Any:
    async def function() -> Any:
        return question()

    return in_activity(attempt or FakeAttempt(), function)


def test_the_execution_is_known_in_bodies_and_activities():
    assert said_in_body(execution_id) == EXECUTION_ID
    assert said_in_activity(execution_id) == EXECUTION_ID


def test_the_attempt_is_the_activitys_and_1_in_a_body():
    assert said_in_body(current_attempt) == 1
    assert said_in_activity(current_attempt) == 2


@pytest.mark.parametrize(
    "question",
    [execution_id, current_attempt, lambda: patched("x"), idempotency_key, heartbeat, lambda: last_heartbeat(int)],
    ids=["execution_id", "current_attempt", "patched", "idempotency_key", "heartbeat", "last_heartbeat"],
)
def test_outside_there_is_nothing_to_tell(question: Any):
    with pytest.raises(OutsideExecutionError, match="works inside"):
        question()


@pytest.mark.parametrize("question", [idempotency_key, heartbeat, lambda: last_heartbeat(int)])
def test_a_body_has_no_attempt_of_its_own(question: Any):
    with pytest.raises(OutsideExecutionError, match="inside an activity"):
        said_in_body(question)


def test_an_activity_cannot_decide_on_patches():
    with pytest.raises(OutsideExecutionError, match="body"):
        said_in_activity(lambda: patched("x"))


def test_the_time_of_a_body_is_its_hosts_and_of_an_activity_its_engines():
    """R38."""
    assert said_in_body(now) == said_in_activity(now) == to_datetime(NOW)
    assert said_in_body(now).tzinfo is UTC


def test_outside_the_time_is_the_real_one():
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= now() <= datetime.now(UTC)


def test_chance_in_a_body_is_its_hosts():
    """R39."""
    assert said_in_body(lambda: random().random()) == said_in_body(lambda: random().random())
    assert said_in_body(lambda: random("a").random()) != said_in_body(lambda: random("b").random())
    assert said_in_body(uuid4) == said_in_body(uuid4)
    assert said_in_body(lambda: uuid4("a")) != said_in_body(lambda: uuid4("b"))
    assert said_in_body(uuid4).version == 4


def test_chance_elsewhere_is_real():
    assert said_in_activity(uuid4) != said_in_activity(uuid4)
    assert uuid4() != uuid4()
    assert uuid4().version == 4
    assert random().random() != random().random()


def test_patches_are_the_hosts():
    """R8a."""
    host = FakeHost()
    host.patches = {"new"}
    assert said_in_body(lambda: (patched("new"), patched("other")), host) == (True, False)
    with pytest.raises(DefinitionError, match="is empty"):
        said_in_body(lambda: patched(""))


def test_an_activitys_own_key_is_its_attempts():
    """R14."""
    assert said_in_activity(idempotency_key) == "its own"
    assert said_in_activity(lambda: idempotency_key(include_attempt=True)) not in ("its own", None)


def test_the_key_by_name_is_that_of_the_vector():
    """R14: ProcessOrder/order-123, ChargeCard."""
    assert said_in_activity(lambda: idempotency_key("ChargeCard")) == "6cdd44c1259d3728da6ebe7554a35064"
    with_attempt = said_in_activity(lambda: idempotency_key("ChargeCard", include_attempt=True))
    assert with_attempt != "6cdd44c1259d3728da6ebe7554a35064"


def test_the_key_by_name_warns_where_the_activity_is_called_again(caplog: pytest.LogCaptureFixture):
    """R14."""
    attempt = FakeAttempt()
    said_in_activity(lambda: idempotency_key("ChargeCard"), attempt)
    assert caplog.records == []
    attempt.called_twice = {"ChargeCard"}
    said_in_activity(lambda: idempotency_key("ChargeCard"), attempt)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "more than once" in record.getMessage()


def test_progress_goes_through_a_schema():
    """R15."""
    attempt = FakeAttempt()
    assert said_in_activity(lambda: last_heartbeat(int), attempt) is None
    said_in_activity(lambda: heartbeat({"row": 3}), attempt)
    assert attempt.noted == [b'{"row":3}']
    assert said_in_activity(lambda: last_heartbeat(dict[str, int]), attempt) == {"row": 3}
    with pytest.raises(PayloadError, match='activity "ChargeCard"'):
        said_in_activity(lambda: last_heartbeat(int), attempt)
    with pytest.raises(PayloadError, match='activity "ChargeCard"'):
        said_in_activity(lambda: heartbeat(object()), attempt)


def test_progress_without_details_is_a_sign_of_life():
    attempt = FakeAttempt()
    said_in_activity(heartbeat, attempt)
    assert attempt.noted == [b"null"]


def test_the_logger_is_silent_while_a_body_replays(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "perdure.workflow")
    host = FakeHost()
    host.replaying = True
    said_in_body(lambda: logger.info("again"), host)
    assert not said_in_body(lambda: logger.isEnabledFor(logging.CRITICAL), host)
    host.replaying = False
    said_in_body(lambda: logger.info("charged %s", 3), host)
    (record,) = caplog.records
    assert record.getMessage() == "charged 3"
    assert (record.execution_id, record.workflow) == (EXECUTION_ID, "ProcessOrder")


def test_the_logger_logs_in_activities_and_outside(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "perdure.workflow")
    said_in_activity(lambda: logger.warning("slow", extra={"row": 3}))
    logger.info("outside")
    inside, outside = caplog.records
    assert (inside.execution_id, inside.row) == (EXECUTION_ID, 3)
    assert not hasattr(outside, "execution_id")


def test_the_logger_keeps_the_level_that_the_application_has_set(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "perdure.workflow")
    said_in_body(lambda: logger.info("too much"))
    assert caplog.records == []


def test_the_logger_names_the_line_that_logs(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "perdure.workflow")
    said_in_body(lambda: logger.info("here"))
    assert caplog.records[0].filename == "test_surroundings.py"


def test_the_attempt_outside_is_told_of_both_its_places():
    with pytest.raises(OutsideExecutionError, match="inside a workflow body or an activity only"):
        current_attempt()
