"""Activities: recorded once, each call with its own record, and known to the outside by a key (R10, R14)."""

import asyncio
import contextlib
import hashlib
from decimal import Decimal

import pytest
from pydantic import BaseModel

from perdure import (
    Activity,
    Defect,
    Failure,
    OutsideExecutionError,
    PayloadError,
    Schedule,
    Status,
    Success,
    TypedError,
    activity,
    current_attempt,
    current_engine,
    execution_id,
    idempotency_key,
    sleep,
    workflow,
)

from tests.engine.lab import Gate, successes


class Declined(TypedError):
    code: str


class Lost(Declined):
    where: str = "at sea"


class Jammed(Exception):
    """A declared error that is no TypedError."""


def test_a_recorded_activity_never_runs_again(lab):
    """Promise 2 of the design: across suspensions and restarts, async and on a thread."""
    ran = []

    @activity
    async def light(n: int) -> int:
        ran.append(n)
        return n

    @activity
    def heavy(n: int) -> int:
        ran.append(n)
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int]:
        first = [await light(1), await heavy(2)]
        await sleep("1 hour")
        second = [await heavy(3), await light(4)]
        await sleep("1 hour")
        return first + second

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("30 minutes")
            assert ran == [1, 2]
        async with lab.engine([work]):
            await lab.skip("45 minutes")
            assert ran == [1, 2, 3, 4]
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == [1, 2, 3, 4]
            assert successes(await engine.journal(handle.execution_id)) == [1, 2, 3, 4]
        assert ran == [1, 2, 3, 4]

    lab.run(main)


def test_each_call_of_one_name_has_its_own_record(lab):
    """R10: in turn, together, and twice with one input."""
    ran = []

    @activity
    async def stamp(n: int) -> str:
        ran.append(n)
        return f"{n}/{len(ran)}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = [await stamp(1), await stamp(1)]
        seen += await asyncio.gather(stamp(2), stamp(2), stamp(3))
        await sleep("1 hour")
        return [*seen, await stamp(1)]

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.settle()
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == ["1/1", "1/2", "2/3", "2/4", "3/5", "1/6"]
            journal = [entry for entry in await engine.journal(handle.execution_id) if entry.kind == "activity"]
            assert [(entry.input, entry.occurrence) for entry in journal] == [
                ({"n": 1}, 1), ({"n": 1}, 2), ({"n": 2}, 3), ({"n": 2}, 4), ({"n": 3}, 5), ({"n": 1}, 6),
            ]  # fmt: skip
        assert ran == [1, 1, 2, 2, 3, 1]

    lab.run(main)


def test_every_exit_is_recorded_and_replayed_as_the_same_class(lab):
    """R10, R7: a success, a declared error, a subclass of one, an exception that is no TypedError, a defect."""
    ran = []

    @activity(error=(Declined, Jammed))
    async def act(how: str) -> str:
        ran.append(how)
        if how == "declined":
            raise Declined(code="no-funds")
        if how == "lost":
            raise Lost(code="gone", where="in Cairo")
        if how == "jammed":
            raise Jammed("tray", 2)
        if how == "broken":
            raise ZeroDivisionError("wires crossed")
        return how

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = []
        for how in ("fine", "declined", "lost", "jammed", "broken"):
            try:
                seen.append(await act(how))
            except Declined as error:
                seen.append(f"{type(error).__name__} {error.code} {getattr(error, 'where', '')}")
            except Jammed as error:
                seen.append(f"Jammed {error.args}")
            except Defect as defect:
                seen.append(f"{defect.type_name} {defect.message} {'ZeroDivisionError' in defect.traceback}")
            await sleep("1 hour")
        return seen

    async def main():
        async with lab.engine([work]):
            handle = await work.start("k")
            await lab.skip("150 minutes")
        async with lab.engine([work]) as engine:
            assert await lab.result(work.handle(handle.execution_id)) == [
                "fine", "Declined no-funds ", "Lost gone in Cairo", "Jammed ('tray', 2)",
                "ZeroDivisionError wires crossed True",
            ]  # fmt: skip
            kinds = [
                type(entry.exit) for entry in await engine.journal(handle.execution_id) if entry.kind == "activity"
            ]
            assert kinds == [Success, Failure, Failure, Failure, Failure]
        assert ran == ["fine", "declined", "lost", "jammed", "broken"]

    lab.run(main)


