"""What stands around a definition in these tests, in place of kernel and engine: answers that the test has set.

Nothing here knows a rule. What the real ones do is tested with them, in the rooms of kernel and engine.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from random import Random
from typing import Any

from perdure._definitions import ambient
from perdure._definitions.host import Call, Finalizer
from perdure._model.journal import Kind
from perdure._model.records import Acts, Mail, Receipt, Record, Start
from perdure._model.status import Held, Status
from perdure._values.token import TokenKeys
from perdure.errors import PayloadError

EXECUTION_ID = "fc0cd826dc208968186d2747adc6831f"
INCARNATION = b"sixteen bytes..."
NOW = 1_700_000_000_000


class FakeHost:
    """A body's host that notes what is asked; `answers` has the results by name, in their order."""

    def __init__(self, answers: dict[str, list[Any]] | None = None) -> None:
        self.execution_id = EXECUTION_ID
        self.life = 1
        self.incarnation = INCARNATION
        self.workflow = "ProcessOrder"
        self.replaying = False
        self.closed = False
        self.priority = 0
        self.deadline: int | None = None
        self.restarted = False
        self.asked: list[Call] = []
        self.started: list[Start] = []
        self.patches: set[str] = set()
        self.acts = Acts()
        self.acted: list[str] = []
        self.said: list[bytes] = []
        self.stack: list[tuple[int, Finalizer]] = []
        self.unwinds = False
        self.places = 0
        self.next: Start | None = None
        # What the journal remembers of them: answers by (kind, name), exits of races by (name, number).
        self.journal: dict[tuple[Kind, str], list[bytes]] = {}
        self.decided: dict[tuple[str, int], bytes] = {}
        self.races: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        self._answers = answers or {}
        self._numbers = 0
        self._occurrences: Counter[tuple[str, str]] = Counter()
        self._equals: Counter[tuple[str, bytes]] = Counter()

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def occurrence(self, kind: Kind, name: str, /) -> int:
        self._occurrences[kind, name] += 1
        return self._occurrences[kind, name]

    def count_call(self, name: str, input: bytes, /) -> tuple[int, int, int]:
        self._equals[name, input] += 1
        return self.occurrence(Kind.ACTIVITY, name), self._equals[name, input], self.number()

    def unanswered(self, kind: Kind, name: str, /) -> bool:
        return any((call.kind, call.name) == (kind, name) and not call.future.done() for call in self.asked)

    def child_id(self, kind: Kind, workflow: str, occurrence: int, asked: str, payload: bytes | None, /) -> str:
        return asked

    def ask(self, call: Call, /) -> asyncio.Future[Any]:
        call.future = asyncio.get_running_loop().create_future()
        self.asked.append(call)
        if answers := self._answers.get(call.name):
            answer = answers.pop(0)
            if isinstance(answer, BaseException):
                call.future.set_exception(answer)
            else:
                call.future.set_result(answer)
        return call.future

    def now(self) -> int:
        return NOW

    def random(self, name: str | None = None, /) -> Random:
        return Random(f"seed/{name}")

    def patched(self, change_id: str, /) -> bool:
        return change_id in self.patches

    def start(self, start: Start, /) -> None:
        self.started.append(start)

    def recorded(self, kind: Kind, name: str, make: Callable[[], bytes], /) -> bytes:
        answers, occurrence = self.journal.setdefault((kind, name), []), self.occurrence(kind, name)
        if len(answers) < occurrence:
            answers.append(make())
        return answers[occurrence - 1]

    def act(self, name: str, perform: Callable[[Acts], object], said: bytes = b"", /) -> None:
        self.acted.append(name)
        self.said.append(said)
        perform(self.acts)

    def race(self, name: str, number: int, /) -> asyncio.Future[bytes]:
        future = self.races[name, number] = asyncio.get_running_loop().create_future()
        return future

    def decide(self, name: str, number: int, exit: bytes, /) -> None:
        recorded = self.decided.setdefault((name, number), exit)
        if not self.races[name, number].done():
            self.races[name, number].set_result(recorded)

    def unreadable(self, error: PayloadError, /) -> "asyncio.Future[Any]":
        raise error

    def defer(self, finalizer: Finalizer, place: int | None = None, /) -> None:
        self.stack.append((self.place() if place is None else place, finalizer))

    def place(self) -> int:
        self.places += 1
        return self.places

    def continue_as(self, start: Start, /) -> None:
        self.next = start


