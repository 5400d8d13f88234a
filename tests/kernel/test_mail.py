"""Mail as a kernel reads it: completions, messages, receipts, and that a replay reads the same (R8, R18, R42, R48)."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Cause, DurableChannel, DurableDeferred, race_all, sleep, workflow
from perdure._definitions.host import Call
from perdure._kernel.event import Event
from perdure._model.journal import Kind
from perdure._model.records import INTERRUPTED, Letter, MailKind, Receipt, message_name

from tests.kernel.driver import Play
from tests.kernel.steps import Declined, begin, fetch

OTHER = "fedcba98" * 4

Approval = DurableDeferred.make("approval", success=int, error=Declined)
Refund = DurableDeferred.make("refund", success=int)
Amounts = DurableChannel.make("amounts", int)
Names = DurableChannel.make("names", str)


@workflow(idempotency_key=lambda key: key)
async def child(key: str) -> int:
    raise AssertionError


class Post(Play):
    """A kernel that is given letters as well."""

    wake = 0

    def read(self, kind: str, name: str, exit: bytes) -> bool:
        """A letter is fed. False: it means nothing to the body, or it has had it."""
        self.wake += 1
        self.now += 1
        taken = self.kernel.read(Letter(self.wake, kind, name, exit, self.now))
        self._take()
        return taken

    def complete(self, value: int, deferred: DurableDeferred[int, Any] = Approval) -> bool:
        """A deferred is completed."""
        return self.read(MailKind.DEFERRED, deferred.name, deferred.codec.success(value)[0])

    def message(self, id: str, value: Any, channel: DurableChannel[Any] = Amounts) -> bool:
        """A message comes."""
        return self.read(MailKind.MESSAGE, message_name(channel.name, id), channel.codec.success(value)[0])

    def child_ends(self, key: str, value: int) -> bool:
        """A child has ended."""
        return self.read(MailKind.CHILD, child.execution_id(key), b'{"success":%d}' % value)

    @property
    def sent(self) -> list[Call]:
        """The mail whose receipt it waits for."""
        return [call for call in self.kernel.steps.waiting.values() if call.kind is Kind.SENT]

    def receipt(self, receipt: Receipt) -> None:
        """The commit that carries the oldest mail is durable."""
        call = self.sent[0]
        said = b'{"success":"%s"}' % receipt.encode()
        self._feed(Event(Kind.SENT, call.name, call.occurrence, 0, call.input, said, self.now))


def is_replayed(play: Post) -> None:
    """A replay of the whole journal, and of what every commit left of it, comes to where the kernel stood then."""
    assert play.again().standing() == play.standing()
    for length in sorted(set(play.commits)):
        assert play.again(upto=length).kernel.trouble is None


# Deferreds -------------------------------------------------------------------------------------------


def test_a_completion_reaches_everybody_who_waits_in_the_order_of_their_asking():
    """R18: one value per name."""
    heard: list[str] = []

    async def wait(name: str) -> int:
        value = await Approval
        heard.append(name)
        return value

    async def body() -> list[int]:
        heard.clear()
        return await asyncio.gather(wait("a"), wait("b"), wait("c"))

    play = Post(body)
    assert play.complete(7)
    assert play.result() == [7, 7, 7]
    assert heard == ["a", "b", "c"]
    assert play.recorded == ["deferred approval#1"]
    is_replayed(play)


def test_a_completion_comes_before_the_await_and_stays_for_all_that_follow():
    """R18."""

    async def body() -> list[int]:
        await fetch(1)
        return [await Approval, await Approval, await Approval.wait()]

    play = Post(body)
    assert play.complete(7)
    assert play.waiting == ['fetch{"x":1}#1']
    play.answer("fetch", 1)
    assert play.result() == [7, 7, 7]
    is_replayed(play)


def test_a_completion_is_for_its_own_name_only():
    """R18."""

    async def body() -> int:
        return await Approval

    play = Post(body)
    assert play.complete(1, Refund)
    assert not play.ended
    play.complete(2)
    assert play.result() == 2
    is_replayed(play)


def test_a_second_letter_of_a_deferred_is_not_read_live_or_after_a_replay():
    """R18: what a store gives twice (the mailbox is read from its beginning after a replay) counts once."""

    async def body() -> int:
        value = await Approval
        await fetch(1)
        return value

    play = Post(body)
    assert play.complete(7)
    assert not play.complete(8)
    again = play.again()
    assert not again.complete(7)
    again.answer("fetch", 1)
    assert again.result() == 7
    assert again.recorded == ["deferred approval#1", "activity fetch#1"]


def test_a_declared_error_comes_as_its_own_class_on_replay_too():
    """R7, R18."""

    async def body() -> int:
        try:
            return await Approval
        except Declined as error:
            return -error.code

    play = Post(body)
    play.read(MailKind.DEFERRED, "approval", Approval.codec.failure(Cause.fail(Declined(code=5)))[0])
    assert play.result() == -5
    is_replayed(play)


def test_a_completion_that_today_s_type_cannot_read_holds():
    """R40."""

    async def body() -> int:
        return await Approval

    play = Post(body)
    play.read(MailKind.DEFERRED, "approval", b'{"success":"many"}')
    assert play.kernel.trouble is not None
    assert play.kernel.trouble.held == "UNREADABLE"


def test_nothing_is_read_once_the_body_has_ended():
    """R46."""

    async def body() -> int:
        return await Approval

    play = Post(body)
    play.complete(7)
    assert not play.complete(1, Refund)
    assert not play.message("m", 1)
    assert not play.read(MailKind.INTERRUPT, "", INTERRUPTED)
    assert play.recorded == ["deferred approval#1"]


def test_a_wait_that_was_given_up_in_the_turn_of_its_answer_leaves_the_value_to_others(log: pytest.LogCaptureFixture):
    """R18: the value belongs to the name, and no call takes it away."""

    async def body() -> int:
        await fetch(1)
        waiting = asyncio.ensure_future(Approval.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await fetch(2)
        return await Approval

    play = Post(body)
    play.complete(7)
    play.answer("fetch", 1)
    assert play.kernel.steps.kept == []
    play.answer("fetch", 2)
    assert play.result() == 7
    log.clear()
    is_replayed(play)
    assert [record for record in log.records if record.levelno >= logging.INFO] == []


# Children --------------------------------------------------------------------------------------------


def test_everybody_in_a_body_who_waits_for_a_child_is_told():
    """R31."""

    async def body() -> list[int]:
        first = await asyncio.gather(child.execute("a"), child.execute("a"))
        return [*first, await child.execute("a")]

    play = Post(body)
    assert play.child_ends("a", 3)
    assert play.result() == [3, 3, 3]
    assert [len(acts.children) for acts in play.acts] == [1]
    is_replayed(play)


def test_a_second_wait_for_a_child_that_was_given_up_is_no_divergence():
    """R8, R31: the answer is there for the name; kept for itself it would contradict a wait for another child."""

    async def body() -> int:
        first = await child.execute("a")
        waiting = asyncio.ensure_future(child.execute("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        return first + await child.execute("b")

    play = Post(body)
    play.child_ends("a", 3)
    assert play.kernel.trouble is None
    play.child_ends("b", 4)
    assert play.result() == 7
    is_replayed(play)


def test_a_child_that_was_left_and_asked_for_and_left_again_in_one_turn_is_left():
    """R31: what a turn does is done as a whole, the joining behind the leaving; so the last word has to be said there."""

    async def body(last: str) -> int:
        for _ in range(2 if last == "left" else 1):
            waiting = asyncio.ensure_future(child.execute("a"))
            await (fetch(1) if last == "asked for" else asyncio.sleep(0))
            waiting.cancel()
            await asyncio.sleep(0)
        return await (child.execute("a") if last == "asked for" else fetch(2))

    asked, left = Post(lambda: body("asked for")), Post(lambda: body("left"))
    asked.answer("fetch", 0)
    id_ = child.execution_id("a")
    for play, rejoined in ((asked, [id_]), (left, [])):
        acts = play.acts[-1]
        assert set(acts.leaves) == {id_}
        assert [start.execution_id for start in acts.rejoins] == rejoined
    assert [start.execution_id for acts in asked.acts for start in acts.children] == [id_]
    assert asked.child_ends("a", 3)
    assert asked.result() == 3
    is_replayed(asked)


def test_a_child_s_end_that_was_kept_reaches_everybody_who_asks_for_that_child():
    """R8, R31: code that asks for it later than the code that heard of it, and more than once."""

    async def old() -> int:
        return await child.execute("a") + await fetch(1)

    async def new() -> list[int]:
        await fetch(1)
        both = await asyncio.gather(child.execute("a"), child.execute("a"))
        return [*both, await child.execute("a")]

    play = Post(old)
    play.child_ends("a", 3)
    play.answer("fetch", 0)
    assert play.again(new).result() == [3, 3, 3]


# Messages --------------------------------------------------------------------------------------------


def test_messages_are_taken_in_the_order_in_which_they_came_each_once():
    """R48: by whoever has waited longest."""

    async def body() -> list[int]:
        early = [await Amounts.receive(), await Amounts.receive()]
        return [*early, *await asyncio.gather(Amounts.receive(), Amounts.receive())]

    play = Post(body)
    for number in range(4):
        assert play.message(f"m{number}", number)
    assert play.result() == [0, 1, 2, 3]
    is_replayed(play)


def test_messages_wait_until_a_receive_asks_for_them():
    """R48."""

    async def body() -> list[int]:
        await fetch(1)
        return [await Amounts.receive(), await Amounts.receive()]

    play = Post(body)
    play.message("m1", 1)
    play.message("m2", 2)
    play.answer("fetch", 0)
    assert play.result() == [1, 2]
    is_replayed(play)


def test_channels_do_not_take_each_other_s_messages():
    """R48."""

    async def body() -> tuple[str, int]:
        return await Names.receive(), await Amounts.receive()

    play = Post(body)
    play.message("m", 1)
    play.message("m", "ada", Names)
    assert play.result() == ("ada", 1)
    is_replayed(play)


def test_a_message_is_known_by_its_id_also_after_a_replay():
    """R48: sent again, or read again from the mailbox, it is one message."""

    async def body() -> list[int]:
        return [await Amounts.receive(), await Amounts.receive()]

    play = Post(body)
    assert play.message("m1", 1)
    assert not play.message("m1", 1)
    again = play.again()
    assert not again.message("m1", 1)
    again.message("m2", 2)
    assert again.result() == [1, 2]


def test_a_receive_that_was_given_up_takes_nothing():
    """R48: before the message came."""

    async def body() -> int:
        waiting = asyncio.create_task(Amounts.receive())
        await fetch(1)
        waiting.cancel()
        return await Amounts.receive()

    play = Post(body)
    play.answer("fetch", 0)
    play.message("m", 5)
    assert play.result() == 5
    is_replayed(play)


def test_a_receive_that_is_given_up_in_the_turn_of_its_message_leaves_it_in_its_place():
    """R48: neither lost nor overtaken by the next one."""

    async def body() -> list[int]:
        await fetch(1)
        waiting = asyncio.create_task(Amounts.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await fetch(2)
        return [await Amounts.receive(), await Amounts.receive()]

    play = Post(body)
    play.message("m1", 1)
    play.message("m2", 2)
    play.answer("fetch", 0)
    play.answer("fetch", 0)
    assert play.result() == [1, 2]
    is_replayed(play)


def test_of_two_receives_one_is_given_up_and_the_other_has_the_first_message():
    """R48: both have their message, and the first is not the one that is lost or late."""

    async def body() -> list[int]:
        await fetch(1)
        one, other = asyncio.create_task(Amounts.receive()), asyncio.create_task(Amounts.receive())
        await asyncio.sleep(0)
        one.cancel()
        return [await other, await Amounts.receive()]

    play = Post(body)
    play.message("m1", 1)
    play.message("m2", 2)
    play.answer("fetch", 0)
    assert sorted(play.result()) == [1, 2]
    is_replayed(play)


def test_the_message_of_a_receive_that_is_given_up_in_its_turn_goes_to_who_waits_already():
    """R48: put back for whoever asks next, it would lie there beside one who has asked and waits for ever."""

    async def body() -> int:
        await fetch(1)
        one, other = asyncio.create_task(Amounts.receive()), asyncio.create_task(Amounts.receive())
        await asyncio.sleep(0)
        one.cancel()
        return await other

    play = Post(body)
    play.message("m1", 1)
    play.answer("fetch", 0)
    assert play.result() == 1
    is_replayed(play)


def test_what_nobody_has_taken_goes_over_to_the_next_life_in_its_order():
    """R37, R48: with its ids, so that what is sent again there is still known."""

    @workflow(name="Body")
    async def endless() -> None:
        raise AssertionError

    async def body() -> None:
        await fetch(1)
        await Refund
        waiting = asyncio.create_task(Amounts.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await Names.receive()
        endless.continue_as_new()

    play = Post(body)
    play.message("m1", 1)
    play.message("n1", "ada", Names)
    play.message("m2", 2)
    play.complete(5, Refund)
    play.complete(7)
    play.message("n2", "bob", Names)
    play.answer("fetch", 0)
    assert play.kernel.continues
    assert [(mail.name, mail.exit) for mail in play.acts[-1].mail] == [
        (message_name("amounts", "m1"), b'{"success":1}'),
        (message_name("amounts", "m2"), b'{"success":2}'),
        ("approval", b'{"success":7}'),
        (message_name("names", "n2"), b'{"success":"bob"}'),
    ]


# Mail that a body sends --------------------------------------------------------------------------------


def test_a_message_from_a_body_is_given_out_once_and_its_receipt_answers_every_replay():
    """R42."""

    async def body() -> str:
        await Amounts.send(OTHER, 5)
        return "sent"

    play = Post(body)
    assert [call.kind for call in play.given] == [Kind.SENT]
    assert not play.ended
    play.receipt(Receipt.STORED)
    assert play.result() == "sent"
    again = play.again()
    assert again.result() == "sent"
    assert again.given == []


def test_a_message_whose_receipt_was_not_recorded_is_sent_again_as_the_same_one():
    """R42, R48: its id is its step, so the store knows it for its own."""

    async def body() -> None:
        await fetch(1)
        await asyncio.gather(Amounts.send(OTHER, 5), Amounts.send(OTHER, 5), Amounts.send(OTHER, 6, id="six"))

    play = Post(body)
    play.answer("fetch", 0)
    again = play.again()
    assert [call.mail for call in again.sent] == [call.mail for call in play.sent]
    assert len({call.mail for call in play.sent}) == 3
    for _ in range(3):
        again.receipt(Receipt.STORED)
    assert again.ended


# Replay ----------------------------------------------------------------------------------------------


def everything() -> Callable[[], Any]:
    """A body that waits for all sorts of things at once, and goes another way depending on what came first."""

    async def first() -> str:
        winner = await race_all("first", [Approval.wait(), Amounts.receive(), fetch(1)])
        await sleep("2 hours", name=f"after {winner}")
        return f"won {winner}"

    async def second() -> list[int]:
        return [await Amounts.receive(), await Approval]

    async def third() -> int:
        begin(Amounts.send(OTHER, 1))
        return await fetch(2) + await Approval

    async def body() -> list[Any]:
        return await asyncio.gather(first(), second(), third())

    return body


def fetched(play: Post) -> None:
    """The loser of a race is not asked for any more."""
    if 'fetch{"x":1}#1' in play.waiting:
        play.answer("fetch#1", 10)


EVENTS: dict[str, Callable[[Post], object]] = {
    "completion": lambda play: play.complete(100),
    "message 1": lambda play: play.message("m1", 1),
    "message 2": lambda play: play.message("m2", 2),
    "fetch 1": fetched,
    "fetch 2": lambda play: play.answer("fetch#2", 20),
    "receipt": lambda play: play.receipt(Receipt.STORED),
}


@pytest.mark.parametrize("first", EVENTS)
def test_in_whatever_order_things_come_a_replay_comes_to_the_same(first: str):
    """R8: also when it breaks off behind any of them and goes on from there."""
    rest = [name for name in EVENTS if name != first]
    for order in itertools.permutations(rest):
        play = Post(everything())
        for at, name in enumerate([first, *order]):
            EVENTS[name](play)
            if at == 3:
                again = play.again()
                assert again.standing() == play.standing()
                again.wake = play.wake
                play = again
        for timer in list(play.timer_names):
            play.fire(timer)
        assert play.ended, (order, play.waiting)
        assert play.again().result() == play.result()
