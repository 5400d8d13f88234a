"""What the tests of every room share: how a coroutine is run, and how Hypothesis behaves."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings

A = TypeVar("A")

# No deadline per example: a busy machine is not a defect, and a hang meets the 20 s limit of the test.
settings.register_profile("perdure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# On the build server the same commit gives the same verdict. Surprises are for the machines of people, who can
# keep the example: there the seed changes with every run.
settings.register_profile("perdure-ci", settings.get_profile("perdure"), derandomize=True, database=None)
settings.load_profile("perdure-ci" if os.environ.get("CI") else "perdure")


def pytest_collection_finish() -> None:
    """Let the collector leave alone what is there already: seven thousand tests, looked through at every `gc.collect()`."""
    gc.collect()
    gc.freeze()


class Run(Protocol):
    """Runs a coroutine function to its end on a loop of its own, under a deadline."""

    def __call__(self, main: Callable[[], Awaitable[A]], *, timeout: float = ...) -> A: ...


@pytest.fixture
def run() -> Run:
    """`run(main)`: asyncio.run under a deadline, so that a lost wake is a failure with a traceback and not a hang.

    Below the 20 s limit of a test on purpose: the deadline cancels the coroutine and shows where it waited, the
    limit only says that time was up.
    """

    def run_(main: Callable[[], Awaitable[A]], *, timeout: float = 15) -> A:
        async def limited() -> A:
            async with asyncio.timeout(timeout):
                return await main()

        return asyncio.run(limited())

    return run_
