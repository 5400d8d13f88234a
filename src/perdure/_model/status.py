"""The states of an execution, and the only moves between them.

The table is the whole truth: the stores' conformance suite walks through it, the documentation
draws its picture from it. An execution that is held (it will not move until somebody acts) shows
itself as SUSPENDED with a code; the code is a fact beside the status, not a status of its own.
"""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Where an execution stands, as its users see it.

    PENDING: it waits for a worker. RUNNING: one has it. SUSPENDED: it waits for something, or is held.
    SUCCEEDED, FAILED and INTERRUPTED are final.

    Example:
        >>> Status("SUCCEEDED") is Status.SUCCEEDED, is_final(Status.SUSPENDED)
        (True, False)
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


class Held(StrEnum):
    """Why an execution will not move by itself. Only `resume` or an interrupt moves it."""

    FAILURE = "FAILURE"
    DEFECT = "DEFECT"
    DIVERGENCE = "DIVERGENCE"
    UNREADABLE = "UNREADABLE"
    COMPENSATION = "COMPENSATION"
    CRASHES = "CRASHES"
    REFUSED = "REFUSED"
    DEADLOCK = "DEADLOCK"
    SPINNING = "SPINNING"


FINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.INTERRUPTED})

MOVES: Final[dict[Status, frozenset[Status]]] = {
    # A deadline or an interrupt may come before the first claim.
    Status.PENDING: FINAL - {Status.SUCCEEDED} | {Status.RUNNING},
    Status.RUNNING: FINAL | {Status.PENDING, Status.SUSPENDED},
    # It ends without being run where it never began: an interrupt, or its deadline.
    Status.SUSPENDED: frozenset({Status.PENDING, Status.INTERRUPTED, Status.FAILED}),
} | {final: frozenset({Status.PENDING}) for final in FINAL}  # only as the next incarnation


def is_final(status: Status) -> bool:
    """Whether an execution in this status has ended for good."""
    return status in FINAL


def may_become(before: Status, after: Status) -> bool:
    """Whether the table allows this move."""
    return after in MOVES[before]
