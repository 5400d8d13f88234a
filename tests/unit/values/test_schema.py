"""Schemas: values of every kind of type go into JSON and come back as they were, or are refused with a reason."""

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import subprocess
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    SecretStr,
    SerializationInfo,
    ValidationInfo,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from perdure._values.schema import Schema
from perdure.errors import DefinitionError, PayloadError

OWNER = 'Activity "charge"'
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


class Tag(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str


class Order(BaseModel):
    order_id: str
    amount_cents: int = 0
    tags: set[str] = set()
    parent: "Order | None" = None


class Box(BaseModel, Generic[T]):
    content: T


class Measured(BaseModel):
    value: float
    maybe: float | None = None
    more: dict[str, Any] = {}


class Tags(RootModel[set[str]]):
    def __iter__(self) -> Any:
        return iter(self.root)


class Blob(BaseModel):
    data: bytes


class Base64Blob(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Aliased(BaseModel):
    both: int = Field(alias="Both")
    written: int = Field(1, serialization_alias="Written")
    read: int = Field(2, validation_alias="Read")


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field
    @property
    def area(self) -> int:
        return self.side**2


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclasses.dataclass
class Point:
    x: int
    raw: bytes = b""
    names: frozenset[str] = frozenset()


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    names: frozenset[str]


@pydantic_dataclass
class Checked:
    names: set[str]
    order: Order | None = None


class Struct(TypedDict):
    raw: bytes
    names: set[str]


class Pair(NamedTuple):
    raw: bytes
    names: frozenset[str] = frozenset()


WORDS = frozenset(["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"])

VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (type(None), None),
    (int, 2**80),
    (float, 0.1),
    (float, math.inf),
    (str, "ü\N{PACKAGE}\0"),
    (bool, True),
    (bytes, b"\xff\x00"),
    (list[bytes], [b"\xff"]),
    (dict[int, str], {1: "a"}),
    (tuple[int, str], (1, "a")),
    (set[int], {3, 1, 2}),
    (set[Tag], {Tag(name="a"), Tag(name="b")}),
    (frozenset[frozenset[str]], frozenset({frozenset({"a", "b"}), frozenset({"c"})})),
    (str | None, None),
    (int | str, "5"),
    (Literal["a", 1], 1),
    (Color, Color.BLUE),
    (list[Color], [Color.RED]),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(2026, 1, 2)),  # noqa: DTZ001 - naive ones come back naive
    (dt.date, dt.date(2026, 1, 2)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (uuid.UUID, uuid.UUID(int=7)),
    (Order, Order(order_id="1", parent=Order(order_id="0", tags={"x", "y"}))),
    (list[Order], [Order(order_id="1")]),
    (Box[int], Box[int](content=1)),
    (Box[Order], Box[Order](content=Order(order_id="1", tags={"b", "a"}))),
    (Order | Tag, Tag(name="x")),
    (Tags, Tags({"b", "a"})),
    (Base64Blob, Base64Blob(data=b"\xff")),
    (Blob, Blob(data=b"text")),
    (Aliased, Aliased(Both=1, written=2, Read=3)),
    (Closed, Closed(side=2)),
    (Open, Open(a=1, b=[2])),  # type: ignore[call-arg]
    (Point, Point(1, b"\xff", frozenset("ab"))),
    (Slotted, Slotted(frozenset("ab"))),
    (list[Point], [Point(1)]),
    (Checked, Checked({"a"}, Order(order_id="1"))),
    (Struct, {"raw": b"\xff", "names": {"a"}}),
    (Pair, Pair(b"\xff", frozenset("ab"))),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (Any, {"a": [1, None, "x", 0.5, True]}),
    (dict, {"a": [1]}),
    (list, [1, "a"]),
    (object, {"a": 1}),
    (Annotated[int, Field(gt=0)], 1),
]


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[f"{n}-{type_}" for n, (type_, _) in enumerate(VALUES)])
def test_a_value_comes_back_as_it_was(type_: Any, value: Any) -> None:
    """R10: live code and replay see the same; what is stored is JSON that any program reads."""
    schema = Schema(type_, OWNER)
    raw, back = schema.round_trip(value)
    assert back == value
    assert type(back) is type(value)
    assert schema.encode(back) == raw
    json.loads(raw, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper)
    a: int


