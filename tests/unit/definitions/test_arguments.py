"""Arguments are put in the order of their parameters and written as one JSON object."""

import enum
import inspect
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from perdure import DefinitionError, PayloadError
from perdure._definitions.arguments import Arguments
from perdure._definitions.signature import read_signature


class Order(BaseModel):
    order_id: str
    amount_cents: int


def arguments(function: Any) -> Arguments:
    return Arguments(read_signature(function, "It").parameters, "It")


def given_to(function: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What an attempt of it is called with."""
    taken = arguments(function)
    raw, kept = taken.write(args, kwargs)
    return taken.positional(raw, kept), taken.keywords(raw, kept)


def plain(a: Any, b: Any = "b", *, c: Any = "c"): ...
def by_place(a: Any, /, b: Any, c: Any = "c"): ...
def by_name(*, a: Any, b: Any = "b", c: Any): ...
def nothing(): ...


calls = st.tuples(
    st.lists(st.integers(), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(), max_size=4),
)


@given(function=st.sampled_from([plain, by_place, by_name, nothing]), call=calls)
@example(function=by_place, call=((1,), {"a": 1, "b": 2}))
def test_arguments_are_taken_as_python_takes_them(function: Any, call: tuple[tuple[int, ...], dict[str, int]]):
    args, kwargs = call
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(PayloadError):
            arguments(function).arrange(args, kwargs)
        return
    bound.apply_defaults()
    arranged = arguments(function).arrange(args, kwargs)
    assert arranged == tuple(bound.arguments.values())
    assert arguments(function).spread(arranged) == (bound.args, bound.kwargs)
    raw, _ = arguments(function).write(args, kwargs)
    assert json.loads(raw) == dict(bound.arguments)
    assert given_to(function, *args, **kwargs) == (bound.args, bound.kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "said", "fields"),
    [
        ((), {}, "argument 'a' is missing", ("a",)),
        ((1,), {"d": 1}, "argument 'd' is no parameter of it", ("d",)),
        ((1,), {"a": 1}, "argument 'a' is given twice", ("a",)),
        ((1, 2, 3), {}, "takes 2 arguments by position, not 3", ()),
    ],
)
def test_a_call_that_does_not_fit_says_what_is_wrong(args, kwargs, said: str, fields: tuple[str, ...]):
    with pytest.raises(PayloadError, match=said) as refused:
        arguments(plain).arrange(args, kwargs)
    assert refused.value.fields == fields


def test_the_input_is_an_object_of_the_parameters_in_their_order():
    def charge(order: Order, note: str = "none", *, urgent: bool = False): ...

    raw, _ = arguments(charge).write((), {"urgent": True, "order": Order(order_id="a", amount_cents=3)})
    assert raw == b'{"order":{"order_id":"a","amount_cents":3},"note":"none","urgent":true}'
    assert arguments(nothing).write((), {})[0] == b"{}"


def test_a_name_outside_of_ascii_is_written_as_it_stands():
    def charge(größe: int): ...  # noqa: PLC2401 - what is tested

    assert arguments(charge).write((3,), {})[0] == '{"größe":3}'.encode()


def test_arguments_are_made_of_their_types():
    def charge(order: Order, count: int): ...

    asked = {"order_id": "a", "amount_cents": "3"}, "5"
    assert given_to(charge, *asked) == ((Order(order_id="a", amount_cents=3), 5), {})
    raw, _ = arguments(charge).write(asked, {})
    assert json.loads(raw) == {"order": {"order_id": "a", "amount_cents": 3}, "count": 5}


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (({"order_id": "a"}, 1), "order.amount_cents"),
        ((Order(order_id="a", amount_cents=1), "many"), "count"),
        ((Order(order_id="a", amount_cents=1), -1), "count"),
        ((Order.model_construct(order_id="a", amount_cents="many"), 1), "order.amount_cents"),
    ],
)
def test_an_argument_that_its_annotation_refuses_is_named(args, field: str):
    def charge(order: Order, count: Annotated[int, Field(ge=0)]): ...

    with pytest.raises(PayloadError, match=field.rpartition(".")[2]) as refused:
        arguments(charge).write(args, {})
    assert refused.value.fields == (field,)
    assert refused.value.owner == "It"


def test_a_model_that_wants_to_be_looked_at_again_is():
    class Careful(BaseModel):
        model_config = ConfigDict(revalidate_instances="always", str_max_length=1)
        a: str

    def charge(count: int, careful: Careful): ...

    changed = Careful(a="a").model_copy(update={"a": "too long"})
    with pytest.raises(PayloadError, match="at most 1") as refused:
        arguments(charge).write((1, changed), {})
    assert refused.value.fields == ("careful.a",)


def test_a_list_is_copied_so_that_the_activity_does_not_change_the_bodys():
    """A replay would not see the change, because it does not call the activity."""

    def charge(items: list[int]): ...

    items, taken = [1], arguments(charge)
    raw, kept = taken.write((items,), {})
    items.append(2)
    assert taken.positional(raw, kept) == ([1],)
    taken.positional(raw, kept)[0].append(3)
    assert taken.positional(raw, kept) == ([1],)


def test_every_attempt_is_given_its_own_beside_what_nobody_can_change():
    """What one attempt does to an argument, no other one sees, wherever the argument stands."""

    def charge(count: int, order: Order, note: Any, /, items: list[int], *, flags: set[str], urgent: bool = True): ...

    order, note, taken = Order(order_id="a", amount_cents=3), [1], arguments(charge)
    raw, kept = taken.write((7, order, note, [1]), {"flags": {"b", "a"}})
    for _ in range(2):
        args, named = taken.positional(raw, kept), taken.keywords(raw, kept)
        assert (args, named) == (
            (7, Order(order_id="a", amount_cents=3), note, [1]),
            {"flags": {"a", "b"}, "urgent": True},
        )
        assert args[1] is not order
        assert args[2] is note
        args[1].order_id = "changed"
        args[3].append(2)
        named["flags"].add("c")
    order.amount_cents = 4
    assert taken.positional(raw, kept)[1].amount_cents == 3


def test_an_argument_that_was_changed_between_two_calls_is_written_anew():
    def charge(order: Order, position: int): ...

    order, taken = Order(order_id="a", amount_cents=3), arguments(charge)
    calls = [taken.write((order, 1), {})]
    order.amount_cents = 4
    calls.append(taken.write((order, 1), {}))
    assert [raw for raw, _ in calls] == [
        b'{"order":{"order_id":"a","amount_cents":3},"position":1}',
        b'{"order":{"order_id":"a","amount_cents":4},"position":1}',
    ]
    assert [taken.positional(*call)[0].amount_cents for call in calls] == [3, 4]


def test_an_argument_of_several_calls_is_written_once():
    """Even where others come in between, as in a hundred executions that take turns."""

    def charge(order: Order, position: int): ...

    orders = [Order(order_id=name, amount_cents=3) for name in "abc"]
    taken, written = arguments(charge), list[Order]()
    schema = taken._schemas[0]
    write, schema._to_json = schema._to_json, lambda value, **options: written.append(value) or write(value, **options)
    raws = [taken.write((order, position), {})[0] for position in range(3) for order in orders]
    assert [json.loads(raw)["order"]["order_id"] for raw in raws] == [*"abcabcabc"]
    assert written == orders


class Fickle(BaseModel):
    """Writes what it would not read."""

    a: int

    @field_serializer("a")
    def write(self, a: int) -> str:
        return f"number {a}"


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "said", "field"),
    [
        (lambda it: ..., (Fickle(a=1),), {}, "It: a: Input should be a valid integer", "a"),
        (lambda it, count: ..., (Fickle(a=1), 2), {}, "It: it.a: Input should be a valid integer", "it.a"),
        (lambda count, *, it: ..., (2,), {"it": Fickle(a=1)}, "It: it.a: Input should be a valid integer", "it.a"),
    ],
)
def test_an_argument_that_does_not_come_back_is_named(function: Any, args: Any, kwargs: Any, said: str, field: str):
    function.__annotations__["it"] = Fickle
    with pytest.raises(PayloadError, match=said) as refused:
        given_to(function, *args, **kwargs)
    assert refused.value.fields == (field,)


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("annotation", "value", "same"),
    [
        (str, "x" * 100, True),
        (int | None, 12345, True),
        (Literal["a"] | datetime, datetime(2030, 1, 1, tzinfo=UTC), True),
        (Color, Color.RED, True),
        (Any, [1], True),
        (list[int], [1], False),
        (Order, Order(order_id="a", amount_cents=1), False),
        (Order | None, Order(order_id="a", amount_cents=1), False),
        (Annotated[list[int], Field(max_length=3)], [1], False),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_only_what_can_be_changed_is_copied(annotation: Any, value: Any, same: bool, beside: bool):
    def alone(it): ...
    def two(it, other: int = 3): ...

    function = two if beside else alone
    function.__annotations__["it"] = annotation
    copies, _ = given_to(function, value)
    assert copies[0] == value
    assert (copies[0] is value) is same


def test_a_default_that_its_annotation_refuses_is_found_at_the_definition():
    def charge(note: str = None): ...  # noqa: RUF013 - the mistake that is meant

    with pytest.raises(DefinitionError, match="default of parameter 'note', None, does not fit"):
        arguments(charge)


def test_an_annotation_that_cannot_be_stored_is_found_at_the_definition():
    class Socket:
        pass

    def charge(socket: Socket): ...

    with pytest.raises(DefinitionError, match="Socket"):
        arguments(charge)


def test_what_was_recorded_is_read_with_todays_types():
    """R2: a parameter that came with a default later, or another order of the fields, is no difference."""

    def charge(order: Order, note: str = "none"): ...

    struct = arguments(charge).struct
    asked = b'{"order":{"order_id":"a","amount_cents":3},"note":"none"}'
    assert struct.same(b'{"order":{"amount_cents":3,"order_id":"a"}}', asked)
    assert not struct.same(b'{"order":{"amount_cents":4,"order_id":"a"}}', asked)
    assert not struct.same(b'{"order":{"amount_cents":3,"order_id":"a"},"gone":1}', asked)


def test_a_misspelt_argument_is_named_beside_the_one_that_is_missing():
    def charge(order_id: str): ...

    with pytest.raises(PayloadError, match="argument 'order_id' is missing, and 'ordr_id' is no parameter of it"):
        arguments(charge).arrange((), {"ordr_id": "a"})


def test_a_parameter_that_cannot_be_stored_is_named():
    class OddThing: ...

    def charge(order_id: str, odd: OddThing): ...

    with pytest.raises(DefinitionError, match=r"parameter 'odd': .*OddThing.* cannot be stored"):
        arguments(charge)
