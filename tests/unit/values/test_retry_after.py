"""RetryAfter: the activity sets the next delay itself."""

import copy

import pytest

from perdure._values.retry_after import RetryAfter
from perdure.errors import UsageError


def test_it_takes_any_duration() -> None:
    """R11."""
    assert RetryAfter("30 seconds").delay_ms == 30_000
    assert RetryAfter(0).delay_ms == 0
    assert RetryAfter(-5).delay_ms == 0


def test_it_says_what_it_asks_for_and_copies() -> None:
    """Groups copy what they hold."""
    again = copy.copy(RetryAfter("30 seconds"))
    assert (str(again), again.delay_ms) == ("try again in 30 seconds", 30_000)


def test_a_delay_that_is_none_is_refused() -> None:
    """There, and not later in the engine."""
    with pytest.raises(UsageError):
        RetryAfter("soon")
