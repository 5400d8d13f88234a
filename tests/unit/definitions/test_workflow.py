"""Workflows: how they are defined, whose an execution is, and how it is started from outside and from a body."""

import asyncio
import functools
import json
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import (
    Cause,
    Defect,
    DefinitionError,
    ExecutionExistsError,
    Failure,
    Handle,
    PayloadError,
    Registration,
    Success,
    TypedError,
    UsageError,
    Workflow,
    WorkflowIOError,
    activity,
    workflow,
)
from perdure._definitions.start import mismatch_of

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


class Order(BaseModel):
    order_id: str
    copies: int = 1


class CardDeclined(TypedError):
    code: str


@workflow(name="ProcessOrder", idempotency_key=lambda order: order.order_id, version="2")
async def process_order(order: Order) -> str:
    """Process an order."""
    return order.order_id


@workflow
async def nightly(day: str, *, dry: bool = False) -> int:
    return len(day) + dry


ORDER = Order(order_id="order-123")


def finished(body: Any) -> Any:
    """What a body that awaits nothing returns."""
    with pytest.raises(StopIteration) as ended:
        body.send(None)
    return ended.value.value


# Definitions ----------------------------------------------------------------------------------------


def test_a_workflow_is_called_as_its_function_unless_it_is_told_otherwise():
    assert nightly.name == "nightly"
    assert process_order.name == "ProcessOrder"


def test_a_decorated_body_keeps_its_docstring_and_its_signature():
    assert process_order.__doc__ == "Process an order."
    assert process_order.__wrapped__.__name__ == "process_order"


def test_a_workflow_that_is_called_like_its_function_says_what_to_write():
    """Nobody forgets it twice; and it is no function to whatever wants one."""
    for called in (process_order, Workflow.make("Pay", payload=Order)):
        with pytest.raises(UsageError, match=r"is not called: `await wf\.execute\(\.\.\.\)`"):
            called(ORDER)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    for wants in (
        activity,
        lambda given: workflow(idempotency_key=given)(add_up),
        Workflow.make("Pay", payload=Order).implement,
    ):
        with pytest.raises(DefinitionError, match=r"function|workflow already"):
            wants(process_order)


async def add_up(day: str) -> int:
    return len(day)


def test_only_an_implemented_workflow_is_a_registration():
    contract = Workflow.make("Pay", payload=Order)

    @contract.implement
    async def pay(payload: Order) -> None: ...

    assert isinstance(pay, Registration)
    assert isinstance(process_order, Registration)
    assert not isinstance(contract, Registration)


def test_the_body_gets_what_was_recorded():
    assert finished(process_order.make_body(b'{"order_id":"a"}', EXECUTION_ID)) == "a"
    assert finished(nightly.make_body(b'{"day":"mon","dry":true}', EXECUTION_ID)) == 4


def test_a_payload_that_cannot_be_read_says_so_before_the_body_is_called():
    """R40: the caller holds the execution as unreadable."""
    with pytest.raises(PayloadError, match="order_id"):
        process_order.make_body(b"{}", EXECUTION_ID)


def test_an_implemented_contract_may_take_the_execution_id():
    Pay = Workflow.make("Pay", payload=Order, success=list[str])

    async def without(payload):
        return [payload.order_id]

    async def by_place(payload, execution_id):
        return [payload.order_id, execution_id]

    async def whatever_its_name(payload, it):
        return [payload.order_id, it]

    async def by_name(payload, *, execution_id):
        return [payload.order_id, execution_id]

    async def by_default(payload, execution_id=None):
        return [payload.order_id, execution_id]

    async def of_its_own(payload, retries=3):
        return [payload.order_id, retries]

    def result(body: Any) -> Any:
        return finished(Pay.implement(body).make_body(b'{"order_id":"a"}', "id"))

    assert result(without) == ["a"]
    assert [result(each) for each in (by_place, whatever_its_name, by_name, by_default)] == [["a", "id"]] * 4
    assert result(of_its_own) == ["a", 3], "a second parameter that means something else is left alone"


def test_a_body_of_another_shape_is_refused():
    Pay = Workflow.make("Pay", payload=Order)

    async def nothing(): ...
    async def too_much(payload, execution_id, more): ...
    async def another_name(payload, *, more): ...

    for body in (nothing, too_much, another_name):
        with pytest.raises(DefinitionError, match="takes the payload and, if it likes, the execution_id"):
            Pay.implement(body)


