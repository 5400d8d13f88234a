"""A simulated process: a loop, a store and an open engine, which can stand still, be forgotten by the others, and end.

An end is like kill -9: from that moment on its loop is never run again and its store writes
nothing. What was on its stack is unwound by `ProcessEnded`; whatever catches that finds a store
that does nothing and a loop that stands.
"""

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from enum import Enum, auto
from random import Random
from typing import Any, Protocol

from perdure._definitions.registration import Registration
from perdure._facade import EngineOptions, WorkflowEngine
from perdure._model.clock import Clock
from perdure.errors import StoreError
from perdure.testing._simulation.engine import SimulatedEngine
from perdure.testing._simulation.history import History, Witness
from perdure.testing._simulation.loop import Microseconds, SimulatedLoop
from perdure.testing._simulation.store import SimulatedStore

Question = Callable[[WorkflowEngine], Coroutine[Any, Any, Any]]


class ProcessEnded(BaseException):
    """Unwinds the stack of a process that has ended at a failpoint; no `except Exception` sees it."""


class State(Enum):
    """Where a process is in its life."""

    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()
    ENDED = auto()


class Surroundings(Protocol):
    """What a process needs of the world around it."""

    @property
    def clock(self) -> Clock:
        """The world's time as instants."""
        ...

    @property
    def history(self) -> History:
        """Where everything that happens is kept."""
        ...

    @property
    def database(self) -> str:
        """The name of the database in memory."""
        ...

    def now_us(self) -> Microseconds:
        """The time since the world began."""
        ...

    def delay(self) -> Microseconds:
        """How long a call, or its answer, is on its way."""
        ...

    def dawdle(self) -> Microseconds:
        """How long an activity waits before it begins."""
        ...

    def is_lost(self) -> bool:
        """Whether a call to the store never arrives."""
        ...

    def changed(self, process: "Process | None") -> None:
        """Something has happened; that process has written."""
        ...

    def complain(self, what: str) -> None:
        """Something has happened that must not."""
        ...

    def gone(self) -> None:
        """A process has ended."""
        ...


class Process:
    """One process of a simulated world. It is the `Link` of its store."""

    def __init__(
        self,
        world: Surroundings,
        number: int,
        registrations: Iterable[Registration],
        options: EngineOptions,
        random: Random,
    ) -> None:
        self.number = number
        self.state = State.OPENING
        # It stands still until then.
        self.paused_until: Microseconds = 0
        # Not a set: they are told of its end in the order in which they asked.
        self._questions: dict[asyncio.Future[Any], None] = {}
        self._world = world
        self.loop = SimulatedLoop(world.now_us, self._failed)
        witness = Witness(
            world.history,
            number,
            world.clock.now,
            lambda: self.state is not State.ENDED,
            lambda: world.changed(self),
        )
        self.store = SimulatedStore(world.database, world.clock, self, witness)
        self._options = options
        self.engine = SimulatedEngine(self.store, self, registrations, options, random)
        self._told_to_close = asyncio.Event()
        self._life = self._spawn(self._live())

    def __repr__(self) -> str:
        return f"process {self.number}"

    @property
    def told(self) -> str:
        """What it is, for somebody who looks for what went wrong."""
        options = ", ".join(f"{name}={value}" for name, value in self._options.items() if name != "token_secret")
        return f"{self} ({options}) is {self.state.name.lower()}"

    # Link ------------------------------------------------------------------------------------------

    @property
    def is_cut(self) -> bool:
        """Whether nothing that it asks arrives any more."""
        return self.state is State.ENDED

    def delay(self) -> Microseconds:
        """How long a call is on its way."""
        return self._world.delay()

    def is_lost(self) -> bool:
        """Whether a call to the store never arrives. Whoever opens an engine hears of it, and has to ask again."""
        return self.is_at_work and self._world.is_lost()

    def dawdle(self) -> Microseconds:
        """How long an activity waits before it begins."""
        return self._world.dawdle()

    def complain(self, what: str) -> None:
        """Something was asked for that cannot be had in a simulation."""
        self._world.complain(what)

    # Its life --------------------------------------------------------------------------------------

    @property
    def is_at_work(self) -> bool:
        """Whether its engine is open, or closes."""
        return self.state is State.OPEN or self.state is State.CLOSING

    async def _live(self) -> None:
        try:
            async with self.engine:
                self.state = State.OPEN
                self._world.changed(None)
                await self._told_to_close.wait()
                self.state = State.CLOSING
        except StoreError as error:
            self._world.complain(f"{self} could not open its engine: {error}")
        self._end()

    def close(self) -> None:
        """Let it close its engine and end."""
        self._told_to_close.set()

    def kill(self) -> None:
        """End it at once. Whoever calls this from inside raises `ProcessEnded` next."""
        if self.state is not State.ENDED:
            self.store.die()
            self._end()

    def _end(self) -> None:
        self.state = State.ENDED
        self.loop.halt()
        for question in list(self._questions):
            if not question.done():
                question.set_exception(ProcessGone())
        self._world.gone()

    def ask(self, question: Question, asker: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """Have something asked of the engine, in a task of this process; the answer comes to the asker's loop.

        A process that ends before it has answered answers with `ProcessGone`.
        """
        answer: asyncio.Future[Any] = asker.create_future()
        self._questions[answer] = None
        answer.add_done_callback(lambda _: self._questions.pop(answer, None))
        self._spawn(self._answer(question, answer))
        return answer

    async def _answer(self, question: Question, answer: asyncio.Future[Any]) -> None:
        try:
            value = await question(self.engine)
        except Exception as error:  # noqa: BLE001 - a caller's error is the caller's
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(value)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # In a context of its own: one process must not find another one's engine in it.
        before = events._get_running_loop()  # noqa: SLF001
        events._set_running_loop(self.loop)  # noqa: SLF001
        try:
            return self.loop.create_task(coroutine, context=Context())
        finally:
            events._set_running_loop(before)  # noqa: SLF001

    def _failed(self, context: dict[str, Any]) -> None:
        if self.state is not State.ENDED:
            self._world.complain(f"{self}: {context.get('message')}: {context.get('exception')!r}")

    def bury(self) -> None:
        """Close the frames that it has left, long after its end; nothing of it can act any more."""
        self.state = State.ENDED
        self.loop.go_on()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.engine.bury()
        while self.loop.is_ready:
            self.loop.run_pass()
        self.engine.bury()
        self.store.let_go_of_connections()
        self.loop.close()


class ProcessGone(Exception):
    """The process that was asked ended before it had answered."""
