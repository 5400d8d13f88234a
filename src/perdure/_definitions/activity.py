"""Activities: named side effects whose results are recorded, and the calls of them that a body makes."""

import asyncio
import contextvars
import copy
import functools
import inspect
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Generic, ParamSpec, Protocol, Self, TypeAlias, cast, overload

from typing_extensions import TypeForm, TypeVar, Unpack

from perdure._definitions import ambient
from perdure._definitions.arguments import Arguments
from perdure._definitions.host import Call, Host
from perdure._definitions.name import check_name
from perdure._definitions.policy import (
    INTERRUPT_RETRY,
    ActivityChanges,
    ActivityOptions,
    InlineOptions,
    is_at_most_once,
    read_errors,
    read_former_names,
    read_schedule,
    read_timeout,
)
from perdure._definitions.signature import NOTHING, RESULT, dressed, is_async, plain_function, read_signature
from perdure._model.journal import Kind
from perdure._values.cause import Cause
from perdure._values.exit_codec import ExitCodec
from perdure._values.schedule import Schedule
from perdure._values.schema import Schema
from perdure.errors import DefinitionError, UsageError

P = ParamSpec("P")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)
R = TypeVar("R", default=None)
RetryIf: TypeAlias = Callable[[BaseException], bool]

_host: Final = ambient.host
_copy_context: Final = contextvars.copy_context
_blank: Final = object.__new__
# Looked up in the class, a member of an enumeration costs as much as a call.
_ACTIVITY: Final = Kind.ACTIVITY