def test_live_and_replay_see_the_same_value(lab):
    """R10: the live value passes through its schema too."""

    class Item(BaseModel):
        price: Decimal
        tags: tuple[str, ...] = ()

    @activity
    async def price() -> Item:
        return Item.model_construct(price="1.50", tags=["a"])  # type: ignore[arg-type]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        item = await price()
        seen = [repr(item)]
        await sleep("1 hour")
        return [*seen, repr(item)]

    async def main():
        async with lab.engine([work]):
            live, replayed = await lab.finish(work.execute("k"))
            assert live == replayed == "Item(price=Decimal('1.50'), tags=('a',))"

    lab.run(main)


def test_a_result_that_its_schema_refuses_is_a_defect_that_says_so(lab):
    """R10: with the activity's name, and it is not tried again: what it does is done."""
    ran = []

    @activity(retry=Schedule.spaced("1 second").times(3))
    async def count() -> int:
        ran.append(1)
        return "many"  # type: ignore[return-value]

    @activity
    def unserialisable() -> object:
        return object()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await (count() if key == "count" else unserialisable())  # type: ignore[return-value]

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(Defect, match=r'Activity "count".*integer'):
                await lab.finish(work.execute("count"))
            assert await lab.steps(engine, work.execution_id("count")) == [("activity", "count", 1)]
            with pytest.raises(Defect, match='Activity "unserialisable"'):
                await lab.finish(work.execute("unserialisable"))
        assert ran == [1]

    lab.run(main)


def test_a_type_whose_own_code_raises_does_not_stop_the_execution(lab):
    """A serializer or a validator of the user's may raise anything."""
    from pydantic import field_serializer, field_validator

    class Nasty(BaseModel):
        n: int

        @field_serializer("n")
        def write(self, n: int) -> int:
            if n == 1:
                raise KeyError("written")
            return n

        @field_validator("n")
        @classmethod
        def read(cls, n: int) -> int:
            if n == 2:
                raise RuntimeError("read")
            return n

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @activity
    async def act(n: int) -> Nasty:
        if n == 3:
            raise Mute
        return Nasty.model_construct(n=n)

    @workflow(idempotency_key=str)
    async def work(n: int) -> int:
        return (await act(n)).n

    async def main():
        async with lab.engine([work]):
            for n in (1, 2, 3):
                with pytest.raises(Defect):
                    await lab.finish(work.execute(n))
            assert await lab.finish(work.execute(4)) == 4

    lab.run(main)


def test_an_undeclared_field_of_an_error_that_cannot_be_recorded_is_a_defect(lab):
    """R10."""

    class Odd(Exception):
        pass

    @activity(error=Odd)
    async def act() -> None:
        raise Odd(object())

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await act()

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Defect, match="Odd"):
                await lab.finish(work.execute("k"))

    lab.run(main)


def test_arguments_are_checked_at_the_call(lab):
    """API 3: `PayloadError` in the body, nothing is recorded."""
    ran = []

    @activity
    async def act(n: int, *, unit: str = "kg") -> str:
        ran.append(n)
        return f"{n} {unit}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = []
        for args, kwargs in ((("x",), {}), ((), {}), ((1, 2), {}), ((1,), {"colour": "red"}), ((1,), {"unit": "g"})):
            try:
                seen.append(await act(*args, **kwargs))
            except PayloadError as refused:
                seen.append(",".join(refused.fields) or "place")
        return seen

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == ["n", "n", "place", "colour", "1 g"]
        assert ran == [1]

    lab.run(main)


