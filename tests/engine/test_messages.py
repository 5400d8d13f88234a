"""Messages: in order, each taken once, by whoever waits for it when it is their turn (R42, R48)."""

import asyncio

import pytest

from perdure import (
    DurableChannel,
    DurableDeferred,
    ExecutionFinishedError,
    ExecutionNotFoundError,
    PayloadError,
    Status,
    WorkflowIOError,
    activity,
    sleep,
    workflow,
)
from perdure._model.records import MailKind

from tests.engine.lab import Gate
from tests.engine.moments import stop_at_commit

Amounts = DurableChannel.make("amounts", int)
Names = DurableChannel.make("names", str)
Go = DurableDeferred.make("go")


@activity
async def echo(n: int) -> int:
    return n


@workflow(idempotency_key=lambda key, times=3: key)
async def collect(key: str, times: int = 3) -> list[int]:
    return [await Amounts.receive() for _ in range(times)]


async def messages(lab, engine, id: str) -> list[str]:
    """The messages that lie in a mailbox."""
    record = await lab.record(engine, id)
    (history,) = await lab.probe(engine).inner.load([(record.incarnation, 0, 0)])
    return [letter.exit.decode() for letter in history.letters if letter.kind == MailKind.MESSAGE]


# Order, and once -----------------------------------------------------------------------------------------


