"""A clock that stands still until a test moves it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from perdure._model.clock import Alarm
from perdure._values.instant import Instant

# 2026-01-01T00:00:00Z: a plausible instant, so that nothing mistakes it for a duration.
SOME_DAY: Final[Instant] = 1_767_225_600_000


class ManualClock:
    """Time as the test says it is.

    Any thread may ask it. Alarms are called on the loop on which they were set, by `advance`, in
    the order of their instants; what is due when it is set is called on the next turn of the loop.

    Args:
        now: Milliseconds since the epoch.

    Example:
        >>> clock = ManualClock(1_000)
        >>> clock.advance(500)
        >>> clock.now()
        1500
    """

    def __init__(self, now: Instant = SOME_DAY) -> None:
        self._now = now
        self._alarms: list[_ManualAlarm] = []

    def now(self) -> Instant:
        """Milliseconds since the epoch, UTC."""
        return self._now

    def advance(self, milliseconds: int) -> None:
        """Let time pass; a negative number sets the clock back, as an operator may."""
        self._now += milliseconds
        self._ring()

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        alarm = _ManualAlarm(when, callback)
        self._alarms.append(alarm)
        self._ring()
        return alarm

    def next_alarm(self) -> Instant | None:
        """When the earliest alarm is to come; None when none is set."""
        return min((alarm.when for alarm in self._alarms if alarm.is_set), default=None)

    def _ring(self) -> None:
        due = sorted((a for a in self._alarms if a.is_set and a.when <= self._now), key=lambda alarm: alarm.when)
        self._alarms = [alarm for alarm in self._alarms if alarm.when > self._now and alarm.is_set]
        for alarm in due:
            alarm.ring()


class _ManualAlarm:
    """A call that is to come when the test says so."""

    __slots__ = ("_callback", "_loop", "_thread", "is_set", "when")

    def __init__(self, when: Instant, callback: Callable[[], object]) -> None:
        self.when = when
        self.is_set = True
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def cancel(self) -> None:
        """Do not call."""
        self.is_set = False

    def ring(self) -> None:
        # Not at once: the callback finds the loop as it would find it with the host's clock.
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._call)
        else:
            self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if self.is_set:
            self.is_set = False
            self._callback()
