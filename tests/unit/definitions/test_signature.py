"""What a function takes and gives is read when it is defined; what cannot be recorded is refused then."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel

from perdure import DefinitionError, activity, workflow
from perdure._definitions.signature import is_async, plain_function, read_signature

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    order_id: str


def annotations(function: Any) -> list[Any]:
    signature = read_signature(function, "It")
    return [*(parameter.annotation for parameter in signature.parameters), signature.returns]


def test_annotations_that_are_text_are_resolved_in_the_functions_module():
    def function(order: Order, kind: Literal["a", "b"], many: list[Order] | None) -> Annotated[int, "kept"]: ...

    assert annotations(function) == [Order, Literal["a", "b"], list[Order] | None, Annotated[int, "kept"]]


def test_classes_of_the_function_around_are_found():
    class Order(BaseModel):  # another one than the module's
        number: int

    @activity
    async def charge(order: Order, more: list[Order]) -> Order: ...

    found = annotations(charge.function)
    assert found == [Order, list[Order], Order]
    assert found[0].model_fields.keys() == {"number"}


def test_classes_of_functions_further_out_are_found():
    class Outer(BaseModel):
        pass

    def define() -> Any:
        class Inner(BaseModel):
            pass

        async def body(outer: Outer, inner: Inner) -> None: ...

        return annotations(body), [Outer, Inner, type(None)]

    found, expected = define()
    assert found == expected


def test_a_class_of_the_caller_does_not_stand_in_for_one_of_the_functions_module():
    """`activity(imported.function)` must read the annotations of that function, where it stands."""

    def define(function: Any) -> Any:
        class Order(BaseModel):
            wrong: int

        assert Order
        return annotations(function)

    assert define(module_function) == [Order, Order]


def test_the_innermost_class_of_a_name_is_meant():
    class Order(BaseModel):
        outer: int

    def define() -> Any:
        class Order(BaseModel):
            inner: int

        def function(order: Order) -> None: ...

        return annotations(function)[0]

    assert define().model_fields.keys() == {"inner"}
    assert Order.model_fields.keys() == {"outer"}


def test_a_function_of_that_name_in_another_module_does_not_lend_its_classes():
    class Order(BaseModel):
        wrong: int

    class Elsewhere(BaseModel):
        pass

    scope: dict[str, Any] = {"Order": Elsewhere}
    exec("def function(order: 'Order'): ...", scope)
    scope[
        "function"
    ].__qualname__ = "test_a_function_of_that_name_in_another_module_does_not_lend_its_classes.<locals>.function"
    assert annotations(scope["function"])[0] is Elsewhere
    assert Order


def module_function(order: Order) -> Order:
    return order


def test_quoted_parts_of_an_annotation_are_resolved():
    def function(many: list[Order]) -> Order: ...

    function.__annotations__ = {"many": list["Order"], "return": "Order"}
    assert annotations(function) == [list[Order], Order]


def test_an_annotation_that_names_nothing_known_is_refused_by_name():
    def function(amount: Decimal) -> None: ...

    with pytest.raises(DefinitionError, match=r"'Decimal' of parameter 'amount'.*TYPE_CHECKING"):
        read_signature(function, "It")


def test_a_return_type_that_names_nothing_known_is_refused():
    def function() -> Decimal: ...

    with pytest.raises(DefinitionError, match="'Decimal' of its return value"):
        read_signature(function, "It")


def test_what_is_not_annotated_may_be_anything():
    def function(value, *, other=3): ...

    assert annotations(function) == [Any, Any, Any]


def test_kinds_of_parameters_are_kept():
    def function(first, /, second, third=3, *, fourth): ...

    parameters = read_signature(function, "It").parameters
    assert [(each.by_place, each.by_name) for each in parameters] == [
        (True, False),
        (False, False),
        (False, False),
        (False, True),
    ]
    assert parameters[2].default == 3


@pytest.mark.parametrize("stars", ["*", "**"])
def test_parameters_without_names_of_their_own_are_refused(stars: str):
    scope: dict[str, Any] = {}
    exec(f"def function({stars}rest): ...", scope)
    with pytest.raises(DefinitionError, match=r"takes \*.*rest.*take a list or a dict"):
        read_signature(scope["function"], "It")


def test_a_decorated_function_is_read_as_what_it_wraps():
    def passing(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs)

        return wrapper

    @passing
    async def charge(order: Order) -> str: ...

    assert annotations(charge) == [Order, str]
    assert is_async(charge)


def test_a_partial_takes_what_is_left():
    async def charge(gateway: str, order: Order) -> str: ...

    partial = functools.partial(charge, "gateway")
    assert annotations(partial) == [Order, str]
    assert is_async(partial)


def test_an_object_with_an_async_call_is_async():
    class Charge:
        async def __call__(self, order: Order) -> str: ...

    assert is_async(Charge())
    assert not is_async(lambda: None)


def test_a_method_is_refused():
    with pytest.raises(DefinitionError, match="is a method"):

        class Shop:
            @activity
            async def charge(self, order: Order) -> str: ...

    with pytest.raises(DefinitionError, match="is a method"):

        class Other:
            @workflow
            async def process(self, order: Order) -> str: ...


def test_a_class_method_is_refused():
    with pytest.raises(DefinitionError, match="must be a function, not classmethod"):

        class Shop:
            @activity
            @classmethod
            async def charge(cls, order: Order) -> str: ...


def test_a_static_method_is_a_function():
    class Shop:
        @activity
        @staticmethod
        async def charge(order: Order) -> str:
            return order.order_id

        @staticmethod
        @activity
        async def refund(order: Order) -> str:
            return order.order_id

    assert annotations(Shop.charge.function) == [Order, str]
    assert Shop.refund.name == "refund"


def test_a_bound_method_of_something_that_lives_is_a_function():
    class Gateway:
        async def charge(self, order: Order) -> str: ...

    assert annotations(plain_function(Gateway().charge, "It")) == [Order, str]


def test_a_parameter_called_self_is_nothing_special_in_a_function():
    @activity
    async def greet(self: str) -> str:
        return self

    assert greet.name == "greet"


@pytest.mark.parametrize("function", [3, "charge", None])
def test_what_cannot_be_called_is_refused(function: Any):
    with pytest.raises(DefinitionError, match="must be a function"):
        plain_function(function, "It")


def test_a_builtin_without_a_signature_is_refused():
    with pytest.raises(DefinitionError, match="signature cannot be read"):
        read_signature(max, "It")
