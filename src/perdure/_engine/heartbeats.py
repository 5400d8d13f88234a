"""What attempts say of their progress, on its way to the store and back (R15).

No entry, no fence, and the last word wins: a heartbeat that is lost costs the next attempt a little
work. What has been noted and is not written yet is kept here, so that an attempt which follows at
once in the same process finds it.
"""

import asyncio
import logging
from typing import Protocol

from perdure._engine.patience import until_answered
from perdure._model.store import Store
from perdure.errors import StoreError

logger = logging.getLogger("perdure")


Step = tuple[bytes, str, int]  # incarnation, name, occurrence


class Progressing(Protocol):
    """An attempt, as far as its heartbeats go."""

    @property
    def step(self) -> Step: ...


class Heartbeats:
    """Writes heartbeats in the background, one at a time for each step."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[Step, bytes] = {}
        self._writing: dict[Step, asyncio.Task[None]] = {}

    def note(self, attempt: Progressing, details: bytes) -> None:
        """Have it written soon."""
        step = attempt.step
        self._noted[step] = details
        if step not in self._writing:
            self._writing[step] = asyncio.get_running_loop().create_task(self._write(step), name="perdure heartbeat")

    async def recall(self, attempt: Progressing) -> bytes | None:
        """What was noted last for this step."""

        async def look() -> bytes | None:
            noted = self._noted.get(attempt.step)
            return noted if noted is not None else await self._store.heartbeat(*attempt.step)

        # Without it the attempt would begin from nothing, so it begins later.
        return await until_answered(look, "an attempt waits for its last heartbeat")

    async def settled(self) -> None:
        """Wait until everything noted is written."""
        while self._writing:
            await asyncio.gather(*self._writing.values())

    async def _write(self, step: Step) -> None:
        try:
            while True:
                details = self._noted[step]
                await self._store.save_heartbeat(*step, details)
                if self._noted[step] is details:
                    return
        except StoreError as error:
            logger.info("a heartbeat was not written: %s", error)
        finally:
            self._noted.pop(step, None)
            del self._writing[step]
