"""Where an execution stands, in sentences that end with the call that moves it (R33).

A pure function of what was read: the execution as `describe` tells it, the workers, and the time. It is for people, so
its words may change with every release; whoever wants facts takes `describe`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from perdure._model.info import ExecutionInfo, Wait
from perdure._model.journal import Kind
from perdure._model.records import ExecutionId, Worker
from perdure._model.status import Held, Status, is_final
from perdure._values.cause import Cause
from perdure._values.duration import describe_ms
from perdure._values.exit import Failure
from perdure._values.instant import to_datetime

# Of a body that waits for thousands of things, so many are named.
MOST_WAITS: Final = 10
# A cause may hold a whole document; `describe` has all of it.
MOST_CAUSE: Final = 600

# The body itself is what cannot be run; asked to end, the execution would be held again for the same reason.
_CANNOT_RUN: Final = frozenset({Held.DIVERGENCE, Held.UNREADABLE, Held.CRASHES, Held.REFUSED, Held.SPINNING})

# Why it is held, and what is to be mended. Each of `Held` has one; a test walks through them.
HELD: Final[Mapping[Held, str]] = {
    Held.FAILURE: (
        "It failed, and its workflow says suspend_on_failure: the failure is not its result yet. Resumed, it runs the step"
        " that failed once more; interrupted, it ends with this failure, after its compensations."
    ),
    Held.DEFECT: (
        "An error that nobody declared came out of its body, and its workflow says capture_defects=False. Mend the code;"
        " resumed, the body is replayed with today's code and goes on behind the last recorded step."
    ),
    Held.DIVERGENCE: (
        "Today's code asks for something else than the journal has recorded. Nothing was done that is not recorded. Bring"
        " the code back, or let it tell old executions from new ones with patched()."
    ),
    Held.UNREADABLE: (
        "Something that is recorded cannot be read with today's types. Nothing is lost: correct the type so that it reads"
        " the old records too."
    ),
    Held.COMPENSATION: (
        "One of its compensations or finalizers does not come to its end. Those before it are done, those after it wait."
        " Mend what it needs: resumed, the step that failed is tried once more, though its retries are used up. Or pass"
        " over it. An interrupt does nothing: it is being ended already."
    ),
    Held.CRASHES: (
        "Three workers in a row ended while they had it in hand and no other suspect, so it is the one that ends them. Look"
        " for what ends the process: memory, a segmentation fault, os._exit."
    ),
    Held.REFUSED: "The database refused its data. Look at what its last step returns or what its body starts, and at the limits.",
    Held.DEADLOCK: (
        "Its body waits for nothing that could come from outside: for a Future, an Event, a Lock or a Queue that only its"
        " own tasks could wake."
    ),
    Held.SPINNING: (
        "A turn of its body did not come to rest within a million callbacks: a loop in it awaits only what is ready at once."
    ),
}


def explain(
    told: ExecutionInfo, *, workers: Sequence[Worker], now: datetime, circle: Sequence[ExecutionId] = ()
) -> str:
    """Say where an execution stands, since when, why, and what moves it.

    Args:
        told: The execution, as `describe` gives it.
        workers: Every worker that the store knows.
        now: The time on the store's clock.
        circle: The executions that wait for each other, from this one on, each for the next and the last for this one.
    """
    living = [worker for worker in workers if worker.retired_at is None]
    return "\n".join(_lines(_Scene(told, living, now, circle)))


class _Scene(NamedTuple):
    """What there is to tell of."""

    told: ExecutionInfo
    living: list[Worker]
    now: datetime
    circle: Sequence[ExecutionId]

    @property
    def id(self) -> str:
        return repr(self.told.execution_id)

    @property
    def fitting(self) -> list[Worker]:
        """The workers that may run it."""
        return [worker for worker in self.living if self.told.workflow in worker.workflows]

    def ago(self, moment: datetime) -> str:
        past = _ms(self.now - moment)
        return f"{_moment(moment)}, {describe_ms(past)} ago" if past >= 1_000 else f"{_moment(moment)}, just now"

    def due(self, moment: datetime) -> str:
        left = _ms(moment - self.now)
        return f"due {_moment(moment)}, in {describe_ms(left)}" if left > 0 else f"due since {self.ago(moment)}"


def _lines(scene: _Scene) -> Iterator[str]:
    told = scene.told
    key = "" if told.key is None else f" {told.key!r}"
    standing = str(told.status) if told.held is None else f"held with {told.held}"
    yield f"{told.workflow}{key} ({told.execution_id}) is {standing} since {scene.ago(told.changed_at)}."
    if told.incarnation > 1:
        yield f"This is life {told.incarnation} of its id; the ones before it have ended."
    if told.damaged:
        columns = ", ".join(told.damaged)
        yield f"Its row is damaged: {columns} cannot be read. Look at the disk, and restore the file from a backup."
    if is_final(told.status):
        yield from _ended(scene)
        return
    if told.deadline is not None and told.deadline <= scene.now:
        yield f"Its deadline has passed: {scene.ago(told.deadline)}."
    elif told.deadline is not None:
        yield f"It has a deadline, {scene.due(told.deadline)}: it is interrupted then."
    if told.held is not None:
        yield from _held(scene, told.held)
    elif told.status is Status.PENDING:
        yield from _pending(scene)
    elif told.status is Status.RUNNING:
        yield from _running(scene)
    else:
        yield from _suspended(scene)


def _ended(scene: _Scene) -> Iterator[str]:
    told = scene.told
    took = describe_ms(_ms((told.finished_at or told.changed_at) - told.created_at))
    yield f"It was started {_moment(told.created_at)} and took {took}."
    if isinstance(told.exit, Failure):
        yield f"The cause: {_brief(told.exit.cause)}"
    if told.status is Status.SUCCEEDED:
        yield f"Nothing moves it any more. To see what it did: await engine.journal({scene.id})"
        return
    yield (
        "If its compensations have undone something, that is not done again by a child that has SUCCEEDED, which is joined, nor"
        " by a step that a rewind keeps: rewind to before such a step, and give such a child another key, or none."
    )
    yield "To run it again from its start: start it with .options(on_duplicate='restart_if_failed')"
    yield f"To go on from an entry of its journal, keeping what worked: await engine.rewind({scene.id}, to=seq)"


def _held(scene: _Scene, held: Held) -> Iterator[str]:
    told = scene.told
    yield HELD[held]
    if told.failed_with is not None:
        yield f"Its body had ended with: {_brief(told.failed_with)}"
    if told.cause is not None:
        says = "What holds it now" if told.failed_with is not None else "The cause"
        yield f"{says}: {_brief(told.cause)}"
    if told.interrupted_at is not None:
        yield f"It was asked to end at {scene.ago(told.interrupted_at)}."
    yield from _undoing(told)
    yield "It does not move by itself; timers, children and completions that come meanwhile are kept."
    if held is Held.COMPENSATION:
        yield (
            "If a child has failed in it, that end is known and stays; to run the child again, go on from before its end:"
            f" await engine.rewind({scene.id}, to=seq)"
        )
        yield f"To pass over that compensation: await engine.resume({scene.id}, skip=True)"
    elif held in _CANNOT_RUN:
        yield f"To end it without running it: await engine.interrupt_unsafe({scene.id})"
    else:
        yield f"To end it: await engine.interrupt({scene.id})"
    yield f"To move it, when that is mended: await engine.resume({scene.id})"


def _pending(scene: _Scene) -> Iterator[str]:
    told = scene.told
    if told.interrupted_at is not None:
        yield (
            f"It was asked to end at {scene.ago(told.interrupted_at)}, and ends as soon as a worker has room for it, unless its"
            " body makes something else of that."
        )
    yield from _undoing(told)
    if told.crashes > 1:
        yield (
            f"{told.crashes} workers in a row have ended while they had it in hand; it is taken up when no other suspect is."
        )
    if scene.fitting:
        yield f"It waits for room at one of the workers that have registered its workflow: {_named(scene.fitting)}."
    else:
        yield _unregistered(scene)
    yield _to_end(scene)
    if scene.fitting:
        yield "To move it sooner: open one more engine on this store, or one with a larger admission="
    else:
        yield _open_one(scene)


def _running(scene: _Scene) -> Iterator[str]:
    told = scene.told
    owner = [worker for worker in scene.living if worker.worker_id == told.worker]
    if owner:
        yield f"It is in the hands of {_named(owner)}."
        if told.crashes > 1 and not told.waits:
            yield (
                f"{told.crashes} workers in a row have ended while they had it in hand, so it runs alone: it begins when no "
                "other suspect runs."
            )
        unknown = "What it waits for is known to that worker; its own engine.explain() says it."
    else:
        yield f"Its worker {told.worker} is gone; another one takes it over as soon as it notices."
        unknown = "What it waited for there is not known."
    yield from _interruption(scene)
    yield from _waiting(scene, unknown)


def _suspended(scene: _Scene) -> Iterator[str]:
    told = scene.told
    if told.began_at is None and told.wake_at is not None:
        yield f"It was started with a delay and has not begun; it is {scene.due(told.wake_at)}."
        yield f"To end it: await engine.interrupt({scene.id})"
        yield "Nothing has to be done to move it: it begins by itself."
        return
    yield from _interruption(scene)
    yield from _waiting(scene, "What it waits for is not recorded.")


def _interruption(scene: _Scene) -> Iterator[str]:
    told = scene.told
    if told.interrupted_at is not None:
        yield f"It was asked to end at {scene.ago(told.interrupted_at)}, and is doing what it does about that."
    yield from _undoing(told)


def _undoing(told: ExecutionInfo) -> Iterator[str]:
    if told.compensations:
        fails = told.interrupted_at is not None or told.held is Held.COMPENSATION
        begins = "To be undone" if fails else "To be undone if it fails"
        yield f"{begins}, in this order: {', '.join(told.compensations)}."


def _waiting(scene: _Scene, unknown: str) -> Iterator[str]:
    """What it waits for, how it went before, and what moves it: the answer to the first wait that has one."""
    told = scene.told
    sentences = [WAITS.get(wait.kind, _something)(scene, wait) for wait in told.waits]
    if not sentences:
        yield unknown
    elif len(sentences) == 1:
        yield f"It waits for {sentences[0].what}."
    else:
        yield f"It waits for {len(sentences)} things:"
        yield from (f"- {sentence.what}" for sentence in sentences[:MOST_WAITS])
        if len(sentences) > MOST_WAITS:
            yield f"- and {len(sentences) - MOST_WAITS} more"
    if told.last_error is not None:
        yield f"The last failure was attempt {told.attempts} of activity {told.failed_step!r}: {_brief(told.last_error)}"
    if scene.circle:
        yield f"They wait for each other, in a circle: {' -> '.join([*scene.circle, scene.circle[0]])}. None of them ever ends."
        yield f"To move it: end one of them, for example await engine.interrupt({scene.circle[-1]!r})"
        return
    yield _to_end(scene)
    movers = [sentence.mover for sentence in sentences if sentence.mover is not None]
    if movers:
        yield f"To move it: {movers[0]}"
    elif scene.fitting:
        yield "Nothing has to be done to move it: it goes on by itself."
    else:
        yield _unregistered(scene)
        yield _open_one(scene)


def _to_end(scene: _Scene) -> str:
    """The call that ends one which is not held: it is interrupted once, beside its deadline (R29, R44)."""
    told = scene.told
    if told.interrupted_at is None or told.interrupted_at == told.deadline:
        return f"To end it: await engine.interrupt({scene.id})"
    return f"To end it at once, with nothing more undone: await engine.interrupt_unsafe({scene.id})"


def _unregistered(scene: _Scene) -> str:
    names = sorted({name for worker in scene.living for name in worker.workflows})
    return f"No worker has registered workflow {scene.told.workflow!r}. Registered are: {', '.join(names) or 'none'}."


def _open_one(scene: _Scene) -> str:
    return f"To move it: open an engine on this store with {scene.told.workflow!r} among its registrations"


# Waits -------------------------------------------------------------------------------------------------------------


class _Sentence(NamedTuple):
    """One thing that is waited for."""

    what: str
    # The call that brings it about; None: it comes by itself.
    mover: str | None = None


def _activity(scene: _Scene, wait: Wait) -> _Sentence:
    if wait.queued:
        return _Sentence(
            f"activity {wait.name!r}, which begins as soon as another one has ended: its engine runs no more at once"
            " (concurrency=, and threads= for plain functions)"
        )
    if wait.due_at is None or wait.due_at <= scene.now:
        return _Sentence(f"activity {wait.name!r}, which runs")
    return _Sentence(f"the next attempt of activity {wait.name!r}, {scene.due(wait.due_at)}")


def _timer(scene: _Scene, wait: Wait) -> _Sentence:
    due = "" if wait.due_at is None else f", {scene.due(wait.due_at)}"
    return _Sentence(f"timer {wait.name!r}{due}")


def _deferred(scene: _Scene, wait: Wait) -> _Sentence:
    return _Sentence(
        f"deferred {wait.name!r}, which somebody has to complete",
        f"complete the deferred named {wait.name!r}: await deferred.succeed(workflow.handle({scene.id}).token(deferred),"
        " value)",
    )


def _child(_: _Scene, wait: Wait) -> _Sentence:
    if wait.execution_id is None:
        return _Sentence(f"a child of workflow {wait.name!r}")
    return _Sentence(
        f"its child {wait.execution_id} of workflow {wait.name!r}",
        f"see what its child waits for: await engine.explain({wait.execution_id!r})",
    )


def _message(scene: _Scene, wait: Wait) -> _Sentence:
    return _Sentence(
        f"a message in channel {wait.name!r}, which somebody has to send",
        f"send to the channel named {wait.name!r}: await channel.send({scene.id}, value)",
    )


def _sent(_: _Scene, wait: Wait) -> _Sentence:
    return _Sentence(f"the receipt of {wait.name!r}, which it has sent to another execution")


def _something(_: _Scene, wait: Wait) -> _Sentence:
    """A kind that a newer release has written."""
    return _Sentence(f"{wait.kind} {wait.name!r}")


# By the kind of the entry that answers it; a test walks through the kinds.
WAITS: Final[Mapping[str, Callable[[_Scene, Wait], _Sentence]]] = {
    Kind.ACTIVITY: _activity,
    Kind.TIMER: _timer,
    Kind.DEFERRED: _deferred,
    Kind.CHILD: _child,
    Kind.MESSAGE: _message,
    Kind.SENT: _sent,
}


def _named(workers: Sequence[Worker]) -> str:
    return ", ".join(
        f"worker {worker.worker_id} (process {worker.pid} on {worker.host}, open since {_moment(to_datetime(worker.started_at))})"
        for worker in workers[:3]
    ) + (f" and {len(workers) - 3} more" if len(workers) > 3 else "")


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _ms(past: timedelta) -> int:
    return past // timedelta(milliseconds=1)


def _brief(cause: Cause) -> str:
    said = str(cause)
    return said if len(said) <= MOST_CAUSE else f"{said[:MOST_CAUSE]} ... ({len(said):,} characters)"
