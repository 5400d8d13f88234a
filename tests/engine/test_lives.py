"""Several lives of one id, and a second execution with the same past (R37, R49)."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Complete,
    Defect,
    DurableChannel,
    DurableDeferred,
    ExecutionExistsError,
    Interrupted,
    Status,
    Success,
    Suspended,
    Token,
    TokenError,
    TokenParsed,
    TypedError,
    UsageError,
    activity,
    add_finalizer,
    continue_as_new,
    execution_id,
    idempotency_key,
    now,
    patched,
    random,
    sleep,
    uuid4,
    with_compensation,
    workflow,
)
from perdure._values.instant import to_datetime
from perdure.testing import verify_replay

from tests.engine.lab import Gate, Lab, until
from tests.engine.mortal import died_at_each_commit
from tests.kernel.steps import begin

Never = DurableDeferred.make("never", success=str)
Signal = DurableDeferred.make("signal", success=str)
Inbox = DurableChannel.make("inbox", str)

SECRET = "a secret of sixteen bytes and more"


class Declined(TypedError):
    code: int


# What activities have done, in order; and what is broken.
done: list[str] = []
broken: set[str] = set()


@pytest.fixture
def lab(corner_lab: Lab) -> Lab:
    """Both stores, and every kernel put away at every await, in two combinations of the four."""
    return corner_lab


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()
    broken.clear()


@activity
async def note(what: str) -> str:
    done.append(what)
    return what


@activity(error=Declined)
async def step(what: str) -> str:
    """Fails while it is broken."""
    done.append(what)
    if what in broken:
        raise Declined(code=1)
    return what


@workflow(idempotency_key=lambda key: key, error=Declined)
async def work(key: str) -> str:
    return await step("a") + await step("b")


again = work.options(on_duplicate="restart_if_failed")


async def life(engine, execution_id: str) -> int:
    return (await engine.describe(execution_id)).incarnation


async def fails(lab, handle, error: type[BaseException] = Declined) -> None:
    with pytest.raises(error):
        await lab.result(handle)


# Restart ----------------------------------------------------------------------------------------------------------------


def test_a_failed_execution_is_restarted_under_its_id(lab):
    """R37: from the beginning, with a journal of its own."""

    async def main():
        broken.add("b")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await fails(lab, handle)
            broken.clear()
            second = await again.start("k")
            assert second.execution_id == handle.execution_id
            assert await lab.result(second) == "ab"
            assert done == ["a", "b", "a", "b"]
            assert await life(engine, handle.execution_id) == 2
            assert [entry.seq for entry in await engine.journal(handle.execution_id)] == [1, 2]

    lab.run(main)


def test_an_interrupted_execution_is_restarted_as_well(lab):
    """R37: also one that never began."""

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(delay="1 hour").start("k")
            await handle.interrupt()
            await fails(lab, handle, Interrupted)
            assert await lab.result(await again.start("k")) == "ab"
            assert await life(engine, handle.execution_id) == 2

    lab.run(main)


def test_one_that_succeeded_or_is_on_its_way_is_joined(lab):
    """R37."""

    @workflow(idempotency_key=lambda key: key)
    async def slow(key: str) -> str:
        await note(key)
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([slow]) as engine:
            restarting = slow.options(on_duplicate="restart_if_failed")
            handle = await restarting.start("k")
            await lab.settle()
            await restarting.start("k")
            assert await lab.result(handle) == "k"
            assert await lab.result(await restarting.start("k")) == "k"
            assert (await life(engine, handle.execution_id), done) == (1, ["k"])

    lab.run(main)


def test_a_start_that_restarts_does_so_beside_one_that_joins(lab):
    """R37: they meet the same failed execution at the same moment, and only one of them wants it as it is."""

    async def main():
        async with lab.engine([work]):
            broken.add("a")
            with pytest.raises(Declined):
                await lab.result(await work.start("k"))
            broken.clear()
            _, restarted = await lab.finish(asyncio.gather(work.start("k"), again.start("k")))
            assert await lab.result(restarted) == "ab"

    lab.run(main)


def test_one_that_is_held_is_joined(lab):
    """R36, R37: it has not ended; only a resume or an interrupt acts on it."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def holds(key: str) -> str:
        return await step("a")

    async def main():
        broken.add("a")
        async with lab.engine([holds]) as engine:
            handle = await holds.start("k")
            await lab.settle()
            await holds.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            assert ((await engine.describe(handle.execution_id)).held, done) == ("FAILURE", ["a"])

    lab.run(main)


def test_without_being_asked_for_it_nothing_is_restarted(lab):
    """R2, R37: an execution that failed is joined."""

    async def main():
        broken.add("a")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await fails(lab, handle)
            broken.clear()
            await fails(lab, await work.start("k"))
            assert await life(engine, handle.execution_id) == 1

    lab.run(main)


def test_every_life_has_its_own_seed_keys_and_mailbox(lab):
    """R14, R37, R39."""
    drawn: list[tuple[str, float, str]] = []
    keys: list[str] = []

    @activity
    async def keyed() -> None:
        keys.append(idempotency_key())

    @workflow(idempotency_key=lambda key: key)
    async def draws(key: str) -> str:
        await keyed()
        drawn.append((str(uuid4("invoice")), random().random(), str(uuid4())))
        value = await Signal
        if broken:
            raise RuntimeError
        return value

    async def main():
        broken.add("draws")
        async with lab.engine([draws]):
            handle = await draws.start("k")
            token = Signal.token_from_execution_id(workflow=draws, execution_id=handle.execution_id)
            await Signal.succeed(token, "first life")
            await fails(lab, handle, Defect)
            first = set(drawn)
            drawn.clear()
            broken.clear()
            await draws.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            await Signal.succeed(token, "second life")
            assert await lab.result(handle) == "second life"
            assert len(first) == len(set(drawn)) == 1
            (one,), (other,) = first, set(drawn)
            assert all(mine != others for mine, others in zip(one, other, strict=True))
            assert len(keys) == len(set(keys)) == 2

    lab.run(main)


def test_a_signed_token_of_an_earlier_life_is_refused(lab):
    """R19, R37."""
    tokens: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def gives(key: str) -> str:
        tokens.append(Signal.token())
        await note("given")
        return await Signal

    async def main():
        async with lab.engine([gives], token_secret=SECRET):
            handle = await gives.start("k")
            await lab.settle()
            old = tokens[-1]
            assert set(tokens) == {old}
            await handle.interrupt()
            await fails(lab, handle, Interrupted)
            await gives.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            new = tokens[-1]
            assert new != old
            with pytest.raises(TokenError):
                await Signal.succeed(old, "old")
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            await Signal.succeed(new, "new")
            assert await lab.result(handle) == "new"

    lab.run(main)


def test_a_finished_life_never_changes(lab):
    """R37: what comes for it is refused, and its journal stays what it was."""

    async def main():
        broken.add("b")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await fails(lab, handle)
            before = await lab.record(engine, handle.execution_id)
            await handle.interrupt()
            await handle.resume()
            token = Signal.token_from_execution_id(workflow=work, execution_id=handle.execution_id)
            assert await Signal.succeed(token, "late") is False
            assert await lab.record(engine, handle.execution_id) == before
            broken.clear()
            await lab.result(await again.start("k"))
            (first,) = await lab.probe(engine).inner.lives(handle.execution_id)
            assert (first.number, first.status, first.exit) == (1, Status.FAILED, before.exit)
            [history] = await lab.probe(engine).inner.load([(before.incarnation, 0, 0)])
            assert [entry.name for entry in history.entries] == ["step", "step"]

    lab.run(main)


