"""A case: everything that decides one simulated run, written as one line that repeats it."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final, Self

from perdure.errors import UsageError


class Fault(StrEnum):
    """What may go wrong in a simulated run.

    Example:
        >>> Fault("crash")
        <Fault.CRASH: 'crash'>
    """

    CRASH = "crash"
    """A process ends: at one of the engine's failpoints, or at any moment. Another one comes in its place."""
    PAUSE = "pause"
    """A process stands still for a while, and goes on with what it believed before."""
    USURP = "usurp"
    """A living process counts as dead: others take over what it has, and it does not know."""
    LOSE = "lose"
    """A call to the store fails, before or after what was asked has been done."""
    EVICT = "evict"
    """Kernels that wait are put away, and rebuilt from their journals."""
    SLOW = "slow"
    """Answers of the store and beginnings of activities come late, and overtake each other."""
    DEAF = "deaf"
    """No process hears that another one has written."""
    CLOSE = "close"
    """A process closes its engine properly in the middle of everything. Another one comes in its place."""


_LINE: Final = re.compile(
    r"seed=(?P<seed>\d+) faults=(?P<faults>[a-z,-]+) at_most=(?P<at_most>\d+) processes=(?P<processes>\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What decides a run: the same case gives the same run, callback by callback.

    Example:
        >>> case = Case.drawn(7)
        >>> Case.parsed(str(case)) == case
        True
    """

    seed: int
    # Which sorts of fault there are.
    faults: frozenset[Fault]
    # How many faults at most; then everything goes well, and has to come to its end.
    at_most: int
    processes: int

    @classmethod
    def drawn(cls, seed: int) -> Self:
        """The case of a seed. Each has its own few sorts of fault: where all happen at once, each hides the others."""
        random = Random(f"{seed}/case")
        calm = random.random() < 0.05
        faults = frozenset(fault for fault in Fault if not calm and random.random() < 0.45)
        # Mostly a few: a run in which everything fails for long is one in which nothing gets far.
        return cls(
            seed=seed,
            faults=faults,
            at_most=random.randint(1, random.choice((20, 20, 60))),
            processes=random.randint(1, 3),
        )

    @classmethod
    def parsed(cls, line: str) -> Self:
        """Read what `str` has written.

        Raises:
            UsageError: It is no such line.
        """
        found = _LINE.fullmatch(line.strip())
        names = found["faults"].split(",") if found else ["?"]
        if found is None or not set(names) <= {"none", *Fault}:
            raise UsageError(
                f"{line!r} is no case of a simulation. One looks like {str(cls.drawn(7))!r}; a failing run prints it."
            )
        faults = frozenset(Fault(name) for name in names if name != "none")
        return cls(
            seed=int(found["seed"]), faults=faults, at_most=int(found["at_most"]), processes=int(found["processes"])
        )

    def __str__(self) -> str:
        faults = ",".join(sorted(self.faults)) or "none"
        return f"seed={self.seed} faults={faults} at_most={self.at_most} processes={self.processes}"

    def smaller(self) -> list[Self]:
        """Cases with less in them, the biggest steps first."""
        fewer = [replace(self, faults=self.faults - {fault}) for fault in sorted(self.faults)]
        steps = sorted({0, self.at_most // 2, self.at_most * 3 // 4, self.at_most - 1} - {self.at_most, -1})
        less = [replace(self, at_most=at_most) for at_most in steps]
        alone = [replace(self, processes=self.processes - 1)] if self.processes > 1 else []
        return [*fewer, *alone, *less]
