"""The programs as workflows, at the top of a module, where other processes find them; each gives what it has seen."""

from collections.abc import Callable, Coroutine
from typing import Any

from perdure import WorkflowImplementation, workflow

from tests.determinism.programs import PROGRAMS, Program, Trace


def _body(program: Program) -> Callable[[], Coroutine[Any, Any, list[str]]]:
    async def body() -> list[str]:
        trace: Trace = []
        result = await program(trace)
        return [repr(trace), repr(result)]

    return body


def _workflow(name: str) -> WorkflowImplementation[[], list[str]]:
    return workflow(_body(PROGRAMS[name]), name=name)


branches_of_one_name = _workflow("branches_of_one_name")
first_completed = _workflow("first_completed")
aborted_group = _workflow("aborted_group")
sets_of_calls = _workflow("sets_of_calls")
sets_of_tasks = _workflow("sets_of_tasks")
same_instant = _workflow("same_instant")
limited_steps = _workflow("limited_steps")
completed_tasks = _workflow("completed_tasks")
left_generators = _workflow("left_generators")
