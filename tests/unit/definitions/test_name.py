"""Names, keys and attributes: what every store can keep and compare, and nothing else."""

import pytest

from perdure import DefinitionError, PayloadError, UsageError
from perdure._definitions.name import check_attributes, check_key, check_name

UNWRITABLE = {"NUL": "a\0b", "lone surrogate": "a\ud800b"}


@pytest.mark.parametrize("name", ["x", "Process Order/2", "n" * 255, "注文", "😀"])
def test_a_name_may_be_any_text(name: str):
    assert check_name(name, "it") == name


@pytest.mark.parametrize("name", ["", "n" * 256, *UNWRITABLE.values(), 3, None], ids=ascii)
def test_a_name_that_cannot_be_recorded_is_refused(name: object):
    with pytest.raises(DefinitionError, match="name of the thing"):
        check_name(name, "the thing")


@pytest.mark.parametrize("key", ["k" * 1024, "order-123", "a:b c"])
def test_a_key_has_up_to_1024_characters(key: str):
    assert check_key(key, "Pay") == key


@pytest.mark.parametrize("key", ["", "k" * 1025, *UNWRITABLE.values()], ids=ascii)
def test_a_key_that_cannot_be_recorded_is_refused_with_the_workflow_named(key: str):
    with pytest.raises(PayloadError, match=r'Workflow "Pay".*idempotency_key') as refused:
        check_key(key, "Pay")
    # The sentence goes to logs: it must be writable itself.
    assert str(refused.value).encode().isascii()


def test_a_key_that_is_no_text_is_told_how_to_become_one():
    with pytest.raises(PayloadError, match=r"gave int \(3\).*str\("):
        check_key(3, "Pay")


def test_attributes_may_be_text_numbers_and_bools():
    given = {"customer": "ada", "count": 3, "share": 0.5, "big": True, "empty": ""}
    assert check_attributes(given) == given


def test_attributes_are_copied():
    given = {"customer": "ada"}
    kept = check_attributes(given)
    given["customer"] = "bob"
    assert kept == {"customer": "ada"}


@pytest.mark.parametrize(
    "value", [*UNWRITABLE.values(), float("nan"), float("inf"), 2**63, -(2**63) - 1, None, ["x"], b"x"], ids=ascii
)
def test_an_attribute_that_cannot_be_recorded_is_refused(value: object):
    with pytest.raises(UsageError, match="'customer'"):
        check_attributes({"customer": value})


@pytest.mark.parametrize("name", ["", "a\0b", "\udfff", 3], ids=ascii)
def test_an_attributes_name_is_text_like_any_name(name):
    with pytest.raises(UsageError, match="attribute's name"):
        check_attributes({name: 1})
