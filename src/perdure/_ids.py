"""How every id is derived: digests of what a thing is, so that asking again finds the same thing.

The strings below the digests are a promise (R1, R14, R23): processes of different versions, and
other implementations, must compute the same ids. Their vectors are in the tests.
"""

import hashlib
import os
from collections.abc import Callable

# Where ids get their chance from.
_draw: Callable[[int], bytes] = os.urandom


def draw_from(draw: Callable[[int], bytes] | None) -> None:
    """Let new ids come from `draw`, which gives that many bytes; None: from the operating system.

    For simulations: the same seed has to give the same ids.
    """
    global _draw  # noqa: PLW0603 - ids are made in every room, and a simulation is one for the process
    _draw = draw or os.urandom


def digest(text: str) -> str:
    """Give the lower-case hex of the first 16 bytes of SHA-256 over the text in UTF-8.

    Raises:
        UnicodeEncodeError: The text holds a lone surrogate.

    Example:
        >>> digest("3:WF1:a")
        '2dde4b48edb4176d9825e719454d7086'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def execution_id(name: str, key: str) -> str:
    """Derive the id of an execution from its workflow's name and its idempotency key (R1).

    Example:
        >>> execution_id("ProcessOrder", "order-123")
        'fc0cd826dc208968186d2747adc6831f'
    """
    # UTF-16 code units, as JavaScript counts: the length is part of what other languages compute.
    length = len(name) if name.isascii() else len(name.encode("utf-16-le")) // 2
    return digest(f"{length}:{name}:{key}")


def step_key(execution_id: str, life: int, name: str, encoded_input: bytes, number: int) -> str:
    """Derive the idempotency key of one step: the same on every attempt, crash and replay (R14).

    Args:
        execution_id: The execution that the step belongs to.
        life: The number of the incarnation, from 1.
        name: The step's name.
        encoded_input: Its input as recorded.
        number: Which call with that name and input it is, from 1.
    """
    return digest(f"{_owner(execution_id, life)}-{name}/{fingerprint(encoded_input)}#{number}")


def activity_key(execution_id: str, life: int, name: str, attempt: int | None = None) -> str:
    """Derive the idempotency key of an activity by its name alone, one per execution (R14).

    Args:
        execution_id: The execution that the activity belongs to.
        life: The number of the incarnation, from 1.
        name: The activity's name.
        attempt: Given, each attempt has a key of its own.
    """
    owner = _owner(execution_id, life)
    return digest(f"{owner}-{name}" if attempt is None else f"{owner}-{attempt}-{name}")


def child_id(
    parent_id: str, life: int, name: str, encoded_input: bytes, occurrence: int, *, awaited: bool = False
) -> str:
    """Derive the id of an execution that a body starts, whose workflow has no idempotency key (R1).

    Args:
        parent_id: The execution whose body starts it.
        life: The number of its incarnation, from 1.
        name: The workflow that is started.
        encoded_input: Its payload as recorded.
        occurrence: Which start of that workflow it is in the body, from 1; awaited and detached ones count apart.
        awaited: Whether the body waits for it.
    """
    # "Workflow/" keeps it apart from an activity of the same name and input; and a child that is awaited must not be
    # the detached one of the same payload, which was to be another execution.
    kind = "Child" if awaited else "Workflow"
    return digest(f"{_owner(parent_id, life)}-{kind}/{name}/{fingerprint(encoded_input)}#{occurrence}")


def sender_of(incarnation: bytes, name: str, occurrence: int) -> bytes:
    """Say which step of which life sends a piece of mail, so that sending it again is known for that (R42)."""
    return hashlib.sha256(incarnation + f"{name}#{occurrence}".encode()).digest()[:16]


def new_incarnation(now: int) -> bytes:
    """Make the id of an incarnation: 16 bytes in the layout of UUID version 7, ordered by time.

    Args:
        now: Milliseconds since the epoch. Ids of one millisecond are in no order among themselves.
    """
    random = _draw(10)
    version = bytes((0x70 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F))
    return now.to_bytes(6, "big") + version + random[3:]


def new_execution_id(now: int) -> str:
    """Make the id of an execution whose workflow has no idempotency key: 32 hex digits, random but for their order (R1).

    Ordered by time like incarnations, so that those which are started together stand together in a store's index:
    beside a million others a random one reads and dirties a page of its own.

    Args:
        now: Milliseconds since the epoch.
    """
    return new_incarnation(now).hex()


def new_sender() -> bytes:
    """Make the id under which a piece of mail from outside is known when it is sent again."""
    return random_bytes()


def random_bytes() -> bytes:
    """Draw sixteen bytes, as hard to guess as the system makes them."""
    return _draw(16)


def new_worker_id() -> str:
    """Make the id of a worker process."""
    return _draw(8).hex()


def fingerprint(encoded_input: bytes) -> str:
    """Give what tells one input from another where it stands in an id.

    Example:
        >>> fingerprint(b"{}")
        '44136fa355b3678a'
    """
    return hashlib.sha256(encoded_input).hexdigest()[:16]


def _owner(execution_id: str, life: int) -> str:
    # The first incarnation has no number: its keys are those that Effect computes.
    return execution_id if life <= 1 else f"{execution_id}~{life}"
