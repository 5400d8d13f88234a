"""Where an execution stands after a turn: it runs on, is suspended, held, or has ended (R5, R33-R35).

Told from the kernel alone, so that the same turn means the same on every worker. Quiescence decides
and not the order in which branches were started: whatever waits only for things from outside is
suspended; what waits for nothing at all is held.
"""

import asyncio
import itertools
import json
from typing import Any, Final, NamedTuple

from perdure._definitions.clock import IN_MEMORY_THRESHOLD_MS, TimerCall
from perdure._definitions.host import Call
from perdure._definitions.workflow import WorkflowImplementation
from perdure._kernel.ending import Ending, Judge
from perdure._kernel.event import Trouble
from perdure._kernel.kernel import Kernel
from perdure._model.journal import Kind
from perdure._model.records import interrupted_status
from perdure._model.status import Held, Status
from perdure._values.cause import Cause, Die
from perdure._values.exit import Failure, Success
from perdure._values.exit_codec import ExitCodec, merged_failures
from perdure._values.instant import UNTIL_RESUMED, Instant
from perdure._values.limit import check_size
from perdure.errors import Defect, PayloadError

# Of a body that waits for thousands of things, so many are shown to those who look.
MOST_WAITS_SHOWN = 100


# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY
_SENT: Final = Kind.SENT


class Standing(NamedTuple):
    """What a turn's commit says of its execution."""

    status: Status
    held: Held | None = None
    # The exit when it has ended; the cause when it is held.
    exit: bytes | None = None
    wake_at: Instant | None = None
    waits: bytes | None = None


_RUNNING = Standing(Status.RUNNING)


def standing_of(
    kernel: Kernel, implementation: WorkflowImplementation[..., Any], *, now: Instant, busy: bool
) -> Standing:
    """Where an execution stands after a turn of its kernel; `busy`: while attempts of it run."""
    codec = implementation.codec
    if kernel.trouble is not None:
        return _held(kernel, codec, kernel.trouble)
    if kernel.ended:
        return _ended(kernel)
    if kernel.failing:
        return _RUNNING if busy else _failed(kernel, codec)
    if not kernel.steps.waiting and not kernel.steps.leaving:
        return _deadlocked(kernel, codec, implementation.name)
    return _RUNNING if _in_hand(kernel, now) else _suspended(kernel)


def judge_of(implementation: WorkflowImplementation[..., Any], payload_limit: int) -> Judge:
    """Tells what the body of a workflow has come to, as it is recorded."""
    codec = implementation.codec

    def judge(value: Any, failure: BaseException | None, interrupted: bytes | None) -> Ending:
        if failure is None:
            try:
                encoded, told = codec.success(value)
                name = implementation.name
                check_size(encoded, payload_limit, f"The result of workflow {name!r}", name)
            except BaseException as error:  # noqa: BLE001 - this is the body's end; what a type's own code raises is a defect (R9)
                failure = error
            else:
                return Ending(Status.SUCCEEDED, encoded, Success(told))
        if isinstance(failure, asyncio.CancelledError):
            if interrupted is not None:
                return _let_go(codec, interrupted)
            # Nobody has interrupted it, so the body itself has let a cancellation out (R32).
            cause = Cause.die(Defect("CancelledError", _cancelled(implementation.name)))
        else:
            cause = codec.cause_of(failure)
        held = None if interrupted is not None else _holds(implementation, cause)
        return Ending(Status.FAILED, _encode_cause(codec, cause), Failure(cause), held)

    return judge


def _let_go(codec: ExitCodec[Any], interrupted: bytes) -> Ending:
    """The body has let the interrupt end it."""
    try:
        cause = codec.decode_failure(interrupted)
    except PayloadError as unreadable:
        cause = Cause.die(unreadable)
    return Ending(interrupted_status(interrupted), interrupted, Failure(cause))


def _holds(implementation: WorkflowImplementation[..., Any], cause: Cause) -> Held | None:
    """Whether a failure holds the execution instead of ending it (R35, R36)."""
    if implementation.suspends_on_failure:
        return Held.FAILURE
    if not implementation.captures_defects and any(isinstance(reason, Die) for reason in cause.reasons):
        return Held.DEFECT
    return None


def standing_held(codec: ExitCodec[Any], held: Held, error: BaseException) -> Standing:
    """Held with a code and a cause: it moves only when somebody acts."""
    return Standing(Status.SUSPENDED, held, _encode_cause(codec, Cause.die(error)))


def crashes_error(workflow: str, crashes: int) -> Defect:
    """Why a convicted execution is held (R41)."""
    return Defect(
        "Crashes",
        f"{crashes} workers in a row ended while they had this execution of {workflow!r} in hand, three of them while "
        "no other suspect ran. Look for what ends the process (memory, a segmentation fault, os._exit), then resume it",
    )


