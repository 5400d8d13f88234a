"""A thread and the one connection that nobody but it ever touches.

Jobs come in through a queue and are served in its order, by the lane's clerk. The connection is a
local variable of the thread and of nothing else. That is what makes a fork harmless: the child has
no such thread, so it can neither use nor close the parent's connection.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from perdure._stores.sqlite.clerk import Clerk, let_go
from perdure._stores.sqlite.courtesy import Courtesy
from perdure._stores.sqlite.job import Job, Work, settle
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure._stores.sqlite.driver import Connection

# Of the jobs that wait, so many share a transaction. Beyond that only the first one's wait grows.
MOST_JOBS: Final = 64


class Lane(Protocol):
    """The way from the event loop to a connection, and back."""

    async def do(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        """Have work done, and wait for it. Cancelling the wait does not take the work back."""
        ...

    def end(self) -> None:
        """Do what was asked before, waiting for nobody any more, and then end."""
        ...


class ThreadLane:
    """Serves jobs on a thread, one batch after the other, until it is told to end."""

    def __init__(self, name: str, clerk: Clerk) -> None:
        self._clerk = clerk
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._courtesy = Courtesy()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    async def do(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        """Have work done, and wait for it. Cancelling the wait does not take the work back."""
        job = Job(work, before, after)
        self._queue.put(job)
        self._courtesy.expect(job)
        try:
            return await job.future
        finally:
            self._courtesy.relieve(job)

    def end(self) -> None:
        """Let the thread do what it was asked before, waiting for nobody any more, and then end."""
        self._clerk.ending = True
        self._queue.put(None)
        self._thread.join()

    # The thread ---------------------------------------------------------------------------------

    def _live(self) -> None:
        connection: Connection | None = None
        last = False
        while not last:
            jobs, last = self._take()
            if jobs:
                connection = self._clerk.serve(connection, jobs)
                # The results are the callers'; a sleeping thread must not keep them alive.
                jobs.clear()
            if connection is not None and not last:
                connection = self._clerk.relax(connection)
        if connection is not None:
            let_go(connection)
        self._turn_away()

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for a job, and take what waits behind it; True: that was the last."""
        jobs: list[Job] = []
        try:
            item = self._queue.get(timeout=self._clerk.nap_s)
            while item is not None:
                jobs.append(item)
                if len(jobs) == MOST_JOBS:
                    return jobs, False
                item = self._queue.get_nowait()
        except Empty:
            return jobs, False
        return jobs, True

    def _turn_away(self) -> None:
        # Asked for by another thread while the store was closing.
        late: list[Job] = []
        while not self._queue.empty():
            job = self._queue.get()
            if job is not None:
                job.error = UsageError(f"The store on {self._clerk.path} was closed meanwhile; nothing was done.")
                late.append(job)
        settle(late)
