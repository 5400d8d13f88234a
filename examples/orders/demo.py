"""The demo: a thousand orders, one worker, one `kill -9` in the middle of a payment, and nobody is charged twice.

It starts the gateway and the worker as processes of their own, kills the worker while the gateway has charged cards
and not yet answered, starts it again, and compares what the engine, the gateway and the shop say in the end.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from audit import Accounts, problems, read_ledger, read_outcomes
from order import Order, read_orders
from payments import client_name
from screen import Screen, open_screen
from stage import ORDERS, DemoError, Stage, lines

KILL_AT = 0.4  # so much of the good orders is charged when the gateway begins to hold its answers back
FEWEST, MOST = 20, 1000  # with fewer orders than that nothing may be left to do after the kill


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What was going on when the worker was killed."""

    at: float  # seconds since the epoch
    finished: int
    in_flight: int
    unanswered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the demo has shown; `problems` is empty when nothing was lost and nobody was charged twice."""

    orders: int
    bad_lines: int
    completed: int
    declined: int
    requests: int
    charges: int
    finished_at_kill: int
    in_flight_at_kill: int
    unanswered_at_kill: int
    repeats_after_kill: int
    recovery_ms: int
    took_ms: int
    problems: list[str]


@dataclass(slots=True)
class Tally:
    """What the workers have said so far; the second one says again what the first one has said."""

    screen: Screen
    finished: set[str] = field(default_factory=set)
    complaints: set[str] = field(default_factory=set)

    def note(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "bad" and line not in self.complaints:
            self.complaints.add(line)
            self.screen.say(f"  {line}", "yellow")
        elif kind in {"completed", "declined", "failed"}:
            self.finished.add(rest.partition(" ")[0])
            self.screen.progress(len(self.finished))


async def follow(worker: Process, tally: Tally) -> int:
    """Note what a worker says until it ends; gives its exit status, negative for a signal."""
    async for line in lines(worker):
        tally.note(line)
    return await worker.wait()


async def kill_in_mid_payment(stage: Stage, worker: Process, tally: Tally) -> Kill:
    """Kill the worker when the gateway has charged cards and holds back the answers."""
    following = asyncio.create_task(follow(worker, tally))
    while not (status := await stage.gateway_status())["holding"]:
        if following.done():
            raise DemoError(f"the worker ended by itself, with status {following.result()}, before it was killed")
        await asyncio.sleep(0.01)
    killed_at = time.time()
    worker.send_signal(signal.SIGKILL)
    if await following != -signal.SIGKILL:
        raise DemoError("the worker ended by itself just before it was killed")
    await stage.release_answers()
    return Kill(
        at=killed_at, finished=len(tally.finished), in_flight=status["in_flight"], unanswered=status["unanswered"]
    )


async def play(stage: Stage, orders: list[Order], screen: Screen) -> tuple[Kill, str, str]:
    """Process all orders with a worker that is killed and one that goes on; the ledger knows them by their names."""
    tally = Tally(screen)
    async with stage.gateway(hold_after=int(len(orders) * KILL_AT)):
        async with stage.worker() as first:
            screen.say(f"worker {first.pid} starts")
            kill = await kill_in_mid_payment(stage, first, tally)
        screen.say(
            f"kill -9 {first.pid}: {kill.finished} orders finished, {kill.in_flight} calls in flight at the gateway,"
            f" {kill.unanswered} of them charged and not yet answered",
            "bold red",
        )
        async with stage.worker() as second:
            screen.say(f"worker {second.pid} starts on the same file", "bold green")
            if status := await follow(second, tally):
                raise DemoError(f"the second worker ended with status {status}")
    return kill, client_name(first.pid), client_name(second.pid)


async def demonstrate(stage: Stage, limit: int, screen: Screen) -> Report:
    began = time.monotonic()
    orders = [line for line in read_orders(ORDERS, limit) if isinstance(line, Order)]
    kill, first, second = await play(stage, orders, screen)
    took = time.monotonic() - began
    accounts = read_ledger(stage.ledger)
    outcomes = await read_outcomes(stage.database, orders)
    completed = sum(receipt is not None for receipt in outcomes.values())
    return Report(
        orders=limit,
        bad_lines=limit - len(orders),
        completed=completed,
        declined=len(outcomes) - completed,
        requests=accounts.requests,
        charges=sum(map(len, accounts.charges.values())),
        finished_at_kill=kill.finished,
        in_flight_at_kill=kill.in_flight,
        unanswered_at_kill=kill.unanswered,
        repeats_after_kill=accounts.repeats.get(second, 0),
        recovery_ms=round((accounts.first_request_at[second] - kill.at) * 1000),
        took_ms=round(took * 1000),
        problems=[*problems(orders, outcomes, accounts, stage.shop), *repeat_problems(accounts, kill, first, second)],
    )


def repeat_problems(accounts: Accounts, kill: Kill, first: str, second: str) -> Iterator[str]:
    if early := accounts.repeats.get(first):
        yield f"{early} requests were repeated before anything was killed"
    if accounts.repeats.get(second, 0) < kill.unanswered:
        yield f"{kill.unanswered} charges were unanswered at the kill, and not all of them were asked for again"


def summary(report: Report) -> str:
    rows = [
        ("orders in the file", f"{report.orders:,}", ""),
        ("bad lines", f"{report.bad_lines:,}", "reported above by line and field, the rest went on"),
        ("completed", f"{report.completed:,}", ""),
        ("declined", f"{report.declined:,}", "by the bank; their stock is released"),
        ("requests at the gateway", f"{report.requests:,}", "those of busy moments are made again"),
        (
            "repeats after the kill",
            f"{report.repeats_after_kill:,}",
            "the same idempotency key, answered and not charged",
        ),
        ("charges", f"{report.charges:,}", ""),
        ("recovery", f"{report.recovery_ms / 1000:.2f} s", "from kill -9 to the next request of the new worker"),
        ("all of it", f"{report.took_ms / 1000:.1f} s", ""),
    ]
    table = "\n".join(f"  {name:<24}{value:>8}  {remark}".rstrip() for name, value, remark in rows)
    return f"\n{table}\n"


def verdict(report: Report) -> str:
    if not report.problems:
        return "Nothing lost: every good order is finished, every completed order was charged exactly once."
    shown = "\n".join(f"  {problem}" for problem in report.problems[:20])
    return f"{len(report.problems)} problems:\n{shown}"


@contextmanager
def directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="perdure-demo-") as temporary:
            yield Path(temporary)
        return
    keep.mkdir(parents=True, exist_ok=True)
    # The orders of an earlier demo are finished in its file, and nothing would be left to kill.
    if any(keep.iterdir()):
        raise DemoError(f"{keep} is not empty")
    yield keep


async def run(options: argparse.Namespace) -> Report:
    stream = sys.stderr if options.json else sys.stdout
    good = sum(isinstance(line, Order) for line in read_orders(ORDERS, options.orders))
    with directory(options.keep) as place, open_screen(stream, total=good) as screen:
        async with asyncio.timeout(options.timeout):
            return await demonstrate(Stage(place, options.orders), options.orders, screen)


def main() -> int:
    parser = argparse.ArgumentParser(description="Process orders, kill the worker in the middle, and lose nothing.")
    parser.add_argument(
        "--orders", type=int, default=MOST, metavar="N", help=f"take only the first N ({FEWEST} or more)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, everything else to stderr")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the files there, to look at them")
    parser.add_argument("--timeout", type=float, default=180, metavar="SECONDS", help="give up after this long")
    options = parser.parse_args()
    if not FEWEST <= options.orders <= MOST:
        parser.error(f"--orders must be from {FEWEST} to {MOST}")
    try:
        report = asyncio.run(run(options))
    except DemoError as error:
        print(f"The demo could not go on: {error}.", file=sys.stderr)
        return 2
    except TimeoutError:
        print(f"The demo did not end within {options.timeout:g} seconds.", file=sys.stderr)
        return 2
    print(json.dumps(asdict(report), indent=2) if options.json else f"{summary(report)}\n{verdict(report)}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
