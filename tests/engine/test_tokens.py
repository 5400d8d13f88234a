"""Tokens in the hands of engines: signed, rotated, expired, forged, and for which life they are (R19, R42)."""

import asyncio
import base64
import json

import pytest

from perdure import (
    Defect,
    DurableDeferred,
    ExecutionNotFoundError,
    Status,
    Token,
    TokenError,
    TokenParsed,
    TypedError,
    UsageError,
    activity,
    continue_as_new,
    sleep,
    workflow,
)

OLD = {"2025": "a secret of the last year"}
BOTH = {"2026": "a secret of this new year", "2025": "a secret of the last year"}
NEW = {"2026": "a secret of this new year"}


class Declined(TypedError):
    code: int


Approval = DurableDeferred.make("approval", success=str, error=Declined)
Go = DurableDeferred.make("go")
# Another one of the same name, with other types.
Numbered = DurableDeferred.make("approval", success=int)

# The tokens that bodies have given out, in the order of their turns, replays too.
given: list[Token] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    given.clear()
    broken.clear()


@workflow(idempotency_key=lambda key: key, error=Declined)
async def request(key: str) -> str:
    given.append(Approval.token())
    return await Approval


@workflow(idempotency_key=lambda key: key)
async def remembers(key: str) -> Token:
    token = Approval.token(expires_in="30 days")
    given.append(token)
    await sleep("2 hours")
    await Go
    return token


def forged(token: str, **changes: object) -> Token:
    """The same token, saying something else."""
    parts = token.split(".")
    place = 1 if len(parts) == 3 else 0
    raw = parts[place]
    said = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
    for at, value in changes.items():
        said[int(at[1:])] = value
    packed = json.dumps(said, separators=(",", ":")).encode()
    parts[place] = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    return Token(".".join(parts))


# Signed ------------------------------------------------------------------------------------------------


