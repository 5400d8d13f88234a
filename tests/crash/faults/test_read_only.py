"""A file system that is read-only: before a store is opened, and while it is open.

The kernel does not make a file system read-only by request while somebody writes to it; it does by itself after an I/O
error (ext4: errors=remount-ro). So that is played at the system calls: whatever writes is answered with EROFS.
"""

import errno
from pathlib import Path

import pytest

from perdure import StoreFileError

from tests.conftest import Run
from tests.crash.faults.disk import Faults, failing_system_calls
from tests.crash.faults.mount import remount, small_file_system
from tests.crash.faults.play import Play, Work
from tests.crash.faults.trouble import listening
from tests.crash.workflows import WORKFLOWS
from tests.engine.lab import until

pytestmark = pytest.mark.usefixtures("hurried")

BEFORE: list[Work] = [("Steps", "before"), ("Rests", "before")]
MEANWHILE: list[Work] = [("Steps", "meanwhile"), ("Flaky", "meanwhile"), ("Rests", "meanwhile")]


@pytest.mark.parametrize("exists", [False, True])
def test_a_store_on_a_read_only_file_system_is_refused_until_it_is_not(tmp_path: Path, run: Run, exists: bool) -> None:
    """Promise 8: the refusal names the file and the way out, and what is there stays as it is."""
    with small_file_system(tmp_path / "small", "4m") as folder:
        play = Play(folder / "play", run)
        if exists:
            play.perform(BEFORE)
        before = {path.name: path.read_bytes() for path in play.lab.folder.iterdir()}
        remount(folder, "ro")

        async def refused() -> None:
            with pytest.raises(StoreFileError, match="cannot be written to; nothing was written") as caught:
                async with play.lab.engine(WORKFLOWS):
                    pass
            assert caught.value.path == str(play.path)

        play.lab.run(refused)
        assert {path.name: path.read_bytes() for path in play.lab.folder.iterdir()} == before
        remount(folder, "rw")
        play.perform(MEANWHILE)
        play.tidy()
        assert play.verdict() == []


def test_a_file_system_that_becomes_read_only_is_waited_for(tmp_path: Path, run: Run) -> None:
    """Promise 8: also when the file is opened anew meanwhile, which SQLite then does for reading only, and says nothing."""
    play = Play(tmp_path / "play", run)

    async def main() -> None:
        with listening() as trouble, failing_system_calls() as calls:
            calls.error, calls.spares_reading = errno.EROFS, True
            async with play.lab.engine(WORKFLOWS) as engine:
                await play.see_all_through(engine, BEFORE)
                calls.faults = Faults(1, operations=frozenset({"open", "pwrite64", "ftruncate", "unlink"}))
                waiting = play.see_all_through(engine, MEANWHILE)
                await trouble.heard()
                await until(lambda: calls.faults.injected["open"] >= 2)
                assert len([info async for info in engine.executions()]) == len(BEFORE)
                assert not waiting.done()
                calls.faults.heal()
                await waiting
                assert calls.faults.injected["pwrite64"] >= 1

    play.lab.run(main)
    play.tidy()
    assert play.verdict() == []
