"""Another payload under the same id, asked for in a body: the first one stands, and whoever asked hears of it (R2)."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from perdure import (
    DurableDeferred,
    Interrupted,
    PayloadMismatchError,
    Status,
    activity,
    add_finalizer,
    execution_id,
    publish,
    sleep,
    workflow,
)

from tests.engine.lab import Lab

Go = DurableDeferred.make("go")
Done = DurableDeferred.make("done", success=int)


@dataclass
class Parcel:
    key: str
    grams: int
    notes: set[str] = field(default_factory=set)


@workflow(idempotency_key=lambda parcel: parcel.key, on_mismatch="raise")
async def weigh(parcel: Parcel) -> int:
    return parcel.grams


@workflow(idempotency_key=lambda parcel: parcel.key, on_mismatch="raise")
async def slowly(parcel: Parcel) -> int:
    await Done
    return parcel.grams


@workflow(idempotency_key=lambda parcel: parcel.key)
async def leniently(parcel: Parcel) -> int:
    return parcel.grams


@workflow(idempotency_key=lambda parcel: parcel.key)
async def patiently(parcel: Parcel) -> int:
    await Done
    return parcel.grams


@activity
async def step() -> None: ...


def warnings(log) -> list[str]:
    return [one.getMessage() for one in log.records if "another payload" in one.getMessage()]


async def letters(lab: Lab, engine, execution_id: str) -> list[str]:
    record = await lab.record(engine, execution_id)
    [history] = await lab.probe(engine).inner.load([(record.incarnation, 0, 0)])
    return [letter.kind for letter in history.letters]


async def waiters(lab: Lab, engine, execution_id: str) -> int:
    record = await lab.record(engine, execution_id)
    select = lab.probe(engine).inner._read
    return await select(
        lambda connection: (
            connection.execute(
                "SELECT count(*) FROM perdure_mailbox WHERE incarnation = ? AND kind IN ('waiter', 'left')",
                (record.incarnation,),
            ).get
        )
    )


# A child ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [True, False], ids=["has ended", "waits"])
def test_a_child_with_another_payload_is_refused_and_not_touched(lab, ended):
    """R2: `on_mismatch="raise"`; the parent may catch it, and every replay tells it the same."""
    child = weigh if ended else slowly

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[object]:
        said: list[object] = []
        try:
            await child.execute(Parcel("p", 2))
        except PayloadMismatchError as refused:
            said += [refused.fields, refused.execution_id, str(refused)]
        await step()
        await Go
        return said

    async def main():
        async with lab.engine([child, parent]) as engine:
            handle = await child.start(Parcel("p", 1))
            await lab.settle()
            before = await lab.record(engine, handle.execution_id)
            asking = await parent.start("k")
            await lab.settle()
            assert await lab.record(engine, handle.execution_id) == before
            assert await waiters(lab, engine, handle.execution_id) == 0
            assert await letters(lab, engine, asking.execution_id) == ["payload"]
        async with lab.engine([child, parent]) as engine:
            asking = parent.handle(asking.execution_id)
            await Go.succeed(asking.token(Go), None)
            fields, execution_id, message = await lab.result(asking)
            assert (fields, execution_id) == (["grams"], handle.execution_id)
            assert "grams differ(s)" in message
            kinds = [entry.kind for entry in await engine.journal(asking.execution_id)]
            assert kinds == ["act", "payload", "activity", "deferred"]

    lab.run(main)


def test_a_parent_that_does_not_catch_it_fails_with_it(lab):
    """R2, R32."""

    @workflow(idempotency_key=lambda key: key, error=PayloadMismatchError)
    async def parent(key: str) -> int:
        return await weigh.execute(Parcel("p", 2))

    async def main():
        async with lab.engine([weigh, parent]):
            await lab.finish(weigh.execute(Parcel("p", 1)))
            with pytest.raises(PayloadMismatchError) as refused:
                await lab.finish(parent.execute("k"))
            assert refused.value.fields == ("grams",)

    lab.run(main)


@pytest.mark.parametrize("ended", [True, False], ids=["has ended", "waits"])
def test_a_child_with_the_same_payload_in_other_bytes_is_joined(lab, ended):
    """R2: equal once decoded; sets have no order."""
    child = weigh if ended else slowly

    @workflow(name=child.name, idempotency_key=lambda parcel: parcel["key"], on_mismatch="raise")
    async def older(parcel: dict[str, object]) -> int:
        return 0

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> int:
        return await child.execute(Parcel("p", 1, {"a", "b", "c"}))

    async def main():
        async with lab.engine([child, parent]) as engine:
            raw = [b'{"key":"p","grams":1,"notes":["%s"]}' % b'","'.join(order) for order in ([b"c", b"a", b"b"],)]
            handle = await child.start(Parcel("p", 1, {"a", "b", "c"}))
            await lab.settle()
            await lab.probe(engine).inner._write(
                lambda connection: connection.execute("UPDATE perdure_executions SET payload = ?", (raw[0],)).get
            )
            asking = await parent.start("k")
            await lab.settle()
            assert "payload" in await letters(lab, engine, asking.execution_id)
            if not ended:
                assert await waiters(lab, engine, handle.execution_id) == 1
                await Done.succeed(handle.token(Done), 1)
            assert await lab.result(asking) == 1

    lab.run(main)


def test_what_a_child_went_on_as_is_no_other_payload(lab):
    """R2, R37: it was begun with this one, lives ago."""

    @workflow(idempotency_key=lambda key, left: key, on_mismatch="raise")
    async def counts(key: str, left: int) -> int:
        if left:
            counts.continue_as_new(key, left - 1)
        await Done
        return left

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> int:
        return await counts.execute("c", 2)

    async def main():
        async with lab.engine([counts, parent]):
            handle = await counts.start("c", 2)
            await lab.settle()
            asking = await parent.start("k")
            await lab.settle()
            await Done.succeed(handle.token(Done), 1)
            assert await lab.result(asking) == 0

    lab.run(main)


@pytest.mark.parametrize("order", ["one after the other", "at once", "the wrong one first"])
def test_one_body_that_asks_for_one_child_with_two_payloads_is_refused_the_second(lab, order):
    """R2: also where it is joined already, and where its end is known; the first payload goes its way."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        async def ask(grams: int) -> str:
            try:
                return str(await slowly.execute(Parcel("p", grams)))
            except PayloadMismatchError as refused:
                return ", ".join(refused.fields)

        if order == "at once":
            said = await asyncio.gather(ask(1), ask(2), ask(1), ask(3))
        elif order == "one after the other":
            said = [await ask(1), await ask(2), await ask(1), await ask(2)]
        else:
            said = [await ask(2), await ask(1), await ask(2), await ask(1)]
        await Go
        return said

    async def main():
        async with lab.engine([slowly, parent]) as engine:
            if order == "the wrong one first":
                await slowly.start(Parcel("p", 1))
                await lab.settle()
            asking = await parent.start("k")
            await lab.settle()
            await Done.succeed(slowly.handle(slowly.execution_id(Parcel("p", 1))).token(Done), 1)
            await lab.settle()
        async with lab.engine([slowly, parent]) as engine:
            asking = parent.handle(asking.execution_id)
            await Go.succeed(asking.token(Go), None)
            said = await lab.result(asking)
            assert (
                said
                == {
                    "at once": ["1", "grams", "1", "grams"],
                    "one after the other": ["1", "grams", "1", "grams"],
                    "the wrong one first": ["grams", "1", "grams", "1"],
                }[order]
            )
            assert await lab.steps(engine, asking.execution_id)

    lab.run(main)


