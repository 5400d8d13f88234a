"""Right uses of the public face: each checks in pyright (strict) and mypy (--strict), with the types that are told.

Nothing here runs; `test_typing.py` gives it to both checkers.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, assert_never, assert_type
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from perdure import (
    Activity,
    ActivityTimeout,
    BlockingHandle,
    Cause,
    Complete,
    Defect,
    Die,
    DurableChannel,
    DurableClock,
    DurableDeferred,
    Duration,
    ExecutionInfo,
    Exit,
    Fail,
    Failure,
    Handle,
    InlineActivity,
    Interrupt,
    Interrupted,
    JournalEntry,
    PerdureError,
    Poll,
    Reason,
    Registration,
    RetryAfter,
    Schedule,
    Status,
    Success,
    Suspended,
    Token,
    TokenParsed,
    TypedError,
    Workflow,
    WorkflowDefinition,
    WorkflowEngine,
    WorkflowImplementation,
    activity,
    add_finalizer,
    continue_as_new,
    current_attempt,
    current_engine,
    execution_id,
    heartbeat,
    idempotency_key,
    last_heartbeat,
    logger,
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


class Order(BaseModel):
    order_id: str
    email: str
    amount_cents: int


@dataclass
class Shipment:
    address: str


class Refund(TypedDict):
    charge_id: str


class CardDeclined(TypedError):
    code: str
    retry_after: int = 0
    tags: list[str] = Field(default_factory=list[str])

    @property
    def transient(self) -> bool:
        return self.code == "busy"


class MailboxFull(TypedError):
    to: str


# The main example ---------------------------------------------------------------------------------


@activity
async def charge_card(order: Order) -> str:
    return f"charge_{order.order_id}"


@activity
async def send_confirmation_email(email: str, charge_id: str) -> None:
    print(f"Emailing {email} for charge {charge_id}")


@workflow(name="ProcessOrder", idempotency_key=lambda order: order.order_id)
async def process_order(order: Order) -> str:
    charge_id = await charge_card(order)
    assert_type(charge_id, str)
    await sleep("1 hour", name="CancellationWindow")
    await send_confirmation_email(order.email, charge_id)
    return charge_id


async def main_example(order: Order) -> None:
    started: Workflow[[Order], str] = process_order
    assert_type(await started.execute(order), str)
    assert_type(await process_order.execute(order), str)
    assert_type(await process_order.execute(order=order), str)
    registrations: list[Registration] = [process_order, notify]
    assert_type(registrations[0].name, str)


# Workflows: contract first ------------------------------------------------------------------------

SendEmail = Workflow.make(
    "SendEmail", payload={"to": str}, success=str, error=MailboxFull, idempotency_key=lambda p: p.to
)
Charge = Workflow.make(
    "Charge", payload=Order, success=Literal["paid", "free"], idempotency_key=lambda order: order.order_id
)
Ship = Workflow.make("Ship", payload=Shipment, error=(MailboxFull, CardDeclined), capture_defects=False)
Undo = Workflow.make("Undo", payload=Refund, success=str | None, idempotency_key=lambda refund: refund["charge_id"])
Tick = Workflow.make("Tick", version="2", on_mismatch="raise")


@SendEmail.implement
async def send_email(payload: Any, execution_id: str) -> str:
    return f"sent to {payload.to}"


@Charge.implement
async def charge_order(payload: Order) -> Literal["paid", "free"]:
    return "paid" if payload.amount_cents else "free"


@Ship.implement
async def ship_order(payload: Shipment, execution_id: str) -> None: ...


@Undo.implement
async def undo(payload: Refund) -> str | None:
    return payload["charge_id"]


async def contracts(order: Order) -> None:
    assert_type(SendEmail, WorkflowDefinition[Mapping[str, Any], str, Any])
    assert_type(Charge, WorkflowDefinition[Order, Literal["paid", "free"]])
    assert_type(Ship, WorkflowDefinition[Shipment, None])
    assert_type(Undo, WorkflowDefinition[Refund, str | None])
    assert_type(send_email, WorkflowImplementation[[Mapping[str, Any]], str])
    assert_type(await SendEmail.execute({"to": "ada"}), str)
    assert_type(await send_email.execute({"to": "ada"}), str)
    assert_type(await Charge.execute(order), Literal["paid", "free"])
    assert_type(await Undo.execute({"charge_id": "c"}), str | None)
    assert_type(await Ship.start(Shipment("here")), Handle[None])
    assert_type(Charge.execution_id(order), str)
    await Tick.execute({})
    registrations: list[Registration] = [send_email, charge_order, ship_order, undo]
    assert registrations


# Workflows: code first ----------------------------------------------------------------------------


@workflow(idempotency_key=lambda to, subject: f"{to}:{subject}")
async def notify(to: str, subject: str) -> None: ...


@workflow(payload=Order, idempotency_key=lambda order: order.order_id, error=CardDeclined)
async def ship(order: Order) -> str:
    return order.order_id


@workflow
async def nightly() -> int:
    return 1


@workflow(
    error=(CardDeclined, MailboxFull),
    version="2",
    on_mismatch="raise",
    capture_defects=False,
    suspend_on_failure=True,
    retention="90 days",
)
async def many_settings(key: str, count: int = 1) -> list[Order]:
    return []


async def notify_body(to: str, subject: str) -> datetime:
    return datetime.now(UTC)


notify_again = workflow(notify_body, idempotency_key=lambda to, subject: f"{to}:{subject}")


def named_key(*, to: str) -> str:
    return to


@workflow(idempotency_key=named_key)
async def by_name(*, to: str) -> int:
    return 1


async def code_first(order: Order) -> None:
    assert_type(await ship.execute(order), str)
    assert_type(await nightly.execute(), int)
    assert_type(await many_settings.execute("k"), list[Order])
    assert_type(await many_settings.execute("k", count=2), list[Order])
    assert_type(await notify_again.execute("ada", subject="hi"), datetime)
    assert_type(await by_name.execute(to="ada"), int)
    assert_type(notify.execution_id("ada", "hi"), str)
    await notify.execute(to="ada", subject="hi")


# Executions ---------------------------------------------------------------------------------------


async def executions(order: Order) -> None:
    handle = await process_order.start(order)
    assert_type(handle, Handle[str])
    assert_type(handle.execution_id, str)
    assert_type(await handle.result(), str)
    assert_type(await handle.result(timeout="1 minute"), str)
    assert_type(await handle.status(), Status | None)
    await handle.resume()
    assert_type(process_order.handle("0" * 32), Handle[str])
    await process_order.resume("0" * 32)
    configured = process_order.options(
        execution_id="0" * 32, delay="5 minutes", priority=3, attributes={"customer": "ada", "big": True}
    )
    assert_type(await configured.options(on_duplicate="reject").start(order), Handle[str])
    assert_type(await configured.options(on_duplicate="restart_if_failed").execute(order), str)
    assert_type(await configured.options(deadline=datetime(2030, 1, 1, tzinfo=UTC)).execute(order), str)
    assert_type(await configured.options(deadline="1 hour").options(deadline=3.5).execute(order), str)
    await process_order.interrupt("0" * 32)
    assert_type(await Charge.options(delay=timedelta(seconds=3)).execute(order), Literal["paid", "free"])
    assert_type(process_order.annotate("team", "billing").annotations["team"], object)

    polled = await process_order.poll("0" * 32)
    assert_type(polled, Suspended | Complete[str] | None)
    match polled:
        case None:
            pass
        case Suspended(cause):
            assert_type(cause, Cause | None)
        case Complete(exit):
            match exit:
                case Success(value):
                    assert_type(value, str)
                case Failure(cause):
                    assert_type(cause, Cause)
                case _:
                    assert_never(exit)
        case _:
            assert_never(polled)


# Activities ---------------------------------------------------------------------------------------


@activity(
    name="ChargeCard",
    error=CardDeclined,
    retry=Schedule.exponential("500 millis", factor=2, max="1 minute", jitter=True).times(5),
    timeout="30 seconds",
)
async def charge(order: Order) -> str:
    return idempotency_key()


@activity
def render_pdf(order_id: str) -> bytes:
    return order_id.encode()


@activity(
    error=(CardDeclined, MailboxFull),
    interrupt_retry=None,
    total_timeout="1 hour",
    delivery="at_most_once",
    formerly=("Old",),
)
def copy_rows(path: str, *, limit: int = 10) -> int:
    start = last_heartbeat(int)
    assert_type(start, int | None)
    heartbeat({"at": start})
    raise RetryAfter("30 seconds")


@activity
async def many(n: int = 1) -> list[int]:
    return [n]


class Gateway:
    async def charge(self, order: Order) -> str:
        return order.order_id

    def count(self) -> int:
        return 1


async def activities(order: Order, gateway: Gateway) -> None:
    by_place: Activity[[Order], str] = charge
    assert_type(await by_place(order), str)
    await assert_type(charge(order), Coroutine[None, None, str])
    assert_type(await charge(order), str)
    assert_type(await render_pdf("a"), bytes)
    assert_type(await copy_rows("a", limit=3), int)
    assert_type(await many(), list[int])
    assert_type(await charge.options(name="ChargeCard/backup", timeout="5 seconds")(order), str)
    assert_type(await charge.options(retry=None, interrupt_retry=None, timeout=None)(order), str)

    inline = Activity.make("ChargeCard", success=str, execute=lambda: gateway.charge(order))
    assert_type(inline, InlineActivity[str])
    assert_type(await inline, str)
    assert_type(await inline(), str)
    assert_type(await Activity.make("Count", success=int, execute=gateway.count), int)
    assert_type(await Activity.make("Count", execute=gateway.count, timeout="1 second"), int)
    assert_type(await Activity.make("Charge", success=str | None, execute=lambda: gateway.charge(order)), str | None)

    # Wherever a coroutine goes, and with the types kept apart.
    assert_type(await asyncio.gather(charge(order), many(3)), tuple[str, list[int]])
    assert_type(await asyncio.create_task(charge(order)), str)
    assert_type(await asyncio.wait_for(charge(order), 3), str)
    assert_type(await asyncio.shield(charge(order)), str)
    assert_type(await asyncio.gather(*(many(n) for n in range(3))), list[list[int]])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(charge(order))
    assert_type(task.result(), str)
    done, _ = await asyncio.wait([asyncio.create_task(many(n)) for n in range(3)])
    assert_type([each.result() for each in done], list[list[int]])
    assert_type(await asyncio.gather(inline, inline), tuple[str, str])


async def retries(order: Order) -> None:
    schedule = Schedule.spaced("10 seconds").times(3)
    assert_type(await retry(charge(order), schedule), str)
    assert_type(await retry(charge(order), schedule, error=CardDeclined, while_=lambda error: error.transient), str)
    assert_type(await retry(charge(order), schedule, error=(CardDeclined, ActivityTimeout)), str)
    assert_type(await retry(charge(order), schedule, while_=lambda error: error is not None), str)
    assert_type(await retry(Activity.make("One", success=int, execute=lambda: 1), schedule), int)
    assert_type(Schedule.exponential("1 second").capped("1 minute").jittered().times(3), Schedule)
    assert_type(Schedule.fixed(3), Schedule)
    assert_type(Schedule.recurs(3), Schedule)


# Deferreds ------------------------------------------------------------------------------------------


class Decision(BaseModel):
    approved_by: str


class Rejected(TypedError):
    reason: str


Approval = DurableDeferred.make("approval", success=Decision, error=Rejected)
Signal = DurableDeferred.make("signal")
Amount = DurableDeferred.make("amount", success=int)
Level = DurableDeferred.make("level", success=Literal["high", "low"], error=(Rejected, CardDeclined))


class Mail(BaseModel):
    token: Token


async def deferreds(order: Order) -> None:
    assert_type(Approval, DurableDeferred[Decision, Rejected])
    assert_type(Signal, DurableDeferred[None])
    assert_type(Amount, DurableDeferred[int])
    token = Approval.token()
    assert_type(token, Token)
    assert_type(Approval.token(expires_in="1 day"), Token)
    assert_type(await Approval, Decision)
    assert_type(await Approval.wait(), Decision)
    assert_type(await Level, Literal["high", "low"])
    await Signal
    assert_type(await asyncio.wait_for(Approval, 3), Decision)
    assert_type(await Approval.succeed(token, Decision(approved_by="ada")), bool)
    assert_type(await Approval.fail(token, Rejected(reason="late")), bool)
    assert_type(await Approval.fail_cause(token, Cause.die(ValueError())), bool)
    assert_type(await Approval.done(token, Success(Decision(approved_by="ada"))), bool)
    assert_type(await Approval.done(token, Failure(Cause.interrupt())), bool)
    assert_type(await Level.fail(token, CardDeclined(code="x")), bool)
    await Signal.succeed(Token("from a mail"), None, engine=current_engine())
    assert_type(Approval.token_from_execution_id(workflow=process_order, execution_id="0" * 32), Token)
    assert_type(Approval.token_from_payload(workflow=process_order, payload=order), Token)
    assert_type(Approval.token_from_payload(workflow=SendEmail, payload={"to": "ada"}), Token)
    assert_type(Approval.token_for(notify, "ada", subject="hi"), Token)
    assert_type(process_order.handle("0" * 32).token(Approval), Token)
    assert_type(await Amount.into(many_to_one(order)), int)
    assert_type(Approval.with_activity_attempt(), DurableDeferred[Decision, Rejected])
    parsed = TokenParsed.from_string(token)
    assert_type(parsed.workflow_name, str)
    assert_type(parsed.execution_id, str)
    assert_type(parsed.deferred_name, str)
    assert_type(parsed.as_token, Token)
    assert_type(parsed.expires_at, datetime | None)
    assert_type(Mail(token=token).token, Token)
    text: str = token
    print(text)


async def many_to_one(order: Order) -> int:
    return order.amount_cents


# Races, children, compensation --------------------------------------------------------------------


async def timed_out() -> str:
    return "timed out"


async def races(order: Order) -> None:
    assert_type(await race_all("mirrors", [charge(order), charge(order)]), str)
    assert_type(await race_all("mirrors", (charge(order), many())), str | list[int])
    assert_type(await race_all("three", (charge(order), many(), Approval)), str | list[int] | Decision)
    assert_type(await race_all("four", (charge(order), many(), Approval, Amount)), str | list[int] | Decision | int)
    assert_type(
        await race_all("five", (charge(order), many(), Approval, Amount, render_pdf("a"))),
        str | list[int] | Decision | int | bytes,
    )
    assert_type(await race_all("any", (charge(order) for _ in range(3))), str)
    assert_type(await race_all("tasks", [asyncio.create_task(timed_out()), charge(order)]), str)
    assert_type(await DurableDeferred.race_all("fetch", [charge(order), timed_out()], success=str), str)
    assert_type(await DurableDeferred.race_all("n", [Amount], success=int, error=(Rejected, CardDeclined)), int)


async def children(order: Order) -> None:
    assert_type(await ship.execute(order), str)
    assert_type(await asyncio.gather(*(ship.options(priority=1).execute(order) for _ in range(3))), list[str])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ship.execute(order))
    assert_type(task.result(), str)


async def release(charge_id: str) -> None: ...


async def on_exit(exit: Exit[Any]) -> None: ...


async def compensations(order: Order) -> None:
    assert_type(await with_compensation(charge(order), lambda charge_id, cause: release(charge_id)), str)
    assert_type(await with_compensation(ship.execute(order), lambda value, cause: release(value)), str)
    step = retry(charge(order), Schedule.recurs(3))
    assert_type(await with_compensation(step, lambda value, cause: release(value)), str)
    inline = Activity.make("One", success=int, execute=lambda: 1)
    undone = with_compensation(
        inline, lambda number, cause: release(f"{number}: {cause}"), unknown=lambda cause: release(str(cause))
    )
    assert_type(await undone, int)
    await add_finalizer(on_exit)
    stack = scope()
    stack.push_async_callback(release, "a")
    await stack.enter_async_context(asyncio.timeout(3))


async def endless(order: Order) -> int:
    set_attributes(customer="ada", amount=order.amount_cents, vip=True, old=None)
    set_attributes({"the customer": "ada"})
    publish("progress", {"counted": 3})
    if order.amount_cents:
        ship.continue_as_new(order)
    continue_as_new(order)


# Channels -----------------------------------------------------------------------------------------

Amounts = DurableChannel.make("amounts", int)
Words = DurableChannel.make("words", str | None)


async def channels() -> None:
    assert_type(Amounts, DurableChannel[int])
    assert_type(await Amounts.receive(), int)
    assert_type(await Words.receive(), str | None)
    await Amounts.send("0" * 32, 5)
    await Amounts.send("0" * 32, 5, id="m-1", engine=current_engine())
    await Words.send("0" * 32, None)


# Clocks, and what a body may ask ------------------------------------------------------------------


async def clocks() -> None:
    await DurableClock.sleep(name="settle", duration="5 seconds")
    await DurableClock.sleep(name="follow-up", duration="3 days", in_memory_threshold="0 millis")
    await sleep("3 days", name="follow-up")
    await sleep(timedelta(days=3))
    await sleep(0.5, in_memory_threshold=0)
    await sleep_until(datetime(2030, 1, 1, tzinfo=UTC), name="new-year")
    clock = DurableClock.make(name="deadline", duration="1 day")
    assert_type(clock.name, str)
    assert_type(clock.duration, timedelta)
    assert_type(clock.deferred.name, str)
    duration: Duration = "1 hour"
    await sleep(duration)


async def surroundings() -> None:
    assert_type(execution_id(), str)
    assert_type(current_attempt(), int)
    assert_type(now(), datetime)
    assert_type(uuid4(), UUID)
    assert_type(uuid4("invoice"), UUID)
    assert_type(random(), Random)
    assert_type(patched("change-id"), bool)
    assert_type(idempotency_key("ChargeCard", include_attempt=True), str)
    assert_type(last_heartbeat(list[int]), list[int] | None)
    assert_type(last_heartbeat(Order), Order | None)
    logger.info("charged %s", 3)


# Exits and errors ---------------------------------------------------------------------------------


def exits(reason: Reason) -> Exit[int]:
    assert_type(Success(3).unwrap(), int)
    assert_type(Cause.fail(CardDeclined(code="x")).reasons, tuple[Reason, ...])
    assert_type(Cause.from_exception(ValueError()), Cause)
    match reason:
        case Fail(error):
            assert_type(error, Exception)
        case Die(defect):
            assert_type(defect, Defect)
        case Interrupt():
            pass
        case _:
            assert_never(reason)
    if isinstance(reason, Interrupt):
        return Failure(Cause.interrupt())
    return Success(3)


def polls() -> list[Poll[int]]:
    return [
        None,
        Suspended(),
        Suspended(Cause.die(ValueError())),
        Complete(Success(3)),
        Complete(Failure(Cause.interrupt())),
    ]


def errors() -> None:
    declined = CardDeclined(code="no-funds")
    assert_type(declined.code, str)
    assert_type(declined.retry_after, int)
    assert_type({declined: 1}, dict[CardDeclined, int])
    assert declined == CardDeclined(code="no-funds", retry_after=0, tags=[])
    try:
        raise declined
    except CardDeclined as error:
        error.add_note("noted")
        assert_type(error.transient, bool)
    except (Defect, Interrupted) as error:
        base: PerdureError = error
        print(base.code)


# Engines ------------------------------------------------------------------------------------------


async def engines(order: Order, registrations: list[Registration]) -> None:
    async with WorkflowEngine.sqlite("orders.perdure", [process_order, send_email], concurrency=8, cache=0) as engine:
        assert_type(engine, WorkflowEngine)
        assert_type(await engine.execute(process_order, order), str)
        assert_type(await engine.execute(notify_again, "ada", subject="hi"), datetime)
        assert_type(await engine.start(Charge, order), Handle[Literal["paid", "free"]])
        assert_type(await engine.describe("0" * 32), ExecutionInfo)
        assert_type(await engine.journal("0" * 32), list[JournalEntry])
        assert_type(await engine.poll("0" * 32), Suspended | Complete[Any] | None)
        async for each in engine.executions(workflow=process_order, status=Status.RUNNING, limit=3):
            assert_type(each, ExecutionInfo)
        await engine.resume("0" * 32)
        assert_type(await engine.drain("1 second"), bool)
        engine.register(ship, nightly)
        assert_type(current_engine(), WorkflowEngine)
        assert_type(await process_order.options(engine=engine).execute(order), str)
    async with WorkflowEngine.memory(registrations), WorkflowEngine.open("memory://", registrations):
        pass


def blocking(order: Order) -> None:
    with WorkflowEngine.memory([process_order]).blocking() as engine:
        assert_type(engine.execute(process_order, order), str)
        handle = engine.start(process_order, order)
        assert_type(handle, BlockingHandle[str])
        assert_type(handle.result("1 second"), str)
        assert_type(handle.status(), Status | None)
        assert_type(engine.describe("0" * 32), ExecutionInfo)
        assert_type(engine.journal("0" * 32), list[JournalEntry])
        assert_type(engine.call(charge, order), str)
        assert_type([each.execution_id for each in engine.executions(limit=3)], list[str])
