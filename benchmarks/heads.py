"""Compares heads on what they did not see: one or two techniques and a part of the domains are held out at a time.

With a file of labelled prompts, such as ../shared/eval/prompts-dev.jsonl.gz, each head is fitted on the whole corpus as
well and measured on its strict rows. Nothing of that file is trained on. The whole corpus takes long; --share takes a part.

Run:  .venv/bin/python benchmarks/heads.py [prompts.jsonl.gz]
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import special
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from classifier import evidence
from classifier.aggregate import Pooling, aggregate
from classifier.bundle import open_bundle
from classifier.config import Settings
from classifier.corpus import SeedRow, load_corpus
from classifier.encoder import Encoder
from classifier.structure import NAMES, structure
from classifier.text import fold
from classifier.train.features import FOLDS, Floats, bags_of, cut_windows, evidence_of, snapshot_of, views_of
from classifier.train.labelled import read_evaluation
from classifier.train.linear import Examples, Scales, fit_linear, scaling_of, telling_windows
from classifier.train.material import Material, gather
from classifier.train.metrics import Ranking, auroc, recall_at
from classifier.windows import WindowPlan

SEED = 0
COMPONENTS = 128
MEMBERS = 6
Scores = Callable[[Floats, Any], Floats]


class Fit(Protocol):
    """Fits a head on windows."""

    def __call__(self, examples: Examples, dimensions: int) -> Scores:
        """A function from (n, features) and (n, buckets) to (n,) extraction logits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Windows of prompts to score.

    Attributes:
        features: (w, d + e + structure) float32.
        bags: (w, buckets) sparse.
        owners: (w,) the number of each window's view.
        finer: (w,) which are of the second scale.
        prompts: (views,) the number of each view's prompt.
    """

    features: Floats
    bags: Any
    owners: NDArray[np.int64]
    finer: NDArray[np.bool_]
    prompts: NDArray[np.int64]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", nargs="?", type=Path, help="labelled prompts, as `stillwatch evaluate` reads them")
    parser.add_argument("--share", type=float, default=1.0, help="of the corpus' domains, to be quicker (default: 1)")
    parser.add_argument("--only", action="append", choices=list(heads()), help="one of the heads; may be repeated")
    given = parser.parse_args()
    fits = {name: fit for name, fit in heads().items() if not given.only or name in given.only}
    encoder = open_bundle(Settings().bundle, threads=2).model.encoder
    rows, plan = part_of(load_corpus(), given.share), WindowPlan()
    material = with_structure(gather(rows, encoder, plan, seed=SEED, progress=_say), rows)
    dev = None if given.file is None else asked_of_file(given.file, material, rows, encoder, plan)
    held_out = _held_out(material, rows, fits, encoder.dimensions)
    print(
        f"Extraction AUROC, recall at 1 % and at 0.1 % false positives; {len(rows)} seed rows; time to fit on all of them.\n"
    )
    print("| head | held-out techniques and domains | dev rows, strict | fit |\n|---|---|---|---:|")
    for name, fit in fits.items():
        started = time.perf_counter()
        score = fit(material.learnt, encoder.dimensions)
        seconds = time.perf_counter() - started
        on_dev = "" if dev is None else figures(scored(score, dev[0]), dev[1])
        seen = figures(held_out[name], material.targets.extraction)
        print(f"| {name} | {seen} | {on_dev} | {seconds:.0f} s |", flush=True)


def part_of(rows: list[SeedRow], share: float) -> list[SeedRow]:
    """A share of the corpus, by whole domains."""
    domains = sorted({row.domain for row in rows})
    taken = set(np.random.default_rng(SEED).permutation(domains)[: max(1, round(share * len(domains)))].tolist())
    return [row for row in rows if row.domain in taken]


def heads() -> dict[str, Fit]:
    """The heads by name."""
    return {
        "linear, rows as written": lambda e, d: linear_head(e.chosen(np.flatnonzero(e.plain)), d),
        "linear, with variants (shipped)": linear_head,
        "networks on embedding and neighbours": _networks,
        "gradient boosting on embedding, neighbours, structure and word components": _boosted,
        "linear, with structural features": lambda e, d: linear_head(e, d, structural=True),
        "linear + 0.5 gradient boosting": _both(linear_head, _boosted, 0.5),
        "linear + 0.5 networks": _both(linear_head, _networks, 0.5),
    }


def linear_head(examples: Examples, dimensions: int, *, structural: bool = False) -> Scores:
    own = examples if structural else _without_structure(examples)
    linear = fit_linear(own, Scales(), dimensions)
    width = own.features.shape[1]
    return lambda features, bags: linear.logits(features[:, :width], bags)[:, 0]


def _networks(examples: Examples, dimensions: int) -> Scores:
    """The mean of six small networks, because one on so few rows depends on its first weights."""
    own = _without_structure(examples)
    scaling = scaling_of(own, Scales(), dimensions)
    chosen = telling_windows(own, Scales(), scaling)
    scaled = (chosen.features - scaling.centre) / scaling.spread
    members = []
    for number in range(MEMBERS):
        member = MLPClassifier((16,), alpha=0.3, max_iter=8, batch_size=256, random_state=SEED + number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it stops early on purpose
            members.append(member.fit(scaled, chosen.extraction, sample_weight=_balanced(chosen)))
    width = own.features.shape[1]
    return lambda features, bags: _mean_logits(members, (features[:, :width] - scaling.centre) / scaling.spread)


def _mean_logits(members: Sequence[MLPClassifier], scaled: Floats) -> Floats:
    found = [special.logit(np.clip(member.predict_proba(scaled)[:, 1], 1e-7, 1 - 1e-7)) for member in members]
    return np.asarray(np.mean(found, axis=0), np.float32)


def _boosted(examples: Examples, dimensions: int) -> Scores:
    chosen = telling_windows(examples, Scales(), scaling_of(examples, Scales(), dimensions))
    words = TruncatedSVD(COMPONENTS, random_state=SEED).fit(chosen.bags)
    model = HistGradientBoostingClassifier(
        max_iter=200, learning_rate=0.08, max_leaf_nodes=15, l2_regularization=1.0, random_state=SEED
    )
    model.fit(
        np.hstack([chosen.features, words.transform(chosen.bags)]), chosen.extraction, sample_weight=_balanced(chosen)
    )
    return lambda features, bags: np.asarray(
        model.decision_function(np.hstack([features, words.transform(bags)])), np.float32
    )


def _balanced(examples: Examples) -> NDArray[np.float64]:
    """Weights under which both labels count the same, 1 on average."""
    weights, truth = examples.extraction_weights, examples.extraction
    each = np.where(truth, 0.5 / weights[truth].sum(), 0.5 / weights[~truth].sum())
    return np.asarray(weights * each * len(truth), np.float64)


def _both(first: Fit, second: Fit, share: float) -> Fit:
    def fit(examples: Examples, dimensions: int) -> Scores:
        one, other = first(examples, dimensions), second(examples, dimensions)
        return lambda features, bags: one(features, bags) + np.float32(share) * other(features, bags)

    return fit


def _without_structure(examples: Examples) -> Examples:
    return replace(examples, features=examples.features[:, : -len(NAMES)])


def with_structure(material: Material, rows: Sequence[SeedRow]) -> Material:
    """The material with structural features of each window's whole text; a variant has those of its row."""
    found = structure([fold(row.example.text) for row in rows])
    return replace(
        material,
        features=np.hstack([material.features, found[material.windows.owners]]),
        learnt=replace(material.learnt, features=np.hstack([material.learnt.features, found[material.rows_of]])),
    )


