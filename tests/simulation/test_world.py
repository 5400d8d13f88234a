"""The simulated world keeps its own laws: without them a run that goes well would mean nothing."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from perdure import activity, sleep, workflow
from perdure._definitions import ambient
from perdure._facade import WorkflowEngine
from perdure._model.records import Worker
from perdure.errors import StoreUnavailableError
from perdure.testing._simulation.account import Account
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.director import FINAL
from perdure.testing._simulation.loop import Microseconds
from perdure.testing._simulation.process import Process, ProcessGone, State
from perdure.testing._simulation.simulate import Simulation, run_case
from perdure.testing._simulation.store import Keeper
from perdure.testing._simulation.world import MS, SECOND, Stuck, World

from tests.simulation.programs import Node, plan, program

CASE = Case(seed=0, faults=frozenset(), at_most=0, processes=1)
# Four commits, and far sides between them.
NODE: Node = ["sequence", ["step", "a"], ["step", "b"], ["sleep", 2_000], ["stamp", "c"]]


@workflow(name="Sleeper")
async def sleeper(days: int) -> str:
    await sleep(f"{days} days")
    return "awake"


# What the far side has seen: the beginnings and the ends of calls.
calls: list[str] = []


@activity
async def call() -> None:
    calls.append("begun")
    await asyncio.sleep(1)
    calls.append("done")


@workflow(name="Caller")
async def caller() -> None:
    await asyncio.gather(call(), call())


class Tame(World):
    """A world without chance: every call takes its millisecond, and what goes wrong was told to."""

    def __init__(self, case: Case = CASE) -> None:
        super().__init__(case, [program, sleeper, caller])
        # Whether the next calls to the store are lost: each is asked for on its way there, and on its way back.
        self.losses: list[bool] = []
        # At which point a process ends, and at which time of coming to it.
        self._end: tuple[str, int] | None = None
        self._news = asyncio.Event()
        self.on_change = self.on_gone = self._tell_news

    def delay(self) -> Microseconds:
        return MS

    def dawdle(self) -> Microseconds:
        return MS

    def is_lost(self) -> bool:
        return bool(self.losses) and self.losses.pop(0)

    def strikes(self, fault: Fault, rate: float = 1.0) -> bool:
        if fault is not Fault.CRASH or self._end is None or self.reached[self._end[0]] != self._end[1]:
            return False
        self._end = None
        return True

    def end_at(self, point: str) -> None:
        """The process that comes to this point next ends there."""
        self._end = (point, self.reached[point] + 1)

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._news.wait()

    async def opened(self) -> Process:
        process = self.open_process()
        await self.until(lambda: process.state is State.OPEN)
        return process

    async def started(self, process: Process, node: Node = NODE) -> str:
        return (await process.ask(lambda engine: program.options(engine=engine).start(node), self.outside)).execution_id

    def status(self, execution_id: str) -> str:
        return self.history.latest[execution_id].status

    def done_by(self, process: Process, since: int = 0) -> list[int]:
        """The places in the run at which a process has done something that others could see."""
        history = self.history
        told = [*history.executions, *history.entries, *history.workers, *history.attempts]
        return sorted(one.tick for one in told if one.process == process.number and one.tick > since)

    def rows_of(self, table: str) -> int:
        return self.keeper.select(f"SELECT count(*) FROM perdure_{table}")[0][0]


@contextmanager
def buried(world: Tame) -> Iterator[Tame]:
    """Bury it, whatever the test has left."""
    try:
        yield world
    finally:
        world.bury()


# Ends -----------------------------------------------------------------------------------------------------------------


POINTS = ("commit.before", "commit.written", "commit.after", "acknowledge.before", "turn.after", "effect.before")


@pytest.mark.parametrize("point", [*POINTS, "effect.after", None])
def test_a_killed_process_does_nothing_any_more(point: str | None):
    """As `kill -9` (R41): no row, no attempt, and its burial changes nothing; another process takes over."""
    with buried(Tame()) as world:

        async def main() -> None:
            first = await world.opened()
            id_ = await world.started(first)
            if point is None:
                await asyncio.sleep(0.002)
                first.kill()
            else:
                world.end_at(point)
                await world.until(lambda: first.state is State.ENDED)
            ended_at = world.history.tick()
            assert world.status(id_) not in FINAL
            await world.opened()
            await world.until(lambda: world.status(id_) == "SUCCEEDED")
            assert world.done_by(first)
            assert world.done_by(first, since=ended_at) == []

        world.run(main)
        assert sum(world.ended_at.values()) == (point is not None)
        first, digest = world.processes[0], world.history.digest(0)
        first.bury()
        assert world.history.digest(0) == digest
        assert world.complaints == []


def _killed_at(world: Tame, point: str) -> None:
    """One process, killed at a point of the commit with which an execution is born; nobody else is there."""

    async def main() -> None:
        first = await world.opened()
        world.end_at(point)
        with pytest.raises(ProcessGone):
            await world.started(first)
        assert first.state is State.ENDED

    world.run(main)
    assert world.ended_at == {point: 1}


def test_an_open_transaction_dies_with_its_process():
    with buried(Tame()) as world:
        _killed_at(world, "commit.written")
        assert world.history.executions == []
        assert world.rows_of("executions") == 0


def test_a_durable_transaction_outlives_its_process_although_nobody_was_told():
    with buried(Tame()) as world:
        _killed_at(world, "commit.after")
        assert len(world.history.executions) == world.rows_of("executions") == 1


@pytest.mark.parametrize("ends", [False, True])
def test_a_crash_takes_the_whole_batch_with_it(ends: bool):
    """The jobs of other callers as well, that share the transaction; the control: they do share it."""
    with buried(Tame()) as world:
        with_it = Worker(worker_id="another", host="", pid=1, workflows=(), started_at=0)

        async def main() -> None:
            first = await world.opened()
            await asyncio.sleep(0.5)
            if ends:
                world.end_at("commit.before")
            answers = [
                first.ask(lambda engine: program.options(engine=engine).start(NODE), world.outside),
                first.ask(lambda _: first.store.register(with_it), world.outside),
            ]
            told = await asyncio.gather(*answers, return_exceptions=True)
            assert all(isinstance(answer, ProcessGone) is ends for answer in told)

        world.run(main)
        committed = {world.history.committed(world.history.executions[0].tick)} if not ends else set()
        assert {world.history.committed(one.tick) for one in world.history.workers[1:]} == committed
        assert (world.rows_of("executions"), world.rows_of("workers")) == ((0, 1) if ends else (1, 2))


@pytest.mark.parametrize(
    ("point", "seen"), [("effect.before", []), ("effect.after", ["begun", "begun", "done"]), (None, ["begun", "begun"])]
)
def test_the_activities_of_a_killed_process_go_no_further(point: str | None, seen: list[str]):
    """Neither the one that ends it, nor one that would go on at the same instant; its burial ends none of them."""
    calls.clear()
    with buried(Tame()) as world:

        async def main() -> None:
            first = await world.opened()
            asked = first.ask(lambda engine: caller.options(engine=engine).start(), world.outside)
            if point is None:
                await asyncio.sleep(0.5)
                first.kill()
            else:
                world.end_at(point)
                await world.until(lambda: first.state is State.ENDED)
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.sleep(5)

        world.run(main)
        assert calls == seen
    assert calls == seen


def test_who_asks_a_process_that_ends_is_told():
    with buried(Tame()) as world:

        async def main() -> None:
            first = await world.opened()
            asked = first.ask(_never, world.outside)
            first.kill()
            with pytest.raises(ProcessGone):
                await asked

        world.run(main)


async def _never(_engine: WorkflowEngine) -> None:
    await asyncio.Event().wait()


# Pauses and usurpers --------------------------------------------------------------------------------------------------


def test_a_paused_process_does_nothing_until_its_time():
    with buried(Tame()) as world:

        async def main() -> None:
            first = await world.opened()
            starting = asyncio.ensure_future(world.started(first))
            await asyncio.sleep(0.0015)
            paused_at, over_at = world.history.tick(), world.now_us() + 10 * SECOND
            first.paused_until = over_at
            await asyncio.sleep(9.999)
            assert world.done_by(first, since=paused_at) == []
            assert not starting.done()
            id_ = await starting
            assert world.now_us() >= over_at
            await world.until(lambda: world.status(id_) == "SUCCEEDED")
            assert world.done_by(first, since=paused_at)

        world.run(main)


def test_time_does_not_jump_over_the_end_of_a_pause():
    """Also where nobody but the one that stands still has anything to do, and has it at once."""
    with buried(Tame()) as world:

        async def main() -> None:
            first = world.open_process()
            first.paused_until = 10 * SECOND
            await world.until(lambda: first.state is State.OPEN)
            assert 10 * SECOND <= world.now_us() < 11 * SECOND

        world.run(main)


def test_others_go_on_while_one_is_paused():
    with buried(Tame()) as world:

        async def main() -> None:
            first, second = await world.opened(), await world.opened()
            first.paused_until = world.now_us() + 3_600 * SECOND
            id_ = await world.started(second)
            await world.until(lambda: world.status(id_) == "SUCCEEDED")
            assert world.now_us() < first.paused_until

        world.run(main)


def test_a_usurped_process_is_taken_over_and_begins_anew():
    """R41, I11: it does not know, until it looks; then it is another worker."""
    with buried(Tame()) as world:

        async def main() -> None:
            first = await world.opened()
            id_ = await world.started(first, ["sequence", ["sleep", 9_000], ["stamp", "a"]])
            await world.until(lambda: world.status(id_) == "RUNNING")
            second = await world.opened()
            worker_id = first.engine.worker_id
            first.store.die()
            assert first.engine.worker_id == worker_id
            await world.until(lambda: world.history.latest[id_].crashes == 1)
            taken = world.history.executions[-1]
            assert (taken.process, taken.before and taken.before.owner) == (second.number, 1)
            await world.until(lambda: world.status(id_) == "SUCCEEDED")
            await asyncio.sleep(2)
            assert first.engine.worker_id != worker_id
            assert first.state is State.OPEN

        world.run(main)
        told = [(one.process, one.n, one.retired) for one in world.history.workers]
        assert told == [(1, 1, False), (2, 2, False), (2, 1, True), (1, 3, False)]


# The way to the store -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("losses", "done"), [([True], False), ([False, True], True)], ids=["call", "answer"])
def test_a_lost_call_is_not_done_and_a_lost_answer_is(losses: list[bool], done: bool):
    with buried(Tame()) as world:
        another = Worker(worker_id="another", host="", pid=1, workflows=(), started_at=0)

        async def ask(process: Process) -> None:
            world.losses = losses
            await process.store.register(another)

        async def main() -> None:
            first = await world.opened()
            await asyncio.sleep(0.5)
            with pytest.raises(StoreUnavailableError, match="lost on its way"):
                await first.ask(lambda _: ask(first), world.outside)
            assert world.losses == []

        world.run(main)
        assert world.rows_of("workers") == 1 + done


# Time -----------------------------------------------------------------------------------------------------------------


def test_time_never_goes_back():
    """R38: neither where processes stand still, nor where time jumps."""
    faults = frozenset({Fault.PAUSE, Fault.USURP, Fault.SLOW, Fault.CRASH})
    for seed in range(6):
        accounts: list[Account] = []
        case = Case(seed=seed, faults=faults, at_most=12, processes=3)
        assert run_case(case, plan(case), lambda account: accounts.append(account) or [], Simulation()) == []  # noqa: B023
        history = accounts[0].history
        told = sorted((one.tick, one.now) for one in (*history.executions, *history.entries, *history.attempts))
        assert [now for _, now in told] == sorted(now for _, now in told)


def _passes_of(days: int) -> int:
    with buried(Tame()) as world:

        async def main() -> None:
            await world.opened()
            first = await world.opened()
            started = await first.ask(lambda engine: sleeper.options(engine=engine).start(days), world.outside)
            await world.until(lambda: world.status(started.execution_id) == "SUCCEEDED")

        world.run(main)
        assert world.now_us() >= days * 86_400 * SECOND
        return world.passes


def test_a_long_sleep_takes_no_longer_than_a_short_one():
    """Nor may it be by chance that nobody waits for it: a month has 2.6 million rounds."""
    passes = _passes_of(30)
    assert passes < 1_000
    assert abs(_passes_of(3_000) - passes) < 50


def test_waiting_for_what_never_comes_is_no_run_without_end():
    with buried(Tame()) as world:

        async def main() -> None:
            await world.opened()
            await asyncio.Event().wait()

        with pytest.raises(Stuck, match="nothing will ever wake them"):
            world.run(main)


# Burial ---------------------------------------------------------------------------------------------------------------


def test_a_burial_leaves_nothing():
    """Neither of a process that was killed, nor of one that is in the middle of everything."""
    before = list(ambient.open_engines)
    world = _left_in_the_middle()
    assert len(ambient.open_engines) == len(before) + 2
    world.bury()
    assert ambient.open_engines == before
    for loop in (world.outside, *(process.loop for process in world.processes)):
        assert asyncio.all_tasks(loop) == set()
        assert loop.is_closed()
    another = Keeper(world.database, 0)
    assert another.select("SELECT count(*) FROM perdure_executions") == [(0,)]
    another.close()
    complaints = world.complaints
    del world, loop
    # A task that is still pending, or a coroutine that nobody has awaited, would say so now; a warning is an error.
    gc.collect()
    assert complaints == []


def _left_in_the_middle() -> Tame:
    world = Tame()
    node: Node = ["all", NODE, ["sleep", 9_000], ["once", "d"], ["within", 70_000, ["sleep", 61_000]]]

    async def main() -> None:
        first, second = await world.opened(), await world.opened()
        for process in (first, second):
            await world.started(process, node)
        first.kill()
        await asyncio.sleep(1.5)
        raise Stuck("seen enough")

    with pytest.raises(Stuck, match="seen enough"):
        world.run(main)
    assert world.rows_of("executions") == 2
    # Also what was outside, and has come to no end.
    world.outside.create_task(asyncio.sleep(3_600))
    return world
