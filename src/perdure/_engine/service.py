"""The service: one open engine, put together from its parts, and what definitions ask of it.

Lifecycle. *Open*: the store, then the worker's row and lock, then the committer and the rounds.
*Run*: turns are taken from one plain callback of the loop, so that a kernel never runs inside one
of the outer loop's tasks. *Stop*: nothing new is claimed or given out; running attempts get their
grace; what is left of them is cut off as by the host; what is owned goes back to the store, ready
for others, without a crash counted against it.
"""

import asyncio
import logging
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure._definitions.activity import ActivityCall
from perdure._definitions.host import Engine, OnDuplicate, OnMismatch
from perdure._definitions.registration import Registration
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.attempts import Attempt
from perdure._engine.cache import DEFAULT_BYTES, DEFAULT_COUNT, Cache
from perdure._engine.committer import Committer
from perdure._engine.heartbeats import Heartbeats
from perdure._engine.ownership import Ownership
from perdure._engine.runner import Implementation, Runner, not_known_to_be_written
from perdure._engine.slots import Slots
from perdure._engine.suspects import Exposure, Suspects, is_suspect
from perdure._engine.threads import Threads
from perdure._engine.waiters import Waiters
from perdure._engine.wakes import PAUSE_S, Wakes
from perdure._engine.watchdog import Watchdog
from perdure._ids import new_worker_id
from perdure._model.clock import Clock
from perdure._model.records import Answer, Commit, ExecutionId, History, Record, Start, Verdict, Worker, WorkerId
from perdure._model.status import FINAL, Status, is_final
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure.errors import (
    DefinitionError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    ExecutionTimeoutError,
    NotRegisteredError,
    PayloadError,
    PayloadMismatchError,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)

logger = logging.getLogger("perdure")

