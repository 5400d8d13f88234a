"""Typed errors: declared errors with fields."""

import asyncio
import contextlib
import copy
import traceback
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Gt
from pydantic import BaseModel, Field

from perdure._values.typed_error import TypedError, form_of
from perdure.errors import DefinitionError, PayloadError, UsageError


class CardDeclined(TypedError):
    code: str
    retry_after: int = 0


class Stolen(CardDeclined):
    reported_by: str | None = None

    @property
    def final(self) -> bool:
        return self.code == "stolen"


class Later(TypedError):
    order: "Order"


class Order(BaseModel):
    order_id: str


def test_an_error_has_its_fields() -> None:
    """Section 8 of the contract."""
    error = CardDeclined(code="no-funds", retry_after=5)
    assert (error.code, error.retry_after) == ("no-funds", 5)
    assert CardDeclined(code="x").retry_after == 0


def test_an_error_is_equal_by_class_and_fields() -> None:
    """Section 8."""
    assert CardDeclined(code="x") == CardDeclined(code="x", retry_after=0)
    assert hash(CardDeclined(code="x")) == hash(CardDeclined(code="x"))
    assert CardDeclined(code="x") != CardDeclined(code="y")
    assert CardDeclined(code="x") != Stolen(code="x")
    assert CardDeclined(code="x") != ValueError("x")


def test_an_error_with_a_list_has_a_hash_all_the_same() -> None:
    """Python puts exceptions into sets while it prints a chain of them."""

    class Several(TypedError):
        codes: list[str]

    assert hash(Several(codes=["a"])) == hash(Several(codes=["a"]))


def test_an_error_says_its_fields() -> None:
    """It is what a log shows."""
    assert str(CardDeclined(code="x")) == "CardDeclined(code='x', retry_after=0)"
    assert traceback.format_exception_only(CardDeclined(code="x"))[0].endswith(
        "CardDeclined: CardDeclined(code='x', retry_after=0)\n"
    )


def test_fields_are_validated() -> None:
    """Section 8: pydantic validation."""
    assert CardDeclined(code="x", retry_after="5").retry_after == 5  # type: ignore[arg-type]

    class Bounded(TypedError):
        amount: Annotated[int, Gt(0)]
        kind: Literal["a", "b"] = "a"

    with pytest.raises(PayloadError, match="amount") as refused:
        Bounded(amount=0)
    assert refused.value.fields == ("amount",)
    with pytest.raises(PayloadError, match="kind"):
        Bounded(amount=1, kind="c")  # type: ignore[arg-type]


@pytest.mark.parametrize(("fields", "named"), [({}, "code"), ({"code": "x", "cod": 1}, "cod"), ({"code": 3}, "code")])
def test_a_bad_construction_names_the_field(fields: dict[str, object], named: str) -> None:
    """An error names what to change."""
    with pytest.raises(PayloadError) as refused:
        CardDeclined(**fields)  # type: ignore[arg-type]
    assert refused.value.fields == (named,)


def test_only_fields_are_guarded() -> None:
    """TYPING: a frozen dataclass would refuse __traceback__ and __notes__."""
    error = CardDeclined(code="x")
    with pytest.raises(AttributeError, match="code"):
        error.code = "y"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="code"):
        del error.code
    error.add_note("at the gateway")
    error.extra = 1  # type: ignore[attr-defined]
    error.__cause__ = ValueError("x")
    with pytest.raises(CardDeclined) as raised:
        raise error from KeyError("k")
    assert raised.value.__traceback__ is not None
    assert isinstance(raised.value.__cause__, KeyError)
    assert error.code == "x"


def test_an_error_passes_through_a_task_group() -> None:
    """Groups set __traceback__ and __context__, and are split by copying."""

    async def fail() -> None:
        raise CardDeclined(code="x")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(main())
    assert raised.value.exceptions == (CardDeclined(code="x"),)
    with contextlib.suppress(CardDeclined):
        raise raised.value.exceptions[0]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_an_error_copies_with_its_notes(again: object) -> None:
    """Exception's own way of copying would call the class with positional arguments."""
    error = Stolen(code="stolen", reported_by="ada")
    error.add_note("at the gateway")
    other = again(error)  # type: ignore[operator]
    assert other == error
    assert other is not error
    assert other.__notes__ == ["at the gateway"]


