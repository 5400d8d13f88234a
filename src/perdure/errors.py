"""The whole tree of errors and outcomes that the library itself raises.

::

    PerdureError
    ├── UsageError                     the program is written or configured wrongly
    │   ├── DefinitionError            a workflow, activity, deferred or queue cannot be defined like this
    │   ├── NotRegisteredError         no engine here has the workflow
    │   ├── OutsideExecutionError      asked for something that exists only inside a body or activity
    │   └── WorkflowIOError            a body did I/O, or read other executions
    ├── InputError                     what came in cannot be taken
    │   ├── PayloadError               a schema refused a value (fields, owner)
    │   ├── PayloadMismatchError       the execution exists with another payload (fields)
    │   └── TokenError                 a token is malformed, forged, expired or of another incarnation
    ├── ExecutionError                 about one execution
    │   ├── ExecutionNotFoundError
    │   ├── ExecutionTimeoutError      waiting for it took too long; also a TimeoutError
    │   ├── ExecutionFinishedError
    │   ├── ExecutionExistsError       on_duplicate="reject" found one
    │   └── NonDeterminismError        code and journal disagree
    ├── StoreError                     about the place where executions are remembered
    │   ├── StoreUnavailableError
    │   ├── SchemaVersionError
    │   ├── LeaseLostError
    │   ├── StoreRefusedError          the store does not take the data of one commit
    │   └── StoreFileError             not a database, somebody else's, or read-only
    └── (outcomes: how something ended, no suffix)
        ├── Defect                     an error that nobody declared
        ├── Interrupted                the execution was interrupted
        ├── DeadlineExceeded           its deadline passed
        ├── ActivityTimeout            an attempt took longer than its timeout
        ├── OutcomeUnknown             cut off by a crash, and not to be tried again
        └── AttemptCancelled           the attempt that still runs here is over

Each class has a stable ``code``, which is what crosses the journal and every protocol, and its
facts as attributes. The codes are a promise: a class may be renamed, its code may not.
"""

import traceback as _traceback
from collections.abc import Mapping
from typing import ClassVar, Final, Self

__all__ = [
    "ActivityTimeout",
    "AttemptCancelled",
    "DeadlineExceeded",
    "Defect",
    "DefinitionError",
    "ExecutionError",
    "ExecutionExistsError",
    "ExecutionFinishedError",
    "ExecutionNotFoundError",
    "ExecutionTimeoutError",
    "InputError",
    "Interrupted",
    "LeaseLostError",
    "NonDeterminismError",
    "NotRegisteredError",
    "OutcomeUnknown",
    "OutsideExecutionError",
    "PayloadError",
    "PayloadMismatchError",
    "PerdureError",
    "SchemaVersionError",
    "StoreError",
    "StoreFileError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "TokenError",
    "UsageError",
    "WorkflowIOError",
]

MAX_TRACEBACK: Final = 16 * 1024
MAX_MESSAGE: Final = 16 * 1024


