"""Workflows: contracts that callers hold, and the bodies that implement them."""

import copy
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, NoReturn, ParamSpec, Protocol, Self, TypeAlias, cast, overload

from typing_extensions import TypeForm, TypeVar, Unpack

from perdure import _ids
from perdure._definitions import ambient
from perdure._definitions.body import Body, body_of, body_of_contract
from perdure._definitions.child import child_call, next_life, start_detached
from perdure._definitions.contract import Contract, Identified, Retention, WorkflowSettings, contract_of, owner_of
from perdure._definitions.handle import Handle
from perdure._definitions.host import ContinueAsNew, Engine, StartOptions
from perdure._definitions.name import check_asked, check_name
from perdure._definitions.payload import payload_of, payload_of_fields
from perdure._definitions.registration import Registration
from perdure._definitions.signature import Parameter, Uncalled, dressed, read_signature
from perdure._definitions.start import ExecutionOptions, changed_options, start_of
from perdure._model.records import ExecutionId
from perdure._values.exit import Poll
from perdure._values.exit_codec import ExitCodec
from perdure.errors import DefinitionError, OutsideExecutionError, UsageError

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - what callers pass, as the signatures of the contract call it
A = TypeVar("A", default=None)
A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B", default=I)
R = TypeVar("R", default=None)

Key: TypeAlias = (
    Callable[[], str]
    | Callable[[Any], str]
    | Callable[[Any, Any], str]
    | Callable[[Any, Any, Any], str]
    | Callable[[Any, Any, Any, Any], str]
    | Callable[[Any, Any, Any, Any, Any], str]
)


# The workflow whose body runs in this context.
_running: Final[ContextVar["WorkflowImplementation[..., Any] | None"]] = ContextVar("perdure_running", default=None)


