"""Deferreds: who completes them, when, and what reaches the body, whatever fails meanwhile (R14, R18, R20, R22, R47)."""

import asyncio

import pytest

from perdure import (
    ActivityTimeout,
    Cause,
    Defect,
    DurableDeferred,
    ExecutionNotFoundError,
    Failure,
    Interrupted,
    PayloadError,
    Status,
    Success,
    TypedError,
    activity,
    idempotency_key,
    race_all,
    sleep,
    workflow,
)
from perdure._model.status import is_final

from tests.engine.lab import Gate, successes, until


class Rejected(TypedError):
    reason: str


Approval = DurableDeferred.make("approval", success=str, error=Rejected)
Go = DurableDeferred.make("go")


@workflow(idempotency_key=lambda key: key, error=Rejected)
async def request(key: str) -> str:
    return await Approval


@activity
async def echo(text: str) -> str:
    return text


# From the completion to the body ----------------------------------------------------------------------


def test_whom_a_completion_wakes_is_claimed_along_with_it(lab):
    """It runs on without another round: a write to the disk less, which is a third of a round trip."""

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            await lab.settle()
            hold = lab.probe(engine).hold("deliver")
            telling = asyncio.create_task(Approval.succeed(handle.token(Approval), "yes"))
            await until(lambda: hold.kept)
            assert await lab.finish(handle.result()) == "yes"
            assert not telling.done()
            hold.release()
            assert await telling

    lab.run(main)


def test_a_claim_along_that_fails_is_made_up_for_by_the_next_round(lab):
    """It is a short cut: the completion stands, and its sender hears nothing of it."""

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            await lab.settle()
            lab.probe(engine).fail("claim", times=2)
            assert await Approval.succeed(handle.token(Approval), "yes")
            assert await lab.finish(handle.result()) == "yes"

    lab.run(main)


def test_two_claims_at_once_do_not_fill_the_same_room(lab):
    """A completion that comes while its neighbour is being claimed waits for the answer: one place, one execution."""
    running: list[str] = []
    gate = Gate()

    @activity
    async def work(key: str) -> None:
        running.append(key)
        await gate.wait()
        running.remove(key)

    @workflow(idempotency_key=lambda key: key)
    async def wait_and_work(key: str) -> str:
        await Go
        await work(key)
        return key

    async def main():
        async with lab.engine([wait_and_work], admission=1) as engine:
            handles = [await wait_and_work.start(key) for key in ("a", "b")]
            await lab.settle()
            hold = lab.probe(engine).hold("claim")
            for handle in handles:
                assert await Go.succeed(handle.token(Go), None)
            await until(lambda: hold.kept)
            await lab.settle()
            hold.release()
            await lab.settle()
            assert len(running) == 1
            gate.open()
            assert [await lab.finish(handle.result()) for handle in handles] == ["a", "b"]

    lab.run(main)


# One value per name, first write wins ------------------------------------------------------------------


def test_the_first_completion_wins_and_later_ones_change_nothing(corner_lab):
    """R18: False for those that come later, also once the execution has ended."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            token = handle.token(Approval)
            assert await Approval.succeed(token, "ada")
            assert not await Approval.succeed(token, "bob")
            assert not await Approval.fail(token, Rejected(reason="late"))
            assert await lab.result(handle) == "ada"
            assert not await Approval.succeed(token, "eve")
            assert await lab.steps(engine, handle.execution_id) == [("deferred", "approval", 0)]

    lab.run(main)


def test_of_completions_at_the_same_moment_one_wins(corner_lab):
    """R18: it alone says True, and its value is what the body gets."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            handle = await request.start("k")
            token = handle.token(Approval)
            names = [f"n{number}" for number in range(20)]
            won = await asyncio.gather(*(Approval.succeed(token, name) for name in names))
            assert sum(won) == 1
            assert await lab.result(handle) == names[won.index(True)]

    lab.run(main)


