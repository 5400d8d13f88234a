"""Executions that a body starts: children, which it waits for, and detached ones."""

from typing import Any, Final

from pydantic_core import from_json, to_json

from perdure import _ids
from perdure._definitions.arrival import Arrival
from perdure._definitions.contract import Contract, Identified
from perdure._definitions.host import Call, Host, StartOptions
from perdure._definitions.start import deadline_of, start_of
from perdure._model.journal import Kind
from perdure._model.records import ExecutionId, Start
from perdure._values.cause import Cause
from perdure._values.exit_codec import ExitCodec
from perdure._values.instant import Instant
from perdure._values.schema import Schema
from perdure.errors import UsageError, WorkflowIOError


class ChildCall(Arrival):
    """A wait for another execution, which is started with it or joined (R31).

    The child's id is its input: whoever asks for the same child gets the same answer.
    """

    __slots__ = ("start",)

    def __init__(self, start: Start, codec: ExitCodec[Any], occurrence: int, number: int) -> None:
        super().__init__(Kind.CHILD, start.workflow, occurrence, start.execution_id.encode(), number, codec)
        # How it begins, if it is not there yet.
        self.start = start


def child_call(host: Host, contract: Contract, identified: Identified, options: StartOptions) -> ChildCall:
    """Ask for a child: it has its parent's priority, and ends no later than its parent (R31).

    Raises:
        UsageError: An option does not go with a start in a body, or the child would be its own parent.
        WorkflowIOError: It names an engine.
    """
    _check_options(contract, options, "execute()")
    # Taken with a key too: its absence on one side of a code change would shift the ids of all later ones.
    occurrence = host.occurrence(Kind.CHILD, contract.name)
    derived = _id_of(host, Kind.CHILD, contract, identified, occurrence)
    if derived == host.execution_id:
        raise UsageError(
            f"{contract.name}.execute() in its own body, with the key that it runs under: it would wait for itself. "
            "A child needs another key; `continue_as_new(...)` begins this execution anew."
        )
    start = start_of(contract, identified, derived, options, host.now())
    start.parent = host.execution_id
    start.priority = host.priority if options.priority is None else options.priority
    start.deadline = _earlier(start.deadline, host.deadline)
    # A child that did not succeed in the life before is restarted with its parent (R37).
    start.restarts = start.restarts or host.restarted
    return ChildCall(start, contract.codec, occurrence, host.number())


class StartCall(Call):
    """A detached start whose body hears whether the execution is the one that it means (R2, R42).

    A replay that finds it unanswered asks once more, and begins nothing by that; what it means is its input.
    """

    __slots__ = ("start",)

    def __init__(self, start: Start, host: Host) -> None:
        name, asked = f"start:{start.workflow}", to_json([start.execution_id, _ids.fingerprint(start.payload)])
        super().__init__(Kind.SENT, name, host.occurrence(Kind.SENT, name), asked, host.number())
        self.start = start

    def decode_success(self, exit: bytes, /) -> None:
        """It is the one."""

    def decode_failure(self, exit: bytes, /) -> Cause:
        """Read in what it is not.

        Raises:
            PayloadError: It cannot be read.
        """
        return _STARTS.decode_failure(exit)

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether the same execution was started: with another payload the code has changed, and the record counts (R8)."""
        return from_json(recorded)[0] == from_json(self.input)[0]

    def __repr__(self) -> str:
        return f"<{self.name} #{self.occurrence}>"


async def start_detached(host: Host, contract: Contract, identified: Identified, options: StartOptions) -> ExecutionId:
    """Start an execution with this turn's commit, once, whatever is replayed (R42).

    Raises:
        PayloadError: The payload is larger than the engine takes.
        PayloadMismatchError: The execution exists with another payload, and `on_mismatch` is "raise".
        UsageError: An option does not go with a start in a body.
        WorkflowIOError: It names an engine.
    """
    _check_options(contract, options, "start()")
    # Taken with a key too, as for a child.
    occurrence = host.occurrence(Kind.START, contract.name)
    derived = _id_of(host, Kind.START, contract, identified, occurrence)
    start = start_of(contract, identified, derived, options, host.now())
    if start.strict:
        await host.ask(StartCall(start, host))
    else:
        host.start(start)
    return derived


def next_life(host: Host, contract: Contract, payload: bytes, options: StartOptions) -> Start:
    """What an execution goes on as: everything that was not said anew stays as it is (R37)."""
    now = host.now()
    deadline = deadline_of(options, now)
    return Start(
        execution_id=host.execution_id,
        incarnation=_ids.new_incarnation(now),
        workflow=contract.name,
        payload=payload,
        priority=host.priority,
        version=contract.version,
        deadline=host.deadline if deadline is None else deadline,
    )


def _id_of(host: Host, kind: Kind, contract: Contract, identified: Identified, occurrence: int) -> ExecutionId:
    """The id that a start in a body has: its key's, or one made from the call (R1); in each case as the journal has it."""
    payload = None if identified.execution_id else identified.payload
    asked = identified.execution_id or _ids.child_id(
        host.execution_id, host.life, contract.name, identified.payload, occurrence, awaited=kind is Kind.CHILD
    )
    return host.child_id(kind, contract.name, occurrence, asked, payload)


def _check_options(contract: Contract, options: StartOptions, what: str) -> None:
    if options.engine is not None:
        raise WorkflowIOError(
            f"{contract.name}.options(engine=...).{what} in a body: it starts executions in its own engine only. "
            "Move it to an activity."
        )
    if options.on_duplicate == "reject":
        raise UsageError(
            f"{contract.name}.options(on_duplicate='reject').{what} in a body: the execution is started with the commit "
            "of the body's turn, so the answer comes too late for it. Move it to an activity."
        )


def _earlier(one: Instant | None, other: Instant | None) -> Instant | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


_STARTS: Final = ExitCodec(Schema(None, "A start"), (), "A start")
