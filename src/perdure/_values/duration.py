"""A duration as users write it: a timedelta, seconds as a number, or text."""

import math
import re
from datetime import timedelta
from typing import Final, TypeAlias

from perdure.errors import UsageError

__all__ = ["Duration", "describe_ms", "to_ms", "to_timedelta"]

Duration: TypeAlias = timedelta | float | str
"""What every parameter that is a duration takes: a timedelta, seconds, or text such as ``"5 seconds"`` or ``"PT1H"``."""

_EXAMPLES: Final = (
    'Write a timedelta, seconds as a number, or text: "500 millis", "5 seconds", "1 hour", "3 days", "PT1H".'
)
_MICROSECONDS: Final = {
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_SHORT: Final = {
    "millisecond": ("ms", "milli", "millis"),
    "second": ("s", "sec", "secs"),
    "minute": ("m", "min", "mins"),
    "hour": ("h", "hr", "hrs"),
    "day": ("d",),
    "week": ("w",),
}
_UNITS: Final = {word: unit for unit, short in _SHORT.items() for word in (unit, f"{unit}s", *short)}
_NUMBER: Final = r"\d+(?:\.\d+)?"
# ASCII digits only: "٣ days" is more likely an accident than a wish.
_PART: Final = re.compile(rf"\s*({_NUMBER})\s*([a-z]+)\s*", re.ASCII)
_ISO: Final = re.compile(
    rf"P(?!$)(?:({_NUMBER})W)?(?:({_NUMBER})D)?(?:T(?!$)(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?", re.ASCII
)
_ISO_UNITS: Final = ("week", "day", "hour", "minute", "second")
_MILLISECOND: Final = timedelta(milliseconds=1)


def to_timedelta(duration: Duration) -> timedelta:
    """Read a duration.

    Raises:
        UsageError: It is none: the sentence says what was given and shows examples.

    Example:
        >>> to_timedelta("1 hour 30 minutes")
        datetime.timedelta(seconds=5400)
        >>> to_timedelta(0.25)
        datetime.timedelta(microseconds=250000)
    """
    if isinstance(duration, timedelta):
        return duration
    if isinstance(duration, str):
        return _from_text(duration)
    # bool is an int to Python; True as "one second" is always a mistake of the caller.
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refusal(duration)
    if not math.isfinite(duration):
        raise _refusal(duration)
    try:
        return timedelta(seconds=duration)
    except OverflowError as overflow:
        raise _refusal(duration, "is longer than a timedelta can be") from overflow


def to_ms(duration: Duration) -> int:
    """Read a duration as whole milliseconds; fractions round up, so that a wait never ends early (R16).

    A negative duration gives a negative number; whoever waits takes it as nothing.

    Raises:
        UsageError: It is none: the sentence says what was given and shows examples.

    Example:
        >>> to_ms("1 minute"), to_ms(0.0001)
        (60000, 1)
    """
    # Not by way of the negative: the longest timedelta has none.
    whole, rest = divmod(to_timedelta(duration), _MILLISECOND)
    return whole + bool(rest)


def describe_ms(ms: int) -> str:
    """Say a duration in words, its two largest units.

    Example:
        >>> describe_ms(5_400_000)
        '1 hour 30 minutes'
    """
    if ms < 0:
        return f"-{describe_ms(-ms)}"
    if ms < 1000:
        return _count(ms, "millisecond")
    if ms < 60_000 and ms % 1000:
        return f"{ms / 1000:g} seconds"
    said: list[str] = []
    rest = ms * 1000
    for unit in ("week", "day", "hour", "minute", "second"):
        number, rest = divmod(rest, _MICROSECONDS[unit])
        if number:
            said.append(_count(number, unit))
    return " ".join(said[:2])


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _from_text(text: str) -> timedelta:
    bare = text.strip()
    sign, bare = (-1, bare[1:]) if bare.startswith("-") else (1, bare)
    iso = _ISO.fullmatch(bare)
    parts = (
        [(number, unit) for number, unit in zip(iso.groups(), _ISO_UNITS, strict=True) if number]
        if iso
        else _parts(bare.lower(), text)
    )
    try:
        return sign * sum((_scaled(number, unit) for number, unit in parts), timedelta())
    except OverflowError as overflow:
        raise _refusal(text, "is longer than a timedelta can be") from overflow


def _parts(bare: str, text: str) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    end = 0
    while match := _PART.match(bare, end):
        number, word = match.groups()
        if word not in _UNITS:
            raise _refusal(text, f"has no unit that is known here ({word!r})")
        parts.append((number, _UNITS[word]))
        end = match.end()
    if not parts or end != len(bare):
        raise _refusal(text)
    return parts


def _scaled(number: str, unit: str) -> timedelta:
    whole, _, fraction = number.partition(".")
    microseconds = int(whole) * _MICROSECONDS[unit]
    # Whole numbers stay integers to the end; only what is written with a point goes through a float.
    return timedelta(microseconds=microseconds + (float(f"0.{fraction}") * _MICROSECONDS[unit] if fraction else 0))


def _refusal(duration: object, why: str = "is not a duration") -> UsageError:
    return UsageError(f"{duration!r} {why}. {_EXAMPLES}")
