"""What `explain` says (R33): one file in `golden/explain` for each case, and a case for everything there is.

`python -m tests.engine.test_explain` writes the files anew; the difference is for a reader to judge.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perdure import (
    Cause,
    Defect,
    Failure,
    Interrupted,
    Status,
    Success,
    activity,
    add_finalizer,
    sleep,
    with_compensation,
    workflow,
)
from perdure._engine.explain import HELD, MOST_CAUSE, MOST_WAITS, WAITS, explain
from perdure._model.info import ExecutionInfo, Wait
from perdure._model.journal import MARKERS, Kind
from perdure._model.records import Worker
from perdure._model.status import Held
from perdure._values.instant import from_datetime

from tests.engine.lab import Gate

GOLDEN = Path(__file__).parent / "golden" / "explain"

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
LATER = NOW + timedelta(days=3)

# Fed to a body, and nothing that it waits for: they come when they come.
NEVER_AWAITED = {Kind.INTERRUPT, Kind.SKIP, Kind.FREED, Kind.PAYLOAD}
AWAITED = set(Kind) - MARKERS - NEVER_AWAITED

ORDER = ExecutionInfo(
    execution_id="fc0cd826dc208968186d2747adc6831f",
    workflow="ProcessOrder",
    key="order-123",
    status=Status.SUSPENDED,
    held=None,
    cause=None,
    exit=None,
    created_at=BEFORE,
    began_at=BEFORE,
    changed_at=NOW - timedelta(minutes=5),
    finished_at=None,
)
WORKER = Worker(
    worker_id="9f86d081884c7d65",
    host="db1",
    pid=4242,
    workflows=("ProcessOrder", "SendEmail"),
    started_at=from_datetime(BEFORE),
)
GONE = replace(WORKER, worker_id="60303ae22b998861", retired_at=from_datetime(BEFORE))

DECLINED = Cause.fail(Defect("CardDeclined", '{"code":"51"}'))
BROKEN = Cause.die(Defect("ConnectionError", "the gateway does not answer"))
CHILD = "2dde4b48edb4176d9825e719454d7086"


def waiting(*waits: Wait, **more) -> ExecutionInfo:
    return replace(ORDER, waits=waits, **more)


def ended(status: Status, exit_) -> ExecutionInfo:
    return replace(ORDER, status=status, exit=exit_, finished_at=NOW - timedelta(minutes=5))


def held(code: Held, **more) -> ExecutionInfo:
    return replace(ORDER, held=code, cause=BROKEN, **more)


RETRY = Wait(kind="activity", name="charge", due_at=NOW + timedelta(minutes=10))
TIMER = Wait(kind="timer", name="CancellationWindow", due_at=LATER)

# One of each kind that a body can wait for.
WAITED_FOR = {
    Kind.ACTIVITY: Wait(kind="activity", name="charge"),
    Kind.TIMER: TIMER,
    Kind.DEFERRED: Wait(kind="deferred", name="approval"),
    Kind.CHILD: Wait(kind="child", name="SendEmail", execution_id=CHILD),
    Kind.MESSAGE: Wait(kind="message", name="changes"),
    Kind.SENT: Wait(kind="sent", name="changes"),
}

CASES: dict[str, ExecutionInfo] = {
    "pending": replace(ORDER, status=Status.PENDING),
    "pending_unregistered": replace(ORDER, status=Status.PENDING, workflow="Forgotten", key=None),
    "pending_suspect": replace(ORDER, status=Status.PENDING, crashes=3),
    "pending_interrupted": replace(ORDER, status=Status.PENDING, interrupted_at=NOW - timedelta(seconds=30)),
    "delayed_start": replace(ORDER, began_at=None, wake_at=LATER),
    "running": replace(ORDER, status=Status.RUNNING, worker=WORKER.worker_id),
    "running_suspect": replace(ORDER, status=Status.RUNNING, worker=WORKER.worker_id, crashes=2),
    "running_activity": waiting(WAITED_FOR[Kind.ACTIVITY], status=Status.RUNNING, worker=WORKER.worker_id),
    "running_queued": waiting(
        replace(WAITED_FOR[Kind.ACTIVITY], queued=True), status=Status.RUNNING, worker=WORKER.worker_id
    ),
    "running_at_a_dead_worker": replace(ORDER, status=Status.RUNNING, worker=GONE.worker_id),
    "retry_delay": waiting(RETRY, last_error=BROKEN, attempts=2, failed_step="charge"),
    "timer_overdue": waiting(replace(TIMER, due_at=BEFORE)),
    "child_unknown": waiting(Wait(kind="child", name="SendEmail")),
    "several_waits": waiting(TIMER, WAITED_FOR[Kind.DEFERRED], RETRY),
    "many_waits": waiting(*(replace(TIMER, name=f"timer {n}") for n in range(MOST_WAITS + 5))),
    "timer_without_a_worker": waiting(replace(TIMER, due_at=BEFORE), workflow="Forgotten"),
    "unknown_wait": waiting(Wait(kind="oracle", name="delphi")),
    "nothing_recorded": ORDER,
    "deadline": waiting(TIMER, deadline=NOW + timedelta(hours=1)),
    "interrupted_and_compensating": waiting(
        WAITED_FOR[Kind.ACTIVITY],
        status=Status.RUNNING,
        worker=WORKER.worker_id,
        interrupted_at=NOW - timedelta(seconds=30),
        compensations=("reserve", "charge"),
    ),
    "circle": waiting(WAITED_FOR[Kind.CHILD]),
    "late": waiting(TIMER, deadline=BEFORE, interrupted_at=BEFORE),
    "late_and_interrupted": waiting(TIMER, deadline=BEFORE, interrupted_at=NOW - timedelta(seconds=30)),
    "with_compensations": waiting(TIMER, compensations=("charge", "reserve")),
    "second_life": waiting(TIMER, incarnation=2),
    "damaged": replace(ORDER, damaged=("waits",)),
    "long_cause": replace(held(Held.DEFECT), cause=Cause.die(Defect("ValueError", "x" * 2 * MOST_CAUSE))),
    "succeeded": ended(Status.SUCCEEDED, Success("charge_1")),
    "failed": ended(Status.FAILED, Failure(DECLINED)),
    "interrupted": ended(Status.INTERRUPTED, Failure(Cause.interrupt())),
    **{f"wait_{kind}": waiting(wait) for kind, wait in WAITED_FOR.items()},
    **{f"held_{code.lower()}": held(code) for code in Held},
    "held_while_undoing": held(Held.COMPENSATION, failed_with=DECLINED, compensations=("charge", "reserve")),
    "held_while_interrupted": held(
        Held.COMPENSATION,
        failed_with=Cause.interrupt(),
        interrupted_at=BEFORE,
        compensations=("charge", "reserve"),
    ),
    "held_after_an_interrupt": held(Held.FAILURE, interrupted_at=BEFORE, compensations=("reserve",)),
}


def told(case: str) -> str:
    circle = (ORDER.execution_id, CHILD) if case == "circle" else ()
    return explain(CASES[case], workers=[WORKER, GONE], now=NOW, circle=circle) + "\n"


@pytest.mark.parametrize("case", sorted(CASES))
def test_it_says_what_stands_in_its_file(case):
    assert told(case) == (GOLDEN / f"{case}.txt").read_text()


def test_every_file_has_its_case():
    assert {path.stem for path in GOLDEN.iterdir()} == CASES.keys()


def test_there_is_a_sentence_for_every_code_of_being_held():
    assert HELD.keys() == set(Held)


def test_there_is_a_sentence_for_everything_that_a_body_can_wait_for():
    """A new kind of entry that answers a wait needs its sentence; one that does not is named in `NEVER_AWAITED`."""
    assert WAITS.keys() == AWAITED == WAITED_FOR.keys()


def test_there_is_a_case_for_every_status():
    assert {case.status for case in CASES.values()} == set(Status)


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_last_line_is_what_moves_it(case):
    """A call, or that none is needed."""
    last = told(case).splitlines()[-1]
    assert last.startswith(("To move it", "To go on", "Nothing has to be done", "Nothing moves it any more"))
    assert "await" in last or last.startswith(("Nothing has", "To move it sooner: open", "To move it: open"))


def test_an_engine_explains_its_executions(lab):
    """R33: with what it has in hand, what is stored, and what went wrong lately."""
    gate = Gate()

    @activity
    async def call() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await call()
        await sleep("1 hour", name="pause")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert "It waits for activity 'call', which runs." in await engine.explain(handle.execution_id)
            gate.open()
            await lab.settle()
            said = await handle.explain()
            assert "timer 'pause', due " in said
            assert said.splitlines()[-1] == "Nothing has to be done to move it: it goes on by itself."
            await lab.result(handle)
            assert "SUCCEEDED" in await engine.explain(handle.execution_id)

    lab.run(main)


def test_an_engine_explains_what_a_compensation_holds(lab):
    """R28, R33: what the body had failed with, and what keeps it from its end."""

    @activity
    async def undo() -> None:
        raise ConnectionError("no answer")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(sleep("1 hour", name="pause"), lambda value, cause: undo())
        if key == "fails":
            raise ValueError("no visa")
        await sleep("1 day")

    @workflow(idempotency_key=lambda key: key)
    async def tidies(key: str) -> str:
        await add_finalizer(lambda _: undo())
        return "well"

    async def main():
        async with lab.engine([work, tidies]) as engine:
            failing, ended, well = await work.start("fails"), await work.start("ends"), await tidies.start("well")
            await lab.skip("2 hours")
            await ended.interrupt()
            await lab.settle()
            for handle, had in ((failing, "no visa"), (ended, "Interrupted")):
                info = await engine.describe(handle.execution_id)
                assert had in str(info.failed_with)
                assert "no answer" in str(info.cause)
                lines = (await handle.explain()).splitlines()
                assert any("had ended with" in line and had in line for line in lines)
                assert any("What holds it now" in line and "no answer" in line for line in lines)
            info = await engine.describe(well.execution_id)
            assert (info.held, info.failed_with) == ("COMPENSATION", None)
            assert "had ended with" not in await well.explain()
            assert [one.exit for one in await engine.journal(well.execution_id) if one.kind == "held"] == [None]

    lab.run(main)


def test_what_is_interrupted_and_waits_for_a_worker_is_not_said_to_wait_only(file_lab):
    """R29, R33: it ends as soon as it has one, and another interrupt does nothing."""
    lab = file_lab

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await sleep("1 day")

    async def main():
        async with lab.engine([work]):
            handle = await work.options(deadline="2 days").start("k")
            await lab.settle()
        async with lab.engine([]) as client:
            assert "was asked to end" not in await client.explain(handle.execution_id)
            await client.interrupt(handle.execution_id)
            said = await client.explain(handle.execution_id)
            assert "and ends as soon as a worker has room" in said
            assert "await engine.interrupt(" not in said
            await lab.skip("3 days")
            info = await client.describe(handle.execution_id)
            assert info.interrupted_at is not None
            assert info.deadline is not None
            assert info.interrupted_at < info.deadline

    lab.run(main)


@pytest.mark.parametrize("swallows", [False, True])
def test_the_call_that_ends_it_does_end_it(lab, swallows):
    """R29, R33, R36, R44: `interrupt` is not named where it would do nothing, nor `interrupt_unsafe` where that would do."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        for _ in range(2 if swallows else 0):
            try:
                await sleep("1 day")
            except asyncio.CancelledError:
                continue
        await asyncio.Event().wait() if key == "held" else await sleep("9 days")

    async def main():
        async with lab.engine([work]):
            held = await work.options(deadline="1 hour").start("held")
            waits = await work.options(deadline="1 hour").start("waits")
            await lab.settle()
            if swallows:
                assert "await engine.interrupt(" in await waits.explain()
                await lab.skip("2 hours")
                for handle in (held, waits):
                    assert "await engine.interrupt(" in await handle.explain()
                    await handle.interrupt()
                    await lab.settle()
                assert "await engine.interrupt_unsafe(" in await waits.explain()
                await waits.interrupt()
                await lab.settle()
                assert await waits.status() is Status.SUSPENDED
            assert "await engine.interrupt(" in await held.explain()
            await held.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(held)

    lab.run(main)


