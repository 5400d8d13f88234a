"""`verify_replay` finds nothing in bodies that use all of asyncio as they may: no order of its own in another process."""

import asyncio
from typing import Any

import pytest

from perdure.testing import TestEngine
from perdure.testing.replay import verify_replay

from tests.conftest import Run
from tests.determinism import programs, workflows


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_with_sets_of_tasks_is_verified(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """R7, R8: every entry finds its own call, and the trace of the body, which is its result, is the same."""

    async def answer(x: int) -> int:
        await asyncio.sleep(x % 5 / 1_000)  # so that answers do not come in the order of the calls
        return x * 10

    monkeypatch.setattr(programs.fetch, "function", answer)
    monkeypatch.setattr(programs.clean, "function", answer)
    trial: Any = getattr(workflows, name)

    async def main() -> None:
        async with TestEngine([trial]) as engine:
            handle = await trial.start()
            await handle.result()
            seen = await verify_replay(engine, handle.execution_id, processes=1)
            assert (seen.processes, seen.entries > 0) == (1, True)

    run(main)