class Workflow(Uncalled, Generic[P, A_co]):
    """What callers hold of a workflow: its identity, and the ways to start and to find executions.

    Made by `Workflow.make`, which gives a contract, or by the decorator `workflow`, which gives a contract and its
    implementation in one.

    Example:
        >>> SendEmail = Workflow.make("SendEmail", payload={"to": str}, success=str, idempotency_key=lambda p: p.to)
        >>> SendEmail.execution_id({"to": "ada@example.com"})
        'cf149b633772b74b64444771826943ad'
    """

    _instead: ClassVar[str] = (
        "`await wf.execute(...)` starts or joins an execution and waits for its result, in a body as a child; `await"
        " wf.start(...)` does not wait."
    )

    def __init__(
        self,
        contract: Contract,
        options: StartOptions | None = None,
        annotations: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Put a workflow together; users write `workflow` or `Workflow.make`."""
        self._contract = contract
        self._options = options or StartOptions()
        self._annotations = annotations

    @overload
    @staticmethod
    def make(
        name: str,
        *,
        payload: type[T],
        success: TypeForm[R] = ...,  # pyright: ignore[reportInvalidTypeVarUse] - its default is what "not given" means
        idempotency_key: Callable[[T], str] = ...,
        **settings: Unpack[WorkflowSettings],
    ) -> "WorkflowDefinition[T, R]": ...
    @overload
    @staticmethod
    def make(
        name: str,
        *,
        payload: Mapping[str, TypeForm[Any]] = ...,
        success: TypeForm[R] = ...,  # pyright: ignore[reportInvalidTypeVarUse] - as above
        idempotency_key: Callable[[Any], str] = ...,
        **settings: Unpack[WorkflowSettings],
    ) -> "WorkflowDefinition[Mapping[str, Any], R, Any]": ...
    @staticmethod
    def make(
        name: str,
        *,
        payload: Any = None,
        success: Any = None,
        idempotency_key: Callable[[Any], str] | None = None,
        **settings: Unpack[WorkflowSettings],
    ) -> "WorkflowDefinition[Any, Any, Any]":
        """Make a contract, which clients hold without the code; `implement` gives it a body.

        Args:
            name: What executions are stored under.
            payload: A pydantic model, dataclass or TypedDict, or a mapping of fields to their types. Without it
                there are no fields.
            success: The type of the result, any that pydantic can handle.
            idempotency_key: Makes the key from the payload. Two starts with one key are one execution; without a
                key function each start is a new one.
            **settings: `error` (declared errors: a class or a tuple of them), `suspend_on_failure` (True: a failure
                holds the execution), `capture_defects` (False: an undeclared error holds it), `on_mismatch` ("raise":
                another payload under the same key is an error), `retention` (how long finished executions stay, None:
                for ever), `version`.

        Raises:
            DefinitionError: Something in it cannot be stored, or makes no sense.
        """
        owner = owner_of(check_name(name, "a workflow"))
        if payload is None or isinstance(payload, Mapping):
            shape = payload_of_fields(cast("Mapping[str, Any]", payload or {}), owner)
        else:
            shape = payload_of((Parameter("payload", payload),), owner)
        return WorkflowDefinition(contract_of(name, shape, success, idempotency_key, settings))

    @property
    def name(self) -> str:
        """What its executions are stored under."""
        return self._contract.name

    @property
    def codec(self) -> ExitCodec[Any]:
        """Reads and writes its exits."""
        return self._contract.codec

    @property
    def version(self) -> str | None:
        """The version of its body."""
        return self._contract.version

    @property
    def engine(self) -> Engine | None:
        """The engine that `options` has named; None: the one that is found around a call."""
        return self._options.engine

    @property
    def annotations(self) -> Mapping[str, object]:
        """What was noted on it by `annotate`."""
        return self._annotations

    def annotate(self, key: str, value: object) -> Self:
        """Give a copy with one more annotation: a note for tools and for the application itself.

        Example:
            >>> SendEmail = Workflow.make("SendEmail", payload={"to": str})
            >>> dict(SendEmail.annotate("team", "billing").annotations)
            {'team': 'billing'}
        """
        return self._changed(self._options, MappingProxyType({**self._annotations, key: value}))

    def options(self, **options: Unpack[ExecutionOptions]) -> Self:
        """Give a configured copy, for one start or for many.

        Args:
            **options: `execution_id` (32 hex digits, instead of the one made from the key), `delay` (of the start),
                `priority` (higher first), `deadline` (an aware datetime, or how long after the start: then it is
                interrupted, and fails with `DeadlineExceeded`), `attributes` (to search by), `on_duplicate`
                ("reject": a second start is an error instead of joining; "restart_if_failed": one that did not
                succeed begins anew), `engine` (where several are open).

        Raises:
            UsageError: An option makes no sense.

        Example:
            >>> @workflow(idempotency_key=lambda name: name)
            ... async def greet(name: str) -> str: ...
            >>> greet.options(execution_id="0" * 32, delay="5 minutes", priority=3).execution_id("ada")
            '00000000000000000000000000000000'
        """
        return self._changed(changed_options(self._options, options), self._annotations)

    def execution_id(self, *args: P.args, **kwargs: P.kwargs) -> ExecutionId:
        """Compute the id that an execution with this payload has, without an engine.

        Raises:
            PayloadError: A field is missing, unknown, or not of its type, or the key cannot be one.
            UsageError: There is no idempotency key, so the id is random.
        """
        identified = self._identify(args, kwargs)
        if identified.execution_id is None:
            raise UsageError(
                f"Workflow {self.name!r} has no idempotency_key, so each start is a new execution with a random id: "
                "`(await wf.start(...)).execution_id`. Give it an idempotency_key to have ids that can be computed."
            )
        return identified.execution_id

    async def execute(self, *args: P.args, **kwargs: P.kwargs) -> A_co:
        """Start or join the execution, and give its decoded value. Cancelling the wait does not touch it (R4).

        In a body it is a child: it belongs to the execution that started it, which is suspended until it ends; its
        declared errors come as their own classes, and interrupting the parent, or cancelling the wait, interrupts it
        unless somebody else waits for it (R31, R32).

        Raises:
            Exception: The declared error it failed with; `Defect` or `Interrupted`; several as an ExceptionGroup.
            PayloadError: A field is missing, unknown, or not of its type. Nothing is stored.
            PayloadMismatchError: It exists with another payload, and `on_mismatch` is "raise".
            ExecutionExistsError: It exists, and `on_duplicate` is "reject".
            UsageError: No engine is open, or an option does not go with a start in a body.
            WorkflowIOError: It names an engine, in a body.
        """
        host = ambient.host.get()
        if host is not None:
            return await host.ask(child_call(host, self._contract, self._identify(args, kwargs), self._options))
        handle = await self.start(*args, **kwargs)
        return await handle.result()

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> Handle[A_co]:
        """Start or join the execution, and do not wait for its end. It is durable when this returns.

        In a body it is a recorded step: the execution is started once, detached, whatever is replayed (R42), and one
        that exists already is left alone.

        Raises:
            PayloadError: A field is missing, unknown, or not of its type. Nothing is stored.
            PayloadMismatchError: It exists with another payload, and `on_mismatch` is "raise".
            ExecutionExistsError: It exists, and `on_duplicate` is "reject".
            UsageError: No engine is open, or an option does not go with a start in a body.
        """
        identified = self._identify(args, kwargs)
        host = ambient.host.get()
        if host is not None:
            return self._handle(await start_detached(host, self._contract, identified, self._options), None)
        engine = self._options.engine or ambient.find_engine()
        now = engine.now()
        execution_id = identified.execution_id or _ids.new_execution_id(now)
        start = start_of(self._contract, identified, execution_id, self._options, now)
        await engine.start_execution(start, on_duplicate=self._options.on_duplicate)
        return self._handle(start.execution_id, engine)

    def handle(self, execution_id: ExecutionId, /) -> Handle[A_co]:
        """Give a handle on an execution of this workflow, whether it exists or not.

        What is no id is the id of none: so it is answered to whoever looks, and refused to whoever acts on it.
        """
        return self._handle(check_asked(execution_id), self._options.engine)

    async def poll(self, execution_id: ExecutionId, /) -> Poll[A_co]:
        """Look at an execution: as `Handle.poll`.

        Raises:
            PayloadError: What is recorded cannot be read with today's types.
            WorkflowIOError: Asked in a body.
        """
        return await self.handle(execution_id).poll()

    async def interrupt(self, execution_id: ExecutionId, /) -> None:
        """Ask an execution to end: as `Handle.interrupt`."""
        await self.handle(execution_id).interrupt()

    async def resume(self, execution_id: ExecutionId, /) -> None:
        """Move an execution on, if it is held: as `Handle.resume`.

        Raises:
            ExecutionNotFoundError: There is no such execution.
            WorkflowIOError: Asked in a body.
        """
        await self.handle(execution_id).resume()

    def continue_as_new(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """In its own body: end this life of the execution, and begin the next one with another payload (R37).

        As the function `continue_as_new`, with the payload checked by the type checker.

        Raises:
            OutsideExecutionError: No body runs here.
            PayloadError: A field is missing, unknown, or not of its type.
            UsageError: The body of another workflow runs here, or it has registered finalizers or compensations.
        """
        host = ambient.require_host("continue_as_new()")
        if host.workflow != self.name:
            raise UsageError(
                f"{self.name}.continue_as_new() in the body of {host.workflow!r}: it can go on as itself only."
            )
        payload = self._contract.payload.encode(args, kwargs).raw
        host.continue_as(next_life(host, self._contract, payload, self._options))
        raise ContinueAsNew

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _changed(self, options: StartOptions, annotations: Mapping[str, object]) -> Self:
        changed = copy.copy(self)
        vars(changed).update(_options=options, _annotations=annotations)
        return changed

    def _identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Identified:
        return self._contract.identify(args, kwargs, self._options.execution_id)

    def _handle(self, execution_id: ExecutionId, engine: Engine | None) -> Handle[A_co]:
        return Handle(execution_id, self.name, self.codec, engine)


class WorkflowImplementation(Workflow[P, A_co], Registration):
    """A workflow with its body: what an engine runs.

    Attributes:
        captures_defects: Whether an undeclared error is its result; else it is held with it (R35).
        suspends_on_failure: Whether a failure holds it, instead of being its result (R36).
        retention_ms: How long finished executions stay: milliseconds; None, for ever; "default", as the engine says.

    Example:
        >>> @workflow(capture_defects=False)
        ... async def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> isinstance(greet, Registration), greet.captures_defects
        (True, False)
    """

    def __init__(
        self,
        contract: Contract,
        body: Body,
        options: StartOptions | None = None,
        annotations: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Put an implementation together; users write `workflow` or `implement`.

        Args:
            contract: What it implements.
            body: The body.
            options: As for `Workflow`.
            annotations: As for `Workflow`.
        """
        super().__init__(contract, options, annotations)
        self._body = body
        self.captures_defects: bool = contract.captures_defects
        self.suspends_on_failure: bool = contract.suspends_on_failure
        self.retention_ms: Retention = contract.retention_ms

    def make_body(self, payload: bytes, execution_id: ExecutionId, /) -> Coroutine[Any, Any, Any]:
        """Call the body, which does not run yet. To be done in the context that it shall run in.

        Raises:
            PayloadError: The recorded payload cannot be read with today's types (R40).
        """
        args, kwargs = self._contract.payload.decode(payload)
        _running.set(self)
        return self._body.call(args, kwargs, execution_id)


class WorkflowDefinition(Workflow[[I], A], Generic[I, A, B]):
    """A contract without a body: an engine refuses it, a client needs no more."""

    def implement(
        self, body: Callable[[B], Coroutine[Any, Any, A]] | Callable[[B, str], Coroutine[Any, Any, A]], /
    ) -> WorkflowImplementation[[I], A]:
        """Give it a body: an async function of the payload and, if it likes, of the execution's id.

        Raises:
            DefinitionError: It cannot be the body of a workflow.

        Example:
            >>> SendEmail = Workflow.make("SendEmail", payload={"to": str}, success=str)
            >>> @SendEmail.implement
            ... async def send_email(payload, execution_id):
            ...     return f"sent to {payload.to}"
            >>> send_email.name
            'SendEmail'
        """
        _refuse_workflow(body)
        implemented = body_of_contract(body, owner_of(self.name))
        implementation = WorkflowImplementation[[I], A](self._contract, implemented, self._options, self._annotations)
        return dressed(implementation, implemented.function)


class WorkflowDecorator(Protocol):
    """What `workflow` with options gives."""

    def __call__(self, body: Callable[P, Coroutine[Any, Any, T]], /) -> WorkflowImplementation[P, T]: ...


class PayloadWorkflowDecorator(Protocol[I]):
    """What `workflow` with a payload gives."""

    def __call__(self, body: Callable[[I], Coroutine[Any, Any, T]], /) -> WorkflowImplementation[[I], T]: ...


@overload
def workflow(
    body: Callable[P, Coroutine[Any, Any, T]],
    /,
    *,
    name: str = ...,
    idempotency_key: Callable[P, str] = ...,
    **settings: Unpack[WorkflowSettings],
) -> WorkflowImplementation[P, T]: ...
@overload
def workflow(
    *, payload: type[T], idempotency_key: Callable[[T], str], name: str = ..., **settings: Unpack[WorkflowSettings]
) -> PayloadWorkflowDecorator[T]: ...
@overload
def workflow(
    *, name: str = ..., idempotency_key: Key = ..., **settings: Unpack[WorkflowSettings]
) -> WorkflowDecorator: ...
@overload
def workflow(  # type: ignore[overload-cannot-match]
    *, name: str = ..., idempotency_key: Callable[..., str], **settings: Unpack[WorkflowSettings]
) -> WorkflowDecorator: ...
def workflow(
    body: Callable[..., Any] | None = None,
    /,
    *,
    payload: Any = None,
    name: str | None = None,
    idempotency_key: Callable[..., str] | None = None,
    **settings: Unpack[WorkflowSettings],
) -> Any:
    """Make an async function a workflow: its parameters are the payload, what it returns is the result.

    A single parameter that is a model, a dataclass or a TypedDict is recorded as its fields, anything else as an object
    of the parameters.

    Args:
        body: The function, where the decorator stands without parentheses.
        payload: The type of the one parameter, for the type checker to check the key and the body against.
        name: What executions are stored under; default: the function's name.
        idempotency_key: Makes the key from the body's arguments. Two starts with one key are one execution; without
            a key function each start is a new one.
        **settings: As for `Workflow.make`.

    Raises:
        DefinitionError: It is no function that can be replayed, or a setting makes no sense.

    Example:
        >>> @workflow(idempotency_key=lambda to, subject: f"{to}:{subject}")
        ... async def notify(to: str, subject: str) -> None: ...
        >>> notify.execution_id("ada", subject="hi") == notify.execution_id(to="ada", subject="hi")
        True
    """

    def implement(body: Callable[..., Any], /) -> WorkflowImplementation[..., Any]:
        chosen = getattr(body, "__name__", "") if name is None else name
        return _implement(check_name(chosen, f"the workflow {body!r}"), body, payload, idempotency_key, settings)

    return implement if body is None else implement(body)


def _implement(
    name: str, body: Callable[..., Any], payload: Any, key: Callable[..., str] | None, settings: WorkflowSettings
) -> WorkflowImplementation[..., Any]:
    _refuse_workflow(body)
    owner = owner_of(name)
    implemented = body_of(body, owner)
    signature = read_signature(implemented.function, owner)
    parameters = signature.parameters
    if payload is not None:
        if len(parameters) != 1:
            raise DefinitionError(
                f"{owner}: a workflow with payload= takes one parameter, and this one takes {len(parameters)}.",
                owner=owner,
            )
        parameters = (parameters[0].typed(payload),)
    contract = contract_of(name, payload_of(parameters, owner), signature.returns, key, settings)
    return dressed(WorkflowImplementation[..., Any](contract, implemented), implemented.function)


def _refuse_workflow(body: object) -> None:
    if isinstance(body, Workflow):
        raise DefinitionError(f"{body!r} is a workflow already; `options` gives a configured copy.")


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this life of the execution whose body runs here, and begin the next one with another payload (R37).

    For loops without an end: the next life has the same id and a journal of its own. Messages, completions and an
    interrupt that nobody has taken yet go over to it. It does not return: what leaves the body is no error, and
    `except Exception` lets it through. `wf.continue_as_new(...)` is the same, checked by the type checker.

    Args:
        *args: The payload of the next life, as the workflow takes it.
        **kwargs: The same by name.

    Raises:
        OutsideExecutionError: No body runs here.
        PayloadError: A field is missing, unknown, or not of its type.
        UsageError: The body has registered finalizers or compensations, of which the next life would know nothing.

    Example:
        ```python
        from perdure import WorkflowEngine, continue_as_new, workflow


        @workflow(idempotency_key=lambda left, total: "the only one")
        async def add_up(left: list[int], total: int = 0) -> int:
            if not left:
                return total
            continue_as_new(left[1:], total + left[0])


        async with WorkflowEngine.memory([add_up]):
            assert await add_up.execute([1, 2, 3]) == 6
        ```
    """
    ambient.require_host("continue_as_new()")
    running = _running.get()
    if running is None:
        raise OutsideExecutionError(
            "continue_as_new() in a context that does not come from the body's: write `wf.continue_as_new(...)`, which "
            "knows its workflow."
        )
    running.continue_as_new(*args, **kwargs)
