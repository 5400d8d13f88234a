"""An error with fields, which crosses the journal by its schema."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from inspect import currentframe
from typing import Any, ClassVar, Final, Generic, Self, cast, get_origin, get_type_hints

from pydantic import ConfigDict, Field
from typing_extensions import TypeVar, dataclass_transform

from perdure._values.schema import Schema
from perdure.errors import DefinitionError, UsageError

__all__ = ["ErrorForm", "TypedError", "form_of"]

E = TypeVar("E", bound="TypedError")

# What every exception has; a field of that name would break raising, copying or printing it.
_RESERVED: Final = frozenset({"add_note", "args", "with_traceback"})
_CONFIG: Final = ConfigDict(
    extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, field))
class TypedError(Exception):
    """The base of an application's declared errors: a class whose annotations are its fields.

    Built with keywords, validated by pydantic, equal when class and fields are equal. The fields cannot be set
    afterwards; everything else that Python sets on an exception can. Defaults, ``Field(...)`` and
    ``field(default_factory=...)`` work as in a dataclass, and a subclass adds fields.

    Raises:
        PayloadError: A field is missing, unknown or not of its type.
        DefinitionError: At the definition of the class: pydantic cannot handle the type of a field.

    Example:
        >>> class CardDeclined(TypedError):
        ...     code: str
        ...     retry_after: int = 0
        >>> CardDeclined(code="no-funds")
        CardDeclined(code='no-funds', retry_after=0)
        >>> CardDeclined(code="no-funds") == CardDeclined(code="no-funds", retry_after=0)
        True
    """

    # None while an annotation names a class that is defined further down; built at the first use then.
    _perdure_form: ClassVar["ErrorForm[Any] | None"] = None

    def __init_subclass__(cls) -> None:
        """Build the schema of the fields."""
        super().__init_subclass__()
        # The frame of the class statement knows the names that annotations inside a function use.
        here = currentframe()
        names = dict(here.f_back.f_locals) if here and here.f_back else {}
        cls._perdure_form = _build(cls, names)

    def __init__(self, /, *args: object, **fields: Any) -> None:
        """Validate the fields and take them.

        Raises:
            PayloadError: A field is missing, unknown or not of its type.
            TypeError: Something was given by position.
        """
        if args:
            name = type(self).__name__
            shown = ", ".join(f"{field}=..." for field in form_of(type(self)).names)
            raise TypeError(f"{name} takes its fields by keyword, not by position: {name}({shown})")
        super().__init__()
        vars(self).update(form_of(type(self)).validated(fields))

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_field(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_field(name)
        super().__delattr__(name)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        form = form_of(type(self))
        return form.values(self) == form.values(cast("Self", other))

    def __hash__(self) -> int:
        try:
            return hash((type(self), *form_of(type(self)).values(self).values()))
        except TypeError:  # a list among the fields: equal errors must still have equal hashes
            return hash(type(self))

    def __repr__(self) -> str:
        values = form_of(type(self)).values(self)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def __str__(self) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the class with positional arguments, which this one does not take.
        return _restored, (type(self), vars(self))

    def _refuse_field(self, name: str) -> None:
        if name in form_of(type(self)).names:
            raise AttributeError(
                f"{type(self).__name__}.{name} cannot be changed: an error stays what it was recorded as."
            )


class ErrorForm(Generic[E]):
    """The fields of one class of typed errors, and how they are encoded.

    Attributes:
        names: The fields' names, in the order of their definition, those of base classes first.
    """

    def __init__(self, error: type[E], hints: Mapping[str, Any]) -> None:
        """Build it from the class's annotations.

        Raises:
            DefinitionError: A field cannot be one.
        """
        self._error = error
        self.names: tuple[str, ...] = tuple(name for name, hint in hints.items() if not _is_class_variable(hint))
        self._fields = frozenset(self.names)
        owner = f"Error {error.__name__!r}"
        reserved = [name for name in self.names if name in _RESERVED or name.startswith("__")]
        if reserved:
            raise DefinitionError(
                f"{owner}: every exception has {reserved[0]!r} already; rename the field.", owner=owner
            )
        self._mirror = _mirror(error, {name: hints[name] for name in self.names}, owner)
        self.schema: Schema[Any] = Schema(self._mirror, owner)

    def validated(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Give the values of all fields.

        Raises:
            PayloadError: A field is missing, unknown or not of its type.
        """
        return self._taken(self.schema.validate(dict(fields)))

    def values(self, error: E) -> dict[str, Any]:
        """Give the values of an error's fields by name."""
        own = vars(error)
        return {name: own[name] for name in self.names if name in own}

    def encode(self, error: TypedError) -> bytes:
        """Give the JSON bytes of the fields of an error of this class or of a subclass.

        Raises:
            PayloadError: A value does not go into JSON.
        """
        own = vars(error)
        return self.schema.encode(self.schema.validate({name: own[name] for name in self.names if name in own}))

    def decode(self, raw: bytes) -> E:
        """Build the error again, without calling its ``__init__``: what was recorded was validated then.

        Raises:
            PayloadError: The bytes are not those of such an error.
        """
        return _restored(self._error, self._taken(self.schema.decode(raw)))

    def _taken(self, mirror: Any) -> dict[str, Any]:
        return {name: getattr(mirror, name) for name in self.names}


def form_of(error: type[E]) -> ErrorForm[E]:
    """Give the fields of a class of typed errors.

    Raises:
        UsageError: An annotation names something that does not exist.
    """
    form = error.__dict__.get("_perdure_form")
    if form is None:
        form = _build(error, {})
        if form is None:
            raise UsageError(f"Error {error.__name__!r}: an annotation names a type that does not exist.")
        error._perdure_form = form  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return form


def _build(error: type[E], names: dict[str, Any]) -> ErrorForm[E] | None:
    try:
        hints = get_type_hints(error, localns=names, include_extras=True)
    except NameError:
        return None
    return ErrorForm(error, hints)


def _mirror(error: type[TypedError], hints: Mapping[str, Any], owner: str) -> type:
    """Make a dataclass with the fields: pydantic knows those, and lets fields have any name, unlike in its models."""
    defaults = _defaults(error)
    specifications = [
        (name, hint, defaults[name]) if name in defaults else (name, hint) for name, hint in hints.items()
    ]
    try:
        return dataclasses.make_dataclass(
            error.__name__, specifications, kw_only=True, namespace={"__pydantic_config__": _CONFIG}
        )
    except (TypeError, ValueError) as refused:
        raise DefinitionError(f"{owner}: {refused}", owner=owner) from refused


def _defaults(error: type[TypedError]) -> dict[str, Any]:
    """Give what the class and its bases assign to names; what stands lower in the hierarchy wins."""
    found: dict[str, Any] = {}
    for base in reversed(error.__mro__[: error.__mro__.index(TypedError)]):
        found |= cast("dict[str, Any]", vars(base))
    return found


def _is_class_variable(hint: Any) -> bool:
    return hint is ClassVar or get_origin(hint) is ClassVar


def _restored(error: type[E], state: Mapping[str, Any]) -> E:
    restored = error.__new__(error)
    vars(restored).update(state)
    return restored
