"""The engine that users open: its constructors, its methods, and its blocking face.

The only room that knows both the engine and the stores.
"""

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypedDict, TypeVar
from urllib.parse import unquote, urlsplit

from typing_extensions import Unpack

from perdure._definitions import ambient
from perdure._definitions.handle import Handle
from perdure._definitions.host import OnDuplicate, OnMismatch
from perdure._definitions.name import check_attributes
from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow
from perdure._engine.service import Service
from perdure._engine.settings import Settings
from perdure._engine.views import info, journal_entry
from perdure._model.info import ExecutionInfo, JournalEntry
from perdure._model.records import Attributes, ExecutionId, Query, Record, Start
from perdure._model.status import Held, Status, is_final
from perdure._model.store import Store
from perdure._values.duration import Duration, to_timedelta
from perdure._values.exit import Complete, Failure, Poll, Suspended
from perdure._values.exit_codec import decode_loosely
from perdure._values.instant import Instant, from_datetime
from perdure.errors import ExecutionNotFoundError, UsageError, WorkflowIOError

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=StrEnum)
A_co = TypeVar("A_co", covariant=True)

# One page of a listing; the iterator asks for the next when it has been read.
PAGE = 200
# When a blocking engine closes, whatever is left on its loop has been cancelled, and gets this long to end.
LEFT_S = 5.0


class EngineOptions(TypedDict, total=False):
    """The options of an engine, the same for every store.

    Attributes:
        concurrency: How many activities run at once (1,000).
        threads: How many of them on threads, as plain functions (32).
        admission: How many executions are in hand at once; more are stored and wait their turn (1,000).
        cache: How many suspended executions stay in memory, or (count, bytes of journal); 0: none, so every
            await replays, and local code in `finally` runs at every await (10,000 and 256 MiB).
        grace: How long running activities may go on when the engine closes ("5 seconds").
        payload_limit: The largest encoded payload or result in bytes (4 MiB).
    """

    concurrency: int
    threads: int
    admission: int
    cache: int | tuple[int, int]
    grace: Duration
    payload_limit: int


