"""`replay_check`: today's code against what yesterday's has recorded."""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Cause,
    DurableChannel,
    DurableDeferred,
    NonDeterminismError,
    Schedule,
    UsageError,
    WorkflowEngine,
    WorkflowImplementation,
    activity,
    patched,
    publish,
    race_all,
    set_attributes,
    sleep,
    with_compensation,
    workflow,
)
from perdure.testing import TestEngine, export_execution
from perdure.testing._change import changes
from perdure.testing._rerun import Recording, journal_of
from perdure.testing.replay import ReplayCheckFailed, ReplayReport, replay_check

from tests.conftest import Run


@activity
async def reserve(order: str) -> int:
    return len(order)


@activity
async def charge(order: str, amount: int) -> str:
    return f"charged {amount}"


@activity(name="charge_card")
async def charge_card(order: str, amount: int) -> str:
    return f"charged {amount}"


@activity(name="charge_card", formerly=("charge",))
async def charge_formerly(order: str, amount: int) -> str:
    return f"charged {amount}"


@activity
async def is_in_stock(order: str) -> bool:
    return True


@dataclass(frozen=True)
class Rating:
    points: int


@activity
async def rate(order: str) -> Rating:
    return Rating(points=7)


@activity
async def limits(order: str) -> dict[str, int]:
    return {"orders": 3}


@activity
async def tell(order: str) -> None: ...


@activity(name="tell")
async def tell_friend(order: str) -> None: ...


def order_workflow(body: Any) -> WorkflowImplementation[[str], str]:
    """The one workflow, with the body of some day."""
    implemented: Any = workflow(name="Order", idempotency_key=lambda order: order)(body)
    return implemented


