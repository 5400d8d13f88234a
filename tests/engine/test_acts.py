"""What a body does to others and shows of itself: with its turn's commit, once, answered alike on replay (R42)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import (
    ActivityTimeout,
    AttemptCancelled,
    DurableChannel,
    DurableDeferred,
    ExecutionNotFoundError,
    Interrupted,
    PayloadError,
    Schedule,
    Status,
    Suspended,
    TokenParsed,
    UsageError,
    WorkflowIOError,
    activity,
    current_attempt,
    current_engine,
    execution_id,
    publish,
    set_attributes,
    sleep,
    workflow,
)
from perdure._model.records import INTERRUPTED, Answer, Commit, Verdict

from tests.engine.lab import Gate, Hold, ThreadGate, until

Approval = DurableDeferred.make("approval", success=str)
Go = DurableDeferred.make("go")
Words = DurableChannel.make("words", str)

# Empty while the far side is down.
healthy: list[bool] = []


@activity
async def echo(text: str) -> str:
    return text


@activity
async def fragile() -> str:
    if not healthy:
        raise RuntimeError("the far side is down")
    return "fine"


@workflow(idempotency_key=lambda key: key)
async def patient(key: str) -> str:
    return await Approval


@workflow(idempotency_key=lambda key: key, suspend_on_failure=True)
async def careful(key: str) -> str:
    return await fragile()


@pytest.fixture(autouse=True)
def ill() -> None:
    healthy.clear()


# What it shows -------------------------------------------------------------------------------------------


def test_what_a_body_publishes_is_read_from_outside_and_the_last_word_wins(corner_lab):
    """R42: also after it has ended, and in another engine."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def shows(key: str) -> str:
        publish("progress", {"done": 0})
        publish("stage", "begun")
        publish("stage", "waiting")
        await sleep("2 hours")
        publish("progress", {"done": 1})
        await Go
        publish("progress", {"done": 2})
        return key

    async def main():
        async with lab.engine([shows]) as engine:
            handle = await shows.start("k")
            assert await handle.read("progress") == {"done": 0}
            assert await handle.read("stage", str) == "waiting"
            assert await handle.read("nothing") is None
            assert (await engine.describe(handle.execution_id)).progress == {"done": 0}
            await lab.skip("2 hours")
        async with lab.engine([]):
            handle = shows.handle(handle.execution_id)
            assert await handle.read("progress") == {"done": 1}
            with pytest.raises(PayloadError):
                await handle.read("progress", int)
            with pytest.raises(ExecutionNotFoundError):
                await shows.handle("0" * 32).read("progress")
        async with lab.engine([shows]):
            handle = shows.handle(handle.execution_id)
            await Go.succeed(handle.token(Go), None)
            await lab.result(handle)
            assert await handle.read("progress") == {"done": 2}

    lab.run(main)


def test_a_replay_publishes_nothing_again(corner_lab):
    """R42: what was shown last stays, although the body runs through the earlier words once more."""
    lab = corner_lab
    seen = []

    @workflow(idempotency_key=lambda key: key)
    async def shows(key: str) -> None:
        for number in range(3):
            publish("progress", number)
            await echo(str(number))
        await Go

    async def main():
        async with lab.engine([shows]):
            handle = await shows.start("k")
            await lab.settle()
        for _ in range(2):
            async with lab.engine([shows]) as engine:
                before = len(lab.probe(engine).commits)
                await lab.settle()
                seen.append(await shows.handle(handle.execution_id).read("progress"))
                assert [commit for commit in lab.probe(engine).commits[before:] if commit.acts is not None] == []
        assert seen == [2, 2]

    lab.run(main)


