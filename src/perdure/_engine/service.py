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
from collections.abc import Coroutine, Iterable
from datetime import timedelta
from typing import Any

from perdure._definitions.activity import ActivityCall
from perdure._definitions.host import Engine
from perdure._definitions.registration import Registration
from perdure._engine.attempts import Attempt
from perdure._engine.cache import Cache
from perdure._engine.committer import Committer
from perdure._engine.heartbeats import Heartbeats
from perdure._engine.letterbox import Letterbox
from perdure._engine.ownership import Ownership
from perdure._engine.patience import until_answered
from perdure._engine.reading import Reading
from perdure._engine.registry import Registry
from perdure._engine.requests import Requests
from perdure._engine.results import Results
from perdure._engine.retention import Retention
from perdure._engine.room import Room
from perdure._engine.runner import Runner
from perdure._engine.settings import Settings
from perdure._engine.slots import Slots
from perdure._engine.starts import Starts
from perdure._engine.suspects import Exposure, Suspects, is_suspect
from perdure._engine.threads import Threads
from perdure._engine.turns import Turns
from perdure._engine.wakes import Wakes
from perdure._engine.watchdog import Watchdog
from perdure._ids import new_worker_id
from perdure._model.records import (
    Commit,
    ExecutionId,
    History,
    Record,
    Start,
    Worker,
    WorkerId,
)
from perdure._model.status import Status, is_final
from perdure._model.store import Store
from perdure._values.exit import Failure
from perdure._values.exit_codec import decode_loosely
from perdure._values.instant import Instant
from perdure.errors import StoreError

logger = logging.getLogger("perdure")

# Attempts that were cut off get this long to end before the engine goes on without them.
CUT_OFF_S = 5.0


