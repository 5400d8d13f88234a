"""What an engine takes: something implemented, under a name."""

from abc import ABC, abstractmethod


class Registration(ABC):
    """An implemented workflow, to be handed to an engine.

    A contract without a body is none, and neither is an activity: engines find activities by themselves.
    A list of registrations in a variable is annotated ``list[Registration]``.

    Example:
        >>> @workflow(idempotency_key=lambda name: name)
        ... async def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> registrations: list[Registration] = [greet]
        >>> [registration.name for registration in registrations]
        ['greet']
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is registered under; an engine takes each name once."""
        ...
