"""Instants: milliseconds inside, aware datetimes outside."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure._values.instant import from_datetime, to_datetime
from perdure.errors import UsageError

LATEST = from_datetime(datetime(9999, 12, 31, tzinfo=UTC))


@given(st.integers(-(10**12), LATEST))
def test_an_instant_comes_back(instant: int) -> None:
    """Also far from the epoch, where a float would be off."""
    assert from_datetime(to_datetime(instant)) == instant
    assert to_datetime(instant).tzinfo is UTC


def test_the_zone_does_not_matter() -> None:
    """An instant is one, wherever it was written down."""
    here = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert from_datetime(here) == from_datetime(datetime(2026, 1, 1, 10, tzinfo=UTC))


def test_fractions_of_a_millisecond_round_up() -> None:
    """R16: never early."""
    assert from_datetime(datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)) == 1
    assert from_datetime(datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)) == 1


def test_a_naive_datetime_is_refused() -> None:
    """It would mean another instant on every host."""
    with pytest.raises(UsageError, match="time zone"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - the very thing that is refused
