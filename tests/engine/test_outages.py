"""A store that does not answer, loses answers, or refuses data: nothing is lost and nothing is done twice (promise 8)."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import apsw
import pytest

from perdure import (
    Schedule,
    Status,
    StoreUnavailableError,
    UsageError,
    WorkflowEngine,
    activity,
    current_attempt,
    heartbeat,
    sleep,
    uuid4,
    workflow,
)
from perdure._model.records import Commit, Mail
from perdure._model.status import Held
from perdure.errors import StoreError, StoreFileError, StoreRefusedError

from tests.engine.lab import Gate, Lab, Probe


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's pauses between two tries are real; here nobody recovers in them."""
    for module in ("patience", "wakes"):
        monkeypatch.setattr(f"perdure._engine.{module}.PAUSE_S", 0)
    monkeypatch.setattr("perdure._engine.committer.FIRST_PAUSE_S", 1e-6)
    monkeypatch.setattr("perdure._engine.committer.LONGEST_PAUSE_S", 1e-5)


class Scenario:
    """Executions that use everything that a store is asked for, and a count of what they did."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # Successful attempts by the key under which a gateway would know them.
        self.done: Counter[str] = Counter()
        done = self.done

        @activity
        async def step(n: int) -> int:
            done[f"step {n}"] += 1
            return n

        @activity
        def on_thread(n: int) -> int:
            done[f"thread {n}"] += 1
            return n

        @activity(retry=Schedule.exponential("20 seconds", factor=10).times(2))
        async def flaky(n: int) -> int:
            heartbeat(current_attempt())
            if current_attempt() < 3:
                raise RuntimeError("again")
            done[f"flaky {n}"] += 1
            return n

        @workflow(idempotency_key=str)
        async def child(n: int) -> int:
            await sleep("10 seconds")
            return await step(1_000 + n)

        @workflow(idempotency_key=str)
        async def work(n: int) -> list[int]:
            first = await asyncio.gather(step(n), on_thread(n))
            uuid4()
            await child.start(n)
            await sleep("30 seconds")
            await sleep("1 hour")
            return [*first, await flaky(n), await step(100 + n)]

        self.work, self.child = work, child

    async def run(self, engine: WorkflowEngine, number: int = 3) -> None:
        """Run some to their end, and look that all is as it should be."""
        lab = self.lab
        starting = [asyncio.ensure_future(engine.start(self.work, n)) for n in range(number)]
        for _ in range(12):
            # In steps: what this worker owns without knowing it comes to light at its rounds, one second apart.
            await lab.skip("20 minutes")
            await lab.skip("1 second")
            await lab.skip("1 second")
        lab.probe(engine).heal()
        await lab.skip("2 seconds")
        for n, each in enumerate(starting):
            handle = await each
            assert await lab.result(handle) == [n, n, n, 100 + n]
            assert await lab.result(engine_handle(self.child, n, engine)) == 1_000 + n
            await self._check_journal(engine, handle.execution_id)
        assert set(self.done.values()) == {1}
        assert len(self.done) == 5 * number
        assert lab.service(engine).runners == {}
        assert lab.service(engine).room.free == lab.service(engine).settings.admission
        assert lab.service(engine).idle

    async def _check_journal(self, engine: WorkflowEngine, execution_id: str) -> None:
        journal = await engine.journal(execution_id)
        assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
        assert Counter(entry.kind for entry in journal) == {"activity": 6, "timer": 2, "set": 1, "start": 1}


def engine_handle(wf, n: int, engine: WorkflowEngine):
    return wf.options(engine=engine).handle(wf.execution_id(n))


WRITES = ["commit", "claim", "promote", "save_heartbeat"]
READS = ["load", "next_wake", "heartbeat"]
HOUSEKEEPING = ["alive", "take_over", "owned", "mail_for"]


def cable_out() -> StoreError:
    return StoreUnavailableError("the cable is out")


def damaged() -> StoreError:
    """It looks final, and is not always: an operator has put the file back."""
    return StoreFileError("it was replaced while it was open", path="x")


@pytest.mark.parametrize("error", [cable_out, damaged])
@pytest.mark.parametrize("method", [*WRITES, *READS])
def test_an_outage_costs_nothing_but_time(lab, method, error):
    """Whatever method it hits and whatever it says, a few times in a row, again and again."""

    async def main():
        async with lab.engine([(s := Scenario(lab)).work, s.child]) as engine:
            probe = lab.probe(engine)
            for _ in range(4):
                probe.fail(method, 3, error)
                probe.fail(method, 2, error=None)
            await s.run(engine)
            assert probe.calls[method] > 3 or (method == "load" and lab.cache is None)

    lab.run(main)


@pytest.mark.parametrize("method", [*WRITES, *HOUSEKEEPING])
def test_a_lost_answer_is_harmless(file_lab, method):
    """The write has happened, and nobody knows: a repeated commit is applied once, a claim is found again."""

    async def main():
        async with file_lab.engine([(s := Scenario(file_lab)).work, s.child], admission=2) as engine:
            probe = file_lab.probe(engine)
            probe.fail(method, 2, written=True)
            await file_lab.settle()
            probe.fail(method, 2, written=True)
            await s.run(engine)

    file_lab.run(main)


@pytest.mark.parametrize("method", HOUSEKEEPING)
def test_a_worker_that_cannot_keep_house_goes_on(file_lab, method):
    async def main():
        async with file_lab.engine([(s := Scenario(file_lab)).work, s.child]) as engine:
            file_lab.probe(engine).fail(method, 5)
            await s.run(engine)

    file_lab.run(main)


def test_a_claim_whose_answer_was_lost_is_found_again(file_lab):
    """Regression that others had: executions owned on paper by a worker that does not know it."""
    s = Scenario(file_lab)

    async def main():
        async with file_lab.engine() as client:
            for n in range(3):
                await client.start(s.child, n)
        store = file_lab.store()
        store.fail("claim", 1, written=True)
        async with file_lab.engine([s.child], store=store) as engine:
            await file_lab.skip("1 minute")
            for n in range(3):
                assert await file_lab.result(engine_handle(s.child, n, engine)) == 1_000 + n
                assert (await engine.describe(s.child.execution_id(n))).crashes == 0

    file_lab.run(main)


@pytest.mark.parametrize("seed", range(6))
def test_a_store_that_fails_at_random_loses_and_doubles_nothing(file_lab, seed):
    """Every method, before and after it has written, all the time."""
    chance = random.Random(seed)

    async def main():
        async with file_lab.engine([(s := Scenario(file_lab)).work, s.child], admission=3) as engine:
            probe = file_lab.probe(engine)
            for method in [*WRITES, *READS, *HOUSEKEEPING, "give_back"]:
                for _ in range(25):
                    probe.fail(method, 1, written=chance.random() < 0.5)
                    probe.fail(method, chance.randrange(1, 4), error=None)
            await s.run(engine, number=5)

    file_lab.run(main, timeout=18)


def test_an_outage_of_reads_is_told_to_who_asks(lab):
    """Promise 8: a clear error to whoever can act; nothing happens to the execution."""

    @workflow(idempotency_key=lambda key: key)
    async def nap(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            handle = await nap.start("k")
            await lab.settle()
            probe = lab.probe(engine)
            for ask in (handle.status, handle.poll, lambda: engine.describe(handle.execution_id)):
                probe.fail("read", 1)
                with pytest.raises(StoreUnavailableError, match="cable"):
                    await ask()
            probe.fail("resume", 1)
            with pytest.raises(StoreUnavailableError):
                await handle.resume()
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_a_start_during_an_outage_waits_for_it(lab):
    """Promise 1: it returns when the execution is durable, and not before."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            down = True
            probe.judge = lambda batch: _raise_if(down)
            starting = asyncio.ensure_future(work.start("k"))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not starting.done()
            down = False
            probe.judge = None
            assert await lab.result(await starting) == "k"

    lab.run(main)


