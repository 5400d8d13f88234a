"""A process that has imported everything and opened nothing; told to, it forks worker processes.

Each of them is a real process with files, locks and threads of its own: a store is opened behind the fork, never
before. What is saved is the start of the interpreter, which would be most of a short life.

On its socket it is told one thing at a time: `F`, a worker's stdin, stdout and stderr, and a plan on one line, which
it answers with the pid; or `W` and a pid on one line, which it answers with the exit code when that one has ended.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tests.crash.worker import Plan, main

ROOT = Path(__file__).parents[2]
FORK, WAIT = b"F", b"W"
STANDARD_FILES = 3


class Nursery:
    """The nursery as a test sees it. It ends when its context is left; its workers live on."""

    def __init__(self, *, hash_seed: int) -> None:
        """Forks share their parent's hashes of strings: whoever wants two orders of a set needs two nurseries."""
        self._socket, its_own = socket.socketpair()
        with its_own:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.nursery", str(its_own.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[its_own.fileno()],
                cwd=ROOT,
                env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait()

    def fork(self, plan: Plan, complaints: Path) -> "Forked":
        """Begin a worker's life."""
        stdin, its_stdin = os.pipe()
        its_stdout, stdout = os.pipe()
        stderr = os.open(complaints, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            socket.send_fds(self._socket, [FORK], [stdin, stdout, stderr])
            pid = self._ask(plan.encode())
        finally:
            # The worker's ends are the worker's alone, or nobody would notice that it has ended.
            for its in (stdin, stdout, stderr):
                os.close(its)
        return Forked(self, pid, os.fdopen(its_stdin, "wb"), os.fdopen(its_stdout, "rb"))

    def wait(self, pid: int) -> int:
        """Wait until a worker has ended; its exit code, or its signal as a negative number."""
        self._socket.sendall(WAIT)
        return self._ask(str(pid))

    def _ask(self, line: str) -> int:
        self._socket.sendall(line.encode() + b"\n")
        return int(_read_line(self._socket))


class Forked:
    """A worker's process, with as much of the face of `subprocess.Popen` as is needed."""

    def __init__(self, nursery: Nursery, pid: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._nursery = nursery
        self._code: int | None = None
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout

    def send_signal(self, number: int) -> None:
        # Until it was waited for its pid is nobody else's.
        if self._code is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        if self._code is None:
            self._code = self._nursery.wait(self.pid)
        return self._code


# In the nursery's own process ----------------------------------------------------------------------------------------


def serve(its_own: socket.socket) -> Plan | None:
    """Do what is told until the test has gone. In a forked worker: its plan."""
    while True:
        # More than one byte would be the beginning of what comes next.
        told, files, _, _ = socket.recv_fds(its_own, 1, STANDARD_FILES)
        if not told:
            return None
        line = _read_line(its_own)
        if told == WAIT:
            _, status = os.waitpid(int(line), 0)
            answer = os.waitstatus_to_exitcode(status)
        elif pid := os.fork():
            answer = pid
        else:
            _become_worker(files)
            return Plan.decode(line)
        for file in files:
            os.close(file)
        its_own.sendall(f"{answer}\n".encode())


def _become_worker(files: Sequence[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)


def _read_line(its_own: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        part = its_own.recv(65_536)
        if not part:
            raise EOFError("the other end has gone")
        line += part
    return line.decode()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as told:
        plan = serve(told)
    if plan is not None:
        main(plan)
