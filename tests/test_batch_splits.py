"""Parts written apart from each other, in any order, are those of a run on one machine; without Ray."""

import gzip
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killing import differences, write_log
from serving import BUNDLES

from classifier.batch.ahead import ATTEMPTS, left_ahead, new_attempt, take_over, written
from classifier.batch.command import Request, plan_of, settings_of_run
from classifier.batch.inputs import find
from classifier.batch.output import AHEAD, held
from classifier.batch.parts import SCORES, Part, read_parts
from classifier.batch.plan import Plan
from classifier.batch.reading import Limits, Position
from classifier.batch.run import run
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection
from classifier.batch.splits import Cutter, Split
from classifier.batch.worker import Job, Worker, job_of
from classifier.config import Settings
from classifier.errors import BundleRejected, DataRejected, InvalidSetting, RunRefused
from classifier.runtime import Runtime, open_runtime

ROWS_PER_PART = 40


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """As the command opens it."""
    home = tmp_path_factory.mktemp("runtime")
    (home / "bundles").symlink_to(BUNDLES)
    with open_runtime(settings_of_run(Settings(home=home))) as opened:
        yield opened


@pytest.fixture(scope="module")
def scoring(runtime: Runtime) -> Scoring:
    return Scoring(runtime)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A plain log, a compressed one, one whose lines hold many requests, and an empty one."""
    folder = tmp_path_factory.mktemp("logs")
    plain = write_log(folder / "a.jsonl", 130)
    packed = folder / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(write_log(folder / "b.txt", 90, 1).read_bytes()))
    spans = folder / "c.jsonl"
    spans.write_text("".join(json.dumps(otlp(line)) + "\n" for line in range(9)))
    empty = folder / "d.jsonl"
    empty.write_text("")
    return [plain, packed, spans, empty]


def otlp(line: int) -> dict[str, Any]:
    def span(number: int) -> dict[str, Any]:
        said = [{"role": "user", "parts": [{"type": "text", "content": f"Explain number {line * 11 + number}."}]}]
        pairs = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(said)}
        return {
            "name": "chat",
            "spanId": f"{line:08x}{number:08x}",
            "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in pairs.items()],
        }

    return {"resourceSpans": [{"scopeSpans": [{"spans": [span(number) for number in range(11)]}]}]}


def plan(logs: list[Path], output: Path, **options: Any) -> Plan:
    sources = find([str(path) for path in logs])
    return Plan(sources=sources, output=output, **{"rows_per_part": ROWS_PER_PART, "max_rejected": 1.0, **options})


def cutter(wanted: Plan, scoring: Scoring) -> Cutter:
    limits = Limits(wanted.line_bytes, scoring.max_chars)
    return Cutter(wanted.shape, limits, wanted.selection, wanted.rows_per_part)


def openings(wanted: Plan) -> list[Split]:
    return [Split(source, 0, Position()) for source in wanted.sources]


def calm(logs: list[Path], scoring: Scoring, output: Path, **options: Any) -> list[Part]:
    run(plan(logs, output, **options), scoring, threading.Event())
    return sorted(read_parts(output), key=lambda part: (part.source, part.number))


def job(wanted: Plan, scoring: Scoring, fingerprint: str) -> Job:
    (wanted.output / AHEAD).mkdir(exist_ok=True)
    (wanted.output / AHEAD / "token").touch()
    return job_of(wanted, fingerprint, scoring, Settings(home=BUNDLES.parent), "token")


@pytest.mark.parametrize("options", [{}, {"limit": 100}, {"limit": 77, "selection": Selection(0.5, 3)}, {"limit": 1}])
def test_splits_begin_where_the_parts_of_a_run_on_one_machine_do(
    scoring: Scoring, logs: list[Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    parts = calm(logs, scoring, tmp_path / "calm", **options)
    wanted = plan(logs, tmp_path, **options)
    found = list(cutter(wanted, scoring).cut(openings(wanted), limit=wanted.limit))
    assert [(s.source.name, s.number, s.first) for s in found] == [(p.source, p.number, p.first) for p in parts]
    assert any(split.first.item for split in found) or "limit" in options


def test_splits_that_are_known_are_passed_over_and_the_others_stay(scoring: Scoring, logs: list[Path]) -> None:
    wanted = plan(logs, Path("unused"))
    found = list(cutter(wanted, scoring).cut(openings(wanted)))
    known = {(split.source.name, split.number) for split in found[::2]}
    assert list(cutter(wanted, scoring).cut(openings(wanted), known=known)) == found[1::2]
    assert list(cutter(wanted, scoring).cut([found[1]])) == [s for s in found[1:] if s.source == found[1].source]


def test_a_part_that_a_limit_cut_short_is_cut_anew_and_counts_once(scoring: Scoring, logs: list[Path]) -> None:
    wanted = plan(logs, Path("unused"))
    (again,) = cutter(wanted, scoring).cut(openings(wanted)[:1], limit=5)
    for lifted in (12, 60):
        opening = replace(again, most=None, again=5)
        found = list(cutter(wanted, scoring).cut([opening, *openings(wanted)[1:]], limit=lifted - 5))
        assert found == list(cutter(wanted, scoring).cut(openings(wanted), limit=lifted))


def test_a_split_is_the_same_after_it_was_sent(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\n.jsonl"))
    path.write_text("")
    (source,) = find([str(path)])
    split = Split(source, 3, Position(7, 2**40, 1), 5, 2)
    assert Split.loaded(split.dumped()) == split


@pytest.mark.parametrize("options", [{}, {"limit": 100}, {"embeddings": "float16", "include_prompt": True}])
def test_parts_that_workers_write_backwards_are_those_of_a_calm_run(
    runtime: Runtime, logs: list[Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    scoring = Scoring(runtime, embeddings="embeddings" in options)
    parts = calm(logs, scoring, tmp_path / "calm", **options)
    wanted = plan(logs, tmp_path / "out", **options)
    with held(wanted.output):
        worker = Worker(job(wanted, scoring, parts[0].fingerprint))
        splits = list(cutter(wanted, scoring).cut(openings(wanted), limit=wanted.limit))
        for split in reversed(splits):
            attempt = worker.write(split)
            take_over(wanted.output, written(wanted.output, attempt), attempt)
    found = sorted(read_parts(wanted.output), key=lambda part: (part.source, part.number))
    assert found == parts
    assert not differences(wanted.output, tmp_path / "calm")


def test_a_worker_leaves_nothing_of_a_part_that_it_cannot_write(
    scoring: Scoring, logs: list[Path], tmp_path: Path
) -> None:
    wanted = plan(logs[:1], tmp_path)
    with held(tmp_path):
        worker = Worker(job(wanted, scoring, "f" * 64))
        gone = Split(find([str(write_log(tmp_path / "gone.jsonl", 3))])[0], 0, Position())
        (tmp_path / "gone.jsonl").unlink()
        with pytest.raises(DataRejected, match=r"gone\.jsonl is missing where a worker reads"):
            worker.write(gone)
        write_log(tmp_path / "gone.jsonl", 4)
        with pytest.raises(DataRejected, match="another file than where the command runs"):
            worker.write(gone)
        with pytest.raises(DataRejected, match="another file than where the command runs"):
            list(cutter(wanted, scoring).cut([gone]))
    assert [path.name for path in (tmp_path / AHEAD).iterdir()] == ["token"]


def test_a_worker_gives_no_part_of_an_input_that_changed_while_it_was_read(scoring: Scoring, tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", 500)
    wanted = plan([path], tmp_path / "out", rows_per_part=1_000)

    def meanwhile() -> None:
        while len(list((wanted.output / AHEAD).iterdir())) < 2:  # until the worker has begun
            pass
        with path.open("a") as file:
            file.write('{"prompt": "One more."}\n')

    with held(wanted.output):
        worker = Worker(job(wanted, scoring, "f" * 64))
        writer = threading.Thread(target=meanwhile)
        writer.start()
        with pytest.raises(DataRejected, match="must not change during the run"):
            worker.write(Split(wanted.sources[0], 0, Position()))
        writer.join()
        assert [found.name for found in (wanted.output / AHEAD).iterdir()] == ["token"]


def test_a_worker_refuses_another_version_another_folder_and_an_altered_bundle(
    scoring: Scoring, logs: list[Path], tmp_path: Path
) -> None:
    wanted = plan(logs, tmp_path)
    whole = job(wanted, scoring, "f" * 64)
    said = {name: getattr(whole, name) for name in Job.__slots__}
    for change, error, text in (
        ({"stillwatch": "0.0.1"}, RunRefused, "install one version"),
        ({"token": "another"}, RunRefused, "that all of them share"),
        ({"bundle": {**whole.bundle, "head.onnx": b"no head"}}, BundleRejected, "SHA-256"),
    ):
        with pytest.raises(error, match=text):
            Worker(Job(**{**said, **change}))


def test_whole_parts_of_an_ended_run_are_used_and_torn_or_foreign_ones_removed(
    scoring: Scoring, logs: list[Path], tmp_path: Path
) -> None:
    wanted = plan(logs[:1], tmp_path)
    with held(tmp_path):
        worker = Worker(job(wanted, scoring, "f" * 64))
        splits = list(cutter(wanted, scoring).cut(openings(wanted)))
        first, second, twice = (worker.write(splits[number]) for number in (0, 1, 1))
        foreign = Worker(job(wanted, scoring, "e" * 64)).write(splits[2])
        short = worker.write(Split(splits[2].source, 2, splits[2].first, 5))
        torn = worker.write(splits[2])
    (file,) = (tmp_path / AHEAD / torn / SCORES).iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    empty = new_attempt(tmp_path, "part.parquet")
    sources = {source.name: source for source in wanted.sources}
    name = wanted.sources[0].name
    found = left_ahead(tmp_path, "f" * 64, sources, {name: 1})
    kept = {path.name for path in (tmp_path / AHEAD).iterdir() if path.is_dir()}
    assert set(found) == {(name, 1)}
    assert kept == {found[name, 1][1]} < {second, twice}
    assert not {first, foreign, short, torn, empty} & kept
    with held(tmp_path):  # one machine's run does not use them
        assert not (tmp_path / AHEAD).exists()
        with pytest.raises(FileNotFoundError):
            worker.write(splits[1])


def test_a_part_that_ends_every_worker_ends_the_run_and_not_the_other_parts(tmp_path: Path) -> None:
    (tmp_path / AHEAD).mkdir()
    for _ in range(ATTEMPTS):
        new_attempt(tmp_path, "poison.parquet")
    new_attempt(tmp_path, "sound.parquet")
    with pytest.raises(RunRefused, match=r"poison\.parquet ended its worker 10 times"):
        new_attempt(tmp_path, "poison.parquet")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "spark"}, "the engine is local or ray"),
        ({"workers": 2}, "add --engine ray"),
        ({"ray_address": "auto"}, "add --engine ray"),
    ],
)
def test_options_of_an_engine_that_cannot_be_meant_are_refused(
    logs: list[Path], tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidSetting, match=text):
        plan_of(Request((str(logs[0]),), tmp_path, **options), 2)
