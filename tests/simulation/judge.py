"""Judges the runs of random programs by the model: results, and what was undone."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from perdure._engine.wakes import DEADLINE_EXCEEDED
from perdure._model.journal import WITHOUT_COMPENSATIONS, Entry, Kind
from perdure._model.records import INTERRUPTED, MailKind
from perdure._model.status import Status, is_final
from perdure._values.exit_codec import is_success
from perdure.testing._simulation.account import Account, Life

from tests.simulation.programs import has_heard, may_be


def judge(account: Account) -> Iterator[str]:
    """R10, R27, R42: every program has an end that it may have, and has undone what it had to."""
    for life in account.lives.values():
        if not life.was_held and not _may_end(life, is_rewound=bool(account.saw.operations)):
            yield f"{life} ended {life.record.status} with {life.record.exit!r}, which {life.record.payload!r} may not"
        yield from undone(life)
        yield from left(life)
        yield from too_early(account, life)
    yield from shown(account)


def _may_end(life: Life, *, is_rewound: bool) -> bool:
    record = life.record
    if life.went_on:
        return record.workflow == "Cycle"
    said, exit_ = json.loads(record.payload), json.loads(record.exit or b"{}")
    if record.exit in (INTERRUPTED, DEADLINE_EXCEEDED):
        status = Status.INTERRUPTED if record.exit == INTERRUPTED else Status.FAILED
        return record.status is status and _was_interrupted(life, record.exit)
    if record.workflow == "Restarted" and record.number > 3 and not is_rewound:
        return False  # it is refused twice at most
    if record.status is Status.SUCCEEDED:
        return "success" in exit_ and _may_give(record.workflow, said, exit_["success"])
    if record.workflow == "Mended":
        # Interrupted while it was held: it ends with what held it.
        return record.status is Status.FAILED and bool(_interrupts(life))
    if record.workflow == "Restarted":
        return record.status is Status.FAILED and b'"Refused"' in (record.exit or b"")
    return record.status is Status.FAILED and said["node"][0] == "fail" and b'"Refused"' in (record.exit or b"")


def _may_give(workflow: str, said: Any, value: Any) -> bool:
    match workflow:
        case "Listener":
            return has_heard(said["label"], said["count"], value)
        case "Mended" | "Restarted":
            return value == f"{said['label']}!"
        case "Cycle":
            return may_be(["cycle", said["label"], said["count"]], [value])
        case _:
            return may_be(said["node"], value)


def _interrupts(life: Life) -> list[bytes]:
    return [letter.exit for letter in life.letters if letter.kind == MailKind.INTERRUPT]


def _was_interrupted(life: Life, exit_: bytes) -> bool:
    """Whether this is the exit of what its body was told last, or of a letter that came before it had begun."""
    told = [entry.exit for entry in life.entries if entry.kind == Kind.INTERRUPT]
    return told[-1] == exit_ if told else exit_ in _interrupts(life)


# What is undone -------------------------------------------------------------------------------------------------


def _done(life: Life, activity: str) -> list[Entry]:
    return [
        entry
        for entry in life.entries
        if entry.kind == Kind.ACTIVITY and entry.name == activity and is_success(entry.exit)
    ]


def undone(life: Life) -> Iterator[str]:
    """I20, R27, R28: all of it if it has failed, none if it has not, each once, the last first, and nothing is cut in half."""
    if not is_final(life.record.status):
        return
    booked, undos = _done(life, "book"), _done(life, "undo")
    copied = _copied(life)
    if copied:
        # That is the original's to undo, also what was under way.
        theirs = {entry.input for entry in booked if entry.seq < copied}
        if any(entry.input in theirs and entry.seq > life.kept for entry in undos):
            yield f"{life} has undone what another execution has done"
        booked = [entry for entry in booked if entry.seq > copied or entry.input in {undo.input for undo in undos}]
    for input_, times in Counter(entry.input for entry in undos).items():
        if times > 1:
            yield f"{life}: {input_!r} was undone {times} times"
    place = {entry.input: entry.seq for entry in undos}
    if life.record.status is Status.SUCCEEDED:
        if undos:
            yield f"{life} has succeeded, and {len(undos)} of its steps were undone"
    else:
        skipped = sum(entry.kind == Kind.SKIP for entry in life.entries)
        missing = [entry.input for entry in booked if entry.input not in place]
        if len(missing) > skipped:
            yield f"{life} has not succeeded, and {missing!r} was not undone"
    if len(place) > 1:
        yield from _in_order(life, booked, place)
    recorded = {entry.occurrence for entry in life.entries if entry.kind == Kind.ACTIVITY and entry.name == "book"}
    for attempt in life.attempts:
        if attempt.name == "book" and not attempt.ended and attempt.occurrence not in recorded:
            yield f"{life}: attempt of book {attempt.occurrence} began, and was cut in half"


def _copied(life: Life) -> int:
    """How much of its journal is another execution's, which undoes what it has done itself."""
    asked = life.operation
    if asked is not None and asked.new_id is not None and not asked.compensates:
        return life.kept
    # Of a fork that was rewound the journal says so; of one that says it wrongly the life before has been looked at.
    return max((entry.seq for entry in life.entries if entry.name == WITHOUT_COMPENSATIONS), default=0)


