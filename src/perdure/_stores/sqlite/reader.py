"""The clerk of those who only look: each job sees one snapshot, and waits for no writer."""

from perdure._stores.sqlite.clerk import Clerk
from perdure._stores.sqlite.driver import Connection
from perdure._stores.sqlite.fault import SPOILT, translated
from perdure._stores.sqlite.job import Job


class Reader(Clerk):
    """Runs each job in a read transaction of its own."""

    def perform(self, connection: Connection, jobs: list[Job]) -> None:
        """Do the jobs, each for itself."""
        for job in jobs:
            connection.execute("BEGIN")
            try:
                job.run(connection)
            except SPOILT:
                raise
            except Exception as error:  # noqa: BLE001 - one job's error is not its neighbours'
                job.error = translated(error, self.path)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