def test_children_that_did_not_succeed_are_restarted_with_their_parent(lab):
    """R37: those that did are joined; nobody does twice what has worked."""

    @workflow(idempotency_key=lambda what: what, error=Declined)
    async def child(what: str) -> str:
        return await step(what)

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def parent(key: str) -> str:
        return await child.execute("a") + await child.execute("b")

    async def main():
        broken.add("b")
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await fails(lab, handle)
            broken.clear()
            assert await lab.result(await parent.options(on_duplicate="restart_if_failed").start("k")) == "ab"
            assert done == ["a", "b", "b"]
            lives = [await life(engine, child.execution_id(what)) for what in "ab"]
            assert lives == [1, 2]

    lab.run(main)


@pytest.mark.parametrize("way", ["restart", "rewind"])
def test_what_was_undone_stays_undone_where_its_record_is_taken(lab, way):
    """R27, R37: a child with a key is joined although its parent has undone it; one without a key is made anew."""
    there: list[str] = []

    @activity
    async def book(what: str) -> None:
        there.append(what)

    @activity
    async def cancel(what: str) -> None:
        there.remove(what)

    @workflow(idempotency_key=lambda what: what)
    async def keyed(what: str) -> None:
        await book(what)

    @workflow
    async def keyless(what: str) -> None:
        await book(what)

    @workflow(idempotency_key=lambda key: key)
    async def saga(key: str) -> None:
        await with_compensation(book("seat"), lambda _, cause: cancel("seat"))
        await with_compensation(keyed.execute("keyed"), lambda _, cause: cancel("keyed"))
        await with_compensation(keyless.execute("keyless"), lambda _, cause: cancel("keyless"))
        if "saga" in broken:
            raise ValueError("no hotel")

    async def main():
        broken.add("saga")
        async with lab.engine([saga, keyed, keyless]) as engine:
            handle = await saga.start("k")
            await fails(lab, handle, Defect)
            assert there == []
            assert "not done again by a child that has SUCCEEDED" in await handle.explain()
            broken.clear()
            if way == "restart":
                await saga.options(on_duplicate="restart_if_failed").start("k")
            else:
                await engine.rewind(handle.execution_id, to=0)
            await lab.result(handle)
            assert there == ["seat", "keyless"]
            if way == "rewind":
                await engine.rewind(handle.execution_id, to=1)  # behind the seat, which is there
                await lab.result(handle)
                assert there == ["seat", "keyless", "keyless"]

    lab.run(main)


def test_a_child_without_a_key_is_another_one_in_the_next_life(lab):
    """R1, R37: its id derives from the parent's life."""

    @workflow
    async def child(what: str) -> str:
        return await note(what)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await child.execute("a")
        if broken:
            raise RuntimeError
        return "done"

    async def main():
        broken.add("parent")
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await fails(lab, handle, Defect)
            broken.clear()
            assert await lab.result(await parent.options(on_duplicate="restart_if_failed").start("k")) == "done"
            children = [info.execution_id async for info in engine.executions(workflow="child")]
            assert (done == ["a", "a"]) is (len(children) == 2)

    lab.run(main)


def test_a_body_may_restart_a_child(lab):
    """R37: by options, in its own first life."""

    @workflow(idempotency_key=lambda what: what, error=Declined)
    async def child(what: str) -> str:
        return await step(what)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        return await child.options(on_duplicate="restart_if_failed").execute("a")

    async def main():
        broken.add("a")
        async with lab.engine([parent, child]) as engine:
            handle = await child.start("a")
            await fails(lab, handle)
            broken.clear()
            assert await lab.result(await parent.start("k")) == "a"
            assert await life(engine, handle.execution_id) == 2

    lab.run(main)


def test_the_start_of_a_restart_counts(lab):
    """R37: its payload, deadline and delay are those of the new life."""

    @workflow(idempotency_key=lambda key, what: key)
    async def two(key: str, what: str) -> str:
        if what == "bad":
            raise RuntimeError
        return what

    async def main():
        async with lab.engine([two]) as engine:
            handle = await two.start("k", "bad")
            await fails(lab, handle, Defect)
            options = two.options(on_duplicate="restart_if_failed", delay="1 hour", priority=4, attributes={"try": 2})
            await options.start("k", "good")
            await lab.skip("30 minutes")
            assert await handle.poll() == Suspended(None)
            info = await engine.describe(handle.execution_id)
            assert (info.priority, info.attributes, info.payload) == (4, {"try": 2}, {"key": "k", "what": "good"})
            assert await lab.result(handle) == "good"

    lab.run(main)


# Rewind -----------------------------------------------------------------------------------------------------------------


def test_rewind_goes_on_from_the_failed_step_and_keeps_what_worked(lab):
    """R37: when the bug is fixed, under the same id."""

    async def main():
        broken.add("b")
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await fails(lab, handle)
            broken.clear()
            await engine.rewind(handle.execution_id, to=1)
            assert await lab.result(handle) == "ab"
            assert done == ["a", "b", "b"]
            assert await life(engine, handle.execution_id) == 2

    lab.run(main)


def test_rewind_keeps_time_chance_and_what_had_come(lab):
    """R37, R38, R39: the body comes to that point as it did before."""
    seen: list[Any] = []

    @workflow(idempotency_key=lambda key: key)
    async def draws(key: str) -> str:
        value = await Signal
        await Inbox.receive()
        seen.append((value, str(uuid4()), random("x").random(), now(), execution_id()))
        await step("a")
        if broken:
            raise RuntimeError
        return value

    async def main():
        broken.add("body")
        async with lab.engine([draws]) as engine:
            handle = await draws.start("k")
            await lab.skip("5 minutes")
            await Signal.succeed(Signal.token_from_payload(workflow=draws, payload="k"), "value")
            await Inbox.send(handle.execution_id, "message")
            await lab.skip("5 minutes")
            await fails(lab, handle, Defect)
            broken.clear()
            await lab.skip("1 day")
            await engine.rewind(handle.execution_id, to=2)
            assert await lab.result(handle) == "value"
            assert len(set(seen)) == 1

    lab.run(main)


def test_a_rewound_execution_waits_as_any_other(lab):
    """R37: its mailbox is shorter than its past; still it comes to rest, and is woken by what comes."""

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        await note("begun")
        value = await Signal
        await sleep("2 hours")
        return value

    async def main():
        async with lab.engine([waits]) as engine:
            handle = await waits.start("k")
            await lab.settle()
            await handle.interrupt()
            await fails(lab, handle, Interrupted)
            await engine.rewind(handle.execution_id, to=1)
            await lab.settle()
            assert await handle.poll() == Suspended(None)
            await Signal.succeed(Signal.token_from_payload(workflow=waits, payload="k"), "value")
            await lab.skip("1 hour")
            assert await handle.poll() == Suspended(None)
            assert await lab.result(handle) == "value"
            assert done == ["begun"]

    lab.run(main)


def test_a_completion_that_came_after_the_point_comes_again(lab):
    """R18, R37: whoever has completed it was told that it counts."""

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        await step("a")
        value = await Signal
        await step("b")
        return value

    async def main():
        broken.add("b")
        async with lab.engine([waits]) as engine:
            handle = await waits.start("k")
            await lab.settle()
            await Signal.succeed(Signal.token_from_payload(workflow=waits, payload="k"), "value")
            await fails(lab, handle, Defect)
            broken.clear()
            await engine.rewind(handle.execution_id, to=1)
            assert await lab.result(handle) == "value"
            assert done == ["a", "b", "b"]

    lab.run(main)


