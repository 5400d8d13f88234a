"""The port to time: what o'clock it is, and being called at an instant.

Nothing else in the engine asks the operating system for the time, so a test that brings its own
clock controls every wait there is.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from perdure._values.instant import Instant

# A wall clock may be set while somebody waits on the monotonic one. No wait is longer than this
# before the wall clock is asked again, so a clock set forward makes a timer late by this at most.
LONGEST_WAIT_S = 60.0


class Alarm(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Do not call. Nothing happens when the call was already made."""
        ...


class Clock(Protocol):
    """The time of one store, as this process knows it."""

    def now(self) -> Instant:
        """Milliseconds since the epoch, UTC."""
        ...

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        ...


class SystemClock:
    """The host's clock."""

    def now(self) -> Instant:
        """Milliseconds since the epoch, UTC, rounded down."""
        return time.time_ns() // 1_000_000

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        return _SystemAlarm(self, when, callback)


class _SystemAlarm:
    """Waits on the loop's monotonic clock and asks the wall clock again before it calls."""

    __slots__ = ("_callback", "_clock", "_handle", "_loop", "_when")

    def __init__(self, clock: SystemClock, when: Instant, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._when = when
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle = self._arm()

    def cancel(self) -> None:
        """Do not call."""
        self._handle.cancel()

    def _arm(self) -> asyncio.TimerHandle:
        wait = (self._when - self._clock.now()) / 1_000
        return self._loop.call_later(min(max(wait, 0.0), LONGEST_WAIT_S), self._look)

    def _look(self) -> None:
        if self._clock.now() < self._when:
            self._handle = self._arm()
        else:
            self._callback()
