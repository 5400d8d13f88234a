"""How long finished executions are kept (R2, R18): `purge`, and the retention that runs by itself."""

import asyncio
import logging

import pytest

from perdure import (
    ExecutionNotFoundError,
    Status,
    StoreUnavailableError,
    UsageError,
    WorkflowEngine,
    activity,
    continue_as_new,
    sleep,
    workflow,
)
from perdure._engine import retention


@workflow(idempotency_key=lambda key: key)
async def quick(key: str) -> str:
    return key


@workflow(idempotency_key=lambda key: key)
async def other(key: str) -> str:
    return key


@workflow(idempotency_key=lambda key: key)
async def patient(key: str) -> str:
    await sleep("365 days")
    return key


async def keys(engine: WorkflowEngine, **conditions) -> set[str | None]:
    return {info.key async for info in engine.executions(**conditions)}


# Purge -------------------------------------------------------------------------------------------------


def test_purge_removes_what_ended_long_ago_and_nothing_else(lab):
    """R2: with its journal; one that has not ended is never removed."""

    async def main():
        async with lab.engine([quick, patient], retention=None) as engine:
            await quick.execute("old")
            await patient.start("waiting")
            await lab.skip("2 days")
            await quick.execute("young")
            assert await engine.purge(older_than="1 day") == 1
            assert await keys(engine) == {"young", "waiting"}
            for asked in (engine.describe, engine.journal, engine.explain):
                with pytest.raises(ExecutionNotFoundError):
                    await asked(quick.execution_id("old"))
            assert await quick.poll(quick.execution_id("old")) is None
            assert await engine.purge(older_than="1 day") == 0
            assert await engine.purge(older_than=0) == 1
            assert await keys(engine) == {"waiting"}

    lab.run(main)


def test_purge_can_be_told_of_which_workflow(lab):
    async def main():
        async with lab.engine([quick, other], retention=None) as engine:
            for work in (quick, other):
                await work.execute("k")
            assert await engine.purge(older_than=0, workflow=quick) == 1
            assert await keys(engine, workflow=quick) == set()
            assert await engine.purge(older_than=0, workflow="other") == 1

    lab.run(main)


def test_purge_removes_in_small_transactions(lab, monkeypatch):
    """Whoever commits meanwhile waits for one of them, and not for all."""
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "PAUSE_S", 0)

    async def main():
        async with lab.engine([quick], retention=None) as engine:
            await lab.finish(asyncio.gather(*(quick.execute(str(n)) for n in range(8))))
            assert await engine.purge(older_than=0) == 8
            assert lab.probe(engine).calls["purge"] == 4  # the last one finds nothing

    lab.run(main)


def test_purge_also_removes_what_nobody_has_registered(file_lab):
    """A client may purge, and so may whoever has dropped a workflow from its code."""
    lab = file_lab

    async def main():
        async with lab.engine([quick]):
            await quick.execute("k")
        async with lab.engine() as engine:
            assert await engine.purge(older_than=0) == 1

    lab.run(main)


def test_a_key_that_was_purged_begins_anew(lab):
    """R2: retention is the window in which a second start joins."""
    done: list[str] = []

    @activity
    async def do(key: str) -> None:
        done.append(key)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await do(key)

    async def main():
        async with lab.engine([work], retention=None) as engine:
            await work.execute("k")
            await work.execute("k")
            assert done == ["k"]
            await engine.purge(older_than=0)
            await work.execute("k")
            assert done == ["k", "k"]

    lab.run(main)


def test_purge_takes_no_negative_age(lab):
    async def main():
        async with lab.engine() as engine:
            with pytest.raises(UsageError, match="how long ago"):
                await engine.purge(older_than="-1 day")

    lab.run(main)


def test_a_purge_that_the_store_does_not_answer_says_so(lab):
    """It may be asked again: what is removed is removed."""

    async def main():
        async with lab.engine([quick], retention=None) as engine:
            await quick.execute("k")
            lab.probe(engine).fail("purge", written=True)
            with pytest.raises(StoreUnavailableError):
                await engine.purge(older_than=0)
            assert await engine.purge(older_than=0) == 0

    lab.run(main)


# By itself ---------------------------------------------------------------------------------------------


def test_finished_executions_are_removed_after_thirty_days_by_themselves(lab):
    """R2: the default."""

    async def main():
        async with lab.engine([quick, patient]) as engine:
            await quick.execute("old")
            await patient.start("waiting")
            await lab.skip("29 days")
            assert await keys(engine) == {"old", "waiting"}
            await lab.skip("1 day")
            await lab.skip("1 hour")
            assert await keys(engine) == {"waiting"}

    lab.run(main)


def test_the_earlier_lives_of_an_endless_loop_are_removed_while_it_goes_on(lab):
    """R37: its journal is bounded, and so must be what it leaves behind."""

    @workflow(idempotency_key=lambda day: "loop", retention="2 days")
    async def loop(day: int) -> None:
        await sleep("1 day")
        continue_as_new(day + 1)

    async def main():
        async with lab.engine([loop]) as engine:
            handle = await loop.start(1)
            await lab.skip("10 days")
            info = await engine.describe(handle.execution_id)
            assert (info.incarnation, info.payload) == (11, {"day": 11})
            lives = await lab.probe(engine).inner.lives(handle.execution_id)
            assert 2 <= len(lives) <= 3

    lab.run(main)