def test_an_open_timer_keeps_its_due_time_when_it_is_rewound(lab):
    """R16, R37."""

    @workflow(idempotency_key=lambda key: key)
    async def naps(key: str) -> str:
        await asyncio.gather(sleep("10 hours", name="nap"), _twice_b())
        return "awake"

    async def _twice_b() -> None:
        await sleep("1 hour")
        await step("b")

    async def main():
        broken.add("b")
        async with lab.engine([naps]) as engine:
            began = lab.clock.now()
            handle = await naps.start("k")
            await lab.skip("2 hours")
            await fails(lab, handle, Defect)
            broken.clear()
            (timer,) = [entry for entry in await engine.journal(handle.execution_id) if entry.kind == "timer"]
            await engine.rewind(handle.execution_id, to=timer.seq)
            await lab.skip("1 hour")
            info = await engine.describe(handle.execution_id)
            assert info.wake_at == to_datetime(began) + timedelta(hours=10)
            assert await lab.result(handle) == "awake"

    lab.run(main)


def test_a_held_execution_can_be_rewound(lab):
    """R37: past a divergence, for example."""
    changed: list[str] = []

    @workflow(idempotency_key=lambda key: key)
    async def edited(key: str) -> str:
        first = await note("other" if changed else "first")
        await sleep("2 hours")
        return first

    async def main():
        async with lab.engine([edited]):
            handle = await edited.start("k")
            await lab.settle()
        changed.append("code")
        async with lab.engine([edited]) as engine:
            await lab.skip("3 hours")
            assert (await engine.describe(handle.execution_id)).held == "DIVERGENCE"
            await engine.rewind(handle.execution_id, to=0)
            assert await lab.result(edited.handle(handle.execution_id)) == "other"

    lab.run(main)


def test_children_that_wait_or_worked_are_joined_by_the_rewound_life(lab):
    """R37: who waits is written down anew."""

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> str:
        return await Signal

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        async def fragile() -> str:
            await sleep("1 hour")
            return await step("b")

        return list(await asyncio.gather(child.execute(key), fragile()))

    async def main():
        broken.add("b")
        async with lab.engine([parent, child]) as engine:
            other = await child.start("k")
            handle = await parent.start("k")
            await lab.skip("1 hour")
            await fails(lab, handle, Defect)
            broken.clear()
            journal = await engine.journal(handle.execution_id)
            timer = next(entry.seq for entry in journal if entry.kind == "timer")
            await engine.rewind(handle.execution_id, to=timer)
            await lab.settle()
            await Signal.succeed(Signal.token_from_payload(workflow=child, payload="k"), "child")
            assert await lab.result(handle) == ["child", "b"]
            assert await lab.result(other) == "child"

    lab.run(main)


@pytest.mark.parametrize("to", [0, 1, 2])
def test_what_patched_has_decided_by_the_point_stays_decided(lab, to):
    """R8a, R37, R49: also in the turn of the last entry, whose decision stands behind it; nobody goes back to the old way."""

    @workflow(idempotency_key=lambda key: key)
    async def goes(key: str) -> str:
        first = await note("new" if patched("first") else "old")
        await step(first + (" new" if patched("second") else " old"))
        return "there"

    async def main():
        async with lab.engine([goes]) as engine:
            handle = await goes.start("k")
            await lab.result(handle)
            journal = await engine.journal(handle.execution_id)
            assert [entry.kind for entry in journal] == ["patch", "activity", "patch", "activity"]
            done.clear()
            copy = goes.handle(await engine.fork(handle.execution_id, at=to))
            assert await lab.result(copy) == "there"
            for execution in (handle, copy):
                await engine.rewind(execution.execution_id, to=to)
                assert await lab.result(execution) == "there"
            assert done == (["new", "new new"] if to < 2 else ["new new"]) * 3

    lab.run(main)


def test_only_what_has_ended_or_is_held_can_be_rewound(lab):
    """R37."""

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        return await Never

    async def main():
        async with lab.engine([waits]) as engine:
            handle = await waits.start("k")
            await lab.settle()
            with pytest.raises(UsageError, match="only a finished or a held one"):
                await engine.rewind(handle.execution_id, to=0)

    lab.run(main)


def test_an_execution_that_succeeded_can_be_rewound_too(lab):
    """R37: what came out wrong is done again, as a new life."""

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            assert await lab.result(handle) == "ab"
            await engine.rewind(handle.execution_id, to=1)
            assert await lab.result(handle) == "ab"
            assert done == ["a", "b", "b"]

    lab.run(main)


def test_compensations_of_the_kept_steps_run_when_the_rewound_life_fails(lab):
    """R27, R37: it is the same execution; what it undid before it undoes again if it comes to that."""

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undone"))
        await step("b")

    async def main():
        broken.add("b")
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await fails(lab, handle)
            assert done == ["seat", "b", "undone"]
            await engine.rewind(handle.execution_id, to=1)
            await fails(lab, handle)
            assert done == ["seat", "b", "undone", "b", "undone"]

    lab.run(main)


# Fork -------------------------------------------------------------------------------------------------------------------


def test_a_fork_has_the_same_past_and_another_id(lab):
    """R49: entries up to the point, the seed; not compared, and not done again."""
    drawn: list[tuple[str, tuple[str, float]]] = []

    @workflow(idempotency_key=lambda key: key)
    async def draws(key: str) -> str:
        await note("a")
        drawn.append((execution_id(), (str(uuid4()), random().random())))
        await note("b")
        return execution_id()

    async def main():
        async with lab.engine([draws]) as engine:
            handle = await draws.start("k")
            assert await lab.result(handle) == handle.execution_id
            copy = await engine.fork(handle.execution_id, at=1)
            assert await lab.result(draws.handle(copy)) == copy != handle.execution_id
            assert done == ["a", "b", "b"]
            mine = {drawn_there for owner, drawn_there in drawn if owner == copy}
            assert len(mine) == 1
            assert mine == {drawn_there for owner, drawn_there in drawn if owner != copy}

    lab.run(main)


def test_the_activities_of_a_fork_have_keys_of_their_own(lab):
    """R14, R49."""
    keys: list[str] = []

    @activity
    async def keyed() -> None:
        keys.append(idempotency_key())

    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> None:
        await keyed()

    async def main():
        async with lab.engine([once]) as engine:
            handle = await once.start("k")
            await lab.result(handle)
            copy = await engine.fork(handle.execution_id, at=0)
            await lab.result(once.handle(copy))
            assert len(keys) == len(set(keys)) == 2

    lab.run(main)


def test_open_timers_of_a_fork_keep_their_due_times(lab):
    """R49: it does not wait longer than the original."""

    @workflow(idempotency_key=lambda key: key)
    async def naps(key: str) -> str:
        await note("begun")
        await sleep("10 hours", name="nap")
        return "awake"

    async def main():
        async with lab.engine([naps]) as engine:
            began = lab.clock.now()
            handle = await naps.start("k")
            await lab.skip("6 hours")
            at = len(await engine.journal(handle.execution_id))
            copy = await engine.fork(handle.execution_id, at=at)
            await lab.settle()
            assert (await engine.describe(copy)).wake_at == to_datetime(began) + timedelta(hours=10)
            assert await lab.result(naps.handle(copy)) == "awake"
            assert lab.clock.now() == began + 10 * 3_600_000
            assert done == ["begun"]

    lab.run(main)


