"""Figures of fresh processes: how long an import takes, a first result, and what a parked kernel costs."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent

# A process that has not answered by then never will: an engine that is broken waits for itself.
LIMIT_S = 30.0

_IMPORT = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


class Parked(NamedTuple):
    """Bytes of Python memory for each suspended execution."""

    kept: float  # with its kernel parked
    evicted: float  # without: what the engine cannot put away


def _environment() -> dict[str, str]:
    # Bytecode is cached, as it is for everybody but the first process after an installation.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure_import(statement: str) -> float:
    """Milliseconds of an import in a process of its own, the interpreter's start not counted."""
    command = [sys.executable, "-c", _IMPORT.format(statement)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(), timeout=LIMIT_S)
    return float(ran.stdout) * 1_000


def measure_first_result(path: Path) -> float:
    """Seconds from the start of a process, with no file yet, until it says its first result."""
    command = [sys.executable, str(HERE / "first_result.py"), str(path)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
        assert process.stdout is not None
        limit = threading.Timer(LIMIT_S, process.kill)
        limit.start()
        try:
            said = process.stdout.readline()
            seconds = time.perf_counter() - began
            process.wait()
        finally:
            limit.cancel()
    if process.returncode != 0 or not said.startswith("charge-"):
        raise RuntimeError(f"first_result.py ended with status {process.returncode} and said {said!r}")
    return seconds


def measure_parked(directory: Path, count: int) -> Parked:
    """Memory of suspended executions, over that many."""
    return Parked(**ask("parked.py", directory, count))


def ask(program: str, *arguments: object, limit_s: float = LIMIT_S) -> Any:
    """What a program of this folder measures in a process of its own."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment(), timeout=limit_s)
    return json.loads(ran.stdout)
