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
    DEFERRED = "deferred"  # a deferred was completed; it may be awaited later, and more than once
    MESSAGE = "message"  # a message came to a channel; the input is its id
    CHILD = "child"  # a child has ended; the input is its id
    FREED = "freed"  # a child that was left need not be waited for; the input is its id
    PAYLOAD = "payload"  # whether an execution that it asks for has the same payload (R2); a failure says what differs
    INTERRUPT = "interrupt"  # asked to end; the exit with which it ends if it lets it
    SKIP = "skip"  # the compensation that held it is passed over
    SENT = "sent"  # mail to another execution has its receipt
    # Markers: answers that a later replay must give again.
    ATTEMPT_BEGUN = "begun"  # an at-most-once attempt is about to begin (R50)
    TIMER_SET = "set"  # the due time of a long timer (R16)
    PATCH = "patch"  # `patched(name)` was True (R8a)
    START = "start"  # a detached execution was started (R42)
    RACE = "race"  # the exit of a race (R21)
    TOKEN = "token"  # noqa: S105 - a token was given out (R19); this is none
    ACT = "act"  # something was done to others, or shown: `into:…`, `publish:…`, `attributes`, `interrupt`, `resume`
    # It was held; the input names the failed entries that count no more when it is resumed, the exit is what failed
    # steps held it with.
    HELD = "held"


MARKERS = frozenset(
    {Kind.ATTEMPT_BEGUN, Kind.TIMER_SET, Kind.PATCH, Kind.START, Kind.RACE, Kind.TOKEN, Kind.ACT, Kind.HELD}
)
# The name of an ACT behind the entries that a fork has copied: up to it nothing is compared (R49). Of the second, that
# what stands on the stack by then is not the fork's to undo.
FORKED = "fork"
WITHOUT_COMPENSATIONS = "fork:without compensations"
FORKS = frozenset({FORKED, WITHOUT_COMPENSATIONS})

# Events that answer one call each; all other events are mail that was read.
ANSWERS = frozenset({Kind.ACTIVITY, Kind.TIMER, Kind.SENT})


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
