"""What is to be seen of an execution, and what ends or holds it (R33, R34, R35, R40)."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from perdure import (
    Complete,
    Defect,
    Die,
    Fail,
    Failure,
    Schedule,
    Status,
    Success,
    Suspended,
    TypedError,
    WorkflowIOError,
    activity,
    current_attempt,
    patched,
    sleep,
    workflow,
)
from perdure import logger as workflow_logger
from perdure._values.instant import to_datetime

from tests.engine.lab import Gate


class Declined(TypedError):
    code: str


class Broke(TypedError):
    amount: int


def test_poll_tells_running_from_suspended_from_complete(lab):
    """R33: None for unknown or running."""
    gate = Gate()

    @activity
    async def act() -> int:
        await gate.wait()
        return 7

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        n = await act()
        await sleep("1 hour")
        return n

    async def main():
        async with lab.engine([work]) as engine:
            id_ = work.execution_id("k")
            assert await work.poll(id_) is None
            handle = await work.start("k")
            await lab.settle()
            assert await handle.poll() is None is await engine.poll(id_)
            gate.open()
            await lab.settle()
            assert await handle.poll() == Suspended(None) == await work.poll(id_)
            assert await lab.result(handle) == 7
            assert await handle.poll() == Complete(Success(7)) == await work.poll(id_) == await engine.poll(id_)

    lab.run(main)


def test_describe_tells_everything_else(lab):
    """R33: since when, waiting for what, held code, last error, worker, version."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key, n: key, version="3")
    async def work(key: str, n: int = 5) -> int:
        await act()
        await asyncio.gather(sleep("1 hour", name="long"), asyncio.sleep(7_200))
        return n

    async def main():
        async with lab.engine([work]) as engine:
            began = lab.clock.now()
            handle = await work.options(priority=4, attributes={"customer": "ada", "vip": True}).start("k")
            await lab.skip("1 second")
            info = await engine.describe(handle.execution_id)
            assert (info.execution_id, info.workflow, info.key, info.version) == (handle.execution_id, "work", "k", "3")
            assert (info.status, info.held, info.cause, info.exit) == (Status.RUNNING, None, None, None)
            assert info.worker == lab.service(engine).worker_id
            assert (info.priority, dict(info.attributes), info.payload) == (
                4,
                {"customer": "ada", "vip": True},
                {"key": "k", "n": 5},
            )
            assert info.created_at == info.began_at == to_datetime(began)
            assert info.finished_at is None
            assert (info.crashes, info.incarnation) == (0, 1)
            gate.open()
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.worker) == (Status.SUSPENDED, None)
            assert info.changed_at == to_datetime(began + 1_000)
            assert sorted((wait.kind, wait.name, wait.due_at) for wait in info.waits) == [
                ("timer", "long", to_datetime(began + 3_601_000)),
                ("timer", "sleep:7200", to_datetime(began + 7_201_000)),
            ]
            assert info.wake_at == to_datetime(began + 3_601_000)
            await lab.result(handle)
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.exit, info.waits, info.wake_at) == (Status.SUCCEEDED, Success(5), (), None)
            assert info.finished_at == to_datetime(began + 7_201_000)

    lab.run(main)


def test_the_journal_tells_every_entry(lab):
    """R33, API 7."""

    @activity(error=Declined, retry=Schedule.spaced("10 seconds").times(1))
    async def charge(cents: int) -> str:
        if current_attempt() == 1:
            raise Declined(code="later")
        return f"charged {cents}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await sleep("2 hours", name="wait")
        return await charge(499)

    async def main():
        async with lab.engine([work]) as engine:
            began = lab.clock.now()
            await lab.finish(work.execute("k"))
            set_, timer, failed, done = await engine.journal(work.execution_id("k"))
            assert [(e.seq, e.kind, e.name) for e in (set_, timer, failed, done)] == [
                (1, "set", "wait"), (2, "timer", "wait"), (3, "activity", "charge"), (4, "activity", "charge"),
            ]  # fmt: skip
            assert (timer.at, failed.at) == (to_datetime(began + 7_200_000), to_datetime(began + 7_200_000))
            assert (failed.attempt, failed.occurrence, failed.input) == (1, 1, {"cents": 499})
            assert isinstance(failed.exit, Failure)
            assert "later" in str(failed.exit.cause.to_exception())
            assert failed.retry_at == done.at == to_datetime(began + 7_210_000)
            assert (done.attempt, done.exit, done.retry_at) == (2, Success("charged 499"), None)

    lab.run(main)


