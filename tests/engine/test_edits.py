"""Edits of a body while executions are in flight: each test is a row of docs/guides/changing-code.md.

The fixture `flight` begins an execution with the old body, lets it wait, and goes on with the new one. It compares what
became of the execution with the row whose words are the test's name; tests/docs has a row for each test and back.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import closing
from typing import Any, Literal

import apsw
import pytest
from pydantic import BaseModel

from perdure import (
    Defect,
    DurableChannel,
    DurableDeferred,
    Failure,
    PayloadMismatchError,
    Schedule,
    SchemaVersionError,
    TypedError,
    activity,
    current_attempt,
    current_engine,
    idempotency_key,
    patched,
    publish,
    race_all,
    set_attributes,
    sleep,
    sleep_until,
    with_compensation,
    workflow,
)
from perdure._values.instant import to_datetime
from perdure.testing.clock import SOME_DAY

from tests.engine import journals
from tests.engine.edits import DONE, Act, Flight, Row, rows
from tests.engine.lab import Lab

HOUR_MS = 3_600_000


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The guide's row for this test."""
    name = request.function.__name__
    found = next((row for row in rows() if row.test == name), None)
    assert found is not None, f"the guide has no row for {name}"
    return found


@pytest.fixture
def flight(corner_lab: Lab, row: Row) -> Flight:
    """An execution that crosses the edit of that row."""
    return Flight(corner_lab, row)


release = workflow(name="Order", idempotency_key=lambda order: order)


@activity
async def check(order: str) -> str:
    DONE.append(f"check {order}")
    return "checked"


@activity
async def charge(order: str) -> str:
    DONE.append(f"charge {order}")
    return f"paid {order}"


@activity
async def pack(order: str) -> str:
    DONE.append(f"pack {order}")
    return f"packed {order}"


@activity
async def ship(order: str) -> str:
    DONE.append(f"ship {order}")
    return f"shipped {order}"


async def window() -> None:
    """The wait in which the execution is when the code changes."""
    await sleep("1 hour", name="window")


async def body_of_first_release(order: str) -> str:
    paid = await charge(order)
    packed = await pack(order)
    await window()
    return f"{paid}, {packed}, {await ship(order)}"


first_release = release(body_of_first_release)


# Steps come, go and move -------------------------------------------------------------------------------


def test_a_step_is_inserted_in_front_of_recorded_ones(flight: Flight) -> None:
    """R8: a call that only the code has is new."""

    @release
    async def new(order: str) -> str:
        checked = await check(order)
        paid = await charge(order)
        packed = await pack(order)
        await window()
        return f"{checked}, {paid}, {packed}, {await ship(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "checked, paid o1, packed o1, shipped o1"
    assert outcome.done == ["check o1", "ship o1"]
    assert outcome.took_ms == HOUR_MS


def test_a_step_is_inserted_behind_the_wait(flight: Flight) -> None:
    """R8."""

    @release
    async def new(order: str) -> str:
        await charge(order)
        await pack(order)
        await window()
        return f"{await check(order)}, {await ship(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "checked, shipped o1"
    assert outcome.done == ["check o1", "ship o1"]


def test_a_step_that_is_recorded_is_removed(flight: Flight, log: pytest.LogCaptureFixture) -> None:
    """R8: the record is noted in the log."""

    @release
    async def new(order: str) -> str:
        paid = await charge(order)
        await window()
        return f"{paid}, {await ship(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1, shipped o1"
    assert outcome.done == ["ship o1"]
    assert "recorded, but no longer asked for: activity 'pack'" in log.text


def test_a_step_that_is_still_to_come_is_removed(flight: Flight) -> None:
    """R8."""

    @release
    async def new(order: str) -> str:
        paid = await charge(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1"
    assert outcome.done == []


def test_recorded_steps_are_reordered(flight: Flight) -> None:
    """R8: the place of a step does not matter."""

    @release
    async def new(order: str) -> str:
        packed = await pack(order)
        paid = await charge(order)
        await window()
        return f"{packed}, {paid}, {await ship(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "packed o1, paid o1, shipped o1"
    assert outcome.done == ["ship o1"]


def test_a_recorded_step_is_moved_behind_the_wait(flight: Flight) -> None:
    """R8: its result is kept until it is asked for."""

    @release
    async def new(order: str) -> str:
        packed = await pack(order)
        await window()
        return f"{packed}, {await ship(order)}, {await charge(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "packed o1, shipped o1, paid o1"
    assert outcome.done == ["ship o1"]


def test_a_step_is_moved_from_behind_the_wait_to_the_front(flight: Flight) -> None:
    """R8: there it is new."""

    @release
    async def new(order: str) -> str:
        shipped = await ship(order)
        paid = await charge(order)
        packed = await pack(order)
        await window()
        return f"{shipped}, {paid}, {packed}"

    outcome = flight(first_release, new)
    assert outcome.result == "shipped o1, paid o1, packed o1"
    assert outcome.done == ["ship o1"]
    assert outcome.took_ms == HOUR_MS


def test_steps_in_sequence_become_concurrent(flight: Flight) -> None:
    """R8: also with one that comes from behind the wait."""

    @release
    async def new(order: str) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step(order)) for step in (ship, pack, charge)]
        await window()
        return ", ".join(task.result() for task in tasks)

    outcome = flight(first_release, new)
    assert outcome.result == "shipped o1, packed o1, paid o1"
    assert outcome.done == ["ship o1"]


def test_concurrent_steps_become_a_sequence(flight: Flight) -> None:
    """R8."""

    @release
    async def old(order: str) -> str:
        await asyncio.gather(*(charge(f"{order}/{part}") for part in range(3)))
        await window()
        return ""

    @release
    async def new(order: str) -> str:
        paid = [await charge(f"{order}/{part}") for part in (0, 1, 2)]
        await window()
        return ", ".join(paid)

    outcome = flight(old, new)
    assert outcome.result == "paid o1/0, paid o1/1, paid o1/2"
    assert outcome.done == []


def test_one_more_call_that_asks_the_same_is_inserted(flight: Flight) -> None:
    """R8: the first call takes the record, the second is new."""

    @release
    async def new(order: str) -> str:
        both = [await charge(order), await charge(order)]
        await pack(order)
        await window()
        return ", ".join(both)

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1, paid o1"
    assert outcome.done == ["charge o1"]


def test_a_call_of_the_same_activity_with_another_input_is_inserted_behind_the_recorded_one(flight: Flight) -> None:
    """R8: nothing of that name is left untaken."""

    @release
    async def new(order: str) -> str:
        both = [await charge(order), await charge("tip")]
        await pack(order)
        await window()
        return ", ".join(both)

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1, paid tip"
    assert outcome.done == ["charge tip"]


def test_a_call_of_the_same_activity_with_another_input_is_inserted_in_front_of_the_recorded_one(
    flight: Flight,
) -> None:
    """R8: it cannot be told from a changed input."""

    @release
    async def new(order: str) -> str:
        both = [await charge("tip"), await charge(order)]
        await window()
        return ", ".join(both)

    @release
    async def mended(order: str) -> str:
        both = await asyncio.gather(charge("tip"), charge(order))
        await window()
        return ", ".join(both)

    outcome = flight(first_release, new, mended)
    assert 'order: "o1" → "tip"' in outcome.said
    assert outcome.result == "paid tip, paid o1", "asked for together, each finds its own"
    assert outcome.done == ["charge tip"]


def test_a_recorded_step_is_removed_and_its_activity_is_called_later_with_another_input(flight: Flight) -> None:
    """R8: it is held when it comes there, before the later call is made."""

    @release
    async def old(order: str) -> str:
        await charge(order)
        await window()
        return await charge("tip")

    @release
    async def new(order: str) -> str:
        await window()
        return await charge("tip")

    outcome = flight(old, new, old)
    assert 'order: "o1" → "tip"' in outcome.said
    assert outcome.result == "paid tip"
    assert outcome.done == ["charge tip"]


def test_an_activity_becomes_a_plain_function(flight: Flight) -> None:
    """R8: how it is done is not what is asked."""

    @activity(name="pack")
    def pack_in_a_thread(order: str) -> str:
        raise AssertionError

    @activity(name="ship")
    def ship_in_a_thread(order: str) -> str:
        DONE.append(f"ship {order}")
        return f"shipped {order}"

    @release
    async def new(order: str) -> str:
        await charge(order)
        packed = await pack_in_a_thread(order)
        await window()
        return f"{packed}, {await ship_in_a_thread(order)}"

    outcome = flight(first_release, new)
    assert outcome.result == "packed o1, shipped o1"
    assert outcome.done == ["ship o1"]