def _held_out(
    material: Material, rows: Sequence[SeedRow], fits: Mapping[str, Fit], dimensions: int
) -> dict[str, NDArray[np.float64]]:
    """Score every row by heads that saw neither its technique nor its domain; a benign row's domain only.

    What is held out stands in no variant that is learnt, and is no neighbour of anything.
    """
    techniques = sorted({row.example.technique for row in rows if row.example.technique})
    fold_of_technique = {technique: number % FOLDS for number, technique in enumerate(techniques)}
    domains, of_rows = np.unique([row.domain for row in rows], return_inverse=True)
    fold_of_domain = np.random.default_rng(SEED).integers(FOLDS, size=len(domains))
    folds = np.array(
        [
            fold_of_technique[row.example.technique] if row.example.technique else fold_of_domain[of_rows[number]]
            for number, row in enumerate(rows)
        ]
    )
    found = {name: np.zeros(len(rows)) for name in fits}
    for number in range(FOLDS):
        _say(f"fold {number + 1} of {FOLDS}")
        held = _held(material, rows, np.isin(of_rows, of_rows[folds == number]), dimensions)
        scores = Parallel(n_jobs=2)(delayed(_fitted_and_scored)(*held, fit, dimensions) for fit in fits.values())
        for name, own in zip(fits, scores, strict=True):
            found[name][folds == number] = own[folds == number]
    return found


