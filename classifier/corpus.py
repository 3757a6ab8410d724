"""The seed corpus: the labelled prompts written for this project, kept as JSON Lines under index/seed."""

import json
from dataclasses import dataclass
from importlib.resources import files

from classifier.errors import DataRejected
from index.errors import InvalidExample
from index.example import Example, Label

SOURCE = "seed"
AUTHOR = "stillwatch"


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One row of the corpus.

    Attributes:
        example: The labelled prompt.
        domain: Its topic.
        kind: The shape of the prompt; a name that begins with "hard_" is a hard negative.
    """

    example: Example
    domain: str
    kind: str


def load_corpus() -> list[SeedRow]:
    """Read every row, in the order of the files' names.

    Returns:
        The rows.

    Raises:
        DataRejected: When a row is broken; the message names file and line.
    """
    rows = []
    for file in sorted(files("index").joinpath("seed").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".jsonl"):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
            try:
                rows.append(_row(json.loads(line)))
            except (ValueError, KeyError, TypeError, InvalidExample) as error:
                raise DataRejected(f"{file.name}, line {number}: {type(error).__name__}: {error}") from None
    return rows


def _row(row: dict[str, object]) -> SeedRow:
    capabilities = row["capabilities"]
    if not isinstance(capabilities, list):
        raise TypeError("capabilities must be a list")
    example = Example(
        text=str(row["text"]),
        label=Label(str(row["label"])),
        technique=None if row["technique"] is None else str(row["technique"]),
        capabilities=tuple(map(str, capabilities)),
        language=str(row["language"]),
        source=SOURCE,
        author=AUTHOR,
        note=str(row["kind"]),
    )
    return SeedRow(example, str(row["domain"]), str(row["kind"]))
