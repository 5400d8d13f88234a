"""How many executions are in hand at once, and who comes first (design, section 2; R5)."""

import asyncio

import pytest

from perdure import DurableDeferred, Status, activity, sleep, workflow
from perdure._model.status import is_final

from tests.engine.lab import Gate, until

Go = DurableDeferred.make("go")
Answer = DurableDeferred.make("answer", success=int)


class Work:
    """A workflow whose executions stand at a gate of their own."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.began: list[str] = []
        self.gates: dict[str, Gate] = {}
        gates, running, began = self.gates, self.running, self.began

        @activity
        async def act(key: str) -> None:
            began.append(key)
            running.append(key)
            await gates.setdefault(key, Gate()).wait()
            running.remove(key)

        @workflow(idempotency_key=lambda key: key)
        async def work(key: str) -> str:
            await act(key)
            return key

        self.act = act
        self.work = work


def test_a_start_beyond_the_bound_is_stored_and_claimed_when_there_is_room(lab):
    """A burst of starts costs disk, not memory."""
    w = Work()

    async def main():
        async with lab.engine([w.work], admission=3) as engine:
            handles = [await w.work.start(f"{n}") for n in range(10)]
            await lab.settle()
            assert w.running == ["0", "1", "2"]
            assert len(lab.service(engine).runners) == 3
            assert [await handle.status() for handle in handles] == [Status.RUNNING] * 3 + [Status.PENDING] * 7
            for n in range(10):
                w.gates[f"{n}"].open()
                await lab.settle()
                assert len(w.running) == min(3, 9 - n)
                assert await handles[n].status() is Status.SUCCEEDED
        assert w.began == [f"{n}" for n in range(10)]

    lab.run(main)


def test_a_burst_at_one_moment_keeps_to_the_bound(lab):
    w = Work()

    async def main():
        async with lab.engine([w.work], admission=5) as engine:
            results = asyncio.gather(*(w.work.execute(f"{n}") for n in range(40)))
            await lab.settle()
            assert len(w.running) == 5
            assert len(lab.service(engine).runners) <= 5
            while w.running:
                assert len(w.running) <= 5
                for key in list(w.running):
                    w.gates[key].open()
                await lab.settle()
            assert await results == [f"{n}" for n in range(40)]

    lab.run(main)


def test_in_memory_waits_do_not_count(lab):
    """R5: the sleeper keeps its worker, and others have its room."""
    w = Work()

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("30 seconds")
        return key

    async def main():
        async with lab.engine([w.work, nap], admission=1) as engine:
            sleeping = [await nap.start(f"nap {n}") for n in range(3)]
            await lab.settle()
            assert [await handle.status() for handle in sleeping] == [Status.RUNNING] * 3
            handle = await w.work.start("a")
            await lab.settle()
            assert w.running == ["a"]
            assert len(lab.service(engine).runners) == 4
            w.gates["a"].open()
            assert await lab.result(handle) == "a"
            for one in sleeping:
                await lab.result(one)

    lab.run(main)


def test_who_waits_for_room_gets_it_when_somebody_goes_to_sleep(lab):
    """R5: not only when somebody ends; nobody else would wake a memory engine."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await act()
        await sleep("30 seconds")
        return key

    @workflow(idempotency_key=lambda key: key)
    async def quick(key: str) -> str:
        return key

    async def main():
        async with lab.engine([nap, quick], admission=1):
            began = lab.clock.now()
            first = await nap.start("k")
            await lab.settle()
            waiting = await quick.start("q")
            await lab.settle()
            assert await waiting.status() is Status.PENDING
            gate.open()
            await lab.settle()
            assert await first.status() is Status.RUNNING
            assert await waiting.status() is Status.SUCCEEDED
            assert lab.clock.now() == began
            await lab.result(first)

    lab.run(main)


def test_the_higher_priority_goes_first_and_the_older_among_equals(lab):
    """API 2."""
    w = Work()

    async def main():
        async with lab.engine([w.work], admission=1):
            first = await w.work.start("first")
            await lab.settle()
            for key, priority in (("a", 0), ("b", 5), ("c", -3), ("d", 5), ("e", 0)):
                await w.work.options(priority=priority).start(key)
                lab.clock.advance(1)
            for key in ("first", "b", "d", "a", "e", "c"):
                assert w.running == [key]
                w.gates[key].open()
                await lab.settle()
            await lab.result(first)
        assert w.began == ["first", "b", "d", "a", "e", "c"]

    lab.run(main)


