"""The guide on changing code and the tests of its rows are one: neither has what the other has not."""

import inspect
from collections import Counter

import pytest

from tests.engine import test_edits
from tests.engine.edits import HEADER, rows, rows_of

TESTS = {name for name, found in vars(test_edits).items() if name.startswith("test_") and inspect.isfunction(found)}


def test_every_row_of_the_guide_is_a_test():
    assert {row.test for row in rows()} - TESTS == set()


def test_every_test_of_an_edit_is_a_row_of_the_guide():
    assert TESTS - {row.test for row in rows()} == set()


def test_no_edit_stands_twice_in_the_guide():
    assert [edit for edit, times in Counter(row.test for row in rows()).items() if times > 1] == []


def test_a_row_is_read_with_its_edit_and_what_becomes_of_it():
    """The control: a reader of tables that finds nothing passes every page."""
    (row,) = rows_of(
        f"{HEADER}\n|---|---|---|\n| An `activity` is renamed | **held DIVERGENCE** | so |\n\n| no | row | |"
    )
    assert (row.test, row.verdict) == ("test_an_activity_is_renamed", "held DIVERGENCE")


def test_a_row_says_what_exactly_happens():
    with pytest.raises(AssertionError, match="say what exactly happens"):
        rows_of(f"{HEADER}\n|---|---|---|\n| it is renamed | goes on | |")
