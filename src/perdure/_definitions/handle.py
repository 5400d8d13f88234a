"""A handle: one execution, seen from outside."""

from typing import Any, Generic

from typing_extensions import TypeVar

from perdure._definitions import ambient
from perdure._definitions.host import Engine
from perdure._model.records import ExecutionId, Record
from perdure._model.status import Status, is_final
from perdure._values.duration import Duration, to_timedelta
from perdure._values.exit import Complete, Failure, Poll, Suspended
from perdure._values.exit_codec import ExitCodec
from perdure.errors import ExecutionNotFoundError, UsageError, WorkflowIOError

A_co = TypeVar("A_co", covariant=True)


class Handle(Generic[A_co]):
    """One execution: its id, and what can be asked of it.

    Made by `Workflow.start` and `Workflow.handle`. Holding one keeps nothing alive, and losing one loses nothing.

    Attributes:
        execution_id: The execution.
        workflow: The name of its workflow.

    Example:
        ```python
        from perdure import Complete, Status, Success, WorkflowEngine, workflow


        @workflow(idempotency_key=lambda name: name)
        async def greet(name: str) -> str:
            return f"Hello, {name}"


        async with WorkflowEngine.memory([greet]):
            handle = await greet.start("ada")
            assert await handle.result(timeout="10 seconds") == "Hello, ada"
            assert await handle.status() is Status.SUCCEEDED
            assert await greet.handle(handle.execution_id).poll() == Complete(Success("Hello, ada"))
        ```
    """

    def __init__(
        self, execution_id: ExecutionId, workflow: str, codec: ExitCodec[Any], engine: Engine | None = None
    ) -> None:
        """Put a handle together; without an engine, each question goes to the one that is found around it."""
        self.execution_id = execution_id
        self.workflow = workflow
        self._codec = codec
        self._engine = engine

    async def result(self, timeout: Duration | None = None) -> A_co:
        """Wait for the end, and give the decoded value.

        Args:
            timeout: How long to wait; None: as long as it takes.

        Raises:
            Exception: The declared error it failed with; `Defect` or `Interrupted`; several as an ExceptionGroup.
            ExecutionTimeoutError: It has not ended by then. It goes on.
            ExecutionNotFoundError: There is no such execution.
            WorkflowIOError: Asked in a body.
        """
        engine = self._outside("result()")
        limit = None if timeout is None else to_timedelta(timeout)
        raw = await engine.wait_for_exit(self.execution_id, workflow=self.workflow, timeout=limit)
        return self._codec.decode(raw).unwrap()

    async def poll(self) -> Poll[A_co]:
        """Look at it: None (unknown or running), `Suspended(cause)`, or `Complete(exit)` (R33).

        The cause of a suspension is None where it only waits; where it is held, why.

        Raises:
            PayloadError: What is recorded cannot be read with today's types.
            WorkflowIOError: Asked in a body.
        """
        record = await self._record("poll()")
        if record is None:
            return None
        if is_final(record.status):
            return Complete(self._codec.decode(record.exit or b""))
        if record.status is not Status.SUSPENDED:
            return None
        held = self._codec.decode(record.exit) if record.held is not None and record.exit is not None else None
        return Suspended(held.cause if isinstance(held, Failure) else None)

    async def status(self) -> Status:
        """Tell where it stands.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            WorkflowIOError: Asked in a body.
        """
        record = await self._record("status()")
        if record is None:
            raise ExecutionNotFoundError(
                f"No execution {self.execution_id} of workflow {self.workflow!r}.", execution_id=self.execution_id
            )
        return record.status

    async def resume(self) -> None:
        """Move it on, if it is held; harmless on every other.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            WorkflowIOError: Asked in a body.
        """
        await self._outside("resume()").resume_execution(self.execution_id)

    def __repr__(self) -> str:
        return f"<Handle {self.workflow} {self.execution_id}>"

    async def _record(self, what: str) -> Record | None:
        record = await self._outside(what).record(self.execution_id)
        if record is not None and record.workflow != self.workflow:
            # Read with the schemas of another workflow, its result would be nonsense or look like a broken journal.
            raise UsageError(
                f"Execution {self.execution_id} belongs to workflow {record.workflow!r}, not to {self.workflow!r}."
            )
        return record

    def _outside(self, what: str) -> Engine:
        """The engine to ask, where asking is allowed: other executions change while a body replays (R42)."""
        if ambient.host.get() is not None:
            raise WorkflowIOError(
                f"{what} reads another execution, which a replay would find in another state. Move it to an activity."
            )
        return self._engine or ambient.find_engine()