def test_an_inline_activity_is_awaited_itself(lab):
    """API 3: with an async function, a plain one, and a lambda that gives a coroutine."""
    import threading

    loop_thread = threading.get_ident()
    where = {}

    async def fetch(what: str) -> str:
        where[what] = threading.get_ident() == loop_thread
        return what

    def read(what: str) -> str:
        where[what] = threading.get_ident() == loop_thread
        return what

    async def plain() -> str:
        return await fetch("async")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        return [
            await Activity.make("A", success=str, execute=plain),
            await Activity.make("B", success=str, execute=lambda: read("thread")),
            await Activity.make("C", success=str, execute=lambda: fetch("lambda")),
        ]

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == ["async", "thread", "lambda"]
        assert where == {"async": True, "thread": False, "lambda": True}

    lab.run(main)


def test_a_lambda_s_coroutine_is_an_attempt_like_any_other(lab):
    """API 3: it fails, is tried again, times out and is cut off like an async function's."""
    attempts = []
    gate = Gate()

    async def act() -> str:
        attempts.append(current_attempt())
        if len(attempts) == 1:
            raise RuntimeError("first")
        if len(attempts) == 2:
            await gate.wait()
        return "third"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await Activity.make(
            "A",
            success=str,
            execute=lambda: act(),  # noqa: PLW0108 - a plain function that gives a coroutine
            retry=Schedule.recurs(5),
            timeout="10 seconds",
        )

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == "third"
        assert attempts == [1, 2, 3]

    lab.run(main)


def test_two_inline_activities_of_one_name_at_once_are_refused(lab):
    """R8: nothing tells them apart on replay."""

    async def one() -> int:
        return 1

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(
            Activity.make("Same", success=int, execute=one)(), Activity.make("Same", success=int, execute=one)()
        )

    async def main():
        async with lab.engine([work]):
            with pytest.raises(Defect, match="give each a name"):
                await lab.finish(work.execute("k"))

    lab.run(main)


def test_calling_an_activity_outside_a_workflow_just_runs_it(lab):
    """API 3: also inside another activity, where it is no step."""
    ran = []

    @activity
    async def inner(n: int) -> int:
        ran.append(n)
        return n

    @activity
    async def outer(n: int) -> int:
        return await inner(n) + 1

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        return await outer(1)

    async def main():
        assert await inner(0) == 0
        async with lab.engine([work]) as engine:
            assert await inner(5) == 5
            assert await lab.finish(work.execute("k")) == 2
            assert await lab.steps(engine, work.execution_id("k")) == [("activity", "outer", 1)]
        assert ran == [0, 5, 1]

    lab.run(main)


def test_a_call_works_wherever_a_coroutine_does(lab):
    """R10."""

    @activity
    async def double(n: int) -> int:
        return 2 * n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int]:
        task = asyncio.create_task(double(1))
        async with asyncio.TaskGroup() as group:
            other = group.create_task(double(2))
        waited = await asyncio.wait_for(double(3), 60)
        shielded = await asyncio.shield(asyncio.ensure_future(double(4)))
        done, _ = await asyncio.wait({asyncio.ensure_future(double(5)), asyncio.ensure_future(double(6))})
        return [await task, other.result(), waited, shielded, *sorted(each.result() for each in done)]

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == [2, 4, 6, 8, 10, 12]

    lab.run(main)


# Contexts and keys -----------------------------------------------------------------------------------


def test_each_attempt_gets_a_copy_of_the_body_s_context(lab):
    """R14: what an attempt sets reaches neither the body nor the next attempt."""
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen = []

    @activity(retry=Schedule.recurs(2))
    async def act() -> str:
        seen.append(who.get())
        who.set(f"attempt {current_attempt()}")
        if current_attempt() < 3:
            raise RuntimeError("again")
        return who.get()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        who.set("body")
        return [await act(), who.get()]

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k")) == ["attempt 3", "body"]
        assert seen == ["body"] * 3

    lab.run(main)


