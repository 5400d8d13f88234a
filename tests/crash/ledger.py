"""The ledger: what happened outside of the engine, one line an event, written by every process into one file.

It is the witness that knows nothing of journals. A line is one write of less than 4 KiB to a file that is open
for appending, so lines of several processes never mix, and what was written before a SIGKILL stays.
"""

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_LINE = 4096


class Phase(StrEnum):
    """What a line tells."""

    ACCEPTED = "accepted"  # `start` has returned
    BEGIN = "begin"  # an activity's function was called
    EFFECT = "effect"  # it did to the world what it is for
    TOLD = "told"  # somebody who waited was given the result
    HELD = "held"  # an engine said that it holds an execution
    REACHED = "reached"  # a failpoint; said only, not written


class Line(NamedTuple):
    """One event."""

    phase: Phase
    pid: int
    at: int  # milliseconds since the epoch, by the same clock as the engine's
    execution_id: str
    name: str  # of the activity, or of the workflow
    key: str = ""  # the step's idempotency key, or the execution's
    attempt: int = 0
    value: Any = None


class Ledger:
    """The ledger as a process writes it, from any of its threads."""

    def __init__(self, path: Path, *, echo: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Each line is said there too, so that whoever listens need not look at the file again and again.
        self._echo = echo

    def write(
        self, phase: Phase, execution_id: str, name: str, key: str = "", *, attempt: int = 0, value: Any = None
    ) -> None:
        line = Line(phase, os.getpid(), time.time_ns() // 1_000_000, execution_id, name, key, attempt, value)
        _write(self._file, line)
        _write(self._echo, line)

    def say(self, phase: Phase, name: str, attempt: int) -> None:
        """Only say something."""
        _write(self._echo, Line(phase, os.getpid(), time.time_ns() // 1_000_000, "", name, attempt=attempt))


def _write(file: int, line: Line) -> None:
    encoded = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    assert len(encoded) < LONGEST_LINE
    assert os.write(file, encoded) == len(encoded)


def read_line(encoded: bytes) -> Line:
    phase, *rest = json.loads(encoded)
    return Line(Phase(phase), *rest)


def read_ledger(path: Path, only: Phase | None = None) -> list[Line]:
    # A short life cannot afford to read what all lives before it have done: most lines are told by their beginning.
    beginning = b"" if only is None else f'["{only}",'.encode()
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [read_line(line) for line in lines if line.startswith(beginning)]


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