class WorkflowEngine:
    """Runs workflows on a store. An async context manager: open inside `async with`, closed behind it.

    On leaving, running activities get their grace, the rest is given back; nothing is lost, and the
    next engine on the same store goes on with it. Without registrations it is a client: it starts,
    waits and looks, and runs nothing.

    Options, the same for every constructor: `concurrency` (how many activities run at once; 1,000),
    `threads` (how many of them on threads, as plain functions; 32), `admission` (how many executions
    are in hand at once, more are stored and wait their turn; 1,000), `cache` (how many suspended
    executions stay in memory, or (count, bytes of journal); 10,000 and 256 MiB; 0: none, so every await
    replays, and local code in `finally` runs at every await), `grace` (how long running activities may
    go on when the engine closes; 5 seconds), `payload_limit` (the largest encoded payload or result in
    bytes; 4 MiB).

    Example:
        >>> import asyncio
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> str:
        ...     async with WorkflowEngine.memory([greet]):
        ...         return await greet.execute("ada")
        >>> asyncio.run(main())
        'hello ada'
    """

    def __init__(
        self, store: Store, registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]
    ) -> None:
        """Make an engine on a store of one's own; `perdure.testing.conformance` tells whether the store is right."""
        self._service = Service(store, registrations, _settings(options), self)
        self._token: contextvars.Token[Any] | None = None
        # The process that has opened it. A child made by fork has a copy without the loop and the threads behind it.
        self._pid = os.getpid()
        self._state: Literal["new", "open", "closing", "closed"] = "new"

    # Constructors --------------------------------------------------------------------------------

    @classmethod
    def memory(cls, registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]) -> Self:
        """An engine whose executions end with the process: for tests and development."""
        from perdure._stores.sqlite import SqliteStore

        return cls(SqliteStore.in_memory(), registrations, **options)

    @classmethod
    def sqlite(
        cls, path: str | PathLike[str], registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]
    ) -> Self:
        """An engine on one file, which is perdure's own (`*.perdure`): durable, any number of processes of one host."""
        from perdure._stores.sqlite import SqliteStore

        return cls(SqliteStore(path), registrations, **options)

    @classmethod
    def open(cls, url: str, registrations: Iterable[Registration] = (), /, **options: Unpack[EngineOptions]) -> Self:
        """An engine by URL: `memory://`, `sqlite:///relative.perdure`, `sqlite:////absolute.perdure`.

        Raises:
            UsageError: The URL is of no known kind.
        """
        parts = urlsplit(url)
        if parts.scheme == "memory" and not parts.netloc and not parts.path:
            return cls.memory(registrations, **options)
        if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
            return cls.sqlite(unquote(parts.path[1:]), registrations, **options)
        raise UsageError(
            f"{url!r} names no store. It is memory://, sqlite:///relative.perdure or sqlite:////absolute.perdure."
        )

    # Lifecycle -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        _outside_of_bodies("opening it")
        if self._state == "open":
            raise UsageError("This engine is open already.")
        if self._state != "new":
            raise UsageError("This engine was closed; an engine is opened once. Make a new one on the same store.")
        await self._service.open()
        self._pid = os.getpid()
        self._state = "open"
        self._token = ambient.engine.set(self)
        ambient.open_engines.append(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            return  # a child made by fork leaves the block; the engine is the parent's, and stays open
        ambient.open_engines.remove(self)
        self._state = "closing"
        if self._token is not None:
            # Under a server's lifespan the exit may come in another context, where the token means nothing.
            with contextlib.suppress(ValueError):
                ambient.engine.reset(self._token)
        closing = asyncio.ensure_future(self._service.close())
        try:
            # A second Ctrl-C, or a cancelled caller, must not leave the store half closed.
            cancelled = await _finish(closing)
        finally:
            self._state = "closed"
        if cancelled is not None:
            raise cancelled

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

    def blocking(self) -> "BlockingEngine":
        """The same engine for code that is not async: a context manager that runs it on a thread of its own."""
        return BlockingEngine(self)

    # Starting and waiting ------------------------------------------------------------------------

    async def execute(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Start or join an execution, and wait for its value; as `workflow.execute`, on this engine."""
        return await workflow.options(engine=self).execute(*args, **kwargs)

    async def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Handle[T]:
        """Start or join an execution, without waiting; as `workflow.start`, on this engine."""
        return await workflow.options(engine=self).start(*args, **kwargs)

    async def resume(self, execution_id: str, /) -> None:
        """Move a held execution; nothing on the others.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        _outside_of_bodies("resume()")
        await self._service.resume_execution(execution_id)

    # Looking -------------------------------------------------------------------------------------

    async def poll(self, execution_id: str, /) -> Poll[Any]:
        """None (unknown, or running), `Suspended(cause)` or `Complete(exit)`, with a success as plain JSON."""
        record = await self._ask(self._service.record, execution_id)
        if record is None:
            return None
        exit_ = decode_loosely(record.exit) if record.exit is not None else None
        if is_final(record.status) and exit_ is not None:
            return Complete(exit_)
        if record.status is Status.SUSPENDED:
            return Suspended(exit_.cause if isinstance(exit_, Failure) else None)
        return None

    async def describe(self, execution_id: str, /) -> ExecutionInfo:
        """Everything about one execution but its journal.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        return info(await self._existing(execution_id))

    async def journal(self, execution_id: str, /) -> list[JournalEntry]:
        """The journal of an execution, in order.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        record = await self._existing(execution_id)
        histories = await self._ask(self._service.store.load, [(record.incarnation, 0)])
        return [journal_entry(entry) for entry in histories[0].entries]

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

        Raises:
            UsageError: A condition makes no sense.
        """
        wanted = _query(workflow, status, held, since, attributes)
        left, after = None if limit is None else _positive("limit", limit, least=0), None
        while left is None or left > 0:
            page = PAGE if left is None else min(left, PAGE)
            records = await self._ask(self._service.store.executions, replace(wanted, limit=page, after=after))
            for record in records:
                yield info(record)
            if len(records) < page:
                return
            left = None if left is None else left - len(records)
            after = (records[-1].created_at, records[-1].execution_id)

    async def _existing(self, execution_id: ExecutionId) -> Record:
        record = await self._ask(self._service.record, execution_id)
        if record is None:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        return record

    # Engine: what definitions ask ----------------------------------------------------------------

    def now(self) -> Instant:
        """The time on the store's clock, in milliseconds since the epoch."""
        return self._service.now()

    async def start_execution(
        self,
        start: Start,
        *,
        on_duplicate: OnDuplicate,
        on_mismatch: OnMismatch,
        differing: Callable[[bytes], tuple[str, ...]],
    ) -> None:
        """Start or join; for definitions, which find their engine by themselves."""
        await self._ask(
            self._service.start_execution,
            start,
            on_duplicate=on_duplicate,
            on_mismatch=on_mismatch,
            differing=differing,
        )

    async def wait_for_exit(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit, once there is one; for definitions."""
        waiting = self._ask(self._service.wait_for_exit, execution_id, workflow=workflow, timeout=timeout)
        running = ambient.attempt.get()
        # A plain function is on a thread, which waits as well, and cannot be given back.
        if running is None or running.engine is not self or asyncio.get_running_loop() is not self._service.loop:
            return await waiting
        return await running.aside(waiting)

    async def record(self, execution_id: ExecutionId, /) -> Record | None:
        """The execution as it stands in the store; for definitions."""
        return await self._ask(self._service.record, execution_id)

    async def resume_execution(self, execution_id: ExecutionId, /) -> None:
        """Move a held execution; for definitions."""
        await self._ask(self._service.resume_execution, execution_id)

    async def _ask(self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have something done on the engine's own loop, wherever it is asked from.

        A plain activity on its thread, a script beside a blocking engine: they have loops of their own, which nothing
        of the engine may be awaited on.
        """
        _outside_of_bodies(f"{getattr(method, '__name__', 'a method')}()")
        self._check_open()
        loop = self._service.loop
        if asyncio.get_running_loop() is loop:
            return await method(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*args, **kwargs), loop))

    def _check_open(self) -> None:
        if self._state == "open":
            _in_its_process(self._pid)
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


def current_engine() -> WorkflowEngine:
    """The engine that a call without `engine=` uses here: of this body or activity, the nearest, or the only one open.

    Raises:
        UsageError: None is open, or several are.

    Example:
        >>> import asyncio
        >>> async def main() -> bool:
        ...     async with WorkflowEngine.memory() as engine:
        ...         return current_engine() is engine
        >>> asyncio.run(main())
        True
    """
    found = ambient.find_engine()
    assert isinstance(found, WorkflowEngine)
    return found


def _outside_of_bodies(what: str) -> None:
    # Not only would a replay be answered otherwise (R42): the answer would be sought on the body's own loop.
    if ambient.host.get() is not None:
        raise WorkflowIOError(f"A workflow body cannot use an engine ({what}). Move it to an activity.")


def _in_its_process(pid: int) -> None:
    # Asked in a child, it would wait for ever for a loop that runs in the parent only.
    if os.getpid() != pid:
        raise UsageError(
            "An engine cannot be carried across a fork. Start the process with multiprocessing's 'spawn' or"
            " 'forkserver' method, and open an engine in it."
        )


def _settings(options: EngineOptions) -> Settings:
    known = EngineOptions.__annotations__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"An engine has no option {unknown[0]!r}. It has: {', '.join(known)}.")
    defaults = Settings()
    count, size = _cache(options.get("cache", defaults.cache_count), defaults.cache_bytes)
    return Settings(
        concurrency=_positive("concurrency", options.get("concurrency", defaults.concurrency)),
        threads=_positive("threads", options.get("threads", defaults.threads)),
        admission=_positive("admission", options.get("admission", defaults.admission)),
        cache_count=count,
        cache_bytes=size,
        grace=to_timedelta(options.get("grace", defaults.grace)),
        payload_limit=_positive("payload_limit", options.get("payload_limit", defaults.payload_limit)),
    )


