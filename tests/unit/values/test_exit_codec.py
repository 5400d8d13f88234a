"""Exits as JSON: what is written, and that it comes back as it was."""

import asyncio
import contextlib
import json
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import errors
from perdure._values.cause import Cause, Die, Fail, Interrupt, Reason
from perdure._values.exit import Exit, Failure, Success
from perdure._values.exit_codec import ExitCodec, decode_loosely, is_success, retry_at
from perdure._values.schema import Schema
from perdure._values.typed_error import TypedError
from perdure.errors import (
    ActivityTimeout,
    DeadlineExceeded,
    Defect,
    DefinitionError,
    Interrupted,
    OutcomeUnknown,
    PayloadError,
    WorkflowIOError,
)

OWNER = 'Activity "charge"'


class CardDeclined(TypedError):
    code: str
    retry_after: int = 0


class Stolen(CardDeclined):
    reported_by: str = ""


class MailboxFull(Exception):
    """Builds its message out of its parameter, as many do."""

    def __init__(self, address: str, *, quota: int = 0) -> None:
        super().__init__(f"{address} is full")
        self.address = address
        self.quota = quota


def codec(success: Any = Any, *declared: type[Exception]) -> ExitCodec[Any]:
    return ExitCodec(Schema(success, OWNER), declared, OWNER)


def again(exit_: Exit[Any], *declared: type[Exception]) -> Exit[Any]:
    made = codec(Any, *declared)
    raw = made.encode(exit_)
    json.loads(raw)
    return made.decode(raw)


def error_again(error: Exception, *declared: type[Exception]) -> Exception:
    exit_ = again(Failure(Cause.fail(error)), *declared)
    assert isinstance(exit_, Failure)
    (reason,) = exit_.cause.reasons
    assert isinstance(reason, Fail)
    return reason.error


def test_a_success_is_written_as_the_format_says() -> None:
    """The bytes are a promise: SQL functions and other languages write them too."""
    assert codec(str).success("charge_1") == (b'{"success":"charge_1"}', "charge_1")
    assert codec(str).encode_success("x") == b'{"success":"x"}'
    assert codec(None).encode(Success(None)) == b'{"success":null}'


def test_a_failure_is_written_as_the_format_says() -> None:
    """As a promise, like a success."""
    made = codec(str, CardDeclined)
    cause = Cause((Fail(CardDeclined(code="x")), Die(Defect("ValueError", "no", "at")), Interrupt()))
    assert made.encode_failure(cause) == (
        b'{"failure":[{"fail":{"tag":"CardDeclined","error":{"code":"x","retry_after":0}}},'
        b'{"die":{"type":"ValueError","message":"no","traceback":"at"}},{"interrupt":{}}]}'
    )
    assert made.encode_failure(Cause.interrupt(), retry_at=1234) == b'{"failure":[{"interrupt":{}}],"retry_at":1234}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
# What every database stores as text: NUL and half characters are written as escapes, which has a test of its own.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
REASONS: st.SearchStrategy[Reason] = st.one_of(
    st.builds(Fail, st.builds(CardDeclined, code=st.text(), retry_after=st.integers())),
    st.builds(Fail, st.builds(Stolen, code=st.text(), reported_by=st.text())),
    st.builds(Die, st.builds(Defect, TEXT, TEXT, TEXT)),
    st.just(Interrupt()),
)


@given(JSON)
def test_every_success_comes_back(value: Any) -> None:
    """R10: live code and replay see the same."""
    raw, live = codec().success(value)
    assert codec().decode(raw) == Success(live) == Success(value)
    assert decode_loosely(raw) == Success(value)
    assert is_success(raw)
    assert retry_at(raw) is None


@given(st.lists(REASONS, min_size=1, max_size=4), st.none() | st.integers(0, 2**53))
def test_every_failure_comes_back(reasons: list[Reason], due: int | None) -> None:
    """R10, R11: reasons in their order, and when the next attempt is due."""
    made = codec(Any, CardDeclined)
    failure = Failure(Cause(tuple(reasons)))
    raw = made.encode_failure(failure.cause, due)
    assert made.decode(raw) == failure
    assert retry_at(raw) == due
    assert not is_success(raw)
    assert len(decode_loosely(raw).cause.reasons) == len(reasons)  # type: ignore[union-attr]


