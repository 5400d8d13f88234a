"""The keys of a rerun: what a body signs tokens with where it runs on a kernel of its own, without an engine (R19).

What it has given out is in its journal, and is not signed again. Only a token that is not recorded needs keys: one that
changed code asks for, or that follows the part of a journal that is looked at.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar, cast

from perdure._definitions import ambient
from perdure._values.instant import Instant
from perdure._values.token import TokenKeys

if TYPE_CHECKING:
    from perdure._definitions.host import Engine

T = TypeVar("T")

# As in the options of an engine.
TokenSecret = str | bytes | Mapping[str, str | bytes]

_keys: ContextVar[TokenKeys | None] = ContextVar("perdure_testing_keys", default=None)


class _Signer:
    """All that a body may ask an engine for: keys, and what o'clock it is in that body."""

    def __init__(self, token_keys: TokenKeys) -> None:
        self.token_keys = token_keys

    def now(self) -> Instant:
        """The time that a replay sees."""
        return ambient.require_host("token()").now()


@contextmanager
def signing(keys: TokenKeys | None) -> Generator[None, None, None]:
    """Have bodies that are run again meanwhile sign with these keys; None: as before."""
    token = _keys.set(keys or _keys.get())
    try:
        yield
    finally:
        _keys.reset(token)


def with_keys(make_body: Callable[[], T]) -> Callable[[], T]:
    """The same, for a context of its own, in which the body finds the keys that are had here."""
    keys = _keys.get()
    if keys is None:
        return make_body

    def make() -> T:
        ambient.engine.set(cast("Engine", _Signer(keys)))
        return make_body()

    return make
