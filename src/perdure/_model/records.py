"""What passes through the store's port: starts, commits and their answers, and what is read back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from perdure import _ids
from perdure._model.journal import Entry
from perdure._model.status import Held, Status
from perdure._values.instant import Instant

ExecutionId = str  # 32 lower-case hex digits (R1)
WorkerId = str  # random, new for every engine that opens

Attributes = Mapping[str, str | int | float | bool]

# What stands in a record whose attributes cannot be read: this very object.
UNREADABLE: Final[Attributes] = MappingProxyType({})


@dataclass(slots=True, kw_only=True, eq=False)
class Start:
    """An execution that is to come into being, as its starter writes it."""

    execution_id: ExecutionId
    # A time-ordered random id made by the starter. It keys journal and mailbox, and tells after a
    # lost reply whether the row that is there is this start's own.
    incarnation: bytes
    number: int = 1  # which life of the id
    workflow: str
    key: str | None = None  # the readable idempotency key; None where the id is random
    payload: bytes
    priority: int = 0
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    version: str | None = None
    # When the first turn was taken, where its starter has taken it already. None: the first claim says.
    began_at: Instant | None = None
    # When a delayed start is due: it is born SUSPENDED with this as its wake. None: at once.
    due_at: Instant | None = None
    parent: ExecutionId | None = None
    # When it is interrupted, unless it has ended by then (R44).
    deadline: Instant | None = None
    # What its chance is drawn from, where it goes on with another life's journal. None: its incarnation.
    seed: bytes | None = None
    # The mailbox that it is born with, where it goes on with another execution's journal.
    letters: Sequence["Letter"] = ()
    # Whether an incarnation that FAILED or was INTERRUPTED is followed by this one (R37); else such a start joins.
    restarts: bool = False
    # Whether it joins an execution only if that has the same payload, byte for byte (R2).
    strict: bool = False
    # Which fields of another payload are not this one's; none, where the two mean the same. For whoever hears of another
    # payload: it is nothing that a store could write down. None: nobody is to hear of it.
    differing: Callable[[bytes], tuple[str, ...]] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Acts:
    """What a turn does to others, or to what others see; rare, so a commit has it apart.

    All of it happens in the commit's own transaction, and nothing of it if the commit is LOST.
    """

    # Executions that its body started, detached (R42); they are born PENDING.
    starts: list[Start] = field(default_factory=list["Start"])
    # Executions that it has started like that before: nothing begins, and one with another payload is in `Answer.met`.
    repeats: list[Start] = field(default_factory=list["Start"])
    # Executions that it waits for (R31): born PENDING, or joined. Their exit comes as mail of the kind CHILD, once for
    # each id in one life of the waiter.
    children: list[Start] = field(default_factory=list["Start"])
    # Children whose await was cancelled: interrupted if this execution is their parent and nobody else waits.
    leaves: list[ExecutionId] = field(default_factory=list[str])
    # Children that it has left, and waits for again: joined behind the leaves, for whatever they have brought about.
    rejoins: list[Start] = field(default_factory=list["Start"])
    # Executions that it has asked for before, with another payload than these have (R2). Theirs comes as mail of the kind
    # PAYLOAD, once for each that was asked with in one life of the asker.
    compares: list[Start] = field(default_factory=list["Start"])
    # Mail to others, or to itself; each gets a receipt in the answer, in this order.
    mail: list["Mail"] = field(default_factory=list["Mail"])
    # Held executions to move on (R42).
    resumes: list[ExecutionId] = field(default_factory=list[str])
    # Attributes to set, and, as None, to remove.
    attributes: dict[str, str | int | float | bool | None] = field(
        default_factory=dict[str, "str | int | float | bool | None"]
    )
    # What it shows to those who look, by name; the last word wins.
    published: dict[str, bytes] = field(default_factory=dict[str, bytes])
    # Its next life, where the body has asked to go on as new (R37): the status is PENDING then.
    next: Start | None = None


@dataclass(slots=True, eq=False)
class Commit:
    """What one turn of one execution wants to have written, all of it or nothing.

    With `start` the execution is born in this commit: owned by the worker under fence 1, or already
    suspended or ended by its first turn. With `status` PENDING, or SUSPENDED until `start.due_at`,
    nobody has run it: its fence is 0, and the first claim makes it 1.
    """

    execution_id: ExecutionId
    incarnation: bytes
    # The number that this worker got with its claim. A store writes nothing under another one.
    fence: int
    # The highest number among the mail that the kernel has been fed. The execution may suspend or
    # end only if nothing newer has come (R18, wakes are never lost).
    seen: int
    # RUNNING keeps it; PENDING gives it back; SUSPENDED parks or, with `held`, holds it; else it ends.
    status: Status
    start: Start | None = None
    entries: Sequence[Entry] = ()
    # The exit when it ends; the cause when it is held.
    exit: bytes | None = None
    held: Held | None = None
    # When a suspended execution wants to be woken. None: only by mail.
    wake_at: Instant | None = None
    # What it waits for, as JSON, for those who look (R33). Written with a suspension.
    waits: bytes | None = None
    # What else the turn does; None: nothing, as nearly always.
    acts: Acts | None = None
    # Whether the crashes counted against it are forgiven: it has got on since its claim (R41).
    calm: bool = False


class Verdict(StrEnum):
    """What became of a commit."""

    STARTED = "started"  # the execution is born, with everything in the commit
    JOINED = "joined"  # an execution of that id exists; nothing was written
    GRANTED = "granted"  # written
    # Mail has come: still RUNNING and yours; read it, try again. Its entries are written, unless it was to be held.
    STAYS = "stays"
    APPLIED = "applied"  # it was there already: an earlier try whose answer was lost
    BUSY = "busy"  # somebody else's transaction is on the row; nothing written, send it again
    LOST = "lost"  # no longer this worker's; nothing written


class Met(NamedTuple):
    """A start that was none: there was an execution of its id, begun with another payload."""

    start: Start
    payload: bytes


class Answer(NamedTuple):
    """The store's answer to one commit of a batch."""

    verdict: Verdict
    # How far the mail of the execution goes, where the verdict is STARTED, GRANTED or STAYS.
    wakes: int = 0
    # Whether anybody has been given something to do by it: woken, told, born.
    stirs: bool = False
    # What became of `acts.mail`, in its order, where the verdict is STARTED, GRANTED or STAYS.
    receipts: tuple["Receipt", ...] = ()
    # Of its starts, repeats, children and rejoins, where the verdict is one of these: those that met another payload.
    # Where it is JOINED: the start of the commit itself, if it has.
    met: tuple[Met, ...] = ()


