"""What is written when, and what nobody sees before it is (design, section 2)."""

import asyncio

from perdure import Status, activity, sleep, workflow
from perdure._engine import committer
from perdure._model.status import is_final

from tests.engine.lab import Gate, Lab


def commits(lab: Lab, engine) -> list:
    return lab.probe(engine).commits


def test_n_steps_cost_n_plus_one_commits_and_one_row_each(lab):
    """The start, then each result; the last result and the completion are one."""

    @activity
    async def step(n: int) -> int:
        return n

    @workflow(idempotency_key=str)
    async def work(n: int) -> int:
        return sum([await step(i) for i in range(n)])

    async def main():
        async with lab.engine([work]) as engine:
            for n in (0, 1, 5):
                before = len(commits(lab, engine))
                assert await lab.finish(work.execute(n)) == sum(range(n))
                mine = commits(lab, engine)[before:]
                assert len(mine) == n + 1
                assert mine[0].start is not None
                assert [len(commit.entries) for commit in mine] == [0] + [1] * n
                assert [is_final(commit.status) for commit in mine] == [False] * n + [True]
                assert len(await engine.journal(work.execution_id(n))) == n

    lab.run(main)


def test_results_that_come_together_are_one_commit(lab):
    """A `gather` of a hundred costs a hundred rows, and no hundred transactions."""

    @activity
    async def step(n: int) -> int:
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return sum(await asyncio.gather(*(step(n) for n in range(100))))

    async def main():
        async with lab.engine([work]) as engine:
            before = len(lab.probe(engine).batches)
            assert await lab.finish(work.execute("k")) == 4_950
            assert len(await engine.journal(work.execution_id("k"))) == 100
            assert len(lab.probe(engine).batches) - before <= 10

    lab.run(main)


def test_executions_share_a_transaction(lab):
    """Group commit: whatever is waiting is one batch."""

    @activity
    async def step(n: int) -> int:
        return n

    @workflow(idempotency_key=str)
    async def work(n: int) -> int:
        return await step(n) + await step(n)

    async def main():
        async with lab.engine([work]) as engine:
            before = len(lab.probe(engine).batches)
            await lab.finish(asyncio.gather(*(work.execute(n) for n in range(50))))
            batches = lab.probe(engine).batches[before:]
            assert sum(batches) == 50 * 3
            assert len(batches) <= 30

    lab.run(main)


def test_what_does_not_fit_into_a_batch_goes_into_the_next_in_its_order(lab, monkeypatch):
    """First come, first written, and everybody has a turn."""
    monkeypatch.setattr(committer, "LARGEST_BATCH", 2)

    @workflow(idempotency_key=str)
    async def work(n: int) -> int:
        return n

    async def main():
        async with lab.engine([work]) as engine:
            before, batches = len(commits(lab, engine)), len(lab.probe(engine).batches)
            assert await lab.finish(asyncio.gather(*(work.execute(n) for n in range(5)))) == [0, 1, 2, 3, 4]
            assert [one.execution_id for one in commits(lab, engine)[before:]] == [
                work.execution_id(n) for n in range(5)
            ]
            assert max(lab.probe(engine).batches[batches:]) == 2

    lab.run(main)


def test_no_activity_begins_before_its_turn_is_durable(lab):
    """Effects only after durability: the store has the commit, and has not said so yet."""
    ran = []

    @activity
    async def step(n: int) -> int:
        ran.append(n)
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await step(1) + await step(2)

    async def main():
        async with lab.engine([work]) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(work.start("k"))
            await lab.settle()
            assert (hold.kept, ran) == (1, [])
            assert not starting.done()
            hold.release()
            second = lab.probe(engine).hold("commit")
            await lab.settle()
            assert ran == [1]
            assert second.kept == 1
            second.release()
            assert await lab.result(await starting) == 3

    lab.run(main)


