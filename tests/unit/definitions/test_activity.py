"""Activities and their calls: lazy like coroutines, usable wherever those are, known by what they ask."""

import asyncio
import contextvars
import gc
import inspect
import threading
import warnings
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import (
    Activity,
    Cause,
    DefinitionError,
    PayloadError,
    Schedule,
    Success,
    TypedError,
    UsageError,
    activity,
)
from perdure._definitions import ambient
from perdure._definitions.activity import ActivityCall
from perdure._definitions.policy import INTERRUPT_RETRY
from perdure._model.journal import Kind

from tests.unit.definitions.fakes import FakeAttempt, FakeHost, in_activity, in_body


class Order(BaseModel):
    order_id: str


class CardDeclined(TypedError):
    code: str


@activity(error=CardDeclined)
async def charge(order: Order) -> str:
    """Charge a card."""
    return f"charge_{order.order_id}"


@activity
def double(n: int) -> int:
    return 2 * n


@activity
async def fetch(url: str, *, retries: int = 1) -> bytes:
    return url.encode()


ORDER = Order(order_id="a")


def dropped(call: object) -> list[warnings.WarningMessage]:
    """What is warned about when nothing holds the call any more."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del call
        gc.collect()
    return warned


# Outside of a body ----------------------------------------------------------------------------------


def test_outside_of_a_workflow_it_just_runs(run):
    async def main() -> None:
        assert await charge(ORDER) == "charge_a"
        assert await double(3) == 6
        call = fetch("x")
        assert inspect.iscoroutine(call), "the function's own coroutine, with nothing around it"
        assert await call == b"x"

    run(main)


def test_a_plain_function_runs_on_a_thread_with_the_context_copied(run):
    seen: list[object] = []
    setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting")

    @activity
    def look() -> None:
        seen.extend([threading.get_ident(), setting.get()])

    async def main() -> None:
        setting.set("mine")
        await look()

    run(main)
    assert seen[0] != threading.get_ident()
    assert seen[1] == "mine"


def test_in_another_activity_it_just_runs():
    """R14: an activity has no steps of its own."""

    async def function() -> list[Any]:
        return [await charge(ORDER), await double(3)]

    assert in_activity(FakeAttempt(), function) == ["charge_a", 6]


# Calls in a body ------------------------------------------------------------------------------------


def test_a_call_in_a_body_is_asked_for_and_answered():
    host = FakeHost({"charge": ["charge_1"]})

    async def body() -> str:
        return await charge(ORDER)

    assert in_body(host, body) == "charge_1"
    (call,) = host.asked
    assert (call.kind, call.name, call.occurrence) == (Kind.ACTIVITY, "charge", 1)
    assert call.input == b'{"order":{"order_id":"a"}}'


def test_a_call_knows_all_that_an_engine_needs():
    host = FakeHost()

    async def body() -> None:
        call = fetch("x", retries=3)
        assert isinstance(call, ActivityCall)
        assert asyncio.iscoroutine(call)
        assert call.activity is fetch
        assert (call.args, call.kwargs) == (("x",), {"retries": 3})
        assert await call.activity.function(*call.args, **call.kwargs) == b"x"
        assert call.context[ambient.host] is host
        assert call.retry_if is None
        assert call.formerly == ()
        call.close()

    in_body(host, body)


def test_what_an_attempt_does_to_its_arguments_nobody_else_sees():
    """A replay does not call the activity, so a body that saw the change live would go another way then."""

    @activity
    async def fill(order: Order, items: list[int], *, more: dict[str, int]) -> None: ...

    @activity
    async def one(order: Order) -> None: ...

    async def body() -> None:
        order, items, more = Order(order_id="a"), [1], {"a": 1}
        call: Any = fill(order, items, more=more)
        for _ in range(2):  # two attempts
            (got, numbers), kwargs = call.args, call.kwargs
            assert (got, numbers, kwargs) == (Order(order_id="a"), [1], {"more": {"a": 1}})
            got.order_id = "changed"
            numbers.append(2)
            kwargs["more"].clear()
        assert (order.order_id, items, more) == ("a", [1], {"a": 1})
        call.close()
        call = one(order)
        order.order_id = "changed before it is awaited"
        assert call.args == (Order(order_id="a"),)
        call.close()

    in_body(FakeHost(), body)


def test_an_argument_without_annotation_arrives_as_it_is():
    """Its bytes do not know its class."""

    @activity
    async def look(order) -> None: ...

    @activity
    async def both(order, items: list[int]) -> None: ...

    async def body() -> None:
        order, items = Order(order_id="a"), [1]
        for call in (look(order), both(order, items)):
            assert call.args[0] is order
            call.close()

    in_body(FakeHost(), body)


def test_an_activity_runs_in_the_bodys_context_as_it_was_at_the_call():
    """R14."""
    setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting")

    async def body() -> None:
        setting.set("before")
        call: Any = charge(ORDER)
        setting.set("after")
        assert call.context[setting] == "before"
        call.context.run(setting.set, "inside")
        assert setting.get() == "after"
        call.close()

    in_body(FakeHost(), body)


def test_the_occurrence_is_taken_at_the_call_and_not_when_it_is_awaited():
    """R10: so the order in which tasks come to their calls does not matter."""
    host = FakeHost({"double": [4, 2]})

    async def body() -> None:
        first, second = double(1), double(2)
        assert [await second, await first] == [4, 2]

    in_body(host, body)
    assert [(call.occurrence, call.input) for call in host.asked] == [(2, b'{"n":2}'), (1, b'{"n":1}')]


def test_equal_calls_are_numbered_among_themselves():
    """R14: the number goes into the step's own idempotency key."""

    async def body() -> list[int]:
        calls: list[Any] = [double(1), double(2), double(1), double.options(name="other")(1), double(1)]
        for call in calls:
            call.close()
        return [call.number_of_equals for call in calls]

    assert in_body(FakeHost(), body) == [1, 1, 2, 1, 3]


