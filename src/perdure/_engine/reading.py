"""Reading what runners need of the store: journals, to rebuild kernels, and mail that they have not seen.

Many at once in one look, and again until the store answers. A journal that nobody can read is found
out by reading each for itself, so that one damaged execution does not stop the others (R40).
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from perdure._engine.letterbox import NO_ENTRIES
from perdure._engine.patience import until_answered
from perdure._engine.runner import Runner
from perdure._engine.turns import Turns
from perdure._model.records import ExecutionId, History
from perdure._model.store import Store
from perdure.errors import StoreError

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class Reading:
    """What one engine is reading for its runners at this moment."""

    def __init__(self, store: Store, turns: Turns, spawn: Spawn) -> None:
        self._store = store
        self._turns = turns
        self._spawn = spawn
        self._tasks: set[asyncio.Task[None]] = set()
        # Runners whose mail is to be read; and who reads it.
        self._without_mail: dict[ExecutionId, Runner] = {}
        self._fetching: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is being read."""
        return not self._tasks

    async def settled(self) -> None:
        """Wait for what is being read now."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reload(self, runner: Runner) -> None:
        """Rebuild its kernel from the journal, then let it take its turn."""
        if not runner.reloading:
            runner.reloading = True
            self._begin(self._reload(runner), "reload")

    def fetch(self, runner: Runner) -> None:
        """Read the mail that it has not seen, then let it take its turn; many at once in one look."""
        if runner.kernel is None:
            self.reload(runner)
            return
        self._without_mail[runner.execution_id] = runner
        if self._fetching is None:
            self._fetching = self._begin(self._fetch(), "mail")

    async def journals(self, runners: Sequence[Runner]) -> list[History | None]:
        """Their journals and mail, in their order; None for one that nobody can read, which is held with that (R40)."""
        if not runners:
            return []
        wanted = [(runner.incarnation, 0, 0) for runner in runners]
        try:
            return [*await until_answered(lambda: self._store.load(wanted), "a journal is read again", but=_is_damage)]
        except StoreError as error:
            if len(runners) > 1:
                return [history for runner in runners for history in await self.journals([runner])]
            runners[0].hold_unreadable(error)
            return [None]

    def revive(self, runner: Runner, history: History) -> None:
        """Have its kernel rebuilt of what has been read."""
        self._turns.soon(runner, runner.revive, history)

    def _begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._spawn(coroutine, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reload(self, runner: Runner) -> None:
        [history] = await self.journals([runner])
        if history is not None:
            self.revive(runner, history)

    async def _fetch(self) -> None:
        try:
            while self._without_mail:
                runners, self._without_mail = list(self._without_mail.values()), {}
                for runner, history in zip(runners, await self._mail(runners), strict=True):
                    if not runner.gone:
                        runner.take_mail(history.letters)
        finally:
            self._fetching = None

    async def _mail(self, runners: Sequence[Runner]) -> list[History]:
        wanted = [(runner.incarnation, NO_ENTRIES, runner.inbox.seen) for runner in runners]
        return await until_answered(lambda: self._store.load(wanted), "mail is read again")


def _is_damage(error: StoreError) -> bool:
    # What was read is no text: the file holds something else than was written, and will the next time.
    return isinstance(error.__cause__, ValueError)
