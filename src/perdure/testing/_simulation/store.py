"""The SQLite store without threads: the same clerks, served by the simulated loop, over a link that delays and loses.

What a process asks of its store is done at one instant of the world's time, a little after it was
asked, and answered a little later. In between anything may happen: other processes go on, this one
stands still or ends.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from perdure._engine.wakes import Wakes
from perdure._model.clock import Alarm, Clock
from perdure._model.records import Life
from perdure._stores.sqlite.clerk import Clerk
from perdure._stores.sqlite.connection import MemoryDatabase
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.job import Job, Work
from perdure._stores.sqlite.lane import MOST_JOBS
from perdure._stores.sqlite.life import lives
from perdure._stores.sqlite.store import Lanes, SqliteStore
from perdure._stores.sqlite.writer import Writer
from perdure._values.instant import Instant
from perdure.errors import StoreUnavailableError
from perdure.testing._simulation.history import Witness
from perdure.testing._simulation.loop import Microseconds, SimulatedLoop

Written = TypeVar("Written")


class Link(Protocol):
    """What happens to a call on its way to the store and back."""

    @property
    def loop(self) -> SimulatedLoop:
        """The loop of the process that asks."""
        ...

    @property
    def is_cut(self) -> bool:
        """Whether nothing arrives any more: the process has ended."""
        ...

    def delay(self) -> Microseconds:
        """How long the call, or its answer, is on its way."""
        ...

    def is_lost(self) -> bool:
        """Whether it never arrives."""
        ...


class SimulatedStore(SqliteStore):
    """A store on a named database in memory, shared by processes that are none."""

    def __init__(self, name: str, clock: Clock, link: Link, witness: Witness) -> None:
        """Be the store of one simulated process."""
        self._set_up(MemoryDatabase(name), clock)
        self._link = link
        self._witness = witness
        self.hint: Callable[[], None] | None = None  # what to call when others have written
        # Where both lanes serve; None before there are any.
        self._counter: Counter | None = None

    @property
    def shared(self) -> bool:
        """Whether others use the same database: they do, although it lies in memory."""
        return True

    def listen(self, hint: Callable[[], None], /) -> None:
        """Hear from the world when somebody else has written."""
        self.hint = hint

    async def close(self) -> None:
        """Let go of the connections and of the worker's lock."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.end()
            self._database.let_go()

    def die(self) -> None:
        """Let the worker's lock go, as the operating system would."""
        self._database.let_go()

    def write_beside(self, work: Callable[[Connection], Written]) -> Written:
        """Do something at this very moment: in the transaction that is open here, as a job beside it, or in one of its own."""
        assert self._counter is not None
        connection = self._counter.connection
        assert connection is not None
        if connection.in_transaction:
            return work(connection)
        connection.execute("BEGIN IMMEDIATE")
        done = work(connection)
        connection.execute("COMMIT")
        return done

    def let_go_of_connections(self) -> None:
        """Close what a dead process has left open; the database lives on as long as anybody has it open."""
        if self._lanes is not None:
            self._lanes.end()
            self._lanes = None

    async def purge(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove nothing: months may pass in a run, and when it is over everything is looked at."""
        del workflow, before, limit
        return 0

    async def purge_lives(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove nothing, for the same reason."""
        del workflow, before, limit
        return 0

    def _make_lanes(self) -> Lanes:
        # Each batch is served at one instant, so one connection is to both lanes what two would be.
        self._counter = Counter(self._make_clerk())
        return Lanes(*(InlineLane(self._counter, self._link, self._witness) for _ in range(2)))

    def _make_clerk(self) -> Writer:
        def connect(_: Writer) -> Connection:
            connection = self._database.connect_writer(writer, self._clock.now())
            self._witness.watch(connection)
            return connection

        writer = Writer(self._database.path, connect, (), polls=False)
        return writer


class Counter:
    """Where a clerk serves on one connection."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        # None until something was asked of it, and when it has ended.
        self.connection: Connection | None = None

    def serve(self, jobs: list[Job]) -> None:
        """Do some jobs, now."""
        self.connection = self._clerk.serve(self.connection, jobs)
        if self.connection is not None:
            self.connection = self._clerk.relax(self.connection)

    def end(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close(True)
            self.connection = None


class InlineLane:
    """Serves jobs in the order in which they come, each batch in one callback of the loop."""

    def __init__(self, counter: Counter, link: Link, witness: Witness) -> None:
        self._counter = counter
        self._link = link
        self._witness = witness
        self._waiting: list[Job] = []
        # No call arrives before one that was sent earlier: it is a queue.
        self._last_arrival: Microseconds = 0
        self._last_answer: Microseconds = 0

    async def do(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        """Have work done, and wait for it. Cancelling the wait does not take the work back."""
        link = self._link
        answered: asyncio.Future[Any] = link.loop.create_future()
        if link.is_lost():
            self._answer_later(answered, None, StoreUnavailableError("the call was lost on its way"))
            return await answered
        job = Job(self._noted(work), before, after)
        job.future.add_done_callback(lambda done: self._pass_on(done, answered))
        self._last_arrival = max(self._last_arrival, link.loop.now_us() + link.delay())
        link.loop.call_at_us(self._last_arrival, self._arrive, job)
        return await answered

    def end(self) -> None:
        """Close the connection; what has not arrived never will."""
        self._counter.end()

    def _noted(self, work: Work) -> Work:
        def noted(connection: Connection) -> Any:
            mark = self._witness.mark()
            try:
                return work(connection)
            except BaseException:
                self._witness.forget(mark)
                raise

        return noted

    def _arrive(self, job: Job) -> None:
        if not self._waiting:
            self._link.loop.call_soon(self._serve)
        self._waiting.append(job)

    def _serve(self) -> None:
        if self._link.is_cut:
            return  # only the frames of a dead process are being closed
        jobs, self._waiting = self._waiting[:MOST_JOBS], self._waiting[MOST_JOBS:]
        if self._waiting:
            self._link.loop.call_soon(self._serve)
        self._counter.serve(jobs)

    def _pass_on(self, done: asyncio.Future[Any], answered: asyncio.Future[Any]) -> None:
        error = done.exception()
        if error is None and self._link.is_lost():
            error = StoreUnavailableError("the answer was lost on its way")
        self._answer_later(answered, None if error is not None else done.result(), error)

    def _answer_later(self, answered: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        loop = self._link.loop
        self._last_answer = max(self._last_answer, loop.now_us() + self._link.delay())
        loop.call_at_us(self._last_answer, _answer, answered, value, error)


def _answer(answered: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(value)
    else:
        answered.set_exception(error)


class Keeper:
    """A connection that outlives every process, and looks at the database when all have ended."""

    def __init__(self, name: str, now: Instant) -> None:
        """Open the database, which makes it."""
        database = MemoryDatabase(name)
        writer = Writer(database.path, lambda writer: database.connect_writer(writer, now), (), polls=False)
        self._connection = database.connect_writer(writer, now)

    def select(self, sql: str) -> list[Any]:
        """All rows of a query."""
        return select(self._connection, sql)

    def lives(self, execution_id: str) -> list[Life]:
        """The lives of an execution before the last one."""
        return lives(self._connection, execution_id)

    def close(self) -> None:
        """Let the database go."""
        self._connection.close(True)


class SimulatedClock:
    """The world's time as instants.

    Args:
        now: The world's time.
        begin: The instant at which the world began.
    """

    def __init__(self, now: Callable[[], Microseconds], begin: Instant) -> None:
        self._now = now
        self._begin = begin

    def now(self) -> Instant:
        """Milliseconds since the epoch, UTC, rounded down."""
        return self.at(self._now())

    def at(self, moment: Microseconds) -> Instant:
        """What o'clock it is at a moment of the world."""
        return self._begin + moment // 1_000

    def call_at(self, when: Instant, callback: Callable[[], object], /) -> Alarm:
        """Call `callback` on the running event loop once `now()` has reached `when`, never before."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        due = max((when - self._begin) * 1_000, self._now())
        if isinstance(getattr(callback, "__self__", None), Wakes):
            return loop.call_round_at_us(due, callback)
        return loop.call_at_us(due, callback)
