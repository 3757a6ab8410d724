"""The bundles of a home: which there are, what each was trained on and measured at, and in what two of them differ."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from classifier.bundle import MANIFEST, read_manifest
from classifier.errors import BundleRejected
from classifier.manifest import Manifest
from classifier.trained import TrainedOn, trained_on

CURRENT = "current"
LEAST_PREFIX = 4
"""Characters of a manifest's hash that suffice to name a bundle, where they fit one only."""


@dataclass(frozen=True, slots=True)
class BundleId:
    """Which bundle.

    Attributes:
        name: Its folder's name.
        version: Its full version: "<version>+<head of the manifest's SHA-256>".
        manifest_sha256: The hash of its manifest, which holds those of all its files.
    """

    name: str
    version: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One bundle of a list.

    Attributes:
        name: Its folder's name.
        version: Its full version; "" when its manifest cannot be read.
        manifest_sha256: The hash of its manifest; "" likewise.
        created: When its manifest was written here (UTC).
        current: Whether it is the current one.
        training_revision: The store's revision that it was trained on; None for the seed corpus.
        corpus_sha256: Fingerprint of what it was trained on.
        corpus_size: How many examples that were.
        review: The review threshold.
        flag: The flag threshold.
        figures: What its manifest reports, by name: cross-validated figures, and those of a calibration.
        problem: Why it cannot be read; "" when it can.
    """

    name: str
    version: str
    manifest_sha256: str
    created: datetime
    current: bool
    training_revision: int | None = None
    corpus_sha256: str = ""
    corpus_size: int = 0
    review: float = 0.0
    flag: float = 0.0
    figures: dict[str, float] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """A training example that only one of two bundles was trained on, or both with other labels.

    Attributes:
        content_hash: SHA-256 of its text's UTF-8 bytes, in hexadecimal.
        source: Where it comes from.
        before: Its label, and technique and capabilities, in the first bundle; "" when it was not there.
        after: The same of the second.
    """

    content_hash: str
    source: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """In what two bundles differ.

    Attributes:
        before: The first.
        after: The second.
        thresholds: For "review" and "flag" both values.
        figures: Of every figure that both report, both values; those that are alike are left out.
        labels_added: Techniques and capabilities that only the second tells.
        labels_removed: Those that only the first tells.
        files: Names of files whose contents differ, or that only one has.
        added: Training examples of the second alone, by hash.
        removed: Training examples of the first alone, by hash.
        relabelled: Training examples of both with other labels, by hash.
    """

    before: ModelRow
    after: ModelRow
    thresholds: dict[str, tuple[float, float]]
    figures: dict[str, tuple[float, float]]
    labels_added: tuple[str, ...]
    labels_removed: tuple[str, ...]
    files: tuple[str, ...]
    added: tuple[Moved, ...]
    removed: tuple[Moved, ...]
    relabelled: tuple[Moved, ...]


def find_bundle(bundles: Path, name: str) -> Path:
    """The bundle that a user names.

    Args:
        bundles: The folder of all bundles.
        name: "current", a folder's name, a full version, the beginning of a manifest's hash, or a folder with a slash.

    Returns:
        The bundle's directory; of the current one the directory that it stands for.

    Raises:
        BundleRejected: When there is no such bundle, or several.
    """
    if "/" in name:
        folder = Path(name).expanduser()
        read_manifest(folder)
        return folder.resolve()
    if name == CURRENT:
        return bundles / current_name(bundles)
    held = _names(bundles)
    whole = [one for one in held if one == name.replace("+", "-")]
    hashed = [one for one in held if one.rpartition("-")[2].startswith(name)] if len(name) >= LEAST_PREFIX else []
    found = whole or hashed
    if len(found) != 1:
        what = f"{len(found)} bundles begin so" if found else "there is no such bundle"
        raise BundleRejected(f"{name[:80]!a}: {what} in {bundles}: run  stillwatch models list")
    return bundles / found[0]


def current_name(bundles: Path) -> str:
    """The name of the current bundle's folder.

    Args:
        bundles: The folder of all bundles.

    Returns:
        The name.

    Raises:
        BundleRejected: When no bundle is current.
    """
    try:
        return (bundles / CURRENT).readlink().name
    except OSError:
        raise BundleRejected(f"no bundle of {bundles} is current: run  stillwatch bundle build") from None


def identify(folder: Path) -> BundleId:
    """Which bundle a folder holds.

    Args:
        folder: The bundle's directory.

    Returns:
        Its names.

    Raises:
        BundleRejected: When there is no valid manifest.
    """
    return _identified(folder)[0]


def list_models(bundles: Path) -> list[ModelRow]:
    """Every bundle, the newest first; one that cannot be read says why.

    Args:
        bundles: The folder of all bundles.

    Returns:
        The bundles.
    """
    try:
        current = current_name(bundles)
    except BundleRejected:
        current = ""
    rows = [_listed(bundles / name, current) for name in _names(bundles)]
    return sorted(rows, key=lambda row: (row.created, row.name), reverse=True)


def show_model(bundles: Path, name: str) -> tuple[ModelRow, Manifest]:
    """One bundle with its manifest.

    Args:
        bundles: The folder of all bundles.
        name: As find_bundle takes it.

    Returns:
        The bundle's row and its manifest.

    Raises:
        BundleRejected: When there is no such bundle, or it cannot be read.
    """
    folder = find_bundle(bundles, name)
    found, manifest = _identified(folder)
    return _row(folder, found, manifest, current=_is_current(bundles, folder)), manifest


def diff_models(bundles: Path, before: str, after: str) -> ModelDifference:
    """In what two bundles differ.

    Args:
        bundles: The folder of all bundles.
        before: The first, as find_bundle takes it.
        after: The second.

    Returns:
        The differences.

    Raises:
        BundleRejected: When a bundle cannot be found or read.
    """
    (first, old), (second, new) = (show_model(bundles, name) for name in (before, after))
    held, given = (trained_on(find_bundle(bundles, name)) for name in (before, after))
    kept = held.keys() & given.keys()
    told, tells = ({*m.head.techniques, *m.head.capabilities} for m in (old, new))
    return ModelDifference(
        before=first,
        after=second,
        thresholds={"review": (first.review, second.review), "flag": (first.flag, second.flag)},
        figures=_changed(old.head.report, new.head.report),
        labels_added=tuple(sorted(tells - told)),
        labels_removed=tuple(sorted(told - tells)),
        files=tuple(n for n in sorted({*old.files, *new.files}) if old.files.get(n) != new.files.get(n)),
        added=_moved(given.keys() - held.keys(), held, given),
        removed=_moved(held.keys() - given.keys(), held, given),
        relabelled=_moved((one for one in kept if not held[one].same_labels(given[one])), held, given),
    )


def by_source(moved: Iterable[Moved]) -> list[tuple[str, int]]:
    """How many examples of each source, the most frequent first."""
    counts = Counter(one.source for one in moved)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _names(bundles: Path) -> list[str]:
    if not bundles.is_dir():
        return []
    found = (path.name for path in bundles.iterdir() if path.is_dir())
    return sorted(name for name in found if name != CURRENT and not name.startswith("."))


def _is_current(bundles: Path, folder: Path) -> bool:
    return (bundles / CURRENT).resolve() == folder.resolve()


def _identified(folder: Path) -> tuple[BundleId, Manifest]:
    manifest, version = read_manifest(folder)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return BundleId(folder.name, version, digest), manifest


def _listed(folder: Path, current: str) -> ModelRow:
    try:
        found, manifest = _identified(folder)
    except BundleRejected as error:
        created = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        return ModelRow(folder.name, "", "", created, folder.name == current, problem=str(error))
    return _row(folder, found, manifest, current=folder.name == current)


def _row(folder: Path, found: BundleId, manifest: Manifest, *, current: bool) -> ModelRow:
    head = manifest.head
    return ModelRow(
        name=found.name,
        version=found.version,
        manifest_sha256=found.manifest_sha256,
        created=datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC),
        current=current,
        training_revision=head.training_revision,
        corpus_sha256=head.corpus_sha256,
        corpus_size=head.corpus_size,
        review=head.thresholds.review,
        flag=head.thresholds.flag,
        figures=head.report,
    )


def _changed(before: dict[str, float], after: dict[str, float]) -> dict[str, tuple[float, float]]:
    names = [name for name in before if name in after and before[name] != after[name]]
    return {name: (before[name], after[name]) for name in names}


def _moved(hashes: Iterable[str], before: dict[str, TrainedOn], after: dict[str, TrainedOn]) -> tuple[Moved, ...]:
    return tuple(
        Moved(one, (after.get(one) or before[one]).source, _said(before.get(one)), _said(after.get(one)))
        for one in sorted(hashes)
    )


def _said(row: TrainedOn | None) -> str:
    if row is None:
        return ""
    return " ".join([row.technique or row.label.value, *row.capabilities])
