"""Rows are found where they have last been seen, and a guess that is wrong is only a look in vain."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure._model.journal import Entry
from perdure._model.records import Commit, ExecutionId, Start, Verdict
from perdure._model.status import Status
from perdure._stores.sqlite import SqliteStore, commit, listing
from perdure._stores.sqlite.driver import select
from perdure.errors import StoreRefusedError

from tests.conftest import Run
from tests.unit.stores.actor import worker

SLOT = "abcd"  # the last two bytes of an id
OTHER = "0123"


def birth(slot: str = SLOT) -> Commit:
    """A birth of an execution that somebody runs, whose place is remembered in a slot."""
    start = Start(
        execution_id=os.urandom(14).hex() + slot,
        incarnation=os.urandom(16),
        workflow="Order",
        payload=b"{}",
        began_at=0,
    )
    return Commit(start.execution_id, start.incarnation, 1, 0, Status.RUNNING, start=start)


def step(born: Commit, seq: int = 1, at: int = 0) -> Commit:
    """A commit with an entry."""
    entries = [Entry(seq, "activity", "charge", seq, 1, b"1", b"2", at)]
    return Commit(born.execution_id, born.incarnation, 1, 0, Status.RUNNING, entries=entries)


def end(born: Commit) -> Commit:
    return Commit(born.execution_id, born.incarnation, 1, 0, Status.SUCCEEDED, exit=b"{}")


class Scene:
    """A store with a worker, and how it looks for executions."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)

    async def open(self) -> None:
        await self.store.open()
        await self.store.register(worker("w1"))

    async def commit(self, *batch: Commit) -> list[Verdict]:
        return [answer.verdict for answer in await self.store.commit("w1", batch)]

    async def ids(self, *asked: Commit) -> set[ExecutionId]:
        return {one.execution_id for one in await self.store.read([one.execution_id for one in asked])}

    @contextmanager
    def statements(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """The statements on executions that are run meanwhile, once for each of their bindings."""
        seen: list[str] = []
        with monkeypatch.context() as patch:
            for door in ("_write", "_read"):
                patch.setattr(self.store, door, traced(getattr(self.store, door), seen))
            yield seen


def traced(door: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def trace(_cursor: object, sql: str, _bindings: object) -> bool:
        seen.append(sql)
        return True

    async def do(work: Callable[[Any], Any], *others: object, **more: object) -> Any:
        def watched(connection: Any) -> Any:
            connection.exec_trace = trace
            try:
                return work(connection)
            finally:
                connection.exec_trace = None

        return await door(watched, *others, **more)

    return do


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "orders.perdure")


def test_what_was_born_here_is_found_without_the_index_of_ids(
    scene: Scene, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await scene.open()
        births = [birth(f"{n:04x}") for n in range(10)]
        await scene.commit(*births[:3])
        await scene.commit(*births[3:])
        with scene.statements(monkeypatch) as seen:
            assert await scene.commit(*map(step, births)) == [Verdict.GRANTED] * 10
            assert len(await scene.ids(*births)) == 10
        # Eight and two in a statement each.
        assert [one for one in seen if "_executions e ON e.n =" in one] == [commit._disturbed(n) for n in (8, 2)]
        assert seen.count(listing._READ_AT) == 10
        assert not {commit._STAND, listing._READ} & set(seen)
        await scene.store.close()

    run(main)


def test_what_was_born_elsewhere_is_looked_for_by_its_id_once(
    scene: Scene, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await scene.open()
        born, read = birth(SLOT), birth(OTHER)
        await scene.commit(born, read)
        neighbour = Scene(tmp_path / "orders.perdure")
        await neighbour.store.open()
        with neighbour.statements(monkeypatch) as seen:
            for seq in (1, 2):
                assert await neighbour.commit(step(born, seq)) == [Verdict.GRANTED]
                assert await neighbour.ids(read) == {read.execution_id}
        for by_id, at in ((commit._STAND, commit._disturbed(1)), (listing._READ, listing._READ_AT)):
            assert [one for one in seen if one in {by_id, at}] == [by_id, at]
        await neighbour.store.close()
        await scene.store.close()

    run(main)


def test_two_ids_of_one_slot_are_never_taken_for_each_other(scene: Scene, run: Run) -> None:
    async def main() -> None:
        await scene.open()
        one, two = birth(), birth()
        await scene.commit(one)
        await scene.commit(two)
        for seq in (1, 2):
            assert await scene.commit(step(one, seq), step(two, seq)) == [Verdict.GRANTED] * 2
            assert await scene.ids(one, two) == {one.execution_id, two.execution_id}
        assert await scene.commit(end(one)) == [Verdict.GRANTED]
        assert [record.status for record in await scene.store.read([two.execution_id])] == [Status.RUNNING]
        await scene.store.close()

    run(main)


def test_a_purged_rows_number_given_to_another_leads_nowhere(scene: Scene, run: Run) -> None:
    async def main() -> None:
        await scene.open()
        old, new = birth(SLOT), birth(OTHER)
        await scene.commit(old)
        await scene.commit(end(old))
        purged = await numbers(scene)
        assert await scene.store.purge(None, scene.store.clock.now(), 10) == 1
        await scene.commit(new)
        assert await numbers(scene) == purged
        assert await scene.commit(step(old)) == [Verdict.LOST]
        assert await scene.ids(old, new) == {new.execution_id}
        await scene.store.close()

    run(main)


def test_a_birth_that_was_taken_back_is_looked_for_like_any_other(scene: Scene, run: Run) -> None:
    """Its number is the next one's, and the batch that is repeated without the culprit gets another."""

    async def main() -> None:
        await scene.open()
        first, taken_back, next_ = birth("0000"), birth(SLOT), birth(OTHER)
        await scene.commit(first)
        await scene.commit(step(first))
        with pytest.raises(StoreRefusedError):
            await scene.commit(taken_back, step(first, at=1))  # another entry in the same place
        await scene.commit(next_)
        assert await scene.ids(taken_back, next_) == {next_.execution_id}
        assert await scene.commit(step(taken_back)) == [Verdict.LOST]
        assert await scene.commit(taken_back) == [Verdict.STARTED]
        assert await scene.commit(step(taken_back), step(next_)) == [Verdict.GRANTED] * 2
        await scene.store.close()

    run(main)


async def numbers(scene: Scene) -> list[int]:
    rows: list[tuple[int]] = await scene.store._read(
        lambda connection: select(connection, "SELECT n FROM perdure_executions")
    )
    return [n for (n,) in rows]