class Record(NamedTuple):
    """One execution as it stands in the store."""

    execution_id: ExecutionId
    incarnation: bytes
    number: int
    workflow: str
    key: str | None
    status: Status
    held: Held | None
    waits: bytes | None
    owner: WorkerId | None
    fence: int
    wakes: int
    wake_at: Instant | None
    crashes: int
    priority: int
    version: str | None
    parent: ExecutionId | None
    attributes: Attributes
    created_at: Instant
    began_at: Instant | None
    finished_at: Instant | None
    changed_at: Instant
    payload: bytes
    # The exit of a finished execution, the cause of a held one.
    exit: bytes | None
    # When it is interrupted unless it has ended by then.
    deadline: Instant | None = None
    # What its chance is drawn from; None: its incarnation.
    seed: bytes | None = None


class MailKind(StrEnum):
    """What reaches an execution from outside."""

    DEFERRED = "deferred"  # the completion of a deferred, by its name; the exit
    MESSAGE = "message"  # a message to a channel; the name is of `message_name`, the exit the value
    INTERRUPT = "interrupt"  # asked to end; the exit with which it ends if it lets it (see `DEADLINE_NAME`)
    CHILD = "child"  # an execution that it waits for has ended; the name is its id, the exit its exit
    FREED = "freed"  # a child that it left need not be waited for: held, or wanted by others; `{id}/{wake}`
    PAYLOAD = (
        "payload"  # what an execution was begun with that it has asked for with another payload; see `payload_name`
    )
    SKIP = "skip"  # the compensation that holds it is to be passed over; the name is of `hold_name`
    # The store's own, in the child's mailbox, with number 0: no kernel is fed them, and they may be changed.
    WAITER = "waiter"  # who waits for this execution; the name is the waiter's id, the exit its incarnation
    LEFT = "left"  # that waiter does not want it any more, but is told of its end


