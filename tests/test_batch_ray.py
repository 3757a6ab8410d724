"""Runs on Ray: row for row those of one machine, whatever is killed, and each engine goes on with the other's."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from killing import command, differences, write_log
from rays import cluster, environment_of, needs_ray, on_ray, parts_in, processes, wait_for_parts

from classifier.batch.manifest import RunManifest
from classifier.batch.output import AHEAD
from classifier.batch.parts import read_parts

pytestmark = needs_ray
WORKER = "ray::MapWorker"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    return [write_log(folder / "a.jsonl", 700), write_log(folder / "b.jsonl", 260, 1)]


@pytest.fixture(scope="module")
def calm(logs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run on one machine that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    call(command(logs, folder / "out", 50), environment_of(folder))
    return folder / "out"


def call(arguments: list[str], environment: dict[str, str]) -> RunManifest:
    done = subprocess.run(arguments, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return RunManifest.model_validate_json(done.stdout.strip().split("\n")[-1])


def start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_same(output: Path, calm: Path) -> None:
    assert not differences(output, calm)
    assert list(read_parts(output)) == list(read_parts(calm))
    assert not (output / AHEAD).exists()


def test_a_run_on_ray_gives_the_rows_parts_and_counts_of_one_machine(
    logs: list[Path], calm: Path, tmp_path: Path
) -> None:
    environment = environment_of(tmp_path)
    found = call(on_ray(logs, tmp_path / "out"), environment)
    assert found.state == "done"
    assert_same(tmp_path / "out", calm)
    again = call(command(logs, tmp_path / "out", 50), environment)
    assert (again.counts, again.sessions[-1].read) == (found.counts, 0)
    assert not processes(environment, "ray")


def test_a_killed_worker_and_a_killed_run_lose_and_double_nothing_and_one_machine_goes_on(
    logs: list[Path], calm: Path, tmp_path: Path
) -> None:
    environment, output = environment_of(tmp_path), tmp_path / "out"
    process = start(on_ray(logs, output), environment)
    wait_for_parts(process, output, 2)
    victim = processes(environment, WORKER)[0]
    os.kill(victim, signal.SIGKILL)
    wait_for_parts(process, output, 7)
    assert victim not in processes(environment, WORKER)
    process.kill()
    process.communicate()
    while processes(environment, WORKER):
        continue  # Ray ends what the killed process started
    kept = parts_in(output)
    assert kept < len(list(read_parts(calm)))
    assert call([*command(logs, output, 50), "--limit", "400"], environment).counts.read == 400
    assert call(on_ray(logs, output), environment).state == "done"
    assert not differences(output, calm)
    assert sum(part.read for part in read_parts(output)) == sum(part.read for part in read_parts(calm))


def test_a_run_on_a_running_cluster_stops_at_ctrl_c_and_goes_on(logs: list[Path], calm: Path, tmp_path: Path) -> None:
    environment, output = environment_of(tmp_path), tmp_path / "out"
    with cluster(environment, 2) as address:
        many = on_ray(logs, output, "--ray-address", address, "--workers", "3")
        refused = subprocess.run(many, env=environment, check=False, capture_output=True, text=True)
        assert refused.returncode == 1
        assert "the cluster has 2 cores for 3 workers" in refused.stderr
        assert not parts_in(output)
        process = start(on_ray(logs, output, "--ray-address", address), environment)
        wait_for_parts(process, output, 2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130, said
        assert "run the same command again to go on" in said
        assert not {part.number for part in read_parts(output)} - set(range(parts_in(output)))
        assert call(on_ray(logs, output, "--ray-address", address), environment).state == "done"
    assert_same(output, calm)


@pytest.mark.parametrize(
    ("address", "text"),
    [("ray://127.0.0.1:10001", "a Ray client's address"), ("127.0.0.1:1", "there is no Ray cluster to join")],
)
def test_an_address_that_cannot_work_is_refused(logs: list[Path], tmp_path: Path, address: str, text: str) -> None:
    arguments = on_ray(logs, tmp_path / "out", "--ray-address", address)
    done = subprocess.run(arguments, env=environment_of(tmp_path), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_inputs_in_the_memory_of_one_process_are_refused(tmp_path: Path) -> None:
    code = (
        "import sys, fsspec; from classifier.cli import main\n"
        "with fsspec.open('memory://log.jsonl', 'w') as file: file.write('{\"prompt\": \"Hi\"}\\n')\n"
        "sys.argv[1:1] = ['rescore', 'memory://log.jsonl', '--engine', 'ray', '--output']; main()"
    )
    arguments = [*command([], tmp_path, 1)[:1], "-c", code, str(tmp_path / "out")]
    done = subprocess.run(arguments, env=environment_of(tmp_path), check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "which no worker sees" in done.stderr


def test_no_prompt_text_and_no_line_of_rays_own_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "zyzzyva"}\n{"prompt": 5}\n{"prompt": ["zyzzyva"]}\n')
    done = subprocess.run(
        on_ray([path], tmp_path / "out"), env=environment_of(tmp_path), check=True, capture_output=True, text=True
    )
    assert "zyzzyva" not in done.stdout + done.stderr
    assert not [line for line in done.stderr.splitlines() if "log level" not in line]
