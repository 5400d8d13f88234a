"""What a body, an activity and a caller may ask of the engine around them: three small protocols.

Definitions know nothing else of the engine, so another engine can host the same definitions.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from perdure._model.journal import Kind
from perdure._model.records import Acts, Attributes, ExecutionId, Mail, Receipt, Record, Start
from perdure._values.cause import Cause
from perdure._values.exit import Exit
from perdure._values.instant import Instant
from perdure._values.token import TokenKeys
from perdure.errors import PayloadError

T = TypeVar("T")

OnDuplicate = Literal["join", "reject", "restart_if_failed"]
OnMismatch = Literal["warn", "raise"]


class Call:
    """Something that a body has asked for and that is answered from outside: one step.

    A call is known by what is asked: kind, name and input (R8). The occurrence counts only among
    equals. It is hashed by its creation number, so that a set of calls has the same order on every
    replay (asyncio keeps what it waits for in sets).
    """

    __slots__ = (
        "asked_at", "attempt", "due_at", "failed_at", "future", "hash", "input", "interruptions", "kind", "name", "occurrence",
        "place",
    )  # fmt: skip

    # Whether another input under the same name is another step. Timers say no: a changed duration
    # does not make a named sleep another one.
    input_decides = True
    # Names under which older code recorded this step.
    formerly: tuple[str, ...] = ()
    # What is to be done when the step ends although its body has been told that it is cancelled: then its attempt is
    # not cut in half (R27). Given the exit of the step, as its body would have seen it. None: it may be cut.
    guard: "Callable[[Exit[Any]], object] | None" = None
    # The execution that a call of the kind CHILD waits for, and what one of the kind SENT starts, or the mail it sends.
    start: Start | None = None
    mail: Mail | None = None

    def __init__(self, kind: Kind, name: str, occurrence: int, input: bytes, number: int) -> None:
        self.kind = kind
        self.name = name
        self.occurrence = occurrence
        self.input = input
        # What only one call of a body has: under this it waits.
        self.place = (kind, name, occurrence)
        self.hash = number
        # The rest belongs to the kernel.
        self.future: asyncio.Future[Any] | None = None  # None until it is awaited
        self.asked_at: Instant = 0  # the time of the turn in which it was first awaited
        self.attempt = 1  # the attempt that is to be made, or is being made, now
        self.interruptions = 0  # how many recorded attempts were cut off from inside (R13)
        self.failed_at: Instant | None = None  # when an attempt failed first; a fixed schedule's grid begins there
        self.due_at: Instant | None = None  # when that attempt may begin, or when a timer fires

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other

    def decode_success(self, exit: bytes, /) -> Any:
        """Read the value of a recorded success with today's schema.

        Raises:
            PayloadError: It cannot be read.
        """
        raise NotImplementedError

    def decode_failure(self, exit: bytes, /) -> Cause:
        """Read why it failed, as recorded, with today's declarations.

        Raises:
            PayloadError: It cannot be read.
        """
        raise NotImplementedError

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether a recorded input means what is asked now, although its bytes differ (R2)."""
        raise NotImplementedError


class ContinueAsNew(BaseException):
    """Leaves a body that goes on as a new life; no error, so that no `except Exception` keeps it back."""


class Finalizer(NamedTuple):
    """Something to be done when the execution ends (R27, R28)."""

    # Given how the execution ends; a compensation looks at the cause.
    run: Callable[[Exit[Any]], Awaitable[object]]
    # A compensation: only when the execution fails or is interrupted.
    only_after_failure: bool
    # For those who look: the name of the step, or of the function.
    label: str