def test_executions_are_listed_newest_first_by_all_conditions(lab):
    """API 7."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> None:
        await sleep("1 hour")

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def trip(key: str) -> None:
        raise RuntimeError("ouch")

    async def main():
        async with lab.engine([nap, trip]) as engine:
            for n in range(5):
                await nap.options(attributes={"n": n, "even": n % 2 == 0}).start(f"{n}")
                await lab.skip("1 second")
            since = to_datetime(lab.clock.now())
            await trip.start("t")
            await lab.settle()

            async def listed(**query) -> list[str]:
                return [f"{info.workflow}/{info.key}" async for info in engine.executions(**query)]

            naps = [f"nap/{n}" for n in (4, 3, 2, 1, 0)]
            assert await listed() == ["trip/t", *naps]
            assert await listed(workflow="nap") == await listed(workflow=nap) == naps
            assert await listed(status=Status.SUSPENDED) == ["trip/t", *naps]
            assert await listed(status=Status.RUNNING) == []
            assert await listed(held="DEFECT") == ["trip/t"]
            assert await listed(since=since) == ["trip/t"]
            assert await listed(attributes={"even": True}) == ["nap/4", "nap/2", "nap/0"]
            assert await listed(attributes={"even": True, "n": 2}) == ["nap/2"]
            assert await listed(limit=2) == ["trip/t", "nap/4"]
            assert await listed(limit=0) == []
            assert await listed(workflow="nobody") == []

    lab.run(main)


def test_a_listing_reads_page_by_page(lab, monkeypatch):
    monkeypatch.setattr("perdure._face.PAGE", 3)

    @workflow(idempotency_key=str)
    async def quick(n: int) -> None: ...

    async def main():
        async with lab.engine([quick]) as engine:
            await lab.finish(asyncio.gather(*(quick.execute(n) for n in range(8))))
            assert sorted([int(info.key or 0) async for info in engine.executions()]) == list(range(8))
            assert len([info async for info in engine.executions(limit=7)]) == 7
            assert lab.probe(engine).calls["executions"] == 3 + 3

    lab.run(main)


# How it ended ------------------------------------------------------------------------------------------


def test_a_single_failure_in_a_task_group_surfaces_as_itself(lab):
    """R34: its cancelled siblings are left out."""

    @activity(error=Declined)
    async def charge(code: str) -> None:
        if code:
            raise Declined(code=code)
        await Gate().wait()

    @workflow(idempotency_key=lambda key: key, error=Declined)
    async def work(key: str) -> None:
        async with asyncio.TaskGroup() as group:
            for code in ("", "no-funds", ""):
                group.create_task(charge(code))

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Declined) as alone:
                await lab.finish(work.execute("k"))
            assert alone.value == Declined(code="no-funds")
            polled = await work.poll(work.execution_id("k"))
            assert isinstance(polled, Complete)
            assert isinstance(polled.exit, Failure)
            assert [type(reason) for reason in polled.exit.cause.reasons] == [Fail]

    lab.run(main)


def test_several_failures_surface_as_a_group(lab):
    """R34: flattened in order, cancellations left out."""

    @workflow(idempotency_key=lambda key: key, error=(Declined, Broke))
    async def work(key: str) -> None:
        inner = ExceptionGroup("inner", [Broke(amount=1), RuntimeError("wires crossed")])
        raise BaseExceptionGroup("outer", [Declined(code="a"), asyncio.CancelledError(), inner])

    async def main():
        async with lab.engine([work]):
            with pytest.raises(ExceptionGroup) as several:
                await lab.finish(work.execute("k"))
            first, second, third = several.value.exceptions
            assert first == Declined(code="a")
            assert second == Broke(amount=1)
            assert isinstance(third, Defect)
            polled = await work.poll(work.execution_id("k"))
            assert isinstance(polled, Complete)
            assert isinstance(polled.exit, Failure)
            assert [type(reason) for reason in polled.exit.cause.reasons] == [Fail, Fail, Die]

    lab.run(main)


def test_an_error_that_the_workflow_has_not_declared_is_a_defect_of_it(lab):
    """API 8: declared by its activity, and not by it."""

    @activity(error=Declined)
    async def charge() -> None:
        raise Declined(code="no-funds")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await charge()

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Defect, match="no-funds") as defect:
                await lab.finish(work.execute("k"))
            assert defect.value.type_name == "Declined"
            assert "charge" in defect.value.traceback or "work" in defect.value.traceback

    lab.run(main)


def test_a_result_that_its_schema_refuses_is_a_defect_of_the_workflow(lab):
    """Bad input of issue 2; also one that is too large."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return "many" if key == "wrong" else 10**3000  # type: ignore[return-value]

    @workflow(idempotency_key=lambda key: key)
    async def wordy(key: str) -> str:
        return "x" * 2_000

    async def main():
        async with lab.engine([work, wordy], payload_limit=1_000):
            with pytest.raises(Defect, match=r'Workflow "work".*integer'):
                await lab.finish(work.execute("wrong"))
            with pytest.raises(Defect, match=r"(?i)limit is 1,000"):
                await lab.finish(wordy.execute("k"))
            assert await wordy.handle(wordy.execution_id("k")).status() is Status.FAILED

    lab.run(main)


