"""Wrong uses of the public face: each marked line is an error in pyright (strict) and in mypy (--strict).

The marks are ignore comments by rule. Both checkers refuse one that ignores nothing, so a wrong use which has become
right is a failure, as is an error on a line without a mark. A line with one mark only is a known limit of the other
checker. Nothing here runs; `test_typing.py` gives it to both.
"""
# ruff: noqa: B018, F401, I001, PLW0108, RUF006

import asyncio

from pydantic import BaseModel

from perdure import (
    Activity,
    ActivityTimeout,
    Cause,
    Complete,
    DurableChannel,
    DurableClock,
    DurableDeferred,
    Exit,
    Failure,
    Handle,
    Registration,
    Schedule,
    Success,
    Suspended,
    Token,
    TokenParsed,
    TypedError,
    Workflow,
    WorkflowEngine,
    activity,
    add_finalizer,
    heartbeat,
    idempotency_key,
    last_heartbeat,
    now,
    patched,
    publish,
    race_all,
    random,
    retry,
    scope,
    set_attributes,
    sleep,
    sleep_until,
    uuid4,
    with_compensation,
    workflow,
)
from perdure import workflw  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnusedImport]


class Order(BaseModel):
    order_id: str


class CardDeclined(TypedError):
    code: str
    retry_after: int = 0


@activity(error=CardDeclined)
async def charge(order: Order) -> str:
    return order.order_id


@activity
def render(order_id: str, *, pages: int = 1) -> bytes:
    return order_id.encode()


@workflow(idempotency_key=lambda order: order.order_id)
async def process_order(order: Order) -> str:
    return await charge(order)


@workflow(idempotency_key=lambda to, subject: f"{to}:{subject}")
async def notify(to: str, subject: str) -> None: ...


SendEmail = Workflow.make("SendEmail", payload={"to": str}, success=str, idempotency_key=lambda p: p.to)
Charge = Workflow.make("Charge", payload=Order, success=int, idempotency_key=lambda order: order.order_id)

# Defining workflows -------------------------------------------------------------------------------

Workflow.make("Charge", payload=Order, idempotency_key=lambda order: order.orderid)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
Workflow.make("Charge", payload=Order, idempotency_key=lambda order: 3)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, idempotency_key="order_id")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, error="CardDeclined")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, error=int)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, sucess=int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
Workflow.make("Charge", payload=Order, capture_defects="no")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, on_mismatch="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=Order, version=2)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make(payload=Order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
Workflow.make(3, payload=Order)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
Workflow.make("Charge", payload={3: str})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType, reportCallIssue]


@Charge.implement  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong_result(payload: Order) -> str:
    return "x"


@Charge.implement  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong_payload(payload: int) -> int:
    return 1


@Charge.implement  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def three_parameters(payload: Order, execution_id: str, attempt: int) -> int:
    return 1


@Charge.implement  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong_execution_id(payload: Order, execution_id: int) -> int:
    return 1


@Charge.implement  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def not_async(payload: Order) -> int:
    return 1


@workflow  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def not_async_either(order: Order) -> str:
    return "x"


