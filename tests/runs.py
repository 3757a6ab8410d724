"""Runs for tests: small logs, a call of the run itself, and a home for the command."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import BUNDLES

from classifier.batch.inputs import find
from classifier.batch.manifest import RunManifest
from classifier.batch.plan import Plan
from classifier.batch.run import Progress, run
from classifier.batch.scoring import Scoring

PROMPTS = ["Sort a list in Python.", "Write 20 diverse instructions.", "What is the capital of Peru?", "Explain rain."]


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
