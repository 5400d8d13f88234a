"""The kernel alone: what is done when a body has ended, live and on every replay (R27, R28, R29, R31)."""

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any

import pytest

from perdure import (
    ActivityTimeout,
    Cause,
    Exit,
    Failure,
    Schedule,
    Success,
    UsageError,
    activity,
    add_finalizer,
    scope,
    sleep,
    with_compensation,
    workflow,
)
from perdure._definitions.activity import ActivityCall
from perdure._kernel.ending import Ending, plain_ending
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.records import DEADLINE_NAME, INTERRUPTED, Letter, MailKind
from perdure._model.status import Held, Status
from perdure._values.exit_codec import encode_outcome
from perdure._values.instant import UNTIL_RESUMED
from perdure.errors import DeadlineExceeded

from tests.kernel.driver import Body, Play
from tests.kernel.steps import Declined, begin, fetch, store


def undo(value: int, cause: Cause | None = None) -> Awaitable[object]:
    """As a compensation."""
    return store(value)


class Unwinding(Play):
    """An execution that can be interrupted, and whose compensations can be passed over."""

    _wakes = 0

    def letter(self, kind: MailKind, name: str = "", exit: bytes = b"") -> bool:
        """Mail comes."""
        self._wakes += 1
        read = self.kernel.read(Letter(self._wakes, kind, name, exit, self.now))
        self._take()
        return read

    def interrupt(self, exit: bytes = INTERRUPTED) -> bool:
        """Somebody asks it to end."""
        return self.letter(MailKind.INTERRUPT, exit=exit)

    def skip(self) -> bool:
        """Somebody passes over the compensation that holds it."""
        return self.letter(MailKind.SKIP, name=str(self._wakes + 1))

    def hold(self, exit: bytes = b"") -> None:
        """What an engine does with one that is in trouble: the journal remembers, and the kernel is put away."""
        self.kernel.note_held(exit)
        self._take()

    @property
    def held(self) -> Held | None:
        """Why it is held."""
        return None if self.kernel.trouble is None else self.kernel.trouble.held

    @property
    def status(self) -> Status | None:
        """How it has ended."""
        return None if not self.ended or self.kernel.ending is None else self.kernel.ending.status


def played(body: Body) -> Unwinding:
    return Unwinding(body)


def stands_the_same_on_replay(play: Unwinding) -> None:
    """From every commit on it could have been another worker's."""
    assert play.again().standing() == play.standing()
    for upto in sorted(set(play.commits)):
        assert play.again(upto=upto).held in {None, Held.COMPENSATION}


# One stack --------------------------------------------------------------------------------------------------------------


def test_the_stack_is_run_from_the_top_one_at_a_time() -> None:
    """R27: live and replayed, each step of it an entry like the body's."""

    async def body() -> None:
        await add_finalizer(lambda _: store(0))
        await with_compensation(fetch(1), undo)
        await with_compensation(fetch(2), undo)
        raise ValueError

    play = played(body)
    play.answer("fetch", 1)
    play.answer("fetch", 2)
    for wanted in (2, 1, 0):
        assert play.waiting == [f'store{{"x":{wanted}}}#{3 - wanted}']
        assert not play.ended
        assert play.again().waiting == play.waiting
        play.answer("store", 0)
    assert (play.ended, play.status) == (True, Status.FAILED)
    stands_the_same_on_replay(play)


def test_after_a_success_only_finalizers_are_run() -> None:
    """R27."""

    async def body() -> str:
        await with_compensation(fetch(1), undo)
        await add_finalizer(lambda _: store(0))
        return "done"

    play = played(body)
    play.answer("fetch", 1)
    assert play.waiting == ['store{"x":0}#1']
    play.answer("store", 0)
    assert (play.result(), play.status) == ("done", Status.SUCCEEDED)
    stands_the_same_on_replay(play)


