"""Durable workflows for asyncio: ordinary Python that survives kill -9.

A workflow's body is an async function, and what it does to the world stands in activities, whose results are
recorded. Killed anywhere and started again, the body is replayed from the record and goes on where it was.

Example:
    ```python
    import asyncio
    from perdure import WorkflowEngine, activity, workflow


    @activity
    async def charge_card(order_id: str) -> str:
        return f"charge_{order_id}"


    @workflow(idempotency_key=lambda order_id: order_id)
    async def process_order(order_id: str) -> str:
        return await charge_card(order_id)


    async def main() -> None:
        async with WorkflowEngine.memory([process_order]):
            print(await process_order.execute("order-123"))


    asyncio.run(main())
    ```

Importable by name, but no part of ``*``, because other modules have these names too:

- ``sleep(duration)``: wait; in a body the wait survives restarts. A bare number means seconds.
- ``now()``: the time, aware, in UTC; in a body it is the same on every replay.
- ``random(name=None)``: a ``random.Random``; in a body it gives the same numbers on every replay.
- ``uuid4(name=None)``: a random UUID; in a body it is the same on every replay.
- ``logger``: a logger that is silent while a body replays, and knows execution and workflow.
"""

from typing import TYPE_CHECKING

from perdure._definitions.acting import publish, set_attributes
from perdure._definitions.activity import Activity, InlineActivity, activity
from perdure._definitions.channel import DurableChannel
from perdure._definitions.clock import DurableClock, sleep_until
from perdure._definitions.clock import sleep as sleep
from perdure._definitions.deferred import DurableDeferred
from perdure._definitions.handle import Handle
from perdure._definitions.race import race_all
from perdure._definitions.registration import Registration
from perdure._definitions.retrying import retry
from perdure._definitions.scope import add_finalizer, scope, with_compensation
from perdure._definitions.surroundings import (
    current_attempt,
    execution_id,
    heartbeat,
    idempotency_key,
    last_heartbeat,
    patched,
)
from perdure._definitions.surroundings import (
    logger as logger,
)
from perdure._definitions.surroundings import (
    now as now,
)
from perdure._definitions.surroundings import (
    random as random,
)
from perdure._definitions.surroundings import (
    uuid4 as uuid4,
)
from perdure._definitions.workflow import (
    Workflow,
    WorkflowDefinition,
    WorkflowImplementation,
    continue_as_new,
    workflow,
)
from perdure._model.status import Status
from perdure._values.cause import Cause, Die, Fail, Interrupt, Reason
from perdure._values.duration import Duration
from perdure._values.exit import Complete, Exit, Failure, Poll, Success, Suspended
from perdure._values.retry_after import RetryAfter
from perdure._values.schedule import Schedule
from perdure._values.token import Token, TokenParsed
from perdure._values.typed_error import TypedError
from perdure.errors import (
    ActivityTimeout,
    AttemptCancelled,
    DeadlineExceeded,
    Defect,
    DefinitionError,
    ExecutionError,
    ExecutionExistsError,
    ExecutionFinishedError,
    ExecutionNotFoundError,
    ExecutionTimeoutError,
    InputError,
    Interrupted,
    LeaseLostError,
    NonDeterminismError,
    NotRegisteredError,
    OutcomeUnknown,
    OutsideExecutionError,
    PayloadError,
    PayloadMismatchError,
    PerdureError,
    SchemaVersionError,
    StoreError,
    StoreFileError,
    StoreUnavailableError,
    TokenError,
    UsageError,
    WorkflowIOError,
)

if TYPE_CHECKING:
    from perdure._facade import (
        BlockingEngine,
        BlockingHandle,
        ExecutionInfo,
        JournalEntry,
        WorkflowEngine,
        current_engine,
    )

# Equal to the one in pyproject.toml by a test: importlib.metadata would cost every import more than this line is worth.
__version__ = "0.1.0"

__all__ = [
    "Activity",
    "ActivityTimeout",
    "AttemptCancelled",
    "BlockingEngine",
    "BlockingHandle",
    "Cause",
    "Complete",
    "DeadlineExceeded",
    "Defect",
    "DefinitionError",
    "Die",
    "DurableChannel",
    "DurableClock",
    "DurableDeferred",
    "Duration",
    "ExecutionError",
    "ExecutionExistsError",
    "ExecutionFinishedError",
    "ExecutionInfo",
    "ExecutionNotFoundError",
    "ExecutionTimeoutError",
    "Exit",
    "Fail",
    "Failure",
    "Handle",
    "InlineActivity",
    "InputError",
    "Interrupt",
    "Interrupted",
    "JournalEntry",
    "LeaseLostError",
    "NonDeterminismError",
    "NotRegisteredError",
    "OutcomeUnknown",
    "OutsideExecutionError",
    "PayloadError",
    "PayloadMismatchError",
    "PerdureError",
    "Poll",
    "Reason",
    "Registration",
    "RetryAfter",
    "Schedule",
    "SchemaVersionError",
    "Status",
    "StoreError",
    "StoreFileError",
    "StoreUnavailableError",
    "Success",
    "Suspended",
    "Token",
    "TokenError",
    "TokenParsed",
    "TypedError",
    "UsageError",
    "Workflow",
    "WorkflowDefinition",
    "WorkflowEngine",
    "WorkflowIOError",
    "WorkflowImplementation",
    "activity",
    "add_finalizer",
    "continue_as_new",
    "current_attempt",
    "current_engine",
    "execution_id",
    "heartbeat",
    "idempotency_key",
    "last_heartbeat",
    "patched",
    "publish",
    "race_all",
    "retry",
    "scope",
    "set_attributes",
    "sleep_until",
    "with_compensation",
    "workflow",
]

# Under this condition, or a type checker takes every misspelt import for Any.
if not TYPE_CHECKING:
    # The engine's rooms are loaded when one is first asked for, so that code which only defines or starts workflows
    # (a web process, a test, a command line) does not wait for them.
    _LAZY = frozenset(
        {"BlockingEngine", "BlockingHandle", "ExecutionInfo", "JournalEntry", "WorkflowEngine", "current_engine"}
    )

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from perdure import _facade

        found = globals()[name] = getattr(_facade, name)
        return found

    def __dir__() -> list[str]:
        return sorted(globals().keys() | _LAZY)
