"""Who serves the jobs of a lane: opens its connection, does a batch, answers everybody.

A connection that met an I/O error is closed, and opened anew for the next job; the jobs that it
failed get an error, and their callers repeat them. A clerk keeps no connection: whoever calls it
does, on a thread's stack (see `lane`).
"""

from collections.abc import Callable
from contextlib import suppress

import apsw

from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.fault import SPOILT, translated
from perdure._stores.sqlite.job import Job, settle


class Clerk:
    """Does jobs on a connection that is handed to it, and hands back the one to go on with."""

    # How long the lane may sleep when nothing is asked of it; None: until something is.
    nap_s: float | None = None

    def __init__(self, path: str, connect: Callable[[], Connection]) -> None:
        self.path = path
        self.ending = False  # set by the closing thread, read by the lane's: waits end early
        self._connect = connect

    def serve(self, connection: Connection | None, jobs: list[Job]) -> Connection | None:
        """Do the jobs and answer them; with None the connection is opened first."""
        try:
            if connection is None:
                connection = self._connect()
            self.perform(connection, jobs)
        except BaseException as error:  # noqa: BLE001 - the lane serves on, each caller gets the error
            connection = self._kept(connection, error)
            failure = translated(error, self.path)
            for job in jobs:
                job.error = job.error or failure
        settle(jobs)
        return connection

    def relax(self, connection: Connection) -> Connection | None:
        """Do what is to be done between two batches, when everybody has an answer."""
        try:
            self.rest(connection)
        except apsw.Error as error:
            # Nobody has asked for it, so there is nobody to tell. Whatever is wrong with the
            # database meets the next job as well.
            return self._kept(connection, error)
        return connection

    # What a kind of clerk adds -------------------------------------------------------------------

    def perform(self, connection: Connection, jobs: list[Job]) -> None:
        """Do the jobs, and leave each with its result or its error."""
        raise NotImplementedError

    def rest(self, connection: Connection) -> None:
        """Do nothing between two batches, unless a kind of clerk has something to do."""

    def _kept(self, connection: Connection | None, error: BaseException) -> Connection | None:
        if connection is not None and isinstance(error, SPOILT):
            let_go(connection)
            return None
        return connection


def let_go(connection: Connection) -> None:
    """Close a connection, whatever is wrong with it: an error here would end the lane, and every later job hang."""
    with suppress(apsw.Error):
        connection.close(True)
