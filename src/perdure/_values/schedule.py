"""How long to wait before each retry of something that failed."""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, final

from perdure._values.duration import Duration, describe_ms, to_ms
from perdure.errors import UsageError

__all__ = ["Schedule"]

# As in Effect: a delay of 10 s becomes anything from 8 s to 12 s, so that what failed together does not return together.
_JITTER_FROM: Final = 0.8
_JITTER_RANGE: Final = 0.4
_USUAL_FACTOR: Final = 2
# A factor to the power of the retry number soon passes every float; no wait is longer than this anyway (about 285 years).
_LONGEST_MS: Final = 9 * 10**12


@final
@dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """How long to wait before each retry.

    ``.times(n)`` allows n retries, so n + 1 attempts; without it there is no end. A schedule is a value: its methods
    give another one.

    Example:
        >>> Schedule.exponential("500 millis", max="1 minute").times(5)
        Schedule.exponential('500 milliseconds').capped('1 minute').times(5)
        >>> Schedule.spaced("10 seconds").times(2).delay_ms(1, elapsed_ms=0, random=0.5)
        10000
        >>> Schedule.spaced("10 seconds").times(2).delay_ms(3, elapsed_ms=0, random=0.5) is None
        True
    """

    kind: Literal["exponential", "spaced", "fixed"]
    base_ms: int
    factor: float = 1
    retries: int | None = None
    max_ms: int | None = None
    jitter: bool = False

    @staticmethod
    def exponential(
        base: Duration,
        factor: float = 2,
        max: Duration | None = None,
        jitter: bool = False,  # noqa: FBT001, FBT002 - the word of the contract
    ) -> "Schedule":
        """Wait ``base`` first, then ``factor`` times longer before each further retry.

        Args:
            base: The first delay.
            factor: What each delay is multiplied by; at least 1.
            max: No delay is longer than this.
            jitter: Spread each delay over 80 to 120 % of itself.

        Raises:
            UsageError: A duration is none or negative, or the factor is below 1.
        """
        if isinstance(factor, bool) or not math.isfinite(factor) or factor < 1:
            raise UsageError(f"A schedule's factor must be a number of at least 1, and is {factor!r}.")
        schedule = Schedule("exponential", _delay_ms(base), factor=factor, jitter=jitter)
        return schedule if max is None else schedule.capped(max)

    @staticmethod
    def spaced(delay: Duration) -> "Schedule":
        """Wait the same time before each retry.

        Raises:
            UsageError: The duration is none or negative.
        """
        return Schedule("spaced", _delay_ms(delay))

    @staticmethod
    def fixed(interval: Duration) -> "Schedule":
        """Retry on a grid that begins at the first failure, so that slow attempts do not push later ones back.

        Raises:
            UsageError: The duration is none or negative.
        """
        return Schedule("fixed", _delay_ms(interval))

    @staticmethod
    def recurs(retries: int) -> "Schedule":
        """Retry so many times without waiting.

        Raises:
            UsageError: The number is negative or none.
        """
        return Schedule("spaced", 0).times(retries)

    def times(self, retries: int) -> "Schedule":
        """Allow so many retries, that is one attempt more; 0 allows none.

        Raises:
            UsageError: The number is negative or none.
        """
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"A number of retries is 0 or more, and not {retries!r}.")
        return replace(self, retries=retries)

    def jittered(self) -> "Schedule":
        """Spread each delay over 80 to 120 % of itself."""
        return replace(self, jitter=True)

    def capped(self, longest: Duration) -> "Schedule":
        """Let no delay be longer than this, jitter included.

        Raises:
            UsageError: The duration is none or negative.
        """
        return replace(self, max_ms=_delay_ms(longest))

    def delay_ms(self, retry: int, elapsed_ms: int, random: float) -> int | None:
        """Say how long to wait before a retry; None if there is none any more.

        Args:
            retry: The number of the retry, from 1.
            elapsed_ms: Milliseconds since the first failure.
            random: A number from 0 up to 1 for the jitter.
        """
        if self.retries is not None and retry > self.retries:
            return None
        delay = self._plain_ms(retry, elapsed_ms)
        if self.jitter:
            delay *= _JITTER_FROM + _JITTER_RANGE * random
        longest = _LONGEST_MS if self.max_ms is None else min(self.max_ms, _LONGEST_MS)
        return math.ceil(min(delay, longest))

    def _plain_ms(self, retry: int, elapsed_ms: int) -> float:
        match self.kind:
            case "spaced":
                return self.base_ms
            case "fixed":
                # To the next line of the grid; exactly on a line, the next one counts.
                return self.base_ms - elapsed_ms % self.base_ms if self.base_ms else 0
            case "exponential":
                try:
                    return self.base_ms * float(self.factor) ** (retry - 1)
                except OverflowError:
                    return _LONGEST_MS

    def __repr__(self) -> str:
        arguments = [repr(describe_ms(self.base_ms))]
        if self.kind == "exponential" and self.factor != _USUAL_FACTOR:
            arguments.append(f"factor={self.factor!r}")
        calls = [f"Schedule.{self.kind}({', '.join(arguments)})"]
        if self.max_ms is not None:
            calls.append(f"capped({describe_ms(self.max_ms)!r})")
        if self.jitter:
            calls.append("jittered()")
        if self.retries is not None:
            calls.append(f"times({self.retries})")
        return ".".join(calls)


def _delay_ms(duration: Duration) -> int:
    delay = to_ms(duration)
    if delay < 0:
        raise UsageError(f"A schedule cannot wait for {duration!r}, which is negative.")
    return delay
