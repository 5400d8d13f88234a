"""What must be true where a life follows another: it was restarted or rewound, has gone on as a new one, or is a fork of it.

As in `invariants`, none of these checks asks the engine.
"""

from collections.abc import Callable, Iterator
from typing import Final

from perdure._model.journal import FORKS, Entry, Kind
from perdure._model.records import DEADLINE_NAME, MailKind
from perdure._model.status import Status, is_final
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.director import Operation
from perdure.testing._simulation.history import ExecutionChange, ExecutionRow
from perdure.testing._simulation.mail import Told, mail_of, told_apart
from perdure.testing._simulation.ownership import status_of

_RESTARTABLE: Final = frozenset({Status.FAILED, Status.INTERRUPTED})
# What has not been seen by a life that goes on is for the next one. An end is told to a life that waits for it.
_CARRIED: Final = frozenset({MailKind.MESSAGE, MailKind.DEFERRED, MailKind.INTERRUPT})
# What a life has that is rewound, also if it came later: somebody was told that it is there.
_KEPT: Final = frozenset({MailKind.MESSAGE, MailKind.DEFERRED})
_TOLD: Final = frozenset({*_KEPT, MailKind.CHILD, MailKind.INTERRUPT})
# Longer than any worker stands still with what it has in hand.
_HEARD_MS: Final = 100_000

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
    if life.operation is not None:
        if not (is_final(status_of(old)) or old.held):
            yield f"{life} was rewound from one that was {old.status}"
    elif before.went_on:
        # Its owner has freed it in that transaction: nobody could have come in between. What its body has shown last is
        # written behind that, in a change of its own.
        born = account.history.committed(birth.tick)
        if not any(_is_freed(change) and account.history.committed(change.tick) == born for change in before.changes):
            yield f"{life} began in the place of one that its owner had not let go on"
    elif old.status not in _RESTARTABLE:
        yield f"{life} began in the place of one that was {old.status}"
    began_at = None if life.operation is None else old.began_at
    if new.owner is not None or new.exit is not None or new.crashes or new.began_at != began_at or new.held:
        yield f"{life} did not begin as new: {new}"
    if new.fence != old.fence + 1:
        yield f"{life} has the fence {new.fence}, after {old.fence}: who owned the life before may go on writing"
    yield from _check_put_aside(before, old)


def _is_freed(change: ExecutionChange) -> bool:
    """Whether a change takes an execution from its owner. One that goes on in its first turn is born without one."""
    old, new = change.before, change.after
    return (old is None or old.owner is not None) and new is not None and new.owner is None


def _check_put_aside(before: Life, old: ExecutionRow) -> Iterator[str]:
    """I3: what is remembered of an earlier life is what its row has said."""
    expected = ("SUCCEEDED", None) if before.went_on else (status_of(old), old.exit)
    if (before.record.status, before.record.exit) != expected:
        yield f"{before} was put aside as {before.record.status} {before.record.exit!r}, and was {expected}"


def the_next_life_has_the_mail(account: Account) -> Iterator[str]:
    """R37, R48: what a body that goes on has not had comes along as it was, and nothing else; after a restart nothing."""
    for life in account.lives.values():
        before = account.before(life)
        if before is None or life.operation is not None:
            continue
        has = mail_of(life)
        if not before.went_on:
            for letter in has.values():
                if account.is_inherited(letter):
                    yield f"{life} was restarted, and has {letter.kind} {letter.name} of the life before"
            continue
        had = _had(before)
        for told, letter in mail_of(before).items():
            # The deadline of the life before was its own.
            if told[0] not in _CARRIED or told == (MailKind.INTERRUPT, DEADLINE_NAME):
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
    if life.record.began_at is None:
        return set()  # it was not its own wish to go on, which is said elsewhere
    read = {told_apart(entry) for entry in life.written}
    return read - {told_apart(entry) for entry in life.replayed_end().mail}


