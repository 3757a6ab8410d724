"""Writes a run's page, report.html."""

from pathlib import Path

from classifier.batch.manifest import manifest_of
from classifier.batch.page import page
from classifier.batch.parts import write_whole
from classifier.batch.summary import summarise

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
    path = output / REPORT
    write_whole(path, page(manifest_of(output), summarise(output)))
    return path
