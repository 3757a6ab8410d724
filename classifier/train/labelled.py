"""Labelled prompts to measure with, and the list of those that are believed to be mislabelled."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from classifier.errors import DataRejected, InvalidPrompt
from classifier.rows import read_rows
from classifier.text import canonical
from index.example import MAX_TEXT_CHARS


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """A labelled prompt.

    Attributes:
        id: Its name in the file, or its source and line where it has none.
        text: The prompt.
        extraction: Whether it is of a kind used for harvesting.
        technique: By which technique, where it is.
        capabilities: What it targets.
        source: Where it comes from.
        group: The kind of source.
        language: A language code.
        template: Its template within the source, or the whole source where rows were rendered from one template;
            its own number otherwise.
        weak: Labels that the text alone may not show.
    """

    id: str
    text: str
    extraction: bool
    technique: str | None
    capabilities: frozenset[str]
    source: str
    group: str
    language: str
    template: str
    weak: frozenset[str]

    @property
    def strict(self) -> bool:
        """Whether the text alone shows if it is extraction."""
        return "extraction" not in self.weak


def read_evaluation(path: Path) -> list[EvaluationRow]:
    """Read labelled prompts: {text, extraction, capabilities} and, if there, what EvaluationRow names besides.

    Args:
        path: A .jsonl or .jsonl.gz file.

    Returns:
        The rows.

    Raises:
        DataRejected: When the file has no rows, or a row lacks a field.
    """
    rows = []
    for number, row in read_rows(path):
        try:
            source = str(row.get("source") or "unnamed")
            rows.append(
                EvaluationRow(
                    id=str(row.get("id") or f"{source}#{number}"),
                    text=_text(row["text"]),
                    extraction=_truth(row["extraction"]),
                    technique=str(row["technique"]) if row.get("technique") else None,
                    capabilities=_names(row["capabilities"]),
                    source=source,
                    group=str(row.get("group") or "ungrouped"),
                    language=str(row.get("lang") or "unknown"),
                    template=_template(row, source, number),
                    weak=_names(row.get("weak")),
                )
            )
        except (KeyError, TypeError, InvalidPrompt) as error:
            raise DataRejected(
                f"{path.name}, line {number}: needs text, extraction and capabilities ({error}): mend the row"
            ) from None
    if not rows:
        raise DataRejected(f"{path.name} holds no rows: give labelled prompts")
    return rows


def read_suspects(path: Path) -> frozenset[str]:
    """Read the ids of rows that are believed to be mislabelled.

    Args:
        path: A text file with one id a line. What follows the id is a comment, and so is a line that begins with "#".

    Returns:
        The ids.

    Raises:
        DataRejected: When the file cannot be read, or names no id.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataRejected(f"{path} cannot be read ({type(error).__name__}): check the name and the file") from None
    found = frozenset(line.split()[0] for line in lines if line.split() and not line.split()[0].startswith("#"))
    if not found:
        raise DataRejected(f"{path.name} names no row: give one id a line")
    return found


def drawn(rows: Sequence[EvaluationRow], numbers: Iterable[int], size: int, seed: int) -> list[int]:
    """Draw rows so that every source, and within a source every template, has as equal a share as it can fill.

    Args:
        rows: All rows.
        numbers: Which of them may be drawn.
        size: How many at most.
        seed: Of the drawing.

    Returns:
        Row numbers, ascending.
    """
    random = np.random.default_rng(seed)
    shuffled = [int(number) for number in random.permutation(np.array(sorted(numbers), np.int64))]
    by_source: dict[Hashable, list[int]] = {}
    for number in shuffled:
        by_source.setdefault(rows[number].source, []).append(number)
    sources = []
    for held in by_source.values():
        by_template: dict[Hashable, list[int]] = {}
        for number in held:
            by_template.setdefault(rows[number].template, []).append(number)
        sources.append(_by_turns(by_template.values()))
    return sorted(_by_turns(sources)[:size])


def _by_turns(lists: Iterable[Sequence[int]]) -> list[int]:
    return [number for turn in zip_longest(*lists) for number in turn if number is not None]


def _template(row: Mapping[str, object], source: str, number: int) -> str:
    if row.get("template") or row.get("rendered"):
        return f"{source}/{row.get('template') or ''}"
    return f"{source}#{number}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text must be a string")
    canonical(value, MAX_TEXT_CHARS)
    return value


def _truth(value: object) -> bool:
    if value not in (0, 1):  # True and False are 1 and 0
        raise TypeError("extraction must be true, false, 1 or 0")
    return bool(value)


def _names(value: object) -> frozenset[str]:
    if not isinstance(value, list | None):
        raise TypeError("capabilities and weak must be lists")
    return frozenset(map(str, value or []))
