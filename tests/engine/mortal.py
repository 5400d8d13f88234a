"""A worker that dies at any commit one likes, and everything that it could have left behind, tried out in turn."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from perdure import Handle, Status, WorkflowEngine
from perdure._definitions.registration import Registration

from tests.engine.lab import Lab, Probe

# No scenario of these tests commits as often; one that does would be tried out for ever.
MOST_COMMITS = 60
# And none lasts longer.
LIFE_MS = 3 * 24 * 60 * 60 * 1000

Scenario = Callable[[str], Awaitable[Any]]


class MortalStore(Probe):
    """A store whose process ends at its n-th commit: before it is written, or when it is and nobody has been told."""

    def __init__(self, probe: Probe, at: int, *, written: bool) -> None:
        super().__init__(probe.inner)
        self._left = at
        self._written = written

    @property
    def died(self) -> bool:
        """Whether there have been so many commits."""
        return self._left <= 0

    async def _ask(self, name: str, method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        if name == "commit" and not self.dead:
            self._left -= 1
            if self._left == 0 and self._written:
                await super()._ask(name, method, args)
            self.dead = self._left == 0
        return await super()._ask(name, method, args)


async def at_rest(handle: Handle[Any]) -> None:
    """Until an execution is in nobody's hands."""
    while (await handle.status()) in {Status.PENDING, Status.RUNNING}:  # noqa: ASYNC110 - what others do says nobody
        await asyncio.sleep(0)


async def died_at_each_commit(
    lab: Lab,
    registrations: Iterable[Registration],
    scenario: Scenario,
    check: Callable[[WorkflowEngine, str, Any], Awaitable[object]],
) -> int:
    """Play a scenario once for every commit, and let its worker die there; the next worker plays it to its end.

    A scenario is given a key, and may be played again under the same one: it starts by key, and joins. `check` is told
    what it came to. Gives how many commits there were to die at.
    """
    registered = list(registrations)
    for at in range(1, MOST_COMMITS):
        if not all([await _dies(lab, registered, scenario, check, at, written=written) for written in (False, True)]):
            return at - 1
    raise AssertionError("a scenario without an end")


async def _dies(
    lab: Lab,
    registrations: list[Registration],
    scenario: Scenario,
    check: Callable[[WorkflowEngine, str, Any], Awaitable[object]],
    at: int,
    *,
    written: bool,
) -> bool:
    key = f"dies at {at}, {'written' if written else 'unwritten'}"
    store = MortalStore(lab.store(), at, written=written)
    lab._probes.append(store)
    async with lab.doomed(registrations, store=store):
        playing = asyncio.ensure_future(scenario(key))
        await _live(lab, store, LIFE_MS)
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await playing
    async with lab.engine(registrations) as engine:
        await check(engine, key, await lab.finish(_outcome(scenario(key))))
    return store.died


async def _live(lab: Lab, store: MortalStore, duration_ms: int) -> None:
    """Let time pass until the worker dies: whatever is due after that waits for ever."""
    await lab.settle()
    until = lab.clock.now() + duration_ms
    while not store.dead and (due := lab.next_event()) is not None and due <= until:
        lab.clock.jump(due)
        await lab.settle()


async def _outcome(scenario: Awaitable[Any]) -> Any:
    """What it gives, or the error that it raises."""
    try:
        return await scenario
    except Exception as error:  # noqa: BLE001 - how it ended is what is checked
        return error
