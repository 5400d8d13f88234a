"""The conformance suite over a SQLite file."""

from pathlib import Path

import pytest

from perdure._model.clock import Clock
from perdure._model.records import WorkerId
from perdure._stores.sqlite import SqliteStore
from perdure.testing.conformance import *  # noqa: F403


class FilePlace:
    """A file of its own for each test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def store(self, clock: Clock) -> SqliteStore:
        return SqliteStore(self.path, clock=clock)

    async def kill(self, store: SqliteStore, worker_id: WorkerId) -> None:
        store.abandon(worker_id)


@pytest.fixture
def place(tmp_path: Path) -> FilePlace:
    return FilePlace(tmp_path / "orders.perdure")
