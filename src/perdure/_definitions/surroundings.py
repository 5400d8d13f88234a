"""What code may ask inside of a body or an activity: who and when it is, chance, progress, and a log."""

import functools
import logging
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from typing_extensions import TypeForm, TypeVar

from perdure import _ids
from perdure._definitions import ambient
from perdure._definitions.clock import current_instant
from perdure._definitions.host import AttemptScope
from perdure._definitions.name import check_name
from perdure._values.instant import to_datetime
from perdure._values.schema import Schema
from perdure.errors import OutsideExecutionError

T = TypeVar("T")

_log: Final = logging.getLogger("perdure.workflow")


def execution_id() -> str:
    """Give the id of the execution whose body or activity this is.

    Raises:
        OutsideExecutionError: It is neither.

    Example:
        >>> execution_id()
        Traceback (most recent call last):
        OutsideExecutionError: execution_id() works inside a workflow body or an activity only; ...
    """
    around = ambient.host.get() or ambient.attempt.get()
    if around is None:
        raise OutsideExecutionError(
            "execution_id() works inside a workflow body or an activity only; none runs here. "
            "From outside, a handle has it: `(await wf.start(...)).execution_id`."
        )
    return around.execution_id


def current_attempt() -> int:
    """Give the number of the attempt that an activity is, from 1; in a body it is always 1.

    Raises:
        OutsideExecutionError: No body or activity runs here.

    Example:
        ```python
        from perdure import Schedule, activity, current_attempt


        @activity(retry=Schedule.spaced("1 second").times(2))
        async def fetch(url: str) -> int:
            return current_attempt()
        ```
    """
    attempt = ambient.attempt.get()
    if attempt is not None:
        return attempt.attempt
    if ambient.host.get() is None:
        raise OutsideExecutionError(
            "current_attempt() works inside a workflow body or an activity only; none runs here."
        )
    return 1


def now() -> datetime:
    """Give the time, aware, in UTC; in a body it is the same on every replay (R38).

    There it is the time of the last thing that reached the body: it stands still between two awaits.

    Example:
        >>> now().tzinfo
        datetime.timezone.utc
    """
    return to_datetime(current_instant())


def random(name: str | None = None) -> Random:
    """Give a generator of random numbers; in a body it gives the same ones on every replay (R39).

    Args:
        name: Given, the numbers depend on the name alone and not on where in the body it is asked for, so that they
            stay the same when the code around changes.

    Example:
        >>> 0 <= random().random() < 1
        True
    """
    host = ambient.host.get()
    return Random() if host is None else host.random(name)


def uuid4(name: str | None = None) -> UUID:
    """Give a random UUID; in a body it is the same on every replay (R39).

    Args:
        name: As for `random`.

    Example:
        >>> uuid4().version
        4
    """
    # Where nothing is replayed it is identity like any other, and as hard to guess as the system makes it.
    raw = _ids.random_bytes() if ambient.host.get() is None else random(name).randbytes(16)
    return UUID(bytes=raw, version=4)


def patched(change_id: str) -> bool:
    """Whether this execution takes the new way: True for those that come here live, False for older ones (R8a).

    Decided once for an execution, at its first call.

    Raises:
        OutsideExecutionError: No body runs here.
        DefinitionError: The id cannot be recorded.

    Example:
        ```python
        from perdure import WorkflowEngine, activity, patched, workflow


        @activity
        async def check_stock(order_id: str) -> None: ...


        @workflow
        async def process_order(order_id: str) -> str:
            if not patched("check-stock"):
                return "as it was before the release"
            await check_stock(order_id)
            return "checked"


        async with WorkflowEngine.memory([process_order]):
            assert await process_order.execute("order-123") == "checked"
        ```
    """
    return ambient.require_host("patched()").patched(check_name(change_id, "a patch"))


