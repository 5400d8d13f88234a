"""Waiting for mail where no body can: an activity awaits a deferred in place (R14).

The mail is read by its execution as well, which may await it later; here somebody only looks for it,
whenever a round says that something may have come.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure._engine.patience import until_answered
from perdure._model.records import ExecutionId
from perdure._model.store import Store
from perdure.errors import ExecutionNotFoundError, StoreUnavailableError, UsageError

T = TypeVar("T")

# Behind every journal: who asks for what comes after it wants the mail only.
NO_ENTRIES = 2**62


class Letterbox:
    """Those who wait for mail in one engine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    async def wait(self, execution_id: ExecutionId, kind: str, name: str) -> bytes:
        """The exit of the mail of that kind and name, once it has come."""
        while True:
            # Before the look: what comes while the store is asked has another look taken.
            came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(came)
            try:
                found = await self._look(execution_id, kind, name)
                if found is not None:
                    return found
                if self._closed:
                    raise UsageError("The engine was closed while somebody waited for mail.")
                await came
            finally:
                self._waiting.discard(came)

    async def _look(self, execution_id: ExecutionId, kind: str, name: str) -> bytes | None:
        records = await self._patiently(execution_id, lambda: self._store.read([execution_id]))
        if not records:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        wanted = [(records[0].incarnation, NO_ENTRIES, 0)]
        [history] = await self._patiently(execution_id, lambda: self._store.load(wanted))
        return next((one.exit for one in history.letters if (one.kind, one.name) == (kind, name)), None)

    async def _patiently(self, execution_id: ExecutionId, ask: Callable[[], Awaitable[T]]) -> T:
        return await until_answered(ask, f"mail of {execution_id} is looked for again", StoreUnavailableError)

    def look(self) -> None:
        """Something may have come: let everybody look."""
        for came in self._waiting:
            if not came.done():
                came.set_result(None)

    def close(self) -> None:
        """Nothing comes any more."""
        self._closed = True
        self.look()
