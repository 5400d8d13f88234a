"""One execution as JSON Lines: out of any engine, and into an engine of tests.

The first line is the header: the version of the format, and everything that a store knows of the execution. Then one
line for each entry of its journal, in order, and one for each letter of its mailbox. What is encoded in the store
(payload, inputs, exits) is carried as the text that it is there, byte for byte, and not as JSON within JSON: a reader
of another version may know the same value by another spelling. docs/guides/testing.md describes every field.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from perdure._facade import WorkflowEngine
from perdure._model.journal import Entry
from perdure._model.records import ExecutionId, History, Letter, Record
from perdure._model.status import Held, Status, is_final
from perdure._model.store import Store
from perdure._values.instant import Instant
from perdure.errors import ExecutionExistsError, ExecutionNotFoundError, InputError, UsageError
from perdure.testing.engine import TestEngine

FORMAT: Final = 1
# Of the front door, through which the house does not enter.
_VERSION: Final[str] = sys.modules["perdure"].__version__


class TransferError(InputError):
    """A text is no exported execution, or one of another version, or damaged.

    Attributes:
        line: The number of the line in which it is so, from 1.

    Example:
        >>> from perdure.testing.transfer import read_export
        >>> read_export('{"perdure_execution": 99}')
        Traceback (most recent call last):
        TransferError: Line 1: this is format 99 of an exported execution, and this perdure reads format 1. ...
    """

    code = "transfer"

    def __init__(self, message: str = "", *, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class ExportedExecution(NamedTuple):
    """What an export holds, as a store has it."""

    record: Record
    history: History
    # What its body shows, by name.
    published: Mapping[str, bytes]
    exported_at: Instant


async def export_execution(
    engine: WorkflowEngine, execution_id: ExecutionId, path: str | PathLike[str] | None = None
) -> str:
    """Give one execution, in whatever state it is, as JSON Lines; with `path`, write them there as well.

    It holds payloads, results and errors as they are in the store: whoever may not read these may not have it either.
    The execution goes on meanwhile, and is not touched.

    Raises:
        ExecutionNotFoundError: There is no such execution.

    Example:
        >>> import asyncio
        >>> from perdure import sleep, workflow
        >>> from perdure.testing import TestEngine, export_execution, import_execution
        >>> @workflow(idempotency_key=lambda email: email)
        ... async def trial(email: str) -> str:
        ...     await sleep("30 days", name="TrialPeriod")
        ...     return "ended"
        >>> async def main() -> str:
        ...     async with TestEngine([trial]) as production:
        ...         handle = await trial.start("ada@example.com")
        ...         await production.advance("10 days")
        ...         exported = await export_execution(production, handle.execution_id)
        ...     async with TestEngine([trial]) as engine:
        ...         return await trial.handle(await import_execution(engine, exported)).result()
        >>> asyncio.run(main())
        'ended'
    """
    # Both belong to the engine, and there is no public way to what is encoded.
    store = engine._service.store  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    exported = await engine._ask(_read, store, execution_id)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    text = "".join(f"{line}\n" for line in _lines(exported))
    if path is not None:
        # Bytes: no newline of the text may become another one.
        await asyncio.to_thread(Path(path).write_bytes, text.encode())
    return text


async def import_execution(engine: TestEngine, source: str | PathLike[str]) -> ExecutionId:
    r"""Write an exported execution into the store of an engine of tests, and go on with it if it has not ended.

    It is as it was: finished, held, or waiting; one that was running goes on as after a restart, with today's code.
    If the engine's clock is behind the moment of the export it is advanced to it first. Children and parents are
    executions of their own, and do not come with it.

    Args:
        engine: A `TestEngine`. No other is taken: an execution that goes on in two places does everything twice.
        source: A path, or the text itself, which begins with `{`.

    Returns:
        The execution's id.

    Raises:
        TransferError: It is no export, or of another version, or damaged; the line says where.
        ExecutionExistsError: The store has an execution of that id.
        UsageError: The engine is no `TestEngine`.

    Example:
        >>> import asyncio
        >>> from perdure.testing import TestEngine, import_execution
        >>> async def main() -> None:
        ...     async with TestEngine() as engine:
        ...         await import_execution(engine, '{"perdure_execution": 1}\n')
        >>> asyncio.run(main())
        Traceback (most recent call last):
        TransferError: Line 1 is damaged (perdure: Field required). Export the execution again.
    """
    if not isinstance(engine, TestEngine):  # pyright: ignore[reportUnnecessaryIsInstance] - not everybody has a type checker
        raise UsageError(
            f"import_execution takes a TestEngine, not {engine!r}: an execution that goes on in two places does "
            "everything twice. To look at one, open `TestEngine(path=...)` without workflows, and import it there."
        )
    exported = await asyncio.to_thread(read_export, source)
    if (behind := exported.exported_at - engine.now()) > 0:
        # Times never go back within an execution.
        await engine.advance(behind / 1_000)
    record = exported.record
    if not await engine.adopt(record, exported.history, exported.published):
        raise ExecutionExistsError(
            f"Execution {record.execution_id} of {record.workflow!r} exists in this store already. Import it into an"
            " engine with an empty store: `TestEngine([...])` in memory has one to itself.",
            execution_id=record.execution_id,
        )
    return record.execution_id


def read_export(source: str | PathLike[str]) -> ExportedExecution:
    """Read an exported execution, from a path or from the text itself.

    Raises:
        TransferError: It is no export, or of another version, or damaged; the line says where.
    """
    lines = _split(_text(source))
    header = _parse(_Header, *_first(lines))
    entries: list[Entry] = []
    letters: list[Letter] = []
    number = 1
    for number, line in lines:
        if '"letter"' in line[:20]:
            letters.append(_parse(_Letter, number, line).letter_of(number, letters))
        else:
            entries.append(_parse(_Entry, number, line).entry_of(number, len(entries) + 1))
    if (len(entries), len(letters)) != (header.entries, header.letters):
        raise TransferError(
            f"It ends behind line {number}, with {len(entries)} of {header.entries} entries and {len(letters)} of"
            f" {header.letters} letters. Its end is missing: export the execution again.",
            line=number,
        )
    return ExportedExecution(header.record(), History(entries, letters), header.published, header.exported_at)


# The format ----------------------------------------------------------------------------------------


def _encode(encoded: bytes) -> Any:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(encoded).decode()}


def _decode(value: Any) -> bytes:
    match value:
        case str():
            return value.encode()
        case {"base64": str(text)}:
            return base64.b64decode(text, validate=True)
        case _:
            raise ValueError('a text or {"base64": ...} is wanted')


def _from_hex(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("hex digits are wanted")  # noqa: TRY004 - pydantic takes a ValueError
    return bytes.fromhex(value)


_Encoded = Annotated[bytes, PlainValidator(_decode), PlainSerializer(_encode)]
_Hex = Annotated[bytes, PlainValidator(_from_hex), PlainSerializer(bytes.hex)]


class _Line(BaseModel):
    # A field that this version does not know would be lost without a word.
    model_config = ConfigDict(extra="forbid", strict=True)


class _Header(_Line):
    """The first line: the version of the format, and the execution as it stood."""

    perdure_execution: int
    perdure: str
    exported_at: Instant
    entries: int
    letters: int
    execution_id: str = Field(pattern="^[0-9a-f]{32}$")
    incarnation: _Hex
    number: int
    workflow: str
    key: str | None
    status: Status
    held: Held | None
    waits: _Encoded | None
    wake_at: Instant | None
    fence: int
    wakes: int
    crashes: int
    priority: int
    version: str | None
    parent: str | None
    attributes: dict[str, str | int | float | bool]
    deadline: Instant | None
    seed: _Hex | None
    created_at: Instant
    began_at: Instant | None
    finished_at: Instant | None
    changed_at: Instant
    payload: _Encoded
    exit: _Encoded | None
    published: dict[str, _Encoded]

    @model_validator(mode="after")
    def _check(self) -> Self:
        ended = is_final(self.status)
        if ended != (self.finished_at is not None) or (ended and self.exit is None):
            raise ValueError(f"finished_at and exit do not fit the status {self.status}")
        if self.held is not None and self.status is not Status.SUSPENDED:
            raise ValueError(f"held does not fit the status {self.status}")
        return self

    def record(self) -> Record:
        facts = {name: getattr(self, name) for name in Record._fields if name != "owner"}
        return Record(owner=None, **facts)


class _Entry(_Line):
    """One entry of the journal; `entry` is its seq."""

    entry: int
    kind: str
    name: str
    occurrence: int
    attempt: int
    input: _Encoded
    exit: _Encoded
    at: Instant

    def entry_of(self, line: int, seq: int) -> Entry:
        if self.entry != seq:
            raise TransferError(
                f"Line {line}: entry {seq} is wanted here, and this is {self.entry}. Lines are missing or in another"
                " order: export the execution again.",
                line=line,
            )
        facts = self.model_dump(exclude={"entry", "input", "exit"})
        return Entry(seq=seq, input=self.input, exit=self.exit, **facts)


class _Letter(_Line):
    """One letter of the mailbox; `letter` is its wake."""

    letter: int
    kind: str
    name: str
    exit: _Encoded
    at: Instant

    def letter_of(self, line: int, before: list[Letter]) -> Letter:
        if self.letter <= (before[-1].wake if before else 0):
            raise TransferError(
                f"Line {line}: letter {self.letter} is in the wrong place. Export the execution again.", line=line
            )
        return Letter(self.letter, self.kind, self.name, self.exit, self.at)


_L = TypeVar("_L", bound=_Line)


def _lines(exported: ExportedExecution) -> Iterator[str]:
    record, history, published, exported_at = exported
    facts: dict[str, Any] = {**record._asdict(), "attributes": dict(record.attributes)}
    del facts["owner"]
    yield _Header.model_construct(
        perdure_execution=FORMAT,
        perdure=_VERSION,
        exported_at=exported_at,
        entries=len(history.entries),
        letters=len(history.letters),
        published=dict(published),
        **facts,
    ).model_dump_json()
    for entry in history.entries:
        facts = entry._asdict()
        yield _Entry.model_construct(entry=facts.pop("seq"), **facts).model_dump_json()
    for letter in history.letters:
        facts = letter._asdict()
        yield _Letter.model_construct(letter=facts.pop("wake"), **facts).model_dump_json()


# Reading -------------------------------------------------------------------------------------------


def _text(source: str | PathLike[str]) -> str:
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return source
    raw = Path(source).read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TransferError(
            f"Line {line} is damaged (byte {error.start} of the file is no UTF-8). Export the execution again.",
            line=line,
        ) from error


def _split(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines: a payload may hold other characters at which that would cut.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _first(lines: Iterator[tuple[int, str]]) -> tuple[int, str]:
    number, line = next(lines, (1, ""))
    try:
        header = json.loads(line)
        version = header["perdure_execution"]
    except (ValueError, KeyError, TypeError) as error:
        raise TransferError(
            f"Line {number} is no header of an exported execution. Give import_execution what export_execution has made.",
            line=number,
        ) from error
    if version != FORMAT:
        raise TransferError(
            f"Line {number}: this is format {version} of an exported execution, and this perdure reads format {FORMAT}."
            f" Read it with the perdure that wrote it ({header.get('perdure', 'unknown')}), or export it again with this"
            f" one ({_VERSION}).",
            line=number,
        )
    return number, line


def _parse(kind: type[_L], number: int, line: str) -> _L:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        why = f"{place}: {first['msg']}" if place else first["msg"]
        raise TransferError(f"Line {number} is damaged ({why}). Export the execution again.", line=number) from error


async def _read(store: Store, execution_id: ExecutionId) -> ExportedExecution:
    """Everything about an execution, as it stood at one moment."""
    while True:
        before = await store.read([execution_id])
        if not before:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.", execution_id=execution_id)
        (history,) = await store.load([(before[0].incarnation, 0, 0)])
        published = await store.published(execution_id)
        # A row says that its execution rests or has ended only with a journal that says so too. While one is running
        # its journal grows and the row stays, and any beginning of the journal is one that it has had.
        if await store.read([execution_id]) == before:
            return ExportedExecution(before[0], history, published, store.clock.now())
