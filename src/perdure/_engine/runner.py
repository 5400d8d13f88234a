"""A runner: one execution that this worker owns, from its claim or birth to its suspension or end.

The life of a step goes round here: what has happened lies in the inbox; a turn feeds it to the
kernel; the outcome goes to the committer as one commit; when that is durable, and not before, what
the turn asked for is given out. While a commit is on its way no other turn is taken, so a kernel is
ahead of the journal by one commit at most.

A runner may be without its kernel (evicted, or `cache=0`): then the next event has it rebuilt from
the journal first, and running attempts find their calls again by what was asked.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from perdure import _failpoints
from perdure._definitions import ambient
from perdure._definitions.activity import ActivityCall
from perdure._definitions.host import Call, Engine
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.attempts import Attempt
from perdure._engine.committer import Committer
from perdure._engine.inbox import Inbox
from perdure._engine.mismatch import heed_mismatch
from perdure._engine.outgoing import Outgoing
from perdure._engine.standing import Standing, crashes_error, judge_of, standing_held, standing_of
from perdure._kernel.event import Event, Origin
from perdure._kernel.kernel import Kernel
from perdure._model.clock import Alarm, Clock
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, Answer, Commit, ExecutionId, History, Letter, Record, Start, Verdict
from perdure._model.status import Held, Status, is_final
from perdure._values.instant import Instant
from perdure.errors import StoreError, StoreRefusedError, StoreUnavailableError

logger = logging.getLogger("perdure")

# Looked up in the class, a member of an enumeration costs as much as a call.
_RUNNING: Final = Status.RUNNING
_GRANTED: Final = Verdict.GRANTED

Implementation = WorkflowImplementation[..., Any]


class Keeper(Protocol):
    """What a runner needs of the engine around it."""

    @property
    def clock(self) -> Clock: ...

    @property
    def committer(self) -> Committer: ...

    @property
    def engine(self) -> Engine:
        """The engine that bodies and activities find around them."""
        ...

    @property
    def payload_limit(self) -> int:
        """The largest encoded result in bytes."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether nothing new is given out any more."""
        ...

    @property
    def grace_is_over(self) -> bool:
        """Whether what still ran when the engine closed has been cut off."""
        ...

    def schedule(self, runner: "Runner", /) -> None:
        """Let it take a turn soon, from a plain callback of the loop."""
        ...

    def reload(self, runner: "Runner", /) -> None:
        """Rebuild its kernel from the journal, then let it take its turn."""
        ...

    def fetch(self, runner: "Runner", /) -> None:
        """Read the mail that it has not seen, then let it take its turn."""
        ...

    def stirred(self) -> None:
        """Somebody has been given something to do by a commit of this worker."""
        ...

    def resting(self, runner: "Runner", /) -> None:
        """It waits for something; its kernel may be evicted from now on, or must be."""
        ...

    def begin_attempt(self, call: ActivityCall, runner: "Runner", /) -> Attempt:
        """Start an attempt of a call."""
        ...

    def calmed(self, runner: "Runner", /) -> None:
        """It has got on since its claim: the crashes that were counted against it are forgiven (R41)."""
        ...

    def watch(self, deadline: Instant, /) -> None:
        """An execution has to be interrupted then, if it has not ended."""
        ...

    def stored(self, start: Start, /) -> None:
        """An execution is in the store, for whoever has room; or for its time, if it is delayed."""
        ...

    def left(self, runner: "Runner", commit: Commit | None, /) -> None:
        """It is no longer this worker's: suspended, held, ended, released; None: lost, or never born."""
        ...


