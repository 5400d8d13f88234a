"""The workflows that one engine has bodies for."""

from collections.abc import Iterable
from typing import cast

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.runner import Implementation
from perdure.errors import DefinitionError, UsageError


class Registry:
    """Implementations by name."""

    def __init__(self, registrations: Iterable[Registration]) -> None:
        self._implementations: dict[str, Implementation] = {}
        self.add(registrations)

    def add(self, registrations: object) -> None:
        """Take workflows.

        Raises:
            DefinitionError: Two have one name.
            UsageError: Something is not a registration.
        """
        if isinstance(registrations, Registration) or not isinstance(registrations, Iterable):
            raise UsageError(f"An engine takes a list of registrations, not {registrations!r}: write it in brackets.")
        for registration in cast("Iterable[object]", registrations):
            if not isinstance(registration, WorkflowImplementation):
                raise UsageError(
                    f"An engine takes implemented workflows, not {registration!r}. A contract needs a body "
                    "(`@Contract.implement`), and activities are not registered: the bodies call them."
                )
            known = self._implementations.get(registration.name)
            if known is not None and known is not registration:
                raise DefinitionError(
                    f"Two workflows are named {registration.name!r}. A name is what finds an execution's body again: "
                    "give one of them another name."
                )
            self._implementations[registration.name] = registration

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of registration."""
        return tuple(self._implementations)

    def get(self, name: str) -> Implementation | None:
        """The implementation of this name; None: it is not registered here."""
        return self._implementations.get(name)

    def __getitem__(self, name: str) -> Implementation:
        return self._implementations[name]

    def __contains__(self, name: str) -> bool:
        return name in self._implementations

    def __str__(self) -> str:
        return ", ".join(sorted(self._implementations)) or "nothing"
