"""Who an execution is, and what a second start of it does (R1 to R4)."""

import asyncio

import pytest
from pydantic import BaseModel

from perdure import (
    Complete,
    Defect,
    Failure,
    PayloadMismatchError,
    Status,
    Success,
    Suspended,
    TypedError,
    UsageError,
    Workflow,
    activity,
    execution_id,
    sleep,
    workflow,
)
from perdure.errors import ExecutionExistsError, ExecutionNotFoundError, ExecutionTimeoutError

from tests.engine.lab import Gate


def test_without_a_key_each_start_is_a_new_execution(lab):
    """R1."""

    @workflow
    async def who() -> str:
        return execution_id()

    async def main():
        async with lab.engine([who]):
            first, second = await who.start(), await who.start()
            assert first.execution_id != second.execution_id
            assert await lab.result(first) == first.execution_id
            assert await lab.result(second) == second.execution_id
            with pytest.raises(UsageError, match="no idempotency_key"):
                who.execution_id()

    lab.run(main)


def test_the_same_given_id_is_one_execution(lab):
    """R1: an id that the caller's side has made lets a repeated request join."""
    ran = []

    @activity
    async def act() -> None:
        ran.append(execution_id())

    @workflow
    async def once() -> None:
        await act()

    async def main():
        async with lab.engine([once]):
            named = once.options(execution_id="ab" * 16)
            first, again = await named.start(), await named.start()
            await lab.result(first)
            await lab.result(again)
            await named.execute()
        assert ran == ["ab" * 16]

    lab.run(main)


def test_the_key_is_made_after_validation_and_defaults(lab):
    """R1: whatever of "5", 5 and the default is passed, the key is made from what is recorded."""

    @workflow(idempotency_key=lambda n, unit: f"{n!r}/{unit}")
    async def count(n: int, unit: str = "kg") -> str:
        return f"{n} {unit}"

    async def main():
        async with lab.engine([count]) as engine:
            ids = {
                (await count.start("5")).execution_id,  # type: ignore[arg-type]
                (await count.start(5)).execution_id,
                (await count.start(n=5, unit="kg")).execution_id,
            }
            assert len(ids) == 1
            assert (await engine.describe(ids.pop())).key == "5/kg"

    lab.run(main)


def test_a_second_start_joins_what_runs(lab):
    """R2."""
    ran = []
    gate = Gate()

    @activity
    async def act() -> int:
        ran.append(1)
        await gate.wait()
        return len(ran)

    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> int:
        return await act()

    async def main():
        async with lab.engine([once]):
            first = await once.start("k")
            await lab.settle()
            waiting = [asyncio.ensure_future(once.execute("k")) for _ in range(3)]
            second = await once.start("k")
            await lab.settle()
            gate.open()
            assert await lab.result(first) == await lab.result(second) == 1
            assert [await each for each in waiting] == [1, 1, 1]
        assert ran == [1]

    lab.run(main)


def test_starts_at_the_same_moment_are_one_execution(lab):
    """R2: also before the first of them is durable."""
    ran = []

    @activity
    async def act() -> None:
        ran.append(1)

    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> int:
        await act()
        return len(ran)

    async def main():
        async with lab.engine([once]):
            assert await lab.finish(asyncio.gather(*(once.execute("k") for _ in range(10)))) == [1] * 10
        assert ran == [1]

    lab.run(main)


def test_a_second_start_joins_what_is_suspended(lab):
    """R2."""
    began = []

    @activity
    async def act() -> None:
        began.append(1)

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await act()
        await sleep("1 hour")
        return "rested"

    async def main():
        async with lab.engine([nap]):
            first = await nap.start("k")
            await lab.settle()
            assert await first.status() is Status.SUSPENDED
            second = await nap.start("k")
            assert await second.status() is Status.SUSPENDED
            assert await lab.result(second) == "rested"
        assert began == [1]

    lab.run(main)


def test_a_second_start_joins_what_has_succeeded_or_failed(lab):
    """R2: also when it failed, and after a restart."""
    ran = []

    class Declined(TypedError):
        code: str

    @activity
    async def act(how: str) -> None:
        ran.append(how)

    @workflow(idempotency_key=lambda key, how: key, error=Declined)
    async def end(key: str, how: str) -> str:
        await act(how)
        if how == "declined":
            raise Declined(code="no-funds")
        if how == "broken":
            raise RuntimeError("wires crossed")
        return how

    async def outcomes() -> None:
        assert await lab.finish(end.execute("a", "fine")) == "fine"
        with pytest.raises(Declined) as declined:
            await lab.finish(end.execute("b", "declined"))
        assert declined.value == Declined(code="no-funds")
        with pytest.raises(Defect, match="wires crossed") as defect:
            await lab.finish(end.execute("c", "broken"))
        assert defect.value.type_name == "RuntimeError"

    async def main():
        async with lab.engine([end]):
            await outcomes()
            await outcomes()
        async with lab.engine([end]):
            await outcomes()
            assert ran == ["fine", "declined", "broken"]
            assert await end.poll(end.execution_id("a", "fine")) == Complete(Success("fine"))
            polled = await end.poll(end.execution_id("b", "declined"))
            assert isinstance(polled, Complete)
            assert isinstance(polled.exit, Failure)
            assert await end.handle(end.execution_id("c", "broken")).status() is Status.FAILED

    lab.run(main)


class Parcel(BaseModel):
    parcel_id: str
    grams: int = 0
    notes: set[str] = set()


