"""A store in plain Python, small enough to be believed: no durability, no concurrency, only what the contract says."""

from collections import defaultdict
from dataclasses import dataclass, field

from perdure._model.journal import Entry, Kind
from perdure._model.records import (
    DEADLINE_NAME,
    INTERRUPTED,
    Acts,
    Answer,
    Commit,
    Letter,
    Mail,
    MailKind,
    Receipt,
    Start,
    Verdict,
)
from perdure._model.status import FINAL, Held, Status

# Which letters go over to a life that goes on.
HANDED_OVER = {MailKind.MESSAGE, MailKind.DEFERRED, MailKind.INTERRUPT}


@dataclass
class Lying:
    """A letter in a mailbox."""

    wake: int
    exit: bytes
    sender: bytes
    at: int


@dataclass
class Row:
    """One execution."""

    incarnation: bytes
    status: Status
    owner: str | None
    fence: int
    number: int = 1
    parent: str | None = None
    begun: bool = False
    held: Held | None = None
    wake_at: int | None = None
    wakes: int = 0
    told: int = 0
    crashes: int = 0
    exit: bytes | None = None
    expires_at: int | None = None
    attributes: dict[str, object] = field(default_factory=dict)
    entries: dict[int, bytes] = field(default_factory=dict)
    # Those of them by which its body was told that it is interrupted.
    interrupts: set[int] = field(default_factory=set[int])
    mail: dict[tuple[str, str], Lying] = field(default_factory=dict)
    shown: dict[str, bytes] = field(default_factory=dict)
    # The lives before this one: incarnation, status and mailbox.
    lives: list[tuple[bytes, Status, dict[tuple[str, str], Lying]]] = field(default_factory=list)
    # Those of them that the next one goes on.
    went_on: set[bytes] = field(default_factory=set[bytes])
    # What the journal that it was begun with has given out: names and tokens.
    given_out: set[tuple[str, bytes]] = field(default_factory=set[tuple[str, bytes]])


