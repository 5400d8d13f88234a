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
            "        if self.inbox:\n            self._keeper.schedule(self)\n        else:",
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
    "a timer fires early": (
        Change("perdure._engine.inbox", "and timer.due_at <= now:\n", "and timer.due_at <= now + 40:\n"),
    ),
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
        Change("perdure._engine.outgoing", "due = (call.due_at is None or call.due_at <= now) and", "due = True and"),
    ),
    "a record is made twice": (
        Change(
            "perdure._engine.inbox", "        self._events.append(event)\n", "        self._events += [event, event]\n"
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
            "perdure._engine.outgoing",
            "        return attempt is not None and attempt.attempt == call.attempt and attempt.call.input == call.input\n",
            "        return attempt is not None and False\n",
        ),
    ),
    "an at-most-once attempt is not noted": (
        Change(
            "perdure._engine.outgoing", "                    kernel.note_begun(call)\n", "                    pass\n"
        ),
    ),
    "every outcome of an at-most-once attempt is unknown": (
        Change(
            "perdure._engine.outgoing",
            "return self._may_begin(kernel, call, now) and kernel.begun(call)",
            "return self._may_begin(kernel, call, now)",
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
    "what is taken over from the living is not given up": (
        Change(
            "perdure._engine.service",
            "        if not await self._ownership.alive(self.worker_id):\n            await self._begin_again()\n",
            "",
        ),
    ),
    # Mail.
    "mail that comes while a suspension is on its way wakes nobody": (
        Change("perdure._stores.sqlite.commit", "if wakes > one.seen and status is not Status.PENDING:", "if False:"),
    ),
    "mail wakes nobody who sleeps": (
        Change("perdure._stores.sqlite.mail", '    if row.status == "SUSPENDED"', '    if row.status == ""'),
    ),
    "a second completion overwrites the first": (
        Change(
            "perdure._stores.sqlite.mail",
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET exit = excluded.exit",
        ),
    ),
    "a completion whose answer was lost is taken for another one's": (
        Change(
            "perdure._engine.requests",
            "self._post(sent)",
            "self._post(sent._replace(sender=new_sender()))",
        ),
    ),
    "mail is read again by every kernel": (
        Change(
            "perdure._kernel.letter",
            "self._read = {(entry.kind, told_apart(entry)) for entry in recorded} if recorded else set[tuple[str, str]]()",
            "self._read = set()",
        ),
    ),
    "an interrupt is delivered twice": (
        Change(
            "perdure._kernel.letter",
            "        if told in self._read:\n",
            "        if told in self._read and event.kind is not Kind.INTERRUPT:\n",
        ),
    ),
    "what has come is not fed in the order of its instants": (
        Change("perdure._engine.inbox", "        dated.sort(key=lambda pair: pair[0])\n", ""),
    ),
    "a deadline is early": (
        Change("perdure._stores.sqlite.interrupt", "AND expires_at <= ?", "AND expires_at <= ? + 60000"),
        Change("perdure._engine.wakes", "self._next_wake <= now:", "self._next_wake <= now + 60_000:"),
    ),
    "a deadline does nothing to what was interrupted before": (
        Change(
            "perdure._stores.sqlite.interrupt",
            "MailKind.INTERRUPT, DEADLINE_NAME, exit_",
            'MailKind.INTERRUPT, "", exit_',
        ),
    ),
    "what a body does to others is done again by every replay": (
        Change("perdure._kernel.draft", "if self.marked(Kind.ACT, name, occurrence) is None:", "if True:"),
    ),
    # Children.
    "a child that ends before its parent waits for it is waited for without end": (
        Change(
            "perdure._stores.sqlite.acts",
            "        elif child.status not in FINAL:\n            waiter.join(",
            "        elif True:\n            waiter.join(",
        ),
    ),
    "a child that ends before it has begun tells nobody": (
        Change(
            "perdure._stores.sqlite.interrupt",
            "    if row.waiters:\n        waiter.tell_end(",
            "    if False:\n        waiter.tell_end(",
        ),
    ),
    "a child that its parent leaves runs on": (
        Change("perdure._stores.sqlite.acts", "if child.parent == self._id and not", "if False and not"),
    ),
    "a child that somebody else waits for is interrupted": (
        Change("perdure._stores.sqlite.acts", "and not waiter.is_wanted(self._connection, child, me):", "and True:"),
    ),
    "compensations do not wait for the children that were left": (
        Change(
            "perdure._kernel.finish",
            "if self._holds or self._host.guarded or (self._steps.leaving and self._host.stack):",
            "if self._holds or self._host.guarded:",
        ),
    ),
    # Ends.
    "compensations run in the order in which they were registered": (
        Change("perdure._kernel.ending", "return self._stack.pop()[1]", "return self._stack.pop(0)[1]"),
    ),
    "what has succeeded is undone": (
        Change("perdure._kernel.finish", "if self.ending.failed or not finalizer.only_after_failure:", "if True:"),
        Change(
            "perdure._definitions.scope",
            "            if isinstance(exit, Failure):\n                await _awaitable(compensate(value, exit.cause), label)\n",
            "            await _awaitable(compensate(value, getattr(exit, 'cause', None)), label)\n",
        ),
    ),
    "an attempt with a compensation is cut in half": (
        Change(
            "perdure._kernel.host",
            "if call.guard is not None and self._has_begun(call) and self._steps.waits(call):",
            "if False:",
        ),
    ),
    "a step that was registered late is not undone": (
        Change(
            "perdure._definitions.scope",
            "                self.register(value, self._place)\n",
            "                pass\n",
        ),
    ),
    "what loses a race is recorded": (
        Change("perdure._kernel.kernel", "if call is None and not self._is_orphan(event):", "if False:"),
    ),
    "a life has the fence of the one before": (
        Change("perdure._stores.sqlite.life", "fence = fence + 1, owner", "fence = fence, owner"),
    ),
    "what a life had not seen is left behind": (
        Change(
            "perdure._stores.sqlite.life",
            "OR wake > ?3 AND kind IN ('message', 'deferred', 'interrupt'))",
            "OR 0 * ?3)",
        ),
    ),
    "one that has succeeded is restarted": (
        Change("perdure._stores.sqlite.life", "{Status.FAILED, Status.INTERRUPTED}", "{*Status}"),
    ),
    "a second start is taken for the first": (
        Change(
            "perdure._stores.sqlite.commit",
            "        if incarnation != start.incarnation:\n            return self._judge_meeting(one, start)\n",
            "",
        ),
    ),
    # Operations.
    "a rewind leaves completions behind": (
        Change(
            "perdure._engine.lives", "if letter.kind in _KEPT or _place(letter) in read]", "if _place(letter) in read]"
        ),
    ),
    "a rewound life draws otherwise": (
        Change("perdure._engine.lives", "seed=record.seed or record.incarnation,", "seed=record.incarnation,"),
    ),
    "one that goes on is rewound": (
        Change("perdure._engine.lives", "if not is_final(record.status) and record.held is None:", "if False:"),
        Change(
            "perdure._stores.sqlite.life",
            "!= (before, wakes) or not (row.status in FINAL or row.status == HELD):",
            "!= (before, wakes):",
        ),
    ),
    "who waits for one that is held is forgotten by a rewind": (
        Change("perdure._stores.sqlite.life", "waiters = row.waiters if row.status == HELD else 0", "waiters = 0"),
    ),
    "a fork undoes what the original has done": (
        Change("perdure._engine.lives", "mark = FORKED if compensates else WITHOUT_COMPENSATIONS", "mark = FORKED"),
    ),
    "a fork has none of the mail that was read": (Change("perdure._engine.lives", "        letters=letters,\n", ""),),
}