class AliasedPair(NamedTuple):
    a: Annotated[int, Field(alias="A")]


@pydantic_dataclass
class AliasedClass:
    a: int = Field(alias="A")


class AliasedStruct(TypedDict):
    a: Annotated[int, Field(alias="A")]


class Surrounding(BaseModel):
    within: Generated


@pytest.mark.parametrize("type_", [Generated, AliasedPair, AliasedClass, AliasedStruct])
def test_a_value_is_read_by_its_names_and_by_its_aliases(type_: Any) -> None:
    schema = Schema(type_, OWNER)
    assert (
        schema.decode(b'{"a":1}') == schema.decode(b'{"A":1}') == schema.validate({"a": 1}) == schema.validate({"A": 1})
    )


@pytest.mark.parametrize(
    ("type_", "raw"),
    [
        (Surrounding, b'{"within":{"%b":1}}'),
        (list[Generated], b'[{"%b":1}]'),
        (dict[str, Generated | None], b'{"within":{"%b":1}}'),
    ],
)
def test_an_alias_far_inside_is_known(type_: Any, raw: bytes) -> None:
    schema = Schema(type_, OWNER)
    assert schema.decode(raw % b"a") == schema.decode(raw % b"A")


# Words by which pydantic calls parts of a schema that are none, and by which anybody may call a field.
WORDS = ("cls", "config", "default", "expected", "members", "metadata", "type")


@pytest.mark.parametrize("word", WORDS)
def test_a_field_may_have_any_name(word: str) -> None:
    """What is in it is looked at as what is in any other: its aliases are read, and its sets are sorted."""
    model = create_model("Outer", **{word: (Generated, ...), f"{word}_too": (set[str], ...)})
    schema = Schema(model, OWNER)
    assert schema.decode(b'{"%b":{"A":1},"%b_too":[]}' % (word.encode(), word.encode())) == schema.decode(
        b'{"%b":{"a":1},"%b_too":[]}' % (word.encode(), word.encode())
    )
    held = create_model("Held", **{word: (set[str], ...)})
    assert Schema(held, OWNER).encode(held(**{word: set("hgfedcba")})) == (
        b'{"%b":["a","b","c","d","e","f","g","h"]}' % word.encode()
    )


class Written(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    size: int = Field(default=0, serialization_alias="Size")


class WrittenInside(BaseModel):
    within: list[Written]
    tags: set[str] = set()


@pytest.mark.parametrize(
    "value", [Written(size=7), WrittenInside(within=[Written(size=7)]), WrittenInside(within=[], tags={"a"})]
)
def test_what_a_model_says_of_its_own_writing_does_not_lose_a_value(value: BaseModel) -> None:
    """The journal has the names of fields: an alias that is for writing only nobody could read."""
    schema = Schema(type(value), OWNER)
    raw, back = schema.round_trip(value)
    assert back == value
    assert b"Size" not in raw


@given(st.lists(st.builds(Order, order_id=st.text(), amount_cents=st.integers(), tags=st.sets(st.text()))))
def test_any_model_comes_back(orders: list[Order]) -> None:
    """R10."""
    assert ORDERS.round_trip(orders)[1] == orders


@given(st.floats() | st.lists(st.floats()))
def test_any_float_comes_back(value: Any) -> None:
    """Also those that JSON has no word for."""
    assert repr(FLOATS.round_trip(value)[1]) == repr(value)


ORDERS = Schema(list[Order], OWNER)
FLOATS = Schema(float | list[float], OWNER)


@pytest.mark.parametrize(
    ("type_", "value", "becomes"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (Order, {"order_id": "1"}, Order(order_id="1")),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Point, {"x": 1}, Point(1)),
        (dt.date, "2026-01-02", dt.date(2026, 1, 2)),
        (Any, (1, 2), [1, 2]),
    ],
)
def test_a_value_that_is_almost_of_the_type_is_made_so(type_: Any, value: Any, becomes: Any) -> None:
    """As pydantic does for what it reads: the body sees the annotated type."""
    assert Schema(type_, OWNER).round_trip(value)[1] == becomes


