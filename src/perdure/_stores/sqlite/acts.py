"""What the commits of a batch do to others, once all that they say of themselves is written.

They act in the order of the batch, each on rows as they stand then: whoever has suspended in this batch is woken by
whoever ends in it, wherever the two stand. Nothing is decided here by what a row was before the batch. What a commit
says of itself (its incarnation, its exit) is taken from the commit: a neighbour may have begun its next life already.
"""

from collections.abc import Mapping
from typing import Final

from perdure._model.records import (
    INTERRUPTED,
    Acts,
    Answer,
    Commit,
    ExecutionId,
    Mail,
    MailKind,
    Met,
    Receipt,
    Start,
    payload_name,
)
from perdure._model.status import FINAL
from perdure._stores.sqlite import interrupt, life, timer, waiter
from perdure._stores.sqlite.birth import detached, starting
from perdure._stores.sqlite.driver import Connection, select
from perdure._stores.sqlite.listing import publish
from perdure._stores.sqlite.mail import Standing, find
from perdure._stores.sqlite.rows import HELD, read_attributes, write_attributes
from perdure._values.instant import Instant

_EXIT: Final = "SELECT exit FROM perdure_executions WHERE n = ?"
_ATTRIBUTES: Final = "SELECT attributes FROM perdure_executions WHERE n = ?"
_SET_ATTRIBUTES: Final = "UPDATE perdure_executions SET attributes = ?, changed_at = ? WHERE n = ?"


