"""A rerun: a recorded execution on a kernel of its own, and where the same code goes another way than its record.

Nothing may differ then: each entry must find the very call that it was written for, at its place; what is done to others
must be what was done; and the end must be the recorded one. What changed code may do is another question (`_change`).
"""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple, Self, cast

from perdure._definitions.host import Call
from perdure._definitions.workflow import WorkflowImplementation
from perdure._engine.settings import Settings
from perdure._engine.standing import judge_of, standing_of
from perdure._facade import WorkflowEngine
from perdure._kernel.children import Inherited
from perdure._kernel.divergence import divergence_error
from perdure._kernel.event import Origin
from perdure._kernel.frames import place_of
from perdure._kernel.host import LoopTimer
from perdure._kernel.kernel import Kernel
from perdure._model.journal import FORKS, MARKERS, Entry, Kind
from perdure._model.records import Record
from perdure._model.status import Status, is_final
from perdure._values.instant import Instant
from perdure.errors import NonDeterminismError
from perdure.testing._signer import with_keys

# Of a journal without its engine: what an engine allows that is told nothing.
_PAYLOAD_LIMIT: Final = Settings().payload_limit

Implementation = WorkflowImplementation[..., Any]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded execution: all that a rerun needs, and what it must come to."""

    execution_id: str
    workflow: str
    number: int
    incarnation: bytes
    # What its chance is drawn from, where that is not its incarnation.
    seed: bytes | None
    began_at: Instant
    changed_at: Instant
    priority: int
    deadline: Instant | None
    payload: bytes
    status: str
    held: str | None
    waits: bytes | None
    exit: bytes | None
    payload_limit: int
    entries: list[Entry]

    @classmethod
    def of(cls, record: Record, entries: list[Entry], payload_limit: int = _PAYLOAD_LIMIT) -> Self:
        """The recording of an execution that has begun."""
        assert record.began_at is not None
        return cls(
            execution_id=record.execution_id,
            workflow=record.workflow,
            number=record.number,
            incarnation=record.incarnation,
            seed=record.seed,
            began_at=record.began_at,
            changed_at=record.changed_at,
            priority=record.priority,
            deadline=record.deadline,
            payload=record.payload,
            status=record.status,
            held=record.held,
            waits=record.waits,
            exit=record.exit,
            payload_limit=payload_limit,
            entries=entries,
        )

    def to_plain(self) -> dict[str, Any]:
        """For another process, as JSON can have it."""
        plain = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        return {**plain, "entries": [[_plain(value) for value in entry] for entry in self.entries]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` has made."""
        entries = [Entry(*map(_read, entry)) for entry in plain["entries"]]
        return cls(**{name: _read(value) for name, value in plain.items() if name != "entries"}, entries=entries)

    @property
    def waited_for(self) -> list[tuple[str, str]] | None:
        """Kind and name of what it waited for when it was suspended; None: nobody knows."""
        if self.status != Status.SUSPENDED or self.held is not None or self.waits is None:
            return None
        return sorted((wait["kind"], wait["name"]) for wait in json.loads(self.waits))


def _plain(value: Any) -> Any:
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _read(value: Any) -> Any:
    return base64.b64decode(cast("dict[str, str]", value)["bytes"]) if isinstance(value, dict) else value


