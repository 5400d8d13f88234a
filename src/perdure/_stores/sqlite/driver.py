"""What the store uses of apsw, with types.

apsw's own stubs name `collections.abc.Buffer`, which Python 3.11 does not have; everything that
takes or gives a value would be of an unknown type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import apsw

Value = str | int | float | bytes | None  # what a column may hold


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
