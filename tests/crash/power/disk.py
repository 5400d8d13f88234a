"""A disk that passes everything on, and keeps a log of what would matter if the power went.

The log has what SQLite asked of the file system, in the order in which it was done, and between that what callers
were told. A write stands in it when it is done; a sync says from where on it promises nothing, because another thread
may write while it is under way. Names are things to sync of their own: a new file whose folder was not synced may be
gone, one that was removed may be there again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

_NEW_NAME_IS_SYNCED = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


class Write(NamedTuple):
    """Bytes of a file."""

    inode: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file's new size."""

    inode: int
    size: int


class Sync(NamedTuple):
    """What was done to a file before that place of the log stays."""

    inode: int
    since: int


class Link(NamedTuple):
    """A name for a new file."""

    name: str
    inode: int


class Unlink(NamedTuple):
    """A name that is gone."""

    name: str


class SyncFolder(NamedTuple):
    """What was done to names before that place of the log stays."""

    since: int


class Told(NamedTuple):
    """What somebody was told, and may rely on from here on."""

    word: Any


Op = Write | Truncate | Sync | Link | Unlink | SyncFolder | Told


class Log(list[Op]):
    """What happened, one thing after the other; only ever appended to, which threads may do at once."""

    def told(self) -> list[Any]:
        """The words of all that was told."""
        return [op.word for op in self if isinstance(op, Told)]


class Disk(apsw.VFS):
    """The file system for every database that is opened meanwhile; it keeps the log of one of them."""

    def __init__(self, database: Path | None, log: Log) -> None:
        self._database = None if database is None else str(database)
        self._log = log
        self._inodes: dict[str, int] = {}  # by what the name adds to the database's
        super().__init__("perdure-power", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if self._database is None or not str(path).startswith(self._database):
            return Careless("unix", name, flags)
        suffix = path.removeprefix(self._database)
        is_new = suffix not in self._inodes
        if is_new:
            # The database file itself was made by perdure before SQLite sees it: empty, its name not synced.
            assert not Path(path).exists() or Path(path).stat().st_size == 0
            self._inodes[suffix] = len(self._log)
            self._log.append(Link(suffix, self._inodes[suffix]))
        syncs_folder = is_new and bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))
        file = Watched("unix", name, flags)
        file.watch(self._log, self._inodes[suffix], syncs_folder=syncs_folder)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        if self._database is not None and filename.startswith(self._database):
            suffix = filename.removeprefix(self._database)
            del self._inodes[suffix]
            self._log.append(Unlink(suffix))
            if syncdir:
                self._log.append(SyncFolder(len(self._log)))


class Careless(apsw.VFSFile):
    """A file that is never synced: it is looked at and thrown away, and nobody shall wait for the real disk."""

    def xSync(self, flags: int) -> None:
        pass


class Watched(apsw.VFSFile):
    """A file whose log is kept. It is not synced either: the log is the disk here."""

    def watch(self, log: Log, inode: int, *, syncs_folder: bool) -> None:
        self._log = log
        self._inode = inode
        # As SQLite has it: the first sync of a journal or WAL by the connection that made it syncs the folder too.
        self._syncs_folder = syncs_folder

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._log.append(Write(self._inode, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._log.append(Truncate(self._inode, newsize))

    def xSync(self, flags: int) -> None:
        since = len(self._log)
        self._log.append(Sync(self._inode, since))
        if self._syncs_folder:
            self._syncs_folder = False
            self._log.append(SyncFolder(since))


@contextmanager
def watched(database: Path | None = None) -> Iterator[Log]:
    """Keep the log of a database that is not there yet, as long as this is open; nothing is synced meanwhile."""
    log = Log()
    disk = Disk(database, log)
    try:
        yield log
    finally:
        disk.unregister()
