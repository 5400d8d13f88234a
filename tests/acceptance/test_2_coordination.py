"""Deferreds, races, children, compensation, interruption, suspension."""

import asyncio
import uuid

import pytest
from pydantic import BaseModel


def unique() -> str:
    return uuid.uuid4().hex


class Decision(BaseModel):
    approved_by: str


def test_deferred_completed_from_outside(open_engine, run):
    from perdure import DurableDeferred, Suspended, TokenParsed, TypedError, workflow

    class Rejected(TypedError):
        reason: str

    Approval = DurableDeferred.make("approval", success=Decision, error=Rejected)
    tokens = {}

    @workflow(idempotency_key=lambda key: key, error=Rejected)
    async def request(key: str) -> str:
        tokens[key] = Approval.token()
        return (await Approval).approved_by

    async def main():
        async with open_engine([request]):
            handle = await request.start(key := unique())
            while not isinstance(await handle.poll(), Suspended):  # noqa: ASYNC110 - a user has nothing else
                await asyncio.sleep(0.01)
            parsed = TokenParsed.from_string(tokens[key])
            assert (parsed.workflow_name, parsed.execution_id, parsed.deferred_name) == (
                "request",
                handle.execution_id,
                "approval",
            )
            assert Approval.token_from_payload(workflow=request, payload=key) == tokens[key]
            assert Approval.token_from_execution_id(workflow=request, execution_id=handle.execution_id) == tokens[key]
            await Approval.succeed(tokens[key], Decision(approved_by="ada"))
            await Approval.succeed(tokens[key], Decision(approved_by="too late"))
            assert await handle.result() == "ada"

            refused = await request.start(key := unique())
            await Approval.fail(Approval.token_from_payload(workflow=request, payload=key), Rejected(reason="late"))
            with pytest.raises(Rejected) as error:
                await refused.result()
            assert error.value.reason == "late"

    run(main)


def test_deferred_survives_a_restart(durable, run):
    from perdure import DurableDeferred, workflow

    Signal = DurableDeferred.make("signal", success=int)

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> int:
        return await Signal

    async def main():
        key = unique()
        async with durable([waits]):
            handle = await waits.start(key)
            await asyncio.sleep(0.2)
        async with durable([]):  # a client without the body
            await Signal.succeed(Signal.token_from_payload(workflow=waits, payload=key), 42)
        async with durable([waits]):
            assert await waits.handle(handle.execution_id).result() == 42

    run(main)


def test_unknown_execution(open_engine, run):
    from perdure import DurableDeferred, ExecutionNotFoundError, workflow

    Signal = DurableDeferred.make("signal", success=int)

    @workflow(idempotency_key=lambda key: key)
    async def waits(key: str) -> int:
        return await Signal

    async def main():
        async with open_engine([waits]):
            with pytest.raises(ExecutionNotFoundError):
                await Signal.succeed(Signal.token_from_payload(workflow=waits, payload=unique()), 1)

    run(main)


