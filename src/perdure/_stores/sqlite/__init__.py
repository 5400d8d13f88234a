"""The store on one SQLite file, or in memory."""

from perdure._stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
