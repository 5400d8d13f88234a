"""What a body has done when its execution ends: what is registered, when, and where on the stack (R27)."""

import asyncio
import warnings
from contextlib import AsyncExitStack
from typing import Any

import pytest

from perdure import (
    Activity,
    ActivityTimeout,
    Cause,
    Exit,
    Failure,
    OutcomeUnknown,
    OutsideExecutionError,
    Schedule,
    Success,
    UsageError,
    activity,
    add_finalizer,
    retry,
    scope,
    with_compensation,
)

from tests.unit.definitions.fakes import FakeAttempt, FakeHost, in_activity, in_body

FAILED = Failure(Cause.die(RuntimeError("no car")))


@activity
async def reserve(seat: str) -> str:
    return seat


class Undone:
    """Notes what is undone."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def undo(self, value: Any, cause: Cause) -> None:
        self.told.append((value, cause))

    async def find_out(self, cause: Cause) -> None:
        self.told.append((cause,))


def wind_up(host: FakeHost, exit: Exit[Any] = FAILED) -> None:
    """What the kernel does at the end of an execution."""
    for _, finalizer in sorted(host.stack, key=lambda standing: standing[0], reverse=True):
        if not finalizer.only_after_failure or isinstance(exit, Failure):
            in_body(FakeHost(), lambda finalizer=finalizer: finalizer.run(exit))


async def later(value: Any) -> Any:
    return value


# with_compensation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "label"),
    [
        (lambda: reserve("12A"), "reserve"),
        (lambda: Activity.make("reserve", success=str, execute=lambda: "12A"), "reserve"),
        (lambda: retry(reserve("12A"), Schedule.recurs(3)), "reserve"),
        (lambda: later("12A"), "later"),
    ],
    ids=["activity", "inline", "retry", "coroutine"],
)
def test_a_step_that_succeeded_is_undone_if_the_execution_fails(step: Any, label: str):
    host, undone = FakeHost({"reserve": ["12A"]}), Undone()
    assert in_body(host, lambda: with_compensation(step(), undone.undo)) == "12A"
    ((_, finalizer),) = host.stack
    assert (finalizer.only_after_failure, finalizer.label) == (True, label)
    wind_up(host)
    assert undone.told == [("12A", FAILED.cause)]


def test_a_step_that_failed_is_not_undone():
    host = FakeHost({"reserve": [RuntimeError("full")]})
    with pytest.raises(RuntimeError):
        in_body(host, lambda: with_compensation(reserve("12A"), Undone().undo, unknown=Undone().find_out))
    assert host.stack == []


def test_a_compensation_stands_on_top_of_what_was_registered_before():
    host, undone = FakeHost({"reserve": ["12A", "12B"]}), Undone()

    async def body() -> None:
        await with_compensation(reserve("12A"), undone.undo)
        await with_compensation(reserve("12B"), undone.undo)

    in_body(host, body)
    wind_up(host)
    assert [value for value, _ in undone.told] == ["12B", "12A"]


@pytest.mark.parametrize("error", [OutcomeUnknown(activity="reserve"), ActivityTimeout(activity="reserve")])
def test_where_nobody_knows_whether_it_took_place_unknown_is_called(error: Exception):
    host, undone = FakeHost({"reserve": [error]}), Undone()
    with pytest.raises(type(error)):
        in_body(host, lambda: with_compensation(reserve("12A"), undone.undo, unknown=undone.find_out))
    wind_up(host)
    assert undone.told == [(FAILED.cause,)]
    host = FakeHost({"reserve": [error]})
    with pytest.raises(type(error)):
        in_body(host, lambda: with_compensation(reserve("12A"), undone.undo))
    assert host.stack == []


def cancelled_while_reserving(host: FakeHost, undone: Undone) -> None:
    """A body that is cancelled while its step runs; and registers something afterwards."""

    async def body() -> None:
        task = asyncio.ensure_future(with_compensation(reserve("12A"), undone.undo, unknown=undone.find_out))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await with_compensation(later("12B"), undone.undo)

    in_body(host, body)


@pytest.mark.parametrize(
    ("exit", "told"),
    [
        (Success("12A"), [("12B", FAILED.cause), ("12A", FAILED.cause)]),
        (Failure(Cause.fail(OutcomeUnknown())), [("12B", FAILED.cause), (FAILED.cause,)]),
        (Failure(Cause.fail(ActivityTimeout())), [("12B", FAILED.cause), (FAILED.cause,)]),
        (Failure(Cause.die(RuntimeError("full"))), [("12B", FAILED.cause)]),
    ],
    ids=["succeeded", "unknown", "timed out", "failed"],
)
def test_a_step_that_outlives_its_await_is_undone_where_the_call_stood(exit: Exit[Any], told: list[Any]):
    host, undone = FakeHost(), Undone()
    cancelled_while_reserving(host, undone)
    (call,) = host.asked
    assert len(host.stack) == 1  # the guard is told later, when the attempt has ended by itself
    assert call.guard is not None
    call.guard(exit)
    wind_up(host)
    assert undone.told == told


def test_a_cancellation_in_the_turn_in_which_the_step_ended_loses_nothing():
    host, undone = FakeHost(), Undone()

    async def body() -> None:
        task = asyncio.ensure_future(with_compensation(reserve("12A"), undone.undo))
        await asyncio.sleep(0)
        host.asked[0].future.set_result("12A")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_body(host, body)
    wind_up(host)
    assert undone.told == [("12A", FAILED.cause)]


def test_an_ordinary_step_is_no_guarded_one():
    host = FakeHost({"reserve": ["12A"]})
    in_body(host, lambda: reserve("12A"))
    assert host.asked[0].guard is None


# Finalizers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("exit", [FAILED, Success("booked")])
def test_a_finalizer_is_told_how_it_ended(exit: Exit[Any]):
    host, told = FakeHost(), []

    async def closing(exit: Exit[Any]) -> None:
        told.append(exit)

    in_body(host, lambda: add_finalizer(closing))
    ((_, finalizer),) = host.stack
    assert finalizer.label.endswith("closing")
    wind_up(host, exit)
    assert told == [exit]


def test_a_finalizer_without_a_name_has_a_label():
    class Closing:
        async def __call__(self, exit: Exit[Any]) -> None: ...

    host = FakeHost()
    in_body(host, lambda: add_finalizer(Closing()))
    assert host.stack[0][1].label == "Closing"


@pytest.mark.parametrize("exit", [FAILED, Success("booked")])
def test_a_scope_is_closed_when_the_execution_ends(exit: Exit[Any]):
    host, closed = FakeHost(), []

    async def body() -> None:
        stack = scope()
        assert isinstance(stack, AsyncExitStack)
        stack.callback(closed.append, "first")
        stack.push(lambda kind, error, _: closed.append((kind, str(error))))

    in_body(host, body)
    assert closed == []
    ((_, finalizer),) = host.stack
    assert not finalizer.only_after_failure
    wind_up(host, exit)
    failure = (
        (None, "None") if isinstance(exit, Success) else (type(FAILED.cause.to_exception()), "RuntimeError: no car")
    )
    assert closed == [failure, "first"]


def test_what_a_scope_raises_is_a_failure_of_the_finalizer():
    host = FakeHost()

    async def body() -> None:
        scope().callback(lambda: 1 / 0)

    in_body(host, body)
    with pytest.raises(ZeroDivisionError):
        wind_up(host, Success(None))


# Where they work (R15) -----------------------------------------------------------------------------


async def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize(
    "register",
    [lambda: with_compensation(later(5), nothing), lambda: add_finalizer(nothing), lambda: later(scope())],
    ids=["compensation", "finalizer", "scope"],
)
def test_outside_a_body_nothing_can_be_registered(register: Any):
    with pytest.raises(OutsideExecutionError, match="Register it in the body"):
        in_activity(FakeAttempt(), register)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OutsideExecutionError, match="no body runs here"):
            asyncio.run(register())


@pytest.mark.parametrize("step", [lambda: asyncio.sleep(1), lambda: reserve("a")], ids=["coroutine", "call"])
def test_while_an_execution_is_being_undone_nothing_is_registered_to_be_undone(step: Any):
    """R27: and nobody is told beside it that the step was never awaited."""
    host = FakeHost()
    host.unwinds = True
    with pytest.raises(UsageError, match="in a compensation or a finalizer"):
        in_body(host, lambda: with_compensation(step(), lambda value, cause: reserve("b")))
    assert host.stack == []
