"""Mail from a definition to an execution: sent at once from outside, with the turn's commit from a body (R42)."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json, to_json

from perdure._definitions import ambient
from perdure._definitions.host import Call, Engine, Host
from perdure._model.journal import Kind
from perdure._model.records import ExecutionId, Mail, Receipt
from perdure._values.cause import Cause
from perdure._values.exit_codec import ExitCodec
from perdure._values.limit import check_size
from perdure._values.schema import Schema
from perdure.errors import ExecutionNotFoundError, PayloadError, WorkflowIOError


class SendCall(Call):
    """Mail that a body sends: its receipt is recorded, so that every replay is answered alike."""

    __slots__ = ("_codec", "mail")

    def __init__(self, name: str, host: Host, mail: Mail, codec: ExitCodec[Any], said: Sequence[str | None]) -> None:
        """Ask for it.

        Args:
            name: The step.
            host: The body's host.
            mail: What is sent; its sender is the kernel's to add.
            codec: Reads its exit.
            said: What its author said beside that, to whom above all.
        """
        asked = to_json([*said, mail.exit.decode()])
        super().__init__(Kind.SENT, name, host.occurrence(Kind.SENT, name), asked, host.number())
        self.mail = mail
        self._codec = codec

    def decode_success(self, exit: bytes, /) -> Receipt:
        """Read what became of it.

        Raises:
            PayloadError: A newer release wrote it.
        """
        try:
            return Receipt(from_json(exit)["success"])
        except ValueError as unknown:
            raise PayloadError(f"{self!r}: this release knows no receipt {exit!r}.") from unknown

    def decode_failure(self, exit: bytes, /) -> Cause:
        """Read why it could not be sent.

        Raises:
            PayloadError: It cannot be read.
        """
        return _RECEIPTS.decode_failure(exit)

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether the same was sent to the same execution."""
        if recorded == self.input:
            return True
        *before, sent = from_json(recorded)
        *now, sends = from_json(self.input)
        try:
            return before == now and self._codec.decode(sent.encode()) == self._codec.decode(sends.encode())
        except PayloadError:
            return False

    def __repr__(self) -> str:
        return f"<{self.name} #{self.occurrence}>"


async def post(mail: Mail, owner: str, engine: Engine | None) -> Receipt:
    """Send mail from outside of a body; it is durable when this returns.

    Raises:
        ExecutionNotFoundError: There is no such execution; nothing was stored.
        PayloadError: It is too large; nothing was stored.
    """
    engine = engine or ambient.find_engine()
    check_size(mail.exit, engine.payload_limit, f"{owner}: what is sent", owner)
    return _known(await engine.deliver(mail), mail.execution_id)


async def post_from_body(host: Host, call: SendCall, execution_id: ExecutionId, engine: Engine | None) -> Receipt:
    """Send mail with this turn's commit, once, whatever is replayed.

    Raises:
        ExecutionNotFoundError: There is no such execution; nothing was stored.
        WorkflowIOError: It names an engine.
    """
    if engine is not None:
        raise WorkflowIOError(
            f"{call.name!r} in a body with engine=...: a body reaches executions of its own engine only. "
            "Move it to an activity."
        )
    return _known(await host.ask(call), execution_id)


def _known(receipt: Receipt, execution_id: ExecutionId) -> Receipt:
    if receipt is Receipt.UNKNOWN:
        raise ExecutionNotFoundError(
            f"There is no execution {execution_id}; nothing was stored.", execution_id=execution_id
        )
    return receipt


_RECEIPTS: Final = ExitCodec(Schema(str, "Mail"), (), "Mail")
