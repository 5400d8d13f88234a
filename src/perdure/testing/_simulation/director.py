"""The director of a run: opens processes, lets clients start and wait, makes trouble, and sees to it that it comes to an end.

First safety: things go wrong, up to the number that the case allows. Then liveness: nothing goes
wrong any more, and everything that was accepted has to end.

Beside the clients who start and wait there are visitors, who come to every execution that is born:
they complete what it waits for, send it messages, interrupt it. What each of them was told is kept.
Operators resume what is held, rewind what is held or has ended, and fork what has begun.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow
from perdure._facade import WorkflowEngine
from perdure._ids import random_bytes
from perdure._model.records import MailKind
from perdure._values.instant import Instant
from perdure.errors import (
    ExecutionNotFoundError,
    PerdureError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from perdure.testing._signer import TokenSecret
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.history import ExecutionChange, ExecutionRow
from perdure.testing._simulation.process import Process, ProcessGone, Question, State
from perdure.testing._simulation.world import MS, SECOND, Stuck, World

if TYPE_CHECKING:
    from perdure.testing._simulation.loop import Microseconds

MakeWorld = Callable[[Case, Iterable[Registration]], World]

FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "INTERRUPTED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """One execution that clients want to have done, with the arguments of its start."""

    workflow: Workflow[..., Any]
    args: tuple[Any, ...] = ()
    # How many start it, all of them with the same.
    clients: int = 1
    # How long they wait before it.
    after_s: float = 0
    # Of its start, as `Workflow.options` takes them.
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Something that a visitor does to an execution: mail of a kind, with a name and an exit."""

    kind: str
    name: str
    exit: bytes
    # How long the visitor waits before it.
    after_s: float
    # Gives whether it counts.
    do: Callable[[WorkflowEngine, str], Coroutine[Any, Any, bool]]


# The visitors of an execution of that workflow with that payload; each does one errand after the other.
Visitors = Callable[[str, bytes], Sequence[Sequence[Errand]]]
# Whether an execution of that workflow with that payload may be rewound and forked.
MayOperate = Callable[[str, bytes], bool]


def nobody_visits(workflow: str, payload: bytes) -> Sequence[Sequence[Errand]]:
    """Executions are left to themselves."""
    del workflow, payload
    return ()


def nobody_operates(workflow: str, payload: bytes) -> bool:
    """No execution has other lives than those that bodies and clients ask for."""
    del workflow, payload
    return False