def test_a_field_called_retry_at_is_not_taken_for_the_records_own() -> None:
    """R11: final stays final."""

    class Busy(TypedError):
        slots: list[int]
        retry_at: int

    made = codec(Any, Busy)
    assert retry_at(made.encode_failure(Cause.fail(Busy(slots=[1], retry_at=5)))) is None
    assert retry_at(made.encode_failure(Cause.fail(Busy(slots=[1], retry_at=5)), 7)) == 7
    assert retry_at(made.encode_success({"failure": [], "x": [{"y": []}], "retry_at": 5})) is None


def test_exits_with_a_databases_spaces_are_read() -> None:
    """PostgreSQL gives jsonb back like this."""
    assert codec(int).decode(b'{"success": 5}') == Success(5)
    raw = b'{"failure": [{"interrupt": {}}], "retry_at": 12}'
    assert codec().decode(raw) == Failure(Cause.interrupt())
    assert retry_at(raw) == 12


def test_a_failure_gives_what_a_replay_will_see() -> None:
    """R10: the live error passes through its schema too."""
    made = codec(Any, CardDeclined)
    raw, exit_ = made.failure(Cause.fail(CardDeclined(code="x")), 5)
    assert exit_ == made.decode(raw) == Failure(Cause.fail(CardDeclined(code="x")))


def test_a_subclass_of_a_declared_error_is_recorded_as_itself() -> None:
    """R10: it can be imported."""
    error = error_again(Stolen(code="x", reported_by="ada"), CardDeclined)
    assert type(error) is Stolen
    assert error == Stolen(code="x", reported_by="ada")
    assert type(error_again(FileNotFoundError(2, "gone"), OSError)) is FileNotFoundError


def test_a_subclass_that_cannot_be_imported_is_recorded_as_what_was_declared() -> None:
    """R10: another process could not find the class."""

    class Local(CardDeclined):
        extra: int = 1

    error = error_again(Local(code="x", extra=2), CardDeclined)
    assert type(error) is CardDeclined
    assert error == CardDeclined(code="x")

    class LocalKey(KeyError):
        pass

    error = error_again(LocalKey("k"), LookupError)
    assert type(error) is LookupError
    assert error.args == ("k",)


def test_the_nearest_declared_class_is_the_tag() -> None:
    """Both are declared; the more precise one says more."""
    raw = codec(Any, CardDeclined, Stolen).encode_failure(Cause.fail(Stolen(code="x")))
    assert b'"tag":"Stolen"' in raw
    assert b'"class"' not in raw


def test_a_recorded_subclass_whose_module_is_not_loaded_says_which_to_import() -> None:
    """R40, and data must never choose what is imported."""
    raw = b'{"failure":[{"fail":{"tag":"CardDeclined","error":{"code":"x"},"class":"antigravity:Lost"}}]}'
    with pytest.raises(PayloadError, match="Import 'antigravity'"):
        codec(Any, CardDeclined).decode(raw)
    assert "antigravity" not in sys.modules


def test_a_class_that_is_no_subclass_is_never_built() -> None:
    """Whoever can write into the store must not choose what runs here."""
    raw = b'{"failure":[{"fail":{"tag":"CardDeclined","error":{"args":[3]},"class":"builtins:SystemExit"}}]}'
    with pytest.raises(PayloadError, match="SystemExit"):
        codec(Any, CardDeclined).decode(raw)


def test_a_reloaded_subclass_is_found_as_its_newest_version() -> None:
    """The old class lives on as long as something refers to it."""
    module = types.ModuleType("shop_of_this_test")
    sys.modules[module.__name__] = module
    try:
        kinds = [type("Lost", (CardDeclined,), {"__module__": module.__name__}) for _ in range(2)]
        module.Lost = kinds[1]  # type: ignore[attr-defined]
        assert type(error_again(kinds[1](code="x"), CardDeclined)) is kinds[1]
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("a", 1, None, [1]), LookupError(), OSError(2, "gone")])
def test_a_plain_exception_comes_back_by_its_arguments(error: Exception) -> None:
    """Declared errors need not be typed ones."""
    back = error_again(error, type(error))
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


