"""The run: goes through the inputs part by part, from where an earlier run ended, and keeps the manifest."""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from classifier import __version__
from classifier.batch import manifest as manifests
from classifier.batch.feed import Feed, Window
from classifier.batch.inputs import Source, is_unchanged
from classifier.batch.manifest import Input, RunManifest, Session, State, counted, write_manifest
from classifier.batch.names import spelt
from classifier.batch.output import fingerprint, finished_parts, held
from classifier.batch.parts import Part, PartWriter
from classifier.batch.plan import Plan, check_inputs, identity
from classifier.batch.reading import Limits, Position, detect, read
from classifier.batch.reasons import Reason
from classifier.batch.record import Record, Reject
from classifier.batch.repeats import Repeats
from classifier.batch.scoring import Scoring
from classifier.batch.streams import Stopped
from classifier.batch.tables import Columns
from classifier.errors import DataRejected, RunRefused

_WINDOWS_AHEAD = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REST = 20
"""Writing the manifest of ten thousand inputs takes a second: between two of a run that goes on, so many times as long."""
_LEAST_JUDGED = 1_000
"""A share of rejected rows says nothing before so many were read."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        source: The input that is written.
        position: How far it is.
        read: Requests and rejected rows of this call.
    """

    source: Source
    position: Position
    read: int


@dataclass(frozen=True, slots=True)
class Opening:
    """The part of an input that is written next.

    Attributes:
        number: Its number.
        first: Where its first row begins.
        again: Requests and rejects of the part in whose place it comes, which a limit has counted already.
    """

    number: int
    first: Position
    again: int = 0


RunArguments = tuple[Scoring, threading.Event, Callable[[Progress], None]]
"""What a run is made of beside its plan: see `run`."""


def run(
    plan: Plan, scoring: Scoring, stop: threading.Event, progress: Callable[[Progress], None] = lambda done: None
) -> RunManifest:
    """Score what is not scored yet.

    Args:
        plan: What to do.
        scoring: Scores it.
        stop: When it is set, the part that is being written is dropped and the run ends.
        progress: Told how far the run is.

    Returns:
        The manifest as it was written: its state says whether all is done.

    Raises:
        RunRefused: When the output is another run's, in use, damaged or full, or too many rows are rejected.
        DataRejected: When an input cannot be read, or changes meanwhile.
    """
    with held(plan.output):
        return Run(plan, scoring, stop, progress).go()


