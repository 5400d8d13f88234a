"""What a body does to itself and to others with its turn's commit, and an activity at once (R42)."""

from typing import Any

import pytest

from perdure import DefinitionError, OutsideExecutionError, PayloadError, UsageError, publish, set_attributes
from perdure._definitions.acting import interrupt_from_body, resume_from_body
from perdure._model.records import INTERRUPTED, Mail, MailKind

from tests.unit.definitions.fakes import EXECUTION_ID, FakeAttempt, FakeHost, in_activity, in_body


def doing(act: Any) -> Any:
    async def body() -> None:
        act()

    return body


def test_attributes_are_set_and_removed():
    host = FakeHost()
    in_body(host, doing(lambda: set_attributes({"the customer": "ada"}, stage=3, vip=True, old=None)))
    assert host.acted == ["attributes"]
    assert host.acts.attributes == {"the customer": "ada", "stage": 3, "vip": True, "old": None}


def test_the_last_word_on_an_attribute_counts():
    host = FakeHost()

    def act() -> None:
        set_attributes(stage="packing")
        set_attributes({"stage": None})

    in_body(host, doing(act))
    assert host.acts.attributes == {"stage": None}


@pytest.mark.parametrize("attributes", [{"a": [1]}, {"": 1}, {"": None}, {5: None}, {"a": float("nan")}, {"a\0": "b"}])
def test_an_attribute_that_cannot_be_recorded_is_refused(attributes: dict[Any, Any]):
    host = FakeHost()
    with pytest.raises(UsageError):
        in_body(host, doing(lambda: set_attributes(attributes)))
    assert host.acted == []


def test_what_is_published_is_json():
    host = FakeHost()
    in_body(host, doing(lambda: publish("progress", {"counted": 3})))
    assert host.acted == ["publish:progress"]
    assert host.acts.published == {"progress": b'{"counted":3}'}


def test_what_cannot_be_published_is_refused():
    host = FakeHost()
    with pytest.raises(PayloadError):
        in_body(host, doing(lambda: publish("progress", object())))
    with pytest.raises(DefinitionError, match="what is published"):
        in_body(host, doing(lambda: publish("", 5)))
    assert host.acted == []


def test_a_body_interrupts_and_resumes_others():
    host = FakeHost()
    in_body(host, doing(lambda: interrupt_from_body(host, EXECUTION_ID)))
    in_body(host, doing(lambda: resume_from_body(host, EXECUTION_ID)))
    assert host.acted == [f"interrupt:{EXECUTION_ID}", f"resume:{EXECUTION_ID}"]
    assert host.acts.mail == [Mail(EXECUTION_ID, MailKind.INTERRUPT, "", INTERRUPTED)]
    assert host.acts.resumes == [EXECUTION_ID]


def test_what_is_said_is_told_with_it_so_that_its_size_can_be_looked_at():
    """R42."""
    host = FakeHost()
    in_body(host, doing(lambda: publish("a", "word")))
    in_body(host, doing(lambda: set_attributes({"b": None}, c=1)))
    assert host.said == [b'"word"', b'{"c":1,"b":""}']


def test_an_activity_does_it_at_once():
    """R42."""
    attempt = FakeAttempt()
    in_activity(attempt, doing(lambda: publish("progress", 3)))
    in_activity(attempt, doing(lambda: set_attributes({"old": None}, stage=1)))
    assert [(acts.published, acts.attributes) for acts in attempt.acts] == [
        ({"progress": b"3"}, {}),
        ({}, {"old": None, "stage": 1}),
    ]


@pytest.mark.parametrize(
    "act", [lambda: set_attributes(a="x" * 1_000), lambda: publish("a", "x" * 1_000)], ids=["attributes", "publish"]
)
def test_an_activity_says_no_more_than_its_engine_takes(act: Any):
    """R42."""
    attempt = FakeAttempt()
    with pytest.raises(PayloadError, match=r"limit is 1,000.*payload_limit"):
        in_activity(attempt, doing(act))
    assert attempt.acts == []


@pytest.mark.parametrize("act", [lambda: set_attributes(a=1), lambda: publish("a", 1)], ids=["attributes", "publish"])
def test_it_takes_a_body_or_an_activity(act: Any):
    with pytest.raises(OutsideExecutionError):
        act()
