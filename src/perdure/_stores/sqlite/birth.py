"""How the row of an execution comes into being."""

from functools import cache
from typing import Final

from perdure._model.records import Start
from perdure._stores.sqlite.driver import Value, values
from perdure._stores.sqlite.rows import write_attributes
from perdure._values.instant import Instant

Row = tuple[Value, ...]
Born = tuple[int, int | None, Instant | None]  # the fence, the owner, and when it began

# FAIL for the reason that `journal` has; who is there already is left as he is.
_START: Final = (
    "INSERT OR FAIL INTO perdure_executions(id, incarnation, fence, owner, status, held, wake_at, ready_at, number,"
    " workflow, key, priority, version, parent, created_at, began_at, finished_at, changed_at, deadline, expires_at,"
    " seed, attributes, waits, payload, exit) {} ON CONFLICT (id) DO NOTHING"
)
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@cache
def starting(count: int) -> str:
    """The statement that bears so many; their bindings are those of `birth`, one after the other."""
    return _START.format(values(_ROW, count))


def detached(start: Start, now: Instant, began_at: Instant | None = None) -> Row:
    """The row of an execution that nobody has run here: PENDING, or SUSPENDED until it is due.

    `began_at` is that of a journal that it is born with; else its first claim says when it began.
    """
    # The first claim makes the fence 1, which is what a birth in a worker's hands has.
    born = 0, None, began_at
    if start.due_at is None:
        return birth(start, born, ("PENDING", None, None, now, None, None, None), now)
    return birth(start, born, ("SUSPENDED", None, start.due_at, None, None, None, None), now)


def birth(start: Start, born: Born, target: Row, now: Instant, created_at: Instant | None = None) -> Row:
    """The bindings of `starting`; `target` is from `status` to `exit`, as a commit leaves it."""
    fence, owner, began_at = born
    status, held, wake_at, ready_at, finished_at, waits, exit_ = target
    return (
        bytes.fromhex(start.execution_id),
        start.incarnation,
        fence,
        owner,
        status,
        held,
        wake_at,
        ready_at,
        start.number,
        start.workflow,
        start.key,
        start.priority,
        start.version,
        None if start.parent is None else bytes.fromhex(start.parent),
        now if created_at is None else created_at,
        began_at,
        finished_at,
        now,
        start.deadline,
        start.deadline if finished_at is None else None,
        start.seed,
        write_attributes(start.attributes),
        waits,
        start.payload,
        exit_,
    )
