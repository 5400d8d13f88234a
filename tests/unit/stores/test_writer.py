"""The writer's lane: groups, failpoints, others in the way, and the way out."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from perdure import _failpoints
from perdure._model.records import Verdict
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore, job, writer
from perdure._stores.sqlite.driver import Connection, select
from perdure.errors import StoreRefusedError, StoreUnavailableError
from perdure.testing.clock import ManualClock
from perdure.testing.conformance.scene import Life, born, life_of, new_start

from tests.conftest import Run
from tests.unit.stores.actor import worker


@pytest.fixture
def points() -> Iterator[list[str]]:
    """The points that were reached, in their order."""
    reached: list[str] = []
    _failpoints.arm(reached.append)
    yield reached
    _failpoints.arm(None)


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    _failpoints.arm(None)


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path / "orders.perdure", clock=ManualClock())
    await store.open()
    await store.register(worker("w1"))
    return store


async def running(store: SqliteStore) -> Life:
    start = new_start()
    await store.commit("w1", [born(start, Status.RUNNING)])
    return life_of(start)


class Gate:
    """Holds the writer's thread at the first job that begins, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.seen: list[str] = []

    def __call__(self, point: str) -> None:
        self.seen.append(point)
        if len(self.seen) == 1:
            self.reached.set()
            self.open.wait(10)


async def grouped(calls: list[Callable[[], object]], store: SqliteStore, life: Life) -> tuple[list[object], Gate]:
    """Make calls that wait for the writer together; give what they gave."""
    gate = Gate()
    _failpoints.arm(gate)
    first = asyncio.ensure_future(store.deliver([life.mail("first")]))
    await asyncio.to_thread(gate.reached.wait, 10)
    tasks = [asyncio.ensure_future(call()) for call in calls]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    gate.open.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True), gate


def test_what_waits_becomes_one_transaction_and_one_call_into_the_loop(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        calls: list[int] = []
        call_soon = job.call_soon

        def counted(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: list[object]) -> None:
            calls.append(len(args[0]))
            call_soon(loop, callback, *args)

        monkeypatch.setattr(job, "call_soon", counted)
        _, gate = await grouped([lambda n=n: store.deliver([life.mail(f"{n}")]) for n in range(10)], store, life)
        assert gate.seen[2:] == ["deliver.before"] * 10 + ["deliver.after"] * 10
        assert calls == [1, 10]
        assert (await store.mail_for("w1")) == {life.execution_id: 11}
        await store.close()

    run(main)


def test_one_that_is_refused_does_not_disturb_those_in_its_transaction(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        life, other = await running(store), await running(store)
        bad = other.commit(entries=2)
        bad.entries[1] = bad.entries[1]._replace(seq=2**70)
        outcomes, _ = await grouped(
            [
                lambda: store.deliver([life.mail("a")]),
                lambda: store.commit("w1", [bad]),
                lambda: store.commit("w1", [life.commit(entries=1)]),
            ],
            store,
            life,
        )
        assert isinstance(outcomes[1], StoreRefusedError)
        assert [type(outcome) for outcome in outcomes] == [list, StoreRefusedError, list]
        histories = await store.load([(life.incarnation, 0, 0), (other.incarnation, 0, 0)])
        assert [len(history.entries) for history in histories] == [1, 0]
        assert [len(history.letters) for history in histories] == [2, 0]
        await store.close()

    run(main)


def test_an_error_of_ours_ends_only_its_own_call(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)

        def broken(connection: Connection) -> None:
            connection.execute("DELETE FROM perdure_executions")
            raise ZeroDivisionError

        for calls in ([lambda: store._write(broken)], [lambda: store._write(broken), store.workers]):
            outcomes, _ = await grouped(calls, store, life)  # type: ignore[arg-type]
            assert isinstance(outcomes[0], ZeroDivisionError)
            _failpoints.arm(None)
        with pytest.raises(ZeroDivisionError):
            await store._write(broken)
        assert len(await store.read([life.execution_id])) == 1
        await store.close()

    run(main)


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.NoMemError])
def test_a_failing_disk_ends_the_transaction_of_all(tmp_path: Path, run: Run, error: type[Exception]) -> None:
    """Whoever is in it may have been promised what the disk does not hold; all of them repeat."""

    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)

        def failing(_connection: Connection) -> None:
            raise error

        outcomes, _ = await grouped(
            [lambda: store.deliver([life.mail("a")]), lambda: store._write(failing)], store, life
        )
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError, StoreUnavailableError]
        assert (await store.mail_for("w1")) == {life.execution_id: 1}
        await store.close()

    run(main)


