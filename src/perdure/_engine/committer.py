"""The committer: everything that waits to be written becomes one transaction, then the next.

All executions of an engine share it. It takes whatever is waiting, has the store write it as one
batch, tells everybody, and takes what has come in meanwhile. There is no timer and no artificial
delay: at low load a batch is one commit, at high load hundreds.

A batch whose outcome is not known, or known to be nothing, is sent again unchanged until it is
answered; fences make the repeat harmless. A batch that the store refuses for its data is halved
until the guilty commit is alone; only that one fails.
"""

import asyncio
import logging
from typing import Final, NamedTuple, Protocol

from perdure import _failpoints
from perdure._model.records import Answer, Commit, ExecutionId, Verdict, WorkerId
from perdure._model.store import Store
from perdure.errors import StoreError, StoreRefusedError

logger = logging.getLogger("perdure")

# Beyond this many commits a transaction gets only longer, not cheaper, and its latency is
# everybody's latency.
LARGEST_BATCH = 1_000

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


# Looked up in the class, a member of an enumeration costs as much as a call.
_BUSY: Final = Verdict.BUSY


class Author(Protocol):
    """Who has submitted a commit: it is told, on the loop, when the commit's fate is durable."""

    def answered(self, answer: Answer, /) -> None: ...

    def refused(self, error: StoreRefusedError, /) -> None:
        """The store will not take its data; nothing of it is written."""
        ...


class Submission(NamedTuple):
    """A commit on its way, and who wants to hear of it."""

    commit: Commit
    author: Author


class Committer:
    """Writes the commits of one engine, a batch at a time."""

    def __init__(self, store: Store, worker_id: WorkerId) -> None:
        self._store = store
        # Another one when others have taken this worker for dead.
        self.worker_id = worker_id
        # By execution, each with its commits in their order; never an empty list.
        self._waiting: dict[ExecutionId, list[Submission]] = {}
        self._filled = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        # Nothing is written any more; by itself, since it has met a bug.
        self._ended = False
        self._failed = False

    def submit(self, commit: Commit, author: Author) -> None:
        """Have a commit written; its author is told what has become of it."""
        self._waiting.setdefault(commit.execution_id, []).append(Submission(commit, author))
        if len(self._waiting) == 1:
            self._filled.set()
            if not self._ended:
                self._settled.clear()

    def last_waiting(self, execution_id: ExecutionId) -> Submission | None:
        """What an execution has submitted last and is not being written yet: its author may still add to the commit."""
        waiting = self._waiting.get(execution_id)
        return waiting[-1] if waiting is not None else None

    async def settled(self) -> None:
        """Wait until nothing is waiting and nothing is being written."""
        await self._settled.wait()

    @property
    def ended(self) -> bool:
        """Whether it has been cancelled: nothing is written any more."""
        return self._ended

    @property
    def failed(self) -> bool:
        """Whether it has ended by itself, which is a bug."""
        return self._failed

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting and nothing is being written."""
        return self._settled.is_set()

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._filled.wait()
                batch = self._take()
                await self._write(batch)
                if not self._waiting:
                    self._filled.clear()
                    self._settled.set()
        except Exception:
            self._failed = True
            raise
        finally:
            # Cancelled, as at the end, or with every other task of the loop: whoever waits for it would wait in vain.
            self._ended = True
            self._settled.set()

    def _take(self) -> list[Submission]:
        """The next batch: at most one commit of an execution."""
        batch: list[Submission] = []
        left: dict[ExecutionId, list[Submission]] = {}
        again: dict[ExecutionId, list[Submission]] = {}
        for execution_id, waiting in self._waiting.items():
            if len(batch) >= LARGEST_BATCH:
                left[execution_id] = waiting
                continue
            batch.append(waiting.pop(0))
            if waiting:
                again[execution_id] = waiting
        # Whoever has not had a turn yet comes before those who have.
        self._waiting = left | again
        return batch

    async def _write(self, batch: list[Submission]) -> None:
        try:
            answers = await self._answers([submission.commit for submission in batch])
        except StoreRefusedError as error:
            if len(batch) == 1:
                batch[0].author.refused(error)
                return
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return
        _failpoints.reach("acknowledge.before")
        for submission, answer in zip(batch, answers, strict=True):
            if answer.verdict is _BUSY:
                # Before whatever its execution has submitted meanwhile: what it shows has an order.
                self._waiting.setdefault(submission.commit.execution_id, []).insert(0, submission)
            else:
                self._tell(submission, answer)
        _failpoints.reach("acknowledge.after")

    def _tell(self, submission: Submission, answer: Answer) -> None:
        try:
            submission.author.answered(answer)
        except Exception:
            # A background service: one execution's trouble must not stop everybody's commits.
            logger.exception("an answer could not be taken by %s", submission.commit.execution_id)

    async def _answers(self, commits: list[Commit]) -> list[Answer]:
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await self._store.commit(self.worker_id, commits)
            except StoreRefusedError:
                raise
            except (ValueError, TypeError, OverflowError) as error:
                # A value that has come past every check and cannot be bound. It is a bug, but one commit's: whoever has
                # submitted it is told, and nobody else's commits wait for ever behind it.
                raise StoreRefusedError(f"The store cannot write its data ({error!r}); nothing was written.") from error
            except StoreError as error:
                # Whatever is wrong with it: nothing that was promised is lost as long as it is sent again.
                # Said once: an outage of an hour is one event, not 1,800.
                if pause == FIRST_PAUSE_S:
                    logger.error(  # noqa: TRY400 - an outage is no bug of ours, and its traceback tells nobody anything
                        "the store does not answer; %d commits wait and are sent again: %s", len(commits), error
                    )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