def _crashes_only() -> dict[str, float]:
    """It was not to blame."""
    return {"CRASHES": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is about."""

    registrations: Sequence[Registration]
    commissions: Sequence[Commission]
    visitors: Visitors = nobody_visits
    # For what held executions are resumed, each with the chance of a resume that skips.
    mends: Mapping[str, float] = field(default_factory=_crashes_only)
    # What may be rewound and forked, and how likely each of it is.
    may_operate: MayOperate = nobody_operates
    rewinds: float = 0.2
    forks: float = 0.1
    # What every process signs its tokens with; None: nothing.
    token_secret: TokenSecret | None = None


@dataclass(slots=True, kw_only=True)
class Operation:
    """Somebody has an execution begin again behind a part of its journal, or another one begin with that part."""

    execution_id: str
    # The last entry that is kept.
    to: int
    # The place in the run at which it was asked for, and at which somebody was told that it is done; None: nobody was.
    asked: int
    told: int | None = None
    # The id of the fork; None: it is rewound.
    new_id: str | None = None
    compensates: bool = False


class Visit(NamedTuple):
    """An errand that was done."""

    asked: int  # the place in the run at which it was asked for
    told: int  # and at which its visitor heard of it
    execution_id: str
    kind: str
    name: str
    exit: bytes
    # Whether it counts, as its visitor was told.
    counted: bool
    # Whether that was the answer to the only try.
    sure: bool


@dataclass
class ClientsSaw:
    """What the engine has told its callers."""

    # Executions whose `start` has returned, each with the place in the run at which it did.
    accepted: dict[str, int] = field(default_factory=dict[str, int])
    # By execution: the encoded exits that were told.
    told: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    visits: list[Visit] = field(default_factory=list[Visit])
    # The errands that were begun: execution, kind and name of each. A run may end before all of them are visits.
    begun: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    operations: list[Operation] = field(default_factory=list[Operation])
    # Executions that somebody has started so that one which had failed is restarted: the instant at which it was asked for,
    # and the place at which it was accepted.
    restarts: list[tuple[str, Instant, int]] = field(default_factory=list[tuple[str, Instant, int]])


class Director:
    """Directs one run."""

    def __init__(self, case: Case, plan: Plan, make_world: MakeWorld = World) -> None:
        self.world = make_world(case, plan.registrations)
        self.world.token_secret = plan.token_secret
        self.saw = ClientsSaw()
        self._plan = plan
        # Set at the next change, and then replaced: several wait for it.
        self._news = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        # How often a process that has ended is replaced while others are left: a fleet may also shrink.
        self._replaced: float = self.world.fate("fleet").choice((0, 0.5, 1))
        # Clients that wait for a result.
        self._waiting: list[tuple[str, asyncio.Task[None]]] = []
        # How many changes of executions have been looked at.
        self._looked_at = 0
        # Executions that were held and have been resumed, each with its fence then.
        self._resumed: set[tuple[str, int]] = set()
        # Executions that have been considered for a fork, and lives for a rewind.
        self._considered: set[str | bytes] = set()
        # How many operations go on.
        self._operating = 0

    def run(self) -> None:
        """Run it to its end; what must not happen is in the world's complaints."""
        world = self.world
        world.on_change = self._tell_news
        world.on_gone = self._replace
        try:
            world.run(self._whole)
        except Stuck as stuck:
            waiting = ", ".join(
                f"{row.workflow} {row.execution_id} is {row.held or row.status}{self._hint(row.workflow)}"
                for row in self.world.history.latest.values()
                if row.status not in FINAL
            )
            world.complain(f"no end: {stuck}. {waiting or 'every execution has ended'}; {world.states()}")

    async def _whole(self) -> None:
        for _ in range(self.world.case.processes):
            self.world.open_process()
        self._spawn(self._make_trouble())
        self._spawn(self._attend())
        clients = [
            self._spawn(self._client(commission, id_))
            for commission in self._plan.commissions
            for id_ in [self._id_of(commission)]
            for _ in range(commission.clients)
        ]
        await asyncio.gather(*clients)
        while self._is_attended_to() or not self._all_ended():
            await self._next_news()
        # Whoever waits for one that has ended hears of it; for one that is held nobody will.
        held = {row.execution_id for row in self.world.history.latest.values() if row.held is not None}
        await asyncio.gather(*(task for execution_id, task in self._waiting if execution_id not in held))
        self._closing = True
        self.world.heal()
        for task in self._tasks:
            task.cancel()
        for process in self.world.living:
            process.paused_until = 0
            process.close()
        while self.world.living:
            await self._next_news()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.append(task)
        return task

    async def _next_news(self) -> None:
        await self._news.wait()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _hint(self, workflow: str) -> str:
        known = any(one.name == workflow for one in self._plan.registrations)
        return "" if known else " (no process has its body: give it in also=)"

    # Executions ------------------------------------------------------------------------------------

    def _all_ended(self) -> bool:
        """Whether nothing moves any more by itself: what is held and not resumed stays so."""
        mends = self._plan.mends
        return all(
            row.status in FINAL or (row.held is not None and row.held not in mends)
            for row in self.world.history.latest.values()
        )

    async def _attend(self) -> None:
        """Have somebody come to whatever happens."""
        while True:
            self._look()
            await self._next_news()

    def _is_attended_to(self) -> bool:
        """Whether somebody is about to do something to an execution that may have ended."""
        self._look()
        return self._operating > 0

    def _look(self) -> None:
        changes = self.world.history.executions
        while self._looked_at < len(changes):
            change = changes[self._looked_at]
            self._looked_at += 1
            if change.after is not None:
                if _begins_anew(change):
                    self._receive_visitors(change.after)
                self._resume(change.after)
                self._consider(change.after)

    def _resume(self, row: ExecutionRow) -> None:
        """Resume what is held: because its workers have crashed, or because the plan wants it."""
        place = (row.execution_id, row.fence)
        if row.held is not None and row.held in self._plan.mends and place not in self._resumed:
            self._resumed.add(place)
            self._spawn(self._mend(row.execution_id, row.held))

    async def _mend(self, execution_id: str, held: str) -> None:
        fate = self.world.fate("operator")
        skip = fate.random() < self._plan.mends[held]
        if held != "CRASHES":
            await asyncio.sleep(fate.choice((0, 0.01, 1, 400)))
        await self._ask_until_done(lambda engine: engine.resume(execution_id, skip=skip))

    # Operators -------------------------------------------------------------------------------------

    def _consider(self, row: ExecutionRow) -> None:
        """Draw, once each, whether an execution that has begun is forked, and a life that is over or held rewound, or forked."""
        if self._plan.may_operate is nobody_operates or row.began_at is None:
            return
        chance = self.world.fate("operators")
        if self._is_first(row.execution_id) and chance.random() < self._plan.forks:
            self._operate(row, random_bytes().hex(), chance)
        if (row.status not in FINAL and row.held is None) or not self._is_first(row.incarnation):
            return
        if chance.random() < self._plan.rewinds:
            self._operate(row, None, chance)
        elif row.status != "SUCCEEDED" and chance.random() < 3 * self._plan.forks:
            # What has failed fails again in its fork, and so shows who undoes what.
            self._operate(row, random_bytes().hex(), chance)

    def _is_first(self, considered: str | bytes) -> bool:
        if considered in self._considered:
            return False
        self._considered.add(considered)
        return True

    def _operate(self, row: ExecutionRow, new_id: str | None, chance: Random) -> None:
        after_s, share = chance.choice((0, 0.01, 1, 400)), chance.random()
        compensates = chance.random() < 0.3
        if not self._plan.may_operate(row.workflow, self._payload_of(row.execution_id)):
            return

        async def operate(engine: WorkflowEngine) -> Operation:
            length = len(await engine.journal(row.execution_id))
            operation = Operation(
                execution_id=row.execution_id, to=int(share * (length + 1)), asked=self.world.history.tick(), new_id=new_id,
                compensates=compensates,
            )  # fmt: skip
            self.saw.operations.append(operation)
            if new_id is None:
                await engine.rewind(row.execution_id, to=operation.to)
            else:
                await engine.fork(row.execution_id, at=operation.to, new_id=new_id, compensations=compensates)
            return operation

        self._operating += 1
        self._spawn(self._do(operate, after_s))

    async def _do(self, operate: Callable[[WorkflowEngine], Coroutine[Any, Any, Operation]], after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
            process = await self._some_process()
            operation: Operation = await process.ask(operate, self.world.outside)
            operation.told = self.world.history.tick()
            if operation.new_id is not None:
                self.saw.accepted[operation.new_id] = operation.told
        except (ProcessGone, StoreUnavailableError, UsageError):
            # It may be done, and then has to be done whole; or it has moved on, and is not to be rewound.
            pass
        except PerdureError as error:
            self.world.complain(f"who operates is told: {error}")
        finally:
            self._operating -= 1
            self._tell_news()

    # Visitors --------------------------------------------------------------------------------------

    def _receive_visitors(self, row: ExecutionRow) -> None:
        """Let an execution that is born have its visitors; a life that has begun anew has them once more."""
        if self._plan.visitors is not nobody_visits:
            for errands in self._plan.visitors(row.workflow, self._payload_of(row.execution_id)):
                self._spawn(self._visit(row.execution_id, errands))

    def _payload_of(self, execution_id: str) -> bytes:
        sql = f"SELECT payload FROM perdure_executions WHERE id = x'{execution_id}'"  # noqa: S608 - an id of ours
        [(payload,)] = self.world.keeper.select(sql)
        return payload

    async def _visit(self, execution_id: str, errands: Sequence[Errand]) -> None:
        for errand in errands:
            await asyncio.sleep(errand.after_s)
            asked, tries = self.world.history.tick(), Tries()
            self.saw.begun.append((execution_id, errand.kind, errand.name))
            try:
                counted = await self._ask_until_done(lambda engine, do=errand.do: do(engine, execution_id), tries)
            except ExecutionNotFoundError as error:
                self.world.complain(f"{execution_id} was born, and whoever sends it {errand.kind} is told: {error}")
                return
            self.saw.visits.append(
                Visit(
                    asked, self.world.history.tick(), execution_id, errand.kind, errand.name, errand.exit, counted,
                    tries.count == 1,
                )
            )  # fmt: skip
            if not counted and errand.kind == MailKind.MESSAGE:
                return  # it has ended; to a next life others come, who begin with the first message

    # Clients ---------------------------------------------------------------------------------------

    def _id_of(self, commission: Commission) -> str | None:
        """The id that all starts of it have; None: its key says."""
        try:
            commission.workflow.execution_id(*commission.args)
        except UsageError:
            return random_bytes().hex()
        return None

    async def _client(self, commission: Commission, execution_id: str | None) -> None:
        fate = self.world.fate("clients")
        # Not spread: clients of one execution shall start it at one moment.
        await asyncio.sleep(commission.after_s + fate.choice((0, 0.005, 0.01, 0.1)))
        workflow = commission.workflow

        def start(engine: WorkflowEngine) -> Coroutine[Any, Any, Any]:
            chosen = workflow.options(engine=engine, **commission.options)
            if execution_id is not None:
                chosen = chosen.options(execution_id=execution_id)
            return chosen.start(*commission.args)

        asked_at = self.world.clock.now()
        try:
            started = (await self._ask_until_done(start)).execution_id
        except StoreError as error:
            self.world.complain(f"who starts {workflow.name} is told: {error}")
            return
        accepted = self.world.history.tick()
        self.saw.accepted.setdefault(started, accepted)
        if commission.options.get("on_duplicate") == "restart_if_failed":
            self.saw.restarts.append((started, asked_at, accepted))
        if fate.random() < 0.7:
            self._waiting.append((started, self._spawn(self._wait(workflow, started))))

    async def _wait(self, workflow: Workflow[..., Any], execution_id: str) -> None:
        def wait(engine: WorkflowEngine) -> Coroutine[Any, Any, Any]:
            return engine.wait_for_exit(execution_id, workflow=workflow.name, timeout=None)

        try:
            self.saw.told.setdefault(execution_id, []).append(await self._ask_until_done(wait))
        except ExecutionNotFoundError as error:
            self.world.complain(f"{execution_id} was accepted, and whoever waits for it is told: {error}")

    async def _ask_until_done(self, question: Question, tries: "Tries | None" = None) -> Any:
        """Ask a process, and another one when that is gone or cannot say; as whoever needs an answer does."""
        while True:
            process = await self._some_process()
            if tries is not None:
                tries.count += 1
            try:
                return await process.ask(question, self.world.outside)
            except (ProcessGone, StoreUnavailableError):
                pass
            except UsageError:
                if process.state is State.OPEN:
                    raise  # not because it closes
            await asyncio.sleep(0.05)

    async def _some_process(self) -> Process:
        while not (found := self._open_processes()):
            await self._next_news()
        return self.world.fate("clients").choice(found)

    def _open_processes(self) -> list[Process]:
        return [process for process in self.world.processes if process.state is State.OPEN]

    # Trouble -----------------------------------------------------------------------------------------

    async def _make_trouble(self) -> None:
        world = self.world
        fate = world.fate("trouble")
        sorts = sorted(world.case.faults & self._troubles.keys())
        pace, restraint = fate.choice((3 * MS, 30 * MS, 300 * MS)), fate.choice((0, 0.5))
        # One fault for each transaction, or as many as there is time for while transactions come.
        patient = fate.random() < 0.5
        while sorts and not world.healed:
            # Not while everybody sleeps for days: the faults of a run would all be over before the first one wakes.
            await self._next_chance(patient)
            await asyncio.sleep(fate.expovariate(1 / pace) / SECOND)
            processes = [process for process in world.processes if process.is_at_work]
            fault, chance = fate.choice(sorts), fate.random()
            if processes and fate.random() >= restraint and world.strikes(fault):
                self._troubles[fault](self, processes[int(chance * len(processes))])

    async def _next_chance(self, patient: bool) -> None:  # noqa: FBT001 - drawn
        world, written = self.world, self.world.history.written
        while (patient and world.history.written == written) or not world.is_busy:
            await self._next_news()

    def _crash(self, process: Process) -> None:
        process.kill()

    def _pause(self, process: Process) -> None:
        seconds = self.world.fate("pauses").choice((0.001, 0.01, 0.1, 1.5, 10, 70))
        process.paused_until = self.world.now_us() + round(seconds * SECOND)
        self.world.trouble_until(process.paused_until)
        self._spawn(asyncio.sleep(seconds))  # so that time does not jump over its end

    def _usurp(self, process: Process) -> None:
        process.store.die()
        if self.world.fate("pauses").random() < 0.5:
            self._pause(process)

    def _evict(self, process: Process) -> None:
        process.engine.evict()

    def _close(self, process: Process) -> None:
        process.close()

    _troubles: Final[dict[Fault, Callable[["Director", Process], None]]] = {
        Fault.CRASH: _crash,
        Fault.PAUSE: _pause,
        Fault.USURP: _usurp,
        Fault.EVICT: _evict,
        Fault.CLOSE: _close,
    }

    def _replace(self) -> None:
        """Open another process for one that has ended, after a while; not always, if others are left."""
        fate = self.world.fate("restarts")
        delay: Microseconds = round(fate.choice((0, 0.001, 0.2, 3)) * SECOND)
        if not self._closing and (not self._open_processes() or fate.random() < self._replaced):
            self.world.trouble_until(self.world.now_us() + delay)
            self.world.outside.call_at_us(self.world.now_us() + delay, self._open_another)

    def _open_another(self) -> None:
        if not self._closing:
            self.world.open_process()


def _begins_anew(change: ExecutionChange) -> bool:
    """Whether a life begins that has no visitors yet. One that goes on as new has those of the one before."""
    before, after = change.before, change.after
    return before is None or (
        after is not None and before.incarnation != after.incarnation and before.status != "PENDING"
    )


@dataclass
class Tries:
    """How often something was asked."""

    count: int = 0
