"""The account of a run: all that is known of it when it is over."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.standing import judge_of, standing_of
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.journal import Entry, Kind
from perdure._model.records import Record
from perdure._model.status import Held, Status
from perdure._values.exit_codec import is_success, retry_at
from perdure._values.instant import UNTIL_RESUMED, Instant
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import ClientsSaw
from perdure.testing._simulation.history import (
    AttemptSeen,
    EntryWritten,
    ExecutionChange,
    History,
    LetterWritten,
    Tick,
)
from perdure.testing._simulation.told import SimulatedExecution, SimulatedRun

Step = tuple[str, int, int]  # name, occurrence, attempt

PAYLOAD_LIMIT = 4 * 1024 * 1024


class Stand(NamedTuple):
    """What a kernel asks for that has been fed a beginning of the journal."""

    # Entries that it was fed.
    length: int
    steps: frozenset[Step]
    # By kind, name and occurrence: when a timer is due.
    timers: Mapping[tuple[str, int], Instant]


@dataclass
class Life:
    """Everything about one execution."""

    record: Record
    implementation: WorkflowImplementation[..., Any]
    changes: list[ExecutionChange] = field(default_factory=list[ExecutionChange])
    written: list[EntryWritten] = field(default_factory=list[EntryWritten])
    attempts: list[AttemptSeen] = field(default_factory=list[AttemptSeen])
    # How many entries were there after each transaction that wrote some, with the place of that.
    commits: list[tuple[Tick, int]] = field(default_factory=list[tuple[Tick, int]])
    # What was done to its mailbox.
    letters: list[LetterWritten] = field(default_factory=list[LetterWritten])

    def __str__(self) -> str:
        return f"{self.record.workflow} {self.record.execution_id}"

    @cached_property
    def entries(self) -> list[Entry]:
        """The journal as it was written."""
        return [Entry(*one[5:]) for one in self.written if one.how == "INSERT"]

    @property
    def ended(self) -> bool:
        """Whether it has ended or is held."""
        return self.record.exit is not None

    @cached_property
    def stands(self) -> list[Stand]:
        """What it asks for at the beginning and after each commit, found by replaying its journal as far as that.

        Raises:
            AssertionError: A replay goes another way than the journal.
        """
        if self.record.began_at is None:
            return []  # nobody has ever run it
        return [self._stand(length) for length in (0, *(length for _, length in self.commits))]

    @cached_property
    def again_at(self) -> dict[int, Instant | None]:
        """When the attempt is due that follows a recorded failure, by the failure's seq; None: none follows.

        One that has held the execution is followed by another when somebody has resumed it (R28, R36).
        """
        due: dict[int, Instant | None] = {}
        for entry in self.entries:
            if entry.kind == Kind.HELD:
                resumed = [seq for seq, at in due.items() if at == UNTIL_RESUMED]
                due.update(dict.fromkeys([*resumed, *from_json(entry.input)], entry.at))
            elif is_activity(entry) and not is_success(entry.exit):
                due[entry.seq] = retry_at(entry.exit)
        return due

    def _stand(self, length: int) -> Stand:
        kernel = self.replay(length)
        try:
            if kernel.trouble is not None and kernel.trouble.held is Held.DIVERGENCE:
                raise AssertionError(f"the replay of {length} entries diverges: {kernel.trouble.error}")
            steps = frozenset((call.name, call.occurrence, call.attempt) for call in kernel.activities())
            timers = {
                (call.name, call.occurrence): call.due_at
                for call in kernel.steps.timers.values()
                if call.due_at is not None
            }
            return Stand(length, steps, timers)
        finally:
            kernel.close()

    def replay(self, length: int) -> Kernel:
        """A kernel of its own that has been fed the journal up to there."""
        record, entries = self.record, self.entries[:length]
        assert record.began_at is not None
        origin = Origin(
            record.execution_id, record.number, record.workflow, record.seed or record.incarnation, record.began_at,
            unborn=False, incarnation=record.incarnation, priority=record.priority, deadline=record.deadline,
        )  # fmt: skip
        kernel = Kernel(origin, entries, judge=judge_of(self.implementation, PAYLOAD_LIMIT))
        kernel.begin(lambda: self.implementation.make_body(record.payload, record.execution_id), entries)
        kernel.take_asked()
        return kernel

    def replayed_end(self) -> "ReplayedEnd":
        """How a replay of the whole journal ends."""
        kernel = self.replay(len(self.entries))
        try:
            standing = standing_of(kernel, self.implementation, now=self.record.changed_at, busy=False)
            untaken = [f"{entry.kind} {entry.name}" for entry in kernel.steps.kept]
            return ReplayedEnd(
                standing.status, standing.held, standing.exit, len(kernel.take_written()[0]), kernel.continues, untaken
            )
        finally:
            kernel.close()

    @property
    def ended_at(self) -> Tick | None:
        """The place in the run at which it has ended; None: it has not."""
        return next((one.tick for one in self.changes if one.after is not None and one.after.exit is not None
                     and one.after.held is None), None)  # fmt: skip


class ReplayedEnd(NamedTuple):
    """How the replay of a whole journal ends."""

    status: Status
    held: Held | None
    exit: bytes | None
    # How many entries it would write that are not there.
    written: int
    continues: bool
    # Entries that nobody has taken.
    untaken: list[str]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Everything about one run."""

    case: Case
    history: History
    saw: ClientsSaw
    lives: Mapping[str, Life]
    # Since when nothing has been wrong any more.
    calm_from: Instant
    # Rows of a journal or of an execution that belong to nothing.
    strays: list[str]