class Performance:
    """What one commit does to others."""

    def __init__(self, connection: Connection, one: Commit, now: Instant) -> None:
        self._connection = connection
        self._one = one
        self._now = now
        self._id = bytes.fromhex(one.execution_id)
        self._stirs = False  # whether anybody has been given something to do
        self._receipts: list[Receipt] = []
        self._met: list[Met] = []

    def answer(self, answer: Answer, *, has_left: bool) -> Answer:
        """Do it all; `has_left`: the commit has taken the execution out of its owner's hands."""
        acts = self._one.acts
        if acts is not None:
            self._act(acts)
        if has_left:
            self._tell()
        me = self._me()
        # By its acts its own mail may have grown: what it has sent itself, or a child that had ended before it was asked for.
        wakes = answer.wakes if me is None or acts is None else me.wakes
        if acts is not None and acts.next is not None and me is not None:
            kept = [(mail.kind, mail.name) for mail in acts.mail if mail.execution_id == self._one.execution_id]
            life.go_on(self._connection, me, self._one.seen, acts.next, self._now, kept=kept)
            self._stirs = True
        return Answer(answer.verdict, wakes, self._stirs, tuple(self._receipts), tuple(self._met))

    def _act(self, acts: Acts) -> None:
        for start in acts.starts:
            self._start(start)
        for start in acts.repeats:
            self._repeat(start)
        for start in acts.children:
            self._wait_for(start)
        for execution_id in acts.leaves:
            self._leave(execution_id)
        for start in acts.rejoins:
            self._wait_for(start)
        for start in acts.compares:
            self._compare(start)
        for mail in acts.mail:
            delivered = interrupt.deliver_one(self._connection, mail, self._now, self._now)
            self._receipts.append(delivered.receipt)
            self._stirs |= delivered.stirs
        for execution_id in acts.resumes:
            self._stirs |= timer.free(self._connection, execution_id, self._now)
        if acts.attributes:
            self._set(acts.attributes)
        for name, value in acts.published.items():
            publish(self._connection, (self._one.incarnation, name), value, self._now)

    def _tell(self) -> None:
        one = self._one
        if one.status in FINAL:
            self._stirs |= waiter.tell_end(self._connection, self._id, one.incarnation, one.exit or b"", self._now)
        elif one.held is not None:
            self._stirs |= waiter.tell_held(self._connection, self._id, one.incarnation, self._now)

    def _me(self) -> Standing | None:
        row = find(self._connection, self._id)
        return row if row is not None and row.incarnation == self._one.incarnation else None

    def _start(self, start: Start) -> bytes | None:
        """Let an execution be born, or begin its next life, or leave it as it is; then its payload, if it is another one."""
        row = find(self._connection, bytes.fromhex(start.execution_id))
        if row is None:
            self._connection.execute(starting(1), detached(start, self._now))
        elif life.may_restart(self._connection, row, start):
            life.restart(self._connection, row, start, self._now)
        else:
            return self._meet(row, start)
        self._stirs = True
        return None

    def _repeat(self, start: Start) -> None:
        """Look at what was started before. Where there is nothing it has ended and was removed: it does not begin again."""
        row = find(self._connection, bytes.fromhex(start.execution_id))
        if row is not None:
            self._meet(row, start)

    def _meet(self, row: Standing, start: Start) -> bytes | None:
        """Note that a start has met an execution with another payload; that payload, None: it is the same."""
        met = life.met(self._connection, row, start)
        if met is None:
            return None
        self._met.append(met)
        return met.payload

    def _wait_for(self, start: Start) -> None:
        id_ = bytes.fromhex(start.execution_id)
        me, child = self._me(), find(self._connection, id_)
        if me is None:
            return
        # A mailbox has one letter about each child's end. Who has it would never hear of another life's.
        if child is not None and child.status in FINAL and waiter.was_told(self._connection, me, id_):
            payload = self._meet(child, start)
        else:
            payload = self._start(start)
            child = find(self._connection, id_)
        if child is None:
            return
        if payload is not None and start.strict:
            self._tell_payload(me, start, payload)
        elif child.status not in FINAL:
            waiter.join(self._connection, child, me, self._now)
        else:
            exit_ = select(self._connection, _EXIT, (child.n,))[0][0]
            mail = Mail("", MailKind.CHILD, id_.hex(), exit_ or b"")
            self._stirs |= waiter.tell(self._connection, me, mail, self._now)

    def _compare(self, start: Start) -> None:
        me, row = self._me(), find(self._connection, bytes.fromhex(start.execution_id))
        if me is not None:
            met = None if row is None else life.met(self._connection, row, start)
            self._tell_payload(me, start, start.payload if met is None else met.payload)

    def _tell_payload(self, me: Standing, start: Start, payload: bytes) -> None:
        mail = Mail("", MailKind.PAYLOAD, payload_name(start), payload)
        self._stirs |= waiter.tell(self._connection, me, mail, self._now)

    def _leave(self, execution_id: ExecutionId) -> None:
        me, child = self._me(), find(self._connection, bytes.fromhex(execution_id))
        if me is None or child is None or child.status in FINAL:
            return  # of its end it has been told
        if not waiter.leave(self._connection, child, me, self._now):
            return  # it does not wait, or this is a repeat
        if child.parent == self._id and not waiter.is_wanted(self._connection, child, me):
            if child.status != HELD and interrupt.was_asked(self._connection, child, self._now):
                # A family has one deadline, as a rule: what a child does about its own is not cut off by its parent's.
                return
            mail = Mail(execution_id, MailKind.INTERRUPT, "", INTERRUPTED)
            delivered = interrupt.interrupt(self._connection, child, mail, self._now, self._now)
            self._stirs |= delivered.stirs
            # Held, and not moved by it: nobody knows when it ends.
            if delivered.stirs or child.status != HELD:
                return
        self._stirs |= waiter.tell_freed(self._connection, me, child, self._now)

    def _set(self, changes: Mapping[str, str | int | float | bool | None]) -> None:
        me = self._me()
        if me is None:
            return
        attributes = dict(read_attributes(select(self._connection, _ATTRIBUTES, (me.n,))[0][0]))
        for name, value in changes.items():
            if value is None:
                attributes.pop(name, None)
            else:
                attributes[name] = value
        self._connection.execute(_SET_ATTRIBUTES, (write_attributes(attributes), self._now, me.n))
