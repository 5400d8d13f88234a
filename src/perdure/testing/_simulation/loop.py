"""An event loop without a clock, a selector or threads of its own: the world decides when it runs, and what o'clock it is.

Callbacks run in the order in which they were scheduled, as asyncio promises; what a seed chooses is
when answers come, and which of several loops goes on. A loop that is never run again is a process
that is gone: nothing is closed, nothing cleaned up, nobody told.
"""

import asyncio
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, NoReturn

from perdure.errors import UsageError

Microseconds = int  # since the world began


@contextmanager
def alone() -> Generator[None, None, None]:
    """Leave behind no running loop, and no hooks, but those that were there."""
    before = events._get_running_loop()  # noqa: SLF001
    hooks = sys.get_asyncgen_hooks()
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)
        events._set_running_loop(before)  # noqa: SLF001


class Round(asyncio.TimerHandle):
    """A timer after which somebody only looks whether there is work."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs what is ready when it is told to.

    Args:
        now: The world's time.
        failed: Told of what no callback may do: raise.
    """

    def __init__(self, now: Callable[[], Microseconds], failed: Callable[[dict[str, Any]], object]) -> None:
        self._now = now
        self._failed = failed
        self._ready: deque[asyncio.Handle] = deque()
        # With a number, so that what is due at the same time comes in the order of its asking.
        self._timers: list[tuple[Microseconds, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._stopped = False
        self._closed = False

    # What the world asks ---------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether there is something to run now."""
        return self.is_ready_at(self._now())

    def is_ready_at(self, now: Microseconds) -> bool:
        """Whether there is something to run at that time, which is now: asked of each process at each step of a run."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._ready.append(handle)
        return bool(self._ready)

    def next_timer(self) -> tuple[Microseconds, asyncio.TimerHandle] | None:
        """The earliest timer that is set."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return (timers[0][0], timers[0][2]) if timers else None

    def timers(self) -> list[tuple[Microseconds, asyncio.TimerHandle]]:
        """All timers that are set, in no order."""
        return [(when, handle) for when, _, handle in self._timers if not handle.cancelled()]

    def run_pass(self) -> None:
        """Run what is ready now, and not what becomes ready by that; `stop` ends it in between."""
        with alone():
            self.go_round()

    def go_round(self) -> None:
        """The same, for who runs one loop after the other and is `alone` meanwhile."""
        self.is_ready_at(self._now())
        # To set it costs a system call, and mostly the same loop goes on.
        if events._get_running_loop() is not self:  # noqa: SLF001
            events._set_running_loop(self)  # noqa: SLF001
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - what every loop has to call
            if self._stopped:
                return

    def halt(self) -> None:
        """Run nothing any more, from this moment on."""
        self._stopped = True

    def go_on(self) -> None:
        """Take `halt` back: to bury what is left."""
        self._stopped = False

    # What asyncio asks -------------------------------------------------------------------------------

    def now_us(self) -> Microseconds:
        """The world's time."""
        return self._now()

    def time(self) -> float:
        """The world's time in seconds."""
        return self._now() / 1e6

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run it in the next pass."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run it in the next pass; there are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it after so many seconds."""
        return self.call_at_us(self._now() + max(round(delay * 1e6), 0), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at that time of this loop."""
        return self.call_at_us(round(when * 1e6), callback, *args, context=context)

    def call_at_us(
        self, when: Microseconds, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at that time of the world."""
        return self._set(when, asyncio.TimerHandle(when / 1e6, callback, args, self, context))

    def call_round_at_us(self, when: Microseconds, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """The same for a look whether there is work, which nobody has to wait for."""
        return self._set(when, Round(when / 1e6, callback, (), self))

    def _set(self, when: Microseconds, handle: asyncio.TimerHandle) -> asyncio.TimerHandle:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is left out when its time has come."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        """A task of this loop."""
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(  # an executor is asked for by `asyncio.to_thread` as well, and is none
        self,
        executor: Any,  # noqa: ARG002
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Call a function of a user's activity, a little later and on this thread: there is no other."""
        future = self.create_future()
        self.call_later(0.001, _settle, future, func, args)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the world that something was raised where nothing may be."""
        self._failed(context)

    def get_debug(self) -> bool:
        """Whether asyncio is to check what it is asked: no."""
        return False

    def is_running(self) -> bool:
        """Whether it may be run: always."""
        return True

    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def close(self) -> None:
        """Forget what is left."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UsageError(
            "There is no network and no process in a simulation. Give the activity something in its place: a fake of"
            " the far side that answers by itself."
        )

    getaddrinfo = getnameinfo = create_connection = create_server = create_datagram_endpoint = _refuse
    create_unix_connection = create_unix_server = start_tls = sendfile = connect_accepted_socket = _refuse
    sock_recv = sock_recv_into = sock_recvfrom = sock_sendall = sock_sendto = sock_connect = sock_accept = _refuse
    subprocess_shell = subprocess_exec = connect_read_pipe = connect_write_pipe = _refuse
    add_reader: Any = _refuse
    add_writer: Any = _refuse


def _settle(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        value = func(*args)
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises is its caller's
        future.set_exception(error)
    else:
        future.set_result(value)
