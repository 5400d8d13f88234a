"""The checker can fail: into the account of a real run, with a kill in it, a violation is planted for each check."""

import copy
from collections.abc import Callable

import pytest

from perdure._model.journal import Kind

from tests.crash.checker import CHECKS, Account, Kill, in_flight, keys_of, recorded, repeats, violations
from tests.crash.history import NEVER, Change, What
from tests.crash.ledger import Line, Phase
from tests.crash.snapshot import Execution, Snapshot
from tests.crash.stage import Stage, some_of_each

pytestmark = pytest.mark.timeout(60)  # the fixture starts two processes

UNKNOWN = b'{"failure":[{"perdure":{"code":"outcome-unknown","message":"","facts":{}}}]}'


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Account:
    """A worker was killed with its hands full, and another one has finished what it had begun."""
    stage = Stage(tmp_path_factory.mktemp("checker"), history=True)
    work = some_of_each("one")
    stage.run_until_it_dies(work, "effect.after", 45)
    stage.run_until_it_ends(work)
    return stage.account()


class Planted:
    """A copy of the account that can be spoilt."""

    def __init__(self, account: Account) -> None:
        self.lines: list[Line] = list(account.lines)
        self.kill: Snapshot = copy.deepcopy(account.kills[0].snapshot)
        self.rest: Snapshot = copy.deepcopy(account.rest)
        self.pid = account.kills[0].pid
        self.killed_at = account.kills[0].at
        # Whoever has finished what it had begun.
        self.heir = account.lines[-1].pid

    def account(self) -> Account:
        return Account(self.lines, [Kill(self.pid, self.kill, self.killed_at)], self.rest)

    def execution(self, workflow: str, snapshot: Snapshot | None = None) -> Execution:
        every = (self.rest if snapshot is None else snapshot).executions.values()
        return next(one for one in every if one.workflow == workflow and "child" not in one.label)

    def line(self, phase: Phase, wanted: Callable[[Line], bool] = lambda _: True) -> int:
        return next(place for place, line in enumerate(self.lines) if line.phase is phase and wanted(line))

    def change(self, place: int, **fields: object) -> None:
        self.lines[place] = self.lines[place]._replace(**fields)

    def change_entry(self, execution: Execution, kind: Kind, number: int = 0, **fields: object) -> None:
        entry = execution.events(kind)[number]
        execution.entries[execution.entries.index(entry)] = entry._replace(**fields)

    def again(self, wanted: Callable[[Line], bool], **fields: object) -> None:
        """One more line at the end, like an earlier one."""
        self.lines.append(self.lines[self.line(Phase.BEGIN, wanted)]._replace(**fields))

    def move(self, wanted: Callable[[Change], bool]) -> int:
        """The place of a change of some execution's row."""
        return next(
            place
            for place, change in enumerate(self.rest.changes)
            if change.what is What.MOVED and change.before is not None and change.after is not None and wanted(change)
        )

    def change_move(self, place: int, *, writer: int | None = None, before: object = None, **after: object) -> None:
        change = self.rest.changes[place]
        self.rest.changes[place] = change._replace(
            writer=change.writer if writer is None else writer,
            before=change.before if before is None else before,
            after=change.after._replace(**after),
        )

    def claimed(self) -> int:
        return self.move(lambda change: change.before.owner is None and change.after.owner is not None)

    def taken_over(self) -> int:
        return self.move(lambda change: change.before.owner == self.pid != change.writer)

    def over(self) -> set[str]:
        return recorded(self.account(), self.kill)[1]


def an_accepted_row_is_missing_at_the_kill(planted: Planted) -> None:
    accepted = planted.lines[planted.line(Phase.ACCEPTED)].execution_id
    del planted.kill.executions[accepted]


def an_execution_goes_on_for_ever(planted: Planted) -> None:
    planted.execution("Steps").status = "RUNNING"


def a_detached_execution_was_never_born(planted: Planted) -> None:
    child = next(id_ for id_, one in planted.rest.executions.items() if "child" in one.label)
    del planted.rest.executions[child]


def a_result_is_of_another_step(planted: Planted) -> None:
    execution = planted.execution("Steps")
    execution.exit = (execution.exit or b"").replace(b'["step ', b'["stop ')


