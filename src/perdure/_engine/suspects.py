"""Executions that may be what kills their worker.

A take-over counts one crash against each execution that the dead worker owned; one of a thousand
has done it. From the second crash on an execution is a suspect, and a worker runs one suspect at a
time: whoever takes its worker with it three times while it is the only one is held (R41). One
poison execution must not convict a thousand.

The suspects that wait are owned like the one that runs, so a take-over counts against them as well,
and the crashes convict nobody. What does is a note, written before a suspect begins: how often it
has been the one that ran, with the journal as it is now. It is worth nothing once the journal has
grown. It lies among the heartbeats, under a name that no activity can have.
"""

import logging
from collections import deque
from typing import Final, NamedTuple

from pydantic_core import from_json, to_json

from perdure._engine.patience import until_answered
from perdure._engine.runner import Runner
from perdure._model.records import ExecutionId, History, Record
from perdure._model.store import Store

logger = logging.getLogger("perdure")

# One crash happens: a deployment, a machine that ran out of memory. The second one is looked into.
SUSPECT_FROM: Final = 2
CONVICTED_AFTER: Final = 3
_NOTE: Final = ("", 0)


class Exposure(NamedTuple):
    """How often a suspect was the one that ran, with a journal that ends at `seq`."""

    seq: int
    times: int


class Suspects:
    """Lets one suspect through at a time; the others wait here, owned."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: ExecutionId | None = None
        # Of the one that runs, once it does.
        self._exposure: Exposure | None = None
        self._waiting: deque[Record] = deque()

    def admit(self, records: list[Record]) -> list[Record]:
        """Those of the claimed executions that may run now."""
        admitted: list[Record] = []
        for record in records:
            if not is_suspect(record):
                admitted.append(record)
            elif self._running is None or self._running == record.execution_id:
                self._running = record.execution_id
                admitted.append(record)
            else:
                self._waiting.append(record)
        if self._waiting and len(admitted) < len(records):
            logger.warning(
                "%d executions run one at a time from now on, and %d wait for their turn: two workers in a row or more have "
                "ended while they had them in hand, and one of them may be what ends them. Each is one like all others "
                "again as soon as it records something.", len(self._waiting) + 1, len(self._waiting),
            )  # fmt: skip
        return admitted

    @property
    def waiting(self) -> list[ExecutionId]:
        """The executions that wait here."""
        return [record.execution_id for record in self._waiting]

    def clear(self) -> None:
        """They are not this worker's any more."""
        self._running = self._exposure = None
        self._waiting.clear()

    def take_next(self) -> list[Record]:
        """The suspect that may run now, if one waits and none runs."""
        return [self._waiting.popleft()] if self._waiting and self._running is None else []

    async def expose(self, record: Record, history: History) -> bool:
        """Note that an admitted suspect is about to run; False: it has ended its worker too often for that."""
        seq = history.entries[-1].seq if history.entries else 0
        noted = await self._read(record.incarnation)
        times = noted.times if noted is not None and noted.seq == seq else 0
        if times >= CONVICTED_AFTER:
            # Whoever resumes it has looked into it, and the past does not count against the next try.
            await self._write(record.incarnation, Exposure(seq, 0))
            return False
        exposure = Exposure(seq, times + 1)
        await self._write(record.incarnation, exposure)
        if self._running == record.execution_id:
            self._exposure = exposure
        return True

    def release(self, runner: Runner) -> Exposure | None:
        """A runner can no longer be what kills the worker; what was noted, if it was the suspect that ran."""
        if runner.execution_id != self._running:
            return None
        exposure, self._running, self._exposure = self._exposure, None, None
        return exposure or Exposure(0, 0)

    async def excuse(self, runner: Runner, exposure: Exposure) -> None:
        """Take back a note: the suspect only waits for its time, and others run meanwhile."""
        await self._write(runner.incarnation, exposure._replace(times=max(exposure.times - 1, 0)))

    async def _read(self, incarnation: bytes) -> Exposure | None:
        details = await until_answered(lambda: self._store.heartbeat(incarnation, *_NOTE), "a suspect waits")
        return None if details is None else Exposure(*from_json(details))

    async def _write(self, incarnation: bytes, exposure: Exposure) -> None:
        noted = to_json(exposure)
        await until_answered(lambda: self._store.save_heartbeat(incarnation, *_NOTE, noted), "a suspect waits")


def is_suspect(record: Record) -> bool:
    """Whether an execution may be what has ended its workers."""
    return record.crashes >= SUSPECT_FROM
