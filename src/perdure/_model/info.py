"""What is told of an execution to those who look: values for people, no encoded bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perdure._model.records import Attributes
from perdure._model.status import Held, Status
from perdure._values.cause import Cause
from perdure._values.exit import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that an execution waits for."""

    # "activity", "timer", "deferred", "child", "message": of which the name is the activity's, the timer's, the
    # deferred's, the child's workflow's, the channel's.
    kind: str
    name: str
    # When a timer fires, or an activity is tried again; None: nobody knows when it comes.
    due_at: datetime | None = None
    # The child that is waited for.
    execution_id: str | None = None


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
    # Why an attempt of an activity failed last, and which attempt that was, from 1; None and 0: none has lately.
    # Told by `describe` only, as are `published` and `progress`.
    last_error: Cause | None = None
    attempts: int = 0
    # The activity of that attempt.
    failed_step: str | None = None
    # How it ended; None while it has not. Success as plain JSON, since the workflow's types may not be here.
    exit: Exit[Any] | None
    # What it waits for; of one that runs, as its worker knows it, so told by that worker only.
    waits: tuple[Wait, ...] = ()
    # What is to be undone if it fails now, the next one first.
    compensations: tuple[str, ...] = ()
    # When it wakes by itself; None: it does not, or is awake.
    wake_at: datetime | None = None
    priority: int = 0
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    payload: Any = None
    # What its body has published by name, as plain JSON; `progress` is the one of that name.
    published: Mapping[str, Any] = field(default_factory=dict[str, Any])
    progress: Any = None
    # The execution that has started it as its child.
    parent: str | None = None
    # When it is interrupted, unless it has ended by then.
    deadline: datetime | None = None
    # When somebody, or its deadline, has asked it to end; None: nobody lately. Told by `describe` only.
    interrupted_at: datetime | None = None
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
    # Columns of its row that cannot be read: the file is damaged. What they say is left out above.
    damaged: tuple[str, ...] = ()


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
