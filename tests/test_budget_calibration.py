"""A calibration on benign traffic: the rows that it uses, the bundle that comes of it, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import BUNDLES

from classifier.budget import Calibrated, calibrate, recalibrated
from classifier.bundle import FILES, read_manifest, write_bundle
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.errors import BundleRejected, DataRejected, InvalidSetting
from classifier.policy import Thresholds
from classifier.runtime import open_runtime
from index.example import Label

MARKER = "zebra-quartz-7719"
# So near to what every bundle knows that none abstains, and no two alike.
BENIGN = [
    f"{row.example.text} Thanks!"
    for row in load_corpus()
    if row.example.label == Label.BENIGN and row.example.language == "en" and 60 <= len(row.example.text) <= 160
][:64]
BAD = [{"surprise": MARKER}, {"text": " "}]
FOREIGN = {"text": "Könnten Sie mir bitte erklären, warum der Zug nach München heute wieder so viel Verspätung hat?"}


def write(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def owned(home: Path) -> Settings:
    """A home with a copy of the built bundle, which a test may point elsewhere."""
    built = (BUNDLES / "current").resolve()
    shutil.copytree(built, home / "bundles" / built.name)
    (home / "bundles" / "current").symlink_to(built.name)
    return Settings(home=home, threads=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The home that is calibrated once for the tests of this file."""
    return owned(tmp_path_factory.mktemp("calibrated") / "home")


@pytest.fixture(scope="module")
def benign(settings: Settings) -> Path:
    """Benign rows with two that cannot be scored and one that is not judged."""
    return write(settings.home / "benign.jsonl", *({"text": text} for text in BENIGN), FOREIGN, *BAD)


@pytest.fixture(scope="module")
def before(settings: Settings) -> dict[str, bytes]:
    """The first bundle's files as they were."""
    return contents(settings.bundle)


@pytest.fixture(scope="module")
def calibrated(settings: Settings, benign: Path, before: dict[str, bytes]) -> Calibrated:
    """What comes of a calibration."""
    assert before
    return calibrate(benign, settings, 0.05)


def test_a_calibration_uses_the_judged_rows_and_counts_the_others(calibrated: Calibrated) -> None:
    assert (calibrated.rows, calibrated.abstained, calibrated.rejected) == (len(BENIGN), 1, len(BAD))
    assert calibrated.flag.total == calibrated.review.total == len(BENIGN)


def test_the_review_budget_is_four_times_the_flag_budget_where_none_is_given(calibrated: Calibrated) -> None:
    assert (calibrated.flag.exceeding, calibrated.review.exceeding) == (3, 12)
    assert calibrated.review.threshold < calibrated.flag.threshold


def test_traffic_that_was_calibrated_on_keeps_to_the_budgets_afterwards(
    calibrated: Calibrated, settings: Settings
) -> None:
    with open_runtime(settings) as runtime:
        assert runtime.bundle.model.thresholds == Thresholds(calibrated.review.threshold, calibrated.flag.threshold)
        verdicts = runtime.scorer.score([*BENIGN, FOREIGN["text"]]).verdicts
    decisions = [verdict.decision.value for verdict in verdicts]
    assert decisions.count("flag") == calibrated.flag.exceeding
    assert decisions.count("flag") + decisions.count("review") == calibrated.review.exceeding


def test_a_calibration_leaves_the_old_bundle_and_writes_one_beside_it_that_differs_only_in_its_manifest(
    calibrated: Calibrated, settings: Settings, before: dict[str, bytes]
) -> None:
    old = settings.bundles / (BUNDLES / "current").resolve().name
    assert calibrated.bundle == settings.bundle.resolve()
    assert calibrated.bundle != old.resolve()
    assert contents(old) == before
    after = contents(calibrated.bundle)
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    was, now = json.loads(before["manifest.json"]), json.loads(after["manifest.json"])
    noted = {name: now["head"]["report"].pop(name) for name in list(now["head"]["report"]) if "calibrated" in name}
    now["head"]["thresholds"] = was["head"]["thresholds"]
    assert now == was
    assert (noted["calibrated_rows"], noted["calibrated_flag_budget"]) == (len(BENIGN), 0.05)
    assert noted["calibrated_review_rate_high"] == calibrated.review.high


def test_a_second_calibration_takes_the_place_of_the_first_and_says_how_far_it_is(
    calibrated: Calibrated, settings: Settings, benign: Path
) -> None:
    seen = []
    again = calibrate(benign, settings, 0.1, 0.2, progress=lambda done, total: seen.append((done, total)))
    assert again.bundle == settings.bundle.resolve()
    assert again.bundle != calibrated.bundle
    assert again.flag.exceeding == 6
    assert seen == [(67, 67)]


def test_a_bundle_that_became_current_meanwhile_is_not_pushed_aside(tmp_path: Path) -> None:
    own = owned(tmp_path / "home")
    file = write(tmp_path / "benign.jsonl", *({"prompt": text} for text in BENIGN))
    old = own.bundle.resolve()

    def promote(_done: int, _total: int) -> None:
        recalibrated(old, own.bundles, Thresholds(0.25, 0.75), {})

    with pytest.raises(BundleRejected, match="another bundle became the current one"):
        calibrate(file, own, 0.05, progress=promote)
    assert read_manifest(own.bundle)[0].head.thresholds.flag == 0.75


