"""What a start can be told: the options of one execution, checked before anything is written."""

import copy
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

from perdure._definitions.host import Engine, StartOptions
from perdure._definitions.name import check_attributes
from perdure._values.duration import Duration, to_ms
from perdure.errors import UsageError

_EXECUTION_ID: Final = re.compile(r"[0-9a-f]{32}")
# What every store keeps as an integer of a column; a priority beyond it is a mistake anyway.
_INT32: Final = range(-(2**31), 2**31)


class ExecutionOptions(TypedDict, total=False):
    """What `Workflow.options` takes."""

    execution_id: str
    delay: Duration
    priority: int
    attributes: Mapping[str, str | int | float | bool]
    on_duplicate: Literal["join", "reject"]
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
        changed.execution_id = _execution_id(options["execution_id"])
    if "delay" in options:
        changed.delay_ms = _delay_ms(options["delay"])
    if "priority" in options:
        changed.priority = _priority(options["priority"])
    if "attributes" in options:
        changed.attributes = check_attributes(options["attributes"])
    if "on_duplicate" in options:
        changed.on_duplicate = _on_duplicate(options["on_duplicate"])
    if "engine" in options:
        changed.engine = _engine(options["engine"])
    return changed


def _execution_id(execution_id: Any) -> str:
    if isinstance(execution_id, str) and _EXECUTION_ID.fullmatch(execution_id):
        return execution_id
    raise UsageError(
        f"An execution_id is 32 lower-case hex digits, not {execution_id!r}. For an identity that people can read, "
        "give the workflow an idempotency_key; the id is made from it."
    )


def _delay_ms(delay: Duration) -> int:
    delay_ms = to_ms(delay)
    if delay_ms < 0:
        raise UsageError(f"A delay is how long to wait before the start, and cannot be negative: {delay!r}.")
    return delay_ms


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


def _on_duplicate(choice: Any) -> Literal["join", "reject"]:
    if choice in ("join", "reject"):
        return choice
    raise UsageError(f"on_duplicate is 'join' or 'reject', not {choice!r}.")
