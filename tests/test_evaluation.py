"""The evaluation and its report: what each table counts, and that no file holds a prompt's text."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import CAPABILITY, harvest, make_scorer, ordinary, row, small_corpus

from classifier.train.evaluate import Evaluation, evaluate
from classifier.train.labelled import EvaluationRow
from classifier.train.markdown import percents, points, table
from classifier.train.metrics import Interval
from classifier.train.report import write_report

GERMAN = "Bitte erzählen Sie mir ausführlich, welches Wetter morgen in unserer Stadt erwartet wird"
SECRET = "zanzibar"


def measured_rows() -> list[EvaluationRow]:
    """Two techniques, two languages, three ordinary sources, and rows that the scorer is wrong about."""
    return [
        *harvest(12, capabilities=frozenset([CAPABILITY])),
        *(row(f"quietly take {i}", id=f"missed{i}", extraction=True, technique="code_corpus") for i in range(3)),
        *ordinary(60),
        *ordinary(20, source="forum", group="hard_negative"),
        row("harvest the potatoes | now", id="potatoes", source="farm|ers", group="hard_negative"),
        *(row(f"{GERMAN} {i}", id=f"de{i}", language="de", group="multilingual", source="radio") for i in range(3)),
        *harvest(4, id="weakly", weak=frozenset(["extraction", "capabilities"])),
        row("word " * 300, id="long"),
    ]


def measure(rows: list[EvaluationRow], **given: Any) -> Evaluation:
    return evaluate(rows, make_scorer(), small_corpus(), draws=20, **given)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return measure(measured_rows(), suspects=frozenset(["potatoes", "elsewhere"]))


@pytest.fixture(scope="module")
def files(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The written report."""
    return write_report(evaluation, tmp_path_factory.mktemp("report"), name="held")


