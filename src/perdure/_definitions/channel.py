"""Channels: messages to an execution, each taken once by its body."""

from typing import Any, Final, Generic

from typing_extensions import TypeForm, TypeVar

from perdure import _ids
from perdure._definitions import ambient
from perdure._definitions.arrival import NamedArrival
from perdure._definitions.host import Engine, Host
from perdure._definitions.name import check_id, check_name
from perdure._definitions.sending import SendCall, post, post_from_body
from perdure._model.journal import Kind
from perdure._model.records import ExecutionId, Mail, MailKind, Receipt, message_name
from perdure._values.exit_codec import ExitCodec
from perdure._values.schema import Schema
from perdure.errors import DefinitionError, ExecutionFinishedError, PayloadError

T = TypeVar("T")
R = TypeVar("R")

_MESSAGE: Final = Kind.MESSAGE


class DurableChannel(Generic[T]):
    """A named way for messages to reach a running execution.

    Messages of one sender keep their order, each is taken once, and they wait until a `receive` asks for them (R48).

    Attributes:
        name: What its messages are recorded under.
        codec: Reads and writes them.

    Example:
        ```python
        from perdure import DurableChannel, WorkflowEngine, workflow

        Amounts = DurableChannel.make("amounts", int)


        @workflow(idempotency_key=lambda account: account)
        async def add(account: str) -> int:
            return await Amounts.receive() + await Amounts.receive()


        async with WorkflowEngine.memory([add]):
            handle = await add.start("ada")
            await Amounts.send(handle.execution_id, 2)
            await Amounts.send(handle.execution_id, 3)
            assert await handle.result() == 5
        ```
    """

    def __init__(self, name: str, message: Schema[Any]) -> None:
        """Put a channel together; users write `DurableChannel.make`."""
        self.name = name
        self.codec: ExitCodec[Any] = ExitCodec(message, (), message.owner)

    @staticmethod
    def make(name: str, type_: TypeForm[R], /) -> "DurableChannel[R]":
        """Make a channel.

        Args:
            name: What its messages are recorded under.
            type_: The type of its messages, any that pydantic can handle.

        Raises:
            DefinitionError: Something in it cannot be stored.

        Example:
            >>> DurableChannel.make("amounts", int).name
            'amounts'
        """
        owner = f'Channel "{check_name(name, "a channel")}"'
        return DurableChannel(name, Schema(type_, owner, "the message"))

    async def receive(self) -> T:
        """Take the next message, in a body; `asyncio.timeout` bounds the wait.

        Raises:
            OutsideExecutionError: No body runs here.

        Example:
            ```python
            import asyncio

            from perdure import DurableChannel, WorkflowEngine, workflow

            Answers = DurableChannel.make("answers", str)


            @workflow
            async def ask() -> str:
                try:
                    async with asyncio.timeout(0.01):
                        return await Answers.receive()
                except TimeoutError:
                    return "nobody answered"


            async with WorkflowEngine.memory([ask]):
                assert await ask.execute() == "nobody answered"
            ```
        """
        host = ambient.require_host("receive()")
        occurrence = host.occurrence(_MESSAGE, self.name)
        return await host.ask(NamedArrival(_MESSAGE, self.name, occurrence, host.number(), self.codec))

    async def send(
        self, execution_id: ExecutionId, value: T, id: str | None = None, *, engine: Engine | None = None
    ) -> None:
        """Send a message to an execution; it is durable when this returns. In a body it is a recorded step (R42).

        Args:
            execution_id: The execution.
            value: The message.
            id: Tells it from others: sent again under the same id it is one message. Without it each is a new one.
            engine: The engine, where several are open.

        Raises:
            ExecutionFinishedError: The execution has ended; nothing was stored.
            ExecutionNotFoundError: There is no such execution; nothing was stored.
            PayloadError: The message is not of the channel's type, or the id cannot be one; nothing was stored.
            WorkflowIOError: It names an engine, in a body.
        """
        raw = self.codec.success(value)[0]
        given = None if id is None else _checked_id(id, self.codec.owner)
        host = ambient.host.get()
        if host is None:
            mail = self._mail(execution_id, given or _ids.random_bytes().hex(), raw)
            _taken(await post(mail, self.codec.owner, engine), execution_id)
        else:
            call = self._call(host, execution_id, given, raw)
            _taken(await post_from_body(host, call, execution_id, engine), execution_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _call(self, host: Host, execution_id: ExecutionId, message_id: str | None, raw: bytes) -> SendCall:
        mail = self._mail(execution_id, message_id or "", raw)
        call = SendCall(f"send:{self.name}", host, mail, self.codec, (execution_id, message_id))
        if message_id is None:
            # Known by its step, so that a turn which is run again sends the same message and not another (R48).
            step = _ids.step_key(host.execution_id, host.life, call.name, call.input, call.occurrence)
            call.mail = self._mail(execution_id, step, raw)
        return call

    def _mail(self, execution_id: ExecutionId, message_id: str, raw: bytes) -> Mail:
        return Mail(check_id(execution_id), MailKind.MESSAGE, message_name(self.name, message_id), raw)


def _checked_id(id: str, owner: str) -> str:
    try:
        return check_name(id, "a message")
    except DefinitionError as refused:
        raise PayloadError(f"{owner}: the id of a message is text like a name: {refused}", owner=owner) from refused


def _taken(receipt: Receipt, execution_id: ExecutionId) -> None:
    # A message that is IGNORED had been sent before, under its id: to its sender that is the same.
    if receipt in (Receipt.FINISHED, Receipt.OUTDATED):
        raise ExecutionFinishedError(
            f"Execution {execution_id} has ended and takes no messages.", execution_id=execution_id
        )
