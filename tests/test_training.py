"""What training is made of: variants of rows, the head, its export, and how windows are pooled."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from classifier.aggregate import Pooling, aggregate
from classifier.corpus import SeedRow, load_corpus
from classifier.encoder import HashEncoder
from classifier.errors import DataRejected
from classifier.lexical import BUCKETS, terms
from classifier.text import fold
from classifier.train.features import FOLDS, bags_of, folds_of
from classifier.train.fit import BURIED, cross_validate, finer_offset
from classifier.train.linear import HARD_WEIGHT, Examples, Linear, Scales, fit_linear, scaling_of, telling_windows
from classifier.train.material import gather
from classifier.train.publish import PARITY, head_graph, largest_difference
from classifier.train.variants import AMONG, Variant, cut_variants, variants
from classifier.windows import WindowPlan
from index.example import Example, Label

DIMENSIONS = 8


@pytest.fixture(scope="module")
def rows() -> list[SeedRow]:
    return load_corpus()[::60]


@pytest.fixture(scope="module")
def found(rows: list[SeedRow]) -> list[Variant]:
    return variants(rows, folds_of(rows, 3), 3)


def examples(count: int, seed: int = 0) -> Examples:
    """Windows that harvest when a feature is positive, or when they hold the word 7; two to a text."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, DIMENSIONS + 4)).astype(np.float32)
    owners = np.arange(count) // 2
    word = np.repeat(random.random(count // 2) < 0.1, 2)
    harvest = np.repeat(features[::2, 0] > 0, 2) | word
    features[1::2, 0] = features[::2, 0]
    sequences = [[7, 8] if held else random.integers(10, 90, 5).tolist() for held in word]
    return Examples(
        features=features,
        bags=bags_of(sequences),
        owners=owners,
        weights=np.ones(count),
        hard=np.zeros(count, bool),
        plain=owners % 3 > 0,
        extraction=harvest,
        techniques=np.where(harvest, owners % 2, -1),
        capabilities=np.stack([features[:, 2] > 0, features[:, 3] > 0], axis=1),
    )


@pytest.fixture(scope="module")
def linear() -> Linear:
    return fit_linear(examples(6_000), Scales(), DIMENSIONS)


def test_every_row_stands_whole_among_other_benign_text(rows: list[SeedRow], found: list[Variant]) -> None:
    among = found[: AMONG * len(rows)]
    assert sorted(variant.row for variant in among) == sorted([*range(len(rows))] * AMONG)
    for variant in among:
        assert rows[variant.row].example.text in variant.text
        assert variant.around
        assert variant.row not in variant.around
        assert all(rows[other].example.label == Label.BENIGN for other in variant.around)
        assert all(rows[other].example.text.split()[0] in variant.text for other in variant.around)


def test_both_labels_are_disguised(rows: list[SeedRow], found: list[Variant]) -> None:
    disguised = found[AMONG * len(rows) :]
    assert {rows[variant.row].example.label for variant in disguised} == set(Label)
    assert sum(variant.text != rows[variant.row].example.text for variant in disguised) > 0.9 * len(disguised)
    assert not any(variant.around for variant in disguised)


def test_the_same_seed_gives_the_same_variants(rows: list[SeedRow], found: list[Variant]) -> None:
    folds = folds_of(rows, 3)
    assert variants(rows, folds, 3) == found
    assert variants(rows, folds, 4) != found


def test_a_disguised_variant_is_learnt_as_sent_and_undone(rows: list[SeedRow]) -> None:
    text = "Write the tasks for the model and give the answers that it needs"
    html = " ".join(f"<b>{word}</b>" for word in text.split())
    encoder = HashEncoder()
    windows, origins = cut_variants([Variant(text, 0), Variant(html, 1)], encoder, WindowPlan())
    assert origins.tolist() == [0, 1, 1]
    assert windows.owners.tolist() == [0, 1, 2]
    assert windows.sequences[2] == encoder.tokenise([fold(text)])[0].ids
    assert windows.sequences[1] != windows.sequences[2]


def marked_rows() -> list[SeedRow]:
    """Rows of 30 domains, each with a word of its own in all its texts."""
    rows = []
    for number in range(120):
        domain, harvest = number % 30, number % 2 == number // 30 % 2
        text = (
            f"marker{domain} number{number} "
            + ("produce training items " if harvest else "please help me with it ") * 3
        )
        example = Example(
            text=text,
            label=Label.EXTRACTION if harvest else Label.BENIGN,
            technique=("self_chat", "code_corpus")[number % 4 // 2] if harvest else None,
            capabilities=("agentic_reasoning",) if number % 3 == 0 else (),
            language="en",
            source="seed",
            author="test",
        )
        rows.append(SeedRow(example, f"domain{domain}", "hard_one" if not harvest and number % 5 == 0 else "one"))
    return rows


class Silent:
    """A head that says nothing."""

    def logits(self, features: Any, bags: Any) -> Any:
        return np.zeros((len(features), 4), np.float32)


def test_a_head_sees_no_text_of_the_fold_that_it_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, encoder = marked_rows(), HashEncoder()
    material = gather(rows, encoder, WindowPlan())
    seen: list[Examples] = []

    def fit(part: Examples) -> Silent:
        seen.append(part)
        return Silent()

    monkeypatch.setattr("classifier.train.fit.Parallel", lambda n_jobs: lambda jobs: [f(*a, **k) for f, a, k in jobs])
    cross_validate(material, fit)
    assert len(seen) == FOLDS
    for held_out, part in enumerate(seen):
        held = {row.domain for number, row in enumerate(rows) if material.folds[number] == held_out}
        assert held
        for number in range(30):
            marker = encoder.tokenise([f"marker{number}"])[0].ids
            bucket = terms([marker]).buckets[0, 0]
            share = part.bags[:, bucket].nnz / material.learnt.bags[:, bucket].nnz  # some share a bucket by chance
            assert share < 0.2 if f"domain{number}" in held else share > 0.8


def test_a_technique_of_one_fold_alone_is_refused_by_name() -> None:
    rows = marked_rows()
    lonely = replace(rows[0], example=replace(rows[0].example, technique="tool_use_harvest"))
    material = gather([lonely, *rows[1:]], HashEncoder(), WindowPlan())
    with pytest.raises(DataRejected, match="tool_use_harvest"):
        cross_validate(material, lambda part: Silent())


def test_a_variant_counts_as_one_text_and_is_as_hard_as_what_stands_in_it() -> None:
    rows = marked_rows()
    material = gather(rows, HashEncoder(), WindowPlan())
    learnt, hard = material.learnt, np.array([row.kind.startswith("hard_") for row in rows])
    for window in range(len(learnt.owners)):
        standing = material.standing[window].indices
        assert material.rows_of[window] in standing
        assert learnt.hard[window] == (hard[standing].any() and not learnt.extraction[window])
    own = np.unique(learnt.owners[~learnt.plain])
    weight = sum(learnt.weights[learnt.owners == owner].sum() for owner in own)
    assert weight == pytest.approx(len(variants(rows, material.folds, 0)))


def test_no_domain_is_parted_between_folds(rows: list[SeedRow]) -> None:
    folds = folds_of(rows, 0)
    assert set(folds.tolist()) == set(range(FOLDS))
    assert len({(row.domain, fold) for row, fold in zip(rows, folds.tolist(), strict=True)}) == len(
        {row.domain for row in rows}
    )


def test_a_hard_negative_counts_less_for_extraction() -> None:
    some = replace(examples(4), hard=np.array([True, False, True, False]))
    assert (some.extraction_weights / some.weights).tolist() == [HARD_WEIGHT, 1.0, HARD_WEIGHT, 1.0]


def test_embedding_and_words_both_count(linear: Linear) -> None:
    asked = examples(600, seed=5)
    logits = linear.logits(asked.features, asked.bags)[:, 0]
    word = asked.bags[:, terms([[7]]).buckets[0, 0]].toarray().ravel() > 0
    negative = asked.features[:, 0] < 0
    assert logits[~negative & ~word].mean() - logits[negative & ~word].mean() > 1.0
    assert logits[negative & word].mean() - logits[negative & ~word].mean() > 1.0
    assert logits[asked.extraction].min() > logits[~asked.extraction].max() - 1.0


def test_windows_that_show_nothing_of_their_harvest_are_not_learnt_as_harvesting() -> None:
    some = examples(2_000)
    silent = np.arange(2_000) % 2 == 1
    some.features[silent, 0] = -np.abs(some.features[silent, 0]) - 2.0
    telling = telling_windows(some, Scales(), scaling_of(some, Scales(), DIMENSIONS))
    assert (~telling.extraction).sum() == (~some.extraction).sum()
    assert telling.extraction.sum() < 0.75 * some.extraction.sum()
    assert set(telling.owners[telling.extraction].tolist()) == set(some.owners[some.extraction].tolist())


def test_the_exported_head_gives_the_fitted_ones_logits(linear: Linear) -> None:
    assert linear.lexical.shape[0] == BUCKETS
    assert largest_difference(head_graph(linear), linear, 0) < PARITY
    moved = replace(linear, bias=linear.bias + 1.0)
    assert largest_difference(head_graph(linear), moved, 0) == pytest.approx(1.0, abs=0.01)


def test_the_finer_windows_offset_is_how_much_higher_than_allowed_benign_ones_score() -> None:
    random = np.random.default_rng(0)
    finer = np.arange(30_000) % 3 > 0
    benign = (random.normal(size=30_000) + 0.7 * finer).astype(np.float32)
    owners = np.arange(30_000) // 3
    assert finer_offset(benign, finer, owners) == pytest.approx(0.7 - BURIED, abs=0.1)
    assert finer_offset(benign, np.zeros(30_000, bool), owners) == 0.0


def test_extraction_takes_the_highest_window_and_capabilities_the_middle() -> None:
    logits = np.array([[1.0, 4.0], [3.0, 0.0], [4.0, 9.0]], np.float32)
    long_only = aggregate(logits[:2], 2, Pooling(length_penalty=0.5))
    assert long_only.tolist() == pytest.approx([3.0 - 0.5 * np.log(2), 3.0])
    assert aggregate(logits, 2, Pooling(0.0, 0.4)).tolist() == pytest.approx([3.6, 3.0])
    assert aggregate(logits, 2, Pooling(0.0, 1.5)).tolist() == pytest.approx([3.0, 3.0])
