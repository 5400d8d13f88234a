"""An instant inside the library: an integer of milliseconds since the epoch, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from perdure.errors import UsageError

__all__ = ["UNTIL_RESUMED", "Instant", "from_datetime", "to_datetime"]

# A plain int, because stores compare and index it, and journals hold one in every entry.
Instant: TypeAlias = int

# The due time of an attempt that somebody has to ask for: the failure before it holds the execution (R36).
UNTIL_RESUMED: Final[Instant] = 2**62

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
# Python's datetimes end here, and a sleep of a million weeks must not make its execution unlistable.
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_LAST_INSTANT: Final = (_LAST - _EPOCH) // _MILLISECOND


def to_datetime(instant: Instant) -> datetime:
    """Give the aware UTC datetime that users see; what lies beyond the year 9999 is shown as its end.

    Example:
        >>> to_datetime(1_000).isoformat()
        '1970-01-01T00:00:01+00:00'
    """
    # Integer arithmetic: fromtimestamp() goes through a float, which for far instants is off by a microsecond.
    return _LAST if instant > _LAST_INSTANT else _EPOCH + instant * _MILLISECOND


def from_datetime(moment: datetime) -> Instant:
    """Give the instant of an aware datetime; fractions of a millisecond round up: never early (R16).

    Raises:
        UsageError: The datetime is naive, so nobody knows which instant it means.

    Example:
        >>> from_datetime(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
        1000
    """
    if moment.utcoffset() is None:
        raise UsageError(
            f"{moment!r} has no time zone, so it names no instant. Write datetime(..., tzinfo=UTC) or .astimezone()."
        )
    return -((_EPOCH - moment) // _MILLISECOND)