def test_messages_of_a_sender_keep_their_order(corner_lab):
    """R48: before the first receive, while it waits, and while it is busy."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def stand() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def busy(key: str) -> list[int]:
        first = [await Amounts.receive() for _ in range(3)]
        await stand()
        return [*first, *[await Amounts.receive() for _ in range(4)]]

    async def main():
        async with lab.engine([busy]):
            handle = await busy.start("k")
            for number in range(2):
                await Amounts.send(handle.execution_id, number)
            await lab.settle()
            for number in range(2, 5):
                await Amounts.send(handle.execution_id, number)
            await lab.settle()
            for number in range(5, 7):
                await Amounts.send(handle.execution_id, number)
            gate.open()
            assert await lab.result(handle) == list(range(7))

    lab.run(main)


def test_of_several_senders_each_keeps_its_order_and_nothing_is_lost(corner_lab):
    """R48: all of them at the same time."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]):
            handle = await collect.start("k", times=30)

            async def sender(tens: int) -> None:
                for unit in range(10):
                    await Amounts.send(handle.execution_id, tens * 10 + unit)

            await asyncio.gather(*map(sender, range(3)))
            got = await lab.result(handle)
            assert sorted(got) == list(range(30))
            for tens in range(3):
                assert [n for n in got if n // 10 == tens] == list(range(tens * 10, tens * 10 + 10))

    lab.run(main)


def test_each_message_is_taken_once_by_the_receive_that_has_waited_longest(corner_lab):
    """R48."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def shared(key: str) -> list[int]:
        return await asyncio.gather(Amounts.receive(), Amounts.receive(), Amounts.receive())

    async def main():
        async with lab.engine([shared]):
            handle = await shared.start("k")
            for number in (5, 6, 7):
                await Amounts.send(handle.execution_id, number)
                await lab.settle()
            assert await lab.result(handle) == [5, 6, 7]

    lab.run(main)


def test_channels_are_apart(corner_lab):
    """R48."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def two(key: str) -> list[object]:
        return [await Names.receive(), await Amounts.receive()]

    async def main():
        async with lab.engine([two]):
            handle = await two.start("k")
            await Amounts.send(handle.execution_id, 1, id="same")
            await Names.send(handle.execution_id, "ada", id="same")
            assert await lab.result(handle) == ["ada", 1]

    lab.run(main)


def test_messages_are_not_taken_twice_after_a_restart_or_a_crash(corner_lab):
    """R48: what was taken stays taken, what was not is there."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]):
            handle = await collect.start("k", times=4)
            await Amounts.send(handle.execution_id, 1)
            await lab.settle()
        async with lab.doomed([collect]):
            await Amounts.send(handle.execution_id, 2)
        async with lab.engine([]):
            await Amounts.send(handle.execution_id, 3)
        async with lab.engine([collect]):
            handle = collect.handle(handle.execution_id)
            await Amounts.send(handle.execution_id, 4)
            assert await lab.result(handle) == [1, 2, 3, 4]

    lab.run(main)


def test_a_receive_with_a_timeout_leaves_the_message_to_the_next_one(corner_lab):
    """R48: taken when a receive waits for it, and not by one that has given up."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def patient(key: str) -> list[int | None]:
        got: list[int | None] = []
        for _ in range(4):
            try:
                async with asyncio.timeout(3_600):
                    got.append(await Amounts.receive())
            except TimeoutError:
                got.append(None)
        return got

    async def main():
        async with lab.engine([patient]):
            handle = await patient.start("k")
            await lab.skip("90 minutes")
            await Amounts.send(handle.execution_id, 1)
            await lab.skip("65 minutes")
        async with lab.engine([patient]):
            handle = patient.handle(handle.execution_id)
            await Amounts.send(handle.execution_id, 2)
            assert await lab.result(handle) == [None, 1, None, 2]

    lab.run(main)


# What is refused ---------------------------------------------------------------------------------------------


def test_a_finished_execution_takes_no_messages(corner_lab):
    """R48."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]):
            handle = await collect.start("k", times=0)
            assert await lab.result(handle) == []
            with pytest.raises(ExecutionFinishedError) as error:
                await Amounts.send(handle.execution_id, 1)
            assert error.value.execution_id == handle.execution_id

    lab.run(main)


def test_a_message_to_nobody_or_of_another_type_is_not_stored(corner_lab):
    """R18, R19: as for completions."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect], payload_limit=1_000) as engine:
            with pytest.raises(ExecutionNotFoundError):
                await Amounts.send("0" * 32, 1)
            handle = await collect.start("k", times=1)
            for wrong in ("many", None, "9" * 2_000):
                with pytest.raises(PayloadError):
                    await Amounts.send(handle.execution_id, wrong)
            with pytest.raises(PayloadError):
                await Amounts.send(handle.execution_id, 1, id="")
            assert await messages(lab, engine, handle.execution_id) == []
            await Amounts.send(handle.execution_id, 5)
            assert await lab.result(handle) == [5]

    lab.run(main)


# By id, and lost answers ----------------------------------------------------------------------------------------


def test_a_message_that_is_sent_again_under_its_id_is_one_message(corner_lab):
    """R48: also when it was taken already."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]) as engine:
            handle = await collect.start("k", times=3)
            for _ in range(2):
                await Amounts.send(handle.execution_id, 1, id="one")
            await lab.settle()
            await Amounts.send(handle.execution_id, 1, id="one")
            for _ in range(2):
                await Amounts.send(handle.execution_id, 2)
            assert await lab.result(handle) == [1, 2, 2]
            assert len(await messages(lab, engine, handle.execution_id)) == 3

    lab.run(main)


@pytest.mark.parametrize("written", [True, False])
def test_a_message_whose_answer_is_lost_is_one_message(corner_lab, written):
    """R48: sent again until it is answered; it may be that the execution has ended by then."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]) as engine:
            handle = await collect.start("k", times=2)
            lab.probe(engine).fail("deliver", times=2, written=written)
            await Amounts.send(handle.execution_id, 1)
            lab.probe(engine).fail("deliver", times=1, written=written)
            await Amounts.send(handle.execution_id, 2)
            assert await lab.result(handle) == [1, 2]
            assert len(await messages(lab, engine, handle.execution_id)) == 2

    lab.run(main)


# From a body ------------------------------------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def produce(key: str) -> str:
    id_ = collect.execution_id(key)
    for number in (1, 2):
        await Amounts.send(id_, number)
    await Go
    await Amounts.send(id_, await echo(3))
    return key


def test_a_body_sends_each_message_once_and_in_order(corner_lab):
    """R42, R48: with its turn's commit, whatever is replayed afterwards."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect, produce]) as engine:
            handle = await collect.start("k")
            sender = await produce.start("k")
            await lab.settle()
            assert len(await messages(lab, engine, handle.execution_id)) == 2
        async with lab.engine([collect, produce]) as engine:
            await Go.succeed(Go.token_for(produce, "k"), None)
            assert await lab.result(produce.handle(sender.execution_id)) == "k"
            assert await lab.result(collect.handle(handle.execution_id)) == [1, 2, 3]
            assert len(await messages(lab, engine, handle.execution_id)) == 3

    lab.run(main)


@pytest.mark.parametrize("written", [True, False])
def test_the_commit_that_carries_a_message_is_repeated_and_the_message_is_not(corner_lab, written):
    """R42: a lost answer; its receipt is the same."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect, produce]) as engine:
            handle = await collect.start("k")
            await lab.settle()
            lab.probe(engine).fail("commit", times=3, written=written)
            await produce.start("k")
            await Go.succeed(Go.token_for(produce, "k"), None)
            assert await lab.result(handle) == [1, 2, 3]
            assert await lab.finish(produce.execute("k")) == "k"
            assert len(await messages(lab, engine, handle.execution_id)) == 3

    lab.run(main)


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("written", [True, False], ids=["behind it", "before it"])
def test_a_body_that_sends_comes_to_one_end_wherever_its_worker_ends(corner_lab, at, written):
    """R41, R42, R48: between the commit that carries a message and its receipt above all."""
    lab = corner_lab

    async def main():
        async with lab.doomed([collect, produce]) as engine:
            handle = await collect.start("k")
            await lab.settle()
            stop_at_commit(lab.probe(engine), at, written=written)
            starting = asyncio.ensure_future(produce.start("k"))
            await lab.settle()
            await asyncio.gather(
                *([Go.succeed(Go.token_for(produce, "k"), None)] if starting.done() else []), return_exceptions=True
            )
            await lab.settle()
            starting.cancel()
        async with lab.engine([collect, produce]) as engine:
            sender = await produce.start("k")
            await Go.succeed(Go.token_for(produce, "k"), None)
            assert await lab.result(sender) == "k"
            assert await lab.result(collect.handle(handle.execution_id)) == [1, 2, 3]
            assert len(await messages(lab, engine, handle.execution_id)) == 3

    lab.run(main)


def test_what_becomes_of_a_message_is_answered_alike_on_replay(corner_lab):
    """R42: to a finished one, to nobody, to one that is there; it says so again when the world has changed."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def tries(key: str) -> list[str]:
        said = []
        for to in ("finished", "unknown", "there"):
            try:
                await Amounts.send(collect.execution_id(to), 1)
            except (ExecutionFinishedError, ExecutionNotFoundError) as error:
                said.append(type(error).__name__)
            else:
                said.append("sent")
        await Go
        return said

    async def main():
        async with lab.engine([collect, tries]):
            await lab.finish(collect.execute("finished", times=0))
            there = await collect.start("there", times=1)
            handle = await tries.start("k")
            assert await lab.result(there) == [1]
            await lab.settle()
        async with lab.engine([collect, tries]):
            # By now the second one is there, and the third has ended.
            await collect.start("unknown", times=1)
            await Go.succeed(Go.token_for(tries, "k"), None)
            expected = ["ExecutionFinishedError", "ExecutionNotFoundError", "sent"]
            assert await lab.result(tries.handle(handle.execution_id)) == expected
            await lab.settle()
            assert await collect.handle(collect.execution_id("unknown")).status() is Status.SUSPENDED

    lab.run(main)


def test_a_body_sends_to_itself_and_to_one_that_it_has_just_started(corner_lab):
    """R42, R48: starts come before mail in one commit."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def starter(key: str) -> int:
        other = await collect.start(key, times=1)
        await Amounts.send(other.execution_id, 5)
        await Amounts.send(starter.execution_id(key), 7)
        return await Amounts.receive()

    async def main():
        async with lab.engine([collect, starter]):
            assert await lab.finish(starter.execute("k")) == 7
            assert await lab.finish(collect.execute("k", times=1)) == [5]

    lab.run(main)


def test_messages_of_a_body_that_are_sent_at_once_keep_the_order_of_their_calls(corner_lab):
    """R48: one commit carries them all."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def burst(key: str) -> None:
        await asyncio.gather(*(Amounts.send(collect.execution_id(key), number) for number in range(20)))

    async def main():
        async with lab.engine([collect, burst]):
            handle = await collect.start("k", times=20)
            await lab.finish(burst.execute("k"))
            assert await lab.result(handle) == list(range(20))

    lab.run(main)


def test_a_body_names_no_engine(corner_lab):
    """R42: it reaches executions of its own engine only."""
    lab = corner_lab

    async def main():
        async with lab.engine([collect]) as engine:

            @workflow(idempotency_key=lambda key: key)
            async def wrong(key: str) -> str:
                try:
                    await Amounts.send(collect.execution_id(key), 1, engine=engine)
                except WorkflowIOError:
                    return "refused"
                return "?"

            engine.register(wrong)
            await collect.start("k")
            assert await lab.finish(wrong.execute("k")) == "refused"

    lab.run(main)


def test_two_bodies_that_send_to_each_other(corner_lab):
    """R42, R48: twenty messages to and fro; neither waits for the other's commit."""
    lab = corner_lab

    @workflow(idempotency_key=lambda me, other, begins: me)
    async def player(me: str, other: str, begins: bool) -> int:
        number = 0
        if begins:
            await Amounts.send(player.execution_id(other, me, False), 1)
        while number < 20:
            number = await Amounts.receive()
            if number < 21:
                await Amounts.send(player.execution_id(other, me, False), number + 1)
        return number

    async def main():
        async with lab.engine([player]):
            waits = await player.start("b", "a", False)
            begins = await player.start("a", "b", True)
            assert {await lab.result(waits), await lab.result(begins)} == {20, 21}

    lab.run(main)


# The next life ----------------------------------------------------------------------------------------------------


def test_messages_that_nobody_has_received_go_over_to_the_next_life(corner_lab):
    """R37, R48: those that one turn found together as well, in their order, each once, and known by their ids there."""
    lab = corner_lab

    @workflow(idempotency_key=lambda got: "endless")
    async def endless(got: list[int]) -> list[int]:
        got = [*got, await Amounts.receive()]
        if len(got) == 5:
            return got
        if len(got) == 3:
            await sleep("2 hours")
        return endless.continue_as_new(got)

    async def main():
        async with lab.engine([endless]) as engine:
            handle = await endless.start([])
            for number in range(4):
                await Amounts.send(handle.execution_id, number, id=f"m{number}")
            await lab.skip("1 hour")
            await Amounts.send(handle.execution_id, 3, id="m3")
        async with lab.engine([endless]) as engine:
            handle = endless.handle(handle.execution_id)
            await lab.skip("2 hours")
            await Amounts.send(handle.execution_id, 4)
            assert await lab.result(handle) == [0, 1, 2, 3, 4]
            assert len(await engine.journal(handle.execution_id)) <= 4

    lab.run(main)


@pytest.mark.parametrize("ends", ["by a timer", "by a message", "in another worker"])
def test_what_a_life_had_read_and_not_taken_goes_over_in_front_of_what_it_had_not_read(corner_lab, ends):
    """R37, R48: messages and a completion, wherever each was when the life ended; what was taken does not come again."""
    lab = corner_lab
    Note = DurableDeferred.make("note", success=str)

    @workflow(idempotency_key=lambda lives, got: "endless")
    async def endless(lives: int, got: list[int]) -> list[object]:
        if lives == 0:
            got = [await Amounts.receive()]
            if ends == "by a message":
                await Names.receive()
            else:
                await sleep("2 hours")
            endless.continue_as_new(1, got)
        return [*got, *[await Amounts.receive() for _ in range(4)], await Note]

    async def main():
        async with lab.engine([endless]) as engine:
            handle = await endless.start(0, [])
            for number in range(3):
                await Amounts.send(handle.execution_id, number)
                await lab.settle()
            await Note.succeed(handle.token(Note), "noted")
            await lab.settle()
            if ends != "in another worker":
                hold = lab.probe(engine).hold("commit", before=True)
                if ends == "by a message":
                    await Names.send(handle.execution_id, "go")
                    await lab.settle()
                else:
                    await lab.skip("2 hours")
                assert hold.kept == 1
                await Amounts.send(handle.execution_id, 3)
                hold.release()
                await lab.settle()
            execution_id = handle.execution_id
        if ends == "in another worker":
            async with lab.engine([]):
                await lab.skip("3 hours")
                await Amounts.send(execution_id, 3)
        async with lab.engine([endless]) as engine:
            await lab.settle()
            await Amounts.send(execution_id, 4)
            assert await lab.result(endless.handle(execution_id)) == [0, 1, 2, 3, 4, "noted"]

    lab.run(main)


def test_what_a_life_has_taken_does_not_go_over_though_todays_code_ends_it_earlier(corner_lab):
    """R8, R37, R48: the replay alone brings it to its end, before its mailbox is looked at."""
    lab = corner_lab

    @workflow(name="endless", idempotency_key=lambda got: "endless")
    async def old(got: list[int]) -> list[int]:
        got = [*got, await Amounts.receive()]
        await sleep("2 hours")
        return got

    @workflow(name="endless", idempotency_key=lambda got: "endless")
    async def new(got: list[int]) -> list[int]:
        got = [*got, await Amounts.receive()]
        return got if len(got) == 3 else new.continue_as_new(got)

    async def main():
        async with lab.engine([old]):
            handle = await old.start([])
            await Amounts.send(handle.execution_id, 0)
            await lab.settle()
        async with lab.engine([]):
            for number in (1, 2):
                await Amounts.send(handle.execution_id, number)
        async with lab.engine([new]):
            assert await lab.result(new.handle(handle.execution_id)) == [0, 1, 2]

    lab.run(main)


@pytest.mark.parametrize("before", [True, False], ids=["before it", "behind it"])
def test_a_message_beside_the_commit_that_begins_the_next_life_is_not_lost(corner_lab, before):
    """R37, R48: it reaches whichever life is there."""
    lab = corner_lab

    @workflow(idempotency_key=lambda lives: "endless")
    async def endless(lives: int) -> int:
        if lives == 0:
            await sleep("2 hours")
            endless.continue_as_new(1)
        return await Amounts.receive()

    async def main():
        async with lab.engine([endless]) as engine:
            handle = await endless.start(0)
            await lab.skip("1 hour")
            hold = lab.probe(engine).hold("commit", before=before)
            await lab.skip("1 hour")
            assert hold.kept == 1
            await Amounts.send(handle.execution_id, 9)
            await lab.settle()
            hold.release()
            assert await lab.result(handle) == 9

    lab.run(main)
