"""The helper that arms failpoints does what it says, with a real engine."""

import asyncio

import pytest

from perdure import StoreUnavailableError, UsageError, WorkflowEngine, activity, workflow
from perdure._failpoints import reach
from perdure.testing.failpoints import Failpoints

calls: list[str] = []


@activity
async def call(name: str) -> str:
    calls.append(name)
    return f"called {name}"


@workflow(idempotency_key=lambda name: name)
async def calling(name: str) -> str:
    return await call(name)


@pytest.mark.parametrize("point", ["commit.before", "commit.written", "commit.after"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_commit_whose_answer_fails_is_sent_again_and_does_nothing_twice(run, point, nth):
    """DESIGN's promise 8: whether it was written or not, the repeat finds out."""
    calls.clear()

    async def main() -> str:
        async with WorkflowEngine.memory([calling]):
            return await calling.execute("it")

    with Failpoints() as failpoints:
        failpoints.fail(point, StoreUnavailableError("the answer was lost"), reach=nth)
        assert run(main) == "called it"
    assert calls == ["it"]
    assert failpoints.reached[point] == 3, "two commits, one of them twice"


def test_nobody_hears_of_a_result_and_no_effect_begins_before_its_commit_is_durable(run):
    """DESIGN 2: the store's thread stands between the statements and the COMMIT, and the loop goes on."""
    calls.clear()

    async def main() -> None:
        async with WorkflowEngine.memory([calling]) as engine:
            with Failpoints() as failpoints:
                pause = failpoints.pause("commit.written")
                waiting = asyncio.ensure_future(engine.execute(calling, "it"))
                assert await asyncio.to_thread(pause.wait)
                assert calls == []
                assert not waiting.done()
                pause.go()
                assert await waiting == "called it"

    run(main)


def test_points_are_disarmed_at_the_end_even_after_an_error():
    failpoints = Failpoints()
    failpoints.fail("turn.before", ValueError("armed"), reach=2)

    def raise_inside() -> None:
        with failpoints:
            reach("turn.before")
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        raise_inside()
    reach("turn.before")
    assert failpoints.reached["turn.before"] == 1


def test_a_point_that_does_not_exist_cannot_be_armed():
    with pytest.raises(UsageError, match=r"no failpoint 'commit\.during'.*commit\.before"):
        Failpoints().crash("commit.during")
    with pytest.raises(UsageError, match="counted from 1"):
        Failpoints().crash("commit.before", reach=0)
