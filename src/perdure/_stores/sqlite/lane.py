"""A thread and the one connection that nobody but it ever touches.

Jobs come in through a queue and are served in its order. The connection is a local variable of
the thread and of nothing else. That is what makes a fork harmless: the child has no such thread,
so it can neither use nor close the parent's connection.

A connection that met an I/O error is closed, and opened anew for the next job; the jobs that it
failed get an error, and their callers repeat them.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

import apsw

from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.fault import SPOILT, translated
from perdure._stores.sqlite.job import Job, Work, settle
from perdure.errors import UsageError

# Of the jobs that wait, so many share a transaction. Beyond that only the first one's wait grows.
MOST_JOBS: Final = 64


class Lane:
    """Serves jobs, one batch after the other, until it is told to end."""

    # How long the thread may sleep when nothing is asked of it; None: until something is.
    nap_s: float | None = None

    def __init__(self, name: str, path: str, connect: Callable[[], Connection]) -> None:
        self.path = path
        self.ending = False  # set by the closing thread, read by the lane's: waits end early
        self._connect = connect
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    async def do(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        """Have work done, and wait for it. Cancelling the wait does not take the work back."""
        job = Job(work, before, after)
        self._queue.put(job)
        return await job.future

    def end(self) -> None:
        """Let the thread do what it was asked before, waiting for nobody any more, and then end."""
        self.ending = True
        self._queue.put(None)
        self._thread.join()

    # What a kind of lane adds ------------------------------------------------------------------

    def perform(self, connection: Connection, jobs: list[Job]) -> None:
        """Do the jobs, and leave each with its result or its error."""
        raise NotImplementedError

    def rest(self, connection: Connection) -> None:
        """Do what is to be done between two batches, when everybody has an answer."""

    # The thread ---------------------------------------------------------------------------------

    def _live(self) -> None:
        connection: Connection | None = None
        last = False
        while not last:
            jobs, last = self._take()
            if jobs:
                connection = self._serve(connection, jobs)
                # The results are the callers'; a sleeping thread must not keep them alive.
                jobs.clear()
            if connection is not None and not last:
                connection = self._rest(connection)
        if connection is not None:
            connection.close(True)
        self._turn_away()

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for a job, and take what waits behind it; True: that was the last."""
        jobs: list[Job] = []
        try:
            item = self._queue.get(timeout=self.nap_s)
            while item is not None:
                jobs.append(item)
                if len(jobs) == MOST_JOBS:
                    return jobs, False
                item = self._queue.get_nowait()
        except Empty:
            return jobs, False
        return jobs, True

    def _serve(self, connection: Connection | None, jobs: list[Job]) -> Connection | None:
        try:
            if connection is None:
                connection = self._connect()
            self.perform(connection, jobs)
        except BaseException as error:  # noqa: BLE001 - the thread serves on, each caller gets the error
            connection = self._kept(connection, error)
            failure = translated(error, self.path)
            for job in jobs:
                job.error = job.error or failure
        settle(jobs)
        return connection

    def _rest(self, connection: Connection) -> Connection | None:
        try:
            self.rest(connection)
        except apsw.Error as error:
            # Nobody has asked for it, so there is nobody to tell. Whatever is wrong with the
            # database meets the next job as well.
            return self._kept(connection, error)
        return connection

    def _kept(self, connection: Connection | None, error: BaseException) -> Connection | None:
        if connection is not None and isinstance(error, SPOILT):
            connection.close(True)
            return None
        return connection

    def _turn_away(self) -> None:
        # Asked for by another thread while the store was closing.
        late: list[Job] = []
        while not self._queue.empty():
            job = self._queue.get()
            if job is not None:
                job.error = UsageError(f"The store on {self.path} was closed meanwhile; nothing was done.")
                late.append(job)
        settle(late)