def test_a_completion_may_come_before_the_await_and_is_there_for_every_await(corner_lab):
    """R18."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def prepare() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def slow(key: str) -> list[str]:
        await prepare()
        first = await Approval
        await sleep("2 hours")
        return [first, await Approval, *await asyncio.gather(Approval.wait(), Approval.wait())]

    async def main():
        async with lab.engine([slow]) as engine:
            handle = await slow.start("k")
            await lab.settle()
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            gate.open()
            assert await lab.result(handle) == ["ada"] * 4
            kinds = [step[:2] for step in await lab.steps(engine, handle.execution_id)]
            assert kinds.count(("deferred", "approval")) == 1

    lab.run(main)


def test_a_completion_may_come_before_a_stored_execution_first_runs(corner_lab):
    """R18: a delayed one."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            handle = await request.options(delay="1 hour").start("k")
            assert await Approval.succeed(handle.token(Approval), "ada")
            # It is not begun for that before its time.
            await lab.skip("59 minutes")
            assert await handle.status() is Status.SUSPENDED
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_client_without_the_body_starts_and_completes(file_lab):
    """R3, R18: before the first claim; the worker that comes later finds both."""
    lab = file_lab

    async def main():
        async with lab.engine([]):
            handle = await request.start("k")
            assert await handle.status() is Status.PENDING
            assert await Approval.succeed(Approval.token_from_payload(workflow=request, payload="k"), "ada")
            assert await handle.status() is Status.PENDING
        async with lab.engine([request]):
            assert await lab.result(request.handle(handle.execution_id)) == "ada"

    lab.run(main)


def test_a_client_without_the_body_wakes_what_was_suspended_before(corner_lab):
    """R18."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            handle = await request.start("k")
            await lab.settle()
        async with lab.engine([]):
            assert await Approval.succeed(Approval.token_from_payload(workflow=request, payload="k"), "ada")
            assert await request.handle(handle.execution_id).status() is Status.PENDING
        async with lab.engine([request]):
            assert await lab.result(request.handle(handle.execution_id)) == "ada"

    lab.run(main)


def test_an_unknown_execution_is_said_and_nothing_is_stored(corner_lab):
    """R18: what begins under that id later waits all the same."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            token = Approval.token_from_payload(workflow=request, payload="k")
            with pytest.raises(ExecutionNotFoundError) as error:
                await Approval.succeed(token, "ada")
            assert error.value.execution_id == request.execution_id("k")
            handle = await request.start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert await Approval.succeed(token, "bob")
            assert await lab.result(handle) == "bob"

    lab.run(main)


def test_the_value_belongs_to_one_life(corner_lab):
    """R18, R37: the next incarnation asks anew, and is completed anew by a token that names none."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            handle = await request.start("k")
            token = Approval.token_from_payload(workflow=request, payload="k")
            assert await Approval.fail(token, Rejected(reason="not yet"))
            with pytest.raises(Rejected):
                await lab.result(handle)
            handle = await request.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert await Approval.succeed(token, "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


# How it ends -------------------------------------------------------------------------------------------


def test_an_error_comes_as_what_it_was_declared_to_be_and_after_a_restart_too(corner_lab):
    """R7, R18, R19: a declared error as its class, anything else as a Defect, an interrupt as Interrupted."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def careful(key: str) -> str:
        try:
            await Approval
        except Rejected as error:
            said = f"rejected: {error.reason}"
        except Defect as error:
            said = f"defect: {error}"
        except Interrupted:
            said = "interrupted"
        else:
            said = "approved"
        await Go
        return said

    async def main():
        async with lab.engine([careful]):
            for key in ("fail", "die", "interrupt"):
                await careful.start(key)
            await lab.settle()
            await Approval.fail(Approval.token_for(careful, "fail"), Rejected(reason="late"))
            await Approval.fail_cause(Approval.token_for(careful, "die"), Cause.die(ValueError("broken")))
            await Approval.done(Approval.token_for(careful, "interrupt"), Failure(Cause.interrupt()))
            await lab.settle()
        async with lab.engine([careful]):
            for key in ("fail", "die", "interrupt"):
                await Go.succeed(Go.token_for(careful, key), None)
            assert await lab.finish(careful.execute("fail")) == "rejected: late"
            assert "broken" in await lab.finish(careful.execute("die"))
            assert await lab.finish(careful.execute("interrupt")) == "interrupted"

    lab.run(main)


