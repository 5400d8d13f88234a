"""What an engine and a listing are asked with: options and conditions, read and checked."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict, TypeVar

from perdure._definitions.name import check_attributes
from perdure._definitions.workflow import Workflow
from perdure._engine.settings import Settings
from perdure._model.records import Attributes, Query
from perdure._model.status import Held, Status
from perdure._values.duration import Duration, to_ms, to_timedelta
from perdure._values.instant import Instant, from_datetime
from perdure._values.token import TokenKeys
from perdure.errors import UsageError

S = TypeVar("S", bound=StrEnum)


class EngineOptions(TypedDict, total=False):
    """The options of an engine, the same for every store.

    Attributes:
        concurrency: How many activities run at once (100).
        threads: How many of them on threads, as plain functions (32).
        admission: How many executions are in hand at once; more are stored and wait their turn (1,000).
        cache: How many suspended executions stay in memory, or (count, bytes of journal); 0: none, so every
            await replays, and local code in `finally` runs at every await (10,000 and 256 MiB).
        grace: How long running activities may go on when the engine closes ("5 seconds").
        payload_limit: The largest encoded payload or result in bytes (4 MiB).
        token_secret: What tokens of deferreds are signed with: one secret, or several by key id, of which the first
            signs and all are taken (none: they are not signed).
        retention: How long finished executions are kept, where their workflow says nothing else; None: for ever
            ("30 days").
    """

    concurrency: int
    threads: int
    admission: int
    cache: int | tuple[int, int]
    grace: Duration
    payload_limit: int
    token_secret: str | bytes | Mapping[str, str | bytes]
    retention: Duration | None


def settings_of(options: EngineOptions) -> Settings:
    """Read the options of an engine.

    Raises:
        UsageError: One is not known, or makes no sense.
    """
    known = EngineOptions.__annotations__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"An engine has no option {unknown[0]!r}. It has: {', '.join(known)}.")
    defaults = Settings()
    count, size = _cache(options.get("cache", defaults.cache_count), defaults.cache_bytes)
    return Settings(
        concurrency=positive("concurrency", options.get("concurrency", defaults.concurrency)),
        threads=positive("threads", options.get("threads", defaults.threads)),
        admission=positive("admission", options.get("admission", defaults.admission)),
        cache_count=count,
        cache_bytes=size,
        grace=to_timedelta(options.get("grace", defaults.grace)),
        payload_limit=positive("payload_limit", options.get("payload_limit", defaults.payload_limit)),
        token_keys=TokenKeys(options["token_secret"]) if "token_secret" in options else None,
        retention_ms=_retention(options["retention"]) if "retention" in options else defaults.retention_ms,
    )


def _retention(value: Duration | None) -> int | None:
    if value is None:
        return None
    kept_ms = to_ms(value)
    if kept_ms < 0:
        raise UsageError(f"retention= is how long finished executions are kept, or None: for ever; not {value!r}.")
    return kept_ms


def _cache(value: object, default_bytes: int) -> tuple[int, int]:
    match value:
        case int() as count if count >= 0 and not isinstance(count, bool):
            return count, default_bytes
        case (int() as count, int() as size) if count >= 0 and size >= 0:
            return count, size
        case _:
            raise UsageError(f"cache= is a number of executions from 0, or (number, bytes of journal), not {value!r}.")


def query_of(
    workflow: str | Workflow[..., Any] | None,
    status: Status | None,
    held: Held | str | None,
    since: datetime | None,
    attributes: Attributes | None,
) -> Query:
    """Read the conditions of a listing.

    Raises:
        UsageError: One makes no sense.
    """
    return Query(
        workflow=workflow.name if isinstance(workflow, Workflow) else workflow,
        status=None if status is None else _one_of(Status, status, "status"),
        held=None if held is None else _one_of(Held, held, "held"),
        since=None if since is None else _instant("since", since),
        attributes=check_attributes(attributes or {}),
    )


def _one_of(kind: type[S], value: object, name: str) -> S:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise UsageError(f"{name}= is one of {known}, not {value!r}.") from None


def _instant(name: str, value: object) -> Instant:
    if not isinstance(value, datetime):
        raise UsageError(f"{name}= is an aware datetime, not {value!r}.")
    return from_datetime(value)


def positive(name: str, value: object, *, least: int = 1) -> int:
    """Read a number from `least`.

    Raises:
        UsageError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}= is a number from {least}, not {value!r}.")
    return value
