"""The simulator's own checks, and the model: each notices what it is there for, and says nothing of what is right."""

import re
from random import Random
from typing import Any

import pytest

from perdure.testing._simulation.account import Account, account_of
from perdure.testing._simulation.invariants import CHECKS, violations

from tests.simulation import life_forgery, mail_forgery, operation_forgery  # list their forgeries
from tests.simulation.forgery import (
    FORGERIES,
    Forgery,
    calm_account,
    change_one,
    copy_of,
    crashed_account,
    long,
    move,
    rows,
    short,
)
from tests.simulation.programs import _RUNS, PATIENCE_MS, Node, draw, far_side_ms, may_be, program


@pytest.mark.parametrize("forgery", FORGERIES, ids=str)
def test_a_broken_promise_is_noticed(forgery: Forgery):
    """Promises 1 to 5, 7: the check of the promise says what is wrong, and of which execution; no other one does."""
    account = copy_of(forgery.account())
    named = forgery.forge(account)
    said = violations(account)
    name = forgery.check.__name__
    its = [sentence for sentence in said if sentence.startswith(f"{name}: ")]
    assert any(re.search(forgery.says, sentence) and str(named) in sentence for sentence in its), said
    assert {sentence.split(":")[0] for sentence in said} == {name} | forgery.also, said


@pytest.mark.parametrize(
    "account",
    [
        calm_account,
        crashed_account,
        mail_forgery.mailed_account,
        life_forgery.lived_account,
        operation_forgery.operated_account,
    ],
)
def test_nothing_is_said_of_an_account_that_nobody_has_changed(account: Any):
    """The control: what is noticed above was not there before."""
    real: Account = account()
    assert violations(real) == violations(copy_of(real)) == []


def test_a_wake_may_be_late_as_long_as_something_is_wrong():
    """Promise 7: five seconds of polling and one for the way, counted from when the trouble is over."""
    account = copy_of(crashed_account())
    life = long(account)
    woken = move(life, "SUSPENDED", "PENDING")
    change_one(life.changes, woken, now=max(rows(woken)[0].wake_at or 0, account.calm_from) + 6_000)
    assert violations(account) == []


def test_what_belongs_to_nothing_is_found():
    """I15: rows, entries and attempts of an execution that is not in the database at the end."""
    account = calm_account()
    lost = short(account).record
    left = [life.record for life in account.lives.values() if life.record is not lost]
    found = account_of(
        case=account.case,
        registrations=[program],
        history=account.history,
        saw=account.saw,
        records=left,
        calm_from=account.calm_from,
    ).strays
    assert f"execution {lost.execution_id} was there and is not any more" in found
    assert f"2 entries of incarnation {lost.incarnation.hex()} belong to no execution" in found
    assert f"an attempt of stamp was made for execution {lost.execution_id}" in found


def test_every_check_has_its_forgery():
    """A check that nothing sets off is none."""
    assert {forgery.check for forgery in FORGERIES} == set(CHECKS)


# The model ----------------------------------------------------------------------------------------------------------

QUICK = next(label for label in map(str, range(100)) if far_side_ms(label) <= PATIENCE_MS)
SLOW = next(label for label in map(str, range(100)) if far_side_ms(label) > PATIENCE_MS)
ID = "0" * 32