def what_is_kept_is_as_it_was(account: Account) -> Iterator[str]:
    """R37, R49: who goes on from a part of a journal has that part, entry by entry, and the mail that belongs to it."""
    for life in account.lives.values():
        operation = life.operation
        if operation is None:
            continue
        source = account.source(life)
        if (
            source is None
            or source.record.workflow != life.record.workflow
            or source.record.payload != life.record.payload
        ):
            yield f"{life} was to go on from {operation.execution_id}, and is another execution"
            continue
        if (life.record.seed or b"") != (source.record.seed or source.record.incarnation):
            yield f"{life} draws otherwise than {source}, from which it goes on"
        yield from _check_entries(life, source, operation)
        yield from _check_mail(account, life, source, operation)


def _check_entries(life: Life, source: Life, operation: Operation) -> Iterator[str]:
    # What it has more: where it was forked, and what the turn of the last entry that is kept has decided.
    more = life.entries[operation.to : life.kept]
    if life.kept < operation.to or not all(_is_fork(entry) or entry.kind == Kind.PATCH for entry in more):
        yield f"{life} was to keep {operation.to} entries, and has {life.kept}"
    for entry, was in zip(life.entries[: operation.to], source.entries, strict=False):
        # A token leads to the execution that has given it out.
        exit_ = was.exit if operation.new_id is None or was.kind != Kind.TOKEN else entry.exit
        if entry.seq <= life.kept and entry != was._replace(exit=exit_):
            yield f"{life} has kept {entry}, which was {was}"


def _is_fork(entry: Entry) -> bool:
    return entry.kind == Kind.ACT and entry.name in FORKS


def _check_mail(account: Account, life: Life, source: Life, operation: Operation) -> Iterator[str]:
    kept = life.entries[: life.kept]
    read = {told_apart(entry) for entry in kept}
    # What its body has completed itself it will not complete again.
    read |= {(MailKind.DEFERRED, entry.name.removeprefix("into:")) for entry in kept if entry.name.startswith("into:")}
    until = operation.asked if operation.new_id else life.changes[0].tick
    due = {
        told: letter
        for told, letter in mail_of(source).items()
        if told in read or (operation.new_id is None and told[0] in _KEPT and letter.tick < until)
    }
    has = {told: letter for told, letter in mail_of(life).items() if account.is_inherited(letter)}
    for told in due.keys() - has.keys():
        yield f"{life} goes on from {source}, and does not have {told}"
    for told in has.keys() - due.keys():
        if told[0] in _TOLD:
            yield f"{life} goes on from {source}, and has {told}, which it was not to have"
    for told in due.keys() & has.keys():
        if has[told].exit != due[told].exit:
            yield f"{life} has {told} as {has[told].exit!r}, which was {due[told].exit!r}"


def every_operation_is_done_whole(account: Account) -> Iterator[str]:
    """I1, R37, R49: what somebody was told is done; of what nobody was told all is done, or nothing."""
    for operation in account.saw.operations:
        if operation.told is None:
            continue
        lives = account.lives_of(operation.new_id or operation.execution_id)
        if not any(life.operation == operation and life.changes[0].tick < operation.told for life in lives):
            yield f"{operation} was told to be done, and no life has begun"


def no_restart_is_lost(account: Account) -> Iterator[str]:
    """R2, R37: whoever wants what has failed restarted does not join that, once its worker has heard that it has ended."""
    for execution_id, asked_at, accepted in account.saw.restarts:
        life = account.life_at(execution_id, accepted)
        if life is None or life.record.status not in _RESTARTABLE or life.record.finished_at is None:
            continue
        if life.record.finished_at + _HEARD_MS < asked_at:
            yield f"{life} had ended at {life.record.finished_at}, and was not restarted at {asked_at}"


LIFE_CHECKS: Final[tuple[Check, ...]] = (
    every_life_follows_one,
    the_next_life_has_the_mail,
    what_is_kept_is_as_it_was,
    every_operation_is_done_whole,
    no_restart_is_lost,
)
