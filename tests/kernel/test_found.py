"""What a review found in the kernel: every one of these failed once."""

import asyncio

import pytest

from perdure import DurableDeferred, race_all, sleep, with_compensation, workflow
from perdure._model.records import MailKind
from perdure._model.status import Held, Status

from tests.kernel.driver import Body, Play
from tests.kernel.steps import Declined, fetch, store
from tests.kernel.test_unwinding import Unwinding, stands_the_same_on_replay, undo

Refund = DurableDeferred.make("refund", success=int)
BROKEN = b'{"failure":[{"die":{"type":"RuntimeError","message":"the bank is down"}}]}'


@workflow(idempotency_key=lambda key: key)
async def child(key: str) -> int:
    raise AssertionError


@workflow(name="Body")
async def again(n: int) -> int:
    raise AssertionError


# Compensations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MailKind.CHILD, MailKind.DEFERRED])
def test_a_compensation_that_failed_of_mail_stands_the_same_after_a_resume(kind: MailKind) -> None:
    """R28: mail is told once. Voided like a step's failure, it would be waited for for ever."""

    async def body() -> None:
        await with_compensation(fetch(1), lambda value, cause: child.execute("k") if kind == "child" else Refund.wait())
        raise Declined(code=1)

    play = Unwinding(body)
    play.answer("fetch", 1)
    play.letter(kind, child.execution_id("k") if kind == MailKind.CHILD else "refund", BROKEN)
    assert play.held is Held.COMPENSATION
    play.hold()
    resumed = play.again()
    assert resumed.held is Held.COMPENSATION
    # Its number has to be another one than that of the letter before.
    resumed._wakes = play._wakes
    resumed.skip()
    assert (resumed.ended, resumed.status) == (True, Status.FAILED)


def test_a_compensation_that_failed_of_a_step_has_that_step_done_again_after_a_resume() -> None:
    """R28: of what an activity has failed with there is another try."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)
        raise Declined(code=1)

    play = Unwinding(body)
    play.answer("fetch", 1)
    play.fail("store", Declined(code=2))
    assert play.held is Held.COMPENSATION
    play.hold()
    assert play.again().waiting == ['store{"x":1}#1']


def test_what_a_compensation_undoes_is_named_while_it_does_and_when_it_has_failed() -> None:
    """R28, R33: it has left the stack, and is not done."""

    async def body() -> None:
        await with_compensation(fetch(1), undo)
        await with_compensation(store(2), undo)
        raise Declined(code=1)

    play = Unwinding(body)
    play.answer("fetch", 1)
    play.answer("store", 2)
    assert play.kernel.compensations() == ["store", "fetch"]
    play.fail("store", Declined(code=2))
    assert (play.held, play.kernel.compensations()) == (Held.COMPENSATION, ["store", "fetch"])


async def at_once() -> int:
    return 0


def test_a_step_with_compensation_that_its_own_turn_withdraws_is_not_waited_for() -> None:
    """R27: it was not given out, so there is nothing that must not be cut in half."""

    async def body() -> int:
        first = await race_all("first", [with_compensation(fetch(1), undo), at_once()])
        return first + await store(2)

    play = Unwinding(body)
    assert play.waiting == ['store{"x":2}#1']
    assert [call.name for call in play.given] == ["store"]
    assert play.again().waiting == play.waiting
    play.answer("store", 5)
    assert play.result() == 5
    stands_the_same_on_replay(play)


def test_a_step_with_compensation_that_a_later_turn_withdraws_is_waited_for() -> None:
    """R27: its attempt may be running; also where the turn of its asking is replayed together with that one."""

    async def body() -> int:
        return await race_all("first", [with_compensation(fetch(1), undo), store(2)])

    play = Unwinding(body)
    play.answer("store", 5)
    assert (play.ended, play.waiting, play.again().waiting) == (False, ['fetch{"x":1}#1'], ['fetch{"x":1}#1'])
    play.answer("fetch", 1)
    assert play.result() == 5
    stands_the_same_on_replay(play)


# Lives -------------------------------------------------------------------------------------------------------


def grouped() -> Body:
    async def go_on() -> None:
        await fetch(1)
        again.continue_as_new(1)

    async def body() -> int:
        async with asyncio.TaskGroup() as outer:

            async def inside() -> None:
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(go_on())

            outer.create_task(inside())
        return 0

    return body


def test_a_body_goes_on_as_new_out_of_groups_of_tasks() -> None:
    """R34, R37: they wrap what leaves them; alone in a group it is itself."""
    play = Unwinding(grouped())
    play.answer("fetch", 0)
    assert (play.ended, play.kernel.continues) == (True, True)


def test_a_failure_beside_the_wish_to_go_on_as_new_is_the_end() -> None:
    """R34, R37: a group of two is none of its parts."""

    async def go_on() -> None:
        await fetch(1)
        again.continue_as_new(1)

    async def fail() -> None:
        try:
            await store(1)
        finally:
            raise ValueError

    async def body() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(go_on())
            group.create_task(fail())
        return 0

    play = Unwinding(body)
    play.answer("fetch", 0)
    assert (play.ended, play.kernel.continues, play.status) == (True, False, Status.FAILED)


def test_a_life_that_begins_in_the_middle_asks_and_leaves_again_whom_it_had_left() -> None:
    """R31, R37: the compensations wait for the end of that child, and its row knows nothing of this life."""

    async def body() -> None:
        try:
            async with asyncio.timeout(5):
                await child.execute("left")
        except TimeoutError:
            await child.execute("wanted")
        await sleep("1 day")

    play = Play(body)
    play.pass_time(5_000)
    new = play.again()
    new.kernel.ask_children_again()
    _, acts = new.kernel.take_written()
    assert acts is not None
    asked = [start.execution_id for start in acts.children]
    assert sorted(asked) == sorted([child.execution_id("left"), child.execution_id("wanted")])
    assert acts.leaves == [child.execution_id("left")]
    # It is asked for to be left: a life of it that has ended is not begun once more for that.
    assert not any(start.restarts for start in acts.children if start.execution_id == child.execution_id("left"))