def test_an_exception_that_makes_its_message_comes_back_with_message_and_attributes() -> None:
    """cls(*args) would say "ada is full is full", or fail."""
    back = error_again(MailboxFull("ada", quota=3), MailboxFull)
    assert isinstance(back, MailboxFull)
    assert (str(back), back.address, back.quota) == ("ada is full", "ada", 3)


def test_an_exception_whose_constructor_refuses_comes_back_all_the_same() -> None:
    class Picky(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__("picky", code)
            self.lock = object()

    back = error_again(Picky(code=3), Picky)
    assert type(back) is Picky
    assert back.args == ("picky", 3)
    assert not hasattr(back, "lock")


def test_an_exception_with_arguments_that_are_no_json_is_refused_with_advice() -> None:
    """R10: the caller makes a defect of it that says so."""
    with pytest.raises(PayloadError, match="TypedError"):
        codec(Any, ValueError).encode_failure(Cause.fail(ValueError(object())))


def test_an_undeclared_error_is_refused() -> None:
    """R19: nothing stored."""
    with pytest.raises(PayloadError, match=r"ValueError is not declared.*CardDeclined"):
        codec(Any, CardDeclined).encode_failure(Cause.fail(ValueError("x")))
    with pytest.raises(PayloadError, match="declared: none"):
        codec().encode_failure(Cause.fail(CardDeclined(code="x")))


def test_an_error_that_is_no_longer_declared_is_refused() -> None:
    """R40."""
    raw = codec(Any, CardDeclined).encode_failure(Cause.fail(CardDeclined(code="x")))
    with pytest.raises(PayloadError, match="CardDeclined"):
        codec(Any, ValueError).decode(raw)


def test_an_error_whose_fields_changed_is_refused() -> None:
    """R40."""
    raw = b'{"failure":[{"fail":{"tag":"CardDeclined","error":{"reason":"x"}}}]}'
    with pytest.raises(PayloadError, match="reason"):
        codec(Any, CardDeclined).decode(raw)


@pytest.mark.parametrize(
    "error",
    [
        ActivityTimeout("charge took longer than 5 seconds.", activity="charge", attempt=2, timeout_ms=5000),
        OutcomeUnknown(activity="charge", attempt=3),
        DeadlineExceeded(),
        Interrupted(),
        WorkflowIOError("use an activity"),
        PayloadError("bad", fields=("a", "b.c"), owner="W"),
        errors.ExecutionFinishedError("over", execution_id="e"),
        errors.NonDeterminismError("differs", step="s", entry=3),
    ],
)
def test_an_error_of_the_librarys_own_comes_back_as_its_class(error: errors.PerdureError) -> None:
    """R12, R44, R50; it needs no declaration."""
    back = error_again(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.facts == error.facts  # type: ignore[attr-defined]


def test_a_defect_is_one_wherever_it_stands() -> None:
    """Fail(defect) is what an activity gets that declares Exception and calls a child."""
    assert again(Failure(Cause.fail(Defect("V", "m", "t")))) == Failure(Cause.die(Defect("V", "m", "t")))


def test_an_error_of_a_newer_release_is_refused() -> None:
    """R40."""
    with pytest.raises(PayloadError, match="from-the-future"):
        codec().decode(b'{"failure":[{"perdure":{"code":"from-the-future","message":"","facts":{}}}]}')


def test_facts_that_a_class_does_not_have_are_left_out() -> None:
    """Data must not set what it likes on an error."""
    raw = b'{"failure":[{"perdure":{"code":"interrupted","message":"x","facts":{"facts":1,"args":2}}}]}'
    exit_ = codec().decode(raw)
    assert isinstance(exit_, Failure)
    assert vars(exit_.cause.reasons[0].error) == {}  # type: ignore[union-attr]


def test_a_defect_with_half_a_character_is_written() -> None:
    """Regression of others: one bad byte stops every commit of a process."""
    raw = codec().encode_failure(Cause.die(Defect("V", "\ud800", "\0")))
    assert codec().decode(raw) == Failure(Cause.die(Defect("V", "\\ud800", "\\x00")))
    assert b"ud800" in codec().encode_failure(Cause.fail(WorkflowIOError("\ud800")))


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"{}", b'{"failure":[]}', b'{"failure":3}', b'{"failure":[3]}', b'{"failure":[{}]}',
     b'{"failure":[{"fail":3}]}', b'{"failure":[{"fail":{}}]}', b'{"failure":[{"other":{}}]}',
     b'{"failure":[{"fail":{"tag":["CardDeclined"],"error":{}}}]}',
     b'{"failure":[{"fail":{"tag":"CardDeclined","error":{"code":"x"},"class":3}}]}',
     b'{"failure":[{"fail":{"tag":"CardDeclined"}}]}', b'{"failure":[{"fail":{"tag":"KeyError","error":3}}]}',
     b'{"success":', b'{"success":}', b'{"success":1', b'{"success":12', b'{"success":"x"}x', b"\xff", b'{"failure":[{"die":{}}]'],
)  # fmt: skip
def test_bytes_that_are_no_exit_are_refused(raw: bytes) -> None:
    """R40: whatever stands in the store, the caller gets an error that it can hold the execution with."""
    with pytest.raises(PayloadError):
        codec(Any, CardDeclined, KeyError).decode(raw)


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps({"failure": [value]}).encode()))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    """R40: for any bytes, an exit or a PayloadError."""
    for read in (codec(Any, CardDeclined).decode, decode_loosely):
        with contextlib.suppress(PayloadError):
            assert isinstance(read(raw), (Success, Failure))
    assert retry_at(raw) is None
    assert is_success(raw) in (True, False)


