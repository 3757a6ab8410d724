"""What the benchmarks rest on: no two prompts are the same, what comes again is work again, and turns do not overlap."""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import killing
import overload
import pyarrow as pa
import pytest
import reload
import variants
from overnight import Measured, merits, table, write_logs
from processes import NO_VERDICTS_KEPT, served
from serving import BUNDLES
from texts import distinct_texts, mixed_texts
from turns import Spent, Turns, take_turns

from classifier.batch.parts import load
from classifier.bundle import Bundle
from classifier.client import Client
from classifier.corpus import load_corpus
from classifier.text import canonical

PROMPT = "What is the capital of Peru?"


def test_no_two_probes_of_the_overload_benchmark_are_the_same() -> None:
    asked: list[bytes] = []

    def record(message: bytes, _: grpc.ServicerContext) -> bytes:
        asked.append(message)
        return b""

    def enough(times: Sequence[float]) -> bool:
        return len(times) >= 20

    server = grpc.server(ThreadPoolExecutor(1))
    handlers: dict[str, Any] = {"Classify": grpc.unary_unary_rpc_method_handler(record)}
    service = grpc.method_handlers_generic_handler("stillwatch.v1.ClassifierService", handlers)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for _ in range(2):
            overload._probe(f"127.0.0.1:{port}", enough)
    finally:
        server.stop(None).wait()
    assert len(set(asked)) == len(asked) == 40


def kept(address: str) -> list[bool]:
    """Whether the same prompt, asked twice, came from the cache."""
    with Client(address) as client:
        return [client.classify(PROMPT).stage_times.cached for _ in range(2)]


def test_the_servers_under_load_keep_no_verdicts(tmp_path: Path) -> None:
    with reload._server(variants.make_home(tmp_path)) as server:
        assert kept(server.address) == [False, False]
    with served(settings=NO_VERDICTS_KEPT) as server:
        assert kept(server.address) == [False, False]
    assert "settings=NO_VERDICTS_KEPT" in Path(overload.__file__).read_text()


def test_no_two_prompts_of_the_re_scored_log_are_equal(bundle: Bundle) -> None:
    few = [row for row in load_corpus() if row.example.language == "en"][:60]
    drawn = mixed_texts(few, bundle.model.encoder, 2_000)
    assert len({canonical(text, 100_000) for text in drawn}) < len(drawn)
    texts = list(distinct_texts(few, bundle.model.encoder, 2_000))
    assert len({canonical(text, 100_000) for text in texts}) == len(texts) == 2_000


def running(output: Path) -> tuple[str, int]:
    """The state of the process that works in a folder, and the processor time it has taken."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # other processes come and go
            if str(output).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(folder.name)
    (pid,) = found
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])


def test_the_command_stands_still_while_others_are_measured(tmp_path: Path, bundle: Bundle) -> None:
    write_logs(tmp_path / "logs", 100, 3, bundle.model.encoder)
    output = tmp_path / "output"
    seen: list[int] = []
    waited: list[float] = []

    def turn(number: int) -> None:
        seen.append(number)
        if number < 2:
            began = time.perf_counter()
            state, before = running(output)
            bundle.model.encoder.encode([[101, *range(2_000, 2_250), 102]] * 40)
            assert (state, running(output)) == ("T", ("T", before))
            waited.append(time.perf_counter() - began)

    arguments = [sys.executable, "-m", "classifier.cli", "rescore", str(tmp_path / "logs"), "--output", str(output)]
    (tmp_path / "bundles").symlink_to(BUNDLES)
    began = time.perf_counter()
    found = take_turns(arguments, output, 3, turn, os.environ | {"STILLWATCH_HOME": str(tmp_path)})
    whole = time.perf_counter() - began
    assert seen == [0, 1, 2]
    assert sum(part.wall for part in found.parts) <= found.whole.wall <= whole - sum(waited)
    assert 0 < sum(part.processor for part in found.parts) <= found.whole.processor
    assert found.peak > 50
    assert len(load(output).to_table(columns=["row"])) == 300


def test_a_command_that_fails_between_its_turns_is_not_measured(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", "raise SystemExit('no such log')"]
    with pytest.raises(SystemExit, match=r"ended with 1 and 0 of 3 parts: no such log"):
        take_turns(arguments, tmp_path / "output", 3, lambda number: None, os.environ)


def test_the_figures_of_the_night_are_those_of_the_inner_files() -> None:
    slow, one, half = Spent(9.0, 9.0), Spent(1.0, 2.0), Spent(0.5, 1.0)
    found = Turns((slow, one, one, slow), Spent(20.0, 30.0), 600.0)
    measured = Measured(
        [slow, half, half, slow], [slow, one, one, slow], [9.0, 0.02, 0.02, 9.0], [slow, one, one, slow]
    )
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table(found, measured, 100, 10)[2:]]
    assert rows == [
        ["100", "", ""],
        ["200", "0.500x", "0.500x"],
        ["100", "1.000x", "1.000x"],
        ["10", "10.000x", "10.000x"],
    ]
    together, read, whole, month = merits(found, measured, 400, 2)
    assert "is 0.500x of the bare scorer" in together
    assert ": 1.00% of" in read
    assert "400 prompts in 20.0 s, 20/s, 10/s/core, 1.50 cores busy, peak memory 600 MiB" in whole
    assert ": 400.0 hours on 2 cores" in month


def test_where_the_rows_of_two_runs_differ_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*probabilities: float) -> pa.Table:
        return pa.table({"file": ["a"] * len(probabilities), "row": range(len(probabilities)), "p": probabilities})

    runs = {"calm": rows(0.1, 0.2), "moved": rows(0.1, 0.3), "short": rows(0.1)}
    monkeypatch.setattr(killing, "rows_of", lambda output: (runs[output.name], rows()))
    assert killing.differences(tmp_path / "calm", tmp_path / "calm") == []
    assert killing.differences(tmp_path / "moved", tmp_path / "calm") == [
        "scores.p: 1 rows differ, first a:1: 0.3 and 0.2"
    ]
    assert killing.differences(tmp_path / "short", tmp_path / "calm")[0].startswith("scores: 1 rows")
