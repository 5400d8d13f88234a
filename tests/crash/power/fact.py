"""Facts: what was told, and what a database says, in the same words, so that one can be looked up in the other."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure._model.journal import Kind
from perdure._model.records import Answer, Commit, Record, Verdict
from perdure._model.status import FINAL
from perdure._stores.sqlite import SqliteStore

from tests.crash.checker import Account, is_over, keys_of, violations
from tests.crash.ledger import Line, Phase
from tests.crash.model import children
from tests.crash.power.disk import Log, Told
from tests.crash.snapshot import Execution, Snapshot

Fact = tuple[Any, ...]

# Their bodies do one thing after the other: a step begins when the one before it is over for good.
IN_SEQUENCE = frozenset({"Steps", "Naps", "Rests", "Flaky", "Declined", "Once", "Drawn", "Detaching"})


# What is told -----------------------------------------------------------------------------------------------------------


class Telling(SqliteStore):
    """The store as it is; what it answers to the engine is noted in the log when the engine hears it."""

    def __init__(self, path: Path, log: Log) -> None:
        super().__init__(path)
        self._log = log

    async def commit(self, worker_id: str, batch: Any, /) -> list[Answer]:
        answers = await super().commit(worker_id, batch)
        facts = [fact for one, answer in zip(batch, answers, strict=True) for fact in of_answer(one, answer)]
        self._log.append(Told(facts))
        return answers

    async def claim(self, worker_id: str, workflows: Any, limit: int, /) -> list[Record]:
        taken = await super().claim(worker_id, workflows, limit)
        self._log.append(Told([("fence", one.execution_id, one.fence) for one in taken]))
        return taken


def of_answer(one: Commit, answer: Answer) -> Iterator[Fact]:
    """What a committer relies on: the whole of a commit, or nothing of it."""
    if answer.verdict in {Verdict.LOST, Verdict.BUSY}:
        return
    yield "execution", one.execution_id
    if answer.verdict is Verdict.JOINED:
        return
    for entry in one.entries:
        yield "entry", one.execution_id, entry
    for start in one.acts.starts if one.acts is not None else ():
        yield "execution", start.execution_id
    if one.status in FINAL and answer.verdict is not Verdict.STAYS:
        yield "end", one.execution_id, str(one.status), one.exit


class Facts:
    """What lines of the ledger and snapshots say, for one set of executions that is known to its end."""

    def __init__(self, lines: list[Line], rest: Snapshot) -> None:
        self._account = Account(lines, [], rest)

    def violations(self) -> list[str]:
        """What is wrong already without any loss of power."""
        return violations(self._account)

    def of_word(self, word: Any) -> list[Fact]:
        """What somebody may rely on who was told this."""
        return list(self._of_line(word)) if isinstance(word, Line) else word

    def _of_line(self, line: Line) -> Iterator[Fact]:
        yield "execution", line.execution_id
        if line.phase is Phase.TOLD:
            yield "result", line.execution_id, json.dumps(line.value)
        # No effect before what it follows from is durable: an effect is the strongest way of telling.
        elif line.phase is Phase.BEGIN:
            if line.attempt > 1:
                yield "record", line.key, line.attempt - 1
            if line.name == "once":
                yield "begun", line.key
            yield from self._before.get(line.key, ())

    @cached_property
    def _before(self) -> dict[str, list[Fact]]:
        """By key of a step: what must be durable when it begins."""
        before: dict[str, list[Fact]] = {}
        for id_, steps in self._account.steps.items():
            execution = self._account.rest.executions[id_]
            if execution.workflow not in IN_SEQUENCE:
                continue
            started = list(children(execution.workflow, execution.label))
            for number, step in enumerate(steps):
                before[step.key] = [("over", steps[number - 1].key)] if number else []
                before[step.key] += [("execution", child) for child in started[: number + 1]]
        return before

    def of_snapshot(self, snapshot: Snapshot) -> set[Fact]:
        """All that a database says."""
        return {fact for execution in snapshot.executions.values() for fact in self._of_execution(execution)}

    def _of_execution(self, execution: Execution) -> Iterator[Fact]:
        id_ = execution.execution_id
        keys = self._keys.get(id_, {})
        yield "execution", id_
        yield from (("fence", id_, fence) for fence in range(execution.fence + 1))
        for entry in execution.entries:
            yield "entry", id_, entry
            key = keys.get((entry.name, entry.occurrence))
            if entry.kind == Kind.ATTEMPT_BEGUN:
                yield "begun", key
            if entry.kind == Kind.ACTIVITY:
                yield "record", key, entry.attempt
                if is_over(entry):
                    yield "over", key
        if execution.is_final:
            yield "end", id_, execution.status, execution.exit
            yield "result", id_, json.dumps(_value(json.loads(execution.exit or b"{}")))

    @cached_property
    def _keys(self) -> dict[str, dict[tuple[str, int], str]]:
        # By the finished journals: an earlier one may lack a call that comes before its equal.
        return {id_: keys_of(execution) for id_, execution in self._account.rest.executions.items()}


def _value(exit_: dict[str, Any]) -> Any:
    if "success" in exit_:
        return exit_["success"]
    reasons = exit_.get("failure", [{}])
    return f"declined {reasons[0].get('fail', {}).get('error', {}).get('label')}"
