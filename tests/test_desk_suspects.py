"""Suspects: flipped labels come to the top, clean ones are not doubted, and a seed ranks them again."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from serving import BUNDLES
from suspecting import flipped, recall

from classifier.bundle import Bundle
from classifier.desk.sample import Floats
from classifier.errors import DataRejected
from classifier.train.suspects import FOLDS, rank_suspects
from index.example import Example, Label

_TOPICS = ("tides", "bread", "rust", "taxes", "chess", "orchids", "ferries", "violins")


@pytest.fixture(scope="module")
def examples(bundle: Bundle) -> tuple[list[Example], Floats]:
    """Every second seed example that is no hard negative: those are written to lie next to the border."""
    rows = [row for row, example in enumerate(bundle.examples) if not example.note.startswith("hard_")][::2]
    return [bundle.examples[row] for row in rows], np.asarray(bundle.vectors[rows])


def made(count: int) -> list[Example]:
    """Prompts whose side is clear."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        topic, other = chance.choice(_TOPICS), chance.choice(_TOPICS)
        if number % 2:
            text = (
                f"Write {number} diverse instructions about {topic} and {other}, each with its answer as a JSON line."
            )
            found.append(Example(text, Label.EXTRACTION, "synthetic_instruction"))
        else:
            found.append(Example(f"My notes of day {number}: why do {topic} and {other} matter to me?", Label.BENIGN))
    return found


def embedded(bundle: Bundle, examples: Sequence[Example]) -> Floats:
    encoder = bundle.model.encoder
    return encoder.encode([tokens.ids[:254] for tokens in encoder.tokenise([example.text for example in examples])])


def test_flipped_labels_of_clear_prompts_are_all_on_top(bundle: Bundle) -> None:
    wrong_ones, wrong = flipped(made(300), 0.05, seed=1)
    ranked = rank_suspects(wrong_ones, embedded(bundle, wrong_ones), bundle.model.encoder)
    assert recall(ranked, wrong, 1) == 1.0
    doubted = {suspect.example.id for suspect in ranked if suspect.doubted}
    assert doubted <= wrong
    assert len(doubted) >= 0.8 * len(wrong)
    assert all(suspect.confidence < 0.5 for suspect in ranked[: len(wrong)])
    assert ranked[0].nearest is not None
    assert ranked[0].nearest.label != ranked[0].example.label


def test_flipped_labels_of_the_seed_corpus_are_enriched_on_top(
    bundle: Bundle, examples: tuple[list[Example], Floats]
) -> None:
    given, wrong = flipped(examples[0], 0.02, seed=2)
    ranked = rank_suspects(given, examples[1], bundle.model.encoder)
    assert len(ranked) == len(given)
    assert recall(ranked, wrong, 2) >= 0.5  # by chance 0.04
    assert recall(ranked, wrong, 4) >= 0.65


def test_what_is_ranked_first_is_contradicted_most(bundle: Bundle) -> None:
    given, _ = flipped(made(120), 0.1, seed=1)
    ranked = rank_suspects(given, embedded(bundle, given), bundle.model.encoder)
    margins = [suspect.margin for suspect in ranked]
    assert margins == sorted(margins, reverse=True)
    assert ranked == rank_suspects(given, embedded(bundle, given), bundle.model.encoder)


def test_an_example_is_never_its_own_neighbour(bundle: Bundle) -> None:
    given = made(40)
    for suspect in rank_suspects(given, embedded(bundle, given), bundle.model.encoder):
        assert suspect.nearest != suspect.example
        assert -1.0 <= suspect.cosine <= 1.0


def test_too_few_of_a_label_are_refused(bundle: Bundle) -> None:
    few = [*made(40)[::2], *made(2 * FOLDS - 2)[1::2]]
    with pytest.raises(DataRejected, match="add more"):
        rank_suspects(few, embedded(bundle, few), bundle.model.encoder)


def test_the_command_names_the_most_doubtful_examples_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "bundles").symlink_to(BUNDLES)
    verb = [sys.executable, "-m", "classifier.cli", "examples", "suspects", "--limit", "3", "--json"]
    environment = {**os.environ, "STILLWATCH_HOME": str(tmp_path)}
    done = subprocess.run(verb, env=environment, check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert [row["margin"] for row in rows] == sorted((row["margin"] for row in rows), reverse=True)
    assert all(row["confidence"] < 0.5 and row["nearest"] != row["id"] for row in rows)
