"""Races: the first success counts, it is recorded before anything depends on it, and the losers are gone by then (R21)."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from perdure import (
    DurableDeferred,
    JournalEntry,
    PayloadError,
    Status,
    TypedError,
    UsageError,
    WorkflowEngine,
    activity,
    current_engine,
    execution_id,
    race_all,
    sleep,
    workflow,
)

from tests.engine.lab import Gate, successes
from tests.engine.moments import stop_at_commit


class Nope(TypedError):
    which: str


class Data(BaseModel):
    mirror: str


class Mirror(Data):
    country: str


Approval = DurableDeferred.make("approval", success=str)
Other = DurableDeferred.make("other", success=str)
Go = DurableDeferred.make("go")


@activity
async def echo(text: str) -> str:
    return text


@activity(error=Nope)
async def refuse(which: str) -> str:
    raise Nope(which=which)


async def patience(hours: int) -> str:
    await sleep(f"{hours} hours", name=f"patience {hours}")
    return f"{hours} hours"


async def races(engine: WorkflowEngine, id: str) -> list[JournalEntry]:
    return [entry for entry in await engine.journal(id) if entry.kind == "race"]


# Who wins ----------------------------------------------------------------------------------------------


def test_the_first_success_wins_and_a_failure_is_ignored_while_another_can_still_succeed(corner_lab):
    """R21: the failure came first."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def fastest(key: str) -> str:
        return await race_all("mirrors", [refuse("a"), patience(3), patience(2), refuse("b")])

    async def main():
        async with lab.engine([fastest]) as engine:
            began = lab.clock.now()
            handle = await fastest.start("k")
            assert await lab.result(handle) == "2 hours"
            assert lab.clock.now() - began == 2 * 3_600_000
            (race,) = await races(engine, handle.execution_id)
            assert race.name == "raceAll/Activity/mirrors"

    lab.run(main)


def test_if_all_fail_the_one_error_surfaces_as_itself_and_several_as_a_group(corner_lab):
    """R21: and again after a restart."""
    lab = corner_lab

    async def fails() -> str:
        await sleep("1 hour")
        raise Nope(which="body")

    @workflow(idempotency_key=lambda key: key)
    async def unlucky(key: str) -> list[str]:
        said = []
        try:
            await race_all("single", [refuse("alone")])
        except Nope as error:
            said.append(error.which)
        try:
            await DurableDeferred.race_all("several", [refuse("a"), fails(), refuse("b")], success=str, error=Nope)
        except ExceptionGroup as group:
            said += [error.which for error in group.exceptions if isinstance(error, Nope)]
        await Go
        return said

    async def main():
        async with lab.engine([unlucky]) as engine:
            handle = await unlucky.start("k")
            await lab.skip("2 hours")
            found = await races(engine, handle.execution_id)
            assert [race.name for race in found] == ["raceAll/Activity/single", "raceAll/several"]
        async with lab.engine([unlucky]):
            await Go.succeed(Go.token_for(unlucky, "k"), None)
            assert await lab.result(unlucky.handle(handle.execution_id)) == ["alone", "a", "body", "b"]

    lab.run(main)


def test_a_deferred_wins_against_a_slow_activity(corner_lab):
    """R21, R22: whose attempt is cut off and recorded as nothing."""
    lab = corner_lab
    gate, then = Gate(), Gate()
    cut = []

    @activity
    async def stand() -> None:
        await then.wait()

    @activity
    async def slow() -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cut.append("slow")
            raise
        return "slow"

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> str:
        first = await race_all("either", [slow(), Approval])
        await stand()
        return first

    async def main():
        async with lab.engine([either]) as engine:
            handle = await either.start("k")
            await lab.settle()
            assert gate.entered == 1
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            # While its execution goes on.
            assert (cut, then.entered) == (["slow"], 1)
            then.open()
            assert await lab.result(handle) == "ada"
            assert [step[:2] for step in await lab.steps(engine, handle.execution_id)] == [
                ("deferred", "approval"),
                ("race", "raceAll/Activity/either"),
                ("activity", "stand"),
            ]

    lab.run(main)


