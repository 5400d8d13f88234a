"""All of asyncio that does no I/O works in a body, and replays as it went (API 7, DESIGN 1)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from itertools import islice
from typing import Any

import pytest

from perdure import UsageError, sleep
from perdure._kernel import host
from perdure._kernel.loop import SERIAL_SHIFT

from tests.kernel.driver import Body, Play
from tests.kernel.steps import Declined, fetch, store


def play_through(body: Body, answers: list[int | str]) -> Any:
    """Answer calls by their input, or fire timers by their name; the result, which every replay gives too."""
    play = Play(body)
    for each in answers:
        if isinstance(each, str):
            play.fire(each)
        else:
            call = next(call for call in play.calls if call.args == (each,))
            play.answer(call, each * 10)
    for length in play.commits:
        again = play.again(upto=length)
        again.close()
    again = play.again()
    assert again.standing() == play.standing()
    return play.result()


# Waiting for several ------------------------------------------------------------------------------------


def test_gather_keeps_the_order_of_its_arguments() -> None:
    async def body() -> list[int]:
        return await asyncio.gather(fetch(1), store(2), fetch(3))

    assert play_through(body, [3, 1, 2]) == [10, 20, 30]


def test_gather_raises_the_first_failure_and_leaves_the_rest_alone() -> None:
    async def body() -> Any:
        try:
            return await asyncio.gather(fetch(1), fetch(2))
        except Declined:
            return await store(3)

    play = Play(body)
    play.fail("fetch#2", Declined(code=1))
    assert play.waiting == ['fetch{"x":1}#1', 'store{"x":3}#1']
    assert play.again().standing() == play.standing()


def test_wait_gives_who_is_done() -> None:
    async def body() -> tuple[list[int], int]:
        tasks = [asyncio.create_task(fetch(x)) for x in (1, 2, 3)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in done], len(pending)

    play = Play(body)
    play.answer("fetch#2", 20)
    assert play.result() == ([20], 2)
    assert [call.occurrence for call in play.withdrawn] == [1, 3]
    assert play.again().result() == ([20], 2)


def test_wait_with_a_timeout_leaves_its_tasks_alone() -> None:
    async def body() -> tuple[int, int]:
        tasks = [asyncio.create_task(fetch(x)) for x in (1, 2)]
        done, pending = await asyncio.wait(tasks, timeout=5)
        return len(done), sum([await task for task in pending])

    assert play_through(body, [2, "timeout:5", 1]) == (1, 10)


def test_a_task_group_cancels_the_others_when_one_fails() -> None:
    async def body() -> list[str]:
        trace: list[str] = []

        async def branch(x: int) -> None:
            try:
                await fetch(x)
            except asyncio.CancelledError:
                trace.append(f"cancelled {x}")
                raise

        try:
            async with asyncio.TaskGroup() as group:
                for x in range(4):
                    group.create_task(branch(x))
        except* Declined as failures:
            trace.append(str(failures.exceptions))
        return trace

    play = Play(body)
    play.fail("fetch#3", Declined(code=1))
    assert play.result() == ["cancelled 0", "cancelled 1", "cancelled 3", "(Declined(code=1),)"]
    assert play.again().result() == play.result()


def test_as_completed_takes_tasks_and_calls() -> None:
    """DESIGN 1: they are numbered, so the set in which asyncio keeps them has the same order everywhere."""

    async def body() -> list[int]:
        mixed = [asyncio.create_task(fetch(1)), fetch(2), asyncio.ensure_future(fetch(3)), store(4)]
        return [await done for done in asyncio.as_completed(mixed)]

    assert play_through(body, [3, 1, 4, 2]) == [30, 10, 40, 20]


def test_as_completed_refuses_bare_coroutines(is_quiet: Callable[[], bool]) -> None:
    """DESIGN 1: Python puts them into a set, ordered by address; the message says what to give it instead."""

    async def branch(x: int) -> int:
        return await fetch(x)

    async def body() -> list[int]:
        coroutines = [branch(x) for x in range(3)]
        try:
            return [await done for done in asyncio.as_completed(coroutines)]
        finally:
            for coroutine in coroutines:
                coroutine.close()

    play = Play(body)
    with pytest.raises(UsageError, match="Give it tasks or activity calls"):
        play.result()
    assert is_quiet()


def test_coroutines_in_tasks_are_no_bare_ones() -> None:
    """DESIGN 1: neither is a coroutine that is given to gather, wait_for or shield inside of as_completed's tasks."""

    async def inner(x: int) -> int:
        return sum(await asyncio.gather(asyncio.shield(_plain(x)), asyncio.wait_for(_plain(x), 5)))

    async def body() -> list[int]:
        return [await done for done in asyncio.as_completed([asyncio.create_task(inner(x)) for x in (1, 2)])]

    play = Play(body)
    for occurrence in (3, 4, 1, 2):
        play.answer(f"fetch#{occurrence}", 1)
    assert play.result() == [2, 2]


