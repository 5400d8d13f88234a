"""Tokens: the addresses of deferreds, as text that can be mailed, signed so that nobody can make one up.

An unsigned token is the base64url, without padding, of the compact JSON array ``[workflow, execution, deferred]``. A
signed one has three parts with dots between them::

    <key id>.<base64url of [workflow, execution, deferred, incarnation or null, expiry or null]>.<base64url of the mac>

The mac is HMAC-SHA256 over a prefix of our own, the key id and the middle part, as they stand in the text. Only the
key id is read before it has been compared, in constant time. Every text has one form: what does not come back
from its own parts, letter by letter, is none.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from perdure._values.instant import Instant, from_datetime, to_datetime
from perdure.errors import TokenError, UsageError

__all__ = ["Token", "TokenKeys", "TokenParsed"]

# What a key that is given without a name is called; a later mapping can name it, to go on verifying with it.
DEFAULT_KEY: Final = "default"
MIN_SECRET: Final = 16

# So that no other use of the same secret can ever make a token, or the other way round.
_DOMAIN: Final = b"perdure deferred token v1\0"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXECUTION_ID: Final = re.compile(r"[0-9a-f]{32}")
# Two names of 255 characters, each written as six, and what is around them, in base64.
_LONGEST: Final = 4_600
_MAX_NAME: Final = 255
_MAC_BYTES: Final = 32
# What an unknown key is compared with: it costs the same, and nobody can have signed with it.
_NOBODYS_SECRET: Final = os.urandom(_MAC_BYTES)


class Token(str):
    """The address of a deferred in one execution: text that can be mailed, put into a link, or stored.

    A ``str`` that pydantic takes and gives in models.

    Example:
        >>> from pydantic import BaseModel
        >>> class Mail(BaseModel):
        ...     token: Token
        >>> Mail(token=Token("WyJ3Il0")).model_dump_json()
        '{"token":"WyJ3Il0"}'
        >>> Mail.model_json_schema()["properties"]["token"]["type"]
        'string'
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler, /) -> CoreSchema:
        """Say how pydantic reads and writes one: as text."""
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenParsed:
    """What a token says. Reading it checks its form and not its signature: completing a deferred does that.

    Attributes:
        workflow_name: The workflow of the execution.
        execution_id: The execution.
        deferred_name: The deferred.
        incarnation: The life of the execution that it is for, as hex; None: whichever is there.
        key_id: The key that it was signed with; None: it is not signed.
        expires_at: When it ceases to be taken; None: never.
        signature: What proves it, as it stands in the token; empty: nothing does.

    Example:
        >>> parsed = TokenParsed(workflow_name="w", execution_id="f" * 32, deferred_name="approval")
        >>> TokenParsed.from_string(parsed.as_token) == parsed
        True
    """

    workflow_name: str
    execution_id: str
    deferred_name: str
    incarnation: str | None = None
    key_id: str | None = None
    expires_at: datetime | None = None
    signature: str = field(default="", repr=False)  # a repr goes to logs

    @staticmethod
    def from_string(token: str) -> "TokenParsed":
        """Read a token, signed or not.

        Raises:
            TokenError: It is none.

        Example:
            >>> TokenParsed.from_string("d2hhdCBpcyB0aGlz")
            Traceback (most recent call last):
            TokenError: This is no token ...
        """
        parsed = _parsed(token)
        if parsed is None:
            raise TokenError(
                "This is no token as `token()` gives it: not the form of one, or not letter by letter.",
                reason="invalid",
            )
        return parsed

    @property
    def as_token(self) -> Token:
        """The token that says this, letter by letter."""
        if self.key_id is None:
            return Token(_to_base64(_compact(self.workflow_name, self.execution_id, self.deferred_name)))
        return Token(f"{self.key_id}.{_signed_part(self)}.{self.signature}")


class TokenKeys:
    """The keys of one engine: it signs with the first, and takes what any of them has signed (rotation).

    Attributes:
        key_id: The key that it signs with.
    """

    __slots__ = ("_secrets", "key_id")

    def __init__(self, secret: str | bytes | Mapping[str, str | bytes]) -> None:
        """Take a secret, or several by key id.

        Args:
            secret: At least 16 bytes. Of a mapping the first one signs, and all of them verify; one that is given
                without a name has the key id ``default``.

        Raises:
            UsageError: A secret is too short to be one, or a key id cannot stand in a token.
        """
        named = cast("Mapping[Any, Any]", secret if isinstance(secret, Mapping) else {DEFAULT_KEY: secret})
        if not named:
            raise UsageError("token_secret= is empty: give one secret, or a mapping of key ids to secrets.")
        self._secrets: dict[bytes, bytes] = {_key_id(key_id): _secret(given) for key_id, given in named.items()}
        self.key_id: str = next(iter(self._secrets)).decode()

    def sign(
        self,
        *,
        workflow_name: str,
        execution_id: str,
        deferred_name: str,
        incarnation: bytes | None = None,
        expires_at: Instant | None = None,
    ) -> Token:
        """Make a token, signed with the first key.

        Args:
            workflow_name: The workflow of the execution.
            execution_id: The execution.
            deferred_name: The deferred.
            incarnation: The life that it is for; None: whichever is there when it comes.
            expires_at: From when on it is refused; None: never.
        """
        said = TokenParsed(
            workflow_name=workflow_name,
            execution_id=execution_id,
            deferred_name=deferred_name,
            incarnation=None if incarnation is None else incarnation.hex(),
            key_id=self.key_id,
            expires_at=None if expires_at is None else to_datetime(expires_at),
        )
        part = _signed_part(said)
        key_id = self.key_id.encode()
        return Token(f"{self.key_id}.{part}.{_mac(self._secrets[key_id], key_id, part.encode()).decode()}")

    def verify(self, token: str, now: Instant) -> TokenParsed:
        """Read a token that one of the keys has signed and that has not expired.

        Raises:
            TokenError: It was signed by none of them, changed since, or is not in its one form (`reason` is "invalid",
                and says no more, so that nobody can feel their way); or it has expired ("expired").
        """
        if not self._signed_here(token):
            raise TokenError("This token is not valid.", reason="invalid")
        parsed = _parsed(token)
        if parsed is None:  # only somebody with a key can have come so far
            raise TokenError("This token is not valid.", reason="invalid")
        if parsed.expires_at is not None and from_datetime(parsed.expires_at) <= now:
            raise TokenError("This token has expired.", reason="expired")
        return parsed

    def _signed_here(self, token: object) -> bool:
        """Whether the mac is right; nothing but the key id has been looked at until it is."""
        if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
            return False
        key_id, _, rest = token.encode().partition(b".")
        part, _, signature = rest.rpartition(b".")
        # An unknown key does the same work: how long the answer takes tells nobody which ids there are.
        secret = self._secrets.get(key_id)
        expected = _mac(_NOBODYS_SECRET if secret is None else secret, key_id, part)
        # As text and not as bytes: base64 has bits to spare at its end, and only one of the ways to fill them is ours.
        return hmac.compare_digest(expected, signature) and secret is not None

    def __repr__(self) -> str:
        return f"<TokenKeys {', '.join(key_id.decode() for key_id in self._secrets)}>"