def test_a_start_of_another_execution_is_inserted(flight: Flight) -> None:
    """R42: it is started once, also where the place is passed in a replay."""

    @workflow(name="Newsletter", idempotency_key=lambda order: order)
    async def newsletter(order: str) -> None:
        await check(order)

    @release
    async def new(order: str) -> str:
        await newsletter.start(order)
        await charge(order)
        await pack(order)
        await window()
        return await ship(order)

    outcome = flight(first_release, new, beside=[newsletter])
    assert outcome.result == "shipped o1"
    assert sorted(outcome.done) == ["check o1", "ship o1"]


# Names -------------------------------------------------------------------------------------------------


def test_an_activity_is_renamed_with_formerly(flight: Flight) -> None:
    """R8: the records of the old name are its own."""

    @activity(formerly=("charge",))
    async def charge_card(order: str) -> str:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        paid = await charge_card(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1"
    assert outcome.done == []


def test_an_activity_is_renamed_without_formerly(flight: Flight, log: pytest.LogCaptureFixture) -> None:
    """R8: a step removed and another one inserted."""

    @activity
    async def charge_card(order: str) -> str:
        DONE.append(f"charge {order} again")
        return "paid twice"

    @release
    async def new(order: str) -> str:
        paid = await charge_card(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new)
    assert outcome.result == "paid twice"
    assert outcome.done == ["charge o1 again"]
    assert "recorded, but no longer asked for: activity 'charge'" in log.text


def test_an_activity_that_the_release_cuts_off_is_renamed_with_formerly(flight: Flight) -> None:
    """R9, R14: nothing of it is recorded, and the name is in the key."""

    @activity(name="refund")
    async def refund(order: str) -> str:
        DONE.append(idempotency_key())
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    @activity(name="pay_back", formerly=("refund",))
    async def pay_back(order: str) -> str:
        DONE.append(idempotency_key())
        return "paid back"

    @release
    async def old(order: str) -> str:
        return await refund(order)

    @release
    async def new(order: str) -> str:
        return await pay_back(order)

    outcome = flight(old, new)
    assert outcome.result == "paid back"
    (before,) = outcome.done_before
    (after,) = outcome.done
    assert before != after


def test_the_function_of_the_workflow_is_renamed(flight: Flight) -> None:
    """R1: `name=` is what counts."""

    @release
    async def another_function(order: str) -> str:
        paid = await charge(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, another_function)
    assert outcome.result == "paid o1"
    assert outcome.done == []


def test_the_workflow_gets_another_name(flight: Flight) -> None:
    """R1, R3: it waits for somebody who has the old one."""

    @workflow(name="Purchase", idempotency_key=lambda order: order)
    async def new(order: str) -> str:
        raise AssertionError

    outcome = flight(first_release, new)
    assert outcome.done == []
    assert new.execution_id("o1") != flight.execution_id, "a start under the new name begins another one"


def test_the_idempotency_key_is_made_otherwise(flight: Flight) -> None:
    """R1: an execution keeps the id that it was given."""
    new = workflow(name="Order", idempotency_key=lambda order: f"order-{order}")(body_of_first_release)

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1, packed o1, shipped o1"
    assert outcome.done == ["ship o1"]
    assert new.execution_id("o1") != flight.execution_id, "a start with the same payload joins no more"


# Inputs ------------------------------------------------------------------------------------------------


def test_a_recorded_step_gets_another_input(flight: Flight) -> None:
    """R8: step, entry, difference, file and line."""

    @release
    async def new(order: str) -> str:
        paid = await charge(f"{order}/2026")
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new, first_release)
    for part in (
        'recorded: activity \'charge\', occurrence 1 (entry 1), input {"order":"o1"}',
        'asked:    activity \'charge\', occurrence 1, input {"order":"o1/2026"}',
        'differs:  order: "o1" → "o1/2026"',
        f"at {__file__}:",
        "Nothing was given out.",
    ):
        assert part in outcome.said
    assert outcome.result == "paid o1, packed o1, shipped o1"
    assert outcome.done == ["ship o1"]


def test_a_step_that_is_still_to_come_gets_another_input(flight: Flight) -> None:
    """R8."""

    @release
    async def new(order: str) -> str:
        await charge(order)
        await pack(order)
        await window()
        return await ship(f"{order}/express")

    outcome = flight(first_release, new)
    assert outcome.result == "shipped o1/express"
    assert outcome.done == ["ship o1/express"]


def test_an_activity_gets_a_parameter_with_a_default(flight: Flight) -> None:
    """R2, R8: read with today's parameters, the recorded input is the same."""

    @activity(name="charge")
    async def charge_in(order: str, currency: str = "EUR") -> str:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        paid = await charge_in(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new)
    assert outcome.result == "paid o1"
    assert outcome.done == []


def test_an_activity_gets_a_parameter_without_a_default(flight: Flight) -> None:
    """R8."""

    @activity(name="charge")
    async def charge_in(order: str, currency: str) -> str:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        return await charge_in(order, "EUR")

    outcome = flight(first_release, new, first_release)
    assert 'currency: new, "EUR"' in outcome.said
    assert outcome.result == "paid o1, packed o1, shipped o1"


@activity(name="charge")
async def charge_in_euros(order: str, currency: str = "EUR") -> str:
    DONE.append(f"charge {order} {currency}")
    return f"paid {order} {currency}"


@release
async def release_in_euros(order: str) -> str:
    paid = await charge_in_euros(order)
    await window()
    return paid


def test_a_parameter_of_an_activity_gets_another_default(flight: Flight) -> None:
    """R8: what is recorded is the whole input, defaults filled in."""

    @activity(name="charge")
    async def charge_in_dollars(order: str, currency: str = "USD") -> str:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        return await charge_in_dollars(order)

    outcome = flight(release_in_euros, new, release_in_euros)
    assert 'currency: "EUR" → "USD"' in outcome.said
    assert outcome.result == "paid o1 EUR"


def test_a_parameter_of_an_activity_is_renamed(flight: Flight) -> None:
    """R8: parameters are recorded by name."""

    @activity(name="charge")
    async def charge_by_id(order_id: str) -> str:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        return await charge_by_id(order)

    outcome = flight(first_release, new, first_release)
    assert 'order: gone, was "o1"' in outcome.said
    assert 'order_id: new, "o1"' in outcome.said
    assert outcome.result == "paid o1, packed o1, shipped o1"


def test_a_parameter_of_an_activity_is_removed(flight: Flight) -> None:
    """R8."""

    @release
    async def new(order: str) -> str:
        return await charge(order)

    outcome = flight(release_in_euros, new, release_in_euros)
    assert 'currency: gone, was "EUR"' in outcome.said
    assert outcome.result == "paid o1 EUR"


def test_a_type_in_an_input_changes_and_the_record_means_the_same(flight: Flight) -> None:
    """R2, R8."""

    class Item(BaseModel):
        sku: str

    class ItemWithColour(BaseModel):
        sku: str
        colour: str = "grey"

    @activity(name="reserve")
    async def reserve(item: Item) -> str:
        return f"reserved {item.sku}"

    @activity(name="reserve")
    async def reserve_coloured(item: ItemWithColour) -> str:
        raise AssertionError

    @release
    async def old(order: str) -> str:
        await reserve(Item(sku="lamp"))
        await window()
        return ""

    @release
    async def new(order: str) -> str:
        reserved = await reserve_coloured(ItemWithColour(sku="lamp"))
        await window()
        return reserved

    assert flight(old, new).result == "reserved lamp"


def test_the_function_of_an_activity_does_something_else(flight: Flight) -> None:
    """R7, R14: what is recorded stays; what the release cut off is made again, with the same key."""

    @activity(name="slow")
    async def slow(order: str) -> str:
        DONE.append(idempotency_key())
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    @activity(name="slow")
    async def fast(order: str) -> str:
        DONE.append(idempotency_key())
        return "fast"

    @activity(name="charge")
    async def charge_otherwise(order: str) -> str:
        raise AssertionError

    @release
    async def old(order: str) -> str:
        return f"{await charge(order)}, {await slow(order)}"

    @release
    async def new(order: str) -> str:
        return f"{await charge_otherwise(order)}, {await fast(order)}"

    outcome = flight(old, new)
    assert outcome.result == "paid o1, fast"
    assert outcome.done_before == ["charge o1", *outcome.done]