def test_without_capture_a_defect_holds_the_execution(lab):
    """R35: and resume goes on once the code is right; what was recorded is not done again."""
    broken = True
    ran = []

    @activity
    async def act(n: int) -> int:
        ran.append(n)
        return n

    @workflow(idempotency_key=lambda key: key, capture_defects=False, error=Declined)
    async def work(key: str) -> int:
        first = await act(1)
        if key == "declined":
            raise Declined(code="x")
        if broken:
            raise RuntimeError("wires crossed")
        return first + await act(2)

    async def main():
        nonlocal broken
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            waiting = asyncio.ensure_future(handle.result())
            await lab.settle()
            assert not waiting.done()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held, info.finished_at) == (Status.SUSPENDED, "DEFECT", None)
            polled = await handle.poll()
            assert isinstance(polled, Suspended)
            assert polled.cause is not None
            (reason,) = polled.cause.reasons
            assert isinstance(reason, Die)
            assert reason.defect.message == "wires crossed"
            # Still broken: it is held again.
            await handle.resume()
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "DEFECT"
            with pytest.raises(Declined):
                await lab.finish(work.execute("declined"))
            broken = False
            await handle.resume()
            assert await lab.finish(waiting) == 3
        assert ran == [1, 1, 2]

    lab.run(main)


# Trouble with what is stored -----------------------------------------------------------------------------


def test_a_payload_that_today_s_schema_cannot_read_holds_the_execution(lab):
    """R40: nothing is recorded, and it goes on once the schema can read it again."""
    ran = []

    def definition(type_: type):
        @activity(name="Act")
        async def act(what: str) -> None:
            ran.append(what)

        @workflow(name="Work", idempotency_key=str)
        async def work(n: type_) -> str:  # type: ignore[valid-type]
            await act(str(n))
            await sleep("1 hour")
            return str(n)

        return work

    async def main():
        good, bad = definition(str), definition(int)
        async with lab.engine([good]) as engine:
            handle = await good.start("many")
            await lab.settle()
            before = await engine.journal(handle.execution_id)
        async with lab.engine([bad]) as engine:
            await lab.skip("2 hours")
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "UNREADABLE")
            assert "integer" in str(info.cause.to_exception())
            assert await engine.journal(handle.execution_id) == before
        async with lab.engine([good]):
            await good.handle(handle.execution_id).resume()
            assert await lab.result(good.handle(handle.execution_id)) == "many"
        assert ran == ["many"]

    lab.run(main)