def test_an_activity_that_waits_for_an_execution_waits_for_the_store_too(lab):
    """Promise 8: otherwise the outage would be recorded as its result."""

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return f"other {key}"

    @activity
    async def join(key: str) -> str:
        return await other.execute(key)

    @activity
    async def ask(execution_id: str) -> str:
        return await other.handle(execution_id).result()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str]:
        return [await join(key), await ask(other.execution_id(key))]

    async def main():
        async with lab.engine([work, other]) as engine:
            await lab.finish(other.execute("k"))
            probe = lab.probe(engine)
            before = probe.calls["read"]
            for _ in range(2):
                probe.fail("read", 3)
                probe.fail("read", 1, error=None)
            handle = await work.start("k")
            await lab.settle()
            assert probe.calls["read"] - before >= 8
            assert await lab.result(handle) == ["other k", "other k"]

    lab.run(main)


def test_a_registration_during_an_outage_is_announced_when_it_is_over(file_lab, log):
    """API 7: or whoever waits would hear for ever that nobody has that workflow."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with file_lab.engine() as engine:
            file_lab.probe(engine).fail("register", 3)
            engine.register(work)
            await file_lab.settle()
            (worker,) = await file_lab.probe(engine).inner.workers()
            assert worker.workflows == ("work",)
        assert not any("bug" in record.getMessage() for record in log.records)

    file_lab.run(main)


def _raise_if(down: bool) -> None:
    if down:
        raise StoreUnavailableError("still down")


def test_an_outage_is_said_once_and_not_for_every_try(lab, log):
    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            lab.probe(engine).fail("commit", 50)
            assert await lab.finish(work.execute("k")) == "k"
        said = [record for record in log.records if "commits wait" in record.getMessage()]
        assert len(said) == 1

    lab.run(main)


def test_an_engine_can_be_left_while_its_store_is_away(lab, monkeypatch, log):
    """Nobody hangs: neither the engine, nor who starts, nor who waits; the next engine goes on."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)
    gate = Gate()
    ran = []

    @activity
    async def act() -> str:
        ran.append(1)
        await gate.wait()
        return f"acted {len(ran)}"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            waiting = asyncio.ensure_future(handle.result())
            probe = lab.probe(engine)
            probe.judge = lambda batch: _raise_if(down=True)
            probe.fail("retire", 1)
            gate.open()
            starting = asyncio.ensure_future(work.start("new"))
            delayed = asyncio.ensure_future(work.options(delay="1 hour").start("delayed"))
            for _ in range(50):
                await asyncio.sleep(0)
        with pytest.raises(UsageError, match="closed"):
            await waiting
        for each in (starting, delayed):
            with pytest.raises((UsageError, StoreError)):
                await asyncio.wait_for(each, 5)
        assert any("does not answer" in record.getMessage() for record in log.records)
        if lab._keeper is not None:
            await lab._keeper.take_over("nobody")
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "acted 2"

    lab.run(main)