# Results and payloads ----------------------------------------------------------------------------------


class Receipt(BaseModel):
    number: int
    paid: str


@activity(name="pay")
async def pay(order: str) -> Receipt:
    DONE.append(f"pay {order}")
    return Receipt(number=7, paid=order)


@release
async def release_with_receipt(order: str) -> str:
    receipt = await pay(order)
    await window()
    return f"{receipt.number}"


def test_a_result_gets_a_field_with_a_default(flight: Flight) -> None:
    """R40: the record is read with today's type."""

    class NewReceipt(Receipt):
        currency: str = "EUR"

    @activity(name="pay")
    async def pay_now(order: str) -> NewReceipt:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        receipt = await pay_now(order)
        await window()
        return f"{receipt.number} {receipt.currency}"

    assert flight(release_with_receipt, new).result == "7 EUR"


def test_a_result_loses_a_field(flight: Flight) -> None:
    """R40: a model ignores what it does not know."""

    class NewReceipt(BaseModel):
        number: int

    @activity(name="pay")
    async def pay_now(order: str) -> NewReceipt:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        receipt = await pay_now(order)
        await window()
        return f"number {receipt.number}"

    assert flight(release_with_receipt, new).result == "number 7"


def test_a_result_gets_a_type_that_cannot_read_the_record(flight: Flight) -> None:
    """R40: held with the field and the step; a type that can read it, and it goes on."""

    class NewReceipt(BaseModel):
        number: int
        currency: str

    @activity(name="pay")
    async def pay_now(order: str) -> NewReceipt:
        raise AssertionError

    @activity(name="pay")
    async def pay_mended(order: str) -> NewReceipt | Receipt:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        receipt = await pay_now(order)
        await window()
        return receipt.currency

    @release
    async def mended(order: str) -> str:
        receipt = await pay_mended(order)
        await window()
        return receipt.currency if isinstance(receipt, NewReceipt) else "unknown"

    outcome = flight(release_with_receipt, new, mended)
    assert "currency" in outcome.said
    assert outcome.result == "unknown"
    assert outcome.done == []


def test_the_result_of_the_workflow_gets_another_type(flight: Flight) -> None:
    """R10: it is written when the execution ends."""

    @release
    async def new(order: str) -> list[str]:
        paid = await charge(order)
        packed = await pack(order)
        await window()
        return [paid, packed]

    assert flight(first_release, new).result == ["paid o1", "packed o1"]


def test_the_payload_gets_a_parameter_with_a_default(flight: Flight) -> None:
    """R40."""

    @workflow(name="Order", idempotency_key=lambda order, to: order)
    async def new(order: str, to: str = "Rome") -> str:
        await charge(order)
        await pack(order)
        await window()
        return f"{order} to {to}"

    assert flight(first_release, new).result == "o1 to Rome"


def test_the_payload_gets_a_parameter_without_a_default(flight: Flight) -> None:
    """R40: held before the body runs."""

    @workflow(name="Order", idempotency_key=lambda order, to: order)
    async def new(order: str, to: str) -> str:
        raise AssertionError

    outcome = flight(first_release, new, first_release)
    assert "to" in outcome.said
    assert outcome.result == "paid o1, packed o1, shipped o1"


def test_the_payload_loses_a_parameter(flight: Flight) -> None:
    """R40: several parameters take no unknown names."""

    @workflow(name="Order", idempotency_key=lambda order, to: order)
    async def old(order: str, to: str) -> str:
        await window()
        return f"{order} to {to}"

    @release
    async def new(order: str) -> str:
        raise AssertionError

    outcome = flight(old, new, old, payload=("o1", "Rome"))
    assert "to" in outcome.said
    assert outcome.result == "o1 to Rome"


class Basket(BaseModel):
    order: str
    note: str = ""


def test_a_model_as_payload_loses_a_field(flight: Flight) -> None:
    """R40: a model ignores what it does not know."""

    class NewBasket(BaseModel):
        order: str

    @workflow(name="Order", idempotency_key=lambda basket: basket.order)
    async def old(basket: Basket) -> str:
        await window()
        return basket.note

    @workflow(name="Order", idempotency_key=lambda basket: basket.order)
    async def new(basket: NewBasket) -> str:
        await window()
        return basket.order

    assert flight(old, new, payload=(Basket(order="o1", note="blue"),)).result == "o1"


def test_the_payload_gets_another_type(flight: Flight) -> None:
    """R40: unless today's type reads what is recorded."""

    @workflow(name="Order", idempotency_key=str)
    async def new(order: int) -> str:
        raise AssertionError

    @workflow(name="Order", idempotency_key=str)
    async def mended(order: int | str) -> str:
        await window()
        return f"{order!r}"

    outcome = flight(first_release, new, mended)
    assert "order" in outcome.said
    assert outcome.result == "'o1'"


# Errors ------------------------------------------------------------------------------------------------


class Declined(TypedError):
    reason: str


@activity(name="debit", error=Declined)
async def debit(order: str) -> None:
    raise Declined(reason="stolen")


@release
async def release_with_error(order: str) -> str:
    try:
        await debit(order)
    except Declined as declined:
        await window()
        return declined.reason
    raise AssertionError


def test_an_error_gets_a_field_with_a_default(flight: Flight) -> None:
    """R40."""
    error = type("Declined", (TypedError,), {"__annotations__": {"reason": str, "code": int}, "code": 7})

    @activity(name="debit", error=error)
    async def debit_now(order: str) -> None:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        try:
            await debit_now(order)
        except error as declined:
            await window()
            return f"{declined.reason} {declined.code}"
        raise AssertionError

    assert flight(release_with_error, new).result == "stolen 7"


def test_an_error_loses_a_field(flight: Flight) -> None:
    """R40: a TypedError takes no unknown fields."""
    error = type("Declined", (TypedError,), {"__annotations__": {}})

    @activity(name="debit", error=error)
    async def debit_now(order: str) -> None:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        await debit_now(order)
        raise AssertionError

    outcome = flight(release_with_error, new, release_with_error)
    assert "reason" in outcome.said
    assert outcome.result == "stolen"


def test_the_class_of_an_error_is_renamed(flight: Flight) -> None:
    """R10, R40: errors are recorded by the name of their class; the old one may stay declared beside the new one."""

    class Refused(TypedError):
        reason: str

    @activity(name="debit", error=Refused)
    async def debit_now(order: str) -> None:
        raise AssertionError

    @activity(name="debit", error=(Refused, Declined))
    async def debit_mended(order: str) -> None:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        await debit_now(order)
        raise AssertionError

    @release
    async def mended(order: str) -> str:
        try:
            await debit_mended(order)
        except (Refused, Declined) as error:
            await window()
            return f"{type(error).__name__} {error.reason}"
        raise AssertionError

    outcome = flight(release_with_error, new, mended)
    assert "the recorded error 'Declined' is not declared (any more); declared: Refused" in outcome.said
    assert outcome.result == "Declined stolen"


def test_an_error_is_declared_no_more(flight: Flight) -> None:
    """R40."""

    @activity(name="debit")
    async def debit_now(order: str) -> None:
        raise AssertionError

    @release
    async def new(order: str) -> str:
        await debit_now(order)
        raise AssertionError

    outcome = flight(release_with_error, new, release_with_error)
    assert "the recorded error 'Declined' is not declared (any more); declared: none" in outcome.said
    assert outcome.result == "stolen"


def test_an_error_is_declared_that_was_recorded_as_a_defect(flight: Flight) -> None:
    """R7: what is recorded stays what it was."""

    class Late(Exception):
        pass

    @activity(name="track")
    async def track(order: str) -> None:
        raise Late("a day")

    @activity(name="track", error=Late)
    async def track_now(order: str) -> None:
        raise AssertionError

    async def body(tracking: Awaitable[None]) -> str:
        try:
            await tracking
        except (Late, Defect) as error:
            await window()
            return type(error).__name__
        raise AssertionError

    @release
    async def old(order: str) -> str:
        return await body(track(order))

    @release
    async def new(order: str) -> str:
        return await body(track_now(order))

    assert flight(old, new).result == "Defect"


