"""Workflows that nobody here has, and engines that learn more while they run (R3)."""

import asyncio

import pytest

from perdure import (
    DefinitionError,
    NotRegisteredError,
    Status,
    UsageError,
    Workflow,
    WorkflowEngine,
    activity,
    current_engine,
    workflow,
)

from tests.engine.lab import Gate

SendEmail = Workflow.make("SendEmail", payload={"to": str}, success=str, idempotency_key=lambda p: p.to)


@SendEmail.implement
async def send_email(payload) -> str:
    return f"sent to {payload.to}"


@workflow(idempotency_key=lambda key: key)
async def other(key: str) -> str:
    return key


def test_a_start_of_what_nobody_has_is_stored_and_waits(file_lab, log):
    """R3: PENDING, no attempts, and nobody is blocked by it."""

    async def main():
        async with file_lab.engine([other]) as engine:
            handle = await SendEmail.start({"to": "ada"})
            assert await handle.status() is Status.PENDING
            assert await handle.poll() is None
            assert await file_lab.finish(other.execute("k")) == "k"
            await file_lab.skip("1 day")
            record = await file_lab.record(engine, handle.execution_id)
            assert (record.status, record.crashes, record.owner, record.began_at) == (Status.PENDING, 0, None, None)
            engine.register(send_email)
            await file_lab.settle()
            assert await handle.status() is Status.SUCCEEDED
            assert await file_lab.result(handle) == "sent to ada"

    file_lab.run(main)


def test_a_memory_engine_says_at_once_that_it_has_no_body(memory_lab):
    """R3: nothing is stored."""

    async def main():
        async with memory_lab.engine([other]) as engine:
            with pytest.raises(NotRegisteredError, match=r"'SendEmail'.*other is") as missing:
                await SendEmail.start({"to": "ada"})
            assert missing.value.workflow == "SendEmail"
            assert not [info async for info in engine.executions()]
            engine.register(send_email)
            assert await memory_lab.finish(SendEmail.execute({"to": "ada"})) == "sent to ada"

    memory_lab.run(main)


def test_what_was_stored_is_picked_up_after_a_restart_with_the_body(file_lab):
    """R3."""

    async def main():
        async with file_lab.engine():
            handle = await SendEmail.start({"to": "ada"})
        async with file_lab.engine([send_email]):
            assert await file_lab.result(SendEmail.handle(handle.execution_id)) == "sent to ada"

    file_lab.run(main)


def test_who_waits_hears_after_five_seconds_that_nobody_has_it(file_lab, log):
    """R3: and what is registered. Said to those who wait, and not before five seconds have passed."""

    async def main():
        async with file_lab.engine([other]):
            waiting = asyncio.ensure_future(SendEmail.execute({"to": "ada"}))
            await file_lab.skip("4999 millis")
            assert not [record for record in log.records if "registered" in record.getMessage()]
            await file_lab.skip("1 millis")
            (said,) = [record.getMessage() for record in log.records if "registered" in record.getMessage()]
            assert "'SendEmail'" in said
            assert "other" in said
            assert SendEmail.execution_id({"to": "ada"}) in said
            await file_lab.skip("1 day")
            assert len([record for record in log.records if "registered" in record.getMessage()]) == 1
            waiting.cancel()

    file_lab.run(main)


def test_nothing_is_said_where_another_worker_has_it(file_lab, log):
    """R3: also when that worker has learnt it only after it was opened."""
    gate = Gate()

    @activity
    async def act() -> None:
        await gate.wait()

    @SendEmail.implement
    async def slowly(payload) -> str:
        await act()
        return "sent"

    async def main():
        async with file_lab.engine([other]) as worker, file_lab.engine() as client:
            worker.register(slowly)
            await file_lab.settle()
            waiting = asyncio.ensure_future(client.execute(SendEmail, {"to": "ada"}))
            await file_lab.notice()
            assert gate.entered == 1
            await file_lab.skip("10 seconds")
            assert not [record for record in log.records if "registered" in record.getMessage()]
            gate.open()
            await file_lab.notice()
            assert await file_lab.finish(waiting) == "sent"

    file_lab.run(main)


def test_two_definitions_of_one_name_are_refused(lab):
    """Bad input of issue 2; before the engine is opened, and while it is."""

    @workflow(name="other")
    async def impostor() -> None: ...

    with pytest.raises(DefinitionError, match="Two workflows are named 'other'"):
        WorkflowEngine(lab.store(), [other, impostor])

    async def main():
        async with lab.engine([other]) as engine:
            with pytest.raises(DefinitionError, match="Two workflows are named 'other'"):
                engine.register(impostor)
            engine.register(other)  # the same once more is no second one
            assert await lab.finish(other.execute("k")) == "k"

    lab.run(main)


def test_only_implemented_workflows_are_registered(lab):
    @activity
    async def act() -> None: ...

    async def main():
        async with lab.engine() as engine:
            for wrong, hint in ((SendEmail, "needs a body"), (act, "activities are not registered"), ("x", "not 'x'")):
                with pytest.raises(UsageError, match=hint):
                    engine.register(wrong)

    lab.run(main)


def test_an_engine_is_needed(lab):
    """API 7: without an open engine, and outside of one that is closed."""

    async def main():
        with pytest.raises(UsageError, match="No engine is open"):
            await other.start("k")
        with pytest.raises(UsageError, match="No engine is open"):
            current_engine()
        async with lab.engine([other]) as engine:
            assert current_engine() is engine
        for late in (engine.start(other, "k"), engine.execute(other, "k"), other.options(engine=engine).start("k")):
            with pytest.raises(UsageError, match="not open"):
                await late
        with pytest.raises(UsageError, match="No engine is open"):
            await other.start("k")

    lab.run(main)


def test_an_engine_is_opened_once(lab):
    """A second `async with` on the same object would find a closed service that claims nothing."""

    async def main():
        async with lab.engine([other]) as engine:
            with pytest.raises(UsageError, match="open already"):
                await engine.__aenter__()
        with pytest.raises(UsageError, match=r"(?i)once|again|new"):
            await engine.__aenter__()

    lab.run(main)


def test_unknown_options_are_named(lab):
    async def main():
        with pytest.raises(UsageError, match=r"no option 'cachee'.*cache"):
            async with lab.engine([other], cachee=3):
                pass
        for name in ("concurrency", "threads", "admission", "payload_limit"):
            for value in (0, -1, True, 1.5, "many"):
                with pytest.raises(UsageError, match=name):
                    async with lab.engine([other], **{name: value}):
                        pass
        for value in (-1, "many", True, (1,), (1, -1)):
            with pytest.raises(UsageError, match="cache"):
                async with lab.engine([other], cache=value):
                    pass

    lab.run(main)
