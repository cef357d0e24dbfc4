import time

import pytest

from awp_tf.infra.apart import Apart, in_turns, since_start
from awp_tf.infra.errors import UserError

CHILD = """
import sys
from awp_tf.infra.errors import UserError
from awp_tf.infra.apart import serve, since_start

def prepare(arguments):
    if arguments == ["refuse"]:
        raise UserError("expected another argument.")
    if arguments == ["die"]:
        sys.exit(3)
    print("a library says something")
    count = iter(range(10))
    return lambda: {"loss": next(count), "who": arguments[0]}, {"imported": since_start()}

serve(prepare, sys.argv[1:])
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "child_of_a_test.py").write_text(CHILD)
    monkeypatch.chdir(tmp_path)  # `python -m` looks here first
    return "child_of_a_test"


def test_a_child_is_ready_takes_steps_and_says_what_they_took(child):
    with Apart(child, "first") as step:
        assert 0 < step.ready["imported"] < 60
        facts = [step(), step()]
    assert [each["loss"] for each in facts] == [0, 1]
    assert all(0 <= each["seconds"] < 10 and 0 < each["peak"] < 10 for each in facts)


def test_children_take_turns(child):
    with Apart(child, "a") as a, Apart(child, "b") as b:
        facts = in_turns({"a": a, "b": b}, 3)
    said = {name: [(each["who"], each["loss"]) for each in of] for name, of in facts.items()}
    assert said == {name: [(name, 0), (name, 1), (name, 2)] for name in "ab"}


def test_what_a_child_refuses_is_said_here(child):
    with pytest.raises(UserError, match=r"^expected another argument\.$"):
        Apart(child, "refuse")


def test_a_child_that_ends_is_said(child):
    with pytest.raises(UserError, match=r"child_of_a_test: its process ended without an answer \(exit code 3\)"):
        Apart(child, "die")


def test_outside_a_child_the_clock_begins_now(monkeypatch):
    monkeypatch.delenv("AWP_TF_STARTED", raising=False)
    assert since_start() < 1
    monkeypatch.setenv("AWP_TF_STARTED", str(time.time() - 5))
    assert 5 <= since_start() < 6
