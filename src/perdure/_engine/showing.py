"""What an attempt shows of its execution while it runs: attributes, and published values (R42).

It goes through the committer, in a commit that has no entries, under the fence of the execution. So the store writes
it only as long as the execution is in this life and this worker's, decided in the transaction that writes it; in one
order with what the body shows; and before the exit of the attempt, whose commit is submitted later. A method of the
port would have its own fence check, and none of that order.

What is shown while such a commit still waits, with nothing of its execution behind it, is added to that commit. So an
activity that shows something in every round of a loop costs a commit for each batch, and not for each round.
"""

import asyncio
import logging
from typing import Final, Protocol

from perdure._engine.committer import Committer
from perdure._model.records import Acts, Answer, Commit, ExecutionId, Verdict
from perdure._model.status import Status
from perdure.errors import AttemptCancelled, StoreRefusedError

logger = logging.getLogger("perdure")

# Neither says that nothing was written: the store may have done it, and its answer may have been lost.
_NOT_ITS: Final = "This execution is not this attempt's any more; what it shows is not taken."
_OVER: Final = "This attempt is over; whether what it has shown last is written, it does not hear any more."


class Shower(Protocol):
    """The execution that an attempt is of, and what its commits carry."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def incarnation(self) -> bytes: ...

    @property
    def fence(self) -> int: ...


class Shown:
    """What one commit shows; the `Author` of it."""

    __slots__ = ("_acts", "commit", "written")

    def __init__(self, of: Shower) -> None:
        self._acts = Acts()
        # The mail it has seen is the runner's affair: a commit that keeps its execution RUNNING leaves nothing.
        self.commit: Final = Commit(of.execution_id, of.incarnation, of.fence, 0, Status.RUNNING, acts=self._acts)
        # Ends with the store's answer. Only that sets it: an attempt that is over stops waiting for it.
        self.written: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    def is_of(self, of: Shower) -> bool:
        """Whether it is shown of that execution in the life and under the fence that it has now."""
        mine = self.commit
        return (mine.execution_id, mine.incarnation, mine.fence) == (of.execution_id, of.incarnation, of.fence)

    def add(self, acts: Acts) -> None:
        """Show this as well, as long as nobody has taken the commit to write it; the last word wins."""
        self._acts.attributes.update(acts.attributes)
        self._acts.published.update(acts.published)

    def answered(self, answer: Answer, /) -> None:
        """It is written; or the execution has been taken over, has ended, or lives its next life."""
        if answer.verdict is Verdict.GRANTED:
            self.written.set_result(None)
        else:
            self._fail(AttemptCancelled(_NOT_ITS))

    def refused(self, error: StoreRefusedError, /) -> None:
        """The store will not take it."""
        logger.error("what an activity of %s has shown is not written: %s", self.commit.execution_id, error)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.written.set_exception(error)
        self.written.exception()  # heard: an attempt that asks its engine for nothing more never looks


class Showing:
    """All that one attempt shows."""

    __slots__ = ("_committer", "_of", "_over", "_unheard")

    def __init__(self, of: Shower, committer: Committer) -> None:
        self._of = of
        self._committer = committer
        # Done once the attempt is over before its function is: nobody waits for the store any more.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What was shown without waiting, and is not known to be written.
        self._unheard: set[asyncio.Future[None]] = set()

    def begin(self, acts: Acts) -> None:
        """Have it written; `settled` tells what has become of it."""
        written = self._submit(acts)
        if written not in self._unheard:
            self._unheard.add(written)
            written.add_done_callback(self._hear)

    async def show(self, acts: Acts) -> None:
        """Have it written, and wait until it is.

        Raises:
            AttemptCancelled: The attempt is over, or the execution is not this attempt's any more.
            StoreRefusedError: The store does not take it.
        """
        written = self._submit(acts)
        await self._answer(written)
        if not written.done():
            raise AttemptCancelled(_OVER)
        written.result()

    async def settled(self) -> None:
        """Wait until what was begun is written; at the end of the attempt no longer, and what is left counts as heard.

        Raises:
            AttemptCancelled: The execution is not this attempt's any more.
            StoreRefusedError: The store does not take some of it.
        """
        while self._unheard:
            written = next(iter(self._unheard))
            await self._answer(written)
            self._unheard.discard(written)
            if written.done():
                written.result()

    def give_up(self) -> None:
        """The attempt is over before its function is: nobody waits for the store's answer any more."""
        if not self._over.done():
            self._over.set_result(None)
        # What its clean-up asks of the engine is done without that answer.
        self._unheard = {written for written in self._unheard if written.done()}

    def _submit(self, acts: Acts) -> asyncio.Future[None]:
        last = self._committer.last_waiting(self._of.execution_id)
        if last is not None and isinstance(last.author, Shown) and last.author.is_of(self._of):
            shown = last.author
        else:
            # Also where something else of the execution waits behind what was shown: that comes first (R42).
            shown = Shown(self._of)
            self._committer.submit(shown.commit, shown)
        shown.add(acts)
        return shown.written

    async def _answer(self, written: asyncio.Future[None]) -> None:
        # Neither is awaited itself: whoever cancels this wait takes nothing back.
        await asyncio.wait([written, self._over], return_when=asyncio.FIRST_COMPLETED)

    def _hear(self, written: asyncio.Future[None]) -> None:
        if written.exception() is None:
            self._unheard.discard(written)
