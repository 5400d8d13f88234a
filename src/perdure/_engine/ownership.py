"""Ownership: being alive to the other workers, inheriting from dead ones, and owning only what is known.

Three things are looked after at every interval. A worker that was retired by others (it slept, it
lost its lock) has lost everything it owned: it drops all of it and registers anew, under another
id. A worker that is dead is retired, and what it owned is pending again. And what the store says
this worker owns and nobody here knows (a claim whose answer was lost) is given back, when it is so
twice in a row: once may be an answer that is still on its way.
"""

import logging
from collections.abc import Collection, Mapping

from perdure._model.records import ExecutionId, WorkerId
from perdure._model.store import Store

logger = logging.getLogger("perdure")


class Ownership:
    """What one worker owns on paper, held against what it has in hand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Owned on paper and unknown here when last looked, with their fences.
        self._strangers: dict[ExecutionId, int] = {}
        # What it owned when last looked; and what was in hand then and not among it, with its fence.
        self._owned: dict[ExecutionId, int] = {}
        self._missing: dict[ExecutionId, int] = {}

    async def alive(self, worker_id: WorkerId) -> bool:
        """Whether this worker still counts as alive."""
        return await self._store.alive(worker_id)

    async def inherit(self, worker_id: WorkerId) -> int:
        """Retire dead workers; how many executions became pending."""
        freed = await self._store.take_over(worker_id)
        if freed:
            logger.info("took over %d execution(s) of workers that are gone", freed)
        return freed

    async def reconcile(self, worker_id: WorkerId, known: Collection[ExecutionId]) -> int:
        """Give back what is owned and unknown for the second time; how many."""
        self._owned = owned = await self._store.owned(worker_id)
        strangers = {id_: fence for id_, fence in owned.items() if id_ not in known}
        again = {id_: fence for id_, fence in strangers.items() if self._strangers.get(id_) == fence}
        self._strangers = strangers
        if not again:
            return 0
        logger.warning("giving back %d execution(s) that this worker owns on paper only", len(again))
        return await self._store.give_back(worker_id, again)

    def lost(self, in_hand: Mapping[ExecutionId, int]) -> list[ExecutionId]:
        """What is in hand here and is not owned, for the second time in a row: once may be a claim since the look."""
        missing = {id_: fence for id_, fence in in_hand.items() if self._owned.get(id_) != fence}
        again = [id_ for id_, fence in missing.items() if self._missing.get(id_) == fence]
        self._missing = missing
        return again
