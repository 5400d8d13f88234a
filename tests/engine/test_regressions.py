"""What other systems got wrong, and must not happen here: each entry of that list is a test, or several, on the real engine.

Most of these promises are proved at length elsewhere; here each is met once more, from another side. One entry has no
test yet: that the ids of one queue never shadow another's comes with queues (R23, R25).
"""

import asyncio
import base64
import contextlib
import string
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import apsw
import pytest

from perdure import (
    Activity,
    Complete,
    Defect,
    DefinitionError,
    DurableChannel,
    DurableDeferred,
    ExecutionInfo,
    ExecutionNotFoundError,
    ExecutionTimeoutError,
    RetryAfter,
    Schedule,
    Status,
    StoreUnavailableError,
    Token,
    TokenError,
    UsageError,
    WorkflowEngine,
    activity,
    add_finalizer,
    current_attempt,
    execution_id,
    heartbeat,
    last_heartbeat,
    publish,
    race_all,
    set_attributes,
    sleep,
    with_compensation,
    workflow,
)
from perdure._model.clock import SystemClock
from perdure._model.journal import Kind
from perdure.errors import StoreError

from tests.engine import journals
from tests.engine.lab import Gate, Lab, ThreadGate

Approval = DurableDeferred.make("approval", success=str)
Answer = DurableDeferred.make("answer", success=int)
Letters = DurableChannel.make("letters", str)
Amounts = DurableChannel.make("amounts", int)

# What activities have done, in order.
done: list[str] = []


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done yet; and the engine's pauses between two tries are real, and nobody recovers in them here."""
    done.clear()
    for module in ("patience", "wakes"):
        monkeypatch.setattr(f"perdure._engine.{module}.PAUSE_S", 0)
    monkeypatch.setattr("perdure._engine.committer.FIRST_PAUSE_S", 1e-6)
    monkeypatch.setattr("perdure._engine.committer.LONGEST_PAUSE_S", 1e-5)


@activity
async def note(what: str) -> str:
    done.append(what)
    return what


@workflow(idempotency_key=lambda key: key)
async def notes(key: str) -> str:
    return await note(key)


@workflow(idempotency_key=lambda key: key)
async def request(key: str) -> str:
    return await Approval


# A wake lost when a completion lands while the suspension is being written ------------------------------


@workflow(idempotency_key=lambda kind: kind)
async def waits(kind: str) -> str:
    """Wait for one sort of mail."""
    if kind == "deferred":
        return await Approval
    if kind == "message":
        return await Letters.receive()
    try:
        await sleep("1 day")
    except asyncio.CancelledError:
        return "ada"
    return "nobody"


async def completes(engine: WorkflowEngine, execution_id: str) -> None:
    assert await Approval.succeed(Approval.token_for(waits, "deferred"), "ada", engine=engine)


async def sends(engine: WorkflowEngine, execution_id: str) -> None:
    await Letters.send(execution_id, "ada", engine=engine)


async def interrupts(engine: WorkflowEngine, execution_id: str) -> None:
    await engine.interrupt(execution_id)


LANDS = {"deferred": completes, "message": sends, "interrupt": interrupts}


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("kind", LANDS)
def test_no_wake_is_lost_when_mail_lands_while_the_suspension_is_being_written(file_lab: Lab, kind: str, before: bool):
    """R18, R29, R48: whatever sort of mail, and from another process, which can tell this one nothing."""
    lab = file_lab

    async def main():
        async with lab.engine([waits]) as worker, lab.engine() as client:
            handle = await waits.options(delay="1 second", engine=worker).start(kind)
            hold = lab.probe(worker).hold("commit", before=before)
            await lab.skip("1 second")
            assert hold.kept == 1
            assert lab.probe(worker).commits[-1].status is Status.SUSPENDED
            await LANDS[kind](client, handle.execution_id)
            hold.release()
            # The time in which a worker looks by itself; a day later the third of them would end anyhow.
            await lab.skip("10 seconds")
            assert await handle.poll() is not None
            assert await handle.status() is Status.SUCCEEDED
            assert await handle.result() == "ada"

    lab.run(main)


# A worker that lives but forgot an execution that it still owns on paper ---------------------------------


