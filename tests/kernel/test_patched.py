"""`patched`: decided once, at its first call, and then for ever (R8a)."""

from typing import Any

import pytest

from perdure import OutsideExecutionError, patched
from perdure._model.journal import Kind

from tests.kernel.driver import Play
from tests.kernel.steps import begin, fetch, store


async def _patched_at_once() -> list[bool]:
    seen = [patched("new-way")]
    await fetch(1)
    seen.append(patched("new-way"))
    await store(1)
    return [*seen, patched("new-way")]


async def _unpatched() -> list[bool]:
    await fetch(1)
    await store(1)
    return []


async def _patched_in_the_middle() -> list[bool]:
    await fetch(1)
    seen = [patched("new-way")]
    await store(1)
    return [*seen, patched("new-way")]


async def _patched_at_the_end() -> list[bool]:
    await fetch(1)
    await store(1)
    return [patched("new-way")]


def _to_the_end(play: Play) -> Any:
    while not play.ended:
        play.answer(play.calls[0], 0)
    return play.result()


def test_the_first_turn_of_the_first_claim_is_live() -> None:
    """R8a: True, and the marker commits with that turn."""
    play = Play(_patched_at_once)
    assert play.recorded == ["patch new-way#1"]
    assert _to_the_end(play) == [True, True, True]
    assert [entry.kind for entry in play.journal] == [Kind.PATCH, Kind.ACTIVITY, Kind.ACTIVITY]


def test_the_first_turn_of_a_later_claim_is_not_live() -> None:
    """R8a: somebody else may have run it before, with older code, and have died before its commit."""
    play = Play(_patched_at_once, unborn=False)
    assert play.journal == []
    assert _to_the_end(play) == [False, False, False], "decided once, also when it is live later on"


def test_it_is_live_when_the_last_entry_has_come_to_rest() -> None:
    """R8a: new code, asked behind everything that is recorded."""
    play = Play(_unpatched)
    play.answer("fetch", 0)
    again = play.again(_patched_at_the_end)
    assert _to_the_end(again) == [True]
    assert again.recorded == ["activity fetch#1", "activity store#1", "patch new-way#1"]


def test_the_turn_of_the_last_entry_is_still_a_replay() -> None:
    """R8a: False, for the old code has gone that way already; nothing is written."""
    play = Play(_unpatched)
    play.answer("fetch", 0)
    again = play.again(_patched_in_the_middle)
    assert _to_the_end(again) == [False, False]
    assert Kind.PATCH not in [entry.kind for entry in again.journal]


def test_a_decision_for_the_old_way_holds_on_every_replay() -> None:
    """R8a: wherever the replay stops."""
    play = Play(_unpatched)
    play.answer("fetch", 0)
    again = play.again(_patched_in_the_middle)
    _to_the_end(again)
    for length in again.commits:
        assert _to_the_end(again.again(upto=length)) == [False, False]


def test_a_recorded_marker_decides_wherever_it_is_asked() -> None:
    """R8a: also before the place at which it stands in the journal."""
    play = Play(_unpatched)
    play.answer("fetch", 0)
    again = play.again(_patched_at_the_end)
    again.answer("store", 0)
    assert again.result() == [True]
    assert again.again().result() == [True]
    assert again.again(_patched_in_the_middle).result() == [True, True]


@pytest.mark.parametrize("body", [_patched_at_once, _patched_in_the_middle, _patched_at_the_end])
def test_a_decision_for_the_new_way_holds_on_every_replay(body: Any) -> None:
    """R8a."""
    play = Play(body)
    result = _to_the_end(play)
    assert set(result) == {True}
    for length in play.commits:
        if length:
            assert _to_the_end(play.again(upto=length)) == result
    assert play.again().recorded == play.recorded, "a marker is written once"


def test_each_change_is_decided_for_itself() -> None:
    """R8a."""

    async def old() -> None:
        await fetch(1)
        await store(1)

    async def new() -> tuple[bool, bool]:
        first = patched("first")
        await fetch(1)
        await store(1)
        return first, patched("second")

    play = Play(old)
    play.answer("fetch", 0)
    assert _to_the_end(play.again(new)) == (False, True)


def test_what_the_body_left_behind_decides_nothing() -> None:
    """R46."""
    seen: list[bool] = []

    async def side() -> None:
        try:
            await fetch(1)
        finally:
            seen.append(patched("new-way"))

    async def body() -> None:
        begin(side())
        await store(1)

    play = Play(body)
    play.answer("store", 0)
    assert seen == [False]
    assert play.recorded == ["activity store#1"]


def test_there_is_nothing_to_decide_outside_a_body() -> None:
    """R8a."""
    with pytest.raises(OutsideExecutionError, match="patched"):
        patched("new-way")
