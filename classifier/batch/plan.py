"""What a run is to do, and what of it decides a row's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classifier.batch.inputs import Source
from classifier.batch.names import spelt
from classifier.batch.output import fingerprint
from classifier.batch.parts import Part
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection
from classifier.batch.shapes import Shape
from classifier.batch.tables import FORMAT_VERSION
from classifier.batch.template import TEMPLATE_VERSION
from classifier.errors import RunRefused
from index.live import Snapshot

ROWS_PER_PART = 50_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    Attributes:
        sources: The inputs, in order.
        output: The folder of its output.
        shape: How rows become requests; None recognises it, input by input.
        selection: Which requests are scored.
        rows_per_part: How many requests and rejected rows a part holds.
        limit: The most requests that are scored or rejected, over all calls; None: all.
        max_rejected: The share of damaged rows over which the run ends, in [0, 1].
        line_bytes: The most bytes of a row.
        embeddings: "float16", "float32", or None: none are written.
        include_prompt: Whether the prompts are written.
        threads: How many batches are scored at once.
    """

    sources: Sequence[Source]
    output: Path
    shape: Shape | None = None
    selection: Selection = field(default_factory=Selection)
    rows_per_part: int = ROWS_PER_PART
    limit: int | None = None
    max_rejected: float = 0.05
    line_bytes: int = 16 * 2**20
    embeddings: str | None = None
    include_prompt: bool = False
    threads: int = 2


def identity(plan: Plan, scoring: Scoring) -> dict[str, object]:
    """All that decides what a row's output is, as JSON.

    Args:
        plan: The run's.
        scoring: Its scorer.

    Returns:
        Names and values. The limit and the bound of rejects are none of it: they only say where a run ends.
    """
    selection, thresholds = plan.selection, scoring.model.thresholds
    return {
        "format": FORMAT_VERSION,
        "template": TEMPLATE_VERSION,
        "bundle": scoring.model.version,
        "index_revision": scoring.snapshot.revision,
        "examples": _examples_hash(scoring.snapshot),
        "review_threshold": thresholds.review,
        "flag_threshold": thresholds.flag,
        "max_prompt_chars": scoring.max_chars,
        "line_bytes": plan.line_bytes,
        "shape": "detected" if plan.shape is None else [plan.shape.name, dict(plan.shape.fields)],
        "sample": selection.sample,
        "seed": selection.seed if selection.sample < 1.0 else None,
        "where": sorted(map(str, selection.conditions)),
        "rows_per_part": plan.rows_per_part,
        "embeddings": plan.embeddings,
        "include_prompt": plan.include_prompt,
    }


def check_inputs(sources: Sequence[Source], parts: Mapping[str, Sequence[Part]]) -> None:
    """Hold the inputs against the parts that are there.

    Args:
        sources: The inputs.
        parts: The finished parts of each input.

    Raises:
        RunRefused: When an input has changed, is gone, or shares its name with another one.
    """
    stamps = {source.name: source.stamp for source in sources}
    if len(stamps) < len(sources):
        raise RunRefused("two inputs have one name: name them by their full paths or URLs")
    for name, own in parts.items():
        if name not in stamps:
            raise RunRefused(
                f"the output holds scores of {spelt(name)}, which is no input now: name all inputs of the run again"
            )
        if stamps[name] != own[0].stamp:
            raise RunRefused(
                f"{spelt(name)} has changed since it was scored, or has another --format: name another output folder, or put back "
                "the file as it was"
            )


def _examples_hash(snapshot: Snapshot) -> str:
    sides = (snapshot.extraction, snapshot.benign)
    rows = sorted((e.id, e.label.value, e.technique, e.capabilities) for side in sides for e in side.examples)
    return fingerprint({"examples": rows})
