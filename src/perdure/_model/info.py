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
    """One execution as it stands."""

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
    """One entry of a journal."""

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
