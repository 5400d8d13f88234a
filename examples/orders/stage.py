"""Where the demo plays: one directory, and the processes of the gateway and the worker."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path

HERE = Path(__file__).parent
ORDERS = HERE / "orders.jsonl"


class DemoError(Exception):
    """The demo could not go on."""


class Stage:
    """The files of one demo, and its processes, none of which outlives its context."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.database = directory / "orders.perdure"
        self.ledger = directory / "ledger.sqlite3"
        self.shop = directory / "shop"
        self._limit = limit
        self._address = ""

    @asynccontextmanager
    async def gateway(self, *, hold_after: int) -> AsyncIterator[None]:
        async with _process("gateway.py", self.ledger, "--hold-after", hold_after) as gateway:
            async for line in lines(gateway):
                self._address = line.removeprefix("listening on ")
                break
            else:
                raise DemoError("the gateway ended before it said where it listens")
            yield

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Process]:
        settings = {"GATEWAY_ADDRESS": self._address, "SHOP_DIRECTORY": str(self.shop)}
        async with _process("worker.py", self.database, ORDERS, "--limit", self._limit, **settings) as worker:
            yield worker

    async def gateway_status(self) -> dict[str, int]:
        """Ask the gateway what is on its way: `in_flight`, `unanswered`, and whether it is `holding` answers back."""
        return await asyncio.to_thread(_ask, self._address, "GET", "/status")

    async def release_answers(self) -> None:
        await asyncio.to_thread(_ask, self._address, "POST", "/release")


async def lines(process: Process) -> AsyncIterator[str]:
    """What a process says, line by line, until it ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        # The last line of a killed process may be half a line.
        if line.endswith(b"\n"):
            yield line.decode().rstrip()


@asynccontextmanager
async def _process(script: str, *arguments: object, **settings: str) -> AsyncIterator[Process]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"} | settings
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _ask(address: str, method: str, path: str) -> dict[str, int]:
    connection = HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
