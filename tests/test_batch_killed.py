"""Runs that are ended, by a limit, a signal, a full disk or a kill: they go on, and no row is lost or there twice."""

import gzip
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from killing import command, differences, kill_until_done, rows_of, write_log
from runs import PROMPTS, home_of, log, score

from classifier.batch.manifest import RunManifest, read_manifest
from classifier.batch.output import held
from classifier.batch.parts import SCORES, load, load_rejects, read_parts
from classifier.batch.run import Progress
from classifier.batch.scoring import Scoring
from classifier.durable import TEMPORARY
from classifier.errors import RunRefused
from classifier.runtime import Runtime


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


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


END = gzip.compress(bytes(2**26))
"""A member of gzip that stands for 64 MiB of a line."""


def files_of(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.parquet")}


@pytest.mark.parametrize("limits", [[5], [5, 5, 7], [1, 2, 3, 4], [8, 2]])
def test_a_limit_that_is_lifted_leaves_the_very_bytes_of_a_calm_run(
    scoring: Scoring, tmp_path: Path, limits: list[int]
) -> None:
    path = log(tmp_path / "log.jsonl", *PROMPTS[:3], 5, *PROMPTS, "Wie viele Tage hat ein Jahr? " * 9, None)
    for limit in limits:
        found = score(scoring, path, tmp_path / "out", limit=limit, rows_per_part=6)
        assert (found.state, found.counts.read) == ("limited", max(limits[: limits.index(limit) + 1]))
    score(scoring, path, tmp_path / "out", rows_per_part=6)
    score(scoring, path, tmp_path / "calm", rows_per_part=6)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "calm")


@pytest.mark.parametrize("early", [[0, 5, 1], [0, 1], [5, 0, 1]])
def test_a_kill_while_a_longer_part_takes_the_place_of_a_cut_one_loses_and_doubles_nothing(
    scoring: Scoring, tmp_path: Path, early: list[int]
) -> None:
    path = log(tmp_path / "log.jsonl", *(PROMPTS[one] if one < 4 else one for one in early), 7, *PROMPTS)
    score(scoring, path, tmp_path / "out", limit=len(early), rows_per_part=10)
    (cut,) = (tmp_path / "out" / SCORES).glob("*.parquet")
    before = cut.read_bytes()
    score(scoring, path, tmp_path / "calm", rows_per_part=10)
    score(scoring, path, tmp_path / "out", rows_per_part=10)
    cut.write_bytes(before)  # the rejects are renamed first
    again = score(scoring, path, tmp_path / "out", limit=len(early), rows_per_part=10)
    assert (again.state, again.counts.read) == ("limited", len(early))
    cut.write_bytes(before)
    score(scoring, path, tmp_path / "out", rows_per_part=10)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "calm")


def test_a_limit_counts_a_cut_part_once_when_inputs_are_added_before_it(scoring: Scoring, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    log(logs / "b.jsonl", *PROMPTS, *PROMPTS)
    score(scoring, logs, tmp_path / "out", limit=5, rows_per_part=6)
    log(logs / "a.jsonl", *PROMPTS)
    for limit in (7, 10, 11):
        assert score(scoring, logs, tmp_path / "out", limit=limit, rows_per_part=6).counts.read == limit
    score(scoring, logs, tmp_path / "out", rows_per_part=6)
    score(scoring, logs, tmp_path / "calm", rows_per_part=6)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "calm")


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
    assert not differences(tmp_path / "out", tmp_path / "calm")


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
    assert not differences(tmp_path / "stormy", tmp_path / "calm")
    lines = sum(1 for path in logs for line in path.read_text().split("\n") if line)
    assert len(scores) + len(rejects) == lines


def test_a_limit_that_ends_within_a_part_leaves_no_trace_in_the_rows(tmp_path: Path) -> None:
    first, second = write_log(tmp_path / "a.jsonl", 100), write_log(tmp_path / "b.jsonl", 70, 1)
    environment = home_of(tmp_path)

    def run(logs: list[Path], output: str, *options: str) -> None:
        arguments = [*command(logs, tmp_path / output, 40), *options]
        subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL)

    run([first, second], "calm")
    run([second], "out")  # as on several machines, where the parts of all logs are made at once
    run([first, second], "out", "--limit", "120")
    assert [part.read for part in read_parts(tmp_path / "out") if part.cut] == [10]
    run([first, second], "out")
    assert not differences(tmp_path / "out", tmp_path / "calm")


def _unread(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """A process whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(arguments, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    return process


@pytest.mark.parametrize("form", ["json", "table"])
def test_a_reader_that_is_gone_is_no_traceback_and_the_run_is_whole(tmp_path: Path, form: str) -> None:
    arguments = command([log(tmp_path / "log.jsonl", *PROMPTS)], tmp_path / "out", 3)
    process = _unread(arguments if form == "json" else arguments[:-1], home_of(tmp_path))
    _, said = process.communicate(timeout=120)
    assert (said, process.returncode) == ("", 1)
    found = read_manifest(tmp_path / "out")
    assert found is not None
    assert found.state == "done"
    assert (tmp_path / "out" / "report.html").exists()


def test_a_run_that_is_stopped_says_so_also_without_a_reader(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", 4_000)
    process = _unread(command([path], tmp_path / "out", 50), home_of(tmp_path))
    while not list((tmp_path / "out").glob(f"{SCORES}/*.parquet")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.startswith("stopped: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_a_run_stops_within_a_line_that_has_no_end(scoring: Scoring, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    head = b'prompt\nHello\n"' if suffix == "csv" else b'{"prompt": "Hello"}\n{"prompt": "'
    with path.open("wb") as file:
        file.write(head if suffix != "jsonl.gz" else gzip.compress(head))
        file.truncate(10**12 if suffix != "jsonl.gz" else None)
        for _ in range(200 if suffix == "jsonl.gz" else 0):
            file.write(END)
    stop = threading.Event()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    found = score(scoring, path, tmp_path / "out", stop=stop)
    timer.join()
    assert (found.state, found.counts.read) == ("stopped", 0)
