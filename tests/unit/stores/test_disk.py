"""A disk that is full or fails: nothing is half written, and a repeat works when the cause is gone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import apsw
import pytest

from perdure._model.records import Verdict
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.errors import StoreUnavailableError
from perdure.testing.conformance.scene import Life, born, life_of, new_start

from tests.conftest import Run
from tests.unit.stores.actor import output, program, worker


class Disk(apsw.VFS):
    """The default file system as long as the test is in it; it fails when the test says so."""

    def __init__(self) -> None:
        super().__init__("perdure-test", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return File(name, flags)


class File(apsw.VFSFile):
    """A file on it."""

    write_error: ClassVar[type[Exception] | None] = None
    sync_error: ClassVar[type[Exception] | None] = None

    def __init__(self, name: object, flags: list[int]) -> None:
        super().__init__("unix", name, flags)  # type: ignore[arg-type]

    def xWrite(self, data: bytes, offset: int) -> None:
        if File.write_error is not None:
            raise File.write_error("the test says so")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if File.sync_error is not None:
            raise File.sync_error("the test says so")
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[None]:
    disk = Disk()
    yield
    File.write_error = File.sync_error = None
    disk.unregister()


async def two_running(store: SqliteStore) -> tuple[Life, Life]:
    await store.open()
    await store.register(worker("w1"))
    starts = [new_start(), new_start()]
    await store.commit("w1", [born(start, Status.RUNNING) for start in starts])
    return life_of(starts[0]), life_of(starts[1])


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("where", ["write_error", "sync_error"])
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.CantOpenError])
def test_a_batch_that_met_a_failing_disk_may_be_repeated(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, where: str, error: type[Exception]
) -> None:
    """StoreUnavailableError: nothing was written, or it is not known; repeat the batch."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        one, other = await two_running(store)
        batch = [one.commit(entries=3), other.commit(Status.SUCCEEDED, entries=1, exit=b"{}")]
        for _ in range(3):
            monkeypatch.setattr(File, where, error)
            with pytest.raises(StoreUnavailableError, match=r"orders\.perdure"):
                await store.commit("w1", batch)
            with pytest.raises(StoreUnavailableError):
                await store.deliver([one.mail()])
            monkeypatch.setattr(File, where, None)
            histories = await store.load([(one.incarnation, 0, 0), (other.incarnation, 0, 0)])
            assert [len(history.entries) for history in histories] == [0, 0]
        answers = await store.commit("w1", batch)
        assert [answer.verdict for answer in answers] == [Verdict.GRANTED, Verdict.GRANTED]
        assert await store.alive("w1")
        histories = await store.load([(one.incarnation, 0, 0), (other.incarnation, 0, 0)])
        assert [history.entries for history in histories] == [commit.entries for commit in batch]
        await store.close()

        again = SqliteStore(tmp_path / "orders.perdure")
        await again.open()
        assert await again._write(lambda connection: connection.pragma("integrity_check")) == "ok"
        assert [len(one.entries) for one in await again.load([(one.incarnation, 0, 0), (other.incarnation, 0, 0)])] == [
            3,
            1,
        ]
        await again.close()

    run(main)


@pytest.mark.usefixtures("disk")
def test_mail_that_may_have_been_told_is_told_again(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer is harmless: `mail_for` after one that failed leaves nothing out."""

    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        one, other = await two_running(store)
        await store.deliver([one.mail()])
        assert await store.mail_for("w1") == {one.execution_id: 1}
        await store.deliver([other.mail()])
        monkeypatch.setattr(File, "sync_error", apsw.IOError)
        with pytest.raises(StoreUnavailableError):
            await store.mail_for("w1")
        monkeypatch.setattr(File, "sync_error", None)
        assert await store.mail_for("w1") == {one.execution_id: 1, other.execution_id: 1}
        assert await store.mail_for("w1") == {}
        await store.close()

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the connection is opened anew, an empty file in its place would forget every execution."""
    path = tmp_path / "orders.perdure"

    async def main() -> None:
        store = SqliteStore(path)
        await two_running(store)
        monkeypatch.setattr(File, "sync_error", apsw.IOError)
        with pytest.raises(StoreUnavailableError):
            await store.register(worker("w2"))
        monkeypatch.setattr(File, "sync_error", None)
        path.rename(tmp_path / "moved")
        with pytest.raises(StoreUnavailableError):
            await store.register(worker("w2"))
        path.touch()
        with pytest.raises(Exception, match="replaced"):
            await store.register(worker("w2"))
        path.unlink()
        (tmp_path / "moved").rename(path)
        await store.register(worker("w2"))
        assert await store.alive("w1")
        await store.close()

    run(main)


# A limit on the size of files is as good as a full disk, without a disk to fill.
LIMITED = """
import asyncio, json, resource, signal, sys
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.errors import StoreUnavailableError
from perdure.testing.conformance.scene import born, life_of, new_start
from tests.unit.stores.actor import worker
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.register(worker("w1"))
    start = new_start()
    life = life_of(start)
    await store.commit("w1", [born(start, Status.RUNNING)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    written = 0
    commit = None
    try:
        while True:
            commit = life.commit(entries=20)
            commit.entries = [entry._replace(input=b"x" * 1000) for entry in commit.entries]
            await store.commit("w1", [commit])
            written += 20
    except StoreUnavailableError as error:
        said = str(error)
    (history,) = await store.load([(life.incarnation, 0, 0)])
    before = len(history.entries)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (answer,) = await store.commit("w1", [commit])
    (history,) = await store.load([(life.incarnation, 0, 0)])
    check = await store._write(lambda connection: connection.pragma("integrity_check"))
    await store.close()
    print(json.dumps([written, before, answer.verdict, [e.seq for e in history.entries], check, said]))

asyncio.run(main())
"""


def test_a_full_disk_stops_nothing_but_the_batch(tmp_path: Path) -> None:
    written, before, verdict, seqs, check, said = json.loads(output(program(LIMITED, tmp_path / "orders.perdure")))
    assert written == before > 0
    assert verdict == Verdict.GRANTED
    assert seqs == list(range(1, before + 21))
    assert check == "ok"
    assert "orders.perdure" in said