# Attempts ----------------------------------------------------------------------------------------------


def calling(policy: dict[str, Any], fails: int) -> Any:
    """A release whose one activity fails so many times, under a policy."""

    @activity(name="call", **policy)
    async def call(order: str) -> int:
        DONE.append(f"attempt {current_attempt()}")
        if current_attempt() <= fails:
            raise RuntimeError("busy")
        return current_attempt()

    @release
    async def body(order: str) -> int:
        return await call(order)

    return body


def test_a_retry_policy_waits_otherwise(flight: Flight) -> None:
    """R11: the attempt that is due stays due when it was; from the next failure on the new policy counts."""
    old = calling({"retry": Schedule.spaced("1 hour").times(3)}, fails=2)
    new = calling({"retry": Schedule.spaced("10 minutes").times(3)}, fails=2)
    outcome = flight(old, new)
    assert outcome.result == 3
    assert (outcome.done_before, outcome.done) == (["attempt 1"], ["attempt 2", "attempt 3"])
    assert outcome.took_ms == HOUR_MS + 600_000


def test_a_retry_policy_is_removed(flight: Flight) -> None:
    """R11: the attempt that is due is made, and is the last."""
    outcome = flight(calling({"retry": Schedule.spaced("1 hour").times(3)}, fails=2), calling({}, fails=2))
    assert isinstance(outcome.exit, Failure)
    assert str(outcome.exit.cause) == "RuntimeError: busy"
    assert outcome.done == ["attempt 2"]
    assert outcome.took_ms == HOUR_MS


def test_a_retry_policy_is_added_to_an_activity_that_has_failed_for_good(flight: Flight) -> None:
    """R11: each recorded failure says whether it was final."""

    @activity(name="pack", retry=Schedule.spaced("1 second").times(9))
    async def pack_patiently(order: str) -> str:
        raise AssertionError

    @activity(name="pack")
    async def pack_badly(order: str) -> str:
        raise RuntimeError("no box")

    @release
    async def old(order: str) -> str:
        await asyncio.gather(pack_badly(order), return_exceptions=True)
        await window()
        return ""

    @release
    async def new(order: str) -> str:
        (packed,) = await asyncio.gather(pack_patiently(order), return_exceptions=True)
        await window()
        return f"{packed}"

    assert "no box" in flight(old, new).result


def test_the_timeout_of_an_activity_changes(flight: Flight) -> None:
    """R12: for attempts that begin from now on."""

    def hanging(timeout: str) -> Any:
        @activity(name="hang", timeout=timeout, retry=Schedule.spaced("1 hour").times(1))
        async def hang(order: str) -> None:
            await asyncio.get_running_loop().create_future()

        @release
        async def body(order: str) -> None:
            await hang(order)

        return body

    outcome = flight(hanging("5 seconds"), hanging("30 seconds"))
    assert outcome.exit is not None
    assert "ActivityTimeout" in repr(outcome.exit)
    assert outcome.took_ms == 5_000 + HOUR_MS + 30_000


# Durations ---------------------------------------------------------------------------------------------


def sleeping(*waits: tuple[str, str | None]) -> Any:
    """A release that does nothing but wait, a wait per duration and name."""

    @release
    async def body(order: str) -> str:
        for duration, name in waits:
            await sleep(duration, name=name)
        return "slept"

    return body


def test_a_named_wait_of_more_than_a_minute_gets_another_duration(flight: Flight) -> None:
    """R16: its due time is recorded and never changes."""
    outcome = flight(sleeping(("1 hour", "window")), sleeping(("3 hours", "window")))
    assert (outcome.result, outcome.took_ms) == ("slept", HOUR_MS)


def test_a_named_wait_of_up_to_a_minute_gets_another_duration(flight: Flight) -> None:
    """R16: its due time follows from when it began."""
    outcome = flight(sleeping(("40 seconds", "window")), sleeping(("50 seconds", "window")))
    assert (outcome.result, outcome.took_ms) == ("slept", 50_000)


def test_a_named_wait_of_more_than_a_minute_becomes_a_short_one(flight: Flight) -> None:
    """R16: it has been suspended until then."""
    outcome = flight(sleeping(("1 hour", "window")), sleeping(("20 seconds", "window")))
    assert (outcome.result, outcome.took_ms) == ("slept", HOUR_MS)


def test_an_unnamed_wait_gets_another_duration(flight: Flight) -> None:
    """R8: its duration is its name, so it is another wait, which began when the old one did."""
    outcome = flight(sleeping(("1 hour", None)), sleeping(("3 hours", None)))
    assert (outcome.result, outcome.took_ms) == ("slept", 3 * HOUR_MS)


def test_an_unnamed_wait_gets_a_duration_that_has_passed_already(flight: Flight) -> None:
    """R8, R16."""
    outcome = flight(sleeping(("1 hour", None)), sleeping(("5 seconds", None)), after="10 minutes")
    assert (outcome.result, outcome.took_ms) == ("slept", HOUR_MS)


def test_a_named_wait_that_has_ended_gets_a_longer_duration(flight: Flight) -> None:
    """R8: the name decides, and its record is there."""
    old = sleeping(("10 minutes", "first"), ("1 hour", "second"))
    new = sleeping(("5 hours", "first"), ("1 hour", "second"))
    outcome = flight(old, new, after="20 minutes")
    assert (outcome.result, outcome.took_ms) == ("slept", HOUR_MS + 600_000)


def test_an_unnamed_wait_that_has_ended_gets_a_longer_duration(flight: Flight) -> None:
    """R8: it is waited for to the end of its new length, what is recorded behind it is kept meanwhile."""

    @release
    async def old(order: str) -> str:
        await sleep("10 minutes")
        paid = await charge(order)
        await window()
        return paid

    @release
    async def new(order: str) -> str:
        await sleep("5 hours")
        paid = await charge(order)
        await window()
        return paid

    outcome = flight(old, new, after="20 minutes")
    assert outcome.result == "paid o1"
    assert outcome.done == [], "it is not done again"
    assert outcome.took_ms == 5 * HOUR_MS


def test_a_wait_is_renamed(flight: Flight) -> None:
    """R8, R16: another wait, which began when the old one did: with the same length nothing is waited for twice."""
    outcome = flight(sleeping(("1 hour", "window")), sleeping(("1 hour", "cancellation")))
    assert (outcome.result, outcome.took_ms) == ("slept", HOUR_MS)


def test_the_wait_in_which_it_is_is_removed(flight: Flight) -> None:
    """R16: it is woken when the wait would have ended."""

    @release
    async def new(order: str) -> str:
        await charge(order)
        await pack(order)
        return await ship(order)

    outcome = flight(first_release, new)
    assert outcome.result == "shipped o1"
    assert outcome.took_ms == HOUR_MS


def test_a_wait_is_inserted_in_front_of_recorded_steps(flight: Flight) -> None:
    """R8: it counts from the place where it stands, so its time may have passed already."""

    @release
    async def new(order: str) -> str:
        await sleep("30 minutes")
        paid = await charge(order)
        await pack(order)
        await window()
        return paid

    outcome = flight(first_release, new)
    assert (outcome.result, outcome.took_ms) == ("paid o1", HOUR_MS)


def test_an_asyncio_timeout_gets_another_duration(flight: Flight) -> None:
    """R8, R16: like an unnamed wait."""

    def timing_out(seconds: float) -> Any:
        @release
        async def body(order: str) -> str:
            try:
                async with asyncio.timeout(seconds):
                    await sleep("1 day", name="day")
            except TimeoutError:
                return "timed out"
            return "slept"

        return body

    outcome = flight(timing_out(3_600), timing_out(7_200))
    assert (outcome.result, outcome.took_ms) == ("timed out", 2 * HOUR_MS)


def test_an_unnamed_sleep_until_gets_another_instant(flight: Flight) -> None:
    """R8, R16: its instant is its name."""

    def until(hours: int) -> Any:
        @release
        async def body(order: str) -> str:
            await sleep_until(to_datetime(SOME_DAY + hours * HOUR_MS))
            return "slept"

        return body

    outcome = flight(until(1), until(2))
    assert (outcome.result, outcome.took_ms) == ("slept", 2 * HOUR_MS)