def test_a_worker_that_forgot_what_it_owns_on_paper_gives_it_back(file_lab: Lab):
    """The worker lives, so nobody takes over from it; it finds out by itself, and no crash is counted (R41)."""
    lab = file_lab
    gate = Gate()

    @activity
    async def act(key: str) -> str:
        if not done:
            done.append(key)
            await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            # As if a bug had lost it: nothing in this process knows the execution any more.
            runner = lab.service(engine).runners.pop(handle.execution_id)
            for attempt in list(runner.running.values()):
                attempt.cut()
            runner.gone = True
            runner.evict()
            for _ in range(3):
                await lab.skip("1 second")
            assert await lab.result(handle) == "k"
            assert (await engine.describe(handle.execution_id)).crashes == 0
            assert (await lab.record(engine, handle.execution_id)).fence == 3, "claimed, given back, claimed"

    lab.run(main)


# A stalled claim after a lost reply ------------------------------------------------------------------


def test_claims_whose_replies_are_lost_stall_nobody(file_lab: Lab):
    """One reply after another is lost, and there is room for one: that room is not taken by what nobody knows of."""
    lab = file_lab

    async def main():
        async with lab.engine() as client:
            for n in range(5):
                await client.start(notes, f"{n}")
        store = lab.store()
        for _ in range(4):
            store.fail("claim", written=True)
            store.fail("claim", error=None)
        async with lab.engine([notes], store=store, admission=1) as engine:
            for _ in range(30):
                await lab.skip("1 second")
            assert [info.crashes async for info in engine.executions(status=Status.SUCCEEDED)] == [0] * 5
        assert sorted(done) == ["0", "1", "2", "3", "4"]

    lab.run(main)


# An unknown outcome of a COMMIT taken for failure, or for success ----------------------------------------


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_an_unknown_outcome_of_a_commit_is_taken_neither_for_success_nor_for_failure(corner_lab: Lab, written: bool):
    """Each commit first ends without an answer, once written and once not: what depends on it begins when it is there."""
    lab = corner_lab
    ids: list[bytes] = []
    there: list[list[str]] = []

    @activity
    async def step(n: int) -> int:
        done.append(f"{n}")
        recorded = await lab.probe(lab.engines[0]).load([(ids[0], 0, 0)])
        there.append([entry.name for history in recorded for entry in history.entries])
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await step(1) + await step(2) + await step(3)

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(delay="1 second").start("k")
            ids.append((await lab.record(engine, handle.execution_id)).incarnation)
            for _ in range(8):
                lab.probe(engine).fail("commit", written=written)
                lab.probe(engine).fail("commit", error=None)
            assert await lab.result(handle) == 6
            assert len(lab.probe(engine).commits) >= 1 + 3 * 2, "each is sent twice"
            assert [entry.seq for entry in await engine.journal(handle.execution_id)] == [1, 2, 3]
        assert done == ["1", "2", "3"], "not taken for failure: nothing is done again"
        assert there == [[], ["step"], ["step", "step"]], "not taken for success: what a step builds on is there"

    lab.run(main)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_an_end_whose_outcome_is_unknown_is_told_to_nobody_before_it_is_known(corner_lab: Lab, written: bool):
    """Promise 1: who waits hears of the end when it is durable; and it is one end, also if the worker dies over it."""
    lab = corner_lab

    async def main():
        async with lab.doomed([request]) as engine:
            handle = await request.start("k")
            await lab.settle()
            waiting = asyncio.ensure_future(handle.result())
            hold = lab.probe(engine).hold("commit", before=not written)
            await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            assert hold.kept == 1
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with lab.engine([request]) as engine:
            assert await lab.result(request.handle(handle.execution_id)) == "ada"
            assert await lab.steps(engine, handle.execution_id) == [("deferred", "approval", 0)]

    lab.run(main)


# Two stores that behave differently ------------------------------------------------------------------


def test_memory_and_file_write_the_same_journal(tmp_path, run):
    """One of each kind of entry, with and without a cache: byte for byte the same."""
    written = {}
    for kind in ("memory", "file"):
        for cache in (None, 0):
            folder = tmp_path / f"{kind}{cache}"
            folder.mkdir()
            lab = Lab(kind, cache, folder, run)
            written[kind, cache] = lab.run(lambda lab=lab: journals.written(lab))
    first = [said["journal"] for said in written["memory", None]]
    assert {entry[1] for journal in first for entry in journal} == {str(kind) for kind in Kind} - {Kind.FREED}
    for where, found in written.items():
        assert [said["journal"] for said in found] == first, where


# Shutdown that compensates -------------------------------------------------------------------------------


async def undo(value: str, cause: object) -> None:
    await note(f"undo {value}")


async def finalize(exit: object) -> None:
    await note("finalize")


