"""Hearing an engine's log say that its store does not answer, without waiting for it to be so."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Trouble(logging.Handler):
    """What engines of this process say of their store."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._heard = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "does not answer" in record.msg:
            self.said.append(record.getMessage())
            self._heard.set()  # engines say it on their own loop, which is the test's

    async def heard(self) -> None:
        """Until something has been said. An outage is said once, however long it is."""
        await self._heard.wait()


@contextmanager
def listening() -> Iterator[Trouble]:
    """Hear of trouble meanwhile."""
    trouble = Trouble()
    logger = logging.getLogger("perdure")
    logger.addHandler(trouble)
    try:
        yield trouble
    finally:
        logger.removeHandler(trouble)
