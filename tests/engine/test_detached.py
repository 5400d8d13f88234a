"""Starts in a body: recorded steps, done once (R42)."""

import asyncio

from perdure import Status, UsageError, Workflow, WorkflowIOError, activity, execution_id, sleep, workflow

from tests.engine.lab import Gate


@workflow
async def keyless(n: int) -> int:
    return n


@workflow(idempotency_key=lambda key: key)
async def keyed(key: str) -> str:
    return key


def test_a_detached_start_happens_once_whatever_is_replayed(lab):
    """R42, R1: with a key, and without one, where the id comes from parent, name, input and occurrence."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        ids = [(await keyed.start("a")).execution_id]
        ids += [(await keyless.start(n)).execution_id for n in (1, 1, 2)]
        await sleep("1 hour")
        ids.append((await keyless.start(1)).execution_id)
        await sleep("1 hour")
        return ids

    async def main():
        async with lab.engine([parent, keyed, keyless]):
            handle = await parent.start("k")
            await lab.skip("30 minutes")
        async with lab.engine([parent, keyed, keyless]) as engine:
            ids = await lab.result(parent.handle(handle.execution_id))
            await lab.settle()
            assert len(set(ids)) == 5
            assert ids[0] == keyed.execution_id("a")
            assert len([1 async for _ in engine.executions()]) == 6
            for id_, expected in zip(ids, ("a", 1, 1, 2, 1), strict=True):
                (record,) = await lab.probe(engine).inner.read([id_])
                assert record.status is Status.SUCCEEDED
                assert (await engine.describe(id_)).exit.value == expected
            other = await lab.finish(parent.execute("other"))
            assert other[0] == ids[0]
            assert not set(other[1:]) & set(ids)

    lab.run(main)


def test_a_detached_execution_runs_while_its_starter_goes_on(lab):
    """R42, API 2: fire and forget; nobody waits until the parent rests."""
    gate = Gate()
    ran = []

    @activity
    async def hold() -> None:
        await gate.wait()

    @activity
    async def note(key: str) -> None:
        ran.append(key)

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> None:
        await note(key)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await child.start("first turn")
        await note("parent")
        await child.start("later turn")
        await hold()
        return key

    async def main():
        async with lab.engine([parent, child]):
            handle = await parent.start("k")
            await lab.settle()
            assert sorted(ran) == ["first turn", "later turn", "parent"]
            assert await handle.status() is Status.RUNNING
            gate.open()
            await lab.result(handle)

    lab.run(main)


def test_a_delayed_detached_start_is_woken_at_its_time(lab):
    """R42, API 2: also while its starter still runs, and when it has ended."""
    gate = Gate()
    ran = []

    @activity
    async def hold() -> None:
        await gate.wait()

    @activity
    async def note(key: str) -> None:
        ran.append((key, lab.clock.now() - began))

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> None:
        await note(key)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await child.options(delay="5 minutes").start("early")
        await hold()
        await child.options(delay="1 hour").start("late")
        return key

    began = lab.clock.now()

    async def main():
        async with lab.engine([parent, child]):
            handle = await parent.start("k")
            await lab.skip("10 minutes")
            assert ran == [("early", 300_000)]
            gate.open()
            await lab.result(handle)
            await lab.skip("2 hours")
        assert ran == [("early", 300_000), ("late", 600_000 + 3_600_000)]

    lab.run(main)


def test_a_detached_start_of_what_exists_joins_it(lab):
    """R42, R2: nothing is written again."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        return (await keyed.start("a")).execution_id

    async def main():
        async with lab.engine([parent, keyed]) as engine:
            await lab.finish(keyed.execute("a"))
            before = await lab.record(engine, keyed.execution_id("a"))
            assert await lab.finish(parent.execute("k")) == keyed.execution_id("a")
            await lab.settle()
            assert await lab.record(engine, keyed.execution_id("a")) == before

    lab.run(main)


def test_a_detached_start_is_part_of_its_turn_s_commit(lab):
    """R42: before it is durable nothing of it exists, and with it everything does."""
    ran = []

    @activity
    async def note() -> None:
        ran.append(execution_id())

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> None:
        await note()

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await child.start("c")
        return key

    async def main():
        async with lab.engine([parent, child]) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(parent.start("k"))
            await lab.settle()
            (commit,) = lab.probe(engine).commits
            assert [start.execution_id for start in commit.acts.starts] == [child.execution_id("c")]
            assert ran == []
            hold.release()
            await lab.result(await starting)
            await lab.settle()
        assert ran == [child.execution_id("c")]

    lab.run(main)


def test_a_detached_start_of_what_nobody_has_is_stored_and_waits(file_lab):
    """R42, R3."""
    Unknown = Workflow.make("Unknown", payload={"key": str}, idempotency_key=lambda p: p.key)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        return (await Unknown.start({"key": "u"})).execution_id

    async def main():
        async with file_lab.engine([parent]) as engine:
            assert await file_lab.finish(parent.execute("k")) == Unknown.execution_id({"key": "u"})
            assert (await engine.describe(Unknown.execution_id({"key": "u"}))).status is Status.PENDING

    file_lab.run(main)


def test_options_that_a_body_cannot_use_are_refused(lab):
    """R42."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        seen = []
        for wrong in (keyed.options(engine=held["engine"]), keyed.options(on_duplicate="reject")):
            try:
                await wrong.start("a")
            except (WorkflowIOError, UsageError) as refused:
                seen.append(str(refused))
        return seen

    held = {}

    async def main():
        async with lab.engine([parent, keyed]) as engine:
            held["engine"] = engine
            said = await lab.finish(parent.execute("k"))
            assert len(said) == 2
            assert [info.workflow async for info in engine.executions()] == ["parent"]

    lab.run(main)


def test_priority_and_attributes_reach_a_detached_start(lab):
    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> None:
        await keyed.options(priority=7, attributes={"by": "parent"}).start("a")

    async def main():
        async with lab.engine([parent, keyed]) as engine:
            await lab.finish(parent.execute("k"))
            info = await engine.describe(keyed.execution_id("a"))
            assert (info.priority, dict(info.attributes)) == (7, {"by": "parent"})

    lab.run(main)
