"""Random bodies: small programs over everything that a body may wait for, and a player that answers them at random.

A program writes down in a trace all that it sees: results, errors, the order of its branches, time and chance. Two runs
that saw the same did the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from perdure import Defect, now, patched, random, sleep, uuid4

from tests.kernel.driver import Play
from tests.kernel.steps import Declined, fetch, store

Trace = list[tuple[str, Any]]


class Node:
    """A piece of a program."""


@dataclass(frozen=True)
class Step(Node):
    """One activity; several have the same name and input."""

    name: str
    x: int


@dataclass(frozen=True)
class Sleep(Node):
    """A wait: by asyncio or by the library, with a name or without."""

    way: str
    ms: int


@dataclass(frozen=True)
class Draw(Node):
    """Time, chance, and a decision."""


@dataclass(frozen=True)
class Calls(Node):
    """A set of calls, gathered or taken as they complete."""

    way: str
    xs: tuple[int, ...]


@dataclass(frozen=True)
class Block(Node):
    """Several pieces: one after the other, or side by side in one of asyncio's ways."""

    way: str
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Within(Node):
    """A time limit around a piece."""

    way: str
    ms: int
    part: Node


@dataclass(frozen=True)
class Guarded(Node):
    """A piece whose failure is caught, or behind which something is cleaned up."""

    way: str
    part: Node


DURATIONS = st.sampled_from([0, 1_000, 2_000, 5_000, 5_000, 90_000])

_leaf = st.one_of(
    st.builds(Step, st.sampled_from(["fetch", "store"]), st.integers(0, 2)),
    st.builds(Sleep, st.sampled_from(["asyncio", "sleep", "named", "call_at"]), DURATIONS),
    st.builds(Draw),
    st.builds(
        Calls,
        st.sampled_from(["gather", "as_completed", "tasks"]),
        st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple),
    ),
)
_WAYS = st.sampled_from(["sequence", "gather", "group", "first", "queue", "gate", "generator"])

_piece: st.SearchStrategy[Node] = st.recursive(
    _leaf,
    lambda parts: st.one_of(
        st.builds(Block, _WAYS, st.lists(parts, min_size=1, max_size=4).map(tuple)),
        st.builds(Within, st.sampled_from(["timeout", "wait_for", "wait"]), DURATIONS, parts),
        st.builds(Guarded, st.sampled_from(["except", "finally", "shield"]), parts),
    ),
    max_leaves=8,
)
# Several pieces, so that most programs have something to race with.
PROGRAMS: st.SearchStrategy[Node] = st.builds(Block, _WAYS, st.lists(_piece, min_size=2, max_size=5).map(tuple))


# What a program does -------------------------------------------------------------------------------------


async def perform(node: Node, trace: Trace, path: str = "") -> None:
    """Run a program."""
    await _PERFORMERS[type(node)](node, trace, path)
    trace.append(("done", path))


async def _step(node: Step, trace: Trace, path: str) -> None:
    trace.append((path, await (fetch if node.name == "fetch" else store)(node.x)))


async def _sleep(node: Sleep, trace: Trace, path: str) -> None:
    loop = asyncio.get_running_loop()
    if node.way == "asyncio":
        await asyncio.sleep(node.ms / 1_000)
    elif node.way == "call_at":
        over = loop.create_future()
        timer = loop.call_at(loop.time() + node.ms / 1_000, over.set_result, None)
        try:
            await over
        finally:
            timer.cancel()
    else:
        await sleep(node.ms / 1_000, name="pause" if node.way == "named" else None)
    trace.append((path, loop.time()))


async def _draw(_: Draw, trace: Trace, path: str) -> None:
    trace.append(
        (path, (now(), str(uuid4()), str(uuid4("named")), random().random(), patched(f"change{len(path) % 3}")))
    )


async def _calls(node: Calls, trace: Trace, path: str) -> None:
    calls = {fetch(x) for x in node.xs}
    if node.way == "gather":
        trace.append((path, _said(await asyncio.gather(*calls, return_exceptions=True))))
    elif node.way == "tasks":
        tasks = {asyncio.ensure_future(call) for call in calls}
        for task in tasks:
            trace.append((path, _said(await asyncio.gather(task, return_exceptions=True))))
    else:
        for done in asyncio.as_completed(calls):
            trace.append((path, _said(await asyncio.gather(done, return_exceptions=True))))


async def _block(node: Block, trace: Trace, path: str) -> None:
    def part(place: int) -> Awaitable[None]:
        return perform(node.parts[place], trace, f"{path}/{place}")

    places = range(len(node.parts))
    if node.way == "sequence":
        for place in places:
            await part(place)
    elif node.way == "gather":
        trace.append((path, _said(await asyncio.gather(*map(part, places), return_exceptions=True))))
    elif node.way == "group":
        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(part(place))  # type: ignore[arg-type]
    elif node.way == "first":
        await _first([asyncio.ensure_future(part(place)) for place in places], trace, path)
    elif node.way == "queue":
        await _through_a_queue([part(place) for place in places], trace, path)
    elif node.way == "gate":
        await _behind_a_gate([part(place) for place in places], trace, path)
    else:
        async for place in _generated(part, len(node.parts), trace, path):
            if place:
                break