def test_what_the_schema_refuses_is_not_stored(corner_lab):
    """R19: a value, an undeclared error, and what is too large; the next completion still counts."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], payload_limit=1_000):
            handle = await request.start("k")
            token = handle.token(Approval)
            with pytest.raises(PayloadError):
                await Approval.succeed(token, 5)
            with pytest.raises(PayloadError):
                await Approval.succeed(token, "x" * 1_000)
            with pytest.raises(PayloadError):
                await Approval.fail(token, LookupError("undeclared"))
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert await Approval.done(token, Success("ada"))
            assert await lab.result(handle) == "ada"

    lab.run(main)


# A running body ----------------------------------------------------------------------------------------


def test_a_completion_reaches_a_running_body_while_another_branch_is_active(corner_lab):
    """R22: at its next turn, and not when the activity has ended."""
    lab = corner_lab
    gate = Gate()
    heard = []

    @activity
    async def slow() -> str:
        await gate.wait()
        return "slow"

    @activity
    async def note(value: str) -> None:
        heard.append(value)

    async def decided() -> str:
        value = await Approval
        await note(value)
        return value

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> list[str]:
        return await asyncio.gather(slow(), decided())

    async def main():
        async with lab.engine([both]):
            handle = await both.start("k")
            await lab.settle()
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            assert heard == ["ada"]
            assert not is_final(await handle.status())
            gate.open()
            assert await lab.result(handle) == ["slow", "ada"]
            assert (gate.entered, heard) == (1, ["ada"])

    lab.run(main)


def test_a_completion_from_another_engine_reaches_a_body_that_runs_here(file_lab):
    """R22: two engines on one file; the owner hears of it by the mail in the store."""
    lab = file_lab
    gate = Gate()
    heard = []

    @activity
    async def slow() -> str:
        await gate.wait()
        return "slow"

    @activity
    async def note(value: str) -> None:
        heard.append(value)

    async def decided() -> None:
        await note(await Approval)

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        _, value = await asyncio.gather(decided(), slow())
        return value

    async def main():
        async with lab.engine([both]) as worker:
            handle = await both.options(engine=worker).start("k")
            await lab.settle()
            async with lab.engine([]) as client:
                token = Approval.token_for(both.options(engine=client), "k")
                assert await Approval.succeed(token, "ada", engine=client)
                await lab.notice()
                assert heard == ["ada"]
            gate.open()
            assert await lab.result(handle) == "slow"

    lab.run(main)


def test_what_another_worker_suspended_goes_on_where_it_is_claimed(file_lab):
    """R18: two workers on one file, a completion through each; every execution ends, once."""
    lab = file_lab
    ended = []

    @activity
    async def end(key: str) -> str:
        ended.append(key)
        return key

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        return f"{await Approval} {await end(key)}"

    async def main():
        async with lab.engine([asks]) as one, lab.engine([asks]) as other:
            handles = [await asks.options(engine=one).start(str(number)) for number in range(6)]
            await lab.settle()
            for number, handle in enumerate(handles):
                engine = (one, other)[number % 2]
                assert await Approval.succeed(handle.token(Approval), "ada", engine=engine)
            await lab.notice()
            for number, handle in enumerate(handles):
                assert await lab.result(handle) == f"ada {number}"
        assert sorted(ended) == [str(number) for number in range(6)]

    lab.run(main)


# While the suspension is written -------------------------------------------------------------------------


def test_a_completion_in_front_of_the_suspension_s_commit_is_not_lost(corner_lab):
    """R18: the commit is told STAYS, and the owner reads."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            probe = lab.probe(engine)
            hold = probe.hold("commit", before=True)
            starting = asyncio.ensure_future(request.options(delay="1 second").start("k"))
            await lab.settle()
            hold.release()
            handle = await starting
            hold = probe.hold("commit", before=True)
            await lab.skip("1 second")
            assert hold.kept == 1
            assert probe.commits[-1].status is Status.SUSPENDED
            assert await Approval.succeed(handle.token(Approval), "ada")
            hold.release()
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_completion_behind_the_suspension_s_commit_but_before_its_answer_is_not_lost(corner_lab):
    """R18: the execution is pending again, and claimed, before its owner knows that it has left."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            probe = lab.probe(engine)
            handle = await request.options(delay="1 second").start("k")
            hold = probe.hold("commit")
            await lab.skip("1 second")
            assert hold.kept == 1
            assert probe.commits[-1].status is Status.SUSPENDED
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            hold.release()
            assert await lab.result(handle) == "ada"
            assert await lab.steps(engine, handle.execution_id) == [("deferred", "approval", 0)]

    lab.run(main)


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_a_completion_beside_the_commit_that_ends_an_execution_changes_nothing(corner_lab, before):
    """R18, R46: whoever completes hears whether it counted; the end is one end."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def careless(key: str) -> str:
        await sleep("1 hour")
        return key

    async def main():
        async with lab.engine([careless]) as engine:
            handle = await careless.start("k")
            await lab.skip("30 minutes")
            hold = lab.probe(engine).hold("commit", before=before)
            await lab.skip("30 minutes")
            assert hold.kept == 1
            assert await Approval.succeed(handle.token(Approval), "ada") is before
            hold.release()
            assert await lab.result(handle) == "k"
            assert [step[:2] for step in await lab.steps(engine, handle.execution_id)][-1:] != [
                ("deferred", "approval")
            ]

    lab.run(main)


