"""How the attempts of an activity are made: what users say about it, checked when it is said."""

from typing import Any, Final, Literal, Never, TypeAlias, TypedDict, cast

from typing_extensions import TypeVar

from perdure._definitions.name import check_name
from perdure._values.duration import Duration, to_ms
from perdure._values.schedule import Schedule
from perdure.errors import DefinitionError

F = TypeVar("F", bound=Exception, default=Never)

Errors: TypeAlias = type[F] | tuple[type[F], ...]

# An attempt that cancels itself from inside is tried again so often (R13).
INTERRUPT_RETRY: Final = Schedule.exponential("400 millis", factor=1.5, max="10 seconds").times(10)


class ActivityChanges(TypedDict, total=False):
    """What `Activity.options` changes for one call."""

    name: str
    retry: Schedule | None
    interrupt_retry: Schedule | None
    timeout: Duration | None
    total_timeout: Duration | None


class InlineOptions(TypedDict, total=False):
    """What an activity can be told, beside its name."""

    error: Errors[Exception]
    retry: Schedule | None
    interrupt_retry: Schedule | None
    timeout: Duration | None
    total_timeout: Duration | None
    delivery: Literal["at_least_once", "at_most_once"]
    formerly: tuple[str, ...]


class ActivityOptions(InlineOptions, total=False):
    """What an activity can be told."""

    name: str


def read_errors(error: Any) -> tuple[type[Exception], ...]:
    """Give declared errors as a tuple; the codec looks whether they are errors."""
    return cast("tuple[Any, ...]", error) if isinstance(error, tuple) else (error,)


def read_schedule(schedule: Any, what: str, owner: str) -> Schedule | None:
    """Give a schedule.

    Raises:
        DefinitionError: It is none.
    """
    if schedule is None or isinstance(schedule, Schedule):
        return schedule
    raise DefinitionError(
        f"{owner}: {what} must be a Schedule such as Schedule.spaced('10 seconds').times(3), not {schedule!r}.",
        owner=owner,
    )


def read_timeout(duration: Duration | None, what: str, owner: str) -> int | None:
    """Give a timeout in milliseconds.

    Raises:
        DefinitionError: It is nothing or less, which no attempt could keep.
        UsageError: It is no duration.
    """
    if duration is None:
        return None
    duration_ms = to_ms(duration)
    if duration_ms <= 0:
        raise DefinitionError(f"{owner}: {what} must be longer than nothing, not {duration!r}.", owner=owner)
    return duration_ms


def is_at_most_once(delivery: Any, owner: str) -> bool:
    """Whether an attempt that was cut off is not tried again (R50).

    Raises:
        DefinitionError: It is neither of the two ways.
    """
    if delivery not in ("at_least_once", "at_most_once"):
        raise DefinitionError(
            f"{owner}: delivery must be 'at_least_once' or 'at_most_once', not {delivery!r}.", owner=owner
        )
    return delivery == "at_most_once"


def read_former_names(names: Any, owner: str) -> tuple[str, ...]:
    """Give the names that records may have.

    Raises:
        DefinitionError: One of them cannot be a name.
    """
    if isinstance(names, str):
        raise DefinitionError(f"{owner}: formerly is a tuple of names: formerly=({names!r},).", owner=owner)
    return tuple(check_name(name, f"{owner} in former days") for name in names)