def idempotency_key(name: str | None = None, *, include_attempt: bool = False) -> str:
    """Give the key under which this activity's step is known to the outside: 32 hex digits (R14).

    It is the same on every attempt, after every crash and on every replay, so that a gateway which is asked twice
    charges once.

    Args:
        name: Given, the key of an activity by this name alone: one per execution, as other implementations of the
            same workflow compute it. It cannot tell two calls of that activity apart, and warns if there are two.
        include_attempt: With a name: another key for each attempt.

    Raises:
        OutsideExecutionError: No activity runs here.

    Example:
        ```python
        from perdure import Schedule, WorkflowEngine, activity, current_attempt, idempotency_key, workflow


        ledger: dict[str, int] = {}  # a gateway charges once for each key


        @activity(retry=Schedule.recurs(3))
        async def charge(amount_cents: int) -> str:
            ledger[idempotency_key()] = amount_cents
            if current_attempt() == 1:
                raise ConnectionError("the answer was lost")
            return idempotency_key()


        @workflow
        async def pay(amount_cents: int) -> str:
            return await charge(amount_cents)


        async with WorkflowEngine.memory([pay]):
            assert ledger == {await pay.execute(4999): 4999}
        ```
    """
    attempt = _require_attempt("idempotency_key()")
    if name is None:
        if include_attempt:
            return _ids.activity_key(attempt.execution_id, attempt.life, attempt.idempotency_key, attempt.attempt)
        return attempt.idempotency_key
    if attempt.called_more_than_once(name):
        _log.warning(
            "idempotency_key(%r) is one key per execution, and workflow %r has called an activity of that name more "
            "than once: its calls share the key. idempotency_key() without a name tells them apart.",
            name,
            attempt.workflow,
            extra=_facts(attempt.execution_id, attempt.workflow),
        )
    return _ids.activity_key(attempt.execution_id, attempt.life, name, attempt.attempt if include_attempt else None)


def heartbeat(details: object = None) -> None:
    """Note the progress of an activity; the next attempt reads it with `last_heartbeat` (R15).

    Never blocks, works in plain and in async functions, and is written at most once a second.

    Args:
        details: Anything that JSON can say.

    Raises:
        OutsideExecutionError: No activity runs here.
        AttemptCancelled: This attempt is over (it timed out, or its execution was interrupted): stop here.
        PayloadError: The details do not go into JSON, or are larger than the engine's `payload_limit`; what was noted
            before stands.

    Example:
        ```python
        from perdure import Schedule, WorkflowEngine, activity, current_attempt, heartbeat, last_heartbeat, workflow


        @activity(retry=Schedule.recurs(3))
        async def count_to(end: int) -> list[int]:
            start = last_heartbeat(int) or 0
            for number in range(start, end):
                heartbeat(number + 1)
                if number == 1 and current_attempt() == 1:
                    raise ConnectionError("cut off")
            return [start, end]


        @workflow
        async def count(end: int) -> list[int]:
            return await count_to(end)


        async with WorkflowEngine.memory([count]):
            assert await count.execute(3) == [2, 3]  # the second attempt went on where the first had been
        ```
    """
    attempt = _require_attempt("heartbeat()")
    attempt.heartbeat(_details_of(attempt.name).encode(details))


def last_heartbeat(type_: TypeForm[T], /) -> T | None:
    """Give what this activity noted last, in this attempt or an earlier one; None if nothing was.

    Raises:
        OutsideExecutionError: No activity runs here.
        PayloadError: What was noted is not of this type.

    Example:
        ```python
        from perdure import WorkflowEngine, activity, heartbeat, last_heartbeat, workflow


        @activity
        async def count_to(end: int) -> int | None:
            heartbeat(end)
            return last_heartbeat(int)


        @workflow
        async def count(end: int) -> int | None:
            return await count_to(end)


        async with WorkflowEngine.memory([count]):
            assert await count.execute(3) == 3
        ```
    """
    attempt = _require_attempt("last_heartbeat()")
    raw = attempt.last_heartbeat()
    return None if raw is None else Schema(type_, f'Heartbeat of activity "{attempt.name}"').decode(raw)


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs once what a body says: it is silent while the body replays. Knows execution and workflow.

    In activities and outside it logs like any other logger. Records carry `execution_id` and `workflow` where there
    are any.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name of the standard library
        """Whether something would be logged: never in a replay."""
        host = ambient.host.get()
        return (host is None or not host.replaying) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add what is known of the execution to the record."""
        around = ambient.host.get() or ambient.attempt.get()
        if around is not None:
            kwargs["extra"] = {**_facts(around.execution_id, around.workflow), **(kwargs.get("extra") or {})}
        return msg, kwargs


logger: Final = WorkflowLogger(_log)


@functools.lru_cache(maxsize=64)
def _details_of(activity: str) -> Schema[Any]:
    # Kept: building a schema takes longer than everything else that a heartbeat does.
    return Schema(Any, f'Heartbeat of activity "{activity}"')


def _require_attempt(what: str) -> AttemptScope:
    attempt = ambient.attempt.get()
    if attempt is None:
        raise OutsideExecutionError(f"{what} works inside an activity only; none runs here.")
    return attempt


def _facts(execution: str, workflow: str) -> Mapping[str, str]:
    return {"execution_id": execution, "workflow": workflow}
