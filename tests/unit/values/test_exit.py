"""Exits and polls are plain values."""

import dataclasses

import pytest

from perdure._values.cause import Cause
from perdure._values.exit import Complete, Exit, Failure, Success, Suspended
from perdure.errors import Defect


def test_exits_are_equal_by_what_they_hold() -> None:
    """Section 8: tests of users compare them."""
    assert Complete(Success("x")) == Complete(Success("x"))
    assert Complete(Success("x")) != Complete(Success("y"))
    assert Suspended() == Suspended(None)
    assert Failure(Cause.interrupt()) != Success(None)


def test_unwrap_gives_the_value_or_raises_the_cause() -> None:
    """Section 8."""
    assert Success(3).unwrap() == 3
    with pytest.raises(LookupError, match="gone"):
        Failure(Cause.fail(LookupError("gone"))).unwrap()
    with pytest.raises(Defect, match="wires crossed"):
        Failure(Cause.die(RuntimeError("wires crossed"))).unwrap()


def test_exits_match_by_position() -> None:
    """The contract's `case Complete(exit): match exit: case Success(value)`."""

    def said(exit_: Exit[str]) -> str:
        match exit_:
            case Success(value):
                return value
            case Failure(cause):
                return str(cause)

    assert said(Success("x")) == "x"
    assert said(Failure(Cause.interrupt())) == "Interrupted"


def test_exits_do_not_change() -> None:
    """They are handed to several waiters."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Success(1).value = 2  # type: ignore[misc]
