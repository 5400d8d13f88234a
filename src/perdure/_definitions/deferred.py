"""Deferreds: values that a body waits for and that somebody else provides."""

from collections.abc import Awaitable, Generator, Iterable
from typing import Any, Final, Generic, Never, ParamSpec, cast, overload

from typing_extensions import TypeForm, TypeVar

from perdure._definitions import ambient, race
from perdure._definitions.address import as_recorded, give_token, take_token, take_token_in_body
from perdure._definitions.arrival import NamedArrival
from perdure._definitions.host import Engine, Host
from perdure._definitions.name import check_name
from perdure._definitions.policy import Errors, read_errors
from perdure._definitions.sending import SendCall, post, post_from_body
from perdure._definitions.surroundings import current_attempt
from perdure._definitions.workflow import Workflow
from perdure._model.journal import Kind
from perdure._model.records import Acts, ExecutionId, Mail, MailKind, Receipt
from perdure._values.cause import Cause, Interrupt
from perdure._values.duration import Duration
from perdure._values.exit import Exit, Failure, Success
from perdure._values.exit_codec import ExitCodec
from perdure._values.schema import Schema
from perdure._values.token import Token, TokenParsed
from perdure.errors import OutsideExecutionError, TokenError

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", default=None)
E = TypeVar("E", bound=Exception, default=Never)
R = TypeVar("R")
F = TypeVar("F", bound=Exception, default=Never)

_DEFERRED: Final = Kind.DEFERRED


