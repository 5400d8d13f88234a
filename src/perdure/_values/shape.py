"""Where nothing can be wrong with a value: models that hold what their fields say, to the very class.

pydantic lets anybody put anything into a model behind its back, so a serializer has to be asked to complain. Asking
takes longer than writing: pydantic-core makes an exception and throws it away before it knows what "error" means. To
look at the classes of what a model holds takes half of that. What fits here a serializer writes without complaint,
in the same bytes; what does not fit is for the serializer to judge.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

__all__ = ["Recent", "fits_of", "taken_as_it_is"]

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

# How many models of one schema are remembered, and of how many bytes each: a megabyte or two with what they hold.
_MOST: Final = 512
_LONGEST: Final = 1024

_EXCLUDING: Final = frozenset({"serialization_exclude", "serialization_exclude_if"})
# Where an object lies, as a key. `id` is an audited event: where a process listens to those, as a store does to keep
# others off its file, each call of it takes as long as half of what is to be saved here.
_address: Final = object.__hash__
# Under which names a model held what, in their order, which is that of the bytes; and these.
_Written: TypeAlias = tuple[list[str], list[object], bytes]
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


class Recent:
    """What was written of late for models that fit.

    A body gives the same order to one step after the other, and between two of them a hundred other bodies give theirs.

    Of the classes that fit nothing can be changed, so as long as a model holds the very same things its bytes are the
    same. Equal ones would not do: of `1` and `True`, or of two `Decimal`, the bytes differ.
    """

    __slots__ = ("_last", "_model", "_written")

    def __init__(self, model: type) -> None:
        self._model = model
        # The model that was noted last, and what is said of it below: executions that are replayed one after the other
        # ask for no other, and to look for it takes a third of knowing that it is unchanged.
        self._last: tuple[object, _Written | None] = None, None
        # By the address of a model. Not with the model, which may come to hold anything, in hundreds of pieces. Another
        # that lies there later and holds the very same has the same bytes; and one that does not is found out as one
        # that was changed is.
        self._written: dict[int, _Written] = {}

    def raw_of(self, value: Any) -> bytes | None:
        """Give what was written for this model; None if nothing was, or it holds anything else by now."""
        model, written = self._last
        if value is not model:
            written = self._written.get(_address(value))
        if written is None or type(value) is not self._model:
            return None
        names, held, raw = written
        now = value.__dict__
        if [*now] != names:
            return None
        place = 0
        for field in now.values():
            if field is not held[place]:
                return None
            place += 1  # noqa: SIM113 - `enumerate` takes a third longer, `zip` and `map` half
        return raw

    def note(self, value: object, raw: bytes) -> None:
        """Remember what was written for a model that fits, unless it is long."""
        if len(raw) > _LONGEST:
            return
        if len(self._written) >= _MOST:
            # All of them: to look for the oldest takes as long as writing it, and where more bodies take turns than
            # there is room for, it would be done for every one.
            self._written.clear()
        held = value.__dict__
        self._written[_address(value)] = written = [*held], [*held.values()], raw
        self._last = value, written


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
    """The fields of a model that is written as they all stand in it: no root, no extras, nobody's own serializer."""
    inner = schema.get("schema")
    plain = (
        schema["type"] == "model"
        and "serialization" not in schema
        and not schema.get("root_model")
        and inner["type"] == "model-fields"
        and "serialization" not in inner
        and not inner.get("computed_fields")
        # What is held and not written may be of any size.
        and not any(field.keys() & _EXCLUDING for field in inner["fields"].values())
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
