"""Forgeries of mail: accounts of a real run with completions, messages, children, an interrupt and a deadline.

They are listed among the others, in `forgery.FORGERIES`.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from perdure import Success
from perdure._ids import sender_of
from perdure._model.journal import Kind
from perdure._model.records import DEADLINE_NAME, MailKind
from perdure._model.status import Status
from perdure.testing._simulation import invariants, mail
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Errand, Plan
from perdure.testing._simulation.history import EntryWritten, LetterWritten
from perdure.testing._simulation.mail import mail_of, told_apart
from perdure.testing._simulation.simulate import Simulation, run_case

from tests.simulation.forgery import append_entry, breaks, change_one, rows
from tests.simulation.programs import Node, far_side_ms, listener, program
from tests.simulation.visitors import completion, interruption, message, visitors

# Takes so long that mail comes meanwhile.
SLOW = next(label for label in map(str, count()) if far_side_ms(label) == 5_000)
TALK: Node = [
    "sequence",
    ["asked", "q"],
    ["inbox", "m", 2],
    ["all", ["step", SLOW], ["asked", "r"]],
    ["all", ["sleep", 61_000], ["asked", "s"]],
    ["child", ["sequence", ["never", "c", 70_000]]],
    ["told", "t", 1],
    ["race", "w", ["step", "y"], ["sleep", 61_000]],
]
LEFT: Node = ["sequence", ["child", ["sequence", ["never", "n", 70_000]]]]
LATE: Node = ["sequence", ["never", "d", 70_000]]

_IGNORED = b'{"success":"ignored"}'
FIRST = b'{"success":"q@0"}'


def _visits(workflow: str, payload: bytes) -> Sequence[Sequence[Errand]]:
    """Who comes to whom: with an answer, and another one too late; with two messages; with an interrupt."""
    if workflow == listener.name:
        return visitors(workflow, payload)
    node = json.loads(payload)["node"]
    if node == LEFT:
        return [[interruption(1)]]
    if node != TALK:
        return []
    return [
        [completion("q", Success("q@0"), 0.5), completion("q", Success("q@1"), 2)],
        [message("m", "m/a0", 1), message("m", "m/a1", 1)],
        [completion("r", Success("r@0"), 4)],
        [completion("s", Success("s@0"), 100)],
    ]


@cache
def mailed_account() -> Account:
    """Of a run in which nothing went wrong."""
    commissions = [
        Commission(workflow=program, args=(TALK,)),
        Commission(workflow=program, args=(LEFT,)),
        Commission(workflow=program, args=(LATE,), options={"deadline": timedelta(seconds=2)}),
    ]
    plan = Plan(registrations=[program, listener], commissions=commissions, visitors=_visits)
    accounts: list[Account] = []

    def judge(account: Account) -> list[str]:
        accounts.append(account)
        return []

    assert run_case(Case(seed=0, faults=frozenset(), at_most=0, processes=2), plan, judge, Simulation()) == []
    return accounts[0]


# What is in it ------------------------------------------------------------------------------------------------------


def _of(account: Account, node: Node) -> Life:
    return next(life for life in account.lives.values() if json.loads(life.record.payload).get("node") == node)


def talk(account: Account) -> Life:
    """The execution that waits for everything."""
    return _of(account, TALK)


def left(account: Account) -> Life:
    """The child whose parent was interrupted."""
    return _of(account, LEFT[1][1])


def letter(life: Life, kind: str, name: str) -> LetterWritten:
    """A letter in its mailbox."""
    return next(one for one in life.letters if (one.kind, one.name) == (kind, name))


def reading(life: Life, one: LetterWritten) -> EntryWritten:
    """The entry that has read a letter."""
    return next(entry for entry in life.written if told_apart(entry) == (one.kind, one.name))


def breaks_mail(check: Any, says: str, *also: Any) -> Any:
    """List a forgery of this account."""
    return breaks(check, says, *also, account=mailed_account)


# Mailboxes ----------------------------------------------------------------------------------------------------------


@breaks_mail(mail.every_mailbox_only_grows, r"letter deferred q was changed \(UPDATE\)")
def a_letter_is_changed(account: Account) -> object:
    life = talk(account)
    one = letter(life, MailKind.DEFERRED, "q")
    life.letters.insert(life.letters.index(one) + 1, one._replace(how="UPDATE"))
    return life


@breaks_mail(mail.every_mailbox_only_grows, "has number 1, after 1")
def two_letters_have_one_number(account: Account) -> object:
    life = talk(account)
    second = [one for one in life.letters if one.wake][1]
    change_one(life.letters, second, wake=1)
    return life


@breaks_mail(mail.every_mailbox_only_grows, "letter message .* came after its end")
def a_letter_comes_after_the_end(account: Account) -> object:
    life = talk(account)
    last = [one for one in life.letters if one.wake][-1]
    late = last._replace(kind="message", name='["x","y"]', tick=(life.ended_at or 0) + 10_000, wake=last.wake + 1)
    life.letters.append(late)
    life.record = life.record._replace(wakes=late.wake)
    return life


@breaks_mail(mail.every_mailbox_only_grows, r"its mail went back from \d+ to 0")
def the_number_of_letters_goes_back(account: Account) -> object:
    life = talk(account)
    last = life.changes[-1]
    change_one(life.changes, last, after=rows(last)[1]._replace(wakes=0))
    return life


@breaks_mail(mail.every_mailbox_only_grows, r"it has mail up to \d+, and says 0")
def a_letter_is_not_counted(account: Account) -> object:
    life = talk(account)
    life.record = life.record._replace(wakes=0)
    return life


@breaks_mail(mail.nothing_is_written_after_the_end, "was written after its end", invariants.only_owners_write)
def an_entry_is_written_after_the_end(account: Account) -> object:
    life = talk(account)
    last = life.written[-1]
    change_one(life.written, last, tick=account.history.committed(life.ended_at or 0) + 1)
    return life


@breaks_mail(mail.all_waiters_are_counted, "1 wait for it, and it has counted 0")
def a_waiter_is_not_counted(account: Account) -> object:
    life = left(account)
    last = life.changes[-1]
    change_one(life.changes, last, after=rows(last)[1]._replace(waiters=0))
    return life


# What is read -------------------------------------------------------------------------------------------------------


@breaks_mail(
    mail.what_is_read_was_written, "has read .*q@0.* where .*other.* was written", mail.a_deferred_has_one_value
)
def another_value_is_read_than_was_written(account: Account) -> object:
    life = talk(account)
    change_one(life.letters, letter(life, MailKind.DEFERRED, "q"), exit=b'{"success":"other"}')
    return life


@breaks_mail(mail.what_is_read_was_written, "has read .*'s'.*, which nobody had written", mail.a_deferred_has_one_value)
def what_is_read_was_never_written(account: Account) -> object:
    life = talk(account)
    life.letters.remove(letter(life, MailKind.DEFERRED, "s"))
    return life


@breaks_mail(mail.what_is_read_was_written, r"'q'\) was read 2 times")
def a_letter_is_read_twice(account: Account) -> object:
    life = talk(account)
    append_entry(life, reading(life, letter(life, MailKind.DEFERRED, "q")))
    return life


@breaks_mail(mail.what_is_read_was_written, "was read after what came later", mail.every_mailbox_only_grows)
def messages_are_read_in_another_order(account: Account) -> object:
    life = talk(account)
    first, second = (one for one in life.letters if one.kind == MailKind.MESSAGE)
    change_one(life.letters, first, wake=second.wake)
    change_one(life.letters, second, wake=first.wake)
    return life


@breaks_mail(mail.nobody_sleeps_on_mail, r"went to sleep at \d+, and had not read .*'s'")
def it_goes_to_sleep_and_has_mail(account: Account) -> object:
    life = talk(account)
    one = letter(life, MailKind.DEFERRED, "s")
    asleep = [c for c in life.changes if c.after is not None and c.after.status == "SUSPENDED" and c.tick < one.tick][
        -1
    ]
    change_one(life.letters, one, tick=asleep.tick - 1)
    return life


@breaks_mail(mail.no_mail_is_late, r"'r'\) came at \d+ while it ran, and was read at \d+")
def mail_is_read_late(account: Account) -> object:
    life = talk(account)
    one = letter(life, MailKind.DEFERRED, "r")
    change_one(life.written, reading(life, one), now=max(one.now, account.calm_from) + 6_001)
    return life


@breaks_mail(mail.instants_decide, r"of \d+, was fed after entry \d+, of \d+")
def what_came_first_is_fed_last(account: Account) -> object:
    life = talk(account)
    one = letter(life, MailKind.DEFERRED, "s")
    read = reading(life, one)
    # As if both had been fed in one turn.
    life.commits = [(tick, length) for tick, length in life.commits if length != read.seq - 1]
    timer = life.written[read.seq - 2]
    assert timer.kind == Kind.TIMER
    change_one(life.letters, one, at=timer.at - 60_000)
    return life


@breaks_mail(mail.every_marker_is_written_once, "race raceAll/Activity/w 1 is recorded 2 times")
def a_race_is_decided_twice(account: Account) -> object:
    life = talk(account)
    append_entry(life, next(entry for entry in life.written if entry.kind == Kind.RACE))
    return life


@breaks_mail(mail.what_a_body_sends_arrives, "what send:t 1 has sent lies 0 times in mailboxes")
def what_was_sent_is_not_there(account: Account) -> object:
    life = talk(account)
    sender = sender_of(life.record.incarnation, "send:t", 1)
    letters = account.history.letters
    change_one(letters, next(one for one in letters if one.sender == sender), sender=b"somebody else")
    return life


# What visitors were told --------------------------------------------------------------------------------------------


def _change_visit(account: Account, said: bytes, /, **fields: Any) -> None:
    visits = account.saw.visits
    change_one(visits, next(visit for visit in visits if visit.exit == said), **fields)


@breaks_mail(mail.a_deferred_has_one_value, "2 completions of q count")
def two_completions_count(account: Account) -> object:
    _change_visit(account, b'{"success":"q@1"}', counted=True)
    return talk(account)


@breaks_mail(mail.a_deferred_has_one_value, "lies there for q, and nobody was told that it counts")
def no_completion_counts(account: Account) -> object:
    _change_visit(account, FIRST, counted=False)
    return talk(account)


@breaks_mail(mail.a_deferred_has_one_value, "the completion of q with .*lost.* counts, and .*q@0.* lies there")
def a_completion_that_counts_is_lost(account: Account) -> object:
    _change_visit(account, FIRST, exit=b'{"success":"lost"}')
    return talk(account)


@breaks_mail(mail.a_deferred_has_one_value, "deferred q was refused, and nothing had come before it")
def a_completion_is_refused_for_nothing(account: Account) -> object:
    life = talk(account)
    before = letter(life, MailKind.DEFERRED, "q").tick - 1
    _change_visit(account, b'{"success":"q@1"}', told=before)
    return life


@breaks_mail(mail.no_mail_is_lost, "message .*a9.* was acknowledged, and is not there")
def a_message_is_lost(account: Account) -> object:
    visit = next(visit for visit in account.saw.visits if visit.kind == MailKind.MESSAGE)
    account.saw.visits.append(visit._replace(name='["m","m/a9"]'))
    return talk(account)


@breaks_mail(mail.no_mail_is_lost, "interrupt  was acknowledged, and is not there")
def an_interrupt_is_lost(account: Account) -> object:
    life = talk(account)
    visit = next(visit for visit in account.saw.visits if visit.kind == MailKind.INTERRUPT)
    account.saw.visits.append(visit._replace(execution_id=life.record.execution_id, told=life.changes[1].tick))
    return life


# Interrupts and deadlines -------------------------------------------------------------------------------------------


@breaks_mail(mail.no_deadline_is_early_or_late, r"was interrupted by its deadline at \d+; that is \d+")
def a_deadline_comes_early(account: Account) -> object:
    life = _of(account, LATE)
    life.record = life.record._replace(deadline=mail_of(life)[MailKind.INTERRUPT, DEADLINE_NAME].now + 1)
    return life


@breaks_mail(mail.no_deadline_is_early_or_late, "was never seen to")
def a_deadline_passes_unseen(account: Account) -> object:
    life = talk(account)
    life.record = life.record._replace(deadline=life.record.created_at)
    return life


@breaks_mail(
    mail.no_interrupt_is_invented,
    "is INTERRUPTED, and nobody has interrupted it",
    invariants.every_replay_goes_the_same_way,
)
def it_is_interrupted_by_nobody(account: Account) -> object:
    life = talk(account)
    life.record = life.record._replace(status=Status.INTERRUPTED)
    return life


# Children -----------------------------------------------------------------------------------------------------------


def _child_of_talk(account: Account) -> Life:
    return _of(account, TALK[5][1])


@breaks_mail(mail.every_end_is_told, "and was not told of its end", mail.what_is_read_was_written)
def an_end_is_not_told(account: Account) -> object:
    life, child = talk(account), _child_of_talk(account)
    life.letters.remove(letter(life, MailKind.CHILD, child.record.execution_id))
    return life


@breaks_mail(mail.every_end_is_told, r"which ended at \d+, and was told at \d+")
def an_end_is_told_in_another_transaction(account: Account) -> object:
    life, child = talk(account), _child_of_talk(account)
    one = letter(life, MailKind.CHILD, child.record.execution_id)
    change_one(life.letters, one, tick=account.history.committed(one.tick) + 1)
    return life


@breaks_mail(
    mail.every_end_is_told,
    "was told that .* ended with .*other",
    mail.what_is_read_was_written,
)
def another_end_is_told(account: Account) -> object:
    life, child = talk(account), _child_of_talk(account)
    change_one(life.letters, letter(life, MailKind.CHILD, child.record.execution_id), exit=b'{"success":["other"]}')
    return life


@breaks_mail(
    mail.what_is_left_is_interrupted,
    "has left .*, which was not interrupted",
    mail.what_is_read_was_written,
    mail.no_interrupt_is_invented,
)
def a_child_that_was_left_goes_on(account: Account) -> object:
    child = left(account)
    child.letters.remove(letter(child, MailKind.INTERRUPT, ""))
    return child


@breaks_mail(
    mail.what_is_wanted_is_not_interrupted,
    "was interrupted, and .* waited for it",
    mail.all_waiters_are_counted,
    mail.every_end_is_told,
)
def a_child_that_is_wanted_is_interrupted(account: Account) -> object:
    child = left(account)
    waits = letter(child, MailKind.WAITER, _of(account, LEFT).record.execution_id)
    another = talk(account).record
    child.letters.append(waits._replace(name=another.execution_id, exit=another.incarnation))
    return child


# Replay -------------------------------------------------------------------------------------------------------------


@breaks_mail(invariants.every_replay_goes_the_same_way, "recorded, and asked for by nobody: sent complete:t")
def a_receipt_is_recorded_that_nobody_takes(account: Account) -> object:
    life = talk(account)
    sent = next(entry for entry in life.written if entry.kind == Kind.SENT and "complete" in entry.name)
    step = next(entry for entry in life.written if b'"y"' in entry.input)
    place = life.written.index(step)
    behind = [entry._replace(seq=entry.seq + 1) for entry in life.written[place:]]
    extra = sent._replace(
        seq=step.seq, at=step.at, now=step.now, process=step.process, tick=step.tick, occurrence=3, exit=_IGNORED
    )
    life.written[place:] = [extra, *behind]
    life.commits = [(tick, length + (length >= step.seq)) for tick, length in life.commits]
    return life
