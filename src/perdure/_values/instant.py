"""An instant inside the library: an integer of milliseconds since the epoch, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from perdure.errors import UsageError

__all__ = ["Instant", "from_datetime", "to_datetime"]

# A plain int, because stores compare and index it, and journals hold one in every entry.
Instant: TypeAlias = int

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_datetime(instant: Instant) -> datetime:
    """Give the aware UTC datetime that users see.

    Example:
        >>> to_datetime(1_000).isoformat()
        '1970-01-01T00:00:01+00:00'
    """
    # Integer arithmetic: fromtimestamp() goes through a float and is off by a microsecond now and then.
    return _EPOCH + instant * _MILLISECOND


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
