"""How values of one type become JSON bytes and come back.

Live code and replay must see the same value, so what an activity returns goes through its own bytes before
anybody sees it. That makes this the hottest code of the library: in the good case encoding and decoding are one
call each of pydantic-core, and everything that can go wrong is looked into only after it did, or on a suspicion
that the bytes themselves give.

Bytes carry the names of fields, never aliases: a type may be written by one alias and read by another, and the
journal must read back what it wrote.
"""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, Protocol, cast

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaError, from_json
from typing_extensions import TypeAliasType, TypeForm, TypeVar

from perdure._values.ordering import parts, with_sets_sorted
from perdure._values.shape import Recent, fits_of, taken_as_it_is
from perdure.errors import DefinitionError, PayloadError

__all__ = ["Schema"]

T = TypeVar("T", default=Any)

# What plain types get. A model of the user's has a configuration of its own, which stands.
_CONFIG: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")

# Where one of these stands in the bytes, pydantic may have dropped something without a word: a float that is no number
# becomes null in a model, and a string where there is no schema; a secret becomes stars. Mostly it is nothing.
_LOST_FLOAT: Final = (b"null", b'"NaN"', b'Infinity"')
_LOST_SECRET: Final = (b'"***',)

_SETS: Final = frozenset({"set", "frozenset"})
# What says nothing about the value that is serialized.
_OPEN: Final = frozenset(
    {"any", "callable", "custom-error", "function-plain", "generator", "is-instance", "is-subclass"}
)
# Parts of a node that are no schemas; a default value may even look like one.
_NO_SCHEMA: Final = frozenset({"cls", "config", "default", "expected", "members", "metadata"})

_CALLS: Final = frozenset({"arguments", "arguments-v3", "call"})

# What is of one of these types is what its schema says, if that is the plain one, and comes back as it was written.
_EXACT: Final[dict[str, type]] = {"bool": bool, "int": int, "none": type(None), "str": str}

_UNION_NOISE: Final = 3  # how many refusals a message repeats: a union gives one for each of its choices


class _Encode(Protocol):
    def __call__(self, value: Any, /, *, warnings: Any = ..., round_trip: bool = ...) -> bytes: ...


