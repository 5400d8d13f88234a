"""What must be true of mail in every run: completions, messages, interrupts, and the ends of children.

As in `invariants`, none of these checks asks the engine: letters are told by triggers, visitors say what they were
told, and the journal says what was read.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from pydantic_core import from_json

from perdure._ids import sender_of
from perdure._model.journal import FORKS, MARKERS, Entry, Kind
from perdure._model.records import DEADLINE_NAME, MailKind, Receipt, message_name
from perdure._model.status import Status
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.director import Visit
from perdure.testing._simulation.history import EntryWritten, LetterWritten
from perdure.testing._simulation.ownership import latest_change, taking

# Letters that a running body always reads, each as an entry of its own.
_READ: Final = {MailKind.DEFERRED: Kind.DEFERRED, MailKind.MESSAGE: Kind.MESSAGE}
# As `no_wake_is_late`: a round is taken every five seconds at the latest.
_LATEST_MS: Final = 6_000
# From so many crashes on.
_SUSPECT: Final = 2

Check = Callable[[Account], Iterator[str]]
Told = tuple[str, str]  # kind and name


def told_apart(entry: EntryWritten | Entry) -> Told:
    """The kind and the name of the letter that an entry has read."""
    match entry.kind:
        case Kind.MESSAGE:
            return MailKind.MESSAGE, message_name(entry.name, entry.input.decode())
        case Kind.CHILD:
            return MailKind.CHILD, entry.input.decode()
        case Kind.INTERRUPT:
            return MailKind.INTERRUPT, "" if entry.name == "interrupt" else entry.name
        case _:
            return entry.kind, entry.name


def mail_of(life: Life) -> dict[Told, LetterWritten]:
    """The letters of an execution that a kernel is fed, by what tells them apart."""
    return {(one.kind, one.name): one for one in life.letters if one.how == "INSERT" and one.wake > 0}


# Mailboxes ----------------------------------------------------------------------------------------------------------


def every_mailbox_only_grows(account: Account) -> Iterator[str]:
    """I13, R18: mail is written once, numbered without repetition, never changed, and not after the end."""
    for life in account.lives.values():
        # What a life has from the one before comes with its numbers, in any order.
        inherited = [letter for letter in life.letters if account.is_inherited(letter)]
        last, ended = max((letter.wake for letter in inherited), default=0), life.ended_at
        for letter in life.letters:
            if letter.wake == 0 or letter in inherited:
                continue
            if letter.how != "INSERT":
                yield f"{life}: letter {letter.kind} {letter.name} was changed ({letter.how})"
            elif letter.wake <= last:
                yield f"{life}: letter {letter.kind} {letter.name} has number {letter.wake}, after {last}"
            if ended is not None and letter.tick > ended:
                yield f"{life}: letter {letter.kind} {letter.name} came after its end"
            last = letter.wake
        if life.record.wakes < last:
            yield f"{life}: it has mail up to {last}, and says {life.record.wakes}"
        for change in life.changes:
            if change.before is not None and change.after is not None and change.after.wakes < change.before.wakes:
                yield f"{life}: its mail went back from {change.before.wakes} to {change.after.wakes}"


def nothing_is_written_after_the_end(account: Account) -> Iterator[str]:
    """I3: what has ended has no more entries."""
    for life in account.lives.values():
        for entry in life.written:
            if life.ended_at is not None and entry.tick > account.history.committed(life.ended_at):
                yield f"{life}: entry {entry.seq} was written after its end"


def all_waiters_are_counted(account: Account) -> Iterator[str]:
    """R31: the number beside an execution is that of the letters that say who waits."""
    for life in account.lives.values():
        names = {one.name for one in life.letters if one.kind == MailKind.WAITER}
        row = life.changes[-1].after
        if row is not None and row.waiters != len(names):
            yield f"{life}: {len(names)} wait for it, and it has counted {row.waiters}"


# What is read -------------------------------------------------------------------------------------------------------


def what_is_read_was_written(account: Account) -> Iterator[str]:
    """I13, R48: an entry that tells of mail says what its letter says, once, and the letters are read in their order."""
    for life in account.lives.values():
        mail = mail_of(life)
        read: Counter[Told] = Counter()
        last = 0
        for entry in life.written:
            if entry.kind not in {Kind.DEFERRED, Kind.MESSAGE, Kind.CHILD, Kind.INTERRUPT}:
                continue
            told = told_apart(entry)
            letter = mail.get(told)
            read[told] += 1
            if letter is None or (letter.tick > entry.tick and entry.seq > life.kept):
                yield f"{life}: entry {entry.seq} has read {told}, which nobody had written"
            elif letter.exit != entry.exit:
                yield f"{life}: entry {entry.seq} has read {entry.exit!r} where {letter.exit!r} was written"
            elif read[told] > 1:
                yield f"{life}: {told} was read {read[told]} times"
            elif entry.kind in _READ.values() and letter.wake < last:
                yield f"{life}: {told} was read after what came later"
            elif entry.kind in _READ.values():
                last = letter.wake


def nobody_sleeps_on_mail(account: Account) -> Iterator[str]:
    """I14, R18: whoever is put to sleep has read all that had come."""
    for life in account.lives.values():
        read = {told_apart(entry): entry.tick for entry in reversed(life.written)}
        left = _left(life)
        for change in life.changes:
            if change.after is None or change.after.status != "SUSPENDED" or change.after.owner is not None:
                continue
            for told, letter in mail_of(life).items():
                asleep = letter.tick < change.tick and read.get(told, change.tick + 1) > change.tick
                if asleep and (told[0] in _READ or (told[0] == MailKind.CHILD and told[1] not in left)):
                    yield f"{life} went to sleep at {change.now}, and had not read {told}"


def no_mail_is_late(account: Account) -> Iterator[str]:
    """I14, R22: while nothing is wrong, mail reaches a body that runs within the polling interval."""
    for life in account.lives.values():
        read = {told_apart(entry): entry for entry in reversed(life.written)}
        for told, letter in mail_of(life).items():
            entry = read.get(told)
            latest = latest_change(life, letter.tick)
            if entry is None or latest is None or latest.after is None or latest.after.status != "RUNNING":
                continue
            if latest.after.crashes >= _SUSPECT:
                continue  # its worker has it, and lets it run when no other suspect runs (R41)
            same = taking(life, letter.tick) == taking(life, entry.tick)
            if same and entry.now > max(letter.now, account.calm_from) + _LATEST_MS:
                yield f"{life}: {told} came at {letter.now} while it ran, and was read at {entry.now}"


def instants_decide(account: Account) -> Iterator[str]:
    """R47: of a timer and a letter that one turn is fed, the one that was first comes first."""
    for life in account.lives.values():
        try:
            stands = life.stands
        except AssertionError:
            continue  # told already
        mail = mail_of(life)
        for stand, (_, length) in zip(stands, life.commits, strict=False):
            last: tuple[int, int] | None = None
            for entry in life.written[max(stand.length, life.kept) : length]:
                if entry.kind == Kind.TIMER:
                    at = stand.timers.get((entry.name, entry.occurrence))
                else:
                    letter = mail.get(told_apart(entry))
                    at = None if letter is None else letter.at
                if at is None:
                    continue
                if last is not None and at < last[1]:
                    yield f"{life}: entry {entry.seq}, of {at}, was fed after entry {last[0]}, of {last[1]}"
                last = (entry.seq, at)


def every_marker_is_written_once(account: Account) -> Iterator[str]:
    """R21, R42: what a body has done or decided is recorded once, however often its turn was run."""
    for life in account.lives.values():
        # It may be held more than once, and a fork of a fork.
        marks = Counter(
            (entry.kind, entry.name, entry.occurrence, entry.attempt)
            for entry in life.entries
            if entry.kind in MARKERS and entry.kind != Kind.HELD and entry.name not in FORKS
        )
        for (kind, name, occurrence, _), times in marks.items():
            if times > 1:
                yield f"{life}: {kind} {name} {occurrence} is recorded {times} times"


def what_a_body_sends_arrives(account: Account) -> Iterator[str]:
    """R42, R48: mail whose receipt says that it was stored lies in a mailbox, once."""
    letters = account.history.letters
    lies = Counter(one.sender for one in letters if one.how == "INSERT" and not account.is_inherited(one))
    for life in account.lives.values():
        for entry in life.entries[life.kept :]:
            if entry.kind != Kind.SENT or from_json(entry.exit).get("success") != Receipt.STORED:
                continue
            times = lies[sender_of(life.record.incarnation, entry.name, entry.occurrence)]
            if times != 1:
                yield f"{life}: what {entry.name} {entry.occurrence} has sent lies {times} times in mailboxes"


# What visitors were told --------------------------------------------------------------------------------------------


def a_deferred_has_one_value(account: Account) -> Iterator[str]:
    """I13, I28, R18: one completion counts, its visitor is told so, and its value is what lies there."""
    begun = Counter(account.saw.begun)
    for (execution_id, kind, name), visits in _visits(account).items():
        if kind != MailKind.DEFERRED:
            continue
        life, letters = account.lives_of(execution_id)[-1], _letters(account, execution_id, (kind, name))
        counted = [visit for visit in visits if visit.counted]
        for visit in counted:
            if not any(letter.exit == visit.exit and letter.tick <= visit.told for letter in letters):
                there = " and ".join(repr(letter.exit) for letter in letters) or None
                yield f"{life}: the completion of {name} with {visit.exit!r} counts, and {there} lies there"
        # One in each life; there is none where there is no letter, which was said already.
        if len(counted) > max(1, len(letters)):
            yield f"{life}: {len(counted)} completions of {name} count"
        all_sure = all(visit.sure for visit in visits) and len(visits) == begun[execution_id, kind, name]
        for letter in letters:
            if letter.sender and all_sure and not counted and _is_one_of(letter, visits):
                yield f"{life}: {letter.exit!r} lies there for {name}, and nobody was told that it counts"
        yield from _refused(account, visits, letters)


def no_mail_is_lost(account: Account) -> Iterator[str]:
    """I13, I28: a message or an interrupt whose sender has heard of it lies there, or came after the end."""
    for (execution_id, kind, name), visits in _visits(account).items():
        if kind == MailKind.DEFERRED:
            continue
        life, letters = account.lives_of(execution_id)[-1], _letters(account, execution_id, (kind, name))
        for visit in visits:
            lies = any(
                letter.tick < visit.told and (kind == MailKind.INTERRUPT or letter.exit == visit.exit)
                for letter in letters
            )
            may_miss = kind == MailKind.INTERRUPT and _may_have_met_an_end(account, visit)
            if visit.counted and not lies and not may_miss:
                yield f"{life}: {kind} {name} was acknowledged, and is not there"
        if kind == MailKind.MESSAGE:
            yield from _refused(account, visits, letters)


def _refused(account: Account, visits: list[Visit], letters: list[LetterWritten]) -> Iterator[str]:
    for visit in visits:
        there = any(letter.tick < visit.told for letter in letters)
        if not visit.counted and not there and not _may_have_met_an_end(account, visit):
            life = account.lives_of(visit.execution_id)[-1]
            yield f"{life}: {visit.kind} {visit.name} was refused, and nothing had come before it"


def _letters(account: Account, execution_id: str, told: Told) -> list[LetterWritten]:
    """The letters of an execution that say one thing, of all its lives; each once, also where it came along."""
    lives = account.lives_of(execution_id)
    found = [(life, mail_of(life).get(told)) for life in lives]
    # What a fork was born with came along from another execution.
    return [
        letter
        for life, letter in found
        if letter is not None and (life is lives[0] or not account.is_inherited(letter))
    ]


def _may_have_met_an_end(account: Account, visit: Visit) -> bool:
    """Whether an execution had ended while its visitor was there; it may have been restarted since."""
    return any(
        life.ended_at is not None
        and life.ended_at < visit.told
        and not life.went_on
        and (life.leaving is None or visit.asked < life.leaving.tick)
        for life in account.lives_of(visit.execution_id)
    )


def _visits(account: Account) -> dict[tuple[str, str, str], list[Visit]]:
    found: dict[tuple[str, str, str], list[Visit]] = {}
    for visit in account.saw.visits:
        found.setdefault((visit.execution_id, visit.kind, visit.name), []).append(visit)
    return found


def _is_one_of(letter: LetterWritten, visits: list[Visit]) -> bool:
    return any(visit.exit == letter.exit for visit in visits)


def _had_ended(life: Life, tick: int) -> bool:
    return life.ended_at is not None and life.ended_at < tick


# Interrupts and deadlines --------------------------------------------------------------------------------------------


def no_deadline_is_early_or_late(account: Account) -> Iterator[str]:
    """R44: who is interrupted by a deadline has one, which has passed; and when all is well it does not pass unseen."""
    for life in account.lives.values():
        letter = mail_of(life).get((MailKind.INTERRUPT, DEADLINE_NAME))
        deadline, ended = life.record.deadline, life.record.finished_at
        # One that was kept from the life before is of the deadline that this had.
        early = letter is not None and not account.is_inherited(letter) and (deadline is None or letter.now < deadline)
        if letter is not None and early:
            yield f"{life} was interrupted by its deadline at {letter.now}; that is {deadline}"
        if letter is not None or deadline is None or ended is None:
            continue
        if ended > max(deadline, account.calm_from) + _LATEST_MS:
            yield f"{life} ended at {ended}, and its deadline {deadline} was never seen to"


def no_interrupt_is_invented(account: Account) -> Iterator[str]:
    """I20, R29: who ends as interrupted was asked to."""
    for life in account.lives.values():
        if life.record.status is Status.INTERRUPTED and not _interrupts(life):
            yield f"{life} is INTERRUPTED, and nobody has interrupted it"


def _interrupts(life: Life) -> list[LetterWritten]:
    """What has asked an execution to end, but for its deadline."""
    return [one for (kind, name), one in mail_of(life).items() if kind == MailKind.INTERRUPT and name != DEADLINE_NAME]


# Children -----------------------------------------------------------------------------------------------------------


def every_end_is_told(account: Account) -> Iterator[str]:
    """I21, R31: whoever waits for an execution is told of its end, in the transaction that ends it, and as it ended."""
    for child in account.lives.values():
        if child.ended_at is None or child.went_on or child.was_held:
            continue  # who waits for one that goes on, or is rewound while it is held, waits for the next life
        for waiter_id, incarnation in _waiters(child).items():
            waiter = account.life_at(waiter_id, child.ended_at)
            if waiter is None or waiter.record.incarnation != incarnation:
                continue  # that life of the waiter waits no more
            if _had_ended(waiter, account.history.committed(child.ended_at)):
                continue
            told = mail_of(waiter).get((MailKind.CHILD, child.record.execution_id))
            if told is not None and account.history.committed(told.tick) <= account.history.committed(
                child.changes[0].tick
            ):
                continue  # it has joined a life that was begun again; it was told of the end of one before, and hears of none more
            if told is None:
                yield f"{waiter} waited for {child}, and was not told of its end"
            elif account.history.committed(told.tick) != account.history.committed(child.ended_at):
                yield f"{waiter} waited for {child}, which ended at {child.ended_at}, and was told at {told.tick}"
    for life in account.lives.values():
        for (kind, name), letter in mail_of(life).items():
            if kind != MailKind.CHILD or account.is_inherited(letter):
                continue
            child = account.life_at(name, letter.tick)
            if child is None or letter.exit != child.record.exit:
                yield f"{life} was told that {child or name} ended with {letter.exit!r}"


def _waiters(child: Life) -> dict[str, bytes]:
    """Who waits for a life, by id: the incarnation that does. A later life of one may have come in its place."""
    return {one.name: one.exit for one in child.letters if one.kind == MailKind.WAITER and one.how != "DELETE"}


def what_is_left_is_interrupted(account: Account) -> Iterator[str]:
    """R31: a child that its parent has left, and nobody else waits for, is interrupted."""
    for life in account.lives.values():
        for child_id, left in _left(life).items():
            child = account.life_at(child_id, left.tick)
            if (
                child is None
                or child.record.parent != life.record.execution_id
                or _had_ended(child, account.history.committed(left.tick))
            ):
                continue
            waited = {one.name for one in child.letters if one.kind == MailKind.WAITER}
            others = waited - {life.record.execution_id}
            if child.operation is not None and not waited:
                continue  # it was left, and somebody has rewound it all the same
            is_late = child.record.deadline is not None and child.record.deadline <= left.now
            if not others and not is_late and not any(kind == MailKind.INTERRUPT for kind, _ in mail_of(child)):
                yield f"{life} has left {child}, which was not interrupted"


def what_is_wanted_is_not_interrupted(account: Account) -> Iterator[str]:
    """R31: who is left by one is not interrupted by that while another one waits for it."""
    acts = {entry.name for life in account.lives.values() for entry in life.written if entry.kind == Kind.ACT}
    asked = {execution_id for execution_id, kind, _ in account.saw.begun if kind == MailKind.INTERRUPT}
    for life in account.lives.values():
        child_id = life.record.execution_id
        if child_id in asked or f"interrupt:{child_id}" in acts:
            continue
        for letter in _interrupts(life):
            if not account.is_inherited(letter):
                yield from _wanted_at(account, life, letter)


def _wanted_at(account: Account, life: Life, letter: LetterWritten) -> Iterator[str]:
    for waits in life.letters:
        waiter = account.lives.get(waits.exit.hex())
        if waits.kind != MailKind.WAITER or waits.tick > letter.tick or waiter is None:
            continue
        gone = any(
            one.kind == MailKind.LEFT and one.name == waits.name and one.tick < letter.tick for one in life.letters
        )
        if not gone and not _had_ended(waiter, letter.tick):
            yield f"{life} was interrupted, and {waiter} waited for it"


def _left(life: Life) -> dict[str, EntryWritten]:
    """The children whose await was cancelled, each with the entry that says so."""
    prefix = "leave:"
    return {
        entry.name[len(prefix) :]: entry
        for entry in life.own
        if entry.kind == Kind.ACT and entry.name.startswith(prefix)
    }


MAIL_CHECKS: Final[tuple[Check, ...]] = (
    every_mailbox_only_grows,
    nothing_is_written_after_the_end,
    all_waiters_are_counted,
    what_is_read_was_written,
    nobody_sleeps_on_mail,
    no_mail_is_late,
    instants_decide,
    every_marker_is_written_once,
    what_a_body_sends_arrives,
    a_deferred_has_one_value,
    no_mail_is_lost,
    no_deadline_is_early_or_late,
    no_interrupt_is_invented,
    every_end_is_told,
    what_is_left_is_interrupted,
    what_is_wanted_is_not_interrupted,
)
