"""`import perdure` is light: no driver, server or command line comes with it."""

import json
import subprocess
import sys

# What belongs to extras, to an open store, or to the development of perdure. Prefixes of module names.
HEAVY = {
    "apsw",  # only once a store is opened
    "asyncpg",
    "click",
    "cronsim",
    "cryptography",
    "fastapi",
    "hypothesis",
    "jinja2",
    "mcp",
    "opentelemetry",
    "pjrpc",
    "pytest",
    "redis",
    "rich",
    "sqlite3",  # another SQLite library in the process than the one of the store
    "sse_starlette",
    "starlette",
    "typer",
    "uvicorn",
}


def modules_after(statement: str) -> set[str]:
    """The modules of a fresh process once it has run the statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_importing_perdure_loads_no_driver_and_no_server():
    loaded = modules_after("import perdure")
    assert "perdure" in loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_importing_perdure_loads_none_of_its_own_edges():
    loaded = modules_after("import perdure")
    edges = ("perdure.testing", "perdure.cli", "perdure.proxy", "perdure.dashboard")
    assert {name for name in loaded if name.startswith(edges)} == set()


def test_every_public_name_can_be_imported_without_a_store():
    """A lazy name that loads a driver would make the light import a trick."""
    loaded = modules_after("from perdure import *")
    assert "apsw" not in loaded
