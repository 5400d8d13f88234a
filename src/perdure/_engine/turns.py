"""The queue of turns: kernels run one after the other, from one plain callback of the loop.

Never inside one of the outer loop's tasks: from Python 3.14 on the current task belongs to the
thread and not to the loop, and a body's own tasks would find a stranger in their place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from perdure._engine.runner import Runner

logger = logging.getLogger("perdure")


class Turns:
    """Which runners want a turn, and whose it is."""

    def __init__(self, before: Callable[[Runner], object]) -> None:
        # Told of each runner whose turn comes.
        self._before = before
        self._queue: deque[Runner] = deque()
        self._due = False
        self._now: Runner | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody wants a turn."""
        return not self._due

    def add(self, runner: Runner) -> None:
        """Let it take a turn soon, once however often it is added meanwhile."""
        if runner.scheduled or runner.gone:
            return
        runner.scheduled = True
        self._queue.append(runner)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._take)

    def soon(self, runner: Runner, take: Callable[..., None], *args: Any) -> None:
        """Have a turn of another kind taken: a birth, a replay, going on where it was parked."""
        asyncio.get_running_loop().call_soon(self._run, runner, take, *args)

    def name(self) -> str | None:
        """Whose body is in its turn at this moment; asked by the watchdog, from its own thread."""
        runner = self._now
        return None if runner is None else f"the body of workflow {runner.workflow!r} ({runner.execution_id})"

    def _take(self) -> None:
        self._due = False
        queue, self._queue = self._queue, deque()
        for runner in queue:
            runner.scheduled = False
            self._before(runner)
            self._run(runner, runner.turn)

    def _run(self, runner: Runner, take: Callable[..., None], *args: Any) -> None:
        self._now = runner
        try:
            take(*args)
        except Exception as error:
            # A background service: one execution's trouble must not stop the others.
            logger.exception("a turn of %s %s has failed", runner.workflow, runner.execution_id)
            runner.fail_turn(error)
        finally:
            self._now = None
