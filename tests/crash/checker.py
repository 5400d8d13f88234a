"""The checker: compares what the ledger saw with what the journals say, and both with a model.

Each check yields sentences about what must not be. The library takes no part in it: the database is read by SQL,
keys and results are computed from the rules; only the replay of journals is put to the library's own kernel. A check that nothing can make speak is worthless; `test_checker.py`
plants a violation for each.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from perdure._model.journal import MARKERS, Entry, Kind

from tests.crash.history import (
    NEVER,
    early_wakes,
    miscounted_crashes,
    strange_entries,
    touched_for_ever,
    wrong_owners,
)
from tests.crash.ledger import Line, Phase
from tests.crash.model import UNKNOWN, Step, children, expected, key_of
from tests.crash.replay import wrong_replays
from tests.crash.snapshot import Execution, Snapshot

Attempt = tuple[str, int]  # the step's key, the number of the attempt

_SUCCESS = b'{"success":'
_RETRY_AT = re.compile(rb'"retry_at":(\d+)\}\Z')


@dataclass(frozen=True)
class Kill:
    """A worker process that was ended by SIGKILL, and the database as it lay there."""

    pid: int
    snapshot: Snapshot
    # When it was killed, or 0: by itself, at some time before the snapshot.
    at: int = 0


@dataclass(frozen=True)
class Account:
    """All that is known of a test: the ledger, the kills in their order, and the database at rest."""

    lines: list[Line]
    kills: list[Kill]
    rest: Snapshot

    @cached_property
    def steps(self) -> dict[str, list[Step]]:
        """By execution: the calls that it must have made."""
        return {id_: expected(execution)[1] for id_, execution in self.rest.executions.items()}

    @cached_property
    def keys(self) -> dict[str, dict[tuple[str, int], str]]:
        """By execution: the keys of the steps that its finished journal has."""
        return {id_: keys_of(execution) for id_, execution in self.rest.executions.items()}

    @property
    def killed(self) -> dict[int, int]:
        """The pids of those who were killed, each with the time."""
        return {kill.pid: kill.at for kill in self.kills}

    @property
    def snapshots(self) -> list[Snapshot]:
        return [*(kill.snapshot for kill in self.kills), self.rest]

    def without(self, workflow: str) -> "Account":
        """The same, as if there were no such executions: for those that nobody can foretell."""
        gone = {
            id_ for one in self.snapshots for id_, execution in one.executions.items() if execution.workflow == workflow
        }
        return Account(
            # Emptied, not taken out: snapshots point at places in the ledger.
            [line._replace(phase=Phase.REACHED) if line.execution_id in gone else line for line in self.lines],
            [replace(kill, snapshot=_less(kill.snapshot, gone)) for kill in self.kills],
            _less(self.rest, gone),
        )

    def of(self, *phases: Phase) -> list[Line]:
        return [line for line in self.lines if line.phase in phases]


def _less(snapshot: Snapshot, gone: set[str]) -> Snapshot:
    left = {id_: execution for id_, execution in snapshot.executions.items() if id_ not in gone}
    changes = [change for change in snapshot.changes if change.execution_id not in gone]
    return replace(snapshot, executions=left, changes=changes)


# Journals and keys --------------------------------------------------------------------------------------------------


def keys_of(execution: Execution) -> dict[tuple[str, int], str]:
    """By name and occurrence: the key of each step that has an entry, as R14 counts equal calls."""
    inputs = {
        (e.name, e.occurrence): e.input for e in execution.entries if e.kind in {Kind.ACTIVITY, Kind.ATTEMPT_BEGUN}
    }
    equal: Counter[tuple[str, bytes]] = Counter()
    keys: dict[tuple[str, int], str] = {}
    # Of calls with the same name and input the n-th has the n-th occurrence; in these workflows none is left out
    # while a later one is recorded for good, so the count is right once the execution has ended.
    for name, occurrence in sorted(inputs):
        encoded = inputs[name, occurrence]
        equal[name, encoded] += 1
        keys[name, occurrence] = key_of(execution.execution_id, name, encoded, equal[name, encoded])
    return keys


def is_over(entry: Entry) -> bool:
    """Whether no attempt may follow this one."""
    return entry.exit.startswith(_SUCCESS) or _RETRY_AT.search(entry.exit) is None


def recorded(account: Account, snapshot: Snapshot) -> tuple[set[Attempt], set[str]]:
    """The attempts that a snapshot has a record of, and the steps that are over for good."""
    attempts: set[Attempt] = set()
    over: set[str] = set()
    for id_, execution in snapshot.executions.items():
        # By the finished journal: an earlier one may lack a call that comes before its equal.
        keys = account.keys.get(id_, {})
        for entry in execution.events(Kind.ACTIVITY):
            key = keys.get((entry.name, entry.occurrence), "")
            attempts.add((key, entry.attempt))
            if is_over(entry):
                over.add(key)
    return attempts, over


def in_flight(account: Account, kill: Kill) -> set[Attempt]:
    """The attempts that a killed worker had begun and whose exit nobody will know."""
    begun = {(line.key, line.attempt) for line in account.of(Phase.BEGIN) if line.pid == kill.pid}
    if kill.pid in kill.snapshot.living:
        return begun - recorded(account, kill.snapshot)[0]
    # Taken over before we could look: some of what stands there is its heir's. What stood there at the kill before
    # was recorded in time; of the rest nobody can say.
    place = account.kills.index(kill)
    return begun - recorded(account, account.kills[place - 1].snapshot)[0] if place > 0 else begun


# Checks: starts and results -------------------------------------------------------------------------------------------


def no_start_is_lost(account: Account) -> Iterator[str]:
    """Promise 1: once `start` has returned, the execution stands in the database, and ends."""
    for place, line in enumerate(account.lines):
        if line.phase is not Phase.ACCEPTED:
            continue
        for snapshot in account.snapshots:
            if place < snapshot.lines_before and line.execution_id not in snapshot.executions:
                yield f"{line.name} {line.key} was accepted, and is not in the database"
        for child in children(line.name, line.key):
            if child not in account.rest.executions:
                yield f"{line.name} {line.key} has ended without its child {child}"
    for execution in account.rest.executions.values():
        if not execution.is_final:
            yield f"{execution.workflow} {execution.label} has not ended: {execution.status}"


def every_result_is_right(account: Account) -> Iterator[str]:
    """R10, R42: the result is the one that the model computes, whatever was killed on the way."""
    for id_, execution in account.rest.executions.items():
        ending, _ = expected(execution)
        if not execution.is_final or execution.exit is None:
            continue  # other checks have something to say about that
        found = json.loads(execution.exit)
        if ending.declined is not None:
            right = execution.status == "FAILED" and _declined_label(found) == ending.declined
        else:
            right = execution.status == "SUCCEEDED" and found.get("success") == ending.value
        if not right:
            yield f"{execution.workflow} {execution.label} ({id_}) ended {execution.status} with {found}, not {ending}"


def every_result_is_told_alike(account: Account) -> Iterator[str]:
    """Promise 4: a result is written once; everybody who ever waited was given the same."""
    stored: dict[str, tuple[str, bytes | None]] = {}
    for snapshot in account.snapshots:
        for id_, execution in snapshot.executions.items():
            before = stored.get(id_)
            now = (execution.status, execution.exit)
            if before is not None and before != now:
                yield f"{execution.workflow} {execution.label} was {before} and is {now}"
            if execution.is_final:
                stored[id_] = now
    for line in account.of(Phase.TOLD):
        execution = account.rest.executions.get(line.execution_id)
        if execution is None:
            yield f"{line.name} {line.key} has told a result, and is not in the database"
            continue
        found = json.loads(execution.exit or b"{}")
        value = found["success"] if "success" in found else f"declined {_declined_label(found)}"
        if line.value != value:
            yield f"{execution.workflow} {execution.label}: {line.value} was told, {value} is stored"


def _declined_label(exit_: dict) -> str | None:
    reasons = exit_.get("failure", [])
    return reasons[0]["fail"]["error"]["label"] if len(reasons) == 1 and "fail" in reasons[0] else None


# Checks: steps and their effects ----------------------------------------------------------------------------------------


def every_step_is_recorded(account: Account) -> Iterator[str]:
    """R8, R11: the journal has each call of the model, with each of its attempts, and no other."""
    for id_, execution in account.rest.executions.items():
        if not execution.is_final:
            continue
        keys = keys_of(execution)
        found = Counter(
            (keys[entry.name, entry.occurrence], entry.attempt) for entry in execution.events(Kind.ACTIVITY)
        )
        wanted = Counter((step.key, attempt) for step in account.steps[id_] for attempt in range(1, step.attempts + 1))
        for key, attempt in found - wanted:
            yield f"{execution.workflow} {execution.label} has a record of {key}, attempt {attempt}, that nobody asked for"
        for key, attempt in wanted - found:
            yield f"{execution.workflow} {execution.label} has no record of {key}, attempt {attempt}"


def every_record_has_its_effect(account: Account) -> Iterator[str]:
    """I8: no outcome is invented. A recorded attempt has done its work, under the key that the record has."""
    effects = {(line.execution_id, line.key, line.attempt) for line in account.of(Phase.EFFECT)}
    for id_, execution in account.rest.executions.items():
        keys = keys_of(execution)
        for entry in execution.events(Kind.ACTIVITY):
            key = keys[entry.name, entry.occurrence]
            if not _is_unknown(entry) and (id_, key, entry.attempt) not in effects:
                yield f"{execution.workflow} {execution.label}: {entry.name} {key} is recorded and was never done"


def every_key_is_the_steps_own(account: Account) -> Iterator[str]:
    """R14: the same key on every attempt, after every crash, in every process."""
    known = {id_: {step.key: step.name for step in steps} for id_, steps in account.steps.items()}
    for line in account.of(Phase.BEGIN, Phase.EFFECT):
        if known.get(line.execution_id, {}).get(line.key) != line.name:
            yield f"{line.name} of {line.execution_id} ran under {line.key}, which is no key of its steps"


def nothing_runs_again_that_is_recorded(account: Account) -> Iterator[str]:
    """I7: what was seen durable is never begun again, by nobody."""
    for kill in account.kills:
        attempts, over = recorded(account, kill.snapshot)
        for line in account.lines[kill.snapshot.ledger_lines :]:
            if line.phase is Phase.BEGIN and (line.key in over or (line.key, line.attempt) in attempts):
                yield f"{line.name} {line.key}, attempt {line.attempt}, was recorded and ran again in {line.pid}"


def nothing_is_repeated_without_a_kill(account: Account) -> Iterator[str]:
    """I9: an attempt is begun once, and once more for each kill that cut it off; by one process once."""
    begun = Counter((line.key, line.attempt) for line in account.of(Phase.BEGIN))
    by_process = Counter((line.key, line.attempt, line.pid) for line in account.of(Phase.BEGIN))
    cut_off = Counter(attempt for kill in account.kills for attempt in in_flight(account, kill))
    for attempt, times in begun.items():
        if times > 1 + cut_off[attempt]:
            yield f"{attempt} was begun {times} times, and {cut_off[attempt]} kills cut it off"
    for (key, attempt, pid), times in by_process.items():
        if times > 1:
            yield f"{(key, attempt)} was begun {times} times by process {pid}"
    effects = Counter((line.key, line.attempt) for line in account.of(Phase.EFFECT))
    for attempt, times in effects.items():
        if times > begun[attempt]:
            yield f"{attempt} was done {times} times and begun {begun[attempt]} times"


def nothing_begins_out_of_turn(account: Account) -> Iterator[str]:
    """R11: no attempt before the failure of the one before it is recorded, nor before it is due."""
    due: dict[Attempt, int] = {}
    for execution in account.rest.executions.values():
        keys = keys_of(execution)
        for entry in execution.events(Kind.ACTIVITY):
            found = _RETRY_AT.search(entry.exit)
            if found:
                due[keys[entry.name, entry.occurrence], entry.attempt + 1] = int(found[1])
    for line in account.of(Phase.BEGIN):
        if line.attempt > 1 and line.at < due.get((line.key, line.attempt), line.at + 1):
            yield f"{line.name} {line.key}: attempt {line.attempt} began at {line.at}, before it was due"


def nothing_happens_twice_that_may_happen_once(account: Account) -> Iterator[str]:
    """R50: at most one effect; and the outcome is unknown only where a kill has made it so."""
    begun = Counter(line.key for line in account.of(Phase.BEGIN) if line.name == "once")
    for key, times in begun.items():
        if times > 1:
            yield f"once {key} may run once, and was begun {times} times"
    noted = {place for kill in account.kills for place in _noted_and_open(kill)}
    for execution in account.rest.executions.values():
        for entry in execution.events(Kind.ACTIVITY):
            if _is_unknown(entry) and (execution.execution_id, entry.name, entry.occurrence) not in noted:
                yield f"{execution.label}: the outcome of {entry.name} {entry.occurrence} is {UNKNOWN}, and no kill explains it"


def _noted_and_open(kill: Kill) -> Iterator[tuple[str, str, int]]:
    inherited = kill.pid not in kill.snapshot.living  # then the heir may have recorded already that it does not know
    for id_, execution in kill.snapshot.executions.items():
        ended = {
            (entry.name, entry.occurrence)
            for entry in execution.events(Kind.ACTIVITY)
            if not (inherited and _is_unknown(entry))
        }
        for entry in execution.events(Kind.ATTEMPT_BEGUN):
            if (entry.name, entry.occurrence) not in ended:
                yield id_, entry.name, entry.occurrence


def _is_unknown(entry: Entry) -> bool:
    return b'"outcome-unknown"' in entry.exit


# Checks: journals and timers --------------------------------------------------------------------------------------------


def every_journal_is_in_order(account: Account) -> Iterator[str]:
    """I6: seqs from 1 without gaps, times that never go back."""
    for snapshot in account.snapshots:
        for execution in snapshot.executions.values():
            seqs = [entry.seq for entry in execution.entries]
            if seqs != list(range(1, len(seqs) + 1)):
                yield f"{execution.workflow} {execution.label} has the seqs {seqs}"
            times = [execution.began_at or 0, *(entry.at for entry in execution.entries)]
            if times != sorted(times):
                yield f"{execution.workflow} {execution.label} goes back in time: {times}"


def every_journal_replays_to_its_end(account: Account) -> Iterator[str]:
    """I23: in this process, which has other hashes than the one that wrote it."""
    for execution in account.rest.executions.values():
        if execution.is_final and execution.exit is not None:
            yield from wrong_replays(execution)


def no_journal_changes(account: Account) -> Iterator[str]:
    """I5: each journal is the beginning of the same journal later."""
    before: dict[str, Execution] = {}
    for snapshot in account.snapshots:
        for id_, execution in snapshot.executions.items():
            written = before[id_].entries if id_ in before else []
            if execution.entries[: len(written)] != written:
                yield f"the journal of {execution.workflow} {execution.label} has changed"
        for id_ in before.keys() - snapshot.executions.keys():
            yield f"{before[id_].workflow} {before[id_].label} has vanished"
        before = snapshot.executions


# Their timer is set at once, beside their steps; the others do one thing after the other.
SET_AT_ONCE = frozenset({"Beside"})


def no_timer_is_early(account: Account) -> Iterator[str]:
    """R16, R17: each timer fires once, and not before its time, whatever was restarted meanwhile."""
    begun: dict[str, list[int]] = defaultdict(list)
    for line in account.of(Phase.BEGIN):
        begun[line.key].append(line.at)
    for execution in account.rest.executions.values():
        yield from _early_timers(execution, begun)


def _early_timers(execution: Execution, begun: dict[str, list[int]]) -> Iterator[str]:
    """A timer is set when the entry before it was fed, or in the first turn."""
    at_once = execution.workflow in SET_AT_ONCE
    keys = keys_of(execution)
    set_at = execution.began_at or 0
    due_at = {(entry.name, entry.occurrence): int(entry.exit) for entry in execution.events(Kind.TIMER_SET)}
    fired: set[tuple[str, int]] = set()
    slept_until = 0
    for entry in execution.entries:
        if entry.kind == Kind.TIMER:
            due = set_at + int(entry.input)
            if due_at.get((entry.name, entry.occurrence), due) != due:
                yield f"{execution.label}: timer {entry.name} {entry.occurrence} is not recorded as due at {due}"
            if entry.at < due:
                yield f"{execution.label}: timer {entry.name} {entry.occurrence} fired {due - entry.at} ms early"
            if (entry.name, entry.occurrence) in fired:
                yield f"{execution.label}: timer {entry.name} {entry.occurrence} fired twice"
            fired.add((entry.name, entry.occurrence))
            slept_until = due
        elif (
            entry.kind == Kind.ACTIVITY
            and not at_once
            and min(begun[keys[entry.name, entry.occurrence]], default=slept_until) < slept_until
        ):
            yield f"{execution.label}: {entry.name} {entry.occurrence} began before the sleep in front of it was over"
        if entry.kind not in MARKERS and not at_once:
            set_at = entry.at


# Checks: who has written when --------------------------------------------------------------------------------------


def every_execution_goes_from_hand_to_hand(account: Account) -> Iterator[str]:
    """I10, I11: one owner at a time, a higher fence with every claim and every take-over, nothing taken from the living."""
    yield from wrong_owners(account.rest.changes, account.killed)


def only_owners_write_journals(account: Account) -> Iterator[str]:
    """I10: each row of a journal was written by the process that owned the execution at that moment."""
    yield from strange_entries(account.rest.changes)


def nothing_final_is_touched(account: Account) -> Iterator[str]:
    """I2, I3, I5: not even for a moment between two looks."""
    yield from touched_for_ever(account.rest.changes)


def every_crash_is_counted_once(account: Account) -> Iterator[str]:
    """I18, R41."""
    yield from miscounted_crashes(account.rest.changes)


def nobody_is_woken_early(account: Account) -> Iterator[str]:
    """I16, R16."""
    yield from early_wakes(account.rest.changes)


# Checks: the database, after every kill and at rest -------------------------------------------------------------------


def no_row_is_half_a_row(account: Account) -> Iterator[str]:
    """I24, I25: what has ended has an exit; what has not is ready, or owned by the living, or waits, or is held with a cause."""
    for snapshot in account.snapshots:
        for execution in snapshot.executions.values():
            if not _is_whole(execution, snapshot):
                yield f"{execution.workflow} {execution.label} is half a row: {replace(execution, entries=[])}"


def _is_whole(execution: Execution, snapshot: Snapshot) -> bool:
    waits = execution.waits is not None or execution.wake_at not in {None, NEVER}
    match execution.status:
        case "PENDING":
            return execution.owner is None and not waits and execution.exit is None
        case "RUNNING":
            return execution.owner in snapshot.living and execution.exit is None
        case "SUSPENDED":
            return execution.owner is None and waits and execution.exit is None
        case "HELD":
            return execution.owner is None and execution.held is not None and execution.exit is not None
        case _:
            return execution.is_final and execution.owner is None and not waits and execution.exit is not None


def nothing_is_without_its_execution(account: Account) -> Iterator[str]:
    """I15: no entry, no mail, no note of a heartbeat that belongs to nobody."""
    for snapshot in account.snapshots:
        for orphan in snapshot.orphans:
            yield f"{orphan} has no execution"


def nothing_is_owned_at_rest(account: Account) -> Iterator[str]:
    """I25: when the last worker has left, nobody owns, waits or lives."""
    for execution in account.rest.executions.values():
        if execution.owner is not None or (execution.is_final and execution.wake_at is not None):
            yield f"{execution.workflow} {execution.label} is owned by {execution.owner}, wakes at {execution.wake_at}"
    for pid in account.rest.living:
        yield f"worker {pid} has ended, and nobody says so"
    for lock in account.rest.locks:
        yield f"the lock file {lock} is left"


def the_database_is_whole(account: Account) -> Iterator[str]:
    """I24: after every kill, before anybody has repaired anything."""
    for snapshot in account.snapshots:
        if snapshot.integrity != "ok":
            yield f"integrity_check says {snapshot.integrity}"


CHECKS: tuple[Callable[[Account], Iterator[str]], ...] = (
    no_start_is_lost,
    every_result_is_right,
    every_result_is_told_alike,
    every_step_is_recorded,
    every_record_has_its_effect,
    every_key_is_the_steps_own,
    nothing_runs_again_that_is_recorded,
    nothing_is_repeated_without_a_kill,
    nothing_begins_out_of_turn,
    nothing_happens_twice_that_may_happen_once,
    every_journal_is_in_order,
    every_journal_replays_to_its_end,
    no_journal_changes,
    no_timer_is_early,
    every_execution_goes_from_hand_to_hand,
    only_owners_write_journals,
    nothing_final_is_touched,
    every_crash_is_counted_once,
    nobody_is_woken_early,
    no_row_is_half_a_row,
    nothing_is_without_its_execution,
    nothing_is_owned_at_rest,
    the_database_is_whole,
)


def violations(account: Account) -> list[str]:
    """What must not be, each with the name of the check that found it."""
    return [f"{check.__name__}: {violation}" for check in CHECKS for violation in check(account)]


def repeats(account: Account) -> int:
    """How many effects happened again."""
    effects = Counter((line.key, line.attempt) for line in account.of(Phase.EFFECT))
    return sum(times - 1 for times in effects.values())