@pytest.mark.parametrize("refused", [False, True], ids=["at first", "after a refusal"])
@pytest.mark.parametrize("wrong", [True, False], ids=["another payload", "the same"])
def test_a_wait_that_is_given_up_before_the_child_is_known_leaves_nothing_behind(lab, wrong, refused):
    """R2, R31: the parent's end, and its finalizers, wait for nobody who was never joined; its own child is interrupted."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        async def undo(exit: object) -> None:
            publish("progress", "undone")

        await add_finalizer(undo)
        if refused:
            with contextlib.suppress(PayloadMismatchError):
                await slowly.execute(Parcel("p", 3))
        task = asyncio.ensure_future(slowly.execute(Parcel("p", 2)))
        await asyncio.sleep(0)
        task.cancel()
        return "ended"

    async def main():
        async with lab.engine([slowly, parent]):
            if wrong or refused:
                handle = await slowly.start(Parcel("p", 1 if wrong else 2))
                await lab.settle()
            asking = await parent.start("k")
            assert await lab.result(asking) == "ended"
            assert await asking.read("progress") == "undone"
            handle = slowly.handle(slowly.execution_id(Parcel("p", 2)))
            await lab.settle()
            if wrong or refused:
                assert await handle.status() is Status.SUSPENDED
                await Done.succeed(handle.token(Done), 1)
                assert await lab.result(handle) == (1 if wrong else 2)
            else:
                assert await handle.status() in {None, Status.INTERRUPTED}

    lab.run(main)


def test_a_parent_that_was_refused_a_child_interrupts_nobody(lab):
    """R2, R31: what it does not wait for is not its own, also where it has started it."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        first = asyncio.ensure_future(slowly.execute(Parcel("p", 1)))
        await step()
        try:
            await slowly.execute(Parcel("p", 2))
        except PayloadMismatchError:
            await Go
        return str(await first)

    async def main():
        async with lab.engine([slowly, parent]):
            asking = await parent.start("k")
            await lab.settle()
            handle = slowly.handle(slowly.execution_id(Parcel("p", 1)))
            assert await handle.status() is Status.SUSPENDED
            await Go.succeed(asking.token(Go), None)
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            await Done.succeed(handle.token(Done), 1)
            assert await lab.result(asking) == "1"

    lab.run(main)


