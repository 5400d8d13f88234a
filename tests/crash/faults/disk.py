"""A disk that fails when it is told to: below SQLite's file system, and below that, at the calls into the kernel.

Two doors, because neither shows all: the file system (`Disk`) sees what SQLite syncs, and the system calls
(`SystemCalls`) see the index of the WAL (`-shm`), which never passes through a file system of ours, and fail as
a kernel fails, with an errno that SQLite makes of what it likes.

Only what the store's own threads do is counted and fails: a test that looks at the file is not in its own way.
"""

import ctypes
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import apsw

STORE_THREAD: Final = "perdure-"
DISK: Final = "perdure-faults"


class Faults:
    """Which of the calls fail: those from the first to the last, counted from 1 in the order of their coming."""

    def __init__(
        self, first: int = 0, last: int | None = None, *, every: int = 1, operations: frozenset[str] | None = None
    ) -> None:
        # 0: none fails.
        self.first = first
        # None: until it is healed.
        self.last = last
        # Of those only each n-th.
        self.every = every
        # None: all of them. Others are neither counted nor failed.
        self.operations = operations
        self.calls = 0
        self.injected: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def heal(self) -> None:
        """Let nothing fail any more."""
        with self._lock:
            self.first = 0

    def strikes(self, operation: str) -> bool:
        """Count a call; True: it is to fail."""
        if not threading.current_thread().name.startswith(STORE_THREAD):
            return False
        with self._lock:
            if self.operations is not None and operation not in self.operations:
                return False
            self.calls += 1
            self.seen[operation] += 1
            if not self.first or self.calls < self.first or (self.last is not None and self.calls > self.last):
                return False
            if (self.calls - self.first) % self.every:
                return False
            self.injected[operation] += 1
            return True


# The file system -----------------------------------------------------------------------------------------------------

# What each call fails with where a test does not say otherwise.
ERRORS: Final[dict[str, type[apsw.Error]]] = {"xOpen": apsw.CantOpenError, "xLock": apsw.BusyError}


class Disk(apsw.VFS):
    """The host's file system, and the default one of this process until it is taken away."""

    def __init__(self) -> None:
        super().__init__(DISK, "unix", makedefault=True)
        self.faults = Faults()
        # What every call fails with; None: what ERRORS says, else an I/O error.
        self.error: type[apsw.Error] | None = None

    def come(self, operation: str) -> None:
        """Say that a call has come, and fail it if it is to."""
        if self.faults.strikes(operation):
            raise (self.error or ERRORS.get(operation, apsw.IOError))(f"{operation}: the test says so")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        self.come("xOpen")
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.come("xDelete")
        super().xDelete(filename, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:
        self.come("xAccess")
        return super().xAccess(pathname, flags)


class _File(apsw.VFSFile):
    """A file on it."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.come("xRead")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.come("xWrite")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.come("xTruncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        # Not done: nobody cuts the power here, and what a sync costs would be most of these tests.
        self._disk.come("xSync")

    def xFileSize(self) -> int:
        self._disk.come("xFileSize")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._disk.come("xLock")
        super().xLock(level)


@contextmanager
def failing_disk() -> Iterator[Disk]:
    """Put a disk below everything that is opened meanwhile."""
    disk = Disk()
    try:
        yield disk
    finally:
        disk.unregister()


# The system calls ----------------------------------------------------------------------------------------------------

_INT, _SIZE, _LONG, _POINTER = ctypes.c_int, ctypes.c_size_t, ctypes.c_long, ctypes.c_void_p
F_SETLK: Final = 6
F_UNLCK: Final = 2

# By name: the type of its answer, those of its arguments, what it answers when it fails, and the errno of that.
_CALLS: Final[dict[str, tuple[Any, tuple[Any, ...], int, int]]] = {
    "open": (_INT, (ctypes.c_char_p, _INT, _INT), -1, errno.EMFILE),
    "fstat": (_INT, (_INT, _POINTER), -1, errno.EIO),
    "ftruncate": (_INT, (_INT, _LONG), -1, errno.EIO),
    # Variadic in C; on Linux an argument of either kind lies in the same register.
    "fcntl": (_INT, (_INT, _INT, _POINTER), -1, errno.ENOLCK),
    "pread64": (ctypes.c_ssize_t, (_INT, _POINTER, _SIZE, _LONG), -1, errno.EIO),
    "pwrite64": (ctypes.c_ssize_t, (_INT, _POINTER, _SIZE, _LONG), -1, errno.ENOSPC),
    "mmap": (_SIZE, (_POINTER, _SIZE, _INT, _INT, _INT, _LONG), ctypes.c_size_t(-1).value, errno.ENOMEM),
    "unlink": (_INT, (ctypes.c_char_p,), -1, errno.EIO),
}


class SystemCalls:
    """What SQLite asks the kernel."""

    def __init__(self) -> None:
        self.faults = Faults()
        # What every call fails with; None: what _CALLS says.
        self.error: int | None = None
        # Whether a file may be opened for reading, whatever fails.
        self.spares_reading = False
        self._vfs = apsw.VFS("perdure-system-calls", "unix")
        self._kept: list[Any] = []  # SQLite has their addresses

    def replace(self) -> None:
        """Stand between SQLite and the kernel."""
        for name in _CALLS:
            pointer = self._vfs.xGetSystemCall(name)
            assert pointer, name
            call = self._standing_in(name, pointer)
            self._kept.append(call)
            self._vfs.xSetSystemCall(name, ctypes.cast(call, ctypes.c_void_p).value)

    def put_back(self) -> None:
        """Let SQLite ask the kernel itself."""
        for name in _CALLS:
            self._vfs.xSetSystemCall(name, 0)
        self._vfs.unregister()

    def _standing_in(self, name: str, pointer: int) -> Any:
        answer, arguments, failed, error = _CALLS[name]
        kind = ctypes.CFUNCTYPE(answer, *arguments, use_errno=True)
        real: Callable[..., Any] = kind(pointer)

        def called(*given: Any) -> Any:
            # Unlocking does not fail, and SQLite does not look whether it has.
            unlocks = name == "fcntl" and (given[1] != F_SETLK or _lock_type(given[2]) == F_UNLCK)
            reads = name == "open" and self.spares_reading and given[1] & os.O_ACCMODE == os.O_RDONLY
            if not unlocks and not reads and self.faults.strikes(name):
                ctypes.set_errno(self.error or error)
                return failed
            return real(*given)

        return kind(called)


def _lock_type(pointer: int) -> int:
    return ctypes.cast(pointer, ctypes.POINTER(ctypes.c_short))[0]


@contextmanager
def failing_system_calls() -> Iterator[SystemCalls]:
    """Stand between SQLite and the kernel meanwhile."""
    calls = SystemCalls()
    calls.replace()
    try:
        yield calls
    finally:
        calls.put_back()
