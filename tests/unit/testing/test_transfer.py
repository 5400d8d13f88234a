"""One execution as JSON Lines: nothing is lost on the way, and nothing is taken that is not whole."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from perdure import (
    ExecutionExistsError,
    ExecutionNotFoundError,
    InputError,
    Status,
    TypedError,
    UsageError,
    WorkflowEngine,
    activity,
    patched,
    sleep,
    uuid4,
    workflow,
)
from perdure._definitions.deferred import DurableDeferred
from perdure._model.journal import Entry
from perdure._model.records import History, Letter, Record
from perdure._model.status import Held
from perdure.testing import TestEngine, TransferError, VirtualClock, export_execution, import_execution
from perdure.testing.transfer import _Entry, _Header, _Letter, read_export

from tests.conftest import Run

CALLS: list[str] = []
MINUTE = 60 * 1_000


class Declined(TypedError):
    reason: str


@pytest.fixture(autouse=True)
def nothing_has_been_called():
    CALLS.clear()


@activity(error=Declined)
async def charge(order: str) -> str:
    CALLS.append(f"charge {order}")
    if order == "bad":
        raise Declined(reason="no \u2028 money\x85")
    return f"charge_{order} \u2028 \x85 ☃"


@activity
async def ship(order: str) -> str:
    CALLS.append(f"ship {order}")
    return f"shipped_{order}"


@workflow(error=Declined, idempotency_key=lambda order, pause: order)
async def process(order: str, pause: str) -> list[str]:
    number = str(uuid4())
    known = await charge(order)
    if patched("with-insurance"):
        number += "i"
    await sleep(pause)
    return [number, known, await ship(order)]


Lines = list[dict[str, Any]]


def lines_of(text: str) -> Lines:
    return [json.loads(line) for line in text.split("\n") if line]


def text_of(lines: Lines) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def without_the_moment(text: str) -> Lines:
    """An export but for what differs between two of one execution: when it was made."""
    lines = lines_of(text)
    del lines[0]["exported_at"]
    return lines


async def exported_at_rest(order: str, pause: str = "30 days") -> str:
    """An execution that has charged, and waits; or has failed."""
    async with TestEngine([process]) as production:
        handle = await process.options(attributes={"a": 1, "b": True, "c": 0.5, "d": "☃"}).start(order, pause)
        await production.advance("1 minute")
        return await export_execution(production, handle.execution_id)


@pytest.mark.parametrize(
    ("order", "pause", "status"),
    [("good", "30 days", "SUSPENDED"), ("good", "0 seconds", "SUCCEEDED"), ("bad", "30 days", "FAILED")],
)
def test_an_export_that_is_imported_and_exported_again_is_the_same(run: Run, order: str, pause: str, status: str):
    async def main():
        exported = await exported_at_rest(order, pause)
        assert lines_of(exported)[0]["status"] == status
        async with TestEngine() as engine:
            execution_id = await import_execution(engine, exported)
            again = await export_execution(engine, execution_id)
            assert without_the_moment(again) == without_the_moment(exported)
            assert (await engine.describe(execution_id)).status == status

    run(main)


def test_an_unfinished_execution_goes_on_with_the_code_of_today(run: Run):
    """What is recorded is not done again; the same chance is drawn; the rest of the wait is waited for."""

    async def main():
        exported = await exported_at_rest("good")
        assert CALLS == ["charge good"]
        async with TestEngine([process], clock=VirtualClock()) as engine:
            began = engine.now()
            handle = process.handle(await import_execution(engine, exported))
            assert engine.now() == began + MINUTE
            number, known, shipped = await handle.result()
            assert (known, shipped) == ("charge_good \u2028 \x85 ☃", "shipped_good")
            assert engine.now() == began + 30 * 24 * 60 * MINUTE
        assert CALLS == ["charge good", "ship good"]
        async with TestEngine([process]) as production:
            assert (await process.handle(await import_execution(production, exported)).result())[0] == number

    run(main)


def test_one_that_was_running_goes_on_as_after_a_restart(run: Run):
    entered, never = asyncio.Event(), asyncio.Event()
    waits = True

    @activity
    async def ask() -> str:
        CALLS.append("ask")
        entered.set()
        if waits:
            await never.wait()
        return "the answer"

    @workflow
    async def asks() -> list[str]:
        return [str(uuid4()), await charge("good"), await ask()]

    async def main():
        nonlocal waits
        async with TestEngine([asks]) as production:
            handle = await asks.start()
            await entered.wait()
            exported = await export_execution(production, handle.execution_id)
        assert lines_of(exported)[0]["status"] == "RUNNING"
        waits = False
        async with TestEngine([asks]) as engine:
            await engine.advance()
            execution_id = await import_execution(engine, exported)
            assert (await asks.handle(execution_id).result())[2] == "the answer"
            assert (await engine.describe(execution_id)).began_at is not None
        assert CALLS == ["charge good", "ask", "ask"]

    run(main)


def test_one_that_nobody_has_begun_begins_at_its_time(run: Run):
    async def main():
        async with TestEngine([process]) as production:
            handle = await process.options(delay="2 days").start("good", "0 seconds")
            exported = await export_execution(production, handle.execution_id)
        async with TestEngine([process]) as engine:
            began = engine.now()
            await process.handle(await import_execution(engine, exported)).result()
            assert engine.now() == began + 2 * 24 * 60 * MINUTE

    run(main)


def test_a_completion_that_has_come_before_comes_along(run: Run):
    """R18: also the first of a name stays the first."""
    first, second = (DurableDeferred.make(name, success=str) for name in ("first", "second"))

    @workflow(idempotency_key=lambda: "one")
    async def waits() -> list[str]:
        return [await second, await first, await ship("good")]

    def of(deferred: DurableDeferred[Any]) -> str:
        return deferred.token_from_execution_id(workflow=waits, execution_id=waits.execution_id())

    async def main():
        async with TestEngine([waits]) as production:
            handle = await waits.start()
            await first.succeed(of(first), "one")
            await production.advance()
            exported = await export_execution(production, handle.execution_id)
        assert lines_of(exported)[0]["letters"] == 1
        async with TestEngine([waits]) as engine:
            await import_execution(engine, exported)
            assert not await first.succeed(of(first), "another")
            assert await second.succeed(of(second), "two")
            assert await waits.handle(handle.execution_id).result() == ["two", "one", "shipped_good"]

    run(main)


def test_one_that_is_held_stays_held_until_somebody_acts(run: Run):
    broken = True

    @workflow
    async def waits() -> str:
        await charge("good")
        if broken:
            await asyncio.Event().wait()
        return "mended"

    async def main():
        nonlocal broken
        async with TestEngine([waits]) as production:
            handle = await waits.start()
            await production.advance()
            exported = await export_execution(production, handle.execution_id)
        broken = False
        async with TestEngine([waits]) as engine:
            handle = waits.handle(await import_execution(engine, exported))
            await engine.advance("1 day")
            assert [one.held for one in await engine.held()] == [Held.DEADLOCK]
            assert await export_again(engine, handle.execution_id) == without_the_moment(exported)
            await handle.resume()
            assert await handle.result() == "mended"

    async def export_again(engine: WorkflowEngine, execution_id: str) -> Lines:
        return without_the_moment(await export_execution(engine, execution_id))

    run(main)


def test_a_mailbox_and_bytes_that_are_no_text_are_carried_over(run: Run, tmp_path):
    """Written by another library or a codec that encrypts, what is stored need not be UTF-8."""
    record = Record(
        execution_id="0" * 31 + "1", incarnation=bytes(range(16)), number=3, workflow="elsewhere", key=None,
        status=Status.SUSPENDED, held=None, waits=b"[]", owner=None, fence=7, wakes=5, wake_at=None, crashes=1,
        priority=-4, version="2", parent="f" * 32, attributes={}, created_at=1, began_at=2, finished_at=None,
        changed_at=3, payload=b"\xff\xfe\x00", exit=None, deadline=2**52, seed=b"\x80" * 16,
    )  # fmt: skip
    history = History(
        [Entry(1, "activity", "call", 1, 2, b"\xc3\x28", b"", 4), Entry(2, "unheard of", "☃", 1, 0, b"{}", b'"x"', 4)],
        [Letter(2, "deferred", "approval", b"\xf0", 3), Letter(5, "message", "chat\n", b"{}", 4)],
    )
    file = tmp_path / "execution.jsonl"

    async def main():
        async with TestEngine() as engine:
            assert await engine.adopt(record, history, {"progress": b"\xff", "stage": b"2"})
            exported = await export_execution(engine, record.execution_id, file)
        assert file.read_bytes() == exported.encode()
        assert [line.get("payload") or line["exit"] for line in lines_of(exported)] == [
            {"base64": "//4A"}, "", '"x"', {"base64": "8A=="}, "{}",
        ]  # fmt: skip
        found = read_export(file)
        assert (found.record, found.history) == (record, history)
        assert found.published == {"progress": b"\xff", "stage": b"2"}
        async with TestEngine() as engine:
            assert await import_execution(engine, file) == record.execution_id
            assert without_the_moment(await export_execution(engine, record.execution_id)) == without_the_moment(
                exported
            )

    run(main)


def test_no_field_of_a_record_is_forgotten():
    """A field that a later version gives to executions belongs into the header, and that into another version."""
    assert set(Record._fields) - {"owner"} <= _Header.model_fields.keys()
    assert {*Entry._fields} - {"seq"} == _Entry.model_fields.keys() - {"entry"}
    assert {*Letter._fields} - {"wake"} == _Letter.model_fields.keys() - {"letter"}


def test_a_line_feed_that_an_editor_has_changed_does_no_harm(run: Run, tmp_path):
    async def main():
        exported = await exported_at_rest("good")
        file = tmp_path / "execution.jsonl"
        file.write_bytes(b"\xef\xbb\xbf" + exported.replace("\n", "\r\n").encode() + b"\r\n")
        assert read_export(file) == read_export(exported)

    run(main)


def test_an_execution_that_is_there_already_is_refused(run: Run):
    async def main():
        exported = await exported_at_rest("good")
        async with TestEngine([process]) as engine:
            execution_id = await import_execution(engine, exported)
            with pytest.raises(ExecutionExistsError, match="empty store") as caught:
                await import_execution(engine, exported)
            assert caught.value.execution_id == execution_id
            assert (await process.handle(execution_id).result())[2] == "shipped_good"

    run(main)


def test_an_export_shows_one_moment(run: Run, monkeypatch):
    """An execution that moves on between two looks is looked at again: its row and its journal fit each other."""

    async def main():
        async with TestEngine([process]) as engine:
            handle = await process.start("good", "30 days")
            await engine.advance()
            store = engine._store
            load = store.load
            looks = 0

            async def loaded(wanted: Any) -> list[History]:
                nonlocal looks
                looks += 1
                found = await load(wanted)
                if looks == 1:
                    await engine.advance("30 days")
                return found

            monkeypatch.setattr(store, "load", loaded)
            exported = lines_of(await export_execution(engine, handle.execution_id))
            assert (exported[0]["status"], exported[0]["entries"]) == ("SUCCEEDED", len(exported) - 1)
            assert [line["name"] for line in exported[1:]][-1] == "ship"

    run(main)


def test_what_does_not_exist_is_not_exported(run: Run):
    async def main():
        async with TestEngine() as engine:
            with pytest.raises(ExecutionNotFoundError):
                await export_execution(engine, "0" * 32)

    run(main)


def test_an_engine_of_production_takes_no_import(run: Run):
    async def main():
        exported = await exported_at_rest("good")
        async with WorkflowEngine.memory([process]) as engine:
            with pytest.raises(UsageError, match="does everything twice"):
                await import_execution(engine, exported)  # type: ignore[arg-type]

    run(main)


def test_any_engine_exports_also_a_blocking_one(run: Run):
    with WorkflowEngine.memory([process]).blocking() as production:
        execution_id = production.start(process, "good", "30 days").execution_id
        exported = production.call(export_execution, production.engine, execution_id)
    assert read_export(exported).record.execution_id == execution_id


def header(**changed: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [lines[0] | changed, *lines[1:]]


def entry(**changed: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [lines[0], lines[1] | changed, *lines[2:]]


def letters(*wakes: int) -> Callable[[Lines], Lines]:
    def add(lines: Lines) -> Lines:
        mail = [{"letter": wake, "kind": "deferred", "name": f"n{wake}", "exit": "{}", "at": 1} for wake in wakes]
        return [lines[0] | {"letters": len(mail)}, *lines[1:], *mail]

    return add


@pytest.mark.parametrize(
    ("damage", "line", "said"),
    [
        pytest.param(header(perdure_execution=2), 1, "format 2 of an exported execution", id="another version"),
        pytest.param(header(execution_id="x"), 1, "execution_id", id="no id"),
        pytest.param(header(status="SLEEPING"), 1, "status", id="an unknown status"),
        pytest.param(header(status="SUCCEEDED"), 1, "do not fit the status", id="ended without an end"),
        pytest.param(header(held="DEADLOCK", status="RUNNING"), 1, "held does not fit", id="running and held"),
        pytest.param(header(payload=7), 1, "payload", id="a payload that is none"),
        pytest.param(header(payload={"base64": "?"}), 1, "payload", id="no base64"),
        pytest.param(header(number=True), 1, "number", id="no number"),
        pytest.param(header(seed="xy"), 1, "seed", id="no hex"),
        pytest.param(header(more=1), 1, "more", id="an unknown field"),
        pytest.param(lambda lines: [{"perdure_execution": 1}, *lines[1:]], 1, "perdure: Field required", id="no facts"),
        pytest.param(lambda lines: lines[1:], 1, "is no header", id="no header"),
        pytest.param(lambda lines: [], 1, "is no header", id="nothing"),
        pytest.param(entry(at="yesterday"), 2, "at", id="no instant"),
        pytest.param(entry(name=None), 2, "name", id="no name"),
        pytest.param(lambda lines: [lines[0], *lines[2:]], 2, "entry 1 is wanted here, and this is 2", id="a gap"),
        pytest.param(lambda lines: [*lines[:2], lines[1], *lines[2:]], 3, "entry 2 is wanted", id="a line twice"),
        pytest.param(lambda lines: lines[:-1], 3, "Its end is missing", id="cut off"),
        pytest.param(lambda lines: lines[:1], 1, "Its end is missing", id="nothing but the header"),
        pytest.param(letters(2, 2), 6, "in the wrong place", id="two letters in one place"),
        pytest.param(letters(0), 5, "in the wrong place", id="a letter of the store's own"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_with_its_line_and_what_to_do(
    run: Run, damage: Callable[[Lines], Lines], line: int, said: str
):
    async def main():
        lines = lines_of(await exported_at_rest("good"))
        assert len(lines) == 4
        async with TestEngine([process]) as engine:
            # A text of nothing is a path.
            with pytest.raises(TransferError) as caught:
                await import_execution(engine, text_of(damage(lines)) or "{")
            assert said in str(caught.value)
            assert caught.value.line == line
            assert f"line {line}" in str(caught.value).lower()
            assert any(word in str(caught.value).lower() for word in ("export", "read it with"))
            assert isinstance(caught.value, InputError)
            assert [one async for one in engine.executions()] == []

    run(main)


def test_a_line_that_is_no_json_is_refused(run: Run):
    async def main():
        lines = (await exported_at_rest("good")).split("\n")
        lines[2] = lines[2][:-10]
        with pytest.raises(TransferError, match="Line 3 is damaged") as caught:
            read_export("\n".join(lines))
        assert caught.value.line == 3

    run(main)


def test_a_byte_that_is_no_text_is_refused(run: Run, tmp_path):
    async def main():
        raw = (await exported_at_rest("good")).encode()
        (tmp_path / "execution.jsonl").write_bytes(raw.replace(b"charge_good", b"charge\xffgood"))
        with pytest.raises(TransferError, match=r"Line \d is damaged .*UTF-8") as caught:
            read_export(tmp_path / "execution.jsonl")
        assert caught.value.line == 1 + raw[: raw.index(b"charge_good")].count(b"\n")

    run(main)
