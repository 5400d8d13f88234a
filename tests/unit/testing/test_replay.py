"""`verify_replay`: bodies that are not deterministic on purpose, each found in another process.

The workflows stand at the top of a module, because that is where another process can import them.
"""

import logging
import os
import random as chance
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from perdure import NonDeterminismError, UsageError, WorkflowEngine, workflow
from perdure.errors import ExecutionNotFoundError
from perdure.testing import TestEngine
from perdure.testing.replay import VerifiedReplay, replay_check, verify_replay

from tests.conftest import Run
from tests.unit.testing.dealing import Approval, Inbox, child, dealing, holding, leaving
from tests.unit.testing.wavering import (
    NAMES,
    Contracts,
    chance_in_the_branch,
    chance_in_the_result,
    clock_in_the_input,
    clock_in_the_wait,
    failing,
    greet,
    hanging,
    here,
    one_step_less,
    one_step_more,
    published_now_and_then,
    sets_in_the_result,
    sets_one_by_one,
    sets_side_by_side,
    started_now_and_then,
    steady,
)


def verified(run: Run, trial: Any, *payload: Any, also: Sequence[Any] = (), **options: Any) -> VerifiedReplay:
    async def main() -> VerifiedReplay:
        async with TestEngine([trial, *also]) as engine:
            handle = await trial.start(*(payload or (NAMES,)))
            await handle.result()
            return await verify_replay(engine, handle.execution_id, **options)

    return run(main)


def test_a_body_that_is_deterministic_is_the_same_in_other_processes(run: Run) -> None:
    """R7, R38, R39, R8a: time, chance, timers, patches and gathered steps."""
    seen = verified(run, steady, processes=3)
    assert (seen.processes, seen.entries) == (3, len(NAMES) + 4)


def test_a_body_that_fails_fails_alike(run: Run) -> None:
    """R7: recorded failures are raised again; what a traceback says of its lines is not compared."""

    async def main() -> VerifiedReplay:
        async with WorkflowEngine.memory([failing]) as engine:
            handle = await failing.start(NAMES)
            with pytest.raises(Exception, match="ada"):
                await handle.result()
            return await verify_replay(engine, handle.execution_id, processes=1)

    assert run(main).entries == 1


@pytest.mark.parametrize("trial", [sets_one_by_one, sets_side_by_side], ids=lambda trial: trial.name)
def test_the_order_of_a_set_is_found_where_it_is_asked_for(run: Run, trial: Any) -> None:
    """R8: the record is found by its input all the same, so that only its place tells."""
    with pytest.raises(NonDeterminismError) as found:
        verified(run, trial, processes=1)
    error = found.value
    assert error.recorded_input != error.asked_input
    assert "wavering.py:" in error.where
    assert "sort what comes from a set" in str(error)


def test_the_order_of_a_set_is_found_in_the_result(run: Run) -> None:
    with pytest.raises(NonDeterminismError, match="another end than the recorded one") as found:
        verified(run, sets_in_the_result, processes=1)
    assert "in sets_in_the_result" in found.value.where


def test_the_order_of_a_set_is_found_behind_the_last_entry(run: Run) -> None:
    """Nothing of it is recorded yet: the processes are compared with each other."""

    async def main() -> None:
        async with TestEngine([hanging]) as engine:
            handle = await hanging.start(NAMES)
            await engine.advance("31 days")
            with pytest.raises(NonDeterminismError, match="Two replays"):
                await verify_replay(engine, handle.execution_id, processes=2)

    run(main)


@pytest.mark.parametrize("trial", [clock_in_the_input, chance_in_the_branch], ids=lambda trial: trial.name)
def test_clock_and_chance_are_found_in_what_is_asked(run: Run, trial: Any) -> None:
    with pytest.raises(NonDeterminismError, match="recorded: activity") as found:
        verified(run, trial, processes=1)
    assert found.value.entry == 1
    assert "wavering.py:" in found.value.where


