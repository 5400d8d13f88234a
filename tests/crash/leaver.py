"""A program that leaves its engine in one of the ways in which programs end.

`python -m tests.crash.leaver WAY DATABASE`. On stdout it says, a line each, what its activities did and, for ways that
come back, what it has found. A line on stdin lets a way go on that waits for its parent. What is left in the database
is the next process's.
"""

import asyncio
import concurrent.futures
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import perdure._engine.service
from perdure import Handle, UsageError, WorkflowEngine, activity, current_engine, sleep, workflow

# Whoever hangs says where, and ends before the limit of the test does.
PATIENCE_S = 15.0
# A child that hangs ends before its parent does.
CHILD_PATIENCE_S = 5.0
# What it ends with when its way says so.
CODE = 4

KEYS = ["async", "thread", "between", "nap", "long nap", "quick"]


def say(*words: object) -> None:
    # One write: lines of several threads and processes must not mix.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def be_patient(seconds: float) -> None:
    """Let whoever hangs say where, and end.

    By the kernel's alarm: faulthandler's own timer is a thread, for which a forked child waits for ever when it ends.
    """
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Standing:
    """Where the activities of a leaver stand: they have begun, and end when it does, or never."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        # Whether activities stand at all: not in the process that finishes what was left.
        self.still = False
        self.forever = threading.Event()


standing = Standing()


@activity
async def effect(key: str) -> str:
    say("begin", "effect", key)
    say("done", "effect", key)
    return key


@activity
async def stands(key: str) -> str:
    say("begin", "stands", key)
    if standing.still:
        standing.reached.release()
        await asyncio.get_running_loop().create_future()
    say("done", "stands", key)
    return key


@activity
def stands_on_thread(key: str) -> str:
    say("begin", "stands_on_thread", key)
    if standing.still:
        standing.reached.release()
        standing.forever.wait()
    say("done", "stands_on_thread", key)
    return key


@activity
def exits(key: str) -> str:
    say("begin", "exits", key)
    if standing.still:
        os._exit(CODE)
    say("done", "exits", key)
    return key


@workflow(name="Leaving", idempotency_key=lambda key: key)
async def leaving(key: str) -> str:
    first = await effect(key)
    match key:
        case "async":
            return first + await stands(key)
        case "thread":
            return first + await stands_on_thread(key)
        case "exits":
            return first + await exits(key)
        case "between":
            return first + await sleep_and_do(key)
        case "nap":
            await sleep("50 millis")
        case "long nap":
            await sleep("50 millis", in_memory_threshold=0)
    return first + await effect(key + "!")


@activity
async def touched(key: str) -> str:
    if standing.still and key == "activity":
        signal.raise_signal(signal.SIGINT)
    return key


@workflow(name="Touchy", idempotency_key=lambda key: key)
async def touchy(key: str) -> str:
    first = await touched(key)
    if standing.still and key == "body":
        signal.raise_signal(signal.SIGINT)
    return first


async def sleep_and_do(key: str) -> str:
    await asyncio.gather(sleep("20 millis"), effect(key + "?"))
    return await effect(key + "!")


RESULTS = {
    "async": "asyncasync",
    "thread": "threadthread",
    "exits": "exitsexits",
    "between": "betweenbetween!",
    "nap": "napnap!",
    "long nap": "long naplong nap!",
    "quick": "quickquick!",
}


# Ways of leaving --------------------------------------------------------------------------------------------------


async def begun(engine: WorkflowEngine, keys: list[str]) -> list[Handle[str]]:
    """Start them, and wait until those that stand do."""
    handles = [await engine.start(leaving, key) for key in keys]
    await await_standing(sum(key in {"async", "thread"} for key in keys))
    return handles


async def await_standing(times: int) -> None:
    left = times
    while left:
        # A thread cannot set an asyncio.Event.
        left -= standing.reached.acquire(blocking=False)
        await asyncio.sleep(0)


def ends(path: str, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A program of asyncio.run that leaves from inside the block."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [leaving], grace=0) as engine:
            await begun(engine, KEYS)
            await leave()

    asyncio.run(main())


async def exit_() -> None:
    sys.exit(CODE)


async def raise_() -> None:
    raise LookupError("the program has failed")


async def exit_in_a_task() -> None:
    await asyncio.gather(asyncio.create_task(exit_()), asyncio.get_running_loop().create_future())


async def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.get_running_loop().create_future()


async def return_() -> None:
    """Leave the block as one does."""


def interrupted_twice(path: str) -> None:
    """The second Ctrl-C comes while the engine gives what runs its grace."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [leaving], grace="1 minute") as engine:
            # Nothing else: the signal is to find the loop at rest, and not a body in its turn.
            await begun(engine, ["async", "thread"])
            threading.Thread(target=press_again, args=(engine,), daemon=True).start()
            await interrupt()

    asyncio.run(main())


