"""A worker: opens bundle and examples once, and writes one part after another, as the single machine's run does."""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from classifier import __version__
from classifier.batch.ahead import attempt_folder, drop, new_attempt
from classifier.batch.feed import Feed
from classifier.batch.output import AHEAD
from classifier.batch.parts import PartWriter, part_name
from classifier.batch.plan import Plan
from classifier.batch.reading import Limits, detect, read
from classifier.batch.repeats import Repeats
from classifier.batch.scoring import Scoring
from classifier.batch.splits import Split, check_seen
from classifier.batch.tables import Columns
from classifier.bundle import MANIFEST, names_of, open_bundle, read_manifest
from classifier.config import Settings
from classifier.errors import RunRefused
from classifier.policy import Thresholds
from index.live import Snapshot

_EXAMPLE_BYTES = 1_000
_VECTOR_BYTES = 8
"""A number of a vector is held twice, for single queries and for batches."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs but the inputs and the output, which it must see under the same names.

    Attributes:
        stillwatch: The version of the code.
        plan: What the run is to do, its output as an absolute path.
        fingerprint: The run's.
        token: Names a file in the output's folder of parts ahead, by which a worker knows that it is the same folder.
        bundle: The bundle's files.
        bundle_version: The bundle's.
        thresholds: Those in force.
        snapshot: The examples.
        max_chars: The most characters of a prompt.
        nbytes: What all this takes, by estimate.
    """

    stillwatch: str
    plan: Plan
    fingerprint: str
    token: str
    bundle: Mapping[str, bytes]
    bundle_version: str
    thresholds: Thresholds
    snapshot: Snapshot
    max_chars: int
    nbytes: int


def job_of(plan: Plan, fingerprint: str, scoring: Scoring, settings: Settings, token: str) -> Job:
    """Put together what workers need.

    Args:
        plan: The run's.
        fingerprint: The run's.
        scoring: The run's scorer.
        settings: Where its bundle is.
        token: The name of the file by which workers know the output.

    Returns:
        The job.

    Raises:
        RunRefused: When the bundle is another one now.
        BundleRejected: When it cannot be read.
    """
    folder = settings.bundle.resolve()
    manifest, version = read_manifest(folder)
    if version != scoring.model.version:
        raise RunRefused(f"the bundle was {scoring.model.version} and is {version} now: run the command again")
    bundle = {name: (folder / name).read_bytes() for name in (MANIFEST, *names_of(manifest))}
    sides = (scoring.snapshot.extraction, scoring.snapshot.benign)
    texts = sum(len(example.text) + _EXAMPLE_BYTES for side in sides for example in side.examples)
    vectors = sum(side.index.size for side in sides) * scoring.model.encoder.dimensions * _VECTOR_BYTES
    return Job(
        stillwatch=__version__,
        plan=replace(plan, output=plan.output.resolve()),
        fingerprint=fingerprint,
        token=token,
        bundle=bundle,
        bundle_version=version,
        thresholds=scoring.model.thresholds,
        snapshot=scoring.snapshot,
        max_chars=scoring.max_chars,
        nbytes=sum(map(len, bundle.values())) + texts + vectors,
    )


class Worker:
    """Writes parts. One thread scores; it is meant to have a core, and a process, of its own."""

    def __init__(self, job: Job) -> None:
        """Open the bundle.

        Args:
            job: The run's.

        Raises:
            RunRefused: When this machine has another version, or does not see the output.
            BundleRejected: When the bundle cannot be opened here.
        """
        self._job, self._plan = job, job.plan
        self._check()
        threadpool_limits(1, user_api="blas")
        with tempfile.TemporaryDirectory(prefix="stillwatch-") as place:  # it is read whole, and then needed no more
            for name, data in job.bundle.items():
                (Path(place) / name).write_bytes(data)
            model = replace(open_bundle(Path(place), threads=1).model, thresholds=job.thresholds)
        embeddings = self._plan.embeddings
        self._scoring = Scoring.of(model, job.snapshot, job.max_chars, embeddings=embeddings is not None)
        self._vector_bytes = 4 * model.encoder.dimensions if embeddings else 0
        self._columns = Columns(
            model.labels.capabilities,
            model.version,
            job.snapshot.revision,
            model.encoder.dimensions,
            embeddings,
            self._plan.include_prompt,
        )

    def write(self, split: Split) -> str:
        """Score a part's rows and write it beside the output.

        Args:
            split: Where it begins.

        Returns:
            The name of the attempt that holds it, whole and durable.

        Raises:
            DataRejected: When the input cannot be read, or is another one here.
            RunRefused: When too many workers were lost with this part.
            OSError: When the output cannot be written.
        """
        plan, source = self._plan, split.source
        check_seen(source)
        limits = Limits(plan.line_bytes, self._job.max_chars)
        shape = plan.shape or detect(source, limits=limits)
        rows = read(source, shape, start=split.first, limits=limits)
        attempt = new_attempt(plan.output, part_name(source.name, split.number, self._job.fingerprint))
        folder = attempt_folder(plan.output, attempt)
        writer = PartWriter(folder, self._columns, source, self._job.fingerprint, split.number)
        with ThreadPoolExecutor(1, "score") as executor:
            feed = Feed(self._scoring, executor, plan.selection, plan.rows_per_part, split.most, self._repeats)
            try:
                for window in feed.windows(source, rows, split.first, split.number):
                    writer.add(window.rows(self._scoring), window.rejects, window.skipped)
                    if window.closes:
                        check_seen(source)  # else the part's stamp would be that of other rows
                        writer.finish(window.first, window.next, last=window.last, cut=window.cut)
                        return attempt
            except BaseException:
                writer.discard()
                drop(plan.output, attempt)
                raise
        raise RuntimeError("a split ended without closing its part")

    def _check(self) -> None:
        if self._job.stillwatch != __version__:
            raise RunRefused(
                f"a worker has stillwatch {__version__}, this machine {self._job.stillwatch}: install one version "
                "everywhere"
            )
        if not (self._plan.output / AHEAD / self._job.token).exists():
            raise RunRefused(
                f"a worker does not see {self._plan.output} as this machine does: name a folder of a file system that "
                "all of them share, under one path"
            )

    def _repeats(self) -> Repeats:
        return Repeats(self._scoring, embedding_bytes=self._vector_bytes)
