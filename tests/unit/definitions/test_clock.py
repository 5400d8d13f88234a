"""Waiting: a timer in a body, in place in an activity, the loop's own anywhere else (R16, R17)."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import DefinitionError, DurableClock, UsageError, sleep, sleep_until
from perdure._definitions.clock import TimerCall
from perdure._model.journal import Kind
from perdure._values.instant import to_datetime

from tests.unit.definitions.fakes import NOW, FakeAttempt, FakeHost, in_activity, in_body


class Ringing(FakeHost):
    """Every timer fires as soon as it is set."""

    def ask(self, call: Any, /) -> Any:
        future = super().ask(call)
        future.set_result(None)
        return future


def timers(*waits: Any) -> list[TimerCall]:
    host = Ringing()

    async def body() -> None:
        for wait in waits:
            await wait()

    in_body(host, body)
    return host.asked


def timer(*args: Any, **kwargs: Any) -> TimerCall:
    (call,) = timers(lambda: sleep(*args, **kwargs))
    return call


def test_a_sleep_in_a_body_is_a_timer():
    call = timer("1 hour", name="CancellationWindow")
    assert (call.kind, call.name, call.occurrence) == (Kind.TIMER, "CancellationWindow", 1)
    assert (call.input, call.due_at) == (b"3600000", NOW + 3_600_000)


@pytest.mark.parametrize(("duration", "durable"), [("60 seconds", False), ("60001 millis", True), ("1 hour", True)])
def test_above_the_threshold_a_timer_is_durable(duration: str, durable: bool):
    """R16: at or below 60 s the execution keeps its worker."""
    assert timer(duration).durable is durable


def test_the_threshold_can_be_set():
    assert timer("1 milli", in_memory_threshold=0).durable
    assert not timer("1 day", in_memory_threshold="1 day").durable


@pytest.mark.parametrize("duration", [0, 0.0, -1, "0 millis", timedelta(0), "-5 seconds", timedelta(days=-1)])
def test_nothing_and_less_return_at_once_and_record_nothing(duration: Any):
    """R16."""
    assert timers(lambda: sleep(duration), lambda: DurableClock.sleep(name="x", duration=duration)) == []


@given(st.floats(min_value=1e-6, max_value=1e7))
def test_a_timer_is_never_early(seconds: float):
    """R16: fractions of a millisecond round up."""
    call = timer(seconds)
    assert call.due_at - NOW >= seconds * 1_000 - 1e-3
    assert call.due_at - NOW == int(call.input) <= math.ceil(seconds * 1_000 + 1e-3)


@pytest.mark.parametrize(
    ("duration", "name"),
    [
        (0.05, "sleep:0.05"),
        (3600, "sleep:3600"),
        ("1 hour", "sleep:3600"),
        ("1500 millis", "sleep:1.5"),
        ("1 milli", "sleep:0.001"),
        (10, "sleep:10"),
    ],
)
def test_an_unnamed_sleep_is_called_by_its_length(duration: Any, name: str):
    """R8: as those that asyncio.sleep makes, so a new timeout before an old sleep does not take its record."""
    assert timer(duration).name == name


def test_each_sleep_is_a_timer_of_its_own_whatever_its_name():
    """R17."""
    found = timers(
        lambda: sleep(1, name="a"), lambda: sleep(2, name="a"), lambda: sleep(1), lambda: sleep(2), lambda: sleep(1)
    )
    assert [(call.name, call.occurrence) for call in found] == [
        ("a", 1),
        ("a", 2),
        ("sleep:1", 1),
        ("sleep:2", 1),
        ("sleep:1", 2),
    ]


def test_the_length_of_a_timer_helps_to_choose_and_does_not_decide():
    """R8."""
    call = timer(1, name="a")
    assert not call.input_decides
    assert call.same_input(b"1000")
    assert not call.same_input(b"2000")


def test_a_durable_clock_sleeps_the_same_way():
    (call,) = timers(lambda: DurableClock.sleep(name="follow-up", duration="3 days", in_memory_threshold="0 millis"))
    assert (call.name, call.input, call.durable) == ("follow-up", b"259200000", True)


def test_a_clock_that_is_made_describes_a_wait():
    clock = DurableClock.make(name="deadline", duration="1 day")
    assert (clock.name, clock.duration, clock.deferred.name) == ("deadline", timedelta(days=1), "DurableClock/deadline")
    assert clock == DurableClock.make(name="deadline", duration=86_400)


def test_sleep_until_waits_for_the_rest():
    moment = to_datetime(NOW + 90_000)
    (call,) = timers(lambda: sleep_until(moment))
    assert (call.due_at, call.durable, call.name) == (NOW + 90_000, True, f"until:{moment.isoformat()}")
    (named,) = timers(lambda: sleep_until(moment, name="opening"))
    assert named.name == "opening"


def test_an_instant_that_has_passed_records_nothing():
    """R16."""
    assert timers(lambda: sleep_until(to_datetime(NOW)), lambda: sleep_until(datetime(2000, 1, 1, tzinfo=UTC))) == []


def test_an_instant_needs_a_time_zone():
    with pytest.raises(UsageError, match="time zone"):
        timers(lambda: sleep_until(datetime(2030, 1, 1)))  # noqa: DTZ001 - the mistake that is meant


def test_in_an_activity_it_waits_in_place():
    """R14: on the engine's clock, with the place among the running ones given back."""
    attempt = FakeAttempt()

    async def function() -> None:
        await sleep("1 minute")
        await sleep_until(to_datetime(NOW + 500))
        await sleep(0)

    in_activity(attempt, function)
    assert attempt.slept == [60_000, 500]


def test_outside_of_both_it_just_waits(run):
    run(lambda: sleep("1 milli", name="shared"))
    run(lambda: sleep_until(datetime(2000, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda: sleep("soon"), UsageError),
        (lambda: sleep(math.nan), UsageError),
        (lambda: sleep(1, in_memory_threshold="never"), UsageError),
        (lambda: sleep(1, name=""), DefinitionError),
        (lambda: sleep(0, name="a\0b"), DefinitionError),
        (lambda: sleep_until(to_datetime(NOW + 5), name=""), DefinitionError),
    ],
    ids=["no duration", "nan", "no threshold", "empty name", "NUL", "empty name of an instant"],
)
def test_a_wait_that_makes_no_sense_is_refused(wait: Any, error: type[Exception]):
    with pytest.raises(error):
        timers(wait)


def test_a_clock_that_makes_no_sense_is_refused():
    with pytest.raises(DefinitionError):
        DurableClock.make(name="", duration=1)
    with pytest.raises(UsageError):
        DurableClock.make(name="x", duration="soon")
