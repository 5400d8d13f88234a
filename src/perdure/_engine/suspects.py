"""Executions that may be what kills their worker.

A take-over counts one crash against each execution that the dead worker owned; one of a thousand
has done it. From the second crash on an execution is a suspect, and a worker runs one suspect at a
time: whoever takes its worker with it three times while it is the only one is held (R41). One
poison execution must not convict a thousand.
"""

from collections import deque
from typing import Final

from perdure._engine.runner import Runner
from perdure._model.records import ExecutionId, Record

SUSPECT_FROM: Final = 2
# The first two crashes may have been somebody else's; three more came while it was the only suspect.
CONVICTED_AT: Final = SUSPECT_FROM + 3


class Suspects:
    """Lets one suspect through at a time; the others wait here, owned."""

    def __init__(self) -> None:
        self._running: ExecutionId | None = None
        self._waiting: deque[Record] = deque()

    def admit(self, records: list[Record]) -> list[Record]:
        """Those of the claimed executions that may run now."""
        admitted: list[Record] = []
        for record in records:
            if record.crashes < SUSPECT_FROM:
                admitted.append(record)
            elif self._running is None or self._running == record.execution_id:
                self._running = record.execution_id
                admitted.append(record)
            else:
                self._waiting.append(record)
        return admitted

    @property
    def waiting(self) -> list[ExecutionId]:
        """The executions that wait here."""
        return [record.execution_id for record in self._waiting]

    def clear(self) -> None:
        """They are not this worker's any more."""
        self._running = None
        self._waiting.clear()

    def ended(self, runner: Runner) -> Record | None:
        """A runner has left this worker's hands; the suspect that may run in its place."""
        if runner.execution_id != self._running:
            return None
        self._running = None
        return self._waiting.popleft() if self._waiting else None
