"""Moments at which a worker ends: at the n-th commit, before it is written or behind it."""

import itertools

from perdure._model.records import Commit

from tests.engine.lab import Probe


def stop_at_commit(probe: Probe, number: int, *, written: bool) -> None:
    """Keep back that commit, counted from now on, or, written, its answer: nothing comes behind it."""
    counted = itertools.count(1)

    def judge(batch: list[Commit]) -> None:
        if next(counted) == number:
            probe.hold("commit", before=not written)

    probe.judge = judge