def test_a_signed_token_completes_and_names_its_life(corner_lab):
    """R19: key id, workflow, execution, incarnation, deferred, expiry; one made outside names no incarnation."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW) as engine:
            handle = await request.start("k")
            await lab.settle()
            inside, outside = TokenParsed.from_string(given[0]), TokenParsed.from_string(handle.token(Approval))
            record = await lab.record(engine, handle.execution_id)
            for parsed, incarnation in ((inside, record.incarnation.hex()), (outside, None)):
                assert (parsed.workflow_name, parsed.execution_id) == ("request", handle.execution_id)
                assert (parsed.deferred_name, parsed.incarnation, parsed.key_id) == ("approval", incarnation, "2026")
            assert await Approval.succeed(given[0], "ada")
            assert not await Approval.succeed(handle.token(Approval), "bob")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_an_engine_with_keys_takes_no_token_that_they_have_not_signed(corner_lab):
    """R19: unsigned, signed by another key, or changed since; nothing is stored."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            # Without keys they are not signed.
            handle = await request.start("k")
            unsigned = handle.token(Approval)
        async with lab.engine([request], token_secret=OLD):
            strange = request.handle(handle.execution_id).token(Approval)
        async with lab.engine([request], token_secret=NEW):
            handle = request.handle(handle.execution_id)
            token = handle.token(Approval)
            other = await request.start("other")
            wrong = [
                unsigned,
                strange,
                forged(token, _1=other.execution_id),
                forged(token, _2="go"),
                forged(token, _0="other"),
                forged(token, _4=2**40),
                Token(token[:-1]),
                Token(token + "="),
                Token("2026." + unsigned + "."),
                Token(""),
                Token("x" * 100_000),
            ]
            for one in wrong:
                with pytest.raises(TokenError):
                    await Approval.succeed(one, "mallory")
            await lab.settle()
            assert await other.status() is Status.SUSPENDED
            assert await handle.status() is Status.SUSPENDED
            assert await Approval.succeed(token, "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_an_engine_without_keys_takes_no_token_that_it_could_not_check(corner_lab):
    """R19."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW):
            handle = await request.start("k")
            token = handle.token(Approval)
        async with lab.engine([request]):
            with pytest.raises(TokenError, match="token_secret"):
                await Approval.succeed(token, "ada")

    lab.run(main)


def test_a_token_that_has_expired_is_refused_and_one_that_has_not_is_taken(corner_lab):
    """R19: by the clock of the store; to the millisecond."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW):
            handle = await request.start("k")
            short, long = (handle.token(Approval, expires_in=hours) for hours in ("1 hour", "2 hours"))
            await lab.skip("1 hour")
            with pytest.raises(TokenError, match="expired") as error:
                await Approval.succeed(short, "late")
            assert error.value.reason == "expired"
            lab.clock.advance(3_600_000 - 1)
            assert await Approval.succeed(long, "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_token_can_expire_only_where_tokens_are_signed(corner_lab):
    """R19: whoever has an unsigned one can write another."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]):
            handle = await request.start("k")
            with pytest.raises(UsageError):
                handle.token(Approval, expires_in="1 hour")

    lab.run(main)


def test_keys_are_rotated_while_tokens_of_the_old_one_are_under_way(corner_lab):
    """R19: the first key signs, all of them are taken, and one that is gone takes its tokens with it."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=OLD):
            for key in ("a", "b"):
                await request.start(key)
            await lab.settle()
            tokens = dict(zip(("a", "b"), given[:2], strict=True))
        async with lab.engine([request], token_secret=BOTH):
            assert TokenParsed.from_string(Approval.token_for(request, "a")).key_id == "2026"
            assert await Approval.succeed(tokens["a"], "ada")
            assert await lab.finish(request.execute("a")) == "ada"
        async with lab.engine([request], token_secret=NEW):
            with pytest.raises(TokenError):
                await Approval.succeed(tokens["b"], "bob")
            assert await Approval.succeed(Approval.token_for(request, "b"), "bob")
            assert await lab.finish(request.execute("b")) == "bob"

    lab.run(main)


# In a body ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [NEW, BOTH, None], ids=["another key", "another first key", "no key"])
def test_a_token_that_a_body_has_given_out_stays_the_same_on_every_replay(corner_lab, secret):
    """R19: recorded with its turn, with its key and its expiry, whatever the keys and the time are later."""
    lab = corner_lab
    options = {} if secret is None else {"token_secret": secret}

    async def main():
        async with lab.engine([remembers], token_secret=OLD):
            handle = await remembers.start("k")
            await lab.settle()
        async with lab.engine([remembers], **options):
            handle = remembers.handle(handle.execution_id)
            await lab.skip("3 hours")
            await Go.succeed(handle.token(Go), None)
            token = await lab.result(handle)
        assert token == given[0]
        assert len(given) >= 2
        assert set(given) == {token}
        assert TokenParsed.from_string(token).key_id == "2025"

    lab.run(main)


def test_a_turn_that_was_never_written_has_given_out_no_token(corner_lab):
    """R19, R42: it is recorded with its turn, so its effects come behind it."""
    lab = corner_lab
    sent = []

    @activity
    async def mail(token: Token) -> None:
        sent.append(token)

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        await sleep("1 hour")
        await mail(Approval.token(expires_in="1 day"))
        return await Approval

    async def main():
        async with lab.doomed([asks], token_secret=OLD) as engine:
            handle = await asks.start("k")
            await lab.skip("30 minutes")
            lab.probe(engine).hold("commit", before=True)
            await lab.skip("1 hour")
            assert sent == []
        async with lab.engine([asks], token_secret=BOTH):
            handle = asks.handle(handle.execution_id)
            await lab.skip("1 minute")
            (token,) = sent
            assert TokenParsed.from_string(token).key_id == "2026"
            assert await Approval.succeed(token, "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_what_a_body_finds_out_about_a_token_is_answered_alike_on_replay(corner_lab):
    """R42: taken while its key was there, and not expired; refused while it was not."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key, tokens: key)
    async def judge(key: str, tokens: list[Token]) -> list[str]:
        said = []
        for token in tokens:
            try:
                said.append(str(await Approval.succeed(token, "ada")))
            except TokenError as error:
                said.append(error.reason)
        await Go
        return said

    async def main():
        async with lab.engine([request, judge], token_secret=OLD):
            for key in ("a", "b", "c"):
                await request.start(key)
            good = Approval.token_for(request, "a")
            short = request.handle(request.execution_id("b")).token(Approval, expires_in="1 hour")
            late = request.handle(request.execution_id("c")).token(Approval, expires_in="1 hour")
            bad = forged(good, _2="go")
            handle = await judge.start("k", [good, short, good, bad])
            await lab.skip("2 hours")
            other = await judge.start("l", [late])
            await lab.settle()
        async with lab.engine([request, judge], token_secret=NEW):
            for one in (handle, other):
                await Go.succeed(judge.handle(one.execution_id).token(Go), None)
            assert await lab.finish(judge.execute("k", [])) == ["True", "True", "False", "invalid"]
            assert await lab.finish(judge.execute("l", [])) == ["expired"]
            assert await lab.finish(request.execute("b")) == "ada"

    lab.run(main)


def test_an_activity_gives_out_the_token_of_its_execution(corner_lab):
    """R19, R42: an ordinary call from outside; it names no incarnation."""
    lab = corner_lab

    @activity
    async def ask() -> Token:
        return Approval.token()

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> str:
        given.append(await ask())
        return await Approval

    async def main():
        async with lab.engine([asks], token_secret=NEW):
            handle = await asks.start("k")
            await lab.settle()
            assert TokenParsed.from_string(given[0]).incarnation is None
            assert given[0] == handle.token(Approval)
            assert await Approval.succeed(given[0], "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


# Lives ---------------------------------------------------------------------------------------------------


def test_a_signed_token_of_another_life_is_refused_and_one_that_names_none_is_taken(corner_lab):
    """R19, R37."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW):
            handle = await request.start("k")
            await lab.settle()
            old, outside = given[0], handle.token(Approval)
            assert await Approval.fail(old, Declined(code=1))
            with pytest.raises(Declined):
                await lab.result(handle)
            handle = await request.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            assert await handle.status() is Status.SUSPENDED
            assert given[-1] != old
            with pytest.raises(TokenError) as error:
                await Approval.succeed(old, "for the first life")
            assert error.value.reason == "outdated"
            assert await Approval.succeed(outside, "ada")
            assert await lab.result(handle) == "ada"
            assert not await Approval.succeed(given[-1], "too late")

    lab.run(main)


def test_a_completion_of_another_life_whose_answer_was_lost_is_known_for_its_own(corner_lab):
    """R18, R37: stored in the first life, which ended by it; the repeat comes in the second."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW) as engine:
            probe = lab.probe(engine)
            handle = await request.start("k")
            await lab.settle()
            hold = probe.hold("deliver")
            probe.fail("deliver", written=True)
            failing = asyncio.ensure_future(Approval.fail(given[0], Declined(code=1)))
            await lab.notice()
            with pytest.raises(Declined):
                await lab.result(handle)
            await request.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            hold.release()
            assert await failing
            assert await handle.status() is Status.SUSPENDED

    lab.run(main)


# A step that fails as long as it stands in here.
broken: set[str] = set()


@activity
async def step(what: str) -> str:
    if what in broken:
        raise RuntimeError(what)
    return what


@workflow(idempotency_key=lambda key: key)
async def mails(key: str) -> str:
    """Entry 1 is the token, 2 its mail, 3 the step that fails."""
    token = Approval.token(expires_in="30 days")
    given.append(token)
    await step("mail")
    await step("break")
    return await Approval


async def failed(lab, key: str = "k"):
    """An execution that has given out a token and failed behind it; the token."""
    broken.add("break")
    handle = await mails.start(key)
    with pytest.raises(Defect):
        await lab.result(handle)
    return handle, given[-1]


async def outdated(token: Token, value: str = "too early") -> None:
    with pytest.raises(TokenError) as error:
        await Approval.succeed(token, value)
    assert error.value.reason == "outdated"


@pytest.mark.parametrize("to", [1, 2])
def test_a_token_that_a_rewind_has_kept_completes_the_next_life(corner_lab, to):
    """R19, R37: whoever has the mail from before the failed step need not know that it failed."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            broken.clear()
            await engine.rewind(handle.execution_id, to=to)
            await lab.settle()
            assert set(given) == {token}
            assert await Approval.succeed(token, "ada")
            assert not await Approval.succeed(token, "bob")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_token_is_kept_by_one_rewind_after_the_other(corner_lab):
    """R19, R37: also while the next life has not got to its await, and after a restart of the engine."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            for _ in range(2):
                await engine.rewind(handle.execution_id, to=2)
                with pytest.raises(Defect):
                    await lab.result(handle)
            broken.clear()
            await engine.rewind(handle.execution_id, to=2)
            await lab.settle()
        async with lab.engine([mails], token_secret=BOTH):
            assert await Approval.succeed(token, "ada")
            assert await lab.result(mails.handle(handle.execution_id)) == "ada"

    lab.run(main)


def test_a_token_whose_entry_a_rewind_has_dropped_is_refused(corner_lab):
    """R19, R37: what it was given out for is done again, and may be another question; the new life gives its own."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            broken.clear()
            await engine.rewind(handle.execution_id, to=0)
            await lab.settle()
            assert given[-1] != token
            await outdated(token)
            assert await handle.status() is Status.SUSPENDED
            assert await Approval.succeed(given[-1], "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_what_a_dropped_token_has_completed_before_the_rewind_counts(corner_lab):
    """R18, R37: somebody was told that it does."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle = await mails.start("k")
            await lab.settle()
            token = given[-1]
            assert await Approval.succeed(token, "ada")
            assert await lab.result(handle) == "ada"
            await engine.rewind(handle.execution_id, to=0)
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_life_that_begins_anew_takes_no_token_of_a_rewound_one(corner_lab):
    """R37: a restart keeps nothing, whatever the lives before it had kept."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            await engine.rewind(handle.execution_id, to=2)
            with pytest.raises(Defect):
                await lab.result(handle)
            broken.clear()
            await mails.options(on_duplicate="restart_if_failed").start("k")
            await lab.settle()
            await outdated(token)
            assert await Approval.succeed(given[-1], "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_life_that_goes_on_as_new_takes_no_token_of_the_one_before(corner_lab):
    """R19, R37: its journal is empty; what it asks is a question of its own."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key, rounds: key)
    async def asks_again(key: str, rounds: int) -> str:
        given.append(Approval.token())
        await step("mail")
        if rounds:
            continue_as_new(key, rounds - 1)
        return await Approval

    async def main():
        async with lab.engine([asks_again], token_secret=NEW):
            handle = await asks_again.start("k", 1)
            await lab.settle()
            await outdated(given[0])
            assert await Approval.succeed(given[-1], "ada")
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_body_completes_by_a_token_that_a_rewind_has_kept(corner_lab):
    """R37, R42: with its turn, in the one transaction that says whose life it is; a replay is answered alike."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key, token: key)
    async def answers(key: str, token: Token) -> str:
        try:
            return str(await Approval.succeed(token, key))
        except TokenError as error:
            return error.reason

    async def main():
        async with lab.engine([mails, answers], token_secret=NEW) as engine:
            kept, token = await failed(lab)
            dropped, other = await failed(lab, "other")
            broken.clear()
            await engine.rewind(kept.execution_id, to=1)
            await engine.rewind(dropped.execution_id, to=0)
            await lab.settle()
            assert await lab.finish(answers.execute("ada", token)) == "True"
            assert await lab.finish(answers.execute("bob", other)) == "outdated"
            assert await lab.result(kept) == "ada"
            assert await dropped.status() is Status.SUSPENDED

    lab.run(main)


@pytest.mark.parametrize("to", [0, 1])
def test_a_completion_that_meets_a_rewind_is_judged_by_the_life_that_it_finds(corner_lab, to):
    """R37: in the transaction that stores it, whatever was true when it was sent."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            broken.clear()
            hold = lab.probe(engine).hold("deliver", before=True)
            completing = asyncio.ensure_future(Approval.succeed(token, "ada"))
            await lab.notice()
            await engine.rewind(handle.execution_id, to=to)
            await lab.settle()
            hold.release()
            if to == 0:
                with pytest.raises(TokenError):
                    await completing
                assert await handle.status() is Status.SUSPENDED
            else:
                assert await completing
                assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_completion_whose_answer_was_lost_is_known_for_its_own_behind_a_rewind(corner_lab):
    """R18, R37: stored in the rewound life, which was rewound again before the repeat came."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            probe = lab.probe(engine)
            handle, token = await failed(lab)
            await engine.rewind(handle.execution_id, to=2)
            hold = probe.hold("commit", before=True)
            await lab.settle()
            kept = probe.hold("deliver")
            probe.fail("deliver", written=True)
            completing = asyncio.ensure_future(Approval.succeed(token, "ada"))
            await lab.notice()
            hold.release()
            with pytest.raises(Defect):
                await lab.result(handle)
            broken.clear()
            await engine.rewind(handle.execution_id, to=2)
            await lab.settle()
            kept.release()
            assert await completing
            assert await lab.result(handle) == "ada"

    lab.run(main)


def test_a_kept_token_expires_when_it_says(corner_lab):
    """R19: a rewind makes no permission longer."""
    lab = corner_lab

    async def main():
        async with lab.engine([mails], token_secret=NEW) as engine:
            handle, token = await failed(lab)
            broken.clear()
            await engine.rewind(handle.execution_id, to=2)
            await lab.skip("30 days")
            with pytest.raises(TokenError) as error:
                await Approval.succeed(token, "late")
            assert error.value.reason == "expired"

    lab.run(main)


# Names and types -------------------------------------------------------------------------------------------


def test_a_completion_uses_the_tokens_names_and_the_types_of_the_deferred_it_is_called_on(corner_lab):
    """R19: whoever has other types of that name stores what its own allow; the body holds with what it cannot read."""
    lab = corner_lab

    async def main():
        async with lab.engine([request]) as engine:
            handle = await request.start("k")
            assert await Numbered.succeed(Token(str(handle.token(Approval))), 5)
            await lab.settle()
            assert (await engine.describe(handle.execution_id)).held == "UNREADABLE"

    lab.run(main)


def test_a_token_of_an_execution_that_is_not_there_is_told_from_one_that_is_none(corner_lab):
    """R18, R19."""
    lab = corner_lab

    async def main():
        async with lab.engine([request], token_secret=NEW):
            with pytest.raises(ExecutionNotFoundError):
                await Approval.succeed(Approval.token_for(request, "nobody"), "ada")
            with pytest.raises(TokenError):
                await Approval.succeed(Token("nonsense"), "ada")

    lab.run(main)


@pytest.mark.parametrize("expires_in", ["-3 days", -5, 0, "0 seconds"])
def test_a_token_that_would_have_expired_is_not_given_out(corner_lab, expires_in):
    """R19: it is a sign the wrong way round, and whoever got it by mail would be the one to notice."""
    lab = corner_lab

    @workflow(idempotency_key=lambda key: key)
    async def asks(key: str) -> Token:
        return Approval.token(expires_in=expires_in)

    async def main():
        async with lab.engine([request, asks], token_secret=NEW):
            handle = await request.start("k")
            with pytest.raises(UsageError, match="must be longer than zero"):
                handle.token(Approval, expires_in=expires_in)
            with pytest.raises(Defect, match="must be longer than zero"):
                await lab.finish(asks.execute("k"))

    lab.run(main)


def test_every_way_to_an_address_gives_the_same_token(corner_lab):
    """API 5."""
    lab = corner_lab

    async def main():
        for options in ({}, {"token_secret": NEW}):
            async with lab.engine([request], **options):
                handle = await request.start("k")
                tokens = {
                    handle.token(Approval),
                    Approval.token_for(request, "k"),
                    Approval.token_from_payload(workflow=request, payload="k"),
                    Approval.token_from_execution_id(workflow=request, execution_id=handle.execution_id),
                }
                assert len(tokens) == 1

    lab.run(main)
