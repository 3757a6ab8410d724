"""The wheel and the running server hold what they should, and nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("torch", "sklearn", "scipy", "sentence_transformers", "transformers", "matplotlib", "skl2onnx", "pandas")
PROBE = """
import asyncio, json, os, signal, sys, threading
from classifier.client import Client
from classifier.config import Settings
from classifier.serve.server import serve

def ask(address):
    def run():
        with Client(address) as client:
            client.classify("How do I sort a list?")
            client.list_examples(2)
        modules = sorted({name.split(".")[0] for name in sys.modules})
        import classifier
        print("FOUND", json.dumps({"modules": modules, "classifier": classifier.__file__}))
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=run).start()

asyncio.run(serve(Settings(port=0), ask))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_exactly_the_top_levels_it_should(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"classifier", "index", "stillwatch"}
    assert any(name.endswith("classifier/default/head.onnx") for name in names)
    assert any(name.startswith("index/seed/") for name in names)
    assert "stillwatch/v1/classifier_pb2_grpc.py" in names


def test_a_server_from_the_built_wheel_scores_and_imports_no_training_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    home = tmp_path / "home"
    home.mkdir()
    (home / "bundles").symlink_to(ROOT / "var" / "bundles")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "STILLWATCH_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("FOUND ", 1)[1].splitlines()[0])
    assert Path(found["classifier"]).is_relative_to(tmp_path / "site")
    assert {"onnxruntime", "faiss", "grpc"} <= set(found["modules"])
    assert not set(FORBIDDEN) & set(found["modules"])


def test_the_base_install_declares_no_training_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    assert not [name for name in FORBIDDEN if name in base]
