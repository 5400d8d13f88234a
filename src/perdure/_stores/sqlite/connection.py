"""How a connection comes to be: what is looked at before, and how it is set up.

A file is looked at before SQLite touches it, because opening somebody else's database can already
write to it (a hot journal is rolled back, a WAL made). So: no file or an empty one becomes ours,
one that carries our `application_id` is ours, every other is refused as it is.

Then, once for each opening of a store, SQLite looks it through: damage that it meets only where it
happens to read is an answer with something missing, such as a journal without its steps, which
would then be done again. A large file is not looked through; it costs 3 ms for each MiB.
"""

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar, cast
from urllib.parse import quote

import apsw

from perdure._stores.sqlite import guard, header
from perdure._stores.sqlite.driver import Connection, connect
from perdure._stores.sqlite.fault import translated
from perdure._stores.sqlite.liveness import FileLiveness, MemoryLiveness
from perdure._stores.sqlite.schema import migrate
from perdure._values.instant import Instant
from perdure.errors import StoreFileError

_REMEDY: Final = "Give perdure a file of its own, such as orders.perdure."

# 64 MiB would hold the index of a million ids, and cost more than they save: in a file of less than 1 GiB, each commit
# that has split a page in the middle of an index makes SQLite go through all pages that it has cached.
WRITER_CACHE_KIB: Final = 16_384
# The reader forgets all pages whenever the writer has committed, one by one.
READER_CACHE_KIB: Final = 4_096
# A look waits only while the WAL is being recovered or started afresh.
READER_PATIENCE_MS: Final = 5_000
# What a WAL file shrinks to after a burst, once a checkpoint has emptied it.
JOURNAL_SIZE_LIMIT: Final = 64 * 1024 * 1024
# Up to this size a file is looked through when it is opened: a fifth of a second.
LOOK_THROUGH_LIMIT: Final = 64 * 1024 * 1024

T = TypeVar("T")


class Patience(Protocol):
    """How the writer waits for other connections."""

    def equip(self, connection: Connection) -> None:
        """Take a new connection into the writer's care."""
        ...

    def insist(self, action: Callable[[], T]) -> T:
        """Do what another connection may be in the way of, as often as it takes."""
        ...


