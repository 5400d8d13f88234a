"""The pytest plugin: the fixture `perdure_engine`, for tests of any style.

pytest loads it in every run of an environment in which perdure is installed. So it imports nothing but what
`import perdure` does; engine and store are loaded by the first test that uses the fixture. It needs no plugin for
asyncio, and gets along with each: what the fixture gives is made anywhere and opened by the test, on the test's loop.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Unpack

    from perdure._definitions.registration import Registration
    from perdure._facade import EngineOptions
    from perdure.testing.clock import VirtualClock
    from perdure.testing.engine import TestEngine


class EngineFactory:
    """Makes the engines of one test: what the fixture `perdure_engine` gives.

    Example:
        ```python fragment
        from perdure.testing import EngineFactory


        async def test_a_trial_ends_after_thirty_days(perdure_engine: EngineFactory) -> None:
            async with perdure_engine([trial]) as engine:
                handle = await trial.start("ada@example.com")
                await engine.advance("30 days")
                assert await handle.result() == "ended"
        ```
    """

    def __init__(self) -> None:
        self._engines: list[TestEngine] = []

    def __call__(
        self,
        registrations: "Iterable[Registration]" = (),
        /,
        *,
        path: "str | PathLike[str] | None" = None,
        clock: "VirtualClock | None" = None,
        skips: bool = True,
        allow_held: bool = False,
        **options: "Unpack[EngineOptions]",
    ) -> "TestEngine":
        """Make a `TestEngine`; in memory each has a store of its own.

        The arguments are those of `TestEngine`, but for `allow_held`: an execution that is held at the end fails the
        test, unless it says that it wants that. What is held says so only in the log; without this a test that looks
        at something else would pass beside a workflow that is broken.
        """
        from perdure.testing.engine import TestEngine  # noqa: PLC0415 - not before a test asks for one

        engine = TestEngine(registrations, path=path, clock=clock, skips=skips, allow_held=allow_held, **options)
        self._engines.append(engine)
        return engine

    def close(self) -> None:
        """Close what the test has left open, so that the next one does not find it."""
        for engine in reversed(self._engines):
            engine.close_if_left_open()
        self._engines.clear()


@pytest.fixture
def perdure_engine() -> Iterator[EngineFactory]:
    """Makes engines for this test, each with a virtual clock and, by itself, a store in memory."""
    factory = EngineFactory()
    yield factory
    factory.close()