async def wait_for_of_3_12(awaitable: Any, seconds: float) -> Any:
    """What it does from Python 3.12 on: `asyncio.timeout`, whose timer is `call_at`."""
    async with asyncio.timeout(seconds):
        return await awaitable


def giving_up(wait_for: Any, seconds: float, then: str = "") -> Any:
    """A release that gives an activity so long, then may try another order, and waits."""

    @activity(name="slow")
    async def slow(order: str) -> str:
        DONE.append(f"slow {order}")
        if order == "o1":
            await asyncio.get_running_loop().create_future()
        return f"did {order}"

    @release
    async def body(order: str) -> str:
        try:
            return await wait_for(slow(order), seconds)
        except TimeoutError:
            did = await slow(then) if then else "gave up"
        await window()
        return did

    return body


def test_an_asyncio_timeout_that_has_fired_gets_a_longer_duration(flight: Flight) -> None:
    """R8: in the new code it has not fired, so what it cut off is wanted again."""
    outcome = flight(giving_up(wait_for_of_3_12, 5), giving_up(wait_for_of_3_12, 7_200))
    assert outcome.done_before == outcome.done == ["slow o1"]
    assert outcome.result == "gave up"
    assert outcome.took_ms == 2 * HOUR_MS, "the window behind it keeps its due time, which has passed by then"


def test_an_asyncio_timeout_that_has_fired_gets_a_longer_duration_where_the_same_activity_was_called_again(
    flight: Flight,
) -> None:
    """R8: the old call waits beside the record of the new one."""
    old = giving_up(wait_for_of_3_12, 5, then="o2")
    outcome = flight(old, giving_up(wait_for_of_3_12, 7_200, then="o2"), old)
    assert 'order: "o2" → "o1"' in outcome.said
    assert outcome.result == "did o2"
    assert outcome.done == []


def test_an_asyncio_timeout_that_has_fired_gets_a_longer_duration_behind_patched(flight: Flight) -> None:
    """R8a: the length is what it was for an execution that has come past it."""

    async def wait_for(awaitable: Any, seconds: float) -> Any:
        return await wait_for_of_3_12(awaitable, seconds if patched("more-time") else 5)

    outcome = flight(giving_up(wait_for_of_3_12, 5, then="o2"), giving_up(wait_for, 7_200, then="o2"))
    assert outcome.result == "did o2"
    assert outcome.done == []
    assert outcome.took_ms == 5_000 + HOUR_MS


# Deferreds ---------------------------------------------------------------------------------------------


Approval = DurableDeferred.make("approval", success=str)
Consent = DurableDeferred.make("consent", success=str)


def completes(deferred: DurableDeferred[Any, Any], value: Any) -> Act:
    """Somebody completes a deferred of the execution."""

    async def act(execution_id: str) -> None:
        token = deferred.token_from_execution_id(workflow=first_release, execution_id=execution_id)
        assert await deferred.succeed(token, value)

    return act


@release
async def approved_release(order: str) -> str:
    approved = await Approval
    await window()
    return f"{approved}, {await ship(order)}"


@release
async def asking_release(order: str) -> str:
    paid = await charge(order)
    return f"{paid}, {await Approval}"


def test_a_deferred_is_inserted_in_front_of_the_wait(flight: Flight) -> None:
    """R18: somebody has to complete it; what is recorded behind it is kept meanwhile."""

    @release
    async def new(order: str) -> str:
        approved = await Approval
        paid = await charge(order)
        await pack(order)
        await window()
        return f"{approved}, {paid}"

    outcome = flight(first_release, new, afterwards=completes(Approval, "ada"))
    assert outcome.result == "ada, paid o1"
    assert outcome.done == []


def test_a_deferred_that_was_completed_is_removed(flight: Flight) -> None:
    """R8: its value is nobody's."""

    @release
    async def new(order: str) -> str:
        await window()
        return await ship(order)

    outcome = flight(approved_release, new, first=completes(Approval, "ada"))
    assert (outcome.result, outcome.done) == ("shipped o1", ["ship o1"])


def test_the_deferred_for_which_it_waits_is_removed(flight: Flight) -> None:
    """R5: nothing wakes it; a completion of the old one does."""

    @release
    async def new(order: str) -> str:
        return await charge(order)

    outcome = flight(asking_release, new, afterwards=completes(Approval, "whoever"))
    assert (outcome.result, outcome.done) == ("paid o1", [])


def test_the_deferred_for_which_it_waits_is_renamed(flight: Flight) -> None:
    """R18: a token that was given out before completes the old one."""

    @release
    async def new(order: str) -> str:
        paid = await charge(order)
        return f"{paid}, {await Consent}"

    old_token = completes(Approval, "ada")
    outcome = flight(asking_release, new, meanwhile=old_token, afterwards=completes(Consent, "bob"))
    assert outcome.result == "paid o1, bob"
    assert outcome.done == []


def test_a_deferred_that_was_completed_is_renamed(flight: Flight) -> None:
    """R8, R18: another deferred."""

    @release
    async def new(order: str) -> str:
        consent = await Consent
        await window()
        return consent

    outcome = flight(approved_release, new, first=completes(Approval, "ada"), afterwards=completes(Consent, "bob"))
    assert outcome.result == "bob"


def typed(type_: Any) -> tuple[Any, Any]:
    """A release that asks for an answer of this type and then waits; and the answer."""
    answer = DurableDeferred.make("answer", success=type_)

    @release
    async def body(order: str) -> str:
        answered = await answer
        await window()
        return f"{answered!r}"

    return body, answer


def test_a_deferred_gets_a_type_that_can_read_the_value(flight: Flight) -> None:
    """R40: as with results."""
    old, answer = typed(int)
    outcome = flight(old, typed(float)[0], first=completes(answer, 3))
    assert outcome.result == "3.0"


def test_a_deferred_gets_a_type_that_cannot_read_the_value(flight: Flight) -> None:
    """R40."""
    old, answer = typed(str)
    outcome = flight(old, typed(int)[0], old, first=completes(answer, "ada"))
    assert "answer" in outcome.said
    assert outcome.result == "'ada'"


# Children ----------------------------------------------------------------------------------------------


async def body_of_invoice(order: str) -> str:
    DONE.append(f"invoice {order}")
    return f"invoice of {order}"


invoice = workflow(name="Invoice", idempotency_key=lambda order: order)(body_of_invoice)


@workflow(name="Delivery", idempotency_key=lambda order: order)
async def delivery(order: str) -> str:
    await sleep("3 hours", name="on the road")
    return f"delivered {await ship(order)}"


@release
async def release_with_invoice(order: str) -> str:
    made = await invoice.execute(order)
    await window()
    return made


@release
async def release_with_delivery(order: str) -> str:
    paid = await charge(order)
    return f"{paid}, {await delivery.execute(order)}"


def test_a_child_is_inserted_in_front_of_recorded_steps(flight: Flight) -> None:
    """R31: it is begun when the execution next moves."""

    @release
    async def new(order: str) -> str:
        made = await invoice.execute(order)
        paid = await charge(order)
        await pack(order)
        await window()
        return f"{made}, {paid}"

    outcome = flight(first_release, new, beside=[invoice])
    assert outcome.result == "invoice of o1, paid o1"
    assert outcome.done == ["invoice o1"]


def test_a_child_that_has_ended_is_removed(flight: Flight, log: pytest.LogCaptureFixture) -> None:
    """R8: its end stays unused."""

    @release
    async def new(order: str) -> str:
        await window()
        return await ship(order)

    outcome = flight(release_with_invoice, new, beside=[invoice])
    assert (outcome.result, outcome.done) == ("shipped o1", ["ship o1"])
    assert "recorded, but no longer asked for: child 'Invoice'" in log.text


def test_the_child_for_which_it_waits_is_removed(flight: Flight) -> None:
    """R31: nobody interrupts it, and its end is what wakes the parent."""

    @release
    async def new(order: str) -> str:
        return await charge(order)

    outcome = flight(release_with_delivery, new, beside=[delivery])
    assert (outcome.result, outcome.done) == ("paid o1", ["ship o1"])
    assert outcome.took_ms == 3 * HOUR_MS


