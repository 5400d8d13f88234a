"""Durations as users write them."""

import math
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure._values.duration import describe_ms, to_ms, to_timedelta
from perdure.errors import UsageError

UNITS = {
    "milli": 1,
    "millisecond": 1,
    "second": 1000,
    "sec": 1000,
    "minute": 60_000,
    "min": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}


@pytest.mark.parametrize(
    ("duration", "ms"),
    [
        ("500 millis", 500),
        ("5 seconds", 5_000),
        ("1 minute", 60_000),
        ("1 hour", 3_600_000),
        ("3 days", 259_200_000),
        ("2 weeks", 1_209_600_000),
        ("0 millis", 0),
        ("500ms", 500),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("1 hour 30 minutes", 5_400_000),
        ("1.5 hours", 5_400_000),
        (" 5  Seconds ", 5_000),
        ("PT1H", 3_600_000),
        ("P1D", 86_400_000),
        ("P1DT2H3M4.5S", 93_784_500),
        ("P2W", 1_209_600_000),
        ("-5 seconds", -5_000),
        ("-PT5S", -5_000),
        (5, 5_000),
        (0.25, 250),
        (0, 0),
        (-1, -1_000),
        (timedelta(minutes=2), 120_000),
    ],
)
def test_every_form_of_the_contract_is_read(duration: timedelta | float | str, ms: int) -> None:
    """Section 4 of the contract."""
    assert to_ms(duration) == ms


@pytest.mark.parametrize(
    "garbage",
    ["", " ", "5", "five seconds", "5 parsecs", "5 seconds!", "P", "PT", "P1DT", "1 month", "--5s", "5 s s", "P1Y",
     "٣ days", "1e3 s", "s", "5 ss", "99999999999 weeks", math.nan, math.inf, -math.inf, 1e300, True, False, None,
     b"5s", 3j, [5]],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(garbage: object) -> None:
    """An error names who can act, what was given, and what would do."""
    with pytest.raises(UsageError) as refused:
        to_ms(garbage)  # type: ignore[arg-type]
    assert repr(garbage) in str(refused.value)
    assert '"5 seconds"' in str(refused.value)


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.booleans(), st.booleans())
def test_a_number_and_a_unit_are_exact(number: int, unit: str, plural: bool, spaced: bool) -> None:
    """Singular, plural, with and without a space."""
    text = f"{number}{' ' if spaced else ''}{unit}{'s' if plural else ''}"
    assert to_ms(text) == number * UNITS[unit]


@given(st.timedeltas())
@example(timedelta.max)
@example(timedelta.min)
def test_milliseconds_round_up(duration: timedelta) -> None:
    """R16: fractions of a millisecond round up, never early."""
    # In numbers: the longest timedelta, rounded up, is none any more.
    assert 0 <= to_ms(duration) * 1_000 - duration // timedelta(microseconds=1) < 1_000


@pytest.mark.parametrize(("seconds", "ms"), [(0.0001, 1), (0.0015, 2), (-0.0001, 0), (1.001, 1001)])
def test_fractions_of_seconds_round_up(seconds: float, ms: int) -> None:
    """R16."""
    assert to_ms(seconds) == ms


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_a_timedelta_is_itself(duration: timedelta) -> None:
    """Nothing is lost on the way in."""
    assert to_timedelta(duration) == duration


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 milliseconds"),
        (1, "1 millisecond"),
        (500, "500 milliseconds"),
        (1_000, "1 second"),
        (1_500, "1.5 seconds"),
        (60_000, "1 minute"),
        (5_400_000, "1 hour 30 minutes"),
        (86_400_000, "1 day"),
        (8 * 86_400_000, "1 week 1 day"),
        (93_784_500, "1 day 2 hours"),
        (-5_000, "-5 seconds"),
    ],
)
def test_a_duration_is_said_in_words(ms: int, said: str) -> None:
    """Used in messages, and read back by the same people."""
    assert describe_ms(ms) == said


@given(st.integers(0, 10**6))
def test_what_is_said_below_a_minute_reads_back(ms: int) -> None:
    """What a message says can be pasted into the code."""
    if ms < 60_000:
        assert to_ms(describe_ms(ms)) == ms
