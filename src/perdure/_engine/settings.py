"""How an engine is set up."""

from dataclasses import dataclass
from datetime import timedelta

from perdure._engine.cache import DEFAULT_BYTES, DEFAULT_COUNT
from perdure._values.token import TokenKeys

# How long something is left alone that the store did not answer, before it is asked again.
PAUSE_S = 0.25
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an engine is set up; every figure has a default that fits one process on one machine."""

    # Activities that run at once. What a kill cuts off is as many, and nobody knows of any of them how it ended
    # (decision 0024).
    concurrency: int = 100
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
    # What tokens are signed with, and refused by; None: tokens are not signed (R19).
    token_keys: TokenKeys | None = None
    # How long finished executions are kept, where their workflow says nothing else; None: for ever (R2).
    retention_ms: int | None = DAY_MS * 30
