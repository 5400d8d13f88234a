"""Room: how many executions may run here at once, and which of those in hand do not count (R5).

One that only waits holds a place that somebody else may need: for the thing that it waits for, perhaps. So
whoever sleeps in memory does not count, nor whoever waits for another execution in an activity.
"""

from collections import Counter
from collections.abc import Generator, Sized
from contextlib import contextmanager

from perdure._model.records import ExecutionId


class Room:
    """The places of one engine.

    Args:
        places: How many there are.
        in_hand: The executions that this worker has in hand; each of them holds a place, unless it is told otherwise.
    """

    def __init__(self, places: int, in_hand: Sized) -> None:
        self._places = places
        self._in_hand = in_hand
        self._asleep: set[ExecutionId] = set()
        # How many attempts of each wait for another execution.
        self._aside: Counter[ExecutionId] = Counter()
        # For executions that the store is being asked for at this moment.
        self._kept = 0

    @property
    def free(self) -> int:
        """How many more executions may run here now."""
        return self._places - self._kept - (len(self._in_hand) - len(self._asleep) - len(self._aside))

    @contextmanager
    def kept(self, places: int) -> Generator[None]:
        """Keep places for a claim until its answer comes: a start that took one of them would be one too many."""
        self._kept += places
        try:
            yield
        finally:
            self._kept -= places

    def fall_asleep(self, execution_id: ExecutionId) -> None:
        """It waits in memory, for a time."""
        self._asleep.add(execution_id)

    def wake(self, execution_id: ExecutionId) -> None:
        """It has a turn again, or has left."""
        self._asleep.discard(execution_id)

    def step_aside(self, execution_id: ExecutionId) -> None:
        """An attempt of it waits for another execution, which may need its place."""
        self._aside[execution_id] += 1

    def step_back(self, execution_id: ExecutionId) -> None:
        """That attempt goes on."""
        self._aside[execution_id] -= 1
        if not self._aside[execution_id]:
            del self._aside[execution_id]
