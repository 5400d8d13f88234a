"""The power goes, at any moment: what was told before is there afterwards, and the database is whole.

Real engines work on a watched disk; images of what that disk may hold are made from the log, and opened.
A seed that is printed repeats the choice of images, not the log: that is another one with every execution.
"""

import asyncio
import os
import random
from pathlib import Path

import apsw
import pytest

from perdure import WorkflowEngine
from perdure._stores.sqlite import connection, writer

from tests.crash.checker import Account, Kill, violations
from tests.crash.ledger import Line, Phase
from tests.crash.power.disk import Link, Log, Told, Write, watched
from tests.crash.power.examiner import FRAME_HEADER, Examiner, Found, Report
from tests.crash.power.fact import Facts
from tests.crash.power.image import DAMAGES, Image, everything, moments
from tests.crash.power.scenario import SCENARIOS, WORK, Scenario, Witness, one_of_each, see_through, set_the_scene
from tests.crash.snapshot import Snapshot, read_snapshot
from tests.crash.workflows import WORKFLOWS
from tests.soak import scaled

# Hundreds of databases are opened; in a night many times as many.
pytestmark = pytest.mark.timeout(max(60, scaled(60)))

IMAGES = 600  # of each scenario
IMAGES_OF_A_CONTROL = 150
LIVES = 6  # of each scenario: so many images an engine goes on with
# Pages: several checkpoints, and the WAL begun anew behind each.
SMALL_CHECKPOINT = 40

WAL_HEADER = 32
FRAME = FRAME_HEADER + 4096


@pytest.fixture
def seed() -> random.Random:
    number = random.randrange(2**32)  # drawn anew for every run, and again with the same --randomly-seed
    print(f"seed {number}")
    return random.Random(number)


def record(folder: Path, scenario: Scenario) -> Examiner:
    """Play a scenario on a watched disk."""
    path = folder / "orders.perdure"
    with watched(path) as log:
        asyncio.run(scenario(path, log))
    lines = lines_of(log)
    facts = Facts(lines, look(path, lines))
    assert facts.violations() == []
    return Examiner(log, facts, folder / "image")


def look(path: Path, lines: list[Line]) -> Snapshot:
    """The database as it lies there, when so much had happened."""
    snapshot = read_snapshot(path)
    snapshot.lines_before = snapshot.ledger_lines = len(lines)
    return snapshot


def lines_of(log: Log, end: int | None = None) -> list[Line]:
    """The lines of the ledger that were written before a place of the log."""
    return [op.word for op in log[:end] if isinstance(op, Told) and isinstance(op.word, Line)]


def wals_begun_anew(log: Log) -> int:
    wals = {op.inode for op in log if isinstance(op, Link) and op.name == "-wal"}
    return sum(isinstance(op, Write) and op.inode in wals and op.offset == 0 for op in log) - len(wals)


def examine(examiner: Examiner, draw: random.Random, count: int) -> Report:
    async def main() -> Report:
        await examiner.learn()
        return await examiner.examine(draw, count)

    with watched():
        report = asyncio.run(main())
    print(report)
    return report


@pytest.fixture
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", SMALL_CHECKPOINT)


@pytest.mark.usefixtures("small_checkpoints")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_loss_of_power_takes_what_was_told(tmp_path, seed, record_property, scenario):
    """Promises 1, 2 and 4; R8, R50: nothing told is lost, no commit is there in part, no effect came before its commit."""
    examiner = record(tmp_path, SCENARIOS[scenario])
    report = examine(examiner, seed, scaled(IMAGES))
    record_property("figures", str(report))
    assert report.complaints[:10] == []
    # Otherwise all this would mean little.
    assert report.uncertain > report.images // 4
    assert wals_begun_anew(examiner.log) >= 2


@pytest.mark.usefixtures("small_checkpoints")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_engine_goes_on_when_the_power_is_back(tmp_path, seed, scenario):
    """Promises 1 to 5 and 7: everything ends as the model says, and nothing that was recorded is done again."""
    examiner = record(tmp_path, SCENARIOS[scenario])
    log = examiner.log
    places = {seed.randrange(examiner.commits[0], len(log)) for _ in range(scaled(LIVES))}
    with watched():
        for place, remains in moments(log):
            if place in places:
                path = examiner.lay(remains.image(seed, *DAMAGES))
                leave_locks(path, seed)
                account = asyncio.run(go_on(path, lines_of(log, place), WORK[scenario]))
                assert violations(account) == [], place


def leave_locks(path: Path, draw: random.Random) -> None:
    """The workers' lock files, which nobody syncs: one may be there, and nobody holds it."""
    one = apsw.Connection(str(path))
    one.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for (worker_id,) in one.execute("SELECT id FROM perdure_workers"):
        if draw.random() < 0.5:
            path.with_name(f"{path.name}-worker-{worker_id}").touch()
    one.close()