class Runner:
    """One execution in this worker's hands. It is the `Owner` of its attempts and the `Author` of its commits."""

    __slots__ = (
        "_alarm", "_began", "_commit", "_crashes", "_keeper", "_origin", "_outgoing", "_times_called", "born", "execution_id",
        "fence", "gone", "implementation", "inbox", "incarnation", "kernel", "payload", "reloading", "running", "scheduled",
        "size",
    )  # fmt: skip

    def __init__(
        self, keeper: Keeper, implementation: Implementation, origin: Origin, payload: bytes, fence: int, *, crashes: int = 0
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self.implementation = implementation
        # Whose body its kernels run. `unborn` is true until anybody has run its first turn (R8a).
        self._origin = origin
        self.execution_id = origin.execution_id
        self.incarnation = origin.incarnation
        self.payload = payload
        # What this worker's writes must carry. Changed by a new claim only.
        self.fence = fence
        # Whether its first turn has been run in this worker's hands.
        self._began = False
        # Take-overs counted against it; forgiven with the first entry it commits (R41).
        self._crashes = crashes
        # None while it is evicted.
        self.kernel: Kernel | None = None
        # What an evicted kernel knew of its calls, for the attempts that go on without it.
        self._times_called: Callable[[str], int] | None = None
        # How many bytes of journal a replay would have to read: what the cache counts.
        self.size = len(payload)
        # Attempts that run, by step. An entry leaves when its attempt is over.
        self.running: dict[tuple[str, int], Attempt] = {}
        # What it is to be fed, and what its turns have asked for.
        self.inbox = Inbox()
        self._outgoing = Outgoing(keeper, self.running)
        # The commit that is on its way; no turn is taken meanwhile.
        self._commit: Commit | None = None
        self._alarm: Alarm | None = None
        # Whether the engine has it in its queue of turns.
        self.scheduled = False
        # Whether the engine is reading its journal, to rebuild the kernel.
        self.reloading = False
        # It is no longer this worker's.
        self.gone = False
        # Done with the store's answer to its birth: STARTED or JOINED. None for a claimed one.
        self.born: asyncio.Future[Answer] | None = None

    @classmethod
    def born_here(cls, keeper: Keeper, implementation: Implementation, start: Start) -> "Runner":
        """The runner of an execution that begins in this worker's hands."""
        origin = Origin(
            start.execution_id,
            start.number,
            start.workflow,
            start.incarnation,
            keeper.clock.now(),
            unborn=True,
            incarnation=start.incarnation,
            priority=start.priority,
            deadline=start.deadline,
        )
        runner = cls(keeper, implementation, origin, start.payload, 1)
        runner.born = asyncio.get_running_loop().create_future()
        return runner

    @classmethod
    def claimed(cls, keeper: Keeper, implementation: Implementation, record: Record) -> "Runner":
        """The runner of an execution that has just been claimed."""
        assert record.began_at is not None
        origin = Origin(
            record.execution_id,
            record.number,
            record.workflow,
            record.seed or record.incarnation,
            record.began_at,
            # The fence goes on over all lives; that of a later one is told by this claim having begun it.
            unborn=record.fence == 1 or (record.number > 1 and record.began_at == record.changed_at),
            incarnation=record.incarnation,
            priority=record.priority,
            deadline=record.deadline,
        )
        runner = cls(keeper, implementation, origin, record.payload, record.fence, crashes=record.crashes)
        # Its mailbox is read after this claim, so all up to here is read, or was an earlier life's: the numbers go on, the
        # letters do not. Counted as unseen, they would have every suspension refused.
        runner.inbox.seen = record.wakes
        # Whoever has claimed it is about to revive it; mail that comes before must not have it revived twice.
        runner.reloading = True
        return runner

    @property
    def life(self) -> int:
        """The number of the incarnation."""
        return self._origin.life

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self.implementation.name

    @property
    def suspends_on_failure(self) -> bool:
        """Whether an activity that has failed for good holds the execution (R36)."""
        return self.implementation.suspends_on_failure

    @property
    def quiet(self) -> bool:
        """Whether nothing is in the inbox, nothing is being committed, and nothing is kept back."""
        return self._commit is None and not self.inbox and not self.inbox.unread

    @property
    def is_settled(self) -> bool:
        """Whether the store has answered all that was asked of it: it is this worker's, or nobody knows better."""
        return self._commit is None and (self.born is None or self.born.done()) and not self.gone and not self.scheduled

    def called_more_than_once(self, name: str, /) -> bool:
        """Whether the body has called that activity more than once so far."""
        times_called = self._times_called if self.kernel is None else self.kernel.times_called
        return times_called is not None and times_called(name) > 1

    # Beginnings ----------------------------------------------------------------------------------

    def bear(self, start: Start) -> None:
        """Run the first turn of a new execution, and commit its birth with it."""
        if self.gone:
            # Others have taken this worker for dead before this turn came: the start is written nowhere.
            if self.born is not None and not self.born.done():
                self.born.set_result(Answer(Verdict.LOST))
            return
        self._began = True
        start.began_at = self._origin.began_at
        if start.deadline is not None:
            self._keeper.watch(start.deadline)
        self.kernel = self._new_kernel(self._origin)
        self.kernel.begin(self._make_body)
        self._conclude(start)

    def revive(self, history: History) -> None:
        """Replay the journal, then go on."""
        # Not before: until the kernel stands, no turn may have the journal read once more.
        self.reloading = self.inbox.unread = False
        if self.gone:
            return
        _failpoints.reach("load.after")
        self._replay(history.entries)
        self.inbox.fill(history.letters)
        self.turn()
        # What came while the journal was being read; nobody says it a second time.
        if self.inbox.has_unseen and not self.gone:
            self._keeper.fetch(self)

    def awake(self, fence: int, wakes: int) -> None:
        """Go on with the kernel that was parked: nobody has owned the execution in between."""
        self.fence = fence
        self.gone = self.inbox.unread = False
        self.born = None
        if wakes > self.inbox.seen:
            self._keeper.fetch(self)
        else:
            self.turn()

    def told(self, wakes: int) -> None:
        """Mail has come, up to this number."""
        if self.inbox.hear(wakes) and not self.gone:
            self._keeper.fetch(self)

    def take_mail(self, letters: list[Letter]) -> None:
        """Mail has been read that it has not seen; it is fed in the next turn."""
        self.inbox.put(letters)
        if self._commit is None:
            self._keeper.schedule(self)

    def _replay(self, entries: list[Entry]) -> None:
        unborn = self._origin.unborn and not self._began and not entries
        self._began = True
        origin = self._origin._replace(unborn=unborn)
        self.kernel = kernel = self._new_kernel(origin, entries)
        kernel.begin(self._make_body, entries)
        self.size = len(self.payload) + _size_of(entries)
        if origin.life > 1 or origin.seed != origin.incarnation:
            kernel.ask_children_again()
        self._outgoing.recall(kernel)

    def _new_kernel(self, origin: Origin, entries: Sequence[Entry] = ()) -> Kernel:
        limit = self._keeper.payload_limit
        return Kernel(origin, entries, judge=judge_of(self.implementation, limit), payload_limit=limit)

    def _make_body(self) -> Any:
        # In the body's own context, which holds nothing of its starter: the engine that runs it is the nearest (R14).
        ambient.engine.set(self._keeper.engine)
        return self.implementation.make_body(self.payload, self.execution_id)

    def convict(self, crashes: int) -> None:
        """Hold it without running it: it has ended its worker too often (R41)."""
        self._hold(Held.CRASHES, crashes_error(self.workflow, crashes))

    def hold_unreadable(self, error: StoreError) -> None:
        """Hold it without running it: nobody can read its journal (R40)."""
        self.reloading = False
        if self._commit is None and not self.gone:
            self._hold(Held.UNREADABLE, error)

    def fail_turn(self, error: Exception) -> None:
        """A turn has raised what no turn may raise: hold the execution with it."""
        if self._commit is None and not self.gone:
            self._hold(Held.DEFECT, error)

    # Turns ---------------------------------------------------------------------------------------

    def arrive(self, event: Event) -> None:
        """Something has happened; it is fed in the next turn."""
        self.inbox.add(event)
        if self._commit is None:
            self._keeper.schedule(self)

    def turn(self) -> None:
        """Feed what has come in, one event at a time, and hand the outcome to the committer."""
        if self._commit is not None or self.gone:
            return
        if self.kernel is None:
            self._keeper.reload(self)
            return
        _failpoints.reach("turn.before")
        self.inbox.feed(self.kernel, self._keeper.clock)
        _failpoints.reach("turn.after")
        self._conclude(None)

    def _conclude(self, start: Start | None) -> None:
        """Turn what the kernel has come to into one commit, and remember what that commit will allow."""
        kernel = self.kernel
        assert kernel is not None
        keeper = self._keeper
        now = keeper.clock.now()
        outgoing = self._outgoing
        outgoing.take_in(kernel, now)
        busy = bool(self.running) or outgoing.pending
        commit = self._commit_of(standing_of(kernel, self.implementation, now=now, busy=busy))
        commit.start = start
        commit.entries, commit.acts = kernel.take_written()
        if commit.entries:
            self.size += _size_of(commit.entries)
            commit.calm, self._crashes = self._crashes > 0, 0
        if outgoing.sending:
            commit.acts = outgoing.add_mail(commit.acts or Acts(), self.incarnation)
        if commit.status is _RUNNING and start is None and not commit.entries and commit.acts is None:
            self._give_out()
            return
        self._submit(commit)

    def _write_unheld(self, held: Commit) -> bool:
        """Write what a hold was to write, without the note that it is held; its answer tells of the mail once more.

        Kept until that has been read, a worker that dies meanwhile would take it along; with the note it would read as
        if somebody had resumed it. False: there was nothing.
        """
        kernel = self.kernel
        assert kernel is not None
        if held.entries and held.entries[-1].kind == Kind.HELD:
            kernel.forget_held()
            held.entries = held.entries[:-1]
        if not held.entries and held.acts is None:
            return False
        commit = Commit(self.execution_id, self.incarnation, self.fence, self.inbox.seen, _RUNNING)
        commit.entries, commit.acts, commit.calm = held.entries, held.acts, held.calm
        self._submit(commit)
        return True

    def _submit(self, commit: Commit) -> None:
        self._commit = commit
        self._keeper.committer.submit(commit, self)

    def _commit_of(self, standing: Standing) -> Commit:
        """A commit that says so, and nothing else yet."""
        if standing.status is _RUNNING:
            return Commit(self.execution_id, self.incarnation, self.fence, self.inbox.seen, _RUNNING)
        return Commit(
            self.execution_id,
            self.incarnation,
            self.fence,
            self.inbox.seen,
            standing.status,
            exit=standing.exit,
            held=standing.held,
            wake_at=standing.wake_at,
            waits=standing.waits,
        )

    def _hold(self, held: Held, error: BaseException) -> None:
        """Hold the execution, whatever was to begin."""
        self._outgoing.forget()
        self.evict()
        self._submit(self._commit_of(standing_held(self.implementation.codec, held, error)))

    # Answers -------------------------------------------------------------------------------------

    def answered(self, answer: Answer, /) -> None:
        """What has become of the commit that was on its way."""
        commit, self._commit = self._commit, None
        assert commit is not None
        if self.born is not None and not self.born.done():
            self.born.set_result(answer)
        if commit.calm and answer.verdict in {Verdict.GRANTED, Verdict.STAYS}:
            self._keeper.calmed(self)
        # Of a hold that meets mail nothing is written; it is sent again, without the hold.
        if commit.acts is not None and not (answer.verdict is Verdict.STAYS and commit.held is not None):
            self._done(commit.acts, answer)
        if answer.verdict is _GRANTED and commit.status is _RUNNING:
            # What becomes of nearly all; the others are told apart one comparison after the other.
            if not self.gone:
                if answer.wakes > self.inbox.seen:
                    self.inbox.unread = True
                    self._keeper.fetch(self)
                self._give_out()
        else:
            self._obey(answer, commit)
        if answer.stirs:
            self._keeper.stirred()

    def _done(self, acts: Acts, answer: Answer) -> None:
        """What the turn did to others is durable, or was for nothing."""
        if answer.verdict in {Verdict.LOST, Verdict.JOINED}:
            return
        # Not only when it rests: its body may run for hours beside what it has started.
        for start in (*acts.starts, *acts.children, *acts.rejoins):
            self._keeper.stored(start)
        for met in answer.met:
            if not met.start.strict:  # of that one its body hears
                heed_mismatch(met.start, met.payload)
        if answer.verdict is Verdict.APPLIED:
            return  # without receipts: an earlier try has written it, and it is in other hands or at rest since
        for event in self._outgoing.receipts(answer, self._keeper.clock.now()):
            self.inbox.add(event)

    def _obey(self, answer: Answer, commit: Commit) -> None:
        """Do what an answer means for a commit that is not just one step's."""
        match answer.verdict:
            case Verdict.LOST | Verdict.JOINED:
                self.drop()
            case Verdict.STAYS if self.kernel is None:
                # Held unseen: nobody could feed the mail to anything. It waits for whoever resumes it.
                commit.seen = self.inbox.seen = max(self.inbox.seen, answer.wakes)
                commit.entries, commit.acts = (), None
                self._submit(commit)
            case Verdict.STAYS:
                # Mail has come that this turn had not seen. The kernel is rebuilt nowhere: it still
                # stands, and takes the mail as its next events.
                if commit.held is None or not self._write_unheld(commit):
                    self._keeper.fetch(self)
            case Verdict.APPLIED if commit.status is Status.RUNNING:
                # Its birth was written by an earlier try, and somebody has taken it over since.
                self.drop()
            case _ if commit.status is Status.RUNNING:
                if not self.gone:
                    self._give_out()
            case _:
                self._leave(commit)

    def refused(self, error: StoreRefusedError, /) -> None:
        """The store will not take this commit's data: hold the execution without them."""
        refused, self._commit = self._commit, None
        if self.born is not None and not self.born.done():
            self.born.set_exception(error)
            self.drop()
        elif refused is not None and refused.held is Held.REFUSED:
            logger.error("%s %s cannot even be held: %s", self.workflow, self.execution_id, error)
            self.drop()
        else:
            self._hold(Held.REFUSED, error)

    def _give_out(self) -> None:
        """What the turn asked for takes effect: its commit is durable."""
        outgoing = self._outgoing
        for call in outgoing.withdrawn:
            self._cut_attempt_of(call)
        outgoing.withdrawn.clear()
        if self.inbox.unread:
            return
        starting, outgoing.starting = outgoing.starting, []
        for call in starting:
            # While the engine closes only what is noted as begun does begin, and gets what is left of the grace. When
            # that is over it would run on without an engine.
            if not self._keeper.stopping or (call.activity.at_most_once and not self._keeper.grace_is_over):
                self.running[(call.name, call.occurrence)] = self._keeper.begin_attempt(call, self)
        # Mail may have been read since this commit was sent, and this answer does not count it.
        if self.inbox:
            self._keeper.schedule(self)
        else:
            self._arm()
            self._keeper.resting(self)

    def _cut_attempt_of(self, call: Call) -> None:
        attempt = self.running.get((call.name, call.occurrence))
        if attempt is not None and attempt.call.input == call.input:
            attempt.cut()

    def _arm(self) -> None:
        """Be called when the nearest in-memory wait is over."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        kernel, delayed = self.kernel, self._outgoing.delayed
        if kernel is None or not (kernel.steps.timers or delayed):
            return
        due = [call.due_at for call in (*kernel.steps.timers.values(), *delayed)]
        nearest = min((instant for instant in due if instant is not None), default=None)
        if nearest is not None and not self._keeper.stopping:
            self._alarm = self._keeper.clock.call_at(nearest, lambda: self._keeper.schedule(self))

    def attempt_ended(self, attempt: Attempt, event: Event | None, /) -> None:
        """An attempt is over; None: cut off, nothing to record."""
        place = (attempt.call.name, attempt.call.occurrence)
        if self.running.get(place) is attempt:
            del self.running[place]
        if event is not None and not self.gone:
            cut_off = attempt.cut_off or self._outgoing.withdraws(attempt.call)
            self.arrive(event._replace(cut_off=True) if cut_off else event)
        elif self._commit is None and not self.gone and not self.inbox.unread:
            self._keeper.resting(self)

    # Endings -------------------------------------------------------------------------------------

    def evict(self) -> None:
        """Put the kernel away; the journal has everything (R6)."""
        if self.kernel is not None:
            self._times_called = self.kernel.times_called if self.running else None
            self.kernel.close()
            self.kernel = None

    def let_go(self) -> None:
        """The engine closes: nothing calls it any more. The store has everything that it could be told."""
        self.gone = True
        if self.born is not None and not self.born.done():
            self.born.set_exception(not_known_to_be_written(self.execution_id, self.workflow))
            self.born.exception()  # its starter may have gone
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.evict()

    def drop(self) -> None:
        """It is not this worker's any more, or never was: stop everything, write nothing."""
        self._leave(None)
        self.evict()

    def _leave(self, commit: Commit | None) -> None:
        self.gone = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for attempt in list(self.running.values()):
            attempt.cut()
        self._outgoing.withdrawn.clear()
        self._outgoing.forget()
        if commit is None or commit.held is not None or is_final(commit.status) or commit.status is Status.PENDING:
            self.evict()
        self._keeper.left(self, commit)


def not_known_to_be_written(execution_id: ExecutionId, workflow: str) -> StoreUnavailableError:
    """What a starter hears whose engine closes while the store does not answer."""
    return StoreUnavailableError(
        f"The engine was closed before its store said whether execution {execution_id} of {workflow!r} is stored. "
        "Start it again under the same id or key: it joins if it is."
    )


def _size_of(entries: Sequence[Entry]) -> int:
    """Roughly how many bytes a replay reads for these entries."""
    size = 0
    for entry in entries:
        size += len(entry.input) + len(entry.exit) + 100
    return size