def test_a_success_that_todays_type_refuses_is_unreadable() -> None:
    """R40."""
    with pytest.raises(PayloadError, match="charge"):
        codec(int).decode(b'{"success":"x"}')


def test_two_declared_errors_of_one_name_are_refused() -> None:
    """R10: the wire tag is the name."""
    other = type("CardDeclined", (Exception,), {})
    with pytest.raises(DefinitionError, match="CardDeclined"):
        codec(Any, CardDeclined, other)
    codec(Any, CardDeclined, CardDeclined)


@pytest.mark.parametrize("declared", [asyncio.CancelledError, int, "CardDeclined", CardDeclined(code="x")])
def test_only_exception_classes_can_be_declared(declared: Any) -> None:
    """At the definition."""
    with pytest.raises(DefinitionError, match="charge"):
        codec(Any, declared)


def test_what_an_exception_means_follows_from_what_is_declared() -> None:
    """R10: without a declaration a TypedError is a defect here."""
    error = CardDeclined(code="x")
    assert codec(Any, CardDeclined).cause_of(error) == Cause.fail(error)
    assert isinstance(codec().cause_of(error).reasons[0], Die)


def test_without_a_definition_an_exit_can_still_be_shown() -> None:
    """For describe and the CLI, which may not have the code."""
    made = codec(Any, CardDeclined)
    cause = Cause(
        (Fail(CardDeclined(code="x")), Die(Defect("V", "m", "t")), Interrupt(), Fail(ActivityTimeout("late")))
    )
    assert str(decode_loosely(made.encode_failure(cause)).cause) == (  # type: ignore[union-attr]
        'CardDeclined: {"code":"x","retry_after":0}; V: m; Interrupted; late'
    )
    assert decode_loosely(b'{"success":{"a":[1]}}') == Success({"a": [1]})


def test_where_a_defect_happened_is_not_part_of_its_record() -> None:
    """R10: what was raised to one caller and is recorded again has the same bytes."""
    codec = ExitCodec(Schema(int, "It"), (), "It")
    cause = Cause.die(RuntimeError("no"))
    before = codec.encode_failure(cause)
    cause.to_exception()
    assert codec.encode_failure(cause) == before


def test_an_undeclared_typed_error_is_recorded_with_a_hint() -> None:
    """R10: the codec knows whose errors they are, and the hint comes back from the bytes."""

    class Undeclared(TypedError):
        pass

    codec = ExitCodec(Schema(int, "It"), (), 'Activity "charge"')
    _, back = codec.failure(codec.cause_of(Undeclared()))
    assert isinstance(back, Failure)
    assert any('activity "charge" does not declare' in note for note in back.cause.to_exception().__notes__)