def test_another_payload_joins_with_a_warning_that_names_the_fields(lab, log):
    """R2: the first payload stands."""

    @workflow(idempotency_key=lambda parcel: parcel.parcel_id)
    async def weigh(parcel: Parcel) -> int:
        return parcel.grams

    async def main():
        async with lab.engine([weigh]):
            assert await lab.finish(weigh.execute(Parcel(parcel_id="p", grams=1))) == 1
            assert await lab.finish(weigh.execute(Parcel(parcel_id="p", grams=2, notes={"new"}))) == 1
        (said,) = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
        assert "grams" in said
        assert "notes" in said
        assert "parcel_id" not in said

    lab.run(main)


def test_another_payload_can_be_refused_before_anything_is_written(lab):
    """R2: `on_mismatch="raise"`."""

    @workflow(idempotency_key=lambda key, n: key, on_mismatch="raise")
    async def count(key: str, n: int) -> int:
        return n

    async def main():
        async with lab.engine([count]) as engine:
            handle = await count.start("k", 1)
            assert await lab.result(handle) == 1
            before = await lab.record(engine, handle.execution_id), await engine.journal(handle.execution_id)
            with pytest.raises(PayloadMismatchError, match="n differ") as refused:
                await count.start("k", 2)
            assert refused.value.fields == ("n",)
            assert refused.value.execution_id == handle.execution_id
            await lab.settle()
            assert (await lab.record(engine, handle.execution_id), await engine.journal(handle.execution_id)) == before
            assert [info.execution_id async for info in engine.executions()] == [handle.execution_id]

    lab.run(main)


def test_the_same_payload_in_other_bytes_is_the_same(lab, log):
    """R2: equal once decoded; sets have no order, and a field that only came with a default is none that differs."""
    Old = Workflow.make("Ship", payload={"parcel_id": str, "notes": set[str]}, idempotency_key=lambda p: p.parcel_id)
    New = Workflow.make(
        "Ship",
        payload={"parcel_id": str, "notes": set[str], "fragile": bool | None},
        idempotency_key=lambda p: p.parcel_id,
        on_mismatch="raise",
    )

    @Old.implement
    async def ship(payload):
        return None

    async def main():
        async with lab.engine([ship]):
            await lab.finish(Old.execute({"parcel_id": "p", "notes": {"a", "b", "c"}}))
            await lab.finish(Old.execute({"parcel_id": "p", "notes": {"c", "b", "a"}}))
            with pytest.raises(PayloadMismatchError):
                await New.start({"parcel_id": "p", "notes": {"a"}, "fragile": None})
        assert not [record for record in log.records if "another payload" in record.getMessage()]

    lab.run(main)


def test_a_duplicate_can_be_rejected(lab):
    """R2: `on_duplicate="reject"`, whatever has become of the first."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> str:
        await act()
        return key

    async def main():
        careful = once.options(on_duplicate="reject")
        async with lab.engine([once]):
            handle = await careful.start("k")
            with pytest.raises(ExecutionExistsError) as exists:
                await careful.start("k")
            assert exists.value.execution_id == handle.execution_id
            gate.open()
            assert await lab.result(handle) == "k"
            with pytest.raises(ExecutionExistsError):
                await careful.execute("k")
        async with lab.engine([once]):
            with pytest.raises(ExecutionExistsError):
                await careful.start("k")

    lab.run(main)


def test_the_caller_may_go_and_the_execution_goes_on(lab):
    """R4."""
    gate = Gate()
    ended = []

    @activity
    async def act() -> None:
        await gate.wait()
        ended.append(1)

    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> str:
        await act()
        return key

    async def main():
        async with lab.engine([once]):
            caller = asyncio.ensure_future(once.execute("k"))
            await lab.settle()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            await lab.settle()
            assert await once.handle(once.execution_id("k")).status() is Status.RUNNING
            gate.open()
            await lab.settle()
            assert ended == [1]
            assert await lab.finish(once.execute("k")) == "k"

    lab.run(main)


def test_waiting_can_time_out_and_the_execution_goes_on(lab):
    """R4, and API 2: `result(timeout=…)`."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([nap]):
            handle = await nap.start("k")
            began = lab.clock.now()
            with pytest.raises(ExecutionTimeoutError, match=r"goes on|1 minute|60") as late:
                await lab.finish(handle.result(timeout="1 minute"))
            assert isinstance(late.value, TimeoutError)
            assert late.value.execution_id == handle.execution_id
            assert lab.clock.now() - began == 60_000
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_waiting_for_what_does_not_exist_says_so(lab):
    @workflow(idempotency_key=lambda key: key)
    async def once(key: str) -> None: ...

    async def main():
        async with lab.engine([once]) as engine:
            nobody = once.handle("0" * 32)
            assert await nobody.status() is None
            for question in (nobody.result, nobody.resume):
                with pytest.raises(ExecutionNotFoundError) as unknown:
                    await question()
                assert unknown.value.execution_id == "0" * 32
            for look in (engine.describe, engine.journal, engine.resume):
                with pytest.raises(ExecutionNotFoundError):
                    await look("0" * 32)
            assert await nobody.poll() is None
            assert await engine.poll("0" * 32) is None

    lab.run(main)


def test_a_handle_of_another_workflow_is_refused(lab):
    @workflow(idempotency_key=lambda key: key)
    async def one(key: str) -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> int:
        return 1

    async def main():
        async with lab.engine([one, other]):
            await lab.finish(one.execute("k"))
            with pytest.raises(UsageError, match="belongs to workflow 'one'"):
                await other.handle(one.execution_id("k")).poll()
            with pytest.raises(UsageError, match="belongs to workflow 'one'"):
                await lab.finish(other.handle(one.execution_id("k")).result())

    lab.run(main)


def test_a_suspended_execution_shows_itself_as_such(lab):
    """R33."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour", name="settling")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.settle()
            assert await handle.poll() == Suspended(None) == await engine.poll(handle.execution_id)

    lab.run(main)
