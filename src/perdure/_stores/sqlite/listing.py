"""What is to be seen from outside: executions by id, pages of a listing, heartbeats."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from perdure._model.records import ExecutionId, Query, Record
from perdure._model.status import Status
from perdure._stores.sqlite.driver import Connection, Value, select
from perdure._stores.sqlite.rows import COLUMNS, HELD, key, record
from perdure._values.instant import Instant

_OWNER: Final = "(SELECT id FROM perdure_workers w WHERE w.n = owner)"
_READ: Final = f"SELECT {COLUMNS}, {_OWNER} FROM perdure_executions WHERE id = ?"
_FIRST_WORKFLOW: Final = "SELECT min(workflow) FROM perdure_executions"
_NEXT_WORKFLOW: Final = "SELECT min(workflow) FROM perdure_executions WHERE workflow > ?"
_SAVE_HEARTBEAT: Final = (
    "INSERT INTO perdure_heartbeats(incarnation, name, occurrence, at, details) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET at = excluded.at, details = excluded.details"
)
_HEARTBEAT: Final = "SELECT details FROM perdure_heartbeats WHERE incarnation = ? AND name = ? AND occurrence = ?"

# True is no 1 to whoever set the attribute, but is one to SQL; 1 and 1.0 are equal to both.
_JSON_TYPES: Final = {
    bool: "'true', 'false'",
    str: "'text'",
    int: "'integer', 'real'",
    float: "'integer', 'real'",
}


def read(connection: Connection, execution_ids: Sequence[ExecutionId]) -> list[Record]:
    """The executions of these ids that exist."""
    asked = [(key(id_),) for id_ in dict.fromkeys(execution_ids)]
    return [record(row[:-1], row[-1]) for row in connection.executemany(_READ, asked)]


def executions(connection: Connection, query: Query) -> list[Record]:
    """One page of a listing, newest first."""
    if query.workflow is not None:
        return list(islice(_page(connection, query, query.workflow), query.limit))
    # The index begins with the workflow. A page of each, merged, reads a few rows of it where one
    # query over all of them would sort the whole table.
    pages = [_page(connection, query, workflow) for workflow in _workflows(connection)]
    newest_first = merge(*pages, key=lambda one: (one.created_at, one.execution_id), reverse=True)
    return list(islice(newest_first, query.limit))


def _workflows(connection: Connection) -> Iterator[str]:
    name = select(connection, _FIRST_WORKFLOW)[0][0]
    while name is not None:
        yield name
        name = select(connection, _NEXT_WORKFLOW, (name,))[0][0]


def _page(connection: Connection, query: Query, workflow: str) -> Iterator[Record]:
    return (record(row[:-1], row[-1]) for row in select(connection, *_page_sql(query, workflow)))


def _page_sql(query: Query, workflow: str) -> tuple[str, list[Value]]:
    conditions = ["workflow = ?"]
    bindings: list[Value] = [workflow]
    _add_conditions(query, conditions, bindings)
    bindings.append(query.limit)
    return (
        f"SELECT {COLUMNS}, {_OWNER} FROM perdure_executions WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, id DESC LIMIT ?"
    ), bindings


def _add_conditions(query: Query, conditions: list[str], bindings: list[Value]) -> None:
    if query.status is Status.SUSPENDED:
        conditions.append(f"status IN ('SUSPENDED', '{HELD}')")
    elif query.status is not None:
        conditions.append("status = ?")
        bindings.append(query.status)
    if query.held is not None:
        conditions.append("held = ?")
        bindings.append(query.held)
    if query.since is not None:
        conditions.append("created_at >= ?")
        bindings.append(query.since)
    if query.after is not None:
        conditions.append("(created_at, id) < (?, ?)")
        bindings += [query.after[0], key(query.after[1])]
    for name, value in query.attributes.items():
        types = _JSON_TYPES[type(value)]
        conditions.append(
            f"EXISTS (SELECT 1 FROM json_each(attributes) a WHERE a.key = ? AND a.type IN ({types}) AND a.atom = ?)"
        )
        bindings += [name, value]


def save_heartbeat(connection: Connection, attempt: tuple[bytes, str, int], details: bytes, now: Instant) -> None:
    """Keep what an attempt says of its progress; the last word wins."""
    connection.execute(_SAVE_HEARTBEAT, (*attempt, now, details))


def heartbeat(connection: Connection, attempt: tuple[bytes, str, int]) -> bytes | None:
    """What the last attempt of this step said of its progress."""
    found = select(connection, _HEARTBEAT, attempt)
    return found[0][0] if found else None
