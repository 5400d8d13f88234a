"""What is to be seen from outside: executions by id, pages of a listing, heartbeats, and what a body shows."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Final

from perdure._model.records import ExecutionId, Query, Record
from perdure._model.status import Status
from perdure._stores.sqlite.driver import Connection, Value, select
from perdure._stores.sqlite.place import Places
from perdure._stores.sqlite.rows import COLUMNS, HELD, key, record
from perdure._values.instant import Instant

_OWNER: Final = "(SELECT id FROM perdure_workers w WHERE w.n = owner)"
_READ: Final = f"SELECT n, {COLUMNS}, {_OWNER} FROM perdure_executions WHERE id = ?"
_READ_AT: Final = f"SELECT n, {COLUMNS}, {_OWNER} FROM perdure_executions WHERE n = ? AND id = ?"
_FIRST_WORKFLOW: Final = "SELECT min(workflow) FROM perdure_executions"
_NEXT_WORKFLOW: Final = "SELECT min(workflow) FROM perdure_executions WHERE workflow > ?"
_SAVE_HEARTBEAT: Final = (
    "INSERT INTO perdure_heartbeats(incarnation, name, occurrence, at, details) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET at = excluded.at, details = excluded.details"
)
_PUBLISH: Final = (
    "INSERT INTO perdure_published(incarnation, name, at, value) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET at = excluded.at, value = excluded.value"
)
_PUBLISHED: Final = (
    "SELECT p.name, p.value FROM perdure_executions e CROSS JOIN perdure_published p ON p.incarnation = e.incarnation"
    " WHERE e.id = ? ORDER BY p.name"
)
_HEARTBEAT: Final = "SELECT details FROM perdure_heartbeats WHERE incarnation = ? AND name = ? AND occurrence = ?"

# Which index lists the executions of a status (None: of any), and the conditions that tell SQLite that they are in it.
# Named, because without statistics the planner cannot know that of a million finished executions five have failed.
_BY_STATUS: Final = ("perdure_executions_status", ["status = ?", "status NOT IN ('RUNNING', 'SUCCEEDED')"])
_INDEXES: Final[Mapping[str | None, tuple[str, list[str]]]] = {
    None: ("perdure_executions_list", []),
    # Nearly all of them, sooner or later.
    "SUCCEEDED": ("perdure_executions_list", ["status = ?"]),
    # As many as the workers have in hand, whatever there is beside them; they are sorted.
    "RUNNING": ("perdure_executions_wake", ["status = ?", "owner IS NOT NULL", "wake_at IS NOT NULL"]),
}

# True is no 1 to whoever set the attribute, but is one to SQL; 1 and 1.0 are equal to both.
_JSON_TYPES: Final = {
    bool: "'true', 'false'",
    str: "'text'",
    int: "'integer', 'real'",
    float: "'integer', 'real'",
}


def read(connection: Connection, execution_ids: Sequence[ExecutionId], places: Places | None = None) -> list[Record]:
    """The executions of these ids that exist, in this order; `places` says where to look first."""
    asked = list(dict.fromkeys(map(key, execution_ids)))
    guesses = [] if places is None else places.guesses(asked)
    found = {row[1]: row for row in connection.executemany(_READ_AT, guesses)}
    for row in connection.executemany(_READ, [(id_,) for id_ in asked if id_ not in found]):
        found[row[1]] = row
        if places is not None:
            places.note([row[1]], row[0])
    rows = [found[id_] for id_ in asked if id_ in found]
    return [record(row[1:-1], row[-1]) for row in rows]


def executions(connection: Connection, query: Query) -> list[Record]:
    """One page of a listing, newest first."""
    workflows = _workflows(connection) if query.workflow is None else [query.workflow]
    # Every index of a listing begins with the workflow, and with a status where there is one. A page of each, merged,
    # reads a few rows of it where one query over all of them would sort the whole table.
    pages = [_page(connection, query, workflow, status) for workflow in workflows for status in _statuses(query)]
    newest_first = merge(*pages, key=lambda one: (one.created_at, one.execution_id), reverse=True)
    return list(islice(newest_first, query.limit))


def _statuses(query: Query) -> tuple[str | None, ...]:
    """The statuses, as rows have them, that a listing is about; None: whatever they are."""
    if query.status is Status.SUSPENDED:
        return (HELD,) if query.held is not None else ("SUSPENDED", HELD)
    if query.status is None and query.held is not None:
        return (HELD,)
    return (query.status,)


def _workflows(connection: Connection) -> Iterator[str]:
    name = select(connection, _FIRST_WORKFLOW)[0][0]
    while name is not None:
        yield name
        name = select(connection, _NEXT_WORKFLOW, (name,))[0][0]


def _page(connection: Connection, query: Query, workflow: str, status: str | None) -> Iterator[Record]:
    return (record(row[:-1], row[-1]) for row in select(connection, *_page_sql(query, workflow, status)))


def _page_sql(query: Query, workflow: str, status: str | None) -> tuple[str, list[Value]]:
    index, narrowed = _INDEXES.get(status, _BY_STATUS)
    conditions = ["workflow = ?", *narrowed]
    bindings: list[Value] = [workflow] if status is None else [workflow, status]
    _add_conditions(query, conditions, bindings)
    bindings.append(query.limit)
    return (
        f"SELECT {COLUMNS}, {_OWNER} FROM perdure_executions INDEXED BY {index} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, id DESC LIMIT ?"
    ), bindings


def _add_conditions(query: Query, conditions: list[str], bindings: list[Value]) -> None:
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
            # One row that is no JSON any more would end the query for all of them.
            "EXISTS (SELECT 1 FROM json_each(iif(json_valid(attributes), attributes, '{}')) a"
            f" WHERE a.key = ? AND a.type IN ({types}) AND a.atom = ?)"
        )
        bindings += [name, value]


def save_heartbeat(connection: Connection, attempt: tuple[bytes, str, int], details: bytes, now: Instant) -> None:
    """Keep what an attempt says of its progress; the last word wins."""
    connection.execute(_SAVE_HEARTBEAT, (*attempt, now, details))


def heartbeat(connection: Connection, attempt: tuple[bytes, str, int]) -> bytes | None:
    """What the last attempt of this step said of its progress."""
    found = select(connection, _HEARTBEAT, attempt)
    return found[0][0] if found else None


def publish(connection: Connection, shown: tuple[bytes, str], value: bytes, now: Instant) -> None:
    """Keep what a body shows under a name; the last word wins."""
    connection.execute(_PUBLISH, (*shown, now, value))


def published(connection: Connection, execution_id: ExecutionId) -> dict[str, bytes]:
    """What the body of the present life has shown, by name."""
    return dict(select(connection, _PUBLISHED, (key(execution_id),)))
