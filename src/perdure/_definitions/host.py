"""What a body, an activity and a caller may ask of the engine around them: three small protocols.

Definitions know nothing else of the engine, so another engine can host the same definitions.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Any, Literal, Protocol, TypeVar

from perdure._model.journal import Kind
from perdure._model.records import Attributes, ExecutionId, Record, Start
from perdure._values.cause import Cause
from perdure._values.instant import Instant

T = TypeVar("T")

OnDuplicate = Literal["join", "reject"]
OnMismatch = Literal["warn", "raise"]


class Call:
    """Something that a body has asked for and that is answered from outside: one step.

    A call is known by what is asked: kind, name and input (R8). The occurrence counts only among
    equals. It is hashed by its creation number, so that a set of calls has the same order on every
    replay (asyncio keeps what it waits for in sets).
    """

    __slots__ = (
        "asked_at", "attempt", "due_at", "failed_at", "future", "hash", "input", "interruptions", "kind", "name", "occurrence",
    )  # fmt: skip

    # Whether another input under the same name is another step. Timers say no: a changed duration
    # does not make a named sleep another one.
    input_decides = True
    # Names under which older code recorded this step.
    formerly: tuple[str, ...] = ()

    def __init__(self, kind: Kind, name: str, occurrence: int, input: bytes, number: int) -> None:
        self.kind = kind
        self.name = name
        self.occurrence = occurrence
        self.input = input
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


class Host(Protocol):
    """What a body may ask: the kernel that runs it."""

    @property
    def execution_id(self) -> ExecutionId: ...

    @property
    def life(self) -> int:
        """The number of the incarnation, from 1."""
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

    def start(self, start: Start, /) -> None:
        """Start an execution, detached, with this turn's commit; once, whatever is replayed (R42)."""
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
        """
        ...

    def last_heartbeat(self) -> bytes | None:
        """What an earlier attempt, or this one, noted last."""
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

    async def start_execution(
        self,
        start: Start,
        *,
        on_duplicate: OnDuplicate,
        on_mismatch: OnMismatch,
        differing: Callable[[bytes], tuple[str, ...]],
    ) -> None:
        """Start or join; it is durable when this returns.

        `differing` tells which fields of a recorded payload are not the ones of `start`; empty: the same.

        Raises:
            PayloadMismatchError: `on_mismatch` is "raise" and a field differs.
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

    async def resume_execution(self, execution_id: ExecutionId, /) -> None:
        """Move a held execution; nothing on the others.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        ...


class StartOptions:
    """What `Workflow.options` adds to a start."""

    __slots__ = ("attributes", "delay_ms", "engine", "execution_id", "on_duplicate", "priority")

    def __init__(self) -> None:
        self.execution_id: ExecutionId | None = None
        self.delay_ms: int = 0
        self.priority: int = 0
        self.attributes: Attributes = {}
        self.on_duplicate: OnDuplicate = "join"
        self.engine: Engine | None = None