@pytest.mark.parametrize("value", ["\ud800", 2**70, 1.5, object(), None])
def test_data_that_does_not_fit_is_refused(tmp_path: Path, run: Run, value: object) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        commit = life.commit(entries=1)
        commit.entries = [commit.entries[0]._replace(occurrence=value)]  # type: ignore[arg-type]
        with pytest.raises(StoreRefusedError):
            await store.commit("w1", [commit])
        await store.close()

    run(main)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_attribute_that_json_does_not_have_is_refused(tmp_path: Path, run: Run, value: float) -> None:
    """In one row it would make every listing by attributes fail."""

    async def main() -> None:
        store = await opened(tmp_path)
        with pytest.raises(StoreRefusedError, match="JSON"):
            await store.commit("w1", [born(new_start(attributes={"x": value}), Status.PENDING)])
        await store.close()

    run(main)


# Failpoints ------------------------------------------------------------------------------------


def test_every_point_stands_where_its_name_says(tmp_path: Path, run: Run) -> None:
    """At `before` and `written` nobody else sees anything; at `after` everybody does."""
    visible: list[tuple[str, tuple[object, ...]]] = []

    async def main() -> None:
        store = await opened(tmp_path)
        clock = store.clock
        assert isinstance(clock, ManualClock)
        onlooker = apsw.Connection(str(tmp_path / "orders.perdure"))
        look = (
            "SELECT (SELECT count(*) FROM perdure_journal), (SELECT count(*) FROM perdure_mailbox),"
            " (SELECT group_concat(status) FROM perdure_executions)"
        )
        _failpoints.arm(lambda point: visible.append((point, onlooker.execute(look).fetchall()[0])))
        start = new_start(due_at=clock.now() + 1)
        life = life_of(start)
        await store.commit("w1", [born(start, Status.SUSPENDED)])
        await store.promote(1)  # nothing is due: no point
        clock.advance(1)
        await store.promote(1)
        await store.claim("w1", ["Other"], 1)
        (claimed,) = await store.claim("w1", ["Order"], 1)
        await store.commit("w1", [life.claimed(claimed).commit(entries=1)])
        await store.deliver([life.mail()])
        await store.take_over("w2")  # nobody is dead: no point
        store.abandon("w1")
        await store.take_over("w2")
        onlooker.close()
        await store.close()

    run(main)
    assert visible == [
        ("commit.before", (0, 0, None)),
        ("commit.written", (0, 0, None)),
        ("commit.after", (0, 0, "SUSPENDED")),
        ("promote.before", (0, 0, "SUSPENDED")),
        ("promote.after", (0, 0, "PENDING")),
        ("claim.before", (0, 0, "PENDING")),
        ("claim.before", (0, 0, "PENDING")),
        ("claim.after", (0, 0, "RUNNING")),
        ("commit.before", (0, 0, "RUNNING")),
        ("commit.written", (0, 0, "RUNNING")),
        ("commit.after", (1, 0, "RUNNING")),
        ("deliver.before", (1, 0, "RUNNING")),
        ("deliver.after", (1, 1, "RUNNING")),
        ("take_over.before", (1, 1, "RUNNING")),
        ("take_over.after", (1, 1, "PENDING")),
    ]


class Cut(BaseException):
    """What a test raises at a point; no error of the library."""


@pytest.mark.parametrize(
    ("point", "verdict"),
    [("commit.before", Verdict.GRANTED), ("commit.written", Verdict.GRANTED), ("commit.after", Verdict.APPLIED)],
)
def test_a_repeat_after_a_cut_finds_what_was_written(tmp_path: Path, run: Run, point: str, verdict: Verdict) -> None:
    """A lost answer is harmless: GRANTED where nothing was there, APPLIED where all of it was."""

    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)

        def cut(at: str) -> None:
            if at == point:
                raise Cut

        commit = life.commit(Status.SUCCEEDED, entries=2, exit=b"{}")
        _failpoints.arm(cut)
        with pytest.raises(Cut):
            await store.commit("w1", [commit])
        _failpoints.arm(None)
        (answer,) = await store.commit("w1", [commit])
        assert answer.verdict is verdict
        (history,) = await store.load([(life.incarnation, 0, 0)])
        assert history.entries == commit.entries
        await store.close()

    run(main)


# Others ----------------------------------------------------------------------------------------


