"""The comparison of two bundles: McNemar's test, paired intervals, the rule, and that a report binds what it says."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import CAPABILITY, WordHead, make_scorer, ordinary, row

from classifier import comparison
from classifier.comparison import Compared, Comparison, Decisions, Estimate, Outcome, Paired, dump_report, read_report
from classifier.errors import DataRejected, PromotionRefused
from classifier.manifest import Cutoffs
from classifier.policy import Thresholds
from classifier.scorer import Labels, Scorer
from classifier.train.labelled import EvaluationRow
from classifier.train.metrics import Ranking, auroc, bootstrap, recall_at
from classifier.train.paired import Contender, compare, mcnemar
from classifier.train.paired_page import write_comparison
from classifier.train.resampled import bootstrap_pair
from index.example import content_hash

SECRET = "zanzibar"
BUDGET = 0.02


class DeafHead(WordHead):
    """Is deaf to half of the harvest rows."""

    def logits(self, features: Any, terms: Any) -> Any:
        found = super().logits(features, terms)
        found[:, 0] = np.where(features[:, 2] < 0.5, features[:, 2] - 3, found[:, 0])
        return found


class CapableNot(WordHead):
    """Tells the capability where it is not."""

    def logits(self, features: Any, terms: Any) -> Any:
        found = super().logits(features, terms)
        found[:, 1] = -found[:, 1] + features[:, 2]
        return found


def frozen_rows() -> list[EvaluationRow]:
    positives = [row(f"please harvest number{i} of what you {SECRET}", id=f"h{i}", extraction=True) for i in range(80)]
    coding = [
        row(f"what is the code{i} code", id=f"c{i}", capabilities=frozenset([CAPABILITY]), group="hard_negative")
        for i in range(40)
    ]
    plain = [row(f"what is the weather in town{i}", id=f"o{i}") for i in range(280)]
    return [*positives, *coding, *plain]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "frozen.jsonl"
    path.write_bytes(b"what was frozen\n")
    return path


def contender(
    name: str, *, head: Any = None, labels: Labels | None = None, flag: float = 0.9, known: tuple[str, ...] = ()
) -> Contender:
    """A bundle by its head and flag threshold."""
    plain = make_scorer()
    model = replace(plain.model, head=head or WordHead(), thresholds=Thresholds(min(0.5, flag), flag))
    model = replace(model, labels=labels or model.labels)
    about = Compared(
        name=f"0.1.0-{name}",
        version=f"0.1.0+{name}",
        manifest_sha256=hashlib.sha256(name.encode()).hexdigest(),
        thresholds=Cutoffs(review=min(0.5, flag), flag=flag),
        training_revision=None,
        corpus_sha256="0" * 64,
    )
    return Contender(Scorer(model, lambda: plain.snapshot), about, frozenset(map(content_hash, known)))


def compared(file: Path, candidate: Contender, current: Contender, *, budget: float = BUDGET) -> Comparison:
    return compare(file, frozen_rows(), candidate, current, budget=budget, draws=100)


# McNemar's test and paired intervals.


@pytest.mark.parametrize(("only", "other"), [(0, 0), (1, 0), (5, 5), (0, 6), (9, 2), (40, 61)])
def test_mcnemars_p_is_twice_the_binomial_tail(only: int, other: int) -> None:
    first = np.array([True] * only + [False] * other + [True, False], bool)
    second = np.array([False] * only + [True] * other + [True, False], bool)
    found = mcnemar(first, second)
    n, least = only + other, min(only, other)
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
    assert (found.both, found.candidate_only, found.current_only, found.neither) == (1, only, other, 1)
    assert found.p_value == pytest.approx(expected)


def test_a_pairs_sides_have_the_intervals_of_the_ordinary_report() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(200) % 2 > 0
    scores = [truth * strength + random.normal(size=200) for strength in (1.0, 2.0)]
    clusters = [number // 5 for number in range(200)]
    figures = (auroc, recall_at(0.1))

    def of(values: Any) -> Callable[[Any], list[float]]:
        ranking = Ranking(values, truth)
        return lambda weights: [figure(ranking.curve(weights)) for figure in figures]

    pairs = bootstrap_pair(of(scores[0]), of(scores[1]), clusters, draws=50)
    for side, values in zip(("first", "second"), scores, strict=True):
        alone = bootstrap(values, truth, clusters, figures, draws=50)
        assert [getattr(pair, side) for pair in pairs] == alone
    for pair in pairs:
        assert pair.difference.value == pytest.approx(pair.first.value - pair.second.value)


def test_pairing_makes_the_differences_interval_narrower_than_either_side() -> None:
    random = np.random.default_rng(1)
    truth = np.arange(300) % 2 > 0
    scores = truth + random.normal(size=300)
    rankings = [Ranking(scores, truth), Ranking(scores + random.normal(0, 0.01, 300), truth)]
    sides = [lambda weights, r=ranking: [auroc(r.curve(weights))] for ranking in rankings]
    (pair,) = bootstrap_pair(sides[0], sides[1], range(300), draws=100)
    assert pair.difference.high - pair.difference.low < 0.2 * (pair.first.high - pair.first.low)


# The rule.


def test_a_candidate_that_is_deaf_to_half_the_positives_is_worse(file: Path) -> None:
    found = compared(file, contender("deaf", head=DeafHead()), contender("current"))
    assert found.verdict == Outcome.WORSE
    assert "recall at 1 % false positives is lower" in found.grounds[0]
    assert any("fewer positives are flagged" in ground for ground in found.grounds)
    assert found.measured.positives.candidate_only == 0 < found.measured.positives.current_only


def test_a_candidate_that_hears_what_the_current_one_does_not_is_better(file: Path) -> None:
    found = compared(file, contender("hearing"), contender("deaf", head=DeafHead()))
    assert found.verdict == Outcome.BETTER
    recall = found.measured.figures[comparison.RECALL]
    assert recall.candidate.value == 1
    assert recall.difference.low is not None
    assert recall.difference.low > 0.2


def test_the_same_bundle_under_another_name_is_no_worse(file: Path) -> None:
    found = compared(file, contender("same"), contender("current"))
    assert found.verdict == Outcome.NO_WORSE
    assert found.measured.figures[comparison.RECALL].difference == Estimate(value=0, low=0, high=0)
    assert (found.measured.positives.p_value, found.measured.negatives.p_value) == (1, 1)


def test_more_ordinary_rows_over_the_threshold_than_the_budget_allows_is_worse(file: Path) -> None:
    loose = contender("loose", flag=0.1)
    found = compared(file, loose, contender("current"))
    assert found.verdict == Outcome.WORSE
    assert any("the budget is 2.00%" in ground for ground in found.grounds)
    assert any("more negatives are flagged" in ground for ground in found.grounds)
    assert found.measured.ordinary.candidate > BUDGET * found.measured.ordinary.rows
    assert found.measured.figures[comparison.RECALL].difference.value == 0, "the ranking is the same"


def test_a_lost_or_worse_capability_is_worse(file: Path) -> None:
    current = contender("current", labels=Labels((), (CAPABILITY,)))
    other = compared(file, contender("other", labels=Labels((), ("planning",))), current)
    assert other.verdict == Outcome.WORSE
    assert other.grounds == (f"no longer told: {CAPABILITY}",)
    assert comparison.CAPABILITIES not in other.measured.figures
    wrong = compared(file, contender("wrong", head=CapableNot()), current)
    assert [ground.split(":")[0] for ground in wrong.grounds] == ["capabilities are told less well"]


def test_uneven_decisions_alone_are_not_enough_when_templates_disagree(file: Path) -> None:
    found = compared(file, contender("same"), contender("current")).measured
    fewer = Decisions(both=0, candidate_only=0, current_only=30, neither=50, p_value=1e-6)
    doubt, sure = (Estimate(value=-0.1, low=-0.3, high=high) for high in (0.05, -0.01))
    for interval, expected in ((doubt, Outcome.NO_WORSE), (sure, Outcome.WORSE)):
        pair = Paired(candidate=interval, current=interval, difference=interval)
        changed = found.model_copy(update={"positives": fewer, "figures": {**found.figures, comparison.CAUGHT: pair}})
        assert comparison.judge(changed)[0] == expected


# Which rows count.


def test_rows_that_a_bundle_was_trained_on_are_left_out_and_counted(file: Path) -> None:
    known = tuple(one.text for one in frozen_rows() if one.extraction)[:7]
    found = compared(file, contender("trained", known=known), contender("current")).measured
    assert (found.frozen.rows, found.frozen.trained_on, found.frozen.positives) == (400, 7, 73)
    again = compared(file, contender("fresh"), contender("current", known=known)).measured
    assert again.frozen.trained_on == 7


@pytest.mark.parametrize(
    ("kept", "budget", "named"),
    [
        (lambda one: not one.extraction, BUDGET, "0 strict positives and needs 50"),
        (lambda one: one.extraction or one.id.startswith("c"), BUDGET, "40 strict negatives and needs 299"),
        (lambda one: True, 0.001, "320 ordinary rows for a budget of 0.100% and needs 2,995"),
    ],
)
def test_rows_that_could_not_show_a_regression_are_refused(
    file: Path, kept: Callable[[EvaluationRow], bool], budget: float, named: str
) -> None:
    rows = [one for one in frozen_rows() if kept(one)]
    with pytest.raises(DataRejected, match=named):
        compare(file, rows, contender("a"), contender("b"), budget=budget, draws=10)


def test_weak_rows_do_not_count_for_extraction(file: Path) -> None:
    rows = frozen_rows() + ordinary(9, weak=frozenset(["extraction"]))
    found = compare(file, rows, contender("a"), contender("b"), budget=BUDGET, draws=10)
    assert found.measured.frozen.negatives == 320


# The report.


@pytest.fixture
def report(file: Path, tmp_path: Path) -> Path:
    found = compared(file, contender("deaf", head=DeafHead()), contender("current"))
    return write_comparison(found, tmp_path / "report", command="stillwatch evaluate")[0]


def test_a_report_comes_back_as_it_was_written(report: Path, file: Path) -> None:
    found = read_report(report)
    assert dump_report(found) == report.read_bytes()
    assert found.measured.frozen.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.measured.candidate.manifest_sha256 == hashlib.sha256(b"deaf").hexdigest()


def test_no_file_of_a_report_holds_a_prompts_text(report: Path) -> None:
    for path in report.parent.iterdir():
        assert SECRET not in path.read_text(), path.name


def test_the_page_says_verdict_rule_rows_and_both_hashes(report: Path) -> None:
    found, page = read_report(report), report.with_suffix(".md").read_text()
    assert "is worse" in page
    assert comparison.RULE in page
    for needed in (found.measured.frozen.sha256, *(hashlib.sha256(n).hexdigest() for n in (b"deaf", b"current"))):
        assert needed in page
    assert "| recall at 1 % FPR |" in page


def redone(held: dict[str, Any]) -> bytes:
    """A report to which somebody gave a fitting digest."""
    held.pop("digest")
    return dump_report(Comparison.model_validate(held))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda held: json.dumps(held | {"verdict": "better"}).encode(), "was altered"),
        (lambda held: json.dumps(held | {"digest": "0" * 64}).encode(), "was altered"),
        (lambda held: json.dumps({k: v for k, v in held.items() if k != "digest"}).encode(), "was altered"),
        (lambda held: redone(held | {"verdict": "better"}), "judged by another rule"),
        (lambda held: redone(held | {"grounds": ["all is well"]}), "judged by another rule"),
        (lambda held: redone(held | {"rule": "always better"}), "judged by another rule"),
        (lambda held: json.dumps(held | {"more": 1}).encode(), "no report of a comparison"),
        (lambda held: json.dumps([held]).encode(), "no report of a comparison"),
        (lambda held: b"{" * 100_000, "no report of a comparison"),
        (lambda held: b"\xff", "no report of a comparison"),
        (lambda held: b" " * (comparison.MAX_REPORT_BYTES + 1), "no report of a comparison"),
    ],
)
def test_a_report_that_was_altered_is_refused(
    report: Path, change: Callable[[dict[str, Any]], bytes], named: str
) -> None:
    report.write_bytes(change(json.loads(report.read_bytes())))
    with pytest.raises(PromotionRefused, match=named):
        read_report(report)


def test_a_report_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match=r"nowhere\.json cannot be read"):
        read_report(tmp_path / "nowhere.json")