def test_calls_are_hashed_by_their_number():
    """asyncio keeps what it waits for in sets, whose order must be the same on every replay."""

    async def body() -> list[int]:
        calls = [double(n) for n in range(3)]
        for call in calls:
            call.close()
        return [hash(call) for call in calls]

    assert in_body(FakeHost(), body) == [1, 2, 3]


@pytest.mark.parametrize(
    "way",
    [
        "await",
        "create_task",
        "TaskGroup",
        "gather",
        "wait_for",
        "shield",
        "wait",
        "as_completed",
        "ensure_future",
        "timeout",
    ],
)
def test_a_call_works_wherever_a_coroutine_does(way: str):
    """R10."""
    host = FakeHost({"double": [2, 4]})

    async def body() -> list[int]:
        match way:
            case "await":
                return [await double(1), await double(2)]
            case "create_task":
                tasks = [asyncio.create_task(double(n)) for n in (1, 2)]
                return [await task for task in tasks]
            case "TaskGroup":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(double(n)) for n in (1, 2)]
                return [task.result() for task in tasks]
            case "gather":
                return list(await asyncio.gather(double(1), double(2)))
            case "wait_for":
                return [await asyncio.wait_for(double(n), 3) for n in (1, 2)]
            case "shield":
                return [await asyncio.shield(double(n)) for n in (1, 2)]
            case "wait":
                tasks = [asyncio.create_task(double(n)) for n in (1, 2)]
                await asyncio.wait(tasks)
                return [task.result() for task in tasks]
            case "as_completed":
                return [await each for each in asyncio.as_completed([double(1), double(2)])]
            case "ensure_future":
                return [await asyncio.ensure_future(double(n)) for n in (1, 2)]
            case _:
                async with asyncio.timeout(3):
                    return [await double(1), await double(2)]

    assert sorted(in_body(host, body)) == [2, 4]


def test_a_task_that_waits_for_a_call_says_so():
    async def body() -> None:
        task = asyncio.create_task(double(1))
        await asyncio.sleep(0)
        assert "double" in repr(task)
        task.cancel()

    in_body(FakeHost(), body)


