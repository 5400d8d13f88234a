"""Where a deferred is reached: tokens, given out and taken."""

from typing import Protocol

from pydantic_core import from_json, to_json

from perdure._definitions import ambient
from perdure._definitions.host import Engine, Host
from perdure._definitions.name import check_id
from perdure._model.journal import Kind
from perdure._model.records import ExecutionId, Start
from perdure._values.duration import Duration, to_ms
from perdure._values.instant import Instant, from_datetime
from perdure._values.token import Token, TokenKeys, TokenParsed
from perdure.errors import TokenError, UsageError


class Named(Protocol):
    """A deferred, as far as its address goes."""

    @property
    def name(self) -> str:
        """What its completion is recorded under."""
        ...


def give_token(
    deferred: Named,
    workflow: str,
    execution_id: ExecutionId,
    *,
    engine: Engine | None = None,
    expires_in: Duration | None = None,
) -> Token:
    """Make the token of a deferred in one execution: signed, if the engine has keys.

    In a body it is recorded with the turn, so that a replay gives the same one, whatever the keys are by then (R19);
    only there, and only for the execution itself, does a token name the incarnation.

    Args:
        deferred: The deferred.
        workflow: The workflow of the execution.
        execution_id: The execution.
        engine: Whose keys sign; None: of the engine that is found around.
        expires_in: How long it is taken, longer than zero; None: for ever.

    Raises:
        UsageError: It shall expire, and there are no keys: whoever has an unsigned token can write another. Or before
            it is given out; or the id is none.
    """
    check_id(execution_id)
    _check_expiry(expires_in)
    host = ambient.host.get()
    if host is None:
        return _made(deferred, workflow, execution_id, incarnation=None, engine=engine, expires_in=expires_in)
    own = host.incarnation if execution_id == host.execution_id else None

    def make() -> bytes:
        return as_recorded(
            _made(deferred, workflow, execution_id, incarnation=own, engine=engine, expires_in=expires_in)
        )

    # Of another execution under another name, or code that asks for it first would be given this one's.
    name = deferred.name if own is not None else f"{deferred.name} of {execution_id}"
    recorded = host.recorded(Kind.TOKEN, name, make)
    return Token(from_json(recorded)["success"])


def as_recorded(token: Token) -> bytes:
    """What an entry says with which a body has given out a token."""
    return b'{"success":' + to_json(token) + b"}"


def token_anew(recorded: bytes, original: ExecutionId, start: Start, keys: TokenKeys | None) -> bytes:
    """What an entry of the kind TOKEN says in the journal of a fork: the same deferred, at the fork's address (R49).

    Signed with today's key, where there is one. The expiry stays the instant that it was, as due times do.

    Args:
        recorded: What it says in the original's journal.
        original: The execution that is forked; what is no token for it (a verdict, another one's address) is as it was.
        start: The fork.
        keys: What signs; None: nothing does, and what is not signed cannot expire.
    """
    try:
        parsed = TokenParsed.from_string(from_json(recorded)["success"])
    except TokenError:
        return recorded
    if parsed.execution_id != original:
        return recorded
    if keys is None:
        said = TokenParsed(
            workflow_name=parsed.workflow_name,
            execution_id=start.execution_id,
            deferred_name=parsed.deferred_name,
        )
        return as_recorded(said.as_token)
    return as_recorded(
        keys.sign(
            workflow_name=parsed.workflow_name,
            execution_id=start.execution_id,
            deferred_name=parsed.deferred_name,
            incarnation=start.incarnation,
            expires_at=None if parsed.expires_at is None else from_datetime(parsed.expires_at),
        )
    )


def take_token(token: str, engine: Engine) -> TokenParsed:
    """Read a token that was given to somebody outside, as far as this engine trusts it.

    Raises:
        TokenError: It is none, or not one of this engine's, or has expired.
    """
    return _checked(token, engine.token_keys, engine.now())


def take_token_in_body(token: str, host: Host) -> TokenParsed:
    """Read a token in a body: what is found out about it is recorded, since keys change and time passes.

    Raises:
        TokenError: As for `take_token`; on a replay as it was then.
    """
    parsed = TokenParsed.from_string(token)
    verdict = host.recorded(Kind.TOKEN, f"take:{parsed.deferred_name}", lambda: _verdict(token, host.now()))
    reason = from_json(verdict)["success"]
    if reason != "valid":
        raise _refusal(reason)
    return parsed


def _made(
    deferred: Named,
    workflow: str,
    execution_id: ExecutionId,
    *,
    incarnation: bytes | None,
    engine: Engine | None,
    expires_in: Duration | None,
) -> Token:
    engine = engine or _engine_around()
    keys = None if engine is None else engine.token_keys
    if engine is None or keys is None:
        if expires_in is not None:
            raise UsageError(
                "Only a signed token can expire: open the engine with token_secret=. An unsigned one is nothing but names."
            )
        said = TokenParsed(workflow_name=workflow, execution_id=execution_id, deferred_name=deferred.name)
        return said.as_token
    return keys.sign(
        workflow_name=workflow,
        execution_id=execution_id,
        deferred_name=deferred.name,
        incarnation=incarnation,
        expires_at=None if expires_in is None else engine.now() + to_ms(expires_in),
    )


def _check_expiry(expires_in: Duration | None) -> None:
    """Refuse a token that nobody could ever use.

    Raises:
        UsageError: It would have expired when it is given out.
    """
    if expires_in is not None and to_ms(expires_in) <= 0:
        raise UsageError(
            f"expires_in= is how long the token is taken, and must be longer than zero, not {expires_in!r}."
        )


def _engine_around() -> Engine | None:
    """The engine whose keys count; None: none of those that are open has any, or none is open."""
    # Not by those that are open: while its engine closes a body takes its last turns, and would give out unsigned tokens.
    nearest = ambient.engine.get()
    if nearest is not None and ambient.host.get() is not None:
        return nearest
    # An address can be computed where no engine is, and among several that sign nothing it does not matter which.
    if all(engine.token_keys is None for engine in ambient.open_engines):
        return None
    return ambient.find_engine()


def _verdict(token: str, now: Instant) -> bytes:
    try:
        _checked(token, ambient.find_engine().token_keys, now)
    except TokenError as refused:
        return b'{"success":' + to_json(refused.reason) + b"}"
    return b'{"success":"valid"}'


def _checked(token: str, keys: TokenKeys | None, now: Instant) -> TokenParsed:
    if keys is not None:
        return keys.verify(token, now)
    parsed = TokenParsed.from_string(token)
    if parsed.key_id is not None:
        raise TokenError(
            "The token is signed, and this engine has no token_secret= to check it with.", reason="invalid"
        )
    return parsed


def _refusal(reason: str) -> TokenError:
    return TokenError("This token has expired." if reason == "expired" else "This token is not valid.", reason=reason)
