"""What the bodies of these tests are made of. The activities that they ask for never run here."""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

from perdure import TypedError, activity


class Declined(TypedError):
    """A declared error."""

    code: int


class Expired(Declined):
    """A kind of it, which is not declared itself."""

    year: int


# Activities that really ran: a defect, wherever the error that says so is swallowed.
ran: list[str] = []


def _ran(name: str) -> NoReturn:
    ran.append(name)
    raise AssertionError("an activity ran, in a kernel, without an engine")


@activity(error=Declined)
async def fetch(x: int) -> int:
    _ran("fetch")


@activity(error=Declined)
async def store(x: int) -> int:
    _ran("store")


@activity(delivery="at_most_once")
async def pay(x: int) -> int:
    _ran("pay")


def begin(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Begin a task that the body does not keep."""
    asyncio.create_task(coroutine)  # noqa: RUF006 - the body's loop keeps its tasks; that nobody else need is tested


async def spin() -> None:
    """Await what is ready at once, for ever."""
    while True:  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0)
