"""What a check of a user's is told of a simulated run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure._engine.views import journal_entry
from perdure._model.info import JournalEntry
from perdure._model.journal import Entry
from perdure._model.records import Record
from perdure._model.status import Held, Status
from perdure._values.exit import Exit
from perdure._values.exit_codec import ExitCodec, decode_loosely


class SimulatedExecution:
    """One execution of a simulated run, as a user's check sees it.

    Attributes:
        execution_id: Its id.
        workflow: The workflow's name.
        key: Its idempotency key; None where its id is random.
        status: SUCCEEDED, FAILED or INTERRUPTED; SUSPENDED, if it is held.
        held: Why it will not move by itself; None: it is not held.
    """

    execution_id: str
    workflow: str
    key: str | None
    status: Status
    held: Held | None

    def __init__(
        self, record: Record, codec: ExitCodec[Any], entries: Sequence[Entry], begun: Mapping[str, int]
    ) -> None:
        """Made by `simulate`."""
        self.execution_id = record.execution_id
        self.workflow = record.workflow
        self.key = record.key
        self.status = record.status
        self.held = record.held
        self._encoded: bytes = record.exit or b""
        self._codec: ExitCodec[Any] = codec
        self._entries: Sequence[Entry] = entries
        self._begun: Mapping[str, int] = begun

    @property
    def exit(self) -> Exit[Any]:
        """How it ended, with the types of its workflow; the cause, if it is held."""
        return decode_loosely(self._encoded) if self.held is not None else self._codec.decode(self._encoded)

    @property
    def result(self) -> Any:
        """Its value; raises what it failed with."""
        return self.exit.unwrap()

    @property
    def journal(self) -> list[JournalEntry]:
        """Its journal; of its last life, if it was restarted or went on as a new one."""
        return [journal_entry(entry) for entry in self._entries]

    def attempts(self, activity: str) -> int:
        """How often a process began to call that activity, in all its lives.

        More than once a step, where a worker has crashed.
        """
        return self._begun.get(activity, 0)


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """One run of `simulate`, for a check of one's own.

    Attributes:
        case: The line that repeats the run.
        executions: Every execution of the run: what was started, and what that started.
    """

    case: str
    executions: list[SimulatedExecution]

    @property
    def execution(self) -> SimulatedExecution:
        """The one that was started first; where one was started, the one."""
        return self.executions[0]

    @property
    def result(self) -> Any:
        """The value of the execution that was started; raises what it failed with."""
        return self.execution.result
