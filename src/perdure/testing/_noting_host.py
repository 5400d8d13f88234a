"""A noting host: what a body does to others, with the place in its author's code at which it did.

A step that is waited for can be found when the body stands: it stands there. What is done with the turn and never waited
for (a start, something shown, a token) has no such place, so it is noted when it is done.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, cast

from perdure._definitions import ambient
from perdure._definitions.host import Call, Host
from perdure._kernel import loop
from perdure._kernel.draft import Draft
from perdure._model.journal import Kind

# What stands between an author's line and the host: a definition, in this package.
_PACKAGE: Final = str(Path(loop.__file__).parent.parent)


class Done(NamedTuple):
    """Where something was done that is recorded."""

    # Empty, if that cannot be told.
    where: str
    # After which entry.
    after: int


@dataclass(slots=True)
class Notes:
    """What was noted of one body."""

    # What was done, by the seq of what was drafted.
    done: dict[int, Done] = field(default_factory=dict[int, Done])
    # Where a call was made, by kind, name and occurrence.
    made: dict[tuple[str, str, int], str] = field(default_factory=dict[tuple[str, str, int], str])


class NotingHost:
    """The host of a body, with a note of everything that it drafts. What it does not know it leaves to the real one."""

    def __init__(self, host: Host, draft: Draft, notes: Notes) -> None:
        self._host: Final = host
        self._draft: Final = draft
        self._notes: Final = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def count_call(self, name: str, input: bytes, /) -> tuple[int, int, int]:
        """Count a call of an activity, which is made where its author wants it, and may be awaited by a task without a line."""
        counted = self._host.count_call(name, input)
        self._notes.made[Kind.ACTIVITY, name, counted[0]] = _place(2)
        return counted

    def start(self, *asked: Any) -> None:
        """Start an execution, detached."""
        before = self._draft.seq
        self._host.start(*asked)
        self._note(before)

    def act(self, *asked: Any) -> None:
        """Do something to others."""
        before = self._draft.seq
        self._host.act(*asked)
        self._note(before)

    def ask(self, call: Call, /) -> Any:
        """Ask for a step; of a child it is drafted that it was begun."""
        before = self._draft.seq
        future = self._host.ask(call)
        self._note(before)
        return future

    def _note(self, before: int) -> None:
        if self._draft.seq > before:
            self._notes.done[self._draft.seq] = Done(_place(3), self._draft.fed_seq)


def be_noted(host: Host, draft: Draft, notes: Notes) -> None:
    """Let what runs in this context, a body that is about to be made, be noted."""
    ambient.host.set(cast("Host", NotingHost(host, draft, notes)))


def _place(depth: int) -> str:
    """The author's line that has led here, as `file:line in function`; empty if none has: a task that the body made."""
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - `inspect.stack` reads every source
    # Below the body's loop stands whoever has called the check.
    while frame is not None and frame.f_code.co_filename != loop.__file__:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        frame = frame.f_back
    return ""