async def _plain(x: int) -> int:
    return await fetch(x)


def test_sets_of_calls_and_tasks_are_walked_in_the_order_of_their_making() -> None:
    """DESIGN 1: in one process and in the next; tests/determinism asks other processes."""

    async def body() -> list[int]:
        calls = {fetch(x) for x in range(6)}
        tasks = {asyncio.create_task(store(x)) for x in range(6)}
        return [*await asyncio.gather(*calls), *await asyncio.gather(*tasks)]

    play = Play(body)
    asked = play.waiting
    for call in play.calls:
        play.answer(call, call.args[0])
    result = play.result()
    assert sorted(result) == sorted([*range(6), *range(6)])
    for _ in range(3):
        again = play.again(upto=0)
        assert again.waiting == asked
        assert play.again().result() == result


# Locks and queues ---------------------------------------------------------------------------------------


def test_a_queue_hands_over_in_order() -> None:
    async def produce(queue: asyncio.Queue[int]) -> None:
        for x in (1, 2, 3):
            await queue.put(await fetch(x))
        await queue.join()

    async def body() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        taken: list[int] = []

        async def consume() -> None:
            while True:
                x = await queue.get()
                taken.append(await store(x))
                queue.task_done()

        consumer = asyncio.create_task(consume())
        await produce(queue)
        consumer.cancel()
        return taken

    assert play_through(body, [1, 2, 10, 3, 20, 30]) == [100, 200, 300]


def test_an_event_wakes_who_waits() -> None:
    async def body() -> list[int]:
        event, trace = asyncio.Event(), list[int]()

        async def waiter(x: int) -> None:
            await event.wait()
            trace.append(await fetch(x))

        async with asyncio.TaskGroup() as group:
            for x in (1, 2):
                group.create_task(waiter(x))
            await store(3)
            event.set()
        return trace

    assert play_through(body, [3, 2, 1]) == [20, 10]


def test_a_lock_lets_one_in_at_a_time() -> None:
    async def body() -> list[str]:
        lock, trace = asyncio.Lock(), list[str]()

        async def branch(x: int) -> None:
            async with lock:
                trace.append(f"in {x}")
                await fetch(x)
                trace.append(f"out {x}")

        await asyncio.gather(branch(1), branch(2), branch(3))
        return trace

    assert play_through(body, [1, 2, 3]) == [f"{way} {x}" for x in (1, 2, 3) for way in ("in", "out")]


def test_a_semaphore_bounds_how_many_are_asked_for() -> None:
    async def body() -> list[int]:
        semaphore = asyncio.Semaphore(2)

        async def branch(x: int) -> int:
            async with semaphore:
                return await fetch(x)

        return await asyncio.gather(*(branch(x) for x in range(4)))

    play = Play(body)
    assert [call.args for call in play.calls] == [(0,), (1,)]
    play.answer("fetch#2", 1)
    assert [call.args for call in play.calls] == [(0,), (2,)]
    assert play.again().standing() == play.standing()


def test_a_condition_is_notified() -> None:
    async def body() -> list[int]:
        condition, ready = asyncio.Condition(), list[int]()

        async def consumer() -> int:
            async with condition:
                await condition.wait_for(lambda: len(ready) >= 2)
                return sum(ready)

        task = asyncio.create_task(consumer())
        for x in (1, 2):
            ready.append(await fetch(x))
            async with condition:
                condition.notify_all()
        return [await task]

    assert play_through(body, [1, 2]) == [30]


