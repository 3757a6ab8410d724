"""Reading labelled rows and suspects, scoring many prompts, thresholds, shares and intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import harvest, make_scorer, row, small_corpus

from classifier.errors import DataRejected
from classifier.train.evaluate import evaluate
from classifier.train.judged import REFUSED, cut_at, judge, share
from classifier.train.labelled import read_evaluation, read_suspects
from classifier.train.metrics import Ranking, auroc, average_precision, bootstrap, expected_calibration_error, recall_at
from classifier.train.resampled import bootstrap_calibration, bootstrap_labels

# Reading.


def test_a_row_keeps_its_id_and_technique_and_gets_an_id_where_it_has_none(tmp_path: Path) -> None:
    labels = {"extraction": 1, "capabilities": []}
    named = {"id": "a-1", "text": "one", "technique": "self_chat", "source": "a", **labels}
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [named, {"text": "two", "source": "a", **labels}])))
    first, second = read_evaluation(file)
    assert (first.id, first.technique) == ("a-1", "self_chat")
    assert (second.id, second.technique) == ("a#2", None)


def test_suspects_are_ids_one_a_line_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "suspects.txt"
    file.write_text("# believed to be wrong\n\na-1  # a plain question\nb-2\n  c#3\n")
    assert read_suspects(file) == {"a-1", "b-2", "c#3"}


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe"])
def test_a_file_of_suspects_that_names_none_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "suspects.txt"
    file.write_bytes(content)
    with pytest.raises(DataRejected, match=r"suspects\.txt"):
        read_suspects(file)


# Thresholds, shares and intervals.


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    st.lists(st.integers(-4, 4), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25, 0.5]),
)
def test_what_exceeds_a_cut_is_the_recall_at_its_rate(positives: list[int], negatives: list[int], rate: float) -> None:
    scores = np.array(positives + negatives, np.float64)
    truth = np.arange(len(scores)) < len(positives)
    curve = Ranking(scores, truth).curve(np.ones(len(scores)))
    cut = cut_at(scores[~truth], rate)
    assert (scores[truth] > cut).mean() == pytest.approx(recall_at(rate)(curve))
    assert (scores[~truth] > cut).mean() <= rate


def test_a_cut_of_no_negatives_is_exceeded_by_nothing() -> None:
    assert not (np.array([1.0, 2.0]) > cut_at(np.array([]), 0.01)).any()


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(0, 100, 0.0, 0.03699), (1, 100, 0.00177, 0.05449), (50, 100, 0.40383, 0.59617), (100, 100, 0.96301, 1.0)],
)
def test_a_share_has_its_wilson_interval(hits: int, rows: int, low: float, high: float) -> None:
    found = share(np.arange(rows) < hits)
    assert (found.value, found.low, found.high) == pytest.approx((hits / rows, low, high), abs=1e-5)


def test_figures_of_several_labels_are_those_of_each_and_their_mean() -> None:
    random = np.random.default_rng(1)
    truth = random.random((80, 3)) < 0.3
    truth[:, 2] = False
    scores, clusters = random.random((80, 3)) + 0.5 * truth, list(range(80))
    macro, each = bootstrap_labels(scores, truth, clusters, [auroc, average_precision], draws=30)
    for label in range(2):
        assert each[label] == bootstrap(
            scores[:, label], truth[:, label], clusters, [auroc, average_precision], draws=30
        )
    assert np.isnan(each[2][0].value), "a label without positives has no figure"
    assert macro[0].value == pytest.approx((each[0][0].value + each[1][0].value) / 2)
    assert macro[0].low <= macro[0].value <= macro[0].high


def test_the_calibration_error_with_an_interval_is_the_plain_one() -> None:
    random = np.random.default_rng(2)
    probability = random.random(300)
    truth = random.random(300) < probability**2
    found = bootstrap_calibration(probability, truth, (np.arange(300) // 3).tolist(), draws=100)
    assert found.value == pytest.approx(expected_calibration_error(probability, truth))
    assert 0 <= found.low < found.high <= 1


# Scoring.


def test_a_refused_prompt_spoils_none_of_its_neighbours() -> None:
    found = judge(make_scorer(max_chars=40), ["harvest it", "x" * 41, "weather"])
    assert found.abstentions == (None, REFUSED, None)
    assert found.logits[0] > found.logits[2] > found.logits[1]
    assert found.flagged.tolist() == [True, False, False]


def test_batches_are_bounded_by_rows_and_characters() -> None:
    scorer = make_scorer()
    judge(scorer, ["short"] * 300 + ["x" * 90_000] * 6)
    assert [len(batch) for batch in scorer.batches] == [256, 48, 2]
    assert all(sum(map(len, batch)) <= 400_000 for batch in scorer.batches)


def test_no_prompts_give_empty_arrays() -> None:
    found = judge(make_scorer(), [])
    assert found.logits.shape == (0,)
    assert found.probabilities.shape == (0, 2)


def test_a_row_that_the_scorer_refuses_is_named() -> None:
    with pytest.raises(DataRejected, match="too-long"):
        evaluate([*harvest(2), row("y" * 300, id="too-long")], make_scorer(max_chars=200), small_corpus())
