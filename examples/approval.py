"""An expense is approved by a person, with a signed link, over a restart of everything; or not, within three days.

Run it: `python examples/approval.py`.
"""

import asyncio
import tempfile
from pathlib import Path

from pydantic import BaseModel

from perdure import DurableDeferred, Token, TypedError, activity, workflow
from perdure.testing import TestEngine, VirtualClock

DAY_S = 24 * 3600
OUTBOX = Path(tempfile.mkdtemp()) / "outbox.txt"


class Decision(BaseModel):
    approved_by: str


class Rejected(TypedError):
    reason: str


Approval = DurableDeferred.make("approval", success=Decision, error=Rejected)


@activity
def send_mail(to: str, text: str) -> None:
    with OUTBOX.open("a") as outbox:
        outbox.write(f"{to}: {text}\n")


@workflow(idempotency_key=lambda expense_id, cents: expense_id, error=Rejected)
async def reimburse(expense_id: str, cents: int) -> str:
    await send_mail("boss@example.com", f"{cents} cents? https://example.com/approve/{Approval.token()}")
    try:
        async with asyncio.timeout(3 * DAY_S):
            decision = await Approval
    except TimeoutError:
        await send_mail("staff@example.com", f"{expense_id}: nobody has answered")
        return "expired"
    await send_mail("staff@example.com", f"{expense_id}: approved by {decision.approved_by}")
    return "approved"


def link_in_the_mail() -> Token:
    return Token(OUTBOX.read_text().splitlines()[-1].rpartition("/")[2])


async def main() -> None:
    # An engine of tests, on a file: its clock skips the days. In production it is `WorkflowEngine.sqlite(...)`.
    file, clock = OUTBOX.with_name("expenses.perdure"), VirtualClock()
    keys = {"2026": "a secret of at least 16 bytes, from the environment"}

    async with TestEngine([reimburse], path=file, clock=clock, token_secret=keys) as worker:
        await reimburse.start("taxi", 2_500)
        await worker.advance("1 day")
    # Everything has been shut down. The boss clicks the link; the web server runs no workflow.
    async with TestEngine(path=file, clock=clock, token_secret=keys):
        print("counted:", await Approval.succeed(link_in_the_mail(), Decision(approved_by="ada")))
        print("once more:", await Approval.succeed(link_in_the_mail(), Decision(approved_by="bob")))
    async with TestEngine([reimburse], path=file, clock=clock, token_secret=keys):
        print("taxi:", await reimburse.execute("taxi", 2_500))
        print("dinner:", await reimburse.execute("dinner", 40_000))  # nobody clicks


if __name__ == "__main__":
    asyncio.run(main())
