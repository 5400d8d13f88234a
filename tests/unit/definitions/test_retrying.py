"""retry makes the same step again under another policy, and says what is tried again (R11)."""

import asyncio
import logging
import warnings
from typing import Any

import pytest

from perdure import Activity, ActivityTimeout, Defect, Schedule, TypedError, UsageError, activity, retry

from tests.unit.definitions.fakes import FakeHost, in_body


class CardDeclined(TypedError):
    code: str

    @property
    def transient(self) -> bool:
        return self.code == "busy"


class OtherError(TypedError):
    pass


@activity(error=CardDeclined, retry=Schedule.recurs(1))
async def charge(n: int) -> int:
    return n


SCHEDULE = Schedule.spaced("10 seconds").times(3)
BUSY, DECLINED = CardDeclined(code="busy"), CardDeclined(code="no-funds")
DEFECT, TIMEOUT = Defect.from_exception(RuntimeError("x")), ActivityTimeout("x")


def asked(**options: Any) -> Any:
    """The call that the host is asked for."""
    host = FakeHost({"charge": [1]})

    async def body() -> int:
        return await retry(charge(1), SCHEDULE, **options)

    assert in_body(host, body) == 1
    (call,) = host.asked
    return call


def test_it_is_the_same_step_with_another_schedule():
    host = FakeHost({"charge": [1, 2]})

    async def body() -> list[int]:
        return [await retry(charge(1), SCHEDULE), await charge(1)]

    assert in_body(host, body) == [1, 2]
    first, second = host.asked
    assert (first.activity.retry, second.activity.retry) == (SCHEDULE, Schedule.recurs(1))
    assert [(call.occurrence, call.number_of_equals) for call in (first, second)] == [(1, 1), (2, 2)]


def test_the_step_keeps_its_arguments_and_its_context():
    @activity
    async def ship(to: str, *, copies: int = 1) -> str: ...

    host = FakeHost({"ship": ["x"]})

    async def body() -> str:
        return await retry(ship("ada", copies=2), SCHEDULE)

    in_body(host, body)
    assert (host.asked[0].args, host.asked[0].kwargs) == (("ada",), {"copies": 2})


def test_the_call_that_was_given_up_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked()


def test_without_conditions_everything_is_tried_again():
    assert asked().retry_if is None


@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({"error": CardDeclined}, [BUSY, DECLINED]),
        ({"error": (CardDeclined, ActivityTimeout)}, [BUSY, DECLINED, TIMEOUT]),
        ({"error": CardDeclined, "while_": lambda error: error.transient}, [BUSY]),
        ({"while_": lambda error: error == BUSY}, [BUSY, DEFECT, OtherError()]),
        ({"while_": lambda error: isinstance(error, ActivityTimeout)}, [TIMEOUT, DEFECT, OtherError()]),
        ({"while_": lambda error: True}, [BUSY, DECLINED, TIMEOUT, DEFECT, OtherError()]),
    ],
    ids=["error", "errors", "error and while_", "while_", "while_ of a timeout", "while_ true"],
)
def test_conditions_say_what_is_tried_again(options: dict[str, Any], again: list[Exception]):
    """`while_` sees declared errors and timeouts only; defects are tried again unless `error=` leaves them out."""
    failures = [BUSY, DECLINED, TIMEOUT, DEFECT, OtherError()]
    retry_if = asked(**options).retry_if
    assert [failure for failure in failures if retry_if(failure)] == [each for each in failures if each in again]


def test_a_predicate_that_raises_means_no_retry(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        assert asked(while_=lambda error: error.missing).retry_if(BUSY) is False
    assert "'charge'" in caplog.text
    assert "missing" in caplog.text


def test_an_inline_activity_can_be_tried_again():
    host = FakeHost({"Roll": [4]})

    async def body() -> int:
        return await retry(Activity.make("Roll", success=int, execute=lambda: 4), SCHEDULE)

    assert in_body(host, body) == 4
    assert host.asked[0].activity.retry == SCHEDULE


def test_a_call_that_was_awaited_cannot_be_tried_again():
    host = FakeHost({"charge": [1]})

    async def body() -> None:
        call = charge(1)
        await call
        with pytest.raises(RuntimeError, match="already awaited"):
            await retry(call, SCHEDULE)

    in_body(host, body)


async def some_steps() -> int:
    return 1


def test_what_cannot_be_made_again_is_refused_with_what_can():
    async def body() -> None:
        coroutine = some_steps()
        with pytest.raises(UsageError, match=r"coroutine 'some_steps'.*call of an activity.*inline activity"):
            await retry(coroutine, SCHEDULE)
        coroutine.close()
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(UsageError, match="Future"):
            await retry(future, SCHEDULE)

    in_body(FakeHost(), body)


def test_outside_of_a_body_a_call_cannot_be_made_again(run):
    async def main() -> None:
        coroutine = charge(1)
        with pytest.raises(UsageError, match="Outside of a body"):
            await retry(coroutine, SCHEDULE)
        coroutine.close()

    run(main)


@pytest.mark.parametrize("options", [{"error": "CardDeclined"}, {"error": (CardDeclined, 3)}])
def test_an_error_that_is_none_is_refused(options: dict[str, Any]):
    with pytest.raises(UsageError, match="exception class"):
        asked(**options)


def test_a_schedule_is_needed():
    async def body() -> None:
        with pytest.raises(UsageError, match="needs a Schedule"):
            await retry(charge(1), 3)

    in_body(FakeHost(), body)
