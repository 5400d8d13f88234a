"""Where rows have last been seen: guesses, each of which the row itself confirms.

Ids are digests, so the index of them is touched at random: beside a million executions every look into it is at pages
that nobody else wants. The writer has a part of them in its cache, until another process commits and SQLite forgets all
it has read; the reader never has, as for it the writer is such another. By the number of its row, an execution is found
beside those that were born with it, and these are what a worker has in hand.
"""

from array import array
from collections.abc import Iterable
from typing import Final

# Two bytes of an id choose its slot: half a megabyte for a store, however many executions there are.
_SLOTS: Final = 65_536


class Places:
    """By an execution's id, the number of the row in which it was last seen.

    A guess may be wrong: two ids share a slot, a transaction was rolled back, the number of a purged row was given to
    another. So whoever looks asks for the number *and* the id, and what is not found so is looked for by its id. That
    is why no id is kept, nothing is taken back, and threads share it without a lock: the worst is a look in vain.
    """

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers = array("q", bytes(8 * _SLOTS))

    def note(self, ids: Iterable[bytes], first: int) -> None:
        """Remember that these are, or are about to be, in the rows from this number on."""
        # A slot is the last bytes: where somebody has counted ids up they differ there, and those of a digest anywhere.
        numbers, slot = self._numbers, int.from_bytes
        for n, id_ in enumerate(ids, first):
            numbers[slot(id_[-2:], "big")] = n

    def guess(self, id_: bytes) -> int:
        """The number of its row, as far as anything is known of it; else 0."""
        return self._numbers[int.from_bytes(id_[-2:], "big")]

    def guesses(self, ids: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """Number and id of those of which anything is known."""
        numbers, slot = self._numbers, int.from_bytes  # at hand: every commit comes by here
        return [(n, id_) for id_ in ids if (n := numbers[slot(id_[-2:], "big")])]
