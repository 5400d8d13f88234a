"""The audit after the demo: what perdure says, what the gateway charged and what left the shop must agree.

Three witnesses that know nothing of each other: the engine's file (read by a client without any worker), the
ledger of the gateway, and the directories of the shop. What does not agree is a sentence in `problems`.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from order import Order
from workflow import Receipt, process_order

from perdure import Complete, Success, WorkflowEngine


@dataclass(frozen=True, slots=True)
class Charged:
    """One charge in the ledger."""

    charge_id: str
    amount_cents: int
    currency: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """What the ledger says in the end."""

    requests: int
    charges: dict[str, list[Charged]]  # by order; more than one would be the disaster
    declined: set[str]  # orders
    repeats: dict[str, int]  # by client: requests whose key the gateway had already decided on
    repeated_often: list[str]  # orders that were asked for again more than once
    first_request_at: dict[str, float]  # by client, in seconds since the epoch


Outcomes = dict[str, Receipt | None]
"""By order: its receipt, or None where its payment was declined. An order that is not finished is missing."""


def read_ledger(path: Path) -> Accounts:
    with closing(sqlite3.connect(path)) as ledger:
        charges = defaultdict[str, list[Charged]](list)
        declined = set[str]()
        for order_id, charge_id, amount_cents, currency in ledger.execute(
            "SELECT order_id, charge_id, amount_cents, currency FROM decisions"
        ):
            if charge_id is None:
                declined.add(order_id)
            else:
                charges[order_id].append(Charged(charge_id, amount_cents, currency))
        repeats = "SELECT client, count(*) FROM requests WHERE outcome = 'repeated' GROUP BY client"
        often = "SELECT order_id FROM requests WHERE outcome = 'repeated' GROUP BY order_id HAVING count(*) > 1"
        return Accounts(
            requests=ledger.execute("SELECT count(*) FROM requests").fetchone()[0],
            charges=dict(charges),
            declined=declined,
            repeats=dict(ledger.execute(repeats)),
            repeated_often=[order_id for (order_id,) in ledger.execute(often)],
            first_request_at=dict(ledger.execute("SELECT client, min(arrived_at) FROM requests GROUP BY client")),
        )


async def read_outcomes(database: Path, orders: list[Order]) -> Outcomes:
    outcomes: Outcomes = {}
    async with WorkflowEngine.sqlite(database):  # no registrations: it only looks
        for order in orders:
            match await process_order.poll(process_order.execution_id(order)):
                case Complete(exit):
                    outcomes[order.order_id] = exit.value if isinstance(exit, Success) else None
                case _:
                    pass
    return outcomes


def problems(orders: list[Order], outcomes: Outcomes, accounts: Accounts, shop: Path) -> Iterator[str]:
    for order in orders:
        if order.order_id not in outcomes:
            yield f"{order.order_id} is lost: it is not finished"
        else:
            yield from _order_problems(order, outcomes[order.order_id], accounts)
    for unknown in accounts.charges.keys() - {order.order_id for order in orders}:
        yield f"{unknown} was charged and is no good order"
    for often in accounts.repeated_often:
        yield f"{often} was asked for again more than once, and one kill explains one time"
    completed = sorted(order_id for order_id, receipt in outcomes.items() if receipt)
    reserved = sorted(path.stem for path in (shop / "reservations").glob("*.json"))
    if reserved != completed:
        yield f"stock is reserved for {len(reserved)} orders, not for the {len(completed)} completed ones"
    mailed = sorted(path.stem.rpartition("-")[0] for path in (shop / "outbox").glob("*.eml"))
    if mailed != completed:
        yield f"{len(mailed)} e-mails went out, not one for each of the {len(completed)} completed orders"


def _order_problems(order: Order, receipt: Receipt | None, accounts: Accounts) -> Iterator[str]:
    charges = accounts.charges.get(order.order_id, [])
    if receipt is None:
        if charges:
            yield f"{order.order_id} was declined and is charged {len(charges)} times"
        if order.order_id not in accounts.declined:
            yield f"{order.order_id} failed, and the gateway did not decline it"
        return
    if charges != [Charged(receipt.charge_id, order.amount_cents, order.currency)]:
        yield f"{order.order_id} was completed with {receipt.charge_id}, and the ledger has {charges or 'no charge'}"
