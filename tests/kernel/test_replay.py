"""Replaying a journal up to any commit gives what the live run gave (DESIGN 7, promise 5)."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure._definitions.activity import ActivityCall
from perdure._kernel import frames
from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel
from perdure._model.journal import Entry
from perdure.errors import WorkflowIOError

from tests.kernel.driver import BEGAN_AT, EXECUTION_ID, Play, close_all
from tests.kernel.program import PROGRAMS, Node, Player
from tests.kernel.steps import Declined, fetch, spin

CHOICES = st.lists(st.integers(0, 999), max_size=25)


def _live(program: Node, choices: list[int], *, evicted: bool) -> Player:
    """Play a program to its end; with `evicted` its kernel is put away behind every commit (`cache=0`)."""
    player = Player(program)
    # When the choices are used up, everything succeeds, the oldest first.
    moves = iter([*choices, *[4 * 7] * 200])
    while not player.at_rest and player.play.kernel.trouble is None:
        if evicted:
            player.play.close()
            player.play = player.play.again()
        player.move(next(moves))
    assert player.play.kernel.trouble is None
    return player


@settings(max_examples=100)
@given(program=PROGRAMS, choices=CHOICES)
def test_a_replay_up_to_any_commit_stands_where_the_live_run_stood(program: Node, choices: list[int]) -> None:
    """R7, promise 5: the same calls, attempts, due times and result; the body has seen the same; nothing is written."""
    try:
        player = _live(program, choices, evicted=False)
        for length, standing, trace in player.stands:
            if not length:
                continue
            again = player.play.again(upto=length)
            assert again.standing() == standing
            assert player.trace == trace
            assert len(again.journal) == length
            assert again.starts == []
            again.close()
    finally:
        close_all()
    assert frames._unclosable == []


@settings(max_examples=50)
@given(program=PROGRAMS, choices=CHOICES)
def test_being_evicted_at_every_await_changes_nothing(program: Node, choices: list[int]) -> None:
    """R6, R7: the same journal, the same result."""
    try:
        kept = _live(program, choices, evicted=False)
        evicted = _live(program, choices, evicted=True)
        assert evicted.play.journal == kept.play.journal
        assert evicted.play.standing() == kept.play.standing()
        assert evicted.trace == kept.trace
    finally:
        close_all()
    assert frames._unclosable == []


Groups = list[list[str]]


def _steps(groups: Groups) -> Callable[[], Any]:
    """A body: groups of steps one after the other, the steps of a group side by side."""

    async def body() -> list[tuple[str, int]]:
        taken: list[tuple[str, int]] = []
        for names in groups:
            results = await asyncio.gather(*(fetch.options(name=name)(0) for name in names))
            taken += zip(names, results, strict=True)
        return taken

    return body


@st.composite
def _deployments(draw: st.DrawFn) -> tuple[Groups, Groups]:
    """The groups of an old body, and those of a new one with the same steps in any order, and some more."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8))
    changed = draw(st.permutations(names + draw(st.lists(st.sampled_from("xyz"), max_size=3))))
    return _grouped(draw, names), _grouped(draw, changed)


def _grouped(draw: st.DrawFn, names: list[str]) -> Groups:
    groups: Groups = [[]]
    for name in names:
        if groups[-1] and draw(st.booleans()):
            groups.append([])
        groups[-1].append(name)
    return groups


@settings(max_examples=100)
@given(deployment=_deployments(), answered=st.integers(0, 8), failing=st.integers(0, 8))
def test_steps_may_be_moved_and_inserted_and_nothing_recorded_runs_again(
    deployment: tuple[Groups, Groups], answered: int, failing: int
) -> None:
    """R8, promise 2: each record answers one call of the new body, whatever has become of the order."""
    old, new = deployment
    try:
        play = Play(_steps(old))
        recorded: list[int] = []
        for number in range(answered):
            if play.calls and number == failing:
                play.fail(play.calls[-1], ValueError("try again"), retry_in_ms=1_000)
            elif play.calls:
                play.answer(play.calls[-1], number)
                recorded.append(number)
        again = play.again(_steps(new))
        fresh: list[int] = []
        while not again.ended:
            assert again.kernel.trouble is None
            fresh.append(100 + len(fresh))
            again.answer(again.calls[0], fresh[-1])
        assert sorted(value for _, value in again.result()) == [*recorded, *fresh]
        assert again.again().result() == again.result()
    finally:
        close_all()


async def _three_pages() -> AsyncIterator[int]:
    for number in range(3):
        yield number


async def _reads_pages() -> int:
    return sum([await fetch(number) async for number in _three_pages()])


async def _spins_at_the_end() -> None:
    await fetch(0)
    await spin()


@pytest.mark.parametrize("body", [_reads_pages, _spins_at_the_end])
def test_a_replay_leaves_the_outer_loop_and_its_hooks_as_they_were(
    body: Callable[[], Coroutine[Any, Any, Any]],
) -> None:
    """Its turns follow each other on the body's loop, which is left once behind the last: also when that has trouble."""

    async def main() -> None:
        before = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        play = Play(body, budget=1_000)
        while play.calls:
            play.answer("fetch", 1)
        again = play.again()
        assert (asyncio.get_running_loop(), sys.get_asyncgen_hooks()) == before
        assert again.standing() == play.standing()
        with pytest.raises(WorkflowIOError, match="turn"):
            again.kernel._loop.call_soon(print)

    asyncio.run(main())


def _replayed(body: Callable[[], Any], journal: list[Entry]) -> Kernel:
    """A kernel that nobody has taken anything from yet."""
    kernel = Kernel(Origin(EXECUTION_ID, 1, "Body", b"seed", BEGAN_AT, unborn=False), journal)
    kernel.begin(body, journal)
    return kernel


def test_a_replay_keeps_none_of_the_calls_that_it_has_answered() -> None:
    """A body of a thousand steps would have them all in memory when it has come to its end: inputs, contexts and all."""

    async def body() -> None:
        for each in range(10):
            await fetch(each)

    def calls() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) is ActivityCall}

    play = Play(body)
    for _ in range(9):
        play.answer("fetch", 1)
    play.close()
    before = calls()
    kernel = _replayed(body, play.journal)
    (waiting,) = kernel.activities()
    assert calls() - before == {id(waiting)}
    kernel.close()


def test_what_is_asked_for_behind_a_replay_is_what_waits() -> None:
    """R7: each call once, also one whose failed attempts have been fed, and in the order in which they were made."""

    async def body() -> None:
        await asyncio.gather(fetch(1), fetch(2), fetch(3))

    play = Play(body)
    play.fail(play.calls[0], Declined(code=1), retry_in_ms=5)
    play.fail(play.calls[0], Declined(code=1), retry_in_ms=5)
    play.answer(play.calls[1], 2)
    play.close()
    kernel = _replayed(body, play.journal)
    assert [(call.input, call.attempt) for call in kernel.take_asked()] == [(b'{"x":1}', 3), (b'{"x":3}', 1)]
    assert list(kernel.take_asked()) == []
    kernel.close()
