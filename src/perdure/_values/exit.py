"""How something ended, and what polling it gives."""

from dataclasses import dataclass
from typing import Generic, NoReturn, TypeAlias, final

from typing_extensions import TypeVar

from perdure._values.cause import Cause

__all__ = ["Complete", "Exit", "Failure", "Poll", "Success", "Suspended"]

A_co = TypeVar("A_co", covariant=True)


@final
@dataclass(frozen=True, slots=True)
class Success(Generic[A_co]):
    """It ended with a value.

    Attributes:
        value: The value, decoded.

    Example:
        >>> Success(3).unwrap()
        3
    """

    value: A_co

    def unwrap(self) -> A_co:
        """Give the value."""
        return self.value


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """It ended with a cause.

    Attributes:
        cause: Why.

    Example:
        >>> Failure(Cause.fail(LookupError("no such order"))).unwrap()
        Traceback (most recent call last):
        LookupError: no such order
    """

    cause: Cause

    def unwrap(self) -> NoReturn:
        """Raise the cause: a single reason as itself, several as an ExceptionGroup.

        Raises:
            BaseException: What the cause stands for.
        """
        error = self.cause.to_exception()
        try:
            raise error
        finally:
            # The traceback holds this frame: with these names in it, frame and error would hold each other.
            del self, error


# A union has no base class on purpose: with one, both checkers lose the exhaustive match.
Exit: TypeAlias = Success[A_co] | Failure


@final
@dataclass(frozen=True, slots=True)
class Complete(Generic[A_co]):
    """The execution has finished.

    Attributes:
        exit: How.

    Example:
        >>> Complete(Success("x")) == Complete(Success("x"))
        True
    """

    exit: Exit[A_co]


@final
@dataclass(frozen=True, slots=True)
class Suspended:
    """The execution waits for something from outside, or is held.

    Attributes:
        cause: Why it is held; None while it only waits.

    Example:
        >>> Suspended().cause is None
        True
    """

    cause: Cause | None = None


Poll: TypeAlias = Suspended | Complete[A_co] | None