def test_an_activity_finds_its_execution_its_attempt_and_its_engine(lab):
    """R14; on the loop and on a thread."""

    @activity
    async def there() -> tuple[str, int, bool]:
        return execution_id(), current_attempt(), current_engine() is found["engine"]

    @activity
    def on_thread() -> tuple[str, int, bool]:
        return execution_id(), current_attempt(), current_engine() is found["engine"]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[tuple[str, int, bool]]:
        assert current_attempt() == 1
        return [await there(), await on_thread()]

    found = {}

    async def main():
        async with lab.engine() as other, lab.engine([work]) as engine:
            found["engine"] = engine
            assert await lab.finish(engine.execute(work, "k")) == [(work.execution_id("k"), 1, True)] * 2
            assert other is not engine

    lab.run(main)


def test_the_step_s_idempotency_key_is_the_digest_of_what_is_asked(lab):
    """R14: over `{execution_id}-{name}/{first 16 hex of SHA-256 of the encoded input}#{n}`."""

    @activity(name="Charge")
    async def charge(cents: int) -> str:
        return idempotency_key()

    @activity(name="Charge/plain")
    def charge_on_thread(cents: int) -> str:
        return idempotency_key()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        in_turn = [await charge(5), await charge(7), await charge(5), await charge_on_thread(5)]
        return in_turn + await asyncio.gather(charge(5), charge(9))

    def digest(owner: str, name: str, cents: int, n: int) -> str:
        fingerprint = hashlib.sha256(f'{{"cents":{cents}}}'.encode()).hexdigest()[:16]
        return hashlib.sha256(f"{owner}-{name}/{fingerprint}#{n}".encode()).hexdigest()[:32]

    async def main():
        async with lab.engine([work]):
            owner = work.execution_id("k")
            assert await lab.finish(work.execute("k")) == [
                digest(owner, "Charge", 5, 1),
                digest(owner, "Charge", 7, 1),
                digest(owner, "Charge", 5, 2),
                digest(owner, "Charge/plain", 5, 1),
                digest(owner, "Charge", 5, 3),
                digest(owner, "Charge", 9, 1),
            ]

    lab.run(main)


def test_the_step_s_key_is_the_same_on_every_attempt_and_after_a_crash(lab):
    """R14."""
    keys = []
    gate = Gate()

    @activity(retry=Schedule.spaced("10 seconds").times(3))
    async def charge(cents: int) -> str:
        keys.append((cents, current_attempt(), idempotency_key()))
        if cents == 1:
            return "other"
        if current_attempt() == 2 and not gate._open.is_set():
            await gate.wait()
        if current_attempt() < 3:
            raise RuntimeError("again")
        return idempotency_key()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        _, charged = await asyncio.gather(charge(1), charge(5))
        return charged

    async def main():
        async with lab.doomed([work]):
            handle = await work.start("k")
            await lab.skip("10 seconds")
            assert gate.entered == 1
        gate.open()
        async with lab.engine([work]):
            key = await lab.result(work.handle(handle.execution_id))
        fives = [(attempt, one) for cents, attempt, one in keys if cents == 5]
        assert fives == [(1, key), (2, key), (2, key), (3, key)]
        assert [one for cents, _, one in keys if cents == 1] != [key]
        assert len([1 for cents, _, _ in keys if cents == 1]) == 1

    lab.run(main)


