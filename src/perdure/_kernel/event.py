"""What goes into a kernel and what may come out of it instead of an end: values, and what mail is as an event."""

from typing import Any, Final, NamedTuple

from perdure._model.journal import Entry, Kind
from perdure._model.records import ExecutionId, Letter, MailKind, message_name, read_message_name
from perdure._model.status import Held
from perdure._values.instant import Instant

# Trouble that a turn does not come to rest with.
_UNFINISHED: Final = frozenset({Held.DIVERGENCE, Held.UNREADABLE, Held.SPINNING})


class Origin(NamedTuple):
    """Whose body a kernel runs, and what its determinism hangs on."""

    execution_id: ExecutionId
    life: int
    workflow: str
    seed: bytes
    began_at: Instant
    # Whether this is the first turn that anybody has ever run of it (R8a).
    unborn: bool
    # What keys the life in the store. Another one than the seed, where it goes on with an earlier life's journal.
    incarnation: bytes = b""
    priority: int = 0
    deadline: Instant | None = None


class Event(NamedTuple):
    """Something that has just happened to a live execution, before it has a place in the journal."""

    kind: Kind
    name: str
    occurrence: int
    attempt: int
    input: bytes
    exit: bytes
    at: Instant
    # The value that `exit` encodes, already passed through its schema, so that it is parsed once.
    value: Any = None
    has_value: bool = False
    # Its attempt had been cut off; then nobody need wait for it any more.
    cut_off: bool = False


class Trouble(NamedTuple):
    """Why a kernel cannot go on; its execution is held with this."""

    held: Held
    error: BaseException
    # The cause, where it is encoded already: the exit that the body came to.
    exit: bytes | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether a turn does not come to rest with it: nobody knows what it would have come to."""
        return self.held in _UNFINISHED


def event_of(letter: Letter) -> Event:
    """The event that a letter is. Which step it answers, the kernel knows."""
    kind, name, asked, attempt = Kind.DEFERRED, letter.name, b"", 0
    match letter.kind:
        case MailKind.MESSAGE:
            name, message_id = read_message_name(letter.name)
            kind, asked = Kind.MESSAGE, message_id.encode()
        case MailKind.CHILD:
            kind, name, asked = Kind.CHILD, "", letter.name.encode()
        case MailKind.PAYLOAD:
            kind = Kind.PAYLOAD
        case MailKind.FREED:
            child, _, number = letter.name.partition("/")
            kind, name, asked, attempt = Kind.FREED, "", child.encode(), int(number)
        case MailKind.INTERRUPT:
            # An entry has a name; and journals that were written before deadlines had letters of their own have this one.
            kind, name = Kind.INTERRUPT, letter.name or "interrupt"
        case MailKind.SKIP:
            kind = Kind.SKIP
        case _:
            pass
    return Event(kind, name, 1, attempt, asked, letter.exit, letter.at)


def told_apart(step: Event | Entry) -> str:
    """What tells a letter apart from the others of its kind."""
    match step.kind:
        case Kind.MESSAGE:
            return message_name(step.name, step.input.decode())
        case Kind.CHILD:
            return step.input.decode()
        case Kind.FREED:
            return f"{step.input.decode()}/{step.attempt}"
        case _:
            return step.name