def test_putting_a_kernel_away_runs_nothing_of_its_stack() -> None:
    """R6, R27: eviction is no end."""
    told: list[Any] = []

    async def on_exit(exit: Exit[Any]) -> None:
        told.append(exit)

    async def body() -> None:
        await add_finalizer(on_exit)
        await with_compensation(fetch(1), undo)
        await fetch(2)

    play = played(body)
    play.answer("fetch", 1)
    play.close()
    assert told == []


def test_a_finalizer_runs_in_the_body_s_context() -> None:
    """R14: it may ask whatever the body may."""
    seen: list[int] = []
    customer: ContextVar[int] = ContextVar("customer")

    async def on_exit(exit: Exit[Any]) -> None:
        seen.append(customer.get())
        seen.append(await fetch(5))
        await sleep("2 hours", name="pause")
        seen.append(await fetch(6))

    async def body() -> int:
        customer.set(4)
        await add_finalizer(on_exit)
        return 1

    play = played(body)
    play.answer("fetch", 5)
    assert play.timer_names == ["pause"]
    play.fire("pause")
    play.answer("fetch", 6)
    assert play.result() == 1
    assert set(seen) == {4, 5, 6}
    stands_the_same_on_replay(play)


def test_tasks_that_a_finalizer_leaves_are_cancelled_before_the_next_one_runs() -> None:
    """R27, R46."""
    trace: list[str] = []

    async def side() -> None:
        try:
            await fetch(9)
        except asyncio.CancelledError:
            trace.append("cancelled")
            raise

    async def careless(exit: Exit[Any]) -> None:
        begin(side())
        await fetch(1)

    async def body() -> None:
        await add_finalizer(lambda _: store(0))
        await add_finalizer(careless)

    play = played(body)
    play.answer(play.call("fetch", 1) if play.waiting[0].startswith('fetch{"x":9}') else play.call("fetch"), 1)
    assert trace == ["cancelled"]
    assert play.waiting == ['store{"x":0}#1']
    play.answer("store", 0)
    assert play.ended


# Steps that are not cut in half --------------------------------------------------------------------------------------------


def interrupted_step(body: Body) -> Unwinding:
    """A body whose first step with compensation runs when it is interrupted."""
    play = played(body)
    assert play.interrupt()
    return play


def test_an_interrupt_leaves_a_step_with_compensation_waiting() -> None:
    """R27: it is not withdrawn, and nothing else happens until it has ended."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)

    play = interrupted_step(body)
    assert play.waiting == ['fetch{"x":1}#1']
    assert play.withdrawn == []
    assert not play.ended
    assert play.again().waiting == play.waiting
    assert play.answer("fetch", 7)
    assert play.waiting == ['store{"x":7}#1']
    play.answer("store", 0)
    assert (play.ended, play.status) == (True, Status.INTERRUPTED)
    stands_the_same_on_replay(play)


def test_a_late_step_takes_the_place_where_its_call_stood() -> None:
    """R27: on replay too, although its registration comes later than others."""

    async def body() -> None:
        late = asyncio.create_task(with_compensation(fetch(1), undo))
        await asyncio.sleep(0)
        await with_compensation(fetch(2), undo)
        late.cancel()
        raise ValueError

    play = played(body)
    play.answer("fetch#2", 2)
    assert play.waiting == ['fetch{"x":1}#1']
    play.answer("fetch", 1)
    assert play.waiting == ['store{"x":2}#1']
    play.answer("store", 0)
    assert play.waiting == ['store{"x":1}#2']
    play.answer("store", 0)
    assert play.ended
    stands_the_same_on_replay(play)


def test_a_late_step_that_fails_asks_for_no_other_attempt() -> None:
    """R27."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)

    play = interrupted_step(body)
    assert play.fail("fetch", Declined(code=1), retry_in_ms=1_000)
    assert (play.ended, play.status, play.waiting) == (True, Status.INTERRUPTED, [])
    stands_the_same_on_replay(play)


