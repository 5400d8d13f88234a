"""What is measured: an order that is charged in ten steps, in one, or in a thousand at once.

The activity does nothing, so every microsecond is perdure's. Payload, input and result are pydantic models of about a
hundred bytes, because encoding is a good part of a step and an `int` would hide it.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from perdure import activity, sleep, workflow

STEPS = 10  # of `ten_steps`
BRANCHES = 1_000  # of `fan_out`

_MORNING = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)


class Order(BaseModel):
    order_id: str
    customer: str
    amount_cents: int
    placed_at: datetime


class Receipt(BaseModel):
    charge_id: str
    amount_cents: int
    currency: str
    captured_at: datetime


@activity
async def charge(order: Order, position: int) -> Receipt:
    return Receipt(
        charge_id=f"charge-{order.order_id}-{position}",
        amount_cents=order.amount_cents,
        currency="EUR",
        captured_at=order.placed_at,
    )


def _key(order: Order) -> str:
    return order.order_id


@workflow(payload=Order, idempotency_key=_key)
async def ten_steps(order: Order) -> Receipt:
    for position in range(1, STEPS):
        await charge(order, position)
    return await charge(order, STEPS)


@workflow(payload=Order, idempotency_key=_key)
async def one_step(order: Order) -> Receipt:
    return await charge(order, 1)


@workflow(payload=Order, idempotency_key=_key)
async def fan_out(order: Order) -> int:
    receipts = await asyncio.gather(*[charge(order, position) for position in range(BRANCHES)])
    return sum(receipt.amount_cents for receipt in receipts)


@workflow(payload=Order, idempotency_key=_key)
async def wait_for_delivery(order: Order) -> Receipt:
    """One step, then a wait that is long enough to give the worker up: a parked kernel (R16)."""
    receipt = await charge(order, 1)
    await sleep(timedelta(days=1), name="delivery")
    return receipt


def make_orders(name: str, count: int) -> list[Order]:
    return [
        Order(
            order_id=f"{name}-{number:05}",
            customer=f"customer-{number:05}@example.com",
            amount_cents=1_000 + number,
            placed_at=_MORNING + timedelta(seconds=number),
        )
        for number in range(count)
    ]
