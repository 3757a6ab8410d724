"""What a user would try first: length, keywords, TF-IDF. A model that does not beat them is not worth serving."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from classifier.corpus import SeedRow
from classifier.scorer import Labels
from classifier.train.metrics import Scores
from index.example import Label

EXTRACTION = "extraction"
_KEYWORDS = {
    EXTRACTION: r"generate|diverse|dataset|instruction|examples?|tasks?|json|step by step|training|output|format"
    r"|question|solution|come up with|variations?|simulate|role|rewrite",
    "agentic_reasoning": r"tools?|api|function|action|observation|agent|browser|call|click|search",
    "long_horizon_planning": r"plan|schedule|itinerary|milestones?|weeks?|days?|budget|roadmap|goal|constraints?",
    "reasoning_trace": r"prove|proof|solve|reason|step by step|calculate|equation|how many|math|logic",
    "reward_modeling": r"score|rate|grade|rubric|criteria|better|compare|judge|feedback|evaluate",
    "software_engineering": r"code|function|python|java|sql|bug|class|error|script|test|implement",
}


def baseline_scores(rows: Sequence[SeedRow], labels: Labels, texts: Sequence[str]) -> dict[str, Mapping[str, Scores]]:
    """Score texts by three baselines.

    Args:
        rows: The seed corpus, on which TF-IDF is trained.
        labels: Which capabilities are asked for.
        texts: The texts to score.

    Returns:
        For each baseline, for "extraction" and each capability, (n,) scores.
    """
    names = (EXTRACTION, *labels.capabilities)
    length = np.log1p(np.array([len(text) for text in texts], np.float64))
    return {
        "length": dict.fromkeys(names, length),
        "keywords": {name: _keyword_scores(_KEYWORDS.get(name, re.escape(name)), texts) for name in names},
        "TF-IDF": _tfidf_scores(rows, names, texts),
    }


def _keyword_scores(pattern: str, texts: Sequence[str]) -> Scores:
    found = re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    return np.array([len({match.lower() for match in found.findall(text)}) for text in texts], np.float64)


def _tfidf_scores(rows: Sequence[SeedRow], names: Sequence[str], texts: Sequence[str]) -> dict[str, Scores]:
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    known = vectoriser.fit_transform([row.example.text for row in rows])
    asked = vectoriser.transform(texts)
    scores = {}
    for name in names:
        truth = [
            row.example.label == Label.EXTRACTION if name == EXTRACTION else name in row.example.capabilities
            for row in rows
        ]
        model = make_pipeline(LogisticRegression(C=10.0, class_weight="balanced", max_iter=5_000))
        scores[name] = np.asarray(model.fit(known, truth).decision_function(asked), np.float64)
    return scores
