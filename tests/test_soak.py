"""The soak in its short form, and that it would find what grows."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from serving import BUNDLES
from soak import Held, grown

SOAK = Path(__file__).parent.parent / "benchmarks" / "soak.py"


def test_what_grows_is_found() -> None:
    before = Held(at=0, resident=300, descriptors=20, tasks=4, threads=12)
    assert grown(before, replace(before, resident=310, descriptors=21, threads=14), 24) == []
    assert grown(before, replace(before, resident=330), 24) == ["resident"]
    assert grown(before, replace(before, descriptors=30, tasks=9, threads=30), 24) == [
        "descriptors",
        "tasks",
        "threads",
    ]


def test_a_short_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SOAK),
        "--minutes",
        "0.1",
        "--callers",
        "4",
        "--margin-mib",
        "200",
    ]  # less is for longer runs
    environment = {**os.environ, "STILLWATCH_HOME": str(BUNDLES.parent)}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grown: nothing" in done.stdout
    assert "| abandoned stream |" in done.stdout