@pytest.mark.parametrize("way", ["left", "drained", "cancelled", "crashed"])
def test_a_shutdown_compensates_nothing(corner_lab: Lab, way: str):
    """R6, R9, R27: no finalizer, no compensation, nothing recorded, however the host goes; the execution goes on later."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def slow(key: str) -> str:
        await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def trip(key: str) -> str:
        await add_finalizer(finalize)
        await with_compensation(note("hotel"), undo)
        await with_compensation(slow("flight"), undo)
        return key

    async def host(opened: asyncio.Event) -> None:
        async with lab.doomed([trip]) if way == "crashed" else lab.engine([trip]) as engine:
            await trip.start("k")
            await lab.settle()
            opened.set()
            if way == "drained":
                await engine.drain("0 seconds")
            if way == "cancelled":
                await asyncio.get_running_loop().create_future()

    async def main():
        opened = asyncio.Event()
        running = asyncio.ensure_future(host(opened))
        await opened.wait()
        if way == "cancelled":
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled() is (way == "cancelled")
        assert (gate.entered, done) == (1, ["hotel"])
        async with lab.engine([trip]) as engine:
            handle = trip.handle(trip.execution_id("k"))
            assert await lab.steps(engine, handle.execution_id) == [("activity", "note", 1)]
            gate.open()
            assert await lab.result(handle) == "k"
        assert done == ["hotel", "finalize"]

    lab.run(main)


# An infrastructure error recorded as the execution's result ------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailableError, StoreError], ids=["unavailable", "unknown"])
def test_an_error_of_the_store_is_no_result(corner_lab: Lab, error: type[StoreError]):
    """R9: whichever question it is the answer to, while the execution runs, waits and ends; the journal knows of none."""
    lab = corner_lab
    asked = ["commit", "claim", "load", "promote", "next_wake", "mail_for", "alive", "take_over", "owned"]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        first = await note("first")
        await sleep("1 hour")
        return f"{first}, {await Approval}, {await note('last')}"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            probe = lab.probe(engine)
            for method in asked:
                for _ in range(3):
                    probe.fail(method, 2, lambda: error("out of order"))
                    probe.fail(method, 1, error=None)
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.skip("2 hours")
            assert await lab.result(handle) == "first, ada, last"
            assert all(b"out of order" not in entry.exit for commit in probe.commits for entry in commit.entries)
        assert done == ["first", "last"]

    lab.run(main)


def test_what_an_attempt_raises_because_the_host_goes_is_no_result(corner_lab: Lab):
    """R9: a driver that turns its cancellation into an error of its own has not failed; it was cut off."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def query(key: str) -> str:
        done.append(key)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            raise ConnectionError("connection closed by peer") from None
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await query(key)

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]) as engine:
            assert await lab.steps(engine, handle.execution_id) == []
            gate.open()
            assert await lab.result(work.handle(handle.execution_id)) == "k"
        assert done == ["k", "k"]

    lab.run(main)


# Numeric zero taken for "default" ------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["concurrency", "threads", "admission", "payload_limit"])
def test_a_zero_of_an_engine_that_makes_no_sense_is_refused(option: str):
    """API 7: it is not taken for the default."""
    with pytest.raises(UsageError, match=f"{option}= is a number from 1, not 0"):
        WorkflowEngine.memory([], **{option: 0})  # pyright: ignore[reportArgumentType] - one of the four


@pytest.mark.parametrize("cache", [0, (0, 0), (0, 1_000_000), (1_000, 0)])
def test_a_cache_of_zero_keeps_nothing(memory_lab: Lab, cache: int | tuple[int, int]):
    """API 7: as a number of executions, or of bytes."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await note(key)
        await Approval

    async def main():
        async with lab.engine([work], cache=cache) as engine:
            await work.start("k")
            await lab.settle()
            assert len(lab.service(engine).cache) == 0

    lab.run(main)


def test_a_grace_of_zero_waits_for_nobody(corner_lab: Lab):
    """API 7: when the engine closes, and when it is drained."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work], grace=0) as engine:
            await work.start("k")
            await lab.settle()
            assert await engine.drain(0) is False
            # How long it waits is real time, so this is looked at and not measured.
            assert lab.service(engine).settings.grace == timedelta(0)

    lab.run(main)


@pytest.mark.parametrize("whose", ["engine", "workflow"])
def test_a_retention_of_zero_keeps_what_has_ended_no_longer(corner_lab: Lab, whose: str):
    """R2: none is not thirty days."""
    lab = corner_lab
    settings: dict[str, Any] = {"retention": 0} if whose == "workflow" else {}
    options: dict[str, Any] = {"retention": 0} if whose == "engine" else {}

    @workflow(idempotency_key=lambda key: key, **settings)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work], **options) as engine:
            handle = await work.start("k")
            await lab.settle()
            await lab.skip("2 hours")
            assert [info async for info in engine.executions()] == []
            with pytest.raises(ExecutionNotFoundError):
                await engine.describe(handle.execution_id)

    lab.run(main)


