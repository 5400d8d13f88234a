"""Channels: messages that are sent from outside and from a body, and received in one (R48)."""

import asyncio
import json
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    DurableChannel,
    ExecutionFinishedError,
    ExecutionNotFoundError,
    OutsideExecutionError,
    PayloadError,
    WorkflowIOError,
)
from perdure._model.journal import Kind
from perdure._model.records import MailKind, Receipt, read_message_name

from tests.unit.definitions.fakes import (
    EXECUTION_ID,
    FakeAttempt,
    FakeEngine,
    FakeHost,
    in_activity,
    in_body,
    opened,
)

Amounts = DurableChannel.make("amounts", int)


def sent(engine: FakeEngine, value: Any = 5, **options: Any) -> None:
    with opened(engine):
        asyncio.run(Amounts.send(EXECUTION_ID, value, **options))


def test_a_name_and_a_type_are_checked_at_the_door():
    with pytest.raises(DefinitionError, match="The name of a channel is empty"):
        DurableChannel.make("", int)
    with pytest.raises(DefinitionError, match="cannot be stored"):
        DurableChannel.make("amounts", asyncio.Event)


def test_a_body_asks_for_the_next_message():
    host = FakeHost({"amounts": [5, 6]})

    async def body() -> list[int]:
        return [await Amounts.receive(), await Amounts.receive()]

    assert in_body(host, body) == [5, 6]
    first, second = host.asked
    assert (first.kind, first.name, first.occurrence, first.input) == (Kind.MESSAGE, "amounts", 1, b"")
    assert second.occurrence == 2
    assert not first.input_decides
    assert first.decode_success(b'{"success":5}') == 5
    with pytest.raises(PayloadError):
        first.decode_success(b'{"success":"five"}')


def test_only_a_body_receives():
    with pytest.raises(OutsideExecutionError):
        asyncio.run(Amounts.receive())
    with pytest.raises(OutsideExecutionError):
        in_activity(FakeAttempt(), Amounts.receive)


def test_each_message_has_an_id_of_its_own():
    engine = FakeEngine()
    sent(engine)
    sent(engine)
    sent(engine, id="m-1")
    assert {(mail.execution_id, mail.kind, mail.exit) for mail in engine.mail} == {
        (EXECUTION_ID, MailKind.MESSAGE, b'{"success":5}')
    }
    names = [read_message_name(mail.name) for mail in engine.mail]
    assert [channel for channel, _ in names] == ["amounts"] * 3
    assert len({message_id for _, message_id in names}) == 3
    assert names[2] == ("amounts", "m-1")


def test_the_id_can_be_given_by_place():
    engine = FakeEngine()
    with opened(engine):
        asyncio.run(Amounts.send(EXECUTION_ID, 5, "m-1"))
    assert read_message_name(engine.mail[0].name) == ("amounts", "m-1")


def test_a_message_that_was_sent_before_is_sent():
    engine = FakeEngine()
    engine.receipt = Receipt.IGNORED
    sent(engine, id="m-1")


def test_a_finished_execution_takes_no_messages():
    engine = FakeEngine()
    engine.receipt = Receipt.FINISHED
    with pytest.raises(ExecutionFinishedError) as raised:
        sent(engine)
    assert raised.value.execution_id == EXECUTION_ID
    engine.receipt = Receipt.UNKNOWN
    with pytest.raises(ExecutionNotFoundError):
        sent(engine)


@pytest.mark.parametrize(
    ("value", "options"),
    [("five", {}), (10**1_000, {}), (5, {"id": ""}), (5, {"id": "a\0"}), (5, {"id": "a" * 256}), (5, {"id": 7})],
    ids=["type", "size", "empty id", "NUL", "long id", "no text"],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(value: Any, options: dict[str, Any]):
    engine = FakeEngine()
    with pytest.raises(PayloadError, match=r'Channel "amounts"'):
        sent(engine, value, **options)
    assert engine.mail == []


def test_in_a_body_a_message_is_a_recorded_step_that_is_its_id():
    host = FakeHost({"send:amounts": [Receipt.STORED] * 3})

    async def body() -> None:
        await Amounts.send(EXECUTION_ID, 5)
        await Amounts.send(EXECUTION_ID, 5)
        await Amounts.send(EXECUTION_ID, 5, id="m-1")

    in_body(host, body)
    first, second, named = host.asked
    assert (first.kind, first.name, first.occurrence) == (Kind.SENT, "send:amounts", 1)
    assert json.loads(first.input) == [EXECUTION_ID, None, '{"success":5}']
    # Equal calls ask the same; each is a message of its own all the same, and the same one in every run of the turn.
    assert first.input == second.input
    assert json.loads(named.input)[1] == "m-1"
    ids = [read_message_name(call.mail.name)[1] for call in host.asked if call.mail]
    assert len(set(ids)) == 3
    assert ids[2] == "m-1"
    again = FakeHost({"send:amounts": [Receipt.STORED] * 3})
    in_body(again, body)
    assert [call.mail for call in again.asked] == [call.mail for call in host.asked]


def test_another_life_sends_other_messages():
    hosts = [FakeHost({"send:amounts": [Receipt.STORED]}), FakeHost({"send:amounts": [Receipt.STORED]})]
    hosts[1].life = 2
    for host in hosts:
        in_body(host, lambda: Amounts.send(EXECUTION_ID, 5))
    assert hosts[0].asked[0].mail != hosts[1].asked[0].mail


def test_in_a_body_the_answer_is_as_from_outside():
    with pytest.raises(ExecutionFinishedError):
        in_body(FakeHost({"send:amounts": [Receipt.FINISHED]}), lambda: Amounts.send(EXECUTION_ID, 5))
    with pytest.raises(ExecutionNotFoundError):
        in_body(FakeHost({"send:amounts": [Receipt.UNKNOWN]}), lambda: Amounts.send(EXECUTION_ID, 5))
    engine = FakeEngine()
    with opened(engine), pytest.raises(WorkflowIOError):
        in_body(FakeHost(), lambda: Amounts.send(EXECUTION_ID, 5, engine=engine))
