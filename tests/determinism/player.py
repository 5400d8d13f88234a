"""The program of one process: plays the bodies live, or replays journals that another process has made.

`play` writes to stdout, as JSON, for each body its journal and what it has seen; `replay` reads that from stdin and
writes what it sees itself. With `--plain` tasks and futures are hashed by their address, as asyncio's own are.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from perdure._kernel.loop import KernelFuture, KernelTask
from perdure._model.journal import Entry

from tests.determinism.programs import PROGRAMS, Program, Trace
from tests.kernel.driver import Play

# How far the replays go: the whole journal, and some of it.
PORTIONS = (1.0, 0.75, 0.5, 0.25)


def _body(program: Program, trace: Trace) -> Callable[[], Coroutine[Any, Any, Any]]:
    async def body() -> Any:
        return await program(trace)

    return body


def play(program: Program) -> dict[str, Any]:
    """Play a body to its end, its calls answered in an order that has nothing to do with theirs."""
    trace: Trace = []
    chance = Random(program.__name__)
    live = Play(_body(program, trace))
    seen = {0: _seen(live, trace)}
    while not live.ended:
        assert live.kernel.trouble is None
        if live.calls and not (live.timers and chance.random() < 0.15):
            call = chance.choice(live.calls)
            live.answer(call, call.args[0] * 10)
        else:
            nearest = live.nearest()
            assert nearest is not None
            live.pass_time(nearest - live.now)
        seen[len(live.journal)] = _seen(live, trace)
    lengths = sorted({max(length for length in seen if length <= len(live.journal) * part) for part in PORTIONS} - {0})
    return {
        "journal": [_plain(entry) for entry in live.journal],
        "seen": {str(length): seen[length] for length in lengths},
    }


def replay(program: Program, recorded: dict[str, Any]) -> dict[str, Any]:
    """Replay the journal as far as the other process has looked; what is seen there."""
    journal = [_entry(plain) for plain in recorded["journal"]]
    seen: dict[str, Any] = {}
    for length in recorded["seen"]:
        trace: Trace = []
        again = Play(_body(program, trace), journal[: int(length)])
        seen[length] = _seen(again, trace)
        again.close()
    return {"seen": seen}


def _seen(play: Play, trace: Trace) -> Any:
    # As text: what JSON would make of tuples and bytes is none of the comparison's business.
    return [repr(trace), repr(play.standing()), repr(play.waiting), repr(play.timer_names)]


def _plain(entry: Entry) -> list[Any]:
    return [each.decode() if isinstance(each, bytes) else each for each in entry]


def _entry(plain: list[Any]) -> Entry:
    seq, kind, name, occurrence, attempt, asked, exit_, at = plain
    return Entry(seq, kind, name, occurrence, attempt, asked.encode(), exit_.encode(), at)


def _hash_by_address() -> list[object]:
    """Take the numbers from tasks and futures; and move the addresses, which are alike in processes that did alike."""
    for numbered, plain in ((KernelTask, asyncio.Task), (KernelFuture, asyncio.Future)):
        numbered.__hash__ = plain.__hash__  # type: ignore[method-assign, assignment]
    chance = Random()
    return [bytes(chance.randrange(16, 480)) for _ in range(20_000)]


def main() -> None:
    kept = _hash_by_address() if "--plain" in sys.argv else []
    if kept:
        Random().shuffle(kept)
        del kept[::2]  # holes, which the next objects fall into
    if sys.argv[1] == "play":
        outcome = {name: play(program) for name, program in PROGRAMS.items()}
    else:
        recorded = json.load(sys.stdin)
        outcome = {name: replay(program, recorded[name]) for name, program in PROGRAMS.items()}
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
