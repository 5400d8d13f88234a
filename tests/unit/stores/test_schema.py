"""How a file comes to this version's schema."""

import asyncio
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from perdure._stores.sqlite import SqliteStore, schema
from perdure.errors import SchemaVersionError, StoreError, StoreFileError

from tests.conftest import Run
from tests.unit.stores.actor import output, program, worker

OPEN = """
import asyncio, sys
from perdure._stores.sqlite import SqliteStore
from tests.unit.stores.actor import worker
async def main():
    sys.stdin.readline()
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.register(worker(sys.argv[2]))
    await store.close()
print("ready", flush=True)
asyncio.run(main())
"""


async def opened(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def test_several_processes_may_open_a_new_file_at_once(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    programs = [program(OPEN, path, f"w{number}") for number in range(4)]
    for one in programs:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in programs:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in programs:
        output(one)

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        assert {one.worker_id for one in await store.workers()} == {"w0", "w1", "w2", "w3"}
        await store.close()

    run(main)


def test_a_file_of_a_newer_library_is_refused_as_it_is(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    run(lambda: opened(path))
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError, match="Upgrade perdure") as caught:
        run(lambda: opened(path))
    assert (caught.value.found, caught.value.supported) == (99, len(schema.migrations()))
    assert path.read_bytes() == before


def test_a_file_of_an_older_library_is_brought_up_to_date(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.perdure"
    run(lambda: opened(path))
    newer = (*schema.migrations(), "CREATE TABLE perdure_new(x); CREATE TABLE perdure_newer(x);")
    monkeypatch.setattr(schema, "migrations", lambda: newer)
    run(lambda: opened(path))
    run(lambda: opened(path))
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == len(newer)
    assert connection.execute("SELECT version FROM perdure_meta ORDER BY 1").fetchall() == [(1,), (2,)]
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.perdure"
    run(lambda: opened(path))
    broken = (*schema.migrations(), "CREATE TABLE perdure_new(x); CREATE TABLE perdure_new(x);")
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: broken)
        with pytest.raises(StoreError):
            run(lambda: opened(path))
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == 1
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'perdure_new'").fetchall() == []
    connection.close()
    run(lambda: opened(path))


def test_a_file_that_became_somebody_elses_while_it_was_looked_at_is_refused(tmp_path: Path, run: Run) -> None:
    """The empty file that passed the look has tables by the time of the migration."""
    path = tmp_path / "orders.perdure"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs(x)")
    with pytest.raises(StoreFileError, match="another application"):
        schema.migrate(connection, str(path), 0)  # type: ignore[arg-type]
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_a_migration_that_another_process_was_quicker_with_is_not_done_again(tmp_path: Path) -> None:
    """Between a look at the version and the lock somebody else may have done it all."""
    path = str(tmp_path / "orders.perdure")
    connection = apsw.Connection(path)
    schema.migrate(connection, path, 0)  # type: ignore[arg-type]
    schema._step(connection, path, 0)  # type: ignore[arg-type]
    assert connection.pragma("user_version") == len(schema.migrations())
    connection.close()


class Meddled:
    """A connection beside which another one migrates, just when the first has looked whose the file is."""

    def __init__(self, connection: apsw.Connection, other: apsw.Connection, path: str) -> None:
        self._connection = connection
        self._other = other
        self._path = path
        self.meddled = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def pragma(self, name: str, *value: object) -> object:
        answer = self._connection.pragma(name, *value)  # type: ignore[arg-type]
        if name == "application_id" and not self.meddled:
            self.meddled += 1
            with suppress(apsw.BusyError):
                schema.migrate(self._other, self._path, 0)  # type: ignore[arg-type]
        return answer


def test_a_look_at_a_file_sees_one_state_of_it(tmp_path: Path) -> None:
    """Ours by version and nobody's by id is what two looks of their own could see."""
    path = str(tmp_path / "orders.perdure")
    connection, other = apsw.Connection(path), apsw.Connection(path)
    meddled = Meddled(connection, other, path)
    schema.migrate(meddled, path, 0)  # type: ignore[arg-type]
    assert meddled.meddled == 1
    assert other.pragma("user_version") == len(schema.migrations())
    connection.close()
    other.close()


def test_stores_in_memory_are_set_up_by_whoever_comes_first(run: Run) -> None:
    async def main() -> None:
        stores = [SqliteStore.in_memory(name="test_schema") for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        await stores[0].register(worker("w1"))
        assert [len(await store.workers()) for store in stores] == [1] * 4
        for store in stores:
            await store.close()
        alone = SqliteStore.in_memory(name="test_schema")
        await alone.open()
        assert await alone.workers() == []  # the last one took the database with it
        await alone.close()

    run(main)


def test_stores_in_memory_without_a_name_are_alone(run: Run) -> None:
    async def main() -> None:
        one, other = SqliteStore.in_memory(), SqliteStore.in_memory()
        await one.open()
        await other.open()
        await one.register(worker("w1"))
        assert await other.workers() == []
        assert not one.shared
        await one.close()
        await other.close()

    run(main)