def account_of(
    *,
    case: Case,
    registrations: list[Registration],
    history: History,
    saw: ClientsSaw,
    records: list[Record],
    calm_from: Instant,
) -> Account:
    """Put together what is known of each execution."""
    bodies = {one.name: cast("WorkflowImplementation[..., Any]", one) for one in registrations}
    lives = {record.execution_id: Life(record, bodies[record.workflow]) for record in records}
    by_incarnation = {life.record.incarnation: life for life in lives.values()}
    strays: list[str] = []
    for change in history.executions:
        row = change.after or change.before
        assert row is not None
        if row.execution_id in lives:
            lives[row.execution_id].changes.append(change)
        else:
            strays.append(f"execution {row.execution_id} was there and is not any more")
    written: dict[bytes, list[EntryWritten]] = defaultdict(list)
    for entry in history.entries:
        written[entry.incarnation].append(entry)
    for incarnation, entries in written.items():
        life = by_incarnation.get(incarnation)
        if life is None:
            strays.append(f"{len(entries)} entries of incarnation {incarnation.hex()} belong to no execution")
            continue
        life.written = entries
        life.commits = _commits(entries, history)
    for letter in history.letters:
        if letter.incarnation in by_incarnation:
            by_incarnation[letter.incarnation].letters.append(letter)
        else:
            strays.append(f"a letter {letter.kind} lies in the mailbox of nobody ({letter.incarnation.hex()})")
    for attempt in history.attempts:
        if attempt.execution_id in lives:
            lives[attempt.execution_id].attempts.append(attempt)
        else:
            strays.append(f"an attempt of {attempt.name} was made for execution {attempt.execution_id}")
    return Account(case=case, history=history, saw=saw, lives=lives, calm_from=calm_from, strays=strays)


def _commits(entries: list[EntryWritten], history: History) -> list[tuple[Tick, int]]:
    commits: list[tuple[Tick, int]] = []
    for length, entry in enumerate(entries, start=1):
        committed = history.committed(entry.tick)
        if commits and commits[-1][0] == committed:
            commits.pop()
        commits.append((committed, length))
    return commits


def told_of(account: Account) -> SimulatedRun:
    """What a user's check is told of a run."""
    return SimulatedRun(case=str(account.case), executions=[_execution(life) for life in account.lives.values()])


def _execution(life: Life) -> SimulatedExecution:
    begun = Counter(attempt.name for attempt in life.attempts if not attempt.ended)
    return SimulatedExecution(life.record, life.implementation.codec, life.entries, begun)


def is_activity(entry: Entry | EntryWritten) -> bool:
    """Whether an entry is the exit of an attempt."""
    return entry.kind == Kind.ACTIVITY
