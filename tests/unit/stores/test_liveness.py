"""Whose locks say that they live."""

import signal
from pathlib import Path

from perdure._stores.sqlite import SqliteStore
from perdure._stores.sqlite.liveness import FileLiveness

from tests.conftest import Run
from tests.unit.stores.actor import program, worker


def locks(folder: Path) -> list[str]:
    """The names of the workers' lock files."""
    return sorted(one.name for one in folder.iterdir() if "-worker-" in one.name)


HOLD = """
import asyncio, sys
from perdure._stores.sqlite import SqliteStore
from tests.unit.stores.actor import worker
async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.register(worker("theirs"))
    print("ready", flush=True)
    sys.stdin.readline()
asyncio.run(main())
"""


def test_a_worker_of_another_process_is_dead_when_the_process_is(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"
    other = program(HOLD, path)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.register(worker("mine"))
        await store.take_over("mine")
        assert await store.alive("theirs")
        other.kill()
        other.wait()
        await store.take_over("mine")
        assert not await store.alive("theirs")
        assert await store.alive("mine")
        assert locks(tmp_path) == ["orders.perdure-worker-mine"]
        await store.close()

    run(main)
    other.communicate()


def test_a_frozen_process_is_not_dead(tmp_path: Path, run: Run) -> None:
    """It holds its lock: nobody takes away what it will go on with."""
    path = tmp_path / "orders.perdure"
    other = program(HOLD, path)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        other.send_signal(signal.SIGSTOP)
        await store.take_over("mine")
        assert await store.alive("theirs")
        await store.close()

    try:
        run(main)
    finally:
        other.kill()
        other.communicate()


def test_a_retired_worker_leaves_no_lock_file(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "orders.perdure")
        await store.open()
        await store.register(worker("w/1 ✓"))  # whatever an id is made of, it is a file beside the database
        assert len(locks(tmp_path)) == 1
        await store.retire("w/1 ✓")
        assert locks(tmp_path) == []
        await store.close()

    run(main)


def test_workers_of_a_closed_store_are_dead(tmp_path: Path, run: Run) -> None:
    """Who closes without retiring has died, as far as others can tell."""

    async def main() -> None:
        one, other = SqliteStore(tmp_path / "orders.perdure"), SqliteStore(tmp_path / "orders.perdure")
        await one.open()
        await other.open()
        await one.register(worker("w1"))
        await one.close()
        await other.take_over("w2")
        assert not await other.alive("w1")
        await other.close()

    run(main)


def test_a_lock_file_that_was_removed_is_made_again(tmp_path: Path, run: Run) -> None:
    """A cleaner of old files must not let a living worker be taken for dead for longer than a look."""

    async def main() -> None:
        one, other = SqliteStore(tmp_path / "orders.perdure"), SqliteStore(tmp_path / "orders.perdure")
        await one.open()
        await other.open()
        await one.register(worker("w1"))
        (tmp_path / "orders.perdure-worker-w1").unlink()
        assert await one.alive("w1")
        await other.take_over("w2")
        assert await one.alive("w1")
        await one.close()
        await other.close()

    run(main)


def test_what_crashes_have_left_is_swept_when_a_store_opens(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "orders.perdure"

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.register(worker("living"))
        await store.register(worker("dead"))
        store.abandon("dead")
        (tmp_path / "orders.perdure-worker-unheard").touch()
        await store.register(worker("retired"))
        await store.retire("retired")
        (tmp_path / "orders.perdure-worker-retired").touch()
        other = SqliteStore(path)
        await other.open()
        # The dead one is still to be taken over.
        assert locks(tmp_path) == ["orders.perdure-worker-dead", "orders.perdure-worker-living"]
        await other.close()
        await store.close()

    run(main)


def test_a_worker_that_is_just_registering_is_not_swept_away(tmp_path: Path, run: Run) -> None:
    """Its lock is there before its row is: a lock that is held is left alone whatever the rows say."""
    path = tmp_path / "orders.perdure"
    liveness = FileLiveness(path)
    liveness.hold("new")

    async def main() -> None:
        store = SqliteStore(path)
        await store.open()
        assert locks(tmp_path) == ["orders.perdure-worker-new"]
        await store.close()

    run(main)
    liveness.drop_all()


def test_the_file_is_found_by_every_name_and_the_locks_with_it(tmp_path: Path, run: Run) -> None:
    path, link = tmp_path / "orders.perdure", tmp_path / "elsewhere" / "link.perdure"
    link.parent.mkdir()
    link.symlink_to(path)

    async def main() -> None:
        one, other = SqliteStore(path), SqliteStore(link)
        await one.open()
        await other.open()
        await one.register(worker("w1"))
        await other.take_over("w2")
        assert await one.alive("w1")
        await one.close()
        await other.close()

    run(main)
    assert [one.name for one in link.parent.iterdir()] == ["link.perdure"]
