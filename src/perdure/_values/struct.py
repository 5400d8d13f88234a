"""The schema of several named values: a payload given as a mapping of fields, or a function's parameters."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final, NotRequired, cast

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from perdure._values.schema import Schema
from perdure.errors import DefinitionError, PayloadError

__all__ = ["Fields", "StructSchema", "field_values"]

_MAPPING_METHODS: Final = frozenset({"get", "items", "keys", "values"})
_CONFIG: Final = ConfigDict(
    extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


class Fields:
    """Named values, read by attribute or by item, and not to be changed.

    A field wins over a method of the same name: ``payload.items`` is the field ``items`` where there is one.

    Example:
        >>> payload = Fields({"to": "ada"})
        >>> payload.to, payload["to"], dict(payload)
        ('ada', 'ada', {'to': 'ada'})
    """

    __slots__ = ("_fields",)
    _fields: Mapping[str, Any]

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Make it from a mapping, which is copied."""
        object.__setattr__(self, "_fields", MappingProxyType(dict(fields)))

    def __getattr__(self, name: str) -> Any:
        # Called only for what the class does not have, so the methods of a mapping are asked for here, after the fields.
        if name.startswith("__"):
            raise AttributeError(name)
        fields = self._fields
        if name in fields:
            return fields[name]
        if name in _MAPPING_METHODS:
            return getattr(fields, name)
        raise AttributeError(f"no field {name!r}; there are: {', '.join(fields) or 'none'}")

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields):
            return NotImplemented
        return self._fields == other._fields

    def __hash__(self) -> int:
        return hash(frozenset(self._fields.items()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} cannot be set: a payload is not to be changed.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: a payload is not to be changed.")

    def __copy__(self) -> "Fields":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fields":
        return Fields(deepcopy(dict(self._fields), memo))

    def __repr__(self) -> str:
        return f"Fields({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"


def field_values(fields: Fields) -> dict[str, Any]:
    """Give the named values as a dict, whatever the fields are called."""
    return {name: fields[name] for name in fields}


class StructSchema(Schema[Fields]):
    """Encodes and decodes named values, each of a type of its own.

    Values are given as a mapping, as Fields, or as any object with these attributes. Names that are not fields are
    refused; fields with a default may be missing, in what is given and in what was recorded.

    Example:
        >>> schema = StructSchema({"to": str, "copies": int}, 'Workflow "SendEmail"', defaults={"copies": 1})
        >>> schema.round_trip({"to": "ada"})
        (b'{"to":"ada","copies":1}', Fields(to='ada', copies=1))
    """

    __slots__ = ("_defaults", "_names")

    def __init__(
        self, fields: Mapping[str, Any], owner: str, role: str = "", *, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Build the serializer and the validator of the fields.

        Args:
            fields: The type of each field.
            owner: Whose schema it is: ``Workflow "SendEmail"``.
            role: What the struct is to it: ``the payload``.
            defaults: What fields are when they are missing.

        Raises:
            DefinitionError: pydantic cannot handle one of the types.
        """
        self._names = tuple(fields)
        self._defaults = dict(defaults or {})
        types = {name: NotRequired[type_] if name in self._defaults else type_ for name, type_ in fields.items()}
        struct = with_config(_CONFIG)(TypedDict("Struct", types))  # pyright: ignore[reportArgumentType]
        try:
            super().__init__(struct, owner, role)
        except DefinitionError:
            # It names the class made here, which nobody has written. One of its fields says the same of itself.
            for name, type_ in fields.items():
                Schema[Any](type_, owner, f"field {name!r}")
            raise

    def encode(self, value: object) -> bytes:
        """Give the JSON bytes of a struct, its fields in the order in which they were declared.

        Raises:
            PayloadError: A field is missing, unknown or not of its type.
        """
        return super().encode(cast("Any", self._complete(value)))

    def decode(self, raw: bytes) -> Fields:
        """Read a struct from JSON bytes.

        Raises:
            PayloadError: They are no JSON, or a field is missing, unknown or not of its type.
        """
        return Fields(self.read(raw))

    def read(self, raw: bytes) -> dict[str, Any]:
        """Read a struct from JSON bytes as a dict of its own, in the order of its fields.

        Raises:
            PayloadError: They are no JSON, or a field is missing, unknown or not of its type.
        """
        return self._completed(cast("Any", super().decode(raw)))

    def validate(self, value: object) -> Fields:
        """Make a value one of this struct.

        Raises:
            PayloadError: A field is missing, unknown or not of its type.
        """
        return Fields(self._completed(cast("Any", super().validate(self._complete(value)))))

    def _complete(self, value: object) -> dict[str, Any]:
        """Take the fields out of what was given, in their order, defaults filled in."""
        given = self._given(value)
        defaults = self._defaults
        missing = [name for name in self._names if name not in given and name not in defaults]
        unknown = [name for name in given if name not in self._names]
        if missing or unknown:
            raise self._misfit(missing, unknown)
        return {name: given[name] if name in given else defaults[name] for name in self._names}

    def _given(self, value: object) -> Mapping[str, Any]:
        if isinstance(value, Fields):
            return field_values(value)
        if isinstance(value, Mapping):
            return cast("Mapping[str, Any]", value)
        return {name: getattr(value, name) for name in self._names if hasattr(value, name)}

    def _misfit(self, missing: list[str], unknown: list[str]) -> PayloadError:
        said = [f"{name}: is missing" for name in missing]
        said += [f"{name}: is no field here; there are: {', '.join(self._names) or 'none'}" for name in unknown]
        return self._error("; ".join(said), (*missing, *map(str, unknown)))

    def _completed(self, values: dict[str, Any]) -> dict[str, Any]:
        if len(values) == len(self._names):
            return values
        # Recorded before the field existed. A copy, or a body that changes its list would change every later one.
        return {name: values[name] if name in values else deepcopy(self._defaults[name]) for name in self._names}
