"""Which record answers which call, and what happens when none does (R8)."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Activity, NonDeterminismError, UsageError, activity, sleep, workflow
from perdure._model.status import Held

from tests.kernel.driver import Play
from tests.kernel.steps import Declined, begin, fetch, store


def divergence(play: Play) -> NonDeterminismError:
    """The error with which an execution is held."""
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held is Held.DIVERGENCE
    assert isinstance(play.kernel.trouble.error, NonDeterminismError)
    return play.kernel.trouble.error


def line_of(body: Callable[..., Any], text: str) -> int:
    """The number of the line in this file that contains a text, behind the beginning of a function."""
    start = body.__code__.co_firstlineno
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines[start - 1 :], start) if text in line)


# One body, its results in any order --------------------------------------------------------------------


def test_a_result_goes_to_the_call_that_asked_the_same() -> None:
    """R8: kind, name, input; not the order in which calls were made or answered."""

    async def body() -> list[int]:
        return await asyncio.gather(fetch(1), fetch(2), store(1))

    play = Play(body)
    play.answer(play.call("store"), 30)
    play.answer(play.call("fetch#2"), 20)
    play.answer(play.call("fetch#1"), 10)
    assert play.result() == [10, 20, 30]
    assert play.recorded == ["activity store#1", "activity fetch#2", "activity fetch#1"]
    assert play.again().standing() == play.standing()


def test_the_occurrence_counts_among_equals() -> None:
    """R8."""

    async def body() -> list[int]:
        return await asyncio.gather(fetch(1), fetch(1), fetch(1))

    play = Play(body)
    for occurrence in (3, 1, 2):
        play.answer(f"fetch#{occurrence}", occurrence * 10)
    assert play.result() == [10, 20, 30]
    assert play.again().result() == [10, 20, 30]


def test_the_occurrence_is_taken_at_the_call() -> None:
    """R10: awaited in another order, they are the same steps."""

    async def body() -> tuple[int, int]:
        first, second = fetch(1), fetch(2)
        return await second, await first

    play = Play(body)
    assert play.waiting == ['fetch{"x":2}#2']
    play.answer("fetch", 20)
    play.answer("fetch", 10)
    assert play.result() == (20, 10)


def test_what_nobody_waits_for_is_not_recorded() -> None:
    """R21: the attempt of a call that was cancelled is recorded as nothing."""

    async def body() -> int:
        first = asyncio.create_task(fetch(1))
        await store(1)
        first.cancel()
        return await store(2)

    play = Play(body)
    cancelled = play.call("fetch")
    play.answer("store", 0)
    assert play.withdrawn == [cancelled]
    assert not play.answer(cancelled, 10)
    assert play.recorded == ["activity store#1"]


def test_the_late_result_of_a_cancelled_call_is_not_given_to_an_equal_one() -> None:
    """R9, R21: the second call has an attempt and an idempotency key of its own."""

    async def body() -> int:
        first = asyncio.create_task(fetch(1))
        await store(1)
        first.cancel()
        return await fetch(1)

    play = Play(body)
    cancelled = play.call("fetch")
    play.answer("store", 0)
    assert not play.answer(cancelled, 666)
    play.answer("fetch#2", 10)
    assert play.result() == 10


def test_another_input_is_the_same_if_it_means_the_same_today() -> None:
    """R2, R8: a parameter that has come with a default does not make another step of it."""

    @activity(name="fetch")
    async def fetch_page(x: int, page: int = 0) -> int:
        raise AssertionError

    async def old() -> int:
        return await fetch(1) + await store(1)

    async def new() -> int:
        return await fetch_page(1) + await store(1)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    assert again.waiting == ['store{"x":1}#1']
    assert again.kernel.trouble is None


# Kept results ------------------------------------------------------------------------------------------


def test_reordered_steps_find_their_records() -> None:
    """R8: a result that nobody waits for is kept, and the next such call takes it."""

    async def old() -> int:
        return await fetch(1) + await store(2)

    async def new() -> int:
        stored = await store(2)
        return await fetch(1) + stored

    play = Play(old)
    play.answer("fetch", 10)
    play.answer("store", 20)
    again = play.again(new)
    assert again.result() == 30
    assert again.given == []


def test_an_inserted_step_is_asked_for_and_the_old_ones_keep_their_results() -> None:
    """R8: calls that only the code has are new."""

    async def old() -> int:
        return await fetch(1) + await store(2)

    async def new() -> int:
        before = await store(1)
        return before + await fetch(1) + await store(2)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    assert again.waiting == ['store{"x":1}#1']
    again.answer("store", 1)
    assert again.waiting == ['store{"x":2}#2']
    again.answer("store", 20)
    assert again.result() == 31
    assert again.recorded == ["activity fetch#1", "activity store#1", "activity store#2"]
    assert again.again().standing() == again.standing()


def test_a_removed_step_is_logged_once_and_the_rest_goes_on(log: pytest.LogCaptureFixture) -> None:
    """R8: results that only the journal has."""

    async def old() -> int:
        return await fetch(1) + await store(2)

    async def new() -> int:
        return await store(2)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    said = [record.getMessage() for record in log.records if record.levelno >= logging.INFO]
    assert len(said) == 1
    assert "recorded, but no longer asked for: activity 'fetch'" in said[0]
    again.answer("store", 20)
    assert again.result() == 20
    assert len([record for record in log.records if record.levelno >= logging.INFO]) == 1


def test_each_kept_result_is_an_event_of_its_own() -> None:
    """R8: what follows from the first comes to rest before the second is given."""
    trace: list[str] = []

    async def branch(x: int) -> None:
        await fetch(x)
        for step in range(3):
            trace.append(f"{x}.{step}")
            await asyncio.sleep(0)

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(2), store(1))

    async def new() -> None:
        await store(1)
        await asyncio.gather(branch(1), branch(2))

    play = Play(old)
    play.answer("fetch#2", 2)
    play.answer("fetch#1", 1)
    again = play.again(new)
    again.answer("store", 0)
    # In the order in which the calls were made, and each with all that follows from it.
    assert trace == ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2"]


def test_kept_results_of_equal_calls_answer_one_call_each() -> None:
    """R8: a call that has its answer takes no second one, and nothing recorded runs again."""

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(1), store(0))

    async def new() -> tuple[int, int]:
        await store(0)
        return await fetch(1), await fetch(1)

    play = Play(old)
    play.answer("fetch#1", 10)
    play.answer("fetch#2", 20)
    again = play.again(new)
    again.answer("store", 0)
    assert again.result() == (10, 20)
    assert [call.name for call in again.given] == ["store"]


def test_a_kept_failure_that_another_attempt_follows_is_given_out_once() -> None:
    """R8, R11: with the attempt that the record names, not with the first one."""

    async def old() -> None:
        await asyncio.gather(fetch(1), store(0))

    async def new() -> int:
        await store(0)
        return await fetch(1)

    play = Play(old)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=5_000)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=7_000)
    again = play.again(new)
    due_at = again.now + 7_000
    again.answer("store", 0)
    assert [(call.name, call.attempt) for call in again.given] == [("store", 1), ("fetch", 3)]
    assert again.call("fetch").due_at == due_at
    again.answer("fetch", 10)
    assert again.result() == 10


def test_a_kept_failure_and_the_success_after_it_are_both_taken() -> None:
    """R8, R11."""

    async def old() -> None:
        await asyncio.gather(fetch(1), store(0))

    async def new() -> int:
        await store(0)
        return await fetch(1)

    play = Play(old)
    play.fail("fetch", RuntimeError("no"), retry_in_ms=5_000)
    play.answer("fetch", 10)
    again = play.again(new)
    again.answer("store", 0)
    assert again.result() == 10
    assert [call.name for call in again.given] == ["store"]


def test_a_kept_timer_ends_the_sleep_that_asks_for_it() -> None:
    """R8: also one that asyncio itself has set."""

    async def old() -> None:
        await asyncio.gather(asyncio.sleep(5), sleep(7), store(0))

    async def new() -> str:
        await store(0)
        await asyncio.sleep(5)
        await sleep(7)
        return "slept"

    play = Play(old)
    play.pass_time(7_000)
    again = play.again(new)
    again.answer("store", 0)
    assert again.result() == "slept"


def test_a_kept_result_is_not_lost_with_a_call_that_is_cancelled_in_the_same_turn() -> None:
    """R8: it is there for the next call that asks the same, in this turn or in a later one."""

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(2), store(0), store(1))

    async def new() -> tuple[int, int]:
        await store(0)
        tasks = [asyncio.create_task(fetch(1)), asyncio.create_task(fetch(2))]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        at_once = await fetch(1)
        await store(1)
        return at_once, await fetch(2)

    play = Play(old)
    play.answer("fetch#1", 10)
    play.answer("fetch#2", 20)
    again = play.again(new)
    again.answer("store", 0)
    assert again.waiting == ['store{"x":1}#2']
    again.answer("store", 0)
    assert again.result() == (10, 20)
    assert [call.name for call in again.given] == ["store", "store"]


def test_the_turns_that_took_kept_results_replay_alike() -> None:
    """R7: the second replay finds what the first one did."""

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(2), store(0))

    async def new() -> list[int]:
        await store(0)
        one = await fetch(1)
        three = await fetch(3)
        return [one, three, await fetch(2)]

    play = Play(old)
    play.answer("fetch#2", 20)
    play.answer("fetch#1", 10)
    again = play.again(new)
    again.answer("store", 0)
    # `fetch(2)` is recorded and not asked for yet: that is a divergence (below), so this code does not go on.
    assert divergence(again).asked_input == '{"x":3}'
    assert divergence(again.again()).asked_input == '{"x":3}'


# Divergence --------------------------------------------------------------------------------------------


def test_another_input_under_the_same_name_is_a_divergence() -> None:
    """R8: with step, entry, both inputs, their difference, file and line; and nothing is given out."""

    async def old() -> None:
        await fetch(1)
        await store(1)

    async def new() -> None:
        await store(7)
        await fetch(2)  # changed

    play = Play(old)
    play.answer("fetch", 10)
    play.answer("store", 20)
    again = play.again(new)
    assert divergence(again).step == "activity/store#1"

    async def newer() -> None:
        await fetch(2)  # changed too

    again = play.again(newer, upto=1)
    error = divergence(again)
    assert error.step == "activity/fetch#1"
    assert error.entry == 1
    assert (error.recorded_input, error.asked_input) == ('{"x":1}', '{"x":2}')
    assert error.where == f"{__file__}:{line_of(newer, 'await fetch(2)')} in {newer.__qualname__}"
    for part in ("recorded: activity 'fetch', occurrence 1 (entry 1), input {\"x\":1}", "x: 1 → 2", error.where):
        assert part in str(error)


def test_a_divergence_shows_the_fields_that_differ() -> None:
    """R8: the inner ones by their path, and what is new or gone."""

    @activity(name="order")
    async def old_order(order: dict[str, Any]) -> int:
        raise AssertionError

    async def body(order: dict[str, Any]) -> int:
        return await old_order(order)

    play = Play(lambda: body({"id": 7, "to": {"city": "Rome", "zip": "00100"}}))
    play.answer("order", 1)
    error = divergence(play.again(lambda: body({"id": 7, "to": {"city": "Bonn", "street": "Am Hof"}})))
    assert 'order.to.city: "Rome" → "Bonn"' in str(error)
    assert 'order.to.zip: gone, was "00100"' in str(error)
    assert 'order.to.street: new, "Am Hof"' in str(error)
    assert "order.id" not in str(error)


@pytest.mark.parametrize("way", ["gather", "group", "task", "nested"])
def test_a_divergence_names_the_place_of_a_call_in_a_task_of_its_own(way: str) -> None:
    """R8: a gathered call has no frame, and is where it is gathered."""

    async def gatherer(x: int) -> None:
        await asyncio.gather(store(3), fetch(x))  # gathered here

    async def body(x: int) -> None:
        if way == "gather":
            await gatherer(x)
        elif way == "group":
            async with asyncio.TaskGroup() as group:  # a group here
                group.create_task(fetch(x))
        elif way == "task":
            await asyncio.create_task(fetch(x))  # a task here
        else:
            await asyncio.gather(gatherer(x), asyncio.create_task(asyncio.sleep(99)))

    play = Play(lambda: body(1))
    play.answer("fetch", 10)
    error = divergence(play.again(lambda: body(2)))
    text = {"group": "# a group here", "task": "# a task here"}.get(way, "# gathered here")
    assert f"{__file__}:{line_of(gatherer, text)} in" in error.where


def test_a_call_beside_an_untaken_result_of_its_name_is_held_when_all_is_fed() -> None:
    """R8: and not before: a later entry might still lead to the call that takes it."""

    async def old() -> None:
        await fetch(1)
        await store(1)
        await fetch(2)

    async def new() -> None:
        await store(1)
        await fetch(1)
        await fetch(2)

    play = Play(old)
    play.answer("fetch", 10)
    play.answer("store", 0)
    assert play.again(new).waiting == ['fetch{"x":2}#2']

    async def broken() -> None:
        await store(1)
        await fetch(3)

    assert divergence(play.again(broken)).asked_input == '{"x":3}'


def test_another_kind_or_name_beside_an_untaken_result_is_no_divergence() -> None:
    """R8: these are new calls and forgotten results."""

    async def old() -> None:
        await fetch(1)

    async def new() -> None:
        await asyncio.gather(store(1), sleep(5, name="fetch"))

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    assert again.kernel.trouble is None
    assert again.waiting == ['store{"x":1}#1']


def test_a_divergence_in_a_live_turn_keeps_what_was_fed_and_starts_nothing() -> None:
    """R8: the result has happened; what the turn wanted is not given out, and asked for again after a resume."""

    @workflow
    async def other(x: int) -> None: ...

    async def old() -> None:
        await asyncio.gather(fetch(1), store(0))

    async def new() -> None:
        await store(0)
        await other.start(1)
        begin(sleep("1 hour"))
        await fetch(2)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    again.answer("store", 0)
    assert divergence(again)
    assert again.recorded == ["activity fetch#1", "activity store#1"]
    assert again.starts == []
    resumed = again.again(old)
    assert resumed.ended


def test_what_a_replay_wants_written_is_taken_back_by_a_divergence() -> None:
    """R8."""

    @workflow
    async def other(x: int) -> None: ...

    async def old() -> None:
        await fetch(1)

    async def new() -> None:
        await other.start(1)
        await fetch(2)

    play = Play(old)
    play.answer("fetch", 10)
    again = play.again(new)
    assert divergence(again)
    assert again.starts == []
    assert again.recorded == ["activity fetch#1"]
    assert not again.answer("fetch", 20), "a held kernel takes nothing more"


def test_markers_that_changed_code_writes_in_a_replay_stand_behind_the_journal() -> None:
    """R8, R42: calls that only the code has are new; a journal is never written in its middle."""

    @workflow
    async def other(x: int) -> None: ...

    async def old() -> None:
        await fetch(1)
        await store(1)

    async def new() -> None:
        await other.start(1)
        await fetch(1)
        await asyncio.gather(sleep("1 hour"), store(1))

    play = Play(old)
    play.now += 1_000
    play.answer("fetch", 10)
    again = play.again(new)
    assert again.recorded == ["activity fetch#1", "start other#1"]
    assert len(again.starts) == 1
    once_more = again.again()
    assert once_more.standing() == again.standing()
    assert once_more.starts == []


# Names -------------------------------------------------------------------------------------------------


def test_a_renamed_activity_finds_its_old_records() -> None:
    """R8: `formerly`, for entries that are fed at once, and for kept ones."""

    @activity(name="retrieve", formerly=("get", "fetch"))
    async def retrieve(x: int) -> int:
        raise AssertionError

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(2), store(0))

    async def new() -> list[int]:
        first = await retrieve(1)
        await store(0)
        return [first, await retrieve(2), await retrieve(3)]

    play = Play(old)
    play.answer("fetch#1", 10)
    play.answer("fetch#2", 20)
    again = play.again(new)
    again.answer("store", 0)
    assert again.waiting == ['retrieve{"x":3}#3']
    again.answer("retrieve", 30)
    assert again.result() == [10, 20, 30]
    assert again.again().result() == [10, 20, 30]


def test_the_occurrence_counts_among_equals_under_an_old_name_too() -> None:
    """R8."""

    @activity(name="retrieve", formerly=("fetch",))
    async def retrieve(x: int) -> int:
        raise AssertionError

    async def old() -> None:
        await asyncio.gather(fetch(1), fetch(1), fetch(1))

    async def new() -> list[int]:
        return await asyncio.gather(retrieve(1), retrieve(1), retrieve(1))

    play = Play(old)
    play.answer("fetch#3", 30)
    play.answer("fetch#2", 20)
    again = play.again(new)
    assert again.waiting == ['retrieve{"x":1}#1']
    again.answer("retrieve", 10)
    assert again.result() == [10, 20, 30]


def test_a_renamed_activity_diverges_from_its_old_records_too() -> None:
    """R8."""

    @activity(name="retrieve", formerly=("fetch",))
    async def retrieve(x: int) -> int:
        raise AssertionError

    async def old() -> None:
        await fetch(1)

    async def new() -> None:
        await retrieve(2)

    play = Play(old)
    play.answer("fetch", 10)
    assert divergence(play.again(new)).step == "activity/retrieve#1"


def test_two_inline_activities_of_one_name_cannot_be_asked_for_together() -> None:
    """R8: they have no input by which a replay could tell them apart."""

    async def body() -> list[Any]:
        rolls = [Activity.make("roll", success=int, execute=lambda: 4) for _ in range(2)]
        return await asyncio.gather(*rolls, return_exceptions=True)

    play = Play(body)
    play.answer("roll", 4)
    first, second = play.result()
    assert first == 4
    assert isinstance(second, UsageError)
    assert "give each a name" in str(second)


def test_inline_activities_of_one_name_may_follow_each_other() -> None:
    """R8."""

    async def body() -> list[int]:
        return [await Activity.make("roll", success=int, execute=lambda: 4) for _ in range(2)]

    play = Play(body)
    play.answer("roll#1", 4)
    play.answer("roll#2", 2)
    assert play.result() == [4, 2]
    assert play.again().result() == [4, 2]


def test_a_failure_is_matched_like_a_success() -> None:
    """R7, R8: by what was asked."""

    async def body() -> list[Any]:
        return await asyncio.gather(fetch(1), fetch(2), return_exceptions=True)

    play = Play(body)
    play.fail("fetch#2", Declined(code=2))
    play.answer("fetch#1", 10)
    assert play.result() == [10, Declined(code=2)]
    assert play.again().result() == [10, Declined(code=2)]
