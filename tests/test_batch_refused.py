"""What a run refuses: other kinds of scores, inputs that changed, damaged parts, options and folders that cannot be."""

import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import variants
from killing import command
from runs import PROMPTS, home_of, log, score

from classifier.batch.changed import check_output
from classifier.batch.command import Request, plan_of
from classifier.batch.inputs import find
from classifier.batch.manifest import read_manifest
from classifier.batch.parts import SCORES, read_parts
from classifier.batch.plan import Plan
from classifier.batch.run import Progress, run
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection, parse_conditions
from classifier.errors import DataRejected, InvalidSetting, RunRefused
from classifier.runtime import Runtime


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


@pytest.mark.parametrize("text", ["prompt = x", "time > yesterday", "account < b", "__import__('os')", "account ="])
def test_a_condition_that_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"write it like|only"):
        parse_conditions([text])


def test_another_kind_of_scores_is_never_mixed_in_and_the_message_says_what_differs(
    scoring: Scoring, tmp_path: Path
) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    score(scoring, path, tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.parquet")}
    with pytest.raises(RunRefused, match=r"sample was 1\.0 and is 0\.5; seed was null and is 3"):
        score(scoring, path, tmp_path / "out", selection=Selection(0.5, 3))
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(RunRefused, match="another bundle, other examples or other settings"):
        score(scoring, path, tmp_path / "out", include_prompt=True)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.parquet")} == before


def test_a_new_bundle_needs_a_new_folder(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    environment = {**os.environ, "STILLWATCH_HOME": str(variants.make_home(tmp_path))}
    arguments = command([path], tmp_path / "out", 3)
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    variants.make_current(tmp_path / "home", variants.with_thresholds(0.5, 0.6))
    done = subprocess.run(arguments, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "bundle was" in done.stderr
    assert "flag_threshold was" in done.stderr


def test_an_input_that_changed_or_is_gone_is_refused(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    score(scoring, path, tmp_path / "out", limit=3)
    log(path, *PROMPTS, "One more.")
    with pytest.raises(RunRefused, match="has changed since it was scored"):
        score(scoring, path, tmp_path / "out")
    with pytest.raises(RunRefused, match="which is no input now"):
        score(scoring, log(tmp_path / "other.jsonl", *PROMPTS), tmp_path / "out")


@pytest.mark.parametrize("change", ["grows", "is cut", "is gone"])
def test_an_input_that_changes_during_the_run_is_not_taken_for_what_was_found(
    scoring: Scoring, tmp_path: Path, change: str
) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS * 5_000)

    def meanwhile(done: Progress) -> None:
        if change == "grows":
            with path.open("a") as file:
                file.write('{"prompt": "One more."}\n')
        elif change == "is cut":
            os.truncate(path, 1_000)
        else:
            path.unlink(missing_ok=True)

    with pytest.raises(DataRejected, match="is gone or was changed during the run"):
        score(scoring, path, tmp_path / "out", rows_per_part=100_000, progress=meanwhile)
    found = read_manifest(tmp_path / "out")
    assert found is not None
    assert (found.state, found.counts.read) == ("failed", 0)
    again = score(scoring, log(path, *PROMPTS), tmp_path / "out", rows_per_part=100_000)
    assert (again.state, again.counts.read) == ("done", 4)


def test_an_input_that_changed_before_its_turn_is_not_read(scoring: Scoring, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log(logs / "a.jsonl", *PROMPTS)
    last = log(logs / "b.jsonl", *PROMPTS)
    plan = Plan(sources=find([str(logs)]), output=tmp_path / "out", max_rejected=1.0)
    log(last, *PROMPTS, "One more.")
    with pytest.raises(DataRejected, match=r"b\.jsonl is gone or was changed"):
        run(plan, scoring, threading.Event())
    assert score(scoring, logs, tmp_path / "out", rows_per_part=plan.rows_per_part).counts.read == 9


@pytest.mark.parametrize(
    "options",
    [
        ["--embeddings", "int8"],
        ["--sample", "0"],
        ["--map", "prompt"],
        ["--where", "x"],
        ["--where", "account = \udcff"],
    ],
)
def test_an_option_that_is_not_valid_is_one_line(tmp_path: Path, options: list[str]) -> None:
    arguments = [*command([log(tmp_path / "log.jsonl", *PROMPTS)], tmp_path / "out", 3), *options]
    done = subprocess.run(arguments, env=home_of(tmp_path), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inputs", [[""], ["scores"], ["../log.jsonl", "scores/*.parquet"]])
def test_an_output_that_is_named_as_an_input_is_refused(scoring: Scoring, tmp_path: Path, inputs: list[str]) -> None:
    output = tmp_path / "out"
    score(scoring, log(tmp_path / "log.jsonl", *PROMPTS), output)
    with pytest.raises(InvalidSetting, match="is among the inputs"):
        plan_of(Request(tuple(str(output / one) for one in inputs), output), 1)


def test_an_input_is_not_resumed_in_another_format(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text('{"prompt": "Hi"}\n' * 9)
    plan = Plan(sources=find([str(path)], format="jsonl"), output=tmp_path / "out", limit=2, max_rejected=1.0)
    assert run(plan, scoring, threading.Event()).state == "limited"
    with pytest.raises(RunRefused, match="has another --format"):
        run(replace(plan, sources=find([str(path)], format="csv"), limit=None), scoring, threading.Event())
    assert run(replace(plan, limit=None), scoring, threading.Event()).counts.scored == 9


def test_a_folder_of_something_else_is_left_alone(scoring: Scoring, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RunRefused, match="holds no run"):
        score(scoring, log(tmp_path / "log.jsonl", *PROMPTS), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "renamed", "no rejects"])
def test_a_part_that_was_damaged_later_is_named_and_not_trusted(scoring: Scoring, tmp_path: Path, damage: str) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS[:2], 5)
    score(scoring, path, tmp_path / "out")
    (part,) = (tmp_path / "out" / SCORES).glob("*.parquet")
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-20])
    elif damage == "emptied":
        part.write_bytes(b"")
    elif damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), part)
    elif damage == "renamed":
        part.rename(part.with_name("other.parquet"))
    else:
        (tmp_path / "out" / "rejects" / part.name).unlink()
    with pytest.raises(RunRefused, match="remove"):
        score(scoring, path, tmp_path / "out")


def test_a_missing_part_is_noticed(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS, *PROMPTS, *PROMPTS)
    score(scoring, path, tmp_path / "out")
    sorted((tmp_path / "out" / SCORES).glob("*.parquet"))[1].unlink()
    with pytest.raises(RunRefused, match="does not follow"):
        score(scoring, path, tmp_path / "out")


def test_too_many_rejects_end_the_run_after_the_part_and_a_higher_bound_lets_it_go_on(
    scoring: Scoring, tmp_path: Path
) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS[:2], *range(60), *PROMPTS[2:])
    for _ in range(2):  # asking again does not creep forward
        with pytest.raises(RunRefused, match=r"52 of 54 rows .*wrong_type 52.*--max-rejected .*18 parts with 54 rows"):
            score(scoring, path, tmp_path / "out", max_rejected=0.05)
        assert sum(part.read for part in read_parts(tmp_path / "out")) == 54
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.state == "failed"
    assert score(scoring, path, tmp_path / "out").counts.read == 64


@pytest.mark.parametrize("output", ["s3://bucket/scores", "gs://bucket", "file:///tmp/scores"])
def test_a_url_is_no_output_and_makes_no_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    with pytest.raises(InvalidSetting, match="is a URL: name a local folder"):
        plan_of(Request((str(path),), Path(output)), 1)
    with pytest.raises(InvalidSetting, match="is a URL: name a local folder"):
        check_output(Path(output) / "changed.parquet", cast("Any", ()))
    assert [found.name for found in tmp_path.iterdir()] == ["log.jsonl"]
    assert plan_of(Request((str(path),), Path("day:1/scores")), 1).output == Path("day:1/scores")
