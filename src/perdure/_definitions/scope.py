"""What is done when an execution ends: compensations after a failure, finalizers always, scopes of resources."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast

from perdure._definitions import ambient
from perdure._definitions.activity import ActivityCall, InlineActivity
from perdure._definitions.host import Finalizer, Host
from perdure._definitions.signature import is_function
from perdure._values.cause import Cause, Fail
from perdure._values.exit import Exit, Failure, Success
from perdure.errors import ActivityTimeout, OutcomeUnknown, OutsideExecutionError, UsageError

T = TypeVar("T")

Compensate = Callable[[Any, Cause], Awaitable[object]]
Unknown = Callable[[Cause], Awaitable[object]]


async def with_compensation(
    step: Awaitable[T],
    compensate: Callable[[T, Cause], Awaitable[object]],
    *,
    unknown: Callable[[Cause], Awaitable[object]] | None = None,
) -> T:
    """Await a step, and have it undone if the execution as a whole fails or is interrupted later (R27).

    Compensations and finalizers run when the body has ended, the last one registered first, one at a time. They are
    durable like the body: a crash in between goes on there. An error that the body catches has nothing undone.

    The attempt of an activity is not cut in half: if the body is cancelled while it runs (an interrupt, a lost race, a
    timeout), it ends by itself, and what it did is undone if it succeeded.

    Args:
        step: An activity call, an inline activity, `retry(...)` of one, or anything else that can be awaited.
        compensate: Given the step's value and why the execution failed; what it returns is awaited. It may run
            activities.
        unknown: Called instead, with why the execution failed, where nobody knows whether the step took place:
            its last attempt timed out, or ended as `OutcomeUnknown`.

    Raises:
        Exception: What the step raises.
        OutsideExecutionError: No body runs here; in an activity nothing would remember it (R15).
        UsageError: It is called in a compensation or a finalizer, whose steps nothing undoes.

    Example:
        ```python
        from perdure import Defect, WorkflowEngine, activity, with_compensation, workflow

        seats: list[str] = []


        @activity
        async def reserve(seat: str) -> str:
            seats.append(seat)
            return seat


        @activity
        async def release(seat: str) -> None:
            seats.remove(seat)


        @workflow
        async def trip(seat: str) -> None:
            await with_compensation(reserve(seat), lambda reserved, cause: release(reserved))
            raise RuntimeError("no car")


        async with WorkflowEngine.memory([trip]):
            try:
                await trip.execute("12A")
            except Defect:
                assert seats == []
        ```
    """
    host = _body_around("with_compensation()", step)
    if host.unwinds:
        _close(step)
        raise UsageError(
            "with_compensation() in a compensation or a finalizer: the end of the execution is being run already, so what "
            "undoes this step would come next, although nothing has gone wrong with it. Await the step itself; or execute a "
            "child workflow, which has compensations of its own."
        )
    _check_function(compensate, "with_compensation", "lambda value, cause: undo(value)", step)
    call = _call_of(step)
    undo = _Undo(host, compensate, unknown, _label(call or step))
    if call is None:
        value = await step
        undo.register(value)
        return value
    undo.guard(call)
    try:
        value = await call
    except CancelledError:
        undo.register_what_has_ended(call)
        raise
    except (ActivityTimeout, OutcomeUnknown):
        undo.register_unknown()
        raise
    undo.register(value)
    return value


async def add_finalizer(finalizer: Callable[[Exit[Any]], Awaitable[object]], /) -> None:
    """Have something done when the execution ends, however it ends; not when it is suspended or its worker stops.

    Args:
        finalizer: Given how the execution ends; what it returns is awaited. It may run activities.

    Raises:
        OutsideExecutionError: No body runs here.

    Example:
        ```python
        from typing import Any

        from perdure import Exit, Success, WorkflowEngine, activity, add_finalizer, workflow

        told: list[str] = []


        @activity
        async def tell(what: str) -> None:
            told.append(what)


        async def on_exit(exit: Exit[Any]) -> None:
            await tell("it went well" if isinstance(exit, Success) else "it did not")


        @workflow
        async def work() -> None:
            await add_finalizer(on_exit)


        async with WorkflowEngine.memory([work]):
            await work.execute()
            assert told == ["it went well"]
        ```
    """
    host = _body_around("add_finalizer()")
    _check_function(finalizer, "add_finalizer", "async def on_exit(exit)")
    label = _label(finalizer)

    async def run(exit: Exit[Any]) -> None:
        await _awaitable(finalizer(exit), label)

    host.defer(Finalizer(run, only_after_failure=False, label=label))


class ExecutionScope(AsyncExitStack):
    """An `AsyncExitStack` that is closed when the execution ends."""

    async def close_with(self, exit: Exit[Any]) -> None:
        """Leave it as a block would be left: after a failure with what the execution failed with."""
        match exit:
            case Success():
                await self.__aexit__(None, None, None)
            case Failure(cause):
                error = cause.to_exception()
                await self.__aexit__(type(error), error, error.__traceback__)


def scope() -> ExecutionScope:
    """Give an `AsyncExitStack` that is closed when the execution ends, and not where the body leaves a block.

    It stands among finalizers and compensations where it was made. What its callbacks suppress stays the result of the
    execution.

    Raises:
        OutsideExecutionError: No body runs here.

    Example:
        ```python
        from perdure import WorkflowEngine, activity, scope, workflow

        closed: list[str] = []


        @activity
        async def close(what: str) -> None:
            closed.append(what)


        @workflow
        async def work() -> None:
            stack = scope()
            stack.push_async_callback(close, "first")
            stack.push_async_callback(close, "second")


        async with WorkflowEngine.memory([work]):
            await work.execute()
            assert closed == ["second", "first"]
        ```
    """
    host = _body_around("scope()")
    stack = ExecutionScope()
    host.defer(Finalizer(stack.close_with, only_after_failure=False, label="scope"))
    return stack


class _Undo:
    """The undoing of one step: registered once, when and where the step has ended."""

    __slots__ = ("_compensate", "_host", "_label", "_place", "_unknown")

    def __init__(self, host: Host, compensate: Compensate, unknown: Unknown | None, label: str) -> None:
        self._host = host
        self._compensate = compensate
        self._unknown = unknown
        self._label = label
        # Where the call stood on the stack. None: it is no call that outlives its await.
        self._place: int | None = None

    def guard(self, call: ActivityCall) -> None:
        """Have the attempt end by itself also when the body is told that it is cancelled."""
        self._place = self._host.place()
        call.guard = self._register_late

    def register(self, value: object, place: int | None = None) -> None:
        """The step has succeeded."""
        compensate, label = self._compensate, self._label

        async def run(exit: Exit[Any]) -> None:
            if isinstance(exit, Failure):
                await _awaitable(compensate(value, exit.cause), label)

        self._host.defer(Finalizer(run, only_after_failure=True, label=self._label), place)

    def register_unknown(self, place: int | None = None) -> None:
        """Nobody knows whether the step took place."""
        unknown, label = self._unknown, self._label
        if unknown is None:
            return

        async def run(exit: Exit[Any]) -> None:
            if isinstance(exit, Failure):
                await _awaitable(unknown(exit.cause), label)

        self._host.defer(Finalizer(run, only_after_failure=True, label=self._label), place)

    def register_what_has_ended(self, call: ActivityCall) -> None:
        """The body was cancelled in the very turn in which the step ended: its value was on its way, and is lost."""
        future = call.future
        if future is None or not future.done() or future.cancelled():
            return  # it runs on, and tells its guard
        error = future.exception()
        self._register_late(Success(future.result()) if error is None else Failure(Cause.from_exception(error)))

    def _register_late(self, exit: Exit[Any]) -> None:
        match exit:
            case Success(value):
                self.register(value, self._place)
            case Failure(cause):
                if any(_is_unknown(reason) for reason in cause.reasons):
                    self.register_unknown(self._place)


def _check_function(function: object, what: str, wanted: str, step: object = None) -> None:
    """Look now whether it can be called: found out when it is needed, it would hold an execution that has failed already.

    Raises:
        UsageError: It cannot.
    """
    if not is_function(function):
        _close(step)
        raise UsageError(
            f"{what} takes a function that is called when the execution ends, as in `{wanted}`, not {function!r}, which "
            "has been called already."
        )


def _close(step: object) -> None:
    """Or it would warn that nobody awaited it, beside the error that says why."""
    if isinstance(step, Coroutine | ActivityCall):
        step.close()


def _awaitable(returned: object, label: str) -> Awaitable[object]:
    if isinstance(returned, Awaitable):
        return cast("Awaitable[object]", returned)
    raise UsageError(
        f"What undoes {label!r} has returned {returned!r}, which cannot be awaited. Let it be an `async def`, or return "
        "the call of an activity; what is done beside that is not recorded, and done again at every replay."
    )


def _is_unknown(reason: object) -> bool:
    return isinstance(reason, Fail) and isinstance(reason.error, (ActivityTimeout, OutcomeUnknown))


def _call_of(step: object) -> ActivityCall | None:
    """The activity call that a step is; None: it is something else."""
    if isinstance(step, InlineActivity):
        return cast("ActivityCall", step())
    return step if isinstance(step, ActivityCall) else None


def _label(what: object) -> str:
    return str(getattr(what, "__qualname__", "") or getattr(what, "__name__", "") or type(what).__name__)


def _body_around(what: str, step: object = None) -> Host:
    host = ambient.host.get()
    if host is not None:
        return host
    _close(step)
    raise OutsideExecutionError(
        f"{what} works inside a workflow body only: an activity is one step, and leaves nothing behind that could be "
        "undone for it later. Register it in the body."
        if ambient.attempt.get() is not None
        else f"{what} works inside a workflow body only; no body runs here."
    )
