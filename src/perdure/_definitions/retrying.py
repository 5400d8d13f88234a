"""Trying a step again from the body: a policy for one call, where the activity has none or another one."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast, overload

from perdure._definitions.activity import ActivityCall, InlineActivity, RetryIf
from perdure._definitions.policy import Errors
from perdure._values.schedule import Schedule
from perdure.errors import ActivityTimeout, UsageError

T = TypeVar("T")
F = TypeVar("F", bound=Exception)

_log: Final = logging.getLogger("perdure.workflow")


@overload
async def retry(step: Awaitable[T], schedule: Schedule, /, *, while_: Callable[[Any], bool] = ...) -> T: ...
@overload
async def retry(
    step: Awaitable[T], schedule: Schedule, /, *, error: Errors[F], while_: Callable[[F], bool] = ...
) -> T: ...
def retry(
    step: Awaitable[Any],
    schedule: Schedule,
    /,
    *,
    error: Any = None,
    while_: Callable[[Any], bool] | None = None,
) -> Any:
    """Await an activity call, and make it again while it fails: the same step, attempts 1, 2, 3 and so on.

    The attempts and the delays between them are recorded, so a crash goes on counting (R11). The schedule stands in
    the place of the activity's own.

    Args:
        step: A call of an activity that was not awaited yet, or an inline activity.
        schedule: How long to wait before each retry.
        error: Only these errors are tried again, a class or a tuple of them; without it all are, defects too.
        while_: Only errors for which this is true are tried again. It sees what `error` names, or else declared
            errors and `ActivityTimeout`. If it raises, there is no retry, and the error of the attempt surfaces.

    Raises:
        UsageError: What was given cannot be made again.

    Example:
        ```python
        from perdure import Schedule, WorkflowEngine, activity, current_attempt, retry, workflow


        @activity
        async def fetch(url: str) -> int:
            if current_attempt() == 1:
                raise ConnectionError(url)
            return current_attempt()


        @workflow
        async def mirror(url: str) -> int:
            return await retry(fetch(url), Schedule.spaced("1 milli").times(3), error=ConnectionError)


        async with WorkflowEngine.memory([mirror]):
            assert await mirror.execute("https://example.com") == 2
        ```
    """
    call = step() if isinstance(step, InlineActivity) else step
    if not isinstance(call, ActivityCall):
        raise UsageError(_unrepeatable(step))
    try:
        _check_policy(schedule, error)
    except UsageError:
        call.close()  # or it would warn that nobody awaited it, beside the error that says why
        raise
    # The call itself and no coroutine around it, so that what takes a step (`with_compensation`, a race) sees one.
    return call.again(schedule, _retry_if(call, error, while_))


def _unrepeatable(step: object) -> str:
    return (
        f"retry cannot make {type(step).__name__} {getattr(step, '__qualname__', '')!r} again. In a workflow's body it "
        "takes the call of an activity, `retry(charge(order), schedule)`, or an inline activity. Outside of a body such "
        "a call is a plain coroutine, which runs only once: write a loop there. Several steps that are to be tried "
        "together belong into one activity."
    )


def _retry_if(call: ActivityCall, error: Any, while_: Callable[[Any], bool] | None) -> RetryIf | None:
    if error is None and while_ is None:
        return None
    # Without `error`, defects are tried again unseen: they are no values that a predicate could look at.
    seen = (*call.activity.errors, ActivityTimeout) if error is None else error

    def retry_if(failure: BaseException) -> bool:
        if not isinstance(failure, seen):
            return error is None
        return while_ is None or _holds(while_, failure, call.name)

    return retry_if


def _holds(while_: Callable[[Any], bool], failure: BaseException, name: str) -> bool:
    try:
        return bool(while_(failure))
    except Exception:  # noqa: BLE001 - the predicate is a part of the attempt: if it breaks, what the attempt raised still counts
        _log.exception("The while_ of retry raised for activity %r; it is not tried again.", name)
        return False


def _check_policy(schedule: Any, error: Any) -> None:
    if not isinstance(schedule, Schedule):
        raise UsageError(f"retry needs a Schedule such as Schedule.spaced('10 seconds').times(3), not {schedule!r}.")
    for each in cast("tuple[Any, ...]", error) if isinstance(error, tuple) else (error,):
        if each is not None and not (isinstance(each, type) and issubclass(each, BaseException)):
            raise UsageError(f"retry takes as error= an exception class, or a tuple of them, not {each!r}.")
