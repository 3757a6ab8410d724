"""Which bundle is current, who made it so and on what grounds: promotion, roll-back, and their log.

The log is only ever appended to, and every entry is durable before the pointer moves. An entry begins where the one
before it ended. When something else moved the pointer (a build, a calibration, a crash between log and pointer), the
next promotion or roll-back notes first where it found it.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifier.bundle import names_of, open_bundle, point, read_manifest, verified_file
from classifier.canary import alone, load_canaries, misjudged
from classifier.comparison import Comparison, Outcome, read_report
from classifier.durable import append_line, whole_bytes
from classifier.errors import CanaryFailed, PromotionRefused
from classifier.manifest import Sha256
from classifier.models import BundleId, current_name, find_bundle, identify

LOG = "promotions.jsonl"
MAX_LOG_BYTES = 64 * 2**20
_LOCK = ".promotions.lock"
_Words = Annotated[str, Field(max_length=2_000)]


class Step(StrEnum):
    """What moved the pointer."""

    PROMOTE = "promote"
    ROLL_BACK = "rollback"
    FOUND = "found"


class Promotion(BaseModel):
    """One entry of the log.

    Attributes:
        step: What moved the pointer; "found" when it was something that keeps no log.
        at: When (UTC).
        actor: Who.
        reason: Why, in free words.
        from_name: The folder of the bundle that was current.
        from_sha256: The hash of its manifest.
        to_name: The folder of the bundle that became current.
        to_sha256: The hash of its manifest.
        report: The digest of the report on which it was promoted, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Step
    at: datetime
    actor: _Words
    reason: _Words = ""
    from_name: str
    from_sha256: Sha256
    to_name: str
    to_sha256: Sha256
    report: Sha256 | None = None


def promote(bundles: Path, name: str, report: Path, *, actor: str, reason: str = "", threads: int) -> Promotion:
    """Make a bundle the current one, if a report compares exactly it with exactly the current one and allows it.

    Args:
        bundles: The folder of all bundles.
        name: The candidate, as find_bundle takes it.
        report: What `stillwatch evaluate --against` wrote.
        actor: Who promotes.
        reason: Why.
        threads: Threads of one run of the encoder, to try the candidate with.

    Returns:
        The entry of the log.

    Raises:
        PromotionRefused: When the report is missing, altered, of other bundles, or tells of a regression.
        BundleRejected: When the candidate cannot be found, or is damaged.
        CanaryFailed: When the candidate decides prompts wrongly whose side is clear.
    """
    with _locked(bundles):
        folder = find_bundle(bundles, name)
        if folder.parent.resolve() != bundles.resolve():
            raise PromotionRefused(f"{folder} does not stand in {bundles}: copy it there, then promote it")
        candidate, current = identify(folder), identify(bundles / current_name(bundles))
        if candidate == current:
            raise PromotionRefused(f"{candidate.version} is the current bundle already: nothing was done")
        found = read_report(report)
        _allow(found, candidate, current)
        _try_out(folder, candidate.version, threads)
        entry = _entry(Step.PROMOTE, actor, reason, current, candidate, found.digest())
        _note_where_found(bundles, current)
        _move(bundles, entry)
    return entry


def roll_back(bundles: Path, *, actor: str, reason: str = "") -> Promotion:
    """Make the bundle current that was so before the current one; once more goes back further.

    Args:
        bundles: The folder of all bundles.
        actor: Who rolls back.
        reason: Why.

    Returns:
        The entry of the log.

    Raises:
        PromotionRefused: When the log tells of no bundle before, or it is another one by now.
        BundleRejected: When the bundle before is gone or damaged.
    """
    with _locked(bundles):
        current = identify(bundles / current_name(bundles))
        _note_where_found(bundles, current)
        before = was_current(read_log(bundles))[:-1]
        if not before:
            raise PromotionRefused(f"{LOG} tells of no bundle before {current.version}: promote one by its report")
        name, digest = before[-1]
        target = identify(bundles / name)
        if target.manifest_sha256 != digest:
            raise PromotionRefused(f"{name} is another bundle than the one that was current: promote one by its report")
        _verify(bundles / name)
        entry = _entry(Step.ROLL_BACK, actor, reason, current, target)
        _move(bundles, entry)
    return entry