def test_a_completion_whose_answer_is_lost_counts_once(corner_lab):
    """R18: sent again, it is known for its own and says True; the other one says False."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            probe = lab.probe(engine)
            handle = await request.start("k")
            await lab.settle()
            probe.fail("deliver", times=2, written=True)
            # The execution may be over before the answer comes.
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert probe.calls["deliver"] == 3
            assert await lab.result(handle) == "ada"
            probe.fail("deliver", written=True)
            assert not await Approval.succeed(handle.token(Approval), "bob")

    lab.run(main)


def test_a_completion_that_never_reached_the_store_is_sent_again(corner_lab):
    """R18: durable when it returns."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            lab.probe(engine).fail("deliver", times=3)
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


@pytest.mark.parametrize("written", [True, False])
def test_the_commit_that_reads_a_completion_is_repeated_until_it_is_answered(corner_lab, written):
    """R18: one entry, whatever the store says how often."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        return await echo(await Approval)

    async def main():
        async with lab.engine([asks]) as engine:
            handle = await asks.start("k")
            await lab.settle()
            lab.probe(engine).fail("commit", times=2, written=written)
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == "ada"
            assert await lab.steps(engine, handle.execution_id) == [
                ("deferred", "approval", 0),
                ("activity", "echo", 1),
            ]

    lab.run(main)


def test_mail_that_cannot_be_read_for_a_while_is_read_later(corner_lab):
    """R18: an outage between the wake and the reading of the mail."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def slow() -> None:
        await gate.wait()

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        value, _ = await asyncio.gather(Approval.wait(), slow())
        return value

    async def main():
        async with lab.engine([both]) as engine:
            handle = await both.start("k")
            await lab.settle()
            lab.probe(engine).fail("load", times=2)
            lab.probe(engine).fail("mail_for", times=2)
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            gate.open()
            assert await lab.result(handle) == "ada"

    lab.run(main)