async def go_on(path: Path, lines: list[Line], work: list[tuple[str, str]]) -> Account:
    """The life behind the loss of power; who was not told that a start was taken starts again."""
    snapshot = look(path, lines)
    accepted = frozenset(line.execution_id for line in lines if line.phase is Phase.ACCEPTED)
    # Not our own pid: the life before was in this process too.
    set_the_scene(Witness(lines.append, pid=-1))
    async with WorkflowEngine.sqlite(path, WORKFLOWS) as engine:
        await see_through(engine, work, accepted)
    return Account(lines, [Kill(os.getpid(), snapshot)], look(path, lines))


def test_a_file_whose_making_was_cut_off_is_made_again(tmp_path, seed):
    """The first page may be rubbish then; nobody has been told anything, and nobody must have to remove the file."""
    examiner = record(tmp_path, one_of_each)
    birth = range(next(place for place, op in enumerate(examiner.log) if isinstance(op, Told)))

    async def main() -> None:
        empty = await examiner.open({})
        assert isinstance(empty, Found)
        for place, remains in moments(examiner.log):
            for _ in range(scaled(4) if place in birth else 0):
                found = await examiner.open(remains.image(seed, *DAMAGES))
                assert isinstance(found, Found), found
                assert found.integrity == "ok"
                assert place >= examiner.commits[0] or found.digest == empty.digest

    with watched():
        asyncio.run(main())


def test_every_prefix_of_the_wal_is_the_state_behind_its_last_commit(tmp_path, seed):
    """Promises 1, 2 and 4: whatever stands behind it: nothing, half a frame, a spoilt frame, or rubbish."""
    examiner = record(tmp_path, one_of_each)
    full = last_full_wal(examiner)
    database, wal = full[""], full["-wal"]
    frames = [wal[at : at + FRAME] for at in range(WAL_HEADER, len(wal), FRAME)]
    assert wals_begun_anew(examiner.log) == 0
    assert sum(any(frame[4:8]) for frame in frames) == len(examiner.commits)

    async def main() -> None:
        await examiner.learn()
        commits, told = 0, set()
        for number in range(len(frames) + 1):
            if number and any(frames[number - 1][4:8]):
                commits += 1
                told = examiner.told_before(examiner.commits[commits - 1])
            for tail in tails(seed, b"".join(frames[number:])):
                end = WAL_HEADER + number * FRAME
                found = await examiner.open({"": database, "-wal": wal[:end] + tail})
                assert isinstance(found, Found), found
                assert found.integrity == "ok"
                assert found.digest == examiner.states[commits], (number, len(tail))
                assert told <= found.facts

    with watched():
        asyncio.run(main())


def last_full_wal(examiner: Examiner) -> Image:
    """The disk before the engine's close has emptied the WAL."""
    return next(
        remains.image(random.Random(0), everything)
        for place, remains in moments(examiner.log)
        if place == examiner.commits[-1]
    )


def tails(draw: random.Random, rest: bytes) -> list[bytes]:
    """What may stand behind a prefix of the WAL, given what stood there in truth."""
    rubbish = draw.randbytes(draw.randint(1, 2 * FRAME))
    if not rest:
        return [b"", rubbish]
    spoilt = bytearray(rest)
    # One bit of the next frame, and everything behind it as it was: a chain of checksums must not go on there.
    spoilt[draw.randrange(FRAME)] ^= 1 << draw.randrange(8)
    return [b"", rest[: draw.randrange(1, FRAME)], bytes(spoilt), rubbish]


# Controls: the tests can fail -----------------------------------------------------------------------------------------


def synchronous(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    tune = connection._tune

    def tuned(one) -> None:
        tune(one)
        one.pragma("synchronous", mode)

    monkeypatch.setattr(connection, "_tune", tuned)


@pytest.mark.usefixtures("small_checkpoints")
def test_with_synchronous_normal_what_was_told_is_lost(tmp_path, seed, monkeypatch, record_property):
    """The control: SQLite's usual advice for a WAL keeps the database whole, and breaks promise 1."""
    synchronous(monkeypatch, "normal")
    report = examine(record(tmp_path, SCENARIOS["two engines at once"]), seed, scaled(IMAGES_OF_A_CONTROL))
    record_property("figures", str(report))
    assert report.spoilt().keys() == {"lost"}
    assert report.spoilt()["lost"] > report.images // 4


@pytest.mark.usefixtures("small_checkpoints")
def test_with_synchronous_off_the_database_is_broken(tmp_path, seed, monkeypatch, record_property):
    """The other control: the images can break a database, and it is seen that they do."""
    synchronous(monkeypatch, "off")
    report = examine(record(tmp_path, SCENARIOS["two engines at once"]), seed, scaled(IMAGES_OF_A_CONTROL))
    record_property("figures", str(report))
    spoilt = report.spoilt()
    assert spoilt["unopened"] + spoilt["never so"] > report.images // 5