def test_effect_s_idempotency_key_has_its_vectors(lab, log):
    """R14: `idempotency_key(name)`, with the attempt and without."""

    @activity(name="ChargeCard", retry=Schedule.recurs(1))
    async def charge() -> list[str]:
        if current_attempt() == 1:
            raise RuntimeError("again")
        return [idempotency_key("ChargeCard"), idempotency_key("ChargeCard", include_attempt=True)]

    @workflow(name="ProcessOrder", idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        return await charge()

    async def main():
        async with lab.engine([work]):
            plain, with_attempt = await lab.finish(work.execute("order-123"))
        assert plain == "6cdd44c1259d3728da6ebe7554a35064"
        expected = hashlib.sha256(b"fc0cd826dc208968186d2747adc6831f-2-ChargeCard").hexdigest()[:32]
        assert with_attempt == expected
        assert not [record for record in log.records if "one key per execution" in record.getMessage()]

    lab.run(main)


def test_effect_s_key_warns_where_the_activity_is_called_twice(lab, log):
    """R14: its calls would share the key. Also when the kernel was put away meanwhile."""

    @activity(name="ChargeCard")
    async def charge(cents: int) -> str:
        await sleep("1 second")
        return idempotency_key("ChargeCard")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> bool:
        return await charge(1) == await charge(2)

    async def main():
        async with lab.engine([work]):
            assert await lab.finish(work.execute("k"))
        (said,) = [record.getMessage() for record in log.records if "one key per execution" in record.getMessage()]
        assert "'ChargeCard'" in said

    lab.run(main)


def test_what_belongs_to_an_activity_is_refused_elsewhere(lab):
    from perdure import heartbeat, last_heartbeat

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        seen = []
        for call in (idempotency_key, heartbeat, lambda: last_heartbeat(int)):
            try:
                call()
            except OutsideExecutionError as outside:
                seen.append(str(outside))
        return seen

    async def main():
        async with lab.engine([work]):
            assert len(await lab.finish(work.execute("k"))) == 3
        for call in (idempotency_key, heartbeat, execution_id, current_attempt):
            with pytest.raises(OutsideExecutionError):
                call()

    lab.run(main)


def test_execute_inside_an_activity_is_an_ordinary_start(lab):
    """R14: no child; it finds the activity's engine."""

    @workflow(idempotency_key=lambda key: key)
    async def inner(key: str) -> str:
        await sleep("1 hour")
        return f"inner {key}"

    @activity
    async def ask(key: str) -> str:
        return await inner.execute(key)

    @workflow(idempotency_key=lambda key: key)
    async def outer(key: str) -> str:
        return await ask(key)

    async def main():
        async with lab.engine([inner, outer]) as engine:
            assert await lab.finish(outer.execute("k")) == "inner k"
            assert (await lab.record(engine, inner.execution_id("k"))).parent is None

    lab.run(main)


# How many at once ------------------------------------------------------------------------------------


def test_no_more_activities_run_at_once_than_the_engine_may(lab):
    """API 7: `concurrency`; the rest waits its turn, first come, first served."""
    running = []
    order = []
    gates = [Gate() for _ in range(6)]

    @activity
    async def act(n: int) -> None:
        running.append(n)
        order.append(n)
        await gates[n].wait()
        running.remove(n)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(*(act(n) for n in range(6)))

    async def main():
        async with lab.engine([work], concurrency=2):
            handle = await work.start("k")
            await lab.settle()
            for done in range(6):
                assert len(running) == min(2, 6 - done)
                gates[done].open()
                await lab.settle()
            await lab.result(handle)
        assert order == [0, 1, 2, 3, 4, 5]

    lab.run(main)


def test_a_hundred_activities_run_at_once_and_the_others_are_said_to_wait_for_a_place(lab):
    """R33: an operator sees why one of them does not begin."""
    gate = Gate()

    @activity
    async def act(n: int) -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key, count: key)
    async def work(key: str, count: int) -> None:
        await asyncio.gather(*(act(n) for n in range(count)))

    async def main():
        async with lab.engine([work]) as engine:
            many = await work.start("many", 100)
            one = await work.start("one", 1)
            await lab.settle()
            assert gate.entered == 100
            assert not any(wait.queued for wait in (await engine.describe(many.execution_id)).waits)
            assert [wait.queued for wait in (await engine.describe(one.execution_id)).waits] == [True]
            said = await engine.explain(one.execution_id)
            assert "its engine runs no more at once" in said
            assert "which runs" not in said
            gate.open()
            await lab.result(many)
            await lab.result(one)

    lab.run(main)


