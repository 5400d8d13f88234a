"""Whether a failed attempt is tried again, and when.

Decided once, when the attempt ends, and recorded with its failure; on replay the record counts, not
today's policy (R11). Three things have a say: what was raised, the activity's schedule, and the
time that all attempts together may take.
"""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from perdure._definitions.activity import ActivityCall
from perdure._values.cause import Cause
from perdure._values.instant import Instant
from perdure._values.retry_after import RetryAfter
from perdure.errors import Defect

if TYPE_CHECKING:
    from perdure._values.schedule import Schedule


def next_attempt_at(
    call: ActivityCall, error: BaseException, now: Instant, random: Random, *, can_retry: bool
) -> tuple[Cause, Instant | None]:
    """What to record of a failed attempt: its cause, and when the next one is due. None: it was the last."""
    activity = call.activity
    if isinstance(error, asyncio.CancelledError):
        return _interrupted(call, now, random)
    cause = _cause(call, error)
    failures = call.attempt - call.interruptions
    if not can_retry or activity.retry is None or not _wanted(call, error):
        return cause, None
    elapsed_ms = 0 if call.failed_at is None else now - call.failed_at
    delay = activity.retry.delay_ms(failures, elapsed_ms, random.random())
    if delay is None:
        return cause, None
    if isinstance(error, RetryAfter):
        delay = error.delay_ms
    return cause, _within_total(call, now + delay)


def _interrupted(call: ActivityCall, now: Instant, random: Random) -> tuple[Cause, Instant | None]:
    """The attempt cancelled itself from inside (R13)."""
    policy: Schedule | None = call.activity.interrupt_retry
    delay = None if policy is None else policy.delay_ms(call.interruptions + 1, now - call.asked_at, random.random())
    if delay is not None and (again_at := _within_total(call, now + delay)) is not None:
        return Cause.interrupt(), again_at
    exhausted = Defect(
        type_name="CancelledError",
        message=f'Activity "{call.name}" interrupted and retry attempts exhausted',
    )
    return Cause.die(exhausted), None


def _within_total(call: ActivityCall, again_at: Instant) -> Instant | None:
    """The next attempt's time, unless all attempts together have used up theirs."""
    total = call.activity.total_timeout_ms
    return None if total is not None and again_at >= call.asked_at + total else again_at


def _cause(call: ActivityCall, error: BaseException) -> Cause:
    if isinstance(error, RetryAfter) and call.activity.retry is None:
        return Cause.die(
            Defect(
                type_name="RetryAfter",
                message=f"activity {call.name!r} asked to be tried again ({error}), but it has no retry=: give it one",
            )
        )
    return call.activity.codec.cause_of(error)


def _wanted(call: ActivityCall, error: BaseException) -> bool:
    """What `retry(…, error=, while_=)` says."""
    return call.retry_if is None or isinstance(error, RetryAfter) or call.retry_if(error)
