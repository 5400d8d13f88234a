"""One order for sets in JSON bytes, whatever the process's hash seed (R2).

pydantic writes a set in the order of its iteration, which differs between processes for strings, and a step's key
and the comparison of payloads look at bytes. The bytes are therefore read again beside the value that they came
from: whatever is a set there is a list here, in the very order of that set's iteration, so that parts pair up.

Rewriting the core schema with sorting serializers was tried and does not reach models: pydantic-core serializes
a class with the serializer that the class holds already, whatever schema it is given.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from pydantic import BaseModel, RootModel
from pydantic_core import from_json, to_json

__all__ = ["parts", "with_sets_sorted"]

_SETS: Final[tuple[type, ...]] = (set, frozenset)
_SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None), bytes})


def with_sets_sorted(value: object, raw: bytes) -> bytes:
    """Give the bytes of a value with its sets sorted; the bytes as they are if it holds none."""
    return to_json(_sorted_beside(value, from_json(raw))) if _holds_set(value) else raw


def parts(value: object) -> Iterator[tuple[Any, Any]]:
    """Give the items of a mapping, list, tuple or set, and the fields of a model or dataclass, each with its name."""
    if isinstance(value, Mapping):
        yield from cast("Mapping[Any, Any]", value).items()
    elif isinstance(value, (list, tuple, *_SETS)):
        yield from enumerate(cast("Iterable[Any]", value))
    elif isinstance(value, BaseModel):
        # Not by iterating over it: models of one list are often made to iterate over that list.
        yield from vars(value).items()
        yield from (value.model_extra or {}).items()
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)


def _holds_set(value: Any) -> bool:
    """Tell whether there is an order to settle: a set of more than one, anywhere in the value."""
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) in _SCALARS:
            continue
        children = [child for _, child in parts(item)]
        if len(children) > 1 and isinstance(item, _SETS):
            return True
        waiting += children
    return False


def _sorted_beside(value: object, plain: Any) -> Any:
    """Sort what is a list in the JSON and a set in the value; where the two have no like shape, leave it alone."""
    if isinstance(value, RootModel):
        return _sorted_beside(cast("RootModel[Any]", value).root, plain)
    if isinstance(plain, dict):
        return _members_beside(value, cast("dict[str, Any]", plain))
    if not isinstance(plain, list):
        return plain
    items = cast("list[Any]", plain)
    beside = list(parts(value))
    if len(beside) != len(items):
        return items
    items = [_sorted_beside(item, written) for (_, item), written in zip(beside, items, strict=True)]
    return _sorted(items) if isinstance(value, _SETS) else items


def _members_beside(value: object, plain: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        # By position: a key such as 1 or a date is written as a string.
        items: list[Any] = list(cast("Mapping[Any, Any]", value).values())
        if len(items) != len(plain):
            return plain
        return {name: _sorted_beside(item, plain[name]) for name, item in zip(plain, items, strict=True)}
    fields = dict(parts(value))
    return {name: _sorted_beside(fields.get(name), written) for name, written in plain.items()}


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:  # of different types, or objects: any order will do that every process agrees on
        return sorted(items, key=to_json)
