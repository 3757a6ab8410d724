"""The generation in force: bundle, index and thresholds that are swapped as one."""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from classifier.bundle import Bundle, open_bundle
from classifier.canary import check
from classifier.config import Settings
from classifier.corpus import AUTHOR as SEED_AUTHOR
from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.errors import InvalidSetting, ReloadInProgress, ShuttingDown
from classifier.runtime import Runtime, keep_seed_vectors, put_together, replace_seed, threads_of
from classifier.scorer import Scorer
from index.change import Act, Action
from index.contract import ExampleStore, Filter
from index.errors import StoreUnavailable
from index.example import Example, State
from index.live import Snapshot, empty_snapshot

RELOADABLE = ("review_threshold", "flag_threshold", "max_prompt_chars", "threads")
"""The settings that a reload takes over; the others are read at start."""
_EMBEDDED_AT_ONCE = 16
_PAGE = 1_000
_TOLERANCE = 1e-3
_SWITCH_SECONDS = 0.0005
"""How long the building thread may hold the interpreter against the traffic's threads: a tenth of Python's own 5 ms,
which each of them would else wait again and again in every batch."""

Floats = NDArray[np.float32]
T = TypeVar("T")


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


class Followers(Protocol):
    """Other processes that score with what is in force here."""

    def stage(self, bundle: Path, settings: Settings, version: str) -> Any:
        """Start processes with another bundle or other settings, which are not in force yet."""

    def catch_up(self, revision: int, staged: Any = None, *, anew: bool = False) -> None:
        """Wait until the processes have the examples of a revision: those in force, or staged ones."""

    def swap(self, staged: Any) -> None:
        """Put staged processes in force; the others end."""

    def drop(self, staged: Any) -> None:
        """End staged processes."""


class Nobody:
    """Follows where this process alone scores."""

    def stage(self, bundle: Path, settings: Settings, version: str) -> None:
        """Start nothing."""

    def catch_up(self, revision: int, staged: None = None, *, anew: bool = False) -> None:
        """Wait for nobody."""

    def swap(self, staged: None) -> None:
        """Put nothing in force."""

    def drop(self, staged: None) -> None:
        """End nothing."""