def _in_hand(kernel: Kernel, now: Instant) -> bool:
    """Whether it keeps its worker: an activity runs, or the nearest wait is an in-memory one (R5).

    Or mail of it is on its way: the receipt comes with the answer to this very commit, and nobody would wake it for that.
    """
    nearest: Instant | None = None
    keeps = False
    for call in kernel.steps.waiting.values():
        due = call.due_at
        # A due time that has passed is the one of an attempt that runs, or begins with this commit.
        if (call.kind is _ACTIVITY and (due is None or due <= now)) or call.kind is _SENT:
            return True
        if due is not None and (nearest is None or due < nearest):
            nearest = due
            keeps = not call.durable if isinstance(call, TimerCall) else due - kernel.now() <= IN_MEMORY_THRESHOLD_MS
    return keeps


def _suspended(kernel: Kernel) -> Standing:
    kernel.suspend()
    return Standing(
        Status.SUSPENDED,
        wake_at=min((call.due_at for call in kernel.steps.waiting.values() if call.due_at is not None), default=None),
        waits=waits_of(kernel),
    )


def _held(kernel: Kernel, codec: ExitCodec[Any], trouble: Trouble) -> Standing:
    """In trouble: what it had failed with counts no more when somebody resumes it."""
    if trouble.held is Held.COMPENSATION:
        kernel.note_held(_failed_with(kernel))
    if trouble.exit is None:
        return standing_held(codec, trouble.held, trouble.error)._replace(waits=waits_of(kernel))
    return Standing(Status.SUSPENDED, trouble.held, trouble.exit, waits=waits_of(kernel))


def _failed(kernel: Kernel, codec: ExitCodec[Any]) -> Standing:
    """Activities have failed, and all that ran beside them has ended: they are done again when it is resumed (R36)."""
    failures = [_encode_cause(codec, _let_out(codec, call, failure)) for call, failure in kernel.failing.items()]
    cause = merged_failures(failures)
    if kernel.unwinds:
        return _held_by_compensation(kernel, cause)
    kernel.note_held(cause)
    return Standing(Status.SUSPENDED, Held.FAILURE, cause, waits=waits_of(kernel))


def _deadlocked(kernel: Kernel, codec: ExitCodec[Any], workflow: str) -> Standing:
    """It waits for nothing that could come."""
    if kernel.unwinds:
        what = f"a compensation or a finalizer of {workflow!r}"
        return _held_by_compensation(kernel, _encode_cause(codec, Cause.die(Defect("Deadlock", _deadlock(what)))))
    return standing_held(codec, Held.DEADLOCK, Defect("Deadlock", _deadlock(f"the body of {workflow!r}")))


def _held_by_compensation(kernel: Kernel, cause: bytes) -> Standing:
    """Whatever keeps a compensation from its end, it may be passed over, and no interrupt moves it (R28)."""
    kernel.note_held(_failed_with(kernel))
    return Standing(Status.SUSPENDED, Held.COMPENSATION, cause, waits=waits_of(kernel))


def _failed_with(kernel: Kernel) -> bytes:
    """What a body has failed with, or was interrupted with; nothing, if it has succeeded."""
    ending = kernel.ending
    return ending.exit if ending is not None and ending.failed else b""


def _let_out(codec: ExitCodec[Any], call: Call, failure: bytes) -> Cause:
    """What a body would fail with that lets a step's failure out.

    Not the recorded bytes: an error that the activity declares and the workflow does not could be read by nobody who
    asks for the workflow's exit.
    """
    try:
        error = call.decode_failure(failure).to_exception()
    except PayloadError as unreadable:
        return Cause.die(unreadable)
    return codec.cause_of(error)


def _ended(kernel: Kernel) -> Standing:
    ending = kernel.ending
    # A life that goes on as new has come to nothing; the next one stands in its place, pending.
    return Standing(Status.PENDING) if ending is None else Standing(ending.status, exit=ending.exit)


def waits_of(kernel: Kernel) -> bytes | None:
    """What it waits for, and what stands to be undone, for those who look (R33)."""
    waits = [_wait(call) for call in itertools.islice(kernel.steps.waiting.values(), MOST_WAITS_SHOWN)]
    waits += [_wait(call) for call in itertools.islice(kernel.steps.leaving.values(), MOST_WAITS_SHOWN)]
    waits += [{"kind": "compensation", "name": name, "due_at": None} for name in kernel.compensations()]
    return json.dumps(waits, separators=(",", ":")).encode() if waits else None


def _wait(call: Call) -> dict[str, Any]:
    due = None if call.due_at == UNTIL_RESUMED else call.due_at
    wait: dict[str, Any] = {"kind": str(call.kind), "name": call.name, "due_at": due}
    return {**wait, "id": call.input.decode()} if call.kind is Kind.CHILD else wait


def _encode_cause(codec: ExitCodec[Any], cause: Cause) -> bytes:
    try:
        return codec.encode_failure(cause, None)
    except PayloadError as unencodable:
        return codec.encode_failure(Cause.die(unencodable), None)


def _deadlock(what: str) -> str:
    return (
        f"{what} waits for nothing that could come: no step, no timer. It awaits a Future, an Event, "
        "a Lock or a Queue that only its own tasks could wake, and none of them will"
    )


def _cancelled(workflow: str) -> str:
    return f"a cancellation left the body of {workflow!r}, although nobody had interrupted the execution"
