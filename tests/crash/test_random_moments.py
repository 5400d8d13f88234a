"""A worker under load is killed twenty times at moments that nobody has chosen, and started again each time.

The moment is so many lines of the ledger into the worker's life, and then a few thousandths of a second more: both
drawn from a seed that is printed. What was under way then is up to the machine.
"""

import random
import time
from collections import Counter
from statistics import median

import pytest

from tests.crash.checker import Account, Kill, in_flight, repeats, violations
from tests.crash.ledger import Phase, read_ledger
from tests.crash.model import children, execution_id_of
from tests.crash.stage import Stage, some_of_each
from tests.crash.worker import Work, read_trace

# Twenty-one processes, each with a few hundred executions.
pytestmark = pytest.mark.timeout(120)

KILLS = 20
# Executions that are no suspects yet (R41): those run all at once, suspects one after the other.
AT_ONCE = 150


def unfinished(stage: Stage, work: list[Work]) -> list[Work]:
    """Those whose result, or that of an execution they have started, nobody has been told yet."""
    told = {line.execution_id for line in read_ledger(stage.ledger) if line.phase is Phase.TOLD}
    return [one for one in work if not told.issuperset({execution_id_of(*one), *children(*one)})]


def top_up(stage: Stage, life: int, work: list[Work]) -> list[Work]:
    """New executions for those that have ended or fallen into suspicion, so that the load stays."""
    before = stage.kills[-1].snapshot.executions.values() if stage.kills else ()
    suspects = sum(execution.crashes >= 2 for execution in before)
    more: list[Work] = []
    while len(work) + len(more) - suspects < AT_ONCE:
        more += some_of_each(f"one/{life}-{len(more)}", 1)
    return more


def test_a_worker_killed_at_twenty_random_moments_loses_nothing(tmp_path, record_property):
    """Promises 1 to 5 and 7, with 100 and more executions in hand."""
    seed = random.randrange(2**32)  # drawn anew for every run, and again with the same --randomly-seed
    print(f"seed {seed}")
    draw = random.Random(seed)
    stage = Stage(tmp_path)
    trace = tmp_path / "trace"
    work: list[Work] = []
    landed: Counter[str] = Counter()
    for life in range(KILLS):
        work = unfinished(stage, work)
        work += top_up(stage, life, work)
        with stage.worker(work, resumes=True, trace=str(trace)) as worker:
            lines = draw.randrange(20, 600)
            for count, _ in enumerate(worker.lines(), start=1):
                if count == lines:
                    break
            # Not to wait for something: this is the choice of the moment. The lines alone would have each kill
            # fall right behind an effect.
            time.sleep(draw.uniform(0, 0.015))
            worker.kill()
        stage.note_kill(worker)
        landed[read_trace(trace)[1]] += 1
    stage.run_until_it_ends(unfinished(stage, work), resumes=True)
    account = stage.account()
    figures = figures_of(account, landed)
    record_property("figures", figures)
    print(figures)
    assert violations(account) == []
    # A kill exposes one suspect, and three of them convict it, innocent as it is; then it is resumed.
    assert len(account.of(Phase.HELD)) <= KILLS // 3
    # Otherwise all this would mean little. The machine decides how much; these are far below what it ever was.
    assert median(in_hand(kill) for kill in account.kills) >= 100
    assert median(len(in_flight(account, kill)) for kill in account.kills) >= 5


def in_hand(kill: Kill) -> int:
    """How many executions had begun and not ended."""
    return sum(not execution.is_final for execution in kill.snapshot.executions.values())


def figures_of(account: Account, landed: Counter[str]) -> str:
    hands = [in_hand(kill) for kill in account.kills]
    cut_off = [len(in_flight(account, kill)) for kill in account.kills]
    where = ", ".join(f"{times}x {point}" for point, times in landed.most_common())
    return (
        f"{len(account.kills)} kills; executions in hand {min(hands)} to {max(hands)}, median {median(hands)}; attempts cut off"
        f" {min(cut_off)} to {max(cut_off)}, median {median(cut_off)}; {len(account.of(Phase.HELD))} held and resumed;"
        f" {repeats(account)} effects repeated of"
        f" {len(account.of(Phase.EFFECT))}; the store's thread had last passed: {where}"
    )
