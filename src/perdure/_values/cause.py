"""Why something failed: the reasons, one or several, that become one exception again."""

from asyncio import CancelledError
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast, final

from perdure._values.typed_error import TypedError
from perdure.errors import ActivityTimeout, DeadlineExceeded, Defect, Interrupted, OutcomeUnknown, PerdureError

__all__ = ["Cause", "Die", "Fail", "Interrupt", "Reason", "cause_of"]

# Outcomes that a body may catch or declare as they are; as defects they would lose their class on replay.
_OUTCOMES = (ActivityTimeout, DeadlineExceeded, OutcomeUnknown)


@final
@dataclass(frozen=True, slots=True)
class Fail:
    """A declared error, or an outcome such as ActivityTimeout.

    Attributes:
        error: The error itself.

    Example:
        >>> Cause.fail(LookupError("no such order")).reasons
        (Fail(error=LookupError('no such order')),)
    """

    error: Exception


@final
@dataclass(frozen=True, slots=True)
class Die:
    """An error that nobody declared.

    Attributes:
        defect: Its name, message and traceback text.

    Example:
        >>> Cause.die(RuntimeError("wires crossed")).reasons[0].defect.message
        'wires crossed'
    """

    defect: Defect

    # Defects are exceptions, equal only to themselves; two causes that say the same are equal all the same.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Die):
            return NotImplemented
        return self.defect.args == other.defect.args

    def __hash__(self) -> int:
        return hash(self.defect.args)


@final
@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody asked it to end.

    Example:
        >>> Cause.interrupt().reasons
        (Interrupt(),)
    """


Reason: TypeAlias = Fail | Die | Interrupt


@final
@dataclass(frozen=True, slots=True)
class Cause:
    """Why an execution, an activity or a deferred failed.

    Attributes:
        reasons: One or several, in the order in which they came.

    Example:
        >>> print(Cause.fail(LookupError("no such order")))
        LookupError: no such order
        >>> print(Cause.interrupt())
        Interrupted
    """

    reasons: tuple[Reason, ...]

    @staticmethod
    def fail(error: Exception) -> "Cause":
        """Give the cause that is one declared error."""
        return Cause((Fail(error),))

    @staticmethod
    def die(defect: BaseException) -> "Cause":
        """Give the cause that is one defect; any exception becomes one."""
        return Cause((Die(Defect.from_exception(defect)),))

    @staticmethod
    def interrupt() -> "Cause":
        """Give the cause that is an interruption."""
        return Cause((Interrupt(),))

    @staticmethod
    def from_exception(
        exception: BaseException, declared: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> "Cause":
        """Tell what an exception means, groups flattened in order (R34).

        Args:
            exception: What was raised.
            declared: The errors that count as declared; without them every TypedError does.
        """
        return cause_of(exception, declared or TypedError)

    def to_exception(self) -> BaseException:
        """Give what a caller sees raised: a single reason as itself, several as an ExceptionGroup (R34).

        A defect carries the traceback of the original as a note, since its own one ends where it is raised again.
        """
        raised = [_exception(reason) for reason in self.reasons]
        return raised[0] if len(raised) == 1 else ExceptionGroup("several failures", raised)

    def __str__(self) -> str:
        return "; ".join(_sentence(reason) for reason in self.reasons)


def cause_of(
    exception: BaseException, declared: type[Exception] | tuple[type[Exception], ...], owner: str = ""
) -> Cause:
    """Tell what an exception means where exactly these errors are declared; none, if the tuple is empty.

    Args:
        exception: What was raised.
        declared: The errors that count as declared.
        owner: Who declares them, as in ``Workflow "pay"``: a TypedError that became a defect then gets a note.
    """
    reasons = tuple(_reason(leaf, declared, owner) for leaf in _leaves(exception))
    # R34: a real failure beats the interrupts beside it, which are mostly a TaskGroup's cancelled siblings.
    real = tuple(reason for reason in reasons if not isinstance(reason, Interrupt))
    return Cause(real or (Interrupt(),))


def _leaves(exception: BaseException) -> Iterator[BaseException]:
    if not isinstance(exception, BaseExceptionGroup):
        yield exception
        return
    group = cast("BaseExceptionGroup[BaseException]", exception)
    for inner in group.exceptions:
        yield from _leaves(inner)


def _reason(exception: BaseException, declared: type[Exception] | tuple[type[Exception], ...], owner: str) -> Reason:
    if isinstance(exception, (Interrupted, CancelledError)):
        return Interrupt()
    if isinstance(exception, Exception) and isinstance(exception, (declared, _OUTCOMES)):
        return Fail(exception)
    if owner and isinstance(exception, TypedError):
        # On the original and not on the defect: notes are part of the traceback's text, and that is what is recorded.
        _note_once(exception, _undeclared(type(exception).__name__, owner))
    return Die(Defect.from_exception(exception))


def _undeclared(error: str, owner: str) -> str:
    kind, _, name = owner.partition(" ")
    return f"{error} is a TypedError that {kind.lower()} {name} does not declare: @{kind.lower()}(error={error})."


def _note_once(exception: BaseException, note: str) -> None:
    # The same object comes here again: a cause is raised to every caller, a retried attempt may raise one instance.
    if note not in getattr(exception, "__notes__", ()):
        exception.add_note(note)


def _exception(reason: Reason) -> Exception:
    match reason:
        case Fail(error):
            return error
        case Die(defect):
            if defect.traceback:
                _note_once(defect, f"It was raised here:\n{defect.traceback.rstrip()}")
            return defect
        case Interrupt():
            return Interrupted()


def _sentence(reason: Reason) -> str:
    match reason:
        case Fail(error):
            # Ours say who they are in their sentence; a foreign one, as in KeyError('x'), often says next to nothing.
            return str(error) if isinstance(error, (TypedError, PerdureError)) else f"{type(error).__name__}: {error}"
        case Die(defect):
            return str(defect)
        case Interrupt():
            return "Interrupted"
