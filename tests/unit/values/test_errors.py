"""The tree of errors: codes, facts, and defects that can always be stored."""

import copy
from collections.abc import Iterator

import pytest

from perdure import errors
from perdure.errors import Defect, ExecutionTimeoutError, NonDeterminismError, PayloadError, PerdureError


def tree(base: type[PerdureError] = PerdureError) -> Iterator[type[PerdureError]]:
    """Give every class of the library's own."""
    yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


EVERY = sorted(set(tree()), key=lambda kind: kind.__name__)


def test_every_code_stands_for_one_class() -> None:
    """A code is what crosses the journal: two classes with one could not be told apart."""
    codes = [kind.code for kind in EVERY]
    assert len(set(codes)) == len(codes)
    assert [errors.class_of(code) for code in codes] == EVERY


def test_every_error_is_exported() -> None:
    """The list is what the top-level package exports."""
    assert sorted(errors.__all__) == errors.__all__
    assert {kind.__name__ for kind in EVERY} == set(errors.__all__)


@pytest.mark.parametrize("kind", EVERY)
def test_an_error_copies_with_its_facts(kind: type[PerdureError]) -> None:
    """Groups are split and joined by copying."""
    error = kind("it broke")
    for name in error.facts:
        setattr(error, name, "changed")
    again = copy.copy(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.facts == error.facts


def test_a_users_subclass_does_not_take_a_code_over() -> None:
    """It inherits the code; what is read by that code stays the library's class."""

    class Mine(PayloadError):
        pass

    assert errors.class_of(Mine.code) is PayloadError
    assert errors.class_of("no such code") is None


def test_an_error_says_its_facts() -> None:
    """R8."""
    error = NonDeterminismError("differs", execution_id="e", step="charge", entry=3, where="orders.py:31")
    assert str(error) == "differs"
    assert error.facts == {
        "execution_id": "e",
        "step": "charge",
        "entry": 3,
        "recorded_input": None,
        "asked_input": None,
        "where": "orders.py:31",
    }


def test_a_timeout_is_pythons_timeout_too() -> None:
    """The contract: past the timeout ExecutionTimeoutError, a TimeoutError."""
    assert issubclass(ExecutionTimeoutError, TimeoutError)


def test_a_defect_keeps_name_message_and_traceback() -> None:
    """Section 8 of the contract."""
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("wires crossed")
    defect = Defect.from_exception(raised.value)
    assert (defect.type_name, defect.message) == ("RuntimeError", "wires crossed")
    assert "test_a_defect_keeps_name_message_and_traceback" in defect.traceback
    assert str(defect) == "RuntimeError: wires crossed"


def test_a_defect_without_a_message_is_its_name() -> None:
    """No dangling colon."""
    assert str(Defect.from_exception(ValueError())) == "ValueError"


def test_a_defect_of_a_defect_is_itself() -> None:
    """Else each level of a call would wrap it once more."""
    defect = Defect("ValueError", "no", "")
    assert Defect.from_exception(defect) is defect


def test_a_long_traceback_keeps_its_end() -> None:
    """The end is where it happened."""

    def deep(left: int) -> None:
        exec("x = 1\n" * left)
        if left == 0:
            raise ValueError("y" * 3000)
        deep(left - 1)

    with pytest.raises(ValueError, match="y") as raised:
        deep(200)
    raised.value.add_note("the very end" + "z" * 17000)
    defect = Defect.from_exception(raised.value)
    assert len(defect.traceback) == 16 * 1024
    assert defect.traceback.endswith("zzz\n")
    assert len(Defect.from_exception(ValueError("m" * 100_000)).message) == 16 * 1024


def test_a_defect_of_an_exception_that_cannot_be_printed_is_made_all_the_same() -> None:
    """A user's __str__ must not break the engine that records the failure."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert Defect.from_exception(Broken()).type_name == "Broken"


def test_a_defect_can_always_be_encoded() -> None:
    """Regression of others: one bad byte stops every commit of a process."""
    defect = Defect.from_exception(ValueError("half \ud800 and \0"))
    assert defect.message == "half \\ud800 and \\x00"
    assert "\0" not in defect.traceback
    defect.traceback.encode()
