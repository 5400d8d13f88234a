"""Places for what may go on at once: running activities. First come, first served."""

import asyncio
from collections import deque


class Slots:
    """A number of places. Unlike asyncio's Semaphore it is taken without a task, in the good case."""

    __slots__ = ("_free", "_queue")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._queue: deque[asyncio.Future[None]] = deque()

    def try_take(self) -> bool:
        """Take a place if one is free and nobody waits."""
        if self._free > 0:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """Wait for a place. Cancelled, none is taken."""
        if not self.try_take():
            await self.queue_up()

    async def queue_up(self) -> None:
        """Wait until somebody gives a place back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it had just been handed over
            raise

    def give(self) -> None:
        """Give a place back: to whoever has waited longest, or to nobody."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