def a_refusal_is_taken_for_a_success(planted: Planted) -> None:
    planted.execution("Declined").status = "SUCCEEDED"


def equal_calls_have_swapped_their_results(planted: Planted) -> None:
    execution = planted.execution("Gathered")
    first, second = (entry.exit[len(b'{"success":') : -1] for entry in execution.events(Kind.ACTIVITY)[:2])
    execution.exit = (execution.exit or b"").replace(first, b"?").replace(second, first).replace(b"?", second)


def somebody_was_told_something_else(planted: Planted) -> None:
    planted.change(planted.line(Phase.TOLD, lambda line: line.name == "Steps"), value=["step of another"])


def a_result_changes_after_the_end(planted: Planted) -> None:
    execution = planted.execution("Steps", planted.kill)
    execution.status, execution.exit = "SUCCEEDED", b'{"success":[]}'


def a_record_is_missing(planted: Planted) -> None:
    planted.execution("Steps").entries.pop()


def a_record_is_there_twice(planted: Planted) -> None:
    execution = planted.execution("Tasks")
    execution.entries.append(execution.entries[-1]._replace(seq=len(execution.entries) + 1))


def an_outcome_is_invented(planted: Planted) -> None:
    del planted.lines[planted.line(Phase.EFFECT)]


def a_step_runs_under_another_key(planted: Planted) -> None:
    planted.change(planted.line(Phase.BEGIN), key="0" * 32)


def a_key_is_of_another_execution(planted: Planted) -> None:
    planted.change(planted.line(Phase.EFFECT), execution_id=planted.execution("Naps").execution_id, name="stamp")


def a_recorded_step_runs_again(planted: Planted) -> None:
    over = planted.over()
    planted.again(lambda line: line.key in over, pid=1)


def a_recorded_failure_is_tried_again_as_if_it_were_not(planted: Planted) -> None:
    execution = copy.deepcopy(planted.execution("Flaky"))
    # After the first of the three attempts that the second step takes.
    del execution.entries[2:]
    planted.kill.executions[execution.execution_id] = execution
    key = keys_of(execution)["flaky", 1]
    planted.again(lambda line: (line.key, line.attempt) == (key, 1), pid=1)


def a_step_runs_twice_without_a_kill(planted: Planted) -> None:
    cut_off = in_flight(planted.account(), Kill(planted.pid, planted.kill))
    planted.again(lambda line: line.pid != planted.pid and (line.key, line.attempt) not in cut_off, pid=1)


def a_process_begins_a_step_twice(planted: Planted) -> None:
    cut_off = in_flight(planted.account(), Kill(planted.pid, planted.kill))
    planted.again(lambda line: line.pid == planted.pid and (line.key, line.attempt) in cut_off)


def an_effect_comes_without_its_beginning(planted: Planted) -> None:
    planted.lines.append(planted.lines[planted.line(Phase.EFFECT)])


def an_attempt_comes_before_it_is_due(planted: Planted) -> None:
    place = planted.line(Phase.BEGIN, lambda line: line.attempt == 2)
    planted.change(place, at=planted.lines[place].at - 1_000)


def an_attempt_comes_without_the_failure_before_it(planted: Planted) -> None:
    place = planted.line(Phase.BEGIN, lambda line: line.name == "step")
    planted.change(place, attempt=2)


def an_at_most_once_step_runs_twice(planted: Planted) -> None:
    planted.again(lambda line: line.name == "once", pid=1)


def an_outcome_is_called_unknown_that_was_known(planted: Planted) -> None:
    planted.kill.executions.clear()
    planted.change_entry(planted.execution("Once"), Kind.ACTIVITY, exit=UNKNOWN)


def a_journal_has_a_gap(planted: Planted) -> None:
    planted.execution("Steps").entries.pop(1)


def a_journal_goes_back_in_time(planted: Planted) -> None:
    planted.change_entry(planted.execution("Steps"), Kind.ACTIVITY, 1, at=1)


def an_entry_changes(planted: Planted) -> None:
    changing = next(one for one in planted.kill.executions.values() if one.entries)
    changing.entries[0] = changing.entries[0]._replace(exit=b'{"success":"other"}')


def an_entry_vanishes(planted: Planted) -> None:
    changing = next(one for one in planted.kill.executions.values() if one.entries)
    planted.rest.executions[changing.execution_id].entries.clear()