def test_a_step_between_two_attempts_is_withdrawn() -> None:
    """R27: told from the journal alone, so that a replay says the same."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)

    play = played(body)
    play.fail("fetch", Declined(code=1), retry_in_ms=60_000)
    assert play.interrupt()
    assert [call.name for call in play.withdrawn] == ["fetch"]
    assert play.ended
    stands_the_same_on_replay(play)


def test_a_second_attempt_that_runs_is_waited_for() -> None:
    """R27: its time had come when the interrupt did."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)

    play = played(body)
    play.fail("fetch", Declined(code=1), retry_in_ms=1_000)
    play.now += 2_000
    # Something is fed after the attempt was due: as far as the journal knows, it runs.
    play.letter(MailKind.DEFERRED, "some", b'{"success":null}')
    assert play.interrupt()
    assert (play.withdrawn, play.ended) == ([], False)
    play.answer("fetch", 3)
    assert play.waiting == ['store{"x":3}#1']
    play.answer("store", 0)
    stands_the_same_on_replay(play)


def test_a_success_waits_for_such_a_step_and_undoes_nothing() -> None:
    """R27: left behind by a body that has returned."""

    async def body() -> str:
        begin(with_compensation(fetch(1), undo))
        await store(5)
        return "done"

    play = played(body)
    play.answer("store", 0)
    assert (play.ended, play.waiting) == (False, ['fetch{"x":1}#1'])
    play.answer("fetch", 1)
    assert play.result() == "done"
    assert play.waiting == []
    stands_the_same_on_replay(play)


@activity(timeout="1 minute", retry=Schedule.spaced("1 second").times(1))
async def slow(x: int) -> int:
    raise NotImplementedError


def test_unknown_stands_where_an_attempt_ended_without_an_answer() -> None:
    """R27: late or not."""
    causes: list[Cause] = []

    async def look(cause: Cause) -> None:
        causes.append(cause)
        await store(9)

    async def body() -> None:
        await with_compensation(slow(1), undo, unknown=look)

    timeout = ActivityTimeout("late", activity="slow", attempt=1, timeout_ms=60_000)
    for interrupted in (True, False):
        play = played(body)
        if interrupted:
            assert play.interrupt()
        play.fail("slow", timeout)
        assert play.waiting == ['store{"x":9}#1']
        play.answer("store", 0)
        assert (play.ended, play.status) == (True, Status.INTERRUPTED if interrupted else Status.FAILED)
        stands_the_same_on_replay(play)
    assert {type(cause.reasons[0]).__name__ for cause in causes} == {"Interrupt", "Fail"}


def test_going_on_as_new_is_refused_while_such_a_step_runs() -> None:
    """R27, R37: it may have to be undone when this life has ended."""

    @workflow(name="Body")
    async def again() -> None: ...

    async def body() -> str:
        begin(with_compensation(fetch(1), undo))
        await store(0)
        with pytest.raises(UsageError, match="still runs"):
            again.continue_as_new()
        return "refused"

    play = played(body)
    play.answer("store", 0)
    play.answer("fetch", 1)
    assert play.result() == "refused"


# Held by a compensation -----------------------------------------------------------------------------------------------------


def held_by_a_compensation() -> Unwinding:
    """A compensation of two steps, of which the second has failed."""

    async def undone(value: int, cause: Cause) -> None:
        await store(value)
        await store(value + 1)

    async def body() -> None:
        await with_compensation(fetch(1), undo)
        await with_compensation(fetch(2), undone)
        raise ValueError("the body's own")

    play = played(body)
    play.answer("fetch", 10)
    play.answer("fetch", 20)
    play.answer("store", 0)
    play.fail("store", Declined(code=1))
    assert (play.held, play.ended) == (Held.COMPENSATION, False)
    play.hold()
    return play


