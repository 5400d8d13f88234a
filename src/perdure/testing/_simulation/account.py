"""The account of a run: all that is known of it when it is over."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

from pydantic_core import from_json

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.standing import judge_of, standing_of
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.journal import FORKS, Entry, Kind
from perdure._model.records import Record
from perdure._model.status import Held, Status
from perdure._values.exit_codec import is_success, retry_at
from perdure._values.instant import UNTIL_RESUMED, Instant
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import ClientsSaw, Operation
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
    """Everything about one life of an execution: most have one only."""

    record: Record
    implementation: WorkflowImplementation[..., Any]
    # From its birth on. The birth of a later life is the change by which the row of the one before became its own.
    changes: list[ExecutionChange] = field(default_factory=list[ExecutionChange])
    written: list[EntryWritten] = field(default_factory=list[EntryWritten])
    attempts: list[AttemptSeen] = field(default_factory=list[AttemptSeen])
    # How many entries were there after each transaction that wrote some, with the place of that.
    commits: list[tuple[Tick, int]] = field(default_factory=list[tuple[Tick, int]])
    # What was done to its mailbox.
    letters: list[LetterWritten] = field(default_factory=list[LetterWritten])
    # The change by which the next life was put in its place; None: it is the last one.
    leaving: ExecutionChange | None = None
    # How many of its entries it was born with: those of another life that it goes on from.
    kept: int = 0
    # What it was rewound or forked by; None: it has begun from its beginning.
    operation: Operation | None = None

    def __str__(self) -> str:
        number = f" (life {self.record.number})" if self.record.number > 1 or self.leaving is not None else ""
        return f"{self.record.workflow} {self.record.execution_id}{number}"

    @property
    def went_on(self) -> bool:
        """Whether it has asked for the life in its place; otherwise it had ended, and somebody has restarted it."""
        # The commit that asks for it leaves it PENDING, for the next statement.
        return self.leaving is not None and self.leaving.before is not None and self.leaving.before.status == "PENDING"

    @property
    def own(self) -> list[EntryWritten]:
        """What it has written itself."""
        return self.written[self.kept :]

    @property
    def was_held(self) -> bool:
        """Whether it was rewound while it was held: it has not ended, and will not."""
        return self.leaving is not None and self.leaving.before is not None and self.leaving.before.held is not None

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
        lengths = [length for _, length in self.commits]
        if self.kept:  # it never stood at the beginning
            return [Stand(0, frozenset(), {}), *map(self._stand, lengths)]
        return [self._stand(length) for length in (0, *lengths)]

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
        judge = judge_of(self.implementation, PAYLOAD_LIMIT)
        kernel = Kernel(origin, entries, judge=judge, payload_limit=PAYLOAD_LIMIT)
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
                standing.status, standing.held, standing.exit, len(kernel.take_written()[0]), kernel.continues, untaken,
                kernel.steps.untaken(),
            )  # fmt: skip
        finally:
            kernel.close()

    @property
    def ended_at(self) -> Tick | None:
        """The place in the run at which it has ended, or has gone on as the next life; None: it has not."""
        ended = next((one.tick for one in self.changes if one.after is not None and one.after.exit is not None
                      and one.after.held is None), None)  # fmt: skip
        return self.leaving.tick if ended is None and self.leaving is not None else ended


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
    # The messages and completions among them that the body had not come to.
    mail: list[Entry]


@dataclass(frozen=True, kw_only=True)
class Account:
    """Everything about one run."""

    case: Case
    history: History
    saw: ClientsSaw
    # By incarnation, in hex; executions in the order of their births, the lives of one in their order.
    lives: Mapping[str, Life]
    # Since when nothing has been wrong any more.
    calm_from: Instant
    # Rows of a journal or of an execution that belong to nothing.
    strays: list[str]

    def lives_of(self, execution_id: str) -> list[Life]:
        """The lives of an execution, in order; none: it was not there."""
        return [life for life in self.lives.values() if life.record.execution_id == execution_id]

    def life_at(self, execution_id: str, tick: Tick) -> Life | None:
        """The life that stood for an execution at a place in the run."""
        born = [life for life in self.lives_of(execution_id) if life.changes and life.changes[0].tick <= tick]
        return born[-1] if born else None

    def before(self, life: Life) -> Life | None:
        """The life that another one follows."""
        row = life.changes[0].before if life.changes else None
        return (
            None if row is None or row.incarnation == life.record.incarnation else self.lives.get(row.incarnation.hex())
        )

    def source(self, life: Life) -> Life | None:
        """The life whose journal a rewound life or a fork has begun with."""
        operation = life.operation
        if operation is None or operation.new_id is None:
            return self.before(life)
        # Of those that stood there between the asking and the birth the one that was looked at: they draw alike.
        stood = [
            one
            for one in self.lives_of(operation.execution_id)
            if one.changes[0].tick < life.changes[0].tick
            and (one.leaving is None or one.leaving.tick > operation.asked)
        ]
        alike = [one for one in stood if life.record.seed == (one.record.seed or one.record.incarnation)]
        return next(iter([*alike, *stood]), None)

    def is_inherited(self, letter: LetterWritten) -> bool:
        """Whether a letter is one that lay in the mailbox of the life before, and has come along as it was."""
        life = self.lives.get(letter.incarnation.hex())
        if life is not None and life.operation is not None:
            # Who delivers something in that very transaction signs it.
            return not letter.sender and self.history.committed(letter.tick) == self.history.committed(
                life.changes[0].tick
            )
        earlier = None if life is None else self.before(life)
        return earlier is not None and any(
            one.tick < letter.tick and one.how == letter.how == "INSERT" and _said_by(one) == _said_by(letter)
            for one in earlier.letters
        )


def _said_by(letter: LetterWritten) -> tuple[object, ...]:
    return letter.kind, letter.name, letter.wake, letter.exit, letter.at, letter.sender


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
    lives = {record.incarnation.hex(): Life(record, bodies[record.workflow]) for record in records}
    strays: list[str] = []
    for change in history.executions:
        strays += _place(change, lives)
    written: dict[bytes, list[EntryWritten]] = defaultdict(list)
    for entry in history.entries:
        written[entry.incarnation].append(entry)
    for incarnation, entries in written.items():
        life = lives.get(incarnation.hex())
        if life is None:
            strays.append(f"{len(entries)} entries of incarnation {incarnation.hex()} belong to no execution")
            continue
        life.written = entries
        life.commits = _commits(entries, history)
    for letter in history.letters:
        if letter.incarnation.hex() in lives:
            lives[letter.incarnation.hex()].letters.append(letter)
        else:
            strays.append(f"a letter {letter.kind} lies in the mailbox of nobody ({letter.incarnation.hex()})")
    for attempt in history.attempts:
        if attempt.incarnation.hex() in lives:
            lives[attempt.incarnation.hex()].attempts.append(attempt)
        else:
            strays.append(f"an attempt of {attempt.name} was made for execution {attempt.execution_id}")
    for life in lives.values():
        _find_operation(life, history, saw)
    return Account(case=case, history=history, saw=saw, lives=lives, calm_from=calm_from, strays=strays)


def _find_operation(life: Life, history: History, saw: ClientsSaw) -> None:
    """Whether a life was born with a journal. What is written at its birth may also be its first turn."""
    if not life.changes:
        return
    birth = life.changes[0]
    before, after = birth.before, birth.after
    if after is None or after.seed is None:
        return  # it draws its own chance: so it begins from its beginning
    born_with = sum(history.committed(entry.tick) == history.committed(birth.tick) for entry in life.written)
    meant = [
        operation
        for operation in saw.operations
        if life.record.execution_id == (operation.new_id if before is None else operation.execution_id)
        and (before is None or operation.new_id is None)
        and operation.asked < birth.tick < (operation.told or birth.tick + 1)
    ]
    if meant:
        # Of several the one that is known to be done, and that fits; else the last: what was asked for before was refused.
        found = max(meant, key=lambda one: (one.told is not None, _fits(life, born_with, one), one.asked))
        life.kept, life.operation = born_with, found


def _fits(life: Life, born_with: int, operation: Operation) -> bool:
    more = life.written[operation.to : born_with]
    return operation.to <= born_with and all(entry.name in FORKS or entry.kind == Kind.PATCH for entry in more)


def _place(change: ExecutionChange, lives: Mapping[str, Life]) -> Iterator[str]:
    """Give a change to the life whose row it has written, and to the one before that, if it is a later birth."""
    row, before = change.after or change.before, change.before
    assert row is not None
    if row.incarnation.hex() in lives:
        lives[row.incarnation.hex()].changes.append(change)
    else:
        yield f"execution {row.execution_id} was there and is not any more"
    if before is not None and before.incarnation != row.incarnation and before.incarnation.hex() in lives:
        lives[before.incarnation.hex()].leaving = change


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
    last = {life.record.execution_id: life for life in account.lives.values()}
    return SimulatedRun(case=str(account.case), executions=[_execution(account, life) for life in last.values()])


def _execution(account: Account, life: Life) -> SimulatedExecution:
    attempts = [attempt for one in account.lives_of(life.record.execution_id) for attempt in one.attempts]
    begun = Counter(attempt.name for attempt in attempts if not attempt.ended)
    return SimulatedExecution(life.record, life.implementation.codec, life.entries, begun)


def is_activity(entry: Entry | EntryWritten) -> bool:
    """Whether an entry is the exit of an attempt."""
    return entry.kind == Kind.ACTIVITY
