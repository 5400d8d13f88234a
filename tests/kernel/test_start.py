"""Executions that a body starts: once, detached, with the commit of its turn (R42)."""

import asyncio

from perdure import Handle, workflow
from perdure._model.status import Held

from tests.kernel.driver import Play
from tests.kernel.steps import fetch, spin, store


@workflow
async def report(day: int) -> None: ...


@workflow(idempotency_key=lambda day: f"day-{day}")
async def keyed(day: int) -> None: ...


def test_a_start_goes_with_the_turn_that_asked_for_it() -> None:
    """R42: marked in the journal, and given to the engine to write."""

    async def body() -> str:
        await fetch(1)
        handle = await report.start(7)
        await store(1)
        return handle.execution_id

    play = Play(body)
    assert play.starts == []
    play.answer("fetch", 0)
    (start,) = play.starts
    assert (start.workflow, start.payload) == ("report", b'{"day":7}')
    assert play.recorded == ["activity fetch#1", "start report#1"]
    assert play.journal[-1].input.decode() == start.execution_id
    play.answer("store", 0)
    assert play.result() == start.execution_id


def test_a_start_is_made_once_whatever_is_replayed() -> None:
    """R42: and answered alike."""

    async def body() -> list[str]:
        handles: list[Handle[None]] = [await report.start(7)]
        await fetch(1)
        handles.append(await report.start(7))
        await fetch(2)
        return [handle.execution_id for handle in handles]

    play = Play(body)
    play.answer("fetch", 0)
    play.answer("fetch", 0)
    ids = [start.execution_id for start in play.starts]
    assert play.result() == ids
    assert len(set(ids)) == 2, "R1: the same payload started twice is two executions, told apart by their occurrence"
    for length in range(1, len(play.journal) + 1):
        again = play.again(upto=length)
        while not again.ended:
            again.answer(again.calls[0], 0)
        assert again.result() == ids
        assert len(again.starts) == 2 - sum(entry.kind == "start" for entry in play.journal[:length])


def test_the_same_key_is_the_same_execution() -> None:
    """R2, R42: the second start joins the first without another record."""

    async def body() -> list[str]:
        return [(await keyed.start(7)).execution_id for _ in range(2)]

    play = Play(body)
    first, second = play.result()
    assert first == second == keyed.execution_id(7)
    assert len(play.starts) == len(play.journal) == 1


def test_starts_of_concurrent_branches_are_told_apart() -> None:
    """R42: each has its own record, and its own id."""

    async def branch(x: int) -> str:
        await fetch(x)
        return (await report.start(7)).execution_id

    async def body() -> list[str]:
        return await asyncio.gather(branch(1), branch(2), branch(3))

    play = Play(body)
    for occurrence in (2, 3, 1):
        play.answer(f"fetch#{occurrence}", 0)
    assert len(set(play.result())) == 3
    assert play.again().result() == play.result()
    assert play.again().starts == []


def test_what_the_body_left_behind_starts_nothing() -> None:
    """R46: neither a task that was ready when the body ended, nor one that is cancelled for its end."""

    async def ready() -> None:
        await report.start(1)

    async def waiting() -> None:
        try:
            await fetch(1)
        finally:
            await report.start(2)

    async def body() -> str:
        task = asyncio.create_task(waiting())
        await store(1)
        return repr(asyncio.create_task(ready()) is task)

    play = Play(body)
    play.answer("store", 0)
    assert play.ended
    assert play.starts == []
    assert play.recorded == ["activity store#1"]


def test_a_turn_that_spins_starts_nothing() -> None:
    """R5, R42: it is held, and its turn is run again when it is resumed."""

    async def body() -> None:
        await fetch(1)
        await report.start(7)
        await spin()

    play = Play(body, budget=1_000)
    play.answer("fetch", 0)
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held is Held.SPINNING
    assert play.starts == []
    assert play.recorded == ["activity fetch#1"]