def test_a_body_is_an_async_function():
    def plain(order: Order) -> str: ...

    async def generator(order: Order):
        yield 1

    for define in (workflow, Workflow.make("Pay", payload=Order).implement):
        with pytest.raises(DefinitionError, match="no `async def`"):
            define(plain)
        with pytest.raises(DefinitionError, match="async generator"):
            define(generator)


def test_a_workflow_or_an_activity_is_no_body():
    with pytest.raises(DefinitionError, match="already"):
        workflow(process_order)
    with pytest.raises(DefinitionError, match="no `async def`"):
        workflow(activity(name="x")(len_of))


def len_of(text: str) -> int:
    return len(text)


def test_a_body_that_is_a_partial_needs_a_name():
    async def ship(carrier: str, order: Order) -> str:
        return carrier

    partial = functools.partial(ship, "post")
    with pytest.raises(DefinitionError, match="name"):
        workflow(partial)
    assert finished(workflow(partial, name="Ship").make_body(b'{"order_id":"a"}', EXECUTION_ID)) == "post"


def test_with_a_payload_there_is_one_parameter():
    @workflow(payload=Order, idempotency_key=lambda order: order.order_id)
    async def ship(order) -> str:
        return order.order_id

    assert finished(ship.make_body(b'{"order_id":"a"}', EXECUTION_ID)) == "a"
    with pytest.raises(DefinitionError, match="takes one parameter, and this one takes 2"):

        @workflow(payload=Order, idempotency_key=lambda order: order.order_id)
        async def other(order: Order, more: int) -> str: ...


def test_success_and_errors_are_read_and_written_by_the_codec():
    Pay = Workflow.make("Pay", payload=Order, success=int, error=CardDeclined)
    assert Pay.codec.decode(Pay.codec.encode(Success(3))) == Success(3)
    declined = Failure(Cause.fail(CardDeclined(code="x")))
    assert Pay.codec.decode(Pay.codec.encode(declined)) == declined
    assert Workflow.make("Pay").codec.encode(Success(None)) == b'{"success":null}'
    assert process_order.codec.encode(Success("x")) == b'{"success":"x"}'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"error": 3}, "Pay"),
        ({"error": (CardDeclined, type("CardDeclined", (TypedError,), {}))}, "CardDeclined"),
        ({"on_mismatch": "ignore"}, "on_mismatch must be"),
        ({"idempotency_key": "order_id"}, "idempotency_key must be a function"),
        ({"version": 2}, "version"),
        ({"payload": object()}, "Pay"),
        ({"success": object()}, "Pay"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str):
    with pytest.raises(DefinitionError, match=said):
        Workflow.make("Pay", **settings)