def test_what_is_due_later_is_not_said_to_wait_for_a_place(lab):
    """R33: of two calls of one name each is told for itself."""
    gate = Gate()

    @activity(retry=Schedule.spaced("1 hour"))
    async def act(n: int) -> None:
        if n == 1:
            raise RuntimeError
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(act(1), act(2), act(3))

    async def main():
        async with lab.engine([work], concurrency=1) as engine:
            handle = await work.start("k")
            await lab.settle()
            waits = (await engine.describe(handle.execution_id)).waits
            # Without its kernel, what runs is all that is known.
            assert [wait.queued for wait in waits] == [False] * (len(waits) - 1) + [True]
            assert [wait.queued for wait in waits if wait.due_at is None] == [False, True]
            gate.open()
            await lab.settle()

    lab.run(main)


def test_plain_functions_that_wait_for_a_thread_take_no_place_from_those_that_need_none(lab):
    """Else a hundred of them would stop every async activity of the process."""
    from tests.engine.lab import ThreadGate

    gate = ThreadGate()
    began = []

    @activity
    def heavy(n: int) -> None:
        began.append(n)
        gate.wait()

    @activity
    async def light() -> str:
        return "light"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(*(heavy(n) for n in range(5)))

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return await light()

    async def main():
        async with lab.engine([work, other], threads=1, concurrency=2):
            handle = await work.start("k")
            await lab.settle()
            assert began == [0]
            assert await lab.result(await other.start("k")) == "light"
            gate.open()
            await lab.result(handle)
        assert began == [0, 1, 2, 3, 4]

    lab.run(main)


def test_a_plain_function_that_is_not_wanted_any_more_gives_its_thread_back(lab):
    """It had got a thread, and stood behind others for its place."""
    gate = Gate()

    @activity
    async def light() -> None:
        await gate.wait()

    @activity
    def heavy(n: int) -> int:
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        waiting = asyncio.create_task(light())
        # Short of the threshold, so that the wait is in memory.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(heavy(1), 0.5)
        await waiting
        return await heavy(2)

    async def main():
        async with lab.engine([work], threads=1, concurrency=1):
            handle = await work.start("k")
            await lab.settle()
            await lab.skip("1 second")
            gate.open()
            assert await lab.result(handle) == 2

    lab.run(main)


def test_plain_functions_share_their_threads(lab):
    """API 7: `threads`; async activities do not count against them."""
    from tests.engine.lab import ThreadGate

    gates = [ThreadGate() for _ in range(3)]
    order = []

    @activity
    def act(n: int) -> int:
        order.append(n)
        gates[n].wait()
        return n

    @activity
    async def light() -> str:
        return "light"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[int]:
        return await asyncio.gather(*(act(n) for n in range(3)))

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return await light()

    async def main():
        async with lab.engine([work, other], threads=1):
            handle = await work.start("k")
            await gates[0].reached()
            assert await other.execute("k") == "light"
            assert order == [0]
            for gate in gates:
                gate.open()
            assert await lab.result(handle) == [0, 1, 2]
        assert order == [0, 1, 2]

    lab.run(main)


def test_a_sleep_in_an_activity_gives_its_place_back_meanwhile(lab):
    """R14: it waits in place, and others may run."""
    order = []

    @activity
    async def sleepy() -> None:
        order.append("to bed")
        await sleep("1 hour")
        order.append("up")

    @activity
    async def lively() -> None:
        order.append("lively")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(sleepy(), lively())

    async def main():
        async with lab.engine([work], concurrency=1):
            await lab.finish(work.execute("k"))
        assert order == ["to bed", "lively", "up"]

    lab.run(main)


def test_places_are_neither_lost_nor_made_by_sleeping_activities(lab):
    """R14: sleeps side by side in one activity, sleeps that are cut short, and a timeout in bed."""
    running = []
    most = []
    gate = Gate()

    @activity(timeout="30 seconds")
    async def sleepy(how: str) -> None:
        if how == "two":
            await asyncio.gather(sleep("10 seconds"), sleep("20 seconds"))
        elif how == "short":
            task = asyncio.create_task(sleep("1 hour"))
            await sleep("5 seconds")
            task.cancel()
            await asyncio.wait([task])
        else:
            await sleep("1 hour")

    @activity
    async def act(n: int) -> None:
        running.append(n)
        most.append(len(running))
        await gate.wait()
        running.remove(n)

    @workflow(idempotency_key=lambda key: key)
    async def bed(key: str) -> None:
        await asyncio.gather(*(sleepy(how) for how in ("two", "short", "long")), return_exceptions=True)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(*(act(n) for n in range(8)))

    async def main():
        async with lab.engine([bed, work], concurrency=3) as engine:
            await lab.finish(bed.execute("k"))
            assert lab.service(engine).slots._free == 3
            handle = await work.start("k")
            await lab.settle()
            gate.open()
            await lab.result(handle)
            assert lab.service(engine).slots._free == 3
        assert max(most) == 3

    lab.run(main)