def read_log(bundles: Path) -> list[Promotion]:
    """Read the log.

    Args:
        bundles: The folder of all bundles.

    Returns:
        Its entries, oldest first; what an interrupted append left is passed over.

    Raises:
        PromotionRefused: When an entry is damaged, or the log is too long.
    """
    try:
        with (bundles / LOG).open("rb") as file:
            data = file.read(MAX_LOG_BYTES + 1)
    except FileNotFoundError:
        return []
    if len(data) > MAX_LOG_BYTES:
        raise PromotionRefused(f"{LOG} is over {MAX_LOG_BYTES} bytes: move its older half elsewhere")
    entries = []
    for number, line in enumerate(data[: whole_bytes(data)].splitlines(), 1):
        try:
            entries.append(Promotion.model_validate_json(line))
        except ValidationError:
            raise PromotionRefused(f"{LOG}, line {number} is damaged: mend it from a backup") from None
    return entries


def was_current(entries: Sequence[Promotion]) -> list[tuple[str, str]]:
    """The bundles through which promotions led to the current one.

    Args:
        entries: The log.

    Returns:
        Folder names and manifest hashes, the current one last. What was rolled back is not among them.
    """
    path: list[tuple[str, str]] = []
    for entry in entries:
        before, after = (entry.from_name, entry.from_sha256), (entry.to_name, entry.to_sha256)
        path = path or [before]
        undone = entry.step == Step.ROLL_BACK or (entry.step == Step.FOUND and path[-2:-1] == [after])
        path = path[:-1] if undone and len(path) > 1 else [*path, after]
    return path


@contextmanager
def _locked(bundles: Path) -> Iterator[None]:
    """Keep other promotions out; the lock ends with the process at the latest."""
    if not bundles.is_dir():
        raise PromotionRefused(f"there is no folder {bundles}: run  stillwatch bundle build")
    with (bundles / _LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PromotionRefused("another promotion or roll-back is under way: wait for it, then try again") from None
        yield


def _allow(report: Comparison, candidate: BundleId, current: BundleId) -> None:
    """Refuse a report of other bundles, and a regression."""
    compared = (report.measured.candidate.manifest_sha256, report.measured.current.manifest_sha256)
    if compared != (candidate.manifest_sha256, current.manifest_sha256):
        raise PromotionRefused(
            f"the report compares {report.measured.candidate.version} with {report.measured.current.version}, and "
            f"{candidate.version} would take the place of {current.version}: run  stillwatch evaluate FROZEN --bundle "
            f"{candidate.name} --against {current.name}"
        )
    if report.verdict == Outcome.WORSE:
        raise PromotionRefused(f"{candidate.version} is worse than {current.version}: {'; '.join(report.grounds)}")


def _try_out(folder: Path, version: str, threads: int) -> None:
    """Refuse what a running server would refuse."""
    canaries = load_canaries()
    wrong = misjudged(alone(open_bundle(folder, threads=threads)), canaries)
    if wrong:
        raise CanaryFailed(
            f"bundle {version} decides {len(wrong)} of {len(canaries)} canary prompts wrongly ({', '.join(wrong)}): "
            "train it again"
        )


def _verify(folder: Path) -> None:
    manifest, _ = read_manifest(folder)
    for name in names_of(manifest):
        verified_file(folder, name, manifest.files[name])


def _note_where_found(bundles: Path, current: BundleId) -> None:
    entries = read_log(bundles)
    if entries and (entries[-1].to_name, entries[-1].to_sha256) != (current.name, current.manifest_sha256):
        last = BundleId(entries[-1].to_name, "", entries[-1].to_sha256)
        _append(bundles, _entry(Step.FOUND, "", "", last, current))


def _entry(
    step: Step, actor: str, reason: str, before: BundleId, after: BundleId, report: str | None = None
) -> Promotion:
    try:
        return Promotion(
            step=step,
            at=datetime.now(UTC),
            actor=actor,
            reason=reason,
            from_name=before.name,
            from_sha256=before.manifest_sha256,
            to_name=after.name,
            to_sha256=after.manifest_sha256,
            report=report,
        )
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise PromotionRefused(f"{where} is too long: give at most 2,000 characters") from None


def _move(bundles: Path, entry: Promotion) -> None:
    _append(bundles, entry)
    point(bundles, entry.to_name)


def _append(bundles: Path, entry: Promotion) -> None:
    append_line(bundles / LOG, entry.model_dump_json().encode())