def test_no_caller_hears_a_result_before_it_is_durable(lab):
    """And neither does poll."""
    gate = Gate()

    @activity
    async def step() -> int:
        await gate.wait()
        return 5

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await step()

    async def main():
        async with lab.engine([work]) as engine:
            waiting = asyncio.ensure_future(work.execute("k"))
            joined = asyncio.ensure_future(work.execute("k"))
            await lab.settle()
            hold = lab.probe(engine).hold("commit")
            gate.open()
            await lab.settle()
            assert hold.kept == 1
            assert not waiting.done()
            assert not joined.done()
            hold.release()
            assert await lab.finish(waiting) == await lab.finish(joined) == 5

    lab.run(main)


def test_a_second_turn_waits_for_the_first_one_s_commit(lab):
    """The kernel may run ahead of durability by one commit; what comes in meanwhile is one turn more."""
    gates = [Gate() for _ in range(4)]
    ran = []

    @activity
    async def step(n: int) -> int:
        await gates[n].wait()
        return n

    @activity
    async def after(n: int) -> int:
        ran.append(n)
        return n

    async def branch(n: int) -> int:
        return await after(await step(n))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int]:
        return await asyncio.gather(*(branch(n) for n in range(4)))

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            before = len(commits(lab, engine))
            hold = lab.probe(engine).hold("commit")
            for gate in gates:
                gate.open()
                await lab.settle()
            assert hold.kept == 1
            assert [len(commit.entries) for commit in commits(lab, engine)[before:]] == [1]
            assert ran == []
            hold.release()
            assert await lab.result(handle) == [0, 1, 2, 3]
            first, second, *_ = [len(commit.entries) for commit in commits(lab, engine)[before:]]
            assert first == 1
            assert second >= 3
            assert sorted(ran) == [0, 1, 2, 3]

    lab.run(main)


def test_a_suspension_is_given_up_only_when_it_is_durable(lab):
    """Its owner keeps it until then, and its alarm is set by what was stored."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = asyncio.ensure_future(nap.start("k"))
            await lab.settle()
            assert nap.execution_id("k") in lab.service(engine).runners
            hold.release()
            handle = await starting
            await lab.settle()
            assert nap.execution_id("k") not in lab.service(engine).runners
            assert await handle.status() is Status.SUSPENDED
            # The start and the suspension of a body that sleeps at once are one commit.
            assert len(commits(lab, engine)) == 1
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_an_in_memory_wait_costs_one_row_and_one_commit(lab):
    """R16: nothing is written when it begins."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("10 seconds")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            await lab.finish(nap.execute("k"))
            assert [len(commit.entries) for commit in commits(lab, engine)] == [0, 1]

    lab.run(main)


def test_a_start_whose_caller_is_cancelled_during_the_commit_still_happens(lab):
    """Promise 1, R4: cancelling a caller never cancels a commit; whoever joined hears the result."""
    ran = []

    @activity
    async def step() -> int:
        ran.append(1)
        return 5

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await step()

    async def main():
        async with lab.engine([work]) as engine:
            hold = lab.probe(engine).hold("commit")
            starting = [asyncio.ensure_future(work.start("k")) for _ in range(3)]
            await lab.settle()
            starting[0].cancel()
            starting[2].cancel()
            await lab.settle()
            hold.release()
            handle = await starting[1]
            assert await lab.result(handle) == 5
        assert ran == [1]

    lab.run(main)


def test_a_stored_start_whose_caller_is_cancelled_during_the_commit_is_found(lab):
    """Promise 7: a delayed one is woken at its time, one that waits for room is claimed."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def busy(key: str) -> None:
        await hold_place()

    gate = Gate()

    @activity
    async def hold_place() -> None:
        await gate.wait()

    async def main():
        async with lab.engine([work, busy], admission=1) as engine:
            blocking = await busy.start("b")
            await lab.settle()
            hold = lab.probe(engine).hold("commit")
            starting = [
                asyncio.ensure_future(work.options(delay="1 hour").start("delayed")),
                asyncio.ensure_future(work.start("waiting")),
            ]
            await lab.settle()
            for each in starting:
                each.cancel()
            await lab.settle()
            hold.release()
            gate.open()
            await lab.result(blocking)
            await lab.settle()
            assert await work.handle(work.execution_id("waiting")).status() is Status.SUCCEEDED
            await lab.skip("1 hour")
            assert await work.handle(work.execution_id("delayed")).status() is Status.SUCCEEDED

    lab.run(main)