def test_open_children_of_a_fork_are_joined_and_stay_the_originals(lab):
    """R31, R49: interrupting the copy leaves them."""

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> str:
        return await Signal

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await note("begun")
        return await child.execute(key)

    async def main():
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            at = len(await engine.journal(handle.execution_id))
            copy, other = [await engine.fork(handle.execution_id, at=at) for _ in range(2)]
            await lab.settle()
            await engine.interrupt(other)
            await fails(lab, parent.handle(other), Interrupted)
            await Signal.succeed(Signal.token_from_payload(workflow=child, payload="k"), "child")
            assert await lab.result(handle) == "child"
            assert await lab.result(parent.handle(copy)) == "child"
            assert done == ["begun"]

    lab.run(main)


def test_completions_that_came_later_are_not_copied(lab):
    """R49: those before the point are."""
    Other = DurableDeferred.make("other", success=str)

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        first = await Signal
        await note(first)
        return first + await Other

    async def main():
        async with lab.engine([waits]) as engine:
            handle = await waits.start("k")
            await lab.settle()
            await Signal.succeed(Signal.token_from_payload(workflow=waits, payload="k"), "one")
            await lab.settle()
            await Other.succeed(Other.token_from_payload(workflow=waits, payload="k"), "two")
            assert await lab.result(handle) == "onetwo"
            copy = await engine.fork(handle.execution_id, at=1)
            await lab.settle()
            assert await waits.handle(copy).poll() == Suspended(None)
            await Other.succeed(Other.token_from_execution_id(workflow=waits, execution_id=copy), "three")
            assert await lab.result(waits.handle(copy)) == "onethree"
            assert done == ["one", "one"]

    lab.run(main)


def test_the_tokens_of_a_fork_are_new(lab):
    """R19, R49: one of the original moves the original only."""
    tokens: dict[str, str] = {}

    @workflow(idempotency_key=lambda key: key)
    async def gives(key: str) -> str:
        await note("begun")
        tokens[execution_id()] = Signal.token()
        return await Signal

    async def main():
        async with lab.engine([gives], token_secret=SECRET) as engine:
            handle = await gives.start("k")
            await lab.settle()
            copy = await engine.fork(handle.execution_id, at=1)
            await lab.settle()
            assert tokens[copy] != tokens[handle.execution_id]
            await Signal.succeed(tokens[handle.execution_id], "original")
            assert await lab.result(handle) == "original"
            assert await gives.handle(copy).poll() == Suspended(None)
            await Signal.succeed(tokens[copy], "copy")
            assert await lab.result(gives.handle(copy)) == "copy"

    lab.run(main)


# The tokens that `asks` has given out, in all its turns, by execution.
asked: dict[str, set[str]] = {}
# What its code has become.
changed: set[str] = set()


@activity
async def tell(token: str, who: str) -> str:
    done.append(who)
    return who


@workflow(idempotency_key=lambda key: key)
async def asks(key: str) -> str:
    """Entry 1 is the token, entry 2 the step that was done with it; 3 and 4 come behind."""
    token = Signal.token(expires_in="30 days") if key == "signed" else Signal.token()
    asked.setdefault(execution_id(), set()).add(token)
    if "silent" not in changed:
        await tell(token, execution_id())
    await note("b" if "edited" not in changed else "c")
    return await Signal


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    asked.clear()
    changed.clear()


async def completes(handle, value: str) -> None:
    """Complete it by the token that its own body has given out."""
    (token,) = asked[handle.execution_id]
    assert await Signal.succeed(Token(token), value)


@pytest.mark.parametrize("secret", [None, SECRET], ids=["unsigned", "signed"])
def test_a_token_that_was_given_out_in_the_copied_part_is_made_anew(lab, secret):
    """R19, R49: it completes the fork and not the original, whichever worker runs it; nothing copied is done again."""
    options = {} if secret is None else {"token_secret": secret}

    async def main():
        async with lab.engine([asks], **options) as engine:
            handle = await asks.start("k")
            await lab.settle()
            copy = await engine.fork(handle.execution_id, at=2)
            await lab.settle()
        async with lab.engine([asks], **options) as engine:
            original, copy = asks.handle(handle.execution_id), asks.handle(copy)
            await completes(copy, "copy")
            assert await lab.result(copy) == "copy"
            assert await original.poll() == Suspended(None)
            await completes(original, "original")
            assert await lab.result(original) == "original"
            assert done == [handle.execution_id, "b", "b"]
            (token,) = asked[copy.execution_id]
            record = await lab.record(engine, copy.execution_id)
            parsed = TokenParsed.from_string(token)
            assert parsed.incarnation == (None if secret is None else record.incarnation.hex())
            assert parsed.execution_id == copy.execution_id

    lab.run(main)


def test_a_token_is_made_anew_with_today_s_key_and_expires_when_it_did(lab):
    """R19, R49: a copy makes no permission longer; and where nothing is signed any more, nothing expires."""

    async def main():
        async with lab.engine([asks], token_secret=SECRET):
            handle = await asks.start("signed")
            await lab.settle()
        (old,) = map(TokenParsed.from_string, asked[handle.execution_id])
        async with lab.engine(
            [asks], token_secret={"2027": "another secret of enough bytes", "default": SECRET}
        ) as engine:
            await lab.skip("1 day")
            copy = await engine.fork(handle.execution_id, at=2)
            await lab.settle()
            (new,) = map(TokenParsed.from_string, asked[copy])
            assert (old.key_id, new.key_id) == ("default", "2027")
            assert old.expires_at == new.expires_at
            await completes(asks.handle(copy), "copy")
        async with lab.engine([asks]) as engine:
            copy = await engine.fork(handle.execution_id, at=2)
            await lab.settle()
            (new,) = map(TokenParsed.from_string, asked[copy])
            assert (new.key_id, new.expires_at) == (None, None)

    lab.run(main)


def test_the_tokens_of_others_and_verdicts_are_copied_as_they_are(lab):
    """R42, R49: what a body has found out, and another execution's address, are no token of the original's."""
    said: set[tuple[str, str]] = set()

    @workflow(idempotency_key=lambda key, token: key)
    async def answers(key: str, token: Token) -> str:
        said.add((Signal.token_from_execution_id(workflow=asks, execution_id="0" * 32), token))
        await Signal.succeed(token, "value")
        await note("a")
        return "done"

    async def main():
        async with lab.engine([asks, answers], token_secret=SECRET) as engine:
            await asks.start("k")
            await lab.settle()
            (token,) = asked[asks.execution_id("k")]
            handle = await answers.start("a", Token(token))
            assert await lab.result(handle) == "done"
        async with lab.engine([asks, answers]) as engine:
            before = await engine.journal(handle.execution_id)
            assert [entry.kind for entry in before] == ["token", "token", "sent", "activity"]
            copy = await engine.fork(handle.execution_id, at=3)
            assert await lab.result(answers.handle(copy)) == "done"
            assert [entry.exit for entry in (await engine.journal(copy))[:3]] == [entry.exit for entry in before[:3]]
            assert len(said) == 1

    lab.run(main)


