"""A loop gives way to its store's threads when they are late, and does nothing for them when they are not."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure._stores.sqlite import SqliteStore, courtesy
from perdure._stores.sqlite.courtesy import Courtesy
from perdure._stores.sqlite.job import Job

from tests.conftest import Run


class Standing:
    """Counts how often the loop stands still, and does something at one of these moments."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.times = 0
        # How much of the processor the loop's thread seems to have.
        self.share = 1.0
        self.at: dict[int, Callable[[], object]] = {}

    def thread_time(self) -> float:
        return self.share * time.perf_counter()

    def sleep(self, _seconds: float) -> None:
        self.times += 1
        self.at.get(self.times, int)()


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Standing:
    standing = Standing()
    monkeypatch.setattr(courtesy, "time", standing)
    return standing


def job() -> Job:
    return Job(lambda _: None)


def answer(given: Courtesy, one: Job) -> None:
    one.future.set_result(None)
    given.relieve(one)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - a timer of the loop brings it about, and tells nobody
            await asyncio.sleep(0)


def test_a_loop_gives_way_to_a_store_that_is_late(tmp_path: Path, run: Run, standing: Standing) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        await store.open()
        given_way = threading.Event()
        standing.at[3] = given_way.set
        for door in (store._write, store._read):
            given_way.clear()
            standing.times = 0
            # As if its thread waited for the interpreter, which it gets at the third try.
            assert await door(lambda _: given_way.wait(20))
        await store.close()

    run(main)


def test_a_job_that_is_answered_in_time_costs_no_standing_still(run: Run, standing: Standing) -> None:
    async def main() -> None:
        given = Courtesy()
        for _ in range(3):
            one = job()
            given.expect(one)
            answer(given, one)
        await until(lambda: given._loop is None)
        assert standing.times == 0

    run(main)


def test_the_loop_stands_still_until_a_late_job_is_answered_and_not_longer(run: Run, standing: Standing) -> None:
    async def main() -> None:
        given, late = Courtesy(), job()
        standing.at[5] = lambda: answer(given, late)
        given.expect(late)
        await until(lambda: given._loop is None)
        assert standing.times == 5

    run(main)


def test_a_loop_that_is_idle_now_and_then_does_not_stand_still(run: Run, standing: Standing) -> None:
    """The disk is late then, or there is much to do, and standing still would take time from both."""

    async def main() -> None:
        given, late = Courtesy(), job()
        standing.share = 0.8
        given.expect(late)
        asyncio.get_running_loop().call_later(0.01, answer, given, late)
        await until(lambda: given._loop is None)
        assert standing.times == 0

    run(main)


def test_a_job_behind_one_that_was_in_time_gets_its_own_time(run: Run, standing: Standing) -> None:
    async def main() -> None:
        given, first, second, third = Courtesy(), job(), job(), job()
        given.expect(first)
        given.expect(second)
        answer(given, first)
        standing.at[2] = lambda: answer(given, second)
        # It comes while another is late, and is answered before anybody has looked at it.
        standing.at[1] = lambda: (given.expect(third), answer(given, third))
        await until(lambda: given._loop is None)
        assert standing.times == 2

    run(main)


def test_two_loops_that_take_turns_at_one_store_stand_still_once_at_a_time(run: Run, standing: Standing) -> None:
    """Each time it is asked from the other one, somebody else looks after it; those who did before do not go on."""

    async def main() -> None:
        given, late, other = Courtesy(), job(), asyncio.new_event_loop()
        elsewhere = job()
        elsewhere.loop = other
        for _ in range(20):
            given.expect(elsewhere)
            given.relieve(elsewhere)
            given.expect(late)
        standing.at[3] = lambda: answer(given, late)
        await until(lambda: given._loop is None)
        assert standing.times == 3
        other.close()

    run(main)


def test_a_loop_that_has_gone_is_not_waited_for(run: Run, standing: Standing) -> None:
    """A store may be asked from several loops, one after the other or at once."""
    given = Courtesy()

    async def leave() -> None:
        given.expect(job())  # nobody answers it in this loop's time

    async def main() -> None:
        late = job()
        standing.at[1] = lambda: answer(given, late)
        given.expect(late)
        await until(lambda: given._loop is None)
        assert standing.times == 1

    asyncio.run(leave())
    run(main)
