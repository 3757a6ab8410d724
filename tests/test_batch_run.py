"""Re-scoring runs: what they write of each row, which rows they choose, and counts that add up."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from killing import command, rows_of, write_log
from runs import PROMPTS, home_of, log, score

from classifier.batch.manifest import read_manifest
from classifier.batch.parts import load, load_rejects
from classifier.batch.run import Progress
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection, parse_conditions
from classifier.runtime import Runtime


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


def test_every_row_of_the_input_is_scored_skipped_or_rejected_and_the_manifest_adds_them_up(
    scoring: Scoring, tmp_path: Path
) -> None:
    path = write_log(tmp_path / "log.jsonl", 200)
    lines = sum(1 for line in path.read_text().split("\n") if line)
    found = score(scoring, path, tmp_path / "out", rows_per_part=150, selection=Selection(sample=0.5))
    counts = found.counts
    assert found.state == "done"
    assert counts.read == counts.scored + counts.skipped + counts.rejected == lines
    assert min(counts.scored, counts.skipped, counts.rejected, counts.repeats) > 0
    assert sum(counts.decisions.values()) == counts.scored
    assert set(counts.rejects) == {"broken_json", "empty_prompt"}
    rows, rejects = rows_of(tmp_path / "out")
    assert (len(rows), len(rejects)) == (counts.scored, counts.rejected)
    assert found.inputs[0].rows == lines
    assert read_manifest(tmp_path / "out") == found


def test_a_row_keeps_its_identity_and_what_the_scorer_says_of_it(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    row = {"prompt": PROMPTS[1], "account": "acct", "request_id": "r1", "time": "2026-01-05T00:00:01.5Z"}
    path.write_text(json.dumps(row) + "\n")
    score(scoring, path, tmp_path / "out")
    (found,) = load(tmp_path / "out").to_table().to_pylist()
    (outcome,) = scoring.score([PROMPTS[1]])
    assert (found["account"], found["request_id"], found["row"], found["offset"]) == ("acct", "r1", 0, 0)
    assert found["time"].isoformat() == "2026-01-05T00:00:01.500000+00:00"
    assert (found["extraction_logit"], found["decision"]) == (outcome.logit, outcome.decision)
    assert found["nearest_ids"] == [name for name, _, _ in outcome.nearest]
    assert found["inspected"]["span_end"] == len(PROMPTS[1])
    assert found["bundle_version"] == scoring.model.version
    assert "prompt" not in found
    assert "embedding" not in found


def test_a_time_that_no_calendar_has_is_none_and_the_row_is_kept(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    times = [
        -99_999_999_999_999,
        1e300,
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        2**63,
    ]
    path.write_text("".join(json.dumps({"prompt": "Hi there", "time": time}) + "\n" for time in times))
    found = score(scoring, path, tmp_path / "out", rows_per_part=50)
    assert found.counts.scored + found.counts.rejected == len(times)
    years = {row["row"]: row["time"] and row["time"].year for row in load(tmp_path / "out").to_table().to_pylist()}
    assert (years[0], years[2], years[3]) == (None, 9999, 1)


def test_a_files_name_that_is_not_utf_8_is_resumed_as_any(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / os.fsdecode(b"b\xffd $(x);'.jsonl"), *PROMPTS)
    assert score(scoring, path, tmp_path / "out", limit=3).state == "limited"
    assert score(scoring, path, tmp_path / "out").counts.read == 4
    assert score(scoring, path, tmp_path / "out").sessions[-1].read == 0


def test_prompts_and_embeddings_are_written_when_they_are_asked_for(runtime: Runtime, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    for kind, tolerance in (("float32", 1e-6), ("float16", 1e-3)):
        score(Scoring(runtime, embeddings=True), path, tmp_path / kind, embeddings=kind, include_prompt=True)
        table = load(tmp_path / kind).to_table()
        assert table["prompt"].to_pylist() == PROMPTS
        for row, wanted in zip(table["embedding"].to_pylist(), runtime.scorer.embed(PROMPTS), strict=True):
            assert row == pytest.approx(wanted.tolist(), abs=tolerance)


def test_no_prompt_text_is_in_the_output_unless_it_is_asked_for(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", "zyzzyva zyzzyva", *PROMPTS, 17, ["zyzzyva"])
    score(scoring, path, tmp_path / "out")
    assert load_rejects(tmp_path / "out").count_rows() > 0
    said = [json.dumps(load(tmp_path / "out").to_table().to_pylist(), default=str)]
    said += [
        json.dumps(load_rejects(tmp_path / "out").to_table().to_pylist()),
        (tmp_path / "out" / "run.json").read_text(),
    ]
    assert not any("zyzzyva" in text for text in said)


def test_a_sample_takes_the_same_rows_however_the_run_is_cut(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *(f"Question {number}?" for number in range(60)))
    taken = []
    for name, rows, seed in (("a", 7, 1), ("b", 50, 1), ("c", 7, 2)):
        score(scoring, path, tmp_path / name, rows_per_part=rows, selection=Selection(0.3, seed))
        taken.append(load(tmp_path / name).to_table()["row"].to_pylist())
    assert taken[0] == taken[1] != taken[2]
    assert 5 < len(taken[0]) < 35


def test_conditions_choose_rows_by_account_and_time(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"prompt": "Hi there", "account": f"a{n % 2}", "time": f"2026-01-0{n + 1}T00:00:00Z"} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "Hi there", "account": "a0"}]))
    conditions = parse_conditions(["account = a0", "time>=2026-01-02", "time < 2026-01-05T00:00:01"])
    found = score(scoring, path, tmp_path / "out", selection=Selection(conditions=conditions))
    assert load(tmp_path / "out").to_table()["row"].to_pylist() == [2, 4]
    assert found.counts.skipped == 5


def test_an_input_that_is_added_is_scored_beside_what_is_there(scoring: Scoring, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log(logs / "b.jsonl", *PROMPTS)
    score(scoring, logs, tmp_path / "out")
    log(logs / "a.jsonl", *PROMPTS[:2])
    found = score(scoring, logs, tmp_path / "out")
    assert (found.state, found.counts.read, found.sessions[-1].read) == ("done", 6, 2)


def test_a_folder_of_logs_may_hold_the_output_and_the_run_goes_on(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log(logs / "log.jsonl", *PROMPTS)
    arguments, environment = command([logs], logs / "scores-of-it", 3), home_of(tmp_path)
    for read in (3, 1, 0):
        options = ["--limit", "3"] if read == 3 else []
        done = subprocess.run([*arguments, *options], env=environment, check=True, capture_output=True)
        found = json.loads(done.stdout)
        assert (found["sessions"][-1]["read"], len(found["inputs"])) == (read, 1)


def test_how_far_a_run_is_takes_no_memory_of_a_log_that_expands_without_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(zstandard.compress(bytes(2**30)))
    code = "import re, sys; from classifier.batch.extent import Extents; from classifier.batch.inputs import find\n"
    code += "from classifier.batch.reading import Position; import fsspec, zstandard; (log,) = find(sys.argv[1:])\n"
    code += "most = lambda: int(re.search('VmHWM: *\\t* *([0-9]+)', open('/proc/self/status').read()).group(1))\n"
    code += "before = most(); share = Extents([log]).done(log, Position(1, 2**29))\n"
    code += "print(share, most() - before)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    share, grown = map(float, done.stdout.split())
    assert share == pytest.approx(0.5, abs=0.2)
    assert grown < 100_000  # KiB; 1 GiB would be expanded of such a head


def test_rejected_rows_do_not_wait_in_memory_for_the_end_of_their_part(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("{\n" * 40_000)
    reads = [0]
    score(scoring, path, tmp_path / "out", rows_per_part=100_000, progress=lambda done: reads.append(done.read))
    assert reads[-1] == 40_000
    assert max(after - before for before, after in pairwise(reads)) < 20_000


def test_the_manifest_of_many_inputs_is_not_written_for_each(scoring: Scoring, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(400):
        log(logs / f"{number:03}.jsonl", PROMPTS[0])
    seen = set()

    def look(done: Progress) -> None:
        assert done.read
        seen.add((tmp_path / "out" / "run.json").stat().st_mtime_ns)

    found = score(scoring, logs, tmp_path / "out", progress=look)
    assert (found.state, found.counts.read, len(found.inputs)) == ("done", 400, 400)
    assert read_manifest(tmp_path / "out") == found
    assert len(seen) < 200


def test_scored_rows_without_a_time_that_can_be_read_are_counted(scoring: Scoring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    times = ["2026-01-05T00:00:01Z", "yesterday", None, 10**30, 1_767_571_200]
    path.write_text("".join(json.dumps({"prompt": "Hi there", "time": time}) + "\n" for time in times))
    found = score(scoring, path, tmp_path / "out")
    assert (found.counts.scored, found.counts.untimed) == (5, 3)
    assert load(tmp_path / "out").to_table()["time"].null_count == 3
