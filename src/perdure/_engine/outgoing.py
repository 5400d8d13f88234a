"""What the turns of one execution have asked for, from the turn that asks to the commit that allows it.

Nothing takes effect before the commit of its turn is durable: activities begin then, attempts that are
not wanted any more are cut then, mail goes with the commit itself and its receipts come back with the
answer. What is due later waits here for its time.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from perdure._definitions.activity import ActivityCall
from perdure._definitions.host import Call
from perdure._definitions.start import verdict_on
from perdure._engine.attempts import Attempt
from perdure._ids import sender_of
from perdure._kernel.event import Event
from perdure._kernel.kernel import Kernel
from perdure._model.journal import Kind
from perdure._model.records import Acts, Answer, Start
from perdure._values.cause import Cause
from perdure._values.exit_codec import encode_outcome
from perdure._values.instant import Instant
from perdure._values.limit import too_large
from perdure.errors import OutcomeUnknown


class Limits(Protocol):
    """What may begin at this moment."""

    @property
    def payload_limit(self) -> int:
        """The largest encoded result or message in bytes."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether nothing new is given out any more."""
        ...


class Outgoing:
    """The calls of one execution on their way out."""

    __slots__ = ("_limits", "_running", "delayed", "sending", "starting", "withdrawn")

    def __init__(self, limits: Limits, running: Mapping[tuple[str, int], Attempt]) -> None:
        self._limits = limits
        # The attempts that run, by step; the runner's own.
        self._running = running
        # Calls that begin when the commit on its way is durable; calls whose next attempt is due later.
        self.starting: list[ActivityCall] = []
        self.delayed: list[ActivityCall] = []
        # Calls that the body does not want any more.
        self.withdrawn: list[Call] = []
        # Calls whose mail goes with that commit, in the order of its receipts.
        self.sending: list[Call] = []

    def take_in(self, kernel: Kernel, now: Instant) -> None:
        """Sort what the turns since the last commit have asked for, and what has become due."""
        if self.starting:
            # Kept back for mail that has made the body give some of it up.
            self.starting = [call for call in self.starting if kernel.steps.waits(call)]
        self._sort(kernel, now)
        self.withdrawn += kernel.take_withdrawn()

    def recall(self, kernel: Kernel) -> None:
        """What a replay still asks for is all that there is: what was withdrawn in it runs nowhere."""
        kernel.take_withdrawn()
        self.delayed = [call for call in kernel.take_asked() if isinstance(call, ActivityCall)]

    def forget(self) -> None:
        """Nothing of it is given out: its execution is held, or somebody else's."""
        self.starting.clear()
        self.sending.clear()

    @property
    def pending(self) -> bool:
        """Whether the commit on its way lets something begin, or sends something."""
        return bool(self.starting or self.sending)

    def withdraws(self, asked: Call) -> bool:
        """Whether the attempt of a call is to be cut as soon as the commit on its way is durable."""
        return bool(self.withdrawn) and any(_same_step(call, asked) for call in self.withdrawn)

    # Mail ----------------------------------------------------------------------------------------

    def add_mail(self, acts: Acts, incarnation: bytes) -> Acts:
        """Add the mail that calls send; on a repeat it is known by the step that sends it (R42).

        And what they have started with an earlier commit, of whose answer nobody knows: it is started once, and only
        looked at now.
        """
        started = set(acts.starts)
        for call in self.sending:
            if call.start is None:
                assert call.mail is not None
                acts.mail.append(call.mail._replace(sender=sender_of(incarnation, call.name, call.occurrence)))
            elif call.start not in started:
                acts.repeats.append(call.start)
        return acts

    def receipts(self, answer: Answer, now: Instant) -> Iterator[Event]:
        """What became of it. Of the mail the answer's last receipts tell: it stands behind all other."""
        sent, self.sending = self.sending, []
        mail = sum(call.mail is not None for call in sent)
        receipts = iter(answer.receipts[len(answer.receipts) - mail :])
        for call in sent:
            if call.start is None:
                said = b'{"success":"%s"}' % next(receipts).encode()
            else:
                said = _start_said(call.start, answer)
            yield Event(Kind.SENT, call.name, call.occurrence, 0, call.input, said, now)

    # Sorting -------------------------------------------------------------------------------------

    def _sort(self, kernel: Kernel, now: Instant) -> None:
        """Which calls begin with this commit, and which attempts are due later."""
        calls: list[ActivityCall] = []
        if self.delayed:
            calls, self.delayed = self.delayed, calls
        while kernel.trouble is None and not kernel.ended:
            asked = kernel.take_asked()
            if calls:
                # Each once: after a replay a call is delayed, and is asked for again when its failure is fed.
                asked = list(dict.fromkeys([*filter(kernel.steps.waits, calls), *asked]))
            calls, once = _activities(asked)
            if kernel.outbox and self._put_into_the_mail(kernel, now):
                continue
            unknown = [call for call in once if self._is_unknown(kernel, call, now)]
            if not unknown:
                self._part(kernel, calls, now)
                return
            # Before anything is chosen to begin: what the body does about it may withdraw the others.
            for call in unknown:
                kernel.deliver(_outcome_unknown(call, now))

    def _put_into_the_mail(self, kernel: Kernel, now: Instant) -> bool:
        """Have mail sent with this commit; whether some is larger than an entry may be, and has failed."""
        limit = self._limits.payload_limit
        sending = kernel.take_outbox()
        refused = [call for call in sending if call.mail is not None and len(call.mail.exit) > limit]
        self.sending += [call for call in sending if call not in refused]
        for call in refused:
            kernel.deliver(_too_large(call, limit, now))
        return bool(refused)

    def _part(self, kernel: Kernel, calls: list[ActivityCall], now: Instant) -> None:
        """Part the calls that begin with this commit from those that are due later."""
        for call in calls:
            if self._may_begin(kernel, call, now):
                if call.activity.at_most_once:
                    kernel.note_begun(call)
                self.starting.append(call)
            elif not self._is_running(call):
                self.delayed.append(call)

    def _is_unknown(self, kernel: Kernel, call: ActivityCall, now: Instant) -> bool:
        """Whether an at-most-once attempt that is due was noted as begun in another life (R50)."""
        return self._may_begin(kernel, call, now) and kernel.begun(call)

    def _may_begin(self, kernel: Kernel, call: ActivityCall, now: Instant) -> bool:
        due = (call.due_at is None or call.due_at <= now) and not kernel.failing
        return due and not self._limits.stopping and not self._is_running(call)

    def _is_running(self, call: ActivityCall) -> bool:
        attempt = self._running.get((call.name, call.occurrence)) if self._running else None
        return attempt is not None and attempt.attempt == call.attempt and attempt.call.input == call.input


def _activities(asked: Iterable[Call]) -> tuple[list[ActivityCall], list[ActivityCall]]:
    """Those that are calls of activities; and of these once more those that are delivered at most once."""
    # One loop for both, because every step of every body comes by here.
    calls: list[ActivityCall] = []
    once: list[ActivityCall] = []
    for call in asked:
        if isinstance(call, ActivityCall):
            calls.append(call)
            if call.activity.at_most_once:
                once.append(call)
    return calls, once


def _same_step(one: Call, other: Call) -> bool:
    return (one.name, one.occurrence, one.input) == (other.name, other.occurrence, other.input)


def _start_said(start: Start, answer: Answer) -> bytes:
    """How the call ends that has started this, or has met what is there."""
    return verdict_on(start, next((met.payload for met in answer.met if met.start is start), None))


def _too_large(call: Call, limit: int, now: Instant) -> Event:
    assert call.mail is not None
    error = too_large(call.mail.exit, limit, f"What {call.name!r} sends", call.name)
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
