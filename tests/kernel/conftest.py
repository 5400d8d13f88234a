"""Kernels do not outlive their test, and what they log is there to be looked at."""

import gc
import logging
from collections.abc import Callable, Iterator

import pytest

from perdure._kernel import frames

from tests.kernel import steps
from tests.kernel.driver import close_all


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A list of its own for each test. What other rooms' tests have left in the real one must stay there: a frame that
    # refuses to close, collected here, would run for ever.
    monkeypatch.setattr(frames, "_unclosable", [])
    yield
    close_all()
    really, steps.ran[:] = list(steps.ran), []
    assert really == []


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the library logs, from the lowest level on."""
    with caplog.at_level(logging.DEBUG, logger="perdure"):
        yield caplog


@pytest.fixture
def is_quiet(log: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> Callable[[], bool]:
    """Whether nothing was said about tasks that were destroyed, or coroutines that nobody awaited, by memory's end too.

    Warnings in a destructor come as "unraisable"; pytest makes an error of those at the end of the test.
    """

    def is_quiet_() -> bool:
        gc.collect()
        said = [record.getMessage() for record in log.records] + [str(warning.message) for warning in recwarn]
        assert [message for message in said if "destroyed" in message or "never awaited" in message] == []
        return True

    # What other tests have left is none of this one's.
    gc.collect()
    log.clear()
    return is_quiet_
