"""A disk that is full, and then is not: who starts something waits, who looks is answered, and nobody restarts anything.

`test_every_call` has a full disk at each moment of a play; here the space is really gone.
"""

from pathlib import Path

import apsw
import pytest

from perdure._stores.sqlite import writer

from tests.conftest import Run
from tests.crash.faults.disk import Faults, failing_disk
from tests.crash.faults.mount import fill, small_file_system
from tests.crash.faults.play import Play, Work
from tests.crash.faults.trouble import listening
from tests.crash.workflows import WORKFLOWS
from tests.engine.lab import until

pytestmark = pytest.mark.usefixtures("hurried")

BEFORE: list[Work] = [("Steps", "before"), ("Rests", "before")]
# Long labels: more than what is left of the pages that the files have already.
MEANWHILE: list[Work] = [
    (name, f"meanwhile-{number}-{'x' * 1_000}") for name in ("Steps", "Flaky", "Rests") for number in range(5)
]


def test_a_full_disk_is_waited_for(tmp_path: Path, run: Run) -> None:
    """Promise 8: the file system says that it is full, for as long as it likes."""
    play = Play(tmp_path / "play", run)

    async def main() -> None:
        with listening() as trouble, failing_disk() as disk:
            disk.error = apsw.FullError
            async with play.lab.engine(WORKFLOWS) as engine:
                await play.see_all_through(engine, BEFORE)
                disk.faults = Faults(1, operations=frozenset({"xWrite", "xTruncate"}))
                waiting = play.see_all_through(engine, MEANWHILE)
                await trouble.heard()
                await until(lambda: disk.faults.injected["xWrite"] >= 3)
                assert len([info async for info in engine.executions()]) == len(BEFORE)
                assert not waiting.done()
                disk.faults.heal()
                await waiting
            assert all("full" in said or "the test says so" in said for said in trouble.said)

    play.lab.run(main)
    play.tidy()
    assert play.verdict() == []


@pytest.mark.parametrize("pages", [12, 4_000], ids=["the file grows", "the log grows"])
def test_a_file_system_that_another_file_fills_is_waited_for(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Promise 8: ENOSPC by the kernel, in the log, in its index, or where a checkpoint wants to write."""
    with small_file_system(tmp_path / "small", "4m") as folder:
        monkeypatch.setattr(writer, "CHECKPOINT_PAGES", pages)
        play = Play(folder / "play", run)

        async def main() -> None:
            with listening() as trouble:
                async with play.lab.engine(WORKFLOWS) as engine:
                    await play.see_all_through(engine, BEFORE)
                    filler = fill(folder)
                    waiting = play.see_all_through(engine, MEANWHILE)
                    await trouble.heard()
                    found = [info async for info in engine.executions()]
                    assert {info.key for info in found} >= {"before"}
                    assert not waiting.done()
                    filler.unlink()
                    await waiting
                assert any("full" in said for said in trouble.said)

        play.lab.run(main)
        play.tidy()
        assert play.verdict() == []


def test_a_store_on_a_full_file_system_is_opened_once_there_is_space(tmp_path: Path, run: Run) -> None:
    """Promise 8: who opens is told, and nothing is left that keeps the next one from opening."""
    with small_file_system(tmp_path / "small", "1m") as folder:
        play = Play(folder / "play", run)
        filler = fill(folder)

        async def refused() -> None:
            for _ in range(3):
                with pytest.raises(Exception, match=r"lab\.perdure .*full") as caught:
                    async with play.lab.engine(WORKFLOWS):
                        pass
                play.complaints.append(caught.value)  # type: ignore[arg-type]  # the verdict looks at what it is

        play.lab.run(refused)
        filler.unlink()
        play.perform(BEFORE)
        play.tidy()
        assert play.verdict() == []


def test_filling_takes_all_of_the_space(tmp_path: Path) -> None:
    """A control: on a file system that is said to be full there is no room for another byte."""
    with small_file_system(tmp_path / "small", "64k") as folder:
        fill(folder)
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(b"x")
