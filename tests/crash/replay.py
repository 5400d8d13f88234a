"""Replays the journals that the crash tests leave behind, in the process of the test: another one, with other hashes."""

import json
from collections.abc import Iterator

from perdure._kernel.event import Origin
from perdure._kernel.kernel import Kernel

from tests.crash.snapshot import Execution
from tests.crash.workflows import BY_NAME, Declined


def wrong_replays(execution: Execution) -> Iterator[str]:
    """I23: fed with the whole journal, a new kernel comes to the same end, and has nothing to write or to ask for."""
    name = f"{execution.workflow} {execution.label}"
    body = BY_NAME[execution.workflow]
    origin = Origin(
        execution.execution_id, 1, execution.workflow, execution.incarnation, execution.began_at or 0, False
    )
    kernel = Kernel(origin, execution.entries)
    try:
        kernel.begin(lambda: body.make_body(execution.payload, execution.execution_id), execution.entries)
        if kernel.trouble is not None:
            yield f"{name} cannot be replayed: {kernel.trouble}"
        elif not kernel.ended:
            yield f"{name} does not come to its end: {[call.name for call in kernel.activities()]}"
        elif _end(kernel) != _stored(execution):
            yield f"{name} comes to {_end(kernel)}, and {execution.exit!r} is stored"
        written = kernel.take_written()
        if any(written):
            yield f"{name} wants to write once more: {written}"
    finally:
        kernel.close()


def _end(kernel: Kernel) -> object:
    try:
        return kernel.result()
    except Declined as refusal:
        return Declined, refusal.label


def _stored(execution: Execution) -> object:
    exit_ = json.loads(execution.exit or b"{}")
    if "success" in exit_:
        return exit_["success"]
    return Declined, exit_["failure"][0]["fail"]["error"]["label"]
