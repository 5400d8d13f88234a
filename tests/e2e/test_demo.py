"""The demo, as a person would start it: a worker killed with SIGKILL in mid-payment, and nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "orders" / "demo.py"

# Five Python processes, two of them in turn; the demo itself gives up first, so that none of them stays behind.
pytestmark = pytest.mark.timeout(90)


def start_demo(*arguments):
    command = [sys.executable, str(DEMO), "--orders", "60", "--timeout", "60", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished():
    return start_demo("--json")


@pytest.fixture
def report(finished):
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return json.loads(finished.stdout)


def test_nothing_is_lost_when_the_worker_is_killed_in_mid_payment(report):
    """R9, R10, R14: what was cut off is made again with its own key, what was recorded is not made again."""
    assert report["problems"] == []
    assert report["completed"] + report["declined"] == report["orders"] - report["bad_lines"]


def test_every_completed_order_is_charged_exactly_once(report):
    """R14: the key of a step is the same after a crash."""
    assert report["charges"] == report["completed"]


def test_a_charge_whose_answer_was_cut_off_is_asked_for_again(report):
    """R14: at least those that the gateway held back when the worker died."""
    assert report["unanswered_at_kill"] >= 1
    assert report["repeats_after_kill"] >= report["unanswered_at_kill"]


def test_a_busy_gateway_is_asked_again_and_a_declined_card_is_not(report):
    """R11: asked again, a declined card would be a repeat that no kill explains, which is one of the problems."""
    assert report["declined"] >= 1
    assert report["requests"] > report["charges"] + report["declined"] + report["repeats_after_kill"]


def test_bad_lines_are_reported_by_line_and_field(finished, report):
    assert report["bad_lines"] == 5
    assert "bad line 7, email: not an e-mail address" in finished.stderr
    assert "bad line 18, items[2].price_cents: Input should be greater than 0" in finished.stderr
    assert "bad line 29, currency: " in finished.stderr
    assert "bad line 41, items: Field required" in finished.stderr
    assert "bad line 52, not JSON: " in finished.stderr
    assert finished.stderr.count("bad line") == 5, "the second worker reports nothing anew"


def test_a_directory_with_files_of_an_earlier_demo_is_refused(tmp_path):
    (tmp_path / "orders.perdure").touch()
    refused = start_demo("--keep", str(tmp_path))
    assert refused.returncode == 2
    assert "is not empty" in refused.stderr