def test_a_child_that_has_ended_gets_another_payload(flight: Flight) -> None:
    """R8, R31: another payload is another id, which cannot be told from a changed input."""

    @release
    async def new(order: str) -> str:
        made = await invoice.execute(f"{order}/2026")
        await window()
        return made

    outcome = flight(release_with_invoice, new, release_with_invoice, beside=[invoice])
    assert "child 'Invoice'" in outcome.said
    assert (outcome.result, outcome.done) == ("invoice of o1", [])


def test_the_child_for_which_it_waits_gets_another_payload(flight: Flight) -> None:
    """R31: it is another child; the old one goes on for itself, and its end is nobody's."""

    @release
    async def new(order: str) -> str:
        paid = await charge(order)
        return f"{paid}, {await delivery.execute(f'{order}/2026')}"

    outcome = flight(release_with_delivery, new, beside=[delivery])
    assert outcome.result == "paid o1, delivered shipped o1/2026"
    assert outcome.done == ["ship o1", "ship o1/2026"]
    assert outcome.took_ms == 6 * HOUR_MS, "it was begun when the end of the old one woke the parent"


def test_the_workflow_of_a_child_that_has_ended_gets_another_name(flight: Flight) -> None:
    """R1, R8: another execution."""
    bill = workflow(name="Bill", idempotency_key=lambda order: order)(body_of_invoice)

    @release
    async def new(order: str) -> str:
        made = await bill.execute(order)
        await window()
        return made

    outcome = flight(release_with_invoice, new, beside=[invoice, bill])
    assert outcome.done_before == outcome.done == ["invoice o1"]
    assert outcome.result == "invoice of o1"


def strict_release(year: int, *, on_mismatch: Literal["warn", "raise"] = "raise") -> tuple[Any, Any]:
    """A release that has an order delivered, twice, and that delivery: the year is not part of its key."""

    @workflow(name="Yearly", idempotency_key=lambda order, year: order, on_mismatch=on_mismatch)
    async def yearly(order: str, year: int) -> str:
        await pack(order)
        await sleep("3 hours" if order == "slow" else "1 second", name="on the road")
        return f"{order} in {year}"

    @release
    async def body(order: str) -> str:
        said = [await charge(order)]
        for asked in (year, year + 1):
            try:
                said.append(await yearly.execute(order, asked))
            except PayloadMismatchError as refused:
                said.append(f"other {', '.join(refused.fields)}")
        await window()
        return ", ".join([*said, await ship(order)])

    return body, yearly


def test_a_field_outside_the_key_of_a_child_that_has_ended_changes(flight: Flight) -> None:
    """R2, R8: nothing is compared but what one body asks."""
    old, yearly = strict_release(2026)
    new, _ = strict_release(2030)
    outcome = flight(old, new, beside=[yearly])
    assert outcome.result == "paid o1, o1 in 2026, other year, shipped o1"
    assert (outcome.done_before, outcome.done) == (["charge o1", "pack o1"], ["ship o1"])


def test_a_field_outside_the_key_of_the_child_for_which_it_waits_changes(flight: Flight) -> None:
    """R2, R8: it is the same call. What the body asks for afterwards is compared with what is there."""
    old, yearly = strict_release(2026)
    new, _ = strict_release(2030)
    outcome = flight(old, new, payload=("slow",), beside=[yearly])
    assert outcome.result == "paid slow, slow in 2026, other year, shipped slow"
    assert (outcome.done_before, outcome.done) == (["charge slow", "pack slow"], ["ship slow"])


def test_a_field_outside_the_key_of_a_recorded_start_changes(flight: Flight) -> None:
    """R2, R8, R42."""

    @workflow(name="Yearly", idempotency_key=lambda order, year: order, on_mismatch="raise")
    async def yearly(order: str, year: int) -> None:
        DONE.append(f"invoice {order} in {year}")

    def starting(year: int) -> Any:
        @release
        async def body(order: str) -> str:
            await yearly.start(order, year)
            await window()
            return await ship(order)

        return body

    outcome = flight(starting(2026), starting(2030), beside=[yearly])
    assert outcome.result == "shipped o1"
    assert (outcome.done_before, outcome.done) == (["invoice o1 in 2026"], ["ship o1"])


def test_the_on_mismatch_of_a_child_becomes_raise(flight: Flight) -> None:
    """R2, R8: the second payload was warned of, and joined."""
    old, _ = strict_release(2026, on_mismatch="warn")
    new, strict = strict_release(2026)
    outcome = flight(old, new, beside=[strict])
    assert outcome.result == "paid o1, o1 in 2026, o1 in 2026, shipped o1"
    assert outcome.done == ["ship o1"]


def test_the_on_mismatch_of_a_child_becomes_warn(flight: Flight) -> None:
    """R2, R8."""
    old, yearly = strict_release(2026)
    new, _ = strict_release(2026, on_mismatch="warn")
    outcome = flight(old, new, beside=[yearly])
    assert outcome.result == "paid o1, o1 in 2026, other year, shipped o1"
    assert outcome.done == ["ship o1"]


# Races -------------------------------------------------------------------------------------------------


def racing(*branches: str, name: str = "who") -> Any:
    """A release that has these branches race, then waits."""

    async def patience(hours: str) -> str:
        await sleep(f"{hours} hours", name=f"patience {hours}")
        return f"{hours} hours"

    async def changed(order: str) -> str:
        await patience("9")
        return await ship(order)

    def branch(which: str, order: str) -> Awaitable[str]:
        match which:
            case "ship":
                return ship(order)
            case "pack":
                return pack(order)
            case "changed ship":
                return changed(order)
            case _:
                return patience(which)

    @release
    async def body(order: str) -> str:
        won = await race_all(name, [branch(which, order) for which in branches])
        await window()
        return f"{won}"

    return body


def test_a_branch_is_added_at_the_end_of_a_race_that_is_over(flight: Flight) -> None:
    """R21: it is not begun."""
    outcome = flight(racing("2", "ship"), racing("2", "ship", "pack"))
    assert (outcome.result, outcome.done) == ("shipped o1", [])


def test_a_branch_is_added_in_front_of_the_one_that_has_won(flight: Flight) -> None:
    """R21: the recorded value counts, and it is not begun."""
    outcome = flight(racing("2", "ship"), racing("pack", "2", "ship"))
    assert (outcome.result, outcome.done) == ("shipped o1", [])


def test_a_branch_is_added_to_a_race_that_is_under_way(flight: Flight) -> None:
    """R21: it is begun when the execution next moves, and may win."""
    outcome = flight(racing("2", "3"), racing("2", "3", "1"))
    assert outcome.result == "1 hours"
    assert outcome.took_ms == 3 * HOUR_MS, "it counts from the place where it stands, and nothing woke it before"


def test_a_branch_that_has_lost_is_removed(flight: Flight) -> None:
    """R21, at the end of the list."""
    outcome = flight(racing("ship", "2"), racing("ship"))
    assert (outcome.result, outcome.done) == ("shipped o1", [])


def test_a_branch_behind_which_the_winner_stands_is_removed(flight: Flight) -> None:
    """R21, R40: the record says that branch 1 has won, and there is none."""
    old = racing("2", "ship")
    outcome = flight(old, racing("ship"), old)
    assert "branch 1 won" in outcome.said
    assert (outcome.result, outcome.done) == ("shipped o1", [])


def test_what_the_branch_that_has_won_does_is_changed(flight: Flight) -> None:
    """R21: what is recorded counts, also where today's code would come to another end."""
    outcome = flight(racing("2", "ship"), racing("2", "changed ship"))
    assert (outcome.result, outcome.done) == ("shipped o1", [])
    assert outcome.took_ms == HOUR_MS, "the race is over where it was over"


def test_a_race_is_renamed(flight: Flight) -> None:
    """R21: its branches are run from the journal, and come to the same end."""
    outcome = flight(racing("2", "ship"), racing("2", "ship", name="first"))
    assert (outcome.result, outcome.done) == ("shipped o1", [])


# Compensations -----------------------------------------------------------------------------------------


@activity
async def undo(what: str) -> None:
    DONE.append(f"undo {what}")


@activity
async def refund(order: str, note: str = "") -> None:
    DONE.append(f"refund {order} {note}".strip())


async def undo_it(value: str, cause: object) -> None:
    await undo(value)


