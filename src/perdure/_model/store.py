"""The port to whatever remembers executions. Each method is one transaction.

The docstrings are the contract: `perdure.testing.conformance` has a test for each sentence, and a
store that passes it works under the engine. The rules that hold everywhere:

- **Durable, then answered.** When a method returns, what it wrote survives the loss of power.
- **Fences.** A worker writes to an execution only under the fence that its claim gave it. The fence
  grows by one with every claim, and whenever ownership is taken away without the owner (take-over,
  giving back); the owner's own suspend, release and completion leave it alone. That is what lets a
  repeated commit tell APPLIED from LOST.
- **A wake is state.** Mail and the move SUSPENDED → PENDING are one transaction. A commit that wants
  to suspend, to be held or to end, and has not seen the newest mail, is answered STAYS; of one that wants to be held
  nothing is written then, because its entries are true of a held execution only.
- **A lost answer is harmless.** Every write may be repeated word for word. Methods raise
  `StoreUnavailableError` when they do not know, or know that nothing was written; the caller repeats.
- **Insert-only.** Journal entries and mail are never changed. A final execution is never changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from perdure._model.clock import Clock
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
        SUSPENDED need no worker. A start whose own incarnation is already there was written by an earlier try:
        STARTED if its worker still owns it under fence 1 or it needed none, else APPLIED; so is one whose life has been
        put aside since: APPLIED. A start that JOINED an execution with another payload has it in the answer's `met`.
        In the order of the port: starts, entries, status, then what the commits do to others (`acts`), in the
        order of the batch: whoever ends in this batch is told of, or tells, as it stands then.

        A start with `entries` and status PENDING is born with a journal: `began_at` is kept, and its first claim makes
        its fence 1 all the same (a fork, an import). A start that `restarts` and meets a FAILED or INTERRUPTED
        execution puts that life aside and begins the next one under the same id, PENDING or SUSPENDED until it is due,
        its number and its fence one higher, its crashes 0: STARTED. It is to be sent with that status; with another
        one it joins. `created_at`, the workflow and `wakes` stay, all else is that of the start.

        Of a commit that is STARTED, GRANTED or STAYS the acts are done, in the order of `Acts`. Repeated they do
        nothing twice, and mail with a sender has the same receipts; an APPLIED commit gives none.

        `acts.starts`: each is born PENDING, or SUSPENDED until it is due; one that exists already is left alone,
        unless it `restarts`. `acts.repeats`: nothing begins, and nothing restarts. `acts.children`: each is born like
        a start, or found; either way this execution is written down as one who waits for it (mail WAITER to the child;
        it wakes nobody, and counts again if it had LEFT). One that has ended already sends its exit at once. A child
        that `restarts` is restarted if it did not succeed, unless this life has been told of its end already: a mailbox
        has one letter of the kind CHILD for each id.
        `acts.leaves`: this execution does not want that child any more (mail LEFT). If it is the child's parent and
        nobody else waits, the child is interrupted, unless it has had an INTERRUPT or its deadline has passed; a held
        one in any case. Else, or if that child is held and not moved by this, mail FREED comes to this execution. It
        is told of the child's end all the same. One that has ended, or for which it does not wait, is left alone.
        `acts.rejoins` are `children` once more, behind them. Nobody waits whose life is over: who has ended, or has
        another incarnation than when it asked.
        Of the starts among these, each that finds an execution whose payload is another one is in the answer's `met`, with
        that payload: other bytes, also than those of every life that has gone before. A child that is `strict` does not
        join such an execution; mail PAYLOAD comes to this one instead, with that payload and the name `payload_name`.
        `acts.compares`: such mail in any case, where there is an execution of that id and where there is none, which
        then says the payload that was asked with; nobody joins or begins anything.
        `acts.mail` is delivered as by `deliver`, `acts.resumes` are resumed as by `resume`.

        An execution that ends sends CHILD to everyone who waits for it; one that is held sends FREED to those who have
        left. `acts.next`: this life is put aside, as one that has SUCCEEDED without an exit, and the next one stands
        in its place, PENDING, its number and its fence one higher, its crashes 0. Who waits for the execution goes over
        to it, and so do `acts.mail` to itself (where a letter of that kind and name lies there already, that letter)
        and all letters above `seen` of the kinds MESSAGE, DEFERRED and INTERRUPT, but not of a deadline, which the next
        life has for itself; each keeps its number. Key, parent, priority, attributes and `created_at` stay; what was
        published does not.

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

    async def load(self, wanted: Sequence[tuple[bytes, int, int]], /) -> list[History]:
        """Read (incarnation, after seq, after wake): the entries behind that seq, the mail behind that wake, in order.

        WAITER and LEFT are the store's own and are not among them. A seq or a wake of 0 is in front of everything.
        """
        ...

    async def deliver(self, mail: Sequence[Mail], /) -> list[Receipt]:
        """Store mail, the first of each (execution, kind, name), and wake whom it reaches.

        A SUSPENDED execution becomes PENDING, unless it is held, or delayed and not due yet: then the mail is kept and
        waits.
        A RUNNING one shows in `mail_for` of its owner. Mail with a sender that meets its own is STORED, also where the
        execution has ended since, or begun its next life; nothing is stored twice. Mail for another incarnation is
        OUTDATED, unless the present life goes on with an earlier one's journal (its start had a seed: a rewind) and that
        has the TOKEN entry of the mail's name whose exit is the mail's `token`: then it is for the present life.

        INTERRUPT: a life that never began ends at once with the mail's exit, INTERRUPTED if that is `INTERRUPTED`,
        else FAILED; who waits for it is told. A held one becomes PENDING with it, its crashes forgiven; if it is held
        with FAILURE or DEFECT, the letter's exit is that cause instead of the mail's. Held with COMPENSATION it stays:
        the letter only waits. A second one is IGNORED, and moves nobody but a held execution: if the journal of that has
        an INTERRUPT for each that its mailbox has, it is stored under its `hold_name`; else what lies there is enough.
        """
        ...

    async def interrupt_unsafe(self, execution_id: ExecutionId, exit: bytes, /) -> Receipt:
        """End an execution as INTERRUPTED with this exit, whatever it does: the fence grows, its owner's writes are LOST.

        Who waits for it is told. FINISHED or UNKNOWN: nothing was done.
        """
        ...

    async def expire(self, exit: bytes, limit: int, /) -> int:
        """Deliver INTERRUPT with this exit to up to `limit` executions whose deadline has passed, once each.

        The letter's name is DEADLINE_NAME, and its instant the deadline, so that what came before it is fed first (R47).
        Never before the deadline; the longest passed first. It acts as an INTERRUPT does, and is not the same: whoever
        has had an interrupt has this one too.

        Returns:
            How many deadlines have been seen to.
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
        """The earliest `wake_at` of any SUSPENDED execution that is not held, or deadline of one that has not ended."""
        ...

    async def resume(self, execution_id: ExecutionId, /, *, skip: bool = False) -> Record | None:
        """Make a held execution PENDING; every other is left as it is. None: there is no such execution.

        With `skip`, one that is held by a compensation gets mail SKIP in the same transaction, under its `hold_name`.

        Returns:
            The execution as it stood before.
        """
        ...

    async def renew(
        self, before: bytes, wakes: int, start: Start, entries: Sequence[Entry], letters: Sequence[Letter], /
    ) -> bool:
        """Put a finished or held life aside, and begin the next one with this journal and mailbox (R37: rewind).

        `before` is the incarnation that it must still have, and `wakes` how far its mail must still go: what has come to
        a held one since was acknowledged, and would be in neither life. The number and the fence grow by one, `began_at` is the
        start's, its status PENDING, its crashes 0; payload, version, seed and deadline are the start's. Key, parent,
        priority, attributes and `created_at` stay. Who waits for a held one goes over to the next life; who waited for
        a finished one has been told. The letters keep their numbers, and `wakes` never goes back.

        Returns:
            False: the execution is another one by now, or is neither finished nor held, or has had mail since; nothing
            was done. A repeat that meets its own start gives True.
        """
        ...

    async def lives(self, execution_id: ExecutionId, /) -> list[Life]:
        """The earlier lives of an execution that have been put aside, in order."""
        ...

    async def published(self, execution_id: ExecutionId, /) -> dict[str, bytes]:
        """What the body of the present life has shown, by name."""
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

    async def tail(self, incarnation: bytes, limit: int, /) -> History:
        """The newest `limit` entries and the newest `limit` letters of an incarnation, both in order.

        WAITER and LEFT are not among the letters.
        """
        ...

    # Forgetting --------------------------------------------------------------------------------

    async def purge(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove up to `limit` executions of a workflow (None: of any) that ended at `before` or earlier; oldest first.

        With each of them goes everything that is theirs: journal, mailbox, heartbeats, what it has published, its
        earlier lives. One that has not ended is never touched. From then on it is unknown: mail for it is UNKNOWN
        and not stored, a start of its id begins anew. Fewer than `limit` may be removed although more are left; 0
        means that none is.

        Returns:
            How many were removed.
        """
        ...

    async def purge_lives(self, workflow: str | None, before: Instant, limit: int, /) -> int:
        """Remove up to `limit` earlier lives that were put aside at `before` or earlier; the present one stays.

        Of executions of the workflow (None: of any), whether they have ended or not: an endless loop never does. Fewer
        than `limit` may be removed although more are left; 0 means that none is.

        Returns:
            How many were removed.
        """
        ...

    async def forget_workers(self, before: Instant, /) -> int:
        """Forget workers that were retired at `before` or earlier; how many. Commits of theirs stay LOST."""
        ...
