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
        if self.floor is None:
            return True
        if self.floor.kind == "exactly":
            # A count has no bad luck: one round that differs is a defect.
            return all(map(self.floor.is_met_by, self.samples))
        return self.floor.is_met_by(self.median)

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


Figures = dict[str, Figure]

IN_FLIGHT = (100, 1_000, 1)


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
        "import_ms": Figure("`import perdure`, fresh process", "ms", 0, Floor("at most", 250)),
        "import_all_ms": Figure("`from perdure import *`, fresh process", "ms"),
        "first_result_s": Figure("fresh process and file to the first result", "s", 3, Floor("at most", 0.6)),
        "parked_bytes": Figure("memory of a parked kernel", "bytes"),
        "evicted_bytes": Figure("memory of a suspended execution without its kernel (`cache=0`)", "bytes"),
        "disk_commits_per_s": Figure("raw limit: SQLite commits of one row, synchronous=FULL", "commits/s"),
        "disk_syncs_per_s": Figure("raw limit: fdatasync of 4 KiB", "syncs/s"),
        "others_cores": Figure("what others used of this machine meanwhile", "cores", 2),
    }
