"""Workers that die with what they run, and the execution that kills them (R41)."""

import asyncio

import pytest

from perdure import Defect, Status, Suspended, activity, current_engine, sleep, workflow
from perdure._model.records import Mail

from tests.engine.lab import Gate, until


def test_a_crash_is_counted_and_a_stop_is_not(lab):
    """R41: a take-over adds 1 to `crashes`."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act()
        return key

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
        async with lab.engine([work]) as engine:
            assert (await lab.record(engine, handle.execution_id)).crashes == 1
        gate.open()
        async with lab.engine([work]) as engine:
            assert (await engine.describe(handle.execution_id)).crashes == 0
            assert await lab.result(work.handle(handle.execution_id)) == "k"

    lab.run(main)


def test_an_entry_committed_since_the_claim_forgives_the_crashes(lab):
    """R41: whoever gets on is not what kills its worker."""
    gate = Gate()

    @activity
    async def quick() -> None: ...

    @activity
    async def slow() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        for _ in range(4):
            await slow()
            await quick()
        return key

    async def main():
        async with lab.doomed([work]) as engine:
            handle = await work.start("k")
        async with lab.doomed([work]) as engine:
            assert (await lab.record(engine, handle.execution_id)).crashes == 1
            gate.open()
            await lab.settle()
        async with lab.engine([work]) as engine:
            assert (await lab.record(engine, handle.execution_id)).crashes == 0
            assert await lab.result(work.handle(handle.execution_id)) == "k"

    lab.run(main)


def test_what_is_suspended_does_not_crash_with_a_worker(lab):
    """R41: it belongs to nobody."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.doomed([nap]):
            handle = await nap.start("k")
        async with lab.engine([nap]) as engine:
            assert (await lab.record(engine, handle.execution_id)).crashes == 0
            assert await lab.result(nap.handle(handle.execution_id)) == "k"

    lab.run(main)


def test_a_worker_runs_one_suspect_at_a_time(lab, log):
    """R41: from the second crash on; everybody else runs beside it, and in the end all have run."""
    running: list[str] = []
    most: list[int] = []
    gates = {key: Gate() for key in "abcd"}
    crashing = True

    @activity
    async def act(key: str) -> None:
        if crashing:
            await Gate().wait()
        running.append(key)
        most.append(len(running))
        await gates[key].wait()
        running.remove(key)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def healthy(key: str) -> str:
        return key

    async def main():
        nonlocal crashing
        async with lab.doomed([work, healthy]):
            for key in "abcd":
                await work.start(key)
        async with lab.doomed([work, healthy]):
            pass
        crashing = False
        async with lab.engine([work, healthy]):
            # Whoever sees them crawl finds out why.
            assert "4 executions run one at a time from now on, and 3 wait for their turn" in log.text
            for _ in "abcd":
                assert len(running) == 1
                assert await lab.finish(healthy.execute(f"beside {running[0]}")) == f"beside {running[0]}"
                gates[running[0]].open()
                await lab.settle()
            for key in "abcd":
                assert await lab.finish(work.execute(key)) == key
        assert max(most) == 1

    lab.run(main)


def test_a_suspect_that_only_waits_for_its_time_lets_the_next_one_run(lab):
    """R41, R5: nobody stands still for an in-memory wait, a suspension or a retry's delay."""
    crashing = True
    order = []

    @activity
    async def act(key: str) -> None:
        if crashing:
            await Gate().wait()
        order.append(key)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if key in "ac":
            await sleep("50 seconds" if key == "a" else "1 hour")
        else:
            await act(key)
        return key

    async def main():
        nonlocal crashing
        async with lab.doomed([work]):
            for key in "abd":
                await work.start(key)
        async with lab.doomed([work]):
            pass
        crashing = False
        async with lab.engine([work]):
            await lab.settle()
            assert sorted(order) == ["b", "d"]
            for key in "abd":
                assert await lab.finish(work.execute(key)) == key

    lab.run(main)


def test_one_poison_execution_is_convicted_and_nobody_else(lab, log):
    """R41: three times as the only suspect; the others finish, however often they were there when it struck."""
    crashing = True
    finished = []

    @activity
    async def act(key: str) -> None:
        if crashing:
            await Gate().wait()
        finished.append(key)

    @activity
    async def strike() -> None:
        await Gate().wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def poison(key: str) -> str:
        await strike()
        return key

    async def main():
        nonlocal crashing
        async with lab.doomed([work, poison]):
            poisoned = await poison.start("p")
            for n in range(6):
                await work.start(f"{n}")
        crashes = 1
        while True:
            async with lab.doomed([work, poison]) as engine:
                await lab.settle()
                info = await engine.describe(poisoned.execution_id)
                if info.held is not None:
                    break
                # After the second crash whoever is innocent would get on, if it were let.
                crashing = crashes < 2
            crashes += 1
            assert crashes <= 12
        assert (info.status, info.held) == (Status.SUSPENDED, "CRASHES")
        assert "Look for what ends the process" in str(info.cause.to_exception())
        # Two that it shared with everybody, three as the only suspect, and at most one before it for each innocent.
        assert 5 <= crashes <= 5 + 6
        async with lab.engine([work, poison]) as engine:
            for n in range(6):
                assert await lab.finish(work.execute(f"{n}")) == f"{n}"
            assert [info.key async for info in engine.executions(held="CRASHES")] == ["p"]
            assert (await poison.handle(poisoned.execution_id).poll()).__class__ is Suspended
        assert sorted(finished) == [f"{n}" for n in range(6)]
        assert any("held (CRASHES)" in record.getMessage() for record in log.records)

    lab.run(main)


