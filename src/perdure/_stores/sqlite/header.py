"""Whose database a file is: by its header, or, where that is damaged, by what lies beside it.

A loss of power may leave anything in a page that was being written, and the first page is one of
them: while the file is made, and in every checkpoint. SQLite puts it right from its journal or
its WAL when it opens the file. We look before it does, so we look there as well; a file that could
be put right and was refused would be lost to its owner.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from perdure._stores.sqlite.schema import APPLICATION_ID

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_ID_AT: Final = 68
_HEADER: Final = 100

_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_START: Final = 28
_WAL_MAGIC: Final = (bytes.fromhex("377f0682"), bytes.fromhex("377f0683"))
_WAL_START: Final = 32
_FRAME_START: Final = 24


def is_database(file: Path) -> bool:
    """Whether a file says that it is an SQLite database."""
    return _head(file, _HEADER).startswith(_MAGIC)


def is_ours(file: Path) -> bool:
    """Whether a file is a perdure database, or will be when SQLite has put it right."""
    header = _head(file, _HEADER)
    if _says_ours(header):
        return True
    if not header.startswith(_MAGIC):
        return _will_be_empty(file) or _journal_says_ours(file) or _wal_says_ours(file)
    # Not rubbish, so it is somebody else's, whatever was left beside it; or the beginning of a page of which the
    # rest was never written. That happens only while a file is made: later the old rest stands there.
    return _number(header, _APPLICATION_ID_AT) == 0 and _will_be_empty(file)


def _says_ours(header: bytes) -> bool:
    return header.startswith(_MAGIC) and _number(header, _APPLICATION_ID_AT) == APPLICATION_ID


def _will_be_empty(file: Path) -> bool:
    """Whether SQLite will roll the file back to the nothing that it was."""
    start = _journal_start(file)
    return bool(start) and _number(start, 16) == 0


def _journal_says_ours(file: Path) -> bool:
    """Whether SQLite will roll the file back to one of ours."""
    start = _journal_start(file)
    if not start:
        return False
    with _journal(file).open("rb") as journal:
        journal.seek(_number(start, 20))  # behind the journal's first sector
        # Where page 1 is written at all it is written first: perdure uses a journal only while a file is made.
        return journal.read(4) == b"\0\0\0\1" and _says_ours(journal.read(_HEADER))


def _journal_start(file: Path) -> bytes:
    """How a journal that will be played back begins; empty if there is none."""
    start = _head(_journal(file), _JOURNAL_START)
    return start if len(start) == _JOURNAL_START and start.startswith(_JOURNAL_MAGIC) else b""


def _journal(file: Path) -> Path:
    return file.with_name(f"{file.name}-journal")


def _wal_says_ours(file: Path) -> bool:
    """Whether the WAL has a first page of ours. Whether its frames are whole is for SQLite to say."""
    path = file.with_name(f"{file.name}-wal")
    start = _head(path, _WAL_START)
    if len(start) < _WAL_START or start[:4] not in _WAL_MAGIC:
        return False
    with path.open("rb") as wal:
        return any(_says_ours(header) for header in _first_pages(wal, _number(start, 8)))


def _first_pages(wal: BinaryIO, page_size: int) -> Iterator[bytes]:
    """The headers of the first page in the frames of a WAL, those left over from an earlier round too."""
    place = _WAL_START
    while wal.seek(place) and len(frame := wal.read(_FRAME_START)) == _FRAME_START:
        if _number(frame, 0) == 1:
            yield wal.read(_HEADER)
        place += _FRAME_START + page_size


def _head(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(length)
    except FileNotFoundError:
        return b""


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
