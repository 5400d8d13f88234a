"""The event loop on which a body runs: a ready queue and nothing else.

A body is ordinary asyncio code. What makes it deterministic is the loop under it:

- It has no clock and no selector. Time is the time of the last event; a timer is a durable step;
  whatever would do I/O is refused with the name of the call and the place where it belongs.
- It runs only inside a turn, from one event until nothing is ready, in first-in first-out order.
- Tasks and futures are hashed by their creation number. asyncio keeps them in sets (`wait`, a
  TaskGroup's abort), and a set of objects hashed by address is walked in another order after
  every restart.

The loop is driven from a plain callback of the outer loop, never from inside one of its tasks:
from Python 3.14 on the current task belongs to the thread, not to the loop.
"""

import asyncio
import contextlib
import logging
import sys
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import CodeType
from typing import Any, Final, NoReturn, Protocol, cast

from perdure._definitions.clock import seconds_text
from perdure._definitions.host import Call
from perdure._kernel import frames
from perdure.errors import UsageError, WorkflowIOError

logger = logging.getLogger("perdure")

# asyncio's registry of tasks is one set for the process. Numbers start anew in every kernel, so
# their hashes get the kernel's own serial above this bit: low enough bits stay the same on every
# replay for a set's order, and 100,000 tasks with number 1 do not all collide in the registry.
SERIAL_SHIFT = 40

# Longer waits are for ever: no timer is set, and nothing is recorded. `asyncio.sleep(math.inf)` is one.
FOREVER_S = 1_000 * 365 * 86_400.0

_blank: Final = object.__new__

# What runs before a turn of a body: the loop and the hooks for asynchronous generators.
Outside = tuple[asyncio.AbstractEventLoop | None, Any]


class Spinning(Exception):
    """A turn used up its budget of callbacks without coming to rest."""


class Timers(Protocol):
    """Where the loop's `call_later` and `call_at` become durable timers."""

    def now_s(self) -> float:
        """Seconds from the execution's beginning to the last event."""
        ...

    def number(self) -> int: ...

    def adopt(self, context: Context, /) -> None:
        """Let what runs in a context be the body's."""
        ...

    def set_timer(self, timer: "KernelTimer", name: str, delay_s: float, /) -> None: ...

    def drop_timer(self, timer: "KernelTimer", /) -> None: ...

    def withdraw(self, call: Call, /) -> None: ...


class KernelTask(asyncio.Task[Any]):
    """A task that is hashed by its number, and remembers its context so that it can be closed in it."""

    __slots__ = ("context", "number")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        loop: "KernelLoop",
        name: str,
        context: Context,
        number: int,
    ) -> None:
        # Before anything else: asyncio puts the task into a set while it is being made.
        self.number = number
        self.context = context
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class KernelFuture(asyncio.Future[Any]):
    """A future that is hashed by its number, and says when the step it stands for is not wanted any more.

    Made by `KernelLoop.create_future`, and by the host for a call, whose number it takes.
    """

    # Slots: every step has one, and a dict to each is as much again for the collector to walk.
    __slots__ = ("call", "number")

    number: int
    call: Call | None

    def __hash__(self) -> int:
        return self.number

    def cancel(self, msg: Any = None) -> bool:
        """Cancel, and withdraw the step: a lost race, a timeout, a cancelled task."""
        cancelled = super().cancel(msg)
        if cancelled and self.call is not None:
            loop = self.get_loop()
            assert isinstance(loop, KernelLoop)
            loop.timers.withdraw(self.call)
            self.call = None
        return cancelled


class KernelHandle(asyncio.Handle):
    """What `call_soon` gives: asyncio's handle, made with half the work, since every step of every body needs one."""

    __slots__ = ()

    # Of the class, where asyncio has them set for each: they are of use to debug mode only, which there is not.
    _repr = None
    _source_traceback = None

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: "KernelLoop", context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False


class KernelTimer(asyncio.TimerHandle):
    """What `call_later` and `call_at` give: a handle whose waiting is a durable step."""

    step: Call | None = None