def test_a_zero_in_a_question_to_the_engine_is_zero(corner_lab: Lab):
    """API 7: `limit`, `older_than` and the `timeout` of a result."""
    lab = corner_lab

    async def main():
        async with lab.engine([notes, request]) as engine:
            await lab.result(await notes.start("k"))
            assert [info async for info in engine.executions(limit=0)] == []
            handle = await request.start("k")
            with pytest.raises(ExecutionTimeoutError):
                await handle.result(timeout=0)
            assert await engine.purge(older_than=0) == 1

    lab.run(main)


@pytest.mark.parametrize("option", ["timeout", "total_timeout"])
def test_a_timeout_of_zero_is_refused(option: str):
    """R12: no attempt could keep it, and it is not taken for none; as the activity's own and for one call."""
    with pytest.raises(DefinitionError, match="longer than nothing"):
        activity(**{option: 0})(note.function)
    with pytest.raises(DefinitionError, match="longer than nothing"):
        note.options(**{option: 0})  # pyright: ignore[reportArgumentType] - one of the two


def test_a_zero_in_a_retry_policy_is_zero(corner_lab: Lab):
    """R11, R13: no retry, no delay, none longer than nothing, and at once although the policy says an hour."""
    lab = corner_lab

    def failing(name: str, raises: Callable[[], BaseException] = RuntimeError, **options: Any) -> Any:
        @activity(name=name, **options)
        async def fail() -> None:
            done.append(name)
            if current_attempt() < 3:
                raise raises()

        return fail

    never = [
        failing("times", retry=Schedule.spaced("1 second").times(0)),
        failing("recurs", retry=Schedule.recurs(0)),
        failing("interrupt", asyncio.CancelledError, interrupt_retry=Schedule.spaced("1 second").times(0)),
    ]
    at_once = [
        failing("spaced", retry=Schedule.spaced(0).times(5)),
        failing("fixed", retry=Schedule.fixed(0).times(5)),
        failing("exponential", retry=Schedule.exponential(0).times(5)),
        failing("max", retry=Schedule.exponential("1 hour", max=0).times(5)),
        failing("capped", retry=Schedule.spaced("1 hour").capped(0).times(5)),
        failing("after", lambda: RetryAfter(0), retry=Schedule.spaced("1 hour").times(5)),
        failing("interrupted", asyncio.CancelledError, interrupt_retry=Schedule.spaced(0).times(5)),
    ]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        failed = []
        for step in never:
            try:
                await step()
            except Defect:
                failed.append(step.name)
        for step in at_once:
            await step()
        return failed

    async def main():
        before = lab.clock.now()
        async with lab.engine([work]):
            assert await lab.result(await work.start("k")) == ["times", "recurs", "interrupt"]
        assert lab.clock.now() == before, "nothing was waited for"
        assert done == [step.name for step in never] + [step.name for step in at_once for _ in range(3)]

    lab.run(main)


def test_a_zero_in_a_start_is_zero(corner_lab: Lab):
    """API 2: a configured copy goes back to it, an attribute has it, and no deadline is that near."""
    lab = corner_lab
    configured = request.options(delay="1 hour", priority=7, attributes={"copies": 3})

    async def main():
        async with lab.engine([request]) as engine:
            handle = await configured.options(delay=0, priority=0, attributes={"copies": 0}).start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.priority, info.attributes, info.status) == (0, {"copies": 0}, Status.SUSPENDED)
            assert info.began_at == info.created_at
            assert [found.key async for found in engine.executions(attributes={"copies": 0})] == ["k"]
        with pytest.raises(UsageError, match="deadline"):
            configured.options(deadline=0)

    lab.run(main)


def test_a_zero_in_a_wait_is_zero(corner_lab: Lab):
    """R16: it takes no time; and with a threshold of nothing the shortest wait is kept by the store."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await sleep(0)
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0):
                await Approval
        except TimeoutError:
            await sleep("5 seconds", name="nap", in_memory_threshold=0)
            return "timed out"
        return "waited"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert (await lab.steps(engine, handle.execution_id))[-1][:2] == ("set", "nap")
            before = lab.clock.now()
            assert await lab.result(handle) == "timed out"
            assert lab.clock.now() == before + 5_000

    lab.run(main)


def test_a_token_that_is_taken_for_no_time_is_not_given_out(corner_lab: Lab):
    """R19: it is not one that is taken for ever."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret="a secret of this year"):
            handle = await request.start("k")
            with pytest.raises(UsageError, match="longer than zero"):
                handle.token(Approval, expires_in=0)

    lab.run(main)


