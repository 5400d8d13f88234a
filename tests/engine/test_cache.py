"""Kernels that wait in memory: bounded, the longest unused away first, and back without a replay (R6, design 1)."""

import asyncio

import pytest

from perdure import Status, activity, sleep, workflow

from tests.engine.lab import Gate, successes, until


@workflow(idempotency_key=lambda key: key)
async def naps(key: str) -> str:
    for _ in range(3):
        await sleep("1 hour")
    return key


@workflow(idempotency_key=lambda key: key)
async def short_naps(key: str) -> str:
    for _ in range(5):
        await sleep("10 seconds")
    return key


@activity
async def echo(text: str) -> str:
    return text


def loads(lab, engine) -> int:
    return lab.probe(engine).calls["load"]


def test_a_parked_kernel_goes_on_without_a_replay(lab):
    async def main():
        async with lab.engine([naps], cache=10) as engine:
            assert await lab.finish(naps.execute("k")) == "k"
            assert loads(lab, engine) == 0

    lab.run(main)


def test_a_kernel_that_sleeps_in_memory_goes_on_without_a_replay(lab):
    async def main():
        async with lab.engine([short_naps], cache=10) as engine:
            assert await lab.finish(short_naps.execute("k")) == "k"
            assert loads(lab, engine) == 0

    lab.run(main)


def test_without_a_cache_every_await_is_a_replay(lab):
    """`cache=0`: also while an activity runs."""
    gate = Gate()

    @activity
    async def act() -> str:
        await gate.wait()
        return "acted"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await sleep("1 hour")
        await sleep("10 seconds")
        return await act()

    async def main():
        async with lab.engine([work], cache=0) as engine:
            handle = await work.start("k")
            await lab.skip("2 hours")
            assert gate.entered == 1
            assert lab.runner(engine, handle.execution_id).kernel is None
            gate.open()
            assert await lab.result(handle) == "acted"
            assert loads(lab, engine) == 3

    lab.run(main)


def test_the_cache_is_bounded_by_count_and_the_longest_unused_goes_first(lab):
    async def main():
        async with lab.engine([naps], cache=2) as engine:
            cache = lab.service(engine).cache
            for n in range(4):
                await naps.start(f"{n}")
                await lab.skip("1 minute")
            assert len(cache) == 2
            assert list(cache._runners) == [naps.execution_id(f"{n}") for n in (2, 3)]
            # 0 and 1 come back by a replay, and put 2 and 3 away in their turn.
            await lab.skip("1 hour")
            assert len(cache) <= 2
            assert loads(lab, engine) == 4
            for n in range(4):
                assert await lab.finish(naps.execute(f"{n}")) == f"{n}"

    lab.run(main)


def test_the_cache_is_bounded_by_the_bytes_of_journal_behind_it(lab):
    @workflow(idempotency_key=lambda key, size: key)
    async def heavy(key: str, size: int) -> int:
        kept = await echo("x" * size)
        await sleep("1 hour")
        return len(kept)

    async def main():
        async with lab.engine([heavy], cache=(100, 10_000)) as engine:
            cache = lab.service(engine).cache
            for n in range(5):
                await heavy.start(f"{n}", 1_000)
                await lab.settle()
            assert len(cache) >= 2
            assert cache._held <= 10_000
            before = len(cache)
            await heavy.start("large", 9_000)
            await lab.settle()
            # Nothing of that size fits: input and result are counted.
            assert cache._held <= 10_000
            assert len(cache) <= before
            assert heavy.execution_id("large", 9_000) not in cache._runners
            for n in range(5):
                assert await lab.finish(heavy.execute(f"{n}", 1_000)) == 1_000
            assert await lab.finish(heavy.execute("large", 9_000)) == 9_000
            assert (len(cache), cache._held) == (0, 0)

    lab.run(main)


def test_a_kernel_that_is_wanted_again_does_not_count_any_more(lab):
    """Or a cache of a million bytes would be full after a million bytes of traffic."""

    async def main():
        async with lab.engine([naps], cache=(100, 1_000_000)) as engine:
            cache = lab.service(engine).cache
            for n in range(5):
                await naps.start(f"{n}")
            await lab.settle()
            held = [runner.size for runner, _ in cache._runners.values()]
            assert len(held) == 5
            assert cache._held == sum(held) > 0
            for n in range(5):
                assert await lab.finish(naps.execute(f"{n}")) == f"{n}"
            assert (len(cache), cache._held) == (0, 0)
            assert loads(lab, engine) == 0

    lab.run(main)


