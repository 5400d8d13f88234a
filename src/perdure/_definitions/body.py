"""The function that implements a workflow, and how it takes what it is given."""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perdure._definitions.signature import plain_function
from perdure.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Body:
    """An async function, and whether it takes the execution's id beside the payload.

    Attributes:
        function: The function.
        takes_id: By place, by name, or, None, not at all.
    """

    function: Callable[..., Coroutine[Any, Any, Any]]
    takes_id: Literal["place", "name"] | None = None

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], execution_id: str) -> Coroutine[Any, Any, Any]:
        """Call it; it does not run before somebody drives the coroutine."""
        if self.takes_id == "place":
            return self.function(*args, execution_id, **kwargs)
        if self.takes_id == "name":
            return self.function(*args, **kwargs, execution_id=execution_id)
        return self.function(*args, **kwargs)


def body_of(function: object, owner: str) -> Body:
    """Give the body whose parameters are the payload.

    Raises:
        DefinitionError: It is no async function.
    """
    function = plain_function(function, owner)
    if inspect.iscoroutinefunction(function):
        return Body(function)
    hint = (
        "an async generator: a body returns one result, and `yield` gives none"
        if inspect.isasyncgenfunction(function)
        else "no `async def`. A body waits for its steps with `await`; put what is not async into an activity"
    )
    raise DefinitionError(f"{owner}: its body is {hint}.", owner=owner)


def body_of_contract(function: object, owner: str) -> Body:
    """Give the body of a contract: it takes the payload and, if it likes, the execution's id.

    Raises:
        DefinitionError: It is no async function, or takes something else.
    """
    called = body_of(function, owner).function
    signature = inspect.signature(called)
    takes_id = _takes_id(signature)
    try:
        signature.bind(
            None, *([None] if takes_id == "place" else []), **({"execution_id": None} if takes_id == "name" else {})
        )
    except TypeError as refused:
        raise DefinitionError(
            f"{owner}: its body takes the payload and, if it likes, the execution_id: `async def body(payload)` or "
            f"`async def body(payload, execution_id)` ({refused}).",
            owner=owner,
        ) from refused
    return Body(called, takes_id)


def _takes_id(signature: inspect.Signature) -> Literal["place", "name"] | None:
    parameters = list(signature.parameters.values())
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    # A second parameter with a default means something of its own, unless its name says that it is the id.
    if len(places) > 1 and (places[1].default is places[1].empty or places[1].name == "execution_id"):
        return "place"
    by_name = any(each.name == "execution_id" and each.kind is each.KEYWORD_ONLY for each in parameters)
    return "name" if by_name else None
