"""Nobody waits in these plays, and every function on a thread is known."""

import sys
from collections.abc import Iterator

import pytest

from tests.crash.faults.play import hurry
from tests.engine.lab import watch_threads


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    watch_threads(monkeypatch)
    hurry(monkeypatch)
    # A disk in Python has the interpreter change threads at each of its calls, and would wait 5 ms for it each time.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_1)
    yield
    sys.setswitchinterval(interval)