def test_a_model_that_was_changed_behind_pydantics_back_is_looked_at() -> None:
    """A model's fields are not validated when they are set."""
    order = Order(order_id="1")
    order.amount_cents = "5"  # type: ignore[assignment]
    assert Schema(Order, OWNER).round_trip(order)[1].amount_cents == 5
    order.amount_cents = "many"  # type: ignore[assignment]
    with pytest.raises(PayloadError) as refused:
        Schema(Order, OWNER).encode(order)
    assert refused.value.fields == ("amount_cents",)


@pytest.mark.parametrize(
    ("type_", "value", "field"),
    [
        (int, "many", None),
        (None, 3, None),
        (Order, {"order_id": 3}, "order_id"),
        (list[Order], [{"order_id": "1"}, {}], "1.order_id"),
        (dict[str, list[int]], {"a": [1, "x"]}, "a.1"),
        (Any, object(), None),
    ],
)
def test_a_value_of_another_type_is_refused_by_owner_and_field(type_: Any, value: Any, field: str | None) -> None:
    """An error names whose schema and which field."""
    with pytest.raises(PayloadError) as refused:
        Schema(type_, OWNER).encode(value)
    assert refused.value.owner == OWNER
    assert str(refused.value).startswith(OWNER)
    assert refused.value.fields == (() if field is None else (field,))
    assert (field or "value") in str(refused.value)


def test_the_value_itself_is_not_in_the_message() -> None:
    """It goes to logs, and payloads hold what must not go there."""
    with pytest.raises(PayloadError) as refused:
        Schema(Order, OWNER).validate({"order_id": ["4111-1111"]})
    assert "4111" not in str(refused.value)


@pytest.mark.parametrize(
    ("type_", "value", "said"),
    [(Annotated[int, Field(gt=0)], -1, "greater than 0"), (Literal["a"], "b", "should be 'a'")],
)
def test_a_result_that_its_type_would_not_read_is_refused(type_: Any, value: Any, said: str) -> None:
    """R10: pydantic checks neither when it writes, but what replay could not read must not be recorded."""
    with pytest.raises(PayloadError, match=said):
        Schema(type_, OWNER).round_trip(value)


@pytest.mark.parametrize("raw", [b"", b"{", b'"x"', b"null", b"[1", b"\xff", b"NaN"])
def test_bytes_that_are_not_of_the_type_are_refused(raw: bytes) -> None:
    """R40."""
    with pytest.raises(PayloadError, match="charge"):
        Schema(int, OWNER).decode(raw)


def test_what_users_validators_and_serializers_raise_is_refused_too() -> None:
    """R40: a KeyError in a validator must hold one execution and not end the engine."""

    class Rough(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def look_up(cls, name: str, info: ValidationInfo) -> str:
            if name == "x":
                raise KeyError(name)
            return name

        @field_serializer("name")
        def refuse(self, name: str) -> str:
            if name == "y":
                raise LookupError(name)
            return name

    schema = Schema(Rough, OWNER)
    with pytest.raises(PayloadError, match="KeyError"):
        schema.decode(b'{"name":"x"}')
    with pytest.raises(PayloadError, match="KeyError"):
        schema.validate({"name": "x"})
    with pytest.raises(PayloadError, match="LookupError"):
        schema.encode(Rough(name="y"))


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(PayloadError, match="Circular"):
        Schema(Any, OWNER).encode(circle)


def test_bytes_in_a_model_without_configuration_say_what_to_set() -> None:
    """A model's own configuration stands."""
    with pytest.raises(PayloadError, match="ser_json_bytes="):
        Schema(Blob, OWNER).encode(Blob(data=b"\xff"))


@pytest.mark.parametrize("type_", [str, Any, Order | str])
def test_half_a_surrogate_pair_is_refused_in_words(type_: Any) -> None:
    with pytest.raises(PayloadError, match="surrogate"):
        Schema(type_, OWNER).encode("half \ud800")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("type_", "make", "field"),
    [
        (Measured, lambda number: Measured(value=number), "value"),
        (Measured, lambda number: Measured(value=1, maybe=number), "maybe"),
        (Measured, lambda number: Measured(value=1, more={"x": [0, number]}), "more.x.1"),
        (list[Measured], lambda number: [Measured(value=1, maybe=number)], "0.maybe"),
        (Any, lambda number: {"a": number}, "a"),
        (Open, lambda number: Open(a=number), "a"),
        (Any, lambda number: Measured(value=1, maybe=number), "maybe"),
        (float | str, lambda number: number, None),
    ],
    ids=["model", "optional field", "nested", "list", "any", "open model", "model as any", "union"],
)
def test_a_float_that_would_come_back_as_something_else_is_refused(
    number: float, type_: Any, make: Any, field: str | None
) -> None:
    """pydantic writes null in a model, and a string where there is no schema, without a word."""
    with pytest.raises(PayloadError) as refused:
        Schema(type_, OWNER).round_trip(make(number))
    assert refused.value.fields == (() if field is None else (field,))


