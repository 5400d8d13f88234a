"""The pytest plugin: each test here runs a pytest of its own in a fresh process, with nothing but this plugin."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SHOP = """
import asyncio
import pytest
from perdure import Status, current_engine, sleep, workflow
from perdure.testing import EngineFactory, TestEngine

@workflow(idempotency_key=lambda email: email)
async def trial(email: str) -> str:
    await sleep("30 days")
    return "ended"

@workflow(idempotency_key=lambda: "one")
async def stuck() -> None:
    await asyncio.Event().wait()
"""


class Outcome:
    """What a run of pytest said."""

    def __init__(self, ran: "subprocess.CompletedProcess[str]") -> None:
        self.text = ran.stdout + ran.stderr
        self.passed = ran.returncode == 0


@pytest.fixture
def pytest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives a function that runs pytest over some tests."""
    # Whether it is installed as an entry point here or not, and beside no other plugin.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))

    def run_(tests: str) -> Outcome:
        (tmp_path / "test_shop.py").write_text(SHOP + tests, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "perdure.testing.plugin", "-W", "error", "-q", "test_shop.py"]
        return Outcome(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=18))

    return run_


def test_the_fixture_gives_engines_to_plain_tests(pytest_run):
    """With `asyncio.run`, with the blocking face, several in one test, each with a store of its own."""
    ran = pytest_run("""
def test_with_asyncio_run(perdure_engine: EngineFactory) -> None:
    async def main() -> None:
        async with perdure_engine([trial]) as engine:
            assert isinstance(engine, TestEngine)
            assert await trial.execute("ada") == "ended"

    asyncio.run(main())

def test_blocking(perdure_engine):
    with perdure_engine([trial]).blocking() as engine:
        assert engine.execute(trial, "ada") == "ended"

def test_two_in_one_test(perdure_engine):
    async def main():
        async with perdure_engine([trial]) as one, perdure_engine([trial], skips=False, cache=0) as other:
            assert await one.execute(trial, "ada") == "ended"
            assert await trial.options(engine=other).handle(trial.execution_id("ada")).poll() is None
            assert [found async for found in other.executions()] == []

    asyncio.run(main())

def test_on_a_file(perdure_engine, tmp_path):
    async def main():
        async with perdure_engine([trial], path=tmp_path / "test.perdure") as engine:
            await engine.start(trial, "ada")
        async with perdure_engine([trial], path=tmp_path / "test.perdure") as engine:
            assert await engine.execute(trial, "ada") == "ended"

    asyncio.run(main())
""")
    assert ran.passed, ran.text
    assert "4 passed" in ran.text


def test_the_fixture_gives_engines_to_a_plugin_for_asyncio(pytest_run):
    """Stands for anyio and pytest-asyncio: the test's coroutine runs on a loop that is made by somebody else."""
    ran = pytest_run("""
loop = asyncio.new_event_loop()

@pytest.fixture
def on_the_loop():
    return loop.run_until_complete

def test_one(perdure_engine, on_the_loop):
    async def test():
        async with perdure_engine([trial]) as engine:
            handle = await trial.start("ada")
            await engine.advance("29 days")
            assert await handle.status() is Status.SUSPENDED
    on_the_loop(test())

def test_another(perdure_engine, on_the_loop):
    async def test():
        async with perdure_engine([trial]):
            assert await trial.execute("ada") == "ended"
    on_the_loop(test())
    loop.close()
""")
    assert ran.passed, ran.text


def test_an_execution_that_is_held_at_the_end_fails_the_test(pytest_run):
    ran = pytest_run("""
def test_held(perdure_engine):
    async def main():
        async with perdure_engine([stuck]) as engine:
            await stuck.start()
            await engine.advance()

    asyncio.run(main())
""")
    assert not ran.passed
    assert "1 execution is held at the end:" in ran.text
    assert "(DEADLOCK)" in ran.text
    assert "allow_held=True" in ran.text


def test_a_test_that_wants_an_execution_held_says_so(pytest_run):
    ran = pytest_run("""
def test_held(perdure_engine):
    async def main():
        async with perdure_engine([stuck], allow_held=True) as engine:
            await stuck.start()
            await engine.advance()
            assert [one.held for one in await engine.held()] == ["DEADLOCK"]

    asyncio.run(main())
""")
    assert ran.passed, ran.text


def test_an_error_of_the_test_is_not_covered_by_what_is_held(pytest_run):
    ran = pytest_run("""
def test_held(perdure_engine):
    async def main():
        async with perdure_engine([stuck]) as engine:
            await stuck.start()
            await engine.advance()
            assert "this" == "that"

    asyncio.run(main())
""")
    assert not ran.passed
    assert "AssertionError: assert 'this' == 'that'" in ran.text
    assert "held at the end" not in ran.text


def test_an_engine_that_a_test_leaves_open_is_closed(pytest_run):
    """On a loop that is closed by then, on one that is not, and on a thread; the next test finds only its own."""
    ran = pytest_run("""
loop = asyncio.new_event_loop()

async def leave(factory):
    await factory([trial]).__aenter__()
    await trial.start("ada")

def test_on_a_loop_that_is_closed(perdure_engine):
    asyncio.run(leave(perdure_engine))

def test_on_a_loop_that_is_not(perdure_engine):
    loop.run_until_complete(leave(perdure_engine))

def test_on_a_thread(perdure_engine):
    blocking = perdure_engine([trial]).blocking()
    blocking.__enter__()
    blocking.start(trial, "ada")

def test_the_next_one(perdure_engine):
    from perdure._definitions import ambient
    assert ambient.open_engines == []
    loop.close()
""")
    assert ran.passed, ran.text


def test_the_plugin_loads_neither_engine_nor_store(pytest_run):
    ran = pytest_run("""
def test_what_is_loaded_when_pytest_starts():
    import subprocess, sys
    program = "import sys, perdure; before = set(sys.modules); import perdure.testing.plugin; print(sorted(set(sys.modules) - before))"
    loaded = eval(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    ours = [name for name in loaded if name.startswith("perdure")]
    assert ours == ["perdure.testing", "perdure.testing.plugin"], ours
    assert "apsw" not in loaded
""")
    assert ran.passed, ran.text


def test_pytest_finds_the_plugin_by_itself():
    with (ROOT / "pyproject.toml").open("rb") as file:
        entry_points = tomllib.load(file)["project"]["entry-points"]["pytest11"]
    assert entry_points == {"perdure": "perdure.testing.plugin"}
    assert callable(importlib.import_module(entry_points["perdure"]).perdure_engine)
