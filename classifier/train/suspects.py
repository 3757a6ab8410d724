"""Examples whose label is probably wrong: those that contradict what is learnt of all the others.

Confident learning (Northcutt, Jiang and Chuang, 2021): every example is predicted by a model that did not see it, and a
label is suspect where the other one is predicted with at least the confidence that its own examples have on average.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from classifier import evidence
from classifier.encoder import Encoder
from classifier.errors import DataRejected
from classifier.text import fold
from classifier.train.features import bags_of
from classifier.windows import WindowPlan
from index.example import Example, Label
from index.live import empty_snapshot

Floats = NDArray[np.float32]
FOLDS = 5
_EMBEDDING = 8.0
"""How strongly the unit embedding may speak beside the neighbours, which are standardised."""
_WORDS = 15.0
"""The same of the unit bags of words."""
_LEAST = 2
"""A term of fewer examples tells nothing of others."""
_STRENGTH = 0.3
"""The inverse of the penalty: a model that can learn single examples by heart believes their labels."""
_STEPS = 100
_CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class Suspect:
    """An example, and how far its label is contradicted.

    Attributes:
        example: The example.
        confidence: The cross-validated probability of its own label, in [0, 1].
        margin: How much more the other label has than its examples have on average; below 0 the label is not doubted.
        nearest: The example nearest to it, itself left out; None where there is no other.
        cosine: That one's cosine, in [-1, 1].
    """

    example: Example
    confidence: float
    margin: float
    nearest: Example | None
    cosine: float

    @property
    def doubted(self) -> bool:
        """Whether the other label is predicted as confidently as for its own examples."""
        return self.margin >= 0.0 and self.confidence < 0.5


def rank_suspects(examples: Sequence[Example], vectors: Floats, encoder: Encoder, *, seed: int = 0) -> list[Suspect]:
    """Rank examples by disagreement with what is learnt of the others.

    Args:
        examples: Active examples of both labels.
        vectors: (n, d) float32 unit rows, theirs.
        encoder: What made them; its tokens are the words.
        seed: Of the folds.

    Returns:
        All examples, the most doubtful first.

    Raises:
        DataRejected: When a label has fewer examples than there are folds.
    """
    if len(vectors) != len(examples):
        raise ValueError(f"{len(examples)} examples, but {len(vectors)} vectors")
    attacks = np.array([example.label == Label.EXTRACTION for example in examples], bool)
    if min(attacks.sum(), (~attacks).sum()) < FOLDS:
        raise DataRejected(f"at least {FOLDS} examples of each label are needed to judge the others: add more")
    snapshot = empty_snapshot(vectors.shape[1]).extended(examples, vectors, 0)
    own = [frozenset((example.id,)) for example in examples]
    neighbours = evidence.search_leaving_out(snapshot, vectors, own)
    probability = _cross_validated(_features(examples, vectors, neighbours, encoder), attacks, seed)
    confidence = np.where(attacks, probability, 1.0 - probability)
    # Confident learning's threshold of each label: how sure the model is of those that carry it.
    usual = np.array([confidence[~attacks].mean(), confidence[attacks].mean()])
    margin = (1.0 - confidence) - usual[(~attacks).astype(int)]
    nearest = [_nearest(neighbours, row) for row in range(len(examples))]
    order = np.lexsort((confidence, -margin))
    return [Suspect(examples[row], float(confidence[row]), float(margin[row]), *nearest[row]) for row in order.tolist()]


def _features(
    examples: Sequence[Example], vectors: Floats, neighbours: evidence.Neighbours, encoder: Encoder
) -> sparse.csr_matrix:
    near = evidence.features(neighbours, (), ())
    scaled = (near - near.mean(axis=0)) / (near.std(axis=0) + 1e-6)
    tokens = encoder.tokenise([fold(example.text) for example in examples])
    bags = bags_of([found.ids[: WindowPlan().length] for found in tokens])
    words = TfidfTransformer().fit_transform(bags[:, np.flatnonzero(bags.getnnz(axis=0) >= _LEAST)])
    dense = sparse.csr_matrix(np.hstack([_EMBEDDING * vectors, scaled]))
    return sparse.hstack([dense, _WORDS * words]).tocsr()


def _cross_validated(features: sparse.csr_matrix, attacks: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """(n,) the probability of an attack by a model that was fitted on the other folds."""
    found = np.zeros(len(attacks))
    for learnt, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(found, attacks):
        model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=_STEPS, tol=_CLOSE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a ranking
            model.fit(features[learnt], attacks[learnt])
        found[held_out] = model.predict_proba(features[held_out])[:, 1]
    return found


def _nearest(neighbours: evidence.Neighbours, row: int) -> tuple[Example | None, float]:
    best: tuple[Example | None, float] = (None, -1.0)
    for side, hits in neighbours.sides:
        position, cosine = int(hits.positions[row, 0]), float(hits.cosines[row, 0])
        if position >= 0 and cosine >= best[1]:
            best = side.examples[position], cosine
    return best
