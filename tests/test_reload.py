"""Reload end to end: a real server under load, asked by call, by signal and by the pointer."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import variants
from serving import Server, running_server
from stillwatch.v1 import admin_pb2, classifier_pb2, examples_pb2

from classifier.client import AsyncClient, Client
from classifier.errors import ServiceFailed

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with bundles of its own."""
    return variants.make_home(tmp_path)


def until(client: Client, good: Callable[[admin_pb2.GetStatusResponse], bool]) -> admin_pb2.GetStatusResponse:
    """The status, as soon as it is as wanted."""
    deadline = time.monotonic() + 60
    while not good(status := client.get_status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "classifier.cli", *command], capture_output=True, text=True, timeout=120, check=False
    )


def events(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def test_a_call_reloads_and_the_status_tells_of_it(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server, Client(server.address, timeout=60) as client:
        first = client.get_status()
        assert first.provenance == client.classify(ORDINARY).provenance
        assert first.extraction_examples > 1_000 < first.benign_examples
        assert (first.reloads, first.refused_reloads, first.HasField("last_reload")) == (0, 0, False)
        variants.make_current(home, variants.versioned("9.0.0"), variants.with_thresholds(0.25, 0.5))
        report = client.reload().report
        assert report.outcome == admin_pb2.RELOAD_OUTCOME_SWAPPED
        assert report.trigger == admin_pb2.RELOAD_TRIGGER_CALL
        status = client.get_status()
        assert status.last_reload == report
        assert status.reloads == 1
        assert status.uptime.ToTimedelta() > first.uptime.ToTimedelta()
        assert status.provenance.bundle_version == report.bundle_version
        assert status.provenance.bundle_version.startswith("9.0.0+")
        assert status.provenance == client.classify(ORDINARY).provenance
        assert (status.provenance.review_threshold, status.provenance.flag_threshold) == (0.25, 0.5)


def test_a_broken_bundle_is_refused_on_the_wire_in_the_log_and_in_the_status(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server:
        with Client(server.address, timeout=60) as client:
            before = client.classify(ORDINARY)
            name = variants.make_current(home, variants.versioned("9.0.0"))
            (home / "bundles" / name / "head.onnx").write_bytes(b"something else")
            with pytest.raises(ServiceFailed) as raised:
                client.reload()
            assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "BUNDLE_REJECTED")
            assert "head.onnx has SHA-256" in str(raised.value)
            status = client.get_status()
            assert status.refused_reloads == 1
            assert status.last_reload.outcome == admin_pb2.RELOAD_OUTCOME_REFUSED
            assert status.last_reload.reason == "BUNDLE_REJECTED"
            assert status.last_reload.message == str(raised.value)
            after = client.classify(ORDINARY)
            assert (after.provenance, after.verdict) == (before.provenance, before.verdict)
        assert server.stop() == 0
        (refused,) = [event for event in events(server) if event["event"] == "reload_refused"]
        assert refused["reason"] == "BUNDLE_REJECTED"
        assert "head.onnx has SHA-256" in str(refused["message"])


def test_sighup_reloads_and_one_that_comes_meanwhile_is_not_forgotten(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server:
        with Client(server.address) as client:
            variants.make_current(home, variants.versioned("9.0.0"))
            server.process.send_signal(signal.SIGHUP)
            until(client, lambda status: status.reload_in_progress)
            server.process.send_signal(signal.SIGHUP)
            status = until(client, lambda status: status.reloads == 2)
            assert status.provenance.bundle_version.startswith("9.0.0+")
            assert status.last_reload.trigger == admin_pb2.RELOAD_TRIGGER_SIGNAL
        assert server.stop() == 0


def test_the_watch_follows_the_pointer_there_and_back_and_tries_a_broken_bundle_once(home: Path) -> None:
    with running_server(home, watch_seconds=0.05) as server:
        with Client(server.address) as client:
            name = variants.make_current(home, variants.versioned("9.0.0"))
            status = until(client, lambda status: status.reloads == 1)
            assert status.provenance.bundle_version.startswith("9.0.0+")
            assert status.last_reload.trigger == admin_pb2.RELOAD_TRIGGER_WATCH
            variants.point(home, "default")
            until(client, lambda status: status.reloads == 2)
            (home / "bundles" / name / "encoder.onnx").unlink()
            variants.point(home, name)
            until(client, lambda status: status.refused_reloads == 1)
            (home / "bundles" / "current").unlink()
            status = until(client, lambda status: status.refused_reloads == 2)
            assert "no readable manifest.json" in status.last_reload.message
            (home / "bundles" / "current").symlink_to("default")
            client.reload()
            assert client.get_status().refused_reloads == 2
            assert client.classify(HARVEST).provenance.bundle_version.startswith("0.1.0+")
        assert server.stop() == 0


def test_a_second_call_is_told_that_a_reload_is_under_way(home: Path) -> None:
    async def ask(address: str) -> list[object]:
        async with AsyncClient(address, timeout=60) as client:
            return list(await asyncio.gather(*(client.reload() for _ in range(4)), return_exceptions=True))

    with running_server(home, watch_seconds=0) as server:
        outcomes = asyncio.run(ask(server.address))
        assert [type(outcome) for outcome in outcomes].count(admin_pb2.ReloadResponse) == 1
        refused = [outcome for outcome in outcomes if isinstance(outcome, ServiceFailed)]
        assert {(error.code, error.reason) for error in refused} == {("ABORTED", "RELOAD_IN_PROGRESS")}
        assert len(refused) == 3


def test_a_caller_that_goes_away_does_not_stop_its_reload(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server:
        variants.make_current(home, variants.versioned("9.0.0"))
        with Client(server.address, timeout=0.05) as hasty, pytest.raises(ServiceFailed) as raised:
            hasty.reload()
        assert raised.value.code == "DEADLINE_EXCEEDED"
        with Client(server.address) as client:
            until(client, lambda status: status.reloads == 1)
        assert server.stop() == 0
        assert "never retrieved" not in server.log


def test_writes_and_scores_go_on_while_reloading_and_every_written_example_is_known(home: Path) -> None:
    other = variants.make_current(home, variants.versioned("9.0.0"), variants.of_another_encoder)
    variants.point(home, "default")

    async def ask(address: str) -> list[str]:
        stopped = asyncio.Event()
        written: list[str] = []

        async def write(client: AsyncClient) -> None:
            number = 0
            while not stopped.is_set():
                number += 1
                example = examples_pb2.Example(text=f"ferry number {number} at noon", label=examples_pb2.LABEL_BENIGN)
                answer = await client.add_examples([example])
                written.append(answer.examples[0].id)
                found = await client.find_neighbours(example.text, 1)
                assert found.neighbours[0].example_id == written[-1], "acknowledged is searchable"

        async def score(client: AsyncClient) -> None:
            while not stopped.is_set():
                answer = await client.classify(HARVEST)
                assert isinstance(answer, classifier_pb2.ClassifyResponse)

        async with AsyncClient(address, timeout=60) as client:
            tasks = [asyncio.create_task(work(client)) for work in (write, score, score)]
            for name in (other, "default", other):
                variants.point(home, name)
                await client.reload()
            stopped.set()
            await asyncio.gather(*tasks)
        return written

    with running_server(home, watch_seconds=0) as server, Client(server.address) as client:
        before = client.get_status()
        written = asyncio.run(ask(server.address))
        assert len(written) == len(set(written)) > 3
        after = client.get_status()
        assert after.reloads == 3
        assert after.benign_examples - before.benign_examples == len(written)


def test_sigterm_during_a_reload_ends_both(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server:
        variants.make_current(home, variants.of_another_encoder)
        with Client(server.address) as client:
            client.add_examples(
                [examples_pb2.Example(text=f"ferry {i}", label=examples_pb2.LABEL_BENIGN) for i in range(200)]
            )
            server.process.send_signal(signal.SIGHUP)
            until(client, lambda status: status.reload_in_progress)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 20
        assert events(server)[-1]["event"] == "stopped"


def test_a_bundle_that_fails_its_canaries_does_not_come_to_serve(home: Path) -> None:
    variants.make_current(home, variants.shifted(50.0))
    environment = {**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_PORT": "0"}
    command = [sys.executable, "-m", "classifier.cli", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "canary prompts wrongly (capital" in done.stderr
    assert "is serving" not in done.stderr


def test_the_command_line_reloads_and_shows_the_status(home: Path) -> None:
    with running_server(home, watch_seconds=0) as server:
        done = run("status", "--server", server.address)
        assert done.returncode == 0, done.stderr
        assert "0.1.0+" in done.stdout
        variants.make_current(home, variants.versioned("9.0.0"))
        done = run("reload", "--server", server.address, "--json")
        assert json.loads(done.stdout)["report"]["outcome"] == "RELOAD_OUTCOME_SWAPPED"
        variants.make_current(home, variants.shifted(50.0))
        done = run("reload", "--server", server.address)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: bundle 0.1.0+")
        done = run("status", "--server", server.address)
        assert "CANARY_FAILED" in done.stdout
        assert "1 swapped, 1 refused" in done.stdout
        found = json.loads(run("status", "--server", server.address, "--json").stdout)
        assert found["last_reload"]["reason"] == "CANARY_FAILED"


def test_under_load_no_request_fails_and_every_verdict_is_of_one_generation() -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "reload.py"),
        "--reloads",
        "2",
        "--callers",
        "4",
        "--rest",
        "0.2",
    ]
    environment = {**os.environ, "STILLWATCH_HOME": str(ROOT / "var")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {row[0]: row[1] for row in cells if len(row) > 1}
    assert int(rows["requests"].replace(",", "")) > 20
    assert (rows["failures"], rows["mixed answers"]) == ("0", "0")
    assert rows["reloads"] == "2"