def test_a_barrier_waits_for_all() -> None:
    async def body() -> list[int]:
        barrier = asyncio.Barrier(3)

        async def branch(x: int) -> int:
            await fetch(x)
            await barrier.wait()
            return await store(x)

        return await asyncio.gather(*(branch(x) for x in (1, 2, 3)))

    play = Play(body)
    for occurrence in (2, 3):
        play.answer(f"fetch#{occurrence}", 0)
    assert play.waiting == ['fetch{"x":1}#1']
    play.answer("fetch", 0)
    assert len(play.waiting) == 3
    assert play.again().standing() == play.standing()


# Cancelling ---------------------------------------------------------------------------------------------


def test_shield_keeps_a_step_from_being_withdrawn() -> None:
    async def body() -> int:
        task = asyncio.create_task(fetch(1))
        try:
            await asyncio.wait_for(asyncio.shield(task), 5)
        except TimeoutError:
            await store(2)
        return await task

    play = Play(body)
    play.pass_time(5_000)
    assert play.withdrawn == []
    assert play.waiting == ['fetch{"x":1}#1', 'store{"x":2}#1']
    play.answer("fetch", 10)
    play.answer("store", 0)
    assert play.result() == 10
    assert play.again().result() == 10


def test_wait_for_withdraws_the_step_that_was_too_slow() -> None:
    async def body() -> int:
        try:
            return await asyncio.wait_for(fetch(1), 5)
        except TimeoutError:
            return await store(2)

    play = Play(body)
    call = play.call("fetch")
    play.pass_time(5_000)
    assert play.withdrawn == [call]
    assert play.waiting == ['store{"x":2}#1']
    assert play.again().standing() == play.standing()


def test_nested_timeouts_end_what_they_are_around() -> None:
    async def body() -> list[str]:
        trace: list[str] = []
        try:
            async with asyncio.timeout(20):
                try:
                    async with asyncio.timeout(10):
                        await fetch(1)
                except TimeoutError:
                    trace.append("inner")
                    await fetch(2)
        except TimeoutError:
            trace.append("outer")
        return trace

    assert play_through(body, ["timeout:10", "timeout:20"]) == ["inner", "outer"]


def test_a_cancelled_task_may_clean_up_with_steps() -> None:
    async def body() -> list[int]:
        async def branch() -> int:
            try:
                return await fetch(1)
            finally:
                await store(2)

        task = asyncio.create_task(branch())
        await fetch(3)
        task.cancel()
        return [
            type(error).__name__ == "CancelledError" for error in await asyncio.gather(task, return_exceptions=True)
        ]

    assert play_through(body, [3, 2]) == [True]


def test_uncancel_and_cancelling_count_as_in_asyncio() -> None:
    async def body() -> list[int]:
        seen: list[int] = []

        async def stubborn() -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                await fetch(1)
            except asyncio.CancelledError:
                seen.append(task.cancelling())
                seen.append(task.uncancel())
            await fetch(2)

        task = asyncio.create_task(stubborn(), name="stubborn")
        assert task.get_name() == "stubborn"
        await store(3)
        task.cancel("enough")
        await task
        return seen

    assert play_through(body, [3, 2]) == [1, 0]


# Contexts -----------------------------------------------------------------------------------------------

_name: ContextVar[str] = ContextVar("name", default="")


def test_each_task_has_a_context_of_its_own() -> None:
    async def body() -> list[str]:
        async def branch(own: str) -> str:
            _name.set(own)
            await fetch(len(own))
            return _name.get()

        return [*await asyncio.gather(branch("a"), branch("bb")), _name.get()]

    assert play_through(body, [2, 1]) == ["a", "bb", ""]


@pytest.mark.parametrize("filled", [False, True])
def test_a_context_that_the_user_made_is_still_the_bodys(filled: bool) -> None:
    """R6, R14: without the body's host in it an activity would really run there, unrecorded."""

    async def branch() -> tuple[int, str]:
        return await fetch(1), _name.get()

    async def body() -> tuple[int, str]:
        context = Context()
        if filled:
            context.run(_name.set, "mine")
        return await asyncio.create_task(branch(), context=context)

    assert play_through(body, [1]) == (10, "mine" if filled else "")


def test_a_task_made_in_an_empty_context_is_still_the_bodys() -> None:
    """R6, R14."""

    async def body() -> int:
        return await Context().run(asyncio.ensure_future, _plain(1))

    assert play_through(body, [1]) == 10


