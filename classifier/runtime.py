"""Opens what the settings name and puts it together: bundle, store, index and scorer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from classifier.bundle import Bundle, open_bundle
from classifier.config import Settings
from classifier.corpus import SOURCE as SEED_SOURCE
from classifier.errors import InvalidSetting
from classifier.kept import KeptEmbeddings
from classifier.policy import Thresholds
from classifier.scorer import Scorer
from index.live import ExampleIndex, Snapshot, empty_snapshot
from index.store import ExampleStore, SqliteStore


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a command or a server works with.

    Attributes:
        bundle: The opened bundle.
        store: The example store.
        examples: The live index over the store.
        scorer: Scores prompts.
    """

    bundle: Bundle
    store: ExampleStore
    examples: ExampleIndex
    scorer: Scorer


@contextmanager
def open_runtime(settings: Settings, *, store: Path | None = None) -> Iterator[Runtime]:
    """Open bundle and store, give the store the bundle's seed examples, and close it all at the end.

    Args:
        settings: Where everything is.
        store: Another example store than the settings' one.

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
    path = store or settings.store
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = SqliteStore(path)
    try:
        _seed(opened, bundle)
        runtime = [put_together(bundle, opened, settings)]
        del bundle  # whoever is given the runtime may let it go before the store is closed
        yield runtime.pop()
    finally:
        opened.close()


def put_together(bundle: Bundle, store: ExampleStore, settings: Settings, start: Snapshot | None = None) -> Runtime:
    """Make index and scorer of an opened bundle and store.

    Args:
        bundle: The opened bundle.
        store: The example store.
        settings: The operator's thresholds and limits.
        start: What is indexed already.

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
    scorer = Scorer(model, lambda: index.snapshot, max_chars=settings.max_prompt_chars)
    return Runtime(bundle, store, index, scorer)


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


def _seed(store: SqliteStore, bundle: Bundle) -> None:
    """Make the store's seed examples those of the bundle, with the vectors that it brings.

    A text that somebody stored under another source keeps its labels.
    """
    store.replace_source(SEED_SOURCE, bundle.examples)
    encoder = bundle.model.encoder.fingerprint
    missing = store.unembedded(encoder)
    pairs = zip(bundle.examples, bundle.vectors, strict=True)
    store.keep_vectors(encoder, {e.id: vector for e, vector in pairs if e.id in missing})