class Host(Protocol):
    """What a body may ask: the kernel that runs it."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def life(self) -> int:
        """The number of the incarnation, from 1."""
        ...

    @property
    def incarnation(self) -> bytes:
        """What keys this life in the store; signed tokens name it (R19)."""
        ...

    @property
    def workflow(self) -> str: ...

    @property
    def replaying(self) -> bool:
        """Whether the body is being fed what it has seen before."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the body is being put away; what it asks for now has no effect (R6, R46)."""
        ...

    def number(self) -> int:
        """The next creation number: of tasks, futures and calls."""
        ...

    def occurrence(self, kind: Kind, name: str, /) -> int:
        """Take the next occurrence of this name, from 1."""
        ...

    def count_call(self, name: str, input: bytes, /) -> tuple[int, int, int]:
        """Count one more activity call: its occurrence and which one of its equals it is (R14), both from 1; its number.

        All three in one, because every step comes through here.
        """
        ...

    def unanswered(self, kind: Kind, name: str, /) -> bool:
        """Whether a call of this kind and name has been asked for and has no result yet (R8)."""
        ...

    def ask(self, call: Call, /) -> asyncio.Future[Any]:
        """Ask for a step; the future has its result.

        An answer that the journal kept for it is given at the end of the turn, as an event of its own.

        Raises:
            PayloadError: It is a child whose payload is larger than the engine takes; on a replay as it was then.
        """
        ...

    def now(self) -> Instant:
        """The time of the last fed entry (R38)."""
        ...

    def random(self, name: str | None = None, /) -> Random:
        """A generator that every replay seeds alike (R39)."""
        ...

    def patched(self, change_id: str, /) -> bool:
        """Whether this execution takes the new way (R8a)."""
        ...

    def child_id(
        self, kind: Kind, workflow: str, occurrence: int, asked: ExecutionId, payload: bytes | None, /
    ) -> ExecutionId:
        """Which execution a call means that asks for `asked`: another one, where the journal was another life's (R37, R49).

        `payload` is that of one without a key; None: it has one. `kind` is CHILD of one that is waited for, else START.
        """
        ...

    def start(self, start: Start, /) -> None:
        """Start an execution, detached, with this turn's commit; once, whatever is replayed (R42).

        Raises:
            PayloadError: Its payload is larger than the engine takes; on a replay as it was then.
        """
        ...

    @property
    def priority(self) -> int:
        """The execution's priority, which its children inherit (R31)."""
        ...

    @property
    def deadline(self) -> Instant | None:
        """When the execution is interrupted; its children no later (R31)."""
        ...

    @property
    def restarted(self) -> bool:
        """Whether this life follows one that failed: children that did not succeed are restarted with it (R37)."""
        ...

    def recorded(self, kind: Kind, name: str, make: Callable[[], bytes], /) -> bytes:
        """What the journal remembers of the next occurrence of this name; if nothing, `make` says it, and it is recorded."""
        ...

    def act(self, name: str, perform: Callable[[Acts], object], said: bytes = b"", /) -> None:
        """Do something to others with this turn's commit; once, whatever is replayed (R42).

        `name` says what, as in `publish:progress`; occurrences of it are counted. `perform` puts it among the turn's acts.
        `said` is what it makes known, encoded.

        Raises:
            PayloadError: That is larger than the engine takes; on a replay as it was then.
        """
        ...

    def race(self, name: str, number: int, /) -> "asyncio.Future[bytes]":
        """Have the recorded exit of a race, as soon as it is decided or the journal says so (R21)."""
        ...

    def decide(self, name: str, number: int, exit: bytes, /) -> None:
        """A race is over: its exit is recorded with this turn. Nothing, if it is recorded or decided already."""
        ...

    def unreadable(self, error: PayloadError, /) -> "asyncio.Future[Any]":
        """Have the execution held: what is recorded cannot be read with today's code (R40). What it gives never ends."""
        ...

    def defer(self, finalizer: Finalizer, place: int | None = None, /) -> None:
        """Put a finalizer or a compensation on the stack: on top, or where `place` was taken (R27)."""
        ...

    @property
    def unwinds(self) -> bool:
        """Whether the body has ended, and what stands on the stack is being run (R27)."""
        ...

    def place(self) -> int:
        """Take a place on the stack, for what may have to stand there later."""
        ...

    def continue_as(self, start: Start, /) -> None:
        """The body ends this life with what it raises now; the next one begins with this start (R37).

        Raises:
            PayloadError: Its payload is larger than the engine takes; on a replay as it was then.
            UsageError: Something stands on the stack.
        """
        ...


