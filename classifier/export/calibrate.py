"""Which values reach each matrix product: found once on the seed corpus, kept as ranges, used by the int8 form."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import onnxruntime as ort

from classifier.encoder import OnnxEncoder
from classifier.errors import BundleRejected
from classifier.export.graph import Floats, Ranges, fp32_graph, probe_graph, products
from classifier.export.weights import ModelFiles
from classifier.text import fold


def measure_ranges(files: ModelFiles, texts: Sequence[str], length: int, *, threads: int) -> Ranges:
    """Run the exact graph over texts and note the lowest and highest input of each channel.

    Args:
        files: The published model.
        texts: Calibration texts.
        length: Tokens of the longest window that is served.
        threads: Threads of one run.

    Returns:
        The ranges, rounded to float16 so that they are small to keep.
    """
    tokens = OnnxEncoder(fp32_graph(files.tensors), files.tokenizer, threads=threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(probe_graph(files.tensors), options, providers=["CPUExecutionProvider"])
    names = [f"{product}.{end}" for product in products(files.tensors) for end in ("low", "high")]
    found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for text in tokens.tokenise([fold(text) for text in texts]):
        ids = np.array([tokens.framed(text.ids[:length])], np.int64)
        values = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for product, low, high in zip(products(files.tensors), values[0::2], values[1::2], strict=True):
            held = found.get(product, np.stack([low, high]))
            found[product] = np.stack([np.minimum(held[0], low), np.maximum(held[1], high)])
    return {product: values.astype(np.float16).astype(np.float32) for product, values in found.items()}


def dump_ranges(ranges: Ranges) -> bytes:
    """The ranges as an .npz archive of float16 arrays."""
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{k: v.astype(np.float16) for k, v in ranges.items()})
    return buffer.getvalue()


def load_ranges(data: bytes, weights: Mapping[str, Floats]) -> Ranges:
    """Read what dump_ranges wrote.

    Args:
        data: The archive.
        weights: The encoder's tensors, whose products it must cover.

    Returns:
        The ranges.

    Raises:
        BundleRejected: When a product's range is missing.
    """
    with np.load(BytesIO(data), allow_pickle=False) as archive:
        missing = set(products(weights)) - set(archive.files)
        if missing:
            raise BundleRejected(
                "ranges.npz does not cover every matrix product: run  stillwatch train  with --new-encoder"
            )
        return {name: archive[name].astype(np.float32) for name in products(weights)}