class Schema(Generic[T]):
    """Encodes and decodes the values of one type.

    Attributes:
        owner: Whose schema it is, as its errors say it.
        role: What the values are to their owner, as its errors say it; empty where their fields say enough.
        adapter: The type as pydantic knows it; for JSON schemas.
        as_is: What is of this very class need not be validated: a bare type, or a model that is not looked into. None
            if there is no such class.

    Example:
        >>> schema = Schema(list[int], 'Activity "prices"')
        >>> schema.encode([1, 2])
        b'[1,2]'
        >>> schema.round_trip((1, "2"))
        (b'[1,2]', [1, 2])
    """

    __slots__ = (
        "_exact",
        "_fits",
        "_from_json",
        "_from_python",
        "_may_hold_sets",
        "_recent",
        "_serializer",
        "_suspicious",
        "_to_json",
        "adapter",
        "as_is",
        "owner",
        "role",
    )

    def __init__(self, type_: "TypeForm[T] | Any", owner: str, role: str = "", *, remembers: bool = False) -> None:
        """Build the serializer and the validator of a type.

        Args:
            type_: Anything that pydantic can handle.
            owner: Whose schema it is: ``Activity "charge"``.
            role: What the values are to it: ``the return value``.
            remembers: Whether one value is likely to be encoded several times, so that its bytes are worth keeping.

        Raises:
            DefinitionError: pydantic cannot handle the type.
        """
        self.owner: str = owner
        self.role: str = role
        self.adapter: TypeAdapter[T] = _adapter(type_, owner, role)
        schema: Any = self.adapter.core_schema
        kinds = list(_nodes(schema))
        is_open = any(map(_is_open, kinds))
        self._may_hold_sets = is_open or any(node["type"] in _SETS for node in kinds)
        self._suspicious: tuple[bytes, ...] = ()
        if is_open or any(node["type"] == "float" for node in kinds):
            self._suspicious += _LOST_FLOAT
        if is_open or any(node.get("cls") in (SecretStr, SecretBytes) for node in kinds):
            self._suspicious += _LOST_SECRET
        # A schema of one of them with a serializer of its own is another matter.
        self._exact = _EXACT.get(schema["type"]) if "serialization" not in schema else None
        # Tells of a model whether nothing can be wrong with it either.
        self._fits = fits_of(schema)
        # What was written of late, where that is asked for. What is new each time, as results are, would only push out
        # what is not. None: nothing is kept.
        self._recent: Recent | None = Recent(schema["cls"]) if remembers and self._fits is not None else None
        self.as_is: type | None = self._exact if len(schema) == 1 else taken_as_it_is(schema)
        self._serializer = self.adapter.serializer
        # Bound once: looking them up through the adapter costs as much as encoding a small model.
        self._to_json: _Encode = self._serializer.to_json
        self._from_json: Callable[[bytes], T] = self.adapter.validator.validate_json
        self._from_python: Callable[[object], T] = self.adapter.validator.validate_python
        if any("serialization_alias" in node for node in kinds):
            # Whatever its model is configured to do: nobody reads an alias that is for writing only.
            self._to_json = partial(self._serializer.to_json, by_alias=False)
        if any(map(_may_have_aliases, kinds)):
            # Mostly there are none, and to say it all the same takes a twentieth of reading a small model.
            self._from_json = partial(self._from_json, by_alias=True, by_name=True)
            self._from_python = partial(self._from_python, by_alias=True, by_name=True)

    def encode(self, value: T) -> bytes:
        """Give the JSON bytes of a value; one that is not quite of the type is made so first, as pydantic does.

        Raises:
            PayloadError: The value is not of the type, or would not come back from its bytes.
        """
        fits = False
        try:
            if type(value) is self._exact:
                # Nothing can be wrong with it, and telling pydantic to look takes ten times as long as writing it.
                return self._to_json(value)
            if self._recent is not None and (known := self._recent.raw_of(value)) is not None:
                return known
            fits = self._fits is not None and self._fits(value)
            # "error" is read by way of an exception, which takes longer than all the rest.
            raw = self._to_json(value) if fits else self._to_json(value, warnings="error", round_trip=True)
        except Exception as refused:  # noqa: BLE001 - serializers of fields are the user's code
            value, raw = self._encode_after_validation(value, refused)
        for mark in self._suspicious:
            if mark in raw:
                self._refuse_losses(value, raw)
                break
        # And not before: what was refused is to be refused again.
        if fits and self._recent is not None:
            self._recent.note(value, raw)
        return with_sets_sorted(value, raw) if self._may_hold_sets else raw

    def decode(self, raw: bytes) -> T:
        """Read a value from JSON bytes.

        Raises:
            PayloadError: They are no JSON, or not of the type.
        """
        try:
            return self._from_json(raw)
        except Exception as refused:
            raise self._refusal(refused) from refused

    def validate(self, value: object) -> T:
        """Make a value one of the type, as pydantic does for Python input: ``"5"`` becomes 5.

        Raises:
            PayloadError: It cannot be one.
        """
        try:
            return self._from_python(value)
        except Exception as refused:
            raise self._refusal(refused) from refused

    def round_trip(self, value: T) -> tuple[bytes, T]:
        """Give a value's bytes, and the value as a replay will see it.

        Raises:
            PayloadError: The value is not of the type, or does not come back from its bytes.
        """
        raw = self.encode(value)
        return raw, self.decode(raw)

    def same(self, recorded: bytes, asked: bytes) -> bool:
        """Tell whether two encoded values are the same: equal bytes, or equal once decoded (R2)."""
        if recorded == asked:
            return True
        try:
            return bool(self.decode(recorded) == self.decode(asked))
        except PayloadError:
            return False

    def differing_fields(self, recorded: bytes, asked: bytes) -> tuple[str, ...]:
        """Name the fields in which two encoded values differ; an empty path is the value itself."""
        return tuple(".".join(path) for path in _differences(self._plain(recorded), self._plain(asked)))

    def _plain(self, raw: bytes) -> Any:
        # Through today's type where it can be read: a field that only got a default since then is no difference.
        with suppress(PayloadError):
            raw = self.encode(self.decode(raw))
        try:
            return from_json(raw)
        except ValueError:
            return None

    def _encode_after_validation(self, value: T, refused: Exception) -> tuple[T, bytes]:
        """Encode what pydantic makes of a value that its serializer refused."""
        if isinstance(value, Awaitable):
            raise self._unawaited(cast("object", value)) from refused
        # Schema's own validate, not self's: a struct's gives a view, which its serializer does not know.
        validated = Schema.validate(self, value)
        if validated is value:
            # An instance of a model passes unlooked at; its fields, taken apart, do not.
            validated = Schema.validate(self, self._dump(value, refused))
        try:
            return validated, self._to_json(validated, warnings="error", round_trip=True)
        except Exception as again:
            raise self._refusal(again) from again

    def _dump(self, value: T, refused: Exception | None = None) -> Any:
        try:
            return self._serializer.to_python(value, warnings=False, round_trip=True, by_alias=False)
        except Exception as again:
            raise self._refusal(refused or again) from again

    def _refuse_losses(self, value: T, raw: bytes) -> None:
        lost = next(_losses(value, Schema.decode(self, raw)), None)
        if lost is not None:
            path, what = lost
            raise self._error(self._said(path, what), (path,) if path else ())

    def _refusal(self, refused: Exception) -> PayloadError:
        if isinstance(refused, PayloadError):
            return refused
        if not isinstance(refused, ValidationError):
            return self._error(self._said("", _serialization_sentence(refused)))
        details = refused.errors(include_url=False, include_context=False, include_input=False)
        paths = [".".join(str(part) for part in detail["loc"]) for detail in details]
        # The input itself stays out of the sentence: it goes to logs, and payloads hold what must not.
        said = [self._said(path, detail["msg"]) for path, detail in zip(paths, details, strict=True)]
        more = f"; and {len(said) - _UNION_NOISE} more" if len(said) > _UNION_NOISE else ""
        return self._error("; ".join(said[:_UNION_NOISE]) + more, tuple(dict.fromkeys(path for path in paths if path)))

    def _unawaited(self, value: object) -> PayloadError:
        # An activity call has its activity's name, a coroutine its function's.
        name = getattr(value, "__name__", None)
        what, call = (f"a call of {name!r}", f"{name}(...)") if name else (type(value).__name__, "...")
        return self._error(f"a forgotten await: it is {what} that nobody has awaited. Write `await {call}`.")

    def _said(self, path: str, what: str) -> str:
        where = path or ("" if self.role else "the value")
        return f"{where}: {what}" if where else what

    def _error(self, said: str, fields: tuple[str, ...] = ()) -> PayloadError:
        whose = f"{self.owner}: {self.role}" if self.role else self.owner
        return PayloadError(f"{whose}: {said}", fields=fields, owner=self.owner)