def test_cancelling_a_task_that_waits_cancels_what_it_waits_for():
    """So the kernel sees that nobody wants the step any more."""
    host = FakeHost()

    async def body() -> None:
        task = asyncio.create_task(double(1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_body(host, body)
    assert host.asked[0].future.cancelled()


def test_a_task_that_is_cancelled_before_it_began_asks_for_nothing():
    host = FakeHost()

    async def body() -> None:
        task = asyncio.create_task(double(1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_body(host, body)
    assert host.asked == []


def test_an_error_that_is_thrown_in_comes_out_where_it_waits():
    async def body() -> None:
        call = double(1)
        call.send(None)
        with pytest.raises(KeyError):
            call.throw(KeyError("x"))
        fresh = double(1)
        with pytest.raises(KeyError):
            fresh.throw(KeyError("x"))

    in_body(FakeHost(), body)


def test_awaiting_a_call_twice_is_an_error():
    """R10."""
    host = FakeHost({"double": [2, 4]})

    async def body() -> None:
        call = double(1)
        await call
        with pytest.raises(RuntimeError, match="cannot reuse already awaited activity call 'double'"):
            await call
        closed = double(1)
        closed.close()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await closed

    in_body(host, body)


def test_a_call_that_is_never_awaited_warns():
    """R10."""

    async def body() -> list[warnings.WarningMessage]:
        return dropped(double(1))

    (warned,) = in_body(FakeHost(), body)
    assert warned.category is RuntimeWarning
    assert str(warned.message) == "activity call 'double' was never awaited"


def test_a_call_of_a_body_that_is_put_away_does_not_warn():
    """R6: eviction is nobody's mistake."""
    host = FakeHost()

    async def body() -> list[warnings.WarningMessage]:
        call = double(1)
        host.closed = True
        return dropped(call)

    assert in_body(host, body) == []


def test_a_call_that_was_closed_or_asked_for_does_not_warn():
    async def body() -> list[warnings.WarningMessage]:
        closed, asked = double(1), double(2)
        closed.close()
        asked.send(None)
        return dropped(closed) + dropped(asked)

    assert in_body(FakeHost(), body) == []


def test_a_call_with_arguments_that_are_refused_takes_no_occurrence_and_does_not_warn():
    host = FakeHost()

    async def body() -> list[warnings.WarningMessage]:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(PayloadError, match='Activity "double": n') as refused:
                double("many")
            del refused
            gc.collect()
        double(1).close()
        return warned

    assert in_body(host, body) == []
    assert host.occurrence(Kind.ACTIVITY, "double") == 2


def test_a_recorded_exit_is_read_with_todays_types():
    async def body() -> None:
        call: Any = charge(ORDER)
        assert call.decode_success(b'{"success":"x"}') == "x"
        declined = Cause.fail(CardDeclined(code="x"))
        assert call.decode_failure(charge.codec.encode_failure(declined)) == declined
        with pytest.raises(PayloadError):
            call.decode_success(b'{"success":3}')
        with pytest.raises(PayloadError):
            call.decode_failure(b'{"failure":[]}')
        call.close()

    in_body(FakeHost(), body)


def test_a_recorded_input_is_the_same_if_it_means_the_same():
    """R2, R8."""

    async def body() -> None:
        call: Any = fetch("x")
        assert call.same_input(b'{"retries":1,"url":"x"}')
        assert call.same_input(b'{"url":"x"}'), "recorded before the parameter existed"
        assert not call.same_input(b'{"url":"y","retries":1}')
        assert not call.same_input(b"no json")
        call.close()

    in_body(FakeHost(), body)


# Options --------------------------------------------------------------------------------------------


def test_an_activity_is_called_as_its_function_unless_it_is_told_otherwise():
    assert charge.name == "charge"
    assert activity(name="ChargeCard")(charge.function).name == "ChargeCard"
    assert charge.__doc__ == "Charge a card."


def test_without_options_there_is_one_attempt_without_a_limit():
    assert (double.retry, double.timeout_ms, double.total_timeout_ms) == (None, None, None)
    assert (double.at_most_once, double.formerly, double.errors) == (False, (), ())
    assert double.interrupt_retry is INTERRUPT_RETRY


def test_cut_off_attempts_are_retried_as_the_rule_says():
    """R13: 400 ms × 1.5, at most 10 s apart, 10 times."""
    delays = [INTERRUPT_RETRY.delay_ms(n, 0, 0.5) for n in range(1, 12)]
    assert delays[:3] == [400, 600, 900]
    assert delays[8:] == [10_000, 10_000, None]


def test_options_say_how_attempts_are_made():
    schedule = Schedule.spaced("1 second").times(3)
    told = activity(
        name="Told",
        error=(CardDeclined, KeyError),
        retry=schedule,
        interrupt_retry=None,
        timeout="30 seconds",
        total_timeout="1 hour",
        delivery="at_most_once",
        formerly=("Old", "Older"),
    )(double.function)
    assert (told.retry, told.interrupt_retry, told.timeout_ms, told.total_timeout_ms) == (
        schedule,
        None,
        30_000,
        3_600_000,
    )
    assert (told.at_most_once, told.formerly, told.errors) == (True, ("Old", "Older"), (CardDeclined, KeyError))


def test_a_configured_copy_leaves_the_activity_as_it_is():
    backup = charge.options(name="charge/backup", timeout="5 seconds", retry=Schedule.recurs(3))
    assert (backup.name, backup.timeout_ms, backup.retry) == ("charge/backup", 5_000, Schedule.recurs(3))
    assert (charge.name, charge.timeout_ms, charge.retry) == ("charge", None, None)
    assert backup.options(timeout=None, retry=None, interrupt_retry=None).timeout_ms is None
    host = FakeHost({"charge/backup": ["x"]})

    async def body() -> str:
        return await backup(ORDER)

    assert in_body(host, body) == "x"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry": 3}, "retry must be a Schedule"),
        ({"interrupt_retry": "often"}, "interrupt_retry must be a Schedule"),
        ({"timeout": 0}, "timeout must be longer than nothing"),
        ({"total_timeout": "-1 second"}, "total_timeout must be longer"),
        ({"delivery": "exactly_once"}, "delivery must be"),
        ({"formerly": "Old"}, r"formerly=\('Old',\)"),
        ({"formerly": ("",)}, "is empty"),
        ({"error": int}, "x"),
        ({"name": "a\0b"}, "NUL"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(DefinitionError, match=said):
        activity(**options)(double.function)
    changeable = {"name", "retry", "interrupt_retry", "timeout", "total_timeout"}
    if options.keys() <= changeable:
        with pytest.raises(DefinitionError, match=said):
            double.options(**options)


def test_an_unknown_option_is_an_unexpected_keyword():
    with pytest.raises(TypeError, match="unexpected keyword argument 'transactional'"):
        activity(transactional=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'delivery'"):
        charge.options(delivery="at_most_once")


def test_an_activity_is_not_made_one_twice():
    with pytest.raises(DefinitionError, match="already"):
        activity(charge)


def test_a_result_type_that_cannot_be_stored_is_refused():
    class Socket:
        pass

    with pytest.raises(DefinitionError, match="Socket"):

        @activity
        async def connect() -> Socket: ...


# Inline ---------------------------------------------------------------------------------------------


def test_an_inline_activity_is_awaited_itself():
    host = FakeHost({"Roll": [4]})

    async def body() -> int:
        return await Activity.make("Roll", success=int, execute=lambda: 4)

    assert in_body(host, body) == 4
    assert host.asked[0].input == b"{}"


def test_an_inline_activity_runs_outside_of_a_workflow(run):
    async def answer() -> int:
        return 4

    async def main() -> list[int]:
        return [
            await Activity.make("Roll", success=int, execute=lambda: 4),
            await Activity.make("Roll", success=int, execute=answer),
            await Activity.make("Roll", success=int, execute=lambda: answer()),  # noqa: PLW0108 - a plain function that gives a coroutine
        ]

    assert run(main) == [4, 4, 4]


def test_an_inline_activity_awaited_again_is_another_step():
    host = FakeHost({"Roll": [4, 5]})

    async def body() -> list[int]:
        roll = Activity.make("Roll", success=int, execute=lambda: 4)
        return [await roll, await roll]

    assert in_body(host, body) == [4, 5]
    assert [call.occurrence for call in host.asked] == [1, 2]


def test_an_inline_activity_can_be_gathered_under_names_of_its_own():
    host = FakeHost({"First": [1], "Second": [2]})

    async def body() -> list[int]:
        return list(
            await asyncio.gather(
                Activity.make("First", success=int, execute=lambda: 1),
                Activity.make("Second", success=int, execute=lambda: 2),
            )
        )

    assert in_body(host, body) == [1, 2]


def test_one_inline_activity_gathered_twice_is_one_step():
    """asyncio.gather itself takes the same awaitable once."""
    host = FakeHost({"Roll": [4]})

    async def body() -> list[int]:
        roll = Activity.make("Roll", success=int, execute=lambda: 4)
        return list(await asyncio.gather(roll, roll))

    assert in_body(host, body) == [4, 4]


def test_two_inline_activities_of_one_name_are_not_asked_for_at_once():
    """R8: they have no input that could tell them apart on replay."""

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(2):
                group.create_task(Activity.make("Roll", success=int, execute=lambda n=n: n)())

    with pytest.raises(ExceptionGroup) as raised:
        in_body(FakeHost(), body)
    (error,) = raised.value.exceptions
    assert isinstance(error, UsageError)
    assert "give each a name" in str(error)


def test_equal_calls_of_an_activity_may_be_asked_for_at_once():
    host = FakeHost()

    async def body() -> None:
        tasks = [asyncio.create_task(double(1)) for _ in range(2)]
        await asyncio.sleep(0)
        assert [call.occurrence for call in host.asked] == [1, 2]
        for task in tasks:
            task.cancel()

    in_body(host, body)


def test_without_a_type_an_inline_activity_has_that_of_its_function():
    def typed() -> int: ...

    assert Activity.make("Roll", execute=typed).codec.decode(b'{"success":4}') == Success(4)
    with pytest.raises(PayloadError):
        Activity.make("Roll", execute=typed).codec.decode(b'{"success":"x"}')
    assert Activity.make("Roll", execute=lambda: 4).codec.decode(b'{"success":[1]}') == Success([1])
    assert Activity.make("Roll", success=None, execute=lambda: None).codec.encode(Success(None)) == b'{"success":null}'


def test_an_inline_activity_takes_no_parameters():
    with pytest.raises(DefinitionError, match="takes no parameters"):
        Activity.make("Roll", success=int, execute=double.function)


def test_an_inline_activity_of_a_bad_name_or_type_is_refused():
    with pytest.raises(DefinitionError, match="is empty"):
        Activity.make("", success=int, execute=lambda: 4)
    with pytest.raises(DefinitionError, match="Roll"):
        Activity.make("Roll", success=object(), execute=lambda: 4)


def test_a_call_that_is_returned_and_not_awaited_is_named():
    """`return charge(n)` in a body: the activity's name says which line it is."""

    @activity
    async def charge(order_id: str) -> str:
        return order_id

    async def body() -> None:
        call = charge("a")
        with pytest.raises(PayloadError, match=r"the return value: a forgotten await: .*a call of 'charge'"):
            charge.codec.success(call)
        call.close()

    in_body(FakeHost(), body)


def test_a_result_that_is_refused_is_called_the_return_value():
    @activity
    async def bad() -> int: ...

    inline = Activity.make("bad", success=int, execute=lambda: 4)
    for each in (bad, inline):
        with pytest.raises(PayloadError, match=r'^Activity "bad": the return value: Input should be a valid integer'):
            each.codec.success("four")
