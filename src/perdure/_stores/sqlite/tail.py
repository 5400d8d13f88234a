"""The end of a journal and of a mailbox: what has happened to an execution lately."""

from typing import Final

from perdure._model.journal import Entry
from perdure._model.records import History, Letter
from perdure._stores.sqlite.driver import Connection, select

_ENTRIES: Final = (
    "SELECT seq, kind, name, occurrence, attempt, input, exit, at FROM perdure_journal"
    " WHERE incarnation = ? ORDER BY seq DESC LIMIT ?"
)
_LETTERS: Final = (
    "SELECT wake, kind, name, exit, at FROM perdure_mailbox WHERE incarnation = ? AND wake > 0"
    " ORDER BY wake DESC LIMIT ?"
)


def tail(connection: Connection, incarnation: bytes, limit: int) -> History:
    """The newest entries and letters of an incarnation, in order."""
    entries = [Entry._make(row) for row in select(connection, _ENTRIES, (incarnation, limit))]
    letters = [Letter._make(row) for row in select(connection, _LETTERS, (incarnation, limit))]
    return History(entries[::-1], letters[::-1])