def an_execution_vanishes(planted: Planted) -> None:
    del planted.rest.executions[planted.execution("Steps", planted.kill).execution_id]


def a_timer_fires_early(planted: Planted) -> None:
    execution = planted.execution("Naps")
    planted.change_entry(execution, Kind.TIMER, at=execution.events(Kind.ACTIVITY)[0].at + 19)


def a_due_time_has_moved(planted: Planted) -> None:
    execution = planted.execution("Rests")
    due = int(execution.events(Kind.TIMER_SET)[0].exit)
    planted.change_entry(execution, Kind.TIMER_SET, exit=str(due + 5).encode())


def a_timer_fires_twice(planted: Planted) -> None:
    execution = planted.execution("Naps")
    execution.entries.append(execution.events(Kind.TIMER)[0]._replace(at=execution.entries[-1].at + 1_000))


def a_step_begins_before_the_sleep_is_over(planted: Planted) -> None:
    execution = planted.execution("Naps")
    key = keys_of(execution)["step", 2]
    asleep_at = execution.events(Kind.ACTIVITY)[0].at
    planted.change(planted.line(Phase.BEGIN, lambda line: line.key == key), at=asleep_at + 1)


def a_claim_does_not_raise_the_fence(planted: Planted) -> None:
    place = planted.claimed()
    planted.change_move(place, fence=planted.rest.changes[place].before.fence)


def a_take_over_does_not_raise_the_fence(planted: Planted) -> None:
    place = planted.taken_over()
    planted.change_move(place, fence=planted.rest.changes[place].before.fence)


def an_execution_is_claimed_that_is_owned(planted: Planted) -> None:
    place = planted.claimed()
    planted.change_move(place, before=planted.rest.changes[place].before._replace(status="RUNNING", owner=1))


def an_execution_is_claimed_for_another(planted: Planted) -> None:
    planted.change_move(planted.claimed(), writer=1)


def an_execution_is_taken_from_the_living(planted: Planted) -> None:
    place = planted.taken_over()
    before = planted.rest.changes[place].before._replace(owner=planted.heir)
    planted.change_move(place, before=before, writer=1)


def an_execution_is_taken_over_before_its_owner_is_dead(planted: Planted) -> None:
    planted.killed_at = planted.rest.changes[planted.taken_over()].after.changed_at + 1


def a_stranger_ends_an_execution(planted: Planted) -> None:
    place = planted.move(lambda change: change.after.status == "SUCCEEDED")
    planted.change_move(place, writer=1)


def a_stranger_touches_a_running_execution(planted: Planted) -> None:
    place = planted.move(lambda change: change.before.owner == change.after.owner is not None)
    planted.change_move(place, writer=1)


def a_fence_grows_in_its_owners_hands(planted: Planted) -> None:
    place = planted.move(lambda change: change.after.status == "SUSPENDED")
    planted.change_move(place, fence=planted.rest.changes[place].after.fence + 1)


def an_execution_is_born_in_anothers_hands(planted: Planted) -> None:
    place = next(
        place
        for place, change in enumerate(planted.rest.changes)
        if change.what is What.BORN and change.after.owner is not None
    )
    planted.rest.changes[place] = planted.rest.changes[place]._replace(writer=1)


def a_living_worker_is_retired_by_another(planted: Planted) -> None:
    planted.rest.changes.append(Change(planted.heir, What.RETIRED, worker=1))


def a_worker_is_retired_twice(planted: Planted) -> None:
    planted.rest.changes.append(next(one for one in planted.rest.changes if one.what is What.RETIRED))


def a_stranger_writes_an_entry(planted: Planted) -> None:
    execution = planted.execution("Steps")
    planted.rest.changes.append(Change(1, What.STRANGE_ENTRY, execution.execution_id))


def an_entry_comes_late_to_an_execution_that_was_born_without_an_owner(planted: Planted) -> None:
    birth = next(
        place for place, one in enumerate(planted.rest.changes) if one.what is What.BORN and not one.after.owner
    )
    born = planted.rest.changes[birth]
    planted.rest.changes.insert(birth + 1, Change(born.writer + 1, What.STRANGE_ENTRY, born.execution_id))


