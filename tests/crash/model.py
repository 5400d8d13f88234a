"""What the workflows of the crash tests must come to: their steps and results, computed without any engine.

The keys are derived here once more, from the words of R1 and R14, so that a change of their derivation is seen.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from perdure._model.journal import Kind

from tests.crash.snapshot import Execution

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Step:
    """One call of an activity."""

    name: str
    input: bytes
    key: str
    attempts: int = 1

    @property
    def result(self) -> str:
        return f"{self.name} {self.key}"


@dataclass(frozen=True)
class Ending:
    """How an execution must end: with a value, or failed with a declared error of a label."""

    value: list[str] | None
    declined: str | None = None


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def execution_id_of(workflow: str, label: str) -> str:
    return digest(f"{len(workflow)}:{workflow}:{label}")


def key_of(execution_id: str, name: str, encoded: bytes, number: int) -> str:
    return digest(f"{execution_id}-{name}/{sha256(encoded).hexdigest()[:16]}#{number}")


class _Body:
    """Counts equal calls as the body makes them."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.steps: list[Step] = []
        self._equal: Counter[tuple[str, bytes]] = Counter()

    def call(self, name: str, *, attempts: int = 1, **arguments: Any) -> Step:
        encoded = json.dumps(arguments, separators=(",", ":")).encode()
        self._equal[name, encoded] += 1
        key = key_of(self.execution.execution_id, name, encoded, self._equal[name, encoded])
        self.steps.append(Step(name, encoded, key, attempts))
        return self.steps[-1]


Model = Callable[[_Body, str], Ending]


def _in_order(name: str, *numbers: int, attempts: dict[int, int] | None = None) -> Model:
    def model(body: _Body, label: str) -> Ending:
        calls = [
            body.call(name, label=label, number=number, attempts=(attempts or {}).get(number, 1)) for number in numbers
        ]
        return Ending([call.result for call in calls])

    return model


def _sorted(body: _Body, label: str) -> Ending:
    return Ending(sorted(body.call("step", label=label, number=number).result for number in range(4)))


def _flaky(body: _Body, label: str) -> Ending:
    calls = [body.call("step", label=label, number=0)]
    calls += [body.call("flaky", label=label, number=number, attempts=3) for number in (1, 2)]
    return Ending([call.result for call in calls])


def _declined(body: _Body, label: str) -> Ending:
    body.call("step", label=label, number=0)
    body.call("decline", label=f"{label}/caught")
    body.call("step", label=label, number=1)
    body.call("decline", label=label)
    return Ending(None, label)


def _once(body: _Body, label: str) -> Ending:
    """Whether an outcome is known hangs on the kills; that it is unknown honestly is a check of its own."""
    calls = [body.call("once", label=label, number=number) for number in range(3)]
    known = {entry.input for entry in body.execution.events(Kind.ACTIVITY) if entry.exit.startswith(b'{"success"')}
    return Ending([call.result if call.input in known else UNKNOWN for call in calls])


def _beside(body: _Body, label: str) -> Ending:
    calls = [body.call("step", label=label, number=number) for number in (0, 1, 2, 3)]
    return Ending([call.result for call in (calls[3], *calls[:3])])


def _drawn(body: _Body, label: str) -> Ending:
    """What was drawn stands in the journal; only the time can be computed (R38)."""
    entries = body.execution.events(Kind.ACTIVITY)
    drawn = [json.loads(entry.input)["value"] for entry in entries] + ["missing"] * 4
    if len(entries) > 1:
        second = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=entries[1].at)
        drawn[2] = second.isoformat()
    return Ending([body.call("mark", value=value).result for value in drawn[:4]])


def _detaching(body: _Body, label: str) -> Ending:
    results: list[str] = []
    for number in range(2):
        results.append(execution_id_of("Steps", f"{label}/child-{number}"))
        results.append(body.call("step", label=label, number=number).result)
    return Ending(results)


def _gated(body: _Body, label: str) -> Ending:
    return Ending([body.call("step", label=label, number=0).result, body.call("gate", label=label).result])


MODELS: dict[str, Model] = {
    "Steps": _in_order("step", 0, 1, 2, 3),
    "Gathered": _in_order("step", 0, 1, 1, 2),
    "Tasks": _sorted,
    "Naps": _in_order("step", 0, 1, 2),
    "Beside": _beside,
    "Rests": _in_order("step", 0, 1, 2, 3, 4, 5),
    "Stamps": _in_order("stamp", 0, 1, 2),
    "Flaky": _flaky,
    "Declined": _declined,
    "Once": _once,
    "Drawn": _drawn,
    "Detaching": _detaching,
    "Gated": _gated,
}


def expected(execution: Execution) -> tuple[Ending, list[Step]]:
    """How an execution must end, and the calls that it must have made."""
    body = _Body(execution)
    return MODELS[execution.workflow](body, execution.label), body.steps


def children(workflow: str, label: str) -> Iterator[str]:
    """The executions that an execution starts, detached."""
    if workflow == "Detaching":
        for number in range(2):
            yield execution_id_of("Steps", f"{label}/child-{number}")