def test_into_and_race(open_engine, run):
    from perdure import DurableClock, DurableDeferred, activity, race_all, workflow

    Charge = DurableDeferred.make("charge", success=int)
    cancelled = []

    @activity
    async def charge() -> int:
        return 4200

    @activity
    async def mirror(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            cancelled.append(name)
            raise
        return name

    async def deadline() -> str:
        await DurableClock.sleep(name="deadline", duration="1 hour")
        return "timed-out"

    @workflow(idempotency_key=lambda key: key)
    async def body(key: str) -> list:
        amount = await Charge.into(charge())
        again = await Charge
        data = await DurableDeferred.race_all("fetch-or-timeout", [mirror("data", 0.01), deadline()], success=str)
        fastest = await race_all("fastest-mirror", [mirror("slow", 30), mirror("quick", 0.05)])
        return [amount, again, data, fastest]

    async def main():
        async with open_engine([body]):
            assert await body.execute(unique()) == [4200, 4200, "data", "quick"]
        assert cancelled == ["slow"]

    run(main)


def test_timeouts_are_durable_timers(open_engine, run):
    from perdure import DurableDeferred, workflow

    Never = DurableDeferred.make("never", success=int)

    @workflow(idempotency_key=lambda key: key)
    async def impatient(key: str) -> str:
        try:
            async with asyncio.timeout(0.2):
                await Never
        except TimeoutError:
            return "gave up"
        return "?"

    async def main():
        async with open_engine([impatient]):
            assert await impatient.execute(unique()) == "gave up"

    run(main)


def test_child_executions(open_engine, run):
    from perdure import TypedError, activity, workflow

    class Nope(TypedError):
        n: int

    @activity
    async def double(n: int) -> int:
        return 2 * n

    @workflow(idempotency_key=lambda key, n: f"{key}/{n}", error=Nope)
    async def child(key: str, n: int) -> int:
        if n < 0:
            raise Nope(n=n)
        return await double(n)

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> int:
        try:
            await child.execute(key, -1)
        except Nope as error:
            assert error.n == -1  # noqa: PT017 - in a body
        return sum(await asyncio.gather(*(child.execute(key, n) for n in range(10))))

    async def main():
        async with open_engine([parent, child]):
            assert await parent.execute(unique()) == 90

    run(main)


def test_compensation_runs_backwards_and_only_on_failure(open_engine, run):
    from perdure import Defect, activity, add_finalizer, with_compensation, workflow

    log = []

    @activity
    async def do(what: str) -> str:
        log.append(f"do {what}")
        return what

    @activity
    async def undo(what: str) -> None:
        log.append(f"undo {what}")

    @workflow(idempotency_key=lambda key, fail: key)
    async def trip(key: str, fail: bool) -> str:
        async def closing(exit) -> None:
            log.append("closing")

        await add_finalizer(closing)
        await with_compensation(do("flight"), lambda value, cause: undo(value))
        await with_compensation(do("hotel"), lambda value, cause: undo(value))
        if fail:
            raise RuntimeError("no car")
        return "booked"

    async def main():
        async with open_engine([trip]):
            assert await trip.execute(unique(), False) == "booked"
            assert log == ["do flight", "do hotel", "closing"]
            log.clear()
            with pytest.raises(Defect, match="no car"):
                await trip.execute(unique(), True)
            assert log == ["do flight", "do hotel", "undo hotel", "undo flight", "closing"]

    run(main)


def test_interrupt_compensates_and_reaches_children(open_engine, run):
    from perdure import DurableDeferred, Interrupted, Status, activity, with_compensation, workflow

    Never = DurableDeferred.make("never", success=int)
    log = []

    @activity
    async def reserve() -> str:
        return "seat"

    @activity
    async def release(what: str) -> None:
        log.append(f"release {what}")

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> int:
        return await Never

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> int:
        await with_compensation(reserve(), lambda value, cause: release(value))
        return await child.execute(key)

    async def main():
        async with open_engine([parent, child]):
            handle = await parent.start(key := unique())
            child_handle = child.handle(child.execution_id(key))
            while await child_handle.status() != Status.SUSPENDED:  # noqa: ASYNC110 - a user has nothing else
                await asyncio.sleep(0.01)
            await handle.interrupt()
            with pytest.raises(Interrupted):
                await handle.result()
            with pytest.raises(Interrupted):
                await child_handle.result()
            assert log == ["release seat"]
            assert await handle.status() == Status.INTERRUPTED

    run(main)


def test_suspend_on_failure_and_resume(open_engine, run):
    from perdure import Suspended, activity, workflow

    healthy, ran = False, []

    @activity
    async def before() -> str:
        ran.append("before")
        return "before"

    @activity
    async def fragile() -> str:
        ran.append("fragile")
        if not healthy:
            raise RuntimeError("the far side is down")
        return "fine"

    @workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
    async def careful(key: str) -> list[str]:
        return [await before(), await fragile()]

    async def main():
        nonlocal healthy
        async with open_engine([careful]):
            handle = await careful.start(unique())
            while not isinstance(result := await handle.poll(), Suspended):  # noqa: ASYNC110 - a user has nothing else
                await asyncio.sleep(0.01)
            assert "the far side is down" in str(result.cause)
            healthy = True
            await handle.resume()
            assert await handle.result() == ["before", "fine"]
        assert ran == ["before", "fragile", "fragile"]

    run(main)
