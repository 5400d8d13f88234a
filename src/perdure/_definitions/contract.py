"""What a workflow is apart from its body: name, payload, exits, identity. All that a client needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict

from perdure import _ids
from perdure._definitions.host import OnMismatch
from perdure._definitions.name import check_key, check_name
from perdure._definitions.payload import Payload
from perdure._definitions.policy import Errors, read_errors
from perdure._definitions.signature import RESULT, is_function
from perdure._model.records import ExecutionId
from perdure._values.duration import Duration, to_ms
from perdure._values.exit_codec import ExitCodec
from perdure._values.schema import Schema
from perdure.errors import DefinitionError

_MISMATCHES: Final = ("warn", "raise")

# How long finished executions stay: a number of milliseconds; None, for ever; or whatever the engine says.
Retention: TypeAlias = int | Literal["default"] | None


class WorkflowSettings(TypedDict, total=False):
    """What a workflow can be told, in each of its forms."""

    error: Errors[Exception]
    suspend_on_failure: bool
    capture_defects: bool
    on_mismatch: Literal["warn", "raise"]
    retention: Duration | None
    version: str


class Identified(NamedTuple):
    """A payload that can be recorded, and what it says about identity."""

    payload: bytes
    # None: the workflow has no idempotency key, or an id was given.
    key: str | None
    # None: each start is a new execution (R1).
    execution_id: ExecutionId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A workflow without its body.

    Attributes:
        name: What executions are stored under.
        payload: Reads and writes its payloads.
        codec: Reads and writes its exits.
        key: Makes the idempotency key from what the body gets; None: each start is a new execution.
        captures_defects: Whether an undeclared error is its result; else it is held with it (R35).
        suspends_on_failure: Whether a failure holds it, instead of being its result (R36).
        retention_ms: How long finished executions stay, and their ids are remembered (R2).
        on_mismatch: What happens when an execution exists with another payload (R2).
        version: Of its body, for those who look.
    """

    name: str
    payload: Payload
    codec: ExitCodec[Any]
    key: Callable[..., str] | None
    captures_defects: bool
    suspends_on_failure: bool
    retention_ms: Retention
    on_mismatch: OnMismatch
    version: str | None

    def identify(self, args: tuple[Any, ...], kwargs: dict[str, Any], given_id: ExecutionId | None) -> Identified:
        """Validate a payload and say whose it is. The key is made from what is recorded, defaults included (R1).

        Raises:
            PayloadError: A field, or the key made from the payload, cannot be recorded.
            Exception: What the key function itself raised, with a note.
        """
        encoded = self.payload.encode(args, kwargs)
        if given_id is not None or self.key is None:
            return Identified(encoded.raw, None, given_id)
        try:
            made = self.key(*encoded.args, **encoded.kwargs)
        except Exception as raised:
            raised.add_note(f'It was raised by the idempotency_key of workflow "{self.name}".')
            raise
        key = check_key(made, self.name)
        return Identified(encoded.raw, key, _ids.execution_id(self.name, key))


def owner_of(name: str) -> str:
    """Say whose schema something is, as errors do."""
    return f'Workflow "{name}"'


def contract_of(
    name: str, payload: Payload, success: Any, key: Callable[..., str] | None, settings: WorkflowSettings
) -> Contract:
    """Put a contract together.

    Raises:
        DefinitionError: Something in it cannot be stored, or makes no sense.
    """
    owner = owner_of(name)
    if unknown := settings.keys() - WorkflowSettings.__optional_keys__:
        raise TypeError(f"{owner} got an unexpected keyword argument {min(unknown)!r}")
    if key is not None and not is_function(key):
        raise DefinitionError(
            f"{owner}: idempotency_key must be a function of the payload, as in `lambda order: order.order_id`, "
            f"not {key!r}.",
            owner=owner,
        )
    mismatch = settings.get("on_mismatch", "warn")
    if mismatch not in _MISMATCHES:
        raise DefinitionError(f"{owner}: on_mismatch must be 'warn' or 'raise', not {mismatch!r}.", owner=owner)
    version = settings.get("version")
    return Contract(
        name=name,
        payload=payload,
        codec=ExitCodec(Schema(success, owner, RESULT), read_errors(settings.get("error", ())), owner),
        key=key,
        captures_defects=_is_true(
            settings.get("capture_defects", True),
            owner,
            "capture_defects is True (a defect is its result) or False (a defect holds it)",
        ),
        suspends_on_failure=_is_true(
            settings.get("suspend_on_failure", False),
            owner,
            "suspend_on_failure is True (a failure holds it) or False (a failure is its result)",
        ),
        retention_ms=_retention_ms(settings.get("retention", "default"), owner),
        on_mismatch=mismatch,
        version=None if version is None else check_name(version, f"the version of {owner}"),
    )


def _is_true(choice: object, owner: str, meaning: str) -> bool:
    # Taken for its truth, "no" would mean yes, and be found out by the first bug.
    if isinstance(choice, bool):
        return choice
    raise DefinitionError(f"{owner}: {meaning}, not {choice!r}.", owner=owner)


def _retention_ms(retention: Duration | None, owner: str) -> Retention:
    if retention is None:
        return None
    if retention == "default":
        return "default"
    retention_ms = to_ms(retention)
    if retention_ms < 0:
        raise DefinitionError(
            f"{owner}: retention is how long finished executions stay, or None for ever, not {retention!r}.",
            owner=owner,
        )
    return retention_ms
