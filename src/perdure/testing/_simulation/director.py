"""The director of a run: opens processes, lets clients start and wait, makes trouble, and sees to it that it comes to an end.

First safety: things go wrong, up to the number that the case allows. Then liveness: nothing goes
wrong any more, and everything that was accepted has to end.

Beside the clients who start and wait there are visitors, who come to every execution that is born:
they complete what it waits for, send it messages, interrupt it. What each of them was told is kept.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perdure._definitions.registration import Registration
from perdure._definitions.workflow import Workflow
from perdure._facade import WorkflowEngine
from perdure._ids import new_execution_id
from perdure.errors import ExecutionNotFoundError, StoreUnavailableError, UsageError
from perdure.testing._simulation.case import Case, Fault
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


def nobody_visits(workflow: str, payload: bytes) -> Sequence[Sequence[Errand]]:
    """Executions are left to themselves."""
    del workflow, payload
    return ()


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


class Director:
    """Directs one run."""

    def __init__(self, case: Case, plan: Plan, make_world: MakeWorld = World) -> None:
        self.world = make_world(case, plan.registrations)
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
        # Executions that have been visited.
        self._visited: set[str] = set()
        # Executions that were held and have been resumed, each with its fence then.
        self._resumed: set[tuple[str, int]] = set()

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
        self._spawn(self._operate())
        self._spawn(self._receive_visitors())
        clients = [
            self._spawn(self._client(commission, id_))
            for commission in self._plan.commissions
            for id_ in [self._id_of(commission)]
            for _ in range(commission.clients)
        ]
        await asyncio.gather(*clients)
        while not self._all_ended():
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

    async def _operate(self) -> None:
        """Resume what is held: because its workers have crashed, or because the plan wants it."""
        while True:
            for row in list(self.world.history.latest.values()):
                place = (row.execution_id, row.fence)
                if row.held is not None and row.held in self._plan.mends and place not in self._resumed:
                    self._resumed.add(place)
                    self._spawn(self._mend(row.execution_id, row.held))
            await self._next_news()

    async def _mend(self, execution_id: str, held: str) -> None:
        fate = self.world.fate("operator")
        skip = fate.random() < self._plan.mends[held]
        if held != "CRASHES":
            await asyncio.sleep(fate.choice((0, 0.01, 1, 400)))
        await self._ask_until_done(lambda engine: engine.resume(execution_id, skip=skip))

    # Visitors --------------------------------------------------------------------------------------

    async def _receive_visitors(self) -> None:
        """Let every execution that is born have its visitors."""
        if self._plan.visitors is nobody_visits:
            return
        while True:
            for row in list(self.world.history.latest.values()):
                if row.execution_id not in self._visited:
                    self._visited.add(row.execution_id)
                    for errands in self._plan.visitors(row.workflow, self._payload_of(row.execution_id)):
                        self._spawn(self._visit(row.execution_id, errands))
            await self._next_news()

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

    # Clients ---------------------------------------------------------------------------------------

    def _id_of(self, commission: Commission) -> str | None:
        """The id that all starts of it have; None: its key says."""
        try:
            commission.workflow.execution_id(*commission.args)
        except UsageError:
            return new_execution_id()
        return None

    async def _client(self, commission: Commission, execution_id: str | None) -> None:
        fate = self.world.fate("clients")
        # Not spread: clients of one execution shall start it at one moment.
        await asyncio.sleep(fate.choice((0, 0.005, 0.01, 0.1)))
        workflow = commission.workflow

        def start(engine: WorkflowEngine) -> Coroutine[Any, Any, Any]:
            chosen = workflow.options(engine=engine, **commission.options)
            if execution_id is not None:
                chosen = chosen.options(execution_id=execution_id)
            return chosen.start(*commission.args)

        started = (await self._ask_until_done(start)).execution_id
        self.saw.accepted.setdefault(started, self.world.history.tick())
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


@dataclass
class Tries:
    """How often something was asked."""

    count: int = 0
