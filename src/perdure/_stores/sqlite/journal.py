"""What is written into journals, and read from them."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from typing import Any, Final, cast

from perdure._model.journal import Entry
from perdure._stores.sqlite.driver import Connection, flat, in_parts, select, values
from perdure.errors import StoreRefusedError

EntryRow = tuple[bytes, *tuple[int | str | bytes, ...]]  # the incarnation, and an `Entry`

# FAIL, or SQLite would keep what it changes for each statement of several rows, to take it back if one is refused.
# Whoever refuses a row takes the whole transaction back, or comes to its savepoint.
_WRITE: Final = "INSERT OR FAIL INTO perdure_journal {} ON CONFLICT DO NOTHING"
_ENTRY: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_WRITTEN: Final = "SELECT * FROM perdure_journal WHERE incarnation = ? AND seq = ?"
_READ: Final = (
    "SELECT seq, kind, name, occurrence, attempt, input, exit, at FROM perdure_journal"
    " WHERE incarnation = ? AND seq > ? ORDER BY seq"
)

_entry: Final = cast("Callable[[type[Entry], Sequence[Any]], Entry]", tuple[Any, ...].__new__)


def write(connection: Connection, entries: Sequence[EntryRow]) -> None:
    """Write entries; those that are there already are left as they are.

    Raises:
        StoreRefusedError: Another entry is there in the place of one of them.
    """
    before = connection.total_changes()
    for part in in_parts(entries):
        connection.execute(_writing(len(part)), flat(part))
    if connection.total_changes() - before == len(entries):
        return
    # Some were there. A repeat says the same words; anything else is two turns that claim one
    # place in the journal, which must never be settled by who came first.
    for entry in entries:
        if select(connection, _WRITTEN, entry[:2]) != [entry]:
            raise StoreRefusedError(
                f"Entry {entry[1]} of the journal {entry[0].hex()} is there already, with other content."
                " Two turns have been committed under one fence: this is a defect of perdure. Nothing was written."
            )


@cache
def _writing(count: int) -> str:
    return _WRITE.format(values(_ENTRY, count))


def read(connection: Connection, incarnation: bytes, after: int) -> list[Entry]:
    """The entries behind a seq, in order."""
    # What `Entry._make` does, without its frame, and with one row at a time: a replay is a good part reading. The rows
    # have no name: an error about a damaged one would keep them, and with them the reader's view of that moment.
    return list(map(_entry, repeat(Entry), connection.execute(_READ, (incarnation, after))))
