"""Bugs to plant: changes of a line or two of the product, each of which breaks a promise.

They are made in the source text while it is imported, in a process of its own (`planted.py`), so the product has no
switch for them. Where the product changes so that a text is not there any more, the gate says so: plant it anew.
"""

from typing import NamedTuple


class Change(NamedTuple):
    """One text of one module, and what stands there instead."""

    module: str
    text: str
    instead: str


PLANTS: dict[str, tuple[Change, ...]] = {
    "a wake is lost: what comes in during a commit is left in the inbox": (
        Change(
            "perdure._engine.runner",
            "        if self._inbox:\n            self._keeper.schedule(self)\n        else:",
            "        if True:",
        ),
    ),
    "an effect comes before its commit": (
        Change(
            "perdure._engine.runner",
            "            self._give_out()\n            return\n        self._submit(commit)\n",
            "            self._give_out()\n            return\n        self._submit(commit)\n        self._give_out()\n",
        ),
    ),
    "a fence is not checked": (
        Change(
            "perdure._stores.sqlite.commit",
            "n is None or fence != one.fence or incarnation",
            "n is None or incarnation",
        ),
        Change("perdure._stores.sqlite.commit", "        if owner != self._me:\n            return _LOST\n", ""),
    ),
    "a take-over leaves the fence as it is": (
        Change("perdure._stores.sqlite.worker", "fence = fence + 1, crashes", "crashes"),
    ),
    "a timer fires early": (Change("perdure._engine.runner", "timer.due_at <= now:", "timer.due_at <= now + 40:"),),
    "a sleeper is woken early": (
        Change(
            "perdure._stores.sqlite.store",
            "timer.promote(connection, limit, self._clock.now())",
            "timer.promote(connection, limit, self._clock.now() + 500)",
        ),
        Change("perdure._engine.wakes", "self._next_wake <= now:", "self._next_wake <= now + 500:"),
    ),
    "an attempt is not counted": (
        Change("perdure._kernel.kernel", "call.attempt = entry.attempt + 1", "call.attempt = entry.attempt"),
    ),
    "a retry does not wait for its time": (
        Change("perdure._engine.runner", "due = call.due_at is None or call.due_at <= now\n", "due = True\n"),
    ),
    "a record is made twice": (
        Change(
            "perdure._engine.runner", "        self._inbox.append(event)\n", "        self._inbox += [event, event]\n"
        ),
        Change("perdure._kernel.kernel", "if call is None and not self._is_orphan(event):", "if False:"),
    ),
    "a lost answer is taken for a yes": (
        Change(
            "perdure._engine.committer",
            "            except StoreError as error:\n",
            "            except StoreError as error:\n                return [Answer(Verdict.GRANTED) for _ in commits]\n",
        ),
    ),
    "callers are told before it is durable": (
        Change(
            "perdure._engine.committer",
            "            answers = await self._answers([submission.commit for submission in batch])\n",
            "            answers = [Answer(Verdict.STARTED if one.commit.start else Verdict.GRANTED) for one in batch]\n"
            "            asyncio.ensure_future(self._answers([submission.commit for submission in batch]))\n",
        ),
    ),
    "a parked kernel goes on although others have had the execution": (
        Change("perdure._engine.cache", " and runner.fence + 1 == record.fence", ""),
    ),
    "an attempt that runs is not found again after an eviction": (
        Change(
            "perdure._engine.runner",
            "        return attempt is not None and attempt.attempt == call.attempt and attempt.call.input == call.input\n",
            "        return attempt is not None and False\n",
        ),
    ),
    "an at-most-once attempt is not noted": (
        Change("perdure._engine.runner", "                    kernel.note_begun(call)\n", "                    pass\n"),
    ),
    "every outcome of an at-most-once attempt is unknown": (
        Change(
            "perdure._engine.runner",
            "return self._may_begin(call, now) and kernel.begun(call)",
            "return self._may_begin(call, now)",
        ),
    ),
    "a timeout comes early": (
        Change(
            "perdure._engine.attempts",
            "self._alarm = self._shop.clock.call_at(now + left,",
            "self._alarm = self._shop.clock.call_at(now + left // 2,",
        ),
    ),
    "a worker that closes counts a crash": (
        Change(
            "perdure._stores.sqlite.store",
            "worker.retire(connection, [worker_id], 0,",
            "worker.retire(connection, [worker_id], 1,",
        ),
    ),
    "a second start is taken for the first": (
        Change(
            "perdure._stores.sqlite.commit",
            "        if incarnation != start.incarnation:\n            return _JOINED\n",
            "",
        ),
    ),
    "what is taken over from the living is not given up": (
        Change(
            "perdure._engine.service",
            "        if not await self._ownership.alive(self.worker_id):\n            await self._begin_again()\n",
            "",
        ),
    ),
}
