"""The suite that every store must pass, and that a store which passes it can be trusted by.

Each test is a sentence of the port's contract (`perdure._model.store`). To run it over a store of
one's own, a file of tests gives the fixture `place`, fresh for each test, and imports the suite:

    from perdure.testing.conformance import *

    class MyPlace:
        def store(self, clock): ...
        async def kill(self, store, worker_id): ...

    @pytest.fixture
    def place(tmp_path):
        return MyPlace(...)

The tests need pytest and no plugin of it. None of them waits for time to pass: the stores get a
clock that is set by hand.
"""

import pytest

# Before they are imported: a failing assert in them shows its values, as in a test of one's own.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "acts",
            "children",
            "executions",
            "interrupts",
            "journal",
            "lives",
            "mailbox",
            "retention",
            "scene",
            "timers",
            "workers",
        )
    )
)

from perdure.testing.conformance.acts import TestActs, TestNext, TestOtherPayloads  # noqa: E402
from perdure.testing.conformance.children import TestChildren, TestLeaving  # noqa: E402
from perdure.testing.conformance.executions import TestClaim, TestCommit, TestLooking, TestStart  # noqa: E402
from perdure.testing.conformance.interrupts import TestDeadlines, TestInterrupt  # noqa: E402
from perdure.testing.conformance.journal import TestJournal  # noqa: E402
from perdure.testing.conformance.lives import TestBirthWithJournal, TestRenew, TestRestart, TestSkip  # noqa: E402
from perdure.testing.conformance.mailbox import TestMailbox  # noqa: E402
from perdure.testing.conformance.retention import (  # noqa: E402
    TestForgetWorkers,
    TestPurge,
    TestPurgeLives,
    TestTail,
)
from perdure.testing.conformance.scene import Place  # noqa: E402
from perdure.testing.conformance.timers import TestHeartbeats, TestHeld, TestTimers  # noqa: E402
from perdure.testing.conformance.workers import TestStore, TestWorkers  # noqa: E402

__all__ = [
    "Place",
    "TestActs",
    "TestBirthWithJournal",
    "TestChildren",
    "TestClaim",
    "TestCommit",
    "TestDeadlines",
    "TestForgetWorkers",
    "TestHeartbeats",
    "TestHeld",
    "TestInterrupt",
    "TestJournal",
    "TestLeaving",
    "TestLooking",
    "TestMailbox",
    "TestNext",
    "TestOtherPayloads",
    "TestPurge",
    "TestPurgeLives",
    "TestRenew",
    "TestRestart",
    "TestSkip",
    "TestStart",
    "TestStore",
    "TestTail",
    "TestTimers",
    "TestWorkers",
]
