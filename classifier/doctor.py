"""`stillwatch doctor`: can this machine score, and does a server answer?"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from classifier.bundle import Bundle, open_bundle
from classifier.config import Settings
from classifier.errors import BundleRejected, StillwatchError
from classifier.finding import Finding, find
from classifier.runtime import open_examples_store, thresholds_in_force
from classifier.text import fold
from index.errors import IndexRoomError

_LEAST_COSINE = 0.999
_CHECKED = 16


def check(settings: Settings, server: str | None = None) -> Iterator[Finding]:
    """Run every check, whatever the others find.

    Args:
        settings: Where everything is.
        server: Host and port of a server to ask, or None.

    Yields:
        A finding for each check.
    """
    threads = settings.threads or len(os.sched_getaffinity(0))
    opened: list[Bundle] = []

    def bundle() -> str:
        opened.append(open_bundle(settings.bundle, threads=threads))
        found = opened[0]
        thresholds_in_force(found.model.thresholds, settings)
        return f"{found.model.version}, {found.manifest.precision}, every hash fits"

    def encoder() -> str:
        if not opened:
            raise BundleRejected("there is no bundle to check")
        cosine = _self_parity(opened[0])
        if cosine < _LEAST_COSINE:
            raise BundleRejected(f"embeddings differ from the bundle's (cosine {cosine:.4f}): build the bundle here")
        return f"{threads} threads, cosine to the bundle's own embeddings at least {cosine:.5f}"

    yield find("bundle", bundle)
    yield find("encoder", encoder)
    yield find("store", lambda: _store(settings.store_address))
    if server is not None:
        from classifier.probe import Local, check_server

        version = opened[0].model.version if opened else None
        yield from check_server(server, settings, Local(version, _revision(settings.store_address)))


def _self_parity(bundle: Bundle) -> float:
    """The lowest cosine of examples encoded here to the vectors that the bundle brings."""
    encoder, length = bundle.model.encoder, bundle.model.windows.length
    chosen = range(0, len(bundle.examples), max(1, len(bundle.examples) // _CHECKED))
    tokens = encoder.tokenise([fold(bundle.examples[i].text) for i in chosen])
    rows = encoder.encode([found.ids[:length] for found in tokens])
    return float(np.sum(rows * bundle.vectors[list(chosen)], axis=1).min())


def _revision(address: Path | str) -> int | None:
    """The store's revision; None when there is no store that can be read."""
    if not _is_there(address):
        return None
    try:
        store = open_examples_store(address)
    except (IndexRoomError, StillwatchError):
        return None
    try:
        return store.revision()
    except IndexRoomError:
        return None
    finally:
        store.close()


def _store(address: Path | str) -> str:
    if not _is_there(address):
        return "not there yet: the first start makes it"
    store = open_examples_store(address)
    try:
        kind = "a file" if isinstance(address, Path) else "PostgreSQL"  # never the address, which may hold a password
        return f"{len(store.since(0))} examples at revision {store.revision()}, in {kind}"
    finally:
        store.close()


def _is_there(address: Path | str) -> bool:
    return not isinstance(address, Path) or address.exists()
