"""What an attempt shows of its execution while it runs: attributes, and published values (R42).

Each goes through the committer, as a commit of its own that has no entries, under the fence of the execution. So
the store writes it only as long as the execution is in this life and this worker's, decided in the transaction that
writes it; in one order with what the body shows; and before the exit of the attempt, whose commit is submitted later.
A method of the port would have its own fence check, and none of that order.
"""

import asyncio
import logging
from typing import Final, Protocol

from perdure._engine.committer import Committer
from perdure._model.records import Acts, Answer, Commit, ExecutionId, Verdict
from perdure._model.status import Status
from perdure.errors import AttemptCancelled, StoreRefusedError

logger = logging.getLogger("perdure")

_OVER: Final = "This execution is not this attempt's any more; what it shows was not written."


class Shower(Protocol):
    """The execution that an attempt is of, and what its commits carry."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def incarnation(self) -> bytes: ...

    @property
    def fence(self) -> int: ...


class Shown:
    """One thing on its way into the store; the `Author` of its commit."""

    __slots__ = ("_of", "_written")

    def __init__(self, of: Shower, written: asyncio.Future[None]) -> None:
        self._of = of
        self._written = written

    def answered(self, answer: Answer, /) -> None:
        """It is written; or the execution has been taken over, has ended, or lives its next life."""
        if self._written.done():
            return
        if answer.verdict is Verdict.GRANTED:
            self._written.set_result(None)
        else:
            self._written.set_exception(AttemptCancelled(_OVER))

    def refused(self, error: StoreRefusedError, /) -> None:
        """The store will not take it."""
        logger.error("what an activity of %s has shown is not written: %s", self._of.execution_id, error)
        if not self._written.done():
            self._written.set_exception(error)


class Showing:
    """All that one attempt shows."""

    __slots__ = ("_committer", "_of", "_on_its_way", "_unheard")

    def __init__(self, of: Shower, committer: Committer) -> None:
        self._of = of
        self._committer = committer
        # What is not answered yet.
        self._on_its_way: set[asyncio.Future[None]] = set()
        # What was shown without waiting, and is not known to be written.
        self._unheard: set[asyncio.Future[None]] = set()

    def begin(self, acts: Acts) -> None:
        """Have it written; `settled` tells what has become of it."""
        written = self.submit(acts)
        self._unheard.add(written)
        written.add_done_callback(self._hear)

    def submit(self, acts: Acts) -> asyncio.Future[None]:
        """Have it written; what it gives ends with that, or with an AttemptCancelled."""
        of = self._of
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_its_way.add(written)
        written.add_done_callback(self._on_its_way.discard)
        # The mail it has seen is the runner's affair: a commit that keeps its execution RUNNING leaves nothing.
        commit = Commit(of.execution_id, of.incarnation, of.fence, 0, Status.RUNNING, acts=acts)
        self._committer.submit(commit, Shown(of, written))
        return written

    async def settled(self) -> None:
        """Wait until what was begun is written.

        Raises:
            AttemptCancelled: Some of it was not, and never will be.
            StoreRefusedError: The store does not take some of it.
        """
        while self._unheard:
            shown = next(iter(self._unheard))
            # Not awaited itself: whoever cancels this wait takes nothing back.
            await asyncio.wait([shown])
            self._unheard.discard(shown)
            shown.result()

    def give_up(self) -> None:
        """The attempt is over before its function is: nobody waits for the store's answer any more."""
        for written in list(self._on_its_way):
            written.set_exception(AttemptCancelled(_OVER))
            written.exception()  # a thread that waits for it may have been left to itself

    def _hear(self, written: asyncio.Future[None]) -> None:
        if written.cancelled() or written.exception() is None:
            self._unheard.discard(written)