@order_workflow
async def yesterday(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge(order, amount)
    await tell(order)
    return charged


@order_workflow
async def alike(order: str) -> str:
    """The same steps, written otherwise, with what was in front of another behind it."""
    amount, _ = await asyncio.gather(reserve(order), sleep("20 days", name="window"))
    return (await asyncio.gather(tell(order), charge(order, amount)))[1]


async def original(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge(order, amount)
    await tell(order)
    return charged


@activity
async def log(order: str) -> None: ...


@order_workflow
async def with_a_log(order: str) -> str:
    await log(order)
    await sleep(5, name="pause")
    return await original(order)


@order_workflow
async def with_a_check(order: str) -> str:
    if not await is_in_stock(order):
        return "sold out"
    return await original(order)


@order_workflow
async def patched_check(order: str) -> str:
    if patched("stock") and not await is_in_stock(order):
        return "sold out"
    return await original(order)


@order_workflow
async def without_telling(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    return await charge(order, amount)


@order_workflow
async def without_reserving(order: str) -> str:
    await sleep("10 days", name="window")
    charged = await charge(order, len(order))
    await tell(order)
    return charged


@order_workflow
async def renamed(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge_card(order, amount)
    await tell(order)
    return charged


@order_workflow
async def renamed_well(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge_formerly(order, amount)
    await tell(order)
    return charged


@order_workflow
async def renamed_the_last(order: str) -> str:
    """A step without a result under another name: taken as done, what is left over tells."""
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge(order, amount)
    await log(order)
    return charged


@order_workflow
async def renamed_timer(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="cooling off")
    charged = await charge(order, amount)
    await tell(order)
    return charged


@order_workflow
async def other_input(order: str) -> str:
    amount = await reserve(order)
    await sleep("10 days", name="window")
    charged = await charge(order, amount + 1)
    await tell(order)
    return charged


@order_workflow
async def other_result(order: str) -> str:
    return (await original(order)).upper()


@activity(name="reserve")
async def reserve_many(order: str) -> list[int]:
    return [1]


@order_workflow
async def other_type(order: str) -> str:
    await reserve_many(order)
    return ""


@workflow(name="Mails", idempotency_key=lambda to: ",".join(sorted(to)))
async def mails(to: list[str]) -> int:
    for one in to:
        await tell(one)
    return len(to)


@workflow(name="Mails", idempotency_key=lambda to: ",".join(sorted(to)))
async def mails_backwards(to: list[str]) -> int:
    for one in reversed(to):
        await tell(one)
    return len(to)


def checked(
    run: Run,
    today: Any,
    *,
    recorded: Any = yesterday,
    also: Sequence[Any] = (),
    payload: Any = "a-17",
    days: int | None = None,
    **options: Any,
) -> ReplayReport:
    """Run the recorded code, to its end or for some days, then check today's."""

    async def main() -> ReplayReport:
        async with TestEngine([recorded, *also], skips=days is None) as engine:
            handle = await recorded.start(payload)
            await (handle.result() if days is None else engine.advance(f"{days} days"))
            return await replay_check([today], engine, **options)

    return run(main)


def failed(run: Run, today: Any, **options: Any) -> ReplayCheckFailed:
    with pytest.raises(ReplayCheckFailed) as found:
        checked(run, today, **options)
    return found.value


def sorts(report: ReplayReport) -> list[str]:
    return [each.sort for each in report.differences]


@pytest.mark.parametrize("today", [yesterday, alike, renamed_well, patched_check], ids=lambda each: each.__name__)
@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_code_that_fits_has_no_difference(run: Run, today: Any, days: int | None) -> None:
    """R8, R8a: moved steps, a step renamed with `formerly`, a change behind `patched`."""
    report = checked(run, today, days=days, strict=True)
    assert (report.replayed, report.differences) == (1, [])
    assert str(report).endswith("no difference")


def test_new_steps_whose_answer_is_known_are_told(run: Run) -> None:
    """Behind them the record is asked for as before, so nothing is done again."""
    report = checked(run, with_a_log)
    assert sorts(report) == ["new", "new"]
    assert "activity 'log' is new" in report.differences[0].message
    assert "test_replay_check.py:" in report.differences[0].where


def test_a_new_step_whose_answer_nobody_knows_says_how_to_say_it(run: Run) -> None:
    """With one answer of two all that is recorded is asked for behind it: it was put in, nothing was renamed."""
    report = checked(run, with_a_check)
    assert sorts(report) == ["new"]
    assert "say new={'is_in_stock': <an answer>}" in report.differences[0].message
    told = checked(run, with_a_check, new={"is_in_stock": True})
    assert sorts(told) == ["new"]
    assert "<an answer>" not in told.differences[0].message


def test_a_new_step_whose_answer_cannot_be_made_up_is_only_told(run: Run) -> None:
    """Whether what is behind it is asked for cannot be seen, so nothing is said of that."""

    @order_workflow
    async def with_a_rating(order: str) -> str:
        if (await rate(order)).points < 5:
            return "refused"
        return await original(order)

    report = checked(run, with_a_rating)
    assert sorts(report) == ["new"]
    assert "say new={'rate': <an answer>}" in report.differences[0].message
    assert failed(run, with_a_rating, new={"rate": Rating(points=1)}).report.failures[0].sort == "redone"
    assert sorts(checked(run, with_a_rating, new={"rate": Rating(points=9)})) == ["new"]


def test_a_body_that_fails_with_what_is_made_up_proves_nothing(run: Run) -> None:
    """An empty dictionary is the only one that can be made up; with a real one it goes on to what is recorded."""

    @order_workflow
    async def with_limits(order: str) -> str:
        if (await limits(order))["orders"] < 1:
            return "too many"
        return await original(order)

    assert sorts(checked(run, with_limits)) == ["new"]
    assert failed(run, with_limits, new={"limits": {"orders": 0}}).report.failures[0].sort == "redone"


def test_with_the_answer_that_is_said_what_follows_is_seen(run: Run) -> None:
    """The other answer leads past everything that is recorded."""
    assert failed(run, with_a_check, new={"is_in_stock": False}).report.failures[0].sort == "redone"


@pytest.mark.parametrize("today", [without_telling, without_reserving], ids=lambda each: each.__name__)
def test_steps_that_are_left_out_are_told(run: Run, today: Any) -> None:
    """R8: results that only the journal has are no divergence."""
    assert sorts(checked(run, today)) == ["unasked"]
    assert failed(run, today, strict=True).report.failures[0].sort == "unasked"
    gone = "tell" if today is without_telling else "reserve"
    assert checked(run, today, strict=True, removed=[gone]).differences == []


@pytest.mark.parametrize(
    ("today", "old", "name"),
    [
        (renamed, "activity 'charge'", "charge_card"),
        (renamed_the_last, "activity 'tell'", "log"),
        (renamed_timer, "timer 'window'", "cooling off"),
    ],
    ids=["activity", "without a result", "timer"],
)
def test_a_renamed_step_fails(run: Run, today: Any, old: str, name: str) -> None:
    """A step that is recorded and no longer asked for, beside a new one: what was done would be done again."""
    error = failed(run, today)
    assert isinstance(error, NonDeterminismError)
    assert f"recorded: {old}" in str(error)
    assert repr(name) in str(error)
    assert re.search(rf"test_replay_check\.py:\d+ in {today.__name__}$", error.where)
    assert [each.sort for each in error.report.failures] == ["redone"]
    # R17: no timer has a `formerly`.
    assert ("formerly" in str(error)) == (today is not renamed_timer)


# What stands beside -------------------------------------------------------------------------------------------------

Outcome = DurableChannel.make("outcome", str)
Approval = DurableDeferred.make("approval", success=str)


@workflow(name="Parcel", idempotency_key=lambda order: order)
async def parcel(order: str) -> str:
    return order


@workflow(name="Letter", idempotency_key=lambda order: order)
async def letter(order: str) -> str:
    return order


def beside(*made: Callable[[str], Coroutine[Any, Any, Any]]) -> WorkflowImplementation[[str], str]:
    """The workflow of yesterday, with something in a task of its own for as long as the body runs."""

    @order_workflow
    async def standing(order: str) -> str:
        tasks = [asyncio.create_task(make(order)) for make in made]
        try:
            return await original(order)
        finally:
            for task in tasks:
                task.cancel()

    return standing


def doing(do: Callable[[str], object]) -> WorkflowImplementation[[str], str]:
    """The workflow of yesterday, which does something with its first turn and does not wait for it."""

    @order_workflow
    async def done(order: str) -> str:
        do(order)
        return await original(order)

    return done


async def _start(order: str) -> None:
    await parcel.start(order)


async def _start_a_letter(order: str) -> None:
    await letter.start(order)


async def _approve(order: str) -> str:
    return await Approval


@pytest.mark.parametrize(
    ("today", "what"),
    [
        (beside(log), "activity 'log'"),
        (beside(parcel.execute), "child 'Parcel'"),
        (beside(_start), "start 'Parcel'"),
        (beside(lambda order: Outcome.send("0" * 32, order)), "sent 'send:outcome'"),
        (beside(lambda order: sleep("30 days", name="reminder")), "timer 'reminder'"),
        (doing(lambda order: publish("stage", order)), "act 'publish:stage'"),
        (doing(lambda order: set_attributes(stage=order)), "act 'attributes'"),
        (doing(lambda order: Approval.token()), "token 'approval'"),
    ],
    ids=["activity", "child", "start", "send", "timer", "publish", "attributes", "token"],
)
@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_what_is_put_in_beside_the_body_is_new(run: Run, today: Any, what: str, days: int | None) -> None:
    """R5, R16, R42: what runs would have kept it awake, and what is done with a turn would have been recorded with it."""
    [told] = checked(run, today, days=days).differences
    assert (told.sort, told.fails) == ("new", False)
    assert told.message.startswith(f"{what} is new.")
    assert "test_replay_check.py:" in told.where
    assert failed(run, today, days=days, strict=True).report.failures[0].sort == "new"


@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_a_branch_that_is_put_in_is_new(run: Run, days: int | None) -> None:
    @order_workflow
    async def two_at_once(order: str) -> str:
        return (await asyncio.gather(original(order), log(order)))[0]

    [told] = checked(run, two_at_once, days=days).differences
    assert told.message.startswith("activity 'log' is new.")


def test_a_call_that_a_task_was_made_of_is_told_by_the_line_that_made_it(run: Run) -> None:
    """The task has no line of its author's, and its body stands somewhere else by then."""
    [told] = checked(run, beside(log), days=1).differences
    assert re.search(r"test_replay_check\.py:\d+ in beside\.<locals>\.standing\b", told.where)


def test_a_step_that_is_put_in_at_the_end_is_new_to_what_has_ended(run: Run) -> None:
    """One that is asleep has not come to it."""

    @order_workflow
    async def told_twice(order: str) -> str:
        charged = await original(order)
        await log(order)
        return charged

    assert sorts(checked(run, told_twice)) == ["new"]
    assert checked(run, told_twice, days=1).differences == []


def test_a_compensation_that_is_put_in_is_new_where_it_may_still_run(run: Run) -> None:
    """R27: what has ended well is not undone any more."""

    async def give_back(reserved: int, cause: Cause) -> None:
        await log(str(reserved))

    @order_workflow
    async def undoing(order: str) -> str:
        amount = await with_compensation(reserve(order), give_back)
        await sleep("10 days", name="window")
        charged = await charge(order, amount)
        await tell(order)
        return charged

    [told] = checked(run, undoing, days=1).differences
    assert told.message.startswith("compensation 'reserve' is new.")
    assert checked(run, undoing).differences == []


def test_what_waits_beside_is_new_where_all_is_known_that_it_waited_for(run: Run) -> None:
    """What has ended cannot say whether yesterday's code has waited for a deferred as well, and given it up."""
    [told] = checked(run, beside(_approve), days=1).differences
    assert told.message.startswith("deferred 'approval' is new.")
    assert checked(run, beside(_approve)).differences == []


@pytest.mark.parametrize(
    ("old", "today", "said"),
    [
        (beside(_start), beside(_start_a_letter), "recorded: start 'Parcel'"),
        (beside(parcel.execute), beside(letter.execute), "recorded: child 'Parcel'"),
    ],
    ids=["start", "child"],
)
@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_another_execution_in_the_place_of_one_that_was_started_fails(
    run: Run, old: Any, today: Any, said: str, days: int | None
) -> None:
    """It would be started as well."""
    error = failed(run, today, recorded=old, also=[parcel, letter], days=days)
    assert [each.sort for each in error.report.failures] == ["redone"]
    assert said in str(error)
    assert "'Letter'" in str(error)
    assert "formerly" not in str(error)
    assert "test_replay_check.py:" in error.where


@pytest.mark.parametrize(
    ("old", "what"),
    [
        (beside(_start), "start 'Parcel'"),
        (doing(lambda order: publish("stage", order)), "act 'publish:stage'"),
    ],
    ids=["start", "publish"],
)
def test_what_was_done_to_others_and_is_left_out_is_told(run: Run, old: Any, what: str) -> None:
    """R42: what is done is done."""
    [told] = checked(run, yesterday, recorded=old, also=[parcel]).differences
    assert (told.sort, told.fails) == ("unasked", False)
    assert told.message.startswith(f"{what}, occurrence 1 (entry 1), is recorded and no longer asked for")
    other = doing(lambda order: publish("progress", order))
    assert sorts(checked(run, other, recorded=old, also=[parcel])) == ["new", "unasked"]


def test_what_was_done_to_others_is_asked_for_behind_a_new_step(run: Run) -> None:
    @order_workflow
    async def only_shown(order: str) -> None:
        publish("stage", order)

    @order_workflow
    async def logged_and_shown(order: str) -> None:
        await log(order)
        publish("stage", order)

    [told] = checked(run, logged_and_shown, recorded=only_shown).differences
    assert told.message.startswith("activity 'log' is new.")


def test_a_child_that_was_given_up_before_is_not_new(run: Run) -> None:
    """R31: that it was begun is recorded, so a child that is left out is not taken for it."""

    @workflow(name="Slow", idempotency_key=lambda order: order)
    async def slow(order: str) -> None:
        await sleep("90 days")

    @order_workflow
    async def sent(order: str) -> None:
        waiting = asyncio.create_task(slow.execute(order))
        await parcel.execute(order)
        await tell(order)
        waiting.cancel()

    @order_workflow
    async def unsent(order: str) -> None:
        waiting = asyncio.create_task(slow.execute(order))
        await tell(order)
        waiting.cancel()

    assert sorts(checked(run, unsent, recorded=sent, also=[parcel, slow])) == ["unasked"]


def test_the_loser_of_a_race_is_taken_for_new_beside_a_step_that_is_left_out(run: Run) -> None:
    """No record says that yesterday's code has asked for it as well: `removed` does."""

    @activity
    async def slowly(order: str) -> str:
        await sleep("90 days")
        return order

    async def race(order: str) -> str:
        return await race_all("first", [charge(order, 1), slowly(order)])

    @order_workflow
    async def raced(order: str) -> str:
        await tell(order)
        return await race(order)

    today = order_workflow(race)
    assert checked(run, raced, recorded=raced, strict=True).differences == []
    assert "new:      activity 'slowly'" in str(failed(run, today, recorded=raced))
    assert checked(run, today, recorded=raced, removed=["tell"]).differences == []


def test_a_call_beside_one_of_its_name_that_is_to_be_retried_is_new(run: Run) -> None:
    """R11: what waits for its next attempt is known to have been asked for; what would run is not."""

    @activity(retry=Schedule.spaced("5 days"))
    async def call_up(order: str) -> None:
        raise RuntimeError("nobody is there")

    @order_workflow
    async def once(order: str) -> None:
        await call_up(order)

    @order_workflow
    async def twice(order: str) -> None:
        await asyncio.gather(call_up(order), call_up(f"{order} as well"))

    assert checked(run, once, recorded=once, days=1).differences == []
    [told] = checked(run, twice, recorded=once, days=1).differences
    assert told.message.startswith("activity 'call_up' is new.")
    assert re.search(r"test_replay_check\.py:\d+ in .*twice$", told.where)


def test_what_may_be_on_its_way_is_not_new(run: Run) -> None:
    """Where nothing says that it has come to rest, the turn behind the last entry may not be written down yet."""

    async def showing(order: str) -> str:
        amount = await reserve(order)
        publish("stage", "reserved")
        await sleep("10 days", name="window")
        return str(amount)

    today = order_workflow(showing)

    async def main() -> None:
        async with TestEngine([today]) as engine:
            handle = await today.start("a-17")
            await handle.result()
            record = await engine.record(handle.execution_id)
            assert record is not None
            entries = await journal_of(engine, record)
        ended = Recording.of(record, entries)
        assert [entry.name for entry in entries[:2]] == ["reserve", "publish:stage"]
        under_way = replace(ended, status="RUNNING", exit=None, waits=None)
        assert changes(replace(under_way, entries=entries[:1]), today, {}, frozenset()) == []
        # Behind it came another entry, so that turn is written down as it was.
        later = [entry._replace(seq=seq) for seq, entry in enumerate([entries[0], *entries[2:]], start=1)]
        assert [each.sort for each in changes(replace(under_way, entries=later), today, {}, frozenset())] == ["new"]

    run(main)


@pytest.mark.parametrize("how", ["timeout", "asyncio.sleep", "sleep"])
def test_a_wait_of_another_length_is_advised_what_can_be_done(run: Run, how: str) -> None:
    """R17: by its length a wait without a name is known, and nothing can say what it was called."""

    def waiting(days: int) -> WorkflowImplementation[[str], str]:
        @order_workflow
        async def waits(order: str) -> str:
            match how:
                case "timeout":
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(days * 86_400):
                            await asyncio.Event().wait()
                case "asyncio.sleep":
                    await asyncio.sleep(days * 86_400)
                case _:
                    await sleep(f"{days} days")
            return await charge(order, 1)

        return waits

    error = failed(run, waiting(5), recorded=waiting(3))
    assert [each.sort for each in error.report.failures] == ["redone"]
    assert re.search(r"test_replay_check\.py:\d+ in .*waits$", error.where)
    assert "patched(...)" in str(error)
    assert "formerly" not in str(error)


def test_a_timeout_of_another_length_is_named_beside_another_new_wait(run: Run) -> None:
    def waiting(days: int, *, times: int = 1) -> WorkflowImplementation[[str], str]:
        @order_workflow
        async def waits(order: str) -> str:
            reminder = asyncio.create_task(reminding(order, times=times))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(days * 86_400):
                    await asyncio.Event().wait()
            reminder.cancel()
            return order

        return waits

    error = failed(run, waiting(5, times=2), recorded=waiting(3))
    assert "new:      timer 'timeout:432000'" in str(error)


def reminding(order: str, *, times: int = 1) -> Coroutine[Any, Any, None]:
    async def remind() -> None:
        for number in range(times):
            await sleep("1 day", name=f"reminder {number}")
            await tell(order)

    return remind()


@order_workflow
async def with_a_reminder(order: str) -> str:
    reminder = asyncio.create_task(reminding(order))
    await sleep("3 days", name="long")
    reminder.cancel()
    return order


@order_workflow
async def with_a_log_and_a_reminder(order: str) -> str:
    await log(order)
    return await with_a_reminder.__wrapped__(order)


@order_workflow
async def with_a_pause_and_a_reminder(order: str) -> str:
    await sleep("20 days", name="pause")
    return await with_a_reminder.__wrapped__(order)


@order_workflow
async def with_a_check_and_a_reminder(order: str) -> str:
    if not await is_in_stock(order):
        return "sold out"
    return await with_a_reminder.__wrapped__(order)


@order_workflow
async def with_a_log_and_a_renamed_reminder(order: str) -> str:
    await log(order)
    reminder = asyncio.create_task(remind_by_log(order))
    await sleep("3 days", name="long")
    reminder.cancel()
    return order


async def remind_by_log(order: str) -> None:
    await sleep("1 day", name="reminder 0")
    await charge_card(order, 1)


@order_workflow
async def with_a_second_reminder(order: str) -> str:
    reminder = asyncio.create_task(reminding(order, times=2))
    await sleep("3 days", name="long")
    reminder.cancel()
    return order


@pytest.mark.parametrize(
    "today",
    [with_a_log_and_a_reminder, with_a_pause_and_a_reminder, with_a_check_and_a_reminder],
    ids=["activity", "timer", "unknown answer"],
)
@pytest.mark.parametrize("days", [None, 2], ids=["ended", "asleep"])
def test_a_step_in_front_of_what_runs_beside_the_body_is_only_new(run: Run, today: Any, days: int | None) -> None:
    """What a task beside the body has done is asked for behind it, though the body may end first on a whole journal."""
    report = checked(run, today, recorded=with_a_reminder, days=days)
    assert sorts(report) == ["new"]


@pytest.mark.parametrize("days", [None, 2], ids=["ended", "asleep"])
def test_a_renamed_step_fails_beside_the_body_and_behind_a_new_one(run: Run, days: int | None) -> None:
    error = failed(run, with_a_log_and_a_renamed_reminder, recorded=with_a_reminder, days=days)
    assert error.report.failures[0].sort == "redone"
    assert "recorded: activity 'tell'" in str(error)


@order_workflow
async def with_a_renamed_reminder(order: str) -> str:
    reminder = asyncio.create_task(remind_by_log(order))
    await sleep("3 days", name="long")
    reminder.cancel()
    return order


@pytest.mark.parametrize("days", [None, 2], ids=["ended", "asleep"])
def test_a_renamed_step_fails_though_the_body_ends_before_it_is_answered(run: Run, days: int | None) -> None:
    """On the whole journal it is given up with the body's end; at the point of its record it is asked for."""
    error = failed(run, with_a_renamed_reminder, recorded=with_a_reminder, days=days)
    assert error.report.failures[0].sort == "redone"
    assert "recorded: activity 'tell'" in str(error)
    assert "new:      activity 'charge_card'" in str(error)
    assert re.search(r"test_replay_check\.py:\d+ in remind_by_log$", error.where)
    said = checked(run, with_a_renamed_reminder, recorded=with_a_reminder, days=days, removed=["tell"])
    assert "redone" not in sorts(said)


def test_what_is_added_beside_the_body_and_was_due_before_its_end_is_new(run: Run) -> None:
    """A timer that was due before a recorded one fired was not set by the code that was recorded."""
    report = checked(run, with_a_second_reminder, recorded=with_a_reminder)
    assert sorts(report) == ["new", "new"]
    assert "timer 'reminder 1' is new" in report.differences[0].message
    assert "activity 'tell' is new" in report.differences[1].message
    assert failed(run, with_a_second_reminder, recorded=with_a_reminder, strict=True).report.failures[0].sort == "new"


def test_waits_that_were_given_up_are_not_new(run: Run) -> None:
    """A timeout that did not come, and a reminder that was cancelled, have no record, and never had."""

    @order_workflow
    async def impatient(order: str) -> str:
        reminder = asyncio.create_task(reminding(order, times=9))
        async with asyncio.timeout(86_400 * 5):
            await sleep("3 days", name="long")
        async with asyncio.timeout(3_600):
            await tell(order)
        reminder.cancel()
        return order

    assert checked(run, impatient, recorded=impatient, strict=True).differences == []


def test_a_renamed_step_fails_for_one_that_is_asleep_behind_it(run: Run) -> None:
    @order_workflow
    async def renamed_first(order: str) -> str:
        amount = len(await reserve_many.options(name="reserve_many")(order))
        await sleep("10 days", name="window")
        return await charge(order, amount)

    assert "recorded: activity 'reserve'" in str(failed(run, renamed_first, days=1))


@order_workflow
async def audited(order: str) -> str:
    await tell(order)
    await log(order)
    await sleep("10 days", name="window")
    return await charge(order, 3)


@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_a_step_that_is_removed_is_none_that_is_still_to_come(run: Run, days: int | None) -> None:
    """R8: what comes behind the wait in which it sleeps was not asked for by yesterday's code either, and is not redone."""

    @order_workflow
    async def unaudited(order: str) -> str:
        await tell(order)
        await sleep("10 days", name="window")
        return await charge(order, 3)

    assert sorts(checked(run, unaudited, recorded=audited, days=days)) == (
        ["unasked"] if days is None else ["new", "unasked"]
    )


def test_what_is_done_to_others_behind_its_wait_is_none_that_was_done(run: Run) -> None:
    """The same for executions that are started: one is not begun any more, and another one is still to come."""

    @order_workflow
    async def sends(order: str) -> str:
        await letter.start(order)
        await sleep("10 days", name="window")
        await parcel.start(order)
        return order

    @order_workflow
    async def sends_later(order: str) -> str:
        await sleep("10 days", name="window")
        await parcel.start(order)
        return order

    assert sorts(checked(run, sends_later, recorded=sends, also=[letter, parcel], days=1)) == ["new", "unasked"]


def test_a_step_under_another_name_is_found_behind_another_new_wait(run: Run) -> None:
    """A new wait around the old one is not yet over when that is, so nothing is known to be still to come."""

    @order_workflow
    async def renamed_behind(order: str) -> str:
        async def logs() -> None:
            await sleep("20 days", name="grace")
            await log.options(name="log_it")(order)

        logging = asyncio.ensure_future(logs())
        await tell(order)
        await sleep("10 days", name="window")
        await logging
        return await charge(order, 3)

    failure = failed(run, renamed_behind, recorded=audited, days=1).report.failures[0]
    assert failure.sort == "redone"
    assert "activity 'log_it'" in failure.message


def test_an_activity_that_is_asked_for_other_things_is_not_the_removed_one(run: Run) -> None:
    """Who gives a step another name keeps its input, but for an argument more or less."""

    @activity
    async def count(orders: list[str], most: int) -> None: ...

    @activity
    async def log_all(to: str, level: str) -> None: ...

    @order_workflow
    async def counted(order: str) -> str:
        await tell(order)
        await count(["a", "b"], 2)
        await sleep("10 days", name="window")
        return await charge(order, 3)

    @order_workflow
    async def logged(order: str) -> str:
        await tell(order)
        await log_all(order, "high")
        await sleep("10 days", name="window")
        return await charge(order, 3)

    assert sorts(checked(run, counted, recorded=audited)) == ["new", "unasked"]
    assert failed(run, logged, recorded=audited, days=1).report.failures[0].sort == "redone"


def test_new_tokens_are_signed_with_the_secret_that_is_given(run: Run) -> None:
    """R19: without one a body that gives out a token which expires would fail there, and ask for nothing behind it."""
    approval = DurableDeferred.make("approval", success=str)

    @order_workflow
    async def with_a_token(order: str) -> str:
        await log(approval.token(expires_in="3 days"))
        return await original(order)

    async def main(**options: Any) -> ReplayReport:
        async with TestEngine([yesterday]) as engine:
            handle = await yesterday.start("a-17")
            await handle.result()
            exported = await export_execution(engine, handle.execution_id)
        return await replay_check([with_a_token], exported, **options)

    assert sorts(run(lambda: main(token_secret="a secret of the tests"))) == ["new", "new"]
    assert sorts(run(main)) != ["new", "new"]
    with pytest.raises(UsageError, match="has at least 16 bytes"):
        run(lambda: main(token_secret="short"))


def test_a_difference_behind_a_new_token_is_found(run: Run) -> None:
    """R8: at an earlier point of the journal, which is replayed with the same keys."""
    approval = DurableDeferred.make("approval", success=str)

    @workflow(name="Mails", idempotency_key=lambda to: ",".join(sorted(to)))
    async def with_a_token(to: list[str]) -> int:
        approval.token(expires_in="3 days")
        for one in reversed(to):
            await tell(one)
        return len(to)

    options: dict[str, Any] = {"recorded": mails, "payload": ["ada", "bob"], "token_secret": "a secret of the tests"}
    assert failed(run, with_a_token, **options).report.failures[0].sort == "diverges"


def test_what_follows_from_a_made_up_value_may_be_the_old_step(run: Run) -> None:
    """Nobody knows what the new one would be asked with, so its input proves nothing."""

    @order_workflow
    async def renamed_both(order: str) -> str:
        amounts = await reserve_many.options(name="reserve_many")(f"{order}, all of it")
        await sleep("10 days", name="window")
        charged = await charge_card(order, sum(amounts))
        await tell(order)
        return charged

    failure = failed(run, renamed_both, removed=["reserve"]).report.failures[0]
    assert failure.sort == "redone"
    assert "activity 'charge_card'" in failure.message


def test_the_advice_names_what_formerly_does_to_another_step(run: Run) -> None:
    """R8a: said of another step, it would have the old result and never be called."""
    message = str(failed(run, renamed))
    assert message.index("under another name: say formerly=('charge',)") < message.index("If it is another step, never")
    assert "removed=('charge',)" in message


def test_of_several_new_steps_the_one_with_the_input_of_the_old_one_is_named(run: Run) -> None:
    @order_workflow
    async def renamed_behind_a_check(order: str) -> str:
        return await renamed.__wrapped__(order) if await is_in_stock(order) else "sold out"

    assert "new:      activity 'charge_card'" in str(failed(run, renamed_behind_a_check))


@pytest.mark.parametrize("days", [None, 1], ids=["ended", "asleep"])
def test_a_result_that_its_new_name_cannot_read_fails(run: Run, days: int | None) -> None:
    """R40: with `formerly` a step takes a record of another type, and would be held when it comes to that."""

    @activity(formerly=("reserve",))
    async def reserve_all(order: str) -> list[int]:
        return [1]

    @order_workflow
    async def listed(order: str) -> str:
        await sleep("10 days", name="window")
        return str(await reserve_all(order))

    failure = failed(run, listed, days=days).report.failures[0]
    assert failure.sort == "unreadable"
    assert "reserve_all" in failure.message


def test_another_input_fails_with_both(run: Run) -> None:
    """R8: the execution would be held."""
    error = failed(run, other_input)
    assert (error.recorded_input, error.asked_input) == ('{"order":"a-17","amount":4}', '{"order":"a-17","amount":5}')
    assert "amount: 4 → 5" in str(error)
    assert "test_replay_check.py:" in error.where
    assert error.report.failures[0].sort == "diverges"


def test_another_order_of_equal_steps_fails_although_the_whole_journal_fits(run: Run) -> None:
    """R8: one that had come as far as the first of them would be held."""
    error = failed(run, mails_backwards, recorded=mails, payload=["ada", "grace"])
    assert "an execution that has come as far as entry 1 would be held" in str(error)


def test_a_type_that_cannot_read_the_record_fails(run: Run) -> None:
    """R40."""
    error = failed(run, other_type)
    assert error.report.failures[0].sort == "unreadable"
    assert "reserve" in str(error)


def test_another_result_is_told(run: Run) -> None:
    assert sorts(checked(run, other_result)) == ["end"]
    assert "CHARGED 4" in str(failed(run, other_result, strict=True))


def test_the_report_can_be_read_and_written(run: Run) -> None:
    report = checked(run, with_a_log)
    assert json.loads(json.dumps(report.to_dict()))["differences"][0]["sort"] == "new"
    assert str(report).startswith("1 executions with 5 entries replayed: 0 failures, 2 differences\nnote (new) Order ")
    assert "FAILS (redone) Order" in str(failed(run, renamed).report)


def test_a_folder_of_exports_is_checked_without_an_engine(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with TestEngine([yesterday, mails]) as engine:
            for order in ("a-1", "a-2"):
                handle = await yesterday.start(order)
                await handle.result()
                await export_execution(engine, handle.execution_id, tmp_path / f"{order}.jsonl")
            other = await mails.start(["ada"])
            await other.result()
            text = await export_execution(engine, other.execution_id, tmp_path / "other.jsonl")

        report = await replay_check([yesterday], tmp_path)
        assert (report.replayed, report.entries, report.passed_over) == (2, 10, 1)
        assert (await replay_check([yesterday], tmp_path / "a-1.jsonl")).replayed == 1
        assert (await replay_check([mails], text)).replayed == 1
        with pytest.raises(ReplayCheckFailed, match="and 1 more; all are in the report") as found:
            await replay_check([renamed], tmp_path)
        assert len(found.value.report.failures) == 2
        with pytest.raises(UsageError, match="1 executions of other workflows"):
            await replay_check([mails], tmp_path / "a-1.jsonl")
        with pytest.raises(UsageError, match="no exported executions"):
            await replay_check([mails], await asyncio.to_thread(empty, tmp_path))

    run(main)


def empty(path: Path) -> Path:
    path = path / "empty"
    path.mkdir()
    return path


def test_what_has_not_begun_is_passed_over(run: Run) -> None:
    async def main() -> ReplayReport:
        async with WorkflowEngine.memory([yesterday, mails]) as engine:
            await yesterday.options(delay="1 day").start("a-17")
            await mails.execute(["ada"])
            return await replay_check([yesterday, mails], engine)

    report = run(main)
    assert (report.replayed, report.passed_over) == (1, 1)
    assert "1 passed over" in str(report)