def _mac(secret: bytes, key_id: bytes, part: bytes) -> bytes:
    digest = hmac.new(secret, _DOMAIN + key_id + b"." + part, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=")


def _signed_part(parsed: TokenParsed) -> str:
    expires_at = None if parsed.expires_at is None else from_datetime(parsed.expires_at)
    names = (parsed.workflow_name, parsed.execution_id, parsed.deferred_name)
    return _to_base64(_compact(*names, parsed.incarnation, expires_at))


def _parsed(token: object) -> TokenParsed | None:
    """Take a token apart; None: it is none, or not in its one form."""
    # Its length first: what comes from outside is not worked on without bound.
    if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
        return None
    parts = token.split(".")
    parsed = _unsigned(parts[0]) if len(parts) == 1 else _signed(*parts) if len(parts) == 3 else None
    return parsed if parsed is not None and parsed.as_token == token else None


def _unsigned(part: str) -> TokenParsed | None:
    match _items(part):
        case [str(workflow), str(execution), str(deferred)] if _are_names(workflow, execution, deferred):
            return TokenParsed(workflow_name=workflow, execution_id=execution, deferred_name=deferred)
        case _:
            return None


def _signed(key_id: str, part: str, signature: str) -> TokenParsed | None:
    if not _KEY_ID.fullmatch(key_id) or len(_from_base64(signature)) != _MAC_BYTES:
        return None
    match _items(part):
        case [str(workflow), str(execution), str(deferred), incarnation, expiry] if (
            _are_names(workflow, execution, deferred) and _is_incarnation(incarnation) and _is_expiry(expiry)
        ):
            return TokenParsed(
                workflow_name=workflow,
                execution_id=execution,
                deferred_name=deferred,
                incarnation=incarnation,
                key_id=key_id,
                expires_at=None if expiry is None else to_datetime(expiry),
                signature=signature,
            )
        case _:
            return None


def _are_names(workflow: str, execution: str, deferred: str) -> bool:
    """Whether every store can be asked for these: what is no name anywhere else is none here."""
    return _is_name(workflow) and _is_name(deferred) and _EXECUTION_ID.fullmatch(execution) is not None


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and not any(
        character == "\0" or "\ud800" <= character <= "\udfff" for character in name
    )


def _is_incarnation(said: object) -> bool:
    return said is None or (isinstance(said, str) and _EXECUTION_ID.fullmatch(said) is not None)


def _is_expiry(said: object) -> bool:
    return said is None or (isinstance(said, int) and not isinstance(said, bool) and 0 <= said < 2**53)


def _items(part: str) -> list[Any]:
    """Read the array in base64; empty: there is none."""
    try:
        said: Any = json.loads(_from_base64(part).decode())
    # Nested a thousand deep it would be a RecursionError; the bytes come from outside.
    except (ValueError, RecursionError):
        return []
    return cast("list[Any]", said) if isinstance(said, list) else []


def _compact(*items: object) -> bytes:
    # As JSON.stringify writes it, so that a token made by another implementation is the same text.
    return json.dumps(items, ensure_ascii=False, separators=(",", ":")).encode()


def _to_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64(text: str) -> bytes:
    """Read base64url without padding; empty: it is none."""
    try:
        # Strictly, where the module would pass over what does not belong to its alphabet.
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return b""


def _key_id(key_id: object) -> bytes:
    if isinstance(key_id, str) and _KEY_ID.fullmatch(key_id):
        return key_id.encode()
    raise UsageError(
        f"token_secret=: a key id is 1 to 64 letters, digits, '-' and '_', since it stands in tokens, not {key_id!r}."
    )


def _secret(secret: object) -> bytes:
    # The secret itself stands in no sentence: errors go to logs.
    if not isinstance(secret, (str, bytes)):
        raise UsageError(f"token_secret=: a secret is text or bytes, not {type(secret).__name__}.")
    raw = secret.encode() if isinstance(secret, str) else secret
    if len(raw) < MIN_SECRET:
        raise UsageError(
            f"token_secret=: a secret has at least {MIN_SECRET} bytes, and this one has {len(raw)}. "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one."
        )
    return raw