def test_executions_that_wait_for_each_other_are_said_to(lab):
    """R31, R33: nothing outside is amiss, so nobody else would ever tell; the call that is named ends all of them."""

    @workflow(idempotency_key=lambda key: key)
    async def ping(key: str) -> None:
        await asyncio.gather(sleep("9 days"), pong.execute(key))

    @workflow(idempotency_key=lambda key: key)
    async def pong(key: str) -> None:
        await (peng if key == "three" else ping).execute(key)

    @workflow(idempotency_key=lambda key: key)
    async def peng(key: str) -> None:
        await ping.execute(key)

    @workflow(idempotency_key=lambda key: key)
    async def outside(key: str) -> None:
        await ping.execute(key)

    async def main():
        async with lab.engine([ping, pong, peng, outside]) as engine:
            for key, members in (("two", [ping, pong]), ("three", [ping, pong, peng])):
                handle = await outside.start(key)
                await lab.settle()
                ids = [member.execution_id(key) for member in members]
                said = await engine.explain(ids[0])
                assert f"in a circle: {' -> '.join([*ids, ids[0]])}. None" in said
                assert said.endswith(f"await engine.interrupt({ids[-1]!r})")
                assert "in a circle" not in await handle.explain()
                await engine.interrupt(ids[-1])
                with pytest.raises(Interrupted):
                    await lab.result(handle)

    lab.run(main)


if __name__ == "__main__":
    for path in GOLDEN.iterdir():
        path.unlink()
    for case in CASES:
        (GOLDEN / f"{case}.txt").write_text(told(case))
