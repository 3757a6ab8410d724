"""The run on many cores or machines by Ray: the same scorer, readers and parts, each part written by one worker.

Ray Data carries no rows, only splits (an input and a position) to the workers, and the names of written parts back. What
is done is known by the parts themselves, as on one machine, so that either engine goes on with what the other began.
"""

import secrets
import shutil
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from classifier.batch import connection
from classifier.batch.ahead import Waiting, drop, left_ahead, take_over, written
from classifier.batch.manifest import RunManifest
from classifier.batch.output import AHEAD, held
from classifier.batch.plan import Plan
from classifier.batch.reading import Limits, Position
from classifier.batch.run import Progress, Run
from classifier.batch.scoring import Scoring
from classifier.batch.splits import Cutter, Split
from classifier.batch.worker import job_of
from classifier.config import Settings
from classifier.errors import DataRejected, RunRefused

if TYPE_CHECKING:
    from classifier.batch.dataset import Said


def run_on_cluster(
    plan: Plan,
    scoring: Scoring,
    stop: threading.Event,
    progress: Callable[[Progress], None],
    *,
    settings: Settings,
    address: str | None,
    workers: int | None,
) -> RunManifest:
    """Score what is not scored yet.

    Args:
        plan: What to do.
        scoring: The scorer whose bundle and examples the workers get.
        stop: When it is set, the parts that are being written are dropped and the run ends.
        progress: Told how far the run is.
        settings: Where the bundle is.
        address: Of a running Ray cluster that this machine is part of; None starts one on this machine alone.
        workers: How many workers write parts; None: one for each core of the cluster.

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
        return _ClusterRun(plan, scoring, stop, progress, settings, address, workers).go()


def _check_shared(plan: Plan) -> None:
    for source in plan.sources:
        if source.url.startswith("memory://"):
            raise RunRefused(
                f"{source.name} is in the memory of this process, which no worker sees: write it to a file"
            )


class _ClusterRun(Run):
    def __init__(
        self,
        plan: Plan,
        scoring: Scoring,
        stop: threading.Event,
        progress: Callable[[Progress], None],
        settings: Settings,
        address: str | None,
        workers: int | None,
    ) -> None:
        super().__init__(plan, scoring, stop, progress)
        self._settings, self._address, self._workers = settings, address, workers
        self._sources = {source.name: source for source in plan.sources}
        self._waiting: Waiting = {}

    def _score_all(self) -> bool:
        plan, output = self._plan, self._plan.output
        numbers = {name: len(own) for name, own in self._parts.items()}
        self._waiting = left_ahead(output, self._fingerprint, self._sources, numbers, plan.rows_per_part)
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
            job = job_of(plan, self._fingerprint, self._scoring, self._settings, token.name)
            with connection.connected(self._address, self._workers, job.nbytes) as workers:
                from classifier.batch.dataset import results  # Ray reads its settings when it is imported

                for said in results(cutter, self._openings(), left, frozenset(self._waiting), job, workers):
                    if self._stop.is_set():
                        return
                    if said is not None:
                        self._heard(said)
        finally:
            token.unlink(missing_ok=True)

    def _openings(self) -> list[Split]:
        found = []
        for source in self._plan.sources:
            own = self._parts.get(source.name, [])
            if not (own and own[-1].last):
                found.append(Split(source, len(own), own[-1].next if own else Position()))
        return found

    def _heard(self, said: "Said") -> None:
        if said.errno:
            raise OSError(said.errno, said.text)
        if said.error:
            refusal = DataRejected if said.error == DataRejected.__name__ else RunRefused
            raise refusal(said.text)
        part = written(self._plan.output, said.attempt)
        key = (part.source, part.number)
        if key in self._waiting or part.number < len(self._parts.get(part.source, [])):
            drop(self._plan.output, said.attempt)  # Ray may run a split again whose answer was lost
            return
        self._read += part.read
        self._waiting[key] = (part, said.attempt)
        self._take_over()

    def _take_over(self) -> None:
        """Put parts into the output that follow what is there; with a limit, in the order of all inputs."""
        for source in self._plan.sources:
            while (source.name, number := len(self._parts.get(source.name, []))) in self._waiting:
                part, attempt = self._waiting.pop((source.name, number))
                own = self._parts.get(source.name, [])
                if part.first != (own[-1].next if own else Position()) or (own and own[-1].last):
                    raise RunRefused(
                        f"{part.name} does not follow the part before it of {part.source}: run again; {self._kept()}"
                    )
                take_over(self._plan.output, part, attempt)
                self._took(part)
            own = self._parts.get(source.name, [])
            if self._plan.limit is not None and not (own and own[-1].last):
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
