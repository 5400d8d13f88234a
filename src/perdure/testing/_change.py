"""A change: how today's code treats a recorded execution otherwise than the code that it ran on.

It may ask for more, or for less. What must not be is what would hold an execution in flight, or have it do something a
second time under another name.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, Self

from perdure._model.journal import Entry, Kind
from perdure._model.status import Held, Status, is_final
from perdure.errors import NonDeterminismError
from perdure.testing._rerun import Disagreement, Implementation, Recording, ReplayKernel, begun, other_end
from perdure.testing._trial import CHILD_BEGUN, WORLDS, StandIn, TrialKernel, trial

# Beginnings of one journal that are tried, to see what is asked for there.
MOST_BEGINNINGS: Final = 20


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
    finally:
        kernel.close()
    return _other_steps(recording, implementation, new, removed)


def _in_flight(told: Disagreement) -> Disagreement:
    before = "" if told.entry is None else f"\n  an execution that has come as far as entry {told.entry} would be held"
    return replace(told, message=told.message + before)


def _other_steps(
    recording: Recording, implementation: Implementation, new: Mapping[str, Any], removed: frozenset[str]
) -> list[Change]:
    """Steps that only the code has, steps that only the journal has, and another end."""
    with _Trials(recording, implementation, new) as trials:
        first = trials.whole[0]
        if not first.made_up and first.trouble is not None and isinstance(first.trouble.error, NonDeterminismError):
            return [Change("diverges", Disagreement.of_error(first.trouble.error))]
        # What is asked for behind a wait may take a record that its types cannot read: by `formerly`, most of all.
        if not first.made_up and first.trouble is not None and first.trouble.held is Held.UNREADABLE:
            return [Change("unreadable", told) for told in [first.unreadable()] if told is not None]
        unasked: list[Change] = []
        for entry, fresh in trials.unasked(removed):
            if (told := _stand_in(entry, fresh)) is not None:
                return [Change("redone", _redone(recording, entry, told))]
            unasked.append(Change("unasked", _unasked(entry)))
        found = [*(Change("new", told) for told in [*first.fresh.values(), *first.new_deeds()]), *unasked]
        # What was made up may lead anywhere.
        return found if first.made_up else [*found, *_ended_otherwise(first, recording, implementation)]


def _stand_in(entry: Entry, fresh: list[StandIn]) -> Disagreement | None:
    """The new step of its kind that a record may be meant for: of waits without a name one of its sort, else one of its input.

    None for what is shown or done to an execution that is there: it is not the same under another name.
    """
    kind = Kind.CHILD if entry.name.startswith(CHILD_BEGUN) else entry.kind
    alike = [
        told
        for told, is_guessed in fresh
        if told.step.startswith(f"{kind}/") and kind != Kind.ACT
        if is_guessed or kind != Kind.ACTIVITY or _keeps_input(entry, told)
    ]
    sort, colon, _ = entry.name.partition(":")
    same = [told for told in alike if colon and told.step.startswith(f"{entry.kind}/{sort}:")]
    exact = [told for told in alike if (told.asked_input or "").encode() == entry.input]
    return next(iter([*same, *exact, *alike]), None)


def _keeps_input(entry: Entry, told: Disagreement) -> bool:
    """Whether a new activity is asked with what a recorded one was asked with, more or less.

    Who gives a step another name may name its arguments anew, and add one or leave one out.
    """
    try:
        recorded, asked = (json.loads(each) for each in (entry.input, told.asked_input or ""))
        recorded, asked = (
            Counter(json.dumps(value, sort_keys=True) for value in each.values()) for each in (recorded, asked)
        )
    except (ValueError, AttributeError):
        return True
    return recorded <= asked or asked <= recorded


def _unasked(entry: Entry) -> Disagreement:
    return Disagreement(
        message=f"{entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq}), is recorded and no"
        " longer asked for.",
        entry=entry.seq,
        recorded_input=entry.input.decode("utf-8", "replace"),
    )


class _Trials:
    """Trials of one recording: of the whole journal, and of its beginnings."""

    def __init__(self, recording: Recording, implementation: Implementation, new: Mapping[str, Any]) -> None:
        self._recording = recording
        self._implementation = implementation
        self._new = new
        self._made: list[TrialKernel] = []
        # Of the whole journal, each with other values made up.
        self.whole = self._worlds(recording.entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for kernel in self._made:
            kernel.close()

    @property
    def _fresh(self) -> list[StandIn]:
        """New steps that a record may be meant for, of a trial that proves something if there is one."""
        return next((kernel for kernel in self.whole if kernel.proves), self.whole[0]).stand_ins()

    def unasked(self, removed: frozenset[str]) -> Iterator[tuple[Entry, list[StandIn]]]:
        """Records that the code does not ask for, whatever what is new answers, in the journal's order.

        Each with the new steps that it may be meant for: those of the whole journal, and those that are asked for when
        it is recorded. On the whole journal what stands beside the body may be given up when that ends.
        """
        left = [entry for entry in self.whole[0].unasked() if entry.name not in removed]
        if not left or (self.whole[0].fresh and not any(kernel.proves for kernel in self.whole)):
            return
        asked: set[int] = set()
        for kernel in self.whole:
            asked |= kernel.asked_for(left)
        # The longest first, which most often tells all (the whole journal has been tried); and no more than so many, or a
        # thousand renamed steps would take a thousand times as long.
        if self.whole[0].fresh and left[-1] is not self._recording.entries[-1]:
            asked |= self._asked_up_to(left[-1], left)[0]
        for number, entry in enumerate(left):
            beside: list[StandIn] = []
            if entry.seq not in asked and number < MOST_BEGINNINGS:
                found, beside = self._asked_up_to(entry, left)
                asked |= found
            if entry.seq not in asked:
                yield entry, [*self._fresh, *beside]

    def _asked_up_to(self, last: Entry, left: list[Entry]) -> tuple[set[int], list[StandIn]]:
        """What the code asks for of what is left, in an execution that has only come as far as one of them; what is new.

        A whole journal gives a task that is late all that it waits for at once, and the body ends before another one
        has asked for what it did ask for in its time.
        """
        beginning = [entry for entry in self._recording.entries if entry.seq <= last.seq]
        within = [entry for entry in left if entry.seq <= last.seq]
        kernels = self._worlds(beginning)
        # Timers apart: of those that were set just then most were given up, by the code that was recorded as well.
        new = [each for each in kernels[0].early() if not each.told.step.startswith(f"{Kind.TIMER}/")]
        return set[int]().union(*(kernel.asked_for(within) for kernel in kernels)), new

    def _worlds(self, history: list[Entry]) -> list[TrialKernel]:
        """Trials of one journal: one, if nothing had to be made up."""
        kernels: list[TrialKernel] = []
        for world in range(WORLDS):
            kernels.append(trial(self._recording, history, self._implementation, self._new, world))
            self._made.append(kernels[-1])
            if not kernels[-1].made_up:
                break
        return kernels


def _redone(recording: Recording, entry: Entry, told: Disagreement) -> Disagreement:
    at = f"\n  at {told.where}" if told.where else ""
    name = told.step.partition("/")[2].rpartition("#")[0]
    return Disagreement(
        message=f"The body of {recording.workflow!r} leaves out a recorded step and asks for a new one: what was done would"
        f" be done again, if it is the same under another name.\n"
        f"  recorded: {entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq})\n"
        f"  new:      {entry.kind} {name!r}{at}\n{_advice(entry, name)}",
        step=told.step,
        entry=entry.seq,
        recorded_input=entry.input.decode("utf-8", "replace"),
        asked_input=told.asked_input,
        where=told.where,
    )


def _advice(entry: Entry, name: str) -> str:
    if entry.kind == Kind.TIMER:
        # No timer has a `formerly`; one without a name is called by its length.
        is_timeout = entry.name.startswith("timeout:")
        named = (
            ""
            if is_timeout
            else f", or say sleep(..., name={entry.name!r}): under its name a wait may change its length"
        )
        return (
            f"The same wait with another length or name: put the change behind `patched(...)`{named}."
            f" Two different waits: say here removed=({entry.name!r},)."
        )
    if entry.kind != Kind.ACTIVITY:
        return (
            f"Put the change behind `patched(...)`. Two different ones, of which the old one is left out: say here"
            f" removed=({entry.name!r},)."
        )
    return (
        f"If {name!r} is {entry.name!r} under another name: say formerly=({entry.name!r},) on it. It then has the result"
        f" that is recorded for {entry.name!r}, and is not called. If it is another step, never say so: it would be left"
        f" out. Where {entry.name!r} was removed, say here removed=({entry.name!r},); where it is still asked for behind"
        f" the new one, new={{{name!r}: <an answer>}}; or put the change behind `patched(...)`."
    )


def _ended_otherwise(kernel: ReplayKernel, recording: Recording, implementation: Implementation) -> list[Change]:
    if not kernel.ended or not is_final(Status(recording.status)):
        return []
    told = other_end(kernel, recording, implementation)
    return [] if told is None else [Change("end", told)]
