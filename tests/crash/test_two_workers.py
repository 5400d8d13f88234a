"""Two workers on one file, one of them killed: the other one inherits, because a lock is free and not because time is up."""

import pytest

from tests.crash.checker import violations
from tests.crash.ledger import Line, Phase
from tests.crash.snapshot import Execution
from tests.crash.stage import Stage, Worker, some_of_each

pytestmark = pytest.mark.timeout(60)  # two processes at once

GATES = [("Gated", f"one/gate-{number}") for number in range(3)]


def hear_gates(worker: Worker) -> list[Line]:
    """Wait until the worker has begun what stands at the gate."""
    return [worker.hear(lambda line: line.phase is Phase.BEGIN and line.name == "gate") for _ in GATES]


def gated(stage: Stage) -> list[Execution]:
    found = [one for one in stage.look().executions.values() if one.workflow == "Gated"]
    return sorted(found, key=lambda execution: execution.label)


def test_a_worker_inherits_from_one_that_was_killed_beside_it(tmp_path):
    """R5, R41: owned and replayed elsewhere, one crash counted, forgiven with the first entry."""
    stage = Stage(tmp_path)
    work = [*GATES, *some_of_each("one/dying", 3)]
    with stage.worker(work) as dying:
        hear_gates(dying)
        with stage.worker([*work, *some_of_each("one/heir", 2)]) as heir:
            heir.hear(lambda line: line.phase is Phase.EFFECT)
            before = gated(stage)
            assert [(one.owner, one.crashes) for one in before] == [(dying.pid, 0)] * 3, (
                "nobody inherits from the living"
            )
            dying.kill()
            stage.note_kill(dying)
            inherited = hear_gates(heir)
            after = gated(stage)
            assert [(one.owner, one.crashes) for one in after] == [(heir.pid, 1)] * 3
            assert [one.fence for one in after] == [one.fence + 2 for one in before], "taken away, and claimed"
            heir.open_gate()
            assert heir.end() == 0, stage.complaints.read_text()
    assert [one.crashes for one in gated(stage)] == [0] * 3
    account = stage.account()
    assert violations(account) == []
    last = max(line.at for line in account.lines if line.pid == dying.pid)
    print(f"inherited {min(line.at for line in inherited) - last} ms after the last sign of life")


def test_two_workers_share_the_work_and_do_nothing_twice(tmp_path):
    """Promise 3, R2, R4: both start the same executions; whoever comes second joins; nobody is killed."""
    stage = Stage(tmp_path)
    work = some_of_each("one", 3)
    with stage.worker(work) as one, stage.worker(work) as other:
        assert (one.end(), other.end()) == (0, 0), stage.complaints.read_text()
    account = stage.account()
    assert violations(account) == []
    assert {line.pid for line in account.of(Phase.TOLD)} == {one.pid, other.pid}
