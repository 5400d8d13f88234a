"""The JSON form of an exit, in journals and on every wire.

A success is ``{"success":<json>}``. A failure is ``{"failure":[<reason>,...]}``, and where another attempt follows
``{"failure":[...],"retry_at":<instant>}``. A reason is one of::

    {"fail":{"tag":"CardDeclined","error":{...}}}       a declared error, by the name of the declared class
    {"fail":{"tag":..,"error":..,"class":"shop:Lost"}}  a subclass of it
    {"die":{"type":..,"message":..,"traceback":..}}     a defect
    {"interrupt":{}}
    {"perdure":{"code":..,"message":..,"facts":{..}}}   an error or outcome of the library's own

Values are glued between their prefix and suffix as bytes and cut out again, so that each is encoded and parsed
once. Whatever writes exits must therefore begin them with exactly ``{"success":`` or not be a success.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Generic, cast

from pydantic_core import from_json, to_json
from typing_extensions import TypeVar

from perdure._values.cause import Cause, Die, Fail, Interrupt, Reason, cause_of
from perdure._values.error_codec import (
    address_of,
    decode_defect,
    decode_error,
    decode_own,
    encode_defect,
    encode_error,
    encode_own,
    is_importable,
    subclass,
)
from perdure._values.exit import Exit, Failure, Success
from perdure._values.instant import Instant
from perdure._values.schema import Schema
from perdure.errors import Defect, DefinitionError, PayloadError, PerdureError, class_of

__all__ = ["ExitCodec", "decode_loosely", "encode_outcome", "is_success", "merged_failures", "retry_at"]

T = TypeVar("T", default=Any)

_SUCCESS: Final = b'{"success":'
_END: Final = b"}"
_BODY: Final = slice(len(_SUCCESS), -len(_END))
# At the very end: a field of an error may have the same name, but never there. Spaces, because jsonb writes some.
_RETRY_AT: Final = re.compile(rb'\],\s*"retry_at":\s*(-?\d+)\s*\}\Z')


class ExitCodec(Generic[T]):
    """Encodes and decodes how something of one definition ends.

    Attributes:
        owner: Whose exits they are.
        errors: The declared errors.

    Example:
        >>> codec = ExitCodec(Schema(str, 'Activity "charge"'), (), 'Activity "charge"')
        >>> codec.success("charge_1")
        (b'{"success":"charge_1"}', 'charge_1')
        >>> codec.decode(b'{"success":"charge_1"}')
        Success(value='charge_1')
    """

    __slots__ = ("_by_tag", "_schema", "errors", "owner")

    def __init__(self, success: Schema[T], errors: tuple[type[Exception], ...], owner: str) -> None:
        """Build the codec of a definition.

        Args:
            success: The schema of its success value.
            errors: Its declared errors.
            owner: Whose exits they are: ``Activity "charge"``.

        Raises:
            DefinitionError: A declared error is no class of exceptions, or two have one name.
        """
        self.owner: str = owner
        self.errors: tuple[type[Exception], ...] = errors
        self._schema = success
        self._by_tag = _by_tag(errors, owner)

    def encode_success(self, value: T) -> bytes:
        """Give the bytes of a success.

        Raises:
            PayloadError: The value is not of the type.
        """
        return _SUCCESS + self._schema.encode(value) + _END

    def success(self, value: T) -> tuple[bytes, T]:
        """Give the bytes of a success, and the value as a replay will see it.

        Raises:
            PayloadError: The value is not of the type, or does not come back from its bytes.
        """
        raw = self._schema.encode(value)
        return _SUCCESS + raw + _END, self._schema.decode(raw)

    def encode_failure(self, cause: Cause, retry_at: Instant | None = None) -> bytes:
        """Give the bytes of a failure.

        Args:
            cause: Why it failed.
            retry_at: When the next attempt is due; None if this failure is final.

        Raises:
            PayloadError: An error among the reasons is not declared, or its fields do not go into JSON.
        """
        reasons = b",".join(self._encode_reason(reason) for reason in cause.reasons)
        due = b"" if retry_at is None else b',"retry_at":%d' % retry_at
        return b'{"failure":[' + reasons + b"]" + due + _END

    def encode(self, exit: Exit[T]) -> bytes:
        """Give the bytes of an exit.

        Raises:
            PayloadError: The value is not of the type, or an error is not declared.
        """
        match exit:
            case Success(value):
                return self.encode_success(value)
            case Failure(cause):
                return self.encode_failure(cause)

    def failure(self, cause: Cause, retry_at: Instant | None = None) -> tuple[bytes, Exit[T]]:
        """Give the bytes of a failure, and the failure as a replay will see it.

        Raises:
            PayloadError: An error among the reasons is not declared, or does not come back from its bytes.
        """
        raw = self.encode_failure(cause, retry_at)
        return raw, self.decode(raw)

    def decode(self, raw: bytes) -> Exit[T]:
        """Read an exit.

        Raises:
            PayloadError: Today's schema cannot read it.
        """
        if raw.startswith(_SUCCESS) and raw.endswith(_END):
            return Success(self._schema.decode(raw[_BODY]))
        return Failure(self.decode_failure(raw))

    def decode_success(self, raw: bytes) -> T:
        """Read the value of an exit that `is_success`: all that a replay wants of one.

        Raises:
            PayloadError: Today's schema cannot read it.
        """
        return self._schema.decode(raw[_BODY])

    def decode_failure(self, raw: bytes) -> Cause:
        """Read the cause of an exit that is no success.

        Raises:
            PayloadError: It is none, or today's declarations cannot read it.
        """
        return Cause(tuple(self._decode_reason(kind, said) for kind, said in _reasons(raw, self.owner)))

    def cause_of(self, exception: BaseException) -> Cause:
        """Tell what an exception means here: a declared error, a defect, an interruption, or several (R34)."""
        return cause_of(exception, self.errors, self.owner)

    def _encode_reason(self, reason: Reason) -> bytes:
        match reason:
            case Fail(error):
                return encode_own(error) if isinstance(error, PerdureError) else self._encode_declared(error)
            case Die(defect):
                return encode_defect(defect)
            case Interrupt():
                return b'{"interrupt":{}}'

    def _encode_declared(self, error: Exception) -> bytes:
        kind = type(error)
        declared = next((base for base in kind.__mro__ if self._by_tag.get(base.__name__) is base), None)
        if declared is None:
            known = ", ".join(self._by_tag) or "none"
            raise PayloadError(
                f"{self.owner}: {kind.__name__} is not declared here (error=...); declared: {known}.", owner=self.owner
            )
        # R10: recorded as itself only where a later process can find the class again, else as what was declared.
        itself = kind is not declared and is_importable(kind)
        body = encode_error(kind if itself else declared, error, self.owner)
        name = b',"class":' + to_json(address_of(kind)) if itself else b""
        return b'{"fail":{"tag":' + to_json(declared.__name__) + b',"error":' + body + name + b"}}"

    def _decode_reason(self, kind: str, said: dict[str, Any]) -> Reason:
        match kind:
            case "fail":
                return Fail(self._decode_declared(said))
            case "die":
                return Die(decode_defect(said))
            case "interrupt":
                return Interrupt()
            case "perdure":
                return Fail(decode_own(said, self.owner))
            case _:
                raise PayloadError(f"{self.owner}: this release knows no reason {kind!r}.", owner=self.owner)

    def _decode_declared(self, said: dict[str, Any]) -> Exception:
        declared = self._by_tag.get(str(said.get("tag")))
        if declared is None:
            known = ", ".join(self._by_tag) or "none"
            raise PayloadError(
                f"{self.owner}: the recorded error {said.get('tag')!r} is not declared (any more); declared: {known}.",
                owner=self.owner,
            )
        address = said.get("class")
        kind = declared if address is None else subclass(declared, str(address), self.owner)
        return decode_error(kind, said.get("error"), self.owner)


def is_success(raw: bytes) -> bool:
    """Tell whether the bytes of an exit are those of a success, without a schema."""
    return raw.startswith(_SUCCESS)


def encode_outcome(error: PerdureError) -> bytes:
    """Give the failure that is one outcome of the library's own, whoever fails with it."""
    return b'{"failure":[' + encode_own(error) + b"]}"