class Service:
    """One open engine. It is the `Keeper` of its runners, their `Workshop`, and the `Desk` of its rounds."""

    def __init__(self, store: Store, registrations: Iterable[Registration], settings: Settings, face: Engine) -> None:
        self.store = store
        self.settings = settings
        # As attributes, not as properties: every step asks for them several times.
        self.clock = store.clock
        self.payload_limit = settings.payload_limit
        self.engine = face  # what activities find as their engine
        self.worker_id: WorkerId = new_worker_id()
        self.registry = Registry(registrations)
        self.runners: dict[ExecutionId, Runner] = {}
        self.cache = Cache(settings.cache_count, settings.cache_bytes)
        self.slots = Slots(settings.concurrency)
        self.threads = Threads(settings.threads)
        # A plain function has one of these before it is given to a thread, and waits without its timeout running.
        self.thread_slots = Slots(settings.threads)
        self.random = random.Random()
        self.stopping = False
        self.grace_is_over = False
        self._heartbeats = Heartbeats(store)
        self.results = Results(store, self.registry, self.runners)
        self.letterbox = Letterbox(store)
        self.starts = Starts(self)
        self.requests = Requests(self)
        self._suspects = Suspects(store)
        self._ownership = Ownership(store)
        self._retention = Retention(store, self.registry, settings.retention_ms)
        self.turns = Turns(self._stirs)
        self.reading = Reading(store, self.turns, self.spawn)
        self.watchdog = Watchdog(self.turns.name)
        self._background: set[asyncio.Task[None]] = set()
        # Executions whose functions still run on threads when the engine has closed.
        self._kept: set[ExecutionId] = set()
        self.room = Room(settings.admission, self.runners)

    # Registrations -------------------------------------------------------------------------------

    async def announce(self) -> None:
        """Make this worker and its workflows known to the store."""
        await self.store.register(
            Worker(
                worker_id=self.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                workflows=self.registry.names,
                started_at=self.clock.now(),
            )
        )

    def announce_soon(self) -> None:
        """The same, when more workflows have come while the engine is open."""
        self.spawn(self._announce_again(), "announcement")
        self.wakes.backlog = True
        self.wakes.poke()

    async def _announce_again(self) -> None:
        await until_answered(self.announce, "a registration is written again")

    def claimable(self) -> list[str]:
        """The workflows that are registered here."""
        return list(self.registry.names)

    # Lifecycle -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store, become a worker, begin to look for work."""
        await self.store.open()
        try:
            self.loop = asyncio.get_running_loop()
            await self.announce()
        except BaseException:
            await self.store.close()
            raise
        self.committer = Committer(self.store, self.worker_id)
        self.wakes = Wakes(self)
        self.store.listen(self.wakes.poke_all)
        self.watchdog.start()
        self._retention.begin()
        self.spawn(self.committer.run(), "committer")
        self.spawn(self.wakes.run(), "wakes")
        # What a former worker left behind comes before what is started from now on.
        self.wakes.backlog = self.store.shared and bool(self.registry.names)

    async def close(self) -> None:
        """Stop: grace for what runs, then give everything back."""
        try:
            if not await self.drain(self.settings.grace):
                logger.warning("some activities did not end within their grace; they run again elsewhere")
            await self._cut_off()
            async with asyncio.timeout(CUT_OFF_S):
                await self._flush()
                await self._heartbeats.settled()
        except TimeoutError:
            logger.warning("the store does not answer; what could not be written runs again elsewhere")
        finally:
            # Also when this is cancelled itself: at a second Ctrl-C asyncio.run cancels every task of its loop, once,
            # and waits for all of them. The store must not stay open then, its worker seem to live, and what still
            # runs on a thread be begun elsewhere.
            self._cut()
            await self._end_services()
            await self._go()

    async def _end_services(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.wakes.close()
        self.watchdog.stop()
        self.results.close()
        self.letterbox.close()

    async def drain(self, grace: timedelta) -> bool:
        """Claim and give out nothing new, and wait for what runs; whether all of it has ended in time."""
        self.stopping = True
        try:
            async with asyncio.timeout(grace.total_seconds()):
                # Also what a commit on its way lets begin: an at-most-once attempt is noted as begun by then.
                await self.committer.settled()
                while tasks := [attempt.task for attempt in self._attempts() if not attempt.task.done()]:
                    await asyncio.wait(tasks)
                    await self.committer.settled()
        except TimeoutError:
            return False
        return True

    def _attempts(self) -> list[Attempt]:
        return [attempt for runner in self.runners.values() for attempt in runner.running.values()]

    def _cut(self) -> list[Attempt]:
        """End the attempts that are left, as the host (R9), and note the executions whose threads would not end."""
        self.grace_is_over = True
        # First: a thread that is given up must not take the next call, which is cut off in a moment.
        self.threads.close()
        attempts = self._attempts()
        self._kept |= {attempt.execution_id for attempt in attempts if attempt.on_thread}
        for attempt in attempts:
            attempt.cut()
        return attempts

    async def _cut_off(self) -> None:
        """The same, and wait until they have ended."""
        if attempts := self._cut():
            await asyncio.wait([attempt.task for attempt in attempts], timeout=CUT_OFF_S)

    async def _flush(self) -> None:
        """Let what was returned in time go through its last turns and commits."""
        while True:
            await self.reading.settled()
            await self.committer.settled()
            # Answers and ended attempts have scheduled their turns by now; they are taken in the next round of the loop.
            await asyncio.sleep(0)
            if self.committer.idle and self.turns.idle and self.reading.idle:
                return

    async def _go(self) -> None:
        """Give back what is owned, and leave the store; what is kept stays with this process."""
        kept = self._kept
        for runner in self.runners.values():
            runner.let_go()
        self.runners.clear()
        self.starts.give_up()
        self.cache.clear()
        try:
            if kept:
                # Their functions still run on threads; nobody else may begin them before this
                # process has ended (R12). The worker's lock stays until then.
                logger.warning("%d executions stay with this process: their threads still run", len(kept))
                # Asked of the store: a claim whose answer never came is owned, and known to nobody here. Behind a write of
                # nothing: one that is still on its way, since its round was cancelled, would come after the look.
                await self.store.give_back(self.worker_id, {})
                owned = await self.store.owned(self.worker_id)
                await self.store.give_back(self.worker_id, {id_: owned[id_] for id_ in owned if id_ not in kept})
            else:
                await self.store.retire(self.worker_id)
        except StoreError as error:
            logger.warning("the store does not answer; what this worker owned is taken over later: %s", error)
        finally:
            if not kept:
                await self.store.close()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guard(coroutine, name), name=f"perdure {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        # Of a task that is cancelled before it has begun, nobody has ever awaited the coroutine.
        task.add_done_callback(lambda _: coroutine.close())
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
    def idle(self) -> bool:
        """Whether nothing happens until a timer is due or somebody asks for something."""
        return self.still and not self._attempts()

    @property
    def still(self) -> bool:
        """Whether nothing happens but what activities do, until a timer is due or somebody asks for something."""
        return (
            self.committer.idle
            and self.wakes.idle
            and self.turns.idle
            and len(self._background) == 2
            and all(runner.quiet for runner in self.runners.values())
        )

    @property
    def at_work(self) -> list[Attempt]:
        """The attempts whose functions do something now, and do not wait for a time or for another execution."""
        return [attempt for attempt in self._attempts() if attempt.has_place]

    # Keeper: what runners ask --------------------------------------------------------------------

    def schedule(self, runner: Runner, /) -> None:
        """Let it take a turn soon."""
        self.turns.add(runner)

    def _stirs(self, runner: Runner) -> None:
        """Its turn comes: it sleeps no more, and its kernel is nobody's to put away."""
        self.room.wake(runner.execution_id)
        self.cache.wanted(runner)

    def reload(self, runner: Runner, /) -> None:
        """Rebuild its kernel from the journal, then let it take its turn."""
        self.reading.reload(runner)

    def fetch(self, runner: Runner, /) -> None:
        """Read the mail that it has not seen, then let it take its turn."""
        self.reading.fetch(runner)

    def stirred(self) -> None:
        """Somebody has been given something to do by a commit of this worker."""
        self.wakes.poke_mail()

    def resting(self, runner: Runner, /) -> None:
        """It waits; its kernel may be put away."""
        if runner.kernel is not None:
            if self.cache.nothing_stays:
                if runner.quiet:
                    runner.evict()
            elif not runner.running:
                self.cache.keep(runner)
        if not runner.running and runner.quiet and not runner.reloading:
            self.room.fall_asleep(runner.execution_id)
            if self.wakes.backlog:
                self.wakes.poke()  # its room is somebody else's now
            if (exposure := self._suspects.release(runner)) is not None:
                # It only waits for its time, a minute perhaps. Others must not wait for that.
                self.spawn(self._excuse(runner, exposure), "suspect")

    def calmed(self, runner: Runner, /) -> None:
        """It has got on since its claim, and is no suspect any more."""
        if self._suspects.release(runner) is not None:
            self._take_up_next_suspect()

    def begin_attempt(self, call: ActivityCall, runner: Runner, /) -> Attempt:
        """Start an attempt of a call."""
        self.cache.wanted(runner)
        # What an earlier attempt said of its progress can only be there if there was one.
        attempt = Attempt(call, runner, self, recalls=call.attempt > 1 or runner.fence > 1)
        attempt.begin()
        return attempt

    def note_heartbeat(self, attempt: Attempt, details: bytes, /) -> None:
        """Write what an attempt says of its progress; from any thread."""
        self.loop.call_soon_threadsafe(self._heartbeats.note, attempt, details)

    async def recall_heartbeat(self, attempt: Attempt, /) -> bytes | None:
        """What an earlier attempt of the same step noted last."""
        return await self._heartbeats.recall(attempt)

    def step_aside(self, execution_id: ExecutionId, /) -> None:
        """It waits for another execution, which may need its room."""
        self.room.step_aside(execution_id)
        if self.wakes.backlog:
            self.wakes.poke()

    def step_back(self, execution_id: ExecutionId, /) -> None:
        """It counts again."""
        self.room.step_back(execution_id)

    def left(self, runner: Runner, commit: Commit | None, /) -> None:
        """It is no longer in this worker's hands."""
        if self.runners.get(runner.execution_id) is runner:
            del self.runners[runner.execution_id]
            self.room.wake(runner.execution_id)
        self.cache.wanted(runner)
        if self._suspects.release(runner) is not None:
            self._take_up_next_suspect()
        if commit is None:
            self.wakes.poke()
        elif is_final(commit.status):
            assert commit.exit is not None
            self.results.ended(runner.execution_id, commit.exit)
        elif commit.status is Status.SUSPENDED and commit.held is None:
            self.cache.keep(runner)
            self.wakes.sleeper(commit.wake_at)
        elif commit.held is not None:
            logger.error(
                "%s %s is held (%s): %s. When that is mended: await engine.resume(%r)", runner.workflow,
                runner.execution_id, commit.held, _cause(commit), runner.execution_id,
            )  # fmt: skip
        if self.wakes.backlog:
            self.wakes.poke()

    def watch(self, deadline: Instant, /) -> None:
        """An execution has to be interrupted then, if it has not ended."""
        self.wakes.sleeper(deadline)

    def stored(self, start: Start, /) -> None:
        """An execution is in the store, for whoever has room; or for its time, if it is delayed."""
        if start.deadline is not None:
            self.watch(start.deadline)
        if start.due_at is not None:
            self.wakes.sleeper(start.due_at)
        elif start.workflow in self.registry:
            self.wakes.backlog = True
            self.wakes.poke()
        elif start.parent is not None:
            # Its parent waits, and has nobody whom it could ask why.
            self.results.look_for_body(start.execution_id, start.workflow)

    # Desk: what rounds ask -----------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether a new execution may run here now, before all that is pending."""
        return self.room.free > 0 and not self.wakes.backlog and not self.stopping

    async def keep_house(self) -> None:
        """See to the workers, this one and the others."""
        if not await self._ownership.alive(self.worker_id):
            await self._begin_again()
        if await self._ownership.inherit(self.worker_id):
            self.wakes.backlog = True
        # In a commit that is on its way an execution may be owned on paper already, and it is known here.
        if await self._ownership.reconcile(self.worker_id, {*self.runners, *self._suspects.waiting}):
            self.wakes.backlog = True
        # One that somebody else has ended; whoever sleeps or works for an hour would not find out before.
        for execution_id in self._ownership.lost(self._in_hand()):
            logger.warning("execution %s is not this worker's any more; it is dropped", execution_id)
            self.runners[execution_id].drop()

    async def inherit(self) -> None:
        """Take over what dead workers had, without waiting for the next round."""
        if self.store.shared and await self._ownership.inherit(self.worker_id):
            self.wakes.backlog = True
            self.wakes.poke()

    def _in_hand(self) -> dict[ExecutionId, int]:
        """The executions at rest here, with their fences: one whose commit is on its way may be owned or not by now."""
        return {id_: runner.fence for id_, runner in self.runners.items() if runner.is_settled}

    async def _begin_again(self) -> None:
        """Others have retired this worker: whatever it had is theirs. Drop it, and be a new worker."""
        logger.error("this worker was taken for dead and its executions were taken over; it begins again as a new one")
        self.worker_id = self.committer.worker_id = new_worker_id()
        # First: a runner that is dropped makes room for the next suspect, and these are not this worker's either.
        self._suspects.clear()
        for runner in list(self.runners.values()):
            runner.drop()
        self.cache.clear()
        await self.announce()
        self.wakes.backlog = True

    async def take_up(self, records: list[Record], /) -> None:
        """Go on with executions that have been claimed: parked kernels at once, the others after their journal is read."""
        fresh: list[tuple[Record, Runner]] = []
        parked: list[tuple[Runner, Record]] = []
        # What was claimed by the worker that this one was before it began again is somebody else's now.
        mine = [record for record in records if record.owner == self.worker_id]
        for record in self._suspects.admit(mine):
            runner = self.cache.parked(record)
            if runner is not None and not is_suspect(record):
                parked.append((runner, record))
            else:
                if runner is not None:
                    runner.evict()
                runner = Runner.claimed(self, self.registry[record.workflow], record)
                fresh.append((record, runner))
            self.runners[record.execution_id] = runner
        for runner, record in parked:
            self.turns.soon(runner, runner.awake, record.fence, record.wakes)
        histories = await self.reading.journals([runner for _, runner in fresh])
        for (record, runner), history in zip(fresh, histories, strict=True):
            if history is None:
                continue
            if is_suspect(record):
                self.spawn(self._expose(record, runner, history), "suspect")
            else:
                self.reading.revive(runner, history)

    async def _expose(self, record: Record, runner: Runner, history: History) -> None:
        """Let a suspect run, or hold it if it has ended its worker too often (R41)."""
        may_run = await self._suspects.expose(record, history)
        if may_run:
            self.reading.revive(runner, history)
        elif not runner.gone:
            runner.convict(record.crashes)

    async def _excuse(self, runner: Runner, exposure: Exposure) -> None:
        """Let the next suspect run; the one before it is not to blame for what happens then."""
        await self._suspects.excuse(runner, exposure)
        self._take_up_next_suspect()

    def _take_up_next_suspect(self) -> None:
        if records := self._suspects.take_next():
            self.spawn(self.take_up(records), "suspect")

    async def mail_came(self, wakes: dict[ExecutionId, int], /) -> None:
        """Let executions that run here read their mail."""
        for execution_id, known in wakes.items():
            runner = self.runners.get(execution_id)
            if runner is not None:
                runner.told(known)

    async def look_after_waiters(self) -> None:
        """Tell those who wait for executions that have ended elsewhere."""
        self.letterbox.look()
        await self.results.look()

    @property
    def next_sweep(self) -> Instant | None:
        """When what is old is to be removed; not while the engine closes, which would ask again at once."""
        return None if self.stopping else self._retention.next_at

    def sweep(self) -> None:
        """Remove what is old, if it is time for that."""
        if not self.stopping and self._retention.take():
            self.spawn(self._sweep(), "retention")

    async def _sweep(self) -> None:
        await self._retention.sweep()
        # In memory nobody else has the next round taken when the next sweep is due.
        self.wakes.poke()


def _cause(commit: Commit) -> str:
    held = decode_loosely(commit.exit or b"")
    # Without its full stop, as a sentence of ours follows.
    return str(held.cause).removesuffix(".") if isinstance(held, Failure) else "no cause is known"