def test_a_new_start_does_not_pass_those_that_wait(lab):
    """Backlog order: room that has just become free belongs to whoever waits longest."""
    w = Work()

    async def main():
        async with lab.engine([w.work], admission=1) as engine:
            for key in ("a", "b"):
                await w.work.start(key)
                await lab.settle()
            lab.clock.advance(1)
            hold = lab.probe(engine).hold("claim")
            w.gates["a"].open()
            await lab.settle()
            # b has been claimed, and nobody here knows it yet: it looks as if there were room.
            assert hold.kept == 1
            last = asyncio.ensure_future(w.work.start("c"))
            await lab.settle()
            assert w.began == ["a"]
            hold.release()
            await lab.settle()
            assert w.began == ["a", "b"]
            w.gates["b"].open()
            await lab.settle()
            assert w.began == ["a", "b", "c"]
            w.gates["c"].open()
            await lab.result(await last)

    lab.run(main)


def test_a_claim_on_its_way_has_its_room(lab):
    """A start that came while the store is being asked for more would be one too many."""
    w = Work()

    @workflow(idempotency_key=lambda key: key)
    async def first(key: str) -> str:
        await Go
        await w.act(key)
        return key

    async def main():
        async with lab.engine([w.work, first], admission=1) as engine:
            handle = await first.start("a")
            await lab.settle()
            hold = lab.probe(engine).hold("claim")
            assert await Go.succeed(handle.token(Go), None)
            await until(lambda: hold.kept)
            last = asyncio.ensure_future(w.work.start("b"))
            await lab.settle()
            assert w.running == []
            hold.release()
            await lab.settle()
            assert len(w.running) == 1
            for _ in range(2):
                w.gates[w.running[0]].open()
                await lab.settle()
            await lab.result(handle)
            await lab.result(await last)

    lab.run(main)


def test_a_backlog_of_a_former_worker_comes_before_new_starts(file_lab):
    """What was stored before is claimed first."""
    w = Work()

    async def main():
        async with file_lab.engine() as client:
            for n in range(3):
                await client.start(w.work, f"old {n}")
                file_lab.clock.advance(1)
        store = file_lab.store()
        async with file_lab.engine([w.work], admission=1, store=store):
            for _ in range(3):
                w.gates[w.running[0]].open()
                await file_lab.settle()
        assert w.began == ["old 0", "old 1", "old 2"]

    file_lab.run(main)


def test_a_backlog_longer_than_one_claim_is_taken_up_at_once(file_lab, monkeypatch):
    """Not at the next interval: a full claim says that there may be more."""
    monkeypatch.setattr("perdure._engine.wakes.CLAIM_BATCH", 3)
    w = Work()

    async def main():
        async with file_lab.engine() as client:
            for n in range(10):
                await client.start(w.work, f"{n}")
        async with file_lab.engine([w.work]):
            assert sorted(w.running) == [f"{n}" for n in range(10)]

    file_lab.run(main)