def test_a_failing_compensation_holds_and_its_failure_is_void_when_it_is_resumed() -> None:
    """R28: what succeeded in it does not run again."""
    play = held_by_a_compensation()
    resumed = play.again()
    assert resumed.held is None
    assert resumed.waiting == ['store{"x":21}#2']
    assert resumed.call("store").attempt == 2
    resumed.answer("store", 0)
    assert resumed.waiting == ['store{"x":10}#3']
    resumed.answer("store", 0)
    assert (resumed.ended, resumed.status) == (True, Status.FAILED)
    stands_the_same_on_replay(resumed)


def test_it_may_fail_again_and_again() -> None:
    """R28: every failure is void in its turn."""
    play = held_by_a_compensation()
    for attempt in (2, 3, 4):
        play = play.again()
        assert play.call("store").attempt == attempt
        play.fail("store", Declined(code=attempt))
        assert play.held is Held.COMPENSATION
        play.hold()
    play = play.again()
    play.answer("store", 0)
    assert play.waiting == ['store{"x":10}#3']


def test_nothing_but_a_skip_lifts_it_live() -> None:
    """R28, R36: neither mail nor an interrupt; results of what still runs are not fed."""
    play = held_by_a_compensation()
    before = list(play.journal)
    assert not play.interrupt()
    assert not play.letter(MailKind.DEFERRED, "some", b'{"success":null}')
    assert play.journal == before
    assert play.skip()
    assert play.held is None
    assert play.waiting == ['store{"x":10}#3']
    play.answer("store", 0)
    assert play.ended
    stands_the_same_on_replay(play)


def test_a_skip_is_replayed() -> None:
    """R28: the compensation that was passed over is run again up to where it failed, and no further."""
    play = held_by_a_compensation().again()
    assert play.skip()
    assert play.waiting == ['store{"x":10}#3']
    assert [call.name for call in play.withdrawn] == ["store"]
    assert play.again().waiting == play.waiting
    play.answer("store", 0)
    assert (play.ended, play.status) == (True, Status.FAILED)
    stands_the_same_on_replay(play)


def test_what_a_skipped_compensation_has_left_is_cancelled_and_asks_for_nothing() -> None:
    """R27, R28, R46: live as on replay, before the next one runs."""

    async def side() -> None:
        try:
            await fetch(9)
        finally:
            await store(99)

    async def undone(value: int, cause: Cause) -> None:
        begin(side())
        await store(value)
        raise ValueError

    async def body() -> None:
        await add_finalizer(lambda _: store(0))
        await with_compensation(fetch(1), undone)
        raise ValueError

    play = played(body)
    play.answer("fetch", 1)
    play.answer("store", 0)
    assert (play.held, play.waiting) == (Held.COMPENSATION, ['fetch{"x":9}#2'])
    play.hold()
    for skipped in (play.again(), play):
        assert skipped.skip()
        assert [call.name for call in skipped.withdrawn] == ["fetch"]
        assert skipped.waiting == ['store{"x":0}#3']
        assert skipped.again().waiting == skipped.waiting


def test_a_skipped_compensation_asks_for_nothing_in_its_own_cleaning() -> None:
    """R28: on replay it waits for the step that failed, and is cancelled there."""

    async def undone(value: int, cause: Cause) -> None:
        try:
            await store(value)
        except asyncio.CancelledError:
            await store(98)
            raise

    async def body() -> None:
        await add_finalizer(lambda _: fetch(0))
        await with_compensation(fetch(1), undone)
        raise ValueError

    play = played(body)
    play.answer("fetch", 1)
    play.fail("store", Declined(code=1))
    play.hold()
    resumed = play.again()
    assert resumed.skip()
    assert resumed.waiting == ['fetch{"x":0}#2']
    assert resumed.again().standing() == resumed.standing()


def test_a_skip_means_nothing_to_a_body_that_runs() -> None:
    """R28."""

    async def body() -> None:
        await fetch(1)

    play = played(body)
    assert not play.skip()
    assert play.journal == []


