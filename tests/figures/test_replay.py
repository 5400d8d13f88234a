"""A replay costs as much for each entry, however long the journal is, and not much.

Counted in Python's calls, which no neighbour changes. Entries in a second are a figure of the benchmarks.
"""

import sys
from collections import Counter
from typing import Any

from perdure import Status, WorkflowEngine, activity, sleep, workflow
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.records import History, Record
from perdure._stores.sqlite import SqliteStore

from tests.conftest import Run

# Of functions written in Python, between one entry and the next, the body's own call of its activity included.
# Whoever adds one adds 2 % to every replay.
CALLS = 45


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def add_up(count: int) -> int:
    total = 0
    for number in range(count):
        total += await double(number)
    await sleep("1 day", name="night")
    return total


async def written(store: SqliteStore, engine: WorkflowEngine, count: int) -> tuple[Record, History]:
    """A journal of so many entries and a timer."""
    handle = await add_up.start(count)
    while [one async for one in engine.executions(status=Status.RUNNING)]:
        pass
    (record,) = await store.read([handle.execution_id])
    (history,) = await store.load([(record.incarnation, 0, 0)])
    assert len(history.entries) == count + 1
    return record, history


def replay(record: Record, history: History) -> None:
    origin = Origin(record.execution_id, 1, record.workflow, record.incarnation, record.began_at or 0, unborn=False)
    kernel = Kernel(origin, history.entries)
    kernel.begin(lambda: add_up.make_body(record.payload, record.execution_id), history.entries)
    assert kernel.trouble is None
    assert len(kernel.timers()) == 1
    kernel.close()


def count_calls(record: Record, history: History) -> int:
    calls: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        calls[event] += 1

    sys.setprofile(note)
    try:
        replay(record, history)
    finally:
        sys.setprofile(None)
    return calls["call"]


def test_an_entry_costs_as_much_in_a_long_journal_as_in_a_short_one(run: Run) -> None:
    """R7: a body that has come far is not slower to bring back for each step it has made."""

    async def main() -> None:
        store = SqliteStore.in_memory()
        async with WorkflowEngine(store, [add_up]) as engine:
            journals = [await written(store, engine, count) for count in (100, 400, 1_600)]
        replay(*journals[0])  # what is made once is made
        short, middle, long = (count_calls(*journal) for journal in journals)
        # The collector may come by, and what it finds may have something to say.
        assert abs((long - middle) / 1_200 - (middle - short) / 300) < 0.1
        assert (middle - short) / 300 <= CALLS

    run(main)