def test_a_kernel_is_not_put_away_between_its_turn_and_its_commit(lab):
    """It would come back to nobody: what its commit allows, its next timer too, is given out by the kernel."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def crowding(key: str) -> str:
        await act()
        await sleep("50 seconds")
        return key

    async def main():
        async with lab.engine([short_naps, crowding], cache=1) as engine:
            other = await crowding.start("o")
            sleeper = await short_naps.start("k")
            await lab.settle()
            hold = lab.probe(engine).hold("commit")
            gate.open()
            await lab.settle()
            assert hold.kept == 1
            # The sleeper takes its turn while the other one's commit is on its way, and its own comes behind that.
            lab.clock.advance(10_000)
            await lab.settle()
            hold.release()
            assert await lab.result(sleeper) == "k"
            assert await lab.result(other) == "o"

    lab.run(main)


def test_sleepers_that_crowd_each_other_out_all_wake(lab):
    """A cache with room for one, and six of them."""

    async def main():
        async with lab.engine([short_naps], cache=1):
            results = await lab.finish(asyncio.gather(*(short_naps.execute(f"{n}") for n in range(6))))
            assert results == [f"{n}" for n in range(6)]

    lab.run(main)


def test_a_kernel_whose_activity_runs_is_not_in_the_cache(lab):
    """It is wanted soon, and cannot be put away for somebody who sleeps."""
    gate = Gate()

    @activity
    async def act() -> str:
        await gate.wait()
        return "acted"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act()

    async def main():
        async with lab.engine([work, naps], cache=1) as engine:
            handle = await work.start("k")
            for n in range(3):
                await naps.start(f"{n}")
            await lab.settle()
            assert lab.runner(engine, handle.execution_id).kernel is not None
            gate.open()
            assert await lab.result(handle) == "acted"
            assert loads(lab, engine) == 0

    lab.run(main)


def test_a_parked_kernel_is_good_only_if_nobody_has_had_the_execution_meanwhile(file_lab):
    """The fence + 1 rule: otherwise the journal is read again."""
    seen = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        for n in range(3):
            seen.append((n, await echo(f"{n}")))
            await sleep("1 hour")
        return key

    async def main():
        async with file_lab.engine([work], cache=10) as first:
            handle = await first.start(work, "k")
            await file_lab.settle()
            parked = file_lab.service(first).cache._runners[handle.execution_id][0]
            before = await file_lab.record(first, handle.execution_id)
            # Somebody claims it and is taken over without having written a word: the fence has grown by two.
            other = file_lab.store()
            await other.open()
            from perdure._model.records import Worker

            await other.register(
                Worker(worker_id="other", host="h", pid=1, workflows=("work",), started_at=file_lab.clock.now())
            )
            # The first one does not look meanwhile.
            file_lab.service(first).wakes._alarm.cancel()
            file_lab.probe(first).inner._hints.clear()
            await file_lab.settle()
            file_lab.clock.advance(3_600_000)
            assert await other.promote(1) == 1
            (record,) = await other.claim("other", ["work"], 1)
            assert record.fence == before.fence + 1
            await other.retire("other")
            await other.close()
            assert file_lab.probe(first).calls["load"] == 0
            await file_lab.notice()
            assert file_lab.probe(first).calls["load"] == 1
            assert parked.kernel is None
            assert await file_lab.finish(handle.result()) == "k"
        assert [n for n, _ in seen][:1] == [0]
        assert [text for _, text in seen][-3:] == ["0", "1", "2"]

    file_lab.run(main)


def test_eviction_closes_the_body_and_nothing_of_it_acts(lab):
    """R6: local clean-up runs, what it asks for has no effect, and a later replay is a new body."""
    cleaned = []
    ran = []

    @activity
    async def act(what: str) -> None:
        ran.append(what)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(7_200))
                await sleep("1 hour")
        finally:
            cleaned.append(key)
            await act(key)
        return key

    async def main():
        async with lab.engine([work, naps], cache=1) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert cleaned == []
            await naps.start("n")
            await lab.settle()
            assert cleaned == ["k"]
            assert ran == []
            assert await handle.status() is Status.SUSPENDED
            assert await lab.result(handle) == "k"
            assert ran == ["k"]
            assert [entry.kind for entry in await engine.journal(handle.execution_id)].count("activity") == 1

    lab.run(main)


def test_a_second_start_does_not_cost_a_parked_kernel(lab):
    """It joins, and the kernel that waits goes on without a replay; its frames are neither lost nor left to the collector."""
    cleaned = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await sleep("1 hour")
        finally:
            cleaned.append(await echo(key))
        return key

    async def main():
        import gc

        async with lab.engine([work], cache=10) as engine:
            handle = await work.start("k")
            await lab.settle()
            for _ in range(3):
                await work.start("k")
                await lab.settle()
            gc.collect()
            await lab.settle()
            assert len(lab.service(engine).cache) == 1
            assert cleaned == []
            assert await lab.result(handle) == "k"
            assert cleaned == ["k"]
            assert loads(lab, engine) == 0

    lab.run(main)


@pytest.mark.parametrize("cache", [0, 1, 3, 10_000])
def test_every_cache_gives_the_same_results_and_the_same_journals(lab, cache):
    """Replay is the same code path."""

    @workflow(idempotency_key=str)
    async def work(n: int) -> list[str]:
        first = await asyncio.gather(*(echo(f"{n}.{i}") for i in range(3)))
        await sleep("10 seconds")
        async with asyncio.timeout(60):
            second = await echo("second")
        await asyncio.gather(sleep("1 hour"), sleep("30 seconds"), echo("third"))
        return [*first, second, await echo("fourth")]

    async def main():
        async with lab.engine([work], cache=cache) as engine:
            results = await lab.finish(asyncio.gather(*(work.execute(n) for n in range(4))))
            assert results == [[f"{n}.0", f"{n}.1", f"{n}.2", "second", "fourth"] for n in range(4)]
            for n in range(4):
                steps = [(kind, name) for kind, name, _ in await lab.steps(engine, work.execution_id(n))]
                assert sorted(steps[:3]) == [("activity", "echo")] * 3
                assert sorted(steps[3:]) == sorted(
                    [
                        ("timer", "sleep:10"), ("activity", "echo"), ("set", "sleep:3600"), ("activity", "echo"),
                        ("timer", "sleep:30"), ("timer", "sleep:3600"), ("activity", "echo"),
                    ]
                )  # fmt: skip

    lab.run(main)


def test_code_that_asks_otherwise_at_every_replay_is_held_and_does_not_go_round(lab):
    """R8: the result of what it asked for first is recorded, and tells of the divergence."""
    ran = []
    numbers = iter(range(1_000))

    @activity
    async def charge(n: int) -> str:
        ran.append(n)
        return f"charged {n}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await charge(next(numbers))

    async def main():
        async with lab.engine([work], cache=0) as engine:
            handle = await work.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "DIVERGENCE")
            assert 1 <= len(ran) <= 2
            assert successes(await engine.journal(handle.execution_id))[:1] == ["charged 0"]

    lab.run(main)


def test_a_withdrawn_call_s_late_result_is_dropped(lab):
    """R9: it was told to end, and its body has gone on without it, with a kernel or after a replay."""
    gate = Gate()
    ran = []

    @activity
    async def stubborn() -> str:
        ran.append("begun")
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await late.wait()
        return "too late"

    late = Gate()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.timeout(10):
                return await stubborn()
        except TimeoutError:
            await sleep("20 seconds")
            return await echo("without it")

    async def main():
        for cache in (0, 10):
            async with lab.engine([work], cache=cache) as engine:
                handle = await work.start(f"{cache}")
                await lab.skip("15 seconds")
                assert late.entered >= 1
                late.open()
                assert await lab.result(handle) == "without it"
                assert successes(await engine.journal(handle.execution_id)) == ["without it"]
        assert ran == ["begun", "begun"]

    lab.run(main)


def test_a_result_that_comes_with_the_withdrawal_of_its_call_is_dropped(lab):
    """R9, R47: the timer was first. Nobody has been told to end yet."""
    gate = Gate()

    @activity
    async def act() -> str:
        await gate.wait()
        return "too late"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.timeout(10):
                return await act()
        except TimeoutError:
            return await echo("without it")

    async def main():
        for cache in (0, 10):
            async with lab.engine([work], cache=cache) as engine:
                handle = await work.start(f"{cache}")
                await lab.settle()
                runner = lab.runner(engine, handle.execution_id)
                # Both are there before a turn is taken.
                runner.scheduled = True
                lab.clock.advance(11_000)
                gate.open()
                await until(lambda runner=runner: runner.inbox)
                runner.scheduled = False
                lab.service(engine).schedule(runner)
                assert await lab.result(handle) == "without it"
                assert successes(await engine.journal(handle.execution_id)) == ["without it"]
            gate._open.clear()

    lab.run(main)


def test_a_result_that_comes_while_the_withdrawal_is_being_written_is_dropped(lab):
    """R9: its attempt is told to end only when that is durable, and has ended by itself before."""
    gate = Gate()

    @activity
    async def act() -> str:
        await gate.wait()
        return "too late"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            async with asyncio.timeout(10):
                return await act()
        except TimeoutError:
            await sleep("20 seconds")
            return await echo("without it")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            hold = lab.probe(engine).hold("commit")
            await lab.skip("10 seconds")
            assert hold.kept == 1
            gate.open()
            await lab.settle()
            hold.release()
            assert await lab.result(handle) == "without it"
            assert successes(await engine.journal(handle.execution_id)) == ["without it"]

    lab.run(main)