def test_callbacks_run_in_their_context() -> None:
    async def body() -> list[str]:
        trace: list[str] = []
        loop = asyncio.get_running_loop()
        _name.set("here")
        loop.call_soon(lambda: trace.append(_name.get()))
        context = copy_context()
        context.run(_name.set, "there")
        loop.call_soon(lambda: trace.append(_name.get()), context=context)
        loop.call_later(5, lambda: trace.append(_name.get()), context=context)
        await sleep(6)
        return trace

    assert play_through(body, ["sleep:5", "sleep:6"]) == ["here", "there", "there"]


# Generators and callbacks -------------------------------------------------------------------------------


def test_an_asynchronous_generator_asks_for_steps() -> None:
    async def pages() -> AsyncIterator[int]:
        for x in (1, 2):
            yield await fetch(x)

    async def body() -> list[int]:
        return [page async for page in pages()]

    assert play_through(body, [1, 2]) == [10, 20]


def test_a_generator_left_with_break_cleans_up_in_the_body() -> None:
    """DESIGN 1: in a turn, with steps that are recorded; the outer loop would really run them, unrecorded."""

    async def pages() -> AsyncIterator[int]:
        try:
            for x in (1, 2):
                yield await fetch(x)
        finally:
            await store(9)

    async def body() -> list[int]:
        seen: list[int] = []
        async for page in pages():
            seen.append(page)
            break
        seen.append(await fetch(3))
        return seen

    play = Play(body)
    play.answer("fetch", 10)
    assert play.waiting == ['fetch{"x":3}#2', 'store{"x":9}#1']
    play.answer("store", 0)
    play.answer("fetch", 30)
    assert play.result() == [10, 30]
    assert play.again().result() == [10, 30]


def test_a_context_manager_brackets_steps() -> None:
    @asynccontextmanager
    async def reserved(x: int) -> AsyncIterator[int]:
        yield await fetch(x)
        await store(x)

    async def body() -> int:
        async with reserved(1) as value:
            return value + await fetch(2)

    assert play_through(body, [1, 2, 1]) == 30


def test_futures_and_callbacks_of_ones_own_work() -> None:
    async def body() -> list[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        trace: list[Any] = []
        task = asyncio.create_task(fetch(1))
        task.add_done_callback(lambda done: future.set_result(f"got {done.result()}"))
        future.add_done_callback(lambda done: trace.append(done.result()))
        handle = loop.call_soon(trace.append, "cancelled")
        handle.cancel()
        timer = loop.call_later(5, trace.append, "cancelled too")
        trace.append(timer.when())
        timer.cancel()
        await future
        return trace

    assert play_through(body, [1]) == [5, "got 10"]


def test_the_loop_says_what_a_loop_says() -> None:
    async def body() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        task = asyncio.current_task()
        return [
            loop.is_running(), loop.is_closed(), loop.get_debug(), loop.get_task_factory(),
            loop.get_exception_handler(), task in asyncio.all_tasks(), len(asyncio.all_tasks()),
        ]  # fmt: skip

    assert Play(body).result() == [True, False, False, None, None, True, 1]


def test_tasks_have_the_same_names_on_every_replay() -> None:
    """They are in the logs, and may be in what a body does."""

    async def body() -> list[str]:
        tasks = [asyncio.create_task(fetch(x)) for x in (1, 2)]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in tasks]

    play = Play(body)
    play.answer("fetch", 0)
    play.answer("fetch", 0)
    assert len(set(play.result())) == 2
    assert play.again().result() == play.result()


def test_hashes_keep_their_order_however_many_executions_ran() -> None:
    """DESIGN 1: past 2**63 Python folds a hash, and its lower bits, which order a set, would change."""

    async def body() -> list[int]:
        return [hash(asyncio.current_task()), *(hash(asyncio.create_task(asyncio.sleep(0))) for _ in range(3))]

    low_bits = (1 << SERIAL_SHIFT) - 1
    first = Play(body).result()
    another = Play(body).result()
    deque(islice(host._serials, 1 << 63 - SERIAL_SHIFT), maxlen=0)
    late = Play(body).result()
    assert [each & low_bits for each in late] == [each & low_bits for each in first]
    assert not set(first) & set(another), "or the registry of tasks, one set for the process, is slow"