@workflow(idempotency_key=lambda order: order.order_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def not_async_with_key(order: Order) -> str:
    return "x"


@workflow(payload=Order, idempotency_key=lambda order: order.order_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def other_payload(order: int) -> str:
    return "x"


async def body(to: str, subject: str) -> None: ...


def key_of_an_order(order: Order) -> str:
    return order.order_id


workflow(payload=Order, idempotency_key=lambda order: order.orderid)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
workflow(body, idempotency_key=lambda to: to)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
workflow(body, idempotency_key=lambda to, subject: 3)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
workflow(body, idempotency_key=key_of_an_order)  # pyright: ignore[reportArgumentType]
workflow(body, name=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
workflow(body, nme="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
workflow(idempotency_key="order_id")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
workflow(error=int)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
workflow(on_mismatch="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
workflow("Charge")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]

# Starting and finding executions ------------------------------------------------------------------


async def starts(order: Order) -> None:
    await process_order(order)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    await process_order.execute("order-123")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await process_order.execute()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await process_order.execute(order, order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await process_order.execute(ordr=order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await process_order.start(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.execution_id(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await notify.execute("ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await notify.execute("ada", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await notify.execute(to="ada", subjct="hi")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await Charge.execute({"order_id": "a"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await SendEmail.execute("ada")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await SendEmail.execute(to="ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    length: int = await process_order.execute(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    process_order.execute(order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    (await process_order.execute(order)).missing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    process_order(order)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    process_order.options(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.options(delay=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.options(attributes={"a": [1]})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    process_order.options(on_duplicate="restart")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.options(executionid="0" * 32)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    process_order.options(engine="main")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.handle(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await process_order.poll()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    handle: Handle[int] = await process_order.start(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    started = await process_order.start(order)
    await started.result(timeout=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrong: int = await started.result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await started.stop()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    process_order.annotate(3, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(length, handle, wrong)


async def polls(polled: Suspended | Complete[str] | None, exit: Exit[int]) -> None:
    polled.exit  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess, reportUnknownMemberType]
    exit.value  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    exit.cause  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    value: str = exit.unwrap()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    other: Exit[str] = Success(3)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    Failure(ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Cause.fail("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Suspended("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(value, other)


def is_exhaustive(exit: Exit[int]) -> int:  # type: ignore[return]  # pyright: ignore[reportReturnType]
    match exit:  # pyright: ignore[reportMatchNotExhaustive]
        case Success(value):
            return value


# Activities ---------------------------------------------------------------------------------------


@activity(retries=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
async def unknown_option(order: Order) -> str:
    return "x"


@activity(retry=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def wrong_retry(order: Order) -> str:
    return "x"


@activity(timeout=[])  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def wrong_timeout(order: Order) -> str:
    return "x"


@activity(error="CardDeclined")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def wrong_error(order: Order) -> str:
    return "x"


@activity(delivery="exactly_once")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def wrong_delivery(order: Order) -> str:
    return "x"


@activity(formerly="Old")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def wrong_formerly(order: Order) -> str:
    return "x"


@activity("ChargeCard")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def wrong_name(order: Order) -> str:
    return "x"


async def calls(order: Order) -> None:
    await charge("order-123")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await charge()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await charge(order, order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await charge(ordr=order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await render("a", 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await render("a", pages="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge(order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    number: int = await charge(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    render("a").decode()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await charge.options(name=3)(order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await charge.options(tmeout=3)(order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await charge.options(timeout="5 seconds")("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await charge.options(error=CardDeclined)(order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await charge  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await Activity.make("Inline", success=str)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await Activity.make("Inline", success=str, execute=lambda order: "x")  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownLambdaType]
    text: str = await Activity.make("Inline", success=int, execute=lambda: 3)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportAssignmentType]
    await asyncio.gather(charge("a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    asyncio.create_task(charge)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(number, text)


async def retries(order: Order) -> None:
    schedule = Schedule.spaced("10 seconds").times(3)
    await retry(charge(order), 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await retry(charge, schedule)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await retry(charge(order))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    number: int = await retry(charge(order), schedule)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    await retry(charge(order), schedule, error="CardDeclined")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await retry(charge(order), schedule, error=CardDeclined, while_=lambda error: error.transient)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
    await retry(charge(order), schedule, error=ActivityTimeout, while_=lambda error: "yes")  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    retry(charge(order), schedule)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    Schedule.exponential()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Schedule.spaced(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Schedule.recurs("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Schedule.spaced("1 second").times("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(number)


# Deferreds ------------------------------------------------------------------------------------------

Approval = DurableDeferred.make("approval", success=Order, error=CardDeclined)
Amount = DurableDeferred.make("amount", success=int)


async def deferreds(order: Order, token: Token) -> None:
    DurableDeferred.make()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    DurableDeferred.make("approval", Order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    DurableDeferred.make("approval", error="CardDeclined")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    DurableDeferred.make("approval", retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    text: str = await Approval  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await Approval.succeed(token, "ada")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Approval.succeed(token)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await Approval.succeed("a token", order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Approval.succeed(order, order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Approval.fail(token, ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Approval.fail(token, CardDeclined)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amount.fail(token, CardDeclined(code="x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amount.done(token, Success("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amount.done(token, 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amount.fail_cause(token, ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amount.succeed(token, 5, engine="main")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Approval.succeed(token, order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await Amount.into(charge(order))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Approval.token(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Approval.token(expires_in=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Approval.token_from_payload(workflow=process_order, payload="order-123")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Approval.token_from_payload(process_order, order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Approval.token_from_execution_id(workflow="ProcessOrder", execution_id="0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Approval.token_for(notify, "ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Approval.token_for(process_order, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TokenParsed.from_string(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(text)


# Races, children, compensation --------------------------------------------------------------------


async def undo(charge_id: str) -> None: ...


async def races(order: Order) -> None:
    await race_all([charge(order)])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await race_all("mirrors", [3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await race_all("mirrors", charge(order))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    number: int = await race_all("mirrors", [charge(order), charge(order)])  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
    other: int = await race_all("mirrors", (charge(order), Amount))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    race_all("mirrors", [charge(order)])  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await DurableDeferred.race_all("mirrors", [charge(order)])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    typed: int = await DurableDeferred.race_all("mirrors", [charge(order)], success=str)  # type: ignore[arg-type, list-item]  # pyright: ignore[reportAssignmentType]
    print(number, other, typed)


async def compensations(order: Order) -> None:
    await with_compensation(charge(order))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await with_compensation(charge, lambda value, cause: undo(value))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await with_compensation(charge(order), lambda value: undo(value))  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    await with_compensation(Amount, lambda value, cause: undo(value))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await with_compensation(charge(order), lambda value, cause: undo(cause))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await with_compensation(charge(order), lambda value, cause: None)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    await with_compensation(charge(order), lambda value, cause: undo(value), unknown=undo)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = await with_compensation(charge(order), lambda value, cause: undo(value))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    with_compensation(charge(order), lambda value, cause: undo(value))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await add_finalizer(undo)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await add_finalizer(lambda: undo("x"))  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    add_finalizer(lambda ended: undo("x"))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    scope("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(number)


def going_on(order: Order) -> None:
    set_attributes(customer=[1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    set_attributes("customer")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publish("progress")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    publish(3, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.options(deadline=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process_order.options(on_duplicate="restart_if_finished")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def goes_on_as_another(order: Order) -> None:
    process_order.continue_as_new("order-123")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Channels -----------------------------------------------------------------------------------------

Amounts = DurableChannel.make("amounts", int)


async def channels() -> None:
    DurableChannel.make("amounts")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DurableChannel.make(int, "amounts")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = await Amounts.receive()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await Amounts.send("0", "five")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amounts.send(5)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await Amounts.send("0", 5, id=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Amounts.receive("1 second")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Amounts.send("0", 5)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    print(text)


# Clocks, and what a body may ask ------------------------------------------------------------------


async def clocks() -> None:
    await sleep()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await sleep(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await sleep("1 hour", "name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sleep("1 hour")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await DurableClock.sleep("settle", "5 seconds")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await DurableClock.sleep(name="settle")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DurableClock.make(name="settle")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await sleep_until("tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    patched(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    patched()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    idempotency_key(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    idempotency_key("a", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    last_heartbeat()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    wrong: str = last_heartbeat(int)  # type: ignore[arg-type, assignment]  # pyright: ignore[reportAssignmentType]
    await heartbeat(3)  # type: ignore[func-returns-value, misc]  # pyright: ignore[reportGeneralTypeIssues]
    text: str = now()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    number: int = random()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    key: str = uuid4()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(wrong, text, number, key)


# Errors -------------------------------------------------------------------------------------------


def errors() -> None:
    CardDeclined()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CardDeclined("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CardDeclined(code=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CardDeclined(code="x", cod="y")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    declined = CardDeclined(code="x")
    declined.code = "y"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    declined.missing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


# Engines ------------------------------------------------------------------------------------------


async def engines(order: Order) -> None:
    WorkflowEngine.memory([Charge])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    WorkflowEngine.memory([charge])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    WorkflowEngine.memory([body])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    WorkflowEngine.memory(process_order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WorkflowEngine.memory([process_order], concurency=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WorkflowEngine.sqlite([process_order])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with WorkflowEngine.memory([process_order]):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    async with WorkflowEngine.memory([process_order]) as engine:
        await engine.execute(process_order, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await engine.execute(process_order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await engine.execute(charge, order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        number: int = await engine.execute(process_order, order)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
        handle: Handle[int] = await engine.start(process_order, order)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
        await engine.describe(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        engine.describe("0" * 32)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        async for each in engine.executions(limit="3"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            print(each)
        engine.register(Charge)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(number, handle)
    with WorkflowEngine.memory([process_order]).blocking() as blocking:
        blocking.execute(process_order, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        wrong: int = blocking.execute(process_order, order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        blocking.start(process_order, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        blocking.start(process_order, order).result(timeout=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        blocking.call(charge, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await blocking.execute(process_order, order)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        print(wrong)


registrations: list[Registration] = [Charge, charge]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