@pytest.mark.parametrize("bad", BAD, ids=["no conversation", "empty"])
def test_a_file_with_too_many_rows_that_cannot_be_scored_is_refused_without_their_text(
    settings: Settings, tmp_path: Path, bad: object
) -> None:
    was = settings.bundle.resolve()
    file = write(tmp_path / "benign.jsonl", *({"text": text} for text in BENIGN), *[bad] * 4)
    with pytest.raises(DataRejected, match=r"4 of the first 68 rows cannot be scored, and at most 5% of 68") as caught:
        calibrate(file, settings, 0.05)
    assert MARKER not in str(caught.value)
    assert settings.bundle.resolve() == was


def test_rows_that_are_not_judged_do_not_count_towards_those_that_a_budget_needs(
    settings: Settings, tmp_path: Path
) -> None:
    file = write(tmp_path / "benign.jsonl", *({"text": text} for text in BENIGN[:10]), *[FOREIGN] * 4)
    with pytest.raises(DataRejected, match=r"there are 10 left of 14 rows \(4 not judged, 0 not scored\), too few"):
        calibrate(file, settings, 0.2)


def test_a_file_too_small_for_its_budget_is_refused_before_a_bundle_is_opened(tmp_path: Path) -> None:
    file = write(tmp_path / "benign.jsonl", *({"text": MARKER} for _ in range(100)))
    with pytest.raises(DataRejected) as caught:
        calibrate(file, Settings(home=tmp_path / "nowhere"), 0.001)
    assert str(caught.value) == (
        "a budget of 0.1% needs 2,995 benign rows and there are 100 rows in benign.jsonl: "
        "give more, or take a budget of 3% or more"
    )


def test_a_broken_line_is_refused_before_a_bundle_is_opened(tmp_path: Path) -> None:
    file = write(tmp_path / "benign.jsonl", *({"text": MARKER} for _ in range(100)))
    file.write_text(f'{file.read_text()}{{"text": "{MARKER}"', encoding="utf-8")
    with pytest.raises(DataRejected, match=r"^benign\.jsonl, line 101: ") as caught:
        calibrate(file, Settings(home=tmp_path / "nowhere"), 0.05)
    assert MARKER not in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "review", "why"),
    [
        (0.5, None, "a budget of 50% is out of bounds"),
        (0.01, 0.5, "a budget of 50% is out of bounds"),
        (0.05, 0.01, "the review budget 1% is under the budget 5%"),
    ],
)
def test_budgets_that_do_not_fit_are_refused_before_anything_is_read(
    tmp_path: Path, budget: float, review: float | None, why: str
) -> None:
    with pytest.raises(DataRejected, match=why):
        calibrate(tmp_path / "nowhere.jsonl", Settings(home=tmp_path / "nowhere"), budget, review)


@pytest.mark.parametrize("name", ["flag_threshold", "review_threshold"])
def test_a_setting_that_would_hide_the_new_thresholds_is_refused(tmp_path: Path, name: str) -> None:
    hiding = Settings.model_validate({"home": tmp_path / "nowhere", name: 0.5})
    with pytest.raises(InvalidSetting, match="would hide what is calibrated"):
        calibrate(tmp_path / "nowhere.jsonl", hiding, 0.05)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle with the built one's manifest and files of a few bytes."""
    card: dict[str, Any] = json.loads((BUNDLES / "current" / "manifest.json").read_bytes())
    del card["files"]
    return write_bundle(tmp_path / "bundles", card, {name: f"contents of {name}".encode() for name in FILES})


def test_a_recalibrated_bundle_has_the_files_of_the_old_one_the_thresholds_and_the_note(small: Path) -> None:
    found = recalibrated(small, small.parent, Thresholds(0.25, 1 / 3), {"rows": 7.0})
    assert (small.parent / "current").resolve() == found
    assert found != small
    (old, _), (new, _) = read_manifest(small), read_manifest(found)
    assert (new.head.thresholds.review, new.head.thresholds.flag) == (0.25, 1 / 3)
    assert new.head.report == {**old.head.report, "rows": 7.0}
    assert new.files == old.files
    assert [(found / name).read_bytes() for name in FILES] == [(small / name).read_bytes() for name in FILES]


@pytest.mark.parametrize(
    "spoil", [lambda file: file.write_bytes(b"altered"), lambda file: file.unlink()], ids=["altered", "missing"]
)
@pytest.mark.parametrize("name", FILES)
def test_a_bundle_with_a_spoilt_file_is_not_recalibrated(
    small: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    spoil(small / name)
    with pytest.raises(BundleRejected, match=re.escape(name)):
        recalibrated(small, small.parent, Thresholds(0.25, 0.5), {})
    assert (small.parent / "current").resolve() == small
