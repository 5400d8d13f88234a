"""A handle: one execution, seen from outside."""

from typing import Any, Generic, overload

from typing_extensions import TypeForm, TypeVar

from perdure._definitions import ambient
from perdure._definitions.acting import interrupt_from_body, resume_from_body
from perdure._definitions.address import Named, give_token
from perdure._definitions.host import Engine, Host
from perdure._model.records import ExecutionId, Record
from perdure._model.status import Status, is_final
from perdure._values.duration import Duration, to_timedelta
from perdure._values.exit import Complete, Failure, Poll, Suspended
from perdure._values.exit_codec import ExitCodec
from perdure._values.schema import Schema
from perdure._values.token import Token
from perdure.errors import UsageError, WorkflowIOError

A_co = TypeVar("A_co", covariant=True)
T = TypeVar("T")


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

    async def status(self) -> Status | None:
        """Tell where it stands; None: there is no such execution, or not yet.

        Raises:
            WorkflowIOError: Asked in a body.
        """
        record = await self._record("status()")
        return None if record is None else record.status

    def token(self, deferred: Named, /, *, expires_in: Duration | None = None) -> Token:
        """Give the address of a deferred in this execution, for whoever is to complete it; whether it exists or not.

        Args:
            deferred: The deferred.
            expires_in: How long the token is taken; only where the engine signs its tokens. None: for ever.

        Raises:
            UsageError: It shall expire, and the engine has no `token_secret`.
        """
        return give_token(deferred, self.workflow, self.execution_id, engine=self._engine, expires_in=expires_in)

    async def explain(self) -> str:
        """Say in sentences where it stands, what it waits for, and which call moves it (R33).

        Raises:
            ExecutionNotFoundError: There is no such execution.
            WorkflowIOError: Asked in a body.
        """
        return await self._outside("explain()").explain(self.execution_id)

    @overload
    async def read(self, name: str, /) -> Any: ...
    @overload
    async def read(self, name: str, type_: TypeForm[T], /) -> T | None: ...
    async def read(self, name: str, type_: Any = Any, /) -> Any:
        """Give what its body has published last under a name; None: nothing yet.

        Args:
            name: As in `publish(name, value)`.
            type_: What it is; without it the value is plain JSON.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            PayloadError: What was published is not of that type.
            WorkflowIOError: Asked in a body.
        """
        raw = (await self._outside("read()").published(self.execution_id)).get(name)
        return None if raw is None else Schema(type_, f'"{name}", published by workflow "{self.workflow}"').decode(raw)

    async def interrupt(self) -> None:
        """Ask it to end (R29); nothing, if it has ended or is unknown.

        Its body sees `asyncio.CancelledError` at its current await, its finalizers and compensations run. Durable when
        this returns, and the execution ends later: `result()` says when, and raises `Interrupted`. In a body it is a step
        of the turn, done with its commit (R42).
        """
        host = self._body_here("interrupt()")
        if host is not None:
            interrupt_from_body(host, self.execution_id)
        else:
            await self._outside("interrupt()").interrupt_execution(self.execution_id)

    async def resume(self, *, skip: bool = False) -> None:
        """Move it on, if it is held; harmless on every other. In a body it is done with the turn's commit (R42).

        Args:
            skip: Where a compensation holds it: pass over that one and go on with the next (R28).

        Raises:
            ExecutionNotFoundError: There is no such execution. Not raised in a body.
            WorkflowIOError: A body asks to skip something: whether that is right has to be looked at first.
        """
        host = None if skip else self._body_here("resume()")
        if host is not None:
            resume_from_body(host, self.execution_id)
        else:
            await self._outside("resume(skip=True)" if skip else "resume()").resume_execution(
                self.execution_id, skip=skip
            )

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

    def _body_here(self, what: str) -> Host | None:
        """The body that asks; None: nobody's."""
        host = ambient.host.get()
        if host is not None and self._engine is not None:
            raise WorkflowIOError(
                f"{what} on a handle of a given engine, in a body: it acts in its own engine only. Move it to an activity."
            )
        return host

    def _outside(self, what: str) -> Engine:
        """The engine to ask, where asking is allowed: other executions change while a body replays (R42)."""
        if ambient.host.get() is not None:
            raise WorkflowIOError(
                f"{what} reads another execution, which a replay would find in another state. Move it to an activity."
            )
        return self._engine or ambient.find_engine()