def test_a_store_that_is_damaged_is_said_and_the_engine_can_be_left(lab, monkeypatch, log):
    """It will not come back: whoever waits hears so when the engine is left, and leaving does not hang."""
    monkeypatch.setattr("perdure._engine.service.CUT_OFF_S", 0.05)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)

            def damaged(batch: list[Commit]) -> None:
                raise StoreFileError("it is damaged", path="x")

            probe.judge = damaged
            starting = asyncio.ensure_future(work.start("k"))
            for _ in range(50):
                await asyncio.sleep(0)
        with pytest.raises((UsageError, StoreError)):
            await asyncio.wait_for(starting, 5)
        assert any("damaged" in record.getMessage() + str(record.exc_info) for record in log.records)

    lab.run(main)


def test_a_stale_answer_about_the_next_timer_does_not_lose_one(lab):
    """Promise 7: a suspension is written while the store is being asked for the earliest wake."""

    @workflow(idempotency_key=lambda key, seconds: key)
    async def nap(key: str, seconds: int) -> str:
        await sleep(seconds)
        return key

    async def main():
        async with lab.engine([nap]) as engine:
            probe = lab.probe(engine)
            hold = probe.hold("next_wake")
            lab.service(engine).wakes.poke_all()
            await lab.settle()
            assert hold.kept == 1
            handle = await nap.start("k", 3_600)
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            hold.release()
            await lab.settle()
            assert lab.next_event() == lab.clock.now() + 3_600_000
            assert await lab.result(handle) == "k"

    lab.run(main)


# Refused ---------------------------------------------------------------------------------------------


def refusing(probe: Probe, guilty: Callable[[Commit], bool]) -> None:
    """Refuse every batch that has a guilty commit in it, as a database does: all of it, and without saying which."""

    def judge(batch: list[Commit]) -> None:
        if any(map(guilty, batch)):
            raise StoreRefusedError("one of these values cannot be stored")

    probe.judge = judge


def test_only_the_guilty_one_is_held_when_a_batch_is_refused(lab, log):
    """Design 4: the batch is halved until it is alone; everything else goes through."""
    gate = Gate()

    @activity
    async def act(n: int) -> str:
        await gate.wait()
        return "poison" if n == 13 else "fine"

    @workflow(idempotency_key=str)
    async def work(n: int) -> str:
        return await act(n)

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            handles = [await work.start(n) for n in range(20)]
            await lab.settle()
            refusing(probe, lambda commit: any(b"poison" in entry.exit for entry in commit.entries))
            before = len(probe.batches)
            gate.open()
            await lab.settle()
            for n, handle in enumerate(handles):
                if n != 13:
                    assert await lab.result(handle) == "fine"
            info = await engine.describe(handles[13].execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "REFUSED")
            assert "cannot be stored" in str(info.cause.to_exception())
            assert await engine.journal(handles[13].execution_id) == []
            # Halving, not one by one.
            assert 1 < len(probe.batches) - before < 20
            assert [i.key async for i in engine.executions(held="REFUSED")] == ["13"]
            probe.judge = None
            await handles[13].resume()
            assert await lab.result(handles[13]) == "poison"

    lab.run(main)


