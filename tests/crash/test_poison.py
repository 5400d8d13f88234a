"""An execution that ends whoever runs it is held after a while, and all the others finish (R41)."""

import signal
from collections.abc import Sequence

import pytest

from tests.crash.checker import violations
from tests.crash.ledger import Phase
from tests.crash.model import execution_id_of
from tests.crash.snapshot import Execution
from tests.crash.stage import Stage, some_of_each
from tests.crash.worker import Work

pytestmark = pytest.mark.timeout(90)  # a process for each crash

# Crashes that may have been anybody's, and crashes as the only suspect.
SHARED, ALONE = 2, 3


def restart_until_held(
    stage: Stage, poisons: list[Work], innocents: list[Work], bystanders: Sequence[Work] = ()
) -> set[str]:
    """Start a worker again and again, as a supervisor does; the executions that are held in the end.

    Nobody waits for the bystanders.
    """
    poisonous = {execution_id_of(*poison) for poison in poisons}
    innocent = {execution_id_of(*one) for one in innocents}
    while True:
        accepted = {line.execution_id for line in stage.account().of(Phase.ACCEPTED)} if stage.kills else set()
        # Once a poison is accepted nobody waits for it: it has no result.
        starting = [one for one in (*bystanders, *poisons) if execution_id_of(*one) not in accepted]
        held: set[str] = {line.execution_id for line in stage.account().of(Phase.HELD)} if stage.kills else set()
        told: set[str] = set()
        with stage.worker([*starting, *innocents], stays=True) as worker:
            for line in worker.lines():
                held |= {line.execution_id} if line.phase is Phase.HELD else set()
                told |= {line.execution_id} if line.phase is Phase.TOLD else set()
                if held >= poisonous and told >= innocent:
                    worker.open_gate()
            code = worker.end()
        if code == 0:
            return held
        assert code == -signal.SIGKILL, stage.complaints.read_text()
        stage.note_kill(worker)
        assert len(stage.kills) <= 20, "nobody finds out who it is"


def row(stage: Stage, work: Work) -> Execution:
    return stage.look().executions[execution_id_of(*work)]


def test_a_poisonous_execution_is_held_and_the_others_finish(tmp_path):
    """R41: found out among fifty that were in hand with it each time; none of them is blamed."""
    stage = Stage(tmp_path)
    poison = ("Poison", "one/poison")
    held = restart_until_held(stage, [poison], some_of_each("one", 5))
    assert held == {execution_id_of(*poison)}
    assert len(stage.kills) == SHARED + ALONE
    found = row(stage, poison)
    assert found.status == "HELD"
    assert b"5 workers in a row ended while they had this execution of 'Poison' in hand" in (found.exit or b"")
    account = stage.account()
    assert account.rest.executions[found.execution_id].entries == []
    assert len([line for line in account.of(Phase.BEGIN) if line.name == "die"]) == len(stage.kills)
    assert violations(account.without("Poison")) == []


def test_two_poisonous_executions_are_told_apart_from_the_others(tmp_path):
    """R41: each in its turn, although each takes the other one with it."""
    stage = Stage(tmp_path)
    poisons = [("Poison", "one/poison-0"), ("Poison", "one/poison-1")]
    held = restart_until_held(stage, poisons, some_of_each("one", 3))
    assert held == {execution_id_of(*poison) for poison in poisons}
    # One may have ended the worker before the other one had begun, so the second one comes into suspicion later.
    assert 2 * ALONE + SHARED <= len(stage.kills) <= 2 * (ALONE + SHARED)
    assert violations(stage.account().without("Poison")) == []


def test_an_execution_that_only_waits_for_its_time_is_not_blamed_and_delays_nobody(tmp_path):
    """R5, R41: it is a suspect as well, and comes first, but it sleeps when the worker dies."""
    stage = Stage(tmp_path)
    sleeper, poison = ("LongNap", "one/sleeper"), ("Poison", "one/poison")
    assert restart_until_held(stage, [poison], [], bystanders=[sleeper]) == {execution_id_of(*poison)}
    assert len(stage.kills) == SHARED + ALONE
    assert row(stage, sleeper).status == "PENDING"