def _cache(value: object, default_bytes: int) -> tuple[int, int]:
    match value:
        case int() as count if count >= 0 and not isinstance(count, bool):
            return count, default_bytes
        case (int() as count, int() as size) if count >= 0 and size >= 0:
            return count, size
        case _:
            raise UsageError(f"cache= is a number of executions from 0, or (number, bytes of journal), not {value!r}.")


def _query(
    workflow: str | Workflow[..., Any] | None,
    status: Status | None,
    held: Held | str | None,
    since: datetime | None,
    attributes: Attributes | None,
) -> Query:
    return Query(
        workflow=workflow.name if isinstance(workflow, Workflow) else workflow,
        status=None if status is None else _one_of(Status, status, "status"),
        held=None if held is None else _one_of(Held, held, "held"),
        since=None if since is None else _instant("since", since),
        attributes=check_attributes(attributes or {}),
    )


def _one_of(kind: type[S], value: object, name: str) -> S:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise UsageError(f"{name}= is one of {known}, not {value!r}.") from None


def _instant(name: str, value: object) -> Instant:
    if not isinstance(value, datetime):
        raise UsageError(f"{name}= is an aware datetime, not {value!r}.")
    return from_datetime(value)


def _positive(name: str, value: object, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}= is a number from {least}, not {value!r}.")
    return value


