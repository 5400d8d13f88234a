"""The raw limits beside the engine's figures: what SQLite and the disk do when nobody thinks in between.

The rows are those that an engine has just written, and the table is made by the statement that made the engine's, so
the comparison holds whatever becomes of the schema.
"""

import os
import time
from pathlib import Path
from typing import Any

import apsw

Row = tuple[Any, ...]

PAGE = b"\0" * 4096


def read_journal(path: Path) -> tuple[str, list[Row]]:
    """The statement that makes the journal of a closed engine's file, and its rows in the order they came."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        (statement,) = next(connection.execute("SELECT sql FROM sqlite_master WHERE name = 'perdure_journal'"))
        # Within a millisecond the order is lost; what is near in the table has come at nearly the same time.
        rows = connection.execute("SELECT * FROM perdure_journal ORDER BY at, incarnation, seq").fetchall()
    finally:
        connection.close()
    return statement, rows


def measure_inserts(path: Path, statement: str, rows: list[Row], rows_per_transaction: int) -> float:
    """Rows per second of one prepared insert, in transactions of that many rows."""
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 0)
        connection.execute(statement)
        insert = f"INSERT INTO perdure_journal VALUES ({', '.join('?' * len(rows[0]))})"  # noqa: S608 - question marks
        began = time.perf_counter()
        for first in range(0, len(rows), rows_per_transaction):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows[first : first + rows_per_transaction])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)
    finally:
        connection.close()


def measure_syncs(path: Path, count: int) -> float:
    """How often in a second a page can be appended to a file so that it survives a power loss."""
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        began = time.perf_counter()
        for _ in range(count):
            os.write(file, PAGE)
            sync(file)
        return count / (time.perf_counter() - began)
    finally:
        os.close(file)
