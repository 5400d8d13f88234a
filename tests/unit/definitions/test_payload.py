"""A payload is recorded by FastAPI's rule: a single struct is its fields, anything else an object of the parameters."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, Field, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from perdure import PayloadError
from perdure._definitions.payload import Payload, payload_of, payload_of_fields
from perdure._definitions.signature import read_signature


class Order(BaseModel):
    order_id: str
    copies: int = 1


@dataclass
class Shipment:
    address: str
    copies: int = 1


@pydantic_dataclass
class Parcel:
    address: str
    copies: int = 1


class Refund(TypedDict):
    charge_id: str


class Point(NamedTuple):
    x: int
    y: int


class Numbers(RootModel[list[int]]):
    pass


class Page(BaseModel):
    items: list[int] = Field(default_factory=list)


def payload(function: Any) -> Payload:
    return payload_of(read_signature(function, "It").parameters, "It")


def taking(annotation: Any) -> Payload:
    def body(it): ...

    body.__annotations__ = {"it": annotation}
    return payload(body)


STRUCTS = {
    "model": (Order, Order(order_id="a"), {"order_id": "a", "copies": 1}),
    "annotated model": (Annotated[Order, "note"], Order(order_id="a"), {"order_id": "a", "copies": 1}),
    "dataclass": (Shipment, Shipment("here"), {"address": "here", "copies": 1}),
    "pydantic dataclass": (Parcel, Parcel("here"), {"address": "here", "copies": 1}),
    "typed dict": (Refund, {"charge_id": "c"}, {"charge_id": "c"}),
}
OTHERS = {
    "text": (str, "x", "x"),
    "list": (list[Order], [Order(order_id="a")], [{"order_id": "a", "copies": 1}]),
    "optional model": (Order | None, None, None),
    "named tuple": (Point, Point(1, 2), [1, 2]),
    "root model": (Numbers, Numbers([1, 2]), [1, 2]),
    "dict": (dict[str, int], {"a": 1}, {"a": 1}),
    "anything": (Any, {"a": [1]}, {"a": [1]}),
}


@pytest.mark.parametrize("kind", STRUCTS)
def test_a_single_struct_is_recorded_as_its_fields(kind: str):
    annotation, value, fields = STRUCTS[kind]
    encoded = taking(annotation).encode((value,), {})
    assert json.loads(encoded.raw) == fields
    assert encoded.args == (value,)
    assert taking(annotation).decode(encoded.raw) == ((value,), {})


@pytest.mark.parametrize("kind", OTHERS)
def test_anything_else_is_recorded_under_the_name_of_its_parameter(kind: str):
    annotation, value, plain = OTHERS[kind]
    encoded = taking(annotation).encode((value,), {})
    assert json.loads(encoded.raw) == {"it": plain}
    assert taking(annotation).decode(encoded.raw) == ((value,), {})


def test_several_parameters_are_one_object_structs_among_them_too():
    def body(order: Order, note: str = "none"): ...

    encoded = payload(body).encode((Order(order_id="a"),), {})
    assert json.loads(encoded.raw) == {"order": {"order_id": "a", "copies": 1}, "note": "none"}
    assert payload(body).decode(encoded.raw) == ((Order(order_id="a"), "none"), {})


def test_parameters_by_keyword_come_back_by_keyword():
    def body(first: int, *, second: int = 2): ...

    encoded = payload(body).encode((1,), {})
    assert (encoded.args, encoded.kwargs) == ((1,), {"second": 2})

    def struct(*, order: Order): ...

    encoded = payload(struct).encode((), {"order": Order(order_id="a")})
    assert (encoded.args, encoded.kwargs) == ((), {"order": Order(order_id="a")})


def test_no_parameters_are_an_empty_object():
    def body(): ...

    assert payload(body).encode((), {}) == (b"{}", (), {})


def test_a_mapping_of_fields_gives_the_body_one_read_only_object():
    encoded = payload_of_fields({"to": str, "copies": int}, "It").encode(({"to": "ada", "copies": "2"},), {})
    (fields,) = encoded.args
    assert (fields.to, fields["copies"]) == ("ada", 2)
    assert json.loads(encoded.raw) == {"to": "ada", "copies": 2}


@pytest.mark.parametrize(
    ("given", "field"),
    [({"to": 3}, "to"), ({}, "to"), ({"to": "ada", "cc": "bob"}, "cc"), ({"to": "a\ud800"}, None)],
)
def test_a_field_that_is_refused_is_named(given, field: str | None):
    with pytest.raises(PayloadError, match=field or "surrogate") as refused:
        payload_of_fields({"to": str}, "It").encode((given,), {})
    assert refused.value.fields == ((field,) if field else ())


def test_a_constraint_holds_for_what_a_caller_passes():
    """The serializer does not know constraints; the payload must be refused before it is stored all the same."""

    def body(count: Annotated[int, Field(ge=0)], page: Page): ...

    with pytest.raises(PayloadError) as refused:
        payload(body).encode((-1, Page()), {})
    assert refused.value.fields == ("count",)

    def struct(order: Annotated[Order, Field(description="x")]): ...

    with pytest.raises(PayloadError):
        payload(struct).encode((Order.model_construct(order_id=3),), {})


def test_arguments_come_from_the_bytes_so_that_the_key_is_that_of_the_record():
    given = Order(order_id="a")
    encoded = taking(Order).encode((given,), {})
    assert encoded.args[0] == given
    assert encoded.args[0] is not given


def test_an_older_payload_is_read_with_the_defaults_of_today():
    """R40: only what today's types cannot read is unreadable."""

    def body(to: str, subject: str = "hi"): ...

    assert payload(body).decode(b'{"to":"ada"}') == (("ada", "hi"), {})
    with pytest.raises(PayloadError):
        payload(body).decode(b'{"subject":"hi"}')


