"""Sections of the report on paper, each a list of Markdown blocks."""

from collections.abc import Sequence

from classifier.train.buried import PLACES
from classifier.train.evaluate import Evaluation
from classifier.train.losses import Loss
from classifier.train.markdown import code, interval, number, percent, percents, points, table
from classifier.train.robustness import Robustness
from classifier.train.tables import Failure, GroupRow, PartRow


def extraction(evaluation: Evaluation) -> list[str]:
    """Techniques, lengths, languages and ordinary sources."""
    ordinary = evaluation.ordinary
    highest = (
        [
            f"The highest is {code(ordinary[0].name)} with {percents(ordinary[0].flagged)}; "
            f"{sum(row.alarms for row in ordinary)} of {sum(row.rows for row in ordinary):,} rows are flagged in all."
        ]
        if ordinary
        else ["The file has no rows of these groups."]
    )
    return [
        "## Techniques",
        "Strict positives of each technique against all strict negatives.",
        table(
            ("technique", "rows", "templates", "AUROC", "recall at 1 % FPR", "recall at 0.1 % FPR", "flagged"),
            [
                (
                    row.name,
                    f"{row.rows:,}",
                    f"{row.templates:,}",
                    interval(row.ranking[0]),
                    *map(percents, (*row.ranking[1:], row.flagged)),
                )
                for row in evaluation.techniques
            ],
        ),
        "## Lengths",
        "Strict rows by tokens. *Recall* and *FPR* are the shares of positives and negatives over the threshold at "
        "1 % false positives of all strict negatives; *caught* and *alarms* are the shares flagged at the threshold in "
        "force. Negatives have Wilson intervals.",
        _parts("tokens", evaluation.lengths),
        "## Languages",
        "The same by language, with AUROC where a language has both labels.",
        _parts("language", evaluation.languages),
        _areas(evaluation.languages),
        "## False positives on ordinary prompts",
        "Strict negatives of the groups hard_negative and benign at the flag threshold in force, with Wilson "
        "intervals. " + highest[0],
        table(
            ("source", "group", "rows", "flagged", "share flagged", "over 1 % threshold"),
            [
                (row.name, row.group, f"{row.rows:,}", f"{row.alarms:,}", percents(row.flagged), percent(row.over))
                for row in ordinary
            ],
            left=2,
        ),
    ]


def abstentions(evaluation: Evaluation) -> list[str]:
    """Rows that were not judged."""
    rows = evaluation.abstentions
    if not rows:
        return ["## Not judged", "Every row was judged."]
    return [
        "## Not judged",
        "Rows that the scorer abstained from, weak ones too. *Judged rows only* in the headline leaves them out.",
        table(
            ("reason", "language", "rows", "of them extraction", "share of the language"),
            [
                (code(row.code), row.language, f"{row.rows:,}", f"{row.extraction:,}", percent(row.rows / row.of))
                for row in rows
            ],
            left=2,
        ),
    ]


def robustness(found: Robustness | None) -> list[str]:
    """Evasions, rewordings and long context."""
    if found is None:
        return [
            "## Evasions and long context",
            "Not measured in this run: `stillwatch evaluate FILE --evasions` measures them.",
        ]
    return [
        "## Evasions",
        f"{found.positives} strict positives of {found.templates} templates, balanced over sources, and "
        f"{found.negatives} strict negatives drawn at random, each put through every evasion. The thresholds are those "
        "that undisguised strict negatives set. Points lost are paired and by template; negative ones are gains. "
        "*Ordinary* is the share of the negatives over the 1 % threshold, so that it shows whether the disguise itself "
        "is taken for a crime (Wilson). Recall counts the raw score of prompts that are not judged.",
        table(
            ("evasion", "recall at 1 %", "points lost", "recall at 0.1 %", "points lost", "not judged", "ordinary"),
            [
                _undisguised("none", found.evasions[0].losses, found.not_judged, percents(found.ordinary)),
                *(
                    (row.name, *_lost(row.losses), percent(row.not_judged), percents(row.ordinary))
                    for row in found.evasions
                ),
            ]
            if found.evasions
            else [],
        ),
        "## Paraphrase and translation",
        *_forms(found),
        "## Long context",
        *_long(found),
    ]


def capabilities(evaluation: Evaluation) -> list[str]:
    """Capabilities beside baselines, and one by one."""
    return [
        "## Capabilities, strict rows",
        table(
            ("scorer", "macro AUROC", "macro AP"),
            [(which, *map(interval, found)) for which, found in evaluation.capability_macro.items()],
        ),
        table(
            ("capability", "AUROC", "AP"),
            [(which, *map(interval, found)) for which, found in evaluation.capabilities.items()],
        ),
    ]


def groups(evaluation: Evaluation) -> list[str]:
    """Groups and sources, weak rows too."""
    return [
        "## Groups and sources",
        "All rows, weak ones too. *Over 1 %* is the share over the threshold that 1 % of all strict negatives exceed: "
        "recall for harvest sources, false positives for the others.",
        _groups("group", evaluation.groups),
        _groups("source", evaluation.sources),
    ]


