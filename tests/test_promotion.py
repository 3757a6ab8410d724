"""Promotion and roll-back: what is refused, what the log holds after any crash, and that running servers follow."""

import fcntl
import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import variants
from serving import running_server

from classifier import comparison, promotion
from classifier.bundle import point, read_manifest
from classifier.client import Client
from classifier.comparison import Compared, Comparison, Decisions, Estimate, Measured, Paired, dump_report
from classifier.durable import append_line
from classifier.errors import BundleRejected, CanaryFailed, PromotionRefused
from classifier.models import current_name, identify
from classifier.promotion import LOG, Promotion, Step, promote, read_log, roll_back, was_current

ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the default bundle is current and two others are not."""
    made = variants.make_home(tmp_path)
    for version in ("9.0.0", "9.1.0"):
        variants.make_current(made, variants.versioned(version))
    variants.point(made, "default")
    return made


def named(home: Path, version: str) -> str:
    (found,) = (path.name for path in (home / "bundles").iterdir() if path.name.startswith(version))
    return found


def compared(folder: Path) -> Compared:
    found, head = identify(folder), read_manifest(folder)[0].head
    return Compared(
        name=found.name,
        version=found.version,
        manifest_sha256=found.manifest_sha256,
        thresholds=head.thresholds,
        training_revision=head.training_revision,
        corpus_sha256=head.corpus_sha256,
    )


def report_of(home: Path, candidate: str, current: str, *, lost: float = 0.0) -> Path:
    """A report on two bundles, in which the candidate loses so much recall."""
    same = Estimate(value=0.0, low=0.0, high=0.0)
    recall = Estimate(value=-lost, low=-lost, high=-lost)
    figures = {
        comparison.RECALL: Paired(candidate=same, current=same, difference=recall),
        comparison.CAUGHT: Paired(candidate=same, current=same, difference=same),
        comparison.ALARMS: Paired(candidate=same, current=same, difference=same),
    }
    decisions = Decisions(both=1, candidate_only=0, current_only=0, neither=1, p_value=1.0)
    measured = Measured.model_validate(
        {
            "frozen": {
                "file": "frozen.jsonl",
                "sha256": "0" * 64,
                "rows": 400,
                "trained_on": 0,
                "positives": 50,
                "negatives": 350,
                "ordinary": 350,
                "templates": 400,
            },
            "candidate": compared(home / "bundles" / candidate).model_dump(),
            "current": compared(home / "bundles" / current).model_dump(),
            "draws": 10,
            "figures": figures,
            "positives": decisions,
            "negatives": decisions,
            "ordinary": {"budget": 0.01, "rows": 350, "candidate": 0, "current": 0},
            "lost": (),
        }
    )
    verdict, grounds = comparison.judge(measured)
    report = Comparison(
        schema_version=1,
        made=datetime.now(UTC),
        software="test",
        measured=measured,
        rule=comparison.RULE,
        verdict=verdict,
        grounds=grounds,
    )
    path = home / f"{candidate}-{current}.json"
    path.write_bytes(dump_report(report))
    return path


def promoted(home: Path, name: str, **given: Any) -> Promotion:
    """Promote by a fitting report."""
    bundles = home / "bundles"
    report = report_of(home, name, current_name(bundles), **given)
    return promote(bundles, name, report, actor="ada", reason="it is better", threads=2)


def current(home: Path) -> str:
    return current_name(home / "bundles")


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


# Roll-back.


def test_roll_back_goes_back_step_by_step_and_promotion_goes_on_from_there(home: Path, quick: None) -> None:
    first, second = named(home, "9.0.0"), named(home, "9.1.0")
    promoted(home, first)
    promoted(home, second)
    assert roll_back(home / "bundles", actor="bob").to_name == first == current(home)
    promoted(home, second)
    assert roll_back(home / "bundles", actor="bob").to_name == first == current(home)
    entry = roll_back(home / "bundles", actor="bob", reason="still bad")
    assert (entry.step, entry.actor, entry.reason, entry.report) == (Step.ROLL_BACK, "bob", "still bad", None)
    assert entry.to_name == "default" == current(home)
    with pytest.raises(PromotionRefused, match="tells of no bundle before"):
        roll_back(home / "bundles", actor="bob")
    log = read_log(home / "bundles")
    assert [one.step.value for one in log] == ["promote", "promote", "rollback", "promote", "rollback", "rollback"]
    assert all(one.from_sha256 == before.to_sha256 for before, one in itertools.pairwise(log))


def test_without_a_promotion_there_is_nothing_to_go_back_to(home: Path) -> None:
    with pytest.raises(PromotionRefused, match="promote one by its report"):
        roll_back(home / "bundles", actor="bob")


def test_a_damaged_or_changed_bundle_is_not_gone_back_to(home: Path, quick: None) -> None:
    first, second = named(home, "9.0.0"), named(home, "9.1.0")
    promoted(home, first)
    promoted(home, second)
    folder = home / "bundles" / first
    head = (folder / "head.onnx").read_bytes()
    (folder / "head.onnx").write_bytes(b"something else")
    with pytest.raises(BundleRejected, match=r"head\.onnx has SHA-256"):
        roll_back(home / "bundles", actor="bob")
    (folder / "head.onnx").write_bytes(head)
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"9.0.0"', b'"9.0.1"'))
    with pytest.raises(PromotionRefused, match="is another bundle than the one that was current"):
        roll_back(home / "bundles", actor="bob")
    assert current(home) == second


def test_a_bundle_that_something_else_made_current_is_noted_and_can_be_gone_back_to(home: Path, quick: None) -> None:
    first, second = named(home, "9.0.0"), named(home, "9.1.0")
    promoted(home, first)
    variants.point(home, second)  # as a calibration does
    promoted(home, "default")
    assert [one.step for one in read_log(home / "bundles")] == [Step.PROMOTE, Step.FOUND, Step.PROMOTE]
    back = [roll_back(home / "bundles", actor="bob").to_name for _ in range(3)]
    assert back == [second, first, "default"]


# Crashes.


@pytest.mark.parametrize("moment", ["after the log", "before the log"])
def test_a_crash_between_log_and_pointer_leaves_a_right_way_back(
    home: Path, quick: None, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    first, second = named(home, "9.0.0"), named(home, "9.1.0")
    promoted(home, first)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "point" if moment == "after the log" else "append_line", killed)
        with pytest.raises(KeyboardInterrupt):
            promoted(home, second)
    assert current(home) == first
    assert roll_back(home / "bundles", actor="bob").to_name == "default"
    promoted(home, second)
    assert roll_back(home / "bundles", actor="bob").to_name == "default"


def test_a_crash_in_a_roll_back_leaves_it_to_be_done_again(
    home: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(home, named(home, "9.0.0"))

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "point", killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(home / "bundles", actor="bob")
    assert current(home) == named(home, "9.0.0")
    assert roll_back(home / "bundles", actor="bob").to_name == "default" == current(home)


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_half_an_entry_at_the_logs_end_is_dropped(home: Path, quick: None, cut: int) -> None:
    promoted(home, named(home, "9.0.0"))
    log = home / "bundles" / LOG
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:-cut])
    assert len(read_log(home / "bundles")) == 1
    promoted(home, named(home, "9.1.0"))
    assert [one.to_name[:5] for one in read_log(home / "bundles")] == ["9.0.0", "9.1.0"]
    assert log.read_bytes().startswith(whole)


def test_a_damaged_entry_is_named_by_its_line(home: Path, quick: None) -> None:
    promoted(home, named(home, "9.0.0"))
    log = home / "bundles" / LOG
    log.write_bytes(log.read_bytes() + b'{"step": "promote"}\n')
    with pytest.raises(PromotionRefused, match=rf"{LOG}, line 2 is damaged"):
        roll_back(home / "bundles", actor="bob")
    assert current(home) == named(home, "9.0.0")


def test_an_appended_line_is_synced_before_the_pointer_moves(
    home: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)

    def pointed(bundles: Path, name: str) -> None:
        happened.append("pointer")
        point(bundles, name)

    monkeypatch.setattr(promotion, "point", pointed)
    promoted(home, named(home, "9.0.0"))
    assert happened == [LOG, "bundles", "pointer", "bundles"]


def test_lines_are_appended_after_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for held, expected in ((b"", b"new\n"), (b"old\n", b"old\nnew\n"), (b"old\nha", b"old\nnew\n"), (b"ha", b"new\n")):
        path.write_bytes(held)
        append_line(path, b"new")
        assert path.read_bytes() == expected


def test_the_way_to_the_current_bundle_leaves_out_what_was_undone() -> None:
    def entry(step: Step, before: str, after: str) -> Promotion:
        digests = {"from_sha256": before * 64, "to_sha256": after * 64}
        return Promotion(step=step, at=datetime.now(UTC), actor="", from_name=before, to_name=after, **digests)

    entries = [entry(Step.PROMOTE, "a", "b"), entry(Step.PROMOTE, "b", "c"), entry(Step.ROLL_BACK, "c", "b")]
    entries += [entry(Step.FOUND, "b", "d"), entry(Step.FOUND, "d", "b"), entry(Step.PROMOTE, "b", "e")]
    assert [name for name, _ in was_current(entries)] == ["a", "b", "e"]
    assert was_current([]) == []


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
        status = client.get_status()
        assert (status.reloads, status.refused_reloads) == (2, 0)


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