async def journal_of(engine: WorkflowEngine, record: Record) -> list[Entry]:
    """The journal as the store has it."""
    service = engine._service  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    [history] = await engine._ask(service.store.load, [(record.incarnation, 0, 0)])  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return history.entries


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Where code and record go different ways: the facts of a `NonDeterminismError`."""

    message: str
    step: str = ""
    entry: int | None = None
    recorded_input: str | None = None
    asked_input: str | None = None
    # File and line, as in `orders.py:31 in process_order`.
    where: str = ""

    @classmethod
    def at_step(cls, workflow: str, call: Call, entry: Entry, place: str) -> Self:
        """A call that is answered by no entry, beside an entry that answers no call."""
        error = divergence_error(workflow, call, entry, place)
        return cls.of_error(error)

    @classmethod
    def of_error(cls, error: NonDeterminismError) -> Self:
        """The facts of an error, without its advice, which is for an execution that is held."""
        kept = [line for line in str(error).splitlines() if not line.startswith("Nothing was given out.")]
        return cls(
            message="\n".join(kept),
            step=error.step,
            entry=error.entry,
            recorded_input=error.recorded_input,
            asked_input=error.asked_input,
            where=error.where,
        )

    def to_plain(self) -> dict[str, Any]:
        """As JSON can have it."""
        return asdict(self)


class End(NamedTuple):
    """What a rerun of the same code has come to."""

    disagreement: Disagreement | None
    # What it waits for, in the order in which it was asked for: kind, name, occurrence, input.
    asked: list[tuple[str, str, int, str]]


class ReplayKernel(Kernel):
    """A kernel that looks, in front of every entry, whether code and record still go one way.

    Attributes:
        strayed: The first entry that did not find the call that it was written for.
        diverged: The first place at which an execution that had come as far would be held.
    """

    __slots__ = ("diverged", "strayed")

    def __init__(self, recording: Recording, history: list[Entry], implementation: Implementation) -> None:
        self.strayed: Disagreement | None = None
        self.diverged: Disagreement | None = None
        origin = Origin(
            recording.execution_id,
            recording.number,
            recording.workflow,
            recording.seed or recording.incarnation,
            recording.began_at,
            unborn=False,
            incarnation=recording.incarnation,
            priority=recording.priority,
            deadline=recording.deadline,
        )
        limit = recording.payload_limit
        super().__init__(origin, history, judge=judge_of(implementation, limit), payload_limit=limit)
        if origin.seed != origin.incarnation:
            # From the whole journal: what was done to others is kept back from the kernel.
            self._host.inherited = Inherited(recording.entries, self.steps.copied)

    def _feed(self, entry: Entry, call: Call | None, value: Any = None, *, has_value: bool = False) -> None:
        if self.diverged is None and self.steps.kept and (found := self.steps.divergence()) is not None:
            self.diverged = Disagreement.at_step(self._origin.workflow, *found, self.place(found[0]))
        # What a fork has copied was asked with other words, and only has to be asked (R49).
        if self.strayed is None and not _is_for(entry, call) and (call is None or entry.seq > self.steps.copied):
            self.strayed = self._stray(entry)
        super()._feed(entry, call, value, has_value=has_value)

    def _stray(self, entry: Entry) -> Disagreement:
        """Whom it finds instead: the call in its place, else another one of its name, else nobody."""
        named = [call for call in self.steps.waiting.values() if (call.kind, call.name) == (entry.kind, entry.name)]
        named.sort(key=lambda call: call.occurrence != entry.occurrence)
        if named:
            return Disagreement.at_step(self._origin.workflow, named[0], entry, self.place(named[0]))
        waiting = list(self.steps.waiting.values())
        asked = ", ".join(f"{call.kind} {call.name!r}" for call in waiting[:5]) or "nothing"
        place = next((place for call in waiting if (place := self.place(call))), "")
        at = f"\n  at {place}" if place else ""
        return Disagreement(
            message=f"The body of {self._origin.workflow!r} does not ask for what its journal has recorded.\n"
            f"  recorded: {entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq})\n"
            f"  asked:    {asked}{at}",
            step=f"{waiting[0].kind}/{waiting[0].name}#{waiting[0].occurrence}" if waiting else "",
            entry=entry.seq,
            recorded_input=entry.input.decode("utf-8", "replace"),
            where=place,
        )

    def left_over(self, recording: Recording) -> list[Entry]:
        """Entries that nobody has asked for: kept ones, and those that come when the body has ended already."""
        unfed = [entry for entry in recording.entries if entry.kind not in MARKERS and entry.seq > self._draft.fed_seq]
        return [*self.steps.kept, *unfed]

    def place(self, call: Call) -> str:
        """Where in the body a call is awaited; empty if it cannot be told."""
        if isinstance(call, LoopTimer):
            return self._place_of_timer(call.handle)
        return self._loop.place_of(call.future) if call.future is not None else ""

    def _place_of_timer(self, handle: asyncio.TimerHandle) -> str:
        """Where the task stands that a timer of the loop is for: inside `asyncio.timeout`, or waiting in asyncio."""
        # asyncio has no other way to tell whose timer it is. A private name that is gone costs the line, not the check.
        callback: Any = getattr(handle, "_callback", None)
        args: tuple[Any, ...] = getattr(handle, "_args", None) or ()
        if isinstance(owner := getattr(callback, "__self__", None), asyncio.Timeout):
            task: asyncio.Task[Any] | None = getattr(owner, "_task", None)
            return "" if task is None else place_of(task.get_coro())
        futures: list[asyncio.Future[Any]] = [each for each in args if isinstance(each, asyncio.Future)]
        return self._loop.place_of(futures[0]) if futures else ""

    def unreadable(self) -> Disagreement | None:
        """Why it has not come to rest, where code and journal are not to blame."""
        if self.trouble is None or isinstance(self.trouble.error, NonDeterminismError) or self.ending is not None:
            return None
        return Disagreement(message=f"The body of {self._origin.workflow!r} cannot be replayed: {self.trouble.error}")


def _is_for(entry: Entry, call: Call | None) -> bool:
    asked = None if call is None else (call.name, call.occurrence, call.attempt, call.input)
    attempt = entry.attempt if entry.kind == Kind.ACTIVITY else (1 if call is None else call.attempt)
    return asked == (entry.name, entry.occurrence, attempt, entry.input)


def rerun(recording: Recording, implementation: Implementation) -> End:
    """Run the same code again, and compare everything."""
    # Without what it has done to others: then it does it again, and that must be the same.
    done = [entry for entry in recording.entries if is_done_to_others(entry)]
    kernel = begun(recording, [entry for entry in recording.entries if not is_done_to_others(entry)], implementation)
    try:
        asked = [
            (str(call.kind), call.name, call.occurrence, call.input.decode("utf-8", "replace"))
            for call in kernel.steps.waiting.values()
        ]
        return End(_difference(kernel, recording, done, implementation), asked)
    finally:
        kernel.close()


def is_done_to_others(entry: Entry) -> bool:
    """Whether an entry says that something was started, or done to others or shown."""
    return entry.kind == Kind.START or (entry.kind == Kind.ACT and entry.name not in FORKS)


def begun(recording: Recording, history: list[Entry], implementation: Implementation) -> ReplayKernel:
    """A kernel that has been fed a recorded journal; to be closed."""
    kernel = ReplayKernel(recording, history, implementation)
    kernel.begin(with_keys(lambda: implementation.make_body(recording.payload, recording.execution_id)), history)
    return kernel


def _difference(
    kernel: ReplayKernel, recording: Recording, done: list[Entry], implementation: Implementation
) -> Disagreement | None:
    if kernel.strayed is not None:
        return kernel.strayed
    if (unreadable := kernel.unreadable()) is not None:
        return unreadable
    if left_over := kernel.left_over(recording):
        entry, where = left_over[0], definition_of(implementation)
        return Disagreement(
            message=f"The body of {recording.workflow!r} ends before it has asked for all that its journal has recorded.\n"
            f"  recorded: {entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq})\n  at {where}",
            entry=entry.seq,
            recorded_input=entry.input.decode("utf-8", "replace"),
            where=where,
        )
    if (other := _other_record(kernel, done)) is not None:
        entry, what = other
        where = definition_of(implementation)
        return Disagreement(
            message=f"A replay of {recording.workflow!r} {what}: {entry.kind} {entry.name!r}"
            f"{f' ({entry.input.decode()})' if entry.input else ''}.\n  at {where}",
            entry=entry.seq if entry in done else None,
            where=where,
        )
    return other_end(kernel, recording, implementation)


def _other_record(kernel: ReplayKernel, done: list[Entry]) -> tuple[Entry, str] | None:
    """What it records that is not recorded, or does not record that is."""
    written = list(kernel.take_written()[0])
    recorded = Counter(map(deed, done))
    for entry in written:
        step = deed(entry)
        if not recorded[step]:
            return entry, "records what its journal does not have"
        recorded[step] -= 1
    left = [entry for entry in reversed(done) if recorded[deed(entry)]]
    return (left[-1], "does not do what its journal has recorded") if left else None


def deed(entry: Entry) -> tuple[str, str, bytes]:
    """What is done to others, as it is told apart: an act by its name, which says everything."""
    return entry.kind, entry.name, b"" if entry.kind == Kind.ACT else entry.input


def other_end(kernel: ReplayKernel, recording: Recording, implementation: Implementation) -> Disagreement | None:
    """Another end than the recorded one. What is held is resumed by its replay, and has no end to compare."""
    standing = standing_of(kernel, implementation, now=recording.changed_at, busy=False)
    waited = recording.waited_for
    recorded = told = ""
    if kernel.continues and recording.status == Status.SUCCEEDED and not recording.exit:
        pass  # a life that went on as another one: it has no exit of its own
    elif is_final(Status(recording.status)):
        if standing.status != recording.status or not same_exit(standing.exit, recording.exit):
            recorded = f"{recording.status} {_shown(recording.exit)}"
            told = f"{standing.held or standing.status} {_shown(standing.exit)}"
    elif recording.held is None and kernel.ended:
        recorded, told = recording.status, f"{standing.status} {_shown(standing.exit)}"
    elif waited is not None:
        waits = sorted((wait["kind"], wait["name"]) for wait in json.loads(standing.waits or b"[]"))
        if waits != waited:
            recorded, told = f"waits for {waited}", f"waits for {waits}"
    if not recorded:
        return None
    where = next((place for call in kernel.steps.waiting.values() if (place := kernel.place(call))), "")
    where = where or definition_of(implementation)
    return Disagreement(
        message=f"The body of {recording.workflow!r} comes to another end than the recorded one.\n"
        f"  recorded: {recorded}\n  replayed: {told}\n  at {where}",
        where=where,
    )


def same_exit(one: bytes | None, other: bytes | None) -> bool:
    """Whether two encoded exits say the same; a traceback's lines move with every edit."""
    return one == other or (one is not None and other is not None and _told(one) == _told(other))


def _told(exit: bytes) -> Any:
    try:
        return json.loads(exit, object_hook=lambda said: {**said, "traceback": ""} if "traceback" in said else said)
    except ValueError:
        return exit


def _shown(exit: bytes | None) -> str:
    text = (exit or b"").decode("utf-8", "replace")
    return text if len(text) <= 300 else f"{text[:300]}…"


def definition_of(implementation: Implementation) -> str:
    """Where a body is defined, as `file:line in function`; empty if it cannot be told."""
    code = getattr(getattr(implementation, "__wrapped__", None), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno} in {code.co_qualname}"
