"""What is told of an execution to those who look: values for people, no encoded bytes."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perdure._model.records import Attributes
from perdure._model.status import Held, Status
from perdure._values.cause import Cause
from perdure._values.exit import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that a suspended execution waits for."""

    kind: str
    name: str
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """One execution as it stands, for those who look.

    Example:
        >>> import asyncio
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow(idempotency_key=lambda name: name)
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> ExecutionInfo:
        ...     async with WorkflowEngine.memory([greet]) as engine:
        ...         await greet.execute("ada")
        ...         return await engine.describe(greet.execution_id("ada"))
        >>> told = asyncio.run(main())
        >>> told.workflow, told.key, told.status.value, told.exit
        ('greet', 'ada', 'SUCCEEDED', Success(value='hello ada'))
    """

    execution_id: str
    workflow: str
    # The readable idempotency key; None where the id is random.
    key: str | None
    status: Status
    # Why it will not move by itself; None: it is not held.
    held: Held | None
    # The cause of being held.
    cause: Cause | None
    # How it ended; None while it has not. Success as plain JSON, since the workflow's types may not be here.
    exit: Exit[Any] | None
    waits: tuple[Wait, ...] = ()
    # When it wakes by itself; None: it does not, or is awake.
    wake_at: datetime | None = None
    priority: int = 0
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    payload: Any = None
    version: str | None = None
    # The worker that runs it.
    worker: str | None = None
    # Take-overs in a row without progress.
    crashes: int = 0
    incarnation: int = 1
    created_at: datetime
    began_at: datetime | None
    # When its status last changed.
    changed_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One entry of a journal: what an execution was told, or told to remember.

    Example:
        >>> import asyncio
        >>> from perdure import WorkflowEngine, activity, workflow
        >>> @activity
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> @workflow(idempotency_key=lambda n: str(n))
        ... async def twice(n: int) -> int:
        ...     return await double(n)
        >>> async def main() -> list[JournalEntry]:
        ...     async with WorkflowEngine.memory([twice]) as engine:
        ...         await twice.execute(21)
        ...         return await engine.journal(twice.execution_id(21))
        >>> [entry] = asyncio.run(main())
        >>> entry.seq, entry.kind, entry.name, entry.input, entry.exit
        (1, 'activity', 'double', {'n': 21}, Success(value=42))
    """

    seq: int
    kind: str
    name: str
    occurrence: int
    # Which try of an activity, from 1; 0 where there are no attempts.
    attempt: int
    # What was asked, as plain JSON.
    input: Any
    # How it ended; None where there is nothing to tell.
    exit: Exit[Any] | None
    # When the next attempt is due, where this one failed and is tried again.
    retry_at: datetime | None
    at: datetime
