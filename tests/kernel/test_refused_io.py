"""I/O in a body is refused with the name of the call, and the place where it belongs (DESIGN 1)."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from perdure import WorkflowIOError
from perdure._kernel.loop import KernelLoop

from tests.kernel.driver import Play

# What a body may call: the rest of asyncio's interface is I/O, or drives a loop.
ALLOWED = {
    "call_at", "call_exception_handler", "call_later", "call_soon", "create_future", "create_task",
    "default_exception_handler", "get_debug", "get_exception_handler", "get_task_factory", "is_closed", "is_running",
    "set_debug", "time",
}  # fmt: skip
REFUSED = sorted(name for name in vars(asyncio.AbstractEventLoop) if not name.startswith("_") and name not in ALLOWED)


def refused(play: Play, name: str) -> str:
    """What a body was told that called this method of its loop, and did not catch it."""
    with pytest.raises(WorkflowIOError) as raised:
        play.result()
    assert f"it called loop.{name}()." in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", REFUSED)
def test_every_method_that_does_io_or_drives_the_loop_is_refused(name: str) -> None:
    """By its name, whatever it is given, before anything is done."""

    async def body() -> None:
        getattr(asyncio.get_running_loop(), name)("localhost", 80, key="value")

    message = refused(Play(body), name)
    assert "activity" in message or "The engine runs this loop" in message


def test_what_is_allowed_is_there() -> None:
    """None of it is the interface's own method, which only raises NotImplementedError."""
    assert {name for name in ALLOWED if getattr(KernelLoop, name) is getattr(asyncio.AbstractEventLoop, name)} == set()
    assert len(REFUSED) >= 40


async def _open_connection() -> None:
    await asyncio.open_connection("localhost", 80)


async def _start_server() -> None:
    await asyncio.start_server(lambda *_: None, "localhost", 0)


async def _open_unix_connection() -> None:
    await asyncio.open_unix_connection("/tmp/perdure.sock")


async def _start_unix_server() -> None:
    await asyncio.start_unix_server(lambda *_: None, "/tmp/perdure.sock")


async def _to_thread() -> None:
    await asyncio.to_thread(print)


async def _run_in_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def _create_subprocess_exec() -> None:
    await asyncio.create_subprocess_exec("true", stdout=subprocess.PIPE)


async def _create_subprocess_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def _getaddrinfo() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


async def _add_signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)


async def _sock_recv() -> None:
    with socket.socket() as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_recv(connection, 10)


async def _run_threadsafe() -> None:
    coroutine = asyncio.sleep(0)
    try:
        asyncio.run_coroutine_threadsafe(coroutine, asyncio.get_running_loop()).result()
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (_open_connection, "create_connection"),
        (_start_server, "create_server"),
        (_open_unix_connection, "create_unix_connection"),
        (_start_unix_server, "create_unix_server"),
        (_to_thread, "run_in_executor"),
        (_run_in_executor, "run_in_executor"),
        (_create_subprocess_exec, "subprocess_exec"),
        (_create_subprocess_shell, "subprocess_shell"),
        (_getaddrinfo, "getaddrinfo"),
        (_add_signal_handler, "add_signal_handler"),
        (_sock_recv, "sock_recv"),
        (_run_threadsafe, "call_soon_threadsafe"),
    ],
)
def test_asyncios_functions_that_do_io_are_refused(call: Callable[[], Any], name: str) -> None:
    """With the loop's method that they come down to."""
    refused(Play(call), name)


def test_a_body_may_catch_it_and_go_on() -> None:
    """An ordinary exception, at the place of the call."""

    async def body() -> str:
        try:
            await asyncio.to_thread(print)
        except WorkflowIOError:
            return "caught"
        return "?"

    assert Play(body).result() == "caught"


def test_a_loop_within_the_loop_is_refused_by_asyncio() -> None:
    """`asyncio.run` in a body: a loop is running."""

    async def body() -> None:
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="running event loop"):
        Play(body).result()