class Run:
    """A run on this machine."""

    def __init__(
        self, plan: Plan, scoring: Scoring, stop: threading.Event, progress: Callable[[Progress], None]
    ) -> None:
        """Look at what is done already; the arguments are those of `run`."""
        self._plan, self._scoring, self._stop, self._progress = plan, scoring, stop, progress
        self._identity = identity(plan, scoring)
        self._fingerprint = fingerprint(self._identity)
        self._parts = finished_parts(plan.output, self._identity)
        check_inputs(plan.sources, self._parts)
        self._sums = counted(part for own in self._parts.values() for part in own)
        known = manifests.read_manifest(plan.output)
        self._sessions = list(known.sessions) if known else []
        self._started, self._clock = manifests.now(), time.monotonic()
        self._read, self._due = 0, 0.0
        model = scoring.model
        self._columns = Columns(
            model.labels.capabilities,
            model.version,
            scoring.snapshot.revision,
            model.encoder.dimensions,
            plan.embeddings,
            plan.include_prompt,
        )
        self._vector_bytes = 4 * model.encoder.dimensions if plan.embeddings else 0

    def go(self) -> RunManifest:
        """Score what is not scored yet; see `run`."""
        try:
            self._check_rejects()
            self._keep("running")
            whole = self._score_all()
            if whole:
                self._check_counts()
            return self._keep("stopped" if self._stop.is_set() else "done" if whole else "limited")
        except OSError as error:
            if error.errno in _FULL:
                raise RunRefused(
                    f"there is no space left for {self._plan.output} ({error.strerror}): make room and run the same "
                    f"command again; {self._kept()}"
                ) from None
            raise
        except (RunRefused, DataRejected):
            self._keep("failed")
            raise

    def _left(self) -> int | None:
        """How many requests and rejects the limit leaves; None: all."""
        taken = sum(part.taken for own in self._parts.values() for part in own)
        return None if self._plan.limit is None else self._plan.limit - taken

    def _opening(self, source: Source) -> Opening | None:
        """What of an input is written next; None: nothing."""
        own = self._parts.get(source.name, [])
        if not own:
            return Opening(0, Position())
        last = own[-1]
        if last.cut:
            return Opening(last.number, last.first, last.taken)
        return None if last.last else Opening(len(own), last.next)

    def _all_done(self) -> bool:
        return all(own and own[-1].last for own in (self._parts.get(source.name) for source in self._plan.sources))

    def _score_all(self) -> bool:
        """Score inputs until all are done, the limit is reached or the run is stopped; whether all are done."""
        plan = self._plan
        executor = ThreadPoolExecutor(plan.threads, "score")
        feed = Feed(self._scoring, executor, plan.selection, plan.rows_per_part, self._left(), self._repeats)
        waiting: deque[Window] = deque()
        writing: list[PartWriter] = []
        try:
            for window in self._windows(feed):
                waiting.append(window)
                if len(waiting) > _WINDOWS_AHEAD:
                    self._write(waiting.popleft(), writing)
                if self._stop.is_set():
                    return False
            while waiting and not self._stop.is_set():
                self._write(waiting.popleft(), writing)
        except Stopped:
            return False
        finally:
            executor.shutdown(cancel_futures=True)
            for writer in writing:
                writer.discard()
        return self._all_done()

    def _windows(self, feed: Feed) -> Iterator[Window]:
        for source in self._plan.sources:
            opening = self._opening(source)
            if opening is None:
                continue
            if feed.limit is not None:
                if feed.limit <= 0:
                    return
                feed.limit += opening.again
            self._check_unchanged(source)
            yield from feed.windows(source, self._rows(source, opening.first), opening.first, opening.number)

    def _rows(self, source: Source, start: Position) -> Iterator[tuple[Record | Reject, Position]]:
        limits = Limits(self._plan.line_bytes, self._scoring.max_chars, self._stop)
        shape = self._plan.shape or detect(source, limits=limits)
        return read(source, shape, start=start, limits=limits)

    def _repeats(self) -> Repeats:
        return Repeats(self._scoring, embedding_bytes=self._vector_bytes)

    def _write(self, window: Window, writing: list[PartWriter]) -> None:
        """Wait for a window's scores and write them; close its part where it ends."""
        rows = window.rows(self._scoring)
        if not writing:
            writer = PartWriter(self._plan.output, self._columns, window.source, self._fingerprint, window.part)
            writing.append(writer)
        writing[0].add(rows, window.rejects, window.skipped)
        self._read += window.read
        self._progress(Progress(window.source, window.next, self._read))
        if window.closes:
            self._check_unchanged(window.source)
            part = writing[0].finish(window.first, window.next, last=window.last, cut=window.cut)
            writing.clear()
            self._took(part)

    def _check_unchanged(self, source: Source) -> None:
        """See that what is read is what the part's stamp says: a log that grows or is rotated is another input."""
        if not is_unchanged(source):
            raise DataRejected(
                f"{spelt(source.name)} is gone or was changed during the run: wait until nobody writes it, or name a copy, and "
                f"run again; {self._kept()}"
            )

    def _took(self, part: Part) -> None:
        """A part is in the output now, perhaps in the place of one that a limit cut short."""
        own = self._parts.setdefault(part.source, [])
        if len(own) > part.number:
            own[part.number :] = [part]
            self._sums = counted(one for parts in self._parts.values() for one in parts)
        else:
            own.append(part)
            self._sums = counted((self._sums, part))
        if time.monotonic() >= self._due:
            self._keep("running")
        self._check_rejects()

    def _check_rejects(self) -> None:
        counts = self._sums
        damaged = sum(number for name, number in counts.rejects.items() if Reason(name).is_damage)
        if counts.read and damaged > self._plan.max_rejected * max(counts.read, _LEAST_JUDGED):
            common = ", ".join(f"{name} {number:,}" for name, number in counts.rejects.items())
            raise RunRefused(
                f"{damaged:,} of {counts.read:,} rows cannot be scored ({common}), over the {self._plan.max_rejected:.4g} "
                f"that --max-rejected allows: look into {self._plan.output}/rejects, mend the rows or name their shape; "
                f"or raise it to go on. {self._kept().capitalize()}"
            )

    def _check_counts(self) -> None:
        """Hold the parts on the disk, all of them finished, against the inputs."""
        found = finished_parts(self._plan.output, self._identity)
        for source in self._plan.sources:
            own = found.get(source.name, [])
            follow = own and own[0].first == Position() and own[-1].last and own == self._parts[source.name]
            # A row gives one request or more, or one reject.
            if not follow or sum(part.read for part in own) < own[-1].next.row:
                raise RunRefused(
                    f"the parts of {spelt(source.name)} do not add up to its rows: keep the folder for a report, and run again "
                    "into another one"
                )

    def _kept(self) -> str:
        counts = self._sums
        return f"{sum(map(len, self._parts.values())):,} parts with {counts.read:,} rows are kept"

    def _keep(self, state: State) -> RunManifest:
        """Write the manifest, this call of the command as its last session."""
        began = time.monotonic()
        seconds = max(began - self._clock, 1e-9)
        session = Session(
            started=self._started, ended=manifests.now(), state=state, read=self._read, rate=self._read / seconds
        )
        thresholds = self._scoring.model.thresholds
        said = RunManifest(
            stillwatch=__version__,
            state=state,
            fingerprint=self._fingerprint,
            identity=self._identity,
            bundle_version=self._scoring.model.version,
            index_revision=self._scoring.snapshot.revision,
            thresholds=asdict(thresholds),
            counts=self._sums,
            inputs=[self._input(source) for source in self._plan.sources],
            sessions=[*self._sessions, session],
        )
        write_manifest(self._plan.output, said)
        ended = time.monotonic()
        self._due = ended + _REST * (ended - began)
        return said

    def _input(self, source: Source) -> Input:
        own = self._parts.get(source.name, [])
        return Input(
            name=source.name.encode("utf-8", "surrogateescape").decode(errors="replace"),
            size=source.size,
            stamp=source.stamp,
            rows=own[-1].next.row if own else 0,
            parts=len(own),
            finished=bool(own and own[-1].last),
            counts=counted(own),
        )
