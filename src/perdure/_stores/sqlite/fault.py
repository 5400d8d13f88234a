"""What an error of the database means to the caller of the port."""

from json import JSONDecodeError
from typing import Final

import apsw

from perdure._stores.sqlite.rows import DamagedRowError
from perdure.errors import StoreError, StoreFileError, StoreRefusedError, StoreUnavailableError

# Another connection is in the way; waiting helps.
BUSY: Final = (apsw.BusyError, apsw.LockedError)

# The connection may hold a page cache or a lock that no longer fits the file: open a new one. One that cannot
# write among them: where a file cannot be opened for writing just then (no descriptor is left, the file system is
# read-only), SQLite opens it for reading and does not say so, and would never write again.
SPOILT: Final = (
    apsw.IOError,
    apsw.CantOpenError,
    apsw.NoMemError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
)

# What ends a transaction for all that take part in it, not for the statement that met it.
FATAL: Final = (*BUSY, *SPOILT, apsw.FullError, apsw.InterruptError)

# The last three are of a text that was read: what is written is encoded, and cannot fail so.
DAMAGED: Final = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError, JSONDecodeError, DamagedRowError)

_UNAVAILABLE: Final = (
    *BUSY,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.NoMemError,
    apsw.InterruptError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    # Also READONLY_DBMOVED: the file was moved away under the open connection.
    apsw.ReadOnlyError,
    # Of the workers' lock files.
    OSError,
)

# The last three are raised by the binding, before the database sees the value: a type it does not
# know, an int beyond 64 bits, a str with a lone surrogate.
_REFUSED: Final = (
    apsw.ConstraintError,
    apsw.TooBigError,
    apsw.MismatchError,
    TypeError,
    OverflowError,
    UnicodeError,
)


def translated(error: BaseException, path: str) -> BaseException:
    """The port's error for one of the database; every other is given back as it is."""
    if isinstance(error, _UNAVAILABLE):
        said = f"{path} cannot be used just now ({error}). Whatever was asked may be asked again."
        result: StoreError = StoreUnavailableError(said)
    elif isinstance(error, DAMAGED):
        # SQLite says the same of a disk that answers a read with EIO, and nothing tells the two apart.
        said = (
            f"{path} is damaged, or its disk cannot read it ({error}). Check the disk; a damaged file is to be restored"
        )
        result = StoreFileError(f"{said} from a backup.", path=path)
    elif isinstance(error, _REFUSED):
        result = StoreRefusedError(f"{path} does not take the data ({error}); nothing was written.")
    elif isinstance(error, apsw.Error):
        result = StoreError(f"{path}: {error}")
    else:
        return error
    result.__cause__ = error
    return result