async def _first(tasks: list[asyncio.Future[None]], trace: Trace, path: str) -> None:
    done, pending = await asyncio.wait(set(tasks), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    trace.append((path, [tasks.index(task) for task in done]))
    trace.append((path, _said(await asyncio.gather(*pending, return_exceptions=True))))
    for task in done:
        task.result()


async def _through_a_queue(parts: Sequence[Awaitable[None]], trace: Trace, path: str) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce(place: int, part: Awaitable[None]) -> None:
        try:
            await part
        finally:
            await queue.put(place)

    tasks = [asyncio.create_task(produce(place, part)) for place, part in enumerate(parts)]
    try:
        for _ in parts:
            trace.append((path, await queue.get()))
    finally:
        for task in tasks:
            task.cancel()
        trace.append((path, _said(await asyncio.gather(*tasks, return_exceptions=True))))


async def _behind_a_gate(parts: Sequence[Awaitable[None]], trace: Trace, path: str) -> None:
    gate, lock = asyncio.Event(), asyncio.Lock()

    async def wait(place: int, part: Awaitable[None]) -> None:
        try:
            await gate.wait()
            async with lock:
                trace.append((path, f"in {place}"))
                await part
        finally:
            if asyncio.iscoroutine(part):
                part.close()

    async with asyncio.TaskGroup() as group:
        for place, part in enumerate(parts):
            group.create_task(wait(place, part))
        await fetch(0)
        gate.set()


async def _generated(part: Callable[[int], Awaitable[None]], count: int, trace: Trace, path: str) -> Any:
    try:
        for place in range(count):
            await part(place)
            yield place
    finally:
        trace.append((path, "left"))
        await store(0)


async def _within(node: Within, trace: Trace, path: str) -> None:
    part = perform(node.part, trace, f"{path}/in")
    try:
        if node.way == "timeout":
            async with asyncio.timeout(node.ms / 1_000):
                await part
        elif node.way == "wait_for":
            await asyncio.wait_for(part, node.ms / 1_000)
        else:
            task = asyncio.ensure_future(part)
            done, _ = await asyncio.wait({task}, timeout=node.ms / 1_000)
            trace.append((path, len(done)))
            if not done:
                task.cancel()
    except TimeoutError:
        trace.append((path, "late"))


async def _guarded(node: Guarded, trace: Trace, path: str) -> None:
    part = perform(node.part, trace, f"{path}/in")
    if node.way == "shield":
        await asyncio.shield(part)
        return
    try:
        await part
    except (Declined, Defect, ExceptionGroup) as error:
        trace.append((path, str(error)))
        if node.way == "finally":
            raise
    finally:
        if node.way == "finally":
            trace.append((path, await store(1)))


def _said(ends: Sequence[Any]) -> list[str]:
    """Results and errors as text: two errors that say the same are not equal."""
    return [f"{type(end).__name__} {end}" for end in ends]


_PERFORMERS: dict[type[Node], Callable[[Any, Trace, str], Awaitable[None]]] = {
    Step: _step, Sleep: _sleep, Draw: _draw, Calls: _calls, Block: _block, Within: _within, Guarded: _guarded,
}  # fmt: skip


# How it is played ------------------------------------------------------------------------------------------


class Player:
    """Plays one program, and remembers after each commit how things stood and what had been seen."""

    def __init__(self, program: Node) -> None:
        self.trace: Trace = []
        self.play = Play(self._body(program))
        self.stands = [self._stand()]

    def _body(self, program: Node) -> Callable[[], Any]:
        async def body() -> int:
            # A replay sees everything again from its beginning.
            self.trace.clear()
            await perform(program, self.trace)
            return len(self.trace)

        return body

    def _stand(self) -> tuple[Any, ...]:
        return len(self.play.journal), self.play.standing(), list(self.trace)

    def move(self, choice: int) -> None:
        """One thing happens: an attempt ends somehow, or time passes until the next timer."""
        play = self.play
        calls = [call for call in play.calls if call.due_at is None or call.due_at <= (play.nearest() or call.due_at)]
        timers = play.timers
        place, how = choice % (len(calls) + bool(timers) or 1), choice // 7
        if place < len(calls):
            self._end_attempt(calls[place], how)
        elif timers:
            nearest = play.nearest()
            assert nearest is not None
            play.pass_time(max(0, nearest - play.now))
        self.stands.append(self._stand())

    def _end_attempt(self, call: Any, how: int) -> None:
        match how % 8:
            case 0:
                self.play.fail(call, Declined(code=how))
            case 1:
                self.play.fail(call, ValueError(f"number {how}"))
            case 2 if call.attempt < 4:
                self.play.fail(call, Declined(code=how), retry_in_ms=1_000)
            case 3 if call.attempt < 4:
                self.play.fail(call, asyncio.CancelledError(), retry_in_ms=2_000)
            case _:
                self.play.answer(call, how)

    @property
    def at_rest(self) -> bool:
        """Whether nothing can happen to it any more."""
        return not self.play.calls and not self.play.timers
