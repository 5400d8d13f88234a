"""What a divergence says: the step, the entry, and how what is asked differs from what is recorded."""

import json
from typing import Any, cast

from perdure._definitions.host import Call
from perdure._model.journal import Entry
from perdure.errors import NonDeterminismError

# Longer inputs are cut in the message; the error's attributes have them whole.
SHOWN = 300


def divergence_error(workflow: str, call: Call, entry: Entry, place: str) -> NonDeterminismError:
    """The error with which an execution is held (R8)."""
    lines = [
        f"The body of {workflow!r} no longer asks for what its journal has recorded.",
        f"  recorded: {entry.kind} {entry.name!r}, occurrence {entry.occurrence} (entry {entry.seq}), input {_shown(entry.input)}",
        f"  asked:    {call.kind} {call.name!r}, occurrence {call.occurrence}, input {_shown(call.input)}",
    ]
    if differences := _differences(entry.input, call.input):
        lines.append("  differs:  " + "; ".join(differences))
    if place:
        lines.append(f"  at {place}")
    lines.append(
        "Nothing was given out. Bring the old code back, or put the change behind `patched(...)`, then resume the execution."
    )
    return NonDeterminismError(
        "\n".join(lines),
        step=f"{call.kind}/{call.name}#{call.occurrence}",
        entry=entry.seq,
        recorded_input=_text(entry.input),
        asked_input=_text(call.input),
        where=place,
    )


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "replace")


def _shown(encoded: bytes) -> str:
    text = _text(encoded)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def _differences(recorded: bytes, asked: bytes) -> list[str]:
    """`field: recorded → asked` for each field of two encoded objects that differs."""
    try:
        before, after = json.loads(recorded), json.loads(asked)
    except ValueError:
        return []
    return list(_compare("", before, after))[:10]


def _compare(path: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return _compare_fields(path, cast("dict[str, Any]", before), cast("dict[str, Any]", after))
    return [] if before == after else [f"{path or 'value'}: {json.dumps(before)} → {json.dumps(after)}"]


def _compare_fields(path: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        inner = f"{path}.{key}" if path else key
        if key not in before:
            found.append(f"{inner}: new, {json.dumps(after[key])}")
        elif key not in after:
            found.append(f"{inner}: gone, was {json.dumps(before[key])}")
        else:
            found.extend(_compare(inner, before[key], after[key]))
    return found
