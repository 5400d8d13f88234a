"""An activity that may run once at most, and whose worker is killed while it runs (R50)."""

import pytest

from perdure import WorkflowEngine, activity, workflow

from tests.crash.checker import violations
from tests.crash.ledger import Phase
from tests.crash.model import UNKNOWN
from tests.crash.stage import Stage

pytestmark = pytest.mark.timeout(60)  # two processes


@pytest.mark.parametrize(("point", "effects"), [("effect.before", 2), ("effect.after", 3)])
def test_an_attempt_that_was_cut_off_is_not_made_again_and_the_body_hears_of_it(tmp_path, point, effects):
    """R50: whether it did its work or not, nobody knows, and nobody asks twice."""
    stage = Stage(tmp_path)
    work = [("Once", "one/once")]
    stage.run_until_it_dies(work, point, 2)
    stage.run_until_it_ends(work)
    account = stage.account()
    assert violations(account) == []
    (told,) = (line.value for line in account.of(Phase.TOLD))
    assert [result.partition(" ")[0] for result in told] == ["once", UNKNOWN, "once"]
    assert len(account.of(Phase.EFFECT)) == effects


@activity(delivery="at_most_once")
async def page(name: str) -> str:
    return f"paged {name}"


@workflow(idempotency_key=lambda name: name)
async def page_twice(name: str) -> list[str]:
    return [await page(name), await page(name)]


def test_an_equal_call_is_another_one(run):
    """R8, R50: that the first call was begun says nothing about the second."""

    async def main() -> list[str]:
        async with WorkflowEngine.memory([page_twice]):
            return await page_twice.execute("ada")

    assert run(main) == ["paged ada", "paged ada"]
