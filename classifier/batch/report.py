"""Writes a run's page, report.html."""

import os
from pathlib import Path

from classifier.batch.manifest import MANIFEST, read_manifest
from classifier.batch.page import page
from classifier.batch.parts import TEMPORARY, sync_folder
from classifier.batch.summary import summarise
from classifier.errors import RunRefused

REPORT = "report.html"


def write_report(output: Path) -> Path:
    """Sum a run up in a page beside its manifest; it is never seen half written.

    Args:
        output: The run's output; what is finished of it is summed up.

    Returns:
        The page.

    Raises:
        RunRefused: When the folder holds no run, or a damaged one.
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise RunRefused(f"{output} has no {MANIFEST}: name the folder that was a run's --output")
    html = page(manifest, summarise(output))
    fresh = output / f"{TEMPORARY}{os.getpid()}-{REPORT}"
    with fresh.open("wb") as file:
        file.write(html)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(output / REPORT)
    sync_folder(output)
    return output / REPORT
