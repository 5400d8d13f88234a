"""What happened in a run, in one order: every change of a row as the database saw it, and every attempt as it was made.

The rows are told by triggers, which know nothing of the engine; a transaction that is rolled back
has told nothing. What an attempt does is told by the engine's failpoints around the user's
function. Both are numbered by one counter, so a check can say what came before what.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from perdure._model.journal import Kind
from perdure._stores.sqlite.driver import Connection
from perdure._values.exit_codec import is_success

Tick = int  # the place of something in a run


class ExecutionRow(NamedTuple):
    """The row of an execution, as far as checks go."""

    execution_id: str
    incarnation: bytes
    workflow: str
    status: str
    held: str | None
    owner: int | None
    fence: int
    wakes: int
    wake_at: int | None
    crashes: int
    exit: bytes | None
    # How many letters in its mailbox say who waits for it; and its deadline, until that is seen to.
    waiters: int
    expires_at: int | None
    # Which of its lives this is, from 1; and what a replay of that one needs when another one stands in its place.
    number: int
    began_at: int | None
    deadline: int | None
    priority: int
    seed: bytes | None
    parent: bytes | None


class ExecutionChange(NamedTuple):
    """An execution was born, changed or taken away."""

    tick: Tick
    now: int
    process: int
    before: ExecutionRow | None
    after: ExecutionRow | None


class EntryWritten(NamedTuple):
    """A row of a journal was written; `how` is insert, update or delete."""

    tick: Tick
    now: int
    process: int
    how: str
    incarnation: bytes
    seq: int
    kind: str
    name: str
    occurrence: int
    attempt: int
    input: bytes
    exit: bytes
    at: int


class LetterWritten(NamedTuple):
    """A row of a mailbox was written; `how` is insert, update or delete."""

    tick: Tick
    now: int
    process: int
    how: str
    incarnation: bytes
    kind: str
    name: str
    # From 1; 0: the store's own letters.
    wake: int
    exit: bytes
    at: int
    sender: bytes


class WorkerChange(NamedTuple):
    """A worker was registered, or retired."""

    tick: Tick
    process: int
    n: int
    worker_id: str
    retired: bool


class AttemptSeen(NamedTuple):
    """An attempt is about to call the user's function, or has returned from it."""

    tick: Tick
    now: int
    process: int
    ended: bool
    execution_id: str
    incarnation: bytes
    name: str
    occurrence: int
    attempt: int
    key: str
    # Whether it is to be delivered at most once.
    once: bool
    timeout_ms: int | None


Written = ExecutionChange | EntryWritten | LetterWritten | WorkerChange

_EXECUTION: Final = (
    "id", "incarnation", "workflow", "status", "held", "owner", "fence", "wakes", "wake_at", "crashes", "exit",
    "waiters", "expires_at", "number", "began_at", "deadline", "priority", "seed", "parent",
)  # fmt: skip
_ENTRY: Final = ("incarnation", "seq", "kind", "name", "occurrence", "attempt", "input", "exit", "at")
_LETTER: Final = ("incarnation", "kind", "name", "wake", "exit", "at", "sender")
_TABLES: Final = (("executions", _EXECUTION), ("journal", _ENTRY), ("mailbox", _LETTER))
# What is awaited by many, and says that something has got on.
_PROGRESS: Final = frozenset({Kind.TIMER, Kind.DEFERRED, Kind.MESSAGE, Kind.CHILD, Kind.INTERRUPT})
_EVENTS: Final = {"INSERT": ("new",), "UPDATE": ("old", "new"), "DELETE": ("old",)}