def test_a_convict_can_be_resumed(lab):
    """R41, R36: whoever resumes it has looked into it, so its crashes count no more."""
    crashing = True

    @activity
    async def strike() -> None:
        if crashing:
            await Gate().wait()

    @workflow(idempotency_key=lambda key: key)
    async def poison(key: str) -> str:
        await strike()
        return key

    async def main():
        nonlocal crashing
        async with lab.doomed([poison]):
            handle = await poison.start("p")
        for _ in range(4):
            async with lab.doomed([poison]):
                pass
        crashing = False
        async with lab.engine([poison]) as engine:
            assert (await engine.describe(handle.execution_id)).held == "CRASHES"
            await lab.skip("1 day")
            assert (await engine.describe(handle.execution_id)).held == "CRASHES"
            await poison.handle(handle.execution_id).resume()
            assert await lab.result(poison.handle(handle.execution_id)) == "p"

    lab.run(main)


def test_what_the_dead_worker_had_is_taken_over_by_another_at_once(file_lab):
    """R6, R41: the two are on one file; nobody waits for a lease."""
    ran = []
    gate = Gate()

    @activity
    async def act(key: str) -> str:
        ran.append(key)
        await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with file_lab.engine() as client:
            async with file_lab.doomed([work]) as first:
                handle = await first.start(work, "k")
                await file_lab.settle()
                assert ran == ["k"]
            async with file_lab.engine([work]) as second:
                gate.open()
                waiting = asyncio.ensure_future(client.execute(work, "k"))
                await file_lab.notice()
                await file_lab.notice()
                assert await file_lab.finish(waiting) == "k"
                assert (await second.describe(handle.execution_id)).status is Status.SUCCEEDED
        assert ran == ["k", "k"]

    file_lab.run(main)


def test_a_worker_that_was_taken_for_dead_begins_again_as_a_new_one(file_lab, log):
    """Promise 3: what the former owner still does leaves no trace, and what it starts from then on is not lost."""
    ran = []
    gate = Gate()

    @activity
    async def act(key: str) -> str:
        ran.append(key)
        if len(ran) == 1:
            await gate.wait()
        return f"{key} {len(ran)}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with file_lab.engine([work]) as first:
            handle = await first.start(work, "k")
            await file_lab.settle()
            former = file_lab.service(first).worker_id
            file_lab.probe(first).inner.abandon(former)
            async with file_lab.engine([work]) as second:
                await file_lab.settle()
                assert await file_lab.finish(second.execute(work, "k")) == "k 2"
                before = await second.journal(handle.execution_id)
                gate.open()
                await file_lab.settle()
                # It learns of it at its next commit or round, whichever comes first.
                starting = asyncio.ensure_future(first.start(work, "new"))
                await file_lab.skip("3 seconds")
                fresh = await starting
                await file_lab.notice()
                assert (await file_lab.finish(fresh.result())).startswith("new")
                assert await second.journal(handle.execution_id) == before
                assert file_lab.service(first).worker_id != former
        assert sorted(ran) == ["k", "k", "new"]
        assert any("begins again" in record.getMessage() for record in log.records)

    file_lab.run(main)


def test_a_start_is_not_lost_when_its_worker_was_taken_for_dead(file_lab):
    """Promise 1: `start` returns only when the execution is durable, whoever owns it then."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with file_lab.engine([work]) as first:
            file_lab.probe(first).inner.abandon(file_lab.service(first).worker_id)
            async with file_lab.engine() as second:
                await file_lab.settle()
                starting = asyncio.ensure_future(first.start(work, "k"))
                await file_lab.settle()
                handle = await starting
                assert (await second.describe(handle.execution_id)).key == "k"
                await file_lab.skip("2 seconds")
                assert await file_lab.finish(handle.result()) == "k"

    file_lab.run(main)


def test_a_former_owner_s_commit_changes_nothing(lab):
    """Promise 3: a commit that was on its way when the execution was taken over."""
    ran = []
    gate = Gate()

    @activity
    async def act() -> int:
        ran.append(1)
        if len(ran) == 1:
            await gate.wait()
            return -1
        return len(ran)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            # Somebody else takes it away from a worker that still believes that it has it.
            record = await lab.record(engine, handle.execution_id)
            await lab.probe(engine).inner.give_back(lab.service(engine).worker_id, {handle.execution_id: record.fence})
            gate.open()
            await lab.settle()
            assert await lab.result(handle) == 2
            assert [entry.exit.value for entry in await engine.journal(handle.execution_id)] == [2]

    lab.run(main)


def test_an_undeclared_error_is_no_crash(lab):
    """R41 counts workers that died, nothing else."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        raise RuntimeError("ouch")

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(Defect):
                await lab.finish(work.execute("k"))
            assert (await engine.describe(work.execution_id("k"))).crashes == 0

    lab.run(main)


