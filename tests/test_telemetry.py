"""ONNX Runtime's own telemetry is off: it would write down a name for the machine, and speak to its maker."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCORES = """
import os
from classifier.bundle import open_bundle
from classifier.config import Settings
open_bundle(Settings().bundle, threads=1).model.encoder.encode([[2023] * 20])
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
SILENT_ANYWAY = ("CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")
"""With one of these in the environment ONNX Runtime sends nothing, whatever we do."""


def test_a_process_that_scores_writes_nothing_into_its_users_home(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in SILENT_ANYWAY and not name.startswith(("GITHUB_", "XDG_"))
    }
    environment |= {"HOME": str(tmp_path), "STILLWATCH_HOME": str(ROOT / "var")}
    ran = subprocess.run(
        [sys.executable, "-c", SCORES], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["1"]
    assert [str(path) for path in tmp_path.rglob("*")] == []
