"""Clocks of tests: one that stands still until it is moved, and one that knows which of its alarms mean something."""

import asyncio
import heapq
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from perdure._engine.results import Results
from perdure._engine.wakes import Wakes
from perdure._model.clock import Alarm
from perdure._values.instant import Instant, from_datetime, to_datetime

# 2026-01-01T00:00:00Z: a plausible instant, so that nothing mistakes it for a duration.
SOME_DAY: Final[Instant] = 1_767_225_600_000
# Cancelled alarms wait in a queue until their time has come; more than this many, and half of all, and it is swept.
SWEPT: Final = 64


class ManualClock:
    """Time as the test says it is.

    Any thread may ask it. Alarms are called on the loop on which they were set, by `advance`, in
    the order of their instants; what is due when it is set is called on the next turn of the loop.
    Those of a loop that has been closed are forgotten: its engine has gone, and the clock is the next one's.

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
        self._alarms = _Queue()

    def now(self) -> Instant:
        """Milliseconds since the epoch, UTC."""
        return self._now

    def advance(self, milliseconds: int) -> None:
        """Let time pass; a negative number sets the clock back, as an operator may."""
        self._now += milliseconds
        self._alarms.ring(self._now)

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        return self._set(self._alarms, when, callback)

    def next_alarm(self) -> Instant | None:
        """When the earliest alarm is to come; None when none is set."""
        return self._alarms.earliest()

    def _set(self, queue: "_Queue", when: Instant, callback: Callable[[], object]) -> Alarm:
        alarm = _ManualAlarm(queue, when, callback)
        if when <= self._now:
            alarm.ring()
        else:
            queue.add(alarm)
        return alarm


class VirtualClock(ManualClock):
    """The clock of a `TestEngine`, or of several that share it.

    It knows which alarms mean something: a timer, a timeout, the delay of a retry, somebody who waits no longer. The
    rounds that an engine takes in case nobody calls it do not, and no time is skipped for them.

    Args:
        now: An aware datetime, or milliseconds since the epoch; by default the first instant of 2026.

    Example:
        >>> from datetime import UTC, datetime
        >>> clock = VirtualClock(datetime(2030, 2, 28, 12, tzinfo=UTC))
        >>> clock.advance(24 * 60 * 60 * 1_000)
        >>> clock.time.isoformat()
        '2030-03-01T12:00:00+00:00'
    """

    def __init__(self, now: datetime | Instant = SOME_DAY) -> None:
        super().__init__(from_datetime(now) if isinstance(now, datetime) else now)
        self._rounds = _Queue()
        # Those after which an engine says that nobody has registered what somebody waits for.
        self._looks = _Queue()
        # Told of each alarm that means something: something may have come to rest.
        self.listener: Callable[[], object] | None = None

    @property
    def time(self) -> datetime:
        """What o'clock it is: an aware datetime in UTC."""
        return to_datetime(self._now)

    def advance(self, milliseconds: int) -> None:
        """Let time pass; a negative number sets the clock back, as an operator may."""
        super().advance(milliseconds)
        self._rounds.ring(self._now)
        self._looks.ring(self._now)

    def look_now(self) -> None:
        """Have engines look now whether what somebody waits for is registered: no time will pass by itself any more."""
        while (due := self._looks.earliest()) is not None:
            self._looks.ring(due)

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        owner = getattr(getattr(callback, "func", callback), "__self__", None)
        # An engine that only looks around, and would find nothing at that time either.
        if isinstance(owner, Wakes | Results):
            return self._set(self._rounds if isinstance(owner, Wakes) else self._looks, when, callback)
        alarm = super().call_at(when, callback)
        if self.listener is not None:
            self.listener()
        return alarm

    def next_alarm(self) -> Instant | None:
        """When the earliest alarm is to come; None when none is set."""
        queues = (self._alarms, self._rounds, self._looks)
        return min((due for queue in queues if (due := queue.earliest()) is not None), default=None)

    def next_event(self) -> Instant | None:
        """When the earliest alarm is to come that means something; None when none is set."""
        return self._alarms.earliest()


class _Queue:
    """Alarms in the order of their instants and, among equals, of their setting."""

    def __init__(self) -> None:
        self._alarms: list[tuple[Instant, int, _ManualAlarm]] = []
        self._count = 0
        self._cancelled = 0

    def add(self, alarm: "_ManualAlarm") -> None:
        self._count += 1
        heapq.heappush(self._alarms, (alarm.when, self._count, alarm))

    def earliest(self) -> Instant | None:
        while self._alarms and not self._alarms[0][2].is_set:
            heapq.heappop(self._alarms)
            self._cancelled -= 1
        return self._alarms[0][0] if self._alarms else None

    def ring(self, now: Instant) -> None:
        while (due := self.earliest()) is not None and due <= now:
            heapq.heappop(self._alarms)[2].ring()

    def cancelled(self) -> None:
        """One of them is not to be called; while time stands still nothing else would sweep it out."""
        self._cancelled += 1
        if self._cancelled > max(SWEPT, len(self._alarms) // 2):
            self._alarms = [entry for entry in self._alarms if entry[2].is_set]
            heapq.heapify(self._alarms)
            self._cancelled = 0


class _ManualAlarm:
    """A call that is to come when the test says so."""

    __slots__ = ("_callback", "_loop", "_queue", "_rung", "_thread", "is_set", "when")

    def __init__(self, queue: _Queue, when: Instant, callback: Callable[[], object]) -> None:
        self.when = when
        self.is_set = True
        # It has left the queue: its time has come.
        self._rung = False
        self._queue = queue
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def cancel(self) -> None:
        """Do not call."""
        if self.is_set:
            self.is_set = False
            if not self._rung:
                self._queue.cancelled()

    def ring(self) -> None:
        self._rung = True
        if self._loop.is_closed():
            self.is_set = False
        # Not at once: the callback finds the loop as it would find it with the host's clock.
        elif threading.get_ident() == self._thread:
            self._loop.call_soon(self._call)
        else:
            self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if self.is_set:
            self.is_set = False
            self._callback()
