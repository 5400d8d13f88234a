"""Three mirrors are asked for one file; the first good answer counts, and a deadline is one of the runners.

Run it: `python examples/race.py`.
"""

import asyncio
import tempfile
from pathlib import Path

from perdure import DurableDeferred, WorkflowEngine, activity, race_all, sleep, workflow

CUT_OFF: list[str] = []


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mirror. What it is asked for says how it behaves."""
    asked = (await reader.readline()).decode().split()
    if asked[0] != "silent":
        writer.write(b"200 the file" if asked[0] == "good" else b"500 out of order")
        await writer.drain()
        writer.close()
        return
    await reader.read()  # until the other side hangs up
    writer.close()


@activity(error=ConnectionError)
async def download(port: int, mirror: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{mirror} file\n".encode())
        status, _, content = (await reader.read()).decode().partition(" ")
    except asyncio.CancelledError:
        CUT_OFF.append(mirror)  # it has lost
        raise
    finally:
        writer.close()
    if status != "200":
        raise ConnectionError(f"{mirror}: {content}")
    return f"{content}, by the {mirror} mirror"


@workflow(error=ConnectionError)
async def fetch(port: int, mirrors: list[str]) -> str:
    return await race_all("mirrors", [download(port, mirror) for mirror in mirrors])


@workflow
async def fetch_in_time(port: int, mirrors: list[str], seconds: float) -> str:
    async def give_up() -> str:
        await sleep(seconds, name="patience")
        return "nothing in time"

    # A race in a race: a body that was killed goes on with the same connections to make, and the rest of its patience.
    runners = [race_all("mirrors", [download(port, mirror) for mirror in mirrors]), give_up()]
    return await DurableDeferred.race_all("mirrors-or-nothing", runners, success=str)


async def main(store: Path) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, WorkflowEngine.sqlite(store, [fetch, fetch_in_time]):
        print(await fetch.execute(port, ["silent", "broken", "good"]))
        print(await fetch_in_time.execute(port, ["silent", "broken"], 0.2))
        try:
            await fetch.execute(port, ["broken", "broken again"])
        except* ConnectionError as failed:
            print("both:", *failed.exceptions)
    print("cut off:", *CUT_OFF)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as room:
        asyncio.run(main(Path(room) / "mirrors.perdure"))
