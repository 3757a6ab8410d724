"""A run's manifest, run.json: what was read, with what it was scored, and how much of it is done."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from classifier.batch.parts import Part, write_whole
from classifier.errors import RunRefused

MANIFEST = "run.json"
State = Literal["running", "stopped", "failed", "limited", "done"]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(_Form):
    """How many requests and rows there are of each kind; read is the sum of scored, skipped and rejected."""

    read: int = 0
    scored: int = 0
    skipped: int = 0
    rejected: int = 0
    repeats: int = 0
    untimed: int = 0
    decisions: dict[str, int] = {}
    rejects: dict[str, int] = {}


class Input(_Form):
    """One input: rows is how many rows of the file were read; a row may hold several requests."""

    name: str
    size: int
    stamp: str
    rows: int
    parts: int
    finished: bool
    counts: Counts


class Session(_Form):
    """One call of the command: when, how it ended, and the requests per second of its own reading."""

    started: datetime
    ended: datetime
    state: State
    read: int
    rate: float


class RunManifest(_Form):
    """What run.json holds; identity is all that decides what a row's output is, and its hash the fingerprint."""

    schema_version: Literal[1] = 1
    stillwatch: str
    state: State
    fingerprint: str
    identity: dict[str, object]
    bundle_version: str
    index_revision: int
    thresholds: dict[str, float]
    counts: Counts
    inputs: list[Input]
    sessions: list[Session]


def counted(parts: Iterable[Part | Counts]) -> Counts:
    """Add up parts.

    Args:
        parts: The parts, or sums of some.

    Returns:
        Their sums.
    """
    numbers: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    rejects: Counter[str] = Counter()
    for part in parts:
        for name in ("read", "scored", "skipped", "rejected", "repeats", "untimed"):
            numbers[name] += getattr(part, name)
        decisions.update(part.decisions)
        rejects.update(part.rejects)
    return Counts(**numbers, decisions=dict(sorted(decisions.items())), rejects=dict(sorted(rejects.items())))


def read_manifest(output: Path) -> RunManifest | None:
    """Read a run's manifest.

    Args:
        output: The run's output.

    Returns:
        The manifest; None when there is none.

    Raises:
        RunRefused: When the file is no manifest.
    """
    path = output / MANIFEST
    try:
        return RunManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise RunRefused(f"{path} is no manifest of a run: name another folder, or remove the file") from None


def manifest_of(output: Path) -> RunManifest:
    """Read the manifest of a folder that must be a run's.

    Args:
        output: The run's output.

    Returns:
        The manifest.

    Raises:
        RunRefused: When the folder holds no run, or a damaged one.
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise RunRefused(f"{output} has no {MANIFEST}: name the folder that was a run's --output")
    return manifest


def write_manifest(output: Path, manifest: RunManifest) -> None:
    """Write a run's manifest; it is never seen half written.

    Args:
        output: The run's output.
        manifest: The manifest.
    """
    write_whole(output / MANIFEST, manifest.model_dump_json(indent=2).encode())


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