@pytest.mark.parametrize("answered", [True, False], ids=["behind the commit", "before its answer"])
def test_a_completion_that_was_read_when_its_worker_ended_is_read_once(corner_lab, answered):
    """R18, R41: the kernel that takes over has it from the journal, or from the mailbox, and never from both."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def then(value: str) -> str:
        await gate.wait()
        return value

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> list[str]:
        return [await Approval, await then("done")]

    async def main():
        async with lab.doomed([asks]) as engine:
            handle = await asks.start("k")
            await lab.settle()
            if not answered:
                lab.probe(engine).hold("commit")
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            assert gate.entered == (1 if answered else 0)
        gate.open()
        async with lab.engine([asks]) as engine:
            assert await lab.result(asks.handle(handle.execution_id)) == ["ada", "done"]
            assert await lab.steps(engine, handle.execution_id) == [
                ("deferred", "approval", 0),
                ("activity", "then", 1),
            ]

    lab.run(main)


def test_a_completion_that_is_read_while_a_commit_has_no_answer_is_fed_behind_it(corner_lab):
    """R18, R22: that answer was given before the completion came, and says nothing of it."""
    lab = corner_lab
    quick, slow = Gate(), Gate()
    heard = []

    @activity
    async def stand(name: str) -> str:
        await (quick if name == "quick" else slow).wait()
        return name

    async def hear() -> None:
        heard.append(await Approval)

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        await asyncio.gather(hear(), stand("quick"), stand("slow"))
        return key

    async def main():
        async with lab.engine([both]) as engine:
            handle = await both.start("k")
            await lab.settle()
            hold = lab.probe(engine).hold("commit")
            quick.open()
            await lab.settle()
            assert hold.kept == 1
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.notice()
            assert heard == []
            hold.release()
            await lab.settle()
            assert heard[-1:] == ["ada"]
            slow.open()
            assert await lab.result(handle) == "k"

    lab.run(main)


def test_a_completion_that_comes_while_the_journal_is_read_is_not_lost(corner_lab):
    """R18, R22: for an attempt whose result is nobody's, so that no commit follows whose answer would tell of it."""
    lab = corner_lab
    stubborn, slow = Gate(), Gate()
    heard = []

    @activity
    async def resist() -> None:
        try:
            await slow.wait()
        except asyncio.CancelledError:
            await stubborn.wait()

    @activity
    async def stand() -> None:
        await slow.wait()

    async def hear() -> None:
        await race_all("first", [resist(), Go.wait()])
        heard.append(await Approval)

    @workflow(idempotency_key=lambda key: key)
    async def both(key: str) -> str:
        await asyncio.gather(hear(), stand())
        return key

    async def main():
        async with lab.engine([both]) as engine:
            handle = await both.start("k")
            await lab.settle()
            assert await Go.succeed(handle.token(Go), None)
            await lab.settle()
            hold = lab.probe(engine).hold("load")
            stubborn.open()
            await lab.settle()
            assert hold.kept == (0 if lab.cache is None else 1)
            assert await Approval.succeed(handle.token(Approval), "ada")
            await lab.settle()
            hold.release()
            await lab.settle()
            assert heard[-1:] == ["ada"]
            slow.open()
            assert await lab.result(handle) == "k"

    lab.run(main)


# In the order of the instants ----------------------------------------------------------------------------


@workflow(idempotency_key=lambda key: key)
async def impatient(key: str) -> str:
    try:
        async with asyncio.timeout(7_200):
            return await Approval
    except TimeoutError:
        return "too late"


@pytest.mark.parametrize(("after", "expected"), [("119 minutes", "ada"), ("121 minutes", "too late")])
def test_a_completion_before_a_deadline_beats_it_though_nobody_ran_it_then(file_lab, after, expected):
    """R47: fed in the order of the instants at which things came, not at which they were found."""
    lab = file_lab

    async def main():
        async with lab.engine([impatient]):
            handle = await impatient.start("k")
            await lab.settle()
        async with lab.engine([]):
            await lab.skip(after)
            assert await Approval.succeed(Approval.token_for(impatient, "k"), "ada")
            await lab.skip("3 hours")
        async with lab.engine([impatient]):
            assert await lab.result(impatient.handle(handle.execution_id)) == expected

    lab.run(main)


def test_what_came_in_while_nobody_ran_it_is_fed_in_the_order_of_its_instants(corner_lab):
    """R47: completions and timers, mixed."""
    lab = corner_lab
    names = ["a", "b", "c"]
    deferreds = {name: DurableDeferred.make(name, success=str) for name in names}

    @workflow(idempotency_key=lambda key: key)
    async def watch(key: str) -> list[str]:
        seen: list[str] = []

        async def hear(name: str) -> None:
            seen.append(await deferreds[name])

        async def rest(hours: int) -> None:
            await sleep(f"{hours} hours", name=f"rest {hours}")
            seen.append(f"{hours} hours")

        await asyncio.gather(rest(6), rest(4), *map(hear, names), rest(2))
        return seen

    async def main():
        async with lab.engine([watch]):
            handle = await watch.start("k")
            await lab.settle()
        async with lab.engine([]):
            for hours, name in ((1, "c"), (2, "a"), (2, "b")):
                await lab.skip(f"{hours} hours")
                assert await deferreds[name].succeed(deferreds[name].token_for(watch, "k"), name)
            await lab.skip("5 hours")
        async with lab.engine([watch]):
            expected = ["c", "2 hours", "a", "4 hours", "b", "6 hours"]
            assert await lab.result(watch.handle(handle.execution_id)) == expected

    lab.run(main)


