"""Daemon threads of the engine's own for plain functions (R12).

Not a ThreadPoolExecutor: that one joins its threads when the interpreter exits, so a function that
hangs would hang the process. A thread that outlives its attempt is abandoned: its place is given
to a new thread at once, and it ends by itself when its function returns.
"""

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Work:
    """One call on a thread, and the future that hears of it."""

    __slots__ = ("abandoned", "begun", "call", "context", "freed", "future", "loop", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any], context: contextvars.Context) -> None:
        self.loop = loop
        self.call = call
        self.context = context
        self.future: asyncio.Future[Any] = loop.create_future()
        # A thread has taken it; until then it can be taken back without a trace.
        self.begun = False
        self.abandoned = False
        # The function has come back. Not the same as the future being done, which a cancelled attempt takes with it.
        self.over = False
        # Its thread has gone on to the next call.
        self.freed = False

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Tell the waiting attempt, if it still waits."""
        self.over = True
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


class Threads:
    """At most `limit` threads that are not abandoned, made when they are needed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._alive = 0
        self._idle = 0
        self._closed = False
        self._pid = os.getpid()
        self.abandoned = 0

    def end_a_stray_child(self, error: BaseException | None) -> None:
        """End a child made by fork inside an activity's function that has come back from it.

        It would live on as a copy of the engine, without its threads, and take the parent's wakes from the loop's pipe.
        """
        if os.getpid() != self._pid:
            code = error.code if isinstance(error, SystemExit) else int(error is not None)
            os._exit(code if isinstance(code, int) else int(code is not None))

    def submit(self, call: Callable[[], Any], context: contextvars.Context) -> Work:
        """Have `call` run on a thread, in `context`."""
        work = Work(asyncio.get_running_loop(), call, context)
        with self._changed:
            self._waiting.append(work)
            self._serve_waiting()
        return work

    def abandon(self, work: Work) -> bool:
        """Wait no more for a call. True: it is on a thread, which does not count any longer."""
        with self._changed:
            if work in self._waiting:
                self._waiting.remove(work)
                return False
            if work.freed:
                return False
            work.abandoned = True
            self.abandoned += 1
            self._alive -= 1
            self._serve_waiting()
            return True

    def close(self) -> None:
        """Begin no call any more. Idle threads end; busy ones when their function returns, or with the process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _serve_waiting(self) -> None:
        if self._closed:
            return
        if len(self._waiting) > self._idle and self._alive < self._limit:
            self._alive += 1
            threading.Thread(target=self._serve, name="perdure-activity", daemon=True).start()
        else:
            self._changed.notify()

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            self._perform(work)
            with self._changed:
                if work.abandoned:
                    return  # its place was given away
                work.freed = True

    def _next(self) -> Work | None:
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if self._closed:
                return None
            work = self._waiting.popleft()
            work.begun = True
            return work

    def _perform(self, work: Work) -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = work.context.run(work.call)
        except (StopIteration, GeneratorExit) as raised:
            # A future cannot carry the first, and asyncio closes the awaiting coroutines at the second.
            error = RuntimeError(f"the function raised {raised!r}")
        except BaseException as raised:  # noqa: BLE001 - this is the attempt; SystemExit in it is a defect of it (R9)
            error = raised
        self.end_a_stray_child(error)
        # The loop may be closed: then the engine is gone, and nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            work.loop.call_soon_threadsafe(work.settle, value, error)
