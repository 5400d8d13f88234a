"""Other lives: an execution that goes on from an earlier point, or a second one that does (R37, R49).

Both begin with a part of a journal, so the body comes to that point as it did before; the seed goes
with it, since what was drawn there is part of it. What is open at that point stays open: timers keep
their due times, and who is a child is asked again.

A rewound life is the same execution: it keeps the entries as they are, also the tokens in them, which
may be in somebody's mailbox. A fork is another one: its tokens, and what its body has
sent to itself, lead to itself. So what is asked there differs from what was recorded, and an entry
behind the copied ones says that up to there nothing is compared. It stands in the journal because it
has to last as long as they do, whoever replays them.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from pydantic_core import from_json, to_json

from perdure._definitions.address import token_anew
from perdure._ids import new_execution_id, new_incarnation, step_key
from perdure._kernel.event import event_of, told_apart
from perdure._model.journal import FORKED, FORKS, MARKERS, WITHOUT_COMPENSATIONS, Entry, Kind
from perdure._model.records import (
    Commit,
    ExecutionId,
    History,
    Letter,
    MailKind,
    Record,
    Start,
    message_name,
    read_message_name,
)
from perdure._model.status import Status, is_final
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure._values.token import TokenKeys
from perdure.errors import ExecutionNotFoundError, UsageError

# Mail that comes to the body again although it came later than the point that is gone back to: somebody was told that it
# is there. What the engine wrote itself (children's ends, an interrupt) comes anew, if it comes.
_KEPT = frozenset({MailKind.DEFERRED, MailKind.MESSAGE})

# What a letter is known by, in a journal too: its kind, and what tells it apart.
_Place = tuple[str, str]


async def rewind(store: Store, execution_id: ExecutionId, to: int) -> None:
    """Have a finished or held execution go on behind the entry `to` of its journal, as a new life (R37).

    Raises:
        ExecutionNotFoundError: There is no such execution.
        UsageError: It still runs, or its journal has no such entry.
    """
    record, history = await _read(store, execution_id)
    first = record.incarnation
    while not await _rewound(store, record, history, to):
        # A held one may have had mail meanwhile, which the next life has to have too.
        record, history = await _read(store, execution_id)
        if record.incarnation != first:
            raise UsageError(f"Execution {execution_id} has begun another life meanwhile; look at it again.")


async def _rewound(store: Store, record: Record, history: History, to: int) -> bool:
    """Begin the next life of what was read; False: it is not as it was read any more."""
    execution_id = record.execution_id
    if not is_final(record.status) and record.held is None:
        raise UsageError(
            f"Execution {execution_id} is {record.status}: only a finished or a held one can be rewound. "
            "Interrupt it first."
        )
    entries = _prefix(history, to, execution_id)
    read = _letters_of(entries)
    letters = [letter for letter in history.letters if letter.kind in _KEPT or _place(letter) in read]
    # What is left of what a fork has copied is still the original's.
    forks = [entry for entry in history.entries[to:] if _is_fork(entry)]
    when = _when(entries, record, store.clock.now())
    entries += [entry._replace(seq=seq, at=when) for seq, entry in enumerate(forks, len(entries) + 1)]
    start = replace(_next_life(record, store.clock.now()), number=record.number + 1)
    return await store.renew(record.incarnation, record.wakes, start, entries, letters)


async def fork(
    store: Store,
    execution_id: ExecutionId,
    at: int,
    *,
    new_id: ExecutionId | None,
    compensates: bool,
    keys: TokenKeys | None,
) -> Commit:
    """The birth of a new execution that begins with the journal of another one, up to the entry `at` (R49).

    Args:
        store: Where both are.
        execution_id: The original.
        at: The last entry that is copied.
        new_id: The id of the fork; None: a random one.
        compensates: Whether the fork undoes what the copied entries have done.
        keys: What its tokens are signed with; None: nothing.

    Raises:
        ExecutionNotFoundError: There is no such execution.
        UsageError: Its journal has no such entry.
    """
    record, history = await _read(store, execution_id)
    copied = _prefix(history, at, execution_id)
    read = _letters_of(copied)
    # What its body has said to itself is not said once more when that is replayed.
    lying = {_place(letter) for letter in history.letters}
    own = {entry.seq: place for entry in copied if (place := _own_mail(entry, record, lying)) is not None}
    along = read.union(own.values())
    letters = [letter for letter in history.letters if _place(letter) in along]
    now = store.clock.now()
    start = replace(
        _next_life(record, now),
        execution_id=new_id or new_execution_id(now),
        key=None,
        deadline=None,
        letters=letters,
    )
    when = _when(copied, record, store.clock.now())
    mark = FORKED if compensates else WITHOUT_COMPENSATIONS
    entries = [
        *(_anew(entry, execution_id, start, keys, own.get(entry.seq)) for entry in copied),
        Entry(len(copied) + 1, Kind.ACT, mark, 1, 0, b"", b"", when),
    ]
    return Commit(start.execution_id, start.incarnation, 0, 0, Status.PENDING, start, entries)


def _when(entries: Sequence[Entry], record: Record, now: Instant) -> Instant:
    """When what is put behind a part of a journal is said to have been: time does not go back in it."""
    return entries[-1].at if entries else record.began_at or now


def _anew(entry: Entry, original: ExecutionId, start: Start, keys: TokenKeys | None, own: _Place | None) -> Entry:
    """An entry of the original as the fork has it: what it gives out is its own, and so is `own`, what it sends itself."""
    if entry.kind == Kind.TOKEN:
        return entry._replace(exit=token_anew(entry.exit, original, start, keys))
    if entry.kind == Kind.SENT and own is not None:
        # As if it had been sent with that id: of a fork of this one nobody could tell it by its step.
        kind, name = own
        said = read_message_name(name)[1] if kind == Kind.MESSAGE else name
        return entry._replace(input=to_json([start.execution_id, said, from_json(entry.input)[2]]))
    return entry


def _own_mail(entry: Entry, record: Record, lying: set[_Place]) -> _Place | None:
    """The mail that an execution has given itself with this entry; None: none that lies in its mailbox."""
    step, _, name = entry.name.partition(":")
    if entry.kind == Kind.ACT and step == "into":
        return Kind.DEFERRED, name
    if entry.kind != Kind.SENT or step not in {"complete", "send"}:
        return None
    to, said, _ = from_json(entry.input)
    if to != record.execution_id:
        return None
    if step == "complete":
        return Kind.DEFERRED, name
    if said is not None:
        return Kind.MESSAGE, message_name(name, said)
    # Known by the step that has sent it, which may have been an earlier life's: in the present one almost always.
    steps = (step_key(to, life, entry.name, entry.input, entry.occurrence) for life in range(record.number, 0, -1))
    return next((place for key in steps if (place := (Kind.MESSAGE, message_name(name, key))) in lying), None)


def _is_fork(entry: Entry) -> bool:
    return entry.kind == Kind.ACT and entry.name in FORKS


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


def _prefix(history: History, to: Any, execution_id: ExecutionId) -> list[Entry]:
    """What is handed on of a journal: its entries up to `to`, and what their last turn has decided."""
    last = len(history.entries)
    if not isinstance(to, int) or isinstance(to, bool) or not 0 <= to <= last:
        raise UsageError(
            f"The journal of execution {execution_id} has the entries 1 to {last}; it cannot go on behind {to!r}. "
            "0 is its beginning; `await engine.journal(id)` shows them."
        )
    kept = history.entries[:to]
    # The last turn of them is taken again as a replay, in which `patched` says no to what is not recorded: without its
    # decisions, which stand behind its event, the body would go the old way (R8a).
    turn = takewhile(lambda entry: entry.kind in MARKERS, history.entries[to:])
    decided = [entry for entry in turn if entry.kind == Kind.PATCH]
    return [*kept, *(entry._replace(seq=seq) for seq, entry in enumerate(decided, to + 1))]


def _letters_of(entries: Sequence[Entry]) -> set[_Place]:
    """The mail that stands in a part of a journal."""
    return {(entry.kind, told_apart(entry)) for entry in entries}


def _place(letter: Letter) -> _Place:
    event = event_of(letter)
    return event.kind, told_apart(event)
