"""Each call to the disk, one after the other, fails in a play of its own; then many in a row, and each n-th.

Whatever the call was for, everybody must be told the right result in the end, nobody anything that is not in the file,
and nothing may begin twice: nobody was killed (promises 1 to 4 and 8).
"""

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import apsw
import pytest

from perdure._model.records import Answer, Commit, Verdict
from perdure._stores.sqlite import SqliteStore
from perdure.errors import StoreUnavailableError

from tests.conftest import Run
from tests.crash.faults.disk import Disk, Faults, SystemCalls, failing_disk, failing_system_calls
from tests.crash.faults.play import Play, Work
from tests.soak import scaled

pytestmark = [
    # Hundreds of plays, each of a twentieth of a second.
    pytest.mark.timeout(150),
    pytest.mark.usefixtures("hurried"),
]

# Births and claims, timers and promotions, retries; the fewer calls, the more of them can fail one by one.
WORK: list[Work] = [("Rests", "one"), ("Flaky", "one")]
# What the file system of a test does not see: the WAL's index, its locks, and descriptors. The rest would be done twice.
UNSEEN = frozenset({"open", "fstat", "fcntl", "ftruncate", "mmap", "unlink"})

Door = Disk | SystemCalls
Opens = Callable[[], AbstractContextManager[Door]]


class Series:
    """Plays whose disk fails, and what has come of them."""

    def __init__(self, folder: Path, run: Run, opens: Opens) -> None:
        self._folder = folder
        self._run = run
        self._opens = opens
        self.injected: Counter[str] = Counter()
        self.complaints: Counter[str] = Counter()
        self.plays = 0

    def play(self, faults: Faults, prepare: Callable[[Door], object] = lambda _: None) -> list[str]:
        """One play, on a file of its own; what must not be."""
        self.plays += 1
        folder = self._folder / str(self.plays)
        play = Play(folder, self._run, cache=(None, 0)[self.plays % 2])
        with self._opens() as door:
            play.may_look_damaged = isinstance(door, SystemCalls) and faults.operations is None
            door.faults = faults
            prepare(door)
            play.perform(WORK)
            faults.heal()
            play.tidy()
        self.injected += faults.injected
        self.complaints += Counter(type(complaint).__name__ for complaint in play.complaints)
        verdict = play.verdict()
        if not verdict:
            shutil.rmtree(folder)
        return verdict

    def __str__(self) -> str:
        return f"{self.plays} plays, {self.injected.total()} faults {dict(self.injected)}, told {dict(self.complaints)}"


def one_by_one(series: Series, operations: frozenset[str] | None, prepare: Callable[[int, Door], object]) -> None:
    """Fail the first call, then the second one, until there is no such call any more."""
    call = 0
    hit = True
    while hit:
        call += 1
        faults = Faults(call, call, operations=operations)
        assert series.play(faults, lambda door, call=call: prepare(call, door)) == [], f"call {call}, {faults.injected}"
        hit = bool(faults.injected)
    print(series)
    assert call > 150, "a play had hundreds of calls when this was written"


def test_each_call_to_the_file_system_may_fail(
    tmp_path: Path, run: Run, record_property: Callable[[str, object], None]
) -> None:
    """Promise 8: reads, writes, syncs, locks, sizes, truncations, openings and deletions, each once."""
    errors = [None, apsw.FullError, apsw.CantOpenError]

    def prepare(call: int, door: Door) -> None:
        assert isinstance(door, Disk)
        # By turns what the call would say by itself, and what another one would: the store must not rely on it.
        door.error = errors[call % 4] if call % 4 < 3 else None

    series = Series(tmp_path, run, failing_disk)
    one_by_one(series, None, prepare)
    record_property("figures", str(series))
    assert {"xOpen", "xRead", "xWrite", "xSync", "xLock", "xFileSize", "xAccess"} <= series.injected.keys()


def test_each_system_call_may_fail(tmp_path: Path, run: Run, record_property: Callable[[str, object], None]) -> None:
    """Promise 8: locks of the file and of the WAL's index, its memory, descriptors."""
    series = Series(tmp_path, run, failing_system_calls)
    one_by_one(series, UNSEEN, lambda _call, _door: None)
    record_property("figures", str(series))
    assert {"open", "fstat", "fcntl", "ftruncate", "mmap"} <= series.injected.keys()


def stretches(length: int, plays: int) -> Iterator[Faults]:
    """Outages of some length that begin ever later, over what a play has of calls."""
    for number in range(plays):
        first = 1 + number * 450 // plays
        yield Faults(first, first + length - 1)


@pytest.mark.parametrize("length", [5, 60])
@pytest.mark.parametrize(
    ("opens", "error"),
    [
        (failing_disk, apsw.IOError),
        (failing_disk, apsw.FullError),
        (failing_disk, apsw.BusyError),
        (failing_system_calls, errno.EIO),
        (failing_system_calls, errno.EMFILE),
        (failing_system_calls, errno.EAGAIN),
        (failing_system_calls, errno.EROFS),
        (failing_system_calls, errno.EACCES),
    ],
    ids=lambda value: getattr(value, "__name__", None) or errno.errorcode.get(value, value),
)
def test_an_outage_may_begin_at_any_call(
    tmp_path: Path, run: Run, opens: Opens, error: type[apsw.Error] | int, length: int
) -> None:
    """Promise 8: many calls in a row fail, whatever they are, and then none."""

    def prepare(door: Door) -> None:
        if isinstance(door, Disk):
            assert isinstance(error, type)
            door.error = error
        else:
            assert isinstance(error, int)
            door.error = error

    series = Series(tmp_path, run, opens)
    for faults in stretches(length, scaled(9)):
        assert series.play(faults, prepare) == [], f"from call {faults.first} on, {faults.injected}"
    print(series)
    assert series.injected.total() > length


@pytest.mark.parametrize(
    ("opens", "rates"),
    # The schema is made in one transaction, of about 200 system calls: it has to fit between two failures.
    [(failing_disk, (83, 101, 149, 211)), (failing_system_calls, (263, 307, 401, 503))],
    ids=["failing_disk", "failing_system_calls"],
)
def test_a_disk_that_never_gets_better_still_lets_the_work_end(
    tmp_path: Path, run: Run, opens: Opens, rates: tuple[int, ...]
) -> None:
    """Promise 8: each n-th call fails for good; what one call in hundreds takes, a repeat brings back."""
    series = Series(tmp_path, run, opens)
    for number in range(scaled(4)):
        faults = Faults(50 + number, every=rates[number % 4])
        assert series.play(faults) == [], f"each {faults.every}th call"
    print(series)
    assert series.injected.total() >= 8


def test_a_store_that_says_done_of_what_failed_is_found_out(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: with a store that acknowledges what it could not write these tests fail."""
    commit = SqliteStore.commit

    async def lying(self: SqliteStore, worker_id: str, batch: list[Commit], /) -> list[Answer]:
        try:
            return await commit(self, worker_id, batch)
        except StoreUnavailableError:
            return [Answer(Verdict.STARTED if one.start else Verdict.GRANTED) for one in batch]

    monkeypatch.setattr(SqliteStore, "commit", lying)
    series = Series(tmp_path, run, failing_disk)
    found: list[str] = []
    for number in range(1, 6):
        try:
            found += series.play(Faults(30 * number, 30 * number, operations=frozenset({"xWrite"})))
        except AssertionError as error:
            found.append(str(error))
    assert found