def an_execution_is_born_twice(planted: Planted) -> None:
    planted.rest.changes.append(next(one for one in planted.rest.changes if one.what is What.BORN))


def an_execution_was_erased_and_put_back(planted: Planted) -> None:
    planted.rest.changes.append(Change(planted.heir, What.ERASED, planted.execution("Steps").execution_id))


def an_entry_was_changed_and_changed_back(planted: Planted) -> None:
    planted.rest.changes.append(Change(planted.heir, What.ENTRY_MOVED, planted.execution("Steps").execution_id))


def an_entry_was_erased_and_written_again(planted: Planted) -> None:
    planted.rest.changes.append(Change(planted.heir, What.ENTRY_ERASED, planted.execution("Steps").execution_id))


def an_execution_goes_on_after_its_end(planted: Planted) -> None:
    place = planted.move(lambda change: change.after.status == "SUCCEEDED")
    ended = planted.rest.changes[place]
    planted.rest.changes.append(ended._replace(before=ended.after))


def a_crash_is_not_counted(planted: Planted) -> None:
    planted.change_move(planted.taken_over(), crashes=0)


def a_crash_is_counted_twice(planted: Planted) -> None:
    planted.change_move(planted.taken_over(), crashes=2)


def a_claim_counts_as_a_crash(planted: Planted) -> None:
    place = planted.claimed()
    planted.change_move(place, crashes=planted.rest.changes[place].before.crashes + 1)


def an_execution_is_held_after_one_crash(planted: Planted) -> None:
    place = planted.move(lambda change: change.before.crashes == 1)
    planted.change_move(place, status="HELD", held="CRASHES")


def a_sleeper_is_woken_early(planted: Planted) -> None:
    place = planted.move(lambda change: change.before.status == "SUSPENDED")
    planted.change_move(place, changed_at=planted.rest.changes[place].before.wake_at - 1)


def a_sleeper_is_woken_that_waits_for_no_time(planted: Planted) -> None:
    place = planted.move(lambda change: change.before.status == "SUSPENDED")
    planted.change_move(place, before=planted.rest.changes[place].before._replace(wake_at=NEVER))


def an_execution_has_ended_without_an_exit(planted: Planted) -> None:
    planted.execution("Steps").exit = None


def a_running_execution_is_owned_by_nobody_who_lives(planted: Planted) -> None:
    planted.kill.living.clear()


def an_execution_waits_for_nothing(planted: Planted) -> None:
    execution = planted.execution("Steps", planted.kill)
    execution.status, execution.owner, execution.wake_at = "SUSPENDED", None, NEVER


def an_execution_is_held_without_a_cause(planted: Planted) -> None:
    execution = planted.execution("Steps", planted.kill)
    execution.status, execution.owner, execution.exit = "HELD", None, None


def an_entry_has_no_execution(planted: Planted) -> None:
    planted.kill.orphans.append("perdure_journal 00")


def a_journal_is_of_another_workflow(planted: Planted) -> None:
    execution = planted.execution("Steps")
    execution.workflow = "Gathered"


def a_journal_wants_one_more_step(planted: Planted) -> None:
    planted.execution("Steps").entries.pop()


def an_execution_is_owned_at_rest(planted: Planted) -> None:
    planted.execution("Steps").owner = planted.pid


def a_finished_execution_wants_to_be_woken(planted: Planted) -> None:
    planted.execution("Steps").wake_at = 1


def a_worker_is_not_retired(planted: Planted) -> None:
    planted.rest.living.add(planted.pid)


def a_lock_file_is_left(planted: Planted) -> None:
    planted.rest.locks.append("one.perdure-worker-1")


def the_file_is_damaged_at_the_kill(planted: Planted) -> None:
    planted.kill.integrity = "row 1 missing from index"


