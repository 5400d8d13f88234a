"""A first page that the power's loss has spoilt is not the last word on whose file it is."""

from pathlib import Path

import apsw
import pytest

from perdure._stores.sqlite import SqliteStore, header
from perdure.errors import StoreFileError

from tests.conftest import Run
from tests.unit.stores.actor import worker

RUBBISH = b"\xa5" * 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.perdure"


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(RUBBISH)


def left_behind(path: Path, application_id: int, *, journal_mode: str) -> None:
    """A database and what stands beside it in the middle of a transaction that changes the first page."""
    live = path.with_name("live")
    one = apsw.Connection(str(live))
    one.pragma("application_id", application_id)
    one.execute("CREATE TABLE t(x)")
    one.pragma("journal_mode", journal_mode)
    one.execute("BEGIN IMMEDIATE; CREATE TABLE u(x)")
    one.cache_flush()
    if journal_mode == "wal":
        one.execute("COMMIT")
    for suffix in ("", "-wal", "-journal"):
        found = live.with_name(f"live{suffix}")
        if found.exists():
            path.with_name(f"{path.name}{suffix}").write_bytes(found.read_bytes())
    one.close()


OURS = int.from_bytes(b"prdr", "big")


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize(("application_id", "ours"), [(OURS, True), (OURS + 1, False)])
def test_a_spoilt_first_page_is_looked_for_where_sqlite_will_take_it_from(
    path: Path, journal_mode: str, application_id: int, ours: bool
) -> None:
    left_behind(path, application_id, journal_mode=journal_mode)
    assert header.is_ours(path) is ours
    spoil(path)
    assert header.is_ours(path) is ours
    assert not header.is_database(path)


def test_a_spoilt_file_that_was_being_made_is_nobodys(path: Path) -> None:
    """Its journal says that it was empty, so SQLite will make it empty again."""
    live = apsw.Connection(str(path))
    live.execute("BEGIN IMMEDIATE; CREATE TABLE t(x)")
    live.cache_flush()
    copy = path.with_name("copy")
    for suffix in ("", "-journal"):
        path.with_name(f"copy{suffix}").write_bytes(path.with_name(f"{path.name}{suffix}").read_bytes())
    live.close()
    spoil(copy)
    assert header.is_ours(copy)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_another_applications_database_is_not_taken_for_what_was_left_beside_it(path: Path, journal_mode: str) -> None:
    """Somebody has put it in the place of ours, whose WAL or journal is still there."""
    left_behind(path, OURS, journal_mode=journal_mode)
    path.unlink()
    other = apsw.Connection(str(path.with_name("other")))
    other.execute("CREATE TABLE t(x)")
    other.close()
    path.with_name("other").rename(path)
    assert header.is_database(path)
    assert not header.is_ours(path)


def test_half_a_header_is_nobodys_only_while_the_file_is_made(path: Path) -> None:
    left_behind(path, OURS, journal_mode="wal")
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert not header.is_ours(path)
    path.with_name(f"{path.name}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504))
    assert header.is_ours(path)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
@pytest.mark.parametrize(
    "beside", [b"", b"short", bytes(8192), b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", b"\x37\x7f\x06\x82"]
)
def test_what_says_nothing_changes_nothing(path: Path, suffix: str, beside: bytes) -> None:
    path.write_bytes(RUBBISH)
    path.with_name(f"{path.name}{suffix}").write_bytes(beside)
    assert not header.is_ours(path)


def test_a_store_opens_again_whose_first_page_was_spoilt_in_a_checkpoint(path: Path, tmp_path: Path, run: Run) -> None:
    """Promise 1: a page that was being written may hold anything, and the WAL still has it."""
    copy = tmp_path / "copy.perdure"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.register(worker("w1"))
        # Whatever changes the size of the database is in the first page.
        await store._write(lambda one: one.execute("CREATE TABLE t(x)"))
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
        await store.close()
        spoil(copy)
        again = SqliteStore(copy)
        await again.open()
        assert [one.worker_id for one in await again.workers()] == ["w1"]
        assert await again._write(lambda one: one.pragma("integrity_check")) == "ok"
        await again.close()

    run(main)


def test_a_spoilt_file_with_nothing_beside_it_is_refused_as_it_is(path: Path, run: Run) -> None:
    path.write_bytes(RUBBISH * 16)

    async def main() -> None:
        with pytest.raises(StoreFileError, match="is not a database"):
            await SqliteStore(path).open()

    run(main)
    assert path.read_bytes() == RUBBISH * 16
