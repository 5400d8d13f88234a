"""From what is stored to what is shown."""

import json
from typing import Any

from perdure._model.info import ExecutionInfo, JournalEntry, Wait
from perdure._model.journal import Entry
from perdure._model.records import Record
from perdure._model.status import is_final
from perdure._values.exit import Exit, Failure
from perdure._values.exit_codec import decode_loosely, retry_at
from perdure._values.instant import to_datetime


def info(record: Record) -> ExecutionInfo:
    """One execution, for those who look."""
    ended = decode_loosely(record.exit) if record.exit is not None else None
    return ExecutionInfo(
        execution_id=record.execution_id,
        workflow=record.workflow,
        key=record.key,
        status=record.status,
        held=record.held,
        cause=ended.cause if record.held is not None and isinstance(ended, Failure) else None,
        exit=ended if is_final(record.status) else None,
        waits=_waits(record.waits),
        wake_at=_optional(record.wake_at),
        priority=record.priority,
        attributes=record.attributes,
        payload=_json(record.payload),
        version=record.version,
        worker=record.owner,
        crashes=record.crashes,
        incarnation=record.number,
        created_at=to_datetime(record.created_at),
        began_at=_optional(record.began_at),
        changed_at=to_datetime(record.changed_at),
        finished_at=_optional(record.finished_at),
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


def _waits(encoded: bytes | None) -> tuple[Wait, ...]:
    if encoded is None:
        return ()
    return tuple(
        Wait(kind=wait["kind"], name=wait["name"], due_at=_optional(wait["due_at"])) for wait in json.loads(encoded)
    )


def _exit(encoded: bytes) -> Exit[Any] | None:
    return decode_loosely(encoded) if encoded.startswith(b"{") else None


def _json(encoded: bytes) -> Any:
    try:
        return json.loads(encoded) if encoded else None
    except ValueError:
        return encoded.decode("utf-8", "replace")


def _optional(instant: int | None) -> Any:
    return None if instant is None else to_datetime(instant)
