"""What happens to an order: stock, payment, a moment to cancel, a confirmation."""

import json
import os
from email.message import EmailMessage
from pathlib import Path

import payments
from order import Order
from payments import CardDeclined, GatewayUnavailable
from pydantic import BaseModel

from perdure import Schedule, activity, idempotency_key, retry, sleep, workflow

PATIENCE = Schedule.exponential("50 millis", factor=2, max="2 seconds", jitter=True).times(8)


class Receipt(BaseModel):
    order_id: str
    charge_id: str
    amount_cents: int
    currency: str


@activity(name="ReserveStock")
def reserve_stock(order: Order) -> None:
    items = [item.model_dump() for item in order.items]
    _write(_shop("reservations") / f"{order.order_id}.json", json.dumps(items).encode())


@activity(name="ReleaseStock")
def release_stock(order_id: str) -> None:
    (_shop("reservations") / f"{order_id}.json").unlink(missing_ok=True)


@activity(name="ChargeCard", error=(CardDeclined, GatewayUnavailable), timeout="15 seconds")
def charge_card(order: Order) -> str:
    # The key is this step's own, the same on every attempt and after every crash. When the worker dies between
    # the gateway's charge and the journal's record of it, the call is made again and answered from the ledger.
    return payments.charge(order, idempotency_key=idempotency_key())


@activity(name="SendConfirmationEmail")
def send_confirmation_email(order: Order, charge_id: str) -> None:
    mail = EmailMessage()
    mail["To"] = order.email
    mail["Subject"] = f"Your order {order.order_id}"
    mail.set_content(f"Dear {order.customer},\n\nwe received your payment ({charge_id}). Thank you.\n")
    # Named by the key: sent twice it is still one mail, which is what a mail provider does with such a key.
    _write(_shop("outbox") / f"{order.order_id}-{idempotency_key()}.eml", mail.as_bytes())


@workflow(
    name="ProcessOrder",
    payload=Order,
    idempotency_key=lambda order: order.order_id,
    error=(CardDeclined, GatewayUnavailable),
)
async def process_order(order: Order) -> Receipt:
    await reserve_stock(order)
    try:
        # A busy gateway is asked again, a declined card is not.
        charge_id = await retry(charge_card(order), PATIENCE, error=GatewayUnavailable)
    except (CardDeclined, GatewayUnavailable):
        await release_stock(order.order_id)
        raise
    await sleep("200 millis", name="CancellationWindow")
    await send_confirmation_email(order, charge_id)
    return Receipt(
        order_id=order.order_id, charge_id=charge_id, amount_cents=order.amount_cents, currency=order.currency
    )


def _shop(room: str) -> Path:
    place = Path(os.environ["SHOP_DIRECTORY"]) / room
    place.mkdir(parents=True, exist_ok=True)
    return place


def _write(path: Path, content: bytes) -> None:
    # Written aside and renamed: a kill in the middle leaves no half of a file under the real name.
    aside = path.with_suffix(".part")
    aside.write_bytes(content)
    aside.replace(path)