def saga(*steps: Any, fails: bool = True) -> Any:
    """A release that does something, waits, and fails."""

    @release
    async def body(order: str) -> str:
        for step in steps:
            await step(order)
        await window()
        if fails:
            raise RuntimeError("no")
        return "done"

    return body


def with_undo(step: Any, compensation: Any = undo_it) -> Any:
    """A step that is undone."""
    return lambda order: with_compensation(step(order), compensation)


def test_a_compensation_is_added_to_a_recorded_step(flight: Flight) -> None:
    """R27: it stands where the step stands."""
    outcome = flight(saga(charge, with_undo(pack)), saga(with_undo(charge), with_undo(pack)))
    assert isinstance(outcome.exit, Failure)
    assert outcome.done == ["undo packed o1", "undo paid o1"]


def test_a_compensation_of_a_recorded_step_is_removed(flight: Flight) -> None:
    """R27: then it is not undone."""
    outcome = flight(saga(with_undo(charge), with_undo(pack)), saga(charge, with_undo(pack)))
    assert outcome.done == ["undo packed o1"]


def test_a_step_with_a_compensation_is_inserted_in_front_of_recorded_ones(flight: Flight) -> None:
    """R8, R27: it is done, and undone, last of all: where the call stands is what counts."""
    outcome = flight(saga(with_undo(charge)), saga(with_undo(ship), with_undo(charge)))
    assert outcome.done == ["ship o1", "undo paid o1", "undo shipped o1"]


def test_what_a_compensation_does_is_changed_before_it_runs(flight: Flight) -> None:
    """R28: today's code undoes."""

    async def pay_back(value: str, cause: object) -> None:
        await refund(value)

    outcome = flight(saga(with_undo(charge)), saga(with_undo(charge, pay_back)))
    assert outcome.done == ["refund paid o1"]


def unwinding(*, first: Any, then: Any = undo_it) -> Any:
    """A release that fails at once, and waits while it is being undone: between `first` and what it does `then`."""

    async def compensation(value: str, cause: object) -> None:
        await first(value)
        await window()
        await then(value, cause)

    @release
    async def body(order: str) -> None:
        await with_compensation(charge(order), compensation)
        raise RuntimeError("no")

    return body


def test_a_compensation_is_changed_while_it_runs(flight: Flight) -> None:
    """R7, R28: what it has done it does not do again; what stands behind is done as today's code says."""

    async def check_and_refund(value: str) -> None:
        await check(value)
        await refund(value)

    async def notify(value: str, cause: object) -> None:
        await ship(value)

    outcome = flight(unwinding(first=refund), unwinding(first=check_and_refund, then=notify))
    assert outcome.done_before == ["charge o1", "refund paid o1"]
    assert outcome.done == ["check paid o1", "ship paid o1"]
    assert isinstance(outcome.exit, Failure)


def test_a_step_that_a_running_compensation_has_done_gets_another_input(flight: Flight) -> None:
    """R8, R28: a compensation diverges like a body; nothing is paid back twice."""
    old = unwinding(first=refund)
    outcome = flight(old, unwinding(first=lambda value: refund(value, "sorry")), old)
    assert 'note: "" → "sorry"' in outcome.said
    assert outcome.done == ["undo paid o1"]


def test_a_compensation_that_holds_the_execution_is_mended(flight: Flight) -> None:
    """R28: it is still held, until somebody resumes it; then today's code undoes."""

    @activity(name="refund")
    async def refund_badly(order: str) -> None:
        raise RuntimeError("the bank is closed")

    @activity(name="refund")
    async def refund_now(order: str) -> None:
        DONE.append(f"refund {order} now")

    async def badly(value: str, cause: object) -> None:
        await check(value)
        await refund_badly(value)

    async def now(value: str, cause: object) -> None:
        await check(value)
        await refund_now(value)

    def failing(compensation: Any) -> Any:
        @release
        async def body(order: str) -> None:
            await with_compensation(charge(order), compensation)
            raise RuntimeError("no")

        return body

    outcome = flight(failing(badly), failing(now), failing(now))
    assert outcome.done_before == ["charge o1", "check paid o1"]
    assert "the bank is closed" in outcome.said
    assert outcome.done == ["refund paid o1 now"]
    assert isinstance(outcome.exit, Failure)


# Messages, and what it shows -----------------------------------------------------------------------------


Remarks = DurableChannel.make("remarks", str)


def remarks(*texts: str) -> Act:
    """Somebody sends messages to the execution."""

    async def act(execution_id: str) -> None:
        for text in texts:
            await Remarks.send(execution_id, text)

    return act


def receiving(in_front: int, behind: int) -> Any:
    """A release that takes so many messages, waits, and takes more."""

    @release
    async def body(order: str) -> str:
        taken = [await Remarks.receive() for _ in range(in_front)]
        await window()
        return ", ".join([*taken, *[await Remarks.receive() for _ in range(behind)]])

    return body


def test_a_receive_is_inserted_in_front_of_one_that_has_its_message(flight: Flight) -> None:
    """R48: messages have an order, and receives have one; the wait stands behind one more now."""
    outcome = flight(receiving(1, 0), receiving(2, 0), first=remarks("one"), afterwards=remarks("two"))
    assert outcome.result == "one, two"


def test_a_receive_that_has_its_message_is_removed(flight: Flight) -> None:
    """R48: the message has not been taken, so the next one gets it."""
    outcome = flight(receiving(1, 1), receiving(0, 1), first=remarks("one", "two"))
    assert outcome.result == "one"


@workflow(name="Desk", idempotency_key=lambda desk: desk)
async def desk(desk: str) -> str:
    return await Remarks.receive()


async def at_the_desk(execution_id: str) -> str:
    """The message that has come there."""
    return await desk.handle(desk.execution_id("d1")).result()


def sending(*texts: str) -> Any:
    """A release that sends messages to another execution, and waits."""

    @release
    async def body(order: str) -> str:
        handle = await desk.start("d1")
        for text in texts:
            await Remarks.send(handle.execution_id, text)
        await window()
        return await ship(order)

    return body


def test_a_send_is_inserted_in_front_of_the_wait(flight: Flight) -> None:
    """R42: it is sent once, when the execution next moves."""
    outcome = flight(sending(), sending("hello"), beside=[desk], lastly=at_the_desk)
    assert (outcome.result, outcome.done) == ("shipped o1", ["ship o1"])
    assert outcome.seen == "hello"


def test_a_send_that_is_recorded_is_removed(flight: Flight, log: pytest.LogCaptureFixture) -> None:
    """R42: what is sent is sent."""
    outcome = flight(sending("hello"), sending(), beside=[desk], lastly=at_the_desk)
    assert outcome.result == "shipped o1"
    assert outcome.seen == "hello"
    assert "recorded, but no longer asked for: sent 'send:remarks'" in log.text


def test_a_send_that_is_recorded_gets_another_message(flight: Flight) -> None:
    """R8, R42."""
    outcome = flight(sending("hello"), sending("good morning"), sending("hello"), beside=[desk], lastly=at_the_desk)
    assert "good morning" in outcome.said
    assert outcome.result == "shipped o1"
    assert outcome.seen == "hello"


def showing(*stages: str) -> Any:
    """A release that shows these in turn and searches by them, then waits."""

    @release
    async def body(order: str) -> str:
        for stage in stages:
            publish("progress", stage)
            set_attributes(stage=stage)
        await window()
        return await ship(order)

    return body


async def shown(execution_id: str) -> tuple[Any, Any]:
    """What is seen of the execution."""
    info = await current_engine().describe(execution_id)
    return await first_release.handle(execution_id).read("progress"), info.attributes.get("stage")


def test_publish_or_set_attributes_is_inserted_behind_recorded_ones(flight: Flight) -> None:
    """R42: it shows when the execution next moves."""
    assert flight(showing("paid"), showing("paid", "packed"), lastly=shown).seen == ("packed", "packed")


def test_publish_or_set_attributes_is_inserted_in_front_of_recorded_ones(flight: Flight) -> None:
    """R42: counted by name, the new one is taken for the recorded one, and the last word is the same."""
    assert flight(showing("packed"), showing("paid", "packed"), lastly=shown).seen == ("packed", "packed")


def test_what_a_recorded_publish_or_set_attributes_says_is_changed(flight: Flight) -> None:
    """R42: it is not said again."""
    assert flight(showing("paid"), showing("PAID"), lastly=shown).seen == ("paid", "paid")


