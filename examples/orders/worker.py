"""The worker process: runs every order of a file to its end, and may be killed at any time.

It says one line for each thing that it learns: `bad …`, `completed …`, `declined …`, `failed …`.
"""

import argparse
import asyncio
from pathlib import Path

from order import BadLine, Order, read_orders
from payments import CardDeclined, GatewayUnavailable
from workflow import process_order

from perdure import WorkflowEngine

AT_ONCE = 40  # orders; the other lines of the file wait for their turn


async def process(order: Order) -> str:
    try:
        # Starts the order, or joins it if an earlier worker already did: the same order is the same execution.
        receipt = await process_order.execute(order)
    except CardDeclined as declined:
        return f"declined {order.order_id} {declined.code}"
    except GatewayUnavailable as unavailable:
        return f"failed {order.order_id} {unavailable.reason}"
    return f"completed {order.order_id} {receipt.charge_id}"


async def work(database: Path, orders: Path, limit: int | None) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def process_in_turn(order: Order) -> None:
        async with room:
            print(await process(order))

    async with WorkflowEngine.sqlite(database, [process_order], concurrency=8), asyncio.TaskGroup() as group:
        for line in read_orders(orders, limit):
            if isinstance(line, BadLine):
                for problem in line.problems:
                    print(f"bad line {line.number}, {problem}")
            else:
                group.create_task(process_in_turn(line))


def main() -> None:
    parser = argparse.ArgumentParser(description="Process every order of a file.")
    parser.add_argument("database", type=Path, help="the engine's file, for example orders.perdure")
    parser.add_argument("orders", type=Path, help="the orders, as JSON Lines")
    parser.add_argument("--limit", type=int, help="take only so many lines")
    options = parser.parse_args()
    asyncio.run(work(options.database, options.orders, options.limit))


if __name__ == "__main__":
    main()
