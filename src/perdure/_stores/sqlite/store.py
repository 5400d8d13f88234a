"""The store's face: the port's methods, each handed to the lane that does it.

Whatever writes goes through the writer's one thread, where jobs that wait share a transaction;
whatever only looks goes to the reader, who sees everything that was answered before. A store in
memory has no reader: there a look and a transaction would stand in each other's way, and the
writer's is as fast.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from perdure._failpoints import reach
from perdure._model.clock import Clock, SystemClock
from perdure._model.journal import Entry
from perdure._model.records import (
    Answer,
    Commit,
    ExecutionId,
    History,
    Letter,
    Life,
    Mail,
    Query,
    Receipt,
    Record,
    Start,
    Worker,
    WorkerId,
)
from perdure._stores.sqlite import claim, commit, interrupt, life, listing, mail, purge, tail, timer, worker
from perdure._stores.sqlite.connection import FileDatabase, MemoryDatabase
from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.job import Work, call_soon
from perdure._stores.sqlite.lane import Lane, ThreadLane
from perdure._stores.sqlite.liveness import dead
from perdure._stores.sqlite.place import Places
from perdure._stores.sqlite.reader import Reader
from perdure._stores.sqlite.writer import Hint, Writer
from perdure._values.instant import Instant
from perdure.errors import UsageError


class SqliteStore:
    """Executions on one SQLite file of its own.

    Any number of processes of one host may open the same file. The file belongs to perdure: keep
    the application's tables elsewhere, and do not open it with `sqlite3` in the same process.

    Args:
        path: The file, by custom `something.perdure`. It is made, readable by its owner only.
        clock: The clock to compare and write instants with; the host's by default.

    Example:
        >>> import asyncio
        >>> async def count() -> int:
        ...     store = SqliteStore.in_memory()
        ...     await store.open()
        ...     try:
        ...         return len(await store.workers())
        ...     finally:
        ...         await store.close()
        >>> asyncio.run(count())
        0
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        # Resolved: whoever reaches the file by another name looks for the workers' locks beside it.
        self._set_up(FileDatabase(Path(os.path.realpath(path))), clock)

    @classmethod
    def in_memory(cls, *, name: str | None = None, clock: Clock | None = None) -> Self:
        """Give a store in this process's memory.

        Args:
            name: Stores of one name share one database, as processes share a file. It lives as
                long as one of them is open. Without a name the store has one to itself.
            clock: The clock to compare and write instants with; the host's by default.
        """
        self = cls.__new__(cls)
        self._set_up(MemoryDatabase(name), clock)
        return self

    def _set_up(self, database: FileDatabase | MemoryDatabase, clock: Clock | None) -> None:
        self._database = database
        self._clock: Clock = SystemClock() if clock is None else clock
        self._pid = os.getpid()
        self._lanes: Lanes | None = None  # None: not open
        self._turns = claim.Turns()
        self._places = Places()
        # Workers whose last `mail_for` had no answer: nobody knows whether it counts as told.
        self._untold: set[WorkerId] = set()
        self._hints: list[Hint] = []

    @property
    def clock(self) -> Clock:
        """The clock whose instants this store writes and compares with."""
        return self._clock

    @property
    def shared(self) -> bool:
        """Whether other processes may use the same database."""
        return self._database.shared

    async def open(self) -> None:
        """Connect, and bring the schema to this version; several may do so at once.

        Raises:
            StoreFileError: What is there is not a perdure database, or cannot be written.
            SchemaVersionError: A newer version of the library has written it.
            StoreUnavailableError: It cannot be reached.
            UsageError: It is open, or this process was forked from one that has opened it.
        """
        self._check_process()
        if self._lanes is not None:
            raise UsageError(f"The store on {self._database.path} is open already.")
        self._lanes = self._make_lanes()
        try:
            # The writer's turn comes first, so that the reader finds a file with a schema.
            await self._write(self._sweep)
            await self._read(_nothing)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of every connection, thread and worker's lock. Closing twice is harmless.

        Workers that were not retired before are dead from now on, and may be taken over.
        """
        self._check_process()
        lanes, self._lanes = self._lanes, None
        if lanes is None:
            return
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        # In a thread of its own: the writer may still be waiting for another process, the loop's
        # executor may be gone already, and who cancels the wait must not leave half a store behind.
        def close() -> None:
            lanes.end()
            self._database.let_go()
            call_soon(loop, _tell, closed)

        closer = threading.Thread(target=close, name="perdure-closer", daemon=True)
        closer.start()
        await closed
        closer.join()

    def listen(self, hint: Callable[[], None], /) -> None:
        """Call `hint` on the running event loop when somebody else may have written."""
        self._hints.append((asyncio.get_running_loop(), hint))

    # Workers -----------------------------------------------------------------------------------

    async def register(self, one: Worker, /) -> None:
        """Make a worker known and alive."""

        def work(connection: Connection) -> None:
            # First the lock: who sees the row must find the lock held.
            self._database.liveness.hold(one.worker_id)
            worker.register(connection, one)

        await self._write(work)

    async def alive(self, worker_id: WorkerId, /) -> bool:
        """Say that a worker still lives; False: it has been retired."""

        def work(connection: Connection) -> bool:
            known = worker.alive(connection, worker_id)
            if known and self._database.liveness.holds(worker_id):
                self._database.liveness.hold(worker_id)  # again, if its file was removed
            return known

        return await self._read(work)

    async def retire(self, worker_id: WorkerId, /) -> None:
        """End a worker that leaves by itself; what it still owns becomes PENDING."""
        await self._write(lambda connection: worker.retire(connection, [worker_id], 0, self._clock.now()))
        # Only now: as long as its row says that it lives, so does its lock.
        self._database.liveness.drop(worker_id)
        self._database.liveness.forget(worker_id)

    async def take_over(self, worker_id: WorkerId, /) -> int:
        """Retire every other worker that is dead; give how many executions became PENDING."""
        gone: list[WorkerId] = []

        def work(connection: Connection) -> int:
            gone[:] = dead(self._database.liveness, worker.others(connection, worker_id))
            if not gone:
                return 0
            reach("take_over.before")
            return worker.retire(connection, gone, 1, self._clock.now())

        freed: int = await self._write(work, after=lambda _: gone and reach("take_over.after"))
        for one in gone:
            self._database.liveness.forget(one)
        return freed

    def abandon(self, worker_id: WorkerId, /) -> None:
        """Let a worker die as kill -9 would: its lock is gone, nothing else is done.

        For tests of take-over. What the worker owned stays RUNNING until another takes it over.
        """
        self._database.liveness.drop(worker_id)

    async def owned(self, worker_id: WorkerId, /) -> dict[ExecutionId, int]:
        """What the store says that a worker owns, each with its fence."""
        return await self._read(lambda connection: claim.owned(connection, worker_id))

    async def give_back(self, worker_id: WorkerId, fences: Mapping[ExecutionId, int], /) -> int:
        """Make owned executions PENDING whose owner does not know them."""
        return await self._write(lambda connection: claim.give_back(connection, worker_id, fences, self._clock.now()))

    # Executions --------------------------------------------------------------------------------

    async def commit(self, worker_id: WorkerId, batch: Sequence[Commit], /) -> list[Answer]:
        """Write a batch in one transaction, and answer each commit in its place.

        Raises:
            StoreRefusedError: The database refused the data of some commit; nothing was written.
            StoreUnavailableError: Nothing was written, or it is not known; repeat the batch.
        """
        return await self._write(
            lambda connection: commit.commit(connection, worker_id, batch, places=self._places, now=self._clock.now()),
            before=lambda: reach("commit.before"),
            after=lambda _: reach("commit.after"),
        )

    async def claim(self, worker_id: WorkerId, workflows: Sequence[str], limit: int, /) -> list[Record]:
        """Take up to `limit` PENDING executions of these workflows."""
        return await self._write(
            lambda connection: claim.claim(
                connection, worker_id, workflows, limit, turns=self._turns, now=self._clock.now()
            ),
            before=lambda: reach("claim.before"),
            after=lambda taken: taken and reach("claim.after"),
        )

    async def load(self, wanted: Sequence[tuple[bytes, int, int]], /) -> list[History]:
        """Read (incarnation, after seq, after wake): the entries behind that seq, the mail behind that wake."""
        return await self._read(lambda connection: mail.load(connection, wanted))

    async def deliver(self, letters: Sequence[Mail], /) -> list[Receipt]:
        """Store mail, the first of each (execution, kind, name), and wake whom it reaches."""
        return await self._write(
            lambda connection: interrupt.deliver(connection, letters, self._clock.now()),
            before=lambda: reach("deliver.before"),
            after=lambda _: reach("deliver.after"),
        )

    async def interrupt_unsafe(self, execution_id: ExecutionId, exit: bytes, /) -> Receipt:
        """End an execution as INTERRUPTED with this exit, whatever it does."""
        return await self._write(
            lambda connection: interrupt.interrupt_unsafe(connection, execution_id, exit, self._clock.now()),
            before=lambda: reach("deliver.before"),
            after=lambda _: reach("deliver.after"),
        )

    async def expire(self, exit: bytes, limit: int, /) -> int:
        """Deliver INTERRUPT with this exit to up to `limit` executions whose deadline has passed, once each."""
        return await self._write(
            lambda connection: interrupt.expire(connection, exit, limit, self._clock.now()),
            after=lambda count: count and reach("expire.after"),
        )

    async def mail_for(self, worker_id: WorkerId, /) -> dict[ExecutionId, int]:
        """Which executions of a worker have had mail since last asked, each with how far it goes."""
        everything = worker_id in self._untold
        self._untold.add(worker_id)
        told: dict[ExecutionId, int] = await self._write(
            lambda connection: mail.mail_for(connection, worker_id, everything=everything)
        )
        self._untold.discard(worker_id)
        return told

    async def promote(self, limit: int, /) -> int:
        """Make up to `limit` SUSPENDED executions PENDING whose wake is due."""
        return await self._write(
            lambda connection: timer.promote(connection, limit, self._clock.now()),
            after=lambda count: count and reach("promote.after"),
        )

    async def next_wake(self) -> Instant | None:
        """The earliest `wake_at` of any SUSPENDED execution that is not held, or deadline of one that has not ended."""
        return await self._read(timer.next_wake)

    async def resume(self, execution_id: ExecutionId, /, *, skip: bool = False) -> Record | None:
        """Make a held execution PENDING; give it as it stood before."""
        return await self._write(
            lambda connection: timer.resume(connection, execution_id, self._clock.now(), skip=skip)
        )

    async def renew(
        self, before: bytes, wakes: int, start: Start, entries: Sequence[Entry], letters: Sequence[Letter], /
    ) -> bool:
        """Put a finished or held life aside, and begin the next one with this journal and mailbox."""
        return await self._write(
            lambda connection: life.renew(
                connection, start, entries, letters, before=before, wakes=wakes, now=self._clock.now()
            ),
            before=lambda: reach("renew.before"),
            after=lambda done: done and reach("renew.after"),
        )

    async def lives(self, execution_id: ExecutionId, /) -> list[Life]:
        """The earlier lives of an execution that have been put aside, in order."""
        return await self._read(lambda connection: life.lives(connection, execution_id))

    async def published(self, execution_id: ExecutionId, /) -> dict[str, bytes]:
        """What the body of the present life has shown, by name."""
        return await self._read(lambda connection: listing.published(connection, execution_id))

    async def save_heartbeat(self, incarnation: bytes, name: str, occurrence: int, details: bytes, /) -> None:
        """Keep what an attempt says of its progress; the last word wins."""
        await self._write(
            lambda connection: listing.save_heartbeat(
                connection, (incarnation, name, occurrence), details, self._clock.now()
            )
        )

    async def heartbeat(self, incarnation: bytes, name: str, occurrence: int, /) -> bytes | None:
        """What the last attempt of this step said of its progress."""
        return await self._read(lambda connection: listing.heartbeat(connection, (incarnation, name, occurrence)))

    # Looking -----------------------------------------------------------------------------------

    async def read(self, execution_ids: Sequence[ExecutionId], /) -> list[Record]:
        """The executions of these ids that exist, in any order."""
        return await self._read(lambda connection: listing.read(connection, execution_ids, self._places))

    async def executions(self, query: Query, /) -> list[Record]:
        """One page of a listing: newest first."""
        return await self._read(lambda connection: listing.executions(connection, query))

    async def workers(self) -> list[Worker]:
        """Every worker that has not been forgotten, retired ones too."""
        return await self._read(worker.workers)

    async def tail(self, incarnation: bytes, limit: int, /) -> History:
        """The newest `limit` entries and the newest `limit` letters of an incarnation, both in order."""
        return await self._read(lambda connection: tail.tail(connection, incarnation, limit))

    # Forgetting --------------------------------------------------------------------------------

    async def purge(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove up to `limit` executions of a workflow that ended at `before` or earlier, with all that is theirs."""
        return await self._write(
            lambda connection: purge.purge(connection, workflow, before, limit),
            after=lambda count: count and reach("purge.after"),
        )

    async def purge_lives(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove up to `limit` lives that were put aside at `before` or earlier, with all that is theirs."""
        return await self._write(lambda connection: purge.purge_lives(connection, workflow, before, limit))

    async def forget_workers(self, before: Instant, /) -> int:
        """Forget workers that were retired at `before` or earlier."""
        return await self._write(lambda connection: purge.forget_workers(connection, before))

    # The doors ---------------------------------------------------------------------------------

    async def _write(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        return await self._opened().writer.do(work, before, after)

    async def _read(self, work: Work) -> Any:
        return await self._opened().reader.do(work)

    def _opened(self) -> "Lanes":
        self._check_process()
        if self._lanes is None:
            raise UsageError(f"The store on {self._database.path} is not open.")
        return self._lanes

    def _make_lanes(self) -> "Lanes":
        """The lanes' threads; a simulation has lanes without."""
        database = self._database

        def connect_writer(writer: Writer) -> Connection:
            return database.connect_writer(writer, self._clock.now())

        writer = ThreadLane("perdure-writer", Writer(database.path, connect_writer, self._hints, polls=database.polls))
        if database.connect_reader is None:
            return Lanes(writer, writer)
        return Lanes(writer, ThreadLane("perdure-reader", Reader(database.path, database.connect_reader)))

    def _sweep(self, connection: Connection) -> None:
        """Remove lock files that a crash between retiring and removing has left."""
        liveness = self._database.liveness
        for worker_id in liveness.leftovers():
            if not worker.alive(connection, worker_id):
                liveness.forget(worker_id)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                "A store cannot be carried across a fork. Start the process with multiprocessing's 'spawn' or"
                " 'forkserver' method, and make the store in it."
            )


class Lanes:
    """The two ways into an open store: for those who write, and for those who only look."""

    def __init__(self, writer: Lane, reader: Lane) -> None:
        self.writer = writer
        self.reader = reader

    def end(self) -> None:
        """End both; it takes as long as their last jobs do."""
        # The writer last: its connection is then the last one, and clears the WAL away.
        if self.reader is not self.writer:
            self.reader.end()
        self.writer.end()


def _nothing(_connection: Connection) -> None:
    """Only connect."""


def _tell(closed: asyncio.Future[None]) -> None:
    if not closed.done():
        closed.set_result(None)
