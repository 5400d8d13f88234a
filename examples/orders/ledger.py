"""The gateway's ledger: every request that came in and every decision that was made, in a SQLite file of its own."""

import sqlite3
import threading
import time
from dataclasses import astuple, dataclass
from pathlib import Path

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;  -- outlives its process; a power failure is not part of this demo
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    idempotency_key TEXT NOT NULL,
    order_id TEXT NOT NULL,
    client TEXT NOT NULL,
    arrived_at REAL NOT NULL,  -- seconds since the epoch
    outcome TEXT CHECK (outcome IN ('charged', 'declined', 'unavailable', 'repeated', 'refused'))  -- NULL in flight
);
CREATE INDEX requests_by_key ON requests (idempotency_key);
CREATE TABLE decisions (  -- by key and not by order: nothing here hides an order that was charged under two keys
    idempotency_key TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    currency TEXT NOT NULL,
    charge_id TEXT,
    decline_code TEXT,
    CHECK ((charge_id IS NULL) <> (decline_code IS NULL))
);
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gateway answered to a key, and will always answer to it."""

    order_id: str
    amount_cents: int
    currency: str
    charge_id: str | None
    decline_code: str | None

    @property
    def outcome(self) -> str:
        return "charged" if self.charge_id else "declined"


class Ledger:
    """The ledger as the gateway writes it; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript(SCHEMA)
        self._lock = threading.Lock()

    def arrive(self, key: str, order_id: str, client: str) -> int:
        with self._lock:
            cursor = self._connection.execute(
                "INSERT INTO requests (idempotency_key, order_id, client, arrived_at) VALUES (?, ?, ?, ?)",
                (key, order_id, client, time.time()),
            )
            return cursor.lastrowid or 0

    def decision(self, key: str) -> Decision | None:
        with self._lock:
            row = self._connection.execute(
                "SELECT order_id, amount_cents, currency, charge_id, decline_code"
                " FROM decisions WHERE idempotency_key = ?",
                (key,),
            ).fetchone()
        return Decision(*row) if row else None

    def decide(self, request_id: int, key: str, decision: Decision) -> None:
        """Commit a decision and the outcome of the request that led to it, together."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?)", (key, *astuple(decision)))
            self._set_outcome(request_id, decision.outcome)

    def settle(self, request_id: int, outcome: str) -> None:
        with self._lock:
            self._set_outcome(request_id, outcome)

    def times_unavailable(self, key: str) -> int:
        query = "SELECT count(*) FROM requests WHERE idempotency_key = ? AND outcome = 'unavailable'"
        with self._lock:
            return self._connection.execute(query, (key,)).fetchone()[0]

    def _set_outcome(self, request_id: int, outcome: str) -> None:
        self._connection.execute("UPDATE requests SET outcome = ? WHERE id = ?", (outcome, request_id))
