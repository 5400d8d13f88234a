"""Operating one execution: what `describe` tells of it, and the calls that move or end it (R29, R33, R36, R37, R42)."""

import asyncio

import apsw
import pytest

from perdure import (
    Complete,
    DurableDeferred,
    ExecutionNotFoundError,
    Fail,
    Failure,
    Interrupted,
    PayloadError,
    Schedule,
    Status,
    StoreFileError,
    Success,
    TokenParsed,
    TypedError,
    UsageError,
    WorkflowEngine,
    activity,
    publish,
    sleep,
    with_compensation,
    workflow,
)
from perdure._engine import views
from perdure._values.instant import to_datetime

from tests.engine.lab import Gate


class Busy(TypedError):
    line: int


Approval = DurableDeferred.make("approval", success=str)


@workflow(idempotency_key=lambda key: key)
async def patient(key: str) -> str:
    await sleep("1 day", name="pause")
    return key


# What describe tells -----------------------------------------------------------------------------------


def test_describe_tells_the_last_failure_of_an_attempt(lab):
    """R33: last error and attempts."""

    @activity(error=Busy, retry=Schedule.spaced("2 hours").times(5))
    async def call(line: int) -> str:
        raise Busy(line=line)

    @workflow(idempotency_key=lambda key: key, error=Busy)
    async def phone(key: str) -> str:
        return await call(7)

    async def main():
        async with lab.engine([phone]) as engine:
            handle = await phone.start("k")
            await lab.settle()
            for attempt in (1, 2):
                info = await engine.describe(handle.execution_id)
                assert (info.attempts, info.failed_step) == (attempt, "call")
                assert info.last_error is not None
                assert str(info.last_error) == 'Busy: {"line":7}'
                said = await engine.explain(handle.execution_id)
                assert f"The last failure was attempt {attempt} of activity 'call': Busy" in said
                assert "the next attempt of activity 'call'" in said
                await lab.skip("2 hours")

    lab.run(main)


def test_without_a_failure_there_is_no_last_error(lab):
    async def main():
        async with lab.engine([patient]) as engine:
            handle = await patient.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.last_error, info.attempts, info.failed_step) == (None, 0, None)

    lab.run(main)


def test_describe_does_not_read_the_whole_journal(lab, monkeypatch):
    """Only the end of it: a failure before that is told no more."""
    monkeypatch.setattr(views, "RECENT", 2)

    @activity
    async def step(number: int) -> int:
        if number == 0:
            raise ValueError("the first one")
        return number

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        for number in range(4):
            try:
                await step(number)
            except Exception:  # noqa: BLE001 - the body goes on
                continue
        await sleep("1 day")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).last_error is None

    lab.run(main)


