"""Judges the runs of random programs by the model."""

import json
from collections.abc import Iterator

from perdure.testing._simulation.account import Account

from tests.simulation.programs import may_be


def judge(account: Account) -> Iterator[str]:
    """R10: every program has a result that it may have."""
    for life in account.lives.values():
        node = json.loads(life.record.payload)["node"]
        exit_ = json.loads(life.record.exit or b"{}")
        if "success" not in exit_ or not may_be(node, exit_["success"]):
            yield f"{life} ended with {exit_}, which {node} may not"
