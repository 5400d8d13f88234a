"""`verify_replay`: whether a body asks for the same when it runs again; and the door to `replay_check`, which asks today's code.

A replay runs the body from its beginning, in another process, perhaps in another week (R7). What it asks for
must be what the journal has (R8). So one execution is rerun in fresh processes with other hash seeds, and every
difference is taken for a mistake.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perdure._facade import WorkflowEngine
from perdure._values.duration import Duration, to_timedelta
from perdure.errors import ExecutionNotFoundError, NonDeterminismError, UsageError
from perdure.testing import _replay_process
from perdure.testing._release import ReplayCheckFailed, ReplayDifference, ReplayReport, replay_check
from perdure.testing._replay_process import Place, place_of
from perdure.testing._rerun import Disagreement, End, Implementation, Recording, journal_of, rerun

__all__ = [
    "ReplayCheckFailed",
    "ReplayDifference",
    "ReplayReport",
    "VerifiedReplay",
    "replay_check",
    "verify_replay",
]

logger: Final[logging.Logger] = logging.getLogger("perdure.testing")

# The same ones every time, so that what a build finds is found again. Two strings come in one of two orders: each
# process more halves what is missed.
_SEEDS: Final = ("1", "2", "3", "42", "4294967295")

_ADVICE: Final = (
    "A body has to ask for the same each time it runs: take the time from perdure.now(), chance from perdure.random(), and"
    " sort what comes from a set; what comes from outside belongs into an activity."
)


@dataclass(frozen=True, kw_only=True)
class VerifiedReplay:
    """What `verify_replay` has replayed, and found to be the same.

    Attributes:
        execution_id: The execution.
        entries: How many entries its journal has.
        processes: In how many fresh processes; 0: in this one only, where the order of a set cannot differ.

    Example:
        >>> VerifiedReplay(execution_id="0" * 32, entries=3, processes=2).processes
        2
    """

    execution_id: str
    entries: int
    processes: int


async def verify_replay(
    engine: WorkflowEngine, execution_id: str, /, *, processes: int = 3, timeout: Duration = "60 seconds"
) -> VerifiedReplay:
    """Run an execution again from its journal, in fresh processes with other hash seeds, and compare everything.

    Each entry has to find the very call that it was recorded for: the same name, input and place among the calls of that
    name. Behind the last one nothing may be left over, nothing new be recorded, and the execution end as it did; one
    that is suspended waits for what it waited for. No activity is called, nothing is written.

    A fresh process imports the module in which the workflow is defined; a test by its path, a program as
    `multiprocessing` would. A workflow that has no place to be imported from, because it was made inside a function or at
    a prompt, is run again in this process on a kernel of its own, as after an eviction; that finds the clock and chance, not
    the order of a set. The log says so, and `processes` of the result is 0.

    Args:
        engine: Where the execution is stored, with its workflow registered.
        execution_id: An execution that has begun: finished, or not yet.
        processes: How many fresh processes, up to 5, each with another hash seed; 0: none, on purpose.
        timeout: How long they may take.

    Raises:
        NonDeterminismError: The first difference: what is recorded, what was asked for instead, file and line.
        ExecutionNotFoundError: There is no such execution.
        UsageError: It has not begun, its workflow is not registered, or a process has failed; then with its stderr.

    Example:
        >>> import asyncio
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow(idempotency_key=lambda name: name)
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> int:
        ...     async with WorkflowEngine.memory([greet]) as engine:
        ...         await greet.execute("ada")
        ...         return (await verify_replay(engine, greet.execution_id("ada"))).entries
        >>> asyncio.run(main())
        0
    """
    if not 0 <= processes <= len(_SEEDS):
        raise UsageError(f"processes= is a number from 0 to {len(_SEEDS)}, not {processes!r}.")
    if _replay_process.is_replaying:
        raise UsageError(
            "This process replays an execution for verify_replay, and the module of its workflow calls verify_replay when it"
            ' is imported. Put what the module does as a program under `if __name__ == "__main__":`.'
        )
    recording, implementation = await _recorded(engine, execution_id)
    place = place_of(implementation) if processes else None
    if place is None:
        if processes:
            logger.warning(
                "workflow %r is in no module that another process could import; it is replayed in this process, where sets"
                " have the order that they had. Define it at the top of a module.", recording.workflow,
            )  # fmt: skip
        processes = 0
        ends = [rerun(recording, implementation)]
    else:
        limit = to_timedelta(timeout).total_seconds()
        ends = await asyncio.gather(*(_rerun_elsewhere(recording, place, seed, limit) for seed in _seeds(processes)))
    found = next((end.disagreement for end in ends if end.disagreement is not None), None) or _unlike(recording, ends)
    if found is not None:
        raise _error(found, recording.execution_id, f"{found.message}\n{_ADVICE}")
    return VerifiedReplay(execution_id=execution_id, entries=len(recording.entries), processes=processes)


def _seeds(count: int) -> list[str]:
    own = os.environ.get("PYTHONHASHSEED")
    return [seed for seed in (*_SEEDS, "7") if seed != own][:count]


async def _recorded(engine: WorkflowEngine, execution_id: str) -> tuple[Recording, Implementation]:
    service = engine._service  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the journal as bytes is nobody else's
    while True:
        record = await engine.record(execution_id)
        if record is None:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        if record.began_at is None:
            raise UsageError(f"Execution {execution_id} has not begun: there is nothing to replay yet.")
        implementation = service.registry.get(record.workflow)
        if implementation is None:
            raise UsageError(
                f"This engine has no body for {record.workflow!r}; register it: there are {service.registry}."
            )
        entries = await journal_of(engine, record)
        # Read apart, so one may be older than the other: then both once more.
        if await engine.record(execution_id) == record:
            return Recording.of(record, entries, engine.payload_limit), implementation


async def _rerun_elsewhere(recording: Recording, place: Place, seed: str, limit_s: float) -> End:
    """Have one fresh process rerun it."""
    asked = json.dumps({"recording": recording.to_plain(), "place": place})
    paths = [path or str(Path.cwd()) for path in sys.path]
    process = subprocess.Popen(  # noqa: ASYNC220 - it does not wait; asyncio's own needs a loop that watches children
        [sys.executable, "-P", "-c", "from perdure.testing._replay_process import main; main()"],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    with process:
        try:
            told, said = await asyncio.to_thread(process.communicate, asked, limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            raise _process_failed(recording, f"has not ended within {limit_s:g} s", said) from None
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise _process_failed(recording, f"ended with {process.returncode}", said)
    answer = json.loads(told)
    found = answer["disagreement"]
    return End(None if found is None else Disagreement(**found), [tuple(call) for call in answer["asked"]])


def _process_failed(recording: Recording, how: str, said: str) -> UsageError:
    return UsageError(
        f"The process that was to replay {recording.workflow} {recording.execution_id} {how}. It imports the module of the"
        f" workflow afresh; what the module needs must be there. It said:\n{said.strip() or '(nothing)'}"
    )


def _unlike(recording: Recording, ends: list[End]) -> Disagreement | None:
    """Whether two processes ask for different things, or in another order, behind the last entry."""
    for end in ends[1:]:
        for one, other in zip(ends[0].asked, end.asked, strict=False):
            if tuple(one) != tuple(other):
                return Disagreement(
                    message=f"Two replays of {recording.workflow!r} ask for different steps behind its last entry:\n"
                    f"  one:   {one[0]} {one[1]!r}, occurrence {one[2]}, input {one[3]}\n"
                    f"  other: {other[0]} {other[1]!r}, occurrence {other[2]}, input {other[3]}",
                    step=f"{other[0]}/{other[1]}#{other[2]}",
                    recorded_input=one[3],
                    asked_input=other[3],
                )
    return None


def _error(told: Disagreement, execution_id: str, message: str) -> NonDeterminismError:
    return NonDeterminismError(
        message,
        execution_id=execution_id,
        step=told.step,
        entry=told.entry,
        recorded_input=told.recorded_input,
        asked_input=told.asked_input,
        where=told.where,
    )