def test_describe_tells_what_the_body_has_published(lab):
    """R42: `progress` by a name of its own."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        publish("progress", {"done": 3})
        publish("note", "halfway")
        await sleep("1 day")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert info.published == {"progress": {"done": 3}, "note": "halfway"}
            assert info.progress == {"done": 3}
            assert await handle.read("note") == "halfway"
            assert await handle.read("progress", dict[str, int]) == {"done": 3}
            assert await handle.read("nothing") is None
            with pytest.raises(PayloadError, match='"note", published by workflow "work"'):
                await handle.read("note", int)
            with pytest.raises(ExecutionNotFoundError):
                await work.handle("0" * 32).read("note")

    lab.run(main)


def test_describe_tells_parent_deadline_and_what_is_to_be_undone(lab):
    """R27, R31, R44."""

    @activity
    async def reserve(number: int) -> int:
        return number

    @activity
    async def release(number: int) -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def child(key: str) -> None:
        for number in (1, 2):
            await with_compensation(reserve(number), lambda number, cause: release(number))
        await sleep("2 hours")

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> None:
        await child.execute(key)

    async def main():
        async with lab.engine([child, parent]) as engine:
            began = lab.clock.now()
            handle = await parent.options(deadline="3 hours").start("k")
            await lab.settle()
            above = await engine.describe(handle.execution_id)
            (wait,) = above.waits
            below = await engine.describe(child.execution_id("k"))
            assert (wait.kind, wait.name, wait.execution_id) == ("child", "child", below.execution_id)
            assert above.deadline == below.deadline == to_datetime(began + 3 * 3_600_000)
            assert (above.parent, below.parent) == (None, above.execution_id)
            assert below.compensations == ("reserve", "reserve")
            assert [one.kind for one in below.waits] == ["timer"], "a compensation is nothing to wait for"
            said = await engine.explain(above.execution_id)
            assert said.splitlines()[-1].endswith(f"await engine.explain({below.execution_id!r})")
            listed = [info async for info in engine.executions(workflow=child)]
            assert listed == [below]

    lab.run(main)


# A damaged row -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("waits", b"\xff"),
        ("waits", b'[{"kind":1}]'),
        ("waits", b"7"),
        ("exit", b"{"),
        ("exit", b"\xff\xfe"),
        ("attributes", "{"),
        ("attributes", "[1]"),
    ],
)
def test_a_damaged_row_spoils_no_listing(file_lab, column, value):
    """R40, promise 8: it is listed as far as it can be read, and says what cannot."""
    lab = file_lab

    async def main():
        async with lab.engine([patient], retention=None) as engine:
            handles = [await patient.options(attributes={"n": n}).start(str(n)) for n in range(3)]
            await lab.settle()
        damage(lab, column, value, handles[1].execution_id)
        async with lab.engine() as engine:
            listed = {info.key: info async for info in engine.executions()}
            assert {key: info.damaged for key, info in listed.items()} == {"0": (), "1": (column,), "2": ()}
            assert (await engine.describe(handles[1].execution_id)).damaged == (column,)
            assert f"Its row is damaged: {column} cannot be read" in await engine.explain(handles[1].execution_id)
            found = [info.key async for info in engine.executions(attributes={"n": 2})]
            assert found == ["2"]

    lab.run(main)


def test_of_an_execution_whose_journal_cannot_be_read_the_rest_is_told(file_lab):
    """R40: whoever looks is looking for just that."""
    lab = file_lab

    async def main():
        async with lab.engine([patient]) as engine:
            handle = await patient.start("k")
            await lab.settle()
        connection = apsw.Connection(str(lab.path))
        connection.execute("UPDATE perdure_journal SET name = CAST(x'e97465' AS TEXT)")
        connection.close()
        async with lab.engine() as engine:
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.key, info.damaged) == (Status.SUSPENDED, "k", ("journal",))

    lab.run(main)


def test_damaged_attributes_keep_nobody_from_being_claimed(file_lab):
    """R40: one bad byte must not stop the work of a process."""
    lab = file_lab

    async def main():
        async with lab.engine([patient]):
            handles = [await patient.start(key) for key in "abc"]
            await lab.settle()
        damage(lab, "attributes", "{", handles[1].execution_id)
        async with lab.engine([patient]):
            results = [await lab.result(patient.handle(handle.execution_id)) for handle in handles]
            assert results == ["a", "b", "c"]

    lab.run(main)


def test_an_unknown_code_of_being_held_is_shown_as_one_that_cannot_be_read(file_lab):
    """A newer release may have more of them; it is held all the same."""
    lab = file_lab

    async def main():
        async with lab.engine([patient]):
            handle = await patient.start("k")
            await lab.settle()
        damage(lab, "status = 'HELD', held", "OVERSLEPT", handle.execution_id)
        async with lab.engine() as engine:
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "UNREADABLE")

    lab.run(main)


def test_a_row_whose_status_nobody_knows_is_named(file_lab):
    """Nothing can be said of it, and whoever repairs the file needs to know which one it is."""
    lab = file_lab

    async def main():
        # While it is open: who opens such a file is told at once.
        async with lab.engine() as engine:
            handle = await engine.start(patient, "k")
            connection = apsw.Connection(str(lab.path))
            connection.pragma("ignore_check_constraints", 1)
            connection.execute("UPDATE perdure_executions SET status = 'ASLEEP'")
            connection.close()
            with pytest.raises(StoreFileError, match=f"the status of execution {handle.execution_id} is 'ASLEEP'"):
                await engine.describe(handle.execution_id)

    lab.run(main)


def damage(lab, column, value, execution_id):
    connection = apsw.Connection(str(lab.path))
    connection.execute(
        f"UPDATE perdure_executions SET {column} = ? WHERE id = ?",
        (value, bytes.fromhex(execution_id)),
    )
    connection.close()


# The calls that move it --------------------------------------------------------------------------------


def test_interrupt_ends_an_execution_from_the_engine_and_from_its_handle(lab):
    """R29."""

    async def main():
        async with lab.engine([patient]) as engine:
            first, second = await patient.start("a"), await patient.start("b")
            await lab.settle()
            await engine.interrupt(first.execution_id)
            await second.interrupt()
            for handle in (first, second):
                with pytest.raises(Interrupted):
                    await lab.result(handle)
                assert await handle.status() is Status.INTERRUPTED
                await handle.interrupt()
            await engine.interrupt("0" * 32)

    lab.run(main)


def test_an_interrupted_execution_tells_since_when_and_what_is_left_to_undo(lab):
    """R27, R29, R33."""
    gate = Gate()

    @activity
    async def reserve() -> int:
        return 1

    @activity
    async def release(number: int) -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await with_compensation(reserve(), lambda number, cause: release(number))
        await sleep("1 day")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).interrupted_at is None
            asked_at = lab.clock.now()
            await handle.interrupt()
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert info.interrupted_at == to_datetime(asked_at)
            said = await engine.explain(handle.execution_id)
            assert "It was asked to end at" in said
            assert "activity 'release', which runs" in said
            assert f"await engine.interrupt_unsafe({handle.execution_id!r})" in said
            gate.open()
            with pytest.raises(Interrupted):
                await lab.result(handle)

    lab.run(main)


def test_interrupt_unsafe_ends_it_whatever_it_does(lab):
    """R29: the fence is raised, and nothing more is run."""
    gate = Gate()
    swallowed = []

    @activity
    async def stay() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def stubborn(key: str) -> None:
        while True:
            try:
                await stay()
            except asyncio.CancelledError:
                swallowed.append(key)

    async def main():
        async with lab.engine([stubborn]) as engine:
            handle = await stubborn.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            await engine.interrupt_unsafe(handle.execution_id)
            assert isinstance(await handle.poll(), Complete)
            with pytest.raises(Interrupted):
                await lab.result(handle)
            await engine.interrupt_unsafe(handle.execution_id)

    lab.run(main)


def test_rewind_keeps_what_worked_and_goes_on_with_todays_code(lab):
    """R37: under the same id, as a new life."""
    broken = [True]
    done: list[str] = []

    @activity
    async def step(name: str) -> str:
        done.append(name)
        return name

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        first = await step("first")
        if broken:
            raise RuntimeError("a bug")
        return first + await step("second")

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            assert await handle.status() is Status.FAILED
            broken.clear()
            await engine.rewind(handle.execution_id, to=1)
            assert await lab.result(handle) == "firstsecond"
            assert done == ["first", "second"]
            assert (await engine.describe(handle.execution_id)).incarnation == 2
            assert "This is life 2 of its id" in await engine.explain(handle.execution_id)
            with pytest.raises(UsageError, match="to= is a number from 0"):
                await engine.rewind(handle.execution_id, to=-1)

    lab.run(main)


@pytest.mark.parametrize("again", ["rewind", "restart"])
def test_the_next_life_of_an_interrupted_execution_suspends_and_ends_like_any_other(lab, again):
    """R37: what lies in the mailbox of the life before is not waited for by the next one."""

    async def main():
        async with lab.engine([patient]) as engine:
            handle = await patient.start("k")
            await lab.settle()
            await handle.interrupt()
            await lab.settle()
            assert await handle.status() is Status.INTERRUPTED
            if again == "rewind":
                await engine.rewind(handle.execution_id, to=0)
            else:
                await patient.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_fork_begins_another_execution_with_the_same_past(lab):
    """R49: the original is left as it is."""
    done: list[str] = []

    @activity
    async def step(name: str) -> str:
        done.append(name)
        return name

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await step("first") + await step("second")

    async def main():
        async with lab.engine([work]) as engine:
            assert await lab.finish(work.execute("k")) == "firstsecond"
            original = await engine.describe(work.execution_id("k"))
            copy = await engine.fork(original.execution_id, at=1)
            assert copy != original.execution_id
            assert await lab.result(work.handle(copy)) == "firstsecond"
            assert done == ["first", "second", "second"]
            assert await engine.describe(original.execution_id) == original
            named = await engine.fork(original.execution_id, at=2, new_id="ab" * 16)
            assert named == "ab" * 16

    lab.run(main)


def test_what_is_removed_by_purge_goes_with_its_earlier_lives(lab):
    """R37: nothing of them is left to find."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if broken:
            raise RuntimeError("a bug")
        return key

    async def main():
        async with lab.engine([work], retention=None) as engine:
            handle = await work.start("k")
            await lab.settle()
            broken.clear()
            await engine.rewind(handle.execution_id, to=0)
            assert await lab.result(handle) == "k"
            assert await engine.purge(older_than=0) == 1
            assert await lab.probe(engine).inner.lives(handle.execution_id) == []

    lab.run(main)