@pytest.mark.parametrize("after", ["59 minutes", None])
def test_a_race_of_a_deferred_and_a_timer(corner_lab, after):
    """R21, R47: whichever comes first, also where nobody runs it meanwhile."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> str:
        first = await DurableDeferred.race_all("decision", [Approval, patience(1)], success=str)
        await Go
        return first

    async def main():
        async with lab.engine([either]):
            handle = await either.start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
        async with lab.engine([]):
            if after is not None:
                await lab.skip(after)
                await Approval.succeed(Approval.token_for(either, "k"), "ada")
            await lab.skip("2 hours")
            await Approval.succeed(Approval.token_for(either, "k"), "too late")
        async with lab.engine([either]):
            handle = either.handle(handle.execution_id)
            await lab.settle()
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(handle) == ("1 hours" if after is None else "ada")

    lab.run(main)


def test_two_that_are_there_before_the_race_begins_are_taken_in_the_order_of_the_asking(corner_lab):
    """R21: alike on every replay."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> list[str]:
        await Go
        first = await race_all("one way", [Approval, Other])
        second = await race_all("other way", [Other, Approval])
        await sleep("2 hours")
        return [first, second]

    async def main():
        async with lab.engine([either]):
            handle = await either.start("k")
            await Other.succeed(handle.token(Other), "other")
            await Approval.succeed(handle.token(Approval), "approval")
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(handle) == ["approval", "other"]

    lab.run(main)


# What is recorded, and when --------------------------------------------------------------------------------


def test_the_winner_is_durable_before_anything_that_depends_on_it_happens(corner_lab):
    """R21: the effect finds it in the journal."""
    lab = corner_lab
    seen = []

    @activity
    async def depends(value: str) -> str:
        seen.extend(entry.name for entry in await current_engine().journal(execution_id()) if entry.kind == "race")
        return value

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> list[str]:
        first = await depends(await race_all("first", [echo("x"), patience(1)]))
        second = await depends(await DurableDeferred.race_all("second", [patience(2), echo("y")], success=str))
        return [first, second]

    async def main():
        async with lab.engine([both]):
            assert await lab.finish(both.execute("k")) == ["x", "y"]
            assert seen == ["raceAll/Activity/first", "raceAll/Activity/first", "raceAll/second"]

    lab.run(main)


def test_the_value_comes_as_its_type_live_and_on_replay(corner_lab):
    """R10, R21: of the race that has one, and of an activity's own."""
    lab = corner_lab
    kinds: list[list[str]] = []

    @activity
    async def fetch(mirror: str) -> Data:
        return Data(mirror=mirror)

    async def later() -> Data:
        await sleep("1 hour")
        return Data(mirror="late")

    async def more() -> Data:
        # Recorded as what is declared.
        return Mirror(mirror="b", country="se")

    async def plain() -> dict[str, Any]:
        return {"mirror": "plain"}

    @workflow(idempotency_key=lambda key: key)
    async def typed(key: str) -> list[str]:
        values = [
            await race_all("own", [fetch("a"), later()]),
            await DurableDeferred.race_all("given", [later(), more()], success=Data),
            await race_all("coroutine", [plain(), later()]),
        ]
        kinds.append([type(value).__name__ for value in values])
        await Go
        return [value.mirror if isinstance(value, Data) else value["mirror"] for value in values]

    async def main():
        async with lab.engine([typed]):
            handle = await typed.start("k")
            await lab.settle()
        async with lab.engine([typed]):
            await Go.succeed(Go.token_for(typed, "k"), None)
            assert await lab.result(typed.handle(handle.execution_id)) == ["a", "b", "plain"]
        assert len(kinds) >= 2
        assert all(kind == ["Data", "Data", "dict"] for kind in kinds)

    lab.run(main)


def test_a_winner_that_cannot_be_recorded_is_said_and_the_losers_are_gone(corner_lab):
    """R21."""
    lab = corner_lab
    ended = []

    async def odd() -> object:
        return object()

    async def loser() -> None:
        try:
            await sleep("1 hour")
        finally:
            ended.append("loser")

    @workflow(idempotency_key=lambda key: key)
    async def fails(key: str) -> str:
        try:
            await race_all("odd", [loser(), odd()])
        except PayloadError:
            return f"refused after {ended[-1]}"
        return "?"

    async def main():
        async with lab.engine([fails]):
            assert await lab.finish(fails.execute("k")) == "refused after loser"

    lab.run(main)


