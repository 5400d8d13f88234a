"""A kernel: one body on its loop, fed one event at a time, each to quiescence.

Live and on replay the path is the same: an entry is fed, the call that asked for it gets its
result, the loop runs until nothing is ready, and only then comes the next entry. Replay never skips
user code; while it lasts nothing is given out, and when the last entry has come to rest, what is
still asked for is.

The kernel does no I/O and has no clock. What its turns want to have written lies in the draft; what
the body asks for lies there for the engine, which acts on it only when the commit is durable. The
kernel may run ahead of durability by one commit; its effects never.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Final

from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._kernel.children import Inherited
from perdure._kernel.divergence import divergence_error
from perdure._kernel.draft import Draft
from perdure._kernel.ending import Ending, Judge, plain_ending
from perdure._kernel.event import Event, Origin, Trouble
from perdure._kernel.finish import Finish
from perdure._kernel.hold import Hold
from perdure._kernel.host import BodyHost, LoopTimer
from perdure._kernel.letter import Letters
from perdure._kernel.loop import KernelFuture, KernelLoop, KernelTask, Spinning
from perdure._kernel.matching import Steps
from perdure._model.journal import ANSWERS, MARKERS, WITHOUT_COMPENSATIONS, Entry, Kind
from perdure._model.records import Acts, Letter
from perdure._model.status import Held
from perdure._values.cause import Cause
from perdure._values.exit import Failure, Success
from perdure._values.exit_codec import is_success, retry_at
from perdure._values.instant import UNTIL_RESUMED, Instant
from perdure.errors import Defect, PayloadError

# Callbacks in one turn. A body that needs more is not working, it is spinning; a `gather` of
# 100,000 branches stays far below.
TURN_BUDGET = 1_000_000

# Looked up in the class, a member of an enumeration costs as much as a call.
_TIMER: Final = Kind.TIMER
_ACTIVITY: Final = Kind.ACTIVITY

logger = logging.getLogger("perdure")

MakeBody = Callable[[], Coroutine[Any, Any, Any]]


class Kernel:
    """One execution in memory."""

    __slots__ = (
        "_budget", "_draft", "_finish", "_hold", "_host", "_letters", "_loop", "_main", "_origin", "ended", "failing",
        "outbox", "steps", "trouble",
    )  # fmt: skip

    def __init__(
        self,
        origin: Origin,
        history: Sequence[Entry] = (),
        budget: int | None = None,
        judge: Judge = plain_ending,
        payload_limit: int = sys.maxsize,
    ) -> None:
        self._origin = origin
        self._budget = budget = budget or TURN_BUDGET
        self._draft = Draft(origin.began_at, history)
        self.steps = Steps(history, self._draft.copied)
        self._host = BodyHost(origin, self._draft, self.steps, payload_limit)
        if origin.seed != origin.incarnation and history:
            self._host.inherited = Inherited(history, self._draft.copied)
        self._loop = self._host.loop = KernelLoop(self._host, budget)
        # Calls whose mail is to go out with the next commit.
        self.outbox = self._host.outbox
        # The body's task; None before the body has begun.
        self._main: KernelTask | None = None
        self._finish = Finish(origin.execution_id, self._host, self._loop, self.steps, self._draft, judge=judge)
        self._hold = Hold(self._draft)
        # Failed calls that hold the execution until somebody acts, each with its failure (R36).
        self.failing = self._hold.failing
        self._letters = Letters(self._host, self.steps, self._finish, self._draft.letters)
        # Whether all is done: the body, what it left behind, and what stood on its stack. Asked for at every step.
        self.ended = False
        # Not None: it will not go on; the engine holds the execution and closes the kernel.
        self.trouble: Trouble | None = None

    # Turns -------------------------------------------------------------------------------------

    def begin(self, make_body: MakeBody, history: Sequence[Entry] = ()) -> None:
        """Run the first turn, then feed the journal again. Nothing is given out before the end."""
        self._host.replaying = not self._origin.unborn
        context = Context()
        self._host.adopt(context)
        try:
            coroutine = context.run(make_body)
        except PayloadError as error:
            self.trouble = Trouble(Held.UNREADABLE, error)
            return
        with self._loop.scheduling():
            self._main = self._host.main = self._finish.main = self._loop.create_task(coroutine, context=context)
        outside = self._loop.enter()
        try:
            self._settle()
            void, taker = self._hold.void, self.steps.taker
            for entry in history:
                if self.trouble is not None or self.ended:
                    break
                if entry.kind in ANSWERS and not (void and entry.seq in void):
                    self._feed(entry, taker(entry))
                else:
                    self._feed_again(entry)
        finally:
            self._loop.leave(outside)
        self._host.replaying = False
        self._host.asked = self.activities()
        self.outbox[:] = [call for call in self.steps.waiting.values() if call.kind is Kind.SENT]
        self._come_to_rest()
        if self.steps.kept and self.trouble is None:
            names = ", ".join(f"{entry.kind} {entry.name!r}" for entry in self.steps.kept)
            logger.info(
                "%s %s: recorded, but no longer asked for: %s", self._origin.workflow, self._origin.execution_id, names
            )

    def _feed_again(self, entry: Entry) -> None:
        """Feed an entry that is no answer to one call."""
        if entry.kind not in MARKERS:
            if entry.seq in self._hold.void:
                self._draft.fed(entry)
                call = self.steps.taker(entry)
                if call is not None:
                    self._ask_again(call, entry, entry.at)
            else:
                self._feed_letter(entry)
        elif entry.kind == Kind.RACE:
            # Today's code has not ended this race by now, and then did; it ends as it did (R21).
            with self._loop.scheduling():
                self._host.decide(entry.name, entry.occurrence, entry.exit)
            self._settle()
        elif entry.name == WITHOUT_COMPENSATIONS:
            if self._host.stack is not None:
                self._host.stack.forget_compensations()
            if self._finish.undoing:
                # Under way in the original, or failed there: that goes on with it.
                self._finish.skip()
                self._settle()
        elif entry.kind == Kind.HELD:
            self._hold.end(entry)

    def deliver(self, event: Event) -> bool:
        """Feed what has just happened. False: nobody waits for it (any more), and it is not recorded."""
        if self._host.put_away or self.trouble is not None:
            return False
        entry = self._draft.next_entry(event)
        call = self.steps.asker(entry)
        if call is None and not self._is_orphan(event):
            return False
        self._draft.write(entry)
        outside = self._loop.enter()
        try:
            self._feed(entry, call, event.value, has_value=event.has_value)
        finally:
            self._loop.leave(outside)
        self._come_to_rest()
        return True

    def read(self, letter: Letter) -> bool:
        """Feed mail. False: it means nothing to the body (any more), or was fed before, and is not recorded."""
        event = None if self._host.put_away else self._letters.open(letter, self.trouble)
        if event is None:
            return False
        # If something has held the execution, this is what somebody has decided about it.
        self.trouble = None
        event = self._letters.addressed(event)
        if event is None:
            return False
        entry = self._draft.next_entry(event)
        self._draft.write(entry)
        outside = self._loop.enter()
        try:
            self._feed_letter(entry)
        finally:
            self._loop.leave(outside)
        self._come_to_rest()
        return True

    def has_read(self, letter: Letter) -> bool:
        """Whether this letter has been fed, now or before, or said nothing."""
        return self._letters.has_read(letter)

    def _feed_letter(self, entry: Entry) -> None:
        """Feed what came from outside and is no answer to one call."""
        self._draft.fed(entry)
        if entry.kind == Kind.INTERRUPT:
            for call, error in self._hold.give_up(entry.exit):
                self._give_up_reading(call, error)
        for call, answer in self._letters.feed(entry):
            self._answer(call, answer)
        self._settle()

    def _is_orphan(self, event: Event) -> bool:
        """Whether a result was asked for, never taken back, and is waited for by nobody.

        Then the body has been replayed since, and asked otherwise than it did when the attempt was given out. The
        result is recorded all the same, as what it is: a divergence, if a call of its name waits (R8). Dropped, it
        would be asked for again, and done again, without end.
        """
        if event.kind is not Kind.ACTIVITY or event.cut_off:
            return False
        place = (event.name, event.occurrence, event.input)
        return not any((call.name, call.occurrence, call.input) == place for call in self._host.withdrawn)

    def _feed(self, entry: Entry, call: Call | None, value: Any = None, *, has_value: bool = False) -> None:
        self._draft.fed(entry)
        if call is None:
            self.steps.keep(entry)
            return
        self._answer(call, entry, value, has_value=has_value)
        self._settle()

    def _settle(self) -> None:
        """Run until nothing is ready, then give kept results to the calls that took them, one by one."""
        due, main = self._host.due, self._main
        try:
            self._loop.run()
            if due:
                self._run_due()
            if main is not None and main.done():
                while self.trouble is None and self._finish.further():
                    self._loop.run()
                    self._run_due()
                if self._finish.over:
                    self.ended = True
                    self._put_away()
        except Spinning:
            self.trouble = Trouble(Held.SPINNING, Defect("Spinning", _spinning(self._origin.workflow, self._budget)))
            if main is not None and main.done():
                self.close()  # what was left behind spins, and no turn comes that would find it

    def _run_due(self) -> None:
        due = self._host.due
        while due and self.trouble is None:
            self._feed_kept(*due.pop(0))
            self._loop.run()

    def _feed_kept(self, call: Call, entry: Entry) -> None:
        """Give a call the kept entry that it has taken."""
        if entry.kind == Kind.CHILD and self.steps.shared(call) is not entry:
            # Kept from before anybody asked for that child (changed code); from now on it is everybody's who does.
            for sharer, answer in self._letters.share(entry):
                self._answer(sharer, answer)
            return
        if not self.steps.waits(call):
            other = self.steps.give_back(entry)
            if other is None:
                return
            call = other
        # Neither time nor seq goes back, so the draws go on counting in this turn (R38, R39).
        self._answer(call, entry)
        if self.trouble is None and self.steps.waits(call):
            # A failure that another attempt follows, which may be kept as well. Live, the call was put among the asked
            # when it was made and again just now; one attempt of it is given out.
            if not self._host.replaying:
                self._host.asked.remove(call)
            self._host.take_kept(call)

    def _come_to_rest(self) -> None:
        """What was fed has been answered as far as it goes: do code and journal still tell one story (R8)?"""
        if self._host.unread is not None and self.trouble is None and not self.ended:
            self.trouble = Trouble(Held.UNREADABLE, self._host.unread)
        if self.steps.kept and self.trouble is None and not self.ended:
            found = self.steps.divergence()
            if found is not None:
                call, entry = found
                place = self._loop.place_of(call.future) if call.future is not None else ""
                self.trouble = Trouble(Held.DIVERGENCE, divergence_error(self._origin.workflow, call, entry, place))
        if self.trouble is None and self._main is not None and self._main.done():
            self.trouble = self._finish.trouble()
        if self.trouble is not None and self.trouble.is_unfinished:
            # The turn is run again when the execution is resumed.
            self._draft.retract_markers()

    # Answers -------------------------------------------------------------------------------------

    def _answer(self, call: Call, entry: Entry, value: Any = None, *, has_value: bool = False) -> None:
        if call.kind is _TIMER:
            self._fire(call)
        elif has_value:
            self._resolve(call, value)
        elif is_success(entry.exit):
            try:
                value = call.decode_success(entry.exit)
            except PayloadError as error:
                self._give_up_reading(call, error)
            else:
                self._resolve(call, value)
        elif (again_at := retry_at(entry.exit)) is not None:
            self._ask_again(call, entry, again_at)
        else:
            self._fail(call, entry)

    def _fire(self, call: Call) -> None:
        if isinstance(call, LoopTimer):
            self.steps.drop(call)
            self._loop.fire(call.handle)
        else:
            self._resolve(call, None)

    def _ask_again(self, call: Call, entry: Entry, again_at: Instant) -> None:
        """An attempt has failed, and the record says when the next one is due (R11)."""
        if call in self._host.guarded:
            # Cancelled while this attempt ran: there is no other one (R27).
            self._fail(call, entry)
            return
        if again_at == UNTIL_RESUMED:
            self.failing[call] = entry.exit
        call.attempt = entry.attempt + 1
        call.due_at = again_at
        if _was_interrupted(entry.exit):
            call.interruptions += 1
        elif call.failed_at is None:
            call.failed_at = entry.at
        if not self._host.replaying:
            self._host.asked.append(call)

    def _resolve(self, call: Call, value: Any, error: BaseException | None = None) -> None:
        """Give a call what its future has been waiting for."""
        self.steps.drop(call)
        if call.guard is not None and call in self._host.guarded:
            self._host.guarded.discard(call)
            call.guard(Success(value) if error is None else Failure(Cause.from_exception(error)))
            return
        future = call.future
        assert type(future) is KernelFuture
        # The call knows its future; back again would be a ring, and what a step leaves the collector's work.
        future.call = None
        loop = self._loop
        # As `scheduling`, without its frames: every step of every execution comes through here.
        loop.turning = True
        try:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        finally:
            loop.turning = False

    def _fail(self, call: Call, entry: Entry) -> None:
        try:
            cause = call.decode_failure(entry.exit)
        except PayloadError as error:
            self._give_up_reading(call, error)
        else:
            raised = cause.to_exception()
            if entry.kind in ANSWERS:
                # Not of mail: nobody tells it a second time, and a step that waits for it would wait for ever.
                self._finish.note_failure(entry.seq, raised)
            self._resolve(call, None, raised)

    def _give_up_reading(self, call: Call, error: PayloadError) -> None:
        error.add_note(f"It is the recorded result of {call.kind} {call.name!r}, occurrence {call.occurrence}.")
        self.trouble = Trouble(Held.UNREADABLE, error)

    # Endings -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Put the body away without an end: eviction, a lost fence, a stop (R6). Nothing of it acts."""
        if not self._host.put_away:
            self._put_away()

    def _put_away(self) -> None:
        self._host.put_away = True
        self._loop.close_frames(f"{self._origin.workflow} {self._origin.execution_id}")
        self.steps.clear()
        self._host.let_go()

    # What the engine reads and notes ---------------------------------------------------------------

    @property
    def ending(self) -> Ending | None:
        """What the body has come to, once it has ended."""
        return self._finish.ending

    @property
    def continues(self) -> bool:
        """Whether it has ended this life only, and goes on as new (R37)."""
        return self.ended and self._finish.ending is None

    @property
    def unwinds(self) -> bool:
        """Whether its body has ended, and what stands on the stack is being run."""
        return self._finish.unwinds

    def compensations(self) -> list[str]:
        """What stands on the stack to be undone, the next one first."""
        standing = [] if self._host.stack is None else list(self._host.stack.compensations())
        return [*self._finish.undoing, *standing]

    def failure(self) -> BaseException | None:
        """What the body raised; None, if it has returned.

        Not raised here: its traceback would get frames that hold this kernel, and the kernel holds the error.
        """
        assert self._main is not None
        return asyncio.CancelledError() if self._main.cancelled() else self._main.exception()

    def result(self) -> Any:
        """What the body returned; raises what it raised."""
        assert self._main is not None
        return self._main.result()

    def now(self) -> Instant:
        """The time of the last fed entry (R38)."""
        return self._draft.now

    @property
    def seq(self) -> int:
        """The last seq of the journal, recorded or drafted."""
        return self._draft.seq

    def take_asked(self) -> Sequence[Call]:
        """Calls whose (next) attempt is to be given out: new since this was last asked, and still wanted."""
        asked = self._host.asked
        if not asked:
            return ()
        self._host.asked = []
        if len(asked) == 1:  # as in every turn of a body that does one thing after the other
            return asked if self.steps.waits(asked[0]) else ()
        return [call for call in asked if self.steps.waits(call)]

    def take_outbox(self) -> list[Call]:
        """Calls whose mail is to go out: new since this was last asked, and still wanted."""
        sent = [call for call in self.outbox if self.steps.waits(call)]
        self.outbox.clear()
        return sent

    def take_withdrawn(self) -> Sequence[Call]:
        """Calls that the body does not want any more; their running attempts are cancelled."""
        withdrawn = self._host.withdrawn
        if not withdrawn:
            return ()
        self._host.withdrawn = []
        return withdrawn

    def take_written(self) -> tuple[Sequence[Entry], Acts | None]:
        """What the turns since the last call want to have written."""
        return self._draft.take()

    def timers(self) -> list[TimerCall]:
        """The timers that are set, in the order in which they were asked for."""
        return [call for call in self.steps.timers.values() if isinstance(call, TimerCall)]

    def activities(self) -> list[Call]:
        """The activity calls that wait for a result."""
        return [call for call in self.steps.waiting.values() if call.kind is _ACTIVITY]

    def times_called(self, name: str) -> int:
        """How often the body has called an activity of this name so far."""
        return self._host.times_called(name)

    def suspend(self) -> None:
        """The execution is about to be suspended: what must not change meanwhile is recorded (R16)."""
        self._host.record_due_times()

    def ask_children_again(self) -> None:
        """Say once more whom it waits for: its journal is another life's, and who waits was written down for that."""
        parent = self._host.parent
        # In an unfinished turn nobody knows whom it would wait for.
        if parent is not None and (self.trouble is None or not self.trouble.is_unfinished):
            parent.ask_again()

    def note_held(self, exit: bytes = b"") -> None:
        """Have the journal remember that it is held: what failed counts no more when somebody resumes it (R28, R36).

        With the failure of its steps that holds it, by which an interrupt is known that finds it held; where a
        compensation does, with what its body has failed with, for those who look.
        """
        self._hold.note(self._finish.voids, exit)

    def forget_held(self) -> None:
        """It is not held yet: mail has come first. Written without the hold, the note would read as a resume."""
        self._hold.forget()

    def note_begun(self, call: Call) -> None:
        """Have the journal remember that an at-most-once attempt is about to begin (R50)."""
        self._draft.mark(Kind.ATTEMPT_BEGUN, call.name, call.occurrence, asked=call.input, attempt=call.attempt)

    def begun(self, call: Call) -> bool:
        """Whether the attempt that is due now was begun by a worker that is gone (R50)."""
        return self._draft.has_begun(call)


def _was_interrupted(exit: bytes) -> bool:
    """Whether a failed attempt was cut off from inside (R13)."""
    reasons = json.loads(exit)["failure"]
    return len(reasons) == 1 and "interrupt" in reasons[0]


def _spinning(workflow: str, budget: int) -> str:
    return (
        f"The body of {workflow!r} did not come to rest within {budget:,} callbacks after one event. "
        "A loop that awaits only what is ready at once (`asyncio.sleep(0)`, a full queue) never ends; "
        "let it wait for a step. Correct the code, then resume the execution."
    )
