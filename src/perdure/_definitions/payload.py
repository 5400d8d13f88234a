"""A workflow's payload: what callers pass, the JSON object that is recorded, what the body gets.

FastAPI's rule says what the object holds. A single struct (a model, a dataclass, a TypedDict, a mapping of fields)
is its own fields; anything else is an object of the parameters.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, Protocol, cast, get_args, get_origin

from pydantic import BaseModel, RootModel
from typing_extensions import is_typeddict

from perdure._definitions.arguments import Arguments
from perdure._definitions.signature import Parameter
from perdure._values.schema import Schema
from perdure._values.struct import Fields, StructSchema
from perdure.errors import PayloadError

# What errors call it.
_PAYLOAD: Final = "the payload"

Arranged = tuple[tuple[Any, ...], dict[str, Any]]


class Encoded(NamedTuple):
    """A payload that can be recorded, and its arguments as the body will get them."""

    raw: bytes
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Payload(Protocol):
    """Reads and writes the payloads of one workflow."""

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Encoded:
        """Validate what a caller passes, defaults filled in.

        The arguments in the answer come from the bytes, so that a key made from them is the one that anybody would
        make from what is recorded.

        Raises:
            PayloadError: A field is missing, unknown, or not of its type.
        """
        ...

    def decode(self, raw: bytes) -> Arranged:
        """Read a recorded payload as the arguments of the body.

        Raises:
            PayloadError: Today's types cannot read it.
        """
        ...

    def differing_fields(self, recorded: bytes, asked: bytes) -> tuple[str, ...]:
        """Name the fields in which two payloads differ; none, if they are the same (R2)."""
        ...


class StructPayload:
    """One struct, recorded as its own fields."""

    def __init__(self, parameter: Parameter, schema: Schema[Any], owner: str) -> None:
        self._arguments = Arguments((parameter.typed(Any),), owner)
        self._parameter = parameter
        self._schema = schema

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Encoded:
        """Validate the one argument."""
        if kwargs and not args and self._parameter.name not in kwargs:
            raise self._spread_out(tuple(kwargs))
        (value,) = self._arguments.arrange(args, kwargs)
        raw, value = self._schema.round_trip(value)
        return Encoded(raw, *self._arguments.spread((value,)))

    def decode(self, raw: bytes) -> Arranged:
        """Read the one argument."""
        return self._arguments.spread((self._schema.decode(raw),))

    def differing_fields(self, recorded: bytes, asked: bytes) -> tuple[str, ...]:
        """Compare field by field."""
        return _differing_fields(self._schema, recorded, asked)

    def _spread_out(self, names: tuple[str, ...]) -> PayloadError:
        """Say how fields are given that came as arguments. Their values stay out of it: it goes to logs."""
        class_ = _class_of(self._parameter.annotation)
        if class_ is Fields:
            meant = "{" + ", ".join(f'"{name}": ...' for name in names) + "}"
        else:
            meant = f"{class_.__name__}(" + ", ".join(f"{name}=..." for name in names) + ")"
        owner = self._schema.owner
        return PayloadError(
            f"{owner} has no parameter {' and no parameter '.join(map(repr, names))}: it takes its payload as one "
            f"argument, as in `start({meant})`.",
            fields=names,
            owner=owner,
        )


class ParameterPayload:
    """Any number of parameters, recorded under their names."""

    def __init__(self, parameters: tuple[Parameter, ...], owner: str) -> None:
        self._arguments = Arguments(parameters, owner)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Encoded:
        """Validate all arguments."""
        raw, _ = self._arguments.write(args, kwargs)
        return Encoded(raw, *self.decode(raw))

    def decode(self, raw: bytes) -> Arranged:
        """Read all arguments; one that came into the signature since then has its default."""
        return self._arguments.spread(tuple(self._arguments.struct.read(raw).values()))

    def differing_fields(self, recorded: bytes, asked: bytes) -> tuple[str, ...]:
        """Compare argument by argument."""
        return _differing_fields(self._arguments.struct, recorded, asked)


def payload_of(parameters: tuple[Parameter, ...], owner: str) -> Payload:
    """Give the payload that is formed by a function's parameters.

    Raises:
        DefinitionError: A type of theirs cannot be stored.
    """
    if len(parameters) == 1 and _is_struct(parameters[0].annotation):
        return StructPayload(parameters[0], Schema(parameters[0].annotation, owner, _PAYLOAD), owner)
    return ParameterPayload(parameters, owner)


def payload_of_fields(fields: Mapping[str, Any], owner: str) -> Payload:
    """Give the payload that is declared as a mapping of fields; the body gets them as one read-only object.

    Raises:
        DefinitionError: A type of theirs cannot be stored.
    """
    return StructPayload(Parameter("payload", Fields), StructSchema(fields, owner, _PAYLOAD), owner)


def _class_of(annotation: Any) -> Any:
    """Give what stands behind `Annotated` and before the arguments of a generic type."""
    if get_origin(annotation) is Annotated:
        return _class_of(get_args(annotation)[0])
    return get_origin(annotation) or annotation


def _is_struct(annotation: Any) -> bool:
    type_ = _class_of(annotation)
    if not isinstance(type_, type):
        return False
    class_ = cast("type[Any]", type_)
    if issubclass(class_, BaseModel):
        return not issubclass(class_, RootModel)  # which may be anything on the wire, a list too
    return dataclasses.is_dataclass(class_) or is_typeddict(class_)


def _differing_fields(schema: Schema[Any], recorded: bytes, asked: bytes) -> tuple[str, ...]:
    if schema.same(recorded, asked):
        return ()
    return schema.differing_fields(recorded, asked) or ("payload",)
