"""The file is perdure's own: no second SQLite library may open it in this process."""

import os
import sqlite3
from pathlib import Path

import pytest

from perdure._stores.sqlite import SqliteStore
from perdure.errors import UsageError

from tests.conftest import Run


def names(path: Path) -> list[object]:
    """Ways in which a file is named to sqlite3."""
    link, hard = path.with_name("soft"), path.with_name("hard")
    link.symlink_to(path)
    hard.hardlink_to(path)
    return [
        path,
        str(path),
        os.fsencode(path),
        os.path.relpath(path),
        link,
        hard,
        f"file:{path}",
        f"file:{path}?mode=ro",
        f"file://{path}",
        f"file://localhost{path}#fragment",
        "file:" + "".join(f"%{byte:02x}" for byte in os.fsencode(path)),
    ]


def test_sqlite3_may_not_open_the_file_of_an_open_store(tmp_path: Path, run: Run) -> None:
    """POSIX locks belong to the process: the second library's close would drop the first one's."""
    path = tmp_path / "größe 100%.perdure"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        for name in names(path):
            with pytest.raises(UsageError, match="another process"):
                sqlite3.connect(name, uri=str(name).startswith("file:"))  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            sqlite3.Connection(path)
        await store.close()

    run(main)


def test_sqlite3_may_open_everything_else(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        sqlite3.connect(tmp_path / "app.db").close()
        sqlite3.connect(":memory:").close()
        sqlite3.connect("").close()
        sqlite3.connect("file::memory:?cache=shared", uri=True).close()
        with pytest.raises(sqlite3.OperationalError):
            sqlite3.connect(tmp_path / "none" / "app.db")
        with pytest.raises((TypeError, ValueError)):
            sqlite3.connect("\0")
        await store.close()

    run(main)


def test_sqlite3_may_open_the_file_when_the_last_store_is_closed(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"

    async def main() -> None:
        one, other = SqliteStore(path), SqliteStore(path)
        await one.open()
        await other.open()
        await one.close()
        with pytest.raises(UsageError):
            sqlite3.connect(path)
        await other.close()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()

    run(main)


def test_a_store_that_was_refused_guards_nothing(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(x)")
    connection.close()

    async def main() -> None:
        with pytest.raises(Exception, match="another application"):
            await SqliteStore(path).open()
        sqlite3.connect(path).close()

    run(main)
