"""What is done to executions beside steps: attributes, what is shown, interrupts, resumes (R42).

In a body all of it goes with the turn's commit. In an activity it is done at once.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic_core import to_json

from perdure._definitions import ambient
from perdure._definitions.host import Host
from perdure._definitions.name import check_attributes, check_id, check_name
from perdure._model.records import INTERRUPTED, Acts, ExecutionId, Mail, MailKind
from perdure._values.limit import check_size
from perdure._values.schema import Schema
from perdure.errors import OutsideExecutionError

_SHOWN: Final[Schema[Any]] = Schema(Any, "publish", "the value")


def set_attributes(
    attributes: Mapping[str, str | int | float | bool | None] | None = None,
    /,
    **more: str | float | bool | None,
) -> None:
    """Set attributes of the execution whose body or activity this is: what it can be searched by. None removes one.

    In a body they are written with the turn's commit, once, whatever is replayed. In an activity they are written at
    once, and again by the next attempt.

    Args:
        attributes: Attributes by name, for names that are no identifiers.
        **more: Attributes by name.

    Raises:
        AttemptCancelled: The attempt is over, or its execution is not this worker's any more. It is not written, unless
            it was on its way to the store when that happened.
        OutsideExecutionError: Neither a body nor an activity runs here.
        PayloadError: Together they are larger than the engine's `payload_limit`.
        UsageError: A name or a value cannot be recorded.

    Example:
        ```python
        from perdure import WorkflowEngine, set_attributes, workflow


        @workflow
        async def process_order(order_id: str) -> None:
            set_attributes(customer="ada", stage="packing")
            set_attributes({"stage": None})


        async with WorkflowEngine.memory([process_order]) as engine:
            handle = await process_order.start("order-123")
            await handle.result()
            assert (await engine.describe(handle.execution_id)).attributes == {"customer": "ada"}
        ```
    """
    wanted = {**(attributes or {}), **more}
    kept = check_attributes({name: value for name, value in wanted.items() if value is not None})
    # By a value that passes, so that a name is looked at also where the attribute is removed.
    removed = check_attributes({name: "" for name, value in wanted.items() if value is None})

    def perform(acts: Acts) -> None:
        acts.attributes.update(kept)
        acts.attributes.update(dict.fromkeys(removed))

    _act("set_attributes()", "attributes", perform, to_json({**kept, **removed}))


def publish(name: str, value: object) -> None:
    """Show something to those who look at the execution whose body or activity this is; the last word under a name wins.

    In a body it is written with the turn's commit, in an activity at once. `await handle.read(name)` reads it; what is
    called ``progress`` is shown as the execution's progress.

    Args:
        name: What it is.
        value: Anything that JSON can say.

    Raises:
        AttemptCancelled: The attempt is over, or its execution is not this worker's any more. It is not written, unless
            it was on its way to the store when that happened.
        DefinitionError: The name cannot be recorded.
        OutsideExecutionError: Neither a body nor an activity runs here.
        PayloadError: The value does not go into JSON, or is larger than the engine's `payload_limit`.

    Example:
        ```python
        from perdure import WorkflowEngine, publish, workflow


        @workflow
        async def count(end: int) -> None:
            publish("progress", {"counted": end})


        async with WorkflowEngine.memory([count]):
            handle = await count.start(3)
            await handle.result()
            assert await handle.read("progress") == {"counted": 3}
        ```
    """
    shown = _SHOWN.encode(value)
    called = check_name(name, "what is published")

    def perform(acts: Acts) -> None:
        acts.published[called] = shown

    _act("publish()", f"publish:{called}", perform, shown)


def interrupt_from_body(host: Host, execution_id: ExecutionId) -> None:
    """Ask an execution to end, with this turn's commit; nothing on unknown or finished ones (R29, R42)."""
    mail = Mail(check_id(execution_id), MailKind.INTERRUPT, "", INTERRUPTED)

    def perform(acts: Acts) -> None:
        acts.mail.append(mail)

    host.act(f"interrupt:{execution_id}", perform)


def resume_from_body(host: Host, execution_id: ExecutionId) -> None:
    """Move an execution on, if it is held, with this turn's commit (R42)."""
    resumed = check_id(execution_id)

    def perform(acts: Acts) -> None:
        acts.resumes.append(resumed)

    host.act(f"resume:{execution_id}", perform)


def _act(what: str, name: str, perform: Callable[[Acts], object], said: bytes) -> None:
    """Do something to the execution around: with the turn's commit in a body, at once in an activity."""
    host = ambient.host.get()
    if host is not None:
        host.act(name, perform, said)
        return
    attempt = ambient.attempt.get()
    if attempt is None:
        raise OutsideExecutionError(f"{what} works inside a workflow body or an activity only; none runs here.")
    check_size(said, attempt.engine.payload_limit, f"What {name!r} says", name)
    acts = Acts()
    perform(acts)
    attempt.show(acts)