def test_a_worker_that_dies_leaves_the_fork_uncompared_to_the_next_one(lab):
    """R49: what tells where the copied part ends stands in the journal."""

    async def main():
        async with lab.engine([asks]):
            handle = await asks.start("k")
            await lab.settle()
        async with lab.doomed([asks]) as engine:
            copy = await engine.fork(handle.execution_id, at=2)
            lab.probe(engine).hold("commit", before=True)
            await lab.settle()
        async with lab.engine([asks]):
            await completes(asks.handle(copy), "copy")
            assert await lab.result(asks.handle(copy)) == "copy"
            assert done == [handle.execution_id, "b", "b", "b"]  # that of the worker that died is made again

    lab.run(main)


@pytest.mark.parametrize("to", [0, 1, 2, 3])
def test_a_rewound_fork_is_a_fork_still(lab, to):
    """R37, R49: what is left of the copied part is the original's to undo, and is not compared; the rest is the fork's own."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        await with_compensation(tell("", execution_id()), lambda value, cause: note("undo"))
        await note(execution_id())
        await step("b")
        return "there"

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            assert await lab.result(handle) == "there"
            copy = await engine.fork(handle.execution_id, at=2)
            assert await lab.result(trip.handle(copy)) == "there"
            assert done == [handle.execution_id, handle.execution_id, "b", "b"]
            done.clear()
            broken.add("b")
            await engine.rewind(copy, to=to)
            await fails(lab, trip.handle(copy), Defect)
            assert done == [*[copy] * (2 - min(to, 2)), "b", *(["undo"] if to == 0 else [])]

    lab.run(main)


def test_a_rewound_fork_of_a_fork_undoes_what_neither_was_to_undo_as_little_as_before(lab):
    """R37, R49: each mark that the rewind has passed stands behind what is left."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undo seat"))
        await with_compensation(note("car"), lambda value, cause: note("undo car"))
        await step("b")

    async def main():
        broken.add("b")
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await fails(lab, handle, Defect)
            first = trip.handle(await engine.fork(handle.execution_id, at=1))
            await fails(lab, first, Defect)
            second = trip.handle(await engine.fork(first.execution_id, at=3, compensations=True))
            done.clear()
            await fails(lab, second, Defect)
            assert done == ["b", "undo car"]
            await engine.rewind(second.execution_id, to=1)
            done.clear()
            await fails(lab, second, Defect)
            assert done == ["car", "b", "undo car"]

    lab.run(main)


def test_a_fork_of_a_fork_compares_nothing_of_what_it_has_copied(lab):
    """R49: neither what the first had copied nor what it had done itself."""

    async def main():
        async with lab.engine([asks], token_secret=SECRET) as engine:
            handle = await asks.start("k")
            await lab.settle()
            first = await engine.fork(handle.execution_id, at=2, compensations=True)
            await lab.settle()
            journal = await engine.journal(first)
            assert [entry.name for entry in journal] == ["signal", "tell", "fork", "note"]
            second = await engine.fork(first, at=4)
            changed.add("edited")
            await lab.settle()
            await completes(asks.handle(second), "second")
            assert await lab.result(asks.handle(second)) == "second"
            assert done == [handle.execution_id, "b", "b"]

    lab.run(main)


def test_a_fork_has_the_value_that_its_copied_part_has_kept(lab):
    """R20, R49: a body completes its own deferred once, also where the point lies before it has read that."""

    @workflow(idempotency_key=lambda key: key)
    async def keeps(key: str) -> str:
        await Signal.into(note("kept"))
        return await Signal

    async def main():
        async with lab.engine([keeps]) as engine:
            handle = await keeps.start("k")
            assert await lab.result(handle) == "kept"
            [into] = [entry.seq for entry in await engine.journal(handle.execution_id) if entry.name == "into:signal"]
            copy = await engine.fork(handle.execution_id, at=into)
            assert await lab.result(keeps.handle(copy)) == "kept"
            assert done == ["kept"]

    lab.run(main)


@workflow(idempotency_key=lambda key, how: key)
async def tells_itself(key: str, how: str) -> str:
    if how == "completes":
        await Signal.succeed(Signal.token(), "mine")
    else:
        await Inbox.send(execution_id(), "mine", "an id" if how == "sends by id" else None)
    await note("told")
    value = await (Signal if how == "completes" else Inbox.receive())
    await step("b")
    return value


HOW = pytest.mark.parametrize("how", ["completes", "sends", "sends by id"])


@HOW
def test_a_fork_has_what_its_copied_part_has_sent_itself(lab, how):
    """R42, R49: it is not sent once more, also where the point lies before it was read; so in a fork of a fork."""

    async def main():
        async with lab.engine([tells_itself]) as engine:
            handle = await tells_itself.start("k", how)
            assert await lab.result(handle) == "mine"
            for at in range(len(await engine.journal(handle.execution_id)) + 1):
                copy = await engine.fork(handle.execution_id, at=at)
                assert await lab.result(tells_itself.handle(copy)) == "mine", at
                second = await engine.fork(copy, at=at)
                assert await lab.result(tells_itself.handle(second)) == "mine", at

    lab.run(main)


@HOW
def test_a_fork_of_a_rewound_life_has_what_an_earlier_life_has_sent_itself(lab, how):
    """R42, R49: also without an id of its own, known by a step of that life."""

    async def main():
        broken.add("b")
        async with lab.engine([tells_itself]) as engine:
            handle = await tells_itself.start("k", how)
            await fails(lab, handle, Defect)
            broken.clear()
            [sent] = [entry.seq for entry in await engine.journal(handle.execution_id) if entry.kind == "sent"]
            await engine.rewind(handle.execution_id, to=sent)
            assert await lab.result(handle) == "mine"
            copy = await engine.fork(handle.execution_id, at=sent)
            assert await lab.result(tells_itself.handle(copy)) == "mine"

    lab.run(main)


@HOW
def test_a_fork_has_nothing_that_its_copied_part_has_sent_to_others(lab, how):
    """R49: nor what others have sent to the original."""

    @workflow(idempotency_key=lambda key: key)
    async def tells(key: str) -> str:
        if how == "completes":
            await Signal.succeed(Signal.token_for(tells_itself, "other", ""), "theirs")
        else:
            await Inbox.send(
                tells_itself.execution_id("other", ""), "theirs", "an id" if how == "sends by id" else None
            )
        return await (Signal if how == "completes" else Inbox.receive())

    async def main():
        async with lab.engine([tells, tells_itself]) as engine:
            await tells_itself.start("other", "waits")
            handle = await tells.start("k")
            await lab.settle()
            [sent] = [entry.seq for entry in await engine.journal(handle.execution_id) if entry.kind == "sent"]
            if how == "completes":
                await Signal.succeed(handle.token(Signal), "value")
            else:
                await Inbox.send(handle.execution_id, "value", "an id")
            assert await lab.result(handle) == "value"
            copy = tells.handle(await engine.fork(handle.execution_id, at=sent))
            await lab.settle()
            assert await copy.status() is Status.SUSPENDED

    lab.run(main)


@pytest.mark.parametrize("at", [2, 3, 4], ids=["begun", "failed", "held"])
def test_a_compensation_that_is_under_way_is_the_originals(lab, at):
    """R49: a fork in the middle of it neither goes on with it nor tries it again where it has failed; finalizers run."""

    async def undo(value: str, cause: object) -> None:
        await note("undo 1")
        await step("undo 2")

    async def leave(exit: object) -> None:
        await note("left")

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        await add_finalizer(leave)
        await with_compensation(note("a"), undo)
        raise ValueError("no way")

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            broken.add("undo 2")
            await lab.settle()
            names = [entry.name for entry in await engine.journal(handle.execution_id)]
            assert names == ["note", "note", "step", "held"]
            done.clear()
            copy = await engine.fork(handle.execution_id, at=at)
            await fails(lab, trip.handle(copy), Defect)
            assert done == ["left"]

    lab.run(main)


