"""The names, keys and attributes that users choose, checked at the door.

What passes here is written into every store as text and compared there, so it must mean the same to SQLite,
PostgreSQL and JSON: NUL ends a text for one of them, lone surrogates are no UTF-8, NaN equals nothing.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from perdure.errors import DefinitionError, PayloadError, UsageError

MAX_NAME: Final = 255
MAX_KEY: Final = 1_024
# What SQLite and PostgreSQL keep as an integer.
_INT64: Final = range(-(2**63), 2**63)
_EXECUTION_ID: Final = re.compile(r"[0-9a-f]{32}")


def check_name(name: object, what: str) -> str:
    """Give back a name that can be recorded.

    Raises:
        DefinitionError: It cannot; `what` says whose name it is.
    """
    if not isinstance(name, str):
        raise DefinitionError(f"The name of {what} must be text, not {type(name).__name__} ({name!r}).")
    if flaw := _flaw(name, MAX_NAME):
        raise DefinitionError(f"The name of {what} {flaw}: {_shown(name)}.")
    return name


def check_id(execution_id: object) -> str:
    """Give back the id of an execution; whether there is one of that id is another question.

    One spelling only: another one of the same 16 bytes would be the same row to a store, and another execution to
    everybody who compares ids.

    Raises:
        UsageError: It is none: a handle or an idempotency key, mostly.
    """
    if isinstance(execution_id, str) and _EXECUTION_ID.fullmatch(execution_id):
        return execution_id
    raise UsageError(
        f"An execution_id is 32 lower-case hex digits, not {_shown(execution_id)}: give `handle.execution_id`, or "
        "`wf.execution_id(...)` of the payload. For an identity that people can read, give the workflow an "
        "idempotency_key; the id is made from it."
    )


def check_asked(execution_id: object) -> str:
    """Give back what somebody asks by whether there is such an execution; of what is no id there is none.

    Raises:
        UsageError: It is no text.
    """
    return execution_id if isinstance(execution_id, str) else check_id(execution_id)


def check_key(key: object, workflow: str) -> str:
    """Give back an idempotency key that can be recorded.

    Raises:
        PayloadError: It cannot: the payload it was made from identifies nothing.
    """
    owner = f'Workflow "{workflow}"'
    if not isinstance(key, str):
        raise PayloadError(
            f"{owner}: its idempotency_key gave {type(key).__name__} ({key!r}) where text is needed; "
            "write str(...) around it, or an f-string.",
            owner=owner,
        )
    if flaw := _flaw(key, MAX_KEY):
        raise PayloadError(
            f"{owner}: its idempotency_key gave a key that {flaw}: {_shown(key)}. "
            f"A key is 1 to {MAX_KEY:,} characters without NUL and lone surrogates.",
            owner=owner,
        )
    return key


def check_attributes(attributes: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    """Give back a copy of attributes that can be recorded and searched for.

    Raises:
        UsageError: A name or a value cannot.
    """
    if not isinstance(attributes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - from a user, unchecked
        raise UsageError(
            f"attributes= is a mapping of names to values, as in {{'customer': 'ada'}}, not "
            f"{type(attributes).__name__} ({_shown(attributes)})."
        )
    return {_attribute_name(name): _attribute_value(name, value) for name, value in attributes.items()}


def _attribute_name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"An attribute's name is text, not {type(name).__name__} ({name!r}).")
    if flaw := _flaw(name, MAX_NAME):
        raise UsageError(f"An attribute's name {flaw}: {_shown(name)}.")
    return name


def _attribute_value(name: str, value: object) -> str | int | float | bool:
    if isinstance(value, str):
        flaw = _unwritable(value)
    elif isinstance(value, float):
        flaw = None if math.isfinite(value) else "is not a finite number"
    elif isinstance(value, int):
        flaw = None if value in _INT64 else "does not fit into 64 bits"
    else:
        raise UsageError(
            f"Attribute {name!r} is {type(value).__name__}; an attribute is text, a number or a bool. "
            "What is richer belongs into the payload."
        )
    if flaw:
        raise UsageError(f"Attribute {name!r} {flaw}: {_shown(value)}.")
    return value


def _flaw(text: str, longest: int) -> str | None:
    if not text:
        return "is empty"
    if len(text) > longest:
        return f"has {len(text):,} characters, more than {longest:,}"
    return _unwritable(text)


def _unwritable(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "holds a lone surrogate, which is no Unicode text"
    return None


def _shown(value: object) -> str:
    # ascii() and not repr(): the sentence itself must be writable to a log, lone surrogates included.
    shown = ascii(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