def test_an_unknown_setting_is_an_unexpected_keyword():
    with pytest.raises(TypeError, match="unexpected keyword argument 'retrys'"):
        Workflow.make("Pay", retrys=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'retrys'"):
        workflow(retrys=3)(len_of_async)


async def len_of_async(text: str) -> int:
    return len(text)


def test_a_name_that_cannot_be_recorded_is_refused():
    with pytest.raises(DefinitionError, match="is empty"):
        Workflow.make("")
    with pytest.raises(DefinitionError, match="255"):
        workflow(len_of_async, name="n" * 256)


def test_an_empty_name_is_not_taken_for_no_name():
    """Otherwise the executions of two workflows would be found under one name by accident."""
    with pytest.raises(DefinitionError, match="is empty"):
        workflow(len_of_async, name="")
    with pytest.raises(DefinitionError, match="is empty"):
        activity(name="")(len_of)


def test_annotations_are_kept_in_copies():
    noted = process_order.annotate("team", "billing")
    assert dict(noted.annotate("tier", 1).annotations) == {"team": "billing", "tier": 1}
    assert dict(noted.annotations) == {"team": "billing"}
    assert dict(process_order.annotations) == {}


def test_an_implementation_inherits_what_its_contract_was_told():
    Pay = Workflow.make("Pay", payload=Order, capture_defects=False, version="3").annotate("team", "billing")

    @Pay.implement
    async def pay(payload: Order) -> None: ...

    assert not pay.captures_defects
    assert pay.version == "3"
    assert dict(pay.annotations) == {"team": "billing"}
    assert process_order.captures_defects


# Identity -------------------------------------------------------------------------------------------


def test_the_vectors():
    """R1."""
    assert process_order.execution_id(ORDER) == "fc0cd826dc208968186d2747adc6831f"
    WF1 = Workflow.make("WF1", payload={"key": str}, idempotency_key=lambda p: p.key)
    assert WF1.execution_id({"key": "a"}) == "2dde4b48edb4176d9825e719454d7086"


def test_the_key_is_made_after_validation_and_defaults():
    """R1: however a caller writes it, the same payload is the same execution."""

    @workflow(idempotency_key=lambda to, copies, *, note: f"{to}:{copies!r}:{note}")
    async def notify(to: str, copies: int = 1, *, note: str = "none") -> None: ...

    ids = {
        notify.execution_id("ada"),
        notify.execution_id(to="ada", copies="1"),
        notify.execution_id("ada", 1, note="none"),
    }
    assert len(ids) == 1


def test_a_key_function_that_raises_keeps_its_exception():
    @workflow(idempotency_key=lambda order: order.missing)
    async def ship(order: Order) -> None: ...

    with pytest.raises(AttributeError, match="missing") as raised:
        ship.execution_id(ORDER)
    assert any('workflow "ship"' in note for note in raised.value.__notes__)


@pytest.mark.parametrize("key", ["", "k" * 1025, "a\0b", "\ud800", 3, None])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_written(key: Any):
    @workflow(idempotency_key=lambda text: key)
    async def ship(text: str) -> None: ...

    engine = FakeEngine()
    with pytest.raises(PayloadError, match="idempotency_key"), opened(engine):
        started(ship, "x")
    assert engine.started == []


def test_without_a_key_there_is_no_id_to_compute():
    with pytest.raises(UsageError, match="no idempotency_key"):
        nightly.execution_id("mon")


# Starting -------------------------------------------------------------------------------------------


def started(wf: Any, *args: Any, **kwargs: Any) -> Handle[Any]:
    """Start in a context without host and attempt, on the engine that is open."""
    import asyncio

    return asyncio.run(wf.start(*args, **kwargs))


def test_a_start_carries_everything_that_is_recorded():
    engine = FakeEngine()
    configured = process_order.options(priority=3, attributes={"customer": "ada"}, delay="5 minutes")
    with opened(engine):
        handle = started(configured, ORDER)
    ((start, on_duplicate),) = engine.started
    assert handle.execution_id == start.execution_id == "fc0cd826dc208968186d2747adc6831f"
    assert (start.workflow, start.key, start.version) == ("ProcessOrder", "order-123", "2")
    assert json.loads(start.payload) == {"order_id": "order-123", "copies": 1}
    assert (start.priority, start.attributes, start.due_at) == (3, {"customer": "ada"}, NOW + 300_000)
    assert (on_duplicate, start.strict) == ("join", False)
    assert len(start.incarnation) == 16
    assert start.parent is None


def test_each_start_is_another_incarnation():
    """Or a store could not tell a repeated request from a second one."""
    engine = FakeEngine()
    with opened(engine):
        started(process_order, ORDER)
        started(process_order, ORDER)
    assert len({start.incarnation for start, _ in engine.started}) == 2


def test_without_a_key_each_start_is_a_new_execution():
    """R1."""
    engine = FakeEngine()
    with opened(engine):
        ids = {started(nightly, "mon").execution_id for _ in range(3)}
    assert len(ids) == 3
    assert [start.key for start, _ in engine.started] == [None] * 3


def test_a_delay_of_nothing_is_no_delay():
    engine = FakeEngine()
    with opened(engine):
        started(process_order.options(delay=0), ORDER)
        started(process_order.options(delay="0 days"), ORDER)
    assert [start.due_at for start, _ in engine.started] == [None, None]


def test_an_id_that_is_given_stands_for_the_one_made_from_the_key():
    engine = FakeEngine()
    own = process_order.options(execution_id="0" * 32)
    with opened(engine):
        assert started(own, ORDER).execution_id == "0" * 32 == own.execution_id(ORDER)
        assert started(nightly.options(execution_id="1" * 32), "mon").execution_id == "1" * 32
    assert engine.started[0][0].key is None, "the id does not come from it"


def test_a_start_tells_how_a_recorded_payload_differs():
    """R2."""
    engine = FakeEngine()
    with opened(engine):
        started(process_order, ORDER)
    start = engine.started[0][0]
    assert mismatch_of(start, b'{"order_id":"order-123"}') is None
    mismatch = mismatch_of(start, b'{"order_id":"order-124","copies":1}')
    assert mismatch is not None
    assert (mismatch.fields, mismatch.execution_id) == (("order_id",), start.execution_id)


def test_duplicates_and_mismatches_are_decided_by_the_engine():
    engine = FakeEngine()

    @workflow(idempotency_key=lambda text: text, on_mismatch="raise")
    async def strict(text: str) -> None: ...

    with opened(engine):
        started(strict.options(on_duplicate="reject"), "x")
    ((start, on_duplicate),) = engine.started
    assert (on_duplicate, start.strict) == ("reject", True)


def test_execute_gives_the_value_or_raises_the_error():
    engine = FakeEngine()
    Pay = Workflow.make("Pay", payload={"key": str}, success=int, error=CardDeclined, idempotency_key=lambda p: p.key)
    paid, declined, broken = (Pay.execution_id({"key": key}) for key in ("a", "b", "c"))
    engine.exits[paid] = Pay.codec.encode(Success(3))
    engine.exits[declined] = Pay.codec.encode(Failure(Cause.fail(CardDeclined(code="x"))))
    engine.exits[broken] = Pay.codec.encode(Failure(Cause.die(RuntimeError("wires crossed"))))

    async def main() -> None:
        assert await Pay.execute({"key": "a"}) == 3
        with pytest.raises(CardDeclined) as raised:
            await Pay.execute({"key": "b"})
        assert raised.value == CardDeclined(code="x")
        with pytest.raises(Defect, match="wires crossed"):
            await Pay.execute({"key": "c"})

    in_activity(FakeAttempt(engine), main)
    assert engine.waited[0] == (paid, "Pay", None)


def test_a_refused_duplicate_is_not_waited_for():
    class Refusing(FakeEngine):
        async def start_execution(self, start, **_):
            raise ExecutionExistsError("it exists", execution_id=start.execution_id)

    engine = Refusing()
    with pytest.raises(ExecutionExistsError):
        in_activity(FakeAttempt(engine), lambda: process_order.options(on_duplicate="reject").execute(ORDER))
    assert engine.waited == []


def test_the_engine_that_is_named_is_the_one_that_is_asked():
    named, other = FakeEngine(), FakeEngine()
    with opened(named, other):
        with pytest.raises(UsageError, match="2 engines are open"):
            started(process_order, ORDER)
        started(process_order.options(engine=named), ORDER)
    assert (len(named.started), len(other.started)) == (1, 0)


def test_without_an_engine_the_call_says_how_to_open_one():
    with pytest.raises(UsageError, match="No engine is open"):
        started(process_order, ORDER)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"execution_id": "order-123"}, "idempotency_key"),
        ({"execution_id": "F" * 32}, "lower-case hex"),
        ({"execution_id": "0" * 32 + "\n"}, "32"),
        ({"priority": 2**31}, "32 bits"),
        ({"priority": True}, "whole number"),
        ({"priority": 1.5}, "whole number"),
        ({"delay": "soon"}, "soon"),
        ({"attributes": {"a": None}}, "'a'"),
        ({"attributes": "a"}, "attributes= is a mapping"),
        ({"attributes": ["a"]}, "attributes= is a mapping"),
        ({"delay": "-5 s"}, "cannot be negative: '-5 s'"),
        ({"engine": 5}, r"engine= is .*not int \(5\)"),
        ({"engine": "sqlite://"}, "engine= is"),
        ({"on_duplicate": "restart"}, "'join', 'reject' or 'restart_if_failed'"),
        ({"deadline": "0 seconds"}, "A deadline is an aware datetime, or how long"),
        ({"deadline": -5}, "A deadline is"),
        ({"deadline": "soon"}, "'soon' is not a duration"),
        ({"deadline": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        process_order.options(**options)


def test_an_unknown_option_is_an_unexpected_keyword():
    with pytest.raises(TypeError, match="unexpected keyword argument 'deadlin'"):
        process_order.options(deadlin=3)


def test_options_add_up_in_copies():
    engine = FakeEngine()
    first = process_order.options(priority=3, attributes={"a": 1})
    second = first.options(attributes={"b": 2})
    with opened(engine):
        for each in (second, first, process_order):
            started(each, ORDER)
    assert [(start.priority, start.attributes) for start, _ in engine.started] == [
        (3, {"b": 2}),
        (3, {"a": 1}),
        (0, {}),
    ]
    assert isinstance(second, Registration)


# In a body ------------------------------------------------------------------------------------------


def test_a_start_in_a_body_is_a_step_of_the_body():
    """R42: the host starts it with its turn's commit; nobody is asked."""
    host = FakeHost()
    handle = in_body(host, lambda: process_order.options(delay="1 second").start(ORDER))
    (start,) = host.started
    assert handle.execution_id == start.execution_id == "fc0cd826dc208968186d2747adc6831f"
    assert start.due_at == NOW + 1_000


def test_without_a_key_the_id_derives_from_parent_name_input_and_occurrence():
    """R1: or a replay would start another execution."""

    def ids(days: list[str]) -> list[str]:
        async def body() -> list[str]:
            return [(await nightly.start(day)).execution_id for day in days]

        return in_body(FakeHost(), body)

    first = ids(["mon", "mon", "tue"])
    assert len(set(first)) == 3
    assert ids(["mon", "mon", "tue"]) == first


def test_a_body_starts_in_its_own_engine_and_gets_no_answer():
    with pytest.raises(WorkflowIOError, match="activity"):
        in_body(FakeHost(), lambda: process_order.options(engine=FakeEngine()).start(ORDER))
    with pytest.raises(UsageError, match="on_duplicate='reject'"):
        in_body(FakeHost(), lambda: process_order.options(on_duplicate="reject").start(ORDER))


def test_a_body_cannot_read_other_executions():
    """R42."""

    async def body() -> None:
        handle = await process_order.start(ORDER)
        for read in (handle.result, handle.poll, handle.status):
            with pytest.raises(WorkflowIOError, match="Move it to an activity"):
                await read()
        with pytest.raises(WorkflowIOError):
            await process_order.poll(handle.execution_id)

    in_body(FakeHost(), body)


def test_a_body_interrupts_and_resumes_others_as_its_own_steps():
    """R42."""
    host = FakeHost()

    async def body() -> None:
        await process_order.interrupt(EXECUTION_ID)
        await process_order.resume(EXECUTION_ID)

    in_body(host, body)
    assert host.acted == [f"interrupt:{EXECUTION_ID}", f"resume:{EXECUTION_ID}"]


def test_an_execution_is_interrupted_by_its_engine():
    engine = FakeEngine()
    with opened(engine):
        asyncio.run(process_order.interrupt(EXECUTION_ID))
    assert engine.interrupted == [EXECUTION_ID]


def test_in_an_activity_a_start_is_one_from_outside():
    """R14, R42."""
    engine = FakeEngine()
    in_activity(FakeAttempt(engine), lambda: process_order.start(ORDER))
    assert [start.execution_id for start, _ in engine.started] == ["fc0cd826dc208968186d2747adc6831f"]


def test_a_result_that_is_refused_is_called_the_return_value():
    with pytest.raises(PayloadError, match=r'^Workflow "nightly": the return value: Input should be a valid integer'):
        nightly.codec.success("four")


@pytest.mark.parametrize("choice", ["no", None, 0], ids=repr)
def test_a_choice_about_defects_that_is_none_is_refused(choice):
    """R35: "no" is true, and a bug would then end what it should hold."""
    with pytest.raises(DefinitionError, match=r'"It": capture_defects is True .* or False'):
        Workflow.make("It", capture_defects=choice)


def test_a_field_of_a_contract_that_cannot_be_stored_is_named():
    with pytest.raises(DefinitionError, match=r"It.*: field 'a': .* cannot be stored") as caught:
        Workflow.make("It", payload={"a": object()})
    assert "Struct" not in str(caught.value)
