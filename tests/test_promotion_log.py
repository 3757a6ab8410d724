"""The log of promotions: the ways back that it tells, and what it holds after any crash."""

import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import variants
from promoting import current, home_of_three, named, promoted

from classifier import promotion
from classifier.bundle import point
from classifier.durable import append_line
from classifier.errors import BundleRejected, PromotionRefused
from classifier.promotion import LOG, Promotion, Step, read_log, roll_back, was_current


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which the default bundle is current and two others are not."""
    return home_of_three(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are not tried out: a test of the log need not wait for it."""
    monkeypatch.setattr(promotion, "_try_out", lambda *given: None)


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
