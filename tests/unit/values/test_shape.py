"""What fits its schema is written by the short way, and the short way writes what the long one does."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    TypeAdapter,
    computed_field,
    field_serializer,
    model_serializer,
)

from perdure import PayloadError
from perdure._values.schema import Schema
from perdure._values.shape import _LONGEST, _MOST, fits_of


class Order(BaseModel):
    order_id: str
    amount_cents: int
    note: str | None = None
    price: float = 0.5
    placed_at: datetime


ORDER = Order(order_id="a", amount_cents=3, placed_at=datetime(2030, 1, 1, tzinfo=UTC))


class Text(str):
    __slots__ = ()


values = st.one_of(
    st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.floats(), st.datetimes(), st.dates(), st.binary(max_size=3),
    st.builds(Text, st.just("x")), st.just(Decimal(1)), st.just(UUID(int=1)), st.lists(st.integers(), max_size=2),
)  # fmt: skip
# Mostly of the right classes, or hardly one in a thousand would fit.
fitting = {
    "order_id": st.text(max_size=3), "amount_cents": st.integers(), "note": st.none() | st.text(max_size=3),
    "price": st.floats(), "placed_at": st.datetimes(),
}  # fmt: skip


def fits(type_: Any, value: object) -> bool:
    judge = fits_of(TypeAdapter(type_).core_schema)
    return judge is not None and judge(value)


@given(fields=st.fixed_dictionaries({name: st.one_of(right, right, values) for name, right in fitting.items()}))
def test_whatever_fits_is_written_without_complaint_and_in_the_same_bytes(fields: dict[str, Any]) -> None:
    value = Order.model_construct(**fields)
    if fits(Order, value):
        write = TypeAdapter(Order).serializer.to_json
        assert write(value, warnings=False, round_trip=True) == write(value, warnings="error", round_trip=True)


@given(fields=st.fixed_dictionaries(fitting))
def test_what_its_validator_makes_fits(fields: dict[str, Any]) -> None:
    assert fits(Order, Order(**fields))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amount_cents", True),
        ("amount_cents", "3"),
        ("order_id", Text("a")),
        ("price", 1),
        ("placed_at", date(2030, 1, 1)),
    ],
)
def test_a_field_of_another_class_does_not_fit(name: str, value: object) -> None:
    assert not fits(Order, ORDER.model_copy(update={name: value}))


def test_a_model_of_other_fields_does_not_fit() -> None:
    """As many values, of the classes that are wanted, under other names."""
    changed = ORDER.model_copy()
    changed.__dict__["other"] = changed.__dict__.pop("order_id")
    assert not fits(Order, changed)
    more = ORDER.model_copy()
    more.__dict__["cached"] = 1
    assert not fits(Order, more)


def test_only_the_very_class_fits() -> None:
    class Express(Order):
        pass

    assert not fits(Order, Express(**ORDER.model_dump()))
    assert not fits(Order, dict(ORDER))
    assert not fits(Order, None)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int
    b: int


class Written(BaseModel):
    a: int
    b: int

    @field_serializer("a")
    def write_a(self, a: int) -> str:
        return str(a)


class WrittenAtOnce(BaseModel):
    a: int
    b: int

    @model_serializer
    def write(self) -> int:
        return self.a


class Computed(BaseModel):
    a: int
    b: int

    @computed_field
    def sum(self) -> int:
        return self.a + self.b


class Nested(BaseModel):
    a: int
    b: Order


class Either(BaseModel):
    a: int
    b: int | str


class Pair(RootModel[tuple[int, int]]):
    pass


@pytest.mark.parametrize("type_", [Open, Written, WrittenAtOnce, Computed, Nested, Either, Pair, int, list[Order], Any])
def test_a_schema_that_says_more_is_left_to_its_serializer(type_: Any) -> None:
    assert fits_of(TypeAdapter(type_).core_schema) is None


def test_a_model_of_one_field_and_one_of_many_optional_ones_are_looked_at_alike() -> None:
    for count in (1, 20):
        some = type("Some", (BaseModel,), {"__annotations__": {f"f{n}": int | None for n in range(count)}})
        assert fits(some, some(**{f"f{n}": n or None for n in range(count)}))
        assert not fits(some, some.model_construct(**{f"f{n}": "3" for n in range(count)}))


def test_a_model_that_was_changed_behind_pydantics_back_is_refused() -> None:
    changed = ORDER.model_copy(update={"amount_cents": "many"})
    with pytest.raises(PayloadError) as refused:
        Schema(Order, "It").encode(changed)
    assert refused.value.fields == ("amount_cents",)


def outcome(schema: Schema[Any], value: object) -> object:
    try:
        return schema.encode(value)
    except PayloadError as refused:
        return str(refused)


ORDERS: Schema[Any] = Schema(Order, "It", remembers=True)


@given(
    fields=st.fixed_dictionaries(fitting),
    changes=st.dictionaries(st.sampled_from([*fitting, "other"]), values, max_size=2),
    gone=st.sets(st.sampled_from([*fitting]), max_size=1),
)
def test_a_model_that_was_just_written_is_written_as_any_other(
    fields: dict[str, Any], changes: dict[str, Any], gone: set[str]
) -> None:
    """What it has become since, and not what it was (R10)."""
    value = Order.model_construct(**fields)
    assert outcome(ORDERS, value) == outcome(ORDERS, value)
    for name in gone:
        del value.__dict__[name]
    value.__dict__.update(changes)
    again = outcome(ORDERS, value)
    assert again == outcome(ORDERS, value.model_copy())


def test_fields_that_have_changed_places_are_written_in_their_places() -> None:
    """As pydantic does: in the order in which the model holds them."""
    value = ORDER.model_copy()
    ORDERS.encode(value)
    value.__dict__["order_id"] = value.__dict__.pop("order_id")
    assert ORDERS.encode(value) == ORDERS.encode(value.model_copy()) != ORDERS.encode(ORDER)


@pytest.mark.parametrize("name", ["placed_at", "other"])
def test_a_last_field_that_is_gone_or_has_another_name_is_missed(name: str) -> None:
    value = ORDER.model_copy()
    ORDERS.encode(value)
    held = value.__dict__.pop("placed_at")
    value.__dict__.update({} if name == "placed_at" else {name: held})
    with pytest.raises(PayloadError, match="placed_at"):
        ORDERS.encode(value)


class Items(BaseModel):
    items: list[int]


def test_what_is_changed_inside_of_a_field_is_written() -> None:
    value, schema = Items(items=[1]), Schema(Items, "It", remembers=True)
    assert [schema.encode(value), value.items.append(2), schema.encode(value)] == [
        b'{"items":[1]}',
        None,
        b'{"items":[1,2]}',
    ]


class Price(BaseModel):
    amount: Decimal
    at: datetime


@pytest.mark.parametrize(
    "changed",
    [{"amount": Decimal("1.00")}, {"at": datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}],
)
def test_a_field_that_is_equal_and_written_otherwise_is_a_change(changed: dict[str, Any]) -> None:
    price = Price(amount=Decimal("1.0"), at=datetime(2030, 1, 1, tzinfo=UTC))
    other = price.model_copy(update=changed)
    assert other == price
    schema = Schema(Price, "It", remembers=True)
    before = schema.encode(price)
    price.__dict__.update(changed)
    assert schema.encode(price) != before
    assert schema.encode(price) == schema.encode(other)


def placed(count: int) -> list[Order]:
    return [ORDER.model_copy(update={"amount_cents": amount}) for amount in range(count)]


class Pen:
    """A schema that remembers, with its serializer counted."""

    def __init__(self, type_: Any = Order) -> None:
        self.schema: Schema[Any] = Schema(type_, "It", remembers=True)
        self.strokes = 0
        self._to_json, self.schema._to_json = self.schema._to_json, self._count

    def _count(self, value: Any, **options: Any) -> bytes:
        self.strokes += 1
        return self._to_json(value, **options)

    def write(self, *values: Any) -> list[bytes]:
        return [self.schema.encode(value) for value in values]


def test_models_that_take_turns_are_each_written_once_and_as_it_is() -> None:
    """As a hundred bodies do that give their orders to their steps."""
    orders, pen = placed(100), Pen()
    alone = [Schema(Order, "It").encode(order) for order in orders]
    assert pen.write(*orders, *reversed(orders), *orders) == [*alone, *reversed(alone), *alone]
    assert pen.strokes == 100


def test_only_a_schema_that_is_told_to_remembers() -> None:
    """A result is new each time: what is made for remembering it would be wasted."""
    assert Schema(Order, "It")._recent is None
    assert Schema(int, "It", remembers=True)._recent is None
    assert Schema(Items, "It", remembers=True)._recent is None


def test_however_many_are_written_a_bounded_number_is_remembered() -> None:
    orders, pen = placed(_MOST + 10), Pen()
    written = pen.write(*orders)
    assert pen.schema._recent is not None
    assert len(pen.schema._recent._written) <= _MOST
    assert pen.write(*orders) == written
    assert len(pen.schema._recent._written) <= _MOST


@pytest.mark.parametrize(("length", "strokes"), [(_LONGEST - 200, 1), (_LONGEST, 2)])
def test_what_is_long_is_not_remembered(length: int, strokes: int) -> None:
    order, pen = ORDER.model_copy(update={"note": "x" * length}), Pen()
    pen.write(order, order)
    assert pen.strokes == strokes


def test_only_the_model_that_was_written_last_is_kept_alive() -> None:
    """Whatever one comes to hold later is kept with it."""
    orders, pen = placed(3), Pen()
    pen.write(*orders)
    there = [ref(order) for order in orders]
    del orders
    assert [order() is not None for order in there] == [False, False, True]


def test_the_model_that_was_written_last_is_looked_at_like_any_other() -> None:
    order, pen = ORDER.model_copy(), Pen()
    pen.write(*placed(2), order)
    order.amount_cents = 4
    assert pen.write(order, order) == [Schema(Order, "It").encode(order)] * 2
    assert pen.strokes == 4


def test_a_model_that_lies_where_another_has_lain_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._values.shape._address", lambda _: 0)
    orders, pen = placed(3), Pen()
    alone = [Schema(Order, "It").encode(order) for order in orders]
    assert pen.write(*orders, *orders, *orders[2:]) == [*alone, *alone, *alone[2:]]
    assert pen.strokes == 6


class Offer(BaseModel):
    order_id: str
    amount_cents: int
    note: str | None
    price: float
    placed_at: datetime


@pytest.mark.parametrize("other", [Offer(**vars(ORDER)), vars(ORDER), "text", None])
def test_what_is_of_another_class_is_not_taken_for_a_model_that_has_lain_there(
    other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure._values.shape._address", lambda _: 0)
    pen, alone = Pen(), outcome(Schema(Order, "It"), other)
    pen.write(ORDER)
    assert outcome(pen.schema, other) == alone


def test_what_was_refused_is_refused_again() -> None:
    """A float that JSON does not know is lost without a word, so its bytes must not be remembered."""
    nowhere, schema = ORDER.model_copy(update={"price": float("nan")}), Schema(Order, "It", remembers=True)
    for _ in range(2):
        with pytest.raises(PayloadError, match="price"):
            schema.encode(nowhere)


class Secretive(BaseModel):
    a: int
    aside: int = Field(default=0, exclude=True)


class Sparing(BaseModel):
    a: int
    b: int = Field(default=0, exclude_if=lambda b: b == 0)


@pytest.mark.parametrize("type_", [Secretive, Sparing])
def test_a_model_of_which_not_all_is_written_is_left_to_its_serializer(type_: Any) -> None:
    """It may hold more than its bytes say, which would be remembered with them."""
    assert fits_of(TypeAdapter(type_).core_schema) is None
    value = type_(a=1)
    assert Schema(type_, "It").round_trip(value) == (b'{"a":1}', value)


class Careful(BaseModel):
    model_config = ConfigDict(revalidate_instances="always")
    a: str


@pytest.mark.parametrize(
    ("type_", "class_"),
    [(Order, Order), (int, int), (Careful, None), (Pair, None), (list[int], None), (int | None, None)],
)
def test_only_what_its_validator_would_not_look_into_is_taken_as_it_is(type_: Any, class_: type | None) -> None:
    assert Schema(type_, "It").as_is is class_
