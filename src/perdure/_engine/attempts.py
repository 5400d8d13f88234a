"""One attempt of an activity: calls the user's function, and says how it ended.

An attempt ends in one of three ways. It *exits*: with a value, a declared error, a defect, a
timeout, or by cancelling itself; that is an event, and is recorded. It is *cut off* by the host (a
stop, a lost fence, a lost race): that is recorded nowhere, whatever it raises, but a value that it
still returns in time counts (R9). Or it is *abandoned*: it outlived its timeout and would not end;
then the timeout is what is recorded, and whatever comes later is ignored (R12).
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from contextvars import copy_context
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from perdure import _failpoints
from perdure._definitions import ambient
from perdure._definitions.activity import Activity, ActivityCall
from perdure._definitions.host import Engine
from perdure._engine.committer import Committer
from perdure._engine.retrying import next_attempt_at
from perdure._engine.showing import Showing
from perdure._engine.slots import Slots
from perdure._engine.threads import Threads, Work
from perdure._ids import step_key
from perdure._kernel.event import Event
from perdure._model.clock import Alarm, Clock
from perdure._model.journal import Kind
from perdure._model.records import Acts, ExecutionId
from perdure._values.cause import Cause
from perdure._values.duration import describe_ms
from perdure._values.instant import UNTIL_RESUMED
from perdure._values.limit import check_size
from perdure.errors import ActivityTimeout, AttemptCancelled, PayloadError

if TYPE_CHECKING:
    from perdure._values.instant import Instant

logger = logging.getLogger("perdure")

T = TypeVar("T")

# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY

# An async function that has been told to end because its time is over gets this long for its
# clean-up; then the attempt is over without it.
CLEAN_UP_MS = 10_000

# Two heartbeats of an attempt are written at least this far apart (R15).
HEARTBEAT_MS = 1_000


class Workshop(Protocol):
    """What attempts share: the engine's places, threads and clock."""

    @property
    def clock(self) -> Clock: ...

    @property
    def slots(self) -> Slots: ...

    @property
    def threads(self) -> Threads: ...

    @property
    def thread_slots(self) -> Slots: ...

    @property
    def stopping(self) -> bool: ...

    @property
    def random(self) -> Random: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def committer(self) -> Committer: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's own."""
        ...

    @property
    def payload_limit(self) -> int: ...

    def note_heartbeat(self, attempt: "Attempt", details: bytes, /) -> None: ...

    async def recall_heartbeat(self, attempt: "Attempt", /) -> bytes | None: ...

    def step_aside(self, execution_id: ExecutionId, /) -> None:
        """It waits for another execution, and does not count against admission."""
        ...

    def step_back(self, execution_id: ExecutionId, /) -> None:
        """It counts again."""
        ...


class Owner(Protocol):
    """The execution to which an attempt belongs."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def incarnation(self) -> bytes: ...

    @property
    def life(self) -> int: ...

    @property
    def fence(self) -> int:
        """What this worker's writes to it carry."""
        ...

    @property
    def workflow(self) -> str: ...

    @property
    def suspends_on_failure(self) -> bool:
        """Whether a failure that is the last one holds the execution (R36)."""
        ...

    def called_more_than_once(self, name: str, /) -> bool: ...

    def attempt_ended(self, attempt: "Attempt", event: Event | None, /) -> None:
        """The attempt is over; None: it was cut off, there is nothing to record."""
        ...


