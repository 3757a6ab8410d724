"""Promotion: what is promoted, what is refused, and that running servers follow."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import variants
from promoting import current, home_of_three, named, promoted, report_of
from serving import running_server

from classifier import promotion
from classifier.client import Client
from classifier.errors import BundleRejected, CanaryFailed, PromotionRefused
from classifier.promotion import Step, promote, read_log, roll_back

ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the default bundle is current and two others are not."""
    return home_of_three(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are not tried out: a test of the log need not wait for it."""
    monkeypatch.setattr(promotion, "_try_out", lambda *given: None)


# What is promoted, and what is refused.


def test_a_fitting_report_promotes_and_the_log_says_who_when_and_on_what_grounds(home: Path) -> None:
    name = named(home, "9.0.0")
    began = datetime.now(UTC)
    entry = promoted(home, name)
    assert current(home) == name
    assert (home / "bundles" / "current").readlink() == Path(name), "relative, so that the home may move"
    assert read_log(home / "bundles") == [entry]
    assert (entry.step, entry.actor, entry.reason) == (Step.PROMOTE, "ada", "it is better")
    assert began <= entry.at <= datetime.now(UTC)
    assert (entry.from_name, entry.to_name) == ("default", name)
    held = json.loads((home / f"{name}-default.json").read_bytes())
    assert entry.report == held["digest"]
    digest = hashlib.sha256((home / "bundles" / name / "manifest.json").read_bytes()).hexdigest()
    assert entry.to_sha256 == digest == held["measured"]["candidate"]["manifest_sha256"]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("9.0.0", "9.1.0"), "would take the place of"),
        (("9.1.0", "default"), "would take the place of"),
        (("default", "9.0.0"), "would take the place of"),
    ],
)
def test_a_report_of_other_bundles_is_refused(home: Path, pair: tuple[str, str], reason: str) -> None:
    names = [one if one == "default" else named(home, one) for one in pair]
    with pytest.raises(PromotionRefused, match=reason):
        promote(home / "bundles", named(home, "9.0.0"), report_of(home, *names), actor="ada", threads=2)
    assert (current(home), read_log(home / "bundles")) == ("default", [])


def test_a_report_on_a_bundle_that_is_no_longer_current_is_refused(home: Path, quick: None) -> None:
    report = report_of(home, named(home, "9.0.0"), "default")
    promoted(home, named(home, "9.1.0"))
    with pytest.raises(PromotionRefused, match=r"would take the place of 9\.1\.0"):
        promote(home / "bundles", named(home, "9.0.0"), report, actor="ada", threads=2)


def test_a_regression_is_refused_with_its_grounds(home: Path) -> None:
    with pytest.raises(PromotionRefused, match=r"is worse than .* recall at 1 % false positives is lower: -4\.0"):
        promoted(home, named(home, "9.0.0"), lost=0.04)
    assert (current(home), read_log(home / "bundles")) == ("default", [])


def test_without_a_report_nothing_is_promoted(home: Path) -> None:
    with pytest.raises(PromotionRefused, match="cannot be read"):
        promote(home / "bundles", named(home, "9.0.0"), home / "nothing.json", actor="ada", threads=2)
    assert current(home) == "default"


def test_an_altered_report_promotes_nothing(home: Path) -> None:
    name = named(home, "9.0.0")
    report = report_of(home, name, "default", lost=0.04)
    report.write_text(report.read_text().replace('"worse"', '"better"'))
    with pytest.raises(PromotionRefused, match="was altered"):
        promote(home / "bundles", name, report, actor="ada", threads=2)
    assert current(home) == "default"


def test_a_candidate_of_which_a_byte_was_changed_is_refused_though_its_manifest_fits(home: Path) -> None:
    name = named(home, "9.0.0")
    report = report_of(home, name, "default")
    head = home / "bundles" / name / "head.onnx"
    head.write_bytes(head.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleRejected, match=r"head\.onnx has SHA-256"):
        promote(home / "bundles", name, report, actor="ada", threads=2)
    assert (current(home), read_log(home / "bundles")) == ("default", [])


def test_a_candidate_that_servers_would_refuse_is_refused(home: Path) -> None:
    name = variants.make_current(home, variants.shifted(50.0))
    variants.point(home, "default")
    with pytest.raises(CanaryFailed, match="canary prompts wrongly"):
        promoted(home, name)
    assert (current(home), read_log(home / "bundles")) == ("default", [])


def test_the_current_bundle_is_not_promoted_again(home: Path, quick: None) -> None:
    promoted(home, named(home, "9.0.0"))
    with pytest.raises(PromotionRefused, match="is the current bundle already"):
        promoted(home, named(home, "9.0.0"))


def test_a_bundle_of_another_home_is_refused(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (home / "bundles" / named(home, "9.0.0")).rename(elsewhere)
    with pytest.raises(PromotionRefused, match="does not stand in"):
        promote(home / "bundles", str(elsewhere), home / "any.json", actor="ada", threads=2)


def test_two_promotions_at_once_are_refused(home: Path, quick: None) -> None:
    with (home / "bundles" / ".promotions.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PromotionRefused, match="under way"):
            roll_back(home / "bundles", actor="ada")
    promoted(home, named(home, "9.0.0"))


def test_words_that_are_too_long_for_the_log_are_refused(home: Path, quick: None) -> None:
    name = named(home, "9.0.0")
    report = report_of(home, name, "default")
    with pytest.raises(PromotionRefused, match="reason is too long"):
        promote(home / "bundles", name, report, actor="ada", reason="x" * 2_001, threads=2)
    assert current(home) == "default"


# The command line, and a running server.


def run(home: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "classifier.cli", "models", *command],
        env={**os.environ, "STILLWATCH_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def until(good: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_running_server_follows_a_promotion_and_a_roll_back(home: Path) -> None:
    name = named(home, "9.0.0")
    report = report_of(home, name, "default")
    with running_server(home, watch_seconds=0.05) as server, Client(server.address, timeout=60) as client:
        before = client.classify(ORDINARY)
        done = run(home, "promote", name, "--report", str(report), "--actor", "ada", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["to_name"] == name
        until(lambda: client.get_status().provenance.bundle_version.startswith("9.0.0+"))
        assert client.classify(ORDINARY).provenance.bundle_version.startswith("9.0.0+")
        done = run(home, "rollback", "--actor", "ada")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("default is current now")
        until(lambda: client.get_status().provenance.bundle_version.startswith("0.1.0+"))
        after = client.classify(ORDINARY)
        assert (after.verdict, after.provenance.bundle_version) == (before.verdict, before.provenance.bundle_version)
        until(lambda: client.get_status().reloads == 2)  # counted after the swap
        assert client.get_status().refused_reloads == 0


def test_a_refusal_is_one_line_and_exit_code_1(home: Path) -> None:
    name = named(home, "9.0.0")
    done = run(home, "promote", name, "--report", str(report_of(home, name, "default", lost=0.5)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 9.0.0+")
    assert done.stderr.count("\n") == 1
    done = run(home, "rollback")
    assert done.returncode == 1
    assert "tells of no bundle before" in done.stderr
    assert run(home, "promote", name).returncode == 2, "a report must be named"
