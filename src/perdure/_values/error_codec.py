"""One error as JSON: a defect, an error of the library's own, or one that was declared.

A declared exception that is no TypedError is written by its arguments, and by those of its attributes that JSON
gives back as they are. Reading never imports a module and never builds a class that was not declared or derived
from one that was: whoever can write into the store must not choose what runs here.
"""

import sys
from collections.abc import Iterator
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

from perdure._values.schema import Schema
from perdure._values.typed_error import TypedError, form_of
from perdure.errors import Defect, PayloadError, PerdureError, class_of, storable

__all__ = [
    "address_of",
    "decode_defect",
    "decode_error",
    "decode_own",
    "encode_defect",
    "encode_error",
    "encode_own",
    "is_importable",
    "subclass",
]

_ARGUMENTS: Final[Schema[list[Any]]] = Schema(list[Any], "the arguments of an exception")


def encode_defect(defect: Defect) -> bytes:
    """Give the reason that is a defect."""
    said = {"type": defect.type_name, "message": defect.message, "traceback": defect.traceback}
    return b'{"die":' + to_json({key: storable(str(text)) for key, text in said.items()}) + b"}"


def decode_defect(said: dict[str, Any]) -> Defect:
    """Read a defect; what is missing is empty, since a defect must always be shown."""
    return Defect(str(said.get("type", "")), str(said.get("message", "")), str(said.get("traceback", "")))


def encode_own(error: PerdureError) -> bytes:
    """Give the reason that is an error of the library's own, with its facts as far as they are plain."""
    if isinstance(error, Defect):
        return encode_defect(error)
    message = storable(str(error.args[0])) if error.args else ""
    said = {"code": error.code, "message": message, "facts": _plain_attributes(error)}
    return b'{"perdure":' + to_json(said) + b"}"


def decode_own(said: dict[str, Any], owner: str) -> PerdureError:
    """Read an error of the library's own.

    Raises:
        PayloadError: A newer release wrote it.
    """
    kind = class_of(str(said.get("code")))
    if kind is None:
        raise PayloadError(f"{owner}: this release knows no error {said.get('code')!r}.", owner=owner)
    error = kind(str(said.get("message", "")))
    _set_attributes(error, {name: fact for name, fact in _mapping(said.get("facts")).items() if name in vars(error)})
    return error


def encode_error(kind: type[Exception], error: Exception, owner: str) -> bytes:
    """Give what is written of an error, as one of the class ``kind``, which is its own or a base of it.

    Raises:
        PayloadError: Something in it does not go into JSON.
    """
    if isinstance(error, TypedError) and issubclass(kind, TypedError):
        return form_of(kind).encode(error)
    try:
        arguments = _ARGUMENTS.encode(list(error.args))
    except PayloadError as refused:
        raise PayloadError(
            f"{owner}: {type(error).__name__} cannot be recorded: {refused}. Give it plain values, or make it a "
            "TypedError with fields.",
            owner=owner,
        ) from refused
    return b'{"args":' + arguments + b',"attributes":' + to_json(_plain_attributes(error)) + b"}"


def decode_error(kind: type[Exception], said: Any, owner: str) -> Exception:
    """Build an error of a class again.

    Raises:
        PayloadError: What was written is none of that class.
    """
    if issubclass(kind, TypedError):
        return form_of(kind).decode(to_json(said))
    recorded = _mapping(said)
    arguments = recorded.get("args")
    if not isinstance(arguments, list):
        raise PayloadError(f"{owner}: the record of a {kind.__name__} has no arguments.", owner=owner)
    error = _rebuilt(kind, tuple(cast("list[Any]", arguments)))
    _set_attributes(error, _mapping(recorded.get("attributes")))
    return error


def _rebuilt(kind: type[Exception], arguments: tuple[Any, ...]) -> Exception:
    """Build an exception with these arguments, by its constructor where that gives the same ones."""
    try:
        error = kind(*arguments)
    except Exception:  # noqa: BLE001 - the constructor is the user's code, and may ask for what args does not have
        error = None
    if error is not None and error.args == arguments:
        return error
    # A constructor that makes its message out of its parameters would make it out of the message now.
    error = kind.__new__(kind)
    error.args = arguments
    return error


def _plain_attributes(error: Exception) -> dict[str, Any]:
    """Give an exception's attributes as far as JSON gives them back; a socket stays behind."""
    return {name: value for name, value in vars(error).items() if not name.startswith("_") and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    try:
        back = from_json(to_json(value))
    except ValueError:
        return False
    return bool(back == (list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value))


def _set_attributes(error: Exception, attributes: dict[str, Any]) -> None:
    # Tuples are what our own errors hold where JSON has lists.
    for name, value in attributes.items():
        vars(error)[name] = tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _mapping(said: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def address_of(kind: type) -> str:
    """Say where a class can be found."""
    return f"{kind.__module__}:{kind.__qualname__}"


def is_importable(kind: type) -> bool:
    """Tell whether a class is found where its name says, which it is not inside a function."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def subclass(declared: type[Exception], address: str, owner: str) -> type[Exception]:
    """Find a loaded subclass by its address.

    Raises:
        PayloadError: No subclass of the declared class has it; the sentence says what to import.
    """
    # The last one of an address is the newest: a module that was loaded again leaves the old classes behind.
    found = [kind for kind in _subclasses(declared) if address_of(kind) == address]
    if not found:
        module, _, name = address.partition(":")
        raise PayloadError(
            f"{owner}: the recorded error is a {name}, a subclass of {declared.__name__}. Import {module!r} where the "
            "workflow is registered, so that it can be read.",
            owner=owner,
        )
    return found[-1]


def _subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
