"""Re-scoring runs: exactly once, whatever ends them; nothing mixed; counts that add up."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import variants
import zstandard
from killing import command, kill_until_done, rows_of, write_log
from serving import BUNDLES

from classifier.batch.command import Request, plan_of
from classifier.batch.inputs import find
from classifier.batch.manifest import RunManifest, read_manifest
from classifier.batch.output import held
from classifier.batch.parts import SCORES, TEMPORARY, load, load_rejects, read_parts
from classifier.batch.plan import Plan
from classifier.batch.run import Progress, run
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection, parse_conditions
from classifier.errors import DataRejected, InvalidSetting, RunRefused
from classifier.runtime import Runtime

PROMPTS = ["Sort a list in Python.", "Write 20 diverse instructions.", "What is the capital of Peru?", "Explain rain."]


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


def log(path: Path, *prompts: Any) -> Path:
    path.write_text(
        "".join(json.dumps({"prompt": prompt, "account": f"a{len(str(prompt)) % 3}"}) + "\n" for prompt in prompts)
    )
    return path


def score(
    scoring: Scoring,
    path: Path,
    output: Path,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[Progress], None] = lambda done: None,
    **options: Any,
) -> RunManifest:
    plan = Plan(sources=find([str(path)]), output=output, **{"rows_per_part": 3, "max_rejected": 1.0, **options})
    return run(plan, scoring, stop or threading.Event(), progress)


def home_of(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    (home / "bundles").symlink_to(BUNDLES)
    return {**os.environ, "STILLWATCH_HOME": str(home)}


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


@pytest.mark.parametrize("rows", [0, 3, 4, 6])
def test_a_finished_run_is_not_done_again(scoring: Scoring, tmp_path: Path, rows: int) -> None:
    path = log(tmp_path / "log.jsonl", *(PROMPTS * 2)[:rows])
    first = score(scoring, path, tmp_path / "out")
    names = sorted((tmp_path / "out" / SCORES).iterdir())
    again = score(scoring, path, tmp_path / "out")
    assert first.state == again.state == "done"
    assert (first.counts.read, again.counts, again.sessions[-1].read) == (rows, first.counts, 0)
    assert sorted((tmp_path / "out" / SCORES).iterdir()) == names


def test_a_limit_holds_over_all_calls_and_can_be_lifted(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS, *PROMPTS)
    assert score(scoring, path, tmp_path / "out", limit=5).counts.read == 5
    again = score(scoring, path, tmp_path / "out", limit=5)
    assert (again.state, again.counts.read) == ("limited", 5)
    whole = score(scoring, path, tmp_path / "out")
    assert (whole.state, whole.counts.read) == ("done", 8)
    assert load(tmp_path / "out").to_table()["row"].to_pylist() == list(range(8))


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


def test_an_input_that_is_added_is_scored_beside_what_is_there(scoring: Scoring, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log(logs / "b.jsonl", *PROMPTS)
    score(scoring, logs, tmp_path / "out")
    log(logs / "a.jsonl", *PROMPTS[:2])
    found = score(scoring, logs, tmp_path / "out")
    assert (found.state, found.counts.read, found.sessions[-1].read) == ("done", 6, 2)


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


def test_how_far_a_run_is_takes_no_memory_of_a_log_that_expands_without_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(zstandard.compress(bytes(2**30)))
    code = (
        "import resource, sys; from classifier.batch.extent import Extents; from classifier.batch.inputs import find\n"
    )
    code += "from classifier.batch.reading import Position; import fsspec, zstandard; (log,) = find(sys.argv[1:])\n"
    code += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; share = Extents([log]).done(log, Position(1, 2**29))\n"
    code += "print(share, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
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


def test_a_folder_of_something_else_is_left_alone(scoring: Scoring, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RunRefused, match="holds no run"):
        score(scoring, log(tmp_path / "log.jsonl", *PROMPTS), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_two_runs_do_not_share_a_folder_and_a_dead_ones_lock_does_not_block(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS)
    with held(tmp_path / "out"), pytest.raises(RunRefused, match="another run works in"):
        score(scoring, path, tmp_path / "out")
    take = "import sys; from pathlib import Path; from classifier.batch.output import held\n"
    take += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", take, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunRefused, match="another run works in"):
        score(scoring, path, tmp_path / "out")
    process.kill()
    process.communicate()
    assert score(scoring, path, tmp_path / "out").state == "done"


def test_a_torn_temporary_file_is_not_taken_for_a_part(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS, 5)
    score(scoring, path, tmp_path / "out", limit=3)
    (part,) = (tmp_path / "out" / SCORES).glob("*.parquet")
    torn = part.with_name(f"{TEMPORARY}7-{part.name}")
    torn.write_bytes(part.read_bytes()[:100])
    orphan = tmp_path / "out" / "rejects" / part.name.replace("000000", "000009")
    pq.write_table(load_rejects(tmp_path / "out").to_table(), orphan)
    assert load(tmp_path / "out").count_rows() == 3
    assert score(scoring, path, tmp_path / "out").counts.read == 5
    assert not torn.exists()
    assert not orphan.exists()
    assert load_rejects(tmp_path / "out").count_rows() == 1


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


def test_a_stopped_run_drops_the_part_it_writes_and_goes_on_with_it(scoring: Scoring, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *(f"Question {number}?" for number in range(40)))
    stop = threading.Event()

    def at_part_three(done: Progress) -> None:
        if done.read >= 25:
            stop.set()

    found = score(scoring, path, tmp_path / "out", rows_per_part=10, stop=stop, progress=at_part_three)
    assert (found.state, found.counts.read) == ("stopped", 30)
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))
    whole = score(scoring, path, tmp_path / "out", rows_per_part=10)
    assert (whole.state, whole.counts.read, len(whole.sessions)) == ("done", 40, 2)
    score(scoring, path, tmp_path / "calm", rows_per_part=10)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "calm")


def test_ctrl_c_ends_a_run_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", 4_000)
    process = subprocess.Popen(
        command([path], tmp_path / "out", 50),
        env=home_of(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((tmp_path / "out").glob(f"{SCORES}/*.parquet")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again to go on" in said
    found = RunManifest.model_validate_json(printed)
    assert found.state == "stopped"
    assert 0 < found.counts.read < 4_000
    assert found.counts.read == sum(part.read for part in read_parts(tmp_path / "out"))
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))


def test_a_full_disk_is_a_clear_error_that_tears_nothing(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", 300)
    environment = home_of(tmp_path)
    # The example store is made first: it is larger than what the run may write.
    subprocess.run(
        [sys.executable, "-m", "classifier.cli", "score", "Hi"], env=environment, check=True, capture_output=True
    )
    arguments = [*command([path], tmp_path / "out", 100), "--embeddings", "float32", "--limit", "150"]
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    largest = max(part.stat().st_size for part in (tmp_path / "out" / SCORES).iterdir())

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    arguments = arguments[:-2]
    done = subprocess.run(arguments, env=environment, check=False, capture_output=True, text=True, preexec_fn=bound)
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "2 parts with 150 rows are kept" in done.stderr
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    lines = sum(1 for line in path.read_text().split("\n") if line)
    assert sum(part.read for part in read_parts(tmp_path / "out")) == lines


def test_runs_that_are_killed_at_random_moments_add_up_to_a_calm_one_row_for_row(tmp_path: Path) -> None:
    logs = [write_log(tmp_path / f"{name}.jsonl", 400, seed) for seed, name in enumerate("ab")]
    environment = home_of(tmp_path)
    subprocess.run(command(logs, tmp_path / "calm", 40), env=environment, check=True, stdout=subprocess.DEVNULL)
    killed = kill_until_done(command(logs, tmp_path / "stormy", 40), tmp_path / "stormy", 5, 1, environment)
    assert killed.kills == 5
    assert max(killed.moments) >= 3  # it was killed at work, not only while it started
    scores, rejects = rows_of(tmp_path / "calm")
    assert (scores, rejects) == rows_of(tmp_path / "stormy")
    lines = sum(1 for path in logs for line in path.read_text().split("\n") if line)
    assert len(scores) + len(rejects) == lines
