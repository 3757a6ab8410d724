"""The Ray dataset of a run: read tasks find splits, a pool of actors writes their parts, and says which."""

import errno
import json
import logging
import queue
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask, read_datasource
from ray.data.block import BlockMetadata

from classifier.batch.splits import Cutter, Split
from classifier.batch.worker import Job, Worker
from classifier.errors import DataRejected, RunRefused, StillwatchError

_SPLIT, _SAID = "split", "said"
_READ_TASKS = 256
_READERS = 4
"""Read tasks at once: one finds splits for some 200 workers."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker answers: an error is an answer, too, so that Ray does not try it again and prints nothing of it.

    Attributes:
        attempt: The attempt that holds the part.
        error: The error's class, or "".
        text: What it says.
        errno: Of an error of the system, else 0.
    """

    attempt: str = ""
    error: str = ""
    text: str = ""
    errno: int = 0


def results(
    cutter: Cutter,
    openings: Sequence[Split],
    left: int | None,
    known: frozenset[tuple[str, int]],
    job: Job,
    workers: int,
) -> Iterator[Said | None]:
    """Write all parts that are missing.

    Args:
        cutter: Finds splits.
        openings: The next part of each input that is not finished.
        left: How many requests and rejects the limit leaves; None: all.
        known: Name and number of parts that are written already.
        job: What workers need.
        workers: How many there are.

    Yields:
        What the workers say, as they end; None from time to time, for the caller to look whether to stop.
    """
    context = DataContext.get_current()
    context.target_max_block_size = 1  # so that a split is on its way as soon as it is found
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.data\.")  # that few inputs fill few workers
    held = ray.put(job)
    # With a limit the inputs are read one after the other, because what is left for one depends on those before it.
    size = len(openings) if left is not None else -(-len(openings) // _READ_TASKS)
    groups = [openings[first : first + size] for first in range(0, len(openings), size)]

    def find(group: Sequence[Split]) -> Callable[[], Iterator[pa.Table]]:
        return lambda: _found(cutter, group, left, known)

    splits = read_datasource(
        _Splits([find(group) for group in groups]),
        num_cpus=0,
        concurrency=min(_READERS, len(groups)),
        override_num_blocks=len(groups),
    )
    said = splits.map_batches(
        _Actor,
        fn_constructor_args=([held],),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
    )
    for row in _polled(said.iter_rows()):
        yield None if row is None else Said(**json.loads(row[_SAID]))


class _Splits(Datasource):  # type: ignore[misc]  # ray is not installed wherever types are checked
    """Splits as a source of Ray's: each read task goes through some inputs."""

    def __init__(self, reads: Sequence[Callable[[], Iterable[pa.Table]]]) -> None:
        super().__init__()
        self._reads = reads

    def get_name(self) -> str:
        return "Splits"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(read, unknown) for read in self._reads]


def _found(
    cutter: Cutter, group: Sequence[Split], left: int | None, known: frozenset[tuple[str, int]]
) -> Iterator[pa.Table]:
    def answer() -> Iterator[str]:
        for split in cutter.cut(group, limit=left, known=known):
            yield split.dumped()

    found = answer()
    while True:
        try:
            text = next(found)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, its words stay here
            yield pa.table({_SPLIT: pa.array([None], pa.string()), _SAID: [_dumped(_fault(error))]})
            return
        yield pa.table({_SPLIT: [text], _SAID: [""]})


class _Actor:
    """A worker in a process of Ray's. What keeps it from its work is what it answers."""

    def __init__(self, held: list[Any]) -> None:
        self._refusal = ""
        try:
            self._worker = Worker(ray.get(held[0]))
        except Exception as error:  # noqa: BLE001  # the same
            self._refusal = _dumped(_fault(error))

    def __call__(self, batch: pa.Table) -> pa.Table:
        said = batch[_SAID][0].as_py() or self._refusal or self._write(Split.loaded(batch[_SPLIT][0].as_py()))
        return pa.table({_SAID: [said]})

    def _write(self, split: Split) -> str:
        try:
            return _dumped(Said(self._worker.write(split)))
        except Exception as error:  # noqa: BLE001  # the same
            return _dumped(_fault(error))


def _fault(error: Exception) -> Said:
    """What may be said of an error; of one that nobody foresaw only kind and place, for its words may be a prompt's."""
    if isinstance(error, DataRejected):
        return Said(error=DataRejected.__name__, text=str(error))
    if isinstance(error, StillwatchError):
        return Said(error=RunRefused.__name__, text=str(error))
    if isinstance(error, OSError):
        return Said(error=OSError.__name__, text=error.strerror or "", errno=error.errno or errno.EIO)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}, line {last.lineno}"
    text = f"a worker failed ({type(error).__name__} in {place}): this is a fault of Stillwatch's, please report it"
    return Said(error=RunRefused.__name__, text=text)


def _dumped(said: Said) -> str:
    return json.dumps(asdict(said), ensure_ascii=True)


def _polled(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any] | None]:
    """Rows as they come, and None in between: Ray's own waiting cannot be ended from outside."""
    came: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()

    def consume() -> None:
        try:
            for row in rows:
                came.put(row)
            came.put(None)
        except BaseException as error:  # noqa: BLE001  # it is raised where the rows are wanted
            came.put(error)

    threading.Thread(target=consume, name="results", daemon=True).start()
    while True:
        try:
            row = came.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            yield None
            continue
        if isinstance(row, BaseException):
            raise RunRefused(
                f"Ray failed ({type(row).__name__}): see that every machine has this version of stillwatch with its ray "
                "extra, and Ray's logs, by default in /tmp/ray/session_latest/logs; then run the same command again"
            ) from None
        if row is None:
            return
        yield row
