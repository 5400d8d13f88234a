"""Waiting that survives restarts: sleeps, and the timers that a body asks for."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from perdure._definitions import ambient
from perdure._definitions.host import Call, Host
from perdure._definitions.name import check_name
from perdure._model.clock import SystemClock
from perdure._model.journal import Kind
from perdure._values.duration import Duration, to_ms, to_timedelta
from perdure._values.instant import Instant, from_datetime

# Up to here an execution keeps its worker while it waits; above, it is suspended and its due time recorded (R16).
IN_MEMORY_THRESHOLD_MS: Final = 60_000

_SYSTEM: Final = SystemClock()


def current_instant() -> Instant:
    """What o'clock it is here: in a body on its own clock, in an activity on its engine's, else the system's."""
    host = ambient.host.get()
    if host is not None:
        return host.now()
    attempt = ambient.attempt.get()
    return _SYSTEM.now() if attempt is None else attempt.engine.now()


class TimerCall(Call):
    """A wait that a body asks for, whether by `sleep` or by way of asyncio.

    Its name decides which record it finds; the duration helps to choose among several and never diverges (R8).
    """

    __slots__ = ("durable",)

    input_decides = False

    def __init__(  # noqa: PLR0917 - the kernel makes one for every wait
        self,
        name: str,
        occurrence: int,
        duration_ms: int,
        due_at: Instant,
        durable: bool,  # noqa: FBT001 - a fact, no switch
        number: int,
    ) -> None:
        super().__init__(Kind.TIMER, name, occurrence, b"%d" % duration_ms, number)
        self.due_at = due_at
        # Whether the execution is suspended meanwhile, its due time recorded.
        self.durable = durable

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether it waited as long."""
        return recorded == self.input


@dataclass(frozen=True, slots=True)
class ClockDeferred:
    """The deferred that a clock completes when its time has come.

    Attributes:
        name: What its completion is recorded under.
    """

    name: str


@dataclass(frozen=True, slots=True)
class DurableClock:
    """A named wait of a certain length, which survives restarts.

    Attributes:
        name: Its name.
        duration: How long it waits.

    Example:
        >>> clock = DurableClock.make(name="deadline", duration="1 day")
        >>> clock.name, clock.duration, clock.deferred.name
        ('deadline', datetime.timedelta(days=1), 'DurableClock/deadline')
    """

    name: str
    duration: timedelta

    @staticmethod
    def make(*, name: str, duration: Duration) -> "DurableClock":
        """Describe a wait; nothing begins to wait by it.

        Raises:
            DefinitionError: The name cannot be recorded.
            UsageError: The duration is none.
        """
        return DurableClock(check_name(name, "a clock"), to_timedelta(duration))

    @property
    def deferred(self) -> ClockDeferred:
        """What this clock completes."""
        return ClockDeferred(f"DurableClock/{self.name}")

    @staticmethod
    async def sleep(*, name: str, duration: Duration, in_memory_threshold: Duration = "60 seconds") -> None:
        """Wait, under a name: the same as the function `sleep`."""
        await sleep(duration, name=name, in_memory_threshold=in_memory_threshold)


async def sleep(duration: Duration, *, name: str | None = None, in_memory_threshold: Duration = "60 seconds") -> None:
    """Wait; in a body the wait survives restarts, after which only the rest is waited for.

    Zero or negative returns at once and records nothing. Each call is a wait of its own, whatever its name (R17).
    In an activity, it waits in place on the engine's clock; outside of both, it waits like `asyncio.sleep`, so that
    code which is shared with a workflow can be tried without an engine.

    Args:
        duration: How long: a bare number means seconds (`sleep(5)`), text says its unit (`"5 minutes"`). Fractions of
            a millisecond round up; it is never too early.
        name: What it is called for those who look, and what finds its record after the code has changed.
            Without one, its length is its name.
        in_memory_threshold: Up to this long the execution keeps its worker while it waits.

    Raises:
        UsageError: A duration is none, or the name cannot be recorded.

    Example:
        >>> asyncio.run(sleep("1 millis"))
    """
    duration_ms = to_ms(duration)
    threshold_ms = to_ms(in_memory_threshold)
    named = None if name is None else check_name(name, "a sleep")
    if duration_ms <= 0:
        return
    host = ambient.host.get()
    if host is not None:
        await _ask(host, named or f"sleep:{seconds_text(duration_ms / 1_000)}", duration_ms, threshold_ms)
        return
    attempt = ambient.attempt.get()
    if attempt is not None:
        await attempt.sleep(duration_ms)
    else:
        await asyncio.sleep(duration_ms / 1_000)


async def sleep_until(
    moment: datetime, *, name: str | None = None, in_memory_threshold: Duration = "60 seconds"
) -> None:
    """Wait until an instant; one that has passed returns at once and records nothing.

    Args:
        moment: An aware datetime.
        name: As for `sleep`; without one, the instant is its name.
        in_memory_threshold: As for `sleep`.

    Raises:
        UsageError: The datetime has no time zone, or the name cannot be recorded.

    Example:
        >>> from datetime import UTC
        >>> asyncio.run(sleep_until(datetime(2020, 1, 1, tzinfo=UTC)))
    """
    due_at = from_datetime(moment)
    rest = timedelta(milliseconds=due_at - current_instant())
    # Not the rest: that is another number on every replay of changed code, and the instant is what was meant.
    called = f"until:{moment.isoformat()}" if name is None else name
    await sleep(rest, name=called, in_memory_threshold=in_memory_threshold)


def _ask(host: Host, name: str, duration_ms: int, threshold_ms: int) -> "asyncio.Future[Any]":
    return host.ask(
        TimerCall(
            name,
            host.occurrence(Kind.TIMER, name),
            duration_ms,
            host.now() + duration_ms,
            duration_ms > threshold_ms,
            host.number(),
        )
    )


def seconds_text(seconds: float) -> str:
    """Write a duration as it stands in an unnamed timer's name: the shortest text, whole seconds without a fraction."""
    rounded = round(seconds, 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)
