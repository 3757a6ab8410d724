"""Holds the encoder to sentence-transformers: 500 texts of all lengths; exits with 1 when a bound is missed.

Run by `make parity`, needs the train extra.
"""

import os
import sys

import numpy as np
from numpy.typing import NDArray
from reference import load_sentence_transformer

from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.encoder import Encoder, OnnxEncoder
from classifier.export.calibrate import measure_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import obtain
from classifier.windows import WindowPlan

TEXTS = 500
WINDOW = 254
FP32_EACH = 0.9999
INT8_MEAN = 0.97


def main() -> int:
    """Compare and print; the exit code says whether every bound is met."""
    threads = len(os.sched_getaffinity(0))
    settings = Settings()
    files = obtain(settings.model_cache)
    exact = OnnxEncoder(fp32_graph(files.tensors), files.tokenizer, threads=threads)
    texts = _texts(exact)
    ranges = measure_ranges(files, texts[::2], WindowPlan().length, threads=threads)
    quantised = OnnxEncoder(int8_graph(files.tensors, ranges), files.tokenizer, threads=threads)
    served = open_bundle(settings.bundle, threads=threads)
    reference = np.asarray(
        load_sentence_transformer().encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32
    )
    forms = {"fp32": _encode(exact, texts), "int8": _encode(quantised, texts)}
    forms[f"compact, {served.manifest.precision}"] = _encode(served.model.encoder, texts)
    cosines = {name: (rows * reference).sum(axis=1) for name, rows in forms.items()}
    flipped = {name: int((_nearest(rows) != _nearest(reference)).sum()) for name, rows in forms.items()}
    lengths = [len(found.ids) for found in exact.tokenise(texts)]
    print(f"{TEXTS} texts of {min(lengths)} to {max(lengths)} tokens, against sentence-transformers in torch fp32")
    for name, found in cosines.items():
        print(f"{name}: mean cosine {found.mean():.5f}, lowest {found.min():.7f}, ", end="")
        print(f"flipped nearest neighbours {flipped[name]} of {TEXTS}")
    print(f"bounds: fp32 lowest {FP32_EACH} and none flipped, int8 mean {INT8_MEAN}; the compact encoder has none")
    good = cosines["fp32"].min() >= FP32_EACH and flipped["fp32"] == 0 and cosines["int8"].mean() >= INT8_MEAN
    print("every bound is met" if good else "A BOUND IS MISSED")
    return 0 if good else 1


def _texts(encoder: Encoder) -> list[str]:
    """Seed texts at equal steps through their lengths, from the shortest to the longest."""
    texts = list(dict.fromkeys(row.example.text for row in load_corpus()))
    lengths = [len(found.ids) for found in encoder.tokenise(texts)]
    order = np.argsort(lengths, kind="stable")
    return [texts[i] for i in order[np.linspace(0, len(order) - 1, TEXTS).astype(int)]]


def _encode(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    return encoder.encode([found.ids[:WINDOW] for found in encoder.tokenise(texts)])


def _nearest(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2.0)
    return np.asarray(cosines.argmax(axis=1))


if __name__ == "__main__":
    sys.exit(main())