def _held(
    material: Material, rows: Sequence[SeedRow], unseen: NDArray[np.bool_], dimensions: int
) -> tuple[Examples, Asked]:
    """What is learnt and what is asked when some rows are not known."""
    own, learnt, last = material.features[:, :dimensions], material.without(unseen), -len(NAMES)
    snapshot = snapshot_of(rows, material.windows, own, ~unseen)
    bases = [(owner,) for owner in material.windows.owners.tolist()]
    near = evidence_of(rows, snapshot, own, bases, material.labels)
    asked = Asked(
        np.hstack([own, near, material.features[:, last:]]),
        material.bags,
        material.windows.owners,
        material.windows.finer,
        np.arange(len(rows)),
    )
    some = material.learnt.chosen(learnt)
    standing = material.standing[learnt]
    bases = [tuple(row.tolist()) for row in np.split(standing.indices, standing.indptr[1:-1])]
    near = evidence_of(rows, snapshot, some.features[:, :dimensions], bases, material.labels)
    return replace(some, features=np.hstack([some.features[:, :dimensions], near, some.features[:, last:]])), asked


def _fitted_and_scored(examples: Examples, asked: Asked, fit: Fit, dimensions: int) -> NDArray[np.float64]:
    return scored(fit(examples, dimensions), asked)


def asked_of_file(
    file: Path,
    material: Material,
    rows: Sequence[SeedRow],
    encoder: Encoder,
    plan: WindowPlan,
    *,
    sample: int | None = None,
) -> tuple[Asked, NDArray[np.bool_]]:
    """The windows of a file's strict rows, of all or of a random sample, and which rows are extraction."""
    strict = [row for row in read_evaluation(file) if row.strict]
    if sample is not None and sample < len(strict):
        chosen = np.random.default_rng(SEED).permutation(len(strict))[:sample]
        strict = [strict[number] for number in sorted(chosen.tolist())]
    _say(f"encoding {len(strict)} rows of {file.name}")
    texts, prompts = views_of([row.text for row in strict], encoder)
    windows = cut_windows(texts, encoder, plan)
    embeddings = encoder.encode(windows.sequences)
    snapshot = snapshot_of(rows, material.windows, material.features[:, : encoder.dimensions])
    found = evidence.search(snapshot, embeddings)
    near = evidence.features(found, material.labels.techniques, material.labels.capabilities)
    features = np.hstack([embeddings, near, structure(texts)[windows.owners]])
    asked = Asked(features, bags_of(windows.sequences), windows.owners, windows.finer, prompts)
    return asked, np.array([row.extraction for row in strict])


def scored(score: Scores, asked: Asked) -> NDArray[np.float64]:
    """(prompts,) the highest view of each, pooled without a length penalty."""
    logits = score(asked.features, asked.bags)[:, None]
    found = np.full(int(asked.prompts.max()) + 1, -np.inf)
    starts = np.searchsorted(asked.owners, np.arange(len(asked.prompts)))
    for view, (start, end) in enumerate(zip(starts, [*starts[1:], len(logits)], strict=True)):
        long = int((~asked.finer[start:end]).sum())
        found[asked.prompts[view]] = max(
            found[asked.prompts[view]], float(aggregate(logits[start:end], long, Pooling())[0])
        )
    return found


def figures(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> str:
    curve = Ranking(scores, truth).curve(np.ones(len(truth)))
    return " / ".join(f"{figure(curve):.3f}" for figure in (auroc, recall_at(0.01), recall_at(0.001)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
