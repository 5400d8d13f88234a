"""Whoever blocks the event loop is named. Here alone real time passes, a tenth of a second at a time."""

import asyncio
import time

import pytest

from perdure import activity, workflow
from perdure._engine.watchdog import Watchdog

PATIENCE_S = 0.02
# As long as a blocking call lasts here: many times the watchdog's patience.
BLOCKED_S = 0.2
# A loaded machine may leave the watchdog without a core for a while.
LONGEST_S = 10.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._engine.watchdog.INTERVAL_S", 0.001)
    monkeypatch.setattr("perdure._engine.service.Watchdog", lambda running: Watchdog(running, patience_s=PATIENCE_S))


def barks(log) -> list[str]:
    return [record.getMessage() for record in log.records if "blocked the event loop" in record.getMessage()]


def block_until_named(log) -> None:
    """Be wrong until somebody has said so."""
    limit = time.monotonic() + LONGEST_S
    while not barks(log) and time.monotonic() < limit:
        time.sleep(0.005)


def test_the_body_that_blocks_is_named(lab, log):
    """Issue 2, point 3: workflow, execution, and where."""

    @workflow(idempotency_key=lambda key: key)
    async def sleepy_body(key: str) -> str:
        block_until_named(log)
        return key

    async def main():
        async with lab.engine([sleepy_body]) as engine:
            assert await lab.finish(sleepy_body.execute("k")) == "k"
            assert lab.service(engine).watchdog.barks >= 1
        said = [line for line in barks(log) if "sleepy_body" in line.splitlines()[0]]
        assert said
        assert sleepy_body.execution_id("k") in said[0]
        assert "test_watchdog.py" in said[0]
        assert "plain function" in said[0]

    lab.run(main)


def test_the_activity_that_blocks_is_named(lab, log):
    """An async function that does not await; a plain one on its thread blocks nobody."""

    @activity(name="Blocking")
    async def blocking() -> None:
        block_until_named(log)

    @activity(name="OnThread")
    def on_thread() -> None:
        time.sleep(BLOCKED_S)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await (blocking() if key == "blocking" else on_thread())

    async def main():
        async with lab.engine([work]):
            await lab.finish(work.execute("on thread"))
            assert not [line for line in barks(log) if "OnThread" in line.splitlines()[0]]
            await lab.finish(work.execute("blocking"))
            said = [line for line in barks(log) if "activity 'Blocking' of work" in line.splitlines()[0]]
            assert said
            assert "test_watchdog.py" in said[0]

    lab.run(main)


def test_nobody_is_named_twice_for_one_block(memory_lab, log):
    @workflow(idempotency_key=lambda key: key)
    async def sleepy_body(key: str) -> str:
        block_until_named(log)
        time.sleep(BLOCKED_S)  # noqa: ASYNC251 - and go on with it
        return key

    async def main():
        async with memory_lab.engine([sleepy_body]):
            await memory_lab.finish(sleepy_body.execute("k"))
        assert len([line for line in barks(log) if "sleepy_body" in line.splitlines()[0]]) == 1

    memory_lab.run(main)


def test_it_ends_with_its_engine(memory_lab):
    import threading

    async def main():
        async with memory_lab.engine() as engine:
            assert any(thread.name == "perdure-watchdog" for thread in threading.enumerate())
            watchdog = memory_lab.service(engine).watchdog
        assert watchdog._stop.is_set()
        while any(thread.name == "perdure-watchdog" for thread in threading.enumerate()):
            await memory_lab.settle()

    memory_lab.run(main)


def test_many_that_take_a_little_each_are_not_blamed_on_one(lab, log, monkeypatch):
    """All of them are ready at once, and the loop comes round when the last has had its turn."""
    monkeypatch.setattr("perdure._engine.watchdog.LOOK_AGAIN_S", PATIENCE_S)

    @activity(name="Small")
    async def small(n: int) -> None:
        until = time.monotonic() + 0.005
        while time.monotonic() < until:
            pass

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(*(small(n) for n in range(60)))

    async def main():
        async with lab.engine([work]):
            await lab.finish(work.execute("k"))
            lines = [record.getMessage().splitlines()[0] for record in log.records]
            said = [line for line in lines if "not one thing blocks it" in line]
            assert said
            assert "activity 'Small' of work among them" in said[0]
            assert not [line for line in barks(log) if "Small" in line.splitlines()[0]]

    lab.run(main)
