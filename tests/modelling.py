"""What the tests of models share: rows on which a head is fitted fast, and the command line on a home."""

import os
import subprocess
import sys
from pathlib import Path

from classifier.corpus import SeedRow, load_corpus


def seeds(count: int) -> list[SeedRow]:
    """Short rows of the corpus, on which a head is fitted fast."""
    short = [row for row in load_corpus() if len(row.example.text) < 160 and row.example.language == "en"]
    short = [row for row in short if "long_horizon_planning" not in row.example.capabilities]
    return short[:: max(1, len(short) // count)]


def run(home: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "classifier.cli", *command],
        env={**os.environ, "STILLWATCH_HOME": str(home), "STILLWATCH_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
