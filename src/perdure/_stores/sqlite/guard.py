"""Which files this process has open through a store, and who else may not open them.

POSIX locks belong to the process, not to the connection, and closing *any* descriptor of a file
drops all of the process's locks on it. A second SQLite library in the process, as the standard
`sqlite3` is one, does just that when it closes its connection: from then on another process can
write inside our transactions. So as long as a store is open, `sqlite3.connect` on its file is
refused. It is seen through an audit hook, one for the process, which cannot be taken out again
and does no more than look at an empty dictionary when no store is open.

A child made by fork has inherited the library's table of open files, with locks that it does not
hold. It may not open such a file either; a spawned one may.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from perdure.errors import UsageError

Inode = tuple[int, int]

_open: Final[dict[Inode, int]] = {}  # how many stores of this process have the file open
_inherited: Final[set[Inode]] = set()  # what the parent had open when it forked this process
_hooked = False

# Held while a file is looked at and entered here: the look opens and closes it, which must never
# happen to a file that another store of this process has just opened.
entering = threading.RLock()


def is_open(inode: Inode) -> bool:
    """Whether a store of this process has the file open.

    Raises:
        UsageError: This process was forked from one that had.
    """
    if inode in _inherited:
        raise UsageError(
            "This process was forked from one that had this database open, and SQLite cannot be carried across a fork."
            " Start it with multiprocessing's 'spawn' or 'forkserver' method, or fork before the store is opened."
        )
    return inode in _open


def add(inode: Inode) -> None:
    """Keep other SQLite libraries of this process away from a file."""
    global _hooked  # noqa: PLW0603 - there is one process
    with entering:
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True
        _open[inode] = _open.get(inode, 0) + 1


def remove(inode: Inode) -> None:
    """Let go of a file."""
    with entering:
        left = _open.pop(inode, 0) - 1
        if left > 0:
            _open[inode] = left


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    # At "sqlite3.connect", before the file is opened. "sqlite3.connect/handle" would be too late:
    # the connection is there, and refusing it closes it, which is the very harm.
    # Python calls this for every event there is, four times in each turn of a body: what tells them apart comes first.
    if event == "sqlite3.connect" and _open and _inode_of(arguments[0]) in _open:
        raise UsageError(
            f"sqlite3.connect({arguments[0]!r}): a perdure store of this process has this file open. A second SQLite"
            " library in one process drops the first one's locks when it closes, and the file would be damaged. Look at"
            " it from another process, or close the store first; keep the application's own tables in another file."
        )


def _inode_of(database: object) -> Inode | None:
    try:
        name = os.fsdecode(database)  # pyright: ignore[reportArgumentType] - what is no path raises
        found = Path(_path_of_uri(name) if name.startswith("file:") else name).stat()
    except (TypeError, ValueError, OSError):
        return None  # no file yet, or no path: not one of ours
    return found.st_dev, found.st_ino


def _path_of_uri(uri: str) -> str:
    path = uri.removeprefix("file:").partition("#")[0].partition("?")[0]
    if path.startswith("//"):
        path = "/" + path[2:].partition("/")[2]  # the authority can only be empty or localhost
    return unquote(path, errors="surrogateescape")


def _after_fork() -> None:
    global entering  # noqa: PLW0603 - another thread of the parent may have held it
    entering = threading.RLock()
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
