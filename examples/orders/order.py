"""An order, and the file it comes from: every line is either an order or a list of what is wrong with it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError


def _email(text: str) -> str:
    name, _, domain = text.partition("@")
    if not name or "." not in domain or any(letter.isspace() for letter in text):
        raise PydanticCustomError("email", "not an e-mail address")
    return text


class Item(BaseModel):
    sku: str = Field(min_length=1)
    quantity: int = Field(ge=1)
    price_cents: int = Field(gt=0)


class Order(BaseModel):
    order_id: str = Field(min_length=1)
    customer: str = Field(min_length=1)
    email: Annotated[str, AfterValidator(_email)]
    items: list[Item] = Field(min_length=1)
    currency: Literal["EUR", "USD", "GBP", "CHF"]
    card_token: str = Field(min_length=1)

    @property
    def amount_cents(self) -> int:
        # Computed here and never read from the file: a file cannot ask for another amount than its items cost.
        return sum(item.quantity * item.price_cents for item in self.items)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no order, with a sentence for each field that is wrong."""

    number: int
    problems: tuple[str, ...]


def read_orders(path: Path, limit: int | None = None) -> Iterator[Order | BadLine]:
    """Read the first `limit` lines of a JSON Lines file; a bad line does not stop the ones after it."""
    # Bytes, not text: a line that is not UTF-8 is then one bad line instead of the end of the file.
    with path.open("rb") as lines:
        for number, line in enumerate(itertools.islice(lines, limit), start=1):
            try:
                yield Order.model_validate_json(line.rstrip())
            except ValidationError as error:
                yield BadLine(number, tuple(_problem(detail) for detail in error.errors()))


def _problem(detail: ErrorDetails) -> str:
    if detail["type"] == "json_invalid":
        # pydantic counts lines within the text it was given, and here that is always one line.
        reason = detail.get("ctx", {})["error"].replace("line 1 ", "")
        return f"not JSON: {reason}"
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    value = detail["input"]
    shown = f" (it is {value!r})" if isinstance(value, str | int | float) else ""
    return f"{field or 'the line'}: {detail['msg']}{shown}"