def test_old_work_and_new_work_share_the_room(lab):
    """Design 4: among equals those that have begun come first, three to one, so neither starves."""
    order = []

    @activity
    async def act(key: str) -> None:
        order.append(key)

    @workflow(idempotency_key=lambda key: key)
    async def old(key: str) -> str:
        await sleep("1 hour")
        await act(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def new(key: str) -> str:
        await act(key)
        return key

    w = Work()

    async def main():
        async with lab.engine([old, new, w.work], admission=1):
            for n in range(8):
                await old.start(f"old {n}")
                await lab.settle()
            lab.clock.advance(3_599_000)
            await lab.settle()
            blocking = await w.work.start("block")
            await lab.settle()
            for n in range(8):
                await new.start(f"new {n}")
            lab.clock.advance(10_000)
            await lab.settle()
            assert order == []
            w.gates["block"].open()
            await lab.settle()
            await lab.result(blocking)
            for n in range(8):
                assert await lab.finish(old.execute(f"old {n}")) == f"old {n}"
                assert await lab.finish(new.execute(f"new {n}")) == f"new {n}"
        assert len(order) == 16
        assert sum(key.startswith("old") for key in order[:8]) == 6

    lab.run(main)


def test_room_is_never_lost(lab):
    """Whatever becomes of executions: ended, failed, held, suspended, asleep, cut short."""

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def mixed(key: str) -> str:
        n = int(key)
        if n % 5 == 1:
            raise RuntimeError("held")
        if n % 5 == 2:
            await sleep("10 seconds")
        if n % 5 == 3:
            await sleep("1 hour")
        if n % 5 == 4:
            await asyncio.Event().wait()
        return key

    async def main():
        async with lab.engine([mixed], admission=2) as engine:
            handles = [await mixed.start(f"{n}") for n in range(25)]
            await lab.skip("2 hours")
            statuses = [await handle.status() for handle in handles]
            assert [is_final(status) for status in statuses] == [n % 5 in (0, 2, 3) for n in range(25)]
            service = lab.service(engine)
            assert service.runners == {}
            assert service.room.free == 2
            assert service.room._asleep == set()
            assert service.idle

    lab.run(main)


@pytest.mark.parametrize("bound", ["admission", "concurrency"])
def test_whoever_waits_for_another_execution_in_an_activity_leaves_it_the_room(lab, bound):
    """R5, R14: else as many parents as may run at once would wait for children that may not."""

    @activity
    async def double(number: int) -> int:
        return 2 * number

    @workflow(name="Child", idempotency_key=str)
    async def child(number: int) -> int:
        return await double(number)

    @activity
    async def ask(number: int) -> int:
        return await child.execute(number)

    @workflow(name="Parent", idempotency_key=str)
    async def parent(number: int) -> int:
        return await ask(number)

    async def main():
        async with lab.engine([parent, child], **{bound: 1}) as engine:
            waiting = asyncio.gather(*(engine.execute(parent, number) for number in range(5)))
            assert await lab.finish(waiting) == [0, 2, 4, 6, 8]
            assert lab.service(engine).room.free == (1 if bound == "admission" else 1_000)

    lab.run(main)


def test_whoever_waits_for_two_executions_at_once_takes_its_place_back_behind_the_last_one(lab):
    """R14: taken after the first it would be the one that the second needs."""

    @activity
    async def step(number: int) -> int:
        return number

    @workflow(name="Child", idempotency_key=str)
    async def child(number: int) -> int:
        if number == 2:
            await sleep("1 minute")
        return await step(number)

    @activity
    async def ask() -> list[int]:
        return list(await asyncio.gather(child.execute(1), child.execute(2)))

    @workflow(name="Parent", idempotency_key=lambda: "k")
    async def parent() -> list[int]:
        return await ask()

    async def main():
        async with lab.engine([parent, child], concurrency=1) as engine:
            waiting = asyncio.ensure_future(engine.execute(parent))
            await lab.settle()
            await lab.skip("2 minutes")
            assert await lab.finish(waiting) == [1, 2]
            assert lab.service(engine).slots.try_take()

    lab.run(main)


@pytest.mark.parametrize("what", ["execution", "deferred"])
def test_a_plain_function_that_waits_keeps_its_thread_and_not_its_place(lab, what):
    """R14: as many as there are threads must not stand in the way of what they wait for."""

    @activity
    async def step(number: int) -> int:
        return number

    @workflow(name="Child", idempotency_key=str)
    async def child(number: int) -> int:
        return await step(number)

    @workflow(name="Completer", idempotency_key=str)
    async def completer(key: str) -> bool:
        await step(1)
        return await Answer.succeed(Answer.token_for(parent, key), 1)

    @activity
    def ask() -> int:
        # On a thread, with a loop of its own.
        return asyncio.run(answer() if what == "deferred" else child.execute(1))

    async def answer() -> int:
        return await Answer

    @workflow(name="Parent", idempotency_key=str)
    async def parent(key: str) -> int:
        return await ask()

    async def main():
        async with lab.engine([parent, child, completer], concurrency=1, threads=1) as engine:
            waiting = asyncio.ensure_future(engine.execute(parent, "k"))
            if what == "deferred":
                assert await lab.finish(engine.execute(completer, "k"))
            assert await lab.finish(waiting) == 1
            service = lab.service(engine)
            assert service.slots.try_take()
            assert service.thread_slots.try_take()

    lab.run(main)
