"""What `verify_replay` and `replay_check` ask of a journal, asked of the journals of random programs under faults."""

from collections.abc import Iterator
from dataclasses import replace

from perdure._engine.standing import standing_of
from perdure._model.status import Status
from perdure.testing._change import changes
from perdure.testing._rerun import Implementation, Recording, rerun
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.simulate import simulate_plans

from tests.simulation.programs import plan

SEEDS = range(1_000, 1_005)


def _differing(account: Account) -> Iterator[str]:
    for life in account.lives.values():
        if life.record.began_at is None:
            continue  # it was interrupted before anybody had run it
        whole = Recording.of(life.record, life.entries)
        yield from _asked_of(whole, life.implementation)
        for _, length in life.commits:
            # What it was born with may end in the middle of a turn.
            if life.kept < length < len(life.entries):
                under_way = replace(whole, entries=life.entries[:length], status="RUNNING", exit=None, waits=None)
                yield from _asked_of(under_way, life.implementation)
                yield from _asked_of_asleep(life, under_way)


def _asked_of_asleep(life: Life, under_way: Recording) -> Iterator[str]:
    """The same of one that was put to sleep there: then all is known that it waited for."""
    kernel = life.replay(len(under_way.entries))
    try:
        standing = standing_of(kernel, life.implementation, now=under_way.changed_at, busy=False)
    finally:
        kernel.close()
    if standing.status is Status.SUSPENDED and standing.held is None:
        yield from _asked_of(replace(under_way, status="SUSPENDED", waits=standing.waits), life.implementation)


def _asked_of(recording: Recording, implementation: Implementation) -> Iterator[str]:
    told = rerun(recording, implementation).disagreement
    if told is not None:
        yield f"{len(recording.entries)} entries: {told.message}"
    yield from map(str, changes(recording, implementation, {}, frozenset()))


def test_no_replay_of_a_random_program_is_taken_for_another() -> None:
    """R7, R8: up to each commit, whoever has written it, and whatever has crashed meanwhile."""
    done = simulate_plans(plan, map(Case.drawn, SEEDS), _differing, repeat="simulate_plans(plan, …")
    assert done.executions >= len(SEEDS)