def _adapter(type_: Any, owner: str, role: str) -> TypeAdapter[Any]:
    whose = f"{owner}: {role}" if role else owner
    try:
        adapter = _configured_adapter(type_)
    except (PydanticUserError, PydanticSchemaGenerationError, SchemaError, NameError, TypeError, ValueError) as refused:
        raise DefinitionError(f"{whose}: {type_!r} cannot be stored: {_reason(refused)}", owner=owner) from refused
    if not adapter.pydantic_complete:
        raise DefinitionError(
            f"{whose}: {type_!r} names a type that does not exist yet. Define that type above its use.", owner=owner
        )
    return adapter


def _reason(refused: Exception) -> str:
    # What follows are links, and advice to authors of models: a setting of theirs, which would not help here.
    said = str(refused).partition("\n\n")[0].partition(". Set `arbitrary_types_allowed")[0]
    if isinstance(refused, PydanticSchemaGenerationError):
        said += ". Take a type that pydantic knows, or give the class a __get_pydantic_core_schema__."
    return said


def _configured_adapter(type_: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(type_, config=_CONFIG)
    except PydanticUserError as refused:
        if refused.code != "type-adapter-config-unused":
            raise
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return TypeAdapter(type_)
    # A dataclass or TypedDict takes its configuration from what is around it, so something must be.
    surrounded: Any = TypeAliasType("Value", type_)  # pyright: ignore[reportGeneralTypeIssues]
    return TypeAdapter(surrounded, config=_CONFIG)


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Give every node of a core schema; references are not followed, since what they name is in there once."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        # What is no node has names of the user's as keys: a field may be called "config".
        is_node = isinstance(mapping.get("type"), str)
        if is_node:
            yield mapping
        for key, item in mapping.items():
            if not is_node or key not in _NO_SCHEMA:
                yield from _nodes(item)
    elif isinstance(value, (list, tuple)):
        for item in cast("list[Any]", value):
            yield from _nodes(item)


def _is_open(node: dict[str, Any]) -> bool:
    """Tell whether anything may stand in a node's place."""
    return node["type"] in _OPEN or "allow" in (
        node.get("extra_behavior"),
        node.get("config", {}).get("extra_fields_behavior"),
    )


def _may_have_aliases(node: dict[str, Any]) -> bool:
    """Tell whether something of a node may be read under another name; the parameters of a call say so for themselves."""
    return "validation_alias" in node or node["type"] in _CALLS


def _losses(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Compare a value with what its bytes give back, and tell what is lost in between."""
    if isinstance(before, float):
        if not math.isfinite(before) and not isinstance(after, float):
            yield path, f"{before!r} does not come back from JSON. Leave it out, or set ser_json_inf_nan on its model."
    elif isinstance(before, (SecretStr, SecretBytes)):
        if before != after:
            yield path, "a secret is not stored. Pass a reference to it, or give the field a serializer."
    elif not isinstance(before, (set, frozenset)):  # its parts have no names to find them by
        later = dict(parts(after))
        for name, item in parts(before):
            yield from _losses(item, later.get(name), f"{path}.{name}" if path else str(name))


def _differences(recorded: Any, asked: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        ours, theirs = cast("dict[str, Any]", recorded), cast("dict[str, Any]", asked)
        for name in dict.fromkeys([*ours, *theirs]):
            if name not in ours or name not in theirs:
                yield (*path, name)
            else:
                yield from _differences(ours[name], theirs[name], (*path, name))
    elif recorded != asked:
        yield path


def _serialization_sentence(refused: Exception) -> str:
    said = str(refused)
    if "surrogates not allowed" in said:
        return "the text holds half of a surrogate pair, which UTF-8 cannot express. Clean it before passing it on."
    if "utf-8" in said and isinstance(refused, PydanticSerializationError):
        return (
            f"{said}. Bytes that are no text need a configuration on their model: "
            'model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64").'
        )
    return f"cannot be written as JSON: {type(refused).__name__}: {said}"
