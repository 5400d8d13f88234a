"""Other lives: an execution that goes on from an earlier point, or a second one that does (R37, R49).

Both begin with a part of a journal. Its entries are copied as they are, so the body comes to that
point as it did before; the seed goes with them, since what was drawn there is part of it. What is
open at that point stays open: timers keep their due times, and who is a child is asked again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perdure._ids import new_execution_id, new_incarnation
from perdure._kernel.event import event_of, told_apart
from perdure._model.journal import WITHOUT_COMPENSATIONS, Entry, Kind
from perdure._model.records import Commit, ExecutionId, History, Letter, MailKind, Record, Start
from perdure._model.status import Status, is_final
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure.errors import ExecutionNotFoundError, UsageError

# Mail that comes to the body again although it came later than the point that is gone back to: somebody was told that it
# is there. What the engine wrote itself (children's ends, an interrupt) comes anew, if it comes.
_KEPT = frozenset({MailKind.DEFERRED, MailKind.MESSAGE})


async def rewind(store: Store, execution_id: ExecutionId, to: int) -> None:
    """Have a finished or held execution go on behind the entry `to` of its journal, as a new life (R37).

    Raises:
        ExecutionNotFoundError: There is no such execution.
        UsageError: It still runs, or its journal has no such entry.
    """
    record, history = await _read(store, execution_id)
    if not is_final(record.status) and record.held is None:
        raise UsageError(
            f"Execution {execution_id} is {record.status}: only a finished or a held one can be rewound. "
            "Interrupt it first."
        )
    entries = _prefix(history, to, execution_id)
    read = _letters_of(entries)
    letters = [letter for letter in history.letters if letter.kind in _KEPT or _place(letter) in read]
    start = replace(_next_life(record, store.clock.now()), number=record.number + 1)
    if not await store.renew(record.incarnation, start, entries, letters):
        raise UsageError(f"Execution {execution_id} has moved on meanwhile; look at it again.")


async def fork(
    store: Store, execution_id: ExecutionId, at: int, *, new_id: ExecutionId | None, compensates: bool
) -> Commit:
    """The birth of a new execution that begins with the journal of another one, up to the entry `at` (R49).

    Raises:
        ExecutionNotFoundError: There is no such execution.
        UsageError: Its journal has no such entry.
    """
    record, history = await _read(store, execution_id)
    entries = _prefix(history, at, execution_id)
    read = _letters_of(entries)
    letters = [letter for letter in history.letters if _place(letter) in read]
    if not compensates:
        # What the copied steps have done is the original's to undo.
        when = entries[-1].at if entries else record.began_at or store.clock.now()
        entries = [*entries, Entry(len(entries) + 1, Kind.ACT, WITHOUT_COMPENSATIONS, 1, 0, b"", b"", when)]
    start = replace(
        _next_life(record, store.clock.now()),
        execution_id=new_id or new_execution_id(),
        key=None,
        deadline=None,
        letters=letters,
    )
    return Commit(start.execution_id, start.incarnation, 0, 0, Status.PENDING, start, entries)


def _next_life(record: Record, now: Instant) -> Start:
    return Start(
        execution_id=record.execution_id,
        incarnation=new_incarnation(now),
        workflow=record.workflow,
        key=record.key,
        payload=record.payload,
        priority=record.priority,
        attributes=record.attributes,
        version=record.version,
        began_at=record.began_at,
        # One that has passed would interrupt it at once.
        deadline=record.deadline if record.deadline is not None and record.deadline > now else None,
        seed=record.seed or record.incarnation,
    )


async def _read(store: Store, execution_id: ExecutionId) -> tuple[Record, History]:
    found = await store.read([execution_id])
    if not found:
        raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
    [history] = await store.load([(found[0].incarnation, 0, 0)])
    return found[0], history


def _prefix(history: History, to: Any, execution_id: ExecutionId) -> Sequence[Entry]:
    last = len(history.entries)
    if not isinstance(to, int) or isinstance(to, bool) or not 0 <= to <= last:
        raise UsageError(
            f"The journal of execution {execution_id} has the entries 1 to {last}; it cannot go on behind {to!r}. "
            "0 is its beginning; `await engine.journal(id)` shows them."
        )
    return history.entries[:to]


def _letters_of(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """The mail that stands in a part of a journal, by kind and what tells it apart."""
    return {(entry.kind, told_apart(entry)) for entry in entries}


def _place(letter: Letter) -> tuple[str, str]:
    event = event_of(letter)
    return event.kind, told_apart(event)