def interrupted_inside(path: str, key: str) -> None:
    """Ctrl-C finds a body, or an activity, on the main thread; without asyncio.run it is raised right there."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [touchy], grace=0) as engine:
            await engine.execute(touchy, key)

    with asyncio.Runner() as runner:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        runner.get_loop().run_until_complete(main())


def press_again(engine: WorkflowEngine) -> None:
    while not engine._service.stopping:
        pass
    os.kill(os.getpid(), signal.SIGINT)


def never_closed(path: str) -> None:
    """The loop is closed above an open engine."""

    async def main() -> None:
        engine = await WorkflowEngine.sqlite(path, [leaving]).__aenter__()
        await begun(engine, KEYS)

    asyncio.run(main())


def never_closed_blocking(path: str) -> None:
    """The interpreter ends while the engine's thread and the activities' go on."""
    engine = WorkflowEngine.sqlite(path, [leaving]).blocking().__enter__()
    engine.call(begun, engine.engine, KEYS)


def interrupted_blocking(path: str) -> None:
    """Ctrl-C finds the main thread waiting for a result."""
    with WorkflowEngine.sqlite(path, [leaving], grace=0).blocking() as engine:
        engine.call(begun, engine.engine, KEYS)
        press = threading.Thread(target=press_when_waited_for, args=(engine.engine,), daemon=True)
        press.start()
        engine.execute(leaving, "async")


def press_when_waited_for(engine: WorkflowEngine) -> None:
    while not engine._service.results._waiters._futures:
        pass
    os.kill(os.getpid(), signal.SIGINT)


def exits_in_an_activity(path: str) -> None:
    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [leaving]) as engine:
            await begun(engine, KEYS)
            await engine.execute(leaving, "exits")

    asyncio.run(main())


def stays(path: str) -> None:
    """The engine is closed, and the process goes on with a thread that does not end."""
    ends(path, return_)
    say("closed")
    sys.stdin.readline()


# Forks ------------------------------------------------------------------------------------------------------------


def child(live: Callable[[], None], patience_s: float = CHILD_PATIENCE_S) -> int:
    """Fork, let the child live, and give the code that it has ended with."""
    pid = os.fork()
    if pid == 0:
        be_patient(patience_s)
        live()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_what_was_inherited(engine: WorkflowEngine, path: str) -> None:
    """Everything that a child might try with its parent's engine is refused, and tells it what to do."""

    async def reopen() -> None:
        async with WorkflowEngine.sqlite(path, [leaving]):
            pass

    for attempt in (
        lambda: engine.execute(leaving, "quick"),
        lambda: leaving.options(engine=engine).start("quick"),
        lambda: engine.describe("0" * 32),
        engine.drain,
        reopen,
    ):
        try:
            asyncio.run(attempt())
        except UsageError as error:
            say("refused", "fork" in str(error) and "spawn" in str(error))


def live_in_the_child(path: str) -> None:
    """A child may have an engine of its own, on another file."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(f"{path}.child", [leaving]) as engine:
            say("child", await engine.execute(leaving, "quick"))

    asyncio.run(main())


def forks(path: str) -> None:
    """From the loop's own thread, with activities running."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [leaving], grace=0) as engine:
            await begun(engine, KEYS)
            say("ended", child(lambda: use_what_was_inherited(engine, path)))
            say("ended", child(lambda: live_in_the_child(path)))
            say("ended", child(lambda: asyncio.run(engine.__aexit__(None, None, None))))
            say("parent", await engine.execute(leaving, "quick"))

    asyncio.run(main())


