"""A trip is booked step by step; when there is no car, what was booked is cancelled, the last booking first.

Run it: `python examples/saga.py`.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from perdure import Schedule, TypedError, WorkflowEngine, activity, idempotency_key, with_compensation, workflow

AGENCY = Path(tempfile.mkdtemp())
AGAIN = Schedule.exponential("10 millis", factor=2, max="1 second").times(5)


class SoldOut(TypedError):
    what: str


@activity(error=SoldOut, retry=AGAIN, timeout="10 seconds")
def book(trip_id: str, what: str) -> str:
    """One file for each booking. Its name is the key of this step, so that a booking which is made again is one."""
    if what == "car":
        raise SoldOut(what=what)
    booking = AGENCY / f"{idempotency_key()}.json"
    booking.write_text(json.dumps({"trip": trip_id, "what": what}))
    return booking.name


@activity(retry=AGAIN, timeout="10 seconds")
def cancel(booking: str) -> None:
    told = AGENCY / booking
    if told.exists():  # cancelled twice is cancelled
        print("cancelled:", json.loads(told.read_text())["what"], flush=True)
        told.unlink()


@workflow(idempotency_key=lambda trip_id, wanted: trip_id, error=SoldOut)
async def trip(trip_id: str, wanted: list[str]) -> list[str]:
    return [
        await with_compensation(
            book(trip_id, what),
            lambda booking, cause: cancel(booking),
            # It timed out: perhaps there is a booking, and the agency is asked to look for it.
            unknown=lambda cause: cancel_whatever_there_is(trip_id),
        )
        for what in wanted
    ]


@activity(retry=AGAIN)
def cancel_whatever_there_is(trip_id: str) -> None:
    for booking in bookings():
        if json.loads(booking.read_text())["trip"] == trip_id:
            booking.unlink()


def bookings() -> list[Path]:
    return list(AGENCY.glob("*.json"))


async def main() -> None:
    async with WorkflowEngine.sqlite(AGENCY / "trips.perdure", [trip]) as engine:
        booked = await trip.execute("rome", ["flight", "hotel"])
        print("rome:", len(booked), "bookings")
        try:
            await trip.execute("oslo", ["flight", "hotel", "car"])
        except SoldOut as sold_out:
            print("oslo: no", sold_out.what)
        print("bookings that are left:", len(bookings()))
        print((await engine.explain(trip.execution_id("oslo", []))).splitlines()[2])


if __name__ == "__main__":
    asyncio.run(main())
