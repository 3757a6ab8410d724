"""The bundle's manifest: what every file must be, and what is known of the head."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scale(_Part):
    """Platt scaling of one label."""

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    offset: Annotated[float, Field(allow_inf_nan=False)]


class Cutoffs(_Part):
    """The thresholds on the extraction probability."""

    review: Probability
    flag: Probability


class HeadCard(_Part):
    """What is known of a head: written by training, carried in the manifest.

    Attributes:
        techniques: Names of the technique logits, in order.
        capabilities: Names of the capability logits, in order.
        calibration: For extraction first, then for each capability.
        thresholds: Where review and flag begin.
        window_length: Tokens in a window.
        window_overlap: Tokens that two windows share.
        token_budget: The most tokens of a prompt that are encoded.
        length_penalty: Taken from the highest window's extraction logit for each unit of ln(windows); 0 in newer bundles.
        finer_offset: Taken from the finer windows' extraction logits.
        least_cosine: A prompt with no example at least so near is not judged.
        canonical_version: The canonical text that training saw.
        lexical_version: The hashing of words that training saw.
        corpus_sha256: Fingerprint of the training examples.
        corpus_size: How many there were.
        training_revision: The example store's revision that they are of; None: they are the seed corpus as it ships.
        seed: Training's seed.
        report: What cross-validation measured, by name.
    """

    techniques: tuple[Name, ...]
    capabilities: tuple[Name, ...]
    calibration: tuple[Scale, ...]
    thresholds: Cutoffs
    window_length: Annotated[int, Field(gt=0, le=510)]
    window_overlap: Annotated[int, Field(ge=0, le=509)]
    token_budget: Annotated[int, Field(gt=0, le=100_000)]
    length_penalty: Annotated[float, Field(ge=0, le=100)]
    finer_offset: Annotated[float, Field(ge=-100, le=100)]
    least_cosine: Annotated[float, Field(ge=-1, le=1)]
    canonical_version: int
    lexical_version: int
    corpus_sha256: Sha256
    corpus_size: int
    training_revision: Annotated[int, Field(ge=1)] | None = None
    seed: int
    report: dict[str, float]

    @field_validator("techniques", "capabilities")
    @classmethod
    def _without_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a name stands twice")
        return names


class Manifest(_Part):
    """The bundle's table of contents.

    Attributes:
        schema_version: The form of this manifest.
        version: The bundle's version, without the hash.
        encoder: The published model that the encoder is made of, and how.
        weights_sha256: That model's hash.
        layers_sha256: The hash of the compact layers that stand in for the published ones.
        precision: The encoder's arithmetic.
        files: SHA-256 of every other file.
        head: What is known of the head.
    """

    schema_version: Literal[1]
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.-]{1,64}$")]
    encoder: str
    weights_sha256: Sha256
    layers_sha256: Sha256
    precision: Literal["int8", "fp32"]
    files: dict[str, Sha256]
    head: HeadCard
