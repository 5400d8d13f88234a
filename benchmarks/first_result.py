"""A process that opens a new file, executes one workflow of one step, and says its result."""

import asyncio
import sys

from workload import make_orders, one_step

from perdure import WorkflowEngine


async def main(path: str) -> None:
    async with WorkflowEngine.sqlite(path, [one_step]):
        receipt = await one_step.execute(make_orders("order", 1)[0])
        print(receipt.charge_id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