def test_races_of_one_name_are_told_apart_by_their_order(corner_lab):
    """R8, R21."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def thrice(key: str) -> list[str]:
        got = [await race_all("again", [echo(text), patience(1)]) for text in ("a", "b", "c")]
        await sleep("2 hours")
        return got

    async def main():
        async with lab.engine([thrice]) as engine:
            handle = await thrice.start("k")
            assert await lab.result(handle) == ["a", "b", "c"]
            assert [race.occurrence for race in await races(engine, handle.execution_id)] == [1, 2, 3]

    lab.run(main)


# Losers ------------------------------------------------------------------------------------------------------


def test_the_losers_clean_up_ends_before_the_race_goes_on(corner_lab):
    """R21: also where it takes activities and time."""
    lab = corner_lab
    log = []

    @activity
    async def note(what: str) -> str:
        log.append(what)
        return what

    async def loser(name: str) -> str:
        try:
            return await patience(5)
        finally:
            await note(f"{name} cleans up")
            await sleep("1 hour", name=f"clean {name}")
            await note(f"{name} is clean")

    @workflow(idempotency_key=lambda key: key)
    async def tidy(key: str) -> str:
        first = await race_all("tidy", [loser("a"), echo("quick"), loser("b")])
        await note("race over")
        return first

    async def main():
        async with lab.engine([tidy]) as engine:
            handle = await tidy.start("k")
            assert await lab.result(handle) == "quick"
            assert sorted(log[:2]) == ["a cleans up", "b cleans up"]
            assert sorted(log[2:4]) == ["a is clean", "b is clean"]
            assert log[4:] == ["race over"]
            # Decided when the first had come in, whatever time the losers took.
            kinds = [step[:2] for step in await lab.steps(engine, handle.execution_id)]
            assert kinds.index(("race", "raceAll/Activity/tidy")) == 1

    lab.run(main)


def test_a_losers_result_that_comes_in_the_same_moment_is_recorded_as_nothing(corner_lab):
    """R21: both are there before the turn; the first is fed, and nobody waits for the second."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def stand(name: str) -> str:
        await gate.wait()
        return name

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> str:
        return await race_all("either", [stand("a"), stand("b")])

    async def main():
        async with lab.engine([either]) as engine:
            handle = await either.start("k")
            await lab.settle()
            gate.open()
            winner = await lab.result(handle)
            assert successes(await engine.journal(handle.execution_id)) == [winner]

    lab.run(main)


def test_a_loser_that_fails_while_it_cleans_up_changes_nothing(corner_lab):
    """R21."""
    lab = corner_lab

    async def loser() -> str:
        try:
            return await patience(1)
        finally:
            raise RuntimeError("dirty")

    async def stubborn() -> str:
        try:
            return await patience(1)
        except asyncio.CancelledError:
            return "too late"

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> str:
        return await race_all("either", [loser(), echo("quick"), stubborn()])

    async def main():
        async with lab.engine([either]):
            assert await lab.finish(either.execute("k")) == "quick"

    lab.run(main)


# Within each other, and ended from outside ---------------------------------------------------------------------


def test_a_race_within_a_race(corner_lab):
    """R21: the inner one's losers are gone before the outer one goes on; each is recorded."""
    lab = corner_lab
    log = []

    async def loser(name: str, hours: int) -> str:
        try:
            return await patience(hours)
        finally:
            log.append(name)

    async def inner(name: str, *hours: int) -> str:
        return await race_all(name, [loser(f"{name} {hour}", hour) for hour in hours])

    @workflow(idempotency_key=lambda key: key)
    async def outer(key: str) -> str:
        log.clear()
        won = await race_all("outer", [inner("left", 4, 2), inner("right", 3, 5), loser("alone", 6)])
        log.append("over")
        await Go
        return won

    async def main():
        async with lab.engine([outer]) as engine:
            handle = await outer.start("k")
            await lab.skip("7 hours")
            assert log[-1] == "over"
            assert sorted(log[:-1]) == ["alone", "left 2", "left 4", "right 3", "right 5"]
            names = [race.name for race in await races(engine, handle.execution_id)]
            assert names == ["raceAll/Activity/left", "raceAll/Activity/outer"]
        async with lab.engine([outer]):
            await Go.succeed(Go.token_for(outer, "k"), None)
            assert await lab.result(outer.handle(handle.execution_id)) == "2 hours"

    lab.run(main)


def test_a_race_that_a_timeout_ends_is_recorded_as_nothing(corner_lab):
    """R21: its branches are cancelled, their clean-up ends, and the next race is another one."""
    lab = corner_lab
    ended = []

    async def branch(name: str) -> str:
        try:
            return await patience(5)
        finally:
            ended.append(name)

    @workflow(idempotency_key=lambda key: key)
    async def impatient(key: str) -> str:
        ended.clear()
        try:
            async with asyncio.timeout(7_200):
                await race_all("slow", [branch("a"), branch("b")])
        except TimeoutError:
            assert sorted(ended) == ["a", "b"]
        return await race_all("slow", [echo("then"), branch("c")])

    async def main():
        async with lab.engine([impatient]) as engine:
            handle = await impatient.start("k")
            assert await lab.result(handle) == "then"
            assert len(await races(engine, handle.execution_id)) == 1

    lab.run(main)