def test_a_worker_that_dies_at_any_commit_leaves_a_parent_that_is_refused(memory_lab):
    """R2, R41: nothing between the asking and the answer is lost."""
    lab = memory_lab

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        said = []
        for grams in (2, 1, 3):
            try:
                said.append(str(await weigh.execute(Parcel("p", grams))))
            except PayloadMismatchError as refused:
                said += refused.fields
            try:
                await weigh.start(Parcel("p", grams))
            except PayloadMismatchError:
                said.append("start")
        return said

    async def main():
        for at in range(1, 12):
            for written in (True, False):
                key = f"k{at}{written}"
                async with lab.doomed([weigh, parent]) as engine:
                    await lab.finish(weigh.execute(Parcel("p", 1)))
                    probe, commits = lab.probe(engine), 0

                    def count(batch, probe=probe, at=at, written=written):
                        nonlocal commits
                        commits += 1
                        if commits == at:
                            probe.hold("commit", before=not written)

                    probe.judge = count
                    starting = asyncio.ensure_future(parent.start(key))
                    await lab.settle()
                    starting.cancel()
                async with lab.engine([weigh, parent]):
                    assert await lab.finish(parent.execute(key)) == ["grams", "start", "1", "grams", "start"]

    lab.run(main)


def test_a_rewound_parent_is_refused_once_more(lab):
    """R2, R37: its journal is another life's, and it asks again."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await step()
        try:
            await slowly.execute(Parcel("p", 2))
        except PayloadMismatchError:
            await Go
            return "refused"
        return "joined"

    async def main():
        async with lab.engine([slowly, parent]) as engine:
            await slowly.start(Parcel("p", 1))
            await lab.settle()
            asking = await parent.start("k")
            await lab.settle()
            await Go.succeed(asking.token(Go), None)
            assert await lab.result(asking) == "refused"
            kinds = [entry.kind for entry in await engine.journal(asking.execution_id)]
            for kind in ("activity", "act", "payload"):
                await engine.rewind(asking.execution_id, to=kinds.index(kind) + 1)
                await lab.settle()
                await Go.succeed(asking.token(Go), None)
                assert await lab.result(asking) == "refused"

    lab.run(main)


def test_a_fork_joins_the_children_of_its_copied_part_as_they_are(lab):
    """R2, R49: asked with another token than they were begun with, they are not compared."""

    @workflow(idempotency_key=lambda key, token: key, on_mismatch="raise")
    async def asks(key: str, token: str) -> str:
        await Done
        return key

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        return await asks.execute(key, Go.token())

    async def main():
        async with lab.engine([asks, parent]) as engine:
            asking = await parent.start("k")
            await lab.settle()
            forked = parent.handle(await engine.fork(asking.execution_id, at=2))
            await lab.settle()
            assert await letters(lab, engine, forked.execution_id) == []
            await Done.succeed(asks.handle(asks.execution_id("k", "")).token(Done), 1)
            assert await lab.result(asking) == "k"
            assert await lab.result(forked) == "k"

    lab.run(main)


def test_a_fork_is_refused_the_children_that_its_original_was_refused(lab):
    """R2, R49: wherever it begins, as long as it asks with the payloads that were recorded."""

    async def asked(parcel: Parcel) -> int | str:
        try:
            return await weigh.execute(parcel)
        except PayloadMismatchError:
            await step()
            return "refused"

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[int | str]:
        said = [*await asyncio.gather(asked(Parcel("p", 1)), asked(Parcel("p", 2)))]
        return [*said, await asked(Parcel("p", 3)), await asked(Parcel("there", 2)), await asked(Parcel("there", 1))]

    async def main():
        async with lab.engine([weigh, parent]) as engine:
            assert await lab.result(await weigh.start(Parcel("there", 1))) == 1
            asking = await parent.start("k")
            told = [1, "refused", "refused", "refused", 1]
            assert await lab.result(asking) == told
            for at in range(len(await engine.journal(asking.execution_id)) + 1):
                forked = parent.handle(await engine.fork(asking.execution_id, at=at))
                assert await lab.result(forked) == told, at

    lab.run(main)


def test_a_fork_hears_a_recorded_verdict_on_a_child_that_it_asks_for_otherwise(lab):
    """R2, R49: the child has the original's token, which nothing is compared with; what was compared stays so."""

    @workflow(idempotency_key=lambda key, token: key, on_mismatch="raise")
    async def asks(key: str, token: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        await asks.execute(key, Go.token())
        try:
            return await asks.execute(key, "another one")
        except PayloadMismatchError:
            return "refused"

    async def main():
        async with lab.engine([asks, parent]) as engine:
            asking = await parent.start("k")
            assert await lab.result(asking) == "refused"
            entries = await engine.journal(asking.execution_id)
            [compared] = [entry.seq for entry in entries if entry.name.startswith("compare:")]
            for at in range(compared, len(entries) + 1):
                forked = parent.handle(await engine.fork(asking.execution_id, at=at))
                assert await lab.result(forked) == "refused", at

    lab.run(main)


def test_a_fork_that_asks_again_for_a_child_of_its_copied_part_joins_it(lab):
    """R31, R49: it has given up its wait, and the child is the original's still."""

    @workflow(idempotency_key=lambda key, who: key, on_mismatch="raise")
    async def asks(key: str, who: str) -> str:
        await Done
        return key

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await asks.execute("c", execution_id())
        return await asks.execute("c", execution_id())

    async def main():
        async with lab.engine([asks, parent]) as engine:
            asking = await parent.start("k")
            await lab.settle()
            forked = parent.handle(await engine.fork(asking.execution_id, at=1))
            await lab.settle()
            await lab.skip_to_next()
            await lab.settle()
            assert "leave" in [entry.name.partition(":")[0] for entry in await engine.journal(forked.execution_id)]
            await Done.succeed(asks.handle(asks.execution_id("c", "")).token(Done), 1)
            assert await lab.result(forked) == "c"

    lab.run(main)


def test_a_fork_does_not_compare_a_detached_start_of_its_copied_part(lab, log):
    """R2, R49: begun with the original's id, also where its answer stands behind the point; the next one is compared."""

    @workflow(idempotency_key=lambda key, who: key, on_mismatch="raise")
    async def detached(key: str, who: str) -> None: ...

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[str]:
        said: list[str] = []
        for who in (execution_id(), "another one"):
            try:
                await detached.start("d", who)
            except PayloadMismatchError:
                said.append("refused")
            else:
                said.append("started")
        return said

    async def main():
        async with lab.engine([detached, parent]) as engine:
            starting = await parent.start("k")
            assert await lab.result(starting) == ["started", "refused"]
            entries = await engine.journal(starting.execution_id)
            assert [entry.kind for entry in entries] == ["start", "sent", "sent"]
            for at in (1, 2, 3):
                forked = parent.handle(await engine.fork(starting.execution_id, at=at))
                assert await lab.result(forked) == ["started", "refused"], at
            assert warnings(log) == []

    lab.run(main)


# By default, a warning ------------------------------------------------------------------------------------


def test_a_child_with_another_payload_is_joined_with_a_warning(lab, log):
    """R2: once, and not again on a replay."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[int]:
        said = [await patiently.execute(Parcel("p", 2, {"x"}))]
        await Go
        return said

    async def main():
        async with lab.engine([patiently, parent]):
            handle = await patiently.start(Parcel("p", 1))
            await lab.settle()
            asking = await parent.start("k")
            await lab.settle()
            (said,) = warnings(log)
            assert "grams" in said
            assert "notes" in said
            assert "key" not in said.split("(")[1]
            await Done.succeed(handle.token(Done), 1)
            await lab.settle()
        async with lab.engine([patiently, parent]):
            asking = parent.handle(asking.execution_id)
            await Go.succeed(asking.token(Go), None)
            assert await lab.result(asking) == [1]
            assert len(warnings(log)) == 1

    lab.run(main)


def test_one_body_that_asks_with_two_payloads_is_warned(lab, log):
    """R2: also where the child's end is known."""

    @workflow(idempotency_key=lambda key: key)
    async def parent(key: str) -> list[int]:
        said = [await leniently.execute(Parcel("p", grams)) for grams in (1, 2, 1, 2)]
        await step()
        return said

    async def main():
        async with lab.engine([leniently, parent]):
            assert await lab.finish(parent.execute("k")) == [1, 1, 1, 1]
            await lab.settle()
            assert len(warnings(log)) == 1

    lab.run(main)


def test_a_detached_start_of_another_payload_warns(lab, log):
    """R2, R42: what exists is left alone."""

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> str:
        handle = await leniently.start(Parcel("p", 2))
        await Go
        return handle.execution_id

    async def main():
        async with lab.engine([leniently, starter]) as engine:
            first = await leniently.start(Parcel("p", 1))
            await lab.settle()
            before = await lab.record(engine, first.execution_id)
            asking = await starter.start("k")
            await lab.settle()
            assert len(warnings(log)) == 1
            assert await lab.record(engine, first.execution_id) == before
        async with lab.engine([leniently, starter]):
            asking = starter.handle(asking.execution_id)
            await Go.succeed(asking.token(Go), None)
            assert await lab.result(asking) == first.execution_id
            assert len(warnings(log)) == 1

    lab.run(main)


# A detached start ----------------------------------------------------------------------------------------


def test_a_detached_start_of_another_payload_is_refused(lab):
    """R2, R42: the answer comes with the receipt of the commit that asks, and is recorded."""

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> list[object]:
        said: list[object] = []
        for grams in (2, 1, 2):
            try:
                handle = await slowly.start(Parcel("p", grams))
            except PayloadMismatchError as refused:
                said += refused.fields
            else:
                said.append(handle.execution_id)
        await Go
        return said

    async def main():
        async with lab.engine([slowly, starter]) as engine:
            first = await slowly.start(Parcel("p", 1))
            await lab.settle()
            before = await lab.record(engine, first.execution_id)
            asking = await starter.start("k")
            await lab.settle()
            assert await lab.record(engine, first.execution_id) == before
        async with lab.engine([slowly, starter]):
            asking = starter.handle(asking.execution_id)
            await Go.succeed(asking.token(Go), None)
            assert await lab.result(asking) == ["grams", first.execution_id, "grams"]

    lab.run(main)


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("written", [True, False], ids=["behind it", "before it"])
def test_a_detached_start_that_must_not_mismatch_happens_once(corner_lab, at, written):
    """R42: also where it begins a failed execution anew, and its worker ends before it has heard of that."""
    lab = corner_lab
    ran = []

    @workflow(idempotency_key=lambda key: key, on_mismatch="raise")
    async def fragile(key: str) -> None:
        ran.append(key)
        raise RuntimeError("always")

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> str:
        await sleep("1 hour")
        await fragile.options(on_duplicate="restart_if_failed").start(key)
        return "started"

    async def main():
        async with lab.doomed([starter, fragile]) as engine:
            asking = await starter.start("k")
            await lab.settle()
            probe, commits = lab.probe(engine), 0

            def count(batch):
                nonlocal commits
                commits += 1
                if commits == at:
                    probe.hold("commit", before=not written)

            probe.judge = count
            await lab.skip("2 hours")
        async with lab.engine([starter, fragile]) as engine:
            assert await lab.result(starter.handle(asking.execution_id)) == "started"
            await lab.settle()
            record = await lab.record(engine, fragile.execution_id("k"))
            assert (record.number, record.status) == (1, Status.FAILED)

    lab.run(main)


def test_a_detached_start_that_is_given_up_has_happened(lab):
    """R42: it is a step of the turn that asks for it; whoever waits for the answer may go."""

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> str:
        task = asyncio.ensure_future(slowly.start(Parcel("p", 1)))
        await step()
        task.cancel()
        await Go
        return "ended"

    async def main():
        async with lab.engine([slowly, starter]):
            asking = await starter.start("k")
            await lab.settle()
            handle = slowly.handle(slowly.execution_id(Parcel("p", 1)))
            assert await handle.status() is Status.SUSPENDED
            await asking.interrupt()
            with pytest.raises(Interrupted):
                await lab.result(asking)
            assert await handle.status() is Status.SUSPENDED

    lab.run(main)


@pytest.mark.parametrize("end", ["purged", "failed"])
@pytest.mark.parametrize("unanswered", ["at a crash", "before it was strict"])
def test_a_detached_start_that_is_asked_for_again_begins_nothing(lab, end, unanswered):
    """R2, R42: its journal says that it was started; whatever has become of that since, it is not started once more."""
    ran: list[str] = []

    def child(on_mismatch):
        @workflow(name="child", idempotency_key=lambda key: key, on_mismatch=on_mismatch)
        async def child(key: str) -> None:
            ran.append(key)
            if end == "failed":
                raise RuntimeError("always")

        return child

    def parent(child):
        @workflow(name="parent", idempotency_key=lambda key: key)
        async def parent(key: str) -> str:
            await sleep("1 hour")
            await child.options(on_duplicate="restart_if_failed").start("c")
            await Go
            return "done"

        return parent

    async def main():
        first = child("warn" if unanswered == "before it was strict" else "raise")
        async with lab.engine([first]) as keeper, lab.doomed([starter := parent(first)]) as engine:
            asking = await starter.start("k")
            await lab.settle()
            if unanswered == "at a crash":
                lab.probe(engine).judge = lambda batch: lab.probe(engine).hold("commit")
            await lab.skip("2 hours")
            assert ran == ["c"]
            if end == "purged":
                assert await keeper.purge(older_than=0) == 1
        strict = child("raise")
        async with lab.engine([strict, starter := parent(strict)]) as engine:
            asking = starter.handle(asking.execution_id)
            await lab.skip("1 hour")
            await Go.succeed(asking.token(Go), None)
            assert await lab.result(asking) == "done"
            await lab.settle()
            kinds = [entry.kind for entry in await engine.journal(asking.execution_id)]
            assert kinds.count("sent") == 1
            assert ran == ["c"]

    lab.run(main)


@pytest.mark.parametrize("on_mismatch", ["raise", "warn"])
@pytest.mark.parametrize("left", ["given up", "asked for again", "at the end"])
def test_a_detached_start_whose_answer_nobody_waits_for_is_done_with_its_turn(lab, on_mismatch, left):
    """R42, R46: also where it is given up, or its body ends, in the turn that asks for it; and once."""

    @workflow(idempotency_key=lambda key: key, on_mismatch=on_mismatch)
    async def child(key: str) -> str:
        return key

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> str:
        task = asyncio.ensure_future(child.start("c"))
        await asyncio.sleep(0)
        if left != "at the end":
            task.cancel()
            await step()
        if left == "asked for again":
            await child.start("c")
        return "ended"

    async def main():
        async with lab.engine([child, starter]) as engine:
            asking = await starter.start("k")
            assert await lab.result(asking) == "ended"
            await lab.settle()
            assert await lab.result(child.handle(child.execution_id("c"))) == "c"
            kinds = [entry.kind for entry in await engine.journal(asking.execution_id)]
            assert kinds.count("start") == 1

    lab.run(main)


# Another release -----------------------------------------------------------------------------------------


def asking(*calls):
    """A release whose body asks for children: each with its payloads at once, one child after the other."""

    @workflow(name="asking", idempotency_key=lambda key: key)
    async def body(key: str) -> list[str]:
        said = []
        for child, payloads in calls:
            said += await asyncio.gather(*(_told(child, parcel) for parcel in payloads))
        await step()
        await Go
        return said

    return body


async def _told(child, parcel: Parcel) -> str:
    try:
        return str(await child.execute(parcel))
    except PayloadMismatchError as refused:
        return ", ".join(refused.fields)


def other_code(lab, before, after, *children, foreign=None, ends=False):
    """What the body says under the second release, after it has been parked under the first; and the letters that it got."""

    async def main():
        async with lab.engine([before, *children]):
            if foreign is not None:
                await children[0].start(foreign)
            execution = await before.start("k")
            await lab.settle()
        async with lab.engine([after, *children]) as engine:
            execution = after.handle(execution.execution_id)
            await lab.settle()
            if ends:
                handle = slowly.handle(slowly.execution_id(Parcel("p", 1)))
                await Done.succeed(handle.token(Done), 1)
            await Go.succeed(execution.token(Go), None)
            said = await lab.result(execution)
        async with lab.engine([after, *children]) as engine:
            kinds = [entry.kind for entry in await engine.journal(execution.execution_id)]
            return said, kinds.count("payload")

    return lab.run(main)


def test_a_recorded_end_of_a_child_stands_when_the_code_asks_with_another_payload(lab):
    """R2, R8: it is the same call, and what is recorded of it counts."""
    before = asking((weigh, [Parcel("p", 1)]), (weigh, [Parcel("q", 1)]))
    after = asking((weigh, [Parcel("p", 2)]), (weigh, [Parcel("q", 2)]))
    assert other_code(lab, before, after, weigh) == (["1", "1"], 0)


def test_a_child_under_way_is_joined_when_the_code_asks_with_another_payload(lab):
    """R2, R8: it is the same call."""
    before, after = asking((slowly, [Parcel("p", 1)])), asking((slowly, [Parcel("p", 2)]))
    assert other_code(lab, before, after, slowly, ends=True) == (["1"], 0)


def test_all_who_share_a_child_get_its_recorded_end_when_the_code_asks_with_another_payload(lab):
    """R2, R8: only the first of them has it recorded; what they ask today is one thing, as it was."""
    before = asking((weigh, [Parcel("p", 1), Parcel("p", 1)]), (weigh, [Parcel("p", 1)]))
    after = asking((weigh, [Parcel("p", 2), Parcel("p", 2)]), (weigh, [Parcel("p", 2)]))
    assert other_code(lab, before, after, weigh) == (["1", "1", "1"], 0)


def test_a_recorded_end_stands_where_a_child_was_put_in_front_as_well(lab):
    """R2, R8: the first call for a child is the one that has it recorded, whatever number it has by now."""
    before = asking((weigh, [Parcel("p", 1), Parcel("q", 1)]))
    after = asking((weigh, [Parcel("new", 2), Parcel("p", 2), Parcel("q", 2)]))
    assert other_code(lab, before, after, weigh) == (["2", "1", "1"], 0)


@pytest.mark.parametrize("today", [3, 1], ids=["another one", "the right one"])
def test_a_recorded_refusal_stands_when_the_code_asks_with_another_payload(lab, today):
    """R2, R8: the body went on with it."""
    before, after = asking((weigh, [Parcel("p", 2)])), asking((weigh, [Parcel("p", today)]))
    assert other_code(lab, before, after, weigh, foreign=Parcel("p", 1)) == (["grams"], 1)


def test_both_answers_to_two_payloads_of_one_body_stand_when_the_code_asks_with_others(lab):
    """R2, R8: of each call what is recorded of it."""
    before = asking((weigh, [Parcel("p", 1)]), (weigh, [Parcel("p", 2)]))
    after = asking((weigh, [Parcel("p", 3)]), (weigh, [Parcel("p", 4)]))
    assert other_code(lab, before, after, weigh) == (["1", "grams"], 1)


def test_what_today_s_code_asks_twice_with_two_payloads_is_compared(lab):
    """R2, R8: a call that only the code has is new."""
    before = asking((weigh, [Parcel("p", 1)]))
    after = asking((weigh, [Parcel("p", 2)]), (weigh, [Parcel("p", 3)]))
    assert other_code(lab, before, after, weigh) == (["1", "grams"], 1)


@pytest.mark.parametrize("strict", [True, False], ids=["becomes raise", "becomes warn"])
def test_what_is_recorded_stands_when_on_mismatch_changes(lab, strict, log):
    """R2, R8: who has been joined, and who has been refused."""

    def child(on_mismatch):
        @workflow(name="child", idempotency_key=lambda parcel: parcel.key, on_mismatch=on_mismatch)
        async def weighs(parcel: Parcel) -> int:
            return parcel.grams

        return weighs

    old, new = (child("warn"), child("raise")) if strict else (child("raise"), child("warn"))

    async def main():
        async with lab.engine([old, one := asking((old, [Parcel("p", 1)]), (old, [Parcel("p", 2)]))]):
            execution = await one.start("k")
            await lab.settle()
        async with lab.engine([new, two := asking((new, [Parcel("p", 1)]), (new, [Parcel("p", 2)]))]):
            execution = two.handle(execution.execution_id)
            await Go.succeed(execution.token(Go), None)
            assert await lab.result(execution) == (["1", "1"] if strict else ["1", "grams"])

    lab.run(main)


def test_a_detached_start_that_is_recorded_stands_when_the_code_starts_with_another_payload(lab):
    """R2, R8, R42: also where it was refused."""

    def starting(*grams):
        @workflow(name="starting", idempotency_key=lambda key: key)
        async def body(key: str) -> list[str]:
            said = []
            for each in grams:
                try:
                    await weigh.start(Parcel("p", each))
                    said.append("started")
                except PayloadMismatchError:
                    said.append("refused")
            await Go
            return said

        return body

    assert other_code(lab, starting(1, 2), starting(3, 4), weigh) == (["started", "refused"], 0)


@pytest.mark.parametrize(("foreign", "said"), [(None, "started"), (1, "grams")], ids=["its own", "somebody else's"])
def test_a_detached_start_whose_answer_was_lost_is_the_one_that_was_asked_for(corner_lab, foreign, said):
    """R2, R8, R42: its worker ends before it has the answer, and the next one has other code."""
    lab = corner_lab

    def starting(grams):
        @workflow(name="starting", idempotency_key=lambda key: key)
        async def body(key: str) -> str:
            await sleep("1 hour", name="window")
            try:
                await slowly.start(Parcel("p", grams))
            except PayloadMismatchError as refused:
                return ", ".join(refused.fields)
            return "started"

        return body

    async def main():
        async with lab.doomed([old := starting(2), slowly]) as engine:
            if foreign is not None:
                await slowly.start(Parcel("p", foreign))
            execution = await old.start("k")
            await lab.settle()
            probe = lab.probe(engine)

            def is_starting(batch):
                if any(commit.acts is not None and commit.acts.starts for commit in batch):
                    probe.hold("commit", before=False)

            probe.judge = is_starting
            await lab.skip("2 hours")
        async with lab.engine([new := starting(3), slowly]) as engine:
            assert await lab.result(new.handle(execution.execution_id)) == said
            kinds = [entry.kind for entry in await engine.journal(execution.execution_id)]
            assert kinds.count("start") == kinds.count("sent") == 1

    lab.run(main)
