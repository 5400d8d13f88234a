"""Journals that released versions have written, kept as they are: what a newer version of the library has to read.

`python -m tests.engine.journals` prints them as the version of this checkout writes it. It becomes
`releases/<version>.json` when that version is released, and is never changed afterwards: a test that fails on it says
that executions in flight would not survive the update. The tables of the file are the migrations' business; here is
what stands in them.
"""

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from perdure import (
    Defect,
    DurableChannel,
    DurableDeferred,
    Handle,
    PayloadMismatchError,
    Schedule,
    TypedError,
    WorkflowEngine,
    WorkflowImplementation,
    activity,
    add_finalizer,
    current_attempt,
    execution_id,
    patched,
    publish,
    race_all,
    set_attributes,
    sleep,
    uuid4,
    with_compensation,
    workflow,
)
from perdure._model.journal import Entry
from perdure._model.records import Commit, Start
from perdure._model.status import Status

from tests.engine.lab import Lab

A = TypeVar("A")

RELEASES = Path(__file__).parent / "releases"
VERSIONS = sorted(path.stem for path in RELEASES.glob("*.json"))

# What a defect says of the machine on which it was written is left out.
TRACEBACK = re.compile(r'"traceback":"(?:[^"\\]|\\.)*"')

# What the activities have really done.
RAN: list[str] = []


class Broke(TypedError):
    amount: int


@activity
async def reserve(order: str, count: int = 2) -> list[str]:
    RAN.append("reserve")
    return [order] * count


@activity(error=Broke)
async def debit(order: str) -> None:
    RAN.append("debit")
    raise Broke(amount=7)


@activity
async def lose(order: str) -> None:
    RAN.append("lose")
    raise RuntimeError("gone")


@activity(retry=Schedule.spaced("2 seconds").times(3))
async def call(order: str) -> int:
    RAN.append("call")
    if current_attempt() == 1:
        raise RuntimeError("busy")
    return current_attempt()


@activity(delivery="at_most_once")
async def send(order: str) -> None:
    RAN.append("send")


@activity
async def pack(order: str) -> str:
    RAN.append("pack")
    if RAN.count("pack") == 1:
        raise RuntimeError("no box")
    return f"packed {order}"


@activity
async def undo(what: str) -> None:
    RAN.append(f"undo {what}")
    if what == "broken":
        raise RuntimeError("cannot be undone")


Approval = DurableDeferred.make("approval", success=str)
Never = DurableDeferred.make("never", success=str)
Remarks = DurableChannel.make("remarks", str)


@workflow(name="Letter", idempotency_key=lambda order: order)
async def letter(order: str) -> None:
    raise AssertionError


@workflow(name="Copy", idempotency_key=lambda order: order)
async def copy(order: str) -> str:
    return f"copy of {order}"


@workflow(name="Stuck", idempotency_key=lambda order: order)
async def stuck(order: str) -> str:
    return await Never


@workflow(name="Strict", idempotency_key=lambda order, count: order, on_mismatch="raise")
async def strict(order: str, count: int) -> int:
    return count


@workflow(name="Everything", idempotency_key=lambda order: order)
async def everything(order: str) -> dict[str, Any]:
    """Ask for one of each kind of entry that the journal of a body may have, then wait."""
    missing, lost = 0, ""
    new_way = patched("new-way")
    await letter.start(order)
    reserved = await reserve(order)
    try:
        await debit(order)
    except Broke as broke:
        missing = broke.amount
    try:
        await lose(order)
    except Defect as defect:
        lost = str(defect)
    attempts = await call(order)
    await sleep("3 seconds")
    await send(order)
    drawn = uuid4()
    more = await ask_others(order)
    try:
        await sleep("30 minutes", name="until interrupted")
    except asyncio.CancelledError:
        more["interrupted"] = True
    await sleep("1 hour", name="window")
    return {
        "new_way": new_way,
        "reserved": reserved,
        "missing": missing,
        "lost": lost,
        "attempts": attempts,
        "drawn": str(drawn),
        "named": str(uuid4("invoice")),
        **more,
    }


async def ask_others(order: str) -> dict[str, Any]:
    """What comes from other executions, and goes to them; two that are waited for, one of them not to its end."""
    publish("progress", {"order": order})
    set_attributes(stage="asking", left=None)
    token = Approval.token()
    first = await Approval.succeed(token, "ada")
    await Remarks.send(execution_id(), "urgent", "r1")
    left = False
    try:
        async with asyncio.timeout(1):
            await stuck.execute(order)
    except TimeoutError:
        left = True
    # Of two children at once the one that needs no replay would end first: with a cache another than without.
    await sleep("1 second", name="until it has ended")
    counted, refused = await strict.execute(order, 1), ""
    try:
        await strict.execute(order, 2)
    except PayloadMismatchError as mismatch:
        refused = ", ".join(mismatch.fields)
    return {
        "token": token,
        "first": first,
        "approved": await Approval,
        "remark": await Remarks.receive(),
        "copy": await copy.execute(order),
        "left": left,
        "counted": counted,
        "refused": refused,
        "won": await race_all("mirror", [Never, reserve(order, 1)]),
    }


