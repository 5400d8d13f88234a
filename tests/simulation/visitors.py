"""Who visits a random program from outside: completers, senders and interrupters, with what they do and when.

All of it is drawn from the program itself, so that every run of it has the same visitors, wherever it was started.
"""

import json
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

from perdure import DurableChannel, DurableDeferred, ExecutionFinishedError, TypedError, Workflow, WorkflowEngine
from perdure._model.records import INTERRUPTED, MailKind, message_name
from perdure._values.cause import Cause
from perdure._values.exit import Exit, Failure, Success
from perdure.testing._simulation.director import Errand

Visitor = list[Errand]

# From before the first turn to days after it.
DELAYS_S = (0, 0, 0.002, 0.02, 0.3, 5, 100, 30 * 3_600)
# Later than any program takes: what a body that was interrupted has not said.
AT_LAST_S = 60 * 24 * 3_600

# What a node has in it that is the same execution's: kinds, each with how many of its parts are none.
_INSIDE = {"sequence": 0, "all": 0, "group": 0, "first": 0, "within": 1, "race": 1, "defiant": 1, "fail": 1}


# For tokens: who completes something knows the contract and not the body.
_PROGRAM = Workflow.make("Program", payload={"node": list[Any]}, success=Any)


class Refused(TypedError):
    """The far side does not want to."""

    label: str


@cache
def deferred(label: str) -> DurableDeferred[str, Refused]:
    return DurableDeferred.make(label, success=str, error=Refused)


@cache
def channel(label: str) -> DurableChannel[str]:
    return DurableChannel.make(label, str)


def visitors(workflow: str, payload: bytes) -> list[Visitor]:
    """Who comes to an execution of that workflow."""
    said = json.loads(payload)
    if workflow == "Listener":
        return _at_last(said["label"], said["count"])
    if workflow == "Cycle":
        # Under one id for all of its lives, also where a sender asks again.
        return _senders(said["label"], said["count"])
    if workflow in {"Mended", "Restarted"}:
        return []
    found = [visitor for node in _own(said["node"]) for visitor in _to_node(node)]
    return [*found, *_interrupters(json.dumps(said))]


def _own(node: Any) -> Iterator[Any]:
    kind, *rest = node
    yield node
    if kind in _INSIDE:
        for part in rest[_INSIDE[kind] :]:
            yield from _own(part)


def _to_node(node: Any) -> list[Visitor]:
    kind, *rest = node
    match kind:
        case "asked":
            return _completers(rest[0], least=1)
        case "into":
            return _completers(rest[0], least=0)
        case "inbox":
            return _senders(rest[0], rest[1])
        case _:
            return []


def _completers(label: str, least: int) -> list[Visitor]:
    """Each comes once with a value of its own; the first one counts."""
    chance = Random(f"{label}/completers")
    exits: list[Exit[str]] = [
        Failure(Cause.fail(Refused(label=label))) if chance.random() < 0.2 else Success(f"{label}@{n}")
        for n in range(chance.randint(least, 3))
    ]
    return [[completion(label, exit_, chance.choice(DELAYS_S))] for exit_ in exits]


def completion(label: str, exit: Exit[str], after_s: float) -> Errand:
    """Complete a deferred of an execution."""
    asked = deferred(label)

    async def do(engine: WorkflowEngine, execution_id: str) -> bool:
        token = asked.token_from_execution_id(workflow=_PROGRAM, execution_id=execution_id)
        return await asked.done(token, exit, engine=engine)

    return Errand(kind=MailKind.DEFERRED, name=label, exit=asked._encoded(exit), after_s=after_s, do=do)


def message(label: str, value: str, after_s: float) -> Errand:
    """Send a message that is its own id."""

    async def do(engine: WorkflowEngine, execution_id: str) -> bool:
        try:
            await channel(label).send(execution_id, value, id=value, engine=engine)
        except ExecutionFinishedError:
            return False
        return True

    said = channel(label).codec.success(value)[0]
    return Errand(kind=MailKind.MESSAGE, name=message_name(label, value), exit=said, after_s=after_s, do=do)


def interruption(after_s: float) -> Errand:
    """Interrupt an execution."""

    async def do(engine: WorkflowEngine, execution_id: str) -> bool:
        await engine.interrupt(execution_id)
        return True

    return Errand(kind=MailKind.INTERRUPT, name="", exit=INTERRUPTED, after_s=after_s, do=do)


def _senders(label: str, count: int) -> list[Visitor]:
    """One or two, each with messages of its own, one after the other, some of them twice."""
    chance = Random(f"{label}/senders")
    first = chance.randint(0, count)
    found: list[Visitor] = []
    for sender, number in (("a", first), ("b", count - first)):
        errands: Visitor = []
        for n in range(number):
            value = f"{label}/{sender}{n}"
            errands.append(message(label, value, chance.choice(DELAYS_S[:-1])))
            if chance.random() < 0.3:
                errands.append(message(label, value, 0))
        found.append(errands)
    return found


def _at_last(label: str, count: int) -> list[Visitor]:
    """What was to be said to a listener, in case nobody has: under the same ids, so that it is said once."""
    messages = [message(label, f"{label}#{n}", 0 if n else AT_LAST_S) for n in range(count)]
    return [[*messages, completion(label, Success(f"{label} late"), 0)]]


def _interrupters(said: str) -> list[Visitor]:
    chance = Random(f"{said}/interrupters")
    # What is done after an interrupt is worth a look.
    if chance.random() >= (0.6 if '"defiant"' in said else 0.15):
        return []
    return [[interruption(chance.choice(DELAYS_S))] for _ in range(chance.randint(1, 2))]
