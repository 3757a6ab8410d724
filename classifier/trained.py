"""What a bundle's head was trained on: labels and sources by content hash, without any text."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from classifier.bundle import TRAINING, parse_examples, read_manifest, verified_file
from classifier.errors import BundleRejected
from index.example import Example, Label

_EXAMPLES = "examples.jsonl"


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """One training example.

    Attributes:
        content_hash: SHA-256 of its text's UTF-8 bytes, in hexadecimal.
        label: What it shows.
        technique: The extraction technique; None for a benign example.
        capabilities: What it targets, sorted.
        source: Where it comes from.
    """

    content_hash: str
    label: Label
    technique: str | None
    capabilities: tuple[str, ...]
    source: str

    def same_labels(self, other: "TrainedOn") -> bool:
        """Whether the other one says the same of its text."""
        return (self.label, self.technique, self.capabilities) == (other.label, other.technique, other.capabilities)


def dump_training(examples: Iterable[Example]) -> bytes:
    """Write training examples as trained_on reads them, in the order of their hashes."""
    rows = sorted(map(_row, examples), key=lambda row: row.content_hash)
    return "".join(json.dumps(asdict(row), ensure_ascii=True) + "\n" for row in rows).encode()


def trained_on(folder: Path) -> dict[str, TrainedOn]:
    """Read what a bundle's head was trained on.

    Args:
        folder: The bundle's directory.

    Returns:
        The training examples by content hash. A bundle without a list of them was trained on the examples that it holds.

    Raises:
        BundleRejected: When the list is missing or altered, or a row is no training example.
    """
    manifest, _ = read_manifest(folder)
    if TRAINING not in manifest.files:
        held = parse_examples(verified_file(folder, _EXAMPLES, manifest.files[_EXAMPLES]))
        return {example.content_hash: _row(example) for example in held}
    found: dict[str, TrainedOn] = {}
    for number, line in enumerate(verified_file(folder, TRAINING, manifest.files[TRAINING]).splitlines(), 1):
        try:
            row = TrainedOn(**json.loads(line))
            row = TrainedOn(row.content_hash, Label(row.label), row.technique, tuple(row.capabilities), row.source)
        except (ValueError, TypeError, RecursionError):
            raise BundleRejected(f"{TRAINING}, row {number} is no training example: train the bundle again") from None
        found[row.content_hash] = row
    return found


def _row(example: Example) -> TrainedOn:
    return TrainedOn(example.content_hash, example.label, example.technique, example.capabilities, example.source)
