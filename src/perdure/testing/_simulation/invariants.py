"""What must be true of every run, whatever the workflow does and whatever goes wrong.

Each check yields sentences about what must not be. None asks the engine: rows are told by triggers,
attempts by failpoints, and what a journal means by a replay of it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from perdure._model.journal import Kind
from perdure._model.status import Held, Status, is_final, may_become
from perdure._values.exit_codec import is_success
from perdure.testing._simulation.account import Account, Life, is_activity
from perdure.testing._simulation.case import Fault
from perdure.testing._simulation.history import AttemptSeen, ExecutionChange, ExecutionRow
from perdure.testing._simulation.lives import LIFE_CHECKS
from perdure.testing._simulation.mail import MAIL_CHECKS
from perdure.testing._simulation.ownership import (
    has_got_on,
    is_birth,
    is_freed,
    latest_change,
    owned_since,
    owner_at,
    recorded_at,
    status_of,
    worker_of,
)

# What may cut an attempt off, so that it is made again.
_CUTS: Final = frozenset({Fault.CRASH, Fault.USURP, Fault.CLOSE})
# These say that code and journal, or the engine and its store, disagree.
_BUGS: Final = frozenset({"DIVERGENCE", "REFUSED", "UNREADABLE", "SPINNING", "DEADLOCK"})

# So does this where a compensation is held with it, though somebody has passed over it since.
_DEADLOCK: Final = b'"Deadlock"'

_UNKNOWN: Final = b'"outcome-unknown"'
_TIMEOUT: Final = b'"activity-timeout"'
# A round is taken every five seconds at the latest, and asks and is answered within one more.
_LATEST_MS: Final = 6_000

Check = Callable[[Account], Iterator[str]]


def violations(account: Account) -> list[str]:
    """Everything that is wrong with a run."""
    return [f"{check.__name__}: {sentence}" for check in CHECKS for sentence in check(account)]


# What callers were told -----------------------------------------------------------------------------------------


def no_start_is_lost(account: Account) -> Iterator[str]:
    """I1, I28: once `start` has returned, the execution is there."""
    for execution_id, tick in account.saw.accepted.items():
        lives = account.lives_of(execution_id)
        if not lives or lives[0].changes[0].tick > tick:
            yield f"{execution_id} was accepted at {tick}, and was not there"


def everybody_is_told_the_same(account: Account) -> Iterator[str]:
    """I4: the result is the stored one, for everybody who ever asked; of a life that has ended, if there were more."""
    for execution_id, told in account.saw.told.items():
        lives = account.lives_of(execution_id)
        for exit_ in told:
            if not any(exit_ == life.record.exit for life in lives):
                stored = " and then ".join(repr(life.record.exit) for life in lives if not life.went_on) or None
                yield f"{lives[-1] if lives else execution_id}: {exit_!r} was told, {stored} is stored"


# Rows -------------------------------------------------------------------------------------------------------------


def every_move_is_allowed(account: Account) -> Iterator[str]:
    """I2, I3: born once; every change of status is one of the table; what has ended never changes.

    A later life is born of the row of the one before: `every_life_follows_one` looks at that.
    """
    for life in account.lives.values():
        births = [change for change in life.changes if is_birth(change)]
        if len(births) != 1:
            yield f"{life} was born {len(births)} times"
        for change in life.changes:
            if change.after is None:
                yield f"{life} was taken away"
            elif change.before is not None and change.before != change.after and not is_birth(change):
                before, after = status_of(change.before), status_of(change.after)
                if is_final(before):
                    yield f"{life} had ended {before}, and was changed to {change.after}"
                elif before is not after and not may_become(before, after):
                    yield f"{life} went from {before} to {after}"


def every_owner_is_the_only_one(account: Account) -> Iterator[str]:
    """I10, I11: a fence never goes back and grows by one; nobody owns what another one owns."""
    for life in account.lives.values():
        for change in life.changes:
            before, after = change.before, change.after
            if before is None or after is None:
                continue
            if after.fence not in {before.fence, before.fence + 1}:
                yield f"{life}: its fence went from {before.fence} to {after.fence}"
            if before.owner is not None and after.owner not in {None, before.owner}:
                yield f"{life} went from worker {before.owner} to worker {after.owner} directly"
            taken = before.owner is None and after.owner is not None
            if taken and after.fence != before.fence + 1:
                yield f"{life} was claimed under its old fence {before.fence}"


def only_owners_write(account: Account) -> Iterator[str]:
    """I10: an entry is written by the process that owns the execution at that moment, or gives birth to it."""
    for life in account.lives.values():
        for entry in life.own:
            latest = latest_change(life, entry.tick)
            if latest is None:
                yield f"{life}: entry {entry.seq} was written before it was born"
                continue
            row = latest.after
            owned = row is not None and row.owner is not None and owner_at(life, entry.tick) == entry.process
            born_now = latest.before is None and latest.process == entry.process and latest.now == entry.now
            if not owned and not born_now:
                yield f"{life}: entry {entry.seq} was written by process {entry.process}, which did not own it"


def every_crash_is_counted(account: Account) -> Iterator[str]:
    """I18, R41: who is taken from another worker has one crash more, nothing else counts any, only progress forgives."""
    for life in account.lives.values():
        for change in life.changes:
            if change.before is not None and change.after is not None and not is_birth(change):
                yield from _check_crashes(account, life, change, change.before, change.after)
    if not account.case.faults & _CUTS and any(life.record.crashes for life in account.lives.values()):
        yield "a crash was counted where nothing has crashed"


def _check_crashes(
    account: Account, life: Life, change: ExecutionChange, before: ExecutionRow, after: ExecutionRow
) -> Iterator[str]:
    counted = after.crashes - before.crashes
    # A commit, also the last one, leaves the fence as it is; whoever frees raises it.
    freed = before.owner is not None and after.owner is None and after.fence == before.fence + 1
    if freed and before.owner != worker_of(account, change):
        if counted != 1:
            yield f"{life} was taken over, and its crashes went from {before.crashes} to {after.crashes}"
    elif freed and counted > 0:
        yield f"{life}: a crash was counted by its own worker, which had not crashed"
    elif counted and after.crashes != 0:
        yield f"{life}: its crashes went from {before.crashes} to {after.crashes}"
    elif counted and not freed and before.held is None and not has_got_on(life, change):
        yield f"{life}: {before.crashes} crashes were forgiven, and it had not got on"


def nothing_is_left(account: Account) -> Iterator[str]:
    """I15, I24, I25: at rest everything has ended or is held, owned by nobody, and nothing belongs to nothing."""
    yield from account.strays
    for life in account.lives.values():
        record = life.record
        if record.owner is not None or record.status is Status.RUNNING:
            yield f"{life} is still owned by {record.owner}"
        elif not is_final(record.status) and record.held is None and not life.was_held:
            yield f"{life} has not ended: {record.status}"
        elif record.exit is None and not life.went_on:
            yield f"{life} is {record.status} without an exit"
        if record.held in _BUGS:
            yield f"{life} is held ({record.held}): {record.exit!r}"
        rows = [change.after for change in life.changes if change.after is not None]
        if any(row.held == Held.COMPENSATION and _DEADLOCK in (row.exit or b"") for row in rows):
            yield f"{life} was held by a compensation that waits for nothing"


# Journals -----------------------------------------------------------------------------------------------------------


def every_journal_only_grows(account: Account) -> Iterator[str]:
    """I5, I6: entries are written once, in order, without gaps, and time does not go back."""
    for life in account.lives.values():
        # A fork of what has not begun says so before it has begun itself.
        at = 0 if life.kept else life.record.began_at or 0
        for seq, entry in enumerate(life.written, start=1):
            if entry.how != "INSERT":
                yield f"{life}: entry {entry.seq} was changed ({entry.how})"
            if entry.seq != seq:
                yield f"{life}: entry {entry.seq} was written as the {seq}th"
            if entry.at < at:
                yield f"{life}: entry {entry.seq} goes back in time, from {at} to {entry.at}"
            at = entry.at


def every_replay_goes_the_same_way(account: Account) -> Iterator[str]:
    """I23, R7, R8: the journal, replayed, ends in the recorded result and writes nothing."""
    for life in account.lives.values():
        try:
            stands = life.stands
        except AssertionError as divergence:
            yield f"{life}: {divergence}"
            continue
        if is_final(life.record.status) and life.record.began_at is not None:
            end = life.replayed_end()
            if end.continues is not life.went_on:
                yield f"{life} {'went on' if life.went_on else 'ended'}; replayed, it does the other"
            elif not end.continues and (end.status, end.held, end.exit) != (life.record.status, None, life.record.exit):
                yield (
                    f"{life} has ended {life.record.status} {life.record.exit!r};"
                    f" replayed: {end.held or end.status} {end.exit!r}"
                )
            if end.written:
                yield f"{life}: a replay of the whole journal writes {end.written} entries more"
            if end.untaken:
                yield f"{life}: recorded, and asked for by nobody: {', '.join(end.untaken)}"
        for stand, (_, length) in zip(stands, life.commits, strict=False):
            if length > life.kept:
                yield from _check_asked(life, stand.length, length)


def _check_asked(life: Life, before: int, after: int) -> Iterator[str]:
    """The first event of a commit answers something that the journal before it asks for."""
    stand = next(stand for stand in life.stands if stand.length == before)
    for entry in life.entries[before:after]:
        if entry.kind == Kind.ACTIVITY:
            if (entry.name, entry.occurrence, entry.attempt) not in stand.steps:
                yield f"{life}: entry {entry.seq} answers {entry.name} {entry.occurrence}, which nobody had asked for"
        elif entry.kind == Kind.TIMER:
            due = stand.timers.get((entry.name, entry.occurrence))
            if due is None:
                yield f"{life}: entry {entry.seq} fires {entry.name} {entry.occurrence}, which nobody had set"
            elif entry.at < due:
                yield f"{life}: timer {entry.name} was due at {due} and fired at {entry.at}"
        else:
            continue
        return


def no_wake_is_late(account: Account) -> Iterator[str]:
    """I14, I30, promise 7: when nothing is wrong any more, a due timer fires within the polling interval."""
    for life in account.lives.values():
        # A life that was rewound may wait for what is long due.
        asleep_at = 0
        for change in life.changes:
            before, after = change.before, change.after
            if before is None or after is None or before.status != "SUSPENDED" or after.status != Status.PENDING:
                asleep_at = change.now
                continue
            if (
                before.wake_at is not None
                and change.now > max(before.wake_at, asleep_at, account.calm_from) + _LATEST_MS
            ):
                yield f"{life} was to be woken at {before.wake_at}, and was at {change.now}"


def every_timer_fires_once(account: Account) -> Iterator[str]:
    """I16: one firing of each, and no wake before its time."""
    for life in account.lives.values():
        fired = Counter((entry.name, entry.occurrence) for entry in life.entries if entry.kind == Kind.TIMER)
        for timer, times in fired.items():
            if times > 1:
                yield f"{life}: timer {timer} has fired {times} times"
        for change in life.changes:
            before, after = change.before, change.after
            if before is None or after is None or before.status != "SUSPENDED" or after.status != Status.PENDING:
                continue
            if after.wakes == before.wakes and before.wake_at is not None and change.now < before.wake_at:
                yield f"{life} was woken at {change.now}, before {before.wake_at}"


# Attempts -------------------------------------------------------------------------------------------------------------


def no_outcome_is_invented(account: Account) -> Iterator[str]:
    """I8: a recorded attempt was made, and a recorded success has returned, before it was recorded."""
    for life in account.lives.values():
        seen = {(a.name, a.occurrence, a.attempt, a.ended): a.tick for a in reversed(life.attempts)}
        for entry in life.own:
            if not is_activity(entry) or _UNKNOWN in entry.exit:
                continue
            tick = seen.get((entry.name, entry.occurrence, entry.attempt, is_success(entry.exit)))
            if tick is None or tick > entry.tick:
                yield f"{life}: attempt {entry.attempt} of {entry.name} is recorded, and was not made"


def nothing_begins_before_it_is_asked_for(account: Account) -> Iterator[str]:
    """I7, R10: an attempt begins when the journal that is durable asks for it, and not when that has its record."""
    for life in account.lives.values():
        try:
            stands = life.stands
        except AssertionError:
            continue  # told already
        for attempt in life.attempts:
            if attempt.ended:
                continue
            if not life.changes or life.changes[0].tick > attempt.tick:
                yield f"{life}: {attempt.name} began before the execution was born"
                continue
            durable = sum(committed <= attempt.tick for committed, _ in life.commits)
            step = (attempt.name, attempt.occurrence, attempt.attempt)
            asked = [n for n, stand in enumerate(stands[: durable + 1]) if step in stand.steps]
            if not asked:
                yield f"{life}: attempt {attempt.attempt} of {attempt.name} began before anything durable asked for it"
                continue
            recorded = recorded_at(life, step)
            claimed = owned_since(life, attempt.tick, attempt.process)
            if recorded is not None and claimed is not None and recorded < claimed:
                yield f"{life}: attempt {attempt.attempt} of {attempt.name} was recorded, and began again"


def nothing_is_repeated_without_cause(account: Account) -> Iterator[str]:
    """I9: an attempt begins once while one worker has the execution; in a run without crashes once at all."""
    for life in account.lives.values():
        begun = [attempt for attempt in life.attempts if not attempt.ended]
        times = Counter(
            (a.name, a.occurrence, a.attempt, owned_since(life, a.tick, a.process), a.process) for a in begun
        )
        for (name, occurrence, attempt, _, process), count in times.items():
            if count > 1:
                yield f"{life}: process {process} began attempt {attempt} of {name} {occurrence} {count} times"
        if not account.case.faults & _CUTS:
            for step, count in Counter((a.name, a.occurrence, a.attempt) for a in begun).items():
                if count > 1:
                    yield f"{life}: {step} began {count} times, and nothing has cut it off"


def every_attempt_has_its_number(account: Account) -> Iterator[str]:
    """I18, R11: the attempts of a step are recorded from 1 on, none begins before it is due, none follows the last."""
    for life in account.lives.values():
        due: dict[tuple[str, int], tuple[int, int | None]] = {}
        for entry in life.written:
            if not is_activity(entry):
                continue
            place = (entry.name, entry.occurrence)
            attempt, again_at = due.get(place, (1, 0))
            if entry.attempt != attempt or again_at is None:
                yield f"{life}: attempt {entry.attempt} of {entry.name} is recorded, where attempt {attempt} is due"
            due[place] = (entry.attempt + 1, life.again_at.get(entry.seq))
        again = {
            (entry.name, entry.occurrence, entry.attempt + 1): life.again_at.get(entry.seq)
            for entry in life.entries
            if is_activity(entry)
        }
        for attempt_seen in life.attempts:
            at = again.get((attempt_seen.name, attempt_seen.occurrence, attempt_seen.attempt))
            if not attempt_seen.ended and at is not None and attempt_seen.now < at:
                yield f"{life}: attempt {attempt_seen.attempt} of {attempt_seen.name} began before it was due"


def every_key_is_the_steps_own(account: Account) -> Iterator[str]:
    """R14: one key on every attempt of a step, in every process; and no two steps with one key."""
    keys: dict[str, tuple[str, str, int]] = {}
    for life in account.lives.values():
        for attempt in life.attempts:
            step = (attempt.incarnation.hex(), attempt.name, attempt.occurrence)
            if keys.setdefault(attempt.key, step) != step:
                yield f"{life}: {attempt.name} {attempt.occurrence} has the key of {keys[attempt.key]}"
        by_step = {(attempt.name, attempt.occurrence, attempt.key) for attempt in life.attempts}
        for step, count in Counter((name, occurrence) for name, occurrence, _ in by_step).items():
            if count > 1:
                yield f"{life}: {step} has run under {count} keys"


def at_most_once_is_kept(account: Account) -> Iterator[str]:
    """R50: what may happen at most once is noted, durably, before it begins, and begins once, whatever ends in between."""
    for life in account.lives.values():
        begun = [attempt for attempt in life.attempts if attempt.once and not attempt.ended]
        for step, times in Counter((a.name, a.occurrence, a.attempt) for a in begun).items():
            if times > 1:
                yield f"{life}: {step} may happen once, and began {times} times"
        noted = {
            (entry.name, entry.occurrence, entry.attempt): account.history.committed(entry.tick)
            for entry in life.own
            if entry.kind == Kind.ATTEMPT_BEGUN
        }
        for attempt in begun:
            at = noted.get((attempt.name, attempt.occurrence, attempt.attempt))
            if at is None or at > attempt.tick:
                yield f"{life}: attempt {attempt.attempt} of {attempt.name} may happen once, and began before it was noted"


def no_outcome_is_unknown_without_cause(account: Account) -> Iterator[str]:
    """R50: an outcome is unknown only of an attempt that was noted as begun, by somebody who has lost the execution since.

    Or by the life of which the note was kept, and nothing that came after it.
    """
    for life in account.lives.values():
        noted = {(e.name, e.occurrence, e.attempt): e.tick for e in life.written if e.kind == Kind.ATTEMPT_BEGUN}
        born_with = {entry.tick for entry in life.written[: life.kept]}
        for entry in life.own:
            if not is_activity(entry) or _UNKNOWN not in entry.exit:
                continue
            since = noted.get((entry.name, entry.occurrence, entry.attempt), entry.tick)
            lost = since in born_with or any(
                since < change.tick < entry.tick and is_freed(change) for change in life.changes
            )
            if not lost:
                yield f"{life}: the outcome of {entry.name} {entry.occurrence} is unknown, and nothing has cut it off"


def no_attempt_times_out_early(account: Account) -> Iterator[str]:
    """R12: who is told that its time is over has had it."""
    for life in account.lives.values():
        begun: dict[tuple[str, int, int], AttemptSeen] = {}
        for attempt in life.attempts:
            if not attempt.ended:
                begun.setdefault((attempt.name, attempt.occurrence, attempt.attempt), attempt)
        for entry in life.written:
            seen = begun.get((entry.name, entry.occurrence, entry.attempt))
            if seen is None or seen.timeout_ms is None or not is_activity(entry) or _TIMEOUT not in entry.exit:
                continue
            if entry.now < seen.now + seen.timeout_ms:
                yield f"{life}: {entry.name} began at {seen.now}, and its {seen.timeout_ms} ms were over at {entry.now}"


CHECKS: Final[tuple[Check, ...]] = (
    no_start_is_lost,
    everybody_is_told_the_same,
    every_move_is_allowed,
    every_owner_is_the_only_one,
    only_owners_write,
    every_crash_is_counted,
    nothing_is_left,
    every_journal_only_grows,
    every_replay_goes_the_same_way,
    every_timer_fires_once,
    no_wake_is_late,
    no_outcome_is_invented,
    nothing_begins_before_it_is_asked_for,
    nothing_is_repeated_without_cause,
    every_attempt_has_its_number,
    every_key_is_the_steps_own,
    at_most_once_is_kept,
    no_outcome_is_unknown_without_cause,
    no_attempt_times_out_early,
    *MAIL_CHECKS,
    *LIFE_CHECKS,
)