def test_an_engine_may_keep_them_shorter_or_for_ever(lab):
    async def main():
        async with lab.engine([quick], retention="1 hour") as engine:
            await quick.execute("a")
            await lab.skip("30 minutes")
            assert await keys(engine) == {"a"}
            await lab.skip("2 hours")
            assert await keys(engine) == set()
        async with lab.engine([quick], retention=None) as engine:
            await quick.execute("b")
            await lab.skip("900 days")
            assert await keys(engine) == {"b"}

    lab.run(main)


def test_a_workflow_may_say_so_itself(lab):
    """`retention=` of the workflow stands above the engine's."""

    @workflow(idempotency_key=lambda key: key, retention="90 days")
    async def audited(key: str) -> None: ...

    @workflow(idempotency_key=lambda key: key, retention="1 hour")
    async def trivial(key: str) -> None: ...

    @workflow(idempotency_key=lambda key: key, retention=None)
    async def eternal(key: str) -> None: ...

    async def main():
        async with lab.engine([quick, audited, trivial, eternal]) as engine:
            for work in (quick, audited, trivial, eternal):
                await work.execute(work.name)
            await lab.skip("1 day")
            assert await keys(engine) == {"quick", "audited", "eternal"}
            await lab.skip("31 days")
            assert await keys(engine) == {"audited", "eternal"}
            await lab.skip("60 days")
            assert await keys(engine) == {"eternal"}

    lab.run(main)


def test_what_an_engine_has_not_registered_it_leaves_alone(file_lab):
    """Only who has a workflow's code knows how long its executions are kept."""
    lab = file_lab

    async def main():
        async with lab.engine([quick]):
            await quick.execute("k")
        async with lab.engine([other]) as engine:
            await lab.skip("900 days")
            assert await keys(engine) == {"k"}

    lab.run(main)


def test_a_client_removes_nothing(file_lab):
    lab = file_lab

    async def main():
        async with lab.engine([quick]):
            await quick.execute("k")
        async with lab.engine() as engine:
            await lab.skip("900 days")
            assert lab.probe(engine).calls["purge"] == lab.probe(engine).calls["forget_workers"] == 0

    lab.run(main)


def test_two_engines_on_one_store_do_not_disturb_each_other(file_lab):
    """Removing what is gone removes nothing."""
    lab = file_lab

    async def main():
        async with lab.engine([quick]) as one, lab.engine([quick]) as two:
            await quick.options(engine=one).execute("k")
            await lab.skip("31 days")
            assert await keys(two) == set()

    lab.run(main)


def test_an_idle_engine_takes_no_more_than_one_round_an_hour(memory_lab):
    """It must cost an idle engine nothing."""
    lab = memory_lab

    async def main():
        async with lab.engine([quick]) as engine:
            await lab.skip("1 minute")
            before = lab.probe(engine).calls.total()
            await lab.skip("10 hours")
            sweep = lab.probe(engine).calls["purge"]
            assert sweep <= 11
            assert lab.probe(engine).calls.total() - before <= 11 * 4

    lab.run(main)


def test_a_sweep_that_the_store_does_not_answer_is_made_later(lab, log):
    async def main():
        async with lab.engine([quick], retention="1 hour") as engine:
            await quick.execute("k")
            lab.probe(engine).fail("purge", times=2)
            await lab.skip("1 hour")
            await lab.skip("1 hour")
            assert "what is old is removed later" in log.text
            await lab.skip("2 hours")
            assert await keys(engine) == set()
            assert [record.levelno for record in log.records if "as its retention says" in record.message] == [
                logging.INFO
            ]

    lab.run(main)


def test_an_engine_closes_in_the_middle_of_a_sweep(lab):
    """R9: what is removed is removed, the rest is for the next one."""

    async def main():
        async with lab.engine([quick], retention="1 hour") as engine:
            await quick.execute("k")
            hold = lab.probe(engine).hold("purge")
            await lab.skip("2 hours")
            assert hold.kept == 1
        async with lab.engine([quick], retention=None) as engine:
            assert await keys(engine) == set()

    lab.run(main)


def test_work_goes_on_beside_a_sweep(lab):
    """It is a service in the background: no start, no step and no round waits for it."""

    async def main():
        async with lab.engine([quick, patient], retention="1 hour") as engine:
            hold = lab.probe(engine).hold("purge", before=True)
            await lab.skip("2 hours")
            assert hold.kept == 1
            handle = await patient.start("k")
            assert await lab.result(handle) == "k"
            hold.release()

    lab.run(main)


@pytest.mark.parametrize("value", ["-1 day", "soon", True])
def test_a_retention_that_is_no_duration_is_refused(value):
    with pytest.raises(UsageError):
        WorkflowEngine.memory([quick], retention=value)


def test_workers_that_left_more_than_a_day_ago_are_forgotten(file_lab):
    """The list of workers tells what has happened lately, and does not grow with every deploy."""
    lab = file_lab

    async def main():
        async with lab.engine([quick]):
            pass
        async with lab.engine([quick]) as engine:
            store = lab.probe(engine).inner
            await lab.skip("12 hours")
            assert len(await store.workers()) == 2
            await lab.skip("14 hours")
            assert [worker.retired_at for worker in await store.workers()] == [None]

    lab.run(main)


def test_a_child_of_a_finished_parent_is_its_own(lab):
    """One execution goes, and nobody with it."""

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> None:
        await patient.start(key)

    async def main():
        async with lab.engine([starter, patient], retention=None) as engine:
            await starter.execute("k")
            await lab.settle()
            assert await engine.purge(older_than=0) == 1
            assert (await patient.handle(patient.execution_id("k")).status()) is Status.SUSPENDED

    lab.run(main)