def test_a_value_of_zero_is_a_value(corner_lab: Lab):
    """R15, R18, R21, R42, R48: completed, sent, published, noted, won, returned; also over a restart."""
    lab = corner_lab

    @activity(retry=Schedule.spaced("1 second").times(1))
    async def progressing() -> int | None:
        if current_attempt() == 1:
            heartbeat(0)
            raise RuntimeError
        return last_heartbeat(int)

    @activity
    async def nothing(n: int = 5) -> int:
        return n

    @workflow(idempotency_key=lambda key, n=7: key)
    async def work(key: str, n: int = 7) -> list[int | None]:
        publish("progress", 0)
        set_attributes(left=0)
        seen = [n, await nothing(0), await race_all("r", [nothing(0)]), await progressing()]
        return [*seen, await Answer, await Amounts.receive()]

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k", 0)
            await lab.skip("2 seconds")
            assert await Answer.succeed(handle.token(Answer), 0)
            assert not await Answer.succeed(handle.token(Answer), 8), "it has a value"
        async with lab.engine([work]) as engine:
            handle = work.handle(handle.execution_id)
            await lab.settle()
            await Amounts.send(handle.execution_id, 0)
            assert await lab.result(handle) == [0] * 6
            assert await handle.read("progress") == 0
            assert (await engine.describe(handle.execution_id)).attributes == {"left": 0}

    lab.run(main)


# Duplicate names silently sharing a result ---------------------------------------------------------------


def test_what_has_the_same_name_shares_no_result(lab: Lab):
    """R8, R10, R17, R21: equal calls, different activities, inline ones, waits and races of one name; live and replayed."""

    @activity(name="same")
    async def one(n: int) -> str:
        done.append(f"one {n}")
        return f"one, done as number {len(done)}"

    @activity(name="same")
    async def other(n: int) -> str:
        done.append(f"other {n}")
        return f"other, done as number {len(done)}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        results = [await one(1), await one(1), await other(1), *await asyncio.gather(one(2), one(2))]
        for n in (5, 6):
            results += [
                await Activity.make("inline", success=str, execute=lambda n=n: f"inline {n}"),
                await race_all("race", [note(f"race {n}")]),
            ]
        for _ in range(2):
            await sleep("1 hour", name="nap")
        return results

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]) as engine:
            handle = work.handle(handle.execution_id)
            assert await lab.result(handle) == [
                "one, done as number 1",
                "one, done as number 2",
                "other, done as number 3",
                "one, done as number 4",
                "one, done as number 5",
                "inline 5",
                "race 5",
                "inline 6",
                "race 6",
            ]
            info = await engine.describe(handle.execution_id)
            assert info.finished_at is not None
            assert info.began_at is not None
            assert (info.finished_at - info.began_at).total_seconds() == 2 * 3_600
        assert done == ["one 1", "one 1", "other 1", "one 2", "one 2", "race 5", "race 6"]

    lab.run(main)


# A losing branch that still writes -------------------------------------------------------------------------


def test_a_losing_branch_on_a_thread_writes_nothing(corner_lab: Lab):
    """R12, R21: the thread cannot be stopped; what it comes to is nobody's, and what stood behind it never begins."""
    lab = corner_lab
    gate = ThreadGate()

    @activity
    def slow(key: str) -> str:
        gate.wait()
        return "too late"

    async def loser(key: str) -> str:
        late = await slow(key)
        return await note(late)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        won = await race_all("who", [loser(key), Approval])
        await sleep("1 hour")
        return won

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await gate.reached()
            await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            before = await lab.steps(engine, handle.execution_id)
            gate.open()
            await lab.settle()
            assert await lab.steps(engine, handle.execution_id) == before
            assert [step[:2] for step in before if step[0] == "activity"] == []
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "ada"
        assert done == []

    lab.run(main)


# A completion recorded after its execution was purged --------------------------------------------------------


def left_in(lab: Lab) -> int:
    """How many rows a file has that belong to any execution."""
    tables = ("executions", "journal", "mailbox", "lives", "published", "heartbeats")
    with closing(apsw.Connection(str(lab.path))) as connection:
        return sum(connection.execute(f"SELECT count(*) FROM perdure_{table}").fetchone()[0] for table in tables)


