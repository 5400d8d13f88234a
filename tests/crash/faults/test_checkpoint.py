"""A reader that stays: the log cannot be emptied and grows, the work goes on, and once the reader has left it shrinks."""

from pathlib import Path

import apsw
import pytest

from perdure._stores.sqlite import connection, writer

from tests.conftest import Run
from tests.crash.faults.play import Play, Work
from tests.crash.workflows import WORKFLOWS

pytestmark = pytest.mark.usefixtures("hurried")

LIMIT = 256 * 1024
PAGES = 20


def work(label: str) -> list[Work]:
    return [(name, f"{label}-{number}") for name in ("Steps", "Rests", "Flaky") for number in range(5)]


def test_a_log_that_a_reader_keeps_from_shrinking_shrinks_when_it_leaves(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 8: a backup, or somebody's forgotten shell, costs space and nothing else, and no longer than it lasts."""
    monkeypatch.setattr(connection, "JOURNAL_SIZE_LIMIT", LIMIT)
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", PAGES)
    play = Play(tmp_path / "play", run)
    log = play.path.with_name("lab.perdure-wal")

    async def main() -> None:
        async with play.lab.engine(WORKFLOWS) as engine:
            await play.see_all_through(engine, work("before"))
            assert log.stat().st_size <= LIMIT

            reader = apsw.Connection(str(play.path), flags=apsw.SQLITE_OPEN_READWRITE)
            reader.execute("BEGIN")
            seen = reader.execute("SELECT count(*) FROM perdure_journal").fetchall()
            for number in range(4):
                await play.see_all_through(engine, work(f"meanwhile-{number}"))
            starved = log.stat().st_size
            assert starved > 4 * LIMIT, "the reader is in nobody's way"
            assert reader.execute("SELECT count(*) FROM perdure_journal").fetchall() == seen
            reader.execute("ROLLBACK")
            reader.close()

            for number in range(2):
                await play.see_all_through(engine, work(f"after-{number}"))
            assert log.stat().st_size <= LIMIT, f"{starved} bytes before"

    play.lab.run(main)
    assert not log.exists()
    assert play.verdict() == []
