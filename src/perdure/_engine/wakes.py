"""Finding work: what is due becomes pending, what is pending is claimed, what others wrote is noticed.

A wake is state in the store; everything here only makes it faster. One round asks, in this order:
are timers due, has mail come for what runs here, may pending executions be claimed, has somebody
ended for whom we wait. A round is taken when something says so (`poke`), when the earliest known
wake is due, and at an interval in case every hint was lost.
"""

import asyncio
import logging
from typing import Protocol

from perdure._engine.room import Room
from perdure._engine.settings import PAUSE_S
from perdure._model.clock import Alarm, Clock
from perdure._model.records import ExecutionId, Record, WorkerId
from perdure._model.store import Store
from perdure._values.exit_codec import encode_outcome
from perdure._values.instant import Instant
from perdure.errors import DeadlineExceeded, StoreError

logger = logging.getLogger("perdure")

# The exit with which an execution ends that lets its deadline end it (R44).
DEADLINE_EXCEEDED = encode_outcome(DeadlineExceeded("The execution has not ended before its deadline."))

# With every hint lost, work is found this late at most.
POLL_MS = 5_000
# How often a worker looks whether another one has died. Somebody's executions stand still until then.
LOOK_MS = 1_000
# Claimed in one transaction; more only makes the rest wait for their replay.
CLAIM_BATCH = 200
PROMOTE_BATCH = 500


class Desk(Protocol):
    """What a round needs of the engine."""

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> Store: ...

    @property
    def worker_id(self) -> WorkerId: ...

    @property
    def stopping(self) -> bool: ...

    def claimable(self) -> list[str]:
        """The workflows that are registered here."""
        ...

    @property
    def room(self) -> Room: ...

    async def keep_house(self) -> None:
        """See to the workers: is this one alive to the others, are others dead, does it own what it does not know."""
        ...

    async def take_up(self, records: list[Record], /) -> None:
        """Go on with executions that have just been claimed."""
        ...

    async def look_after_waiters(self) -> None:
        """Tell those who wait for executions that have ended elsewhere."""
        ...

    @property
    def next_sweep(self) -> Instant | None:
        """When what is old is to be removed; None: nothing is, or it is being removed."""
        ...

    def sweep(self) -> None:
        """Remove what is old, if it is time for that, beside the rounds."""
        ...

    async def mail_came(self, wakes: dict[ExecutionId, int], /) -> None:
        """Feed mail to executions that run here."""
        ...


class Wakes:
    """The rounds of one engine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._poked = asyncio.Event()
        self._resting = False
        self._alarm: Alarm | None = None
        # The earliest wake in the store as far as we know; None: nobody sleeps there.
        self._next_wake: Instant | None = None
        # Somebody else may have set an earlier one.
        self._ask_next_wake = True
        self._looked_at: Instant | None = None
        self._asked_at: Instant | None = None
        # Held by whoever claims: two at once would fill the same room twice.
        self._claiming = asyncio.Lock()
        # Mail may have come for what runs here, from this worker itself.
        self._mail = False
        # Pending executions may be left over: a new start has to queue behind them.
        self.backlog = False

    def poke(self) -> None:
        """There may be work: take a round soon."""
        self._poked.set()

    def poke_mail(self) -> None:
        """Somebody has been given something to do from here: mail may have come, executions may be pending."""
        self._mail = True
        self._poked.set()

    def poke_all(self) -> None:
        """Somebody else has written: anything may have changed."""
        self._ask_next_wake = True
        self._poked.set()

    def sleeper(self, wake_at: Instant | None) -> None:
        """An execution was suspended here until then."""
        if wake_at is not None and (self._next_wake is None or wake_at < self._next_wake):
            self._next_wake = wake_at
            if self._resting:
                self._arm()

    @property
    def idle(self) -> bool:
        """Whether no round is being taken and none is wanted."""
        return self._resting and not self._poked.is_set()

    async def run(self) -> None:
        """Take rounds until cancelled."""
        while True:
            self._poked.clear()
            try:
                await self._round()
            except StoreError as error:
                logger.warning("the store does not answer; work is looked for again: %s", error)
                # What was asked may have been done: a claim whose answer is lost is owned by a worker
                # that does not know it, and given back when the house is kept.
                self._ask_next_wake = True
                self._poked.set()
                await asyncio.sleep(PAUSE_S)
            if not self._poked.is_set():
                self._arm()
                self._resting = True
                await self._poked.wait()
                self._resting = False

    async def _round(self) -> None:
        desk = self._desk
        now = desk.clock.now()
        if desk.store.shared and (self._looked_at is None or now - self._looked_at >= LOOK_MS):
            self._looked_at = now
            await desk.keep_house()
        if desk.store.shared and (self._asked_at is None or now - self._asked_at >= POLL_MS):
            # A hint that is lost must not lose a wake: whoever has put an execution to sleep may be gone since.
            self._ask_next_wake = True
        if self._ask_next_wake:
            self._ask_next_wake = False
            self._asked_at = now
            await self._look_for_next_wake()
        if self._next_wake is not None and self._next_wake <= now:
            await self._expire()
            await self._promote()
        if desk.store.shared or self._mail:
            self._mail = False
            if came := await desk.store.mail_for(desk.worker_id):
                await desk.mail_came(came)
        await self.claim()
        await desk.look_after_waiters()
        desk.sweep()

    async def _expire(self) -> None:
        """Interrupt what has passed its deadline."""
        expired = await self._desk.store.expire(DEADLINE_EXCEEDED, PROMOTE_BATCH)
        if expired:
            self._mail = True
        if expired == PROMOTE_BATCH:
            self._poked.set()

    async def _promote(self) -> None:
        if await self._desk.store.promote(PROMOTE_BATCH) == PROMOTE_BATCH:
            self._poked.set()
        await self._look_for_next_wake()

    async def _look_for_next_wake(self) -> None:
        # Whoever goes to sleep while the store is being asked may not be in its answer: the earlier one counts.
        self._next_wake = None
        self.sleeper(await self._desk.store.next_wake())

    @property
    def claims(self) -> bool:
        """Whether somebody claims at this moment."""
        return self._claiming.locked()

    async def claim(self) -> None:
        """Take what is pending, as far as there is room."""
        async with self._claiming:
            await self._claim()

    async def _claim(self) -> None:
        desk = self._desk
        limit = min(desk.room.free, CLAIM_BATCH)
        workflows = desk.claimable()
        if limit <= 0 or desk.stopping or not workflows:
            self.backlog = self.backlog or limit <= 0
            return
        with desk.room.kept(limit):
            records = await desk.store.claim(desk.worker_id, workflows, limit)
        self.backlog = len(records) == limit
        if self.backlog:
            self._poked.set()
        if records:
            await desk.take_up(records)

    def _arm(self) -> None:
        """Have a round taken when the next wake is due, or when the interval is over."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self._next_wake
        if self._desk.store.shared:
            interval = self._desk.clock.now() + (LOOK_MS if self._desk.claimable() else POLL_MS)
            when = interval if when is None else min(when, interval)
        sweep = self._desk.next_sweep
        if sweep is not None:
            when = sweep if when is None else min(when, sweep)
        if when is not None:
            self._alarm = self._desk.clock.call_at(when, self.poke)

    def close(self) -> None:
        """Arm nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
