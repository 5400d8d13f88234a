"""Requests: what callers, operators and activities ask of an open engine, each durable when its answer comes.

Nothing here runs a body. What an answer sets going is found by the next round, wherever it runs: so
each request ends with a hint to the rounds, also if its caller was cancelled while it was written.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from perdure._engine.cache import Cache
from perdure._engine.lives import fork, rewind
from perdure._engine.patience import until_answered
from perdure._engine.runner import Runner
from perdure._engine.settings import Settings
from perdure._engine.starts import Starts
from perdure._engine.wakes import Wakes
from perdure._ids import new_sender
from perdure._model.records import INTERRUPTED, ExecutionId, Mail, MailKind, Receipt, Record
from perdure._model.store import Store
from perdure.errors import ExecutionNotFoundError, StoreError, StoreUnavailableError


class Office(Protocol):
    """What requests need of the engine around them."""

    @property
    def store(self) -> Store: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def cache(self) -> Cache: ...

    @property
    def wakes(self) -> Wakes: ...

    @property
    def starts(self) -> Starts: ...

    @property
    def runners(self) -> Mapping[ExecutionId, Runner]: ...

    @property
    def stopping(self) -> bool: ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str, /) -> object:
        """Run it beside everything else, for as long as the engine is open."""
        ...


class Requests:
    """The requests of one engine."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._store = office.store
        # Letters on their way to the store.
        self._posting = 0

    async def record(self, execution_id: ExecutionId, /) -> Record | None:
        """The execution as it stands in the store."""
        records = await self._store.read([execution_id])
        return records[0] if records else None

    async def resume(self, execution_id: ExecutionId, /, *, skip: bool = False) -> None:
        """Move a held execution; with `skip`, past the compensation that holds it."""
        try:
            found = await self._store.resume(execution_id, skip=skip)
        finally:
            # Also if the caller was cancelled meanwhile: the store may have done it, and in memory nobody else says so.
            self._office.wakes.poke()
        if found is None:
            raise _not_found(execution_id)

    async def interrupt(self, execution_id: ExecutionId, /) -> None:
        """Ask an execution to end; nothing on unknown or finished ones."""
        await self.deliver(Mail(execution_id, MailKind.INTERRUPT, "", INTERRUPTED))

    async def interrupt_unsafe(self, execution_id: ExecutionId, /) -> bool:
        """End an execution as INTERRUPTED, whatever it does and without any clean-up; whether it had not ended before."""
        ended = {Receipt.STORED}

        async def end() -> Receipt:
            try:
                return await self._store.interrupt_unsafe(execution_id, INTERRUPTED)
            except StoreUnavailableError:
                # It may have been done, and then the answer to the next try is that it has ended.
                ended.add(Receipt.FINISHED)
                raise

        receipt = await until_answered(end, f"{execution_id} is ended once more", StoreUnavailableError)
        if receipt is Receipt.UNKNOWN:
            raise _not_found(execution_id)
        runner = self._office.runners.get(execution_id)
        if runner is not None and receipt in ended:
            # Nothing that it still does can be written; an execution that sleeps would never find out.
            runner.drop()
        self._office.wakes.poke_mail()
        return receipt in ended

    async def deliver(self, mail: Mail, /) -> Receipt:
        """Have mail delivered, once; it is durable when this returns."""
        if not mail.sender:
            mail = mail._replace(sender=new_sender())
        # It may have been stored though nobody said so; sent again under the same sender it is known for its own.
        sent, what = mail, f"mail to {mail.execution_id} is sent again"
        try:
            [receipt] = await until_answered(lambda: self._post(sent), what, StoreUnavailableError)
        finally:
            self._office.wakes.poke_mail()
        return receipt

    async def _post(self, mail: Mail) -> list[Receipt]:
        """Deliver, and for a letter that is alone claim in the same breath.

        What waits for the store together becomes one transaction there: whom the letter wakes runs on after one write
        to the disk instead of two. Of many letters the next round claims all whom they wake at once.
        """
        self._posting += 1
        try:
            if self._posting > 1 or self._office.wakes.claims or self._office.stopping:
                return await self._store.deliver([mail])
            posted = asyncio.get_running_loop().create_task(self._store.deliver([mail]))
            self._office.spawn(self._claim_along(), "claim")
            return await posted
        finally:
            self._posting -= 1

    async def _claim_along(self) -> None:
        try:
            await self._office.wakes.claim()
        except StoreError:
            self._office.wakes.poke()  # a short cut only; the next round says what is wrong

    async def rewind(self, execution_id: ExecutionId, to: int, /) -> None:
        """Have a finished or held execution go on behind an entry of its journal, as a new life (R37)."""
        await rewind(self._store, execution_id, to)
        self._office.cache.forget(execution_id)
        self._office.wakes.poke_mail()

    async def fork(
        self, execution_id: ExecutionId, at: int, /, *, new_id: ExecutionId | None, compensates: bool
    ) -> ExecutionId:
        """Begin a new execution with the journal of another one, up to an entry (R49); its id."""
        keys = self._office.settings.token_keys
        birth = await fork(self._store, execution_id, at, new_id=new_id, compensates=compensates, keys=keys)
        await self._office.starts.bear(birth)
        return birth.execution_id

    async def published(self, execution_id: ExecutionId, /) -> dict[str, bytes]:
        """What a body has shown, by name, encoded."""
        found = await self._store.published(execution_id)
        if not found and await self.record(execution_id) is None:
            raise _not_found(execution_id)
        return found


def _not_found(execution_id: ExecutionId) -> ExecutionNotFoundError:
    return ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
