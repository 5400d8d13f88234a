"""What cannot be taken is refused with a sentence that somebody can act on, and nothing is stored (issue 2)."""

import asyncio
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from perdure import (
    DurableChannel,
    DurableDeferred,
    ExecutionNotFoundError,
    PayloadError,
    SchemaVersionError,
    Status,
    StoreFileError,
    UsageError,
    Workflow,
    WorkflowEngine,
    activity,
    workflow,
)
from perdure.errors import StoreRefusedError


class Order(BaseModel):
    order_id: str
    cents: int = Field(gt=0)
    lines: list[dict[str, int]] = []


@workflow(idempotency_key=lambda order: order.order_id)
async def process(order: Order) -> str:
    return order.order_id


@workflow(idempotency_key=lambda key: key)
async def keyed(key: str) -> str:
    return key


Pay = Workflow.make("Pay", payload={"cents": int}, idempotency_key=lambda p: str(p.cents))


@Pay.implement
async def pay(payload) -> None: ...


@pytest.mark.parametrize(
    ("start", "fields"),
    [
        pytest.param(lambda: process.start({"order_id": "a", "cents": "many"}), ("cents",), id="text for a number"),
        pytest.param(lambda: process.start({"order_id": "a", "cents": -5}), ("cents",), id="out of range"),
        pytest.param(lambda: process.start({"order_id": 5, "cents": None}), ("order_id", "cents"), id="two at once"),
        pytest.param(lambda: process.start({"cents": 5}), ("order_id",), id="missing"),
        pytest.param(
            lambda: process.start({"order_id": "a", "cents": 5, "lines": [{"n": 1}, {"n": "x"}]}),
            ("lines.1.n",),
            id="deep inside",
        ),
        pytest.param(
            lambda: process.start(Order.model_construct(order_id="a", cents="many")), ("cents",), id="unvalidated model"
        ),
        pytest.param(lambda: process.start("a"), None, id="no struct"),
        pytest.param(process.start, ("order",), id="nothing"),
        pytest.param(lambda: process.start(Order(order_id="a", cents=1), 5), None, id="one too many"),
        pytest.param(lambda: process.start(Order(order_id="a", cents=1), colour="red"), ("colour",), id="unknown"),
        pytest.param(lambda: Pay.start({"cents": "many"}), ("cents",), id="field of a mapping"),
        pytest.param(lambda: Pay.start({}), ("cents",), id="missing of a mapping"),
        pytest.param(lambda: Pay.start({"cents": 5, "colour": "red"}), ("colour",), id="unknown of a mapping"),
        pytest.param(lambda: keyed.start("lone \ud800 surrogate"), None, id="surrogate"),
    ],
)
def test_a_bad_payload_names_its_fields_and_nothing_is_stored(lab, start, fields):
    async def main():
        async with lab.engine([process, keyed, pay]) as engine:
            with pytest.raises(PayloadError, match="Workflow") as refused:
                await start()
            if fields is not None:
                assert refused.value.fields == fields
                assert all(field in str(refused.value) for field in fields)
            await lab.settle()
            assert [info async for info in engine.executions()] == []

    lab.run(main)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("x" * 1_025, "1,025 characters", id="too long"),
        pytest.param("a\0b", "NUL", id="NUL"),
        pytest.param(5, "int", id="int"),
        pytest.param(None, "NoneType", id="None"),
        pytest.param(b"bytes", "bytes", id="bytes"),
        pytest.param("lone \ud800", "surrogate", id="surrogate"),
    ],
)
def test_a_key_that_identifies_nothing_is_refused(lab, key, said):
    """Issue 2: not a non-empty string of at most 1,024 characters, or holding NUL or lone surrogates."""

    @workflow(idempotency_key=lambda n: key)
    async def work(n: int) -> None: ...

    async def main():
        async with lab.engine([work]) as engine:
            for ask in (lambda: work.start(1), lambda: work.execute(1)):
                with pytest.raises(PayloadError, match=said):
                    await ask()
            with pytest.raises(PayloadError, match='Workflow "work"'):
                work.execution_id(1)
            assert [info async for info in engine.executions()] == []

    lab.run(main)


def test_the_longest_key_and_any_text_are_taken(lab):
    async def main():
        async with lab.engine([keyed]) as engine:
            for key in ("x" * 1_024, " ", "ключ 🔑 'quoted'; --", "a\nb\tc", "\x7f"):
                assert await lab.finish(keyed.execute(key)) == key
                assert (await engine.describe(keyed.execution_id(key))).key == key

    lab.run(main)


def test_a_key_function_that_raises_says_whose_it_was(lab):
    @workflow(idempotency_key=lambda n: {}["missing"])
    async def work(n: int) -> None: ...

    async def main():
        async with lab.engine([work]) as engine:
            with pytest.raises(KeyError) as raised:
                await work.start(1)
            assert any('workflow "work"' in note for note in raised.value.__notes__)
            assert [info async for info in engine.executions()] == []

    lab.run(main)


