"""How an engine is set up."""

from dataclasses import dataclass
from datetime import timedelta

from perdure._engine.cache import DEFAULT_BYTES, DEFAULT_COUNT

# How long something is left alone that the store did not answer, before it is asked again.
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an engine is set up; every figure has a default that fits one process on one machine."""

    # Activities that run at once. Async ones are cheap; what bounds them is the far side.
    concurrency: int = 1_000
    # Threads for plain functions.
    threads: int = 32
    # Executions in hand at once; starts beyond are stored and claimed when there is room.
    admission: int = 1_000
    # Kernels that wait in memory: how many, and the bytes of journal behind them.
    cache_count: int = DEFAULT_COUNT
    cache_bytes: int = DEFAULT_BYTES
    # How long running activities may go on when the engine closes.
    grace: timedelta = timedelta(seconds=5)
    # The largest encoded payload or result.
    payload_limit: int = 4 * 1024 * 1024