# into ----------------------------------------------------------------------------------------------------


def test_into_records_the_exit_and_gives_that_very_exit(corner_lab):
    """R20: whoever awaits the deferred gets it too, now and after a restart."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def pay(key: str) -> list[str]:
        paid = await Approval.into(echo(key))
        await Go
        return [paid, await Approval]

    async def main():
        async with lab.engine([pay]):
            handle = await pay.start("k")
            await lab.settle()
            assert not await Approval.succeed(handle.token(Approval), "too late")
        async with lab.engine([pay]) as engine:
            await Go.succeed(Go.token_for(pay, "k"), None)
            assert await lab.result(pay.handle(handle.execution_id)) == ["k", "k"]
            assert successes(await engine.journal(handle.execution_id)) == ["k"]

    lab.run(main)


def test_into_gives_its_own_exit_although_the_deferred_held_another(corner_lab):
    """R20."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def pay(key: str) -> list[str]:
        await Go
        paid = await Approval.into(echo(key))
        return [paid, await Approval]

    async def main():
        async with lab.engine([pay]):
            handle = await pay.start("k")
            assert await Approval.succeed(handle.token(Approval), "before")
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(handle) == ["k", "before"]

    lab.run(main)


def test_into_records_a_failure_and_raises_it(corner_lab):
    """R20: the declared error, as itself, in both places."""
    lab = corner_lab

    @activity(error=Rejected)
    async def refuse() -> str:
        raise Rejected(reason="no")

    @workflow(idempotency_key=lambda key: key)
    async def pay(key: str) -> list[str]:
        said = []
        for step in (Approval.into(refuse()), Approval):
            try:
                await step
            except Rejected as error:
                said.append(error.reason)
        return said

    async def main():
        async with lab.engine([pay]):
            assert await lab.finish(pay.execute("k")) == ["no", "no"]

    lab.run(main)


def test_into_records_nothing_of_an_interruption_or_of_a_step_that_was_cut_off(corner_lab):
    """R9, R20: a cancelled step, and a host that ends, leave the deferred open."""
    lab = corner_lab
    gate = Gate()

    @activity
    async def slow(key: str) -> str:
        await gate.wait()
        return key

    @workflow(idempotency_key=lambda key: key)
    async def pay(key: str) -> str:
        try:
            async with asyncio.timeout(7_200):
                return await Approval.into(slow(key))
        except TimeoutError:
            return f"by hand: {await Approval}"

    async def main():
        async with lab.engine([pay]):
            handle = await pay.start("k")
            await lab.settle()
        async with lab.engine([pay]) as engine:
            handle = pay.handle(handle.execution_id)
            assert await lab.steps(engine, handle.execution_id) == []
            assert gate.entered == 2
            await lab.skip("2 hours")
            await lab.settle()
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == "by hand: ada"

    lab.run(main)


def test_into_records_nothing_of_a_child_that_was_interrupted(corner_lab):
    """R20, R32: the body sees it, and the deferred stays open."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def pay(key: str) -> str:
        try:
            return await Approval.into(request.execute(key))
        except Interrupted:
            return f"by hand: {await Approval}"

    async def main():
        async with lab.engine([pay, request]):
            handle = await pay.start("k")
            await lab.settle()
            await request.handle(request.execution_id("k")).interrupt()
            await lab.settle()
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == "by hand: ada"

    lab.run(main)


# In an activity ------------------------------------------------------------------------------------------


def test_a_deferred_awaited_in_an_activity_waits_in_place_and_gives_its_slot_back(corner_lab):
    """R14: one place, and another execution's activity runs meanwhile; the attempt is one attempt."""
    lab = corner_lab
    entered = []

    @activity
    async def ask(key: str) -> str:
        entered.append(key)
        return await Approval

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        return await ask(key)

    @workflow(idempotency_key=lambda key: key)
    async def other(key: str) -> str:
        return await echo(key)

    async def main():
        async with lab.engine([asks, other], concurrency=1) as engine:
            handle = await asks.start("k")
            await lab.settle()
            assert await handle.status() is Status.RUNNING
            assert await lab.finish(other.execute("o")) == "o"
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == "ada"
            assert entered == ["k"]
            steps = await lab.steps(engine, handle.execution_id)
            assert steps.count(("activity", "ask", 1)) == 1

    lab.run(main)


