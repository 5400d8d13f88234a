"""Races: which branch counts, what becomes of the others, and what is recorded (R21)."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import (
    Activity,
    Defect,
    DefinitionError,
    DurableDeferred,
    PayloadError,
    TypedError,
    UsageError,
    activity,
    race_all,
)

from tests.unit.definitions.fakes import FakeHost, in_body


class Page(BaseModel):
    text: str


class Gone(TypedError):
    url: str


@activity(error=Gone)
async def fetch(url: str) -> Page:
    return Page(text=url)


@activity
async def count(url: str) -> int:
    return len(url)


@activity(name="fetch")
async def mirror(url: str) -> str:
    return url


Answer = DurableDeferred.make("answer", success=int)
LABEL = "raceAll/Activity/mirrors"


async def gives(value: Any, *, after: int = 0) -> Any:
    for _ in range(after):
        await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


async def never() -> Any:
    await asyncio.get_running_loop().create_future()


def raced(host: FakeHost, *make: Callable[[], Any], name: str = "mirrors") -> Any:
    """A race in the body of this host. Its branches are made there, as a body makes them."""
    return in_body(host, lambda: race_all(name, [each() for each in make]))


def recorded(exit: Any) -> FakeHost:
    """A host whose journal has the exit of the race, which is fed before any branch has ended."""
    host = FakeHost()
    real = host.race

    def race(name: str, number: int, /) -> "asyncio.Future[bytes]":
        future = real(name, number)
        host.decided[name, number] = json.dumps(exit).encode()
        asyncio.get_running_loop().call_later(
            0.001, lambda: future.done() or future.set_result(host.decided[name, number])
        )
        return future

    host.race = race  # pyright: ignore[reportAttributeAccessIssue]
    return host


# Which branch counts -------------------------------------------------------------------------------


def test_the_first_success_counts_and_is_recorded():
    host = FakeHost()
    assert raced(host, never, lambda: gives("b", after=2), lambda: gives("c", after=5)) == "b"
    assert host.decided == {(LABEL, 1): b'{"success":{"branch":1,"value":"b"}}'}


def test_the_order_of_ending_counts_and_not_that_of_the_branches():
    assert raced(FakeHost(), lambda: gives("a", after=3), lambda: gives("b", after=1)) == "b"

    async def both() -> Any:
        first, second = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
        # Both end before the race is looked at again.
        asyncio.get_running_loop().call_soon(lambda: (second.set_result("second"), first.set_result("first")))
        return await race_all("mirrors", [first, second])

    assert in_body(FakeHost(), both) == "second"


def test_a_failed_branch_is_ignored_while_another_can_still_succeed():
    assert raced(FakeHost(), lambda: gives(ValueError("a")), lambda: gives("b", after=3)) == "b"


def test_a_branch_that_cancels_itself_has_failed():
    assert raced(FakeHost(), lambda: gives(asyncio.CancelledError()), lambda: gives("b", after=3)) == "b"


def test_one_error_surfaces_as_itself():
    host, error = FakeHost(), ValueError("a")
    with pytest.raises(ValueError, match="a") as raised:
        raced(host, lambda: gives(error))
    assert raised.value is error
    (raw,) = host.decided.values()
    assert b'"die"' in raw


def test_several_errors_are_a_group_and_cancellations_are_left_out():
    host = FakeHost()
    with pytest.raises(ExceptionGroup) as raised:
        raced(
            host,
            lambda: gives(ValueError("a"), after=1),
            lambda: gives(Gone(url="b")),
            lambda: gives(asyncio.CancelledError()),
        )
    assert [type(error) for error in raised.value.exceptions] == [ValueError, Gone]
    (raw,) = host.decided.values()
    assert len(json.loads(raw)["failure"]) == 2
    with pytest.raises(Gone):
        raced(FakeHost(), lambda: gives(Gone(url="b")), lambda: gives(asyncio.CancelledError()))


def test_a_race_in_which_all_were_cancelled_is_cancelled():
    host = FakeHost()
    with pytest.raises(asyncio.CancelledError):
        raced(host, lambda: gives(asyncio.CancelledError()))
    assert host.decided == {(LABEL, 1): b'{"failure":[{"interrupt":{}}]}'}


# What races ----------------------------------------------------------------------------------------


def test_whatever_can_be_awaited_races():
    for branch in (
        lambda: mirror("a"),
        lambda: Activity.make("fetch", success=str, execute=lambda: "x"),
        lambda: asyncio.ensure_future(gives("x")),
        lambda: DurableDeferred.make("fetch", success=str),
    ):
        host = FakeHost({"fetch": ["x"]})
        assert raced(host, never, branch) == "x"


def test_an_activitys_value_is_recorded_by_its_own_type():
    host = FakeHost({"fetch": [Page(text="x")]})
    assert raced(host, never, lambda: fetch("a")) == Page(text="x")
    assert host.decided == {(LABEL, 1): b'{"success":{"branch":1,"value":{"text":"x"}}}'}


def test_a_race_outside_of_a_body_just_races():
    async def outside() -> Any:
        return await race_all("mirrors", [never(), gives(object)])

    assert asyncio.run(outside()) is object
    assert asyncio.run(DurableDeferred.race_all("m", [gives("5")], success=int)) == 5


def test_each_race_of_a_name_is_one_of_its_own():
    host = FakeHost()

    async def body() -> list[Any]:
        return [await race_all("mirrors", [gives(1)]), await race_all("mirrors", [gives(2)])]

    assert in_body(host, body) == [1, 2]
    assert [number for _, number in host.decided] == [1, 2]


@pytest.mark.parametrize("branches", [[], ()])
def test_a_race_without_branches_would_never_end(branches: Any):
    with pytest.raises(UsageError, match='Race "mirrors" has no branches'):
        in_body(FakeHost(), lambda: race_all("mirrors", branches))


def test_what_cannot_be_awaited_does_not_race():
    with pytest.raises(UsageError, match="5 cannot be awaited"):
        in_body(FakeHost(), lambda: race_all("mirrors", [5]))  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_the_name_of_a_race_is_checked_at_the_door():
    with pytest.raises(DefinitionError, match="The name of a race"):
        in_body(FakeHost(), lambda: race_all("", [Answer]))


# The losers ----------------------------------------------------------------------------------------


def test_losers_are_cancelled_and_their_clean_up_ends_before_the_race_goes_on():
    host, seen = FakeHost(), []

    async def loser() -> None:
        try:
            await never()
        finally:
            seen.append(bool(host.decided))  # the winner is recorded by now
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def body() -> None:
        await race_all("mirrors", [loser(), gives("b", after=2)])
        seen.append("goes on")

    in_body(host, body)
    assert seen == [True, "cleaned up", "goes on"]


def test_what_a_loser_raises_in_its_clean_up_is_nobodys_concern(caplog: pytest.LogCaptureFixture):
    async def loser() -> None:
        try:
            await never()
        finally:
            raise ValueError("in the clean-up")

    assert raced(FakeHost(), loser, lambda: gives("b", after=2)) == "b"
    assert caplog.records == []


def test_cancelling_a_race_cancels_its_branches_and_waits_for_them():
    host, seen = FakeHost(), []

    async def slow() -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def body() -> str:
        try:
            async with asyncio.timeout(0.001):
                await race_all("mirrors", [slow(), slow()])
        except TimeoutError:
            return ", ".join(seen)  # seen here: at its end the loop itself would cancel what is left
        return ""

    assert in_body(host, body) == "cleaned up, cleaned up"
    assert host.decided == {}


def test_also_a_second_cancellation_waits_for_the_clean_up():
    seen = []

    async def stubborn(end: asyncio.Event) -> None:
        try:
            await never()
        finally:
            await end.wait()
            seen.append("cleaned up")

    async def body() -> None:
        end = asyncio.Event()
        race = asyncio.ensure_future(race_all("mirrors", [stubborn(end), gives("b", after=1)]))
        for _ in range(5):
            await asyncio.sleep(0)
        race.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not race.done()
        end.set()
        with pytest.raises(asyncio.CancelledError):
            await race

    in_body(FakeHost(), body)
    assert seen == ["cleaned up"]


def test_a_value_that_cannot_be_recorded_ends_the_branches_too():
    ended = []

    async def loser() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    async def body() -> None:
        with pytest.raises(PayloadError, match=r"branch 1 cannot be recorded.*success="):
            await race_all("mirrors", [loser(), gives(object(), after=2)])
        assert ended == [True]

    in_body(FakeHost(), body)


# The record ----------------------------------------------------------------------------------------


def test_the_recorded_exit_ends_a_race_that_changed_code_has_not_ended():
    host, ended = recorded({"success": {"branch": 1, "value": {"text": "x"}}}), []

    async def loser() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    assert raced(host, loser, lambda: fetch("a")) == Page(text="x")
    assert ended == [True]


def test_the_recorded_branch_decides_by_whose_type_the_value_is_read():
    assert raced(recorded({"success": {"branch": 0, "value": 7}}), lambda: count("a"), lambda: fetch("a")) == 7
    assert raced(recorded({"success": {"branch": 1, "value": 7}}), lambda: fetch("a"), lambda: Answer) == 7
    assert raced(recorded({"success": {"branch": 1, "value": {"a": 1}}}), lambda: fetch("a"), never) == {"a": 1}
    with pytest.raises(PayloadError):
        raced(recorded({"success": {"branch": 0, "value": 7}}), lambda: fetch("a"))
    with pytest.raises(PayloadError, match="branch 2 won, and there is none today"):
        raced(recorded({"success": {"branch": 2, "value": 7}}), lambda: fetch("a"))


def test_a_recorded_failure_is_raised_as_its_own_class():
    failed = {"failure": [{"fail": {"tag": "Gone", "error": {"url": "a"}}}]}
    with pytest.raises(Gone):
        raced(recorded(failed), lambda: fetch("a"), never)
    with pytest.raises(Defect):
        raced(recorded({"failure": [{"die": {"type": "ValueError", "message": "", "traceback": ""}}]}), never)


def test_what_is_recorded_counts_where_changed_code_comes_to_another_end():
    host = FakeHost()
    host.decided[LABEL, 1] = b'{"success":{"branch":1,"value":"b"}}'
    assert raced(host, lambda: gives("a"), never) == "b"
    host = FakeHost()
    host.decided[LABEL, 1] = b'{"success":{"branch":1,"value":"b"}}'
    with_failures = (lambda: gives(ValueError("a")), lambda: gives(ValueError("b")))
    assert raced(host, *with_failures) == "b"


def test_what_losers_come_to_afterwards_is_no_part_of_the_race():
    async def late() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            return "late"
        return ""

    assert raced(recorded({"success": {"branch": 1, "value": "b"}}), late, never) == "b"
    assert raced(FakeHost(), late, lambda: gives("b", after=2)) == "b"


def test_where_the_end_is_the_same_its_own_value_is_given():
    host = FakeHost()
    host.decided[LABEL, 1] = b'{"success":{"branch":0,"value":{"text":"x"}}}'
    assert raced(host, lambda: gives(Page(text="x"))) == Page(text="x")
    # The traceback of a defect is not the same text everywhere; the error that the branch raised is.
    host = FakeHost()
    host.decided[LABEL, 1] = b'{"failure":[{"die":{"type":"ValueError","message":"a","traceback":"elsewhere"}}]}'
    with pytest.raises(ValueError, match="a"):
        raced(host, lambda: gives(ValueError("a")))


def test_errors_that_cannot_be_recorded_are_recorded_as_a_defect():
    @activity(error=LookupError)
    async def look() -> None: ...

    host = FakeHost({"look": [LookupError(object())]})
    with pytest.raises(LookupError):
        raced(host, look)
    (raw,) = host.decided.values()
    assert json.loads(raw)["failure"][0]["die"]["type"] == "LookupError"


# DurableDeferred.race_all ----------------------------------------------------------------------------


def test_a_race_with_types_gives_what_a_replay_would_give():
    host = FakeHost()

    async def body() -> Any:
        return await DurableDeferred.race_all("pages", [gives({"text": "x"}), never()], success=Page)

    assert in_body(host, body) == Page(text="x")
    assert host.decided == {("raceAll/pages", 1): b'{"success":{"branch":0,"value":{"text":"x"}}}'}


def test_a_race_with_types_refuses_other_values():
    with pytest.raises(PayloadError, match="branch 0 cannot be recorded"):
        in_body(FakeHost(), lambda: DurableDeferred.race_all("pages", [gives(5)], success=Page))


def test_a_race_with_types_records_its_declared_errors_as_themselves():
    host = FakeHost()
    with pytest.raises(Gone):
        in_body(host, lambda: DurableDeferred.race_all("pages", [gives(Gone(url="a"))], success=Page, error=Gone))
    (raw,) = host.decided.values()
    assert json.loads(raw)["failure"] == [{"fail": {"tag": "Gone", "error": {"url": "a"}}}]