def test_attributes_are_set_and_removed_with_the_turn(corner_lab):
    """R42: what a start gave stays, None removes, and it is found by them."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def tags(key: str) -> None:
        set_attributes(stage="first", rush=True)
        await sleep("2 hours")
        set_attributes({"stage": "second", "rush": None}, count=3)
        await Go

    async def main():
        async with lab.engine([tags]) as engine:
            handle = await tags.options(attributes={"customer": "ada"}).start("k")
            info = await engine.describe(handle.execution_id)
            assert info.attributes == {"customer": "ada", "stage": "first", "rush": True}
            await lab.skip("2 hours")
        async with lab.engine([tags]) as engine:
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert info.attributes == {"customer": "ada", "stage": "second", "count": 3}
            found = [one.execution_id async for one in engine.executions(attributes={"stage": "second"})]
            assert found == [handle.execution_id]

    lab.run(main)


def test_a_turn_that_is_never_written_has_shown_nothing(corner_lab):
    """R42: all of a turn, or nothing of it."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def shows(key: str) -> None:
        await sleep("2 hours")
        publish("progress", "late")
        set_attributes(stage="late")
        await patient.start(key)
        await patient.handle(patient.execution_id("other")).interrupt()
        await sleep("2 hours")

    async def main():
        async with lab.doomed([shows, patient]) as engine:
            handle = await shows.start("k")
            other = await patient.start("other")
            await lab.skip("1 hour")
            hold = lab.probe(engine).hold("commit", before=True)
            await lab.skip("2 hours")
            assert hold.kept == 1
        async with lab.engine([]) as engine:
            info = await engine.describe(handle.execution_id)
            assert (info.progress, info.attributes) == (None, {})
            assert await patient.handle(patient.execution_id("k")).status() is None
            assert await patient.handle(other.execution_id).status() is Status.SUSPENDED
        async with lab.engine([shows, patient]) as engine:
            await lab.skip("1 minute")
            info = await engine.describe(handle.execution_id)
            assert (info.progress, info.attributes) == ("late", {"stage": "late"})
            assert await patient.handle(patient.execution_id("k")).status() is Status.SUSPENDED
            assert await patient.handle(other.execution_id).status() is Status.INTERRUPTED

    lab.run(main)


def test_what_cannot_be_shown_is_refused(corner_lab):
    """R42: by a body and by an activity alike; nothing of it is written."""
    lab = corner_lab

    def refusals() -> list[str]:
        said = []
        attempts: list[Callable[[], object]] = [
            lambda: publish("progress", object()),
            lambda: publish("", 1),
            lambda: set_attributes({"stage": ["a", "list"]}),
            lambda: publish("progress", "x" * 1_000),
            lambda: set_attributes(a="x" * 600, b="y" * 600),
        ]
        for attempt in attempts:
            try:
                attempt()
            except (PayloadError, UsageError) as error:
                said.append(type(error).__name__)
        return said

    @activity
    async def inside() -> list[str]:
        return refusals()

    @activity
    def on_a_thread() -> list[str]:
        return refusals()

    @workflow(idempotency_key=lambda key: key)
    async def shows(key: str) -> list[list[str]]:
        return [refusals(), await inside(), await on_a_thread()]

    async def main():
        async with lab.engine([shows], payload_limit=1_000) as engine:
            said = await lab.finish(shows.execute("k"))
            assert said == [["PayloadError", "DefinitionError", "UsageError", "PayloadError", "PayloadError"]] * 3
            info = await engine.describe(shows.execution_id("k"))
            assert (info.published, info.attributes) == ({}, {})

    lab.run(main)


# What an activity shows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["async", "on a thread"])
def test_what_an_activity_shows_is_there_at_once(lab, plain):
    """R42: while it runs, not with a commit of its body; the last word wins, attributes are merged."""
    gate, thread_gate = Gate(), ThreadGate()

    def show(done: int) -> None:
        publish("progress", {"done": done})
        set_attributes({"old": None}, **{f"step{done}": done})

    @activity
    async def counts() -> None:
        show(1)
        await gate.wait()
        show(2)

    @activity
    def counts_on_a_thread() -> None:
        show(1)
        thread_gate.wait()
        show(2)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        publish("progress", {"done": 0})
        await (counts_on_a_thread() if plain else counts())

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(attributes={"old": 1, "kept": True}).start("k")
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.progress, info.attributes) == ({"done": 1}, {"kept": True, "step1": 1})
            assert info.status is Status.RUNNING
            gate.open()
            thread_gate.open()
            await lab.result(handle)
            info = await engine.describe(handle.execution_id)
            assert (info.progress, info.attributes) == ({"done": 2}, {"kept": True, "step1": 1, "step2": 2})
            assert [step[0] for step in await lab.steps(engine, handle.execution_id)] == ["act", "activity"]

    lab.run(main)