def test_a_recorded_result_that_today_s_schema_cannot_read_holds_the_execution(lab):
    """R40: a result, and a declared error that is not declared any more."""

    class Old(BaseModel):
        charge: str

    class New(BaseModel):
        charge: str
        currency: str

    def definition(model: type[BaseModel], errors: tuple[type[Exception], ...], name: str):
        @activity(name="Charge", error=errors)
        async def charge() -> model:  # type: ignore[valid-type]
            if name == "Fails":
                raise Declined(code="x")
            return model(charge="c1", currency="EUR") if model is New else model(charge="c1")

        @workflow(name=name, idempotency_key=lambda key: key)
        async def work(key: str) -> str:
            try:
                charged = await charge()
            except Declined:
                return "declined"
            finally:
                await sleep("1 hour")
            return charged.charge

        return work

    async def main():
        for name, changed in (
            ("Works", definition(New, (Declined,), "Works")),
            ("Fails", definition(Old, (), "Fails")),
        ):
            original = definition(Old, (Declined,), name)
            async with lab.engine([original]) as engine:
                handle = await original.start("k")
                await lab.settle()
                before = await engine.journal(handle.execution_id)
            async with lab.engine([changed]) as engine:
                await lab.skip("2 hours")
                info = await engine.describe(handle.execution_id)
                assert (info.status, info.held) == (Status.SUSPENDED, "UNREADABLE")
                cause = info.cause.to_exception()
                assert "Charge" in str(cause)
                assert repr(await engine.journal(handle.execution_id)) == repr(before)
            async with lab.engine([original]):
                await original.handle(handle.execution_id).resume()
                expected = "c1" if name == "Works" else "declined"
                assert await lab.result(original.handle(handle.execution_id)) == expected

    lab.run(main)


def test_code_that_no_longer_fits_its_journal_is_held_with_a_diff(lab):
    """R8: before anything is given out; with the old code it goes on."""
    ran = []

    def definition(cents: int):
        @activity(name="Charge")
        async def charge(cents: int) -> str:
            ran.append(cents)
            return f"charged {cents}"

        @workflow(name="Work", idempotency_key=lambda key: key)
        async def work(key: str) -> str:
            charged = await charge(cents)
            await sleep("1 hour")
            return charged

        return work

    async def main():
        old, new = definition(500), definition(700)
        async with lab.engine([old]):
            handle = await old.start("k")
            await lab.settle()
        async with lab.engine([new]) as engine:
            await lab.skip("2 hours")
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "DIVERGENCE")
            said = str(info.cause.to_exception())
            assert "cents: 500 → 700" in said
            assert "test_looking.py" in said
        async with lab.engine([old]):
            await old.handle(handle.execution_id).resume()
            assert await lab.result(old.handle(handle.execution_id)) == "charged 500"
        assert ran == [500]

    lab.run(main)


def test_a_result_that_cannot_be_read_is_told_to_who_asks(lab):
    """R40: of a finished execution, by a client with other types."""

    @workflow(name="Work", idempotency_key=lambda key: key)
    async def writes(key: str) -> str:
        return "many"

    @workflow(name="Work", idempotency_key=lambda key: key)
    async def reads(key: str) -> int:
        return 1

    async def main():
        from perdure import PayloadError

        async with lab.engine([writes]):
            await lab.finish(writes.execute("k"))
            with pytest.raises(PayloadError, match='Workflow "Work"'):
                await reads.poll(reads.execution_id("k"))
            with pytest.raises(PayloadError):
                await lab.finish(reads.handle(reads.execution_id("k")).result())

    lab.run(main)


