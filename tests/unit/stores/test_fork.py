"""A store and a fork: the child is refused, and the parent does not notice."""

import json
import sys
from pathlib import Path

import pytest

from tests.unit.stores.actor import output, program

# Each step on a loop of its own: a loop that is open during a fork shares its epoll with the child.
FORK = """
import asyncio, json, os, sys, warnings
warnings.simplefilter("ignore")
from perdure._model.records import Query
from perdure._stores.sqlite import SqliteStore
from perdure.errors import UsageError
from tests.unit.stores.actor import worker

path = sys.argv[1]
store = SqliteStore(path)
asyncio.run(store.open())
asyncio.run(store.register(worker("parent")))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    said = []
    async def attempt(call):
        try:
            await call
        except UsageError as error:
            said.append(str(error))
    async def main():
        await attempt(store.workers())
        await attempt(store.register(worker("child")))
        await attempt(store.close())
        await attempt(SqliteStore(path).open())
        other = SqliteStore(path + ".other")
        await other.open()
        await other.close()
    asyncio.run(main())
    os.write(writing, json.dumps(said).encode())
    sys.exit(0)  # the whole way out, which would close what the parent has open
os.close(writing)
_, status = os.waitpid(child, 0)
with open(reading) as pipe:
    said = json.load(pipe)
asyncio.run(store.register(worker("later")))
known = [one.worker_id for one in asyncio.run(store.workers())]
asyncio.run(store.close())
again = SqliteStore(path)
asyncio.run(again.open())
check = asyncio.run(again._write(lambda connection: connection.pragma("integrity_check")))
known_again = [one.worker_id for one in asyncio.run(again.workers())]
asyncio.run(again.close())
print(json.dumps([status, said, known, known_again, check]))
"""

ORPHAN = """
import asyncio, os, sys, time, warnings
warnings.simplefilter("ignore")
from perdure._stores.sqlite import SqliteStore
from tests.unit.stores.actor import worker
store = SqliteStore(sys.argv[1])
asyncio.run(store.open())
asyncio.run(store.register(worker("parent")))
if os.fork() == 0:
    sys.stdin.readline()  # lives on when the parent is dead
    os._exit(0)
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    status, said, known, known_again, check = json.loads(output(program(FORK, tmp_path / "orders.perdure")))
    assert status == 0
    assert len(said) == 4
    assert all("fork" in sentence and "spawn" in sentence for sentence in said)
    assert known == known_again == ["parent", "later"]
    assert check == "ok"


def test_a_forked_child_does_not_keep_a_dead_parents_lock(tmp_path: Path) -> None:
    """An flock belongs to the open file, which a fork shares: the child must have closed it."""
    path = tmp_path / "orders.perdure"
    parent = program(ORPHAN, path)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.wait(timeout=15)
    take_over = """
import asyncio, sys
from perdure._stores.sqlite import SqliteStore
async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.take_over("another")
    print(await store.alive("parent"))
    await store.close()
asyncio.run(main())
"""
    try:
        assert output(program(take_over, path)) == "False\n"
    finally:
        parent.communicate("go\n")
