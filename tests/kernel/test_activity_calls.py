"""Calls of activities in a body: lazy, awaited once, tried again, and replayed with what was recorded (R7, R10, R11)."""

import asyncio
import warnings
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from perdure import ActivityTimeout, Defect, Interrupted, PayloadError, Schedule, activity, retry
from perdure._definitions import ambient
from perdure._model.status import Held
from perdure._values.cause import Cause, Die, Fail

from tests.kernel.driver import Play
from tests.kernel.steps import Declined, Expired, fetch, pay, store

# Calls (R10) -------------------------------------------------------------------------------------------


def test_a_call_asks_for_nothing_before_it_is_awaited() -> None:
    """R10: lazy, like a coroutine."""

    async def body() -> int:
        call = fetch(1)
        await store(0)
        return await call

    play = Play(body)
    assert play.waiting == ['store{"x":0}#1']
    play.answer("store", 0)
    assert play.waiting == ['fetch{"x":1}#1']


def test_awaiting_a_call_twice_is_an_error() -> None:
    """R10."""

    async def body() -> int:
        call = fetch(1)
        await call
        return await call

    play = Play(body)
    play.answer("fetch", 10)
    with pytest.raises(RuntimeError, match="already awaited"):
        play.result()


def test_a_call_that_is_never_awaited_warns() -> None:
    """R10."""

    async def body() -> None:
        fetch(1)

    with pytest.warns(RuntimeWarning, match="activity call 'fetch' was never awaited"):
        Play(body)


def test_a_call_that_the_end_of_the_body_overtook_does_not_warn(is_quiet: Callable[[], bool]) -> None:
    """R10, R46: while the body is put away nobody has forgotten anything."""

    async def body() -> None:
        call = fetch(1)
        await store(0)
        await call

    play = Play(body)
    play.close()
    assert is_quiet()


async def _created(x: int) -> int:
    return await asyncio.create_task(fetch(x))


async def _grouped(x: int) -> int:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(x))
    return task.result()


async def _gathered(x: int) -> int:
    return (await asyncio.gather(fetch(x)))[0]


async def _limited(x: int) -> int:
    return await asyncio.wait_for(fetch(x), timeout=5)


async def _shielded(x: int) -> int:
    return await asyncio.shield(fetch(x))


async def _ensured(x: int) -> int:
    return await asyncio.ensure_future(fetch(x))


async def _completed(x: int) -> int:
    return await next(iter(asyncio.as_completed([fetch(x)])))


@pytest.mark.parametrize("way", [_created, _grouped, _gathered, _limited, _shielded, _ensured, _completed])
@pytest.mark.parametrize("fails", [False, True])
def test_a_call_works_wherever_a_coroutine_does(way: Callable[[int], Any], fails: bool) -> None:
    """R10."""

    async def body() -> int:
        return await way(1)

    play = Play(body)
    assert play.waiting == ['fetch{"x":1}#1']
    if fails:
        play.fail("fetch", Declined(code=3))
        with pytest.raises((Declined, ExceptionGroup)) as raised:
            play.result()
        assert Cause.from_exception(raised.value) == Cause.fail(Declined(code=3))
    else:
        play.answer("fetch", 10)
        assert play.result() == 10
    assert play.again().standing() == play.standing()


def test_an_argument_that_does_not_fit_is_refused_at_the_call() -> None:
    """R10: before it takes an occurrence."""

    async def body() -> int:
        with pytest.raises(PayloadError) as refused:
            fetch("many")  # type: ignore[arg-type]
        assert refused.value.fields == ("x",)
        return await fetch(1)

    assert Play(body).waiting == ['fetch{"x":1}#1']


def test_a_cancelled_call_is_withdrawn_and_the_body_goes_on() -> None:
    """R10: cancelling a task that waits for a call cancels its attempt."""

    async def body() -> str:
        try:
            async with asyncio.timeout(5):
                await fetch(1)
        except TimeoutError:
            return "late"
        return "in time"

    play = Play(body)
    call = play.call("fetch")
    play.pass_time(5_000)
    assert play.result() == "late"
    assert play.withdrawn == [call]
    assert play.recorded == ["timer timeout:5#1"]


def test_a_task_that_is_cancelled_before_it_began_asks_for_nothing() -> None:
    """R10."""

    async def body() -> int:
        asyncio.create_task(fetch(1)).cancel()
        return await store(1)

    play = Play(body)
    assert play.waiting == ['store{"x":1}#1']
    assert play.withdrawn == []


# Contexts (R14) ----------------------------------------------------------------------------------------

_tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def test_a_body_starts_in_an_empty_context() -> None:
    """R14: nothing of the starter leaks in."""
    _tenant.set("the starter")

    async def body() -> list[str]:
        return [variable.name for variable in copy_context()] + [_tenant.get()]

    assert Play(body).result() == [ambient.host.name, "nobody"]


