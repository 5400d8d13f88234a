"""Every engine test runs on both stores, and with every kernel put away at every await."""

import logging
from collections.abc import Iterator

import pytest

from tests.conftest import Run
from tests.engine import noted
from tests.engine.lab import Lab, watch_threads

COMBINATIONS = [
    pytest.param(("memory", None), id="memory"),
    pytest.param(("memory", 0), id="memory-cache0"),
    pytest.param(("file", None), id="file"),
    pytest.param(("file", 0), id="file-cache0"),
]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_threads(monkeypatch)


@pytest.fixture(autouse=True)
def nothing_is_done_yet() -> None:
    noted.done.clear()


@pytest.fixture(params=COMBINATIONS)
def lab(request: pytest.FixtureRequest, tmp_path, run: Run) -> Lab:
    kind, cache = request.param
    return Lab(kind, cache, tmp_path, run)


@pytest.fixture(params=COMBINATIONS[:2])
def memory_lab(request: pytest.FixtureRequest, tmp_path, run: Run) -> Lab:
    """For what only a store in memory does."""
    return Lab(*request.param, tmp_path, run)


@pytest.fixture(params=COMBINATIONS[2:])
def file_lab(request: pytest.FixtureRequest, tmp_path, run: Run) -> Lab:
    """For what needs a second process, or a second engine in its place."""
    return Lab(*request.param, tmp_path, run)


@pytest.fixture(params=[COMBINATIONS[0], COMBINATIONS[3]])
def corner_lab(request: pytest.FixtureRequest, tmp_path, run: Run) -> Lab:
    """For long lists of values, which meet every store and every replay in these two."""
    return Lab(*request.param, tmp_path, run)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the library logs, from INFO on."""
    with caplog.at_level(logging.INFO, logger="perdure"):
        yield caplog
