"""What callers ask of an open engine: to start, wait, look and operate.

Below the engine that users open, because its blocking twin is made from the same methods: so neither of the two imports
the other.
"""

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar

from perdure._definitions import ambient
from perdure._definitions.handle import Handle
from perdure._definitions.host import AttemptScope, OnDuplicate
from perdure._definitions.name import check_asked, check_id
from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow
from perdure._engine.retention import purge
from perdure._engine.service import Service
from perdure._engine.views import Views, info
from perdure._model.info import ExecutionInfo, JournalEntry
from perdure._model.records import Attributes, ExecutionId, Mail, Receipt, Record, Start
from perdure._model.status import Held, Status, is_final
from perdure._model.store import Store
from perdure._options import EngineOptions, positive, query_of, settings_of
from perdure._values.duration import Duration, to_ms, to_timedelta
from perdure._values.exit import Complete, Failure, Poll, Suspended
from perdure._values.exit_codec import decode_loosely
from perdure._values.instant import Instant
from perdure._values.token import TokenKeys
from perdure.errors import UsageError, WorkflowIOError

P = ParamSpec("P")
T = TypeVar("T")

# One page of a listing; the iterator asks for the next when it has been read.
PAGE = 200


class EngineFace(AbstractAsyncContextManager["EngineFace"]):
    """An engine as its callers see it; `WorkflowEngine` adds its constructors and its lifecycle."""

    def __init__(self, store: Store, registrations: Iterable[Registration], options: EngineOptions) -> None:
        self._service = Service(store, registrations, settings_of(options), self)
        self._views = Views(store, self._service.runners)
        self._token: contextvars.Token[Any] | None = None
        # The process that has opened it. A child made by fork has a copy without the loop and the threads behind it.
        self._pid = os.getpid()
        self._state: Literal["new", "open", "closing", "closed"] = "new"

    def register(self, *registrations: Registration) -> None:
        """Take more workflows; before the engine is opened, or while it is.

        Raises:
            DefinitionError: Two have one name.
        """
        self._service.registry.add(registrations)
        if self._state == "open":
            self._service.loop.call_soon_threadsafe(self._service.announce_soon)

    async def drain(self, timeout: Duration = "30 seconds") -> bool:
        """Claim and begin nothing new, and wait for running activities; whether all ended in time."""
        return await self._ask(self._service.drain, to_timedelta(timeout))

    # Starting and waiting ------------------------------------------------------------------------

    async def execute(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Start or join an execution, and wait for its value; as `workflow.execute`, on this engine."""
        return await workflow.options(engine=self).execute(*args, **kwargs)

    async def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]:
        """Start or join an execution, without waiting; as `workflow.start`, on this engine."""
        return await workflow.options(engine=self).start(*args, **kwargs)

    # Looking -------------------------------------------------------------------------------------

    async def poll(self, execution_id: str, /) -> Poll[Any]:
        """None (unknown, or running), `Suspended(cause)` or `Complete(exit)`, with a success as plain JSON."""
        record = await self._ask(self._service.requests.record, check_asked(execution_id))
        if record is None:
            return None
        exit_ = decode_loosely(record.exit) if record.exit is not None else None
        if is_final(record.status) and exit_ is not None:
            return Complete(exit_)
        if record.status is Status.SUSPENDED:
            return Suspended(exit_.cause if isinstance(exit_, Failure) else None)
        return None

    async def describe(self, execution_id: str, /) -> ExecutionInfo:
        """Everything about one execution but its journal (R33).

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        return await self._ask(self._views.describe, check_id(execution_id))

    async def explain(self, execution_id: str, /) -> str:
        """Say in sentences where an execution stands, what it waits for, and which call moves it (R33).

        The text is for people, and changes between releases; `describe` has the facts.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        # Or it would say that a worker has it that was killed a moment ago.
        await self._ask(self._service.inherit)
        return await self._ask(self._views.explain, check_id(execution_id))

    async def journal(self, execution_id: str, /) -> list[JournalEntry]:
        """The journal of an execution, in order.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        return await self._ask(self._views.journal, check_id(execution_id))

    async def executions(
        self,
        *,
        workflow: str | Workflow[..., Any] | None = None,
        status: Status | None = None,
        held: Held | str | None = None,
        since: datetime | None = None,
        attributes: Attributes | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ExecutionInfo]:
        """Executions, newest first, that meet all conditions; read page by page.

        A listing tells what stands in each execution's own row: `last_error`, `attempts` and `published` are
        told by `describe` alone.

        Raises:
            UsageError: A condition makes no sense.
        """
        wanted = query_of(workflow, status, held, since, attributes)
        left, after = None if limit is None else positive("limit", limit, least=0), None
        while left is None or left > 0:
            page = PAGE if left is None else min(left, PAGE)
            records = await self._ask(self._service.store.executions, replace(wanted, limit=page, after=after))
            for record in records:
                yield info(record)
            if len(records) < page:
                return
            left = None if left is None else left - len(records)
            after = (records[-1].created_at, records[-1].execution_id)

    # Operating -----------------------------------------------------------------------------------

    async def interrupt(self, execution_id: str, /) -> None:
        """Ask an execution to end (R29): its body sees `asyncio.CancelledError`, finalizers and compensations run.

        Durable when this returns; the execution ends when its body, its finalizers and its compensations have. A held one
        ends with the failure that holds it, one that never began ends at once. A second interrupt does nothing unless the
        execution is held; nor does one of an execution that is unknown or has ended, or that a compensation holds.
        """
        await self._ask(self._service.requests.interrupt, check_id(execution_id))

    async def interrupt_unsafe(self, execution_id: str, /) -> None:
        """End an execution at once as INTERRUPTED: no finalizer, no compensation, whatever it does just now is lost.

        For one that cannot be ended by `interrupt`, because its body or a compensation does not let it. Nothing happens
        to an execution that has ended.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        await self._ask(self._service.requests.interrupt_unsafe, check_id(execution_id))

    async def resume(self, execution_id: str, /, *, skip: bool = False) -> None:
        """Move a held execution; nothing on the others (R36).

        Args:
            execution_id: Which one.
            skip: Where a compensation holds it: pass over that one and go on with the next (R28).

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        await self._ask(self._service.requests.resume, check_id(execution_id), skip=skip)

    async def rewind(self, execution_id: str, /, *, to: int) -> None:
        """Begin a new life of a finished or held execution that keeps its journal up to `to`, and goes on from there (R37).

        For an execution that failed at a bug which is mended now: what worked is kept, the rest is done again by today's
        code. Its id stays, and so do the tokens that the kept part has given out; who waits for a held one goes on
        waiting. What its compensations have undone behind `to` stays undone, and is not done again: rewind to before the
        step that they belong to. Nor is it by a child with a key that has SUCCEEDED: that is joined.

        Args:
            execution_id: Which one.
            to: The last entry of the journal that is kept; 0: none.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            UsageError: It is neither finished nor held, or has no such entry.
        """
        await self._ask(self._service.requests.rewind, check_id(execution_id), positive("to", to, least=0))

    async def fork(
        self, execution_id: str, /, *, at: int, new_id: str | None = None, compensations: bool = False
    ) -> str:
        """Begin another execution with a copy of this one's journal up to `at` (R49). The original is left as it is.

        Its tokens are its own, also those of the copied part, which is not compared with what its body asks for.

        Args:
            execution_id: The original.
            at: The last entry of its journal that is copied; 0: none.
            new_id: The id of the copy, 32 lower-case hex digits; None: a random one.
            compensations: Whether what the copied entries did is compensated for when the copy fails; else that
                stays the original's affair.

        Returns:
            The id of the copy.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            ExecutionExistsError: One of the new id exists.
            UsageError: It has no such entry, or an id is none.
        """
        original, at = check_id(execution_id), positive("at", at, least=0)
        copy = None if new_id is None else check_id(new_id)
        return await self._ask(self._service.requests.fork, original, at, new_id=copy, compensates=compensations)

    async def purge(self, *, older_than: Duration, workflow: str | Workflow[..., Any] | None = None) -> int:
        """Remove finished executions with everything that is theirs: journal, mailbox, heartbeats, earlier lives.

        In small transactions, so that nobody waits for it. One that has not ended is never removed, however old it
        is. What is removed is forgotten: a start with its key begins a new execution (R2), and a completion that comes
        later raises `ExecutionNotFoundError` (R18).

        Args:
            older_than: How long ago they must have ended.
            workflow: Of which workflow; None: of every one, also those that nobody has registered.

        Returns:
            How many were removed.

        Raises:
            UsageError: The duration is negative.
        """
        age = to_ms(older_than)
        if age < 0:
            raise UsageError(f"older_than= is how long ago they must have ended, not {older_than!r}.")
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        return await self._ask(purge, self._service.store, name, self._service.clock.now() - age)

    # Engine: what definitions ask ----------------------------------------------------------------

    def now(self) -> Instant:
        """The time on the store's clock, in milliseconds since the epoch."""
        return self._service.clock.now()

    async def start_execution(self, start: Start, *, on_duplicate: OnDuplicate) -> None:
        """Start or join; for definitions, which find their engine by themselves."""
        await self._ask(self._service.starts.start, start, on_duplicate=on_duplicate)

    async def wait_for_exit(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit, once there is one; for definitions."""
        return await self._wait(self._service.results.wait, execution_id, workflow=workflow, timeout=timeout)

    async def record(self, execution_id: ExecutionId, /) -> Record | None:
        """The execution as it stands in the store; for definitions."""
        return await self._ask(self._service.requests.record, check_asked(execution_id))

    async def resume_execution(self, execution_id: ExecutionId, /, *, skip: bool = False) -> None:
        """Move a held execution; for definitions."""
        await self._ask(self._service.requests.resume, check_id(execution_id), skip=skip)

    async def interrupt_execution(self, execution_id: ExecutionId, /) -> None:
        """Ask an execution to end; for definitions."""
        await self._ask(self._service.requests.interrupt, check_id(execution_id))

    async def deliver(self, mail: Mail, /) -> Receipt:
        """Have mail delivered, exactly once; for definitions."""
        return await self._ask(self._service.requests.deliver, mail)

    async def wait_for_mail(self, execution_id: ExecutionId, kind: str, name: str, /) -> bytes:
        """The exit of the first mail of that kind and name, once it has come; for definitions."""
        return await self._wait(self._service.letterbox.wait, execution_id, kind, name)

    async def published(self, execution_id: ExecutionId, /) -> dict[str, bytes]:
        """What a body has shown, by name, encoded; for definitions."""
        return await self._ask(self._service.requests.published, execution_id)

    @property
    def token_keys(self) -> TokenKeys | None:
        """What this engine signs tokens with; None: they are not signed."""
        return self._service.settings.token_keys

    @property
    def payload_limit(self) -> int:
        """The largest encoded payload, result or message."""
        return self._service.settings.payload_limit

    async def _wait(self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have something waited for that others bring about. An activity of this engine holds no place meanwhile."""
        running = ambient.attempt.get()
        if running is None or running.engine is not self:
            return await self._ask(method, *args, **kwargs)
        return await self._ask(_aside, running, method, *args, **kwargs)

    async def _ask(self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have something done on the engine's own loop, wherever it is asked from.

        A plain activity on its thread, a script beside a blocking engine: they have loops of their own, which nothing
        of the engine may be awaited on.
        """
        outside_of_bodies(f"{getattr(method, '__name__', 'a method')}()")
        self._check_open()
        loop = self._service.loop
        if asyncio.get_running_loop() is loop:
            running = ambient.attempt.get()
            if running is not None and running.engine is self:
                await running.shown()  # in the order in which an activity asks
            return await method(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*args, **kwargs), loop))

    def _check_open(self) -> None:
        if self._state == "open":
            in_its_process(self._pid)
            if self._service.committer.failed:
                raise UsageError(
                    "This engine has failed: it cannot write any more, and the log of 'perdure' says why. Close it, and"
                    " open a new one: nothing that was promised is lost."
                )
            if self._service.committer.ended:
                raise UsageError(
                    "Somebody has cancelled every task of this engine's loop, its own among them. Close it, and open a new"
                    " one: nothing is lost."
                )
            return
        # An activity that still has its grace is not told that the engine closes: that would be its recorded result.
        running = ambient.attempt.get()
        if self._state != "closing" or running is None or running.engine is not self:
            raise UsageError("This engine is not open. Use it inside `async with engine:`.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}: {self._service.registry}>"


def outside_of_bodies(what: str) -> None:
    """Refuse what a body asks of an engine.

    Raises:
        WorkflowIOError: A body runs here.
    """
    # Not only would a replay be answered otherwise (R42): the answer would be sought on the body's own loop.
    if ambient.host.get() is not None:
        raise WorkflowIOError(f"A workflow body cannot use an engine ({what}). Move it to an activity.")


async def _aside(
    running: AttemptScope, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    return await running.aside(method(*args, **kwargs))


def in_its_process(pid: int) -> None:
    """Refuse to use an engine in a child of the process that has opened it.

    Raises:
        UsageError: This is another process.
    """
    # Asked in a child, it would wait for ever for a loop that runs in the parent only.
    if os.getpid() != pid:
        raise UsageError(
            "An engine cannot be carried across a fork. Start the process with multiprocessing's 'spawn' or"
            " 'forkserver' method, and open an engine in it."
        )