# Tokens ------------------------------------------------------------------------------------------------


def test_a_handle_gives_the_token_of_a_deferred(lab):
    """R19: what it says is what the deferred's own ways say."""

    @workflow(idempotency_key=lambda key: key)
    async def ask(key: str) -> str:
        return await Approval

    async def main():
        async with lab.engine([ask]) as engine:
            handle = await ask.start("k")
            await lab.settle()
            token = handle.token(Approval)
            assert token == Approval.token_for(ask, "k")
            said = await engine.explain(handle.execution_id)
            assert "deferred 'approval', which somebody has to complete" in said
            assert await Approval.succeed(token, "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_an_engine_with_a_secret_signs_the_tokens_of_its_handles(lab):
    """R19."""

    async def main():
        async with lab.engine([patient], token_secret={"new": "s" * 16, "old": "t" * 16}):
            handle = await patient.start("k")
            parsed = TokenParsed.from_string(handle.token(Approval, expires_in="1 hour"))
            assert (parsed.execution_id, parsed.key_id) == (handle.execution_id, "new")
            assert parsed.expires_at == to_datetime(lab.clock.now() + 3_600_000)

    lab.run(main)


def test_a_token_can_only_expire_where_it_is_signed(lab):
    async def main():
        async with lab.engine([patient]):
            handle = await patient.start("k")
            with pytest.raises(UsageError, match="token_secret"):
                handle.token(Approval, expires_in="1 hour")

    lab.run(main)


# In a body ---------------------------------------------------------------------------------------------


def test_a_body_interrupts_and_resumes_others_with_its_turn(lab):
    """R42: once, whatever is replayed."""
    broken = [True]

    @workflow(idempotency_key=lambda key: key, capture_defects=False)
    async def fragile(key: str) -> str:
        if broken:
            raise RuntimeError("a bug")
        return key

    @workflow(idempotency_key=lambda key: key)
    async def manager(key: str) -> None:
        await sleep("1 hour")
        await patient.handle(patient.execution_id(key)).interrupt()
        await fragile.handle(fragile.execution_id(key)).resume()
        await sleep("1 hour")

    async def main():
        async with lab.engine([patient, fragile, manager]) as engine:
            sleeper, failed = await patient.start("k"), await fragile.start("k")
            handle = await manager.start("k")
            await lab.settle()
            assert (await engine.describe(failed.execution_id)).held == "DEFECT"
            broken.clear()
            await lab.skip("61 minutes")
            assert await sleeper.status() is Status.INTERRUPTED
            assert await failed.poll() == Complete(Success("k"))
            await lab.result(handle)
            kinds = [(entry.kind, entry.name.partition(":")[0]) for entry in await engine.journal(handle.execution_id)]
            assert [kind for kind in kinds if kind[0] == "act"] == [("act", "interrupt"), ("act", "resume")]

    lab.run(main)


# The blocking face -------------------------------------------------------------------------------------


def test_the_blocking_face_has_the_same_calls():
    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        publish("progress", 1)
        return await Approval

    with WorkflowEngine.memory([work, patient], retention=None).blocking() as engine:
        handle = engine.start(work, "k")
        assert handle.explain() == engine.explain(handle.execution_id)
        assert engine.call(Approval.succeed, handle.token(Approval), "ada")
        assert handle.result(timeout="10 seconds") == "ada"
        assert (handle.read("progress"), handle.read("progress", int)) == (1, 1)
        assert engine.fork(handle.execution_id, at=0, new_id="ab" * 16) == "ab" * 16
        engine.interrupt("ab" * 16)
        engine.interrupt_unsafe("ab" * 16)
        engine.rewind(handle.execution_id, to=0)
        sleeper = engine.start(patient, "k")
        sleeper.interrupt()
        poll = engine.call(waited, engine.engine, sleeper.execution_id)
        assert isinstance(poll, Complete)
        match poll.exit:
            case Failure(cause):
                assert not any(isinstance(reason, Fail) for reason in cause.reasons)
            case Success(value):
                raise AssertionError(value)
        sleeper.resume()
        assert engine.purge(older_than=0, workflow=patient) == 1


async def waited(engine, execution_id):
    with pytest.raises(Interrupted):
        await patient.options(engine=engine).handle(execution_id).result(timeout="10 seconds")
    return await engine.poll(execution_id)
