"""What the store is asked costs the same beside few finished executions and beside many.

Counted in steps of SQLite's machine, which no neighbour changes. How the same verbs fare beside a million, pages of a
real disk included, is a figure of the benchmarks.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure._stores.sqlite import SqliteStore

from benchmarks.finished import Meter, finish_one, multiply

FEW, MANY = 1_000, 5_000
# The writer looks at `data_version` whenever it likes. To look at one finished row of the many takes five steps.
LOOKS = 100

VERBS = [
    "start", "start without a key", "step", "suspend", "end", "claim", "promote", "next_wake", "deliver", "mail_for", "keep house", "load",
    "read", "list", "list suspended", "list failed",
]  # fmt: skip


class Counting(Meter):
    """Counts steps instead of time."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.steps: Counter[str] = Counter()
        self._verb = "none"

    async def count(self) -> None:
        for do in (self.store._write, self.store._read):
            await do(lambda connection: connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._note))

    def _note(self, event: dict[str, Any]) -> None:
        self.steps[self._verb] += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    async def _settle(self) -> None:
        pass

    async def _measure(self, verb: str, count: int, call: Callable[[], Awaitable[Any]]) -> None:
        self._verb = verb
        await call()


async def take_round(path: Path, finished: int) -> Counter[str]:
    await finish_one(path)
    multiply(path, finished)
    meter = Counting(SqliteStore(path))
    await meter.open()
    await meter.take_round()
    await meter.count()
    await meter.take_round()
    await meter.store.close()
    return meter.steps


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counter[str], Counter[str]]:
    directory = tmp_path_factory.mktemp("flat")
    few, many = (asyncio.run(take_round(directory / f"{count}.perdure", count)) for count in (FEW, MANY))
    return few, many


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_costs_as_much_beside_many_finished_executions(
    steps: tuple[Counter[str], Counter[str]], verb: str
) -> None:
    few, many = (counted[verb] for counted in steps)
    assert few > 0
    assert abs(many - few) < LOOKS


def test_every_verb_is_looked_at(steps: tuple[Counter[str], Counter[str]]) -> None:
    assert steps[0].keys() - {"none"} == set(VERBS)
