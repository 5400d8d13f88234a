"""Reading what runners need of the store: journals, to rebuild kernels, and mail that they have not seen.

Many at once in one look, and again until the store answers. A journal that nobody can read is found
out by reading each for itself, so that one damaged execution does not stop the others (R40).
"""

from collections.abc import Sequence

from perdure._engine.letterbox import NO_ENTRIES
from perdure._engine.patience import until_answered
from perdure._engine.runner import Runner
from perdure._model.records import History
from perdure._model.store import Store
from perdure.errors import StoreError


async def read_journals(store: Store, runners: Sequence[Runner]) -> list[History | None]:
    """Their journals and mail, in their order; None for one that nobody can read, which is held with that (R40)."""
    wanted = [(runner.incarnation, 0, 0) for runner in runners]
    try:
        return [*await until_answered(lambda: store.load(wanted), "a journal is read again", but=_is_damage)]
    except StoreError as error:
        if len(runners) > 1:
            return [history for runner in runners for history in await read_journals(store, [runner])]
        runners[0].hold_unreadable(error)
        return [None]


async def read_mail(store: Store, runners: Sequence[Runner]) -> list[History]:
    """The mail behind what each of them has seen, in their order."""
    wanted = [(runner.incarnation, NO_ENTRIES, runner.inbox.seen) for runner in runners]
    return await until_answered(lambda: store.load(wanted), "mail is read again")


def _is_damage(error: StoreError) -> bool:
    # What was read is no text: the file holds something else than was written, and will the next time.
    return isinstance(error.__cause__, ValueError)
