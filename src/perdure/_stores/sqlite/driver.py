"""What the store uses of apsw, with types.

apsw's own stubs name `collections.abc.Buffer`, which Python 3.11 does not have; everything that
takes or gives a value would be of an unknown type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar, cast

import apsw

T = TypeVar("T")

Value = str | int | float | bytes | None  # what a column may hold

# The most rows that one statement is given. Its parameters are four to twenty-five times as many, and SQLite takes 32,766.
_MOST_ROWS: Final = 256


class Cursor(Protocol):
    """The rows of a statement, each a tuple."""

    def __iter__(self) -> Iterator[Any]: ...
    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """One connection, used by one thread."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: Sequence[Value] | None = None) -> Cursor: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[Sequence[Value]]) -> Cursor: ...
    def pragma(self, name: str, value: str | int | None = None) -> Any: ...
    def changes(self) -> int: ...
    def readonly(self, name: str) -> bool: ...
    def total_changes(self) -> int: ...
    def last_insert_rowid(self) -> int: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def set_wal_hook(self, callable: "Callable[[Any, str, int], int] | None") -> None: ...
    def wal_checkpoint(
        self, dbname: str | None = None, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE
    ) -> tuple[int, int]: ...
    def close(self, force: bool = ...) -> None: ...  # noqa: FBT001 - as the driver has it


def connect(path: str, flags: int) -> Connection:
    """Open a database."""
    return cast("Connection", apsw.Connection(path, flags=flags))


def select(connection: Connection, sql: str, bindings: Sequence[Value] = ()) -> list[Any]:
    """All rows of one query."""
    return connection.execute(sql, bindings).fetchall()


def in_parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Rows in parts of which each is one statement's: powers of two, so that a handful of statements serves every number.

    A statement for each row, as by `executemany`, takes no longer. But after each the thread must get the interpreter
    back, and beside an event loop that is never idle it waits for that each time.
    """
    begin, left, size = 0, len(rows), _MOST_ROWS
    while left:
        while size > left:
            size >>= 1
        yield rows[begin : begin + size]
        begin += size
        left -= size


def values(row: str, count: int) -> str:
    """The values of so many rows, each as given: `(?, ?)`."""
    return "VALUES " + ", ".join([row] * count)


def flat(rows: Iterable[Sequence[Value]]) -> list[Value]:
    """The bindings of several rows."""
    return [value for row in rows for value in row]