def test_a_completion_that_comes_after_the_purge_is_recorded_nowhere(file_lab: Lab):
    """R18: also one that was on its way, and one whose answer was lost; the next execution of that key knows nothing of it."""
    lab = file_lab

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            await lab.settle()
            token = handle.token(Approval)
            hold = lab.probe(engine).hold("deliver", before=True)
            on_its_way = asyncio.ensure_future(Approval.succeed(token, "too late"))
            await lab.settle()
            assert hold.kept == 1
            await engine.interrupt_unsafe(handle.execution_id)
            await lab.settle()
            assert await engine.purge(older_than=0) == 1
            hold.release()
            with pytest.raises(ExecutionNotFoundError):
                await on_its_way
            lab.probe(engine).fail("deliver", written=True)
            with pytest.raises(ExecutionNotFoundError):
                await Approval.succeed(token, "later still")
            assert left_in(lab) == 0
            again = await request.start("k")
            await lab.settle()
            assert await again.status() is Status.SUSPENDED
            assert await lab.steps(engine, again.execution_id) == []

    lab.run(main)


def test_an_attempt_that_ends_after_the_purge_is_recorded_nowhere(file_lab: Lab):
    """R10, R29: its worker has not heard of the end, and commits; the fence has gone with the execution."""
    lab = file_lab
    gate = Gate()

    @activity
    async def act(key: str) -> str:
        await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act(key)

    async def main():
        async with lab.engine([work]) as worker, lab.engine() as client:
            handle = await work.options(engine=worker).start("k")
            await lab.settle()
            await client.interrupt_unsafe(handle.execution_id)
            assert await client.purge(older_than=0) == 1
            gate.open()
            await lab.skip("10 seconds")
            assert left_in(lab) == 0
            assert lab.service(worker).runners == {}

    lab.run(main)


# SQLite's `database is locked` in the quick start --------------------------------------------------------------


def test_eight_engines_that_open_a_new_file_at_once_never_hear_that_it_is_locked(file_lab: Lab, log):
    """Each has connections and threads of its own, as a process has; each starts and runs beside all others."""
    lab = file_lab

    async def use(n: int) -> list[str]:
        async with WorkflowEngine.sqlite(lab.path, [notes], cache=lab.cache or 0) as engine:
            return await asyncio.gather(*(engine.execute(notes, f"{n}/{m}") for m in range(5)))

    async def main():
        results = await asyncio.gather(*(use(n) for n in range(8)))
        assert results == [[f"{n}/{m}" for m in range(5)] for n in range(8)]
        assert sorted(done) == sorted(key for keys in results for key in keys)
        assert "locked" not in log.text

    lab.run(main)


# A heartbeat starved by a blocked loop -------------------------------------------------------------------------


def test_a_worker_whose_loop_is_blocked_is_not_taken_for_dead(file_lab: Lab):
    """Ownership is a lock that the process holds, and nothing that its loop would have to renew.

    The blocked engine has a loop of its own on a thread, where an activity stands; for the other one hours pass.
    """
    lab = file_lab
    gate = ThreadGate()

    @activity
    async def block(key: str) -> str:
        done.append(key)
        gate.wait()  # as a driver does that is not async
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await block(key)

    def blocked() -> None:
        with WorkflowEngine.sqlite(lab.path, [work]).blocking() as engine:
            assert engine.execute(work, "k") == "k"
            done.append("ended")

    async def main():
        thread = threading.Thread(target=blocked)
        thread.start()
        try:
            await gate.reached()
            lab.clock.jump(SystemClock().now())
            async with lab.engine([work]) as engine:
                for _ in range(4):
                    await lab.skip("1 hour")
                info = await engine.describe(work.execution_id("k"))
                assert (info.status, info.crashes) == (Status.RUNNING, 0)
                assert done == ["k"]
        finally:
            gate.open()
            thread.join()
        assert done == ["k", "ended"]

    lab.run(main)


# A claim that takes more rows than asked -----------------------------------------------------------------------


def test_a_claim_takes_no_more_than_was_asked(file_lab: Lab):
    """Two workers with room for three, and executions of all sorts: several workflows, priorities, new and begun ones."""
    lab = file_lab
    claims: list[tuple[int, int]] = []

    @workflow(idempotency_key=lambda key: key)
    async def napping(key: str) -> str:
        await sleep("1 hour", in_memory_threshold=0)
        return await note(key)

    def counted(store: Any) -> Any:
        claim = store.inner.claim

        async def asked(worker_id: str, workflows: list[str], limit: int) -> Any:
            records = await claim(worker_id, workflows, limit)
            claims.append((limit, len(records)))
            return records

        store.inner.claim = asked
        return store

    async def main():
        async with lab.engine([napping]):
            for n in range(10):
                await napping.options(priority=n % 3).start(f"nap {n}")
            await lab.settle()
            lab.clock.advance(3_600_000)
            # Due, and not claimed yet: a client promotes nothing.
        async with lab.engine() as client:
            for n in range(10):
                await notes.options(priority=n % 3, engine=client).start(f"note {n}")
        two = [counted(lab.store()) for _ in range(2)]
        async with (
            lab.engine([notes, napping], store=two[0], admission=3),
            lab.engine([napping, notes], store=two[1], admission=3),
        ):
            await lab.skip("2 hours")
        assert sorted(done) == sorted([f"nap {n}" for n in range(10)] + [f"note {n}" for n in range(10)])
        assert all(taken <= limit <= 3 for limit, taken in claims), claims
        assert max(taken for _, taken in claims) == 3, "the control: they did take several at once"

    lab.run(main)


