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
    """Something that an execution waits for.

    Attributes:
        kind: "activity", "timer", "deferred", "child" or "message".
        name: The activity's, the timer's, the deferred's, the child's workflow's, the channel's.
        due_at: When a timer fires, or an activity is tried again; None: nobody knows when it comes.
        execution_id: The child that is waited for.
        queued: Of an activity, whether it waits for a place, or a thread, of its engine (`concurrency=`, `threads=`). Known
            to that engine alone.
    """

    kind: str
    name: str
    due_at: datetime | None = None
    execution_id: str | None = None
    queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """One execution as it stands, for those who look.

    `describe` tells all of it; a listing leaves out what takes a look into the journal: `last_error`, `attempts`,
    `failed_step`, `failed_with`, `published`, `progress` and `interrupted_at`.

    Attributes:
        execution_id: Its id, 32 hex digits.
        workflow: The workflow's name.
        key: The readable idempotency key; None where the id is random.
        status: PENDING, RUNNING, SUSPENDED, or how it has ended.
        held: Why it will not move by itself; None: it is not held.
        cause: The cause of being held.
        failed_with: Where a compensation holds it, what its body had failed with, or been ended by; None: it had succeeded.
        last_error: Why an attempt of an activity failed last; None: none has lately.
        attempts: Which attempt that was, from 1; 0: none.
        failed_step: The activity of that attempt.
        exit: How it ended; None while it has not. A success is plain JSON, since the workflow's types may not be here.
        waits: What it waits for; of one that runs, as its worker knows it, so told by that worker only.
        compensations: What is to be undone if it fails now, the next one first.
        wake_at: When it wakes by itself; None: it does not, or is awake.
        priority: The higher, the earlier it is taken up.
        attributes: What `options(attributes=…)` and `set_attributes` have set.
        payload: What it was started with, as plain JSON.
        published: What its body has published by name, as plain JSON.
        progress: The published value of that name.
        parent: The execution that has started it as its child.
        deadline: When it is interrupted, unless it has ended by then.
        interrupted_at: When somebody has asked it to end, else when its deadline has; None: nobody lately.
        version: The version of the code that has started it.
        worker: The worker that runs it.
        crashes: How often in a row a worker was lost with it, without progress between.
        incarnation: The number of its life, from 1.
        created_at: When it was started.
        began_at: When a worker took it up first; None: none has.
        changed_at: When its status last changed.
        finished_at: When it ended; None: it has not.
        damaged: Columns of its row that cannot be read, since the file is damaged. What they say is left out above.

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
    key: str | None
    status: Status
    held: Held | None
    cause: Cause | None
    failed_with: Cause | None = None
    last_error: Cause | None = None
    attempts: int = 0
    failed_step: str | None = None
    exit: Exit[Any] | None
    waits: tuple[Wait, ...] = ()
    compensations: tuple[str, ...] = ()
    wake_at: datetime | None = None
    priority: int = 0
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    payload: Any = None
    published: Mapping[str, Any] = field(default_factory=dict[str, Any])
    progress: Any = None
    parent: str | None = None
    deadline: datetime | None = None
    interrupted_at: datetime | None = None
    version: str | None = None
    worker: str | None = None
    crashes: int = 0
    incarnation: int = 1
    created_at: datetime
    began_at: datetime | None
    changed_at: datetime
    finished_at: datetime | None
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One entry of a journal: what an execution was told, or told to remember.

    Attributes:
        seq: Its place, from 1.
        kind: What was asked: "activity", "timer", "deferred", "child", "message" and others.
        name: The name of what was asked.
        occurrence: Which call of that kind and name it answers, from 1.
        attempt: Which try of an activity, from 1; 0 where there are no attempts.
        input: What was asked, as plain JSON.
        exit: How it ended; None where there is nothing to tell.
        retry_at: When the next attempt is due, where this one failed and is tried again.
        at: When it came.

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
    attempt: int
    input: Any
    exit: Exit[Any] | None
    retry_at: datetime | None
    at: datetime
