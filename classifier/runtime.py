"""Opens what the settings name and puts it together: bundle, store, index and scorer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from classifier.bundle import Bundle, open_bundle
from classifier.config import Settings
from classifier.corpus import AUTHOR
from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.errors import InvalidSetting
from classifier.kept import KeptEmbeddings
from classifier.policy import Thresholds
from classifier.sampling import Sampling, open_sampling
from classifier.scorer import Scorer
from index.change import Act
from index.contract import ExampleStore
from index.live import ExampleIndex, Snapshot, empty_snapshot
from index.snapshots import SnapshotFile
from index.store import open_store


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a command or a server works with.

    Attributes:
        bundle: The opened bundle.
        store: The example store.
        examples: The live index over the store.
        scorer: Scores prompts.
        kept: The file in which the index's snapshot is kept.
        sampling: The sample of what is scored; None where none is taken.
    """

    bundle: Bundle
    store: ExampleStore
    examples: ExampleIndex
    scorer: Scorer
    kept: SnapshotFile
    sampling: Sampling | None = None


@contextmanager
def open_runtime(settings: Settings, *, store: Path | str | None = None, sampled: bool = False) -> Iterator[Runtime]:
    """Open bundle and store, give the store the bundle's seed examples, and close it all at the end.

    Args:
        settings: Where everything is.
        store: Another example store than the settings' one.
        sampled: Whether what is scored is traffic, of which a sample is taken.

    Yields:
        The opened parts.

    Raises:
        BundleRejected: When the bundle is missing or does not fit its hashes.
        StoreUnavailable: When the example store cannot be used.
    """
    # Threads of matrix products would wait for a core on which the encoder works, and the search gains little by them.
    threadpool_limits(1, user_api="blas")
    bundle = open_bundle(settings.bundle.resolve(), threads=threads_of(settings))
    thresholds_in_force(bundle.model.thresholds, settings)  # what contradicts itself ends before a store is made
    opened = open_examples_store(store or settings.store_address)
    try:
        seed(opened, bundle)
        start = kept_by(settings, bundle).open(opened)
        runtime = [put_together(bundle, opened, settings, start, sampled=sampled)]
        del start
        del bundle  # whoever is given the runtime may let it go before the store is closed
        yield runtime.pop()
    finally:
        opened.close()


def open_examples_store(address: Path | str) -> ExampleStore:
    """Open the example store, making a file's folder when it is not there.

    Args:
        address: A file, or a postgresql:// URL.

    Returns:
        The opened store.

    Raises:
        StoreUnavailable: When it cannot be used, or the address is of no known kind.
    """
    if isinstance(address, Path):
        address.parent.mkdir(parents=True, exist_ok=True)
    return open_store(address)


def put_together(
    bundle: Bundle, store: ExampleStore, settings: Settings, start: Snapshot | None = None, *, sampled: bool = False
) -> Runtime:
    """Make index and scorer of an opened bundle and store.

    Args:
        bundle: The opened bundle.
        store: The example store.
        settings: The operator's thresholds and limits.
        start: What is indexed already.
        sampled: Whether what is scored is traffic, of which a sample is taken once it is switched on.

    Returns:
        The parts. They hold each other in no circle, so that all of them go when the last user does.

    Raises:
        InvalidSetting: When the settings' thresholds contradict the bundle's.
        StoreUnavailable: When the example store cannot be read.
    """
    model = replace(bundle.model, thresholds=thresholds_in_force(bundle.model.thresholds, settings))
    if settings.window_cache_entries:
        model = replace(model, encoder=KeptEmbeddings(model.encoder, entries=settings.window_cache_entries))
    encoder = model.encoder
    nothing = empty_snapshot(encoder.dimensions)
    embedder = Scorer(model, lambda: nothing)
    index = ExampleIndex(store, embedder.embed, encoder.fingerprint, encoder.dimensions, start=start)
    sampling = open_sampling(model, settings) if sampled else None
    observer = None if sampling is None else sampling.observe
    scorer = Scorer(model, lambda: index.snapshot, max_chars=settings.max_prompt_chars, observer=observer)
    return Runtime(bundle, store, index, scorer, kept_by(settings, bundle), sampling)


def kept_by(settings: Settings, bundle: Bundle) -> SnapshotFile:
    """The file in which an index by the bundle's encoder is kept; nothing is read or written yet."""
    encoder = bundle.model.encoder
    return SnapshotFile(settings.index, encoder.fingerprint, encoder.dimensions)


def threads_of(settings: Settings) -> int:
    """Threads of one run of the encoder: the settings' number, or one for each core."""
    return settings.threads or len(os.sched_getaffinity(0))


def thresholds_in_force(bundle: Thresholds, settings: Settings) -> Thresholds:
    """The bundle's thresholds with the settings' over them.

    Args:
        bundle: What the bundle brings.
        settings: What the operator set.

    Returns:
        Thresholds in order: a flag threshold below the bundle's review threshold draws that one down with it.

    Raises:
        InvalidSetting: When the operator's review threshold is over the flag threshold.
    """
    flag = bundle.flag if settings.flag_threshold is None else settings.flag_threshold
    review = min(bundle.review, flag) if settings.review_threshold is None else settings.review_threshold
    if review > flag:
        raise InvalidSetting(f"the review threshold {review} is over the flag threshold {flag}: lower it, or set both")
    return Thresholds(review, flag)


def seed(store: ExampleStore, bundle: Bundle) -> None:
    """Make the store's seed examples those of the bundle, with the vectors that it brings.

    A text that somebody stored under another source keeps its labels and its state.

    Args:
        store: The example store.
        bundle: The opened bundle.

    Raises:
        StoreUnavailable: When the store cannot be written.
    """
    replace_seed(store, bundle)
    keep_seed_vectors(store, bundle)


def replace_seed(store: ExampleStore, bundle: Bundle) -> None:
    """Make the store's seed examples those of the bundle, as one write."""
    store.replace_source(SEED_SOURCE, bundle.examples, Act(AUTHOR, f"seed of bundle {bundle.model.version}"))


def keep_seed_vectors(store: ExampleStore, bundle: Bundle) -> None:
    """Keep the vectors that the bundle brings, of the examples that have none yet."""
    encoder = bundle.model.encoder.fingerprint
    missing = store.unembedded(encoder)
    pairs = zip(bundle.examples, bundle.vectors, strict=True)
    store.keep_vectors(encoder, {e.id: vector for e, vector in pairs if e.id in missing})
