"""Named points at which a test may crash, pause or fail the engine; in production they do nothing.

A crash test wants the process to die between two particular lines, not somewhere near them. Every
place where a death would leave a different trace on the disk has a name here, and the crash tests
walk through the whole list: a point that no test reaches fails the suite, and so does a call with
a name that is not listed.

Only code can arm a point (`arm`, called by a test or by the test's worker process). Nothing that
is stored, no environment variable and no request can, so a point is never reached by data.
"""

from collections.abc import Callable
from typing import Final

POINTS: Final[dict[str, str]] = {
    "commit.before": "a batch is complete, nothing of it is in the database",
    "commit.written": "the statements of a batch ran, its transaction is still open",
    "commit.after": "a batch is durable, nobody has been told",
    "acknowledge.before": "the engine has the answers, no effect of the batch has begun",
    "acknowledge.after": "every effect of the batch has been given out",
    "claim.before": "a worker is about to ask for executions",
    "claim.after": "the claim is durable, the worker does not know what it got",
    "load.after": "journal and mail of a claim are read, the body has not been replayed",
    "promote.before": "timers are due, nothing is pending yet",
    "promote.after": "due executions are pending, nobody has claimed them",
    "deliver.before": "mail is about to be written",
    "deliver.after": "mail and wake are durable, the sender does not know",
    "expire.before": "deadlines have passed, nobody has been interrupted yet",
    "expire.after": "whose deadline has passed is interrupted, nobody has been told",
    "renew.before": "the next life of an execution is about to be written",
    "renew.after": "the next life is durable, who asked for it does not know",
    "take_over.before": "a dead worker has been seen, it still owns its executions",
    "take_over.after": "what the dead worker owned is pending again",
    "purge.before": "old executions have been found, all of them are still there",
    "purge.after": "a batch of old executions is gone, nobody has been told",
    "turn.before": "an event is about to be fed to a kernel",
    "turn.after": "the kernel has come to rest, its commit has not been handed over",
    "effect.before": "an attempt is about to call the user's function",
    "effect.after": "the user's function has returned, its result is recorded nowhere",
}

Armed = Callable[[str], None]

_armed: Armed | None = None


def arm(armed: Armed | None) -> None:
    """Let `armed` be called at every point with its name; None disarms them all.

    What it does there is its own affair: end the process, block the thread, raise.
    """
    global _armed  # noqa: PLW0603 - one switch for the process: a crash is one for all of its engines
    _armed = armed


def reach(point: str) -> None:
    """Say that the code has come to `point`."""
    if _armed is not None:
        _armed(point)
