"""The frames of a body: where it stands in its author's code, and how it is made to leave it.

A coroutine that is put away is closed from the inside out. Closing raises GeneratorExit where it
waits, so its `finally` runs; what awaits something there is asked again at its new place, and given
up when it stays at one place three times. Asynchronous generators need a hand: Python 3.11 marks the
step of one, in which a coroutine waits, as closed, and tells the generator nothing.
"""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

logger = logging.getLogger("perdure")

Closable = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]

# How often a frame is asked to close at one place before it is left alone (R6).
CLOSE_TRIES = 3

# A frame that gets on each time is asked so often in all: clean-ups do not nest deeper, a loop would go on for ever.
_MOST_TRIES = 100

# Frames that refused to close. Collected, they would run their `finally` under whichever loop is
# current then, where an activity really acts; so they live as long as the process (`_keep`).
_unclosable: list[object] = []

_GENERATOR: type = AsyncGeneratorType
_CLOSABLE: tuple[type, ...] = (CoroutineType, GeneratorType)

# What `async for`, `anext` and `aclose` await; the types have no public names.
_GENERATOR_STEPS = ("async_generator_asend", "async_generator_athrow")

# The folders of asyncio's modules and of ours: where a body stands in them says nothing to its author.
_NOT_THE_AUTHORS = (asyncio.__file__.removesuffix("__init__.py"), str(Path(__file__).parent.parent) + os.sep)


def place_of(coroutine: object) -> str:
    """Where it stands in the author's code, as `file:line in function`; empty if in none of it."""
    place = ""
    for each in _chain(coroutine):
        frame = _frame(each)
        if frame is not None and not frame.f_code.co_filename.startswith(_NOT_THE_AUTHORS):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    return place


async def leave(generator: AsyncGenerator[Any, Any]) -> None:
    """Do what a body does about a generator that it has left with `break`."""
    await generator.aclose()


def close(coroutine: Closable, label: str) -> None:
    """Close the frames of a coroutine; those that refuse are kept and reported."""
    stands: list[object] | None = None
    refused = 0
    for _ in range(_MOST_TRIES):
        if _close_once(coroutine):
            return
        before, stands = stands, _standing(coroutine)
        refused = refused + 1 if stands == before else 1
        if refused == CLOSE_TRIES:
            break
    _keep(coroutine, label)


def close_generator(generator: AsyncGenerator[Any, Any], label: str) -> None:
    """Close an asynchronous generator that stands at a `yield`."""
    leaving = leave(generator)
    try:
        leaving.send(None)
    except StopIteration:
        return
    except BaseException as error:  # noqa: BLE001 - the user's clean-up failed; it is closed all the same
        logger.debug("closing %r: %r", generator, error)
        if _frame(generator) is not None:
            _keep(generator, label)  # it answered with another `yield`
        return
    close(leaving, label)  # it awaited something in a `finally`, which has no effect here


def _keep(refusing: object, label: str) -> None:
    import ctypes  # noqa: PLC0415 - for bodies that are wrong, which most processes never see

    _unclosable.append(refusing)
    # The interpreter empties this module before it ends, and would close the frame once more: a body that catches
    # everything, and whose awaits all fail there at once, would never let it end. A reference that belongs to nobody
    # is not given up.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(refusing))
    logger.error(
        "%s: %s refused to close, was asked %d times and stays in memory until the process ends. A body must not catch "
        "GeneratorExit or BaseException around an await or a yield in a loop. It stands at %s.",
        label,
        getattr(refusing, "__qualname__", repr(refusing)),
        CLOSE_TRIES,
        place_of(refusing) or "an unknown place",
    )


def _close_once(coroutine: Closable) -> bool:
    """Raise GeneratorExit in each of its frames, the innermost first; whether all have ended.

    Closed at once, from the outermost, a frame that awaits something in a `finally` would be dropped as it stands.
    """
    for each in reversed(list(_chain(coroutine))):
        is_step = type(each).__name__ in _GENERATOR_STEPS
        try:
            if is_step:
                each.throw(GeneratorExit)
                return False  # it awaited something in a `finally`
            if each is coroutine or type(each) in _CLOSABLE:
                each.close()
        except BaseException as error:  # noqa: BLE001 - as above; GeneratorExit itself is how a step ends
            if isinstance(error, RuntimeError) and not is_step:
                return False  # "coroutine ignored GeneratorExit": the same; if it was the user's, it has ended now
            logger.debug("closing %r: %r", each, error)
    return True


def _chain(coroutine: object) -> Iterator[Any]:
    """A coroutine, what it waits in, and so on inwards, as far as it can be told."""
    each: object = coroutine
    while each is not None:
        yield each
        each = _awaited(each)


def _awaited(each: object) -> object:
    if type(each).__name__ in _GENERATOR_STEPS:
        # A step does not tell whose it is; the garbage collector can.
        referents: list[object] = gc.get_referents(each)
        return next((other for other in referents if type(other) is _GENERATOR), None)
    for attribute in ("cr_await", "ag_await", "gi_yieldfrom"):
        if hasattr(each, attribute):
            return getattr(each, attribute)
    return None


def _frame(each: object) -> Any:
    for attribute in ("cr_frame", "ag_frame", "gi_frame"):
        if hasattr(each, attribute):
            return getattr(each, attribute)
    return None


def _standing(coroutine: object) -> list[object]:
    """At which instruction of which code every frame stands."""
    frames = [_frame(each) for each in _chain(coroutine)]
    return [(frame.f_code, frame.f_lasti) for frame in frames if frame is not None]
