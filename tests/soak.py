"""How much a long test does: as much as fits a run of all tests, or a multiple of it, for a night."""

import os


def scaled(times: int) -> int:
    """So many, times the factor in `PERDURE_SOAK` (1 where it is not set; `make soak` sets it)."""
    return round(times * float(os.environ.get("PERDURE_SOAK", "1")))