def _in_order(life: Life, booked: list[Entry], place: dict[bytes, int]) -> Iterator[str]:
    """What was asked for when something else had been recorded is undone before that."""
    # By occurrence: how much of the journal there was when it was asked for. Not when it began: of two that were asked
    # for side by side the first may be over by then.
    asked: dict[int, int] = {}
    for stand in reversed(life.stands):
        # What a life was born with asking for was asked for at some point before.
        length = stand.length if stand.length > life.kept else 0
        asked.update((occurrence, length) for name, occurrence, _ in stand.steps if name == "book")
    for later in booked:
        for earlier in booked:
            if later.input not in place or earlier.input not in place:
                continue
            if asked.get(later.occurrence, 0) >= earlier.seq and place[later.input] > place[earlier.input]:
                yield f"{life}: {earlier.input!r} was undone before {later.input!r}, which was done after it"


def left(life: Life) -> Iterator[str]:
    """R27: what was entered is left, once, however the execution ends."""
    if not is_final(life.record.status):
        return
    entered = Counter(entry.input for entry in _done(life, "enter"))
    gone = Counter(entry.input for entry in _done(life, "leave"))
    skipped = sum(entry.kind == Kind.SKIP for entry in life.entries)
    if gone - entered or (entered - gone).total() > skipped:
        yield f"{life}: entered {dict(entered)}, left {dict(gone)}"


def too_early(account: Account, life: Life) -> Iterator[str]:
    """R31: nothing is undone while a child of its own, which it has left and which nobody else wants, goes on."""
    begun = [attempt.tick for attempt in life.attempts if attempt.name in {"undo", "leave"} and not attempt.ended]
    freed = {entry.input.decode(): entry.tick for entry in life.written if entry.kind == Kind.FREED}
    for entry in life.written:
        child = account.life_at(entry.name.removeprefix("leave:"), entry.tick) if entry.kind == Kind.ACT else None
        if child is None or child.record.parent != life.record.execution_id or not begun:
            continue
        # Of a life that somebody has begun since it was told of the end of another one it knows nothing.
        if not any(change.after is not None and change.after.waiters for change in child.changes):
            continue
        ended = min(child.ended_at or max(begun) + 1, freed.get(child.record.execution_id, max(begun) + 1))
        if any(entry.tick < tick < ended for tick in begun):
            yield f"{life} has begun to undo what it did, while {child} went on"


def shown(account: Account) -> Iterator[str]:
    """R42: what a body has set is there when it has ended."""
    there = {name for life in account.lives.values() for name in life.record.attributes}
    for life in account.lives.values():
        for text in _texts(json.loads(life.record.exit or b"{}")):
            label, _, said = text.rpartition(" ")
            if said == "shown" and label not in there:
                yield f"{life}: {label} was shown, and is not there"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
