"""The end of a body: what it left behind is cancelled, comes to rest, and has no effect (R46)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import sleep
from perdure._model.status import Held

from tests.kernel.driver import Play
from tests.kernel.steps import begin, fetch, spin, store


def test_tasks_that_are_left_behind_are_cancelled_and_run_to_rest() -> None:
    """R46: with everything that follows from it."""
    trace: list[str] = []

    async def cleaning(event: asyncio.Event) -> None:
        await event.wait()
        trace.append("cleaned")

    async def side() -> None:
        event = asyncio.Event()
        try:
            await fetch(1)
        except asyncio.CancelledError:
            trace.append("cancelled")
            task = asyncio.create_task(cleaning(event))
            event.set()
            await task
            trace.append("rested")
            raise

    async def body() -> str:
        begin(side())
        await store(0)
        return "done"

    play = Play(body)
    play.answer("store", 0)
    assert play.result() == "done"
    assert trace == ["cancelled", "cleaned", "rested"]
    assert play.waiting == play.timer_names == []


@pytest.mark.parametrize("ready", [False, True], ids=["waiting", "ready"])
def test_what_they_ask_for_has_no_effect(ready: bool) -> None:
    """R46: whether they are cancelled where they wait, or were about to go on when the body ended."""
    trace: list[str] = []

    async def side() -> None:
        try:
            if not ready:
                await fetch(1)
        finally:
            trace.append("asks")
            begin(asyncio.sleep(99))
            await asyncio.gather(fetch(2), sleep("1 hour"), asyncio.sleep(61))
            trace.append("never")

    async def body() -> str:
        if not ready:
            begin(side())
        await store(0)
        if ready:
            begin(side())
        return "done"

    play = Play(body)
    before = list(play.given)
    play.answer("store", 0)
    assert play.result() == "done"
    assert trace == ["asks"]
    assert play.given == before
    assert play.recorded == ["activity store#1"]
    assert play.waiting == play.timer_names == []


def test_one_that_swallows_its_cancellation_ends_with_the_body_all_the_same(is_quiet: Callable[[], bool]) -> None:
    """R46: it waits for something that will never come, and its frame is closed."""
    trace: list[str] = []

    async def stubborn() -> None:
        try:
            while True:
                try:
                    await fetch(1)
                except asyncio.CancelledError:
                    trace.append("no")
        finally:
            trace.append("closed")

    async def body() -> str:
        begin(stubborn())
        await store(0)
        return "done"

    play = Play(body)
    play.answer("store", 0)
    assert play.result() == "done"
    assert trace == ["no", "closed"]
    assert is_quiet()


def test_a_body_that_swallows_a_cancellation_goes_on(is_quiet: Callable[[], bool]) -> None:
    """Asyncio's own rules: a lost race may be ignored by who loses it."""

    async def stubborn() -> str:
        try:
            await fetch(1)
        except asyncio.CancelledError:
            return f"stored {await store(1)}"
        return "?"

    async def body() -> str:
        task = asyncio.create_task(stubborn())
        await store(0)
        task.cancel()
        return await task

    play = Play(body)
    play.answer("store", 0)
    assert [call.name for call in play.withdrawn] == ["fetch"]
    play.answer("store", 7)
    assert play.result() == "stored 7"
    assert play.again().standing() == play.standing()
    assert is_quiet()


@pytest.mark.parametrize("error", [ValueError("wrong"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_a_body_raises_is_its_result(error: BaseException) -> None:
    """R9, R32: SystemExit and KeyboardInterrupt too; whoever drives the kernel lives."""

    async def body() -> None:
        await fetch(1)
        raise error

    play = Play(body)
    play.answer("fetch", 0)
    for each in (play, play.again()):
        assert each.ended
        with pytest.raises(type(error)):
            each.result()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_end_of_the_process_in_a_task_is_a_failure_of_that_task(error: BaseException) -> None:
    """R9: its siblings and the body go on."""

    async def side() -> None:
        await fetch(1)
        raise error

    async def body() -> Any:
        task = asyncio.create_task(side())
        await asyncio.wait([task])
        return type(task.exception()), await store(1)

    play = Play(body)
    play.answer("fetch", 0)
    play.answer("store", 5)
    assert play.result() == (type(error), 5)
    assert play.again().result() == play.result()


def test_a_body_may_end_at_once() -> None:
    """R5: without a single step."""

    async def body() -> str:
        return "done"

    assert Play(body).result() == "done"


def test_an_ended_execution_takes_nothing_more() -> None:
    """R17: a late result, a late timer."""

    async def body() -> str:
        begin(fetch(1))
        begin(asyncio.sleep(5))
        await store(0)
        return "done"

    play = Play(body)
    call, timer = play.call("fetch"), play.timer("sleep:5")
    play.answer("store", 0)
    assert not play.answer(call, 0)
    assert not play.fire(timer)
    assert play.recorded == ["activity store#1"]


def test_what_is_left_behind_and_spins_holds_the_execution(is_quiet: Callable[[], bool]) -> None:
    """R5, R46: its frames are closed all the same."""
    trace: list[str] = []

    async def spinning() -> None:
        try:
            await fetch(1)
        except asyncio.CancelledError:
            try:
                await spin()
            finally:
                trace.append("closed")

    async def body() -> str:
        begin(spinning())
        await store(0)
        return "done"

    play = Play(body, budget=1_000)
    play.answer("store", 0)
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held is Held.SPINNING
    assert trace == ["closed"]
    play.close()
    del play
    assert is_quiet()


def test_changed_code_may_end_before_its_journal_does() -> None:
    """R8: what it does not ask for any more has no effect on its result."""

    async def old() -> int:
        return await fetch(1) + await fetch(2)

    async def new() -> int:
        return await fetch(1)

    play = Play(old)
    play.answer("fetch", 10)
    play.answer("fetch", 20)
    again = play.again(new)
    assert again.result() == 10
    assert again.recorded == play.recorded
