"""The port to whatever remembers executions. Each method is one transaction.

The docstrings are the contract: `perdure.testing.conformance` has a test for each sentence, and a
store that passes it works under the engine. The rules that hold everywhere:

- **Durable, then answered.** When a method returns, what it wrote survives the loss of power.
- **Fences.** A worker writes to an execution only under the fence that its claim gave it. The fence
  grows by one with every claim, and whenever ownership is taken away without the owner (take-over,
  giving back); the owner's own suspend, release and completion leave it alone. That is what lets a
  repeated commit tell APPLIED from LOST.
- **A wake is state.** Mail and the move SUSPENDED → PENDING are one transaction. A commit that wants
  to suspend or to end, and has not seen the newest mail, is answered STAYS.
- **A lost answer is harmless.** Every write may be repeated word for word. Methods raise
  `StoreUnavailableError` when they do not know, or know that nothing was written; the caller repeats.
- **Insert-only.** Journal entries and mail are never changed. A final execution is never changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from perdure._model.clock import Clock
from perdure._model.records import (
    Answer,
    Commit,
    ExecutionId,
    History,
    Mail,
    Query,
    Receipt,
    Record,
    Worker,
    WorkerId,
)
from perdure._values.instant import Instant


class Store(Protocol):
    """Remembers executions, their journals and mail, and who owns what."""

    @property
    def clock(self) -> Clock:
        """The clock whose instants this store writes and compares with."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may use the same database; False for a store in memory."""
        ...

    async def open(self) -> None:
        """Connect, and bring the schema to this version; several may do so at once.

        Raises:
            StoreFileError: What is there is not a perdure database, or cannot be written.
            SchemaVersionError: A newer version of the library has written it.
            StoreUnavailableError: It cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection and thread. Closing twice is harmless."""
        ...

    def listen(self, hint: Callable[[], None], /) -> None:
        """Call `hint` on the event loop when somebody else may have written.

        A hint may be late by a polling interval, or spurious, and several writes may be one hint.
        """
        ...

    # Workers -----------------------------------------------------------------------------------

    async def register(self, worker: Worker, /) -> None:
        """Make a worker known and alive. It may own executions from now on."""
        ...

    async def alive(self, worker_id: WorkerId, /) -> bool:
        """Say that a worker still lives. False: it has been retired and must drop what it has."""
        ...

    async def retire(self, worker_id: WorkerId, /) -> None:
        """End a worker that leaves by itself. What it still owns becomes PENDING, its crashes forgiven (R41)."""
        ...

    async def take_over(self, worker_id: WorkerId, /) -> int:
        """Retire every other worker that is dead; what it owned becomes PENDING, one crash counted each.

        A worker that lives is never retired. The fence of each freed execution grows.

        Returns:
            How many executions became PENDING.
        """
        ...

    async def owned(self, worker_id: WorkerId, /) -> dict[ExecutionId, int]:
        """What the store says that a worker owns, each with its fence."""
        ...

    async def give_back(self, worker_id: WorkerId, fences: Mapping[ExecutionId, int], /) -> int:
        """Make owned executions PENDING whose owner does not know them; no crash is counted.

        Only those that still have the given fence and owner are touched. The fence grows.
        """
        ...

    # Executions --------------------------------------------------------------------------------

    async def commit(self, worker_id: WorkerId, batch: Sequence[Commit], /) -> list[Answer]:
        """Write a batch in one transaction, and answer each commit in its place.

        A batch holds at most one commit of an execution. Commits do not disturb each other: one
        that is LOST or JOINED leaves the rest as it is. A retired worker gets LOST for every commit
        that is owned or would be, and nothing of those is written; starts that are born PENDING or
        SUSPENDED need no worker. An execution that a body starts (`starts`) and that exists already is left
        alone. A start whose own incarnation is already there was written by an earlier try: STARTED
        if its worker still owns it under fence 1 or it needed none, else APPLIED.
        In the order of the port: starts, entries, then status.

        A finished commit clears `wake_at`, sets `finished_at`, and no owner is left. A commit with
        `calm` sets `crashes` to 0. Releasing to PENDING makes it ready at once.

        Raises:
            StoreRefusedError: The database refused the data of some commit; nothing was written.
            StoreUnavailableError: Nothing was written, or it is not known; repeat the batch.
        """
        ...

    async def claim(self, worker_id: WorkerId, workflows: Sequence[str], limit: int, /) -> list[Record]:
        """Take up to `limit` PENDING executions of these workflows: highest priority first, oldest first.

        Among equals, those that have begun before come first, three to one, so that neither new
        work nor old starves. Each becomes RUNNING, owned, its fence one higher; the first claim of
        all sets `began_at`. No execution is given to two claims. A retired worker gets nothing.
        """
        ...

    async def load(self, wanted: Sequence[tuple[bytes, int]], /) -> list[History]:
        """Read (incarnation, after seq): the entries behind that seq, and all mail, both in order."""
        ...

    async def deliver(self, mail: Sequence[Mail], /) -> list[Receipt]:
        """Store mail, the first of each (execution, kind, name), and wake whom it reaches.

        A SUSPENDED execution becomes PENDING, unless it is held: then the mail is kept and waits.
        A RUNNING one shows in `mail_for` of its owner.
        """
        ...

    async def mail_for(self, worker_id: WorkerId, /) -> dict[ExecutionId, int]:
        """Which executions of a worker have had mail since last asked, each with how far it goes."""
        ...

    async def promote(self, limit: int, /) -> int:
        """Make up to `limit` SUSPENDED executions PENDING whose wake is due; the longest due first.

        An execution is never promoted before its `wake_at`, and a held one never.
        """
        ...

    async def next_wake(self) -> Instant | None:
        """The earliest `wake_at` of any SUSPENDED execution that is not held."""
        ...

    async def resume(self, execution_id: ExecutionId, /) -> Record | None:
        """Make a held execution PENDING; every other is left as it is. None: there is no such execution.

        Returns:
            The execution as it stood before.
        """
        ...

    async def save_heartbeat(self, incarnation: bytes, name: str, occurrence: int, details: bytes, /) -> None:
        """Keep what an attempt says of its progress; the last word wins. No entry, no fence."""
        ...

    async def heartbeat(self, incarnation: bytes, name: str, occurrence: int, /) -> bytes | None:
        """What the last attempt of this step said of its progress."""
        ...

    # Looking -----------------------------------------------------------------------------------

    async def read(self, execution_ids: Sequence[ExecutionId], /) -> list[Record]:
        """The executions of these ids that exist, in any order."""
        ...

    async def executions(self, query: Query, /) -> list[Record]:
        """One page of a listing: newest first."""
        ...

    async def workers(self) -> list[Worker]:
        """Every worker that has not been forgotten, retired ones too."""
        ...