class ActivityCall(Call, Coroutine[None, None, Any]):
    """One call of an activity in a body: lazy, awaited once, and able to be made again.

    It works wherever a coroutine does. Its occurrence is taken when it is made and not when it is awaited, so
    that calls which are gathered in another order are still the same steps (R10).
    """

    __slots__ = (
        "_host", "_iterator", "_kept", "_used", "activity", "context", "formerly", "guard", "number_of_equals",
        "retry_if",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - by position, because every step of every workflow comes through here
        self,
        activity: "Activity[..., Any]",
        host: Host,
        kept: list[Any],
        input: bytes,
        occurrence: int,
        number_of_equals: int,
        number: int,
        context: contextvars.Context,
    ) -> None:
        Call.__init__(self, _ACTIVITY, activity.name, occurrence, input, number)
        self.activity = activity
        # What the activity runs in: a copy of the body's context at the call (R14).
        self.context = context
        # Which call with this name and input it is, from 1, for the step's idempotency key (R14).
        self.number_of_equals = number_of_equals
        # Whether a failure is tried again at all; None: every failure is. Never raises.
        self.retry_if: RetryIf | None = None
        self.formerly = activity.formerly
        self.guard = None
        self._host = host
        # What its arguments are read from; see `Arguments.write`.
        self._kept = kept
        # Awaited, closed, or given up for the one that `again` made.
        self._used = False
        # What a task drives; None where a body awaits the call itself, or nobody has begun.
        self._iterator: Generator[Any, None, Any] | None = None

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments by position, each time anew: what one attempt does to them, no other one and no body sees.

        Raises:
            PayloadError: One does not come back from its bytes.
        """
        return self.activity.arguments.positional(self.input, self._kept)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by keyword, each time anew.

        Raises:
            PayloadError: One does not come back from its bytes.
        """
        return self.activity.arguments.keywords(self.input, self._kept)

    def decode_success(self, exit: bytes, /) -> Any:
        """Read the value of a recorded success with today's schema.

        Raises:
            PayloadError: It cannot be read.
        """
        return self.activity.codec.decode_success(exit)

    def decode_failure(self, exit: bytes, /) -> Cause:
        """Read why it failed, as recorded, with today's declarations.

        Raises:
            PayloadError: It cannot be read.
        """
        return self.activity.codec.decode_failure(exit)

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether a recorded input means what is asked now, although its bytes differ (R2)."""
        return self.activity.arguments.struct.same(recorded, self.input)

    def again(self, retry: Schedule, retry_if: RetryIf | None) -> "ActivityCall":
        """Make the same step under another policy; this call can then no longer be awaited.

        Raises:
            RuntimeError: It was awaited before.
        """
        self._use()
        activity = self.activity.options(retry=retry)
        made = ActivityCall(
            activity, self._host, self._kept, self.input,
            self.occurrence, self.number_of_equals, self._host.number(), self.context,
        )  # fmt: skip
        made.retry_if = retry_if
        return made

    def __await__(self) -> Generator[Any, None, Any]:
        if self._used:
            raise self._reused()
        self._used = True
        if self.activity.inline and self._host.unanswered(_ACTIVITY, self.name):
            raise UsageError(
                f"Inline activity {self.name!r} is asked for while another of that name is unanswered. They have no "
                "input by which a replay could tell them apart: give each a name."
            )
        # The future's own iterator: a generator of ours in between would cost every step one more frame.
        return self._host.ask(self).__await__()

    def send(self, value: None, /) -> Any:
        """Go on, as a task does; the first time the step is asked for."""
        if self._iterator is None:
            self._iterator = self.__await__()
        return self._iterator.send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        """Raise at the place where it waits; before the first `send` nothing is asked for."""
        if self._iterator is not None:
            return self._iterator.throw(typ) if val is None and tb is None else self._iterator.throw(typ, val, tb)
        self._use()
        raise (typ if val is None else val).with_traceback(tb) if tb is not None else (typ if val is None else val)

    def close(self) -> None:
        """Give it up."""
        self._used = True
        if self._iterator is not None:
            self._iterator.close()

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - asyncio reads it, for a task's repr
        return self.name

    def __repr__(self) -> str:
        return f"<activity call {self.name!r} #{self.occurrence}>"

    def __del__(self) -> None:
        # While the body is being put away, what it had not come to yet is nobody's mistake.
        if not self._used and not self._host.closed:
            warnings.warn(f"activity call {self.name!r} was never awaited", RuntimeWarning, stacklevel=2)

    def _use(self) -> None:
        if self._used:
            raise self._reused()
        self._used = True

    def _reused(self) -> RuntimeError:
        return RuntimeError(f"cannot reuse already awaited activity call {self.name!r}")


class Activity(Generic[P, A_co]):
    """A named side effect: in a body each call is a step, whose result is recorded once and replayed afterwards.

    Called outside a workflow, or in another activity, it just runs. Made by the decorator `activity`, or by
    `Activity.make`.

    Attributes:
        name: What its records are found by.
        function: What it does.
        is_async: Whether calling the function gives a coroutine. A plain function runs in a thread; if it returns
            an awaitable all the same, that is awaited on the loop.
        inline: Whether it was made in place, and so has no input.
        codec: Reads and writes its exits.
        errors: Its declared errors.
        retry: How long to wait before each retry; None: there is one attempt.
        interrupt_retry: The same for attempts that cancelled themselves from inside (R13).
        timeout_ms: How long an attempt may take.
        total_timeout_ms: How long all attempts may take together.
        at_most_once: Whether an attempt that a crash cut off is not tried again (R50).
        formerly: Names that its records may have.

    Example:
        >>> @activity(retry=Schedule.spaced("10 seconds").times(3), timeout="30 seconds")
        ... async def charge(order_id: str) -> str:
        ...     return f"charge_{order_id}"
        >>> asyncio.run(charge("order-123"))
        'charge_order-123'
    """

    inline = False

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        arguments: Arguments,
        success: Schema[Any],
        options: InlineOptions,
    ) -> None:
        """Put an activity together; users write `activity` or `Activity.make`."""
        self.name = name
        self.function = function
        self.is_async: bool = is_async(function)
        self.arguments = arguments
        owner = success.owner
        self.errors: tuple[type[Exception], ...] = read_errors(options.get("error", ()))
        self.codec: ExitCodec[Any] = ExitCodec(success, self.errors, owner)
        self.retry: Schedule | None = read_schedule(options.get("retry"), "retry", owner)
        interrupt_retry = options.get("interrupt_retry", INTERRUPT_RETRY)
        self.interrupt_retry: Schedule | None = read_schedule(interrupt_retry, "interrupt_retry", owner)
        self.timeout_ms: int | None = read_timeout(options.get("timeout"), "timeout", owner)
        self.total_timeout_ms: int | None = read_timeout(options.get("total_timeout"), "total_timeout", owner)
        self.at_most_once: bool = is_at_most_once(options.get("delivery", "at_least_once"), owner)
        self.formerly: tuple[str, ...] = read_former_names(options.get("formerly", ()), owner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, A_co]:
        """Ask for a step in a body; run, anywhere else.

        Raises:
            PayloadError: In a body: an argument is missing, unknown, or not what its annotation says.
        """
        host = _host.get()
        if host is None:
            return self._run_here(args, kwargs)
        raw, kept = self.arguments.write(args, kwargs)
        # By name, because a star among the arguments takes as long as all the rest of making a call.
        occurrence, number_of_equals, number = host.count_call(self.name, raw)
        # And not by `ActivityCall(...)`: from Python through the type to Python again is as long a way once more.
        call = _blank(ActivityCall)
        ActivityCall.__init__(call, self, host, kept, raw, occurrence, number_of_equals, number, _copy_context())
        return call

    def options(self, **changes: Unpack[ActivityChanges]) -> Self:
        """Give a configured copy: another name, timeout or retry for one call.

        Raises:
            DefinitionError: A value makes no sense.

        Example:
            >>> @activity(timeout="30 seconds")
            ... async def charge(order_id: str) -> str: ...
            >>> backup = charge.options(name="charge/backup", timeout="5 seconds")
            >>> backup.name, backup.timeout_ms
            ('charge/backup', 5000)
        """
        unknown = changes.keys() - ActivityChanges.__optional_keys__
        if unknown:
            raise TypeError(f"options() got an unexpected keyword argument {min(unknown)!r}")
        changed = copy.copy(self)
        owner = self.codec.owner
        if "name" in changes:
            changed.name = check_name(changes["name"], owner)
        if "retry" in changes:
            changed.retry = read_schedule(changes["retry"], "retry", owner)
        if "interrupt_retry" in changes:
            changed.interrupt_retry = read_schedule(changes["interrupt_retry"], "interrupt_retry", owner)
        if "timeout" in changes:
            changed.timeout_ms = read_timeout(changes["timeout"], "timeout", owner)
        if "total_timeout" in changes:
            changed.total_timeout_ms = read_timeout(changes["total_timeout"], "total_timeout", owner)
        return changed

    @overload
    @staticmethod
    def make(
        name: str, *, success: TypeForm[R] = ..., execute: Callable[[], Awaitable[R]], **options: Unpack[InlineOptions]
    ) -> "InlineActivity[R]": ...
    @overload
    @staticmethod
    def make(
        name: str, *, success: TypeForm[R] = ..., execute: Callable[[], R], **options: Unpack[InlineOptions]
    ) -> "InlineActivity[R]": ...
    @staticmethod
    def make(
        name: str,
        *,
        success: Any = NOTHING,
        execute: Callable[[], Any],
        **options: Unpack[InlineOptions],
    ) -> "InlineActivity[Any]":
        """Make an activity in place: it takes no parameters, so it can be awaited itself.

        Args:
            name: What its record is found by; those that are asked for at the same time need different ones.
            success: The type of its result; without it what `execute` is annotated with.
            execute: What it does; a plain function runs in a thread.
            **options: As for `activity`.

        Raises:
            DefinitionError: It cannot be an activity.

        Example:
            >>> asyncio.run(Activity.make("Roll", success=int, execute=lambda: 4)())
            4
        """
        owner = f'Activity "{check_name(name, "an inline activity")}"'
        function = plain_function(execute, owner)
        signature = read_signature(function, owner)
        if any(parameter.default is NOTHING for parameter in signature.parameters):
            raise DefinitionError(f"{owner}: what it executes takes no parameters; bind them in a lambda.", owner=owner)
        if success is NOTHING:
            success = signature.returns
        return InlineActivity(function, name, _no_arguments(), _schema(success, owner), options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _run_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[None, None, A_co]:
        if self.is_async:
            return self.function(*args, **kwargs)
        return cast("Coroutine[None, None, A_co]", _run_in_thread(self.function, args, kwargs))


class InlineActivity(Activity[[], A_co]):
    """An activity made in place by `Activity.make`, which can be awaited itself.

    Example:
        ```python
        from perdure import Activity, WorkflowEngine, workflow


        @workflow
        async def add(first: int, second: int) -> int:
            return await Activity.make("Add", success=int, execute=lambda: first + second)


        async with WorkflowEngine.memory([add]):
            assert await add.execute(1, 2) == 3
        ```
    """

    inline = True

    def __await__(self) -> Generator[None, None, A_co]:
        return self().__await__()


class ActivityDecorator(Protocol):
    """What `activity` with options gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Activity[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Activity[P, T]: ...


@overload
def activity(function: Callable[P, Coroutine[Any, Any, T]], /) -> Activity[P, T]: ...
@overload
def activity(function: Callable[P, T], /) -> Activity[P, T]: ...
@overload
def activity(**options: Unpack[ActivityOptions]) -> ActivityDecorator: ...
def activity(function: Callable[..., Any] | None = None, /, **options: Unpack[ActivityOptions]) -> Any:
    """Make a function an activity: in a body each call of it is a step that is recorded.

    An async function runs on the engine's loop, a plain one in a worker thread. Arguments and result go through the
    schemas of their annotations: the function gets copies, and the body what a replay would give it. An argument
    without annotation arrives as it is, a result without one comes back as JSON.

    Args:
        function: The function, where the decorator stands without parentheses.
        **options: `name` (default: the function's), `error` (declared errors: a class or a tuple of them), `retry`,
            `interrupt_retry`, `timeout` of an attempt, `total_timeout` of all of them, `delivery`
            ("at_least_once" or "at_most_once", R50), `formerly` (names that older records have).

    Raises:
        DefinitionError: It is no function that can be replayed, or an option makes no sense.

    Example:
        >>> @activity
        ... def render_pdf(order_id: str) -> bytes:
        ...     return b"%PDF-" + order_id.encode()
        >>> asyncio.run(render_pdf("order-123"))
        b'%PDF-order-123'
    """
    unknown = options.keys() - ActivityOptions.__optional_keys__
    if unknown:
        raise TypeError(f"activity() got an unexpected keyword argument {min(unknown)!r}")
    define = functools.partial(_define, options=options)
    return define if function is None else define(function)


def _define(function: object, /, options: ActivityOptions) -> Activity[..., Any]:
    if isinstance(function, Activity):
        raise DefinitionError(f"{function!r} is an activity already; `options` gives a configured copy.")
    name = check_name(options.get("name", getattr(function, "__name__", "")), f"the activity {function!r}")
    owner = f'Activity "{name}"'
    called = plain_function(function, owner)
    signature = read_signature(called, owner)
    defined = Activity[..., Any](
        called, name, Arguments(signature.parameters, owner), Schema(signature.returns, owner, RESULT), options
    )
    return dressed(defined, called)


async def _run_in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await asyncio.to_thread(function, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@functools.cache
def _no_arguments() -> Arguments:
    return Arguments((), "An inline activity")


def _schema(success: Any, owner: str) -> Schema[Any]:
    """Give the schema of an inline activity, which a body makes anew in every execution."""
    try:
        return _known_schema(success, owner, RESULT)
    except TypeError:  # not hashable, as Annotated with a dict
        return Schema(success, owner, RESULT)


_known_schema = functools.lru_cache(maxsize=256)(Schema[Any])