@workflow(name="Careful", idempotency_key=lambda order: order, suspend_on_failure=True)
async def careful(order: str) -> str:
    """Be held by a failure, be resumed, and wait."""
    packed = await pack(order)
    await sleep("1 hour", name="window")
    return packed


@workflow(name="Undoing", idempotency_key=lambda order: order, error=Broke)
async def undoing(order: str) -> None:
    """Fail, be held by a compensation, pass over it, and wait in the next one."""

    async def cool_down(value: list[str], cause: object) -> None:
        await undo("first")
        await sleep("1 hour", name="cooling")

    async def finalize(exit: object) -> None:
        await undo("finalized")

    await with_compensation(reserve(order), cool_down)
    await with_compensation(reserve(order, 3), lambda value, cause: undo("broken"))
    await add_finalizer(finalize)
    await debit(order)


# What a file holds, in this order: executions that are parked, and what each of them has come through.
PARKED: list[WorkflowImplementation[[str], Any]] = [everything, careful, undoing]
BESIDE = [letter, copy, stuck, strict]


async def _park(lab: Lab, engine: WorkflowEngine, body: WorkflowImplementation[[str], Any]) -> Handle[Any]:
    """Begin an execution and bring it to where it waits for an hour."""
    handle = await body.start("o1")
    await lab.skip("10 seconds")
    if body is everything:
        await handle.interrupt()
    else:
        await engine.resume(handle.execution_id, skip=body is undoing)
    await lab.settle()
    return handle


def births_of(version: str) -> list[tuple[Commit, WorkflowImplementation[[str], Any], Any]]:
    """The commits that put the executions of a release into a store, their bodies, and what each has to come to."""
    said = json.loads((RELEASES / f"{version}.json").read_text(encoding="utf-8"))
    return [
        (_birth(execution, body.name), body, execution["exit"])
        for body, execution in zip(PARKED, said["executions"], strict=True)
    ]


def _birth(said: dict[str, Any], workflow: str) -> Commit:
    entries = [
        Entry(seq, kind, name, occurrence, attempt, asked.encode(), answer.encode(), at)
        for seq, kind, name, occurrence, attempt, asked, answer, at in said["journal"]
    ]
    incarnation = bytes.fromhex(said["incarnation"])
    start = Start(
        execution_id=said["execution_id"],
        incarnation=incarnation,
        workflow=workflow,
        key=said["key"],
        payload=said["payload"].encode(),
        began_at=said["began_at"],
    )
    return Commit(
        start.execution_id, incarnation, 1, 0, Status.SUSPENDED, start=start, entries=entries, wake_at=said["wake_at"]
    )


async def written(lab: Lab) -> list[dict[str, Any]]:
    """What the file of a release holds, as this checkout writes it."""
    RAN.clear()
    async with lab.engine([*PARKED, *BESIDE]) as engine:
        return [await _written(lab, engine, body) for body in PARKED]


async def _written(lab: Lab, engine: WorkflowEngine, body: WorkflowImplementation[[str], Any]) -> dict[str, Any]:
    handle = await _park(lab, engine, body)
    record = await lab.record(engine, handle.execution_id)
    commits = [commit for commit in lab.probe(engine).commits if commit.execution_id == handle.execution_id]
    said = {
        "execution_id": record.execution_id,
        "incarnation": record.incarnation.hex(),
        "key": record.key,
        "payload": record.payload.decode(),
        "began_at": record.began_at,
        "wake_at": record.wake_at,
        "journal": [
            [*entry[:5], entry.input.decode(), TRACEBACK.sub('"traceback":""', entry.exit.decode()), entry.at]
            for commit in commits
            for entry in commit.entries
        ],
    }
    await lab.skip("2 hours")
    return {**said, "exit": json.loads((await lab.record(engine, handle.execution_id)).exit or b"null")}


if __name__ == "__main__":

    def run(main: Callable[[], Awaitable[A]], *, timeout: float = 15) -> A:
        """Like the fixture, without its deadline."""
        return asyncio.run(asyncio.wait_for(main(), timeout))

    with tempfile.TemporaryDirectory() as folder:
        lab = Lab("memory", None, Path(folder), run)
        found = lab.run(lambda: written(lab))
    texts: list[str] = []
    for one in found:
        # An entry on a line, so that people can read it too.
        entries = ",\n".join(f"    {json.dumps(entry)}" for entry in one.pop("journal"))
        rest = json.dumps(one, indent=2).removesuffix("\n}")
        texts.append(f'{rest},\n  "journal": [\n{entries}\n  ]\n}}')
    sys.stdout.write('{"executions": [\n' + ",\n".join(texts) + "\n]}\n")
