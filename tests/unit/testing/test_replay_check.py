"""`replay_check`: today's code against what yesterday's has recorded."""

import asyncio
import contextlib
import json
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    NonDeterminismError,
    UsageError,
    WorkflowEngine,
    WorkflowImplementation,
    activity,
    patched,
    sleep,
    workflow,
)
from perdure.testing import TestEngine, export_execution
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
    run: Run, today: Any, *, recorded: Any = yesterday, payload: Any = "a-17", days: int | None = None, **options: Any
) -> ReplayReport:
    """Run the recorded code, to its end or for some days, then check today's."""

    async def main() -> ReplayReport:
        async with TestEngine([recorded], skips=days is None) as engine:
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
