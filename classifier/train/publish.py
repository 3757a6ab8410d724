"""Writes a fitted head as the files that a bundle is built from."""

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from classifier import lexical
from classifier.corpus import SeedRow
from classifier.errors import BundleRejected, DataRejected
from classifier.export.weights import ENCODER, RANGES
from classifier.head import OnnxHead
from classifier.lexical import LEXICAL_VERSION
from classifier.manifest import HeadCard
from classifier.text import CANONICAL_VERSION
from classifier.train.features import bags_of
from classifier.train.fit import FittedHead
from classifier.train.linear import Linear
from classifier.windows import WindowPlan
from index.example import content_fingerprint

PARITY = 1e-4


def head_graph(linear: Linear) -> bytes:
    """The head as ONNX: "features" (n, width), "buckets" and "counts" (n, terms) to "logits" (n, labels) float32."""
    width, labels = linear.weights.shape
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width]),
        helper.make_tensor_value_info("buckets", TensorProto.INT64, ["n", "terms"]),
        helper.make_tensor_value_info("counts", TensorProto.FLOAT, ["n", "terms"]),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])
    constants: dict[str, NDArray[np.generic]] = {
        "weights": linear.weights,
        "bias": linear.bias,
        "rarity_16": linear.rarity,
        "lexical_16": linear.lexical,
        "columns": np.array([1], np.int64),
        "least": np.array(1e-9, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["rarity_16"], ["rarity"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["lexical_16"], ["lexical"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["rarity", "buckets"], ["rarities"]),
        helper.make_node("Mul", ["counts", "rarities"], ["rare"]),
        helper.make_node("ReduceL2", ["rare", "columns"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "least"], ["divisor"]),
        helper.make_node("Div", ["rare", "divisor"], ["words"]),
        helper.make_node("Unsqueeze", ["words", "columns"], ["row"]),
        helper.make_node("Gather", ["lexical", "buckets"], ["weighed"]),
        helper.make_node("MatMul", ["row", "weighed"], ["summed"]),
        helper.make_node("Squeeze", ["summed", "columns"], ["from_words"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["from_features"]),
        helper.make_node("Add", ["from_features", "from_words"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "head", inputs, [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def largest_difference(data: bytes, linear: Linear, seed: int) -> float:
    """How far the exported head's logits are from the fitted head's, on random windows."""
    random = np.random.default_rng(seed)
    features = random.normal(0, 0.3, (64, len(linear.weights))).astype(np.float32)
    sequences = [random.integers(0, 30_000, length).tolist() for length in range(64)]
    found = OnnxHead(data).logits(features, lexical.terms(sequences))
    return float(np.abs(found - linear.logits(features, bags_of(sequences))).max())


def head_files(
    head: FittedHead, rows: list[SeedRow], plan: WindowPlan, seed: int, revision: int | None = None
) -> tuple[bytes, HeadCard]:
    """The head as ONNX and what is known of it, once the ONNX head gives the fitted one's logits.

    Args:
        head: The fitted head.
        rows: What it was fitted on.
        plan: How prompts are cut.
        seed: Training's seed.
        revision: The example store's revision that the rows are of; None for the seed corpus.

    Returns:
        The contents of head.onnx, and the card.

    Raises:
        DataRejected: When extraction or a capability cannot be told by what was learnt.
        BundleRejected: When the exported graph's logits differ from the fitted head's.
    """
    for name, (slope, _) in zip(("extraction", *head.labels.capabilities), head.calibration.tolist(), strict=True):
        if not slope > 0:
            raise DataRejected(
                f'"{name}" cannot be learnt from these examples, held-out ones score the wrong way round: add more of them'
            )
    data = head_graph(head.linear)
    apart = largest_difference(data, head.linear, seed)
    if apart > PARITY:
        raise BundleRejected(f"the exported head is off by {apart:.2g}, at most {PARITY:.0e} is allowed: not written")
    card = HeadCard.model_validate(
        {
            "techniques": head.labels.techniques,
            "capabilities": head.labels.capabilities,
            "calibration": [{"slope": round(a, 6), "offset": round(b, 6)} for a, b in head.calibration.tolist()],
            "thresholds": {"review": round(head.review, 4), "flag": round(head.flag, 4)},
            "window_length": plan.length,
            "window_overlap": plan.overlap,
            "token_budget": plan.budget,
            "length_penalty": round(head.pooling.length_penalty, 4),
            "finer_offset": round(head.pooling.finer_offset, 4),
            "least_cosine": round(head.least_cosine, 4),
            "canonical_version": CANONICAL_VERSION,
            "lexical_version": LEXICAL_VERSION,
            "corpus_sha256": content_fingerprint(row.example for row in rows),
            "corpus_size": len(rows),
            "training_revision": revision,
            "seed": seed,
            "report": {**head.report, "onnx_largest_difference": apart},
        }
    )
    return data, card


def write_head(
    folder: Path,
    head: FittedHead,
    layers: bytes,
    ranges: bytes,
    rows: list[SeedRow],
    plan: WindowPlan,
    seed: int,
) -> HeadCard:
    """Write encoder.safetensors, ranges.npz, head.onnx and head.json.

    Args:
        folder: Where to write.
        head: The fitted head.
        layers: The layers of the encoder that it was fitted for, as dump_layers wrote them.
        ranges: The encoder's input ranges.
        rows: What both were fitted on.
        plan: How prompts are cut.
        seed: Training's seed.

    Returns:
        What head.json says.

    Raises:
        BundleRejected: When the exported graph's logits differ from the fitted head's.
    """
    data, card = head_files(head, rows, plan, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENCODER).write_bytes(layers)
    (folder / RANGES).write_bytes(ranges)
    (folder / "head.onnx").write_bytes(data)
    said = card.model_dump(mode="json", exclude_none=True)
    (folder / "head.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return card
