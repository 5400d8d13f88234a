"""Makes orders.jsonl: the same 1,000 lines every time."""

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIRST = [
    "Ada", "Alan", "Amara", "Björn", "Chiara", "Dmitri", "Elif", "Fatima", "Grace", "Hiro",
    "Ines", "João", "Kofi", "Léa", "Mei", "Noor", "Olga", "Priya", "Sven", "Zoë",
]  # fmt: skip
LAST = [
    "Almeida", "Becker", "Costa", "Dubois", "Eriksson", "Fischer", "García", "Haddad",
    "Ivanova", "Jensen", "Kim", "Lopez", "Mensah", "Novak", "Okafor",
]  # fmt: skip
DOMAINS = ["example.com", "example.org", "mail.example.net", "post.example.de"]
SHELF = {
    "TEA-EARLGREY-100": 790, "TEA-SENCHA-100": 1150, "POT-GLASS-1L": 3490, "CUP-CERAMIC": 1290, "KETTLE-1800W": 5999,
    "HONEY-LINDEN-500": 990, "FILTER-PAPER-200": 450, "BISCUIT-OAT-250": 390, "SCALE-POCKET": 2450, "TRAY-BAMBOO": 1890,
}  # fmt: skip
DECLINES = ["insufficient_funds", "expired_card", "lost_card", "do_not_honor"]

Line = dict[str, Any]


def _text(order: Line) -> str:
    return json.dumps(order, ensure_ascii=False)


def bad_email(order: Line, dice: random.Random) -> str:
    return _text(order | {"email": order["email"].replace("@", dice.choice(["", " at "]))})


def negative_amount(order: Line, _: random.Random) -> str:
    order["items"][-1]["price_cents"] *= -1
    return _text(order)


def no_quantity(order: Line, _: random.Random) -> str:
    order["items"][0]["quantity"] = 0
    return _text(order)


def unknown_currency(order: Line, dice: random.Random) -> str:
    return _text(order | {"currency": dice.choice(["EURO", "XXX", "usd"])})


def missing_field(order: Line, dice: random.Random) -> str:
    del order[dice.choice(["email", "card_token", "items", "customer"])]
    return _text(order)


def broken_json(order: Line, dice: random.Random) -> str:
    text = _text(order)
    return text[: dice.randrange(20, len(text) - 5)]


DAMAGES: list[Callable[[Line, random.Random], str]] = [
    bad_email, negative_amount, unknown_currency, missing_field, broken_json, no_quantity,
]  # fmt: skip


def an_order(number: int, dice: random.Random) -> Line:
    first, last = dice.choice(FIRST), dice.choice(LAST)
    plain = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode().lower()
    skus = dice.sample(sorted(SHELF), dice.choice([1, 1, 1, 2, 2, 3]))
    luck = dice.random()
    behaviour = "-" + dice.choice(DECLINES) if luck < 0.06 else f"-busy{dice.choice([1, 2])}" if luck < 0.18 else ""
    return {
        "order_id": f"ORD-{20000 + number}",
        "customer": f"{first} {last}",
        "email": f"{plain}{dice.randrange(100)}@{dice.choice(DOMAINS)}",
        "items": [{"sku": sku, "quantity": dice.choice([1, 1, 2, 3]), "price_cents": SHELF[sku]} for sku in skus],
        "currency": dice.choices(["EUR", "USD", "GBP", "CHF"], [6, 3, 2, 1])[0],
        "card_token": f"tok_{dice.choice(['visa', 'mastercard', 'amex'])}_{dice.getrandbits(32):08x}{behaviour}",
    }


def lines(count: int, dice: random.Random) -> list[str]:
    made = [an_order(number, dice) for number in range(1, count + 1)]
    # A bad line every forty or so, of each kind in turn, but the first ones early: sixty lines show most kinds.
    places = [7, 18, 29, 41, 52, *range(80, count, 41)]
    damaged = {place: DAMAGES[turn % len(DAMAGES)] for turn, place in enumerate(places)}
    return [
        damaged[place](order, dice) if place in damaged else _text(order) for place, order in enumerate(made, start=1)
    ]


if __name__ == "__main__":
    Path(__file__).with_name("orders.jsonl").write_text("\n".join(lines(1000, random.Random(2030))) + "\n", "utf-8")