def test_a_recorded_publish_or_set_attributes_is_removed(flight: Flight) -> None:
    """R42: what is shown is shown."""
    assert flight(showing("paid"), showing(), lastly=shown).seen == ("paid", "paid")


# What is said about the workflow -------------------------------------------------------------------------


@activity(name="check")
async def check_badly(order: str) -> str:
    raise RuntimeError("the far side is down")


async def body_that_checks(order: str) -> str:
    await window()
    return await check(order)


async def body_that_fails(order: str) -> str:
    await window()
    return await check_badly(order)


careful = workflow(name="Order", idempotency_key=lambda order: order, suspend_on_failure=True)


def test_suspend_on_failure_is_turned_on(flight: Flight) -> None:
    """R36: for what fails from now on."""
    outcome = flight(release(body_that_fails), careful(body_that_fails), careful(body_that_checks))
    assert "the far side is down" in outcome.said
    assert (outcome.result, outcome.done) == ("checked", ["check o1"])


def test_suspend_on_failure_is_turned_off(flight: Flight) -> None:
    """R36: for what fails from now on."""
    outcome = flight(careful(body_that_fails), release(body_that_fails))
    assert isinstance(outcome.exit, Failure)


def test_suspend_on_failure_is_turned_off_for_one_that_is_held(flight: Flight) -> None:
    """R36: it moves only when somebody acts; then the activity is executed again, and may fail for good."""

    async def body(order: str) -> str:
        return await check_badly(order)

    outcome = flight(careful(body), release(body), release(body))
    assert "the far side is down" in outcome.said
    assert isinstance(outcome.exit, Failure)


def test_the_retention_of_the_workflow_changes(flight: Flight) -> None:
    """R2: today's counts, also for what has ended before."""

    def kept(retention: str) -> Any:
        settings = workflow(name="Order", idempotency_key=lambda order: order, retention=retention)
        return settings(body_of_first_release)

    async def days_kept(execution_id: str) -> int:
        days = 0
        while await first_release.poll(execution_id) is not None:
            await flight.lab.skip("1 day")
            days += 1
        return days

    outcome = flight(kept("90 days"), kept("2 days"), lastly=days_kept)
    assert outcome.result == "paid o1, packed o1, shipped o1"
    assert outcome.seen == 2


def test_the_deadline_of_starts_changes(flight: Flight) -> None:
    """R44: it is the execution's, from its start."""
    old, new = first_release.options(deadline="30 minutes"), first_release.options(deadline="10 hours")
    outcome = flight(old, new)
    assert isinstance(outcome.exit, Failure)
    assert "DeadlineExceeded" in repr(outcome.exit)
    assert outcome.took_ms == HOUR_MS // 2


# `patched` ---------------------------------------------------------------------------------------------


@release
async def release_with_change(order: str) -> str:
    if patched("check-first"):
        await check(order)
    paid = await charge(order)
    await window()
    return f"{paid}, {await ship(order)}"


@release
async def release_without_change(order: str) -> str:
    paid = await charge(order)
    await window()
    return f"{paid}, {await ship(order)}"


@release
async def release_with_new_way_only(order: str) -> str:
    await check(order)
    paid = await charge(order)
    await window()
    return f"{paid}, {await ship(order)}"


def test_patched_is_added_in_front_of_the_wait(flight: Flight) -> None:
    """R8a: False; the execution has come past it."""
    outcome = flight(release_without_change, release_with_change)
    assert outcome.result == "paid o1, shipped o1"
    assert outcome.done == ["ship o1"]


def test_patched_is_added_behind_the_wait(flight: Flight) -> None:
    """R8a: True; the execution comes to it live."""

    @release
    async def new(order: str) -> str:
        await charge(order)
        await window()
        return await (check(order) if patched("check-instead") else ship(order))

    outcome = flight(release_without_change, new)
    assert outcome.result == "checked"
    assert outcome.done == ["check o1"]


def test_patched_is_removed_and_the_new_way_stays_for_an_execution_on_the_new_way(flight: Flight) -> None:
    """R8a: the marker is left over."""
    outcome = flight(release_with_change, release_with_new_way_only)
    assert outcome.result == "paid o1, shipped o1"
    assert outcome.done == ["ship o1"]


def test_patched_is_removed_and_the_new_way_stays_for_an_execution_on_the_old_way(flight: Flight) -> None:
    """R8: the new step is inserted, as without `patched`."""
    outcome = flight(release_without_change, release_with_new_way_only)
    assert outcome.result == "paid o1, shipped o1"
    assert outcome.done == ["check o1", "ship o1"]


def test_patched_is_removed_and_the_old_way_stays_for_an_execution_on_the_new_way(flight: Flight) -> None:
    """R8: the new step is removed."""
    outcome = flight(release_with_change, release_without_change)
    assert outcome.result == "paid o1, shipped o1"
    assert outcome.done == ["ship o1"]


# Python and the library --------------------------------------------------------------------------------


async def wait_for_of_3_11(awaitable: Any, seconds: float) -> Any:
    """What `asyncio.wait_for` does up to Python 3.11: its timer is `call_later` with a callback of asyncio's own."""
    loop = asyncio.get_running_loop()
    release_waiter: Any = asyncio.tasks._release_waiter
    waiter = loop.create_future()
    timer = loop.call_later(seconds, release_waiter, waiter)
    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(lambda _: release_waiter(waiter))
    try:
        await waiter
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise TimeoutError
        return task.result()
    finally:
        timer.cancel()


def test_python_3_12_goes_on_in_a_wait_for_of_3_11(flight: Flight) -> None:
    """R8, R16: its timer has the same name, and the same due time."""
    outcome = flight(giving_up(wait_for_of_3_11, 1_800), giving_up(wait_for_of_3_12, 1_800))
    assert outcome.result == "gave up"
    assert outcome.done == ["slow o1"], "it was cut off, so it is made again"
    assert outcome.took_ms == 1_800_000 + HOUR_MS


def test_python_3_12_goes_on_behind_a_wait_for_of_3_11_that_timed_out(flight: Flight) -> None:
    """R8, R16: it finds the record of its timer."""
    outcome = flight(giving_up(wait_for_of_3_11, 5), giving_up(wait_for_of_3_12, 5))
    assert outcome.result == "gave up"
    assert outcome.done == []
    assert outcome.took_ms == 5_000 + HOUR_MS


def test_python_3_12_goes_on_behind_a_wait_for_of_3_11_that_timed_out_where_the_same_activity_was_called_again(
    flight: Flight,
) -> None:
    """R8."""
    old = giving_up(wait_for_of_3_11, 5, then="o2")
    outcome = flight(old, giving_up(wait_for_of_3_12, 5, then="o2"), old)
    assert outcome.result == "did o2"
    assert outcome.done == []


@pytest.mark.parametrize("version", journals.VERSIONS)
def test_a_newer_version_of_the_library_runs_it(flight: Flight, version: str) -> None:
    """R7, R39, R40: each release's journals are read, and the same chance is drawn."""
    journals.RAN.clear()
    for birth, body, expected in journals.births_of(version):
        outcome = flight.recorded(birth, body, journals.BESIDE)
        assert outcome.stored_exit == expected
    assert journals.RAN == [], "nothing that is recorded is done again"


def test_an_older_version_of_the_library_opens_a_file_that_a_newer_one_has_changed(file_lab: Lab, row: Row) -> None:
    """The file is left as it is."""
    assert row.verdict == "not opened"

    def version_of_tables(step: int) -> int:
        with closing(apsw.Connection(str(file_lab.path))) as connection:
            connection.pragma("user_version", connection.pragma("user_version") + step)
            return connection.pragma("user_version")

    async def main() -> None:
        async with file_lab.engine([first_release]):
            handle = await first_release.start("o1")
            await file_lab.settle()
        newer = version_of_tables(+1)
        with pytest.raises(SchemaVersionError) as caught:
            async with file_lab.engine([first_release]):
                raise AssertionError
        assert (caught.value.found, caught.value.supported) == (newer, newer - 1)
        version_of_tables(-1)
        async with file_lab.engine([first_release]):
            assert await file_lab.result(first_release.handle(handle.execution_id)) == "paid o1, packed o1, shipped o1"

    file_lab.run(main)
