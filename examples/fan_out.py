"""The words of a folder of texts are counted by one execution for each text, and put together by their parent.

Run it: `python examples/fan_out.py`, or with a folder: `python examples/fan_out.py docs`.
"""

import asyncio
import hashlib
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from perdure import TypedError, WorkflowEngine, activity, publish, workflow


class Unreadable(TypedError):
    name: str


@activity(error=Unreadable)
def read_words(path: Path) -> dict[str, int]:
    try:
        return Counter(re.findall(r"[a-z]{5,}", path.read_text(encoding="utf-8").lower()))
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(name=path.name) from error


# By path and content: a text that has not changed since is not counted again, whoever asks.
@workflow(idempotency_key=lambda path, digest: f"{path}:{digest}", error=Unreadable)
async def count_text(path: Path, digest: str) -> dict[str, int]:
    return await read_words(path)


@workflow
async def count_texts(texts: dict[Path, str]) -> list[tuple[str, int]]:
    total, done, few_at_once = Counter[str](), 0, asyncio.Semaphore(20)

    async def count(path: Path, digest: str) -> None:
        nonlocal done
        async with few_at_once:
            try:
                total.update(await count_text.execute(path, digest))
            except Unreadable as unreadable:
                publish(f"unreadable/{unreadable.name}", True)
        done += 1
        publish("progress", f"{done} of {len(texts)}")

    async with asyncio.TaskGroup() as group:
        for path, digest in texts.items():
            group.create_task(count(path, digest))
    return sorted(total.items(), key=lambda found: (-found[1], found[0]))[:3]


def texts_in(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.md"))}


async def main(folder: Path, store: Path) -> None:
    async with WorkflowEngine.sqlite(store, [count_texts, count_text]) as engine:
        texts = texts_in(folder)
        for _ in range(2):  # the second time every child has been counted already, and is joined
            handle = await count_texts.start(texts)
            print(*await handle.result())
            print(await handle.read("progress"))
        counted = [one async for one in engine.executions(workflow=count_text)]
        print("children:", len(counted), "for", len(texts), "texts")


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "decisions"
    with tempfile.TemporaryDirectory() as room:
        asyncio.run(main(chosen, Path(room) / "words.perdure"))