@dataclass(frozen=True, slots=True)
class Candidate:
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
        self._followers: Followers = Nobody()

    def followed_by(self, followers: Followers) -> None:
        """From now on, other processes score with what is in force here."""
        self._followers = followers

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

    def add(self, examples: Sequence[Example], act: Act) -> tuple[list[Example], int]:
        """Store examples durably and make active ones searchable in whatever is in force, before this returns.

        Args:
            examples: What to add: all of it or nothing.
            act: Who adds, and why.

        Returns:
            The examples as they are stored, and a revision of the index that holds them.
        """
        index = self._runtime.examples
        vectors: Mapping[str, Floats] | None = index.embedded(examples)  # which keeps no other writer waiting
        with self._writing:
            if index is not self._runtime.examples:  # a reload came between, perhaps with another encoder
                index, vectors = self._runtime.examples, None
            stored, revision = index.add(examples, act, vectors), index.snapshot.revision
            self._followers.catch_up(revision)
            return stored, revision

    def write(self, work: Callable[[ExampleStore], T]) -> tuple[T, int]:
        """Change the store, and bring whatever is in force up to it before this returns.

        Args:
            work: Makes one write.

        Returns:
            What it returned, and a revision of the index that holds the write.
        """
        with self._writing:
            done, revision = self._runtime.examples.write(work)
            self._followers.catch_up(revision)
            return done, revision

    def follow(self) -> None:
        """Bring whatever is in force to the store's revision, whoever wrote to it.

        Never between a reload's write of the new bundle's seed and its swap: the old bundle would get the new seed.
        """
        with self._writing:
            index = self._runtime.examples
            index.catch_up()
            self._followers.catch_up(index.snapshot.revision)

    def sample(self) -> None:
        """Sample what is scored from now on."""
        if self._runtime.sampling is not None:
            self._runtime.sampling.take_over(None)

    def keep_sample(self) -> None:
        """Write the sample of what was scored."""
        if self._runtime.sampling is not None:
            self._runtime.sampling.save()

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
            folder = settings.bundle.resolve()
            bundle = open_bundle(folder, threads=threads_of(settings), held=held)
            candidate = self._candidate(bundle, settings)
            moved = check(candidate.runtime)
            staged = self._followers.stage(folder, settings, bundle.model.version)
            try:
                self._swap(candidate, settings, staged)
            except BaseException:
                self._followers.drop(staged)
                raise
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

    def _candidate(self, bundle: Bundle, settings: Settings) -> Candidate:
        sampled = self._runtime.sampling is not None
        mine, other = self._runtime.bundle.model.encoder.fingerprint, bundle.model.encoder.fingerprint
        held = self._runtime.examples.snapshot if mine == other else None
        return self.candidate(self._runtime.store, bundle, settings, self._stopping, held=held, sampled=sampled)

    @classmethod
    def candidate(
        cls,
        store: ExampleStore,
        bundle: Bundle,
        settings: Settings,
        stopping: threading.Event | None = None,
        *,
        held: Snapshot | None = None,
        sampled: bool = False,
    ) -> Candidate:
        """Index the bundle's seed and everybody else's examples as if the store held this bundle's seed already.

        Args:
            store: The example store; nothing but missing embeddings is written to it.
            bundle: The opened bundle.
            settings: The operator's thresholds and limits.
            stopping: Ends the work early when it is set.
            held: An index by the same encoder, whose graphs are taken over if it has any.
            sampled: Whether what is scored is traffic, of which a sample is taken once it is switched on.

        Returns:
            The candidate.

        Raises:
            InvalidSetting: When the settings' thresholds contradict the bundle's.
            StoreUnavailable: When the example store cannot be used.
            ShuttingDown: When it was ended early.
        """
        revision = store.revision()  # before the rows: what comes later is found twice rather than never
        found = store.since(0)
        wanted = {seed.content_hash: seed for seed in bundle.examples}
        # What somebody accepted, relabelled or took back by hand stays as it is, whatever the bundle says of it.
        revoked = _revoked(store)
        kept = {e.id for e in (*found, *revoked) if _differs(e, wanted) and _by_hand(store, e)}
        taken = {e.content_hash for e in found if e.source != SEED_SOURCE or e.id in kept}
        taken |= {e.content_hash for e in revoked if e.source != SEED_SOURCE or e.id in kept}
        others = [e for e in found if e.state is State.ACTIVE and (e.source != SEED_SOURCE or e.id in kept)]
        rows = [row for row, seed in enumerate(bundle.examples) if seed.content_hash not in taken]
        seeds = [bundle.examples[row] for row in rows]
        there = [e for e in found if e.state is State.ACTIVE and e.source == SEED_SOURCE and e.id not in kept]
        seeded = set(map(_content, seeds)) == set(map(_content, there))
        nothing = empty_snapshot(bundle.model.encoder.dimensions)
        vectors = cls._vectors(store, others, bundle, nothing, stopping or threading.Event())
        begun = held if held is not None and held.built else nothing
        start = begun.holding([*seeds, *others], np.concatenate([bundle.vectors[rows], vectors]), revision)
        return Candidate(put_together(bundle, store, settings, start, sampled=sampled), revision, seeded)

    @staticmethod
    def _vectors(
        store: ExampleStore,
        examples: Sequence[Example],
        bundle: Bundle,
        nothing: Snapshot,
        stopping: threading.Event,
    ) -> Floats:
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
            if stopping.wait(time.perf_counter() - began):
                raise ShuttingDown("the server is stopping: reload another one")
        return np.array([known[e.id] for e in examples], np.float32).reshape(len(examples), encoder.dimensions)

    def _swap(self, candidate: Candidate, settings: Settings, staged: Any) -> None:
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
                self._followers.catch_up(0, staged, anew=True)
            candidate.runtime.examples.catch_up()
            if not candidate.seeded:
                replace_seed(store, bundle)
            with suppress(StoreUnavailable):  # then the next write catches up
                keep_seed_vectors(store, bundle)
                candidate.runtime.examples.catch_up()
            if candidate.runtime.sampling is not None:
                candidate.runtime.sampling.take_over(self._runtime.sampling)
            self._followers.catch_up(candidate.runtime.examples.snapshot.revision, staged)
            self._followers.swap(staged)
            self._runtime, self._in_force = candidate.runtime, settings


def _revoked(store: ExampleStore) -> list[Example]:
    """All revoked examples, which `since` does not tell."""
    found: list[Example] = []
    token = ""
    while True:
        page, token = store.page(_PAGE, token, Filter(state=State.REVOKED))
        found += page
        if not token:
            return found


def _differs(example: Example, wanted: Mapping[str, Example]) -> bool:
    """Whether an example of the bundle's source is not as the bundle has it."""
    if example.source != SEED_SOURCE:
        return False
    seed = wanted.get(example.content_hash)
    active = example.state is State.ACTIVE
    return active if seed is None else not (active and seed.same_labels(example))


def _by_hand(store: ExampleStore, example: Example) -> bool:
    """Whether somebody, and not a bundle, made an example what it is."""
    last = store.history(example.id)[-1]
    return last.actor != SEED_AUTHOR and last.action is not Action.ADD


def _content(example: Example) -> tuple[object, ...]:
    return example.content_hash, example.label, example.technique, example.capabilities


def _sound(row: Floats, dimensions: int) -> bool:
    return row.shape == (dimensions,) and bool(abs(np.linalg.norm(row) - 1.0) <= _TOLERANCE)
