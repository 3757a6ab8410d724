"""The fuzzer's short form, and that it finds what it looks for."""

import os
import random
import signal

import pytest
from fuzz import TARGETS
from fuzzing import Target, fuzz

from classifier.errors import InvalidRequest


def nothing() -> None:
    """Prepare nothing."""


def number(source: random.Random) -> int:
    return source.randrange(10)


def well(_: object, given: int) -> None:
    if given < 5:
        raise InvalidRequest("a small number")


def broken(_: object, given: int) -> None:
    if given == 3:
        raise KeyError(given)


def crashing(_: object, given: int) -> None:
    if given == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def hanging(_: object, given: int) -> None:
    if given == 3:
        signal.pause()


def slow(_: object, given: int) -> None:
    if given == 3:
        sum(range(3_000_000))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_some_hundred_inputs_neither_crash_nor_hang_nor_raise_what_is_not_ours(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_HOME", "var")
    run = fuzz(target, 300)
    assert run.findings == []
    assert run.inputs == 300
    assert 0 < run.refused < 300, "some inputs must be good and some bad"


def test_an_error_of_the_projects_is_no_finding() -> None:
    run = fuzz(Target("well", nothing, number, well, 5.0), 50)
    assert (run.findings, run.inputs) == ([], 50)
    assert 10 < run.refused < 40


@pytest.mark.parametrize(("check", "words"), [(broken, "KeyError in broken"), (crashing, "crashes (exit code -9)")])
def test_a_foreign_error_and_a_crash_are_found_and_the_rest_is_tried(check: object, words: str) -> None:
    target = Target("bad", nothing, number, check, 5.0)  # type: ignore[arg-type]
    expected = [place for place in range(12) if number(random.Random(f"0 bad {place}")) == 3]
    run = fuzz(target, 12)
    assert run.inputs == 12
    assert expected
    assert [finding.split(": ")[0] for finding in run.findings] == [f"input {place}" for place in expected]
    assert all(words in finding for finding in run.findings)


def test_a_hang_is_found() -> None:
    target = Target("bad", nothing, number, hanging, 5.0)
    first = next(place for place in range(99) if number(random.Random(f"0 bad {place}")) == 3)
    run = fuzz(target, 1, first=first, patience=0.5)
    assert run.findings == [f"input {first}: hangs"]


def test_an_input_over_its_time_is_found() -> None:
    run = fuzz(Target("bad", nothing, number, slow, 0.001), 12)
    assert run.findings
    assert all(" takes " in finding for finding in run.findings)
