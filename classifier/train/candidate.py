"""Trains a head on an example store's examples, and makes a candidate bundle of it and a bundle's encoder."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier import __version__
from classifier.bundle import TRAINING, Bundle, dump_examples, names_of, open_bundle, verified_file, write_bundle
from classifier.canary import alone
from classifier.corpus import SOURCE, load_corpus
from classifier.errors import DataRejected
from classifier.train.fit import fit_head
from classifier.train.publish import head_files
from classifier.train.stored import training_rows
from classifier.trained import dump_training
from index.example import Example

_AT_ONCE = 256


def train_candidate(
    examples: Sequence[Example],
    revision: int,
    base: Path,
    bundles: Path,
    *,
    threads: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fit a head on examples and write a bundle that is not current.

    Encoder, tokenizer and tables of languages stay the base's, byte for byte, so that no stored embedding is lost and
    a running server takes the candidate over at once.

    Args:
        examples: The active examples of a store at a revision.
        revision: That revision.
        base: The bundle whose encoder is used.
        bundles: The folder of all bundles.
        threads: Threads of one run of the encoder.
        seed: Shuffles the folds.
        progress: Told what is being done.

    Returns:
        The candidate's directory.

    Raises:
        DataRejected: When there are no examples, or a technique or capability cannot be learnt from them.
        BundleRejected: When the base is damaged.
    """
    if not examples:
        raise DataRejected(f"the example store has no active examples at revision {revision}: name a later one")
    bundle = open_bundle(base, threads=threads)
    progress(f"encoding what the bundle does not know of {len(examples):,} examples")
    vectors = _vectors(examples, bundle)
    rows = training_rows(examples, vectors, load_corpus())
    head = fit_head(rows, bundle.model.encoder, bundle.model.windows, seed=seed, progress=progress)
    data, card = head_files(head, rows, bundle.model.windows, seed, revision)
    seeds = tuple(row.example for row in rows if row.example.source == SOURCE)
    buffer = BytesIO()
    rows_of_seeds = np.array([vectors[example.id] for example in seeds], np.float32)
    np.save(buffer, rows_of_seeds.reshape(len(seeds), bundle.model.encoder.dimensions), allow_pickle=False)
    kept = set(names_of(bundle.manifest)) - {TRAINING}
    files = {name: verified_file(base, name, bundle.manifest.files[name]) for name in sorted(kept)}
    files |= {
        "head.onnx": data,
        "examples.jsonl": dump_examples(seeds),
        "examples.npy": buffer.getvalue(),
        TRAINING: dump_training(row.example for row in rows),
    }
    manifest = bundle.manifest.model_dump(mode="json", exclude={"files"})
    manifest |= {"version": __version__, "head": card.model_dump(mode="json")}
    return write_bundle(bundles, manifest, files, current=False)


def _vectors(examples: Sequence[Example], bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """The embedding of every example, by id: the bundle's own where it has one."""
    known = {example.id: vector for example, vector in zip(bundle.examples, bundle.vectors, strict=True)}
    scorer = alone(bundle)
    missing = [example for example in examples if example.id not in known]
    for start in range(0, len(missing), _AT_ONCE):
        part = missing[start : start + _AT_ONCE]
        known |= {e.id: vector for e, vector in zip(part, scorer.embed([e.text for e in part]), strict=True)}
    return known