def test_a_sleep_in_an_activity_waits_in_place_and_gives_its_slot_back(corner_lab):
    """R14: and takes it again afterwards, so that no more run at once than may."""
    lab = corner_lab
    running, most = 0, 0

    @activity
    async def nap() -> None:
        nonlocal running, most
        await sleep("2 hours")
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    @workflow(idempotency_key=lambda key: key)
    async def naps(key: str) -> str:
        await asyncio.gather(*(nap() for _ in range(5)))
        return key

    async def main():
        async with lab.engine([naps], concurrency=1):
            began = lab.clock.now()
            assert await lab.finish(naps.execute("k")) == "k"
            assert lab.clock.now() - began == 2 * 3_600_000
            assert most == 1

    lab.run(main)


def test_an_attempt_that_waits_for_a_deferred_gives_way_to_the_execution_that_brings_it(corner_lab):
    """R5, R14: with admission for one, the execution that completes it gets its turn."""
    lab = corner_lab

    @activity
    async def ask() -> str:
        return await Approval

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        return await ask()

    @workflow(idempotency_key=lambda key: key)
    async def answers(key: str) -> bool:
        return await Approval.succeed(Approval.token_for(asks, key), await echo("ada"))

    async def main():
        async with lab.engine([asks, answers], concurrency=1, admission=1):
            handle = await asks.start("k")
            await lab.settle()
            assert await lab.finish(answers.execute("k"))
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_what_an_activity_awaits_is_there_for_its_next_attempt_and_for_the_body(corner_lab):
    """R14, R18: one value per name, wherever it is awaited; an attempt that was cut off waits again."""
    lab = corner_lab
    keys = []

    @activity
    async def ask() -> str:
        keys.append(idempotency_key())
        return await Approval

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> list[str]:
        return [await ask(), await Approval]

    async def main():
        async with lab.doomed([asks]):
            handle = await asks.start("k")
            await lab.settle()
            assert len(keys) == 1
        async with lab.engine([asks]):
            handle = asks.handle(handle.execution_id)
            await lab.settle()
            assert await Approval.succeed(handle.token(Approval), "ada")
            assert await lab.result(handle) == ["ada", "ada"]
        assert len(keys) == 2
        assert len(set(keys)) == 1

    lab.run(main)


def test_a_deferred_awaited_in_an_activity_ends_with_the_attempt_s_timeout(corner_lab):
    """R12, R14: held by that attempt, and given up with it."""
    lab = corner_lab
    waited = []

    @activity(timeout="1 hour")
    async def ask() -> str:
        try:
            return await Approval
        finally:
            waited.append("ended")

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        try:
            return await ask()
        except ActivityTimeout:
            return "nobody"

    async def main():
        async with lab.engine([asks]) as engine:
            assert await lab.finish(asks.execute("k")) == "nobody"
            assert waited == ["ended"]
            assert lab.service(engine).letterbox._waiting == set()

    lab.run(main)


def test_the_deferred_of_an_attempt_is_not_answered_by_what_answers_another(corner_lab):
    """R18, API 5: `with_activity_attempt`, after the first attempt's timeout."""
    lab = corner_lab
    from perdure import Schedule

    @activity(timeout="1 hour", retry=Schedule.spaced("1 minute").times(1))
    async def ask() -> str:
        return await Approval.with_activity_attempt()

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        return await ask()

    async def main():
        async with lab.engine([asks]):
            handle = await asks.start("k")
            await lab.skip("90 minutes")
            first = DurableDeferred.make("approval/1", success=str)
            assert await first.succeed(handle.token(first), "for the first")
            await lab.settle()
            assert not is_final(await handle.status())
            second = DurableDeferred.make("approval/2", success=str)
            assert await second.succeed(handle.token(second), "for the second")
            assert await lab.result(handle) == "for the second"

    lab.run(main)
