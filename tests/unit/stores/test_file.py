"""Which files become a store, and which are refused as they are."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perdure._stores.sqlite import SqliteStore
from perdure.errors import StoreFileError, UsageError

from tests.conftest import Run
from tests.unit.stores.actor import worker


def files(folder: Path) -> list[Path]:
    """Every file of a folder."""
    return [one for one in folder.iterdir() if one.is_file()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content."""
    return {one.name: one.read_bytes() for one in files(folder)}


async def opened(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def refusal(run: Run, path: Path) -> str:
    with pytest.raises(StoreFileError) as caught:
        run(lambda: opened(path))
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_new_file_is_its_owners_alone(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    old = os.umask(0)
    try:

        async def main() -> None:
            store = SqliteStore(path)
            await store.open()
            await store.register(worker("w1"))
            modes = [stat.S_IMODE(one.stat().st_mode) for one in files(tmp_path)]
            assert modes == [0o600] * 4  # the file, its WAL and index, the worker's lock
            await store.close()

        run(main)
    finally:
        os.umask(old)


def test_nothing_but_the_file_is_left_behind(tmp_path: Path, run: Run) -> None:
    run(lambda: opened(tmp_path / "orders.perdure"))
    assert [one.name for one in tmp_path.iterdir()] == ["orders.perdure"]


def test_an_empty_file_becomes_a_store(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    path.touch(mode=0o640)
    run(lambda: opened(path))
    run(lambda: opened(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # its owner has chosen it


def test_a_file_is_recognised_before_its_first_checkpoint(tmp_path: Path, run: Run) -> None:
    """A copy of a file whose process was killed: what says that it is ours must not be in the WAL alone."""
    path = tmp_path / "orders.perdure"
    copies = tmp_path / "copies"
    copies.mkdir()

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.register(worker("w1"))
        for one in files(tmp_path):
            shutil.copy(one, copies)  # harmless here: nobody else has this file open
        await store.close()

    run(main)

    async def again() -> None:
        store = SqliteStore(copies / "orders.perdure")
        await store.open()
        assert [worker.worker_id for worker in await store.workers()] == ["w1"]
        await store.close()

    run(again)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "notes.txt"
    for content in (b"x", b"SQLite format 2\0" + b"x" * 100, b"{}" * 5_000):
        path.write_bytes(content)
        before = tree(tmp_path)
        assert "is not a database" in refusal(run, path)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest.mark.parametrize("application_id", [0, 42])
def test_an_applications_database_is_refused_and_left_as_it_is(
    tmp_path: Path, run: Run, journal_mode: str, application_id: int
) -> None:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={journal_mode}")
    connection.execute(f"PRAGMA application_id={application_id}")
    connection.execute("CREATE TABLE orders(id)")
    connection.commit()
    connection.close()
    before = tree(tmp_path)
    assert "another application's database" in refusal(run, path)
    assert tree(tmp_path) == before


def test_a_hot_journal_of_somebody_elses_is_not_rolled_back(tmp_path: Path, run: Run) -> None:
    """Opening with SQLite would repair the file: it would be written to."""
    path = tmp_path / "app.db"
    program = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE t(x)'); c.commit()\n"
        "c.execute('PRAGMA cache_size=1'); c.execute('BEGIN IMMEDIATE')\n"
        "c.executemany('INSERT INTO t VALUES (zeroblob(?))', [(5000,)] * 50)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    before = tree(tmp_path)
    assert "app.db-journal" in before
    refusal(run, path)
    assert tree(tmp_path) == before


def test_a_damaged_file_is_refused(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    run(lambda: opened(path))
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    assert "damaged" in refusal(run, path)


def test_a_folder_is_refused(tmp_path: Path, run: Run) -> None:
    assert "is a folder" in refusal(run, tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "is not a file" in refusal(run, path)


def test_a_missing_folder_is_named_with_the_way_out(tmp_path: Path, run: Run) -> None:
    message = refusal(run, tmp_path / "no" / "orders.perdure")
    assert f"mkdir -p {tmp_path / 'no'}" in message
    assert not (tmp_path / "no").exists()


UNPRIVILEGED = """
import asyncio, os, sys
from perdure._stores.sqlite import SqliteStore, schema
from perdure.errors import StoreFileError
schema.migrations()  # whoever we become may not be able to read the package
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)  # permissions do not hold root back
async def main():
    store = SqliteStore(sys.argv[1])
    try:
        await store.open()
    except StoreFileError as error:
        print(error)
    else:
        print("opened")
        await store.close()
asyncio.run(main())
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users come to; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "said"),
    [
        (0o666, 0o777, "opened"),
        (0o444, 0o777, "cannot be written to"),
        (0o000, 0o777, "cannot be written to"),
        (0o666, 0o555, "folder that cannot be written to"),
        (None, 0o555, "folder that cannot be written to"),
    ],
)
def test_what_cannot_be_written_is_refused(
    public: Path, run: Run, file_mode: int | None, folder_mode: int, said: str
) -> None:
    folder = public / "store"
    folder.mkdir()
    path = folder / "orders.perdure"
    if file_mode is not None:
        run(lambda: opened(path))
        path.chmod(file_mode)
    folder.chmod(folder_mode)
    before = {one.name: one.stat().st_mtime_ns for one in folder.iterdir()}
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(path)], check=True, capture_output=True, text=True, cwd="/"
        )
    finally:
        folder.chmod(0o755)
    assert said in done.stdout
    if said != "opened":
        assert {one.name: one.stat().st_mtime_ns for one in folder.iterdir()} == before


def test_a_refused_store_can_be_opened_once_the_reason_is_gone(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    path.write_text("no database")

    async def main() -> None:
        store = SqliteStore(path)
        with pytest.raises(StoreFileError):
            await store.open()
        path.unlink()
        await store.open()
        assert await store.workers() == []
        await store.close()

    run(main)


def test_a_store_says_that_it_is_not_open(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        with pytest.raises(UsageError, match="not open"):
            await store.workers()
        await store.open()
        with pytest.raises(UsageError, match="open already"):
            await store.open()
        await store.close()
        with pytest.raises(UsageError, match="not open"):
            await store.workers()
        await store.open()  # and may be opened again
        await store.close()

    run(main)


def test_the_file_is_set_up_to_survive_a_loss_of_power(tmp_path: Path, run: Run) -> None:
    """DESIGN: with synchronous=NORMAL a power loss took acknowledged commits with it."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        await store.open()
        for lane in (store._opened().writer, store._opened().reader):
            settings = await lane.do(
                lambda connection: [connection.pragma(name) for name in ("journal_mode", "synchronous", "mmap_size")]
            )
            assert settings == ["wal", 2, 0]
        with pytest.raises(Exception, match="readonly"):
            await store._opened().reader.do(lambda connection: connection.execute("DELETE FROM perdure_meta"))
        await store.close()

    run(main)
    assert apsw.sqlite_lib_version() >= "3.51.3"  # before it the WAL could be reset under a reader