def test_texts_that_look_like_lost_values_are_none() -> None:
    """The check for lost floats and secrets must not take away what is fine."""
    value = {"a": "NaN", "b": None, "c": "-Infinity", "d": "**********"}
    assert Schema(Any, OWNER).round_trip(value)[1] == value
    assert Schema(Measured, OWNER).round_trip(Measured(value=1, more=value))[1].more == value


def test_a_secret_is_refused() -> None:
    """pydantic writes stars, and stars would come back."""

    class Login(BaseModel):
        password: SecretStr

    with pytest.raises(PayloadError, match="secret") as refused:
        Schema(Login, OWNER).encode(Login(password=SecretStr("x")))
    assert refused.value.fields == ("password",)


SETS = """
from tests.unit.values import test_schema as t
from perdure._values.schema import Schema
from perdure._values.struct import StructSchema
W = set(t.WORDS)
order = t.Order(order_id="1", tags=W, parent=t.Order(order_id="0", tags=W))
for type_, value in [
    (set[str], W), (t.Order, order), (list[t.Order], [order]), (t.Box[t.Order], t.Box[t.Order](content=order)),
    (t.Tags, t.Tags(W)), (t.Point, t.Point(1, names=frozenset(W))), (t.Slotted, t.Slotted(frozenset(W))),
    (t.Checked, t.Checked(W, order)), (t.Struct, {"raw": b"", "names": W}), (t.Pair, t.Pair(b"", frozenset(W))),
    (dict[str, set[str]], {"a": W}), (t.Any, [{"a": W}, (W, 1), order]), (t.Open, t.Open(names=W)),
    (set[t.Tag], {t.Tag(name=word) for word in W}), (set[frozenset[str]], {frozenset(W), frozenset("abc")}),
    (set[int | str], W | {1, 2}), (t.Order | t.Tag, order), (t.Mapping[int, set[str]], {3: W, 1: W}),
]:
    print(Schema(type_, "A").encode(value))
print(StructSchema({"names": set[str]}, "A").encode({"names": W}))
"""


