"""Where an execution stands after a turn: it runs on, is suspended, held, or has ended (R5, R33-R35).

Told from the kernel alone, so that the same turn means the same on every worker. Quiescence decides
and not the order in which branches were started: whatever waits only for things from outside is
suspended; what waits for nothing at all is held.
"""

import asyncio
import json
from typing import Any, Final, NamedTuple

from perdure._definitions.clock import IN_MEMORY_THRESHOLD_MS, TimerCall
from perdure._definitions.workflow import WorkflowImplementation
from perdure._kernel.kernel import Kernel
from perdure._model.journal import Kind
from perdure._model.status import Held, Status
from perdure._values.cause import Cause, Die
from perdure._values.exit_codec import ExitCodec
from perdure._values.instant import Instant
from perdure.errors import Defect, PayloadError

# Of a body that waits for thousands of things, so many are shown to those who look.
MOST_WAITS_SHOWN = 100


# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY


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
    kernel: Kernel, implementation: WorkflowImplementation[..., Any], *, now: Instant, payload_limit: int
) -> Standing:
    """Where an execution stands after a turn of its kernel."""
    codec = implementation.codec
    if kernel.trouble is not None:
        return standing_held(codec, kernel.trouble.held, kernel.trouble.error)
    if kernel.ended:
        return _ended(kernel, implementation, payload_limit)
    if not kernel.steps.waiting:
        return standing_held(codec, Held.DEADLOCK, Defect("Deadlock", _deadlock(implementation.name)))
    return _RUNNING if _in_hand(kernel, now) else _suspended(kernel)


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
    """Whether it keeps its worker: an activity runs, or the nearest wait is an in-memory one (R5)."""
    nearest: Instant | None = None
    keeps = False
    for call in kernel.steps.waiting.values():
        due = call.due_at
        # A due time that has passed is the one of an attempt that runs, or begins with this commit.
        if call.kind is _ACTIVITY and (due is None or due <= now):
            return True
        if due is not None and (nearest is None or due < nearest):
            nearest = due
            keeps = not call.durable if isinstance(call, TimerCall) else due - kernel.now() <= IN_MEMORY_THRESHOLD_MS
    return keeps


def _suspended(kernel: Kernel) -> Standing:
    calls = list(kernel.steps.waiting.values())
    kernel.suspend()
    waits = [{"kind": str(call.kind), "name": call.name, "due_at": call.due_at} for call in calls[:MOST_WAITS_SHOWN]]
    return Standing(
        Status.SUSPENDED,
        wake_at=min((call.due_at for call in calls if call.due_at is not None), default=None),
        waits=json.dumps(waits, separators=(",", ":")).encode(),
    )


def _ended(kernel: Kernel, implementation: WorkflowImplementation[..., Any], payload_limit: int) -> Standing:
    codec = implementation.codec
    failure = kernel.failure()
    if isinstance(failure, asyncio.CancelledError):
        # Nobody has interrupted it, so the body itself has let a cancellation out (R32).
        return _failed(implementation, Cause.die(Defect("CancelledError", _cancelled(implementation.name))))
    if failure is not None:
        return _failed(implementation, codec.cause_of(failure))
    try:
        encoded, _ = codec.success(kernel.result())
        _check_size(encoded, payload_limit, implementation.name)
    except BaseException as error:  # noqa: BLE001 - this is the body's end; what a type's own code raises is a defect (R9)
        return _failed(implementation, codec.cause_of(error))
    return Standing(Status.SUCCEEDED, exit=encoded)


def _failed(implementation: WorkflowImplementation[..., Any], cause: Cause) -> Standing:
    encoded = _encode_cause(implementation.codec, cause)
    if not implementation.captures_defects and any(isinstance(reason, Die) for reason in cause.reasons):
        return Standing(Status.SUSPENDED, Held.DEFECT, encoded)  # R35
    return Standing(Status.FAILED, exit=encoded)


def _check_size(encoded: bytes, limit: int, workflow: str) -> None:
    if len(encoded) > limit:
        raise PayloadError(
            f"The result of workflow {workflow!r} has {len(encoded):,} bytes; the limit is {limit:,}. "
            "Store it elsewhere and return where it is, or open the engine with a larger payload_limit=.",
            owner=workflow,
        )


def _encode_cause(codec: ExitCodec[Any], cause: Cause) -> bytes:
    try:
        return codec.encode_failure(cause, None)
    except PayloadError as unencodable:
        return codec.encode_failure(Cause.die(unencodable), None)


def _deadlock(workflow: str) -> str:
    return (
        f"the body of {workflow!r} waits for nothing that could come: no step, no timer. It awaits a Future, an Event, "
        "a Lock or a Queue that only its own tasks could wake, and none of them will"
    )


def _cancelled(workflow: str) -> str:
    return f"a cancellation left the body of {workflow!r}, although nobody had interrupted the execution"