def test_a_subclass_adds_fields_and_has_methods() -> None:
    """TYPING: subclasses of subclasses too."""

    class Lost(Stolen):
        where: str = "sea"

    error = Lost(code="stolen", where="train")
    assert (error.code, error.retry_after, error.reported_by, error.where) == ("stolen", 0, None, "train")
    assert error.final
    assert isinstance(error, CardDeclined)


def test_a_subclass_may_narrow_a_default() -> None:
    """As in a dataclass, what stands lower wins."""

    class Patient(CardDeclined):
        retry_after: int = 60

    assert Patient(code="x").retry_after == 60


def test_all_ways_to_write_a_default_work() -> None:
    """TYPING: Field and field are the specifiers."""

    class Various(TypedError):
        kind: ClassVar[str] = "class"
        plain: int = 1
        described: int = Field(2, gt=0)
        made: list[int] = field(default_factory=list)
        made_too: list[int] = Field(default_factory=list)

    first, second = Various(), Various()
    assert (first.plain, first.described, first.made, first.made_too) == (1, 2, [], [])
    assert first.made is not second.made
    assert form_of(Various).names == ("plain", "described", "made", "made_too")
    with pytest.raises(PayloadError, match="described"):
        Various(described=0)


def test_fields_may_have_names_that_models_do_not_allow() -> None:
    """Errors have codes, messages, and sometimes a copy or a schema."""

    class Odd(TypedError):
        copy: int
        schema: str
        json: str
        model_config: str
        message: str
        model_fields: str = ""

    assert Odd(copy=1, schema="s", json="j", model_config="m", message="t").copy == 1


@pytest.mark.parametrize("name", ["args", "with_traceback", "add_note", "__notes__"])
def test_a_field_that_every_exception_has_is_refused(name: str) -> None:
    """At the definition, with the name."""
    with pytest.raises(DefinitionError, match=name):
        type("Bad", (TypedError,), {"__annotations__": {name: str}})


def test_a_default_that_all_errors_would_share_is_refused() -> None:
    """As in a dataclass."""
    with pytest.raises(DefinitionError, match="default_factory"):

        class Bad(TypedError):
            codes: list[str] = []  # noqa: RUF012 - the very thing that is refused


def test_a_field_that_pydantic_cannot_handle_is_refused() -> None:
    """At the definition, and not when the first error is recorded."""
    with pytest.raises(DefinitionError, match="Bad"):

        class Bad(TypedError):
            lock: contextlib.ExitStack


def test_annotations_may_name_what_is_defined_below() -> None:
    """The schema is built at the first use then."""
    assert Later(order=Order(order_id="1")).order.order_id == "1"


def test_annotations_as_text_may_name_what_is_local() -> None:
    """Tests define their models inside functions, often under postponed annotations."""

    class Local(BaseModel):
        x: int

    class Narrow(TypedError):
        local: "Local"

    assert Narrow(local=Local(x=1)).local.x == 1


def test_an_annotation_that_names_nothing_is_refused_at_the_first_use() -> None:
    """With a sentence instead of a NameError from the depths."""

    class Vague(TypedError):
        x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 - the very thing that is refused

    with pytest.raises(UsageError, match="Vague"):
        Vague(x=1)


def test_an_error_without_fields_is_one() -> None:
    """Often the name says it all."""

    class Closed(TypedError):
        """The shop is closed."""

    assert Closed() == Closed()
    assert str(Closed()) == "Closed()"


def test_an_error_may_be_another_error_too() -> None:
    """`except LookupError` goes on working where it did before."""

    class Missing(TypedError, LookupError):
        key: str

    with pytest.raises(LookupError):
        raise Missing(key="x")
    assert Missing(key="x").key == "x"


def test_a_field_that_is_given_by_position_is_refused_by_name() -> None:
    """Python's own sentence speaks of an __init__ that the reader has not written."""
    with pytest.raises(
        TypeError, match=r"^CardDeclined takes .* by keyword.*: CardDeclined\(code=..., retry_after=...\)"
    ):
        CardDeclined("no-funds")