def test_sets_are_encoded_alike_in_every_process() -> None:
    """R2: whatever the hash seed, and wherever the set stands."""
    written = {
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(written) == 1
    (lines,) = written
    assert lines.splitlines()[0] == str(json.dumps(sorted(WORDS), separators=(",", ":")).encode())
    assert len(lines.splitlines()) == 19


def test_equal_bytes_or_equal_values_are_the_same() -> None:
    """R2."""
    schema = Schema(Order, OWNER)
    assert schema.same(b'{"order_id":"1"}', b'{"order_id":"1"}')
    assert schema.same(b'{"order_id":"1"}', b'{"order_id":"1","amount_cents":0,"tags":[]}')
    assert schema.same(b'{"order_id":"1","tags":["a","b"]}', b'{"tags":["b","a"],"order_id":"1"}')
    assert not schema.same(b'{"order_id":"1"}', b'{"order_id":"2"}')


def test_bytes_that_cannot_be_read_are_the_same_as_nothing_else() -> None:
    """R2, R40."""
    assert not Schema(int, OWNER).same(b'"x"', b"1")
    assert Schema(int, OWNER).same(b'"x"', b'"x"')


def test_differing_fields_are_named() -> None:
    """R2: the warning names them."""
    schema = Schema(Order, OWNER)
    assert schema.differing_fields(b'{"order_id":"1","amount_cents":5}', b'{"order_id":"2"}') == (
        "order_id",
        "amount_cents",
    )
    nested = b'{"order_id":"1","parent":{"order_id":"%s"}}'
    assert schema.differing_fields(nested % b"a", nested % b"b") == ("parent.order_id",)
    assert schema.differing_fields(b'{"order_id":"1"}', b'{"order_id":"1","tags":[]}') == ()
    assert Schema(int, OWNER).differing_fields(b"1", b"2") == ("",)
    assert Schema(Order, OWNER).differing_fields(b'{"gone":1,"order_id":3}', b'{"order_id":"3"}')[0] == "gone"


class Unknown:
    pass


@pytest.mark.parametrize(
    "type_", [Unknown, list[Unknown], "Nowhere", type("X", (), {})()], ids=["class", "list", "text", "object"]
)
def test_a_type_that_pydantic_cannot_handle_is_refused_with_its_owner(type_: Any) -> None:
    """At the definition, and not when the first execution ends."""
    with pytest.raises(DefinitionError) as refused:
        Schema(type_, OWNER)
    assert refused.value.owner == OWNER
    assert "\n" not in str(refused.value)


def test_a_dataclass_keeps_a_configuration_of_its_own() -> None:
    """Ours is for types that have none."""

    @pydantic_dataclass(config=ConfigDict(ser_json_bytes="hex", val_json_bytes="hex"))
    class Hex:
        data: bytes

    assert Schema(Hex, OWNER).round_trip(Hex(b"\xff")) == (b'{"data":"ff"}', Hex(b"\xff"))


@pytest.mark.parametrize(
    ("type_", "value", "said"),
    [
        (int, "four", "Input should be a valid integer, unable to parse string as an integer"),
        (list[int], [1, "four"], "1: Input should be a valid integer, unable to parse string as an integer"),
        (Any, object(), "cannot be written as JSON: PydanticSerializationError"),
        (dict[str, Any], {"a": SecretStr("x")}, "a: a secret is not stored"),
    ],
    ids=["value", "field", "unwritable", "lost"],
)
def test_a_refusal_says_what_the_value_is_to_its_owner(type_: Any, value: Any, said: str) -> None:
    """A return value, a payload: who reads it must know where to look."""
    with pytest.raises(PayloadError) as caught:
        Schema(type_, OWNER, "the return value").encode(value)
    assert str(caught.value).startswith(f"{OWNER}: the return value: {said}")


@pytest.mark.parametrize("type_", [int, str, Any, list[int]], ids=str)
def test_a_forgotten_await_is_called_so(type_: Any) -> None:
    """`return charge(n)` instead of `return await charge(n)`."""

    async def charge() -> int:
        return 1

    forgotten = charge()
    with pytest.raises(PayloadError, match=r"the return value: a forgotten await: .*'charge'.*`await charge\(...\)`"):
        Schema(type_, OWNER, "the return value").encode(forgotten)
    forgotten.close()


def test_a_type_that_cannot_be_stored_gets_no_advice_that_does_not_help() -> None:
    """pydantic's own speaks of a setting of models."""
    with pytest.raises(DefinitionError, match=r"the return value: .*OddThing.* cannot be stored") as caught:
        Schema(type("OddThing", (), {}), OWNER, "the return value")
    assert "arbitrary_types_allowed" not in str(caught.value)


def _as_text(number: int, info: SerializationInfo) -> str:
    return f"{number}" if info.round_trip else "not for journals"


class Flavor(enum.StrEnum):
    SWEET = "sweet"


class Loud(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("type_", "value", "raw"),
    [
        (int, 5, b"5"),
        (int, True, b"1"),
        (int, "5", b"5"),
        (str, "five", b'"five"'),
        (str, Flavor.SWEET, b'"sweet"'),
        (str, Loud("loud"), b'"loud"'),
        (bool, True, b"true"),
        (bool, 1, b"true"),
        (type(None), None, b"null"),
        (Annotated[int, PlainSerializer(_as_text)], 5, b'"5"'),
    ],
    ids=[
        "int",
        "bool as int",
        "text as int",
        "str",
        "enum as str",
        "subclass",
        "bool",
        "int as bool",
        "None",
        "own serializer",
    ],
)
def test_what_is_of_a_plain_type_is_written_at_once_and_the_rest_is_looked_at(
    type_: Any, value: Any, raw: bytes
) -> None:
    """The short way is for exactly these types; a subclass, or a type with a serializer of its own, takes the long one."""
    schema = Schema(type_, OWNER)
    # Outside of tests pydantic's complaints are not errors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert schema.encode(value) == raw
        assert schema.encode(schema.decode(raw)) == raw