# Change of code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["at once", "delayed", "behind others"])
def test_a_patch_is_taken_in_the_first_turn_of_the_first_claim(lab, how):
    """R8a: whether its starter takes that turn or a later claim; and it stays taken."""

    @activity
    async def act() -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[bool]:
        seen = [patched("new")]
        await act()
        await sleep("1 hour")
        return [*seen, patched("new"), patched("newer")]

    @workflow(idempotency_key=lambda key: key)
    async def busy(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work, busy], admission=1):
            if how == "at once":
                handle = await work.start("k")
            elif how == "delayed":
                handle = await work.options(delay="5 minutes").start("k")
            else:
                starting = [asyncio.ensure_future(busy.start("b")), asyncio.ensure_future(work.start("k"))]
                await lab.settle()
                handle = await starting[1]
            await lab.skip("10 minutes")
        async with lab.engine([work, busy]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == [True, True, True]
            assert (await lab.steps(engine, handle.execution_id))[0] == ("patch", "new", 0)

    lab.run(main)


def test_a_patch_is_not_taken_by_what_went_past_it_before(lab):
    """R8a."""
    with_patch = False

    @activity
    async def act() -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[bool]:
        seen = [patched("new")] if with_patch else []
        await act()
        await sleep("1 hour")
        return [*seen, patched("new"), patched("later")]

    async def main():
        nonlocal with_patch
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        with_patch = True
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == [False, False, True]

    lab.run(main)


def test_the_logger_is_silent_while_replaying(lab, log):
    """API 2: each line once, also in the first turn of a start that waited."""

    @activity
    async def act() -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        workflow_logger.info("first %s", key)
        await act()
        workflow_logger.info("second %s", key)
        await sleep("1 hour")
        workflow_logger.info("third %s", key)
        await sleep("1 hour")

    async def main():
        async with lab.engine([work]):
            first = await work.start("a")
            await work.options(delay="1 second").start("b")
            await lab.skip("90 minutes")
        async with lab.engine([work]):
            await lab.result(work.handle(first.execution_id))
        said = [record for record in log.records if record.name == "perdure.workflow"]
        assert sorted(record.getMessage() for record in said) == [
            "first a", "first b", "second a", "second b", "third a", "third b",
        ]  # fmt: skip
        assert {record.workflow for record in said} == {"work"}
        assert {record.execution_id for record in said if record.getMessage().endswith("a")} == {first.execution_id}

    lab.run(main)


# What a body may not ask -----------------------------------------------------------------------------------


def test_reads_of_other_executions_in_a_body_are_refused(lab):
    """R42."""

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        handle = other.handle(other.execution_id("k"))
        engine = held["engine"]
        seen = []

        async def listed() -> None:
            async for _ in engine.executions():
                pass

        for question in (
            handle.poll, handle.status, handle.result, handle.explain, lambda: handle.read("progress"),
            lambda: handle.resume(skip=True), lambda: other.poll(handle.execution_id),
            lambda: engine.poll(handle.execution_id), lambda: engine.describe(handle.execution_id),
            lambda: engine.journal(handle.execution_id), lambda: engine.resume(handle.execution_id), listed,
            lambda: engine.interrupt(handle.execution_id), lambda: engine.start(other, "x"),
        ):  # fmt: skip
            try:
                await question()
            except WorkflowIOError as refused:
                seen.append(str(refused))
        return seen

    held = {}

    async def main():
        async with lab.engine([work, other]) as engine:
            held["engine"] = engine
            refusals = await lab.finish(work.execute("k"))
            assert len(refusals) == 14
            assert all("activity" in said for said in refusals)

    lab.run(main)


def test_the_same_questions_in_an_activity_are_ordinary_ones(lab):
    """R42."""

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> int:
        return 5

    @activity
    async def ask() -> list[str]:
        handle = await other.start("k")
        return [
            str(await handle.result()),
            await handle.status(),
            str(len([1 async for _ in held["engine"].executions()])),
        ]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        return await ask()

    held = {}

    async def main():
        async with lab.engine([work, other]) as engine:
            held["engine"] = engine
            assert await lab.finish(work.execute("k")) == ["5", "SUCCEEDED", "2"]

    lab.run(main)


def test_what_is_due_beyond_the_calendar_can_still_be_looked_at(lab):
    """R40: datetimes end with the year 9999, and one such execution must not spoil every listing."""

    @workflow(idempotency_key=lambda key: key)
    async def far(key: str) -> None:
        await sleep("500000 weeks")

    @workflow(idempotency_key=lambda key: key)
    async def asyncio_far(key: str) -> None:
        await asyncio.sleep(9_000 * 365 * 86_400)

    async def main():
        async with lab.engine([far, asyncio_far]) as engine:
            handles = [
                await far.start("k"),
                await asyncio_far.start("k"),
                await far.options(delay="500000 weeks").start("delayed"),
            ]
            await lab.settle()
            told = {info.execution_id: info async for info in engine.executions()}
            for handle, ends in zip(handles, [True, False, True], strict=True):
                info = await engine.describe(handle.execution_id)
                assert info == told[handle.execution_id]
                assert info.status is Status.SUSPENDED
                assert (info.wake_at == datetime.max.replace(tzinfo=UTC)) is ends
                assert all(wait.due_at in {None, info.wake_at} for wait in info.waits)
            assert await handles[0].poll() is not None
            assert len(await engine.journal(handles[0].execution_id)) == 1

    lab.run(main)
