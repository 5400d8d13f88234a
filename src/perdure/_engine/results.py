"""Waiting for the exit of an execution, wherever it ends.

One that ends in this worker's hands wakes its waiters directly. For every other one the store is
asked: on a hint that somebody else has written, and at intervals in case no hint comes.
"""

import asyncio
import functools
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from perdure._engine.patience import until_answered
from perdure._engine.registry import Registry
from perdure._engine.runner import Runner
from perdure._engine.waiters import Waiters
from perdure._model.records import ExecutionId, Record
from perdure._model.status import FINAL, is_final
from perdure._model.store import Store
from perdure._values.duration import describe_ms, to_ms
from perdure.errors import ExecutionNotFoundError, ExecutionTimeoutError, StoreUnavailableError, UsageError

if TYPE_CHECKING:
    from perdure._model.clock import Alarm

logger = logging.getLogger("perdure")

# Whoever waits for an execution of an unknown workflow hears of it after this long (R3).
UNREGISTERED_MS = 5_000


class Results:
    """Gives callers of one engine the exits that they wait for."""

    def __init__(self, store: Store, registry: Registry, runners: Mapping[ExecutionId, Runner]) -> None:
        self._store = store
        self._registry = registry
        # What this worker has in hand; the service's own.
        self._runners = runners
        self._waiters = Waiters()
        self._looking: set[asyncio.Task[None]] = set()
        # Workflows of executions that were started here, and are not registered here.
        self._looked_for: dict[str, Alarm] = {}

    async def wait(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit of an execution, once it has one."""
        if execution_id in self._runners:
            _check_workflow(execution_id, self._runners[execution_id].workflow, workflow)
        future = self._waiters.add(execution_id)
        clock = self._store.clock
        now = clock.now()
        # No lambda: a clock of tests sees by the method whose alarm it is, and skips no time for it.
        look = functools.partial(self._look_for_body, execution_id, workflow)
        alarms = [clock.call_at(now + UNREGISTERED_MS, look)]
        if timeout is not None:
            limit = now + round(timeout.total_seconds() * 1_000)
            alarms.append(clock.call_at(limit, lambda: _time_out(future, execution_id, timeout)))
        try:
            if execution_id not in self._runners and not future.done():
                # Only after the waiter is there: an end in between reaches one of the two.
                found = await self._ended(execution_id, workflow)
                if found is not None:
                    return found
            return await future
        finally:
            for alarm in alarms:
                alarm.cancel()
            self._waiters.discard(execution_id, future)

    def ended(self, execution_id: ExecutionId, exit: bytes) -> None:
        """An execution has ended in this worker's hands."""
        self._waiters.ended(execution_id, exit)

    async def look(self) -> None:
        """Tell those who wait for executions that have ended elsewhere."""
        wanted = self._waiters.wanted(self._runners)
        if not wanted:
            return
        for record in await self._store.read(wanted):
            if is_final(record.status):
                assert record.exit is not None
                self._waiters.ended(record.execution_id, record.exit)

    def close(self) -> None:
        """Nobody will be told any more."""
        for alarm in self._looked_for.values():
            alarm.cancel()
        for task in self._looking:
            task.cancel()
        self._waiters.fail_all(
            UsageError("The engine was closed while somebody waited for a result; it goes on later.")
        )

    async def _ended(self, execution_id: ExecutionId, workflow: str) -> bytes | None:
        record = await self.record(execution_id)
        if record is None:
            raise ExecutionNotFoundError(
                f"There is no execution {execution_id} of {workflow!r}.", execution_id=execution_id
            )
        _check_workflow(execution_id, record.workflow, workflow)
        return record.exit if record.status in FINAL else None

    async def record(self, execution_id: ExecutionId) -> Record | None:
        """The execution as it stands in the store, once that answers.

        Whoever joins or waits waits for the store as well; raised in an activity, an outage would be its result.
        """
        what = f"execution {execution_id} is looked for again"
        records = await until_answered(lambda: self._store.read([execution_id]), what, StoreUnavailableError)
        return records[0] if records else None

    def look_for_body(self, execution_id: ExecutionId, workflow: str) -> None:
        """Somebody waits for an execution of this workflow: say so, if nobody has registered it after a while (R3)."""
        clock = self._store.clock
        look = functools.partial(self._look_for_body, execution_id, workflow)
        if workflow not in self._looked_for:
            # Once for each workflow: a body may start thousands that nobody has registered.
            self._looked_for[workflow] = clock.call_at(clock.now() + UNREGISTERED_MS, look)

    def _look_for_body(self, execution_id: ExecutionId, workflow: str) -> None:
        if workflow not in self._registry:
            task = asyncio.get_running_loop().create_task(self._say_unregistered(execution_id, workflow))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _say_unregistered(self, execution_id: ExecutionId, workflow: str) -> None:
        try:
            workers = [worker for worker in await self._store.workers() if worker.retired_at is None]
        except StoreUnavailableError:
            return  # others say that already
        if any(workflow in worker.workflows for worker in workers):
            return
        names = ", ".join(sorted({name for worker in workers for name in worker.workflows})) or "nothing"
        logger.warning(
            "execution %s waits: no worker has registered workflow %r. Registered are: %s",
            execution_id, workflow, names,
        )  # fmt: skip


def _check_workflow(execution_id: ExecutionId, found: str, asked: str) -> None:
    # Read with the schemas of another workflow, its result would be nonsense.
    if found != asked:
        raise UsageError(f"Execution {execution_id} belongs to workflow {found!r}, not to {asked!r}.")


def _time_out(future: asyncio.Future[bytes], execution_id: ExecutionId, timeout: timedelta) -> None:
    if not future.done():
        future.set_exception(
            ExecutionTimeoutError(
                f"Execution {execution_id} has not ended within {describe_ms(to_ms(timeout))}. Waiting longer may do; "
                "`await engine.describe(execution_id)` says where it stands, what it waits for, and why if it is held.",
                execution_id=execution_id,
            )
        )