class PerdureError(Exception):
    """The base of everything that the library itself raises.

    Attributes:
        code: What stands for the class in journals and protocols.

    Example:
        >>> try:
        ...     raise TokenError("The token is not base64url.")
        ... except PerdureError as error:
        ...     print(error.code, "-", error)
        token-invalid - The token is not base64url.
    """

    code: ClassVar[str] = "perdure"

    @property
    def facts(self) -> Mapping[str, object]:
        """What the error knows beside its sentence: its attributes by name."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class UsageError(PerdureError):
    """The program is written or configured wrongly; its author can act.

    Example:
        >>> from perdure import Schedule
        >>> Schedule.spaced("soon")
        Traceback (most recent call last):
        UsageError: 'soon' is not a duration. Write a timedelta, seconds as a number, or text: ...
    """

    code = "usage"


class DefinitionError(UsageError):
    """A workflow, activity, deferred or queue cannot be defined like this.

    Attributes:
        owner: The definition, as in ``Activity "charge"``.

    Example:
        >>> from perdure import TypedError
        >>> class Declined(TypedError):
        ...     args: str
        Traceback (most recent call last):
        DefinitionError: Error 'Declined': every exception has 'args' already; rename the field.
    """

    code = "definition"

    def __init__(self, message: str = "", *, owner: str = "") -> None:
        super().__init__(message)
        self.owner = owner


class NotRegisteredError(UsageError):
    """No engine here has the workflow registered (R3).

    Attributes:
        workflow: The name that was asked for.

    Example:
        >>> error = NotRegisteredError("No engine here has ProcessOrder.", workflow="ProcessOrder")
        >>> error.workflow
        'ProcessOrder'
    """

    code = "not-registered"

    def __init__(self, message: str = "", *, workflow: str = "") -> None:
        super().__init__(message)
        self.workflow = workflow


class OutsideExecutionError(UsageError):
    """Asked for something that exists only inside a workflow's body or an activity.

    Example:
        >>> from perdure import current_attempt
        >>> current_attempt()
        Traceback (most recent call last):
        OutsideExecutionError: ...
    """

    code = "outside-execution"


class WorkflowIOError(UsageError):
    """A body did asynchronous I/O or read other executions; an activity can do that (R42).

    Example:
        >>> isinstance(WorkflowIOError("Move the connection to an activity."), UsageError)
        True
    """

    code = "workflow-io"


class InputError(PerdureError):
    """What came in from outside cannot be taken; its sender can act.

    Example:
        >>> from perdure import TypedError
        >>> class Declined(TypedError):
        ...     reason: str
        >>> try:
        ...     Declined(reason=5)
        ... except InputError as error:
        ...     print(error.code, error.fields)
        payload ('reason',)
    """

    code = "input"


class PayloadError(InputError):
    """A schema refused a value: a payload, a result, a declared error, a deferred's value.

    Attributes:
        fields: Paths of the fields that were refused, as in ``items.0.price``; empty when it is the value itself.
        owner: Whose schema it was, as in ``Workflow "ProcessOrder"``.

    Example:
        >>> from perdure import TypedError
        >>> class Declined(TypedError):
        ...     reason: str
        >>> Declined(why="late")
        Traceback (most recent call last):
        PayloadError: Error 'Declined': reason: Field required; why: Unexpected keyword argument
    """

    code = "payload"

    def __init__(self, message: str = "", *, fields: tuple[str, ...] = (), owner: str = "") -> None:
        super().__init__(message)
        self.fields = fields
        self.owner = owner


class PayloadMismatchError(InputError):
    """The execution exists with another payload, and the workflow says ``on_mismatch="raise"`` (R2).

    Attributes:
        fields: The fields that differ.
        execution_id: The execution that exists.

    Example:
        >>> error = PayloadMismatchError("order-123 was started with another amount.", fields=("amount_cents",))
        >>> error.fields
        ('amount_cents',)
    """

    code = "payload-mismatch"

    def __init__(self, message: str = "", *, fields: tuple[str, ...] = (), execution_id: str = "") -> None:
        super().__init__(message)
        self.fields = fields
        self.execution_id = execution_id


class TokenError(InputError):
    """A token is malformed, unsigned where it must be signed, tampered with, expired, or of another incarnation.

    Attributes:
        reason: ``invalid``, ``expired``, or ``outdated``: for a life of the execution that has ended. What makes one
            invalid is not told, so that nobody can feel their way to a valid one.

    Example:
        >>> error = TokenError("This token has expired.", reason="expired")
        >>> error.reason, str(error)
        ('expired', 'This token has expired.')
    """

    code = "token-invalid"

    def __init__(self, message: str = "", *, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class ExecutionError(PerdureError):
    """About one execution.

    Attributes:
        execution_id: The execution.

    Example:
        >>> error = ExecutionNotFoundError("No such execution.", execution_id="fc0cd826dc208968186d2747adc6831f")
        >>> isinstance(error, ExecutionError), error.execution_id
        (True, 'fc0cd826dc208968186d2747adc6831f')
    """

    code = "execution"

    def __init__(self, message: str = "", *, execution_id: str = "") -> None:
        super().__init__(message)
        self.execution_id = execution_id


class ExecutionNotFoundError(ExecutionError):
    """No execution has this id, or it was purged.

    Example:
        >>> ExecutionNotFoundError("No such execution.", execution_id="fc0cd826").code
        'execution-not-found'
    """

    code = "execution-not-found"


class ExecutionTimeoutError(ExecutionError, TimeoutError):
    """Waiting for the execution took longer than asked; the execution goes on.

    Example:
        >>> try:
        ...     raise ExecutionTimeoutError("ProcessOrder still runs after 5 seconds.", execution_id="fc0cd826")
        ... except TimeoutError as error:
        ...     print(error.execution_id, "goes on")
        fc0cd826 goes on
    """

    code = "execution-timeout"


class ExecutionFinishedError(ExecutionError):
    """The execution has finished and takes nothing more.

    Example:
        >>> ExecutionFinishedError("It has finished.", execution_id="fc0cd826").execution_id
        'fc0cd826'
    """

    code = "execution-finished"


class ExecutionExistsError(ExecutionError):
    """An execution of this id exists, and ``on_duplicate="reject"`` was asked for (R2).

    Example:
        >>> ExecutionExistsError("It exists.", execution_id="fc0cd826").execution_id
        'fc0cd826'
    """

    code = "execution-exists"


class NonDeterminismError(ExecutionError):
    """Code and journal disagree: the code asks for a step that the journal does not have at this place (R8).

    Attributes:
        execution_id: The execution.
        step: What the code asked for, as in ``activity "charge"``.
        entry: The number of the journal's entry that it disagrees with, or None.
        recorded_input: The input in the journal as JSON text, or None.
        asked_input: The input that the code gave as JSON text, or None.
        where: File and line of the call, as in ``orders.py:31``.

    Example:
        >>> error = NonDeterminismError("differs", step='activity "charge"', entry=3, where="orders.py:31")
        >>> error.step, error.entry, error.where
        ('activity "charge"', 3, 'orders.py:31')
    """

    code = "non-determinism"

    def __init__(
        self,
        message: str = "",
        *,
        execution_id: str = "",
        step: str = "",
        entry: int | None = None,
        recorded_input: str | None = None,
        asked_input: str | None = None,
        where: str = "",
    ) -> None:
        super().__init__(message, execution_id=execution_id)
        self.step = step
        self.entry = entry
        self.recorded_input = recorded_input
        self.asked_input = asked_input
        self.where = where


class StoreError(PerdureError):
    """About the place where executions are remembered; its operator can act.

    Example:
        >>> issubclass(StoreUnavailableError, StoreError)
        True
    """

    code = "store"


class StoreUnavailableError(StoreError):
    """The store does not answer, or its disk is full; trying again later may help.

    Example:
        >>> StoreUnavailableError("The disk is full.").code
        'store-unavailable'
    """

    code = "store-unavailable"


class SchemaVersionError(StoreError):
    """The store's tables are of a version that this release cannot use.

    Attributes:
        found: The version in the store, or None.
        supported: The newest version that this release knows, or None.

    Example:
        >>> error = SchemaVersionError("The file is of a newer release.", found=9, supported=1)
        >>> error.found, error.supported
        (9, 1)
    """

    code = "schema-version"

    def __init__(self, message: str = "", *, found: int | None = None, supported: int | None = None) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported


class LeaseLostError(StoreError):
    """This worker's right to write has ended; what it meant to write was not written.

    Attributes:
        worker_id: The worker.

    Example:
        >>> LeaseLostError("The lease had ended.", worker_id="4f2a").worker_id
        '4f2a'
    """

    code = "lease-lost"

    def __init__(self, message: str = "", *, worker_id: str = "") -> None:
        super().__init__(message)
        self.worker_id = worker_id


class StoreRefusedError(StoreError):
    """The store does not take the data of one commit, and would not take it later; nothing of it was written.

    Example:
        >>> StoreRefusedError("The database refused the data; nothing was written.").code
        'store-refused'
    """

    code = "store-refused"


class StoreFileError(StoreError):
    """The file is not a database, belongs to another application, or cannot be written.

    Attributes:
        path: The file.

    Example:
        >>> StoreFileError("notes.txt is not a database.", path="notes.txt").path
        'notes.txt'
    """

    code = "store-file"

    def __init__(self, message: str = "", *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Defect(PerdureError):
    """An error that nobody declared, as it crosses the journal: by name, message and traceback text.

    Attributes:
        type_name: The name of the original class.
        message: What the original said.
        traceback: The original's traceback as text; at most 16 KiB, the end is kept.

    Example:
        >>> str(Defect.from_exception(RuntimeError("wires crossed")))
        'RuntimeError: wires crossed'
    """

    code = "defect"

    def __init__(self, type_name: str = "Defect", message: str = "", traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    @classmethod
    def from_exception(cls, exception: BaseException) -> Self:
        """Describe an exception; one that is a defect already is given back as it is."""
        if isinstance(exception, cls):
            return exception
        # TracebackException survives a __str__ that raises; str(exception) does not.
        described = _traceback.TracebackException.from_exception(exception, compact=True)
        return cls(
            type(exception).__name__,
            storable(str(described))[:MAX_MESSAGE],
            storable("".join(described.format()))[-MAX_TRACEBACK:],
        )


class Interrupted(PerdureError):
    """The execution, or what was waited for, was interrupted.

    Example:
        >>> from perdure import Cause, Failure
        >>> Failure(Cause.interrupt()).unwrap()
        Traceback (most recent call last):
        Interrupted: Interrupted
    """

    code = "interrupted"

    def __init__(self, message: str = "Interrupted") -> None:
        super().__init__(message)


class DeadlineExceeded(PerdureError):
    """The execution's deadline passed before it finished (R44).

    Example:
        >>> from perdure import Cause
        >>> print(Cause.from_exception(DeadlineExceeded()))
        The deadline passed.
    """

    code = "deadline-exceeded"

    def __init__(self, message: str = "The deadline passed.") -> None:
        super().__init__(message)


class ActivityTimeout(PerdureError):
    """An attempt took longer than its activity's timeout; it may be retried (R12).

    Attributes:
        activity: The activity's name.
        attempt: The attempt's number, from 1.
        timeout_ms: The timeout that passed.

    Example:
        >>> error = ActivityTimeout("charge took longer than 5 seconds.", activity="charge", attempt=2, timeout_ms=5000)
        >>> error.activity, error.attempt
        ('charge', 2)
    """

    code = "activity-timeout"

    def __init__(
        self,
        message: str = "The attempt took longer than its timeout.",
        *,
        activity: str = "",
        attempt: int = 1,
        timeout_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.activity = activity
        self.attempt = attempt
        self.timeout_ms = timeout_ms


class OutcomeUnknown(PerdureError):
    """A crash cut the attempt off after it began, and ``delivery="at_most_once"`` forbids another (R50).

    Attributes:
        activity: The activity's name.
        attempt: The attempt's number, from 1.

    Example:
        >>> try:
        ...     raise OutcomeUnknown(activity="charge")
        ... except OutcomeUnknown as error:
        ...     print(f"ask the gateway whether {error.activity} went through")
        ask the gateway whether charge went through
    """

    code = "outcome-unknown"

    def __init__(
        self, message: str = "Nobody knows how the attempt ended.", *, activity: str = "", attempt: int = 1
    ) -> None:
        super().__init__(message)
        self.activity = activity
        self.attempt = attempt


class AttemptCancelled(PerdureError):
    """The attempt that still runs in this thread is over; what it returns will be ignored (R15).

    Example:
        >>> print(AttemptCancelled())
        This attempt is over; its result will be ignored.
    """

    code = "attempt-cancelled"

    def __init__(self, message: str = "This attempt is over; its result will be ignored.") -> None:
        super().__init__(message)


def class_of(code: str) -> type[PerdureError] | None:
    """Find the class that a code in a journal or protocol stands for; None if this release has none."""
    return _CLASSES.get(code)


def storable(text: str) -> str:
    """Give the text with what databases and JSON cannot store written out as an escape."""
    # Lone surrogates and NUL cannot be stored as text by every database; a defect must always be storable.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _tree(base: type[PerdureError]) -> dict[str, type[PerdureError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


# Taken once, when this module ends: a user's own subclass must not take over a code.
_CLASSES: Final = _tree(PerdureError)
