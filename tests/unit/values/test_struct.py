"""Structs: several named values as one payload."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from perdure._values.struct import Fields, StructSchema, field_values
from perdure.errors import DefinitionError, PayloadError

EMAIL = StructSchema({"to": str, "copies": int}, 'Workflow "SendEmail"', defaults={"copies": 1})


@pytest.mark.parametrize(
    "given", [{"to": "ada", "copies": 1}, {"copies": "1", "to": "ada"}, {"to": "ada"}, SimpleNamespace(to="ada"),
              Fields({"to": "ada"})],
    ids=["mapping", "another order", "default", "object", "fields"],
)  # fmt: skip
def test_a_struct_is_given_in_many_ways_and_encoded_in_one(given: Any) -> None:
    """R2: a second start with the same values joins, however they were written."""
    raw, value = EMAIL.round_trip(given)
    assert raw == b'{"to":"ada","copies":1}'
    assert value == Fields({"to": "ada", "copies": 1})
    assert EMAIL.validate(given) == value


@pytest.mark.parametrize(
    ("given", "fields"),
    [({}, ("to",)), ({"to": "a", "cc": "b"}, ("cc",)), ({"to": "a", "copies": "many"}, ("copies",)), (3, ("to",))],
)
@pytest.mark.parametrize("method", ["encode", "validate"])
def test_what_does_not_fit_is_refused_by_field(given: Any, fields: tuple[str, ...], method: str) -> None:
    """Section 2: PayloadError names the field."""
    with pytest.raises(PayloadError) as refused:
        getattr(EMAIL, method)(given)
    assert refused.value.fields == fields
    assert refused.value.owner == 'Workflow "SendEmail"'
    assert all(field in str(refused.value) for field in fields)


@pytest.mark.parametrize("raw", [b'{"to":"a","cc":"b"}', b"{}", b'{"to":3}', b"[]", b"no json", b""])
def test_bytes_that_do_not_fit_are_refused(raw: bytes) -> None:
    """R40."""
    with pytest.raises(PayloadError):
        EMAIL.decode(raw)


def test_what_was_recorded_before_a_field_existed_gets_its_default() -> None:
    """Code may grow a parameter while executions run; each of them gets a default of its own."""
    schema = StructSchema({"to": str, "tags": list[str]}, "W", defaults={"tags": []})
    first = schema.decode(b'{"to":"ada"}')
    first.tags.append("x")
    assert schema.decode(b'{"to":"ada"}') == Fields({"to": "ada", "tags": []})
    assert schema.same(b'{"to":"ada"}', b'{"to":"ada","tags":[]}')
    assert schema.differing_fields(b'{"to":"ada"}', b'{"to":"bob","tags":[]}') == ("to",)


def test_a_struct_without_fields_is_one() -> None:
    """A workflow may have no parameters."""
    raw, value = StructSchema({}, "W").round_trip({})
    assert raw == b"{}"
    assert len(value) == 0


def test_fields_are_read_by_attribute_and_by_item() -> None:
    """Section 2: `lambda p: p.to`."""
    payload = Fields({"to": "ada", "n": 2})
    assert (payload.to, payload["to"], "to" in payload, "x" in payload) == ("ada", "ada", True, False)
    assert dict(payload) == {**payload} == field_values(payload) == {"to": "ada", "n": 2}
    assert list(payload.items()) == [("to", "ada"), ("n", 2)]
    assert repr(payload) == "Fields(to='ada', n=2)"


def test_a_field_wins_over_a_method() -> None:
    """Orders have items."""
    payload = StructSchema({"items": list[int], "keys": str, "get": int}, "W").decode(
        b'{"items":[1],"keys":"k","get":2}'
    )
    assert (payload.items, payload.keys, payload.get) == ([1], "k", 2)
    assert field_values(payload) == {"items": [1], "keys": "k", "get": 2}


def test_fields_cannot_be_changed() -> None:
    """The body and its idempotency key see the same payload."""
    payload = Fields({"to": "ada"})
    for change in (
        lambda: setattr(payload, "to", "b"),
        lambda: delattr(payload, "to"),
        lambda: setattr(payload, "x", 1),
    ):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(TypeError):
        payload["to"] = "b"  # type: ignore[index]
    with pytest.raises(AttributeError, match="there are: to"):
        _ = payload.too


def test_fields_copy_and_compare() -> None:
    """As values do."""
    payload = Fields({"to": ["ada"]})
    assert copy.copy(payload) == copy.deepcopy(payload) == payload
    assert copy.deepcopy(payload).to is not payload.to
    assert payload != {"to": ["ada"]}
    assert hash(Fields({"a": 1, "b": 2})) == hash(Fields({"b": 2, "a": 1}))


def test_a_type_that_cannot_be_stored_names_its_owner() -> None:
    """At the definition."""
    with pytest.raises(DefinitionError, match="SendEmail"):
        StructSchema({"lock": Fields}, 'Workflow "SendEmail"')


def test_a_field_that_cannot_be_stored_is_named() -> None:
    """And not the class that is made of the fields, which nobody has written."""
    odd = type("OddThing", (), {})
    with pytest.raises(DefinitionError, match=r"""SendEmail": field 'lock': .*OddThing.* cannot be stored""") as caught:
        StructSchema({"to": str, "lock": odd}, 'Workflow "SendEmail"')
    assert "Struct" not in str(caught.value)
    assert caught.value.owner == 'Workflow "SendEmail"'