class Model:
    """All executions and the workers that live, and what each call does to them."""

    def __init__(self) -> None:
        self.now = 0
        self.rows: dict[str, Row] = {}
        self.workers: set[str] = set()
        self.dead: set[str] = set()
        self.stirs = False
        # By the incarnation that is waited for: who waits, each with its own when it asked, and who of them has left.
        self.waiters: dict[bytes, dict[str, bytes]] = defaultdict(dict)
        self.left: dict[bytes, set[str]] = defaultdict(set)

    # Commits -----------------------------------------------------------------------------------

    def commit(self, worker: str, batch: list[Commit]) -> list[Answer]:
        judged = [self._judge(worker, one) for one in batch]
        return [self._act(one, *result) for one, result in zip(batch, judged, strict=True)]

    def _judge(self, worker: str, one: Commit) -> tuple[Answer, bool, bool]:
        """The answer, whether the acts are to be done, and whether it has left its owner."""
        row = self.rows.get(one.execution_id)
        if one.start is not None:
            return self._judge_start(worker, one, one.start, row)
        acts = one.acts or Acts()
        if row is not None and acts.next is not None and acts.next.incarnation == row.incarnation:
            return Answer(Verdict.APPLIED), False, False
        if row is None or row.fence != one.fence or row.incarnation != one.incarnation:
            return Answer(Verdict.LOST), False, False
        if row.owner is None:
            return Answer(Verdict.APPLIED), False, False
        if row.owner != worker or worker not in self.workers:
            return Answer(Verdict.LOST), False, False
        if one.held is not None and row.wakes > one.seen:
            return Answer(Verdict.STAYS, row.wakes), False, False
        self._append(row, one)
        row.crashes = 0 if one.calm else row.crashes
        if one.status not in {Status.RUNNING, Status.PENDING} and row.wakes > one.seen:
            return Answer(Verdict.STAYS, row.wakes), True, False
        if one.status is not Status.RUNNING:
            self._leave(row, one, one.wake_at)
        return Answer(Verdict.GRANTED, row.wakes), True, one.status is not Status.RUNNING

    def _judge_start(self, worker: str, one: Commit, start: Start, row: Row | None) -> tuple[Answer, bool, bool]:
        mine = worker in self.workers
        waits = one.status is Status.PENDING or (one.status is Status.SUSPENDED and start.due_at is not None)
        unowned = waits or one.status is Status.SUSPENDED
        if row is not None and row.incarnation != start.incarnation:
            if start.incarnation in {incarnation for incarnation, _, _ in row.lives}:
                return Answer(Verdict.APPLIED), False, False
            if waits and self._may_restart(row, start):
                self._restart(row, start)
                return Answer(Verdict.STARTED, row.wakes), True, False
            return Answer(Verdict.JOINED), False, False
        if row is not None:
            owned = mine and row.owner == worker and row.fence == 1
            verdict = Verdict.STARTED if owned or unowned else Verdict.APPLIED
            return Answer(verdict, row.wakes if verdict is Verdict.STARTED else 0), owned, False
        if not mine and not unowned:
            return Answer(Verdict.LOST), False, False
        row = self._bear(start)
        if not waits:
            row.begun, row.fence = True, 1
            if one.status is Status.RUNNING:
                row.status, row.owner, row.wake_at = Status.RUNNING, worker, None
            else:
                self._leave(row, one, one.wake_at)
        self._append(row, one)
        return Answer(Verdict.STARTED), True, False

    def _bear(self, start: Start) -> Row:
        row = Row(start.incarnation, Status.PENDING, None, 0)
        row.parent, row.expires_at, row.attributes = start.parent, start.deadline, dict(start.attributes)
        if start.due_at is not None:
            row.status, row.wake_at = Status.SUSPENDED, start.due_at
        self.rows[start.execution_id] = row
        return row

    def _append(self, row: Row, one: Commit) -> None:
        row.entries |= {entry.seq: entry.exit for entry in one.entries}
        row.interrupts |= {entry.seq for entry in one.entries if entry.kind == Kind.INTERRUPT}

    def _leave(self, row: Row, one: Commit, wake_at: int | None) -> None:
        row.owner, row.status, row.held = None, one.status, one.held
        row.wake_at = wake_at if one.status is Status.SUSPENDED and one.held is None else None
        row.exit = one.exit if one.status in FINAL or one.held else None
        if one.status in FINAL:
            row.expires_at = None

    # What commits do to others -----------------------------------------------------------------

    def _act(self, one: Commit, answer: Answer, does: bool, left: bool) -> Answer:
        if not does:
            return answer
        self.stirs = False
        acts = one.acts or Acts()
        receipts = self._do(one, acts)
        if left and one.status in FINAL:
            self._tell_end(one.execution_id, one.incarnation, one.exit or b"")
        row = self.rows[one.execution_id]
        if row.incarnation != one.incarnation:
            # A neighbour has begun its next life.
            return Answer(answer.verdict, answer.wakes, self.stirs, receipts)
        if left and row.held is not None:
            for name in self.left[row.incarnation]:
                incarnation = self.waiters[row.incarnation][name]
                self._tell(name, incarnation, MailKind.FREED, one.execution_id, b"")
        if acts.next is not None:
            self._go_on(row, one, acts.next)
        # Its own mail may have come while it acted.
        wakes = answer.wakes if one.acts is None else row.wakes
        return Answer(answer.verdict, wakes, self.stirs, receipts)

    def _do(self, one: Commit, acts: Acts) -> tuple[Receipt, ...]:
        row = self.rows[one.execution_id]
        for start in acts.starts:
            self._start(start)
        if row.incarnation == one.incarnation:
            for start in acts.children:
                self._wait_for(one.execution_id, start)
            for child in acts.leaves:
                self._abandon(one.execution_id, child)
        receipts = tuple(self._deliver(mail, self.now) for mail in acts.mail)
        for held in acts.resumes:
            self.stirs |= self.resume(held)
        if row.incarnation == one.incarnation:
            row.attributes |= acts.attributes
            row.attributes = {name: value for name, value in row.attributes.items() if value is not None}
            row.shown |= acts.published
        return receipts

    def _start(self, start: Start) -> None:
        row = self.rows.get(start.execution_id)
        if row is None:
            self._bear(start)
        elif self._may_restart(row, start):
            self._restart(row, start)
        else:
            return
        self.stirs = True

    def _wait_for(self, waiter: str, start: Start) -> None:
        child_id, me = start.execution_id, self.rows[waiter]
        child = self.rows.get(child_id)
        if child is None or child.status not in FINAL or (MailKind.CHILD, child_id) not in me.mail:
            self._start(start)
        child = self.rows[child_id]
        if child.status in FINAL:
            self._tell(waiter, me.incarnation, MailKind.CHILD, child_id, child.exit or b"")
            return
        self.waiters[child.incarnation][waiter] = me.incarnation
        self.left[child.incarnation].discard(waiter)

    def _abandon(self, waiter: str, child_id: str) -> None:
        child, me = self.rows.get(child_id), self.rows[waiter]
        if child is None or child.status in FINAL:
            return
        waiters, left = self.waiters[child.incarnation], self.left[child.incarnation]
        if waiters.get(waiter) != me.incarnation or waiter in left:
            return
        left.add(waiter)
        others = [
            name
            for name, incarnation in waiters.items()
            if name not in left and self.rows[name].incarnation == incarnation and self.rows[name].status not in FINAL
        ]
        if child.parent == waiter and not others:
            asked = any(kind == MailKind.INTERRUPT for kind, _ in child.mail)
            asked |= child.expires_at is not None and child.expires_at <= self.now
            if child.held is not None or not asked:
                self._deliver(Mail(child_id, MailKind.INTERRUPT, "", INTERRUPTED), self.now)
            if child.held is None:
                return
        self._tell(waiter, me.incarnation, MailKind.FREED, child_id, b"")

    def _tell_end(self, id_: str, life: bytes, exit_: bytes) -> None:
        for waiter, incarnation in self.waiters[life].items():
            self._tell(waiter, incarnation, MailKind.CHILD, id_, exit_)

    def _tell(self, waiter: str, incarnation: bytes, kind: MailKind, name: str, exit_: bytes) -> None:
        if kind is MailKind.FREED:
            name = f"{name}/{self.rows[waiter].wakes + 1}"
        self._deliver(Mail(waiter, kind, name, exit_, incarnation=incarnation), self.now)

    # Lives -------------------------------------------------------------------------------------

    def _may_restart(self, row: Row, start: Start) -> bool:
        known = {row.incarnation, *(incarnation for incarnation, _, _ in row.lives)}
        failed = row.status in {Status.FAILED, Status.INTERRUPTED}
        return start.restarts and failed and start.incarnation not in known

    def _restart(self, row: Row, start: Start) -> None:
        self._follow(row, start)
        row.parent, row.attributes = start.parent, dict(start.attributes)
        if start.due_at is not None:
            row.status, row.wake_at = Status.SUSPENDED, start.due_at

    def _go_on(self, row: Row, one: Commit, start: Start) -> None:
        before, acts = row.mail, one.acts or Acts()
        kept = {(mail.kind, mail.name) for mail in acts.mail if mail.execution_id == one.execution_id}
        self._hand_over(row, start)
        self._follow(row, start)
        last = *row.lives[-1][:1], Status.SUCCEEDED, *row.lives[-1][2:]
        row.lives[-1] = last
        row.went_on.add(last[0])
        row.mail = {
            key: lying
            for key, lying in before.items()
            if key in kept
            or (lying.wake > one.seen and key[0] in HANDED_OVER and key != (MailKind.INTERRUPT, DEADLINE_NAME))
        }
        self.stirs = True

    def _hand_over(self, row: Row, start: Start) -> None:
        """Let those who wait for a life wait for the next one."""
        self.waiters[start.incarnation] = dict(self.waiters[row.incarnation])
        self.left[start.incarnation] = set(self.left[row.incarnation])

    def _follow(self, row: Row, start: Start) -> None:
        row.lives.append((row.incarnation, row.status, row.mail))
        row.incarnation, row.number, row.fence = start.incarnation, row.number + 1, row.fence + 1
        row.status, row.owner, row.held, row.wake_at, row.exit = Status.PENDING, None, None, None, None
        row.crashes, row.begun, row.expires_at = 0, False, start.deadline
        row.entries, row.mail, row.shown, row.interrupts, row.given_out = {}, {}, {}, set(), set()

    def renew(self, before: bytes, wakes: int, start: Start, entries: list[Entry], letters: list[Letter]) -> bool:
        row = self.rows.get(start.execution_id)
        if row is None or row.incarnation == start.incarnation:
            return row is not None
        if (row.incarnation, row.wakes) != (before, wakes) or (row.status not in FINAL and row.held is None):
            return False
        if row.held is not None:
            self._hand_over(row, start)
        self._follow(row, start)
        row.begun = start.began_at is not None
        row.entries = {entry.seq: entry.exit for entry in entries}
        if start.seed is not None:
            row.given_out = {(entry.name, entry.exit) for entry in entries if entry.kind == "token"}
        row.interrupts = {entry.seq for entry in entries if entry.kind == Kind.INTERRUPT}
        row.mail = {(one.kind, one.name): Lying(one.wake, one.exit, b"", one.at) for one in letters}
        row.wakes = max([row.wakes, *(one.wake for one in letters)])
        return True

    # Mail --------------------------------------------------------------------------------------

    def deliver(self, mail: Mail) -> Receipt:
        return self._deliver(mail, self.now)

    def _deliver(self, mail: Mail, at: int) -> Receipt:
        row = self.rows.get(mail.execution_id)
        if row is None:
            return Receipt.UNKNOWN
        mail = self._readdressed(row, mail)
        refused = self._refused(row, mail)
        if refused is not None:
            return refused
        key = mail.kind, mail.name
        interrupts = mail.kind == MailKind.INTERRUPT
        frees = interrupts and row.held not in {None, Held.COMPENSATION}
        told_of_all = sum(kind == MailKind.INTERRUPT for kind, _ in row.mail) <= len(row.interrupts)
        if key in row.mail and frees and told_of_all:
            key = mail.kind, f"held/{row.wakes + 1}"
        if key in row.mail:
            self.stirs |= frees and self.resume(mail.execution_id)
            return Receipt.IGNORED
        went_on = [box for incarnation, _, box in row.lives[-7:] if incarnation in row.went_on]
        if mail.kind == MailKind.MESSAGE and any(key in box for box in went_on):
            return Receipt.IGNORED
        own_cause = interrupts and row.held in {Held.FAILURE, Held.DEFECT}
        row.wakes += 1
        row.mail[key] = Lying(row.wakes, row.exit if own_cause else mail.exit, mail.sender, at)  # type: ignore[arg-type]
        if interrupts and not row.begun:
            self._end(mail.execution_id, Status.INTERRUPTED if mail.exit == INTERRUPTED else Status.FAILED, mail.exit)
        elif frees:
            self.resume(mail.execution_id)
        elif row.status is Status.RUNNING:
            pass
        elif row.status is Status.SUSPENDED and row.held is None and row.begun:
            row.status, row.wake_at = Status.PENDING, None
        else:
            return Receipt.STORED  # it only waits there
        self.stirs = True
        return Receipt.STORED

    def _refused(self, row: Row, mail: Mail) -> Receipt | None:
        """What its sender hears of mail that is not looked at, since it is known, or nobody is there for it."""
        boxes = {row.incarnation: row.mail} | {incarnation: box for incarnation, _, box in row.lives[-7:]}
        if mail.incarnation is not None:
            everything = boxes | {incarnation: box for incarnation, _, box in row.lives}
            boxes = {mail.incarnation: everything.get(mail.incarnation, {})}
        if mail.sender and any(self._lies(mail, box) for box in boxes.values()):
            return Receipt.STORED
        if mail.incarnation not in {None, row.incarnation}:
            return Receipt.OUTDATED
        if row.status in FINAL:
            return Receipt.FINISHED
        return None

    def _lies(self, mail: Mail, box: dict[tuple[str, str], Lying]) -> bool:
        """Whether the sender of mail has it there already, an interrupt under whatever name."""
        return any(
            one.sender == mail.sender and kind == mail.kind and (name == mail.name or kind == MailKind.INTERRUPT)
            for (kind, name), one in box.items()
        )

    def _readdressed(self, row: Row, mail: Mail) -> Mail:
        """Mail for an earlier life that comes by what this one has kept of it."""
        kept = mail.incarnation != row.incarnation and (mail.name, mail.token) in row.given_out
        return mail._replace(incarnation=None) if kept else mail

    def _end(self, id_: str, status: Status, exit_: bytes) -> None:
        row = self.rows[id_]
        row.status, row.owner, row.held, row.wake_at, row.exit = status, None, None, None, exit_
        row.expires_at = None
        self._tell_end(id_, row.incarnation, exit_)

    def interrupt_unsafe(self, id_: str, exit_: bytes) -> Receipt:
        row = self.rows.get(id_)
        if row is None or row.status in FINAL:
            return Receipt.UNKNOWN if row is None else Receipt.FINISHED
        row.fence += 1
        self._end(id_, Status.INTERRUPTED, exit_)
        return Receipt.STORED

    def expired(self) -> list[tuple[int, str]]:
        """Whose deadline has passed, the longest passed first."""
        late = [(row.expires_at, id_) for id_, row in self.rows.items() if row.expires_at is not None]
        return sorted(one for one in late if one[0] <= self.now)

    def expire(self, id_: str, exit_: bytes) -> None:
        row = self.rows[id_]
        assert row.expires_at is not None
        self._deliver(Mail(id_, MailKind.INTERRUPT, DEADLINE_NAME, exit_), row.expires_at)
        row.expires_at = None

    def mail_for(self, worker: str) -> dict[str, int]:
        owned = {id_: row for id_, row in self.rows.items() if row.owner == worker and row.wakes > row.told}
        for row in owned.values():
            row.told = row.wakes
        return {id_: row.wakes for id_, row in owned.items()}

    # Workers and timers ------------------------------------------------------------------------

    def claimed(self, worker: str, id_: str) -> None:
        row = self.rows[id_]
        assert row.status is Status.PENDING
        assert worker in self.workers
        row.status, row.owner, row.fence, row.told = Status.RUNNING, worker, row.fence + 1, row.wakes
        row.begun = True

    def due(self) -> list[Row]:
        waiting = [row for row in self.rows.values() if row.status is Status.SUSPENDED and row.wake_at is not None]
        return sorted((row for row in waiting if row.wake_at <= self.now), key=lambda row: row.wake_at)

    def end_worker(self, worker: str, *, crash: bool) -> int:
        if worker not in self.workers:
            return 0
        self.workers.discard(worker)
        owned = [row for row in self.rows.values() if row.owner == worker]
        for row in owned:
            self._free(row, row.crashes + 1 if crash else 0)
        return len(owned)

    def take_over(self, worker: str) -> int:
        return sum(self.end_worker(other, crash=True) for other in sorted(self.dead - {worker}))

    def give_back(self, worker: str, fences: dict[str, int]) -> int:
        rows = [self.rows[id_] for id_, fence in fences.items() if self.rows[id_].fence == fence]
        mine = [row for row in rows if row.owner == worker]
        for row in mine:
            self._free(row, row.crashes)
        return len(mine)

    def _free(self, row: Row, crashes: int) -> None:
        row.owner, row.status, row.fence, row.crashes = None, Status.PENDING, row.fence + 1, crashes

    def resume(self, id_: str, *, skip: bool = False) -> bool:
        row = self.rows.get(id_)
        if row is None or row.held is None:
            return False
        skips = skip and row.held is Held.COMPENSATION
        row.status, row.held, row.exit, row.crashes = Status.PENDING, None, None, 0
        if skips:
            self._deliver(Mail(id_, MailKind.SKIP, f"held/{row.wakes + 1}", b""), self.now)
        return True
