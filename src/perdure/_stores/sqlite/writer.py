"""The clerk of those who write: all jobs that wait become one transaction, and one fsync.

The order is: BEGIN IMMEDIATE (never an upgrade of a read transaction, which fails at once when
somebody else has written), the jobs one after the other, COMMIT, and only then the answers, all
of them in one call into the event loop. With several jobs each runs under a savepoint: one that
is refused leaves no trace and does not disturb the others.

Another process's transaction is waited for, with jitter, up to `PATIENCE_S`: not by SQLite's busy
handler, which is not asked in every case, but by beginning anew. When COMMIT fails
the connection is asked whether the transaction is still open: then it is rolled back, and nothing
was written; else SQLite has done so itself. Either way the callers are told to repeat.

Between two batches the clerk checkpoints the WAL, so that nobody's answer waits for it, and looks
now and then at `data_version`, which on this connection moves only when somebody else has written.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import apsw

from perdure._stores.sqlite.clerk import Clerk
from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.fault import BUSY, FATAL, translated
from perdure._stores.sqlite.job import Job, call_soon

# How long somebody else's transaction is waited for. Ours take milliseconds, an operator's may
# take a second; who holds the write lock for longer than this does more than write.
PATIENCE_S: Final = 8.0
# A hint that is late by this much is not felt, and 25 looks a second cost a thousandth of a core.
POLL_S: Final = 0.04
# 16 MiB. A checkpoint writes each page once, however often it has changed: waiting saves writes.
CHECKPOINT_PAGES: Final = 4_000

T = TypeVar("T")
Hint = tuple[asyncio.AbstractEventLoop, Callable[[], None]]

_jitter: Final = random.Random()  # spreads retries, protects nothing


class Writer(Clerk):
    """Runs jobs in group transactions, and notices what others write."""

    def __init__(
        self,
        path: str,
        connect: Callable[["Writer"], Connection],
        hints: Sequence[Hint],
        *,
        polls: bool,
    ) -> None:
        self._hints = hints  # the store's own list: it grows while the thread runs
        self._data_version: int | None = None
        self._looked_at = 0.0  # by the monotonic clock
        self._wal_pages = 0
        self._give_up_at = 0.0  # by the monotonic clock; set anew by everything that may have to wait
        self.nap_s = POLL_S if polls else None
        super().__init__(path, lambda: self._connected(connect))

    def equip(self, connection: Connection) -> None:
        """Count the WAL of a new connection."""
        connection.set_wal_hook(self._count)

    def insist(self, action: Callable[[], T]) -> T:
        """Do what another connection may be in the way of, as often as it takes while there is patience."""
        tries = 0
        while True:
            try:
                return action()
            except BUSY:
                if not self._wait(tries):
                    raise
                tries += 1

    def perform(self, connection: Connection, jobs: list[Job]) -> None:
        """Do the jobs in one transaction."""
        ready = [job for job in jobs if job.begin()]
        if not ready:
            return
        self._give_up_at = time.monotonic() + PATIENCE_S
        self.insist(lambda: self._transact(connection, ready))
        for job in ready:
            job.end()

    def rest(self, connection: Connection) -> None:
        """Checkpoint when there is enough to do, and notice what others wrote."""
        if self._wal_pages >= CHECKPOINT_PAGES:
            self._wal_pages = 0
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # Not after each batch: a look needs the interpreter three times, and the next batch may be waiting.
        if self.nap_s is not None and time.monotonic() - self._looked_at >= self.nap_s:
            self._look(connection)
            self._looked_at = time.monotonic()

    def _connected(self, connect: Callable[["Writer"], Connection]) -> Connection:
        self._give_up_at = time.monotonic() + PATIENCE_S
        return connect(self)

    def _transact(self, connection: Connection, jobs: list[Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if len(jobs) == 1:
                jobs[0].run(connection)
            else:
                for job in jobs:
                    self._run_apart(connection, job)
            # In memory a COMMIT waits for other stores' looks, and the transaction stays open.
            self.insist(lambda: connection.execute("COMMIT"))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _run_apart(self, connection: Connection, job: Job) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.run(connection)
        except FATAL:
            raise
        except Exception as error:
            # Some errors make SQLite roll the whole transaction back, and the savepoint with it.
            if not connection.in_transaction:
                raise
            job.error = translated(error, self.path)
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def _wait(self, tries: int) -> bool:
        if self.ending or time.monotonic() > self._give_up_at:
            return False
        # Short at first: the usual neighbour is a commit of a millisecond. With jitter, or two
        # processes that wait for each other's batches keep step and one of them starves.
        time.sleep(min(0.001 * (tries + 1), 0.02) * (0.5 + _jitter.random()))
        return True

    def _count(self, _connection: Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _look(self, connection: Connection) -> None:
        # Only compared for equality, so a connection that replaces another one costs at most a
        # hint too many; one too few is made up for by the engine's own polls.
        version = connection.pragma("data_version")
        changed = self._data_version is not None and version != self._data_version
        self._data_version = version
        if changed:
            for loop, hint in self._hints:
                call_soon(loop, hint)
