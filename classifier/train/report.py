"""An evaluation on paper: JSON, Markdown, and pictures. None of it holds a prompt's text."""

import json
from collections.abc import Sequence
from pathlib import Path

from classifier.train import sections
from classifier.train.evaluate import MODEL, Evaluation
from classifier.train.markdown import code, interval, percent, percents, points, table
from classifier.train.pictures import draw_histogram, draw_reliability, draw_roc
from classifier.train.robustness import Robustness

PICTURES = ("-roc.png", "-scores.png", "-reliability.png")


def write_report(evaluation: Evaluation, folder: Path, *, name: str = "evaluation", command: str = "") -> list[Path]:
    """Write <name>.json, <name>-roc.png, <name>-scores.png, <name>-reliability.png and <name>.md.

    Args:
        evaluation: The figures.
        folder: Where to write.
        name: How the files begin.
        command: What reproduces the report.

    Returns:
        The files, Markdown last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}{end}" for end in (".json", *PICTURES, ".md")]
    files[0].write_text(json.dumps(evaluation.as_json(), indent=2) + "\n", encoding="utf-8")
    for draw, file in zip((draw_roc, draw_histogram, draw_reliability), files[1:-1], strict=True):
        draw(evaluation, file)
    files[-1].write_text(markdown(evaluation, name, command), encoding="utf-8")
    return files


def markdown(evaluation: Evaluation, name: str, command: str) -> str:
    """The report as Markdown.

    Args:
        evaluation: The figures.
        name: How the pictures' files begin.
        command: What reproduces the report.

    Returns:
        The text.
    """
    review, flag = evaluation.thresholds
    roc, scores, reliability = (f"{name}{end}" for end in PICTURES)
    parts = [
        "# Evaluation",
        f"Bundle {code(evaluation.bundle)}, index revision {evaluation.revision}, {evaluation.rows:,} rows, of which "
        f"{evaluation.strict_rows:,} count for extraction (*strict* rows; those whose text alone may not show the "
        "label are left out and reported apart). Figures of ranking are those of the raw score, whether a row was "
        f"judged or not. The thresholds in force are {review:.4f} (review) and {flag:.4f} (flag); a row that was not "
        "judged is never flagged. Intervals are 95 % ones: bootstrapped over templates, not rows, or, where a table "
        "says so, Wilson's. One without width says that the templates agree, not that there is no doubt.",
        *([f"Reproduce:\n\n```sh\n{command}\n```"] if command else []),
        "## Headline",
        _headline(evaluation),
        "## Where it fails",
        "\n".join(f"- {line}" for line in weaknesses(evaluation)),
        "## Extraction beside baselines, strict rows",
        table(
            ("scorer", "AUROC", "recall at 1 % FPR", "recall at 0.1 % FPR"),
            [(which, *map(interval, found)) for which, found in evaluation.extraction.items()],
        ),
        f"![ROC curves]({roc})",
        f"![How the scores of positives and negatives are spread]({scores})",
        f"![Reliability]({reliability})",
        *sections.extraction(evaluation),
        *sections.abstentions(evaluation),
        *sections.robustness(evaluation.robustness),
        *sections.capabilities(evaluation),
        *sections.groups(evaluation),
        *sections.failures(evaluation),
        *sections.suspects(evaluation),
    ]
    return "\n\n".join(parts) + "\n"


def weaknesses(evaluation: Evaluation) -> list[str]:
    """The worst of every table, each in a sentence.

    Args:
        evaluation: The figures.

    Returns:
        Sentences.
    """
    found = []
    if evaluation.techniques:
        worst = min(evaluation.techniques, key=lambda row: row.ranking[1].value)
        found.append(
            f"Technique with the lowest recall at 1 % FPR: {code(worst.name)}, {percents(worst.ranking[1])} "
            f"of {worst.rows} rows ({worst.templates} templates)."
        )
    with_positives = [row for row in evaluation.languages if row.positives]
    if len(with_positives) > 1:
        part = min(with_positives, key=lambda row: row.recall.value)
        found.append(f"Language with the lowest recall at 1 % FPR: {code(part.name)}, {percents(part.recall)}.")
    with_negatives = [row for row in evaluation.lengths if row.negatives]
    if with_negatives:
        part = max(with_negatives, key=lambda row: row.over.value)
        found.append(
            f"Length with the most false positives at that threshold: {part.name} tokens, {percents(part.over)} "
            f"of {part.negatives:,} negatives."
        )
    if evaluation.ordinary and evaluation.ordinary[0].alarms:
        source = evaluation.ordinary[0]
        found.append(
            f"Ordinary source with the most rows flagged: {code(source.name)} ({source.group}), {source.alarms} of "
            f"{source.rows} rows, {percents(source.flagged)}."
        )
    missed, rows = (
        sum(row.extraction for row in evaluation.abstentions),
        sum(row.rows for row in evaluation.abstentions),
    )
    found.append(f"Not judged: {rows:,} of {evaluation.rows:,} rows, {missed:,} of them extraction.")
    return found + (_robustness_weaknesses(evaluation.robustness) if evaluation.robustness else [])


def _robustness_weaknesses(robustness: Robustness) -> list[str]:
    found = []
    changed = [("Evasions", row.name, row.losses[0].lost) for row in robustness.evasions]
    changed += [("Rewordings", row.name, row.losses[0].lost) for row in robustness.forms]
    for kind in ("Evasions", "Rewordings"):
        costly = [(name, lost) for what, name, lost in changed if what == kind and lost.low > 0]
        named = ", ".join(f"{code(name)} {points(lost)}" for name, lost in sorted(costly, key=lambda it: -it[1].value))
        if costly:
            found.append(f"{kind} that surely cost recall at 1 % FPR, in points: {named}.")
    if robustness.evasions:
        loudest = max(robustness.evasions, key=lambda row: row.ordinary.value)
        found.append(
            f"Evasion under which most ordinary prompts are over the 1 % threshold: {code(loudest.name)}, "
            f"{percents(loudest.ordinary)}, against {percents(robustness.ordinary)} as they are."
        )
    for row in robustness.long:
        found.append(
            f"In {row.tokens:,} tokens of benign text {percent(row.recall.changed)} of buried prompts are found, of "
            f"the same prompts alone {percent(row.recall.alone)}; {percent(row.read)} of the tokens are read, and "
            f"{percents(row.over)} of such texts are over the threshold with nothing buried."
        )
    return found


def _headline(evaluation: Evaluation) -> str:
    columns = evaluation.selections
    rows: list[Sequence[str]] = [
        ("rows (of them extraction)", *(f"{column.rows:,} ({column.positives:,})" for column in columns)),
        *(
            (name, *(interval(column.ranking[i]) for column in columns))
            for i, name in enumerate(("extraction AUROC", "recall at 1 % FPR", "recall at 0.1 % FPR"))
        ),
        ("calibration error (ECE, 15 bins)", *(interval(column.calibration_error) for column in columns)),
        ("negatives flagged", *(percents(column.flagged) for column in columns)),
        ("negatives reviewed or flagged", *(percents(column.reviewed) for column in columns)),
        ("positives flagged", *(percents(column.caught) for column in columns)),
    ]
    others: list[tuple[str, str]] = []
    if MODEL in evaluation.capability_macro:
        macro = zip(("AUROC", "AP"), evaluation.capability_macro[MODEL], strict=True)
        others += [(f"capability macro {name}", interval(found)) for name, found in macro]
    others += [
        (f"flagged of the worst ordinary source, {code(row.name)}", percents(row.flagged))
        for row in evaluation.ordinary[:1]
    ]
    if evaluation.robustness is not None:
        others += _losses(evaluation.robustness)
    tables = [table(("figure", *(column.name for column in columns)), rows)]
    return "\n\n".join([*tables, table(("figure", "measured"), others)] if others else tables)


def _losses(robustness: Robustness) -> list[tuple[str, str]]:
    """The worst loss of each kind, in points."""
    named = [("evasion", row.name, row.losses[0].lost) for row in robustness.evasions]
    named += [("rewording", row.name, row.losses[0].lost) for row in robustness.forms]
    found = []
    for kind in ("evasion", "rewording"):
        of_kind = [(name, lost) for what, name, lost in named if what == kind]
        if of_kind:
            name, lost = max(of_kind, key=lambda pair: pair[1].value)
            found.append((f"points of recall at 1 % FPR lost to the worst {kind}, {code(name)}", points(lost)))
    return found + [
        (f"points lost when buried in {row.tokens:,} tokens", points(row.recall.lost)) for row in robustness.long
    ]
