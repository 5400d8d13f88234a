"""How long it takes after `kill -9` until everything has ended: 500 executions of ten steps of 20 ms, killed half way.

With as many activities at once as an engine runs by default the worker keeps up, and the records are as fresh as they
can be. All 500 at once ask for 25,000 steps a second, which is more than one worker does: whatever has ended then queues
for its record, and so it is with what a kill makes the next worker do again.

As a program it is the worker: it executes the same orders in each of its lives, as a user's program does. Every attempt
says in a file when it begins and when it has ended. What has been written survives the process (it need not survive a
power loss), so the steps that were done twice can be counted afterwards: those that were cut off, which no engine can
know the outcome of, apart from those that had ended and whose record was not durable yet.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from workload import STEPS, Order, make_orders

from perdure import WorkflowEngine, activity, workflow

EXECUTIONS: Final = 500
STEP_MS: Final = 20
DONE: Final = b"done\n"
# A process that has not come so far by then never will.
LIMIT_S: Final = 60.0

Step = tuple[str, str]  # the order, the position


class Recovery(NamedTuple):
    """What one kill has come to."""

    seconds: float  # from the start of the next process until the last execution has ended
    cpu_seconds: float  # of that process
    done: int  # steps that had ended before the kill
    cut_off: int  # steps done again because the kill had cut them off
    unrecorded: int  # steps done again although they had ended


# The worker ----------------------------------------------------------------------------------------------------------


@activity
async def pick(order_id: str, position: int) -> int:
    _say("b", order_id, position)
    # Drawn from what it is, so that every life of it takes as long.
    spread = random.Random(f"{order_id}/{position}").uniform(-_spread_ms, _spread_ms)
    await asyncio.sleep((STEP_MS + spread) / 1_000)
    _say("e", order_id, position)
    return position


@workflow(payload=Order, idempotency_key=lambda order: order.order_id)
async def pick_all(order: Order) -> int:
    return sum([await pick(order.order_id, position) for position in range(STEPS)])


def _say(what: str, order_id: str, position: int) -> None:
    # One write each, and to the end of the file: whatever kills us, no line is torn or lost.
    os.write(_ledger, f"{what} {order_id} {position}\n".encode())


async def work(database: str, concurrency: int | None) -> None:
    options = {} if concurrency is None else {"concurrency": concurrency}
    async with WorkflowEngine.sqlite(database, [pick_all], **options):
        await asyncio.gather(*[pick_all.execute(order) for order in make_orders("order", EXECUTIONS)])
        os.write(_ledger, DONE)


# Whoever kills it ----------------------------------------------------------------------------------------------------


def measure_recovery(directory: Path, *, concurrency: int | None, spread_ms: int) -> Recovery:
    """Kill a worker half way, and let another one finish; None: as many activities at once as by default."""
    directory.mkdir()
    ledger = directory / "ledger"
    ledger.touch()
    command = [
        sys.executable,
        __file__,
        *map(str, (directory / "recovery.perdure", ledger, concurrency or 0, spread_ms)),
    ]
    first = subprocess.Popen(command)
    try:
        _wait(first, lambda: ledger.read_bytes().count(b"e ") >= EXECUTIONS * STEPS // 2)
    finally:
        first.kill()
        first.wait()
    before = ledger.read_bytes()
    began = time.perf_counter()
    second = subprocess.Popen(command)
    try:
        _wait(second, lambda: ledger.read_bytes().endswith(DONE))
        seconds = time.perf_counter() - began
    finally:
        _, _, usage = os.wait4(second.pid, 0)
        second.returncode = 0
    everything = ledger.read_bytes()
    assert len(_steps(everything, "e")) == EXECUTIONS * STEPS
    ended, again = _steps(before, "e"), _steps(everything[len(before) :], "b")
    cut_off = (_steps(before, "b") - ended) & again
    return Recovery(seconds, usage.ru_utime + usage.ru_stime, len(ended), len(cut_off), len(ended & again))


def _wait(process: "subprocess.Popen[bytes]", is_there: Callable[[], bool]) -> None:
    limit = time.perf_counter() + LIMIT_S
    while not is_there():
        if process.poll() is not None or time.perf_counter() > limit:
            raise RuntimeError(f"recovery.py has not come as far as it should have; its status is {process.poll()}")
        time.sleep(0.002)


def _steps(said: bytes, what: str) -> set[Step]:
    lines = [line.split(" ") for line in said.decode().splitlines()]
    return {(line[1], line[2]) for line in lines if line[0] == what}


if __name__ == "__main__":
    _ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    _spread_ms = int(sys.argv[4])
    asyncio.run(work(sys.argv[1], int(sys.argv[3]) or None))