def test_a_place_that_was_handed_to_somebody_who_has_gone_is_not_lost():
    """API 7: cancelled in the moment between being called and taking it."""
    from perdure._engine.slots import Slots

    async def main():
        slots = Slots(1)
        await slots.take()
        gone, next_one = asyncio.ensure_future(slots.take()), asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        slots.give()
        gone.cancel()
        await asyncio.wait([gone])
        async with asyncio.timeout(1):
            await next_one
        assert not slots.try_take()
        slots.give()
        assert slots.try_take()

    asyncio.run(main())


def test_a_timeout_in_bed_does_not_wait_for_a_place(lab):
    """R12, R14: the attempt is over when its time is, also while every place is taken."""
    gate = Gate()
    ended = []

    @activity(timeout="5 seconds")
    async def sleepy() -> None:
        try:
            await sleep("1 hour")
        finally:
            ended.append(lab.clock.now())

    @activity
    async def busy() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await sleepy()

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> None:
        await busy()

    async def main():
        from perdure import ActivityTimeout

        async with lab.engine([work, other], concurrency=1) as engine:
            began = lab.clock.now()
            handle = await work.start("k")
            await lab.settle()
            blocking = await other.start("k")
            await lab.settle()
            assert gate.entered == 1
            with pytest.raises(ActivityTimeout):
                await lab.result(handle)
            assert ended == [began + 5_000]
            assert lab.clock.now() == began + 5_000
            gate.open()
            await lab.result(blocking)
            assert lab.service(engine).slots._free == 1

    lab.run(main)


def test_a_plain_function_may_ask_its_engine_from_a_loop_of_its_own(lab):
    """API 7: on its thread, `asyncio.run` is how a library of somebody else's calls async code."""

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return await compose(key)

    @activity
    async def compose(key: str) -> str:
        return f"other {key}"

    async def ask() -> list[object]:
        handle = await other.start("a")
        engine = current_engine()
        seen: list[object] = [await handle.result(), await other.execute("b")]
        seen.append((await engine.describe(handle.execution_id)).status.value)
        seen.append(len(await engine.journal(handle.execution_id)))
        seen.append(await handle.status() is (await handle.poll() and Status.SUCCEEDED))
        seen.append(sorted([str(info.key) async for info in engine.executions(workflow=other)]))
        with pytest.raises(PayloadError):
            await engine.start(other, 5)  # type: ignore[arg-type]
        return seen

    @activity
    def act() -> list[object]:
        return asyncio.run(ask())

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[object]:
        return await act()

    async def main():
        async with lab.engine([work, other]):
            expected = ["other a", "other b", "SUCCEEDED", 1, True, ["a", "b"]]
            assert await lab.finish(work.execute("k")) == expected

    lab.run(main)


def test_a_function_s_thread_is_free_while_what_it_returned_is_awaited(lab):
    """R12: `execute=lambda: gateway.charge(order)` needs a thread for no longer than it takes to call it."""
    gate = Gate()

    async def charge(n: int) -> int:
        await gate.wait()
        return n

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> int:
        calls = [Activity.make(f"Charge{n}", success=int, execute=lambda n=n: charge(n)) for n in range(3)]
        return sum(await asyncio.gather(*calls))

    async def main():
        async with lab.engine([work], threads=1):
            handle = await work.start("k")
            await lab.settle()
            assert gate.entered == 3
            gate.open()
            assert await lab.result(handle) == 3

    lab.run(main)
