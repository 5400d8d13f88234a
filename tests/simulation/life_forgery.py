"""Forgeries of executions with several lives: one that goes on as a new one with its mail, one that was restarted."""

import json
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any

from perdure._model.records import MailKind
from perdure._model.status import Status
from perdure.testing._simulation import invariants, lives, mail
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Errand, Plan
from perdure.testing._simulation.history import ExecutionRow, LetterWritten
from perdure.testing._simulation.simulate import Simulation, run_case

from tests.simulation.forgery import breaks, change_one
from tests.simulation.programs import cycle, program, refusals_of, restarted
from tests.simulation.visitors import message

# Whose first life fails, and not the second one.
FAILING = next(label for label in map(str, count()) if refusals_of(label) == 1)


def _visits(workflow: str, payload: bytes) -> Sequence[Sequence[Errand]]:
    """Two messages at once: the second one lies there when the first life goes on."""
    label = json.loads(payload).get("label")
    return [[message(label, f"{label}/a{n}", 0) for n in range(2)]] if workflow == cycle.name else []


@cache
def lived_account() -> Account:
    """Of a run in which nothing went wrong."""
    plan = Plan(
        registrations=[program, cycle, restarted],
        commissions=[
            Commission(workflow=cycle, args=("cycling", 2, [])),
            Commission(workflow=program, args=(["sequence", ["again", FAILING]],)),
        ],
        visitors=_visits,
    )
    accounts: list[Account] = []

    def judge(account: Account) -> list[str]:
        accounts.append(account)
        return []

    assert run_case(Case(seed=0, faults=frozenset(), at_most=0, processes=2), plan, judge, Simulation()) == []
    return accounts[0]


# What is in it ------------------------------------------------------------------------------------------------------


def _life(account: Account, workflow: str, number: int) -> Life:
    return next(one for one in account.lives.values() if (one.record.workflow, one.record.number) == (workflow, number))


def cycling(account: Account, number: int) -> Life:
    """A life of the one that goes on."""
    return _life(account, cycle.name, number)


def failing(account: Account, number: int) -> Life:
    """A life of the one that was restarted."""
    return _life(account, restarted.name, number)


def _second_message(life: Life) -> LetterWritten:
    return [one for one in life.letters if one.kind == MailKind.MESSAGE][-1]


def change_leaving(life: Life, side: str, **columns: Any) -> None:
    """Let the next life have begun in the place of another row, or as another one."""
    assert life.leaving is not None
    row: ExecutionRow = getattr(life.leaving, side)
    life.leaving = life.leaving._replace(**{side: row._replace(**columns)})


def breaks_lives(check: Any, says: str, *also: Any) -> Any:
    """List a forgery of this account."""
    return breaks(check, says, *also, account=lived_account)


# One after the other ------------------------------------------------------------------------------------------------


@breaks_lives(lives.every_life_follows_one, "has number 1, where 2 is due")
def two_lives_have_one_number(account: Account) -> object:
    life = failing(account, 2)
    life.record = life.record._replace(number=1)
    return life


@breaks_lives(lives.every_life_follows_one, "began in the place of one that was SUCCEEDED")
def one_that_has_succeeded_is_restarted(account: Account) -> object:
    change_leaving(failing(account, 1), "before", status="SUCCEEDED")
    return failing(account, 2)


@breaks_lives(lives.every_life_follows_one, "began in the place of one that its owner had not let go on")
def one_goes_on_that_nobody_had(account: Account) -> object:
    life = cycling(account, 1)
    # What its body shows is written in a change of its own, behind the one by which it is let go on.
    freed = [one for one in life.changes if one.before is not None and one.before.owner is not None][-1]
    assert freed.before is not None
    change_one(life.changes, freed, before=freed.before._replace(owner=None, status="PENDING"))
    return cycling(account, 2)


@breaks_lives(lives.every_life_follows_one, "began in the place of one that its owner had not let go on")
def one_goes_on_in_another_transaction(account: Account) -> object:
    life = cycling(account, 1)
    assert life.leaving is not None
    life.leaving = life.leaving._replace(tick=account.history.committed(life.leaving.tick) + 1)
    return cycling(account, 2)


@breaks_lives(lives.every_life_follows_one, "did not begin as new")
def a_life_begins_with_a_crash_of_the_one_before(account: Account) -> object:
    change_leaving(failing(account, 1), "after", crashes=1)
    return failing(account, 2)


