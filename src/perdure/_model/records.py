"""What passes through the store's port: starts, commits and their answers, and what is read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from perdure._model.journal import Entry
from perdure._model.status import Held, Status
from perdure._values.instant import Instant

ExecutionId = str  # 32 lower-case hex digits (R1)
WorkerId = str  # random, new for every engine that opens

Attributes = Mapping[str, str | int | float | bool]


@dataclass(slots=True, kw_only=True, eq=False)
class Start:
    """An execution that is to come into being, as its starter writes it."""

    execution_id: ExecutionId
    # A time-ordered random id made by the starter. It keys journal and mailbox, and tells after a
    # lost reply whether the row that is there is this start's own.
    incarnation: bytes
    number: int = 1  # which life of the id
    workflow: str
    key: str | None = None  # the readable idempotency key; None where the id is random
    payload: bytes
    priority: int = 0
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    version: str | None = None
    # When the first turn was taken, where its starter has taken it already. None: the first claim says.
    began_at: Instant | None = None
    # When a delayed start is due: it is born SUSPENDED with this as its wake. None: at once.
    due_at: Instant | None = None
    parent: ExecutionId | None = None


@dataclass(slots=True, eq=False)
class Commit:
    """What one turn of one execution wants to have written, all of it or nothing.

    With `start` the execution is born in this commit: owned by the worker under fence 1, or already
    suspended or ended by its first turn. With `status` PENDING, or SUSPENDED until `start.due_at`,
    nobody has run it: its fence is 0, and the first claim makes it 1.
    """

    execution_id: ExecutionId
    incarnation: bytes
    # The number that this worker got with its claim. A store writes nothing under another one.
    fence: int
    # The highest number among the mail that the kernel has been fed. The execution may suspend or
    # end only if nothing newer has come (R18, wakes are never lost).
    seen: int
    # RUNNING keeps it; PENDING gives it back; SUSPENDED parks or, with `held`, holds it; else it ends.
    status: Status
    start: Start | None = None
    entries: Sequence[Entry] = ()
    # The exit when it ends; the cause when it is held.
    exit: bytes | None = None
    held: Held | None = None
    # When a suspended execution wants to be woken. None: only by mail.
    wake_at: Instant | None = None
    # What it waits for, as JSON, for those who look (R33). Written with a suspension.
    waits: bytes | None = None
    # Executions that its body started, detached (R42); they are born PENDING.
    starts: Sequence[Start] = ()
    # Whether the crashes counted against it are forgiven: it has got on since its claim (R41).
    calm: bool = False


class Verdict(StrEnum):
    """What became of a commit."""

    STARTED = "started"  # the execution is born, with everything in the commit
    JOINED = "joined"  # an execution of that id exists; nothing was written
    GRANTED = "granted"  # written
    STAYS = "stays"  # entries written, but mail has come: still RUNNING and yours; read it, try again
    APPLIED = "applied"  # it was there already: an earlier try whose answer was lost
    BUSY = "busy"  # somebody else's transaction is on the row; nothing written, send it again
    LOST = "lost"  # no longer this worker's; nothing written


class Answer(NamedTuple):
    """The store's answer to one commit of a batch."""

    verdict: Verdict
    # How far the mail of the execution goes, where the verdict is GRANTED or STAYS.
    wakes: int = 0


class Record(NamedTuple):
    """One execution as it stands in the store."""

    execution_id: ExecutionId
    incarnation: bytes
    number: int
    workflow: str
    key: str | None
    status: Status
    held: Held | None
    waits: bytes | None
    owner: WorkerId | None
    fence: int
    wakes: int
    wake_at: Instant | None
    crashes: int
    priority: int
    version: str | None
    parent: ExecutionId | None
    attributes: Attributes
    created_at: Instant
    began_at: Instant | None
    finished_at: Instant | None
    changed_at: Instant
    payload: bytes
    # The exit of a finished execution, the cause of a held one.
    exit: bytes | None


class Mail(NamedTuple):
    """Something that reaches an execution from outside."""

    execution_id: ExecutionId
    kind: str
    name: str
    exit: bytes


class Letter(NamedTuple):
    """Mail as it lies in the mailbox."""

    wake: int  # numbers an execution's mail, rising; gaps are allowed
    kind: str
    name: str
    exit: bytes
    at: Instant


class Receipt(StrEnum):
    """What became of a piece of mail."""

    STORED = "stored"
    IGNORED = "ignored"  # the first of that kind and name has won (R18)
    FINISHED = "finished"  # the execution has ended; nothing was stored
    UNKNOWN = "unknown"  # there is no such execution; nothing was stored


class History(NamedTuple):
    """All that a kernel is rebuilt from."""

    entries: list[Entry]
    letters: list[Letter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One open engine: a process, or one of several engines in it."""

    worker_id: WorkerId
    host: str
    pid: int
    workflows: tuple[str, ...]
    started_at: Instant
    retired_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which executions to list: newest first, all conditions at once."""

    workflow: str | None = None
    status: Status | None = None
    held: Held | None = None
    since: Instant | None = None
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    limit: int = 100
    # Go on behind this execution: (created_at, execution_id) of the last one read.
    after: tuple[Instant, ExecutionId] | None = None
