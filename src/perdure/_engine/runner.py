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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from perdure import _failpoints
from perdure._definitions import ambient
from perdure._definitions.activity import ActivityCall
from perdure._definitions.host import Call, Engine
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.attempts import Attempt
from perdure._engine.committer import Committer
from perdure._engine.standing import Standing, crashes_error, judge_of, standing_held, standing_of
from perdure._ids import sender_of
from perdure._kernel.event import Event, Origin
from perdure._kernel.kernel import Kernel
from perdure._model.clock import Alarm, Clock
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, Answer, Commit, ExecutionId, History, Letter, MailKind, Record, Start, Verdict
from perdure._model.status import Held, Status, is_final
from perdure._values.cause import Cause
from perdure._values.exit_codec import encode_outcome
from perdure._values.instant import Instant
from perdure.errors import OutcomeUnknown, PayloadError, StoreError, StoreRefusedError, StoreUnavailableError

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
        "_alarm",
        "_began",
        "_commit",
        "_crashes",
        "_deadline",
        "_delayed",
        "_heard",
        "_inbox",
        "_keeper",
        "_letters",
        "_priority",
        "_seed",
        "_sending",
        "_starting",
        "_times_called",
        "_unborn",
        "_unread",
        "_withdrawn",
        "began_at",
        "born",
        "execution_id",
        "fence",
        "gone",
        "implementation",
        "incarnation",
        "kernel",
        "life",
        "payload",
        "reloading",
        "running",
        "scheduled",
        "seen",
        "size",
    )  # fmt: skip

    def __init__(
        self,
        keeper: Keeper,
        implementation: Implementation,
        *,
        execution_id: ExecutionId,
        incarnation: bytes,
        life: int,
        fence: int,
        payload: bytes,
        began_at: Instant,
        crashes: int = 0,
        priority: int = 0,
        deadline: Instant | None = None,
        seed: bytes | None = None,
    ) -> None:
        self._keeper = keeper
        self.implementation = implementation
        self.execution_id = execution_id
        self.incarnation = incarnation
        self.life = life
        # What this worker's writes must carry. Changed by a new claim only.
        self.fence = fence
        self.payload = payload
        self.began_at = began_at
        self._priority = priority
        self._deadline = deadline
        self._seed = seed
        # Whether its first turn has been run in this worker's hands; whether it is the first time that anybody runs it (R8a).
        self._began = False
        self._unborn = False
        # Take-overs counted against it; forgiven with the first entry it commits (R41).
        self._crashes = crashes
        # The highest number of mail that the kernel has been fed, and of mail that anybody has told it of.
        self.seen = 0
        self._heard = 0
        # None while it is evicted.
        self.kernel: Kernel | None = None
        # What an evicted kernel knew of its calls, for the attempts that go on without it.
        self._times_called: Callable[[str], int] | None = None
        # How many bytes of journal a replay would have to read: what the cache counts.
        self.size = len(payload)
        # Attempts that run, by step. An entry leaves when its attempt is over.
        self.running: dict[tuple[str, int], Attempt] = {}
        self._inbox: list[Event] = []
        # Mail that is read, and is fed in the next turn.
        self._letters: list[Letter] = []
        # Whether mail is known to have come that is not read yet. It may be an interrupt, between which and its delivery no
        # activity begins (R29): what the last commit allows is kept back until it is read.
        self._unread = False
        # The commit that is on its way; no turn is taken meanwhile.
        self._commit: Commit | None = None
        # Calls to give out when that commit is durable; calls whose next attempt is due later.
        self._starting: list[ActivityCall] = []
        self._delayed: list[ActivityCall] = []
        self._withdrawn: list[Call] = []
        # Calls whose mail goes out with that commit, in the order of its receipts.
        self._sending: list[Call] = []
        self._alarm: Alarm | None = None
        # Whether the engine has it in its queue of turns.
        self.scheduled = False
        # Whether the engine is reading its journal, to rebuild the kernel.
        self.reloading = False
        # It is no longer this worker's.
        self.gone = False
        # Done when its birth is durable: STARTED or JOINED. None for a claimed one.
        self.born: asyncio.Future[Verdict] | None = None

    @classmethod
    def claimed(cls, keeper: Keeper, implementation: Implementation, record: Record) -> "Runner":
        """The runner of an execution that has just been claimed."""
        assert record.began_at is not None
        runner = cls(
            keeper,
            implementation,
            execution_id=record.execution_id,
            incarnation=record.incarnation,
            life=record.number,
            fence=record.fence,
            payload=record.payload,
            began_at=record.began_at,
            crashes=record.crashes,
            priority=record.priority,
            deadline=record.deadline,
            seed=record.seed,
        )
        # The fence goes on over all lives; that of a later one is told by this claim having begun it.
        runner._unborn = record.fence == 1 or (record.number > 1 and record.began_at == record.changed_at)
        # Its mailbox is read after this claim, so all up to here is read, or was an earlier life's: the numbers go on, the
        # letters do not. Counted as unseen, they would have every suspension refused.
        runner.seen = record.wakes
        # Whoever has claimed it is about to revive it; mail that comes before must not have it revived twice.
        runner.reloading = True
        return runner

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
        return not self._inbox and not self._letters and self._commit is None and not self._unread

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
                self.born.set_result(Verdict.LOST)
            return
        self._began = True
        start.began_at = self.began_at
        if start.deadline is not None:
            self._keeper.watch(start.deadline)
        self.kernel = self._new_kernel(unborn=True)
        self.kernel.begin(self._make_body)
        self._conclude(start)

    def revive(self, history: History) -> None:
        """Replay the journal, then go on."""
        # Not before: until the kernel stands, no turn may have the journal read once more.
        self.reloading = self._unread = False
        if self.gone:
            return
        _failpoints.reach("load.after")
        self._replay(history.entries, unborn=self._unborn and not self._began and not history.entries)
        # All of it: the kernel knows which of it stands in its journal.
        self._letters = history.letters
        self.turn()
        # What came while the journal was being read; nobody says it a second time.
        self.told(self._heard)

    def awake(self, fence: int, wakes: int) -> None:
        """Go on with the kernel that was parked: nobody has owned the execution in between."""
        self.fence = fence
        self.gone = self._unread = False
        self.born = None
        if wakes > self.seen:
            self._keeper.fetch(self)
        else:
            self.turn()

    def told(self, wakes: int) -> None:
        """Mail has come, up to this number."""
        self._heard = max(self._heard, wakes)
        if wakes > self.seen and not self.gone:
            self._keeper.fetch(self)

    def take_mail(self, letters: list[Letter]) -> None:
        """Mail has been read that it has not seen; it is fed in the next turn."""
        self._unread = False
        known = max([self.seen, *(letter.wake for letter in self._letters)])
        self._letters += [letter for letter in letters if letter.wake > known]
        if self._commit is None:
            self._keeper.schedule(self)

    def _replay(self, entries: list[Entry], *, unborn: bool) -> None:
        self._began = True
        self.kernel = kernel = self._new_kernel(unborn=unborn, entries=entries)
        kernel.begin(self._make_body, entries)
        self.size = len(self.payload) + _size_of(entries)
        kernel.take_withdrawn()
        if self.life > 1 or self._seed is not None:
            kernel.ask_children_again()
        self._delayed = [call for call in kernel.take_asked() if isinstance(call, ActivityCall)]

    def _new_kernel(self, *, unborn: bool, entries: list[Entry] | None = None) -> Kernel:
        origin = Origin(
            self.execution_id,
            self.life,
            self.workflow,
            self._seed or self.incarnation,
            self.began_at,
            unborn,
            self.incarnation,
            self._priority,
            self._deadline,
        )
        return Kernel(origin, entries or (), judge=judge_of(self.implementation, self._keeper.payload_limit))

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
        self._inbox.append(event)
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
        self._feed(self.kernel)
        _failpoints.reach("turn.after")
        self._conclude(None)

    def _feed(self, kernel: Kernel) -> None:
        """Feed the inbox, the mail and the timers that are due, in the order of their instants (R47)."""
        inbox, self._inbox = self._inbox, []
        if not self._letters and not kernel.steps.timers:
            for event in inbox:
                kernel.deliver(event)
            return
        dated: list[tuple[Instant, Event | Letter]] = [(event.at, event) for event in inbox]
        if self._letters:
            letters, self._letters = self._letters, []
            self.seen = max(self.seen, letters[-1].wake)
            dated += _in_order(letters)
        dated += self._due_timers(kernel)
        dated.sort(key=lambda pair: pair[0])
        for _, one in dated:
            if isinstance(one, Letter):
                if not kernel.read(one) and kernel.continues and not kernel.has_read(one):
                    # The next life reads it: the store hands over what this one has not seen (R37).
                    self.seen = min(self.seen, one.wake - 1)
            else:
                kernel.deliver(one)

    def _due_timers(self, kernel: Kernel) -> list[tuple[Instant, Event]]:
        now = self._keeper.clock.now()
        return [
            (timer.due_at, Event(Kind.TIMER, timer.name, timer.occurrence, 0, timer.input, b"", now))
            for timer in kernel.timers()
            if timer.due_at is not None and timer.due_at <= now
        ]

    def _conclude(self, start: Start | None) -> None:
        """Turn what the kernel has come to into one commit, and remember what that commit will allow."""
        kernel = self.kernel
        assert kernel is not None
        keeper = self._keeper
        now = keeper.clock.now()
        if self._starting:
            # Kept back for mail that has made the body give some of it up.
            self._starting = [call for call in self._starting if kernel.steps.waits(call)]
        self._sort_calls(kernel, now)
        self._withdrawn += kernel.take_withdrawn()
        busy = bool(self.running or self._starting or self._sending)
        commit = self._commit_of(standing_of(kernel, self.implementation, now=now, busy=busy))
        commit.start = start
        commit.entries, commit.acts = kernel.take_written()
        if commit.entries:
            self.size += _size_of(commit.entries)
            commit.calm, self._crashes = self._crashes > 0, 0
        if self._sending:
            commit.acts = self._with_mail(commit.acts or Acts())
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
        commit = Commit(self.execution_id, self.incarnation, self.fence, self.seen, _RUNNING)
        commit.entries, commit.acts, commit.calm = held.entries, held.acts, held.calm
        self._submit(commit)
        return True

    def _with_mail(self, acts: Acts) -> Acts:
        """Add the mail that calls of the body send; on a repeat it is known by the step that sends it (R42)."""
        for call in self._sending:
            assert call.mail is not None
            sender = sender_of(self.incarnation, call.name, call.occurrence)
            acts.mail.append(call.mail._replace(sender=sender))
        return acts

    def _submit(self, commit: Commit) -> None:
        self._commit = commit
        self._keeper.committer.submit(commit, self)

    def _sort_calls(self, kernel: Kernel, now: Instant) -> None:
        """Which calls begin with this commit, and which attempts are due later."""
        calls: list[ActivityCall] = []
        if self._delayed:
            calls, self._delayed = self._delayed, calls
        while kernel.trouble is None and not kernel.ended:
            asked = kernel.take_asked()
            if calls:
                # Each once: after a replay a call stands in `_delayed`, and is asked for again when its failure is fed.
                asked = list(dict.fromkeys([*filter(kernel.steps.waits, calls), *asked]))
            calls = [call for call in asked if isinstance(call, ActivityCall)]
            if kernel.outbox and self._put_into_the_mail(kernel, now):
                continue
            unknown = [call for call in calls if call.activity.at_most_once and self._is_unknown(kernel, call, now)]
            if not unknown:
                self._part(kernel, calls, now)
                return
            # Before anything is chosen to begin: what the body does about it may withdraw the others.
            for call in unknown:
                kernel.deliver(_outcome_unknown(call, now))

    def _put_into_the_mail(self, kernel: Kernel, now: Instant) -> bool:
        """Have mail sent with this commit; whether some is larger than an entry may be, and has failed."""
        limit = self._keeper.payload_limit
        sending = kernel.take_outbox()
        refused = [call for call in sending if call.mail is not None and len(call.mail.exit) > limit]
        self._sending += [call for call in sending if call not in refused]
        for call in refused:
            kernel.deliver(_too_large(call, limit, now))
        return bool(refused)

    def _is_unknown(self, kernel: Kernel, call: ActivityCall, now: Instant) -> bool:
        """Whether an at-most-once attempt that is due was noted as begun in another life (R50)."""
        return self._may_begin(call, now) and kernel.begun(call)

    def _may_begin(self, call: ActivityCall, now: Instant) -> bool:
        due = (call.due_at is None or call.due_at <= now) and not (self.kernel is not None and self.kernel.failing)
        return due and not self._keeper.stopping and not self._is_running(call)

    def _part(self, kernel: Kernel, calls: list[ActivityCall], now: Instant) -> None:
        """Part the calls that begin with this commit from those that are due later."""
        for call in calls:
            if self._may_begin(call, now):
                if call.activity.at_most_once:
                    kernel.note_begun(call)
                self._starting.append(call)
            elif not self._is_running(call):
                self._delayed.append(call)

    def _is_running(self, call: ActivityCall) -> bool:
        attempt = self.running.get((call.name, call.occurrence))
        return attempt is not None and attempt.attempt == call.attempt and attempt.call.input == call.input

    def _commit_of(self, standing: Standing) -> Commit:
        """A commit that says so, and nothing else yet."""
        if standing.status is _RUNNING:
            return Commit(self.execution_id, self.incarnation, self.fence, self.seen, _RUNNING)
        return Commit(
            self.execution_id,
            self.incarnation,
            self.fence,
            self.seen,
            standing.status,
            exit=standing.exit,
            held=standing.held,
            wake_at=standing.wake_at,
            waits=standing.waits,
        )

    def _hold(self, held: Held, error: BaseException) -> None:
        """Hold the execution, whatever was to begin."""
        self._starting.clear()
        self._sending.clear()
        self.evict()
        self._submit(self._commit_of(standing_held(self.implementation.codec, held, error)))

    # Answers -------------------------------------------------------------------------------------

    def answered(self, answer: Answer, /) -> None:
        """What has become of the commit that was on its way."""
        commit, self._commit = self._commit, None
        assert commit is not None
        if self.born is not None and not self.born.done():
            self.born.set_result(answer.verdict)
        if commit.calm and answer.verdict in {Verdict.GRANTED, Verdict.STAYS}:
            self._keeper.calmed(self)
        if commit.acts is not None:
            self._done(commit.acts, answer)
        if answer.verdict is _GRANTED and commit.status is _RUNNING:
            # What becomes of nearly all; the others are told apart one comparison after the other.
            if not self.gone:
                if answer.wakes > self.seen:
                    self._unread = True
                    self._keeper.fetch(self)
                self._give_out()
        else:
            self._obey(answer, commit)
        if answer.stirs:
            self._keeper.stirred()

    def _done(self, acts: Acts, answer: Answer) -> None:
        """What the turn did to others is durable, or was for nothing."""
        sending, self._sending = self._sending, []
        if answer.verdict in {Verdict.LOST, Verdict.JOINED}:
            return
        # Not only when it rests: its body may run for hours beside what it has started.
        for start in (*acts.starts, *acts.children, *acts.rejoins):
            self._keeper.stored(start)
        if answer.verdict is Verdict.APPLIED:
            return  # without receipts: an earlier try has written it, and it is in other hands or at rest since
        now = self._keeper.clock.now()
        # The mail of calls stands behind all other.
        for call, receipt in zip(sending, answer.receipts[len(answer.receipts) - len(sending) :], strict=True):
            said = b'{"success":"%s"}' % receipt.encode()
            self._inbox.append(Event(Kind.SENT, call.name, call.occurrence, 0, call.input, said, now))

    def _obey(self, answer: Answer, commit: Commit) -> None:
        """Do what an answer means for a commit that is not just one step's."""
        match answer.verdict:
            case Verdict.LOST | Verdict.JOINED:
                self.drop()
            case Verdict.STAYS if self.kernel is None:
                # Held unseen: nobody could feed the mail to anything. It waits for whoever resumes it.
                commit.seen = self.seen = max(self.seen, answer.wakes)
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
        for call in self._withdrawn:
            self._cut_attempt_of(call)
        self._withdrawn.clear()
        if self._unread:
            return
        starting, self._starting = self._starting, []
        for call in starting:
            # While the engine closes only what is noted as begun does begin, and gets what is left of the grace. When
            # that is over it would run on without an engine.
            if not self._keeper.stopping or (call.activity.at_most_once and not self._keeper.grace_is_over):
                self.running[(call.name, call.occurrence)] = self._keeper.begin_attempt(call, self)
        # Mail may have been read since this commit was sent, and this answer does not count it.
        if self._inbox or self._letters:
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
        kernel = self.kernel
        if kernel is None or not (kernel.steps.timers or self._delayed):
            return
        due = [call.due_at for call in kernel.steps.timers.values()] + [call.due_at for call in self._delayed]
        nearest = min((instant for instant in due if instant is not None), default=None)
        if nearest is not None and not self._keeper.stopping:
            self._alarm = self._keeper.clock.call_at(nearest, lambda: self._keeper.schedule(self))

    def attempt_ended(self, attempt: Attempt, event: Event | None, /) -> None:
        """An attempt is over; None: cut off, nothing to record."""
        place = (attempt.call.name, attempt.call.occurrence)
        if self.running.get(place) is attempt:
            del self.running[place]
        if event is not None and not self.gone:
            self.arrive(event._replace(cut_off=True) if attempt.cut_off or self._withdraws(attempt.call) else event)
        elif self._commit is None and not self.gone and not self._unread:
            self._keeper.resting(self)

    def _withdraws(self, asked: Call) -> bool:
        """Whether the attempt of a call is to be cut as soon as the commit on its way is durable."""
        return bool(self._withdrawn) and any(_same_step(call, asked) for call in self._withdrawn)

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
        self._withdrawn.clear()
        self._starting.clear()
        if commit is None or commit.held is not None or is_final(commit.status) or commit.status is Status.PENDING:
            self.evict()
        self._keeper.left(self, commit)


