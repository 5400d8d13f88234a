"""Who gets what: PENDING executions to the workers that ask, and back again."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from typing import Final

from perdure._model.records import ExecutionId, Record, WorkerId
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.rows import COLUMNS, NEVER, key, record
from perdure._values.instant import Instant

Candidate = tuple[int, Instant, int]  # (-priority, ready_at, n): what sorts first is served first

# Workflow by workflow: `workflow IN (...)` would need a sort over all that is ready.
_READY: Final = (
    "SELECT -priority, ready_at, n FROM perdure_executions WHERE workflow = ? AND begun = ? AND status = 'PENDING'"
    " ORDER BY priority DESC, ready_at, n LIMIT ?"
)
# A worker that has nothing to do asks every second: once, whether there is anything, and not twice for each workflow.
# Every name is more than none: so it is the first place in the index, and no scan of it.
_ANY: Final = "SELECT 1 FROM perdure_executions WHERE workflow > '' AND status = 'PENDING' LIMIT 1"
_CLAIM: Final = (
    "UPDATE perdure_executions SET status = 'RUNNING', owner = ?, fence = fence + 1, ready_at = NULL,"
    f" wake_at = {NEVER}, began_at = coalesce(began_at, ?), changed_at = ? WHERE n = ? RETURNING {COLUMNS}"
)
_WORKER: Final = "SELECT n FROM perdure_workers WHERE id = ? AND retired_at IS NULL"
_OWNED: Final = (
    "SELECT e.id, e.fence FROM perdure_workers w CROSS JOIN perdure_executions e"
    " WHERE w.id = ? AND e.owner = w.n AND e.wake_at IS NOT NULL"
)
_GIVE_BACK: Final = (
    "UPDATE perdure_executions SET status = 'PENDING', owner = NULL, fence = fence + 1, wake_at = NULL, ready_at = ?1,"
    " changed_at = ?1 WHERE id = ?2 AND fence = ?3 AND owner = (SELECT n FROM perdure_workers WHERE id = ?4)"
)

BEGUN_TO_NEW: Final = 3


class Turns:
    """Whose turn it is where begun and new executions are equals: three to one.

    It outlives a claim, or a worker that claims one at a time would never come to a new one.
    """

    def __init__(self) -> None:
        self._count = 0

    def pick(self, begun: Iterable[Candidate], new: Iterable[Candidate], limit: int) -> list[Candidate]:
        """Take from two sorted lines, the better priority first."""
        lines = iter(begun), iter(new)
        first, second = next(lines[0], None), next(lines[1], None)
        picked: list[Candidate] = []
        while len(picked) < limit:
            if first is not None and (second is None or self._prefers_begun(first, second)):
                picked.append(first)
                first = next(lines[0], None)
            elif second is not None:
                picked.append(second)
                second = next(lines[1], None)
            else:
                break
        return picked

    def _prefers_begun(self, begun: Candidate, new: Candidate) -> bool:
        if begun[0] != new[0]:
            return begun[0] < new[0]
        self._count = (self._count + 1) % (BEGUN_TO_NEW + 1)
        return self._count != 0


def claim(
    connection: Connection, worker_id: WorkerId, workflows: Sequence[str], limit: int, *, turns: Turns, now: Instant
) -> list[Record]:
    """Take up to `limit` PENDING executions of these workflows."""
    alive = select(connection, _WORKER, (worker_id,))
    if not alive or not select(connection, _ANY):
        return []
    distinct = dict.fromkeys(workflows)
    begun, new = (
        merge(*(select(connection, _READY, (workflow, has_begun, limit)) for workflow in distinct))
        for has_begun in (1, 0)
    )
    picked = turns.pick(begun, new, limit)
    taken = connection.executemany(_CLAIM, [(alive[0][0], now, now, n) for _, _, n in picked])
    return [record(row, worker_id) for row in taken]


def owned(connection: Connection, worker_id: WorkerId) -> dict[ExecutionId, int]:
    """What a worker owns, each with its fence."""
    return {id_.hex(): fence for id_, fence in select(connection, _OWNED, (worker_id,))}


def give_back(connection: Connection, worker_id: WorkerId, fences: Mapping[ExecutionId, int], now: Instant) -> int:
    """Make owned executions PENDING that still have the given fence."""
    before = connection.total_changes()
    connection.executemany(_GIVE_BACK, [(now, key(id_), fence, worker_id) for id_, fence in fences.items()])
    return connection.total_changes() - before
