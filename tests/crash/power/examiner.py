"""Opens images as the power's return would find them, and says what must not be.

A database that comes back must be whole, must be in a state that it once had (so no commit is there in part), and must
have everything that was told before the power went. The states are learnt from the log: the WAL marks the frame that
ends a commit, and the disk as it stood behind that frame, with nothing lost, is opened by the same store.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from perdure._stores.sqlite import SqliteStore
from perdure.errors import StoreError

from tests.crash.checker import (
    Account,
    every_journal_is_in_order,
    no_row_is_half_a_row,
    nothing_is_without_its_execution,
)
from tests.crash.power.disk import Link, Log, Told, Write
from tests.crash.power.fact import Fact, Facts
from tests.crash.power.image import DAMAGES, Image, everything, moments
from tests.crash.snapshot import Snapshot, read_snapshot

# When a schema was made is the only thing that opening an image writes anew.
WITHOUT_CHANCE = {"perdure_meta": "version"}
FRAME_HEADER = 24
# What holds of any database at any time.
LAWS = (every_journal_is_in_order, no_row_is_half_a_row, nothing_is_without_its_execution)


class Found(NamedTuple):
    """A database that was opened."""

    digest: str  # of every row
    integrity: str
    facts: frozenset[Fact]


class Complaint(NamedTuple):
    """Something that must not be."""

    sort: str  # "unopened", "broken", "never so" or "lost"
    image: int  # its number
    what: str


@dataclass
class Report:
    """What was found in many images."""

    complaints: list[Complaint] = field(default_factory=list)
    images: int = 0
    # Of the images: those in which something could have been lost, because it was not certain.
    uncertain: int = 0
    # Those that were not among the states that were learnt, nor among the images before.
    distinct: int = 0

    def spoilt(self) -> Counter[str]:
        """By sort: how many images have such a complaint."""
        return Counter(sort for sort, _ in {(one.sort, one.image) for one in self.complaints})

    def __str__(self) -> str:
        sorts = ", ".join(f"{times} {sort}" for sort, times in self.spoilt().items()) or "none spoilt"
        return f"{self.images} images ({self.distinct} unlike all others, {self.uncertain} with something uncertain): {sorts}"


class Examiner:
    """Looks at images of one log."""

    def __init__(self, log: Log, facts: Facts, folder: Path) -> None:
        self.log = log
        self.facts = facts
        self.folder = folder
        folder.mkdir()
        self.commits = list(commit_ends(log))
        # The digest of each state that the database had, from the empty one on: one more than there were commits.
        self.states: list[str] = []
        self._found: dict[bytes, Found | str] = {}

    async def learn(self) -> None:
        """Get to know every state that the database had."""
        self.states = [await self._digest({})]
        ends = set(self.commits)
        for place, remains in moments(self.log):
            if place in ends:
                self.states.append(await self._digest(remains.image(Random(0), everything)))

    async def _digest(self, image: Image) -> str:
        found = await self.open(image)
        assert isinstance(found, Found), found
        return found.digest

    async def examine(self, draw: Random, count: int) -> Report:
        """Have the power go `count` times, anywhere."""
        report = Report()
        known = len(self._found)
        wanted = Counter(draw.randint(0, len(self.log)) for _ in range(count))
        told: set[Fact] = set()
        for place, remains in moments(self.log):
            for _ in range(wanted[place]):
                report.images += 1
                report.uncertain += remains.uncertain() > 0
                report.complaints += [
                    Complaint(sort, report.images, what)
                    for sort, what in await self._judge(remains.image(draw, *DAMAGES), told)
                ]
            told.update(self._told_at(place))
        report.distinct = len(self._found) - known
        return report

    def told_before(self, place: int) -> set[Fact]:
        """What somebody may rely on before a place of the log."""
        return {fact for earlier in range(place) for fact in self._told_at(earlier)}

    def _told_at(self, place: int) -> list[Fact]:
        op = self.log[place] if place < len(self.log) else None
        return self.facts.of_word(op.word) if isinstance(op, Told) else []

    async def _judge(self, image: Image, told: set[Fact]) -> list[tuple[str, str]]:
        """What is wrong with an image, of which so much was told."""
        found = await self.open(image)
        if isinstance(found, str):
            return [("unopened", found)]
        wrong: list[tuple[str, str]] = []
        if found.integrity != "ok":
            wrong.append(("broken", found.integrity))
        if found.digest not in self.states:
            wrong.append(("never so", found.digest))
        return wrong + [("lost", str(fact)) for fact in told - found.facts]

    async def open(self, image: Image) -> Found | str:
        """Open an image as a process would that starts again; what the store says, if it does not open it."""
        name = hashlib.sha256(repr([(name, hashlib.sha256(data).digest()) for name, data in image.items()]).encode())
        key = name.digest()
        if key not in self._found:
            self._found[key] = await self._open(self.lay(image))
        return self._found[key]

    def lay(self, image: Image) -> Path:
        """Put an image down as files; the one before it goes."""
        for path in self.folder.iterdir():
            path.unlink()
        for name, data in image.items():
            (self.folder / f"image.perdure{name}").write_bytes(data)
        return self.folder / "image.perdure"

    async def _open(self, path: Path) -> Found | str:
        store = SqliteStore(path)
        try:
            await store.open()
        except StoreError as error:
            return f"{type(error).__name__}: {error}"
        try:
            integrity = await store._read(lambda one: one.pragma("integrity_check"))
            if integrity != "ok":
                return Found("", integrity, frozenset())
            digest = await store._read(digest_of)
            snapshot = read_snapshot(path)
        except StoreError as error:
            return Found("", f"{type(error).__name__}: {error}", frozenset())
        finally:
            await store.close()
        return Found(digest, "; ".join(unlawful(snapshot)) or "ok", frozenset(self.facts.of_snapshot(snapshot)))


def unlawful(snapshot: Snapshot) -> Iterator[str]:
    """What is wrong with a database, whatever was told."""
    for check in LAWS:
        yield from check(Account([], [], snapshot))


def digest_of(connection: Any) -> str:
    """A digest of every row of every table."""
    digest = hashlib.sha256()
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall():
        columns = WITHOUT_CHANCE.get(table, "*")
        digest.update(repr((table, connection.execute(f"SELECT {columns} FROM {table}").fetchall())).encode())
    return digest.hexdigest()


def commit_ends(log: Log) -> Iterator[int]:
    """The places behind the last write of each commit: of the frame whose header tells the size of the database."""
    wals = {op.inode for op in log if isinstance(op, Link) and op.name == "-wal"}
    ends_at: int | None = None
    for place, op in enumerate(log):
        if not isinstance(op, Write) or op.inode not in wals:
            continue
        if op.offset == ends_at:
            yield place + 1
            ends_at = None
        if len(op.data) == FRAME_HEADER and any(op.data[4:8]):
            ends_at = op.offset + FRAME_HEADER