def test_a_start_that_is_refused_is_told_to_who_started_it(lab):
    """And nobody else: nothing is stored of it."""

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return key

    async def main():
        async with lab.engine([work]) as engine:
            refusing(lab.probe(engine), lambda commit: commit.start is not None and b"poison" in commit.start.payload)
            ends = await lab.finish(
                asyncio.gather(
                    *(work.execute(key) for key in ("a", "poison", "b")),
                    work.options(delay="1 hour").start("poison too"),
                    return_exceptions=True,
                )
            )
            assert ends[0] == "a"
            assert ends[2] == "b"
            assert isinstance(ends[1], StoreRefusedError)
            assert isinstance(ends[3], StoreRefusedError)
            assert sorted([info.key async for info in engine.executions()]) == ["a", "b"]
            assert lab.service(engine).runners == {}

    lab.run(main)


def test_a_refused_execution_does_not_keep_its_room(lab):
    @activity
    async def act() -> str:
        return "poison"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act() if key == "poison" else key

    async def main():
        async with lab.engine([work], admission=1) as engine:
            refusing(lab.probe(engine), lambda commit: any(b"poison" in entry.exit for entry in commit.entries))
            await work.start("poison")
            assert await lab.finish(work.execute("next")) == "next"
            assert lab.service(engine).room.free == 1

    lab.run(main)


def test_a_refused_execution_that_has_mail_is_held_like_any_other(lab):
    """Design 4: what the store has refused is not given out, and the mail waits for whoever resumes it."""
    gate = Gate()
    ran = []

    @activity
    async def act(n: int) -> str:
        ran.append(n)
        await gate.wait()
        return "poison"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        await act(1)
        return await act(2)

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            handle = await work.start("k")
            await lab.settle()
            await probe.inner.deliver([Mail(handle.execution_id, "deferred", "d", b"{}")])
            refusing(probe, lambda commit: any(b"poison" in entry.exit for entry in commit.entries))
            gate.open()
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.held) == (Status.SUSPENDED, "REFUSED")
            assert await engine.journal(handle.execution_id) == []
            assert ran == [1]
            probe.judge = None
            await handle.resume()
            assert await lab.result(handle) == "poison"

    lab.run(main)


def test_an_execution_that_cannot_even_be_held_does_not_go_round(lab, log):
    """It is left to the next worker, and everybody else goes on."""

    @activity
    async def act() -> str:
        return "poison"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await act() if key == "poison" else key

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            refusing(probe, lambda commit: bool(commit.entries) or commit.held is not None)
            before = len(probe.batches)
            handle = await work.start("poison")
            await lab.settle()
            assert len(probe.batches) - before <= 4
            assert lab.service(engine).runners == {}
            assert await lab.finish(work.execute("other")) == "other"
        assert [r.getMessage() for r in log.records if "cannot even be held" in r.getMessage()]
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "poison"

    lab.run(main)


def test_a_journal_that_is_no_text_any_more_stops_only_its_own_execution(file_lab):
    """R40, promise 8: one letter of one row has changed on the disk, and SQLite's own checks see nothing."""
    lab = file_lab

    @activity
    async def act(key: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        first = await act(key)
        await sleep("2 hours")
        return first

    async def main():
        async with lab.engine([work]) as engine:
            handles = [await engine.start(work, key) for key in "abc"]
            await lab.settle()
            damaged = (await engine._service.requests.record(handles[1].execution_id)).incarnation
        connection = apsw.Connection(str(lab.path))
        connection.execute(
            "UPDATE perdure_journal SET name = CAST(x'e97465' AS TEXT) WHERE incarnation = ?", (damaged,)
        )
        connection.close()
        lab.clock.advance(3 * 60 * 60 * 1_000)
        async with lab.engine([work]) as engine:
            await lab.settle()
            described = [await engine.describe(handle.execution_id) for handle in handles]
            assert [one.status for one in described] == [Status.SUCCEEDED, Status.SUSPENDED, Status.SUCCEEDED]
            assert described[1].held is Held.UNREADABLE
            assert "is damaged" in str(described[1].cause)

    lab.run(main)
