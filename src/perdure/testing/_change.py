"""A change: how today's code treats a recorded execution otherwise than the code that it ran on.

It may ask for more, or for less. What must not be is what would hold an execution in flight, or have it do something a
second time under another name.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from perdure._definitions.activity import ActivityCall
from perdure._definitions.clock import TimerCall
from perdure._definitions.host import Call
from perdure._kernel.event import Event
from perdure._model.journal import Entry, Kind
from perdure._model.status import Status, is_final
from perdure.errors import NonDeterminismError, PayloadError
from perdure.testing._rerun import Disagreement, Implementation, Recording, ReplayKernel, begun, other_end

# Steps that are taken as done in one rerun: a body that asks for new ones without end has to come to one here.
MOST_ANSWERED: Final = 1_000


class Change(NamedTuple):
    """How changed code treats a recorded execution otherwise than the code that it ran on."""

    # "diverges", "unreadable", "redone": it must not be. "new", "unasked", "end": it may be meant.
    sort: str
    told: Disagreement


def changes(
    recording: Recording, implementation: Implementation, new: Mapping[str, Any], removed: frozenset[str]
) -> list[Change]:
    """What today's code does otherwise; the first is the worst.

    Args:
        recording: The recorded execution.
        implementation: Today's code.
        new: What activities that the record does not have would answer, by name.
        removed: Names of steps that today's code leaves out on purpose.
    """
    kernel = begun(recording, recording.entries, implementation)
    try:
        if kernel.trouble is not None and isinstance(kernel.trouble.error, NonDeterminismError):
            return [Change("diverges", Disagreement.of_error(kernel.trouble.error))]
        if kernel.diverged is not None:
            return [Change("diverges", _in_flight(kernel.diverged))]
        if (unreadable := kernel.unreadable()) is not None:
            return [Change("unreadable", unreadable)]
        return [*_other_steps(kernel, recording, new, removed), *_ended_otherwise(kernel, recording, implementation)]
    finally:
        kernel.close()


def _in_flight(told: Disagreement) -> Disagreement:
    before = "" if told.entry is None else f"\n  an execution that has come as far as entry {told.entry} would be held"
    return replace(told, message=told.message + before)


def _other_steps(
    kernel: ReplayKernel, recording: Recording, new: Mapping[str, Any], removed: frozenset[str]
) -> list[Change]:
    """Steps that only the code has, and steps that only the journal has."""
    fresh = _answer_new(kernel, recording, new)
    if kernel.trouble is not None and isinstance(kernel.trouble.error, NonDeterminismError):
        return [Change("diverges", Disagreement.of_error(kernel.trouble.error))]
    kept = [entry for entry in kernel.left_over(recording) if entry.name not in removed]
    for entry in kept:
        for told in fresh:
            if told.step.startswith(f"{entry.kind}/"):
                return [Change("redone", _redone(recording, entry, told))]
    found = [Change("new", told) for told in fresh]
    found += [
        Change(
            "unasked",
            Disagreement(
                message=f"{entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq}), is recorded and no"
                " longer asked for.",
                entry=entry.seq,
                recorded_input=entry.input.decode("utf-8", "replace"),
            ),
        )
        for entry in kept
    ]
    return found


def _answer_new(kernel: ReplayKernel, recording: Recording, new: Mapping[str, Any]) -> list[Disagreement]:
    """Take new steps as done, as long as entries are left that may be asked for behind them; all new ones.

    Without that a step that was put in and one that was renamed would look alike: behind the one the old record is
    asked for as before, behind the other never.
    """
    known = recording.waited_for or []
    fresh: dict[tuple[str, str, int], Disagreement] = {}
    for _ in range(MOST_ANSWERED):
        answerable: Event | None = None
        for call in kernel.steps.waiting.values():
            place = (call.kind, call.name, call.occurrence)
            if (call.kind, call.name) in known or place in fresh:
                continue
            # Of one that has not ended some are not new, they are under way. Only beside an untaken record it matters.
            if is_final(Status(recording.status)) or kernel.steps.kept:
                fresh[place] = _new(kernel, call)
        if not kernel.steps.kept or kernel.ended or kernel.trouble is not None:
            break
        for call in kernel.steps.waiting.values():
            answerable = answerable or _done(kernel, call, new)
        if answerable is None or not kernel.deliver(answerable):
            break
    return list(fresh.values())


def _new(kernel: ReplayKernel, call: Call) -> Disagreement:
    place = kernel.place(call)
    at = f"\n  at {place}" if place else ""
    return Disagreement(
        message=f"{call.kind} {call.name!r} is new.{at}",
        step=f"{call.kind}/{call.name}#{call.occurrence}",
        asked_input=call.input.decode("utf-8", "replace"),
        where=place,
    )


def _done(kernel: ReplayKernel, call: Call, new: Mapping[str, Any]) -> Event | None:
    """The event with which a new step is over; None: nobody knows what it would answer."""
    if isinstance(call, TimerCall):
        return Event(
            Kind.TIMER, call.name, call.occurrence, 0, call.input, b"", max(kernel.now(), call.due_at or kernel.now())
        )
    if not isinstance(call, ActivityCall):
        return None
    try:
        # Of an activity without a result everybody knows what it answers.
        encoded, value = call.activity.codec.success(new.get(call.name))
    except PayloadError:
        return None
    return Event(
        Kind.ACTIVITY,
        call.name,
        call.occurrence,
        call.attempt,
        call.input,
        encoded,
        kernel.now(),
        value,
        has_value=True,
    )


def _redone(recording: Recording, entry: Entry, told: Disagreement) -> Disagreement:
    at = f"\n  at {told.where}" if told.where else ""
    name = told.step.partition("/")[2].rpartition("#")[0]
    return Disagreement(
        message=f"The body of {recording.workflow!r} leaves out a recorded step and asks for a new one: what was done would"
        f" be done again, if it is the same under another name.\n"
        f"  recorded: {entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq})\n"
        f"  new:      {entry.kind} {name!r}{at}\n"
        f"Renamed: say formerly=({entry.name!r},) on the new one. Two different steps: put the change behind"
        f" `patched(...)`, or say here what is meant: removed=({entry.name!r},) where the old one is left out,"
        f" new={{{name!r}: <an answer>}} where the old one is still asked for behind the new one.",
        step=told.step,
        entry=entry.seq,
        recorded_input=entry.input.decode("utf-8", "replace"),
        asked_input=told.asked_input,
        where=told.where,
    )


def _ended_otherwise(kernel: ReplayKernel, recording: Recording, implementation: Implementation) -> list[Change]:
    if not kernel.ended or not is_final(Status(recording.status)):
        return []
    told = other_end(kernel, recording, implementation)
    return [] if told is None else [Change("end", told)]
