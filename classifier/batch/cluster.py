"""The run on many cores or machines by Ray: the same scorer, readers and parts, each part written by one worker.

Ray Data carries no rows, only splits (an input and a position) to the workers, and the names of written parts back. What
is done is known by the parts themselves, as on one machine, so that either engine goes on with what the other began.
"""

import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from classifier.batch import connection
from classifier.batch.ahead import Waiting, drop, left_ahead, take_over, written
from classifier.batch.manifest import RunManifest
from classifier.batch.names import spelt
from classifier.batch.output import AHEAD, held
from classifier.batch.plan import Plan
from classifier.batch.reading import Limits
from classifier.batch.run import Progress, Run, RunArguments
from classifier.batch.scoring import Scoring
from classifier.batch.splits import Cutter, Split
from classifier.batch.worker import job_of
from classifier.config import Settings
from classifier.errors import DataRejected, RunRefused

if TYPE_CHECKING:
    from classifier.batch.dataset import Said


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a run's parts are written.

    Attributes:
        settings: Where the bundle is.
        address: Of a running Ray cluster that this machine is part of; None starts one on this machine alone.
        workers: How many workers write parts; None: one for each core of the cluster.
    """

    settings: Settings
    address: str | None = None
    workers: int | None = None

    def run(
        self, plan: Plan, scoring: Scoring, stop: threading.Event, progress: Callable[[Progress], None]
    ) -> RunManifest:
        """Score what is not scored yet, as `classifier.batch.run.run` does.

        Args:
            plan: What to do.
            scoring: The scorer whose bundle and examples the workers get.
            stop: When it is set, the parts that are being written are dropped and the run ends.
            progress: Told how far the run is.

        Returns:
            The manifest as it was written: its state says whether all is done.

        Raises:
            RunRefused: As `run` does, and when the cluster cannot be used, or a worker fails or does not see the output.
            DataRejected: When an input cannot be read.
            InvalidSetting: When the cluster cannot have so many workers, or its address is of a kind that cannot work.
            MissingExtra: When Ray is not installed.
        """
        connection.require_ray()
        _check_shared(plan)
        with held(plan.output, ahead=True):
            return _ClusterRun(self, plan, scoring, stop, progress).go()


def _check_shared(plan: Plan) -> None:
    for source in plan.sources:
        if source.url.startswith("memory://"):
            raise RunRefused(
                f"{spelt(source.name)} is in the memory of this process, which no worker sees: write it to a file"
            )


class _ClusterRun(Run):
    def __init__(self, cluster: Cluster, plan: Plan, *others: *RunArguments) -> None:
        super().__init__(plan, *others)
        self._cluster = cluster
        self._sources = {source.name: source for source in plan.sources}
        self._waiting: Waiting = {}

    def _score_all(self) -> bool:
        plan, output = self._plan, self._plan.output
        numbers = {name: len(own) - own[-1].cut for name, own in self._parts.items()}
        self._waiting = left_ahead(output, self._fingerprint, self._sources, numbers)
        if plan.limit is not None:  # it is met in the order of the inputs, and what is ahead may lie behind it
            for _, attempt in self._waiting.values():
                drop(output, attempt)
            self._waiting.clear()
        self._take_over()
        left = self._left()
        if not self._all_done() and (left is None or left > 0):
            self._on_workers(left)
        if self._stop.is_set():
            return False
        left = self._left()
        whole = self._all_done()
        if self._waiting or not (whole or (left is not None and left <= 0)):
            raise RunRefused(f"the cluster ended before all parts were written: run again. {self._kept().capitalize()}")
        shutil.rmtree(output / AHEAD, ignore_errors=True)
        return whole

    def _on_workers(self, left: int | None) -> None:
        plan = self._plan
        token = plan.output / AHEAD / secrets.token_hex(8)
        token.parent.mkdir(exist_ok=True)
        token.touch()
        limits = Limits(plan.line_bytes, self._scoring.max_chars)
        cutter = Cutter(plan.shape, limits, plan.selection, plan.rows_per_part)
        try:
            job = job_of(plan, self._fingerprint, self._scoring, self._cluster.settings, token.name)
            with connection.connected(self._cluster.address, self._cluster.workers, job.nbytes) as workers:
                from classifier.batch.dataset import results  # Ray reads its settings when it is imported

                for said in results(cutter, self._openings(), left, frozenset(self._waiting), job, workers):
                    if self._stop.is_set():
                        return
                    if said is not None:
                        self._heard(said)
        finally:
            token.unlink(missing_ok=True)

    def _openings(self) -> list[Split]:
        openings = ((source, self._opening(source)) for source in self._plan.sources)
        return [Split(source, one.number, one.first, again=one.again) for source, one in openings if one is not None]

    def _heard(self, said: "Said") -> None:
        if said.errno:
            raise OSError(said.errno, said.text)
        if said.error:
            refusal = DataRejected if said.error == DataRejected.__name__ else RunRefused
            raise refusal(said.text)
        part = written(self._plan.output, said.attempt)
        key = (part.source, part.number)
        opening = self._opening(self._sources[part.source])
        if key in self._waiting or opening is None or part.number < opening.number:
            drop(self._plan.output, said.attempt)  # Ray may run a split again whose answer was lost
            return
        self._read += part.read
        self._waiting[key] = (part, said.attempt)
        self._take_over()

    def _take_over(self) -> None:
        """Put parts into the output that follow what is there; with a limit, in the order of all inputs."""
        for source in self._plan.sources:
            while (opening := self._opening(source)) and (source.name, opening.number) in self._waiting:
                part, attempt = self._waiting.pop((source.name, opening.number))
                if part.first != opening.first:
                    raise RunRefused(
                        f"{part.name} does not follow the part before it of {spelt(part.source)}: run again; {self._kept()}"
                    )
                take_over(self._plan.output, part, attempt)
                self._took(part)
            if self._plan.limit is not None and opening is not None:
                break
        self._tell()

    def _tell(self) -> None:
        """Say how far the first input is that is not done; the others' parts come as they come."""
        for source in self._plan.sources:
            own = self._parts.get(source.name, [])
            if own and not own[-1].last:
                self._progress(Progress(source, own[-1].next, self._read))
            if not (own and own[-1].last):
                return