def test_payloads_that_mean_the_same_do_not_differ():
    """R2: the same means equal bytes, or equal once decoded with today's types."""

    def body(to: str, subject: str = "hi"): ...

    assert payload(body).differing_fields(b'{"to":"ada"}', b'{"to":"ada","subject":"hi"}') == ()
    assert payload(body).differing_fields(b'{"to":"ada"}', b'{"to":"bob","subject":"hi"}') == ("to",)
    assert taking(Order).differing_fields(b'{"order_id":"a"}', b'{"order_id":"b","copies":2}') == ("order_id", "copies")
    assert payload(body).differing_fields(b"no json", b'{"to":"ada","subject":"hi"}') != ()


@pytest.mark.parametrize(
    ("taken", "meant"),
    [
        (payload_of_fields({"to": str, "copies": int}, 'Workflow "It"'), 'start({"to": ..., "copies": ...})'),
        (payload_of_fields({}, 'Workflow "It"'), 'start({"to": ..., "copies": ...})'),
        (taking(Order), "start(Order(to=..., copies=...))"),
        (taking(Annotated[Shipment, "x"]), "start(Shipment(to=..., copies=...))"),
        (taking(Refund), "start(Refund(to=..., copies=...))"),
    ],
    ids=["mapping", "nothing", "model", "annotated", "typeddict"],
)
def test_fields_that_come_as_arguments_are_shown_their_place(taken: Payload, meant: str):
    with pytest.raises(PayloadError, match="no parameter 'to'") as caught:
        taken.encode((), {"to": "a secret", "copies": 3})
    assert meant in str(caught.value)
    assert "a secret" not in str(caught.value)
    assert caught.value.fields == ("to", "copies")


def test_a_single_struct_can_be_given_by_the_name_of_its_parameter():
    assert taking(Order).encode((), {"it": Order(order_id="a")}).raw == b'{"order_id":"a","copies":1}'


def test_a_refused_field_is_one_of_the_payload():
    with pytest.raises(PayloadError, match=r'^Workflow "It": the payload: to: Input should be a valid string'):
        payload_of_fields({"to": str}, 'Workflow "It"').encode(({"to": 3},), {})