class FileDatabase:
    """A database file, for any number of processes."""

    shared = True
    polls = True

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = path
        self.liveness = FileLiveness(path)
        self._inode: guard.Inode | None = None  # once it was opened

    def connect_writer(self, patience: Patience, now: Instant) -> Connection:
        """Open the file, make it where there is none, and bring the schema to this version.

        Raises:
            StoreFileError: It is not a perdure database, or cannot be written.
            SchemaVersionError: A newer library has written it.
            StoreUnavailableError: It cannot be reached just now.
            UsageError: This process was forked from one that had it open.
        """
        if self._inode is None:
            return self._connect_first(patience, now)
        try:
            self._recognise(self._inode)
            return patience.insist(lambda: self._open(patience, now))
        except (apsw.Error, OSError) as error:
            raise translated(error, self.path) from error

    def connect_reader(self) -> Connection:
        """Open the file for looking only, after a writer has."""
        connection = connect(self.path, apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(READER_PATIENCE_MS)
        _tune(connection)
        connection.pragma("cache_size", -READER_CACHE_KIB)
        connection.pragma("query_only", True)
        return connection

    def let_go(self) -> None:
        """Drop the workers' locks, and let other SQLite libraries of this process open the file."""
        self.liveness.drop_all()
        if self._inode is not None:
            guard.remove(self._inode)
            self._inode = None

    def _connect_first(self, patience: Patience, now: Instant) -> Connection:
        with ExitStack() as undo:
            undo.callback(self.let_go)
            try:
                self._enter()
                connection = patience.insist(lambda: self._open(patience, now, first=True))
            except (apsw.CantOpenError, apsw.ReadOnlyError, OSError) as error:
                self._refuse(f"cannot be opened for writing ({error})", "Check its permissions.", error)
            except apsw.SQLError as error:
                # Of a file format or an encoding that SQLite does not know, or of tables that it cannot parse.
                self._refuse(f"is damaged ({error})", "Restore it from a backup.", error)
            except apsw.Error as error:
                raise translated(error, self.path) from error
            undo.pop_all()
            return connection

    def _open(self, patience: Patience, now: Instant, *, first: bool = False) -> Connection:
        with ExitStack() as undo:
            connection = connect(self.path, apsw.SQLITE_OPEN_READWRITE)
            undo.callback(_close_as_it_is, connection)
            _tune(connection)
            if first:
                self._look_through(connection)
            # Behind the tuning: `wal_autocheckpoint` takes the hook that counts the WAL away.
            patience.equip(connection)
            # Before the WAL is switched on: so the application_id is in the file itself, where a
            # look at the file's header finds it.
            migrate(connection, self.path, now)
            if first and connection.readonly("main"):
                # SQLite has opened it for reading only and does not say why: so its header may have it, damaged or of
                # a version to come.
                self._refuse("cannot be opened for writing", "Check its permissions, or restore it from a backup.")
            if connection.pragma("journal_mode", "wal") != "wal":
                self._refuse("is on a file system without shared memory", "Put it on a local disk.")
            undo.pop_all()
            return connection

    def _look_through(self, connection: Connection) -> None:
        if self._file.stat().st_size <= LOOK_THROUGH_LIMIT:
            found = str(connection.pragma("integrity_check", 1))
            if found != "ok":
                self._refuse(f"is damaged ({' '.join(found.split())})", "Restore it from a backup.")

    def _enter(self) -> None:
        with guard.entering:
            self._inspect()
            inode = _inode(self._file.stat())
            guard.add(inode)
            self._inode = inode

    def _recognise(self, inode: guard.Inode) -> None:
        # An empty file in its place would become a new database, and every execution unknown.
        if _inode(self._file.stat()) != inode:
            self._refuse("was replaced while it was open", "Restart the process.")

    def _inspect(self) -> None:
        folder = self._file.parent
        if not folder.is_dir():
            self._refuse("cannot be made: its folder does not exist", f"Make it with mkdir -p {folder}.")
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            self._refuse("is in a folder that cannot be written to", "SQLite keeps a log beside the file.")
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return
        self._inspect_found(self._file.stat())

    def _inspect_found(self, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            self._refuse("is a folder", _REMEDY)
        if not stat.S_ISREG(found.st_mode):
            self._refuse("is not a file", _REMEDY)
        if not os.access(self.path, os.W_OK | os.R_OK, effective_ids=True):
            self._refuse("cannot be written to", "Check its permissions and its owner.")
        # The look closes the file, and with that drops all locks of this process on it.
        if not guard.is_open(_inode(found)) and found.st_size > 0:
            self._inspect_header()

    def _inspect_header(self) -> None:
        if header.is_ours(self._file):
            return
        if not header.is_database(self._file):
            self._refuse("is not a database", _REMEDY)
        self._refuse("is another application's database", _REMEDY)

    def _refuse(self, what: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
        raise StoreFileError(f"{self.path} {what}; nothing was written. {remedy}", path=self.path) from cause


class MemoryDatabase:
    """A database in this process's memory, alive as long as somebody is connected."""

    shared = False
    connect_reader = None

    def __init__(self, name: str | None) -> None:
        # Without a name there is nobody else whose writing could be noticed.
        self.polls = name is not None
        label = os.urandom(8).hex() if name is None else name
        self.path = f"file:/perdure-{quote(label, safe='')}?vfs=memdb"
        self.liveness = MemoryLiveness(label)

    def connect_writer(self, patience: Patience, now: Instant) -> Connection:
        """Connect, and bring the schema to this version."""
        try:
            return patience.insist(lambda: self._open(patience, now))
        except apsw.Error as error:
            raise translated(error, self.path) from error

    def _open(self, patience: Patience, now: Instant) -> Connection:
        with ExitStack() as undo:
            connection = connect(self.path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI)
            undo.callback(connection.close, True)
            patience.equip(connection)
            migrate(connection, self.path, now)
            undo.pop_all()
            return connection

    def let_go(self) -> None:
        """Drop the workers' locks. The last connection takes the database with it."""
        self.liveness.drop_all()


def _inode(found: os.stat_result) -> guard.Inode:
    return found.st_dev, found.st_ino


def _close_as_it_is(connection: Connection) -> None:
    # Closing the last connection would otherwise write the WAL into a file that has just been refused.
    cast("apsw.Connection", connection).config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)


def _tune(connection: Connection) -> None:
    # FULL: with NORMAL a power loss takes acknowledged commits with it, though not the file.
    connection.pragma("synchronous", "full")
    connection.pragma("cache_size", -WRITER_CACHE_KIB)
    # An I/O error on a mapped page is a SIGBUS, and the end of the process.
    connection.pragma("mmap_size", 0)
    connection.pragma("journal_size_limit", JOURNAL_SIZE_LIMIT)
    connection.pragma("foreign_keys", False)
    connection.pragma("wal_autocheckpoint", 0)
