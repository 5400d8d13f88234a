"""How a body comes to its end, step by step: what it left behind, then what stands on its stack (R27, R31, R46).

First the body's own task ends, or an interrupt makes it. What it left behind is cancelled, and what
that asks for has no effect. Attempts that are not cut in half are waited for, and so are children
that were interrupted, if there is something to be undone after them. Then the stack is run, the
highest first, each finalizer in a task of its own, whose steps are steps like the body's. One that
fails stops it there, until somebody resumes it or passes it over.
"""

import asyncio
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, cast

from perdure._definitions.host import ContinueAsNew, Finalizer
from perdure._kernel.draft import Draft
from perdure._kernel.ending import Ending, Judge
from perdure._kernel.event import Trouble
from perdure._kernel.host import BodyHost
from perdure._kernel.loop import KernelLoop, KernelTask
from perdure._kernel.matching import Steps
from perdure._model.journal import Entry, Kind
from perdure._model.records import Acts, ExecutionId, Mail, MailKind, message_name
from perdure._model.status import Held
from perdure._values.exit import Exit
from perdure.errors import Defect, UsageError


class Phase(IntEnum):
    """How far an execution has come, as its kernel sees it."""

    BODY = 0  # the body runs
    LEAVING = 1  # it has ended; what it left behind ends
    UNWINDING = 2  # the stack is run
    OVER = 3  # all of it is done