@dataclass
class History:
    """Everything that was told, in order."""

    executions: list[ExecutionChange] = field(default_factory=list[ExecutionChange])
    entries: list[EntryWritten] = field(default_factory=list[EntryWritten])
    letters: list[LetterWritten] = field(default_factory=list[LetterWritten])
    workers: list[WorkerChange] = field(default_factory=list[WorkerChange])
    attempts: list[AttemptSeen] = field(default_factory=list[AttemptSeen])
    # By execution: its row as it is now.
    latest: dict[str, ExecutionRow] = field(default_factory=dict[str, ExecutionRow])
    # How many entries say that something has got on.
    progress: int = 0
    # The place at which each transaction became durable, in order.
    _commits: list[Tick] = field(default_factory=list[Tick])
    _count: int = 0

    def tick(self) -> Tick:
        """The next place."""
        self._count += 1
        return self._count

    def keep(self, written: list[Written]) -> None:
        """Take what a transaction has done, now that it is durable."""
        self._commits.append(self.tick())
        for one in written:
            if isinstance(one, ExecutionChange):
                self.executions.append(one)
                if one.after is not None:
                    self.latest[one.after.execution_id] = one.after
            elif isinstance(one, EntryWritten):
                self.entries.append(one)
                self.progress += one.kind in _PROGRESS or (one.kind == Kind.ACTIVITY and is_success(one.exit))
            elif isinstance(one, LetterWritten):
                self.letters.append(one)
            else:
                self.workers.append(one)

    @property
    def written(self) -> int:
        """How many transactions have written something."""
        return len(self._commits)

    def digest(self, before: int) -> int:
        """A number that is the same for the same history, going on from `before`."""
        told = repr((before, self.executions, self.entries, self.letters, self.workers, self.attempts))
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big")

    def most_attempted(self) -> str:
        """What was attempted most often."""
        counts = Counter((one.name, one.occurrence, one.execution_id) for one in self.attempts if not one.ended)
        if not counts:
            return "nothing was attempted"
        (name, occurrence, execution_id), times = counts.most_common(1)[0]
        return f"{name} {occurrence} of {execution_id} was attempted {times} times"

    def committed(self, tick: Tick) -> Tick:
        """When what was written at a place in the run became durable."""
        return self._commits[bisect_left(self._commits, tick)]


class Witness:
    """Sees what one connection writes.

    Args:
        history: Where it is kept once it is durable.
        process: The number of the process that writes.
        now: The time of the store.
        may_commit: False: the process has ended, and what it was writing is rolled back.
        changed: Told after each transaction that has changed something.
    """

    def __init__(
        self,
        history: History,
        process: int,
        now: Callable[[], int],
        may_commit: Callable[[], bool],
        changed: Callable[[], object],
    ) -> None:
        self._history = history
        self._process = process
        self._now = now
        self._may_commit = may_commit
        self._changed = changed
        self._open: list[Written] = []

    def watch(self, connection: Connection) -> None:
        """See everything that this connection writes from now on."""
        real: Any = connection
        real.create_scalar_function("perdure_saw", self._saw)
        for event, sides in _EVENTS.items():
            for table, columns in _TABLES:
                values = ", ".join(f"{side}.{column}" for side in sides for column in columns)
                connection.execute(
                    f"CREATE TEMP TRIGGER saw_{table}_{event} AFTER {event} ON main.perdure_{table}"
                    f" BEGIN SELECT perdure_saw('{table}', '{event}', {values}); END"
                )
        for event in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TEMP TRIGGER saw_workers_{event} AFTER {event} ON main.perdure_workers BEGIN"
                f" SELECT perdure_saw('workers', '{event}', new.n, new.id, new.retired_at IS NOT NULL); END"
            )
        real.set_commit_hook(self._committing)
        real.set_rollback_hook(self._open.clear)

    def mark(self) -> int:
        """How much this transaction has written so far."""
        return len(self._open)

    def forget(self, mark: int) -> None:
        """What was written since `mark` is undone: a savepoint was rolled back."""
        del self._open[mark:]

    def _saw(self, table: str, event: str, *values: Any) -> None:
        tick, now, process = self._history.tick(), self._now(), self._process
        if table == "executions":
            before = _row(values[: len(_EXECUTION)]) if event != "INSERT" else None
            after = _row(values[-len(_EXECUTION) :]) if event != "DELETE" else None
            self._open.append(ExecutionChange(tick, now, process, before, after))
        elif table == "journal":
            self._open.append(EntryWritten(tick, now, process, event, *values[-len(_ENTRY) :]))
        elif table == "mailbox":
            self._open.append(LetterWritten(tick, now, process, event, *values[-len(_LETTER) :]))
        else:
            n, worker_id, retired = values
            self._open.append(WorkerChange(tick, process, n, worker_id, bool(retired)))

    def _committing(self) -> bool:
        """Whether to roll back instead."""
        if not self._may_commit():
            self._open.clear()
            return True
        if self._open:
            self._history.keep(self._open)
            self._open.clear()
            self._changed()
        return False


def _row(values: tuple[Any, ...]) -> ExecutionRow:
    id_, *rest = values
    return ExecutionRow(id_.hex(), *rest)
