"""The part of a journal that a fork has copied: it is fed to whoever asks, and compared with nothing (R49)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from perdure import OutcomeUnknown, sleep
from perdure._model.journal import FORKED, Entry, Kind
from perdure._model.status import Held

from tests.kernel.driver import Play
from tests.kernel.steps import fetch, pay, store

Body = Callable[[], Coroutine[Any, Any, Any]]


def fork(play: Play, body: Body, at: int | None = None) -> Play:
    """A copy that goes on with another body: what it asks differs as it would with another id."""
    copied = play.journal[:at]
    end = Entry(len(copied) + 1, Kind.ACT, FORKED, 1, 0, b"", b"", copied[-1].at)
    return Play(body, [*copied, end])


def gathering(*inputs: int) -> Body:
    async def body() -> list[int]:
        return await asyncio.gather(*map(fetch, inputs))

    return body


def answered(body: Body, *order: int) -> Play:
    """The original: each call's answer is ten times its place."""
    play = Play(body)
    for occurrence in order:
        play.answer(f"fetch#{occurrence}", occurrence * 10)
    return play


def test_a_copied_result_goes_to_the_call_in_its_place_though_that_asks_otherwise() -> None:
    """R49: by kind, name and occurrence, in whatever order the results had come."""
    play = answered(gathering(1, 2, 3), 3, 1, 2)
    copy = fork(play, gathering(7, 8, 9))
    assert copy.result() == [10, 20, 30]
    assert copy.given == []
    assert copy.again().standing() == copy.standing()


def test_who_asks_the_same_is_preferred_also_in_the_copied_part() -> None:
    """R8, R49: and a call that has a result of its own does not take another's before it comes."""
    play = answered(gathering(1, 2), 1, 2)
    # The first now asks what the second asked; the second has what only differs by the fork.
    assert fork(play, gathering(2, 7)).result() == [20, 10]
    assert fork(play, gathering(7, 2)).result() == [10, 20]
    assert fork(play, gathering(2)).result() == [20]


def test_a_copied_result_that_nobody_waits_for_contradicts_nobody() -> None:
    """R49: the call behind the copied part is another one, and is given out."""

    async def original() -> list[int]:
        return [await fetch(1), await store(1)]

    async def silent() -> list[int]:
        return [await store(1), await fetch(2)]

    play = Play(original)
    play.answer("fetch", 10)
    play.answer("store", 20)
    copy = fork(play, silent)
    assert copy.kernel.trouble is None
    assert copy.waiting == ['fetch{"x":2}#1']
    copy.answer("fetch", 30)
    assert copy.result() == [20, 30]
    assert copy.again().result() == [20, 30]


def test_a_copied_result_is_kept_for_who_asks_the_same_later() -> None:
    """R8, R49: a step that today's code has moved."""

    async def original() -> list[int]:
        return [await fetch(1), await store(1)]

    async def moved() -> list[int]:
        return [await store(1), await fetch(1)]

    play = Play(original)
    play.answer("fetch", 10)
    play.answer("store", 20)
    assert fork(play, moved).result() == [20, 10]


def test_attempts_go_on_counting_in_the_copied_part() -> None:
    """R11, R49: a failure that was followed by another attempt is the same call's."""
    play = Play(gathering(1))
    play.fail("fetch", RuntimeError("once"), retry_in_ms=1_000)
    play.fail("fetch", RuntimeError("twice"), retry_in_ms=1_000)
    copy = fork(play, gathering(7))
    (call,) = copy.calls
    assert (call.attempt, call.due_at) == (3, play.calls[0].due_at)
    copy.answer("fetch", 70)
    assert copy.result() == [70]
    assert copy.again().result() == [70]


def test_what_comes_behind_the_copied_part_is_compared() -> None:
    """R8, R49: it was asked by the fork itself."""
    copy = fork(answered(gathering(1, 2), 1), gathering(7, 8))
    copy.answer("fetch#2", 20)
    assert copy.result() == [10, 20]
    changed = copy.again(gathering(7, 9))
    assert changed.kernel.trouble is not None
    assert changed.kernel.trouble.held is Held.DIVERGENCE


def test_without_the_mark_of_a_fork_everything_is_compared() -> None:
    """R8: a rewound life is the same execution."""
    changed = answered(gathering(1, 2), 1).again(gathering(7, 2))
    assert changed.kernel.trouble is not None
    assert changed.kernel.trouble.held is Held.DIVERGENCE


def test_an_attempt_that_had_begun_at_the_end_of_the_copied_part_is_not_made_again() -> None:
    """R49, R50: its note says so of that call, whatever it asks now."""

    def paying(x: int) -> Body:
        async def body() -> str:
            try:
                return str(await pay(x))
            except OutcomeUnknown:
                return "unknown"

        return body

    play = Play(paying(1))
    play.kernel.note_begun(play.call("pay"))
    play.journal += play.kernel.take_written()[0]
    copy = fork(play, paying(7))
    assert copy.kernel.begun(copy.call("pay"))
    behind = Play(paying(7), play.journal)
    assert not behind.kernel.begun(behind.call("pay"))


def test_a_timer_and_a_step_beside_it_come_in_their_order() -> None:
    """R16, R49: what has no input to compare goes on as ever."""

    def napping(x: int) -> Body:
        async def body() -> list[Any]:
            return await asyncio.gather(fetch(x), sleep("1 second", name="nap"))

        return body

    play = Play(napping(1))
    play.fire("nap")
    play.answer("fetch", 10)
    copy = fork(play, napping(7))
    assert copy.result() == [10, None]