def test_a_completion_that_comes_while_one_that_is_held_is_rewound_is_not_lost(lab):
    """R18, R37: it was acknowledged, so the next life has it, also where it came when the mailbox had been read."""

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def held(key: str) -> str:
        await step("b")
        return await Signal

    async def main():
        async with lab.engine([held]) as engine:
            broken.add("b")
            handle = await held.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "FAILURE"
            broken.clear()
            renewal = lab.probe(engine).hold("renew", before=True)
            rewinding = asyncio.create_task(engine.rewind(handle.execution_id, to=0))
            await until(lambda: renewal.kept)
            token = Signal.token_from_execution_id(workflow=held, execution_id=handle.execution_id)
            assert await Signal.succeed(token, "late")
            renewal.release()
            await rewinding
            assert await lab.result(handle) == "late"

    lab.run(main)


def test_time_does_not_go_back_in_a_rewound_fork(lab):
    """R37, R49: mail that is kept is from before the point at which the fork was made."""

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> str:
        value = await Signal
        await sleep("1 hour")
        return value

    async def main():
        async with lab.engine([waits]) as engine:
            handle = await waits.start("k")
            token = Signal.token_from_execution_id(workflow=waits, execution_id=handle.execution_id)
            await Signal.succeed(token, "early")
            assert await lab.result(handle) == "early"
            last = (await engine.journal(handle.execution_id))[-1].seq
            copy = await engine.fork(handle.execution_id, at=last)
            assert await lab.result(waits.handle(copy)) == "early"
            await engine.rewind(copy, to=0)
            assert await lab.result(waits.handle(copy)) == "early"
            at = [entry.at for entry in await engine.journal(copy)]
            assert at == sorted(at)

    lab.run(main)


def test_what_a_fork_has_done_itself_is_compared_as_ever(lab):
    """R8, R49."""

    async def main():
        async with lab.engine([asks]) as engine:
            handle = await asks.start("k")
            await lab.settle()
            copy = await engine.fork(handle.execution_id, at=2)
            await lab.settle()
        changed.add("edited")
        async with lab.engine([asks]) as engine:
            await completes(asks.handle(copy), "copy")
            await lab.settle()
            info = await engine.describe(copy)
            assert info.held == "DIVERGENCE"
            assert "note" in str(info.cause)

    lab.run(main)


def test_a_copied_step_that_today_s_code_does_not_ask_for_holds_nobody(lab):
    """R49: and it is given to no step behind the copied part."""

    async def main():
        async with lab.engine([asks]) as engine:
            handle = await asks.start("k")
            await lab.settle()
            changed.update({"silent", "edited"})
            copy = await engine.fork(handle.execution_id, at=3)
            await lab.settle()
            await completes(asks.handle(copy), "copy")
            assert await lab.result(asks.handle(copy)) == "copy"
            assert done == [handle.execution_id, "b"]
            copy = await engine.fork(handle.execution_id, at=2)
            await lab.settle()
            assert done == [handle.execution_id, "b", "c"]
            assert await asks.handle(copy).poll() == Suspended(None)

    lab.run(main)


def test_a_fork_replays_as_it_ran(lab):
    """R7, R49: what is not compared on the way is no difference to `verify_replay` either."""

    async def main():
        async with lab.engine([asks, orders, parcel], token_secret=SECRET) as engine:
            changed.add("named")
            for flow, at in ((asks, 2), (orders, 5)):
                handle = await flow.start("k")
                await lab.settle()
                copy = flow.handle(await engine.fork(handle.execution_id, at=at, compensations=flow is orders))
                await lab.settle()
                await verify_replay(engine, copy.execution_id, processes=0)
                token = Signal.token_from_execution_id(workflow=flow, execution_id=copy.execution_id)
                await Signal.succeed(token, "value")
                await lab.result(copy)
                await verify_replay(engine, copy.execution_id, processes=0)
                await engine.rewind(copy.execution_id, to=at)
                await lab.settle()
                await verify_replay(engine, copy.execution_id, processes=0)

    lab.run(main)


# Children without a key ---------------------------------------------------------------------------------------------------


@workflow
async def parcel(what: str) -> str:
    done.append(what.removeprefix(execution_id()))
    return what


@workflow(idempotency_key=lambda key: key)
async def orders(key: str) -> str:
    """Entries 1 and 2 are the child's start and end, 3 is a detached start, 4 a step, 5 one more child's start."""
    what = execution_id() if "named" in changed else "a"
    await parcel.execute(what)
    await parcel.start("detached")
    await note("x")
    waiting = asyncio.create_task(parcel.execute("later"))
    await step("b" if key != "waits" else await Signal)
    return await waiting


async def parcels(engine) -> int:
    return len([info async for info in engine.executions(workflow="parcel")])


@pytest.mark.parametrize("to", [2, 3, 4])
def test_children_without_a_key_that_a_rewind_has_kept_are_not_started_again(lab, to):
    """R1, R37: their ids are of the life that started them; one that comes behind the point is another one."""

    async def main():
        broken.add("b")
        async with lab.engine([orders, parcel]) as engine:
            handle = await orders.start("k")
            await fails(lab, handle, Defect)
            await lab.settle()
            assert await parcels(engine) == 3
            assert sorted({*done} - {"later"}) == ["a", "b", "detached", "x"]  # that one may be interrupted unseen
            done.clear()
            broken.clear()
            await engine.rewind(handle.execution_id, to=to)
            assert await lab.result(handle) == "later"
            await lab.settle()
            expected = ["b", "later", *(["x"] if to < 4 else []), *(["detached"] if to < 3 else [])]
            assert sorted(done) == sorted(expected)

    lab.run(main)


def test_an_open_child_without_a_key_stays_the_child_of_every_rewound_life(lab):
    """R31, R37: the end of its parent has interrupted it; it is restarted under its id, as any other."""

    @workflow
    async def waits(what: str) -> str:
        return await Signal

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        waiting = asyncio.create_task(waits.execute("a"))
        await note("x")
        await step("b")
        return await waiting

    async def main():
        broken.add("b")
        async with lab.engine([parent, waits]) as engine:
            handle = await parent.start("k")
            await fails(lab, handle, Defect)
            (child,) = [info.execution_id async for info in engine.executions(workflow="waits")]
            for lives in (2, 3):
                await engine.rewind(handle.execution_id, to=2)
                await fails(lab, handle, Defect)
                assert await life(engine, child) == lives
            broken.clear()
            await engine.rewind(handle.execution_id, to=2)
            await lab.settle()
            await Signal.succeed(Signal.token_from_execution_id(workflow=waits, execution_id=child), "child")
            assert await lab.result(handle) == "child"
            assert done == ["x", "b", "b", "b", "b"]

    lab.run(main)


def test_another_payload_is_another_child_also_in_what_a_rewind_has_kept(lab):
    """R8, R37: the kept part is compared as ever, and whoever is held by that starts nobody."""

    async def main():
        broken.add("b")
        async with lab.engine([orders, parcel]) as engine:
            handle = await orders.start("k")
            await fails(lab, handle, Defect)
            await lab.settle()
            before = await parcels(engine)
            changed.add("named")
            await engine.rewind(handle.execution_id, to=4)
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "DIVERGENCE"
            assert await parcels(engine) == before

    lab.run(main)


