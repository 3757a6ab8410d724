"""The generation in force: bundle, index and thresholds that are swapped as one."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.bundle import Bundle, open_bundle
from classifier.canary import check
from classifier.config import Settings
from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.errors import InvalidSetting, ReloadInProgress, ShuttingDown
from classifier.runtime import Runtime, put_together, threads_of
from classifier.scorer import Scorer
from index.errors import StoreUnavailable
from index.example import Example
from index.live import Snapshot, empty_snapshot
from index.store import ExampleStore

RELOADABLE = ("review_threshold", "flag_threshold", "max_prompt_chars", "threads")
"""The settings that a reload takes over; the others are read at start."""
_EMBEDDED_AT_ONCE = 16
_TOLERANCE = 1e-3
_SWITCH_SECONDS = 0.0005
"""How long the building thread may hold the interpreter against the traffic's threads: a tenth of Python's own 5 ms,
which each of them would else wait again and again in every batch."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Swap:
    """What a reload brought.

    Attributes:
        index_revision: The revision of the examples in force now.
        moved_canaries: Canaries that added examples turn to the wrong side.
        needs_restart: Settings that were changed, but are only read at start.
    """

    index_revision: int
    moved_canaries: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A runtime that is not in force.

    Attributes:
        runtime: The runtime.
        revision: The store's revision from which it was built.
        seeded: Whether the store held the bundle's seed already.
    """

    runtime: Runtime
    revision: int
    seeded: bool


class Generations:
    """Holds the runtime in force. Readers take it once for each piece of work; a reload puts another in its place.

    Reads need no lock. Writes of examples and the moment of the swap exclude each other, so that no example is lost
    between two indexes.
    """

    def __init__(self, runtime: Runtime, settings: Settings, reread: Callable[[], Settings] = Settings) -> None:
        """Begin with an opened runtime.

        Args:
            runtime: What is in force.
            settings: What it was opened with.
            reread: Reads the settings anew.
        """
        self._runtime = runtime
        self._at_start = self._in_force = settings
        self._reread = reread
        self._read_at_start = reread()
        self._writing = threading.Lock()
        self._reloading = threading.Lock()
        self._stopping = threading.Event()

    @property
    def runtime(self) -> Runtime:
        """What is in force; take it once for each piece of work."""
        return self._runtime

    @property
    def reloading(self) -> bool:
        """Whether a candidate is being built."""
        return self._reloading.locked()

    def scorer(self) -> Scorer:
        """The scorer in force; ask once a batch."""
        return self._runtime.scorer

    def add(self, examples: Sequence[Example], request_id: str | None = None) -> tuple[list[Example], int]:
        """Store examples durably and make them searchable in whatever is in force, before this returns.

        Args:
            examples: What to add: all of it or nothing.
            request_id: The writer's own name for this write.

        Returns:
            The examples as they are stored, and a revision of the index that holds them.
        """
        with self._writing:
            index = self._runtime.examples
            return index.add(examples, request_id), index.snapshot.revision

    def stop(self) -> None:
        """Let a reload that is under way end soon, without a swap."""
        self._stopping.set()

    def reload(self) -> Swap:
        """Build a candidate of bundle, examples and settings as they are now, check it, and put it in force.

        The candidate is built beside the runtime in force, which goes on serving; nothing that it uses is changed
        before the candidate has passed. Blocks: call it on a thread.

        Returns:
            What is in force now.

        Raises:
            ReloadInProgress: When another reload is under way.
            InvalidSetting: When the settings cannot be read, or contradict each other or the bundle.
            BundleRejected: When the bundle is missing or does not fit its hashes.
            CanaryFailed: When it decides clear prompts wrongly.
            StoreUnavailable: When the example store cannot be used.
            ShuttingDown: When the server began to stop meanwhile.
        """
        if not self._reloading.acquire(blocking=False):
            raise ReloadInProgress("a reload is under way: wait for it, then ask again if it is still needed")
        switching = sys.getswitchinterval()
        try:
            sys.setswitchinterval(_SWITCH_SECONDS)
            settings, needs_restart = self._settings()
            held = self._runtime.bundle if settings.threads == self._in_force.threads else None
            # The pointer is followed once, so that it may move while the files are read.
            bundle = open_bundle(settings.bundle.resolve(), threads=threads_of(settings), held=held)
            candidate = self._candidate(bundle, settings)
            moved = check(candidate.runtime)
            self._swap(candidate, settings)
            return Swap(self._runtime.examples.snapshot.revision, moved, needs_restart)
        finally:
            sys.setswitchinterval(switching)
            self._reloading.release()

    def _settings(self) -> tuple[Settings, tuple[str, ...]]:
        """The settings at start with what may change since, and the names of what changed but may not."""
        try:
            fresh = self._reread()
        except (ValueError, OSError) as error:
            raise InvalidSetting(
                f"the settings cannot be read again ({type(error).__name__}): see docs/settings.md, mend stillwatch.toml"
            ) from None
        changed = {
            name: getattr(fresh, name)
            for name in Settings.model_fields
            if getattr(fresh, name) != getattr(self._read_at_start, name)
        }
        taken = {name: value for name, value in changed.items() if name in RELOADABLE}
        return self._at_start.model_copy(update=taken), tuple(sorted(changed.keys() - taken.keys()))

    def _candidate(self, bundle: Bundle, settings: Settings) -> _Candidate:
        """Index the bundle's seed and everybody else's examples as if the store held this bundle's seed already."""
        store = self._runtime.store
        revision = store.revision()  # before the rows: what comes later is found twice rather than never
        found = store.since(0)
        others = [example for example in found if example.source != SEED_SOURCE]
        taken = {example.content_hash for example in others}
        rows = [row for row, seed in enumerate(bundle.examples) if seed.content_hash not in taken]
        seeds = [bundle.examples[row] for row in rows]
        seeded = set(map(_content, seeds)) == {_content(example) for example in found if example.source == SEED_SOURCE}
        nothing = empty_snapshot(bundle.model.encoder.dimensions)
        vectors = self._vectors(store, others, bundle, nothing)
        start = nothing.extended([*seeds, *others], np.concatenate([bundle.vectors[rows], vectors]), revision)
        return _Candidate(put_together(bundle, store, settings, start), revision, seeded)

    def _vectors(self, store: ExampleStore, examples: Sequence[Example], bundle: Bundle, nothing: Snapshot) -> Floats:
        """The examples' embeddings by the bundle's encoder: those kept by the store, and the rest made now.

        Half of the time is left to the traffic, and what was made is kept even if the candidate is refused.
        """
        encoder = bundle.model.encoder
        known = {
            name: row for name, row in store.vectors(encoder.fingerprint).items() if _sound(row, encoder.dimensions)
        }
        missing = [example for example in examples if example.id not in known]
        embedder = Scorer(bundle.model, lambda: nothing)
        for start in range(0, len(missing), _EMBEDDED_AT_ONCE):
            some = missing[start : start + _EMBEDDED_AT_ONCE]
            began = time.perf_counter()
            made = dict(zip((e.id for e in some), embedder.embed([e.text for e in some]), strict=True))
            store.keep_vectors(encoder.fingerprint, made)
            known |= made
            if self._stopping.wait(time.perf_counter() - began):
                raise ShuttingDown("the server is stopping: reload another one")
        return np.array([known[e.id] for e in examples], np.float32).reshape(len(examples), encoder.dimensions)

    def _swap(self, candidate: _Candidate, settings: Settings) -> None:
        """Put a candidate in force. Up to the store's own transaction everything can fail; after it, nothing does."""
        bundle, store = candidate.runtime.bundle, candidate.runtime.store
        with self._writing:
            if self._stopping.is_set():
                raise ShuttingDown("the server is stopping: reload another one")
            seeds = {example.content_hash for example in bundle.examples}
            came = store.since(candidate.revision)
            if any(example.content_hash in seeds or example.source == SEED_SOURCE for example in came):
                # Somebody labelled one of the new seed's texts meanwhile, and his label stands; or another process
                # gave the store another seed.
                candidate = self._candidate(bundle, settings)
            candidate.runtime.examples.catch_up()
            if not candidate.seeded:
                store.replace_source(SEED_SOURCE, bundle.examples)
            with suppress(StoreUnavailable):  # then the next write catches up
                candidate.runtime.examples.catch_up()
            self._runtime, self._in_force = candidate.runtime, settings


def _content(example: Example) -> tuple[object, ...]:
    return example.content_hash, example.label, example.technique, example.capabilities


def _sound(row: Floats, dimensions: int) -> bool:
    return row.shape == (dimensions,) and bool(abs(np.linalg.norm(row) - 1.0) <= _TOLERANCE)
