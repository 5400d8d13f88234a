"""Where nothing can be wrong with a value: models that hold what their fields say, to the very class.

pydantic lets anybody put anything into a model behind its back, so a serializer has to be asked to complain. Asking
takes longer than writing: pydantic-core makes an exception and throws it away before it knows what "error" means. To
look at the classes of what a model holds takes half of that. What fits here a serializer writes without complaint,
in the same bytes; what does not fit is for the serializer to judge.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

__all__ = ["Written", "fits_of", "taken_as_it_is"]

# Core schemas whose serializer has nothing to say of exactly this class, whatever else they ask of a value.
_CLASSES: Final[dict[str, type]] = {
    "bool": bool,
    "date": date,
    "datetime": datetime,
    "decimal": Decimal,
    "float": float,
    "int": int,
    "none": type(None),
    "str": str,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
}

_NO_CLASSES: Final[frozenset[type]] = frozenset()


def fits_of(schema: Any) -> Callable[[object], bool] | None:
    """Give what tells whether a value is of exactly this schema's classes; None where that is not so easily told."""
    fields = _plain_fields(schema)
    if not fields:
        return None
    choices = tuple((name, _choices(field["schema"])) for name, field in fields.items())
    if not all(classes for _, classes in choices):
        return None
    model, count = schema["cls"], len(fields)

    def fits(value: object) -> bool:
        if type(value) is not model:
            return False
        held = value.__dict__
        if len(held) != count:
            return False
        try:
            # One by one: half of what `tuple(map(type, ...))` takes, which has to be made and hashed.
            for name, classes in choices:
                if type(held[name]) not in classes:
                    return False
        except KeyError:  # made by `model_construct`, or by deleting: another field stands there
            return False
        return True

    return fits


class Written:
    """A model that fits, and what was written for it.

    Of the classes that fit nothing can be changed, so as long as it holds the very same things its bytes are the same.
    Equal ones would not do: of `1` and `True`, or of two `Decimal`, the bytes differ.
    """

    __slots__ = ("_held", "_names", "raw", "value")

    def __init__(self, value: object, raw: bytes) -> None:
        self.value = value
        self.raw = raw
        held = value.__dict__
        # In their order, which is that of the bytes.
        self._names, self._held = tuple(held), tuple(held.values())

    def is_unchanged(self) -> bool:
        """Whether the model holds what it held when it was written."""
        now = self.value.__dict__
        if tuple(now) != self._names:
            return False
        for then, field in zip(self._held, now.values()):  # noqa: B905, SIM110 - as many as names; `all` takes twice as long
            if field is not then:
                return False
        return True


def taken_as_it_is(schema: Any) -> type | None:
    """The model whose own instances its validator passes unlooked at; None if this is no such schema."""
    plain = (
        schema["type"] == "model"
        and not schema.get("root_model")
        and not schema.get("custom_init")
        and schema.get("revalidate_instances", schema.get("config", {}).get("revalidate_instances", "never")) == "never"
    )
    return schema["cls"] if plain else None


def _plain_fields(schema: Any) -> dict[str, Any] | None:
    """The fields of a model that is written as they stand in it: no root, no extras, no serializer of anybody's own."""
    inner = schema.get("schema")
    plain = (
        schema["type"] == "model"
        and "serialization" not in schema
        and not schema.get("root_model")
        and inner["type"] == "model-fields"
        and "serialization" not in inner
        and not inner.get("computed_fields")
        and "allow" not in (inner.get("extra_behavior"), schema.get("config", {}).get("extra_fields_behavior"))
    )
    return inner["fields"] if plain else None


def _choices(schema: Any) -> frozenset[type]:
    """The classes that a field may have; none if it says more than that."""
    if "serialization" in schema:
        return _NO_CLASSES
    if schema["type"] == "default":
        return _choices(schema["schema"])
    if schema["type"] == "nullable":
        inner = _choices(schema["schema"])
        return inner | {type(None)} if inner else inner
    found = _CLASSES.get(schema["type"])
    return _NO_CLASSES if found is None else frozenset({found})
