"""Where a definition finds what is around it: the host of a body, the attempt of an activity, the engine.

A body's context holds its host and nothing of whoever started it (R14). An activity gets a copy of
the body's context in which the attempt stands in the host's place.
"""

from contextvars import ContextVar

from perdure._definitions.host import AttemptScope, Engine, Host
from perdure.errors import OutsideExecutionError, UsageError

# The kernel whose body runs in this context. None in activities and everywhere outside.
host: ContextVar[Host | None] = ContextVar("perdure_host", default=None)
# The attempt that runs in this context. None in bodies and everywhere outside.
attempt: ContextVar[AttemptScope | None] = ContextVar("perdure_attempt", default=None)
# The engine most recently opened in this context.
engine: ContextVar[Engine | None] = ContextVar("perdure_engine", default=None)

# Every engine that is open in this process, so that code whose context does not come from the one
# that opened the engine (a request handler under a server's lifespan) finds the only one there is.
open_engines: list[Engine] = []


def require_host(what: str) -> Host:
    """The host of the body that runs here.

    Raises:
        OutsideExecutionError: No body runs here; `what` names the call that needs one.
    """
    found = host.get()
    if found is None:
        raise OutsideExecutionError(f"{what} works inside a workflow body only; no body runs here.")
    return found


def find_engine() -> Engine:
    """The engine for a call that names none: of this body or activity, of this context, or the only one open.

    Raises:
        UsageError: None is open, or several are.
    """
    running = attempt.get()
    if running is not None:
        return running.engine
    nearest = engine.get()
    # A body's own engine also while it closes: its last turns are taken then, and what they are told is recorded.
    if nearest is not None and (nearest in open_engines or host.get() is not None):
        return nearest
    if len(open_engines) == 1:
        return open_engines[0]
    if not open_engines:
        raise UsageError(
            "No engine is open. Open one first: `async with WorkflowEngine.sqlite('orders.perdure', [...]):`."
        )
    raise UsageError(
        f"{len(open_engines)} engines are open in this process. Say which one: `wf.options(engine=engine)`, or `engine=`."
    )