def test_an_activity_gets_a_copy_of_the_bodys_context_at_the_call() -> None:
    """R14: at the call, not when it is awaited; and what the body sets later does not reach it."""

    async def body() -> None:
        _tenant.set("ada")
        call = fetch(1)
        _tenant.set("bob")
        await call

    play = Play(body)
    context = play.call("fetch").context
    assert context[_tenant] == "ada"
    context.run(_tenant.set, "somebody")
    play.answer("fetch", 0)
    assert play.ended


def test_the_number_of_equal_calls_goes_into_the_key() -> None:
    """R14: which call with that name and input, whatever others come between."""

    async def body() -> list[int]:
        return await asyncio.gather(fetch(1), fetch(2), fetch(1), store(1), fetch(1))

    play = Play(body)
    assert [call.number_of_equals for call in play.calls] == [1, 1, 2, 1, 3]


# Recorded exits (R7, R10, R34) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Declined(code=1), Declined(code=1)),
        (Expired(code=1, year=1999), Expired(code=1, year=1999)),
        (ActivityTimeout("too long"), ActivityTimeout("too long")),
    ],
    ids=["declared", "subclass", "timeout"],
)
def test_a_recorded_failure_is_raised_again_as_the_same_class(raised: Exception, expected: Exception) -> None:
    """R7, R10."""

    async def body() -> Any:
        try:
            return await fetch(1)
        except type(expected) as error:
            return error

    play = Play(body)
    play.fail("fetch", raised)
    for each in (play, play.again()):
        caught = each.result()
        assert type(caught) is type(expected)
        assert str(caught) == str(expected)
        assert not isinstance(expected, Declined) or caught == expected


def test_an_undeclared_failure_is_raised_as_a_defect() -> None:
    """R7, R10: by name and message, live as on replay."""

    async def body() -> Any:
        try:
            return await store(1)
        except Defect as error:
            return error.type_name, error.message

    play = Play(body)
    play.fail("store", ZeroDivisionError("by zero"))
    assert play.result() == ("ZeroDivisionError", "by zero")
    assert play.again().result() == play.result()


def test_several_failures_of_one_attempt_surface_as_a_group() -> None:
    """R34."""

    async def body() -> Any:
        try:
            return await fetch(1)
        except ExceptionGroup as group:
            return group.exceptions

    play = Play(body)
    play.fail("fetch", ExceptionGroup("both", [Declined(code=1), ExceptionGroup("inner", [Declined(code=2)])]))
    assert play.result() == (Declined(code=1), Declined(code=2))
    assert play.again().result() == play.result()


def test_an_interruption_that_was_recorded_as_final_surfaces_as_interrupted() -> None:
    """R7."""

    async def body() -> str:
        try:
            await fetch(1)
        except Interrupted:
            return "interrupted"
        return "?"

    play = Play(body)
    play.deliver(play.call("fetch"), play.call("fetch").activity.codec.encode_failure(Cause.interrupt()))
    assert play.result() == "interrupted"
    assert play.again().result() == "interrupted"


def test_a_record_that_todays_schema_cannot_read_holds_the_execution() -> None:
    """R40: UNREADABLE, with the step's name; nothing is given out, nothing is recorded."""

    @activity(name="fetch")
    async def fetch_text(x: int) -> list[str]:
        raise AssertionError

    async def old() -> None:
        await fetch(1)
        await store(1)

    async def new() -> None:
        await fetch_text(1)
        await store(1)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    assert again.kernel.trouble is not None
    assert again.kernel.trouble.held is Held.UNREADABLE
    assert isinstance(again.kernel.trouble.error, PayloadError)
    assert "recorded result of activity 'fetch', occurrence 1" in again.kernel.trouble.error.__notes__[0]
    assert again.given == []
    assert len(again.journal) == 1
    assert play.again(old).kernel.trouble is None


def test_a_payload_that_the_body_cannot_take_holds_the_execution() -> None:
    """R40: before a single line of the body has run."""

    def make_body() -> Any:
        raise PayloadError("no longer a payload")

    play = Play(make_body)
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held is Held.UNREADABLE
    assert not play.ended


# Attempts (R11, R13, R50) ------------------------------------------------------------------------------


def test_a_failure_that_is_not_final_asks_for_the_next_attempt() -> None:
    """R11: the body sees nothing of it, and the call waits with its new due time."""

    async def body() -> int:
        return await fetch(1)

    play = Play(body)
    play.fail("fetch", Declined(code=1), retry_in_ms=10_000)
    call = play.call("fetch")
    assert (call.attempt, call.due_at) == (2, play.now + 10_000)
    assert play.given == [call, call]
    play.fail("fetch", RuntimeError("no"), retry_in_ms=20_000)
    assert (call.attempt, call.interruptions) == (3, 0)
    play.answer("fetch", 10)
    assert play.result() == 10
    assert [entry.attempt for entry in play.journal] == [1, 2, 3]


