"""What the scorer says of a prompt."""

from dataclasses import dataclass
from enum import StrEnum

from index.live import Match


class Decision(StrEnum):
    """What the operator's thresholds make of the extraction probability; ABSTAIN where there is none to trust."""

    ALLOW = "allow"
    REVIEW = "review"
    FLAG = "flag"
    ABSTAIN = "abstain"


class Extent(StrEnum):
    """How much of a prompt was read; NONE where the scorer cannot judge it."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label with its calibrated probability in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Reason:
    """A ground of the decision: a stable code, and a sentence for people that holds no prompt text."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Abstention:
    """Why a prompt was not judged: a stable code, and a sentence for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """How much was read, and where the strongest evidence stands.

    Attributes:
        extent: Everything, or only what the token budget allowed.
        tokens_inspected: Tokens inside the windows, each counted once.
        tokens_total: Tokens of the prompt.
        windows: How many windows were scored.
        strongest_window: Half-open range of code points of the original text with the highest extraction score.
    """

    extent: Extent
    tokens_inspected: int
    tokens_total: int
    windows: int
    strongest_window: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that is known of one prompt.

    Attributes:
        decision: What follows from the probability and the thresholds.
        extraction_probability: In [0, 1], calibrated on held-out rows of the seed corpus.
        extraction_logit: The raw score behind it, kept so that thresholds can be moved later.
        techniques: Probabilities given that the prompt is extraction-style; they add up to 1; highest first.
        capabilities: A probability for each capability, in the bundle's order.
        nearest_examples: The nearest known examples of both labels, highest cosine first.
        reasons: Why the decision is what it is.
        inspected: How much was read.
        abstention: Why the prompt was not judged; None where it was. The scores of a prompt that was not judged mean
            nothing.
    """

    decision: Decision
    extraction_probability: float
    extraction_logit: float
    techniques: tuple[LabelScore, ...]
    capabilities: tuple[LabelScore, ...]
    nearest_examples: tuple[Match, ...]
    reasons: tuple[Reason, ...]
    inspected: Inspection
    abstention: Abstention | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model, which examples and which thresholds gave a verdict.

    Attributes:
        bundle_version: The bundle's version with the head of its manifest's hash.
        index_revision: The example store's revision.
        review_threshold: From which extraction probability a prompt was reviewed.
        flag_threshold: From which it was flagged.
    """

    bundle_version: str
    index_revision: int
    review_threshold: float
    flag_threshold: float


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds that a batch spent in each stage.

    Attributes:
        tokenise: Canonical text, tokens and windows.
        encode: The encoder.
        search: The neighbour search.
        classify: Head, aggregation and decision.
    """

    tokenise: float
    encode: float
    search: float
    classify: float


@dataclass(frozen=True, slots=True)
class Scored:
    """The verdicts of one batch, in the prompts' order."""

    verdicts: tuple[Verdict, ...]
    provenance: Provenance
    times: StageTimes