# Tokens that anyone can forge ----------------------------------------------------------------------------------


def test_a_signed_token_cannot_be_changed_anywhere(corner_lab: Lab):
    """R19: each of its characters in turn is another one, or missing; what is left over is no token, and nothing is stored."""
    lab = corner_lab
    alphabet = f"{string.ascii_letters}{string.digits}-_."

    async def main():
        async with lab.engine([request], token_secret={"2026": "a secret of this year"}) as engine:
            handle = await request.start("k")
            await lab.settle()
            token = handle.token(Approval, expires_in="1 day")
            forged = [token + character for character in alphabet]
            for place, character in enumerate(token):
                # The neighbours in the alphabet differ in the lowest bits, which a sloppy decoder does not look at.
                near = alphabet[(alphabet.index(character) + 1) % len(alphabet)]
                forged += [token[:place] + near + token[place + 1 :], token[:place] + token[place + 1 :]]
            plain = base64.urlsafe_b64encode(f'["request","{handle.execution_id}","approval"]'.encode()).decode()
            forged += [plain, plain.rstrip("="), f"{plain}.", f"{token.split('.')[0]}.{token.split('.')[1]}."]
            for attempt in forged:
                with pytest.raises(TokenError):
                    await Approval.succeed(Token(attempt), "mallory")
            assert await lab.steps(engine, handle.execution_id) == []
            assert await Approval.succeed(token, "ada"), "the control: it was good"
            assert await lab.result(handle) == "ada"

    lab.run(main)


# One poison execution convicting a thousand -----------------------------------------------------------------------


def test_one_poison_execution_convicts_nobody_beside_it(corner_lab: Lab):
    """R41: whoever was there as often as it was is found innocent, and goes on with what it had."""
    lab = corner_lab
    crashing = [True]

    @activity
    async def strike(key: str) -> str:
        if key == "poison" or crashing:
            await Gate().wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await strike(key)

    async def main():
        async with lab.doomed([work]):
            # The oldest, so that all others wait behind it each time that it strikes.
            poisoned = await work.start("poison")
            for n in range(30):
                await work.start(f"{n}")
        async with lab.doomed([work]):
            pass
        crashing.clear()
        for _ in range(6):
            async with lab.doomed([work]) as engine:
                await lab.settle()
                if (await engine.describe(poisoned.execution_id)).held is not None:
                    break
        async with lab.engine([work]) as engine:
            await lab.settle()
            assert [info.key async for info in engine.executions(held="CRASHES")] == ["poison"]
            assert len([info async for info in engine.executions(status=Status.SUCCEEDED)]) == 30

    lab.run(main)


# An outage after which everything runs twice ------------------------------------------------------------------------


def test_nothing_runs_twice_after_an_outage(file_lab: Lab):
    """What has ended meanwhile waits with its result until it can be recorded, and both workers are still who they were."""
    lab = file_lab
    gates = [Gate(), Gate()]

    @activity
    async def act(key: str) -> str:
        done.append(key)
        await gates[int(key[0])].wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return f"{await act(key)} {await act(f'{key} again')}"

    async def main():
        async with lab.engine([work]) as one, lab.engine([work]) as other:
            handles = [await work.options(engine=(one, other)[n % 2]).start(f"{n % 2} {n}") for n in range(20)]
            await lab.settle()
            assert len(done) == 20
            holds = []
            for engine in (one, other):
                for method in ("commit", "claim", "alive", "take_over", "owned", "mail_for", "next_wake", "promote"):
                    lab.probe(engine).fail(method, 3)
                    holds.append(lab.probe(engine).hold(method, before=True))
            for gate in gates:
                gate.open()
            lab.clock.advance(3 * 3_600_000)
            await lab.settle()
            assert len(done) == 20, "nothing goes on before what it builds on is durable"
            for hold in holds:
                hold.release()
            for handle in handles:
                await lab.result(handle)
                assert (await one.describe(handle.execution_id)).crashes == 0
        assert sorted(done) == sorted(f"{n % 2} {n}{again}" for n in range(20) for again in ("", " again"))

    lab.run(main)