# Whoever interrupts gives no name, and a deadline this one: of each an execution has one (R29, R44). What comes when it is
# held, after its body has been told of all there was, gets a name of its own from the store, that of `hold_name` (R36).
DEADLINE_NAME: Final = "deadline"


def hold_name(wake: int) -> str:
    """The name of a letter that ends one hold, and means no other; `wake` is its own number.

    Not of the fence: a fork has copies of letters that ended holds of its original, and its fence begins anew.
    """
    return f"held/{wake}"


def payload_name(start: Start) -> str:
    """The name of a letter that tells what an execution was begun with, to one who has asked for it with this start."""
    return f"{start.execution_id}/{_ids.fingerprint(start.payload)}"


def message_name(channel: str, message_id: str) -> str:
    """The name of a letter that is a message."""
    return json.dumps([channel, message_id], ensure_ascii=False, separators=(",", ":"))


def read_message_name(name: str) -> tuple[str, str]:
    """The channel and the id of a message."""
    channel, message_id = json.loads(name)
    return channel, message_id


# The exit of an execution that was interrupted and did not object.
INTERRUPTED: Final = b'{"failure":[{"interrupt":{}}]}'


def interrupted_status(exit: bytes) -> Status:
    """How an execution ends that lets an interrupt end it: by its deadline, or held before, it has failed."""
    return Status.INTERRUPTED if exit == INTERRUPTED else Status.FAILED


class Mail(NamedTuple):
    """Something that reaches an execution from outside."""

    execution_id: ExecutionId
    kind: str
    name: str
    exit: bytes
    # Random, or made from the step that sends it: mail that meets its own from an earlier try is STORED again.
    sender: bytes = b""
    # The life that it is meant for; None: whichever is there.
    incarnation: bytes | None = None
    # Of a completion by a token that names a life: the exit of the TOKEN entry with which that life gave it out. A later
    # life whose journal begins with that entry has given it out as well (R19). Empty: no other life takes this.
    token: bytes = b""


class Life(NamedTuple):
    """An earlier life of an execution, put aside."""

    incarnation: bytes
    number: int
    # How it stood: final; SUSPENDED where it was held. One that has gone on as a new life has SUCCEEDED, without an exit.
    status: Status
    payload: bytes
    # The exit of a finished life, the cause of a held one.
    exit: bytes | None
    created_at: Instant
    # None where it was held.
    finished_at: Instant | None


class Letter(NamedTuple):
    """Mail as it lies in the mailbox."""

    wake: int  # numbers an execution's mail, rising; gaps are allowed
    kind: str
    name: str
    exit: bytes
    at: Instant


class Receipt(StrEnum):
    """What became of a piece of mail."""

    STORED = "stored"
    IGNORED = "ignored"  # the first of that kind and name has won (R18)
    FINISHED = "finished"  # the execution has ended; nothing was stored
    OUTDATED = "outdated"  # it was meant for another life of the execution; nothing was stored
    UNKNOWN = "unknown"  # there is no such execution; nothing was stored


class History(NamedTuple):
    """All that a kernel is rebuilt from."""

    entries: list[Entry]
    letters: list[Letter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One open engine: a process, or one of several engines in it."""

    worker_id: WorkerId
    host: str
    pid: int
    workflows: tuple[str, ...]
    started_at: Instant
    retired_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which executions to list: newest first, all conditions at once."""

    workflow: str | None = None
    status: Status | None = None
    held: Held | None = None
    since: Instant | None = None
    attributes: Attributes = field(default_factory=dict[str, str | int | float | bool])
    limit: int = 100
    # Go on behind this execution: (created_at, execution_id) of the last one read.
    after: tuple[Instant, ExecutionId] | None = None