def test_children_without_a_key_are_the_original_s_in_the_copied_part(lab):
    """R31, R49: also with the execution's own id in their payload; one that comes behind is the fork's own."""
    changed.add("named")

    async def main():
        async with lab.engine([orders, parcel]) as engine:
            handle = await orders.start("waits")
            await lab.settle()
            assert await parcels(engine) == 3
            for at, more in ((5, 0), (4, 1), (2, 2)):
                before = await parcels(engine)
                copy = orders.handle(await engine.fork(handle.execution_id, at=at))
                await lab.settle()
                token = Signal.token_from_execution_id(workflow=orders, execution_id=copy.execution_id)
                await Signal.succeed(token, "value")
                assert await lab.result(copy) == "later"
                assert await parcels(engine) == before + more

    lab.run(main)


@pytest.mark.parametrize("on_mismatch", ["warn", "raise"])
def test_the_payloads_of_children_in_the_copied_part_are_not_compared(lab, log, on_mismatch):
    """R2, R49: open or ended, a child is the one that the journal has."""

    @workflow(idempotency_key=lambda key, who: key, on_mismatch=on_mismatch)
    async def child(key: str, who: str) -> str:
        return await Signal

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await note("begun")
        value = await child.execute("c", execution_id())
        await note("told")
        return value

    async def main():
        async with lab.engine([parent, child]) as engine:
            handle = await parent.start("k")
            await lab.settle()
            begun = await engine.journal(handle.execution_id)
            early = parent.handle(await engine.fork(handle.execution_id, at=len(begun)))
            await lab.settle()
            await Signal.succeed(Signal.token_for(child, "c", "whoever"), "child")
            assert await lab.result(handle) == await lab.result(early) == "child"
            late = parent.handle(await engine.fork(handle.execution_id, at=len(begun) + 1))
            assert await lab.result(late) == "child"
            assert done == ["begun", "told", "told", "told"]
            assert "another payload" not in log.text

    lab.run(main)


@pytest.mark.parametrize("compensations", [False, True])
def test_compensations_of_the_prefix_are_off_unless_asked_for(lab, compensations):
    """R49: what the copied steps have done is the original's to undo; what the copy does itself is its own."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await add_finalizer(lambda _: note("final"))
        await with_compensation(note("seat"), lambda value, cause: note("undo seat"))
        await with_compensation(note("car"), lambda value, cause: note("undo car"))
        raise RuntimeError

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await fails(lab, handle, Defect)
            done.clear()
            copy = await engine.fork(handle.execution_id, at=1, compensations=compensations)
            await fails(lab, trip.handle(copy), Defect)
            assert done == ["car", "undo car", *(["undo seat"] if compensations else []), "final"]

    lab.run(main)


def test_compensations_that_are_off_stay_off_after_a_restart(lab):
    """R49: it stands in the copy's journal."""

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> None:
        await with_compensation(note("seat"), lambda value, cause: note("undo seat"))
        await sleep("2 hours")
        raise RuntimeError

    async def main():
        async with lab.engine([trip]) as engine:
            handle = await trip.start("k")
            await lab.settle()
            copy = await engine.fork(handle.execution_id, at=1)
            await lab.settle()
        async with lab.engine([trip]):
            await fails(lab, trip.handle(copy), Defect)
            await fails(lab, trip.handle(handle.execution_id), Defect)
            assert done == ["seat", "undo seat"]

    lab.run(main)


def test_a_fork_of_a_running_execution_goes_its_own_way(lab):
    """R49: the original is not disturbed."""
    gate = Gate()

    @activity
    async def slow() -> str:
        await gate.wait()
        return "slow"

    @workflow(idempotency_key=lambda key: key)
    async def runs(key: str) -> str:
        return await note("a") + await slow()

    async def main():
        async with lab.engine([runs]) as engine:
            handle = await runs.start("k")
            await lab.settle()
            copy = await engine.fork(handle.execution_id, at=1)
            await lab.settle()
            assert gate.entered == 2
            gate.open()
            assert await lab.result(handle) == "aslow"
            assert await lab.result(runs.handle(copy)) == "aslow"
            assert done == ["a"]

    lab.run(main)


@pytest.mark.parametrize("how", ["fork", "start"])
def test_who_was_not_told_that_it_is_begun_is_told_so_though_it_has_another_life_since(lab, how):
    """R37, R49: what is there is what was asked for; sent again, it is known as that, and is no duplicate."""

    async def main():
        async with lab.engine([work]) as engine:
            original = await work.start("original")
            assert await lab.result(original) == "ab"
            probe = lab.probe(engine)
            hold = probe.hold("commit")
            probe.fail("commit", written=True)
            copy = "5" * 32
            if how == "fork":
                beginning = asyncio.ensure_future(engine.fork(original.execution_id, at=1, new_id=copy))
            else:
                late = work.options(execution_id=copy, delay="1 hour", on_duplicate="reject")
                beginning = asyncio.ensure_future(late.start("late"))
            await until(lambda: hold.kept == 1)
            await engine.interrupt_unsafe(copy)
            await engine.rewind(copy, to=0)
            hold.release()
            begun = await lab.finish(beginning)
            assert copy == (begun if how == "fork" else begun.execution_id)
            assert await life(engine, copy) == 2
            assert await lab.result(work.handle(copy)) == "ab"

    lab.run(main)


# Going on as new ----------------------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key, n: key)
async def counts(key: str, n: int) -> int:
    await note(str(n))
    if n < 20:
        continue_as_new(key, n + 1)
    return n


def test_a_loop_that_goes_on_as_new_has_a_bounded_journal(lab):
    """R37."""

    async def main():
        async with lab.engine([counts]) as engine:
            handle = await counts.start("k", 0)
            assert await lab.result(handle) == 20
            assert done == [str(n) for n in range(21)]
            assert len(await engine.journal(handle.execution_id)) == 1
            info = await engine.describe(handle.execution_id)
            assert (info.incarnation, info.payload) == (21, {"key": "k", "n": 20})
            lives = await lab.probe(engine).inner.lives(handle.execution_id)
            assert [(one.number, one.status) for one in lives] == [(n, Status.SUCCEEDED) for n in range(1, 21)]

    lab.run(main)


@pytest.mark.parametrize("where", ["it is in hand", "it is another worker's", "it is over"])
def test_what_a_life_was_begun_with_is_no_other_payload(lab, log, where):
    """R2, R37: whichever it was; of one that none was begun with, each who brings it hears, also of many at once."""
    gate = Gate()

    @activity
    async def pauses() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key, n: key)
    async def loops(key: str, n: int) -> int:
        if n < 3:
            continue_as_new(key, n + 1)
        await pauses()
        return n

    async def main():
        async with lab.engine([loops]) as first, lab.engine([loops]) as second:
            handle = await first.start(loops, "k", 0)
            await lab.settle()
            if where == "it is over":
                gate.open()
                await lab.settle()
            owner, other = first, second
            if handle.execution_id in lab.service(second).runners:
                owner, other = second, first
            asked = other if where == "it is another worker's" else owner
            starts = [asyncio.ensure_future(asked.start(loops, "k", n)) for n in (7, 0, 2, 3, 0, 7)]
            for start in starts:
                assert (await lab.finish(start)).execution_id == handle.execution_id
            said = [one.getMessage() for one in log.records if "another payload" in one.getMessage()]
            assert len(said) == 2
            assert all("(n differ(s))" in one for one in said)
            with pytest.raises(ExecutionExistsError):
                await lab.finish(asked.start(loops.options(on_duplicate="reject"), "k", 3))
            gate.open()
            assert await lab.result(handle) == 3

    lab.run(main)