def test_a_payload_over_the_limit_is_refused_with_both_figures(lab):
    async def main():
        async with lab.engine([keyed], payload_limit=100) as engine:
            with pytest.raises(PayloadError, match=r"210 bytes.*100.*payload_limit"):
                await keyed.start("x" * 200)
            assert [info async for info in engine.executions()] == []
            assert await lab.finish(keyed.execute("x" * 50)) == "x" * 50

    lab.run(main)


def test_an_activity_s_result_over_the_limit_is_a_defect_that_is_not_tried_again(lab):
    from perdure import Defect, Schedule

    ran = []

    @activity(retry=Schedule.spaced("1 second").times(5))
    async def wordy() -> str:
        ran.append(1)
        return "x" * 2_000

    @workflow(idempotency_key=lambda key: key)
    async def work(key: str) -> str:
        return await wordy()

    async def main():
        async with lab.engine([work], payload_limit=1_000):
            with pytest.raises(Defect, match=r"'wordy'.*limit is 1,000"):
                await lab.finish(work.execute("k"))
        assert ran == [1]

    lab.run(main)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"execution_id": "short"}, "32 lower-case hex digits"),
        ({"execution_id": "A" * 32}, "32 lower-case hex digits"),
        ({"execution_id": 5}, "32 lower-case hex digits"),
        ({"delay": "a while"}, "a while"),
        ({"delay": [5]}, "5"),
        ({"priority": "high"}, "whole number"),
        ({"priority": 2**31}, "32 bits"),
        ({"priority": True}, "whole number"),
        ({"attributes": {"a": [1]}}, "'a'"),
        ({"attributes": {"a": float("nan")}}, "finite"),
        ({"attributes": {"a": 2**63}}, "64 bits"),
        ({"attributes": {"": 1}}, "empty"),
        ({"attributes": {"a": "\0"}}, "NUL"),
        ({"attributes": {5: 1}}, "text"),
        ({"on_duplicate": "explode"}, "'join', 'reject' or 'restart_if_failed'"),
    ],
    ids=lambda value: None if isinstance(value, str) else ascii(value)[:40],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(corner_lab, options, said):
    async def main():
        async with corner_lab.engine([keyed]) as engine:
            with pytest.raises(UsageError, match=said):
                await keyed.options(**options).start("k")
            assert [info async for info in engine.executions()] == []

    corner_lab.run(main)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="'dealy'"):
        keyed.options(dealy="5 minutes")  # type: ignore[call-arg]


def test_a_negative_delay_is_refused(lab):
    """R3: it is a sign the wrong way round, and nothing is stored of it."""

    async def main():
        async with lab.engine([keyed]) as engine:
            with pytest.raises(UsageError, match="cannot be negative: -5"):
                await keyed.options(delay=-5).start("k")
            assert [info async for info in engine.executions()] == []
            assert await lab.finish(keyed.options(delay=0).execute("k")) == "k"

    lab.run(main)


# Ids ---------------------------------------------------------------------------------------------------

Answer = DurableDeferred.make("answer", success=str)
Notes = DurableChannel.make("notes", str)

# As somebody writes them who means a key, has copied too much or too little, or found them in upper case.
NO_IDS = ("order-123", "", "z" * 32, "AB" * 16, "ab" * 15, "ab" * 17, "ab " * 16, "\u0663" * 32, "\ud800", 5, None)


@workflow(idempotency_key=lambda key: key)
async def answered(key: str) -> str:
    return await Answer


@pytest.mark.parametrize("bad", NO_IDS, ids=ascii)
def test_what_is_no_id_is_refused_by_whatever_acts_on_one(corner_lab, bad):
    """R1, R49: with one sentence, before the store is asked, and whoever else uses the engine does not feel it."""
    lab = corner_lab

    async def main():
        async with lab.engine([keyed, answered]) as engine:
            original = await keyed.start("k")
            await lab.result(original)
            id_ = original.execution_id
            calls = [
                lambda: engine.fork(bad, at=0),
                lambda: engine.rewind(bad, to=0),
                lambda: engine.interrupt(bad),
                lambda: engine.interrupt_unsafe(bad),
                lambda: engine.resume(bad),
                lambda: engine.describe(bad),
                lambda: engine.explain(bad),
                lambda: engine.journal(bad),
                lambda: Notes.send(bad, "x"),
                lambda: keyed.interrupt(bad),
                lambda: keyed.resume(bad),
                lambda: keyed.options(execution_id=bad).start("k"),
            ]
            if bad is not None:  # fork: a random one
                calls.append(lambda: engine.fork(id_, at=0, new_id=bad))
            for call in calls:
                with pytest.raises(UsageError, match="32 lower-case hex digits"):
                    await call()
            with pytest.raises(UsageError, match="32 lower-case hex digits"):
                Answer.token_from_execution_id(workflow=answered, execution_id=bad)
            assert [one.execution_id async for one in engine.executions()] == [id_]
            assert await lab.finish(keyed.execute("another")) == "another"

    lab.run(main)


