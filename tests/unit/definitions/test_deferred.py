"""Deferreds: how they are awaited, completed and addressed, from a body, from an activity and from outside."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import (
    Cause,
    Defect,
    DefinitionError,
    DurableDeferred,
    ExecutionNotFoundError,
    Failure,
    Interrupted,
    OutsideExecutionError,
    PayloadError,
    Success,
    Token,
    TokenError,
    TokenParsed,
    TypedError,
    UsageError,
    WorkflowIOError,
    activity,
    workflow,
)
from perdure._model.journal import Kind
from perdure._model.records import Mail, MailKind, Receipt
from perdure._values.token import TokenKeys

from tests.unit.definitions.fakes import (
    EXECUTION_ID,
    INCARNATION,
    NOW,
    FakeAttempt,
    FakeEngine,
    FakeHost,
    in_activity,
    in_body,
    opened,
)


class Decision(BaseModel):
    approved_by: str


class Rejected(TypedError):
    reason: str


@workflow(name="ProcessOrder", idempotency_key=lambda order_id: order_id)
async def process_order(order_id: str) -> None: ...


@workflow(idempotency_key=lambda to, subject: f"{to}:{subject}")
async def notify(to: str, subject: str) -> None: ...


@activity
async def charge(amount: int) -> int:
    return amount


Approval = DurableDeferred.make("approval", success=Decision, error=Rejected)
Charge = DurableDeferred.make("charge", success=int, error=(Rejected, LookupError))
ADA = Decision(approved_by="ada")
TOKEN = Approval.token_from_execution_id(workflow=process_order, execution_id=EXECUTION_ID)
KEYS = TokenKeys("a secret, long enough")


def keyed() -> FakeEngine:
    engine = FakeEngine()
    engine.token_keys = KEYS
    return engine


# Definitions ---------------------------------------------------------------------------------------


def test_a_name_is_checked_at_the_door():
    with pytest.raises(DefinitionError, match="The name of a deferred is empty"):
        DurableDeferred.make("")
    with pytest.raises(DefinitionError, match="cannot be stored"):
        DurableDeferred.make("approval", success=asyncio.Event)


def test_a_deferred_without_types_has_the_value_none():
    assert DurableDeferred.make("signal").codec.encode_success(None) == b'{"success":null}'
    with pytest.raises(PayloadError):
        DurableDeferred.make("signal").codec.encode_success(5)  # pyright: ignore[reportArgumentType]


# Awaiting ------------------------------------------------------------------------------------------


def test_a_body_asks_for_a_deferred_by_its_name_alone():
    host = FakeHost({"approval": [ADA, ADA]})

    async def body() -> Any:
        return [await Approval, await Approval.wait()]

    assert in_body(host, body) == [ADA, ADA]
    first, second = host.asked
    assert (first.kind, first.name, first.occurrence, first.input) == (Kind.DEFERRED, "approval", 1, b"")
    assert second.occurrence == 2
    assert not first.input_decides
    assert first.same_input(b"")


def test_a_recorded_completion_is_read_with_the_types_of_the_deferred():
    host = FakeHost({"approval": [ADA]})
    in_body(host, Approval.wait)
    (call,) = host.asked
    assert call.decode_success(b'{"success":{"approved_by":"ada"}}') == ADA
    failed = call.decode_failure(b'{"failure":[{"fail":{"tag":"Rejected","error":{"reason":"late"}}}]}')
    assert failed == Cause.fail(Rejected(reason="late"))
    with pytest.raises(PayloadError):
        call.decode_success(b'{"success":5}')


def test_an_activity_waits_in_place():
    engine = FakeEngine()
    attempt = FakeAttempt(engine)
    engine.exits_of_mail[EXECUTION_ID, MailKind.DEFERRED, "approval"] = Approval.codec.encode_success(ADA)
    assert in_activity(attempt, Approval.wait) == ADA
    engine.exits_of_mail[EXECUTION_ID, MailKind.DEFERRED, "approval"] = Approval.codec.encode_failure(
        Cause.fail(Rejected(reason="late"))
    )
    with pytest.raises(Rejected):
        in_activity(attempt, Approval.wait)


def test_outside_there_is_nothing_to_wait_for():
    with pytest.raises(OutsideExecutionError, match="'approval' is awaited where neither"):
        asyncio.run(Approval.wait())


# into (R20) ----------------------------------------------------------------------------------------


def test_into_records_a_value_in_its_own_execution_and_gives_it():
    host = FakeHost({"charge": [4200]})
    assert in_body(host, lambda: Charge.into(charge(4200))) == 4200
    assert host.acted == ["into:charge"]
    assert host.acts.mail == [Mail(EXECUTION_ID, MailKind.DEFERRED, "charge", b'{"success":4200}')]


def test_into_records_an_error_and_raises_it_itself():
    host, error = FakeHost(), Rejected(reason="late")

    async def step() -> int:
        raise error

    with pytest.raises(Rejected) as raised:
        in_body(host, lambda: Charge.into(step()))
    assert raised.value is error
    (mail,) = host.acts.mail
    assert Charge.codec.decode(mail.exit) == Failure(Cause.fail(error))


def test_into_records_what_nobody_declared_as_a_defect():
    host = FakeHost()

    async def step() -> int:
        raise RuntimeError("wires crossed")

    with pytest.raises(RuntimeError):
        in_body(host, lambda: Charge.into(step()))
    with pytest.raises(Defect, match="wires crossed"):
        Charge.codec.decode(host.acts.mail[0].exit).unwrap()


@pytest.mark.parametrize(
    "ending",
    [asyncio.CancelledError(), Interrupted(), BaseExceptionGroup("all", [asyncio.CancelledError()])],
    ids=["cancelled", "a child was interrupted", "all were cancelled"],
)
def test_into_records_no_interruption(ending: BaseException):
    host = FakeHost()

    async def step() -> int:
        raise ending

    with pytest.raises(type(ending)):
        in_body(host, lambda: Charge.into(step()))
    assert host.acted == []


def test_into_leaves_cancellations_out_of_a_group():
    host = FakeHost()

    async def step() -> int:
        raise BaseExceptionGroup("both", [asyncio.CancelledError(), Rejected(reason="late")])

    with pytest.raises(BaseExceptionGroup):
        in_body(host, lambda: Charge.into(step()))
    assert Charge.codec.decode(host.acts.mail[0].exit) == Failure(Cause.fail(Rejected(reason="late")))


def test_into_gives_what_a_replay_would_give():
    host = FakeHost()

    async def step() -> Any:
        return "5"

    assert in_body(host, lambda: Charge.into(step())) == 5
    with pytest.raises(PayloadError, match=r'Deferred "charge": the value'):
        in_body(host, lambda: DurableDeferred.make("charge", success=int).into(later(object())))
    assert len(host.acts.mail) == 1


async def later(value: Any) -> Any:
    return value


def test_into_needs_a_body():
    step = later(5)
    with pytest.raises(OutsideExecutionError, match=r"into\(\)"):
        asyncio.run(Charge.into(step))
    step.close()


# Addresses (R19) -----------------------------------------------------------------------------------


def test_every_way_to_an_address_gives_the_same_one():
    expected = Approval.token_from_execution_id(
        workflow=process_order, execution_id=process_order.execution_id("order-123")
    )
    assert Approval.token_from_payload(workflow=process_order, payload="order-123") == expected
    assert Approval.token_for(process_order, "order-123") == expected
    assert Approval.token_for(process_order, order_id="order-123") == expected
    assert in_activity(FakeAttempt(), lambda: later(Approval.token())) == expected
    assert in_body(FakeHost(), lambda: later(Approval.token())) == expected
    parsed = TokenParsed.from_string(expected)
    assert (parsed.workflow_name, parsed.execution_id, parsed.deferred_name) == (
        "ProcessOrder",
        EXECUTION_ID,
        "approval",
    )


def test_several_parameters_have_an_address_too():
    parsed = TokenParsed.from_string(Approval.token_for(notify, "ada", subject="hi"))
    assert parsed.execution_id == notify.execution_id("ada", "hi")


def test_a_token_given_out_in_a_body_is_recorded():
    host = FakeHost()
    with opened(FakeEngine()):
        first = in_body(host, lambda: later(Approval.token()))
    assert [kind for kind, _ in host.journal] == [Kind.TOKEN]
    # The engine has keys by now, and another key later: the replay gives what was given out.
    replay = FakeHost()
    replay.journal = host.journal
    with opened(keyed()):
        assert in_body(replay, lambda: later(Approval.token())) == first


def test_a_signed_token_of_a_body_names_its_life_and_no_other_one_does():
    with opened(keyed()):
        own = KEYS.verify(in_body(FakeHost(), lambda: later(Approval.token())), NOW)
        other = in_body(FakeHost(), lambda: later(Approval.token_for(process_order, "order-5")))
        outside = KEYS.verify(Approval.token_for(process_order, "order-123"), NOW)
    assert own.incarnation == INCARNATION.hex()
    assert KEYS.verify(other, NOW).incarnation is None
    assert outside.incarnation is None
    assert outside.execution_id == EXECUTION_ID


def test_a_signed_token_may_expire():
    with opened(keyed()):
        token = in_body(FakeHost(), lambda: later(Approval.token(expires_in="1 hour")))
    assert KEYS.verify(token, NOW + 3_600_000 - 1).as_token == token
    with pytest.raises(TokenError):
        KEYS.verify(token, NOW + 3_600_000)


def test_an_unsigned_token_cannot_expire():
    with opened(FakeEngine()), pytest.raises(UsageError, match="token_secret"):
        in_body(FakeHost(), lambda: later(Approval.token(expires_in="1 hour")))


def test_the_workflow_says_whose_keys_sign_it():
    with opened(FakeEngine(), FakeEngine()):
        signed = Approval.token_for(process_order.options(engine=keyed()), "order-123")
        assert TokenParsed.from_string(signed).key_id == "default"
        # Several engines, and none of them signs: it does not matter which.
        assert TokenParsed.from_string(Approval.token_for(process_order, "order-123")).key_id is None
    with opened(FakeEngine(), keyed()), pytest.raises(UsageError, match="2 engines are open"):
        Approval.token_for(process_order, "order-123")


def test_outside_an_execution_there_is_no_own_address():
    with pytest.raises(OutsideExecutionError, match="token_for"):
        Approval.token()


def test_a_deferred_of_an_attempt_has_its_number():
    async def scoped() -> DurableDeferred[Decision, Rejected]:
        return Approval.with_activity_attempt()

    assert in_activity(FakeAttempt(), scoped).name == "approval/2"
    assert in_body(FakeHost(), scoped).name == "approval/1"
    assert in_body(FakeHost(), scoped).codec is Approval.codec
    with pytest.raises(OutsideExecutionError):
        asyncio.run(scoped())


# Completing from outside (R18) -----------------------------------------------------------------------


def done(engine: FakeEngine, completing: Any) -> Any:
    with opened(engine):
        return asyncio.run(completing())


def test_every_way_to_complete_it_sends_the_exit():
    engine = FakeEngine()
    assert done(engine, lambda: Approval.succeed(TOKEN, ADA)) is True
    done(engine, lambda: Approval.fail(TOKEN, Rejected(reason="late")))
    done(engine, lambda: Approval.fail_cause(TOKEN, Cause.die(RuntimeError("x"))))
    done(engine, lambda: Approval.fail_cause(TOKEN, Cause.interrupt()))
    done(engine, lambda: Approval.done(TOKEN, Success(ADA)))
    assert {mail[:3] for mail in engine.mail} == {(EXECUTION_ID, MailKind.DEFERRED, "approval")}
    value, failed, died, interrupted, again = [Approval.codec.decode(mail.exit) for mail in engine.mail]
    assert value == again == Success(ADA)
    assert failed == Failure(Cause.fail(Rejected(reason="late")))
    assert isinstance(died, Failure)
    assert str(died.cause) == "RuntimeError: x"
    assert interrupted == Failure(Cause.interrupt())


@pytest.mark.parametrize("receipt", [Receipt.IGNORED, Receipt.FINISHED])
def test_a_later_completion_changes_nothing_and_says_so(receipt: Receipt):
    engine = FakeEngine()
    engine.receipt = receipt
    assert done(engine, lambda: Approval.succeed(TOKEN, ADA)) is False


def test_an_execution_that_is_not_there_is_an_error():
    engine = FakeEngine()
    engine.receipt = Receipt.UNKNOWN
    with pytest.raises(ExecutionNotFoundError) as raised:
        done(engine, lambda: Approval.succeed(TOKEN, ADA))
    assert raised.value.execution_id == EXECUTION_ID


def test_a_token_of_an_earlier_life_is_refused():
    engine = keyed()
    engine.receipt = Receipt.OUTDATED
    token = KEYS.sign(
        workflow_name="ProcessOrder", execution_id=EXECUTION_ID, deferred_name="approval", incarnation=INCARNATION
    )
    with pytest.raises(TokenError) as raised:
        done(engine, lambda: Approval.succeed(token, ADA))
    assert raised.value.reason == "outdated"
    assert engine.mail[0].incarnation == INCARNATION


def test_what_the_deferred_cannot_take_is_refused_before_anything_is_written():
    engine = FakeEngine()
    with pytest.raises(PayloadError, match=r'Deferred "approval"'):
        done(engine, lambda: Approval.succeed(TOKEN, "ada"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(PayloadError, match="LookupError is not declared here"):
        done(engine, lambda: Approval.fail(TOKEN, LookupError()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(PayloadError, match="1,000"):
        done(engine, lambda: Approval.succeed(TOKEN, Decision(approved_by="a" * 1_000)))
    assert engine.mail == []


def test_a_token_that_this_engine_does_not_take_is_refused_before_anything_is_written():
    engine = keyed()
    signed = TokenKeys("another secret, long enough").sign(
        workflow_name="ProcessOrder", execution_id=EXECUTION_ID, deferred_name="approval"
    )
    for token in (TOKEN, signed, Token("x")):
        with pytest.raises(TokenError):
            done(engine, lambda token=token: Approval.succeed(token, ADA))
    # Nor does one without keys believe what it cannot check.
    with pytest.raises(TokenError, match="token_secret="):
        done(FakeEngine(), lambda: Approval.succeed(signed, ADA))
    assert engine.mail == []


def test_a_completion_uses_the_names_of_the_token_and_the_types_of_the_deferred():
    engine = FakeEngine()
    done(engine, lambda: Charge.succeed(TOKEN, 5))
    assert engine.mail == [Mail(EXECUTION_ID, MailKind.DEFERRED, "approval", b'{"success":5}')]


def test_an_engine_can_be_named():
    one, other = FakeEngine(), FakeEngine()
    with opened(one, other):
        asyncio.run(Approval.succeed(TOKEN, ADA, engine=other))
    assert (len(one.mail), len(other.mail)) == (0, 1)


def test_an_activity_completes_in_its_own_engine():
    engine, other = FakeEngine(), FakeEngine()
    with opened(engine, other):
        assert in_activity(FakeAttempt(engine), lambda: Approval.succeed(TOKEN, ADA))
    assert len(engine.mail) == 1


# Completing in a body (R42) --------------------------------------------------------------------------


def test_in_a_body_a_completion_is_a_recorded_step():
    host = FakeHost({"complete:approval": [Receipt.STORED]})
    with opened(FakeEngine()):
        assert in_body(host, lambda: Approval.succeed(TOKEN, ADA)) is True
    (call,) = host.asked
    assert (call.kind, call.name, call.occurrence) == (Kind.SENT, "complete:approval", 1)
    assert call.input_decides
    said = '{"success":{"approved_by":"ada"}}'
    assert json.loads(call.input) == [EXECUTION_ID, "approval", said]
    assert call.mail == Mail(EXECUTION_ID, MailKind.DEFERRED, "approval", said.encode())


def test_the_receipt_of_a_step_is_read_and_answered_as_from_outside():
    host = FakeHost({"complete:approval": [Receipt.IGNORED]})
    with opened(FakeEngine()):
        assert in_body(host, lambda: Approval.succeed(TOKEN, ADA)) is False
        (call,) = host.asked
        assert call.decode_success(b'{"success":"stored"}') is Receipt.STORED
        with pytest.raises(PayloadError, match="this release knows no receipt"):
            call.decode_success(b'{"success":"posted"}')
        with pytest.raises(ExecutionNotFoundError):
            in_body(FakeHost({"complete:approval": [Receipt.UNKNOWN]}), lambda: Approval.succeed(TOKEN, ADA))
        with pytest.raises(TokenError):
            in_body(FakeHost({"complete:approval": [Receipt.OUTDATED]}), lambda: Approval.succeed(TOKEN, ADA))


def test_a_completion_is_the_same_step_if_it_says_the_same():
    host = FakeHost({"complete:approval": [Receipt.STORED]})
    with opened(FakeEngine()):
        in_body(host, lambda: Approval.succeed(TOKEN, ADA))
    (call,) = host.asked

    def said(execution_id: str, exit: str) -> bytes:
        return json.dumps([execution_id, "approval", exit]).encode()

    assert call.same_input(said(EXECUTION_ID, '{"success":{ "approved_by" : "ada"}}'))
    assert not call.same_input(said(EXECUTION_ID, '{"success":{"approved_by":"bob"}}'))
    assert not call.same_input(said("0" * 32, '{"success":{"approved_by":"ada"}}'))
    assert not call.same_input(said(EXECUTION_ID, '{"success":5}'))


def test_what_was_found_out_about_a_token_is_recorded():
    host = FakeHost({"complete:approval": [Receipt.STORED]})
    with opened(keyed()):
        signed = Approval.token_for(process_order, "order-123")
        assert in_body(host, lambda: Approval.succeed(signed, ADA))
    # The key is gone when it is replayed.
    replay = FakeHost({"complete:approval": [Receipt.STORED]})
    replay.journal = host.journal
    other = FakeEngine()
    other.token_keys = TokenKeys("another secret, long enough")
    with opened(other):
        assert in_body(replay, lambda: Approval.succeed(signed, ADA))
        with pytest.raises(TokenError, match="not valid"):
            in_body(FakeHost(), lambda: Approval.succeed(signed, ADA))


def test_a_refusal_is_recorded_as_well():
    host = FakeHost()
    with opened(keyed()), pytest.raises(TokenError):
        in_body(host, lambda: Approval.succeed(TOKEN, ADA))
    replay = FakeHost()
    replay.journal = host.journal
    with opened(FakeEngine()), pytest.raises(TokenError):
        in_body(replay, lambda: Approval.succeed(TOKEN, ADA))
    assert replay.asked == []


def test_a_body_completes_in_its_own_engine_only():
    engine = FakeEngine()
    with opened(engine), pytest.raises(WorkflowIOError, match="engine="):
        in_body(FakeHost(), lambda: Approval.succeed(TOKEN, ADA, engine=engine))