def test_a_neighbours_transaction_is_waited_for(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before the lock is there: a transaction that reads and then writes may have to fail."""

    async def main() -> None:
        store = await opened(tmp_path)
        neighbour = apsw.Connection(str(tmp_path / "orders.perdure"))
        neighbour.execute("BEGIN IMMEDIATE")
        waits: list[int] = []

        def wait(self: writer.Writer, tries: int) -> bool:
            waits.append(tries)
            if tries == 3:
                neighbour.execute("UPDATE perdure_workers SET pid = 77")
                neighbour.execute("COMMIT")
            return True

        def work(connection: Connection) -> None:
            seen.append(select(connection, "SELECT pid FROM perdure_workers"))
            connection.execute("UPDATE perdure_workers SET pid = pid + 1")

        seen: list[object] = []
        monkeypatch.setattr(writer.Writer, "_wait", wait)
        await store._write(work)
        assert waits == [0, 1, 2, 3]
        assert seen == [[(77,)]]
        assert [one.pid for one in await store.workers()] == [78]
        neighbour.close()
        await store.close()

    run(main)


def test_a_neighbour_that_never_ends_makes_the_store_unavailable(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StoreUnavailableError: nothing was written; and looking goes on meanwhile."""

    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        neighbour = apsw.Connection(str(tmp_path / "orders.perdure"))
        neighbour.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(writer, "PATIENCE_S", 0.0)
        commit = life.commit(entries=1)
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.commit("w1", [commit])
        assert await store.alive("w1")
        neighbour.execute("COMMIT")
        neighbour.close()
        assert (await store.commit("w1", [commit]))[0].verdict is Verdict.GRANTED
        await store.close()

    run(main)


def test_closing_does_not_wait_for_a_neighbour(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE_S", 1_000.0)

    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        neighbour = apsw.Connection(str(tmp_path / "orders.perdure"))
        neighbour.execute("BEGIN IMMEDIATE")
        commit = asyncio.ensure_future(store.commit("w1", [life.commit(entries=1)]))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await commit
        neighbour.execute("ROLLBACK")
        neighbour.close()

    run(main)


def test_what_was_asked_before_closing_is_done(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        calls = [asyncio.ensure_future(store.deliver([life.mail(f"{n}")])) for n in range(200)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*calls)
        await store.open()
        assert (await store.read([life.execution_id]))[0].wakes == 200
        await store.close()

    run(main)


def test_a_closed_store_has_no_threads(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        before = threading.active_count()
        for store in (SqliteStore(tmp_path / "orders.perdure"), SqliteStore.in_memory()):
            await store.open()
            assert threading.active_count() > before
            await store.close()
            assert threading.active_count() == before

    run(main)


def test_a_store_may_be_closed_on_another_loop(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "orders.perdure")
    asyncio.run(store.open())
    asyncio.run(store.register(worker("w1")))
    asyncio.run(store.close())
    asyncio.run(store.close())


def test_one_does_not_hint_oneself(tmp_path: Path, run: Run) -> None:
    """`data_version` is read on the writer's connection: its own commits do not move it."""

    async def main() -> None:
        store = await opened(tmp_path)
        hints: list[int] = []
        store.listen(lambda: hints.append(1))
        life = await running(store)
        for _ in range(20):
            await store.commit("w1", [life.commit(entries=1)])
        assert hints == []
        await store.close()

    run(main)


def test_the_log_is_taken_into_the_file_between_batches(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WAL that nobody checkpoints grows without end, and makes every look slower."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 50)

    async def main() -> None:
        store = await opened(tmp_path)
        life = await running(store)
        sizes: list[int] = []
        for _ in range(40):
            commit = life.commit(entries=20)
            commit.entries = [entry._replace(input=b"x" * 1_000) for entry in commit.entries]
            await store.commit("w1", [commit])
            sizes.append((tmp_path / "orders.perdure-wal").stat().st_size)
        assert max(sizes) < 120 * 4_152
        await store.close()

    run(main)


def test_a_cancelled_close_is_still_a_close(tmp_path: Path, run: Run) -> None:
    async def main() -> None:
        store = await opened(tmp_path)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        closers = [thread for thread in threading.enumerate() if thread.name == "perdure-closer"]
        await asyncio.to_thread(lambda: [closer.join() for closer in closers])
        await store.open()
        await store.close()

    run(main)


def test_an_execution_has_not_begun_before_it_was_there(tmp_path: Path, run: Run) -> None:
    """Its first turn has been run before its birth is written."""

    async def main() -> None:
        store = await opened(tmp_path)
        for status in (Status.RUNNING, Status.SUSPENDED):
            start = new_start()
            start.began_at = store.clock.now() - 5
            await store.commit("w1", [born(start, status)])
            (record,) = await store.read([start.execution_id])
            assert record.created_at == record.began_at == store.clock.now() - 5
            assert record.changed_at == store.clock.now()
        await store.close()

    run(main)
