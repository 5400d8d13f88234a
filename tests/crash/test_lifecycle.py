"""Programs end in many ways, and an engine is open in them: none hangs, and the next process goes on (R9, R12, R41).

Each test starts a program (`leaver.py`) that ends in one of these ways, and then goes on with its database. Every
program has a deadline. What it writes on stderr is looked at: there may be warnings of ours and its own traceback.
"""

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure import Status, WorkflowEngine

from tests.conftest import Run
from tests.crash.leaver import CODE, KEYS, RESULTS, forking, leaving, straying, touchy
from tests.crash.snapshot import Snapshot, read_snapshot

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and Ctrl-C is another thing")

ROOT = Path(__file__).parents[2]
# Far beyond what a program takes, within what a test may take.
DEADLINE_S = 16
# After a Ctrl-C that nobody has caught: a shell's 128 + SIGINT where the module is run by `-m`, or the signal itself.
INTERRUPTED = {130, -2}
# What Python says when it has been left with something half done.
COMPLAINTS = re.compile(
    r"never retrieved|never awaited|destroyed but|Exception ignored|Fatal|perdure; close the engine"
)


@dataclass
class End:
    """How a program has ended."""

    code: int
    said: list[str]
    complained: str
    left: Snapshot

    def executed(self) -> list[tuple[str, ...]]:
        """What its activities have said: whether they had begun or done it, their name and their key."""
        return [tuple(line.split(" ", 2)) for line in self.said if line.startswith(("begin ", "done "))]

    def others(self) -> list[str]:
        return [line for line in self.said if not line.startswith(("begin ", "done "))]

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.complained.splitlines() if COMPLAINTS.search(line)]


