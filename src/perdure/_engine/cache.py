"""Kernels that wait in memory: kept while there is room, the longest unused put away first.

Two sorts wait: parked ones, whose execution is suspended and belongs to nobody, and quiet ones,
whose execution still is this worker's but only sleeps. Both come back without a replay if they are
still here. A parked kernel is good exactly when the fence of the new claim is its own plus one:
nobody has owned the execution in between.
"""

from collections import OrderedDict

from perdure._engine.runner import Runner
from perdure._model.records import ExecutionId, Record

DEFAULT_COUNT = 10_000
DEFAULT_BYTES = 256 * 1024 * 1024


class Cache:
    """A bound on the number of waiting kernels and on the journal bytes behind them."""

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._held = 0
        self._runners: OrderedDict[ExecutionId, tuple[Runner, int]] = OrderedDict()

    @property
    def nothing_stays(self) -> bool:
        """Whether every kernel is put away at once, even while its activities run (`cache=0`)."""
        return self._count == 0

    def __len__(self) -> int:
        return len(self._runners)

    def keep(self, runner: Runner) -> None:
        """A kernel waits from now on; others are put away if there is no room."""
        former = self._take(runner.execution_id)
        if former is not None and former is not runner:
            former.evict()
        self._runners[runner.execution_id] = (runner, runner.size)
        self._held += runner.size
        while self._runners and (len(self._runners) > self._count or self._held > self._size):
            _, (oldest, size) = self._runners.popitem(last=False)
            self._held -= size
            oldest.evict()

    def wanted(self, runner: Runner) -> None:
        """A kernel is wanted again, or never more; it does not count."""
        # Not another one of the same execution: a second start has a runner of its own until it knows that it joins.
        found = self._runners.get(runner.execution_id)
        if found is not None and found[0] is runner:
            self._take(runner.execution_id)

    def forget(self, execution_id: ExecutionId) -> None:
        """A kernel is of no use any more: put it away."""
        if (runner := self._take(execution_id)) is not None:
            runner.evict()

    def _take(self, execution_id: ExecutionId) -> Runner | None:
        found = self._runners.pop(execution_id, None)
        if found is None:
            return None
        runner, size = found
        self._held -= size
        return runner

    def parked(self, record: Record) -> Runner | None:
        """The parked kernel for a new claim, if it is still good; one that is not is put away."""
        runner = self._take(record.execution_id)
        if runner is None:
            return None
        good = (
            runner.kernel is not None and runner.incarnation == record.incarnation and runner.fence + 1 == record.fence
        )
        if not good:
            runner.evict()
            return None
        return runner

    def clear(self) -> None:
        """Put all of them away."""
        while self._runners:
            _, (runner, _) = self._runners.popitem(last=False)
            runner.evict()
        self._held = 0
