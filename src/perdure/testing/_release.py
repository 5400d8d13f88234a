"""`replay_check`: whether today's code goes on with what yesterday's has recorded.

Many executions are rerun on today's code, in this process, and what may be meant (new steps, steps that are left out)
is told from what would hold an execution in flight or do something a second time (R8).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final, cast

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import WorkflowImplementation
from perdure._facade import WorkflowEngine
from perdure._model.journal import Entry
from perdure._model.records import Record
from perdure._values.token import TokenKeys
from perdure.errors import NonDeterminismError, UsageError
from perdure.testing._change import Change, changes
from perdure.testing._rerun import Implementation, Recording, journal_of
from perdure.testing._signer import TokenSecret, signing
from perdure.testing.transfer import read_export

# What must not be; the others may be meant.
_FATAL: Final = frozenset({"diverges", "unreadable", "redone"})

Journals = WorkflowEngine | str | PathLike[str]


@dataclass(frozen=True, kw_only=True)
class ReplayDifference:
    """How today's code treats one recorded execution otherwise than the code that it ran on.

    Attributes:
        execution_id: The execution.
        workflow: Its workflow's name.
        sort: "diverges" (it would be held), "unreadable" (today's types cannot read it, or it does not come to rest),
            "redone" (a recorded step is left out and a new one asked for); and what is only told: "new" (a step, or
            something done to others, that is not recorded), "unasked" (a recorded one that is left out), "end" (it
            would end otherwise).
        fails: Whether the check fails with it.
        message: What is recorded, and what is asked for.
        entry: The number of the entry in the journal, or None.
        where: File and line of the call, or nothing.

    Example:
        >>> told = ReplayDifference(execution_id="0" * 32, workflow="trial", sort="new", fails=False, message="…")
        >>> told.sort, told.entry
        ('new', None)
    """

    execution_id: str
    workflow: str
    sort: str
    fails: bool
    message: str
    entry: int | None = None
    where: str = ""


@dataclass(kw_only=True)
class ReplayReport:
    """What `replay_check` has replayed, and what differed.

    Attributes:
        replayed: How many executions.
        entries: How many entries they have together.
        passed_over: Executions that were not replayed, since no workflow given has their name or they have not begun.
        differences: What today's code does otherwise, in the order in which it was found.

    Example:
        >>> print(ReplayReport(replayed=2, entries=5))
        2 executions with 5 entries replayed: no difference
    """

    replayed: int = 0
    entries: int = 0
    passed_over: int = 0
    differences: list[ReplayDifference] = field(default_factory=list[ReplayDifference])

    @property
    def failures(self) -> list[ReplayDifference]:
        """Those of the differences with which the check fails."""
        return [difference for difference in self.differences if difference.fails]

    def to_dict(self) -> dict[str, Any]:
        """The same as `json.dumps` can have it."""
        return asdict(self)

    def __str__(self) -> str:
        passed_over = f", {self.passed_over:,} passed over" if self.passed_over else ""
        told = f"{self.replayed:,} executions with {self.entries:,} entries replayed{passed_over}: "
        if not self.differences:
            return told + "no difference"
        lines = [f"{len(self.failures):,} failures, {len(self.differences):,} differences"]
        for each in self.differences:
            lines.append(f"{'FAILS' if each.fails else 'note'} ({each.sort}) {each.workflow} {each.execution_id}")
            lines += [f"  {line}" for line in each.message.splitlines()]
        return told + "\n".join(lines)


class ReplayCheckFailed(NonDeterminismError):
    """Today's code does not go on with recorded executions. The message has the first difference.

    Attributes:
        report: All of them.

    Example:
        >>> issubclass(ReplayCheckFailed, NonDeterminismError)
        True
    """

    report: ReplayReport


async def replay_check(
    workflows: Iterable[Registration],
    journals: Journals,
    /,
    *,
    new: Mapping[str, Any] | None = None,
    removed: Iterable[str] = (),
    strict: bool = False,
    token_secret: TokenSecret | None = None,
) -> ReplayReport:
    """Run today's code against recorded executions: what would become of them if it were released now?

    It fails where an execution, as it stands or at any earlier point, would be held (R8), where today's types cannot read
    what is recorded, and where a recorded step is left out while a new one of its kind is asked for in its place: under
    another name it would be done again. What may well be meant is only told: new steps, steps that are left out, another end.

    New timers fire and new activities answer, to see what is asked for behind them: what `new` says, nothing where that
    is their type, else values that are made up. A recorded step counts as left out when it is asked for with none of
    them. Where no value can be made up the new step is told, and nothing of what may follow.

    What is put in beside the recorded course is told where the journal shows that it was not there: what is done to others
    is recorded with its turn, and an execution that went to sleep had nothing running.

    Args:
        workflows: Today's workflows, with their bodies.
        journals: An open engine, whose executions are all read; what `export_execution` has given, the file that it
            has written, or a folder of such files (`*.jsonl`).
        new: What new activities would answer, by name: `new={"check_stock": True}`. Of those nothing is made up.
        removed: Names of steps that are left out on purpose.
        strict: Fail with every difference, as for a change that should change nothing.
        token_secret: What new tokens are signed with, as in the options of an engine; of an open engine its own.

    Raises:
        ReplayCheckFailed: With the first difference, file and line; all of them are in its `report`.
        UsageError: There is nothing to replay, or the secret is none.
        TransferError: A file is no export.

    Example:
        >>> import asyncio
        >>> from perdure import WorkflowEngine, workflow
        >>> @workflow
        ... async def greet(name: str) -> str:
        ...     return f"hello {name}"
        >>> async def main() -> ReplayReport:
        ...     async with WorkflowEngine.memory([greet]) as engine:
        ...         await greet.execute("ada")
        ...         return await replay_check([greet], engine)
        >>> print(asyncio.run(main()))
        1 executions with 0 entries replayed: no difference
    """
    bodies = {one.name: cast("Implementation", one) for one in workflows if isinstance(one, WorkflowImplementation)}
    keys = TokenKeys(token_secret) if token_secret is not None else None
    if keys is None and isinstance(journals, WorkflowEngine):
        keys = journals.token_keys
    report = ReplayReport()
    meant = frozenset(removed)
    first: tuple[Change, str] | None = None
    async for record, entries in _read(journals):
        body = bodies.get(record.workflow)
        if body is None or record.began_at is None:
            report.passed_over += 1
            continue
        report.replayed += 1
        report.entries += len(entries)
        with signing(keys):
            found = changes(Recording.of(record, entries), body, new or {}, meant)
        for change in found:
            fails = strict or change.sort in _FATAL
            report.differences.append(_difference(record, change, fails=fails))
            first = first or ((change, record.execution_id) if fails else None)
    if report.replayed == 0:
        raise UsageError(
            f"Nothing was replayed: {report.passed_over} executions of other workflows than {sorted(bodies)}."
        )
    if first is not None:
        raise _check_failed(report, *first)
    return report


def _difference(record: Record, change: Change, *, fails: bool) -> ReplayDifference:
    return ReplayDifference(
        execution_id=record.execution_id,
        workflow=record.workflow,
        sort=change.sort,
        fails=fails,
        message=change.told.message,
        entry=change.told.entry,
        where=change.told.where,
    )


def _check_failed(report: ReplayReport, change: Change, execution_id: str) -> ReplayCheckFailed:
    told = change.told
    more = f"\nand {len(report.failures) - 1} more; all are in the report" if len(report.failures) > 1 else ""
    error = ReplayCheckFailed(
        f"Execution {execution_id}: {told.message}{more}",
        execution_id=execution_id,
        step=told.step,
        entry=told.entry,
        recorded_input=told.recorded_input,
        asked_input=told.asked_input,
        where=told.where,
    )
    error.report = report
    return error


async def _read(journals: Journals) -> AsyncIterator[tuple[Record, list[Entry]]]:
    """All recorded executions, one after the other."""
    if isinstance(journals, WorkflowEngine):
        async for told in journals.executions():
            record = await journals.record(told.execution_id)
            if record is not None:
                yield record, await journal_of(journals, record)
        return
    for source in await asyncio.to_thread(_files, journals):
        exported = await asyncio.to_thread(read_export, source)
        yield exported.record, exported.history.entries


def _files(journals: str | PathLike[str]) -> list[str | PathLike[str]]:
    if isinstance(journals, str) and journals.lstrip().startswith("{"):
        return [journals]
    path = Path(journals)
    files: list[str | PathLike[str]] = [*sorted(path.rglob("*.jsonl"))] if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} has no exported executions (*.jsonl).")
    return files