class Attempt:
    """A running attempt. It is the `AttemptScope` of the activity in it."""

    __slots__ = (
        "_abandon_alarm", "_alarm", "_allowed_ms", "_has_thread", "_last_details", "_noted_at", "_owner", "_placed",
        "_recalls", "_shop", "_showing", "_task", "_timed_out", "_unwritten", "_waits", "_work", "attempt", "call", "cut_off", "over", "queued",
    )  # fmt: skip

    def __init__(self, call: ActivityCall, owner: Owner, shop: Workshop, *, recalls: bool) -> None:
        self.call = call
        self.attempt = call.attempt
        self._owner = owner
        self._shop = shop
        self._task: asyncio.Task[None] | None = None
        self._work: Work | None = None
        self._alarm: Alarm | None = None
        self._abandon_alarm: Alarm | None = None
        self._timed_out = False
        # The timeout that counts for it: its own, or the one of all attempts together.
        self._allowed_ms = 0
        # Whether it has one of the engine's places, which it has not while it sleeps; and one of its threads.
        self._placed = False
        self._has_thread = False
        # How many waits of it are under way at which it needs no place.
        self._waits = 0
        # Whether it still waits for its place, and the function has not been called.
        self.queued = True
        # An earlier attempt may have noted its progress; read before this one begins.
        self._recalls = recalls
        self._last_details: bytes | None = None
        self._noted_at: Instant | None = None
        # Details that came too soon after the last write; written when the attempt ends.
        self._unwritten = False
        # What it shows of its execution; made when it does.
        self._showing: Showing | None = None
        # The host wants it to end; nothing of it is recorded any more, but a value.
        self.cut_off = False
        # The owner has been told; whatever the function still does has no effect.
        self.over = False

    # Its course ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Call the function, as a task of the outer loop in a copy of the body's context (R14)."""
        call, name = self.call, _task_name(self.call.name, self._owner.workflow)
        # A copy of that copy, or the next attempt would see what this one sets. Not by the loop's `create_task`: a factory
        # that begins tasks at once would run the function in the middle of whatever has allowed it.
        self._task = asyncio.Task(self._perform(), loop=self._shop.loop, name=name, context=call.context.copy())

    @property
    def task(self) -> asyncio.Task[None]:
        """The task it runs in."""
        assert self._task is not None
        return self._task

    def cut(self) -> None:
        """End it as the host."""
        self.cut_off = True
        if self._work is not None:
            # A thread cannot be cancelled. It goes on, and `heartbeat` tells it that it is over.
            self._leave_thread()
        if self._task is not None:
            self._task.cancel()
        if self._showing is not None:
            self._showing.give_up()

    @property
    def has_place(self) -> bool:
        """Whether it has a place among the running activities, which it has not while it sleeps or waits for others."""
        return self._placed

    @property
    def on_thread(self) -> bool:
        """Whether a plain function of it is running on a thread at this moment."""
        return self._work is not None and self._work.begun

    async def _perform(self) -> None:
        ambient.host.set(None)
        ambient.attempt.set(self)
        try:
            if self._recalls:
                self._last_details = await self._shop.recall_heartbeat(self)
            # Without a coroutine, in the good case: there is a place, and no thread is needed.
            if self.call.activity.is_async and self._shop.slots.try_take():
                self._placed = True
            else:
                self._arm_total_timeout()
                await self._take_place()
                self._cancel_alarms()
            self.queued = False
        except asyncio.CancelledError:
            self._cancel_alarms()
            self._end(self._failed(self._timeout_error()) if self._timed_out and not self.cut_off else None)
            return
        if self._shop.stopping and not self.call.activity.at_most_once:
            # It has waited for its place until the engine began to close. Nothing new begins then; only one that is
            # noted as begun does, for nobody could tell later that it has not.
            self._give_place()
            self._end(None)
            return
        try:
            event = await self._exit()
        except Exception as error:  # noqa: BLE001 - the attempt: a type's own code raised while its exit was encoded
            event = self._event(self.call.activity.codec.encode_failure(Cause.die(error)))
        finally:
            self._give_place()
            self._cancel_alarms()
        self._end(event)

    async def _take_place(self) -> None:
        """Wait for a place among the running activities, and a plain function for a thread.

        Before its timeout runs: a function that waits behind others has done nothing wrong. That of all attempts together
        runs on (R11), and when it is over the function is not called any more.
        """
        # The thread first: functions that wait for one must not take the places of those that need none.
        if not self.call.activity.is_async:
            await self._shop.thread_slots.take()
            self._has_thread = True
        try:
            await self._shop.slots.take()
        except asyncio.CancelledError:
            self._give_thread()
            raise
        self._placed = True

    async def _exit(self) -> Event | None:
        activity = self.call.activity
        if activity.timeout_ms is not None or activity.total_timeout_ms is not None:
            self._arm_timeout(activity)
        _failpoints.reach("effect.before")
        try:
            if activity.is_async:
                value = await activity.function(*self.call.args, **self.call.kwargs)
            else:
                value = await self._on_thread(activity)
                if inspect.isawaitable(value):  # `execute=lambda: gateway.charge(order)`
                    value = await value
            self._shop.threads.end_a_stray_child(None)
            _failpoints.reach("effect.after")
        except asyncio.CancelledError as error:
            if self._timed_out:
                return self._failed(self._timeout_error())
            if self.on_thread:
                raise
            # Nobody outside has cancelled it, so it was the function itself (R13).
            return None if self.cut_off else self._failed(error)
        except BaseException as raised:  # noqa: BLE001 - this is the attempt; SystemExit in it is a defect of it (R9)
            self._shop.threads.end_a_stray_child(raised)
            # Under no other name: the error's traceback holds this frame, and the frame would hold the error.
            return None if self.cut_off else self._failed(self._timeout_error() if self._timed_out else raised)
        return self._failed(self._timeout_error()) if self._timed_out else self._succeeded(activity, value)

    async def _on_thread(self, activity: Activity[..., Any]) -> Any:
        call = self.call
        work = self._shop.threads.submit(lambda: activity.function(*call.args, **call.kwargs), copy_context())
        self._work = work
        try:
            value = await work.future
        except asyncio.CancelledError:
            if not (self.cut_off or self._timed_out) and work.begun and not work.over:
                # Neither the host nor a timeout, but whoever cancels all tasks of the loop. The function goes on, and
                # as long as it does it is this process's: the attempt is not over (R12).
                raise
            self._leave_thread()
            self._give_thread()
            raise
        except BaseException:
            self._leave_thread()
            self._give_thread()
            raise
        self._work = None
        # Its own or, if that was abandoned, a new one in its place. What the function returned may be awaited for long,
        # on the loop.
        self._give_thread()
        return value

    def _leave_thread(self) -> None:
        if self._work is not None and not self._work.over and self._shop.threads.abandon(self._work):
            logger.warning(
                "activity %r of %s %s still runs on its thread; its attempt is over and its result will be ignored",
                self.name, self._owner.workflow, self._owner.execution_id,
            )  # fmt: skip
        self._work = None

    def _end(self, event: Event | None) -> None:
        if not self.over:
            self.over = True
            # Its context holds the attempt for the user's code, and the task its context: a ring, and what every step
            # leaves would wait for the collector. A task that was abandoned goes on without it.
            self._task = None
            if self._unwritten and self._last_details is not None:
                self._shop.note_heartbeat(self, self._last_details)
            self._owner.attempt_ended(self, event)

    # Timeouts ------------------------------------------------------------------------------------

    def _arm_total_timeout(self) -> None:
        total_ms = self.call.activity.total_timeout_ms
        if total_ms is not None:
            self._allowed_ms = total_ms
            self._alarm = self._shop.clock.call_at(self.call.asked_at + total_ms, self._expire)

    def _arm_timeout(self, activity: Activity[..., Any]) -> None:
        """End it after its own timeout, or when all attempts together have used up theirs (R11)."""
        now = self._shop.clock.now()
        limits: list[tuple[int, int]] = []
        if activity.timeout_ms is not None:
            limits.append((activity.timeout_ms, activity.timeout_ms))
        if activity.total_timeout_ms is not None:
            limits.append((self.call.asked_at + activity.total_timeout_ms - now, activity.total_timeout_ms))
        left, self._allowed_ms = min(limits)
        self._alarm = self._shop.clock.call_at(now + left, self._expire)

    def _expire(self) -> None:
        assert self._task is not None
        self._timed_out = True
        self._task.cancel()
        self._abandon_alarm = self._shop.clock.call_at(self._shop.clock.now() + CLEAN_UP_MS, self._abandon)
        if self._showing is not None:
            self._showing.give_up()

    def _abandon(self) -> None:
        logger.warning(
            "activity %r of %s %s did not end within %s after its timeout; it is left to itself",
            self.name, self._owner.workflow, self._owner.execution_id, describe_ms(CLEAN_UP_MS),
        )  # fmt: skip
        self._end(self._failed(self._timeout_error()))

    def _cancel_alarms(self) -> None:
        for alarm in (self._alarm, self._abandon_alarm):
            if alarm is not None:
                alarm.cancel()
        # Cancelled, they still hold the context that they were set in, and with it the attempt.
        self._alarm = self._abandon_alarm = None

    def _timeout_error(self) -> ActivityTimeout:
        return ActivityTimeout(
            f"Activity {self.name!r} did not end within {describe_ms(self._allowed_ms)} (attempt {self.attempt}).",
            activity=self.name,
            attempt=self.attempt,
            timeout_ms=self._allowed_ms,
        )

    # Exits -----------------------------------------------------------------------------------------

    def _succeeded(self, activity: Activity[..., Any], value: Any) -> Event:
        try:
            encoded, decoded = activity.codec.success(value)
            check_size(encoded, self._shop.payload_limit, f"The result of activity {self.name!r}", self.name)
        except PayloadError as error:
            # What the function does is done; another attempt would do it again and give the same.
            return self._failed(error, can_retry=False)
        return self._event(encoded, decoded, has_value=True)

    def _failed(self, error: BaseException, *, can_retry: bool = True) -> Event:
        call = self.call
        now = self._shop.clock.now()
        cause, again_at = next_attempt_at(call, error, now, self._shop.random, can_retry=can_retry)
        if again_at is None and self._owner.suspends_on_failure:
            again_at = UNTIL_RESUMED
        try:
            encoded = call.activity.codec.encode_failure(cause, again_at)
        except PayloadError as unencodable:
            encoded = call.activity.codec.encode_failure(Cause.die(unencodable), again_at)
        return self._event(encoded)

    def _event(self, encoded: bytes, value: Any = None, *, has_value: bool = False) -> Event:
        call = self.call
        return Event(
            _ACTIVITY, call.name, call.occurrence, self.attempt, call.input, encoded,
            self._shop.clock.now(), value, has_value,
        )  # fmt: skip

    # AttemptScope: what the activity asks --------------------------------------------------------

    @property
    def execution_id(self) -> ExecutionId:
        """The execution's id."""
        return self._owner.execution_id

    @property
    def step(self) -> tuple[bytes, str, int]:
        """What its heartbeats are kept under."""
        return self._owner.incarnation, self.call.name, self.call.occurrence

    @property
    def life(self) -> int:
        """The number of the incarnation."""
        return self._owner.life

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._owner.workflow

    @property
    def name(self) -> str:
        """The activity's name in this call."""
        return self.call.name

    @property
    def idempotency_key(self) -> str:
        """This step's own key (R14)."""
        call = self.call
        return step_key(self.execution_id, self.life, call.name, call.input, call.number_of_equals)

    @property
    def engine(self) -> Engine:
        """The engine that runs it."""
        return self._shop.engine

    def called_more_than_once(self, name: str, /) -> bool:
        """Whether the body has called that activity more than once so far."""
        return self._owner.called_more_than_once(name)

    def heartbeat(self, details: bytes, /) -> None:
        """Note progress, at most one write a second; from any thread (R15)."""
        self._check_goes_on()
        # Before it counts as noted: what is refused replaces nothing, neither here nor in the store.
        check_size(details, self._shop.payload_limit, f"The heartbeat of activity {self.name!r}", self.name)
        self._last_details = details
        now = self._shop.clock.now()
        self._unwritten = self._noted_at is not None and now - self._noted_at < HEARTBEAT_MS
        if not self._unwritten:
            self._noted_at = now
            self._shop.note_heartbeat(self, details)

    def last_heartbeat(self) -> bytes | None:
        """What was noted last, by this attempt or an earlier one."""
        return self._last_details

    def show(self, acts: Acts, /) -> None:
        """Set attributes of its execution and publish for it, at once (R42)."""
        self._check_goes_on()
        loop = self._shop.loop
        if _runs_on(loop):
            self._shows().begin(acts)
        else:
            asyncio.run_coroutine_threadsafe(self._show(acts), loop).result()

    async def shown(self) -> None:
        """Wait until what it has shown is written."""
        if self._showing is not None:
            await self._showing.settled()

    async def _show(self, acts: Acts) -> None:
        # Again, on the loop, where an attempt ends: its thread may have asked a moment before.
        self._check_goes_on()
        await self._shows().show(acts)

    def _shows(self) -> Showing:
        if self._showing is None:
            self._showing = Showing(self._owner, self._shop.committer)
        return self._showing

    def _check_goes_on(self) -> None:
        if self.over or self.cut_off or self._timed_out:
            raise AttemptCancelled(f"Attempt {self.attempt} of activity {self.name!r} is over.")

    async def sleep(self, duration_ms: int, /) -> None:
        """Wait in place; the place among the running activities is given back meanwhile (R14)."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        alarm = self._shop.clock.call_at(self._shop.clock.now() + duration_ms, lambda: _wake(over))
        self._waits += 1
        self._give_place()
        try:
            await over
        finally:
            self._waits -= 1
            alarm.cancel()
        await self._take_place_again()

    async def aside(self, waiting: Awaitable[T], /) -> T:
        """Await what another execution brings about; neither a place nor the admission is held meanwhile (R5, R14).

        Else as many parents as may run at once would wait for children that may not. A plain function stays on its thread.
        """
        shop, execution_id = self._shop, self._owner.execution_id
        self._waits += 1
        self._give_place(with_thread=not self.on_thread)
        shop.step_aside(execution_id)
        try:
            return await waiting
        finally:
            self._waits -= 1
            shop.step_back(execution_id)
            if not self.cut_off and not self._timed_out:
                await self._take_place_again()

    async def _take_place_again(self) -> None:
        # Not when it was cancelled: whoever is told to end must not wait for a place to do so.
        # Nor as long as another wait of it goes on: a place held meanwhile may be the one that this one waits for.
        if not self._placed and not self._waits:
            await self._shop.slots.take()
            self._give_place()  # another wait of this attempt may have been faster
            self._placed = True
            if self.over or self._waits:
                self._give_place()

    def _give_place(self, *, with_thread: bool = True) -> None:
        if self._placed:
            self._placed = False
            self._shop.slots.give()
        if with_thread:
            self._give_thread()

    def _give_thread(self) -> None:
        if self._has_thread:
            self._has_thread = False
            self._shop.thread_slots.give()


@lru_cache
def _task_name(activity: str, workflow: str) -> str:
    return f"activity {activity!r} of {workflow}"


def _runs_on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False  # a thread without a loop


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
