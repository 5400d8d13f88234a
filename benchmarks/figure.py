"""The figures: what each is called, its unit, and what it must reach."""

import statistics
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Floor:
    """What the median of a figure must reach."""

    kind: Literal["at least", "at most", "exactly"]
    value: float

    def is_met_by(self, median: float) -> bool:
        match self.kind:
            case "at least":
                return median >= self.value
            case "at most":
                return median <= self.value
            case "exactly":
                return abs(median - self.value) < 1e-9  # a quotient of two counts


@dataclass(slots=True)
class Figure:
    """One figure, and what was measured of it in each round."""

    title: str
    unit: str
    digits: int = 0
    floor: Floor | None = None
    samples: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def is_met(self) -> bool:
        if self.floor is None or not self.samples:
            return True
        if self.floor.kind == "exactly":
            # A count has no bad luck: one round that differs is a defect.
            return all(map(self.floor.is_met_by, self.samples))
        return self.floor.is_met_by(self.median)

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


Figures = dict[str, Figure]

IN_FLIGHT = (100, 1_000, 1)

# How many wait for others.
WAITING = 10_000
CHILDREN = 1_000
SLEEPERS = 15_000

# How large the large ones are.
SUSPENDED = 100_000
EXECUTED = 200_000
FINISHED = 1_000_000

# What a program asks, and what the store is asked, and how much more it may cost beside a million finished executions than
# beside none.
BESIDE: dict[str, float | None] = {
    "start of an execution with a key, by a program": 1.2,
    "execution of one step with a key, by a program": 1.2,
    "a whole life": 1.5,
    # Without a limit of its own: of a hundred in one transaction each has a page of the index of ids to itself, and pays
    # for that page, however many there are. What a program pays for a start stands above.
    "start": None,
    "start without a key": 1.5,
    "step": 1.5,
    "suspend": 1.5,
    "end": 1.5,
    "claim": 1.5,
    "promote": 1.5,
    "next_wake": 1.5,
    "deliver": 1.5,
    "mail_for": 1.5,
    "keep house": 1.5,
    "load": 1.5,
    "read": 1.5,
    "list": 1.5,
    "list suspended": 1.5,
    "list failed": 1.5,
}


def new_figures() -> Figures:
    """Every figure, in the order of the report, without samples."""
    floors = {100: Floor("at least", 10_000)}
    figures: Figures = {}
    for width in IN_FLIGHT:
        what = f"10 steps, {width:,} in flight"
        figures |= {
            f"steps_per_s_{width}": Figure(what, "steps/s", 0, floors.get(width)),
            f"cpu_us_per_step_{width}": Figure(f"{what}: CPU, all threads", "µs a step", 1),
            f"rows_per_commit_{width}": Figure(f"{what}: rows a transaction", "rows", 1),
            f"raw_rows_per_s_{width}": Figure(f"{what}: raw limit, the same rows in such transactions", "rows/s"),
        }
    return figures | {
        "commits_per_step": Figure("10 steps: commits a step", "(N+1)/N", 3, Floor("exactly", 1.1)),
        "rows_per_step": Figure("10 steps: journal rows a step", "rows", 3, Floor("exactly", 1)),
        "one_step_p50_ms": Figure("one-step workflow, start to result, p50", "ms", 2, Floor("at most", 2)),
        "one_step_p99_ms": Figure("one-step workflow, start to result, p99", "ms", 2),
        "gather_ms": Figure("gather of 1,000 activities", "ms", 1, Floor("at most", 100)),
        "busy_p50_ms": Figure("10 steps beside a loop that is never idle, p50", "ms", 1, Floor("at most", 200)),
        "busy_times": Figure("the same, to what they take in an idle loop", "times", 1),
        "import_ms": Figure("`import perdure`, fresh process", "ms", 0, Floor("at most", 250)),
        "import_all_ms": Figure("`from perdure import *`, fresh process", "ms"),
        "first_result_s": Figure("fresh process and file to the first result", "s", 3, Floor("at most", 0.6)),
        "parked_bytes": Figure("memory of a parked kernel", "bytes"),
        "evicted_bytes": Figure("memory of a suspended execution without its kernel (`cache=0`)", "bytes"),
        "round_trip_ms": Figure("a deferred: `succeed` to the result, p50", "ms", 2, Floor("at most", 2)),
        "completions_per_s": Figure(
            f"{WAITING:,} wait for a deferred each: completions from outside",
            "completions/s",
            0,
            Floor("at least", 2_000),
        ),
        "ended_per_s": Figure("the same: until all have ended", "executions/s"),
        "children_s": Figure(f"a parent with {CHILDREN:,} children, at once", "s", 2, Floor("at most", 1)),
        "sleepers_per_s": Figure(
            f"{SLEEPERS:,} sleepers started, until all are asleep", "executions/s", 0, Floor("at least", 3_000)
        ),
        **_large_figures(),
        "disk_commits_per_s": Figure("raw limit: SQLite commits of one row, synchronous=FULL", "commits/s"),
        "disk_syncs_per_s": Figure("raw limit: fdatasync of 4 KiB", "syncs/s"),
        "others_cores": Figure("what others used of this machine meanwhile", "cores", 2),
    }


def _large_figures() -> Figures:
    """What is flat, or ought to be, as there come to be many executions; and what a kill costs."""
    suspended, executed, finished = f"{SUSPENDED:,} suspended", f"{EXECUTED:,} executed", f"{FINISHED:,} finished"
    return {
        "suspended_bytes": Figure(
            f"{suspended}: the process grows by, each parked", "bytes", 0, Floor("at most", 12_000)
        ),
        "suspended_evicted_bytes": Figure(
            f"{suspended}: the process grows by, each put away (`cache=0`)", "bytes", 0, Floor("at most", 200)
        ),
        "executed_growth": Figure(
            f"{executed}: the process after all, to that after a quarter", "times", 3, Floor("at most", 1.05)
        ),
        "executed_bytes": Figure(f"{executed}: it has grown by, each", "bytes", 1),
        "replay_plain_per_s": Figure("replay, a new engine, plain values", "entries/s", 0, Floor("at least", 100_000)),
        "replay_per_s": Figure(
            "replay, a new engine, models: claim, read, decode", "entries/s", 0, Floor("at least", 100_000)
        ),
        "replay_per_cpu_s": Figure("replay, a new engine, in a second of CPU", "entries/s"),
        "replay_kernel_per_cpu_s": Figure("replay, the kernel alone, in a second of CPU", "entries/s"),
        "replay_load_per_cpu_s": Figure("replay, reading alone, in a second of CPU", "entries/s"),
        **{
            f"finished_{verb}": Figure(
                f"{finished}: {verb}, CPU to that beside none",
                "times",
                2,
                None if most is None else Floor("at most", most),
            )
            for verb, most in BESIDE.items()
        },
        "recovery_s": Figure("`kill -9` of 500 x 10 steps of 20 ms: until all have ended", "s", 2, Floor("at most", 2)),
        "recovery_cpu_s": Figure("the same: CPU of the process that ends them", "s", 2),
        "recovery_cut_off": Figure("the same: steps done again, cut off by the kill", "steps"),
        "recovery_unrecorded": Figure(
            "the same: steps done again, ended and not yet recorded", "steps", 0, Floor("at most", 10)
        ),
        "recovery_all_s": Figure("the same, `concurrency=1000`: until all have ended", "s", 2, Floor("at most", 2)),
        "recovery_all_cut_off": Figure("the same, `concurrency=1000`: cut off by the kill", "steps"),
        "recovery_all_unrecorded": Figure("the same, `concurrency=1000`: ended and not yet recorded", "steps"),
    }
