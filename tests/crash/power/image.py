"""What a disk may hold after the power went: what was synced, and of what was not, anything.

The assumptions are those that SQLite makes of a disk ("powersafe overwrite"): a write that was not synced may be there,
missing, torn at any byte, there in some of its 512-byte sectors, in any order with others, or rubbish; what it did not
touch stays as it was.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

from tests.crash.power.disk import Link, Log, Op, Sync, SyncFolder, Told, Truncate, Unlink, Write

SECTOR = 512

Asked = Write | Truncate
Image = dict[str, bytes]  # the content of each file, by what its name adds to the database's
Damage = Callable[[Random, list[Asked]], list[Asked]]  # what reached the disk of all that was asked for


# What reaches the disk ------------------------------------------------------------------------------------------------


def nothing(draw: Random, asked: list[Asked]) -> list[Asked]:
    return []


def everything(draw: Random, asked: list[Asked]) -> list[Asked]:
    return asked


def a_prefix(draw: Random, asked: list[Asked]) -> list[Asked]:
    return asked[: draw.randint(0, len(asked))]


def a_torn_prefix(draw: Random, asked: list[Asked]) -> list[Asked]:
    """Ends in the middle of a write, at any byte."""
    if not asked:
        return []
    *whole, last = asked[: draw.randint(1, len(asked))]
    if isinstance(last, Write):
        last = last._replace(data=last.data[: draw.randrange(len(last.data))])
    return [*whole, last]


def a_subset(draw: Random, asked: list[Asked]) -> list[Asked]:
    """The disk has taken them in another order: any of them, without those before it."""
    share = draw.choice([0.1, 0.5, 0.9])
    return [one for one in asked if draw.random() < share]


def some_sectors(draw: Random, asked: list[Asked]) -> list[Asked]:
    return a_subset(draw, [piece for one in asked for piece in _sectors(one)])


def rubbish(draw: Random, asked: list[Asked]) -> list[Asked]:
    """Some sectors hold what nobody has written."""
    share = draw.choice([0.02, 0.3])
    return [
        piece._replace(data=draw.randbytes(len(piece.data)))
        if isinstance(piece, Write) and draw.random() < share
        else piece
        for one in asked
        for piece in _sectors(one)
    ]


DAMAGES: tuple[Damage, ...] = (nothing, everything, a_prefix, a_torn_prefix, a_subset, some_sectors, rubbish)


def _sectors(asked: Asked) -> list[Asked]:
    if isinstance(asked, Truncate):
        return [asked]
    end = asked.offset + len(asked.data)
    edges = [asked.offset, *range(asked.offset // SECTOR * SECTOR + SECTOR, end, SECTOR), end]
    return [
        Write(asked.inode, start, asked.data[start - asked.offset : stop - asked.offset])
        for start, stop in pairwise(edges)
    ]


# Files and names --------------------------------------------------------------------------------------------------------


class Remains:
    """The disk after so much of a log: what stays for certain, and what is asked for and not certain."""

    def __init__(self) -> None:
        self._stays: dict[int, bytearray] = {}
        self._asked: dict[int, list[tuple[int, Asked]]] = {}
        self._names: dict[str, int] = {}
        self._names_asked: list[tuple[int, Link | Unlink]] = []

    def take(self, place: int, op: Op) -> None:
        """Go on by one entry of the log."""
        match op:
            case Write() | Truncate():
                self._asked[op.inode].append((place, op))
            case Link():
                self._stays[op.inode], self._asked[op.inode] = bytearray(), []
                self._names_asked.append((place, op))
            case Unlink():
                self._names_asked.append((place, op))
            case Sync():
                done = [one for at, one in self._asked[op.inode] if at < op.since]
                _apply(self._stays[op.inode], done)
                del self._asked[op.inode][: len(done)]
            case SyncFolder():
                done = [one for at, one in self._names_asked if at < op.since]
                _rename(self._names, done)
                del self._names_asked[: len(done)]
            case Told():
                pass

    def uncertain(self) -> int:
        """How many writes and names are not certain."""
        return len(self._names_asked) + sum(len(asked) for asked in self._asked.values())

    def image(self, draw: Random, *damages: Damage) -> Image:
        """The disk after a loss of power; each file meets a damage of its own, drawn from these."""
        names = dict(self._names)
        damage = draw.choice(damages)
        by_name = a_prefix if damage not in {nothing, everything} else damage
        _rename(names, by_name(draw, [one for _, one in self._names_asked]))
        return {name: bytes(self._content(draw, inode, draw.choice(damages))) for name, inode in sorted(names.items())}

    def _content(self, draw: Random, inode: int, damage: Damage) -> bytearray:
        content = bytearray(self._stays[inode])
        _apply(content, damage(draw, [one for _, one in self._asked[inode]]))
        return content


def moments(log: Log) -> Iterator[tuple[int, Remains]]:
    """The disk before each place of the log, and behind the last; always the same object."""
    remains = Remains()
    for place, op in enumerate(log):
        yield place, remains
        remains.take(place, op)
    yield len(log), remains


def _rename(names: dict[str, int], done: list[Link | Unlink]) -> None:
    for one in done:
        if isinstance(one, Link):
            names[one.name] = one.inode
        else:
            names.pop(one.name, None)


def _apply(content: bytearray, done: list[Asked]) -> None:
    for one in done:
        if isinstance(one, Truncate):
            del content[one.size :]
            continue
        content.extend(bytes(max(0, one.offset - len(content))))  # a hole reads as zeros
        content[one.offset : one.offset + len(one.data)] = one.data
