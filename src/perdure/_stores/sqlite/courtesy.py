"""What an event loop that is never idle does for a thread that works for it: it stands still for a moment.

CPython gives the interpreter to another thread when the one that has it waits for something, or when somebody has asked
for 5 ms without being disturbed. A loop that always has something ready does neither: at each look at its sockets it
lets go of the interpreter for a microsecond, which disturbs whoever waits and is too short for him to wake up (the
"convoy effect", issue 7946 of CPython). A thread that runs SQLite needs the interpreter back after every statement.
Beside a web server at its limit a commit of half a millisecond took a second and a half.
"""

import asyncio
import time
from typing import Final

from perdure._stores.sqlite.job import Job

# What is not answered so soon is late.
LATE_S: Final = 0.002
# So a late job costs the loop a twentieth to a tenth of its time, and not more.
AGAIN_S: Final = 0.001
# Long enough for the thread to wake up. The system makes a tenth of a millisecond of it.
MOMENT_S: Final = 0.000_05
# Of a loop whose thread has had so much of the processor the other one has had nothing. Any other has waited for its
# sockets and let go of the interpreter meanwhile: then it is the disk that is late, or there is much to do.
NEVER_IDLE: Final = 0.95


class Courtesy:
    """The jobs of a lane that wait for their answer, and the loop that gives way to them when they are late."""

    __slots__ = ("_looked_at", "_looks", "_loop", "_waiting", "_worked_s")

    def __init__(self) -> None:
        # In the order in which they were asked for.
        self._waiting: dict[Job, None] = {}
        # Who looks after them, while one is waiting. Of several loops the one that asked last does.
        self._loop: asyncio.AbstractEventLoop | None = None
        # How many looks have been asked for. An earlier one than the last is another loop's, or one's that has come back.
        self._looks = 0
        # When that loop looked last, and how long its thread had had the processor until then; in seconds.
        self._looked_at = self._worked_s = 0.0

    def expect(self, job: Job) -> None:
        """A job has been asked for, on its loop."""
        self._waiting[job] = None
        if self._loop is not job.loop:
            self._loop = job.loop
            self._look(job, LATE_S)

    def relieve(self, job: Job) -> None:
        """It has its answer, or its caller has gone."""
        self._waiting.pop(job, None)

    def _look(self, job: Job, after_s: float) -> None:
        self._looked_at, self._worked_s = time.perf_counter(), time.thread_time()
        self._looks += 1
        job.loop.call_later(after_s, self._see_to, job, self._looks)

    def _see_to(self, job: Job, look: int) -> None:
        if look != self._looks:
            return
        if job in self._waiting:
            if self._is_never_idle():
                time.sleep(MOMENT_S)
            self._look(job, AGAIN_S)
            return
        oldest = next((other for other in list(self._waiting) if other.loop is job.loop), None)
        if oldest is None:
            self._loop = None
        else:
            self._look(oldest, LATE_S)

    def _is_never_idle(self) -> bool:
        worked_s, passed_s = time.thread_time() - self._worked_s, time.perf_counter() - self._looked_at
        return worked_s >= NEVER_IDLE * passed_s