def test_an_attempt_that_is_made_again_shows_it_again(lab):
    """R42: done at once and by every attempt, where a body does it once."""

    @activity(retry=Schedule.recurs(1))
    async def shows() -> None:
        publish(f"attempt {current_attempt()}", True)
        publish("progress", current_attempt())
        set_attributes({f"attempt {current_attempt()}": True})
        if current_attempt() == 1:
            raise RuntimeError("once more")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await shows()

    async def main():
        async with lab.engine([work]) as engine:
            await lab.finish(work.execute("k"))
            info = await engine.describe(work.execution_id("k"))
            assert info.published == {"attempt 1": True, "attempt 2": True, "progress": 2}
            assert info.attributes == {"attempt 1": True, "attempt 2": True}

    lab.run(main)


def test_an_activity_finds_what_it_has_shown(lab):
    """R42: it is written before anything else that the activity asks of its engine is done."""
    seen = []

    async def look(number: int) -> None:
        handle = work.handle(execution_id())
        publish("progress", number)
        seen.append(await handle.read("progress"))
        set_attributes(stage=number)
        seen.append((await current_engine().describe(execution_id())).attributes["stage"])

    @activity
    async def inside() -> None:
        await look(1)

    @activity
    def on_a_thread() -> None:
        asyncio.run(look(2))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await inside()
        await on_a_thread()

    async def main():
        async with lab.engine([work]):
            await lab.finish(work.execute("k"))
            assert seen == [1, 1, 2, 2]

    lab.run(main)


def test_what_an_activity_shows_is_written_before_its_result_is_recorded(lab):
    """R42: also if the store takes its time, and whatever the body shows behind it has the last word."""

    @activity
    async def shows() -> str:
        publish("progress", "activity")
        publish("of the activity", 1)
        return "done"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        said = await shows()
        publish("progress", "body")
        return said

    async def main():
        async with lab.doomed([work]) as engine:
            handle = await work.start("k")
            probe = lab.probe(engine)
            probe.fail("commit", times=3)
            await lab.settle()
            assert await handle.read("progress") == "body"
            commits = [one for one in probe.commits if one.acts is not None or one.entries]
            seen = [(sorted(one.acts.published) if one.acts else [], len(one.entries)) for one in commits]
            first, last = seen.index((["of the activity", "progress"], 0)), seen.index((["progress"], 2))
            assert first < last
        async with lab.engine([work]):
            assert await lab.result(work.handle(handle.execution_id)) == "done"
            assert await work.handle(handle.execution_id).read("of the activity") == 1

    lab.run(main)


async def end_behind_the_back_of(lab, engine, how, execution_id, work) -> None:
    """End an execution as another process would, and begin its next life."""
    await lab.probe(engine).inner.interrupt_unsafe(execution_id, INTERRUPTED)
    if how == "restarted":
        async with lab.engine([work]) as other:
            await work.options(on_duplicate="restart_if_failed", engine=other).start("k")
    elif how == "rewound":
        async with lab.engine([]) as other:
            await other.rewind(execution_id, to=0)


@pytest.mark.parametrize("plain", [False, True], ids=["async", "on a thread"])
@pytest.mark.parametrize("how", ["ended", "restarted", "rewound"])
def test_an_attempt_of_a_life_that_is_over_shows_nothing(lab, how, plain):
    """R37, R42: decided in the transaction that would write it; the attempt is told that it is over."""
    gate, thread_gate = Gate(), ThreadGate()
    told = []

    def show() -> None:
        publish("progress", "late")
        set_attributes(stage="late")

    @activity
    async def slow(key: str) -> None:
        publish("progress", "in time")
        await gate.wait()
        try:
            show()
            await current_engine().describe(execution_id())
        except AttemptCancelled:
            told.append("over")

    @activity
    def slow_on_a_thread(key: str) -> None:
        publish("progress", "in time")
        thread_gate.wait()
        try:
            show()
        except AttemptCancelled:
            told.append("over")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        if not lives:
            await (slow_on_a_thread(key) if plain else slow(key))
        await Go
        return key

    lives = []

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            lives.append(1)
            await end_behind_the_back_of(lab, engine, how, handle.execution_id, work)
            gate.open()
            thread_gate.open()
            await until(lambda: told)
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.progress, info.attributes) == ("in time" if how == "ended" else None, {})
            assert told == ["over"]

    lab.run(main)


