"""Random programs: trees of steps, waits and branches, drawn from a seed, run by one workflow, understood by a model.

A program is JSON and the payload of its execution. Its result is a tree of the same shape, so the model needs no
engine: it says whether a result is one that the program may have. Who visits a program from outside, completes what it
waits for, sends it messages or interrupts it, is in `visitors`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from random import Random
from typing import Any

from perdure import (
    ActivityTimeout,
    Cause,
    DeadlineExceeded,
    Defect,
    ExecutionFinishedError,
    Exit,
    Interrupted,
    OutcomeUnknown,
    Schedule,
    activity,
    add_finalizer,
    continue_as_new,
    current_attempt,
    now,
    publish,
    race_all,
    random,
    set_attributes,
    sleep,
    uuid4,
    with_compensation,
    workflow,
)
from perdure.testing._simulation.case import Case
from perdure.testing._simulation.director import Commission, Plan

from tests.simulation.visitors import Refused, channel, deferred, visitors

Node = list[Any]  # its kind, then what it needs

# How long the far side of a step takes, in ms: less than a call to the store, and more than any pause of a worker.
FAR_SIDE_MS = (0, 0, 1, 20, 300, 5_000, 120_000)
PATIENCE_MS = 1_000
# The first are waited for in memory, the last for days.
SLEEPS_MS = (0, 1, 50, 2_000, 9_000, 61_000, 3 * 24 * 3_600_000)


def far_side_ms(label: str) -> int:
    """For each step another time, the same on every attempt."""
    return Random(label).choice(FAR_SIDE_MS)


async def _far_side(label: str) -> str:
    await asyncio.sleep(far_side_ms(label) / 1_000)
    return f"{label}!"


@activity
async def step(label: str) -> str:
    return await _far_side(label)


@activity
def stamp(label: str) -> str:
    return f"{label}!"


@activity(retry=Schedule.spaced("30 millis").times(5), error=Refused)
async def flaky(label: str, failures: int) -> str:
    if current_attempt() <= failures:
        raise Refused(label=label)
    return await _far_side(label)


@activity(retry=Schedule.spaced("20 minutes").times(2))
async def stubborn(label: str) -> str:
    if current_attempt() == 1:
        raise RuntimeError("not today")
    return await _far_side(label)


@activity(error=Refused)
async def refuse(label: str) -> str:
    await _far_side(label)
    raise Refused(label=label)


@activity(timeout="1 second")
async def hurried(label: str) -> str:
    return await _far_side(label)


@activity(delivery="at_most_once")
async def once(label: str) -> str:
    return await _far_side(label)


@activity
async def book(label: str) -> str:
    return await _far_side(label)


# What was broken once and is not any more; of one run.
_mended: set[str] = set()


def _breaks_once(label: str) -> None:
    if label not in _mended:
        _mended.add(label)
        raise RuntimeError(f"{label} is broken")


@activity
async def undo(label: str) -> None:
    """What `book` has done; of some it fails at first, which holds the execution."""
    if Random(f"{label}/undo").random() < 0.3:
        _breaks_once(f"{label}/undo")
    await _far_side(label)


@activity
async def fragile(label: str) -> str:
    _breaks_once(label)
    return f"{label}!"


def refusals_of(label: str) -> int:
    """How often it is refused at first."""
    return Random(f"{label}/refusals").randint(0, 2)


@activity(error=Refused)
async def refuse_at_first(label: str) -> str:
    """Never, once or twice: a life of who asks may succeed, and its second one may fail as well."""
    for time in range(refusals_of(label)):
        if f"{label}/refusal {time}" not in _mended:
            _mended.add(f"{label}/refusal {time}")
            raise Refused(label=label)
    return f"{label}!"


@activity
async def enter(label: str) -> str:
    return await _far_side(label)


@activity
async def leave(label: str) -> None:
    await _far_side(label)


# The body -----------------------------------------------------------------------------------------------------------


@workflow(name="Program", error=Refused)
async def program(node: Node) -> Any:
    return await _run(node)


@workflow(name="Shared", error=Refused, idempotency_key=lambda label, node: label)
async def shared(label: str, node: Node) -> Any:
    """A child that more than one program waits for."""
    del label
    return await _run(node)


@workflow(name="Listener", idempotency_key=lambda label, count: label)
async def listener(label: str, count: int) -> list[str]:
    """Waits for what another body sends it."""
    heard = [await channel(label).receive() for _ in range(count)]
    return [*heard, await deferred(label)]


@workflow(name="Mended", suspend_on_failure=True)
async def mended(label: str) -> str:
    return await fragile(label)


@workflow(name="Cycle", idempotency_key=lambda label, count, heard: label)
async def cycle(label: str, count: int, heard: list[str]) -> list[str]:
    """One message a life, and a step that is equal in all of them."""
    if len(heard) < count:
        message = await channel(label).receive()
        await step(label)
        set_attributes(heard=len(heard))
        continue_as_new(label, count, [*heard, message])
    return heard


@workflow(name="Restarted", error=Refused, idempotency_key=lambda label: label)
async def restarted(label: str) -> str:
    """Its first life fails, or both, or none."""
    return await refuse_at_first(label)


async def _run(node: Node) -> Any:
    kind, *rest = node
    return await _RUNS[kind](*rest)


async def _refused(label: str) -> str:
    try:
        return await refuse(label)
    except Refused as error:
        return f"{error.label} refused"


async def _hurried(label: str) -> str:
    try:
        return await hurried(label)
    except ActivityTimeout:
        return f"{label} late"


async def _once(label: str) -> str:
    try:
        return await once(label)
    except OutcomeUnknown:
        return f"{label} unknown"


async def _equal(label: str, times: int) -> list[str]:
    return list(await asyncio.gather(*(step(label) for _ in range(times))))


async def _slept(ms: int) -> str:
    began = now()
    await sleep(f"{ms} millis", name=f"rest {ms}")
    return "in time" if (now() - began).total_seconds() * 1_000 >= ms else "too early"


async def _drawn(label: str) -> list[str]:
    drawn = f"{label} {uuid4()} {uuid4()} {random().random()} {random().random()} {now().isoformat()}"
    return [drawn, await stamp(drawn)]


async def _sequence(*nodes: Node) -> list[Any]:
    return [await _run(node) for node in nodes]


async def _all(*nodes: Node) -> list[Any]:
    return list(await asyncio.gather(*(_run(node) for node in nodes)))


async def _group(*nodes: Node) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(node)) for node in nodes]
    return [task.result() for task in tasks]


async def _first(*nodes: Node) -> list[Any]:
    """The branches that are done when the first one is; the others are cancelled."""
    tasks = [asyncio.create_task(_run(node)) for node in nodes]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    results = [[task.result()] if task.done() else [] for task in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return results


async def _within(ms: int, node: Node) -> list[Any]:
    try:
        async with asyncio.timeout(ms / 1_000):
            return [await _run(node)]
    except TimeoutError:
        return []


async def _beside(node: Node) -> str:
    """Start another program, and do not wait for it."""
    return (await program.start(node)).execution_id


async def _awaited(label: str) -> str:
    try:
        return await deferred(label)
    except Refused as error:
        return f"{error.label} refused"


async def _asked(label: str) -> list[str]:
    """Every await of one deferred gives the same."""
    return [*await asyncio.gather(_awaited(label), _awaited(label)), await _awaited(label)]


async def _never(label: str, ms: int) -> str:
    try:
        async with asyncio.timeout(ms / 1_000):
            return await deferred(label)
    except TimeoutError:
        return "nobody"


async def _into(label: str) -> list[str]:
    return [await deferred(label).into(step(label)), await _awaited(label)]


async def _race(label: str, *nodes: Node) -> list[Any]:
    try:
        return [await race_all(label, [_branch(node) for node in nodes])]
    except (Refused, ExceptionGroup):
        return []


async def _branch(node: Node) -> Any:
    return await (refuse(node[1]) if node[0] == "doomed" else _run(node))


async def _doomed(label: str) -> str:
    return await _refused(label)


async def _child(node: Node) -> Any:
    return await _ended(program.execute(node))


async def _shared(label: str, node: Node) -> Any:
    return await _ended(shared.execute(label, node))


async def _mend(label: str) -> Any:
    return await _ended(mended.execute(label))


async def _cycle(label: str, count: int) -> Any:
    return await _ended(cycle.execute(label, count, []))


async def _again(label: str) -> Any:
    """Restart a child, which is joined if it has succeeded; who was told of one end hears of no other, so nobody waits."""
    ended = await _ended(restarted.execute(label))
    await restarted.options(on_duplicate="restart_if_failed").start(label)
    return ended


async def _ended(child: Coroutine[Any, Any, Any]) -> Any:
    try:
        return [await child]
    except Refused:
        return "refused"
    except Interrupted:
        return "interrupted"
    except DeadlineExceeded:
        return "late"
    except Defect:
        return "broken"


async def _booked(label: str) -> str:
    return await with_compensation(book(label), _undo)


async def _undo(booked: str, cause: Cause) -> None:
    del cause
    await undo(booked[:-1])


async def _entered(label: str) -> str:
    entered = await enter(label)

    async def on_exit(exit: Exit[Any]) -> None:
        del exit
        await leave(label)

    await add_finalizer(on_exit)
    return entered


async def _defiant(label: str, node: Node) -> Any:
    try:
        return await _run(node)
    except asyncio.CancelledError:
        return f"{label} defied"


async def _inbox(label: str, count: int) -> list[str]:
    return [await channel(label).receive() for _ in range(count)]


async def _told(label: str, count: int) -> list[Any]:
    """Start a listener, tell it something, and hear what it has heard."""
    handle = await listener.start(label, count)
    said: list[bool | str] = []
    try:
        for n in range(count):
            await channel(label).send(handle.execution_id, f"{label}#{n}", id=f"{label}#{n}")
        token = deferred(label).token_from_execution_id(workflow=listener, execution_id=handle.execution_id)
        said += [await deferred(label).succeed(token, f"{label} told") for _ in range(2)]
    except ExecutionFinishedError:
        said = ["finished"]
    return [said, await listener.execute(label, count)]


async def _show(label: str) -> str:
    publish("progress", label)
    set_attributes({label: True})
    return f"{label} shown"


async def _stop(label: str) -> str:
    """Start a program that waits for somebody, and interrupt it."""
    handle = await program.start(["asked", label])
    await handle.interrupt()
    return "stopped"


async def _fail(label: str, *nodes: Node) -> Any:
    await _sequence(*nodes)
    raise Refused(label=label)


_RUNS: dict[str, Any] = {
    "step": step,
    "stamp": stamp,
    "flaky": flaky,
    "stubborn": stubborn,
    "refuse": _refused,
    "hurried": _hurried,
    "once": _once,
    "equal": _equal,
    "sleep": _slept,
    "draw": _drawn,
    "sequence": _sequence,
    "all": _all,
    "group": _group,
    "first": _first,
    "within": _within,
    "beside": _beside,
    "asked": _asked,
    "never": _never,
    "into": _into,
    "race": _race,
    "doomed": _doomed,
    "child": _child,
    "shared": _shared,
    "mended": _mend,
    "cycle": _cycle,
    "again": _again,
    "booked": _booked,
    "entered": _entered,
    "defiant": _defiant,
    "inbox": _inbox,
    "told": _told,
    "show": _show,
    "stop": _stop,
    "fail": _fail,
}


# The model ----------------------------------------------------------------------------------------------------------


def may_be(node: Node, result: Any) -> bool:
    """Whether a program may have this result."""
    kind, *rest = node
    return _MODEL[kind](result, *rest)


def _is_done(result: Any, label: str, *_: Any) -> bool:
    return result == f"{label}!"


def _is_refused(result: Any, label: str) -> bool:
    return result == f"{label} refused"


def _may_be_hurried(result: Any, label: str) -> bool:
    # A worker that stood still may be late with what was done in time, but not the other way round.
    return result == f"{label} late" or (result == f"{label}!" and far_side_ms(label) <= PATIENCE_MS)


def _may_be_drawn(result: Any, label: str) -> bool:
    return _are(result, 2) and result[1] == f"{result[0]}!" and _are_drawn(label, str(result[0]).split())


def _may_be_each(result: Any, *nodes: Node) -> bool:
    return _are(result, len(nodes)) and all(map(may_be, nodes, result))


def _may_be_first(result: Any, *nodes: Node) -> bool:
    if not _are(result, len(nodes)) or not any(result):
        return False
    told = zip(nodes, result, strict=True)
    return all(one == [] or (_are(one, 1) and may_be(node, one[0])) for node, one in told)


def _may_be_asked(result: Any, label: str) -> bool:
    return _are(result, 3) and len(set(map(str, result))) == 1 and _answers(label, result[0])


def _may_be_kept(result: Any, label: str) -> bool:
    return _are(result, 2) and result[0] == f"{label}!" and (result[1] == result[0] or _answers(label, result[1]))


def _may_win(result: Any, _: str, *nodes: Node) -> bool:
    branches = [node for node in nodes if node[0] != "doomed"]
    if result == []:
        return not branches
    return _are(result, 1) and any(may_be(node, result[0]) for node in branches)


def _may_come_of_child(result: Any, *said: Any) -> bool:
    node = said[-1]
    if result == "refused":
        return node[0] == "fail"
    return result in ("interrupted", "late") or (_are(result, 1) and may_be(node, result[0]))


def _is_in_order(result: Any, label: str, count: int) -> bool:
    """R48: each once, and those of one sender in their order."""
    if not _are(result, count):
        return False
    senders = {sender: [one for one in map(str, result) if one.startswith(f"{label}/{sender}")] for sender in "ab"}
    return sum(map(len, senders.values())) == count and all(
        sent == [f"{label}/{sender}{n}" for n in range(len(sent))] for sender, sent in senders.items()
    )


def _may_be_told(result: Any, label: str, count: int) -> bool:
    # Where its messages came at last from elsewhere the listener had its value already, or had ended.
    flags = ([True, False], [False, False], ["finished"])
    return _are(result, 2) and result[0] in flags and has_heard(label, count, result[1])


def has_heard(label: str, count: int, heard: Any) -> bool:
    """Whether a listener may have heard this."""
    if not _are(heard, count + 1) or heard[-1] not in (f"{label} told", f"{label} late"):
        return False
    return heard[:-1] == [f"{label}#{n}" for n in range(count)]


_MODEL: dict[str, Callable[..., bool]] = {
    "step": _is_done,
    "stamp": _is_done,
    "flaky": _is_done,
    "stubborn": _is_done,
    "booked": _is_done,
    "entered": _is_done,
    "refuse": _is_refused,
    "doomed": _is_refused,
    "hurried": _may_be_hurried,
    "once": lambda result, label: result in (f"{label}!", f"{label} unknown"),
    "equal": lambda result, label, times: result == [f"{label}!"] * times,
    "sleep": lambda result, _: result == "in time",
    "draw": _may_be_drawn,
    "sequence": _may_be_each,
    "all": _may_be_each,
    "group": _may_be_each,
    "first": _may_be_first,
    "within": lambda result, _, node: result == [] or (_are(result, 1) and may_be(node, result[0])),
    "beside": lambda result, _: isinstance(result, str) and len(result) == 32,
    "asked": _may_be_asked,
    "never": lambda result, *_: result == "nobody",
    "into": _may_be_kept,
    "race": _may_win,
    "child": _may_come_of_child,
    "shared": _may_come_of_child,
    # Interrupted while it is held it ends with what held it.
    "mended": lambda result, label: result in ("interrupted", "late", "broken") or result == [f"{label}!"],
    "cycle": lambda result, label, count: (
        result in ("interrupted", "late") or (_are(result, 1) and _is_in_order(result[0], label, count))
    ),
    # It may be refused as often as there are lives.
    "again": lambda result, label: result in ("refused", "interrupted", "late", [f"{label}!"]),
    "defiant": lambda result, label, node: result == f"{label} defied" or may_be(node, result),
    "inbox": _is_in_order,
    "told": _may_be_told,
    "show": lambda result, label: result == f"{label} shown",
    "stop": lambda result, _: result == "stopped",
    "fail": lambda *_: False,
}


def _answers(label: str, result: Any) -> bool:
    """Whether somebody outside has said this, or has refused."""
    return result == f"{label} refused" or str(result).startswith(f"{label}@")


def _are_drawn(label: str, drawn: list[str]) -> bool:
    """R39: of two draws in one turn each is its own."""
    return drawn[:1] == [label] and len(drawn) == len(set(drawn)) == 6


def _are(result: Any, count: int) -> bool:
    return isinstance(result, list) and len(result) == count


# Drawing ------------------------------------------------------------------------------------------------------------


_LEAVES = {
    "step": 6, "stamp": 2, "flaky": 3, "refuse": 1, "hurried": 2, "once": 2, "equal": 2, "sleep": 4, "draw": 1,
    "stubborn": 1, "asked": 5, "never": 1, "into": 2, "doomed": 1, "mended": 1, "cycle": 2, "again": 2, "booked": 5, "entered": 2, "inbox": 3,
    "told": 2, "show": 1, "stop": 1,
}  # fmt: skip
_BRANCHES = {
    "sequence": 8, "all": 6, "group": 3, "first": 4, "within": 4, "race": 4, "defiant": 2, "beside": 1, "child": 5,
    "shared": 4,
}  # fmt: skip
# How deep a tree goes; what another execution does has less.
DEPTH = 3


def draw(chance: Random, label: str, depth: int = 0) -> Node:
    """A program, with the label in the name of each of its steps."""
    weights = {**_LEAVES, **_BRANCHES} if depth < DEPTH else _LEAVES
    kind = "sequence" if depth == 0 else chance.choices(list(weights), list(weights.values()))[0]
    match kind:
        case "sleep":
            return [kind, chance.choice(SLEEPS_MS)]
        case "flaky":
            return [kind, label, chance.randint(0, 3)]
        case "equal":
            return [kind, label, chance.randint(2, 4)]
        case "never":
            return [kind, label, chance.choice((0, 50, 70_000))]
        case "inbox" | "told" | "cycle":
            return [kind, label, chance.randint(1, 4)]
        case "within":
            return [kind, chance.choice((0, 5, 400, 70_000)), draw(chance, f"{label}.0", depth + 1)]
        case "defiant":
            return [kind, label, draw(chance, f"{label}.0", depth + 1)]
        case "beside":
            return [kind, draw(chance, f"{label}.0", 2)]
        case "child":
            return [kind, _drawn_root(chance, f"{label}.0", 2)]
        case "shared":
            # By few names, so that two programs of one run wait for the same; and slowly, so that they do at one time.
            name = f"{label.split('.', maxsplit=1)[0]}.shared{chance.randint(0, 1)}"
            node = [kind, name, _drawn_root(Random(name), name, DEPTH, ["sleep", 2_000])]
            return ["within", chance.choice((5, 400)), node] if chance.random() < 0.4 else node
        case "sequence" | "all" | "group" | "first" | "race":
            nodes = [draw(chance, f"{label}.{n}", depth + 1) for n in range(chance.randint(1, 4))]
            return [kind, label, *nodes] if kind == "race" else [kind, *nodes]
        case _:
            return [kind, label]


def _drawn_root(chance: Random, label: str, depth: int, *first: Node) -> Node:
    nodes = [*first, *(draw(chance, f"{label}.{n}", depth) for n in range(chance.randint(1, 3)))]
    return ["fail", label, *nodes] if chance.random() < 0.35 else ["sequence", *nodes]


def plan(case: Case) -> Plan:
    """Some programs at once."""
    _mended.clear()
    chance = Random(f"{case.seed}/programs")
    return Plan(
        registrations=[program, shared, listener, mended, cycle, restarted],
        commissions=[
            Commission(
                workflow=program,
                args=(_drawn_program(chance, f"{case.seed}.{number}"),),
                clients=chance.choice((1, 1, 2, 3)),
                options=_drawn_options(chance),
            )
            for number in range(chance.randint(1, 4))
        ]
        + _drawn_restarts(Random(f"{case.seed}/restarts"), f"{case.seed}.restarted"),
        visitors=visitors,
        mends={"CRASHES": 0, "FAILURE": 0, "COMPENSATION": 0.2},
        may_operate=may_operate,
    )


def may_operate(workflow: str, payload: bytes) -> bool:
    """Whether it may be rewound and forked without telling another execution twice what the model wants told once.

    A life that is rewound restarts the children that did not succeed, and these have lost the mail that they had.
    """
    del workflow
    return not any(kind in payload for kind in (b'"told"', b'"cycle"', b'"heard"')) and not (
        b'"inbox"' in payload and (b'"child"' in payload or b'"shared"' in payload)
    )


def _drawn_restarts(chance: Random, label: str) -> list[Commission]:
    """Sometimes one that some clients start at about one time, and others later, so that it is restarted where it has failed."""
    options = {"on_duplicate": "restart_if_failed"}
    some = [
        Commission(workflow=restarted, args=(label,), clients=chance.randint(1, 3), after_s=after_s, options=options)
        for after_s in (0, 400)
    ]
    return some if chance.random() < 0.25 else []


def _drawn_program(chance: Random, label: str) -> Node:
    kind, *nodes = draw(chance, label)
    return ["fail", label, *nodes] if chance.random() < 0.15 else [kind, *nodes]


def _drawn_options(chance: Random) -> dict[str, Any]:
    seconds = chance.choice((0.05, 2, 100, 2 * 24 * 3_600))
    return {"deadline": timedelta(seconds=seconds)} if chance.random() < 0.15 else {}