async def _finish(future: "asyncio.Future[None]") -> asyncio.CancelledError | None:
    """Wait for `future` whatever happens; the cancellation that came meanwhile."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
    future.result()
    return cancelled


def _blocking(
    method: Callable[Concatenate[WorkflowEngine, P], Coroutine[Any, Any, T]], /
) -> Callable[[Callable[..., Any]], Callable[Concatenate["BlockingEngine", P], T]]:
    """Give a one-line method of the blocking face the parameters and the result of its async method."""

    def face(declared: Callable[..., Any]) -> Callable[Concatenate["BlockingEngine", P], T]:
        @functools.wraps(method)
        def blocking(self: "BlockingEngine", /, *args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(method, self.engine, *args, **kwargs)

        blocking.__name__ = declared.__name__
        return blocking

    return face


class BlockingEngine:
    """An engine on a thread of its own, for code that is not async: scripts, notebooks, Django, Flask.

    Its methods are those of `WorkflowEngine`, and block until they have their answer. Any thread may
    use it, and several at once.

    Example:
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> with WorkflowEngine.memory([greet]).blocking() as engine:
        ...     engine.execute(greet, "ada")
        'hello ada'
    """

    def __init__(self, engine: WorkflowEngine) -> None:
        """Made by `WorkflowEngine.blocking()`."""
        self.engine = engine
        # None: it takes no calls. Changed under the lock, so that each call reaches the loop before its end or not at all.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # Calls that somebody waits for.
        self._calls: set[Future[Any]] = set()

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("This engine is open already.")
        opened: threading.Event = threading.Event()
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, opened), name="perdure-engine", daemon=True)
        self._thread.start()
        opened.wait()
        try:
            self._submit(self.engine.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            return  # as `WorkflowEngine.__aexit__`
        try:
            self._submit(self.engine.__aexit__(None, None, None))
        finally:
            self._stop()

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function on the engine's thread, and wait for its result.

        Raises:
            UsageError: The engine is not open, or this is its own thread, which would wait for itself.
        """

        async def called() -> T:
            return await function(*args, **kwargs)

        return self._submit(called())

    def register(self, *registrations: Registration) -> None:
        """Take more workflows.

        Raises:
            DefinitionError: Two have one name.
        """

        async def registered() -> None:
            self.engine.register(*registrations)

        self.call(registered)

    @_blocking(WorkflowEngine.execute)
    def execute(self) -> Any: ...

    def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "BlockingHandle[T]":
        """Start or join an execution, without waiting for its end."""
        return BlockingHandle(self, self.call(self.engine.start, workflow, *args, **kwargs))

    @_blocking(WorkflowEngine.resume)
    def resume(self) -> Any: ...

    @_blocking(WorkflowEngine.poll)
    def poll(self) -> Any: ...

    @_blocking(WorkflowEngine.describe)
    def describe(self) -> Any: ...

    @_blocking(WorkflowEngine.journal)
    def journal(self) -> Any: ...

    @_blocking(WorkflowEngine.drain)
    def drain(self) -> Any: ...

    def executions(
        self,
        *,
        workflow: str | Workflow[..., Any] | None = None,
        status: Status | None = None,
        held: Held | str | None = None,
        since: datetime | None = None,
        attributes: Attributes | None = None,
        limit: int | None = None,
    ) -> Iterator[ExecutionInfo]:
        """Executions, newest first, that meet all conditions; read page by page."""
        found = self.engine.executions(
            workflow=workflow, status=status, held=held, since=since, attributes=attributes, limit=limit
        )
        while True:
            try:
                yield self._submit(_next(found))
            except StopAsyncIteration:
                return

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            call = self._send(coroutine)
        except UsageError:
            coroutine.close()
            raise
        try:
            return call.result()
        finally:
            self._calls.discard(call)

    def _send(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        _in_its_process(self._pid)
        if threading.current_thread() is self._thread:
            raise UsageError("This is the engine's own thread, which would wait for itself. Await the async method.")
        with self._lock:
            if self._loop is None:
                raise UsageError("This engine is not open. Use it inside `with engine.blocking():`.")
            call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._calls.add(call)
        return call

    def _run(self, loop: asyncio.AbstractEventLoop, opened: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(opened.set)
        loop.run_forever()
        # Whoever still waits for a `call` in another thread would wait for ever on a closed loop.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            # Not gathered: an activity that swallows every cancellation would keep the engine open for ever.
            loop.run_until_complete(asyncio.wait(left, timeout=LEFT_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _stop(self) -> None:
        assert self._thread is not None
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        self._thread = None
        for call in list(self._calls):
            if not call.done():
                # Not cancelled: that would be passed on to the loop, which is closed.
                call.set_exception(UsageError("The engine was closed, and what it was asked for did not end with it."))


class BlockingHandle(Generic[A_co]):
    """A handle whose methods block.

    Example:
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> with WorkflowEngine.memory([greet]).blocking() as engine:
        ...     handle = engine.start(greet, "ada")
        ...     handle.result(timeout="10 seconds")
        'hello ada'
    """

    def __init__(self, engine: BlockingEngine, handle: Handle[A_co]) -> None:
        """Made by `BlockingEngine.start`."""
        self._engine = engine
        self._handle = handle

    @property
    def execution_id(self) -> str:
        """The execution's id."""
        return self._handle.execution_id

    def result(self, timeout: Duration | None = None) -> A_co:
        """Wait for the value; raises what the execution failed with.

        Raises:
            ExecutionTimeoutError: It has not ended within `timeout`; it goes on.
        """
        return self._engine.call(self._handle.result, timeout)

    def poll(self) -> Poll[A_co]:
        """None (still running), `Suspended(cause)` or `Complete(exit)`."""
        return self._engine.call(self._handle.poll)

    def status(self) -> Status:
        """Where it stands."""
        return self._engine.call(self._handle.status)

    def resume(self) -> None:
        """Move it if it is held."""
        self._engine.call(self._handle.resume)


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)
