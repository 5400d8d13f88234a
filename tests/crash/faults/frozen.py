"""A worker process that stops itself (SIGSTOP) where another one would be killed, and says when it begins anew.

`python -m tests.crash.faults.frozen PLAN`: the plan's crash is where it stops, with all of its threads.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from perdure.testing.failpoints import Failpoints

from tests.crash.ledger import Phase
from tests.crash.stage import ROOT
from tests.crash.worker import Plan, main
from tests.crash.workflows import scene

BEGINS_AGAIN = "begins again"


class Freezer:
    """Starts such processes."""

    def fork(self, plan: Plan, complaints: Path) -> "subprocess.Popen[bytes]":
        with complaints.open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.crash.faults.frozen", plan.encode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
            )


def until_frozen(pid: int) -> None:
    """Wait until a child of ours has stopped."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it has ended with {status}, and was to stop"


def stop(self: Failpoints, point: str, *, reach: int = 1) -> None:
    # To this thread, and not to the process: another thread would take the signal, and this one go on for a moment.
    self.on(point, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP), reach=reach)


class BeginsAgain(logging.Handler):
    """Has whoever listens hear that the worker was taken for dead."""

    def emit(self, record: logging.LogRecord) -> None:
        if "taken for dead" in record.msg:
            scene.ledger.say(Phase.REACHED, BEGINS_AGAIN, 1)


if __name__ == "__main__":
    Failpoints.crash = stop  # type: ignore[method-assign]
    logging.getLogger("perdure").addHandler(BeginsAgain())
    main(Plan.decode(sys.argv[1]))
