"""Eight processes on one file, each starting and running executions, two of them killed: everything ends, once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.checker import violations
from tests.crash.ledger import Phase
from tests.crash.stage import Stage, some_of_each

pytestmark = pytest.mark.timeout(120)  # nine interpreters on a machine that may have two cores

PROCESSES = 8
KILLED = 2


def test_eight_processes_on_one_file_do_everything_once(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Promises 1 to 5, R2, R41: some executions are everybody's, some are of one process; no lock is anybody's trouble."""
    stage = Stage(tmp_path)
    everybodys = some_of_each("one/all", 1)
    own = [some_of_each(f"one/{number}", 2) for number in range(PROCESSES)]
    with ExitStack() as stack:
        workers = [stack.enter_context(stage.worker([*its, *everybodys])) for its in own]
        listeners = stack.enter_context(ThreadPoolExecutor(PROCESSES))
        # All at once: who is not listened to stands still some day.
        ends = [listeners.submit(worker.end) for worker in workers[KILLED:]]
        for worker in workers[:KILLED]:
            worker.hear(lambda line: line.phase is Phase.TOLD)
            worker.kill()
            stage.note_kill(worker)
        assert [end.result() for end in ends] == [0] * len(ends), stage.explain()
    stage.run_until_it_ends([one for its in own[:KILLED] for one in its])
    account = stage.account()
    assert violations(account) == []
    complaints = stage.complaints.read_text()
    assert "locked" not in complaints
    assert "Traceback" not in complaints
    by_process = Counter(line.pid for line in account.of(Phase.BEGIN))
    figures = f"{len(account.rest.executions)} executions, attempts by process {sorted(by_process.values())}"
    print(figures)
    record_property("figures", figures)
    assert {worker.pid for worker in workers[KILLED:]} <= by_process.keys()