def forks_blocking(path: str) -> None:
    """The child leaves by the front door: through the block, and the end of the interpreter."""
    with WorkflowEngine.sqlite(path, [leaving], grace=0).blocking() as engine:
        engine.call(begun, engine.engine, KEYS)
        pid = os.fork()
        if pid == 0:
            be_patient(CHILD_PATIENCE_S)
            try:
                engine.execute(leaving, "quick")
            except UsageError as error:
                say("refused", "fork" in str(error))
            sys.exit(CODE)
        say("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        say("parent", engine.execute(leaving, "quick"))


def square(number: int) -> int:
    return number * number


FORKING = multiprocessing.get_context("fork")


@activity
async def pool(number: int) -> list[int]:
    """As people do it who have work for several cores."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORKING) as executor:
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*(loop.run_in_executor(executor, square, number) for _ in range(3))))


@activity
def process(number: int) -> int:
    one = FORKING.Process(target=square, args=(number,))
    one.start()
    one.join()
    return one.exitcode or 0


@activity
def inquisitive(number: int) -> int:
    """A child that asks its parent's engine."""
    engine = current_engine()
    assert isinstance(engine, WorkflowEngine)
    return child(lambda: _ask(engine))


def _ask(engine: WorkflowEngine) -> None:
    try:
        asyncio.run(leaving.start("asked"))
    except UsageError as error:
        say("refused", "fork" in str(error))
    try:
        asyncio.run(engine.execute(leaving, "asked"))
    except UsageError as error:
        say("refused", "fork" in str(error))


@workflow(name="Forking", idempotency_key=str)
async def forking(number: int) -> list[object]:
    return [*await pool(number), await process(number), await inquisitive(number)]


def forks_in_activities(path: str) -> None:
    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [forking, leaving]) as engine:
            for number in (3, 4):
                say("parent", *await engine.execute(forking, number))
            say("parent", await engine.execute(leaving, "quick"))

    asyncio.run(main())


@activity
def strays_on_thread(number: int) -> int:
    return child(lambda: sys.exit(CODE), patience_s=1)


@activity
async def strays(number: int) -> int:
    return child(lambda: sys.exit(CODE), patience_s=1)


@workflow(name="Straying", idempotency_key=str)
async def straying(number: int) -> int:
    return await (strays(number) if number else strays_on_thread(number))


def strays_in_an_activity(path: str, number: int) -> None:
    """The child raises SystemExit where the engine calls the activity."""

    async def main() -> None:
        async with WorkflowEngine.sqlite(path, [straying]) as engine:
            say("ended", await engine.execute(straying, number))

    asyncio.run(main())


WAYS: dict[str, Callable[[str], None]] = {
    "return": lambda path: ends(path, return_),
    "exit": lambda path: ends(path, exit_),
    "raise": lambda path: ends(path, raise_),
    "exit in a task": lambda path: ends(path, exit_in_a_task),
    "interrupt": lambda path: ends(path, interrupt),
    "interrupted twice": interrupted_twice,
    "interrupted in a body": lambda path: interrupted_inside(path, "body"),
    "interrupted in an activity": lambda path: interrupted_inside(path, "activity"),
    "never closed": never_closed,
    "never closed, blocking": never_closed_blocking,
    "interrupted, blocking": interrupted_blocking,
    "exits in an activity": exits_in_an_activity,
    "stays": stays,
    "forks": forks,
    "forks, blocking": forks_blocking,
    "forks in activities": forks_in_activities,
    "strays": lambda path: strays_in_an_activity(path, 1),
    "strays on a thread": lambda path: strays_in_an_activity(path, 0),
}


def main() -> None:
    be_patient(PATIENCE_S)
    # Where a shell has begun the tests in the background, all that they start ignores a Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What never ends by itself never does; a shorter wait for it shows the same.
    perdure._engine.service.CUT_OFF_S = 0.1
    standing.still = True
    way, path = sys.argv[1:]
    WAYS[way](str(Path(path)))


if __name__ == "__main__":
    main()
