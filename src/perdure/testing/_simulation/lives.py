"""What must be true where one life of an execution follows another: it was restarted, or has gone on as a new one.

As in `invariants`, none of these checks asks the engine.
"""

from collections.abc import Callable, Iterator
from typing import Final

from perdure._model.records import MailKind
from perdure._model.status import Status
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.history import ExecutionChange, ExecutionRow
from perdure.testing._simulation.mail import Told, mail_of, told_apart

_RESTARTABLE: Final = frozenset({Status.FAILED, Status.INTERRUPTED})
# What has not been seen by a life that goes on is for the next one. An end is told to a life that waits for it.
_CARRIED: Final = frozenset({MailKind.MESSAGE, MailKind.DEFERRED, MailKind.INTERRUPT})

Check = Callable[[Account], Iterator[str]]


def every_life_follows_one(account: Account) -> Iterator[str]:
    """R37: lives are counted from 1; a later one begins where the one before has failed or asks for it, as if new."""
    for life in account.lives.values():
        before = account.before(life)
        number = 1 if before is None else before.record.number + 1
        if life.record.number != number:
            yield f"{life} has number {life.record.number}, where {number} is due"
        if before is not None and before.leaving is not None:
            yield from _check_birth(account, life, before, before.leaving)


def _check_birth(account: Account, life: Life, before: Life, birth: ExecutionChange) -> Iterator[str]:
    old, new = birth.before, birth.after
    assert old is not None
    assert new is not None
    if before.went_on:
        # Its owner has freed it in that transaction: nobody could have come in between.
        asks = before.changes[-1]
        at_once = account.history.committed(asks.tick) == account.history.committed(birth.tick)
        if asks.before is None or asks.before.owner is None or not at_once:
            yield f"{life} began in the place of one that its owner had not let go on"
    elif old.status not in _RESTARTABLE:
        yield f"{life} began in the place of one that was {old.status}"
    if new.owner is not None or new.exit is not None or new.crashes or new.began_at is not None or new.held:
        yield f"{life} did not begin as new: {new}"
    if new.fence != old.fence + 1:
        yield f"{life} has the fence {new.fence}, after {old.fence}: who owned the life before may go on writing"
    yield from _check_put_aside(before, old)


def _check_put_aside(before: Life, old: ExecutionRow) -> Iterator[str]:
    """I3: what is remembered of an earlier life is what its row has said."""
    expected = ("SUCCEEDED", None) if before.went_on else (old.status, old.exit)
    if (before.record.status, before.record.exit) != expected:
        yield f"{before} was put aside as {before.record.status} {before.record.exit!r}, and was {expected}"


def the_next_life_has_the_mail(account: Account) -> Iterator[str]:
    """R37, R48: what a body that goes on has not had comes along as it was, and nothing else; after a restart nothing."""
    for life in account.lives.values():
        before = account.before(life)
        if before is None:
            continue
        has = mail_of(life)
        if not before.went_on:
            for letter in has.values():
                if account.is_inherited(letter):
                    yield f"{life} was restarted, and has {letter.kind} {letter.name} of the life before"
            continue
        had = _had(before)
        for told, letter in mail_of(before).items():
            if told[0] not in _CARRIED:
                continue
            came_along = told in has and account.is_inherited(has[told])
            if told not in had and not came_along:
                yield f"{before} went on, and the next life does not have {letter.kind} {letter.name}"
            elif told in had and came_along:
                yield f"{before} had {letter.kind} {letter.name}, and the next life has it again"
            elif told[0] == MailKind.MESSAGE and told in has and not came_along:
                yield f"{before} had {letter.kind} {letter.name}, and it came once more"


def _had(life: Life) -> set[Told]:
    """The mail that a life has read and its body has come to."""
    read = {told_apart(entry) for entry in life.written}
    return read - {told_apart(entry) for entry in life.replayed_end().mail}


LIFE_CHECKS: Final[tuple[Check, ...]] = (every_life_follows_one, the_next_life_has_the_mail)
