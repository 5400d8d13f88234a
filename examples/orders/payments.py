"""The shop's side of the payment gateway: a charge that succeeds, is declined, or cannot be made just now."""

import json
import os
from http.client import HTTPConnection, HTTPException

from order import Order

from perdure import TypedError


class CardDeclined(TypedError):
    """The bank said no; asking again would not change that."""

    code: str


class GatewayUnavailable(TypedError):
    """Nobody knows yet: the gateway is busy, or its answer did not arrive."""

    reason: str


def charge(order: Order, *, idempotency_key: str) -> str:
    """Charge the order's card and return the id of the charge; one key is charged once, however often it is asked."""
    wanted = {
        "order_id": order.order_id,
        "amount_cents": order.amount_cents,
        "currency": order.currency,
        "card_token": order.card_token,
    }
    try:
        status, answer = _post("/charges", wanted, idempotency_key)
    except (OSError, HTTPException) as error:
        # The charge may have been made all the same. Only the key makes it safe to ask again.
        raise GatewayUnavailable(reason=str(error) or type(error).__name__) from error
    if status == 402:
        raise CardDeclined(code=answer["code"])
    if status == 503:
        raise GatewayUnavailable(reason=answer["error"])
    if status != 200:
        raise RuntimeError(f"the gateway refused the request itself: {status} {answer}")
    return answer["charge_id"]


def client_name(pid: int) -> str:
    """How a worker presents itself to the gateway."""
    return f"orders-worker/{pid}"


def _post(path: str, body: dict[str, object], idempotency_key: str) -> tuple[int, dict[str, str]]:
    connection = HTTPConnection(os.environ["GATEWAY_ADDRESS"], timeout=10)
    try:
        headers = {"Idempotency-Key": idempotency_key, "User-Agent": client_name(os.getpid())}
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
