"""The conformance suite over a database in memory, shared by its name."""

import os

import pytest

from perdure._model.clock import Clock
from perdure._model.records import WorkerId
from perdure._stores.sqlite import SqliteStore
from perdure.testing.conformance import *  # noqa: F403


class MemoryPlace:
    """A name of its own for each test."""

    def __init__(self) -> None:
        self.name = os.urandom(8).hex()

    def store(self, clock: Clock) -> SqliteStore:
        return SqliteStore.in_memory(name=self.name, clock=clock)

    async def kill(self, store: SqliteStore, worker_id: WorkerId) -> None:
        store.abandon(worker_id)


@pytest.fixture
def place() -> MemoryPlace:
    return MemoryPlace()
