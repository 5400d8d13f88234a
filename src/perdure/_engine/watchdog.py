"""A watchdog that names whoever blocks the event loop.

One blocking call in a body or in an async activity stops every execution of the process, and looks
from outside like a library that hangs. A thread asks the loop for a sign of life and, when none
comes, says whose code is running and where.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable

logger = logging.getLogger("perdure")

INTERVAL_S = 0.5
# A garbage collection or a loaded machine may take this long; blocking calls take longer.
PATIENCE_S = 2.0
# Whether it is one thing that takes so long, or many that take a little each, shows at a second look.
LOOK_AGAIN_S = 0.1
SHOWN_FRAMES = 8


class Watchdog:
    """Watches the loop on which it was started."""

    def __init__(self, running: Callable[[], str | None], patience_s: float = PATIENCE_S) -> None:
        # Says whose body is in its turn at this moment.
        self._running = running
        self._patience_s = patience_s
        self._stop = threading.Event()
        self._sign = threading.Event()
        # How often somebody was named.
        self.barks = 0

    def start(self) -> None:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="perdure-watchdog", daemon=True
        ).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._sign.clear()
            try:
                loop.call_soon_threadsafe(self._sign.set)
            except RuntimeError:
                return  # the loop is closed
            if not self._sign.wait(self._patience_s) and not self._stop.is_set():
                self._bark(loop, thread_id)
                self._sign.wait()

    def _bark(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        # The only way to another thread's stack.
        frame = sys._current_frames().get(thread_id)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return
        self.barks += 1
        stack = "".join(traceback.format_stack(frame)[-SHOWN_FRAMES:])
        who, task = self._culprit(loop)
        came = self._sign.wait(LOOK_AGAIN_S)
        if not came and self._culprit(loop) != (who, task):
            logger.error(
                "The event loop has not come round for more than %g seconds: not one thing blocks it, many that are ready "
                "take a little each, %s among them. Let fewer run at once (concurrency=), or in several processes.\n%s",
                self._patience_s, who, stack,
            )  # fmt: skip
            return
        logger.error(
            "%s has blocked the event loop for more than %g seconds; nothing else runs meanwhile. "
            "Blocking calls belong into an activity that is a plain function (it gets a thread).\n%s",
            who, self._patience_s, stack,
        )  # fmt: skip

    def _culprit(self, loop: asyncio.AbstractEventLoop) -> tuple[str, object]:
        """What runs at this moment, and the task it runs in, by which it is told from others of its name."""
        body = self._running()
        if body is not None:
            return body, None
        task = asyncio.current_task(loop)
        return ("something outside of any task" if task is None else task.get_name()), task
