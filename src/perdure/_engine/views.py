"""What is stored, shown to those who look: one execution, its journal, and where it stands in sentences.

Nothing here fails at a damaged row: whoever looks is looking for what is wrong, and a listing of a thousand executions
must not end at the one that cannot be read. What cannot be read is left out, and `damaged` says so.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from perdure._engine.explain import explain
from perdure._engine.runner import Runner
from perdure._engine.standing import waits_of
from perdure._kernel.kernel import Kernel
from perdure._model.info import ExecutionInfo, JournalEntry, Wait
from perdure._model.journal import Entry, Kind
from perdure._model.records import DEADLINE_NAME, UNREADABLE, ExecutionId, History, Letter, MailKind, Record
from perdure._model.status import Held, Status, is_final
from perdure._model.store import Store
from perdure._values.cause import Cause
from perdure._values.exit import Exit, Failure
from perdure._values.exit_codec import decode_loosely, is_success, retry_at
from perdure._values.instant import Instant, to_datetime
from perdure.errors import ExecutionNotFoundError, PayloadError, StoreFileError

T = TypeVar("T")

# What stands among the waits and is none: a step that is to be undone.
COMPENSATION: Final = "compensation"
# The published value that is shown as an execution's progress.
PROGRESS: Final = "progress"
# So far back the last failure of an attempt is looked for: an execution of a million steps is described as fast as
# one of ten.
RECENT: Final = 100
# So many executions are looked at for a circle of parents and children; a real one is of two or three.
MOST_FOLLOWED: Final = 200


class Views:
    """Looks into one store, and at what this engine has in hand."""

    def __init__(self, store: Store, runners: Mapping[ExecutionId, Runner]) -> None:
        self._store = store
        # The service's own.
        self._runners = runners

    async def describe(self, execution_id: ExecutionId) -> ExecutionInfo:
        """Everything about one execution but its journal.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        record = await self._record(execution_id)
        told = info(record)
        if record.status is Status.RUNNING and (runner := self._runners.get(execution_id)) is not None:
            told = _told_live(told, runner)
        told, (entries, letters) = await self._lately(told, record)
        failed = next((entry for entry in reversed(entries) if _has_failed(entry)), None)
        published = {name: _json(value) for name, value in (await self._store.published(execution_id)).items()}
        return replace(
            told,
            last_error=_cause(failed.exit) if failed else None,
            attempts=failed.attempt if failed else 0,
            failed_step=failed.name if failed else None,
            published=published,
            progress=published.get(PROGRESS),
            interrupted_at=_optional(_asked_to_end(letters)),
            failed_with=_failed_with(entries) if told.held is Held.COMPENSATION else None,
        )

    async def explain(self, execution_id: ExecutionId) -> str:
        """Where an execution stands, in sentences.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        told = await self.describe(execution_id)
        workers = await self._store.workers()
        circle = await self._circle(told)
        return explain(told, workers=workers, now=to_datetime(self._store.clock.now()), circle=circle)

    async def journal(self, execution_id: ExecutionId) -> list[JournalEntry]:
        """The journal of an execution, in order.

        Raises:
            ExecutionNotFoundError: There is no such execution.
        """
        record = await self._record(execution_id)
        histories = await self._store.load([(record.incarnation, 0, 0)])
        return [journal_entry(entry) for entry in histories[0].entries]

    async def _circle(self, told: ExecutionInfo) -> Sequence[ExecutionId]:
        """Who waits for a child of whom, from this execution back to itself; empty: it does not come back to it."""
        paths = {child: [told.execution_id, child] for child in _children(told)}
        wanted = list(paths)
        while wanted and len(paths) <= MOST_FOLLOWED:
            if told.execution_id in paths:
                return paths[told.execution_id][:-1]
            parents = [info(record) for record in await self._store.read(wanted)]
            found = {
                child: [*paths[parent.execution_id], child]
                for parent in parents
                for child in _children(parent)
                if child not in paths
            }
            paths |= found
            wanted = list(found)
        return ()

    async def _lately(self, told: ExecutionInfo, record: Record) -> tuple[ExecutionInfo, History]:
        """What has happened to it lately; nothing, with a word about it, where its journal cannot be read."""
        try:
            return told, await self._store.tail(record.incarnation, RECENT)
        except StoreFileError:
            return replace(told, damaged=(*told.damaged, "journal")), History([], [])

    async def _record(self, execution_id: ExecutionId) -> Record:
        found = await self._store.read([execution_id])
        if not found:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        return found[0]


def info(record: Record) -> ExecutionInfo:
    """One execution as its row tells it."""
    damaged: list[str] = []
    if record.attributes is UNREADABLE:
        damaged.append("attributes")
    ended = _readable("exit", decode_loosely, record.exit, damaged)
    waits = _readable("waits", _waits, record.waits, damaged)
    return ExecutionInfo(
        execution_id=record.execution_id,
        workflow=record.workflow,
        key=record.key,
        status=record.status,
        held=record.held,
        cause=ended.cause if record.held is not None and isinstance(ended, Failure) else None,
        exit=ended if is_final(record.status) else None,
        waits=_awaited(waits or ()),
        compensations=_compensations(waits or ()),
        wake_at=_optional(record.wake_at),
        priority=record.priority,
        attributes=record.attributes,
        payload=_json(record.payload),
        parent=record.parent,
        deadline=_optional(record.deadline),
        version=record.version,
        worker=record.owner,
        crashes=record.crashes,
        incarnation=record.number,
        created_at=to_datetime(record.created_at),
        began_at=_optional(record.began_at),
        changed_at=to_datetime(record.changed_at),
        finished_at=_optional(record.finished_at),
        damaged=tuple(damaged),
    )


def journal_entry(entry: Entry) -> JournalEntry:
    """One entry, for those who look."""
    again_at = retry_at(entry.exit) if entry.exit else None
    return JournalEntry(
        seq=entry.seq,
        kind=entry.kind,
        name=entry.name,
        occurrence=entry.occurrence,
        attempt=entry.attempt,
        input=_json(entry.input),
        exit=_exit(entry.exit),
        retry_at=_optional(again_at),
        at=to_datetime(entry.at),
    )


def _children(told: ExecutionInfo) -> list[ExecutionId]:
    return [wait.execution_id for wait in told.waits if wait.execution_id is not None]


def _has_failed(entry: Entry) -> bool:
    return entry.kind == Kind.ACTIVITY and not is_success(entry.exit)


def _asked_to_end(letters: Sequence[Letter]) -> Instant | None:
    """When somebody asked it to end last, else when its deadline did."""
    asked = {letter.name: letter.at for letter in letters if letter.kind == MailKind.INTERRUPT}
    late = asked.pop(DEADLINE_NAME, None)
    return max(asked.values(), default=late)


def _failed_with(entries: Sequence[Entry]) -> Cause | None:
    """What it had failed with when it was held last: the note of that is the last that is written of it."""
    held = next((entry for entry in reversed(entries) if entry.kind == Kind.HELD), None)
    return None if held is None or not held.exit else _cause(held.exit)


def _cause(encoded: bytes) -> Cause | None:
    try:
        ended = decode_loosely(encoded)
    except PayloadError:
        return None
    return ended.cause if isinstance(ended, Failure) else None


def _told_live(told: ExecutionInfo, runner: Runner) -> ExecutionInfo:
    """The same, with what this engine knows of an execution in its hands."""
    if runner.kernel is None:
        # Put away while it waits; its attempts run on.
        running = tuple(
            Wait(kind=str(Kind.ACTIVITY), name=name, queued=attempt.queued)
            for (name, _), attempt in runner.running.items()
        )
        return replace(told, waits=running)
    waits = _queued(_waits(waits_of(runner.kernel) or b"[]"), runner, runner.kernel)
    return replace(told, waits=_awaited(waits), compensations=_compensations(waits))


def _queued(waits: tuple[Wait, ...], runner: Runner, kernel: Kernel) -> tuple[Wait, ...]:
    """The same, with what is known of activities that have no place yet."""
    # Both are in the order in which the body has asked.
    calls = iter(kernel.activities())
    told: list[Wait] = []
    for wait in waits:
        if wait.kind == Kind.ACTIVITY and (call := next(calls, None)) is not None:
            attempt = runner.running.get((call.name, call.occurrence))
            told.append(replace(wait, queued=attempt is not None and attempt.queued))
        else:
            told.append(wait)
    return tuple(told)


def _readable(column: str, read: Callable[[bytes], T], encoded: bytes | None, damaged: list[str]) -> T | None:
    if encoded is None:
        return None
    try:
        return read(encoded)
    except (ValueError, LookupError, TypeError, AttributeError, PayloadError):
        damaged.append(column)
        return None


def _waits(encoded: bytes) -> tuple[Wait, ...]:
    return tuple(_wait(told) for told in json.loads(encoded))


def _awaited(waits: tuple[Wait, ...]) -> tuple[Wait, ...]:
    return tuple(wait for wait in waits if wait.kind != COMPENSATION)


def _compensations(waits: tuple[Wait, ...]) -> tuple[str, ...]:
    return tuple(wait.name for wait in waits if wait.kind == COMPENSATION)


def _wait(told: dict[str, Any]) -> Wait:
    return Wait(kind=told["kind"], name=told["name"], due_at=_optional(told["due_at"]), execution_id=told.get("id"))


def _exit(encoded: bytes) -> Exit[Any] | None:
    return decode_loosely(encoded) if encoded.startswith(b"{") else None


def _json(encoded: bytes) -> Any:
    try:
        return json.loads(encoded) if encoded else None
    except ValueError:
        return encoded.decode("utf-8", "replace")


def _optional(instant: int | None) -> Any:
    return None if instant is None else to_datetime(instant)
