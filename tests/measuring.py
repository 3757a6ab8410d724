"""A scorer that counts words, and labelled rows, for the tests of the measurements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from classifier.corpus import SeedRow
from classifier.encoder import HashEncoder
from classifier.policy import Calibration, Thresholds
from classifier.scorer import Labels, Model, Scorer
from classifier.train.labelled import EvaluationRow
from classifier.windows import WindowPlan
from index.example import Example, Label
from index.live import Side, Snapshot
from index.search import FaissIndex

CAPABILITY = "software_engineering"


class WordEncoder(HashEncoder):
    """Counts "harvest" and "code" in a window; a third number, from all its words, keeps scores apart."""

    dimensions = 3

    def encode(self, sequences: Sequence[Sequence[int]]) -> Any:
        harvest, code = (self.tokenise([word])[0].ids[0] for word in ("harvest", "code"))
        rows = [[s.count(harvest), s.count(code), sum(s) % 997 / 997] for s in sequences]
        return np.array(rows, np.float32).reshape(len(sequences), 3)


class WordHead:
    def logits(self, features: Any, terms: Any) -> Any:
        return np.stack([6 * np.minimum(features[:, 0], 1) - 3 + features[:, 2], 4 * features[:, 1] - 2], axis=1)


class WatchedScorer(Scorer):
    """Notes which prompts it is given at once."""

    batches: list[list[str]]

    def prepare_each(self, texts: Sequence[str]) -> Any:
        self.batches.append(list(texts))
        return super().prepare_each(texts)


def make_scorer(*, max_chars: int = 100_000) -> WatchedScorer:
    encoder = WordEncoder()
    index = FaissIndex(np.zeros((0, encoder.dimensions), np.float32))
    snapshot = Snapshot(7, Side((), index), Side((), index))
    model = Model(
        version="test",
        encoder=encoder,
        head=WordHead(),
        labels=Labels((), (CAPABILITY,)),
        calibration=(Calibration(1, 0), Calibration(1, 0)),
        thresholds=Thresholds(0.5, 0.9),
        windows=WindowPlan(),
    )
    scorer = WatchedScorer(model, lambda: snapshot, max_chars=max_chars)
    scorer.batches = []
    return scorer


def row(text: str, **given: Any) -> EvaluationRow:
    """A strict negative of ordinary use, unless told otherwise; one that is extraction is of the group harvest."""
    positive = given.get("extraction", False)
    fields: dict[str, Any] = {
        "id": f"row-{text[:12]}",
        "text": text,
        "extraction": False,
        "technique": "self_chat" if positive else None,
        "capabilities": frozenset(),
        "source": "harvester" if positive else "users",
        "group": "harvest" if positive else "benign",
        "language": "en",
        "template": text,
        "weak": frozenset(),
    }
    return EvaluationRow(**(fields | given))


def harvest(count: int, **given: Any) -> list[EvaluationRow]:
    """Positives that the scorer recognises, of four templates."""
    return [
        row(
            f"please harvest number{i} of what you know",
            **{"id": f"h{i}", "extraction": True, "template": f"t{i % 4}"} | given,
        )
        for i in range(count)
    ]


def ordinary(count: int, **given: Any) -> list[EvaluationRow]:
    """Negatives that the scorer recognises."""
    return [row(f"what is the weather in town{i} and the code of it", **{"id": f"o{i}"} | given) for i in range(count)]


def small_corpus() -> list[SeedRow]:
    """A corpus on which TF-IDF can be trained."""
    positives = [Example(f"harvest many code rows {i}", Label.EXTRACTION, "self_chat", (CAPABILITY,)) for i in range(4)]
    negatives = [Example(f"what is the weather today {i}", Label.BENIGN) for i in range(4)]
    return [SeedRow(example, "any", "plain") for example in (*positives, *negatives)]
