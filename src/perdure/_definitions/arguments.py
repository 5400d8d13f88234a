"""The arguments of a call: put in the order of their parameters, and written as one JSON object.

An activity's input is that object, and every step of every workflow is written here, so the good case does as
little as it can: one validation and one serialization for each argument, glued with bytes made beforehand. What an
argument was written as is kept until the step has ended, because its attempts read it from there.
"""

import datetime
import decimal
import enum
import json
import types
import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

from perdure._definitions.signature import NOTHING, Parameter
from perdure._values.schema import Schema
from perdure._values.struct import StructSchema
from perdure.errors import DefinitionError, PayloadError

# What nobody can change, so that it need not be copied for whoever is given it.
_UNCHANGING: Final = (
    str,
    int,
    float,
    bool,
    bytes,
    types.NoneType,
    decimal.Decimal,
    uuid.UUID,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    enum.Enum,
)


class Arguments:
    """The parameters of one function, and what is known of them beforehand.

    Attributes:
        parameters: The parameters in their order; those by keyword only stand last.
        owner: Whose they are, as errors say it.
    """

    __slots__ = (
        "_changing", "_changing_by_name", "_form", "_names", "_places", "_schemas", "_struct", "_unchanging", "count", "owner",
        "parameters",
    )  # fmt: skip

    def __init__(self, parameters: tuple[Parameter, ...], owner: str) -> None:
        self.parameters: Final = parameters
        self.owner: Final = owner
        self.count: Final = len(parameters)
        self._struct: StructSchema | None = None
        self._names: Final = frozenset(parameter.name for parameter in parameters if not parameter.by_place)
        # How many can be given by position.
        self._places: Final = sum(not parameter.by_name for parameter in parameters)
        schemas = [_schema(parameter, owner) for parameter in parameters]
        for parameter, schema in zip(parameters, schemas, strict=True):
            _check_default(parameter, schema, owner)
        self._schemas: Final = tuple(schemas)
        # Where those stand whose values somebody could change, with what reads them; and all the others.
        changing = [
            (place, schemas[place]) for place, parameter in enumerate(parameters) if _may_change(parameter.annotation)
        ]
        self._changing: Final = tuple(each for each in changing if each[0] < self._places)
        self._changing_by_name: Final = tuple(changing[len(self._changing) :])
        self._unchanging: Final = tuple(set(range(self.count)).difference(place for place, _ in changing))
        # The object around the values: `{"order":%b,"position":%b}`. No name of a parameter has a percent sign.
        self._form: Final = b"{" + b",".join(_member(parameter.name) + b"%b" for parameter in parameters) + b"}"

    @property
    def struct(self) -> StructSchema:
        """The arguments as one struct: it reads what was recorded, which the writers cannot."""
        # Activities need it only after their code has changed, so most never build it.
        if self._struct is None:
            defaults = {each.name: each.default for each in self.parameters if each.default is not NOTHING}
            types = {each.name: each.annotation for each in self.parameters}
            self._struct = StructSchema(types, self.owner, defaults=defaults)
        return self._struct

    def arrange(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Put arguments in the order of the parameters, defaults filled in.

        Raises:
            PayloadError: One is missing, unknown or given twice.
        """
        if len(args) > self._places:
            takes = "1 argument" if self._places == 1 else f"{self._places} arguments"
            raise PayloadError(f"{self.owner} takes {takes} by position, not {len(args)}.", owner=self.owner)
        values = list(args)
        taken = 0
        for parameter in self.parameters[len(args) :]:
            if parameter.name in kwargs and not parameter.by_place:
                values.append(kwargs[parameter.name])
                taken += 1
            elif parameter.default is not NOTHING:
                values.append(parameter.default)
            else:
                stray = next(
                    (f", and {name!r} is no parameter of it" for name in kwargs if name not in self._names), ""
                )
                raise self._refusal(parameter.name, f"is missing{stray}")
        if taken != len(kwargs):
            given = {parameter.name for parameter in self.parameters[: len(args)]} & self._names
            name = next(name for name in kwargs if name not in self._names or name in given)
            raise self._refusal(name, "is given twice" if name in given else "is no parameter of it")
        return tuple(values)

    def spread(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make arranged values arguments again."""
        if self._places == self.count:
            return values, {}
        names = (parameter.name for parameter in self.parameters[self._places :])
        return values[: self._places], dict(zip(names, values[self._places :], strict=True))

    def write(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
        """Give the JSON object of some arguments, and what is to be kept of each of them for reading it again.

        Raises:
            PayloadError: One is missing, unknown, given twice, or not of its type.
        """
        if kwargs or len(args) != self.count or self._places != self.count:
            args = self.arrange(args, kwargs)
        kept: list[Any] = []
        try:
            for schema, argument in zip(self._schemas, args):  # noqa: B905 - as many, by what is above
                value = argument
                if type(value) is not schema.as_is:
                    place, value = len(kept), schema.validate(value)
                    args = (*args[:place], value, *args[place + 1 :])
                kept.append(schema.encode(value))
        except PayloadError as refused:
            raise self._named(refused, len(kept)) from refused
        raw = self._form % tuple(kept)
        # Where nobody can change it the value itself. What is not annotated stays what it is, too: its bytes do not know
        # its class.
        for place in self._unchanging:
            kept[place] = args[place]
        return raw, kept

    def positional(self, raw: bytes, kept: list[Any]) -> tuple[Any, ...]:
        """Read what `write` kept of the arguments by position, each time anew.

        A body that sees what an activity does to an argument would not see it on replay, nor would a second attempt
        find what the first one was given. So whatever somebody could change is read from its own bytes.

        Raises:
            PayloadError: A value does not come back from its bytes.
        """
        return tuple(self._read(raw, kept[: self._places], self._changing))

    def keywords(self, raw: bytes, kept: list[Any]) -> dict[str, Any]:
        """Read those that can be given by keyword only, in the same way.

        Raises:
            PayloadError: A value does not come back from its bytes.
        """
        if self._places == self.count:
            return {}
        values = self._read(raw, kept.copy(), self._changing_by_name)
        return {each.name: values[place] for place, each in enumerate(self.parameters) if each.by_name}

    def _read(self, raw: bytes, values: list[Any], changing: tuple[tuple[int, Schema[Any]], ...]) -> list[Any]:
        try:
            for place, schema in changing:
                values[place] = schema.decode(values[place])
        except PayloadError:
            # One argument's schema does not know its name; that of all of them says it.
            if self.count > 1:
                self.struct.read(raw)
            raise
        return values

    def _named(self, refused: PayloadError, place: int) -> PayloadError:
        """Say which argument it was: its schema does not know its name."""
        name = self.parameters[place].name
        said = str(refused).removeprefix(f"{self.owner}: ").removeprefix("the value: ")
        fields = tuple(f"{name}.{field}" for field in refused.fields) or (name,)
        return PayloadError(f"{self.owner}: {name}: {said}", fields=fields, owner=self.owner)

    def _refusal(self, name: str, what: str) -> PayloadError:
        return PayloadError(f"{self.owner}: argument {name!r} {what}.", fields=(name,), owner=self.owner)


def _may_change(annotation: Any) -> bool:
    if annotation is Any or (isinstance(annotation, type) and issubclass(annotation, _UNCHANGING)):
        return False
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_may_change(choice) for choice in get_args(annotation))
    return annotation is not None and origin is not Literal


def _member(name: str) -> bytes:
    # Identifiers may be any letters, and what pydantic writes is UTF-8 as it stands.
    return json.dumps(name, ensure_ascii=False).encode() + b":"


def _schema(parameter: Parameter, owner: str) -> Schema[Any]:
    try:
        return Schema[Any](parameter.annotation, owner, remembers=True)
    except DefinitionError as refused:
        said = str(refused).removeprefix(f"{owner}: ")
        raise DefinitionError(f"{owner}: parameter {parameter.name!r}: {said}", owner=owner) from refused


def _check_default(parameter: Parameter, schema: Schema[Any], owner: str) -> None:
    if parameter.default is NOTHING:
        return
    try:
        schema.encode(schema.validate(parameter.default))
    except PayloadError as refused:
        # Found now, and not at the first call that leaves it out, which may be months away.
        raise DefinitionError(
            f"{owner}: the default of parameter {parameter.name!r}, {parameter.default!r}, does not fit its "
            f"annotation: {str(refused).removeprefix(f'{owner}: ')}",
            owner=owner,
        ) from refused