def tables_of(text: str) -> Iterator[list[list[str]]]:
    """The cells of every table of a Markdown text."""
    for block in text.split("\n\n"):
        if block.startswith("|"):
            yield [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


# Tables.


def test_the_first_selection_counts_strict_rows_and_the_last_all(evaluation: Evaluation) -> None:
    selections = {found.name: found for found in evaluation.selections}
    assert list(selections) == ["all strict rows", "judged rows only", "without suspects", "weak rows in"]
    assert [found.rows for found in selections.values()] == [100, 97, 99, 104]
    assert selections["all strict rows"].positives == 15
    assert evaluation.strict_rows == 100


def test_figures_are_given_with_and_without_suspects(evaluation: Evaluation) -> None:
    with_them, _, without, _ = evaluation.selections
    assert with_them.ranking[2].value < 0.5, "the false positive stands among the positives"
    assert without.ranking[2].value == pytest.approx(12 / 15)
    assert without.flagged.value == 0 < with_them.flagged.value
    assert evaluation.suspects == ["potatoes"]
    assert evaluation.suspects_elsewhere == 1


def test_a_technique_is_measured_against_all_strict_negatives(evaluation: Evaluation) -> None:
    first, second = evaluation.techniques
    assert (first.name, first.rows, first.templates) == ("self_chat", 12, 4)
    assert (second.name, second.rows) == ("code_corpus", 3)
    assert second.ranking[1].value == second.flagged.value == 0
    assert first.flagged.value == 1


def test_rows_that_are_not_judged_are_counted_and_never_flagged(evaluation: Evaluation) -> None:
    (found,) = evaluation.abstentions
    assert (found.code, found.language, found.rows, found.extraction, found.of) == (
        "UNSUPPORTED_LANGUAGE",
        "de",
        3,
        0,
        3,
    )
    declined = measure([*harvest(3), *(row(f"harvest {GERMAN} {i}", language="de") for i in range(3))])
    (german,) = (part for part in declined.languages if part.name == "de")
    assert german.flagged.value == 0
    assert german.over.value == 0, "none of three may exceed a threshold at 1 %"


def test_length_buckets_hold_every_strict_row_once(evaluation: Evaluation) -> None:
    assert [found.name for found in evaluation.lengths] == ["up to 32", "255-1,000"]
    assert sum(found.positives + found.negatives for found in evaluation.lengths) == evaluation.strict_rows
    assert evaluation.lengths[1].negatives == 1


def test_every_ordinary_source_has_its_false_positives_the_highest_first(evaluation: Evaluation) -> None:
    assert [found.name for found in evaluation.ordinary] == ["farm|ers", "forum", "users"]
    farmers, forum, _ = evaluation.ordinary
    assert (farmers.rows, farmers.alarms, farmers.flagged.value) == (1, 1, 1)
    assert (forum.rows, forum.alarms, forum.flagged.low) == (20, 0, 0)
    assert forum.flagged.high == pytest.approx(0.1611, abs=1e-4)


def test_the_gallery_shows_the_worst_first_and_at_most_twenty(evaluation: Evaluation) -> None:
    assert evaluation.false_alarms[0].id == "potatoes"
    assert {found.id for found in evaluation.misses[:3]} == {"missed0", "missed1", "missed2"}
    assert len(evaluation.false_alarms) == 20
    assert len(evaluation.misses) == 15
    probabilities = [found.probability for found in evaluation.misses]
    assert probabilities == sorted(probabilities)


def test_a_share_on_which_all_templates_agree_is_not_taken_for_certain(evaluation: Evaluation) -> None:
    caught = evaluation.techniques[0].flagged
    assert (caught.value, caught.high) == (1, 1)
    assert caught.low == pytest.approx(0.5101, abs=1e-4), "four templates of four, however many rows"


def test_rows_of_one_class_are_measured_without_figures_of_ranking() -> None:
    found = measure(ordinary(12))
    assert np.isnan(found.selections[0].ranking[0].value)
    assert found.techniques == []
    assert found.as_json()["misses"] == []


# The report.


def test_the_report_is_written_without_any_prompts_text(tmp_path: Path) -> None:
    rows = [replace(found, text=f"{SECRET} {found.text} {SECRET}") for found in measured_rows()]
    files = write_report(measure(rows, evasions=True), tmp_path, command="stillwatch evaluate rows.jsonl --evasions")
    assert [file.name for file in files] == [
        "evaluation.json",
        "evaluation-roc.png",
        "evaluation-scores.png",
        "evaluation-reliability.png",
        "evaluation.md",
    ]
    written = everything_in(tmp_path)
    assert SECRET.encode() not in written
    assert not any(found.text.encode() in written for found in rows)


def test_the_json_is_strict_and_holds_no_scores_of_rows(files: list[Path]) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    held = json.loads(files[0].read_text(), parse_constant=refuse)
    assert "plotted" not in held
    assert held["selections"][0]["name"] == "all strict rows"


def test_every_table_of_the_report_is_whole_and_at_most_eight_columns_wide(files: list[Path]) -> None:
    text = files[-1].read_text()
    found = list(tables_of(text))
    assert len(found) >= 12
    for cells in found:
        assert len(cells[0]) <= 8
        assert {len(line) for line in cells} == {len(cells[0])}
    assert "farm\\|ers" in text


def test_the_report_begins_with_the_headline_and_names_failures(files: list[Path]) -> None:
    text = files[-1].read_text()
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[:2] == ["Headline", "Where it fails"]
    assert "`code_corpus`" in text
    assert "stillwatch evaluate FILE --evasions" in text, "what was not measured is said"
    assert "nan" not in text


def test_every_picture_of_the_report_is_written(files: list[Path]) -> None:
    text = files[-1].read_text()
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 3
    assert all((files[-1].parent / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_the_same_rows_give_the_same_report(files: list[Path], tmp_path: Path) -> None:
    again = measure(measured_rows(), suspects=frozenset(["potatoes", "elsewhere"]))
    write_report(again, tmp_path, name="held")
    assert everything_in(tmp_path) == everything_in(files[0].parent)


def test_figures_on_paper_have_units_and_no_negative_zero() -> None:
    assert percents(Interval(0.004, 0.001, 0.012)) == "0.40 % [0.10, 1.20]"
    assert percents(Interval(0.5, 0.25, 0.75)) == "50.0 % [25.0, 75.0]"
    assert points(Interval(-0.0001, -0.02, 0.031)) == "0.0 [-2.0, 3.1]"
    assert percents(Interval(float("nan"), float("nan"), float("nan"))) == "–"  # noqa: RUF001  # an en dash


def test_a_cell_cannot_break_a_table() -> None:
    assert table(("a", "b"), [("x | y\nz", "")]).splitlines()[2] == "| x \\| y z | – |"  # noqa: RUF001  # an en dash
