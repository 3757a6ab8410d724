"""What is said of the bundles of a home: which there are, what they hold, how they differ, and how they measure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import variants
from modelling import run, seeds

from classifier.comparison import read_report
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.errors import BundleRejected
from classifier.export.build import DEFAULT_HEAD
from classifier.manifest import HeadCard
from classifier.models import current_name, diff_models, find_bundle, identify, list_models, show_model
from classifier.promotion import promote
from classifier.train.command import compare_bundles
from classifier.trained import TrainedOn
from index.example import Label


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return variants.make_home(tmp_path)


def test_a_bundle_of_the_seed_corpus_is_the_same_byte_for_byte_as_before_there_were_candidates(home: Path) -> None:
    name = variants.make_current(home)
    assert name == variants.BUILT.resolve().name
    assert (home / "bundles" / name / "manifest.json").read_bytes() == (variants.BUILT / "manifest.json").read_bytes()
    written = (DEFAULT_HEAD / "head.json").read_bytes()
    card = HeadCard.model_validate_json(written).model_dump(mode="json", exclude_none=True)
    assert json.dumps(card, indent=2).encode() + b"\n" == written


# List, show and diff.


def test_a_list_tells_the_current_bundle_the_newest_first_and_what_is_wrong_with_a_damaged_one(home: Path) -> None:
    bundles = home / "bundles"
    name = variants.make_current(home, variants.versioned("9.0.0"), variants.with_thresholds(0.25, 0.5))
    damaged = variants.make_current(home, variants.versioned("9.1.0"))
    (bundles / damaged / "manifest.json").write_bytes(b"{}")
    variants.point(home, name)
    (bundles / ".building-x").mkdir()
    rows = {row.name: row for row in list_models(bundles)}
    assert set(rows) == {"default", name, damaged}
    assert [row.name for row in rows.values() if row.current] == [name]
    assert (rows[name].review, rows[name].flag) == (0.25, 0.5)
    assert rows[name].version.startswith("9.0.0+")
    assert (rows[name].figures or {})["extraction_auroc"] > 0.9
    assert "manifest.json is not valid" in rows[damaged].problem
    assert [row.name for row in list_models(bundles)][-1] == "default"


def test_a_home_without_bundles_has_an_empty_list(tmp_path: Path) -> None:
    assert list_models(tmp_path / "bundles") == []


def test_a_bundle_is_found_by_every_name_it_has(home: Path) -> None:
    bundles = home / "bundles"
    name = variants.make_current(home, variants.versioned("9.0.0"))
    found = identify(bundles / name)
    for given in (name, found.version, found.manifest_sha256[:4], found.manifest_sha256[:12], "current"):
        assert find_bundle(bundles, given) == bundles / name
    assert find_bundle(bundles, f"{bundles}/{name}") == bundles / name
    for given in ("9.0.0", found.manifest_sha256[:3], "nothing", ""):
        with pytest.raises(BundleRejected, match="stillwatch models list"):
            find_bundle(bundles, given)


def test_a_name_that_leads_out_of_the_folder_is_no_bundle(home: Path) -> None:
    with pytest.raises(BundleRejected, match="there is no such bundle"):
        find_bundle(home / "bundles", "..")


def test_a_bundle_does_not_differ_from_itself(home: Path) -> None:
    found = diff_models(home / "bundles", "default", "current")
    assert found.added == found.removed == found.relabelled == ()
    assert (found.files, found.figures) == ((), {})


def test_show_tells_what_the_manifest_holds(home: Path) -> None:
    row, manifest = show_model(home / "bundles", "current")
    assert row.current
    assert row.training_revision is None
    assert row.corpus_size == manifest.head.corpus_size


def test_what_a_row_says_of_labels_is_compared_as_a_whole() -> None:
    one = TrainedOn("0" * 64, Label.EXTRACTION, "self_chat", ("planning",), "a")
    assert one.same_labels(replace(one, source="b"))
    assert not one.same_labels(replace(one, capabilities=()))
    assert not one.same_labels(replace(one, technique="code_corpus"))


# The command line.


def test_evaluate_compares_two_bundles_and_its_report_promotes(home: Path, tmp_path: Path) -> None:
    name = variants.make_current(home, variants.versioned("9.0.0"))
    variants.point(home, "default")
    corpus = [row.example for row in load_corpus() if row.example.language == "en" and len(row.example.text) < 300]
    positives = [e for e in corpus if e.label == Label.EXTRACTION][:60]
    negatives = [e for e in corpus if e.label == Label.BENIGN][:310]
    frozen = tmp_path / "frozen.jsonl"
    rows = [
        {
            "text": f"Hello there. {e.text}",
            "extraction": e.label == Label.EXTRACTION,
            "capabilities": [],
            "group": "benign",
        }
        for e in (*positives, *negatives)
    ]
    rows.append({"text": positives[0].text, "extraction": 1, "capabilities": []})
    frozen.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "report"
    given = ("--bundle", name, "--against", "current", "--budget", "5%", "--draws", "50", "--output", str(output))
    done = run(home, "evaluate", str(frozen), *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("no worse: ")
    report = read_report(output / "comparison.json")
    assert (report.measured.frozen.rows, report.measured.frozen.trained_on) == (371, 1)
    assert report.measured.candidate.manifest_sha256 == identify(home / "bundles" / name).manifest_sha256
    promote(home / "bundles", name, output / "comparison.json", actor="ada", threads=2)
    assert current_name(home / "bundles") == name


def test_evaluate_measures_a_bundle_that_is_not_current(home: Path, tmp_path: Path) -> None:
    name = variants.make_current(home, variants.versioned("9.0.0"))
    variants.point(home, "default")
    rows = [
        {
            "text": f"Hello there. {row.example.text}",
            "extraction": row.example.label == Label.EXTRACTION,
            "capabilities": [],
        }
        for row in seeds(60)
    ]
    frozen = tmp_path / "frozen.jsonl"
    frozen.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "report"
    done = run(home, "evaluate", str(frozen), "--bundle", name, "--draws", "10", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "evaluation.json").read_bytes())["bundle"].startswith("9.0.0+")
    assert f"--bundle {name}" in (output / "evaluation.md").read_text()


def test_a_bundle_is_not_compared_with_itself(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRejected, match="are the same bundle"):
        compare_bundles(tmp_path / "x", tmp_path, Settings(home=home), "current", "default", budget=0.01)
