"""How long finished executions are kept, and removing those that are older (R2, R18).

Each engine looks after the workflows that it has registered, since it alone knows what they say about themselves; two
engines on one store may do so at the same moment, because removing what is gone removes nothing. What nobody has
registered any more is kept until somebody calls `purge`. No task and no timer of its own waits for the next sweep:
the engine's rounds ask, so an idle engine pays nothing for it but one round an hour.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from perdure._engine.registry import Registry
from perdure._engine.settings import DAY_MS
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure.errors import StoreError

logger = logging.getLogger("perdure")

# Executions of one transaction. Commits that come meanwhile wait for one of these: about 10 ms, 50 on a busy machine.
BATCH: Final = 200
# Between two transactions, so that removing a million executions does not take half of the writer's time.
PAUSE_S: Final = 0.01
# After opening. Whoever opens an engine wants something else first, and a program may be over by then.
FIRST_MS: Final = 10_000
# Days are not counted by the minute, minutes are.
LONGEST_INTERVAL_MS: Final = 3_600_000
SHORTEST_INTERVAL_MS: Final = 60_000
# Retired workers tell whoever looks what has happened lately.
WORKERS_KEPT_MS: Final = DAY_MS


class Retention:
    """When one engine removes what is old, and what that is."""

    def __init__(self, store: Store, registry: Registry, kept_ms: int | None) -> None:
        self._store = store
        self._registry = registry
        # Of workflows that say nothing themselves; None: for ever.
        self._kept_ms = kept_ms
        # None: not begun, or a sweep is going on.
        self._next_at: Instant | None = None

    def begin(self) -> None:
        """The engine is open."""
        self._next_at = self._store.clock.now() + FIRST_MS

    @property
    def next_at(self) -> Instant | None:
        """When a sweep is due; None: none is, or one is going on."""
        return self._next_at if self._registry.names else None

    def take(self) -> bool:
        """Whether a sweep is due; it is the caller's then, and nobody else's."""
        due = self.next_at is not None and self.next_at <= self._store.clock.now()
        if due:
            self._next_at = None
        return due

    async def sweep(self) -> None:
        """Remove what is older than its workflow wants it kept, and forget workers that are long gone."""
        try:
            for workflow, kept_ms in self._kept():
                removed = await purge(self._store, workflow, self._store.clock.now() - kept_ms)
                if removed:
                    logger.info("removed %d finished execution(s) of %s, as its retention says", removed, workflow)
            await self._store.forget_workers(self._store.clock.now() - WORKERS_KEPT_MS)
        except StoreError as error:
            logger.warning("the store does not answer; what is old is removed later: %s", error)
        finally:
            self._next_at = self._store.clock.now() + self._interval_ms()

    def _kept(self) -> Iterator[tuple[str, int]]:
        """The workflows whose executions are not kept for ever, and how long they are kept."""
        for name in self._registry.names:
            chosen = self._registry[name].retention_ms
            kept_ms = self._kept_ms if chosen == "default" else chosen
            if kept_ms is not None:
                yield name, kept_ms

    def _interval_ms(self) -> int:
        shortest = min((kept_ms for _, kept_ms in self._kept()), default=LONGEST_INTERVAL_MS)
        return min(max(shortest, SHORTEST_INTERVAL_MS), LONGEST_INTERVAL_MS)


async def purge(store: Store, workflow: str | None, before: Instant) -> int:
    """Remove executions that ended at `before` or earlier, batch by batch; how many.

    Lives that were put aside by then go as well, and are not counted. Cut off or failed in between, what was removed is
    removed, and the rest is for the next time.
    """
    removed = await _repeat(store.purge, workflow, before)
    await _repeat(store.purge_lives, workflow, before)
    return removed


async def _repeat(
    remove: Callable[[str | None, Instant, int], Awaitable[int]], workflow: str | None, before: Instant
) -> int:
    removed = 0
    while batch := await remove(workflow, before, BATCH):
        removed += batch
        await asyncio.sleep(PAUSE_S)
    return removed
