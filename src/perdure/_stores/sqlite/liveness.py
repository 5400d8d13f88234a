"""Which workers live: each holds a lock that ends with its process, however that ends.

On a file the lock is an flock on a file of the worker's own beside the database. Process ids lie
across containers and are used again, leases have to be waited for; a lock that the kernel drops
is neither. It belongs to the open file, so two engines of one process tell each other apart. In
memory all workers are of this process, and a set of names takes the lock's place.

The order: the lock is taken before the worker's row is written, and dropped after it is retired.
So whoever sees the row without a retirement can trust the lock. Nobody ever waits for a lock, and
nobody but its owner keeps one longer than a look takes.
"""

import fcntl
import os
import threading
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, unquote

from perdure._model.records import WorkerId


class Liveness(Protocol):
    """The locks of the workers of one store."""

    def hold(self, worker_id: WorkerId) -> None:
        """Take a worker's lock; nothing happens when this store holds it already."""
        ...

    def holds(self, worker_id: WorkerId) -> bool:
        """Whether this store has taken a worker's lock."""
        ...

    def drop(self, worker_id: WorkerId) -> None:
        """Let go of a worker's lock, as its death would."""
        ...

    def drop_all(self) -> None:
        """Let go of every lock of this store."""
        ...

    def is_dead(self, worker_id: WorkerId) -> bool:
        """Whether nobody holds a worker's lock."""
        ...

    def forget(self, worker_id: WorkerId) -> None:
        """Remove what is left of a worker, if nobody holds its lock."""
        ...

    def leftovers(self) -> list[WorkerId]:
        """Workers of whom something is left, dead or alive."""
        ...


class FileLiveness:
    """Locks on files beside the database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: dict[WorkerId, int] = {}  # each worker's open file
        _OF_THIS_PROCESS.add(self)

    def hold(self, worker_id: WorkerId) -> None:
        """Take a worker's lock, and make its file if it is not there (any more).

        Raises:
            OSError: It cannot be taken just now.
        """
        path = self._path(worker_id)
        # Until the locked file is the one that others find: between our opening and our locking
        # it, somebody may have removed it as a dead worker's.
        while not self._stands(worker_id, path):
            self.drop(worker_id)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._held[worker_id] = handle
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.drop(worker_id)
                raise

    def holds(self, worker_id: WorkerId) -> bool:
        """Whether this store has taken a worker's lock."""
        return worker_id in self._held

    def drop(self, worker_id: WorkerId) -> None:
        """Close a worker's lock file, which ends its lock."""
        handle = self._held.pop(worker_id, None)
        if handle is not None:
            os.close(handle)

    def drop_all(self) -> None:
        """Close every lock file of this store."""
        for worker_id in list(self._held):
            self.drop(worker_id)

    def is_dead(self, worker_id: WorkerId) -> bool:
        """Whether nobody holds a worker's lock; a file that is gone is held by nobody."""
        if worker_id in self._held:
            return False
        try:
            with self._locked(worker_id) as locked:
                return locked
        except FileNotFoundError:
            return True

    def forget(self, worker_id: WorkerId) -> None:
        """Remove a worker's lock file under its lock: who waits to hold it will see that it is gone."""
        with suppress(FileNotFoundError), self._locked(worker_id) as locked:
            if locked:
                self._path(worker_id).unlink()

    def leftovers(self) -> list[WorkerId]:
        """Workers whose lock file is there."""
        prefix = self._path("").name
        names = (one.name for one in self._database.parent.iterdir())
        return [unquote(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]

    @contextmanager
    def _locked(self, worker_id: WorkerId) -> Generator[bool]:
        """Look whether a lock is free; True: it is, and is ours inside the block. Never waits."""
        try:
            handle = os.open(self._path(worker_id), os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            # Another user's worker. Who cannot look must not say that it is dead.
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(handle)

    def _stands(self, worker_id: WorkerId, path: Path) -> bool:
        # A cleaner of old files may have taken ours away. Then the lock is worth nothing: whoever
        # looks for it finds no file.
        handle = self._held.get(worker_id)
        if handle is None:
            return False
        try:
            return os.path.samestat(os.fstat(handle), path.stat())
        except FileNotFoundError:
            return False

    def _path(self, worker_id: WorkerId) -> Path:
        return self._database.with_name(f"{self._database.name}-worker-{quote(worker_id, safe='')}")


_OF_THIS_PROCESS: Final[weakref.WeakSet[FileLiveness]] = weakref.WeakSet()


def _after_fork() -> None:
    # The child shares the open files, and with them the locks: it would keep a dead parent alive.
    # Closing its copies leaves the parent's locks alone (LOCK_UN would end them).
    for liveness in list(_OF_THIS_PROCESS):
        liveness.drop_all()


os.register_at_fork(after_in_child=_after_fork)

_names: dict[str, set[WorkerId]] = {}
_names_lock = threading.Lock()


class MemoryLiveness:
    """A set of living workers for each named database in this process's memory."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._held: set[WorkerId] = set()

    def hold(self, worker_id: WorkerId) -> None:
        """Count a worker among the living."""
        with _names_lock:
            self._held.add(worker_id)
            _names.setdefault(self._database, set()).add(worker_id)

    def holds(self, worker_id: WorkerId) -> bool:
        """Whether this store counts a worker among the living."""
        return worker_id in self._held

    def drop(self, worker_id: WorkerId) -> None:
        """Count a worker among the living no more."""
        with _names_lock:
            self._held.discard(worker_id)
            living = _names.get(self._database, set())
            living.discard(worker_id)
            if not living:
                _names.pop(self._database, None)

    def drop_all(self) -> None:
        """Count no worker of this store among the living."""
        for worker_id in list(self._held):
            self.drop(worker_id)

    def is_dead(self, worker_id: WorkerId) -> bool:
        """Whether a worker is not among the living."""
        with _names_lock:
            return worker_id not in _names.get(self._database, set())

    def forget(self, worker_id: WorkerId) -> None:
        """Do nothing: the dead leave nothing behind here."""

    def leftovers(self) -> list[WorkerId]:
        """Nobody."""
        return []


def dead(liveness: Liveness, worker_ids: Iterable[WorkerId]) -> list[WorkerId]:
    """Those of the workers whose lock nobody holds."""
    return [worker_id for worker_id in worker_ids if liveness.is_dead(worker_id)]
