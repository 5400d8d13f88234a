"""What fits its schema is written by the short way, and the short way writes what the long one does."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, TypeAdapter, computed_field, field_serializer, model_serializer

from perdure import PayloadError
from perdure._values.schema import Schema
from perdure._values.shape import fits_of


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


def test_a_model_of_very_many_optional_fields_is_left_to_its_serializer() -> None:
    wide = type("Wide", (BaseModel,), {"__annotations__": {f"f{n}": int | None for n in range(20)}})
    assert fits_of(TypeAdapter(wide).core_schema) is None


def test_a_model_that_was_changed_behind_pydantics_back_is_refused_at_the_call() -> None:
    changed = ORDER.model_copy(update={"amount_cents": "many"})
    with pytest.raises(PayloadError) as refused:
        Schema(Order, "It").write(changed)
    assert refused.value.fields == ("amount_cents",)


def test_a_model_that_wants_to_be_looked_at_again_is() -> None:
    class Careful(BaseModel):
        model_config = ConfigDict(revalidate_instances="always", str_max_length=1)
        a: str
        b: str

    changed = Careful(a="a", b="b").model_copy(update={"a": "too long"})
    with pytest.raises(PayloadError, match="at most 1"):
        Schema(Careful, "It").write(changed)