def not_known_to_be_written(execution_id: ExecutionId, workflow: str) -> StoreUnavailableError:
    """What a starter hears whose engine closes while the store does not answer."""
    return StoreUnavailableError(
        f"The engine was closed before its store said whether execution {execution_id} of {workflow!r} is stored. "
        "Start it again under the same id or key: it joins if it is."
    )


def _in_order(letters: list[Letter]) -> Iterator[tuple[Instant, Letter]]:
    """Letters with their instants; those of messages do not go back where a clock has been set back (R48)."""
    latest = 0
    for letter in letters:
        if letter.kind == MailKind.MESSAGE:
            latest = max(latest, letter.at)
            yield latest, letter
        else:
            yield letter.at, letter


def _size_of(entries: Sequence[Entry]) -> int:
    """Roughly how many bytes a replay reads for these entries."""
    size = 0
    for entry in entries:
        size += len(entry.input) + len(entry.exit) + 100
    return size


def _same_step(one: Call, other: Call) -> bool:
    return (one.name, one.occurrence, one.input) == (other.name, other.occurrence, other.input)


def _too_large(call: Call, limit: int, now: Instant) -> Event:
    error = PayloadError(
        f"What {call.name!r} sends is larger than the limit of {limit:,} bytes. Store it elsewhere and send where it is, "
        "or open the engine with a larger payload_limit=.",
        owner=call.name,
    )
    return Event(Kind.SENT, call.name, call.occurrence, 0, call.input, encode_outcome(error), now)


def _outcome_unknown(call: ActivityCall, now: Instant) -> Event:
    error = OutcomeUnknown(
        f"Activity {call.name!r} is delivered at most once. Its attempt {call.attempt} had begun when its worker "
        "ended, and nobody knows whether it did its work.",
        activity=call.name,
        attempt=call.attempt,
    )
    encoded = call.activity.codec.encode_failure(Cause.fail(error), None)
    return Event(Kind.ACTIVITY, call.name, call.occurrence, call.attempt, call.input, encoded, now)
