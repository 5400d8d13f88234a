"""Bits that have changed: in the file, in its log, in the log's index, while nobody had it open.

What SQLite can see is refused with an error that says where and what to do, and is left as it is: somebody may want to
get the rest out of it. What it need not see (free space, frames whose checksum is wrong, an index that it makes anew)
must make no difference. A wrong answer is neither. A page's content has no checksum of its own, so a letter that has
changed within a stored value is the one thing that nobody can notice, and not looked for here.
"""

import asyncio
import itertools
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import StoreFileError, WorkflowEngine
from perdure._engine import service
from perdure._stores.sqlite import connection, writer
from perdure.errors import SchemaVersionError

from tests.conftest import Run
from tests.crash.faults.play import Play, Work, hurry
from tests.crash.faults.trouble import listening
from tests.crash.snapshot import read_snapshot
from tests.crash.workflows import WORKFLOWS
from tests.soak import scaled

pytestmark = [
    pytest.mark.usefixtures("hurried"),
    pytest.mark.timeout(60),  # a hundred engines, each on a copy of a file
]

# Enough for pages that only point at other pages.
WORK: list[Work] = [(name, f"{name}-{number}") for name in ("Steps", "Flaky", "Declined") for number in range(60)]
Results = dict[str, Any]


class Sample:
    """A file with results in it, closed well, and the same as a process has left it that was killed."""

    def __init__(self, folder: Path) -> None:
        self.closed, self.killed = folder / "closed", folder / "killed"
        self.killed.mkdir()
        play = Play(folder / "play", lambda main, **_: asyncio.run(main()))

        async def main() -> None:
            async with play.lab.engine(WORKFLOWS) as engine:
                await play.see_all_through(engine, WORK)
                for path in play.lab.folder.glob("lab.perdure*"):
                    shutil.copy(path, self.killed)

        play.lab.run(main)
        shutil.copytree(play.lab.folder, self.closed)
        for lock in [*self.closed.glob("*-worker-*"), *self.killed.glob("*-worker-*")]:
            lock.unlink()
        self.resting = folder / "resting"
        shutil.copytree(self.closed, self.resting)
        leave_a_log(self.resting / "lab.perdure")
        snapshot = read_snapshot(play.path)
        self.results: Results = {id_: execution.exit for id_, execution in snapshot.executions.items()}
        self.entries = {id_: len(execution.entries) for id_, execution in snapshot.executions.items()}
        assert len(self.results) == len(WORK)
        assert (self.killed / "lab.perdure-wal").stat().st_size > 100_000


