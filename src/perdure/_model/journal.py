"""The journal: what an execution has been told, and what it was told to remember, in order.

Two sorts of entry stand in it. An *event* was fed to the kernel and is fed again, in its order, on
replay. A *marker* was written by a turn of the body itself (a `patched` decision, a timer's due
time, an execution it started); it is never fed, but answers the same call on replay.
"""

from enum import StrEnum
from typing import NamedTuple

from perdure._values.instant import Instant


class Kind(StrEnum):
    """What an entry records."""

    # Events: one turn of the kernel each.
    ACTIVITY = "activity"  # the exit of one attempt
    TIMER = "timer"  # a timer has fired
    # Markers: answers that a later replay must give again.
    ATTEMPT_BEGUN = "begun"  # an at-most-once attempt is about to begin (R50)
    TIMER_SET = "set"  # the due time of a long timer (R16)
    PATCH = "patch"  # `patched(name)` was True (R8a)
    START = "start"  # a detached execution was started (R42)


MARKERS = frozenset({Kind.ATTEMPT_BEGUN, Kind.TIMER_SET, Kind.PATCH, Kind.START})


class Entry(NamedTuple):
    """One row of a journal. Insert-only: nothing in it is ever changed."""

    seq: int
    """Its place, from 1, without gaps."""
    kind: str
    """One of `Kind`; kept as text, so that an older library can still list what a newer one wrote."""
    name: str
    occurrence: int
    """Which call of that kind and name in this body, from 1."""
    attempt: int
    """Which try of an activity, from 1; 0 where there are no attempts."""
    input: bytes
    """What was asked, encoded; empty where a call has none."""
    exit: bytes
    """How it ended, encoded; empty where there is nothing to tell."""
    at: Instant
    """When it was fed. Never before the entry in front of it."""
