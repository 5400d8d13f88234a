"""Causes: what an exception means, and the exception that a cause becomes again."""

import asyncio

import pytest

from perdure._values.cause import Cause, Die, Fail, Interrupt, cause_of
from perdure._values.typed_error import TypedError
from perdure.errors import ActivityTimeout, DeadlineExceeded, Defect, Interrupted, OutcomeUnknown, WorkflowIOError


class Declined(TypedError):
    """A declared error."""

    code: str


def test_a_declared_error_fails_with_itself() -> None:
    """R10."""
    error = Declined(code="x")
    assert Cause.from_exception(error, Declined).reasons == (Fail(error),)
    assert Cause.from_exception(error).reasons == (Fail(error),)


def test_an_error_that_nobody_declared_is_a_defect() -> None:
    """R10: also a TypedError, where others are declared or none is."""
    for cause in (
        Cause.from_exception(ValueError("no")),
        Cause.from_exception(Declined(code="x"), LookupError),
        cause_of(Declined(code="x"), ()),
    ):
        assert [type(reason) for reason in cause.reasons] == [Die]


@pytest.mark.parametrize("outcome", [ActivityTimeout(), OutcomeUnknown(), DeadlineExceeded()])
def test_outcomes_stay_what_they_are(outcome: Exception) -> None:
    """R12, R44, R50: they are to be caught as their class."""
    assert cause_of(outcome, ()).reasons == (Fail(outcome),)


@pytest.mark.parametrize("interrupt", [asyncio.CancelledError(), Interrupted()])
def test_an_interruption_is_one(interrupt: BaseException) -> None:
    """R32."""
    assert Cause.from_exception(interrupt) == Cause.interrupt()


def test_io_in_a_body_is_a_defect_of_it() -> None:
    """R42: nobody declared it, and nobody should catch it."""
    assert isinstance(Cause.from_exception(WorkflowIOError("use an activity")).reasons[0], Die)


@pytest.mark.parametrize("exit_", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_of_the_process_is_a_defect(exit_: BaseException) -> None:
    """R9: the engine lives."""
    assert isinstance(Cause.from_exception(exit_).reasons[0], Die)


def test_groups_are_flattened_in_order() -> None:
    """R34."""
    first, second, third = Declined(code="1"), Declined(code="2"), Declined(code="3")
    group = ExceptionGroup("g", [first, ExceptionGroup("h", [second]), third])
    assert Cause.from_exception(group).reasons == (Fail(first), Fail(second), Fail(third))


def test_a_real_failure_beats_interrupts_beside_it() -> None:
    """R34: so that `except Declined` sees what failed alone in a TaskGroup."""
    error = Declined(code="x")
    group = BaseExceptionGroup("g", [asyncio.CancelledError(), error, Interrupted()])
    cause = Cause.from_exception(group)
    assert cause == Cause.fail(error)
    assert cause.to_exception() is error


def test_interrupts_alone_are_one_interrupt() -> None:
    """R34."""
    group = BaseExceptionGroup("g", [asyncio.CancelledError(), asyncio.CancelledError()])
    assert Cause.from_exception(group) == Cause.interrupt()


def test_several_reasons_surface_as_a_group() -> None:
    """R34."""
    error = Declined(code="x")
    raised = Cause((Fail(error), Die(Defect("ValueError", "no")))).to_exception()
    assert isinstance(raised, ExceptionGroup)
    assert raised.exceptions[0] is error
    assert str(raised.exceptions[1]) == "ValueError: no"


def test_one_reason_surfaces_as_itself() -> None:
    """R32, R34."""
    defect = Defect("ValueError", "no")
    assert Cause.die(defect).to_exception() is defect
    assert isinstance(Cause.interrupt().to_exception(), Interrupted)


def test_a_cause_says_the_messages_of_its_reasons() -> None:
    """Shown in logs, the CLI and the dashboard."""
    cause = Cause((Fail(KeyError("k")), Fail(Declined(code="x")), Die(Defect("ValueError", "no")), Interrupt()))
    assert str(cause) == "KeyError: 'k'; Declined(code='x'); ValueError: no; Interrupted"
    assert (
        str(Cause.fail(ActivityTimeout("charge took longer than 5 seconds."))) == "charge took longer than 5 seconds."
    )


def test_causes_that_say_the_same_are_equal() -> None:
    """A test compares what came back with what it expects; a defect is no longer the object that went in."""
    assert Cause.die(Defect("V", "m", "t")) == Cause.die(Defect("V", "m", "t"))
    assert hash(Cause.die(Defect("V", "m", "t"))) == hash(Cause.die(Defect("V", "m", "t")))
    assert Cause.die(Defect("V", "m", "t")) != Cause.die(Defect("V", "other", "t"))
    assert Cause.die(Defect("V", "m")).reasons[0] != Interrupt()


def test_a_defect_that_is_raised_shows_once_where_it_happened() -> None:
    """R10: its own traceback ends where the result was waited for, and one cause is raised to every caller."""
    cause = Cause.die(Defect("ValueError", "no", "Traceback ...\n  in charge\nValueError: no\n"))
    for _ in range(2):
        raised = cause.to_exception()
        assert raised.__notes__ == ["It was raised here:\nTraceback ...\n  in charge\nValueError: no"]
    assert str(raised) == "ValueError: no"
    assert cause == Cause.die(Defect("ValueError", "no", "Traceback ...\n  in charge\nValueError: no\n"))


def test_each_defect_of_several_shows_where_it_happened() -> None:
    """R34."""
    group = Cause((Die(Defect("A", "", "here")), Die(Defect("B", "", "there")))).to_exception()
    assert isinstance(group, ExceptionGroup)
    assert [error.__notes__ for error in group.exceptions] == [
        ["It was raised here:\nhere"],
        ["It was raised here:\nthere"],
    ]


def test_a_defect_without_a_traceback_says_nothing_of_one() -> None:
    """One that the engine made itself was raised nowhere."""
    assert not hasattr(Cause.die(Defect("CancelledError", "left the body")).to_exception(), "__notes__")


def test_a_typed_error_that_is_not_declared_says_how_to_declare_it() -> None:
    """R10: in the traceback, which is recorded, and not in the message; once, although an instance comes twice."""
    error = Declined(code="x")
    for _ in range(2):
        (reason,) = cause_of(error, (LookupError,), 'Workflow "pay"').reasons
    assert isinstance(reason, Die)
    hint = 'Declined is a TypedError that workflow "pay" does not declare: @workflow(error=Declined).'
    assert reason.defect.traceback.count(hint) == 1
    assert reason.defect.message == "Declined(code='x')"


def test_what_is_declared_or_no_typed_error_gets_no_hint() -> None:
    """R10: nobody is told to declare every RuntimeError."""
    declared, other = Declined(code="x"), RuntimeError("no")
    cause_of(declared, (Declined,), 'Workflow "pay"')
    cause_of(other, (Declined,), 'Workflow "pay"')
    assert not hasattr(declared, "__notes__")
    assert not hasattr(other, "__notes__")