def test_a_cancellation_that_leaves_a_compensation_holds_it() -> None:
    """R28, R32: nobody has interrupted it."""

    async def undone(value: int, cause: Cause) -> None:
        raise asyncio.CancelledError

    async def body() -> None:
        await with_compensation(fetch(1), undone)
        raise ValueError

    play = played(body)
    play.answer("fetch", 1)
    assert play.held is Held.COMPENSATION


# Interrupts -----------------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_one_turn_and_leaves_nothing_behind() -> None:
    """R29: `cancelling()` is 0, live and replayed."""
    seen: list[int] = []

    async def body() -> str:
        try:
            await fetch(1)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            seen.append(task.cancelling())
        async with asyncio.timeout(10):
            await fetch(2)
        return "done"

    play = played(body)
    assert play.interrupt()
    assert [call.input for call in play.withdrawn] == [b'{"x":1}']
    assert not play.interrupt()
    play.answer("fetch", 2)
    assert play.result() == "done"
    assert play.status is Status.SUCCEEDED
    stands_the_same_on_replay(play)
    assert set(seen) == {0}


@pytest.mark.parametrize("exit", [INTERRUPTED, encode_outcome(DeadlineExceeded())])
def test_a_body_that_lets_it_ends_with_the_exit_of_the_interrupt(exit: bytes) -> None:
    """R29, R44."""

    async def body() -> None:
        await fetch(1)

    play = played(body)
    assert play.interrupt(exit)
    assert play.kernel.ending is not None
    assert play.kernel.ending.exit == exit
    assert play.status is (Status.INTERRUPTED if exit == INTERRUPTED else Status.FAILED)
    stands_the_same_on_replay(play)


@pytest.mark.parametrize("first", ["interrupt", "deadline", "hold"])
def test_interrupts_of_several_names_are_each_told_once(first: str) -> None:
    """R29, R36, R44: to a body that is busy with an earlier one; it ends with the exit of that which it lets end it."""
    letters = {
        "interrupt": ("", INTERRUPTED),
        "deadline": (DEADLINE_NAME, encode_outcome(DeadlineExceeded())),
        "hold": ("held/3", HELD_WITH),
    }
    names = [first, *(name for name in letters if name != first)]

    async def body() -> None:
        for number in range(2):
            try:
                await fetch(number)
            except asyncio.CancelledError:
                continue
        await fetch(2)

    play = played(body)
    for number, told in enumerate(names):
        name, cause = letters[told]
        assert play.waiting == [f'fetch{{"x":{number}}}#{number + 1}']
        assert play.letter(MailKind.INTERRUPT, name, cause)
        assert not play.letter(MailKind.INTERRUPT, name, cause)
        assert not play.again().letter(MailKind.INTERRUPT, name, cause)
    assert play.kernel.ending is not None
    assert play.kernel.ending.exit == letters[names[-1]][1]
    assert [entry.name for entry in play.journal] == [letters[name][0] or "interrupt" for name in names]
    stands_the_same_on_replay(play)


def test_an_interrupt_after_the_body_s_end_is_not_recorded() -> None:
    """R29: while its finalizers run, and when they have."""

    async def body() -> str:
        await add_finalizer(lambda _: store(0))
        return "done"

    play = played(body)
    assert not play.interrupt()
    assert play.journal == []
    play.answer("store", 0)
    assert not play.interrupt()
    assert play.result() == "done"


def test_an_interrupt_with_what_held_it_gives_up_the_steps_that_failed() -> None:
    """R27, R36: none of them is made again; their guards hear how they have ended."""

    async def body() -> None:
        await asyncio.gather(with_compensation(slow(1), undo, unknown=lambda cause: store(9)), fetch(2))

    play = played(body)
    call = play.call("slow")
    _hold_with(play, call, ActivityTimeout("late", activity="slow", attempt=1, timeout_ms=60_000))
    held = play.again()
    assert held.waiting[0] == 'slow{"x":1}#1'
    assert held.interrupt(HELD_WITH)
    assert held.waiting == ['store{"x":9}#1']
    held.answer("store", 0)
    assert held.ended
    assert held.again().standing() == held.standing()