def test_an_attempt_of_an_execution_that_was_taken_over_shows_nothing(file_lab):
    """R41, R42: its worker was taken for dead; the next one's attempt has the word."""
    lab = file_lab
    gate = Gate()
    told = []

    @activity
    async def shows() -> None:
        me = len(told)
        told.append("began")
        publish("progress", me)
        if me == 0:
            await gate.wait()
            try:
                publish("progress", "late")
                await current_engine().describe(execution_id())
            except AttemptCancelled:
                told[0] = "over"

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await shows()
        await Go

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            async with lab.engine([work]) as other:
                lab.probe(engine).inner.abandon(lab.service(engine).worker_id)
                await lab.notice()
                await lab.skip("1 minute")
                gate.open()
                await lab.settle()
                assert told == ["over", "began"]
                assert (await other.describe(handle.execution_id)).progress == 1

    lab.run(main)


def test_an_attempt_that_is_over_shows_nothing(lab):
    """R12, R42: its function goes on, on a thread that nobody waits for, and hears of it."""
    gate, busy = ThreadGate(), Gate()
    told = []

    @activity
    async def other() -> None:
        await busy.wait()

    @activity(timeout="30 seconds")
    def slow() -> None:
        publish("progress", 1)
        gate.wait()
        try:
            publish("progress", 2)
        except AttemptCancelled:
            told.append("publish")
        try:
            set_attributes(late=True)
        except AttemptCancelled:
            told.append("set_attributes")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        try:
            await slow()
        except ActivityTimeout:
            await other()

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await gate.reached()
            await lab.skip("1 minute")
            gate.open()
            await until(lambda: len(told) == 2)
            await lab.settle()
            info = await engine.describe(handle.execution_id)
            assert (info.status, info.progress, info.attributes) == (Status.RUNNING, 1, {})
            busy.open()

    lab.run(main)


def test_a_thread_that_shows_something_is_let_go_with_its_attempt(lab):
    """R12, R42: while the store does not answer, its timeout ends the wait."""
    told = []

    @activity(timeout="30 seconds")
    def slow() -> None:
        try:
            publish("progress", 1)
        except AttemptCancelled as error:
            # Whether it is written nobody knows at that moment, and nobody says that it is not.
            told.append("whether" in str(error))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await slow()
        except ActivityTimeout:
            return "timed out"
        return "shown"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            probe = lab.probe(engine)
            await until(lambda: [attempt for attempt in lab.service(engine).at_work if attempt.on_thread])
            hold = probe.hold("commit", before=True)
            await until(lambda: hold.kept)
            lab.clock.jump(lab.clock.now() + 30_000)
            await until(lambda: told)
            hold.release()
            assert await lab.result(handle) == "timed out"
            assert told == [True]

    lab.run(main)


