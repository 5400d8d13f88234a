"""Several engines: a restart, a client, a second worker, and which one a call finds (API 7)."""

import asyncio

import pytest

from perdure import Status, UsageError, Workflow, WorkflowEngine, activity, current_engine, sleep, workflow

from tests.engine.lab import Gate

Greet = Workflow.make("Greet", payload={"name": str}, success=str, idempotency_key=lambda p: p.name)


@activity
async def compose(name: str) -> str:
    return f"hello {name}"


@Greet.implement
async def greet(payload) -> str:
    return await compose(payload.name)


@workflow(idempotency_key=lambda key: key)
async def nap(key: str) -> str:
    await sleep("1 hour")
    return key


def test_a_client_starts_waits_and_looks_and_runs_nothing(file_lab):
    """API 7: an engine without registrations, on the same file."""

    async def main():
        async with file_lab.engine() as client:
            handle = await client.start(Greet, {"name": "ada"})
            await file_lab.skip("1 minute")
            assert await handle.status() is Status.PENDING
            assert file_lab.service(client).runners == {}
            waiting = asyncio.ensure_future(handle.result())
            async with file_lab.engine([greet]):
                await file_lab.notice()
                await file_lab.notice()
                assert await file_lab.finish(waiting) == "hello ada"
                assert (await client.describe(handle.execution_id)).status is Status.SUCCEEDED
                assert [info.key async for info in client.executions()] == ["ada"]

    file_lab.run(main)


def test_a_client_without_hints_is_only_slower(file_lab):
    """Promise 7: it looks every five seconds, a worker every second."""

    async def main():
        async with file_lab.engine() as client, file_lab.engine([greet, nap]):
            for engine in file_lab.engines:
                file_lab.probe(engine).inner._hints.clear()
            began = file_lab.clock.now()
            waiting = asyncio.ensure_future(client.execute(Greet, {"name": "ada"}))
            await file_lab.settle()
            file_lab.clock.advance(1_000)
            await file_lab.settle()
            assert not waiting.done()
            file_lab.clock.advance(4_000)
            await file_lab.settle()
            assert waiting.done()
            assert await waiting == "hello ada"
            assert file_lab.clock.now() - began == 5_000

    file_lab.run(main)


def test_two_workers_share_the_work_and_do_nothing_twice(file_lab):
    """Promise 3: no execution is given to two claims."""
    ran = []
    at_work = set()
    both_at_work = asyncio.Event()

    @activity
    async def act(n: int) -> int:
        ran.append(n)
        at_work.add(current_engine())
        if len(at_work) == 2:
            both_at_work.set()
        # With five in hand the first worker takes no more, so the other one comes to work as well.
        await both_at_work.wait()
        return n

    @workflow(idempotency_key=str)
    async def work(n: int) -> int:
        first = await act(n)
        await sleep("1 hour")
        return first + await act(n)

    async def main():
        async with file_lab.engine() as client:
            for n in range(30):
                await client.start(work, n)
            async with file_lab.engine([work], admission=5) as first, file_lab.engine([work], admission=5) as second:
                await both_at_work.wait()
                await file_lab.notice()
                file_lab.clock.advance(3_600_000)
                for _ in range(4):
                    await file_lab.notice()
                assert [await client.execute(work, n) for n in range(30)] == [2 * n for n in range(30)]
                assert file_lab.probe(first).calls["commit"] > 1
                assert file_lab.probe(second).calls["commit"] > 1
        assert sorted(ran) == sorted([*range(30), *range(30)])

    file_lab.run(main)


def test_a_worker_takes_only_what_it_has_registered(file_lab):
    """R3: two workers with different workflows on one file."""

    async def main():
        async with file_lab.engine([greet]) as first, file_lab.engine([nap]) as second:
            greeting = await second.start(Greet, {"name": "ada"})
            napping = await first.start(nap, "k")
            await file_lab.notice()
            assert await greeting.status() is Status.SUCCEEDED
            assert await napping.status() is Status.SUSPENDED
            await file_lab.skip("1 hour")
            await file_lab.notice()
            assert await napping.status() is Status.SUCCEEDED

    file_lab.run(main)


def test_an_execution_moves_from_one_worker_to_another(file_lab):
    """R6, the fence + 1 rule: the parked kernel of the first is good for nothing once the second has had it."""
    seen = []

    @activity
    async def note(n: int) -> None:
        seen.append((n, current_engine()))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        for n in range(3):
            await note(n)
            await sleep("1 hour")
        return key

    async def main():
        async with file_lab.engine([work]) as first:
            handle = await first.start(work, "k")
            await file_lab.settle()
            async with file_lab.engine([work]) as second:
                # The first one is not asked to look, so the second claims it.
                file_lab.service(first).wakes._alarm.cancel()
                file_lab.service(first).wakes._next_wake = None
                file_lab.probe(first).inner._hints.clear()
                file_lab.clock.advance(3_600_000)
                await file_lab.settle()
                assert [n for n, engine in seen if engine is second] == [1]
            await file_lab.skip("2 hours")
            await file_lab.notice()
            assert await file_lab.finish(handle.result()) == "k"
        assert [n for n, _ in seen] == [0, 1, 2]

    file_lab.run(main)


def test_a_resume_by_a_client_reaches_the_worker(file_lab):
    broken = True

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def work(key: str) -> str:
        if broken:
            raise RuntimeError("ouch")
        return key

    async def main():
        nonlocal broken
        async with file_lab.engine([work]), file_lab.engine() as client:
            handle = await client.start(work, "k")
            await file_lab.notice()
            assert (await client.describe(handle.execution_id)).held == "DEFECT"
            broken = False
            await client.resume(handle.execution_id)
            await file_lab.notice()
            assert await file_lab.finish(handle.result()) == "k"

    file_lab.run(main)


