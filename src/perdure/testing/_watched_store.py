"""The SQLite store of a `TestEngine`: that of production, which knows how many calls to it are on their way."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

from perdure._model.clock import Clock
from perdure._model.records import History, Record
from perdure._stores.sqlite import SqliteStore, timer
from perdure._stores.sqlite.adopt import adopt
from perdure._stores.sqlite.connection import FileDatabase, MemoryDatabase
from perdure._stores.sqlite.job import Work
from perdure._values.instant import Instant


class WatchedStore(SqliteStore):
    """A store that counts its calls, and tells of each answer."""

    in_flight: int
    # Writes that changed something; others on the same file may have to know of them.
    news: int
    # Called on the loop that asked, when it has its answer.
    answered: Callable[[], object]

    @classmethod
    def make(cls, path: str | PathLike[str] | None, clock: Clock) -> Self:
        """A store in a file or, without one, in memory."""
        return cls.in_memory(clock=clock) if path is None else cls(Path(path), clock=clock)

    def _set_up(self, database: FileDatabase | MemoryDatabase, clock: Clock | None) -> None:
        super()._set_up(database, clock)
        self.in_flight = self.news = 0
        self.answered = lambda: None

    async def look_for_wake(self) -> Instant | None:
        """The same as `next_wake`, but not counted: nothing happens by it."""
        return await super()._read(timer.next_wake)

    async def adopt(self, record: Record, history: History, published: Mapping[str, bytes], /) -> bool:
        """Write down an execution as another store has had it; False: one of that id exists, and nothing was written."""
        return await self._write(lambda connection: adopt(connection, record, history, published, self.clock.now()))

    async def _write(
        self, work: Work, before: Callable[[], object] | None = None, after: Callable[[Any], object] | None = None
    ) -> Any:
        answer = await self._counted(super()._write(work, before, after))
        # Whoever looks for work and finds none gets nothing.
        self.news += bool(answer)
        return answer

    async def _read(self, work: Work) -> Any:
        return await self._counted(super()._read(work))

    async def _counted(self, answer: Any) -> Any:
        self.in_flight += 1
        try:
            return await answer
        finally:
            self.in_flight -= 1
            self.answered()
