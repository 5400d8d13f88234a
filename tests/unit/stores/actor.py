"""Workers and programs that the tests of the stores send on stage."""

import subprocess
import sys
from pathlib import Path

from perdure._model.records import Worker


def worker(worker_id: str) -> Worker:
    """A worker to register."""
    return Worker(worker_id=worker_id, host="host", pid=42, workflows=("Order",), started_at=0)


def program(source: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python program of its own, with pipes to talk through."""
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def output(running: subprocess.Popen[str]) -> str:
    """What a program has said, once it has ended well."""
    said, complained = running.communicate(timeout=15)
    assert running.returncode == 0, complained
    return said