def test_chance_is_found_in_the_result(run: Run) -> None:
    with pytest.raises(NonDeterminismError, match="another end"):
        verified(run, chance_in_the_result, processes=1)


def test_a_timer_of_another_name_is_found(run: Run) -> None:
    with pytest.raises(NonDeterminismError, match="recorded: timer 'until"):
        verified(run, clock_in_the_wait, processes=1)


@pytest.mark.parametrize("trial", [one_step_less, one_step_more], ids=lambda trial: trial.name)
def test_another_number_of_steps_is_found(run: Run, trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(here, "process", 1)
    with pytest.raises(NonDeterminismError):
        verified(run, trial, processes=1)


@pytest.mark.parametrize(
    ("trial", "what"),
    [
        (started_now_and_then, "does not do what its journal has recorded: start 'steady'"),
        (published_now_and_then, "records what its journal does not have: act 'publish:progress'"),
    ],
    ids=["start", "publish"],
)
def test_what_is_done_to_others_on_one_side_only_is_found(
    run: Run, trial: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R42: it is done once, and not looked for on replay."""
    monkeypatch.setitem(here, "process", 1)
    with pytest.raises(NonDeterminismError, match=what):
        verified(run, trial, also=[steady], processes=1)


def test_a_workflow_in_a_class_is_found_by_other_processes(run: Run) -> None:
    assert verified(run, Contracts.in_a_class, {"to": "ada"}, processes=1).processes == 1


def test_a_workflow_in_a_function_is_replayed_in_this_process(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Clock and chance are found there as well; that sets are not is said."""

    @workflow
    async def local(names: list[str]) -> float:
        return chance.random()

    @workflow
    async def local_and_steady(names: list[str]) -> int:
        return len(await greet("ada"))

    with pytest.raises(NonDeterminismError, match="another end"):
        verified(run, local)
    assert "in no module that another process could import" in caplog.text
    assert verified(run, local_and_steady).processes == 0


def test_a_replay_in_this_process_on_purpose_says_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "perdure.testing"):
        assert verified(run, steady, processes=0).processes == 0
    assert caplog.text == ""


def test_what_deals_with_others_is_verified(run: Run) -> None:
    """Children, races, deferreds, messages, compensations, an interrupt: asleep, ended, interrupted, held (R18 to R42)."""

    async def main() -> list[int]:
        async with TestEngine([child, dealing, leaving, holding]) as engine:
            handles = [await each.start(7) for each in (dealing, leaving, holding)]
            await engine.advance("1 hour")
            asleep = [await verify_replay(engine, handle.execution_id, processes=0) for handle in handles]
            dealt, left, held = handles
            await engine.advance("3 hours")
            await Approval.succeed(dealt.token(Approval), "yes")
            await Inbox.send(dealt.execution_id, "hello")
            await left.interrupt()
            await held.resume()
            assert await dealt.result() == ["[1, 2]", "5", "yes", "hello"]
            await engine.advance("3 hours")
            ended = [await verify_replay(engine, handle.execution_id, processes=0) for handle in handles]
            await verify_replay(engine, dealt.execution_id, processes=1)
            report = await replay_check([child, dealing, leaving, holding], engine, strict=True)
            assert (report.replayed, report.differences) == (7, [])
            return [seen.entries for seen in (*asleep, *ended)]

    assert min(run(main)) >= 2


def test_a_suspended_execution_is_verified_as_far_as_it_has_come(run: Run) -> None:
    async def main() -> VerifiedReplay:
        async with TestEngine([steady], skips=False) as engine:
            handle = await steady.start(NAMES)
            await engine.advance("1 day")
            return await verify_replay(engine, handle.execution_id, processes=1)

    assert run(main).entries == len(NAMES) + 2


def test_what_is_not_there_or_has_not_begun_is_refused(run: Run) -> None:
    async def main() -> None:
        async with TestEngine([steady]) as engine:
            with pytest.raises(ExecutionNotFoundError):
                await verify_replay(engine, "0" * 32)
            delayed = await steady.options(delay="1 day", execution_id="1" * 32).start(NAMES)
            with pytest.raises(UsageError, match="has not begun"):
                await verify_replay(engine, delayed.execution_id)
            with pytest.raises(UsageError, match="from 0 to 5"):
                await verify_replay(engine, delayed.execution_id, processes=6)

    run(main)


def test_a_process_that_fails_is_shown_with_what_it_said(
    run: Run, tmp_path: Path, module: Callable[[str], Any]
) -> None:
    trial = module("from perdure import workflow\n@workflow\nasync def trial(n: int) -> int:\n    return n\n")

    async def main() -> None:
        async with WorkflowEngine.memory([trial.trial]) as engine:
            handle = await trial.trial.start(1)
            await handle.result()
            rewrite(trial, "raise RuntimeError('no such thing today')\n")
            with pytest.raises(UsageError, match="no such thing today"):
                await verify_replay(engine, handle.execution_id, processes=1)

    run(main)


def test_a_process_that_does_not_end_is_ended(run: Run, module: Callable[[str], Any]) -> None:
    trial = module("from perdure import workflow\n@workflow\nasync def trial(n: int) -> int:\n    return n\n")

    async def main() -> None:
        async with WorkflowEngine.memory([trial.trial]) as engine:
            handle = await trial.trial.start(1)
            await handle.result()
            rewrite(trial, "import threading\nthreading.Event().wait()\n")
            with pytest.raises(UsageError, match="has not ended within 1 s"):
                await verify_replay(engine, handle.execution_id, processes=1, timeout="1 second")

    run(main)


def rewrite(module: Any, source: str) -> None:
    Path(module.__file__).write_text(source)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Write a module that is on no path, and load it by its file, as pytest does with a test."""
    import importlib.util

    def load(source: str) -> Any:
        file = tmp_path / "aside.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location("aside", file)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "aside", loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return load


def test_a_module_that_was_loaded_by_its_path_is_loaded_by_its_path(run: Run, module: Callable[[str], Any]) -> None:
    trial = module("from perdure import workflow\n@workflow\nasync def trial(n: int) -> int:\n    return n\n")
    assert verified(run, trial.trial, 1, processes=1).processes == 1


def test_a_program_that_verifies_when_it_is_imported_is_told(tmp_path: Path) -> None:
    """Each process would begin the next one."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import asyncio
            from perdure import WorkflowEngine, workflow
            from perdure.testing.replay import verify_replay

            @workflow
            async def trial(n: int) -> int:
                return n

            async def main() -> None:
                async with WorkflowEngine.memory([trial]) as engine:
                    handle = await trial.start(1)
                    await handle.result()
                    await verify_replay(engine, handle.execution_id, processes=1)

            asyncio.run(main())
        """)
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert "Put what the module does as a program under" in done.stderr


def test_a_program_is_not_run_by_the_replay_of_its_workflow(tmp_path: Path) -> None:
    """`__main__` is loaded under another name, so that what it does as a program is not done again."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import asyncio
            from perdure import WorkflowEngine, workflow
            from perdure.testing.replay import verify_replay

            print("imported")  # goes to stderr there, and into no answer

            @workflow(idempotency_key=lambda names: "1")
            async def trial(names: list[str]) -> str:
                return " ".join(set(names))

            async def main() -> None:
                async with WorkflowEngine.memory([trial]) as engine:
                    handle = await trial.start(["ada", "grace", "edsger", "barbara", "tony", "niklaus"])
                    await handle.result()
                    try:
                        await verify_replay(engine, handle.execution_id, processes=1)
                    except Exception as error:
                        print(type(error).__name__, error.where)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
    )
    # Whatever the seed of the program: no process has the same.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert said[0] == "imported"
    assert said[1].startswith("NonDeterminismError")
    assert len(said) == 2
