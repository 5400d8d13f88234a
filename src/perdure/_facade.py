"""The engine that users open: its constructors, and its life from opening to closing.

The only room that knows both the engine and the stores.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from typing_extensions import Unpack

from perdure._blocking import BlockingEngine, BlockingHandle
from perdure._definitions import ambient
from perdure._definitions.registration import Registration
from perdure._face import EngineFace, outside_of_bodies
from perdure._model.info import ExecutionInfo, JournalEntry
from perdure._model.store import Store
from perdure._options import EngineOptions
from perdure.errors import UsageError

# What the package's lazy front door finds here.
__all__ = [
    "BlockingEngine",
    "BlockingHandle",
    "EngineOptions",
    "ExecutionInfo",
    "JournalEntry",
    "WorkflowEngine",
    "current_engine",
]


class WorkflowEngine(EngineFace):
    """Runs workflows on a store. An async context manager: open inside `async with`, closed behind it.

    On leaving, running activities get their grace, the rest is given back; nothing is lost, and the
    next engine on the same store goes on with it. Without registrations it is a client: it starts,
    waits and looks, and runs nothing.

    Options, the same for every constructor: `concurrency` (how many activities run at once; 100),
    `threads` (how many of them on threads, as plain functions; 32), `admission` (how many executions
    are in hand at once, more are stored and wait their turn; 1,000), `cache` (how many suspended
    executions stay in memory, or (count, bytes of journal); 10,000 and 256 MiB; 0: none, so every await
    replays, and local code in `finally` runs at every await), `grace` (how long running activities may
    go on when the engine closes; 5 seconds), `payload_limit` (the largest encoded payload or result in
    bytes; 4 MiB), `token_secret` (what tokens of deferreds are signed with, one secret or several by key
    id; none: they are not signed), `retention` (how long finished executions are kept, where their workflow says nothing
    else; 30 days; None: for ever).

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
        super().__init__(store, registrations, options)

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

    def blocking(self) -> BlockingEngine:
        """The same engine for code that is not async: a context manager that runs it on a thread of its own."""
        return BlockingEngine(self)

    # Lifecycle -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        outside_of_bodies("opening it")
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
