"""The version of the schema, and how a database comes to it.

`application_id` says that a file is ours, `user_version` which migrations it has had. Each
migration is one transaction that begins IMMEDIATE and looks at the version again inside: of
several processes that open at once, one migrates and the others find it done.

The tables are then held against those that the migrations make elsewhere. Their text is parsed
anew by every connection: a letter of it that has changed on the disk would be another column.
"""

from functools import cache
from importlib.resources import files
from typing import Final

import apsw

from perdure._stores.sqlite.driver import Connection, connect, select
from perdure._values.instant import Instant
from perdure.errors import SchemaVersionError, StoreFileError

Table = tuple[str, str, str, str | None]  # its row of sqlite_schema; an index has one as well

APPLICATION_ID: Final = int.from_bytes(b"prdr", "big")


@cache
def migrations() -> tuple[str, ...]:
    """The SQL of every migration, the first one first."""
    names = sorted(one.name for one in files(f"{__package__}.migrations").iterdir() if one.name.endswith(".sql"))
    return tuple(files(f"{__package__}.migrations").joinpath(name).read_text("utf-8") for name in names)


def migrate(connection: Connection, path: str, now: Instant) -> None:
    """Bring a database to this library's version; nothing is written when it is there.

    Raises:
        StoreFileError: It is somebody else's database, or its tables are damaged.
        SchemaVersionError: A newer library has written it.
    """
    while _look(connection, path) < len(migrations()):
        _step(connection, path, now)
    # What somebody has added by hand, an index perhaps, is no damage.
    missing = _expected(migrations()) - _tables(connection)
    if missing:
        names = ", ".join(sorted(name for _, name, _, _ in missing))
        raise StoreFileError(
            f"{path} is damaged: {names} is not as perdure makes it; nothing was written. Restore it from a backup.",
            path=path,
        )


@cache
def _expected(scripts: tuple[str, ...]) -> frozenset[Table]:
    connection = connect(":memory:", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        for script in scripts:
            connection.execute(script)
        return _tables(connection)
    finally:
        connection.close()


def _tables(connection: Connection) -> frozenset[Table]:
    return frozenset(select(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema"))


def _look(connection: Connection, path: str) -> int:
    # In one snapshot: between two looks of their own another process may make the database ours.
    connection.execute("BEGIN")
    try:
        return _version(connection, path)
    finally:
        # An I/O error has ended it already, and a complaint about that would hide the error.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _step(connection: Connection, path: str, now: Instant) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)
        if version < len(migrations()):
            _apply(connection, version + 1, now)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _apply(connection: Connection, version: int, now: Instant) -> None:
    connection.pragma("application_id", APPLICATION_ID)
    connection.execute(migrations()[version - 1])
    connection.execute("INSERT INTO perdure_meta(version, applied_at) VALUES (?, ?)", (version, now))
    connection.pragma("user_version", version)


def _version(connection: Connection, path: str) -> int:
    application_id = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application_id != APPLICATION_ID and (application_id or version or _has_tables(connection)):
        raise StoreFileError(
            f"{path} is another application's database; nothing was written. Give perdure a file of its own,"
            " such as orders.perdure.",
            path=path,
        )
    if version > len(migrations()):
        raise SchemaVersionError(
            f"{path} has schema {version}; this version of perdure knows {len(migrations())}. Upgrade perdure here,"
            " or open the file where it was last used.",
            found=version,
            supported=len(migrations()),
        )
    return version


def _has_tables(connection: Connection) -> bool:
    return bool(select(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"))
