"""Whatever pydantic handles goes through a workflow and an activity, live and replayed (issue 2, point 5)."""

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypedDict

from perdure import TypedError, Workflow, activity, sleep, workflow

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Money(BaseModel):
    amount: Decimal
    currency: str = "EUR"


class Line(BaseModel):
    sku: str = Field(alias="SKU")
    money: Money
    colours: frozenset[Colour] = frozenset()

    model_config = {"populate_by_name": True}


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str]


class Tags(RootModel[list[str]]):
    pass


@dataclass
class Point:
    x: int
    y: int = 0
    label: str | None = None
    extras: dict[str, int] = field(default_factory=dict)


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Positive = Annotated[int, Field(gt=0)]

VALUES: list[tuple[str, Any, Any]] = [
    ("str", str, "grüße, 世界 \U0001f600"),
    ("empty", str, ""),
    ("int", int, 2**80),
    ("float", float, 0.1),
    ("bool", bool, True),
    ("none", None, None),
    ("bytes", bytes, b"\x00\xff binary"),
    ("Decimal", Decimal, Decimal("12345678901234567890.10")),
    ("datetime", datetime, datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    ("date", date, date(2030, 1, 2)),
    ("time", time, time(3, 4, 5)),
    ("timedelta", timedelta, timedelta(days=1, microseconds=1)),
    ("UUID", UUID, UUID("12345678-1234-5678-1234-567812345678")),
    ("Path", Path, Path("/tmp/x")),
    ("IPv4Address", IPv4Address, IPv4Address("127.0.0.1")),
    ("enum", Colour, Colour.GREEN),
    ("IntEnum", Level, Level.HIGH),
    ("Literal", Literal["a", "b"], "b"),
    ("optional", int | None, None),
    ("union", int | str, "5"),
    ("annotated", Positive, 7),
    ("model", Money, Money(amount=Decimal("1.50"))),
    ("nested model", Line, Line(SKU="a", money=Money(amount=Decimal(1)), colours=frozenset(Colour))),
    ("generic model", Page[Money], Page[Money](items=[Money(amount=Decimal(2))], total=1)),
    ("root model", Tags, Tags(["a", "b"])),
    ("recursive model", Tree, Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])),
    ("discriminated union", Pet, Dog(tricks=["sit"])),
    ("dataclass", Point, Point(1, label="p", extras={"a": 1})),
    ("TypedDict", Address, {"street": "Main", "number": 5}),
    ("TypedDict, part", Address, {"street": "Main"}),
    ("NamedTuple", Pair, Pair(1, "x")),
    ("list", list[Point], [Point(1), Point(2)]),
    ("dict", dict[str, list[Decimal]], {"a": [Decimal("0.1")]}),
    ("dict by int", dict[int, str], {1: "a", -2: "b"}),
    ("set", set[str], {"a", "b", "c"}),
    ("tuple", tuple[int, str, Colour], (1, "a", Colour.RED)),
    ("long tuple", tuple[int, ...], (1, 2, 3)),
    ("Any", Any, {"a": [1, "x", None, {"b": 1.5}]}),
    ("list of unions", list[Cat | Dog | int], [Cat(lives=9), 5, Dog(tricks=[])]),
]


@pytest.mark.parametrize(("type_", "value"), [pytest.param(t, v, id=name) for name, t, v in VALUES])
def test_a_value_comes_back_as_it_went(corner_lab, type_, value):
    """As payload, input, result of an activity and result of a workflow; live, replayed and after a restart."""
    seen: list[Any] = []

    @activity(name="Echo")
    async def echo(value: type_, times: int = 1) -> type_:  # type: ignore[valid-type]
        seen.append(value)
        return value

    @workflow(name="Carry", idempotency_key=lambda key, value: key)
    async def carry(key: str, value: type_) -> type_:  # type: ignore[valid-type]
        seen.append(value)
        first = await echo(value)
        seen.append(first)
        await sleep("1 hour")
        return await echo(first, times=2)

    async def main():
        async with corner_lab.engine([carry]):
            handle = await carry.start("k", value)
            await corner_lab.settle()
            same = await carry.start("k", value)
            assert same.execution_id == handle.execution_id
        async with corner_lab.engine([carry]):
            result = await corner_lab.result(carry.handle(handle.execution_id))
            assert result == value
            assert type(result) is type(value)
        assert len(seen) >= 4
        assert all(one == value and type(one) is type(value) for one in seen)

    corner_lab.run(main)