# One user's open transaction, or one bad byte, stopping every commit of a process --------------------------------------


def test_an_open_transaction_of_somebody_else_only_makes_them_wait(file_lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """A shell on the file, with a transaction that nobody ends for longer than a commit waits: all are written after it."""
    lab = file_lab

    async def main():
        async with lab.engine([notes]) as engine:
            probe = lab.probe(engine)
            monkeypatch.setattr("perdure._stores.sqlite.writer.PATIENCE_S", 0)
            with closing(apsw.Connection(str(lab.path))) as shell:
                shell.execute("BEGIN IMMEDIATE")
                ends = [asyncio.ensure_future(notes.execute(f"{n}")) for n in range(3)]
                while probe.calls["commit"] < 9:  # noqa: ASYNC110 - of a thread, which cannot set an asyncio.Event
                    await asyncio.sleep(0)
                assert not any(end.done() for end in ends)
                shell.execute("COMMIT")
            assert await asyncio.gather(*ends) == [f"{n}" for n in range(3)]
        assert sorted(done) == [f"{n}" for n in range(3)]

    lab.run(main)


BAD = "a bad byte: \ud800 \0"


@activity
async def returns(text: str) -> str:
    return BAD if text == "bad" else text


@activity
async def raises(text: str) -> None:
    raise RuntimeError(BAD if text == "bad" else text)


async def in_a_result(text: str) -> None:
    await returns(text)


async def in_an_error(text: str) -> None:
    with contextlib.suppress(Defect):
        await raises(text)


async def in_an_input(text: str) -> None:
    await note(BAD if text == "bad" else text)


async def in_an_attribute(text: str) -> None:
    set_attributes(text=BAD if text == "bad" else text)


async def in_something_published(text: str) -> None:
    publish("text", BAD if text == "bad" else text)


async def in_a_name(text: str) -> None:
    await note.options(name=BAD if text == "bad" else text)(text)


async def in_a_message(text: str) -> None:
    await Letters.send(execution_id(), BAD if text == "bad" else text)


async def in_a_start(text: str) -> None:
    await notes.start(BAD if text == "bad" else text)


async def in_a_defect_of_the_body(text: str) -> None:
    if text == "bad":
        raise RuntimeError(BAD)


async def in_a_race(text: str) -> None:
    async def branch() -> str:
        return BAD if text == "bad" else text

    await race_all("text", [branch()])


PLACES = [
    in_a_result,
    in_an_error,
    in_an_input,
    in_an_attribute,
    in_something_published,
    in_a_name,
    in_a_message,
    in_a_start,
    in_a_defect_of_the_body,
    in_a_race,
]


async def beside_a_bad_one(lab: Lab, place: Callable[[str], Awaitable[None]]) -> ExecutionInfo:
    """Run ten executions at once, and in their midst the one with the bad byte; what has become of that."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await place(key)
        return key

    async with lab.engine([work, notes]) as engine:
        keys = [*"01234", "bad", *"56789"]
        handles = {key: await work.options(delay="1 second").start(key) for key in keys}
        await lab.skip("2 seconds")
        assert max(lab.probe(engine).batches) >= 10, "the control: they are committed together"
        bad = await engine.describe(handles.pop("bad").execution_id)
        for key, handle in handles.items():
            polled = await handle.poll()
            assert isinstance(polled, Complete)
            assert polled.exit.unwrap() == key
        assert await lab.result(await work.start("afterwards")) == "afterwards"
    return bad


@pytest.mark.parametrize("place", PLACES)
def test_a_bad_byte_stops_nobody_else(corner_lab: Lab, place: Callable[[str], Awaitable[None]]):
    """R40, promise 8: it ends its own execution, or is written out where an error says it; ten beside it count."""
    bad = corner_lab.run(lambda: beside_a_bad_one(corner_lab, place))
    assert bad.status is (Status.SUCCEEDED if place is in_an_error else Status.FAILED)


def test_a_bad_byte_that_gets_as_far_as_the_store_stops_nobody_else(
    corner_lab: Lab, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
):
    """Promise 8: whatever was forgotten at the doors, the store refuses a whole batch, and only the guilty one is held."""
    monkeypatch.setattr("perdure._definitions.name._unwritable", lambda text: None)
    bad = corner_lab.run(lambda: beside_a_bad_one(corner_lab, in_a_name))
    assert (bad.status, bad.held) == (Status.SUSPENDED, "REFUSED")