def test_messages_and_completions_that_nobody_has_taken_go_over(lab):
    """R37, R48."""

    @workflow(idempotency_key=lambda key, got: key)
    async def collects(key: str, got: list[str]) -> list[str]:
        got = [*got, await Inbox.receive()]
        if len(got) < 4:
            await sleep("1 hour")
            continue_as_new(key, got)
        return [*got, await Signal]

    async def main():
        async with lab.engine([collects]):
            handle = await collects.start("k", [])
            for number in range(4):
                await Inbox.send(handle.execution_id, str(number))
            await lab.settle()
            token = Signal.token_from_execution_id(workflow=collects, execution_id=handle.execution_id)
            await Signal.succeed(token, "end")
            assert await lab.result(handle) == ["0", "1", "2", "3", "end"]

    lab.run(main)


def test_an_interrupt_that_comes_while_it_goes_on_as_new_ends_the_next_life(lab):
    """R29, R37: it is asked of the execution, not of one of its lives."""

    @workflow(idempotency_key=lambda key, n: key)
    async def for_ever(key: str, n: int) -> None:
        await note(str(n))
        if n:
            await Never
        continue_as_new(key, n + 1)

    async def main():
        async with lab.engine([for_ever]) as engine:
            handle = await for_ever.start("k", 0)
            kept = lab.probe(engine).hold("commit", before=True)
            await lab.settle()
            await handle.interrupt()
            kept.release()
            await fails(lab, handle, Interrupted)

    lab.run(main)


def test_a_completion_that_comes_while_it_goes_on_as_new_is_the_next_life_s(lab):
    """R18, R37: whoever has completed it was told that it counts."""

    @workflow(idempotency_key=lambda key, n: key)
    async def twice(key: str, n: int) -> str:
        await note(str(n))
        if n == 0:
            continue_as_new(key, 1)
        return await Signal

    async def main():
        async with lab.engine([twice]) as engine:
            handle = await twice.start("k", 0)
            kept = lab.probe(engine).hold("commit", before=True)
            await lab.settle()
            token = Signal.token_from_execution_id(workflow=twice, execution_id=handle.execution_id)
            assert await Signal.succeed(token, "value")
            kept.release()
            assert await lab.result(handle) == "value"

    lab.run(main)


def test_whoever_waits_for_it_waits_for_its_last_life(lab):
    """R31, R37: callers and parents alike."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> int:
        return await counts.execute(key, 17)

    async def main():
        async with lab.engine([parent, counts]):
            handle = await parent.start("k")
            assert await lab.result(handle) == 20
            assert await lab.finish(counts.execute("k", 17)) == 20

    lab.run(main)


def test_what_was_said_at_the_start_stays(lab):
    """R37: attributes, priority, deadline, id and key."""

    @workflow(idempotency_key=lambda key, n: key)
    async def twice(key: str, n: int) -> None:
        if n == 0:
            continue_as_new(key, 1)
        await Never

    async def main():
        async with lab.engine([twice]) as engine:
            began = lab.clock.now()
            options = twice.options(priority=3, attributes={"customer": "ada"}, deadline="5 hours")
            handle = await options.start("k", 0)
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.incarnation, info.key) == (2, "k")
            assert (info.priority, info.attributes) == (3, {"customer": "ada"})
            assert info.deadline == to_datetime(began) + timedelta(hours=5)
            await lab.skip("5 hours")
            assert await handle.status() is Status.FAILED

    lab.run(main)


@pytest.mark.parametrize("what", ["finalizer", "compensation", "running step"])
def test_going_on_as_new_is_refused_where_something_stands_on_the_stack(lab, what):
    """R27, R37: the next life would know nothing of it."""
    gate = Gate()
    kept: list[asyncio.Task[Any]] = []

    @activity
    async def slow() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def careless(key: str) -> str:
        if what == "finalizer":
            await add_finalizer(lambda _: note("final"))
        elif what == "compensation":
            await with_compensation(note("seat"), lambda value, cause: note("undone"))
        else:
            kept.append(asyncio.create_task(with_compensation(slow(), lambda value, cause: note("undone"))))
            await note("beside it")
        try:
            continue_as_new(key)
        except UsageError:
            return "refused"

    async def main():
        async with lab.engine([careless]):
            handle = await careless.start("k")
            await lab.settle()
            gate.open()
            assert await lab.result(handle) == "refused"
            kept.clear()

    lab.run(main)


@pytest.mark.parametrize("ended", [True, False])
def test_what_is_registered_behind_it_is_run_and_the_next_life_does_not_begin(lab, ended):
    """R27, R37: in a `finally`; it would be lost, so the execution ends with an error that says so."""
    gate = Gate()

    @activity
    async def slow() -> str:
        await gate.wait()
        return "seat"

    @workflow(idempotency_key=lambda key: key)
    async def careless(key: str) -> None:
        try:
            continue_as_new(key)
        finally:
            step = with_compensation(slow(), lambda value, cause: note("undone"))
            if ended:
                await step
            else:
                begin(step)
                await note("beside it")

    async def main():
        async with lab.engine([careless]) as engine:
            handle = await careless.start("k")
            await lab.settle()
            gate.open()
            with pytest.raises(Defect, match="go on as new"):
                await lab.result(handle)
            assert done[-1] == "undone"
            assert await life(engine, handle.execution_id) == 1

    lab.run(main)


def test_except_exception_does_not_keep_it_back(lab):
    """R37: what leaves the body is no error; `finally` runs, and its activities too."""

    @workflow(idempotency_key=lambda key, n: key)
    async def guarded(key: str, n: int) -> int:
        try:
            if n == 0:
                continue_as_new(key, 1)
        except Exception:  # noqa: BLE001 - that it is not caught here is what is tested
            return -1
        finally:
            await note(f"finally {n}")
        return n

    async def main():
        async with lab.engine([guarded]):
            assert await lab.result(await guarded.start("k", 0)) == 1
            assert done == ["finally 0", "finally 1"]

    lab.run(main)


def test_a_worker_that_dies_at_any_commit_of_a_loop_leaves_it_to_the_next_one(memory_lab):
    """R37: every life is lived once."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key, n: key)
    async def loops(key: str, n: int) -> int:
        await note(f"{key}: {n}")
        await sleep("1 hour")
        if n < 2:
            continue_as_new(key, n + 1)
        return n

    async def check(engine, key, came_to):
        assert came_to == 2
        assert await life(engine, loops.execution_id(key, 0)) == 3
        mine = [what for what in done if what.startswith(key)]
        assert list(dict.fromkeys(mine)) == [f"{key}: {n}" for n in range(3)]

    async def main():
        assert await died_at_each_commit(lab, [loops], lambda key: loops.execute(key, 0), check) >= 6

    lab.run(main)


def test_a_body_interrupted_by_nobody_goes_on_for_many_lives(lab):
    """R37: the journals of earlier lives are not read again."""

    @workflow(idempotency_key=lambda key, n: key)
    async def spins(key: str, n: int) -> int:
        if n < 40:
            continue_as_new(key, n + 1)
        return n

    async def main():
        async with lab.engine([spins]) as engine:
            handle = await spins.start("k", 0)
            assert await lab.result(handle) == 40
            assert await life(engine, handle.execution_id) == 41
            assert await handle.poll() == Complete(Success(40))

    lab.run(main)
