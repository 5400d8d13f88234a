"""Starting: an execution is born in this worker's hands, stored for whoever has room, or joined.

A start is durable when its caller hears of it. Whether the execution is new is known only then, so
the first turn may have run for nothing; its effects have not.
"""

import asyncio
import logging
from typing import Final, Protocol

from perdure._definitions import ambient
from perdure._definitions.host import OnDuplicate
from perdure._engine.mismatch import heed_mismatch
from perdure._engine.registry import Registry
from perdure._engine.runner import Keeper, Runner, not_known_to_be_written
from perdure._engine.turns import Turns
from perdure._model.records import Answer, Commit, ExecutionId, Start, Verdict
from perdure._model.status import Status
from perdure._model.store import Store
from perdure._values.limit import check_size
from perdure.errors import (
    ExecutionExistsError,
    NotRegisteredError,
    StoreRefusedError,
    UsageError,
)

logger = logging.getLogger("perdure")

# What a start hears that has met an execution with its own payload.
_HERE: Final = Answer(Verdict.JOINED)


class Reception(Keeper, Protocol):
    """What a start needs of the engine around it."""

    @property
    def store(self) -> Store: ...

    @property
    def registry(self) -> Registry: ...

    @property
    def turns(self) -> Turns: ...

    @property
    def runners(self) -> dict[ExecutionId, Runner]: ...

    @property
    def payload_limit(self) -> int: ...

    @property
    def has_room(self) -> bool:
        """Whether a new execution may run here now, before all that is pending."""
        ...


class _Starter:
    """Whoever has a start written for others to run; the `Author` of its commit."""

    def __init__(self, reception: Reception, start: Start, written: asyncio.Future[Answer]) -> None:
        self._reception = reception
        self._start = start
        self._written = written

    def answered(self, answer: Answer, /) -> None:
        # Here and not behind the wait: its caller may have been cancelled meanwhile.
        self._reception.stored(self._start)
        if not self._written.done():
            self._written.set_result(answer)

    def refused(self, error: StoreRefusedError, /) -> None:
        if not self._written.done():
            self._written.set_exception(error)


class Starts:
    """Takes the starts of one engine."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        # Starts on their way into the store, for whoever has room.
        self._unwritten: dict[asyncio.Future[Answer], Start] = {}

    async def start(self, start: Start, *, on_duplicate: OnDuplicate) -> None:
        """Start or join; it is durable when this returns."""
        self._check(start)
        runner = self._reception.runners.get(start.execution_id)
        answer = await self._write(start) if runner is None else await self._meet(runner, start)
        if answer.verdict is Verdict.LOST:
            # This worker was retired while the birth was on its way; a start that waits needs no worker.
            answer = await self._store(start)
        if answer.verdict is Verdict.JOINED:
            _join(start, answer, on_duplicate)

    async def _meet(self, runner: Runner, start: Start) -> Answer:
        """What becomes of a start whose execution this worker has in hand already."""
        # Shielded: cancelling one caller must not cancel the birth that others wait for. A birth that is lost was
        # written nowhere, and its own starter may have gone meanwhile: whoever else waits has it written.
        born = _HERE if runner.born is None else await asyncio.shield(runner.born)
        if born.verdict is Verdict.LOST:
            return born
        if start.payload != runner.payload or (start.restarts and born.verdict is Verdict.JOINED):
            # It may be that of an earlier life, which only the store knows; and so whether what was met there has failed.
            return await self._store(start)
        # To a birth that has itself JOINED, the store has said what it has met.
        return born if born.verdict is Verdict.JOINED else _HERE

    def give_up(self) -> None:
        """The engine has closed; what is still on its way is not known to be written."""
        for written, start in self._unwritten.items():
            written.set_exception(not_known_to_be_written(start.execution_id, start.workflow))
            written.exception()  # its starter may have gone

    def _check(self, start: Start) -> None:
        reception = self._reception
        # An activity that still has its grace may start something: refusing it would become its recorded result (R9).
        if reception.stopping and ambient.attempt.get() is None:
            raise UsageError("The engine is closing and takes no new executions.")
        check_size(start.payload, reception.payload_limit, f"The payload of {start.workflow!r}", start.workflow)
        if start.workflow not in reception.registry and not reception.store.shared:
            raise NotRegisteredError(
                f"No body of workflow {start.workflow!r} is registered in this memory engine ({reception.registry} is), "
                "and no other process can have one. Add its implementation to the engine's list.",
                workflow=start.workflow,
            )

    async def _write(self, start: Start) -> Answer:
        reception = self._reception
        implementation = reception.registry.get(start.workflow)
        if implementation is None or start.due_at is not None or start.restarts or not reception.has_room:
            return await self._store(start)
        runner = Runner.born_here(reception, implementation, start)
        assert runner.born is not None
        reception.runners[start.execution_id] = runner
        reception.turns.soon(runner, runner.bear, start)
        return await asyncio.shield(runner.born)

    async def bear(self, birth: Commit) -> None:
        """Have an execution stored that is born with a journal, for whoever has room.

        Raises:
            ExecutionExistsError: There is one of its id.
        """
        assert birth.start is not None
        self._check(birth.start)
        answer = await self._submit(birth, birth.start)
        if answer.verdict is Verdict.JOINED:
            raise ExecutionExistsError(
                f"Execution {birth.execution_id} exists already; choose another id.", execution_id=birth.execution_id
            )

    async def _store(self, start: Start) -> Answer:
        """Store it for whoever has room, now or later."""
        status = Status.PENDING if start.due_at is None else Status.SUSPENDED
        commit = Commit(start.execution_id, start.incarnation, 0, 0, status, start, wake_at=start.due_at)
        return await self._submit(commit, start)

    async def _submit(self, commit: Commit, start: Start) -> Answer:
        written: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._unwritten[written] = start
        written.add_done_callback(lambda _: self._unwritten.pop(written, None))

        self._reception.committer.submit(commit, _Starter(self._reception, start, written))
        return await asyncio.shield(written)


def _join(start: Start, answer: Answer, on_duplicate: OnDuplicate) -> None:
    if on_duplicate == "reject":
        raise ExecutionExistsError(
            f"Execution {start.execution_id} of {start.workflow!r} exists already, and on_duplicate is 'reject'.",
            execution_id=start.execution_id,
        )
    for met in answer.met:
        heed_mismatch(start, met.payload)