class Finish:
    """The end of one body."""

    __slots__ = (
        "_draft", "_execution_id", "_fallen", "_finalizer", "_host", "_judge", "_label", "_loop", "_phase", "_steps",
        "ending", "interrupted", "main", "voids",
    )  # fmt: skip

    def __init__(
        self, execution_id: ExecutionId, host: BodyHost, loop: KernelLoop, steps: Steps, draft: Draft, *, judge: Judge
    ) -> None:
        self._execution_id = execution_id
        self._host = host
        self._loop = loop
        self._steps = steps
        self._draft = draft
        self._judge = judge
        self._phase = Phase.BODY
        # The body's task; None before it has begun.
        self.main: KernelTask | None = None
        # The exit with which the body ends if it lets the interrupt end it; None: it was not interrupted (R29).
        self.interrupted: bytes | None = None
        # What the body has come to; None while it runs, and for good where it goes on as a new life (R37).
        self.ending: Ending | None = None
        # The finalizer that runs, or has failed; and, for those who look, what it undoes.
        self._finalizer: KernelTask | None = None
        self._label: str | None = None
        # Recorded failures that it was told of, and those of them that count no more when it is resumed (R28).
        self._fallen: list[tuple[int, BaseException]] = []
        self.voids: list[int] = []

    @property
    def undoing(self) -> list[str]:
        """What is being undone at this moment, or has failed to be."""
        return [] if self._finalizer is None or self._label is None else [self._label]

    @property
    def in_body(self) -> bool:
        """Whether the body has not ended."""
        return self._phase is Phase.BODY

    @property
    def unwinds(self) -> bool:
        """Whether the stack is being run."""
        return self._phase is Phase.UNWINDING

    @property
    def over(self) -> bool:
        """Whether all is done."""
        return self._phase is Phase.OVER

    @property
    def _holds(self) -> bool:
        """Whether the body's failure holds the execution instead of ending it (R35, R36)."""
        return self.ending is not None and self.ending.held is not None

    def further(self) -> bool:
        """Take the next step, once the body's task is done; False: something has to come first, or all is done."""
        match self._phase:
            case Phase.BODY:
                self._end_body()
                return True
            case Phase.LEAVING:
                if self._holds or self._host.guarded or (self._steps.leaving and self._host.stack):
                    return False
                self._phase = Phase.UNWINDING
                self._host.unwinds = True
                return True
            case Phase.UNWINDING:
                return self._unwind()
            case Phase.OVER:
                return False

    # The body ------------------------------------------------------------------------------------

    @property
    def may_be_interrupted(self) -> bool:
        """Whether an interrupt says anything: the body runs, or has failed and is held with that (R29, R36)."""
        return self.in_body or self._holds

    def interrupt(self, exit: bytes) -> None:
        """Cancel the body, once. It may do what it likes about it."""
        self.interrupted = exit
        if self.ending is not None:
            # Its failure is what it ends with now, after compensations (R36).
            self.ending = self.ending._replace(held=None)
            return
        assert self.main is not None
        with self._loop.scheduling():
            self.main.cancel()
            # Or a TaskGroup or a timeout that the body enters afterwards would take itself for cancelled.
            self.main.uncancel()

    def _end_body(self) -> None:
        """What the body left behind is cancelled, and what that asks for has no effect (R46)."""
        self._phase = Phase.LEAVING
        self._loop.cancel_tasks()
        assert self.main is not None
        failure = asyncio.CancelledError() if self.main.cancelled() else self.main.exception()
        if self._host.next is not None and _goes_on(failure):
            if not self._host.has_to_undo:
                self._go_on_as_new()
                return
            # Registered on the way out, in a `finally`: dropped without a word, it would never be done.
            failure = UsageError(
                "This body has registered finalizers or compensations after it had asked to go on as new; the next life "
                "would know nothing of them, so this one ends with this error instead, and they are run."
            )
        value = self.main.result() if failure is None else None
        self.ending = self._judge(value, failure, self.interrupted)

    def _go_on_as_new(self) -> None:
        """End this life only: the next one begins in its place, with the mail that nobody has taken (R37)."""
        start = self._host.next
        untaken = [_mail_again(self._execution_id, one) for one in self._steps.untaken()]

        def perform(acts: Acts) -> None:
            acts.next = start
            acts.mail += untaken

        self._draft.act("continue_as_new", 1, perform)

    # The stack -----------------------------------------------------------------------------------

    def _unwind(self) -> bool:
        """Run the next finalizer; False: one is running or has failed, or it was the last."""
        running, stack = self._finalizer, self._host.stack
        if running is not None:
            if not running.done() or running.cancelled() or running.exception() is not None:
                return False
            self._finalizer = None
            self._loop.cancel_tasks()
            return True
        if stack and self.ending is not None:
            finalizer = stack.pop()
            if self.ending.failed or not finalizer.only_after_failure:
                self._begin(finalizer, self.ending.told)
            return True
        self._phase = Phase.OVER
        return False

    def _begin(self, finalizer: Finalizer, exit: Exit[Any]) -> None:
        assert self.main is not None
        self._fallen.clear()
        with self._loop.scheduling():
            task = self._loop.create_task(_run(finalizer, exit), context=self.main.context)
        self._label = finalizer.label if finalizer.only_after_failure else None
        # What it asks for has effect, and nothing else.
        self._finalizer = self._host.main = task

    def skip(self) -> None:
        """Somebody has decided that the compensation which held it is passed over (R28)."""
        self._finalizer = None
        self.voids = []  # what it failed with is history from now on
        # What it still asks for has no effect: the body's task, which is done, is the one that counts.
        self._host.main = self.main
        # Also where it has failed: the tasks that it left would run on beside the next one.
        with self._loop.scheduling():
            self._loop.cancel_tasks()

    def note_failure(self, seq: int, error: BaseException) -> None:
        """A finalizer is told of a recorded failure; should it hold the execution, a resume has it tried again."""
        if self._phase is Phase.UNWINDING:
            self._fallen.append((seq, error))

    def trouble(self) -> Trouble | None:
        """The failure of the body, or of a finalizer, that holds the execution (R28, R35, R36)."""
        if self.ending is not None and self.ending.held is not None:
            return Trouble(self.ending.held, Defect("", ""), self.ending.exit)
        failed = self._finalizer
        if failed is None or not failed.done():
            return None
        error = asyncio.CancelledError() if failed.cancelled() else failed.exception()
        if error is None:
            return None
        chain = set(_chain(error))
        self.voids = [seq for seq, raised in self._fallen if id(raised) in chain]
        return Trouble(Held.COMPENSATION, error)


def _goes_on(failure: BaseException | None) -> bool:
    """Whether the body has asked to go on as new; in a TaskGroup that comes out as a group of one (R34)."""
    while isinstance(failure, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", failure)
        if len(group.exceptions) != 1:
            return False
        (failure,) = group.exceptions
    return isinstance(failure, ContinueAsNew)


async def _run(finalizer: Finalizer, exit: Exit[Any]) -> None:
    await finalizer.run(exit)


def _chain(error: BaseException) -> Iterator[int]:
    """The identities of an error and of everything that it comes from."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield id(one)
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", one).exceptions


def _mail_again(execution_id: ExecutionId, entry: Entry) -> Mail:
    """The letter that an entry was."""
    if entry.kind == Kind.MESSAGE:
        return Mail(execution_id, MailKind.MESSAGE, message_name(entry.name, entry.input.decode()), entry.exit)
    return Mail(execution_id, MailKind.DEFERRED, entry.name, entry.exit)
