"""What a function takes and gives, read from its signature once, when it is defined."""

import functools
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import Parameter as _Parameter
from typing import TYPE_CHECKING, Any, ClassVar, Final, ForwardRef, NoReturn, TypeGuard, TypeVar, cast, get_type_hints

from perdure.errors import DefinitionError, UsageError

T = TypeVar("T")

# What stands for "has no default"; None is a default like any other.
NOTHING: Final = _Parameter.empty
# What errors call the value that a function gives.
RESULT: Final = "the return value"


class Uncalled:
    """What looks like the function that it was made of, and says what to write instead when it is called like one."""

    _instead: ClassVar[str]

    if not TYPE_CHECKING:  # to a type checker the call is an error by itself

        def __call__(self, *_args: object, **_named: object) -> NoReturn:
            """Refuse to be called.

            Raises:
                UsageError: Always.
            """
            raise UsageError(f"{self!r} is not called: {self._instead}")


def is_function(value: object) -> TypeGuard[Callable[..., Any]]:
    """Whether it can be called, and not only to be told what to write instead."""
    return callable(value) and not isinstance(value, Uncalled)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        name: Its name.
        annotation: What it takes, resolved; Any where nothing is said.
        default: What it is when it is not given, or `NOTHING`.
        by_name: Whether it can be given by keyword only.
        by_place: Whether it can be given by position only.
    """

    name: str
    annotation: Any
    default: Any = NOTHING
    by_name: bool = False
    by_place: bool = False

    def typed(self, annotation: Any) -> "Parameter":
        """Give the same parameter with another annotation."""
        return replace(self, annotation=annotation)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and what it gives."""

    parameters: tuple[Parameter, ...]
    returns: Any


def plain_function(function: object, owner: str) -> Callable[..., Any]:
    """Give the function that was decorated, out of a staticmethod if need be.

    Raises:
        DefinitionError: It is none, or a method, which has no object to be called on when it is replayed.
    """
    if isinstance(function, staticmethod):
        function = cast("object", function.__func__)
    if isinstance(function, classmethod) or not is_function(function):
        kind = type(cast("object", function)).__name__
        raise DefinitionError(f"{owner} must be a function, not {kind}.", owner=owner)
    if _is_method(function):
        raise DefinitionError(
            f"{owner} is a method. Methods are not supported: `self` is no data, so a replay in another process "
            "could not have it. Write a function on module level, or a staticmethod.",
            owner=owner,
        )
    return function


def read_signature(function: Callable[..., Any], owner: str) -> Signature:
    """Read parameters and return type, annotations written as text included.

    Raises:
        DefinitionError: An annotation names something that is not known, or arguments cannot be recorded by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError, AttributeError) as unreadable:  # the last two: Python 3.14 evaluates here
        raise DefinitionError(
            f"{owner}: its signature cannot be read ({unreadable}). Wrap it in a function of your own.", owner=owner
        ) from unreadable
    resolve = functools.partial(_resolve, function=function, owner=owner)
    parameters = tuple(_parameter(parameter, resolve, owner) for parameter in signature.parameters.values())
    return Signature(parameters, resolve(signature.return_annotation, "its return value"))


def dressed(defined: T, function: Callable[..., Any]) -> T:
    """Give a definition the name, the docstring and the signature of its function, for help() and for debuggers."""
    # Not the function's __dict__: an attribute set there must not replace one of the definition's own.
    functools.update_wrapper(cast("Any", defined), function, updated=())
    return defined


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an async def, a partial of one, an object with an async __call__."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - the method itself is asked, not whether there is one


def _parameter(parameter: _Parameter, resolve: Callable[[Any, str], Any], owner: str) -> Parameter:
    if parameter.kind in (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is _Parameter.VAR_POSITIONAL else "**"
        raise DefinitionError(
            f"{owner} takes {stars}{parameter.name}. Arguments are recorded by the names of their parameters, so "
            f"there must be one for each; take a list or a dict: `{parameter.name}: "
            f"{'list[...]' if stars == '*' else 'dict[str, ...]'}`.",
            owner=owner,
        )
    return Parameter(
        parameter.name,
        resolve(parameter.annotation, f"parameter {parameter.name!r}"),
        parameter.default,
        by_name=parameter.kind is _Parameter.KEYWORD_ONLY,
        by_place=parameter.kind is _Parameter.POSITIONAL_ONLY,
    )


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether a function stands in the body of a class and takes the object it is called on."""
    qualname = getattr(function, "__qualname__", "")
    place = qualname.rpartition(".")[0]
    code = getattr(inspect.unwrap(function), "__code__", None)
    if not place or place.endswith("<locals>") or not isinstance(code, types.CodeType):
        return False
    return code.co_argcount > 0 and code.co_varnames[0] in ("self", "cls") and not inspect.ismethod(function)


def _resolve(annotation: Any, what: str, *, function: Callable[..., Any], owner: str) -> Any:
    if annotation is _Parameter.empty:
        return Any
    if not _holds_text(annotation):
        return annotation
    try:
        return _evaluate(annotation, function)
    except Exception as unresolved:  # an annotation is code of the user's and may raise anything
        raise DefinitionError(
            f"{owner}: the annotation {_written(annotation)!r} of {what} cannot be resolved "
            f"({type(unresolved).__name__}: {unresolved}). What it names must be known when the function is defined: "
            "import it outside `if TYPE_CHECKING:`, and define it above the function.",
            owner=owner,
        ) from unresolved


def _holds_text(annotation: Any) -> bool:
    """Whether something in an annotation is still to be evaluated."""
    if isinstance(annotation, (str, ForwardRef)):
        return True
    return any(_holds_text(argument) for argument in getattr(annotation, "__args__", ()))


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", str(annotation))


def _evaluate(annotation: Any, function: Callable[..., Any]) -> Any:
    """Evaluate text with the names that the function itself sees."""
    innermost = inspect.unwrap(function)
    while isinstance(innermost, functools.partial):
        innermost = inspect.unwrap(cast("Callable[..., Any]", innermost.func))
    names: dict[str, Any] = getattr(innermost, "__globals__", {})
    around = {**_locals_around(innermost, names), **_closure(innermost)}
    carrier: Any = types.SimpleNamespace(__annotations__={"it": annotation})
    return get_type_hints(carrier, names, around, include_extras=True)["it"]


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    names = code.co_freevars if isinstance(code, types.CodeType) else ()
    found: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _locals_around(function: Callable[..., Any], names: dict[str, Any]) -> dict[str, Any]:
    """The local names of the functions that this one is being defined in, innermost last.

    A class made inside a function (tests do it) is in no globals; the frame that is running has it. Only frames
    in which the function stands count: in any other one the same name may be another class.
    """
    qualname = getattr(function, "__qualname__", "")
    found: list[dict[str, Any]] = []
    frame = sys._getframe(1) if "<locals>" in qualname else None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nothing public has a caller's names
    while frame is not None:
        if frame.f_globals is names and qualname.startswith(f"{frame.f_code.co_qualname}.<locals>."):
            found.append(dict(frame.f_locals))
        frame = frame.f_back
    return {name: value for local in reversed(found) for name, value in local.items()}