def test_a_second_start_by_another_worker_joins(file_lab):
    """R2: across processes, running and finished."""
    ran = []
    gate = Gate()

    @activity
    async def act() -> None:
        ran.append(1)
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act()
        return key

    async def main():
        async with file_lab.engine([work]) as first, file_lab.engine([work]) as second:
            one = await first.start(work, "k")
            await file_lab.settle()
            other = await second.start(work, "k")
            await file_lab.notice()
            assert other.execution_id == one.execution_id
            gate.open()
            await file_lab.settle()
            await file_lab.notice()
            assert await file_lab.finish(other.result()) == "k"
            assert await file_lab.finish(second.execute(work, "k")) == "k"
        assert ran == [1]

    file_lab.run(main)


# Which engine ------------------------------------------------------------------------------------------


def test_the_nearest_open_engine_is_found(lab, tmp_path):
    """API 7: of this context, the innermost."""

    async def main():
        async with lab.engine([greet]) as outer:
            assert current_engine() is outer
            async with WorkflowEngine.memory([greet]) as inner:
                assert current_engine() is inner
                assert await Greet.execute({"name": "inner"}) == "hello inner"
                assert await inner.poll(Greet.execution_id({"name": "inner"})) is not None
                assert await outer.poll(Greet.execution_id({"name": "inner"})) is None
            assert current_engine() is outer
            assert await lab.finish(Greet.execute({"name": "outer"})) == "hello outer"

    lab.run(main)


def test_code_from_elsewhere_finds_the_only_one_and_several_are_an_error(lab):
    """API 7: a request handler whose context does not come from where the engine was opened."""
    from contextvars import Context

    async def handler() -> str:
        return await Greet.execute({"name": "ada"})

    def elsewhere():
        return asyncio.get_running_loop().create_task(handler(), context=Context())

    async def main():
        with pytest.raises(UsageError, match="No engine is open"):
            await elsewhere()
        async with lab.engine([greet]) as first:
            assert await lab.finish(elsewhere()) == "hello ada"
            async with WorkflowEngine.memory([greet]) as second:
                with pytest.raises(UsageError, match=r"2 engines are open.*engine="):
                    await elsewhere()
                assert await lab.finish(first.execute(Greet, {"name": "b"})) == "hello b"
                assert await Greet.options(engine=second).execute({"name": "c"}) == "hello c"
                with pytest.raises(UsageError, match="2 engines"):
                    Context().run(current_engine)
            assert await lab.finish(elsewhere()) == "hello ada"

    lab.run(main)


def test_a_call_in_an_activity_uses_its_own_engine(lab):
    """API 7: whatever was opened last around it."""

    @activity
    async def ask(name: str) -> str:
        return await Greet.execute({"name": name})

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await ask(key)

    async def main():
        async with lab.engine([work, greet]) as engine, WorkflowEngine.memory([greet]) as other:
            assert await lab.finish(engine.execute(work, "ada")) == "hello ada"
            assert await engine.poll(Greet.execution_id({"name": "ada"})) is not None
            assert await other.poll(Greet.execution_id({"name": "ada"})) is None

    lab.run(main)


def test_an_engine_may_be_left_in_another_context_than_it_was_opened_in(lab):
    """A server's lifespan: opened by one task, closed by another."""

    async def main():
        engine = WorkflowEngine.memory([greet])
        await asyncio.get_running_loop().create_task(engine.__aenter__())
        assert current_engine() is engine
        await asyncio.get_running_loop().create_task(engine.__aexit__(None, None, None))
        with pytest.raises(UsageError, match="No engine is open"):
            current_engine()

    lab.run(main)


def test_urls_name_stores(tmp_path):
    """API 7."""

    async def main():
        async with WorkflowEngine.open("memory://", [greet]) as engine:
            assert await engine.execute(Greet, {"name": "a"}) == "hello a"
        async with WorkflowEngine.open(f"sqlite:///{tmp_path}/x%20y.perdure", [greet]) as engine:
            assert await engine.execute(Greet, {"name": "b"}) == "hello b"
        async with WorkflowEngine.sqlite(tmp_path / "x y.perdure") as client:
            assert (await client.describe(Greet.execution_id({"name": "b"}))).status is Status.SUCCEEDED

    asyncio.run(main())
    for wrong in (
        "orders.perdure",
        "mysql://x",
        "sqlite://",
        "sqlite:///",
        "memory://x",
        "",
        "sqlite://host/x.perdure",
    ):
        with pytest.raises(UsageError, match="names no store"):
            WorkflowEngine.open(wrong)


def test_relative_urls_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def main():
        async with WorkflowEngine.open("sqlite:///here.perdure", [greet]) as engine:
            await engine.execute(Greet, {"name": "a"})

    asyncio.run(main())
    assert (tmp_path / "here.perdure").exists()


def test_a_body_has_its_own_engine_however_many_are_open(lab):
    """API 7, R14: also after a replay."""
    seen = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        seen.append(current_engine())
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([work]) as engine, WorkflowEngine.memory([work]):
            handle = await engine.start(work, "k")
            assert await lab.result(handle) == "k"
        assert len(seen) == (2 if lab.cache == 0 else 1)
        assert set(seen) == {engine}

    lab.run(main)