@pytest.mark.parametrize("form", ["model", "dataclass", "TypedDict"])
def test_a_single_struct_is_its_own_fields_on_the_wire(lab, form):
    """API 2: FastAPI's rule."""
    type_, value, fields = {
        "model": (Money, Money(amount=Decimal("1.5")), {"amount": "1.5", "currency": "EUR"}),
        "dataclass": (Point, Point(1, 2), {"x": 1, "y": 2, "label": None, "extras": {}}),
        "TypedDict": (Address, {"street": "Main"}, {"street": "Main"}),
    }[form]

    @workflow(idempotency_key=lambda value: "k")
    async def work(value: type_) -> str:  # type: ignore[valid-type]
        return type(value).__name__

    async def main():
        async with lab.engine([work]) as engine:
            assert await lab.finish(work.execute(value)) == type(value).__name__
            assert (await engine.describe(work.execution_id(value))).payload == fields

    lab.run(main)


def test_several_parameters_and_what_is_no_struct_are_an_object_of_the_parameters(lab):
    @workflow(idempotency_key=lambda amounts: "k")
    async def one(amounts: list[int]) -> int:
        return sum(amounts)

    @workflow(idempotency_key=lambda a, b, c: "k")
    async def several(a: int, b: Money, *, c: Colour = Colour.RED) -> str:
        return f"{a} {b.amount} {c.value}"

    @workflow
    async def none() -> str:
        return "nothing"

    async def main():
        async with lab.engine([one, several, none]) as engine:
            assert await lab.finish(one.execute([1, 2])) == 3
            assert (await engine.describe(one.execution_id([1, 2]))).payload == {"amounts": [1, 2]}
            money = Money(amount=Decimal(5))
            assert await lab.finish(several.execute(1, b=money)) == "1 5 red"
            assert (await engine.describe(several.execution_id(1, money))).payload == {
                "a": 1, "b": {"amount": "5", "currency": "EUR"}, "c": "red",
            }  # fmt: skip
            handle = await none.start()
            assert await lab.result(handle) == "nothing"
            assert (await engine.describe(handle.execution_id)).payload == {}

    lab.run(main)


@pytest.mark.parametrize("payload", [{"to": str, "cc": list[str]}, None], ids=["fields", "none"])
def test_a_mapping_of_fields_is_one_read_only_object(lab, payload):
    """API 2: contract first."""
    Send = Workflow.make("Send", **({"payload": payload} if payload else {}), success=list[str])

    @Send.implement
    async def send(payload, execution_id) -> list[str]:
        return [payload.to, *payload.cc] if hasattr(payload, "to") else ["nothing"]

    async def main():
        async with lab.engine([send]):
            value = {"to": "ada", "cc": ["bob"]} if payload else {}
            assert await lab.finish(Send.execute(value)) == (["ada", "bob"] if payload else ["nothing"])

    lab.run(main)


def test_declared_errors_keep_their_fields_through_workflow_and_activity(lab):
    class Refused(TypedError):
        code: Colour
        money: Money
        when: datetime
        inner: dict[str, list[int]]

    error = Refused(
        code=Colour.RED, money=Money(amount=Decimal("0.10")), when=datetime(2030, 1, 1, tzinfo=UTC), inner={"a": [1]}
    )

    @activity(error=Refused)
    async def act() -> None:
        raise error

    @workflow(idempotency_key=lambda key: key, error=Refused)
    async def work(key: str) -> None:
        try:
            await act()
        except Refused as refused:
            await sleep("1 hour")
            raise Refused(**{name: getattr(refused, name) for name in ("code", "money", "when", "inner")}) from None

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]):
            with pytest.raises(Refused) as refused:
                await lab.result(work.handle(handle.execution_id))
            assert refused.value == error

    lab.run(main)


def test_a_payload_is_what_it_was_when_it_was_started(lab):
    """The caller may change its object afterwards, and so may the body."""

    @activity
    async def act(items: list[int]) -> list[int]:
        items.append(99)
        return items

    @workflow(idempotency_key=lambda key, items: key)
    async def work(key: str, items: list[int]) -> list[list[int]]:
        before = list(items)
        changed = await act(items)
        await sleep("1 hour")
        return [before, changed]

    async def main():
        async with lab.engine([work]):
            mine = [1, 2]
            handle = await work.start("k", mine)
            mine.append(3)
            assert await lab.result(handle) == [[1, 2], [1, 2, 99]]

    lab.run(main)
