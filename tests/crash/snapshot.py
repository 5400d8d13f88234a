"""What the database says, read behind the library's back: its tables, as they stand between two lives of a worker."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from perdure._model.journal import Entry, Kind

from tests.crash.history import FINAL, Change, read_history


@dataclass(kw_only=True)
class Execution:
    """One row, and its journal."""

    execution_id: str
    workflow: str
    label: str
    status: str
    owner: int | None = None  # the pid of the worker that owns it
    fence: int = 1
    crashes: int = 0
    wake_at: int | None = None
    began_at: int | None
    exit: bytes | None = None
    held: str | None = None
    waits: bytes | None = None
    incarnation: bytes = b""
    payload: bytes = b""
    entries: list[Entry] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def events(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]


@dataclass(kw_only=True)
class Snapshot:
    """A whole database at one moment."""

    executions: dict[str, Execution]
    # The pids of workers that have neither left nor been taken over.
    living: set[int]
    # What `PRAGMA integrity_check` says.
    integrity: str
    # Lock files beside the database.
    locks: list[str]
    # How many lines the ledger had when all this had been read.
    ledger_lines: int
    # How many it had before anything was read. With a worker at work beside it that is less.
    lines_before: int = 0
    # Rows that belong to no execution, each as its table and its incarnation.
    orphans: list[str] = field(default_factory=list)
    # What has happened so far, where a history is kept and was asked for.
    changes: list[Change] = field(default_factory=list)


def merged(snapshots: Iterable[Snapshot], lines_before: int, ledger_lines: int) -> Snapshot:
    """Several databases that share a ledger, as if they were one."""
    every = list(snapshots)
    return Snapshot(
        executions={id_: execution for one in every for id_, execution in one.executions.items()},
        living=set().union(*(one.living for one in every)),
        integrity="ok" if all(one.integrity == "ok" for one in every) else str([one.integrity for one in every]),
        locks=[lock for one in every for lock in one.locks],
        ledger_lines=ledger_lines,
        lines_before=lines_before,
        orphans=[orphan for one in every for orphan in one.orphans],
        changes=[change for one in every for change in one.changes],
    )


def read_snapshot(database: Path, *, history: bool = False) -> Snapshot:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(5_000)
        # Closing the last connection would tidy up what the dead worker has left: the next one is to find it.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("BEGIN")
        # Killed early enough, a worker leaves a file without any tables.
        made = bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'perdure_journal'").fetchall())
        executions = _read_executions(connection) if made else {}
        living = _read_living(connection) if made else set()
        orphans = _read_orphans(connection) if made else []
        changes = read_history(connection) if history else []
        integrity = str(connection.execute("PRAGMA integrity_check").fetchall()[0][0])
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    locks = sorted(path.name for path in database.parent.glob(f"{database.name}-worker-*"))
    return Snapshot(
        executions=executions,
        living=living,
        integrity=integrity,
        locks=locks,
        ledger_lines=0,
        orphans=orphans,
        changes=changes,
    )


def _read_living(connection: apsw.Connection) -> set[int]:
    return {pid for (pid,) in connection.execute("SELECT pid FROM perdure_workers WHERE retired_at IS NULL")}


def _read_orphans(connection: apsw.Connection) -> list[str]:
    return [
        f"{table} {incarnation.hex()}"
        for table in ("perdure_journal", "perdure_mailbox", "perdure_heartbeats")
        for (incarnation,) in connection.execute(
            f"SELECT DISTINCT incarnation FROM {table} EXCEPT SELECT incarnation FROM perdure_executions"
        )
    ]


def _read_executions(connection: apsw.Connection) -> dict[str, Execution]:
    by_incarnation: dict[bytes, list[Entry]] = {}
    for incarnation, *entry in connection.execute(
        "SELECT incarnation, seq, kind, name, occurrence, attempt, input, exit, at FROM perdure_journal"
        " ORDER BY incarnation, seq"
    ):
        by_incarnation.setdefault(incarnation, []).append(Entry(*entry))
    executions: dict[str, Execution] = {}
    for id_, incarnation, *row in connection.execute(
        "SELECT id, incarnation, workflow, key, status, (SELECT pid FROM perdure_workers w WHERE w.n = owner), fence,"
        " crashes, wake_at, began_at, exit, held, waits, payload FROM perdure_executions"
    ):
        workflow, label, status, owner, fence, crashes, wake_at, began_at, exit_, held, waits, payload = row
        executions[id_.hex()] = Execution(
            execution_id=id_.hex(),
            workflow=workflow,
            label=label,
            status=status,
            owner=owner,
            fence=fence,
            crashes=crashes,
            wake_at=wake_at,
            began_at=began_at,
            exit=exit_,
            held=held,
            waits=waits,
            incarnation=incarnation,
            payload=payload,
            entries=by_incarnation.get(incarnation, []),
        )
    return executions