@pytest.mark.parametrize("end", ["timeout", "interrupt_unsafe"])
def test_an_attempt_ends_in_the_very_moment_in_which_what_it_shows_is_answered(lab, end):
    """R11, R42: the answer and the end meet in one pass of the loop, and the function is cancelled."""
    gate = Gate()
    ended = []

    @activity(timeout="30 seconds")
    async def slow() -> None:
        await gate.wait()
        publish("progress", 1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        try:
            await slow()
        except ActivityTimeout:
            return "timed out"
        return "shown"

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            probe = lab.probe(engine)
            answer = probe.hold("commit")
            gate.open()
            await until(lambda: answer.kept)
            if end == "timeout":
                answer.release()
                lab.clock.jump(lab.clock.now() + 30_000)
                assert await lab.result(handle) == "timed out"
            else:
                unsafe = probe.hold("interrupt_unsafe")
                interrupting = asyncio.ensure_future(engine.interrupt_unsafe(handle.execution_id))
                await until(lambda: unsafe.kept)
                answer.release()
                unsafe.release()
                await interrupting
            await lab.settle()
            assert ended == ["slow"]
            assert len(lab.service(engine).runners) == 0
            assert await handle.read("progress") == 1

    lab.run(main)


@pytest.mark.parametrize("answered", [True, False], ids=["written", "on its way"])
def test_the_clean_up_of_an_attempt_still_asks_its_engine(lab, answered):
    """R11, R42: what it has shown at its timeout is the store's affair, and keeps nothing from being done."""
    said = []

    @activity(timeout="5 seconds")
    async def cleans(token: str) -> None:
        publish("progress", 1)
        try:
            await asyncio.Event().wait()
        finally:
            with pytest.raises(AttemptCancelled):
                publish("progress", 2)
            said.append(await Approval.succeed(token, "cleaned up"))

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        with contextlib.suppress(ActivityTimeout):
            await cleans(str(Approval.token()))
        return await Approval

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            shown: list[Hold] = []
            if not answered:
                # As soon as it is sent.
                probe.judge = lambda batch: shown.append(probe.hold("commit", before=True)) if shows(batch) else None
            handle = await work.start("k")
            await lab.settle()
            lab.clock.jump(lab.clock.now() + 5_000)
            await lab.settle()
            assert said == [True]
            for hold in shown:
                hold.release()
            assert await lab.result(handle) == "cleaned up"
            assert await handle.read("progress") == 1

    def shows(batch: list[Commit]) -> bool:
        return any(one.acts is not None and one.acts.published for one in batch)

    lab.run(main)


def test_what_is_shown_faster_than_it_is_written_is_one_commit(lab):
    """R42: the last word wins, attributes are merged, whichever activity of the execution says it."""
    gate = Gate()

    @activity
    async def floods(me: str) -> None:
        publish("progress", "begun")
        await gate.wait()
        for number in range(500):
            publish("progress", number)
            publish(me, number)
            set_attributes({"old": None, f"{me}{number % 3}": number})
            await asyncio.sleep(0)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await asyncio.gather(floods("a"), floods("b"))

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.options(attributes={"old": 1}).start("k")
            await lab.settle()
            probe = lab.probe(engine)
            before = len(probe.commits)
            hold = probe.hold("commit", before=True)
            gate.open()
            await lab.settle()
            hold.release()
            await lab.result(handle)
            shown = [one for one in probe.commits[before:] if one.acts is not None]
            assert len(shown) == 2
            info = await engine.describe(handle.execution_id)
            assert info.published == {"progress": 499, "a": 499, "b": 499}
            assert info.attributes == {"a0": 498, "a1": 499, "a2": 497, "b0": 498, "b1": 499, "b2": 497}

    lab.run(main)


def test_what_an_activity_shows_keeps_its_place_among_the_words_of_the_body(lab):
    """R42: one order, although the store takes its time and what comes together is one commit."""
    shows_on, shows_last, answers = Gate(), Gate(), Gate()

    @activity
    async def shows() -> None:
        await shows_on.wait()
        publish("progress", 1)
        await asyncio.sleep(0)
        publish("progress", 2)
        await shows_last.wait()
        publish("progress", 4)
        publish("progress", 5)

    @activity
    async def other() -> None:
        await answers.wait()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        showing = asyncio.create_task(shows())
        await other()
        publish("progress", 3)
        await showing
        await Go

    async def main():
        async with lab.engine([work]) as engine:
            handle = await work.start("k")
            await lab.settle()
            probe = lab.probe(engine)
            before = len(probe.commits)
            hold = probe.hold("commit", before=True)
            for gate in (shows_on, answers, shows_last):
                gate.open()
                await lab.settle()
            hold.release()
            await lab.settle()
            said = [one.acts.published["progress"] for one in probe.commits[before:] if one.acts is not None]
            assert said == [b"1", b"2", b"3", b"5"]
            assert await handle.read("progress") == 5

    lab.run(main)


def test_what_a_busy_store_takes_later_is_still_written_in_its_order(lab, monkeypatch):
    """R42: what is sent again goes before what has been shown since."""

    @activity
    async def shows() -> None:
        publish("progress", 1)
        await until(lambda: busy)
        publish("progress", 2)

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> None:
        await shows()
        await Go

    busy = []

    async def main():
        async with lab.engine([work]) as engine:
            probe = lab.probe(engine)
            commit = probe.inner.commit

            async def once_busy(worker_id: str, batch: list[Commit]) -> list[Answer]:
                if busy or not any(one.acts for one in batch):
                    return await commit(worker_id, batch)
                busy.append(True)
                # Until the next word waits behind this one.
                await until(lambda: lab.service(engine).committer.last_waiting(batch[0].execution_id))
                return [Answer(Verdict.BUSY) for _ in batch]

            monkeypatch.setattr(probe.inner, "commit", once_busy)
            handle = await work.start("k")
            await lab.settle()
            said = [one.acts.published["progress"] for one in probe.commits if one.acts is not None]
            assert said == [b"1", b"1", b"2"]
            assert await handle.read("progress") == 2

    lab.run(main)


# What it does to others --------------------------------------------------------------------------------------


def test_a_body_completes_a_deferred_of_another_once(corner_lab):
    """R42: it hears whether it counted, and hears the same on every replay."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def answers(key: str) -> list[bool]:
        token = Approval.token_for(patient, key)
        said = [await Approval.succeed(token, "ada"), await Approval.succeed(token, "bob")]
        await Go
        return said

    async def main():
        async with lab.engine([patient, answers]) as engine:
            handle = await patient.start("k")
            sender = await answers.start("k")
            assert await lab.result(handle) == "ada"
            await lab.settle()
            kinds = [step[:2] for step in await lab.steps(engine, sender.execution_id)]
            assert kinds.count(("sent", "complete:approval")) == 2
        async with lab.engine([patient, answers]) as engine:
            await Go.succeed(Go.token_for(answers, "k"), None)
            assert await lab.result(answers.handle(sender.execution_id)) == [True, False]
            assert await lab.steps(engine, handle.execution_id) == [("deferred", "approval", 0)]

    lab.run(main)


@pytest.mark.parametrize("fails", ["lost", "unwritten", "crash"])
def test_a_completion_from_a_body_says_true_though_its_commit_s_answer_is_lost(corner_lab, fails):
    """R42: the repeat, or the next worker, meets its own letter, although the other execution has ended by it."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def answers(key: str) -> bool:
        await sleep("2 hours")
        return await Approval.succeed(Approval.token_for(patient, key), "ada")

    async def main():
        async with lab.engine([patient]) as engine:
            handle = await patient.options(engine=engine).start("k")
            await lab.settle()
        async with lab.doomed([answers]) as engine:
            sender = await answers.start("k")
            await lab.skip("1 hour")
            if fails == "crash":
                lab.probe(engine).hold("commit")
            else:
                lab.probe(engine).fail("commit", times=2, written=fails == "lost")
            await lab.skip("1 hour")
            if fails != "crash":
                assert await lab.finish(answers.execute("k"))
        async with lab.engine([patient, answers]):
            assert await lab.result(patient.handle(handle.execution_id)) == "ada"
            assert await lab.result(answers.handle(sender.execution_id)) is True

    lab.run(main)


def test_a_completion_to_nobody_says_so_on_every_replay(corner_lab):
    """R18, R42."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def answers(key: str) -> str:
        try:
            await Approval.succeed(Approval.token_for(patient, key), "ada")
        except ExecutionNotFoundError:
            said = "nobody"
        else:
            said = "somebody"
        await Go
        return said

    async def main():
        async with lab.engine([answers]):
            sender = await answers.start("k")
            await lab.settle()
        async with lab.engine([answers, patient]):
            await patient.start("k")
            await Go.succeed(Go.token_for(answers, "k"), None)
            assert await lab.result(answers.handle(sender.execution_id)) == "nobody"
            await lab.settle()
            assert await patient.handle(patient.execution_id("k")).status() is Status.SUSPENDED

    lab.run(main)


def test_a_body_completes_its_own_deferred(corner_lab):
    """R42: its own mail, carried by the commit that would have suspended it."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def talks(key: str) -> list[object]:
        counts = await Approval.succeed(Approval.token(), "myself")
        return [counts, await Approval]

    async def main():
        async with lab.engine([talks]):
            assert await lab.finish(talks.execute("k")) == [True, "myself"]

    lab.run(main)


def test_a_body_interrupts_another_once(corner_lab):
    """R29, R42: nothing on unknown or finished ones."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def stops(key: str) -> str:
        for other in (key, "unknown", "finished"):
            await patient.handle(patient.execution_id(other)).interrupt()
        await Go
        return "done"

    async def main():
        async with lab.engine([patient, stops]):
            finished = await patient.start("finished")
            await Approval.succeed(finished.token(Approval), "ada")
            await lab.result(finished)
            handle = await patient.start("k")
            sender = await stops.start("k")
            with pytest.raises(Interrupted):
                await lab.result(handle)
        async with lab.engine([patient, stops]):
            # One that begins under that id after the turn is not interrupted by its replay.
            later = await patient.start("unknown")
            await Go.succeed(Go.token_for(stops, "k"), None)
            assert await lab.result(stops.handle(sender.execution_id)) == "done"
            await lab.settle()
            assert await later.status() is Status.SUSPENDED

    lab.run(main)


def test_a_body_interrupts_itself(corner_lab):
    """R29, R42."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def gives_up(key: str) -> None:
        await gives_up.handle(gives_up.execution_id(key)).interrupt()
        await Approval

    async def main():
        async with lab.engine([gives_up]):
            with pytest.raises(Interrupted):
                await lab.finish(gives_up.execute("k"))

    lab.run(main)


def test_a_body_resumes_one_that_is_held_and_leaves_others_alone(corner_lab):
    """R36, R42."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def moves(key: str) -> str:
        await careful.handle(careful.execution_id(key)).resume()
        await patient.handle(patient.execution_id(key)).resume()
        await careful.handle("0" * 32).resume()
        await Go
        return "done"

    async def main():
        async with lab.engine([careful, patient, moves]) as engine:
            held, waits = await careful.start("k"), await patient.start("k")
            await lab.settle()
            assert (await engine.describe(held.execution_id)).held == "FAILURE"
            healthy.append(True)
            sender = await moves.start("k")
            assert await lab.result(held) == "fine"
            assert await waits.status() is Status.SUSPENDED
            healthy.clear()
            again = await careful.start("again")
            await lab.settle()
        async with lab.engine([careful, patient, moves]):
            await Go.succeed(Go.token_for(moves, "k"), None)
            assert await lab.result(moves.handle(sender.execution_id)) == "done"
            await lab.settle()
            assert await careful.handle(again.execution_id).status() is Status.SUSPENDED

    lab.run(main)


def test_a_body_reads_no_other_execution(corner_lab):
    """R42: whatever it found would be another one on replay."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def curious(key: str) -> list[str]:
        engine, handle = current_engine(), patient.handle(patient.execution_id(key))

        async def listing() -> None:
            async for _ in engine.executions():
                pass

        said = []
        reads: list[Callable[[], Awaitable[Any]]] = [
            handle.poll,
            handle.status,
            handle.result,
            lambda: handle.read("progress"),
            handle.explain,
            lambda: engine.poll(handle.execution_id),
            lambda: engine.describe(handle.execution_id),
            lambda: engine.journal(handle.execution_id),
            listing,
        ]
        for read in reads:
            try:
                await read()
            except WorkflowIOError:
                said.append("refused")
            else:
                said.append("read")
        return said

    async def main():
        async with lab.engine([curious, patient]):
            await patient.start("k")
            assert await lab.finish(curious.execute("k")) == ["refused"] * 9

    lab.run(main)


@workflow(idempotency_key=lambda key: key)
async def echoing(key: str) -> str:
    return key


async def look(handle) -> dict[str, object]:
    """Every call that looks at an execution."""
    engine = current_engine()
    return {
        "poll": await handle.poll() is None or isinstance(await patient.poll(handle.execution_id), Suspended),
        "status": await handle.status() is not None,
        "explain": "patient" in await handle.explain(),
        "describe": (await engine.describe(handle.execution_id)).workflow,
        "journal": isinstance(await engine.journal(handle.execution_id), list),
        "executions": len([one async for one in engine.executions(workflow=patient)]),
    }


async def complete(handle) -> dict[str, object]:
    """Every call that completes something, or waits for it."""
    return {
        "token": TokenParsed.from_string(Approval.token()).execution_id == execution_id(),
        "succeed": await Approval.succeed(handle.token(Approval), "ada"),
        "again": await Approval.succeed(handle.token(Approval), "bob"),
        "result": await handle.result(),
        "execute": await echoing.execute("x"),
    }


async def move(key: str) -> dict[str, object]:
    """Every call that ends an execution, or moves it."""
    doomed = await patient.start(f"{key}/doomed")
    await doomed.interrupt()
    with pytest.raises(Interrupted):
        await doomed.result()
    held = careful.handle(careful.execution_id("k"))
    healthy.append(True)
    await held.resume()
    return {"resume": await held.result()}


async def tell() -> dict[str, object]:
    """Every call that says something."""
    await Words.send(execution_id(), "hello")
    with pytest.raises(ExecutionNotFoundError):
        await Words.send("0" * 32, "hello")
    publish("progress", "asked")
    set_attributes(stage="asked")
    described = await current_engine().describe(execution_id())
    return {"publish": described.progress, "set_attributes": described.attributes}


@pytest.mark.parametrize("plain", [False, True], ids=["async", "on a thread"])
def test_in_an_activity_all_of_them_are_ordinary_calls_from_outside(lab, plain):
    """R42: done at once, not with a commit, and again by the next attempt."""

    async def ask(key: str) -> dict[str, object]:
        handle = await patient.start(key)
        return await look(handle) | await complete(handle) | await move(key) | await tell()

    @activity
    async def inside(key: str) -> dict[str, object]:
        return await ask(key)

    @activity
    def on_a_thread(key: str) -> dict[str, object]:
        return asyncio.run(ask(key))

    @workflow(idempotency_key=lambda key: key)
    async def asking(key: str) -> dict[str, object]:
        said = await (on_a_thread(key) if plain else inside(key))
        return said | {"send": await Words.receive()}

    async def main():
        async with lab.engine([asking, patient, careful, echoing]) as engine:
            await careful.start("k")
            await lab.settle()
            assert await lab.finish(asking.execute("k")) == {
                "poll": True, "status": True, "explain": True, "describe": "patient", "journal": True, "executions": 1,
                "token": True, "succeed": True, "again": False, "result": "ada", "execute": "x", "resume": "fine",
                "publish": "asked", "set_attributes": {"stage": "asked"}, "send": "hello",
            }  # fmt: skip
            steps = await lab.steps(engine, asking.execution_id("k"))
            assert [step[0] for step in steps if step[0] != "message"] == ["activity"]

    lab.run(main)


# Wherever its worker ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("written", [True, False], ids=["behind it", "before it"])
def test_acts_are_done_once_wherever_the_worker_ends(corner_lab, at, written):
    """R41, R42: everything at once, at every commit in turn."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def counts(key: str) -> int:
        heard = 0
        try:
            while True:
                async with asyncio.timeout(7_200):
                    await Approval
                heard += 1
                return heard
        except TimeoutError:
            return -1

    @workflow(idempotency_key=lambda key: key)
    async def busy(key: str) -> list[object]:
        publish("progress", 1)
        await counts.start(key)
        set_attributes(stage="one")
        first = await Approval.succeed(Approval.token_for(counts, key), "ada")
        publish("progress", 2)
        await echo("between")
        second = await Approval.succeed(Approval.token_for(counts, key), "bob")
        set_attributes(stage="two")
        publish("progress", 3)
        return [first, second]

    async def main():
        async with lab.doomed([counts, busy]) as engine:
            probe, commits = lab.probe(engine), 0

            def count(batch):
                nonlocal commits
                commits += 1
                if commits == at:
                    probe.hold("commit", before=not written)

            probe.judge = count
            starting = asyncio.ensure_future(busy.start("k"))
            await lab.settle()
            starting.cancel()
        async with lab.engine([counts, busy]) as engine:
            assert await lab.finish(busy.execute("k")) == [True, False]
            assert await lab.finish(counts.execute("k")) == 1
            info = await engine.describe(busy.execution_id("k"))
            assert (info.progress, info.attributes) == (3, {"stage": "two"})

    lab.run(main)
