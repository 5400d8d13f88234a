"""What becomes of a start that has met an execution with another payload (R2)."""

import logging

from perdure._definitions.start import mismatch_of
from perdure._model.records import Start

logger = logging.getLogger("perdure")


def heed_mismatch(start: Start, recorded: bytes) -> None:
    """Refuse the start, if it is strict; else say so in the log, and let it join.

    Raises:
        PayloadMismatchError: It is strict.
    """
    mismatch = mismatch_of(start, recorded)
    if mismatch is None:
        return
    if start.strict:
        raise mismatch
    logger.warning(
        "execution %s of %r was started with another payload before (%s differ(s)); the first one stands",
        start.execution_id, start.workflow, ", ".join(mismatch.fields),
    )  # fmt: skip
