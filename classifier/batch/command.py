"""What `stillwatch rescore` does: makes a plan of the options, shows progress, and stops at Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from classifier.config import Settings
from classifier.errors import InvalidSetting, MissingExtra
from classifier.runtime import open_runtime, threads_of
from index.example import is_unicode

if TYPE_CHECKING:
    from classifier.batch.inputs import Source
    from classifier.batch.manifest import RunManifest
    from classifier.batch.plan import Plan
    from classifier.batch.run import Progress
    from classifier.batch.scoring import Scoring
    from classifier.batch.shapes import Shape

    Engine = Callable[[Plan, Scoring, threading.Event, Callable[[Progress], None]], RunManifest]

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Request:
    """The options, as they were given.

    Attributes:
        inputs: Files, directories, globs or URLs.
        output: The folder of the output.
        format: Of inputs whose suffix does not tell.
        shape: A shape's name, or None.
        fields: Each "field=path".
        where: Conditions.
        sample: The share of rows that are scored.
        seed: Of the sample.
        limit: The most rows, or None.
        max_rejected: The share of damaged rows over which the run ends.
        rows_per_part: Rows of one part.
        max_row_bytes: The most bytes of a row.
        embeddings: "float16", "float32" or None.
        include_prompt: Whether prompts are written.
        engine: One of ENGINES.
        ray_address: Of a running Ray cluster; None starts one here.
        workers: How many workers Ray has; None: one for each core.
    """

    inputs: tuple[str, ...]
    output: Path
    format: str | None = None
    shape: str | None = None
    fields: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    sample: float = 1.0
    seed: int = 0
    limit: int | None = None
    max_rejected: float = 0.05
    rows_per_part: int = 50_000
    max_row_bytes: int = 16 * 2**20
    embeddings: str | None = None
    include_prompt: bool = False
    engine: str = "local"
    ray_address: str | None = None
    workers: int | None = None


def rescore_logs(
    request: Request, settings: Settings, note: Callable[[str], None] = lambda text: None
) -> "RunManifest":
    """Score logs, going on where an earlier call ended.

    Args:
        request: The options.
        settings: Where bundle and examples are.
        note: Told what an operator should know of the inputs before they are read.

    Returns:
        The run's manifest.

    Raises:
        MissingExtra: When a package of the batch extra is not installed.
        InvalidSetting: When an option is not valid.
        DataRejected: When an input cannot be read or recognised.
        RunRefused: When the output folder is another run's, in use, damaged or full, or too many rows are rejected.
    """
    try:
        from classifier.batch.run import run
        from classifier.batch.scoring import Scoring
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a package", "batch") from None
    plan = plan_of(request, threads_of(settings), note)
    engine = run if request.engine == "local" else _on_ray(request, settings)
    with open_runtime(settings_of_run(settings)) as runtime, _stopping() as stop, _shown(plan) as told:
        return engine(plan, Scoring(runtime, embeddings=plan.embeddings is not None), stop, told)


def settings_of_run(settings: Settings) -> Settings:
    """Settings under which a row's scores depend on its batch alone, to the bit.

    Args:
        settings: The operator's.

    Returns:
        Each batch is encoded by the thread that scores it, and no embedding is kept from another batch, whose rounding
        depends on what was beside it: a run that was ended has forgotten those of its earlier parts.
    """
    return settings.model_copy(update={"threads": 1, "window_cache_entries": 0})


def _on_ray(request: Request, settings: Settings) -> "Engine":
    from classifier.batch.cluster import Cluster
    from classifier.batch.connection import require_ray

    require_ray()
    return Cluster(settings, request.ray_address, request.workers).run


def plan_of(request: Request, threads: int, note: Callable[[str], None] = lambda text: None) -> "Plan":
    """Make a plan of the options.

    Args:
        request: The options.
        threads: How many batches are scored at once.
        note: Told of inputs that are one file.

    Returns:
        The plan.

    Raises:
        InvalidSetting: When an option is not valid.
        DataRejected: When there is no such input.
    """
    from classifier.batch.inputs import find
    from classifier.batch.output import check_local
    from classifier.batch.plan import Plan
    from classifier.batch.selection import Selection, parse_conditions
    from classifier.batch.tables import EMBEDDINGS

    check_local(request.output)
    if request.embeddings is not None and request.embeddings not in EMBEDDINGS:
        raise InvalidSetting(f"embeddings are written as {' or '.join(EMBEDDINGS)}, not as {request.embeddings[:20]!a}")
    if request.engine not in ENGINES:
        raise InvalidSetting(f"the engine is {' or '.join(ENGINES)}, not {request.engine[:20]!a}")
    if request.engine == "local" and (request.ray_address or request.workers):
        raise InvalidSetting("--ray-address and --workers say how Ray works: add --engine ray, or leave them out")
    if any(not is_unicode(one) for one in (*request.where, *request.fields)):
        raise InvalidSetting("--where or --map is not valid Unicode: write it in UTF-8")
    if not 0.0 < request.sample <= 1.0:
        raise InvalidSetting("a sample of no rows leaves nothing to score: take a share over 0, up to 1")
    sources = _others(find(request.inputs, format=request.format, note=note), request)
    return Plan(
        sources=sources,
        output=request.output,
        shape=_shape(request),
        selection=Selection(request.sample, request.seed, parse_conditions(request.where)),
        rows_per_part=request.rows_per_part,
        limit=request.limit,
        max_rejected=request.max_rejected,
        line_bytes=request.max_row_bytes,
        embeddings=request.embeddings,
        include_prompt=request.include_prompt,
        threads=threads,
    )


def _others(sources: "list[Source]", request: Request) -> "list[Source]":
    """The inputs without the run's own output, which a folder of logs may hold from the second call on."""
    own = request.output.resolve()
    named = [one.removeprefix("file://") for one in request.inputs]
    others = [one for one in sources if "://" in one.url or not Path(one.url).resolve().is_relative_to(own)]
    if not others or any("://" not in one and Path(one).resolve().is_relative_to(own) for one in named):
        raise InvalidSetting(f"the output {request.output} is among the inputs: name another folder for it")
    return others


def _shape(request: Request) -> "Shape | None":
    from classifier.batch.shapes import Shape

    fields = {}
    for one in request.fields:
        name, sign, path = one.partition("=")
        if not sign:
            raise InvalidSetting(f"the map {one[:80]!a} names no path: write it like prompt=request.text")
        fields[name.strip()] = path.strip()
    if request.shape is None and "prompt" in fields:
        return Shape.mapped(fields)
    if request.shape is None and not fields:
        return None
    return Shape.named(request.shape or "auto").overriding(fields)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the process as ever."""
    stop = threading.Event()
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, ask)
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _shown(plan: "Plan") -> Iterator["Callable[[Progress], None]"]:
    """A bar on standard error with rows, rate and time left, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from classifier.batch.extent import Extents

    extents = Extents(plan.sources)
    columns = (
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    terminal = Console(stderr=True)
    with Bar(*columns, console=terminal, disable=not terminal.is_terminal, speed_estimate_period=120) as bar:
        task = bar.add_task("", total=1.0, rows=0, rate=0.0)
        started = bar.get_time()
        begun = False

        def told(done: "Progress") -> None:
            nonlocal begun
            share = extents.done(done.source, done.position)
            if plan.limit:
                share = max(share, min(1.0, done.read / plan.limit))
            if not begun:  # what earlier calls did says nothing of this one's rate
                bar.reset(task, total=1.0, completed=0)
                begun = True
            seconds = max(bar.get_time() - started, 1e-9)
            bar.update(task, completed=share, rows=done.read, rate=done.read / seconds)

        yield told