def merged_failures(exits: list[bytes]) -> bytes:
    """Give one failure that has the reasons of all of these, in their order, and is final."""
    reasons = [reason for failure in exits for reason in from_json(failure)["failure"]]
    return to_json({"failure": reasons})


def retry_at(raw: bytes) -> Instant | None:
    """Say when the attempt after this failure is due; None if the exit is final (R11)."""
    due = None if raw.startswith(_SUCCESS) else _RETRY_AT.search(raw)
    return int(due[1]) if due else None


def decode_loosely(raw: bytes) -> Exit[Any]:
    """Read an exit without its definition, for showing it: values as plain JSON, errors as defects of their name.

    Raises:
        PayloadError: The bytes are no exit.
    """
    if raw.startswith(_SUCCESS) and raw.endswith(_END):
        return Success(_parsed(raw[_BODY], "An exit"))
    return Failure(Cause(tuple(_loose_reason(kind, said) for kind, said in _reasons(raw, "An exit"))))


def _loose_reason(kind: str, said: dict[str, Any]) -> Reason:
    match kind:
        case "interrupt":
            return Interrupt()
        case "die":
            return Die(decode_defect(said))
        case "perdure":
            known = class_of(str(said.get("code")))
            return Fail(
                decode_own(said, "An exit") if known else Defect(str(said.get("code")), str(said.get("message", "")))
            )
        case _:
            name = str(said.get("class") or said.get("tag") or kind)
            return Fail(Defect(name.rpartition(":")[2], to_json(said.get("error")).decode()))


def _by_tag(errors: tuple[type[Exception], ...], owner: str) -> dict[str, type[Exception]]:
    found: dict[str, type[Exception]] = {}
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, Exception)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{owner}: {error!r} is declared as an error and is no Exception class.", owner=owner)
        if found.setdefault(error.__name__, error) is not error:
            raise DefinitionError(
                f"{owner}: two declared errors are called {error.__name__!r}, and a record could not tell them apart. "
                "Rename one.",
                owner=owner,
            )
    return found


def _reasons(raw: bytes, owner: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Take a failure apart into the kind and the content of each reason."""
    parsed = _parsed(raw, owner)
    reasons = cast("dict[str, Any]", parsed).get("failure") if isinstance(parsed, dict) else None
    if not isinstance(reasons, list) or not reasons:
        raise PayloadError(f"{owner}: this is no exit.", owner=owner)
    for reason in cast("list[Any]", reasons):
        if not isinstance(reason, dict) or len(cast("dict[str, Any]", reason)) != 1:
            raise PayloadError(f"{owner}: this is no reason of a failure.", owner=owner)
        kind, said = next(iter(cast("dict[str, Any]", reason).items()))
        if not isinstance(said, dict):
            raise PayloadError(f"{owner}: this is no reason of a failure.", owner=owner)
        yield kind, cast("dict[str, Any]", said)


def _parsed(raw: bytes, owner: str) -> Any:
    try:
        return from_json(raw)
    except ValueError as refused:
        raise PayloadError(f"{owner}: the bytes are no JSON: {refused}", owner=owner) from refused