def test_an_interrupt_after_a_resume_waits_for_the_attempt_that_runs() -> None:
    """R27, R36: somebody had resumed it, so the interrupt is an ordinary one."""

    async def body() -> None:
        await with_compensation(slow(1), undo)

    play = played(body)
    _hold_with(play, play.call("slow"), Declined(code=1))
    resumed = play.again()
    assert resumed.interrupt()
    assert resumed.waiting == ['slow{"x":1}#1']
    resumed.answer("slow", 4)
    assert resumed.waiting == ['store{"x":4}#1']


def test_a_failure_that_cannot_be_read_holds_what_is_interrupted_with_it() -> None:
    """R27, R40: what its guard is to hear nobody knows."""

    async def body() -> None:
        await with_compensation(slow(1), undo)

    play = played(body)
    _hold_with(play, play.call("slow"), Declined(code=1))
    # It was declared then.
    play.journal = [entry._replace(exit=entry.exit.replace(b'"die"', b'"fail"')) for entry in play.journal]
    held = play.again()
    assert held.interrupt(HELD_WITH)
    assert held.held is Held.UNREADABLE


def test_a_skip_is_nothing_to_one_that_its_body_s_failure_holds() -> None:
    """R28, R36: no compensation holds it; an interrupt lifts it, and a skip neither lifts it nor is recorded."""

    def judge(value: Any, failure: BaseException | None, interrupted: bytes | None) -> Ending:
        return plain_ending(value, failure, interrupted)._replace(held=Held.FAILURE)

    async def body() -> None:
        raise ValueError

    kernel = Kernel(Origin("00" * 16, 1, "Body", b"seed", 0, unborn=True), judge=judge)
    kernel.begin(body)
    for letter in (MailKind.SKIP, MailKind.INTERRUPT):
        assert kernel.trouble is not None
        assert kernel.trouble.held is Held.FAILURE
        assert kernel.read(Letter(1, letter, "held/1", INTERRUPTED, 0)) is (letter is MailKind.INTERRUPT)
    assert kernel.trouble is None
    assert kernel.ended


# What an execution was held with: neither an interrupt nor a deadline.
HELD_WITH = b'{"failure":[{"interrupt":{}},{"interrupt":{}}]}'


def _hold_with(play: Unwinding, call: ActivityCall, error: Exception) -> None:
    """An activity fails, its execution shall be held with that, and is."""
    codec = call.activity.codec
    play.deliver(call, codec.encode_failure(codec.cause_of(error), UNTIL_RESUMED))
    assert list(play.kernel.failing) == [call]
    play.hold(HELD_WITH)


# Scopes and exits ----------------------------------------------------------------------------------------------------------


def test_a_scope_is_closed_on_the_stack_live_and_replayed() -> None:
    """R27."""

    async def body() -> None:
        stack = scope()
        stack.push_async_callback(store, 1)
        stack.push_async_callback(store, 2)
        await fetch(0)

    play = played(body)
    play.answer("fetch", 0)
    assert play.waiting == ['store{"x":2}#1']
    play.answer("store", 0)
    play.answer("store", 0)
    assert play.ended
    stands_the_same_on_replay(play)


def test_finalizers_see_a_success_or_a_failure() -> None:
    """R27."""
    told: list[Exit[Any]] = []

    async def on_exit(exit: Exit[Any]) -> None:
        told.append(exit)

    async def returns() -> int:
        await add_finalizer(on_exit)
        return 3

    async def raises() -> int:
        await add_finalizer(on_exit)
        raise Declined(code=2)

    played(returns)
    played(raises)
    first, second = told
    assert first == Success(3)
    assert isinstance(second, Failure)