def failures(evaluation: Evaluation) -> list[str]:
    """The worst false positives and misses, by id."""
    return [
        "## Failure gallery",
        "The strict rows that the scorer is furthest wrong about, worst first, by id and never by text. An asterisk "
        "marks a row that was not judged.",
        "### False positives",
        _failures(evaluation.false_alarms),
        "### Misses",
        _failures(evaluation.misses),
    ]


def suspects(evaluation: Evaluation) -> list[str]:
    """The rows that are believed to be mislabelled."""
    if not evaluation.suspects and not evaluation.suspects_elsewhere:
        return []
    elsewhere = evaluation.suspects_elsewhere
    return [
        "## Rows believed to be mislabelled",
        f"{len(evaluation.suspects)} rows; the headline has figures with and without them."
        + (f" Of the list, {elsewhere} more are not in this file." if elsewhere else ""),
        *([", ".join(map(code, evaluation.suspects))] if evaluation.suspects else []),
    ]


def _parts(name: str, rows: Sequence[PartRow]) -> str:
    return table(
        (name, "positives", "recall", "caught", "negatives", "FPR", "alarms"),
        [
            (
                row.name,
                f"{row.positives:,}",
                *map(percents, (row.recall, row.caught)),
                f"{row.negatives:,}",
                *map(percents, (row.over, row.flagged)),
            )
            for row in rows
        ],
    )


def _areas(rows: Sequence[PartRow]) -> str:
    found = [f"{code(row.name)} {interval(row.area)}" for row in rows if row.positives and row.negatives]
    return f"AUROC within a language: {', '.join(found)}." if found else "No language has both labels."


def _undisguised(name: str, losses: Sequence[Loss], not_judged: float, *more: str) -> tuple[str, ...]:
    return (name, *(text for loss in losses for text in (percent(loss.alone), "")), percent(not_judged), *more)


def _lost(losses: Sequence[Loss]) -> list[str]:
    return [text for loss in losses for text in (percent(loss.changed), points(loss.lost))]


def _forms(found: Robustness) -> list[str]:
    if not found.forms:
        return ["Not measured: `classifier/train/pairs.jsonl` is missing or empty."]
    return [
        f"{found.pairs.prompts} harvest prompts of `classifier/train/pairs.jsonl`, at the same thresholds. Languages that "
        "the bundle was not trained on may be declined rather than scored. AUROC is that against the strict negatives of "
        "the form's own language.",
        table(
            ("form", "recall at 1 %", "points lost", "recall at 0.1 %", "points lost", "not judged", "AUROC"),
            [
                _undisguised("text", found.forms[0].losses, found.pairs.not_judged, interval(found.pairs.area)),
                *((row.name, *_lost(row.losses), percent(row.not_judged), interval(row.area)) for row in found.forms),
            ],
        ),
    ]


def _long(found: Robustness) -> list[str]:
    if not found.long:
        return ["Not measured: no strict positive is short enough to be buried."]
    return [
        f"{found.buried} strict positives, each at a random place between paragraphs of a benign text of its own, which "
        "is made of ordinary prompts in random order. *Unaided* is the recall where that text is not over the threshold "
        "by itself. *FPR* and *alarms* are those of the same benign texts with nothing buried, over the 1 % threshold "
        "and flagged (Wilson); such a text joins many prompts, each of which may be over the threshold.",
        table(
            ("tokens", "prompts a text", "recall alone", "buried", "points lost", "unaided", "FPR", "alarms"),
            [
                (
                    f"{row.tokens:,}",
                    f"{row.prompts:.0f}",
                    *map(percent, (row.recall.alone, row.recall.changed)),
                    points(row.recall.lost),
                    percent(row.unaided),
                    *map(percents, (row.over, row.flagged)),
                )
                for row in found.long
            ],
        ),
        "By where the prompt stands, and how much of the whole text is read:",
        table(
            ("tokens", *(f"recall in the {place}" for place in PLACES), "tokens read"),
            [(f"{row.tokens:,}", *map(percent, row.places), percent(row.read)) for row in found.long],
        ),
    ]


def _groups(name: str, rows: Sequence[GroupRow]) -> str:
    return table(
        (name, "rows", "extraction", "strict", "median probability", "over 1 %", "review+", "flagged"),
        [
            (
                row.name,
                *(f"{count:,}" for count in (row.rows, row.extraction, row.strict)),
                number(row.median_probability),
                *map(percent, (row.over, row.reviewed, row.flagged)),
            )
            for row in rows
        ],
    )


def _failures(rows: Sequence[Failure]) -> str:
    return table(
        ("id", "source", "probability"),
        [(code(row.id), row.source, f"{row.probability:.4f}{'' if row.judged else ' *'}") for row in rows],
        left=2,
    )
