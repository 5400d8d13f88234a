"""A piece of work for a lane's thread, and the way of its result back to the event loop."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from perdure._stores.sqlite.driver import Connection

Work = Callable[[Connection], Any]


class Job:
    """One call of the port on its way through a lane.

    Args:
        work: What is done inside the transaction. It may be done again in another one.
        before: Called before there is a transaction. If it raises, there is none.
        after: Called with the result when the transaction is durable and nobody has been told.
    """

    __slots__ = ("_after", "_before", "_work", "error", "future", "loop", "result")

    def __init__(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> None:
        self._work = work
        self._before = before
        self._after = after
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        # What the caller gets instead of the result. Set by the lane's thread, before it settles.
        self.error: BaseException | None = None

    def begin(self) -> bool:
        """Come to where no transaction is open yet; False: the job is over."""
        if self._before is not None:
            try:
                self._before()
            except BaseException as error:  # noqa: BLE001 - a test raises what it likes, the caller gets it
                self.error = error
        return self.error is None

    def run(self, connection: Connection) -> None:
        """Do the work inside the open transaction."""
        self.error = None  # of a transaction that was rolled back, and is tried again
        self.result = self._work(connection)

    def end(self) -> None:
        """Come to where the transaction is durable."""
        if self.error is None and self._after is not None:
            try:
                self._after(self.result)
            except BaseException as error:  # noqa: BLE001 - as above
                self.error = error


def settle(jobs: Iterable[Job]) -> None:
    """Give every job's caller its answer: one call into each event loop, however many the jobs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, its in by_loop.items():
        call_soon(loop, _answer, its)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Call on a loop of another thread, which may have been closed meanwhile: then nobody listens."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _answer(jobs: list[Job]) -> None:
    for job in jobs:
        # A caller that was cancelled has gone; what it asked for is done all the same.
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