def test_a_start_that_joined_a_lost_birth_is_stored(file_lab):
    """Promise 1, R4: the birth was written nowhere, and its own starter has gone meanwhile."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with file_lab.engine([work]) as first:
            probe = file_lab.probe(first)
            hold = probe.hold("commit", before=True)
            starting = [asyncio.ensure_future(first.start(work, "k")) for _ in range(2)]
            await file_lab.settle()
            assert hold.kept == 1
            probe.inner.abandon(file_lab.service(first).worker_id)
            async with file_lab.engine() as second:
                # It inherits from everybody whose lock is gone.
                await file_lab.probe(second).inner.take_over(file_lab.service(second).worker_id)
                starting[0].cancel()
                hold.release()
                await file_lab.settle()
                handle = await starting[1]
                assert (await second.describe(handle.execution_id)).key == "k"
                await file_lab.skip("2 seconds")
                assert await file_lab.finish(handle.result()) == "k"

    file_lab.run(main)


def test_a_start_whose_worker_begins_again_before_its_first_turn_is_stored(lab):
    """Promise 1: nothing is run in the name of a worker that others have taken for dead, and nobody waits for it."""
    turns = []

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        turns.append(current_engine())
        return key

    async def main():
        async with lab.engine([work]) as engine:
            service = lab.service(engine)
            before = len(lab.probe(engine).commits)
            starting = asyncio.ensure_future(work.start("k"))
            await until(lambda: service.runners)
            service.runners[work.execution_id("k")].drop()
            handle = await starting
            assert [commit.fence for commit in lab.probe(engine).commits[before:]] == [0]
            assert await lab.result(handle) == "k"
            assert turns == [engine]

    lab.run(main)


def test_a_birth_that_is_written_after_its_worker_began_again_takes_no_room(file_lab):
    """API 7: nobody has it in hand, so it is given back; what is granted to it is given out by nobody."""
    ran = []

    @activity
    async def act(key: str) -> str:
        ran.append(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with file_lab.engine([work]) as engine:
            service = file_lab.service(engine)
            hold = file_lab.probe(engine).hold("commit", before=True)
            starting = asyncio.ensure_future(work.start("k"))
            await file_lab.settle()
            service.runners[work.execution_id("k")].drop()
            hold.release()
            handle = await starting
            await file_lab.settle()
            assert service.room.free == service.settings.admission
            assert ran == []
            await file_lab.skip("2 seconds")
            await file_lab.skip("2 seconds")
            assert await file_lab.result(handle) == "k"
            assert ran == ["k"]

    file_lab.run(main)


def test_a_convict_that_has_mail_is_held_like_any_other(lab):
    """R41: the mail waits for whoever resumes it; it must not run once more."""
    ran = []

    @activity
    async def strike() -> str:
        ran.append(1)
        await gate.wait()
        return "done"

    gate = Gate()

    @workflow(idempotency_key=lambda key: key)
    async def poison(key: str) -> str:
        return await strike()

    async def main():
        async with lab.doomed([poison]):
            handle = await poison.start("p")
        for _ in range(4):
            async with lab.doomed([poison]):
                pass
        store = lab.store()
        await store.open()
        await store.deliver([Mail(handle.execution_id, "deferred", "d", b"{}")])
        await store.close()
        before = len(ran)
        async with lab.engine([poison]) as engine:
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "CRASHES")
            assert len(ran) == before
            gate.open()
            await engine.resume(handle.execution_id)
            assert await lab.result(poison.handle(handle.execution_id)) == "done"

    lab.run(main)


def test_a_worker_that_begins_again_leaves_the_suspects_of_its_former_life(file_lab):
    """Promise 3, R41: they are pending or others' now. Claimed again, each is run once, under its new fence."""
    began: list[str] = []
    crashing = True

    @activity
    async def act(key: str) -> str:
        if crashing:
            await Gate().wait()
        began.append(key)
        await Gate().wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        nonlocal crashing
        for _ in range(2):
            async with file_lab.doomed([work]):
                for key in "abc":
                    await work.start(key)
        crashing = False
        async with file_lab.engine([work]) as first:
            former = file_lab.service(first).worker_id
            assert len(began) == 1
            file_lab.probe(first).inner.abandon(former)
            async with file_lab.engine() as second:
                await file_lab.probe(second).inner.take_over(file_lab.service(second).worker_id)
            await file_lab.skip("3 seconds")
            assert file_lab.service(first).worker_id != former
            # One suspect at a time, as before; that it is run twice by one worker in one life must not be.
            assert len(began) == 2

    file_lab.run(main)
