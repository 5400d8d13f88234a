"""Who waits for the exit of which execution.

An execution that ends in this worker's hands wakes its waiters directly. For every other one the
store is asked: on a hint that somebody else has written, and at intervals in case no hint comes.
"""

import asyncio
from collections.abc import Iterable

from perdure._model.records import ExecutionId


class Waiters:
    """Futures by execution."""

    def __init__(self) -> None:
        self._futures: dict[ExecutionId, list[asyncio.Future[bytes]]] = {}

    def add(self, execution_id: ExecutionId) -> asyncio.Future[bytes]:
        """A future that gets the encoded exit."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(execution_id, []).append(future)
        return future

    def discard(self, execution_id: ExecutionId, future: asyncio.Future[bytes]) -> None:
        """Somebody does not wait any more."""
        waiting = self._futures.get(execution_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._futures[execution_id]

    def ended(self, execution_id: ExecutionId, exit: bytes) -> None:
        """Tell everybody who waits for this execution."""
        for future in self._futures.pop(execution_id, ()):
            if not future.done():
                future.set_result(exit)

    def fail_all(self, error: Exception) -> None:
        """The engine closes: nobody will be told any more."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # its caller may still be looking in the store, and find what it waits for
        self._futures.clear()

    def wanted(self, but: Iterable[ExecutionId]) -> list[ExecutionId]:
        """The executions that somebody waits for, without those that this worker runs itself."""
        return list(self._futures.keys() - set(but)) if self._futures else []
