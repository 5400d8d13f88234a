"""What the commits of a batch do to others, once all that they say of themselves is written.

They act in the order of the batch, each on rows as they stand then: whoever has suspended in this batch is woken by
whoever ends in it, wherever the two stand. Nothing is decided here by what a row was before the batch. What a commit
says of itself (its incarnation, its exit) is taken from the commit: a neighbour may have begun its next life already.
"""

from collections.abc import Mapping
from typing import Final

from perdure._model.records import INTERRUPTED, Acts, Answer, Commit, ExecutionId, Mail, MailKind, Receipt, Start
from perdure._model.status import FINAL
from perdure._stores.sqlite import interrupt, life, timer, waiter
from perdure._stores.sqlite.birth import START, detached
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

    def answer(self, answer: Answer, *, has_left: bool) -> Answer:
        """Do it all; `has_left`: the commit has taken the execution out of its owner's hands."""
        acts = self._one.acts
        if acts is not None:
            self._act(acts)
        if has_left:
            self._tell()
        # Its own mail may have grown: by what it has sent itself, or by a child that had ended before it was asked for.
        me = self._me()
        wakes = answer.wakes if me is None else me.wakes
        if acts is not None and acts.next is not None and me is not None:
            kept = [(mail.kind, mail.name) for mail in acts.mail if mail.execution_id == self._one.execution_id]
            life.go_on(self._connection, me, self._one.seen, acts.next, self._now, kept=kept)
            self._stirs = True
        return Answer(answer.verdict, wakes, self._stirs, tuple(self._receipts))

    def _act(self, acts: Acts) -> None:
        for start in acts.starts:
            self._start(start)
        for start in acts.children:
            self._wait_for(start)
        for execution_id in acts.leaves:
            self._leave(execution_id)
        for start in acts.rejoins:
            self._wait_for(start)
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

    def _start(self, start: Start) -> None:
        """Let an execution be born, or begin its next life, or leave it as it is."""
        row = find(self._connection, bytes.fromhex(start.execution_id))
        if row is None:
            self._connection.execute(START, detached(start, self._now))
        elif life.may_restart(self._connection, row, start):
            life.restart(self._connection, row, start, self._now)
        else:
            return
        self._stirs = True

    def _wait_for(self, start: Start) -> None:
        id_ = bytes.fromhex(start.execution_id)
        me, child = self._me(), find(self._connection, id_)
        if me is None:
            return
        # A mailbox has one letter about each child's end. Who has it would never hear of another life's.
        if child is None or child.status not in FINAL or not waiter.was_told(self._connection, me, id_):
            self._start(start)
            child = find(self._connection, id_)
        if child is None:
            return
        if child.status not in FINAL:
            waiter.join(self._connection, child, me, self._now)
            return
        exit_ = select(self._connection, _EXIT, (child.n,))[0][0]
        self._stirs |= waiter.tell(self._connection, me, Mail("", MailKind.CHILD, id_.hex(), exit_ or b""), self._now)

    def _leave(self, execution_id: ExecutionId) -> None:
        me, child = self._me(), find(self._connection, bytes.fromhex(execution_id))
        if me is None or child is None or child.status in FINAL:
            return  # of its end it has been told
        if not waiter.leave(self._connection, child, me, self._now):
            return  # it does not wait, or this is a repeat
        if child.parent == self._id and not waiter.is_wanted(self._connection, child, me):
            mail = Mail(execution_id, MailKind.INTERRUPT, "", INTERRUPTED)
            delivered = interrupt.interrupt(self._connection, child, mail, self._now, self._now)
            self._stirs |= delivered.stirs
            # Held though it has been interrupted before: nothing moves it now.
            if delivered.new or child.status != HELD:
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