PLANTED: dict[str, list[Callable[[Planted], None]]] = {
    "no_start_is_lost": [
        an_accepted_row_is_missing_at_the_kill,
        an_execution_goes_on_for_ever,
        a_detached_execution_was_never_born,
    ],
    "every_result_is_right": [
        a_result_is_of_another_step,
        a_refusal_is_taken_for_a_success,
        equal_calls_have_swapped_their_results,
    ],
    "every_result_is_told_alike": [somebody_was_told_something_else, a_result_changes_after_the_end],
    "every_step_is_recorded": [a_record_is_missing, a_record_is_there_twice],
    "every_record_has_its_effect": [an_outcome_is_invented],
    "every_key_is_the_steps_own": [a_step_runs_under_another_key, a_key_is_of_another_execution],
    "nothing_runs_again_that_is_recorded": [
        a_recorded_step_runs_again,
        a_recorded_failure_is_tried_again_as_if_it_were_not,
    ],
    "nothing_is_repeated_without_a_kill": [
        a_step_runs_twice_without_a_kill,
        a_process_begins_a_step_twice,
        an_effect_comes_without_its_beginning,
    ],
    "nothing_begins_out_of_turn": [
        an_attempt_comes_before_it_is_due,
        an_attempt_comes_without_the_failure_before_it,
    ],
    "nothing_happens_twice_that_may_happen_once": [
        an_at_most_once_step_runs_twice,
        an_outcome_is_called_unknown_that_was_known,
    ],
    "every_journal_is_in_order": [a_journal_has_a_gap, a_journal_goes_back_in_time],
    "every_journal_replays_to_its_end": [
        a_result_is_of_another_step,
        a_journal_is_of_another_workflow,
        a_journal_wants_one_more_step,
    ],
    "no_journal_changes": [an_entry_changes, an_entry_vanishes, an_execution_vanishes],
    "no_timer_is_early": [
        a_timer_fires_early,
        a_due_time_has_moved,
        a_timer_fires_twice,
        a_step_begins_before_the_sleep_is_over,
    ],
    "every_execution_goes_from_hand_to_hand": [
        a_claim_does_not_raise_the_fence,
        a_take_over_does_not_raise_the_fence,
        an_execution_is_claimed_that_is_owned,
        an_execution_is_claimed_for_another,
        an_execution_is_taken_from_the_living,
        an_execution_is_taken_over_before_its_owner_is_dead,
        a_stranger_ends_an_execution,
        a_stranger_touches_a_running_execution,
        a_fence_grows_in_its_owners_hands,
        an_execution_is_born_in_anothers_hands,
        a_living_worker_is_retired_by_another,
        a_worker_is_retired_twice,
    ],
    "only_owners_write_journals": [
        a_stranger_writes_an_entry,
        an_entry_comes_late_to_an_execution_that_was_born_without_an_owner,
    ],
    "nothing_final_is_touched": [
        an_execution_is_born_twice,
        an_execution_was_erased_and_put_back,
        an_entry_was_changed_and_changed_back,
        an_entry_was_erased_and_written_again,
        an_execution_goes_on_after_its_end,
    ],
    "every_crash_is_counted_once": [
        a_crash_is_not_counted,
        a_crash_is_counted_twice,
        a_claim_counts_as_a_crash,
        an_execution_is_held_after_one_crash,
    ],
    "nobody_is_woken_early": [a_sleeper_is_woken_early, a_sleeper_is_woken_that_waits_for_no_time],
    "no_row_is_half_a_row": [
        an_execution_has_ended_without_an_exit,
        a_running_execution_is_owned_by_nobody_who_lives,
        an_execution_waits_for_nothing,
        an_execution_is_held_without_a_cause,
    ],
    "nothing_is_without_its_execution": [an_entry_has_no_execution],
    "nothing_is_owned_at_rest": [
        an_execution_is_owned_at_rest,
        a_finished_execution_wants_to_be_woken,
        a_worker_is_not_retired,
        a_lock_file_is_left,
    ],
    "the_database_is_whole": [the_file_is_damaged_at_the_kill],
}

CASES = [(check, plant) for check, plants in PLANTED.items() for plant in plants]
IDS = [f"{plant.__name__}-{check}" for check, plant in CASES]


def test_the_real_account_has_no_violation_and_shows_that_something_was_cut_off(real):
    assert violations(real) == []
    assert in_flight(real, real.kills[0])
    assert repeats(real) >= 1


def test_every_check_has_a_planted_violation():
    assert list(PLANTED) == [check.__name__ for check in CHECKS]


@pytest.mark.parametrize(("check", "plant"), CASES, ids=IDS)
def test_a_planted_violation_is_found(real, check, plant):
    planted = Planted(real)
    plant(planted)
    found = violations(planted.account())
    assert any(violation.startswith(f"{check}: ") for violation in found), found
