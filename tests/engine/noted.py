"""What several files have their bodies do: a step that notes that it was done, an error, a deferred that nobody completes."""

from perdure import DurableDeferred, TypedError, activity

Never = DurableDeferred.make("never", success=str)

# What activities have done, in order; empty at the beginning of every test.
done: list[str] = []


class Declined(TypedError):
    code: int


@activity
async def note(what: str) -> str:
    done.append(what)
    return what
