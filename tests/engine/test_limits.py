"""How large what bodies and activities say may be: `payload_limit`, the same for all of it, and on every replay (R15, R42)."""

import pytest

from perdure import (
    DurableChannel,
    DurableDeferred,
    PayloadError,
    Schedule,
    activity,
    continue_as_new,
    current_attempt,
    execution_id,
    heartbeat,
    last_heartbeat,
    publish,
    set_attributes,
    workflow,
)

Go = DurableDeferred.make("go")
Noted = DurableDeferred.make("noted", success=str)
Words = DurableChannel.make("words", str)

WORDY = "x" * 1_000


@activity
async def write(length: int) -> str:
    return "x" * length


async def quoted(text: str) -> str:
    return text


@workflow(idempotency_key=lambda key, text: key)
async def other(key: str, text: str) -> int:
    return len(text)


async def says(what: str, text: str) -> None:
    match what:
        case "publish":
            publish("progress", text)
        case "set_attributes":
            set_attributes(stage=text)
        case "into":
            await Noted.into(quoted(text))
        case "execute":
            await other.execute("child", text)
        case "start":
            await other.start("detached", text)
        case "continue_as_new":
            continue_as_new("k", what, text)
        case "send":
            await Words.send(execution_id(), text)
        case _:
            raise AssertionError(what)


EVERYTHING = ["publish", "set_attributes", "into", "execute", "start", "send", "continue_as_new"]


@workflow(idempotency_key=lambda key, what, text: key)
async def speaker(key: str, what: str, text: str = "") -> list[str]:
    if text:
        return [text]
    said = []
    for wordy in (WORDY, WORDY, f"{WORDY}y"):
        try:
            await says(what, wordy)
        except PayloadError as refused:
            said.append(str(refused))
        else:
            said.append("taken")
    await Go
    await says(what, "short")
    return said


@pytest.mark.parametrize("what", EVERYTHING)
def test_what_a_body_says_is_no_larger_than_the_limit(lab, what):
    """R42: an error where it is said, which the body may catch; nothing of it is done, and smaller words are taken."""

    async def main():
        async with lab.engine([speaker, other], payload_limit=1_000) as engine:
            handle = await speaker.start("k", what)
            await lab.settle()
            assert await other.handle(other.execution_id("child", "")).status() is None
            assert await other.handle(other.execution_id("detached", "")).status() is None
            info = await engine.describe(handle.execution_id)
            assert (info.published, info.attributes) == ({}, {})
            kinds = {entry.kind for entry in await engine.journal(handle.execution_id)}
            assert not kinds & {"deferred", "message", "child"}
            await Go.succeed(handle.token(Go), None)
            said = await lab.result(handle)
            if what == "continue_as_new":
                assert said == ["short"]
                return
            assert len(said) == 3
            assert all("payload_limit" in one and "limit is 1,000" in one for one in said), said
            if what == "execute":
                assert await lab.result(other.handle(other.execution_id("child", ""))) == 5
            elif what == "start":
                assert await lab.result(other.handle(other.execution_id("detached", ""))) == 5
            info = await engine.describe(handle.execution_id)
            assert info.progress == ("short" if what == "publish" else None)
            assert info.attributes == ({"stage": "short"} if what == "set_attributes" else {})

    lab.run(main)


@pytest.mark.parametrize("what", EVERYTHING)
def test_what_was_too_large_once_is_so_on_every_replay(lab, what):
    """R42: the body has gone another way because of it, whatever the limit is by now."""

    @workflow(idempotency_key=lambda key: key)
    async def careful(key: str) -> str:
        try:
            await says(what, WORDY)
        except PayloadError:
            said = "too large"
        else:
            said = "taken"
        await write(1)
        await Go
        return said

    async def main():
        async with lab.engine([careful, other], payload_limit=1_000):
            handle = await careful.start("k")
            await lab.settle()
        async with lab.engine([careful, other]):
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(careful.handle(handle.execution_id)) == "too large"

    lab.run(main)


@workflow
async def unkeyed(text: str, who: str) -> int:
    return len(text)