# For each kind of node: a program, results that it may have, and results that it may not.
MODEL: dict[str, tuple[Node, list[Any], list[Any]]] = {
    "step": (["step", "a"], ["a!"], ["b!", None]),
    "stamp": (["stamp", "a"], ["a!"], ["b!", None]),
    "flaky": (["flaky", "a", 2], ["a!"], ["a refused", None]),
    "stubborn": (["stubborn", "a"], ["a!"], ["b!", None]),
    "refuse": (["refuse", "a"], ["a refused"], ["a!", "b refused"]),
    "hurried": (["hurried", QUICK], [f"{QUICK}!", f"{QUICK} late"], [f"{SLOW}!", None]),
    "hurried, and slow": (["hurried", SLOW], [f"{SLOW} late"], [f"{SLOW}!"]),
    "once": (["once", "a"], ["a!", "a unknown"], ["b!", None]),
    "equal": (["equal", "a", 2], [["a!", "a!"]], [["a!"], ["a!", "b!"], ["a!"] * 3]),
    "sleep": (["sleep", 50], ["in time"], ["too early", None]),
    "draw": (
        ["draw", "a"],
        [["a 1 2 3 4 5", "a 1 2 3 4 5!"]],
        [["a 1 2 3 4 5", "a!"], ["b 1 2 3 4 5", "b 1 2 3 4 5!"], ["a 1 1 3 4 5", "a 1 1 3 4 5!"]],
    ),
    "sequence": (["sequence", ["step", "a"], ["step", "b"]], [["a!", "b!"]], [["b!", "a!"], ["a!", None]]),
    "all": (["all", ["step", "a"], ["step", "b"]], [["a!", "b!"]], [["b!", "a!"], ["a!", None]]),
    "group": (["group", ["step", "a"], ["step", "b"]], [["a!", "b!"]], [["b!", "a!"], ["a!", None]]),
    "first": (
        ["first", ["step", "a"], ["step", "b"]],
        [[["a!"], []], [[], ["b!"]], [["a!"], ["b!"]]],
        [[[], []], [["b!"], []], [["a!"], ["c!"]]],
    ),
    "within": (["within", 5, ["step", "a"]], [[], ["a!"]], [["b!"], [None]]),
    "beside": (["beside", ["step", "a"]], [ID], ["a!", None]),
    "asked": (["asked", "a"], [["a@0"] * 3, ["a refused"] * 3], [["a@0", "a@0", "a@1"], ["b@0"] * 3, ["a!"] * 3]),
    "never": (["never", "a", 50], ["nobody"], ["a@0", None]),
    "into": (["into", "a"], [["a!", "a!"], ["a!", "a@0"], ["a!", "a refused"]], [["a@0", "a@0"], ["a!", "b!"]]),
    "race": (
        ["race", "a", ["step", "b"], ["doomed", "c"], ["refuse", "d"]],
        [["b!"], ["d refused"]],
        [[], ["c refused"], ["e!"], ["b!", "d refused"]],
    ),
    "race, and all fail": (["race", "a", ["doomed", "c"]], [[]], [["c refused"]]),
    "doomed": (["doomed", "a"], ["a refused"], ["a!"]),
    "child": (["child", ["sequence", ["step", "a"]]], [[["a!"]], "interrupted", "late"], ["refused", "broken", ["a!"]]),
    "child, and it fails": (["child", ["fail", "a", ["step", "b"]]], ["refused", "interrupted"], [[["b!"]], "broken"]),
    "shared": (["shared", "s", ["sequence", ["step", "a"]]], [[["a!"]], "interrupted"], ["refused", [["b!"]]]),
    "mended": (["mended", "a"], [["a!"], "broken", "interrupted", "late"], ["refused", ["b!"]]),
    "cycle": (
        ["cycle", "a", 2],
        [[["a/a0", "a/b0"]], "interrupted", "late"],
        [["a/a0", "a/b0"], [["a/a0"]], [["a/a1", "a/a0"]], "refused"],
    ),
    "again": (["again", "a"], [["a!"], "refused", "interrupted", "late"], ["broken", ["b!"], "a!"]),
    "booked": (["booked", "a"], ["a!"], ["b!", None]),
    "entered": (["entered", "a"], ["a!"], ["b!", None]),
    "defiant": (["defiant", "a", ["step", "b"]], ["b!", "a defied"], ["a!", "b defied"]),
    "inbox": (
        ["inbox", "a", 3],
        [["a/a0", "a/b0", "a/a1"], ["a/b0", "a/b1", "a/b2"]],
        [["a/a1", "a/a0", "a/b0"], ["a/a0", "a/a0", "a/b0"], ["a/a0", "a/a2", "a/b0"], ["a/a0", "a/b0", "b/a1"]],
    ),
    "told": (
        ["told", "a", 1],
        [[[True, False], ["a#0", "a told"]], [["finished"], ["a#0", "a late"]]],
        [[[True, True], ["a#0", "a told"]], [[True, False], ["a told"]], [[True, False], ["a#0", "a#0", "a told"]]],
    ),
    "show": (["show", "a"], ["a shown"], ["b shown"]),
    "stop": (["stop", "a"], ["stopped"], ["a!"]),
    "fail": (["fail", "a", ["step", "b"]], [], [["b!"], "refused"]),
}


@pytest.mark.parametrize("kind", MODEL)
def test_the_model_tells_right_from_wrong(kind: str):
    """R10, R16, R50: what a program may end with, and what only a broken engine could give."""
    node, right, wrong = MODEL[kind]
    assert [result for result in right if not may_be(node, result)] == []
    assert [result for result in wrong if may_be(node, result)] == []


@pytest.mark.parametrize("kind", MODEL)
@pytest.mark.parametrize("shapeless", [None, 7, {}, [], [None], [[], [], [], []]], ids=repr)
def test_a_result_of_no_shape_at_all_is_wrong(kind: str, shapeless: Any):
    """A wrong result ends in a sentence with its seed, not in a traceback of the model."""
    node, right, _ = MODEL[kind]
    assert may_be(node, shapeless) is (shapeless in right)


def test_the_model_knows_every_kind():
    assert {node[0] for node, _, _ in MODEL.values()} == _RUNS.keys()


def test_every_kind_is_drawn():
    """A kind that no seed draws is never tried."""
    assert set().union(*(_kinds(draw(Random(seed), "a")) for seed in range(200))) == _RUNS.keys()


def _kinds(node: Node) -> set[str]:
    return {node[0]}.union(*(_kinds(part) for part in node[1:] if isinstance(part, list)))
