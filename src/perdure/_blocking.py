"""The blocking face of an engine, and of a handle: for code that is not async."""

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from typing_extensions import TypeForm

from perdure._definitions.address import Named
from perdure._definitions.handle import Handle
from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow
from perdure._face import EngineFace, in_its_process
from perdure._model.info import ExecutionInfo
from perdure._model.records import Attributes
from perdure._model.status import Held, Status
from perdure._values.duration import Duration
from perdure._values.exit import Poll
from perdure._values.token import Token
from perdure.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)

# When a blocking engine closes, whatever is left on its loop has been cancelled, and gets this long to end.
LEFT_S = 5.0


def _blocking(
    method: Callable[Concatenate[EngineFace, P], Coroutine[Any, Any, T]], /
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

    def __init__(self, engine: EngineFace) -> None:
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

        For what has no method here: `engine.call(Approval.succeed, token, value)`, `engine.call(Notes.send, id, note)`.

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

    @_blocking(EngineFace.execute)
    def execute(self) -> Any: ...

    def start(self, workflow: Workflow[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "BlockingHandle[T]":
        """Start or join an execution, without waiting for its end."""
        return BlockingHandle(self, self.call(self.engine.start, workflow, *args, **kwargs))

    @_blocking(EngineFace.resume)
    def resume(self) -> Any: ...

    @_blocking(EngineFace.poll)
    def poll(self) -> Any: ...

    @_blocking(EngineFace.describe)
    def describe(self) -> Any: ...

    @_blocking(EngineFace.journal)
    def journal(self) -> Any: ...

    @_blocking(EngineFace.explain)
    def explain(self) -> Any: ...

    @_blocking(EngineFace.interrupt)
    def interrupt(self) -> Any: ...

    @_blocking(EngineFace.interrupt_unsafe)
    def interrupt_unsafe(self) -> Any: ...

    @_blocking(EngineFace.rewind)
    def rewind(self) -> Any: ...

    @_blocking(EngineFace.fork)
    def fork(self) -> Any: ...

    @_blocking(EngineFace.purge)
    def purge(self) -> Any: ...

    @_blocking(EngineFace.drain)
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
        in_its_process(self._pid)
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

    def status(self) -> Status | None:
        """Where it stands; None: there is no such execution, or not yet."""
        return self._engine.call(self._handle.status)

    def explain(self) -> str:
        """Say in sentences where it stands, and which call moves it."""
        return self._engine.call(self._handle.explain)

    def interrupt(self) -> None:
        """Ask it to end (R29)."""
        self._engine.call(self._handle.interrupt)

    def resume(self, *, skip: bool = False) -> None:
        """Move it if it is held; with `skip`, past the compensation that holds it."""
        self._engine.call(self._handle.resume, skip=skip)

    def token(self, deferred: Named, /, *, expires_in: Duration | None = None) -> Token:
        """Give the address of a deferred in this execution, for whoever is to complete it."""
        return self._handle.token(deferred, expires_in=expires_in)

    @overload
    def read(self, name: str, /) -> Any: ...
    @overload
    def read(self, name: str, type_: TypeForm[T], /) -> T | None: ...
    def read(self, name: str, type_: Any = Any, /) -> Any:
        """Give what its body has published last under a name; None: nothing yet."""
        return self._engine.call(self._handle.read, name, type_)


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)