def test_a_crash_between_attempts_goes_on_counting() -> None:
    """R11: on replay the recorded due time counts, whatever today's policy says."""

    @activity(name="fetch", retry=Schedule.spaced("1 day").times(1))
    async def fetch_rarely(x: int) -> int:
        raise AssertionError

    async def old() -> int:
        return await fetch(1)

    async def new() -> int:
        return await fetch_rarely(1)

    play = Play(old)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=10_000)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=20_000)
    again = play.again(new)
    call = again.call("fetch")
    assert (call.attempt, call.due_at) == (3, play.now + 20_000)
    assert call.asked_at == play.call("fetch").asked_at, "total_timeout goes on from the first attempt"
    assert again.given == [call]


def test_attempts_that_cancelled_themselves_are_counted_apart() -> None:
    """R13: they use up interrupt_retry, not the activity's own schedule."""

    async def body() -> int:
        return await fetch(1)

    play = Play(body)
    play.fail("fetch", asyncio.CancelledError(), retry_in_ms=400)
    play.fail("fetch", Declined(code=1), retry_in_ms=1_000)
    play.fail("fetch", asyncio.CancelledError(), retry_in_ms=600)
    for each in (play, play.again()):
        call = each.call("fetch")
        assert (call.attempt, call.interruptions) == (4, 2)


def test_the_recorded_attempts_of_many_calls_do_not_mix() -> None:
    """R11: each call counts its own."""

    async def body() -> list[int]:
        return await asyncio.gather(fetch(1), fetch(1), fetch(2))

    play = Play(body)
    play.fail("fetch#2", RuntimeError("no"), retry_in_ms=1)
    play.fail("fetch#3", RuntimeError("no"), retry_in_ms=2)
    play.fail("fetch#2", RuntimeError("no"), retry_in_ms=3)
    for each in (play, play.again()):
        assert [call.attempt for call in each.calls] == [1, 3, 2]
    assert play.again().standing() == play.standing()


def test_retry_makes_the_same_step_under_another_policy() -> None:
    """R11: `retry()` in a body takes no occurrence of its own."""

    async def body() -> int:
        first = await retry(fetch(1), Schedule.spaced("1 second").times(3))
        return first + await fetch(2)

    play = Play(body)
    assert play.call("fetch").activity.retry == Schedule.spaced("1 second").times(3)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=1_000)
    play.answer("fetch", 10)
    assert play.waiting == ['fetch{"x":2}#2']
    assert play.again().standing() == play.standing()


def test_an_attempt_that_was_begun_in_another_life_is_known() -> None:
    """R50: by the note that was committed before it began."""

    async def body() -> list[int]:
        return await asyncio.gather(pay(1), pay(2))

    play = Play(body)
    first, second = play.calls
    assert not play.kernel.begun(first)
    play.kernel.note_begun(first)
    play.journal += play.kernel.take_written()[0]
    again = play.again()
    assert again.kernel.begun(again.call("pay#1"))
    assert not again.kernel.begun(again.call("pay#2"))
    assert second.attempt == 1


def test_an_equal_call_was_not_begun_with_the_first_one() -> None:
    """R50: who pays the same sum twice, in one body, pays twice."""

    async def body() -> int:
        return await pay(1) + await pay(1)

    play = Play(body)
    call = play.call("pay")
    play.kernel.note_begun(call)
    play.answer("pay", 10)
    assert not play.kernel.begun(play.call("pay#2"))
    assert not play.again().kernel.begun(play.again().call("pay#2"))


def test_a_renamed_attempt_was_begun_under_its_old_name() -> None:
    """R50, R8."""

    @activity(name="transfer", formerly=("pay",), delivery="at_most_once")
    async def transfer(x: int) -> int:
        raise AssertionError

    async def old() -> int:
        return await pay(1)

    async def new() -> int:
        return await transfer(1)

    play = Play(old)
    call = play.call("pay")
    play.kernel.note_begun(call)
    play.journal += play.kernel.take_written()[0]
    again = play.again(new)
    assert again.kernel.begun(again.call("transfer"))


def test_the_kernel_says_how_often_an_activity_was_called() -> None:
    """R14: for the warning of `idempotency_key(name)`."""

    async def body() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fetch(1)
            await asyncio.gather(fetch(2), store(1))

    play = Play(body)
    assert [play.kernel.times_called(name) for name in ("fetch", "store", "pay")] == [2, 1, 0]


def test_a_taskgroups_failures_are_what_the_body_raises() -> None:
    """R34: several in one group, in the order in which they came."""

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fetch(1))
            group.create_task(store(2))

    play = Play(body)
    play.fail("fetch", Declined(code=4))
    assert [call.name for call in play.withdrawn] == ["store"]
    for each in (play, play.again()):
        with pytest.raises(ExceptionGroup) as raised:
            each.result()
        assert Cause.from_exception(raised.value) == Cause((Fail(Declined(code=4)),))


def test_a_defect_keeps_its_words_through_a_group() -> None:
    """R34."""

    async def body() -> None:
        await asyncio.gather(fetch(1), store(2))

    play = Play(body)
    play.fail("store", OSError("disk full"))
    with pytest.raises(Defect, match="OSError: disk full") as raised:
        play.result()
    assert isinstance(Cause.from_exception(raised.value).reasons[0], Die)
