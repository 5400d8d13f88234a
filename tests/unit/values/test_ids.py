"""Ids are promises: the vectors of R1 and R14, and what tells ids apart."""

import pytest

from perdure import _ids

ORDER = "fc0cd826dc208968186d2747adc6831f"


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [("WF1", "a", "2dde4b48edb4176d9825e719454d7086"), ("ProcessOrder", "order-123", ORDER)],
)
def test_an_execution_id_is_the_published_vector(name: str, key: str, expected: str) -> None:
    """R1."""
    assert _ids.execution_id(name, key) == expected


def test_the_length_of_a_name_is_counted_in_utf16_code_units() -> None:
    """R1: other languages count like that, so one character outside the basic plane counts as two."""
    assert _ids.execution_id("\N{PACKAGE}", "a") == _ids.digest("2:\N{PACKAGE}:a")
    assert _ids.execution_id("Überweisung", "a") == _ids.digest("11:Überweisung:a")


def test_an_activity_key_is_the_published_vector() -> None:
    """R14."""
    assert _ids.activity_key(ORDER, 1, "ChargeCard") == "6cdd44c1259d3728da6ebe7554a35064"


def test_an_activity_key_may_name_its_attempt() -> None:
    """R14: include_attempt=True."""
    assert _ids.activity_key(ORDER, 1, "ChargeCard", attempt=2) == _ids.digest(f"{ORDER}-2-ChargeCard")


def test_a_step_key_follows_its_formula() -> None:
    """R14: the first 16 hex digits of SHA-256 of the encoded input; 44136fa355b3678a are those of {}."""
    assert _ids.step_key(ORDER, 1, "charge", b"{}", 2) == _ids.digest(f"{ORDER}-charge/44136fa355b3678a#2")


def test_the_keys_of_a_later_incarnation_are_new() -> None:
    """R14, R37."""
    assert _ids.step_key(ORDER, 2, "charge", b"{}", 1) == _ids.step_key(f"{ORDER}~2", 1, "charge", b"{}", 1)
    assert _ids.activity_key(ORDER, 3, "charge") == _ids.digest(f"{ORDER}~3-charge")
    assert _ids.child_id(ORDER, 2, "Ship", b"{}", 1) != _ids.child_id(ORDER, 1, "Ship", b"{}", 1)


def test_a_child_never_shares_its_id_with_a_step() -> None:
    """R1: same parent, name, input and number."""
    assert _ids.child_id(ORDER, 1, "ship", b"{}", 1) != _ids.step_key(ORDER, 1, "ship", b"{}", 1)


def test_children_differ_by_each_thing_that_they_derive_from() -> None:
    """R1."""
    ids = {
        _ids.child_id(parent, 1, name, given, occurrence)
        for parent in (ORDER, "0" * 32)
        for name in ("Ship", "Bill")
        for given in (b"1", b"2")
        for occurrence in (1, 2)
    }
    assert len(ids) == 16


def test_incarnations_are_ordered_by_their_time() -> None:
    """DESIGN of the journal's key: new rows go to its end."""
    instants = [0, 1, 255, 256, 1_700_000_000_000, 2**48 - 1]
    made = [_ids.new_incarnation(now) for now in instants]
    assert made == sorted(made)
    assert {len(each) for each in made} == {16}


def test_an_incarnation_has_the_layout_of_a_uuid7() -> None:
    """Tools that show it as a UUID show its time."""
    for _ in range(50):
        made = _ids.new_incarnation(1_700_000_000_000)
        assert made[6] >> 4 == 7
        assert made[8] >> 6 == 0b10


def test_what_is_started_later_stands_behind_in_an_index() -> None:
    """A start without a key shares its page of the index of ids with its neighbours in time, beside however many others."""
    made = [_ids.new_execution_id(now) for now in range(1_700_000_000_000, 1_700_000_000_100)]
    assert made == sorted(made)


def test_new_ids_do_not_repeat() -> None:
    """R1: a start without a key is a new execution."""
    assert len({_ids.new_execution_id(7) for _ in range(1000)}) == 1000
    assert len(_ids.new_execution_id(7)) == 32
    assert len({_ids.new_worker_id() for _ in range(1000)}) == 1000
    assert len({_ids.new_incarnation(7) for _ in range(1000)}) == 1000
