"""Forgeries: accounts of real runs, each changed so that one promise is broken in it, and what has to be said of it.

A calm run gives most of them; what only crashes bring about comes from the first seed in which they do. A forgery
changes a copy, and gives back what the check has to name.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from perdure._model.status import Held, Status
from perdure._values.exit_codec import is_success, retry_at
from perdure.testing._simulation import invariants
from perdure.testing._simulation.account import Account, Life
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.director import ClientsSaw, Commission, Plan
from perdure.testing._simulation.history import AttemptSeen, EntryWritten, ExecutionChange, ExecutionRow
from perdure.testing._simulation.invariants import Check
from perdure.testing._simulation.simulate import Simulation, run_case

from tests.simulation.programs import PATIENCE_MS, Node, far_side_ms, program

# Longer than a `hurried` step waits.
LATE = next(label for label in map(str, count()) if far_side_ms(label) > PATIENCE_MS)
# Something of every sort that checks look at: retries, a wait for days and one in memory, equals, at most once.
LONG: Node = [
    "sequence",
    ["step", "a"],
    ["flaky", "b", 1],
    ["stubborn", "c"],
    ["sleep", 61_000],
    ["once", "d"],
    ["equal", "e", 2],
    ["beside", ["stamp", "h"]],
    ["hurried", LATE],
    ["stamp", "f"],
]
# Ends with the firing of a timer, behind which nothing comes.
SHORT: Node = ["sequence", ["stamp", "g"], ["sleep", 2_000]]

SOMEBODY = 99  # the number of a process that was not there
NOBODY = "0" * 32  # the id of an execution that was not there
OTHER = b'{"success":["something else"]}'

Forge = Callable[[Account], object]


class Forgery(NamedTuple):
    """How to break a promise, and who has to notice."""

    forge: Forge
    check: Check
    # What the check has to say, as a pattern.
    says: str
    # Checks that speak as well, because what they look at cannot be broken alone.
    also: frozenset[str]
    account: Callable[[], Account]

    def __str__(self) -> str:
        return self.forge.__name__


FORGERIES: list[Forgery] = []


def breaks(
    check: Check, says: str, *also: Check, crashed: bool = False, account: Callable[[], Account] | None = None
) -> Callable[[Forge], Forge]:
    """List a forgery."""

    def listed(forge: Forge) -> Forge:
        others = frozenset(one.__name__ for one in also)
        FORGERIES.append(Forgery(forge, check, says, others, account or (crashed_account if crashed else calm_account)))
        return forge

    return listed


# Real accounts ------------------------------------------------------------------------------------------------------


def account_of_run(case: Case) -> Account:
    """The account of a run of the two programs, in which nothing is wrong."""
    plan = Plan(
        registrations=[program], commissions=[Commission(workflow=program, args=(node,)) for node in (LONG, SHORT)]
    )
    accounts: list[Account] = []

    def judge(account: Account) -> list[str]:
        accounts.append(account)
        return []

    found = run_case(case, plan, judge, Simulation())
    assert found == []
    return accounts[0]


@cache
def calm_account() -> Account:
    """Of a run in which nothing went wrong and everybody was told."""
    for seed in count():
        account = account_of_run(Case(seed=seed, faults=frozenset(), at_most=0, processes=2))
        if len(account.saw.told) == 2:
            return account
    raise AssertionError


@cache
def crashed_account() -> Account:
    """Of a run in which the long program was taken over, went on, was claimed again, and did its step of once."""
    faults = frozenset({Fault.CRASH, Fault.USURP})
    for seed in range(200):
        account = account_of_run(Case(seed=seed, faults=faults, at_most=8, processes=2))
        life = long(account)
        if taken_over(life) is None or claim_after(life, step(life, "a").tick) is None:
            continue
        if any(seen.once and not seen.ended for seen in life.attempts) and life.record.exit:
            return account
    raise AssertionError("in no run was the long program taken over and claimed again")


def copy_of(account: Account) -> Account:
    """One that can be changed; what checks have derived from the other one is not in it."""
    told = {id_: list(told) for id_, told in account.saw.told.items()}
    operations = [replace(operation) for operation in account.saw.operations]
    saw = ClientsSaw(
        dict(account.saw.accepted),
        told,
        list(account.saw.visits),
        list(account.saw.begun),
        operations,
        list(account.saw.restarts),
    )
    lives = {
        id_: Life(
            life.record,
            life.implementation,
            list(life.changes),
            list(life.written),
            list(life.attempts),
            list(life.commits),
            list(life.letters),
            life.leaving,
            life.kept,
            life.operation and replace(life.operation),
        )
        for id_, life in account.lives.items()
    }
    history = replace(account.history, letters=list(account.history.letters))
    return replace(account, saw=saw, lives=lives, history=history, strays=list(account.strays))


# What is in them ----------------------------------------------------------------------------------------------------


def long(account: Account) -> Life:
    """The execution of the long program."""
    return next(life for life in account.lives.values() if b'"a"' in life.record.payload)


def short(account: Account) -> Life:
    """The execution of the short program."""
    return next(life for life in account.lives.values() if b'"g"' in life.record.payload)


def step(life: Life, label: str, *, kind: str = "activity") -> EntryWritten:
    """The last entry of a kind with the label of a step in its input; its attempts are found by it."""
    found = [one for one in life.written if one.kind == kind and (f'"{label}"'.encode() in one.input or not label)]
    return found[-1]


def rows(change: ExecutionChange) -> tuple[ExecutionRow, ExecutionRow]:
    """The row before and after a change that is no birth."""
    assert change.before is not None
    assert change.after is not None
    return change.before, change.after


def move(life: Life, before: str, after: str) -> ExecutionChange:
    """The first change of status from one to another."""
    return next(
        change
        for change in life.changes
        if change.before is not None
        and change.after is not None
        and (change.before.status, change.after.status) == (before, after)
    )


def claim_after(life: Life, tick: int) -> ExecutionChange | None:
    """The first claim behind a place in the run."""
    return next(
        (
            change
            for change in life.changes
            if change.tick > tick and change.before is not None and change.after is not None
            if change.before.owner is None and change.after.owner is not None
        ),
        None,
    )


def claimed_again(life: Life) -> ExecutionChange:
    """The claim after the first suspension."""
    claimed = claim_after(life, move(life, "RUNNING", "SUSPENDED").tick)
    assert claimed is not None
    return claimed


def taken_over(life: Life) -> ExecutionChange | None:
    """The first change by which a crash was counted."""
    return next(
        (
            change
            for change in life.changes
            if change.before is not None and change.after is not None and change.after.crashes > change.before.crashes
        ),
        None,
    )


def attempts_of(life: Life, entry: EntryWritten, *, ended: bool) -> list[AttemptSeen]:
    """The beginnings or the ends of the attempt that an entry records."""
    return [
        seen
        for seen in life.attempts
        if (seen.name, seen.occurrence, seen.attempt) == (entry.name, entry.occurrence, entry.attempt)
        and seen.ended is ended
    ]


def change_one(among: list[Any], one: Any, **fields: Any) -> None:
    """Put a changed one in the place of one."""
    among[among.index(one)] = one._replace(**fields)


def change_after(life: Life, change: ExecutionChange, **columns: Any) -> None:
    """Let a change have led to another row."""
    change_one(life.changes, change, after=rows(change)[1]._replace(**columns))


def append_entry(life: Life, entry: EntryWritten, **fields: Any) -> None:
    """Write one more entry in the last commit, like another one."""
    last = life.written[-1]
    life.written.append(entry._replace(tick=last.tick, process=last.process, seq=last.seq + 1, at=last.at, **fields))
    committed, length = life.commits[-1]
    life.commits[-1] = (committed, length + 1)


# What callers were told ---------------------------------------------------------------------------------------------


@breaks(invariants.no_start_is_lost, "was accepted at 1, and was not there")
def an_accepted_start_has_no_row(account: Account) -> object:
    account.saw.accepted[NOBODY] = 1
    return NOBODY


@breaks(invariants.no_start_is_lost, r"was accepted at \d+, and was not there")
def a_start_is_accepted_before_it_is_written(account: Account) -> object:
    life = long(account)
    account.saw.accepted[life.record.execution_id] = life.changes[0].tick - 1
    return life.record.execution_id


@breaks(invariants.everybody_is_told_the_same, "something else.* was told, .* is stored")
def one_caller_is_told_another_result(account: Account) -> object:
    life = long(account)
    account.saw.told[life.record.execution_id].append(OTHER)
    return life


@breaks(invariants.everybody_is_told_the_same, "something else.* was told, None is stored")
def a_caller_is_told_of_what_is_not_there(account: Account) -> object:
    account.saw.told[NOBODY] = [OTHER]
    return NOBODY


# Rows ---------------------------------------------------------------------------------------------------------------


@breaks(invariants.every_move_is_allowed, "was born 2 times")
def it_is_born_again(account: Account) -> object:
    life = long(account)
    life.changes.insert(1, life.changes[0])
    return life


@breaks(invariants.every_move_is_allowed, "was born 0 times")
def it_is_never_born(account: Account) -> object:
    life = long(account)
    birth = life.changes[0]
    assert birth.after is not None
    before = birth.after._replace(status="PENDING", owner=None, fence=birth.after.fence - 1)
    change_one(life.changes, birth, before=before)
    return life


@breaks(invariants.every_move_is_allowed, "was taken away")
def its_row_is_taken_away(account: Account) -> object:
    life = long(account)
    last = life.changes[-1]
    life.changes.append(last._replace(tick=last.tick + 1, before=last.after, after=None))
    return life


@breaks(invariants.every_move_is_allowed, "had ended SUCCEEDED, and was changed to")
def it_has_ended_and_changes(account: Account) -> object:
    life = long(account)
    last = life.changes[-1]
    assert last.after is not None
    changed = last.after._replace(exit=OTHER)
    life.changes.append(last._replace(tick=last.tick + 1, before=last.after, after=changed))
    return life


@breaks(invariants.every_move_is_allowed, "went from PENDING to SUCCEEDED")
def it_ends_without_having_run(account: Account) -> object:
    life = long(account)
    last = life.changes[-1]
    change_one(life.changes, last, before=rows(last)[0]._replace(status="PENDING"))
    return life


@breaks(invariants.every_owner_is_the_only_one, "its fence went from 1 to 0")
def its_fence_goes_back(account: Account) -> object:
    life = long(account)
    change_after(life, move(life, "RUNNING", "SUSPENDED"), fence=0)
    return life


@breaks(invariants.every_owner_is_the_only_one, r"its fence went from 1 to 3")
def its_fence_leaves_a_number_out(account: Account) -> object:
    life = long(account)
    change_after(life, claimed_again(life), fence=3)
    return life


@breaks(invariants.every_owner_is_the_only_one, r"went from worker \d+ to worker 99 directly")
def one_worker_takes_it_from_another(account: Account) -> object:
    life = long(account)
    last = life.changes[-1]
    before = rows(last)[0]
    life.changes.insert(-1, last._replace(before=before, after=before._replace(owner=SOMEBODY)))
    return life


@breaks(invariants.every_owner_is_the_only_one, "was claimed under its old fence 1")
def a_claim_leaves_the_fence_as_it_is(account: Account) -> object:
    life = long(account)
    change_after(life, claimed_again(life), fence=1)
    return life


@breaks(invariants.only_owners_write, "was written by process 99, which did not own it")
def an_entry_is_written_by_another_process(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "f"), process=SOMEBODY)
    return life


@breaks(invariants.only_owners_write, r"was written by process \d, which did not own it")
def an_entry_is_written_after_it_was_given_back(account: Account) -> object:
    life = long(account)
    suspended = move(life, "RUNNING", "SUSPENDED")
    # The one before it, of the same commit or of an earlier one.
    entry = [one for one in life.written if one.tick < suspended.tick][-1]
    change_one(life.written, entry, tick=suspended.tick + 1)
    return life


@breaks(invariants.only_owners_write, "was written before it was born")
def an_entry_is_written_before_it_was_born(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "", kind="timer"), tick=life.changes[0].tick - 1)
    return life


@breaks(invariants.every_crash_is_counted, "its crashes went from 0 to 1")
def a_crash_is_counted_at_a_suspension(account: Account) -> object:
    life = long(account)
    change_after(life, move(life, "RUNNING", "SUSPENDED"), crashes=1)
    return life


@breaks(invariants.every_crash_is_counted, "a crash was counted where nothing has crashed")
def a_crash_is_left_in_a_calm_run(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(crashes=1)
    return ""


@breaks(invariants.every_crash_is_counted, "was taken over, and its crashes went from 0 to 0", crashed=True)
def a_crash_is_not_counted(account: Account) -> object:
    life = long(account)
    change = taken_over(life)
    assert change is not None
    change_after(life, change, crashes=rows(change)[0].crashes)
    return life


@breaks(invariants.every_crash_is_counted, "was counted by its own worker, which had not crashed", crashed=True)
def a_worker_counts_a_crash_of_its_own(account: Account) -> object:
    life = long(account)
    change = taken_over(life)
    assert change is not None
    owner = rows(change)[0].owner
    worker = next(one for one in account.history.workers if one.n == owner)
    change_one(life.changes, change, process=worker.process)
    return life


@breaks(invariants.every_crash_is_counted, "1 crashes were forgiven, and it had not got on", crashed=True)
def a_crash_is_forgiven_for_nothing(account: Account) -> object:
    life = long(account)
    change = taken_over(life)
    assert change is not None
    after = rows(change)[1]
    place = life.changes.index(change) + 1
    forgiven = change._replace(tick=change.tick + 1, before=after, after=after._replace(crashes=0))
    life.changes.insert(place, forgiven)
    return life


@breaks(invariants.nothing_is_left, "entries of incarnation 00 belong to no execution")
def entries_are_left_over(account: Account) -> object:
    account.strays.append("2 entries of incarnation 00 belong to no execution")
    return ""


@breaks(invariants.nothing_is_left, "is still owned by worker 1")
def an_owner_is_left(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(owner="worker 1")
    return life


@breaks(invariants.nothing_is_left, "has not ended: SUSPENDED")
def one_has_not_ended(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(status=Status.SUSPENDED)
    return life


@breaks(invariants.nothing_is_left, "is SUSPENDED without an exit")
def one_is_held_without_a_cause(account: Account) -> object:
    life = long(account)
    del account.saw.told[life.record.execution_id]
    life.record = life.record._replace(status=Status.SUSPENDED, held=Held.FAILURE, exit=None)
    return life


@breaks(invariants.nothing_is_left, r"is held \(DIVERGENCE\)")
def one_is_held_by_a_bug(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(status=Status.SUSPENDED, held=Held.DIVERGENCE)
    return life


@breaks(invariants.nothing_is_left, "was held by a compensation that waits for nothing")
def a_compensation_has_waited_for_nothing(account: Account) -> object:
    life = long(account)
    last = life.changes[-1]
    assert last.after is not None
    held = last.after._replace(status="HELD", held=Held.COMPENSATION, exit=b'{"failure":[{"die":{"name":"Deadlock"}}]}')
    life.changes.append(last._replace(after=held))
    return life


# Journals -----------------------------------------------------------------------------------------------------------


@breaks(invariants.every_journal_only_grows, r"was changed \(UPDATE\)")
def an_entry_is_changed(account: Account) -> object:
    life = long(account)
    timer = step(life, "", kind="timer")
    life.written.insert(life.written.index(timer) + 1, timer._replace(how="UPDATE"))
    return life


@breaks(invariants.every_journal_only_grows, r"entry \d+ was written as the \d+th")
def a_number_is_left_out(account: Account) -> object:
    life = long(account)
    last = life.written[-1]
    change_one(life.written, last, seq=last.seq + 1)
    return life


@breaks(invariants.every_journal_only_grows, "goes back in time")
def an_entry_is_older_than_the_one_before_it(account: Account) -> object:
    life = long(account)
    before, last = life.written[-2:]
    change_one(life.written, last, at=before.at - 1)
    return life


@breaks(invariants.every_journal_only_grows, "goes back in time")
def an_entry_is_older_than_the_execution(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(began_at=life.written[0].at + 1)
    return life


@breaks(invariants.every_replay_goes_the_same_way, "has ended SUCCEEDED .*something else.*; replayed: SUCCEEDED")
def a_replay_ends_with_another_result(account: Account) -> object:
    life = long(account)
    life.record = life.record._replace(exit=OTHER)
    account.saw.told[life.record.execution_id] = [OTHER]
    return life


@breaks(invariants.every_replay_goes_the_same_way, r"(?i)the replay of \d+ entries diverges")
def a_recorded_input_is_not_the_one_that_is_asked(account: Account) -> object:
    life = long(account)
    entry = step(life, "f")
    change_one(life.written, entry, input=entry.input.replace(b'"f"', b'"z"'))
    return life


@breaks(invariants.every_replay_goes_the_same_way, "a replay of the whole journal writes 1 entries more")
def a_start_is_not_found_again(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "", kind="start"), name="Another")
    return life


@breaks(
    invariants.every_replay_goes_the_same_way,
    "answers stamp 2, which nobody had asked for",
    invariants.no_outcome_is_invented,
)
def an_entry_answers_what_nobody_asked(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "f"), occurrence=2)
    return life


@breaks(invariants.every_replay_goes_the_same_way, "fires rest 2000 2, which nobody had set")
def a_timer_fires_that_nobody_has_set(account: Account) -> object:
    life = short(account)
    change_one(life.written, step(life, "", kind="timer"), occurrence=2)
    return life


@breaks(invariants.every_replay_goes_the_same_way, r"timer rest 2000 was due at \d+ and fired at \d+")
def a_timer_fires_before_it_is_due(account: Account) -> object:
    life = short(account)
    began = step(life, "g").at
    change_one(life.written, step(life, "", kind="timer"), at=began + 1_999)
    return life


@breaks(invariants.every_timer_fires_once, r"timer \('rest 2000', 1\) has fired 2 times")
def a_timer_fires_twice(account: Account) -> object:
    life = short(account)
    append_entry(life, step(life, "", kind="timer"))
    return life


@breaks(invariants.every_timer_fires_once, r"was woken at \d+, before \d+")
def a_sleeper_is_woken_before_its_time(account: Account) -> object:
    life = long(account)
    woken = move(life, "SUSPENDED", "PENDING")
    wake_at = rows(woken)[0].wake_at
    assert wake_at is not None
    change_one(life.changes, woken, now=wake_at - 1)
    return life


@breaks(invariants.no_wake_is_late, r"was to be woken at \d+, and was at \d+")
def a_sleeper_is_woken_late(account: Account) -> object:
    life = long(account)
    woken = move(life, "SUSPENDED", "PENDING")
    wake_at = rows(woken)[0].wake_at
    assert wake_at is not None
    change_one(life.changes, woken, now=wake_at + 6_001)
    return life


@breaks(invariants.no_wake_is_late, r"was to be woken at \d+, and was at \d+", crashed=True)
def a_sleeper_is_woken_late_when_the_trouble_is_over(account: Account) -> object:
    life = long(account)
    woken = move(life, "SUSPENDED", "PENDING")
    wake_at = rows(woken)[0].wake_at
    assert wake_at is not None
    change_one(life.changes, woken, now=max(wake_at, account.calm_from) + 6_001)
    return life


# Attempts -----------------------------------------------------------------------------------------------------------


@breaks(invariants.no_outcome_is_invented, "attempt 1 of stamp is recorded, and was not made")
def an_attempt_is_recorded_that_was_never_made(account: Account) -> object:
    life = long(account)
    life.attempts = [seen for seen in life.attempts if seen.name != "stamp"]
    return life


@breaks(invariants.no_outcome_is_invented, "attempt 1 of stamp is recorded, and was not made")
def a_success_is_recorded_that_never_returned(account: Account) -> object:
    life = long(account)
    (returned,) = attempts_of(life, step(life, "f"), ended=True)
    life.attempts.remove(returned)
    return life


@breaks(invariants.no_outcome_is_invented, "attempt 1 of stamp is recorded, and was not made")
def a_success_is_recorded_before_it_returns(account: Account) -> object:
    life = long(account)
    entry = step(life, "f")
    (returned,) = attempts_of(life, entry, ended=True)
    change_one(life.attempts, returned, tick=entry.tick + 1)
    return life


@breaks(invariants.no_outcome_is_invented, "attempt 1 of flaky is recorded, and was not made")
def a_failure_is_recorded_of_an_attempt_that_never_began(account: Account) -> object:
    life = long(account)
    failure = next(one for one in life.written if one.name == "flaky" and not is_success(one.exit))
    (begun,) = attempts_of(life, failure, ended=False)
    life.attempts.remove(begun)
    return life


@breaks(invariants.nothing_begins_before_it_is_asked_for, "step began before the execution was born")
def an_attempt_begins_before_the_birth(account: Account) -> object:
    life = long(account)
    (begun,) = attempts_of(life, step(life, "a"), ended=False)
    change_one(life.attempts, begun, tick=life.changes[0].tick - 1)
    return life


@breaks(
    invariants.nothing_begins_before_it_is_asked_for, "attempt 1 of stamp began before anything durable asked for it"
)
def an_attempt_begins_before_the_commit_that_asks_for_it(account: Account) -> object:
    life = long(account)
    entry = step(life, "f")
    (begun,) = attempts_of(life, entry, ended=False)
    # The commit of what comes before it is the one after which it is asked for.
    asked = max(committed for committed, _ in life.commits if committed < begun.tick)
    change_one(life.attempts, begun, tick=asked - 1)
    return life


@breaks(
    invariants.nothing_begins_before_it_is_asked_for, "attempt 1 of step was recorded, and began again", crashed=True
)
def an_attempt_begins_again_after_its_record(account: Account) -> object:
    life = long(account)
    entry = step(life, "a")
    begun = attempts_of(life, entry, ended=False)[0]
    claimed = claim_after(life, entry.tick)
    assert claimed is not None
    life.attempts.append(begun._replace(tick=claimed.tick + 1, process=claimed.process))
    return life


@breaks(invariants.nothing_is_repeated_without_cause, r"process \d+ began attempt 1 of step 1 2 times$", crashed=True)
def a_worker_begins_an_attempt_twice(account: Account) -> object:
    life = long(account)
    begun = attempts_of(life, step(life, "a"), ended=False)[-1]
    life.attempts.append(begun)
    return life


@breaks(invariants.nothing_is_repeated_without_cause, r"\('step', 1, 1\) began 2 times, and nothing has cut it off")
def an_attempt_begins_again_in_a_calm_run(account: Account) -> object:
    life = long(account)
    (begun,) = attempts_of(life, step(life, "a"), ended=False)
    life.attempts.append(begun._replace(process=SOMEBODY))
    return life


@breaks(invariants.every_attempt_has_its_number, "attempt 2 of flaky is recorded, where attempt 3 is due")
def an_attempt_is_recorded_twice(account: Account) -> object:
    life = long(account)
    append_entry(life, step(life, "b"))
    return life


@breaks(
    invariants.every_attempt_has_its_number,
    "attempt 3 of flaky is recorded, where attempt 3 is due",
    invariants.no_outcome_is_invented,
)
def an_attempt_follows_the_last_one(account: Account) -> object:
    life = long(account)
    append_entry(life, step(life, "b"), attempt=3)
    return life


@breaks(
    invariants.every_attempt_has_its_number,
    "attempt 2 of stamp is recorded, where attempt 1 is due",
    invariants.no_outcome_is_invented,
    invariants.every_replay_goes_the_same_way,
)
def an_attempt_is_left_out(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "f"), attempt=2)
    return life


@breaks(invariants.every_attempt_has_its_number, "attempt 2 of flaky began before it was due")
def a_retry_does_not_wait(account: Account) -> object:
    life = long(account)
    failure = next(one for one in life.written if one.name == "flaky" and not is_success(one.exit))
    due_at = retry_at(failure.exit)
    assert due_at is not None
    (again,) = attempts_of(life, step(life, "b"), ended=False)
    change_one(life.attempts, again, now=due_at - 1)
    return life


@breaks(invariants.every_key_is_the_steps_own, r"stamp 1 has the key of \('[0-9a-f]{32}', 'step', 1\)")
def two_steps_have_one_key(account: Account) -> object:
    life = long(account)
    (key,) = {seen.key for seen in attempts_of(life, step(life, "a"), ended=True)}
    for seen in [seen for seen in life.attempts if seen.name == "stamp"]:
        change_one(life.attempts, seen, key=key)
    return life


@breaks(invariants.every_key_is_the_steps_own, r"\('flaky', 1\) has run under 2 keys")
def a_second_attempt_has_another_key(account: Account) -> object:
    life = long(account)
    for seen in [seen for seen in life.attempts if (seen.name, seen.attempt) == ("flaky", 2)]:
        change_one(life.attempts, seen, key="another")
    return life


@breaks(invariants.at_most_once_is_kept, r"\('once', 1, 1\) may happen once, and began 2 times", crashed=True)
def what_may_happen_once_begins_twice(account: Account) -> object:
    life = long(account)
    begun = next(seen for seen in life.attempts if seen.once and not seen.ended)
    life.attempts.append(begun._replace(process=SOMEBODY))
    return life


@breaks(invariants.at_most_once_is_kept, "attempt 1 of once may happen once, and began before it was noted")
def what_may_happen_once_is_not_noted(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "", kind="begun"), name="another")
    return life


@breaks(invariants.at_most_once_is_kept, "attempt 1 of once may happen once, and began before it was noted")
def what_may_happen_once_is_noted_while_it_happens(account: Account) -> object:
    life = long(account)
    begun = next(seen for seen in life.attempts if seen.once and not seen.ended)
    change_one(life.written, step(life, "", kind="begun"), tick=begun.tick + 1)
    return life


@breaks(
    invariants.no_outcome_is_unknown_without_cause,
    "the outcome of once 1 is unknown, and nothing has cut it off",
    invariants.every_replay_goes_the_same_way,
    invariants.nothing_begins_before_it_is_asked_for,
)
def an_outcome_is_unknown_for_no_reason(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, "d"), exit=b'{"failure":[{"fail":{"tag":"outcome-unknown","error":{}}}]}')
    return life


@breaks(
    invariants.no_attempt_times_out_early,
    r"hurried began at \d+, and its 1000 ms were over at \d+",
)
def an_attempt_times_out_early(account: Account) -> object:
    life = long(account)
    change_one(life.written, step(life, LATE), now=0)
    return life
