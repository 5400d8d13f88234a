"""Who owned an execution when, as the triggers have told it: what several invariants ask."""

from perdure._model.status import Status
from perdure.testing._simulation.account import Account, Life, is_activity
from perdure.testing._simulation.history import ExecutionChange, ExecutionRow, Tick


def status_of(row: ExecutionRow) -> Status:
    """Its status as the table of moves has it."""
    return Status.SUSPENDED if row.status == "HELD" else Status(row.status)


def worker_of(account: Account, change: ExecutionChange) -> int | None:
    """The number of the worker that a process was when it made a change."""
    registered = [
        one.n
        for one in account.history.workers
        if one.process == change.process and one.tick < change.tick and not one.retired
    ]
    return registered[-1] if registered else None


def has_got_on(life: Life, change: ExecutionChange) -> bool:
    """Whether an entry was written since whoever makes this change came to own it."""
    taken = taking(life, change.tick)
    return taken is not None and any(taken.tick < entry.tick < change.tick for entry in life.written)


def is_birth(change: ExecutionChange) -> bool:
    """Whether a life begins with a change: the first one with a row, another one in the place of the one before."""
    before, after = change.before, change.after
    return before is None or (after is not None and after.incarnation != before.incarnation)


def is_freed(change: ExecutionChange) -> bool:
    """Whether somebody has lost an execution by this change."""
    before, after = change.before, change.after
    return before is not None and before.owner is not None and (after is None or after.owner != before.owner)


def latest_change(life: Life, tick: Tick) -> ExecutionChange | None:
    """The last change before a place in the run."""
    return next((change for change in reversed(life.changes) if change.tick < tick), None)


def taking(life: Life, tick: Tick) -> ExecutionChange | None:
    """The change by which whoever owns it at a place in the run came to own it."""
    found: ExecutionChange | None = None
    for change in life.changes:
        if change.tick >= tick:
            break
        before = None if change.before is None else change.before.owner
        after = None if change.after is None else change.after.owner
        if after != before:
            found = change if after is not None else None
    return found


def owner_at(life: Life, tick: Tick) -> int | None:
    """The process that owns it."""
    taken = taking(life, tick)
    return None if taken is None else taken.process


def owned_since(life: Life, tick: Tick, process: int) -> Tick | None:
    """When a process last came to own it, before a place in the run; it may have lost it since, unknowing."""
    found: Tick | None = None
    for change in life.changes:
        if change.tick >= tick:
            break
        before = None if change.before is None else change.before.owner
        after = None if change.after is None else change.after.owner
        if after != before and after is not None and change.process == process:
            found = change.tick
    return found


def recorded_at(life: Life, step: tuple[str, int, int]) -> Tick | None:
    """When the exit of an attempt was recorded."""
    return next(
        (
            entry.tick
            for entry in life.written
            if is_activity(entry) and (entry.name, entry.occurrence, entry.attempt) == step
        ),
        None,
    )
