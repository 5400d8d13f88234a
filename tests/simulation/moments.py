"""Every moment at which something may arrive: at a failpoint that is passed, and nowhere else.

A body waits. While its worker goes from failpoint to failpoint, a letter lands exactly at one of them, written by
somebody who tells nobody: within the transaction that is open there, as a job beside it would, or in one of its own.
A crash may come at the same place, or at a later one.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from perdure import DurableChannel, DurableDeferred, Interrupted, WorkflowEngine, activity, workflow
from perdure._definitions.registration import Registration
from perdure._model.records import INTERRUPTED, Mail, MailKind, Receipt, message_name
from perdure._stores.sqlite.interrupt import deliver
from perdure.testing._simulation.account import Account
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.director import Commission, Errand, Plan
from perdure.testing._simulation.simulate import Simulation, run_case
from perdure.testing._simulation.world import SECOND, World

# When somebody comes at last, in case that what was written was too early: then there was nobody to write to.
AT_LAST_S = 3_600
# Nobody waits as long for what is there: after a crash others look every second, twice for what is owned and unknown.
SOON_MS = 60_000

Answer = DurableDeferred.make("answer", success=str)
Words = DurableChannel.make("words", str)


@activity
async def note(what: str) -> str:
    return what


@workflow(name="AsksSomebody", idempotency_key=lambda key: key)
async def asks(key: str) -> str:
    """Waits for a deferred."""
    await note("asked")
    return await note(await Answer)


@workflow(name="Listens", idempotency_key=lambda key: key)
async def listens(key: str) -> str:
    """Waits for a message."""
    await note("listening")
    return await note(await Words.receive())


@workflow(name="Stops", idempotency_key=lambda key: key)
async def stops(key: str) -> str:
    """Waits for a deferred, and is interrupted meanwhile."""
    try:
        return await note(await Answer)
    except asyncio.CancelledError:
        return await note("stopped")


# Its body is in no process: it never begins, and an interrupt ends it at once, in the transaction that brings it.
@workflow(name="Absent", idempotency_key=lambda key: key)
async def absent(key: str) -> str:
    return key


@workflow(name="HasAChild", idempotency_key=lambda key: key)
async def has_a_child(key: str) -> str:
    """Waits for the end of another execution."""
    await note("begun")
    try:
        return await absent.execute("child")
    except Interrupted:
        return await note("it was interrupted")


class Arrival(NamedTuple):
    """A body that waits, and what arrives."""

    workflow: Any
    mail: Mail
    # What the body gives when it has arrived, and what if it came at last.
    gives: str
    at_last: str
    errand: Errand


async def _answer(engine: WorkflowEngine, execution_id: str) -> bool:
    token = Answer.token_from_execution_id(workflow=asks, execution_id=execution_id)
    return await Answer.succeed(token, "at last", engine=engine)


async def _say(engine: WorkflowEngine, execution_id: str) -> bool:
    await Words.send(execution_id, "at last", id="at last", engine=engine)
    return True


async def _interrupt(engine: WorkflowEngine, execution_id: str) -> bool:
    await engine.interrupt(execution_id)
    return True


def _at_last(kind: str, name: str, exit: bytes, do: Callable[[WorkflowEngine, str], Any]) -> Errand:
    return Errand(kind=kind, name=name, exit=exit, after_s=AT_LAST_S, do=do)


_AT_LAST = b'{"success":"at last"}'
_ANSWER = _at_last(MailKind.DEFERRED, "answer", _AT_LAST, _answer)
_WORD = _at_last(MailKind.MESSAGE, message_name("words", "at last"), _AT_LAST, _say)
_END = _at_last(MailKind.INTERRUPT, "", INTERRUPTED, _interrupt)
_VALUE = b'{"success":"in time"}'

ARRIVALS = {
    "a completion": Arrival(
        asks, Mail(asks.execution_id("it"), MailKind.DEFERRED, "answer", _VALUE), "in time", "at last", _ANSWER
    ),
    "a message": Arrival(
        listens,
        Mail(listens.execution_id("it"), MailKind.MESSAGE, message_name("words", "first"), _VALUE),
        "in time", "at last", _WORD,
    ),
    "an interrupt": Arrival(
        stops, Mail(stops.execution_id("it"), MailKind.INTERRUPT, "", INTERRUPTED), "stopped", "at last", _ANSWER
    ),
    "the end of a child": Arrival(
        has_a_child,
        Mail(absent.execution_id("child"), MailKind.INTERRUPT, "", INTERRUPTED),
        "it was interrupted", "it was interrupted", _END,
    ),
}  # fmt: skip


class Moment(NamedTuple):
    """Where a letter arrives, and where a process ends: by the number of the failpoint on the way. None: nowhere."""

    arrives_at: int | None = None
    ends_at: int | None = None


class MeddledWorld(World):
    """A world in which a letter arrives at one moment.

    Attributes:
        passed: The failpoints that were passed, in order.
        receipt: What became of the letter.
        arrived_at: When it was written.
    """

    def __init__(self, case: Case, registrations: Iterable[Registration], moment: Moment, mail: Mail) -> None:
        super().__init__(case, [one for one in registrations if one.name != absent.name])
        self.passed: list[str] = []
        self.receipt: Receipt | None = None
        self.arrived_at = 0
        self._moment = moment
        self._mail = mail

    def ends_process_at(self, point: str) -> bool:
        """Let the letter arrive, if this is its moment; and say whether the process ends."""
        if self.now_us() >= AT_LAST_S * SECOND:
            return False  # they have come who come at last
        place = len(self.passed)
        self.passed.append(point)
        if place == self._moment.arrives_at:
            self._arrive()
        ends = place == self._moment.ends_at
        if ends:
            self.happens(Fault.CRASH)
        return ends

    def _arrive(self) -> None:
        process = self.running
        assert process is not None
        self.arrived_at = self.clock.now()
        [self.receipt] = process.store.write_beside(
            lambda connection: deliver(connection, [self._mail], self.clock.now())
        )


def play(arrival: Arrival, moment: Moment, case: Case) -> tuple[list[str], MeddledWorld]:
    """Run it; what is wrong with it, and the world in which it was."""
    worlds: list[MeddledWorld] = []

    def make_world(case: Case, registrations: Iterable[Registration]) -> World:
        worlds.append(MeddledWorld(case, registrations, moment, arrival.mail))
        return worlds[0]

    def visitors(workflow: str, payload: bytes) -> list[list[Errand]]:
        del payload
        waits = workflow == (absent if arrival.workflow is has_a_child else arrival.workflow).name
        return [[arrival.errand]] if waits else []

    plan = Plan(
        registrations=[arrival.workflow, absent],
        commissions=[Commission(workflow=arrival.workflow, args=("it",))],
        visitors=visitors,
    )

    def judge(account: Account) -> list[str]:
        [world] = worlds
        account.saw.begun.append((arrival.mail.execution_id, arrival.mail.kind, arrival.mail.name))
        return list(_judged(account, arrival, world))

    return run_case(case, plan, judge, Simulation(), make_world=make_world), worlds[0]


def _judged(account: Account, arrival: Arrival, world: MeddledWorld) -> Iterator[str]:
    [life] = account.lives_of(arrival.workflow.execution_id("it"))
    # Not by the receipt alone: a process that ends here takes the transaction with it in which the letter was.
    told = (arrival.mail.kind, arrival.mail.name, world.arrived_at)
    written = any((letter.kind, letter.name, letter.now) == told for letter in account.history.letters)
    stored = world.receipt is Receipt.STORED and written
    took_ms = (life.record.finished_at or 0) - world.arrived_at
    if stored and took_ms > SOON_MS:
        yield f"{life} ended {took_ms} ms after what it had waited for"
    if life.record.began_at is None and arrival.workflow is stops:
        return  # interrupted before it began, it ended at once (R29)
    gives = arrival.gives if stored else arrival.at_last
    if life.record.exit != b'{"success":"%s"}' % gives.encode():
        yield f"{life} gave {life.record.exit!r}"


def moments_of(arrival: Arrival, case: Case) -> range:
    """The moments before they come who come at last, in a run in which nothing arrives earlier."""
    found, world = play(arrival, Moment(), case)
    assert found == []
    return range(len(world.passed))


@cache
def worlds_of(processes: int) -> tuple[Case, Case]:
    """Two worlds: one whose processes put every kernel away that waits, and one whose processes keep them."""
    found: dict[bool, Case] = {}
    for seed in count():
        case = Case(seed=seed, faults=frozenset({Fault.CRASH}), at_most=0, processes=processes)
        _, world = play(ARRIVALS["a completion"], Moment(), case)
        evicting = {"cache=0," in process.told for process in world.processes[:processes]}
        if len(evicting) == 1:
            found.setdefault(evicting.pop(), case)
        if len(found) == 2:
            break
    return found[True], found[False]