@pytest.mark.parametrize("how", ["rewind", "fork"])
@pytest.mark.parametrize("what", [*EVERYTHING, "execute unkeyed", "start unkeyed"])
def test_what_was_too_large_once_is_so_in_whatever_goes_on_with_the_journal(lab, what, how):
    """R37, R42, R49: also where the child would have another id, and a fork says it in its own words."""

    @workflow(idempotency_key=lambda key: key)
    async def careful(key: str) -> str:
        words = f"{WORDY}{execution_id()}"
        try:
            match what:
                case "execute unkeyed":
                    await unkeyed.execute(words, execution_id())
                case "start unkeyed":
                    await unkeyed.start(words, execution_id())
                case _:
                    await says(what, words)
        except PayloadError:
            said = "too large"
        else:
            said = "taken"
        await write(1)
        return said

    async def main():
        workflows = [careful, other, unkeyed]
        async with lab.engine(workflows, payload_limit=1_000) as engine:
            handle = await careful.start("k")
            assert await lab.result(handle) == "too large"
            last = len(await engine.journal(handle.execution_id))
        async with lab.engine(workflows) as engine:
            if how == "rewind":
                await engine.rewind(handle.execution_id, to=last)
                going_on = handle.execution_id
            else:
                going_on = await engine.fork(handle.execution_id, at=last)
            assert await lab.result(careful.handle(going_on)) == "too large"

    lab.run(main)


@pytest.mark.parametrize("what", [one for one in EVERYTHING if one != "continue_as_new"])
def test_what_was_refused_stays_so_when_less_is_taken_in_its_place(lab, what):
    """R42: each call has had its answer, and a replay gives it again."""

    @workflow(idempotency_key=lambda key: key)
    async def insists(key: str) -> list[str]:
        said = []
        for text in (WORDY, WORDY, "short", WORDY):
            try:
                await says(what, text)
            except PayloadError:
                said.append("refused")
            else:
                said.append("taken")
        await Go
        return said

    async def main():
        async with lab.engine([insists, other], payload_limit=1_000):
            handle = await insists.start("k")
            await lab.settle()
        async with lab.engine([insists, other]):
            await Go.succeed(handle.token(Go), None)
            # Of one that is there by then only the id counts.
            last = "taken" if what in {"execute", "start"} else "refused"
            assert await lab.result(insists.handle(handle.execution_id)) == ["refused", "refused", "taken", last]

    lab.run(main)


@pytest.mark.parametrize("what", [one for one in EVERYTHING if one != "continue_as_new"])
def test_what_was_taken_once_is_taken_on_every_replay(lab, what):
    """R42: a smaller limit says nothing of what has been done."""

    @workflow(idempotency_key=lambda key: key)
    async def careful(key: str) -> str:
        try:
            await says(what, WORDY)
        except PayloadError:
            said = "too large"
        else:
            said = "taken"
        await Go
        return said

    async def main():
        async with lab.engine([careful, other]):
            handle = await careful.start("k")
            await lab.settle()
        async with lab.engine([careful, other], payload_limit=500):
            await Go.succeed(handle.token(Go), None)
            assert await lab.result(careful.handle(handle.execution_id)) == "taken"

    lab.run(main)


@pytest.mark.parametrize("on_thread", [False, True], ids=["async", "thread"])
def test_what_an_activity_notes_of_its_progress_is_no_larger_than_the_limit(lab, on_thread):
    """R15: an error in the activity, at the call; what was noted before stands, here and for the next attempt."""

    def count() -> list[str | int | None]:
        if current_attempt() == 2:
            return [last_heartbeat(int)]
        heartbeat(1)
        for _ in range(2):
            with pytest.raises(PayloadError, match=r"heartbeat.*counts.*1,003 bytes.*limit is 1,000.*payload_limit"):
                heartbeat(f"{WORDY}y")
        assert last_heartbeat(int) == 1
        heartbeat(2)
        heartbeat(f"{WORDY}y")
        raise AssertionError

    @activity(name="counts", retry=Schedule.recurs(1))
    async def on_the_loop() -> list[str | int | None]:
        return count()

    @activity(name="counts", retry=Schedule.recurs(1))
    def in_a_thread() -> list[str | int | None]:
        return count()

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> list[str | int | None]:
        return await (in_a_thread() if on_thread else on_the_loop())

    async def main():
        async with lab.engine([work], payload_limit=1_000) as engine:
            assert await lab.finish(work.execute("k")) == [2]
            first, _ = await engine.journal(work.execution_id("k"))
            assert "limit is 1,000" in str(first)

    lab.run(main)