class DurableDeferred(Generic[A, E]):
    """A named value that a body awaits and that somebody else provides: a person, a webhook, another execution.

    There is one value for each execution and name; the first completion wins, and may come before the await. In an
    activity it is awaited in place.

    Attributes:
        name: What its completion is recorded under.
        codec: Reads and writes its exits.

    Example:
        ```python
        from perdure import DurableDeferred, WorkflowEngine, workflow

        Approval = DurableDeferred.make("approval", success=str)


        @workflow(idempotency_key=lambda order_id: order_id)
        async def request(order_id: str) -> str:
            return f"approved by {await Approval}"


        async with WorkflowEngine.memory([request]):
            handle = await request.start("order-123")
            token = Approval.token_from_payload(workflow=request, payload="order-123")
            assert await Approval.succeed(token, "ada")
            assert not await Approval.succeed(token, "too late")
            assert await handle.result() == "approved by ada"
        ```
    """

    def __init__(self, name: str, codec: ExitCodec[Any]) -> None:
        """Put a deferred together; users write `DurableDeferred.make`."""
        self.name = name
        self.codec = codec

    @overload
    @staticmethod
    def make(
        name: str,
        *,
        error: Errors[F] = ...,  # pyright: ignore[reportInvalidTypeVarUse] - its default is what "not given" means
    ) -> "DurableDeferred[None, F]": ...
    @overload
    @staticmethod
    def make(
        name: str,
        *,
        success: TypeForm[R],
        error: Errors[F] = ...,  # pyright: ignore[reportInvalidTypeVarUse] - as above
    ) -> "DurableDeferred[R, F]": ...
    @staticmethod
    def make(name: str, *, success: Any = None, error: Errors[Exception] = ()) -> "DurableDeferred[Any, Any]":
        """Make a deferred.

        Args:
            name: What its completion is recorded under, once for each execution.
            success: The type of its value, any that pydantic can handle; without it, it has none to give.
            error: The declared errors with which it may fail: a class or a tuple of them.

        Raises:
            DefinitionError: Something in it cannot be stored.

        Example:
            >>> DurableDeferred.make("approval", success=str).name
            'approval'
        """
        owner = f'Deferred "{check_name(name, "a deferred")}"'
        return DurableDeferred(name, ExitCodec(Schema(success, owner, "the value"), read_errors(error), owner))

    def __await__(self) -> Generator[None, None, A]:
        host = ambient.host.get()
        if host is None:
            return cast("Generator[None, None, A]", self._wait_in_place().__await__())
        call = NamedArrival(_DEFERRED, self.name, host.occurrence(_DEFERRED, self.name), host.number(), self.codec)
        return host.ask(call).__await__()

    async def wait(self) -> A:
        """Wait for its value: what awaiting the deferred itself does.

        Raises:
            Exception: The declared error it failed with, or a `Defect`.
            OutsideExecutionError: Neither a body nor an activity runs here.
        """
        return await self

    async def into(self, step: Awaitable[A], /) -> A:
        """Await something, record how it ends in this deferred, and give that (R20).

        What it ends with is returned or raised also where the deferred had been completed before. An interruption
        records nothing.

        Raises:
            Exception: What the step raises.
            OutsideExecutionError: No body runs here.
            PayloadError: The value is not of the deferred's type, or larger than the engine takes.

        Example:
            ```python
            from perdure import DurableDeferred, WorkflowEngine, activity, workflow

            Charge = DurableDeferred.make("charge", success=int)


            @activity
            async def charge() -> int:
                return 4200


            @workflow
            async def pay() -> list[int]:
                return [await Charge.into(charge()), await Charge]


            async with WorkflowEngine.memory([pay]):
                assert await pay.execute() == [4200, 4200]
            ```
        """
        host = ambient.require_host("into()")
        try:
            value = await step
        except (Exception, BaseExceptionGroup) as error:
            cause = self.codec.cause_of(error)
            if cause.reasons != (Interrupt(),):
                self._record(host, self._encoded(Failure(cause)))
            raise
        raw, seen = self.codec.success(value)
        self._record(host, raw)
        return cast("A", seen)

    # Addresses -----------------------------------------------------------------------------------

    def token(self, *, expires_in: Duration | None = None) -> Token:
        """Give the address of this deferred in the execution that runs here, for whoever is to complete it.

        In a body it is recorded, so that every replay gives the same one.

        Args:
            expires_in: How long it is taken; only where the engine signs its tokens.

        Raises:
            OutsideExecutionError: Neither a body nor an activity runs here.
            UsageError: It shall expire, and the engine has no `token_secret`.

        Example:
            >>> DurableDeferred.make("approval").token()
            Traceback (most recent call last):
            OutsideExecutionError: token() works inside a workflow body or an activity only; ...
        """
        around = ambient.host.get() or ambient.attempt.get()
        if around is None:
            raise OutsideExecutionError(
                "token() works inside a workflow body or an activity only; none runs here. From outside, "
                "`token_for(workflow, ...)` and `token_from_execution_id(...)` give it."
            )
        return give_token(self, around.workflow, around.execution_id, expires_in=expires_in)

    def token_for(self, workflow: Workflow[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Token:
        """Give its address in the execution that this payload has.

        Raises:
            PayloadError: It is no payload of the workflow.
            UsageError: The workflow has no idempotency key, so that its ids cannot be computed.

        Example:
            >>> @workflow(idempotency_key=lambda to, subject: f"{to}:{subject}")
            ... async def notify(to: str, subject: str) -> None: ...
            >>> token = DurableDeferred.make("opened").token_for(notify, "ada", subject="hi")
            >>> TokenParsed.from_string(token).execution_id == notify.execution_id("ada", "hi")
            True
        """
        return self.token_from_execution_id(workflow=workflow, execution_id=workflow.execution_id(*args, **kwargs))

    def token_from_payload(self, *, workflow: Workflow[[T], Any], payload: T) -> Token:
        """Give its address in the execution that this payload has, for a workflow of one parameter.

        Raises:
            PayloadError: It is no payload of the workflow.
            UsageError: The workflow has no idempotency key, so that its ids cannot be computed.

        Example:
            >>> @workflow(idempotency_key=lambda order_id: order_id)
            ... async def ship(order_id: str) -> None: ...
            >>> token = DurableDeferred.make("approval").token_from_payload(workflow=ship, payload="order-123")
            >>> TokenParsed.from_string(token).deferred_name
            'approval'
        """
        return self.token_from_execution_id(workflow=workflow, execution_id=workflow.execution_id(payload))

    def token_from_execution_id(self, *, workflow: Workflow[..., Any], execution_id: ExecutionId) -> Token:
        """Give its address in an execution; the workflow's `options(engine=...)` says whose keys sign it.

        Example:
            >>> @workflow
            ... async def ship(order_id: str) -> None: ...
            >>> Approval = DurableDeferred.make("approval")
            >>> str(Approval.token_from_execution_id(workflow=ship, execution_id="0" * 32))[:11]
            'WyJzaGlwIiw'
        """
        return give_token(self, workflow.name, execution_id, engine=workflow.engine)

    def with_activity_attempt(self) -> "DurableDeferred[A, E]":
        """Give the deferred of this attempt: what answers an earlier one does not answer this one.

        Raises:
            OutsideExecutionError: Neither a body nor an activity runs here.

        Example:
            ```python
            from perdure import DurableDeferred, WorkflowEngine, activity, workflow

            Answer = DurableDeferred.make("answer", success=int)


            @activity
            async def ask() -> str:
                return Answer.with_activity_attempt().name


            @workflow
            async def survey() -> str:
                return await ask()


            async with WorkflowEngine.memory([survey]):
                assert await survey.execute() == "answer/1"
            ```
        """
        return DurableDeferred(check_name(f"{self.name}/{current_attempt()}", "a deferred"), self.codec)

    # Completions -----------------------------------------------------------------------------------

    async def succeed(self, token: Token, value: A, /, *, engine: Engine | None = None) -> bool:
        """Complete it with a value: as `done`."""
        return await self.done(token, Success(value), engine=engine)

    async def fail(self, token: Token, error: E, /, *, engine: Engine | None = None) -> bool:
        """Complete it with a declared error, which the await raises: as `done`."""
        return await self.done(token, Failure(Cause.fail(error)), engine=engine)

    async def fail_cause(self, token: Token, cause: Cause, /, *, engine: Engine | None = None) -> bool:
        """Complete it with any cause: as `done`."""
        return await self.done(token, Failure(cause), engine=engine)

    async def done(self, token: Token, exit: Exit[A], /, *, engine: Engine | None = None) -> bool:
        """Complete it; it is durable when this returns. The first completion of an execution's deferred wins (R18).

        It may come before the await, and before the execution has begun. In a body it is a recorded step (R42).

        Args:
            token: The address.
            exit: What the await gives, or raises.
            engine: The engine, where several are open.

        Returns:
            Whether this one counts: False if it had been completed before, or its execution has ended.

        Raises:
            ExecutionNotFoundError: There is no such execution; nothing was stored.
            PayloadError: The value or the error is none of this deferred's; nothing was stored.
            TokenError: The token is none that this engine takes, or is for an earlier life of the execution.
            WorkflowIOError: It names an engine, in a body.
        """
        raw = self._encoded(exit)
        host = ambient.host.get()
        if host is None:
            parsed = take_token(token, engine or ambient.find_engine())
            return _counts(await post(_mail(parsed, raw), self.codec.owner, engine))
        parsed = take_token_in_body(token, host)
        said = (parsed.execution_id, parsed.deferred_name)
        call = SendCall(f"complete:{parsed.deferred_name}", host, _mail(parsed, raw), self.codec, said)
        return _counts(await post_from_body(host, call, parsed.execution_id, engine))

    @staticmethod
    async def race_all(
        name: str,
        branches: Iterable[Awaitable[T]],
        /,
        *,
        success: TypeForm[T],
        error: Errors[Exception] = (),
    ) -> T:
        """Await several things, and give the first success; the others are cancelled (R21).

        As the function `race_all`, with types for what is recorded.

        Args:
            name: What its end is recorded under.
            branches: What races: calls of activities and children, deferreds, coroutines.
            success: The type of what the first one gives.
            error: The declared errors that are recorded as themselves if all fail.

        Raises:
            Exception: What they failed with, if all did: one error as itself, several as an ExceptionGroup.
            PayloadError: The first one's value is not of this type.
            UsageError: There are no branches.

        Example:
            ```python
            from perdure import DurableDeferred, WorkflowEngine, activity, sleep, workflow


            @activity
            async def fetch() -> str:
                return "data"


            async def deadline() -> str:
                await sleep("1 hour", name="deadline")
                return "timed out"


            @workflow
            async def report() -> str:
                return await DurableDeferred.race_all("fetch-or-timeout", [fetch(), deadline()], success=str)


            async with WorkflowEngine.memory([report]):
                assert await report.execute() == "data"
            ```
        """
        owner = f'Race "{check_name(name, "a race")}"'
        codec = ExitCodec(Schema(success, owner), read_errors(error), owner)
        return cast("T", await race.run(f"raceAll/{name}", owner, branches, codec))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _encoded(self, exit: Exit[Any]) -> bytes:
        """Encode an exit that comes back from its bytes, or refuse it: a waiting body could not read it (R40)."""
        match exit:
            case Success(value):
                return self.codec.success(value)[0]
            case Failure(cause):
                return self.codec.failure(cause)[0]

    def _record(self, host: Host, raw: bytes) -> None:
        mail = Mail(host.execution_id, MailKind.DEFERRED, self.name, raw)

        def perform(acts: Acts) -> None:
            acts.mail.append(mail)

        host.act(f"into:{self.name}", perform, raw)

    async def _wait_in_place(self) -> Any:
        attempt = ambient.attempt.get()
        if attempt is None:
            raise OutsideExecutionError(
                f"Deferred {self.name!r} is awaited where neither a workflow body nor an activity runs. From outside, "
                "wait for the execution's result; completing it works from anywhere."
            )
        raw = await attempt.engine.wait_for_mail(attempt.execution_id, MailKind.DEFERRED, self.name)
        return self.codec.decode(raw).unwrap()


def _mail(parsed: TokenParsed, raw: bytes) -> Mail:
    mail = Mail(parsed.execution_id, MailKind.DEFERRED, parsed.deferred_name, raw)
    if parsed.incarnation is None:
        return mail
    return mail._replace(incarnation=bytes.fromhex(parsed.incarnation), token=as_recorded(parsed.as_token))


def _counts(receipt: Receipt) -> bool:
    if receipt is Receipt.OUTDATED:
        raise TokenError("This token is for an earlier life of its execution.", reason="outdated")
    return receipt is Receipt.STORED