class KernelLoop(asyncio.AbstractEventLoop):
    """Runs a body's tasks until nothing is ready."""

    def __init__(self, timers: Timers, budget: int) -> None:
        self.timers = timers
        self._budget = budget
        self._ready: deque[asyncio.Handle] = deque()
        # Every task that may still be alive, since asyncio itself holds them weakly. Pruned when it
        # has doubled, so a body that makes a million short tasks does not keep them.
        self._tasks: list[KernelTask] = []
        self._prune_at = 16
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None
        # Generators that the garbage collector found between two turns; closed with the body.
        self._left: list[AsyncGenerator[Any, Any]] = []
        # Whether the frames are being closed, or have been: no callback is run any more.
        self._put_away = False
        # What the body is called in the log, from then on.
        self._label = ""
        # Whether a turn is going on: only then may anything be scheduled here. The kernel sets it while
        # it resolves futures for the turn that follows.
        self.turning = False

    # The turn --------------------------------------------------------------------------------

    def run(self) -> None:
        """Run callbacks until none is ready; between `enter` and `leave`, where it is the running loop.

        Raises:
            Spinning: The budget of callbacks is used up.
        """
        ready = self._ready
        left = self._budget
        self.turning = True
        try:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:  # noqa: SLF001
                    # What `Handle._run` does, and by its names, without its frame.
                    try:
                        args = handle._args  # noqa: SLF001
                        if len(args) == 1:  # a task that goes on; a star takes longer than all the rest of the call
                            handle._context.run(handle._callback, args[0])  # noqa: SLF001
                        else:
                            handle._context.run(handle._callback, *args)  # noqa: SLF001
                    except (SystemExit, KeyboardInterrupt):
                        # The task in which it was raised holds it as its exception: a defect of the body (R9).
                        pass
                    except BaseException as error:  # noqa: BLE001 - as asyncio does: a callback has nobody else to tell
                        self.call_exception_handler({"message": f"exception in {handle!r}", "exception": error})
                left -= 1
                if not left and ready:
                    raise Spinning
        finally:
            self.turning = False

    def enter(self) -> Outside:
        """Become the running loop, for one turn or, in a replay, for all of them; gives what `leave` needs."""
        outside = events._get_running_loop(), sys.get_asyncgen_hooks()  # noqa: SLF001
        events._set_running_loop(self)  # noqa: SLF001
        sys.set_asyncgen_hooks(firstiter=self._generator_began, finalizer=self._generator_left)
        return outside

    def leave(self, outside: Outside) -> None:
        """Let what was there before `enter` be as it was."""
        loop, hooks = outside
        sys.set_asyncgen_hooks(*hooks)
        events._set_running_loop(loop)  # noqa: SLF001

    @contextlib.contextmanager
    def scheduling(self) -> Generator[None, None, None]:
        """Let what is resolved inside the block schedule its callbacks for the turn that follows."""
        self.turning = True
        try:
            yield
        finally:
            self.turning = False

    # What a body may use -----------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run a callback in this turn.

        Raises:
            WorkflowIOError: This execution is not in its turn: somebody else's code touches one of
                its futures, locks or events.
        """
        if not self.turning:
            raise WorkflowIOError(
                "Something outside this execution's turn touched one of its asyncio objects. A Lock, Event, "
                "Queue or Future cannot be shared between executions or with other code; "
                "let an activity do it, or start an execution for it."
            )
        # Not by `KernelHandle(...)`: it is asyncio in C that calls here, and the type would call from C once more.
        handle = _blank(KernelHandle)
        KernelHandle.__init__(handle, callback, args, self, context)
        self._ready.append(handle)
        return handle

    def time(self) -> float:
        """Seconds from the execution's beginning to the last event."""
        return self.timers.now_s()

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A durable timer named `sleep:<seconds>`; nothing is recorded for no delay."""
        # The end of an `asyncio.wait`, and up to Python 3.11 of a `wait_for`, which is a `timeout` from then on: under one
        # name, a journal that the old Python wrote is the new one's as well.
        kind = "timeout" if callback is _RELEASE_WAITER else "sleep"
        return self._timer(f"{kind}:{_seconds(delay)}", delay, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A durable timer named `timeout:<seconds from now>`."""
        delay = round(when - self.time(), 6)
        return self._timer(f"timeout:{_seconds(delay)}", delay, callback, args, context)

    def _timer(
        self, name: str, delay: float, callback: Callable[..., object], args: Any, context: Context | None
    ) -> KernelTimer:
        timer = KernelTimer(self.time() + delay, callback, args, self, context)
        if delay <= 0:
            self._ready.append(timer)
        elif delay < FOREVER_S:
            self.timers.set_timer(timer, name, delay)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # Called by TimerHandle.cancel().
        if isinstance(handle, KernelTimer) and handle.step is not None:
            self.timers.drop_timer(handle)

    def fire(self, timer: KernelTimer) -> None:
        """Let the callback of a timer run in the coming turn."""
        timer.step = None
        self._ready.append(timer)

    def create_future(self) -> KernelFuture:
        """A numbered future."""
        future = KernelFuture(loop=self)
        future.number = self.timers.number()
        future.call = None
        return future

    def create_task(
        self,
        coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
        **_: Any,
    ) -> KernelTask:
        """A numbered task."""
        if _comes_from_as_completed(coro):
            coro.close()
            raise UsageError(
                "asyncio.as_completed keeps bare coroutines in a set, in another order on every replay. "
                "Give it tasks or activity calls: `as_completed([asyncio.create_task(c) for c in coroutines])`."
            )
        number = self.timers.number()
        label = f"Task-{number & 0xFFFFFFFF}" if name is None else str(name)
        context = copy_context() if context is None else context
        self.timers.adopt(context)
        # Up to Python 3.11 `ensure_future` makes a generator-based coroutine of any other awaitable.
        task = KernelTask(cast("Coroutine[Any, Any, Any]", coro), self, label, context, number)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [other for other in self._tasks if not other.done()]
            self._prune_at = max(16, 2 * len(self._tasks))
        self._tasks.append(task)
        return task

    # Never, for debug mode looks at the real clock. Every future asks; `bool()` is False, without a frame.
    get_debug = bool  # pyright: ignore[reportAssignmentType] - it is never bound, and takes nothing

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's signature
        """Without effect."""

    def is_running(self) -> bool:
        """True, as everywhere in a coroutine."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def get_task_factory(self) -> None:
        """There is none."""
        return

    def get_exception_handler(self) -> None:
        """There is none."""
        return

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what no code of the body retrieved."""
        logger.debug("in a workflow body: %s", context.get("message"), exc_info=context.get("exception"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """The same."""
        self.call_exception_handler(context)

    # Asynchronous generators --------------------------------------------------------------------

    def _generator_began(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)

    def _generator_left(self, generator: AsyncGenerator[Any, Any]) -> None:
        # A generator left with `break`: reference counting brings us here at once, in the turn, so
        # its clean-up is a task of the body like any other. The garbage collector may come at any
        # time, also in the turn of another body, whose host the clean-up would find and ask. What it
        # brings waits until the body is put away, when whatever it asks for has no effect.
        if not self._put_away and self.turning:
            self.create_task(frames.leave(generator))
        elif not self._put_away:
            self._left.append(generator)
        elif self.turning:
            frames.close_generator(generator, self._label)  # in the context of the task whose frame held it
        else:
            with self._as_running():
                self._close_apart(generator)

    def place_of(self, future: asyncio.Future[Any]) -> str:
        """Where in the user's code a future is awaited, as `file:line in function`; empty if it cannot be told."""
        asking = next((task for task in self._tasks if _waiter(task) is future), None)
        if asking is None:
            return ""
        # A call that was gathered or given to a TaskGroup is a task of its own and has no frame. Who gathered it is
        # known; else the place can be told where only one task has frames at all.
        places = {task: frames.place_of(task.get_coro()) for task in self._tasks if not task.done()}
        gatherer = next((task for task in places if asking in getattr(_waiter(task), "_children", ())), asking)
        known = [place for place in places.values() if place]
        return places[gatherer] or (known[0] if len(known) == 1 else "")

    # Putting the body away ----------------------------------------------------------------------

    def cancel_tasks(self) -> bool:
        """Cancel every task that is not done; whether there was one."""
        left = [task for task in self._tasks if not task.done()]
        if not left:
            return False
        with self.scheduling():
            for task in left:
                task.cancel()
        return True

    def close_frames(self, label: str) -> None:
        """Close every frame of the body, with this loop running and in the context of its task (R6)."""
        self._put_away, self._label = True, label
        with self._as_running():
            seen: set[KernelTask] = set()
            # Once more for what a `finally` has begun meanwhile: it is closed before it runs, so nothing follows.
            while left := [task for task in self._tasks if not task.done() and task not in seen]:
                seen.update(left)
                for task in left:
                    _close_task(task, label)
            # What no frame of a task held: something else does, or the garbage collector has brought it.
            for generator in [*self._left, *(self._generators or ())]:
                self._close_apart(generator)
        self._ready.clear()
        self._tasks.clear()
        self._left.clear()

    def _close_apart(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a generator in a context of its own, in which it finds the body's host, which is closed."""
        context = Context()
        self.timers.adopt(context)
        context.run(frames.close_generator, generator, self._label)

    @contextlib.contextmanager
    def _as_running(self) -> Generator[None, None, None]:
        """With this loop as the running one, and its hooks set; as in a turn, but no callback is run."""
        outside = self.enter()
        self.turning = True
        try:
            yield
        finally:
            self.turning = False
            self.leave(outside)


def _close_task(task: KernelTask, label: str) -> None:
    coroutine = task.get_coro()
    assert coroutine is not None
    task.context.run(frames.close, coroutine, label)
    # Nothing of it runs any more; but the task and what it waited for would hold each other.
    waiter = _waiter(task)
    if isinstance(waiter, KernelFuture):
        waiter.cancel()
    # It is put away on purpose: nobody need be told that a pending task was destroyed.
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - the C class declares it nowhere


def _waiter(task: KernelTask) -> object:
    """What a task waits for."""
    return getattr(task, "_fut_waiter", None)


def _seconds(delay: float) -> str:
    """A delay as a name; none is written for a timer that is never set."""
    return "forever" if delay >= FOREVER_S else seconds_text(delay)


def _as_completed_codes() -> frozenset[CodeType]:
    """The code objects from which `as_completed` makes its tasks: the function, its comprehension, its iterator."""
    found: set[CodeType] = set()
    waiting: list[CodeType] = [asyncio.as_completed.__code__]
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)
    if iterator is not None:
        waiting.append(iterator.__init__.__code__)
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting.extend(const for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(found)


# What ends asyncio's own waits after a time.
_RELEASE_WAITER = getattr(asyncio.tasks, "_release_waiter", None)

_AS_COMPLETED = _as_completed_codes()


def _comes_from_as_completed(coroutine: object) -> bool:
    """Whether `create_task` was called for a bare coroutine that `as_completed` had in a set."""
    if isinstance(coroutine, Call):
        return False
    # Cheaper than the inspect module, which would look at source files for every task.
    frame = sys._getframe(2)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    if frame.f_code.co_name not in ("_ensure_future", "ensure_future"):
        return False
    for _ in range(4):
        caller = frame.f_back
        if caller is None:
            return False
        if caller.f_code in _AS_COMPLETED:
            return True
        frame = caller
    return False


def _refuse(name: str, instead: str) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> NoReturn:
        raise WorkflowIOError(
            f"A workflow body cannot do I/O: it called loop.{name}(). {instead}",
        )

    refused.__name__ = name
    return refused


_TO_ACTIVITY = "Move it to an activity, which runs on the real event loop and is recorded."
_REFUSED = dict.fromkeys(("add_reader", "add_writer", "call_soon_threadsafe", "connect_accepted_socket", "connect_read_pipe", "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "remove_reader", "remove_writer", "run_in_executor", "sendfile", "set_default_executor", "shutdown_default_executor", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile", "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell"), _TO_ACTIVITY) | dict.fromkeys(("add_signal_handler", "close", "remove_signal_handler", "run_forever", "run_until_complete", "set_exception_handler", "set_task_factory", "shutdown_asyncgens", "stop"), "The engine runs this loop; a body only awaits.")  # fmt: skip
for _name, _instead in _REFUSED.items():
    setattr(KernelLoop, _name, _refuse(_name, _instead))