def start(way: str, database: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.leaver", way, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def leave(way: str, database: Path) -> End:
    """Let a program end in this way."""
    program = start(way, database)
    try:
        said, complained = program.communicate(timeout=DEADLINE_S)
    finally:
        program.kill()
    print(complained)  # shown if the test fails
    return End(program.returncode, said.splitlines(), complained, read_snapshot(database))


def nothing_is_recorded_that_did_not_happen(end: End) -> None:
    """I8. Each entry of the journals has been said by the activity that it is of."""
    done = {line[1:] for line in end.executed() if line[0] == "done"}
    for execution in end.left.executions.values():
        for entry in execution.events("activity"):
            assert entry.exit.startswith(b'{"success":'), (execution.label, entry)
            (key,) = re.findall(rb'"key": ?"([^"]*)"|\["([^"]*)"\]', entry.input)[:1]
            assert (entry.name, (key[0] or key[1]).decode()) in done, (execution.label, entry)
    assert end.left.integrity == "ok"


def finish(database: Path, end: End, run: Run, capfd: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Go on with what is left, to the end; give the crashes that were counted against each execution at first."""
    capfd.readouterr()

    async def main() -> dict[str, int]:
        async with WorkflowEngine.sqlite(database, [leaving, forking, touchy, straying]) as engine:
            keys = [one.label for one in end.left.executions.values() if one.workflow == "Leaving"]
            results = await asyncio.gather(*(engine.execute(leaving, key) for key in keys))
            assert dict(zip(keys, results, strict=True)) == {key: RESULTS[key] for key in keys}
            return {info.key or "": info.crashes async for info in engine.executions()}

    crashes = run(main)
    recorded = {(entry.name, entry.input) for one in end.left.executions.values() for entry in one.events("activity")}
    again = {tuple(line.split(" ", 2)) for line in capfd.readouterr().out.splitlines() if line.startswith("begin ")}
    for name, input_ in recorded:
        assert not [line for line in again if line[1] == name and f'"{line[2]}"'.encode() in input_], (name, input_)
    left = read_snapshot(database)
    assert left.living == set()
    assert left.locks == []
    return crashes


def pending(end: End) -> set[str]:
    return {one.label for one in end.left.executions.values() if one.owner is None and not one.is_final}


def owned(end: End) -> set[str]:
    return {one.label for one in end.left.executions.values() if one.owner is not None}


# Closed --------------------------------------------------------------------------------------------------------------


CLOSED = {
    "return": {0},
    "exit": {CODE},
    "raise": {1},
    "interrupt": INTERRUPTED,
    "interrupted, blocking": INTERRUPTED,
}


@pytest.mark.parametrize("way", CLOSED)
def test_a_program_that_leaves_the_block_gives_everything_back(tmp_path, run: Run, capfd, way):
    """R9, R12: but what is on a thread that does not end; that is the process's until it has ended. No crash but that."""
    database = tmp_path / "left.perdure"
    end = leave(way, database)
    assert end.code in CLOSED[way], end.complained
    assert end.complaints == []
    assert owned(end) == {"thread"}
    assert "async" in pending(end)
    nothing_is_recorded_that_did_not_happen(end)
    crashes = finish(database, end, run, capfd)
    assert {key: count for key, count in crashes.items() if key != "thread"} == dict.fromkeys(set(KEYS) - {"thread"}, 0)


def test_an_exit_in_another_task_ends_the_program_as_well(tmp_path, run: Run, capfd):
    """R9: asyncio.run cancels all tasks of the loop then, those of the engine too."""
    database = tmp_path / "left.perdure"
    end = leave("exit in a task", database)
    assert end.code == CODE, end.complained
    nothing_is_recorded_that_did_not_happen(end)
    assert {"async"} <= pending(end)
    assert set(finish(database, end, run, capfd)) == set(KEYS)


# Not closed ----------------------------------------------------------------------------------------------------------


NOT_CLOSED = {
    "never closed": ({0}, KEYS),
    "never closed, blocking": ({0}, KEYS),
    "interrupted twice": (INTERRUPTED, ["async", "thread"]),
    "exits in an activity": ({CODE}, [*KEYS, "exits"]),
}


@pytest.mark.parametrize("way", NOT_CLOSED)
def test_a_program_that_does_not_close_its_engine_ends_all_the_same(tmp_path, run: Run, capfd, way):
    """R41: as a crash, then: with the process its lock is gone, and the next one takes over."""
    database = tmp_path / "left.perdure"
    codes, keys = NOT_CLOSED[way]
    end = leave(way, database)
    assert end.code in codes, end.complained
    assert end.complaints == []
    nothing_is_recorded_that_did_not_happen(end)
    crashes = finish(database, end, run, capfd)
    assert set(crashes) == set(keys)
    assert max(crashes.values()) <= 1


def test_nobody_begins_what_still_runs_on_a_thread_of_a_living_process(tmp_path, run: Run, capfd):
    """R12: the engine is closed, its process lives, and so does the thread. When that has ended, another goes on."""
    database = tmp_path / "left.perdure"
    program = start("stays", database)
    assert program.stdout is not None
    try:
        said = iter(program.stdout.readline, "")
        assert any(line == "closed\n" for line in said)
        before = read_snapshot(database)

        async def main() -> None:
            async with WorkflowEngine.sqlite(database, [leaving]) as engine:
                others = [key for key in KEYS if key != "thread"]
                assert [await engine.execute(leaving, key) for key in others] == [RESULTS[key] for key in others]
                stuck = leaving.handle(leaving.execution_id("thread"))
                assert await stuck.status() is Status.RUNNING
                assert read_snapshot(database).executions[stuck.execution_id].owner == program.pid
                await asyncio.to_thread(program.communicate, "end\n", DEADLINE_S)
                assert await stuck.result() == RESULTS["thread"]

        run(main)
    finally:
        program.kill()
        program.communicate()
    assert program.returncode == 0
    assert before.executions[leaving.execution_id("thread")].owner == program.pid
    assert [line for line in capfd.readouterr().out.splitlines() if "begin stands_on_thread" in line] == [
        "begin stands_on_thread thread"
    ]


# Forks ---------------------------------------------------------------------------------------------------------------


def test_a_child_cannot_use_the_engine_and_does_not_harm_it(tmp_path, run: Run, capfd):
    """Asked in a child, an engine refuses and says what to do; one on another file works; the parent goes on."""
    database = tmp_path / "left.perdure"
    end = leave("forks", database)
    assert (end.code, end.complaints) == (0, []), end.complained
    assert end.others() == [
        *["refused True"] * 5, "ended 0", "child quickquick!", "ended 0", "ended 0", "parent quickquick!",
    ]  # fmt: skip
    assert owned(end) == {"thread"}
    nothing_is_recorded_that_did_not_happen(end)
    finish(database, end, run, capfd)


def test_a_child_may_leave_by_the_front_door(tmp_path, run: Run, capfd):
    """Through the block of a blocking engine, and the end of the interpreter: what it leaves is the parent's."""
    database = tmp_path / "left.perdure"
    end = leave("forks, blocking", database)
    assert (end.code, end.complaints) == (0, []), end.complained
    assert end.others() == ["refused True", f"ended {CODE}", "parent quickquick!"]
    assert owned(end) == {"thread"}
    nothing_is_recorded_that_did_not_happen(end)
    finish(database, end, run, capfd)


def test_activities_may_fork(tmp_path):
    """A process pool, a process, a child that asks the engine: no parent waits for ever, no child either."""
    end = leave("forks in activities", tmp_path / "left.perdure")
    assert (end.code, end.complaints) == (0, []), end.complained
    assert end.others() == [
        "refused True", "refused True", "parent 9 9 9 0 0",
        "refused True", "refused True", "parent 16 16 16 0 0",
        "parent quickquick!",
    ]  # fmt: skip
    assert all(one.is_final for one in end.left.executions.values())
    assert (end.left.living, end.left.locks) == (set(), [])


@pytest.mark.parametrize("way", ["strays", "strays on a thread"])
def test_a_child_that_comes_back_from_an_activity_ends(tmp_path, way):
    """`sys.exit` in a child made by fork inside an activity: it must not live on as a copy of the engine."""
    end = leave(way, tmp_path / "left.perdure")
    assert end.others() == [f"ended {CODE}"]