# Whoever waits for an execution of an unknown workflow hears of it after this long (R3).
UNREGISTERED_MS = 5_000
# Attempts that were cut off get this long to end before the engine goes on without them.
CUT_OFF_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an engine is set up; every figure has a default that fits one process on one machine."""

    # Activities that run at once. Async ones are cheap; what bounds them is the far side.
    concurrency: int = 1_000
    # Threads for plain functions.
    threads: int = 32
    # Executions in hand at once; starts beyond are stored and claimed when there is room.
    admission: int = 1_000
    # Kernels that wait in memory: how many, and the bytes of journal behind them.
    cache_count: int = DEFAULT_COUNT
    cache_bytes: int = DEFAULT_BYTES
    # How long running activities may go on when the engine closes.
    grace: timedelta = timedelta(seconds=5)
    # The largest encoded payload or result.
    payload_limit: int = 4 * 1024 * 1024


class Service:
    """One open engine. It is the `Keeper` of its runners, their `Workshop`, and the `Desk` of its rounds."""

    def __init__(self, store: Store, registrations: Iterable[Registration], settings: Settings, face: Engine) -> None:
        self.store = store
        self.settings = settings
        self.engine = face  # what activities find as their engine
        self.worker_id: WorkerId = new_worker_id()
        self.implementations: dict[str, Implementation] = {}
        self.runners: dict[ExecutionId, Runner] = {}
        self.cache = Cache(settings.cache_count, settings.cache_bytes)
        self.slots = Slots(settings.concurrency)
        self.threads = Threads(settings.threads)
        self.random = random.Random()
        self.stopping = False
        self._heartbeats = Heartbeats(store)
        self._waiters = Waiters()
        self._suspects = Suspects(store)
        self._ownership = Ownership(store)
        self._turns: deque[Runner] = deque()
        self._turn_is_due = False
        # Whose body is in its turn at this moment, for the watchdog.
        self._in_turn: Runner | None = None
        self._background: set[asyncio.Task[None]] = set()
        # Journals that are being read, to rebuild a kernel.
        self._reloads: set[asyncio.Task[None]] = set()
        # Starts on their way into the store, for whoever has room.
        self._unwritten: dict[asyncio.Future[Answer], Start] = {}
        # In-memory waits do not count against admission (R5).
        self._sleeping: set[ExecutionId] = set()
        self.register(registrations)

    # Registrations -------------------------------------------------------------------------------

    def register(self, registrations: Iterable[Registration]) -> None:
        """Take workflows.

        Raises:
            DefinitionError: Two have one name.
            UsageError: Something is not a registration.
        """
        for registration in registrations:
            if not isinstance(registration, WorkflowImplementation):
                raise UsageError(
                    f"An engine takes implemented workflows, not {registration!r}. A contract needs a body "
                    "(`@Contract.implement`), and activities are not registered: the bodies call them."
                )
            known = self.implementations.get(registration.name)
            if known is not None and known is not registration:
                raise DefinitionError(
                    f"Two workflows are named {registration.name!r}. A name is what finds an execution's body again: "
                    "give one of them another name."
                )
            self.implementations[registration.name] = registration

    async def announce(self) -> None:
        """Make this worker and its workflows known to the store."""
        await self.store.register(
            Worker(
                worker_id=self.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                workflows=tuple(self.implementations),
                started_at=self.clock.now(),
            )
        )

    def announce_soon(self) -> None:
        """The same, when more workflows have come while the engine is open."""
        self._spawn(self.announce(), "announcement")
        self.wakes.backlog = True
        self.wakes.poke()

    def claimable(self) -> list[str]:
        """The workflows that are registered here."""
        return list(self.implementations)

    # Lifecycle -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store, become a worker, begin to look for work."""
        await self.store.open()
        try:
            self._loop = asyncio.get_running_loop()
            await self.announce()
        except BaseException:
            await self.store.close()
            raise
        self.committer = Committer(self.store, self.worker_id)
        self.wakes = Wakes(self)
        self.store.listen(self.wakes.poke_all)
        self._watchdog = Watchdog(self._named_turn)
        self._watchdog.start()
        self._spawn(self.committer.run(), "committer")
        self._spawn(self.wakes.run(), "wakes")
        # What a former worker left behind comes before what is started from now on.
        self.wakes.backlog = self.store.shared and bool(self.implementations)

    async def close(self) -> None:
        """Stop: grace for what runs, then give everything back."""
        if not await self.drain(self.settings.grace):
            logger.warning("some activities did not end within their grace; they run again elsewhere")
        stuck = await self._cut_off()
        try:
            async with asyncio.timeout(CUT_OFF_S):
                await self._flush()
                await self._heartbeats.settled()
        except TimeoutError:
            logger.warning("the store does not answer; what could not be written runs again elsewhere")
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.wakes.close()
        self._watchdog.stop()
        self._waiters.fail_all(
            UsageError("The engine was closed while somebody waited for a result; it goes on later.")
        )
        await self._go(stuck)

    async def drain(self, grace: timedelta) -> bool:
        """Claim and give out nothing new, and wait for what runs; whether all of it has ended in time."""
        self.stopping = True
        deadline = self._loop.time() + grace.total_seconds()
        while tasks := [attempt.task for attempt in self._attempts()]:
            left = deadline - self._loop.time()
            if left <= 0:
                return False
            await asyncio.wait(tasks, timeout=left)
        return True

    def _attempts(self) -> list[Attempt]:
        return [attempt for runner in self.runners.values() for attempt in runner.running.values()]

    async def _cut_off(self) -> list[Runner]:
        """End the attempts that are left, as the host (R9); give the executions whose threads would not end."""
        stuck = [r for r in self.runners.values() if any(attempt.on_thread for attempt in r.running.values())]
        attempts = self._attempts()
        for attempt in attempts:
            attempt.cut()
        if attempts:
            await asyncio.wait([attempt.task for attempt in attempts], timeout=CUT_OFF_S)
        return stuck

    async def _flush(self) -> None:
        """Let what was returned in time go through its last turns and commits."""
        while True:
            await asyncio.gather(*self._reloads, return_exceptions=True)
            await self.committer.settled()
            # Answers and ended attempts have scheduled their turns by now; they are taken in the next round of the loop.
            await asyncio.sleep(0)
            if self.committer.idle and not self._turn_is_due and not self._reloads:
                return

    async def _go(self, stuck: list[Runner]) -> None:
        """Give back what is owned, and leave the store."""
        kept = {runner.execution_id for runner in stuck}
        fences = {id_: runner.fence for id_, runner in self.runners.items() if id_ not in kept}
        for runner in self.runners.values():
            runner.let_go()
        self.runners.clear()
        for written, start in self._unwritten.items():
            written.set_exception(not_known_to_be_written(start.execution_id, start.workflow))
            written.exception()  # its starter may have gone
        self.cache.clear()
        self.threads.close()
        try:
            if kept:
                # Their functions still run on threads; nobody else may begin them before this
                # process has ended (R12). The worker's lock stays until then.
                logger.warning("%d executions stay with this process: their threads still run", len(kept))
                await self.store.give_back(self.worker_id, fences)
                return
            await self.store.retire(self.worker_id)
        except StoreUnavailableError as error:
            logger.warning("the store does not answer; what this worker owned is taken over later: %s", error)
        await self.store.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guard(coroutine, name), name=f"perdure {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _guard(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """A background service must not die unseen: the engine would look alive and do nothing."""
        try:
            await coroutine
        except Exception:
            logger.exception("the engine's %s has failed, which is a bug of perdure; close the engine", name)
            raise

    # Time and trouble ----------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The store's clock."""
        return self.store.clock

    @property
    def payload_limit(self) -> int:
        """The largest encoded payload or result."""
        return self.settings.payload_limit

    @property
    def idle(self) -> bool:
        """Whether nothing happens until a timer is due or somebody asks for something."""
        return (
            self.committer.idle
            and self.wakes.idle
            and not self._turn_is_due
            and len(self._background) == 2
            and all(runner.quiet and not runner.running for runner in self.runners.values())
        )

    def _named_turn(self) -> str | None:
        runner = self._in_turn
        return None if runner is None else f"the body of workflow {runner.workflow!r} ({runner.execution_id})"

    # Keeper: what runners ask --------------------------------------------------------------------

    def schedule(self, runner: Runner, /) -> None:
        """Let it take a turn soon."""
        if runner.scheduled or runner.gone:
            return
        runner.scheduled = True
        self._turns.append(runner)
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._take_turns)

    def _take_turns(self) -> None:
        self._turn_is_due = False
        turns, self._turns = self._turns, deque()
        for runner in turns:
            runner.scheduled = False
            self._sleeping.discard(runner.execution_id)
            self.cache.take(runner.execution_id)
            self._turn(runner, runner.turn)

    def _turn(self, runner: Runner, take: Callable[..., None], *args: Any) -> None:
        """Let a kernel run, from a plain callback of the loop."""
        self._in_turn = runner
        try:
            take(*args)
        except Exception as error:
            logger.exception("a turn of %s %s has failed", runner.workflow, runner.execution_id)
            runner.fail_turn(error)
        finally:
            self._in_turn = None

    def reload(self, runner: Runner, /) -> None:
        """Rebuild its kernel from the journal, then let it take its turn."""
        if not runner.reloading:
            runner.reloading = True
            task = self._spawn(self._reload(runner), "reload")
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _reload(self, runner: Runner) -> None:
        history = await self._load([runner])
        self._loop.call_soon(self._revive, runner, history[0])

    def _revive(self, runner: Runner, history: History) -> None:
        runner.reloading = False
        if not runner.gone:
            self._turn(runner, runner.revive, history)

    async def _load(self, runners: list[Runner]) -> list[History]:
        while True:
            try:
                return await self.store.load([(runner.incarnation, 0) for runner in runners])
            except StoreUnavailableError as error:
                logger.warning("the store does not answer; a journal is read again: %s", error)
                await asyncio.sleep(PAUSE_S)

    def resting(self, runner: Runner, /) -> None:
        """It waits; its kernel may be put away."""
        if runner.kernel is not None:
            if self.cache.nothing_stays:
                if runner.quiet:
                    runner.evict()
            elif not runner.running:
                self.cache.keep(runner)
        if not runner.running and runner.quiet and not runner.reloading:
            self._sleeping.add(runner.execution_id)
            if self.wakes.backlog:
                self.wakes.poke()  # its room is somebody else's now
            if (exposure := self._suspects.release(runner)) is not None:
                # It only waits for its time, a minute perhaps. Others must not wait for that.
                self._spawn(self._excuse(runner, exposure), "suspect")

    def calmed(self, runner: Runner, /) -> None:
        """It has got on since its claim, and is no suspect any more."""
        if self._suspects.release(runner) is not None:
            self._take_up_next_suspect()

    def begin_attempt(self, call: ActivityCall, runner: Runner, /) -> Attempt:
        """Start an attempt of a call."""
        self.cache.take(runner.execution_id)
        # What an earlier attempt said of its progress can only be there if there was one.
        attempt = Attempt(call, runner, self, recalls=call.attempt > 1 or runner.fence > 1)
        attempt.begin()
        return attempt

    def note_heartbeat(self, attempt: Attempt, details: bytes, /) -> None:
        """Write what an attempt says of its progress; from any thread."""
        self._loop.call_soon_threadsafe(self._heartbeats.note, attempt, details)

    async def recall_heartbeat(self, attempt: Attempt, /) -> bytes | None:
        """What an earlier attempt of the same step noted last."""
        return await self._heartbeats.recall(attempt)

    def left(self, runner: Runner, commit: Commit | None, /) -> None:
        """It is no longer in this worker's hands."""
        if self.runners.get(runner.execution_id) is runner:
            del self.runners[runner.execution_id]
        self._sleeping.discard(runner.execution_id)
        self.cache.take(runner.execution_id)
        if self._suspects.release(runner) is not None:
            self._take_up_next_suspect()
        if commit is None:
            self.wakes.poke()
        elif is_final(commit.status):
            assert commit.exit is not None
            self._waiters.ended(runner.execution_id, commit.exit)
        elif commit.status is Status.SUSPENDED and commit.held is None:
            self.cache.keep(runner)
            self.wakes.sleeper(commit.wake_at)
        elif commit.held is not None:
            logger.error(
                "%s %s is held (%s) and moves only when somebody resumes it", runner.workflow, runner.execution_id,
                commit.held,
            )  # fmt: skip
        if self.wakes.backlog:
            self.wakes.poke()

    def stored(self, start: Start, /) -> None:
        """An execution is in the store, for whoever has room; or for its time, if it is delayed."""
        if start.due_at is not None:
            self.wakes.sleeper(start.due_at)
        elif start.workflow in self.implementations:
            self.wakes.backlog = True
            self.wakes.poke()

    # Desk: what rounds ask -----------------------------------------------------------------------

    def room(self) -> int:
        """How many more executions may run here now."""
        return self.settings.admission - (len(self.runners) - len(self._sleeping))

    async def keep_house(self) -> None:
        """See to the workers, this one and the others."""
        if not await self._ownership.alive(self.worker_id):
            await self._begin_again()
        if await self._ownership.inherit(self.worker_id):
            self.wakes.backlog = True
        # In a commit that is on its way an execution may be owned on paper already, and it is known here.
        if await self._ownership.reconcile(self.worker_id, {*self.runners, *self._suspects.waiting}):
            self.wakes.backlog = True

    async def _begin_again(self) -> None:
        """Others have retired this worker: whatever it had is theirs. Drop it, and be a new worker."""
        logger.error("this worker was taken for dead and its executions were taken over; it begins again as a new one")
        for runner in list(self.runners.values()):
            runner.drop()
        self._suspects.clear()
        self.cache.clear()
        self.worker_id = self.committer.worker_id = new_worker_id()
        await self.announce()
        self.wakes.backlog = True

    async def take_up(self, records: list[Record], /) -> None:
        """Go on with executions that have been claimed: parked kernels at once, the others after their journal is read."""
        fresh: list[tuple[Record, Runner]] = []
        parked: list[tuple[Runner, int]] = []
        for record in self._suspects.admit(records):
            runner = self.cache.parked(record)
            if runner is not None and not is_suspect(record):
                parked.append((runner, record.fence))
            else:
                if runner is not None:
                    runner.evict()
                runner = Runner.claimed(self, self.implementations[record.workflow], record)
                fresh.append((record, runner))
            self.runners[record.execution_id] = runner
        for runner, fence in parked:
            self._loop.call_soon(self._turn, runner, runner.awake, fence)
        histories = await self._load([runner for _, runner in fresh]) if fresh else []
        for (record, runner), history in zip(fresh, histories, strict=True):
            if is_suspect(record):
                self._spawn(self._expose(record, runner, history), "suspect")
            else:
                self._loop.call_soon(self._revive, runner, history)

    async def _expose(self, record: Record, runner: Runner, history: History) -> None:
        """Let a suspect run, or hold it if it has ended its worker too often (R41)."""
        may_run = await self._suspects.expose(record, history)
        if may_run:
            self._loop.call_soon(self._revive, runner, history)
        elif not runner.gone:
            runner.convict(record.crashes)

    async def _excuse(self, runner: Runner, exposure: Exposure) -> None:
        """Let the next suspect run; the one before it is not to blame for what happens then."""
        await self._suspects.excuse(runner, exposure)
        self._take_up_next_suspect()

    def _take_up_next_suspect(self) -> None:
        if records := self._suspects.take_next():
            self._spawn(self.take_up(records), "suspect")

    async def mail_came(self, wakes: dict[ExecutionId, int], /) -> None:
        """Let executions that run here read their mail."""
        for execution_id in wakes:
            runner = self.runners.get(execution_id)
            if runner is not None:
                self.schedule(runner)

    async def look_after_waiters(self) -> None:
        """Tell those who wait for executions that have ended elsewhere."""
        wanted = self._waiters.wanted(self.runners)
        if not wanted:
            return
        for record in await self.store.read(wanted):
            if is_final(record.status):
                assert record.exit is not None
                self._waiters.ended(record.execution_id, record.exit)

    # Engine: what definitions ask ----------------------------------------------------------------

    def now(self) -> Instant:
        """The time on the store's clock."""
        return self.clock.now()

    async def start_execution(
        self,
        start: Start,
        *,
        on_duplicate: OnDuplicate,
        on_mismatch: OnMismatch,
        differing: Callable[[bytes], tuple[str, ...]],
    ) -> None:
        """Start or join; it is durable when this returns."""
        self._check_start(start)
        runner = self.runners.get(start.execution_id)
        if runner is None:
            verdict = await self._write_start(start)
        else:
            # Shielded: cancelling one caller must not cancel the birth that others wait for.
            if runner.born is not None:
                await asyncio.shield(runner.born)
            verdict = Verdict.JOINED
        if verdict is Verdict.LOST:
            # This worker was retired while the birth was on its way; a start that waits needs no worker.
            verdict = await self._store_start(start)
        if verdict is Verdict.JOINED:
            await self._join(start, on_duplicate, on_mismatch, differing)

    def _check_start(self, start: Start) -> None:
        if self.stopping:
            raise UsageError("The engine is closing and takes no new executions.")
        if len(start.payload) > self.settings.payload_limit:
            raise PayloadError(
                f"The payload of {start.workflow!r} has {len(start.payload):,} bytes; the limit is "
                f"{self.settings.payload_limit:,}. Store it elsewhere and pass where it is, or open the engine with a "
                "larger payload_limit=.",
                owner=start.workflow,
            )
        if start.workflow not in self.implementations and not self.store.shared:
            names = ", ".join(sorted(self.implementations)) or "nothing"
            raise NotRegisteredError(
                f"No body of workflow {start.workflow!r} is registered in this memory engine ({names} is), and no other "
                "process can have one. Add its implementation to the engine's list.",
                workflow=start.workflow,
            )

    async def _write_start(self, start: Start) -> Verdict:
        implementation = self.implementations.get(start.workflow)
        if implementation is not None and start.due_at is None and self.room() > 0 and not self.wakes.backlog:
            runner = Runner(
                self,
                implementation,
                execution_id=start.execution_id,
                incarnation=start.incarnation,
                life=start.number,
                fence=1,
                payload=start.payload,
                began_at=self.clock.now(),
            )
            self.runners[start.execution_id] = runner
            runner.born = asyncio.get_running_loop().create_future()
            self._loop.call_soon(self._turn, runner, runner.bear, start)
            return await asyncio.shield(runner.born)
        return await self._store_start(start)

    async def _store_start(self, start: Start) -> Verdict:
        """Store it for whoever has room, now or later."""
        status = Status.PENDING if start.due_at is None else Status.SUSPENDED
        commit = Commit(start.execution_id, start.incarnation, 0, 0, status, start, wake_at=start.due_at)
        written: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._unwritten[written] = start
        written.add_done_callback(lambda _: self._unwritten.pop(written, None))

        def answered(answer: Answer) -> None:
            # Here and not behind the wait: its caller may have been cancelled meanwhile.
            self.stored(start)
            if not written.done():
                written.set_result(answer)

        self.committer.submit(commit, answered, _refuser(written))
        return (await asyncio.shield(written)).verdict

    async def _join(
        self,
        start: Start,
        on_duplicate: OnDuplicate,
        on_mismatch: OnMismatch,
        differing: Callable[[bytes], tuple[str, ...]],
    ) -> None:
        if on_duplicate == "reject":
            raise ExecutionExistsError(
                f"Execution {start.execution_id} of {start.workflow!r} exists already, and on_duplicate is 'reject'.",
                execution_id=start.execution_id,
            )
        record = await self.record(start.execution_id)
        if record is None or record.payload == start.payload:
            return
        fields = differing(record.payload)
        if not fields:
            return
        if on_mismatch == "raise":
            raise PayloadMismatchError(
                f"Execution {start.execution_id} of {start.workflow!r} was started with another payload: "
                f"{', '.join(fields)} differ(s). The same idempotency key must mean the same work.",
                fields=fields,
                execution_id=start.execution_id,
            )
        logger.warning(
            "execution %s of %r was started with another payload before (%s differ(s)); the first one stands",
            start.execution_id, start.workflow, ", ".join(fields),
        )  # fmt: skip

    async def wait_for_exit(self, execution_id: ExecutionId, *, workflow: str, timeout: timedelta | None) -> bytes:
        """The encoded exit of an execution, once it has one."""
        if execution_id in self.runners:
            _check_workflow(execution_id, self.runners[execution_id].workflow, workflow)
        future = self._waiters.add(execution_id)
        alarms = [
            self.clock.call_at(self.clock.now() + UNREGISTERED_MS, lambda: self._look_for_body(execution_id, workflow))
        ]
        if timeout is not None:
            limit = self.clock.now() + round(timeout.total_seconds() * 1_000)
            alarms.append(self.clock.call_at(limit, lambda: _time_out(future, execution_id, timeout)))
        try:
            if execution_id not in self.runners and not future.done():
                # Only after the waiter is there: an end in between reaches one of the two.
                record = await self.record(execution_id)
                if record is None:
                    raise ExecutionNotFoundError(
                        f"There is no execution {execution_id} of {workflow!r}.", execution_id=execution_id
                    )
                _check_workflow(execution_id, record.workflow, workflow)
                if record.status in FINAL:
                    assert record.exit is not None
                    return record.exit
            return await future
        finally:
            for alarm in alarms:
                alarm.cancel()
            self._waiters.discard(execution_id, future)

    def _look_for_body(self, execution_id: ExecutionId, workflow: str) -> None:
        if workflow not in self.implementations:
            self._spawn(self._say_unregistered(execution_id, workflow), "look")

    async def _say_unregistered(self, execution_id: ExecutionId, workflow: str) -> None:
        workers = [worker for worker in await self.store.workers() if worker.retired_at is None]
        if any(workflow in worker.workflows for worker in workers):
            return
        names = ", ".join(sorted({name for worker in workers for name in worker.workflows})) or "nothing"
        logger.warning(
            "execution %s waits: no worker has registered workflow %r. Registered are: %s",
            execution_id,
            workflow,
            names,
        )

    async def record(self, execution_id: ExecutionId, /) -> Record | None:
        """The execution as it stands in the store."""
        records = await self.store.read([execution_id])
        return records[0] if records else None

    async def resume_execution(self, execution_id: ExecutionId, /) -> None:
        """Move a held execution."""
        if await self.store.resume(execution_id) is None:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        self.wakes.poke()


def _check_workflow(execution_id: ExecutionId, found: str, asked: str) -> None:
    # Read with the schemas of another workflow, its result would be nonsense.
    if found != asked:
        raise UsageError(f"Execution {execution_id} belongs to workflow {found!r}, not to {asked!r}.")


def _refuser(future: asyncio.Future[Answer]) -> Callable[[StoreRefusedError], None]:
    def refused(error: StoreRefusedError) -> None:
        if not future.done():
            future.set_exception(error)

    return refused


def _time_out(future: asyncio.Future[bytes], execution_id: ExecutionId, timeout: timedelta) -> None:
    if not future.done():
        future.set_exception(
            ExecutionTimeoutError(
                f"Execution {execution_id} has not ended within {timeout}. It goes on; ask again, or interrupt it.",
                execution_id=execution_id,
            )
        )
