"""Where nothing can be wrong with a value: models that hold what their fields say, to the very class.

pydantic lets anybody put anything into a model behind its back, so a serializer has to be asked to complain. Asking
takes longer than writing: pydantic-core makes an exception and throws it away before it knows what "error" means. To
look at the classes of what a model holds takes half of that. What fits here a serializer writes without complaint,
in the same bytes; what does not fit is for the serializer to judge.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from math import prod
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

__all__ = ["fits_of", "taken_as_it_is"]

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

_MOST_SHAPES: Final = 64  # a model of more optional fields than six is left to its serializer


def fits_of(schema: Any) -> Callable[[object], bool] | None:
    """Give what tells whether a value is of exactly this schema's classes; None where that is not so easily told."""
    fields = _plain_fields(schema)
    if fields is None or len(fields) < 2:
        return None  # `itemgetter` gives a tuple from two on
    choices = [_choices(field["schema"]) for field in fields.values()]
    if not 0 < prod(map(len, choices)) <= _MOST_SHAPES:
        return None
    shapes = frozenset(product(*choices))
    model, count, take = schema["cls"], len(fields), itemgetter(*fields)

    def fits(value: object) -> bool:
        if type(value) is not model:
            return False
        held = value.__dict__
        try:
            return len(held) == count and tuple(map(type, take(held))) in shapes
        except KeyError:  # made by `model_construct`, or by deleting: another field stands there
            return False

    return fits


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


def _choices(schema: Any) -> tuple[type, ...]:
    """The classes that a field may have; none if it says more than that."""
    if "serialization" in schema:
        return ()
    if schema["type"] == "default":
        return _choices(schema["schema"])
    if schema["type"] == "nullable":
        inner = _choices(schema["schema"])
        return (*inner, type(None)) if inner else ()
    found = _CLASSES.get(schema["type"])
    return () if found is None else (found,)
