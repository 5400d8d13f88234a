"""Schedules: how long to wait before each retry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure._values.schedule import Schedule
from perdure.errors import UsageError


def delays(schedule: Schedule, retries: int = 6, random: float = 0.5, attempt_ms: int = 0) -> list[int | None]:
    """Follow a schedule as an engine does, each attempt taking so long."""
    said: list[int | None] = []
    elapsed = 0
    for retry in range(1, retries + 1):
        said.append(delay := schedule.delay_ms(retry, elapsed, random))
        elapsed += (delay or 0) + attempt_ms
    return said


def test_exponential_grows_by_its_factor() -> None:
    """R11."""
    assert delays(Schedule.exponential("500 millis"), 4) == [500, 1000, 2000, 4000]
    assert delays(Schedule.exponential("400 millis", factor=1.5), 3) == [400, 600, 900]


def test_exponential_stops_growing_at_its_maximum() -> None:
    """As a keyword or as a method, the same."""
    capped = Schedule.exponential("1 second", max="5 seconds")
    assert delays(capped, 5) == [1000, 2000, 4000, 5000, 5000]
    assert capped == Schedule.exponential(1).capped(5)


def test_exponential_never_overflows() -> None:
    """A retry without end reaches numbers that no float holds."""
    assert Schedule.exponential("1 second", factor=10).delay_ms(10**6, 0, 0.9) == 9 * 10**12
    assert Schedule.exponential("0 millis").delay_ms(10**6, 0, 0.9) is not None


def test_spaced_waits_the_same_each_time() -> None:
    """However long the attempts take."""
    assert delays(Schedule.spaced("10 seconds"), 3, attempt_ms=7000) == [10_000] * 3


def test_fixed_keeps_to_its_grid() -> None:
    """Effect's: a slow attempt takes from the wait and does not push the grid back."""
    assert delays(Schedule.fixed("10 seconds"), 3, attempt_ms=3000) == [10_000, 7000, 7000]
    assert delays(Schedule.fixed("10 seconds"), 3) == [10_000] * 3
    assert delays(Schedule.fixed(0), 2) == [0, 0]


def test_recurs_does_not_wait() -> None:
    """And ends after its number."""
    assert delays(Schedule.recurs(2), 3) == [0, 0, None]


def test_times_allows_so_many_retries() -> None:
    """R11: times(n) is n + 1 attempts, and 0 is none (numeric zero is not "default")."""
    assert delays(Schedule.spaced(1).times(2), 4) == [1000, 1000, None, None]
    assert delays(Schedule.spaced(1).times(0), 1) == [None]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 5))
def test_jitter_spreads_over_80_to_120_percent(random: float, retry: int) -> None:
    """As in Effect."""
    plain = Schedule.exponential("1 second")
    exact = plain.delay_ms(retry, 0, random)
    jittered = plain.jittered().delay_ms(retry, 0, random)
    assert exact is not None
    assert jittered is not None
    assert 0.8 * exact <= jittered <= 1.2 * exact + 1
    assert Schedule.exponential("1 second", jitter=True) == plain.jittered()


def test_jitter_uses_its_whole_range() -> None:
    """Both ends, or it would be no jitter at all."""
    schedule = Schedule.spaced("10 seconds").jittered()
    assert schedule.delay_ms(1, 0, 0.0) == 8000
    assert 11_999 <= (schedule.delay_ms(1, 0, 0.99999) or 0) <= 12_000


def test_jitter_does_not_pass_the_maximum() -> None:
    """ "At most a minute apart" is meant as it says."""
    assert Schedule.spaced("1 minute").capped("1 minute").jittered().delay_ms(1, 0, 0.99) == 60_000


@pytest.mark.parametrize(
    "written",
    [
        "exponential('soon')",
        "exponential(-1)",
        "exponential(1, factor=0.5)",
        "exponential(1, factor=float('nan'))",
        "exponential(1, factor=True)",
        "spaced('-1 second')",
        "fixed(-1)",
        "recurs(-1)",
        "spaced(1).times(1.5)",
        "spaced(1).times(True)",
        "spaced(1).capped(-1)",
    ],
)
def test_nonsense_is_refused_where_it_is_written(written: str) -> None:
    """Not at the first retry in the middle of the night."""
    with pytest.raises(UsageError):
        eval(f"Schedule.{written}")


def test_a_schedule_is_a_value() -> None:
    """Its methods give another one."""
    base = Schedule.spaced("1 second")
    assert base.times(3) != base
    assert base == Schedule.spaced(1)
    assert hash(base) == hash(Schedule.spaced(1))


def test_a_schedule_says_how_to_write_it() -> None:
    """Its repr is code."""
    schedule = Schedule.exponential("500 millis", factor=3, max="1 minute", jitter=True).times(5)
    said = "Schedule.exponential('500 milliseconds', factor=3).capped('1 minute').jittered().times(5)"
    assert repr(schedule) == said
    assert eval(said) == schedule