class FakeEngine:
    """An engine whose store is two dictionaries that the test fills."""

    def __init__(self) -> None:
        self.started: list[tuple[Start, str]] = []
        self.exits: dict[str, bytes] = {}
        self.records: dict[str, Record] = {}
        self.resumed: list[str] = []
        self.interrupted: list[str] = []
        self.token_keys: TokenKeys | None = None
        self.payload_limit = 1_000
        self.receipt = Receipt.STORED
        self.mail: list[Mail] = []
        self.exits_of_mail: dict[tuple[str, str, str], bytes] = {}
        self.waited: list[tuple[str, str, timedelta | None]] = []

    def now(self) -> int:
        return NOW

    async def start_execution(self, start: Start, *, on_duplicate) -> None:
        self.started.append((start, on_duplicate))

    async def wait_for_exit(self, execution_id: str, *, workflow: str, timeout: timedelta | None) -> bytes:
        self.waited.append((execution_id, workflow, timeout))
        return self.exits[execution_id]

    async def record(self, execution_id: str, /) -> Record | None:
        return self.records.get(execution_id)

    async def resume_execution(self, execution_id: str, /, *, skip: bool = False) -> None:
        self.resumed.append(execution_id)

    async def interrupt_execution(self, execution_id: str, /) -> None:
        self.interrupted.append(execution_id)

    async def deliver(self, mail: Mail, /) -> Receipt:
        self.mail.append(mail)
        return self.receipt

    async def wait_for_mail(self, execution_id: str, kind: str, name: str, /) -> bytes:
        return self.exits_of_mail[execution_id, kind, name]


class FakeAttempt:
    """The attempt of an activity."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.execution_id = EXECUTION_ID
        self.life = 1
        self.workflow = "ProcessOrder"
        self.name = "ChargeCard"
        self.attempt = 2
        self.idempotency_key = "its own"
        self.engine = engine or FakeEngine()
        self.called_twice: set[str] = set()
        self.noted: list[bytes] = []
        self.slept: list[int] = []
        self.asides = 0
        self.acts: list[Acts] = []

    def called_more_than_once(self, name: str, /) -> bool:
        return name in self.called_twice

    def heartbeat(self, details: bytes, /) -> None:
        self.noted.append(details)

    def last_heartbeat(self) -> bytes | None:
        return self.noted[-1] if self.noted else None

    def show(self, acts: Acts, /) -> None:
        self.acts.append(acts)

    async def shown(self) -> None: ...

    async def sleep(self, duration_ms: int, /) -> None:
        self.slept.append(duration_ms)

    async def aside(self, waiting: Awaitable[Any], /) -> Any:
        self.asides += 1
        return await waiting


def record(workflow: str, status: Status, *, exit: bytes | None = None, held: Held | None = None) -> Record:
    return Record(
        execution_id=EXECUTION_ID,
        incarnation=b"",
        number=1,
        workflow=workflow,
        key=None,
        status=status,
        held=held,
        waits=None,
        owner=None,
        fence=1,
        wakes=0,
        wake_at=None,
        crashes=0,
        priority=0,
        version=None,
        parent=None,
        attributes={},
        created_at=NOW,
        began_at=NOW,
        finished_at=None,
        changed_at=NOW,
        payload=b"{}",
        exit=exit,
    )


def in_body(host: FakeHost, body: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function to its end as if it were the body of this host."""
    context = copy_context()
    context.run(ambient.host.set, host)
    return context.run(asyncio.run, _awaited(body))


def in_activity(attempt: FakeAttempt, function: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function to its end as if it were the function of this attempt."""
    context = copy_context()
    context.run(ambient.attempt.set, attempt)
    return context.run(asyncio.run, _awaited(function))


@contextmanager
def opened(*engines: FakeEngine) -> Iterator[None]:
    """Have engines open in this process."""
    ambient.open_engines.extend(engines)
    try:
        yield
    finally:
        for engine in engines:
            ambient.open_engines.remove(engine)


async def _awaited(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()
