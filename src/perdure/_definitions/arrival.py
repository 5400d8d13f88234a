"""Waiting for what comes from outside with an exit of its own: deferreds, messages, children."""

from typing import Any

from perdure._definitions.host import Call
from perdure._model.journal import Kind
from perdure._values.cause import Cause
from perdure._values.exit_codec import ExitCodec


class Arrival(Call):
    """A wait whose answer is read by the codec of what is waited for."""

    __slots__ = ("_codec",)

    def __init__(  # noqa: PLR0917 - as a call, and its codec
        self, kind: Kind, name: str, occurrence: int, input: bytes, number: int, codec: ExitCodec[Any]
    ) -> None:
        super().__init__(kind, name, occurrence, input, number)
        self._codec = codec

    def decode_success(self, exit: bytes, /) -> Any:
        """Read the value with today's type of it.

        Raises:
            PayloadError: It cannot be read.
        """
        return self._codec.decode_success(exit)

    def decode_failure(self, exit: bytes, /) -> Cause:
        """Read why it failed: declared errors come as their own classes, as today's declarations have them (R32).

        Raises:
            PayloadError: It cannot be read.
        """
        return self._codec.decode_failure(exit)

    def same_input(self, recorded: bytes, /) -> bool:
        """Whether it is the same that was waited for; what is asked has one form."""
        return recorded == self.input

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} #{self.occurrence}>"


class NamedArrival(Arrival):
    """A wait for whatever comes under a name: a deferred's value, the next message of a channel."""

    __slots__ = ()

    # A message has an id, which nobody has asked for; a deferred has nothing but its name.
    input_decides = False

    def __init__(self, kind: Kind, name: str, occurrence: int, number: int, codec: ExitCodec[Any]) -> None:
        super().__init__(kind, name, occurrence, b"", number, codec)
