"""The seed corpus holds what it promises."""

from collections import Counter

import numpy as np
import pytest

from classifier.bundle import Bundle
from classifier.corpus import SeedRow, load_corpus
from index.example import Label, content_fingerprint

TECHNIQUES = {
    "agent_trajectory",
    "code_corpus",
    "policy_rewrite",
    "reasoning_trace_coercion",
    "response_distillation",
    "rubric_grading",
    "self_chat",
    "synthetic_instruction",
    "tool_use_harvest",
}
CAPABILITIES = {
    "agentic_reasoning",
    "software_engineering",
    "long_horizon_planning",
    "reasoning_trace",
    "reward_modeling",
}


@pytest.fixture(scope="module")
def rows() -> list[SeedRow]:
    return load_corpus()


def test_there_are_at_least_6000_examples_and_no_text_stands_twice(rows: list[SeedRow]) -> None:
    assert len(rows) >= 6_000
    assert len({row.example.id for row in rows}) == len(rows)


def test_at_least_half_is_benign(rows: list[SeedRow]) -> None:
    assert sum(row.example.label == Label.BENIGN for row in rows) >= len(rows) / 2


def test_every_technique_and_capability_is_there(rows: list[SeedRow]) -> None:
    techniques = Counter(row.example.technique for row in rows if row.example.technique)
    assert set(techniques) == TECHNIQUES
    assert min(techniques.values()) >= 200
    for label in Label:
        capabilities = Counter(c for row in rows if row.example.label == label for c in row.example.capabilities)
        assert set(capabilities) == CAPABILITIES
        assert min(capabilities.values()) >= 150


def test_hard_negatives_are_there(rows: list[SeedRow]) -> None:
    hard = [row for row in rows if row.kind.startswith("hard_")]
    assert len(hard) >= 1_000
    assert all(row.example.label == Label.BENIGN for row in hard)


def test_english_chinese_and_spanish_are_there_with_both_labels(rows: list[SeedRow]) -> None:
    found = Counter((row.example.language, row.example.label) for row in rows)
    assert {language for language, _ in found} == {"en", "zh", "es"}
    assert min(found.values()) >= 180


def test_lengths_and_domains_vary_under_both_labels(rows: list[SeedRow]) -> None:
    for label in Label:
        lengths = [len(row.example.text) for row in rows if row.example.label == label]
        assert np.percentile(lengths, 10) < 150
        assert np.percentile(lengths, 95) > 1_500
        assert len({row.domain for row in rows if row.example.label == label}) > 100


def test_twins_share_a_domain_under_both_labels(rows: list[SeedRow]) -> None:
    twins = {row.domain for row in rows if row.kind.startswith("twin_")}
    ordinary = {row.domain for row in rows if row.kind.startswith("hard_twin_")}
    assert len(twins & ordinary) >= 250


def test_length_alone_does_not_tell_the_labels(rows: list[SeedRow]) -> None:
    lengths = np.array([len(row.example.text) for row in rows])
    truth = np.array([row.example.label == Label.EXTRACTION for row in rows])
    ranks = lengths.argsort().argsort()
    auroc = (ranks[truth].mean() - (truth.sum() - 1) / 2) / (~truth).sum()
    assert 0.35 < auroc < 0.65


def test_at_most_three_percent_are_near_duplicates(bundle: Bundle) -> None:
    cosines = bundle.vectors @ bundle.vectors.T
    np.fill_diagonal(cosines, -1.0)
    assert (cosines.max(axis=1) > 0.95).mean() <= 0.03


def test_no_opening_is_used_over_and_over(rows: list[SeedRow]) -> None:
    openings = Counter(" ".join(row.example.text.lower().split()[:5]) for row in rows if row.example.language != "zh")
    assert openings.most_common(1)[0][1] <= 12


def test_the_default_head_was_trained_on_this_corpus(rows: list[SeedRow], bundle: Bundle) -> None:
    assert bundle.manifest.head.corpus_sha256 == content_fingerprint(row.example for row in rows)
