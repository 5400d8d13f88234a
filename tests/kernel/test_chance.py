"""What a body takes for chance, time and identity: the same on every replay, and never twice the same (R38, R39)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from perdure import current_attempt, execution_id, now, random, sleep, uuid4

from tests.kernel.driver import BEGAN_AT, EXECUTION_ID, Play
from tests.kernel.steps import fetch, store


def test_now_is_the_time_of_the_last_event() -> None:
    """R38: in the first turn the time of the beginning; aware, in UTC; it stands still between two awaits."""

    async def body() -> list[datetime]:
        times = [now(), now()]
        await fetch(1)
        times.append(now())
        await sleep(5)
        return [*times, now()]

    play = Play(body)
    play.now += 1_234
    play.answer("fetch", 0)
    play.pass_time(10_000)
    began = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert play.result() == [began, began, began + timedelta(milliseconds=1_234), began + timedelta(milliseconds=6_234)]
    assert play.again().result() == play.result()


def test_now_never_goes_back() -> None:
    """R38: a clock that was put back is not believed."""

    async def body() -> list[datetime]:
        times = [now()]
        for x in range(3):
            await fetch(x)
            times.append(now())
        return times

    play = Play(body)
    for instant in (BEGAN_AT + 9, BEGAN_AT + 4, BEGAN_AT - 100):
        play.now = instant
        play.answer("fetch", 0)
    assert [entry.at - BEGAN_AT for entry in play.journal] == [9, 9, 9]
    assert play.result() == sorted(play.result())
    assert play.again().result() == play.result()


def test_who_one_is_does_not_change() -> None:
    """API 7: the body knows its execution; the attempt of a body is the first."""

    async def body() -> tuple[str, int]:
        return execution_id(), current_attempt()

    assert Play(body).result() == (EXECUTION_ID, 1)


async def _drawing() -> list[Any]:
    drawn: list[Any] = [uuid4(), uuid4(), random().random()]
    await fetch(1)
    drawn += [uuid4(), random().randrange(2**64), uuid4("invoice")]
    await asyncio.gather(store(1), store(2))
    drawn += [uuid4(), uuid4("invoice"), random("dice").random(), uuid4("receipt")]
    await sleep(5)
    return [*drawn, uuid4(), uuid4("invoice")]


def _drawn(play: Play) -> list[Any]:
    while not play.ended:
        if play.calls:
            play.answer(play.calls[0], 0)
        else:
            play.pass_time(60_000)
    result = play.result()
    assert isinstance(result, list)
    return result


def test_what_is_drawn_is_the_same_on_every_replay() -> None:
    """R39: drawn from the seed, the last event and the number of the draw, or from the seed, a name and a number."""
    play = Play(_drawing)
    drawn = _drawn(play)
    for length in range(len(play.journal) + 1):
        assert _drawn(play.again(upto=length)) == drawn


def test_nothing_is_drawn_twice() -> None:
    """R39: neither in a turn, nor in two, nor under a name; nor by another incarnation."""
    drawn = _drawn(Play(_drawing)) + _drawn(Play(_drawing, seed=b"another"))
    assert len({str(each) for each in drawn}) == len(drawn) == 24
    assert {each.version for each in drawn if hasattr(each, "version")} == {4}


def test_what_is_drawn_does_not_depend_on_who_else_draws() -> None:
    """R39: a named draw depends on its name alone, and stays when the code around it changes."""

    async def old() -> Any:
        await fetch(1)
        return uuid4("invoice"), uuid4("invoice")

    async def new() -> Any:
        uuid4(), random(), uuid4("other")
        await fetch(1)
        uuid4()
        await store(1)
        return uuid4("invoice"), uuid4("invoice")

    play, changed = Play(old), Play(new)
    play.answer("fetch", 0)
    changed.answer("fetch", 0)
    changed.answer("store", 0)
    assert changed.result() == play.result()


def test_kept_results_do_not_make_draws_repeat() -> None:
    """R8, R39: a kept entry is given as an event of its own, and neither time nor seq goes back with it."""

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(2), store(0))

    async def new() -> list[Any]:
        drawn: list[Any] = [uuid4(), now()]
        await store(0)
        drawn += [uuid4(), now()]
        await fetch(1)
        drawn += [uuid4(), now()]
        await fetch(2)
        return [*drawn, uuid4(), now()]

    play = Play(old)
    play.now += 100
    play.answer("fetch#1", 0)
    play.now += 100
    play.answer("fetch#2", 0)
    play.now += 100
    again = play.again(new)
    again.answer("store", 0)
    drawn = again.result()
    assert len({str(each) for each in drawn[::2]}) == 4
    assert drawn[1::2] == sorted(drawn[1::2])
    assert again.again().result() == drawn