class AttemptScope(Protocol):
    """What an activity may ask while an attempt of it runs."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def life(self) -> int: ...

    @property
    def workflow(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def idempotency_key(self) -> str:
        """This step's own: the same on every attempt and after every crash (R14)."""
        ...

    @property
    def engine(self) -> "Engine": ...

    def called_more_than_once(self, name: str, /) -> bool:
        """Whether the body has called an activity of this name more than once so far."""
        ...

    def heartbeat(self, details: bytes, /) -> None:
        """Note progress; from any thread, never blocks (R15).

        Raises:
            AttemptCancelled: The attempt is over.
            PayloadError: The details are larger than the engine takes.
        """
        ...

    def last_heartbeat(self) -> bytes | None:
        """What an earlier attempt, or this one, noted last."""
        ...

    def show(self, acts: Acts, /) -> None:
        """Set attributes of its execution, and publish for it, at once and beside the journal (R42); from any thread.

        On a thread it is durable when this returns. On the engine's loop, which must not wait, it is written before
        anything else that the attempt asks of its engine is done, and before its exit is recorded.

        Raises:
            AttemptCancelled: The attempt is over, or its execution is not this worker's any more. It is not written,
                unless it was on its way to the store when that happened.
        """
        ...

    async def shown(self) -> None:
        """Wait until what it has shown is written; once the attempt is over, for nothing more.

        Raises:
            AttemptCancelled: Its execution is not this worker's any more.
        """
        ...

    async def sleep(self, duration_ms: int, /) -> None:
        """Wait in place, on the engine's clock; the place among the running activities is given back meanwhile."""
        ...

    async def aside(self, waiting: Awaitable[T], /) -> T:
        """Await what another execution brings about; the place and the admission are given back meanwhile."""
        ...


class Engine(Protocol):
    """What callers ask: the engine that a definition finds around it."""

    def now(self) -> Instant:
        """The time on the store's clock, which delays are counted from."""
        ...

    async def start_execution(self, start: Start, *, on_duplicate: OnDuplicate) -> None:
        """Start or join; it is durable when this returns.

        Raises:
            PayloadMismatchError: The start is strict, and a field differs.
            ExecutionExistsError: `on_duplicate` is "reject" and the execution was there.
            NotRegisteredError: A memory engine has no body for it.
        """
        ...

    async def wait_for_exit(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit of an execution, once it has one.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            ExecutionTimeoutError: It has not ended within `timeout`; it goes on.
        """
        ...

    async def record(self, execution_id: ExecutionId, /) -> Record | None:
        """The execution as it stands in the store."""
        ...

    async def resume_execution(self, execution_id: ExecutionId, /, *, skip: bool = False) -> None:
        """Move a held execution; nothing on the others. With `skip`, past the compensation that holds it (R28).

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        ...

    async def interrupt_execution(self, execution_id: ExecutionId, /) -> None:
        """Ask an execution to end (R29); nothing on unknown or finished ones."""
        ...

    async def deliver(self, mail: Mail, /) -> Receipt:
        """Have mail delivered, exactly once; it is durable when this returns. A sender is added."""
        ...

    async def wait_for_mail(self, execution_id: ExecutionId, kind: str, name: str, /) -> bytes:
        """The exit of the first mail of that kind and name that has come, or will come, to an execution's current life.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        ...

    async def published(self, execution_id: ExecutionId, /) -> dict[str, bytes]:
        """What a body has shown, by name, encoded.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        ...

    async def explain(self, execution_id: ExecutionId, /) -> str:
        """Where an execution stands, in sentences.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        ...

    @property
    def token_keys(self) -> TokenKeys | None:
        """What this engine signs tokens with, and refuses others by; None: it takes unsigned ones."""
        ...

    @property
    def payload_limit(self) -> int:
        """The largest encoded payload, result or message."""
        ...


class StartOptions:
    """What `Workflow.options` adds to a start."""

    __slots__ = ("attributes", "deadline", "delay_ms", "engine", "execution_id", "on_duplicate", "priority")

    def __init__(self) -> None:
        self.execution_id: ExecutionId | None = None
        self.delay_ms: int = 0
        # An instant, or so long after the start; None: none.
        self.deadline: Instant | timedelta | None = None
        # None: not given; a child then has its parent's (R31).
        self.priority: int | None = None
        self.attributes: Attributes = {}
        self.on_duplicate: OnDuplicate = "join"
        self.engine: Engine | None = None
