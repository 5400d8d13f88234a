"""A deadline and a next life whose writer is killed: all of it is there, or nothing, and a repeat does the rest.

What an engine would be in the middle of is told by other tests; this is the store alone, in a process of its own.
"""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from perdure._model.journal import Entry, Kind
from perdure._model.records import Commit, Letter, Mail, MailKind, Receipt, Start, Worker
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore
from perdure.testing.failpoints import Failpoints

ROOT = Path(__file__).parents[2]
POINTS_OF_EXPIRY = ["expire.after", "expire.before"]
POINTS_OF_RENEWAL = ["renew.after", "renew.before"]
LATE = b'{"failure":[{"perdure":{"code":"deadline-exceeded"}}]}'
IDS = [f"{number:032x}" for number in range(1, 6)]
FIRST = [bytes([number]) * 16 for number in range(1, 6)]
SECOND = [bytes([number + 16]) * 16 for number in range(1, 6)]
ENTRIES = [
    Entry(1, Kind.ACTIVITY, "charge", 1, 1, b"{}", b'{"success":1}', 0),
    Entry(2, Kind.TOKEN, "receipt", 1, 0, b"", b'{"success":"a token"}', 0),
]
LETTER = Letter(1, "deferred", "approval", b'{"success":true}', 0)


def start(number: int, incarnation: bytes, deadline: int | None = None) -> Start:
    return Start(
        execution_id=IDS[number], incarnation=incarnation, workflow="W", payload=b"{}", began_at=0, deadline=deadline
    )


async def fill(store: SqliteStore, status: Status, deadline: int | None) -> None:
    await store.register(Worker(worker_id="w", host="h", pid=1, workflows=("W",), started_at=0))
    exit_ = b"{}" if status is Status.FAILED else None
    await store.commit(
        "w",
        [
            Commit(IDS[number], FIRST[number], 1, 0, status, start(number, FIRST[number], deadline), exit=exit_)
            for number in range(5)
        ],
    )


async def renew(store: SqliteStore, number: int) -> bool:
    next_ = replace(start(number, SECOND[number]), seed=FIRST[number])
    return await store.renew(FIRST[number], 0, next_, ENTRIES, [LETTER])


async def complete(store: SqliteStore, number: int) -> Receipt:
    """By the token that the first life has given out."""
    token = ENTRIES[1].exit
    mail = Mail(IDS[number], MailKind.DEFERRED, "receipt", b"1", b"me", incarnation=FIRST[number], token=token)
    [receipt] = await store.deliver([mail])
    return receipt


async def play(database: Path, point: str, reach: int) -> None:
    """What the killed process does."""
    store = SqliteStore(database)
    await store.open()
    expires = point in POINTS_OF_EXPIRY
    await fill(store, Status.SUSPENDED if expires else Status.FAILED, 1 if expires else None)
    with Failpoints() as failpoints:
        failpoints.crash(point, reach=reach)
        for number in range(5):
            assert (await store.expire(LATE, 1) == 1) if expires else await renew(store, number)


def kill(database: Path, point: str, reach: int) -> int:
    """Let a process be killed; how many calls have had their effect."""
    killed = subprocess.run(
        [sys.executable, "-m", "tests.crash.test_next_lives", str(database), point, str(reach)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return reach if point.endswith(".after") else reach - 1


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS_OF_EXPIRY)
def test_a_deadline_passes_once_though_who_sees_to_it_is_killed(tmp_path, run, point, reach):
    """R44: the interrupt, the wake and the note that the deadline was seen to are one."""
    database = tmp_path / "late.perdure"
    done = kill(database, point, reach)

    async def main() -> None:
        store = SqliteStore(database)
        await store.open()
        try:
            statuses = [one.status for one in await store.read(IDS)]
            assert sorted(statuses) == [Status.PENDING] * done + [Status.SUSPENDED] * (5 - done)
            assert await store.expire(LATE, 10) == 5 - done
            histories = await store.load([(incarnation, 0, 0) for incarnation in FIRST])
            assert [[letter.exit for letter in one.letters] for one in histories] == [[LATE]] * 5
            assert {one.status for one in await store.read(IDS)} == {Status.PENDING}
        finally:
            await store.close()

    run(main)


@pytest.mark.parametrize("reach", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS_OF_RENEWAL)
def test_a_next_life_is_there_as_a_whole_though_who_began_it_is_killed(tmp_path, run, point, reach):
    """R19, R37: the row, the journal, the mailbox, the life put aside and the tokens that are kept are one.

    A repeat begins no third life.
    """
    database = tmp_path / "lives.perdure"
    done = kill(database, point, reach)

    async def main() -> None:
        store = SqliteStore(database)
        await store.open()
        try:
            for number, id_ in enumerate(IDS):
                (record,) = await store.read([id_])
                begun = number < done
                assert (record.number, record.status) == ((2, Status.PENDING) if begun else (1, Status.FAILED))
                assert record.incarnation == (SECOND if begun else FIRST)[number]
                assert len(await store.lives(id_)) == begun
                assert await store.load([(SECOND[number], 0, 0)]) == [(ENTRIES, [LETTER]) if begun else ([], [])]
                assert await complete(store, number) is (Receipt.STORED if begun else Receipt.FINISHED)
                assert await renew(store, number)
                assert [life.number for life in await store.lives(id_)] == [1]
                assert await complete(store, number) is Receipt.STORED
                [(entries, letters)] = await store.load([(SECOND[number], 0, 0)])
                assert (entries, [letter.name for letter in letters]) == (ENTRIES, [LETTER.name, "receipt"])
        finally:
            await store.close()

    run(main)


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    os._exit(1)  # it was to be killed
