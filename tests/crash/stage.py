"""Where a crash test plays: a directory with databases and a ledger, and the worker processes, one life after the other."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.crash.checker import Account, Kill
from tests.crash.history import keep_history
from tests.crash.ledger import Line, count_lines, read_ledger, read_line
from tests.crash.nursery import Nursery
from tests.crash.snapshot import Snapshot, merged, read_snapshot
from tests.crash.worker import Plan, Work
from tests.crash.workflows import APART, WORKFLOWS

ROOT = Path(__file__).parents[2]


def some_of_each(prefix: str, count: int = 2) -> list[Work]:
    """Executions of every workflow that ends by itself, under labels of their own."""
    names = [workflow.name for workflow in WORKFLOWS if workflow.name not in APART]
    return [(name, f"{prefix}/{name}-{number}") for number in range(count) for name in names]


def start_process(plan: Plan, complaints: Path) -> "subprocess.Popen[bytes]":
    with complaints.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker", plan.encode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
        )


class Worker:
    """A worker process, as its parent sees it. It is killed when its context is left.

    Forked by a nursery its life begins at once; otherwise it begins with the start of an interpreter.
    """

    def __init__(self, plan: Plan, complaints: Path, nursery: Nursery | None = None) -> None:
        self._process = nursery.fork(plan, complaints) if nursery is not None else start_process(plan, complaints)
        self._complaints = complaints
        self.pid = self._process.pid
        # By the clock of the ledger; 0: nobody has killed it yet, or it did so itself.
        self.killed_at = 0
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def lines(self) -> Iterator[Line]:
        """What it says, until it has ended; the last line of a killed process may be half a line."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                yield read_line(line)

    def hear(self, wanted: Callable[[Line], bool]) -> Line:
        """Wait until it says something."""
        for line in self.lines():
            if wanted(line):
                return line
        raise AssertionError(f"the worker has ended ({self.end()}) and did not say it\n{self._complaints.read_text()}")

    def open_gate(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"open\n")
        self._process.stdin.flush()

    @property
    def saying(self) -> int:
        """The file to read what it says from, for those who listen to several. Unread, it stands still some day."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def kill(self) -> int:
        """SIGKILL; returns when the process is gone, the code that it has ended with."""
        if not self._ended:
            self.killed_at = time.time_ns() // 1_000_000
            self._process.send_signal(signal.SIGKILL)
        return self._wait()

    def end(self) -> int:
        """Wait until it has ended, reading what it says; the code that it has ended with."""
        for _ in self.lines():
            pass
        return self._wait()

    def _wait(self) -> int:
        code = self._process.wait()
        self._ended = True
        return code


class Stage:
    """Databases, a ledger, and what has been done to them."""

    def __init__(self, directory: Path, databases: Iterable[str] = ("one",), *, history: bool = False) -> None:
        self.databases = [directory / f"{name}.perdure" for name in databases]
        self.ledger = directory / "ledger"
        self.complaints = directory / "stderr"
        self.kills: list[Kill] = []
        if history:
            for path in self.databases:
                keep_history(path)

    def worker(
        self, work: list[Work], *, database: int | None = None, nursery: Nursery | None = None, **options: object
    ) -> Worker:
        """Start a worker, on one of the databases or on all of them."""
        chosen = self.databases if database is None else [self.databases[database]]
        by_database = {
            str(path): [one for one in work if len(chosen) == 1 or one[1].startswith(f"{path.stem}/")]
            for path in chosen
        }
        return Worker(Plan(ledger=str(self.ledger), work=by_database, **options), self.complaints, nursery)

    def run_until_it_dies(self, work: list[Work], point: str, reach: int, **options: object) -> None:
        """A life that ends at a failpoint."""
        with self.worker(work, crash=(point, reach), **options) as worker:
            code = worker.end()
        assert code == -signal.SIGKILL, f"{point} was not reached {reach} times: {code}\n{self.complaints.read_text()}"
        self.note_kill(worker)

    def run_until_it_ends(self, work: list[Work], **options: object) -> None:
        """A life that ends because there is nothing left to wait for."""
        with self.worker(work, **options) as worker:
            code = worker.end()
        assert code == 0, f"the last worker has failed: {code}\n{self.explain()}"

    def note_kill(self, worker: Worker) -> None:
        """Look at what a killed worker has left behind."""
        self.kills.append(Kill(worker.pid, self.look(), worker.killed_at))

    def look(self, *, history: bool = False) -> Snapshot:
        written = [path for path in self.databases if path.exists()]
        lines_before = count_lines(self.ledger)
        snapshots = [read_snapshot(path, history=history) for path in written]
        return merged(snapshots, lines_before, count_lines(self.ledger))

    def explain(self) -> str:
        """What has not ended, and what the workers had to say."""
        left = [one for one in self.look().executions.values() if not one.is_final]
        lines = [f"{one.workflow} {one.label}: {one.status} {(one.exit or b'').decode()}" for one in left]
        return "\n".join([*lines, self.complaints.read_text()])

    def account(self) -> Account:
        return Account(read_ledger(self.ledger), self.kills, self.look(history=True))
