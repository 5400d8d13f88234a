"""A start: what one execution begins with, and the options that say so, checked before anything is written."""

import copy
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from perdure import _ids
from perdure._definitions.contract import Contract, Identified
from perdure._definitions.host import Engine, OnDuplicate, StartOptions
from perdure._definitions.name import check_attributes, check_id
from perdure._model.records import ExecutionId, Start
from perdure._values.duration import Duration, to_ms
from perdure._values.exit_codec import encode_outcome
from perdure._values.instant import Instant, from_datetime
from perdure.errors import PayloadMismatchError, UsageError

# What every store keeps as an integer of a column; a priority beyond it is a mistake anyway.
_INT32: Final = range(-(2**31), 2**31)


class ExecutionOptions(TypedDict, total=False):
    """What `Workflow.options` takes."""

    execution_id: str
    delay: Duration
    priority: int
    attributes: Mapping[str, str | int | float | bool]
    deadline: datetime | Duration
    on_duplicate: Literal["join", "reject", "restart_if_failed"]
    engine: Engine


def changed_options(before: StartOptions, options: ExecutionOptions) -> StartOptions:
    """Give a copy with some options changed.

    Raises:
        UsageError: One of them makes no sense.
    """
    if unknown := options.keys() - ExecutionOptions.__optional_keys__:
        raise TypeError(f"options() got an unexpected keyword argument {min(unknown)!r}")
    changed = copy.copy(before)
    if "execution_id" in options:
        changed.execution_id = check_id(options["execution_id"])
    if "delay" in options:
        changed.delay_ms = _delay_ms(options["delay"])
    if "priority" in options:
        changed.priority = _priority(options["priority"])
    if "attributes" in options:
        changed.attributes = check_attributes(options["attributes"])
    if "deadline" in options:
        changed.deadline = _deadline(options["deadline"])
    if "on_duplicate" in options:
        changed.on_duplicate = _on_duplicate(options["on_duplicate"])
    if "engine" in options:
        changed.engine = _engine(options["engine"])
    return changed


def start_of(
    contract: Contract, identified: Identified, execution_id: ExecutionId, options: StartOptions, now: Instant
) -> Start:
    """Give the start of an execution."""
    due_at = now + options.delay_ms if options.delay_ms > 0 else None
    return Start(
        execution_id=execution_id,
        incarnation=_ids.new_incarnation(now),
        workflow=contract.name,
        key=identified.key,
        payload=identified.payload,
        priority=options.priority or 0,
        attributes=options.attributes,
        version=contract.version,
        due_at=due_at,
        deadline=deadline_of(options, due_at or now),
        restarts=options.on_duplicate == "restart_if_failed",
        strict=contract.on_mismatch == "raise",
        differing=lambda recorded: contract.payload.differing_fields(recorded, identified.payload),
    )


def mismatch_of(start: Start, recorded: bytes) -> PayloadMismatchError | None:
    """Say in what an execution is not the one that a start means which has met it; None: it is (R2).

    Args:
        start: The start.
        recorded: The payload that the execution was begun with.
    """
    fields = () if start.differing is None else start.differing(recorded)
    if not fields:
        return None
    return PayloadMismatchError(
        f"Execution {start.execution_id} of {start.workflow!r} was started with another payload: "
        f"{', '.join(fields)} differ(s). The same idempotency key must mean the same work.",
        fields=fields,
        execution_id=start.execution_id,
    )


def verdict_on(start: Start, recorded: bytes | None) -> bytes:
    """What is recorded of a start that has met this payload, or none (None): a success without a value, or the mismatch."""
    mismatch = mismatch_of(start, recorded) if start.strict and recorded is not None else None
    return b'{"success":null}' if mismatch is None else encode_outcome(mismatch)


def deadline_of(options: StartOptions, begins_at: Instant) -> Instant | None:
    """When an execution is interrupted that begins then; None: never (R44)."""
    if isinstance(options.deadline, timedelta):
        return begins_at + to_ms(options.deadline)
    return options.deadline


def _delay_ms(delay: Duration) -> int:
    delay_ms = to_ms(delay)
    if delay_ms < 0:
        raise UsageError(f"A delay is how long to wait before the start, and cannot be negative: {delay!r}.")
    return delay_ms


def _deadline(deadline: datetime | Duration) -> Instant | timedelta:
    """An instant, or how long after the start; what it means is known only then."""
    if isinstance(deadline, datetime):
        return from_datetime(deadline)
    duration_ms = to_ms(deadline)
    if duration_ms <= 0:
        raise UsageError(f"A deadline is an aware datetime, or how long after the start, not {deadline!r}.")
    return timedelta(milliseconds=duration_ms)


def _engine(engine: Any) -> Engine:
    # A protocol, so that another engine can take the place; one method of it tells what is none at all.
    if hasattr(engine, "start_execution"):
        return engine
    raise UsageError(
        f"engine= is the engine to start in, as WorkflowEngine.sqlite(...) gives it, not {type(engine).__name__} "
        f"({engine!r})."
    )


def _priority(priority: Any) -> int:
    if isinstance(priority, int) and not isinstance(priority, bool) and priority in _INT32:
        return priority
    raise UsageError(f"A priority is a whole number that fits into 32 bits (higher goes first), not {priority!r}.")


def _on_duplicate(choice: Any) -> OnDuplicate:
    if choice in ("join", "reject", "restart_if_failed"):
        return choice
    raise UsageError(f"on_duplicate is 'join', 'reject' or 'restart_if_failed', not {choice!r}.")
