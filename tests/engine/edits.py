"""Releases: an execution is begun by one body, parked, and continued by another, as the guide on changing code tells it.

The guide's tables are the expectation. Each row is an edit and what becomes of an execution in flight; the test of
that name makes the edit, and what it sees is compared with the row. So the page cannot say what is not so.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from perdure import Complete, ExecutionInfo, Exit, Success, WorkflowEngine, WorkflowImplementation
from perdure._definitions.registration import Registration
from perdure._model.records import Commit, Verdict
from perdure._model.status import is_final
from perdure._values.instant import from_datetime

from tests.engine.lab import Lab

Release = WorkflowImplementation[..., Any]
# What somebody outside does to an execution.
Act = Callable[[str], Awaitable[object]]
# What is looked at behind the end of an execution.
Look = Callable[[str], Awaitable[Any]]

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "changing-code.md"
HEADER = "| edit | in flight | what exactly |"

# What the activities of these tests have really done, in order.
DONE: list[str] = []


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the guide: an edit, and what becomes of executions in flight."""

    edit: str
    verdict: str

    @property
    def test(self) -> str:
        """The name of its test: the words of the edit."""
        return "test_" + "_".join(re.findall(r"[a-z0-9]+", self.edit.lower()))


def rows_of(text: str) -> list[Row]:
    """The rows of every table of edits in a Markdown text."""
    found: list[Row] = []
    in_table = False
    for line in text.splitlines():
        if line == HEADER:
            in_table = True
        elif not line.startswith("|"):
            in_table = False
        elif in_table and not line.startswith("|---"):
            edit, verdict, exactly = (cell.strip() for cell in line.strip("|").split("|"))
            assert exactly, f"{edit}: say what exactly happens"
            found.append(Row(edit, verdict.replace("*", "").replace("`", "")))
    return found


def rows() -> list[Row]:
    """The rows of the guide."""
    return rows_of(PAGE.read_text(encoding="utf-8"))


@dataclass(slots=True)
class Outcome:
    """What became of an execution under the second release, and of a held one under the third."""

    verdict: str = ""
    exit: Exit[Any] | None = None
    # The same as it is stored.
    stored_exit: Any = None
    # What its cause says, if it is held.
    said: str = ""
    # What was really done: by the first release, and by all after it.
    done_before: list[str] = field(default_factory=list[str])
    done: list[str] = field(default_factory=list[str])
    # What was looked at when all was over.
    seen: Any = None
    # From the beginning of the execution to its end.
    took_ms: int = 0

    @property
    def result(self) -> Any:
        """What it returned."""
        assert isinstance(self.exit, Success), self
        return self.exit.value


class Flight:
    """Makes one edit of the guide, and holds what is seen against the guide's row."""

    def __init__(self, lab: Lab, row: Row) -> None:
        self.lab = lab
        self._row = row
        self.execution_id = ""

    def __call__(
        self,
        old: Release,
        new: Release,
        mended: Release | None = None,
        *,
        payload: tuple[Any, ...] = ("o1",),
        after: str = "10 seconds",
        beside: Sequence[Registration] = (),
        first: Act | None = None,
        meanwhile: Act | None = None,
        afterwards: Act | None = None,
        lastly: Look | None = None,
    ) -> Outcome:
        """Begin with one release, let time pass, and go on with the next; resume with a third what that one held.

        What stands beside is registered from the beginning. Somebody outside may act: `first`, before the second
        release; `meanwhile`, as soon as it is there; `afterwards`, when its fate has been compared with the guide,
        and then it has to come to its end. `lastly` looks at what there is then.
        """

        async def main() -> Outcome:
            outcome = Outcome(done_before=await self._begin(old, payload, after, beside, first))
            await self._go_on(new, outcome, beside, meanwhile)
            self._compare(outcome)
            if afterwards is not None:
                await self._finish(new, outcome, beside, afterwards)
            if mended is not None:
                await self._mend(mended, outcome, beside)
            if lastly is not None:
                async with self.lab.engine([new, *beside]):
                    outcome.seen = await lastly(self.execution_id)
            return outcome

        return self.lab.run(main)

    def recorded(self, birth: Commit, new: Release, beside: Sequence[Registration]) -> Outcome:
        """Go on with what another version of the library has written."""

        async def main() -> Outcome:
            self.execution_id = birth.execution_id
            self.lab.clock.jump(birth.entries[-1].at)
            outcome = Outcome()
            async with self.lab.engine() as engine:
                (answer,) = await self.lab.probe(engine).inner.commit(self.lab.service(engine).worker_id, [birth])
                assert answer.verdict is Verdict.STARTED
            await self._go_on(new, outcome, beside, None)
            self._compare(outcome)
            return outcome

        return self.lab.run(main)

    async def _begin(
        self, old: Release, payload: tuple[Any, ...], after: str, beside: Sequence[Registration], first: Act | None
    ) -> list[str]:
        """Begin an execution and leave it in the middle; what has been done so far."""
        DONE.clear()
        async with self.lab.engine([old, *beside]):
            handle = await old.start(*payload)
            self.execution_id = handle.execution_id
            await self.lab.skip(after)
            if first is not None:
                await first(self.execution_id)
                await self.lab.settle()
            assert not is_final(await handle.status()), "it has to be in flight"
        done = list(DONE)
        DONE.clear()
        return done

    async def _go_on(
        self, new: Release, outcome: Outcome, beside: Sequence[Registration], meanwhile: Act | None
    ) -> None:
        async with self.lab.engine([new, *beside]) as engine:
            if meanwhile is not None:
                await meanwhile(self.execution_id)
            await self._watch(engine, new, outcome)
        if outcome.verdict.startswith("held"):
            assert outcome.done == [], "it is held before anything is done"

    async def _mend(self, mended: Release, outcome: Outcome, beside: Sequence[Registration]) -> None:
        async with self.lab.engine([mended, *beside]) as engine:
            await mended.resume(self.execution_id)
            await self._watch(engine, mended, outcome)
        assert outcome.exit is not None, "once mended, it goes on"

    async def _finish(self, new: Release, outcome: Outcome, beside: Sequence[Registration], afterwards: Act) -> None:
        async with self.lab.engine([new, *beside]) as engine:
            await self.lab.settle()
            await afterwards(self.execution_id)
            await self._watch(engine, new, outcome)
        assert outcome.exit is not None, "now it goes on"

    def _compare(self, outcome: Outcome) -> None:
        assert outcome.verdict == self._row.verdict, f"the guide says {self._row}, and it is {outcome}"

    async def _watch(self, engine: WorkflowEngine, release: Release, outcome: Outcome) -> None:
        """Let time pass until it has ended or is held, or nothing is due any more."""
        await self.lab.settle()
        while not _rests(info := await engine.describe(self.execution_id)) and await self.lab.skip_to_next():
            pass
        outcome.done = list(DONE)
        if info.held is not None:
            outcome.verdict, outcome.said = f"held {info.held}", str(info.cause)
        elif is_final(info.status):
            poll = await release.poll(self.execution_id)
            assert isinstance(poll, Complete)
            assert info.began_at is not None
            assert info.finished_at is not None
            outcome.verdict, outcome.exit = "goes on", poll.exit
            outcome.stored_exit = from_json((await self.lab.record(engine, self.execution_id)).exit or b"null")
            outcome.took_ms = from_datetime(info.finished_at) - from_datetime(info.began_at)
        else:
            outcome.verdict = f"waits {info.status}"


def _rests(info: ExecutionInfo) -> bool:
    return info.held is not None or is_final(info.status)
