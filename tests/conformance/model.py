"""A store in plain Python, small enough to be believed: no durability, no concurrency, only what the contract says."""

from dataclasses import dataclass, field

from perdure._model.records import Answer, Commit, Mail, Receipt, Verdict
from perdure._model.status import FINAL, Held, Status


@dataclass
class Row:
    """One execution."""

    incarnation: bytes
    status: Status
    owner: str | None
    fence: int
    held: Held | None = None
    wake_at: int | None = None
    wakes: int = 0
    told: int = 0
    crashes: int = 0
    exit: bytes | None = None
    entries: dict[int, bytes] = field(default_factory=dict)
    mail: dict[str, bytes] = field(default_factory=dict)


class Model:
    """All executions and the workers that live, and what each call does to them."""

    def __init__(self) -> None:
        self.now = 0
        self.rows: dict[str, Row] = {}
        self.workers: set[str] = set()
        self.dead: set[str] = set()

    def commit(self, worker: str, one: Commit) -> Answer:
        row = self.rows.get(one.execution_id)
        mine = worker in self.workers
        if one.start is not None:
            unowned = one.status is Status.PENDING or one.status is Status.SUSPENDED
            if row is not None:
                if row.incarnation != one.incarnation:
                    return Answer(Verdict.JOINED)
                still = unowned or (mine and row.owner == worker and row.fence == 1)
                return Answer(Verdict.STARTED if still else Verdict.APPLIED)
            if not mine and not unowned:
                return Answer(Verdict.LOST)
            waits = one.status is Status.PENDING or one.start.due_at is not None
            row = self.rows[one.execution_id] = Row(one.incarnation, one.status, None, 0 if waits else 1)
            if one.status is Status.RUNNING:
                row.owner = worker
            else:
                self._leave(row, one, one.start.due_at if waits else one.wake_at)
            self._append(row, one)
            return Answer(Verdict.STARTED)
        if row is None or row.fence != one.fence or row.incarnation != one.incarnation:
            return Answer(Verdict.LOST)
        if row.owner is None:
            return Answer(Verdict.APPLIED)
        if row.owner != worker or not mine:
            return Answer(Verdict.LOST)
        self._append(row, one)
        row.crashes = 0 if one.calm else row.crashes
        if one.status not in {Status.RUNNING, Status.PENDING} and row.wakes > one.seen:
            return Answer(Verdict.STAYS, row.wakes)
        if one.status is not Status.RUNNING:
            self._leave(row, one, one.wake_at)
        return Answer(Verdict.GRANTED, row.wakes)

    def _append(self, row: Row, one: Commit) -> None:
        row.entries |= {entry.seq: entry.exit for entry in one.entries}

    def _leave(self, row: Row, one: Commit, wake_at: int | None) -> None:
        row.owner, row.status, row.held = None, one.status, one.held
        row.wake_at = wake_at if one.status is Status.SUSPENDED and one.held is None else None
        row.exit = one.exit if one.status in FINAL or one.held else None

    def _free(self, row: Row, crashes: int) -> None:
        row.owner, row.status, row.fence, row.crashes = None, Status.PENDING, row.fence + 1, crashes

    def deliver(self, mail: Mail) -> Receipt:
        row = self.rows.get(mail.execution_id)
        if row is None:
            return Receipt.UNKNOWN
        if row.status in FINAL:
            return Receipt.FINISHED
        if mail.name in row.mail:
            return Receipt.IGNORED
        row.mail[mail.name] = mail.exit
        row.wakes += 1
        if row.status is Status.SUSPENDED and row.held is None:
            row.status, row.wake_at = Status.PENDING, None
        return Receipt.STORED

    def mail_for(self, worker: str) -> dict[str, int]:
        owned = {id_: row for id_, row in self.rows.items() if row.owner == worker and row.wakes > row.told}
        for row in owned.values():
            row.told = row.wakes
        return {id_: row.wakes for id_, row in owned.items()}

    def claimed(self, worker: str, id_: str) -> None:
        row = self.rows[id_]
        assert row.status is Status.PENDING
        assert worker in self.workers
        row.status, row.owner, row.fence, row.told = Status.RUNNING, worker, row.fence + 1, row.wakes

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

    def resume(self, id_: str) -> None:
        row = self.rows[id_]
        if row.held is not None:
            row.status, row.held, row.exit, row.crashes = Status.PENDING, None, None, 0