def test_what_is_no_id_is_refused_in_a_body_too(lab):
    """R42: there it would be written with the turn."""

    @workflow(idempotency_key=lambda which, id_: which)
    async def acts(which: str, id_: str) -> str:
        handle = keyed.handle(id_)
        try:
            match which:
                case "interrupt":
                    await handle.interrupt()
                case "resume":
                    await handle.resume()
                case "token":
                    handle.token(Answer)
                case _:
                    await Notes.send(id_, "x")
        except UsageError as refused:
            return str(refused)
        return "taken"

    async def main():
        async with lab.engine([keyed, acts]):
            for which in ("interrupt", "resume", "token", "send"):
                assert "32 lower-case hex digits" in await lab.finish(acts.execute(which, "order-123"))

    lab.run(main)


def test_another_spelling_of_an_id_is_the_id_of_none(lab):
    """Decision 0008: whoever looks is told that there is none, as of every id that nobody has."""

    async def main():
        async with lab.engine([keyed]) as engine:
            id_ = (await keyed.start("k")).execution_id
            await lab.finish(keyed.execute("k"))
            for spelled in (id_.upper(), f" {id_}", f"{id_[:2]} {id_[2:]}"):
                assert await engine.poll(spelled) is None
                assert await keyed.handle(spelled).status() is None
                with pytest.raises(ExecutionNotFoundError):
                    await lab.finish(keyed.handle(spelled).result())

    lab.run(main)


def test_a_commit_that_cannot_be_bound_is_refused_alone(lab, monkeypatch):
    """A bug, but one commit's: its starter is told, and the engine goes on writing."""
    monkeypatch.setattr("perdure._face.check_id", lambda id_: id_)  # as if a check had been forgotten

    async def main():
        async with lab.engine([keyed]) as engine:
            original = await keyed.start("k")
            await lab.result(original)
            with pytest.raises(StoreRefusedError, match="nothing was written"):
                await lab.finish(engine.fork(original.execution_id, at=0, new_id="what-if-1"))
            assert await lab.finish(keyed.execute("another")) == "another"

    lab.run(main)


# The file ----------------------------------------------------------------------------------------------


def opened(path: Path) -> None:
    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [keyed]):
            await keyed.execute("k")

    asyncio.run(main())


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, and more of them than a database's header has bytes " * 10)
    before = path.read_bytes()
    with pytest.raises(StoreFileError, match=r"notes\.txt") as refused:
        opened(path)
    assert refused.value.path == str(path)
    assert path.read_bytes() == before


def test_the_application_s_own_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreFileError, match=r"another application.*a file of its own"):
        opened(path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["app.db"]


def test_a_database_of_a_newer_schema_is_left_as_it_is(tmp_path):
    path = tmp_path / "orders.perdure"
    opened(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(SchemaVersionError, match=r"999.*(?i:upgrade)") as refused:
        opened(path)
    assert refused.value.found == 999


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of somebody who may not write everywhere; root becomes that somebody for the test."""
    me, nobody = os.geteuid(), 65_534
    # Not tmp_path: only its owner can look into the folders above it.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if me == 0:
            os.chown(folder, nobody, -1)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(me)


def test_a_read_only_file_is_refused(unprivileged):
    path = unprivileged / "orders.perdure"
    opened(path)
    path.chmod(stat.S_IRUSR)
    with pytest.raises(StoreFileError, match="cannot be written to") as refused:
        opened(path)
    assert refused.value.path == str(path)


def test_a_file_in_a_read_only_folder_is_refused(unprivileged):
    path = unprivileged / "orders.perdure"
    opened(path)
    unprivileged.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(StoreFileError, match="folder that cannot be written to"):
            opened(path)
    finally:
        unprivileged.chmod(stat.S_IRWXU)


def test_a_path_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(StoreFileError, match="mkdir"):
        opened(tmp_path / "nowhere" / "orders.perdure")
    with pytest.raises(StoreFileError, match="is a folder"):
        opened(tmp_path)


def test_a_refused_file_leaves_no_engine_behind(tmp_path):
    """Nothing is open, nothing runs, and the next one opens."""
    import threading

    from perdure._definitions import ambient

    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 100)
    # Other tests leave engines whose functions never end, and with them their threads (R12).
    before = set(threading.enumerate())
    with pytest.raises(StoreFileError):
        opened(path)
    assert ambient.open_engines == []
    assert not [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
    opened(tmp_path / "orders.perdure")


def test_the_file_belongs_to_perdure_while_it_is_open(tmp_path):
    """Design 2: another SQLite library's close would drop the locks of this one."""
    path = tmp_path / "orders.perdure"

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [keyed]):
            await keyed.execute("k")
            with pytest.raises(UsageError, match=r"orders\.perdure|perdure"):
                sqlite3.connect(path)
        sqlite3.connect(path).close()

    asyncio.run(main())


def test_a_status_is_asked_of_a_handle_and_not_of_rubbish(lab):
    async def main():
        async with lab.engine([keyed]) as engine:
            assert await engine.poll("rubbish") is None
            assert await keyed.handle("rubbish").poll() is None
            await lab.finish(keyed.execute("k"))
            assert await keyed.handle(keyed.execution_id("k")).status() is Status.SUCCEEDED

    lab.run(main)
