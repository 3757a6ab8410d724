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
from classifier.export.graph import fp32_graph
from classifier.export.weights import obtain

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
    served = open_bundle(settings.bundle, threads=threads)
    texts = _texts(exact)
    reference = np.asarray(
        load_sentence_transformer().encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32
    )
    fp32, int8 = _encode(exact, texts), _encode(served.model.encoder, texts)
    fp32_cosines, int8_cosines = (fp32 * reference).sum(axis=1), (int8 * reference).sum(axis=1)
    flipped = int((_nearest(fp32) != _nearest(reference)).sum())
    flipped_int8 = int((_nearest(int8) != _nearest(reference)).sum())
    lengths = [len(found.ids) for found in exact.tokenise(texts)]
    print(f"{TEXTS} texts of {min(lengths)} to {max(lengths)} tokens, against sentence-transformers in torch fp32")
    print(f"fp32: lowest cosine {fp32_cosines.min():.7f} (bound {FP32_EACH}), flipped nearest neighbours {flipped}")
    print(
        f"{served.manifest.precision}: mean cosine {int8_cosines.mean():.5f} (bound {INT8_MEAN}), "
        f"lowest {int8_cosines.min():.5f}, flipped nearest neighbours {flipped_int8} of {TEXTS}"
    )
    good = fp32_cosines.min() >= FP32_EACH and flipped == 0 and int8_cosines.mean() >= INT8_MEAN
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