def leave_a_log(path: Path) -> None:
    """Write to a file so that it lies in the log, and nobody copies it into the file."""
    database = apsw.Connection(str(path))
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.execute("UPDATE perdure_workers SET host = 'elsewhere'")
    database.close()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a damaged file does not take is not waited for when an engine is left."""
    monkeypatch.setattr(service, "CUT_OFF_S", 0.05)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        patch.setattr(writer, "CHECKPOINT_PAGES", 4_000)  # what the killed one has written lies in its log
        return Sample(tmp_path_factory.mktemp("sample"))


class Copy:
    """A copy of a sample with a damage, and what an engine says of it."""

    def __init__(self, sample: Sample, origin: Path, folder: Path, run: Run) -> None:
        shutil.copytree(origin, folder)
        self._sample = sample
        self.play = Play(folder, run)
        self.path = self.play.path
        # A log whose beginning is damaged has no end: what was in it is gone, and what was not is as it was.
        self.may_lack = False
        self._files: dict[str, bytes] = {}
        self._opened = False

    def flip(self, name: str, bit: int) -> None:
        path = self.path.with_name(name)
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        self.may_lack = name.endswith("-wal")
        # All but the log's index, which is nobody's data and made anew.
        self._files = {
            one.name: one.read_bytes() for one in self.path.parent.iterdir() if not one.name.endswith("-shm")
        }

    def judge(self) -> str:
        """What becomes of it; whatever is neither right nor a clear error raises."""
        self._opened = False
        self.play.take_the_stage()
        try:
            return self.play.lab.run(self._ask)
        except (StoreFileError, SchemaVersionError) as error:
            self._check_complaint(str(error))
            return "told later" if self._opened else "refused"

    def _check_complaint(self, said: str) -> None:
        assert str(self.path) in said
        assert any(remedy in said for remedy in ("backup", "file of its own", "Upgrade"))
        if not self._opened:
            for name, content in self._files.items():
                assert self.path.with_name(name).read_bytes() == content, f"{name} was written to"

    async def _ask(self) -> str:
        """Ask for every result, in two ways, for a journal, and for something new."""
        with listening() as trouble:
            async with self.play.lab.engine(WORKFLOWS) as engine:
                self._opened = True
                await self._look(engine)
                waiting = self.play.see_all_through(engine, [("Steps", "new")])
                heard = asyncio.create_task(trouble.heard())
                await asyncio.wait({waiting, heard}, return_when=asyncio.FIRST_COMPLETED)
                heard.cancel()
                if waiting.done():
                    await waiting
                    return "right"
                # It will never be written, and who starts it waits for an operator, who has been told.
                waiting.cancel()
                assert any("damaged" in said for said in trouble.said)
                return "waits"

    async def _look(self, engine: WorkflowEngine) -> None:
        wanted = self._sample.results
        listed = {info.execution_id async for info in engine.executions()}
        records = await self.play.lab.probe(engine).inner.read(list(wanted))
        exits = {record.execution_id: record.exit for record in records}
        if self.may_lack:
            assert listed == exits.keys() <= wanted.keys()
            assert [exit_ for id_, exit_ in exits.items() if exit_ and exit_ != wanted[id_]] == []
            return
        assert listed == wanted.keys(), "a listing has too much or too little"
        assert exits == wanted
        for id_, entries in self._sample.entries.items():
            assert len(await engine.journal(id_)) == entries


def pages_of(path: Path) -> Iterator[tuple[int, int]]:
    """Offset and kind of each page: 2 and 5 point at other pages, 10 and 13 have content."""
    content = path.read_bytes()
    (size,) = struct.unpack_from(">H", content, 16)
    for offset in range(0, len(content), size):
        yield offset, content[offset + (100 if offset == 0 else 0)]


def structure_of(path: Path) -> list[range]:
    """Where inner pages say what is where: their headers, and in each cell the page that it points at."""
    content = path.read_bytes()
    found: list[range] = []
    for offset, kind in pages_of(path):
        if kind in {2, 5}:
            start = offset + (100 if offset == 0 else 0)
            (cells,) = struct.unpack_from(">H", content, start + 3)
            found.append(range(start, start + 12 + 2 * cells))
            at = struct.unpack_from(f">{cells}H", content, start + 12)
            found += [range(offset + cell, offset + cell + 4) for cell in at]
    return found


def flips(draw: random.Random, ranges: list[range], count: int) -> Iterator[int]:
    for _ in range(count):
        yield draw.choice(draw.choice(ranges)) * 8 + draw.randrange(8)


Flip = Callable[[Sample, random.Random], Iterator[tuple[Path, str, int]]]


def in_the_header(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    for bit in flips(draw, [range(100)], scaled(25)):
        yield sample.closed, "lab.perdure", bit


def schema_of(path: Path) -> list[range]:
    """Where the tables are described: on the first page, or, since they are many, on the pages that it points at."""
    content = path.read_bytes()
    size = 1 << (struct.unpack_from(">H", content, 16)[0].bit_length() - 1)
    if content[100] != 5:
        return [range(100, size)]
    (cells,) = struct.unpack_from(">H", content, 103)
    at = struct.unpack_from(f">{cells}H", content, 112)
    pages = [struct.unpack_from(">I", content, cell)[0] for cell in (108, *at)]
    return [range((page - 1) * size, page * size) for page in pages]


def in_the_schema(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    for bit in flips(draw, schema_of(sample.closed / "lab.perdure"), scaled(25)):
        yield sample.closed, "lab.perdure", bit


def in_inner_pages(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    for bit in flips(draw, structure_of(sample.closed / "lab.perdure"), scaled(25)):
        yield sample.closed, "lab.perdure", bit


def in_a_file_with_a_log(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    for bit in flips(draw, structure_of(sample.resting / "lab.perdure"), scaled(10)):
        yield sample.resting, "lab.perdure", bit


def in_the_log_header(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    for bit in flips(draw, [range(32)], scaled(10)):
        yield sample.killed, "lab.perdure-wal", bit


def in_the_log(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    size = (sample.killed / "lab.perdure-wal").stat().st_size
    for bit in flips(draw, [range(32, size)], scaled(15)):
        yield sample.killed, "lab.perdure-wal", bit


def in_the_index(sample: Sample, draw: random.Random) -> Iterator[tuple[Path, str, int]]:
    size = (sample.killed / "lab.perdure-shm").stat().st_size
    for bit in flips(draw, [range(136), range(136, size)], scaled(15)):
        yield sample.killed, "lab.perdure-shm", bit


# Of each kind: where the flips are, and what at least one of them must have led to.
KINDS: list[tuple[Flip, set[str]]] = [
    (in_the_header, {"refused"}),
    (in_the_schema, {"refused"}),
    (in_inner_pages, {"refused"}),
    (in_a_file_with_a_log, {"refused"}),
    (in_the_log_header, {"right"}),
    (in_the_log, {"right"}),
    (in_the_index, {"right"}),
]


@pytest.mark.parametrize(("flip", "outcomes"), KINDS, ids=[flip.__name__ for flip, _ in KINDS])
def test_a_bit_that_has_changed_is_refused_or_makes_no_difference(
    sample: Sample, tmp_path: Path, run: Run, flip: Flip, outcomes: set[str]
) -> None:
    """Promise 8: a clear error before anything is written, or every result as it was."""
    seed = random.randrange(2**32)  # drawn anew for every run, and again with the same --randomly-seed
    print(f"seed {seed}")
    found: Counter[str] = Counter()
    for number, (origin, name, bit) in enumerate(flip(sample, random.Random(seed))):
        copy = Copy(sample, origin, tmp_path / str(number), run)
        copy.flip(name, bit)
        print(f"bit {bit % 8} of byte {bit // 8} of {name}")
        found[copy.judge()] += 1
        shutil.rmtree(copy.path.parent)
    print(dict(found))
    assert outcomes <= found.keys()


def test_a_file_that_is_not_looked_through_answers_with_something_missing(
    sample: Sample, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control, and why a file is looked through: what SQLite does not read it cannot miss."""
    monkeypatch.setattr(connection, "LOOK_THROUGH_LIMIT", -1)
    found: Counter[str] = Counter()
    # Most flips are met by SQLite itself; after so many one is not.
    flipped = itertools.chain.from_iterable(in_inner_pages(sample, random.Random(seed)) for seed in range(8))
    for number, (origin, name, bit) in enumerate(flipped):
        if found["wrong"]:
            break
        copy = Copy(sample, origin, tmp_path / str(number), run)
        copy.flip(name, bit)
        try:
            found[copy.judge()] += 1
        except AssertionError:
            found["wrong"] += 1
    assert found["wrong"] > 0