@breaks_lives(lives.every_life_follows_one, r"has the fence \d+, after \d+: who owned the life before may go on")
def a_life_has_the_fence_of_the_one_before(account: Account) -> object:
    life = failing(account, 1)
    assert life.leaving is not None
    assert life.leaving.before is not None
    change_leaving(life, "after", fence=life.leaving.before.fence)
    return failing(account, 2)


@breaks_lives(lives.every_life_follows_one, "was put aside as FAILED None, and was .*SUCCEEDED")
def a_life_is_put_aside_as_another(account: Account) -> object:
    life = cycling(account, 1)
    life.record = life.record._replace(status=Status.FAILED)
    return life


@breaks_lives(
    invariants.every_replay_goes_the_same_way, "ended; replayed, it does the other",
    lives.every_life_follows_one, invariants.nothing_is_left, lives.the_next_life_has_the_mail,
)  # fmt: skip
def one_that_goes_on_had_failed(account: Account) -> object:
    life = cycling(account, 1)
    change_leaving(life, "before", status="FAILED")
    return life


@breaks_lives(invariants.every_key_is_the_steps_own, "has the key of")
def two_lives_have_one_key(account: Account) -> object:
    first, second = (cycling(account, number) for number in (1, 2))
    for seen in list(second.attempts):
        change_one(second.attempts, seen, key=first.attempts[0].key)
    return second


@breaks_lives(invariants.every_move_is_allowed, "had ended FAILED, and was changed to")
def one_that_had_failed_is_changed_before_it_is_restarted(account: Account) -> object:
    life = failing(account, 1)
    last = life.changes[-1]
    assert last.after is not None
    life.changes.append(
        last._replace(tick=last.tick + 1, before=last.after, after=last.after._replace(status="PENDING"))
    )
    return life


@breaks_lives(lives.no_restart_is_lost, r"had ended at \d+, and was not restarted at \d+")
def one_that_has_failed_is_joined(account: Account) -> object:
    life = failing(account, 1)
    assert life.record.finished_at is not None
    assert life.ended_at is not None
    account.saw.restarts.append((life.record.execution_id, life.record.finished_at + 200_000, life.ended_at))
    return life


# Mail ---------------------------------------------------------------------------------------------------------------


@breaks_lives(
    lives.the_next_life_has_the_mail, "went on, and the next life does not have message", mail.what_is_read_was_written
)
def what_was_not_read_is_left_behind(account: Account) -> object:
    second = cycling(account, 2)
    second.letters.remove(_second_message(second))
    return cycling(account, 1)


@breaks_lives(lives.the_next_life_has_the_mail, "and the next life has it again")
def what_was_had_comes_along(account: Account) -> object:
    first, second = (cycling(account, number) for number in (1, 2))
    had = next(one for one in first.letters if one.kind == MailKind.MESSAGE)
    second.letters.append(had._replace(incarnation=second.record.incarnation, tick=second.changes[0].tick + 1))
    return first


@breaks_lives(lives.the_next_life_has_the_mail, "and it came once more")
def a_message_comes_to_two_lives(account: Account) -> object:
    first, second = (cycling(account, number) for number in (1, 2))
    had = next(one for one in first.letters if one.kind == MailKind.MESSAGE)
    again = second.record.wakes + 1
    tick = second.changes[0].tick + 1
    second.letters.append(had._replace(incarnation=second.record.incarnation, tick=tick, wake=again))
    second.record = second.record._replace(wakes=again)
    return first


@breaks_lives(lives.the_next_life_has_the_mail, "was restarted, and has message x of the life before")
def a_restart_has_old_mail(account: Account) -> object:
    first, second = (failing(account, number) for number in (1, 2))
    for life in (first, second):
        letter = _second_message(cycling(account, 1))
        born = life.changes[0].tick + 1
        life.letters.append(letter._replace(incarnation=life.record.incarnation, name="x", tick=born, wake=1))
        life.record = life.record._replace(wakes=1)
    return second


@breaks_lives(
    lives.the_next_life_has_the_mail, "went on, and the next life does not have message", mail.what_is_read_was_written
)
def what_comes_along_is_changed(account: Account) -> object:
    second = cycling(account, 2)
    change_one(second.letters, _second_message(second), exit=b'{"success":"other"}')
    return cycling(account, 1)
