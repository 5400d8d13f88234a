"""Forgeries of executions that somebody has operated on: one that was rewound, and its fork."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from perdure import Success
from perdure._model.journal import Kind
from perdure._model.records import MailKind
from perdure._model.status import Status
from perdure.testing._simulation import invariants, lives, mail
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Errand, Operation, Plan
from perdure.testing._simulation.history import EntryWritten, LetterWritten
from perdure.testing._simulation.simulate import Simulation, run_case

from tests.simulation.forgery import NOBODY, OTHER, breaks, change_one
from tests.simulation.life_forgery import change_leaving
from tests.simulation.programs import Node, program
from tests.simulation.visitors import completion, message

# Waits for somebody, and for somebody else whom nobody hears in a fork of its first half.
OPERATED: Node = ["sequence", ["step", "a"], ["asked", "x"], ["once", "b"], ["inbox", "m", 1], ["stamp", "c"]]
# How much of it is to be kept: both steps, the value, and a mark of the one that may happen once.
LEAST = 4


def _visits(workflow: str, payload: bytes) -> Sequence[Sequence[Errand]]:
    assert workflow == program.name
    assert json.loads(payload)["node"] == OPERATED
    return [[completion("x", Success("x@0"), 0)], [message("m", "m/a0", 100)]]


@cache
def operated_account() -> Account:
    """Of a run in which nothing went wrong, and somebody rewound and forked the execution in its middle."""
    plan = Plan(
        registrations=[program],
        commissions=[Commission(workflow=program, args=(OPERATED,))],
        visitors=_visits,
        may_operate=lambda _, payload: bool(payload),
        rewinds=0.5,
        forks=0.5,
    )
    accounts: list[Account] = []

    def judge(account: Account) -> list[str]:
        accounts.append(account)
        return []

    for seed in range(500):
        assert run_case(Case(seed=seed, faults=frozenset(), at_most=0, processes=1), plan, judge, Simulation()) == []
        if all(found[-1:] for found in (_operated(accounts[-1], forked=forked) for forked in (True, False))):
            return accounts[-1]
    raise AssertionError("in no run was it rewound and forked in its middle")


# What is in it ------------------------------------------------------------------------------------------------------


def _operated(account: Account, *, forked: bool) -> list[Life]:
    found = [life for life in account.lives.values() if life.operation is not None]
    middle = [life for life in found if LEAST <= life.kept < len(life.written) - 1]
    return [life for life in middle if life.operation is not None and (life.operation.new_id is not None) is forked]


def rewound(account: Account) -> Life:
    """The life that begins behind a part of the journal of the one before."""
    return _operated(account, forked=False)[-1]


def fork(account: Account) -> Life:
    """The execution that begins with a part of another one's journal."""
    return _operated(account, forked=True)[-1]


def operation_of(life: Life) -> Operation:
    """What has been asked for."""
    assert life.operation is not None
    return life.operation


def _completion(life: Life) -> LetterWritten:
    return next(letter for letter in life.letters if letter.kind == MailKind.DEFERRED)


def _step(life: Life) -> EntryWritten:
    return next(entry for entry in life.written if entry.kind == Kind.ACTIVITY)


def breaks_operations(check: Any, says: str, *also: Any) -> Any:
    """List a forgery of this account."""
    return breaks(check, says, *also, account=operated_account)


# What is kept -------------------------------------------------------------------------------------------------------


@breaks_operations(
    lives.what_is_kept_is_as_it_was, r"was to keep \d+ entries, and has \d+", lives.every_operation_is_done_whole
)
def less_is_kept_than_was_asked_for(account: Account) -> object:
    life = rewound(account)
    life.operation = replace(operation_of(life), to=operation_of(life).to + 1)
    return life


@breaks_operations(lives.what_is_kept_is_as_it_was, "has kept .*, which was ")
def what_is_kept_is_changed(account: Account) -> object:
    life = rewound(account)
    change_one(life.written, life.written[0], at=life.record.began_at)
    source = account.before(life)
    assert source is not None
    change_one(source.written, source.written[0], at=(life.record.began_at or 0) + 1)
    for one in (life, source):
        for entry in one.written[1:]:
            change_one(one.written, entry, at=entry.at + 1)
    return life


@breaks_operations(
    lives.what_is_kept_is_as_it_was, "and does not have .*'deferred', 'x'", mail.what_is_read_was_written
)
def a_completion_is_left_behind_by_a_rewind(account: Account) -> object:
    life = rewound(account)
    life.letters.remove(_completion(life))
    return life


@breaks_operations(
    lives.what_is_kept_is_as_it_was, "has .*'deferred', 'y'.*, which it was not to have", mail.nobody_sleeps_on_mail
)
def a_fork_has_what_came_later(account: Account) -> object:
    life = fork(account)
    life.letters.append(_completion(life)._replace(name="y"))
    return life


@breaks_operations(lives.what_is_kept_is_as_it_was, "has .* as .*, which was", mail.what_is_read_was_written)
def a_fork_has_another_value(account: Account) -> object:
    life = fork(account)
    change_one(life.letters, _completion(life), exit=OTHER)
    return life


@breaks_operations(lives.what_is_kept_is_as_it_was, "draws otherwise than ")
def a_rewound_life_draws_otherwise(account: Account) -> object:
    life = rewound(account)
    life.record = life.record._replace(seed=b"other")
    return life


@breaks_operations(lives.what_is_kept_is_as_it_was, "and is another execution", lives.every_operation_is_done_whole)
def a_fork_is_of_nobody(account: Account) -> object:
    life = fork(account)
    life.operation = replace(operation_of(life), execution_id=NOBODY)
    return life


# Births -------------------------------------------------------------------------------------------------------------


@breaks_operations(lives.every_life_follows_one, "was rewound from one that was RUNNING", invariants.nothing_is_left)
def one_that_runs_is_rewound(account: Account) -> object:
    life = rewound(account)
    source = account.before(life)
    assert source is not None
    change_leaving(source, "before", status="RUNNING")
    source.record = source.record._replace(status=Status.RUNNING)
    return life


@breaks_operations(lives.every_life_follows_one, "did not begin as new")
def a_rewound_life_has_begun_at_another_time(account: Account) -> object:
    life = rewound(account)
    source = account.before(life)
    assert source is not None
    change_leaving(source, "after", began_at=0)
    return life


@breaks_operations(lives.every_operation_is_done_whole, "was told to be done, and no life has begun")
def a_rewind_is_told_and_not_done(account: Account) -> object:
    said = Operation(execution_id=rewound(account).record.execution_id, to=0, asked=1, told=2)
    account.saw.operations.append(said)
    return said


# What is not done again ---------------------------------------------------------------------------------------------


@breaks_operations(invariants.nothing_begins_before_it_is_asked_for, "began before anything durable asked for it")
def what_is_kept_is_done_again(account: Account) -> object:
    life, source = rewound(account), account.before(rewound(account))
    assert source is not None
    done = [seen for seen in source.attempts if seen.name == _step(life).name]
    place = life.attempts[0]
    life.attempts[:0] = [
        seen._replace(tick=place.tick, now=place.now, process=place.process, incarnation=place.incarnation, key="again")
        for seen in done
    ]
    return life
