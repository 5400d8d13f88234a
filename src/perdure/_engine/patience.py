"""Asking a store until it answers.

An outage is nobody's result: what was asked is asked again after a pause, for as long as it takes. Only
what may be repeated is asked like this, which every method of the port is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure._engine.settings import PAUSE_S
from perdure.errors import StoreError

T = TypeVar("T")

logger = logging.getLogger("perdure")


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    what: str,
    errors: type[StoreError] = StoreError,
    *,
    but: Callable[[StoreError], bool] | None = None,
) -> T:
    """Ask, and ask again while the store does not answer.

    Args:
        ask: Asks once.
        what: For the log: "the store does not answer; …".
        errors: What counts as no answer; others are the caller's.
        but: Those of them that no repetition mends.

    Raises:
        StoreError: One that counts as an answer.
    """
    while True:
        try:
            return await ask()
        except errors as error:
            if but is not None and but(error):
                raise
            logger.warning("the store does not answer; %s: %s", what, error)
            await asyncio.sleep(PAUSE_S)