def test_a_race_is_over_as_it_was_recorded_though_the_code_has_changed(corner_lab):
    """R21: today's branches would not have ended it by now; it ends with the recorded exit, and they are cancelled."""
    lab = corner_lab
    cancelled = []

    async def never() -> str:
        try:
            return await Other
        finally:
            cancelled.append("never")

    @workflow(name="either", idempotency_key=lambda key: key)
    async def old(key: str) -> str:
        first = await DurableDeferred.race_all("decision", [Approval, patience(2)], success=str)
        await Go
        return first

    @workflow(name="either", idempotency_key=lambda key: key)
    async def new(key: str) -> str:
        first = await DurableDeferred.race_all("decision", [never(), patience(9)], success=str)
        cancelled.append("over")
        await Go
        return first

    async def main():
        async with lab.engine([old]):
            handle = await old.start("k")
            await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
        async with lab.engine([new]):
            handle = new.handle(handle.execution_id)
            # It is run again only when something wakes it.
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(handle) == "ada"
            assert cancelled[:2] == ["never", "over"]

    lab.run(main)


def test_a_race_that_ends_otherwise_with_todays_code_gives_what_was_recorded(corner_lab):
    """R21: what depended on it has happened."""
    lab = corner_lab

    @workflow(name="either", idempotency_key=lambda key: key)
    async def old(key: str) -> str:
        await Go
        first = await race_all("decision", [Approval, Other])
        await sleep("2 hours")
        return first

    @workflow(name="either", idempotency_key=lambda key: key)
    async def new(key: str) -> str:
        await Go
        first = await race_all("decision", [Other, Approval][::-1] if key == "same" else [patience(9), echo("instead")])
        await sleep("2 hours")
        return first

    async def main():
        async with lab.engine([old]):
            for key in ("same", "changed"):
                handle = await old.start(key)
                for deferred in (Approval, Other):
                    await deferred.succeed(handle.token(deferred), deferred.name)
                await Go.succeed(handle.token(Go), None)
            await lab.settle()
        async with lab.engine([new]):
            assert await lab.finish(new.execute("same")) == "approval"
            # The first branch had won; today it is another one.
            assert await lab.finish(new.execute("changed")) == "approval"

    lab.run(main)


def test_what_cannot_race_is_refused_and_outside_of_a_body_it_just_races(corner_lab):
    """API 3: nothing is recorded, nothing is durable there."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def empty(key: str) -> str:
        try:
            await race_all("nothing", [])
        except UsageError as error:
            return str(error)
        return "?"

    async def quick() -> str:
        return "quick"

    async def main():
        async with lab.engine([empty]):
            assert "no branches" in await lab.finish(empty.execute("k"))
            never = asyncio.get_running_loop().create_future()
            assert await race_all("outside", [never, quick()]) == "quick"
            assert never.cancelled()

    lab.run(main)


# Crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [True, False], ids=["behind it", "before it"])
def test_a_race_comes_to_one_end_wherever_its_worker_ends(corner_lab, written):
    """R21, R41: at every commit in turn, written or not; what was seen of the winner stays so."""
    lab = corner_lab
    seen: dict[str, set[str]] = {}

    @activity
    async def use(key: str, value: str) -> str:
        seen.setdefault(key, set()).add(value)
        return value

    async def tidy() -> str:
        try:
            return await patience(3)
        finally:
            await echo("tidy")

    @workflow(idempotency_key=lambda key: key)
    async def either(key: str) -> str:
        first = await race_all("first", [tidy(), Approval, Other])
        return await use(key, first) + await use(key, await race_all("second", [patience(1), echo("x")]))

    async def main():
        for number in range(12):
            key = str(number)
            async with lab.doomed([either]) as engine:
                handle = await either.start(key)
                await lab.settle()
                stop_at_commit(lab.probe(engine), number, written=written)
                await Approval.succeed(handle.token(Approval), "ada")
                await lab.settle()
            async with lab.engine([either]):
                await Other.succeed(Other.token_for(either, key), "other")
                value = await lab.result(either.handle(handle.execution_id))
                assert value == "adax"
                assert seen[key] == {"ada", "x"}

    lab.run(main)
